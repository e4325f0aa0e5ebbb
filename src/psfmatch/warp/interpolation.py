"""How a value between pixels is made of the pixels about it: separable weights that sum to one at every phase."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray

__all__ = ["Interpolation", "Kaiser", "Lanczos"]

PHASES = 4096


@dataclass(frozen=True)
class Interpolation(ABC):
    """A windowed sinc over ``2 order`` pixels along each axis.

    Between pixels n and n + 1, at the fraction f, the value is ``sum_i w_i(f) I(n + i)``, with i from ``1 - order`` to
    ``order`` and ``w_i(f) = h(f - i) / sum_j h(f - j)``: a constant stays a constant, and at f = 0 the pixel itself.

    Noise follows from the same weights.  Two interpolated pixels p and q, whose weights are the products
    ``W_p(u) = w(fy_p) w(fx_p)`` of those along y and along x, laid on the pixels u of the image, have the covariance
    ``sum_u W_p(u) W_q(u) variance(u)``; p = q gives the variance.  In white noise, and for fractions that are the same
    in both, it is separable: ``sum_i w_i(f) w_{i - d}(f)`` along each axis for pixels d apart.  (`warp` multiplies by
    the Jacobian determinants on top.)

    Parameters
    ----------
    order : int
        Half the number of pixels along an axis, at least 2.
    mask_share : float
        A pixel whose weight (the product of those of both axes) is below this in size passes on no mask plane.
    exclude : tuple of str
        Mask planes whose pixels are missing, like NaN and infinite variance.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    order: int = 6
    mask_share: float = 0.01
    exclude: tuple[str, ...] = ("NO_DATA",)

    def __post_init__(self) -> None:
        if int(self.order) != self.order or not 2 <= self.order <= 32:
            raise InputError(f"{type(self).__name__} order={self.order!r}: give an integer from 2 to 32")
        if not 0.0 <= self.mask_share < 0.25:
            raise InputError(f"{type(self).__name__} mask_share={self.mask_share!r}: must lie in [0, 0.25)")

    @abstractmethod
    def window(self, t: FloatArray) -> FloatArray:
        """What the sinc is multiplied by at ``t`` pixels, \\|t\\| <= order."""

    def weights(self, fraction: ArrayLike) -> FloatArray:
        """The weights of the pixels ``1 - order, ..., order`` beside the one that a position lies in or after.

        Parameters
        ----------
        fraction : float or array, shape (n,)
            Of a pixel, 0 to 1, by which the positions lie after the pixel number 0.

        Returns
        -------
        array, shape (n, 2 order)
            Of unit sum.

        Raises
        ------
        InputError
            If a fraction is out of range.
        """
        f = np.atleast_1d(np.asarray(fraction, float))
        if not ((f >= 0) & (f <= 1)).all():
            raise InputError("fraction: give numbers from 0 to 1")
        t = f[:, None] - np.arange(1.0 - self.order, self.order + 1.0)
        weights = np.sinc(t) * self.window(t)
        weights[np.equal(np.mod(t, 1.0), 0.0) & (t != 0.0)] = 0.0  # np.sinc leaves 4e-17 there
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Lanczos(Interpolation):
    """A sinc under the main lobe of a wider one, ``sinc(t / order)`` (Duchon 1979, J. Appl. Meteorol. 18, 1016).

    See `Kaiser`, the default of `warp`, for what it costs in accuracy.

    Parameters
    ----------
    order : int
        See `Interpolation`.
    mask_share : float
        See `Interpolation`.
    exclude : tuple of str
        See `Interpolation`.
    """

    order: int = 4

    def window(self, t: FloatArray) -> FloatArray:
        return np.sinc(t / self.order)


@dataclass(frozen=True)
class Kaiser(Interpolation):
    """A sinc under the window of Kaiser (1974, Proc. IEEE Int. Symp. Circuits and Systems, 20).

    ``I0(beta sqrt(1 - (t / order)^2))``.  The largest error of an interpolated star (pixel-integrated; the worse of a
    Gaussian and a Moffat of beta = 3, over all phases), in units of its peak:

    ============== ======== ======== ========
    FWHM (px)      2.5      3        4
    ============== ======== ======== ========
    Lanczos(4)     5.0e-3   4.3e-3   3.6e-3
    Lanczos(6)     2.0e-3   1.6e-3   1.3e-3
    Lanczos(8)     2.4e-3   8.4e-4   6.5e-4
    Kaiser(4)      3.7e-3   2.3e-3   8.3e-4
    Kaiser(5)      2.3e-3   1.3e-3   3.7e-4
    Kaiser(6)      1.6e-3   7.8e-4   2.1e-4
    ============== ======== ======== ========

    Parameters
    ----------
    order : int
        See `Interpolation`.
    mask_share : float
        See `Interpolation`.
    exclude : tuple of str
        See `Interpolation`.
    beta : float, optional
        The larger, the more of the highest frequencies is lost and the less of all others is changed.  Default
        ``0.8 order + 2.4``, the best for FWHM of 3 px.
    """

    beta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta is not None and not 0.0 <= self.beta <= 100.0:
            raise InputError(f"Kaiser beta={self.beta!r}: must lie in [0, 100]")

    def window(self, t: FloatArray) -> FloatArray:
        beta = 0.8 * self.order + 2.4 if self.beta is None else self.beta
        return np.asarray(np.i0(beta * np.sqrt(np.maximum(0.0, 1.0 - (t / self.order) ** 2))))


@lru_cache(maxsize=8)
def tabulated(interpolation: Interpolation) -> tuple[FloatArray, FloatArray]:
    """The weights at equidistant fractions, and their steps: shapes (2 order, PHASES + 1) and (2 order, PHASES).

    Linear in between, which is exact to 1e-7 and keeps the sum of one.
    """
    table = np.ascontiguousarray(interpolation.weights(np.linspace(0.0, 1.0, PHASES + 1)).T)
    return table, np.diff(table, axis=1)


def quick_weights(interpolation: Interpolation, fraction: FloatArray, dtype: np.dtype) -> FloatArray:
    """As `Interpolation.weights`, from a table, for fractions in [0, 1): shape (2 order, n)."""
    table, steps = tabulated(interpolation)
    scaled = PHASES * fraction
    k = np.minimum(scaled.astype(np.intp), PHASES - 1)
    out = np.take(steps.astype(dtype, copy=False), k, axis=1)
    out *= (scaled - k).astype(dtype)
    out += np.take(table.astype(dtype, copy=False), k, axis=1)
    return out
