"""Fixed sets of kernel images: Gaussians times polynomials, delta functions."""

from __future__ import annotations

import numpy as np

from psfmatch.errors import InputError
from psfmatch.fields import term_degrees
from psfmatch.geometry import FloatArray

__all__ = ["delta_basis", "gaussian_basis", "gaussian_sigmas", "kernel_size_for", "zero_sum"]


def gaussian_basis(size: int, sigmas: tuple[float, ...], degrees: tuple[int, ...]) -> FloatArray:
    """Circular Gaussians times every monomial up to a degree (Alard & Lupton 1998, ApJ 503, 325, equation 3).

    Parameters
    ----------
    size : int
        Rows and columns, odd.
    sigmas, degrees : tuple
        Standard deviation in pixels and polynomial degree of each Gaussian.

    Returns
    -------
    array, shape (n, size, size)
        Of unit sum where no monomial is applied.  The monomials run over [-1, 1] from edge to edge, and grow
        towards -x and -y: so the coefficients are those of Rubin's software, whose convolution is a correlation.
    """
    half = size // 2
    offset = np.arange(-half, half + 1.0)
    u = -offset / max(half, 1)
    images = []
    for sigma, degree in zip(sigmas, degrees, strict=True):
        profile = np.exp(-0.5 * (offset / sigma) ** 2)
        gaussian = np.outer(profile, profile)
        gaussian /= gaussian.sum()
        images += [gaussian * u[None, :] ** i * u[:, None] ** j for i, j in term_degrees(degree)]
    return np.array(images)


def delta_basis(size: int) -> FloatArray:
    """One image for every pixel of a kernel, in the order of Rubin's software (last pixel first)."""
    return np.eye(size * size)[::-1].reshape(-1, size, size)


def zero_sum(basis: FloatArray) -> FloatArray:
    """The same space, spanned by one image of unit sum and others of zero sum and unit norm.

    With the first weight constant, the kernel sum is then the same everywhere (Alard 2000, A&AS 144, 363).
    Images whose sum is zero already (below 1.2e-7) only get unit norm.
    """
    out = np.array(basis, float)
    first = out[0] / out[0].sum()
    sums = out.sum(axis=(1, 2))
    shift = np.abs(sums) > np.finfo(np.float32).eps
    out[shift] = out[shift] / sums[shift, None, None] - first
    norms = np.sqrt((out**2).sum(axis=(1, 2)))
    norms[0] = 1.0
    out /= np.where(norms > 0, norms, 1.0)[:, None, None]
    out[0] = first
    return out


def gaussian_sigmas(
    science_fwhm: float, target_fwhm: float, *, count: int, ratio: float, least: float, least_deconvolution: float
) -> tuple[tuple[float, ...], str]:
    """Widths of the Gaussians from the two PSFs' FWHMs, and the mode: ``convolution`` or ``deconvolution``.

    Gaussians convolve in quadrature, so ``sigma_K^2 = |sigma_T^2 - sigma_S^2|`` is the natural width; it becomes
    the second of the Gaussians, each of them ``ratio`` times as wide as the one before.
    """
    to_sigma = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
    difference = (target_fwhm * to_sigma) ** 2 - (science_fwhm * to_sigma) ** 2
    mode, floor = ("deconvolution", least_deconvolution) if difference < 0 else ("convolution", least)
    natural = float(np.sqrt(abs(difference)))
    first = max(floor, natural if count == 1 else natural / ratio)
    return tuple(first * ratio**k for k in range(count)), mode


def kernel_size_for(sigma: float, *, scaling: float, least: int, most: int) -> int:
    """The odd kernel size that reaches ``scaling`` times the widest sigma, between two bounds."""
    size = int(scaling * sigma)
    return min(most, max(size + 1 - size % 2, least))


def check_gaussians(sigmas: tuple[float, ...], degrees: tuple[int, ...]) -> None:
    """Raise InputError unless every Gaussian has a positive width and a degree."""
    if len(sigmas) != len(degrees) or not sigmas:
        raise InputError(f"{len(sigmas)} sigmas and {len(degrees)} degrees: give one degree for every Gaussian")
    if min(sigmas) <= 0 or min(degrees) < 0:
        raise InputError(f"sigmas {sigmas} must be positive and degrees {degrees} not negative")
