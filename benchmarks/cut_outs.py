#!/usr/bin/env python
"""How many cut-outs of 128 x 128 px, image and variance, each with its own kernel of 21 px, are convolved in a second.

    python benchmarks/cut_outs.py [--count 1000] [--repeat 7]

The yardstick is `scipy.signal.oaconvolve` of each image (not of its variance) with its kernel.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import frame, medians, print_machine
from scipy.signal import oaconvolve

from psfmatch import FFT, Box, MatchingKernel, MoffatPSF, convolve_many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    print_machine()
    rng = np.random.default_rng(3)
    large = frame((2048, 2048))
    exposures, kernels = [], []
    for _ in range(options.count):
        y, x = rng.integers(0, 2048 - 128, 2)
        exposures.append(large.cutout(Box(y, x, y + 128, x + 128)))
        psf = MoffatPSF(fwhm=rng.uniform(2.0, 4.0), beta=3.0, ellipticity=0.1, angle=rng.uniform(0.0, 180.0))
        kernels.append(MatchingKernel.constant(psf.stamps(x=0, y=0, shape=(21, 21))[0], exposures[-1].box))
    images = [kernel.basis[0].astype(np.float32) for kernel in kernels]
    times = medians(
        {
            "yardstick": lambda: [oaconvolve(e.image, k, "same") for e, k in zip(exposures, images, strict=True)],
            "one thread": lambda: convolve_many(exposures, kernels, convolver=FFT(threads=1)),
            "all processors": lambda: convolve_many(exposures, kernels),
        },
        options.repeat,
    )
    for name, seconds in times.items():
        print(f"{name:16s} {options.count / seconds:7.0f} a second, {seconds / times['yardstick']:5.2f} yardsticks")


if __name__ == "__main__":
    main()
