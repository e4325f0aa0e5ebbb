import warnings

import numpy as np
import pytest
from astropy.wcs import WCS

from psfmatch import (
    FFT,
    AlardLupton,
    BasisPSF,
    Box,
    Direct,
    Exposure,
    Field,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    GridPSF,
    ImagePSF,
    InputError,
    Mask,
    MatchError,
    MoffatPSF,
    Outcome,
    PsfMatchWarning,
    match,
    matching_kernel,
    planned_match,
)
from psfmatch.moments import fwhm, moments_fwhm

BOX = Box.from_shape((181, 263), y0=1000, x0=-77)
SCIENCE = MoffatPSF(fwhm=3.4, beta=3.0, ellipticity=0.15, angle=35.0, size=41)
TARGET = MoffatPSF(fwhm=5.0, beta=3.5)


def wcs():
    w = WCS(naxis=2)
    w.wcs.ctype = "RA---TAN", "DEC--TAN"
    w.wcs.crpix, w.wcs.crval, w.wcs.cdelt = (30.0, 20.0), (150.0, 2.0), (-0.25 / 3600, 0.25 / 3600)
    return w


def stars():
    """A frame with point sources of the science PSF, and the same with the target PSF: the answer."""
    images = [np.zeros(BOX.shape) for _ in range(2)]
    for y, x, flux in ((60, 70, 3.0), (110, 200, 1.0), (64, 80, 0.5)):
        for image, psf in zip(images, (SCIENCE, TARGET), strict=True):
            image[y - 35 : y + 36, x - 50 : x + 51] += flux * psf.stamps(x=0, y=0, shape=(71, 101))[0]
    return images


def test_a_field_of_stars_becomes_the_field_with_the_target_psf():
    image, truth = stars()
    e = Exposure(
        image, variance=np.full(BOX.shape, 2.0), box=BOX, psf=SCIENCE, wcs=wcs(), unit="nJy", meta={"visit": 7}
    )
    matched = match(e, TARGET, solver=AlardLupton(size_min=29, order=1))
    inner = np.s_[20:-20, 20:-20]
    assert np.abs(matched.exposure.image - truth)[inner].max() < 2e-3 * truth.max()
    assert matched.solution.outcome is Outcome.OK
    assert matched.quality.worst["residual"] < 6e-3
    out = matched.exposure
    assert (out.box, out.unit, out.meta["visit"]) == (BOX, "nJy", 7)
    assert out.wcs is e.wcs
    assert fwhm(out.psf.stamps(x=0, y=0)[0]) == pytest.approx(fwhm(TARGET.stamps(x=0, y=0)[0]), rel=1e-6)
    gain = matched.quality.noise_gain
    assert out.variance[90, 130] == pytest.approx(2.0 * np.median(gain), rel=2e-2)


def test_a_target_in_words_uses_the_pixel_scale():
    e = Exposure(stars()[0], box=BOX, psf=SCIENCE, wcs=wcs())
    matched = match(e, "moffat:fwhm=1.25arcsec,beta=3.5")
    assert moments_fwhm(matched.exposure.psf.stamps(x=0, y=0, shape=(51, 51))[0]) == pytest.approx(
        moments_fwhm(TARGET.stamps(x=0, y=0, shape=(51, 51))[0]), rel=1e-4
    )
    with pytest.raises(InputError, match="arcsec"):
        match(e.replace(wcs=None), "moffat:fwhm=1.25arcsec,beta=3.5")


@pytest.mark.parametrize(("tolerance", "residual", "worst"), [(1e-3, 8.5e-4, 1.7e-3), (1e-4, 9.5e-5, 7e-5)])
def test_identity_when_the_exposure_has_the_target_already(tolerance, residual, worst):
    """As near as the tolerance asks: with the default of 1e-3 the kernel is a little smoother than one pixel."""
    image, _ = stars()
    matched = match(Exposure(image, box=BOX, psf=SCIENCE), SCIENCE, solver=FreeForm(tolerance=tolerance))
    assert matched.quality.worst["residual"] < residual
    np.testing.assert_allclose(matched.exposure.image, image, atol=worst * image.max())


def test_a_small_frame_is_matched_like_a_large_one():
    image, truth = stars()
    small = Box(1040, -27, 1085, 13)
    e = Exposure(image, box=BOX, psf=SCIENCE).cutout(small)
    matched = match(e, TARGET)
    inner = small.grown(-12)
    difference = matched.exposure.image[inner.slices(small)] - truth[inner.slices(BOX)]
    assert np.abs(difference).max() < 3e-3 * truth.max()


def test_flux_scales_with_the_kernel_sum():
    image, _ = stars()
    e = Exposure(image, box=BOX, psf=SCIENCE)
    one, three = (match(e, TARGET, kernel_sum=s) for s in (1.0, 3.0))
    np.testing.assert_allclose(three.exposure.image, 3.0 * one.exposure.image, atol=1e-9)
    np.testing.assert_allclose(three.quality.residual, one.quality.residual, rtol=1e-6)


def test_the_backends_agree_and_options_reach_them():
    e = Exposure(stars()[0], variance=np.ones(BOX.shape), box=BOX, psf=SCIENCE)
    fast, slow = (match(e, TARGET, convolver=c(edge="nan")).exposure for c in (FFT, Direct))
    assert np.isnan(fast.image[0, 0])
    np.testing.assert_allclose(fast.image, slow.image, atol=1e-10)


def test_transposing_image_and_psf_transposes_the_result():
    image, _ = stars()
    turned = MoffatPSF(fwhm=3.4, beta=3.0, ellipticity=0.15, angle=90.0 - 35.0, size=41)
    a = match(Exposure(image, psf=SCIENCE), TARGET).exposure.image
    b = match(Exposure(image.T, psf=turned), TARGET).exposure.image
    np.testing.assert_allclose(b.T, a, atol=1e-8)


def test_matching_stamps_needs_no_exposure():
    s, t = (p.stamps(x=0, y=0, shape=(41, 41))[0] for p in (SCIENCE, TARGET))
    solution = matching_kernel(s, t)
    image = solution.kernel.stamps(x=0.0, y=0.0)[0]
    assert image.sum() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_array_equal(solution.kernel.stamps(x=500.0, y=-3.0)[0], image)


def test_an_exposure_without_a_psf_is_refused():
    with pytest.raises(InputError, match="no PSF model; give one"):
        match(Exposure(np.ones((50, 60))), TARGET)


@pytest.mark.parametrize("shape", [(1, 1), (9, 60)])
def test_an_image_smaller_than_the_kernel_is_refused(shape):
    with pytest.raises(InputError, match="smaller than the kernel"):
        match(Exposure(np.ones(shape), psf=SCIENCE), TARGET)


def test_a_psf_that_fails_somewhere_is_left_out_there_and_said():
    def function(x, y):
        if x > 150:
            raise RuntimeError("off the chip")
        return SCIENCE.stamps(x=x, y=y)[0]

    e = Exposure(stars()[0], box=BOX, psf=FunctionPSF(function, shape=(41, 41)))
    solver = AlardLupton(cell_shape=(64, 64))
    with (
        pytest.warns(PsfMatchWarning, match=r"in 4 of \d+ cells.*off the chip"),
        pytest.warns(PsfMatchWarning, match="not be measured at 3 of 25 positions"),
    ):
        matched = match(e, TARGET, solver=solver)
    assert np.isfinite(matched.exposure.image).all()
    assert len(matched.quality) < 25
    with pytest.raises(MatchError, match="any of"):
        match(e.replace(box=Box.from_shape(BOX.shape, y0=0, x0=5000)), TARGET, solver=solver)


def test_a_bad_outcome_raises_or_warns():
    e = Exposure(stars()[0], box=BOX, psf=ImagePSF(GaussianPSF(fwhm=4.7).stamps(x=0, y=0, shape=(11, 11))[0]))
    solver = AlardLupton(border="cut", size=9, scale_by_fwhm=False)
    with pytest.raises(MatchError, match="singular"):
        match(e, TARGET, solver=solver)
    with pytest.warns(PsfMatchWarning, match="singular"):
        assert match(e, TARGET, solver=solver, throw=False).solution.outcome is Outcome.SINGULAR


def test_a_target_out_of_reach_is_refused():
    e = Exposure(np.full((300, 420), 100.0), psf=ImagePSF(GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(41, 41))[0]))
    with pytest.raises(MatchError, match=r"limits it is the frame, 300 px"):
        match(e, "gaussian:fwhm=30")


@pytest.mark.parametrize(
    "solver",
    [FreeForm(size=7), FreeForm(strength=3.0), AlardLupton(size=7, scale_by_fwhm=False)],
    ids=["size", "strength", "classical"],
)
def test_a_poor_match_is_refused_whoever_chose_it(solver):
    e = Exposure(np.full((300, 420), 100.0), psf=SCIENCE)
    with pytest.raises(MatchError, match=r"The match is poor\.") as caught:
        match(e, "moffat:fwhm=7,beta=3.0", solver=solver)
    assert caught.value.solution.outcome is Outcome.POOR
    with pytest.warns(PsfMatchWarning, match="poor"):
        poor = match(e, "moffat:fwhm=7,beta=3.0", solver=solver, throw=False)
    assert poor.quality.poor()
    assert np.isfinite(poor.exposure.image[100:200, 100:300]).all()


def test_nobody_is_refused_what_he_tolerates():
    e = Exposure(np.full((300, 420), 100.0), psf=SCIENCE)
    found = match(e, "moffat:fwhm=7,beta=3.0", solver=FreeForm(size=13, tolerance=0.1))
    assert found.quality.poor()
    assert found.solution.outcome.ok


def test_a_stamp_that_is_not_normalised_is_said():
    stamp = SCIENCE.stamps(x=0, y=0)[0]
    with pytest.warns(PsfMatchWarning, match="has the sum 499"):
        matching_kernel(5000 * stamp, TARGET, throw=False)


def test_nothing_but_nan_is_refused():
    with pytest.raises(InputError, match="no pixel"):
        match(Exposure(np.full((60, 70), np.nan), psf=SCIENCE), TARGET)


def test_masks_only_grow():
    flags = np.zeros(BOX.shape, np.int32)
    flags[80, 90], flags[30, 40] = 1, 1 << 20
    e = Exposure(stars()[0], mask=Mask(flags), box=BOX, psf=SCIENCE)
    matched = match(e, TARGET)
    out = matched.exposure.mask.array
    assert (out & flags == flags).all()
    ky, kx = matched.kernel.shape
    assert (out & (1 << 20) != 0).sum() == ky * kx


def gradient(field, terms):
    """A PSF that broadens from left to right of the field it was made for."""
    narrow, broad = (MoffatPSF(fwhm=w, beta=3.0).stamps(x=0, y=0, shape=(31, 31))[0] for w in (3.0, 3.3))
    return BasisPSF(np.array([narrow, broad - narrow]), Field(np.array([[1.0, 0, 0], [0, 0.5, 0]])[:, :terms], field))


@pytest.mark.parametrize(
    ("science", "said"),
    [
        (gradient(Box(1000, -77, 1181, 186), 3), None),  # made for this frame
        (gradient(Box(990, -60, 1150, 160), 3), None),  # by its stars, which do not fill it
        (gradient(Box(0, 0, 4096, 2048), 3), None),  # and for a frame of which this is a part
        (gradient(Box(0, -50, 181, 213), 3), "made for y = 0 to 180 and is used over y = 1000 to 1180"),
        (gradient(Box(1000, 300, 1181, 420), 3), "made for x = 300 to 419 and is used over x = -77 to 185"),
        (gradient(Box(0, 500, 90, 600), 3), "made for x = 500 to 599, y = 0 to 89 and is used over x = -77 to 185, y"),
        (gradient(Box(0, 500, 90, 600), 1), None),  # it does not vary
        (GridPSF(np.ones((3, 1, 1, 1)) * SCIENCE.stamps(x=0, y=0)[0], x=[500.0], y=[990.0, 1100.0, 1190.0]), None),
        (GridPSF(np.ones((2, 2, 1, 1)) * SCIENCE.stamps(x=0, y=0)[0], x=[-70.0, 170.0], y=[0.0, 30.0]), "y = 0 to 30"),
    ],
)
def test_a_model_of_another_frame_is_told(science, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        planned_match(Exposure(stars()[0], box=BOX, psf=science), TARGET, throw=False)
    texts = [str(w.message) for w in caught if "was made for" in str(w.message)]
    assert len(texts) == (said is not None)
    if said:
        assert texts[0].startswith("the science PSF was made for ")
        assert said in texts[0]
