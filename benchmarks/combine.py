#!/usr/bin/env python
"""What the combination of 12 images of 1024 x 1024 px takes, and what is left of a satellite in one of them.

    python benchmarks/combine.py [--side 1024] [--count 12] [--repeat 3]

The noise is correlated over 3 px, as matching leaves it; the trail has a Gaussian profile of 5 px FWHM.  What is left
is the largest part of the trail in the coadd, in units of the coadd's noise; what is lost, the share of clean pixels
that are clipped.
"""

from __future__ import annotations

import argparse
import tracemalloc

import numpy as np
from common import medians, print_machine
from scipy.ndimage import gaussian_filter

from psfmatch import ClippedMean, Mean, Median, combine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print_machine()
    shape = (options.count, options.side, options.side)
    images = gaussian_filter(np.random.default_rng(1).standard_normal(shape, np.float32), (0, 1.3, 1.3), mode="wrap")
    images /= images.std()
    variances, masks = np.ones_like(images), np.zeros(shape, np.int32)
    for method in (Mean(), Median(), ClippedMean()):
        work = {"": lambda method=method: combine(images, variances, masks, method=method)}
        tracemalloc.start()
        work[""]()
        memory = tracemalloc.get_traced_memory()[1] / images.nbytes
        tracemalloc.stop()
        seconds = medians(work, options.repeat)[""]
        print(f"{type(method).__name__:12s} {seconds:.2f} s, {memory:.2f} times the stack, with the result")
    y, x = np.mgrid[: options.side, : options.side]
    profile = np.exp(
        -4.0 * np.log(2.0) * ((0.8 * (y - 0.3 * options.side) - 0.6 * (x - 0.3 * options.side)) / 5.0) ** 2
    )
    image = images[options.count // 2].copy()
    for peak in (3.0, 3.6, 4.0, 5.0, 10.0, 30.0, 100.0, 300.0):
        images[options.count // 2] = image + (peak * profile).astype(np.float32)
        out = combine(images, variances, masks)
        hit = out.clipped[options.count // 2]
        left = np.where(hit, 0.0, peak * profile) / out.count / np.sqrt(out.variance)
        lost = (out.clipped.sum() - (hit & (profile > 1e-6)).sum()) / out.clipped.size
        print(f"trail of {peak:5.1f} sigma: {left.max():.2f} sigma of the coadd left, {lost:.2%} of clean pixels lost")


if __name__ == "__main__":
    main()
