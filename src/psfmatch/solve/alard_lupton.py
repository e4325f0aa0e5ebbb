"""The Alard-Lupton kernel: fixed basis images whose weights are polynomials of position."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from psfmatch.cells import SpatialCellSet, sample_cells
from psfmatch.errors import InputError, MatchError
from psfmatch.fields import Field, FieldKind, n_terms, term_degrees
from psfmatch.geometry import Box, FloatArray, Position, whole_number
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import PSF
from psfmatch.solve.basis import (
    check_gaussians,
    delta_basis,
    gaussian_basis,
    gaussian_sigmas,
    kernel_size_for,
    zero_sum,
)
from psfmatch.solve.normal import NormalEquations, normal_equations
from psfmatch.solve.parts import PCA, Clipping, Padding
from psfmatch.solve.regularization import Regularization
from psfmatch.solve.solution import Outcome, Solution
from psfmatch.solve.spatial import Condition, SpatialModel, SumRule, condition_number, solve_spatial, solve_symmetric

__all__ = ["AlardLupton"]

log = logging.getLogger(__name__)

CELL = 128


@dataclass(frozen=True, kw_only=True)
class AlardLupton:
    """Gaussians times polynomials (Alard & Lupton 1998, ApJ 503, 325), or delta functions.

    The defaults fit over whole convolutions (``border="full"``) with the kernel sum as a constraint.  Rubin's
    ``ModelPsfMatchTask`` is ``AlardLupton(border="cut", sum_rule="overwrite", scale_by_fwhm=False)``.

    Parameters
    ----------
    basis : {"gaussian", "delta"}
        Gaussians times polynomials; or every pixel of the kernel on its own.
    size : int
        Rows and columns of the kernel, odd.  With ``scale_by_fwhm`` the size follows from the sigmas.
    sigmas, degrees : tuple
        Standard deviation in pixels and polynomial degree of each Gaussian.
    scale_by_fwhm : bool
        Choose sigmas and kernel size from the FWHMs of the two PSFs (see `gaussian_sigmas`); equal FWHMs keep
        the sigmas given.
    sigma_ratio, sigma_min, sigma_min_deconvolution : float
        With ``scale_by_fwhm``: each sigma over the one before; the least sigma (pixels), and where the target is
        the sharper one.
    size_per_sigma : float
        With ``scale_by_fwhm``: kernel size over the widest sigma, kept between ``size_min`` and ``size_max``.
    size_min, size_max : int
        See ``size_per_sigma``.
    fwhm_at : Position, optional
        Where the FWHMs are measured; default the centre of the exposure.
    order : int
        Total degree of the weights' variation over the field.
    kind : {"chebyshev1", "polynomial"}
        Family of the weights' terms (see `Field`).
    cell_shape : (int, int), optional
        Rows and columns of a cell, in pixels; default 128, or less on a small frame, so that ``order + 1`` fit in.
    min_cells : int, optional
        Fewest cells to fit the spatial model to; default as many as it has terms.  With fewer the fit is singular.
    border : {"full", "cut"}
        Compare over whole convolutions; or, as Rubin does, only where the kernel's footprint lies inside the stamp.
    padding : Padding
        With ``border="cut"``: how far stamps are padded first.
    stamps : {"float64", "float32"}
        Precision that the sampled stamps are rounded to; Rubin holds them in single precision.
    sum_rule : {"constrain", "fit", "overwrite"}
        How the kernel sum is imposed: as a constraint of the fit; not at all; or by overwriting the first weight
        after the fit, as Rubin does (which puts the difference into the narrowest Gaussian).
    background_order : int, optional
        With ``border="cut"``: fit an additive background of this order.
    regularization : Regularization, optional
        Smoothness penalty (useful with ``basis="delta"``).
    pca : PCA, optional
        Compress the basis to principal components of the cells' own kernels.
    bic : bool
        Choose the degrees, up to those given, by the Bayesian information criterion (Schwarz 1978).
    clipping : Clipping
        Which cells are left out.
    max_condition : float, optional
        Leave out cells whose own equations have a larger condition number.
    max_spatial_condition : float, optional
        Call the solution ill-conditioned above this condition number of the spatial fit.
    condition : {"eigenvalue", "svd"}
        What condition numbers are made of.

    Raises
    ------
    InputError
        If options are out of range or contradict each other.
    """

    basis: Literal["gaussian", "delta"] = "gaussian"
    size: int = 21
    sigmas: tuple[float, ...] = (0.7, 1.5, 3.0)
    degrees: tuple[int, ...] = (4, 2, 2)
    scale_by_fwhm: bool = True
    sigma_ratio: float = 2.0
    sigma_min: float = 0.7
    sigma_min_deconvolution: float = 0.4
    size_per_sigma: float = 6.0
    size_min: int = 21
    size_max: int = 35
    fwhm_at: Position | None = None
    order: int = 2
    kind: FieldKind = "chebyshev1"
    cell_shape: tuple[int, int] | None = None
    min_cells: int | None = None
    border: Literal["full", "cut"] = "full"
    padding: Padding = field(default_factory=Padding)
    stamps: Literal["float64", "float32"] = "float64"
    sum_rule: SumRule = "constrain"
    background_order: int | None = None
    regularization: Regularization | None = None
    pca: PCA | None = None
    bic: bool = False
    clipping: Clipping = field(default_factory=Clipping)
    max_condition: float | None = None
    max_spatial_condition: float | None = None
    condition: Condition = "eigenvalue"

    def __post_init__(self) -> None:
        for name in ("size", "size_min", "size_max"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < 1:
                raise InputError(f"AlardLupton {name}={getattr(self, name)}: kernel sizes must be odd")
        check_gaussians(self.sigmas, self.degrees)
        whole_number(self.order, "AlardLupton order")
        if self.background_order is not None:
            whole_number(self.background_order, "AlardLupton background_order")
        for side in self.cell_shape or ():
            whole_number(side, "AlardLupton cell_shape", least=1)
        for name, choices in (
            ("basis", ("gaussian", "delta")),
            ("kind", ("chebyshev1", "polynomial")),
            ("border", ("full", "cut")),
            ("stamps", ("float64", "float32")),
            ("sum_rule", ("constrain", "fit", "overwrite")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"AlardLupton {name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.background_order is not None and self.border == "full":
            raise InputError("AlardLupton background_order: a background is fitted only with border='cut'")
        if self.bic and self.basis == "delta":
            raise InputError("AlardLupton bic: chooses degrees of Gaussians; it has no meaning with basis='delta'")

    def solution(self, science: PSF, target: PSF, box: Box, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel over a box: `sample`, then `solve`."""
        return self.solve(self.sample(science, target, box), kernel_sum=kernel_sum)

    def sample(self, science: PSF, target: PSF, box: Box) -> SpatialCellSet:
        """The two PSFs in cells over the box, on stamps padded as asked.

        Raises
        ------
        InputError
            If the kernel is too big for the stamps (only with ``border="cut"``).
        MatchError
            If the PSFs can be evaluated in no cell.
        """
        size = max(science.shape)
        if self.border == "cut":
            size = self.padding.padded(size, self.size)
            most = size - 2
            if self.size > most:
                raise InputError(
                    f"Kernel size ({self.size}) too big to match PSFs of size {size}. Set one of the following: "
                    f"1) kernel size to <= {most}; 2) automatic padding (doAutoPadPsf=True, or Padding(to=1.4)); "
                    f"3) padding (padPsfBy, or Padding(to=None, by=...)) to >= {self.size - most}."
                )
        cells = sample_cells(
            science,
            target,
            box,
            cell_shape=self._cell_shape(box),
            size=size,
            fwhm_at=self.fwhm_at,
            pad_science=self.border == "cut",
        )
        return replace(cells, science=cells.science.astype(self.stamps), target=cells.target.astype(self.stamps))

    def _cell_shape(self, box: Box) -> tuple[int, int]:
        if self.cell_shape is not None:
            return self.cell_shape
        ny, nx = (min(CELL, max(1, n // (self.order + 1))) for n in box.shape)
        return ny, nx

    def solve(self, cells: SpatialCellSet, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel that turns the science PSF of every cell into the target PSF times ``kernel_sum``.

        Raises
        ------
        MatchError
            If too few cells are left to fix the spatial model.
        InputError
            If the kernel is too big for the stamps (only with ``border="cut"``).
        """
        solver, mode = self._scaled(cells.fwhm)
        if solver.border == "cut" and solver.size >= cells.stamp_shape[0]:
            raise InputError(
                f"Kernel size ({solver.size}), chosen from the FWHMs, too big to match PSFs of size "
                f"{cells.stamp_shape[0]}; lower size_max, or pad the PSF"
            )
        if solver.bic:
            solver = replace(solver, degrees=solver._degrees_by_bic(cells))
        images = solver._images()
        fit = _Fit(solver, cells, images)
        fit.run(kernel_sum)
        weights = Field(fit.spatial.coefficients, cells.box, solver.kind)
        outcome = Outcome.OK
        if fit.spatial.singular or fit.basis_singular:
            outcome = Outcome.SINGULAR
        elif solver.max_spatial_condition is not None and fit.spatial.condition > solver.max_spatial_condition:
            outcome = Outcome.ILL_CONDITIONED
        statistics = {
            "solver": "alard-lupton",
            "basis": solver.basis,
            "basis_mode": mode,
            "sigmas": solver.sigmas,
            "degrees": solver.degrees,
            "kernel_size": solver.size,
            "fwhm_science": cells.fwhm[0],
            "fwhm_target": cells.fwhm[1],
            **fit.statistics(),
        }
        return Solution(MatchingKernel(fit.images, weights), outcome, cells, statistics)

    def _scaled(self, widths: tuple[float, float]) -> tuple[AlardLupton, str]:
        """The solver with the sigmas and kernel size that it will use, and how they came about."""
        if self.basis == "delta" or not self.scale_by_fwhm:
            return self, "config"
        sigmas, mode = self.sigmas, "config"
        if widths[0] != widths[1]:
            sigmas, mode = gaussian_sigmas(
                *widths,
                count=len(self.sigmas),
                ratio=self.sigma_ratio,
                least=self.sigma_min,
                least_deconvolution=self.sigma_min_deconvolution,
            )
        size = kernel_size_for(sigmas[-1], scaling=self.size_per_sigma, least=self.size_min, most=self.size_max)
        return replace(self, sigmas=sigmas, size=size), mode

    @property
    def _constant_first(self) -> bool:
        """Whether the first weight is constant, the others being of zero sum."""
        return self.basis == "gaussian" or self.pca is not None or self.sum_rule == "constrain"

    def _images(self) -> FloatArray:
        if self.basis == "gaussian":
            return zero_sum(gaussian_basis(self.size, self.sigmas, self.degrees))
        images = delta_basis(self.size)
        if self.sum_rule != "constrain":
            return images
        center = self.size**2 // 2
        return zero_sum(np.concatenate([images[center:], images[:center]]))

    def _degrees_by_bic(self, cells: SpatialCellSet, most_cells: int = 64) -> tuple[int, ...]:
        """The degrees that minimise the mean of ``n ln(rss/n) + m ln n`` over (at most 64 of) the cells."""
        images = self._images()
        some = np.unique(np.linspace(0, len(cells) - 1, min(len(cells), most_cells)).astype(int))
        equations = normal_equations(cells.science[some], cells.target[some], images, full=self.border == "full")
        totals = np.concatenate([[i + j for i, j in term_degrees(d)] for d in self.degrees])
        owner = np.repeat(np.arange(len(self.degrees)), [n_terms(d) for d in self.degrees])
        every = np.arange(len(some))
        best, chosen = np.inf, self.degrees
        for degrees in itertools.product(*(range(d + 1) for d in self.degrees)):
            part = equations.chosen(every, np.flatnonzero(totals <= np.asarray(degrees)[owner]))
            weights, _ = solve_symmetric(part.matrix, part.vector)
            floor = np.finfo(float).eps * part.power
            squares = np.maximum(part.power - (weights * part.vector).sum(axis=1), floor)
            n, m = part.pixels, part.vector.shape[1]
            criterion = float(np.mean(n * np.log(squares / n) + m * np.log(n)))
            if criterion < best:
                best, chosen = criterion, degrees
        log.info("degrees %s chosen by BIC (up to %s)", chosen, self.degrees)
        return chosen


class _Fit:
    """One run of the solver: rejects cells, replaces the basis, fits the spatial model."""

    def __init__(self, solver: AlardLupton, cells: SpatialCellSet, images: FloatArray) -> None:
        self.solver, self.cells = solver, cells
        self.full = solver.border == "full"
        self.first_images = self.images = images
        self.first_equations = self.equations = self._equations(images, solver.regularization)
        self.good = np.ones(len(cells), bool)
        self.rejected = {"condition": 0, "single": 0, "sum": 0, "spatial": 0}
        self.basis_singular = False

    def _equations(self, images: FloatArray, regularization: Regularization | None) -> NormalEquations:
        background = self.solver.background_order is not None
        equations = normal_equations(
            self.cells.science, self.cells.target, images, full=self.full, background=background
        )
        return equations if regularization is None else regularization.apply(equations, images)[0]

    def run(self, kernel_sum: float) -> None:
        clipping = self.solver.clipping
        self._reject_ill_conditioned()
        if clipping.single:
            self._reject("single", self._large_residuals(self._single_kernels()[0]))
        for _ in range(clipping.iterations):
            if clipping.sums:
                self._reject_outlying_sums()
            if self.solver.pca is not None:
                self._replace_basis(self.solver.pca)
            self._fit_spatial(kernel_sum)
            if not clipping.spatial:
                return
            weights = self.spatial.coefficients @ self._terms()
            residuals = self._large_residuals(np.tensordot(weights.T, self.images, axes=1), kernel_sum)
            if not self._reject("spatial", residuals):
                return
        self._fit_spatial(kernel_sum)

    def statistics(self) -> dict[str, Any]:
        return {
            "condition_number": self.spatial.condition,
            "fitted_first_weight": self.spatial.fitted_first,
            "background": self.spatial.background,
            "unknowns": self.spatial.unknowns,
            "pixels_per_cell": self.equations.pixels,
            "cells": len(self.cells) + len(self.cells.skipped),
            "cells_used": int(self.good.sum()),
            "cells_skipped": len(self.cells.skipped),
            "used": self.good,
            **{f"cells_rejected_{why}": n for why, n in self.rejected.items()},
        }

    def _terms(self) -> FloatArray:
        one = Field(np.eye(n_terms(self.solver.order)), self.cells.box, self.solver.kind)
        return one.at(x=self.cells.x, y=self.cells.y)

    def _reject(self, why: str, bad: NDArray[np.bool_]) -> int:
        newly = int(np.count_nonzero(bad & self.good))
        self.good &= ~bad
        self.rejected[why] += newly
        return newly

    def _reject_ill_conditioned(self) -> None:
        if self.solver.max_condition is not None:
            numbers = condition_number(self.equations.matrix, self.solver.condition)
            self._reject("condition", (numbers > self.solver.max_condition) | (numbers < 0))

    def _reject_outlying_sums(self) -> None:
        sums = self._single_kernels()[0].sum(axis=(1, 2))
        while self.good.any():
            mean, std = sums[self.good].mean(), sums[self.good].std()
            if not self._reject("sum", np.abs(sums - mean) > self.solver.clipping.sum_sigma * std + 1e-12):
                return

    def _single_kernels(self) -> tuple[FloatArray, bool]:
        """Every cell's own kernel, shape (n, k, k), and whether any of their equations was singular."""
        weights, singular = solve_symmetric(self.first_equations.matrix, self.first_equations.vector)
        return np.tensordot(weights[:, : len(self.first_images)], self.first_images, axes=1), singular

    def _replace_basis(self, pca: PCA) -> None:
        self._require(1)
        own, self.basis_singular = self._single_kernels()
        kernels = own[self.good].reshape(int(self.good.sum()), -1)
        mean = kernels.mean(axis=0)
        images = np.linalg.svd(kernels - mean if pca.subtract_mean else kernels, full_matrices=False)[2]
        if pca.subtract_mean:
            images = np.concatenate([mean[None], images])
        size = self.first_images.shape[1]
        self.images = zero_sum(images[: pca.components].reshape(-1, size, size))
        self.equations = self._equations(self.images, None)

    def _require(self, cells: int) -> None:
        left = int(self.good.sum())
        if left < cells:
            raise MatchError(
                f"{left} of {len(self.good) + len(self.cells.skipped)} cells are left ({len(self.cells.skipped)} could "
                f"not be evaluated, {sum(self.rejected.values())} were rejected), too few for a spatial model of order "
                f"{self.solver.order} ({cells} terms); lower the order, make the cells smaller, mend the PSF model "
                "where it fails, or relax the rejection"
            )

    def _fit_spatial(self, kernel_sum: float) -> None:
        solver = self.solver
        self._require(solver.min_cells or n_terms(max(solver.order, solver.background_order or 0)))
        model = SpatialModel(
            solver.order,
            solver.kind,
            self.cells.box,
            solver._constant_first,
            solver.sum_rule,
            solver.background_order,
        )
        self.spatial = solve_spatial(
            model,
            self.equations.chosen(self.good),
            x=self.cells.x[self.good],
            y=self.cells.y[self.good],
            kernel_sum=kernel_sum,
            condition=solver.condition,
        )

    def _large_residuals(self, kernels: FloatArray, kernel_sum: float = 1.0) -> NDArray[np.bool_]:
        """Which cells' residuals exceed the limits, in units of the noise of unit-variance stamps."""
        science, target = self.cells.science, kernel_sum * self.cells.target
        k = kernels.shape[1]
        if self.full:
            margin = ((0, 0), (k - 1, k - 1), (k - 1, k - 1))
            science, target = np.pad(science, margin), np.pad(target, margin)
        s = science.shape[1]
        size = fft.next_fast_len(s, real=True)
        product = fft.rfft2(science, (size, size)) * fft.rfft2(kernels, (size, size))
        matched = fft.irfft2(product, (size, size))[:, k - 1 : s, k - 1 : s]
        residual = target[:, k // 2 : s - k // 2, k // 2 : s - k // 2] - matched
        residual /= np.sqrt(1.0 + (kernels**2).sum(axis=(1, 2)))[:, None, None]
        radius = self.solver.clipping.core_radius
        if radius is not None:
            middle = residual.shape[1] // 2
            core = slice(max(0, middle - radius), middle + radius + 1)
            residual = residual[:, core, core]
        clipping = self.solver.clipping
        too_large = np.abs(residual.mean(axis=(1, 2))) > clipping.residual_mean
        return np.asarray(too_large | (residual.std(axis=(1, 2)) > clipping.residual_std))
