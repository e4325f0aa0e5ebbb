"""Smoothness penalties on the pixels of a kernel, for the delta-function basis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray
from psfmatch.solve.normal import NormalEquations
from psfmatch.solve.spatial import solve_symmetric

__all__ = ["Regularization"]


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """A penalty ``strength * norm2(D k)^2`` on the roughness of the kernel (Becker et al. 2012, MNRAS 425, 1341).

    Parameters
    ----------
    kind : {"central", "forward"}
        ``central``: D is a Laplacian; ``forward``: D is the sum of forward differences along x and y.
    stencil : {5, 9}
        Points of the Laplacian.
    orders : tuple of int
        Orders (1 to 3) of the forward differences that are summed.
    border : float
        Penalty on the outermost pixels, which have no Laplacian (for ``forward``: on the last pixel of a row).
    choice : {"absolute", "relative", "biased-risk", "unbiased-risk"}
        ``absolute``: ``strength`` is the factor itself.  ``relative``: times ``trace(M) / trace(D^T D)``.  The
        others choose, cell by cell, the one of ``steps`` that minimises the predictive risk (Stein 1981);
        ``biased-risk`` leaves out eigenvalues below 1 / ``max_condition`` of the largest.
    strength : float
        See ``choice``.
    steps : tuple of float
        Factors to choose from.
    max_condition : float
        See ``choice``.
    variance : float
        Variance of a pixel of ``K*S - T`` that an absolute ``strength``, and the risks, refer to.  Rubin's two
        stamps have a variance of 1 each, which makes 2.
    """

    kind: Literal["central", "forward"] = "central"
    stencil: Literal[5, 9] = 9
    orders: tuple[int, ...] = (1, 2)
    border: float = 3.0
    choice: Literal["absolute", "relative", "biased-risk", "unbiased-risk"] = "relative"
    strength: float = 1e-4
    steps: tuple[float, ...] = tuple(10.0 ** (-1.0 + 0.1 * k) for k in range(31))
    max_condition: float = 5e7
    variance: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("central", "forward"):
            raise InputError(f"regularization kind {self.kind!r}: choose central or forward")
        if self.stencil not in (5, 9):
            raise InputError(f"regularization stencil {self.stencil!r}: choose 5 or 9")
        if not self.orders or any(o not in (1, 2, 3) for o in self.orders):
            raise InputError(f"regularization orders {self.orders!r}: choose from 1, 2, 3")
        if self.border < 0 or self.strength < 0 or self.variance <= 0:
            raise InputError("regularization border and strength must not be negative, the variance positive")
        if self.choice not in ("absolute", "relative", "biased-risk", "unbiased-risk"):
            raise InputError(f"regularization choice {self.choice!r}: absolute, relative, biased-risk, unbiased-risk")

    def penalty(self, basis: FloatArray) -> FloatArray:
        """``D^T D`` in terms of the basis weights: shape (m, m)."""
        size = basis.shape[1]
        flat = basis.reshape(len(basis), -1)
        # The difference operators are written for Rubin's pixel order, which is ours reversed.
        roughness = flat[:, ::-1] @ self._operator(size).T
        return roughness @ roughness.T

    def apply(self, equations: NormalEquations, basis: FloatArray) -> tuple[NormalEquations, FloatArray]:
        """The equations with the penalty added, and the factor used in every cell."""
        penalty = self.penalty(basis)
        m = len(penalty)
        if equations.matrix.shape[1] > m:  # the background is not penalised
            penalty = np.pad(penalty, (0, equations.matrix.shape[1] - m))
        factors = self._factors(equations, penalty)
        matrix = equations.matrix + factors[:, None, None] * penalty
        return NormalEquations(matrix, equations.vector, equations.power, equations.pixels), factors

    def _factors(self, equations: NormalEquations, penalty: FloatArray) -> FloatArray:
        n = len(equations.matrix)
        if self.choice == "absolute":
            return np.full(n, self.variance * self.strength)
        if self.choice == "relative":
            traces = np.trace(equations.matrix, axis1=1, axis2=2)
            return np.asarray(self.strength * traces / np.trace(penalty))
        limit = self.max_condition if self.choice == "biased-risk" else np.inf
        return np.array([self._least_risk(equations.matrix[c], equations.vector[c], penalty, limit) for c in range(n)])

    def _least_risk(self, matrix: FloatArray, vector: FloatArray, penalty: FloatArray, limit: float) -> float:
        """The factor of the least predictive risk, ``a'Pa + 2 (v tr(P M_l^-1) - a' P M^+ b)``, P the seen subspace."""
        values, vectors = np.linalg.eigh(matrix)
        seen = values >= max(values[-1] / limit, values[-1] * len(values) * np.finfo(float).eps)
        projector = vectors[:, seen] @ vectors[:, seen].T
        plain = vectors[:, seen] @ ((vectors[:, seen].T @ vector) / values[seen])
        risks = []
        factors = [self.variance * step for step in self.steps]
        for factor in factors:
            regular = matrix + factor * penalty
            a, _ = solve_symmetric(regular, vector)
            trace = np.trace(np.linalg.lstsq(regular, projector, rcond=None)[0])
            risks.append(a @ projector @ a + 2.0 * (self.variance * trace - a @ plain))
        return factors[int(np.argmin(risks))]

    def _operator(self, size: int) -> FloatArray:
        """The matrix D (size^2, size^2)."""
        return self._laplacian(size) if self.kind == "central" else self._forward(size)

    def _laplacian(self, size: int) -> FloatArray:
        if self.stencil == 5:
            stencil = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        else:
            stencil = np.array([[1.0, 4.0, 1.0], [4.0, -20.0, 4.0], [1.0, 4.0, 1.0]]) / 6.0
        pixel = np.arange(size * size).reshape(size, size)
        operator = np.diag(np.full(size * size, float(self.border)))
        inner = pixel[1:-1, 1:-1].ravel()
        operator[inner, inner] = 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                operator[inner, inner + dy * size + dx] += stencil[dy + 1, dx + 1]
        return operator

    def _forward(self, size: int) -> FloatArray:
        """Forward differences; their order drops towards the far border, where only ``border`` is left."""
        rows = ((self.border,), (-1.0, 1.0), (-1.0, 2.0, -1.0), (-1.0, 3.0, -3.0, 1.0))
        line = np.zeros((size, size))
        for order in self.orders:
            for i in range(size):
                used = rows[min(order, size - 1 - i)]
                line[i, i : i + len(used)] += used
        one = np.eye(size)
        return np.kron(one, line) + np.kron(line, one)
