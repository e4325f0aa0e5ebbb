"""The PSF formats that are known, and which of them a file is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.io.files import told
from psfmatch.io.psf_formats import afw, cube, image, lsst_images, own, piff, psfex, regions, sdss, stdpsf, stpsf
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.psf import PSF

__all__ = ["GROUP", "psf_formats", "read_file", "recognised"]

GROUP = "psfmatch.psf_formats"
# In the order in which they are asked.  The first know their own by its extensions or columns; the last take what is
# left, after the formats of other packages were asked.
MARKED = (
    regions.FORMAT, own.FORMAT, piff.FORMAT, sdss.FORMAT, psfex.FORMAT, afw.FORMAT, lsst_images.FORMAT, stdpsf.FORMAT,
    stpsf.FORMAT, stpsf.GRID,
)  # fmt: skip
PLAIN = (cube.FORMAT, image.FORMAT)


def psf_formats() -> tuple[PSFFormat, ...]:
    """The PSF formats that `psfmatch.read_psf` knows, in the order in which they are asked.

    Those of other packages (entry points of the group ``psfmatch.psf_formats``) come before the plain FITS formats.
    One that cannot be loaded, or takes a name that is taken, is left out with a warning.

    Returns
    -------
    tuple of PSFFormat
        The first that recognises a file reads it.
    """
    return (*MARKED, *_added(), *PLAIN)


@cache
def _added() -> tuple[PSFFormat, ...]:
    taken = {known.name for known in (*MARKED, *PLAIN)}
    found = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        added = _loaded(point)
        if added is None:
            continue
        if added.name in taken:
            _left_out(point, f"its name {added.name!r} is taken")
            continue
        taken.add(added.name)
        found.append(added)
    return tuple(found)


def _loaded(point: EntryPoint) -> PSFFormat | None:
    try:
        added = point.load()
    except Exception as error:
        _left_out(point, f"it cannot be loaded: {type(error).__name__}: {error}")
        return None
    if not isinstance(added, PSFFormat):
        _left_out(point, f"it is of type {type(added).__name__}, no PSFFormat")
        return None
    return added


def _left_out(point: EntryPoint, why: str) -> None:
    origin = f" of {point.dist.name}" if point.dist is not None else ""
    warnings.warn(
        f"the PSF format {point.name!r}{origin} ({point.value}) is left out: {why}", PsfMatchWarning, stacklevel=5
    )


def recognised(source: PSFSource) -> PSFFormat | None:
    """The first format that takes the file for its own; None if there is none.

    Raises
    ------
    FormatError
        If it is a FITS file that is damaged, or cannot be decompressed: before any format is asked.
    """
    _ = source.hdus
    for known in psf_formats():
        try:
            if known.recognises(source):
                return known
        except Exception as error:
            warnings.warn(
                f"{source.path}: the PSF format {known.name!r} cannot look into it "
                f"({type(error).__name__}: {error}) and is passed over",
                PsfMatchWarning,
                stacklevel=4,
            )
    return None


def named(name: str, among: Iterable[PSFFormat]) -> PSFFormat:
    """The format of this name.

    Raises
    ------
    InputError
        If there is none.
    """
    known = {one.name: one for one in among}
    if name not in known:
        raise InputError(f"PSF format {name!r}: choose one of {', '.join(sorted(known))}")
    return known[name]


def read_file(source: PSFSource, options: PSFOptions, format: PSFFormat | None = None) -> PSF:
    """The PSF in a file, by the format given or the first that takes the file for its own; errors as `read_psf`."""
    chosen = recognised(source) if format is None else format
    if chosen is None:
        titles = "; ".join(f"{known.name} ({known.title})" for known in psf_formats())
        raise FormatError(
            f"{source.path}: no PSF format takes it for its own: it is {source.seems()}. If you can load it yourself, "
            f"give psfmatch the array or the object. Known: {titles}"
        )
    with told(source.name, source.path, what=f"taken for {chosen.title}, but cannot be read"):
        return chosen.read(source, options)
