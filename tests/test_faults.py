"""Killed, interrupted, or in each other's way: never half a file under the final name, and what was there stays."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from psfmatch import Exposure, GaussianPSF, read_exposure, read_matched, write_exposure
from psfmatch.__main__ import run

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
OLD, NEW = (
    Exposure(np.full((301, 407), value), variance=np.ones((301, 407)), psf=GaussianPSF(fwhm=3)) for value in (1.0, 2.0)
)


def forked(work):
    """A child that does some work and ends; its process number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".fits.fz"])
def test_killed_at_random_moments_while_writing(tmp_path, suffix):
    """A hundred times in all; each file that is there can be read and is the old one or the new one."""
    path = tmp_path / f"out{suffix}"
    write_exposure(OLD, path)
    start = time.perf_counter()
    write_exposure(NEW, tmp_path / f"timed{suffix}")
    took = time.perf_counter() - start
    draw, seen = random.Random(3), set()
    for _ in range(34):
        child = forked(lambda: write_exposure(NEW, path, overwrite=True))
        time.sleep(draw.uniform(0.0, 4.0 * took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        value = float(read_exposure(path).image[200, 300])
        assert value in (1.0, 2.0)
        seen.add(value)
        if value == 2.0:
            write_exposure(OLD, path, overwrite=True)
    scratch = [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")]
    assert all(name.startswith(".") for name in scratch)  # left by the kills, under no name that a pattern finds
    assert seen == {1.0, 2.0}


def test_two_processes_writing_the_same_output(tmp_path):
    path = tmp_path / "out.fits"
    for _ in range(10):
        children = [forked(lambda e=e: write_exposure(e, path, overwrite=True)) for e in (OLD, NEW)]
        for child in children:
            os.waitpid(child, 0)
        assert float(read_exposure(path).image[200, 300]) in (1.0, 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["out.fits"]


def test_an_interrupted_import_ends_the_program_like_any_interruption(monkeypatch, capsys):
    """Python makes a RuntimeError of what it met in ``__set_name__``."""

    def main(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.setattr("psfmatch.cli.main", main)
    with pytest.raises(SystemExit) as ended:
        run()
    assert (ended.value.code, capsys.readouterr().err) == (130, "Aborted!\n")
    monkeypatch.setattr("psfmatch.cli.main", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()


@pytest.mark.slow
@pytest.mark.parametrize("after", [1.0, 2.5, 4.0])
def test_interrupted_it_ends_at_once_and_cleans_up(tmp_path, after):
    """Ctrl-C while a large frame is read, solved, convolved or written."""
    noise = np.random.default_rng(1).normal(size=(3001, 3203)).astype("f4")
    write_exposure(Exposure(noise, variance=np.ones_like(noise)), tmp_path / "in.fits")
    before = (tmp_path / "in.fits").read_bytes()
    command = ["match", "in.fits", "--psf", "gaussian:fwhm=3", "-t", "moffat:fwhm=5,beta=3", "-o", "out.fits"]
    process = subprocess.Popen(
        [sys.executable, "-m", "psfmatch", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    start = time.perf_counter()
    _, said = process.communicate(timeout=60)
    assert time.perf_counter() - start < 10.0
    assert "Traceback" not in said
    names = {p.name for p in tmp_path.iterdir()}
    if "out.fits" in names:  # it was quicker, and at its last words at most
        assert read_matched(tmp_path / "out.fits").exposure.shape == noise.shape
    assert names <= {"in.fits", "out.fits"}
    by_interrupt = process.returncode in (130, -signal.SIGINT)  # the other where Python was at an ``exec``
    assert by_interrupt or (process.returncode == 0 and "out.fits" in names)
    assert (tmp_path / "in.fits").read_bytes() == before
