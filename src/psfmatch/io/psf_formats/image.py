"""One stamp for the whole field: a two-dimensional FITS image."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import Any

import numpy as np

from psfmatch.errors import FormatError, PSFError, PsfMatchWarning
from psfmatch.geometry import FloatArray
from psfmatch.io.files import PathLike
from psfmatch.io.fits import image_hdus, plane
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.stamps import pixel_scale_of
from psfmatch.prepare import measured_center
from psfmatch.psf import PSF, GaussianPSF, ImagePSF
from psfmatch.stamps import Stamp, paired

__all__ = ["FORMAT", "believed", "psf_of_stamp", "stamp_hdu"]

BELIEVED_SUMS = (0.5, 1.001)
FAR = 2.0
SAME_SCALE = 0.01
LARGE = 101
"""Pixels along a side from which on an image may well be that of a sky."""
log = logging.getLogger("psfmatch.io")


def _recognises(source: PSFSource) -> bool:
    return source.hdus is not None and (source.wanted is not None or bool(image_hdus(source.hdus)))


def stamp_hdu(source: PSFSource) -> Any:
    """The HDU that is wanted; else one named TARGET or PSF; else the first image.

    Raises
    ------
    FormatError
        If there is none.
    """
    chosen, images = source.chosen(), [] if source.hdus is None else image_hdus(source.hdus)
    if chosen is None and not images:
        raise FormatError(f"{source.path}: holds no two-dimensional image; it is {source.seems()}")
    if chosen is not None:
        return chosen
    return next((hdu for hdu in images if hdu.name in ("TARGET", "PSF")), images[0])


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    chosen, hdus = stamp_hdu(source), source.hdus
    assert hdus is not None
    image = np.asarray(plane(hdus, chosen), float)
    try:
        return psf_of_stamp(image, pixel_scale_of(hdus, chosen), source, options)
    except PSFError as error:
        if min(image.shape) < LARGE:
            raise
        reason, (ny, nx) = re.sub(r"^(the \w+ PSF[,:] )+", "", str(error)), image.shape
        raise PSFError(
            f"{source.name}: no PSF: {reason}. If these {nx} x {ny} px are a frame of the sky, give the file of its "
            "PSF model; --psf stars makes a model from an image's own stars"
        ) from error


def psf_of_stamp(image: FloatArray, scale: float | None, source: PSFSource, options: PSFOptions) -> PSF:
    """A stamp, of pixels of a scale, as an `ImagePSF` of odd sides, in the image's pixels.

    One of even sides is brought to odd ones about its source.  Pixels that differ in size from the image's by more than
    1 %, where both are known, are resampled.
    """
    ratio = 1.0 if scale is None or options.pixel_scale is None else options.pixel_scale / scale
    other = abs(ratio - 1.0) > SAME_SCALE
    if _is_even(image) or other:
        if other:
            log.info("%s: pixels of %.4g arcsec, brought to those of %.4g", source.path, scale, options.pixel_scale)
        total = float(image.sum())
        stamp = Stamp(image, 1.0, normalize=not BELIEVED_SUMS[0] <= total <= BELIEVED_SUMS[1])
        psf = paired(Stamp(GaussianPSF(fwhm=2.0), ratio), stamp).target
        believed(total, source.path, stacklevel=5)
        return psf
    plain = ImagePSF(image)
    keep = believed(float(plain.image.sum()), source.path, stacklevel=5)
    return plain if keep else ImagePSF(plain.image, normalize=True)


def _is_even(image: FloatArray) -> bool:
    """Whether an image is a stamp with a side that is even, and no frame full of sources."""
    ny, nx = image.shape
    if ny % 2 == 1 == nx % 2:
        return False
    center = measured_center(image)
    return bool(np.hypot(center.y - (ny - 1) / 2, center.x - (nx - 1) / 2) < FAR)


def believed(total: float, source: PathLike, *, stacklevel: int) -> bool:
    """Whether a stamp's sum can be that of one which lacks flux; if not, it is to be made 1, and a warning says so."""
    good = BELIEVED_SUMS[0] <= total <= BELIEVED_SUMS[1]
    if not good:
        warnings.warn(
            f"{os.fspath(source)}: the PSF stamp has the sum {total:.6g}; normalised to 1",
            PsfMatchWarning,
            stacklevel=stacklevel,
        )
    return good


FORMAT = PSFFormat(
    name="image", title="a FITS image of one PSF for the whole field", recognises=_recognises, read=_read
)
