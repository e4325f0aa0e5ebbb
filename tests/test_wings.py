"""The flux beyond a stamp, its noise, and what lies beneath the noise: each against a known truth."""

import numpy as np
import pytest

import psfmatch
from psfmatch.errors import InputError
from psfmatch.stamp_noise import denoised, stamp_noise
from psfmatch.wings import continued, extended, fit_wings, missing_flux

SHAPE = (45, 39)


def stamp(psf, shape=SHAPE):
    return psf.stamps(x=0.0, y=0.0, shape=shape)[0]


def moffat(beta=2.5, fwhm=3.2):
    return stamp(psfmatch.MoffatPSF(fwhm=fwhm, beta=beta, ellipticity=0.15, angle=30.0))


def airy(fwhm=3.0, size=41, aperture=512, pad=4):
    """Diffraction image of a round, obstructed aperture at the pixel centres; the whole image has unit flux."""
    n = pad * aperture // 2
    diameter = n * 1.03 / fwhm
    axis = np.arange(n) - n // 2
    r = np.hypot(axis[:, None], axis[None, :])
    pupil = np.clip(0.5 + diameter / 2 - r, 0, 1) - np.clip(0.5 + 0.15 * diameter - r, 0, 1)
    image = np.abs(np.fft.fftshift(np.fft.fft2(pupil))) ** 2
    image /= image.sum()
    cut = slice(n // 2 - size // 2, n // 2 + size // 2 + 1)
    return image[cut, cut]


def noisy(image, peak_to_noise, seed=1):
    return image + np.random.default_rng(seed).normal(0.0, image.max() / peak_to_noise, image.shape)


@pytest.mark.parametrize(("beta", "fwhm"), [(2.0, 4.0), (2.5, 3.2), (4.765, 4.2), (3.0, 1.8)])
def test_missing_flux_of_a_moffat_psf(beta, fwhm):
    image = moffat(beta, fwhm)
    wings = fit_wings(image)
    assert wings.kind == "moffat"
    assert wings.missing == pytest.approx(1.0 / image.sum() - 1.0, rel=0.1)
    assert wings.slope == pytest.approx(2.0 * beta, rel=0.03)


def test_missing_flux_behind_an_aperture():
    image = airy()
    wings = fit_wings(image)
    assert (wings.kind, wings.slope) == ("diffraction", 3.0)
    assert wings.missing == pytest.approx(1.0 / image.sum() - 1.0, rel=0.3)


@pytest.mark.parametrize(
    "psf", [psfmatch.GaussianPSF(fwhm=4.0), psfmatch.DoubleGaussianPSF(sigma1=1.5, sigma2=3.0, b=0.1)]
)
def test_gaussian_wings_miss_nothing(psf):
    assert fit_wings(stamp(psf)).missing == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_noise_makes_no_wings(seed):
    image = noisy(stamp(psfmatch.GaussianPSF(fwhm=4.0)), 100.0, seed)
    assert fit_wings(image, stamp_noise(image)).missing == 0.0


@pytest.mark.parametrize("peak_to_noise", [3000.0, 1000.0, 300.0])
@pytest.mark.parametrize(("beta", "fwhm"), [(2.5, 3.2), (3.0, 4.0), (4.0, 5.0)])
def test_missing_flux_beyond_a_noisy_stamp(beta, fwhm, peak_to_noise):
    """The median is nearly true, and the error tells how far a single one may be off."""
    image = moffat(beta, fwhm)
    truth = 1.0 / image.sum() - 1.0
    images = [noisy(image, peak_to_noise, seed) for seed in range(25)]
    missing, error = np.array([missing_flux(i, stamp_noise(i)) for i in images]).T
    assert np.median(missing) == pytest.approx(truth, rel=0.25)
    assert np.median(error) < 0.5 * truth
    assert np.sqrt(np.mean(((missing - truth) / error) ** 2)) < 1.6


@pytest.mark.parametrize("seed", range(5))
def test_a_wing_lost_in_the_noise_is_not_made_up(seed):
    for psf, peak_to_noise in (
        (psfmatch.GaussianPSF(fwhm=4.0), 300.0),
        (psfmatch.MoffatPSF(fwhm=3.0, beta=4.0), 100.0),
    ):
        image = noisy(stamp(psf), peak_to_noise, seed)
        assert np.isnan(missing_flux(image, stamp_noise(image))).all()


def test_missing_flux_behind_an_aperture_with_noise():
    image = airy()
    missing, error = np.array([missing_flux(noisy(image, 1000.0, seed), image.max() / 1000.0) for seed in range(9)]).T
    assert np.median(missing) == pytest.approx(1.0 / image.sum() - 1.0, rel=0.3)
    assert (np.abs(missing - 1.0 / image.sum() + 1.0) < 2.0 * error).all()


def test_a_tiny_or_empty_stamp_has_no_wings():
    assert fit_wings(moffat()[18:27, 15:24]).kind == "none"
    assert fit_wings(-moffat()).kind == "none"
    for noise in (0.0, 1e-3):
        assert np.isnan(missing_flux(moffat()[18:27, 15:24], noise)).all()


def test_continuation_agrees_with_the_whole_psf():
    psf = psfmatch.MoffatPSF(fwhm=3.5, beta=3.0)
    whole, image = stamp(psf, (101, 91)), stamp(psf)
    out, _ = continued(image / image.sum(), (101, 91))
    np.testing.assert_allclose(out, whole, rtol=0.07)
    assert out.sum() == pytest.approx(whole.sum(), abs=1e-4)


def test_a_stamp_with_less_than_unit_sum_is_believed():
    image = moffat()
    out, wings = continued(image, (101, 91))
    np.testing.assert_array_equal(out[28:-28, 26:-26], image)
    assert image.sum() * (1.0 + wings.missing) == pytest.approx(1.0)
    doubtful, wings = continued(0.9 * image, (101, 91))
    np.testing.assert_array_equal(doubtful[28:-28, 26:-26], 0.9 * image)
    assert wings.missing == pytest.approx(fit_wings(image).missing)
    assert missing_flux(image)[0] == pytest.approx(1.0 / image.sum() - 1.0)
    assert missing_flux(0.9 * image)[0] == wings.missing


@pytest.mark.parametrize("normalize", [False, True])
def test_pixels_that_are_not_measured_lie_beyond_the_border(normalize):
    psf = psfmatch.MoffatPSF(fwhm=3.5, beta=3.0)
    whole, image = stamp(psf, (101, 91)), stamp(psf).copy()
    measured = np.ones(SHAPE, bool)
    measured[-9:], measured[:, :5] = False, False
    image[~measured] = 0.0
    seen = image / image.sum() if normalize else image
    assert missing_flux(seen, 0.0, measured)[0] == pytest.approx(1.0 / image.sum() - 1.0, rel=0.1)
    np.testing.assert_allclose(continued(seen, (101, 91), measured=measured)[0], whole, rtol=0.12)
    assert missing_flux(seen)[0] < 0.3 * missing_flux(seen, 0.0, measured)[0]


@pytest.mark.parametrize("peak_to_noise", [3000.0, 300.0])
def test_missing_flux_beyond_the_measured_pixels_of_a_noisy_stamp(peak_to_noise):
    measured = np.ones(SHAPE, bool)
    measured[-9:], measured[:, :5] = False, False
    truth = 1.0 / moffat()[measured].sum() - 1.0
    images = [np.where(measured, noisy(moffat(), peak_to_noise, seed), 0.0) for seed in range(15)]
    assert np.median([missing_flux(i, stamp_noise(i), measured)[0] for i in images]) == pytest.approx(truth, rel=0.3)


def test_a_stamp_measured_throughout_is_an_ordinary_one():
    for image in (moffat(), airy(), noisy(moffat(), 300.0)):
        every, noise = np.ones(image.shape, bool), stamp_noise(image)
        assert missing_flux(image, noise, every) == missing_flux(image, noise)
        one, other = (continued(image, (101, 91), noise, m)[0] for m in (every, None))
        np.testing.assert_array_equal(one, other)


def test_extending_to_a_smaller_or_even_shape_is_refused():
    image = moffat()
    for shape in ((43, 39), (46, 39)):
        with pytest.raises(InputError):
            extended(image, shape, fit_wings(image))


@pytest.mark.parametrize("image", [moffat(), moffat(3.0, 1.8), stamp(psfmatch.GaussianPSF(fwhm=5.0)), airy()])
@pytest.mark.parametrize("flux", [1.0, 3e4])
def test_noise_is_measured(image, flux):
    ratios = [stamp_noise(flux * noisy(image, 300.0, seed)) / (flux * image.max() / 300.0) for seed in range(20)]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.std(ratios) < 0.06
    assert stamp_noise(flux * image) == 0.0


def test_noise_is_measured_where_a_circle_was_cut():
    image = noisy(moffat(), 300.0)
    y, x = np.indices(SHAPE)
    cut = np.where(np.hypot(y - 22, x - 19) < 19, image, 0.0)
    assert stamp_noise(cut) == pytest.approx(image.max() / 300.0, rel=0.15)
    assert stamp_noise(np.pad([[1.0]], 20)) == 0.0


def test_a_noiseless_stamp_is_not_touched():
    image = airy()
    assert denoised(image, stamp_noise(image)) is image


@pytest.mark.parametrize(
    ("image", "gain"),
    [(moffat(), 3.0), (moffat(3.0, 1.8), 3.0), (stamp(psfmatch.GaussianPSF(fwhm=5.0)), 3.0), (airy(), 1.2)],
)
@pytest.mark.parametrize("peak_to_noise", [50.0, 300.0])
def test_denoised_is_nearer_to_the_truth(image, gain, peak_to_noise):
    before = noisy(image, peak_to_noise)
    after = denoised(before, stamp_noise(before))
    assert np.linalg.norm(after - image) < np.linalg.norm(before - image) / gain


def test_structure_that_stands_out_is_kept():
    image = moffat().copy()
    image[30, 9] += 0.1 * image.max()
    before = noisy(image, 300.0)
    after = denoised(before, stamp_noise(before))
    plain = denoised(noisy(moffat(), 300.0), stamp_noise(before))
    assert (after - plain)[30, 9] == pytest.approx(0.1 * image.max(), rel=0.25)


def test_a_unit_sum_stays_one():
    image = noisy(moffat(), 300.0)
    image /= image.sum()
    assert denoised(image, stamp_noise(image)).sum() == pytest.approx(1.0, abs=1e-12)
