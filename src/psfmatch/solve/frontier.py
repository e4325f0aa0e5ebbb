"""The frontier: the least residual that a kernel of a given size reaches at a given noise gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray
from psfmatch.machine import one_blas_thread
from psfmatch.solve.toeplitz import RESOLVED, PixelEquations, pixel_equations
from psfmatch.solve.trade import STRENGTHS

__all__ = ["Frontier", "least_residual"]

NEAR = 0.02
"""The change of ln(residual) up to which the slope at one point of the frontier is followed."""
DIMENSION = 6
WEAKEST, STRONGEST = 1e-10, 10.0


@dataclass(frozen=True, eq=False)
class Frontier:
    """What kernels of some sizes reach for one pair of PSFs, from smooth to sharp.

    Every kernel in it has the least residual of all kernels of its size and noise gain.

    Parameters
    ----------
    sizes : array of integers, shape (n,)
        Rows and columns of the kernels.
    strengths : array, shape (m,)
        Tikhonov weights in units of ``sum T^2``.
    residual, noise_gain : array, shape (n, m)
        ``norm2(K*S - T) / norm2(T)`` and ``sum K^2``.
    kernels : tuple of arrays, n of shape (m, size, size)
        The kernels, for every size those of all strengths.
    """

    sizes: FloatArray
    strengths: FloatArray
    residual: FloatArray
    noise_gain: FloatArray
    kernels: tuple[FloatArray, ...]

    @classmethod
    def of(
        cls, science: FloatArray, target: FloatArray, *, sizes: Sequence[int], strengths: Sequence[float] = STRENGTHS
    ) -> Frontier:
        """Solve for kernels of all sizes and strengths.

        Parameters
        ----------
        science, target : array, shape (s, s)
            The pair of stamps, of odd size.
        sizes : sequence of int
            Odd.
        strengths : sequence of float
            Tikhonov weights in units of ``sum T^2``, from smooth to sharp.

        Returns
        -------
        Frontier
            With ``len(sizes)`` rows and ``len(strengths)`` columns.

        Raises
        ------
        InputError
            If a size is even or not positive.
        """
        wrong = [size for size in sizes if size < 1 or size % 2 == 0]
        if wrong or not len(sizes):
            raise InputError(f"kernel sizes {list(sizes)}: give at least one, and only odd ones")
        (largest,) = pixel_equations(science[None], target[None], max(sizes))
        kernels, residual = [], np.empty((len(sizes), len(strengths)))
        with one_blas_thread():
            for k, size in enumerate(sizes):
                equations = largest.cropped(size)
                kernels.append(np.stack([equations.solve(strength) for strength in strengths]))
                residual[k] = [equations.residual(kernel) for kernel in kernels[-1]]
        gain = np.stack([(some**2).sum(axis=(1, 2)) for some in kernels])
        return cls(np.asarray(sizes), np.asarray(strengths, float), residual, gain, tuple(kernels))


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
