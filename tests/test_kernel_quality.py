import numpy as np
import pytest
from scipy.signal import convolve2d

from psfmatch import Box, Field, GaussianPSF, ImagePSF, InputError, MatchingKernel, MoffatPSF, measure_quality
from psfmatch.quality import check_positions


@pytest.fixture
def kernel():
    rng = np.random.default_rng(4)
    box = Box.from_shape((60, 90), y0=-20, x0=300)
    return MatchingKernel(rng.normal(size=(7, 5, 9)), Field(rng.normal(size=(7, 6)), box))


X, Y = np.array([300.0, 333.3, 389.0]), np.array([-20.0, 11.1, 39.0])


def test_stamps_and_sums_are_weighted_basis_images(kernel):
    weights = kernel.weights.at(x=X, y=Y)
    stamps = kernel.stamps(x=X, y=Y)
    np.testing.assert_allclose(stamps[1], sum(w * b for w, b in zip(weights[:, 1], kernel.basis, strict=True)))
    np.testing.assert_allclose(kernel.sums(x=X, y=Y), stamps.sum(axis=(1, 2)))


def test_compression_is_exact_at_the_rank_of_the_field(kernel):
    small = kernel.compressed(1e-13)
    assert len(small.basis) == 6
    np.testing.assert_allclose(small.stamps(x=X, y=Y), kernel.stamps(x=X, y=Y), atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.6, 0.3])
def test_compression_keeps_its_promise(kernel, tolerance):
    small = kernel.compressed(tolerance)
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(299.5, 389.5, 60), np.linspace(-20.5, 39.5, 60)))
    whole = kernel.stamps(x=x, y=y)
    measure = (1 - (np.abs(x - 344.5) / 45.0001) ** 2) ** -0.5 * (1 - (np.abs(y - 9.5) / 30.0001) ** 2) ** -0.5
    inside = measure < 20
    lost, all_ = (((a**2).sum(axis=(1, 2)) * measure)[inside].sum() for a in (small.stamps(x=x, y=y) - whole, whole))
    assert len(small.basis) < 6
    assert np.sqrt(lost / all_) < 1.1 * tolerance


def test_the_kernel_of_the_variance_is_the_square(kernel):
    np.testing.assert_allclose(kernel.squared(1e-13).stamps(x=X, y=Y), kernel.stamps(x=X, y=Y) ** 2, atol=1e-10)


def test_a_spline_kernel_compresses_and_squares():
    rng = np.random.default_rng(6)
    box = Box.from_shape((60, 90), y0=-20, x0=300)
    spline = MatchingKernel(rng.normal(size=(2, 3, 5)), Field(1 + 0.3 * rng.normal(size=(2, 64)), box, "spline"))
    x, y = rng.uniform(300, 389, 50), rng.uniform(-20, 39, 50)
    stamps = spline.stamps(x=x, y=y)
    np.testing.assert_allclose(spline.compressed(1e-12).stamps(x=x, y=y), stamps, atol=1e-11)
    squares = spline.squared().stamps(x=x, y=y)
    assert np.abs(squares - stamps**2).max() < 1e-4 * (stamps**2).max()


def test_no_variance_is_lost_where_the_square_of_a_spline_is_truncated():
    """The sum of K^2 is kept to 1e-4 in every place, and zeros outside its footprint too."""
    rng = np.random.default_rng(9)
    box = Box.from_shape((60, 90), y0=-20, x0=300)
    basis = rng.normal(size=(5, 7, 9))
    basis[:, :2, 6:] = 0.0
    spline = MatchingKernel(basis, Field(1 + 0.3 * rng.normal(size=(5, 49)), box, "spline"))
    x, y = rng.uniform(300, 389, 200), rng.uniform(-20, 39, 200)
    squared = spline.squared(3e-2)
    assert len(squared.basis) < 15
    np.testing.assert_allclose(squared.sums(x=x, y=y), (spline.stamps(x=x, y=y) ** 2).sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(squared.basis[:, :2, 6:], 0.0, atol=1e-14)


def test_bad_kernels_are_refused():
    box = Box(0, 0, 9, 9)
    for basis, sentence in (
        (np.ones((2, 3, 3)), "fit"),
        (np.ones((1, 4, 3)), "odd"),
        (np.full((1, 3, 3), np.inf), "NaN"),
    ):
        with pytest.raises(InputError, match=sentence):
            MatchingKernel(basis, Field.constant([1.0], box))
    with pytest.raises(InputError, match="steps; give chebyshev1"):
        MatchingKernel(np.ones((1, 3, 3)), Field(np.ones((1, 4)), box, "cells"))


def test_quality_against_the_definition():
    rng = np.random.default_rng(5)
    science = MoffatPSF(fwhm=3.0, beta=3.0, ellipticity=0.1, angle=20.0, size=21)
    target = GaussianPSF(fwhm=4.5)
    image = GaussianPSF(fwhm=3.4).stamps(x=0, y=0, shape=(9, 13))[0] + rng.normal(0, 1e-3, (9, 13))
    kernel = MatchingKernel.constant(image, Box(0, 0, 50, 70))
    q = measure_quality(kernel, science, target, x=7.0, y=9.0, kernel_sum=1.5)
    matched = convolve2d(science.stamps(x=7, y=9, shape=(37, 45))[0], image, mode="valid")
    want = 1.5 * target.stamps(x=7, y=9, shape=matched.shape)[0]
    d = matched - want
    assert q.residual[0] == pytest.approx(np.linalg.norm(d) / np.linalg.norm(want))
    assert q.max_residual[0] == pytest.approx(np.abs(d).max() / want.max())
    assert q.noise_gain[0] == pytest.approx((image**2).sum())
    assert q.negative_flux[0] == pytest.approx(np.abs(image[image < 0]).sum())
    assert q.kernel_sum[0] == pytest.approx(image.sum())
    y, x = np.mgrid[-14:15, -16:17]
    radius = np.hypot(x, y)
    errors = [abs(d[radius <= r].sum()) for r in np.unique(radius)]
    assert q.ee_error[0] == pytest.approx(max(errors) / 1.5)
    assert q.ee_radius[0] == q.worst_radius == np.unique(radius)[np.array(errors) >= 0.99 * max(errors)][0]
    assert q.worst_radius > 1
    assert q.poor()
    assert not q.poor(tolerance=2.0)
    assert q.worst["residual"] == q.median["residual"] == q.residual[0]


def test_a_fixed_target_larger_than_the_convolution_is_compared_in_full():
    target = np.zeros((41, 61))
    target[20, 30], target[2, 3] = 0.9, 0.1
    kernel = MatchingKernel.constant([[1.0]], Box(0, 0, 9, 9))
    delta = np.zeros((5, 7))
    delta[2, 3] = 0.9
    q = measure_quality(kernel, ImagePSF(delta), ImagePSF(target), x=1, y=1)
    assert q.residual[0] == pytest.approx(0.1 / np.hypot(0.9, 0.1))


def test_positions_fill_the_box_and_avoid_the_grid():
    box = Box.from_shape((300, 500), y0=100, x0=-50)
    x, y = check_positions(box, 6)
    assert (box.x0 <= x).all()
    assert (x <= box.x1 - 1).all()
    assert (box.y0 <= y).all()
    assert (y <= box.y1 - 1).all()
    counts, _, _ = np.histogram2d(x, y, bins=(4, 3), range=[(-50, 449), (100, 399)])
    assert counts.min() >= 1
