"""Frames whose PSF jumps at borders: each region as if there were nothing else, put together."""

import json
import pickle

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch import (
    FFT,
    BasisPSF,
    Box,
    Direct,
    Exposure,
    Field,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    Grid,
    InputError,
    Mask,
    MatchError,
    MatchingKernel,
    MoffatPSF,
    PSFError,
    PsfMatchWarning,
    Regions,
    RegionsKernel,
    RegionsPSF,
    coadd,
    convolve,
    match,
    mosaic,
    read_exposure,
    read_kernel,
    read_psf,
    report,
    warp,
    write_exposure,
    write_matched,
    write_psf,
)
from psfmatch.cli import main
from psfmatch.cli.demo import demo_data
from psfmatch.inspection import inspect_psf
from psfmatch.moments import fwhm
from psfmatch.regions import alone
from psfmatch.target import common_target

BOX = Box(30, -20, 30 + 151, -20 + 190)
TARGET = MoffatPSF(fwhm=5.2, beta=3.2)
SOLVER = FreeForm(size=21)
PSFS = {
    3: MoffatPSF(fwhm=2.8, beta=3.0, ellipticity=0.1, angle=20.0),
    7: MoffatPSF(fwhm=4.4, beta=2.8),
    12: GaussianPSF(fwhm=3.5, ellipticity=0.2),
}
Y, X = np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]


def labels():
    """Two regions with a wavy border and a gap between them, the right one cut once more, without a gap."""
    border = 60 + 12 * np.sin(Y / 17.0)
    out = np.where(border > X, 3, np.where(border + 9 > X, 0, 7)).astype(np.int16)
    out[(out == 7) & (Y > 105 + 0.2 * X)] = 12
    return out


REGIONS = Regions(labels(), BOX)


def frame(psf=None, *, seed=4):
    """Noise, missing pixels and flags."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100.0, 10.0, BOX.shape).astype(np.float32)
    variance = rng.uniform(50.0, 200.0, BOX.shape).astype(np.float32)
    image[rng.uniform(size=BOX.shape) < 3e-4] = np.nan
    flags = np.where(rng.uniform(size=BOX.shape) < 1e-3, 1 << 3, 0).astype(np.int32)
    psf = RegionsPSF(REGIONS, PSFS) if psf is None else psf
    return Exposure(image, variance=variance, mask=Mask(flags), box=BOX, psf=psf)


def same(one, other, where=...):
    """Whether two exposures have the same bits."""
    assert one.mask.planes == other.mask.planes
    np.testing.assert_array_equal(one.image[where], other.image[where])
    np.testing.assert_array_equal(one.variance[where], other.variance[where])
    np.testing.assert_array_equal(one.mask.array[where], other.mask.array[where])


@pytest.fixture(name="matched", scope="module")
def a_match():
    return match(frame(), TARGET, solver=SOLVER)


# --- matching


def test_detectors_of_a_mosaic_come_out_as_matched_alone():
    rng = np.random.default_rng(2)
    shapes = {1: (0, 0, 70, 83), 2: (4, 95, 74, 171), 3: (80, -9, 151, 75)}
    detectors = []
    for k, corners in shapes.items():
        box = Box(*corners)
        image = rng.normal(1e3, 5.0, box.shape).astype(np.float32)
        mask = Mask(np.where(rng.uniform(size=box.shape) < 1e-3, 1 << k, 0).astype(np.int32))
        psf = MoffatPSF(fwhm=2.5 + 0.5 * k, beta=3.0)
        detectors.append(
            Exposure(image, variance=np.full(box.shape, 25.0 * k), mask=mask, box=box, psf=psf, unit="adu")
        )
    whole = mosaic(detectors)
    assert whole.box == Box(0, -9, 151, 171)
    assert whole.unit == "adu"
    done = match(whole, TARGET)
    seen = np.zeros(whole.shape, bool)
    for k, detector in enumerate(detectors, 1):
        single = match(detector, TARGET)
        same(done.exposure.cutout(detector.box), single.exposure)
        seen[detector.box.slices(whole.box)] = True
        assert done.regions[k].outcome is single.solution.outcome
        np.testing.assert_array_equal(done.kernel.kernels[k].basis, single.kernel.basis)
    assert np.isnan(done.exposure.image[~seen]).all()
    assert np.isposinf(done.exposure.variance[~seen]).all()
    assert (done.exposure.mask.array[~seen] == done.exposure.mask.bits("NO_DATA")).all()
    assert done.exposure.psf.fwhm == TARGET.fwhm


@pytest.mark.parametrize("convolver", [FFT(), FFT(edge="nan"), Direct()], ids=["FFT", "nan", "direct"])
def test_irregular_regions_come_out_as_cut_out_by_hand(matched, convolver):
    done = convolve(frame(), matched.kernel, convolver=convolver)
    for label, psf in PSFS.items():
        exposure, inside = frame(psf), REGIONS.labels == label
        rows, columns = np.nonzero(inside)
        box = Box(rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        place = Box(box.y0 + 30, box.x0 - 20, box.y1 + 30, box.x1 - 20)
        by_hand = exposure.replace(
            image=np.where(inside, exposure.image, np.nan),
            variance=np.where(inside, exposure.variance, np.inf),
            mask=Mask(np.where(inside, exposure.mask.array, 1 << exposure.mask.planes["EDGE"]).astype(np.int32)),
        ).cutout(place)
        plan = match(by_hand, TARGET, solver=SOLVER, convolver=convolver)
        np.testing.assert_array_equal(plan.kernel.basis, matched.kernel.kernels[label].basis)
        same(done.cutout(place), plan.exposure, inside[box.slices(Box(0, 0, *BOX.shape))])
    gap = REGIONS.labels == 0
    assert np.isnan(done.image[gap]).all()
    assert np.isposinf(done.variance[gap]).all()
    assert done.mask.any_of("NO_DATA")[gap].all()
    if convolver != FFT(edge="nan"):
        assert not done.mask.any_of("NO_DATA")[~gap & np.isfinite(done.image)].any()


@pytest.mark.parametrize(("x", "y"), [(120, 131), (54, 60)], ids=["no gap", "beside the gap"])
def test_nothing_crosses_a_border(matched, x, y):
    """A star of 1e6 with its cosmic rays and flags, 2 px from the border, changes no bit of another region."""
    own = int(REGIONS.at(x=x, y=y)[0])
    near = np.hypot(X - x, Y - y)
    assert near[(REGIONS.labels != own)].min() < 3.0
    bright = frame()
    image, flags = bright.image.copy(), bright.mask.array.copy()
    image[near == 0] += 1e6
    flags[(near < 1.5) & (REGIONS.labels == own)] |= 1 << 1
    done = match(bright.replace(image=image, mask=Mask(flags)), TARGET, solver=SOLVER)
    same(done.exposure, matched.exposure, REGIONS.labels != own)
    assert (done.exposure.image != matched.exposure.image)[(REGIONS.labels == own) & (near < 6)].all()


def test_stars_have_the_targets_shape_in_every_region():
    places = {3: ((10, 60), (22, 140)), 7: ((140, 60), (95, 52)), 12: ((90, 158), (140, 160))}
    image = np.zeros(BOX.shape)
    for label, stars in places.items():
        for x, y in stars:
            assert REGIONS.at(x=x, y=y) == label
            light = PSFS[label].pixels(dx=(X - x).ravel(), dy=(Y - y).ravel()).reshape(BOX.shape)
            image += np.where(REGIONS.labels == label, light, 0.0)
    done = match(frame().replace(image=image, variance=None, mask=None), TARGET)
    assert done.quality.worst["residual"] < 5e-3
    for x, y in sum(places.values(), ()):
        cut = done.exposure.image[y - 30 - 9 : y - 30 + 10, x + 20 - 9 : x + 20 + 10]
        true = TARGET.stamps(x=0, y=0, shape=(19, 19))[0]
        assert np.linalg.norm(cut - true) < 5e-3 * np.linalg.norm(true)


def test_the_figures_are_of_all_regions_and_measured_inside(matched):
    found = REGIONS.at(x=matched.quality.x, y=matched.quality.y)
    assert set(found.tolist()) == set(PSFS)
    assert set(matched.regions) == set(PSFS)
    assert matched.solution.statistics["regions"] == 3
    worst = matched.solution.statistics["worst_region"]
    assert found[np.argmax(matched.quality.residual)] == worst
    assert min(np.sum(found == label) for label in PSFS) >= 9


def test_flat_sky_stays_flat_to_the_border():
    done = match(frame().replace(image=np.full(BOX.shape, 40.0), mask=None), TARGET, solver=SOLVER)
    good = np.isfinite(done.exposure.image)
    true = 40.0 * done.kernel.sums(x=X[good], y=Y[good])
    np.testing.assert_allclose(done.exposure.image[good], true, rtol=1e-5)
    assert good[REGIONS.labels > 0].mean() > 0.99


def test_a_region_that_cannot_be_matched_is_named():
    broad = RegionsPSF(REGIONS, {**PSFS, 7: MoffatPSF(fwhm=9.0, beta=3.0)})
    with pytest.raises(MatchError, match=r"^region 7: .*sharper"):
        match(frame(broad), TARGET)

    def broken(x, y):
        raise ValueError("no such detector")

    nowhere = RegionsPSF(REGIONS, {**PSFS, 12: FunctionPSF(broken, shape=(21, 21))})
    with pytest.raises(MatchError, match=r"region 12: .*no such detector"):
        match(frame(nowhere), TARGET, solver=SOLVER)
    with pytest.warns(PsfMatchWarning, match="region 12: .*left without data"):
        done = match(frame(nowhere), TARGET, solver=SOLVER, throw=False)
    assert np.isnan(done.exposure.image[REGIONS.labels == 12]).all()
    assert np.isfinite(done.exposure.image[REGIONS.labels == 7]).mean() > 0.98
    assert set(done.kernel.kernels) == {3, 7}
    assert done.solution.statistics["regions_lost"] == 1
    assert report.verdict(done).findings[0].level == "bad"
    with pytest.raises(InputError, match="no region that has a kernel"):
        done.kernel.stamps(x=90.0, y=158.0)


def test_slivers_and_what_lies_beyond_the_exposure():
    """A region of two columns has no whole footprint and comes out without a fault; one beyond the frame is no loss."""
    own = np.ones((90, 120), int)
    own[:, 60:62], own[:, 100:] = 2, 4
    psfs = {1: PSFS[3], 2: PSFS[3], 4: PSFS[7]}
    exposure = Exposure(np.ones((90, 100), np.float32), psf=RegionsPSF(Regions(own), psfs))
    done = match(exposure, TARGET, solver=SOLVER)
    assert set(done.kernel.kernels) == {1, 2}
    assert done.exposure.mask.any_of("EDGE")[:, 60:62].all()
    assert np.isfinite(done.exposure.image[:, :50]).all()
    with pytest.raises(InputError, match="no region of the PSF has data"):
        match(exposure.replace(box=Box(500, 0, 590, 100)), TARGET)


def test_one_kernel_for_all_regions_is_refused():
    for pair in ((RegionsPSF(REGIONS, PSFS), TARGET), (PSFS[3], RegionsPSF(REGIONS, PSFS))):
        with pytest.raises(InputError, match="which no one kernel can follow"):
            psfmatch.matching_kernel(*pair, box=BOX)
    with pytest.raises(InputError, match="target PSF jumps"):
        match(frame(PSFS[3]), RegionsPSF(REGIONS, PSFS))
    seen = psfmatch.WarpedPSF(
        RegionsPSF(REGIONS, PSFS), psfmatch.Transform.affine(np.eye(2)), psfmatch.Position(60, 140)
    )
    for solver in (FreeForm(), psfmatch.AlardLupton()):
        with pytest.raises(InputError, match="science PSF jumps"):
            solver.solution(seen, TARGET, BOX)


# --- regions and their PSFs


def test_the_psf_at_a_position_is_that_of_its_pixel():
    psf = RegionsPSF(REGIONS, PSFS)
    x, y = np.array([10.4, 140.0, 90.0, 10.0]), np.array([60.0, 60.4, 158.0, 61.0])
    stamps = psf.stamps(x=x, y=y)
    assert stamps.shape[1:] == psf.shape == (45, 45)
    for stamp, label in zip(stamps, (3, 7, 12, 3), strict=True):
        np.testing.assert_array_equal(stamp, PSFS[label].stamps(x=0, y=0, shape=(45, 45))[0])
    border = float(X[60 - 30][np.argmin(REGIONS.labels[60 - 30] == 3)])  # the first pixel of the gap
    assert REGIONS.at(x=[border - 0.6, border - 0.4], y=60.0).tolist() == [3, 0]
    for x in (border, -20.6, 170.0):
        with pytest.raises(PSFError, match="no region"):
            psf.stamps(x=[10.0, x], y=60.0)
    assert not psf.constant
    copy = pickle.loads(pickle.dumps(psf))
    np.testing.assert_array_equal(copy.stamps(x=140.0, y=60.0), stamps[1:2])


POLYGONS = {
    5: [(-3.2, 4.1), (20.5, -2.3), (44.9, 12.2), (31.3, 40.8), (19.7, 18.4)],  # concave
    2: [(19.7, 18.4), (31.3, 40.8), (2.2, 47.0), (-3.2, 4.1)],
}


def test_a_pixel_is_in_the_polygon_that_holds_its_centre():
    from matplotlib.path import Path

    regions = Regions.from_polygons(POLYGONS)
    y, x = (g.ravel() for g in np.mgrid[-10:60, -12:55])
    found = regions.at(x=x, y=y)
    for label, corners in POLYGONS.items():
        np.testing.assert_array_equal(found == label, Path(corners).contains_points(np.stack([x, y], axis=1)))
    turned = Regions.from_polygons({label: corners[::-1] for label, corners in POLYGONS.items()})
    np.testing.assert_array_equal(turned.labels, regions.labels)


def test_neighbouring_polygons_share_no_pixel_and_leave_none_out():
    """Corners on pixel centres, sides through pixel centres."""
    corners = np.array([(0, 0), (30, 0), (30, 20), (0, 20)], float)
    middle = np.array((10.0, 5.0))
    regions = Regions.from_polygons(
        [[a, b, middle] for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    )
    assert (regions.at(*(), x=np.tile(np.arange(30), 20), y=np.repeat(np.arange(20), 30)) > 0).all()
    assert (regions.labels > 0).sum() == 600
    assert set(regions.boxes) == {1, 2, 3, 4}


def test_what_is_no_region():
    square = [(0, 0), (9, 0), (9, 9), (0, 9)]
    with pytest.raises(InputError, match="polygons 1 and 2 overlap in 16 pixels"):
        Regions.from_polygons([square, [(5, 5), (14, 5), (14, 14), (5, 14)]])
    with pytest.raises(InputError, match="polygon 8: holds the centre of no pixel"):
        Regions.from_polygons({8: [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)]})
    with pytest.raises(InputError, match="three or more finite corners"):
        Regions.from_polygons([[(0, 0), (np.nan, 2), (3, 3)]])
    with pytest.raises(InputError, match="2-D image of integers"):
        Regions(np.ones((4, 5)))
    with pytest.raises(InputError, match="label -1 is negative"):
        Regions(np.array([[1, -1]]))
    with pytest.raises(InputError, match="no region"):
        Regions(np.zeros((4, 5), int))
    with pytest.raises(InputError, match="do not fit"):
        Regions(np.ones((4, 5), int), Box(0, 0, 5, 4))
    with pytest.raises(
        InputError, match=r"regions 3, 12: without a PSF; give one for each, or set their pixels to the"
    ):
        RegionsPSF(REGIONS, {7: PSFS[7]})
    with pytest.raises(InputError, match="for the regions 4, which have no pixel"):
        RegionsPSF(REGIONS, {**PSFS, 4: PSFS[7]})
    with pytest.raises(InputError, match="region 7: psf of type RegionsPSF"):
        RegionsPSF(REGIONS, {**PSFS, 7: RegionsPSF(REGIONS, PSFS)})
    with pytest.raises(InputError, match="regions 9; there are"):
        RegionsKernel(REGIONS, {9: psfmatch.MatchingKernel.constant(np.ones((3, 3)), BOX)})


def test_a_mosaic_of_what_does_not_fit_together():
    one = Exposure(np.ones((20, 31)), psf=PSFS[3], unit="adu")
    with pytest.raises(InputError, match="exposures 1 and 2 of the mosaic overlap"):
        mosaic([one, one.replace(box=Box(10, 10, 30, 41))])
    with pytest.raises(InputError, match="exposure 2 of the mosaic has no PSF"):
        mosaic([one, one.replace(box=Box(20, 10, 40, 41), psf=None)])
    with pytest.raises(InputError, match="one unit"):
        mosaic([one, one.replace(box=Box(20, 10, 40, 41), unit="nJy")])
    with pytest.raises(InputError, match="no exposure"):
        mosaic([])
    hole = np.zeros((20, 31), np.int32)
    hole[:, 25:], hole[4, 5] = 1 << 8, 1 << 8  # no data: the right edge, and one pixel within
    whole = mosaic([one.replace(mask=Mask(hole)), one.replace(box=Box(0, 25, 20, 56))])
    assert (whole.psf.regions.labels[:, :25] == 1).all()
    assert (whole.psf.regions.labels[:, 25:] == 2).all()
    assert whole.mask.any_of("NO_DATA").sum() == 1


# --- files


def varying():
    basis = np.stack([PSFS[7].stamps(x=0, y=0, shape=(25, 23))[0], PSFS[3].stamps(x=0, y=0, shape=(25, 23))[0]])
    return BasisPSF(basis, Field(np.array([[1.0, 0.1, 0.0], [0.2, 0.0, 0.1]]), BOX))


def test_files_hold_regions_to_the_last_bit(matched, tmp_path):
    psf = RegionsPSF(REGIONS, {**PSFS, 7: varying()})
    write_psf(psf, tmp_path / "psf.fits")
    write_exposure(frame(psf), tmp_path / "frame.fits.fz")
    for back in (read_psf(tmp_path / "psf.fits"), read_exposure(tmp_path / "frame.fits.fz").psf):
        assert back.regions.box == BOX
        np.testing.assert_array_equal(back.regions.labels, REGIONS.labels)
        np.testing.assert_array_equal(back.psfs[7].basis, psf.psfs[7].basis)
        np.testing.assert_array_equal(
            back.stamps(x=140.0, y=60.0, shape=(25, 23)), psf.stamps(x=140.0, y=60.0, shape=(25, 23))
        )
        np.testing.assert_array_equal(back.psfs[12].image, PSFS[12].stamps(x=0, y=0)[0])
    write_matched(matched, tmp_path / "matched.fits")
    psfmatch.write_kernel(matched.kernel, tmp_path / "kernel.fits")
    for name in ("matched.fits", "kernel.fits"):
        kernel = read_kernel(tmp_path / name)
        same(convolve(frame(), kernel), matched.exposure)
    again = read_exposure(tmp_path / "matched.fits")
    same(again, matched.exposure)
    assert not isinstance(again.psf, RegionsPSF)
    back = psfmatch.read_matched(tmp_path / "matched.fits")
    worst = matched.solution.statistics["worst_region"]
    assert back.solution.statistics["worst_region"] == worst
    np.testing.assert_array_equal(back.solution.kernel.basis, matched.regions[worst].kernel.basis)
    with pytest.raises(InputError, match="FunctionPSF"):
        write_psf(FunctionPSF(lambda x, y: np.eye(5), shape=(5, 5)), tmp_path / "no.fits")
    assert not (tmp_path / "no.fits").exists()


def test_a_file_of_another_program(tmp_path):
    """Labels without our cards, one PSFEx table and one stamp; and what is missing in it is named."""
    demo = demo_data() / "c4d_170316_062107_ooi_z_ls9-N2-psfex.fits.gz"
    with fits.open(demo) as hdus:
        table = fits.BinTableHDU(hdus[1].data, hdus[1].header, name="PSF_3")
    own = np.where(REGIONS.labels == 3, 3, 7).astype(np.uint8)
    image = fits.ImageHDU(own, name="LABELS")
    image.header["LTV1"], image.header["LTV2"] = 20, -30
    stamp = fits.ImageHDU(PSFS[7].stamps(x=0, y=0)[0], name="PSF_7")
    fits.HDUList([fits.PrimaryHDU(), image, table, stamp]).writeto(tmp_path / "psf.fits")
    psf = read_psf(tmp_path / "psf.fits")
    assert psf.regions.box == BOX
    np.testing.assert_array_equal(psf.stamps(x=10, y=60, shape=(63, 63)), read_psf(demo).stamps(x=10, y=60))
    fits.HDUList([fits.PrimaryHDU(), image, stamp]).writeto(tmp_path / "less.fits")
    with pytest.raises(psfmatch.FormatError, match=r"less.fits: regions 3: without a PSF"):
        read_psf(tmp_path / "less.fits")


TOML = """
[[region]]
psf = "left.fits"
box = [-20, 30, 61, 181]

[[region]]
psf = "moffat:fwhm=4.4,beta=2.8"
polygon = [[69.5, 29.5], [169.5, 29.5], [169.5, 180.5], [79.5, 180.5]]
"""


def test_the_command_takes_regions_of_a_text_file(tmp_path):
    write_psf(psfmatch.ImagePSF(PSFS[3].stamps(x=0, y=0)[0]), tmp_path / "left.fits")
    (tmp_path / "regions.toml").write_text(TOML, encoding="utf-8")
    psf = read_psf(tmp_path / "regions.toml")
    assert psf.regions.boxes[1] == Box(30, -20, 181, 61)
    assert psf.regions.at(x=[60, 61, 69, 70, 79], y=[100, 100, 30, 30, 180]).tolist() == [1, 0, 0, 2, 0]
    write_exposure(frame().replace(psf=None), tmp_path / "frame.fits")
    true = match(frame(psf), TARGET)
    for more in ("--no-memmap", "--memmap"):
        run = ["match", str(tmp_path / "frame.fits"), "--psf", str(tmp_path / "regions.toml"), "-t"]
        run += ["moffat:fwhm=5.2,beta=3.2", "-o", str(tmp_path / "out.fits"), "--overwrite", "--json", "-v", more]
        result = CliRunner().invoke(main, run, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["images"][0]["statistics"]["regions"] == 2
        same(read_exposure(tmp_path / "out.fits"), true.exposure)


def test_figures_and_pages_tell_the_worst_region(matched, tmp_path):
    """The kernel of one region is drawn over that region alone: it means nothing elsewhere."""
    pytest.importorskip("matplotlib")
    from psfmatch.plots.model import field_mosaic

    worst = matched.regions[matched.solution.statistics["worst_region"]].kernel
    assert worst.box != BOX
    box, (ky, kx) = worst.box, worst.shape
    first = worst.stamps(x=box.x0 - 0.5 + box.shape[1] / 10, y=box.y0 - 0.5 + box.shape[0] / 10)[0]
    np.testing.assert_allclose(field_mosaic(matched)[:ky, :kx], first, rtol=1e-12)
    write_matched(matched, tmp_path / "matched.fits")
    page = report.report(tmp_path / "matched.fits", before=frame())
    assert (
        f"3 regions, each with a kernel of its own: candidates and kernel shown are those of region "
        f"{matched.solution.statistics['worst_region']}, the worst" in page
    )


def test_a_psf_with_a_gap_in_the_middle_is_inspected_and_checked(tmp_path):
    regions = Regions.from_polygons(
        [[(-0.5, 9.5), (80, 9.5), (80, 160), (-0.5, 160)], [(99, 9.5), (190, 9.5), (190, 160)]]
    )
    psf = RegionsPSF(regions, {1: PSFS[3], 2: MoffatPSF(fwhm=3.0, beta=2.9)})
    assert psf.field == regions.box
    assert regions.nearest(x=88.4, y=50.0) == (50.0, 79.0)
    assert regions.nearest(x=20.3, y=50.2) == (50.2, 20.3)
    found = inspect_psf(psf, mesh=3)
    assert set(regions.at(x=found.x, y=found.y).tolist()) == {1, 2}
    write_psf(psf, tmp_path / "psf.fits")
    run = CliRunner().invoke(main, ["inspect", str(tmp_path / "psf.fits"), "-o", str(tmp_path / "psf.png")])
    assert run.exit_code == 0, run.output
    image = np.random.default_rng(3).normal(0.0, 5.0, regions.box.shape)
    for x, y in ((24, 40), (50, 90), (20, 130), (170, 80), (145, 30)):
        one = psf.stamps(x=x, y=y, shape=(25, 25))[0]
        image[y - regions.box.y0 - 12 : y - regions.box.y0 + 13, x - 12 : x + 13] += 5e4 * one
    exposure = Exposure(image, variance=np.full(image.shape, 25.0), box=regions.box, psf=psf)
    done = psfmatch.check(exposure)
    assert set(regions.at(x=done.x, y=done.y).tolist()) == {1, 2}
    assert done.verdict.name == "WITHIN"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[[region]", "cannot be read as TOML"),
        ("a = 1", r"no tables \[\[region\]\]"),
        ('[[region]]\npsf = "gaussian:fwhm=3"', "give it psf, and box or polygon"),
        ('[[region]]\npsf = "gaussian:fwhm=3"\nbox = [0, 0, 5]', "four whole numbers"),
        ('[[region]]\npsf = "gaussian:fwhm=3"\nbox = [0, 0, 9, 9]\n' * 2, "polygons 1 and 2 overlap"),
        ('[[region]]\npsf = "gone.fits"\nbox = [0, 0, 9, 9]', r"r\.toml: psf = 'gone\.fits': there is no such file"),
        ('[[region]]\npsf = "/etc/hosts"\nbox = [0, 0, 9, 9]', "lies elsewhere"),
        ('[[region]]\npsf = "r.toml"\nbox = [0, 0, 9, 9]', "a region has one PSF"),
        ('[[region]]\npsf = "gaussian:fwhm=3"\nbox = ' + "[" * 3000, "cannot be read as TOML"),
    ],
)
def test_a_text_file_that_says_something_else(tmp_path, text, wrong):
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises((InputError, FileNotFoundError), match=wrong):
        read_psf(tmp_path / "r.toml")


# --- on the sky


SKY = Grid.centered(186.7, 25.4, shape=(151, 190), pixel_scale=0.263, rotation=17.0)
STARS = ((10.0, 60.0), (22.0, 140.0), (140.0, 62.0), (102.0, 64.0), (122.0, 155.0))


def on_the_sky(*, noise=0.0):
    """Stars in all regions, on a turned WCS."""
    image = np.random.default_rng(7).normal(0.0, noise, BOX.shape) if noise else np.zeros(BOX.shape)
    for x, y in STARS:
        label = int(REGIONS.at(x=x, y=y)[0])
        light = PSFS[label].pixels(dx=(X - x).ravel(), dy=(Y - y).ravel()).reshape(BOX.shape)
        image += np.where(REGIONS.labels == label, 1e4 * light, 0.0)
    return frame().replace(image=image, variance=np.full(BOX.shape, 4.0), mask=None, wcs=SKY.wcs)


def test_warping_keeps_regions_apart():
    """Flat regions of 1, 2 and 3 stay so, up to where too few of their pixels are left; the PSF goes along."""
    grid = Grid.centered(186.7, 25.4, shape=(170, 181), pixel_scale=0.28, rotation=-11.0)
    level = np.select([REGIONS.labels == 3, REGIONS.labels == 7, REGIONS.labels == 12], [1.0, 2.0, 3.0], 1e9)
    out = warp(on_the_sky().replace(image=level), grid)
    found = out.psf.regions.labels
    area = (0.28 / 0.263) ** 2
    for label, value in zip(PSFS, (1.0, 2.0, 3.0), strict=True):
        good = (found == label) & np.isfinite(out.image)
        assert good.sum() > 0.9 * (found == label).sum() > 2000
        np.testing.assert_allclose(out.image[good], value * area, rtol=1e-5)
    assert np.isnan(out.image[found == 0]).all()
    assert out.mask.any_of("NO_DATA")[found == 0].all()
    x, y = grid.wcs.world_to_pixel_values(*SKY.wcs.pixel_to_world_values(160.0, 30.0))  # x=140, y=60
    alone = warp(on_the_sky().replace(psf=PSFS[7]), grid).psf
    np.testing.assert_allclose(out.psf.stamps(x=x, y=y, shape=(31, 31)), alone.stamps(x=x, y=y, shape=(31, 31)))
    beside = warp(on_the_sky(), Grid.centered(10.0, 25.4, shape=(30, 41), pixel_scale=0.28))
    assert beside.psf is None
    assert np.isnan(beside.image).all()


@pytest.mark.parametrize("order", ["match-warp", "warp-match"])
def test_coadd_takes_the_regions_as_inputs_of_their_own(order, tmp_path):
    """From memory, and from a file that is opened for each."""
    grid = Grid.centered(186.7, 25.4, shape=(161, 199), pixel_scale=0.263, rotation=3.0)
    write_exposure(on_the_sky(), tmp_path / "one.fits")
    inputs = [on_the_sky(), tmp_path / "one.fits"] if order == "match-warp" else [tmp_path / "one.fits"]
    recipe = psfmatch.Recipe(order=order, scale="none")
    made = coadd(inputs, target=TARGET, grid=grid, combine="mean", recipe=recipe)
    names = ["input 1", "one.fits"] if order == "match-warp" else ["one.fits"]
    assert [row.name for row in made.rows] == [f"{name} region {label}" for name in names for label in PSFS]
    assert all(row.used for row in made.rows)
    assert made.count.max() == len(inputs)
    for label, row in zip(PSFS, made.rows, strict=False):
        assert row.fwhm == pytest.approx(0.263 * fwhm(PSFS[label].stamps(x=0, y=0)[0]), rel=0.01)
    sky = SKY.wcs.pixel_to_world_values(*(np.array(STARS).T + np.array([[20.0], [-30.0]])))
    for x, y in np.transpose(grid.wcs.world_to_pixel_values(*sky)):
        column, row = round(x), round(y)
        cut = made.exposure.image[row - 6 : row + 7, column - 6 : column + 7]
        dy, dx = np.mgrid[row - 6 : row + 7, column - 6 : column + 7]
        true = 1e4 * TARGET.pixels(dx=(dx - x).ravel(), dy=(dy - y).ravel()).reshape(cut.shape)
        assert np.linalg.norm(cut - true) < 7e-3 * np.linalg.norm(true)


def test_the_common_target_is_that_of_the_broadest_region():
    found = common_target({"visit": frame().replace(mask=None)}, family="moffat:beta=3.0", tolerance=5e-3)
    alone = common_target({"visit": frame(PSFS[7])}, family="moffat:beta=3.0", tolerance=5e-3)
    assert found.fwhm == pytest.approx(alone.fwhm, rel=0.06)
    assert found.fwhm > 0.99 * PSFS[7].fwhm


def test_what_asks_for_the_psf_anywhere_minds_the_gap():
    exposure = on_the_sky(noise=1.0)
    assert exposure.to_ccddata().psf is not None
    gap = Exposure(
        np.ones((9, 9)), box=Box(40, 60, 49, 69), psf=RegionsPSF(Regions(np.ones((2, 3), int)), {1: PSFS[3]})
    )
    assert gap.to_ccddata().psf is None
    found = psfmatch.stars.find_stars(exposure)
    assert {(p.x, p.y) for p in found} <= set(STARS)
    assert len(found) >= 4


def test_what_is_not_in_a_region_is_not_in_its_part():
    """A region of two corners of a box that an exposure fills otherwise; and boxes that share no pixel."""
    flags = np.zeros((40, 60), np.int32)
    flags[:5, :7], flags[35:, 50:] = 1, 1
    flags[10:20, 10:20] = 2
    regions = Regions(flags)
    middle = Exposure(np.ones((20, 30)), box=Box.from_shape((20, 30), y0=8, x0=15))
    assert alone(middle, regions, 1) is None
    part = alone(middle, regions, 2)
    assert (part.box.y1, part.box.x1) == (20, 20)
    assert np.isfinite(part.image).sum() == 10 * 5
    assert not regions.within(Box.from_shape((5, 6), y0=100), 1).any()
    with pytest.raises(InputError, match="no polygon was given"):
        Regions.from_polygons([])
    kernel = MatchingKernel(np.ones((1, 3, 5)) / 15, Field.constant([1.0], Box.from_shape((40, 60))))
    both = RegionsKernel(regions, {1: kernel, 2: kernel})
    again = pickle.loads(pickle.dumps(both))
    assert (again.shape, again.box, list(again.kernels)) == ((3, 5), regions.box, [1, 2])
    np.testing.assert_array_equal(again.stamps(x=15.0, y=12.0), both.stamps(x=15.0, y=12.0))
