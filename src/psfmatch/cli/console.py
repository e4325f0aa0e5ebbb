"""What a verb says: tables for people on stdout, one JSON object for programs, everything else on stderr."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

__all__ = ["BAD_INPUT", "NO_MATCH", "OK", "UNDECIDED", "Console", "verb"]

OK, NO_MATCH, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
LOG = logging.getLogger("psfmatch.cli")
USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Make a function that takes a `Console` and returns an exit code the body of a click command.

    Adds the options that all verbs share.  Errors that psfmatch raises on purpose, and those of the file system,
    end in one sentence on stderr and exit code 1 (no acceptable kernel) or 2 (anything else).
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
    @click.option("--progress/--no-progress", default=None, help="Progress on stderr.  [default: on a terminal]")
    @click.option("-v", "--verbose", is_flag=True, help="Say more: what the solver chose, the log, and all warnings.")
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option(
        "--log-json", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", callback=_appendable,
        help="Append the log to FILE, a JSON object a line: time, level, logger, message, fields.",
    )  # fmt: skip
    @click.option("--traceback", is_flag=True, help="Show where in the program an error arose.")
    @functools.wraps(function)
    def command(
        *args: Any, as_json: bool, progress: bool | None, verbose: bool, quiet: bool, log_json: Path | None,
        traceback: bool, **options: Any,
    ) -> None:  # fmt: skip
        console = Console(
            as_json=as_json,
            progress=sys.stderr.isatty() and not quiet if progress is None else progress,
            verbose=verbose,
            quiet=quiet,
            traceback=traceback,
            log_json=log_json,
        )
        code, name = OK, click.get_current_context().info_name
        with console.logged():
            start = time.perf_counter()
            LOG.info("%s begins", name, extra={"command": name, "arguments": sys.argv[1:], **_software(log_json)})
            with console.guard() as failures:
                code = function(console, *args, **options) or OK
            code = failures[0] if failures else code
            seconds = round(time.perf_counter() - start, 6)
            LOG.info("%s ends with %d", name, code, extra={"command": name, "exit_code": code, "seconds": seconds})
        if failures:
            console.result({"ok": False, "error": console.errors[-1]})
        sys.exit(code)

    return command


def _software(log_json: Path | None) -> dict[str, dict[str, str]]:
    """The versions, for the log that is kept: what is written has them too, but no times."""
    if log_json is None:
        return {}
    from psfmatch.provenance import software

    return {"software": software()}


@dataclass
class Console:
    """Where a verb's words go."""

    as_json: bool = False
    progress: bool = False
    verbose: bool = False
    quiet: bool = False
    traceback: bool = False
    log_json: Path | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    _steps: Steps = field(default_factory=lambda: Steps())
    _bar: Any = None

    def line(self, text: str = "") -> None:
        """A line on stdout, for people."""
        if not (self.as_json or self.quiet):
            click.echo(text)

    def note(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        """A line on stderr, above the progress bar where there is one."""
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds(self) -> dict[str, float]:
        """How long each step took since this was asked last."""
        return self._steps.taken()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns on stdout: words to the left, numbers to the right; in colour and no wider than a terminal on one."""
        if self.as_json or self.quiet:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table

        terminal = sys.stdout.isatty()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for k, name in enumerate(columns):
            words = k == 0 or not name
            table.add_column(name, justify="left" if words else "right", vertical="bottom", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        printer = RichConsole(file=sys.stdout, width=None if terminal else 250, highlight=False)
        if terminal:
            printer.print(table)
            return
        with printer.capture() as text:
            printer.print(table)
        click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))

    def result(self, values: dict[str, Any]) -> None:
        """The JSON object, where one was asked for."""
        if self.as_json:
            click.echo(json.dumps(_plain({**values, "warnings": self.warnings}), allow_nan=False))

    @contextmanager
    def steps(self, total: int) -> Iterator[Callable[[str], None]]:
        """Progress on stderr, a bar on a terminal and else lines: call what this gives with the name of every step."""
        if not self.progress:
            yield lambda _: None
        elif not sys.stderr.isatty():
            counter = itertools.count(1)
            yield lambda name: click.echo(f"[{next(counter)}/{total}] {name}", err=True)
        else:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
                task = bar.add_task("", total=total, completed=-1)
                self._bar = bar
                try:
                    yield lambda name: bar.update(task, advance=1, description=name)
                finally:
                    self._bar = None

    @contextmanager
    def pace(self, what: str, unit: str, size: float) -> Iterator[Callable[[int, int], None]]:
        """Progress on stderr, with the rate and the time that is left: call what this gives with (done, of).

        Parameters
        ----------
        what : str
            What is counted.
        unit : str
            What the rate is given in.
        size : float
            Of all together, in this unit.
        """
        start = time.monotonic()
        first: list[int] = []

        def words(done: int, of: int) -> str:
            first.append(done)
            seconds = time.monotonic() - start
            return f"{done} of {of} {what}{pace_words(done - first[0], of - done, of, seconds, unit, size)}"

        if not self.progress:
            yield lambda done, of: None
        elif not sys.stderr.isatty():
            yield lambda done, of: click.echo(words(done, of), err=True)
        else:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
                task = bar.add_task("")
                self._bar = bar
                try:
                    yield lambda done, of: bar.update(task, completed=done, total=of, description=words(done, of))
                finally:
                    self._bar = None

    @contextmanager
    def logged(self) -> Iterator[None]:
        """What the package logs goes to stderr with ``--verbose``, to the file of ``--log-json``, else nowhere.

        What a coadd warns of in its log is a warning in any case.
        How long the steps took is kept in any case (`seconds`).  Astropy would print on stdout, into what is asked for.
        """
        from astropy import log as astropys

        logger, level = logging.getLogger("psfmatch"), logging.getLogger("psfmatch").level
        handlers: list[logging.Handler] = [self._steps, Warned(self._warn)]
        if self.verbose:
            handlers.append(Lines(self._say))
        if self.log_json is not None:
            handlers.append(JsonLines(self.log_json))
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        astropys_level = astropys.level
        astropys.setLevel(logging.WARNING)
        try:
            yield
        finally:
            astropys.setLevel(astropys_level)
            for handler in handlers:
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(level)

    @contextmanager
    def guard(self, about: str = "") -> Iterator[list[int]]:
        """Turn expected errors into a sentence; the list it gives holds the exit code afterwards, or nothing.

        Warnings of psfmatch become a sentence too; others are shown only with ``--verbose``.
        """
        from psfmatch.errors import MatchError, PsfMatchError, PsfMatchWarning

        codes: list[int] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield codes
            except (PsfMatchError, OSError) as error:
                if self.traceback:
                    import traceback

                    traceback.print_exc()
                sentence = _named(about, _sentence(error))
                codes.append(NO_MATCH if isinstance(error, MatchError) else BAD_INPUT)
                self.errors.append({"type": type(error).__name__, "message": sentence})
                LOG.error(sentence, extra={"type": type(error).__name__})
                self._say(f"error: {sentence}")
            finally:
                for warning in caught:
                    if issubclass(warning.category, PsfMatchWarning) or self.verbose:
                        text = _named(about, str(warning.message))
                        if text not in self.warnings:
                            LOG.warning(text, extra={"type": warning.category.__name__})
                            self._warn(text)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.note(f"warning: {text}")


def pace_words(done: int, left: int, of: int, seconds: float, unit: str, size: float) -> str:
    """Rate and time left, of ``of`` equal parts of something of ``size`` units; nothing before the first is done.

    Examples
    --------
    >>> pace_words(3, 9, 16, 60.0, "Mpix", 32.0)
    ', 0.1 Mpix/s, 3 min left'
    """
    if done < 1 or seconds <= 0:
        return ""
    ahead = left * seconds / done
    value, name = (ahead, "s") if ahead < 90 else (ahead / 60, "min") if ahead < 5400 else (ahead / 3600, "h")
    return f", {size * done / of / seconds:.2g} {unit}/s" + (f", {value:.0f} {name} left" if left else "")


def _appendable(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """The file of ``--log-json``, if it can be written."""
    if path is not None:
        try:
            path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise click.BadParameter(f"{path}: {error.strerror}", context) from error
    return path


class Lines(logging.Handler):
    """Messages for people; what the console says itself is left to it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != LOG.name and not _is_warned(record):
            self._say(record.getMessage())


class Warned(logging.Handler):
    """Warnings that stand in the log alone."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        if _is_warned(record):
            self._warn(record.getMessage())


def _is_warned(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and record.name.startswith("psfmatch.coadd")


class JsonLines(logging.FileHandler):
    """One JSON object a line, appended and flushed: time (UTC), level, logger, message, and the record's own fields."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps(
            {
                "time": moment.replace("+00:00", "Z"), "level": record.levelname, "logger": record.name,
                "message": record.getMessage(), "fields": _plain(_fields(record)),
            },
            allow_nan=False,
        )  # fmt: skip


class Steps(logging.Handler):
    """Adds up the seconds of the steps that are logged (`psfmatch.machine.timed`)."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._seconds: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        step = getattr(record, "step", None)
        if step is not None:
            self._seconds[step] = self._seconds.get(step, 0.0) + getattr(record, "seconds", 0.0)

    def taken(self) -> dict[str, float]:
        """The seconds of every step; the sums begin anew."""
        seconds, self._seconds = self._seconds, {}
        return seconds


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in USUAL}


def _named(about: str, sentence: str) -> str:
    return sentence if about in sentence else f"{about}: {sentence}"


def _sentence(error: Exception) -> str:
    """The message of an error; of the operating system's, the file and the reason without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    """Only what JSON knows: numbers that are not finite become null, arrays lists, and the rest strings."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
