"""Where a position of one pixel frame lies in another."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray, Position, as_positions, frozen, plain_array
from psfmatch.wcs import check_wcs

if TYPE_CHECKING:
    from astropy.wcs.wcsapi import BaseHighLevelWCS

__all__ = ["Affine", "PixelMap", "Transform", "celestial", "determinants"]

PixelMap = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
ORIGIN = Position(0.0, 0.0)
UNTRUE = 0.01


@dataclass(frozen=True, eq=False)
class Transform:
    """Where a position (x, y) of one pixel frame lies in another.

    Parameters
    ----------
    forward, backward : callable
        ``forward(x, y)`` takes two arrays (n,) of positions in the first frame and returns those in the second, NaN
        where there is none; ``backward`` undoes it.
    anchor : Position
        A position (y, x) of the first frame at which the transform is sound; `WarpedPSF` sizes its stamps there.
    """

    forward: PixelMap
    backward: PixelMap
    anchor: Position = ORIGIN

    @classmethod
    def between(
        cls,
        from_wcs: BaseHighLevelWCS,
        to_wcs: BaseHighLevelWCS,
        *,
        from_origin: Position = ORIGIN,
        to_origin: Position = ORIGIN,
    ) -> Transform:
        """By way of the sky.

        Parameters
        ----------
        from_wcs, to_wcs : astropy.wcs.WCS, or any WCS with astropy's common interface (APE 14)
            Celestial, in pixels of an array whose first pixel is (0, 0); their sky frames may differ.
        from_origin, to_origin : Position
            The coordinates (y, x) that these first pixels have in their parent frames: ``exposure.box.y0`` and
            ``exposure.box.x0``.

        Raises
        ------
        InputError
            If a WCS is not two-dimensional and celestial.
        """
        here, there = Position(*map(float, from_origin)), Position(*map(float, to_origin))
        first, second = celestial(from_wcs), celestial(to_wcs)
        return cls(_Sky(first, second, here, there), _Sky(second, first, there, here), here)

    @classmethod
    def affine(cls, matrix: ArrayLike, *, x: float = 0.0, y: float = 0.0) -> Transform:
        """``(x', y') = matrix @ (x, y) + shift``, where the arguments ``x`` and ``y`` are the shift.

        Raises
        ------
        InputError
            If the matrix (2, 2) cannot be inverted.
        """
        a = frozen(plain_array(matrix, "matrix", float))
        if a.shape != (2, 2) or not np.isfinite(a).all() or np.linalg.det(a) == 0.0:
            raise InputError(f"matrix {np.asarray(matrix).tolist()}: give an invertible one of shape (2, 2)")
        inverse = np.linalg.inv(a)
        return cls(Affine(a, x, y), Affine(frozen(inverse), *(-inverse @ (x, y)).tolist()))

    @property
    def inverse(self) -> Transform:
        """From the second frame to the first."""
        x, y = self.forward(np.array([self.anchor.x]), np.array([self.anchor.y]))
        return Transform(self.backward, self.forward, Position(float(y[0]), float(x[0])))

    @property
    def linear(self) -> bool:
        """Whether it is known to be affine, so that the Jacobian is the same everywhere."""
        return isinstance(self.forward, Affine)

    def positions(self, *, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Positions (scalars or arrays) of the first frame in the second.

        Returns
        -------
        tuple of two arrays, shape (n,)
            x and y; NaN where a position has none.
        """
        return self.forward(*as_positions(x, y))

    def jacobian(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The derivatives of (x', y') with respect to (x, y), by differences over one pixel.

        Returns
        -------
        array, shape (n, 2, 2)
            ``[[dx'/dx, dx'/dy], [dy'/dx, dy'/dy]]``: an offset (dx, dy) becomes ``jacobian @ (dx, dy)``.
        """
        px, py = as_positions(x, y)
        if isinstance(self.forward, Affine):
            return np.broadcast_to(self.forward.matrix, (px.size, 2, 2))
        steps = ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
        at = self.forward(np.concatenate([px + dx for dx, _ in steps]), np.concatenate([py + dy for _, dy in steps]))
        right, left, up, down = np.stack(at).reshape(2, 4, px.size).transpose(1, 2, 0)
        return np.stack([right - left, up - down], axis=2)


def determinants(jacobians: FloatArray) -> FloatArray:
    """Of matrices (n, 2, 2), which may hold NaN."""
    return jacobians[:, 0, 0] * jacobians[:, 1, 1] - jacobians[:, 0, 1] * jacobians[:, 1, 0]


@dataclass(frozen=True, eq=False)
class Affine:
    """``(x', y') = matrix @ (x, y) + (x0, y0)``."""

    matrix: FloatArray
    x0: float
    y0: float

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        (xx, xy), (yx, yy) = self.matrix.tolist()
        return xx * x + xy * y + self.x0, yx * x + yy * y + self.y0


@dataclass(frozen=True, eq=False)
class _Sky:
    """Pixels of one WCS in pixels of another."""

    from_wcs: BaseHighLevelWCS
    to_wcs: BaseHighLevelWCS
    from_origin: Position
    to_origin: Position

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # positions that have no place are NaN, not worth a warning
            sky = self.from_wcs.pixel_to_world(x - self.from_origin.x, y - self.from_origin.y)
            found = np.stack([np.asarray(v, float) for v in self.to_wcs.world_to_pixel(sky)])
            # Distortions are inverted iteratively, by some programs to 1e-4 px only: once more, for the error's sake.
            low = getattr(self.to_wcs, "low_level_wcs", self.to_wcs)
            again = np.stack(
                [np.asarray(v, float) for v in low.world_to_pixel_values(*low.pixel_to_world_values(*found))]
            )
            error = found - again
            found += error
            found[:, ~(np.abs(error).max(axis=0) < UNTRUE)] = np.nan
        return found[0] + self.to_origin.x, found[1] + self.to_origin.y


def celestial(wcs: BaseHighLevelWCS) -> BaseHighLevelWCS:
    """A WCS of two pixel axes and the sky, with astropy's high-level interface, without bounds to its pixels.

    Raises
    ------
    InputError
        If it is something else, or cannot be inverted.
    """
    from astropy.coordinates import SkyCoord
    from astropy.wcs.wcsapi import BaseHighLevelWCS, BaseLowLevelWCS, HighLevelWCSWrapper

    low = wcs.low_level_wcs if isinstance(wcs, BaseHighLevelWCS) else wcs
    if not isinstance(low, BaseLowLevelWCS):
        raise InputError(f"WCS of type {type(wcs).__name__}: give one with astropy's common interface (APE 14)")
    kinds = [kind[0] for kind in low.world_axis_object_classes.values()]
    if (low.pixel_n_dim, low.world_n_dim) != (2, 2) or SkyCoord not in kinds:
        axes = ", ".join(str(kind) for kind in low.world_axis_physical_types)
        raise InputError(
            f"WCS with {low.pixel_n_dim} pixel axes and the world axes {axes}: give a celestial one of two"
        )
    check_wcs(low)
    if getattr(low, "bounding_box", None) is not None:
        wcs = copy.deepcopy(wcs)
        (wcs.low_level_wcs if isinstance(wcs, BaseHighLevelWCS) else wcs).bounding_box = None
    return wcs if isinstance(wcs, BaseHighLevelWCS) else HighLevelWCSWrapper(wcs)
