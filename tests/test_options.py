"""No option does nothing: each, changed, changes what comes out."""

import inspect
import warnings
from dataclasses import fields, is_dataclass, replace
from functools import cache

import numpy as np
import pytest

import psfmatch
from psfmatch import (
    FFT,
    PCA,
    AlardLupton,
    BasisPSF,
    Box,
    ClippedMean,
    Clipping,
    CoaddInput,
    Direct,
    DoubleGaussianPSF,
    Exposure,
    Field,
    Fourier,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    Grid,
    GridPSF,
    ImagePSF,
    Kaiser,
    Lanczos,
    Mask,
    Mean,
    Median,
    MoffatPSF,
    Padding,
    Planes,
    Position,
    Recipe,
    Regularization,
    Stamp,
    StarSelection,
    coadd,
    combine,
    common_target,
    convolve,
    matching_kernel,
    psf_from_stars,
    warp,
)
from psfmatch.cli.settings import CLASSES
from psfmatch.coadd import planned
from psfmatch.solve.frequency import Window
from starfields import star_field

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
        "condition": ("svd", {"max_condition": 1e30, "sigmas": (1.0, 1.0, 2.0), **FIXED}),
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
    """The kernel at some positions, and whether it may be used; or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            solution = matching_kernel(SCIENCE, target, box=BOX, solver=solver, throw=False)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    stamps = solution.kernel.stamps(x=[20, 100, 200], y=[150, 80, 15])
    return stamps.shape, stamps.tobytes(), solution.outcome.ok


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


INTERPOLATIONS = {
    Kaiser: {"order": 4, "mask_share": 0.2, "exclude": ("BAD",), "beta": 3.0},
    Lanczos: {"order": 3, "mask_share": 0.2, "exclude": ("BAD",)},
}


@pytest.mark.parametrize(("cls", "name"), cases(INTERPOLATIONS))
def test_an_option_of_an_interpolation(cls, name):
    assert set(INTERPOLATIONS[cls]) == {f.name for f in fields(cls)}
    e = frame().replace(wcs=Grid.centered(150.0, 2.0, shape=BOX.shape, pixel_scale=0.25).wcs)
    grid = Grid.centered(150.0, 2.0, shape=(121, 143), pixel_scale=0.25, rotation=17.0)
    one, two = (warp(e, grid, interpolation=i) for i in (cls(), cls(**{name: INTERPOLATIONS[cls][name]})))
    assert planes(one) != planes(two)


STAMP = MoffatPSF(fwhm=2.9, beta=3.0, ellipticity=0.2, angle=30.0).stamps(x=0, y=0, shape=(21, 25))[0]
SHIFTED, FIELD = np.roll(STAMP, 1, axis=1), Field([[1.0, 0.1, 0.0], [0.2, 0.0, 0.1]], BOX)
ROUND = {"fwhm": 3.0, "ellipticity": 0.2}
ELLIPTICAL = {
    "fwhm": (3.5, {}), "ellipticity": (0.3, {}), "angle": (40.0, {}), "size": (31, {}), "sampling": ("center", {}),
}  # fmt: skip

# class: what it needs; option: (another value, what must be set besides)
MODELS = {
    GaussianPSF: (ROUND, ELLIPTICAL),
    MoffatPSF: (ROUND | {"beta": 3.0}, ELLIPTICAL | {"beta": (4.0, {})}),
    DoubleGaussianPSF: (
        {"sigma1": 1.3, "sigma2": 2.0, "b": 0.1},
        {"sigma1": (1.5, {}), "sigma2": (3.0, {"size": 25}), "b": (0.3, {}), "size": (31, {}),
         "sampling": ("center", {})},
    ),
    ImagePSF: (
        {"image": STAMP},
        {"image": (SHIFTED, {}), "normalize": (True, {}), "measured": (STAMP > 1e-4, {})},
    ),
    BasisPSF: (
        {"basis": np.stack([STAMP, SHIFTED]), "weights": FIELD},
        {"basis": (np.stack([SHIFTED, STAMP]), {}), "normalize": (False, {}),
         "weights": (Field(2.0 * FIELD.coefficients, BOX), {"normalize": False})},
    ),
    GridPSF: (
        {"images": np.stack([STAMP, SHIFTED])[None], "x": [0.0, 200.0], "y": [80.0]},
        {"images": (np.stack([SHIFTED, STAMP])[None], {}), "x": ([0.0, 100.0], {}), "normalize": (True, {}),
         "y": ([0.0, 90.0], {"images": np.stack([STAMP, SHIFTED])[:, None], "x": [5.0], "y": [0.0, 200.0]})},
    ),
    FunctionPSF: (
        {"function": science, "shape": (41, 41)},
        {"function": (lambda x, y: science(y, x), {}), "normalize": (True, {}),
         "shape": ((41, 39), {})},
    ),
    Stamp: (
        {"image": STAMP, "pixel_scale": 0.2, "angle": 10.0},
        {"image": (STAMP.T, {}), "pixel_scale": (0.22, {}), "angle": (50.0, {}), "mirrored": (True, {}),
         "center": ((10.0, 12.3), {}), "normalize": (True, {})},
    ),
}  # fmt: skip


def realised(make, **options):
    """Its stamps, and which of their pixels are measured; or the error.  Of a stamp: the target that it becomes."""
    try:
        psf = make(**options)
        if isinstance(psf, Stamp):
            psf = psfmatch.stamps.paired(Stamp(TARGET, pixel_scale=0.2, angle=10.0), psf).target
        stamps = psf.stamps(x=[20, 100], y=[150, 15])
    except psfmatch.PSFError as error:
        return str(error)
    return stamps.shape, stamps.tobytes(), None if psf.measured is None else psf.measured.tobytes()


@pytest.mark.parametrize(("cls", "name"), cases({cls: options for cls, (_, options) in MODELS.items()}))
def test_an_option_of_a_psf_model(cls, name):
    needs, options = MODELS[cls]
    assert set(options) == {f.name for f in fields(cls)}
    other, besides = options[name]
    base = needs | besides
    assert realised(cls, **base) != realised(cls, **base | {name: other})


# function: what it is called with; option: another value
PLACE = {"ra": 150.0, "dec": 2.0, "shape": (50, 70), "pixel_scale": 0.25}
GRIDS = {
    Grid.centered: (
        PLACE, {"ra": 150.1, "dec": 2.1, "shape": (70, 50), "pixel_scale": 0.2, "rotation": 10.0},
    ),
    Grid.auto: ({"exposures": [Exposure(np.ones((50, 70)), wcs=Grid.centered(**PLACE).wcs)]}, {"pixel_scale": 0.2}),
}  # fmt: skip
PAIR = [MoffatPSF(fwhm=3.0, beta=3.0, size=41), MoffatPSF(fwhm=3.4, beta=2.6, size=41)]
TARGETS = {
    common_target: (
        {"psfs": PAIR, "max_noise_gain": 1.0}, {"family": "gaussian", "tolerance": 1e-2, "max_noise_gain": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "name"), [
    pytest.param(make, name, id=f"{make.__qualname__}.{name}")
    for make, (_, options) in (GRIDS | TARGETS).items() for name in options
])  # fmt: skip
def test_an_option_of_a_grid_or_a_common_target(make, name):
    needs, options = (GRIDS | TARGETS)[make]
    assert set(options) == set(inspect.signature(make).parameters) - {"psfs", "exposures"}

    def made(**changed):
        it = make(**(needs | changed))
        return (it.shape, it.wcs.to_header_string()) if isinstance(it, Grid) else realised(lambda: it)

    assert made() != made(**{name: options[name]})


SELECTION = {"least_snr": 200.0, "most": 9, "saturation": 3e3, "variability": 0.01}
FROM_STARS = {"selection": StarSelection(most=7), "max_order": 0, "stamp": 21}


@pytest.fixture(scope="module")
def stars():
    return star_field(stars=18, shape=(200, 260), galaxies=2, faint=9, cosmic_rays=5, drift=0.15)[0]


@cache
def from_stars(exposure, **options):
    psf = psf_from_stars(exposure, **options).psf
    return realised(lambda: psf)


@pytest.mark.parametrize("name", SELECTION)
def test_an_option_of_the_selection_of_stars(name, stars):
    assert set(SELECTION) == {f.name for f in fields(StarSelection)}
    one, two = (s.cutouts(stars)[0] for s in (StarSelection(), StarSelection(**{name: SELECTION[name]})))
    assert [(star.x, star.y) for star in one] != [(star.x, star.y) for star in two]


@pytest.mark.filterwarnings("ignore:the PSF from the stars")
@pytest.mark.parametrize("name", FROM_STARS)
def test_an_option_of_a_psf_from_stars(name, stars):
    assert set(FROM_STARS) == set(inspect.signature(psf_from_stars).parameters) - {"exposure"}
    few = {"selection": StarSelection(most=16), "max_order": 1}
    assert from_stars(stars, **few) != from_stars(stars, **(few | {name: FROM_STARS[name]}))


QUICK = FreeForm(size=13, order=0, tolerance=0.1)
RECIPE = {
    "order": "warp-match", "background": "median", "scale": "stars", "solver": FreeForm(size=9, order=0, tolerance=0.1),
    "interpolation": Lanczos(), "reject": ("BAD",), "lost": 0.5, "lost_saturated": 0.05, "patch": 64, "memory": 1e-4,
}  # fmt: skip
AREA = Grid.centered(186.7, 25.4, shape=(91, 84), pixel_scale=0.263)


def visit(k):
    """Exposure k of three, turned, of its own sky, zero point and PSF, with stars and with pixels that are flagged."""
    random, shape = np.random.default_rng(k), (123, 111)
    wcs = Grid.centered(186.7, 25.4, shape=shape, pixel_scale=0.263, rotation=8.0 * k).wcs
    psf = MoffatPSF(fwhm=2.8 + 0.2 * k, beta=3.0, size=31)
    image = random.normal(3.0 * k, 2.0, shape)
    x, y = (grid.ravel() for grid in np.meshgrid([19.0, 42.0, 65.0], [20.0, 44.0, 71.0]))
    for px, py in np.transpose(wcs.world_to_pixel_values(*AREA.wcs.pixel_to_world_values(x, y))):
        rows, columns = np.mgrid[int(py) - 14 : int(py) + 15, int(px) - 14 : int(px) + 15]
        image[rows, columns] += 5e3 * (1.0 + 0.1 * k) * psf.pixels(
            dx=(columns - px).ravel(), dy=(rows - py).ravel()
        ).reshape(rows.shape)  # fmt: skip
    bits = np.where(random.random(shape) < 0.001, 1 << random.integers(0, 2, shape), 0).astype(np.int32)
    return Exposure(image, variance=np.full(shape, 4.0), mask=Mask(bits), psf=psf, wcs=wcs, meta={"MAGZERO": 25.0})


@cache
def of_recipe(recipe):
    return planes(coadd([*map(visit, range(3))], target=TARGET, grid=AREA, combine="mean", recipe=recipe).exposure)


@cache
def patches(recipe):
    inputs = [CoaddInput(visit(k)) for k in range(3)]
    return len(planned(inputs, target=TARGET, grid=AREA, method=Mean(), recipe=recipe).patches)


@pytest.mark.parametrize("name", RECIPE)
def test_an_option_of_a_recipe(name):
    """What comes out differs; for the last two, the number of patches."""
    assert set(RECIPE) == {f.name for f in fields(Recipe)}
    base, seen = Recipe(solver=QUICK), patches if name in ("patch", "memory") else of_recipe
    assert seen(base) != seen(replace(base, **{name: RECIPE[name]}))


def test_all_that_a_configuration_can_set_is_here():
    here = [*SOLVERS, *CONVOLVERS, *INTERPOLATIONS, *GRIDS, *TARGETS, Recipe, ClippedMean, Mean, Median]
    assert {name for names in CLASSES.values() for name in names.values()} == {cls.__qualname__ for cls in here}
    assert not [*fields(Mean), *fields(Median)]


def test_every_psf_model_is_here():
    """But for those that are read from files, or made from others."""
    public = (getattr(psfmatch, name) for name in psfmatch.__all__)
    models = {cls for cls in public if isinstance(cls, type) and issubclass(cls, psfmatch.PSF) and is_dataclass(cls)}
    assert models == set(MODELS) - {Stamp} | {psfmatch.RegionsPSF, psfmatch.WarpedPSF}


@pytest.mark.parametrize("solver", [AlardLupton(), Fourier(), FreeForm()], ids=lambda solver: type(solver).__name__)
def test_the_same_options_give_the_same_bits(solver):
    assert outcome(solver) == outcome.__wrapped__(solver)
