"""Objects of other packages in the place of a PSF."""

import pickle

import galsim
import numpy as np
import pytest
from astropy.wcs import WCS
from photutils import psf as photutils_psf

import psf_files
import psfmatch
from psfmatch.errors import InputError, PSFError
from psfmatch.models import as_psf
from psfmatch.psf import FunctionPSF, ImagePSF, MoffatPSF

SHAPE = (33, 37)


def turned_wcs():
    """North to the right, mirrored, pixels of 0.2 by 0.24 arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [30.0, -20.0], [40.0, 31.0]
    wcs.wcs.cd = np.array([[0.004, -0.2], [0.24, 0.01]]) / 3600
    return wcs


def test_a_galsim_object_in_square_pixels():
    """GalSim's Moffat, sheared in its own words, is ours."""
    profile = 3.0 * galsim.Moffat(beta=3.0, fwhm=0.9).shear(q=0.8, beta=25 * galsim.degrees)
    psf = as_psf(profile, pixel_scale=0.3)
    true = MoffatPSF(fwhm=3.0, beta=3.0, ellipticity=0.2, angle=25.0).stamps(x=0, y=0, shape=SHAPE)[0]
    np.testing.assert_allclose(
        psf.stamps(x=5.0, y=8.0, shape=SHAPE)[0], true, atol=1e-3 * true.max()
    )  # of GalSim's FFT
    assert psf.constant
    assert psf.shape[0] % 2 == 1
    thawed = pickle.loads(pickle.dumps(psf))
    np.testing.assert_array_equal(thawed.stamps(x=[5.0, 1.0], y=8.0), psf.stamps(x=[0.0, 0.0], y=0.0))


def test_a_galsim_object_through_a_wcs():
    """A profile long along north lies along +x where north is to the right, and is wider in smaller pixels."""
    profile = galsim.Gaussian(sigma=0.5).shear(q=0.7, beta=90 * galsim.degrees)
    frame = psfmatch.Exposure(image=np.zeros((60, 80)), wcs=turned_wcs(), psf=profile)
    stamp = frame.psf.stamps(x=44.0, y=21.0, shape=SHAPE)[0]
    dy, dx = np.mgrid[:33, :37] - np.array([16, 18])[:, None, None]
    xx, yy = (stamp * dx**2).sum(), (stamp * dy**2).sum()
    long, short = 0.5 / np.sqrt(0.7), 0.5 * np.sqrt(0.7)
    assert xx == pytest.approx((long / 0.24) ** 2 + 1 / 12, rel=0.02)
    assert yy == pytest.approx((short / 0.2) ** 2 + 1 / 12, rel=0.02)
    assert not frame.psf.constant
    with pytest.raises(InputError, match="give the pixel scale"):
        psfmatch.Exposure(image=np.zeros((60, 80)), psf=profile)


@pytest.mark.parametrize("oversampling", [1, 3, 4])
@pytest.mark.parametrize("odd", [True, False])
def test_photutils_image_psf(oversampling, odd):
    """An effective PSF: the flux in whole pixels at finer points, which is not integrated again."""
    size = (oversampling * 24 + odd, oversampling * 27 + odd)
    samples = psf_files.fine_samples(oversampling, size, fwhm=2.6, integrated=True)
    psf = as_psf(photutils_psf.ImagePSF(samples, oversampling=oversampling))
    truth = MoffatPSF(fwhm=2.6, beta=3.0, ellipticity=0.15, angle=30.0).stamps(x=0, y=0, shape=psf.shape)[0]
    middle = all(n % 2 for n in size)
    np.testing.assert_allclose(psf.image, truth, atol=1e-12 if middle else {1: 2e-2, 3: 1e-4, 4: 3e-5}[oversampling])


def test_an_off_centre_origin_is_kept():
    samples = psf_files.fine_samples(4, (101, 93), fwhm=2.6, integrated=True, dx=0.75, dy=-0.5)
    psf = as_psf(photutils_psf.ImagePSF(samples, oversampling=4, origin=(46 + 3, 50 - 2)))
    truth = MoffatPSF(fwhm=2.6, beta=3.0, ellipticity=0.15, angle=30.0).stamps(x=0, y=0, shape=psf.shape)[0]
    np.testing.assert_allclose(psf.image, truth, atol=1e-12)


def test_an_epsf_built_from_stars():
    """photutils' EPSFBuilder on noiseless stars, at a star in the middle of a pixel."""
    from astropy.nddata import NDData
    from astropy.table import Table

    true = MoffatPSF(fwhm=2.8, beta=3.0, ellipticity=0.15, angle=30.0)
    rng = np.random.default_rng(4)
    y, x = (g.ravel() + rng.uniform(-0.5, 0.5, g.size) for g in np.mgrid[20:140:24, 20:160:24])
    image = np.zeros((150, 170))
    rows, columns = np.mgrid[-12:13, -12:13]
    for xk, yk in zip(x, y, strict=True):
        j, i = round(yk) + rows, round(xk) + columns
        image[j, i] = true.pixels(dx=(i - xk).ravel(), dy=(j - yk).ravel()).reshape(25, 25)
    stars = photutils_psf.extract_stars(NDData(image), Table({"x": x, "y": y}), size=19)
    model, _ = photutils_psf.EPSFBuilder(oversampling=2, maxiters=3, progress_bar=False)(stars)
    stamp = as_psf(model).stamps(x=0, y=0)[0]
    truth = true.stamps(x=0, y=0, shape=stamp.shape)[0]
    np.testing.assert_allclose(stamp / stamp.sum(), truth / truth.sum(), atol=0.02 * truth.max())


def test_a_piff_object_is_drawn_by_piff():
    model = psf_files.piff_model("grid")
    psf = as_psf(model)
    x, y = 333.0, 444.0
    drawn = model.draw(x=x + 1, y=y + 1, stamp_size=21, center=True, chipnum=0).array
    np.testing.assert_allclose(psf.stamps(x=x, y=y, shape=(21, 21))[0], drawn, atol=1e-9)
    with pytest.raises(PSFError, match="chips 3, 7; choose"):
        as_psf(psf_files.piff_model("moffat", chips=(3, 7)))


def test_a_callable_in_the_place_of_a_psf():
    def drifting(x, y):
        return MoffatPSF(fwhm=3.0 + x / 1000, beta=3.5).stamps(x=0, y=0, shape=(31, 29))[0]

    frame = psfmatch.Exposure(image=np.ones((200, 240)), psf=drifting)
    assert isinstance(frame.psf, FunctionPSF)
    assert frame.psf.shape == (31, 29)
    matched = psfmatch.match(frame, lambda x, y: MoffatPSF(fwhm=6.5, beta=3.5).stamps(x=0, y=0)[0])
    assert matched.quality.residual.max() < 5e-3


@pytest.mark.parametrize("thing", [{"fwhm": 3.0}, object(), lambda x, y: x + y, None])
def test_what_is_no_psf_is_refused(thing):
    with pytest.raises((InputError, PSFError), match="PSF"):
        as_psf(thing)


def test_arrays_are_stamps():
    assert isinstance(as_psf(psf_files.stamp().tolist()), ImagePSF)


def test_objects_that_are_no_psf_say_why():
    """A galaxy without light, a Piff model that depends on a colour, one that fails, and a ragged list."""
    import piff

    with pytest.raises(PSFError, match="a GalSim object of flux 0 is no PSF"):
        as_psf(galsim.Gaussian(sigma=1.0, flux=0.0), pixel_scale=0.2)
    with pytest.raises(InputError, match="an object of type list is no PSF"):
        as_psf([[1.0, 2.0], [3.0]])
    model = psf_files.piff_model("moffat")
    model.interp = piff.BasisPolynomial(1, keys=("u", "colour"))
    with pytest.raises(PSFError, match="the Piff model varies with colour, not with the position alone"):
        as_psf(model)
    broken = psf_files.piff_model("kolmogorov")
    broken.interp.coeffs = broken.interp.coeffs[:1]  # its shear is lost
    with pytest.raises(PSFError, match="the PSF cannot be evaluated at x=30, y=70: "):
        as_psf(broken).stamps(x=30.0, y=70.0)
