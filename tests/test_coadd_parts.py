"""The parts of a coadd, one by one: what it is asked for, what it keeps, what ties it together, its page."""

import errno
import resource
import tempfile
from concurrent.futures import CancelledError

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch import (
    Box,
    CoaddInput,
    Exposure,
    FormatError,
    GaussianPSF,
    Grid,
    ImagePSF,
    InputError,
    Mask,
    MoffatPSF,
    coadd,
)
from psfmatch.cli import main
from psfmatch.coadd import Crew, Store, planned, requested, run_coadd, run_patches, write_coadd
from psfmatch.coadd import sources as sources_of
from psfmatch.coadd.inputs import _read_from, covered, transform_to
from psfmatch.coadd.photometry import flux_factors, sky_level, star_factors
from psfmatch.coadd.request import grid_of, method_of, target_of
from psfmatch.coadd.sources import digest_of_psf, identity_of_file
from psfmatch.regions import Regions, RegionsPSF
from psfmatch.report import coadd_page, read_coadd, report
from test_coadd import GRID, TARGET, a_plan, asked, constant, one

NARROW = MoffatPSF(fwhm=3.3, beta=3.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A coadd, and its file."""
    folder = tmp_path_factory.mktemp("coadd")
    plan, store = a_plan([constant(one(k), k) for k in range(2)], patch=140), Store(folder / "parts")
    store.folder.mkdir()
    made = run_coadd(plan, store)
    write_coadd(plan, store, folder / "two.fits")
    return made, folder / "two.fits"


# ---- what it is asked for


def test_a_grid_is_given_in_many_ways(tmp_path):
    """As itself, by a function, as a header, as a file whose first image with a WCS is not its first HDU."""
    exposures, header = [one(0), one(1)], GRID.wcs.to_header()
    ny, nx = GRID.shape
    image = fits.ImageHDU(np.zeros((ny, nx), np.float32), header)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(7)), image]).writeto(tmp_path / "grid.fits")
    given = [GRID, lambda seen: Grid.auto(seen[:1]), image.header, tmp_path / "grid.fits", str(tmp_path / "grid.fits")]
    found = [grid_of(grid, exposures) for grid in given]
    first = Grid.auto(exposures[:1])
    assert [grid.shape for grid in found] == [GRID.shape, first.shape, GRID.shape, GRID.shape, GRID.shape]
    for grid, want in zip(found, (GRID, first, GRID, GRID, GRID), strict=True):
        places = grid.wcs.pixel_to_world_values([3.0, 80.0], [90.0, 11.0])
        np.testing.assert_allclose(places, want.wcs.pixel_to_world_values([3.0, 80.0], [90.0, 11.0]), atol=1e-10)
    assert grid_of("auto", exposures).shape == Grid.auto(exposures).shape
    fits.PrimaryHDU(np.zeros((5, 6))).writeto(tmp_path / "plain.fits")
    with pytest.raises(InputError, match=r"plain\.fits: no image with a WCS; give a FITS file whose header is the gr"):
        grid_of(tmp_path / "plain.fits", exposures)


def test_a_method_that_is_not_there_is_named():
    with pytest.raises(InputError, match="combine='average': choose mean, median, clipped-mean, or give Mean"):
        method_of("average")


@pytest.mark.parametrize("target", [GaussianPSF(fwhm=4.5), ImagePSF(NARROW.stamps(x=0, y=0, shape=(21, 27))[0])])
def test_a_target_that_was_found_is_kept_for_the_same_inputs(tmp_path, target):
    """Searched for once; again where an input is another, or what was kept is damaged."""
    inputs, opened = [CoaddInput(one(k), f"e{k}") for k in range(3)], {k: one(k) for k in range(3)}
    asked_of, store = [], Store(tmp_path)

    def search(psfs):
        asked_of.append(list(psfs))
        return target

    def found(which, **changed):
        some = {k: opened[k].replace(**changed) if k == 1 else opened[k] for k in which}
        return target_of(search, GRID, inputs, some, store, lambda said: None)

    for which in ((0, 1), (0, 1), (0, 1, 2), (0, 1, 2)):
        kept = found(which)
        np.testing.assert_array_equal(kept.stamps(x=0, y=0), target.stamps(x=0, y=0))
        assert type(kept) is type(target)
    assert asked_of == [["e0", "e1"], ["e0", "e1", "e2"]]
    (tmp_path / "target.npz").write_bytes(b"PK\x03\x04 nothing more")
    away = Grid.centered(10.0, -40.0, shape=(230, 214), pixel_scale=0.263).wcs
    found((0, 1, 2), wcs=away)
    assert asked_of[2:] == [["e0", "e2"]]  # what does not touch the grid has no say


def test_what_changes_a_coadd_is_known_by_its_state(tmp_path):
    """A grid's file by size and time, an input's options in words, and by their stamps where they are models."""
    psfmatch.write_exposure(constant(one(0), 0), tmp_path / "e.fits")
    fits.PrimaryHDU(np.zeros((5, 6))).writeto(tmp_path / "g.fits")
    options = asked() | {"grid": str(tmp_path / "g.fits")}

    def said(**more):
        return requested([CoaddInput(tmp_path / "e.fits", options=more, zero_point=25.0)], **options)

    assert said()["file of the grid"] == identity_of_file(tmp_path / "g.fits")
    (mine, other) = (said(psf=GaussianPSF(fwhm=w))["input 1 (e.fits)"] for w in (3.0, 3.1))
    assert mine != other
    assert mine == said(psf=GaussianPSF(fwhm=3.0))["input 1 (e.fits)"]
    assert "zero point 25.0" in mine
    (tmp_path / "g.fits").unlink()
    assert "file of the grid" not in said()
    assert identity_of_file(tmp_path / "g.fits") == "g.fits (missing)"


def test_a_psf_of_regions_is_known_by_its_parts_and_borders():
    box = Box.from_shape((40, 60))
    labels = np.ones(box.shape, np.int32)
    labels[:, 31:] = 2
    moved = np.roll(labels, 1, axis=1)
    sharp, broad = GaussianPSF(fwhm=3.0), GaussianPSF(fwhm=3.4)
    digests = {
        digest_of_psf(RegionsPSF(Regions(which, box), {1: a, 2: b}))
        for which, a, b in ((labels, sharp, broad), (labels, broad, sharp), (moved, sharp, broad))
    }
    again = digest_of_psf(RegionsPSF(Regions(labels.copy(), box), {1: GaussianPSF(fwhm=3.0), 2: broad}))
    assert len(digests) == 3
    assert again in digests
    exposure = Exposure(np.zeros(box.shape), psf=sharp, box=box)
    with pytest.raises(InputError, match="has no pixel of the region 7"):
        CoaddInput(exposure, "e", region=7).open()


def test_few_files_are_held_open(tmp_path, monkeypatch):
    """The oldest is given up, and read again when it is needed."""
    monkeypatch.setattr(sources_of, "OPEN", 2)
    monkeypatch.setattr(sources_of, "_opened", type(sources_of._opened)())
    inputs = []
    for k in range(3):
        psfmatch.write_exposure(constant(one(k, shape=(41, 37)), k), tmp_path / f"e{k}.fits")
        inputs.append(CoaddInput(tmp_path / f"e{k}.fits"))
    read = [source.open(again=True) for source in inputs]
    assert list(sources_of._opened) == [source.identity() for source in inputs[1:]]
    assert inputs[2].open(again=True) is read[2]
    assert inputs[0].open(again=True) is not read[0]
    np.testing.assert_array_equal(inputs[0].open(again=True).image, read[0].image)


# ---- fluxes


def test_an_exposure_without_a_pixel_has_no_sky():
    exposure = Exposure(np.ones((9, 11)), mask=Mask(np.ones((9, 11), np.int32), {"BAD": 0}))
    with pytest.raises(InputError, match="no usable pixel; the exposure has no sky level"):
        sky_level(exposure)


def test_scales_by_stars_need_stars_that_tie_all_together():
    """Two pairs that share no star with each other have no common scale, though each exposure shares some."""
    bright = [one(k, noise=1.0).replace(psf=NARROW) for k in range(2)]
    away = Grid.centered(10.0, -40.0, shape=(230, 214), pixel_scale=0.263).wcs
    apart = [exposure.replace(wcs=away) for exposure in (bright[0], bright[0])]
    empty = bright[1].replace(image=np.random.default_rng(5).normal(0.0, 1.0, bright[1].shape).astype("f4"))
    assert star_factors(bright[:1], [1.7]) == [1.7]
    with pytest.raises(InputError, match=r"input 3 of 4 shares fewer than 3 stars .*with input 1"):
        star_factors([*bright, *apart], [1.0] * 4)
    with pytest.raises(InputError, match="input 2 of 2 shares fewer than 3 stars"):
        star_factors([bright[0], empty], [1.0] * 2)
    with pytest.raises(InputError, match="relative scales need exposures with a WCS and a PSF"):
        star_factors([bright[0].replace(wcs=None), bright[1]], [1.0] * 2)


def test_a_chain_of_shared_stars_is_enough():
    """The first and the last share no star, but both share some with the one between."""
    whole = one(0, noise=1.0).replace(psf=NARROW)
    ny = whole.shape[0]
    masks = [np.zeros(whole.shape, np.int32) for _ in range(3)]
    masks[0][ny // 2 + 12 :] = 1
    masks[2][: ny // 2 - 12] = 1
    scales = (1.0, 0.8, 1.9)
    three = [
        whole.replace(image=whole.image * np.float32(scale), mask=Mask(mask, {"BAD": 0}))
        for scale, mask in zip(scales, masks, strict=True)
    ]
    factors = star_factors(three, [1.0] * 3)
    np.testing.assert_allclose([f / factors[0] for f in factors], 1.0 / np.array(scales), rtol=2e-3)
    assert np.log(factors).sum() == pytest.approx(0.0, abs=1e-6)


def test_a_zero_point_that_is_not_known_changes_nothing():
    assert flux_factors([25.0, None, 27.5], 25.0) == pytest.approx([1.0, 1.0, 0.1])


# ---- places


def test_what_lies_on_the_other_side_of_the_sky_touches_no_grid():
    """Beyond the tangent plane no pixel has a place on the grid; beside it, one that is outside."""
    for place in ((6.7, -25.4), (188.0, 27.0)):
        exposure = one(0).replace(wcs=Grid.centered(*place, shape=(230, 214), pixel_scale=0.263).wcs)
        transform = transform_to(exposure, GRID)
        assert covered(exposure, transform, GRID) is None
        assert _read_from(exposure, transform, Box(10, 10, 40, 50), 3, 3, (5, 5)) is None


# ---- what it keeps


def test_the_planes_of_an_exposure_are_kept_once(tmp_path, monkeypatch):
    """Where another process was faster, its files stay; without a variance there is none."""
    exposure = one(0, shape=(23, 31)).replace(variance=None)
    store = Store(tmp_path)
    folder = store.unpack("input-000000", exposure)
    assert sorted(path.name for path in folder.iterdir()) == ["image.npy", "mask.npy"]
    brighter = exposure.replace(image=exposure.image + 1)
    assert store.unpack("input-000000", brighter) == folder
    np.testing.assert_array_equal(np.load(folder / "image.npy"), exposure.image)
    exists = type(folder).exists
    monkeypatch.setattr(type(folder), "exists", lambda self: self != folder and exists(self))
    assert store.unpack("input-000000", brighter) == folder
    np.testing.assert_array_equal(np.load(folder / "image.npy"), exposure.image)
    assert [path.name for path in tmp_path.iterdir()] == ["input-000000"]


@pytest.fixture
def limited():
    """No file may be longer than 4 kB: on any system, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_left_out_for_want_of_room(tmp_path, limited):
    """An input or a patch that cannot be kept is no reason to go on without it: the whole ends, and says where."""
    store, plan = Store(tmp_path), a_plan([one(0)], patch=70)
    for name, keep in (
        ("input-000000.npz", lambda: a_plan([one(0)], store)),
        ("input-000000", lambda: store.unpack("input-000000", one(0))),
        ("patch-0.*.npz", lambda: run_patches(plan, store)),
    ):
        with pytest.raises(OSError, match=rf"cannot write it \(.*\); nothing was written: '{tmp_path}/{name}'"):
            keep()
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_need_a_place_with_room(tmp_path, monkeypatch, limited):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match=r"temporary file: cannot write it .*; set TMPDIR to a folder with room: .*-coa"):
        coadd([one(0)], target=TARGET, grid=GRID)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"no temporary folder can be made .*; set TMPDIR to .*nowhere"):
        coadd([one(0)], target=TARGET, grid=GRID)


def test_a_folder_is_for_one_process_at_a_time(tmp_path):
    store = Store.claimed(tmp_path / "x", {"short": "a"})
    with store.held():
        with pytest.raises(InputError, match="x: another process works in it: wait until it has ended"):
            Store.claimed(tmp_path / "x", {"short": "a"}, resume=True).held().__enter__()
        store.keep("one", {"a": 1})
    with store.held():
        assert store.words("one") == {"a": 1}


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", none)
    with Store.claimed(tmp_path / "x", {}).held():
        assert (tmp_path / "x").exists()


def test_a_folder_that_is_damaged_or_of_another_coadd_says_so(tmp_path):
    Store.claimed(tmp_path / "x", {"short": "a", "long": "b" * 300, "gone": "1"})
    with pytest.raises(InputError, match="long has changed; gone is missing; new is new"):
        Store.claimed(tmp_path / "x", {"short": "a", "long": "c" * 300, "new": "2"}, resume=True)
    for content, says in (("{", r"is damaged \(.*\): remove the folder"), ("[]", "is damaged: remove the folder")):
        next((tmp_path / "x").glob("*.json")).write_text(content)
        with pytest.raises(InputError, match=says):
            Store.claimed(tmp_path / "x", {"short": "a"}, resume=True)
    store = Store(tmp_path / "y")
    store.folder.mkdir()
    store.keep("one", {"a": 1})
    np.savez(store.folder / "two.npz", words="[1, 2]")
    np.savez(store.folder / "three.npz", words="{")
    assert (store.words("one"), store.words("two"), store.words("three"), store.words("four")) == (
        {"a": 1}, None, None, None,
    )  # fmt: skip


def test_kernels_of_another_scale_are_not_taken(tmp_path):
    """The store's kernel of an input is found only for the factor and target that it was made for."""
    exposure, store = constant(one(0), 0), Store(tmp_path)
    said = []

    def plan(zero_point):
        inputs = [CoaddInput(exposure, "e", zero_point=z) for z in (25.0, zero_point)]
        said.clear()
        return planned(inputs, **asked(), store=store, say=said.append)

    first, again = plan(25.0), plan(25.0)
    assert said.count("e: solved before") == 2
    assert [one.factor for one in again.inputs] == [one.factor for one in first.inputs] == [1.0, 1.0]
    other = plan(27.5)
    assert said.count("e: solved before") == 1
    assert [one.factor for one in other.inputs] == pytest.approx([10.0, 1.0])


def test_a_patch_that_is_gone_or_of_another_plan_is_empty(tmp_path):
    """It has no value, an infinite variance and NO_DATA; and is not taken for that of another plan."""
    store = Store(tmp_path)
    store.folder.mkdir(exist_ok=True)
    plan = a_plan([constant(one(0), 0)], patch=70)
    failed = run_patches(plan, store)
    assert failed == {}
    gone, foreign, *_ = sorted(tmp_path.glob("patch-*.npz"))
    gone.unlink()
    with np.load(foreign) as data:
        changed = {**data, "words": str(data["words"]).replace(plan.signature, "another")}
    np.savez(foreign, **changed)
    write_coadd(plan, store, tmp_path / "c.fits")
    made = psfmatch.read_exposure(tmp_path / "c.fits")
    lost = np.zeros(made.shape, bool)
    for file in (gone, foreign):
        y0, x0, y1, x1 = map(int, file.stem.split("-")[1:])
        lost[y0:y1, x0:x1] = True
    assert lost.any()
    assert np.isnan(made.image[lost]).all()
    assert made.mask.any_of("NO_DATA")[lost].all()
    assert np.isfinite(made.image[~lost]).mean() > 0.9


def test_an_exposure_whose_variance_says_nothing_is_left_out():
    made = coadd([one(0), one(1).replace(variance=np.full((230, 214), np.inf, np.float32))], target=TARGET, grid=GRID)
    assert [row.used for row in made.rows] == [True, False]
    assert made.rows[1].reason == "the variance is nowhere finite and positive"


# ---- who does it


class Ended:
    """What a cluster's client gives back of a piece of work that is done, failed or given up."""

    def __init__(self, *, result=None, error=None, given_up=False):
        self.answer, self.error, self.given_up, self.released = result, error, given_up, False

    def cancelled(self):
        return self.given_up

    def exception(self):
        return self.error

    def result(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def release(self):
        self.released = True


class Client:
    def __init__(self, *futures):
        self.futures = list(futures)

    def submit(self, function, *arguments, **options):
        return self.futures.pop(0) if "priority" in options else arguments[0]


@pytest.fixture
def ended(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "as_completed", list)
    return lambda *futures: Crew(Client(*futures))


def test_what_workers_say_and_what_fails_there_reaches_the_caller(ended):
    futures = Ended(result=(7, [(psfmatch.PsfMatchWarning, "a warning from there")])), Ended(error=ValueError("no"))
    with pytest.warns(psfmatch.PsfMatchWarning, match="a warning from there"):
        found = list(ended(*futures).each(max, 1, {"a": (2,), "b": (3,)}))
    assert found == [("a", 7, ""), ("b", None, "ValueError: no")]
    assert all(future.released for future in futures)
    assert list(ended().each(max, 1, {})) == []


@pytest.mark.parametrize(
    "future", [Ended(given_up=True), Ended(result=OSError("gone")), Ended(result=CancelledError())]
)
def test_a_cluster_that_is_lost_is_said_to_be(ended, future):
    with pytest.raises(ConnectionError, match="cluster"):
        list(ended(future).each(max, 1, {"a": (2,)}))


def test_what_cannot_be_kept_on_a_cluster_ends_it(ended):
    futures = Ended(error=OSError(errno.ENOSPC, "no room")), Ended(result=(7, []))
    with pytest.raises(OSError, match="no room"):
        list(ended(*futures).each(max, 1, {"a": (2,), "b": (3,)}))


# ---- its file, its page


def test_a_coadd_is_read_as_it_was_written(written):
    made, path = written
    exposure, count, correlation, rows = read_coadd(path)
    np.testing.assert_array_equal(exposure.image, made.exposure.image)
    np.testing.assert_array_equal(count, made.count)
    assert count.dtype.isnative
    np.testing.assert_allclose(correlation.stamps(x=60, y=60), made.correlation.stamps(x=60, y=60), atol=1e-7)
    assert [(row["name"], row["used"]) for row in rows] == [("e0", True), ("e1", True)]
    assert [row["weight"] for row in rows] == pytest.approx([row.weight for row in made.rows])
    html = report(path)
    assert "two.fits" in html
    assert all(f"{row.weight:.3g}"[:4] in html for row in made.rows)


def test_what_is_no_coadd_has_no_page_of_one(tmp_path):
    psfmatch.write_exposure(constant(one(0, shape=(23, 31)), 0), tmp_path / "e.fits")
    with pytest.raises(FormatError, match=r"e\.fits: holds no NEXP and INPUTS; it is not a coadd of psfmatch"):
        read_coadd(tmp_path / "e.fits")


def test_the_page_names_what_is_wrong_with_a_coadd(written):
    """One that has lost an input in a patch, one of which another has nearly all the weight, and an empty one."""
    exposure, count, correlation, (row, other) = read_coadd(written[1])
    row = {**row, "weight": 0.8, "reason": "missing in 2 patches: gone"}
    light = [{**other, "name": f"e{k}", "weight": 0.1} for k in (1, 2)]
    heavy = coadd_page(exposure, np.maximum(count, 1), correlation, [row, *light])
    for words in ("e0 alone has 80 % of the weight.", "e0: missing in 2 patches: gone", "read the notes"):
        assert words in heavy
    assert "of the pixels have no input" not in heavy
    left_out = [{**r, "used": False, "reason": "has no WCS"} for r in (row, other)]
    empty = coadd_page(exposure.replace(psf=None), 0 * count, correlation, left_out)
    for words in ("The coadd is empty", "No input was used.", "e1 is left out: has no WCS", "nan px"):
        assert words in empty


def test_only_the_noise_of_a_coadd_can_be_drawn(written, tmp_path):
    run = CliRunner()
    done = run.invoke(main, ["plot", "noise", str(written[1]), "-o", str(tmp_path / "noise.png")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")
    other = run.invoke(main, ["plot", "psf-field", str(written[1]), "-o", str(tmp_path / "psf.png")])
    assert other.exit_code == 2
    assert "of a coadd only noise can be drawn, not psf-field" in other.stderr
    assert not (tmp_path / "psf.png").exists()


def test_two_clusters_are_one_too_many(tmp_path):
    words = ["coadd", "a.fits", "-o", str(tmp_path / "c.fits"), "--workers", "1", "--scheduler", "tcp://127.0.0.1:9"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "--workers starts a cluster, --scheduler uses one: give one of the two" in done.stderr


def test_a_failed_patch_and_an_input_left_out_are_told(tmp_path, monkeypatch):
    """The exit code says so, the folder stays for --resume, and the table names what is not in it."""
    for k, exposure in enumerate((constant(one(0), 0), constant(one(1), 1).replace(psf=None))):
        psfmatch.write_exposure(exposure, tmp_path / f"e{k}.fits")
    words = ["coadd", str(tmp_path / "e0.fits"), str(tmp_path / "e1.fits"), "-o", str(tmp_path / "c.fits")]
    done = CliRunner().invoke(main, [*words, "-t", "moffat:fwhm=1.3arcsec,beta=3.5", "--patch", "100"])
    assert done.exit_code == 1, done.output
    assert "e1 is left out: has no PSF model" in done.stdout
    assert "1 of 2 images added" in done.stdout


def test_what_is_fixed_is_not_searched_for(tmp_path):
    words = ["coadd", "e0.fits", "-o", str(tmp_path / "c.fits"), "-t", "gaussian:fwhm=5"]
    done = CliRunner().invoke(main, [*words, "--set", "common_target.family=gaussian"])
    assert done.exit_code == 2
    assert "--target gaussian:fwhm=5 is given: --set common_target.family=gaussian has no effect" in " ".join(
        done.stderr.split()
    )
