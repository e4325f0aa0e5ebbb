"""The flux of a PSF beyond its stamp, from the shape of the wings inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray, frozen, odd_shape, resized
from psfmatch.moments import fwhm, widths

__all__ = ["Wings", "continued", "continued_all", "extended", "fit_wings", "missing_flux"]

WingKind = Literal["moffat", "gaussian", "diffraction", "none"]

INNER, OUTER = 0.2, 0.4
"""Where the window of the fit begins, in units of the stamp's radius: for rings, which need many, and for others."""
FIRST_DARK_RING = 1.2
"""Its radius in units of the FWHM (1.22 against 1.03 lambda/D); what is inside it is no wing."""
DIFFRACTION_SLOPE = 3.0
"""The mean profile behind an aperture with a sharp edge falls as r^-3, averaged over its rings."""
SHALLOWEST = 3.4
"""The least slope that is believed: below it the flux beyond depends on where spikes and scattered light end."""
STEEPEST, MOST_CURVED = 40.0, 300.0
STEEP = 5.0
"""A wing that is shallower is no Gaussian, however well one may follow it for a while."""
RINGED = 0.07
"""Relative misfit of the azimuthal mean above which no smooth wing is believed (models 0.02, rings 0.08 to 1)."""
SIGNIFICANCE = 3.0
"""Standard deviations of the noise below which there is no wing, and no ring."""
MOST_DIFFRACTED = 0.5
"""Limit of the flux beyond r behind an aperture, in units of FWHM/r (0.2 for an open one, more with obstruction)."""
UNIT_SUM = 1e-6
SMALLEST = 11
"""Sides, in pixels, of the smallest stamp in which wings are looked for."""
STEPS = 60
"""At most, towards the zero of a function."""
SHARES = (1.0, 0.8, 0.65, 0.5)
"""Outer radii, in units of the stamp's, of the windows in which a wing is looked for above the noise."""
CERTAIN = 0.3
"""Relative error from the noise that is not worth a window further in, from where more must be extrapolated."""
VISIBLE, LARGEST_ERROR = 5.0, 0.5
"""A wing is lost below this significance in a window, or where the flux beyond has a larger relative error."""
MODEL_ERRORS = {"moffat": 0.1, "gaussian": 0.1, "diffraction": 0.3, "none": 0.0}
"""Relative errors of the flux beyond noiseless Moffat profiles and diffraction patterns."""


@dataclass(frozen=True)
class Wings:
    """What the outer part of a stamp says about the flux beyond it.

    Parameters
    ----------
    kind : {"moffat", "gaussian", "diffraction", "none"}
        ``moffat``: ``amplitude (1 + (r/scale)^2)^(-slope/2)``.  ``diffraction``: the same, where rings hide the
        slope and -3 is assumed.  ``gaussian``: ``amplitude exp(-(r/scale)^2 / 2)``.  ``none``: no wing is
        significant.
    amplitude : float
        In the stamp's units per pixel.
    slope : float
        Logarithmic slope far out; infinite for a Gaussian.
    scale : float
        In pixels.
    missing : float
        Flux beyond the stamp's border, out to infinity, as a fraction of the flux in the stamp.
    """

    kind: WingKind
    amplitude: float
    slope: float
    scale: float
    missing: float

    def profile(self, r: FloatArray) -> FloatArray:
        """The wing at a radius in pixels."""
        if self.kind == "gaussian":
            return np.asarray(self.amplitude * np.exp(-0.5 * (r / self.scale) ** 2))
        return self.amplitude * (1.0 + (r / self.scale) ** 2) ** (-0.5 * self.slope)

    def flux_beyond(self, r: FloatArray) -> FloatArray:
        """The integral of ``profile(r') r' dr'`` from r to infinity (times the angle, the flux)."""
        if self.kind == "gaussian":
            return self.scale**2 * self.profile(r)
        return (self.scale**2 + r**2) * self.profile(r) / (self.slope - 2.0)

    @property
    def missing_error(self) -> float:
        """How far ``missing`` may be off because the PSF is not what its wings are taken for; noise not included."""
        return MODEL_ERRORS[self.kind] * self.missing


NO_WINGS = Wings("none", 0.0, np.inf, 1.0, 0.0)
Mask = NDArray[np.bool_]


def fit_wings(stamp: FloatArray, noise: float = 0.0, measured: Mask | None = None) -> Wings:
    """Fit the outer part of a stamp and extrapolate it.

    A Moffat wing (Moffat 1969, A&A 3, 455) whose core has the stamp's FWHM, and a Gaussian one, are fitted under a
    smooth window in radius.  The slope is the one that gives the observed mean of ``ln r`` (for photons from a power
    law, the maximum likelihood: Hill 1975, Ann. Stat. 3, 1163), a linear statistic that negative pixels do not
    upset; the Moffat wing is kept unless it is steep and the Gaussian follows the azimuthal mean more closely.
    Where neither follows it, because of rings, or the slope is below 3.4, it is set to 3, that of the diffraction
    pattern of an aperture with a sharp edge averaged over its rings.

    Parameters
    ----------
    stamp : array
        Image of a PSF, of odd size, centred.  Noisy ones had better be `psfmatch.stamp_noise.denoised` first.
    noise : float
        Standard deviation per pixel, of the stamp before it was denoised.  A wing is reduced by
        ``1 - (3 error / flux)^2``, so that noise makes no flux.
    measured : array of bool, optional
        Which pixels are; default all.  The others, filled up when a source off the middle or a turned stamp was
        brought to the middle of an odd one, lie beyond the border: they take no part in the fit, nor does anything
        farther from the centre than the nearest of them, and their flux counts as missing.

    Returns
    -------
    Wings
    """
    return _fitted([_Seen(stamp, measured)], np.array([noise]))[0]


def _fitted(seen: Sequence[_Seen], noise: FloatArray) -> list[Wings]:
    """The wings of stamps of one shape, measured at the same pixels."""
    out = [NO_WINGS] * len(seen)
    bright = [k for k, one in enumerate(seen) if one.reach >= SMALLEST // 2 and one.flux > 0]
    if not bright:
        return out
    window = _Window.of([seen[k] for k in bright], OUTER)
    width, noise = widths(np.array([seen[k].image for k in bright])), noise[bright]
    smooth = _smooth(window, width, noise)
    ringed = window.misfit(smooth, noise) > RINGED
    flux, error, amplitude = window.flux.copy(), SIGNIFICANCE * noise * window.norm, window.amplitude(smooth)
    for i, k in enumerate(bright):
        wings = smooth[i]
        if ringed[i] or wings.slope < SHALLOWEST:
            wings, rings = _power_law("diffraction", DIFFRACTION_SLOPE, width[i]), _ring_window(seen[k], width[i])
            flux[i], error[i] = rings.flux[0], SIGNIFICANCE * noise[i] * rings.norm
            amplitude[i] = rings.amplitude([wings])[0]
        if flux[i] > error[i]:
            scale = float(amplitude[i] * (1.0 - (error[i] / flux[i]) ** 2))
            out[k] = _with_missing(replace(wings, amplitude=scale), seen[k], width[i])
    return out


def missing_flux(
    stamp: FloatArray, noise: float = 0.0, measured: Mask | None = None, wings: Wings | None = None
) -> tuple[float, float]:
    """The flux beyond the border of a stamp, as a fraction of the flux in it, and its standard error.

    Of a noiseless stamp, what `continued` finds: a sum below 1 says what is missing, as long as the wings agree with
    it within a factor of two.  The sum of a noisy stamp says nothing, and its wings are fitted as `fit_wings` does,
    in the widest window, out to the border or to a part of the way, in which the noise leaves the answer certain to
    30 %, or else in the most certain one.  The error is that of the two weighted sums on which the fit rests,
    ``sum w v`` and ``sum w v ln r``, under white noise, and that of the model: 10 %, or 30 % behind an aperture.
    A second, shallower wing that the noise hides is in neither the answer nor its error.

    Over Moffat profiles of beta 2.5 to 4 and FWHM 3 to 5 px on 31 to 51 px, with noise of 1/3000 to 1/300 of the
    peak, the median is true to 20 %, the error 10 to 45 %, and the root mean square of (estimate - truth) / error
    0.2 to 1.3, wherever a wing is seen in more than half of the cases.

    Parameters
    ----------
    stamp : array
        Image of a PSF, of odd size, centred, *not* denoised.
    noise : float
        Standard deviation per pixel.
    measured : array of bool, optional
        Which pixels are, as for `fit_wings`.
    wings : Wings, optional
        Of a noiseless stamp, if `continued` has found them already.

    Returns
    -------
    missing, error : float
        NaN where the wing is lost in the noise - below 5 standard deviations, or the answer uncertain by more than
        half - and for stamps measured over less than 11 px.
    """
    seen = _Seen(stamp, measured)
    if seen.reach < SMALLEST // 2 or not seen.flux > 0:
        return np.nan, np.nan
    if noise <= 0:
        wings = wings or _believed(fit_wings(stamp, measured=measured), seen.flux)
        return wings.missing, wings.missing_error
    width = fwhm(stamp)
    best: tuple[float, Wings] | None = None
    for share in SHARES:
        found = _noisy_wings(seen, noise, width, share)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        if best is not None and best[0] <= CERTAIN:
            break
    if best is None or best[0] > LARGEST_ERROR:
        return np.nan, np.nan
    error, wings = best
    return wings.missing, float(np.hypot(error * wings.missing, wings.missing_error))


def _noisy_wings(seen: _Seen, noise: float, width: float, share: float) -> tuple[float, Wings] | None:
    """The relative error that noise makes in the flux beyond, and the wings seen in a window; None if not visible."""
    window, rings = _Window.of([seen], OUTER, share), _ring_window(seen, width)
    amplitude_error, ring_error = (w.relative_error(noise)[0] for w in (window, rings))
    if not amplitude_error < 1.0 / VISIBLE:
        return None
    best = _smooth(window, width, noise)[0]
    shift = noise * window.log_radius_error()[0]
    steep, wings, shallow = (_like(best, window, width, sign * shift) for sign in (-1.0, 0.0, 1.0))
    ringed = all(w.misfit(_smooth(w, width, noise), noise)[0] > RINGED for w in (window, rings))
    if ringed or steep.slope < SHALLOWEST:
        wings = _power_law("diffraction", DIFFRACTION_SLOPE, width)
        return ring_error, _with_missing(_scaled(wings, rings), seen, width)
    low, middle, high = (_with_missing(_scaled(w, window), seen, width) for w in (steep, wings, shallow))
    if not middle.missing > 0:
        return None
    spread = max(high.missing - middle.missing, middle.missing - low.missing) / middle.missing
    return float(np.hypot(amplitude_error, spread)), middle


def _scaled(wings: Wings, window: _Window) -> Wings:
    return replace(wings, amplitude=float(window.amplitude([wings])[0]))


def _ring_window(seen: _Seen, width: float) -> _Window:
    """From outside the core to the border, so that it holds many rings."""
    return _Window.of([seen], min(max(INNER, FIRST_DARK_RING * width / seen.reach), 0.5))


def _with_missing(wings: Wings, seen: _Seen, width: float) -> Wings:
    """The wings with the flux beyond the stamp, limited behind an aperture to what can be there."""
    missing = seen.missing(wings)
    if wings.kind == "diffraction":
        cut = min(1.0, MOST_DIFFRACTED * width / max(seen.reach * missing, 1e-300))
        return replace(wings, amplitude=cut * wings.amplitude, missing=cut * missing)
    return replace(wings, missing=missing)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A stamp, and which of its pixels are measured; None: all."""

    image: FloatArray
    measured: Mask | None = None

    @property
    def flux(self) -> float:
        """In the stamp."""
        return float(self.image.sum())

    @property
    def reach(self) -> float:
        """The radius to which every pixel is measured."""
        half = min(self.image.shape) // 2
        return half if self.measured is None else float(_radius(self.image.shape)[~self.measured].min(initial=half))

    def missing(self, wings: Wings) -> float:
        """The flux of the wings outside the measured pixels, less what the others hold, relative to the stamp's."""
        beyond = _flux_beyond_border(wings, self.image.shape)
        if self.measured is not None:
            other = ~self.measured
            beyond = max(0.0, beyond + float((wings.profile(_radius(other.shape)) - self.image)[other].sum()))
        return beyond / self.flux


@dataclass(frozen=True, eq=False)
class _Window:
    """The radii between a fraction of the stamps' radius and their border, or a part of that.

    Parameters
    ----------
    radius : array, shape (m,)
        Each that occurs.
    weight : array, shape (m,)
        Of a pixel.
    count : array, shape (m,)
        The pixels at this radius.
    values : array, shape (n, m)
        Their sum in each stamp.
    """

    radius: FloatArray
    weight: FloatArray
    count: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, seen: Sequence[_Seen], inner: float, share: float = 1.0) -> _Window:
        """A Hann window in radius times r^2, so that every ring of an r^-3 profile counts alike."""
        outer = share * seen[0].reach
        inside, radius, place, count = _radii(seen[0].image.shape, inner, outer)
        r = radius / outer
        weight = np.sin(np.pi * np.clip((r - inner) / (1.0 - inner), 0.0, 1.0)) ** 2 * r**2
        sums = [np.bincount(place, one.image[inside], minlength=radius.size) for one in seen]
        return cls(radius, weight, count, np.array(sums, float))

    @cached_property
    def log_radius(self) -> FloatArray:
        """ln r of the pixels."""
        return np.log(self.radius)

    @cached_property
    def _moments(self) -> FloatArray:
        """What makes of sums at each radius their weighted sum and that of ln r, shape (2, m)."""
        return np.stack([self.weight, self.weight * self.log_radius])

    @cached_property
    def flux(self) -> FloatArray:
        """The weighted sum of the pixels of each stamp."""
        return np.asarray(self.values @ self.weight)

    @property
    def norm(self) -> float:
        """The 2-norm of the weights of all pixels."""
        return float(np.sqrt(self.count @ self.weight**2))

    def relative_error(self, noise: float) -> FloatArray:
        """Of the flux, under white noise; infinite where there is none."""
        error = np.full(len(self.flux), np.inf)
        np.divide(noise * self.norm, self.flux, out=error, where=self.flux > 0)
        return error

    def log_radius_error(self) -> FloatArray:
        """The standard error of the pixels' mean of ln r, under white noise of unit variance."""
        lever = self.log_radius - self.mean_log_radius(self.values)[:, None]
        return np.asarray(np.sqrt((self.weight * lever) ** 2 @ self.count) / self.flux)

    def mean_log_radius(self, values: FloatArray) -> FloatArray:
        """The mean of ln r of sums (n, m) at each radius under the weights; NaN where their sum is not positive."""
        total, logs = self._moments @ values.T
        mean = np.full(len(total), np.nan)
        np.divide(logs, total, out=mean, where=total > 0)
        return mean

    def parameter(
        self, profile: Callable[[FloatArray, FloatArray], FloatArray], low: float, high: float, shift: float = 0.0
    ) -> FloatArray:
        """The parameter that gives the profile the pixels' mean of ln r (shifted), or the limit that comes closest.

        A profile is called with parameters (n, 1) and the radii, and falls the faster the larger its parameter is.
        """
        wanted = self.mean_log_radius(self.values) + shift

        def excess(p: FloatArray) -> FloatArray:
            return self.mean_log_radius(self.count * profile(p[:, None], self.radius)) - wanted

        return _crossing(excess, np.full(len(wanted), low), np.full(len(wanted), high))

    def _profiles(self, wings: Sequence[Wings]) -> FloatArray:
        """The sums at each radius that wings would give, shape (n, m)."""
        return np.asarray(self.count * np.array([one.profile(self.radius) for one in wings]))

    def amplitude(self, wings: Sequence[Wings]) -> FloatArray:
        """The factor by which each stamp's wings must be multiplied to have the pixels' flux."""
        return np.asarray(self.flux / (self._profiles(wings) @ self.weight))

    def misfit(self, wings: Sequence[Wings], noise: FloatArray | float) -> FloatArray:
        """Mean deviation, beyond what noise explains, of the azimuthal mean from the wings, relative to that mean."""
        starts = np.flatnonzero(np.diff(np.rint(self.radius), prepend=-1.0))
        seen, model, square = (
            np.add.reduceat(values, starts, axis=-1)
            for values in (self.weight * self.values, self.weight * self._profiles(wings), self.count * self.weight**2)
        )
        total, expected = seen.sum(axis=1), model.sum(axis=1)
        good = (self.flux > 0) & (expected > 0)
        ratio = np.divide(total, expected, out=np.zeros(len(total)), where=good)
        variance = np.multiply.outer(np.broadcast_to(noise, len(total)) ** 2, square)
        excess = np.sqrt(np.maximum((seen - model * ratio[:, None]) ** 2 - SIGNIFICANCE**2 * variance, 0.0))
        return np.where(good, excess.sum(axis=1) / np.maximum(np.abs(seen).sum(axis=1), 1e-300), np.inf)


def _crossing(excess: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray) -> FloatArray:
    """Where falling functions cross zero, or the limit that comes closest; to 1e-9 of it.

    The secant, kept between its ends (Illinois; Dowell & Jarratt 1971, BIT 11, 168), of all functions at once.
    """
    f_low, f_high = excess(low), excess(high)
    inside, out = (f_low > 0) & (f_high < 0), np.where(f_low > 0, high, low)
    side = np.zeros(len(out), int)
    for _ in range(STEPS):
        if not inside.any():
            break
        span = np.where(inside, f_low - f_high, 1.0)
        x = np.where(inside, low + (high - low) * f_low / span, out)
        inside &= np.abs(x - out) > 1e-9 * (1.0 + np.abs(x))
        out, f = x, excess(x)
        rising = f > 0
        f_low = np.where(rising, f, np.where(side < 0, 0.5 * f_low, f_low))
        f_high = np.where(rising, np.where(side > 0, 0.5 * f_high, f_high), f)
        low, high, side = np.where(rising, x, low), np.where(rising, high, x), np.where(rising, 1, -1)
    return out


@lru_cache(maxsize=16)
def _radius(shape: tuple[int, ...]) -> FloatArray:
    y, x = (np.arange(n) - n // 2 for n in shape)
    return frozen(np.hypot(y[:, None], x[None, :]))


@lru_cache(maxsize=64)
def _radii(shape: tuple[int, int], inner: float, outer: float) -> tuple[Mask, FloatArray, NDArray[np.intp], FloatArray]:
    """The pixels between ``inner outer`` and ``outer``, the radii that occur, which of them each has, and how many."""
    radius = _radius(shape)
    inside = (radius > inner * outer) & (radius < outer)
    radii, place, count = np.unique(radius[inside], return_inverse=True, return_counts=True)
    return inside, radii, place, count.astype(float)


def _power_law(kind: WingKind, slope: float, width: float) -> Wings:
    """A Moffat profile of amplitude 1 with this slope and FWHM."""
    return Wings(kind, 1.0, slope, float(_scale(slope, width)), 0.0)


def _scale(slope: Any, width: Any) -> Any:
    """That of a Moffat profile of this slope and FWHM."""
    return 0.5 * width / np.sqrt(2.0 ** (2.0 / slope) - 1.0)


def _smooth(window: _Window, width: FloatArray | float, noise: FloatArray | float) -> list[Wings]:
    """Of each stamp a Moffat wing, unless it is steep and a Gaussian one follows the pixels more closely."""
    out = _moffat(window, width)
    if any(wings.slope > STEEP for wings in out):
        gaussian = _gaussian(window)
        closer = window.misfit(gaussian, noise) < window.misfit(out, noise)
        out = [g if m.slope > STEEP and c else m for m, g, c in zip(out, gaussian, closer, strict=True)]
    return out


def _like(wings: Wings, window: _Window, width: float, shift: float) -> Wings:
    """A wing of the same kind for another mean of ln r, of finite flux."""
    if wings.kind == "gaussian":
        return _gaussian(window, shift)[0]
    return _power_law("moffat", max(_moffat(window, width, shift)[0].slope, DIFFRACTION_SLOPE), width)


def _moffat(window: _Window, width: FloatArray | float, shift: float = 0.0) -> list[Wings]:
    widths = np.broadcast_to(width, len(window.values))

    def profile(slope: FloatArray, r: FloatArray) -> FloatArray:
        return np.asarray((1.0 + (r / _scale(slope, widths[:, None])) ** 2) ** (-0.5 * slope))

    slopes = window.parameter(profile, 1.5, STEEPEST, shift).tolist()
    return [_power_law("moffat", slope, one) for slope, one in zip(slopes, widths, strict=True)]


def _gaussian(window: _Window, shift: float = 0.0) -> list[Wings]:
    least = float(window.radius.min())

    def profile(log_curvature: FloatArray, r: FloatArray) -> FloatArray:
        return np.asarray(np.exp(-np.exp(log_curvature) * (r**2 / least**2 - 1.0)))

    curvature = np.exp(window.parameter(profile, np.log(1e-3), np.log(MOST_CURVED), shift)).tolist()
    return [Wings("gaussian", float(np.exp(c)), np.inf, float(least / np.sqrt(2.0 * c)), 0.0) for c in curvature]


def _flux_beyond_border(wings: Wings, shape: tuple[int, ...]) -> float:
    """The flux of the wings outside the rectangle of the stamp."""
    return float(wings.flux_beyond(_border(shape)).mean() * 2.0 * np.pi)


@lru_cache(maxsize=16)
def _border(shape: tuple[int, ...]) -> FloatArray:
    """How far the border of a stamp is from its centre, in 256 directions."""
    angle = (np.arange(256) + 0.5) / 256 * 2.0 * np.pi
    return frozen(np.minimum(0.5 * shape[0] / np.abs(np.sin(angle)), 0.5 * shape[1] / np.abs(np.cos(angle))))


def extended(stamp: FloatArray, shape: tuple[int, int], wings: Wings, measured: Mask | None = None) -> FloatArray:
    """The stamp continued by its wings to a larger odd shape; the pixels inside (that are measured) are unchanged.

    Raises
    ------
    InputError
        If the shape is not odd, or smaller than the stamp.
    """
    shape = odd_shape(shape, "extended stamp")
    if shape[0] < stamp.shape[0] or shape[1] < stamp.shape[1]:
        raise InputError(f"a stamp of {stamp.shape} cannot be extended to {shape}; give a larger shape")
    out = resized(stamp, shape)
    if not wings.missing > 0:
        return out
    inside = resized(np.ones(stamp.shape) if measured is None else measured.astype(float), shape) > 0
    return np.where(inside, out, wings.profile(_radius(shape)))


def continued(
    stamp: FloatArray, shape: tuple[int, int], noise: float = 0.0, measured: Mask | None = None
) -> tuple[FloatArray, Wings]:
    """The stamp continued by its fitted wings, on the scale where the whole PSF has unit flux.

    A stamp whose sum is 1 within 1e-6 was cut and normalised: it is scaled down so that it and its wings out to
    infinity sum to 1.  A stamp with less is believed: its wings get what is missing to 1, if the fit agrees with
    that within a factor of two, or else what the fit says.

    Parameters
    ----------
    stamp : array
        Image of a PSF, of odd size.
    shape : (int, int)
        The shape to continue to, odd and no smaller than the stamp.
    noise : float
        Standard deviation per pixel.
    measured : array of bool, optional
        Which pixels are, as for `fit_wings`; the others are replaced by the wings.

    Returns
    -------
    array, Wings
        The wings are those of the returned array; its ``missing`` is relative to the flux in the original stamp.
    """
    out, (wings,) = continued_all(stamp[None], shape, np.array([noise]), measured)
    return out[0], wings


def continued_all(
    stamps: FloatArray, shape: tuple[int, int], noise: FloatArray, measured: Mask | None = None
) -> tuple[FloatArray, list[Wings]]:
    """What `continued` makes of stamps (n, sy, sx), given the noise of each."""
    out, found = [], []
    for stamp, fitted in zip(stamps, _fitted([_Seen(s, measured) for s in stamps], noise), strict=True):
        total = float(stamp.sum())
        wings = _believed(fitted, total)
        scale = 1.0 / (1.0 + wings.missing) if abs(total - 1.0) <= UNIT_SUM else 1.0
        found.append(replace(wings, amplitude=wings.amplitude * scale))
        out.append(extended(stamp * scale, shape, found[-1], measured))
    return np.array(out), found


def _believed(wings: Wings, total: float) -> Wings:
    """The wings with the flux that a stamp of this sum lacks to 1, where the fit agrees within a factor of two."""
    lacking = 1.0 / total - 1.0
    if abs(total - 1.0) <= UNIT_SUM or not (wings.missing > 0 and 0.5 <= lacking / wings.missing <= 2.0):
        return wings
    return replace(wings, amplitude=wings.amplitude * lacking / wings.missing, missing=lacking)
