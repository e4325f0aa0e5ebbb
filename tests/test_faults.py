"""Killed, interrupted, or in each other's way: never half a file under the final name, and what was there stays."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from processes import forked, forks, how_it_ended
from psfmatch import Exposure, GaussianPSF, read_exposure, read_matched, write_exposure
from psfmatch.__main__ import run
from psfmatch.cli import main
from test_coadd import constant, one

pytestmark = forks
OLD, NEW = (
    Exposure(np.full((301, 407), value), variance=np.ones((301, 407)), psf=GaussianPSF(fwhm=3)) for value in (1.0, 2.0)
)


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


def run_verb(words):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


@pytest.fixture(name="rematch")
def a_match_made_again(tmp_path):
    """The words for one that replaces another, and the bytes of its input; what it needs is loaded."""
    noise = np.random.default_rng(1).normal(size=(601, 703)).astype("f4")
    write_exposure(Exposure(noise, variance=np.ones_like(noise)), tmp_path / "in.fits")
    words = ["match", str(tmp_path / "in.fits"), "--psf", "gaussian:fwhm=3", "-o", str(tmp_path / "out.fits"), "-q"]
    run_verb([*words, "-t", "gaussian:fwhm=4"])
    words += ["-t", "gaussian:fwhm=5", "--overwrite", "--set", "convolver.block=64", "--memmap"]
    return words, (tmp_path / "in.fits").read_bytes()


@pytest.mark.slow
def test_killed_while_a_match_is_written_strip_by_strip(tmp_path, rematch):
    """Twenty times at random moments after the file was begun: it is the old match or the new one, to the last bit.

    Earlier after it was the new one, later after the old one, so that both are seen however fast the machine is.
    """
    words, before = rematch
    old = (tmp_path / "out.fits").read_bytes()
    draw, seen = random.Random(5), []
    start = time.perf_counter()
    run_verb([*words, "-o", str(tmp_path / "timed.fits")])
    longest = time.perf_counter() - start
    new = read_exposure(tmp_path / "timed.fits").image
    for _ in range(20):
        (tmp_path / "out.fits").write_bytes(old)
        child = forked(lambda: run_verb(words))
        until = time.perf_counter() + 60.0
        while not list(tmp_path.glob(".out.fits.*.part")):
            assert time.perf_counter() < until
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        assert how_it_ended(child) in (0, -signal.SIGKILL)
        same = (tmp_path / "out.fits").read_bytes() == old
        assert same or np.array_equal(read_matched(tmp_path / "out.fits").exposure.image, new)
        seen.append(same)
        longest *= 1.3 if same else 1.0 / 1.3
        for left in tmp_path.glob(".out.fits.*.part"):
            left.unlink()
    assert set(seen) == {True, False}
    assert (tmp_path / "in.fits").read_bytes() == before


def written(exposure, path, **options):
    """Write it; where a file is in the way, end with code 7."""
    try:
        write_exposure(exposure, path, **options)
    except FileExistsError as error:
        os._exit(7 if "the file exists" in str(error) else 8)


@pytest.mark.parametrize("overwrite", [True, False])
def test_two_processes_writing_the_same_output(tmp_path, overwrite):
    """Both succeed where they may replace each other's, and exactly one where not."""
    path = tmp_path / "out.fits"
    for _ in range(10):
        children = [forked(lambda e=e: written(e, path, overwrite=overwrite)) for e in (OLD, NEW)]
        codes = [how_it_ended(child) for child in children]
        value = float(read_exposure(path).image[200, 300])
        if overwrite:
            assert codes == [0, 0]
            assert value in (1.0, 2.0)
        else:
            assert sorted(codes) == [0, 7]
            assert value == 1.0 + codes.index(0)
            path.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["out.fits"][: int(overwrite)]


FULL_DISK = """
import json, os, sys, tempfile
from click.testing import CliRunner
from psfmatch import coadd
from psfmatch.cli import main

os.chdir(sys.argv[1])
open("out.fits", "w").write("dear to me")
for taken, words in json.load(sys.stdin):
    open("taken", "wb").write(bytes(taken))
    done = CliRunner().invoke(main, words.split())
    kept = open("out.fits", "rb").read(10) == b"dear to me"
    print(json.dumps([done.exit_code, done.stderr, sorted(os.listdir()), kept]))
tempfile.tempdir = os.getcwd()
open("taken", "wb").write(bytes(1_700_000))
try:
    coadd(["../e0.fits"], target="moffat:fwhm=5,beta=3.5", grid="../e0.fits")
except OSError as error:
    print(json.dumps([error.errno, str(error), sorted(os.listdir()), False]))
"""


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path):
    """A real one, of 3 MiB: the error names the file, what was there stays, and a coadd goes on when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["unshare", "--user", "--map-root-user", "--mount"]
    mounted += ["sh", "-c", 'mount -t tmpfs -o size=3m none "$0" && exec "$@"', str(disk)]
    if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("may not mount a disk of its own")
    write_exposure(constant(one(0), 0), tmp_path / "e0.fits")
    match = "match ../e0.fits --psf gaussian:fwhm=3 -t gaussian:fwhm=5 --overwrite -q -o"
    coadd = "coadd ../e0.fits -t moffat:fwhm=1.3arcsec,beta=3.5 --overwrite --resume -q -o out.fits"
    cases = [
        (3_000_000, f"{match} out.fits", "out.fits: cannot write it (", []),
        (3_000_000, f"{match} out.fits --memmap", "out.fits: cannot write it (No space left on device); nothing w", []),
        (3_000_000, f"{match} new.fits.gz", "new.fits.gz: cannot write it (", []),
        (3_136_000, coadd, "out.fits.parts/input-000000.npz: cannot write it (", []),
        (2_900_000, coadd, "out.fits.parts/patch-", ["out.fits.parts"]),
        (1_600_000, coadd, "error: out.fits: cannot write it (", ["out.fits.parts"]),
    ]
    given = json.dumps([*(case[:2] for case in cases), (0, coadd)])
    done = subprocess.run(
        [*mounted, sys.executable, "-c", FULL_DISK, str(disk)], input=given, capture_output=True, text=True, check=True
    )
    *failed, resumed, temporary = map(json.loads, done.stdout.splitlines())
    for (_, words, says, left), (code, said, there, kept) in zip(cases, failed, strict=True):
        assert (code, there, kept) == (2, ["out.fits", *left, "taken"], True), words
        assert says in said
    assert resumed == [0, "", ["out.fits", "taken"], False]
    assert (temporary[0], temporary[2]) == (errno.ENOSPC, ["out.fits", "taken"])
    assert "nothing was written; set TMPDIR to a folder with room" in temporary[1]


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
