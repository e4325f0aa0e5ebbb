"""How a file came to be, as it says itself: checked against the files on disk and the options that were given."""

import hashlib
import pickle
import shutil
import time
from importlib.metadata import version

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner

import psfmatch
from psfmatch import FFT, AlardLupton, Exposure, FormatError, FreeForm, GaussianPSF, History, MoffatPSF
from psfmatch.cli import main
from psfmatch.io import read_provenance, write_kernel, write_psf
from psfmatch.provenance import IN_MEMORY, FileState, Input, Step

SOLVER = FreeForm(size=11, tolerance=0.02)
TARGET = "moffat:fwhm=4.5,beta=3.5"


def sha256sum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code in (0, 1), result.output
    return result


@pytest.fixture(name="frame")
def a_frame(tmp_path):
    """An image without a PSF, its weight, and a stamp."""
    rng = np.random.default_rng(7)
    folder = tmp_path / "données"
    folder.mkdir()
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(rng.normal(100, 3, (71, 94)).astype("f4"), header).writeto(folder / "image.fits")
    fits.PrimaryHDU(np.full((71, 94), 1 / 9, "f4")).writeto(folder / "w.fits")
    fits.PrimaryHDU(MoffatPSF(fwhm=3.0, beta=3.0, size=21).stamps(x=0, y=0)[0].copy()).writeto(folder / "étoile.fits")
    return folder


def match(folder, out, *more):
    words = ["match", folder / "image.fits", "--weight", folder / "w.fits", "--psf", folder / "étoile.fits"]
    return run(*words, "-t", TARGET, "--set", "solver.size=11", "--set", "convolver.edge=nan", "-o", out, *more)


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_a_match_is_the_same_file_wherever_and_however_it_is_made(frame, tmp_path, suffix):
    match(frame, tmp_path / f"a.{suffix}")
    elsewhere = shutil.copytree(frame, tmp_path / "elsewhere")
    match(elsewhere, tmp_path / f"b.{suffix}", "--memmap", "--log-json", tmp_path / "log")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert "numpy" in (tmp_path / "log").read_text(encoding="utf-8").splitlines()[0]


def test_a_match_names_its_inputs_and_options(frame, tmp_path):
    match(frame, tmp_path / "a.fits")
    made = read_provenance(tmp_path / "a.fits")
    names = ("image.fits", "w.fits", "étoile.fits")
    assert made.inputs == tuple(Input(name, sha256sum(frame / name)) for name in names)
    assert {name: made.software[name] for name in ("numpy", "scipy", "astropy")} == {
        name: version(name) for name in ("numpy", "scipy", "astropy")
    }
    read, matched, convolved = made.steps
    assert read == Step("read", {"weight": "w.fits", "psf": "étoile.fits"})
    assert (matched.name, matched.options["target"], matched.options["kernel_sum"]) == ("match", TARGET, "1.0")
    assert eval(matched.options["solver"], vars(psfmatch).copy()) == FreeForm(size=11)
    assert eval(convolved.options["convolver"], vars(psfmatch).copy()) == FFT(edge="nan")


def test_python_tells_the_same_as_the_command_line(frame, tmp_path):
    match(frame, tmp_path / "a.fits")
    exposure = psfmatch.read_exposure(
        frame / "image.fits", weight=frame / "w.fits", psf=frame / "étoile.fits", memmap=True
    )
    matched = psfmatch.match(exposure, TARGET, solver=FreeForm(size=11), convolver=FFT(edge="nan"))
    psfmatch.write_matched(matched, tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert pickle.loads(pickle.dumps(exposure)).history == exposure.history


@pytest.mark.filterwarnings("ignore:The match is poor")
@pytest.mark.parametrize("solver", [SOLVER, AlardLupton(size=13), FreeForm(size=13, order=1)], ids=repr)
def test_options_and_targets_are_said_as_python_takes_them(tmp_path, solver):
    exposure = Exposure(np.random.default_rng(2).normal(size=(70, 93)), psf=GaussianPSF(fwhm=3.2))
    target = MoffatPSF(fwhm=4.9, beta=3.1)
    psfmatch.write_matched(psfmatch.match(exposure, target, solver=solver, throw=False), tmp_path / "m.fits")
    made = read_provenance(tmp_path / "m.fits")
    names = vars(psfmatch) | {name: getattr(psfmatch, name) for name in psfmatch.__all__}
    assert eval(made.steps[0].options["solver"], names) == solver
    assert eval(made.steps[0].options["target"], names) == target
    assert made.inputs == (Input(IN_MEMORY, ""),)


def test_a_file_that_has_changed_since_gets_no_checksum(frame, tmp_path):
    exposure = psfmatch.read_exposure(frame / "image.fits", weight=frame / "w.fits", psf=TARGET)
    (frame / "w.fits").unlink()
    content = (frame / "image.fits").read_bytes()
    (frame / "image.fits").write_bytes(content + content)
    psfmatch.write_exposure(exposure, tmp_path / "a.fits")
    assert read_provenance(tmp_path / "a.fits").inputs == (Input("image.fits", ""), Input("w.fits", ""))
    assert "not known" in run("inspect", tmp_path / "a.fits").output


def test_a_file_is_read_once_for_its_checksum(frame, monkeypatch):
    calls = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: calls.append(a) or digest(*a))
    for _ in range(3):
        history = psfmatch.read_exposure(frame / "image.fits").history
        assert history.provenance().inputs[0].sha256 == sha256sum(frame / "image.fits")
    assert len(calls) == 1


def test_what_is_exchanged_in_python_is_said(frame, tmp_path):
    exposure = psfmatch.read_exposure(frame / "image.fits")
    changed = exposure.replace(image=exposure.image - 3, psf=GaussianPSF(fwhm=3.5)).replace(unit="adu")
    psfmatch.write_exposure(changed, tmp_path / "a.fits")
    (_, step) = read_provenance(tmp_path / "a.fits").steps
    assert step == Step("replace", {"image": "changed", "psf": repr(GaussianPSF(fwhm=3.5))})


def test_kernel_and_apply(frame, tmp_path):
    kernel = tmp_path / "k.fits"
    run("kernel", frame / "étoile.fits", TARGET, "-o", kernel, "--set", "solver.size=11")
    (step,) = read_provenance(kernel).steps
    assert (step.name, step.options["science"], step.options["target"]) == ("matching_kernel", "étoile.fits", TARGET)
    assert read_provenance(kernel).inputs == (Input("étoile.fits", sha256sum(frame / "étoile.fits")),)
    run("apply", frame / "image.fits", kernel, "-o", tmp_path / "out.fits")
    made = read_provenance(tmp_path / "out.fits")
    assert [one.name for one in made.inputs] == ["image.fits", "k.fits"]
    assert made.inputs[1].sha256 == sha256sum(kernel)
    assert made.steps[1].options["kernel"] == "k.fits"
    said = run("inspect", kernel).output
    assert "a matching kernel of 11 x 11 px" in said
    assert sha256sum(frame / "étoile.fits") in said


def test_coadd(tmp_path):
    files = frames(tmp_path)
    points = tmp_path / "points.csv"
    points.write_text("name,zero_point\nf0,25.25\nf1,25.5\n")
    words = ["coadd", *files, "-t", "gaussian:fwhm=1.4arcsec", "--zero-points", points, "--combine", "mean"]
    run(*words, "-o", tmp_path / "a.fits")
    run(*words, "-o", tmp_path / "b.fits", "--patch", 64)
    made = read_provenance(tmp_path / "a.fits")
    assert made.inputs == tuple(Input(file.name, sha256sum(file)) for file in files)
    (step,) = made.steps
    assert step.name == "coadd"
    assert step.options["target"] == "gaussian:fwhm=1.4arcsec"
    assert step.options["zero point of f1"] == "25.5"
    assert eval(step.options["combine"], vars(psfmatch).copy()) == psfmatch.Mean()
    assert eval(step.options["solver"], vars(psfmatch).copy()) == FreeForm()
    assert read_provenance(tmp_path / "b.fits") == made


def frames(folder):
    from test_coadd import constant, one

    files = [folder / f"f{k}.fits" for k in range(2)]
    for k, file in enumerate(files):
        psfmatch.write_exposure(constant(one(k), k), file)
    return files


def test_target(frame, tmp_path):
    sources = [frame / "étoile.fits", "moffat:fwhm=3.3,beta=3"]
    for name in ("a", "b"):
        run("target", *sources, "--family", "gaussian", "--tolerance", 0.01, "-o", tmp_path / f"{name}.fits")
    made = read_provenance(tmp_path / "a.fits")
    assert made.inputs == (Input("étoile.fits", sha256sum(frame / "étoile.fits")),)
    assert made.steps[0].options == {
        "inputs": "étoile, moffat:fwhm=3.3,beta=3", "family": "gaussian", "tolerance": "0.01",
    }  # fmt: skip
    assert psfmatch.read_psf(tmp_path / "a.fits").constant
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_no_file_of_ours_knows_the_time(tmp_path, monkeypatch):
    """As if the two were written in different years."""
    from astropy.io.fits.hdu.base import _ValidHDU

    solution = psfmatch.matching_kernel(GaussianPSF(fwhm=3), MoffatPSF(fwhm=4, beta=3), solver=SOLVER, throw=False)
    exposure = Exposure(np.arange(42.0, dtype="f4").reshape(6, 7))
    for year in ("2031", "2047"):
        monkeypatch.setattr(_ValidHDU, "_get_timestamp", lambda self, year=year: f"{year}-01-01T00:00:00")
        monkeypatch.setattr(time, "time", lambda year=year: 1e6 * float(year))
        write_kernel(solution.kernel, tmp_path / f"k{year}.fits")
        write_psf(psfmatch.ImagePSF(solution.kernel.stamps(x=0, y=0)[0]), tmp_path / f"p{year}.fits")
        psfmatch.write_exposure(exposure, tmp_path / f"e{year}.fits.fz")
    for one in ("k{}.fits", "p{}.fits", "e{}.fits.fz"):
        assert (tmp_path / one.format("2031")).read_bytes() == (tmp_path / one.format("2047")).read_bytes()
        with fits.open(tmp_path / one.format("2031"), checksum=True, disable_image_compression=True) as hdus:
            assert all("CHECKSUM" in hdu.header for hdu in hdus)


def test_noise_that_was_spread_before_is_said(frame, tmp_path):
    """The variance of a second match is made as of independent noise, and is several times too small."""
    said = "noise of this exposure is correlated by an earlier convolution"
    first, second, plain = tmp_path / "first.fits", tmp_path / "second.fits", tmp_path / "plain.fits"
    assert said not in match(frame, first).stderr
    broader = "-t", "moffat:fwhm=5.2,beta=3.5"
    assert said in " ".join(run("match", first, *broader, "-o", second).stderr.split())
    exposure = psfmatch.read_exposure(frame / "image.fits", psf=GaussianPSF(fwhm=3.0))
    psfmatch.write_exposure(exposure.replace(variance=np.full((71, 94), 9.0, "f4")), plain)
    assert said not in run("match", plain, *broader, "-o", second, "--overwrite").stderr
    with fits.open(first) as hdus:
        hdus["PROVENANCE"].columns.change_name("KIND", "SORT")
        hdus.writeto(plain, overwrite=True, checksum=True)
    assert not psfmatch.read_exposure(plain).history.correlated


def test_any_words_survive_the_table(tmp_path):
    odd = "a\\b\n'é' 漢 \x1b[31m"
    history = History((FileState(IN_MEMORY, 0, 0),)).then("read", {}).then("read", {odd: odd, "none": None, "n": 2.5})
    write_kernel(psfmatch.MatchingKernel.constant(np.eye(3), psfmatch.Box(0, 0, 4, 5)), tmp_path / "k.fits",
                 history=history)  # fmt: skip
    made = read_provenance(tmp_path / "k.fits")
    assert made.steps == (Step("read", {}), Step("read", {odd: odd, "n": "2.5"}))
    assert "\x1b" not in run("inspect", tmp_path / "k.fits").output


def test_other_files_do_not_say(frame):
    with pytest.raises(FormatError, match=r"image\.fits: does not say how it came to be"):
        read_provenance(frame / "image.fits")


def test_a_table_of_provenance_that_lacks_a_column_is_refused(tmp_path):
    psfmatch.write_exposure(psfmatch.Exposure(np.ones((9, 11))), tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        table = Table(hdus["PROVENANCE"].data)
        name = table.colnames[-1]
        table.remove_column(name)
        hdus["PROVENANCE"] = fits.BinTableHDU(table, name="PROVENANCE")
        hdus.writeto(tmp_path / "b.fits")
    with pytest.raises(FormatError, match=rf"b\.fits: PROVENANCE lacks {name}"):
        read_provenance(tmp_path / "b.fits")
