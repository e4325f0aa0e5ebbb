"""Exposures of masked arrays and quantities, as NDData and CCDData and back; and what they show in a notebook."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from psfmatch.convolve import convolve
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import GaussianPSF, MoffatPSF

SHAPE = (13, 29)
rng = np.random.default_rng(67)
IMAGE = rng.normal(5.0, 2.0, SHAPE)
VARIANCE = rng.uniform(0.5, 4.0, SHAPE)
VARIANCE[3, 4] = np.inf
VARIANCE[5, 6] = 0.0


def wcs():
    world = WCS(naxis=2)
    world.wcs.ctype, world.wcs.crval = ["RA---TAN", "DEC--TAN"], [201.0, 33.0]
    world.wcs.cdelt, world.wcs.crpix = [-1e-4, 1e-4], [3, 5]
    return world


def exposure(unit="nJy", psf=None):
    return Exposure(
        IMAGE, variance=VARIANCE, mask=Mask(rng.integers(0, 64, SHAPE), {"BAD": 0, "SAT": 1, "STREAK": 5}),
        box=Box.from_shape(SHAPE, y0=-7, x0=400), wcs=wcs(), unit=unit, meta={"FILTER": "r", "EXPTIME": 30.0},
        psf=MoffatPSF(fwhm=3.0, beta=2.5, ellipticity=0.2, angle=20.0) if psf is None else psf,
    )  # fmt: skip


HIDDEN = np.zeros(SHAPE, bool)
HIDDEN[4, 11] = HIDDEN[7, 2:4] = True


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", ">f4"])
@pytest.mark.parametrize("plane", ["image", "variance"])
def test_what_is_masked_is_nan_and_bad_and_reaches_no_other_pixel(plane, dtype):
    values = rng.integers(1, 9, SHAPE).astype(dtype)
    holes = np.where(HIDDEN, np.nan, values).astype("f8" if dtype == "f8" else "f4")
    values[HIDDEN] = 30000
    planes = {"image": IMAGE, "variance": np.ones(SHAPE), "mask": Mask(np.full(SHAPE, 1, "u1"), {"SAT": 0})}
    made = Exposure(**{**planes, plane: np.ma.array(values, mask=HIDDEN)})
    np.testing.assert_array_equal(getattr(made, plane), holes)
    np.testing.assert_array_equal(made.mask.any_of("BAD"), HIDDEN)
    assert made.mask.any_of("SAT").all()
    kernel = MatchingKernel.constant([[0.1, 0.2, 0.3, 0.1, 0.3]], made.box)
    wanted, found = convolve(Exposure(**{**planes, plane: holes}), kernel), convolve(made, kernel)
    np.testing.assert_array_equal(found.image, wanted.image)
    np.testing.assert_array_equal(found.variance, wanted.variance)


def test_a_mask_that_hides_nothing_costs_nothing():
    made = Exposure(np.ma.array(IMAGE, mask=False), variance=np.ma.array(VARIANCE, mask=np.zeros(SHAPE, bool)))
    assert np.shares_memory(made.image, IMAGE)
    assert np.shares_memory(made.variance, VARIANCE)
    assert not made.mask.array.any()


def test_quantities_give_their_unit():
    made = Exposure(IMAGE * u.mJy, variance=VARIANCE * u.uJy**2)
    assert made.unit == "mJy"
    np.testing.assert_array_equal(made.image, IMAGE)
    np.testing.assert_allclose(made.variance, 1e-6 * VARIANCE, rtol=1e-15)
    assert type(made.image) is type(made.variance) is np.ndarray
    assert Exposure(IMAGE * u.adu, unit="ADU").unit == "ADU"
    assert Exposure(IMAGE, unit=u.electron / u.s).to_ccddata().unit == u.electron / u.s
    hidden = Exposure(Masked(IMAGE * u.nJy, HIDDEN))
    assert hidden.unit == "nJy"
    np.testing.assert_array_equal(np.isnan(hidden.image), HIDDEN)


@pytest.mark.parametrize("kind", ["variance", "std", "ivar"])
@pytest.mark.parametrize("unit", ["nJy", None, "ADU", "counts of Joe"])
@pytest.mark.parametrize("way", ["to_nddata", "to_ccddata"])
def test_there_and_back(kind, unit, way):
    given = exposure(unit)
    data = getattr(given, way)(uncertainty=kind)
    assert isinstance(data, CCDData if way == "to_ccddata" else NDData)
    again = Exposure.from_nddata(data)
    np.testing.assert_array_equal(again.image, IMAGE)
    np.testing.assert_allclose(again.variance, VARIANCE, rtol=0 if kind == "variance" else 4e-16)
    np.testing.assert_array_equal(again.mask.array, given.mask.array)
    assert dict(again.mask.planes) == {"BAD": 0, "SAT": 1, "STREAK": 5}
    assert (again.box, again.meta) == (given.box, given.meta)
    assert again.unit == unit
    assert again.wcs.to_header() == given.wcs.to_header()
    if way == "to_nddata":
        assert again.psf is given.psf
    center = {"x": given.box.center.x, "y": given.box.center.y}
    np.testing.assert_array_equal(again.psf.stamps(**center), given.psf.stamps(**center))


def test_ccddata_masks_what_any_plane_holds_and_its_arrays_are_ours_no_more():
    given = exposure()
    data = given.to_ccddata()
    np.testing.assert_array_equal(data.mask, given.mask.array != 0)
    data.data[:] = 0.0
    assert given.image[0, 0] == IMAGE[0, 0]


def test_uncertainties_of_another_unit_are_converted():
    errors = StdDevUncertainty(np.full(SHAPE, 2000.0), unit=u.mJy)
    got = Exposure.from_nddata(NDData(IMAGE, unit=u.Jy, uncertainty=errors)).variance
    np.testing.assert_allclose(got, 4.0)
    got = Exposure.from_nddata(
        NDData(IMAGE, unit=u.Jy, uncertainty=VarianceUncertainty(np.full(SHAPE, 9.0), unit=u.mJy**2))
    )
    np.testing.assert_allclose(got.variance, 9e-6)


def test_masks_of_every_kind():
    for mask, bad in (
        (IMAGE > 6, IMAGE > 6),
        ((IMAGE > 6) * 1, IMAGE > 6),
        (True, np.ones(SHAPE, bool)),
        (None, IMAGE > 1e9),
    ):
        got = Exposure.from_nddata(NDData(IMAGE, mask=mask)).mask
        np.testing.assert_array_equal(got.any_of("BAD"), bad)
    got = Exposure.from_nddata(NDData(IMAGE, mask=np.full(SHAPE, 4), meta={"mask_planes": {"GHOST": 2}})).mask
    assert got.any_of("GHOST").all()
    with pytest.raises(InputError, match="MASKPLAN 'GHOST': give names and bits"):
        Exposure.from_nddata(NDData(IMAGE, mask=np.full(SHAPE, 4), meta={"MASKPLAN": "GHOST"}))


def test_a_stamp_is_a_psf():
    stamp = GaussianPSF(fwhm=3.0, ellipticity=0.3, angle=40.0).stamps(x=0, y=0, shape=(11, 15))[0]
    psf = Exposure.from_nddata(CCDData(IMAGE, unit="adu", psf=np.array(stamp))).psf
    np.testing.assert_array_equal(psf.stamps(x=7, y=2)[0], stamp)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: NDData(IMAGE, uncertainty=UnknownUncertainty(IMAGE)), "UnknownUncertainty: give a standard deviation"),
        (lambda: NDData(np.ones((2, 3, 4))), "give a two-dimensional array"),
        (lambda: NDData(IMAGE, uncertainty=VarianceUncertainty(-VARIANCE)), "variance is negative"),
    ],
)
def test_what_cannot_be_taken_says_why(data, says):
    with pytest.raises(InputError, match=says):
        Exposure.from_nddata(data())
    with pytest.raises(InputError, match="choose variance, std or ivar"):
        exposure().to_nddata(uncertainty="sigma")


class Text(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.words, self.tags = [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_what_a_notebook_shows_is_escaped_and_counted():
    image = IMAGE.copy()
    image[2, 20] = np.nan
    given = exposure('<script>alert("x")</script>').replace(image=image)
    shown = Text(given._repr_html_())
    text = " ".join(shown.words)
    assert '13 x 29 float64 in <script>alert("x")</script>' in text
    assert "script" not in {tag for tag, _ in shown.tags}
    for plane in ("BAD", "SAT", "STREAK"):
        assert f"mask {plane} {np.count_nonzero(given.mask.any_of(plane))} px" in text
    assert "MoffatPSF" in text
    assert "0.36 arcsec a pixel" in text
    (attributes,) = (attributes for tag, attributes in shown.tags if tag == "img")
    assert attributes["alt"] == "Thumbnail of an image of 29 x 13 px"
    assert attributes["src"].startswith("data:image/png;base64,")
    assert len(repr(given)) < 300


def test_the_thumbnail_is_a_picture_of_the_image():
    """Decoded by another library: its first row is the last of the image, brighter is lighter, and NaN is black."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    image = np.full((300, 500), 1.0) + rng.normal(0, 0.01, (300, 500))
    image[:40, :90] += 50.0
    image[200:, 400:] = np.nan
    source = re.search(r"base64,([^\"]+)\"", Exposure(image)._repr_html_())
    picture = pyplot.imread(io.BytesIO(base64.b64decode(source[1])))
    assert picture.shape == (100, 167)
    assert (picture[-10:, :25] > 0.95).all()
    assert (picture[:30, 140:] == 0).all()
    assert 0.0 < np.median(picture) < 0.5


@pytest.mark.parametrize(
    "image", [np.zeros((4, 7)), np.full((4, 7), np.nan), np.full((1, 1), 1e30), np.eye(5, 9) * 1e-30]
)
def test_images_of_nothing_are_shown_too(image):
    assert "Exposure" in Exposure(image)._repr_html_()
