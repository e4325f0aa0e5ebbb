"""`GaussianPsfFactory`: the target PSF of a pipeline task, by Rubin's names."""

from __future__ import annotations

from typing import Any

from lsst.pex.config import Config, ConfigurableField, Field

from psfmatch.errors import InputError
from psfmatch.lsst.psfs import DoubleGaussianPsf
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.psf import PSF

__all__ = ["GaussianPsfFactory", "makeGaussianPsf"]


def _positive(x: float) -> bool:
    return x > 0


class GaussianPsfFactory(Config):
    """A Gaussian, with a wider and fainter one for the wings, by its FWHM in pixels."""

    size = Field[int](doc="Rows and columns of the stamp; None: by sizeFactor.", optional=True, check=_positive)
    sizeFactor = Field[float](doc="Without size: rows and columns over the FWHM.", default=3.0, check=_positive)
    minSize = Field[int](doc="Without size: the least.", default=5, optional=True, check=_positive)
    maxSize = Field[int](doc="Without size: the largest.", optional=True, check=_positive)
    defaultFwhm = Field[float](doc="FWHM of the core, in pixels.", default=3.0, check=_positive)
    addWing = Field[bool](doc="Add the wings.", default=True)
    wingFwhmFactor = Field[float](doc="Width of the wings over that of the core.", default=2.5, check=_positive)
    wingAmplitude = Field[float](doc="Peak of the wings over that of the core.", default=0.1, check=_positive)

    def validate(self) -> None:
        super().validate()
        if self.minSize and self.maxSize and self.minSize > self.maxSize:
            raise InputError(f"minSize={self.minSize} > maxSize={self.maxSize}")

    def computeSizeAndSigma(self, fwhm: float | None = None) -> tuple[int, float]:
        """Side of the stamp, and standard deviation of the core, in pixels, of this FWHM (``defaultFwhm``)."""
        wanted = self.defaultFwhm if fwhm is None else fwhm
        if self.size is not None:
            return self.size, float(wanted / SIGMA_TO_FWHM)
        size = int(self.sizeFactor * wanted) // 2 * 2 + 1
        if self.minSize:
            size = max(size, self.minSize)
        if self.maxSize:
            size = min(size, self.maxSize)
        return size, float(wanted / SIGMA_TO_FWHM)

    def apply(self, fwhm: float | None = None) -> PSF:
        """The model of this FWHM (``defaultFwhm``), sampled at pixel centres, of unit sum.

        Raises
        ------
        InputError
            If the side of the stamp is even.
        """
        size, sigma = self.computeSizeAndSigma(fwhm)
        if not self.addWing:
            return DoubleGaussianPsf(size, size, sigma)
        return DoubleGaussianPsf(size, size, sigma, self.wingFwhmFactor * sigma, self.wingAmplitude)

    @classmethod
    def makeField(cls, doc: str) -> Any:
        """A ``ConfigurableField`` whose ``apply`` makes the model."""
        return ConfigurableField(doc=doc, target=makeGaussianPsf, ConfigClass=cls)


def makeGaussianPsf(config: GaussianPsfFactory, fwhm: float | None = None) -> PSF:
    """``config.apply(fwhm)``."""
    return config.apply(fwhm)
