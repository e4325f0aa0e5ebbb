"""Arrays as others hold them: of any shape, type, byte order and layout, with any values in them."""

import tempfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from psfmatch import (
    AlardLupton,
    BasisPSF,
    Box,
    ClippedMean,
    Exposure,
    Field,
    Grid,
    GridPSF,
    ImagePSF,
    Mask,
    MatchingKernel,
    Mean,
    Median,
    MoffatPSF,
    Stamp,
    combine,
    convolve,
    match,
    matching_kernel,
    warp,
)

drawn = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def every_other(array):
    part = np.zeros([2 * n for n in array.shape], array.dtype)[(np.s_[1::2],) * array.ndim]
    part[...] = array
    return part


def backwards(array):
    turn = (np.s_[::-1],) * array.ndim
    return array[turn].copy()[turn]


def unaligned(array):
    """Read-only as well."""
    return np.frombuffer(b"." + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


def on_disk(array):
    """A part of the columns of a memory map."""
    with tempfile.TemporaryFile() as file:
        laid = np.memmap(file, array.dtype, "w+", shape=(*array.shape[:-1], array.shape[-1] + 3))
    laid[..., 3:] = array
    return laid[..., 3:]


LAYOUTS = [
    np.ascontiguousarray, np.asfortranarray, backwards, every_other, unaligned, on_disk,
    lambda array: np.ma.MaskedArray(array, False),
]  # fmt: skip
REALS = ["<f4", ">f4", "<f8", ">f8", "f2", "g", "i2", ">u2", "u1", ">i4", "<i8", "?"]
FLAGS = ["u1", "i2", ">i2", ">u4", "<i8", ">u8"]
STRANGE = [np.nan, np.inf, -np.inf, 1e30, -1e30, 5e-324, -1e-310]
layouts, reals, integers = st.sampled_from(LAYOUTS), st.sampled_from(REALS), st.sampled_from(FLAGS)
strange = st.lists(st.sampled_from(STRANGE), min_size=1)
seeds = st.integers(0, 2**32 - 1)


def some(random, shape, dtype, values):
    """Positive numbers, exact in any of the types; every hundredth pixel is one of ``values``, in floats."""
    plane = random.integers(1, 100, shape).astype(dtype)
    strange = (random.random(shape) < 0.01) & (plane.dtype.kind == "f")
    with np.errstate(over="ignore"):
        plane[strange] = random.choice(values, np.count_nonzero(strange))
    return plane


@st.composite
def planes(draw, least=1):
    """Image, variance and mask, and the same as others hold them, in a frame of any origin."""
    shape = draw(st.integers(least, 47)), draw(st.integers(least, 67))
    random = np.random.default_rng(draw(seeds))
    image = some(random, shape, draw(reals), draw(strange))
    variance = some(random, shape, draw(reals), [np.nan, np.inf, 0.0, 1e30, 5e-324])
    flags = np.where(random.random(shape) < 0.03, 1 << random.integers(0, 7, shape), 0).astype(draw(integers))
    plain = image, variance, flags
    box = Box.from_shape(shape, y0=draw(st.integers(-(10**6), 99)), x0=draw(st.integers(-99, 10**6)))
    return plain, [draw(layouts)(plane) for plane in plain], box


def exposures(drawn_planes, **extra):
    """The exposure of each; the plain ones in the machine's byte order."""
    plain, laid, box = drawn_planes
    plain = [plane.astype(plane.dtype.newbyteorder("=")) for plane in plain]
    return [Exposure(i, variance=v, mask=Mask(m), box=box, **extra) for i, v, m in (plain, laid)]


def same(one, other):
    """Exposures, or what is made of a stack, to the last bit; of other byte order where they are memory maps."""
    for name in ("image", "variance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(*(np.asarray(getattr(e.mask, "array", e.mask)) for e in (one, other)))


def rough_kernel(random, box):
    basis = np.stack([random.uniform(0.5, 1.5, (5, 9)), *random.normal(size=(2, 5, 9))]) / 45.0
    return MatchingKernel(basis, Field(random.normal(scale=0.1, size=(3, 3)) + np.eye(3), box))


@given(drawn_planes=planes())
@drawn
def test_an_exposure_has_the_numbers_that_it_was_given(drawn_planes):
    plain, laid, box = drawn_planes
    open_before = [array.flags.writeable for array in laid]
    e = Exposure(laid[0], variance=laid[1], mask=laid[2], box=box)
    for got, given_ in zip((e.image, e.variance, e.mask.array), plain, strict=True):
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got, given_.astype(got.dtype))
        assert got.dtype.itemsize >= given_.dtype.itemsize or given_.dtype == np.longdouble
        assert not got.flags.writeable
    assert [array.flags.writeable for array in laid] == open_before


@given(drawn_planes=planes(least=9), seed=seeds)
@drawn
def test_convolved(drawn_planes, seed):
    kernel = rough_kernel(np.random.default_rng(seed), drawn_planes[2])
    same(*(convolve(e, kernel) for e in exposures(drawn_planes)))


SCIENCE, TARGET = MoffatPSF(fwhm=2.4, beta=3.0, size=15), MoffatPSF(fwhm=3.6, beta=3.3, size=15)
SOLVER = AlardLupton(size=11, order=0, scale_by_fwhm=False)


@given(drawn_planes=planes(least=23))
@drawn
def test_matched(drawn_planes):
    same(*(match(e, TARGET, solver=SOLVER).exposure for e in exposures(drawn_planes, psf=SCIENCE)))


@given(drawn_planes=planes(least=2), rotation=st.floats(0.0, 360.0))
@drawn
def test_warped(drawn_planes, rotation):
    wcs = Grid.centered(187.7, 12.39, shape=drawn_planes[2].shape, pixel_scale=0.263, rotation=0.0).wcs
    grid = Grid.centered(187.7, 12.39, shape=(31, 43), pixel_scale=0.31, rotation=rotation)
    same(*(warp(e, grid) for e in exposures(drawn_planes, wcs=wcs)))


@given(dtypes=st.tuples(reals, reals, integers), laid=st.tuples(layouts, layouts, layouts), values=strange, seed=seeds,
       n=st.integers(1, 5), method=st.sampled_from([Mean(), Median(), ClippedMean()]))  # fmt: skip
@drawn
def test_combined(dtypes, laid, values, seed, n, method):
    random = np.random.default_rng(seed)
    shape = n, *random.integers(1, 40, 2)
    stacks = [some(random, shape, dtypes[0], values), some(random, shape, dtypes[1], [np.nan, np.inf, 0.0, 1e30])]
    stacks.append((random.integers(0, 4, shape) << 4).astype(dtypes[2]))
    native = [stack.astype(stack.dtype.newbyteorder("=")) for stack in stacks]
    same(*(combine(*s, method=method) for s in (native, [lay(s) for lay, s in zip(laid, stacks, strict=True)])))


@given(dtype=st.sampled_from(REALS[:-1]), lay=layouts, seed=seeds)
@settings(drawn, max_examples=20)
def test_stamps_and_kernels(dtype, lay, seed):
    """Whatever takes pixels of PSFs or kernels gives the stamps that plain ones give."""
    star = np.rint(99.0 * TARGET.stamps(x=0, y=0, shape=(13, 17))[0] / TARGET.stamps(x=0, y=0)[0].max())
    star, box, random = star.astype(dtype), Box(-30, -50, 31, 45), np.random.default_rng(seed)
    field = Field(np.stack([[1.0, 0.1, 0.2], [0.3, *random.uniform(0.0, 0.1, 2)]]), box)
    makers = [
        lambda a: ImagePSF(a, normalize=True), lambda a: BasisPSF(a, field), lambda a: MatchingKernel(a, field),
        lambda a: GridPSF(a, x=[-50, 10], y=[-30], normalize=True),
        lambda a: matching_kernel(Stamp(a, normalize=True), TARGET).kernel,
    ]  # fmt: skip
    shapes = [(), (2,), (2,), (1, 2), ()]
    for make, shape in zip(makers, shapes, strict=True):
        plain = np.broadcast_to(star, (*shape, *star.shape)).copy()
        one, other = (make(array).stamps(x=3, y=-7) for array in (plain.astype(float), lay(plain)))
        np.testing.assert_array_equal(one, other)


@given(values=strange, seed=seeds, dtype=st.sampled_from(["f4", "f8"]), plane=st.sampled_from(["image", "variance"]))
@drawn
def test_strange_pixels_act_where_the_kernel_reaches(values, seed, dtype, plane):
    """Of an image or a variance, through a whole match: elsewhere nothing is changed."""
    random = np.random.default_rng(seed)
    image, variance = random.normal(0.0, 30.0, (53, 71)).astype(dtype), random.uniform(1, 4, (53, 71)).astype(dtype)
    e = Exposure(image, variance=variance, psf=SCIENCE)
    here = random.random(e.shape) < 0.003
    bad = getattr(e, plane).copy()
    bad[here] = random.choice(values, np.count_nonzero(here))
    bad = np.abs(bad) if plane == "variance" else bad
    clean, got = (match(x, TARGET, solver=SOLVER) for x in (e, e.replace(**{plane: bad})))
    far = ~binary_dilation(here, np.ones(got.kernel.shape))
    for name, scale in (("image", 100.0), ("variance", 4.0)):
        a, b = (getattr(m.exposure, name)[far] for m in (got, clean))
        np.testing.assert_allclose(a, b, rtol=0.0, atol=scale * (2e-6 if dtype == "f4" else 1e-12))
    np.testing.assert_array_equal(got.exposure.mask.array[far], clean.exposure.mask.array[far])
