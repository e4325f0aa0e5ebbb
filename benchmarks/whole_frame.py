#!/usr/bin/env python
"""How long it takes to match a frame with a kernel of 21 px that varies over it with order 2, and with all defaults.

    python benchmarks/whole_frame.py [--size 2048 4096 8192] [--repeat 5]

From arrays to arrays: `match` samples, solves, convolves image, variance and mask, and measures the quality.  Times are
medians.  The yardstick, one `scipy.signal.oaconvolve` of the image with one constant kernel of 21 px, is measured in
the same rounds.  Rubin's C++ takes 30 yardsticks for 4096 x 4096: 4.6 for the fit and 25 for the convolution.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial

from common import frame, medians, print_machine, target, varying_psf, yardstick

from psfmatch import AlardLupton, Box, FreeForm, convolve, match

SOLVERS = {
    "Alard-Lupton": AlardLupton(scale_by_fwhm=False),
    "FreeForm, 21 px, order 2": FreeForm(size=21, order=2),
    "FreeForm, defaults": FreeForm(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    logging.getLogger("psfmatch").setLevel(logging.ERROR)
    for size in options.size:
        work = cases((size, size))
        times = medians(work, options.repeat)
        unit = times.pop("yardstick")
        print(f"{size} x {size}; yardstick {unit:.3f} s")
        for name, seconds in times.items():
            print(f"  {name:42s} {seconds:7.3f} s  {seconds / unit:6.2f} yardsticks")


def cases(shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """What is timed on a frame."""
    psf = varying_psf(Box.from_shape(shape))
    exposure, dirty = frame(shape, psf), frame(shape, psf, bad=1e-4)
    work: dict[str, Callable[[], object]] = {"yardstick": yardstick(exposure.image)}
    for name, solver in SOLVERS.items():
        kernel = match(exposure, target(), solver=solver).kernel
        work[name] = partial(match, exposure, target(), solver=solver)
        work[f"{name}: convolution"] = partial(convolve, exposure, kernel)
        work[f"{name}: convolution, NaN and 1e30"] = partial(convolve, dirty, kernel)
    return work


if __name__ == "__main__":
    main()
