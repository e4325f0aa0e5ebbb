"""How a kernel varies over the field: the lowest model that is true where it was not fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from psfmatch.cells import SpatialCellSet
from psfmatch.fields import FieldKind, n_terms
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel
from psfmatch.solve.compress import compressed_cells
from psfmatch.solve.toeplitz import PixelEquations, changes, residuals

__all__ = ["CHECKED", "Check", "Model", "Solved", "Variation", "models", "nodes", "on_box", "varying_kernel"]

CHECKED = 5
"""Positions along each axis where a kernel that varies is checked, from edge to edge."""
SPLINE_SIDES = (8, 14, 22)
LARGEST_WORK = 600 * 29**6


@dataclass(frozen=True)
class Model:
    """A family of smooth weights, its order, and the cells along an axis that it is fitted to."""

    kind: FieldKind
    order: int
    side: int


@dataclass(frozen=True, eq=False)
class Solved:
    """Cells, and the kernel of each."""

    cells: SpatialCellSet
    kernels: FloatArray


@dataclass(frozen=True, eq=False)
class Check:
    """Positions where a kernel is judged, with the kernels that each of them would have on its own."""

    solved: Solved
    equations: list[PixelEquations]

    def own_residual(self) -> float:
        """The worst residual of the positions' own kernels."""
        return float(residuals(self.equations, self.solved.kernels).max())

    def worst(self, kernel: MatchingKernel) -> float:
        """What a kernel for the field changes in the matched PSF, at worst, in units of its norm."""
        cells = self.solved.cells
        moved = kernel.stamps(x=cells.x, y=cells.y) - self.solved.kernels
        return float(changes(self.equations, moved).max())

    def excludes(self, model: Model, box: Box, enough: float, share: float) -> bool:
        """Whether a model is too poor even if it is fitted to these very positions, where they are enough to say."""
        if len(self.solved.cells) < 1.5 * n_terms(model.order, model.kind):
            return False
        return self.worst(_fitted(self.solved, model, box, share)) > enough


@dataclass(frozen=True, eq=False)
class Variation:
    """A kernel for the field, the cells that it was fitted to, and what it changes at the positions of a check."""

    kernel: MatchingKernel
    cells: SpatialCellSet
    worst: float


def varying_kernel(
    check: Check,
    solved: Callable[[Model], Solved],
    tried: Iterator[Model],
    box: Box,
    *,
    enough: float,
    good: float,
    share: float,
) -> Variation | None:
    """The kernel of the first model that is true at the positions of the check, or else of the best.

    Parameters
    ----------
    check : Check
        Where it is judged.
    solved : callable
        Gives the cells that a model is fitted to; those of a model with as many are used again.
    tried : iterator of Model
        From low to high.
    box : Box
        The field.
    enough : float
        The change of the matched PSF at which the search ends.
    good : float
        The change at which it ends with the last polynomial, splines being larger.
    share : float
        What `compressed_cells` may leave out.

    Returns
    -------
    Variation or None
        None where there are fewer cells than terms of any model.
    """
    best: Variation | None = None
    known: tuple[int, Solved] | None = None
    ordered = list(tried)
    polynomials = [model for model in ordered if model.kind == "chebyshev1"]
    for model in ordered:
        last = model is polynomials[-1]
        if not last and check.excludes(model, box, enough, share):
            continue
        if known is None or known[0] != model.side:
            known = model.side, solved(model)
        if len(known[1].cells) < n_terms(model.order, model.kind):
            continue
        kernel = _fitted(known[1], model, box, share)
        worst = check.worst(kernel)
        if best is None or worst < best.worst:
            best = Variation(kernel, known[1].cells, worst)
        if worst <= enough or (last and worst <= good):
            break
    return best


def _fitted(solved: Solved, model: Model, box: Box, share: float) -> MatchingKernel:
    cells = solved.cells
    return compressed_cells(solved.kernels, cells.x, cells.y, box, model.order, share, kind=model.kind)[0]


def models(order: int | None, max_order: int, size: int) -> Iterator[Model]:
    """The models to try, from low to high; one where the order is given.  Splines only if the work is bearable."""
    for k in range(max_order + 1) if order is None else (order,):
        yield Model("chebyshev1", k, 4 if k < 3 else 3 + k // 3 * 3)
    for side in SPLINE_SIDES:
        if order is None and side**2 * size**6 <= LARGEST_WORK:
            yield Model("spline", side - 1, side)


def nodes(model: Model, box: Box) -> tuple[FloatArray, FloatArray]:
    """Where to sample for a model: Chebyshev nodes for polynomials, a uniform grid from edge to edge for splines."""
    if model.kind == "spline":
        return on_box(box, np.linspace(-1.0, 1.0, model.side))
    return on_box(box, np.cos(np.pi * (np.arange(model.side) + 0.5) / model.side))


def on_box(box: Box, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The grid (x, y) of relative positions, -1 to 1 from the first pixel's centre to the last's."""
    ny, nx = box.shape
    x, y = np.meshgrid(box.center.x + 0.5 * (nx - 1) * u, box.center.y + 0.5 * (ny - 1) * u)
    return x.ravel(), y.ravel()
