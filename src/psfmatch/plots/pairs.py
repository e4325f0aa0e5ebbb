"""One candidate of a match: its two stamps, its kernel, and what the kernel makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import fftconvolve

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray, resized
from psfmatch.match import Matched

__all__ = ["Pair", "enclosed", "hardest", "pair"]


@dataclass(frozen=True, eq=False)
class Pair:
    """What belongs to one candidate, on stamps (s, s) large enough that nothing is cut; fluxes of a point source of 1.

    Parameters
    ----------
    number : int
        Of the candidate, from 0.
    x, y : float
        Where it is.
    science, target, matched : array, shape (s, s)
        S, T times the sum that was asked for, and K*S.
    kernel : array, shape (k, k)
        K.
    """

    number: int
    x: float
    y: float
    science: FloatArray
    target: FloatArray
    matched: FloatArray
    kernel: FloatArray

    @property
    def difference(self) -> FloatArray:
        """K*S - T."""
        return self.matched - self.target

    @property
    def residual(self) -> float:
        """``norm2(K*S - T) / norm2(T)``."""
        return float(np.linalg.norm(self.difference) / np.linalg.norm(self.target))

    @property
    def noise_gain(self) -> float:
        """``sum K^2``."""
        return float((self.kernel**2).sum())

    def cut(self, half: int) -> Pair:
        """The same, with stamps that reach so far from the centre, where they are larger."""
        size = min(2 * half + 1, *self.science.shape)
        science, target, matched = (resized(s, (size, size)) for s in (self.science, self.target, self.matched))
        return replace(self, science=science, target=target, matched=matched)


def pair(matched: Matched, number: int) -> Pair:
    """One candidate of a match.

    Raises
    ------
    InputError
        If there is no candidate of this number.
    """
    cells = matched.solution.cells
    if not 0 <= number < len(cells):
        raise InputError(f"there is no candidate {number}; this match has {len(cells)}, from 0 to {len(cells) - 1}")
    x, y = float(cells.x[number]), float(cells.y[number])
    kernel = matched.kernel.stamps(x=x, y=y)[0]
    side = cells.stamp_shape[0] + 2 * (max(kernel.shape) // 2)
    science, target = (resized(stamps[number], (side, side)) for stamps in (cells.science, cells.target))
    wanted = float(matched.solution.statistics.get("asked_sum", 1.0)) * target
    return Pair(number, x, y, science, wanted, fftconvolve(science, kernel, mode="same"), kernel)


def hardest(matched: Matched, most: int = 49) -> Pair:
    """The candidate with the largest residual, among at most so many spread over the field."""
    count = len(matched.solution.cells)
    some = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    return max((pair(matched, int(k)) for k in some), key=lambda one: one.residual)


def enclosed(stamp: FloatArray, apertures: Sequence[FloatArray]) -> FloatArray:
    """The flux within apertures (`psfmatch.noise.aperture_stamps`) about the origin of a stamp."""
    out = []
    for weight in apertures:
        shape = tuple(min(w, s) for w, s in zip(weight.shape, stamp.shape, strict=True))
        out.append(float((resized(weight, shape) * resized(stamp, shape)).sum()))
    return np.array(out)
