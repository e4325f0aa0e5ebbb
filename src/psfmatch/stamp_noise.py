"""The noise of an empirical PSF stamp."""

from __future__ import annotations

from math import comb

import numpy as np
from scipy import ndimage

from psfmatch.errors import PSFError
from psfmatch.geometry import FloatArray

__all__ = ["stamp_noise"]

ORDERS = (2, 4, 8)
ANNULI = ((0.5, 0.7), (0.7, 0.85), (0.85, 1.0), (1.0, 1.5))
FAINTEST = 1e-5
"""Noise below this fraction of the peak cannot be told from structure, and does no harm."""


def stamp_noise(stamp: FloatArray) -> float:
    """The standard deviation per pixel of white noise in a PSF stamp, from the stamp alone.

    Differences of high order in x *and* y pass only the corners of the Fourier plane, where a PSF has little power,
    and are taken beyond half the stamp's radius, where it is faint (Immerkaer 1996, CVIU 64, 300, with its mask of
    order 2 x 2 as the lowest of three).  White noise has the same variance in every order and annulus; structure
    has not.  The answer is the variance of the second differences, but no more than the least 2-sigma upper limit
    of any order in any annulus.

    Parameters
    ----------
    stamp : array
        An image of odd size.  Regions that are exactly zero (a stamp cut to a circle) are left out.

    Returns
    -------
    float
        In the stamp's units; 0 where it would be below 1e-5 of the peak: such a stamp is a noiseless model.

    Raises
    ------
    PSFError
        If the stamp has no positive pixel.
    """
    peak = float(stamp.max())
    if peak <= 0:
        raise PSFError("the noise of a PSF stamp without a positive pixel is not defined")
    radius = _relative_radius(stamp.shape)
    pooled, limit = np.inf, np.inf
    for order in ORDERS:
        if min(stamp.shape) < 2 * order + 3:
            continue
        squares, where = _squared_differences(stamp, radius, order)
        for inner, outer in ANNULI:
            values = squares[(where > inner) & (where <= outer)]
            spread = np.sqrt(2.0 / max(values.size * _independent_fraction(order), 1e-9))
            if spread < 0.45:
                limit = min(limit, float(values.mean()) / (1.0 - 2.0 * spread))
        if order == ORDERS[0]:
            values = squares[where > ANNULI[0][0]]
            pooled = float(values.mean()) if values.size else np.inf
    variance = min(pooled, limit)
    sigma = float(np.sqrt(variance)) if np.isfinite(variance) else 0.0
    return sigma if sigma >= FAINTEST * peak else 0.0


def _relative_radius(shape: tuple[int, ...]) -> FloatArray:
    """Distance from the central pixel, 1 at the middle of each side."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    return np.hypot(y[:, None] / max(shape[0] // 2, 1), x[None, :] / max(shape[1] // 2, 1))


def _squared_differences(stamp: FloatArray, radius: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    """Squared mixed differences, scaled so that white noise keeps its variance, and their radii; no zeros."""
    mask = np.array([(-1.0) ** k * comb(order, k) for k in range(order + 1)])
    mask /= np.linalg.norm(mask)
    inside = (slice(order // 2, -(order // 2)),) * 2
    values = ndimage.correlate1d(ndimage.correlate1d(stamp, mask, 0), mask, 1)[inside]
    filled = ~ndimage.maximum_filter(stamp == 0, order + 1)[inside]
    return values[filled] ** 2, radius[inside][filled]


def _independent_fraction(order: int) -> float:
    """The number of independent values per pixel among squared mixed differences."""
    power, square = comb(2 * order, order) / 4.0**order, comb(4 * order, 2 * order) / 16.0**order
    return (power**2 / square) ** 2
