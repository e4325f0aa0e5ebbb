"""The mask planes that output pixels inherit: OR over the kernel's footprint."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.arrays import namespace

__all__ = ["dilated", "places", "rectangles"]

SPARSE = 1500
"""Pixels for each flag that may be spread on its own."""


def dilated(flags: Any, support: NDArray[np.bool_]) -> Any:
    """OR over the footprint of every output pixel, ``out(x) = OR_u flags(x - u)``.

    By doubling, along rows and then along columns: for a rectangular footprint the cost does not depend on its area,
    for another one it grows with the number of runs of pixels in it, about its height.

    Parameters
    ----------
    flags : array of integers or bool, shape (n, sy, sx)
        With the kernel's margin.
    support : array of bool, shape (ky, kx)
        The kernel's pixels that are not zero.

    Returns
    -------
    array, shape (n, sy - ky + 1, sx - kx + 1)
    """
    xp = namespace(flags)
    ky, kx = support.shape
    ny, nx = flags.shape[1] - ky + 1, flags.shape[2] - kx + 1
    lit = flags != 0
    if not bool(xp.any(lit)):
        return xp.zeros_like(flags[:, :ny, :nx])
    if support.all():
        if xp is np and np.count_nonzero(lit) * SPARSE <= flags.size:
            return _around_each(flags, lit, ky, kx)
        return _running_or(_running_or(flags, ky, ny, 1), kx, nx, 2)
    out = xp.zeros_like(flags[:, :ny, :nx])
    width, wide = 0, flags
    for row, start, length in _runs(support.shape, support.tobytes()):
        if length != width:
            width, wide = length, _running_or(flags, length, flags.shape[2] - length + 1, 2)
        y, x = ky - 1 - row, kx - start - length
        out |= wide[:, y : y + ny, x : x + nx]
    return out


def places(flags: Any) -> list[tuple[int, int, int]]:
    """Where flags (n, ny, nx) are set: (plane, row, column)."""
    _, ny, nx = flags.shape
    return [(k // (ny * nx), k // nx % ny, k % nx) for k in _lit(flags).tolist()]


def _lit(flags: Any) -> NDArray[np.intp]:
    """What is set in flags, numbered through."""
    found = namespace(flags).nonzero(flags.reshape((-1,)))[0]
    return found if isinstance(found, np.ndarray) else np.array(found.tolist(), np.intp)


def rectangles(flags: Any) -> NDArray[np.intp]:
    """What is set in flags of bool (n, ny, nx), as rectangles apart from each other: rows (plane, y0, y1, x0, x1).

    Runs along rows, of which equal ones below each other are put together.
    """
    nx = flags.shape[2]
    lit = _lit(flags)
    new = (np.diff(lit) > 1) | (lit[1:] % nx == 0)
    first, last = lit[np.append(True, new)[: len(lit)]], lit[np.append(new, True)[: len(lit)]]
    plane, row, column = np.unravel_index(first, flags.shape)
    runs = np.stack([plane, row, row + 1, column, column + 1 + last - first], axis=1)
    runs = runs[np.lexsort((row, runs[:, 4], column, plane))]
    above, below = runs[:-1], runs[1:]
    new = (above[:, [0, 3, 4]] != below[:, [0, 3, 4]]).any(axis=1) | (above[:, 2] != below[:, 1])
    out: NDArray[np.intp] = runs[np.append(True, new)[: len(runs)]]
    out[:, 2] = runs[np.append(new, True)[: len(runs)], 2]
    return out


def _around_each(flags: NDArray[Any], lit: NDArray[np.bool_], ky: int, kx: int) -> NDArray[Any]:
    """For a rectangular footprint and few flags, one by one."""
    out = np.zeros((len(flags), flags.shape[1] - ky + 1, flags.shape[2] - kx + 1), flags.dtype)
    for k, y, x in places(lit):
        out[k, max(0, y - ky + 1) : y + 1, max(0, x - kx + 1) : x + 1] |= flags[k, y, x]
    return out


@lru_cache(maxsize=16)
def _runs(shape: tuple[int, int], support: bytes) -> list[tuple[int, int, int]]:
    """Runs of pixels (row, first column, length), sorted by length."""
    rows = np.frombuffer(support, bool).reshape(shape)
    steps = np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    runs = [(int(r), int(a), int(b - a)) for (r, a), (_, b) in zip(starts, ends, strict=True)]
    return sorted(runs, key=lambda run: run[2])


def _running_or(flags: Any, width: int, count: int, axis: int) -> Any:
    """OR of ``width`` consecutive pixels along an axis, for the first ``count`` starts."""

    def part(a: Any, first: int, last: int) -> Any:
        return a[:, first:last, :] if axis == 1 else a[:, :, first:last]

    reach = 1
    while 2 * reach <= width:
        n = flags.shape[axis]
        flags = part(flags, 0, n - reach) | part(flags, reach, n)
        reach *= 2
    rest = width - reach
    return part(flags, 0, count) | part(flags, rest, rest + count)
