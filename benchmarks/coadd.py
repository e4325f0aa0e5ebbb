#!/usr/bin/env python
"""A large coadd: its time and memory, what a second worker brings, and that no kill changes a bit.

    python benchmarks/coadd.py [--frames 64] [--side 2048] [--grid 6144] [--memory 2]
                               [--kills 20] [--kill-frames 8] [--kill-side 400] [--folder DIR]

Frames of a simulated sky (PSFs that vary, dithers over the grid, rotations to 30 degrees, 1 % of the pixels masked) are
written as FITS and added by ``psfmatch coadd``: in one process, on a cluster of one worker, and on one of two.  Memory
is the peak over time of the resident sets of the whole process tree, mapped files included, and must stay below
``--memory`` GB.  CPU times are those of all processes.

Then a coadd of ``--kill-frames`` frames is killed (SIGKILL, the whole process group) ``--kills`` times at random
moments and resumed, and the file compared with that of a run in peace, byte by byte.  ``--kill-frames 64 --kill-side
2048`` does that to a large one.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import print_machine
from sky import SCALE, Sky

import psfmatch

COMMAND = [sys.executable, "-c", "from psfmatch.cli import main; main()", "coadd"]
TARGET = ["-t", "moffat:fwhm=1.32arcsec,beta=3.5"]
BASE = 0.25  # gigabytes of a process that only waits: the main one of a cluster, with its scheduler


def frames_in(folder: Path, count: int, side: int, grid: int) -> tuple[list[Path], Path]:
    """The frames, and a file whose header is the grid's; made where they are missing."""
    folder.mkdir(exist_ok=True)
    sky = Sky.of((grid, grid), 120)
    header = folder / "grid.fits"
    if not header.exists():
        blank = np.zeros(sky.grid.shape, np.float32)
        psfmatch.write_exposure(psfmatch.Exposure(blank, wcs=sky.grid.wcs), header)
    paths = [folder / f"frame{k:03d}.fits" for k in range(count)]
    for k, path in enumerate(paths):
        if not path.exists():
            dither = 0.5 * (grid - 0.8 * side) * SCALE
            psfmatch.write_exposure(sky.exposure(k, (side, side), dither=dither, masked=0.01), path)
    return paths, header


@dataclass
class Run:
    """What a run of the program took: seconds, processor seconds, and the peak resident set, gigabytes."""

    seconds: float
    processor: float
    peak: float
    code: int

    def __str__(self) -> str:
        return f"{self.seconds:7.1f} s, {self.processor:7.1f} s of processors, at most {self.peak:.2f} GB"


def start(words: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *words], env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(words: list[str]) -> Run:
    """The program to its end, watched."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = start(words)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.25)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode:
        print(process.stderr.read(), file=sys.stderr)
    return Run(seconds, processor, peak, process.returncode)


def resident(session: int) -> float:
    """Gigabytes resident in all processes of a session."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int((place / "statm").read_text().split()[1]) * resource.getpagesize()
        except (OSError, IndexError):
            continue
    return total / 1e9


def large(options: argparse.Namespace, folder: Path) -> bool:
    begun = time.perf_counter()
    paths, grid = frames_in(folder / "large", options.frames, options.side, options.grid)
    made = time.perf_counter() - begun
    print(f"{options.frames} frames of {options.side}² onto {options.grid}² (made in {made:.0f} s)")
    out = folder / "coadd.fits"
    good, taken = True, {}
    for name, words, share in (
        ("one process", [], options.memory),
        ("one worker", ["--workers", "1"], options.memory - 2 * BASE),
        ("two workers", ["--workers", "2"], 0.5 * (options.memory - 2 * BASE)),
    ):
        if name.replace(" ", "-") in options.skip:
            continue
        words = [*words, "--memory", f"{share:.3f}", "--overwrite", "--grid", str(grid), *TARGET, "-o", str(out)]
        taken[name] = run([*map(str, paths), *words])
        held = taken[name].peak <= options.memory and taken[name].code == 0
        good &= held
        rate = options.frames * options.side**2 / 1e6 / taken[name].seconds
        print(f"{name}: {taken[name]}; {rate:.2f} Mpix of input/s; {'held' if held else 'SHORT'}", flush=True)
    if {"one worker", "two workers"} <= set(taken):
        one, two = taken["one worker"], taken["two workers"]
        ratio = one.seconds / two.seconds
        load = one.processor / one.seconds, two.processor / two.seconds
        enough = ratio >= 1.7
        good &= enough
        print(f"two workers: {ratio:.2f} times as fast as one (bar 1.7, {'reached' if enough else 'SHORT'});", end=" ")
        print(f"processors busy: {load[0]:.2f} and {load[1]:.2f}; load of the machine {os.getloadavg()[0]:.1f}")
    return good


def killed(options: argparse.Namespace, folder: Path) -> bool:
    side = options.kill_side
    paths, grid = frames_in(folder / "small", options.kill_frames, side, int(1.6 * side))
    words = [*map(str, paths), "--grid", str(grid), *TARGET, "--patch", str(max(64, side // 4))]
    whole, cut = folder / "whole.fits", folder / "cut.fits"
    peace = run([*words, "-o", str(whole), "--overwrite"])
    rng = np.random.default_rng()
    hits, same, rounds = 0, True, 0
    while hits < options.kills or rounds == 0:
        rounds += 1
        cut.unlink(missing_ok=True)
        while True:
            process = start([*words, "-o", str(cut), "--resume"])
            try:
                process.wait(rng.uniform(0.0, 0.7 * peace.seconds) if hits < options.kills else None)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                hits += 1
        same &= process.returncode == 0 and cut.read_bytes() == whole.read_bytes()
    print(
        f"{options.kill_frames} frames of {side}² in {peace.seconds:.0f} s; killed {hits} times in {rounds} rounds: "
        f"{'the same bytes' if same else 'DIFFERENT'}"
    )
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("frames", 64), ("side", 2048), ("grid", 6144), ("kills", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=2.0)
    parser.add_argument("--kill-frames", type=int, default=8)
    parser.add_argument("--kill-side", type=int, default=400)
    parser.add_argument("--folder", type=Path, help="where frames are kept, and found again")
    parser.add_argument("--skip", nargs="*", default=[], help="one-process, one-worker, two-workers, large")
    options = parser.parse_args()
    print_machine("distributed")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="psfmatch-benchmark-"))
    folder.mkdir(exist_ok=True)
    try:
        good = "large" in options.skip or large(options, folder)
        return 0 if killed(options, folder) and good else 1
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
