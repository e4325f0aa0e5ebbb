import sys
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from psfmatch import ClippedMean, InputError, Mean, Median, MoffatPSF, combine
from psfmatch.coadd import median_factor
from psfmatch.exposure import MASK_PLANES

SHAPE = (90, 130)
N = 12
SIGMA = np.array([1.0, 1.3, 0.8, 1.9, 1.1, 1.6, 0.9, 1.2, 1.4, 1.0, 1.7, 1.05])
WEIGHTS = np.array([1.0, 0.4, 2.0, 0.3, 0.9, 0.5, 1.1, 0.7, 0.6, 1.3, 0.2, 1.0])
NO_FLAGS = np.zeros((N, *SHAPE), np.int32)
CR, DETECTED, NO_DATA = (1 << MASK_PLANES[name] for name in ("CR", "DETECTED", "NO_DATA"))


def noise(seed: int, n: int = N, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Images and variances whose sigma differs from input to input and from row to row."""
    sigma = SIGMA[:n, None, None] * np.linspace(0.8, 1.2, shape[0])[:, None] * np.ones(shape)
    image = np.random.default_rng(seed).normal(0, sigma)
    return image.astype(np.float32), (sigma**2).astype(np.float32)


def trail(peak: float, shape: tuple[int, int] = SHAPE, fwhm: float = 5.0) -> np.ndarray:
    """A line through the frame, with a Gaussian profile."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = 0.8 * (y - 0.3 * shape[0]) - 0.6 * (x - 0.35 * shape[1])
    return (peak * np.exp(-4 * np.log(2) * (distance / fwhm) ** 2)).astype(np.float32)


def blurred_noise(seed: int, n: int, shape: tuple[int, int]) -> np.ndarray:
    """Noise as matching leaves it, of unit variance: correlated over 3 px."""
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng(seed).normal(size=(n, *shape))
    smooth = gaussian_filter(white, (0, 1.3, 1.3), mode="wrap")
    return (smooth / smooth.std()).astype(np.float32)


@pytest.mark.parametrize("method", [Mean(), Median(), ClippedMean()], ids=["mean", "median", "clipped"])
@pytest.mark.parametrize("n", [2, 3, 12])
def test_variance_is_the_scatter_of_repeated_draws(method, n):
    """Unequal variances and weights, 5 % of the pixels flagged or absent: to 1.5 %."""
    masked = np.random.default_rng(0).uniform(size=(n, *SHAPE))
    flags = np.where(masked < 0.025, CR, 0).astype(np.int32)
    chi2 = []
    for seed in range(6):
        images, variances = noise(seed, n)
        images[masked > 0.975] = np.nan
        images[flags > 0] = 1e6
        out = combine(images, variances, flags, WEIGHTS[:n], method=method)
        seen = out.count > 0
        chi2.append((out.image[seen] ** 2 / out.variance[seen]).mean())
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.015)
    assert out.count.min() >= 0
    np.testing.assert_array_equal(out.count, ((masked >= 0.025) & (masked <= 0.975) & ~out.clipped).sum(axis=0))


def test_the_mean_is_its_formula():
    images, variances = noise(3)
    images[4, 20, 30] = np.nan
    out = combine(images, variances, NO_FLAGS, WEIGHTS, method=Mean())
    w = np.delete(WEIGHTS, 4)
    assert out.image[20, 30] == pytest.approx((w * np.delete(images[:, 20, 30], 4)).sum() / w.sum(), rel=1e-5)
    want = (w**2 * np.delete(variances[:, 20, 30], 4)).sum() / w.sum() ** 2
    assert out.variance[20, 30] == pytest.approx(want, rel=1e-5)
    assert out.image.dtype == out.variance.dtype == np.float32


def test_the_median_of_few_gaussians():
    """1.346, 1.193, 1.434, 1.288: 0.4487, 0.2982, 0.2868 and 0.2147 of the variance of one."""
    np.testing.assert_allclose([median_factor(n) / n for n in (1, 2, 3, 4, 5, 6)],
                               [1.0, 0.5, 0.4487, 0.2982, 0.2868, 0.2147], atol=6e-5)  # fmt: skip
    assert median_factor(2001) == pytest.approx(np.pi / 2, rel=1e-3)
    images, variances = noise(4)
    images[7, 3, 5] = np.nan
    out = combine(images, variances, NO_FLAGS, method=Median())
    np.testing.assert_allclose(out.image, np.nanmedian(images, axis=0), atol=1e-6)


@pytest.mark.parametrize("peak", [3, 4, 5, 7, 12, 30, 100, 300])
def test_nothing_of_a_satellite_is_left(peak):
    """What it adds to the coadd is everywhere less than the coadd's noise."""
    images = blurred_noise(5, N, SHAPE)
    variances = np.ones_like(images)
    line = trail(peak)
    weights = np.ones(N)
    before = combine(images, variances, NO_FLAGS, weights)
    images[6] += line
    out = combine(images, variances, NO_FLAGS, weights)
    share = np.where(out.clipped[6], 0.0, line) / out.count
    assert (share / np.sqrt(out.variance)).max() < 1.0
    assert before.clipped.mean() < 1e-4
    far = line < 1e-8 * peak
    assert out.clipped[6][far].mean() < 0.01


def star_stack(peak: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stars whose PSFs differ by 2e-3 (norm of the residual) and flux scales by 0.3 %, on the noise of the sky."""
    rng = np.random.default_rng(seed)
    size = 61
    target = MoffatPSF(fwhm=5.0, beta=3.5).stamps(x=0, y=0, shape=(size, size))[0]
    images = blurred_noise(seed, N, SHAPE)
    for y, x, flux in ((40, 45, 1.0), (57, 93, 0.1)):
        for k in range(N):
            other = MoffatPSF(
                fwhm=5.0 * (1 + rng.normal(0, 0.2)),
                beta=3.0,
                ellipticity=rng.uniform(0, 0.3),
                angle=rng.uniform(0, 180),
            ).stamps(x=0, y=0, shape=(size, size))[0]
            error = other - target
            psf = target + 2e-3 * np.linalg.norm(target) / np.linalg.norm(error) * error
            star = flux * peak / target.max() * (1 + rng.normal(0, 3e-3)) * psf
            cut = images[k, y - 30 : y + 31, x - 30 : x + 31]
            cut += star[: cut.shape[0], : cut.shape[1]]
    return images, np.ones_like(images)


@pytest.mark.parametrize("peak", [1e2, 1e3, 1e4, 1e5])
def test_no_star_is_clipped(peak):
    images, variances = star_stack(peak, 8)
    out = combine(images, variances, NO_FLAGS)
    assert out.clipped.mean() < 2e-3
    assert not out.clipped[:, 35:46, 40:51].any()
    assert not out.clipped[:, 52:63, 88:99].any()


@pytest.mark.parametrize(("star", "peak"), [(3e2, 30), (1e3, 30), (3e3, 300), (1e4, 300)])
def test_nothing_of_a_satellite_is_left_on_stars_and_around_masked_pixels(star, peak):
    """It crosses both stars, a tenth of whose light would hide it, and holes that cut it into pieces."""
    images, variances = star_stack(star, 8)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    across = ((rows - 40) * 48 - (columns - 45) * 17) / np.hypot(48, 17)
    line = peak * np.exp(-0.5 * (across / 2.1) ** 2)
    masks = np.zeros(images.shape, np.int32)
    holes = np.random.default_rng(4).random(SHAPE) < 0.006
    masks[6] = np.where(ndimage.binary_dilation(holes, np.ones((7, 9))), 1 << MASK_PLANES["INTRP"], 0)
    images[6] += line
    out = combine(images, variances, masks)
    share = np.where(out.clipped[6] | (masks[6] != 0), 0.0, line) / out.count
    assert (share / np.sqrt(out.variance)).max() < 1.0
    assert not np.delete(out.clipped, 6, 0)[:, 35:46, 40:51].any()
    assert out.clipped[6][np.abs(across) > 20].mean() < 0.01


def test_regions_grow_to_where_they_are_connected():
    """A convolved cosmic ray is clipped with its wings, not with other pixels above the lower threshold."""
    images = np.zeros((5, *SHAPE), np.float32)
    images[2, 20, 30:34] = 3.0, 9.0, 3.0, 1.0
    images[2, 60, 100] = 3.0
    images[2, 21, 31] = -3.0
    out = combine(images, np.ones_like(images), NO_FLAGS[:5], method=ClippedMean(pad=0, scale=1))
    assert np.argwhere(out.clipped).tolist() == [[2, 20, 30], [2, 20, 31], [2, 20, 32]]
    assert out.count[20, 31] == 4
    padded = combine(images, np.ones_like(images), NO_FLAGS[:5], method=ClippedMean(pad=1, scale=1))
    assert padded.clipped.sum() == padded.clipped[2, 19:22, 29:34].sum() == 15


def test_of_two_the_brighter_is_clipped_or_none():
    images = np.zeros((2, *SHAPE), np.float32)
    images[0, 20, 30], images[1, 50, 70] = 20.0, -20.0
    stack = images, np.ones_like(images), NO_FLAGS[:2]
    assert np.argwhere(combine(*stack, method=ClippedMean(pad=0, scale=1)).clipped).tolist() == [
        [0, 20, 30],
        [0, 50, 70],
    ]
    assert not combine(*stack, method=ClippedMean(two="none")).clipped.any()
    one = np.full_like(images, np.nan)
    one[1] = images[1]
    out = combine(one, *stack[1:])
    assert not out.clipped.any()
    np.testing.assert_array_equal(out.image, images[1])


def test_something_is_always_left():
    """Where two artefacts in two exposures touch, each one's surroundings take in the other."""
    images = np.zeros((2, *SHAPE), np.float32)
    images[0, 20, 30:40], images[1, 20, 40:50] = 90.0, 90.0
    images[0, 60, 70], images[1, 60, 72] = 90.0, np.nan
    out = combine(images, np.ones_like(images), NO_FLAGS[:2])
    assert out.count.min() == 1
    assert out.clipped[0, 20, 32]
    assert out.clipped[1, 20, 47]


def test_flags_pass_from_what_is_used():
    images, variances = noise(6, 3)
    flags = np.zeros((3, *SHAPE), np.uint8)
    flags[0, 4, 5], flags[1, 4, 5] = CR | DETECTED, DETECTED
    flags[0, 7, 9], flags[2, 30, 3] = CR | DETECTED, 128
    flags[:, 50, 60] = CR, CR | 128, CR
    images[:, 70, 8] = np.nan
    out = combine(images, variances, flags, method=Mean(), keep=("DETECTED",))
    assert [out.mask[4, 5], out.mask[7, 9], out.mask[30, 3]] == [DETECTED, 0, 0]
    assert [out.mask[50, 60], out.mask[70, 8]] == [CR | 128 | NO_DATA, NO_DATA]
    assert np.isnan(out.image[50, 60])
    assert np.isinf(out.variance[50, 60])
    assert [out.count[4, 5], out.count[50, 60]] == [2, 0]
    everything = combine(images, variances, flags, method=Mean())
    assert everything.mask[30, 3] == 128
    rejecting_none = combine(images, variances, flags, method=Mean(), reject=())
    assert rejecting_none.count[4, 5] == 3


def test_strips_do_not_show(monkeypatch):
    images, variances = noise(7)
    images[3] += trail(8)
    whole = combine(images, variances, NO_FLAGS, WEIGHTS)
    monkeypatch.setattr(sys.modules["psfmatch.coadd.combine"], "STRIP_BYTES", 7 * 8 * N * SHAPE[1])
    parts = combine(images, variances, NO_FLAGS, WEIGHTS)
    for name in ("image", "variance", "mask", "count", "clipped"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_planes_of_a_file_in_its_byte_order():
    images, variances = noise(7, 3)
    want = combine(images, variances, NO_FLAGS[:3], WEIGHTS[:3])
    found = combine(images.astype(">f4"), variances.astype(">f4"), NO_FLAGS[:3].astype(">i4"), WEIGHTS[:3])
    np.testing.assert_array_equal(found.image, want.image)
    assert found.image.dtype.isnative
    assert found.mask.dtype.isnative


def test_a_patch_takes_less_memory_than_two_stacks():
    images, variances = noise(2, N, (600, 530))
    flags = np.zeros(images.shape, np.int32)
    tracemalloc.start()
    try:
        combine(images, variances, flags)
        assert tracemalloc.get_traced_memory()[1] < 1.7 * images.nbytes
    finally:
        tracemalloc.stop()


def test_bad_input_is_refused():
    images, variances = noise(1, 3)
    flags = NO_FLAGS[:3]
    for call, sentence in (
        (lambda: combine(images, variances[:2], flags), "one shape"),
        (lambda: combine(images, variances, flags * 1.0), "integers"),
        (lambda: combine(images * 1j, variances, flags), "images of dtype complex64: give real numbers"),
        (lambda: combine(images, variances, flags, [1, -1, 1]), "weights"),
        (lambda: combine(images, variances, flags, keep=("STREAK",)), "STREAK"),
        (lambda: ClippedMean(grow=7.0), "grow"),
        (lambda: ClippedMean(model_error=-1.0), "model_error"),
        (lambda: ClippedMean(two="fainter"), "two"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()
