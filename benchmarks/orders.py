#!/usr/bin/env python
"""Match, then warp; or warp, then match: which gives the stars of a coadd the target's shape, their flux, less noise.

    python benchmarks/orders.py [--exposures 3] [--size 260] [--fwhm 2.2 3 4.5]

Simulated stars of known flux, seen by exposures turned by up to 30 degrees and moved by fractions of a pixel, whose
PSFs vary over the field and are given to the program as stamps; then the real frames that `psfmatch demo` adds.
Interpolated with the default, and with the Lanczos-3 function of Rubin's software.  ``flux noise`` is the scatter of
the flux of a point source, fitted with the target, on sky without stars: of the noise alone, taken through the same
kernels and weights; ``foreseen`` what the coadd says of it.  Times are those of the processor.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from functools import partial

import numpy as np
from common import print_machine

from psfmatch import (
    CoaddInput,
    Exposure,
    FunctionPSF,
    Grid,
    Kaiser,
    Lanczos,
    MoffatPSF,
    Recipe,
    coadd,
    psf_flux_variance,
    read_exposure,
)
from psfmatch.cli.demo import FRAMES, TARGET, demo_data
from psfmatch.cli.demo_coadd import ZERO_POINTS
from psfmatch.geometry import FloatArray
from psfmatch.stars import fit_moffat

ORDERS = ("match-warp", "warp-match")
SCALE = 0.263
SIGMA = 1.0
FLUX = 1e5
HALF = 12
STEP = 45
PLACES = ((229.8, 166.2), (222.3, 65.3))  # of the stars of the real field, on its grid


def psf_at(k: int, fwhm: float, size: int, x: float, y: float) -> MoffatPSF:
    """The PSF of exposure k: its width drifts by 6 % over the field."""
    return MoffatPSF(
        fwhm=fwhm * (0.95 + 0.03 * (k % 4) + 0.06 * (x - y) / size), beta=3.0, ellipticity=0.08, angle=50.0 * k
    )


def stamp_at(k: int, fwhm: float, size: int, x: float, y: float) -> FloatArray:
    """As a stamp, all that a program is told."""
    return psf_at(k, fwhm, size, x, y).stamps(x=0, y=0, shape=(51, 51))[0]


def stars_on(grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Positions on the grid, each at another fraction of a pixel."""
    ny, nx = grid.shape
    x, y = (a.ravel() for a in np.meshgrid(np.arange(50.0, nx - 50, STEP), np.arange(50.0, ny - 50, STEP)))
    k = np.arange(x.size)
    return x + (k * 0.754877) % 1.0, y + (k * 0.569840) % 1.0


def exposure(k: int, fwhm: float, grid: Grid, *, noise: bool) -> Exposure:
    """The stars without noise, or the noise without stars."""
    size = int(1.4 * grid.shape[0])
    rng = np.random.default_rng(k)
    ra, dec = 186.7 + 1e-4 * rng.normal(), 25.4 + 1e-4 * rng.normal()
    wcs = Grid.centered(ra, dec, shape=(size, size), pixel_scale=SCALE, rotation=rng.uniform(-30, 30)).wcs
    if noise:
        image = rng.normal(0.0, SIGMA, (size, size))
    else:
        image = np.zeros((size, size))
        for x, y in zip(*wcs.world_to_pixel_values(*grid.wcs.pixel_to_world_values(*stars_on(grid))), strict=True):
            rows, columns = np.mgrid[round(y) - 40 : round(y) + 41, round(x) - 40 : round(x) + 41]
            good = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
            light = psf_at(k, fwhm, size, float(x), float(y)).pixels(dx=columns[good] - x, dy=rows[good] - y)
            image[rows[good], columns[good]] += FLUX * light
    psf = FunctionPSF(partial(stamp_at, k, fwhm, size), shape=(51, 51))
    return Exposure(image.astype(np.float32), variance=np.full(image.shape, SIGMA**2, np.float32), psf=psf, wcs=wcs)


def judged(image: FloatArray, target: MoffatPSF, x: float, y: float) -> tuple[float, float]:
    """Residual of a star's shape, and its flux in the target's shape, about a position that is known."""
    row, column = round(y), round(x)
    dy, dx = np.mgrid[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1]
    cut = image[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1].astype(float).ravel()
    model = target.pixels(dx=dx.ravel() - x, dy=dy.ravel() - y)
    flux = float(cut @ model / (model @ model))
    return float(np.linalg.norm(cut - flux * model) / np.linalg.norm(flux * model)), flux


def simulated(fwhm: float, exposures: int, size: int) -> None:
    grid = Grid.centered(186.7, 25.4, shape=(size, size + 20), pixel_scale=SCALE)
    target = MoffatPSF(fwhm=1.3 * 1.07 * fwhm, beta=3.5)
    model = target.stamps(x=0, y=0, shape=(2 * HALF + 1, 2 * HALF + 1))[0]
    for interpolation, order in itertools.product((Kaiser(), Lanczos(3)), ORDERS):
        recipe = Recipe(order=order, interpolation=interpolation, scale="none")  # type: ignore[arg-type]
        start = time.process_time()
        made, blank = (
            coadd([exposure(k, fwhm, grid, noise=noise) for k in range(exposures)], target=target, grid=grid,
                  combine="mean", recipe=recipe)
            for noise in (False, True)
        )  # fmt: skip
        seconds = (time.process_time() - start) / 2
        found = np.array([judged(made.exposure.image, target, x, y) for x, y in zip(*stars_on(grid), strict=True)])
        ny, nx = grid.shape
        side = 2 * HALF + 1
        fluxes = [
            (blank.exposure.image[y : y + side, x : x + side] * model).sum() / (model**2).sum()
            for y in range(10, ny - side - 10, side) for x in range(10, nx - side - 10, side)
        ]  # fmt: skip
        center = grid.box.center
        foreseen = psf_flux_variance(
            float(np.nanmedian(made.exposure.variance)), made.correlation, target, x=center.x, y=center.y,
            shape=model.shape,
        )[0]  # fmt: skip
        error = found[:, 1] / FLUX - 1
        print(
            f"{fwhm:5.1f}  {type(interpolation).__name__:7s}  {order}  {np.median(found[:, 0]):9.1e} "
            f"{found[:, 0].max():8.1e}  {np.mean(error):+9.1e} {np.abs(error).max():8.1e}  "
            f"{np.nanstd(fluxes):10.3f} {math.sqrt(foreseen):8.3f}  {seconds:6.1f} s"
        )


def real() -> None:
    target = MoffatPSF(fwhm=4.9, beta=3.5)
    for order in ORDERS:
        inputs = []
        for name, (file, _) in FRAMES.items():
            one = read_exposure(demo_data() / file)
            zero_point = ZERO_POINTS[name] + 2.5 * math.log10(float(one.meta["EXPTIME"]))
            inputs.append(CoaddInput(one, name=name, zero_point=zero_point))
        start = time.process_time()
        recipe = Recipe(order=order, background="median")  # type: ignore[arg-type]
        made = coadd(inputs, target=TARGET, combine="mean", recipe=recipe)
        seconds = time.process_time() - start
        noise = psf_flux_variance(
            float(np.nanmedian(made.exposure.variance)), made.correlation, target, x=120, y=120, shape=(25, 25)
        )[0]  # fmt: skip
        for x, y in PLACES:
            star = fit_moffat(made.exposure, x=x, y=y, radius=HALF)
            image = np.nan_to_num(made.exposure.image - star.background)
            residual, flux = judged(image, target, star.x, star.y)
            print(
                f"{order}  {flux:9.0f}  {star.fwhm:.3f} ({star.fwhm / 4.9 - 1:+.2%})  {star.ellipticity:.3f}  "
                f"{star.beta:.2f}  {residual:.1e}  {math.sqrt(noise):6.1f}  {seconds:5.1f} s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exposures", type=int, default=3)
    parser.add_argument("--size", type=int, default=260)
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.2, 3.0, 4.5])
    options = parser.parse_args()
    print_machine("astropy")
    print(f"\n{options.exposures} simulated exposures on a grid of {options.size} px; the target is 1.39 times as wide")
    print(" FWHM  weights  order        residual    worst  flux bias    worst  flux noise foreseen    time")
    for fwhm in options.fwhm:
        simulated(fwhm, options.exposures, options.size)
    print("\nfour real frames: their two brightest stars in the coadd; the noise is that foreseen")
    print("order            flux  FWHM (over target)  ell.  beta  residual  noise  time")
    real()


if __name__ == "__main__":
    main()
