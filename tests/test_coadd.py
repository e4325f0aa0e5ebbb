"""Many exposures of one sky into one: shapes, fluxes, noise, what is thrown out, and what survives an interruption."""

import json
import sys

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch import (
    Box,
    ClippedMean,
    CoaddInput,
    Exposure,
    FunctionPSF,
    Grid,
    InputError,
    Mask,
    MoffatPSF,
    Recipe,
    coadd,
)
from psfmatch.cli import main
from psfmatch.coadd import Store, planned, requested, run_coadd, run_patches, write_coadd
from psfmatch.coadd.crew import NO_PAGES
from psfmatch.coadd.inputs import Prepared
from psfmatch.coadd.photometry import star_factors, zero_point
from psfmatch.coadd.repair import repaired
from psfmatch.coadd.request import method_of

TARGET = MoffatPSF(fwhm=5.0, beta=3.5)
SIGMA = 10.0
GRID = Grid.centered(186.7, 25.4, shape=(131, 122), pixel_scale=0.263)
X, Y = (a.ravel().astype(float) for a in np.meshgrid([31, 62, 93], [35, 66, 97]))
FLUX = 10 ** np.linspace(3.6, 5.2, X.size)
HALF = 12


def one(k, *, noise=SIGMA, masked=0.0, trail=False, zero_point=None, shape=(230, 214)):
    """The common stars as exposure k sees them: shifted, turned by up to 30 degrees, its PSF varying over the field."""
    rng = np.random.default_rng(k)

    def model(x, y):
        return MoffatPSF(fwhm=3.1 + 0.1 * (k % 5) + 0.2 * x / 214, beta=3.0, ellipticity=0.05, angle=30.0 * k)

    def stamp(x, y):
        return model(x, y).stamps(x=0, y=0, shape=(51, 51))[0]

    place = 186.7 + 2e-4 * rng.normal(), 25.4 + 2e-4 * rng.normal()
    wcs = Grid.centered(*place, shape=shape, pixel_scale=0.263, rotation=rng.uniform(-30, 30)).wcs
    scale = 1.0 if zero_point is None else 10 ** (0.4 * (zero_point - 25.0))
    image = rng.normal(0.0, noise, shape) if noise else np.zeros(shape)
    for flux, x, y in zip(FLUX, *wcs.world_to_pixel_values(*GRID.wcs.pixel_to_world_values(X, Y)), strict=True):
        rows, columns = np.mgrid[int(y) - 30 : int(y) + 31, int(x) - 30 : int(x) + 31]
        light = model(x, y).pixels(dx=(columns - x).ravel(), dy=(rows - y).ravel()).reshape(rows.shape)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        image[rows[inside], columns[inside]] += scale * flux * light[inside]
    if trail:
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        image += 300.0 * np.exp(-0.5 * ((rows - 0.7 * columns - 40.0) / 1.22 / 2.0) ** 2)
    bad = np.zeros(shape, bool)
    for y, x in rng.integers(1, 210, (int(masked * image.size / 6), 2)):
        bad[y : y + 2, x : x + 3] = True
    return Exposure(
        image.astype(np.float32), variance=np.full(shape, (SIGMA * scale) ** 2, np.float32),
        mask=Mask(bad.astype(np.int32)), psf=FunctionPSF(stamp, shape=(51, 51)), wcs=wcs,
        meta={} if zero_point is None else {"MAGZERO": zero_point},
    )  # fmt: skip


def stars(made):
    """Residual of the shape, and ratio of the flux, of every star of the coadd."""
    model = TARGET.stamps(x=0, y=0, shape=(2 * HALF + 1, 2 * HALF + 1))[0]
    shapes, ratios = [], []
    for x, y, flux in zip(X.astype(int), Y.astype(int), FLUX, strict=True):
        cut = made.exposure.image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]
        assert np.isfinite(cut).all()
        shapes.append(np.linalg.norm(cut - flux * model) / np.linalg.norm(flux * model))
        ratios.append((cut * model).sum() / (model**2).sum() / flux)
    return np.array(shapes), np.array(ratios)


@pytest.mark.parametrize("order", ["match-warp", "warp-match"])
def test_stars_have_the_target_shape_and_their_flux(order):
    made = coadd(
        [one(k, noise=0) for k in range(3)], target=TARGET, grid=GRID, combine="mean", recipe=Recipe(order=order)
    )
    shapes, ratios = stars(made)
    assert shapes.max() < 2e-3
    assert np.abs(ratios - 1).max() < 5e-4
    assert [row.used for row in made.rows] == [True] * 3


@pytest.mark.parametrize("order", ["match-warp", "warp-match"])
def test_a_saturated_core_is_left_out_rather_than_made_up(order):
    """Two pixels of the brightest star are lost in one of two exposures, and estimated they would be far off."""
    inputs = [one(k, noise=0) for k in range(2)]
    image, flags = inputs[0].image.copy(), inputs[0].mask.array.copy()
    peak = np.argpartition(np.where(flags == 0, image, -np.inf), -2, axis=None)[-2:]
    image.flat[peak] *= 0.3
    planes = inputs[0].mask.planes
    flags.flat[peak] |= 1 << planes["SAT"]
    inputs[0] = inputs[0].replace(image=image, mask=Mask(flags, planes))
    made = coadd(inputs, target=TARGET, grid=GRID, combine="mean", recipe=Recipe(order=order))
    shapes, ratios = stars(made)
    assert shapes.max() < 2e-3
    assert np.abs(ratios - 1).max() < 5e-4
    assert (made.count == 1).any()
    estimated = coadd(
        inputs, target=TARGET, grid=GRID, combine="mean", recipe=Recipe(order=order, lost=0.9, lost_saturated=0.8)
    )
    assert stars(estimated)[0].max() > 5e-3
    strict = coadd(inputs, target=TARGET, grid=GRID, combine="mean", recipe=Recipe(order=order, lost=0.0))
    assert np.isfinite(strict.exposure.image).mean() > 0.8 * np.isfinite(made.exposure.image).mean()
    assert (strict.count == 2).sum() < (made.count == 2).sum()


@pytest.fixture(name="noisy", scope="module")
def five_noisy_exposures():
    return [one(k, masked=0.05, trail=k == 2) for k in range(5)]


def test_masked_pixels_noise_and_a_satellite(noisy):
    """5 % masked, a trail of 30 sigma in one of five; where one input alone is left, nothing can judge it."""
    made = coadd(noisy, target=TARGET, grid=GRID)
    clean = coadd([*noisy[:2], one(2, masked=0.05), *noisy[3:]], target=TARGET, grid=GRID)
    chi = made.exposure.image / np.sqrt(made.exposure.variance)
    sky = np.isfinite(chi) & (made.count >= 2)
    for x, y in zip(X.astype(int), Y.astype(int), strict=True):
        sky[y - 15 : y + 16, x - 15 : x + 16] = False
    assert np.std(chi[sky]) == pytest.approx(1.0, abs=0.06)  # some 400 independent patches of noise
    left = (made.exposure.image - clean.exposure.image) / np.sqrt(made.exposure.variance)
    assert abs(np.mean(left[sky])) < 0.03
    assert np.percentile(np.abs(left[sky]), 97) < 1.0
    assert made.rows[2].clipped > 2 * max(row.clipped for k, row in enumerate(made.rows) if k != 2)


def test_noise_of_a_fitted_flux_is_foreseen(noisy):
    """The variance of PSF fluxes on empty sky, where the diagonal alone is wrong by factors."""
    made = coadd([one(k) for k in range(3)], target=TARGET, grid=GRID, combine="mean")
    model = TARGET.stamps(x=0, y=0, shape=(15, 15))[0]
    weight = model / (model**2).sum()
    fluxes = []
    for seed in range(4):
        blank = [replaced(one(k, noise=0), 100 * seed + k) for k in range(3)]
        image = coadd(blank, target=TARGET, grid=GRID, combine="mean").exposure.image
        fluxes += [
            (image[y : y + 15, x : x + 15] * weight).sum() for y in range(10, 106, 16) for x in range(10, 98, 16)
        ]
    foreseen = psfmatch.psf_flux_variance(
        made.exposure.variance, made.correlation, TARGET, x=GRID.box.center.x, y=GRID.box.center.y, shape=(15, 15)
    )[0]
    assert np.var(fluxes) / foreseen == pytest.approx(1.0, abs=0.25)  # 144 fluxes: 12 % of noise
    center = made.exposure.variance[65, 61]
    assert foreseen / (center * (weight**2).sum()) > 3


def replaced(exposure, seed):
    """The same frame with nothing but noise."""
    noise = np.random.default_rng(seed).normal(0.0, SIGMA, exposure.shape).astype(np.float32)
    return exposure.replace(image=noise)


def test_zero_points_bring_fluxes_to_one_scale():
    made = coadd(
        [one(0, noise=0, zero_point=25.0), one(1, noise=0, zero_point=26.5), one(2, noise=0, zero_point=24.1)],
        target=TARGET, grid=GRID, combine="mean",
    )  # fmt: skip
    assert made.exposure.meta["MAGZERO"] == 25.0
    assert np.abs(stars(made)[1] - 1).max() < 5e-4


def test_an_unknown_zero_point_is_named():
    with pytest.raises(InputError, match="no zero point is known of input 2"):
        coadd([one(0, zero_point=25.0), one(1)], target=TARGET, grid=GRID)


def test_skies_that_differ_are_said_to(caplog):
    """Left in, they make steps; the noise of a matched pixel is the measure."""
    levels = 0.0, 25.0, 1.0
    some = [e.replace(image=e.image + np.float32(level)) for e, level in zip(map(one, range(3)), levels, strict=True)]
    request = {"target": TARGET, "grid": GRID, "method": method_of("mean")}
    planned([*map(CoaddInput, some)], recipe=Recipe(background="median"), **request)
    planned([*map(CoaddInput, some[::2])], recipe=Recipe(), **request)
    assert "sky differs" not in caplog.text
    plan = planned([*map(CoaddInput, some)], recipe=Recipe(), **request)
    np.testing.assert_allclose([i.left for i in plan.inputs], levels, atol=0.5)
    assert "the sky differs between the inputs" in caplog.text
    assert "--background median" in caplog.text


def test_inputs_whose_noise_was_spread_before_are_named(caplog):
    spread = one(1)
    spread = spread.replace(history=spread.history.then("convolve", {}))
    planned([CoaddInput(one(0)), CoaddInput(spread, name="b.fits")], target=TARGET, grid=GRID, method=method_of("mean"),
            recipe=Recipe())  # fmt: skip
    assert "the noise of b.fits is correlated by an earlier convolution" in caplog.text


def test_zero_points_of_headers():
    assert zero_point({"MAGZERO": 29.9}) == 29.9
    assert zero_point({"FLUXMAG0": 1e10}) == pytest.approx(25.0)
    assert zero_point({"MAGZPT": 24.0, "EXPTIME": 100.0}) == pytest.approx(29.0)
    assert zero_point({}, "nJy") == 31.4
    assert zero_point({"MAGZERO": "unknown"}) is None


def test_shared_stars_give_the_relative_scale():
    exposures = [one(k, noise=1.0) for k in range(2)]
    dimmer = exposures[1].replace(image=exposures[1].image * np.float32(0.8))
    wide = [e.replace(psf=MoffatPSF(fwhm=3.3, beta=3.0)) for e in (exposures[0], dimmer)]
    factors = star_factors(wide, [1.0, 1.0])
    assert factors[1] / factors[0] == pytest.approx(1.25, rel=0.02)


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    away = one(1).replace(wcs=Grid.centered(10.0, -40.0, shape=(230, 214), pixel_scale=0.263).wcs)
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  = nothing of the kind")
    made = coadd(
        [one(0), away, one(2).replace(psf=None), CoaddInput(tmp_path / "broken.fits")], target=TARGET, grid=GRID
    )
    assert [row.used for row in made.rows] == [True, False, False, False]
    assert [bool(row.reason) for row in made.rows] == [False, True, True, True]
    assert "does not touch the grid" in made.rows[1].reason
    assert "no PSF model; give one (psf=, --psf)" in made.rows[2].reason


def test_an_input_that_fails_in_the_middle_is_left_out_of_that_patch(monkeypatch):
    on_patch = Prepared.on_patch

    def fails(self, patch, grid, recipe):
        if self.index == 1 and patch.y0 == 0:
            raise OSError("the disk is gone")
        return on_patch(self, patch, grid, recipe)

    monkeypatch.setattr(Prepared, "on_patch", fails)
    made = coadd([one(k) for k in range(2)], target=TARGET, grid=GRID, recipe=Recipe(patch=70))
    assert "missing in 2 patches: the disk is gone" in made.rows[1].reason
    assert made.count[:60].max() == 1
    assert made.count[70:].max() == 2


def a_plan(exposures, store=None, **options):
    inputs = [CoaddInput(e, name=f"e{k}") for k, e in enumerate(exposures)]
    return planned(inputs, **asked(**options), store=store)


def asked(**options):
    return {"target": TARGET, "grid": GRID, "method": method_of("clipped-mean"), "recipe": Recipe(**options)}


def test_an_interrupted_coadd_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Kernels and patches that were finished are not made again."""
    exposures = [one(k) for k in range(2)]
    store = Store(tmp_path)
    plan = a_plan(exposures, store, patch=64)
    whole = run_coadd(plan, store)
    files = sorted(tmp_path.glob("patch-*.npz"))
    assert len(files) == len(plan.patches) == 6
    for file in files[1::2]:
        file.unlink()
    monkeypatch.setattr(sys.modules["psfmatch.coadd.solving"], "planned_match", None)
    again = run_coadd(a_plan(exposures, store, patch=64), store)
    np.testing.assert_array_equal(again.exposure.image, whole.exposure.image)
    np.testing.assert_array_equal(again.exposure.mask.array, whole.exposure.mask.array)
    np.testing.assert_array_equal(again.count, whole.count)


def test_a_folder_belongs_to_one_coadd(tmp_path):
    """What has changed since is named; the size of the patches may change."""
    exposures = [one(k) for k in range(2)]
    sources = [CoaddInput(e, name=f"e{k}") for k, e in enumerate(exposures)]
    Store.claimed(tmp_path / "x", requested(sources, **asked()))
    with pytest.raises(InputError, match="resume it"):
        Store.claimed(tmp_path / "x", requested(sources, **asked()))
    Store.claimed(tmp_path / "x", requested(sources, **asked(memory=1.0, patch=64)), resume=True)
    brighter = CoaddInput(exposures[1].replace(image=exposures[1].image + 1), name="e1")
    for changed, options, words in (
        ([sources[0], brighter], {}, r"input 2 \(e1\) was .* is"),
        (sources[:1], {}, r"input 2 \(e1\) is missing"),
        (sources, {"background": "median"}, "background was 'none', is 'median'"),
    ):
        with pytest.raises(InputError, match=f"other inputs or other options.*{words}"):
            Store.claimed(tmp_path / "x", requested(changed, **asked(**options)), resume=True)
    later = requested(sources, **asked()) | {"version": "0.2.0"}
    with pytest.raises(InputError, match=r"version was .*, is 0\.2\.0"):
        Store.claimed(tmp_path / "x", later, resume=True)


def test_patches_agree_where_they_meet():
    """The result depends on the cutting by rounding only."""
    exposures = [one(k) for k in range(2)]
    large, small = (
        coadd(exposures, target=TARGET, grid=GRID, combine="mean", recipe=Recipe(patch=p)) for p in (1024, 64)
    )
    np.testing.assert_array_equal(large.count, small.count)
    both = large.count > 0
    np.testing.assert_allclose(small.exposure.image[both], large.exposure.image[both], atol=2e-4 * SIGMA, rtol=2e-6)


def test_a_patch_is_clipped_with_its_surroundings():
    """What begins on one side of a border goes on beyond it: without faint means, the patches do not matter."""
    exposures, method = [one(k, trail=k == 2) for k in range(4)], ClippedMean(scale=1)
    large, small = (
        coadd(exposures, target=TARGET, grid=GRID, combine=method, recipe=Recipe(patch=p)) for p in (1024, 64)
    )
    assert large.rows[2].clipped > 500
    assert [row.clipped for row in small.rows] == [row.clipped for row in large.rows]
    np.testing.assert_array_equal(small.count, large.count)


def test_memory_bounds_the_patches():
    plan = a_plan([one(0)], memory=1e-4)
    assert max(max(box.shape) for box in plan.patches) <= 64


def test_a_cluster_gives_the_same_bits(tmp_path):
    distributed = pytest.importorskip("distributed")
    exposures = [constant(one(k), k) for k in range(2)]
    options = {"target": TARGET, "grid": GRID, "recipe": Recipe(patch=70)}
    plan = a_plan(exposures, patch=70)
    here = run_coadd(plan, Store(tmp_path))
    with (
        distributed.LocalCluster(n_workers=1, processes=False, scheduler_kwargs=NO_PAGES) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = coadd(exposures, **options, client=client)
    np.testing.assert_array_equal(here.exposure.image, there.exposure.image)
    assert there.failed == {}


def constant(exposure, k):
    return exposure.replace(psf=MoffatPSF(fwhm=3.2, beta=3.0, ellipticity=0.05, angle=30.0 * k))


def test_a_patch_that_fails_is_named(tmp_path, monkeypatch):
    plan = a_plan([one(0)], patch=70)
    run = sys.modules["psfmatch.coadd.run"]  # psfmatch.coadd itself is the function
    monkeypatch.setattr(run, "_write", lambda *_: (_ for _ in ()).throw(ArithmeticError("no such thing")))
    assert set(run_patches(plan, Store(tmp_path)).values()) == {"ArithmeticError: no such thing"}


def test_the_file_and_the_command_line(tmp_path):
    for k in range(2):
        psfmatch.write_exposure(constant(one(k, zero_point=25.0), k), tmp_path / f"e{k}.fits")
    out = tmp_path / "coadd.fits"
    words = ["coadd", *(str(tmp_path / f"e{k}.fits") for k in range(2)), "-o", str(out)]
    sets = ["--set", "grid.pixel_scale=0.35", "--set", "interpolation=lanczos", "--set", "recipe.patch=100"]
    words += ["-t", "moffat:fwhm=1.3arcsec,beta=3.5"]
    done = CliRunner().invoke(main, [*words, *sets, "--combine", "mean", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["pixel_scale"] == pytest.approx(0.35, rel=1e-4)
    assert told["patches"] > 1
    assert told["inputs"][0]["weight"] + told["inputs"][1]["weight"] == pytest.approx(1.0)
    assert not out.with_name("coadd.fits.parts").exists()
    made = psfmatch.read_exposure(out)
    assert made.psf.stamps(x=0, y=0).sum() == pytest.approx(1.0, abs=0.02)
    assert made.wcs.has_celestial
    with fits.open(out) as hdus:
        assert hdus["NEXP"].data.max() == 2
        assert list(hdus["INPUTS"].data["name"]) == ["e0", "e1"]
    assert psfmatch.read_correlation(out).stamps(x=50, y=50).max() == pytest.approx(1.0)
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2
    assert "exists" in again.output


def test_the_common_target_is_found(tmp_path):
    plan = planned(
        [CoaddInput(constant(one(k), k), name=f"e{k}") for k in range(2)], target="auto", grid=GRID,
        method=method_of("mean"), recipe=Recipe(),
    )  # fmt: skip
    assert 3.2 < plan.target.fwhm < 4.2
    store = Store(tmp_path)
    run_patches(plan, store)
    rows = write_coadd(plan, store, tmp_path / "a.fits")
    assert all(row.residual < 2e-3 for row in rows)


def test_every_input_is_one_psf_in_the_search_for_a_target():
    """Also two of one name, such as the same file of two nights; where it is used is known, and those are not lost."""
    seen = {}

    def search(psfs):
        seen.update(psfs)
        return psfmatch.common_target(psfs)

    inputs = [CoaddInput(one(k), name) for k, name in ((0, "a"), (1, "a"), (2, "b"))]
    plan = planned(inputs, target=search, grid=GRID, method=method_of("mean"), recipe=Recipe())
    assert list(seen) == ["a", "a (input 2)", "b"]
    for psf, ready in zip(seen.values(), plan.inputs, strict=True):
        assert psf.field == ready.covers
    widths = [psfmatch.moments.fwhm(p.stamps(x=p.field.center.x, y=p.field.center.y)[0]) for p in seen.values()]
    assert plan.target.fwhm > max(widths) - 0.1


def test_repaired_pixels_follow_the_surface():
    """A smooth surface and a star of 4 px, with holes of 2 x 3 px."""
    rows, columns = np.mgrid[:61, :47]
    image = 1000.0 * MoffatPSF(fwhm=4.0, beta=3.0).pixels(dx=columns.ravel() - 22.3, dy=rows.ravel() - 30.8)
    image = image.reshape(61, 47) + 0.1 * rows - 0.2 * columns
    bad = np.zeros(image.shape, bool)
    for y, x in ((29, 21), (5, 3), (50, 40), (30, 33), (59, 45)):
        bad[y : y + 2, x : x + 3] = True
    broken = np.where(bad, np.nan, image)
    mended, left = repaired(broken, bad)
    assert not left.any()
    error = np.abs(mended - image)
    assert error.max() < 0.2 * image.max()  # two by three pixels in the core of the star
    assert error[:25].max() < 0.02
    np.testing.assert_array_equal(mended[~bad], image[~bad])


def test_holes_too_wide_to_be_mended_are_left():
    bad = np.zeros((60, 50), bool)
    bad[10:40, 10:40] = True
    _, left = repaired(np.ones(bad.shape), bad)
    assert left[20:30, 20:30].all()


@pytest.mark.parametrize(
    "options", [{"order": "x"}, {"background": "plane"}, {"scale": "x"}, {"patch": 3}, {"lost": 1.0}]
)
def test_recipes_that_make_no_sense(options):
    with pytest.raises(InputError, match="Recipe"):
        Recipe(**options)


def test_masks_of_other_bits_are_brought_together():
    exposure = one(1)
    flags = np.zeros(exposure.shape, np.int32)
    flags[:, 100:] = 1 << 3
    mask = Mask(flags, {"STREAK": 3, "BAD": 0})
    made = coadd([one(0), exposure.replace(mask=mask)], target=TARGET, grid=GRID, combine="mean")
    assert made.exposure.mask.any_of("STREAK").any()
    assert not made.exposure.mask.any_of("CR").any()
    assert made.grid.box == Box(0, 0, 131, 122)


def test_the_correlation_of_the_noise_follows_the_number_of_inputs():
    """A broad and a sharp exposure on the left, on the right the sharp one alone: its noise is the more correlated."""
    grid = Grid.centered(186.7, 25.4, shape=(128, 512), pixel_scale=0.263)

    def flat(fwhm, wcs, shape):
        image = np.zeros(shape, np.float32)
        psf = MoffatPSF(fwhm=fwhm, beta=3.0)
        return CoaddInput(Exposure(image, variance=np.full(shape, 4.0, np.float32), psf=psf, wcs=wcs), name=str(fwhm))

    sharp = flat(3.0, grid.wcs, (128, 512))
    broad = flat(4.3, grid.wcs[:, :256], (128, 256))
    plan, left, right = (
        planned(some, target=TARGET, grid=where, method=method_of("mean"), recipe=Recipe()).correlation()
        for some, where in (
            ([sharp, broad], grid), ([sharp, broad], Grid(grid.wcs, (128, 250))), ([sharp], Grid(grid.wcs, (128, 250))),
        )
    )  # fmt: skip
    errors = [
        psfmatch.aperture_variance(1.0, noise, x=x, y=60.0, radius=6.0)[0] ** 0.5
        for noise, x in ((plan, 100.0), (left, 100.0), (plan, 400.0), (right, 100.0))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
    assert errors[2] == pytest.approx(errors[3], rel=0.01)
    assert errors[2] > 1.1 * errors[0]
