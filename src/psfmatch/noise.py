"""The noise of sums over pixels, such as an aperture or the flux of a PSF, where neighbouring pixels are correlated.

The diagonal of the covariance, which is all that a variance plane holds, is wrong by factors for sums over matched
pixels.  `NoiseCorrelation` holds the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from psfmatch.correlation import Interpolation, NoiseCorrelation, Positions
from psfmatch.errors import InputError
from psfmatch.geometry import Box, FloatArray, as_positions, no_unit, odd_shape, plain_array, resized
from psfmatch.psf import PSF

__all__ = [
    "Interpolation",
    "NoiseCorrelation",
    "Positions",
    "aperture_stamps",
    "aperture_variance",
    "psf_flux_variance",
    "weighted_variance",
]

BATCH_BYTES = 1 << 26


def aperture_stamps(*, x: ArrayLike, y: ArrayLike, radius: float) -> FloatArray:
    """The share of each pixel that lies in a circle, exactly.

    Parameters
    ----------
    x, y : float or array
        Centres, in pixels; the central pixel of a stamp is the nearest one.
    radius : float
        In pixels.

    Returns
    -------
    array, shape (n, s, s)
        0 to 1; each stamp sums to the area of the circle.

    Raises
    ------
    InputError
        If the radius is not positive.
    """
    no_unit(radius, "aperture radius", "pixels")
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"aperture radius={radius!r}: must be finite and positive, in pixels")
    px, py = as_positions(x, y)
    half = int(np.ceil(radius + 0.5))
    edges = np.arange(-half, half + 2) - 0.5
    corners_x = edges[None, None, :] - (px - np.rint(px))[:, None, None]
    corners_y = edges[None, :, None] - (py - np.rint(py))[:, None, None]
    areas = np.diff(np.diff(_quadrant(corners_x, corners_y, radius), axis=1), axis=2)
    return np.clip(areas, 0.0, 1.0)


def _quadrant(x: FloatArray, y: FloatArray, radius: float) -> FloatArray:
    """The area of the circle left of x and below y."""
    x, y = np.clip(x, -radius, radius), np.clip(y, -radius, radius)

    def strip(t: FloatArray) -> FloatArray:
        """The area between chord and centre line, from the centre to t."""
        root = np.sqrt(np.maximum(radius**2 - t**2, 0.0))
        return np.asarray(0.5 * (t * root + radius**2 * np.arcsin(t / radius)))

    quarter = np.pi * radius**2 / 4
    chord = np.sqrt(radius**2 - y**2)
    below = strip(np.minimum(x, -chord)) + quarter + np.abs(y) * (np.clip(x, -chord, chord) + chord)
    below += strip(np.maximum(x, chord)) - strip(chord)
    return np.asarray(strip(x) + quarter + np.sign(y) * below)


def weighted_variance(
    variance: ArrayLike, correlation: NoiseCorrelation, weights: ArrayLike, *, x: ArrayLike, y: ArrayLike,
    box: Box | None = None,
) -> FloatArray:  # fmt: skip
    """The variance of sums ``sum_p g_p I_p``: ``sum_pq g_p g_q rho(q - p) sqrt(variance_p variance_q)``.

    Parameters
    ----------
    variance : float or array, shape (ny, nx)
        The variance plane, or one number for all pixels, in the image's unit squared.
    correlation : NoiseCorrelation
        Of the noise; taken as constant within a stamp.
    weights : array, shape (gy, gx) or (n, gy, gx)
        The weights g, one odd-sized stamp for all positions or one for each.
    x, y : float or array
        Positions in pixels; the central pixel of the stamp is the nearest one.
    box : Box, optional
        Where the variance plane lies; by default that of ``correlation``.

    Returns
    -------
    array, shape (n,)
        In the unit of the variance times that of the weights squared.  NaN where a pixel whose weight is not zero
        lies beyond the plane, or has no finite variance.

    Raises
    ------
    InputError
        If the weights do not fit the positions, or the plane does not fit the box.
    """
    px, py = as_positions(x, y)
    g = plain_array(weights, "weights", float)
    g = g[None] if g.ndim == 2 else g
    if g.ndim != 3 or len(g) not in (1, px.size):
        raise InputError(f"weights of shape {np.shape(weights)}: give one stamp, or one a position ({px.size})")
    shape = odd_shape(g.shape[1:], "weights shape")
    plane = plain_array(variance, "variance", float if np.ndim(variance) == 0 else None)
    where = correlation.box if box is None else box
    if plane.ndim and plane.shape != where.shape:
        raise InputError(f"variance of shape {plane.shape} does not fit {where}")
    lags = (2 * shape[0] - 1, 2 * shape[1] - 1)
    out = np.empty(px.size)
    for part in _batches(px.size, lags):
        rows, columns = np.rint(py[part]).astype(int) - where.y0, np.rint(px[part]).astype(int) - where.x0
        v = _cut_outs(plane, rows, columns, shape)
        some = np.broadcast_to(g[part] if len(g) > 1 else g, v.shape)
        h = some * np.sqrt(np.where(some == 0, 0.0, v))
        known = np.isfinite(h).all(axis=(1, 2))
        size = tuple(fft.next_fast_len(n, real=True) for n in lags)
        power = np.abs(fft.rfft2(np.where(known[:, None, None], h, 0.0), size)) ** 2
        shared = np.roll(fft.irfft2(power, size), (shape[0] - 1, shape[1] - 1), (1, 2))[:, : lags[0], : lags[1]]
        rho = resized(correlation.stamps(x=px[part], y=py[part]), lags)
        out[part] = np.where(known, (shared * rho).sum(axis=(1, 2)), np.nan)
    return out


def _batches(count: int, shape: tuple[int, int]) -> Iterator[slice]:
    step = max(1, BATCH_BYTES // (8 * shape[0] * shape[1]))
    return (slice(start, start + step) for start in range(0, count, step))


def _cut_outs(plane: FloatArray, rows: FloatArray, columns: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Stamps of the plane about its pixels; NaN beyond it."""
    if plane.ndim == 0:
        return np.full((rows.size, *shape), float(plane))
    r = rows[:, None] + np.arange(shape[0]) - shape[0] // 2
    c = columns[:, None] + np.arange(shape[1]) - shape[1] // 2
    ny, nx = plane.shape
    inside = ((r >= 0) & (r < ny))[:, :, None] & ((c >= 0) & (c < nx))[:, None, :]
    cut = plane[np.clip(r, 0, ny - 1)[:, :, None], np.clip(c, 0, nx - 1)[:, None, :]]
    return np.where(inside, cut, np.nan)


def aperture_variance(
    variance: ArrayLike, correlation: NoiseCorrelation, *, x: ArrayLike, y: ArrayLike, radius: float,
    box: Box | None = None,
) -> FloatArray:  # fmt: skip
    """The variance of the flux in circular apertures, pixels on the rim counted by the share inside.

    Parameters
    ----------
    variance : float or array, shape (ny, nx)
        The variance plane, or one number for all pixels, in the image's unit squared.
    correlation : NoiseCorrelation
        Of the noise; taken as constant within the pixels of a source.
    x, y : float or array
        Centres in pixels.
    radius : float
        In pixels.
    box : Box, optional
        Where the variance plane lies; by default that of ``correlation``.

    Returns
    -------
    array, shape (n,)
        In the unit of the variance; NaN where the aperture reaches beyond the plane or over unknown variance.

    Raises
    ------
    InputError
        If the radius is not positive, or the plane does not fit the box.
    """
    circles = aperture_stamps(x=x, y=y, radius=radius)
    return weighted_variance(variance, correlation, circles, x=x, y=y, box=box)


def psf_flux_variance(
    variance: ArrayLike, correlation: NoiseCorrelation, psf: PSF, *, x: ArrayLike, y: ArrayLike,
    shape: tuple[int, int] | None = None, box: Box | None = None,
) -> FloatArray:  # fmt: skip
    """The variance of the flux that is fitted to a point source by least squares, all pixels alike.

    With the sky subtracted, the fit of ``F P`` is ``F = sum_p g_p I_p`` with ``g = P / sum P^2`` (King 1983,
    PASP 95, 163), and its variance ``sum_pq g_p g_q rho(q - p) sqrt(variance_p variance_q)``; for white noise it
    is ``variance / sum P^2``.

    Parameters
    ----------
    variance : float or array, shape (ny, nx)
        The variance plane, or one number for all pixels, in the image's unit squared.
    correlation : NoiseCorrelation
        Of the noise; taken as constant within the pixels of a source.
    psf : PSF
        Of the matched exposure, or of the coadd.
    x, y : float or array
        Positions in pixels; the source is taken to lie in the centre of the nearest pixel.
    shape : (int, int), optional
        Rows and columns of the stamps, odd.  Default: those of the PSF.
    box : Box, optional
        Where the variance plane lies; by default that of ``correlation``.

    Returns
    -------
    array, shape (n,)
        In the unit of the variance; NaN where the stamp reaches beyond the plane or over unknown variance.

    Raises
    ------
    PSFError
        If the PSF cannot be evaluated at one of the positions.
    InputError
        If the plane does not fit the box.
    """
    px, py = as_positions(x, y)
    one = slice(1 if psf.constant else None)
    stamps = psf.stamps(x=px[one], y=py[one], shape=shape)
    weights = stamps / (stamps**2).sum(axis=(1, 2), keepdims=True)
    return weighted_variance(variance, correlation, weights, x=px, y=py, box=box)
