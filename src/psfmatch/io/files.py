"""Paths: what may be read, and writing that either happens wholly or not at all."""

from __future__ import annotations

import gzip
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from psfmatch.errors import FormatError, InputError, PsfMatchError

__all__ = ["PathLike", "atomic_output", "existing_file", "fits_suffix", "reason", "reserve", "split_extension", "told"]

PathLike = str | os.PathLike[str]
Reason = Callable[[Exception], str]
FITS_SUFFIX = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
WITH_EXTENSION = re.compile(r"^(?P<file>.+)\[(?P<extension>[^\[\]]+)\]$")


def split_extension(path: PathLike) -> tuple[Path, str | None]:
    """``name.fits[N4]`` as the file and the extension asked for; a file of that very name comes first."""
    text = os.fspath(path)
    match = None if os.path.exists(text) else WITH_EXTENSION.match(text)
    return (Path(match["file"]), match["extension"].strip()) if match else (Path(text), None)


def existing_file(path: Path) -> Path:
    """The path, checked to be a file that holds something.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FormatError
        If it is a directory, or empty.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: not a file")
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: the file is empty")
    return path


@contextmanager
def told(
    path: PathLike, *others: PathLike, what: str = "is damaged, or not what it seems", of: Reason | None = None
) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes an error that names it.

    Errors of psfmatch get the file's name where they lack it.  A missing file and warnings that were made errors pass.
    numpy does not warn of numbers that overflow or are none: they become infinite or NaN, and are judged as such.

    Parameters
    ----------
    path : path
        The file.
    others : paths
        Files that are read with it; an error that names one of them is left as it is.
    what : str
        What is said of a file that cannot be read.
    of : callable, optional
        What an error says; default `reason`.

    Raises
    ------
    FormatError
        For whatever a library raised.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except (FileNotFoundError, Warning):
        raise
    except PsfMatchError as error:
        if any(os.fspath(name) in str(error) for name in (path, *others)):
            raise
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    except MemoryError as error:
        raise FormatError(f"{os.fspath(path)}: does not fit into memory ({error})") from error
    except Exception as error:
        raise FormatError(f"{os.fspath(path)}: {what}: {(of or reason)(error)}") from error


def reason(error: Exception) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fits_suffix(path: Path) -> str:
    """``""``, ``".gz"`` or ``".fz"``: how a FITS file of this name is compressed.

    Raises
    ------
    InputError
        If the name is not that of a FITS file.
    """
    match = FITS_SUFFIX.search(path.name)
    if match is None:
        raise InputError(f"{path}: an output's name must end in .fits, .fits.gz or .fits.fz")
    return (match[2] or "").lower()


@contextmanager
def atomic_output(path: PathLike, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name only when everything is on disk.

    The data go to a temporary file in the same directory; it is synchronised and renamed at the end, or removed
    if anything fails.  A name that ends in ``.gz`` is compressed.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    FileNotFoundError
        If the directory does not exist.
    OSError
        If the file cannot be written (no permission, a full disk); it names the file.  One about another file, raised
        while this one is written, passes.
    """
    path = Path(path)
    _check_free(path, overwrite=overwrite)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(scratch, "w+b") as raw:
            if path.name.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        _check_free(path, overwrite=overwrite)
        os.replace(scratch, path)
    except OSError as error:
        if error.errno is None or (error.filename is not None and str(error.filename) != str(scratch)):
            raise
        raise OSError(
            error.errno, f"cannot write it ({error.strerror or error}); nothing was written", str(path)
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def reserve(out: IO[bytes], size: int) -> None:
    """Make an empty file so large, and take its place on the disk now.

    A full disk is an error here; found by a mapped page later on, it would kill the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(out.fileno(), 0, size)
        return
    for start in range(0, size, 1 << 20):
        out.write(bytes(min(1 << 20, size - start)))
    out.flush()


def _check_free(path: Path, *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the directory {path.parent} does not exist; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory; name a file in it")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: the file exists; give overwrite=True (--overwrite) or another name")
