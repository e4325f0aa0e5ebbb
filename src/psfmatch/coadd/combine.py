"""A stack of images on one grid, with one PSF, into one image: weighted mean, median, clipped mean.

All functions are of bare arrays, of one patch of the sky at a time.  Pixels are combined independently of each other,
but for the regions that `ClippedMean` clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, special

from psfmatch.errors import InputError
from psfmatch.exposure import MASK_PLANES
from psfmatch.geometry import FloatArray, as_reals, plain_array

__all__ = ["ClippedMean", "CombineMethod", "Combined", "Mean", "Median", "Two", "combine", "median_factor"]

REJECT = ("BAD", "SAT", "CR", "EDGE", "INTRP", "NO_DATA")
STRIP_BYTES = 1 << 20
"""Of the strips of rows in which a stack is worked through."""
EIGHT = np.ones((3, 3), bool)
Two = Literal["brighter", "none"]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Combined:
    """What becomes of a stack.

    Parameters
    ----------
    image : array, shape (ny, nx)
        NaN where no input has data.
    variance : array, shape (ny, nx)
        Infinite where no input has data.
    mask : array of integers, shape (ny, nx)
        The planes of the inputs used; where none is, all planes of all inputs, and NO_DATA.
    count : array of integers, shape (ny, nx)
        How many inputs were used.
    clipped : array of bool, shape (n, ny, nx)
        Pixels that the method itself left out.
    """

    image: FloatArray
    variance: FloatArray
    mask: NDArray[np.integer[Any]]
    count: NDArray[np.integer[Any]]
    clipped: Bools


class CombineMethod(Protocol):
    """A way to combine a stack."""

    @property
    def margin(self) -> int:
        """How far around a pixel its neighbours decide upon it."""

    def clipped(self, images: FloatArray, variances: FloatArray, good: Bools) -> Bools | None:
        """Which usable pixels (n, ny, nx) are to be left out beside those that are not; None: none."""

    def value(
        self, images: FloatArray, variances: FloatArray, used: Bools, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Value and variance (ny, nx) of the used pixels; anything where there is none."""


@dataclass(frozen=True)
class Mean:
    """The weighted mean, ``sum w I / sum w``, of variance ``sum w^2 variance / (sum w)^2``."""

    margin: ClassVar[int] = 0

    def clipped(self, images: FloatArray, variances: FloatArray, good: Bools) -> Bools | None:
        """None are."""
        return None

    def value(
        self, images: FloatArray, variances: FloatArray, used: Bools, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See the class."""
        w = weights.astype(images.dtype)[:, None, None] * used
        total = w.sum(axis=0)
        total[total == 0] = 1.0
        mean = np.einsum("nyx,nyx->yx", w, np.where(used, images, 0.0)) / total
        w /= total
        return mean, np.einsum("nyx,nyx,nyx->yx", w, w, np.where(used, variances, 0.0))


@dataclass(frozen=True)
class Median:
    """The median of the used inputs; the weights do not count.

    Its variance is ``median_factor(n) / n`` times ``H^2 + b (M - H^2)`` with the harmonic mean H of the standard
    deviations and the mean M of the variances.  For many inputs b = 0, since the median's variance is ``1 / (2 n f)^2``
    with the mean f of their densities at the centre (Stigler 1976, J. Am. Stat. Assoc. 71, 956), and for two b = 1;
    between, b was measured: the variance is true to 1 % for standard deviations up to 1 : 3.
    """

    margin: ClassVar[int] = 0

    def clipped(self, images: FloatArray, variances: FloatArray, good: Bools) -> Bools | None:
        """None are."""
        return None

    def value(
        self, images: FloatArray, variances: FloatArray, used: Bools, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See the class."""
        return _median(images, used), _median_variance(variances, used)


@dataclass(frozen=True)
class ClippedMean:
    """The weighted mean without what differs from the median of the stack.

    The exposures have one PSF, so that a difference is real: a satellite, a cosmic ray, a ghost.  The deviation of a
    pixel is its difference from the median over ``sqrt(variance + variance of the median + (model_error *
    brightness)^2)``; ``brightness`` is the largest absolute median within ``reach``, where the PSFs may still differ.
    A clipped region begins where the deviation, or its mean over ``scale x scale`` pixels relative to the scatter of
    such means in the stack (which holds what the skies differ by), is beyond ``sigmas``.  It extends, because the
    artefact was convolved, over all connected pixels where one of them is beyond ``grow`` on the same side, also those
    that are not used, and ``pad`` pixels further.  What begins where the noise and not the brightness decides is an
    artefact, and extends over the stars that it crosses: there, the brightness does not count.

    Of two inputs there is no telling which is wrong; the fainter one is the reference, unless ``two`` is "none":
    what passes through the sky in one exposure adds light, and what takes it away is flagged by its pipeline.
    Where nothing would be left, nothing is clipped.

    Parameters
    ----------
    sigmas : float
        Where a clipped region begins.
    grow : float
        How far it extends, at most ``sigmas``.
    pad : int
        How many pixels around are clipped as well: wings that the noise hides.
    scale : int
        Width of what is too faint to show in one pixel, such as a trail, in pixels: that of the PSF; 1: none.
    model_error : float
        Difference between the inputs that is not held against them, relative to the brightness: of their flux scales
        (a few per cent in real data), of their positions (a third of a pixel changes a star's flank by a tenth of its
        peak), and of their PSFs.
    reach : int
        How far around a star its PSF's error counts, in pixels.
    two : {"brighter", "none"}
        Which of two inputs that differ is clipped.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    sigmas: float = 4.5
    grow: float = 2.0
    pad: int = 2
    scale: int = 5
    model_error: float = 0.1
    reach: int = 5
    two: Two = "brighter"

    def __post_init__(self) -> None:
        if not 0 < self.grow <= self.sigmas:
            raise InputError(f"ClippedMean sigmas={self.sigmas!r}, grow={self.grow!r}: must be 0 < grow <= sigmas")
        if not self.model_error >= 0:
            raise InputError(f"ClippedMean model_error={self.model_error!r}: must not be negative")
        for name, least in (("pad", 0), ("scale", 1), ("reach", 0)):
            value = getattr(self, name)
            if not (value >= least and int(value) == value):
                raise InputError(f"ClippedMean {name}={value!r}: must be a whole number of pixels, {least} or more")
        if self.two not in get_args(Two):
            raise InputError(f"ClippedMean two={self.two!r}: choose one of {', '.join(get_args(Two))}")

    @property
    def margin(self) -> int:
        """What an artefact may reach from where it is seen: about the width of a PSF, and all options of length."""
        return 12 + self.reach + self.scale + self.pad

    def clipped(self, images: FloatArray, variances: FloatArray, good: Bools) -> Bools | None:
        """See the class."""
        reference, spread = np.empty(images.shape[1:], images.dtype), np.empty(images.shape[1:], images.dtype)
        for rows in _strips(images.shape):
            reference[rows], spread[rows] = self._reference(images[:, rows], variances[:, rows], good[:, rows])
        bright = ndimage.maximum_filter(np.abs(np.nan_to_num(reference)), 2 * self.reach + 1, mode="nearest")
        with np.errstate(over="ignore"):  # beside a pixel of 1e30 nothing can be told
            model = np.square(self.model_error * bright)
        del bright
        out = np.zeros(images.shape, bool)
        for image, variance, usable, clip in zip(images, variances, good, out, strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                alone = (image - reference) / np.sqrt(variance + spread)  # relative to the noise alone
                deviation = (image - reference) / np.sqrt(variance + spread + model)
            alone[~np.isfinite(alone)] = deviation[~np.isfinite(deviation)] = 0.0
            plain = model < variance + spread
            broad = self._broad(deviation, usable)
            for sign in (1, -1):
                most = np.maximum(sign * deviation, sign * broad)
                begins = usable & (most > self.sigmas)
                clip |= _connected(most > self.grow, begins)
                clip |= _connected(np.maximum(most, sign * alone) > self.grow, begins & plain)
            if clip.any():
                clip[...] = ndimage.maximum_filter(clip, 2 * self.pad + 1, mode="constant") & usable
        for rows in _strips(images.shape):
            out[:, rows] &= (good[:, rows] & ~out[:, rows]).any(axis=0)
        return out

    def _broad(self, deviation: FloatArray, usable: Bools) -> FloatArray:
        """Means of the deviation over neighbours, in units of their scatter (90 % are within 1.64 of it)."""
        if self.scale == 1 or not usable.any():
            return deviation
        mean = ndimage.uniform_filter(deviation * usable, self.scale, mode="constant")
        scatter = np.quantile(np.abs(mean[usable]), 0.9) / special.ndtri(0.95)
        return np.asarray(mean / max(scatter, 1.0 / self.scale))  # less than that of white noise says nothing

    def _reference(self, images: FloatArray, variances: FloatArray, good: Bools) -> tuple[FloatArray, FloatArray]:
        """What a pixel is compared with, and its variance (infinite where nothing may be clipped)."""
        count = good.sum(axis=0)
        reference, variance = _median(images, good), _median_variance(variances, good)
        variance[count < 2] = np.inf
        pair = count == 2
        if self.two == "none":
            variance[pair] = np.inf
        else:
            few = np.where(good[:, pair], images[:, pair], np.inf)
            fainter = few.argmin(axis=0)[None]
            reference[pair] = np.take_along_axis(few, fainter, 0)[0]
            variance[pair] = np.take_along_axis(variances[:, pair], fainter, 0)[0]
        return reference, variance

    def value(
        self, images: FloatArray, variances: FloatArray, used: Bools, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """See `Mean`."""
        return Mean().value(images, variances, used, weights)


def combine(
    images: ArrayLike, variances: ArrayLike, masks: ArrayLike, weights: ArrayLike | None = None, *,
    method: CombineMethod | None = None, planes: Mapping[str, int] = MASK_PLANES,
    reject: Sequence[str] = REJECT, keep: Sequence[str] | None = None,
) -> Combined:  # fmt: skip
    """Combine a stack of images that lie on one grid and have one PSF, one sky level and one flux scale.

    Parameters
    ----------
    images, variances : array, shape (n, ny, nx)
        Sky-subtracted images and their variances; a pixel counts where its image is finite and its variance finite
        and positive.
    masks : array of integers, shape (n, ny, nx)
        Their mask planes, by one common table.
    weights : array, shape (n,), optional
        One an input, not negative; by default equal.
    method : Mean, Median or ClippedMean, optional
        How; default ``ClippedMean()``.
    planes : mapping of str to int
        The bit of each plane.
    reject : sequence of str
        Pixels in one of these planes are left out (names that ``planes`` lacks are in none).  The default leaves out
        what has no true value (BAD, SAT, CR, NO_DATA), and what matching has made from a part of its footprint
        (EDGE, INTRP): it does not have the common PSF.
    keep : sequence of str, optional
        Planes that the inputs used pass on; default all.

    Returns
    -------
    Combined
        One image, with its variance and mask, and what was used and clipped.

    Raises
    ------
    InputError
        If shapes do not fit, numbers are not real, a weight is negative or not finite, or a plane to keep has no bit.
    """
    stack, noise, flags = _checked(images, variances, masks, planes)
    w = _weights(weights, len(stack))
    how: CombineMethod = ClippedMean() if method is None else method
    bits = flags.dtype.type
    rejected, no_data = bits(_bits(planes, reject)), bits(_bits(planes, ("NO_DATA",)))
    kept = ~bits(0) if keep is None else bits(_bits(planes, keep, strict=True))
    used = np.empty(stack.shape, bool)
    for rows in _strips(stack.shape):
        used[:, rows] = np.isfinite(stack[:, rows]) & np.isfinite(noise[:, rows]) & (noise[:, rows] > 0)
        used[:, rows] &= (flags[:, rows] & rejected) == 0
    used &= (w > 0)[:, None, None]
    clipped = how.clipped(stack, noise, used)
    if clipped is None:
        clipped = np.zeros(stack.shape, bool)
    used &= ~clipped
    shape, real = stack.shape[1:], stack.dtype.newbyteorder("=")
    out = Combined(
        np.empty(shape, real), np.empty(shape, real), np.zeros(shape, flags.dtype.newbyteorder("=")),
        used.sum(axis=0, dtype=np.int32), clipped,
    )  # fmt: skip
    for rows in _strips(stack.shape):
        out.image[rows], out.variance[rows] = how.value(stack[:, rows], noise[:, rows], used[:, rows], w)
        out.mask[rows] = np.bitwise_or.reduce(np.where(used[:, rows], flags[:, rows] & kept, bits(0)), 0)
    empty = out.count == 0
    out.image[empty], out.variance[empty] = np.nan, np.inf
    out.mask[empty] = np.bitwise_or.reduce(flags[:, empty], axis=0) | no_data
    return out


def _checked(
    images: ArrayLike, variances: ArrayLike, masks: ArrayLike, planes: Mapping[str, int]
) -> tuple[FloatArray, FloatArray, Any]:
    stack, noise = plain_array(images, "images"), plain_array(variances, "variances")
    flags = plain_array(masks, "masks")
    if stack.ndim != 3 or not stack.size or not stack.shape == noise.shape == flags.shape:
        raise InputError(
            f"a stack of images {stack.shape}, variances {noise.shape} and masks {flags.shape}: "
            "give three arrays of one shape (n, ny, nx)"
        )
    if flags.dtype.kind not in "iu":
        raise InputError(f"masks of dtype {flags.dtype}: mask planes are bits of integers")
    stack, noise = as_reals(stack, "images"), as_reals(noise, "variances")
    highest = 1 << max(planes.values(), default=0)
    if highest > np.iinfo(flags.dtype).max:
        flags = flags.astype(np.promote_types(np.min_scalar_type(highest), flags.dtype))
    return stack, noise, flags


def _weights(weights: ArrayLike | None, n: int) -> FloatArray:
    w = np.ones(n) if weights is None else plain_array(weights, "weights", float)
    if w.shape != (n,) or not (np.isfinite(w).all() and (w >= 0).all()):
        raise InputError(f"weights {w}: give {n} finite numbers, one an image, none of them negative")
    return w


def _bits(planes: Mapping[str, int], names: Sequence[str], *, strict: bool = False) -> int:
    unknown = [name for name in names if name not in planes]
    if strict and unknown:
        raise InputError(f"no mask planes {', '.join(unknown)}; there are {', '.join(planes)}")
    return sum(1 << planes[name] for name in set(names) if name in planes)


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a stack (n, ny, nx), a few at a time."""
    step = max(1, STRIP_BYTES // (8 * shape[0] * shape[2]))
    return (slice(start, min(start + step, shape[1])) for start in range(0, shape[1], step))


def _median(images: FloatArray, used: Bools) -> FloatArray:
    """The median over the first axis of the used pixels (zero where there is none)."""
    ordered = np.sort(np.where(used, images, np.inf).astype(images.dtype), axis=0)
    count = used.sum(axis=0)[None]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, 0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(images) - 1), 0)[0]
    low[count[0] == 0] = high[count[0] == 0] = 0.0
    return np.asarray(low + 0.5 * (high - low))


def _median_variance(variances: FloatArray, used: Bools) -> FloatArray:
    """See `Median`; infinite where no pixel is used."""
    numbers = np.arange(1, len(used) + 1)
    factors = np.array([0.0, *(median_factor(n) for n in numbers)])
    extra = np.array([0.0, *(0.6 / numbers + np.where(numbers % 2, 0.0, 0.7 * (2.0 / numbers) ** 2.5))])
    count = used.sum(axis=0)
    known = np.where(used, variances, 1.0)
    inverse = (used / np.sqrt(known)).sum(axis=0)
    safe = np.maximum(count, 1)
    squared_harmonic = (safe / np.where(count == 0, 1.0, inverse)) ** 2
    mean = np.where(used, known, 0.0).sum(axis=0) / safe
    out = factors[count] / safe * (squared_harmonic + extra[count] * (mean - squared_harmonic))
    return np.asarray(np.where(count == 0, np.inf, out))


@cache
def median_factor(n: int) -> float:
    """The variance of the median of n Gaussian numbers of one variance, in units of that of their mean.

    From the density of the central order statistics (David & Nagaraja 2003, *Order Statistics*, eqs. 2.1.6 and 2.2.1),
    integrated numerically: for odd n that of the middle one, for even n the joint one of the two in the middle, whose
    mean the median is.  1, 1, 1.346, 1.193, 1.434, 1.288, ... towards pi / 2.

    Parameters
    ----------
    n : int
        At least 1.
    """
    if n < 3:
        return 1.0
    node, weight = np.polynomial.legendre.leggauss(200)
    k = (n - 1) // 2
    scale = 8.0 / np.sqrt(n) + 1.0
    center, steps = scale * node, scale * weight
    if n % 2:
        log_density = special.gammaln(n + 1) - 2 * special.gammaln(k + 1) + k * _log_tails(center, center)
        density = np.exp(log_density) * _gauss(center)
        return float(n * (steps * center**2 * density).sum())
    half, half_steps = (0.5 * scale * f for f in (node + 1.0, weight))
    low, high = center[:, None] - half, center[:, None] + half
    log_density = special.gammaln(n + 1) - 2 * special.gammaln(k + 1) + k * _log_tails(low, high)
    density = np.exp(log_density) * _gauss(low) * _gauss(high)
    return float(n * 2.0 * (steps * center**2 * (density @ half_steps)).sum())


def _log_tails(low: FloatArray, high: FloatArray) -> FloatArray:
    """Logarithm of the share of a Gaussian below ``low`` times that above ``high``."""
    return np.asarray(special.log_ndtr(low) + special.log_ndtr(-high))


def _gauss(t: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi))


def _connected(wide: Bools, seeds: Bools) -> Bools:
    """The regions of ``wide``, corners connected, that hold a seed."""
    if not seeds.any():
        return np.zeros(wide.shape, bool)
    labels, count = ndimage.label(wide, EIGHT)
    chosen = np.zeros(count + 1, bool)
    chosen[labels[seeds]] = True
    chosen[0] = False
    return np.asarray(chosen[labels])
