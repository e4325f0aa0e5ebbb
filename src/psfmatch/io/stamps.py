"""PSF stamps in FITS files as they are: the pixels, their size and their orientation on the sky."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.geometry import FloatArray
from psfmatch.io.fits import plane
from psfmatch.stamps import Stamp

__all__ = ["pixel_scale_of", "stamp_of"]

SCALE_CARDS = ("PIXSCALE", "PIXELSCL", "PIXSCL", "PIXSCAL1", "SECPIX")
AREA_CARDS = {"PIXAR_A2": 1.0, "PIXAR_SR": math.degrees(3600.0) ** 2}  # arcsec^2, steradian
UNITS = {"": 1.0, "deg": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600, "mas": 1 / 3.6e6, "rad": math.degrees(1.0)}


def stamp_of(hdus: fits.HDUList, hdu: Any) -> Stamp:
    """The pixels of one HDU, and how they lie on the sky; see `psfmatch.io.read_stamp`."""
    return Stamp(np.asarray(plane(hdus, hdu), float), *_geometry(hdus, hdu))


def pixel_scale_of(hdus: fits.HDUList, hdu: Any) -> float | None:
    """Arcseconds a pixel (the root of its area) of one HDU; see `psfmatch.io.read_stamp`."""
    return _geometry(hdus, hdu)[0]


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
