"""The inputs of a common target: their PSFs at positions, and what their transforms say of a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from psfmatch.errors import InputError, PSFError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray, no_unit
from psfmatch.models import as_psf
from psfmatch.moments import fwhm
from psfmatch.psf import PSF, ImagePSF, check_stamp
from psfmatch.regions import RegionsPSF
from psfmatch.solve.demand import AMPLIFIED, wiener_weights
from psfmatch.stamp_noise import denoised, stamp_noise
from psfmatch.wings import continued

__all__ = ["Input", "Inputs", "Limits", "Spectra", "View", "power_spectrum", "views_of"]

Input = PSF | Exposure | ArrayLike
Inputs = Sequence[Input] | Mapping[str, Input]

FIELD = ((0.0, 0.0), (-0.45, -0.45), (-0.45, 0.45), (0.45, -0.45), (0.45, 0.45))
PIXEL = Box(0, 0, 1, 1)
MARGIN = 1.5
ROOM = 16.0


@dataclass(frozen=True)
class Limits:
    """What a match may leave and cost: the residual, ``sum K^2``, and ``max|K(f)| / |K(0)|``."""

    tolerance: float
    gain: float
    amplification: float

    @classmethod
    def of(cls, tolerance: float, max_noise_gain: float | None) -> Limits:
        """The limits as a user gives them.

        Raises
        ------
        InputError
            If one is not finite and positive.
        """
        for name, value in (("tolerance", tolerance), ("max_noise_gain", max_noise_gain)):
            no_unit(value, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"{name}={value!r}: must be finite and positive")
        return cls(tolerance, 1.0, AMPLIFIED) if max_noise_gain is None else cls(tolerance, max_noise_gain, np.inf)


@dataclass(frozen=True, eq=False)
class View:
    """One input at one position.

    Parameters
    ----------
    name : str
        Of the input.
    box : Box
        The frame that shall be matched, or one pixel where there is none.
    psf : PSF
        The PSF there, constant.
    stamp : array
        The same, freed from noise and continued beyond its border.
    varying : bool
        Whether the input has other views.
    fwhm : float
        In pixels.
    """

    name: str
    box: Box
    psf: PSF
    stamp: FloatArray
    varying: bool
    fwhm: float


def views_of(psfs: Inputs) -> list[View]:
    """Every input at the positions where it is judged, those left out where it cannot be evaluated.

    Raises
    ------
    PSFError
        If an input cannot be used; it is named.
    InputError
        If there is none.
    """
    named: Iterable[tuple[str, Input]]
    named = psfs.items() if isinstance(psfs, Mapping) else ((f"psfs[{k}]", psf) for k, psf in enumerate(psfs))
    views = []
    for name, source in named:
        try:
            views += _views(str(name), source)
        except PSFError as error:
            raise PSFError(f"{name}: {error}") from error
    if not views:
        raise InputError("no PSFs were given; a common target needs at least one")
    return views


def _views(name: str, source: Input) -> list[View]:
    if isinstance(source, Exposure):
        if source.psf is None:
            raise PSFError("the exposure has no PSF model; give one")
        psf, box = source.psf, source.box
        frame = box
    else:
        psf = as_psf(source)
        box, frame = psf.field or PIXEL, PIXEL
    if isinstance(psf, RegionsPSF):
        views = []
        for label, place in psf.regions.boxes.items():
            part = place if frame is PIXEL else place.overlap(frame)
            if part is not None:
                views += _views_over(name, psf.psfs[label], part, PIXEL if frame is PIXEL else part)
        return views
    return _views_over(name, psf, box, frame)


def _views_over(name: str, psf: PSF, box: Box, frame: Box) -> list[View]:
    if psf.constant:
        return [_view(name, psf, 0.0, 0.0, frame)]
    (ny, nx), center = box.shape, box.center
    views, failure = [], None
    for dy, dx in FIELD if max(ny, nx) > 1 else FIELD[:1]:
        try:
            views.append(_view(name, psf, center.x + dx * nx, center.y + dy * ny, frame))
        except PSFError as error:
            failure = error
    if failure is not None and not views:
        raise failure
    return views


def _view(name: str, psf: PSF, x: float, y: float, frame: Box) -> View:
    raw = check_stamp(psf.stamps(x=x, y=y)[0], f"the PSF at x={x:g}, y={y:g}")
    ny, nx = (int(MARGIN * n) // 2 * 2 + 1 for n in raw.shape)
    if psf.resizable:
        stamp = psf.stamps(x=x, y=y, shape=(ny, nx))[0]
        return View(name, frame, psf if psf.constant else ImagePSF(stamp), stamp, not psf.constant, fwhm(raw))
    noise = stamp_noise(raw)
    stamp = denoised(raw, noise) if noise > 0 else continued(raw, (ny, nx), measured=psf.measured)[0]
    return View(name, frame, ImagePSF(raw), stamp, not psf.constant, fwhm(stamp))


@dataclass(frozen=True, eq=False)
class Spectra:
    """The power spectra of all views.

    Parameters
    ----------
    power : array, shape (n, m)
        At the frequencies of the half plane, frequency zero first.
    weight : array, shape (m,)
        How often each of them counts in a sum over the whole plane.
    side : int
        Rows and columns of the grid that was transformed.
    """

    power: FloatArray
    weight: FloatArray
    side: int

    @classmethod
    def of(cls, views: Sequence[View]) -> Spectra:
        """The spectra of stamps with zeros about them."""
        reach = max(max(MARGIN * max(view.stamp.shape), ROOM * view.fwhm) for view in views)
        side = int(fft.next_fast_len(int(reach), real=True))
        weight = np.full((side, side // 2 + 1), 2.0)
        weight[:, 0] = 1.0
        if side % 2 == 0:
            weight[:, -1] = 1.0
        return cls(np.stack([power_spectrum(view.stamp, side) for view in views]), weight.ravel(), side)

    def affordable(self, target: FloatArray, limits: Limits, rows: Sequence[int]) -> bool:
        """Whether the least noisy kernels of all of some views keep the limits, for a target of this spectrum."""
        use = target > 1e-4 * limits.tolerance**2 * target.max()
        s2, t2, count = self.power[np.ix_(list(rows), use)], target[use], self.weight[use]
        weights, reached = wiener_weights(s2, t2, count, limits.tolerance)
        k2 = s2 * t2 / (s2 + weights[:, None]) ** 2
        gain, amplification = k2 @ count / self.side**2, np.sqrt(k2.max(axis=1) / k2[:, 0])
        return bool(np.all(reached & (gain <= limits.gain) & (amplification <= limits.amplification)))


def power_spectrum(stamp: FloatArray, side: int) -> FloatArray:
    """The squared transform on a grid of ``side`` x ``side``, at the frequencies of the half plane."""
    return np.asarray((np.abs(fft.rfft2(stamp, (side, side))) ** 2).ravel())
