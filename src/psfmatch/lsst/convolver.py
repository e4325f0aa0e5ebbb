"""Rubin's convolution: the kernel is computed at points some pixels apart, and linear between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import oaconvolve

from psfmatch.convolve import FFT, Convolver
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["Interpolated"]

EXACT = FFT(edge="nan", exclude=(), variance_tolerance=1e-6)


@dataclass(frozen=True, kw_only=True)
class Interpolated:
    """An exact convolution, and the error that a kernel interpolated between points of a grid adds to it.

    The grid spans the pixels whose footprint is whole.  Between four of its points Rubin's kernel is bilinear, which
    is up to 1e-5 of the image's maximum, and 4e-5 of the variance's, away from the kernel of each pixel.

    Parameters
    ----------
    distance : int
        Largest distance of the points, in pixels.
    planes : tuple of str
        Which of "image" and "variance" get the error.
    exact : Convolver
        What convolves to begin with.
    tolerance : float
        Terms of the error that are smaller, relative to the kernel's peak (or its square), are left out.
    """

    distance: int = 10
    planes: tuple[str, ...] = ("image", "variance")
    exact: Convolver = EXACT
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.distance < 1 or not set(self.planes) <= {"image", "variance"}:
            raise InputError(f"{self}: distance must be positive, planes of image and variance")

    def convolve(self, exposure: Exposure, kernel: MatchingKernel) -> Exposure:
        """The exposure convolved with the interpolated kernel.

        Raises
        ------
        InputError
            If the image is smaller than the kernel.
        """
        out = self.exact.convolve(exposure, kernel)
        if kernel.weights.order < 2:  # a bilinear kernel is interpolated exactly
            return out
        small = kernel.compressed()
        inner = exposure.box.grown(-(kernel.shape[0] // 2), -(kernel.shape[1] // 2))
        planes = {name: np.array(getattr(out, name)) for name in self.planes if getattr(out, name) is not None}
        for name, plane in planes.items():
            source = np.asarray(getattr(exposure, name))
            source = np.where(np.isfinite(source), source, 0.0).astype(source.dtype)
            view = plane[inner.slices(exposure.box)]
            for weight, image in self._terms(small, inner, squared=name == "variance"):
                view += weight.astype(plane.dtype) * oaconvolve(source, image.astype(source.dtype), mode="valid")
        return out.replace(**planes)

    def _terms(self, kernel: MatchingKernel, box: Box, *, squared: bool) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Weights (over the box) and images of ``dK``, or of ``2 K dK``, that add up to the error."""
        x, y = np.arange(box.x0, box.x1, dtype=float), np.arange(box.y0, box.y1, dtype=float)
        middle = kernel.stamps(x=box.center.x, y=box.center.y)[0]
        least = self.tolerance * np.abs(middle).max() ** (2 if squared else 1)
        for j, image in enumerate(kernel.basis):
            error = self._error(kernel, j, x, y)
            size = np.abs(error).max()
            if not squared:
                if size * np.abs(image).max() > least:
                    yield error, image
                continue
            for i, other in enumerate(kernel.basis):
                product = 2.0 * image * other
                weight = _one(kernel, i).weights.on_grid(x=x, y=y)[0]
                if size * np.abs(weight).max() * np.abs(product).max() > least:
                    yield error * weight, product

    def _error(self, kernel: MatchingKernel, j: int, x: FloatArray, y: FloatArray) -> FloatArray:
        """The interpolated weight minus the weight itself."""
        field = _one(kernel, j).weights
        grid_x, grid_y = (_grid(a, self.distance) for a in (x, y))
        nodes = field.on_grid(x=grid_x, y=grid_y)[0]
        hats_x = np.stack([np.interp(x, grid_x, row) for row in np.eye(grid_x.size)])
        hats_y = np.stack([np.interp(y, grid_y, row) for row in np.eye(grid_y.size)])
        result: FloatArray = hats_y.T @ nodes @ hats_x - field.on_grid(x=x, y=y)[0]
        return result


def _one(kernel: MatchingKernel, j: int) -> MatchingKernel:
    """The j-th term of the kernel."""
    one = slice(j, j + 1)
    return MatchingKernel(kernel.basis[one], replace(kernel.weights, coefficients=kernel.weights.coefficients[one]))


def _grid(pixels: FloatArray, distance: int) -> FloatArray:
    """Points from the first pixel to one beyond the last, at most about ``distance`` apart, as even as whole pixels."""
    left = pixels.size
    points = [int(pixels[0])]
    for parts in range(1 + left // distance, 0, -1):
        step = int(np.floor(left / parts + 0.5))
        points.append(points[-1] + step)
        left -= step
    return np.asarray(points, float)
