"""A PSF model seen through a change of pixel frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import PSFError
from psfmatch.geometry import Box, FloatArray, Position, as_positions, frozen
from psfmatch.psf import PSF, AnalyticPSF
from psfmatch.warp.transform import Transform, determinants

__all__ = ["WarpedPSF"]

REACH = 12
BETA = 16.0
LARGEST = 4096


@dataclass(frozen=True, eq=False)
class WarpedPSF(PSF):
    """A PSF model seen through a change of pixel frame, in the local affine approximation.

    At a position x of the new frame the stamp is ``|det A| P(A u)``, with A the Jacobian of the transform there and P
    the model's stamp at the position that x is mapped to.  Pixels are integrated over as the *model's* frame has them:
    an image that is warped samples its surface brightness, already integrated over its own pixels.

    So is the PSF that a warped exposure has (the exposure's, and the transform from the grid to the exposure); and
    so is the PSF that an exposure must be given for a wished one on the grid to come out (the wished one, and the
    transform from the exposure to the grid).

    Analytic models are exact.  Stamps are interpolated between their pixels by a windowed sinc over 24 px, with zeros
    beyond.  Residual (2-norm, relative) of ellipticity 0.1, turned by 30 degrees, flipped and made 10 % coarser:

    ================== ======== ======== ======== ========
    FWHM (px)          2        2.5      3        4
    ================== ======== ======== ======== ========
    Gaussian           3.3e-3   1.2e-3   3.2e-4   6e-6
    Moffat, beta = 3   1.0e-2   2.0e-3   4.4e-4   9e-5
    ================== ======== ======== ======== ========

    What lies beyond the Nyquist frequency of the stamp's pixels is lost: at 2.5 px, to any interpolation.

    Parameters
    ----------
    psf : PSF
        The model, in the second frame of the transform.
    transform : Transform
        From the new frame to that of the model.
    at : Position, optional
        Where (y, x) in the new frame the size of the default stamps is found; default the transform's anchor.
    field : Box, optional
        The positions of the new frame at which it is meant to be used.
    """

    psf: PSF
    transform: Transform
    at: Position | None = None
    field: Box | None = None

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that hold the model's own stamps, turned and stretched as at ``at``.

        Raises
        ------
        PSFError
            If the transform is not defined there, or the stamps would be larger than 4096 px.
        """
        at = self.transform.anchor if self.at is None else self.at
        if not np.isfinite(at).all():
            raise PSFError("the transform's anchor has no position; give WarpedPSF(at=) where the PSF is used")
        inverse = np.linalg.inv(self._jacobians(np.array([at.x]), np.array([at.y]))[0])
        shape = _odd(inverse, self.psf.shape)
        if max(shape) > LARGEST:
            raise PSFError(f"at y={at.y:g}, x={at.x:g}, WarpedPSF stamps would be {shape[1]} x {shape[0]} px; give at=")
        return shape

    @property
    def resizable(self) -> bool:
        return self.psf.resizable

    @property
    def smooth(self) -> bool:
        return self.psf.smooth

    @property
    def constant(self) -> bool:
        return self.psf.constant and self.transform.linear

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        shape = self._shape(shape)
        if self.constant:
            stamp = self._evaluated(px[:1], py[:1], shape)
            return np.broadcast_to(frozen(stamp), (px.size, *shape))
        return self._evaluated(px, py, shape)

    def _evaluated(self, x: FloatArray, y: FloatArray, shape: tuple[int, int]) -> FloatArray:
        jacobians = self._jacobians(x, y)
        uy, ux = (g.ravel() for g in np.meshgrid(*(np.arange(n) - n // 2.0 for n in shape), indexing="ij"))
        offsets = jacobians @ np.stack([ux, uy])
        out = np.empty((x.size, *shape))
        for k, values in enumerate(self._values(x, y, offsets)):
            out[k] = values.reshape(shape)
        out *= np.abs(determinants(jacobians))[:, None, None]
        return out

    def _values(self, x: FloatArray, y: FloatArray, offsets: FloatArray) -> Iterator[FloatArray]:
        """The model's pixels at offsets (n, 2, m) in its own frame, position by position."""
        if isinstance(self.psf, AnalyticPSF):
            yield from (self.psf.pixels(dx=dx, dy=dy) for dx, dy in offsets)
        elif len(offsets):
            stamps = self._sources(x, y, offsets)
            yield from (_interpolated(stamp, dx, dy) for stamp, (dx, dy) in zip(stamps, offsets, strict=True))

    def _jacobians(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """At positions of the new frame; raises PSFError where there is none."""
        jacobians = self.transform.jacobian(x=x, y=y)
        bad = ~(np.isfinite(jacobians).all(axis=(1, 2)) & (np.abs(determinants(jacobians)) > 0))
        if bad.any():
            k = int(np.argmax(bad))
            raise PSFError(
                f"the PSF cannot be evaluated at x={x[k]:g}, y={y[k]:g}: the other frame has no such position"
            )
        return jacobians

    def _sources(self, x: FloatArray, y: FloatArray, offsets: FloatArray) -> FloatArray:
        """The model's stamps, as large as the offsets reach where that can be had."""
        sx, sy = self.transform.positions(x=x, y=y)
        if not self.psf.resizable:
            return self.psf.stamps(x=sx, y=sy)
        reach_x, reach_y = np.abs(offsets).max(axis=(0, 2))
        return self.psf.stamps(x=sx, y=sy, shape=(2 * int(reach_y + REACH) + 1, 2 * int(reach_x + REACH) + 1))


def _odd(matrix: FloatArray, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the least odd stamp that holds another (sy, sx) after a matrix acted on its offsets."""
    half = np.array([shape[1] // 2, shape[0] // 2])
    hx, hy = np.ceil(np.abs(matrix) @ half - 1e-3).astype(int).tolist()
    return 2 * max(hy, 1) + 1, 2 * max(hx, 1) + 1


def _interpolated(stamp: FloatArray, dx: FloatArray, dy: FloatArray) -> FloatArray:
    """A stamp at offsets (n,) from its central pixel."""
    along_y, along_x = (_sinc(d, n) for d, n in zip((dy, dx), stamp.shape, strict=True))
    return np.asarray(np.einsum("nx,nx->n", along_y @ stamp, along_x))


def _sinc(offset: FloatArray, count: int) -> FloatArray:
    """The weights of ``count`` pixels about the origin: shape (n, count)."""
    t = offset[:, None] - (np.arange(count) - count // 2)
    return np.asarray(
        np.sinc(t) * np.i0(BETA * np.sqrt(np.maximum(0.0, 1.0 - (t / REACH) ** 2))) / np.i0(BETA) * (np.abs(t) < REACH)
    )
