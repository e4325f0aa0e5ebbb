"""PSF models under Rubin's names: sampled at pixel centres and of unit sum, as there."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from psfmatch.geometry import FloatArray, odd_shape
from psfmatch.psf import PSF, DoubleGaussianPSF, ImagePSF

__all__ = ["DoubleGaussianPsf", "KernelPsf", "SingleGaussianPsf"]


@dataclass(frozen=True, kw_only=True)
class _OblongDoubleGaussian(DoubleGaussianPSF):
    """The model on a stamp whose sides differ, until it is resized."""

    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        return (self.height, self.width) if self.size is None else (self.size, self.size)


def DoubleGaussianPsf(width: int, height: int, sigma1: float, sigma2: float = 1.0, b: float = 0.0) -> PSF:
    """Two concentric circular Gaussians.

    Parameters
    ----------
    width, height : int
        Sides of the stamp in pixels, odd.
    sigma1, sigma2 : float
        Standard deviations in pixels.
    b : float
        Peak of the second Gaussian relative to the first.

    Returns
    -------
    PSF
        Sampled at pixel centres, of unit sum.

    Raises
    ------
    InputError
        If a side is even, or a sigma or ``b`` out of range.
    """
    odd_shape((height, width), "DoubleGaussianPsf (height, width)")
    if width == height:
        return DoubleGaussianPSF(sigma1=sigma1, sigma2=sigma2, b=b, size=width, sampling="center")
    return _OblongDoubleGaussian(
        sigma1=sigma1, sigma2=sigma2, b=b, sampling="center", width=int(width), height=int(height)
    )


def SingleGaussianPsf(width: int, height: int, sigma: float) -> PSF:
    """One circular Gaussian.

    Parameters
    ----------
    width, height : int
        Sides of the stamp in pixels, odd.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    PSF
        Sampled at pixel centres, of unit sum.

    Raises
    ------
    InputError
        If a side is even, or sigma is not positive.
    """
    return DoubleGaussianPsf(width, height, sigma)


def KernelPsf(image: ArrayLike | FloatArray) -> ImagePSF:
    """A fixed image of a point source, scaled to unit sum.

    Parameters
    ----------
    image : array, shape (sy, sx)
        What a star looks like in the exposure: odd-sized, the source at its centre.

    Returns
    -------
    ImagePSF
        The same everywhere.

    Raises
    ------
    PSFError
        If it cannot be a PSF (see `psfmatch.psf.check_stamp`).
    """
    return ImagePSF(image, normalize=True)  # type: ignore[arg-type]
