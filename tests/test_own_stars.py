"""A PSF from the frame's own stars is the true one, on frames where the truth is known; and real frames."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, demo_data
from psfmatch.moments import adaptive_moments, fwhm
from psfmatch.stars.compare import compared, tabulated
from psfmatch.stars.empirical import HalfSplit, _problems
from starfields import star_field

SHAPE = (61, 61)


def deviations(psf, truth, box, places=((0.5, 0.5), (0.15, 0.2), (0.85, 0.3), (0.2, 0.85))):
    """Of FWHM, and of the encircled energy at any radius below 15 px, at places given by shares of the sides."""
    y, x = np.mgrid[-30:31, -30:31]
    ring = np.rint(np.hypot(x, y)).astype(int).ravel()
    out = []
    for u, v in places:
        at = {"x": box.x0 + u * box.shape[1], "y": box.y0 + v * box.shape[0], "shape": SHAPE}
        made, true = psf.stamps(**at)[0], truth.stamps(**at)[0]
        growth = np.cumsum(np.bincount(ring, (made - true).ravel()))[:15]
        out.append((fwhm(made) / fwhm(true) - 1.0, np.abs(growth).max()))
    return np.array(out).T


@pytest.fixture(scope="module")
def varying():
    exposure, truth, places = star_field(stars=36, shape=(360, 470), galaxies=30)
    return exposure, truth, places, psfmatch.psf_from_stars(exposure)


def test_only_stars_are_taken(varying):
    """Not one of 30 galaxies, 60 cosmic rays and 3 saturated stars."""
    _, _, places, made = varying
    apart = np.hypot(made.x[:, None] - places[None, :, 0], made.y[:, None] - places[None, :, 1])
    assert len(made.x) >= 15
    assert np.count_nonzero(apart.min(axis=1) > 1.0) == 0
    assert sum(made.rejected.values()) > 30
    assert (np.diff(made.snr) <= 0).all()


def test_model_is_the_truth_all_over_the_field(varying):
    exposure, truth, _, made = varying
    assert made.order >= 1
    width, growth = deviations(made.psf, truth, exposure.box)
    assert np.abs(width).max() < 0.01  # it drifts by 0.19 from corner to corner
    assert growth.max() < 0.006
    assert made.fwhm == pytest.approx(fwhm(made.psf.stamps(x=305, y=145)[0]), rel=2e-3)
    for u, v in ((0.2, 0.3), (0.8, 0.7)):
        at = {"x": exposure.box.x0 + u * exposure.shape[1], "y": exposure.box.y0 + v * exposure.shape[0]}
        moments = [adaptive_moments(psf.stamps(**at)[0]) for psf in (made.psf, truth)]
        assert moments[0] == pytest.approx(moments[1], abs=0.03 * moments[1][0])
    assert abs(made.split.fwhm) < 0.01
    assert made.split.ee_error < 0.01
    assert made.chi2 == pytest.approx(1.0, abs=0.25)


def test_constant_psf_without_variance_or_mask():
    """The flux beyond the stamps is known; nothing varies that is the same everywhere."""
    exposure, truth, _ = star_field(
        stars=24, shape=(330, 400), drift=0.0, galaxies=15, faint=80, seed=4, variance=False
    )
    bare = psfmatch.Exposure(exposure.image, box=exposure.box)
    selection = psfmatch.StarSelection(saturation=6e4)
    made = psfmatch.psf_from_stars(bare, selection=selection, max_order=0, stamp=35)
    assert made.psf.constant
    assert made.psf.shape == (35, 35)
    width, growth = deviations(made.psf, truth, exposure.box, [(0.5, 0.5)])
    assert abs(width[0]) < 0.005
    assert growth[0] < 0.005
    assert made.psf.image.sum() == pytest.approx(truth.stamps(x=0, y=0, shape=(35, 35))[0].sum(), abs=0.005)


def test_wings_that_no_moffat_profile_has():
    """A Gaussian on a tenth of the flux in broad wings: far out 4.5 times what the Moffat profile of its core has."""
    rng = np.random.default_rng(1)
    core, wings = psfmatch.GaussianPSF(fwhm=3.0), psfmatch.MoffatPSF(fwhm=6.0, beta=3.0)

    def pixels(dx, dy):
        return 0.9 * core.pixels(dx=dx.ravel(), dy=dy.ravel()) + 0.1 * wings.pixels(dx=dx.ravel(), dy=dy.ravel())

    image = np.zeros((330, 460))
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    for y in np.arange(40, 300, 62.0):
        for x in np.arange(40, 440, 70.0):
            y0, x0 = int(y) - 30, int(x) - 30
            near = np.s_[max(y0, 0) : y0 + 61, max(x0, 0) : x0 + 61]
            dx, dy = columns[near] - x - rng.uniform(-0.5, 0.5), rows[near] - y - rng.uniform(-0.5, 0.5)
            image[near] += 10 ** rng.uniform(4.0, 5.6) * pixels(dx, dy).reshape(dx.shape)
    variance = 100.0 + image
    made = psfmatch.psf_from_stars(psfmatch.Exposure(rng.normal(image, np.sqrt(variance)), variance=variance))
    dy, dx = np.mgrid[-20:21, -20:21].astype(float)
    truth = pixels(dx, dy).reshape(dx.shape)
    found = made.psf.stamps(x=230, y=165, shape=truth.shape)[0]
    assert fwhm(found) == pytest.approx(fwhm(truth), rel=0.005)
    ring = np.rint(np.hypot(dx, dy)).astype(int).ravel()
    assert np.abs(np.cumsum(np.bincount(ring, (found - truth).ravel()))[:15]).max() < 0.01
    assert made.problems == ()


def test_poor_models_are_called_poor():
    exposure, _, _ = star_field(
        stars=4, shape=(200, 260), drift=0.0, galaxies=0, faint=5, cosmic_rays=0, seed=9, fwhm=1.5
    )
    with pytest.warns(psfmatch.PsfMatchWarning) as caught:
        made = psfmatch.psf_from_stars(exposure)
    said = " ".join(str(w.message) for w in caught)
    assert "stars only" in said
    assert "undersampled" in said
    assert len(made.problems) == len(caught)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"chi2": 26.5}, r"does not fit its own stars \(chi2 26\.5\)"),
        ({"model_error": 0.05}, "its stars differ from one another by 5%"),
        ({"split": HalfSplit(-0.03, 0.004, 0.01, 0.01)}, r"halves .* disagree on the FWHM by -3.0% ± 0.4%"),
        ({"split": HalfSplit(0.0, 0.001, 0.01, 0.03)}, "halves .* disagree on the encircled energy by 3.0%"),
        ({"rejected": {"too close to another source": 99}}, "the field is crowded: 99 stars are too close"),
        ({"rejected": {"bad, saturated or cut off": 98}}, "98 stars are bad, saturated or cut off, and "),
        ({"fwhm": 1.9}, r"undersampled \(FWHM 1.90 px\)"),
        ({"split": None}, None),
    ],
)
def test_what_is_wrong_with_a_model_is_said(varying, changed, says):
    good = replace(varying[3], rejected={}, model_error=0.0, split=HalfSplit(0.0, 0.001, 0.01, 0.01))
    assert _problems(good) == []
    found = _problems(replace(good, **changed))
    assert len(found) == (says is not None)
    assert not found or re.search(says, found[0])
    assert ("half of the stars" in str(replace(good, **changed))) == ("split" not in changed or says is not None)


def test_no_stars_no_model():
    noise = np.random.default_rng(2).normal(5.0, 1.0, (90, 120))
    with pytest.raises(psfmatch.InputError, match="no star to make a PSF from"):
        psfmatch.psf_from_stars(psfmatch.Exposure(noise))
    with pytest.raises(psfmatch.InputError, match="max_order"):
        psfmatch.psf_from_stars(psfmatch.Exposure(noise), max_order=4)
    with pytest.raises(psfmatch.InputError, match="least_snr"):
        psfmatch.StarSelection(least_snr=1.0)


def test_stretch_is_measured_and_noise_is_propagated():
    """Of a Moffat star seen with a narrower, rounder model, at a place between the pixels."""
    rng = np.random.default_rng(8)
    model = psfmatch.MoffatPSF(fwhm=3.0, beta=3.0)
    star = psfmatch.MoffatPSF(fwhm=3.3, beta=3.0, ellipticity=0.1, angle=30.0)
    dx, dy = (g.ravel().astype(float) for g in np.meshgrid(np.arange(-14, 15), np.arange(-14, 15)))
    clean = 5e4 * star.pixels(dx=dx - 0.3, dy=dy + 0.2)
    profile = tabulated(model.stamps(x=0, y=0, shape=(41, 41))[0])
    shear = -0.5 * np.log(0.9)
    found = []
    for _ in range(25):
        data = clean + rng.normal(0.0, 20.0, dx.size) + 7.0
        cutout = psfmatch.stars.Cutout(100.0, 50.0, dx, dy, data, np.full(dx.size, 400.0), 2.0, 100.0, 3.0)
        found.append(compared(profile, cutout, core=4.5, model_error=1e-9))
    stretch = np.array([f.stretch for f in found])
    broad = psfmatch.MoffatPSF(fwhm=3.3, beta=3.0)
    size = np.log(fwhm(broad.stamps(x=0, y=0)[0]) / fwhm(model.stamps(x=0, y=0)[0]))  # pixels make it less than 1.1
    wanted = size, shear * np.cos(np.pi / 3), shear * np.sin(np.pi / 3)
    assert stretch.mean(axis=0) == pytest.approx(wanted, abs=0.005)
    assert stretch.std(axis=0) == pytest.approx(np.sqrt(found[0].stretch_variance), rel=0.5)
    assert np.mean([f.x for f in found]) == pytest.approx(100.3, abs=0.02)
    assert np.mean([f.y for f in found]) == pytest.approx(49.8, abs=0.02)
    assert np.mean([f.stretched.flux for f in found]) == pytest.approx(5e4, rel=0.02)


def test_real_frame_by_its_own_stars(tmp_path):
    """Three stars only; the model that came with N3 is 3 % too broad, this one is not."""
    frame, out = demo_data() / FRAMES["N3"][0], tmp_path / "out.fits"
    arguments = ["match", str(frame), "--psf", "stars", "-t", "moffat:fwhm=4.9,beta=3.5", "-o", str(out), "--json"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (image,) = report["images"]
    assert image["psf_from_stars"]["stars"] >= 3
    assert any("stars only" in warning for warning in report["warnings"])
    matched = psfmatch.read_exposure(out)
    noise = psfmatch.NoiseCorrelation.of_kernel(psfmatch.read_kernel(out))
    found = psfmatch.check(matched, correlation=noise)
    assert found.verdict is psfmatch.Verdict.WITHIN
    with pytest.warns(psfmatch.PsfMatchWarning, match="stars only"):
        exposure = psfmatch.read_exposure(frame, psf="stars")
    assert fwhm(exposure.psf.stamps(x=120, y=40)[0]) == pytest.approx(image["psf_from_stars"]["fwhm"])


def test_where_there_is_nothing_to_see_there_is_no_star():
    """No usable pixel at all, and a few here and there."""
    rng = np.random.default_rng(4)
    image = rng.normal(0.0, 1.0, (260, 310)).astype("f4")
    for kept in (0, 40):
        bad = np.ones(image.shape, np.int32)
        bad.flat[rng.choice(image.size, kept, replace=False)] = 0
        exposure = psfmatch.Exposure(image, mask=psfmatch.Mask(bad, {"BAD": 0}), psf=psfmatch.GaussianPSF(fwhm=3.0))
        with pytest.raises(psfmatch.InputError, match="no star to make a PSF from"):
            psfmatch.psf_from_stars(exposure)
        assert psfmatch.stars.find_stars(exposure) == []
