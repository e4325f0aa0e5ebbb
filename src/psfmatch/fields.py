"""Smooth functions of position: the weights of basis images over a field of view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError
from psfmatch.geometry import Box, FloatArray, as_positions, frozen, plain_array

__all__ = ["Field", "FieldKind", "n_terms", "term_degrees", "terms_at"]

FieldKind = Literal["chebyshev1", "polynomial", "spline", "cells"]
PRODUCTS = ("spline", "cells")
"""Kinds whose terms are all products of the functions along the two axes."""
SPLINE_DEGREE = 3


def n_terms(order: int, kind: FieldKind = "chebyshev1") -> int:
    """The number of terms in two variables, of ``order + 1`` functions along each axis."""
    return (order + 1) ** 2 if kind in PRODUCTS else (order + 1) * (order + 2) // 2


def order_of(terms: int, kind: FieldKind = "chebyshev1") -> int:
    """The order that has so many terms (rounded down)."""
    return int(np.sqrt(terms) + 1e-9) - 1 if kind in PRODUCTS else int(np.sqrt(2 * terms + 0.25) - 1.5 + 1e-9)


def term_degrees(order: int, kind: FieldKind = "chebyshev1") -> tuple[tuple[int, int], ...]:
    """Which functions (in x, in y) each term is the product of.

    Polynomials: order by order, 1, x, y, x^2, xy, y^2, ...  Splines and cells: all products, x running fastest.
    """
    if kind in PRODUCTS:
        return tuple((i, j) for j in range(order + 1) for i in range(order + 1))
    return tuple((total - j, j) for total in range(order + 1) for j in range(total + 1))


def _axis_terms(u: FloatArray, order: int, kind: FieldKind) -> FloatArray:
    """The ``order + 1`` one-dimensional functions at u (..., n): shape (..., order + 1, n)."""
    if kind == "chebyshev1":
        return np.polynomial.chebyshev.chebvander(u, order).swapaxes(-1, -2)
    if kind == "polynomial":
        return np.polynomial.polynomial.polyvander(u, order).swapaxes(-1, -2)
    if kind == "cells":
        cell = np.clip(np.floor(0.5 * (u + 1.0) * (order + 1)), 0, order)
        return np.asarray(cell[..., None, :] == np.arange(order + 1)[:, None], float)
    return spline_terms(u.ravel(), order).T.reshape(*u.shape, order + 1).swapaxes(-1, -2)


def spline_terms(u: FloatArray, order: int) -> FloatArray:
    """``order + 1`` cubic B-splines on uniform knots over [-1, 1], at u: shape (order + 1, n)."""
    from scipy.interpolate import BSpline

    inner = np.linspace(-1.0, 1.0, order + 2 - SPLINE_DEGREE)
    knots = np.concatenate([[-1.0] * SPLINE_DEGREE, inner, [1.0] * SPLINE_DEGREE])
    return np.asarray(BSpline.design_matrix(np.clip(u, -1.0, 1.0), knots, SPLINE_DEGREE).toarray().T)


def _scaled(x: FloatArray, y: FloatArray, box: Box, kind: FieldKind) -> tuple[FloatArray, FloatArray]:
    if kind == "polynomial":
        return x, y
    ny, nx = box.shape
    return 2.0 * (x - box.center.x) / nx, 2.0 * (y - box.center.y) / ny


def terms_at(x: FloatArray, y: FloatArray, *, order: int, box: Box, kind: FieldKind) -> FloatArray:
    """Every term of a field at every position: shape (n_terms, n_positions)."""
    u, v = _scaled(x, y, box, kind)
    px, py = _axis_terms(u, order, kind), _axis_terms(v, order, kind)
    return np.stack([px[i] * py[j] for i, j in term_degrees(order, kind)])


@dataclass(frozen=True, eq=False)
class Field:
    """``n`` functions of position: polynomials of one total degree, splines, or steps.

    Parameters
    ----------
    coefficients : array, shape (n, n_terms)
        One row a function.  The terms of polynomials run order by order: 1, x, y, x^2, xy, y^2, ...
    box : Box
        Where the functions are meant to be used.
    kind : {"chebyshev1", "polynomial", "spline", "cells"}
        ``chebyshev1``: products ``T_i(u) T_j(v)`` of Chebyshev polynomials of the first kind, with ``u`` and
        ``v`` running from -1 to 1 between the outer *edges* of the box.  ``polynomial``: products
        ``x^i y^j`` of the pixel coordinates themselves (ill-conditioned on large frames).  ``spline``: products
        of m cubic B-splines along each axis, on uniform knots between the edges (n_terms = m^2, x running fastest;
        constant beyond the edges).  ``cells``: one value in each of m x m equal cells (n_terms = m^2, x running
        fastest).

    Raises
    ------
    InputError
        If the number of terms belongs to no polynomial order, or a coefficient is not finite.
    """

    coefficients: FloatArray
    box: Box
    kind: FieldKind = "chebyshev1"

    def __post_init__(self) -> None:
        c = frozen(np.atleast_2d(plain_array(self.coefficients, "field coefficients", float)))
        if self.kind not in get_args(FieldKind):
            raise InputError(f"field kind {self.kind!r}: choose one of {', '.join(get_args(FieldKind))}")
        order = order_of(c.shape[1], self.kind)
        if c.ndim != 2 or n_terms(order, self.kind) != c.shape[1] or (self.kind == "spline" and order < SPLINE_DEGREE):
            wanted = {"spline": "(n, 16), (n, 25), (n, 36)...", "cells": "(n, 1), (n, 4), (n, 9)..."}
            known = wanted.get(self.kind, "(n, 1), (n, 3), (n, 6), (n, 10)...")
            raise InputError(f"field coefficients of shape {c.shape}: expected {known}")
        if not np.isfinite(c).all():
            raise InputError("field coefficients must be finite")
        object.__setattr__(self, "coefficients", c)

    @classmethod
    def constant(cls, values: ArrayLike, box: Box) -> Field:
        """Functions that do not vary."""
        return cls(np.atleast_1d(plain_array(values, "field values", float))[:, None], box)

    @classmethod
    def fit(
        cls, values: ArrayLike, *, x: ArrayLike, y: ArrayLike, order: int, box: Box,
        kind: FieldKind = "chebyshev1",
    ) -> Field:  # fmt: skip
        """The least-squares field through values (n, n_positions) at scattered positions.

        Raises
        ------
        InputError
            If there are fewer positions than terms.
        """
        px, py = as_positions(x, y)
        terms = terms_at(px, py, order=order, box=box, kind=kind)
        if terms.shape[1] < terms.shape[0]:
            raise InputError(f"{terms.shape[1]} positions cannot fix a field of order {order} ({terms.shape[0]} terms)")
        rows = np.atleast_2d(plain_array(values, "field values", float))
        c = np.linalg.lstsq(terms.T, rows.T, rcond=None)[0]
        return cls(c.T, box, kind)

    @property
    def n(self) -> int:
        """The number of functions."""
        return int(self.coefficients.shape[0])

    @property
    def order(self) -> int:
        """The total degree of polynomials; else one less than the functions along an axis."""
        return order_of(self.coefficients.shape[1], self.kind)

    def at(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The functions at scattered positions (scalars or arrays): shape (n, n_positions)."""
        px, py = as_positions(x, y)
        return self.coefficients @ terms_at(px, py, order=self.order, box=self.box, kind=self.kind)

    @cached_property
    def table(self) -> FloatArray:
        """The coefficients by function along y and function along x: shape (n, order + 1, order + 1)."""
        square = np.zeros((self.n, self.order + 1, self.order + 1))
        for k, (i, j) in enumerate(term_degrees(self.order, self.kind)):
            square[:, j, i] = self.coefficients[:, k]
        return square

    def terms_along(self, *, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """The functions of one coordinate that the terms are products of.

        Parameters
        ----------
        x, y : array
            Columns (..., nx) and rows (..., ny).

        Returns
        -------
        array, shape (..., order + 1, nx)
            Along x.
        array, shape (..., order + 1, ny)
            Along y.
        """
        u, v = _scaled(plain_array(x, "x", float), plain_array(y, "y", float), self.box, self.kind)
        return _axis_terms(u, self.order, self.kind), _axis_terms(v, self.order, self.kind)

    def on_grid(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The functions at every combination of columns ``x`` and rows ``y``: shape (n, len(y), len(x))."""
        along_x, along_y = self.terms_along(x=x, y=y)
        if self.kind not in PRODUCTS:
            return along_y.T @ self.table @ along_x
        at_x, at_y = along_x.any(axis=1), along_y.any(axis=1)  # few are not zero on a small grid
        return along_y[at_y].T @ self.table[:, at_y][:, :, at_x] @ along_x[at_x]
