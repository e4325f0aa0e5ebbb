"""Normal equations of the least-squares kernel, for all cells at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from psfmatch.geometry import FloatArray
from psfmatch.machine import one_blas_thread, processors

__all__ = ["NormalEquations", "designs", "normal_equations"]

CHUNK = 1 << 21
"""Numbers in an array that comes and goes."""


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """``M a = b`` for every cell: minimise ``norm2(sum_i a_i B_i*S - T)``.

    Parameters
    ----------
    matrix : array, shape (n_cells, m, m)
        ``M_ij = <B_i*S, B_j*S>``.
    vector : array, shape (n_cells, m)
        ``b_i = <B_i*S, T>``.
    power : array, shape (n_cells,)
        ``<T, T>``.
    pixels : int
        Pixels in every scalar product.
    """

    matrix: FloatArray
    vector: FloatArray
    power: FloatArray
    pixels: int

    def chosen(self, cells: NDArray[Any], basis: NDArray[Any] | slice = slice(None)) -> NormalEquations:
        """Some of the cells, and of the basis images."""
        matrix = self.matrix[cells][:, basis][:, :, basis]
        return NormalEquations(matrix, self.vector[cells][:, basis], self.power[cells], self.pixels)


def normal_equations(
    science: FloatArray, target: FloatArray, basis: FloatArray, *, full: bool, background: bool = False
) -> NormalEquations:
    """Normal equations of every cell.

    Parameters
    ----------
    science, target : array, shape (n, s, s)
        Pairs of stamps.
    basis : array, shape (m, k, k)
        Kernel images.
    full : bool
        Compare over the whole linear convolution, the stamps being zero beyond their border, so that nothing is
        lost; else only over the (s - k + 1)^2 pixels whose footprint lies inside the stamp.
    background : bool
        Add a constant image as the last unknown (not with ``full``).
    """
    return _parseval(science, target, basis) if full else _inside(science, target, basis, background)


def _parseval(science: FloatArray, target: FloatArray, basis: FloatArray) -> NormalEquations:
    """Scalar products of whole convolutions, taken over frequencies (Parseval): one matrix product for all cells.

    ``<B_i*S, B_j*S> = sum_f conj(B_i) B_j |S|^2`` is linear in the power spectrum of S.
    """
    size = fft.next_fast_len(science.shape[1] + basis.shape[1] - 1, real=True)
    shape = (size, size)
    b = fft.rfft2(basis, shape).reshape(len(basis), -1)
    weight = np.full((size, size // 2 + 1), 2.0 / size**2)
    weight[:, 0] /= 2.0
    if size % 2 == 0:
        weight[:, -1] /= 2.0
    margin = basis.shape[1] // 2
    n, m = len(science), len(basis)
    matrix, vector = np.empty((n, m, m)), np.empty((n, m))

    def fill(cells: slice) -> None:
        s = fft.rfft2(science[cells], shape).reshape(-1, weight.size)
        t = fft.rfft2(np.pad(target[cells], ((0, 0), (margin, margin), (margin, margin))), shape).reshape(s.shape)
        spectrum = (s.real**2 + s.imag**2) * weight.ravel()
        for i in range(m):
            products = (b[i:].real * b[i].real + b[i:].imag * b[i].imag).T
            matrix[cells, i, i:] = matrix[cells, i:, i] = spectrum @ products
        cross = np.conj(s) * t * weight.ravel()
        vector[cells] = cross.real @ b.real.T + cross.imag @ b.imag.T

    with one_blas_thread(), ThreadPoolExecutor(processors()) as pool:
        list(pool.map(fill, _chunks(n, CHUNK // (4 * size**2))))
    pixels = (science.shape[1] + basis.shape[1] - 1) ** 2
    return NormalEquations(matrix, vector, (target**2).sum(axis=(1, 2)), pixels)


def _inside(science: FloatArray, target: FloatArray, basis: FloatArray, background: bool) -> NormalEquations:
    margin = basis.shape[1] // 2
    inner = slice(margin, science.shape[1] - margin)
    parts: list[list[FloatArray]] = [[], [], []]
    for chunk, design in designs(science, basis):
        d = design.reshape(*design.shape[:2], -1)
        if background:
            d = np.concatenate([d, np.ones_like(d[:, :1])], axis=1)
        t = target[chunk, inner, inner].reshape(d.shape[0], -1)
        parts[0].append(d @ d.transpose(0, 2, 1))
        parts[1].append(np.matmul(d, t[:, :, None])[:, :, 0])
        parts[2].append((t**2).sum(axis=1))
    matrix, vector, power = (np.concatenate(p) for p in parts)
    return NormalEquations(matrix, vector, power, (inner.stop - inner.start) ** 2)


def designs(science: FloatArray, basis: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """``B_i*S`` where the footprint lies inside the stamp, for chunks of cells: (chunk, (n, m, v, v)).

    Matrix products: for stamps and kernels of this size they are faster than FFTs, and exact to the last digit of
    every pixel rather than of the brightest one, which ill-conditioned equations need.
    """
    m, k = basis.shape[:2]
    inside = science.shape[1] - k + 1
    mirrored = basis[:, ::-1, ::-1].reshape(m, k * k)
    for chunk in _chunks(len(science), CHUNK // (inside * k) ** 2):
        windows = np.lib.stride_tricks.sliding_window_view(science[chunk], (k, k), axis=(1, 2))
        footprints = windows.reshape(-1, inside * inside, k * k)
        yield chunk, (mirrored @ footprints.swapaxes(1, 2)).reshape(-1, m, inside, inside)


def _chunks(count: int, step: int) -> Iterator[slice]:
    """The cells, about so many at a time."""
    for start in range(0, count, max(1, step)):
        yield slice(start, min(start + max(1, step), count))
