"""Rubin's ``ModelPsfMatchTask`` and what belongs to it, on psfmatch's engine.

Needs ``lsst.pex.config``: ``pip install "psfmatch[lsst]"``.  Exposures and PSFs are psfmatch's own.

>>> from psfmatch.lsst import ModelPsfMatchConfig, ModelPsfMatchTask
>>> config = ModelPsfMatchConfig()
>>> config.kernel["AL"].kernelSize = 27
>>> task = ModelPsfMatchTask(config=config)
>>> result = task.run(exposure, target)  # doctest: +SKIP
>>> result.psfMatchedExposure  # doctest: +SKIP
"""

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
from psfmatch.lsst.options import solver_from_config
from psfmatch.lsst.psfs import DoubleGaussianPsf, KernelPsf, SingleGaussianPsf
from psfmatch.lsst.task import ModelPsfMatchTask, NoKernelCandidatesError, NoPsfError, Struct

__all__ = [
    "DoubleGaussianPsf",
    "Extent2I",
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
