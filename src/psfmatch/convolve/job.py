"""What is done to every block, whatever it was cut from: clean it, convolve it, complete it, write it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from psfmatch.convolve.arrays import namespace
from psfmatch.convolve.flags import places, rectangles
from psfmatch.convolve.footprint import Bits, Edge, Sums, finish, usable
from psfmatch.exposure import Planes
from psfmatch.machine import keep_freed_memory, one_blas_thread

__all__ = ["Job"]

SAMPLE = 24
CONTRAST = {4: 1e9, 8: 1e5}
PART = 1e5
SPARSE = 2500
"""Pixels of the blocks for each that may be convolved by hand: more of them are left to the transforms."""
ONE = 1000
"""Pixels of the blocks for each rectangle of holes, besides those around it."""
TILES = 4
SPREADS = 3.0
DARK = 4.0
FAINT = 50
"""One in so many pixels is as faint as the faintest that count."""
GARBAGE = {4: 1e3, 8: 1e9}
"""Beyond this contrast to them, nothing counts for the level of a block."""


@dataclass(frozen=True, eq=False)
class Job:
    """One convolution.

    Parameters
    ----------
    xp
        The namespace of the planes.
    source : Blocks or Stack
        Cuts the planes into blocks, and puts the results where they belong.
    planes, out : Planes
        What is read and what is written.
    types : Planes
        The types of the planes, in the native byte order.
    kernel, squared : LocalKernel or StackedKernels
        The kernel, and the kernel of the variance (None without one).
    support : array of bool, shape (ky, kx)
        The kernel's pixels that are not zero.
    bits : Bits
        Mask values that are read and set.
    edge : {"renormalize", "nan"}
        See `psfmatch.FFT`.
    """

    xp: Any
    source: Any
    planes: Planes
    out: Planes
    types: Planes
    kernel: Any
    squared: Any
    support: Any
    bits: Bits
    edge: Edge

    def run_all(self, batches: Iterable[Any], threads: int) -> None:
        """All batches, some at a time; the result does not depend on how many."""
        keep_freed_memory()
        with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self.run, batches):
                pass

    def run(self, batch: Any) -> None:
        """Convolve some blocks and write them."""
        xp, source, planes = self.xp, self.source, self.planes
        flags = source.cut(planes.mask, batch, self.types.mask)
        image = source.cut(planes.image, batch, self.types.image)
        noise = None if self.squared is None else source.cut(planes.variance, batch, self.types.variance)
        good, sure = usable(image, noise, flags, self.bits.excluded, self.edge)
        inside = self._here(source.inside(batch), image)
        present = good if inside is None else good & inside
        level, floor = _level_and_floor(_sample(image), _sample(present))
        # Without its level, the image's rounding errors are those of its contrast.
        image -= level
        gaps = not (bool(xp.all(good)) and (sure is good or bool(xp.all(sure))))
        if gaps or inside is not None:
            image[~present] = 0
        sums = Sums(self._convolved(self.kernel, image, batch, floor), None)
        if noise is not None and self.squared is not None:
            if gaps:
                noise[~sure] = 0
            floor = _level_and_floor(_sample(noise), _sample(sure))[1]
            # Where less is left than the error of K^2 next to something bright, that error: zero would weigh most.
            sums.variance = abs(self._convolved(self.squared, noise, batch, floor))
        spread = source.dilated(flags, self.support)
        sums.beyond = self._here(source.beyond(batch, self.support), image)
        if gaps or sums.beyond is not None:
            self._complete(sums, batch, good, sure, level)
            finish(sums, spread, self.bits, self.edge)
        else:
            sums.image += level * self.kernel.totals(batch)
        source.put(self.out.image, batch, sums.image)
        source.put(self.out.mask, batch, spread)
        if sums.variance is not None:
            source.put(self.out.variance, batch, sums.variance)

    def _here(self, flags: Any, image: Any) -> Any:
        """Flags of NumPy in the namespace and on the device of an image."""
        return flags if flags is None or self.xp is np else self.xp.asarray(flags, device=image.device)

    def _complete(self, sums: Sums, batch: Any, good: Any, sure: Any, level: Any) -> None:
        """What the rules for footprints that are not whole need to know."""
        xp, source = self.xp, self.source
        holes = ~good
        gaps = bool(xp.any(holes))
        sums.missing = source.dilated(holes, self.support) if gaps else None
        sums.unsure = sums.missing if sure is good else source.dilated(~sure, self.support)
        sums.totals = self.kernel.totals(batch)
        if self.edge == "renormalize":
            sums.kept = self.kernel.totals(batch) if sums.beyond is None else self.kernel.within_frame(batch)
            if gaps:
                self._take_out(sums.kept, holes, batch)
        sums.image += level * (sums.totals if sums.kept is None else sums.kept)

    def _take_out(self, kept: Any, holes: Any, batch: Any) -> None:
        """Subtract the sum of the kernel over some pixels."""
        found = rectangles(holes)
        ky, kx = self.support.shape
        each = ONE + (found[:, 2] - found[:, 1] + ky) * (found[:, 4] - found[:, 3] + kx)
        dear = np.bincount(found[:, 0], each, minlength=len(batch)) > prod(holes.shape[1:])
        if dear.any():
            ones = self.xp.asarray(holes & self._here(dear[:, None, None], holes), dtype=self.types.image)
            kept -= self.kernel.convolve(ones, batch, self.xp.ones_like(ones[:, :1, :1]))
        for k, place in enumerate(batch):
            here = [] if dear[k] else found[found[:, 0] == k, 1:].tolist()
            alone = [(y0, x0, -1.0) for y0, y1, x0, x1 in here if y1 - y0 == x1 - x0 == 1]
            self.kernel.add_pixels(kept[k, ...], place, alone)
            for y0, y1, x0, x1 in here:
                if y1 - y0 > 1 or x1 - x0 > 1:
                    self.kernel.take_out(kept[k, ...], place, (y0, y1), (x0, x1))

    def _convolved(self, kernel: Any, cut: Any, batch: Any, floor: Any) -> Any:
        """Blocks convolved, their outliers on their own."""
        xp = self.xp
        if not bool(xp.all(floor > 0)):
            lit = abs(cut).reshape((cut.shape[0], -1))
            floor = xp.where(floor > 0, floor, _median(lit, lit > 0))
        contrast = CONTRAST[8 if cut.dtype == xp.float64 else 4]
        if max(float(xp.max(cut)), -float(xp.min(cut))) <= contrast * float(xp.min(floor)):
            return kernel.convolve(cut, batch, floor)
        bright = abs(cut) / contrast > floor
        values = xp.where(bright, cut, xp.zeros_like(cut))
        cut[bright] = 0
        out = kernel.convolve(cut, batch, floor)
        many = self._here(np.zeros((len(batch), 1, 1), bool), cut)
        for k, place in enumerate(batch):
            where = places(bright[k : k + 1, ...])
            if len(where) * SPARSE > prod(cut.shape[1:]):
                many[k] = True
                continue
            kernel.add_pixels(out[k, ...], place, [(y, x, float(values[k, y, x])) for _, y, x in where])
        for part in _by_brightness(xp.where(many, values, xp.zeros_like(values))):
            scale = _largest(part)
            scale[scale == 0] = 1
            own = kernel.convolve(part / scale, batch, xp.ones_like(floor) / PART) * scale
            out += xp.where(self.source.dilated(part != 0, self.support), own, xp.zeros_like(own))
        return out


def _sample(cut: Any) -> Any:
    """About a thousand pixels of each block, as many in each of its tiles: shape (n, ty, my, tx, mx)."""
    n, ny, nx = cut.shape
    part = cut[:, :: max(1, ny // SAMPLE), :: max(1, nx // SAMPLE)]
    ty, tx = (min(TILES, side) for side in part.shape[1:])
    my, mx = part.shape[1] // ty, part.shape[2] // tx
    return part[:, : my * ty, : mx * tx].reshape((n, ty, my, tx, mx))


def _median(values: Any, present: Any = None) -> Any:
    """The median of each row (of those present), shape (n, 1, 1)."""
    xp = namespace(values)
    n = values.shape[1]
    if present is None or bool(xp.all(present)):
        return xp.sort(values, axis=1)[:, (n - 1) // 2, None, None]
    ordered = xp.sort(xp.where(present, values, xp.asarray(float("inf"), dtype=values.dtype)), axis=1)
    counts = [max(0, (int(count) - 1) // 2) if count else None for count in xp.sum(present, axis=1)]
    rows = [xp.zeros_like(row[0]) if k is None else row[k] for row, k in zip(ordered, counts, strict=True)]
    return xp.stack(rows)[:, None, None]


def _level_and_floor(sample: Any, present: Any) -> tuple[Any, Any]:
    """What may be subtracted from each block without loss to its faint parts, and its `_floor`: shape (n, 1, 1)."""
    xp = namespace(sample)
    flat = (sample.shape[0], -1)
    present = present & _plausible(sample, present)
    level = _median(sample.reshape(flat), present.reshape(flat))
    wide = level[:, :, :, None, None]
    floor = _floor(xp.where(present, sample - wide, xp.zeros_like(sample)), wide)
    return xp.where(floor < abs(level) / DARK, xp.zeros_like(level), level), floor


def _plausible(sample: Any, present: Any) -> Any:
    """What is not beyond all contrast to the faintest pixels: garbage, even where it fills most of a block."""
    xp = namespace(sample)
    size = xp.where(present & (sample != 0), abs(sample), xp.asarray(float("inf"), dtype=sample.dtype))
    ordered = xp.sort(size.reshape((size.shape[0], -1)), axis=1)
    faint = ordered[:, ordered.shape[1] // FAINT, None, None, None, None]
    with np.errstate(over="ignore"):
        return ~(abs(sample) > GARBAGE[8 if sample.dtype == xp.float64 else 4] * faint)


def _floor(sample: Any, level: Any) -> Any:
    """What passes for faint in each block: level and spread of its faintest tile that is not dark, shape (n, 1, 1)."""
    xp = namespace(sample)
    n, ty, my, tx, mx = sample.shape
    tiles = xp.moveaxis(sample + level, 3, 2).reshape((n * ty * tx, my * mx))
    middle = _median(tiles)[:, :, 0]
    with np.errstate(over="ignore"):
        size = (abs(middle) + SPREADS * _median(abs(tiles - middle))[:, :, 0]).reshape((n, ty * tx))
    floor = xp.min(xp.where(size > 0, size, xp.asarray(float("inf"), dtype=size.dtype)), axis=1)
    return xp.where(xp.any(size > 0, axis=1), floor, xp.zeros_like(floor))[:, None, None]


def _by_brightness(values: Any) -> Iterable[Any]:
    """The images as parts, in each of which no pixel is more than `PART` times as bright as another."""
    xp = namespace(values)
    left = values
    while True:
        size = abs(left)
        highest = _largest(size)
        if not bool(xp.any(highest > 0)):
            return
        belongs = size > highest / PART
        yield xp.where(belongs, left, xp.zeros_like(left))
        left = xp.where(belongs, xp.zeros_like(left), left)


def _largest(images: Any) -> Any:
    """The brightest pixel of each, whatever its sign: shape (n, 1, 1)."""
    return namespace(images).max(abs(images).reshape((images.shape[0], -1)), axis=1)[:, None, None]
