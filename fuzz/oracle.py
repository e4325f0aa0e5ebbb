"""What a read must end in: an object, or an error of ours that names the file; in bounded time and memory.

Nor may it warn of anything but what is ours, run code, unpickle, reach the network, or open a file outside its folder.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psfmatch.errors import PsfMatchError, PsfMatchWarning

__all__ = ["Finding", "Reader", "judged"]

SECONDS = 10.0
BYTES = 2 << 30
DOCUMENTED = (PsfMatchError, FileNotFoundError, IsADirectoryError, PermissionError)
FORBIDDEN = ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen",
             "os.system", "os.exec", "os.posix_spawn", "ctypes.dlopen")  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(
    os.path.realpath(path)
    for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), ROOT, "/proc", "/sys", "/dev")
)


@dataclass(frozen=True)
class Finding:
    """Something that a read must not do.

    Parameters
    ----------
    kind : str
        ``exception``, ``unnamed``, ``warning``, ``memory``, ``time`` or ``escape``.
    where : str
        File and line, the same for the same defect.
    text : str
        What was said.
    """

    kind: str
    where: str
    text: str

    @property
    def key(self) -> str:
        """The same for the same defect."""
        return f"{self.kind} {self.where}"


@dataclass(frozen=True)
class Reader:
    """A function that reads a file.

    Parameters
    ----------
    read : callable
        ``read(path)``.
    use : callable
        ``use(what was read)``; its errors need not name the file.
    errors : tuple of exceptions
        Documented besides psfmatch's own.
    named : bool
        Whether an error must name the file.
    """

    read: Callable[[Path], Any]
    use: Callable[[Any], Any] = lambda _: None
    errors: tuple[type[Exception], ...] = ()
    named: bool = True


class TooLong(BaseException):
    """Raised by the timer; no reader may catch it."""


_watched: list[tuple[str, str]] | None = None
_folder = ""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in FORBIDDEN:
        _watched.append((event, str(arguments[:2])))
    elif event == "open" and isinstance(arguments[0], str):
        path = os.path.realpath(arguments[0])
        if not path.startswith((_folder, *OURS)):
            _watched.append(("open", path))
    elif event == "compile" and arguments[1] == "<string>" and not _is_pythons():
        _watched.append(("compile", str(arguments[0])[:80]))


def _is_pythons() -> bool:
    """Whether a text is compiled for annotations, or while a module is imported."""
    frame = sys._getframe(2)
    if frame.f_globals["__name__"] == "typing":
        return True
    while frame is not None and frame.f_globals["__name__"] != "importlib._bootstrap":
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


sys.addaudithook(_audit)


def judged(reader: Reader, path: Path) -> Finding | None:
    """What a read of a file did that it must not; None if it behaved.

    Parameters
    ----------
    reader : Reader
        What reads it.
    path : Path
        The file, alone in its folder with what belongs to it.
    """
    global _watched, _folder
    _watched, _folder = [], os.path.realpath(path.parent)
    start = time.process_time()
    try:
        with warnings.catch_warnings(record=True) as said, _memory(), _timer():
            warnings.simplefilter("always")
            finding = _read(reader, path)
    except TooLong as error:
        finding, said = Finding("time", _where(error), f"more than {SECONDS:g} s"), []
    seen, _watched = _watched, None
    if seen:
        return Finding("escape", seen[0][0], f"{seen[0][0]} {seen[0][1]}")
    if finding is not None:
        return finding
    if time.process_time() - start > SECONDS:
        return Finding("time", "within a library", f"{time.process_time() - start:.1f} s")
    for one in said:
        if not issubclass(one.category, PsfMatchWarning):
            where = f"{_short(one.filename)}:{one.lineno}"
            return Finding("warning", where, f"{one.category.__name__}: {one.message}")
    return None


def _read(reader: Reader, path: Path) -> Finding | None:
    try:
        found = reader.read(path)
    except (*DOCUMENTED, *reader.errors) as error:
        if (memory := _memory_error(error)) is not None:
            return Finding("memory", _where(memory), str(memory) or "MemoryError")
        if reader.named and path.name not in str(error):
            return Finding("unnamed", _where(error), f"{type(error).__name__}: {error}")
        return None
    except Exception as error:
        kind = "memory" if isinstance(error, MemoryError) else "exception"
        return Finding(kind, _where(error), f"{type(error).__name__}: {error}")
    try:
        reader.use(found)
    except PsfMatchError:
        return None
    except Exception as error:
        kind = "memory" if isinstance(error, MemoryError) else "exception"
        return Finding(kind, f"use: {_where(error)}", f"{type(error).__name__}: {error}")
    return None


def _memory_error(error: BaseException) -> MemoryError | None:
    """That which an error was made of."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        if isinstance(following, MemoryError):
            return following
        chain.append(following)
        following = following.__cause__ or following.__context__
    return None


def _where(error: BaseException) -> str:
    """The innermost line of psfmatch, and what was raised there."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/psfmatch/" in frame.filename]
    frame = (ours or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno} {type(error).__name__}"


def _short(name: str) -> str:
    return re.sub(r"^.*/(psfmatch|site-packages)/", "", name)


@contextmanager
def _memory() -> Iterator[None]:
    """No more than so many bytes beyond what the process has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/status", encoding="ascii") as status:
        now = 1024 * int(re.search(r"VmData:\s*(\d+)", status.read())[1])  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_DATA, (now + BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def _timer() -> Iterator[None]:
    """`TooLong` after so many seconds of computing."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
