"""The main job on real frames: the stars have the target's width."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, TARGET_FWHM, demo_data, measured
from psfmatch.plots import AFTER, BEFORE, BeforeAfter, before_after
from psfmatch.stars import find_stars, fit_moffat


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    begin = time.process_time()
    result = CliRunner().invoke(main, ["demo", "-o", str(folder), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout) | {"processor": time.process_time() - begin}


def test_files(demo):
    folder, values = demo
    names = {f"{image.removesuffix('.fits.gz')}-matched.fits" for image, _ in FRAMES.values()}
    assert {path.name for path in folder.iterdir()} == names | {"before_after.png", "coadd.png", "coadd.fits"}
    for frame in values["images"].values():
        exposure = psfmatch.read_exposure(frame["output"])
        assert exposure.psf is not None
        assert exposure.variance is not None
        assert exposure.wcs.has_celestial
        assert psfmatch.read_kernel(frame["output"]).box == exposure.box
    for name in ("before_after.png", "coadd.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["N2", "S1"])
def test_brightest_star_has_the_targets_fwhm(demo, name):
    _, values = demo
    star = values["images"][name]["star"]
    assert star["fwhm"]["after"] == pytest.approx(TARGET_FWHM, rel=0.005)
    assert star["fwhm"]["before"] < 0.95 * TARGET_FWHM
    # again from the file, with the target's own beta, and within other radii
    exposure = psfmatch.read_exposure(values["images"][name]["output"])
    assert measured(exposure, x=star["x"], y=star["y"]).fwhm == pytest.approx(star["fwhm"]["after"], rel=1e-3)
    for radius in (10.0, 15.0):
        fixed = fit_moffat(exposure, x=star["x"], y=star["y"], beta=3.5, radius=radius)
        assert fixed.fwhm == pytest.approx(TARGET_FWHM, rel=0.005)


def test_quality_is_told(demo):
    for frame in demo[1]["images"].values():
        assert frame["outcome"] == "TOLERANCE_NOT_REACHED"
        assert frame["quality"]["worst"]["residual"] < 0.015
        assert frame["quality"]["worst"]["ee_error"] < 0.01
        assert frame["quality"]["worst"]["kernel_sum"] == pytest.approx(1.0, abs=0.01)
    assert demo[1]["processor"] < 60


@pytest.mark.parametrize("name", ["N3", "N3b"])
def test_model_error_is_told_apart(demo, name):
    """The models of CCD N3 are broader than the star, so that the matched star is narrower than the target."""
    fwhm = demo[1]["images"][name]["star"]["fwhm"]
    assert fwhm["before"] / fwhm["model"] - 1 == pytest.approx(-0.032, abs=0.01)
    assert fwhm["after"] < 0.995 * TARGET_FWHM


def test_the_coadds_star_is_round_and_has_the_targets_profile(demo):
    """Measured again from the file; the plain mean's has neither, and over a star's area the noise is the same."""
    sums = demo[1]["sums"]
    plain, added = sums["plain_mean"], sums["coadd"]
    exposure = psfmatch.read_exposure(sums["output"])
    star = fit_moffat(exposure, x=added["x"], y=added["y"], radius=12.0)
    assert star.fwhm == pytest.approx(added["fwhm"], rel=1e-3)
    assert star.fwhm == pytest.approx(TARGET_FWHM, rel=0.01)
    assert star.ellipticity < 0.02 < 0.06 < plain["ellipticity"]
    assert star.beta == pytest.approx(3.5, abs=0.1)
    assert plain["fwhm"] < 0.9 * TARGET_FWHM
    assert plain["beta"] < 3.3
    assert added["sky_in_pixels"] < 0.5 * plain["sky_in_pixels"]
    assert added["sky_in_circles"] == pytest.approx(plain["sky_in_circles"], rel=0.15)
    assert added["sky_in_pixels"] ** 2 == pytest.approx(np.nanmedian(exposure.variance), rel=0.2)
    assert [row["used"] for row in sums["inputs"]] == [True] * 4
    with fits.open(sums["output"]) as hdus:
        assert hdus["NEXP"].data.max() == 4
        assert len(hdus["INPUTS"].data) == 4


def test_readme_has_these_widths(demo):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name, frame in demo[1]["images"].items():
        (row,) = re.findall(rf"^ +{name} .*", readme, re.MULTILINE)
        before, _, model, _, after, _ = (float(n) for n in re.findall(r"[+-]?\d+\.\d+", row))
        fwhm = frame["star"]["fwhm"]
        assert (before, model, after) == pytest.approx((fwhm["before"], fwhm["model"], fwhm["after"]), abs=0.004)
    for name, found in (("plain mean", "plain_mean"), ("coadd", "coadd")):
        (row,) = re.findall(rf"^ +{name}  .*", readme, re.MULTILINE)
        told = [float(n) for n in re.findall(r"[+-]?\d+\.\d+", row)]
        values = demo[1]["sums"][found]
        keys = ("fwhm", "ellipticity", "beta", "sky_in_pixels", "sky_in_circles")
        assert [told[0], *told[2:]] == pytest.approx([values[key] for key in keys], rel=2e-3, abs=0.004)


def test_never_overwrites_in_silence(demo, tmp_path, monkeypatch):
    folder, _ = demo
    before = (folder / "before_after.png").stat().st_mtime_ns
    result = CliRunner().invoke(main, ["demo", "-o", str(folder)])
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert (folder / "before_after.png").stat().st_mtime_ns == before
    monkeypatch.chdir(tmp_path)
    (tmp_path / "psfmatch-demo").mkdir()
    result = CliRunner().invoke(main, ["demo"])
    assert "wrote psfmatch-demo-2/before_after.png" in result.stdout
    assert "after" in result.stdout
    frames = [Path(line) for line in re.findall(r"^  (\S+\.fits\.gz)$", result.stdout, re.MULTILINE)]
    assert [path.name for path in frames] == [file for file, _ in FRAMES.values()]
    assert all(path.exists() for path in frames)
    assert not list((tmp_path / "psfmatch-demo").iterdir())


def test_without_matplotlib(tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None; from psfmatch.cli import main; main(prog_name='psfmatch')"
    command = [sys.executable, "-W", "error", "-c", code, "demo", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'pip install "psfmatch[plots]", in a clone ".[plots]"' in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == len(FRAMES) + 1


def star_field(psf, *, x0=20, y0=-30):
    """Two stars on a sloping sky, a cosmic ray, a galaxy and a saturated star, in a frame with an origin."""
    rng = np.random.default_rng(5)
    variance = np.full((150, 110), 25.0)
    image = rng.normal(1000.0, 5.0, variance.shape)
    broad = psfmatch.MoffatPSF(fwhm=2 * psf.fwhm, beta=3.5)
    for row, column, flux, model in (
        (30, 25, 9e4, psf),
        (100, 60, 4e4, psf),
        (60, 80, 3e5, broad),
        (120, 30, 4e6, psf),
    ):
        image[row - 20 : row + 21, column - 20 : column + 21] += flux * model.stamps(x=0, y=0, shape=(41, 41))[0]
    image[80, 20] += 8000.0
    image = np.minimum(image, 30000.0)
    mask = psfmatch.Mask.from_bool(image >= 30000.0, "SAT")
    box = psfmatch.Box.from_shape(image.shape, y0=y0, x0=x0)
    return psfmatch.Exposure(image, variance=variance, mask=mask, box=box, psf=psf)


def test_find_stars_finds_only_stars():
    exposure = star_field(psfmatch.MoffatPSF(fwhm=3.6, beta=3.0))
    assert find_stars(exposure) == [(0, 45), (70, 80)]
    saturated = exposure.replace(mask=psfmatch.Mask(np.zeros(exposure.shape, int)))
    assert find_stars(saturated, saturation=3e4) == [(0, 45), (70, 80)]
    with pytest.raises(psfmatch.InputError, match="without a PSF"):
        find_stars(exposure.replace(psf=None))


@pytest.mark.parametrize("beta", [None, 3.0])
def test_fit_finds_the_profile(beta):
    psf = psfmatch.MoffatPSF(fwhm=3.6, beta=3.0, ellipticity=0.2, angle=25.0)
    star = fit_moffat(star_field(psf), x=46.3, y=-0.6, beta=beta, radius=12)
    assert abs(star.fwhm - 3.6) < 4 * star.fwhm_error < 0.05
    assert (star.x, star.y) == pytest.approx((45.0, 0.0), abs=0.02)
    assert star.ellipticity == pytest.approx(0.2, abs=0.01)
    assert star.angle == pytest.approx(25.0, abs=2.0)
    assert star.beta == pytest.approx(3.0, abs=0.1)
    assert star.flux == pytest.approx(9e4, rel=0.02)
    assert star.background == pytest.approx(1000.0, abs=2.0)


def test_fit_is_exact_without_noise():
    """The pixel integral is that of the PSF models, off the pixel's centre too."""
    psf = psfmatch.MoffatPSF(fwhm=2.2, beta=2.5, ellipticity=0.3, angle=-70.0)
    star = fit_moffat(psfmatch.Exposure(psf.stamps(x=0, y=0, shape=(31, 41))[0]), x=20, y=15, radius=14)
    assert star.fwhm == pytest.approx(2.2, rel=1e-4)
    assert star.beta == pytest.approx(2.5, rel=1e-4)
    assert star.ellipticity == pytest.approx(0.3, abs=1e-4)
    assert star.angle == pytest.approx(-70.0, abs=0.01)
    assert star.flux == pytest.approx(1.0, rel=1e-4)


def test_fit_refuses_what_it_cannot_fit():
    exposure = star_field(psfmatch.MoffatPSF(fwhm=3.6, beta=3.0))
    with pytest.raises(psfmatch.InputError, match="usable pixels"):
        fit_moffat(exposure, x=-500, y=0)
    with pytest.raises(psfmatch.InputError, match="no Moffat profile"):
        fit_moffat(exposure.replace(image=-exposure.image), x=45, y=0)


def test_demo_frames_are_read_with_everything():
    for file, _ in FRAMES.values():
        exposure = psfmatch.read_exposure(demo_data() / file)
        assert exposure.variance is not None
        assert exposure.psf is not None
        assert exposure.pixel_scale == pytest.approx(0.262, abs=0.002)


def test_picture_shows_what_was_measured():
    target = psfmatch.MoffatPSF(fwhm=5.0, beta=3.5)
    before = star_field(psfmatch.MoffatPSF(fwhm=3.6, beta=3.0))
    after = star_field(target)
    star, matched = (fit_moffat(exposure, x=45, y=0) for exposure in (before, after))
    figure = before_after([BeforeAfter("a frame", before, after, star, matched, target_fwhm=5.0)] * 2)
    left, right, _, growth = figure.axes[:4]
    assert left.get_ylabel() == "a frame"
    assert f"FWHM {star.fwhm:.2f} px" in [text.get_text() for text in left.texts]
    assert f"FWHM {matched.fwhm:.2f} px" in [text.get_text() for text in right.texts]
    curves = {line.get_color(): line.get_ydata() for line in growth.lines[1:]}
    assert np.max(curves[BEFORE]) > 10.0
    assert np.max(np.abs(curves[AFTER])) < 0.5
    with pytest.raises(psfmatch.InputError, match="no PSF"):
        BeforeAfter("a frame", before, after.replace(psf=None), star, matched, target_fwhm=5.0)
