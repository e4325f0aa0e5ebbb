"""Warping, against astropy's own coordinates, analytic stars, and sums over weights written out."""

from importlib.resources import files

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from psfmatch import (
    Box,
    Exposure,
    FunctionPSF,
    GaussianPSF,
    Grid,
    ImagePSF,
    InputError,
    Kaiser,
    Lanczos,
    Mask,
    MoffatPSF,
    Position,
    PSFError,
    PsfMatchWarning,
    Recipe,
    Transform,
    WarpedPSF,
    coadd,
    read_exposure,
    warp,
    write_exposure,
)
from psfmatch.warp.mesh import pieces

BOX = Box(40, -30, 40 + 170, -30 + 210)
MOFFAT = {"beta": 3.0, "ellipticity": 0.15, "angle": 25.0}
STARS = GaussianPSF(fwhm=3.0, ellipticity=0.15, angle=25.0), MoffatPSF(fwhm=3.5, **MOFFAT)
INTERPOLATIONS = [Kaiser(), Lanczos(3)]
RNG = np.random.default_rng(8)


def turned(*, scale=0.3, angle=30.0, flipped=True):
    """A gnomonic WCS turned by an angle, with or without a flip."""
    t = np.radians(angle)
    matrix = scale / 3600 * np.array([[-np.cos(t), np.sin(t)], [np.sin(t), np.cos(t)]])
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.crval, w.wcs.crpix = ("RA---TAN", "DEC--TAN"), (211.3, -37.2), (98.0, 77.5)
    w.wcs.cd = matrix @ np.diag([-1.0 if flipped else 1.0, 1.0])
    return w


def sip(strength=1.0):
    """A turned and flipped WCS whose scale changes by some per cent over `BOX`."""
    header = turned().to_header()
    header.update(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=3, B_ORDER=3)
    header.update(A_2_0=6e-5 * strength, A_0_2=-3e-5 * strength, A_1_1=4e-5 * strength, A_0_3=2e-7 * strength)
    header.update(B_0_2=5e-5 * strength, B_1_1=-2e-5 * strength, B_2_1=-3e-7 * strength, B_2_0=1e-5 * strength)
    return WCS(header)


def zpn():
    """A zenithal polynomial half a degree from its middle, where the scale is 3 % off and the pixels are no squares."""
    header = turned().to_header()
    header.update(CTYPE1="RA---ZPN", CTYPE2="DEC--ZPN", CRPIX1=-5200.0, CRPIX2=3100.0)
    header.update(PV2_0=0.0, PV2_1=1.0, PV2_2=0.0, PV2_3=150.0, PV2_4=0.0, PV2_5=-2e4)
    return WCS(header)


def demo():
    """A frame of DECam, whose WCS is TPV."""
    return read_exposure(files("psfmatch") / "data/demo/c4d_170316_062107_ooi_z_ls9.N2.fits.gz")


def grid_about(wcs, shape=(213, 247), *, pixel_scale=0.33, rotation=7.0):
    """A grid about the middle of `BOX` in pixels of a WCS."""
    ra, dec = wcs.pixel_to_world_values(105.2, 85.7)
    return Grid.centered(float(ra), float(dec), shape=shape, pixel_scale=pixel_scale, rotation=rotation)


def sky_of(psf, x, y):
    """Stars of unit flux at positions of the parent frame, on `BOX`."""
    rows, columns = (g.ravel() for g in np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1])
    return sum(psf.pixels(dx=columns - a, dy=rows - b) for a, b in zip(x, y, strict=True)).reshape(BOX.shape)


def residual(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


# --- where pixels lie


WORLDS = pytest.mark.parametrize("wcs", [sip(), turned(), demo().wcs, zpn()], ids=["SIP", "TAN", "TPV", "ZPN"])


@WORLDS
def test_a_transform_is_the_sky_between_two_wcs(wcs):
    grid = grid_about(wcs)
    transform = Transform.between(grid.wcs, wcs, from_origin=Position(5, -7), to_origin=Position(40, -30))
    x, y = RNG.uniform(40, 160, 30), RNG.uniform(40, 130, 30)
    sky = SkyCoord(*wcs.pixel_to_world_values(x, y), unit="deg")
    gx, gy = grid.wcs.world_to_pixel(sky)
    found = transform.positions(x=gx - 7, y=gy + 5)
    np.testing.assert_allclose(found, [x - 30, y + 40], rtol=0, atol=1e-6)
    np.testing.assert_allclose(transform.inverse.positions(x=x - 30, y=y + 40), [gx - 7, gy + 5], rtol=0, atol=1e-6)


def test_the_jacobian_carries_offsets_on():
    wcs = sip()
    transform = Transform.between(grid_about(wcs).wcs, wcs)
    x, y, h = np.array([60.0, 171.0]), np.array([150.0, 33.0]), 1e-2
    for u, v in ((h, 0.0), (0.0, h), (h, -2 * h)):
        moved = np.subtract(transform.positions(x=x + u, y=y + v), transform.positions(x=x, y=y))
        np.testing.assert_allclose((transform.jacobian(x=x, y=y) @ (u, v)).T, moved, rtol=0, atol=3e-6)


def kinked(x, y):
    """Not smooth along a line, as a table of distortions between its nodes."""
    return x + 0.02 * np.abs(x - 50.3), y - 0.01 * np.abs(y - 0.3 * x)


def test_every_pixel_of_a_frame_is_placed_to_1e_4():
    transforms = [Transform.between(grid_about(w).wcs, w) for w in (sip(), sip(4.0), demo().wcs, zpn())]
    for transform in [*transforms, Transform(kinked, kinked)]:
        whole = Box(3, 5, 3 + 171, 5 + 204)
        seen = np.zeros(whole.shape, int)
        for box, surface in pieces(transform, whole):
            seen[box.slices(whole)] += 1
            y, x = (g.ravel() for g in np.mgrid[box.y0 : box.y1, box.x0 : box.x1])
            where = surface.at(box)
            found = [where.x.ravel(), where.y.ravel()]
            np.testing.assert_allclose(found, transform.positions(x=x, y=y), rtol=0, atol=1e-4)
            if transform.forward is not kinked:
                determinant = np.linalg.det(transform.jacobian(x=x, y=y))
                np.testing.assert_allclose(where.determinant.ravel(), determinant, rtol=1e-5)
        assert (seen == 1).all()


def test_sky_frames_may_differ():
    galactic = WCS(naxis=2)
    galactic.wcs.ctype, galactic.wcs.cdelt = ("GLON-TAN", "GLAT-TAN"), (-1e-4, 1e-4)
    here = SkyCoord(211.3, -37.2, unit="deg").galactic
    galactic.wcs.crval = here.l.deg, here.b.deg
    x, y = Transform.between(turned(), galactic).positions(x=97.0, y=76.5)
    np.testing.assert_allclose([x, y], -1.0, atol=1e-6)


# --- the grid


def test_auto_holds_every_exposure_and_no_more():
    cards = [turned(), turned(angle=-20.0, flipped=False, scale=0.32), turned(angle=77.0, scale=0.29)]
    exposures = [Exposure(np.zeros((120 + 9 * k, 90)), wcs=w) for k, w in enumerate(cards)]
    exposures[1].wcs.wcs.crval = 211.31, -37.19
    grid = Grid.auto([*exposures, Exposure(np.zeros((4, 5)))])
    assert grid.pixel_scale == pytest.approx(0.3, rel=1e-6)
    corners = [
        e.wcs.pixel_to_world_values(x, y)
        for e in exposures
        for y in (-0.5, e.shape[0] - 0.5)
        for x in (-0.5, e.shape[1] - 0.5)
    ]
    x, y = grid.wcs.world_to_pixel_values(*np.transpose(corners))
    for at, n in ((x, grid.shape[1]), (y, grid.shape[0])):
        assert at.min() == pytest.approx(-0.5, abs=2e-3)
        assert n - 1.5 < at.max() < n - 0.5 + 2e-3
    x, y = grid.wcs.wcs.crpix - 1.0
    at, up = grid.wcs.pixel_to_world(x, y), grid.wcs.pixel_to_world(x, y + 1.0)
    assert at.position_angle(up).deg % 360.0 == pytest.approx(0.0, abs=1e-6)


def test_centered_is_turned_from_north_through_east():
    grid = Grid.centered(83.0, 61.0, shape=(101, 140), pixel_scale=0.4, rotation=35.0)
    middle, up, left = (grid.wcs.pixel_to_world(*at) for at in ((69.5, 50.0), (69.5, 51.0), (68.5, 50.0)))
    assert middle.separation(SkyCoord(83.0, 61.0, unit="deg")).arcsec < 1e-6
    assert middle.position_angle(up).deg == pytest.approx(35.0, abs=1e-3)
    assert middle.position_angle(left).deg == pytest.approx(125.0, abs=1e-3)
    assert middle.separation(up).arcsec == pytest.approx(grid.pixel_scale, rel=1e-6)


def test_a_header_is_a_grid_and_a_cutout_keeps_its_place():
    header = sip().to_header(relax=True)
    header.update(NAXIS=2, NAXIS1=50, NAXIS2=70)
    grid = Grid.from_header(header)
    assert grid.shape == (70, 50)
    cut = grid.cutout(Box(20, 11, 60, 43))
    assert cut.box == Box(0, 0, 40, 32)
    np.testing.assert_allclose(cut.wcs.pixel_to_world_values(3, 4), grid.wcs.pixel_to_world_values(14, 24), rtol=1e-12)


def test_what_is_no_grid():
    with pytest.raises(InputError, match="celestial"):
        Grid(WCS(naxis=2), (3, 4))
    with pytest.raises(InputError, match="NAXIS1"):
        Grid.from_header(turned().to_header())
    with pytest.raises(InputError, match="has a WCS"):
        Grid.auto([Exposure(np.zeros((4, 5)))])
    with pytest.raises(InputError, match="pixel_scale"):
        Grid.centered(0.0, 0.0, shape=(3, 4), pixel_scale=-1.0)
    apart = turned()
    apart.wcs.crval = 31.3, 37.2
    with pytest.raises(InputError, match="side of the sky"):
        Grid.auto([Exposure(np.zeros((4, 5)), wcs=w) for w in (turned(), apart)])


# --- weights


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_weights_sum_to_one_and_a_pixel_is_itself(interpolation):
    weights = interpolation.weights([0.0, 0.3, 1.0])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-14)
    a = interpolation.order
    np.testing.assert_array_equal(weights[0], np.arange(1 - a, a + 1) == 0)
    np.testing.assert_array_equal(weights[2], np.arange(1 - a, a + 1) == 1)


def test_lanczos_weights_are_their_formula():
    t = 0.3 - np.arange(-2, 4)
    expected = np.sin(np.pi * t) * np.sin(np.pi * t / 3) / t**2
    np.testing.assert_allclose(Lanczos(3).weights(0.3)[0], expected / expected.sum(), rtol=1e-13)


@pytest.mark.parametrize("psf", [GaussianPSF(fwhm=3.0), MoffatPSF(fwhm=3.0, beta=3.0)])
def test_a_star_of_3_px_is_interpolated_to_1e_3_of_its_peak(psf):
    y, x = np.mgrid[-20:21, -23:24]
    image = psf.stamps(x=0, y=0, shape=(41, 47))[0]
    for fy, fx in ((0.5, 0.5), (0.0, 0.5), (0.2, 0.7)):
        wy, wx = Kaiser().weights([fy, fx])
        found = np.apply_along_axis(np.convolve, 0, image, wy[::-1], "same")
        found = np.apply_along_axis(np.convolve, 1, found, wx[::-1], "same")
        true = psf.pixels(dx=x.ravel() - 1 + fx, dy=y.ravel() - 1 + fy).reshape(y.shape)
        assert np.abs(found - true)[8:-8, 8:-8].max() < 1e-3 * image.max()


# --- PSFs


def test_pixels_are_those_of_the_stamps_and_of_an_integral():
    psf = MoffatPSF(fwhm=2.2, **MOFFAT)
    y, x = (g.ravel() for g in np.mgrid[-5:6, -7:8])
    np.testing.assert_allclose(psf.pixels(dx=x, dy=y), psf.stamps(x=0, y=0, shape=(11, 15))[0].ravel(), rtol=1e-12)
    fine = (np.arange(200) + 0.5) / 200 - 0.5
    mean = psf._density(0.7 + fine[None, :], -1.4 + fine[:, None]).mean()
    assert psf.pixels(dx=0.7, dy=-1.4)[0] == pytest.approx(mean, rel=1e-5)


TURN = Transform.affine([[0.95, 0.55], [0.55, -0.95]], x=3.0, y=-2.0)  # by 30 degrees, flipped, 10 % coarser


@pytest.mark.parametrize(("fwhm", "limit"), [(2.5, 3e-3), (3.0, 8e-4), (4.0, 1.5e-4)])
def test_stamps_are_seen_as_the_model_that_they_are_of(fwhm, limit):
    psf = MoffatPSF(fwhm=fwhm, **MOFFAT)
    stamp = ImagePSF(psf.stamps(x=0, y=0, shape=(61, 67))[0])
    found, true = (WarpedPSF(p, TURN).stamps(x=5, y=6, shape=(41, 37))[0] for p in (stamp, psf))
    assert residual(found, true) < limit


def test_an_affine_psf_is_the_ellipse_of_the_inverse():
    """A round Gaussian of coarse pixels stretched: its covariance is A^-1 S A^-T, S with that of the pixel."""
    matrix = np.array([[0.8, 0.3], [-0.1, 1.2]])
    warped = WarpedPSF(GaussianPSF(fwhm=6.0), Transform.affine(matrix))
    stamp = warped.stamps(x=1, y=2, shape=(61, 71))[0]
    y, x = np.mgrid[-30:31, -35:36]
    inverse = np.linalg.inv(matrix)
    sigma2 = 6.0**2 / (8 * np.log(2)) + 1 / 12
    found = [(stamp * a * b).sum() for a, b in ((x, x), (x, y), (y, y))]
    np.testing.assert_allclose(found, (sigma2 * inverse @ inverse.T)[[0, 0, 1], [0, 1, 1]], rtol=1e-5)
    assert stamp.sum() == pytest.approx(1.0, abs=1e-6)


def test_only_a_constant_model_in_an_affine_frame_is_constant():
    psf, varying = GaussianPSF(fwhm=3.0), FunctionPSF(lambda x, y: np.eye(5) + 1, shape=(5, 5))
    assert WarpedPSF(psf, TURN).constant
    assert not WarpedPSF(varying, TURN).constant
    assert not WarpedPSF(psf, Transform.between(turned(), sip())).constant
    assert WarpedPSF(psf, TURN).resizable
    assert not WarpedPSF(varying, TURN).resizable


def test_the_default_stamp_holds_the_turned_one():
    stamp = np.zeros((11, 41))
    stamp[5, 20], stamp[0, -1], stamp[-1, 0] = 1.0, 0.1, 0.1
    warped = WarpedPSF(ImagePSF(stamp), Transform.affine([[0.0, 0.5], [-1.0, 0.0]]))
    assert warped.shape == (81, 11)
    assert warped.stamps(x=3, y=4)[0, [0, -1], [0, -1]].tolist() == pytest.approx([0.05, 0.05])


def test_a_varying_psf_is_taken_where_the_position_lies():
    def stamp(x, y):
        return GaussianPSF(fwhm=3.0 + 0.01 * x + 0.02 * y).stamps(x=0, y=0, shape=(25, 27))[0]

    x, y = TURN.positions(x=10, y=-20)
    found = WarpedPSF(FunctionPSF(stamp, shape=(25, 27)), TURN).stamps(x=[0, 10], y=[0, -20], shape=(19, 17))[1]
    true = WarpedPSF(GaussianPSF(fwhm=3.0 + 0.01 * x[0] + 0.02 * y[0]), TURN).stamps(x=0, y=0, shape=(19, 17))[0]
    assert residual(found, true) < 3e-4


@pytest.mark.parametrize(
    "psf", [GaussianPSF(fwhm=3.0), ImagePSF(np.ones((3, 5))), WarpedPSF(GaussianPSF(fwhm=3.0), TURN)]
)
def test_no_positions_no_stamps(psf):
    for transform in (TURN, Transform.between(turned(), sip())):
        assert WarpedPSF(psf, transform).stamps(x=[], y=[], shape=(5, 7)).shape == (0, 5, 7)


def test_a_model_that_can_be_resized_is_seen_as_far_as_it_reaches():
    """Through two changes of pixels that undo each other."""
    psf = MoffatPSF(fwhm=4.0, **MOFFAT)
    there_and_back = WarpedPSF(WarpedPSF(psf, TURN), TURN.inverse)
    assert there_and_back.resizable
    shape = 161, 151
    found, true = there_and_back.stamps(x=0, y=0, shape=shape)[0], psf.stamps(x=0, y=0, shape=shape)[0]
    assert residual(found[:40], true[:40]) < 1e-2


def test_no_position_no_psf():
    nowhere = Transform(lambda x, y: (x + np.nan, y), lambda x, y: (x, y))
    with pytest.raises(PSFError, match="no such position"):
        WarpedPSF(GaussianPSF(fwhm=3.0), nowhere).stamps(x=0, y=0)


@pytest.mark.parametrize("fwhm", [3.0, 4.0])
def test_a_target_pulled_back_and_warped_is_the_target(fwhm):
    wcs = sip()
    target = MoffatPSF(fwhm=fwhm, **MOFFAT)
    there = Transform.between(grid_about(wcs, pixel_scale=0.3).wcs, wcs)
    pulled = ImagePSF(WarpedPSF(target, there.inverse).stamps(x=71.0, y=44.0, shape=(81, 83))[0])
    x, y = there.inverse.positions(x=71.0, y=44.0)
    found = WarpedPSF(pulled, there).stamps(x=x, y=y, shape=(45, 41))[0]
    assert residual(found, target.stamps(x=0, y=0, shape=(45, 41))[0]) < 1e-3


# --- exposures


@pytest.mark.parametrize("wcs", [sip(), turned(angle=-61.0)], ids=["SIP", "turned"])
@pytest.mark.parametrize(
    "psf",
    [GaussianPSF(fwhm=3.0, ellipticity=0.15, angle=25.0), MoffatPSF(fwhm=3.5, **MOFFAT)],
    ids=["Gaussian", "Moffat"],
)
def test_a_star_on_the_grid_is_the_warped_psf(wcs, psf):
    grid = grid_about(wcs)
    transform = Transform.between(grid.wcs, wcs, to_origin=Position(BOX.y0, BOX.x0))
    gx, gy = np.array([100.0, 141.0, 118.0]), np.array([80.0, 113.0, 155.0])
    x, y = transform.positions(x=gx, y=gy)
    out = warp(Exposure(sky_of(psf, x, y), box=BOX, psf=psf, wcs=wcs), grid)
    stamps = out.psf.stamps(x=gx, y=gy, shape=(21, 23))
    for a, b, stamp in zip(gx.astype(int), gy.astype(int), stamps, strict=True):
        assert residual(out.image[b - 10 : b + 11, a - 11 : a + 12], stamp) < 2e-3
        assert out.image[b - 10 : b + 11, a - 11 : a + 12].sum() == pytest.approx(stamp.sum(), rel=1e-3)


def noisy(wcs, dtype=np.float32):
    image, variance = RNG.normal(100, 10, BOX.shape), RNG.uniform(50, 150, BOX.shape)
    mask = Mask(np.where(RNG.uniform(size=BOX.shape) < 0.01, 2, 0).astype(np.uint16))
    return Exposure(image.astype(dtype), variance=variance.astype(dtype), mask=mask, box=BOX, wcs=wcs)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_variances_are_the_weighted_sums(interpolation, dtype):
    wcs = sip()
    exposure, grid = noisy(wcs, dtype), grid_about(wcs)
    out = warp(exposure, grid, interpolation=interpolation)
    assert (out.image.dtype, out.variance.dtype, out.mask.array.dtype) == (dtype, dtype, np.uint16)
    gx, gy = np.array([90, 131, 118]), np.array([80, 113, 155])
    transform = Transform.between(grid.wcs, wcs)
    x, y = transform.positions(x=gx, y=gy)
    scale = np.abs(np.linalg.det(transform.jacobian(x=gx, y=gy)))
    a = interpolation.order
    for k in range(3):
        iy, ix = int(np.floor(y[k])), int(np.floor(x[k]))
        wy, wx = interpolation.weights([y[k] - iy, x[k] - ix])
        weights = np.outer(wy, wx)
        under = slice(iy + 1 - a, iy + a + 1), slice(ix + 1 - a, ix + a + 1)
        tolerance = 3e-6 if dtype == np.float32 else 1e-6
        found = out.image[gy[k], gx[k]], out.variance[gy[k], gx[k]]
        true = (weights * exposure.image[under]).sum(), (weights**2 * exposure.variance[under]).sum()
        np.testing.assert_allclose(found, [scale[k] * true[0], scale[k] ** 2 * true[1]], rtol=tolerance)
        heard = np.bitwise_or.reduce(exposure.mask.array[under][np.abs(weights) > 0.01])
        assert out.mask.array[gy[k], gx[k]] == heard


@pytest.mark.parametrize("wcs", [sip(), demo().wcs], ids=["SIP", "TPV"])
def test_pixels_moved_by_whole_pixels_are_the_same_pixels(wcs):
    exposure = noisy(wcs, np.float64).replace(psf=GaussianPSF(fwhm=3.0))
    image = exposure.image.copy()
    image[30, 40] = np.nan
    exposure = exposure.replace(image=image)
    out = warp(exposure, Grid(wcs[20:150, 33:200], (130, 167)))
    np.testing.assert_array_equal(out.image, image[20:150, 33:200])
    same = np.isfinite(out.image)
    np.testing.assert_array_equal(out.variance[same], exposure.variance[20:150, 33:200][same])
    np.testing.assert_array_equal(out.mask.array[same], exposure.mask.array[20:150, 33:200][same])
    assert out.mask.any_of("NO_DATA").sum() == 1
    assert out.psf.constant
    np.testing.assert_allclose(out.psf.stamps(x=0, y=0), exposure.psf.stamps(x=0, y=0))


def test_a_part_of_the_grid_is_that_part_of_the_whole():
    wcs = sip()
    exposure, grid = noisy(wcs), grid_about(wcs)
    whole, part = warp(exposure, grid), warp(exposure, grid, box=Box(60, 90, 180, 240))
    assert (whole.box, part.box) == (grid.box, Box(60, 90, 180, 240))
    np.testing.assert_allclose(part.image, whole.image[60:180, 90:240], rtol=1e-5)
    np.testing.assert_array_equal(part.mask.array, whole.mask.array[60:180, 90:240])
    np.testing.assert_allclose(part.wcs.pixel_to_world_values(3, 4), grid.wcs.pixel_to_world_values(93, 64), rtol=1e-12)


def test_a_constant_sky_stays_constant_around_missing_pixels():
    wcs = turned()
    image = np.full(BOX.shape, 5.0)
    image[60, 100], image[90:93, 50:120] = np.nan, np.inf
    variance = np.full(BOX.shape, 2.0)
    variance[30, 80] = np.inf
    flags = np.zeros(BOX.shape, np.int32)
    flags[120, 100:104] = 1 << 8  # NO_DATA
    grid = grid_about(wcs, pixel_scale=0.3)
    out = warp(Exposure(image, variance=variance, mask=flags, box=BOX, wcs=wcs), grid)
    transform = Transform.between(grid.wcs, wcs)
    gy, gx = np.mgrid[: grid.shape[0], : grid.shape[1]]
    x, y = (v.reshape(grid.shape) for v in transform.positions(x=gx.ravel(), y=gy.ravel()))
    good = np.isfinite(out.image)
    np.testing.assert_allclose(out.image[good], 5.0, rtol=1e-6)
    np.testing.assert_array_equal(np.isinf(out.variance), ~good)
    assert out.mask.any_of("NO_DATA")[~good].all()
    outside = (x < -0.5) | (x > 209.5) | (y < -0.5) | (y > 169.5)
    assert not good[outside].any()
    lost = ~good & ~outside
    close = np.hypot(x - 100, y - 60) < 0.3
    assert lost[close].all()
    assert not lost[(np.hypot(x - 100, y - 60) > 1) & (np.hypot(x - 100, y - 60) < 8)].any()
    near = (np.abs(x - 100) < 1) & (np.abs(y - 60) < 1)
    assert out.mask.any_of("INTRP")[near].all()
    assert not out.mask.any_of("INTRP")[np.hypot(x - 30, y - 140) < 5].any()
    edge = ((np.abs(x - 0.3) < 0.2) | (np.abs(x - 208.7) < 0.2)) & (y > 10) & (y < 160) & good
    assert edge.sum() > 20
    assert out.mask.any_of("EDGE")[edge].all()
    assert not out.mask.any_of("EDGE")[(np.abs(x - 105) < 95) & (np.abs(y - 85) < 75)].any()


def test_noise_has_the_variance_and_the_covariance_of_the_weights():
    """White noise moved by one fraction: neighbours are correlated as the docstring says."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (-1e-4, 1e-4), (600.0, 400.0)
    grid = Grid(wcs.deepcopy(), (800, 1100))
    grid.wcs.wcs.crpix = 600.0 - 0.4, 400.0 + 0.25  # positions of the exposure: x + 0.4, y - 0.25
    noise = np.random.default_rng(3).normal(size=(800, 1100))
    out = warp(Exposure(noise, wcs=wcs), grid).image[20:-20, 20:-20]
    wy, wx = Kaiser().weights([0.75, 0.4])
    assert np.mean(out**2) == pytest.approx((wy**2).sum() * (wx**2).sum(), rel=0.02)
    covariance = np.mean(out[3:, :-2] * out[:-3, 2:])
    assert covariance == pytest.approx((wy[3:] @ wy[:-3]) * (wx[2:] @ wx[:-2]), abs=3e-3)
    assert np.mean(out[:, 1:] * out[:, :-1]) == pytest.approx((wy**2).sum() * (wx[1:] @ wx[:-1]), abs=4e-3)


def test_a_distortion_that_folds_beyond_the_exposure():
    """Positions that the WCS cannot invert are left out; those on the exposure are not."""
    wcs = sip(40.0)
    exposure = Exposure(np.ones(BOX.shape), box=BOX, wcs=wcs)
    out = warp(exposure, grid_about(wcs, (840, 910)))
    assert np.nansum(out.image) == pytest.approx(exposure.image.size, rel=2e-3)


def test_a_grid_too_coarse_is_told():
    """Once, with the pixels that would do; not where the exposure itself is no better."""
    wcs = turned()
    exposure = noisy(wcs).replace(psf=GaussianPSF(fwhm=2.6))
    with pytest.warns(PsfMatchWarning, match=r"is 1\.\d\d px of the grid wide .* pixels 0\.\d\d times as large"):
        warp(exposure, grid_about(wcs, pixel_scale=0.6))
    warp(exposure, grid_about(wcs, pixel_scale=0.33))
    warp(exposure.replace(psf=GaussianPSF(fwhm=1.2)), grid_about(wcs, pixel_scale=0.32))
    coarse = grid_about(wcs, (80, 91), pixel_scale=0.9)
    with pytest.warns(PsfMatchWarning, match=r"the target is 1\.\d\d px .* pixels of 0\.\d+ arcsec") as told:
        coadd([exposure, exposure], target="gaussian:fwhm=1.3arcsec", grid=coarse, recipe=Recipe(scale="none"))
    assert len(told) == 1


def test_beside_the_grid_there_is_nothing():
    wcs = turned()
    for ra, dec in ((211.5, -37.2), (31.3, 37.2)):
        out = warp(noisy(wcs), Grid.centered(ra, dec, shape=(30, 41), pixel_scale=0.3))
        assert np.isnan(out.image).all()
        assert np.isinf(out.variance).all()
        assert out.mask.any_of("NO_DATA").all()


def test_what_cannot_be_warped():
    grid = grid_about(turned())
    with pytest.raises(InputError, match="no WCS"):
        warp(Exposure(np.zeros((9, 8))), grid)
    with pytest.raises(InputError, match="not inside"):
        warp(noisy(turned()), grid, box=Box(0, 0, 10, 999))
    for options in ({"order": 1}, {"order": 2.5}, {"mask_share": 0.3}):
        with pytest.raises(InputError, match="Lanczos"):
            Lanczos(**options)
    with pytest.raises(InputError, match="beta"):
        Kaiser(beta=-1.0)
    with pytest.raises(InputError, match="fraction"):
        Lanczos().weights(1.2)
    with pytest.raises(InputError, match="invertible"):
        Transform.affine(np.zeros((2, 2)))
    with pytest.raises(InputError, match="APE 14"):
        Transform.between(turned(), fits.Header())


@WORLDS
def test_a_file_keeps_the_wcs(wcs, tmp_path):
    write_exposure(Exposure(np.ones(BOX.shape), box=BOX, wcs=wcs), tmp_path / "image.fits")
    x, y = RNG.uniform(0, 210, 20), RNG.uniform(0, 170, 20)
    there, back = (w.pixel_to_world_values(x, y) for w in (wcs, read_exposure(tmp_path / "image.fits").wcs))
    np.testing.assert_allclose(back, there, rtol=0, atol=1e-9)


@WORLDS
def test_reproject_gives_the_same_pixels(wcs):
    reproject = pytest.importorskip("reproject")
    psf = MoffatPSF(fwhm=4.5, **MOFFAT)
    image = sky_of(psf, [40.3, 90.1, 120.7], [90.2, 101.6, 150.0])
    grid = grid_about(wcs)
    out = warp(Exposure(image, box=BOX, wcs=wcs), grid)
    other, footprint = reproject.reproject_adaptive(
        (image, wcs), grid.wcs, grid.shape, kernel="gaussian", kernel_width=0.1, conserve_flux=True
    )
    assert footprint.any()
    cubic, _ = reproject.reproject_interp((image, wcs), grid.wcs, grid.shape, order="bicubic")
    gy, gx = (g.ravel() for g in np.mgrid[: grid.shape[0], : grid.shape[1]])
    area = np.abs(np.linalg.det(Transform.between(grid.wcs, wcs).jacobian(x=gx, y=gy))).reshape(grid.shape)
    both = np.isfinite(out.image) & np.isfinite(cubic) & ~out.mask.any_of("EDGE")
    assert both.sum() > 15000
    assert np.abs(out.image - area * cubic)[both].max() < 5e-3 * image.max()
    assert residual(out.image[both], (area * cubic)[both]) < 3e-3
    assert np.nansum(other[both]) == pytest.approx(out.image[both].sum(), rel=0.015)


def test_gwcs_too(tmp_path):
    gwcs = pytest.importorskip("gwcs")
    from astropy import units
    from astropy.coordinates import ICRS
    from astropy.modeling import models

    fits_wcs = turned()
    shift = models.Shift(-97.0) & models.Shift(-76.5)
    turn = models.AffineTransformation2D(fits_wcs.wcs.cd)
    sky = models.Pix2Sky_TAN() | models.RotateNative2Celestial(211.3, -37.2, 180.0)
    frames = gwcs.coordinate_frames
    detector = frames.Frame2D(name="detector", unit=(units.pix, units.pix))
    celestial = frames.CelestialFrame(reference_frame=ICRS(), unit=(units.deg, units.deg))
    other = gwcs.WCS([(detector, shift | turn | sky), (celestial, None)])
    other.bounding_box = (-0.5, 209.5), (-0.5, 169.5)
    grid = grid_about(fits_wcs)
    exposure = noisy(fits_wcs)
    out, true = warp(exposure.replace(wcs=other), grid), warp(exposure, grid)
    np.testing.assert_allclose(out.image, true.image, rtol=1e-3)
    np.testing.assert_array_equal(out.mask.array, true.mask.array)
    assert other.bounding_box is not None
    assert exposure.replace(wcs=other).pixel_scale == pytest.approx(exposure.pixel_scale, rel=1e-6)
    part = exposure.replace(wcs=other).cutout(Box(52, -11, 170, 160))
    same = warp(part, grid).image
    np.testing.assert_allclose(same, warp(exposure.cutout(part.box), grid).image, rtol=1e-3)
    starry = exposure.replace(wcs=other, psf=MoffatPSF(fwhm=3.0, beta=3.0))
    made = coadd([starry], target="moffat:fwhm=1.5arcsec,beta=3.0", combine="mean", recipe=Recipe(scale="none"))
    assert made.rows[0].used
    assert made.rows[0].fwhm == pytest.approx(0.93, abs=0.02)
    with pytest.warns(PsfMatchWarning, match=r"cannot be stored in FITS.*to_fits_sip"):
        write_exposure(starry, tmp_path / "image.fits")
    assert read_exposure(tmp_path / "image.fits").wcs is None
    part = Grid(other, (170, 210)).cutout(Box(9, 4, 60, 80))
    assert part.pixel_scale == pytest.approx(0.3, rel=1e-6)
    np.testing.assert_allclose(
        warp(starry, part).wcs.pixel_to_world_values(0.0, 0.0), fits_wcs.pixel_to_world_values(4.0, 9.0), rtol=1e-9
    )
