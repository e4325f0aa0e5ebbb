#!/usr/bin/env python
"""Real PSF stamps matched with the defaults: JWST and HST to F444W, Herschel to 500 um.

    python benchmarks/real_psfs.py [--data ../shared/data/psf_models] [--stamp-sums]

The data are not part of the package: the script needs jwst_hst_smacs0723/*.fits (grizli-psf-library, 101 x 101 px of
0.04 arcsec) and herschel/*_psf.fits (ProFound's H-ATLAS PSFs, on 3 to 12 arcsec) under ``--data``, and says so
without them.  Stamps are brought to the pixels of the science image (`psfmatch.prepare`) and to unit sum, or
left with the sum it has (``--stamp-sums``).

The encircled-energy error is the largest difference of the growth curves of the matched and the target PSF at any
radius of 1 px and more; the bar is 1e-3 for every pair whose target is the broader one.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from scipy.signal import fftconvolve

from psfmatch import Stamp, matching_kernel
from psfmatch.moments import fwhm
from psfmatch.prepare import prepared_pair
from psfmatch.solve import FreeForm
from psfmatch.solve.fourier import Fourier

JWST = {
    "F435W": "f435w", "F606W": "f606w", "F814W": "f814w",
    "F090W": "nrca3-f090w-smacs", "F150W": "nrca3-f150w-smacs", "F200W": "nrca3-f200w-smacs",
    "F277W": "nrca5-f277w-smacs", "F356W": "nrca5-f356w-smacs", "F160W": "f160w",
}  # fmt: skip
HERSCHEL = {"100": ("p100", 3.0), "160": ("p160", 4.0), "250": ("s250", 6.0), "350": ("s350", 8.0)}
SOLVERS = {"FreeForm": FreeForm(), "Fourier": Fourier()}
BAR = 1e-3


class Pair(NamedTuple):
    name: str
    science: np.ndarray
    target: np.ndarray


def stamp(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(fits.getdata(path), float)


def pairs(data: Path, stamp_sums: bool) -> Iterator[Pair]:
    def finished(image: np.ndarray) -> np.ndarray:
        return image if stamp_sums else image / image.sum()

    folder = data / "jwst_hst_smacs0723"
    target = stamp(folder / "psf-smacs0723-nrca5-f444w-smacs.fits")
    for name, file in JWST.items():
        science = stamp(folder / f"psf-smacs0723-{file}.fits")
        yield Pair(f"{name} -> F444W", *map(finished, prepared_pair(science, target)))
    for name, (file, scale) in HERSCHEL.items():
        images = stamp(data / "herschel" / f"{file}_psf.fits"), stamp(data / "herschel" / "s500_psf.fits")
        both = prepared_pair(*images, science_scale=scale, target_scale=12.0)
        yield Pair(f"{name} -> 500 um", *(image / image.sum() for image in both))


def ee_error(kernel: np.ndarray, science: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The largest difference of the growth curves at r >= 1 px, and the residual, on whole convolutions."""
    got = fftconvolve(science, kernel)
    size = [max(a, b) for a, b in zip(got.shape, target.shape, strict=True)]
    whole = np.zeros(size)
    for image, sign in ((got, 1.0), (target, -1.0)):
        at = [(n - m) // 2 for n, m in zip(size, image.shape, strict=True)]
        whole[at[0] : at[0] + image.shape[0], at[1] : at[1] + image.shape[1]] += sign * image
    y, x = (np.arange(n) - n // 2 for n in size)
    r2 = (y[:, None] ** 2 + x[None, :] ** 2).ravel()
    growth = np.cumsum(np.bincount(r2, weights=whole.ravel()))
    return float(np.abs(growth[1:]).max()), float(np.linalg.norm(whole) / np.linalg.norm(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "psf_models"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--stamp-sums", action="store_true", help="JWST stamps keep the sums they have (0.95 to 1.11)")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(
            f"{options.data}: not there; give the folder of the PSF models with --data (see the docstring)"
        )
    columns = "pair", "FWHM px", "stamps", "solver", "EE error", "residual", "gain", "sum", "size", "s", "outcome"
    print("{:16s} {:>10s} {:>8s} {:9s} {:>8s} {:>8s} {:>7s} {:>7s} {:>4s} {:>6s} {}".format(*columns))
    for pair in pairs(options.data, options.stamp_sums):
        widths = f"{fwhm(pair.science):.2f} {fwhm(pair.target):.2f}"
        sizes = f"{len(pair.science)} {len(pair.target)}"
        for name, solver in SOLVERS.items():
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                # The stamps are judged as they lie: what is 0.17 px off the middle of its stamp shall stay there.
                stamps = (Stamp(image, center="middle") for image in (pair.science, pair.target))
                solution = matching_kernel(*stamps, solver=solver, throw=False)
            seconds = time.perf_counter() - start
            kernel = solution.kernel.stamps(x=0, y=0)[0]
            error, residual = ee_error(kernel, pair.science, pair.target)
            print(
                f"{pair.name:16s} {widths:>10s} {sizes:>8s} {name:9s} {error:8.1e} {residual:8.1e} "
                f"{np.sum(kernel**2):7.4f} {kernel.sum():7.4f} {len(kernel):4d} {seconds:6.2f} "
                f"{solution.outcome.name}{' (warned)' * bool(caught)}{'' if error <= BAR else '  > bar'}"
            )


if __name__ == "__main__":
    main()
