from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter
from scipy.signal import convolve2d

from psfmatch import (
    FFT,
    Box,
    Direct,
    Exposure,
    Field,
    InputError,
    Mask,
    MatchingKernel,
    Planes,
    PsfMatchWarning,
    Regions,
    RegionsKernel,
    convolve,
    convolve_many,
)
from psfmatch.convolve import job
from psfmatch.convolve.arrays import brightest_rows
from psfmatch.convolve.flags import dilated, rectangles
from psfmatch.convolve.job import Job, _median
from psfmatch.convolve.splines import _thinned
from psfmatch.exposure import MASK_PLANES
from psfmatch.fields import n_terms

BOX = Box.from_shape((131, 83), y0=-30, x0=500)
KY, KX = 7, 11


@pytest.fixture
def kernel():
    """Order 2, asymmetric, with negative pixels, of unit sum everywhere."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-3:4, -5:6]
    basis = 0.05 * rng.normal(size=(5, KY, KX))
    basis[0] = np.exp(-0.5 * ((y - 0.5) ** 2 + (x + 1) ** 2 / 3))
    basis[0] /= basis[0].sum()
    basis[1:] -= basis[1:].mean(axis=(1, 2), keepdims=True)
    coefficients = 0.3 * rng.normal(size=(5, 6))
    coefficients[0] = [1, 0, 0, 0, 0, 0]
    return MatchingKernel(basis, Field(coefficients, BOX))


def exposure(dtype=np.float64, seed=0, **changes):
    rng = np.random.default_rng(seed)
    image = rng.normal(3000.0, 30.0, BOX.shape).astype(dtype)
    variance = rng.uniform(800, 1000, BOX.shape).astype(dtype)
    flags = np.where(rng.uniform(size=BOX.shape) < 0.002, 1 << rng.integers(0, 13, BOX.shape), 0).astype(np.int32)
    flags &= ~(1 << MASK_PLANES["NO_DATA"])
    return Exposure(image, variance=variance, mask=Mask(flags), box=BOX, unit="adu", meta={"A": 1}).replace(**changes)


def test_direct_is_the_definition(kernel):
    """Three pixels by four nested sums, with the kernel of the output pixel."""
    e = exposure()
    out = convolve(e, kernel, convolver=Direct())
    for row, column in ((3, 5), (70, 40), (127, 77)):
        k = kernel.stamps(x=BOX.x0 + column, y=BOX.y0 + row)[0]
        value = noise = flags = 0
        for j in range(-3, 4):
            for i in range(-5, 6):
                weight = k[3 + j, 5 + i]
                value += weight * e.image[row - j, column - i]
                noise += weight**2 * e.variance[row - j, column - i]
                flags |= int(e.mask.array[row - j, column - i])
        assert out.image[row, column] == pytest.approx(value, rel=1e-12)
        assert out.variance[row, column] == pytest.approx(noise, rel=1e-12)
        assert out.mask.array[row, column] == flags


@pytest.mark.parametrize("convolver", [Direct(edge="nan"), FFT(edge="nan")], ids=["direct", "fft"])
def test_a_constant_kernel_is_a_true_convolution(convolver):
    image = np.random.default_rng(1).normal(size=(5, 9))
    e = exposure()
    out = convolve(e, MatchingKernel.constant(image, BOX), convolver=convolver)
    inner = np.s_[2:-2, 4:-4]
    np.testing.assert_allclose(out.image[inner], convolve2d(e.image, image, mode="valid"), rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(out.variance[inner], convolve2d(e.variance, image**2, mode="valid"), rtol=1e-11)


def dirty(dtype):
    e = exposure(dtype)
    image, variance, flags = (np.array(a) for a in (e.image, e.variance, e.mask.array))
    image[50, 60] = np.nan
    image[20:24, 30:37] = 1e30
    image[0, 3] = np.inf
    variance[100, 20] = np.inf
    variance[101, 40] = np.nan
    flags[77:90, 10:29] |= 1 << MASK_PLANES["NO_DATA"]
    return e.replace(image=image, variance=variance, mask=Mask(flags))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [None, 30, 45])
@pytest.mark.parametrize("options", [{}, {"edge": "nan", "exclude": ()}], ids=["renormalize", "nan"])
def test_fft_is_the_direct_sum(kernel, dtype, block, options):
    """With NaN, infinities, a garbage area of 1e30 and pixels without data, at the border and inside."""
    e = dirty(dtype)
    truth, fast = (convolve(e, kernel, convolver=c(**options)) for c in (Direct, lambda **o: FFT(block=block, **o)))
    rtol = 1e-6 if dtype is np.float32 else 1e-12
    assert fast.image.dtype == fast.variance.dtype == dtype
    np.testing.assert_array_equal(fast.mask.array, truth.mask.array)
    sane = ~(np.abs(truth.image) > 1e10)
    np.testing.assert_allclose(fast.image[sane], truth.image[sane], rtol=rtol)
    np.testing.assert_allclose(fast.variance, truth.variance, rtol=1e-4)


@pytest.mark.parametrize("block", [None, 45])
@pytest.mark.parametrize("one", [0, 1e9], ids=["rectangles", "transforms"])
@pytest.mark.parametrize("many", [False, True], ids=["convolve", "convolve_many"])
def test_bad_columns_rows_and_areas(kernel, block, one, many, monkeypatch):
    """Across blocks and at the border, with single pixels beside: as the direct sum, also where the kernel varies."""
    monkeypatch.setattr(job, "ONE", one)
    e = exposure()
    image = e.image.copy()
    image[5:, 37] = image[60, :70] = image[90:104, 50:59] = image[-3:, 60:] = image[44:46, 44:47] = np.nan
    image[20:120:50, 11:80:40] = np.nan
    e = e.replace(image=image)
    if many:
        kernel = MatchingKernel.constant(kernel.stamps(x=520, y=0)[0], BOX)
        fast = convolve_many([e, e], [kernel, kernel])[1]
    else:
        fast = convolve(e, kernel, convolver=FFT(block=block))
    truth = convolve(e, kernel, convolver=Direct())
    np.testing.assert_array_equal(fast.mask.array, truth.mask.array)
    np.testing.assert_allclose(fast.image, truth.image, rtol=1e-11)
    np.testing.assert_allclose(fast.variance, truth.variance, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.9, 1.0])
def test_rectangles_hold_what_is_set_once(share):
    flags = np.random.default_rng(21).uniform(size=(3, 17, 23)) < share
    flags[1, 2:9, 22] = flags[2, 4:8, 3:9] = share > 0.0
    count = np.zeros(flags.shape, int)
    for plane, y0, y1, x0, x1 in rectangles(flags):
        count[plane, y0:y1, x0:x1] += 1
    np.testing.assert_array_equal(count, flags)
    assert share != 1.0 or len(rectangles(flags)) == 3


@pytest.mark.parametrize(("kind", "terms"), [("chebyshev1", 10), ("spline", 25)])
def test_terms_are_left_out_as_far_as_the_tolerance_goes(kind, terms):
    """Anywhere, of splines in the mean.  The images are orthonormal, each a fifth of the one before in weight; single
    pixels show the kernel that was used."""
    rng = np.random.default_rng(11)
    basis = np.linalg.qr(rng.normal(size=(63, 8)))[0].T.reshape(8, 9, 7)
    coefficients = rng.normal(size=(8, terms)) * 0.2 ** np.arange(8)[:, None]
    coefficients[0] = 1.0 if kind == "spline" else np.eye(1, terms)
    kernel = MatchingKernel(basis, Field(coefficients, BOX, kind))
    image = np.zeros(BOX.shape)
    image[10:-10:11, 8:-8:9] = 1.0
    e = Exposure(image, box=BOX)
    truth = convolve(e, kernel, convolver=Direct(edge="nan")).image
    for tolerance in (1e-1, 1e-2, 1e-3):
        left = convolve(e, kernel, convolver=FFT(edge="nan", block=64, tolerance=tolerance)).image - truth
        errors = [
            np.linalg.norm(left[y - 4 : y + 5, x - 3 : x + 4]) / np.linalg.norm(truth[y - 4 : y + 5, x - 3 : x + 4])
            for y, x in np.argwhere(image)
        ]
        worst = np.sqrt(np.mean(np.square(errors))) if kind == "spline" else max(errors)
        assert 1e-3 * tolerance < worst <= tolerance


def test_planes_of_64_bit_get_terms_that_those_of_32_bit_would_round_away():
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(63, 4)))[0].T.reshape(4, 9, 7)
    coefficients = np.diag([1.0, 1e-3, 1e-8, 1e-11])[:, [0, 2, 3, 1]]
    kernel = MatchingKernel(basis, Field(np.pad(coefficients, ((0, 0), (0, 2))), BOX))
    e = exposure()
    truth, fast = (convolve(e, kernel, convolver=c(edge="nan")).image for c in (Direct, FFT))
    np.testing.assert_allclose(fast, truth, rtol=0, atol=3e-13 * np.nanmax(np.abs(truth)))


def test_a_block_without_a_floor_is_convolved_at_once():
    """Sources on nothing: what counts as faint is the middle of the pixels that are lit."""
    cut = np.zeros((2, 40, 50))
    cut[:, 10:15, 20:27] = np.arange(1.0, 36.0).reshape(5, 7)
    asked = []

    def convolved(part, batch, floor):
        asked.append(floor.ravel().tolist())
        return part

    job = SimpleNamespace(xp=np, support=np.ones((3, 3), bool))
    out = Job._convolved(job, SimpleNamespace(convolve=convolved), cut, None, np.array([0.0, 5.0]).reshape(2, 1, 1))
    assert asked == [[18.0, 5.0]]
    assert out is cut
    for present in (None, np.ones((2, 35), bool)):
        middle = _median(np.random.default_rng(1).permuted(np.arange(70.0).reshape(2, 35), axis=1), present)
        np.testing.assert_array_equal(middle.ravel(), [17.0, 52.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sources_on_nothing_are_as_true_as_on_a_sky(kernel, dtype):
    """A star of 1e9 beside faint ones, most of the block being zero: to 1e-6 of the brightest under the footprint."""
    image = np.zeros(BOX.shape, dtype)
    image[13::17, 7::19] = 1.0
    image[60, 40] = 1e9
    truth, fast = (convolve(Exposure(image, box=BOX), kernel, convolver=c).image for c in (Direct(), FFT()))
    brightest = maximum_filter(image, kernel.shape)
    lit = brightest > 0
    assert np.max(np.abs(fast - truth)[lit] / brightest[lit]) < 1e-6


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1.0, 1e25])
def test_no_norm_over_or_underflows(unit):
    images = np.random.default_rng(15).normal(size=(3, 5, 8))
    images[1] = 0.0
    wanted = unit * np.linalg.norm(images, axis=2).max(axis=1)
    np.testing.assert_allclose(brightest_rows(np, (unit * images).astype(np.float32)), wanted, rtol=1e-6)


def test_the_rows_of_a_bright_star_are_as_true_as_others():
    """What rounding does to a bright row in the transforms along it stays in it."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:391, :470]
    u = np.arange(-5, 6)
    seeing = np.exp(-(u[:, None] ** 2 + u**2) / 8.0)
    kernel = MatchingKernel.constant(seeing / seeing.sum(), Box.from_shape(y.shape))
    for peak in 10.0 ** np.arange(4.0, 6.5, 0.5):
        star = peak * np.exp(-((y - 195) ** 2 + (x - 240) ** 2) / 8.0)
        image = (rng.normal(1000.0, 30.0, y.shape) + star).astype(np.float32)
        single, double = (convolve(Exposure(image.astype(t)), kernel).image for t in (np.float32, np.float64))
        faint = convolve(Exposure(star), kernel).image < 1.0
        assert np.abs(single - double)[faint].max() < 1e-6 * 1000.0


@pytest.mark.parametrize(("dtype", "worst"), [(np.float32, 1e-6), (np.float64, 1e-8)])
@pytest.mark.parametrize("garbage", [1e6, 1e12, 1e30])
@pytest.mark.parametrize("many", [False, True], ids=["convolve", "convolve_many"])
def test_garbage_over_most_of_a_block_stays_in_its_footprint(dtype, worst, garbage, many):
    image = np.random.default_rng(0).normal(100.0, 10.0, (131, 200)).astype(dtype)
    spoilt = image.copy()
    spoilt[9:-9, 14:-14] = garbage
    kernel = MatchingKernel.constant(np.full((3, 5), 1.0 / 15.0), Box.from_shape(image.shape))

    def done(image):
        return convolve_many([Exposure(image)], [kernel])[0] if many else convolve(Exposure(image), kernel)

    change = np.abs(done(spoilt).image - done(image).image)
    change[8:-8, 12:-12] = 0.0
    assert change.max() < 100.0 * worst


@pytest.mark.parametrize("shape", [(3, 3), (3, 40), (4, 2), (1, 7)])
def test_the_smallest_cut_outs(shape):
    e = Exposure(np.random.default_rng(2).normal(100.0, 10.0, shape), variance=np.full(shape, 100.0))
    kernel = MatchingKernel.constant(np.full((min(shape[0], 3), 1), 0.3), e.box)
    (many,), truth = convolve_many([e], [kernel]), convolve(e, kernel, convolver=Direct())
    np.testing.assert_allclose(many.image, truth.image)
    np.testing.assert_allclose(many.variance, truth.variance, rtol=1e-4)


@pytest.mark.parametrize(("side", "shape", "order"), [(9, (11, 9), 6), (21, (23, 25), 6), (21, (42, 47), 6)])
def test_frames_hardly_larger_than_the_kernel_have_a_true_variance(side, shape, order):
    """Blocks reach beyond the frame, where polynomials of degree 12 are 1e10 times as large as on it."""
    rng, u = np.random.default_rng(0), np.arange(side) - side // 2
    shift = [(0.0, 0.0), (0.3, 0.0), (0.0, -0.2)]
    images = np.array([np.exp(-((u[:, None] - dy) ** 2 + (u - dx) ** 2) / (side / 5) ** 2) for dy, dx in shift])
    images /= images.sum(axis=(1, 2), keepdims=True)
    images[1:] -= images[0]
    coefficients = np.vstack([np.eye(1, n_terms(order)), 0.3 * rng.normal(size=(2, n_terms(order)))])
    e = Exposure(rng.normal(100.0, 10.0, shape), variance=np.full(shape, 100.0))
    kernel = MatchingKernel(images, Field(coefficients, e.box))
    fast, truth = (convolve(e, kernel, convolver=c()) for c in (FFT, Direct))
    np.testing.assert_allclose(fast.variance, truth.variance, rtol=1e-4)
    np.testing.assert_allclose(fast.image, truth.image, rtol=1e-11)


@pytest.mark.parametrize("kind", ["polynomial", "spline"])
def test_weights_of_any_kind(kind):
    """A disc-shaped support, and weights that are no Chebyshev polynomials."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-4:5, -3:4]
    basis = np.where(y**2 + 1.5 * x**2 <= 16, rng.normal(size=(3, 9, 7)), 0.0)
    coefficients = rng.normal(size=(3, 25 if kind == "spline" else 6)) + 4.0
    if kind == "polynomial":
        coefficients[:, 1:] *= 1e-4
    kernel = MatchingKernel(basis, Field(coefficients, BOX, kind))
    e = dirty(np.float64)
    truth, fast = (convolve(e, kernel, convolver=c) for c in (Direct(), FFT(block=30)))
    np.testing.assert_array_equal(fast.mask.array, truth.mask.array)
    sane = ~(np.abs(truth.image) > 1e10)
    error = np.abs(fast.image[sane] - truth.image[sane])
    assert np.nanmax(error) < 1e-11 * np.nanmax(np.abs(truth.image[sane]))


@pytest.mark.parametrize("count", [2, 23, 24, 97])
def test_a_block_of_a_spline_kernel_is_sampled_up_to_its_ends(count):
    positions = np.arange(500.0, 500.0 + count)
    some = _thinned(positions)
    assert (some[0], some[-1]) == (positions[0], positions[-1])
    assert np.diff(some).max() <= max(1, np.ceil(count / 23))


def saturated(dtype):
    """Faint sky without a level, galaxies, and stars a million times as bright as its noise."""
    rng = np.random.default_rng(6)
    image = rng.normal(0.0, 1.0, BOX.shape)
    image[60, 30:34] = image[20, 70] = 1e6
    image[100, 11], image[101, 60] = 3e4, -2e5
    return Exposure(image.astype(dtype), variance=np.ones(BOX.shape, dtype), box=BOX)


def assert_true_to_the_brightest_under_the_footprint(image, kernel, block=None):
    e = Exposure(image.astype(np.float32), box=BOX)
    truth = convolve(e.replace(image=e.image.astype(float)), kernel, convolver=Direct())
    error = np.abs(convolve(e, kernel, convolver=FFT(block=block)).image - truth.image)
    assert np.nanmax(error / maximum_filter(np.abs(e.image), kernel.shape)) < 1e-6


@pytest.mark.parametrize("unit", [1.0, 1e-29, 1e31])
@pytest.mark.parametrize("block", [None, 40])
def test_a_saturated_star_does_not_spoil_faint_sky(kernel, block, unit):
    """Single precision is true to 1e-6 of the brightest pixel under the footprint, however bright others are."""
    assert_true_to_the_brightest_under_the_footprint(unit * saturated(float).image, kernel, block)


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_nor_with_weights_that_are_splines(unit):
    """Of a kernel of unit sum, and of one that changes the unit."""
    rng = np.random.default_rng(10)
    y, x = np.mgrid[-4:5, -3:4]
    star = np.exp(-0.5 * (y**2 + x**2 / 2))
    coefficients = np.vstack([np.ones(25), rng.normal(size=(2, 25))])
    basis = np.stack([star, 0.2 * y * star, 0.2 * x * star]) / star.sum()
    kernel = MatchingKernel(unit * basis, Field(coefficients, BOX, "spline"))
    e = saturated(np.float32)
    truth = convolve(e.replace(image=e.image.astype(float)), kernel, convolver=Direct())
    error = np.abs(convolve(e, kernel, convolver=FFT(block=40)).image - truth.image)
    assert np.nanmax(error / maximum_filter(np.abs(e.image), kernel.shape)) < 1e-6 * unit


@pytest.mark.parametrize("shape", ["mean", "difference"])
def test_the_rounding_is_that_of_what_the_kernel_makes_of_the_sky(shape):
    """A kernel of sum 1e-4, and one of none: errors are small against the convolved sky, not against the sky."""
    y, x = np.mgrid[-4:5, -3:4]
    star = 1e-4 * np.exp(-0.5 * (y**2 + x**2 / 2))
    kernel = MatchingKernel.constant(star if shape == "mean" else x * star, BOX)
    image = saturated(float).image.astype(np.float32)
    truth = convolve(Exposure(image.astype(float), box=BOX), kernel, convolver=Direct()).image
    brightest = maximum_filter(np.abs(image), kernel.shape) * np.sqrt((kernel.basis**2).sum())
    for done in (
        convolve(Exposure(image, box=BOX), kernel, convolver=FFT(block=40)),
        convolve_many([Exposure(image, box=BOX)], [kernel])[0],
    ):
        assert np.nanmax(np.abs(done.image - truth) / brightest) < 1e-6


@pytest.mark.parametrize("lit", [1e5, np.geomspace(1e6, 1e-1, BOX.shape[1])], ids=["step", "slope"])
def test_a_dark_part_of_a_block_is_as_true_as_a_bright_one(kernel, lit):
    """Half a chip without light, the wing of a galaxy: whichever is the level, the rest is not rounded to it."""
    image = np.random.default_rng(7).normal(0.0, 1.0, BOX.shape) * (1.0 if np.isscalar(lit) else 0.1 * lit)
    image[:, :50] += np.broadcast_to(lit, BOX.shape[1])[:50]
    assert_true_to_the_brightest_under_the_footprint(image, kernel)


def test_rounding_errors_of_wide_kernels_and_small_terms():
    """Stars of 1e8 above a sky of 3000: terms in single precision are counted together, by their Fourier amplitudes."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-10:11, -8:9]
    basis = np.stack([np.exp(-((y - dy) ** 2 + (x - dx) ** 2 / 2) / 8) for dy, dx in rng.normal(0, 1, (5, 2))])
    basis /= basis.sum(axis=(1, 2), keepdims=True)
    basis[1:] -= basis[0]
    coefficients = 0.01 * rng.normal(size=(5, 15))
    coefficients[0] = np.eye(15)[0]
    image = rng.normal(3000.0, 1.0, BOX.shape)
    row, column = np.mgrid[: BOX.shape[0], : BOX.shape[1]]
    for y0, x0 in rng.uniform(0, 1, (6, 2)) * BOX.shape:
        image += 10 ** rng.uniform(7, 8) * np.exp(-((row - y0) ** 2 + (column - x0) ** 2) / 8)
    assert_true_to_the_brightest_under_the_footprint(image, MatchingKernel(basis, Field(coefficients, BOX)))


def test_values_near_the_largest_of_their_type(kernel):
    size = np.random.default_rng(3).uniform(0.5e37, 1e37, BOX.shape).astype(np.float32)
    e = Exposure(size, variance=size, box=BOX)
    out, truth = (convolve(e, kernel, convolver=c) for c in (FFT(), Direct()))
    np.testing.assert_allclose(out.image, truth.image, rtol=1e-6)
    np.testing.assert_allclose(out.variance, truth.variance, rtol=1e-4)


def test_next_to_a_huge_variance_none_is_zero():
    """A variance of zero would have all the weight."""
    y, x = np.mgrid[-3:4, -5:6]
    star = np.exp(-0.5 * ((y - 0.5) ** 2 + (x + 1) ** 2 / 3))
    weights = np.vstack([np.eye(6)[:1], np.random.default_rng(2).normal(size=(2, 6))])
    kernel = MatchingKernel(np.stack([star / star.sum(), 0.1 * y * star, 0.1 * x * star]), Field(weights, BOX))
    variance = np.ones(BOX.shape, np.float32)
    variance[40:50, 20:50] = 1e30
    assert convolve(Exposure(variance, variance=variance, box=BOX), kernel, convolver=FFT(block=48)).variance.min() > 0


def test_written_into_given_arrays(kernel, tmp_path):
    """Memory maps of either byte order get the same bits as new arrays."""
    e = dirty(np.float32)
    swapped = [np.asarray(a, a.dtype.newbyteorder()) for a in (e.image, e.variance, e.mask.array)]
    out = Planes(*(np.memmap(tmp_path / f"{k}", a.dtype, "w+", shape=a.shape) for k, a in enumerate(swapped)))
    whole = convolve(e, kernel)
    mapped = convolve(e, kernel, convolver=FFT(out=out))
    for a, b, c in zip(
        out, (whole.image, whole.variance, whole.mask.array), ("image", "variance", "mask"), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=c)
    np.testing.assert_array_equal(mapped.image, whole.image)


def test_given_arrays_of_another_shape_are_refused(kernel):
    e = exposure()
    with pytest.raises(InputError, match="variance must be"):
        convolve(e, kernel, convolver=FFT(out=Planes(np.empty(BOX.shape), None, np.empty(BOX.shape, np.int32))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"edge": "nan", "exclude": ()}, {"block": 30}], ids=["whole", "nan", "blocks"])
def test_pytorch_gives_the_same(kernel, dtype, options):
    pytest.importorskip("torch")
    e = dirty(dtype)
    here, there = (
        convolve(e, kernel, convolver=FFT(**options)),
        convolve(e, kernel, convolver=FFT(device="cpu", **options)),
    )
    assert there.image.dtype == dtype
    np.testing.assert_array_equal(there.mask.array, here.mask.array)
    sane = ~(np.abs(here.image) > 1e10)
    np.testing.assert_allclose(there.image[sane], here.image[sane], rtol=1e-6 if dtype is np.float32 else 1e-13)
    np.testing.assert_allclose(there.variance, here.variance, rtol=1e-4)


def test_a_device_that_is_not_there_is_named(kernel):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="device='cuda'"):
        convolve(exposure(), kernel, convolver=FFT(device="cuda"))


def test_many_cut_outs_as_one_by_one(kernel):
    """Three shapes and types, borders, NaN, a saturated star, a garbage area, planes on other bits, one that varies."""
    rng = np.random.default_rng(12)
    exposures, kernels = [], []
    for n in range(23):
        e = (dirty, saturated)[n % 2]((np.float32, np.float64)[n % 3 == 0])
        box = Box(BOX.y0 + n, BOX.x0, BOX.y0 + n + 60, BOX.x0 + (50 if n % 4 else 61))
        planes = {"NO_DATA": 0, "BAD": 8} if n == 5 else MASK_PLANES
        e = e.cutout(box)
        exposures.append(e.replace(mask=Mask(e.mask.array, planes), variance=None if n == 7 else e.variance))
        kernels.append(kernel if n == 9 else MatchingKernel.constant(0.02 + 0.05 * rng.uniform(size=(KY, KX)), BOX))
    for e, k, out in zip(exposures, kernels, convolve_many(exposures, kernels), strict=True):
        alone = convolve(e, k)
        np.testing.assert_array_equal(out.mask.array, alone.mask.array)
        assert out.mask.planes == alone.mask.planes
        assert out.image.dtype == e.image.dtype
        sane = ~(np.abs(alone.image) > 1e10)
        scale = maximum_filter(np.nan_to_num(np.abs(alone.image)), (KY, KX))[sane]
        difference = np.nan_to_num(np.abs(out.image - alone.image)[sane])
        assert np.max(difference / scale) < (2e-6 if e.image.dtype == np.float32 else 1e-11)
        if e.variance is not None:
            np.testing.assert_allclose(out.variance, alone.variance, rtol=2e-5)


@pytest.mark.parametrize("stars", [0, 3, 400])
def test_cut_outs_with_bright_stars_keep_their_faint_sky(stars):
    """None, a few, and many bright pixels in planes of single precision; wrong by less than 1e-6 of what is around."""
    rng = np.random.default_rng(15)
    image = rng.normal(0.0, 10.0, (3, 97, 81))
    image.reshape(3, -1)[:, rng.permutation(97 * 81)[:stars]] += 10 ** rng.uniform(4.5, 5.5, (3, stars))
    image[1] = np.abs(image[1] / 10.0)
    exposures = [Exposure(one.astype(np.float32), variance=100.0 + abs(one).astype(np.float32)) for one in image]
    kernel = MatchingKernel.constant(0.02 + 0.05 * rng.uniform(size=(KY, KX)), Box.from_shape((97, 81)))
    for e, fast in zip(exposures, convolve_many(exposures, [kernel] * 3), strict=True):
        truth = convolve(e.replace(image=e.image.astype(float)), kernel, convolver=Direct())
        peak = maximum_filter(abs(truth.image), (2 * KY, 2 * KX))
        assert np.max(abs(fast.image - truth.image) / peak) < 1e-6
        np.testing.assert_allclose(fast.variance, truth.variance, rtol=5e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cut_out_does_not_depend_on_those_beside_it(kernel, dtype):
    """To the last bit, whatever they hold: holes, a garbage area, one pixel of 1e30, bright stars."""
    rng = np.random.default_rng(16)
    images = rng.normal(100.0, 10.0, (7, 60, 51)).astype(dtype)
    images[1, :, 20] = images[2, rng.uniform(size=(60, 51)) < 0.05] = np.nan
    images[3, 5, 5] = images[4, 20:30, 20:35] = 1e30
    images[5, 7:40:9, 11] = 1e6
    exposures = [Exposure(image, variance=np.full((60, 51), 100.0, dtype)) for image in images]
    constant = MatchingKernel.constant(kernel.stamps(x=520, y=0)[0], BOX)
    together = convolve_many(exposures * 5, [constant] * 35)
    for k, e in enumerate(exposures):
        (alone,) = convolve_many([e], [constant])
        for out in together[k::7]:
            for name in ("image", "variance"):
                np.testing.assert_array_equal(getattr(out, name), getattr(alone, name))
            np.testing.assert_array_equal(out.mask.array, alone.mask.array)


def test_the_largest_numbers_of_single_precision_stay_finite(kernel):
    """A cut-out of 1e36 with a pixel of 2e38, whose transform overflows."""
    image = np.random.default_rng(17).normal(0.0, 1e36, (97, 81)).astype(np.float32)
    image[40, 30] = 2e38
    constant = MatchingKernel.constant(kernel.stamps(x=520, y=0)[0], BOX)
    (out,) = convolve_many([Exposure(image)], [constant])
    assert np.isfinite(out.image[3:-3, 5:-5]).all()


def test_a_kernel_of_zeros_is_refused():
    with pytest.raises(InputError, match="every pixel of the kernel is zero"):
        convolve(exposure(), MatchingKernel.constant(np.zeros((KY, KX)), BOX))


def test_more_cut_outs_than_are_stacked_at_a_time():
    rng = np.random.default_rng(13)
    exposures = [dirty(np.float64).cutout(Box(BOX.y0, BOX.x0 + n, BOX.y0 + 31, BOX.x0 + n + 39)) for n in range(35)]
    kernels = [MatchingKernel.constant(0.02 + 0.05 * rng.uniform(size=(KY, KX)), BOX) for _ in exposures]
    for e, k, out in zip(exposures, kernels, convolve_many(exposures, kernels), strict=True):
        alone = convolve(e, k)
        sane = ~(np.abs(alone.image) > 1e10)
        np.testing.assert_allclose(out.image[sane], alone.image[sane], rtol=1e-10)
        np.testing.assert_allclose(out.variance, alone.variance, rtol=2e-5)


def test_many_need_one_kernel_each(kernel):
    with pytest.raises(InputError, match="1 exposures and 2 kernels"):
        convolve_many([exposure()], [kernel, kernel])


def test_blocks_are_by_themselves_large_enough_for_a_large_kernel():
    image, weights = np.random.default_rng(14).normal(size=(301, 367)), np.zeros((171, 285))
    weights[0, 3], weights[170, 284], weights[80, 90] = 1.0, -2.0, 3.0
    out = convolve(Exposure(image), MatchingKernel.constant(weights, BOX), convolver=FFT(edge="nan")).image
    wanted = image[170:, 281:-3] - 2.0 * image[:-170, :-284] + 3.0 * image[90:-80, 194:-90]
    np.testing.assert_allclose(out[85:-85, 142:-142], wanted, atol=1e-11)


def test_an_image_of_the_kernels_size_has_one_whole_pixel():
    image, weights = np.random.default_rng(9).normal(size=(2, KY, KX))
    kernel = MatchingKernel.constant(weights, BOX)
    for convolver in (Direct(edge="nan"), FFT(edge="nan")):
        out = convolve(Exposure(image), kernel, convolver=convolver).image
        assert np.argwhere(np.isfinite(out)).tolist() == [[KY // 2, KX // 2]]
        assert out[KY // 2, KX // 2] == pytest.approx((image * weights[::-1, ::-1]).sum())
    for smaller in (image[1:], image[:, 1:]):
        with pytest.raises(InputError, match="smaller than the kernel"):
            convolve(Exposure(smaller), kernel)
        with pytest.raises(InputError, match="smaller than the kernel"):
            convolve_many([Exposure(image), Exposure(smaller)], [kernel, kernel])


def test_each_region_has_borders_of_its_own_and_brings_the_planes_to_say_so(kernel):
    column = np.arange(BOX.shape[1]) + np.zeros((BOX.shape[0], 1))
    regions = Regions(np.where(column < 40, 1, 2).astype(np.int16), BOX)
    mask = Mask(np.zeros(BOX.shape, np.int32), {"BAD": 4})
    out = convolve(Exposure(np.ones(BOX.shape), mask=mask, box=BOX), RegionsKernel(regions, {1: kernel, 2: kernel}))
    border = np.ones(BOX.shape, bool)
    border[3:-3, 5:35] = border[3:-3, 45:-5] = False
    assert (out.mask.any_of("EDGE") == border).all()
    assert set(out.mask.planes) == {"BAD", "EDGE", "INTRP", "NO_DATA"}


@pytest.mark.parametrize("convolver", [Direct, FFT])
def test_regions_are_put_together_in_given_arrays_where_there_are_any(kernel, convolver):
    column = np.arange(BOX.shape[1]) + np.zeros((BOX.shape[0], 1))
    regions = Regions(np.where(column < 40, 1, 2).astype(np.int16), BOX)
    e, both = exposure(np.float32), RegionsKernel(regions, {1: kernel, 2: kernel})
    truth = convolve(e, both, convolver=convolver())
    if convolver is FFT:
        out = Planes(np.zeros_like(e.image), np.zeros_like(e.variance), np.zeros_like(e.mask.array))
        done = convolve(e, both, convolver=FFT(out=out))
        np.testing.assert_array_equal(out.image, truth.image)
        np.testing.assert_array_equal(out.mask, done.mask.array)
    np.testing.assert_array_equal(truth.mask.any_of("EDGE")[10:-10, 35:45], True)


def test_bad_values_stay_inside_their_footprint(kernel):
    e = exposure(np.float32)
    clean = convolve(e, kernel)
    for value in (np.nan, np.inf, 3e38, -1e20):
        image = np.array(e.image)
        image[60, 40] = value
        out = convolve(e.replace(image=image), kernel)
        touched = np.zeros(BOX.shape, bool)
        touched[60 - 3 : 60 + 4, 40 - 5 : 40 + 6] = True
        noise = np.sqrt(clean.variance[~touched])
        difference = np.abs(out.image - clean.image)[~touched]
        assert np.max(difference / noise) < 3e-4
        assert (out.mask.array[~touched] == clean.mask.array[~touched]).all()


def test_with_nan_edges_each_plane_is_for_itself(kernel):
    e = exposure()
    image, variance = np.array(e.image), np.array(e.variance)
    image[60, 40], variance[90, 30] = np.nan, np.inf
    out = convolve(e.replace(image=image, variance=variance), kernel, convolver=FFT(edge="nan", exclude=()))
    assert np.isnan(out.image[60, 40])
    assert np.isfinite(out.variance[60, 40])
    assert np.isfinite(out.image[90, 30])
    assert not np.isfinite(out.variance[90, 30])


def test_a_flat_image_stays_flat_up_to_its_edge_and_says_so(kernel):
    image = np.full(BOX.shape, 7.0)
    image[40, 33] = np.nan
    out = convolve(Exposure(image, variance=np.ones(BOX.shape), box=BOX), kernel)
    np.testing.assert_allclose(out.image[np.isfinite(out.image)], 7.0, rtol=1e-12)
    assert np.isfinite(out.image).mean() > 0.995
    border = np.ones(BOX.shape, bool)
    border[3:-3, 5:-5] = False
    assert (out.mask.any_of("EDGE") == border).all()
    hole = np.zeros(BOX.shape, bool)
    hole[37:44, 28:39] = True
    assert (out.mask.any_of("INTRP") == hole).all()
    assert (out.mask.any_of("NO_DATA") == np.isnan(out.image)).all()
    assert (np.isinf(out.variance) == np.isnan(out.image)).all()


def test_nothing_is_invented_in_the_middle_of_a_hole(kernel):
    image = np.full(BOX.shape, 7.0)
    image[30:60, 20:60] = np.nan
    out = convolve(Exposure(image, box=BOX), kernel)
    assert np.isnan(out.image[40:50, 30:50]).all()
    assert out.mask.any_of("NO_DATA")[40:50, 30:50].all()


def test_renormalised_noise_against_repeated_draws(kernel):
    rng = np.random.default_rng(8)
    variance = rng.uniform(0.5, 2.0, BOX.shape)
    draws = []
    for _ in range(300):
        image = rng.normal(0.0, np.sqrt(variance))
        image[50:53, 40] = np.nan
        draws.append(convolve(Exposure(image, variance=variance, box=BOX), kernel, convolver=FFT(threads=1)))
    scatter = np.nanvar([d.image for d in draws], axis=0)
    ratio = scatter[np.isfinite(draws[0].variance)] / draws[0].variance[np.isfinite(draws[0].variance)]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.01)
    edge = draws[0].mask.any_of("EDGE", "INTRP") & np.isfinite(draws[0].variance)
    assert np.mean(scatter[edge] / draws[0].variance[edge]) == pytest.approx(1.0, abs=0.02)


def test_parent_frame_offset_changes_nothing(kernel):
    e = exposure()
    cut = Box(BOX.y0 + 20, BOX.x0 + 10, BOX.y1 - 30, BOX.x1 - 15)
    whole, part = convolve(e, kernel), convolve(e.cutout(cut), kernel)
    inner = cut.grown(-3, -5)
    for name in ("image", "variance"):
        a, b = getattr(whole, name)[inner.slices(BOX)], getattr(part, name)[inner.slices(cut)]
        np.testing.assert_allclose(b, a, rtol=1e-12)
    assert part.box == cut


def test_transposing_everything_transposes_the_result(kernel):
    e = exposure()
    swapped = [0, 2, 1, 5, 4, 3]
    turned = MatchingKernel(
        kernel.basis.transpose(0, 2, 1),
        Field(kernel.weights.coefficients[:, swapped], Box(BOX.x0, BOX.y0, BOX.x1, BOX.y1)),
    )
    et = Exposure(e.image.T, variance=e.variance.T, mask=Mask(e.mask.array.T), box=turned.box)
    a, b = convolve(e, kernel), convolve(et, turned)
    np.testing.assert_allclose(b.image.T, a.image, rtol=1e-12)
    np.testing.assert_allclose(b.variance.T, a.variance, rtol=1e-4)
    np.testing.assert_array_equal(b.mask.array.T, a.mask.array)


def test_kernels_with_empty_pixels_spread_masks_over_their_support_only():
    image = np.zeros((5, 7))
    image[0, 3], image[3, 6] = 0.5, 0.5
    flags = np.zeros(BOX.shape, np.int32)
    flags[60, 40] = 2
    e = Exposure(np.ones(BOX.shape), mask=Mask(flags), box=BOX)
    for convolver in (Direct(), FFT()):
        out = convolve(e, MatchingKernel.constant(image, BOX), convolver=convolver)
        assert np.argwhere(out.mask.array & 2).tolist() == [[58, 40], [61, 43]]


@pytest.mark.parametrize("support", [np.ones((3, 5), bool), np.tri(3, 5, 1, dtype=bool)], ids=["rectangle", "triangle"])
def test_where_all_pixels_have_a_flag_all_keep_it(support):
    flags = np.ones((2, 9, 14), np.int32)
    np.testing.assert_array_equal(dilated(flags, support), np.ones((2, 7, 10), np.int32))
    flags[1, 4, 6] = 6
    np.testing.assert_array_equal(dilated(flags, support) & 1, np.ones((2, 7, 10), np.int32))


def test_what_the_exposure_carries_is_kept_and_the_input_untouched(kernel):
    e = exposure()
    before = e.image.copy(), e.variance.copy(), e.mask.array.copy()
    out = convolve(e, kernel)
    assert out.history.steps[-1].name == "convolve"
    assert (out.box, out.unit, out.meta) == (e.box, e.unit, e.meta)
    for a, b in zip(before, (e.image, e.variance, e.mask.array), strict=True):
        np.testing.assert_array_equal(a, b)
    assert convolve(e.replace(variance=None), kernel).variance is None


@pytest.mark.parametrize(("rows", "columns"), [(slice(2, 6), slice(0, 4)), (slice(6, 7), slice(9, 10))])
def test_the_edge_is_where_pixels_of_the_kernel_that_count_hang_over(rows, columns):
    """Kernels that lie on one side of their middle; in blocks, and as cut-outs."""
    image = np.zeros((KY, KX))
    image[rows, columns] = 1.0
    one = MatchingKernel.constant(image / image.sum(), BOX)
    e = exposure(np.float32)
    want = convolve(e, one, convolver=Direct())
    for got in (convolve(e, one), convolve_many([e, e], [one, one])[1]):
        np.testing.assert_array_equal(got.mask.array, want.mask.array)
        np.testing.assert_allclose(got.image, want.image, rtol=1e-6)
        np.testing.assert_allclose(got.variance, want.variance, rtol=1e-4)


def test_one_thread_and_many_give_the_same_bits(kernel):
    e = dirty(np.float32)
    one, many = (convolve(e, kernel, convolver=FFT(threads=n, block=30)) for n in (1, 8))
    for name in ("image", "variance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


@pytest.mark.parametrize(
    ("shape", "convolver", "sentence"),
    [
        ((1, 1), None, "smaller than the kernel"),
        ((6, 90), Direct(), "smaller than the kernel"),
        ((90, 80), FFT(block=21), "larger block"),
    ],
)
def test_sizes_that_cannot_work_are_refused(kernel, shape, convolver, sentence):
    with pytest.raises(InputError, match=sentence):
        convolve(Exposure(np.ones(shape), box=Box.from_shape(shape, y0=-30, x0=500)), kernel, convolver=convolver)


@pytest.mark.parametrize("terms", [3, 6])
def test_a_varying_kernel_outside_its_box_is_said(kernel, terms):
    varying = MatchingKernel(kernel.basis, Field(kernel.weights.coefficients[:, :terms], BOX))
    with pytest.warns(PsfMatchWarning, match="extrapolated"):
        convolve(Exposure(np.ones(BOX.shape), box=Box.from_shape(BOX.shape)), varying)


@pytest.mark.parametrize("options", [{"edge": "zero"}, {"threads": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match="FFT"):
        FFT(**options)
