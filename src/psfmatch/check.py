"""Proof on the sky: the stars of an exposure against the PSF that it is said to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray, Position
from psfmatch.io import read_psf
from psfmatch.moments import fwhm, moments_fwhm
from psfmatch.noise import weighted_variance
from psfmatch.psf import PSF
from psfmatch.regions import RegionsPSF
from psfmatch.stars import Cutout, StarSelection
from psfmatch.stars.compare import Profile, Stack, StarFit, compared, stacked, tabulated, weighted_mean
from psfmatch.stars.profile import fit_pixels

__all__ = ["Check", "Deviation", "Verdict", "check"]

SIGNIFICANT = 3.0
"""Standard errors below which nothing is a difference."""
RADIUS = 2.5
"""In units of the FWHM: where profiles are fitted, and how far the growth curve goes."""
UNLIKE = 0.02
"""A star whose size is farther from that of the others, and by four standard deviations, is none."""
SCATTER = 0.002
"""Of size and shape from star to star, besides noise: no star decides alone."""
TREND = 5
"""Stars needed for a trend."""
ROOM = 5.5
"""Half the side of the target's stamps, in units of its size, where they can be of any size."""


class Verdict(Enum):
    """What the stars say."""

    WITHIN = "The stars have the target PSF within the tolerance."
    OVER = "The stars do not have the target PSF: a difference is significant and larger than the tolerance."
    UNDECIDED = "The stars cannot tell: they are too few or too faint for this tolerance."


class Deviation(NamedTuple):
    """A mean over the stars, and its error.

    Parameters
    ----------
    value : float
        The mean; NaN without stars.
    error : float
        Its standard error, from the noise or from the stars' scatter, whichever is larger; infinite without stars.
    """

    value: float
    error: float

    def over(self, tolerance: float) -> bool:
        """Whether it is significant and larger than the tolerance."""
        return abs(self.value) > max(tolerance, SIGNIFICANT * self.error)


@dataclass(frozen=True, eq=False)
class Check:
    """The stars of an exposure against the target PSF.

    Parameters
    ----------
    verdict : Verdict
        What the stars say.
    tolerance : float
        On FWHM, ellipticity and encircled energy.
    box : Box
        Of the exposure.
    target_fwhm : float
        Of the target's profile, in pixels.
    size : Deviation
        The stars' FWHM relative to the target's, less 1.
    shear : (Deviation, Deviation)
        Of the stars relative to the target, along x and along the diagonal; ``1 - b/a`` is twice its length.
    radii : array, shape (m,)
        In pixels.
    growth : array, shape (m,)
        Flux of the mean star within each radius less that of the target, relative to the flux.
    growth_error : array, shape (m,)
        Standard errors.
    by_place : (Deviation, Deviation), optional
        Change of ``size`` from the middle of the field to its right and to its upper edge; None with too few stars.
    by_brightness : Deviation, optional
        Change of ``size`` for a star of ten times the flux.
    x, y, flux : array, shape (n,)
        The stars.
    sizes, size_errors : array, shape (n,)
        Each star's FWHM relative to the target's, less 1; standard errors from the noise, correlated as it is.
    shears : array, shape (2, n)
        Each star's shear relative to the target.
    stack : Stack
        The mean star less the target, in the pixels of the target's stamp.
    target : array
        The target's stamp in the middle of the field.
    """

    verdict: Verdict
    tolerance: float
    box: Box
    target_fwhm: float
    size: Deviation
    shear: tuple[Deviation, Deviation]
    radii: FloatArray
    growth: FloatArray
    growth_error: FloatArray
    by_place: tuple[Deviation, Deviation] | None
    by_brightness: Deviation | None
    x: FloatArray
    y: FloatArray
    flux: FloatArray
    sizes: FloatArray
    size_errors: FloatArray
    shears: FloatArray
    stack: Stack
    target: FloatArray

    def __len__(self) -> int:
        return self.x.size

    @property
    def fwhm(self) -> Deviation:
        """Of the stars, in pixels."""
        return Deviation(self.target_fwhm * (1.0 + self.size.value), self.target_fwhm * self.size.error)

    @property
    def ellipticity(self) -> Deviation:
        """``1 - b/a`` of the stars relative to the target."""
        length = float(np.hypot(self.shear[0].value, self.shear[1].value))
        return Deviation(2.0 * length, 2.0 * max(d.error for d in self.shear))

    @property
    def ee_error(self) -> Deviation:
        """The growth curve where it differs most, for its error."""
        if not self.growth.size:
            return Deviation(np.nan, np.nan)
        k = int(np.argmax(np.abs(self.growth) - SIGNIFICANT * self.growth_error))
        return Deviation(float(self.growth[k]), float(self.growth_error[k]))


def check(
    exposure: Exposure,
    target: PSF | ArrayLike | str | PathLike[str] | None = None,
    *,
    correlation: NoiseCorrelation | None = None,
    selection: StarSelection | None = None,
    tolerance: float = 0.01,
) -> Check:
    """Compare the stars of an exposure with the PSF that it is meant to have.

    Isolated stars are found in the image itself.  The target is fitted to each, with free flux, centre and background;
    and an elliptical Moffat profile of free exponent both to the star's pixels and to those of the target in its place:
    how the two profiles differ in FWHM and shear is the star's deviation.  Means over the stars are weighted by the
    errors, which take account of how the noise of neighbouring pixels is correlated.

    Parameters
    ----------
    exposure : Exposure
        A matched one, or a coadd.
    target : PSF, array, path or words, optional
        See `read_psf`.  Default: the exposure's PSF.
    correlation : NoiseCorrelation, optional
        Of the noise.  Default: none, so that the errors of a matched exposure are too small by factors; of the kernel
        that it was matched with: ``NoiseCorrelation.of_kernel(matched.kernel)``.
    selection : StarSelection, optional
        How stars are told from everything else.
    tolerance : float
        On the FWHM (relative), the ellipticity and the encircled energy.

    Returns
    -------
    Check
        Its ``verdict`` is ``OVER`` where one of the three is off by more than the tolerance and by more than three
        standard errors; ``UNDECIDED`` where there is no star, or the FWHM is not known to the tolerance.

    Raises
    ------
    InputError
        If the exposure has no PSF and no target is given, or the tolerance is not positive.
    """
    psf = exposure.psf
    if target is not None:
        psf = read_psf(target, pixel_scale=exposure.pixel_scale, wcs=exposure.wcs)
    if psf is None:
        raise InputError("the exposure has no PSF to compare its stars with; give the target")
    if not tolerance > 0:
        raise InputError(f"tolerance={tolerance!r}: must be positive")
    middle = _middle(psf, exposure.box)
    stamp = psf.stamps(x=middle.x, y=middle.y)[0]
    size = moments_fwhm(stamp)
    if psf.resizable:
        side = 2 * int(np.ceil(ROOM * size)) + 1
        stamp = psf.stamps(x=middle.x, y=middle.y, shape=(side, side))[0]
    cutouts, _ = (selection or StarSelection()).cutouts(exposure, fwhm=_expected(exposure))
    width, half = fwhm(stamp), min(stamp.shape) // 2
    stars = []
    for cutout in cutouts:
        model = stamp if psf.constant else psf.stamps(x=cutout.x, y=cutout.y, shape=stamp.shape)[0]
        near = cutout.only(np.hypot(cutout.dx, cutout.dy) <= half - 1)
        star = _Star.of(near, tabulated(model), width)
        if star is not None:
            stars.append(star)
    radii = np.arange(1.0, min(half, RADIUS * width) + 0.5)
    return _checked(exposure, _alike(stars), radii, stamp, width, correlation, tolerance)


@dataclass(frozen=True, eq=False)
class _Star:
    """A star against the target, and the Moffat profile that fits each of the two best."""

    fit: StarFit
    inner: Cutout
    shape: FloatArray
    influence: FloatArray

    @classmethod
    def of(cls, cutout: Cutout, profile: Profile, width: float) -> _Star | None:
        fit = compared(profile, cutout, core=width)
        keep = np.hypot(cutout.dx - fit.plain.x, cutout.dy - fit.plain.y) <= RADIUS * width
        inner = cutout.only(keep)
        pixels = inner.dx - fit.plain.x, inner.dy - fit.plain.y
        star, model = (
            fit_pixels(*pixels, values, inner.variance**-0.5, beta=None, fwhm=width)
            for values in (inner.data, fit.plain.model[keep])
        )
        if star is None or model is None:
            return None
        return cls(fit, inner, (star.parameters - model.parameters)[2:5], star.influence[2:5])

    @property
    def error(self) -> float:
        """Of the size, if the noise of the pixels is independent."""
        return float(np.sqrt(self.influence[0] ** 2 @ self.inner.variance))


def _middle(psf: PSF, box: Box) -> Position:
    """The middle of a box, or where a PSF that jumps at borders is defined next to it."""
    return psf.regions.nearest(x=box.center.x, y=box.center.y) if isinstance(psf, RegionsPSF) else box.center


def _expected(exposure: Exposure) -> float | None:
    """The size that its stars should have."""
    if exposure.psf is None:
        return None
    middle = _middle(exposure.psf, exposure.box)
    return moments_fwhm(exposure.psf.stamps(x=middle.x, y=middle.y)[0])


def _alike(stars: Sequence[_Star]) -> list[_Star]:
    """The stars without those whose size is unlike that of the others: blends and galaxies."""
    if len(stars) < 4:
        return list(stars)
    size = np.array([star.shape[0] for star in stars])
    off = np.abs(size - np.median(size))
    error = np.hypot(np.array([star.error for star in stars]), SCATTER)
    scale = max(1.0, 1.4826 * float(np.median(off / error)))
    keep = off <= np.maximum(4.0 * scale * error, UNLIKE)
    return [star for star, kept in zip(stars, keep, strict=True) if kept]


def _checked(
    exposure: Exposure, stars: Sequence[_Star], radii: FloatArray, stamp: FloatArray, width: float,
    correlation: NoiseCorrelation | None, tolerance: float,
) -> Check:  # fmt: skip
    fits = [star.fit for star in stars]
    x, y, flux = np.array([(f.x, f.y, f.plain.flux) for f in fits]).reshape(-1, 3).T
    shape = np.array([star.shape for star in stars]).reshape(-1, 3).T
    errors = np.sqrt(_variances(exposure, correlation, [(star.inner, star.influence) for star in stars], 3)).T
    sizes = np.expm1(shape[0])
    mean = [_mean(values, error) for values, error in zip((sizes, *shape[1:]), errors, strict=True)]
    growth = np.array([[f.residual[_inside(f, r)].sum() for r in radii] for f in fits]).reshape(-1, radii.size)
    apertures = [(f.cutout, _apertures(f, radii)) for f in fits]
    growth_errors = np.sqrt(_variances(exposure, correlation, apertures, radii.size))
    curve = [_mean(values, error) for values, error in zip(growth.T, growth_errors.T, strict=True)]
    found = Check(
        Verdict.UNDECIDED, tolerance, exposure.box, width, mean[0], (mean[1], mean[2]), radii,
        np.array([d.value for d in curve]), np.array([d.error for d in curve]),
        _by_place(exposure, x, y, sizes, errors[0]), _by_brightness(flux, sizes, errors[0]),
        x, y, flux, sizes, errors[0], shape[1:], stacked(fits, len(stamp) // 2), stamp,
    )  # fmt: skip
    return replace(found, verdict=_verdict(found))


def _verdict(found: Check) -> Verdict:
    if any(d.over(found.tolerance) for d in (found.size, found.ellipticity, found.ee_error)):
        return Verdict.OVER
    return Verdict.WITHIN if found.size.error <= found.tolerance else Verdict.UNDECIDED


def _inside(fit: StarFit, radius: float) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(fit.cutout.dx - fit.plain.x, fit.cutout.dy - fit.plain.y) <= radius)


def _apertures(fit: StarFit, radii: FloatArray) -> FloatArray:
    """What a unit in each pixel adds to the residual within each radius, the fit taken into account: (m, n)."""
    discs = np.stack([_inside(fit, r) for r in radii]).astype(float)
    return (discs - discs @ fit.plain.design @ fit.plain.influence) / fit.plain.flux


def _variances(
    exposure: Exposure, correlation: NoiseCorrelation | None, sums: Sequence[tuple[Cutout, FloatArray]], count: int
) -> FloatArray:
    """The variance of ``count`` weighted sums over the pixels of each star: shape (n, count)."""
    rho = NoiseCorrelation.white(exposure.box) if correlation is None else correlation
    out = np.empty((len(sums), count))
    for k, (star, weights) in enumerate(sums):
        half = int(max(np.abs(star.dx).max(), np.abs(star.dy).max()))
        stamps = np.zeros((count, 2 * half + 1, 2 * half + 1))
        rows, columns = (np.rint(d).astype(int) + half for d in (star.dy, star.dx))
        stamps[:, rows, columns] = weights
        variance = np.zeros(stamps.shape[1:])
        variance[rows, columns] = star.variance
        box = Box.from_shape(variance.shape, y0=int(star.y) - half, x0=int(star.x) - half)
        place = np.full(count, star.x), np.full(count, star.y)
        out[k] = weighted_variance(variance, rho, stamps, x=place[0], y=place[1], box=box)
    return out


def _mean(values: FloatArray, errors: FloatArray) -> Deviation:
    """Weighted by the errors."""
    if not values.size:
        return Deviation(np.nan, np.inf)
    return Deviation(*weighted_mean(values, errors**2 + SCATTER**2))


def _by_place(
    exposure: Exposure, x: FloatArray, y: FloatArray, sizes: FloatArray, errors: FloatArray
) -> tuple[Deviation, Deviation] | None:
    if sizes.size < TREND + 2:
        return None
    ny, nx = exposure.shape
    u, v = 2.0 * (x - exposure.box.center.x) / nx, 2.0 * (y - exposure.box.center.y) / ny
    slopes = _slopes(np.stack([np.ones_like(u), u, v], axis=1), sizes, errors)
    return slopes[1], slopes[2]


def _by_brightness(flux: FloatArray, sizes: FloatArray, errors: FloatArray) -> Deviation | None:
    if sizes.size < TREND or flux.max() < 2.0 * flux.min():
        return None
    return _slopes(np.stack([np.ones_like(flux), np.log10(flux)], axis=1), sizes, errors)[1]


def _slopes(design: FloatArray, values: FloatArray, errors: FloatArray) -> list[Deviation]:
    weight = (errors**2 + SCATTER**2) ** -0.5
    scaled = design * weight[:, None]
    covariance = np.linalg.pinv(scaled.T @ scaled)
    best = covariance @ scaled.T @ (values * weight)
    chi2 = float((((values - design @ best) * weight) ** 2).sum()) / max(1, values.size - best.size)
    return [
        Deviation(float(b), float(np.sqrt(max(1.0, chi2) * c))) for b, c in zip(best, np.diag(covariance), strict=True)
    ]
