#!/usr/bin/env python
"""How much memory a match takes above its inputs, and that a frame larger than the memory allowed is matched.

    python benchmarks/memory.py [--size 8192]

Each case runs in a process of its own.  "In memory" is the peak of the resident set above what it was before `match`,
outputs included, in units of the outputs' size.  "From file" leaves input and output in their files; what the process
may take of memory of its own is limited there to half of the planes' size (RLIMIT_DATA), and the result is compared
with that in memory, bit for bit.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import frame, print_machine, target, varying_psf

import psfmatch
from psfmatch import FFT, AlardLupton, Box, FreeForm

LEAST = 8192
"""Side of the smallest frame for the limit: OpenBLAS reserves 0.3 GiB, and where it gets less, asks without end."""
SOLVERS = {"alard-lupton": AlardLupton(scale_by_fwhm=False), "free-form": FreeForm(size=21, order=2)}


def resident() -> int:
    """Bytes resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def in_memory(size: int, solver: str) -> None:
    shape = size, size
    exposure = frame(shape, varying_psf(Box.from_shape(shape)))
    small = exposure.cutout(Box(0, 0, 600, 500)).replace(psf=exposure.psf)
    psfmatch.match(small, target(), solver=SOLVERS[solver])  # what is loaded once is no part of a match
    before = resident()
    matched = psfmatch.match(exposure, target(), solver=SOLVERS[solver])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    planes = matched.exposure.image, matched.exposure.variance, matched.exposure.mask.array
    outputs = sum(plane.nbytes for plane in planes)
    print(f"in memory, {solver}: {(peak - before) / 2**30:.2f} GiB = {(peak - before) / outputs:.2f} x the outputs")


def from_file(folder: Path) -> None:
    exposure = psfmatch.read_exposure(folder / "in.fits", memmap=True)
    exposure = exposure.replace(psf=varying_psf(exposure.box))
    planes = exposure.image.nbytes + exposure.variance.nbytes + exposure.mask.array.nbytes
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    allowed = int(status["VmData"].split()[0]) * 1024 + planes // 2
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    plan = psfmatch.planned_match(exposure, target(), solver=SOLVERS["free-form"])
    with psfmatch.io.matched_output(plan, folder / "out.fits") as out:
        psfmatch.convolve(exposure, plan.kernel, convolver=FFT(out=out))
    print(f"from file: {planes / 2**30:.2f} GiB of planes matched with {planes / 2**31:.2f} GiB of memory", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case == "file":
        from_file(options.folder)
        return
    if options.case:
        in_memory(options.size, options.case)
        return
    print_machine()
    print(f"{options.size} x {options.size}, kernel of 21 px and order 2", flush=True)
    again = [sys.executable, __file__, "--size", str(options.size), "--case"]
    for solver in SOLVERS:
        subprocess.run([*again, solver], check=True)
    if options.size < LEAST:
        print(f"from file: left out, for frames of {LEAST} px and more")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exposure = frame((options.size, options.size))
        psfmatch.write_exposure(exposure, folder / "in.fits")
        subprocess.run([*again, "file", "--folder", name], check=True)
        exposure = exposure.replace(psf=varying_psf(exposure.box))
        whole = psfmatch.match(exposure, target(), solver=SOLVERS["free-form"]).exposure
        strips = psfmatch.read_exposure(folder / "out.fits")
        same = all(
            np.array_equal(a, b, equal_nan=True)
            for a, b in (
                (whole.image, strips.image), (whole.variance, strips.variance), (whole.mask.array, strips.mask.array)
            )
        )  # fmt: skip
        print(f"from file and in memory: {'the same bits' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
