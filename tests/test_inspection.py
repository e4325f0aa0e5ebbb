"""What `psfmatch inspect` says, against models whose figures are known."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psf_files
import psfmatch
from psfmatch.cli import main
from psfmatch.errors import FormatError, InputError
from psfmatch.inspection import inspect_file, inspect_psf
from psfmatch.psf import FunctionPSF, GaussianPSF, MoffatPSF


def run(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_figures_of_a_psf_that_is_known():
    """Moffats integrated over pixels, whose width and direction vary over a field with an origin."""

    def model(x, y):
        psf = MoffatPSF(fwhm=3.0 + x / 500, beta=4.5, ellipticity=0.1 + y / 2000, angle=30.0)
        return psf.stamps(x=0, y=0, shape=(21, 25))[0]

    box = psfmatch.Box(100, 50, 300, 450)
    report = inspect_psf(FunctionPSF(model, (21, 25)), box=box, mesh=5)
    assert (report.x.min(), report.x.max()) == pytest.approx((50 + 0.02 * 399, 50 + 0.98 * 399))
    truth = 3.0 + report.x / 500
    np.testing.assert_allclose(report.fwhm, np.sqrt(truth**2 + 8 * np.log(2) / 12), rtol=0.015)  # wider by the pixel
    np.testing.assert_allclose(report.angle, 30.0, atol=0.5)
    np.testing.assert_allclose(report.ellipticity, 0.1 + report.y / 2000, atol=0.02)
    np.testing.assert_allclose(report.missing, 1 / report.total - 1, rtol=0.5)
    assert report.summary["fwhm"]["max"] == report.fwhm.max()


def test_a_psf_file(tmp_path):
    picture = tmp_path / "psf.png"
    result = run(psf_files.PSFEX, "--mesh", 2, "-o", picture)
    assert result.exit_code == 0, result.output
    assert "a PSFEx model (BasisPSF, 23 x 23 px); varies over the field" in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = run(psf_files.PSFEX, "-o", picture)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    said = json.loads(run(psf_files.PSFEX, "--json", "--mesh", 2).stdout)
    assert said["kind"] == "psf"
    assert len(said["mesh"]["fwhm"]) == 4
    assert 3.8 < said["summary"]["fwhm"]["median"] < 4.2  # as its makers' tests have it


def test_a_choice_in_brackets_and_its_absence(tmp_path):
    path = psf_files.sdss_file(tmp_path / "psField-000001-1-0001.fit")
    assert "an SDSS psField file" in run(path).output
    refused = run(path.removesuffix("[r]"))
    assert refused.exit_code == 2
    assert "choose u, g, r, i or z" in refused.stderr


def test_a_frame_and_its_psf(tmp_path):
    rng = np.random.default_rng(1)
    mask = np.zeros((60, 81), np.int32)
    mask[3:5, 7:10] = 2
    frame = psfmatch.Exposure(image=rng.normal(size=(60, 81)), variance=np.full((60, 81), 4.0), mask=mask, unit="nJy",
                              psf=GaussianPSF(fwhm=3.0, size=21))  # fmt: skip
    psfmatch.write_exposure(frame, tmp_path / "frame.fits")
    report = inspect_file(tmp_path / "frame.fits")
    assert report.counts == {"SAT": 6}
    assert report.noise == 2.0
    assert report.psf.fwhm[0] == pytest.approx(np.sqrt(9 + 8 * np.log(2) / 12), rel=5e-3)
    said = run(tmp_path / "frame.fits").output
    assert "a frame of 81 x 60 px, float64, in nJy" in said
    assert "SAT" in said


def test_an_image_is_a_psf_or_a_frame(tmp_path):
    assert inspect_file(psf_files.image_file(tmp_path / "stamp.fits")).as_dict()["kind"] == "psf"
    fits.PrimaryHDU(np.random.default_rng(2).normal(size=(50, 70))).writeto(tmp_path / "frame.fits")
    bare = run(tmp_path / "frame.fits", "-o", tmp_path / "p.png")
    assert bare.exit_code == 2
    assert "nothing to draw; give --psf" in bare.stderr
    with_psf = inspect_file(tmp_path / "frame.fits", psf="moffat:fwhm=4,beta=3")
    with pytest.raises(InputError, match="leave them out"):
        inspect_file(tmp_path / "frame.fits", psf="moffat:fwhm=4,beta=3", allow_pickle=True)
    assert with_psf.psf.fwhm[0] == pytest.approx(4.09, abs=0.05)
    assert inspect_file("moffat:fwhm=4,beta=3").fwhm[0] == with_psf.psf.fwhm[0]


def test_what_cannot_be_inspected(tmp_path):
    (tmp_path / "notes.txt").write_text("no PSF")
    with pytest.raises(FormatError, match=r"notes\.txt"):
        inspect_file(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError):
        inspect_file(tmp_path / "nowhere.fits")
    with pytest.raises(InputError, match="mesh=0"):
        inspect_psf("gaussian:fwhm=3", mesh=0)
