"""From Rubin's configuration to our solver: every field of theirs is a named option of ours, or is said to be idle."""

from __future__ import annotations

from typing import Any

import numpy as np

from psfmatch.errors import InputError
from psfmatch.geometry import Position
from psfmatch.solve import PCA, AlardLupton, Clipping, Padding, Regularization, Solution

__all__ = ["basis_metadata", "idle_fields", "solver_from_config"]

IDLE = (
    "warpingConfig",
    "afwBackgroundConfig",
    "useAfwBackground",
    "nStarPerCell",
    "badMaskPlanes",
    "iterateSingleKernel",
    "constantVarianceWeighting",
    "calculateKernelUncertainty",
    "alardDegGaussDeconv",
    "alardNGaussDeconv",
)
STAMP_VARIANCE = 2.0


def solver_from_config(config: Any, *, fwhm_at: Position | None = None) -> AlardLupton:
    """The solver that does what Rubin's task does with a `ModelPsfMatchConfig`.

    The oddities are options: ``border="cut"`` (the fit sees only pixels whose footprint lies inside the stamp),
    ``stamps="float32"``, ``sum_rule="overwrite"`` (the kernel sum overwrites a coefficient after the fit), and
    ``min_cells=1`` (the spatial model is fitted however few cells there are).

    Parameters
    ----------
    config : ModelPsfMatchConfig
        Or one that has its fields.
    fwhm_at : Position, optional
        Where ``scaleByFwhm`` measures the FWHMs; default the centre.

    Returns
    -------
    AlardLupton
        For `psfmatch.match` and `psfmatch.matching_kernel`.

    Raises
    ------
    InputError
        If the kernel size or ``padPsfBy`` is of the wrong parity, or lists do not have ``alardNGauss`` values.
    """
    kernel = config.kernel.active
    options: dict[str, Any] = {}
    if kernel.kernelBasisSet == "delta-function":
        options["basis"] = "delta"
        options["regularization"] = _regularization(kernel)
    else:
        options.update(_gaussians(kernel))
    return AlardLupton(
        size=kernel.kernelSize,
        fwhm_at=fwhm_at,
        order=kernel.spatialKernelOrder,
        kind=kernel.spatialModelType,
        cell_shape=(kernel.sizeCellY, kernel.sizeCellX),
        min_cells=1,
        border="cut",
        padding=Padding(to=config.autoPadPsfTo) if config.doAutoPadPsf else Padding(to=None, by=config.padPsfBy),
        stamps="float32",
        sum_rule="overwrite",
        background_order=kernel.spatialBgOrder if kernel.fitForBackground else None,
        pca=_pca(kernel),
        clipping=_clipping(kernel),
        max_condition=kernel.maxConditionNumber if kernel.checkConditionNumber else None,
        max_spatial_condition=kernel.maxSpatialConditionNumber,
        condition="svd" if kernel.conditionNumberType == "SVD" else "eigenvalue",
        **options,
    )


def _gaussians(kernel: Any) -> dict[str, Any]:
    sigmas, degrees = tuple(kernel.alardSigGauss), tuple(kernel.alardDegGauss)
    for name, values in (("alardSigGauss", sigmas), ("alardDegGauss", degrees)):
        if len(values) != kernel.alardNGauss:
            raise InputError(f"{name} has {len(values)} values, but alardNGauss is {kernel.alardNGauss}")
    return {
        "sigmas": sigmas,
        "degrees": degrees,
        "scale_by_fwhm": kernel.scaleByFwhm,
        "sigma_ratio": kernel.alardGaussBeta,
        "sigma_min": kernel.alardMinSig,
        "sigma_min_deconvolution": kernel.alardMinSigDeconv,
        "size_per_sigma": kernel.kernelSizeFwhmScaling,
        # A kernel of even size has one pixel more there as well.
        "size_min": kernel.kernelSizeMin | 1,
        "size_max": kernel.kernelSizeMax | 1,
    }


def _pca(kernel: Any) -> PCA | None:
    if not kernel.usePcaForSpatialKernel:
        return None
    return PCA(components=kernel.numPrincipalComponents, subtract_mean=kernel.subtractMeanForPca)


def _clipping(kernel: Any) -> Clipping:
    return Clipping(
        single=kernel.singleKernelClipping,
        sums=kernel.kernelSumClipping,
        spatial=kernel.spatialKernelClipping,
        residual_mean=kernel.candidateResidualMeanMax,
        residual_std=kernel.candidateResidualStdMax,
        sum_sigma=kernel.maxKsumSigma,
        core_radius=kernel.candidateCoreRadius if kernel.useCoreStats else None,
        iterations=kernel.maxSpatialIterations,
    )


def _regularization(kernel: Any) -> Regularization | None:
    if not getattr(kernel, "useRegularization", False):
        return None
    choices: dict[str, Any] = {
        "absolute": ("absolute", kernel.lambdaValue),
        "relative": ("relative", kernel.lambdaScaling),
        "minimizeBiasedRisk": ("biased-risk", 0.0),
        "minimizeUnbiasedRisk": ("unbiased-risk", 0.0),
    }
    choice, strength = choices[kernel.lambdaType]
    count = int(np.floor((kernel.lambdaMax - kernel.lambdaMin) / kernel.lambdaStep + 1e-6)) + 1
    steps = kernel.lambdaMin + kernel.lambdaStep * np.arange(max(count, 0))
    if kernel.lambdaStepType == "log":
        steps = 10.0**steps
    if choice.endswith("risk") and not steps.size:
        raise InputError(f"no strengths from lambdaMin={kernel.lambdaMin} to lambdaMax={kernel.lambdaMax}")
    return Regularization(
        kind="central" if kernel.regularizationType == "centralDifference" else "forward",
        stencil=kernel.centralRegularizationStencil,
        orders=tuple(kernel.forwardRegularizationOrders),
        border=kernel.regularizationBorderPenalty,
        choice=choice,
        strength=strength,
        steps=tuple(steps.tolist()),
        max_condition=kernel.maxConditionNumber,
        variance=STAMP_VARIANCE,
    )


def idle_fields(kernel: Any) -> list[str]:
    """Fields set to something else than their default that make no difference to the matching of models."""
    default = type(kernel)()
    current, standard = kernel.toDict(), default.toDict()
    return [name for name in IDLE if name in current and current[name] != standard[name]]


def basis_metadata(solution: Solution) -> dict[str, list[Any]]:
    """What Rubin's task notes about a basis of Gaussians; nothing for delta functions."""
    notes = solution.statistics
    if notes["basis"] != "gaussian":
        return {}
    return {
        "ALBasisNGauss": [len(notes["sigmas"])],
        "ALBasisDegGauss": list(notes["degrees"]),
        "ALBasisSigGauss": [float(s) for s in notes["sigmas"]],
        "ALKernelSize": [notes["kernel_size"]],
        "ALBasisMode": [notes["basis_mode"]],
    }
