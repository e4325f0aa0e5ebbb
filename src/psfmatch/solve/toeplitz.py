"""Least squares for every pixel of a kernel at once: uncut normal equations, solved in two halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import as_strided
from scipy import fft

from psfmatch.geometry import FloatArray, once
from psfmatch.machine import one_blas_thread, processors
from psfmatch.solve.cholesky import factorise, substituted

__all__ = ["Factored", "PixelEquations", "changes", "correlations", "pixel_equations", "residuals", "solve_all"]

ROUNDING = 1e-14
"""What is odd by less, relative to the whole, is so by rounding."""

RESOLVED = float(np.finfo(float).eps)  # of a residual, squared


def solve_all(equations: Sequence[PixelEquations], strength: float, kernel_sums: Sequence[float | None]) -> FloatArray:
    """The kernels of several cells, shape (n, size, size): one thread a processor, each with a BLAS of one thread.

    Matrices of this size gain little from threads inside BLAS, and lose much where processors are shared.
    """
    threads = processors()
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        if len(equations) == 1:
            factored = equations[0].factored(strength)
            factored.prepare(equations[0].cross, pool)
            return factored.kernel(equations[0].cross, kernel_sums[0])[None]
        kernels = np.empty((len(equations), *equations[0].cross.shape))

        def solve(first: int) -> None:
            for k in range(first, len(equations), threads):
                kernels[k] = equations[k].solve(strength, kernel_sums[k])

        list(pool.map(solve, range(threads)))
        return kernels


def pixel_equations(science: FloatArray, target: FloatArray, size: int) -> list[PixelEquations]:
    """The equations for kernels of this size in several cells, given the pairs of stamps (n, s, s)."""
    auto, cross = correlations(science, target, size)
    power = (target**2).sum(axis=(1, 2))
    return [PixelEquations(a, c, float(p)) for a, c, p in zip(auto, cross, power, strict=True)]


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
    length = fft.next_fast_len(max(side, size) + size - 1, real=True)
    shape, workers = (length, length), processors()
    s, t = (fft.rfft2(stamps, shape, workers=workers) for stamps in (science, once(target)))
    lags = np.arange(-(size - 1), size)
    pixels = np.arange(-(size // 2), size // 2 + 1) + target.shape[1] // 2 - science.shape[1] // 2
    # The power spectrum is real, and A even: lags of y >= 0 say it all.
    rows = fft.ihfft(s.real**2 + s.imag**2, axis=1, workers=workers)[:, :size]
    half = fft.irfft(rows, length, workers=workers)[:, :, lags]
    rows = fft.ifft(np.conj(s) * t, axis=1, overwrite_x=True, workers=workers)[:, pixels]
    cross = fft.irfft(rows, length, workers=workers)[:, :, pixels]
    return np.concatenate([half[:, :0:-1, ::-1], half], axis=1), cross


def residuals(equations: Sequence[PixelEquations], kernels: FloatArray) -> FloatArray:
    """``norm2(K*S - T) / norm2(T)`` of the kernel (n, size, size) of each cell, as far as double precision tells."""
    power = np.array([e.power for e in equations])
    cross = np.array([(k * e.cross).sum() for e, k in zip(equations, kernels, strict=True)])
    square = power - 2.0 * cross + _matched_powers(equations, kernels)
    return np.asarray(np.sqrt(np.maximum(square / power, RESOLVED)))


def changes(equations: Sequence[PixelEquations], differences: FloatArray) -> FloatArray:
    """``norm2(D*S) / norm2(T)``: what a change D of the kernel of each cell does to the matched PSF."""
    powers = np.maximum(_matched_powers(equations, differences), 0.0)
    return np.asarray(np.sqrt(powers / np.array([e.power for e in equations])))


def _matched_powers(equations: Sequence[PixelEquations], kernels: FloatArray) -> FloatArray:
    """``norm2(K*S)^2``, the sum of ``A |K|^2`` over frequencies (Parseval)."""
    spectra = np.stack([e.spectrum for e in equations])
    side = spectra.shape[1]
    amplitudes = fft.rfft2(kernels, (side, side))
    powers = spectra * (amplitudes.real**2 + amplitudes.imag**2)
    # Of the frequencies along x, all but 0 (and the highest, of an even length) stand for two.
    single = powers[:, :, 0] + (powers[:, :, -1] if side % 2 == 0 else 0.0)
    return np.asarray((2.0 * powers.sum(axis=(1, 2)) - single.sum(axis=1)) / side**2)


class PixelEquations:
    """``(A[u - v] + strength <T, T> delta_uv) k = C[u]`` for the pixels of one kernel (Tikhonov 1963).

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
        self.auto, self.cross, self.power = np.ascontiguousarray(auto), cross, power
        self._kept: tuple[float, Factored] | None = None

    def cropped(self, size: int) -> PixelEquations:
        """The equations of a smaller kernel."""
        cut = self.size - size
        auto, cross = (slice(c, n - c) for c, n in ((cut, 2 * self.size - 1), (cut // 2, self.size)))
        return PixelEquations(self.auto[auto, auto], self.cross[cross, cross], self.power)

    def factored(self, strength: float) -> Factored:
        """The matrix in a form that solves for many right sides; the last one is kept."""
        if self._kept is None or self._kept[0] != strength:
            self._kept = strength, Factored(self.auto, strength * self.power)
        return self._kept[1]

    def solve(self, strength: float, kernel_sum: float | None = None) -> FloatArray:
        """The kernel (size, size), of a given sum where one is asked for (Lagrange multiplier)."""
        return Factored(self.auto, strength * self.power).kernel(self.cross, kernel_sum)

    def residual(self, kernel: FloatArray) -> float:
        """``norm2(K*S - T) / norm2(T)`` over the whole convolution of the stamps, as far as double precision tells."""
        return float(residuals([self], kernel[None])[0])

    def applied(self, kernels: FloatArray) -> FloatArray:
        """A k, by FFT, of kernels (..., size, size)."""
        shape = self.spectrum.shape[0], self.spectrum.shape[0]
        product = fft.irfft2(self.spectrum * fft.rfft2(kernels, shape), shape)
        return np.asarray(product[..., : self.size, : self.size])

    @cached_property
    def spectrum(self) -> FloatArray:
        """The transform of A wrapped around the first pixel, real because A is even."""
        side, lags = fft.next_fast_len(2 * self.size - 1, real=True), np.arange(1 - self.size, self.size)
        wrapped = np.zeros((side, side))
        wrapped[lags[:, None], lags] = self.auto
        return np.asarray(fft.rfft2(wrapped).real)


class Factored:
    """``A + ridge`` of one kernel's pixels, factored (Cholesky).

    A[u - v] does not change when the kernel is turned by 180 degrees, so the even and the odd part of the kernel
    are solved on their own, each half as large; and the odd part only where the right side has one.

    Parameters
    ----------
    auto : array, shape (2 size - 1, 2 size - 1)
        The autocorrelation A.
    ridge : float
        What is added to the diagonal; raised to what double precision can resolve.
    """

    def __init__(self, auto: FloatArray, ridge: float) -> None:
        self.auto, self.ridge = auto, ridge
        self._factors: dict[_Half, FloatArray] = {}

    def kernel(self, cross: FloatArray, kernel_sum: float | None = None) -> FloatArray:
        """The solution for one right side, of a given sum where one is asked for."""
        if kernel_sum is None:
            return np.asarray(self.solve(cross[None])[0])
        free, response = self.solve(np.stack([cross, np.ones_like(cross)]))
        return np.asarray(free + (kernel_sum - free.sum()) / response.sum() * response)

    def solve(self, right: FloatArray) -> FloatArray:
        """The solutions for right sides (n, size, size)."""
        flat = right.reshape(len(right), -1).T
        half, root = len(flat) // 2, np.sqrt(0.5)
        first, last = flat[:half], flat[::-1][:half]
        even = substituted(self._factor(_even_half), np.vstack([root * (first + last), flat[half]]))
        odd = substituted(self._factor(_odd_half), root * (first - last)) if _lopsided(right) else np.zeros_like(first)
        out = np.empty_like(flat)
        out[:half] = root * (even[:half] + odd)
        out[half] = even[half]
        out[half + 1 :] = (root * (even[:half] - odd))[::-1]
        return np.asarray(out.T.reshape(right.shape))

    def prepare(self, right: FloatArray, pool: Executor) -> None:
        """Factor both halves at once, where this right side (size, size) calls for both."""
        list(pool.map(self._factor, (_even_half, _odd_half) if _lopsided(right) else (_even_half,)))

    def _factor(self, half: _Half) -> FloatArray:
        """The factor of a half; no `cached_property`, which before Python 3.12 makes threads wait for each other."""
        if half not in self._factors:
            self._factors[half] = _factor(lambda: half(self.auto), self.ridge)
        return self._factors[half]


_Half = Callable[[FloatArray], FloatArray]


def _lopsided(images: FloatArray) -> bool:
    """Whether any image differs from itself turned by 180 degrees, by more than rounding."""
    return bool(np.abs(images - images[..., ::-1, ::-1]).max() > ROUNDING * np.abs(images).max())


def _even_half(auto: FloatArray) -> FloatArray:
    """The matrix of the kernel's even part, upper triangle: the pixels of the first half, then the middle one."""
    size = len(auto) // 2 + 1
    half, middle = size * size // 2, size // 2
    matrix = np.empty((half + 1, half + 1))
    _combine(auto, np.add, matrix)
    around = auto[middle : middle + size, middle : middle + size]
    matrix[:half, half] = np.sqrt(2.0) * around.ravel()[:half]
    matrix[half, half] = auto[size - 1, size - 1]
    return matrix


def _odd_half(auto: FloatArray) -> FloatArray:
    """The matrix of its odd part, upper triangle."""
    half = (len(auto) // 2 + 1) ** 2 // 2
    matrix = np.empty((half, half))
    _combine(auto, np.subtract, matrix)
    return matrix


def _combine(auto: FloatArray, operation: np.ufunc, out: FloatArray) -> None:
    """``A[u - v]`` combined with ``A[u + v]``, u and v the pixels of the first half: whole rows and a part of one.

    Both are views of A, one stepping backwards and one forwards, so that nothing is indexed.
    """
    size = len(auto) // 2 + 1
    rows, (step_y, step_x) = size // 2, auto.strides
    blocks = ((0, rows, size), (rows, 1, rows))  # first row, rows, columns
    for i, (y, ny, nx) in enumerate(blocks):
        for v, nv, nu in blocks[i:]:
            shape = (ny, nx, nv, nu)
            near = as_strided(auto[size - 1 + y - v :, size - 1 :], shape, (step_y, step_x, -step_y, -step_x))
            far = as_strided(auto[y + v :], shape, (step_y, step_x, step_y, step_x))
            part = out[y * size : y * size + ny * nx, v * size : v * size + nv * nu]
            operation(near, far, out=part.reshape(shape))


def _factor(assemble: Callable[[], FloatArray], ridge: float) -> FloatArray:
    """The Cholesky factor of a matrix given by its upper triangle, plus a ridge."""
    for _ in range(20):
        matrix = assemble()
        diagonal = np.einsum("ii->i", matrix)
        ridge = max(ridge, np.finfo(float).eps * float(diagonal.sum()))
        diagonal += ridge
        if factorise(matrix):
            return matrix
        ridge *= 10.0
    raise np.linalg.LinAlgError("the normal equations are not positive; the stamps hold no signal")
