"""Kernels whose weights are polynomials of the position; see `psfmatch.convolve.local`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import scaled, sum_of_products
from psfmatch.convolve.blocks import Axis, Batch, Blocks
from psfmatch.convolve.local import SHARE, LocalKernel, Terms, added, negligible
from psfmatch.fields import Field, term_degrees
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["PolynomialKernel"]

KEPT = 3
MOST_OWN, OWN_SHARE = 15, 2 / 3
"""A field's own terms, if they are no more, are used in blocks that need this share of them."""


class PolynomialKernel(LocalKernel):
    """A kernel whose weights are polynomials."""

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        super().__init__(kernel, blocks, tolerance, xp, dtype, device)
        images, box = _from_input_column(self.kernel), kernel.box
        moved = MatchingKernel(images, Field(np.eye(len(images)), box)).compressed(SHARE * tolerance)
        self.basis, self.table = moved.basis, moved.weights.table
        field = moved.weights
        at_x, at_y = field.terms_along(x=_nodes(blocks.x.read, field), y=_nodes(blocks.y.positions, field))
        self.columns, self.rows = _axis_terms(blocks.x.side, at_x), _axis_terms(blocks.y.step, at_y)
        self._known: dict[int, _Row] = {}
        self.own: _OwnTerms | None = None
        if len(images) <= MOST_OWN and self._row(blocks.y.count // 2).counts.max() >= OWN_SHARE * len(images):
            self.own = _OwnTerms(
                [(j, i) for i, j in term_degrees(kernel.weights.order)],
                images,
                self._forward(self._array(images)),
                *field.terms_along(x=blocks.x.read, y=blocks.y.positions),
            )

    def _summed(self, cut: Any, terms: Terms, precise: NDArray[np.bool_]) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        spectra: dict[int, Any] = {}
        products: dict[int, Any] = {}
        for level in self._levels(terms, precise):
            spectra = self._spectra(cut, terms.p, {m for _, m in level.pairs}, level.dtype, spectra)
            terms_of: dict[int, list[tuple[Any, Any]]] = {}
            for (j, m), image in zip(level.pairs, level.images, strict=True):
                terms_of.setdefault(j, []).append((spectra[m], image))
            products |= {j: added(products.get(j), sum_of_products(self.xp, pairs)) for j, pairs in terms_of.items()}
        total = None
        for j, product in products.items():  # those in double precision first: they take in the others
            # What wraps falls into the kernel's margin, which is cut off.
            strip = fft.ifft(product, axis=1)[:, y.kernel - 1 :, :]
            if j:
                strip = scaled(self.xp, strip, self._array(terms.q[:, j, ...], strip.real.dtype))
            total = added(total, strip)
        return fft.irfft(total, n=x.side, axis=2)[:, :, x.kernel - 1 :]

    def _images(self, terms: Terms, chosen: NDArray[np.bool_], dtype: Any) -> list[Any]:
        if self.own is None or terms.pairs is not self.own.pairs:
            return super()._images(terms, chosen, dtype)
        images = self.own.spectra if dtype == self.dtype else self._own_fine
        return [images[None, k, ...] for k in np.flatnonzero(chosen).tolist()]

    @cached_property
    def _own_fine(self) -> Any:
        """The transforms of the field's own terms in double precision."""
        assert self.own is not None
        return self._forward(self._array(self.own.images, self.xp.float64))

    def _terms(self, batch: Batch) -> Terms:
        tables = [self._row(row) for row, _ in batch]
        needed = np.any([table.needed[column] for table, (_, column) in zip(tables, batch, strict=True)], axis=0)
        if self.own is not None and np.count_nonzero(needed) >= OWN_SHARE * len(self.own.pairs):
            return self.own.terms(batch)
        j, m = np.nonzero(needed)
        pairs = list(zip(j.tolist(), m.tolist(), strict=True))
        rows = [table.table[column][:, j, m].T for table, (_, column) in zip(tables, batch, strict=True)]
        weights = np.stack(rows)
        q, p = self.rows.values[None, :, :, None], self.columns.values[None, :, None, :]
        return Terms(pairs, weights, np.abs(weights) @ self._heights, q, p)

    def _row(self, row: int) -> _Row:
        """The expansions in all blocks of a row; those of the last few rows are kept."""
        found = self._known.get(row)
        if found is None:
            table = (self.rows.matrices[row] @ self.table)[None] @ self.columns.matrices.swapaxes(1, 2)[:, None]
            sizes = np.sqrt((table**2).sum(axis=1))
            flat = sizes.reshape(len(table), -1)
            needed = ~negligible(flat, self.tolerance * self._least_norms(row)[:, None])
            found = _Row(table, needed.reshape(sizes.shape))
            self._known = {**{k: v for k, v in self._known.items() if abs(k - row) < KEPT}, row: found}
        return found

    def _least_norms(self, row: int) -> FloatArray:
        """The least 2-norm of the kernel at nine pixels of the output in each block of a row, in the frame."""
        x, y = (_first_middle_last(axis) for axis in (self.blocks.x, self.blocks.y))
        weights = self.kernel.weights.on_grid(x=x.ravel(), y=y[row])
        norms = np.sqrt((weights**2).sum(axis=0)).reshape(3, len(x), 3)
        return np.asarray(norms.min(axis=(0, 2)))


def _first_middle_last(axis: Axis) -> FloatArray:
    """Coordinates in the parent frame of pixels that each block puts: shape (count, 3)."""
    spans = np.array([axis.span(k) for k in range(axis.count)], float)
    return np.asarray(axis.origin + spans @ np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]) - [0.0, 0.5, 1.0])


class _Row(NamedTuple):
    """The coefficients of the terms in each block of a row (n, r, j, m), and which are needed."""

    table: FloatArray
    needed: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.intp]:
        """How many each block needs."""
        return np.asarray(np.count_nonzero(self.needed, axis=(1, 2)))


@dataclass(frozen=True, eq=False)
class _OwnTerms:
    """The terms of the whole field, which are the same in every block: where most are needed, nothing is mixed.

    Parameters
    ----------
    pairs : list of (j, m)
    images, spectra : array
        The terms' images, and their transforms in the planes' precision.
    columns, rows : array, shape (count, m, n)
        The field's polynomials over the columns that each column of blocks reads, and the rows that each row puts.
    """

    pairs: list[tuple[int, int]]
    images: FloatArray
    spectra: Any
    columns: FloatArray
    rows: FloatArray

    @cached_property
    def heights(self) -> FloatArray:
        """The largest Fourier amplitude of each image."""
        return np.array([float(abs(image).max()) for image in self.spectra])

    def terms(self, batch: Batch) -> Terms:
        """These terms in some blocks."""
        q, p = self.rows[[row for row, _ in batch]], self.columns[[column for _, column in batch]]
        j, m = np.array(self.pairs).T
        heights = self.heights * np.abs(q).max(axis=2)[:, j] * np.abs(p).max(axis=2)[:, m]
        return Terms(self.pairs, np.zeros((len(batch), len(j), 0)), heights, q[:, :, :, None], p[:, :, None, :])


class _AxisTerms(NamedTuple):
    """The Chebyshev polynomials along one axis of the blocks.

    Parameters
    ----------
    matrices : array, shape (count, m, m)
        From coefficients of the field's polynomials to those of each block's.
    values : array, shape (m, n)
        A block's polynomials at its pixels.
    """

    matrices: FloatArray
    values: FloatArray


def _axis_terms(pixels: int, at_nodes: FloatArray) -> _AxisTerms:
    """For blocks of so many pixels along an axis, and the field's polynomials (count, m, m) at the nodes of each."""
    count = at_nodes.shape[-1]
    offsets = np.arange(pixels) - 0.5 * (pixels - 1)
    values = np.polynomial.chebyshev.chebvander(offsets / max(offsets[-1], 0.5), count - 1).T
    return _AxisTerms(_chebyshev(count)[1] @ at_nodes.swapaxes(1, 2), values)


def _nodes(positions: FloatArray, field: Field) -> FloatArray:
    """As many Gauss-Chebyshev nodes between the ends of each block's axis as the field has polynomials along it."""
    middle, half = 0.5 * (positions[:, :1] + positions[:, -1:]), max(0.5 * (positions.shape[1] - 1), 0.5)
    return np.asarray(middle + half * _chebyshev(field.order + 1)[0])


@lru_cache(maxsize=32)
def _chebyshev(count: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Chebyshev nodes, and the matrix from values there to coefficients."""
    at = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return at, np.linalg.inv(np.polynomial.chebyshev.chebvander(at, count - 1))


def _from_input_column(kernel: MatchingKernel) -> FloatArray:
    """The images of a polynomial kernel's Chebyshev terms, as a function of the input pixel's column.

    ``T_i(x' + u) = sum_m A_im(u) T_m(x')`` for each column u of the kernel.

    Returns
    -------
    array, shape (n_terms, ky, kx)
    """
    order, box = kernel.weights.order, kernel.box
    unit, _ = _chebyshev(order + 1)
    x, y = box.center.x + 0.5 * box.shape[1] * unit, box.center.y + 0.5 * box.shape[0] * unit
    one = Field(np.eye((order + 1) * (order + 2) // 2), box)
    along_x, along_y = one.terms_along(x=x, y=y)
    weights = kernel.weights.on_grid(x=x, y=y)  # Chebyshev series whatever the field's own polynomials
    table = np.linalg.inv(along_y.T) @ weights @ np.linalg.inv(along_x)
    by_term = np.tensordot(table, kernel.basis, axes=(0, 0))  # (j, i, ky, kx)
    columns = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    moves = one.terms_along(x=x + columns[:, None], y=y)[0] @ np.linalg.inv(along_x)
    moved = np.einsum("jiyu,uim->jmyu", by_term, moves)
    return np.stack([moved[j, m] for m, j in term_degrees(order)])
