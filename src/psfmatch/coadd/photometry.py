"""One photometric scale: the factors that bring exposures to a common zero point, and their sky levels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.stars import find_stars, usable_pixels

__all__ = ["flux_factors", "sky_level", "star_factors", "zero_point"]

CARDS = ("MAGZERO", "MAGZP", "ZEROPNT", "ZEROPOINT", "PHOTZP", "MAG_ZERO", "ZP")
FLUX_CARDS = ("FLUXMAG0", "FMAG0")
AB_NANOJANSKY = 31.4
RADIUS = 2.0
APART = 1.5
LEAST_STARS = 3
LEVELS = 2_000_000


def zero_point(meta: Mapping[str, Any], unit: str | None = None) -> float | None:
    """The magnitude of one unit of an image's flux, from what the exposure carries; None where it does not say.

    That of the cards MAGZERO, MAGZP, ZEROPNT, ZEROPOINT, PHOTZP, MAG_ZERO, ZP (for the whole exposure time); or of
    FLUXMAG0 (the flux of magnitude 0); or MAGZPT, magnitudes of one unit a second, with EXPTIME; or 31.4 where the unit
    is nJy.
    """
    cards = {str(key).upper(): value for key, value in meta.items()}
    for card in CARDS:
        value = _number(cards.get(card))
        if value is not None:
            return value
    for card in FLUX_CARDS:
        value = _number(cards.get(card))
        if value is not None and value > 0:
            return 2.5 * math.log10(value)
    rate, time = _number(cards.get("MAGZPT")), _number(cards.get("EXPTIME"))
    if rate is not None and time is not None and time > 0:
        return rate + 2.5 * math.log10(time)
    return AB_NANOJANSKY if unit == "nJy" else None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def flux_factors(zero_points: Sequence[float | None], common: float) -> list[float]:
    """What images are multiplied by for the common zero point, ``10^(0.4 (common - own))``; 1 where it is unknown."""
    return [1.0 if own is None else 10.0 ** (0.4 * (common - own)) for own in zero_points]


def sky_level(exposure: Exposure, *, of: float = LEVELS) -> float:
    """The median of the usable pixels (of some two million of them, or ``of``), three times clipped at 3 sigma."""
    step = max(1, round(math.sqrt(exposure.image.size / of)))
    thinned = exposure.image[::step, ::step][usable_pixels(exposure)[::step, ::step]]
    values = np.asarray(thinned, float)
    if not values.size:
        raise InputError("no usable pixel; the exposure has no sky level")
    for _ in range(3):
        middle = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - middle)))
        values = values[np.abs(values - middle) <= 3.0 * spread] if spread > 0 else values
    return float(np.median(values))


def star_factors(exposures: Iterable[Exposure], factors: Sequence[float]) -> list[float]:
    """The factors, corrected so that stars that two exposures share are equally bright in both.

    Of exposures with one PSF (matched ones): the ratios of the fluxes within twice the FWHM of the PSF, stars matched
    on the sky to 1.5 arcsec, their median per pair of exposures, solved for one factor an exposure by least squares
    with the mean of the logarithms kept.

    Raises
    ------
    InputError
        If an exposure is tied to the first by no chain of exposures of which each shares 3 stars or more with the
        next; it is named by its number.
    """
    tables = [_star_table(exposure) for exposure in exposures]
    n = len(tables)
    rows: list[FloatArray] = []
    ratios: list[float] = []
    weights: list[float] = []
    for i in range(n):
        for j in range(i + 1, n):
            pairs = _pairs(tables[i], tables[j])
            if len(pairs) < LEAST_STARS:
                continue
            row = np.zeros(n)
            row[i], row[j] = 1.0, -1.0
            rows.append(row)
            flux_i, flux_j = tables[i][pairs[:, 0], 2], tables[j][pairs[:, 1], 2]
            ratios.append(float(np.median(np.log(flux_j * factors[j] / (flux_i * factors[i])))))
            weights.append(math.sqrt(len(pairs)))
    if n < 2:
        return list(factors)
    tied = _tied_to_the_first(np.array(rows).reshape(-1, n))
    if not tied.all():
        raise InputError(
            f"input {int(np.argmin(tied)) + 1} of {n} shares fewer than {LEAST_STARS} stars with input 1, and with "
            "any that do: its scale cannot be fitted; give zero points"
        )
    matrix = np.vstack([*(np.array(rows) * np.array(weights)[:, None]), np.full(n, 1e3)])
    wanted = np.append(np.array(ratios) * weights, 0.0)
    correction = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return [factor * math.exp(c) for factor, c in zip(factors, correction, strict=True)]


def _tied_to_the_first(pairs: FloatArray) -> NDArray[np.bool_]:
    """Which exposures a chain of pairs, each a row with its two not zero, ties to the first."""
    from scipy.sparse.csgraph import connected_components

    shared = np.abs(pairs)
    labels = connected_components(shared.T @ shared, directed=False)[1]
    return np.asarray(labels == labels[0])


def _star_table(exposure: Exposure) -> FloatArray:
    """Right ascension and declination (degrees) and flux of the stars: shape (n, 3)."""
    if exposure.wcs is None or exposure.psf is None:
        raise InputError("relative scales need exposures with a WCS and a PSF")
    level = sky_level(exposure)
    stamp = exposure.psf.stamps(x=exposure.box.center.x, y=exposure.box.center.y)[0]
    radius = max(3.0, RADIUS * math.sqrt(np.count_nonzero(stamp > 0.5 * stamp.max()) * 4.0 / math.pi))
    half = math.ceil(radius)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    aperture = np.hypot(dy, dx) <= radius
    table = []
    for position in find_stars(exposure):
        row, column = int(position.y) - exposure.box.y0, int(position.x) - exposure.box.x0
        inside = half <= row < exposure.shape[0] - half and half <= column < exposure.shape[1] - half
        if not inside:
            continue
        cut = exposure.image[row - half : row + half + 1, column - half : column + half + 1][aperture]
        flux = float((cut - level).sum())
        if np.isfinite(flux) and flux > 0:
            ra, dec = exposure.wcs.pixel_to_world_values(column, row)
            table.append((float(ra), float(dec), flux))
    return np.array(table, float).reshape(-1, 3)


def _pairs(one: FloatArray, other: FloatArray) -> np.ndarray[Any, Any]:
    """Rows of two tables that are each other's nearest and less than 1.5 arcsec apart: shape (n, 2)."""
    if not (len(one) and len(other)):
        return np.empty((0, 2), int)
    scale = math.cos(math.radians(float(one[:, 1].mean())))
    dx = (one[:, None, 0] - other[None, :, 0] + 180.0) % 360.0 - 180.0
    apart = 3600.0 * np.hypot(scale * dx, one[:, None, 1] - other[None, :, 1])
    there, back = apart.argmin(axis=1), apart.argmin(axis=0)
    return np.array([(i, j) for i, j in enumerate(there) if back[j] == i and apart[i, j] < APART], int).reshape(-1, 2)
