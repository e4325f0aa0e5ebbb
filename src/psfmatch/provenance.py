"""How a file came to be: from which files, by which steps with which options, and by which software.

An exposure carries its `History`, to which every step adds.  When it is written, the history becomes a `Provenance`,
with the checksums of the files and the versions of the software: the table PROVENANCE of the output, see
`psfmatch.io.provenance`.

No time of day is among it: the same input gives the same file, byte for byte, so that a file can be made again and
compared.  When a command ran, and for how long, stands in the log (``--log-json``).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["CORRELATING", "IN_MEMORY", "FileState", "History", "Input", "Provenance", "Step", "release", "software"]

CORRELATING = ("convolve", "warp", "coadd")
PACKAGES = ("psfmatch", "numpy", "scipy", "astropy")
IN_MEMORY = "(in memory)"


class Input(NamedTuple):
    """A file that something was made from.

    Parameters
    ----------
    name : str
        Of the file, without its folder; `IN_MEMORY` for what was in no file.
    sha256 : str
        Of its bytes, in hexadecimal digits; empty where it is not known: of what was in memory, and of a file that was
        changed or removed between being read and this being written.
    """

    name: str
    sha256: str


class Step(NamedTuple):
    """Something that was done.

    Parameters
    ----------
    name : str
        Of the function: ``read``, ``match``, ``convolve``, ``warp``, ``coadd`` ...; ``replace``: parts of an exposure
        were exchanged in Python.
    options : mapping of str to str
        As they were used, in words: what Python evaluates to the same solver, convolver or PSF, where there is such.
    """

    name: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Provenance:
    """How a file came to be.

    Parameters
    ----------
    software : mapping of str to str
        The versions of psfmatch, Python, NumPy, SciPy and Astropy that wrote it.
    steps : tuple of Step
        What was done, in this order.
    inputs : tuple of Input
        The files that it was made from.
    """

    software: Mapping[str, str]
    steps: tuple[Step, ...]
    inputs: tuple[Input, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {
            "software": dict(self.software),
            "steps": [{"name": step.name, "options": dict(step.options)} for step in self.steps],
            "inputs": [{"name": one.name, "sha256": one.sha256 or None} for one in self.inputs],
        }


@dataclass(frozen=True)
class FileState:
    """A file in the state in which it was read.

    Parameters
    ----------
    path : str
        Absolute, or `IN_MEMORY`.
    size : int
        Bytes.
    changed : int
        When it was changed last, nanoseconds.
    """

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileState:
        """The file as it is now."""
        status = os.stat(path)
        return cls(os.path.abspath(path), status.st_size, status.st_mtime_ns)

    @property
    def name(self) -> str:
        """Without the folder."""
        return os.path.basename(self.path)

    def sha256(self) -> str:
        """Of its bytes; empty if it is not what it was.  Each file is read once for it, in pieces."""
        return _sha256(self)


@lru_cache(maxsize=4096)
def _sha256(file: FileState) -> str:
    try:
        if FileState.of(file.path) != file:
            return ""
        with open(file.path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        return digest.hexdigest() if FileState.of(file.path) == file else ""
    except OSError:
        return ""


@dataclass(frozen=True)
class History:
    """What an exposure was made from, and how, so far.

    Parameters
    ----------
    files : tuple of FileState
        Each once.
    steps : tuple of Step
        In their order.
    """

    files: tuple[FileState, ...] = ()
    steps: tuple[Step, ...] = ()

    def then(self, step: str, options: Mapping[str, Any], *, files: Iterable[str | os.PathLike[str]] = ()) -> History:
        """The history with one step more.

        Parameters
        ----------
        step : str
            Its name.
        options : mapping
            None is left out, a path is its name, and what is no text its ``repr``.
        files : iterable of path or str
            What was read for it; names of what is no file, such as words for a PSF, and extensions in brackets are
            passed over.
        """
        said = {name: _said(value) for name, value in options.items() if value is not None}
        found = [file for path in files if (file := _file(path)) is not None]
        return self.followed_by(History(tuple(found), (Step(step, MappingProxyType(said)),)))

    def followed_by(self, other: History) -> History:
        """The files and steps of this history, and then those of another."""
        return History(tuple(dict.fromkeys((*self.files, *other.files))), (*self.steps, *other.steps))

    @property
    def correlated(self) -> bool:
        """Whether noise was spread over pixels by some step, or before the file was written that was read."""
        return any(step.name in CORRELATING or step.options.get("noise") == "correlated" for step in self.steps)

    def provenance(self) -> Provenance:
        """With checksums, and the versions of what is installed."""
        return Provenance(software(), self.steps, tuple(Input(file.name, file.sha256()) for file in self.files))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.files, [(step.name, dict(step.options)) for step in self.steps])


def _restored(files: tuple[FileState, ...], steps: list[tuple[str, dict[str, str]]]) -> History:
    return History(files, tuple(Step(name, MappingProxyType(options)) for name, options in steps))


def _said(value: Any) -> str:
    if isinstance(value, os.PathLike) or (isinstance(value, str) and _file(value) is not None):
        return os.path.basename(os.fspath(value))
    return value if isinstance(value, str) else repr(value)


def _file(path: str | os.PathLike[str]) -> FileState | None:
    """The file of a path, perhaps with an extension in brackets; None where there is none."""
    for text in (os.fspath(path), re.sub(r"\[[^\[\]]*\]$", "", os.fspath(path))):
        if os.path.isfile(text):
            return FileState.of(text)
    return None


def release() -> str:
    """The version of psfmatch, as it is installed."""
    return _version("psfmatch")


def software() -> dict[str, str]:
    """The versions of psfmatch, of Python, and of the libraries that do the numbers."""
    versions = {name: _version(name) for name in PACKAGES}
    return {"psfmatch": versions.pop("psfmatch"), "python": platform.python_version(), **versions}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
