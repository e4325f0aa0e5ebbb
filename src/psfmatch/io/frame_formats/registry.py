"""The frame formats that are known, and which of them a file is."""

from __future__ import annotations

from pathlib import Path

from psfmatch.errors import FormatError, InputError
from psfmatch.io.files import told
from psfmatch.io.frame_formats import casu, ccddata, decam, layouts, legacypipe, lsst_images, roman, rubin, sdss
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource

__all__ = ["companions", "frame_format", "frame_formats", "read_frame"]

# In the order in which they are asked: the most particular first.
FORMATS = (
    lsst_images.FORMAT, rubin.FORMAT, decam.FORMAT, legacypipe.FORMAT, layouts.JWST, layouts.HST, layouts.DES,
    roman.FORMAT, sdss.FORMAT, casu.FORMAT, ccddata.FORMAT, layouts.FITS, layouts.PLAIN,
)  # fmt: skip


def frame_formats() -> tuple[FrameFormat, ...]:
    """The frame formats that `psfmatch.read_exposure` knows, in the order in which they are asked.

    Returns
    -------
    tuple of FrameFormat
        The first that recognises a file reads it.
    """
    return FORMATS


def frame_format(name: str) -> FrameFormat:
    """The format of this name.

    Raises
    ------
    InputError
        If there is none.
    """
    known = {one.name: one for one in FORMATS}
    if name not in known:
        raise InputError(f"format {name!r}: choose one of {', '.join(sorted(known))}")
    return known[name]


def companions(path: Path) -> dict[str, Path | str]:
    """The companions of an image that exist beside it, as far as its name alone tells."""
    found: dict[str, Path | str] = {}
    for kind in (decam, legacypipe, sdss, casu):
        found = {**kind.companions(path), **found}
    return found


def read_frame(source: FrameSource, format: FrameFormat | None = None) -> Frame:
    """What a file says, by the format given or the first that takes it for its own.

    Raises
    ------
    FormatError
        If none does, or the file is not what it seems; it names the file.
    """
    with told(source.path):
        chosen = format or next((known for known in FORMATS if known.recognises(source)), None)
        if chosen is not None:
            return chosen.read(source)
    names = ", ".join(known.name for known in FORMATS)
    raise FormatError(
        f"{source.path}: cannot be read as FITS, nor as a frame of another kind: it is {source.seems()}; "
        f"known are {names}"
    )
