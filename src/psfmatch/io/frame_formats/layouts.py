"""Layouts that the names of the extensions tell: DES, Hubble, Webb and Roman; and any other FITS file.

Hubble's and Webb's hold several chips in one file, as SCI, ERR and DQ of versions 1, 2...: ``name.fits[SCI,2]``.
"""

from __future__ import annotations

from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, fits_frame

__all__ = ["DES", "FITS", "HST", "JWST", "PLAIN"]


def _science(source: FrameSource, telescope: str) -> bool:
    return source.has("SCI") and str(source.card("TELESCOP")).strip().upper() == telescope


def _read_plain(source: FrameSource) -> Frame:
    """Nothing but one image."""
    return fits_frame(source, {})


DES = FrameFormat(
    name="des",
    title="images of the Dark Energy Survey (SCI, MSK, WGT)",
    recognises=lambda source: source.has("SCI") and source.has("MSK"),
    read=fits_frame,
    mask="des",
)
HST = FrameFormat(
    name="hst",
    title="Hubble's images (SCI, ERR, DQ)",
    recognises=lambda source: _science(source, "HST"),
    read=fits_frame,
    mask="hst",
)
JWST = FrameFormat(
    name="jwst",
    title="Webb's images (SCI, ERR, DQ)",
    recognises=lambda source: _science(source, "JWST"),
    read=fits_frame,
    mask="jwst",
)
# what no other format takes: still with the planes that its neighbours hold by their names
FITS = FrameFormat(
    name="generic",
    title="a FITS file with an image, and perhaps its planes in extensions named MASK, DQ, ERR, VARIANCE, WEIGHT ...",
    recognises=lambda source: source.hdus is not None,
    read=fits_frame,
)
PLAIN = FrameFormat(
    name="plain", title="one FITS image, and nothing else", recognises=lambda source: False, read=_read_plain,
    mask="plain",
)  # fmt: skip
