"""The frontier: the least residual that a kernel of a given size reaches at a given noise gain."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from psfmatch.geometry import FloatArray
from psfmatch.solve.toeplitz import RESOLVED, PixelEquations

__all__ = ["least_residual"]

NEAR = 0.02
"""The change of ln(residual) up to which the slope at one point of the frontier is followed."""
DIMENSION = 6
WEAKEST, STRONGEST = 1e-10, 10.0


def least_residual(
    equations: PixelEquations, kernel: FloatArray, strength: float, noise_gain: float, kernel_sum: float | None = None
) -> float:
    """The least residual of any kernel of this size (and sum) whose noise gain is at most a given one.

    Tikhonov's kernels are the frontier, and each minimises ``r^2 + strength g``, so that ``2 r dr = -strength dg``:
    near one of them its slope is enough.  Where the frontier is steep, it is followed among the combinations of
    this kernel and the first derivatives of all of them by the strength, ``(A + ridge)^-j k`` (a rational Krylov
    space: Ruhe 1984, Linear Algebra Appl. 58, 391), which a kernel leaves only far from here.

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
    gain = float((kernel**2).sum())
    residual = equations.residual(kernel)
    change = -0.5 * strength * gain / residual**2 * np.log(noise_gain / gain)
    if abs(change) <= NEAR:
        return float(residual * np.exp(change))
    return _Reduced(equations, kernel, strength, kernel_sum).least_residual(noise_gain)


class _Reduced:
    """The equations for combinations of a few orthonormal images."""

    def __init__(
        self, equations: PixelEquations, kernel: FloatArray, strength: float, kernel_sum: float | None
    ) -> None:
        factored = equations.factored(strength)
        images = [kernel] if kernel_sum is None else [kernel, factored.solve(np.ones_like(kernel)[None])[0]]
        while len(images) < DIMENSION:
            following = factored.solve(images[-1][None])[0]
            images.append(following / np.linalg.norm(following))
        rows = np.linalg.qr(np.reshape(images, (len(images), -1)).T)[0].T
        applied = equations.applied(rows.reshape(-1, *kernel.shape)).reshape(rows.shape)
        self.matrix, self.right = rows @ applied.T, rows @ equations.cross.ravel()
        self.ones, self.sum, self.power = rows.sum(axis=1), kernel_sum, equations.power

    def least_residual(self, noise_gain: float) -> float:
        def excess(log_strength: float) -> float:
            return float(np.log((self._kernel(log_strength) ** 2).sum() / noise_gain))

        least, most = np.log(WEAKEST), np.log(STRONGEST)
        best = least if excess(least) <= 0.0 else most
        if excess(least) > 0.0 > excess(most):
            best = brentq(excess, least, most, xtol=1e-3)
        k = self._kernel(best)
        square = self.power - 2.0 * float(k @ self.right) + float(k @ self.matrix @ k)
        return float(np.sqrt(max(square / self.power, RESOLVED)))

    def _kernel(self, log_strength: float) -> FloatArray:
        regular = self.matrix + np.exp(log_strength) * self.power * np.eye(len(self.right))
        free, response = np.linalg.solve(regular, np.stack([self.right, self.ones], axis=1)).T
        if self.sum is None:
            return np.asarray(free)
        return np.asarray(free + (self.sum - self.ones @ free) / (self.ones @ response) * response)
