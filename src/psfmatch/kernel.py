"""The one kind of kernel that every solver returns: basis images times smooth weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError
from psfmatch.fields import SPLINE_DEGREE, Field, spline_terms
from psfmatch.geometry import Box, FloatArray, frozen, odd_shape, plain_array

__all__ = ["MatchingKernel", "chebyshev_nodes"]

FINER = 8
"""Knots of the spline that the square of a spline is fitted by, in units of those of the spline."""
COARSE = 7
"""Points along an axis between two knots, at which K^2 is looked at for its principal images."""


@dataclass(frozen=True, eq=False)
class MatchingKernel:
    """A kernel that varies over the field, ``K(u; x) = sum_i w_i(x) B_i(u)``.

    Parameters
    ----------
    basis : array, shape (n, ky, kx)
        The basis images B_i, of odd size; the central pixel is the origin.
    weights : Field
        The n weights w_i.

    Raises
    ------
    InputError
        If the sizes are even, do not fit together, a pixel is not finite, or the weights are steps (``cells``).
    """

    basis: FloatArray
    weights: Field

    def __post_init__(self) -> None:
        basis = frozen(plain_array(self.basis, "kernel basis", float))
        if basis.ndim != 3 or basis.shape[0] != self.weights.n:
            raise InputError(f"kernel: {self.weights.n} weights do not fit a basis of shape {basis.shape}")
        odd_shape(basis.shape[1:], "kernel shape")
        if self.weights.kind == "cells":
            raise InputError("kernel: weights of kind cells are steps; give chebyshev1, polynomial or spline")
        if not np.isfinite(basis).all():
            raise InputError("kernel: the basis has NaN or infinite pixels")
        object.__setattr__(self, "basis", basis)

    @classmethod
    def constant(cls, image: ArrayLike, box: Box) -> MatchingKernel:
        """The same kernel image (ky, kx) everywhere."""
        return cls(plain_array(image, "kernel", float)[None], Field.constant([1.0], box))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.basis.shape[1], self.basis.shape[2]

    @property
    def box(self) -> Box:
        """Where the kernel is meant to be used."""
        return self.weights.box

    @cached_property
    def support(self) -> NDArray[np.bool_]:
        """The pixels (ky, kx) where any basis image is not zero."""
        return np.asarray((self.basis != 0).any(axis=0))

    def stamps(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The kernel at scattered positions: shape (n_positions, ky, kx)."""
        return np.tensordot(self.weights.at(x=x, y=y).T, self.basis, axes=1)

    def sums(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The sum of the kernel at scattered positions: shape (n_positions,)."""
        return np.asarray(self.weights.at(x=x, y=y).T @ self.basis.sum(axis=(1, 2)))

    def compressed(self, tolerance: float = 1e-8) -> MatchingKernel:
        """The same kernel with as few basis images as possible.

        The weights are made orthonormal over the box and the basis is truncated by singular values (Eckart & Young
        1936): the root mean square over the box of the change of the kernel, in the 2-norm over its pixels, is at
        most ``tolerance`` times that of the kernel itself.  The largest pixel of each image is positive.
        """
        nodes_x, nodes_y = chebyshev_nodes(self.box, 2 * (self.weights.order + 1))
        one = Field(np.eye(self.weights.coefficients.shape[1]), self.box, self.weights.kind)
        terms = one.on_grid(x=nodes_x, y=nodes_y).reshape(one.n, -1)
        terms /= np.sqrt(terms.shape[1])
        triangle = np.linalg.qr(terms.T, mode="r")
        images = self.weights.coefficients.T @ self.basis.reshape(self.weights.n, -1)
        left, values, right = np.linalg.svd(triangle @ images, full_matrices=False)
        tail = np.sqrt(np.cumsum(values[::-1] ** 2))[::-1]
        rank = max(1, int(np.count_nonzero(tail > tolerance * tail[0])))
        largest = np.take_along_axis(right, abs(right).argmax(axis=1)[:, None], 1)[:rank]
        signs = np.where(largest < 0, -1.0, 1.0)
        coefficients = signs * np.linalg.solve(triangle, left[:, :rank] * values[:rank]).T
        field = Field(coefficients, self.box, self.weights.kind)
        return MatchingKernel((signs * right[:rank]).reshape(rank, *self.shape), field)

    def squared(self, tolerance: float = 1e-5) -> MatchingKernel:
        """The kernel of the variance, ``K(u; x)^2``, compressed to ``tolerance``.

        The product of two polynomials of degree d is one of degree 2d, fixed exactly by its values at
        (2d + 1)^2 Chebyshev nodes.  That of two splines is fitted by a spline on knots eight times as dense, which
        leaves 5e-5 of the variance where the weights are as rough as splines can be, 1e-6 where they follow a PSF.
        """
        if self.weights.kind == "spline":
            return self._squared_spline(tolerance)
        order = 2 * self.weights.order
        nodes_x, nodes_y = chebyshev_nodes(self.box, order + 1)
        grid_y, grid_x = (g.ravel() for g in np.meshgrid(nodes_y, nodes_x, indexing="ij"))
        squares = self.stamps(x=grid_x, y=grid_y).reshape(grid_x.size, -1) ** 2
        field = Field.fit(squares.T, x=grid_x, y=grid_y, order=order, box=self.box)
        n = field.coefficients.shape[1]
        exact = MatchingKernel(field.coefficients.T.reshape(n, *self.shape), Field(np.eye(n), self.box))
        return exact.compressed(tolerance)

    def _squared_spline(self, tolerance: float) -> MatchingKernel:
        """Principal images of K^2 on a dense grid, their weights fitted by splines along each axis in turn."""
        pieces = self.weights.order - SPLINE_DEGREE + 1
        flat = self.basis.reshape(self.weights.n, -1)
        images = _principal_images((self._spline_weights(COARSE * pieces).T @ flat) ** 2, tolerance)
        order = FINER * pieces + SPLINE_DEGREE - 1
        u = np.linspace(-1.0, 1.0, 2 * (order + 1))
        weights = self._spline_weights(u.size)
        surfaces = np.stack([((((flat * image) @ flat.T) @ weights) * weights).sum(axis=0) for image in images])
        inverse = np.linalg.pinv(spline_terms(u, order).T)
        coefficients = inverse @ surfaces.reshape(-1, u.size, u.size) @ inverse.T
        field = Field(coefficients.reshape(len(images), -1), self.box, "spline")
        return MatchingKernel(images.reshape(-1, *self.shape), field)

    def _spline_weights(self, count: int) -> FloatArray:
        """The weights on a uniform grid of count x count points, from edge to edge: shape (n, count^2)."""
        u = np.linspace(-1.0, 1.0, count)
        ny, nx = self.box.shape
        x, y = self.box.center.x + 0.5 * nx * u, self.box.center.y + 0.5 * ny * u
        return self.weights.on_grid(x=x, y=y).reshape(self.weights.n, -1)


def _principal_images(squares: FloatArray, tolerance: float) -> FloatArray:
    """Orthonormal images (r, k) that hold all of (n, k) but a fraction of the root mean square, and every sum.

    The first is the uniform one, where any is not zero: the variance of white noise is a sum, and none is lost.
    """
    lit = (squares != 0).any(axis=0).astype(float)
    uniform = lit / max(1.0, float(np.linalg.norm(lit)))
    rest = squares - np.outer(squares @ uniform, uniform)
    values, vectors = np.linalg.eigh(rest.T @ rest)
    tail = np.cumsum(np.maximum(values, 0.0))
    rank = int(np.count_nonzero(tail > tolerance**2 * (squares**2).sum()))
    return np.vstack([uniform, vectors[:, vectors.shape[1] - rank :].T])


def chebyshev_nodes(box: Box, count: int) -> tuple[FloatArray, FloatArray]:
    """Columns and rows of the Gauss-Chebyshev nodes between the box's edges."""
    u = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    ny, nx = box.shape
    return box.center.x + 0.5 * nx * u, box.center.y + 0.5 * ny * u
