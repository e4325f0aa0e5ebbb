"""A transform at every pixel of a box, from exact values on a coarse mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from psfmatch.geometry import Box, FloatArray
from psfmatch.warp.transform import Affine, Transform, determinants

__all__ = ["Surface", "Where", "pieces"]

TOLERANCE = 1e-4
DEGREES = (16, 32)
SMALLEST, SPARSE = 64, 512
NEGLIGIBLE = 1e-8


class Where(NamedTuple):
    """Where pixels lie in the other frame, and the determinant of the Jacobian there: each (ny, nx)."""

    x: FloatArray
    y: FloatArray
    determinant: FloatArray


class Surface(Protocol):
    """A transform at the pixels of a box."""

    def at(self, box: Box) -> Where:
        """Of a part of the box."""


def pieces(transform: Transform, box: Box, *, tolerance: float = TOLERANCE) -> Iterator[tuple[Box, Surface]]:
    """The box in parts, in each of which the transform is known at every pixel.

    In each part it is a Chebyshev series through exact values on a mesh of 17 x 17 nodes.  Where the series through
    every second of them misses one of the others by more than ``tolerance`` px, the mesh is made finer, then the part
    halved; parts below 64 px are computed pixel by pixel, and parts up to 512 px without a position at any node left
    out.
    """
    if isinstance(transform.forward, Affine):
        yield box, _Flat(transform.forward)
        return
    for degree in DEGREES:
        values = _on_mesh(transform, box, degree)
        placed = np.isfinite(values)
        if not placed.any() and max(box.shape) <= SPARSE:
            return
        if not placed.all():
            break
        series = _fitted(values, box, tolerance)
        if series is not None:
            yield box, series
            return
    if max(box.shape) < SMALLEST:
        yield box, _Exact(transform)
        return
    for half in _halves(box):
        yield from pieces(transform, half, tolerance=tolerance)


def _halves(box: Box) -> tuple[Box, Box]:
    ny, nx = box.shape
    if ny > nx:
        middle = box.y0 + ny // 2
        return Box(box.y0, box.x0, middle, box.x1), Box(middle, box.x0, box.y1, box.x1)
    middle = box.x0 + nx // 2
    return Box(box.y0, box.x0, box.y1, middle), Box(box.y0, middle, box.y1, box.x1)


@dataclass(frozen=True)
class _Flat:
    """An affine transform."""

    affine: Affine

    def at(self, box: Box) -> Where:
        y, x = np.arange(box.y0, box.y1, dtype=float)[:, None], np.arange(box.x0, box.x1, dtype=float)[None, :]
        px, py = np.broadcast_arrays(*self.affine(x, y))
        (xx, xy), (yx, yy) = self.affine.matrix.tolist()
        return Where(px, py, np.broadcast_to(xx * yy - xy * yx, box.shape))


@dataclass(frozen=True)
class _Exact:
    """The transform itself, pixel by pixel."""

    transform: Transform

    def at(self, box: Box) -> Where:
        y, x = (c.ravel() for c in np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(float))
        px, py = self.transform.forward(x, y)
        determinant = determinants(self.transform.jacobian(x=x, y=y))
        return Where(*(c.reshape(box.shape) for c in (px, py, determinant)))


@dataclass(frozen=True)
class _Series:
    """Three Chebyshev series over a box: coefficients by degree in y and degree in x."""

    box: Box
    x: FloatArray
    y: FloatArray
    determinant: FloatArray

    def at(self, box: Box) -> Where:
        v = _scaled(np.arange(box.y0, box.y1, dtype=float), self.box.center.y, self.box.shape[0])
        u = _scaled(np.arange(box.x0, box.x1, dtype=float), self.box.center.x, self.box.shape[1])
        out = []
        for series in (self.x, self.y, self.determinant):
            ty, tx = (np.polynomial.chebyshev.chebvander(w, n - 1) for w, n in zip((v, u), series.shape, strict=True))
            out.append(ty @ (series @ tx.T))
        return Where(*out)


def _half(length: int) -> float:
    return max(0.5 * (length - 1), 0.5)


def _scaled(position: FloatArray, center: float, length: int) -> FloatArray:
    return (position - center) / _half(length)


@lru_cache(maxsize=8)
def _nodes(degree: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Lobatto nodes, every second of which are those of half the degree; and from values to coefficients."""
    u = -np.cos(np.pi * np.arange(degree + 1) / degree)
    return u, np.linalg.inv(np.polynomial.chebyshev.chebvander(u, degree))


def _on_mesh(transform: Transform, box: Box, degree: int) -> FloatArray:
    """x and y at the nodes: shape (2, degree + 1, degree + 1)."""
    u, _ = _nodes(degree)
    hy, hx = (_half(n) for n in box.shape)
    grid_y, grid_x = (g.ravel() for g in np.meshgrid(box.center.y + hy * u, box.center.x + hx * u, indexing="ij"))
    return np.stack(transform.forward(grid_x, grid_y)).reshape(2, degree + 1, degree + 1)


def _fitted(values: FloatArray, box: Box, tolerance: float) -> _Series | None:
    """The series through the nodes, or None where that of half the degree is not within the tolerance of them."""
    degree = values.shape[1] - 1
    u, inverse = _nodes(degree)
    _, coarse = _nodes(degree // 2)
    hy, hx = (_half(n) for n in box.shape)
    half = coarse @ values[:, ::2, ::2] @ coarse.T
    terms = np.polynomial.chebyshev.chebvander(u, degree // 2)
    if np.abs(terms @ half @ terms.T - values).max() > tolerance:
        return None
    cx, cy = inverse @ values @ inverse.T
    terms = np.polynomial.chebyshev.chebvander(u, degree)
    (xx, xy), (yx, yy) = (
        (terms @ _derivative(c, 1) @ terms.T / hx, terms @ _derivative(c, 0) @ terms.T / hy) for c in (cx, cy)
    )
    determinant = inverse @ (xx * yy - xy * yx) @ inverse.T
    return _Series(box, _trimmed(cx), _trimmed(cy), _trimmed(determinant))


def _derivative(coefficients: FloatArray, axis: int) -> FloatArray:
    """Padded to the shape that it had."""
    out = np.zeros_like(coefficients)
    part = np.polynomial.chebyshev.chebder(coefficients, axis=axis)
    out[: part.shape[0], : part.shape[1]] = part
    return out


def _trimmed(coefficients: FloatArray) -> FloatArray:
    """Without the highest degrees that add next to nothing."""
    for axis in (0, 1):
        tail = np.cumsum(np.abs(coefficients).sum(axis=1 - axis)[::-1])[::-1]
        count = max(1, int(np.count_nonzero(tail > NEGLIGIBLE)))
        coefficients = coefficients[:count] if axis == 0 else coefficients[:, :count]
    return coefficients
