"""What all verbs say alike: the log for programs, the times of the steps, progress and silence."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.cli.console import Console, pace_words
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


def on_a_terminal(code, *, out=False, columns=60):
    """What a program writes to stderr, or to stdout as well, where they are a terminal."""
    master, terminal = pty.openpty()
    environ = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    streams = {"stderr": terminal} | ({"stdout": terminal} if out else {})
    subprocess.run([sys.executable, "-c", code], **streams, check=True, timeout=60, env=environ)
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(master, 4096):
            said += chunk
    except OSError:  # Linux says so at the end
        pass
    os.close(master)
    return said


def test_notes_stand_above_the_progress_bar():
    """On a real terminal: the line is whole, wherever the bar is."""
    said = on_a_terminal("""
import time
from psfmatch.cli.console import Console
console = Console(progress=True)
with console.steps(2) as step:
    step("first step"); time.sleep(0.2)
    console.note("a note of its own")
    step("second step"); time.sleep(0.2)
with console.pace("patches", "Mpix", 8.0) as progress:
    progress(0, 4); time.sleep(0.2)
    console.note("another")
    progress(1, 4); time.sleep(0.2)
""")
    assert b"first step" in said
    assert b"a note of its own\r\n" in said
    assert b"another\r\n" in said
    assert re.search(rb"1 of 4 patches, \S+ Mpix/s, \d+ s left", said)


def test_a_table_is_no_wider_than_a_terminal():
    code = """
from psfmatch.cli.console import Console
Console().table(("image", "FWHM", ""), [("a.fits", "3.2", "a remark that goes on and on for longer than the line is")])
"""
    narrow = on_a_terminal(code, out=True, columns=40).decode().splitlines()
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in narrow) <= 40
    assert "\x1b[1m" in narrow[0]  # the header is bold
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert plain.splitlines()[1] == "a.fits   3.2  a remark that goes on and on for longer than the line is"


def test_the_pace_without_a_terminal(capsys):
    """Lines on stderr, or nothing where progress is not asked for."""
    for progress in (True, False):
        with Console(progress=progress).pace("patches", "Mpix", 8.0) as told:
            told(0, 4)
            told(4, 4)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "0 of 4 patches"
    assert re.fullmatch(r"4 of 4 patches, \S+ Mpix/s", last)  # nothing is left
    assert pace_words(2, 2, 4, 9000.0, "Mpix", 8.0).endswith(", 2 h left")


def test_errors_and_warnings_become_sentences(capsys):
    """Each once, with what it is about unless it says so; of other packages with --verbose only."""
    console = Console()
    for _ in range(2):
        with console.guard("a.fits") as codes:
            warnings.warn("it is old", psfmatch.PsfMatchWarning, stacklevel=1)
            warnings.warn("not ours", UserWarning, stacklevel=1)
            raise psfmatch.InputError("a.fits: cannot\n  be read")
    assert (codes, console.warnings) == ([2], ["a.fits: it is old"])
    with console.guard("b.fits") as codes:
        raise psfmatch.MatchError("no kernel", None)
    assert codes == [1]
    assert [one["message"] for one in console.errors] == ["a.fits: cannot be read"] * 2 + ["b.fits: no kernel"]
    loud = Console(verbose=True, traceback=True)
    with loud.guard():
        warnings.warn("not ours", UserWarning, stacklevel=1)
        raise PermissionError(13, "Permission denied")
    assert loud.warnings == ["not ours"]
    assert [one["message"] for one in loud.errors] == ["Permission denied"]
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [False, True])
def test_what_a_coadd_warns_of_in_its_log_is_said_once(capsys, verbose):
    console = Console(verbose=verbose)
    with console.logged():
        logging.getLogger("psfmatch.coadd.plan").warning("the sky of %d inputs differs", 3)
        logging.getLogger("psfmatch.coadd.plan").info("a step")
    assert console.warnings == ["the sky of 3 inputs differs"]
    said = capsys.readouterr().err.splitlines()
    assert said == ["warning: the sky of 3 inputs differs", *(["a step"] if verbose else [])]
