"""Deconvolution, spatial frequency by spatial frequency: what a pair of PSFs asks for, and what a kernel does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from psfmatch.geometry import FloatArray

__all__ = ["AMPLIFIED", "UNDEMANDED", "Amplification", "Demand", "wiener_weights"]

AMPLIFIED = 1.05
"""The amplification of a spatial frequency that counts as none: shapes of two families never agree exactly."""
UNDEMANDED = 1.2
"""By how much a kernel may amplify a spatial frequency beyond what the pair demands there."""
FINE = 64
"""Frequencies along an axis at which the smallest kernels are looked at."""
WEIGHTS = (1e-16, 1e2)
HALVINGS = 26


@dataclass(frozen=True)
class Amplification:
    """How much some spatial frequencies gain on the flux.

    Parameters
    ----------
    largest : float
        ``max |K(f)| / |K(0)|``; 1 where nothing is amplified.
    frequency : float
        Where that is, in cycles a pixel (0.5 is Nyquist's along the axes).
    share : float
        The part of the frequency plane that is amplified by more than 5 %, from 0 to 1.
    """

    largest: float
    frequency: float
    share: float

    @classmethod
    def of(cls, kernels: FloatArray) -> Amplification:
        """What the kernel that amplifies most, of some (n, ky, kx), does."""
        shape = tuple(fft.next_fast_len(max(2 * n, FINE)) for n in kernels.shape[1:])
        spectra = np.abs(fft.fft2(kernels, shape))
        relative = spectra / np.maximum(spectra[:, :1, :1], np.finfo(float).tiny)
        return cls._of_plane(relative[int(np.argmax(relative.max(axis=(1, 2))))])

    @classmethod
    def _of_plane(cls, relative: FloatArray) -> Amplification:
        where = np.unravel_index(int(np.argmax(relative)), relative.shape)
        frequency = np.hypot(*(fft.fftfreq(n)[k] for n, k in zip(relative.shape, where, strict=True)))
        return cls(float(relative[where]), float(frequency), float((relative > AMPLIFIED).mean()))

    def __str__(self) -> str:
        return (
            f"up to {self.largest:.2f} times, at {self.frequency:.2f} cycles/px; more than {AMPLIFIED:.2f} times "
            f"in {100 * self.share:.2g} % of the frequency plane"
        )


@dataclass(frozen=True, eq=False)
class Demand:
    """The power spectra of a pair of PSFs.

    Of all kernels with a given residual, the least noisy is ``K = conj(S) T / (|S|^2 + w)`` (Wiener), with the one
    weight w that gives this residual.  It follows the quotient ``|T(f)| / |S(f)|`` where the target's light matters
    to the residual, and lets go of it where not; what it amplifies, the pair demands.

    Parameters
    ----------
    science, target : array, shape (n, n)
        ``|S(f)|^2`` and ``|T(f)|^2`` over the whole plane, frequency zero first.
    known : array of bool, shape (n, n)
        Where both stand out of the noise of their stamps: elsewhere nothing is demanded.
    """

    science: FloatArray
    target: FloatArray
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, science: FloatArray, target: FloatArray, floors: tuple[float, float] = (0.0, 0.0)) -> Demand:
        """Of a pair of stamps; the floors are the power ``pixels * sigma^2`` of the white noise that they had."""
        side = fft.next_fast_len(max(*science.shape, *target.shape))
        powers = [np.abs(fft.fft2(stamp, (side, side))) ** 2 for stamp in (science, target)]
        known = (powers[0] > floors[0]) & (powers[1] > floors[1])
        return cls(powers[0], powers[1], known)

    def largest(self, residual: float) -> Amplification:
        """What is demanded for a residual ``norm2(K*S - T) / norm2(T)``."""
        return Amplification._of_plane(self._relative(residual))

    def exceeded(self, kernel: FloatArray, residual: float, tolerance: float) -> bool:
        """Whether a kernel (k, k) with this residual amplifies a spatial frequency that nothing asks for.

        That is, by more than 20 % beyond what is demanded there, or as near as a kernel of k pixels can tell, 1/k.
        A small kernel that reaches the tolerance on noiseless stamps has its reasons.
        """
        if residual <= tolerance and self.known.all():
            return False
        half = np.abs(fft.rfft2(kernel, self.science.shape))
        if half.max() <= UNDEMANDED * half[0, 0]:
            return False
        response = np.abs(fft.fft2(kernel, self.science.shape)) / max(half[0, 0], np.finfo(float).tiny)
        near = 2 * round(len(self.science) / len(kernel)) + 1
        wanted = ndimage.maximum_filter(self._relative(residual), near, mode="wrap")
        return bool((response > UNDEMANDED * np.maximum(wanted, 1.0)).any())

    def _relative(self, residual: float) -> FloatArray:
        """``|K(f)| / |K(0)|`` of the least noisy kernel, 0 where the stamps' noise hides what is demanded."""
        half = len(self.science) // 2 + 1  # rows; the others are the same again
        science, target = self.science[:half].reshape(1, -1), self.target[:half].ravel()
        weight = wiener_weights(science, target, self._count, residual)[0][0]
        response = np.sqrt(self.science * self.target) / (self.science + weight)
        return np.asarray(np.where(self.known, response, 0.0) / response[0, 0])

    @cached_property
    def _count(self) -> FloatArray:
        """How often each frequency of the first half of the rows counts."""
        side = len(self.science)
        rows = np.full(side // 2 + 1, 2.0)
        rows[0] = 1.0
        if side % 2 == 0:
            rows[-1] = 1.0
        return np.repeat(rows, side)


def wiener_weights(
    science: FloatArray, target: FloatArray, count: FloatArray, residual: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The weights w of the least noisy kernels, of unlimited size, that have a given residual (see `Demand`).

    Parameters
    ----------
    science : array, shape (n, m)
        ``|S(f)|^2`` of n science PSFs at m spatial frequencies.
    target : array, shape (m,)
        ``|T(f)|^2``.
    count : array, shape (m,)
        How often each frequency counts in a sum over the whole plane.
    residual : float
        ``norm2(K*S - T) / norm2(T)``.

    Returns
    -------
    weights : array, shape (n,)
    reached : array of bool, shape (n,)
        False where double precision does not reach the residual: the weight is then the least that it resolves.
    """
    low, high = (np.full(len(science), np.log(w * science.max())) for w in WEIGHTS)
    first, power = low[0], count * target
    goal = residual**2 * float(power.sum())
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        w = np.exp(middle)[:, None]
        over = (w / (science + w)) ** 2 @ power > goal
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return np.exp(low), low > first
