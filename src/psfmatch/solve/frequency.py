"""What `Fourier` multiplies by, or divides by, at each spatial frequency: windows and penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy import fft

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray

__all__ = ["Penalty", "Shape", "Window", "penalty_power"]

Penalty = Literal["none", "laplacian", "biharmonic"]
Shape = Literal["none", "hann", "tukey", "cosine-bell", "top-hat"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A taper over spatial frequency, by which the quotient is multiplied; 1 at frequency zero.

    With ``u`` the distance from zero frequency over ``cutoff``, it is 0 for ``u > 1`` and otherwise

    * ``hann``: a raised cosine from 0 to 1;
    * ``tukey``: 1, then a raised cosine over the outer part ``taper``;
    * ``cosine-bell``: a raised cosine from 0 to ``taper``, then 0;
    * ``top-hat``: 1.

    Parameters
    ----------
    shape : {"none", "hann", "tukey", "cosine-bell", "top-hat"}
        ``none``: no taper.
    cutoff : float
        Cycles a pixel; 0.5 is the Nyquist frequency along the axes.
    taper : float
        Part of the radius, in (0, 1].
    """

    shape: Shape = "none"
    cutoff: float = 0.5
    taper: float = 0.5

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise InputError(f"Window shape={self.shape!r}: choose one of {', '.join(get_args(Shape))}")
        if not (0 < self.cutoff <= 1 and 0 < self.taper <= 1):
            raise InputError(f"{self}: cutoff and taper must lie in (0, 1]")

    def at(self, frequency: FloatArray) -> FloatArray:
        """The window at these distances from zero frequency, in cycles a pixel."""
        if self.shape == "none":
            return np.ones_like(frequency)
        inner, outer = {
            "hann": (0.0, 1.0),
            "tukey": (1.0 - self.taper, 1.0),
            "cosine-bell": (0.0, self.taper),
            "top-hat": (1.0, 1.0),
        }[self.shape]
        u = frequency / self.cutoff
        if inner == outer:
            return (u <= outer).astype(float)
        return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((u - inner) / (outer - inner), 0.0, 1.0)))


def penalty_power(penalty: Any, fy: FloatArray, fx: FloatArray, side: int) -> FloatArray:
    """The power spectrum of a penalty, by name or given as an operator, at frequencies in cycles a pixel."""
    if penalty == "none":
        return np.ones((fy.size, fx.size))
    if isinstance(penalty, str):
        laplacian = 4.0 - 2.0 * np.cos(2.0 * np.pi * fy) - 2.0 * np.cos(2.0 * np.pi * fx)
        return np.asarray(laplacian ** (2 if penalty == "laplacian" else 4))
    operator = np.asarray(penalty, float)
    if max(operator.shape) > side:
        raise InputError(f"Fourier penalty of shape {operator.shape}: larger than the {side} px of the padded stamps")
    return np.asarray(np.abs(fft.rfft2(operator, (side, side))) ** 2)
