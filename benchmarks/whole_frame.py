#!/usr/bin/env python
"""A whole frame: fit and convolution of a spatially varying order-2 kernel of 21 px, image + variance + mask.

    python benchmarks/whole_frame.py [--size 4096] [--repeat 3]

Seconds are medians over the repeats; the yardstick, one ``scipy.signal.oaconvolve`` of the same float32 image with
one constant kernel of the same size, is measured in the same run, so that the ratio can be compared between machines.
Memory is the process's peak above what it held before the work, outputs included.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from scipy.signal import oaconvolve

from psfmatch.convolve import FFT, convolve
from psfmatch.exposure import Exposure, Mask
from psfmatch.fields import Field
from psfmatch.geometry import Box
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.psf import BasisPSF, DoubleGaussianPSF, MoffatPSF
from psfmatch.solve import AlardLupton


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


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    box = Box.from_shape((options.size, options.size))
    rng = np.random.default_rng(5)
    image = rng.normal(100.0, 10.0, box.shape).astype(np.float32)
    for y, x in rng.integers(20, options.size - 20, (options.size, 2)):
        image[y, x] += 10 ** rng.uniform(2, 5)
    variance = np.full(box.shape, 100.0, np.float32)
    flags = np.where(rng.uniform(size=box.shape) < 1e-4, 8, 0).astype(np.int32)
    exposure = Exposure(image, variance=variance, mask=Mask(flags), box=box, psf=varying_psf(box))
    sigma = 5.0 / SIGMA_TO_FWHM
    target = DoubleGaussianPSF(sigma1=sigma, sigma2=2 * sigma, b=0.1)
    solvers = {
        "as Rubin's task": AlardLupton(border="cut", sum_rule="overwrite", scale_by_fwhm=False),
        "whole convolutions": AlardLupton(scale_by_fwhm=False),
    }

    constant = rng.uniform(size=(21, 21)).astype(np.float32)
    baseline = peak_bytes()
    times: dict[str, list[float]] = {name: [] for name in [*solvers, "convolution", "yardstick"]}
    for _ in range(options.repeat):
        for name, solver in solvers.items():
            start = time.perf_counter()
            solution = solver.solve(solver.sample(exposure.psf, target, box))
            times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        convolve(exposure, solution.kernel, convolver=FFT())
        times["convolution"].append(time.perf_counter() - start)
        if len(times["convolution"]) == 1:
            memory = peak_bytes() - baseline
        start = time.perf_counter()
        oaconvolve(image, constant, mode="same")
        times["yardstick"].append(time.perf_counter() - start)
    median = {name: float(np.median(t)) for name, t in times.items()}
    yard = median.pop("yardstick")
    outputs = image.nbytes + variance.nbytes + flags.nbytes
    print(f"{options.size} x {options.size}, kernel 21 px, order 2; yardstick {yard:.2f} s")
    for name, seconds in median.items():
        print(f"  {name:18s} {seconds:6.2f} s  {seconds / yard:6.1f} yardsticks")
    print(f"  peak memory above the inputs {memory / 2**30:.2f} GiB ({memory / outputs:.2f} x the outputs)")


if __name__ == "__main__":
    main()
