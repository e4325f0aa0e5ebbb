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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import complex_type, mixed, norms, scaled, transforms
from psfmatch.convolve.blocks import Batch, Blocks
from psfmatch.convolve.polynomials import axis_terms, from_input_column, nodes
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

    def _summed(self, cut: Any, terms: _Terms, precise: NDArray[np.bool_]) -> Any:
        """The sum of the terms' convolutions, some of them in double precision."""
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
        terms = self._terms(batch)
        precise = np.zeros(len(terms.pairs), bool)
        if self.dtype != self.xp.float64:
            precise = ~_negligible(self._rounding(cut, floor, terms).max(axis=0) ** 2, ACCURACY**2)
        return self.xp.asarray(self._summed(cut, terms, precise), dtype=self.dtype)

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

    def _levels(self, terms: _Terms, precise: NDArray[np.bool_]) -> Iterator[_Level]:
        """The terms in double precision, and then the others."""
        for dtype, chosen in ((self.xp.float64, precise), (self.dtype, ~precise)):
            if chosen.any():
                pairs = [pair for pair, flag in zip(terms.pairs, chosen, strict=True) if flag]
                yield _Level(dtype, pairs, self._images(terms, chosen, dtype))

    def _images(self, terms: _Terms, chosen: NDArray[np.bool_], dtype: Any) -> list[Any]:
        """The transforms of some terms' images, each (n, fy, fx), or (1, fy, fx) where they are alike."""
        weights = terms.weights[:, chosen]
        if dtype == self.dtype:
            images = mixed(self.xp, self._array(weights), self.spectra)
        elif len(self.basis) <= MANY:
            images = mixed(self.xp, self._array(weights, dtype), self._fine_spectra)
        else:
            images = self._forward(self._array(np.tensordot(weights, self.basis, axes=1), dtype))
        return [images[:, k, ...] for k in range(images.shape[1])]

    def _spectra(self, cut: Any, p: Any, wanted: set[int], dtype: Any, known: dict[int, Any]) -> dict[int, Any]:
        """The transforms of the cut times some p_m; those known in higher precision are rounded."""
        kind = complex_type(self.xp, dtype)
        out = {m: self.xp.asarray(known[m], dtype=kind) for m in wanted & known.keys()}
        rest = sorted(wanted - known.keys())
        if rest:
            cut = self.xp.asarray(cut, dtype=dtype)[:, None, ...]
            spectra = self._forward(cut if rest == [0] else cut * self._array(p[:, rest, ...], dtype))
            out |= {m: spectra[:, k, ...] for k, m in enumerate(rest)}
        return out

    def _forward(self, images: Any) -> Any:
        """The transforms of images (..., sy, sx), zero beyond."""
        return self.fft.fft(self.fft.rfft(images, n=self.blocks.x.side, axis=-1), n=self.blocks.y.side, axis=-2)


class PolynomialKernel(LocalKernel):
    """A kernel whose weights are polynomials; see the module."""

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        super().__init__(kernel, blocks, tolerance, xp, dtype, device)
        images, box = from_input_column(kernel), kernel.box
        moved = MatchingKernel(images, Field(np.eye(len(images)), box)).compressed(SHARE * tolerance)
        self.basis, self.table = moved.basis, moved.weights.table
        self.spectra = self._forward(self._array(moved.basis))
        read = [blocks.x.read(k) for k in range(blocks.x.count)]
        put = [blocks.y.positions(k) for k in range(blocks.y.count)]
        self.columns = [axis_terms(p, moved.weights.terms_along(x=nodes(p, moved), y=[0.0])[0]) for p in read]
        self.rows = [axis_terms(p, moved.weights.terms_along(x=[0.0], y=nodes(p, moved))[1]) for p in put]
        self._known: dict[int, _Row] = {}
        self.own: _OwnTerms | None = None
        if len(images) <= MANY:
            self.own = _OwnTerms(
                [(j, i) for i, j in term_degrees(kernel.weights.order)],
                images,
                self._forward(self._array(images)),
                [moved.weights.terms_along(x=[0.0], y=p)[1] for p in put],
                [moved.weights.terms_along(x=p, y=[0.0])[0] for p in read],
            )

    def _summed(self, cut: Any, terms: _Terms, precise: NDArray[np.bool_]) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        spectra: dict[int, Any] = {}
        products: dict[int, Any] = {}
        for level in self._levels(terms, precise):
            spectra = self._spectra(cut, terms.p, {m for _, m in level.pairs}, level.dtype, spectra)
            sums: dict[int, Any] = {}
            for (j, m), image in zip(level.pairs, level.images, strict=True):
                sums[j] = _added(sums.get(j), spectra[m] * image)
            products |= {j: _added(products.get(j), total) for j, total in sums.items()}
        total = None
        for j, product in products.items():  # those in double precision first: they take in the others
            # What wraps falls into the kernel's margin, which is cut off.
            strip = fft.ifft(product, axis=1)[:, y.kernel - 1 :, :]
            if j:
                strip = scaled(self.xp, strip, self._array(terms.q[:, j, ...], strip.real.dtype))
            total = _added(total, strip)
        return fft.irfft(total, n=x.side, axis=2)[:, :, x.kernel - 1 :]

    def _images(self, terms: _Terms, chosen: NDArray[np.bool_], dtype: Any) -> list[Any]:
        if self.own is None or terms.pairs is not self.own.pairs:
            return super()._images(terms, chosen, dtype)
        images = self.own.spectra if dtype == self.dtype else self._own_fine
        return [images[None, k, ...] for k in np.flatnonzero(chosen).tolist()]

    @cached_property
    def _own_fine(self) -> Any:
        """The transforms of the field's own terms in double precision."""
        assert self.own is not None
        return self._forward(self._array(self.own.images, self.xp.float64))

    def _terms(self, batch: Batch) -> _Terms:
        tables = [self._row(row) for row, _ in batch]
        needed = np.any([table.needed[column] for table, (_, column) in zip(tables, batch, strict=True)], axis=0)
        if self.own is not None and np.count_nonzero(needed) == len(self.own.pairs):
            return self.own.terms(batch)
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

    def _summed(self, cut: Any, terms: _Terms, precise: NDArray[np.bool_]) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        spectra: dict[int, Any] = {}
        total = None
        for level in self._levels(terms, precise):
            spectra = self._spectra(cut, None, {0}, level.dtype, spectra)
            for (_, surface), spectrum in zip(level.pairs, level.images, strict=True):
                image = fft.ifft(spectra[0] * spectrum, axis=1)[:, y.kernel - 1 :, :]
                image = fft.irfft(image, n=x.side, axis=2)[:, :, x.kernel - 1 :]
                total = _added(total, image * self._array(terms.p[:, surface, ...], level.dtype))
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


class _Level(NamedTuple):
    """Terms that are convolved in one precision: the real type, the terms, and the transforms of their images."""

    dtype: Any
    pairs: list[tuple[int, int]]
    images: list[Any]


@dataclass(frozen=True, eq=False)
class _OwnTerms:
    """The terms of the whole field, which are the same in every block: where all are needed, nothing is mixed.

    Parameters
    ----------
    pairs : list of (j, m)
    images, spectra : array
        The terms' images, and their transforms in the planes' precision.
    rows, columns : list of array, shape (m, n)
        The field's polynomials over the rows that each row of blocks puts, and the columns that each column reads.
    """

    pairs: list[tuple[int, int]]
    images: FloatArray
    spectra: Any
    rows: list[FloatArray]
    columns: list[FloatArray]

    @cached_property
    def heights(self) -> FloatArray:
        """The largest Fourier amplitude of each image."""
        return np.array([float(abs(image).max()) for image in self.spectra])

    def terms(self, batch: Batch) -> _Terms:
        """These terms in some blocks."""
        q, p = np.stack([self.rows[row] for row, _ in batch]), np.stack([self.columns[column] for _, column in batch])
        j, m = np.array(self.pairs).T
        heights = self.heights * np.abs(q).max(axis=2)[:, j] * np.abs(p).max(axis=2)[:, m]
        return _Terms(self.pairs, np.zeros((len(batch), len(j), 0)), heights, q[:, :, :, None], p[:, :, None, :])


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
