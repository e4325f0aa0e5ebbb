"""A kernel as blocks of a frame need it: its variation in the block by as few transforms as it takes.

In a block, which is small against the field, the kernel is a low polynomial of the position,

``K(u; x, y) = sum_ij K_ij(u) p_i(x) q_j(y)``,

with p and q Chebyshev polynomials between the block's edges.  The terms whose images K_ij together are smaller than
the tolerance are left out; as ``|p|, |q| <= 1``, this bounds the error everywhere.  What is left is convolved by

``out = sum_i p_i(x) F_x^-1 [ sum_j q_j(y) F_y^-1 [ F[I] F[K_ij] ] ]``,

one inverse transform along y for each term, and one along x for each i.

Weights that are splines are no polynomial in a block that holds knots.  There the terms are the principal images of
the kernels in the block, each with its own surface: ``p_i(x, y)`` in place of ``p_i(x) q_j(y)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import complex_type, mixed, scaled, transforms
from psfmatch.convolve.blocks import Axis, Batch, Blocks
from psfmatch.fields import Field, term_degrees
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["LocalKernel"]

ACCURACY = 5e-7
TINY = 1e-300
SAMPLES = 24
MANY = 10
ROUNDING = 0.12 * 2.0**-24
"""Largest error, far from what is bright, of a convolution by FFT in single precision, in units of the product of
the 2-norms of image and kernel: measured, for sides of 128 to 400 px and kernels of 11 to 65 px."""


class LocalKernel:
    """The transforms of a kernel's basis, and its expansion in every block.

    Parameters
    ----------
    kernel : MatchingKernel
        With an orthonormal basis, as `MatchingKernel.compressed` gives it.
    blocks : Blocks
    tolerance : float
        The largest change of the kernel at any pixel, in the 2-norm over its pixels, relative to that of the kernel.
    xp, dtype, device
        Namespace, real type and device of the planes to be convolved.
    """

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any = None
    ) -> None:
        self.kernel, self.blocks, self.tolerance = kernel, blocks, tolerance
        self.xp, self.dtype, self.device = xp, dtype, device
        self.fft = transforms(xp)
        self.spectra = self._forward(self._array(kernel.basis))
        self.sums = Field(kernel.basis.sum(axis=(1, 2)) @ kernel.weights.coefficients, kernel.box, kernel.weights.kind)
        self.running = np.pad(kernel.basis.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        self.spline = kernel.weights.kind == "spline"
        if not self.spline:
            self.rows = _axis_terms(blocks.y, lambda p: kernel.weights.terms_along(x=p, y=p)[1])
            self.columns = _axis_terms(blocks.x, lambda p: kernel.weights.terms_along(x=p, y=p)[0])
        self.pairs = [(j, i) for i, j in term_degrees(kernel.weights.order)]
        self.images = None
        if kernel.weights.kind == "chebyshev1" and len(self.pairs) <= MANY:
            images = np.tensordot(kernel.weights.coefficients.T, kernel.basis, axes=1)
            self.images = self._forward(self._array(images))[None, ...]

    def add_pixels(self, out: Any, place: tuple[int, int], pixels: Sequence[tuple[int, int, float]]) -> None:
        """Add to the output (y.step, x.step) of a block what single pixels (row, column, value) that it reads give.

        ``v K(u; x + u)`` at every pixel u of the kernel, each with the kernel of the output pixel.
        """
        y, x = self.blocks.y, self.blocks.x
        at_y, at_x = y.positions(place[0]), x.positions(place[1])
        for row, column, value in pixels:
            y0, x0 = row - (y.kernel - 1), column - (x.kernel - 1)
            top, bottom, left, right = max(y0, 0), min(row + 1, y.step), max(x0, 0), min(column + 1, x.step)
            if top >= bottom or left >= right:
                continue
            weights = self.kernel.weights.on_grid(x=at_x[left:right], y=at_y[top:bottom])
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
        return self.sums.on_grid(x=self.blocks.x.positions(column), y=self.blocks.y.positions(row))[0]

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
        terms = self._surfaces(batch) if self.spline else self._polynomials(batch)
        precise = np.zeros(len(terms), bool)
        if self.dtype != xp.float64:
            with np.errstate(over="ignore"):
                power = xp.einsum("kyx,kyx->k", cut, cut)
            ratio = [float(s) ** 0.5 / max(float(f), TINY) for f, s in zip(floor[:, 0, 0], power, strict=True)]
            precise = np.any(ROUNDING * np.asarray(ratio)[:, None] * terms.norms > ACCURACY, axis=0)
        if not precise.any():
            if self.images is not None and len(terms) >= len(self.pairs):
                return self._summed(self._forward(cut), self._whole_field(batch), self.images)
            return self._summed(self._forward(cut), terms, mixed(xp, self._array(terms.weights), self.spectra))
        spectrum = self._forward(xp.asarray(cut, dtype=xp.float64))
        some = terms.chosen(precise)
        images = self._forward(self._array(np.tensordot(some.weights, self.kernel.basis, axes=1), xp.float64))
        total = xp.asarray(self._summed(spectrum, some, images), dtype=self.dtype)
        if not precise.all():
            some = terms.chosen(~precise)
            spectrum = xp.asarray(spectrum, dtype=complex_type(xp, self.dtype))
            total += self._summed(spectrum, some, mixed(xp, self._array(some.weights), self.spectra))
        return total

    def _forward(self, images: Any) -> Any:
        """The transforms of images (..., sy, sx), zero beyond."""
        return self.fft.fft(self.fft.rfft(images, n=self.blocks.x.side, axis=-1), n=self.blocks.y.side, axis=-2)

    def _summed(self, spectrum: Any, terms: _Terms, images: Any) -> Any:
        """The sum over terms (j, i) of their images' convolutions times ``q_j p_i``."""
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        dtype = self.xp.float64 if spectrum.dtype == self.xp.complex128 else self.xp.float32
        q, p = self._array(terms.q, dtype), self._array(terms.p, dtype)
        total = None
        for i in dict.fromkeys(i for _, i in terms.pairs):
            partial = None
            for k, (j, of) in enumerate(terms.pairs):
                if of == i:
                    # What wraps falls into the kernel's margin, which is cut off.
                    image = fft.ifft(spectrum * images[:, k, ...], axis=1)[:, y.kernel - 1 :, :]
                    partial = _added(partial, image if j == 0 else scaled(self.xp, image, q[:, j, ...]))
            image = fft.irfft(partial, n=x.side, axis=2)[:, :, x.kernel - 1 :]
            total = _added(total, image if i == 0 and not self.spline else image * p[:, i, ...])
        return total

    def _whole_field(self, batch: Batch) -> _Terms:
        """The polynomials of the field itself, whose images are the same in every block."""
        q, p = [self.rows[row].field for row, _ in batch], [self.columns[column].field for _, column in batch]
        empty = np.empty((len(batch), 0))
        return _Terms(self.pairs, empty, empty, np.stack(q)[:, :, :, None], np.stack(p)[:, :, None, :])

    def _polynomials(self, batch: Batch) -> _Terms:
        """The products of Chebyshev polynomials that any of the blocks needs."""
        rows, columns = [self.rows[row] for row, _ in batch], [self.columns[column] for _, column in batch]
        table = self.kernel.weights.table
        table = np.stack([y.matrix @ table @ x.matrix.T for y, x in zip(rows, columns, strict=True)])
        norms = np.sqrt((table**2).sum(axis=1))
        flat = norms.reshape(len(batch), -1)
        order = np.argsort(flat, axis=1)
        sums = np.cumsum(np.take_along_axis(flat, order, axis=1), axis=1)
        needed = np.zeros(flat.shape, bool)
        np.put_along_axis(needed, order, sums > self.tolerance * flat.max(axis=1, keepdims=True), axis=1)
        j, i = np.nonzero(needed.any(axis=0).reshape(norms.shape[1:]))
        return _Terms(
            list(zip(j.tolist(), i.tolist(), strict=True)),
            table[:, :, j, i].transpose(0, 2, 1),
            norms[:, j, i],
            np.stack([y.local for y in rows])[:, :, :, None],
            np.stack([x.local for x in columns])[:, :, None, :],
        )

    def _surfaces(self, batch: Batch) -> _Terms:
        """The principal images of the kernels at a grid of positions in the blocks, and their weights' surfaces."""
        places = [(self.blocks.y.positions(row), self.blocks.x.positions(column)) for row, column in batch]
        field = self.kernel.weights
        samples = [field.on_grid(x=_thinned(x), y=_thinned(y)).reshape(field.n, -1) for y, x in places]
        left, values, _ = np.linalg.svd(np.stack(samples), full_matrices=False)
        tails = np.sqrt(np.cumsum(values[:, ::-1] ** 2, axis=1))[:, ::-1]
        rank = max(1, int(np.count_nonzero((tails > self.tolerance * tails[:, :1]).any(axis=0))))
        weights = left[:, :, :rank].transpose(0, 2, 1)
        surfaces = [
            Field(w @ field.coefficients, field.box, "spline").on_grid(x=x, y=y)
            for w, (y, x) in zip(weights, places, strict=True)
        ]
        norms = values[:, :rank] / np.sqrt(samples[0].shape[1])
        return _Terms([(0, k) for k in range(rank)], weights, norms, np.ones((1, 1, 1, 1)), np.stack(surfaces))


@dataclass(frozen=True, eq=False)
class _Terms:
    """A kernel in n blocks as a sum over products ``q_j p_i K_ij``.

    Parameters
    ----------
    pairs : list of (j, i)
        The m terms; the function ``q_0`` is 1.
    weights : array, shape (n, m, r)
        Of the basis images in K_ij.
    norms : array, shape (n, m)
        2-norms of the K_ij, times the size of the functions.
    q : array, shape (n, j, ny, 1)
    p : array, shape (n, i, 1 or ny, nx)
    """

    pairs: list[tuple[int, int]]
    weights: FloatArray
    norms: FloatArray
    q: FloatArray
    p: FloatArray

    def __len__(self) -> int:
        return len(self.pairs)

    def chosen(self, flags: NDArray[np.bool_]) -> _Terms:
        """Some of the terms."""
        pairs = [pair for pair, flag in zip(self.pairs, flags, strict=True) if flag]
        return replace(self, pairs=pairs, weights=self.weights[:, flags], norms=self.norms[:, flags])


def _thinned(positions: FloatArray) -> FloatArray:
    """Some of the positions of a block, its ends among them."""
    return positions[np.unique(np.linspace(0, positions.size - 1, SAMPLES).round().astype(int))]


def _added(total: Any, image: Any) -> Any:
    if total is None:
        return image
    total += image
    return total


class _AxisTerms(NamedTuple):
    """The polynomials along one axis of a block.

    Parameters
    ----------
    matrix : array, shape (m, m)
        From coefficients of the field's polynomials to those of the block's.
    local, field : array, shape (m, n)
        The block's Chebyshev polynomials, and the field's own, at the block's pixels.
    """

    matrix: FloatArray
    local: FloatArray
    field: FloatArray


def _axis_terms(axis: Axis, terms: Callable[[FloatArray], FloatArray]) -> list[_AxisTerms]:
    """The polynomials along an axis, for each block."""
    count = len(terms(axis.positions(0)[:1]))
    nodes, inverse = _chebyshev(count)
    half = max(0.5 * (axis.step - 1), 0.5)
    u = (np.arange(axis.step) - 0.5 * (axis.step - 1)) / half
    local = np.polynomial.chebyshev.chebvander(u, count - 1).T
    blocks = [axis.positions(k) for k in range(axis.count)]
    return [_AxisTerms(inverse @ terms(p.mean() + half * nodes).T, local, terms(p)) for p in blocks]


@lru_cache(maxsize=32)
def _chebyshev(count: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Chebyshev nodes, and the matrix from values there to coefficients."""
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return nodes, np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, count - 1))
