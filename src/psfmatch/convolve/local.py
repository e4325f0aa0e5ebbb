"""A kernel as blocks of a frame need it: its variation in the block by as few transforms as it takes.

In a block, which is small against the field, the kernel is a low polynomial of the position.  Written in the row y of
the output pixel and the column x' = x - u_x of the input pixel, which the kernel of a polynomial field is as well,

``K(u; x, y) = sum_jm K_jm(u) p_m(x - u_x) q_j(y)``,

with p and q Chebyshev polynomials between the block's edges.  The terms whose images K_jm together are smaller than
the tolerance are left out; as ``|p|, |q| <= 1``, this bounds the error everywhere.  What is left is convolved by

``out = F_x^-1 [ sum_j q_j(y) F_y^-1 [ sum_m F[p_m I] F[K_jm] ] ]``,

so that n terms of degree d take 2 (d + 1) transforms along an axis forward and d + 2 back, in place of 2 n.

Weights that are splines are no polynomial in a block that holds knots.  There the terms are the principal images of
the kernels in the block, each with its own surface over the output: one transform back for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import mixed, norms, scaled, transforms
from psfmatch.convolve.blocks import Batch, Blocks
from psfmatch.fields import Field, term_degrees
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["LocalKernel", "PolynomialKernel", "SplineKernel", "local_kernel"]

ACCURACY = 4e-7
TINY = 1e-300
HUGE = 1e36
SAMPLES = 24
MANY = 10
KEPT = 3
SHARE = 0.3
ROUNDING = 4.0 * 2.0**-24
"""Largest error, far from what is bright, of a convolution by FFT in single precision, in units of the product of the
image's root mean square and the kernel's largest Fourier amplitude: measured, for sides of 64 to 400 px."""


def local_kernel(
    kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any = None
) -> LocalKernel:
    """The kernel prepared for the blocks of a frame.

    Parameters
    ----------
    kernel : MatchingKernel
    blocks : Blocks
    tolerance : float
        The largest change of the kernel at any pixel, in the 2-norm over its pixels, relative to that of the kernel.
    xp, dtype, device
        Namespace, real type and device of the planes to be convolved.
    """
    cls = SplineKernel if kernel.weights.kind == "spline" else PolynomialKernel
    return cls(kernel.compressed(SHARE * tolerance), blocks, tolerance, xp, dtype, device)


class LocalKernel:
    """What both kinds of kernel share; parameters as of `local_kernel`, with an orthonormal basis."""

    basis: FloatArray
    spectra: Any

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        self.kernel, self.blocks, self.tolerance = kernel, blocks, tolerance
        self.xp, self.dtype, self.device = xp, dtype, device
        self.fft = transforms(xp)
        field = kernel.weights
        self.sums = Field(kernel.basis.sum(axis=(1, 2)) @ field.coefficients, field.box, field.kind).table[0]
        self.running = np.pad(kernel.basis.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        self.at_x = [field.terms_along(x=blocks.x.positions(k), y=[0.0])[0] for k in range(blocks.x.count)]
        self.at_y = [field.terms_along(x=[0.0], y=blocks.y.positions(k))[1] for k in range(blocks.y.count)]

    def _terms(self, batch: Batch) -> _Terms:
        """The terms that any of the blocks needs."""
        raise NotImplementedError

    def _summed(self, cut: Any, terms: _Terms, images: Any) -> Any:
        """The sum of the terms' convolutions, their images given as transforms (n, m, fy, fx)."""
        raise NotImplementedError

    def add_pixels(self, out: Any, place: tuple[int, int], pixels: Sequence[tuple[int, int, float]]) -> None:
        """Add to the output (y.step, x.step) of a block what single pixels (row, column, value) that it reads give.

        ``v K(u; x + u)`` at every pixel u of the kernel, each with the kernel of the output pixel.
        """
        y, x = self.blocks.y, self.blocks.x
        at_y, at_x, table = self.at_y[place[0]].T, self.at_x[place[1]], self.kernel.weights.table
        for row, column, value in pixels:
            y0, x0 = row - (y.kernel - 1), column - (x.kernel - 1)
            top, bottom, left, right = max(y0, 0), min(row + 1, y.step), max(x0, 0), min(column + 1, x.step)
            if top >= bottom or left >= right:
                continue
            weights = at_y[top:bottom] @ table @ at_x[:, left:right]
            images = self.kernel.basis[:, top - y0 : bottom - y0, left - x0 : right - x0]
            out[top:bottom, left:right] += self._array(value * (weights * images).sum(axis=0))

    def _array(self, values: FloatArray, dtype: Any = None) -> Any:
        dtype = self.dtype if dtype is None else dtype
        if self.xp is np:
            return np.asarray(values, dtype)
        return self.xp.asarray(np.array(values), dtype=dtype, device=self.device)

    def totals(self, batch: Batch) -> Any:
        """The sum of the kernel at every pixel of the output of the blocks: shape (n, y.step, x.step)."""
        return self._array(np.stack([self._totals(row, column) for row, column in batch]))

    def _totals(self, row: int, column: int) -> FloatArray:
        return np.asarray(self.at_y[row].T @ self.sums @ self.at_x[column])

    def within_frame(self, batch: Batch) -> Any:
        """As `totals`, of the part of the kernel that falls on the frame: by a table of the basis's running sums."""
        return self._array(np.stack([self._within_frame(row, column) for row, column in batch]))

    def _within_frame(self, row: int, column: int) -> FloatArray:
        out = self._totals(row, column)
        (low_y, high_y), (low_x, high_x) = self.blocks.y.reach(row), self.blocks.x.reach(column)
        cut_y = np.flatnonzero((low_y > 0) | (high_y < self.blocks.y.kernel))
        cut_x = np.flatnonzero((low_x > 0) | (high_x < self.blocks.x.kernel))
        at_y, at_x = self.blocks.y.positions(row), self.blocks.x.positions(column)
        for y, x in ((cut_y, np.arange(at_x.size)), (np.arange(at_y.size), cut_x)):
            if not (y.size and x.size):
                continue
            part = self.running[:, high_y[y]] - self.running[:, low_y[y]]
            part = part[:, :, high_x[x]] - part[:, :, low_x[x]]
            out[np.ix_(y, x)] = (part * self.kernel.weights.on_grid(x=at_x[x], y=at_y[y])).sum(axis=0)
        return out

    def convolve(self, cut: Any, batch: Batch, floor: Any) -> Any:
        """Convolve what the blocks read, (n, y.side, x.side), to their output, (n, y.step, x.step).

        Terms whose rounding errors in the planes' own precision would exceed 1e-6 of the floor are convolved in
        double precision: a saturated star does not spoil the faint sky in its block.

        Parameters
        ----------
        cut : array
        batch : Batch
        floor : array, shape (n, 1, 1)
            The least brightness in the block that errors are to be compared with.
        """
        xp = self.xp
        terms = self._terms(batch)
        precise = np.zeros(len(terms.pairs), bool)
        if self.dtype != xp.float64:
            precise = ~_negligible(self._rounding(cut, floor, terms).max(axis=0) ** 2, ACCURACY**2)
        if not precise.any():
            return self._single(cut, batch, terms)
        some = terms.chosen(precise)
        if len(self.basis) <= MANY:
            images = mixed(xp, self._array(some.weights, xp.float64), self._fine_spectra)
        else:
            images = self._forward(self._array(np.tensordot(some.weights, self.basis, axes=1), xp.float64))
        total = xp.asarray(self._summed(xp.asarray(cut, dtype=xp.float64), some, images), dtype=self.dtype)
        if not precise.all():
            some = terms.chosen(~precise)
            total += self._summed(cut, some, mixed(xp, self._array(some.weights), self.spectra))
        return total

    def _rounding(self, cut: Any, floor: Any, terms: _Terms) -> FloatArray:
        """The terms' rounding errors in single precision, in units of the floor: shape (n, terms)."""
        side = np.sqrt(self.blocks.y.side * self.blocks.x.side)
        sizes, floors = np.array(norms(self.xp, cut)), np.array([float(least) for least in floor[:, 0, 0]])
        sizes[sizes * side > HUGE] = np.inf
        return np.asarray(ROUNDING / side * (sizes / np.maximum(floors, TINY))[:, None] * terms.heights)

    @cached_property
    def _heights(self) -> FloatArray:
        """The largest Fourier amplitude of each basis image."""
        return np.array([float(self.xp.max(abs(image))) for image in self.spectra])

    @cached_property
    def _fine_spectra(self) -> Any:
        """The transforms of the basis in double precision."""
        return self._forward(self._array(self.basis, self.xp.float64))

    def _single(self, cut: Any, batch: Batch, terms: _Terms) -> Any:
        """All terms in the planes' own precision."""
        return self._summed(cut, terms, mixed(self.xp, self._array(terms.weights), self.spectra))

    def _forward(self, images: Any) -> Any:
        """The transforms of images (..., sy, sx), zero beyond."""
        return self.fft.fft(self.fft.rfft(images, n=self.blocks.x.side, axis=-1), n=self.blocks.y.side, axis=-2)


class PolynomialKernel(LocalKernel):
    """A kernel whose weights are polynomials; see the module."""

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        super().__init__(kernel, blocks, tolerance, xp, dtype, device)
        images, box = _from_input_column(kernel), kernel.box
        moved = MatchingKernel(images, Field(np.eye(len(images)), box)).compressed(SHARE * tolerance)
        self.basis, self.table = moved.basis, moved.weights.table
        self.spectra = self._forward(self._array(moved.basis))
        read = [blocks.x.read(k) for k in range(blocks.x.count)]
        put = [blocks.y.positions(k) for k in range(blocks.y.count)]
        self.columns = [_axis_terms(p, moved.weights.terms_along(x=_nodes(p, moved), y=[0.0])[0]) for p in read]
        self.rows = [_axis_terms(p, moved.weights.terms_along(x=[0.0], y=_nodes(p, moved))[1]) for p in put]
        self._known: dict[int, _Row] = {}
        self.pairs = [(j, i) for i, j in term_degrees(kernel.weights.order)]
        self.images = None
        if len(self.pairs) <= MANY:
            self.images = self._forward(self._array(images))[None, ...]
            self.field_x = [moved.weights.terms_along(x=p, y=[0.0])[0] for p in read]
            self.field_y = [moved.weights.terms_along(x=[0.0], y=p)[1] for p in put]

    def _single(self, cut: Any, batch: Batch, terms: _Terms) -> Any:
        if self.images is None or len(terms.pairs) < len(self.pairs):
            return super()._single(cut, batch, terms)
        # Where all terms are needed, those of the whole field do as well, and are the same in every block.
        p = np.stack([self.field_x[column] for _, column in batch])[:, :, None, :]
        q = np.stack([self.field_y[row] for row, _ in batch])[:, :, :, None]
        return self._summed(cut, _Terms(self.pairs, terms.weights, terms.heights, q, p), self.images)

    def _summed(self, cut: Any, terms: _Terms, images: Any) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        q, p = self._array(terms.q, cut.dtype), self._array(terms.p, cut.dtype)
        used = sorted({m for _, m in terms.pairs})
        spectra = self._forward(cut[:, None, ...] * p[:, used, ...] if used != [0] else cut[:, None, ...])
        rows = sorted({j for j, _ in terms.pairs})
        products: list[Any] = [None] * len(rows)
        for k, (j, m) in enumerate(terms.pairs):
            at = rows.index(j)
            products[at] = _added(products[at], spectra[:, used.index(m), ...] * images[:, k, ...])
        # What wraps falls into the kernel's margin, which is cut off.
        strips = fft.ifft(self.xp.stack(products, axis=1), axis=2)[:, :, y.kernel - 1 :, :]
        total = None
        for at, j in enumerate(rows):
            image = strips[:, at, ...]
            total = _added(total, image if j == 0 else scaled(self.xp, image, q[:, j, ...]))
        return fft.irfft(total, n=x.side, axis=2)[:, :, x.kernel - 1 :]

    def _terms(self, batch: Batch) -> _Terms:
        tables = [self._row(row) for row, _ in batch]
        needed = np.any([table.needed[column] for table, (_, column) in zip(tables, batch, strict=True)], axis=0)
        j, m = np.nonzero(needed)
        pairs = list(zip(j.tolist(), m.tolist(), strict=True))
        rows = [table.table[column][:, j, m].T for table, (_, column) in zip(tables, batch, strict=True)]
        weights = np.stack(rows)
        q = np.stack([self.rows[row].values for row, _ in batch])[:, :, :, None]
        p = np.stack([self.columns[column].values for _, column in batch])[:, :, None, :]
        return _Terms(pairs, weights, np.abs(weights) @ self._heights, q, p)

    def _row(self, row: int) -> _Row:
        """The expansions in all blocks of a row; those of the last few rows are kept."""
        found = self._known.get(row)
        if found is None:
            table = (self.rows[row].matrix @ self.table)[None] @ np.stack([c.matrix.T for c in self.columns])[:, None]
            sizes = np.sqrt((table**2).sum(axis=1))
            flat = sizes.reshape(len(table), -1)
            needed = ~_negligible(flat, self.tolerance * flat.max(axis=1, keepdims=True))
            found = _Row(table, needed.reshape(sizes.shape))
            self._known = {**{k: v for k, v in self._known.items() if abs(k - row) < KEPT}, row: found}
        return found


class _Row(NamedTuple):
    """The coefficients of the terms in each block of a row (n, r, j, m), and which are needed."""

    table: FloatArray
    needed: NDArray[np.bool_]


class SplineKernel(LocalKernel):
    """A kernel whose weights are splines; see the module."""

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        super().__init__(kernel, blocks, tolerance, xp, dtype, device)
        self.basis = kernel.basis
        self.spectra = self._forward(self._array(kernel.basis))

    def _summed(self, cut: Any, terms: _Terms, images: Any) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        spectrum, surfaces = self._forward(cut), self._array(terms.p, cut.dtype)
        total = None
        for k, (_, surface) in enumerate(terms.pairs):
            image = fft.ifft(spectrum * images[:, k, ...], axis=1)[:, y.kernel - 1 :, :]
            image = fft.irfft(image, n=x.side, axis=2)[:, :, x.kernel - 1 :]
            total = _added(total, image * surfaces[:, surface, ...])
        return total

    def _terms(self, batch: Batch) -> _Terms:
        places = [(self.blocks.y.positions(row), self.blocks.x.positions(column)) for row, column in batch]
        field = self.kernel.weights
        samples = [field.on_grid(x=_thinned(x), y=_thinned(y)).reshape(field.n, -1) for y, x in places]
        left, values, right = np.linalg.svd(np.stack(samples), full_matrices=False)
        tails = np.sqrt(np.cumsum(values[:, ::-1] ** 2, axis=1))[:, ::-1]
        rank = max(1, int(np.count_nonzero((tails > self.tolerance * tails[:, :1]).any(axis=0))))
        weights = left[:, :, :rank].transpose(0, 2, 1)
        surfaces = [
            Field(w @ field.coefficients, field.box, "spline").on_grid(x=x, y=y)
            for w, (y, x) in zip(weights, places, strict=True)
        ]
        heights = values[:, :rank] * np.abs(right[:, :rank]).max(axis=2) * (np.abs(weights) @ self._heights)
        return _Terms([(0, k) for k in range(rank)], weights, heights, np.ones((1, 1, 1, 1)), np.stack(surfaces))


@dataclass(frozen=True, eq=False)
class _Terms:
    """A kernel in n blocks as a sum over products ``q_j p_m K_jm``.

    Parameters
    ----------
    pairs : list of (j, m)
        The terms; the functions ``p_0`` and ``q_0`` are 1.  Of splines (0, number of the surface).
    weights : array, shape (n, terms, r)
        Of the basis images in K_jm.
    heights : array, shape (n, terms)
        Largest Fourier amplitudes of the K_jm (at most), times the size of the functions.
    q : array, shape (n, j, ny, 1)
        Over the rows of the output.
    p : array, shape (n, m, 1, sx)
        Over the columns that are read; of splines, surfaces over the output.
    """

    pairs: list[tuple[int, int]]
    weights: FloatArray
    heights: FloatArray
    q: FloatArray
    p: FloatArray

    def chosen(self, flags: NDArray[np.bool_]) -> _Terms:
        """Some of the terms."""
        pairs = [pair for pair, flag in zip(self.pairs, flags, strict=True) if flag]
        return replace(self, pairs=pairs, weights=self.weights[:, flags], heights=self.heights[:, flags])


class _AxisTerms(NamedTuple):
    """The Chebyshev polynomials along one axis of a block.

    Parameters
    ----------
    matrix : array, shape (m, m)
        From coefficients of the field's polynomials to those of the block's.
    values : array, shape (m, n)
        The block's polynomials at its pixels.
    """

    matrix: FloatArray
    values: FloatArray


def _axis_terms(positions: FloatArray, at_nodes: FloatArray) -> _AxisTerms:
    """For the pixels of a block along an axis, and the field's polynomials (m, m) at its nodes."""
    count = len(at_nodes)
    middle, half = _span(positions)
    values = np.polynomial.chebyshev.chebvander((positions - middle) / half, count - 1).T
    return _AxisTerms(_chebyshev(count)[1] @ at_nodes.T, values)


def _nodes(positions: FloatArray, kernel: MatchingKernel) -> FloatArray:
    """As many Gauss-Chebyshev nodes between the ends of a block's axis as the field has polynomials along it."""
    middle, half = _span(positions)
    return middle + half * _chebyshev(kernel.weights.order + 1)[0]


def _span(positions: FloatArray) -> tuple[float, float]:
    return float(positions.mean()), max(0.5 * (positions.size - 1), 0.5)


@lru_cache(maxsize=32)
def _chebyshev(count: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Chebyshev nodes, and the matrix from values there to coefficients."""
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return nodes, np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, count - 1))


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
    moves = np.stack([one.terms_along(x=x + u, y=y)[0] @ np.linalg.inv(along_x) for u in columns])
    moved = np.einsum("jiyu,uim->jmyu", by_term, moves)
    return np.stack([moved[j, m] for m, j in term_degrees(order)])


def _negligible(sizes: FloatArray, limit: Any) -> NDArray[np.bool_]:
    """The smallest along the last axis, as many as together do not exceed a limit."""
    order = np.argsort(sizes, axis=-1)
    sums = np.cumsum(np.take_along_axis(sizes, order, axis=-1), axis=-1)
    out = np.zeros(sizes.shape, bool)
    np.put_along_axis(out, order, sums <= limit, axis=-1)
    return out


def _thinned(positions: FloatArray) -> FloatArray:
    """Some of the positions of a block, its ends among them."""
    result: FloatArray = positions[np.unique(np.linspace(0, positions.size - 1, SAMPLES).round().astype(int))]
    return result


def _added(total: Any, image: Any) -> Any:
    if total is None:
        return image
    total += image
    return total
