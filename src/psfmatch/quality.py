"""How good a kernel is, measured where it was not solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from psfmatch.errors import InputError
from psfmatch.geometry import Box, FloatArray, as_positions, frozen, no_unit
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import PSF

__all__ = ["Quality", "check_positions", "measure_quality", "millimagnitudes"]

POOR = 0.03


@dataclass(frozen=True, eq=False)
class Quality:
    """Figures of merit of a kernel at n positions; every field is an array of length n.

    Parameters
    ----------
    x, y : array
        The positions, in pixels.
    residual : array
        ``norm2(K*S - c T) / norm2(c T)`` with c the kernel sum that was asked for.
    max_residual : array
        The worst pixel, ``max|K*S - c T| / max(c T)``.
    ee_error : array
        The largest difference, at any radius, of the encircled energies of ``K*S / c`` and ``T``.
    noise_gain : array
        ``sum K^2``: the factor by which the variance of white noise is multiplied.
    negative_flux : array
        ``sum |K|`` over the negative pixels of K.
    kernel_sum : array
        ``sum K``.
    ee_radius : array, optional
        The smallest radius, in pixels, at which the encircled energies differ by ``ee_error``, to 1 % of it; NaN where
        it is not known.
    """

    x: FloatArray
    y: FloatArray
    residual: FloatArray
    max_residual: FloatArray
    ee_error: FloatArray
    noise_gain: FloatArray
    negative_flux: FloatArray
    kernel_sum: FloatArray
    ee_radius: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.ee_radius is None:
            object.__setattr__(self, "ee_radius", np.full(np.shape(self.x), np.nan))
        for f in fields(self):
            object.__setattr__(self, f.name, frozen(getattr(self, f.name), float))

    def __len__(self) -> int:
        return self.x.size

    @classmethod
    def joined(cls, parts: Sequence[Quality]) -> Quality:
        """The figures of several sets of positions as one."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @property
    def worst(self) -> dict[str, float]:
        """The largest value of every figure; of the kernel sums, the one farthest from their median."""
        worst = {name: float(np.max(getattr(self, name))) for name in FIGURES}
        sums = self.kernel_sum
        return worst | {"kernel_sum": float(sums[np.argmax(np.abs(sums - np.median(sums)))])}

    @property
    def median(self) -> dict[str, float]:
        """The median of every figure."""
        return {name: float(np.median(getattr(self, name))) for name in FIGURES}

    @property
    def worst_radius(self) -> float:
        """The radius of the aperture, in pixels, whose flux is the most wrong: where the worst ``ee_error`` arises."""
        assert self.ee_radius is not None
        return float(self.ee_radius[np.argmax(self.ee_error)])

    def poor(self, tolerance: float = 0.0) -> bool:
        """Whether the match should not be used: residual or EE error are above 3 % somewhere, and above the tolerance.

        Parameters
        ----------
        tolerance : float
            What was asked for: nobody is refused what he tolerates.
        """
        worst = self.worst
        return max(worst["residual"], worst["ee_error"]) > max(POOR, tolerance)

    def __repr__(self) -> str:
        m, w = self.median, self.worst
        figures = ", ".join(f"{name} {m[name]:.3g} (worst {w[name]:.3g})" for name in ("residual", "noise_gain"))
        return f"Quality({len(self)} positions: {figures})"


FIGURES = tuple(f.name for f in fields(Quality) if f.name not in ("x", "y", "ee_radius"))


def millimagnitudes(share: float) -> float:
    """What an error of a flux, as a share of it, is in thousandths of a magnitude: ``1000 * 2.5 / ln 10`` times it."""
    return float(1000.0 * 2.5 / np.log(10.0) * share)


def check_positions(box: Box, side: int = 5) -> tuple[FloatArray, FloatArray]:
    """Positions (x, y), one in each of ``side`` x ``side`` equal parts of the box, that fall on no regular grid.

    The place within each part is a low-discrepancy sequence (multiples of the plastic number's powers, modulo 1).
    """
    plastic = 1.32471795724474602596
    k = np.arange(side * side)
    ny, nx = box.shape
    x = (k % side + (0.5 + k / plastic) % 1.0) / side
    y = (k // side + (0.5 + k / plastic**2) % 1.0) / side
    return box.x0 + x * (nx - 1), box.y0 + y * (ny - 1)


def measure_quality(
    kernel: MatchingKernel, science: PSF, target: PSF, *, x: ArrayLike, y: ArrayLike, kernel_sum: float = 1.0
) -> Quality:
    """Convolve the science PSF with the kernel at given positions and compare with the target.

    The comparison is made over the science PSF's shape widened by the kernel's, and nothing is cut that counts there:
    models that can be resized are realised in full; a fixed stamp is zero beyond its border.

    Parameters
    ----------
    kernel : MatchingKernel
        The kernel.
    science, target : PSF
        The two models.
    x, y : float or array
        Positions in pixels.  Off the grid of the cells, or the figures only repeat the fit.
    kernel_sum : float
        The flux that the kernel was asked to have (scales the target).

    Returns
    -------
    Quality
        One value of each figure for every position.

    Raises
    ------
    PSFError
        If a model cannot be evaluated at one of the positions.
    InputError
        If ``kernel_sum`` is zero.
    """
    no_unit(kernel_sum, "kernel_sum")
    if not kernel_sum:
        raise InputError("kernel_sum is zero; there is nothing to compare")
    px, py = as_positions(x, y)
    sy, sx = science.shape
    ty, tx = (0, 0) if target.resizable else target.shape
    ky, kx = kernel.shape
    shape = (max(sy + ky - 1, ty), max(sx + kx - 1, tx))
    reach = (shape[0] + ky - 1, shape[1] + kx - 1) if science.resizable else (sy, sx)
    own, want = _stamps(science, px, py, reach), kernel_sum * _stamps(target, px, py, shape)
    k = kernel.stamps(x=px, y=py)
    difference = _centred_convolution(own, k, shape) - want
    growth = np.abs(_growth(difference))
    largest = growth.max(axis=1)
    return Quality(
        px,
        py,
        residual=np.linalg.norm(difference, axis=(1, 2)) / np.linalg.norm(want, axis=(1, 2)),
        max_residual=np.abs(difference).max(axis=(1, 2)) / np.abs(want).max(axis=(1, 2)),
        ee_error=largest / abs(kernel_sum),
        noise_gain=(k**2).sum(axis=(1, 2)),
        negative_flux=np.maximum(-k, 0.0).sum(axis=(1, 2)),
        kernel_sum=k.sum(axis=(1, 2)),
        ee_radius=np.sqrt(np.argmax(growth >= 0.99 * largest[:, None], axis=1)),
    )


def _stamps(psf: PSF, x: FloatArray, y: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """A model's stamps at some positions; made once where they are all alike."""
    if not psf.constant:
        return psf.stamps(x=x, y=y, shape=shape)
    return np.broadcast_to(psf.stamps(x=x[:1], y=y[:1], shape=shape), (x.size, *shape))


def _centred_convolution(stamps: FloatArray, kernels: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The linear convolutions of images (n, ., .), with their origins at the centre of arrays of this (odd) shape."""
    # What wraps around stays outside of that shape.
    size = [fft.next_fast_len(max(n, s), real=True) for n, s in zip(shape, stamps.shape[1:], strict=True)]
    full = fft.irfft2(fft.rfft2(stamps, size) * fft.rfft2(kernels, size), size)
    sides = zip(shape, stamps.shape[1:], kernels.shape[1:], strict=True)
    rolled = np.roll(full, [n // 2 - s // 2 - k // 2 for n, s, k in sides], axis=(1, 2))
    return np.asarray(rolled[:, : shape[0], : shape[1]])


def _growth(images: FloatArray) -> FloatArray:
    """The flux of images (n, ny, nx) within every radius from the central pixel, by the square of the radius."""
    squared = _squared_radius((images.shape[1], images.shape[2]))
    return np.cumsum([np.bincount(squared, weights=image.ravel()) for image in images], axis=1)


@lru_cache(maxsize=16)
def _squared_radius(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Of every pixel, from the central one."""
    y, x = (np.arange(n) - n // 2 for n in shape)
    return frozen((y[:, None] ** 2 + x**2).ravel())
