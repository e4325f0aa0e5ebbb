"""Kernels between stamps as they come, each against the analytic profiles."""

import numpy as np
import pytest

from psfmatch import GaussianPSF, ImagePSF, InputError, MoffatPSF, PSFError, PsfMatchWarning, Stamp, matching_kernel
from psfmatch.prepare import measured_center

SCIENCE = {"fwhm": 0.7, "ellipticity": 0.1}  # arcsec
TARGET = {"fwhm": 1.1, "beta": 4.0, "ellipticity": 0.25}


def truth(model, shape, center, pixel):
    """The model in pixels of a size (in the unit of its FWHM), by quadrature, the source at (y, x) of the array."""
    node, weight = np.polynomial.legendre.leggauss(12)
    dy, dx = ((np.arange(n) - c)[:, None] + 0.5 * node for n, c in zip(shape, center, strict=True))
    fine = model._density((dx * pixel)[None, None], (dy * pixel)[:, :, None, None]) * pixel**2
    return np.einsum("yaxb,a,b->yx", fine, 0.5 * weight, 0.5 * weight)


def true_residual(solution, science, target, pixel):
    """Of the whole profiles on centred pixels of the science stamp, by an independent convolution."""
    image = solution.kernel.stamps(x=0, y=0)[0]
    shape = (121, 127)
    s, t = (np.fft.rfft2(np.fft.ifftshift(truth(m, shape, (60, 63), pixel))) for m in (science, target))
    (ky, kx), padded = image.shape, np.zeros(shape)
    padded[:ky, :kx] = image
    k = np.fft.rfft2(np.roll(padded, (-(ky // 2), -(kx // 2)), (0, 1)))
    left, norm = (np.linalg.norm(np.fft.irfft2(f, shape)) for f in (k * s - t, t))
    return left / norm


def offset(solution):
    """Of the kernel's centroid from its central pixel."""
    image = solution.kernel.stamps(x=0, y=0)[0]
    y, x = (np.arange(n) - n // 2 for n in image.shape)
    return np.hypot(y @ image.sum(axis=1), x @ image.sum(axis=0)) / image.sum()


@pytest.mark.parametrize("center", [(25.5, 22.5), (26.0, 23.0), (24.3, 21.8)])
def test_an_even_stamp_gives_the_kernel_of_the_centred_psfs(center):
    """The science source is at a pixel corner; the target's at a corner, in a pixel, or anywhere."""
    science, target = GaussianPSF(**SCIENCE, angle=20.0), MoffatPSF(**TARGET, angle=35.0)
    first, second = truth(science, (40, 44), (19.5, 21.5), 0.2), truth(target, (52, 46), center, 0.2)
    solution = matching_kernel(first, second)
    assert offset(solution) < 1e-3
    assert true_residual(solution, science, target, 0.2) < 3e-4


@pytest.mark.parametrize("scales", [(0.2, 0.3), (0.3, 0.2)])
def test_pixels_of_different_sizes(scales):
    science, target = GaussianPSF(**{**SCIENCE, "fwhm": 1.0}, angle=20.0), MoffatPSF(**TARGET, angle=35.0)
    wide = target.scaled(1.4)
    first, second = truth(science, (40, 44), (19.5, 21.5), scales[0]), truth(wide, (62, 57), (30.2, 28.0), scales[1])
    solution = matching_kernel(Stamp(first, scales[0]), Stamp(second, scales[1]))
    assert offset(solution) < 1e-3
    assert true_residual(solution, science, wide, scales[0]) < 5e-4


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_position_angles_and_parities(mirrored):
    """On the sky both long axes lie at fixed position angles, whatever the two images' axes are."""
    angles, long_axes = (20.0, -40.0), (110.0, 75.0)

    def seen(kind, options, which, k):  # the angle from +x towards +y of a position angle in image k
        turn = long_axes[which] - angles[k]
        return kind(**options, angle=90.0 - turn if mirrored[k] else 90.0 + turn)

    first = truth(seen(GaussianPSF, SCIENCE, 0, 0), (40, 44), (19.5, 21.5), 0.2)
    second = truth(seen(MoffatPSF, TARGET, 1, 1), (52, 46), (25.2, 22.2), 0.2)
    solution = matching_kernel(
        *(Stamp(i, 0.2, a, m) for i, a, m in zip((first, second), angles, mirrored, strict=True))
    )
    assert offset(solution) < 1e-3
    assert true_residual(solution, seen(GaussianPSF, SCIENCE, 0, 0), seen(MoffatPSF, TARGET, 1, 0), 0.2) < 4e-4


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("turn", "center", "residual"), [(33.0, (25.0, 22.0), 2e-4), (0.0, (25.0, 28.0), 3e-4), (-21.0, (22.4, 23.3), 3e-4)]
)
def test_zeros_about_a_stamp_are_not_taken_for_pixels(turn, center, residual, normalize):
    """Turned, or with the source off the middle: the flux beyond the pixels is told, and the wings go on from there."""
    science, target = GaussianPSF(**SCIENCE, angle=20.0), MoffatPSF(**TARGET, angle=35.0)
    first = truth(science, (41, 45), (20.0, 22.0), 0.2)
    second = truth(MoffatPSF(**TARGET, angle=35.0 - turn), (51, 45), center, 0.2)
    solution = matching_kernel(Stamp(first, angle=0.0), Stamp(second, angle=turn, normalize=normalize))
    assert solution.statistics["missing_flux_target"] == pytest.approx(1.0 / second.sum() - 1.0, rel=0.3)
    assert true_residual(solution, science, target, 0.2) < residual
    assert offset(solution) < 2e-3


@pytest.mark.parametrize(
    ("turn", "pixel", "shape"), [(33.0, 0.2, (51, 45)), (0.0, 0.3, (37, 33)), (-50.0, 0.13, (79, 70))]
)
def test_noise_is_not_turned_into_structure(turn, pixel, shape):
    """A noisy target on other pixels gives nearly the kernel of one on the science stamp's own."""
    science, target = GaussianPSF(**SCIENCE, angle=20.0), MoffatPSF(**TARGET, angle=35.0)
    first = truth(science, (41, 45), (20.0, 22.0), 0.2)

    def residual(angle, *grid):
        clean = truth(MoffatPSF(**TARGET, angle=35.0 - angle), *grid)
        noisy = clean + np.random.default_rng(5).normal(0.0, clean.max() / 500.0, clean.shape)
        solution = matching_kernel(Stamp(first, 0.2, 0.0), Stamp(noisy, grid[2], angle))
        return true_residual(solution, science, target, 0.2)

    own = residual(0.0, (51, 45), (25.0, 22.0), 0.2)
    assert residual(turn, shape, ((shape[0] - 1) / 2, (shape[1] - 1) / 2), pixel) < 3.0 * own


def test_a_mirrored_target_needs_no_angle():
    science = truth(GaussianPSF(**SCIENCE, angle=20.0), (35, 41), (17.0, 20.0), 0.2)
    target = truth(MoffatPSF(**TARGET, angle=35.0), (43, 38), (21.0, 18.5), 0.2)
    mirrored = matching_kernel(science, Stamp(target[:, ::-1], mirrored=True)).kernel.basis
    np.testing.assert_array_equal(mirrored, matching_kernel(science, target).kernel.basis)


def test_a_model_has_pixels_too():
    """A science PSF that is no stamp: its pixel scale is what the target's stamp is brought to."""
    model, target = GaussianPSF(fwhm=3.5, size=41), MoffatPSF(**TARGET)
    stamp = Stamp(truth(target, (52, 46), (25.3, 20.0), 0.3), 0.3)
    solution = matching_kernel(Stamp(model, 0.2), stamp)
    assert true_residual(solution, GaussianPSF(fwhm=0.7), target, 0.2) < 1e-3
    with pytest.warns(PsfMatchWarning, match="science PSF: says nothing of its pixel scale"):
        matching_kernel(model, stamp)
    with pytest.raises(InputError, match="target PSF: not a stamp"):
        matching_kernel(stamp, Stamp(model, 0.2))


def test_odd_centred_stamps_are_taken_as_they_are():
    pixel = 0.2
    first = truth(GaussianPSF(**SCIENCE, angle=20.0), (35, 41), (17.04, 20.0), pixel)
    second = truth(MoffatPSF(**TARGET, angle=35.0), (43, 37), (21.0, 17.95), pixel)
    as_models = matching_kernel(ImagePSF(first), ImagePSF(second)).kernel.basis
    np.testing.assert_array_equal(matching_kernel(first, second).kernel.basis, as_models)
    np.testing.assert_array_equal(matching_kernel(Stamp(first, 0.2), Stamp(second, 0.2)).kernel.basis, as_models)


def test_where_the_source_is_can_be_said():
    science, target = (truth(GaussianPSF(fwhm=f), (41, 36), (20.0, 18.0), 0.2) for f in (0.7, 1.0))
    moved = truth(GaussianPSF(fwhm=1.0), (41, 36), (20.0, 19.0), 0.2)
    kept = matching_kernel(Stamp(science, center=(20.0, 18.0)), Stamp(moved, center=(20.0, 18.0)))
    image = kept.kernel.stamps(x=0, y=0)[0]
    assert np.array(measured_center(image)) - np.array(image.shape) // 2 == pytest.approx([0.0, 1.0], abs=1e-3)
    free = matching_kernel(science, moved).kernel.stamps(x=0, y=0)[0]
    wanted = matching_kernel(science, target).kernel.stamps(x=0, y=0)[0]
    np.testing.assert_allclose(free, wanted, atol=1e-4 * wanted.max())


def test_a_stamp_in_counts_is_normalised_where_asked():
    science, target = (truth(GaussianPSF(fwhm=f), (40, 44), (19.5, 21.5), 0.2) for f in (0.7, 1.0))
    plain = matching_kernel(science, target).kernel.basis
    scaled = matching_kernel(Stamp(4e3 * science, normalize=True), Stamp(7.0 * target, normalize=True)).kernel.basis
    np.testing.assert_allclose(scaled, plain, atol=1e-6 * plain.max())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image": np.zeros((4, 6))}, PSFError, "no positive flux"),
        ({"image": np.ones((4, 6)), "pixel_scale": 0.0}, InputError, "above 0"),
        ({"image": np.ones((4, 6)), "angle": np.nan}, InputError, "degrees"),
    ],
)
def test_stamps_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Stamp(**options)
    with pytest.raises(InputError, match="one position angle is known"):
        matching_kernel(Stamp(np.eye(6) + 1, angle=20.0), np.eye(7) + 1)
