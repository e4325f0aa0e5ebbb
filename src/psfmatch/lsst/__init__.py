"""Rubin's ``ModelPsfMatchTask`` and what belongs to it, on psfmatch's engine.

Needs ``lsst.pex.config``: ``pip install "psfmatch[lsst]"``.  Exposures and PSFs are psfmatch's own.
`MakePsfMatchedWarpTask`, for Butler repositories, needs ``pip install "psfmatch[rubin]"`` and takes ``lsst.images``.

>>> from psfmatch.lsst import ModelPsfMatchConfig, ModelPsfMatchTask
>>> config = ModelPsfMatchConfig()
>>> config.kernel["AL"].kernelSize = 27
>>> task = ModelPsfMatchTask(config=config)
>>> result = task.run(exposure, target)  # doctest: +SKIP
>>> result.psfMatchedExposure  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from psfmatch.lsst.base import PIPE_BASE, Struct
from psfmatch.lsst.cells import KernelCandidate, SpatialCell, SpatialCellCandidate, SpatialCellSet
from psfmatch.lsst.config import (
    ModelPsfMatchConfig,
    ModelPsfMatchConfigDF,
    PsfMatchConfig,
    PsfMatchConfigAL,
    PsfMatchConfigDF,
    SubtractBackgroundConfig,
    WarperConfig,
)
from psfmatch.lsst.convolver import Interpolated
from psfmatch.lsst.kernels import Extent2I, LinearCombinationKernel
from psfmatch.lsst.model_psf import GaussianPsfFactory
from psfmatch.lsst.options import solver_from_config
from psfmatch.lsst.psfs import DoubleGaussianPsf, KernelPsf, SingleGaussianPsf
from psfmatch.lsst.task import ModelPsfMatchTask, NoKernelCandidatesError, NoPsfError

if TYPE_CHECKING:
    from psfmatch.lsst.pipeline import MakePsfMatchedWarpConfig, MakePsfMatchedWarpConnections, MakePsfMatchedWarpTask

__all__ = [
    "DoubleGaussianPsf",
    "Extent2I",
    "GaussianPsfFactory",
    "Interpolated",
    "KernelCandidate",
    "KernelPsf",
    "LinearCombinationKernel",
    "ModelPsfMatchConfig",
    "ModelPsfMatchConfigDF",
    "ModelPsfMatchTask",
    "NoKernelCandidatesError",
    "NoPsfError",
    "PsfMatchConfig",
    "PsfMatchConfigAL",
    "PsfMatchConfigDF",
    "SingleGaussianPsf",
    "SpatialCell",
    "SpatialCellCandidate",
    "SpatialCellSet",
    "Struct",
    "SubtractBackgroundConfig",
    "WarperConfig",
    "solver_from_config",
]
if PIPE_BASE:
    __all__ += ["MakePsfMatchedWarpConfig", "MakePsfMatchedWarpConnections", "MakePsfMatchedWarpTask"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in ("MakePsfMatchedWarpConfig", "MakePsfMatchedWarpConnections", "MakePsfMatchedWarpTask"):
            from psfmatch.lsst import pipeline

            return getattr(pipeline, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
