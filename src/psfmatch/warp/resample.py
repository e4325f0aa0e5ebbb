"""Image, variance and mask at positions between pixels, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psfmatch.exposure import Exposure, Mask, Planes
from psfmatch.geometry import Box, FloatArray
from psfmatch.warp.interpolation import Interpolation, quick_weights
from psfmatch.warp.mesh import Surface, Where

__all__ = ["Source", "blocks"]

BLOCK = 128
LEAST_KEPT = 0.5
ROWS = 2048


def blocks(box: Box, side: int = BLOCK) -> Iterator[Box]:
    """A box in parts of ``side`` px."""
    for y in range(box.y0, box.y1, side):
        for x in range(box.x0, box.x1, side):
            yield Box(y, x, min(y + side, box.y1), min(x + side, box.x1))


@dataclass(frozen=True, eq=False)
class _Cut:
    """A part of the exposure, with a margin beyond its border.

    Parameters
    ----------
    values : array, shape (ny nx, 1 or 2)
        Image, and variance; zero where a pixel is missing.
    flags : array, shape (ny nx)
        Mask, with INTRP where a pixel is missing and EDGE alone beyond the border.
    good : array of bool, shape (ny nx)
    box : Box
    """

    values: FloatArray
    flags: NDArray[np.integer]
    good: NDArray[np.bool_]
    box: Box


@dataclass(frozen=True, eq=False)
class Source:
    """What is interpolated.

    Parameters
    ----------
    exposure : Exposure
    mask : Mask
        Its mask, with the planes EDGE, INTRP and NO_DATA.
    interpolation : Interpolation
    """

    exposure: Exposure
    mask: Mask
    interpolation: Interpolation

    @property
    def dtype(self) -> np.dtype:
        """The precision of the sums."""
        planes = [p for p in (self.exposure.image, self.exposure.variance) if p is not None]
        return np.result_type(*(p.dtype for p in planes)).newbyteorder("=")

    def outputs(self, shape: tuple[int, int]) -> Planes:
        """Planes without data."""
        image, variance = self.exposure.image, self.exposure.variance
        return Planes(
            np.full(shape, np.nan, image.dtype.newbyteorder("=")),
            None if variance is None else np.full(shape, np.inf, variance.dtype.newbyteorder("=")),
            np.full(shape, self.mask.bits("NO_DATA"), self.mask.array.dtype.newbyteorder("=")),
        )

    def fill(self, out: Planes, surface: Surface, block: Box, frame: Box) -> None:
        """Compute a block of the outputs, which cover ``frame``, where it falls on the exposure."""
        where, box = surface.at(block), self.exposure.box
        inside = (where.x >= box.x0 - 0.5) & (where.x < box.x1 - 0.5)
        inside &= (where.y >= box.y0 - 0.5) & (where.y < box.y1 - 0.5)
        if not inside.any():
            return
        values, flags = self._interpolated(Where(*(plane[inside] for plane in where)))
        here = block.slices(frame)
        for plane, result in zip((out.image, out.variance), values.T, strict=False):
            plane[here][inside] = result
        out.mask[here][inside] = flags

    def _interpolated(self, where: Where) -> tuple[FloatArray, NDArray[np.integer]]:
        """Image and variance (n, 1 or 2), and mask, at n positions."""
        order, dtype = self.interpolation.order, self.dtype
        floor_x, floor_y = np.floor(where.x), np.floor(where.y)
        wx = quick_weights(self.interpolation, where.x - floor_x, dtype)
        wy = quick_weights(self.interpolation, where.y - floor_y, dtype)
        first_x, first_y = floor_x.astype(np.intp) + 1 - order, floor_y.astype(np.intp) + 1 - order
        cut = self._cut(
            Box(int(first_y.min()), int(first_x.min()), int(first_y.max()) + 2 * order, int(first_x.max()) + 2 * order)
        )
        stride = cut.box.shape[1]
        start = (first_y - cut.box.y0) * stride + (first_x - cut.box.x0)
        values = _weighted(cut.values, start, stride, wx, wy)
        flags = np.zeros(start.size, cut.flags.dtype)
        if cut.flags.any():
            near = np.flatnonzero(_windows(cut.flags.reshape(cut.box.shape) != 0, 2 * order).ravel()[start])
            for k in range(0, near.size, ROWS):
                part = near[k : k + ROWS]
                self._repair(values, flags, cut, start[part], part, wx[:, part], wy[:, part])
        scale = np.abs(where.determinant).astype(dtype)[:, None]
        values *= scale if values.shape[1] == 1 else np.concatenate([scale, scale**2], axis=1)
        return values, flags

    def _repair(
        self, values: FloatArray, flags: NDArray[np.integer], cut: _Cut, start: NDArray[np.intp],
        which: NDArray[np.intp], wx: FloatArray, wy: FloatArray,
    ) -> None:  # fmt: skip
        """Flags of pixels that have some under their footprint, and values without those that are missing."""
        taps = np.arange(2 * self.interpolation.order)
        index = start[:, None] + (taps[:, None] * cut.box.shape[1] + taps).ravel()
        weights = (wy.T[:, :, None] * wx.T[:, None, :]).reshape(index.shape)
        heard = np.abs(weights) > self.interpolation.mask_share
        spread = np.bitwise_or.reduce(np.where(heard, cut.flags[index], 0), axis=1)
        good = cut.good[index]
        kept = (weights * good).sum(axis=1)
        lost = ~((kept >= LEAST_KEPT) & (kept <= 1.0 / LEAST_KEPT))
        kept[good.all(axis=1) | lost] = 1.0
        values[which, 0] = np.where(lost, np.nan, values[which, 0] / kept)
        if values.shape[1] > 1:
            values[which, 1] = np.where(lost, np.inf, values[which, 1] / kept**2)
        spread[lost] |= self.mask.bits("NO_DATA")
        flags[which] = spread

    def _cut(self, box: Box) -> _Cut:
        image, variance, frame = self.exposure.image, self.exposure.variance, self.exposure.box
        values = np.zeros((*box.shape, 1 if variance is None else 2), self.dtype)
        flags = np.full(box.shape, self.mask.bits("EDGE"), self.mask.array.dtype.newbyteorder("="))
        good = np.zeros(box.shape, bool)
        y0, y1, x0, x1 = max(box.y0, frame.y0), min(box.y1, frame.y1), max(box.x0, frame.x0), min(box.x1, frame.x1)
        part = Box(y0, x0, y1, x1)
        here, there = part.slices(box), part.slices(frame)
        flags[here] = self.mask.array[there]
        excluded = self.mask.bits(*(name for name in self.interpolation.exclude if name in self.mask.planes))
        usable = np.isfinite(image[there]) & (flags[here] & excluded == 0)
        values[here][..., 0] = image[there]
        if variance is not None:
            usable &= np.isfinite(variance[there])
            values[here][..., 1] = variance[there]
        good[here] = usable
        if not usable.all():
            values[here][~usable] = 0.0
            flags[here][~usable] |= self.mask.bits("INTRP")
        return _Cut(values.reshape(-1, values.shape[2]), flags.ravel(), good.ravel(), box)


def _weighted(values: FloatArray, start: NDArray[np.intp], stride: int, wx: FloatArray, wy: FloatArray) -> FloatArray:
    """Sums over the footprints that begin at ``start``: weights times image, squared weights times variance."""
    channels = values.shape[1]
    weights_x, weights_y = (np.stack([w, w * w], axis=2) if channels == 2 else w[:, :, None] for w in (wx, wy))
    out = np.zeros((start.size, channels), values.dtype)
    row, term, index = np.empty_like(out), np.empty_like(out), np.empty_like(start)
    for j, weight_y in enumerate(weights_y):
        row[...] = 0
        for i, weight_x in enumerate(weights_x):
            np.add(start, j * stride + i, out=index)
            np.take(values, index, axis=0, out=term, mode="clip")
            term *= weight_x
            row += term
        row *= weight_y
        out += row
    return out


def _windows(flags: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Whether any is set among ``side`` x ``side`` that begin at a pixel, False where these reach beyond the array."""
    out = np.zeros_like(flags)
    ny, nx = (n - side + 1 for n in flags.shape)
    rows = flags[:ny].copy()
    for k in range(1, side):
        rows |= flags[k : k + ny]
    for k in range(side):
        out[:ny, :nx] |= rows[:, k : k + nx]
    return out
