import copy
import pickle

import numpy as np
import pytest
from scipy.integrate import dblquad

import psfmatch
from psfmatch import (
    BasisPSF,
    Box,
    DoubleGaussianPSF,
    Field,
    FunctionPSF,
    GaussianPSF,
    GridPSF,
    ImagePSF,
    InputError,
    MoffatPSF,
    PSFError,
)
from psfmatch.moments import SIGMA_TO_FWHM, fwhm, moments_fwhm

ANALYTIC = [
    GaussianPSF(fwhm=1.3, ellipticity=0.3, angle=25.0),
    MoffatPSF(fwhm=1.1, beta=2.5, ellipticity=0.15, angle=-40.0),
    DoubleGaussianPSF(sigma1=0.6, sigma2=1.7, b=0.2),
]


def blob(shape=(15, 21), dy=0.0, dx=0.0, sigma=2.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    g = np.exp(-0.5 * (((y - shape[0] // 2 - dy) / sigma) ** 2 + ((x - shape[1] // 2 - dx) / (1.3 * sigma)) ** 2))
    return g / g.sum()


@pytest.mark.parametrize("psf", ANALYTIC, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (-3, 1)])
def test_analytic_pixels_are_integrals_of_the_profile(psf, row, column):
    density = psf._density
    value, _ = dblquad(
        lambda y, x: density(np.float64(x), np.float64(y)),
        column - 0.5,
        column + 0.5,
        row - 0.5,
        row + 0.5,
        epsabs=1e-11,
    )
    stamp = psf.stamps(x=3, y=4, shape=(9, 13))[0]
    assert stamp[4 + row, 6 + column] == pytest.approx(value, abs=1e-8)


def test_long_axis_points_where_the_angle_says():
    stamp = MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.4, angle=30.0).stamps(x=0, y=0, shape=(41, 43))[0]
    y, x = np.mgrid[-20:21, -21:22]
    xx, xy, yy = ((stamp * a).sum() for a in (x * x, x * y, y * y))
    assert 0.5 * np.rad2deg(np.arctan2(2 * xy, xx - yy)) == pytest.approx(30.0, abs=0.5)


@pytest.mark.parametrize("psf", [GaussianPSF(fwhm=4.0), MoffatPSF(fwhm=4.0, beta=3.5)], ids=["gauss", "moffat"])
def test_a_stamp_lacks_the_flux_beyond_it(psf):
    small, large = (psf.stamps(x=0, y=0, shape=(n, n + 2))[0].sum() for n in (9, 201))
    assert small < large
    assert large == pytest.approx(1.0, abs=2e-4)


def test_resizing_an_analytic_model_changes_no_pixel():
    psf = MoffatPSF(fwhm=3.0, beta=3.0)
    assert psf.resizable
    small, large = psf.stamps(x=0, y=0, shape=(7, 9))[0], psf.stamps(x=0, y=0, shape=(21, 31))[0]
    assert (large[7:14, 11:20] == small).all()


def test_center_sampling_is_the_normalised_profile():
    stamp = DoubleGaussianPSF(sigma1=2.0, sigma2=4.0, b=0.1, sampling="center").stamps(x=0, y=0, shape=(31, 41))[0]
    y, x = np.mgrid[-15:16, -20:21]
    profile = np.exp(-(x * x + y * y) / 8.0) + 0.1 * np.exp(-(x * x + y * y) / 32.0)
    np.testing.assert_allclose(stamp, profile / profile.sum(), rtol=1e-13)


@pytest.mark.parametrize("width", [3.0, 5.0])
def test_double_gaussian_from_fwhm_has_it(width):
    psf = DoubleGaussianPSF.from_fwhm(width, ratio=2.5, b=0.15, sampling="center")
    assert psf._density(np.float64(width / 2), np.float64(0)) == pytest.approx(
        0.5 * psf._density(np.float64(0), np.float64(0))
    )


def test_widths_of_known_profiles():
    assert fwhm(MoffatPSF(fwhm=4.9, beta=3.5, sampling="center").stamps(x=0, y=0)[0]) == pytest.approx(4.9, rel=2e-3)
    stamp = GaussianPSF(fwhm=4.0, ellipticity=0.2, angle=15, sampling="center").stamps(x=0, y=0, shape=(41, 41))[0]
    assert moments_fwhm(stamp) == pytest.approx(4.0, rel=1e-4)
    integrated = GaussianPSF(fwhm=4.0).stamps(x=0, y=0, shape=(41, 41))[0]
    assert moments_fwhm(integrated) == pytest.approx(np.sqrt(16.0 + SIGMA_TO_FWHM**2 / 12), rel=2e-4)


def test_basis_psf_is_linear_in_its_field_and_normalised():
    box = Box.from_shape((100, 200), y0=-50, x0=1000)
    basis = np.stack([blob(), blob(dy=0.4, dx=-0.2), blob(sigma=2.5)])
    field = Field([[1.0, 0, 0], [0, 0.3, -0.1], [0, 0.0, 0.4]], box)
    psf = BasisPSF(basis, field)
    x, y = [1010.0, 1187.0], [-20.0, 33.0]
    expected = np.einsum("ip,iyx->pyx", field.at(x=x, y=y), basis)
    np.testing.assert_allclose(psf.stamps(x=x, y=y), expected / expected.sum(axis=(1, 2), keepdims=True), rtol=1e-12)


def test_grid_psf_interpolates_linearly_and_is_constant_beyond():
    images = np.array([[blob(sigma=s) for s in row] for row in ((1.5, 2.0, 2.5), (1.7, 2.2, 2.7))])
    psf = GridPSF(images, x=[0.0, 10.0, 30.0], y=[5.0, 9.0])
    at = psf.stamps(x=[15.0, -99.0], y=[6.0, 99.0])
    by_hand = 0.75 * (0.75 * images[0, 1] + 0.25 * images[0, 2]) + 0.25 * (0.75 * images[1, 1] + 0.25 * images[1, 2])
    np.testing.assert_allclose(at[0], by_hand, rtol=1e-12)
    np.testing.assert_allclose(at[1], images[1, 0], rtol=1e-12)


def test_function_psf_names_the_position_where_it_fails():
    def function(x, y):
        if x > 5:
            raise RuntimeError("no stars")
        return blob()

    psf = FunctionPSF(function, shape=(15, 21))
    assert psf.stamps(x=[1, 2], y=[3, 4]).shape == (2, 15, 21)
    with pytest.raises(PSFError, match=r"x=6, y=2.*no stars"):
        psf.stamps(x=[1, 6], y=[0, 2])


def test_sums_below_one_are_believed():
    assert ImagePSF(0.97 * blob()).stamps(x=0, y=0).sum() == pytest.approx(0.97)
    assert ImagePSF(0.97 * blob(), normalize=True).stamps(x=0, y=0).sum() == pytest.approx(1.0)


def test_measured_pixels_of_a_stamp():
    part = np.ones((15, 21), bool)
    assert ImagePSF(blob(), measured=part).measured is None
    part[:2] = False
    np.testing.assert_array_equal(ImagePSF(blob(), measured=part).measured, part)
    with pytest.raises(PSFError, match="measured"):
        ImagePSF(blob(), measured=part.T)


@pytest.mark.parametrize(
    ("stamp", "sentence"),
    [
        (blob((14, 21)), "even size"),
        (np.where(blob() > 0.01, np.nan, blob()), "NaN"),
        (np.zeros((15, 21)), "all zeros"),
        (-blob(), "no positive flux"),
        (blob(dy=5.0), "centre the source"),
        (blob()[0], "dimensions"),
        (blob().astype(complex), "real numbers"),
    ],
)
def test_unusable_stamps_are_refused(stamp, sentence):
    with pytest.raises(PSFError, match=sentence):
        ImagePSF(stamp)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GaussianPSF(fwhm=0.0), "fwhm"),
        (lambda: GaussianPSF(fwhm=3.0, ellipticity=1.0), "ellipticity"),
        (lambda: MoffatPSF(fwhm=3.0, beta=1.0), "beta"),
        (lambda: DoubleGaussianPSF(sigma1=2.0, sigma2=-1.0, b=0.1), "sigma2"),
        (lambda: GaussianPSF(fwhm=3.0, size=20), "odd"),
        (lambda: GaussianPSF(fwhm=3.0, sampling="edge"), "sampling"),
        (lambda: GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(8, 9)), "odd"),
    ],
)
def test_bad_options_name_the_value(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("psf", ANALYTIC, ids=lambda p: type(p).__name__)
def test_models_pickle_copy_and_repr(psf):
    assert pickle.loads(pickle.dumps(psf)) == psf == copy.deepcopy(psf)
    assert eval(repr(psf), vars(psfmatch)) == psf


def test_a_basis_or_a_profile_that_is_none_is_refused():
    box = Box.from_shape((30, 40))
    one, stamp = Field.constant([1.0], box), GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(9, 11))
    with pytest.raises(PSFError, match="BasisPSF: the basis has NaN or infinite pixels"):
        BasisPSF(np.where(stamp > 0.05, np.nan, stamp), one)
    with pytest.raises(PSFError, match="has 1 x 9 px; give at least 3 x 3"):
        ImagePSF(np.ones((9, 1)))
    with pytest.raises(InputError, match=r"beta=2000000\.0: at most 1e\+06; take a Gaussian, which it comes to"):
        MoffatPSF(fwhm=3.0, beta=2e6)
    close = MoffatPSF(fwhm=3.0, beta=1e6).stamps(x=0, y=0, shape=(9, 11))  # it does come to it
    np.testing.assert_allclose(close, stamp, atol=1e-6)
