"""Paths: what may be read, and writing that either happens wholly or not at all."""

from __future__ import annotations

import errno
import gzip
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from psfmatch.errors import FormatError, InputError, PsfMatchError

__all__ = [
    "PathLike",
    "atomic_output",
    "existing_file",
    "fits_suffix",
    "not_written",
    "reason",
    "reserve",
    "split_extension",
    "temporary_folder",
    "told",
]

PathLike = str | os.PathLike[str]
Reason = Callable[[Exception], str]
FITS_SUFFIX = re.compile(r"\.(fits?|fts)(\.gz|\.fz)?$", re.IGNORECASE)
SHORT = re.compile(r"\d+ requested and \d+ written")
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

    The data go to a temporary file in the same directory; it is synchronised and gets its name at the end, or is
    removed if anything fails.  A name that ends in ``.gz`` is compressed.  What is replaced is the file to which a
    symbolic link points, not the link; the new file has the owner and the mode of the old one as far as one may give
    them.  Without ``overwrite`` a file that another process has put there meanwhile stays.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    FileNotFoundError
        If the directory does not exist.
    PermissionError
        If the file exists and may not be written.
    OSError
        If the file cannot be written (no permission, a full disk); it names the file.  One about another file, raised
        while this one is written, passes.
    """
    path = Path(path)
    final = Path(os.path.realpath(path)) if path.is_symlink() else path
    _check_free(path, final, overwrite=overwrite)
    scratch = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        with open(scratch, "w+b") as raw:
            _make_like(scratch, final)
            if path.name.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        _check_free(path, final, overwrite=overwrite)
        _publish(scratch, final, overwrite=overwrite)
    except OSError as error:
        mine = _is_short(error) if error.errno is None else error.filename in (None, str(scratch), scratch)
        if not mine:
            raise
        left = "" if _removed(scratch) else f"; what was begun is left: remove {scratch}"
        raise not_written(path, error, left) from error
    finally:
        _removed(scratch)


def not_written(path: Path, error: OSError, left: str = "") -> OSError:
    """The error that is raised in place of one of the system or numpy; what it says ends with ``left``."""
    number, words = error.errno or errno.EIO, error.strerror or str(error)
    if _is_short(error):
        number, words = errno.ENOSPC, f"{words}: the disk is full, or a limit is reached"
    return OSError(number, f"cannot write it ({words}); nothing was written{left}", str(path))


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder among the system's temporary ones, removed at the end with all in it.

    Raises
    ------
    OSError
        If it cannot be made, or there is no room in it; it names the folder and says how to choose another.
    """
    cure = "set TMPDIR to a folder with room"
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        where = tempfile.tempdir or os.environ.get("TMPDIR")
        raise OSError(error.errno, f"no temporary folder can be made ({error.strerror}); {cure}", where) from error
    with folder as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.filename is None or not Path(os.fspath(error.filename)).is_relative_to(name):
                raise
            raise OSError(error.errno, f"temporary file: {error.strerror}; {cure}", error.filename) from error


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


def _check_free(path: Path, final: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be written to; ``final`` is the file behind it."""
    if not final.parent.is_dir():
        raise FileNotFoundError(f"{path}: the directory {final.parent} does not exist; make it first")
    if final.is_dir():
        raise IsADirectoryError(f"{path}: is a directory; name a file in it")
    if not final.exists():
        return
    if not overwrite:
        raise _taken(path)
    if not os.access(final, os.W_OK):
        raise PermissionError(f"{path}: the file may not be written; allow it (chmod u+w) or give another name")


def _is_short(error: OSError) -> bool:
    """Whether numpy could write a part of an array only; it does not give the system's number."""
    return SHORT.fullmatch(str(error)) is not None


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(f"{path}: the file exists; give overwrite=True (--overwrite) or another name")


def _make_like(scratch: Path, old: Path) -> None:
    """Owner and mode of the file that is to be replaced."""
    if not old.exists():
        return
    was = old.stat()
    with suppress(OSError, AttributeError):  # only root may give a file away, and not on every system
        os.chown(scratch, was.st_uid, was.st_gid)
    os.chmod(scratch, stat.S_IMODE(was.st_mode))


def _publish(scratch: Path, final: Path, *, overwrite: bool) -> None:
    """Give a file its name; without ``overwrite`` only where it is free at that very moment."""
    if not overwrite:
        try:
            os.link(scratch, final)
        except FileExistsError as error:
            raise _taken(final) from error
        except OSError:  # a file system without links
            _check_free(final, final, overwrite=False)
        else:
            return
    os.replace(scratch, final)


def _removed(scratch: Path) -> bool:
    try:
        scratch.unlink(missing_ok=True)
    except OSError:  # the directory may not be written any more
        return False
    return True
