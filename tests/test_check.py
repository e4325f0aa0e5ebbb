"""A match is proved by stars: a right one passes, a wrong one fails with the right size and sign."""

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner

import psfmatch
from figures import faults
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, demo_data
from psfmatch.plots import check_figure
from starfields import star_field

TARGET = psfmatch.MoffatPSF(fwhm=4.6, beta=3.2)


@pytest.fixture(scope="module")
def field():
    return star_field(stars=30, shape=(330, 400), drift=0.0, galaxies=15, faint=60, cosmic_rays=0, seed=6)


def checked(exposure, psf, **options):
    matched = psfmatch.match(exposure.replace(psf=psf), TARGET)
    return psfmatch.check(matched.exposure, correlation=psfmatch.NoiseCorrelation.of_kernel(matched.kernel), **options)


@pytest.fixture(scope="module")
def right(field):
    exposure, truth, _ = field
    return checked(exposure, truth)


def test_right_match_passes(field, right):
    assert right.verdict is psfmatch.Verdict.WITHIN
    assert len(right) >= 8
    assert abs(right.size.value) < max(0.004, 3 * right.size.error)
    assert right.size.error < 0.003
    assert abs(right.ee_error.value) < 0.005
    assert right.fwhm.value == pytest.approx(right.target_fwhm, rel=0.005)
    apart = np.hypot(right.x[:, None] - field[2][None, :, 0], right.y[:, None] - field[2][None, :, 1])
    assert (apart.min(axis=1) < 0.5).all()


def test_errors_are_right(right):
    """The stars scatter as their errors say."""
    pulls = (right.sizes - right.size.value) / np.hypot(right.size_errors, 0.002)
    assert 0.4 < np.sqrt(np.mean(pulls**2)) < 1.7
    for trend in (*right.by_place, right.by_brightness):
        assert abs(trend.value) < 4 * trend.error


def test_model_too_broad_is_found(field):
    """A model 3 % too broad leaves the stars narrower than the target: w^2 = T^2 - (1.03^2 - 1) S^2."""
    exposure, truth, _ = field
    broad = copy.copy(truth)
    broad.fwhm = 1.03 * truth.fwhm
    found = checked(exposure, broad)
    assert found.verdict is psfmatch.Verdict.OVER
    expected = np.sqrt(1 - (1.03**2 - 1) * (3.2 / 4.6) ** 2) - 1
    assert found.size.value == pytest.approx(expected, abs=0.008)
    assert found.size.value < -3 * found.size.error
    lenient = checked(exposure, broad, tolerance=0.05)
    assert lenient.verdict is psfmatch.Verdict.WITHIN


def test_shear_and_its_direction():
    """Elliptical stars against a round target."""
    exposure, _, _ = star_field(stars=40, shape=(330, 400), galaxies=0, faint=0, cosmic_rays=0, seed=3, drift=0.0)
    found = psfmatch.check(exposure, psfmatch.MoffatPSF(fwhm=3.2, beta=2.9))
    assert found.verdict is psfmatch.Verdict.OVER
    x, y = found.shear
    along = 0.5 * np.degrees(np.arctan2(y.value, x.value))
    assert along == pytest.approx(25.0, abs=6.0)
    assert found.ellipticity.value == pytest.approx(0.055, abs=0.02)


def test_correlated_noise_counts():
    """Of faint stars the errors without the correlation are too small."""
    exposure, truth, _ = star_field(
        stars=30, shape=(330, 400), drift=0.0, galaxies=0, faint=0, cosmic_rays=0, seed=5, peaks=(250.0, 500.0)
    )
    matched = psfmatch.match(exposure.replace(psf=truth), TARGET)
    white = psfmatch.check(matched.exposure)
    found = psfmatch.check(matched.exposure, correlation=psfmatch.NoiseCorrelation.of_kernel(matched.kernel))
    assert np.median(found.size_errors) > 1.2 * np.median(white.size_errors)
    pulls = found.sizes / found.size_errors
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.5
    assert found.verdict is not psfmatch.Verdict.OVER


def test_noise_alone_says_nothing(tmp_path):
    noise = np.random.default_rng(1).normal(0.0, 3.0, (120, 150))
    exposure = psfmatch.Exposure(noise, variance=np.full(noise.shape, 9.0), psf=TARGET)
    found = psfmatch.check(exposure)
    assert found.verdict is psfmatch.Verdict.UNDECIDED
    assert len(found) == 0
    psfmatch.write_exposure(exposure, tmp_path / "noise.fits")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "noise.fits"), "--json"], catch_exceptions=False)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["after"]["fwhm"] == {"value": None, "error": None}
    assert "no single correlation of its noise is known" in result.stderr
    correlation = psfmatch.io.correlation_hdus(psfmatch.NoiseCorrelation.white(exposure.box))
    with psfmatch.io.exposure_output(exposure, tmp_path / "known.fits", more=correlation) as planes:
        planes.image[:], planes.variance[:] = noise, 9.0
    again = CliRunner().invoke(main, ["check", str(tmp_path / "known.fits")], catch_exceptions=False)
    assert again.exit_code == 3
    assert "the stars cannot tell" in again.stdout.lower()
    assert again.stderr == ""
    with pytest.raises(psfmatch.InputError, match="no PSF"):
        psfmatch.check(exposure.replace(psf=None))
    with pytest.raises(psfmatch.InputError, match="tolerance"):
        psfmatch.check(exposure, tolerance=0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    for name in ("N3", "S1"):
        exposure = psfmatch.read_exposure(demo_data() / FRAMES[name][0])
        psfmatch.write_matched(psfmatch.match(exposure, "moffat:fwhm=4.9,beta=3.5"), folder / f"{name}.fits")
    return folder


def test_real_frames(files):
    """The model that came with N3 is 3 % too broad, so that its matched stars are narrower than the target."""
    frame, picture = demo_data() / FRAMES["N3"][0], files / "n3.png"
    arguments = ["check", str(files / "N3.fits"), "--before", str(frame), "-o", str(picture)]
    result = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["verdict"] == "OVER"
    assert values["after"]["fwhm"]["value"] == pytest.approx(-0.018, abs=0.006)
    assert values["after"]["fwhm"]["error"] < 0.006
    assert values["before"]["fwhm"]["value"] < -0.1
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    good = CliRunner().invoke(main, ["check", str(files / "S1.fits")], catch_exceptions=False)
    assert good.exit_code == 0, good.output
    assert "within the tolerance" in good.stdout
    assert "FWHM" in good.stdout


def test_figure_shows_what_was_found(right):
    figure = check_figure({"after": right})
    bright, growth, field, image = figure.axes[:4]
    assert faults(figure) == []
    (legend,) = figure.legends
    assert f"{len(right)} stars, FWHM {100 * right.size.value:+.2f}" in legend.get_texts()[0].get_text()
    outside = legend.get_window_extent()
    assert not any(outside.overlaps(ax.get_window_extent()) for ax in (bright, growth))
    assert len(bright.lines[0].get_xdata()) == len(right)
    assert growth.lines[0].get_ydata() == pytest.approx(100 * right.growth)
    assert field.get_xlim() == (right.box.x0 - 0.5, right.box.x1 - 0.5)
    assert image.images[0].get_array().shape[0] % 2 == 1
