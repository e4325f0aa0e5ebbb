"""`ModelPsfMatchTask`: match the PSF of an exposure to a model PSF, as Rubin's task of that name does."""

from __future__ import annotations

import logging
import sys
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.convolve import Convolver
from psfmatch.display.settings import DebugSettings
from psfmatch.errors import InputError, MatchError, PsfMatchError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray, Position
from psfmatch.kernel import MatchingKernel
from psfmatch.lsst.base import Struct, Task
from psfmatch.lsst.cells import SpatialCellSet, unit_sums
from psfmatch.lsst.config import ModelPsfMatchConfig
from psfmatch.lsst.convolver import Interpolated
from psfmatch.lsst.diagnostics import findings
from psfmatch.lsst.kernels import LinearCombinationKernel
from psfmatch.lsst.options import basis_metadata, idle_fields, solver_from_config
from psfmatch.match import Matched, measured_quality
from psfmatch.models import as_psf
from psfmatch.psf import PSF, with_size
from psfmatch.solve import Solution

__all__ = ["ModelPsfMatchTask", "NoKernelCandidatesError", "NoPsfError"]


class NoKernelCandidatesError(MatchError):
    """Every candidate was rejected."""


class NoPsfError(PsfMatchError, RuntimeError):
    """The exposure has no PSF model."""


class _Fit(NamedTuple):
    """What `_solve` returns, in Rubin's order."""

    spatialSolution: Solution
    psfMatchingKernel: LinearCombinationKernel
    backgroundModel: FloatArray


class ModelPsfMatchTask(Task):
    """Match the PSF of an exposure to a model PSF.

    This is for those who know, or must agree with, Rubin's task: the same configuration, names and numbers, for
    better and worse; an ``lsst.pipe.base.Task`` where that is installed.  `psfmatch.match` does the same work without
    the oddities: there the kernel sum is part of the fit instead of being written over a coefficient, no pixel of the
    stamps is lost, and edges are usable.

    Parameters
    ----------
    config : ModelPsfMatchConfig, optional
        Default: ``ConfigClass()``.
    name : str, optional
        Of the task, and the last part of its logger's name.
    parentTask : Task, optional
        Whose subtask this is (``makeSubtask`` gives it).
    log : logging.Logger, optional
        Parent of the task's logger.  Default: ``psfmatch.lsst``.
    doNormalize : bool
        Convolve with the kernel scaled to unit sum at every pixel, as Rubin's task does, so that ``kernelSum`` does
        not scale the image.  If False, the image is convolved with the very kernel that is returned.
    convolver : Convolver, optional
        Default: `Interpolated`, which treats edges and missing pixels as Rubin's software does, with the variance of
        its interpolated kernel; the image is exact.  ``Interpolated()`` has the interpolated image too.

    Attributes
    ----------
    metadata : TaskMetadata, or dict of lists
        What the last run noted about its basis.
    """

    ConfigClass: ClassVar[type[ModelPsfMatchConfig]] = ModelPsfMatchConfig
    _DefaultName: ClassVar[str] = "modelPsfMatch"

    def __init__(
        self,
        config: ModelPsfMatchConfig | None = None,
        *,
        name: str | None = None,
        parentTask: Task | None = None,
        log: logging.Logger | None = None,
        doNormalize: bool = True,
        convolver: Convolver | None = None,
    ) -> None:
        super().__init__(config, name=name, parentTask=parentTask, log=log or logging.getLogger("psfmatch.lsst"))
        self.kConfig: Any = self.config.kernel.active
        self.doNormalize = doNormalize
        self.convolver: Convolver = convolver or Interpolated(planes=("variance",))
        self._last: tuple[SpatialCellSet, Solution, LinearCombinationKernel] | None = None

    def _reduce_kwargs(self) -> dict[str, Any]:
        return {**super()._reduce_kwargs(), "doNormalize": self.doNormalize, "convolver": self.convolver}

    def run(self, exposure: Exposure, referencePsfModel: PSF | ArrayLike, kernelSum: float = 1.0) -> Struct:
        """Match the PSF of an exposure to a model.

        Parameters
        ----------
        exposure : Exposure
            With its PSF model.
        referencePsfModel : PSF or array
            What the PSF shall be.
        kernelSum : float
            The sum of the returned kernel.  It is written over the fitted coefficient of the first basis image, so
            that a value other than 1 changes the kernel's shape; with ``doNormalize`` the image keeps its flux.

        Returns
        -------
        Struct
            ``psfMatchedExposure`` : Exposure
                Convolved; its box, WCS, unit and meta data are the input's, its PSF is the target in the size used.
            ``psfMatchingKernel`` : LinearCombinationKernel
                The kernel; ``psfMatchingKernel.kernel`` is psfmatch's own.
            ``kernelCellSet`` : SpatialCellSet
                Cells and candidates, with what became of them.
            ``metadata`` : dict of lists
                ALBasisNGauss, ALBasisDegGauss, ALBasisSigGauss, ALKernelSize, ALBasisMode.
            ``referencePsfModel`` : PSF
                The target in the size used.
            ``matched`` : Matched
                The same as `psfmatch.match` returns it: with the quality, and the solution's outcome and statistics.

        Raises
        ------
        NoPsfError
            (a RuntimeError) If the exposure has no PSF.
        NoKernelCandidatesError
            If all candidates are rejected.
        InputError
            (a ValueError) If the kernel is too big for the PSF or the image, or the configuration is inconsistent.
        """
        if exposure.psf is None:
            raise NoPsfError("exposure does not contain a Psf model")
        if not np.isfinite(kernelSum) or kernelSum == 0:
            raise InputError(f"kernelSum={kernelSum!r}: must be finite and not zero")
        self._warn_of_idle_options()
        built = self.buildCellSet(exposure, referencePsfModel)
        fit = self._solve(built.kernelCellSet, kernelSum)
        notes = basis_metadata(fit.spatialSolution)
        for key, values in notes.items():
            self.metadata[key] = values
        kernel = fit.psfMatchingKernel.kernel
        convolved = self.convolver.convolve(exposure, kernel)
        if self.doNormalize:
            convolved = _divided(convolved, kernel)
            if kernelSum != 1.0:
                self.log.warning(
                    "kernelSum=%g changes the shape of the kernel but not the flux of the image, which is convolved "
                    "with the kernel scaled to unit sum; with doNormalize=False the flux is scaled",
                    kernelSum,
                )
        history = exposure.history.then(
            type(self).__name__, {"config": self.kConfig.toDict(), "kernelSum": float(kernelSum)}
        )
        matched = convolved.replace(psf=built.referencePsfModel, history=history)
        quality = measured_quality(fit.spatialSolution, exposure.psf, built.referencePsfModel, exposure.box, kernelSum)
        self.log.info("matched: %r", quality)
        result = Matched(matched, kernel, quality, fit.spatialSolution)
        self._displayDebug(exposure, result, built.kernelCellSet)
        return Struct(
            psfMatchedExposure=matched,
            psfMatchingKernel=fit.psfMatchingKernel,
            kernelCellSet=built.kernelCellSet,
            metadata=notes,
            referencePsfModel=built.referencePsfModel,
            matched=result,
        )

    def buildCellSet(self, exposure: Exposure, referencePsfModel: PSF | ArrayLike) -> Struct:
        """Sample the two PSFs in cells over the exposure, grown by one cell on each side.

        Returns
        -------
        Struct
            ``kernelCellSet`` : SpatialCellSet, and ``referencePsfModel`` : the target in the size of the stamps (as it
            was, if it is a fixed image: its stamps are then padded with zeros or cut).

        Raises
        ------
        NoPsfError, InputError, MatchError
            As `run`.
        """
        if exposure.psf is None:
            raise NoPsfError("exposure does not contain a Psf model")
        target = as_psf(referencePsfModel)
        where = getattr(exposure.psf, "average_position", None)
        solver = solver_from_config(self.config, fwhm_at=None if where is None else Position(y=where.y, x=where.x))
        cells = unit_sums(solver.sample(exposure.psf, target, exposure.box), solver.stamps)
        size = cells.stamp_shape[0]
        if target.resizable and target.shape != cells.stamp_shape:
            self.log.info("the target PSF is evaluated on %d x %d px, as the science PSF is", size, size)
        if cells.skipped:
            x, y, why = cells.skipped[0]
            self.log.warning("%d cells without a PSF, the first at x=%g, y=%g: %s", len(cells.skipped), x, y, why)
        cell_set = SpatialCellSet(cells, solver, self.kConfig.candidateCoreRadius)
        return Struct(kernelCellSet=cell_set, referencePsfModel=with_size(target, size))

    _buildCellSet = buildCellSet

    def _solve(self, kernelCellSet: SpatialCellSet, kernelSum: float = 1.0) -> _Fit:
        """Fit the kernel: ``(spatialSolution, psfMatchingKernel, backgroundModel)``.

        The solution is psfmatch's own; the background's coefficients are an array, empty if none was fitted.
        """
        cells = kernelCellSet.cells
        try:
            solution = kernelCellSet.solver.solve(cells, kernel_sum=kernelSum)
        except MatchError as error:
            raise NoKernelCandidatesError("All spatial cells are empty of candidates") from error
        kernelCellSet.solution, kernelCellSet.kernel_sum = solution, kernelSum
        kernel = LinearCombinationKernel(solution.kernel)
        background = solution.statistics["background"]
        self._diagnostic(kernelCellSet, solution, kernel, background)
        return _Fit(solution, kernel, background)

    def _diagnostic(
        self,
        kernelCellSet: SpatialCellSet,
        spatialSolution: Solution,
        spatialKernel: LinearCombinationKernel,
        spatialBg: FloatArray,
    ) -> None:
        """Log what there is to say about the spatial fit; `run` does this."""
        self._last = kernelCellSet, spatialSolution, spatialKernel
        for level, text in findings(kernelCellSet, spatialSolution, spatialKernel, self.kConfig):
            self.log.log(level, text)

    def _displayDebug(self, exposure: Exposure, matched: Matched, kernelCellSet: SpatialCellSet) -> None:
        """Show what ``debug.py`` asks for, where one is loaded (see `psfmatch.display`)."""
        settings = DebugSettings.now()
        if not settings.anything:
            return
        from psfmatch.display import show

        wanted = settings.plotKernelSpatialModel or settings.plotKernelCoefficients
        count = show(matched, before=exposure, own=kernelCellSet.own_weights() if wanted else None)
        self.log.info("debug display: %d frames", count)

    def diagnostic(
        self,
        kernelCellSet: SpatialCellSet | None = None,
        spatialSolution: Solution | None = None,
        spatialKernel: LinearCombinationKernel | None = None,
        spatialBg: FloatArray | None = None,
    ) -> None:
        """Print how well the spatial fit went, and what to do about it: by default of the last run.

        Raises
        ------
        InputError
            If there is no run yet, and not all arguments are given.
        """
        if kernelCellSet is None or spatialSolution is None or spatialKernel is None:
            if self._last is None:
                raise InputError("nothing to diagnose: run the task first, or give the results of a run")
            kernelCellSet, spatialSolution, spatialKernel = self._last
        for level, text in findings(kernelCellSet, spatialSolution, spatialKernel, self.kConfig):
            sys.stdout.write(("Warning: " if level >= logging.WARNING else "") + text + "\n")

    def _warn_of_idle_options(self) -> None:
        idle = idle_fields(self.kConfig)
        if idle:
            self.log.info("without effect on model PSFs: %s", ", ".join(idle))
        if self.kConfig.useBicForKernelBasis:
            self.log.warning(
                "useBicForKernelBasis has no effect, as in Rubin's task; psfmatch's own solver can choose its basis: "
                "psfmatch.match(exposure, target, solver=AlardLupton(bic=True))"
            )


def _divided(exposure: Exposure, kernel: MatchingKernel) -> Exposure:
    """The exposure divided by the kernel sum of every pixel, its variance by the square."""
    box = exposure.box
    corners = kernel.sums(
        x=[box.x0, box.x0, box.x1, box.x1, box.center.x], y=[box.y0, box.y1, box.y0, box.y1, box.center.y]
    )
    sums: Any = corners[-1]
    if np.ptp(corners) > 1e-8 * abs(sums):
        weights = kernel.weights.on_grid(x=np.arange(box.x0, box.x1), y=np.arange(box.y0, box.y1))
        sums = np.tensordot(kernel.basis.sum(axis=(1, 2)), weights, axes=1)
    elif abs(sums - 1.0) < 1e-8:
        return exposure
    image = (exposure.image / sums).astype(exposure.image.dtype)
    variance = None if exposure.variance is None else (exposure.variance / sums**2).astype(exposure.variance.dtype)
    return exposure.replace(image=image, variance=variance)
