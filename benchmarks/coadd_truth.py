#!/usr/bin/env python
"""Coadds of a simulated sky against the truth: shapes, fluxes, noise, and what is left of a satellite.

    python benchmarks/coadd_truth.py [--frames 12] [--grid 900] [--masked 0.05]

Stars of known flux, 60 px apart, seen by exposures with PSFs of 3.0 to 4.3 px that vary over the field, offsets, and
rotations to 30 degrees; groups of 2 x 3 bad pixels over 5 % of each.  Shapes and fluxes are measured without noise, in
squares of 25 px; the noise and the satellite (a trail of 30 sigma a pixel in one exposure) with it.  What is left of it
is the coadd with the trail minus that of the same pixels of the same exposures without it: on sky and stars, wherever
two exposures or more have data.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from common import print_machine
from sky import SCALE, Sky

from psfmatch import ClippedMean, Coadd, Exposure, Mean, MoffatPSF, Recipe, coadd

TARGET = MoffatPSF(fwhm=5.0, beta=3.5)
HALF = 12
DITHER = 12.0
Bar = tuple[str, float, float, bool]


@dataclass(frozen=True)
class Recorded(ClippedMean):
    """The clipped mean, which keeps what it clips, one array a patch."""

    decisions: list[np.ndarray] = field(default_factory=list, repr=False)

    def clipped(self, *stack: object) -> np.ndarray:
        self.decisions.append(super().clipped(*stack))
        return self.decisions[-1]


@dataclass(frozen=True)
class Repeated(Mean):
    """The mean without what was clipped then."""

    decisions: Iterator[np.ndarray] = field(repr=False)

    margin = ClippedMean().margin

    def clipped(self, *stack: object) -> np.ndarray:
        return next(self.decisions)


def shapes(made: Coadd, sky: Sky) -> tuple[np.ndarray, np.ndarray]:
    """Residual against the target, and fitted flux over true flux, of every star that is whole."""
    model = TARGET.stamps(x=0, y=0, shape=(2 * HALF + 1, 2 * HALF + 1))[0]
    residuals, ratios = [], []
    for x, y, flux in zip(sky.x.astype(int), sky.y.astype(int), sky.flux, strict=True):
        cut = made.exposure.image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1] / flux
        if cut.shape == model.shape and np.isfinite(cut).all():
            residuals.append(np.linalg.norm(cut - model) / np.linalg.norm(model))
            ratios.append((cut * model).sum() / (model**2).sum())
    return np.array(residuals), np.array(ratios)


def away_from_stars(made: Coadd, sky: Sky, radius: int = 25) -> np.ndarray:
    free = np.isfinite(made.exposure.image)
    for x, y in zip(sky.x.astype(int), sky.y.astype(int), strict=True):
        free[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = False
    return free


def taken(sky: Sky, frames: int, **options: float) -> list[Exposure]:
    shape = (sky.grid.shape[0] + 40, sky.grid.shape[1] + 160)
    return [sky.exposure(k, shape, dither=DITHER, **options) for k in range(frames)]


def bars_without_noise(sky: Sky, frames: int, masked: float) -> Iterator[Bar]:
    """What is measured, its value, its bar, and whether it is held."""
    for share in (0.0, masked):
        for order in ("match-warp", "warp-match"):
            exposures = taken(sky, frames, sigma=0.0, masked=share)
            made = coadd(exposures, target=TARGET, grid=sky.grid, combine="mean", recipe=Recipe(order=order))
            residuals, ratios = shapes(made, sky)
            what = f"{order}, {share:.0%} masked, {len(residuals)} stars"
            yield f"shape, worst residual ({what})", float(residuals.max()), 2e-3, bool(residuals.max() <= 2e-3)
            yield f"shape, median residual ({what})", float(np.median(residuals)), 2e-3, True
            bias = float(np.mean(ratios) - 1)
            yield f"flux, mean error ({what})", bias, 1e-3, abs(bias) <= 1e-3
            yield f"flux, worst error ({what})", float(np.abs(ratios - 1).max()), np.nan, True


def bars_with_noise(sky: Sky, frames: int, masked: float) -> Iterator[Bar]:
    """As above."""
    counts = {}
    for method in ("mean", "clipped-mean"):
        made = coadd(taken(sky, frames, masked=masked), target=TARGET, grid=sky.grid, combine=method)
        chi = made.exposure.image / np.sqrt(made.exposure.variance)
        counts[method] = made.count
        spread = float(np.std(chi[away_from_stars(made, sky)]))
        yield f"chi of the noise ({method})", spread, 1.0, abs(spread - 1) <= 0.02
    clean, crossed = taken(sky, frames, masked=masked), taken(sky, frames, masked=masked)
    crossed[2] = sky.exposure(2, crossed[2].shape, dither=DITHER, masked=masked, trail=30.0)
    before, recorded = made, Recorded()
    made = coadd(crossed, target=TARGET, grid=sky.grid, combine=recorded)
    sigma = np.sqrt(made.exposure.variance)
    without = coadd(clean, target=TARGET, grid=sky.grid, combine=Repeated(iter(recorded.decisions)))
    assert np.array_equal(without.count, made.count)
    left = (made.exposure.image - without.exposure.image) / sigma
    judged = counts["mean"] >= 2
    worst = float(np.abs(left[judged]).max())
    yield "satellite left, worst pixel, sigma", worst, 1.0, worst <= 1.0
    worst = float(np.abs(left[judged & away_from_stars(made, sky)]).max())
    yield "satellite left, worst pixel away from stars, sigma", worst, 1.0, worst <= 1.0
    alone = np.isfinite(left) & ~judged
    yield "pixels of one exposure alone with more than 1 sigma of it", float((left[alone] > 1.0).sum()), np.nan, True
    out = judged & (made.count < before.count)  # where its exposure's own noise is gone too
    bias = float(((made.exposure.image - before.exposure.image) / sigma)[out].mean())
    yield "coadd with it minus coadd without, mean where taken out, sigma", bias, 0.1, abs(bias) <= 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--grid", type=int, default=900)
    parser.add_argument("--masked", type=float, default=0.05)
    parser.add_argument("--skip", nargs="*", default=[], choices=["without-noise", "with-noise"])
    options = parser.parse_args()
    print_machine()
    print(f"{options.frames} exposures onto {options.grid} x {options.grid - 60} px of {SCALE} arcsec")
    begun, short = time.perf_counter(), 0
    sky = Sky.of((options.grid, options.grid - 60), 60)
    parts = {"without-noise": bars_without_noise, "with-noise": bars_with_noise}
    every = chain(
        *(part(sky, options.frames, options.masked) for name, part in parts.items() if name not in options.skip)
    )
    for what, value, bar, held in every:
        short += not held
        print(f"{what:70s} {value:10.4g}  bar {bar:6.3g}  {'held' if held else 'SHORT'}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")
    return int(short > 0)


if __name__ == "__main__":
    sys.exit(main())
