import subprocess
import sys
from dataclasses import fields

import pytest

pytest.importorskip("lsst.pex.config")

from lsst.pex.config import Config, FieldValidationError

from psfmatch import PCA, AlardLupton, Clipping, InputError, Padding, Position, Regularization
from psfmatch.lsst import (
    ModelPsfMatchConfig,
    ModelPsfMatchConfigDF,
    ModelPsfMatchTask,
    PsfMatchConfigAL,
    PsfMatchConfigDF,
    solver_from_config,
)

OUTER = {"doAutoPadPsf": True, "autoPadPsfTo": 1.4, "padPsfBy": 0}
COMMON = {
    "kernelBasisSet": "alard-lupton",
    "kernelSize": 21,
    "scaleByFwhm": False,
    "kernelSizeFwhmScaling": 6.0,
    "kernelSizeMin": 21,
    "kernelSizeMax": 35,
    "spatialModelType": "chebyshev1",
    "spatialKernelOrder": 2,
    "spatialBgOrder": 1,
    "sizeCellX": 128,
    "sizeCellY": 128,
    "nStarPerCell": 5,
    "maxSpatialIterations": 3,
    "usePcaForSpatialKernel": False,
    "subtractMeanForPca": True,
    "numPrincipalComponents": 5,
    "singleKernelClipping": False,
    "kernelSumClipping": False,
    "spatialKernelClipping": False,
    "checkConditionNumber": False,
    "badMaskPlanes": ["NO_DATA", "EDGE", "SAT"],
    "candidateResidualMeanMax": 0.25,
    "candidateResidualStdMax": 1.5,
    "useCoreStats": False,
    "candidateCoreRadius": 3,
    "maxKsumSigma": 3.0,
    "maxConditionNumber": 5e7,
    "conditionNumberType": "EIGENVALUE",
    "maxSpatialConditionNumber": 1e10,
    "iterateSingleKernel": False,
    "constantVarianceWeighting": True,
    "calculateKernelUncertainty": False,
    "useBicForKernelBasis": False,
    "fitForBackground": False,
    "useAfwBackground": False,
    "warpingConfig": {
        "warpingKernelName": "lanczos3",
        "maskWarpingKernelName": "bilinear",
        "interpLength": 10,
        "cacheSize": 1000000,
        "growFullMask": 16,
    },
    "afwBackgroundConfig": {
        "statisticsProperty": "MEANCLIP",
        "undersampleStyle": "REDUCE_INTERP_ORDER",
        "binSize": 128,
        "binSizeX": 0,
        "binSizeY": 0,
        "algorithm": "AKIMA_SPLINE",
        "ignoredPixelMask": ["BAD", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "NO_DATA"],
        "isNanSafe": False,
        "useApprox": True,
        "approxOrderX": 6,
        "approxOrderY": -1,
        "weighting": True,
        "doApplyFlatBackgroundRatio": False,
        "doFilterSuperPixels": False,
        "superPixelFilterSize": 3,
    },
}
GAUSSIANS = {
    "alardNGauss": 3,
    "alardDegGauss": [4, 2, 2],
    "alardSigGauss": [0.7, 1.5, 3.0],
    "alardGaussBeta": 2.0,
    "alardMinSig": 0.7,
    "alardMinSigDeconv": 0.4,
    "alardDegGaussDeconv": 3,
    "alardNGaussDeconv": 3,
}
DELTA = {
    "useRegularization": True,
    "regularizationType": "centralDifference",
    "centralRegularizationStencil": 9,
    "forwardRegularizationOrders": [1, 2],
    "regularizationBorderPenalty": 3.0,
    "lambdaType": "absolute",
    "lambdaValue": 0.2,
    "lambdaScaling": 1e-4,
    "lambdaStepType": "log",
    "lambdaMin": -1.0,
    "lambdaMax": 2.0,
    "lambdaStep": 0.1,
}


def test_every_field_and_default():
    config = ModelPsfMatchConfig().toDict()
    assert config.pop("kernel") == {"name": "AL", "values": {"AL": COMMON | GAUSSIANS}}
    assert config == OUTER


def test_fields_of_delta_functions():
    changed = {
        "kernelBasisSet": "delta-function",
        "maxConditionNumber": 5e6,
        "usePcaForSpatialKernel": True,
        "scaleByFwhm": True,
        "singleKernelClipping": True,
        "kernelSumClipping": True,
        "spatialKernelClipping": True,
    }
    assert PsfMatchConfigDF().toDict() == COMMON | DELTA | changed


def test_the_task_changes_defaults_of_the_class():
    changed = ("scaleByFwhm", "singleKernelClipping", "kernelSumClipping", "spatialKernelClipping")
    assert all(getattr(PsfMatchConfigAL(), name) for name in changed)
    assert not any(getattr(ModelPsfMatchConfig().kernel.active, name) for name in changed)
    both = ModelPsfMatchConfigDF()
    assert both.kernel.name == "DF"
    assert not any(getattr(both.kernel[kind], name) for name in changed for kind in ("AL", "DF"))


def test_ways_to_set_a_field():
    config = ModelPsfMatchConfig()
    config.kernel["AL"].kernelSize = 27
    assert config.kernel.active.kernelSize == 27
    config.kernel.active.alardSigGauss = [1.0, 2.0, 4.5]
    assert list(config.kernel["AL"].alardSigGauss) == [1.0, 2.0, 4.5]
    assert isinstance(config, Config)
    config.validate()


def test_config_files(tmp_path):
    overrides = tmp_path / "overrides.py"
    overrides.write_text("config.kernel.active.kernelSize = 27\nconfig.kernel['AL'].spatialKernelOrder = 1\n")
    config = ModelPsfMatchConfig()
    config.load(str(overrides))
    assert (config.kernel.active.kernelSize, config.kernel.active.spatialKernelOrder) == (27, 1)
    config.save(str(tmp_path / "all.py"))
    again = ModelPsfMatchConfig()
    again.load(str(tmp_path / "all.py"))
    assert again == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizeCellX", 31),
        ("spatialKernelOrder", -1),
        ("maxSpatialIterations", 6),
        ("numPrincipalComponents", 2),
        ("kernelBasisSet", "wavelets"),
        ("alardMinSig", 0.2),
        ("kernelSizeFwhmScaling", 0.9),
        ("kernelSize", 21.5),
    ],
)
def test_values_out_of_range(name, value):
    kernel = ModelPsfMatchConfig().kernel.active
    with pytest.raises((FieldValidationError, ValueError)):
        setattr(kernel, name, value)


@pytest.mark.parametrize("factor", [0.9, 2.1])
def test_padding_out_of_range(factor):
    with pytest.raises(FieldValidationError):
        ModelPsfMatchConfig().autoPadPsfTo = factor


def test_deprecated_fields_warn():
    with pytest.warns(FutureWarning, match="alardNGaussDeconv is deprecated"):
        ModelPsfMatchConfig().kernel.active.alardNGaussDeconv = 2


def solver(config_class=ModelPsfMatchConfig, **changes):
    config = config_class()
    for name, value in changes.items():
        setattr(config if name in OUTER else config.kernel.active, name, value)
    return solver_from_config(config, fwhm_at=Position(y=2.0, x=1.0))


def test_solver_of_the_default_configuration():
    default = solver()
    assert default.fwhm_at == (2.0, 1.0)
    oddities = (default.border, default.stamps, default.sum_rule, default.min_cells)
    assert oddities == ("cut", "float32", "overwrite", 1)
    assert (default.basis, default.size, default.sigmas, default.degrees) == (
        "gaussian",
        21,
        (0.7, 1.5, 3.0),
        (4, 2, 2),
    )
    assert (default.regularization, default.pca, default.background_order, default.max_condition) == (None,) * 4
    assert (default.clipping, default.padding, default.bic) == (Clipping(), Padding(to=1.4), False)


def other(one, two):
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(two, f.name)}


def test_defaults_are_those_of_rubins_configuration():
    """But for what the solver's description names, the limits on conditions, and how the penalty is weighted."""
    described = AlardLupton(border="cut", sum_rule="overwrite", scale_by_fwhm=False)
    assert other(described, solver()) <= {
        "stamps", "min_cells", "fwhm_at", "cell_shape", "padding", "max_condition", "max_spatial_condition",
    }  # fmt: skip
    chosen = solver(ModelPsfMatchConfigDF).regularization
    assert other(Regularization(), chosen) <= {"choice", "strength", "steps", "max_condition", "variance"}


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"sizeCellX": 64, "sizeCellY": 100}, "cell_shape", (100, 64)),
        ({"spatialModelType": "polynomial"}, "kind", "polynomial"),
        ({"fitForBackground": True, "spatialBgOrder": 2}, "background_order", 2),
        ({"usePcaForSpatialKernel": True, "subtractMeanForPca": False}, "pca", PCA(subtract_mean=False)),
        ({"checkConditionNumber": True}, "max_condition", 5e7),
        ({"conditionNumberType": "SVD"}, "condition", "svd"),
        ({"maxSpatialConditionNumber": 1e9}, "max_spatial_condition", 1e9),
        ({"autoPadPsfTo": 1.6}, "padding", Padding(to=1.6)),
        ({"doAutoPadPsf": False, "padPsfBy": 6}, "padding", Padding(to=None, by=6)),
        ({"scaleByFwhm": True}, "scale_by_fwhm", True),
        ({"alardGaussBeta": 1.5}, "sigma_ratio", 1.5),
        ({"alardMinSig": 0.8}, "sigma_min", 0.8),
        ({"alardMinSigDeconv": 0.5}, "sigma_min_deconvolution", 0.5),
        ({"kernelSizeFwhmScaling": 5.0}, "size_per_sigma", 5.0),
        ({"kernelSizeMin": 16}, "size_min", 17),
        ({"kernelSizeMax": 41}, "size_max", 41),
        ({"useBicForKernelBasis": True}, "bic", False),
        ({"kernelSumClipping": True, "maxKsumSigma": 2.0}, "clipping", Clipping(sums=True, sum_sigma=2.0)),
        (
            {"singleKernelClipping": True, "useCoreStats": True, "candidateCoreRadius": 5},
            "clipping",
            Clipping(single=True, core_radius=5),
        ),
        (
            {
                "spatialKernelClipping": True,
                "candidateResidualMeanMax": 0.1,
                "candidateResidualStdMax": 0.2,
                "maxSpatialIterations": 5,
            },
            "clipping",
            Clipping(spatial=True, residual_mean=0.1, residual_std=0.2, iterations=5),
        ),
    ],
)
def test_every_field_reaches_the_solver(changes, name, value):
    assert getattr(solver(**changes), name) == value


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "choice", "absolute"),
        ({}, "strength", 0.2),
        ({}, "variance", 2.0),
        ({"lambdaType": "relative"}, "strength", 1e-4),
        ({"lambdaType": "minimizeBiasedRisk"}, "choice", "biased-risk"),
        ({"lambdaType": "minimizeUnbiasedRisk"}, "choice", "unbiased-risk"),
        ({"regularizationType": "forwardDifference"}, "kind", "forward"),
        ({"centralRegularizationStencil": 5}, "stencil", 5),
        ({"forwardRegularizationOrders": [3]}, "orders", (3,)),
        ({"regularizationBorderPenalty": 1.0}, "border", 1.0),
        (
            {"lambdaStepType": "linear", "lambdaMin": 1.0, "lambdaMax": 2.0, "lambdaStep": 0.5},
            "steps",
            (1.0, 1.5, 2.0),
        ),
        ({"maxConditionNumber": 1e6}, "max_condition", 1e6),
    ],
)
def test_regularization_reaches_the_solver(changes, name, value):
    chosen = solver(ModelPsfMatchConfigDF, **changes)
    assert chosen.basis == "delta"
    assert getattr(chosen.regularization, name) == value


def test_regularization_steps_are_powers_of_ten():
    steps = solver(ModelPsfMatchConfigDF).regularization.steps
    assert len(steps) == 31
    assert steps[0] == pytest.approx(0.1)
    assert steps[-1] == pytest.approx(100.0)


def test_no_regularization():
    assert solver(ModelPsfMatchConfigDF, useRegularization=False).regularization is None
    assert solver(kernelBasisSet="delta-function").regularization is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kernelSize": 20}, "kernel sizes must be odd"),
        ({"doAutoPadPsf": False, "padPsfBy": 3}, "must be an even number"),
        ({"alardNGauss": 2}, "alardSigGauss has 3 values, but alardNGauss is 2"),
        ({"alardDegGauss": [1, 1]}, "alardDegGauss has 2 values"),
    ],
)
def test_inconsistent_configurations(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        solver(**changes)
    assert isinstance(caught.value, InputError)


def test_an_odd_padding_that_is_not_used_is_harmless():
    assert solver(padPsfBy=3).padding == Padding(to=1.4)


def test_an_invalid_configuration_is_refused_by_the_task():
    config = ModelPsfMatchConfig()
    config.kernel.name = None
    with pytest.raises(FieldValidationError):
        ModelPsfMatchTask(config=config)


def test_without_pex_config_the_message_names_the_extra():
    code = "import sys; sys.modules['lsst'] = None; import psfmatch.lsst"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode
    assert done.stderr.strip().endswith(
        'ImportError: psfmatch.lsst needs lsst.pex.config: pip install "psfmatch[lsst]"'
    )
