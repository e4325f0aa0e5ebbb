import numpy as np
import pytest
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty
from astropy.wcs import WCS

from psfmatch import (
    Box,
    Exposure,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    InputError,
    Mask,
    MatchError,
    MoffatPSF,
    PSFError,
    PsfMatchWarning,
    match,
)
from psfmatch.cells import cell_positions, sample_cells

SHAPE = (5, 8)
IMAGE = np.arange(40.0).reshape(SHAPE)


def wcs():
    w = WCS(naxis=2)
    w.wcs.ctype = "RA---TAN", "DEC--TAN"
    w.wcs.crpix, w.wcs.crval, w.wcs.cdelt = (3.0, 2.0), (150.0, 2.0), (-0.2 / 3600, 0.2 / 3600)
    return w


def test_an_image_is_enough():
    exposure = Exposure(IMAGE)
    assert exposure.box == Box(0, 0, 5, 8)
    assert not exposure.mask.array.any()
    assert exposure.pixel_scale is None


def test_arrays_are_kept_read_only_and_native():
    image = IMAGE.astype(">f4")
    exposure = Exposure(image)
    assert exposure.image.dtype == np.dtype("=f4")
    with pytest.raises(ValueError, match="read-only"):
        exposure.image[0, 0] = 1.0
    image[0, 0] = 7.0  # the caller's own array stays writable


def test_mask_planes_are_rubins_and_unknown_bits_survive():
    mask = Mask(np.array([[1, 2, 16], [256, 1 << 20, 0]], np.int32))
    assert mask.bits("BAD", "SAT", "EDGE", "NO_DATA") == 1 | 2 | 16 | 256
    assert mask.any_of("NO_DATA", "EDGE", "UNHEARD_OF").tolist() == [[False, False, True], [True, False, False]]
    assert mask.with_planes(["STREAK"]).array[1, 1] == 1 << 20
    assert mask.with_planes(["STREAK"]).planes["STREAK"] == 9
    with pytest.raises(InputError, match="STREAK"):
        mask.bits("STREAK")


def test_a_new_plane_never_takes_a_bit_that_pixels_use():
    mask = Mask(np.array([[1 << 9, 0]], np.int32))
    wider = mask.with_planes(["STREAK"])
    assert wider.planes["STREAK"] != 9
    assert wider.array.tolist() == mask.array.tolist()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variance": np.ones((5, 7))}, "does not fit"),
        ({"variance": np.full(SHAPE, -1.0)}, "negative in 40 pixels"),
        ({"mask": np.zeros(SHAPE)}, "dtype float64"),
        ({"mask": np.zeros((8, 5), int)}, "does not fit"),
        ({"box": Box(0, 0, 8, 5)}, "Box"),
        ({"psf": "moffat.fits"}, "psfmatch.read_psf reads files"),
        ({"psf": {"fwhm": 3}}, "of type dict is no PSF"),
    ],
)
def test_planes_that_do_not_belong_together_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Exposure(IMAGE, **options)


@pytest.mark.parametrize("image", [np.ones(5), np.ones((0, 4)), np.ones((2, 2), complex), np.array([["a"]])])
def test_images_that_are_none_are_refused(image):
    with pytest.raises(InputError, match="image"):
        Exposure(image)


def test_a_cutout_keeps_its_place_in_frame_and_sky():
    exposure = Exposure(IMAGE, variance=IMAGE + 1, mask=(IMAGE % 3).astype(int), box=Box(10, 20, 15, 28), wcs=wcs())
    cut = exposure.cutout(Box(12, 23, 15, 25))
    assert cut.image.tolist() == IMAGE[2:5, 3:5].tolist()
    assert cut.variance.tolist() == (IMAGE + 1)[2:5, 3:5].tolist()
    np.testing.assert_allclose(cut.wcs.pixel_to_world_values(0, 0), exposure.wcs.pixel_to_world_values(3, 2))
    assert exposure.pixel_scale == pytest.approx(0.2)


def test_ccddata_round_trip_keeps_everything():
    exposure = Exposure(
        IMAGE, variance=IMAGE + 1, mask=(IMAGE % 5).astype(int), box=Box(-4, 2, 1, 10), wcs=wcs(), unit="nJy",
        meta={"FILTER": "r"}, psf=GaussianPSF(fwhm=3.0),
    )  # fmt: skip
    data = exposure.to_ccddata()
    assert isinstance(data, CCDData)
    assert (data.mask == (exposure.mask.array != 0)).all()
    again = Exposure.from_nddata(data)
    for name in ("image", "variance"):
        assert getattr(again, name).tolist() == getattr(exposure, name).tolist()
    assert again.mask.array.tolist() == exposure.mask.array.tolist()
    assert (again.box, again.unit, again.meta) == (exposure.box, "nJy", {"FILTER": "r"})
    np.testing.assert_allclose(again.psf.stamps(x=5, y=-2), exposure.psf.stamps(x=5, y=-2))


@pytest.mark.parametrize(
    ("uncertainty", "expected"), [(StdDevUncertainty(IMAGE), IMAGE**2), (InverseVariance(1 / (IMAGE + 1)), IMAGE + 1)]
)
def test_every_uncertainty_becomes_a_variance(uncertainty, expected):
    exposure = Exposure.from_nddata(CCDData(IMAGE, unit="adu", uncertainty=uncertainty, mask=IMAGE == 7))
    np.testing.assert_allclose(exposure.variance, expected)
    assert exposure.mask.any_of("BAD").sum() == 1


def test_zero_weight_is_infinite_variance():
    exposure = Exposure.from_nddata(CCDData(IMAGE, unit="adu", uncertainty=InverseVariance(np.minimum(IMAGE, 1))))
    assert np.isinf(exposure.variance[0, 0])


def test_cells_are_rubins_grid():
    region, x, y = cell_positions(Box(2000, 1000, 2300, 1512), (128, 128))
    assert region == Box(1872, 872, 2428, 1640)
    assert sorted(set(x)) == [936.0, 1064.0, 1192.0, 1320.0, 1448.0, 1576.0]
    assert sorted(set(y)) == [1936.0, 2064.0, 2192.0, 2320.0]  # the partial last row has none
    assert (x[1] - x[0], y[1] - y[0]) == (128.0, 0.0)


def stamp(x, y):
    if 100 < x < 200:
        raise ValueError("no model here")
    return GaussianPSF(fwhm=3.0 + x / 1000).stamps(x=0, y=0, shape=(15, 15))[0]


def test_a_cell_that_cannot_be_evaluated_is_left_out_and_counted():
    science = FunctionPSF(stamp, shape=(15, 15))
    cells = sample_cells(science, GaussianPSF(fwhm=5.0), Box(0, 0, 90, 400), cell_shape=(60, 100), size=17)
    assert len(cells.skipped) == 3
    assert {position[0] for position in cells.skipped} == {150.0}
    assert "no model here" in cells.skipped[0][2]
    assert len(cells) == 15
    for candidate in cells:
        expected = stamp(candidate.x, candidate.y)
        np.testing.assert_array_equal(candidate.science[1:-1, 1:-1], expected)


def test_no_cell_at_all_is_an_error():
    def nowhere(x, y):
        raise ValueError("nowhere")

    with pytest.raises(MatchError, match="any of the 9 cells"):
        sample_cells(
            FunctionPSF(nowhere, shape=(9, 9)), GaussianPSF(fwhm=3.0), Box(0, 0, 9, 9), cell_shape=(9, 9), size=9
        )


def test_a_fixed_target_is_padded_or_cut_with_a_warning():
    target = ImagePSF(MoffatPSF(fwhm=4.0, beta=3.0).stamps(x=0, y=0, shape=(11, 13))[0])
    with pytest.warns(PsfMatchWarning, match="13 x 11 px"):
        cells = sample_cells(GaussianPSF(fwhm=3.0), target, Box(0, 0, 9, 9), cell_shape=(9, 9), size=15)
    np.testing.assert_array_equal(cells.target[0][2:13, 1:14], target.image)


def test_the_psf_error_tree():
    assert issubclass(PSFError, InputError)
    assert issubclass(InputError, ValueError)
    assert issubclass(MatchError, RuntimeError)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", ">i2", "u2", ">i4", "u4"])
def test_a_mask_too_narrow_for_its_planes_is_made_wider(kind):
    """Bits stay where they are, the highest one too, which is the sign of signed numbers."""
    array = np.zeros((5, 7), kind)
    array[1, 2] = np.array(1, kind) << (8 * array.itemsize - 1)
    mask = Mask(array, {"LOW": 1, "TOP": 8 * array.itemsize - 1, "FAR": 40})
    assert np.argwhere(mask.any_of("TOP")).tolist() == [[1, 2]]
    assert not mask.any_of("LOW", "FAR").any()
    exposure = Exposure(np.ones((40, 50)), mask=Mask(np.zeros((40, 50), kind)), psf=GaussianPSF(fwhm=3))
    assert match(exposure, GaussianPSF(fwhm=4)).exposure.mask.any_of("EDGE")[0, 0]
