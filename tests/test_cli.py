"""The verbs, from the command line to the files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from processes import unprivileged
from psfmatch.cli import main
from psfmatch.cli.demo import demo_data
from psfmatch.cli.options import object_of
from psfmatch.cli.settings import CLASSES, FORMAT_HELP
from psfmatch.io.exposures import FORMATS
from psfmatch.report import verdict

PSFEX = Path(__file__).parent / "data" / "DECam_00154912_12_psfcat.psf"
PSF, TARGET = "gaussian:fwhm=3", "moffat:fwhm=5,beta=3.5"
VERBS = {"coadd", "match", "kernel", "apply", "check", "target", "inspect", "plot", "report", "demo", "config"}


@pytest.fixture
def run():
    def invoke(*arguments):
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def image(tmp_path):
    """A frame that is neither square nor symmetric, with a star, its variance in a second file."""
    return make_image(tmp_path / "frame.fits")


def make_image(path, seed=1):
    rng = np.random.default_rng(seed)
    data = rng.normal(100.0, 3.0, (151, 131))
    data[40:57, 30:47] += 5000 * psfmatch.GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(17, 17))[0]
    fits.PrimaryHDU(data.astype("f4")).writeto(path)
    fits.PrimaryHDU(np.full((151, 131), 9.0, "f4")).writeto(path.with_suffix(".var.fits"))
    return path


def one_json(result):
    """stdout is one JSON object and nothing else."""
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def test_match_writes_what_the_library_gives(run, image, tmp_path):
    out = tmp_path / "out.fits"
    result = run("match", image, "--psf", PSF, "--variance", image.with_suffix(".var.fits"), "-t", TARGET, "-o", out)
    assert result.exit_code == 0, result.output
    assert f"wrote {out}" in result.stdout
    assert "noise gain" in result.stdout
    assert result.stderr == ""
    direct = psfmatch.match(psfmatch.read_exposure(image, psf=PSF, variance=image.with_suffix(".var.fits")), TARGET)
    written = psfmatch.read_exposure(out)
    np.testing.assert_allclose(written.image, direct.exposure.image)
    np.testing.assert_allclose(written.variance, direct.exposure.variance)
    np.testing.assert_array_equal(written.mask.array, direct.exposure.mask.array)
    np.testing.assert_allclose(psfmatch.read_kernel(out).stamps(x=9, y=5), direct.kernel.stamps(x=9, y=5), atol=1e-12)


def test_json_is_one_object(run, image, tmp_path):
    out = tmp_path / "out.fits"
    sums = ("--kernel-sum", 2.5, "--set", "solver.flux=unit")
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", out, "--json", *sums, "-v")
    values = one_json(result)
    assert values["ok"] is True
    (report,) = values["images"]
    assert report["output"] == str(out)
    assert report["outcome"] in ("OK", "TOLERANCE_NOT_REACHED")
    assert report["quality"]["median"]["kernel_sum"] == pytest.approx(2.5, rel=1e-12)
    assert 0 < report["quality"]["worst"]["residual"] < 0.1


def test_several_images_one_of_them_bad(run, tmp_path):
    images = [make_image(tmp_path / f"{name}.fits", seed) for seed, name in enumerate("ab")]
    images.insert(1, tmp_path / "missing.fits")
    folder = tmp_path / "matched"
    result = run("match", *images, "--psf", PSF, "-t", TARGET, "-o", folder, "--json")
    values = one_json(result)
    assert result.exit_code == 2
    assert values["ok"] is False
    assert [report["ok"] for report in values["images"]] == [True, False, True]
    assert "missing.fits" in values["images"][1]["error"]["message"]
    assert result.stderr.startswith("error: ")
    assert sorted(path.name for path in folder.iterdir()) == ["a-matched.fits", "b-matched.fits"]
    again = run("match", images[0], images[2], "--psf", PSF, "-t", TARGET, "-o", tmp_path / "x_{name}.fits")
    assert "2 of 2 images matched" in again.stdout
    assert (tmp_path / "x_a.fits").exists()
    assert (tmp_path / "x_b.fits").exists()


def test_a_psfex_model_that_a_pattern_catches_is_left_out(run, image, tmp_path):
    model = tmp_path / "frame-psfex.fits"
    model.write_bytes(PSFEX.read_bytes())
    result = run("match", model, image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert f"warning: {model}: a PSF model and no image; left out" in result.stderr
    assert (tmp_path / "out" / "frame-matched.fits").exists()
    alone = run("match", model, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "one.fits")
    assert alone.exit_code == 2
    assert alone.stderr == (
        f"error: {model}: is a PSFEx model and no image; give the image, and this file as its PSF (--psf, in Python "
        "psf=)\n"
    )


@pytest.mark.parametrize("frame", [p for p in sorted(demo_data().glob("*ooi*.fits.gz")) if "psfex" not in p.name])
def test_a_frame_is_no_psf(run, image, tmp_path, frame):
    """Those of real skies, even and odd, with their background."""
    result = run("match", image, "--psf", frame, "-t", TARGET, "-o", tmp_path / "o.fits")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {image}: {frame}: no PSF: ")
    assert result.stderr.count("\n") == 1
    assert "are a frame of the sky, give the file of its PSF model; --psf stars makes" in result.stderr
    assert isinstance(psfmatch.inspect_file(frame), psfmatch.FrameReport)


def test_an_even_stamp_is_a_target(run, image, tmp_path):
    stamp = psfmatch.MoffatPSF(fwhm=5.0, beta=3.5).stamps(x=0, y=0, shape=(61, 63))[0]
    even = 0.25 * (stamp[1:, 1:] + stamp[:-1, 1:] + stamp[1:, :-1] + stamp[:-1, :-1])
    fits.PrimaryHDU(even).writeto(tmp_path / "even.fits")
    for verb in (("match", image, "--psf", PSF, "-t"), ("target", image, "--psf", PSF)):
        assert run(*verb, tmp_path / "even.fits", "-o", tmp_path / f"{verb[0]}.fits").exit_code == 0


def test_tables_have_no_trailing_blanks(run, image, tmp_path):
    lines = run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "o.fits").stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]


def test_a_psf_for_each_image(run, tmp_path):
    images = [make_image(tmp_path / f"{name}.fits", seed) for seed, name in enumerate("ab")]
    widths = ("--psf", "gaussian:fwhm=3", "--psf", "gaussian:fwhm=4")
    values = one_json(run("match", *images, *widths, "-t", TARGET, "-o", tmp_path / "out", "--json"))
    gains = [report["quality"]["median"]["noise_gain"] for report in values["images"]]
    assert gains[1] > 1.5 * gains[0]
    third = make_image(tmp_path / "c.fits")
    result = run("match", *images, third, *widths, "-t", TARGET, "-o", tmp_path / "more")
    assert result.exit_code == 2
    assert "--psf is given 2 times for 3 images" in result.stderr


@pytest.mark.parametrize(
    ("output", "message"),
    [("one.fits", "one file for 2 images"), ("same", "would both be written"), ("old/{name}.fits", "exists")],
)
def test_outputs_are_checked_before_any_work(run, tmp_path, output, message):
    (tmp_path / "d").mkdir()
    (tmp_path / "old").mkdir()
    images = [
        make_image(tmp_path / "a.fits"),
        make_image(tmp_path / "d" / ("a.fits" if output == "same" else "b.fits")),
    ]
    (tmp_path / "old" / "b.fits").write_text("precious")
    result = run("match", *images, "--psf", PSF, "-t", TARGET, "-o", tmp_path / output)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "old" / "a.fits").exists()
    assert (tmp_path / "old" / "b.fits").read_text() == "precious"


def test_overwrite(run, image, tmp_path):
    out = tmp_path / "out.fits"
    out.write_text("old")
    arguments = ("match", image, "--psf", PSF, "-t", TARGET, "-o", out)
    assert one_json(run(*arguments, "--json"))["error"]["type"] == "FileExistsError"
    assert out.read_text() == "old"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert psfmatch.read_exposure(out).shape == (151, 131)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("solver.ordr=2", "did you mean 'order'?"),
        ("solver.order=2.5", "it takes integer"),
        ("solver.order=true", "it takes integer"),
        ("solver.sigmas=[1,two]", "it takes [number, ...]"),
        ("solver.padding.too=2", "solver.padding.to "),
        ("solver=alard_lupton", "did you mean 'alard-lupton'?"),
        ("convolver.edge=zero", "renormalize or nan"),
        ("solver.size=20", "must be odd"),
        ("solver.fwhm_at=[3,4]", "table of y, x"),
        ("order=2", "PART.OPTION=VALUE"),
        ("solver.order", "PART.OPTION=VALUE"),
    ],
)
def test_bad_settings_say_what_is_right(run, image, tmp_path, setting, message):
    named = () if setting.startswith("solver=") else ("--set", "solver=alard-lupton")
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "out.fits", *named, "--set", setting)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out.fits").exists()


def test_settings_and_toml_are_the_same(run, image, tmp_path):
    config, narrow = tmp_path / "run.toml", "gaussian:fwhm=4.5"
    config.write_text(
        f'target = "{narrow}"\npsf = ["{PSF}"]\nkernel-sum = 2\n'
        "[solver]\nname = 'alard-lupton'\nscale_by_fwhm = false\nsize = 15\nsigmas = [1, 2.5]\ndegrees = [2, 2]\n"
        "pca = {components = 3}\n[convolver]\nname = 'direct'\nedge = 'nan'\n"
    )
    sets = (
        "solver=alard-lupton", "solver.scale_by_fwhm=false", "solver.size=15", "solver.sigmas=[1, 2.5]",
        "solver.degrees=[2,2]", "solver.pca.components=3", "convolver=direct", "convolver.edge=nan",
    )  # fmt: skip
    by_set = [part for setting in sets for part in ("--set", setting)]
    assert run("match", image, "--config", config, "-o", tmp_path / "a.fits").exit_code == 0
    out = tmp_path / "b.fits"
    assert run("match", image, "--psf", PSF, "-t", narrow, "--kernel-sum", 2, *by_set, "-o", out).exit_code == 0
    a, b = (psfmatch.read_exposure(tmp_path / name) for name in ("a.fits", "b.fits"))
    np.testing.assert_array_equal(a.image, b.image)
    assert np.isnan(a.image[6, 30])
    assert not np.isnan(a.image[7, 30])
    assert psfmatch.read_kernel(tmp_path / "a.fits").sums(x=3, y=4) == pytest.approx(2.0)
    wins = ("--set", "solver.size=21", "--kernel-sum", 1)
    assert run("match", image, "--config", config, *wins, "-o", tmp_path / "c.fits").exit_code == 0
    kernel = psfmatch.read_kernel(tmp_path / "c.fits")
    assert kernel.shape == (21, 21)
    assert kernel.sums(x=3, y=4) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [("targt = 'x'", "did you mean 'target'?"), ("solver = 'alard-lupton'", "[solver]"), ("a = = 1", "run.toml")],
)
def test_bad_toml(run, image, tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    result = run(
        "match", image, "--psf", PSF, "-t", TARGET, "--config", tmp_path / "run.toml", "-o", tmp_path / "o.fits"
    )
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_acceptable_kernel(run, image, tmp_path):
    out = tmp_path / "out.fits"
    few = ["--set", "solver=alard-lupton"]
    few += [part for s in ("scale_by_fwhm=false", "size=5", "degrees=[8,8,8]") for part in ("--set", f"solver.{s}")]
    arguments = ("match", image, "--psf", PSF, "-t", TARGET, "-o", out, *few)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith(f"error: {image}: ")
    assert not out.exists()
    result = run(*arguments, "--no-throw", "--json")
    assert result.exit_code == 1
    assert one_json(result)["images"][0]["outcome"] == "SINGULAR"
    assert out.exists()


def test_errors_are_one_sentence(run, image, tmp_path):
    out = tmp_path / "out.fits"
    for arguments in (
        ("match", image, "-t", TARGET, "-o", out),
        ("match", image, "--psf", PSF, "-t", "gaussian:fwhm=1arcsec", "-o", out),
        ("match", image, "--psf", tmp_path / "none.psf", "-t", TARGET, "-o", out),
        ("apply", image, image, "-o", out),
        ("kernel", PSF, "moffat:beta=3", "-o", out),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert not out.exists()
        assert "Traceback (most recent call last)" in run(*arguments, "--traceback").stderr


def test_warnings_go_to_stderr_and_json(run, image, tmp_path):
    stamp = 1.02 * psfmatch.GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(21, 21))[0]
    fits.PrimaryHDU(stamp).writeto(tmp_path / "psf.fits")
    arguments = ("match", image, "--psf", tmp_path / "psf.fits", "-t", TARGET, "-o")
    result = run(*arguments, tmp_path / "a.fits", "--json")
    (warning,) = one_json(result)["warnings"]
    assert "the sum 1.02" in warning
    assert result.stderr == f"warning: {warning}\n"
    quiet = run(*arguments, tmp_path / "b.fits", "--quiet")
    assert (quiet.stdout, quiet.stderr, quiet.exit_code) == ("", "", 0)


def test_what_is_set_by_hand_is_judged_as_what_is_chosen(run, image, tmp_path):
    """A kernel of 5 px cannot hold a star of 5 px: the program that chose it would be refused."""
    out = tmp_path / "out.fits"
    arguments = ("match", image, "--psf", PSF, "-t", TARGET, "-o", out, "--set", "solver.size=5")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "The match is poor." in result.stderr
    assert "set by hand (size=5; left out, it is chosen)" in result.stderr
    assert "with --no-throw it is, and psfmatch report shows why" in result.stderr
    assert not out.exists()
    assert run(*arguments, "--no-throw").exit_code == 1
    matched = psfmatch.read_matched(out)
    assert matched.solution.outcome is psfmatch.Outcome.POOR
    assert verdict(matched).level == "bad"
    assert run("kernel", PSF, TARGET, "-o", tmp_path / "k.fits", "--set", "solver.size=5").exit_code == 1
    classical = ("--set", "solver=alard-lupton", "--set", "solver.scale_by_fwhm=false", "--set", "solver.size=5")
    assert run("kernel", PSF, TARGET, "-o", tmp_path / "k.fits", *classical).exit_code == 1


def test_the_error_of_an_aperture_is_told_with_its_radius(run, image, tmp_path):
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "a.fits", "-v")
    quality = psfmatch.read_matched(tmp_path / "a.fits").quality
    error, radius = -2500 * np.log10(1 - quality.worst["ee_error"]), quality.worst_radius
    said = re.search(r"at most ([\d.]+) mmag, in an aperture of ([\d.]+) px radius", result.stdout)
    assert float(said[1]) == pytest.approx(error, rel=0.05)
    assert float(said[2]) == pytest.approx(radius, rel=0.01)
    assert 5 < radius < 100


def test_a_limited_kernel_is_told_once(tmp_path):
    """As a process, since the log has a way of its own to the screen."""
    arguments = (
        "gaussian:fwhm=3",
        "moffat:fwhm=5.5,beta=3.5",
        "-o",
        str(tmp_path / "k.fits"),
        "--set",
        "solver.size=21",
    )
    loud = script("kernel", *arguments)
    assert (loud.stdout + loud.stderr).count("tolerance was not reached") == 1
    quiet = script("kernel", *arguments, "--overwrite", "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_verbose_says_what_was_chosen(run, image, tmp_path):
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "a.fits", "-v")
    assert "kernel_size" in result.stdout
    assert "solved in" in result.stderr
    result = run("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "b.fits")
    assert "kernel_size" not in result.stdout
    assert result.stderr == ""


def test_kernel_then_apply_is_match(run, image, tmp_path):
    kernel, out, whole = (tmp_path / f"{name}.fits" for name in ("kernel", "out", "whole"))
    result = run("kernel", PSF, TARGET, "--shape", 131, 151, "-o", kernel, "--json")
    assert result.exit_code == 0, result.output
    assert one_json(result)["quality"]["worst"]["residual"] < 0.02
    assert run("apply", image, kernel, "-o", out).exit_code == 0
    assert run("match", image, "--psf", PSF, "-t", TARGET, "-o", whole).exit_code == 0
    np.testing.assert_allclose(psfmatch.read_exposure(out).image, psfmatch.read_exposure(whole).image, rtol=1e-5)
    again = tmp_path / "again.fits"
    assert run("apply", image, whole, "-o", again, "--set", "convolver.edge=nan").exit_code == 0
    assert np.isnan(psfmatch.read_exposure(again).image[0, 0])
    assert run("kernel", PSF, TARGET, "-o", kernel).exit_code == 2
    scaled = run(
        "kernel", "gaussian:fwhm=1arcsec", "gaussian:fwhm=2arcsec", "--pixel-scale", 0.3, "-o", again, "--overwrite"
    )
    assert scaled.exit_code == 0, scaled.output


def test_every_option_is_explained(run):
    assert set(main.commands) == VERBS
    for name, verb in main.commands.items():
        text = run(name, "--help").stdout
        assert "Examples:" in text
        for option in verb.params:
            if option.param_type_name == "option":
                assert option.help, (name, option.name)
    assert "Exit codes:" in run("--help").stdout
    assert all(name in FORMAT_HELP for name in FORMATS)
    assert all(callable(object_of(name)) for names in CLASSES.values() for name in names.values())


def script(*arguments, **more):
    code = "from psfmatch.cli import main; main(prog_name='psfmatch')"
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_as_a_process(image, tmp_path):
    done = script("match", image, "--psf", PSF, "-t", TARGET, "-o", tmp_path / "out.fits", "--progress")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[0].split() == ["figure", "median", "worst"]
    assert "frame.fits: matching" in done.stderr
    done = script("match", image, "--psf", "nothing", "-t", TARGET, "-o", tmp_path / "new.fits")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {image}: nothing: no such file")
    assert script("--version").stdout == f"psfmatch {psfmatch.__version__}\n"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_cannot_be_written(run, tmp_path):
    """A file that may only be read, and a folder: what was there stays."""
    folder = tmp_path / "ours"
    folder.mkdir()
    make_image(folder / "frame.fits")
    words = "match", "--psf", PSF, "-t", TARGET, "--overwrite", "-q"
    assert run(*words, folder / "frame.fits", "-o", folder / "out.fits").exit_code == 0
    before = (folder / "out.fits").read_bytes()

    def refused():
        os.chmod("out.fits", 0o400)
        done = run(*words, "frame.fits", "-o", "out.fits")
        assert (done.exit_code, done.stderr) == (
            2, "error: frame.fits: out.fits: the file may not be written; allow it (chmod u+w) or give another name\n"
        )  # fmt: skip
        os.chmod(".", 0o500)
        done = run(*words, "frame.fits", "-o", "new.fits")
        assert done.exit_code == 2
        assert done.stderr.endswith("new.fits: cannot write it (Permission denied); nothing was written\n")

    unprivileged(folder, refused)
    assert (folder / "out.fits").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["frame.fits", "frame.var.fits", "out.fits"]


def test_kernel_between_stamps_of_other_pixels(run, tmp_path):
    science = np.pad(psfmatch.GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(31, 35))[0], ((1, 0), (0, 3)))
    target = psfmatch.GaussianPSF(fwhm=3.5).stamps(x=0, y=0, shape=(41, 37))[0]
    for name, stamp in (("s", science), ("t", target)):
        fits.writeto(tmp_path / f"{name}.fits", stamp)
    out = tmp_path / "k.fits"
    scales = ("--science-scale", 4, "--target-scale", 6, "--center", "centroid", "-o", out, "--json")
    values = one_json(run("kernel", tmp_path / "s.fits", tmp_path / "t.fits", *scales))
    assert values["ok"] is True
    assert values["target_scale"] == 6.0
    kernel = psfmatch.read_kernel(out).stamps(x=0, y=0)[0]
    stamps = (psfmatch.Stamp(i, s, center="centroid") for i, s in ((science, 4.0), (target, 6.0)))
    np.testing.assert_array_equal(kernel, psfmatch.matching_kernel(*stamps).kernel.stamps(x=0, y=0)[0])
    width = psfmatch.moments.moments_fwhm(kernel)
    assert width == pytest.approx(np.sqrt((3.5 * 1.5) ** 2 - 3.0**2), rel=0.02)
    assert run("kernel", tmp_path / "s.fits", tmp_path / "t.fits", "-o", out, "--overwrite").exit_code == 0
    plain = psfmatch.matching_kernel(science, target).kernel.stamps(x=0, y=0)
    np.testing.assert_array_equal(psfmatch.read_kernel(out).stamps(x=0, y=0), plain)
    few = run("kernel", tmp_path / "s.fits", tmp_path / "t.fits", "--target-angle", 5, "-o", tmp_path / "l.fits")
    assert few.exit_code == 2
    assert "--science-angle" in few.stderr
