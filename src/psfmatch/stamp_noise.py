"""The noise of an empirical PSF stamp: how much there is, and the best estimate of what lies beneath it."""

from __future__ import annotations

from functools import cache, lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from psfmatch.errors import PSFError
from psfmatch.geometry import FloatArray, frozen
from psfmatch.moments import fwhm

__all__ = ["denoised", "noises", "stamp_noise"]

ORDERS = (2, 4, 8)
ANNULI = ((0.5, 0.7), (0.7, 0.85), (0.85, 1.0), (1.0, 1.5))
UNIT_SUM = 1e-6
FAINTEST = 1e-5
"""Noise below this fraction of the peak cannot be told from structure, and does no harm."""
SCALES = 3
"""Dyadic scales of the residual: differences at 1, 2 and 4 px, and what is smoother."""
RING, ANNULUS = 0.7, 2.0
"""Widths at the finest scale, in pixels, of the rings whose mean is kept and of the annuli of one power."""
RING_SIGMAS, POWER_SIGMAS = 2.0, 1.5
"""Significance that a ring's mean, and the power in an annulus, must exceed."""


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
    return float(noises(stamp[None])[0])


def noises(stamps: FloatArray) -> FloatArray:
    """The `stamp_noise` of stamps (n, sy, sx)."""
    peak = stamps.max(axis=(1, 2))
    if not (peak > 0).all():
        raise PSFError("the noise of a PSF stamp without a positive pixel is not defined")
    variance = np.full(len(stamps), np.inf)
    for order in ORDERS:
        if min(stamps.shape[1:]) < 2 * order + 3:
            continue
        squares, filled = _squared_differences(stamps, order)
        for k, where in enumerate(_annuli(stamps.shape[1:], order)):
            counts = np.full(len(stamps), where.size) if filled is None else filled[:, where].sum(axis=1)
            mean = squares[:, where].sum(axis=1) / np.maximum(counts, 1)
            if k == 0:  # all beyond half the radius
                found = np.where((counts > 0) & (order == ORDERS[0]), mean, np.inf)
            else:
                spread = np.sqrt(2.0 / np.maximum(counts * _independent_fraction(order), 1e-9))
                found = np.where(spread < 0.45, mean / np.maximum(1.0 - 2.0 * spread, 0.1), np.inf)
            variance = np.minimum(variance, found)
    seen = np.isfinite(variance) & (variance >= (FAINTEST * peak) ** 2)
    return np.asarray(np.sqrt(np.where(seen, variance, 0.0)))


@lru_cache(maxsize=64)
def _annuli(shape: tuple[int, int], order: int) -> tuple[NDArray[np.intp], ...]:
    """The pixels, numbered through, of differences of an order: those beyond half the radius, and of each annulus.

    The radius is the distance from the central pixel, 1 at the middle of each side.
    """
    y, x = ((np.arange(n) - n // 2)[order // 2 : -(order // 2)] / max(n // 2, 1) for n in shape)
    radius = np.hypot(y[:, None], x).ravel()
    limits = ((ANNULI[0][0], np.inf), *ANNULI)
    return tuple(frozen(np.flatnonzero((radius > inner) & (radius <= outer))) for inner, outer in limits)


def _squared_differences(stamps: FloatArray, order: int) -> tuple[FloatArray, NDArray[np.bool_] | None]:
    """Squared mixed differences (n, pixels), scaled so that white noise keeps its variance; and which hold no zero.

    Those that do are 0; None where none does.
    """
    mask = np.array([(-1.0) ** k * comb(order, k) for k in range(order + 1)])
    mask /= np.linalg.norm(mask)
    inside = (slice(None), *(slice(order // 2, -(order // 2)),) * 2)
    values = ndimage.correlate1d(ndimage.correlate1d(stamps, mask, 1), mask, 2)[inside].reshape(len(stamps), -1)
    if stamps.all():
        return values**2, None
    filled = ~ndimage.maximum_filter(stamps == 0, (1, order + 1, order + 1))[inside].reshape(len(stamps), -1)
    return np.where(filled, values, 0.0) ** 2, filled


def _independent_fraction(order: int) -> float:
    """The number of independent values per pixel among squared mixed differences."""
    power, square = comb(2 * order, order) / 4.0**order, comb(4 * order, 2 * order) / 16.0**order
    return (power**2 / square) ** 2


def denoised(stamp: FloatArray, noise: float) -> FloatArray:
    """The best estimate of the PSF beneath white noise.

    An elliptical Moffat profile is fitted; what it leaves is split into dyadic scales (the isotropic undecimated
    wavelet of Starck & Murtagh 1994, A&A 288, 342), and each scale, ring by ring, into its azimuthal mean and the
    rest.  Both are multiplied by ``max(0, 1 - c / (power / noise power))``, the positive-part James-Stein factor
    (Efron & Morris 1973, JASA 68, 117), with c > 1 such that noise alone seldom passes.  A PSF that is no Moffat
    profile keeps whatever of its structure the noise lets see.

    Parameters
    ----------
    stamp : array
        Image of a PSF, of odd size, centred within a pixel or so.
    noise : float
        Standard deviation per pixel, as of `stamp_noise`.

    Returns
    -------
    array
        The stamp itself where ``noise`` is 0.  A sum of 1 stays 1.
    """
    if noise <= 0:
        return stamp
    model = _fitted_moffat(stamp)
    clean = model + _shrunk(stamp - model, noise)
    if abs(float(stamp.sum()) - 1.0) <= UNIT_SUM and clean.sum() > 0:
        clean /= clean.sum()
    return clean


def _fitted_moffat(stamp: FloatArray) -> FloatArray:
    """The elliptical Moffat profile nearest to the stamp; zeros where the fit fails."""
    from scipy import optimize  # slow to load

    y, x = (g.ravel().astype(float) for g in np.indices(stamp.shape))
    y, x = y - stamp.shape[0] // 2, x - stamp.shape[1] // 2
    values, peak = stamp.ravel(), float(stamp.max())
    beta = 2.5
    curvature = beta * (2.0 ** (1.0 / beta) - 1.0) / (0.5 * fwhm(stamp)) ** 2
    start = np.array([peak, 0.0, 0.0, curvature, 0.0, curvature, np.log(beta)])
    fit = optimize.least_squares(
        lambda p: _moffat(p, x, y)[0] - values,
        start,
        jac=lambda p: _moffat(p, x, y)[1],
        method="lm",
        x_scale="jac",
        ftol=1e-6,
        xtol=1e-4,
        max_nfev=30,
    )
    image = _moffat(fit.x, x, y)[0]
    good = np.isfinite(image).all() and np.linalg.norm(image - values) < np.linalg.norm(values)
    return image.reshape(stamp.shape) if good else np.zeros(stamp.shape)


def _moffat(p: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``A (1 + q/beta)^-beta`` with ``q = a dx^2 + 2 b dx dy + c dy^2``; derivatives by A, x0, y0, a, b, c, ln beta.

    In this form the width hardly depends on beta, and the limit of large beta is a Gaussian.
    """
    amplitude, x0, y0, a, b, c, log_beta = p
    beta = np.exp(np.clip(log_beta, -1.0, 7.0))
    dx, dy = x - x0, y - y0
    base = np.maximum(1.0 + (a * dx * dx + 2.0 * b * dx * dy + c * dy * dy) / beta, 1e-6)
    shape = base**-beta
    value = amplitude * shape
    d = -value / base
    gx, gy = -2.0 * d * (a * dx + b * dy), -2.0 * d * (b * dx + c * dy)
    by_beta = value * beta * (1.0 - 1.0 / base - np.log(base))
    return value, np.stack([shape, gx, gy, d * dx * dx, 2.0 * d * dx * dy, d * dy * dy, by_beta], axis=-1)


def _shrunk(residual: FloatArray, noise: float) -> FloatArray:
    """The part of the residual that stands out of white noise, scale by scale and ring by ring."""
    y, x = (np.arange(n) - n // 2 for n in residual.shape)
    radius = np.hypot(y[:, None], x[None, :])
    total = np.zeros(residual.shape)
    for j, (part, norm) in enumerate(zip(_scales(residual), _scale_norms(), strict=True)):
        step = 2 ** min(j, SCALES - 1)
        variance, correlated = (noise * norm) ** 2, step**2
        ring = np.rint(radius / (RING * step)).astype(int)
        count = np.bincount(ring.ravel())
        mean = np.bincount(ring.ravel(), part.ravel()) / count
        limit = RING_SIGMAS**2 * variance / np.maximum(count / correlated, 1.0)
        mean *= _factor(mean**2, limit)
        rest = part - mean[ring]
        annulus = (radius / (ANNULUS * step)).astype(int)
        count = np.bincount(annulus.ravel())
        power = np.bincount(annulus.ravel(), (rest**2).ravel()) / count
        limit = variance * (1.0 + POWER_SIGMAS * np.sqrt(2.0 / np.maximum(count / correlated, 1.0)))
        total += mean[ring] + rest * _factor(power, limit)[annulus]
    return total


def _factor(power: FloatArray, limit: FloatArray) -> FloatArray:
    """``max(0, 1 - limit / power)``."""
    return np.maximum(0.0, 1.0 - limit / np.maximum(power, limit))


def _scales(image: FloatArray) -> list[FloatArray]:
    """The image as a sum of differences between B3-spline smoothings of doubling width, and the smoothest."""
    parts = []
    for j in range(SCALES):
        mask = np.zeros(4 * 2**j + 1)
        mask[:: 2**j] = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
        smooth = ndimage.correlate1d(ndimage.correlate1d(image, mask, 0, mode="constant"), mask, 1, mode="constant")
        parts.append(image - smooth)
        image = smooth
    return [*parts, image]


@cache
def _scale_norms() -> tuple[float, ...]:
    """The standard deviation of each scale of white noise of unit variance."""
    size = 8 * 2**SCALES + 1
    delta = np.zeros((size, size))
    delta[size // 2, size // 2] = 1.0
    return tuple(float(np.linalg.norm(part)) for part in _scales(delta))
