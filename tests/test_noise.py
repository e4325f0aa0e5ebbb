import numpy as np
import pytest
from astropy.io import fits
from scipy.signal import correlate2d
from scipy.sparse import coo_matrix

from psfmatch import (
    Box,
    Exposure,
    Field,
    FormatError,
    GaussianPSF,
    InputError,
    MatchingKernel,
    PsfMatchWarning,
    convolve,
    read_correlation,
)
from psfmatch.geometry import resized
from psfmatch.io.kernels import correlation_hdus
from psfmatch.noise import (
    NoiseCorrelation,
    aperture_stamps,
    aperture_variance,
    psf_flux_variance,
    weighted_variance,
)

BOX = Box.from_shape((280, 350), y0=-30, x0=50)
OUT = Box.from_shape((170, 230), y0=7, x0=-40)
PSF = GaussianPSF(fwhm=5.0, size=17)
RADIUS = 5.3


def varying_kernel(seed: int) -> MatchingKernel:
    """Elliptical Gaussians whose shares vary over the field, of unit sum."""
    y, x = np.mgrid[-6:7, -7:8]

    def image(sigma: float, axis: float, angle: float) -> np.ndarray:
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        gauss = np.exp(-0.5 * (u**2 + (v / axis) ** 2) / sigma**2)
        return gauss / gauss.sum()

    mean = image(1.3 + 0.1 * seed, 0.9, 0.7 * seed)
    basis = np.array([mean, image(2.1, 0.8, 0.3 + seed) - mean, image(1.1, 1.4, 1.0) - mean])
    coefficients = 0.12 * np.random.default_rng(seed).normal(size=(3, 6))
    coefficients[0] = 1, 0, 0, 0, 0, 0
    return MatchingKernel(basis, Field(coefficients, BOX))


def lanczos(order: int):
    def weights(fraction: np.ndarray) -> np.ndarray:
        t = np.asarray(fraction)[:, None] - (np.arange(2 * order) - order + 1)
        values = np.sinc(t) * np.sinc(t / order)
        return values / values.sum(axis=1, keepdims=True)

    return weights


def rotation(degrees: float, dx: float, dy: float):
    """From the output frame to the input frame, centre to centre."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def positions(*, x, y):
        u, v = x - OUT.center.x, y - OUT.center.y
        return BOX.center.x + c * u + s * v + dx, BOX.center.y - s * u + c * v + dy

    return positions


def resampler(positions, interpolation) -> coo_matrix:
    """The matrix from input to output pixels."""
    y, x = np.mgrid[OUT.y0 : OUT.y1, OUT.x0 : OUT.x1].reshape(2, -1).astype(float)
    at_x, at_y = positions(x=x, y=y)
    low_x, low_y = np.floor(at_x), np.floor(at_y)
    weights = interpolation(at_y - low_y)[:, :, None] * interpolation(at_x - low_x)[:, None, :]
    steps = np.arange(weights.shape[1]) - weights.shape[1] // 2 + 1
    rows = (low_y - BOX.y0).astype(int)[:, None, None] + steps[:, None]
    columns = (low_x - BOX.x0).astype(int)[:, None, None] + steps
    inputs = rows * BOX.shape[1] + columns
    outputs = np.broadcast_to(np.arange(x.size)[:, None, None], inputs.shape)
    shape = (x.size, BOX.shape[0] * BOX.shape[1])
    return coo_matrix((weights.ravel(), (outputs.ravel(), inputs.ravel())), shape=shape).tocsr()


def grid(box: Box, step: int = 14, margin: int = 14) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[box.y0 + margin : box.y1 - margin : step, box.x0 + margin : box.x1 - margin : step]
    return x.ravel().astype(float), y.ravel().astype(float)


def sums(image: np.ndarray, box: Box, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half_y, half_x = weights.shape[0] // 2, weights.shape[1] // 2
    rows, columns = y.astype(int) - box.y0, x.astype(int) - box.x0
    windows = np.lib.stride_tricks.sliding_window_view(image, weights.shape)
    return np.einsum("nji,ji->n", windows[rows - half_y, columns - half_x], weights)


def gain_plane(noise: NoiseCorrelation) -> np.ndarray:
    box = noise.box
    weights = noise.weights.on_grid(x=np.arange(box.x0, box.x1), y=np.arange(box.y0, box.y1))
    return np.tensordot(noise.basis[:, noise.shape[0] // 2, noise.shape[1] // 2], weights, axes=1)


def assert_scatter(draws, noise: NoiseCorrelation, variance: np.ndarray, *, count: int) -> None:
    """Aperture and PSF flux scatter as predicted, to 3 %; the diagonal is wrong by more than a factor of two."""
    x, y = grid(noise.box)
    psf = PSF.stamps(x=0, y=0)[0]
    circle, profile = aperture_stamps(x=0, y=0, radius=RADIUS)[0], psf / (psf**2).sum()
    aperture = aperture_variance(variance, noise, x=x, y=y, radius=RADIUS)
    flux = psf_flux_variance(variance, noise, PSF, x=x, y=y)
    ratios = []
    for image in (next(draws) for _ in range(count)):
        found = [sums(image, noise.box, weights, x, y) ** 2 for weights in (circle, profile)]
        ratios.append([found[0] / aperture, found[1] / flux])
    mean = np.mean(ratios, axis=(0, 2))
    np.testing.assert_allclose(mean, 1.0, atol=0.03)
    order = np.argsort(aperture)
    for half in np.array_split(order, 2):  # where there is little noise, and where there is much
        np.testing.assert_allclose(np.mean(ratios, axis=0)[:, half].mean(axis=1), 1.0, atol=0.05)
    white = NoiseCorrelation.white(noise.box)
    assert (aperture > 2 * aperture_variance(variance, white, x=x, y=y, radius=RADIUS)).all()
    assert (flux > 2 * psf_flux_variance(variance, white, PSF, x=x, y=y)).all()


def matched_draws(kernel: MatchingKernel, sigma: float, seed: int):
    rng = np.random.default_rng(seed)
    while True:
        yield convolve(Exposure(rng.normal(0, sigma, BOX.shape), box=BOX), kernel).image


def test_the_definition_and_the_variance_of_convolution():
    kernel = varying_kernel(1)
    noise = NoiseCorrelation.of_kernel(kernel)
    x, y = grid(BOX, 60)
    stamps = kernel.stamps(x=x, y=y)
    np.testing.assert_allclose(noise.gains(x=x, y=y), (stamps**2).sum(axis=(1, 2)), rtol=1e-10)
    full = correlate2d(stamps[3], stamps[3])
    found = noise.covariances(x=x, y=y)[3]
    np.testing.assert_allclose(resized(found[None], full.shape)[0], full, atol=1e-6)
    assert noise.stamps(x=x, y=y)[:, found.shape[0] // 2, found.shape[1] // 2] == pytest.approx(1.0)
    flat = Exposure(np.zeros(BOX.shape), variance=np.full(BOX.shape, 9.0), box=BOX)
    out = convolve(flat, kernel).variance[15:-15, 15:-15]
    np.testing.assert_allclose(9.0 * gain_plane(noise)[15:-15, 15:-15], out, rtol=1e-4)


def test_a_second_convolution_is_one_with_both_kernels():
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(5, 9)), rng.normal(size=(3, 7))
    twice = NoiseCorrelation.of_kernel(MatchingKernel.constant(first, BOX), tolerance=1e-9).convolved(
        MatchingKernel.constant(second, BOX), tolerance=1e-9
    )
    both = correlate2d(first, second[::-1, ::-1])
    np.testing.assert_allclose(twice.covariances(x=70, y=9)[0], correlate2d(both, both), atol=1e-10)


def test_a_spline_kernel_is_followed():
    rng = np.random.default_rng(8)
    basis = np.abs(rng.normal(size=(2, 5, 7)))
    kernel = MatchingKernel(basis, Field(1 + 0.05 * rng.normal(size=(2, 36)), BOX, "spline"))
    noise = NoiseCorrelation.of_kernel(kernel, tolerance=0.05)
    x, y = rng.uniform(50, 399, 40), rng.uniform(-30, 249, 40)
    want = NoiseCorrelation.of_kernel(MatchingKernel.constant(kernel.stamps(x=x[7], y=y[7])[0], BOX))
    np.testing.assert_allclose(noise.stamps(x=x, y=y)[7], want.stamps(x=0, y=0)[0], atol=0.03)
    np.testing.assert_allclose(noise.gains(x=x, y=y), (kernel.stamps(x=x, y=y) ** 2).sum(axis=(1, 2)), rtol=0.02)


def test_what_varies_too_fast_is_said():
    rng = np.random.default_rng(8)
    rough = MatchingKernel(rng.normal(size=(3, 3, 5)), Field(rng.normal(size=(3, 400)), BOX, "spline"))
    with pytest.warns(PsfMatchWarning, match="varies faster"):
        NoiseCorrelation.of_kernel(rough)


def test_scatter_after_matching():
    kernel = varying_kernel(1)
    noise = NoiseCorrelation.of_kernel(kernel)
    assert_scatter(matched_draws(kernel, 3.0, 11), noise, 9.0 * gain_plane(noise), count=60)


def test_scatter_after_matching_and_rotation():
    kernel, positions, interpolation = varying_kernel(2), rotation(20.0, 0.31, -0.44), lanczos(3)
    matrix = resampler(positions, interpolation)
    noise = NoiseCorrelation.of_kernel(kernel).warped(positions, OUT, interpolation=interpolation)
    draws = ((matrix @ image.ravel()).reshape(OUT.shape) for image in matched_draws(kernel, 2.0, 12))
    assert_scatter(draws, noise, 4.0 * gain_plane(noise), count=120)


def test_scatter_of_a_mean():
    x, y = grid(OUT, 20)
    interpolation = lanczos(4)
    sigmas, weights = np.array([1.0, 1.5, 0.8]), np.array([0.5, 0.2, 0.7])
    streams, parts = [], []
    for k, (angle, sigma) in enumerate(zip((20.0, -7.0, 100.0), sigmas, strict=True)):
        kernel, positions = varying_kernel(k), rotation(angle, 0.3 * k, 0.2)
        matrix = resampler(positions, interpolation)
        parts.append(NoiseCorrelation.of_kernel(kernel).warped(positions, OUT, interpolation=interpolation))
        streams.append(matrix @ image.ravel() for image in matched_draws(kernel, sigma, 20 + k))
    gains = np.stack([part.gains(x=x, y=y) for part in parts])
    variances = Field.fit(gains * sigmas[:, None] ** 2, x=x, y=y, order=4, box=OUT)
    noise = NoiseCorrelation.combined(parts, weights, variances)
    planes = variances.on_grid(x=np.arange(OUT.x0, OUT.x1), y=np.arange(OUT.y0, OUT.y1))
    variance = np.tensordot(weights**2, planes, axes=1) / weights.sum() ** 2
    draws = (np.dot(weights, images).reshape(OUT.shape) / weights.sum() for images in zip(*streams, strict=True))
    assert_scatter(draws, noise, variance, count=60)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.31, 0.42)], ids=["none", "fraction"])
def test_a_shift_of_white_noise_is_not_averaged_over_other_shifts(shift):
    weights = [lanczos(3)(np.array([part]))[0] for part in shift]
    noise = NoiseCorrelation.white(BOX).warped(
        lambda *, x, y: (x + shift[0], y + shift[1]), OUT, interpolation=lanczos(3), tolerance=1e-9
    )
    square = [np.correlate(w, w, "full") for w in weights]
    found = noise.covariances(x=3, y=20)[0]
    want = np.outer(square[1], square[0])[None]
    np.testing.assert_allclose(resized(found[None], want.shape[1:]), want, atol=2e-4)


def test_smooth_noise_turns_with_the_frame():
    """rho_out(d) = rho_in(A d): a long Gaussian kernel along x lies at the angle of the rotation afterwards."""
    y, x = np.mgrid[-12:13, -14:15]
    kernel = MatchingKernel.constant(np.exp(-0.5 * (x**2 / 9.0 + y**2 / 4.0)), BOX)
    noise = NoiseCorrelation.of_kernel(kernel).warped(rotation(30.0, 0.1, 0.2), OUT, interpolation=lanczos(4))
    rho = noise.stamps(x=0, y=20)[0]
    cy, cx = rho.shape[0] // 2, rho.shape[1] // 2
    for dy, dx in ((0, 4), (3, 1), (-2, 5)):
        u = np.cos(np.pi / 6) * dx + np.sin(np.pi / 6) * dy
        v = np.cos(np.pi / 6) * dy - np.sin(np.pi / 6) * dx
        assert rho[cy + dy, cx + dx] == pytest.approx(np.exp(-0.25 * (u**2 / 9.0 + v**2 / 4.0)), abs=3e-3)


def test_combination_is_the_mean_by_shares_of_the_variance():
    parts = [NoiseCorrelation.of_kernel(varying_kernel(k)) for k in (1, 2)]
    both = NoiseCorrelation.combined(parts, [0.3, 0.9], [4.0, 1.0], tolerance=1e-3)
    x, y = grid(BOX, 70)
    a, b = (resized(part.stamps(x=x, y=y), both.shape) for part in parts)
    np.testing.assert_allclose(both.stamps(x=x, y=y), (0.36 * a + 0.81 * b) / 1.17, atol=1e-3)
    np.testing.assert_allclose(both.gains(x=x, y=y), 1.0, atol=1e-3)


def test_a_weighted_sum_against_the_double_sum():
    rng = np.random.default_rng(3)
    noise = NoiseCorrelation.of_kernel(varying_kernel(1))
    plane, g = rng.uniform(1, 4, BOX.shape), rng.normal(size=(3, 5))
    found = weighted_variance(plane, noise, g, x=200.2, y=31.4)[0]
    rho = noise.stamps(x=200.2, y=31.4)[0]
    cy, cx = rho.shape[0] // 2, rho.shape[1] // 2
    h = g * np.sqrt(plane[31 + 30 - 1 : 31 + 30 + 2, 200 - 50 - 2 : 200 - 50 + 3])
    want = sum(
        h[p] * h[q] * rho[cy + q[0] - p[0], cx + q[1] - p[1]] for p in np.ndindex(3, 5) for q in np.ndindex(3, 5)
    )
    assert found == pytest.approx(want)


def test_white_noise_in_apertures_and_psfs():
    white = NoiseCorrelation.white(BOX)
    x, y = np.array([100.3, 180.0]), np.array([20.8, 77.4])
    circles = aperture_stamps(x=x, y=y, radius=3.7)
    np.testing.assert_allclose(circles.sum(axis=(1, 2)), np.pi * 3.7**2)
    found = aperture_variance(2.0, white, x=x, y=y, radius=3.7)
    np.testing.assert_allclose(found, 2.0 * (circles**2).sum(axis=(1, 2)))
    one = psf_flux_variance(2.0, white, PSF, x=x, y=y)
    np.testing.assert_allclose(one, 2.0 / (PSF.stamps(x=0, y=0) ** 2).sum())


def test_a_circle_covers_pixels_by_area():
    fine = (np.arange(9 * 200) + 0.5) / 200 - 4.5
    inside = np.hypot(fine[None, :] - 0.3, fine[:, None] + 0.2) < 2.6
    want = inside.reshape(9, 200, 9, 200).mean(axis=(1, 3))
    np.testing.assert_allclose(aperture_stamps(x=7.3, y=-3.2, radius=2.6)[0], want, atol=1e-3)


def test_unknown_variance_gives_no_number():
    plane = np.ones(BOX.shape)
    plane[100, 60] = np.nan
    found = aperture_variance(
        plane, NoiseCorrelation.white(BOX), x=[110.0, 52.0, 200.0], y=[70.0, 0.0, 0.0], radius=4.0
    )
    assert np.isnan(found).tolist() == [True, True, False]


def test_files_keep_every_bit(tmp_path):
    noise = NoiseCorrelation.of_kernel(varying_kernel(1))
    fits.HDUList([fits.PrimaryHDU(), *correlation_hdus(noise)]).writeto(tmp_path / "noise.fits")
    again = read_correlation(tmp_path / "noise.fits")
    np.testing.assert_array_equal(again.basis, noise.basis)
    np.testing.assert_array_equal(again.weights.coefficients, noise.weights.coefficients)
    assert again.box == noise.box
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(FormatError, match="no NOISE"):
        read_correlation(tmp_path / "empty.fits")


def test_what_does_not_fit_is_refused():
    white = NoiseCorrelation.white(BOX)
    with pytest.raises(InputError, match="do not fit"):
        NoiseCorrelation(np.ones((2, 3, 3)), Field.constant([1.0], BOX))
    with pytest.raises(InputError, match="positive"):
        NoiseCorrelation(np.zeros((1, 3, 5)), Field.constant([1.0], BOX))
    with pytest.raises(InputError, match="meant for"):
        white.convolved(MatchingKernel.constant([[1.0]], OUT))
    with pytest.raises(InputError, match="one box"):
        NoiseCorrelation.combined([white, NoiseCorrelation.white(OUT)], [1, 1], [1, 1])
    with pytest.raises(InputError, match="radius"):
        aperture_stamps(x=1, y=2, radius=0.0)
    with pytest.raises(InputError, match="does not fit"):
        aperture_variance(np.ones((3, 4)), white, x=60, y=0, radius=2.0)


def test_noise_that_cannot_be_is_refused():
    box = Box.from_shape((30, 40))
    white, spot = NoiseCorrelation.white(box), np.zeros((1, 3, 5))
    spot[0, 1, 2] = 1.0
    one = Field.constant([1.0], box)
    with pytest.raises(InputError, match="noise: the basis has NaN or infinite pixels"):
        NoiseCorrelation(np.where(spot > 0, spot, np.nan), one)
    with pytest.raises(InputError, match="2 noise correlations do not fit 3 weights and 2 variances"):
        NoiseCorrelation.combined([white, white], weights=np.ones(3), variances=np.ones(2))
    for weights, variances in (([0.0, 1.0], [1.0, 0.0]), ([1.0, 1.0], [2.0, -1.0])):
        with pytest.raises(InputError, match="one input at least must have both, and no variance be negative"):
            NoiseCorrelation.combined([white, white], weights=weights, variances=variances)
    with pytest.raises(InputError, match="an interpolation over 3 pixels: give an even number"):
        white.warped(lambda *, x, y: (x, y), box, interpolation=lambda fraction: np.ones((fraction.size, 3)) / 3)
