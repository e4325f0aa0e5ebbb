"""Cells and candidates under Rubin's names, over our sampled PSFs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from psfmatch import cells as sampled
from psfmatch.errors import InputError
from psfmatch.geometry import Box, FloatArray
from psfmatch.lsst.kernels import LinearCombinationKernel
from psfmatch.solve import AlardLupton, Clipping, Solution

__all__ = ["KernelCandidate", "SpatialCell", "SpatialCellCandidate", "SpatialCellSet"]


class SpatialCellCandidate:
    """The states of a candidate."""

    BAD = 0
    GOOD = 1
    UNKNOWN = 2


class KernelCandidate(SpatialCellCandidate):
    """The pair of PSF stamps of one cell.

    ``science`` and ``target`` are the stamps as psfmatch has them.  The methods with Rubin's names return images in
    Rubin's orientation, mirrored in both axes (see `LinearCombinationKernel`).

    Parameters
    ----------
    owner : SpatialCellSet
        All candidates.
    index : int
        Which of them this is, from 0.
    """

    def __init__(self, owner: SpatialCellSet, index: int) -> None:
        self._owner, self._index = owner, index

    @property
    def science(self) -> FloatArray:
        """The PSF of the exposure (rows, columns)."""
        return np.asarray(self._owner.cells.science[self._index])

    @property
    def target(self) -> FloatArray:
        """The PSF that is wished for."""
        return np.asarray(self._owner.cells.target[self._index])

    def getId(self) -> int:
        """Its number, from 0."""
        return self._index

    def getXCenter(self) -> float:
        """Column, in the parent frame."""
        return float(self._owner.cells.x[self._index])

    def getYCenter(self) -> float:
        """Row, in the parent frame."""
        return float(self._owner.cells.y[self._index])

    def getStatus(self) -> int:
        """UNKNOWN before the fit; then GOOD, or BAD if it was rejected."""
        solution = self._owner.solution
        if solution is None:
            return self.UNKNOWN
        return self.GOOD if solution.statistics["used"][self._index] else self.BAD

    def isBad(self) -> bool:
        """Whether it was rejected."""
        return self.getStatus() == self.BAD

    def getCandidateRating(self) -> float:
        """The mean of the target stamp within ``candidateCoreRadius`` of its centre."""
        middle, radius = self.target.shape[0] // 2, self._owner.core_radius
        core = slice(max(0, middle - radius), middle + radius + 1)
        return float(self.target[core, core].mean())

    def getTemplateMaskedImage(self) -> NDArray[np.float64]:
        """The image that is convolved: the exposure's PSF."""
        return np.array(self.science[::-1, ::-1])

    def getScienceMaskedImage(self) -> NDArray[np.float64]:
        """The image that is matched to: the target PSF."""
        return np.array(self.target[::-1, ::-1])

    @cached_property
    def _own(self) -> Solution:
        cells = self._owner.cells
        here = slice(self._index, self._index + 1)
        alone = replace(cells, x=cells.x[here], y=cells.y[here], science=cells.science[here], target=cells.target[here])
        solver = replace(
            self._owner.solver,
            order=0,
            background_order=None if self._owner.solver.background_order is None else 0,
            min_cells=1,
            sum_rule="fit",
            pca=None,
            clipping=Clipping(),
            max_condition=None,
        )
        return solver.solve(alone)

    def getKernel(self) -> LinearCombinationKernel:
        """The kernel of this candidate alone, its sum left free."""
        return LinearCombinationKernel(self._own.kernel)

    def getKernelImage(self) -> NDArray[np.float64]:
        """The same as an image (height, width)."""
        return self.getKernel().image(x=self.getXCenter(), y=self.getYCenter())

    def getKsum(self) -> float:
        """The sum of that kernel."""
        return float(self._own.kernel.sums(x=self.getXCenter(), y=self.getYCenter())[0])

    def getDifferenceImage(self) -> NDArray[np.float64]:
        """Target minus convolved science PSF, by the spatial model, where the kernel's footprint is whole.

        Raises
        ------
        InputError
            Before the fit.
        """
        solution = self._owner.solution
        if solution is None:
            raise InputError("there is no kernel yet; fit the spatial model first")
        kernel = solution.kernel.stamps(x=self.getXCenter(), y=self.getYCenter())[0]
        matched = fftconvolve(self.science, kernel, mode="valid")
        half = kernel.shape[0] // 2
        target = self._owner.kernel_sum * self.target[half:-half, half:-half] if half else self.target
        return np.array((target - matched)[::-1, ::-1])

    def getChi2(self) -> float:
        """The sum of squares of `getDifferenceImage`, for stamps of unit variance; NaN before the fit."""
        if self._owner.solution is None:
            return float("nan")
        return float((self.getDifferenceImage() ** 2).sum() / 2.0)


class SpatialCell:
    """One cell of the grid over the exposure.

    Parameters
    ----------
    label : str
        ``Cell 3x1`` for column 3 and row 1.
    box : Box
        The pixels that it covers.
    candidates : list of KernelCandidate
        At most one.
    """

    def __init__(self, label: str, box: Box, candidates: list[KernelCandidate]) -> None:
        self._label, self._box, self._candidates = label, box, candidates

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[KernelCandidate]:
        return self.begin()

    def getLabel(self) -> str:
        """Its name, ``Cell 3x1`` for column 3 and row 1."""
        return self._label

    def getBBox(self) -> Box:
        """The pixels that it covers."""
        return self._box

    def size(self) -> int:
        """The number of candidates."""
        return len(self._candidates)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._candidates

    def begin(self, ignoreBad: bool = True) -> Iterator[KernelCandidate]:
        """The candidates, without rejected ones unless they are asked for."""
        return iter([c for c in self._candidates if not (ignoreBad and c.isBad())])


class SpatialCellSet:
    """All cells of an exposure.

    Parameters
    ----------
    cells : psfmatch.cells.SpatialCellSet
        Our sampled PSFs, which this only dresses.
    solver : AlardLupton
        What they were sampled for.
    core_radius : int
        Where candidates are rated.
    """

    def __init__(self, cells: sampled.SpatialCellSet, solver: AlardLupton, core_radius: int = 3) -> None:
        self.cells, self.solver, self.core_radius = cells, solver, core_radius
        self.solution: Solution | None = None
        self.kernel_sum = 1.0

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[KernelCandidate]:
        return iter(self.candidates)

    @cached_property
    def candidates(self) -> list[KernelCandidate]:
        """All candidates."""
        return [KernelCandidate(self, k) for k in range(len(self.cells))]

    def own_weights(self) -> FloatArray | None:
        """The weights of each candidate's own kernel, shape (n_terms, n_candidates); None if its basis is another."""
        kernels = [candidate._own.kernel for candidate in self.candidates]
        if self.solution is None or any(k.basis.shape != self.solution.kernel.basis.shape for k in kernels):
            return None
        return np.stack([kernel.weights.coefficients[:, 0] for kernel in kernels], axis=1)

    @cached_property
    def _cells(self) -> list[SpatialCell]:
        box, (height, width) = self.cells.box, self.cells.cell_shape
        columns = (self.cells.x - box.x0) // width
        rows = (self.cells.y - box.y0) // height
        out = []
        for j, y in enumerate(range(box.y0, box.y1, height)):
            for i, x in enumerate(range(box.x0, box.x1, width)):
                inside = np.flatnonzero((rows == j) & (columns == i))
                cell = Box(y, x, min(y + height, box.y1), min(x + width, box.x1))
                out.append(SpatialCell(f"Cell {i}x{j}", cell, [self.candidates[k] for k in inside]))
        return out

    def getBBox(self) -> Box:
        """The region that the cells cover: the exposure grown by one cell on each side."""
        return self.cells.box

    def getCellList(self) -> list[SpatialCell]:
        """The cells, row by row; a last partial row or column has no candidates."""
        return self._cells

    def getCandidateById(self, id: int) -> KernelCandidate:
        """The candidate of this number."""
        return self.candidates[id]

    def visitCandidates(
        self, visitor: Callable[[KernelCandidate], Any] | Any, nMaxPerCell: int = -1, ignoreBad: bool = True
    ) -> None:
        """Call the visitor (a function, or an object with ``processCandidate``) with every candidate."""
        process = getattr(visitor, "processCandidate", visitor)
        for cell in self._cells:
            for k, candidate in enumerate(cell.begin(ignoreBad)):
                if nMaxPerCell < 0 or k < nMaxPerCell:
                    process(candidate)

    def visitAllCandidates(self, visitor: Callable[[KernelCandidate], Any] | Any) -> None:
        """The same with rejected candidates."""
        self.visitCandidates(visitor, ignoreBad=False)


def unit_sums(cells: sampled.SpatialCellSet, dtype: str) -> sampled.SpatialCellSet:
    """The cells with every stamp scaled to unit sum, which is where Rubin's task starts; rounded to the dtype."""
    science, target = (s / s.sum(axis=(1, 2), keepdims=True) for s in (cells.science, cells.target))
    return replace(cells, science=science.astype(dtype), target=target.astype(dtype))
