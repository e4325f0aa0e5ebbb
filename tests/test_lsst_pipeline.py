"""`MakePsfMatchedWarpTask` in a Butler repository, run by ``pipetask``: no part of Rubin's software is played here."""

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lsst.ctrl.mpexec")
pytest.importorskip("piff")
pytest.importorskip("lsst.images")

from lsst import images
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from lsst.images.formatters import GenericFormatter
from lsst.images.serialization import read_archive, write_archive
from lsst.pipe.base import PipelineTask, Struct, Task

import psfmatch
from psfmatch import Box, GaussianPSF, GridPSF, InputError, MoffatPSF, PSFError
from psfmatch.io.lsst_images import (
    from_lsst_images,
    psf_from_lsst_images,
    psf_to_lsst_images,
    to_masked_image,
    to_visit_image,
)
from psfmatch.lsst import (
    GaussianPsfFactory,
    KernelPsf,
    MakePsfMatchedWarpConfig,
    MakePsfMatchedWarpTask,
    ModelPsfMatchTask,
    SingleGaussianPsf,
    solver_from_config,
)

REAL = Path(__file__).parent / "data" / "lsst_images" / "visit_image-1.0.0-dp1.json"
BOX = Box.from_shape((220, 292), y0=300, x0=1040)
STARS = {(1100.3, 360.6): 3e4, (1261.2, 411.4): 2e4, (1173.0, 461.0): 1e4}
NOISE, BAD = 4.0, (390, 1180)
OVERRIDES = """
config.modelPsf.defaultFwhm = 6.0
config.modelPsf.size = 41
config.modelPsf.wingFwhmFactor = 1.6
config.psfMatch.kernel.active.spatialKernelOrder = 1
config.psfMatch.kernel.active.kernelSize = 31
config.psfMatch.kernel["AL"].alardSigGauss = [0.8, 1.6, 3.2]
"""
DATA_ID = {"instrument": "LSSTComCam", "detector": 0}


def lopsided():
    """Wider along a slant, with a companion: it has no symmetry."""
    stamp = MoffatPSF(fwhm=3.9, beta=3.5, ellipticity=0.1, angle=25.0).stamps(x=0, y=0, shape=(33, 33))[0].copy()
    stamp[1:, 1:] += 0.1 * stamp[:-1, :-1]
    return KernelPsf(stamp)


def visit_image(real, model, seed):
    """Stars as ``lsst.images`` draws them, in noise, with a pixel that has no value; all else is the real visit's."""
    box = images.Box.factory[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]
    pixels = np.random.default_rng(seed).normal(0.0, NOISE, BOX.shape).astype(np.float32)
    frame = images.Image(pixels, bbox=box, unit=real.unit, sky_projection=real.sky_projection)
    for (x, y), flux in STARS.items():
        star = model.compute_stellar_image(x=x, y=y)
        frame[star.bbox].array += flux * star.array
    mask = images.Mask(0, schema=real.mask.schema, bbox=box, sky_projection=real.sky_projection)
    bad = np.zeros(BOX.shape, bool)
    bad[BAD[0] - BOX.y0, BAD[1] - BOX.x0] = True
    mask.set("SATURATED", bad)
    variance = images.Image(np.full(BOX.shape, NOISE**2, np.float32), bbox=box, unit=real.unit**2)
    return images.VisitImage(
        frame, mask=mask, variance=variance, psf=model, obs_info=real.obs_info, detector=real.detector, band="r",
        summary_stats=real.summary_stats, metadata={"id": seed}, aperture_corrections=dict(real.aperture_corrections),
    )  # fmt: skip


@pytest.fixture(scope="module")
def real():
    return read_archive(str(REAL))


@pytest.fixture(scope="module")
def visits(real):
    return {11: visit_image(real, real.psf, 11), 12: visit_image(real, psf_to_lsst_images(lopsided(), BOX), 12)}


@pytest.fixture(scope="module")
def butler(visits, tmp_path_factory):
    """A repository of two visits after the pipeline has run."""
    folder = tmp_path_factory.mktemp("rubin")
    repository = str(folder / "repo")
    with Butler.from_config(Butler.makeRepo(repository), run="visits") as butler:
        instrument = {"instrument": "LSSTComCam"}
        registry = butler.registry
        registry.insertDimensionData("instrument", {"name": "LSSTComCam", "class_name": "lsst.obs.lsst.LsstComCam"})
        registry.insertDimensionData("physical_filter", {**instrument, "name": "r_03", "band": "r"})
        registry.insertDimensionData("day_obs", {**instrument, "id": 20241108})
        registry.insertDimensionData("detector", {**instrument, "id": 0, "full_name": "R22_S00"})
        kind = DatasetType("visit_image", ("instrument", "visit", "detector"), "VisitImage", universe=butler.dimensions)
        registry.registerDatasetType(kind)
        for visit, image in visits.items():
            record = {**instrument, "id": visit, "day_obs": 20241108, "physical_filter": "r_03", "name": str(visit)}
            registry.insertDimensionData("visit", record)
            registry.insertDimensionData("visit_detector_region", {**DATA_ID, "visit": visit})
            path = str(folder / f"{visit}.fits")
            write_archive(image, path)
            data_id = registry.expandDataId(DATA_ID, visit=visit)
            butler.ingest(
                FileDataset(path, DatasetRef(kind, data_id, run="visits"), formatter=GenericFormatter),
                transfer="copy",
            )
    (folder / "config.py").write_text(OVERRIDES)
    subprocess.run(
        [Path(sys.executable).parent / "pipetask", "--long-log", "run", "-b", repository, "-i", "visits",
         "-o", "matched", "-p", "resource://psfmatch.lsst/pipelines/match.yaml", "--register-dataset-types",
         "-C", f"makePsfMatchedWarp:{folder / 'config.py'}", "-d", "instrument='LSSTComCam'"],
        check=True, cwd=folder,
    )  # fmt: skip
    with Butler.from_config(repository, collections="matched") as butler:
        yield butler


@pytest.fixture(scope="module", params=[11, 12])
def pair(request, butler, visits):
    """A visit, and what the pipeline has made of it."""
    matched = butler.get("psf_matched_visit_image", DATA_ID, visit=request.param)
    return from_lsst_images(visits[request.param]), from_lsst_images(matched), matched


def inner(exposure, width=25):
    return exposure.cutout(Box(BOX.y0 + width, BOX.x0 + width, BOX.y1 - width, BOX.x1 - width))


def target():
    factory = GaussianPsfFactory()
    factory.defaultFwhm, factory.wingFwhmFactor, factory.size = 6.0, 1.6, 41
    return factory.apply()


def test_the_psf_is_the_target(pair):
    _, after, _ = pair
    np.testing.assert_allclose(
        after.psf.stamps(x=1100, y=400)[0], target().stamps(x=0, y=0, shape=after.psf.shape)[0], atol=1e-7
    )


def test_stars_have_the_target_psf(pair):
    """Against the formula, at the stars' positions within their pixels, to two parts in a hundred of the peak."""
    _, after, _ = pair
    ys, xs = np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]
    truth = np.zeros(BOX.shape)
    for (x, y), flux in STARS.items():
        truth += flux * target().pixels(dx=(xs - x).ravel(), dy=(ys - y).ravel()).reshape(BOX.shape)
    for x, y in STARS:
        here = np.hypot(xs - x, ys - y) < 12
        here &= after.mask.array == 0
        assert np.abs(after.image - truth)[here].max() < 0.02 * truth[here].max() + 2 * NOISE


@pytest.mark.filterwarnings("ignore:The match is poor")
def test_pixels_are_those_of_match(pair):
    """The same solver through `psfmatch.match`, with the convolution by blocks: the same pixels."""
    before, after, _ = pair
    config = MakePsfMatchedWarpConfig()
    config.loadFromString(OVERRIDES)
    where = getattr(before.psf, "average_position", None)
    solver = solver_from_config(config.psfMatch.value, fwhm_at=where)
    wanted = psfmatch.match(before, target(), solver=solver, convolver=psfmatch.FFT(edge="nan"), throw=False)
    good = np.isfinite(after.image) & np.isfinite(wanted.exposure.image)
    assert good.mean() > 0.6
    np.testing.assert_allclose(after.image[good], wanted.exposure.image[good], atol=1e-3 * NOISE, rtol=1e-4)
    free = psfmatch.match(before, target()).exposure
    assert np.abs(inner(free).image - inner(after).image).max() < 0.02 * np.nanmax(after.image) + NOISE


def test_what_is_kept_and_what_is_not(pair, real):
    before, after, matched = pair
    assert (after.box, after.unit, after.meta["id"], matched.band) == (BOX, "nJy", before.meta["id"], "r")
    assert matched.sky_projection.pixel_to_sky(x=1100.0, y=400.0).separation(
        real.sky_projection.pixel_to_sky(x=1100.0, y=400.0)
    ).arcsec == pytest.approx(0.0, abs=1e-6)
    assert matched.obs_info == real.obs_info
    assert matched.detector == real.detector
    assert matched.summary_stats.expTime == real.summary_stats.expTime
    assert np.isnan(matched.summary_stats.psfSigma)
    assert real.aperture_corrections
    assert not matched.aperture_corrections


def test_variance_is_that_of_the_noise(pair):
    """Far from the stars, where there is nothing else."""
    _, after, _ = pair
    empty = np.ones(BOX.shape, bool)
    ys, xs = np.mgrid[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1]
    for x, y in STARS:
        empty &= np.hypot(xs - x, ys - y) > 45
    empty &= after.mask.array == 0
    assert np.var(after.image[empty]) == pytest.approx(np.median(after.variance[empty]), rel=0.15)
    assert np.median(after.variance[empty]) < 0.1 * NOISE**2


def test_flags_spread_over_the_kernel(pair):
    before, after, _ = pair
    assert before.mask.any_of("SAT").sum() == 1
    spread = after.mask.any_of("SAT")
    rows, columns = np.nonzero(spread)
    assert spread.sum() > 100
    assert abs(rows.mean() + BOX.y0 - BAD[0]) < 0.5
    assert abs(columns.mean() + BOX.x0 - BAD[1]) < 0.5
    assert after.mask.any_of("EDGE", "NO_DATA")[0].all()


def test_what_the_repository_remembers(butler):
    metadata = butler.get("makePsfMatchedWarp_metadata", DATA_ID, visit=12)
    assert 0 < metadata["makePsfMatchedWarp"]["residual"] < 0.02
    assert metadata["makePsfMatchedWarp:psfMatch"].getArray("ALBasisSigGauss") == [0.8, 1.6, 3.2]
    config = butler.get("makePsfMatchedWarp_config")
    assert isinstance(config, MakePsfMatchedWarpConfig)
    assert config.modelPsf.defaultFwhm == 6.0
    assert config.psfMatch.kernel.active.spatialKernelOrder == 1


def test_tasks_are_rubins():
    assert issubclass(ModelPsfMatchTask, Task)
    assert issubclass(MakePsfMatchedWarpTask, PipelineTask)
    task = MakePsfMatchedWarpTask()
    assert task.psfMatch.getFullName() == "makePsfMatchedWarp.psfMatch"
    assert task.psfMatch.log.name == f"{task.log.name}.psfMatch"
    again = pickle.loads(pickle.dumps(ModelPsfMatchTask(doNormalize=False, log=logging.getLogger("mine"))))
    assert not again.doNormalize
    assert isinstance(again.buildCellSet.__self__, ModelPsfMatchTask)


def test_the_task_without_a_repository(visits):
    task = MakePsfMatchedWarpTask()
    task.config.modelPsf.addWing = False
    before = visits[12].image.array.copy()
    result = task.run(visits[12])
    assert isinstance(result, Struct)
    assert isinstance(result.psf_matched_warp.psf, images.psfs.GaussianPointSpreadFunction)
    assert result.psf_matched_warp.psf.sigma == pytest.approx(7.7 / 2.3548, rel=1e-4)
    np.testing.assert_array_equal(visits[12].image.array, before)


def test_defaults_are_rubins():
    config = MakePsfMatchedWarpConfig()
    assert config.modelPsf.defaultFwhm == 7.7
    assert list(config.psfMatch.kernel["AL"].alardSigGauss) == [1.0, 2.0, 4.5]
    size, sigma = config.modelPsf.value.computeSizeAndSigma()
    assert (size, round(sigma, 4)) == (23, 3.2699)
    config.modelPsf.minSize, config.modelPsf.maxSize = 9, 5
    with pytest.raises(InputError, match="minSize=9 > maxSize=5"):
        config.validate()


def test_masked_images_both_ways(visits):
    exposure = from_lsst_images(visits[11], psf=None)
    there = to_masked_image(exposure)
    back = from_lsst_images(there)
    assert {"SATURATED", "DETECTION_EDGE", "COSMIC_RAY"} <= set(there.mask.schema.names)
    for plane in ("image", "variance"):
        np.testing.assert_array_equal(getattr(back, plane), getattr(exposure, plane))
    np.testing.assert_array_equal(back.mask.any_of("SAT"), exposure.mask.any_of("SAT"))
    assert (back.box, back.unit, back.psf) == (BOX, "nJy", None)
    assert back.pixel_scale == pytest.approx(exposure.pixel_scale, rel=1e-6)


def test_a_psf_that_cannot_be_stored(real, visits):
    stamps = np.stack([[p.stamps(x=0, y=0, shape=(21, 21))[0] for p in (lopsided(), SingleGaussianPsf(21, 21, 2.0))]])
    exposure = from_lsst_images(visits[11]).replace(psf=GridPSF(stamps, x=[1040.0, 1300.0], y=[300.0]))
    with pytest.raises(InputError, match="GridPSF varies over the field"):
        to_visit_image(exposure, visits[11])


def test_a_psf_that_cannot_be_read(real):
    from lsst.images.serialization import ArchiveReadError

    broken = real.copy()
    broken.psf = ArchiveReadError("no reader")
    with pytest.raises(PSFError, match="could not be read: no reader"):
        from_lsst_images(broken)
    assert from_lsst_images(broken, psf=lopsided()).psf.shape == (33, 33)


def test_a_gaussian_stays_one_both_ways(visits):
    """Ours as Rubin's, read again; what was Rubin's is handed back as it is; and without a PSF there is no visit."""
    gaussian = psf_to_lsst_images(GaussianPSF(fwhm=4.4, size=21, sampling="center"), BOX)
    assert (gaussian.sigma, gaussian.kernel_bbox.x.size) == (pytest.approx(4.4 / 2.3548200450309493), 21)
    back = psf_from_lsst_images(gaussian)
    assert (back.fwhm, back.shape, back.sampling) == (pytest.approx(4.4), (21, 21), "center")
    rubins = psf_from_lsst_images(visits[11].psf)
    assert psf_to_lsst_images(rubins, BOX) is visits[11].psf
    with pytest.raises(InputError, match="the exposure has no PSF model, and a visit image needs one"):
        to_visit_image(from_lsst_images(visits[11]).replace(psf=None), visits[11])


def test_the_stamp_of_a_gaussian_is_kept_within_its_limits():
    """By the FWHM, but not below the least nor above the largest; or as it is set."""
    factory = GaussianPsfFactory()
    factory.minSize, factory.maxSize = 9, 15
    assert [factory.computeSizeAndSigma(fwhm)[0] for fwhm in (1.0, 4.0, 9.0)] == [9, 13, 15]
    factory.minSize = factory.maxSize = None
    assert [factory.computeSizeAndSigma(fwhm)[0] for fwhm in (1.0, 9.0)] == [3, 27]
    factory.size = 41
    size, sigma = factory.computeSizeAndSigma(9.0)
    assert (size, sigma) == (41, pytest.approx(9.0 / 2.3548200450309493))
