"""Widths of stamps: adaptive moments, and the FWHM of the profile."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import PSFError
from psfmatch.geometry import FloatArray

__all__ = ["SIGMA_TO_FWHM", "adaptive_moments", "ellipse", "fwhm", "moments_fwhm", "widths"]

SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def adaptive_moments(
    stamp: FloatArray, *, max_iterations: int = 100, ellipticity_tolerance: float = 1e-5, size_tolerance: float = 1e-4
) -> tuple[float, float, float]:
    """Second moments (xx, xy, yy) under the elliptical Gaussian weight that matches the object.

    The weight's inverse covariance is updated by ``W' = M^-1 - W`` with M the covariance of the weighted object,
    until M's ellipticities and size settle (Bernstein & Jarvis 2002, AJ 123, 583, section 3; as in SDSS and
    Rubin, whose start, cut-offs and tolerances these are, so that the last digits agree).

    Raises
    ------
    PSFError
        If the moments do not converge.
    """
    ny, nx = stamp.shape
    y, x = (np.arange(n) - n // 2.0 for n in (ny, nx))
    dy, dx = y[:, None], x[None, :]
    weight = np.eye(2) * 1.5
    inverse = np.linalg.inv(weight)
    previous = (np.inf, np.inf, np.inf)
    fine = False
    iteration = 0
    while iteration < max_iterations:
        determinant = float(np.linalg.det(weight))
        if not np.isfinite(determinant) or determinant < np.finfo(np.float32).eps:
            break
        if not fine and (min(weight[0, 0], weight[1, 1]) < 0.25 or determinant < 0.0625):
            fine = True
        inverse = np.linalg.inv(weight)
        radius = 4.0 * np.sqrt(max(weight[0, 0], weight[1, 1]))
        inside = (np.abs(dx) <= radius) & (np.abs(dy) <= radius)
        flux, xx, xy, yy = _weighted_sums(np.where(inside, stamp, 0.0), dx, dy, inverse, fine=fine)
        if not (flux > 0 and xx > 0 and yy > 0):
            break
        observed = np.array([[xx, xy], [xy, yy]]) / flux
        trace = observed[0, 0] + observed[1, 1]
        e1, e2 = (observed[0, 0] - observed[1, 1]) / trace, 2.0 * observed[0, 1] / trace
        if (
            abs(e1 - previous[0]) < ellipticity_tolerance
            and abs(e2 - previous[1]) < ellipticity_tolerance
            and abs(observed[0, 0] / previous[2] - 1.0) < size_tolerance
        ):
            return float(weight[0, 0]), float(weight[0, 1]), float(weight[1, 1])
        previous = (e1, e2, observed[0, 0])
        update = np.linalg.inv(observed) - inverse
        if np.linalg.det(update) <= 0 or update[0, 0] <= 0:
            break
        weight = np.linalg.inv(update)
        iteration += 1
    raise PSFError("the adaptive moments of the PSF do not converge; is it centred in the stamp and positive?")


def _weighted_sums(
    image: FloatArray, dx: FloatArray, dy: FloatArray, inverse: FloatArray, *, fine: bool
) -> tuple[float, float, float, float]:
    """Sums of w I (1, x^2, xy, y^2); with ``fine``, the weight is evaluated on 4 x 4 points of each pixel."""
    shifts = np.arange(-0.375, 0.376, 0.25) if fine else np.zeros(1)
    cut = 9.0 if fine else 14.0
    sums = np.zeros(4)
    for sy in shifts:
        for sx in shifts:
            x, y = dx + sx, dy + sy
            exponent = x * x * inverse[0, 0] + 2.0 * x * y * inverse[0, 1] + y * y * inverse[1, 1]
            weighted = np.where(exponent <= cut, image * np.exp(-0.5 * exponent), 0.0)
            sums += [weighted.sum(), (weighted * x * x).sum(), (weighted * x * y).sum(), (weighted * y * y).sum()]
    return float(sums[0]), float(sums[1]), float(sums[2]), float(sums[3])


def moments_fwhm(stamp: FloatArray) -> float:
    """The FWHM of the Gaussian with the stamp's adaptive moments: ``2.355 det^(1/4)`` (pixels)."""
    xx, xy, yy = adaptive_moments(stamp)
    return float(SIGMA_TO_FWHM * (xx * yy - xy * xy) ** 0.25)


def ellipse(stamp: FloatArray) -> tuple[float, float]:
    """Ellipticity ``1 - b/a`` and direction of the long axis, in degrees from +x towards +y, by the adaptive moments.

    Raises
    ------
    PSFError
        If the moments do not converge.
    """
    xx, xy, yy = adaptive_moments(stamp)
    half, radius = 0.5 * (xx + yy), float(np.hypot(0.5 * (xx - yy), xy))
    ratio = max(half - radius, 0.0) / (half + radius)
    return float(1.0 - np.sqrt(ratio)), float(0.5 * np.rad2deg(np.arctan2(2.0 * xy, xx - yy)))


def fwhm(stamp: FloatArray, *, oversampling: int = 8) -> float:
    """The full width at half maximum of the profile itself (pixels).

    The diameter of the circle with the area inside the half-maximum contour, on a quintic-spline interpolation of
    the stamp.
    """
    return float(widths(stamp[None], oversampling)[0])


def widths(stamps: FloatArray, oversampling: int = 8) -> FloatArray:
    """The `fwhm` of stamps (n, sy, sx)."""
    from scipy.ndimage import spline_filter1d

    inside = np.argwhere((stamps > 0.5 * stamps.max(axis=(1, 2), keepdims=True)).any(axis=0))
    spans = [
        (max(0, low - 2), min(n - 1, high + 2) + 1)
        for low, high, n in zip(inside.min(axis=0), inside.max(axis=0), stamps.shape[1:], strict=True)
    ]
    rows, columns = (
        _mirrored(start - 3, stop + 3, n) for (start, stop), n in zip(spans, stamps.shape[1:], strict=True)
    )
    by, bx = (_quintic(stop - start, oversampling) for start, stop in spans)
    smooth = spline_filter1d(spline_filter1d(stamps, 5, axis=1), 5, axis=2)
    areas = _areas_above_half(by @ smooth[:, rows[:, None], columns] @ bx.T)
    return np.asarray(2.0 * np.sqrt(areas / np.pi) / oversampling)


def _areas_above_half(images: FloatArray) -> FloatArray:
    """The pixels above half the maximum; each counts by the fraction that a local plane leaves above that level."""
    gy, gx = np.gradient(images, axis=(1, 2))
    steep = np.maximum(np.abs(gy) + np.abs(gx), 1e-300)
    above = images - 0.5 * images.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.clip(0.5 + above / steep, 0.0, 1.0).sum(axis=(1, 2)))


@lru_cache(maxsize=64)
def _mirrored(start: int, stop: int, count: int) -> NDArray[np.intp]:
    """Indices from start to stop, those beyond the ends reflected about the first and the last of ``count`` pixels."""
    return np.pad(np.arange(count), 3, mode="reflect")[start + 3 : stop + 3]


@lru_cache(maxsize=64)
def _quintic(count: int, oversampling: int) -> FloatArray:
    """B-splines of degree 5, one about each of ``count`` pixels and of 3 on either side, at points between the first
    and the last pixel."""
    from scipy.interpolate import BSpline

    points = np.arange((count - 1) * oversampling + 1) / oversampling
    spline = BSpline.basis_element(np.arange(-3.0, 4.0), extrapolate=False)
    return np.asarray(np.nan_to_num(spline(points[:, None] - np.arange(-3, count + 3))))
