"""Families of targets: PSFs of one shape in steps of width, and their words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray
from psfmatch.io.words import psf_from_words
from psfmatch.moments import fwhm
from psfmatch.psf import PSF, AnalyticPSF, DoubleGaussianPSF, GaussianPSF, ImagePSF, MoffatPSF
from psfmatch.target.inputs import View, power_spectrum

__all__ = ["Envelope", "Ladder", "Scaled", "ladders", "target_width", "target_words"]

STEP = 1.002
BETAS = (2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 4.765)
DIGITS = 3
ANGLES = 48
CORNER = float(np.sqrt(0.5))
FINE = 20.0


class Ladder(ABC):
    """PSFs of one shape, each 0.2 % wider than the one before, and their greatest width in units of that on step 0."""

    widest = 4.0

    def __init__(self) -> None:
        self._powers: dict[int, FloatArray] = {}

    @abstractmethod
    def at(self, step: int) -> PSF:
        """The PSF on a step."""

    def power(self, step: int, side: int) -> FloatArray:
        """Its `power_spectrum`."""
        if step not in self._powers:
            odd = side - 1 + side % 2
            self._powers[step] = power_spectrum(self.at(step).stamps(x=0, y=0, shape=(odd, odd))[0], side)
        return self._powers[step]


class Scaled(Ladder):
    """A formula, whose FWHM on step 0 is given; on every step it is a round number."""

    def __init__(self, model: AnalyticPSF, width: float) -> None:
        super().__init__()
        self._unit, self._width = model.scaled(1.0 / target_width(model)), width

    def at(self, step: int) -> PSF:
        return self._unit.scaled(round(self._width * STEP**step, DIGITS))


class Envelope(Ladder):
    """What no input falls below at any spatial frequency; on step 0 not dilated.

    ``E(f) = min over g <= f, inputs and directions of |S(g)| / |S(0)|``, and the PSF is its transform, its negative
    values set to zero, of unit sum, on a stamp as large as the inputs' largest.
    """

    widest = 1.5

    def __init__(self, views: Sequence[View], side: int) -> None:
        super().__init__()
        self._side, self._shape = side, max(max(view.psf.shape) for view in views)
        self._frequency = np.linspace(0.0, CORNER, 4 * side)
        lowest = np.min([_lowest(view.stamp, side, self._frequency) for view in views], axis=0)
        self._envelope = np.minimum.accumulate(lowest)

    def at(self, step: int) -> PSF:
        f = np.hypot(*np.meshgrid(np.fft.fftfreq(self._side), np.fft.rfftfreq(self._side), indexing="ij"))
        whole = fft.irfft2(np.interp(STEP**step * f, self._frequency, self._envelope), (self._side, self._side))
        half = self._shape // 2
        image = np.maximum(0.0, np.roll(whole, (half, half), axis=(0, 1))[: self._shape, : self._shape])
        return ImagePSF(image, normalize=True)


def _lowest(stamp: FloatArray, side: int, frequency: FloatArray) -> FloatArray:
    """The least ``|S(f)| / |S(0)|`` over all directions at each frequency (cycles a pixel)."""
    transform = np.abs(fft.fft2(stamp, (side, side)))
    angle = np.arange(ANGLES)[:, None] * np.pi / ANGLES
    polar = [side * frequency * np.sin(angle), side * frequency * np.cos(angle)]
    values = map_coordinates(transform / transform[0, 0], polar, order=3, mode="grid-wrap")
    return np.asarray(np.maximum(0.0, values.min(axis=0)))


def ladders(family: str, views: Sequence[View], side: int) -> list[Ladder]:
    """The shapes of a family, about as wide as the broadest view on step 0.

    Raises
    ------
    InputError
        If the family is not known.
    """
    if family == "envelope":
        return [Envelope(views, side)]
    width = max(view.fwhm for view in views)
    if family == "moffat":
        return [Scaled(MoffatPSF(fwhm=1.0, beta=beta), width) for beta in BETAS]
    if family.partition(":")[0] not in ("moffat", "gaussian", "double-gaussian"):
        raise InputError(f"family {family!r}: choose moffat, gaussian, double-gaussian or envelope")
    model = psf_from_words(f"{family}{',' if ':' in family else ':'}fwhm=1")
    if not isinstance(model, AnalyticPSF) or getattr(model, "ellipticity", False):
        raise InputError(f"family {family!r}: common targets are circular")
    return [Scaled(model, width)]


def target_width(target: PSF) -> float:
    """The FWHM of a target (pixels): of the formula, before it is integrated over pixels, or of the stamp."""
    if isinstance(target, GaussianPSF | MoffatPSF):
        return target.fwhm
    if isinstance(target, DoubleGaussianPSF):
        narrow = min(target.sigma1, target.sigma2) if target.b > 0 else target.sigma1
        scale = FINE / narrow
        return fwhm(replace(target.scaled(scale), sampling="center").stamps(x=0, y=0, shape=(201, 201))[0]) / scale
    return fwhm(target.stamps(x=0, y=0)[0])


def target_words(target: PSF, *, pixel_scale: float | None = None) -> str | None:
    """The words that `psfmatch.read_psf` and ``match --target`` read as this PSF; None where there are none.

    Parameters
    ----------
    target : PSF
        The PSF.
    pixel_scale : float, optional
        Arcseconds a pixel, for widths in arcsec; default in pixels.
    """
    scale, unit = (1.0, "") if pixel_scale is None else (pixel_scale, "arcsec")
    if isinstance(target, DoubleGaussianPSF):
        sigmas = f"sigma1={target.sigma1 * scale:.6g}{unit},sigma2={target.sigma2 * scale:.6g}{unit}"
        return f"double-gaussian:{sigmas},b={target.b:g}"
    if not isinstance(target, GaussianPSF | MoffatPSF) or target.ellipticity:
        return None
    width = f"fwhm={target.fwhm * scale:.6g}{unit}"
    return f"moffat:{width},beta={target.beta:g}" if isinstance(target, MoffatPSF) else f"gaussian:{width}"
