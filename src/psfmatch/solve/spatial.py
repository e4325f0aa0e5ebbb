"""The spatial model: weights of basis images as polynomials of position, from the cells' normal equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from psfmatch.fields import FieldKind, n_terms, terms_at
from psfmatch.geometry import Box, FloatArray
from psfmatch.solve.normal import NormalEquations

__all__ = ["SpatialModel", "SpatialSolution", "SumRule", "condition_number", "solve_spatial", "solve_symmetric"]

SumRule = Literal["constrain", "fit", "overwrite"]
Condition = Literal["eigenvalue", "svd"]


def solve_symmetric(matrix: FloatArray, vector: FloatArray) -> tuple[FloatArray, bool]:
    """Solve ``M a = b`` for stacks of symmetric, non-negative matrices, and say whether any was singular.

    A regular matrix is solved by LU; one with an eigenvalue below ``m eps`` of the largest by the pseudo-inverse
    that leaves those directions out.
    """
    values, vectors = np.linalg.eigh(matrix)
    least = values[..., -1:] * matrix.shape[-1] * np.finfo(float).eps
    dropped = values <= least
    if not dropped.any():
        return np.linalg.solve(matrix, vector[..., None])[..., 0], False
    inverse = np.where(dropped, 0.0, 1.0 / np.where(dropped, 1.0, values))
    rotated = np.matmul(vectors.swapaxes(-1, -2), vector[..., None])[..., 0]
    return np.matmul(vectors, (inverse * rotated)[..., None])[..., 0], True


def condition_number(matrix: FloatArray, kind: Condition = "eigenvalue") -> FloatArray:
    """Largest over smallest eigenvalue (negative where rounding made the smallest so) or singular value."""
    values = np.linalg.eigvalsh(matrix) if kind == "eigenvalue" else np.linalg.svd(matrix, compute_uv=False)
    with np.errstate(divide="ignore"):
        return np.asarray(values.max(axis=-1) / values.min(axis=-1))


@dataclass(frozen=True)
class SpatialModel:
    """How the weights vary over the field.

    Parameters
    ----------
    order : int
        Total degree of the weights.
    kind : {"chebyshev1", "polynomial"}
        Family of the terms.
    box : Box
        Where the Chebyshev polynomials are defined.
    constant_first : bool
        The first weight does not vary: with a `zero_sum` basis, the kernel sum is the same everywhere.
    sum_rule : {"constrain", "fit", "overwrite"}
        With ``constant_first``: fix the first weight at the kernel sum and fit the others; fit it like the others;
        or fit it and overwrite it afterwards, as Rubin's task does.
    background_order : int, optional
        Total degree of an additive background, the last unknown of the normal equations.
    """

    order: int
    kind: FieldKind
    box: Box
    constant_first: bool
    sum_rule: SumRule
    background_order: int | None = None


@dataclass(frozen=True, eq=False)
class SpatialSolution:
    """Weights (m, n_terms), the first weight as it was fitted, the background's terms, and the matrix's state."""

    coefficients: FloatArray
    fitted_first: float
    background: FloatArray
    condition: float
    singular: bool
    unknowns: int


def solve_spatial(
    model: SpatialModel,
    equations: NormalEquations,
    *,
    x: FloatArray,
    y: FloatArray,
    kernel_sum: float,
    condition: Condition = "eigenvalue",
) -> SpatialSolution:
    """Least squares over all cells at once (Alard 2000, A&AS 144, 363, equations 5 to 7).

    The unknowns are ``a_ip``, the weight of basis image i times term p; every cell adds
    ``M_ij t_p t_q`` to the matrix and ``b_i t_p`` to the vector.
    """
    m, nt = equations.vector.shape[1], n_terms(model.order)
    n_background = 0 if model.background_order is None else n_terms(model.background_order)
    n_kernel = m - (n_background > 0)
    order = max(model.order, model.background_order or 0)
    terms = terms_at(x, y, order=order, box=model.box, kind=model.kind)
    all_terms = len(terms)
    pairs = (terms[:, None] * terms[None, :]).reshape(all_terms**2, -1)
    sums = (pairs @ equations.matrix.reshape(len(x), -1)).reshape(all_terms, all_terms, m, m)
    matrix = sums.transpose(2, 0, 3, 1).reshape(m * all_terms, m * all_terms)
    vector = (equations.vector.T @ terms.T).ravel()

    counts = np.full(m, nt)
    if model.constant_first:
        counts[0] = 1
    if n_background:
        counts[-1] = n_background
    keep = np.concatenate([i * all_terms + np.arange(c) for i, c in enumerate(counts)])
    matrix, vector = matrix[np.ix_(keep, keep)], vector[keep]

    if model.constant_first and model.sum_rule == "constrain":
        first = kernel_sum
        rest, singular = _solve_rest(matrix, kernel_sum * vector, first)
        flat = np.concatenate([[first], rest])
    else:
        scale = 1.0 if model.sum_rule == "overwrite" else kernel_sum
        flat, singular = solve_symmetric(matrix, scale * vector)
        first = float(flat[0])
        if model.sum_rule == "overwrite":
            flat[0] = kernel_sum
    coefficients = np.zeros((n_kernel, nt))
    starts = np.concatenate([[0], np.cumsum(counts)])
    for i in range(n_kernel):
        coefficients[i, : counts[i]] = flat[starts[i] : starts[i + 1]]
    background = flat[starts[n_kernel] :]
    return SpatialSolution(
        coefficients, first, background, float(condition_number(matrix, condition)), singular, flat.size
    )


def _solve_rest(matrix: FloatArray, vector: FloatArray, first: float) -> tuple[FloatArray, bool]:
    """All unknowns but the first, which is known."""
    if len(vector) == 1:
        return np.zeros(0), False
    return solve_symmetric(matrix[1:, 1:], vector[1:] - first * matrix[1:, 0])
