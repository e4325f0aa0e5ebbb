#!/usr/bin/env python
"""How the time of a convolution grows with the frame, the kernel's side, and its variation.

    python benchmarks/scaling.py [--repeat 5] [--plot docs/scaling.png]

Nanoseconds a pixel for image, variance and mask together.  The yardstick, one `scipy.signal.oaconvolve` of the image
with one constant kernel of 21 px, is measured in the same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from common import frame, medians, print_machine, yardstick

from psfmatch import Box, Field, MatchingKernel, MoffatPSF, convolve
from psfmatch.fields import n_terms


def kernel(box: Box, side: int, order: int) -> MatchingKernel:
    """A kernel whose width and shape vary over the box: as many basis images as there are terms."""
    fwhm = side / 6.0
    widths = fwhm * (1.0 + 0.02 * np.arange(n_terms(order)))
    stamps = [
        MoffatPSF(fwhm=w, beta=3.0, ellipticity=0.1, angle=25.0 * k).stamps(x=0, y=0, shape=(side, side))[0]
        for k, w in enumerate(widths)
    ]
    basis = np.array([stamps[0], *(stamp - stamps[0] for stamp in stamps[1:])])
    coefficients = np.eye(len(basis))
    coefficients[1:] *= 0.5
    return MatchingKernel(basis, Field(coefficients, box))


def measure(cases: dict[int, tuple[tuple[int, int], int, int]], repeat: int) -> dict[int, tuple[float, float]]:
    """For each case: nanoseconds a pixel, and yardsticks."""
    out = {}
    for value, (shape, side, order) in cases.items():
        exposure = frame(shape)
        used = kernel(exposure.box, side, order)
        run: Callable[[], object] = lambda e=exposure, k=used: convolve(e, k)  # noqa: E731
        times = medians({"yardstick": yardstick(exposure.image), "convolution": run}, repeat)
        pixels = shape[0] * shape[1]
        out[value] = 1e9 * times["convolution"] / pixels, times["convolution"] / times["yardstick"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    print_machine()
    base = (2003, 2053)
    series = {
        "side of the frame (px), kernel 21 px, order 2": {n: ((n, n), 21, 2) for n in (512, 1024, 2048, 4096, 8192)},
        "side of the kernel (px), order 2": {side: (base, side, 2) for side in (7, 11, 21, 31, 45, 65)},
        "order of the kernel's variation, 21 px": {order: (base, 21, order) for order in range(6)},
    }
    results = {name: measure(cases, options.repeat) for name, cases in series.items()}
    for name, result in results.items():
        print(name)
        for value, (ns, unit) in result.items():
            print(f"  {value:6d} {ns:8.1f} ns/px {unit:6.2f} yardsticks")
    if options.plot:
        plot(results, options.plot)


def plot(results: dict[str, dict[int, tuple[float, float]]], path: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(11, 3.6), sharey=True, layout="constrained")
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        ax.plot(list(result), [ns for ns, _ in result.values()], "o-", color="#0072B2")
        ax.set_xlabel(name)
        ax.grid(alpha=0.3)
    axes[0].set_xscale("log", base=2)
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("nanoseconds a pixel:\nimage, variance and mask")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
