"""Convolution by its definition: slow, obvious, and the truth that other backends are tested against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.footprint import Bits, Edge, Sums, check_sizes, finish, usable
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["Direct"]


@dataclass(frozen=True, kw_only=True)
class Direct:
    """One shifted, weighted copy of the frame for every pixel of the kernel, in double precision.

    Parameters
    ----------
    edge : {"renormalize", "nan"}
        See `FFT`.
    exclude : tuple of str
        See `FFT`.
    """

    edge: Edge = "renormalize"
    exclude: tuple[str, ...] = ("NO_DATA",)

    def __post_init__(self) -> None:
        if self.edge not in ("renormalize", "nan"):
            raise InputError(f"Direct edge {self.edge!r}: choose renormalize or nan")

    def convolve(self, exposure: Exposure, kernel: MatchingKernel) -> Exposure:
        """The exposure convolved with the kernel of every output pixel.

        Raises
        ------
        InputError
            If the image is smaller than the kernel.
        """
        check_sizes(exposure, kernel)
        mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
        bits = Bits.of(mask, self.exclude)
        good, sure = usable(exposure.image, exposure.variance, mask.array, bits.excluded, self.edge)
        planes = [np.where(good, exposure.image, 0.0).astype(float), good.astype(float)]
        variance = exposure.variance
        noise = None if variance is None else np.where(sure, variance, 0.0).astype(float)

        box = exposure.box
        weights = kernel.weights.on_grid(x=np.arange(box.x0, box.x1), y=np.arange(box.y0, box.y1))
        totals = np.tensordot(kernel.basis.sum(axis=(1, 2)), weights, axes=1)
        sums = [np.zeros(exposure.shape) for _ in range(3)]
        spread = np.zeros_like(mask.array)
        beyond, missing, unsure = np.zeros((3, *exposure.shape), bool)
        for u_y, u_x in np.argwhere(kernel.support):
            shift = int(u_y) - kernel.shape[0] // 2, int(u_x) - kernel.shape[1] // 2
            value = np.tensordot(kernel.basis[:, u_y, u_x], weights, axes=1)
            for total, plane in zip(sums, planes, strict=False):
                total += value * _shifted(plane, shift)
            if noise is not None:
                sums[2] += value**2 * _shifted(noise, shift)
            spread |= _shifted(mask.array, shift)
            beyond |= _shifted(np.ones(exposure.shape, bool), shift) == 0
            missing |= _shifted(~good, shift)
            unsure |= _shifted(~sure, shift)
        result = Sums(sums[0], None if noise is None else sums[2], sums[1], totals, beyond, missing, unsure)
        finish(result, spread, bits, self.edge)
        image = result.image.astype(exposure.image.dtype)
        if variance is not None and result.variance is not None:
            variance = result.variance.astype(variance.dtype)
        return exposure.replace(image=image, variance=variance, mask=Mask(spread, mask.planes))


def _shifted(plane: FloatArray | NDArray[Any], shift: tuple[int, int]) -> NDArray[Any]:
    """``out(x) = plane(x - shift)``, zero where that lies beyond the frame."""
    out = np.zeros_like(plane)
    (ny, nx), (dy, dx) = plane.shape, shift
    out[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)] = plane[
        max(-dy, 0) : ny + min(-dy, 0), max(-dx, 0) : nx + min(-dx, 0)
    ]
    return out
