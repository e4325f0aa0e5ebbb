import numpy as np
import pytest

from psfmatch import GaussianPSF, InputError, MoffatPSF, PSFError
from psfmatch.moments import adaptive_moments
from psfmatch.prepare import measured_center, placed, prepared, prepared_pair

SHAPE = {"ellipticity": 0.1, "angle": 20.0}
SOURCES = {
    "gaussian": (GaussianPSF, {"fwhm": 3.0, **SHAPE}),
    "moffat": (MoffatPSF, {"fwhm": 3.0, "beta": 4.0, **SHAPE}),
}


def truth(model, shape, center, pixel=1.0):
    """The model in pixels of a size (in the unit of its FWHM), by quadrature, the source at (y, x) of the array."""
    node, weight = np.polynomial.legendre.leggauss(12)
    dy, dx = ((np.arange(n) - c)[:, None] + 0.5 * node for n, c in zip(shape, center, strict=True))
    fine = model._density((dx * pixel)[None, None], (dy * pixel)[:, :, None, None]) * pixel**2
    return np.einsum("yaxb,a,b->yx", fine, 0.5 * weight, 0.5 * weight)


def compare(got, model, pixel, *, width, ellipticity=1e-3, peak=5e-3):
    wanted = truth(model, got.shape, [n // 2 for n in got.shape], pixel)
    (xx, xy, yy), (txx, txy, tyy) = adaptive_moments(got), adaptive_moments(wanted)
    assert ((xx * yy - xy**2) / (txx * tyy - txy**2)) ** 0.25 == pytest.approx(1.0, abs=width)
    assert (xx - yy) / (xx + yy) == pytest.approx((txx - tyy) / (txx + tyy), abs=ellipticity)
    assert xy / (xx + yy) == pytest.approx(txy / (txx + tyy), abs=ellipticity)
    np.testing.assert_allclose(got, wanted, atol=peak * wanted.max())


def assert_centred(got, tolerance=1e-3):
    assert got.shape[0] % 2 == got.shape[1] % 2 == 1
    y, x = measured_center(got)
    assert abs(y - got.shape[0] // 2) < tolerance
    assert abs(x - got.shape[1] // 2) < tolerance


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("center", [(22.5, 30.5), (23.0, 31.0), (22.31, 30.0), (19.83, 33.27)])
def test_even_stamps_and_sources_off_centre_are_centred(source, center):
    kind, options = SOURCES[source]
    model = kind(**options)
    stamp = truth(model, (46, 62), center)
    for choice in ("auto", "centroid", center):
        got = prepared(stamp, center=choice)
        assert_centred(got)
        assert got.sum() == pytest.approx(stamp.sum(), rel=1e-12)
        compare(got, model, 1.0, width=2e-4)
    assert got.shape[0] >= 46
    assert got.shape[1] >= 62


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("scale", "to_scale"),
    [(0.031, 0.063), (0.063, 0.031), (4.0, 6.0), (6.0, 4.0), (6.0, 8.0), (8.0, 6.0), (8.0, 4.0), (0.04, 0.04)],
)
def test_pixel_scales_of_any_ratio(source, scale, to_scale):
    kind, options = SOURCES[source]
    model = kind(**{**options, "fwhm": 3.2 * max(scale, to_scale)})  # of the coarser pixels, so that both resolve it
    center = (40.2, 51.6)
    stamp = truth(model, (83, 98), center, scale)
    got = prepared(stamp, pixel_scale=scale, to_scale=to_scale, center=center)
    assert got.sum() == pytest.approx(stamp.sum(), rel=1e-6)
    assert_centred(got)
    compare(got, model, to_scale, width=3e-4)


def test_the_limit_of_sampling_is_where_it_is_said_to_be():
    for fwhm, width, peak in ((2.5, 1e-3, 2e-2), (3.0, 1e-4, 7e-3), (4.0, 1e-5, 3e-3)):
        model = MoffatPSF(fwhm=fwhm, beta=3.5, **SHAPE)
        got = prepared(truth(model, (74, 81), (36.5, 40.37)), pixel_scale=1.0, to_scale=0.5, center=(36.5, 40.37))
        compare(got, model, 0.5, width=width, peak=peak)


@pytest.mark.parametrize("angle", [33.0, -117.0, 180.0, 90.0])
@pytest.mark.parametrize("to_scale", [1.0, 0.7, 1.4])
def test_rotation(angle, to_scale):
    model = MoffatPSF(fwhm=4.5, beta=4.0, ellipticity=0.25, angle=20.0)
    stamp = truth(model, (61, 48), (30.3, 22.8))
    got = prepared(stamp, pixel_scale=1.0, to_scale=to_scale, angle=angle, center=(30.3, 22.8))
    turned = MoffatPSF(fwhm=4.5, beta=4.0, ellipticity=0.25, angle=20.0 + angle)
    assert_centred(got)
    assert got.sum() == pytest.approx(stamp.sum(), rel=1e-6)
    compare(got, turned, to_scale, width=1e-4, peak=2e-3)


def test_rotation_turns_from_x_to_y_by_the_whole_angle():
    stamp = np.zeros((21, 33))
    stamp[8:13, 14:19] = 1.0
    stamp[10, 27] = 0.5  # on the +x side
    turned = prepared(stamp, angle=90.0, center="middle")
    dy, dx = np.array(turned.shape) // 2
    assert turned.shape == (33, 21)
    assert turned[dy + 11, dx] > 0.3
    assert np.abs(turned[: dy - 8]).max() < 0.02


def test_flux_goes_where_it_lies_not_to_neighbours():
    """Pixels of twice or three times the size whose edges fall on edges hold the sums, to rounding."""
    rng = np.random.default_rng(8)
    stamp = rng.uniform(size=(21, 15))
    by_three = prepared(stamp, pixel_scale=1.0, to_scale=3.0, center=(10.0, 7.0))
    np.testing.assert_allclose(by_three, stamp.reshape(7, 3, 5, 3).sum(axis=(1, 3)), atol=1e-12)
    by_two = prepared(stamp, pixel_scale=2.0, to_scale=4.0, center=(9.5, 6.5))
    whole = np.pad(stamp, ((1, 0), (2, 1)))
    np.testing.assert_allclose(by_two, whole.reshape(11, 2, 9, 2).sum(axis=(1, 3)), atol=1e-12)


def test_whole_pixel_moves_are_exact_and_centred_stamps_untouched():
    rng = np.random.default_rng(9)
    stamp = rng.uniform(size=(11, 17))
    same = prepared(stamp, center="middle")
    np.testing.assert_array_equal(same, stamp)
    assert not np.shares_memory(same, stamp)
    moved = prepared(stamp, center=(4.0, 9.0))
    assert moved.shape == (13, 19)
    np.testing.assert_allclose(moved[2:, :17], stamp, atol=1e-13)
    np.testing.assert_allclose(moved[:2], 0.0, atol=1e-13)


def test_a_small_asymmetry_is_kept_and_a_shift_is_not():
    stamp = truth(GaussianPSF(fwhm=3.5), (31, 27), (15.06, 13.0))
    np.testing.assert_array_equal(prepared(stamp), stamp)
    assert_centred(prepared(stamp, center="centroid"), 1e-6)
    assert_centred(prepared(truth(GaussianPSF(fwhm=3.5), (31, 27), (15.0, 13.2))), 1e-4)


def test_the_centre_is_measured_to_a_thousandth():
    for center in ((14.2, 17.7), (15.5, 16.5), (9.93, 20.04)):
        y, x = measured_center(truth(MoffatPSF(fwhm=3.0, beta=3.0, **SHAPE), (31, 36), center))
        assert abs(y - center[0]) < 1e-3
        assert abs(x - center[1]) < 1e-3


@pytest.mark.parametrize(
    ("stamp", "options", "error", "message"),
    [
        (np.full((5, 6), np.nan), {}, PSFError, "NaN"),
        (np.zeros((5, 6)), {}, PSFError, "positive flux"),
        (np.ones(5), {}, PSFError, "one image"),
        (np.ones((5, 6), complex), {}, PSFError, "real numbers"),
        (np.eye(6) + 1, {"pixel_scale": 1.0}, InputError, "both, or none"),
        (np.eye(6) + 1, {"pixel_scale": 1.0, "to_scale": -1.0}, InputError, "positive"),
        (np.eye(6) + 1, {"angle": np.inf}, InputError, "degrees"),
        (np.eye(6) + 1, {"center": (7.0, 2.0)}, InputError, "outside"),
        (np.eye(6) + 1, {"center": "peak"}, InputError, "auto, centroid or middle"),
        (np.eye(6) + 1, {"pixel_scale": 1.0, "to_scale": 1e-5, "center": "middle"}, InputError, "cut it first"),
    ],
)
def test_what_cannot_be_prepared_is_said(stamp, options, error, message):
    with pytest.raises(error, match=message):
        prepared(stamp, **options)


def test_of_a_pair_the_science_stamp_is_not_interpolated():
    """An even stamp, its source anywhere, is padded; the target is brought to the same place within the pixel."""
    narrow, wide = GaussianPSF(fwhm=1.4), MoffatPSF(fwhm=4.0, beta=3.5, **SHAPE)
    science, target = truth(narrow, (30, 37), (14.7, 18.4)), truth(wide, (44, 41), (20.1, 21.6))
    for ratio, angle in ((1.0, 0.0), (0.6, 0.0), (1.0, 40.0), (1.3, -25.0)):
        first, second = prepared_pair(
            science,
            target,
            science_scale=ratio,
            target_scale=1.0,
            angle=angle,
            science_center="centroid",
            target_center="centroid",
        )
        np.testing.assert_array_equal(first, np.pad(science, ((0, 1), (0, 0))))
        turned = MoffatPSF(fwhm=4.0, beta=3.5, ellipticity=0.1, angle=20.0 + angle)
        offset = np.array(measured_center(first)) - (15, 18)
        wanted = truth(turned, second.shape, np.array(second.shape) // 2 + offset, ratio)
        np.testing.assert_allclose(second, wanted, atol=6e-3 * wanted.max())
        assert np.abs(np.array(measured_center(second)) - np.array(second.shape) // 2 - offset).max() < 1e-3


def test_a_pair_on_one_grid_is_only_padded():
    science, target = (truth(GaussianPSF(fwhm=f), (30, 36), (14.8, 18.35)) for f in (1.6, 3.0))
    padding = ((0, 1), (0, 1))
    for got, stamp in zip(prepared_pair(science, target), (science, target), strict=True):
        np.testing.assert_array_equal(got, np.pad(stamp, padding))


@pytest.mark.parametrize(("angle", "scale"), [(33.0, 1.0), (-70.0, 1.6), (0.0, 0.7), (90.0, 1.0)])
def test_measured_pixels_are_those_whose_corners_lie_in_the_stamp(angle, scale):
    stamp = truth(GaussianPSF(fwhm=3.5), (30, 37), (14.3, 19.0))
    image, measured = placed(stamp, pixel_scale=1.0, to_scale=scale, angle=angle, center=(14.3, 19.0))
    inside = np.ones(image.shape, bool)
    for j, i in np.ndindex(image.shape):
        for dy, dx in np.ndindex(2, 2):
            corner = complex(i - image.shape[1] // 2 + dx - 0.5, j - image.shape[0] // 2 + dy - 0.5)
            back = scale * corner * np.exp(-1j * np.deg2rad(angle)) + complex(19.0, 14.3)
            inside[j, i] &= -0.501 < back.imag < 29.501 and -0.501 < back.real < 36.501
    np.testing.assert_array_equal(measured, inside)


def test_rows_and_columns_of_zeros_are_not_measured():
    image, measured = placed(truth(GaussianPSF(fwhm=3.5), (31, 38), (18.0, 15.0)), center=(18.0, 15.0))
    assert image.shape == (37, 45)
    wanted = np.zeros((37, 45), bool)
    wanted[:31, 7:] = True
    np.testing.assert_array_equal(measured, wanted)
    assert placed(truth(GaussianPSF(fwhm=3.5), (31, 27), (15.0, 13.0))).measured.all()


def test_a_centre_that_does_not_settle_is_refused():
    """In too few steps, among more darkness than light, and pushed over the border."""
    y, x = np.mgrid[:21, :27].astype(float)
    star = np.exp(-0.5 * (((x - 13.4) / 2.0) ** 2 + ((y - 9.8) / 2.6) ** 2))
    hollow = np.full((21, 27), 0.3)
    hollow[8:11, 12:15], hollow[9, 13] = -1.0, 1.0
    pushed = np.where(x < 15, 0.0, 0.2)  # by what is dark beside it
    pushed[9:12, :3], pushed[9:12, 3:6] = 1.0, -1.0
    for stamp, options in ((star, {"iterations": 1}), (hollow, {}), (pushed, {})):
        with pytest.raises(PSFError, match="the centroid of the PSF stamp does not settle; is there one source in it"):
            measured_center(stamp, **options)
    assert measured_center(star) == pytest.approx((9.8, 13.4), abs=1e-3)
