"""What the benchmarks share: the machine in words, medians, a frame, a PSF that varies, and the yardstick."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from scipy.signal import oaconvolve

from psfmatch import BasisPSF, Box, DoubleGaussianPSF, Exposure, Field, Mask, MoffatPSF
from psfmatch.machine import processors
from psfmatch.moments import SIGMA_TO_FWHM


def print_machine(*packages: str) -> None:
    """The machine and the versions that the numbers belong to."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    system = f"{platform.system()}, Python {platform.python_version()}"
    print(f"{model}, {processors()} of {os.cpu_count()} processors, {system}")
    found = []
    for name in ("psfmatch", "numpy", "scipy", *packages):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    print(", ".join(found))


def medians(work: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median seconds of each piece of work, in rounds, so that what slows the machine slows all of them.

    In each round a piece is run twice and the second run counts: the first pays for the memory that the piece before it
    gave back to the system, which can double the time of what is short.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeat + 1):
        for name, run in work.items():
            run()
            start = time.perf_counter()
            run()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def frame(shape: tuple[int, int], psf: BasisPSF | None = None, *, bad: float = 0.0) -> Exposure:
    """Sky with stars, a variance and flags; ``bad``: the share of pixels that are NaN, beside a column and an area."""
    rng = np.random.default_rng(5)
    image = rng.normal(100.0, 10.0, shape).astype(np.float32)
    for y, x in zip(rng.integers(0, shape[0], shape[0]), rng.integers(0, shape[1], shape[0]), strict=True):
        image[y, x] += 10 ** rng.uniform(2, 5)
    if bad:
        image[rng.uniform(size=shape) < bad] = np.nan
        image[:, shape[1] // 3] = np.nan
        image[shape[0] // 4 : shape[0] // 4 + 40, shape[1] // 2 : shape[1] // 2 + 100] = 1e30
    variance = np.full(shape, 100.0, np.float32)
    flags = np.where(rng.uniform(size=shape) < 1e-4, 8, 0).astype(np.int32)
    return Exposure(image, variance=variance, mask=Mask(flags), psf=psf)


def varying_psf(box: Box, size: int = 31) -> BasisPSF:
    """A Moffat whose width and ellipticity drift over the field, as a mean stamp and its derivatives."""

    def stamp(**changes: float) -> np.ndarray:
        options = {"fwhm": 3.6, "beta": 3.0, "ellipticity": 0.05, "angle": 20.0} | changes
        return MoffatPSF(**options).stamps(x=0, y=0, shape=(size, size))[0]

    mean = stamp()
    basis = np.array([mean, stamp(fwhm=3.7) - mean, stamp(ellipticity=0.08) - mean, stamp(angle=50.0) - mean])
    coefficients = np.zeros((4, 6))
    coefficients[0, 0] = 1.0
    coefficients[1] = 0.0, 3.5, 2.0, 0.3, -1.0, 0.2
    coefficients[2] = 0.2, 0.6, -0.5, 0.1, 0.2, 0.3
    coefficients[3] = 0.1, -0.4, 0.6, 0.2, 0.1, -0.2
    return BasisPSF(basis, Field(coefficients, box))


def target() -> DoubleGaussianPSF:
    """A double Gaussian, as Rubin's software models a target."""
    sigma = 5.0 / SIGMA_TO_FWHM
    return DoubleGaussianPSF(sigma1=sigma, sigma2=2 * sigma, b=0.1)


def yardstick(image: np.ndarray, side: int = 21) -> Callable[[], object]:
    """One convolution of the image alone with one constant kernel, by SciPy."""
    constant = np.random.default_rng(1).uniform(size=(side, side)).astype(np.float32)
    return lambda: oaconvolve(image, constant, mode="same")
