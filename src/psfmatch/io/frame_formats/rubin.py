"""Rubin's exposures as afw writes them, calexps of HSC among them; and psfmatch's own files, which have that layout.

Extensions IMAGE, MASK (its planes named by ``MP_`` cards) and VARIANCE; the place in the parent frame as a second WCS
or as LTV cards.  Behind them afw keeps an archive of tables (see `psfmatch.io.afw`): of it the PSF is read where it is
of a known kind, and the photometric calibration, as FLUXMAG0, where the pixels are in counts.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from psfmatch.errors import PsfMatchError, PsfMatchWarning
from psfmatch.io.afw import calibration_mean, has_archive
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, fits_frame
from psfmatch.io.headers import origin_of
from psfmatch.io.psf_formats import afw, own
from psfmatch.psf import PSF

__all__ = ["FORMAT"]

ZERO_MAGNITUDE = 3630.780547701013e9  # nJy of AB magnitude 0


def _recognises(source: FrameSource) -> bool:
    return source.has("IMAGE")


def _read(source: FrameSource) -> Frame:
    frame = fits_frame(source)
    image = frame.planes["image"].header
    origin = origin_of(image) if frame.extension[0] == "IMAGE" else (0, 0)
    return replace(
        frame,
        origin=origin,
        psf=_psf(source) if source.with_psf else None,
        meta={**frame.meta, **_calibration(source, frame)},
    )


def _psf(source: FrameSource) -> PSF | None:
    hdus = source.hdus
    assert hdus is not None
    stored = own.stored_psf(hdus)
    if stored is not None or not has_archive(hdus):
        return stored
    try:
        return afw.stored_psf(hdus)
    except PsfMatchError as error:
        warnings.warn(f"{error}; the exposure is read without its PSF", PsfMatchWarning, stacklevel=5)
        return None


def _calibration(source: FrameSource, frame: Frame) -> dict[str, Any]:
    """FLUXMAG0, the counts of a source of AB magnitude 0, of an archive's PhotoCalib (nJy a count)."""
    mean = None if source.hdus is None or frame.unit == "nJy" else calibration_mean(source.hdus)
    good = mean is not None and math.isfinite(mean) and mean > 0
    return {"FLUXMAG0": ZERO_MAGNITUDE / float(mean)} if good else {}  # type: ignore[arg-type]


FORMAT = FrameFormat(
    name="rubin", title="Rubin's and HSC's exposures (afw), and those of psfmatch", recognises=_recognises, read=_read,
    mask="rubin",
)  # fmt: skip
