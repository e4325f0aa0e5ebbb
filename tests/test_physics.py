"""What must hold whatever the numbers are: properties of a convolution and of a match, over drawn cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

import psfmatch
from psfmatch import (
    FFT,
    Box,
    Direct,
    Exposure,
    Field,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    Mask,
    MatchingKernel,
    MoffatPSF,
    convolve,
    match,
    matching_kernel,
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


@given(seed=seeds, flip=st.sampled_from(["x", "y", "both", "transpose"]))
@drawn
def test_a_mirrored_scene_gives_the_mirrored_result(seed, flip):
    random = np.random.default_rng(seed)
    turn = {
        "x": lambda a: a[..., ::-1], "y": lambda a: a[..., ::-1, :], "both": lambda a: a[..., ::-1, ::-1],
        "transpose": lambda a: np.swapaxes(a, -1, -2),
    }[flip]  # fmt: skip
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
