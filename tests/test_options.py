"""No option does nothing: each, changed, changes what comes out."""

import warnings
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from psfmatch import (
    FFT,
    PCA,
    AlardLupton,
    Box,
    ClippedMean,
    Clipping,
    Direct,
    Exposure,
    Fourier,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    Grid,
    Kaiser,
    Lanczos,
    Mask,
    MoffatPSF,
    Padding,
    Planes,
    Position,
    Regularization,
    combine,
    convolve,
    matching_kernel,
    warp,
)
from psfmatch.solve.frequency import Window

BOX = Box.from_shape((163, 217))
NOISE = np.random.default_rng(6).normal(scale=3e-5, size=(41, 41))


def science(x, y):
    """Sheared more and more along x, curved along y, with noise."""
    psf = MoffatPSF(fwhm=3.0 + x / 300.0, beta=3.0, ellipticity=0.05 + 0.1 * (y / 150.0) ** 2, angle=0.3 * x, size=41)
    return psf.stamps(x=0, y=0)[0] + NOISE


SCIENCE, TARGET = FunctionPSF(science, shape=(41, 41)), MoffatPSF(fwhm=4.6, beta=3.5)
CUT, FIXED = {"border": "cut"}, {"scale_by_fwhm": False}
DELTA = {"basis": "delta", "size_min": 9, "size": 9, "border": "cut"}

# class: option: (another value, what must be set besides for it to matter)
SOLVERS = {
    AlardLupton: {
        "basis": ("delta", {"size": 9}),
        "size": (17, FIXED),
        "sigmas": ((0.8, 1.6, 3.0), FIXED),
        "degrees": ((3, 2, 1), {}),
        "scale_by_fwhm": (False, {}),
        "sigma_ratio": (1.8, {}),
        "sigma_min": (3.0, {}),
        "sigma_min_deconvolution": (2.9, {"target": GaussianPSF(fwhm=2.8)}),
        "size_per_sigma": (9.0, {}),
        "size_min": (31, {}),
        "size_max": (21, {"size_per_sigma": 12.0}),
        "fwhm_at": (Position(y=20, x=205), {}),
        "order": (1, {}),
        "kind": ("polynomial", {}),
        "cell_shape": ((30, 40), {}),
        "min_cells": (40, {}),
        "border": ("cut", {}),
        "padding": (Padding(to=2.5), CUT),
        "stamps": ("float32", {}),
        "sum_rule": ("fit", {}),
        "background_order": (1, CUT),
        "regularization": (Regularization(), DELTA),
        "pca": (PCA(components=2), {}),
        "bic": (True, {"degrees": (6, 5, 5), "border": "cut"}),
        "clipping": (Clipping(spatial=True, residual_std=1e-5), {}),
        "max_condition": (1.0, {}),
        "max_spatial_condition": (1.0, {}),
        "condition": ("svd", {"max_spatial_condition": 1e12, "border": "cut"}),
    },
    Fourier: {
        "penalty": ("none", {}),
        "strength": (1e-3, {}),
        "tolerance": (1e-2, {}),
        "max_noise_gain": (0.5, {"target": GaussianPSF(fwhm=2.8)}),
        "window": (Window(shape="hann"), {}),
        "size": (15, {}),
        "size_max": (15, {}),
        "flux": (2.0, {}),
        "order": (1, {}),
        "cell_shape": ((30, 40), {}),
    },
    FreeForm: {
        "tolerance": (1e-2, {}),
        "max_noise_gain": (0.5, {"target": GaussianPSF(fwhm=2.8)}),
        "size": (15, {}),
        "max_size": (15, {}),
        "strength": (1e-2, {}),
        "order": (0, {}),
        "max_order": (0, {}),
        "wings": ("extrapolate", {}),
        "noise": (1e-3, {}),
        "flux": ("unit", {}),
    },
}
PARTS = {
    Padding: {"to": (None, {"to": 2.5}, CUT), "by": (20, {"to": None}, CUT)},
    PCA: {"components": (3, {}, {}), "subtract_mean": (False, {}, {})},
    Window: {
        "shape": ("tukey", {}, {}),
        "cutoff": (0.3, {"shape": "hann"}, {}),
        "taper": (0.2, {"shape": "tukey"}, {}),
    },
    Clipping: {
        "single": (True, {"residual_std": 1e-7, "residual_mean": 1e-9}, {}),
        "sums": (True, {"sum_sigma": 0.5}, {"sum_rule": "fit"}),
        "spatial": (True, {"residual_std": 1e-5}, {}),
        "residual_mean": (1e-9, {"spatial": True}, {}),
        "residual_std": (1e-5, {"spatial": True}, {}),
        "sum_sigma": (0.5, {"sums": True}, {"sum_rule": "fit"}),
        "core_radius": (2, {"spatial": True, "residual_std": 4e-5}, {}),
        "iterations": (1, {"spatial": True, "residual_std": 3.5e-5}, {"order": 1, "cell_shape": (20, 24)}),
    },
    Regularization: {
        "kind": ("forward", {}, DELTA),
        "stencil": (5, {}, DELTA),
        "orders": ((3,), {"kind": "forward"}, DELTA),
        "border": (30.0, {}, DELTA),
        "choice": ("absolute", {}, DELTA),
        "strength": (1e-2, {}, DELTA),
        "steps": ((1e-3, 1e3), {"choice": "biased-risk"}, DELTA),
        "max_condition": (3.0, {"choice": "biased-risk", "variance": 1e-9}, DELTA),
        "variance": (2.0, {"choice": "unbiased-risk"}, DELTA),
    },
}
HOLDERS = {
    Padding: (AlardLupton, "padding"), PCA: (AlardLupton, "pca"), Window: (Fourier, "window"),
    Clipping: (AlardLupton, "clipping"), Regularization: (AlardLupton, "regularization"),
}  # fmt: skip


def cases(table):
    return [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, options in table.items() for name in options]


@cache
def outcome(solver, target=TARGET):
    """The kernel at some positions, and what is said of it; or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            solution = matching_kernel(SCIENCE, target, box=BOX, solver=solver, throw=False)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    stamps = solution.kernel.stamps(x=[20, 100, 200], y=[150, 80, 15])
    return stamps.shape, stamps.tobytes(), solution.outcome, solution.statistics.get("condition_number")


@pytest.mark.parametrize("table", [SOLVERS, PARTS], ids=["solvers", "parts"])
def test_the_tables_hold_every_option(table):
    for cls, options in table.items():
        assert set(options) == {f.name for f in fields(cls)}, cls.__name__


@pytest.mark.parametrize(("cls", "name"), cases(SOLVERS))
def test_an_option_of_a_solver(cls, name):
    other, besides = SOLVERS[cls][name]
    target = besides.get("target", TARGET)
    base = cls(**{key: value for key, value in besides.items() if key != "target"})
    assert outcome(base, target) != outcome(replace(base, **{name: other}), target)


@pytest.mark.parametrize(("cls", "name"), cases(PARTS))
def test_an_option_of_a_part(cls, name):
    other, besides, of_holder = PARTS[cls][name]
    holder, part = HOLDERS[cls]
    base = cls(**besides)
    one, two = (holder(**of_holder, **{part: value}) for value in (base, replace(base, **{name: other})))
    assert outcome(one) != outcome(two)


def frame():
    random = np.random.default_rng(8)
    mask = np.where(random.random(BOX.shape) < 0.01, 1 << 0, 0).astype(np.int32)
    return Exposure(random.normal(size=BOX.shape).astype("f4"), variance=np.ones(BOX.shape, "f4"), mask=mask, box=BOX)


def planes(exposure):
    return tuple(plane.tobytes() for plane in (exposure.image, exposure.variance, exposure.mask.array))


OUT = Planes(np.empty(BOX.shape, "f4"), np.empty(BOX.shape, "f4"), np.empty(BOX.shape, np.int32))
CONVOLVERS = {
    Direct: {"edge": "nan", "exclude": ("BAD",)},
    FFT: {"edge": "nan", "exclude": ("BAD",), "block": 96, "tolerance": 1e-2, "variance_tolerance": 0.1},
}
NO_CHANGE = {FFT: {"threads": 1, "device": "cpu", "out": OUT}}  # where or how it is done, not what comes out


@pytest.mark.parametrize(("cls", "name"), cases(CONVOLVERS))
def test_an_option_of_a_convolver(cls, name):
    assert set(CONVOLVERS[cls]) | set(NO_CHANGE.get(cls, ())) == {f.name for f in fields(cls)}
    kernel = matching_kernel(SCIENCE, TARGET, box=BOX, solver=AlardLupton(order=2)).kernel
    e = frame()
    one, two = (convolve(e, kernel, convolver=c) for c in (cls(), cls(**{name: CONVOLVERS[cls][name]})))
    assert planes(one) != planes(two)


CLIPPING = {
    "sigmas": 8.0, "grow": 4.0, "pad": 6, "scale": 1, "model_error": 5.0, "reach": 0, "two": "none",
}  # fmt: skip


@pytest.mark.parametrize("name", CLIPPING)
def test_an_option_of_the_clipped_mean(name):
    assert set(CLIPPING) == {f.name for f in fields(ClippedMean)}
    random = np.random.default_rng(2)
    images = random.normal(size=(2 if name == "two" else 6, 61, 83))
    images[:, 20:23, 30:33] += 60.0  # a source
    images[1, 20:23, 30:33] += 5.0  # a little brighter once
    images[1, 40:44, 50:70] += 6.0  # a trail
    images[1, 5:12, 5:25] += 1.5  # a faint one
    masks = np.zeros(images.shape, np.int32)
    one, two = (
        combine(images, np.ones(images.shape), masks, method=m)
        for m in (ClippedMean(), replace(ClippedMean(), **{name: CLIPPING[name]}))
    )
    assert one.image.tobytes() != two.image.tobytes()


@pytest.mark.parametrize(
    ("base", "name", "other"),
    [
        (Kaiser(), "order", 4), (Kaiser(), "mask_share", 0.2), (Kaiser(), "exclude", ("BAD",)), (Kaiser(), "beta", 3.0),
        (Lanczos(), "order", 3), (Lanczos(), "mask_share", 0.2), (Lanczos(), "exclude", ("BAD",)),
    ],
)  # fmt: skip
def test_an_option_of_an_interpolation(base, name, other):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [90.0, 70.0]
    wcs.wcs.cdelt = [-7e-5, 7e-5]
    turned = wcs.deepcopy()
    turned.wcs.pc = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    e = frame().replace(wcs=wcs, mask=Mask(frame().mask.array))
    grid = Grid(turned, (121, 143))
    assert name in {f.name for f in fields(base)}
    one, two = (warp(e, grid, interpolation=i) for i in (base, replace(base, **{name: other})))
    assert planes(one) != planes(two)


@pytest.mark.parametrize("solver", [AlardLupton(), Fourier(), FreeForm()], ids=lambda solver: type(solver).__name__)
def test_the_same_options_give_the_same_bits(solver):
    assert outcome(solver) == outcome.__wrapped__(solver)
