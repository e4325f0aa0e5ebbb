"""Stars in an exposure: where the bright ones are, and the profile of one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.optimize import least_squares

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray, Position

__all__ = ["Star", "find_stars", "fit_moffat"]

BAD_PLANES = ("BAD", "SAT", "INTRP", "CR", "EDGE", "NO_DATA")


@dataclass(frozen=True)
class Star:
    """The elliptical Moffat profile that fits a star best, integrated over the pixels.

    Parameters
    ----------
    x, y : float
        The centre, in pixels of the parent frame.
    flux : float
        The flux out to infinity.
    background : float
        The level on which the star stands.
    fwhm : float
        The geometric mean of the full widths at half maximum along the two axes, in pixels.
    ellipticity : float
        ``1 - b/a``.
    angle : float
        The direction of the long axis, in degrees from +x towards +y.
    beta : float
        The exponent of the profile.
    fwhm_error : float
        The standard error of ``fwhm`` if the noise of the pixels is independent (too small after a convolution).
    pixels : int
        How many pixels were fitted.
    """

    x: float
    y: float
    flux: float
    background: float
    fwhm: float
    ellipticity: float
    angle: float
    beta: float
    fwhm_error: float = field(compare=False)
    pixels: int = field(compare=False)


def find_stars(exposure: Exposure, *, saturation: float | None = None, threshold: float = 50.0) -> list[Position]:
    """The isolated, unsaturated stars, brightest first.

    A star is the highest pixel within 10 px, stands ``threshold`` times the noise of the sky above it, has no masked
    pixel within 5 px and none at ``saturation`` or above, and is as concentrated as the exposure's PSF: the share of
    its central pixels in the flux within 3 px, to 20 %.  This leaves out cosmic rays (sharper), galaxies (broader) and
    blends.

    Parameters
    ----------
    exposure : Exposure
        With its PSF.
    saturation : float, optional
        Pixel value from which on a star is saturated.  Default: only the mask's plane SAT counts.
    threshold : float
        Least height above the sky, in units of the sky's standard deviation.

    Raises
    ------
    InputError
        If the exposure has no PSF.
    """
    if exposure.psf is None:
        raise InputError("stars cannot be told from other sources without a PSF; give the exposure its psf")
    good = usable_pixels(exposure) & (exposure.image < (np.inf if saturation is None else saturation))
    if not good.any():
        return []
    sky = float(np.median(exposure.image[good]))
    image = np.where(good, exposure.image - sky, 0.0)
    noise = 1.4826 * float(np.median(np.abs(image[good])))
    peaks = (image == maximum_filter(image, size=21)) & (image > threshold * noise)
    peaks &= ~maximum_filter(~good, size=11)
    rows, columns = np.nonzero(peaks)
    found = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        position = Position(exposure.box.y0 + row, exposure.box.x0 + column)
        if min(row, column, image.shape[0] - 1 - row, image.shape[1] - 1 - column) < 5:
            continue
        model = exposure.psf.stamps(x=position.x, y=position.y, shape=(7, 7))[0]
        if abs(_concentration(image[row - 3 : row + 4, column - 3 : column + 4]) / _concentration(model) - 1.0) < 0.2:
            found.append((image[row, column], position))
    return [position for _, position in sorted(found, reverse=True)]


def usable_pixels(exposure: Exposure) -> NDArray[np.bool_]:
    """Where a pixel is finite, of finite variance, and not flagged as bad."""
    good = np.isfinite(exposure.image) & ~exposure.mask.any_of(*BAD_PLANES)
    return good if exposure.variance is None else good & np.isfinite(exposure.variance) & (exposure.variance > 0)


def _concentration(stamp: FloatArray) -> float:
    """The share of the central 3 x 3 pixels in the flux of the 7 x 7."""
    return float(stamp[2:5, 2:5].sum() / stamp.sum())


def fit_moffat(
    exposure: Exposure, *, x: float, y: float, beta: float | None = None, radius: float = 15.0, fwhm: float = 4.0
) -> Star:
    """Fit an elliptical Moffat profile, integrated over the pixels, to the star next to a position.

    Free are the centre, flux, background, width, ellipticity and direction, and ``beta`` unless it is given.
    Every pixel weighs as its variance says; masked pixels are left out.

    Parameters
    ----------
    exposure : Exposure
        Where the star is.
    x, y : float
        Its position, in pixels of the parent frame, to a pixel or two.
    beta : float, optional
        Fix the exponent.
    radius : float
        Fit the pixels whose centre is this close to the position.
    fwhm : float
        Where the width starts from, in pixels.

    Raises
    ------
    InputError
        If fewer than 20 pixels can be used, or the fit does not converge.
    """
    rows, columns = (np.arange(n) + o for n, o in zip(exposure.shape, (exposure.box.y0, exposure.box.x0), strict=True))
    near = (rows[:, None] - y) ** 2 + (columns[None, :] - x) ** 2 <= radius**2
    use = near & usable_pixels(exposure)
    if np.count_nonzero(use) < 20:
        raise InputError(
            f"only {np.count_nonzero(use)} usable pixels within {radius:g} px of x={x:g}, y={y:g}; "
            "a star cannot be fitted there"
        )
    j, i = np.nonzero(use)
    data = exposure.image[use].astype(float)
    weight = np.ones_like(data) if exposure.variance is None else exposure.variance[use].astype(float) ** -0.5
    found = fit_pixels(columns[i] - x, rows[j] - y, data, weight, beta=beta, fwhm=fwhm)
    if found is None:
        raise InputError(f"no Moffat profile fits what is at x={x:g}, y={y:g}; is there a star?")
    p, degrees = found.parameters, data.size - found.parameters.size - 2
    scatter = 1.0 if exposure.variance is not None else found.chi2 / degrees
    return Star(
        x=float(x + p[0]),
        y=float(y + p[1]),
        flux=found.flux,
        background=found.background,
        fwhm=float(np.exp(p[2])),
        ellipticity=float(1.0 - np.exp(-2.0 * np.hypot(p[3], p[4]))),
        angle=float(0.5 * np.rad2deg(np.arctan2(p[4], p[3]))),
        beta=float(1.0 + np.exp(p[5])) if beta is None else float(beta),
        fwhm_error=float(np.exp(p[2]) * np.sqrt(scatter * ((found.influence[2] / weight) ** 2).sum())),
        pixels=data.size,
    )


class PixelFit(NamedTuple):
    """The Moffat profile that fits some pixels best.

    Parameters
    ----------
    parameters : array, shape (5 or 6,)
        Centre x and y, ln FWHM, the two shears, and ln(beta - 1) where it is free.
    flux, background : float
    influence : array, shape (5 or 6, n)
        What a unit in each pixel adds to each parameter.
    chi2 : float
    """

    parameters: FloatArray
    flux: float
    background: float
    influence: FloatArray
    chi2: float


def fit_pixels(
    dx: FloatArray, dy: FloatArray, data: FloatArray, weight: FloatArray, *, beta: float | None, fwhm: float
) -> PixelFit | None:
    """Fit an elliptical Moffat profile to pixels at offsets (dx, dy); None where none fits.

    The misfit of each pixel is multiplied by its weight.  Flux and background are linear: the best ones are found anew
    for every shape (Golub & Pereyra 1973).
    """

    def design(p: FloatArray) -> FloatArray:
        profile = pixel_moffat(
            dx - p[0],
            dy - p[1],
            fwhm=np.exp(p[2]),
            shear=(p[3], p[4]),
            beta=1.0 + np.exp(p[5]) if beta is None else beta,
        )
        return np.stack([profile, np.ones_like(profile)], axis=1) * weight[:, None]

    def misfit(p: FloatArray) -> FloatArray:
        columns_of = design(p)
        return np.asarray(columns_of @ np.linalg.lstsq(columns_of, data * weight, rcond=None)[0] - data * weight)

    start = [0.0, 0.0, np.log(fwhm), 0.0, 0.0] + ([np.log(2.5)] if beta is None else [])
    fit = least_squares(misfit, start, x_scale="jac", xtol=1e-10, ftol=1e-12, gtol=1e-12)
    p = fit.x
    flux, background = np.linalg.lstsq(design(p), data * weight, rcond=None)[0].tolist()
    radius = float(np.hypot(dx, dy).max())
    if not (fit.success and flux > 0 and np.hypot(p[0], p[1]) < radius / 2 and 0.1 < np.exp(p[2]) < 2.0 * radius):
        return None
    influence = np.linalg.pinv(fit.jac) * weight
    return PixelFit(p, flux, background, influence, 2.0 * float(fit.cost))


@lru_cache
def _nodes(count: int) -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(count)


def pixel_moffat(
    dx: FloatArray, dy: FloatArray, *, fwhm: float, shear: tuple[float, float], beta: float, nodes: int = 5
) -> FloatArray:
    """The flux of a Moffat profile of unit flux in the pixels whose centres are at these offsets.

    The ellipse has the axes ``fwhm * exp(+-g)`` with ``g`` the length of ``shear``, which points at twice the angle.
    """
    node, weight = _nodes(nodes)
    x = dx[:, None, None] + 0.5 * node[None, None, :]
    y = dy[:, None, None] + 0.5 * node[None, :, None]
    g = max(float(np.hypot(*shear)), 1e-12)
    stretch = np.sinh(2.0 * g) / g * (shear[0] * (x * x - y * y) + 2.0 * shear[1] * x * y)
    alpha2 = 0.25 * fwhm**2 / (2.0 ** (1.0 / beta) - 1.0)
    density = (1.0 + (np.cosh(2.0 * g) * (x * x + y * y) - stretch) / alpha2) ** -beta
    return np.asarray((beta - 1.0) / (np.pi * alpha2) * 0.25 * np.einsum("nyx,y,x->n", density, weight, weight))
