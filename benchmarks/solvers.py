#!/usr/bin/env python
"""How long the default solver takes: one pair of stamps, large stamps, and a PSF that varies over a field.

    python benchmarks/solvers.py [--repeat 9]

Medians in milliseconds, with the residual that was reached (of the stamps themselves, as `measure_quality` has it).
The yardstick, one Cholesky factorisation of a 841 x 841 matrix (a kernel of 29 px taken whole), is measured in the
same run, so that machines can be compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import psfmatch
from psfmatch import Box, Field, ImagePSF, MoffatPSF
from psfmatch.quality import check_positions, measure_quality


def stamps(size: int) -> tuple[ImagePSF, ImagePSF]:
    science = MoffatPSF(fwhm=3.2, beta=2.5, ellipticity=0.15, angle=30.0)
    target = MoffatPSF(fwhm=4.9, beta=3.5)
    return tuple(ImagePSF(p.stamps(x=0, y=0, shape=(size, size))[0]) for p in (science, target))  # type: ignore[return-value]


def varying(box: Box, size: int = 31) -> psfmatch.BasisPSF:
    mean, wide, turned = (
        MoffatPSF(fwhm=w, beta=3.0, ellipticity=e, angle=a).stamps(x=0, y=0, shape=(size, size))[0]
        for w, e, a in ((3.5, 0.05, 0), (3.7, 0.05, 0), (3.5, 0.1, 45))
    )
    field = Field([[1, 0, 0, 0, 0, 0], [0, 1, -0.6, 0.3, 0.2, 0.1], [0, 0.4, 0.5, 0.1, -0.2, 0.3]], box)
    return psfmatch.BasisPSF(np.array([mean, wide - mean, turned - mean]), field)


def median_ms(work: Callable[[], object], repeat: int) -> float:
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    matrix = np.eye(841) + 1e-4 * np.ones((841, 841))
    print(f"yardstick {median_ms(lambda: np.linalg.cholesky(matrix), repeat):8.1f} ms")
    box = Box.from_shape((2000, 3000))
    cases = {
        "one pair of 41 px": (*stamps(41), None),
        "one pair of 65 px": (*stamps(65), None),
        "one pair of 201 px": (*stamps(201), None),
        "varying, 31 px stamps": (varying(box), MoffatPSF(fwhm=5.0, beta=3.5), box),
    }
    for name, (science, target, where) in cases.items():
        solution = psfmatch.matching_kernel(science, target, box=where)
        x, y = check_positions(where or Box(0, 0, 1, 1))
        residual = measure_quality(solution.kernel, science, target, x=x, y=y).worst["residual"]
        took = median_ms(lambda s=science, t=target, b=where: psfmatch.matching_kernel(s, t, box=b), repeat)
        print(f"{name:24s} {took:8.1f} ms   residual {residual:.1e}   kernel {solution.kernel.shape[0]} px")


if __name__ == "__main__":
    main()
