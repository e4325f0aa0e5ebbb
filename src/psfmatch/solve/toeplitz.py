"""Least squares for every pixel of a kernel at once: uncut normal equations, solved in two halves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController

from psfmatch.geometry import FloatArray, processors

__all__ = ["PixelEquations", "correlations", "one_blas_thread", "solve_all"]


def one_blas_thread() -> AbstractContextManager[object]:
    """A context in which BLAS uses one thread."""
    return _blas().limit(limits=1, user_api="blas")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def solve_all(equations: Sequence[PixelEquations], strength: float, kernel_sums: Sequence[float | None]) -> FloatArray:
    """The kernels of several cells, shape (n, size, size): one thread a processor, each with a BLAS of one thread.

    Matrices of this size gain little from threads inside BLAS, and lose much where processors are shared.
    """
    with one_blas_thread(), ThreadPoolExecutor(min(len(equations), processors())) as pool:
        return np.array(list(pool.map(lambda e, s: e.solve(strength, s), equations, kernel_sums)))


def correlations(science: FloatArray, target: FloatArray, size: int) -> tuple[FloatArray, FloatArray]:
    """Autocorrelation A of the science stamps and their cross-correlation C with the target stamps.

    The stamps count as zero beyond their border, so that no pixel is lost.  ``A(d) = sum_x S(x) S(x + d)`` for
    lags up to ``size - 1``, ``C(u) = sum_x S(x) T(x + u)`` for the pixels u of a kernel of this (odd) size.

    Parameters
    ----------
    science, target : array, shape (n, s, s)
        Pairs of stamps of odd size (the targets may be larger).

    Returns
    -------
    array, shape (n, 2 size - 1, 2 size - 1)
        A, the zero lag in the middle.
    array, shape (n, size, size)
        C.
    """
    side = max(science.shape[1], target.shape[1])
    length = fft.next_fast_len(max(side + size - 1, 2 * size - 1), real=True)
    shape = (length, length)
    s, t = (_centred_transform(a, shape) for a in (science, target))
    auto = fft.irfft2(s.real**2 + s.imag**2, shape)
    cross = fft.irfft2(np.conj(s) * t, shape)
    lags = np.arange(-(size - 1), size)
    pixels = np.arange(-(size // 2), size // 2 + 1)
    return auto[:, lags[:, None], lags], cross[:, pixels[:, None], pixels]


def _centred_transform(stamps: FloatArray, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """The transform of stamps whose central pixel is the origin."""
    half = stamps.shape[1] // 2
    padded = np.zeros((len(stamps), *shape))
    padded[:, : stamps.shape[1], : stamps.shape[2]] = stamps
    return fft.rfft2(np.roll(padded, (-half, -half), axis=(1, 2)))


@lru_cache(maxsize=16)
def _lags(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Where in the flattened autocorrelation the two halves of the Toeplitz matrix stand."""
    row, column = np.divmod(np.arange(size * size), size)
    half = size * size // 2
    width = 2 * size - 1

    def lag(i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.intp]:
        y = row[i][:, None] - row[j][None, :] + size - 1
        return y * width + column[i][:, None] - column[j][None, :] + size - 1

    first = np.arange(half)
    last = size * size - 1 - first
    return lag(first, first), lag(first, last), lag(first, np.array([half]))[:, 0]


class PixelEquations:
    """``(A[u - v] + strength <T, T> delta_uv) k = C[u]`` for the pixels of one kernel (Tikhonov 1963).

    A[u - v] does not change when the kernel is turned by 180 degrees, so the even and the odd part of the kernel
    are solved on their own, each half as large.

    Parameters
    ----------
    auto : array, shape (2 size - 1, 2 size - 1)
        Autocorrelation of the science stamp.
    cross : array, shape (size, size)
        Its cross-correlation with the target stamp.
    power : float
        ``<T, T>`` of the target stamp.
    """

    def __init__(self, auto: FloatArray, cross: FloatArray, power: float) -> None:
        self.size = cross.shape[0]
        self.auto, self.cross, self.power = auto, cross, power

    def _halves(self) -> tuple[FloatArray, FloatArray]:
        """The matrices of the even and of the odd part."""
        same, turned, middle = _lags(self.size)
        flat = self.auto.ravel()
        near, far = flat[same], flat[turned]
        half = len(near)
        even = np.empty((half + 1, half + 1))
        even[:half, :half] = near + far
        even[:half, half] = even[half, :half] = np.sqrt(2.0) * flat[middle]
        even[half, half] = flat[flat.size // 2]
        return even, near - far

    def solve(self, strength: float, kernel_sum: float | None = None) -> FloatArray:
        """The kernel (size, size), of a given sum where one is asked for (Lagrange multiplier)."""
        right = self.cross[None] if kernel_sum is None else np.stack([self.cross, np.ones_like(self.cross)])
        kernels = self._solve(strength, right)
        if kernel_sum is None:
            return kernels[0]
        free, response = kernels
        return free + (kernel_sum - free.sum()) / response.sum() * response

    def _solve(self, strength: float, right: FloatArray) -> FloatArray:
        n = right.shape[0]
        flat = right.reshape(n, -1).T
        even_matrix, odd_matrix = self._halves()
        half = len(odd_matrix)
        first, last = flat[:half], flat[::-1][:half]
        root = np.sqrt(0.5)
        even = _positive_solve(even_matrix, strength * self.power, np.vstack([root * (first + last), flat[half]]))
        odd = _positive_solve(odd_matrix, strength * self.power, root * (first - last))
        out = np.empty_like(flat)
        out[:half] = root * (even[:half] + odd)
        out[half] = even[half]
        out[half + 1 :] = (root * (even[:half] - odd))[::-1]
        return out.T.reshape(right.shape)

    def residual(self, kernel: FloatArray) -> float:
        """``norm2(K*S - T) / norm2(T)`` over the whole convolution of the stamps."""
        matched = float((kernel * self._applied(kernel)).sum())
        square = self.power - 2.0 * float((kernel * self.cross).sum()) + matched
        return float(np.sqrt(max(square, 0.0) / self.power))

    def change(self, difference: FloatArray) -> float:
        """``norm2(D*S) / norm2(T)``: what a change D of the kernel does to the matched PSF."""
        return float(np.sqrt(max(float((difference * self._applied(difference)).sum()), 0.0) / self.power))

    def _applied(self, kernel: FloatArray) -> FloatArray:
        """A k, by FFT."""
        length = fft.next_fast_len(3 * self.size - 2, real=True)
        shape = (length, length)
        product = fft.irfft2(fft.rfft2(self.auto, shape) * fft.rfft2(kernel, shape), shape)
        start = self.size - 1
        return product[start : start + self.size, start : start + self.size]


def _positive_solve(matrix: FloatArray, ridge: float, right: FloatArray) -> FloatArray:
    """Solve ``(M + ridge) x = b`` by Cholesky; the ridge is raised to what double precision can resolve."""
    floor = np.finfo(float).eps * len(matrix) * float(np.trace(matrix)) / len(matrix)
    ridge = max(ridge, floor)
    for _ in range(20):
        regular = np.array(matrix, order="F")
        regular.flat[:: len(matrix) + 1] += ridge
        factor, failed = lapack.dpotrf(regular, lower=1, overwrite_a=1, clean=0)
        if not failed:
            return np.asarray(lapack.dpotrs(factor, right, lower=1)[0])
        ridge *= 10.0
    raise np.linalg.LinAlgError("the normal equations are not positive; the stamps hold no signal")
