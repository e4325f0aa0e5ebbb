"""Normal equations of the least-squares kernel, for all cells at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from psfmatch.geometry import FloatArray, once
from psfmatch.machine import one_blas_thread, processors

__all__ = ["NormalEquations", "designs", "normal_equations"]

CHUNK = 1 << 21
"""Numbers in an array that comes and goes."""
ROUND = 8
"""Chunks of cells at a time."""


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
    wanted = np.pad(once(target), ((0, 0), (margin, margin), (margin, margin)))
    n, m = len(science), len(basis)
    matrix, vector = np.empty((n, m, m)), np.empty((n, m))
    first, second = np.triu_indices(m)

    def fill_vector(cells: slice) -> FloatArray:
        """The vectors of some cells, and, returned, the power spectra of their stamps."""
        s = fft.rfft2(science[cells], shape).reshape(-1, weight.size)
        t = fft.rfft2(wanted[cells] if len(wanted) == n else wanted, shape).reshape(-1, weight.size)
        cross = np.conj(s) * t * weight.ravel()
        vector[cells] = cross.real @ b.real.T + cross.imag @ b.imag.T
        return np.asarray((s.real**2 + s.imag**2) * weight.ravel())

    chunks = list(_chunks(n, CHUNK // (4 * size**2)))
    with one_blas_thread(), ThreadPoolExecutor(processors()) as pool:
        for some in (chunks[k : k + ROUND] for k in range(0, len(chunks), ROUND)):
            spectra = list(pool.map(fill_vector, some))
            for pairs in _chunks(len(first), CHUNK // (8 * weight.size)):
                i, j = first[pairs], second[pairs]
                products = (b[i].real * b[j].real + b[i].imag * b[j].imag).T
                for cells, values in zip(some, pool.map(products.__rmatmul__, spectra), strict=True):
                    matrix[cells, i, j] = matrix[cells, j, i] = values
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
    """All of them, in equal parts of about so many."""
    parts = min(count, max(1, round(count / max(1, step))))
    for k in range(parts):
        yield slice(k * count // parts, (k + 1) * count // parts)
