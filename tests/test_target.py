"""The smallest common target: against what is known analytically, and against real matches."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from scipy.integrate import trapezoid
from scipy.optimize import brentq

import psfmatch
from psfmatch import BasisPSF, Box, Exposure, Field, GaussianPSF, GridPSF, ImagePSF, MoffatPSF, Transform, WarpedPSF
from psfmatch.cli import main
from psfmatch.target import common_target, target_cost, target_width, target_words

TOLERANCE = 1e-3
CIRCLES = (GaussianPSF(fwhm=3.0), GaussianPSF(fwhm=4.0), GaussianPSF(fwhm=3.5))
ELLIPSES = (
    MoffatPSF(fwhm=3.2, beta=3.2, ellipticity=0.1, angle=20.0),
    MoffatPSF(fwhm=3.9, beta=2.8, ellipticity=0.12, angle=-50.0),
    MoffatPSF(fwhm=3.4, beta=3.6, ellipticity=0.05, angle=75.0),
)


FIELD = Box(0, 0, 600, 900)


def stamp(width):
    return MoffatPSF(fwhm=width, beta=3.0).stamps(x=0, y=0, shape=(41, 41))[0]


def varying(low=3.4, high=3.9):
    """Stamps that broaden from left to right by 15 %, over a field that is not square."""
    narrow, broad = stamp(low), stamp(high)
    basis = np.array([0.5 * (broad + narrow), 0.5 * (broad - narrow)])
    return BasisPSF(basis, Field(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), FIELD))


def least_gain(science, target):
    """The least ``sum K^2`` at the tolerance for two round Gaussians: an integral over continuous frequencies."""
    f = np.linspace(0, 0.7, 4001)
    s, t = (np.exp(-2 * (np.pi * f * width / 2.3548) ** 2) for width in (science, target))

    def excess(log_weight):
        left = (np.exp(log_weight) * t / (s * s + np.exp(log_weight))) ** 2
        return trapezoid(left * f, f) / trapezoid(t * t * f, f) - TOLERANCE**2

    k = s * t / (s * s + np.exp(brentq(excess, -40, 5)))
    return 2 * np.pi * trapezoid(k * k * f, f)


def test_the_broadest_circle_decides():
    target = common_target(CIRCLES, family="gaussian")
    assert isinstance(target, GaussianPSF)
    # no frequency may be amplified: the broadest input itself, but for the 5 % that are allowed
    assert 0.985 * 4.0 < target.fwhm <= 4.0
    costs = target_cost(CIRCLES, target)
    assert [cost.name for cost in costs] == ["psfs[0]", "psfs[1]", "psfs[2]"]
    assert all(cost.reached and cost.residual <= TOLERANCE for cost in costs)
    assert costs[1].smallest == pytest.approx(target.fwhm, rel=0.003)
    assert costs[2].smallest == pytest.approx(3.5 / 4.0 * target.fwhm, rel=0.005)


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.8])
def test_the_noise_gain_decides(limit):
    target = common_target(CIRCLES, family="gaussian", max_noise_gain=limit)
    truth = brentq(lambda width: least_gain(4.0, width) - limit, 3.6, 6.0)
    assert truth * 0.999 < target.fwhm < 1.025 * truth
    # the kernel between two Gaussians is one: its sum of squares is 1 / (4 pi sigma^2), and the tolerance only helps
    assert target.fwhm <= 1.005 * np.hypot(4.0, 2.3548 / np.sqrt(4 * np.pi * limit))
    costs = target_cost(CIRCLES, target, max_noise_gain=limit)
    assert all(cost.reached and cost.noise_gain <= limit for cost in costs)
    narrower = target_cost(CIRCLES, target.scaled(0.97), max_noise_gain=limit)
    assert [cost.reached for cost in narrower] == [True, False, True]


def test_every_ellipse_is_matched():
    target = common_target(ELLIPSES)
    long_axis = 3.9 / np.sqrt(1 - 0.12)
    assert 0.98 * long_axis < target.fwhm < 1.06 * long_axis
    for psf in ELLIPSES:
        solution = psfmatch.matching_kernel(psf, target)
        quality = psfmatch.measure_quality(solution.kernel, psf, target, x=0, y=0)
        assert quality.residual[0] < TOLERANCE
        assert quality.noise_gain[0] < 1
    assert max(cost.amplification for cost in target_cost(ELLIPSES, target)) < 1.06
    assert max(cost.amplification for cost in target_cost(ELLIPSES, target.scaled(0.97))) > 1.08


def test_a_varying_psf_is_matched_between_the_positions_it_was_judged_at():
    psf = varying()
    target = common_target([psf, ELLIPSES[0]])
    assert 0.96 * 3.9 < target.fwhm < 1.05 * 3.9
    solution = psfmatch.matching_kernel(psf, target, box=FIELD)
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 900, 12), rng.uniform(0, 600, 12)
    assert psfmatch.measure_quality(solution.kernel, psf, target, x=x, y=y).residual.max() < TOLERANCE


def test_an_exposure_is_judged_in_its_own_box():
    corner = Exposure(image=np.zeros((300, 320)), box=Box(0, 0, 300, 320), psf=varying())
    narrow, whole = (common_target({"a": source}, family="moffat:beta=3").fwhm for source in (corner, varying()))
    assert narrow < 0.97 * whole


def test_a_grid_is_judged_at_its_nodes():
    images = np.array([[stamp(3.4), stamp(3.9)], [stamp(3.4), stamp(3.9)]])
    grid = GridPSF(images, x=np.array([4000.0, 4900.0]), y=np.array([-700.0, -100.0]))
    targets = [common_target([psf], family="moffat:beta=3").fwhm for psf in (grid, varying())]
    assert targets[0] == pytest.approx(targets[1], rel=0.01)


@pytest.mark.parametrize("family", ["gaussian", "moffat:beta=3.5", "double-gaussian", "double-gaussian:ratio=3,b=0.05"])
def test_words_give_the_target_back(family):
    target = common_target(ELLIPSES[:2], family=family)
    again = psfmatch.read_psf(target_words(target))
    np.testing.assert_allclose(*(psf.stamps(x=0, y=0, shape=(41, 41)) for psf in (target, again)), rtol=1e-4)
    on_sky = psfmatch.read_psf(target_words(target, pixel_scale=0.26), pixel_scale=0.26)
    assert target_width(on_sky) == pytest.approx(target_width(target), rel=1e-4)
    assert family.partition(":")[0] in target_words(target)


def test_the_chosen_beta_makes_the_target_smallest():
    def area(psf):
        return 1.0 / (psf.stamps(x=0, y=0, shape=(101, 101)) ** 2).sum()

    chosen = common_target(ELLIPSES)
    for beta in (2.5, 4.0):
        assert area(chosen) < 1.02 * area(common_target(ELLIPSES, family=f"moffat:beta={beta}"))


def test_envelope():
    target = common_target(ELLIPSES, family="envelope")
    assert isinstance(target, ImagePSF)
    assert target.image.min() >= 0
    assert target.image.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(target.image, target.image.T, atol=1e-9)
    costs = target_cost(ELLIPSES, target)
    assert all(cost.reached and cost.amplification < 1.06 and np.isnan(cost.smallest) for cost in costs)
    assert target_width(target) < 1.02 * target_width(common_target(ELLIPSES))
    assert target_words(target) is None


def test_a_bad_input_is_named():
    bad = CIRCLES[0].stamps(x=0, y=0)[0].copy()
    bad[3, 5] = np.nan
    with pytest.raises(psfmatch.PSFError, match=r"cloudy: .* sum nan"):
        common_target({"good": CIRCLES[0], "cloudy": psfmatch.FunctionPSF(lambda x, y: bad, bad.shape)})
    with pytest.raises(psfmatch.PSFError, match=r"psfs\[1\]: .*all zeros"):
        common_target([CIRCLES[0], np.zeros((11, 13))])
    with pytest.raises(psfmatch.PSFError, match=r"psfs\[0\]: the exposure has no PSF"):
        common_target([Exposure(image=np.zeros((20, 30)))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "lorentzian"}, "choose moffat"),
        ({"family": "moffat:gamma=3"}, "no 'gamma'"),
        ({"family": "moffat:beta=3,ellipticity=0.1"}, "circular"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"max_noise_gain": -1.0}, "max_noise_gain=-1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(psfmatch.InputError, match=message):
        common_target(CIRCLES, **options)


def test_no_inputs():
    with pytest.raises(psfmatch.InputError, match="no PSFs"):
        common_target([])


def test_what_no_width_cures_is_said():
    psfs = {"good": CIRCLES[1], "small": MoffatPSF(fwhm=3.0, beta=2.5).stamps(x=0, y=0, shape=(13, 15))[0]}
    with pytest.warns(psfmatch.PsfMatchWarning, match=r"wider, from small \(what limits it is the stamps, which"):
        target = common_target(psfs, family="gaussian")
    assert 3.9 < target.fwhm < 4.5
    assert [cost.reached for cost in target_cost(psfs, target)] == [True, False]


def test_noise_in_a_stamp_does_not_move_the_target():
    clean = CIRCLES[1].stamps(x=0, y=0, shape=(43, 41))[0]
    noisy = clean + np.random.default_rng(1).normal(0, 3e-3 * clean.max(), clean.shape)
    widths = [common_target([CIRCLES[0], image], family="gaussian").fwhm for image in (clean, noisy)]
    assert widths[1] == pytest.approx(widths[0], rel=0.02)


def test_where_no_target_is_found_the_inputs_are_named():
    with pytest.raises(psfmatch.MatchError, match="from good, broad, however"):
        common_target({"good": CIRCLES[0], "broad": CIRCLES[1]}, family="gaussian", max_noise_gain=1e-5)


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, ["target", *map(str, arguments)])


def test_verb(run, tmp_path):
    words = [f"gaussian:fwhm={width}" for width in (3, 4.6, 3.5)]
    result = run(*words, "--family", "gaussian", "-o", tmp_path / "t.fits")
    assert result.exit_code == 0, result.output
    assert "gaussian:fwhm=4.6 alone makes it so wide" in result.stdout
    target = common_target([psfmatch.read_psf(word) for word in words], family="gaussian")
    assert f"target: gaussian:fwhm={target.fwhm:g}\n" in result.stdout
    written = psfmatch.read_psf(tmp_path / "t.fits")
    np.testing.assert_allclose(written.image, target.stamps(x=0, y=0)[0])
    assert run(*words, "-o", tmp_path / "t.fits").exit_code == 2
    quiet = run("-q", *words, "--family", "gaussian", "--leave-out", words[1])
    assert psfmatch.read_psf(quiet.stdout.strip()).fwhm < 3.5
    assert "there are gaussian:fwhm=3" in run(*words, "--leave-out", "x").stderr


def frame(path, scale):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (-scale / 3600, scale / 3600)
    fits.PrimaryHDU(np.zeros((150, 131), "f4"), wcs.to_header()).writeto(path)
    return path


def test_verb_with_images(run, tmp_path):
    images = [frame(tmp_path / f"{name}.fits", scale) for name, scale in (("a", 0.25), ("b", 0.25), ("c", 0.3))]
    psfs = ("--psf", "gaussian:fwhm=3.2", "--psf", "gaussian:fwhm=1arcsec")
    values = json.loads(run(*images[:2], *psfs, "--json", "--family", "gaussian").stdout)
    assert [row["name"] for row in values["inputs"]] == ["a", "b"]
    assert values["pixel_scale"] == pytest.approx(0.25)
    assert values["fwhm"] == pytest.approx(4.0, rel=0.02)
    width = float(values["target_arcsec"].removeprefix("gaussian:fwhm=").removesuffix("arcsec"))
    assert width == pytest.approx(values["fwhm"] * 0.25, rel=1e-4)
    result = run(images[0], images[2], "--psf", "gaussian:fwhm=3.2")
    assert result.exit_code == 2
    assert "later version" in result.stderr
    assert "give --psf" in run(images[0]).stderr


def test_what_is_not_reached_is_named_once_with_its_limit():
    """A small frame, of which all five places are judged, keeps the kernel small; the whole field does not."""
    small = Exposure(np.ones((86, 97)), psf=varying(5.6, 6.2))
    with pytest.warns(psfmatch.PsfMatchWarning, match="is not reached, nor would it be") as caught:
        common_target({"large": varying(), "small": small, "dot": GaussianPSF(fwhm=3.0)}, family="gaussian")
    (said,) = [str(w.message) for w in caught if "is not reached" in str(w.message)]
    assert said.count("small") == 1
    assert "small (what limits it is the frame, 86 px wide, for a kernel of " in said
    assert "large" not in said


def test_a_profile_that_varies_is_judged_where_it_is():
    """An analytic model seen through a mapping that stretches it from left to right: no stamp, and not constant."""

    def bent(x, y):
        return x + 1e-4 * x**2, y

    transform = Transform(bent, lambda x, y: ((np.sqrt(1 + 4e-4 * x) - 1) / 2e-4, y))
    seen = WarpedPSF(GaussianPSF(fwhm=4.0), transform, field=FIELD)
    (cost,) = target_cost([seen], GaussianPSF(fwhm=5.0))
    assert cost.fwhm == pytest.approx(4.0, rel=0.02)  # at the left edge; at the right it is narrower by 18 % along x
    assert common_target([seen], family="gaussian", tolerance=3e-3).fwhm == pytest.approx(4.0, rel=0.03)
