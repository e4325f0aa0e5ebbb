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
ROWS = 8192


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
        for part in _near(cut.flags != 0, cut.box.shape, start, 2 * order):
            flags[part] = _heard(
                cut.flags, start[part], stride, wx[:, part], wy[:, part], self.interpolation.mask_share
            )
        for part in _near(~cut.good, cut.box.shape, start, 2 * order):
            kept = _weighted(cut.good[:, None].astype(dtype), start[part], stride, wx[:, part], wy[:, part])
            lost = ~((kept >= LEAST_KEPT) & (kept <= 1.0 / LEAST_KEPT))[:, 0]
            kept[lost] = 1.0
            values[part] /= kept if values.shape[1] == 1 else np.concatenate([kept, kept**2], axis=1)
            values[part[lost]] = (np.nan, np.inf)[: values.shape[1]]
            flags[part[lost]] |= self.mask.bits("NO_DATA")
        scale = np.abs(where.determinant).astype(dtype)[:, None]
        values *= scale if values.shape[1] == 1 else np.concatenate([scale, scale**2], axis=1)
        return values, flags

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


def _near(
    flags: NDArray[np.bool_], shape: tuple[int, int], start: NDArray[np.intp], side: int
) -> Iterator[NDArray[np.intp]]:
    """Which footprints of ``side`` x ``side`` pixels hold a flag, some at a time."""
    if flags.any():
        near = np.flatnonzero(_windows(flags.reshape(shape), side).ravel()[start])
        for k in range(0, near.size, ROWS):
            yield near[k : k + ROWS]


def _heard(
    flags: NDArray[np.integer], start: NDArray[np.intp], stride: int, wx: FloatArray, wy: FloatArray, share: float
) -> NDArray[np.integer]:
    """All flags in the footprints that begin at ``start`` of pixels whose weight is above a share in size."""
    squares_x, squares_y = wx * wx, wy * wy
    most_x, most_y = squares_x.max(axis=1), squares_y.max(axis=1)
    out, term = np.zeros(start.size, flags.dtype), np.empty(start.size, flags.dtype)
    index, weight = np.empty_like(start), np.empty_like(squares_x[0])
    for j, i in zip(*np.nonzero(np.multiply.outer(most_y, most_x) > share**2), strict=True):
        np.add(start, j * stride + i, out=index)
        np.take(flags, index, out=term, mode="clip")
        np.multiply(squares_y[j], squares_x[i], out=weight)
        term *= weight > share**2
        out |= term
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
