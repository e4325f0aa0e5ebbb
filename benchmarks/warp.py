#!/usr/bin/env python
"""How long it takes to warp a frame, turned by 30 degrees and distorted, to a grid: image, variance and mask.

    python benchmarks/warp.py [--size 2048] [--repeat 5]

The yardstick, one `scipy.ndimage.map_coordinates(order=3)` of the image at positions that are known, is measured in the
same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from astropy.wcs import WCS
from common import frame, medians, print_machine
from scipy.ndimage import map_coordinates

from psfmatch import Exposure, Grid, Kaiser, Lanczos, Transform, warp

INTERPOLATIONS = (Kaiser(), Kaiser(order=5), Kaiser(order=4), Lanczos(), Lanczos(order=3))


def distorted(size: int) -> WCS:
    """A WCS with SIP distortions of some pixels at the corners."""
    header = Grid.centered(211.3, -37.2, shape=(size, size), pixel_scale=0.3).wcs.to_header()
    header.update(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=3, B_ORDER=3)
    header.update(A_2_0=4.0 / size**2, A_1_1=-6.0 / size**2, B_0_2=5.0 / size**2, B_3_0=8.0 / size**3)
    return WCS(header)


def yardstick(exposure: Exposure, grid: Grid) -> Callable[[], object]:
    """One cubic spline interpolation of the image alone."""
    y, x = (g.ravel() for g in np.mgrid[: grid.shape[0], : grid.shape[1]].astype(float))
    turn = Transform.affine([[0.866, 0.5], [-0.5, 0.866]], x=-0.183 * grid.shape[1], y=0.317 * grid.shape[0])
    at = [p.reshape(grid.shape) for p in turn.positions(x=x, y=y)[::-1]]
    return lambda: map_coordinates(exposure.image, at, order=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[2048])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print_machine("astropy")
    for size in options.size:
        exposure, dirty = (frame((size, size), bad=bad).replace(wcs=distorted(size)) for bad in (0.0, 1e-4))
        grid = Grid.centered(211.3, -37.2, shape=(size, size), pixel_scale=0.3, rotation=30.0)
        work: dict[str, Callable[[], object]] = {"yardstick": yardstick(exposure, grid)}
        for i in INTERPOLATIONS:
            work[f"{type(i).__name__}({i.order})"] = partial(warp, exposure, grid, interpolation=i)
        work["NaN and 1e30"] = partial(warp, dirty, grid)
        work["image alone"] = partial(warp, exposure.replace(variance=None), grid)
        times = medians(work, options.repeat)
        unit = times.pop("yardstick")
        print(f"{size} x {size}; yardstick {unit:.3f} s")
        for name, seconds in times.items():
            print(f"  {name:16s} {seconds:7.3f} s  {seconds / unit:6.2f} yardsticks")


if __name__ == "__main__":
    main()
