"""Defects seen in other programs for the same work, each of which must not be ours."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from psfmatch import (
    AlardLupton,
    Box,
    Clipping,
    Exposure,
    Field,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    MatchingKernel,
    MoffatPSF,
    PSFError,
    PsfMatchWarning,
    Stamp,
    convolve,
    match,
    matching_kernel,
    measure_quality,
)
from psfmatch.moments import fwhm, moments_fwhm
from psfmatch.solve.basis import gaussian_basis

SHAPE = (73, 97)
SCIENCE, TARGET = MoffatPSF(fwhm=3.2, beta=2.5, ellipticity=0.15, angle=30.0), GaussianPSF(fwhm=5.0)


@pytest.fixture(scope="module")
def kernel():
    return matching_kernel(SCIENCE, TARGET, box=Box.from_shape(SHAPE)).kernel


def test_negative_pixels_keep_their_sign(kernel):
    """Sky-subtracted images are negative in half of their pixels; a corrected patch was made positive."""
    image = np.random.default_rng(1).normal(size=SHAPE)
    got, mirrored = convolve(Exposure(image), kernel).image, convolve(Exposure(-image), kernel).image
    np.testing.assert_allclose(got, -mirrored, atol=1e-12)
    assert (got < 0).mean() == pytest.approx(0.5, abs=0.1)


def test_a_flat_image_stays_flat(kernel):
    """It came out between 0.25 and 0.92, or dimmed to 0.70 in a corner."""
    np.testing.assert_allclose(convolve(Exposure(np.ones(SHAPE)), kernel).image, kernel.sums(x=48, y=36)[0], rtol=1e-9)


def test_rows_are_not_columns():
    """A gradient along y of a kernel that shifts by one row, on a frame that is not square."""
    basis = np.zeros((1, 5, 3))
    basis[0, 3, 1] = 1.0
    rows = np.broadcast_to(np.arange(SHAPE[0], dtype=float)[:, None], SHAPE)
    shifted = convolve(Exposure(rows), MatchingKernel(basis, Field.constant([1.0], Box.from_shape(SHAPE)))).image
    np.testing.assert_allclose(shifted[5:-5, 5:-5], rows[4:-6, 5:-5], atol=1e-12)


def test_cells_lie_where_their_psf_is_taken():
    """Rows and columns of a default grid of positions were swapped: a PSF that widens along x, on cells not square."""
    psf = FunctionPSF(lambda x, y: MoffatPSF(fwhm=3.0 + x / 300.0, beta=3.0, size=31).stamps(x=0, y=0)[0], (31, 31))
    solver = AlardLupton(order=1, cell_shape=(19, 31))
    cells = matching_kernel(psf, TARGET, box=Box(-40, 100, 33, 197), solver=solver).cells
    np.testing.assert_array_equal(np.unique(cells.x), [84, 115, 146, 177, 208])
    np.testing.assert_array_equal(np.unique(cells.y), [-50, -31, -12, 7, 26])
    for x, y, stamp in zip(cells.x, cells.y, cells.science, strict=True):
        np.testing.assert_array_equal(stamp, psf.stamps(x=x, y=y, shape=stamp.shape)[0])


def test_clipping_clips():
    """What an option of that name had clipped was thrown away: one cell of 25 whose PSF is broken is left out."""

    def stamp(x, y):
        broken = abs(x - 177) < 5 and abs(y + 31) < 5
        return MoffatPSF(fwhm=3.0 + broken, beta=3.0, size=31).stamps(x=0, y=0)[0]

    box, psf = Box(-40, 100, 33, 197), FunctionPSF(stamp, (31, 31))
    true, clipped, plain = (
        matching_kernel(science, TARGET, box=box, solver=AlardLupton(cell_shape=(19, 31), order=1, clipping=clipping))
        .kernel.stamps(x=177, y=-31)[0]
        for science, clipping in (
            (MoffatPSF(fwhm=3.0, beta=3.0, size=31), Clipping()), (psf, Clipping(sums=True)), (psf, Clipping()),
        )
    )  # fmt: skip
    assert np.abs(clipped - true).max() < 1e-6 * true.max() < 1e-3 * np.abs(plain - true).max()


def test_no_zero_is_invented_inside_a_hole():
    """Within 3 x 3 NaN, a kernel with negative lobes returned 0."""
    image = np.full(SHAPE, 100.0)
    image[30:33, 40:43] = np.nan
    lobes = -0.05 * np.ones((7, 7))
    lobes[2:5, 2:5] = (1.0 - lobes.sum() + 9 * lobes[0, 0]) / 9.0
    out = convolve(Exposure(image), MatchingKernel.constant(lobes, Box.from_shape(SHAPE))).image
    hole = out[29:34, 39:44]
    assert np.all(np.isnan(hole) | (np.abs(hole - 100.0) < 1e-9))


def test_a_stamp_keeps_its_width_on_other_pixels():
    """Resampling that maps end pixels, and not edges, onto each other changes widths by 4 %."""
    science, target = MoffatPSF(fwhm=3.0, beta=3.5), GaussianPSF(fwhm=8.0)
    fine = Stamp(target.stamps(x=0, y=0, shape=(61, 61))[0], pixel_scale=0.125)
    coarse = Stamp(science.stamps(x=0, y=0, shape=(31, 31))[0], pixel_scale=0.2)
    kernel = matching_kernel(coarse, fine).kernel
    star = np.zeros(SHAPE)
    star[36 - 15 : 36 + 16, 48 - 15 : 48 + 16] = coarse.image
    matched = convolve(Exposure(star), kernel).image[36 - 20 : 36 + 21, 48 - 20 : 48 + 21]
    larger_pixel = np.sqrt(8.0 * np.log(2.0) * (0.2**2 - 0.125**2) / 12.0)
    assert 0.2 * fwhm(matched) == pytest.approx(np.hypot(0.125 * fwhm(fine.image), larger_pixel), rel=1e-3)


def test_more_than_one_gaussian():
    """The target is a combination of three Gaussians of the basis, which is found."""
    sigmas, degrees = (0.9, 1.7, 3.1), (3, 2, 1)
    images = gaussian_basis(21, sigmas, degrees)
    truth = np.tensordot(np.random.default_rng(4).normal(size=len(images)) * 0.1 + 1.0, images, axes=1)
    truth /= truth.sum()
    star = np.pad(SCIENCE.stamps(x=0, y=0, shape=(31, 31))[0], 10)
    target = np.zeros_like(star)
    for (dy, dx), value in np.ndenumerate(truth):
        target += value * np.roll(star, (dy - 10, dx - 10), axis=(0, 1))
    solver = AlardLupton(sigmas=sigmas, degrees=degrees, size=21, scale_by_fwhm=False, order=0)
    got = matching_kernel(ImagePSF(star), ImagePSF(target), solver=solver).kernel.stamps(x=0, y=0)[0]
    assert np.abs(got - truth).max() < 1e-9 * truth.max()


def test_the_variance_takes_the_square_of_the_kernel(kernel):
    """Not the kernel itself, not sigma, and not nothing: against 300 draws."""
    random = np.random.default_rng(3)
    sigma = gaussian_filter(random.uniform(1.0, 6.0, SHAPE), 6.0)
    draws = np.array([convolve(Exposure(random.normal(0.0, sigma)), kernel).image for _ in range(300)])
    said = convolve(Exposure(np.zeros(SHAPE), variance=sigma**2), kernel).variance
    assert (draws.var(axis=0) / said).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("solver", "gain", "residual"), [(FreeForm(), 0.07, 1e-3), (AlardLupton(), 0.09, 6e-3)])
def test_no_noise_behind_a_good_residual(solver, gain, residual):
    """Narrow Gaussians left modes that nothing constrains: noise gains of 61 to 184."""
    solution = matching_kernel(SCIENCE, TARGET, solver=solver)
    quality = measure_quality(solution.kernel, SCIENCE, TARGET, x=0, y=0)
    assert quality.noise_gain[0] < gain
    assert quality.residual[0] < residual


def test_the_sum_is_part_of_the_fit():
    """Overwritten afterwards, it took the residual of a Moffat from 3.4e-3 to 1.1e-2."""
    residuals = {}
    for rule in ("constrain", "overwrite"):
        solver = AlardLupton(sum_rule=rule, border="cut", scale_by_fwhm=False)
        kernel = matching_kernel(MoffatPSF(fwhm=3.2, beta=2.5, size=41), TARGET, solver=solver).kernel
        residuals[rule] = measure_quality(kernel, MoffatPSF(fwhm=3.2, beta=2.5, size=41), TARGET, x=0, y=0).residual[0]
        assert kernel.sums(x=0, y=0)[0] == pytest.approx(1.0, abs=1e-9)
    assert residuals["constrain"] < 0.7 * residuals["overwrite"]


def test_one_bad_cell_does_not_kill_the_exposure_and_the_residual_is_told():
    def stamp(x, y):
        if x < 60 and y < 60:
            raise PSFError("no PSF in this corner")
        return MoffatPSF(fwhm=3.0 + x / 900.0, beta=3.0, size=31).stamps(x=0, y=0)[0]

    exposure = Exposure(np.zeros((181, 263)), psf=FunctionPSF(stamp, shape=(31, 31)))
    with pytest.warns(PsfMatchWarning, match=r"left out|could not be measured at 2 of 25"):
        matched = match(exposure, MoffatPSF(fwhm=4.6, beta=3.3))
    assert len(matched.solution.cells.skipped) > 0
    assert 0 < matched.quality.worst["residual"] < 0.01
    want = MoffatPSF(fwhm=4.6, beta=3.3).stamps(x=0, y=0, shape=(31, 31))
    np.testing.assert_array_equal(matched.exposure.psf.stamps(x=150, y=120, shape=(31, 31)), want)


def test_an_edge_does_not_look_like_data(kernel):
    """Zeros beyond the border make a dark rim; it is flagged, and its level is that of the sky."""
    out = convolve(Exposure(np.full(SHAPE, 10.0), variance=np.ones(SHAPE)), kernel)
    half = kernel.shape[0] // 2
    edge = out.mask.any_of("EDGE")
    assert edge[:half].all()
    assert not edge[half:-half, half:-half].any()
    assert np.abs(out.image - 10.0 * kernel.sums(x=0, y=0)[0]).max() < 1e-6
    assert out.variance[0, 0] > 2 * out.variance[36, 48]


def test_the_width_of_the_science_psf_is_not_taken_on_trust():
    """What comes out is measured: the matched star has the target's moments."""
    kernel = matching_kernel(SCIENCE, TARGET).kernel
    star = np.pad(SCIENCE.stamps(x=0, y=0, shape=(101, 101))[0], 20)
    out = convolve(
        Exposure(star), MatchingKernel(kernel.basis, Field(kernel.weights.coefficients, Box.from_shape(star.shape)))
    )
    want = TARGET.stamps(x=0, y=0, shape=(41, 41))[0]
    assert moments_fwhm(out.image[50:91, 50:91]) == pytest.approx(moments_fwhm(want), rel=5e-3)
