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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import brightest_rows, complex_type, mixed, transforms
from psfmatch.convolve.blocks import Batch, Blocks
from psfmatch.fields import Field
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = [
    "ACCURACY", "HUGE", "ROUNDING", "SHARE", "TINY", "LocalKernel", "Terms", "added", "negligible", "response",
]  # fmt: skip

ACCURACY = 4e-7
TINY = 1e-300
HUGE = 1e36
MANY = 10
SHARE = 0.3
ROUNDING = 8.0 * 2.0**-24
"""Largest error, far from what is bright, of a convolution by FFT in single precision, in units of the product of the
root mean square of the image's brightest row, in which most of it stays, and the kernel's largest Fourier amplitude:
measured, for stars of 0.3 to 10 px (sigma) and sides of 60 to 540 px."""


class LocalKernel:
    """What kernels of polynomials and of splines share.

    Parameters
    ----------
    kernel : MatchingKernel
    blocks : Blocks
    tolerance : float
        The largest change of the kernel at any pixel, in the 2-norm over its pixels, relative to that of the kernel.
    xp, dtype, device
        Namespace, real type and device of the planes to be convolved.
    """

    basis: FloatArray

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        self.kernel = kernel = kernel.compressed(SHARE * tolerance)
        self.blocks, self.tolerance = blocks, tolerance
        self.xp, self.dtype, self.device = xp, dtype, device
        self.fft = transforms(xp)
        field = kernel.weights
        self.response = response(kernel.stamps(**_nodes(kernel.box))).min() or 1.0
        self.sums = Field(kernel.basis.sum(axis=(1, 2)) @ field.coefficients, field.box, field.kind).table[0]
        self.running = np.pad(kernel.basis.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        self.at_x, self.at_y = field.terms_along(x=blocks.x.positions, y=blocks.y.positions)

    def _terms(self, batch: Batch) -> Terms:
        """The terms that any of the blocks needs."""
        raise NotImplementedError

    def _summed(self, cut: Any, terms: Terms, precise: NDArray[np.bool_]) -> Any:
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
        y, x = self.blocks.y.frame(row), self.blocks.x.frame(column)
        cut_y, cut_x = self.blocks.y.cut(*y), self.blocks.x.cut(*x)
        part = self._over((row, column), y, x)
        if cut_y.size:
            out[cut_y] = part(cut_y, slice(None))
        if cut_x.size:
            out[:, cut_x] = part(slice(None), cut_x)
        return out

    def take_out(self, out: Any, place: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Subtract, from values of the output of a block, the sum of the kernel over a rectangle that it reads."""
        where = self.blocks.y.reached(*rows), self.blocks.x.reached(*columns)
        out[where] -= self._array(self._over(place, rows, columns)(*where))

    def _over(
        self, place: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> Callable[[Any, Any], FloatArray]:
        """The sum of the kernel over a rectangle that a block reads, at rows and columns of its output."""
        (low_y, high_y), (low_x, high_x) = self.blocks.y.reach(*rows), self.blocks.x.reach(*columns)
        at_y, at_x, table = self.at_y[place[0]], self.at_x[place[1]], self.kernel.weights.table

        def at(y: Any, x: Any) -> FloatArray:
            part = self.running[:, high_y[y]] - self.running[:, low_y[y]]
            part = part[:, :, high_x[x]] - part[:, :, low_x[x]]
            return np.asarray(np.einsum("ryx,ryx->yx", part, at_y[:, y].T @ table @ at_x[:, x]))

        return at

    def convolve(self, cut: Any, batch: Batch, floor: Any) -> Any:
        """Convolve what the blocks read, (n, y.side, x.side), to their output, (n, y.step, x.step).

        Terms whose rounding errors in the planes' own precision would exceed 1e-6 (or half the tolerance) of what the
        kernel makes of the floor are convolved in double precision: a saturated star does not spoil the faint sky in
        its block.

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
            accuracy = max(ACCURACY, 0.5 * self.tolerance)
            precise = ~negligible(self._rounding(cut, floor, terms).max(axis=0) ** 2, accuracy**2)
        return self.xp.asarray(self._summed(cut, terms, precise), dtype=self.dtype)

    def _rounding(self, cut: Any, floor: Any, terms: Terms) -> FloatArray:
        """The terms' rounding errors in single precision, in units of the convolved floor: shape (n, terms)."""
        sizes = np.array(brightest_rows(self.xp, cut)) / np.sqrt(self.blocks.x.side)
        sizes[sizes > HUGE / (self.blocks.y.side * self.blocks.x.side)] = np.inf
        floors = np.array([self.response * float(f) for f in floor[:, 0, 0]])
        return np.asarray(ROUNDING * (sizes / np.maximum(floors, TINY))[:, None] * terms.heights)

    @cached_property
    def _heights(self) -> FloatArray:
        """The largest Fourier amplitude of each basis image."""
        return np.array([float(self.xp.max(abs(image))) for image in self._basis_spectra])

    @cached_property
    def _basis_spectra(self) -> Any:
        """The transforms of the basis."""
        return self._forward(self._array(self.basis))

    @cached_property
    def _fine_spectra(self) -> Any:
        """The transforms of the basis in double precision."""
        return self._forward(self._array(self.basis, self.xp.float64))

    def _levels(self, terms: Terms, precise: NDArray[np.bool_]) -> Iterator[Level]:
        """The terms in double precision, and then the others."""
        for dtype, chosen in ((self.xp.float64, precise), (self.dtype, ~precise)):
            if chosen.any():
                pairs = [pair for pair, flag in zip(terms.pairs, chosen, strict=True) if flag]
                yield Level(dtype, pairs, self._images(terms, chosen, dtype))

    def _images(self, terms: Terms, chosen: NDArray[np.bool_], dtype: Any) -> list[Any]:
        """The transforms of some terms' images, each (n, fy, fx), or (1, fy, fx) where they are alike."""
        weights = terms.weights[:, chosen]
        if dtype == self.dtype:
            images = mixed(self.xp, self._array(weights), self._basis_spectra)
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


@dataclass(frozen=True, eq=False)
class Terms:
    """A kernel in n blocks as a sum over products ``q_j p_m K_jm``.

    Parameters
    ----------
    pairs : list of (j, m)
        The terms; the functions ``p_0`` and ``q_0`` are 1.  Of splines (0, number of the surface).
    weights : array, shape (n, terms, r)
        Of the basis images in K_jm.
    heights : array, shape (n, terms)
        Largest Fourier amplitudes of the K_jm (at most), times the size of the functions.
    q : array, shape (n or 1, j, ny, 1)
        Over the rows of the output.
    p : array, shape (n or 1, m, 1, sx)
        Over the columns that are read; of splines, surfaces over the output.
    """

    pairs: list[tuple[int, int]]
    weights: FloatArray
    heights: FloatArray
    q: FloatArray
    p: FloatArray


class Level(NamedTuple):
    """Terms that are convolved in one precision: the real type, the terms, and the transforms of their images."""

    dtype: Any
    pairs: list[tuple[int, int]]
    images: list[Any]


def _nodes(box: Box) -> dict[str, FloatArray]:
    """Middle, corners and middles of the edges."""
    x, y = np.meshgrid(np.linspace(box.x0, box.x1 - 1, 3), np.linspace(box.y0, box.y1 - 1, 3))
    return {"x": x.ravel(), "y": y.ravel()}


def response(images: FloatArray) -> FloatArray:
    """What kernels (n, ky, kx) make of what is faint: of its level or of its noise, whichever stays larger."""
    return np.asarray(np.maximum(abs(images.sum(axis=(1, 2))), np.sqrt((images**2).sum(axis=(1, 2)))))


def negligible(sizes: FloatArray, limit: Any) -> NDArray[np.bool_]:
    """The smallest along the last axis, as many as together do not exceed a limit."""
    order = np.argsort(sizes, axis=-1)
    sums = np.cumsum(np.take_along_axis(sizes, order, axis=-1), axis=-1)
    out = np.zeros(sizes.shape, bool)
    np.put_along_axis(out, order, sums <= limit, axis=-1)
    return out


def added(total: Any, image: Any) -> Any:
    if total is None:
        return image
    total += image
    return total
