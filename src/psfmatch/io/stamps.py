"""PSF stamps in FITS files as they are: the pixels, their size and their orientation on the sky."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError, PSFError
from psfmatch.geometry import FloatArray
from psfmatch.io import psfex
from psfmatch.io.files import PathLike, existing_file, split_extension
from psfmatch.io.fits import extension, image_hdus, open_fits, plane
from psfmatch.io.words import are_words
from psfmatch.stamps import Stamp

__all__ = ["read_stamp", "stamp_of"]

SCALE_CARDS = ("PIXSCALE", "PIXELSCL", "PIXSCL", "PIXSCAL1")
AREA_CARDS = {"PIXAR_A2": 1.0, "PIXAR_SR": math.degrees(3600.0) ** 2}  # arcsec^2, steradian
UNITS = {"": 1.0, "deg": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600, "mas": 1 / 3.6e6, "rad": math.degrees(1.0)}


def read_stamp(source: PathLike) -> Stamp | None:
    """The pixels of a FITS stamp as they are, of any size, and how they lie on the sky.

    ``name.fits[EXT]`` picks an extension.  The scale is that of the cards PIXSCALE, PIXELSCL, PIXSCL (arcsec) or
    PIXAR_A2, PIXAR_SR (area), else of the WCS; the orientation that of the WCS (CD, or CDELT with PC or CROTA2).
    Cards of the primary header count where the extension has none.

    Parameters
    ----------
    source : path or str
        A FITS file.

    Returns
    -------
    Stamp or None
        None where the source is not such a stamp: words, a PSFEx model, or a file of psfmatch, which `read_psf` reads.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is damaged, or holds no two-dimensional image.
    PSFError
        If the image has pixels that are not finite, or no positive flux.
    """
    file, wanted = split_extension(source)
    if isinstance(source, str) and not file.exists() and are_words(source):
        return None
    with open_fits(existing_file(file)) as hdus:
        if wanted is None and (psfex.models(hdus) or "PSFMATCH" in hdus[0].header):
            return None
        if wanted is not None and psfex.models([extension(hdus, wanted)]):
            return None
        try:
            return stamp_of(hdus, _stamp_hdu(hdus, wanted))
        except PSFError as error:
            raise PSFError(f"{os.fspath(source)}: {error}") from error


def stamp_of(hdus: fits.HDUList, hdu: Any) -> Stamp:
    """The pixels of one HDU, and how they lie on the sky; see `read_stamp`."""
    return Stamp(np.asarray(plane(hdus, hdu), float), *_geometry(hdus, hdu))


def _stamp_hdu(hdus: fits.HDUList, wanted: str | None) -> Any:
    if wanted is not None:
        return extension(hdus, wanted)
    images = image_hdus(hdus)
    if not images:
        raise FormatError(f"{hdus.filename()}: holds no two-dimensional image")
    return next((hdu for hdu in images if hdu.name == "PSF"), images[0])


def _geometry(hdus: fits.HDUList, hdu: Any) -> tuple[float | None, float | None, bool]:
    """Arcseconds a pixel (the root of its area), the position angle of the +y axis, and whether it is mirrored."""
    headers = (hdu.header, hdus[0].header)
    matrix = next((m for m in map(_matrix, headers) if m is not None), None)
    scale = next((s for s in map(_scale, headers) if s is not None), None)
    if matrix is None:
        return scale, None, False
    determinant = float(np.linalg.det(matrix))
    angle = math.degrees(math.atan2(matrix[0, 1], matrix[1, 1])) + 0.0
    return scale or 3600.0 * math.sqrt(abs(determinant)), angle, determinant > 0


def _number(header: fits.Header, card: str) -> float | None:
    """The card's value, if it is a number other than 0; that of text such as ``'0.04 arcsec'`` is not believed."""
    value = header.get(card)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value != 0
    return float(value) if good else None


def _scale(header: fits.Header) -> float | None:
    for card in SCALE_CARDS:
        value = _number(header, card)
        if value is not None and value > 0:
            return value
    for card, unit in AREA_CARDS.items():
        value = _number(header, card)
        if value is not None and value > 0:
            return math.sqrt(value * unit)
    return None


def _matrix(header: fits.Header) -> FloatArray | None:
    """Degrees on the sky (east, north) a pixel (x, y), from the WCS cards; None where there are none to believe."""
    kinds = [str(header.get(f"CTYPE{i}", "")).strip()[:4].rstrip("-") for i in (1, 2)]
    if any(kinds) and kinds not in (["RA", "DEC"], ["DEC", "RA"]):
        return None
    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        matrix = np.array([[_number(header, f"CD{i}_{j}") or 0.0 for j in (1, 2)] for i in (1, 2)])
    else:
        steps = [_number(header, f"CDELT{i}") for i in (1, 2)]
        if steps[0] is None or steps[1] is None or (not any(kinds) and steps == [1.0, 1.0]):
            return None
        matrix = np.diag([steps[0], steps[1]]) @ _rotation(header, steps[1] / steps[0])
    units = [UNITS.get(str(header.get(f"CUNIT{i}", "")).strip().lower()) for i in (1, 2)]
    if units[0] is None or units[1] is None or not abs(np.linalg.det(matrix)) > 0:
        return None
    matrix = np.diag([units[0], units[1]]) @ matrix
    return np.asarray(matrix[::-1] if kinds[0] == "DEC" else matrix)


def _rotation(header: fits.Header, ratio: float) -> FloatArray:
    """The PC matrix, given or from CROTA2 (``ratio`` = CDELT2 / CDELT1)."""
    if "CROTA2" in header and not any(card in header for card in ("PC1_1", "PC1_2", "PC2_1", "PC2_2")):
        t = math.radians(_number(header, "CROTA2") or 0.0)
        return np.array([[math.cos(t), -math.sin(t) * ratio], [math.sin(t) / ratio, math.cos(t)]])
    return np.array([[header.get(f"PC{i}_{j}", float(i == j)) for j in (1, 2)] for i in (1, 2)], float)
