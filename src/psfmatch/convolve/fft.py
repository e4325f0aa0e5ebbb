"""Convolution by FFT in blocks: the kernel of every output pixel, exactly, at the price of one FFT a basis image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from psfmatch.convolve.footprint import Edge, Sums, check_sizes, finish, usable
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box, FloatArray, processors
from psfmatch.kernel import MatchingKernel

__all__ = ["FFT"]

OUTLIER = 1e5
OUTLIER_LEVEL = 1e3
OUTLIER_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class FFT:
    """``out(x) = sum_r w_r(x) (B_r * I)(x)``: every basis image by FFT, its weight evaluated at every output pixel.

    Planes are convolved in their own precision, the image without its level.  Pixels that would spoil their block
    through rounding never enter a transform: NaN and infinities are missing pixels; values beyond 1e5 times the
    block's spread and 1e3 times its level are convolved by direct summation.  So a bad pixel acts inside its own
    footprint only.

    Parameters
    ----------
    edge : {"renormalize", "nan"}
        What becomes of pixels whose footprint is not whole, at the frame's border and around missing pixels.
        ``renormalize``: divide by the share of the kernel sum that was kept, flag EDGE or INTRP, and give up
        (NaN, NO_DATA) where less than a fifth was.  ``nan``: NaN, as Rubin's software.
    exclude : tuple of str
        Mask planes whose pixels are missing, like NaN and infinite variance.
    block : int, optional
        Side of the transforms in pixels; default by the kernel's size.
    threads : int, optional
        Blocks convolved at a time; default one for each processor.
    tolerance : float
        Relative error at which the kernel's basis is truncated.
    variance_tolerance : float
        The same for the kernel of the variance, K^2.
    """

    edge: Edge = "renormalize"
    exclude: tuple[str, ...] = ("NO_DATA",)
    block: int | None = None
    threads: int | None = None
    tolerance: float = 1e-8
    variance_tolerance: float = 3e-5

    def __post_init__(self) -> None:
        if self.edge not in ("renormalize", "nan"):
            raise InputError(f"FFT edge {self.edge!r}: choose renormalize or nan")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"FFT threads={self.threads}: at least 1")

    def convolve(self, exposure: Exposure, kernel: MatchingKernel) -> Exposure:
        """The exposure convolved with the kernel of every output pixel.

        Image and kernel are placed by the coordinates of the parent frame.  The PSF, WCS and all else are kept.

        Raises
        ------
        InputError
            If the image is smaller than the kernel, or the block than twice the kernel.
        """
        check_sizes(exposure, kernel)
        job = _Job(self, exposure, kernel)
        blocks = job.blocks()
        with ThreadPoolExecutor(min(len(blocks), self.threads or processors())) as pool:
            for _ in pool.map(job.run, blocks):
                pass
        return exposure.replace(image=job.image, variance=job.variance, mask=Mask(job.spread, job.mask.planes))


class _Job:
    """One convolution: the transforms of the kernels, and the planes that the blocks are written to."""

    def __init__(self, options: FFT, exposure: Exposure, kernel: MatchingKernel) -> None:
        self.options, self.exposure = options, exposure
        ky, kx = kernel.shape
        self.half = ky // 2, kx // 2
        self.side = tuple(_side(k, n, options.block) for k, n in zip(kernel.shape, exposure.shape, strict=True))
        self.mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
        self.excluded = self.mask.bits(*(name for name in options.exclude if name in self.mask.planes))
        self.support = kernel.support
        self.kernel = _Transformed(kernel.compressed(options.tolerance), self.side)
        self.image = np.empty_like(exposure.image)
        self.spread = np.empty_like(self.mask.array)
        self.variance = None
        if exposure.variance is not None:
            self.variance = np.empty_like(exposure.variance)
            self.squared = _Transformed(kernel.squared(options.variance_tolerance), self.side)

    def blocks(self) -> list[Box]:
        """The output, cut into boxes (of array indices) that fit a transform with the kernel's margin."""
        (ny, nx), (hy, hx) = self.exposure.shape, self.half
        step_y, step_x = self.side[0] - 2 * hy, self.side[1] - 2 * hx
        return [
            Box(y, x, min(y + step_y, ny), min(x + step_x, nx))
            for y in range(0, ny, step_y)
            for x in range(0, nx, step_x)
        ]

    def run(self, block: Box) -> None:
        """Convolve one block and write it."""
        exposure = self.exposure
        out = slice(block.y0, block.y1), slice(block.x0, block.x1)
        flags = self._cut(self.mask.array, block)
        image = self._cut(exposure.image, block)
        noise = None if exposure.variance is None else self._cut(exposure.variance, block)
        inside = self._inside(block)
        good, sure = usable(image, noise, flags, self.excluded, self.options.edge)
        whole = inside is None and bool(good.all()) and bool(sure.all())
        present = good if inside is None else good & inside
        # Without its level, the image's rounding errors are those of its contrast.
        level = image.dtype.type(_level(image[present]))
        image -= level
        image[~present] = 0.0
        x = np.arange(block.x0, block.x1, dtype=float) + exposure.box.x0
        y = np.arange(block.y0, block.y1, dtype=float) + exposure.box.y0
        weights = self.kernel.weights(x, y, image.dtype)
        totals = self.kernel.totals(weights)
        sums = Sums(self.kernel.apply(image, weights), None)
        if noise is not None:
            noise[~sure] = 0.0
            sums.variance = self.squared.apply(noise, self.squared.weights(x, y, noise.dtype))
            np.maximum(sums.variance, 0.0, out=sums.variance)
        spread = _dilated(flags, self.support)
        if whole:
            sums.image += level * totals
        else:
            sums.beyond = np.zeros(block.shape, bool) if inside is None else _dilated(~inside, self.support)
            sums.missing, sums.unsure = (
                _dilated(~a if inside is None else inside & ~a, self.support) for a in (good, sure)
            )
            kept_sum = totals
            if self.options.edge == "renormalize":
                kept_sum = self.kernel.transformed(present.astype(image.dtype), weights)
                with np.errstate(divide="ignore", invalid="ignore"):
                    sums.kept = kept_sum / totals
            sums.image += level * kept_sum
            finish(sums, spread, self.mask, self.options.edge)
        self.image[out] = sums.image
        self.spread[out] = spread
        if self.variance is not None and sums.variance is not None:
            self.variance[out] = sums.variance

    def _cut(self, plane: NDArray[Any], block: Box) -> NDArray[Any]:
        """The block with the kernel's margin, zero beyond the frame (a copy)."""
        (ny, nx), (hy, hx) = plane.shape, self.half
        y0, y1, x0, x1 = block.y0 - hy, block.y1 + hy, block.x0 - hx, block.x1 + hx
        if y0 >= 0 and x0 >= 0 and y1 <= ny and x1 <= nx:
            return np.array(plane[y0:y1, x0:x1])
        out = np.zeros((y1 - y0, x1 - x0), plane.dtype)
        out[max(-y0, 0) : ny - y0, max(-x0, 0) : nx - x0] = plane[max(y0, 0) : y1, max(x0, 0) : x1]
        return out

    def _inside(self, block: Box) -> NDArray[np.bool_] | None:
        """Which pixels of the cut lie in the frame; None if all do."""
        (ny, nx), (hy, hx) = self.exposure.shape, self.half
        if block.y0 >= hy and block.x0 >= hx and block.y1 + hy <= ny and block.x1 + hx <= nx:
            return None
        y = np.arange(block.y0 - hy, block.y1 + hy)
        x = np.arange(block.x0 - hx, block.x1 + hx)
        return ((y >= 0) & (y < ny))[:, None] & ((x >= 0) & (x < nx))[None, :]


def _side(kernel: int, frame: int, block: int | None) -> int:
    """The length of the transforms along one axis."""
    side = block or max(256, 6 * kernel)
    if side < 2 * kernel:
        raise InputError(f"FFT block={block} is less than twice the kernel's {kernel} px; take a larger block")
    return int(fft.next_fast_len(min(side, frame + kernel - 1), real=True))


class _Transformed:
    """A kernel with the transforms of its basis images."""

    def __init__(self, kernel: MatchingKernel, side: tuple[int, ...]) -> None:
        self.kernel, self.side = kernel, side
        self.spectra: dict[Any, NDArray[Any]] = {}
        self.basis_sums = kernel.basis.sum(axis=(1, 2))
        for dtype in (np.float32, np.float64):
            self.spectra[np.dtype(dtype)] = fft.rfft2(kernel.basis.astype(dtype), side)

    def weights(self, x: FloatArray, y: FloatArray, dtype: Any) -> FloatArray:
        """The weights at every pixel of a block: shape (rank, ny, nx)."""
        return self.kernel.weights.on_grid(x=x, y=y).astype(dtype, copy=False)

    def totals(self, weights: FloatArray) -> FloatArray:
        """The kernel sum at every pixel of a block."""
        return np.tensordot(self.basis_sums.astype(weights.dtype), weights, axes=1)

    def apply(self, cut: FloatArray, weights: FloatArray) -> FloatArray:
        """Convolve a block (which has the kernel's margin) where the footprint lies inside it."""
        outliers = _outliers(cut)
        if outliers is None:
            return self.transformed(cut, weights)
        if len(outliers) > OUTLIER_SHARE * cut.size:
            return self.transformed(cut.astype(np.float64), weights).astype(cut.dtype)
        values = cut[outliers[:, 0], outliers[:, 1]].astype(float)
        cut[outliers[:, 0], outliers[:, 1]] = 0.0
        out = self.transformed(cut, weights)
        self._add_directly(out, outliers, values, weights)
        return out

    def transformed(self, cut: FloatArray, weights: FloatArray) -> FloatArray:
        """As `apply`, through the transforms alone."""
        ky, kx = self.kernel.shape
        _, ny, nx = weights.shape
        # The transform is at least as long as the cut: what wraps falls into the kernel's margin.
        spectrum = fft.rfft2(cut, self.side)
        out = np.zeros((ny, nx), cut.dtype)
        for weight, image in zip(weights, self.spectra[cut.dtype], strict=True):
            out += weight * fft.irfft2(spectrum * image, self.side)[ky - 1 : ky - 1 + ny, kx - 1 : kx - 1 + nx]
        return out

    def _add_directly(self, out: FloatArray, where: NDArray[np.intp], values: FloatArray, weights: FloatArray) -> None:
        """Add the footprint of single pixels, ``v K(u; x + u)``, pixel by pixel."""
        ky, kx = self.kernel.shape
        ny, nx = out.shape
        for (row, column), value in zip(where.tolist(), values.tolist(), strict=True):
            # In the block's output the footprint covers rows row - (ky - 1) ... row.
            y0, x0 = row - (ky - 1), column - (kx - 1)
            top, left = max(y0, 0), max(x0, 0)
            bottom, right = min(row + 1, ny), min(column + 1, nx)
            if top >= bottom or left >= right:
                continue
            patch = self.kernel.basis[:, top - y0 : bottom - y0, left - x0 : right - x0]
            local = weights[:, top:bottom, left:right]
            out[top:bottom, left:right] += (value * (local * patch).sum(axis=0)).astype(out.dtype)


def _level(values: FloatArray) -> float:
    """The median of a block's pixels, from a sample of about a thousand."""
    return float(np.median(values[:: max(1, values.size // 1000)])) if values.size else 0.0


def _outliers(cut: FloatArray) -> NDArray[np.intp] | None:
    """Pixels (row, column) whose rounding would be felt all over the block; None without any."""
    highest = max(float(cut.max()), -float(cut.min()))
    sample = cut[:: max(1, cut.shape[0] // 32), :: max(1, cut.shape[1] // 32)]
    middle = float(np.median(sample))
    limit = max(OUTLIER * float(np.median(np.abs(sample - middle))), OUTLIER_LEVEL * abs(middle))
    return None if highest <= limit else np.argwhere(np.abs(cut) > limit)


def _dilated(flags: NDArray[Any], support: NDArray[np.bool_]) -> NDArray[Any]:
    """OR over the footprint of every output pixel, ``out(x) = OR_u flags(x - u)``, margin removed.

    For a rectangular support, by doubling: its cost does not depend on the kernel's area.
    """
    ky, kx = support.shape
    ny, nx = flags.shape[0] - ky + 1, flags.shape[1] - kx + 1
    if not flags.any():
        return np.zeros((ny, nx), flags.dtype)
    if support.all():
        return _running_or(_running_or(flags, ky, ny).T, kx, nx).T
    out = np.zeros((ny, nx), flags.dtype)
    for u_y, u_x in np.argwhere(support):
        y, x = ky - 1 - u_y, kx - 1 - u_x
        out |= flags[y : y + ny, x : x + nx]
    return out


def _running_or(flags: NDArray[Any], width: int, count: int) -> NDArray[Any]:
    """OR of ``width`` consecutive rows, for the first ``count`` starts."""
    reach = 1
    while 2 * reach <= width:
        flags = flags[:-reach] | flags[reach:]
        reach *= 2
    rest = width - reach
    return flags[:count] | flags[rest : rest + count]
