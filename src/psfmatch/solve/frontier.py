"""The frontier: the least residual that a kernel of a given size reaches at a given noise gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from psfmatch.geometry import FloatArray
from psfmatch.solve.toeplitz import PixelEquations

__all__ = ["least_residual"]

NEAR = 0.1
"""The change of ln(residual) up to which the slope at one point of the frontier is followed."""
WEAKEST, STRONGEST = 1e-10, 1.0
STEP = 10.0


@dataclass(frozen=True)
class _Point:
    """A Tikhonov kernel: strength, logarithms of noise gain and residual."""

    strength: float
    gain: float
    residual: float

    @classmethod
    def of(cls, equations: PixelEquations, strength: float, kernel: FloatArray) -> _Point:
        residual = max(equations.residual(kernel), np.finfo(float).tiny)
        return cls(strength, float(np.log((kernel**2).sum())), float(np.log(residual)))

    @property
    def slope(self) -> float:
        """``d ln r / d ln g``; the kernel minimises ``r^2 + strength g``, so that ``2 r dr = -strength dg``."""
        return -0.5 * self.strength * float(np.exp(self.gain - 2.0 * self.residual))


def least_residual(
    equations: PixelEquations, kernel: FloatArray, strength: float, noise_gain: float, kernel_sum: float | None = None
) -> float:
    """The least residual of any kernel of this size (and sum) whose noise gain is at most a given one.

    Tikhonov's kernels are the frontier.  It is followed in logarithms from one of them, along its slope, which is
    known there exactly; where it is steep, further ones are solved for until the noise gain lies between two.

    Parameters
    ----------
    equations : PixelEquations
        Of the pair of stamps.
    kernel : array, shape (size, size)
        Their solution at ``strength``.
    strength : float
        Tikhonov weight in units of ``sum T^2``.
    noise_gain : float
        ``sum K^2``.
    kernel_sum : float, optional
        The sum that the kernels have, where it is imposed.

    Returns
    -------
    float
        ``norm2(K*S - T) / norm2(T)``.
    """
    wanted = float(np.log(noise_gain))
    last = _Point.of(equations, strength, kernel)
    step = 1.0 / STEP if wanted > last.gain else STEP
    while abs(last.slope * (wanted - last.gain)) > NEAR and WEAKEST <= step * last.strength <= STRONGEST:
        following = step * last.strength
        point = _Point.of(equations, following, equations.solve(following, kernel_sum))
        if (point.gain - wanted) * (last.gain - wanted) <= 0.0 and point.gain != last.gain:
            low, high = sorted((last, point), key=lambda p: p.gain)
            curve = CubicHermiteSpline([low.gain, high.gain], [low.residual, high.residual], [low.slope, high.slope])
            return float(np.exp(curve(wanted)))
        last = point
    return float(np.exp(last.residual + np.clip(last.slope * (wanted - last.gain), -NEAR, NEAR)))
