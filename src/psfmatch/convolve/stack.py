"""Many small exposures at once: a stack of planes, each with its own constant kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import brightest_rows, complex_type
from psfmatch.convolve.blocks import Axis, fast_length
from psfmatch.convolve.flags import dilated
from psfmatch.convolve.local import HUGE, ROUNDING, TINY, response
from psfmatch.geometry import FloatArray

__all__ = ["Stack", "StackedKernels"]

PIXELS = 1 << 19
LEAST = 8
BRIGHT = 0.2
SPARSE = 400
"""Pixels of a plane for each that may be convolved by hand rather than all in double precision."""


@dataclass(frozen=True)
class Stack:
    """Planes of one shape, each a block of its own without margins; see `Blocks`.  A batch are numbers of planes.

    Parameters
    ----------
    y, x : Axis
    """

    y: Axis
    x: Axis

    @classmethod
    def of(cls, shape: tuple[int, int], kernel: tuple[int, int]) -> Stack:
        """For planes and kernels of these shapes."""
        return cls(*(Axis(n, k, n + k - 1, 1, 0) for n, k in zip(shape, kernel, strict=True)))

    def batches(self, count: int) -> Iterator[range]:
        """The numbers of so many planes, about as many at a time as make `PIXELS`, and not all at once."""
        parts = max(-(-count * self.y.length * self.x.length // PIXELS), min(count, LEAST))
        for k in range(parts):
            yield range(k * count // parts, (k + 1) * count // parts)

    def cut(self, planes: Sequence[Any], batch: Sequence[int], dtype: Any) -> NDArray[Any]:
        """Copies of some planes, shape (n, y.length, x.length)."""
        out = np.empty((len(batch), self.y.length, self.x.length), dtype)
        for target, k in zip(out, batch, strict=True):
            target[...] = planes[k]
        return out

    def put(self, planes: list[Any], batch: Sequence[int], values: NDArray[Any]) -> None:
        """Hand over the output of some planes."""
        planes[batch[0] : batch[-1] + 1] = values

    def inside(self, batch: Sequence[int]) -> None:
        """Which pixels of a cut lie in the plane: all do."""

    def beyond(self, batch: Sequence[int], support: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where the footprint reaches beyond the plane, the same of each: shape (1, y.length, x.length)."""
        rows, columns = self.y.beyond(0, np.any(support, axis=1)), self.x.beyond(0, np.any(support, axis=0))
        return np.asarray(rows[None, :, None] | columns)

    def dilated(self, flags: NDArray[Any], support: NDArray[np.bool_]) -> NDArray[Any]:
        """OR over the footprint of every pixel of some planes."""
        if not flags.any():
            return np.zeros_like(flags)
        y, x = self.y.kernel // 2, self.x.kernel // 2
        wide = np.zeros((len(flags), self.y.side, self.x.side), flags.dtype)
        wide[:, y : y + self.y.length, x : x + self.x.length] = flags
        return np.asarray(dilated(wide, support))


class StackedKernels:
    """The kernels of a stack; see `LocalKernel`.

    Parameters
    ----------
    images : array, shape (N, ky, kx)
    stack : Stack
    accuracy : float
        The largest rounding error, in units of what the kernel makes of what is faint.
    dtype
        Of the planes.
    """

    def __init__(self, images: FloatArray, stack: Stack, accuracy: float, dtype: Any) -> None:
        self.images, self.stack, self.dtype = images, stack, np.dtype(dtype)
        self.least = np.abs(images).sum(axis=(1, 2)) / (accuracy * np.maximum(response(images), TINY))

    def totals(self, batch: Sequence[int]) -> FloatArray:
        """The sum of the kernel, the same at every pixel: shape (n, 1, 1)."""
        return np.asarray(self.images[batch[0] : batch[-1] + 1].sum(axis=(1, 2), keepdims=True), self.dtype)

    def within_frame(self, batch: Sequence[int]) -> FloatArray:
        """As `totals`, of the part of the kernel that falls on the plane: by a table of its running sums."""
        images = self.images[batch[0] : batch[-1] + 1]
        running = np.pad(images.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        y, x = self.stack.y, self.stack.x
        (low_y, high_y), (low_x, high_x) = y.reach(*y.frame(0)), x.reach(*x.frame(0))
        rows = (running[:, high_y] - running[:, low_y]).astype(self.dtype)
        out = np.empty((len(batch), low_y.size, low_x.size), self.dtype)
        out[...] = rows[:, :, -1:]
        for part in _unlike(low_x > 0), _unlike(high_x < x.kernel):
            out[:, :, part] = rows[:, :, high_x[part]] - rows[:, :, low_x[part]]
        return out

    def convolve(self, cut: FloatArray, batch: Sequence[int], floor: FloatArray) -> FloatArray:
        """Convolve a cut; those planes in double precision whose rounding errors would be too large.

        A few bright pixels, whose absence would make them small enough, are taken from the cut and added by hand.
        """
        here = slice(batch[0], batch[-1] + 1)
        largest = floor[:, 0, 0].astype(float) / (ROUNDING * self.least[here])
        largest = np.minimum(largest, HUGE / np.prod(self._lengths)) * np.sqrt(self._lengths[1])
        precise = np.array(brightest_rows(np, cut)) > largest
        if not precise.any():
            return self._product(cut, self.images[here])
        bright = self._few_bright(cut, np.where(precise, largest, np.inf))
        precise &= [not pixels for pixels in bright]
        out = np.empty_like(cut)
        for dtype, chosen in ((np.dtype(float), precise), (self.dtype, ~precise)):
            if chosen.all():
                out[...] = self._product(np.asarray(cut, dtype), self.images[here])
            elif chosen.any():
                out[chosen] = self._product(cut[chosen].astype(dtype), self.images[here][chosen])
        for k, pixels in zip(batch, bright, strict=True):
            self.add_pixels(out[k - batch[0]], k, pixels)
        return out

    def _few_bright(self, cut: FloatArray, largest: FloatArray) -> list[list[tuple[int, int, float]]]:
        """Of each plane the pixels (row, column, value), zero from now on, without which no row is too bright.

        None where they are many, or that is not enough.
        """
        _, ny, nx = cut.shape
        flat = cut.reshape(-1)
        where = np.flatnonzero(abs(cut) > BRIGHT * largest[:, None, None])
        plane = where // (ny * nx)
        few = np.bincount(plane, minlength=len(cut)) * SPARSE <= ny * nx
        where = where[few[plane]]
        values, plane = flat[where], where // (ny * nx)
        flat[where] = 0
        enough = (np.array(brightest_rows(np, cut)) <= largest)[plane]
        flat[where[~enough]] = values[~enough]
        out: list[list[tuple[int, int, float]]] = [[] for _ in cut]
        for k, at, value in zip(plane[enough].tolist(), where[enough].tolist(), values[enough].tolist(), strict=True):
            out[k].append((at // nx % ny, at % nx, value))
        return out

    @property
    def _lengths(self) -> tuple[int, int]:
        """Of the transforms: no more than one margin, as the other is its continuation."""
        y, x = self.stack.y, self.stack.x
        return fast_length(y.length + y.kernel // 2), fast_length(x.length + x.kernel // 2)

    def _product(self, cut: FloatArray, images: FloatArray) -> FloatArray:
        """The outputs of some cuts, in their precision."""
        from scipy import fft

        ny, nx = self._lengths
        # Of small images, matrix products are faster than transforms of what is mostly zeros.
        along_y, along_x = _waves(ny, ny, images.shape[1]), _waves(nx, nx // 2 + 1, images.shape[2])
        kind = complex_type(np, cut.dtype)
        spectra = along_y.astype(kind) @ (images @ along_x.T).astype(kind)
        spectra *= fft.fft(fft.rfft(cut, nx), ny, axis=1, overwrite_x=True)
        y, x = self.stack.y.kernel // 2, self.stack.x.kernel // 2
        out = fft.irfft(fft.ifft(spectra, axis=1, overwrite_x=True)[:, y : y + cut.shape[1]], nx)
        return np.asarray(out[:, :, x : x + cut.shape[2]])

    def add_pixels(self, out: FloatArray, place: int, pixels: Sequence[tuple[int, int, float]]) -> None:
        """Add to the output of a plane what single pixels (row, column, value) of it give."""
        y, x = self.stack.y, self.stack.x
        for row, column, value in pixels:
            y0, x0 = row - y.kernel // 2, column - x.kernel // 2
            top, bottom = max(y0, 0), min(y0 + y.kernel, y.length)
            left, right = max(x0, 0), min(x0 + x.kernel, x.length)
            image = self.images[place, top - y0 : bottom - y0, left - x0 : right - x0]
            out[top:bottom, left:right] += (value * image).astype(self.dtype)

    def take_out(self, out: FloatArray, place: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Subtract, from values of the output of a plane, the sum of the kernel over a rectangle of it."""
        where, sums = [], np.pad(self.images[place].cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        for k, (axis, (first, last)) in enumerate(((self.stack.y, rows), (self.stack.x, columns))):
            read = first + axis.kernel // 2, last + axis.kernel // 2
            where.append(axis.reached(*read))
            low, high = (ends[where[k]] for ends in axis.reach(*read))
            sums = sums.take(high, axis=k) - sums.take(low, axis=k)
        out[tuple(where)] -= sums.astype(self.dtype)


def _unlike(flags: NDArray[np.bool_]) -> slice:
    """From the first to the last that is set."""
    where = np.flatnonzero(flags)
    return slice(where[0], where[-1] + 1) if where.size else slice(0, 0)


@lru_cache(maxsize=16)
def _waves(length: int, count: int, pixels: int) -> NDArray[Any]:
    """The first waves of a transform of some length, at the first pixels: shape (count, pixels)."""
    return np.asarray(np.exp(-2j * np.pi / length * (np.outer(np.arange(count), np.arange(pixels)) % length)))
