"""One star against a PSF model: what is its flux and place, and how much broader and rounder is it than the model?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.ndimage import map_coordinates, spline_filter

from psfmatch.geometry import FloatArray
from psfmatch.stars.select import Cutout

__all__ = ["Fit", "Profile", "Stack", "StarFit", "compared", "own_columns", "stacked", "tabulated", "weighted_mean"]

Profile = Callable[[FloatArray, FloatArray], FloatArray]
"""Flux in pixels whose centres are at offsets (dx, dy) from a source of unit flux."""

STEP = 0.05
"""Of differences, in pixels."""
ITERATIONS, CONVERGED = 20, 1e-4
MODEL_ERROR = 0.005
"""Error of the model, relative to itself, that is added to the noise: no pixel of a bright star decides alone."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A PSF model fitted to the pixels of a star.

    Parameters
    ----------
    x, y : float
        The centre, relative to the cut-out's.
    flux, background : float
    stretch : array, shape (3,)
        The logarithm of the star's size relative to the model's, and its shear along x and along the diagonal: the
        star is ``exp(s + g)`` times as long and ``exp(s - g)`` times as wide.  Zeros where it was not fitted.
    design : array, shape (n, 4 or 6)
        Derivatives of the pixels by flux, background, x and y; or by flux, x, y and the stretch.
    influence : array, shape (4 or 6, n)
        What a unit in each pixel adds to each of them.
    model : array, shape (n,)
        Flux times the model, plus the background.
    chi2 : float
        Per degree of freedom, within the core.
    """

    x: float
    y: float
    flux: float
    background: float
    stretch: FloatArray
    design: FloatArray
    influence: FloatArray
    model: FloatArray
    chi2: float


@dataclass(frozen=True, eq=False)
class StarFit:
    """A star against a PSF model: as it is, and stretched to the size and shape that fit the star's core best.

    Parameters
    ----------
    cutout : Cutout
    plain : Fit
        Of the model to all pixels.
    core : Cutout
        The pixels of the core.
    stretched : Fit
        Of the stretched model to the core; the background is that of ``plain``.
    """

    cutout: Cutout
    plain: Fit
    core: Cutout
    stretched: Fit

    @property
    def x(self) -> float:
        """Of the star, in pixels of the parent frame."""
        return self.cutout.x + self.plain.x

    @property
    def y(self) -> float:
        """Of the star, in pixels of the parent frame."""
        return self.cutout.y + self.plain.y

    @property
    def stretch(self) -> FloatArray:
        """See `Fit`."""
        return self.stretched.stretch

    @property
    def stretch_variance(self) -> FloatArray:
        """Of ``stretch``, if the noise of the pixels is independent: shape (3,)."""
        return self.stretched.influence[3:] ** 2 @ self.core.variance

    @property
    def residual(self) -> FloatArray:
        """Star less model, in units of the star's flux: shape (n,)."""
        return (self.cutout.data - self.plain.model) / self.plain.flux


def compared(profile: Profile, cutout: Cutout, *, core: float, model_error: float = MODEL_ERROR) -> StarFit:
    """Fit a model, and the stretched model, to a star by weighted least squares (Gauss and Newton).

    Parameters
    ----------
    profile : callable
        The model.
    cutout : Cutout
    core : float
        Radius in pixels within which the stretched model is fitted, and ``chi2`` measured.
    model_error : float
        Of the model, relative to itself; added to the noise of the pixels.
    """
    plain = _fit(profile, cutout, core, model_error)
    inner = cutout.only(np.hypot(cutout.dx - plain.x, cutout.dy - plain.y) <= core)
    return StarFit(cutout, plain, inner, _fit(profile, inner, core, model_error, background=plain.background))


def _fit(profile: Profile, cutout: Cutout, core: float, model_error: float, *, background: float | None = None) -> Fit:
    """Fit the model; the stretched model where the background is given."""
    stretch = background is not None
    x = y = 0.0
    shape = np.zeros(3)
    weight = cutout.variance**-0.5
    data = cutout.data if background is None else cutout.data - background
    linear = 1 if stretch else 2

    def columns_at() -> FloatArray:
        return _columns(profile, cutout.dx - x, cutout.dy - y, shape, stretch=stretch)

    for _ in range(ITERATIONS):
        columns = columns_at()
        flux = max(float(_solved(columns[:, :linear], data, weight)[0]), 1e-30)
        weight = (cutout.variance + (model_error * flux * columns[:, 0]) ** 2) ** -0.5
        design = np.concatenate([columns[:, :linear], flux * columns[:, linear:]], axis=1)
        moved = np.clip(_solved(design, data - flux * columns[:, 0], weight)[linear:], -0.3, 0.3)
        x, y, shape = x + float(moved[0]), y + float(moved[1]), shape + (moved[2:] if stretch else 0.0)
        if np.abs(moved).max() < CONVERGED or max(abs(x), abs(y)) > 3.0 or np.abs(shape).max() > 2.0:
            break
    columns = columns_at()
    solved = _solved(columns[:, :linear], data, weight)
    flux = float(solved[0])
    level = float(solved[1]) if background is None else background
    model = flux * columns[:, 0] + level
    design = np.concatenate([columns[:, :linear], flux * columns[:, linear:]], axis=1)
    scaled = design * weight[:, None]
    influence = np.linalg.lstsq(scaled.T @ scaled, scaled.T, rcond=None)[0] * weight
    inside = np.hypot(cutout.dx - x, cutout.dy - y) <= core
    chi2 = float((((cutout.data - model) * weight)[inside] ** 2).sum()) / max(1, int(inside.sum()) - len(design[0]))
    return Fit(x, y, flux, level, shape, design, influence, model, chi2)


def own_columns(profile: Profile, dx: FloatArray, dy: FloatArray) -> FloatArray:
    """The model, one, and the derivatives of the model by the place of the source: shape (n, 4)."""
    by_x = (profile(dx - STEP, dy) - profile(dx + STEP, dy)) / (2 * STEP)
    by_y = (profile(dx, dy - STEP) - profile(dx, dy + STEP)) / (2 * STEP)
    return np.stack([profile(dx, dy), np.ones_like(dx), by_x, by_y], axis=1)


def _columns(profile: Profile, dx: FloatArray, dy: FloatArray, shape: FloatArray, *, stretch: bool) -> FloatArray:
    """The same of the stretched model, with the derivatives by the stretch for the one: shape (n, 4 or 6)."""
    own = own_columns(_stretched(profile, shape), dx, dy)
    if not stretch:
        return own
    here, _, by_x, by_y = own.T
    # d/ds of exp(-2 s) P(exp(-s) r) is -2 P - r grad P, and likewise for the shears; by_x is -dP/dx.
    more = [dx * by_x + dy * by_y - 2.0 * here, dx * by_x - dy * by_y, dy * by_x + dx * by_y]
    return np.stack([here, by_x, by_y, *more], axis=1)


def _stretched(profile: Profile, shape: FloatArray) -> Profile:
    s, g1, g2 = shape.tolist()
    if s == g1 == g2 == 0.0:
        return profile
    g = max(float(np.hypot(g1, g2)), 1e-12)
    c, d, k = np.cosh(g), np.sinh(g) / g, np.exp(-s)
    xx, xy, yy = k * (c - d * g1), -k * d * g2, k * (c + d * g1)
    return lambda dx, dy: k * k * profile(xx * dx + xy * dy, xy * dx + yy * dy)


def tabulated(values: FloatArray, spacing: float = 1.0) -> Profile:
    """The profile whose values on a grid about the source are given: shape (ny, nx), odd; zero beyond."""
    half = [n // 2 for n in values.shape]
    coefficients = spline_filter(values, order=5)

    def pixels(dx: FloatArray, dy: FloatArray) -> FloatArray:
        at = dy / spacing + half[0], dx / spacing + half[1]
        return np.asarray(map_coordinates(coefficients, at, order=5, mode="constant", prefilter=False))

    return pixels


def _solved(design: FloatArray, data: FloatArray, weight: FloatArray) -> FloatArray:
    a = design * weight[:, None]
    return np.asarray(linalg.lstsq(a, data * weight, check_finite=False)[0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Stars less their models, on top of each other.

    Parameters
    ----------
    residual : array, shape (n, n)
        Weighted mean of the residuals, in units of the flux.
    error : array, shape (n, n)
        Its standard deviation from the noise of the pixels.
    """

    residual: FloatArray
    error: FloatArray

    def enclosed(self) -> FloatArray:
        """The residual's sum within radii of 0, 1, 2 ... pixels, less what an error of the background would give."""
        half = len(self.residual) // 2
        axis = np.arange(-half, half + 1.0)
        radius = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(int)
        return np.asarray(np.cumsum(np.bincount(radius.ravel(), self.residual.ravel()))[: half + 1], float)


def stacked(fits: Sequence[StarFit], half: int, weights: FloatArray | None = None) -> Stack:
    """The mean residual of several stars, each pixel in the nearest one of a stamp about the stars' centres.

    Parameters
    ----------
    fits : sequence of StarFit
    half : int
        The stamp reaches so far.
    weights : array, shape (n,), optional
        Of the stars, besides the variance of their pixels: how often each counts.
    """
    side = 2 * half + 1
    total, norm = np.zeros(side * side), np.zeros(side * side)
    for fit, often in zip(fits, np.ones(len(fits)) if weights is None else weights, strict=True):
        i = np.rint(fit.cutout.dx - fit.plain.x).astype(int)
        j = np.rint(fit.cutout.dy - fit.plain.y).astype(int)
        use = (np.abs(i) <= half) & (np.abs(j) <= half)
        where = (j[use] + half) * side + i[use] + half
        relative = fit.cutout.variance[use] / fit.plain.flux**2 + (MODEL_ERROR * _profile(fit)[use]) ** 2
        total += np.bincount(where, often * fit.residual[use] / relative, side * side)
        norm += np.bincount(where, often / relative, side * side)
    seen = norm > 0
    residual = np.divide(total, norm, out=np.zeros_like(total), where=seen).reshape(side, side)
    error = np.sqrt(np.divide(1.0, norm, out=np.zeros_like(norm), where=seen)).reshape(side, side)
    return Stack(residual, error)


def _profile(fit: StarFit) -> FloatArray:
    return (fit.plain.model - fit.plain.background) / fit.plain.flux


def weighted_mean(values: FloatArray, variance: FloatArray) -> tuple[float, float]:
    """The mean, and its error from the variances or from the scatter, whichever is larger."""
    weight = 1.0 / variance
    mean = float(weight @ values / weight.sum())
    scatter = float(weight @ (values - mean) ** 2) / max(1, values.size - 1)
    return mean, float(np.sqrt(max(1.0, scatter) / weight.sum()))
