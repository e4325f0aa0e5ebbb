#!/usr/bin/env python
"""What the arithmetic of Rubin's C++ alone takes on this machine, against all of `match`, warm and in a new process.

    python benchmarks/upstream_loop.py [--size 4096] [--repeat 3]

A loop in C of our own, on one thread: for each pixel the products of 21 x 21 px of image, variance and mask with a
kernel in double precision that moves on from pixel to pixel, and is set anew every ten.  Upstream does more (the
kernels at the corners of its interpolation, its iterators), so that its convolution takes longer.  On the machine of
the reference it took 9.8 s for 4096 x 4096 px, and the fit 1.8 s.  A C compiler (`cc`) is needed.

A yardstick and a match are timed warm, in rounds, and once more as the first work of a process of its own, where every
array is memory that the system has yet to hand out.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import frame, medians, print_machine, target, varying_psf, yardstick
from whole_frame import SOLVERS

from psfmatch import Box, match

CODE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#define SIDE 21
#define EVERY 10
typedef struct { double image, variance; int32_t mask; } pixel;
static pixel at(const float *image, const float *variance, const int32_t *mask, long stride, const double *kernel) {
    pixel out = {0, 0, 0};
    for (int y = 0; y < SIDE; ++y, image += stride, variance += stride, mask += stride)
        for (int x = 0; x < SIDE; ++x, ++kernel)
            if (*kernel != 0) {
                out.image += image[x] * *kernel;
                out.variance += variance[x] * *kernel * *kernel;
                out.mask |= mask[x];
            }
    return out;
}
int main(int count, char **words) {
    long n = atol(words[1]), pixels = n * n, last = n - SIDE + 1;
    float *in = malloc(8 * pixels), *out = malloc(8 * pixels);
    int32_t *flags = calloc(pixels, 4), *spread = calloc(pixels, 4);
    double first[SIDE * SIDE], step[SIDE * SIDE], kernel[SIDE * SIDE];
    for (long k = 0; k < 2 * pixels; ++k) { in[k] = k * 2654435761u % 1000 * 0.1f; out[k] = 0; }
    for (int k = 0; k < SIDE * SIDE; ++k) { first[k] = 1e-3 * (k % 7 + 1); step[k] = 1e-6 * (k % 5 + 1); }
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long y = 0; y < last; ++y)
        for (long x = 0; x < last; ++x) {
            long here = y * n + x;
            for (int k = 0; k < SIDE * SIDE; ++k) kernel[k] = x % EVERY ? kernel[k] + step[k] : first[k];
            pixel found = at(in + here, in + pixels + here, flags + here, n, kernel);
            out[here] = found.image, out[pixels + here] = found.variance, spread[here] = found.mask;
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double sum = 0;
    for (long k = 0; k < 2 * pixels; k += 97) sum += out[k] + spread[k / 2];
    printf("%.6f %g\n", end.tv_sec - start.tv_sec + 1e-9 * (end.tv_nsec - start.tv_nsec), sum);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--first", metavar="NAME", help="time this work once, the first of this process")
    options = parser.parse_args()
    logging.getLogger("psfmatch").setLevel(logging.ERROR)
    if options.first:
        run = cases(options.size)[options.first]
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start)
        return
    print_machine()
    work = cases(options.size)
    times = medians(work, options.repeat)
    unit = times["yardstick"]
    with tempfile.TemporaryDirectory() as folder:
        for level in ("-O2", "-O3"):
            times[f"loop in C, {level}"] = loop(Path(folder), level, options)
    for name in work:
        times[f"{name}, first"] = first(name, options)
    for name, seconds in times.items():
        print(f"{name:32s} {seconds:7.3f} s  {seconds / unit:6.2f} yardsticks")


def cases(size: int) -> dict[str, Callable[[], object]]:
    """The yardstick, and a match by each solver."""
    shape = (size, size)
    exposure = frame(shape, varying_psf(Box.from_shape(shape)))
    work: dict[str, Callable[[], object]] = {"yardstick": yardstick(exposure.image)}
    for name, solver in SOLVERS.items():
        if "defaults" not in name:
            work[name] = partial(match, exposure, target(), solver=solver)
    return work


def first(name: str, options: argparse.Namespace) -> float:
    """Median seconds of this work as the first of a new process."""
    command = [sys.executable, __file__, "--size", str(options.size), "--first", name]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(options.repeat)]
    return statistics.median(float(run.stdout) for run in runs)


def loop(folder: Path, level: str, options: argparse.Namespace) -> float:
    """The least seconds of the loop, compiled so."""
    (folder / "loop.c").write_text(CODE, encoding="utf-8")
    subprocess.run(["cc", level, "-o", folder / "loop", folder / "loop.c"], check=True)
    runs = [
        subprocess.run([folder / "loop", str(options.size)], check=True, capture_output=True, text=True).stdout
        for _ in range(options.repeat)
    ]
    return min(float(run.split()[0]) for run in runs)


if __name__ == "__main__":
    main()
