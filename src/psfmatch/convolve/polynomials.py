"""The polynomials of a kernel: as a function of the input pixel's column, and within a block."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from psfmatch.fields import Field, term_degrees
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["AxisTerms", "axis_terms", "from_input_column", "nodes"]


class AxisTerms(NamedTuple):
    """The Chebyshev polynomials along one axis of a block.

    Parameters
    ----------
    matrix : array, shape (m, m)
        From coefficients of the field's polynomials to those of the block's.
    values : array, shape (m, n)
        The block's polynomials at its pixels.
    """

    matrix: FloatArray
    values: FloatArray


def axis_terms(positions: FloatArray, at_nodes: FloatArray) -> AxisTerms:
    """For the pixels of a block along an axis, and the field's polynomials (m, m) at its nodes."""
    count = len(at_nodes)
    middle, half = _span(positions)
    values = np.polynomial.chebyshev.chebvander((positions - middle) / half, count - 1).T
    return AxisTerms(_chebyshev(count)[1] @ at_nodes.T, values)


def nodes(positions: FloatArray, kernel: MatchingKernel) -> FloatArray:
    """As many Gauss-Chebyshev nodes between the ends of a block's axis as the field has polynomials along it."""
    middle, half = _span(positions)
    return middle + half * _chebyshev(kernel.weights.order + 1)[0]


def _span(positions: FloatArray) -> tuple[float, float]:
    return float(positions.mean()), max(0.5 * (positions.size - 1), 0.5)


@lru_cache(maxsize=32)
def _chebyshev(count: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Chebyshev nodes, and the matrix from values there to coefficients."""
    at = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return at, np.linalg.inv(np.polynomial.chebyshev.chebvander(at, count - 1))


def from_input_column(kernel: MatchingKernel) -> FloatArray:
    """The images of a polynomial kernel's Chebyshev terms, as a function of the input pixel's column.

    ``T_i(x' + u) = sum_m A_im(u) T_m(x')`` for each column u of the kernel.

    Returns
    -------
    array, shape (n_terms, ky, kx)
    """
    order, box = kernel.weights.order, kernel.box
    unit, _ = _chebyshev(order + 1)
    x, y = box.center.x + 0.5 * box.shape[1] * unit, box.center.y + 0.5 * box.shape[0] * unit
    one = Field(np.eye((order + 1) * (order + 2) // 2), box)
    along_x, along_y = one.terms_along(x=x, y=y)
    weights = kernel.weights.on_grid(x=x, y=y)  # Chebyshev series whatever the field's own polynomials
    table = np.linalg.inv(along_y.T) @ weights @ np.linalg.inv(along_x)
    by_term = np.tensordot(table, kernel.basis, axes=(0, 0))  # (j, i, ky, kx)
    columns = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    moves = np.stack([one.terms_along(x=x + u, y=y)[0] @ np.linalg.inv(along_x) for u in columns])
    moved = np.einsum("jiyu,uim->jmyu", by_term, moves)
    return np.stack([moved[j, m] for m, j in term_degrees(order)])
