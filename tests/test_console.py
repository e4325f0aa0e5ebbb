"""What all verbs say alike: the log for programs, the times of the steps, progress and silence."""

import json
import logging
import pty
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.machine import timed

PSF, TARGET = "gaussian:fwhm=3", "moffat:fwhm=5,beta=3.5"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "frame.fits"
    fits.PrimaryHDU(np.random.default_rng(2).normal(10, 1, (81, 97)).astype("f4")).writeto(path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_log_is_one_object_a_line(image, tmp_path):
    log, out = tmp_path / "log.jsonl", tmp_path / "out.fits"
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", out, "--log-json", log, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(list(line) == ["time", "level", "logger", "message", "fields"] for line in lines)
    moments = [datetime.fromisoformat(line["time"]) for line in lines]
    assert moments == sorted(moments)
    assert moments[0].utcoffset().total_seconds() == 0
    steps = {line["fields"]["step"]: line for line in lines if "step" in line["fields"]}
    assert {step: line["logger"] for step, line in steps.items()} == {
        "read": "psfmatch.io", "solved": "psfmatch.solve", "measured": "psfmatch.match",
        "convolved": "psfmatch.convolve", "wrote": "psfmatch.io",
    }  # fmt: skip
    assert lines[0]["fields"]["command"] == "match"
    end = lines[-1]["fields"]
    assert end["exit_code"] == 0
    # what is printed for programs has the same times, and none is lost
    (report,) = json.loads(result.stdout)["images"]
    assert report["steps"] == {step: line["fields"]["seconds"] for step, line in steps.items()}
    assert 0.5 * report["seconds"] < sum(report["steps"].values()) <= end["seconds"]
    # a second run goes to the end of it, and errors and warnings are in it
    assert run("match", image, "--psf", PSF, "-t", TARGET, "-o", out, "--log-json", log).exit_code == 2
    more = [json.loads(line) for line in log.read_text().splitlines()][len(lines) :]
    (error,) = (line for line in more if line["level"] == "ERROR")
    assert "exists; give --overwrite" in error["message"]
    assert error["fields"] == {"type": "FileExistsError"}
    assert more[-1]["fields"]["exit_code"] == 2


def test_every_verb_has_the_common_options():
    for name, one in main.commands.items():
        options = {option for parameter in one.params for option in parameter.opts}
        assert {"--json", "--log-json", "--verbose", "--quiet", "--progress", "--traceback"} <= options, name


def test_a_log_that_cannot_be_written_is_refused_first(image, tmp_path):
    out = tmp_path / "out.fits"
    log = tmp_path / "nowhere" / "x"
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", out, "--log-json", log)
    assert result.exit_code == 2
    assert str(log) in result.stderr
    assert not out.exists()


def test_verbose_says_the_steps_and_quiet_nothing(image, tmp_path):
    base = ("match", image, "--psf", PSF, "-t", TARGET)
    loud = run(*base, "-o", tmp_path / "a.fits", "-v").stderr
    for step in ("read in", "solved in", "measured in", "convolved in", "wrote in"):
        assert loud.count(step) == 1
    silent = run(*base, "-o", tmp_path / "b.fits", "-q")
    assert (silent.stdout, silent.stderr) == ("", "")


def test_the_packages_logger_is_left_as_it_was(image, tmp_path):
    logger = logging.getLogger("psfmatch")
    before = logger.level, list(logger.handlers)
    run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "a.fits", "--log-json", tmp_path / "l")
    assert (logger.level, logger.handlers) == before


def test_what_is_timed_is_logged(caplog):
    @timed("mended", "solve")
    def mend(value):
        """Its words."""
        return value + 1

    with caplog.at_level(logging.INFO, logger="psfmatch"):
        assert mend(2) == 3
        with pytest.raises(psfmatch.InputError), timed("broken", "solve"):
            raise psfmatch.InputError("it")
    assert mend.__doc__ == "Its words."
    (record,) = caplog.records  # what failed has not been done
    assert (record.name, record.step) == ("psfmatch.solve", "mended")
    assert record.getMessage().startswith("mended in 0.0")


def test_notes_stand_above_the_progress_bar(tmp_path):
    """On a real terminal: the line is whole, wherever the bar is."""
    code = """
import time
from psfmatch.cli.console import Console
console = Console(progress=True)
with console.steps(2) as step:
    step("first step"); time.sleep(0.2)
    console.note("a note of its own")
    step("second step"); time.sleep(0.2)
"""
    master, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=60)
    import os

    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(master, 4096):
            said += chunk
    except OSError:  # Linux says so at the end
        pass
    os.close(master)
    assert b"first step" in said
    assert b"a note of its own\r\n" in said
