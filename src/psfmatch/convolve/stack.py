"""Many small exposures at once: a stack of planes, each with its own constant kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import norms
from psfmatch.convolve.blocks import Axis, fast_length
from psfmatch.convolve.local import HUGE, ROUNDING, TINY, response
from psfmatch.geometry import FloatArray

__all__ = ["Stack", "StackedKernels"]


@dataclass(frozen=True)
class Stack:
    """Planes of one shape, each a block of its own; see `Blocks`, whose batches are places, and here numbers.

    Parameters
    ----------
    y, x : Axis
    """

    y: Axis
    x: Axis

    @classmethod
    def of(cls, shape: tuple[int, int], kernel: tuple[int, int]) -> Stack:
        """For planes and kernels of these shapes.

        Planes with margins on both sides; transforms need no more than one, as the other is its continuation.
        """
        sides = [max(n + k - 1, fast_length(n + k // 2)) for n, k in zip(shape, kernel, strict=True)]
        return cls(*(Axis(n, k, side, 1, 0) for n, k, side in zip(shape, kernel, sides, strict=True)))

    def cut(self, planes: Sequence[Any], batch: Sequence[int], dtype: Any) -> NDArray[Any]:
        """Some planes, shape (n, y.side, x.side), with zeros about them."""
        out = np.zeros((len(batch), self.y.side, self.x.side), dtype)
        y, x = self.y.kernel // 2, self.x.kernel // 2
        for target, k in zip(out, batch, strict=True):
            target[y : y + self.y.length, x : x + self.x.length] = planes[k]
        return out

    def put(self, planes: list[Any], batch: Sequence[int], values: NDArray[Any]) -> None:
        """Hand over the output of some planes."""
        planes[batch[0] : batch[-1] + 1] = values[:, : self.y.length, : self.x.length]

    def inside(self, batch: Sequence[int]) -> NDArray[np.bool_]:
        """Which pixels of a cut lie in the plane, the same of each: shape (1, y.side, x.side)."""
        return np.asarray(self.y.inside(0)[None, :, None] & self.x.inside(0))


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
        """As `totals`, of the part of the kernel that falls on the plane."""
        images = self.images[batch[0] : batch[-1] + 1]
        running = np.pad(images.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
        (low_y, high_y), (low_x, high_x) = self.stack.y.reach(0), self.stack.x.reach(0)
        rows = (running[:, high_y] - running[:, low_y]).astype(self.dtype)
        result: FloatArray = rows[:, :, high_x] - rows[:, :, low_x]
        return result

    def convolve(self, cut: FloatArray, batch: Sequence[int], floor: FloatArray) -> FloatArray:
        """Convolve a cut; those planes in double precision whose rounding errors would be too large."""
        y, x = self.stack.y, self.stack.x
        side, sizes = np.sqrt(y.side * x.side), np.array(norms(np, cut))
        here = slice(batch[0], batch[-1] + 1)
        precise = ROUNDING / side * sizes * self.least[here] > floor[:, 0, 0].astype(float)
        precise |= sizes * side > HUGE
        out = np.empty((len(batch), y.step, x.step), self.dtype)
        for dtype, chosen in ((np.dtype(float), precise), (self.dtype, ~precise)):
            if chosen.any():
                out[chosen] = self._product(cut[chosen].astype(dtype), self.images[here][chosen].astype(dtype))
        return out

    def _product(self, cut: FloatArray, images: FloatArray) -> FloatArray:
        """The outputs of some cuts, all in one precision."""
        from scipy import fft

        y, x = self.stack.y, self.stack.x
        ny, nx = (fast_length(axis.length + axis.kernel // 2) for axis in (y, x))
        spectra = fft.fft(fft.rfft(images, nx), ny, axis=1, overwrite_x=True)
        spectra *= fft.rfft2(cut[:, y.side - ny :, x.side - nx :])
        out = fft.irfft(fft.ifft(spectra, axis=1, overwrite_x=True)[:, ny - y.step :], nx)
        return np.asarray(out[:, :, nx - x.step :])

    def add_pixels(self, out: FloatArray, place: int, pixels: Sequence[tuple[int, int, float]]) -> None:
        """Add to an output (y.step, x.step) what single pixels (row, column, value) of a cut give."""
        y, x = self.stack.y, self.stack.x
        for row, column, value in pixels:
            y0, x0 = row - (y.kernel - 1), column - (x.kernel - 1)
            top, bottom, left, right = max(y0, 0), min(row + 1, y.step), max(x0, 0), min(column + 1, x.step)
            image = self.images[place, top - y0 : bottom - y0, left - x0 : right - x0]
            out[top:bottom, left:right] += (value * image).astype(self.dtype)
