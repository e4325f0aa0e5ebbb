"""The configuration of `ModelPsfMatchTask`: Rubin's fields, names and defaults, on the real ``lsst.pex.config``.

What a field means for *model* PSFs is said in its documentation; the fields that only matter where two images of
stars are matched are accepted, so that existing configuration files load, and say so.
"""

from __future__ import annotations

from typing import Any

try:
    from lsst.pex.config import ChoiceField, Config, ConfigChoiceField, ConfigField, Field, ListField, RangeField
except ImportError as error:
    raise ImportError('psfmatch.lsst needs lsst.pex.config: pip install "psfmatch[lsst]"') from error

__all__ = [
    "ModelPsfMatchConfig",
    "ModelPsfMatchConfigDF",
    "PsfMatchConfig",
    "PsfMatchConfigAL",
    "PsfMatchConfigDF",
    "SubtractBackgroundConfig",
    "WarperConfig",
]

NO_EFFECT = " Has no effect on model PSFs; accepted for compatibility."


def _positive(x: float) -> bool:
    return x >= 0.0


def _one_or_more(x: float) -> bool:
    return x >= 1


def _not_negative(x: int) -> bool:
    return x >= 0


def _cell_size(x: int) -> bool:
    return x >= 32


def _iterations(x: int) -> bool:
    return 1 <= x <= 5


def _components(x: int) -> bool:
    return x >= 3


def _smallest_sigma(x: float) -> bool:
    return x >= 0.25


def _derivative_order(x: int) -> bool:
    return 0 < x < 4


LANCZOS = {f"lanczos{n}": f"Lanczos kernel, {n} lobes" for n in (3, 4, 5)}


class WarperConfig(Config):
    """How images are resampled.  The model task never warps anything."""

    warpingKernelName = ChoiceField(
        doc="Interpolation of image and variance." + NO_EFFECT,
        dtype=str,
        default="lanczos3",
        allowed={"bilinear": "linear in x and y", **LANCZOS},
    )
    maskWarpingKernelName = ChoiceField(
        doc="Interpolation that the mask follows; empty: the same as for the image." + NO_EFFECT,
        dtype=str,
        default="bilinear",
        allowed={"": "as warpingKernelName", "bilinear": "linear in x and y", **LANCZOS},
    )
    interpLength = Field(doc="Pixels between positions that are computed exactly." + NO_EFFECT, dtype=int, default=10)
    cacheSize = Field(doc="Entries in the cache of interpolation kernels." + NO_EFFECT, dtype=int, default=1000000)
    growFullMask = Field(
        doc="Mask bits that spread over the whole interpolation kernel (16: EDGE)." + NO_EFFECT, dtype=int, default=16
    )


class SubtractBackgroundConfig(Config):
    """How a background is subtracted.  The model task never subtracts one."""

    statisticsProperty = ChoiceField(
        doc="Statistic of a bin." + NO_EFFECT,
        dtype=str,
        default="MEANCLIP",
        allowed={"MEANCLIP": "mean after clipping", "MEAN": "mean", "MEDIAN": "median"},
    )
    undersampleStyle = ChoiceField(
        doc="What to do where there are too few bins for the interpolation." + NO_EFFECT,
        dtype=str,
        default="REDUCE_INTERP_ORDER",
        allowed={
            "THROW_EXCEPTION": "raise an error",
            "REDUCE_INTERP_ORDER": "lower the order",
            "INCREASE_NXNYSAMPLE": "take more bins",
        },
    )
    binSize = RangeField(doc="Side of a bin, in pixels." + NO_EFFECT, dtype=int, default=128, min=1)
    binSizeX = RangeField(doc="Width of a bin; 0: binSize." + NO_EFFECT, dtype=int, default=0, min=0)
    binSizeY = RangeField(doc="Height of a bin; 0: binSize." + NO_EFFECT, dtype=int, default=0, min=0)
    algorithm = ChoiceField(
        doc="Interpolation between bins." + NO_EFFECT,
        dtype=str,
        default="AKIMA_SPLINE",
        optional=True,
        allowed={
            "CONSTANT": "one value",
            "LINEAR": "linear",
            "NATURAL_SPLINE": "cubic spline, no curvature at its ends",
            "AKIMA_SPLINE": "Akima's spline, which overshoots less",
            "NONE": "no background",
        },
    )
    ignoredPixelMask = ListField(
        doc="Mask planes whose pixels are left out." + NO_EFFECT,
        dtype=str,
        default=["BAD", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA"],
    )
    isNanSafe = Field(doc="Leave NaN out." + NO_EFFECT, dtype=bool, default=False)
    useApprox = Field(doc="Fit Chebyshev polynomials to the bins." + NO_EFFECT, dtype=bool, default=True)
    approxOrderX = Field(doc="Order of the polynomials along x." + NO_EFFECT, dtype=int, default=6)
    approxOrderY = Field(doc="Order along y; -1: as along x." + NO_EFFECT, dtype=int, default=-1)
    weighting = Field(doc="Weight bins by inverse variance." + NO_EFFECT, dtype=bool, default=True)
    doApplyFlatBackgroundRatio = Field(
        doc="Flatten as for backgrounds before the fit." + NO_EFFECT, dtype=bool, default=False
    )
    doFilterSuperPixels = Field(doc="Filter the bins by a median." + NO_EFFECT, dtype=bool, default=False)
    superPixelFilterSize = Field(doc="Bins along a side of that filter." + NO_EFFECT, dtype=int, default=3)


class PsfMatchConfig(Config):
    """What all kernel bases have in common."""

    warpingConfig = ConfigField(doc="Resampling of images." + NO_EFFECT, dtype=WarperConfig)
    afwBackgroundConfig = ConfigField(doc="Subtraction of a background." + NO_EFFECT, dtype=SubtractBackgroundConfig)
    useAfwBackground = Field(doc="Subtract a background beforehand." + NO_EFFECT, dtype=bool, default=False)
    fitForBackground = Field(
        doc="Fit an additive background, of order spatialBgOrder, along with the kernel.", dtype=bool, default=False
    )
    kernelBasisSet = ChoiceField(
        doc="What the kernel is made of.",
        dtype=str,
        default="alard-lupton",
        allowed={
            "alard-lupton": "Gaussians times polynomials; the kernel sum is the same everywhere",
            "delta-function": "every pixel on its own; the sum varies unless usePcaForSpatialKernel is set",
        },
    )
    kernelSize = Field(
        doc="Rows and columns of the kernel; must be odd.  With scaleByFwhm the kernel's size follows from the "
        "Gaussians' widths, and this one only governs the padding.",
        dtype=int,
        default=21,
    )
    scaleByFwhm = Field(
        doc="Choose the kernel's size and the Gaussians' widths from the FWHMs of the two PSFs (the model task turns "
        "this off).",
        dtype=bool,
        default=True,
    )
    kernelSizeFwhmScaling = Field(
        doc="With scaleByFwhm: kernel size over the widest Gaussian's sigma.",
        dtype=float,
        default=6.0,
        check=_one_or_more,
    )
    kernelSizeMin = Field(doc="With scaleByFwhm: least kernel size.", dtype=int, default=21)
    kernelSizeMax = Field(doc="With scaleByFwhm: largest kernel size.", dtype=int, default=35)
    spatialModelType = ChoiceField(
        doc="Functions of position that the kernel's and the background's coefficients are made of.",
        dtype=str,
        default="chebyshev1",
        allowed={
            "chebyshev1": "Chebyshev polynomials of the first kind",
            "polynomial": "powers of the pixel coordinates (ill-conditioned on large frames)",
        },
    )
    spatialKernelOrder = Field(
        doc="Total degree of the kernel's variation over the field.", dtype=int, default=2, check=_not_negative
    )
    spatialBgOrder = Field(
        doc="With fitForBackground: total degree of the background.", dtype=int, default=1, check=_not_negative
    )
    sizeCellX = Field(
        doc="Columns of a spatial cell; the PSFs are sampled once in every cell.",
        dtype=int,
        default=128,
        check=_cell_size,
    )
    sizeCellY = Field(doc="Rows of a spatial cell.", dtype=int, default=128, check=_cell_size)
    nStarPerCell = Field(
        doc="Candidates used in each cell, -1 for all; a model PSF is one candidate a cell." + NO_EFFECT,
        dtype=int,
        default=5,
    )
    maxSpatialIterations = Field(
        doc="Most fits of the spatial model, where clipping leaves candidates out.",
        dtype=int,
        default=3,
        check=_iterations,
    )
    usePcaForSpatialKernel = Field(
        doc="Replace the basis by the principal components of the candidates' own kernels; the kernel sum is then the "
        "same everywhere for delta functions too.",
        dtype=bool,
        default=False,
    )
    subtractMeanForPca = Field(
        doc="With usePcaForSpatialKernel: make the mean kernel the first of the components.", dtype=bool, default=True
    )
    numPrincipalComponents = Field(
        doc="With usePcaForSpatialKernel: number of components, the mean included.",
        dtype=int,
        default=5,
        check=_components,
    )
    singleKernelClipping = Field(
        doc="Leave out candidates whose own kernel leaves large residuals (the model task turns this off).",
        dtype=bool,
        default=True,
    )
    kernelSumClipping = Field(
        doc="Leave out candidates whose own kernel's sum is an outlier (the model task turns this off).",
        dtype=bool,
        default=True,
    )
    spatialKernelClipping = Field(
        doc="Leave out candidates where the spatial model leaves large residuals (the model task turns this off).",
        dtype=bool,
        default=True,
    )
    checkConditionNumber = Field(
        doc="Leave out candidates whose equations have a condition number above maxConditionNumber.",
        dtype=bool,
        default=False,
    )
    badMaskPlanes = ListField(
        doc="Mask planes left out of statistics; a model PSF has no mask." + NO_EFFECT,
        dtype=str,
        default=["NO_DATA", "EDGE", "SAT"],
    )
    candidateResidualMeanMax = Field(
        doc="With clipping: largest mean of a candidate's residuals over their standard deviation by noise, the "
        "stamps' variance being 1.",
        dtype=float,
        default=0.25,
        check=_positive,
    )
    candidateResidualStdMax = Field(
        doc="With clipping: largest standard deviation of the same.", dtype=float, default=1.5, check=_positive
    )
    useCoreStats = Field(
        doc="With clipping: measure residuals only within candidateCoreRadius.", dtype=bool, default=False
    )
    candidateCoreRadius = Field(
        doc="With useCoreStats: how far from the centre, in pixels, residuals are measured.",
        dtype=int,
        default=3,
        check=_one_or_more,
    )
    maxKsumSigma = Field(
        doc="With kernelSumClipping: largest deviation of a kernel sum, in standard deviations.",
        dtype=float,
        default=3.0,
        check=_positive,
    )
    maxConditionNumber = Field(
        doc="With checkConditionNumber: largest condition number of a candidate's equations; also where "
        "lambdaType='minimizeBiasedRisk' cuts.",
        dtype=float,
        default=5.0e7,
        check=_positive,
    )
    conditionNumberType = ChoiceField(
        doc="What condition numbers are the ratio of.",
        dtype=str,
        default="EIGENVALUE",
        allowed={"SVD": "singular values", "EIGENVALUE": "eigenvalues (faster)"},
    )
    maxSpatialConditionNumber = Field(
        doc="Condition number of the spatial fit above which the solution is called ill-conditioned; it is used all "
        "the same.",
        dtype=float,
        default=1.0e10,
        check=_positive,
    )
    iterateSingleKernel = Field(
        doc="Fit each candidate again with a better variance." + NO_EFFECT, dtype=bool, default=False
    )
    constantVarianceWeighting = Field(
        doc="Weight all pixels of a candidate alike, as model PSFs always are." + NO_EFFECT, dtype=bool, default=True
    )
    calculateKernelUncertainty = Field(
        doc="Compute the covariance of the coefficients." + NO_EFFECT, dtype=bool, default=False
    )
    useBicForKernelBasis = Field(
        doc="Choose the basis by the Bayesian information criterion.  Rubin's task never reads this, so neither does "
        "this one; psfmatch's own solver can: AlardLupton(bic=True).",
        dtype=bool,
        default=False,
    )


class PsfMatchConfigAL(PsfMatchConfig):
    """Gaussians times polynomials (Alard & Lupton 1998, ApJ 503, 325)."""

    alardNGauss = Field(doc="Number of Gaussians.", dtype=int, default=3, check=_one_or_more)
    alardDegGauss = ListField(
        doc="Degree of the polynomials on each Gaussian; alardNGauss values.", dtype=int, default=[4, 2, 2]
    )
    alardSigGauss = ListField(
        doc="Standard deviation of each Gaussian, in pixels; alardNGauss values.", dtype=float, default=[0.7, 1.5, 3.0]
    )
    alardGaussBeta = Field(
        doc="With scaleByFwhm: each sigma over the one before.", dtype=float, default=2.0, check=_positive
    )
    alardMinSig = Field(
        doc="With scaleByFwhm: least sigma, in pixels.", dtype=float, default=0.7, check=_smallest_sigma
    )
    alardDegGaussDeconv = Field(
        doc="Degree of the polynomials where the target is the sharper PSF.",
        dtype=int,
        default=3,
        check=_one_or_more,
        deprecated="It is not used any more; alardDegGauss is, whichever PSF is the sharper.",
    )
    alardMinSigDeconv = Field(
        doc="With scaleByFwhm: least sigma, in pixels, where the target is the sharper PSF.",
        dtype=float,
        default=0.4,
        check=_smallest_sigma,
    )
    alardNGaussDeconv = Field(
        doc="Number of Gaussians where the target is the sharper PSF.",
        dtype=int,
        default=3,
        check=_one_or_more,
        deprecated="It is not used any more; alardNGauss is, whichever PSF is the sharper.",
    )

    def setDefaults(self) -> None:
        super().setDefaults()
        self.kernelBasisSet = "alard-lupton"
        self.maxConditionNumber = 5.0e7


class PsfMatchConfigDF(PsfMatchConfig):
    """Delta functions, one for every pixel of the kernel, with a penalty on its roughness."""

    useRegularization = Field(doc="Add the penalty.", dtype=bool, default=True)
    regularizationType = ChoiceField(
        doc="How roughness is measured.",
        dtype=str,
        default="centralDifference",
        allowed={
            "centralDifference": "by a Laplacian (see centralRegularizationStencil)",
            "forwardDifference": "by forward differences (see forwardRegularizationOrders)",
        },
    )
    centralRegularizationStencil = ChoiceField(
        doc="Points of the Laplacian.",
        dtype=int,
        default=9,
        allowed={5: "the four nearest neighbours", 9: "the diagonal neighbours too"},
    )
    forwardRegularizationOrders = ListField(
        doc="Orders of the forward differences that are added up.",
        dtype=int,
        default=[1, 2],
        itemCheck=_derivative_order,
    )
    regularizationBorderPenalty = Field(
        doc="Penalty on the pixels of the kernel's border.", dtype=float, default=3.0, check=_positive
    )
    lambdaType = ChoiceField(
        doc="How the strength of the penalty is chosen.",
        dtype=str,
        default="absolute",
        allowed={
            "absolute": "it is lambdaValue",
            "relative": "it is lambdaScaling times the ratio of the traces of the two matrices",
            "minimizeBiasedRisk": "the best of a series by the predictive risk, small eigenvalues left out",
            "minimizeUnbiasedRisk": "the best of a series by the predictive risk",
        },
    )
    lambdaValue = Field(doc="Strength, with lambdaType='absolute'.", dtype=float, default=0.2)
    lambdaScaling = Field(doc="Factor, with lambdaType='relative'.", dtype=float, default=1e-4)
    lambdaStepType = ChoiceField(
        doc="Spacing of the series of strengths.",
        dtype=str,
        default="log",
        allowed={"log": "lambdaMin, lambdaMax and lambdaStep are powers of ten", "linear": "they are strengths"},
    )
    lambdaMin = Field(doc="First of the series.", dtype=float, default=-1.0)
    lambdaMax = Field(doc="Last of the series.", dtype=float, default=2.0)
    lambdaStep = Field(doc="Step of the series.", dtype=float, default=0.1)

    def setDefaults(self) -> None:
        super().setDefaults()
        self.kernelBasisSet = "delta-function"
        self.maxConditionNumber = 5.0e6
        self.usePcaForSpatialKernel = True
        self.subtractMeanForPca = True
        self.useBicForKernelBasis = False


def _set_model_defaults(kernel: Any) -> None:
    """What the model task changes: models have no outliers, no variance, and keep the kernel size they are given."""
    kernel.singleKernelClipping = False
    kernel.kernelSumClipping = False
    kernel.spatialKernelClipping = False
    kernel.checkConditionNumber = False
    kernel.constantVarianceWeighting = True
    kernel.scaleByFwhm = False


class ModelPsfMatchConfig(Config):
    """The configuration of `ModelPsfMatchTask`.

    ``config.kernel.active`` (or ``config.kernel["AL"]``) holds the options of the kernel.  For delta functions with
    regularisation see `ModelPsfMatchConfigDF`.
    """

    kernel = ConfigChoiceField(doc="Kernel basis and how it is fitted.", typemap={"AL": PsfMatchConfigAL}, default="AL")
    doAutoPadPsf = Field(
        doc="Pad the science PSF with zeros, if it is smaller, to autoPadPsfTo times the kernel size; else pad it by "
        "padPsfBy.",
        dtype=bool,
        default=True,
    )
    autoPadPsfTo = RangeField(
        doc="With doAutoPadPsf: least size of the science PSF, over kernelSize.",
        dtype=float,
        default=1.4,
        min=1.0,
        max=2.0,
    )
    padPsfBy = Field(
        doc="Without doAutoPadPsf: pixels (an even number) that the science PSF's sides grow by.",
        dtype=int,
        default=0,
    )

    def setDefaults(self) -> None:
        super().setDefaults()
        _set_model_defaults(self.kernel.active)


class ModelPsfMatchConfigDF(ModelPsfMatchConfig):
    """The same with regularised delta functions as a second choice, ``config.kernel.name = "DF"``, and the default.

    Rubin's task offers "AL" only, which can use delta functions too (``kernelBasisSet``), but not regularise them.
    """

    kernel = ConfigChoiceField(
        doc="Kernel basis and how it is fitted.",
        typemap={"AL": PsfMatchConfigAL, "DF": PsfMatchConfigDF},
        default="DF",
    )

    def setDefaults(self) -> None:
        super().setDefaults()
        _set_model_defaults(self.kernel["AL"])
