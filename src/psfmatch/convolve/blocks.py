"""The frame, cut into blocks of one size that overlap by the kernel's margin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import namespace
from psfmatch.convolve.flags import dilated
from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray

__all__ = ["Axis", "Batch", "Blocks", "fast_length"]

SHORTEST = 480
KERNELS = 8


@dataclass(frozen=True)
class Axis:
    """One axis of the frame.

    Parameters
    ----------
    length : int
        Pixels of the frame.
    kernel : int
        Pixels of the kernel, odd.
    side : int
        Length of the transforms.
    count : int
        Blocks.
    origin : int
        The first pixel's coordinate in the parent frame.
    """

    length: int
    kernel: int
    side: int
    count: int
    origin: int

    @classmethod
    def of(cls, length: int, kernel: int, origin: int, block: int | None) -> Axis:
        """Blocks of about equal size, on transforms of a fast length.

        Raises
        ------
        InputError
            If the block is less than twice the kernel.
        """
        longest = block or max(SHORTEST, KERNELS * kernel)
        if longest < 2 * kernel:
            raise InputError(f"FFT block={block} is less than twice the kernel's {kernel} px; take a larger block")
        least = -(-length // (longest - kernel + 1))
        sides = {count: fast_length(-(-length // count) + kernel - 1) for count in range(least, least + 4)}
        side = min(sides.items(), key=lambda item: item[0] * item[1])[1]
        return cls(length, kernel, side, -(-length // (side - kernel + 1)), origin)

    @property
    def step(self) -> int:
        """Pixels of the output in a block; the last block may reach beyond the frame."""
        return self.side - self.kernel + 1

    def span(self, k: int) -> tuple[int, int]:
        """First and last + 1 row (or column) of the frame in the output of a block."""
        return k * self.step, min((k + 1) * self.step, self.length)

    @cached_property
    def positions(self) -> FloatArray:
        """Coordinates in the parent frame of all pixels of the output of each block: shape (count, step)."""
        return self.origin + self.step * np.arange(self.count)[:, None] + np.arange(self.step, dtype=float)

    @cached_property
    def read(self) -> FloatArray:
        """Coordinates in the parent frame of all pixels that each block reads: shape (count, side)."""
        first = self.origin + self.step * np.arange(self.count)[:, None] - self.kernel // 2
        return first + np.arange(self.side, dtype=float)

    def inside(self, k: int) -> NDArray[np.bool_]:
        """Which pixels that a block reads lie in the frame."""
        index = self.read[k] - self.origin
        return np.asarray((index >= 0) & (index < self.length))

    def frame(self, k: int) -> tuple[int, int]:
        """First and last + 1 of the pixels that a block reads that lie in the frame, as if it read them all."""
        start = self.kernel // 2 - k * self.step
        return start, start + self.length

    def reach(self, first: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The kernel's pixels, first and last + 1, that fall on some that a block reads, for each one of its output."""
        index = np.arange(self.step) + self.kernel
        low, high = [np.minimum(np.maximum(index - end, 0), self.kernel) for end in (last, first)]
        return low, high

    def cut(self, first: int, last: int) -> NDArray[np.intp]:
        """The pixels of a block's output of whose kernel a part does not fall on some that it reads."""
        low, high = self.reach(first, last)
        return np.flatnonzero((low > 0) | (high < self.kernel))

    def reached(self, first: int, last: int) -> slice:
        """The pixels of a block's output whose kernel falls on some that it reads."""
        return slice(max(first - self.kernel + 1, 0), max(min(last, self.step), 0))

    def beyond(self, k: int, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For which pixels of the output of a block the used ones of the kernel's pixels reach beyond the frame."""
        offsets = np.flatnonzero(used) - self.kernel // 2
        index = k * self.step + np.arange(self.step)
        return np.asarray((index < offsets.max()) | (index - offsets.min() >= self.length))


def fast_length(least: int) -> int:
    """The least length, not below a given one, whose transforms are fast: a multiple of 16 without factors above 5."""
    length = -(-least // 16) * 16
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 16


Batch = Sequence[tuple[int, int]]
"""Blocks that are convolved together: their places (row, column) in the grid of blocks."""


@dataclass(frozen=True)
class Blocks:
    """All blocks of a frame.

    Parameters
    ----------
    y, x : Axis
    """

    y: Axis
    x: Axis

    def batches(self, size: int) -> Iterator[Batch]:
        """All blocks, row by row, ``size`` at a time."""
        places = [(row, column) for row in range(self.y.count) for column in range(self.x.count)]
        for k in range(0, len(places), size):
            yield places[k : k + size]

    def cut(self, plane: Any, batch: Batch, dtype: Any) -> Any:
        """What the blocks read, shape (n, y.side, x.side), in the native byte order: a copy, zero beyond the frame."""
        xp = namespace(plane)
        if xp is np:
            out = np.empty((len(batch), self.y.side, self.x.side), dtype)
        else:
            out = xp.empty((len(batch), self.y.side, self.x.side), dtype=dtype, device=plane.device)
        for target, place in zip(out, batch, strict=True):
            here, there = [], []
            for axis, k in zip((self.y, self.x), place, strict=True):
                start = k * axis.step - axis.kernel // 2
                first, last = max(start, 0), min(start + axis.side, axis.length)
                there.append(slice(first, last))
                here.append(slice(first - start, last - start))
            if self.at_border(place):
                target[...] = 0
            target[here[0], here[1]] = plane[there[0], there[1]]
        return out

    def put(self, plane: Any, batch: Batch, values: Any) -> None:
        """Write the output of the blocks, shape (n, y.step, x.step), where it lies in the frame."""
        for value, (row, column) in zip(values, batch, strict=True):
            (y0, y1), (x0, x1) = self.y.span(row), self.x.span(column)
            plane[y0:y1, x0:x1] = value[: y1 - y0, : x1 - x0]

    def at_border(self, place: tuple[int, int]) -> bool:
        """Whether a block reads pixels beyond the frame."""
        return place in self._border

    @cached_property
    def _border(self) -> frozenset[tuple[int, int]]:
        rows, columns = ({k for k in range(a.count) if not a.inside(k).all()} for a in (self.y, self.x))
        return frozenset((r, c) for r in range(self.y.count) for c in range(self.x.count) if r in rows or c in columns)

    def inside(self, batch: Batch) -> NDArray[np.bool_] | None:
        """Which pixels that the blocks read lie in the frame, shape (n, y.side, x.side); None if all do."""
        if not any(self.at_border(place) for place in batch):
            return None
        return np.stack([self.y.inside(r)[:, None] & self.x.inside(c)[None, :] for r, c in batch])

    def beyond(self, batch: Batch, support: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Where the footprint reaches beyond the frame, shape (n, y.step, x.step); None if nowhere."""
        if not any(self.at_border(place) for place in batch):
            return None
        rows, columns = np.any(support, axis=1), np.any(support, axis=0)
        return np.stack([self.y.beyond(r, rows)[:, None] | self.x.beyond(c, columns) for r, c in batch])

    def dilated(self, flags: Any, support: NDArray[np.bool_]) -> Any:
        """OR over the footprint of every output pixel."""
        return dilated(flags, support)
