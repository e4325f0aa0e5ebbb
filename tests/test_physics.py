"""What must hold whatever the numbers are: properties of a convolution and of a match, over drawn cases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

import psfmatch
from psfmatch import (
    FFT,
    AlardLupton,
    Box,
    ClippedMean,
    Direct,
    Exposure,
    Field,
    Fourier,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    Grid,
    ImagePSF,
    Mask,
    MatchingKernel,
    Mean,
    Median,
    MoffatPSF,
    combine,
    convolve,
    match,
    matching_kernel,
    warp,
)

SHAPE = (61, 83)
drawn = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def varying_kernel(random, box):
    """Three rough images, the first positive, whose weights vary as polynomials of order 2."""
    basis = np.stack([random.uniform(0.5, 1.5, (7, 11)), *random.normal(size=(2, 7, 11))]) / 77.0
    return MatchingKernel(basis, Field(random.normal(scale=0.1, size=(3, 6)) + np.eye(3, 6), box))


def scene(random, shape=SHAPE, **extra):
    mask = np.where(random.random(shape) < 0.01, 1 << random.integers(0, 8, shape), 0).astype(np.int32)
    return Exposure(random.normal(size=shape), variance=random.uniform(0.5, 2.0, shape), mask=mask, **extra)


@given(seed=seeds, scale=st.floats(-1e3, 1e3))
@drawn
def test_convolution_is_linear(seed, scale):
    random = np.random.default_rng(seed)
    kernel = varying_kernel(random, Box.from_shape(SHAPE))
    one, other = random.normal(size=(2, *SHAPE))
    whole = convolve(Exposure(one + scale * other), kernel).image
    parts = convolve(Exposure(one), kernel).image + scale * convolve(Exposure(other), kernel).image
    np.testing.assert_allclose(whole, parts, rtol=0.0, atol=1e-11 * max(1.0, abs(scale)))


@given(seed=seeds, dy=st.integers(-9, 9), dx=st.integers(-13, 13))
@drawn
def test_a_constant_kernel_moves_with_the_image(seed, dy, dx):
    random = np.random.default_rng(seed)
    kernel = MatchingKernel.constant(random.uniform(-0.2, 1.0, (7, 11)), Box.from_shape(SHAPE))
    image = np.zeros(SHAPE)
    image[20:41, 30:53] = random.normal(size=(21, 23))
    moved = convolve(Exposure(np.roll(image, (dy, dx), axis=(0, 1))), kernel).image
    still = np.roll(convolve(Exposure(image), kernel).image, (dy, dx), axis=(0, 1))
    inner = np.s_[4:-4, 6:-6]
    assert np.abs(moved - still)[inner].max() < 1e-11


@given(seed=seeds)
@drawn
def test_flux_is_multiplied_by_the_kernel_sum(seed):
    """Of a source, whose light leaves from input pixels: exact for a constant kernel."""
    random = np.random.default_rng(seed)
    image = np.zeros(SHAPE)
    image[25:36, 35:48] = random.uniform(0.0, 1.0, (11, 13))
    kernel = MatchingKernel.constant(random.uniform(-0.2, 1.0, (9, 7)), Box.from_shape(SHAPE))
    total = kernel.sums(x=40, y=30)[0] * image.sum()
    assert convolve(Exposure(image), kernel).image.sum() == pytest.approx(total, rel=1e-12)


TURNS = {
    "x": lambda a: a[..., ::-1], "y": lambda a: a[..., ::-1, :], "both": lambda a: a[..., ::-1, ::-1],
    "transpose": lambda a: np.swapaxes(a, -1, -2),
}  # fmt: skip


@given(seed=seeds, flip=st.sampled_from(list(TURNS)))
@drawn
def test_a_mirrored_scene_gives_the_mirrored_result(seed, flip):
    random = np.random.default_rng(seed)
    turn = TURNS[flip]
    e = scene(random)
    stamp = random.uniform(-0.1, 1.0, (9, 13)) / 50.0
    there = convolve(e, MatchingKernel.constant(stamp, Box.from_shape(SHAPE)))
    mirrored = Exposure(turn(e.image), variance=turn(e.variance), mask=Mask(turn(e.mask.array)))
    here = convolve(mirrored, MatchingKernel.constant(turn(stamp), Box.from_shape(mirrored.shape)))
    for got, want in ((here.image, there.image), (here.variance, there.variance)):
        np.testing.assert_allclose(got, turn(want), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(here.mask.array, turn(there.mask.array))


@given(seed=seeds)
@drawn
def test_mask_bits_only_grow(seed):
    random = np.random.default_rng(seed)
    e = scene(random)
    out = convolve(e, varying_kernel(random, Box.from_shape(SHAPE)))
    assert (out.mask.array & e.mask.array == e.mask.array).all()


@given(seed=seeds)
@drawn
def test_single_precision_is_double_precision_rounded(seed):
    random = np.random.default_rng(seed)
    e = scene(random)
    kernel = varying_kernel(random, Box.from_shape(SHAPE))
    single = convolve(e.replace(image=e.image.astype("f4"), variance=e.variance.astype("f4")), kernel)
    double = convolve(e, kernel)
    assert single.image.dtype == single.variance.dtype == np.float32
    np.testing.assert_allclose(single.image, double.image, rtol=0.0, atol=1e-6 * np.nanmax(np.abs(double.image)))
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-4)


@given(
    seed=seeds,
    image=st.sampled_from([">f4", "<f8", ">f8", "i2", "u1"]),
    layout=st.sampled_from(["fortran", "negative strides", "read-only", "every other pixel", "masked array"]),
)
@drawn
def test_how_an_array_lies_in_memory_does_not_matter(seed, image, layout):
    random = np.random.default_rng(seed)
    plain = random.integers(0, 100, SHAPE).astype(image)
    twice = np.zeros((2 * SHAPE[0], 2 * SHAPE[1]), image)
    twice[::2, ::2] = plain
    laid = {
        "fortran": np.asfortranarray(plain), "negative strides": plain[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": np.frombuffer(plain.tobytes(), image).reshape(SHAPE), "every other pixel": twice[::2, ::2],
        "masked array": np.ma.MaskedArray(plain, False),
    }[layout]  # fmt: skip
    kernel = varying_kernel(random, Box.from_shape(SHAPE))
    np.testing.assert_array_equal(convolve(Exposure(laid), kernel).image, convolve(Exposure(plain), kernel).image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 5e-324])
def test_one_strange_pixel_acts_inside_its_footprint_only(value):
    random = np.random.default_rng(5)
    e = scene(random)
    kernel = varying_kernel(random, Box.from_shape(SHAPE))
    image = e.image.copy()
    image[33, 50] = value
    clean, strange = convolve(e, kernel).image.copy(), convolve(e.replace(image=image), kernel).image.copy()
    for result in (clean, strange):
        result[33 - 3 : 33 + 4, 50 - 5 : 50 + 6] = 0.0
    np.testing.assert_allclose(strange, clean, rtol=0.0, atol=1e-12)


FRAME = Box.from_shape((132, 165), y0=-40, x0=1000)


def lopsided(fwhm, angle):
    """Two Moffat profiles beside each other, of no symmetry."""
    core = MoffatPSF(fwhm=fwhm, beta=3.2, ellipticity=0.12, angle=angle, size=31).stamps(x=0, y=0)[0]
    halo = MoffatPSF(fwhm=1.2 * fwhm, beta=3.0, size=31).stamps(x=0, y=0)[0]
    return 0.8 * core + 0.2 * np.roll(halo, (1, -1), (0, 1))


def drifting(x, y):
    return lopsided(2.9 + (x - FRAME.x0) / 500.0 + (y - FRAME.y0) / 800.0, 25.0 + y / 5.0)


def stars():
    """Three stars of a PSF that varies, with noise, flags and a variance that varies from pixel to pixel."""
    e = scene(np.random.default_rng(4), FRAME.shape, box=FRAME, psf=FunctionPSF(drifting, shape=(31, 31)))
    image = e.image.copy()
    for y, x, flux in ((50, 45, 3e3), (80, 110, 1e3), (62, 57, 700.0)):
        image[y - 15 : y + 16, x - 15 : x + 16] += flux * drifting(x + FRAME.x0, y + FRAME.y0)
    return e.replace(image=image)


@pytest.mark.parametrize("flip", TURNS)
@pytest.mark.parametrize(
    "solver",
    [FreeForm(), AlardLupton(order=2, cell_shape=(33, 55)), Fourier(size=21, cell_shape=(33, 55))],
    ids=lambda solver: type(solver).__name__,
)
def test_a_mirrored_exposure_is_matched_to_the_mirrored_target(solver, flip):
    """With cells of odd sides that fill the frame, so that they are mirrored too."""
    turn, e, target, turned, other = TURNS[flip], stars(), lopsided(4.6, 70.0), FRAME, solver
    if flip == "transpose":
        turned = Box(FRAME.x0, FRAME.y0, FRAME.x1, FRAME.y1)
        other = solver if isinstance(solver, FreeForm) else replace(solver, cell_shape=(55, 33))

    def seen(x, y):
        if flip == "transpose":
            x, y = y, x
        x = FRAME.x0 + FRAME.x1 - 1 - x if flip in ("x", "both") else x
        y = FRAME.y0 + FRAME.y1 - 1 - y if flip in ("y", "both") else y
        return turn(drifting(x, y))

    there = match(e, ImagePSF(target), solver=solver).exposure
    mirrored = Exposure(
        turn(e.image), variance=turn(e.variance), mask=Mask(turn(e.mask.array)), box=turned,
        psf=FunctionPSF(seen, shape=(31, 31)),
    )  # fmt: skip
    here = match(mirrored, ImagePSF(turn(target)), solver=other).exposure
    np.testing.assert_allclose(here.image, turn(there.image), rtol=0.0, atol=1e-7)
    np.testing.assert_allclose(here.variance, turn(there.variance), rtol=1e-4)  # FFT(variance_tolerance=5e-5)
    np.testing.assert_array_equal(here.mask.array, turn(there.mask.array))


def test_an_exposure_matched_in_two_half_steps_is_that_of_one():
    """The PSF of the middle is constant: the second step takes that of the first at its word."""
    solver, e = FreeForm(tolerance=1e-3), stars()
    last = MoffatPSF(fwhm=4.8, beta=3.6)
    half = match(e, MoffatPSF(fwhm=3.9, beta=3.4), solver=solver).exposure
    once = match(e, last, solver=solver).exposure
    with pytest.warns(psfmatch.PsfMatchWarning, match="the noise of this exposure is correlated by an earlier"):
        steps = match(half, last, solver=solver).exposure
    inner = np.s_[20:-20, 20:-20]
    assert np.abs(steps.image - once.image)[inner].max() < 2e-3 * once.image.max()
    assert np.abs(steps.image - half.image)[inner].max() > 0.1 * once.image.max()
    assert (steps.mask.array & e.mask.array == e.mask.array).all()


def test_single_precision_matches_as_double_does():
    e = stars()
    small = e.replace(image=e.image.astype("f4"), variance=e.variance.astype("f4"))
    single, double = (match(x, MoffatPSF(fwhm=4.6, beta=3.3)).exposure for x in (small, e))
    assert single.image.dtype == single.variance.dtype == np.float32
    np.testing.assert_allclose(single.image, double.image, rtol=0.0, atol=1e-6 * double.image.max())
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-4)
    np.testing.assert_array_equal(single.mask.array, double.mask.array)


def on_the_sky(shape):
    return Grid.centered(187.7, 12.39, shape=shape, pixel_scale=0.263, rotation=0.0).wcs


def test_single_precision_is_warped_as_double_is():
    grid = Grid.centered(187.7, 12.39, shape=(103, 121), pixel_scale=0.25, rotation=20.0)
    e = stars().replace(wcs=on_the_sky(FRAME.shape), box=Box.from_shape(FRAME.shape), psf=None)
    small = e.replace(image=e.image.astype("f4"), variance=e.variance.astype("f4"))
    single, double = warp(small, grid), warp(e, grid)
    assert single.image.dtype == single.variance.dtype == np.float32
    np.testing.assert_allclose(single.image, double.image, rtol=0.0, atol=1e-6 * np.nanmax(double.image))
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-5)
    np.testing.assert_array_equal(single.mask.array, double.mask.array)


@pytest.mark.parametrize("method", [Mean(), Median(), ClippedMean()], ids=lambda m: type(m).__name__)
def test_single_precision_is_combined_as_double_is(method):
    random = np.random.default_rng(7)
    images, variances = random.normal(0.0, 2.0, (5, *SHAPE)), random.uniform(3.0, 5.0, (5, *SHAPE))
    images[2, 30:33, 10:60] += 80.0  # a trail
    masks = np.stack([scene(random).mask.array for _ in images])
    single = combine(images.astype("f4"), variances.astype("f4"), masks, method=method)
    double = combine(images, variances, masks, method=method)
    assert single.image.dtype == single.variance.dtype == np.float32
    np.testing.assert_allclose(single.image, double.image, rtol=0.0, atol=2e-5)
    np.testing.assert_allclose(single.variance, double.variance, rtol=1e-5)
    for name in ("mask", "count", "clipped"):
        np.testing.assert_array_equal(getattr(single, name), getattr(double, name))


def test_the_flags_of_a_pixel_are_those_of_the_warped_one_at_its_place():
    """Turned by 20 degrees onto finer pixels: each has the flags of the nearest pixel of the exposure at least."""
    e = scene(np.random.default_rng(3), wcs=on_the_sky(SHAPE))
    grid = Grid.centered(187.7, 12.39, shape=(57, 49), pixel_scale=0.21, rotation=20.0)
    y, x = (g.ravel() for g in np.mgrid[:57, :49])
    px, py = e.wcs.world_to_pixel_values(*grid.wcs.pixel_to_world_values(x, y))
    nearest = e.mask.array[np.rint(py).astype(int), np.rint(px).astype(int)]
    out = warp(e, grid).mask.array.ravel()
    assert np.count_nonzero(nearest) > 20
    assert (out & nearest == nearest).all()


def test_no_flag_of_what_is_combined_is_lost():
    random = np.random.default_rng(5)
    masks = np.stack([scene(random).mask.array for _ in range(3)])
    out = combine(random.normal(size=(3, *SHAPE)), np.ones((3, *SHAPE)), masks, method=Mean(), reject=())
    np.testing.assert_array_equal(out.mask, masks[0] | masks[1] | masks[2])


SCIENCE = MoffatPSF(fwhm=3.1, beta=3.2, ellipticity=0.12, angle=25.0)


def test_two_half_steps_equal_the_whole():
    middle, last = MoffatPSF(fwhm=3.9, beta=3.4), MoffatPSF(fwhm=4.8, beta=3.6)
    solver = FreeForm(tolerance=2e-4, max_size=45)
    first, second, whole = (
        matching_kernel(a, b, solver=solver).kernel.stamps(x=0, y=0)[0]
        for a, b in ((SCIENCE, middle), (middle, last), (SCIENCE, last))
    )
    star = SCIENCE.stamps(x=0, y=0, shape=(151, 161))[0]
    steps = fftconvolve(fftconvolve(star, first, mode="same"), second, mode="same")
    once = fftconvolve(star, whole, mode="same")
    assert np.linalg.norm(steps - once) < 5e-4 * np.linalg.norm(once)


def test_the_kernel_of_a_known_convolution_is_found():
    """The target is the science PSF convolved with a lopsided image: that image is the kernel."""
    dy, dx = (grid.ravel() for grid in np.mgrid[-10:11, -10:11])
    known = 0.7 * GaussianPSF(fwhm=3.0).pixels(dx=dx - 1.3, dy=dy + 0.6) + 0.3 * GaussianPSF(fwhm=4.2).pixels(
        dx=dx + 2.1, dy=dy
    )
    known = known.reshape(21, 21)
    star = MoffatPSF(fwhm=2.6, beta=4.0).stamps(x=0, y=0, shape=(61, 61))[0]
    target = ImagePSF(fftconvolve(np.pad(star, 10), known, mode="same"))
    solver = FreeForm(tolerance=1e-5, wings="none", size=21)
    got = matching_kernel(ImagePSF(star), target, solver=solver).kernel.stamps(x=0, y=0)[0]
    assert np.abs(got - known).max() < 2e-3 * known.max()


def test_the_frame_of_coordinates_changes_nothing():
    """A frame whose PSF varies, here and at a large negative offset."""
    random = np.random.default_rng(2)
    image = random.normal(size=(151, 223))

    def matched(y0, x0):
        def stamp(x, y):
            return MoffatPSF(fwhm=3.0 + (x - x0) / 400.0, beta=3.0, size=31).stamps(x=0, y=0)[0]

        psf = FunctionPSF(stamp, shape=(31, 31))
        box = Box.from_shape(image.shape, y0=y0, x0=x0)
        return match(Exposure(image, box=box, psf=psf), MoffatPSF(fwhm=4.6, beta=3.3)).exposure.image

    np.testing.assert_allclose(matched(-7000, 12345), matched(0, 0), rtol=0.0, atol=1e-7)


def test_units_are_carried():
    e = Exposure(np.ones(SHAPE), variance=np.ones(SHAPE), unit="MJy/sr", psf=SCIENCE)
    assert convolve(e, varying_kernel(np.random.default_rng(1), e.box)).unit == "MJy/sr"
    assert psfmatch.match(e, MoffatPSF(fwhm=4.5, beta=3.0)).exposure.unit == "MJy/sr"


@pytest.mark.parametrize("convolver", [FFT(), FFT(block=64), Direct()], ids=["FFT", "small blocks", "Direct"])
def test_every_backend_conserves_a_flat_sky(convolver):
    """A kernel of the output pixel whose sum varies: the sky takes the sum at its place, up to the border."""
    random = np.random.default_rng(9)
    kernel = varying_kernel(random, Box.from_shape(SHAPE))
    out = convolve(Exposure(np.full(SHAPE, 7.0)), kernel, convolver=convolver).image
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    np.testing.assert_allclose(out, 7.0 * kernel.sums(x=x.ravel(), y=y.ravel()).reshape(SHAPE), rtol=1e-9)
