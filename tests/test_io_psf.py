"""PSF models from files and words, against the formats' own definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from psfmatch.errors import FormatError, InputError, PSFError, PsfMatchWarning
from psfmatch.geometry import Box
from psfmatch.io import read_psf, write_kernel
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import DoubleGaussianPSF, GaussianPSF, ImagePSF, MoffatPSF

DATA = Path(__file__).parent / "data"
PSFEX = DATA / "DECam_00154912_12_psfcat.psf"
LEGACY = DATA / "decam" / "c4d_170419_042827_ooi_z_ls9-S1-psfex.fits.gz"


def psfex_sum(file, x, y):
    """The samples of a PSFEx model at (x, y), counted from 0, straight from the definition."""
    with fits.open(file) as hdus:
        header, cube = hdus[1].header, hdus[1].data.field(0)[0].astype(float)
    u = (x + 1 - header["POLZERO1"]) / header["POLSCAL1"]
    v = (y + 1 - header["POLZERO2"]) / header["POLSCAL2"]
    terms = [1.0, u, u * u, v, u * v, v * v]
    return sum(term * slice_ for term, slice_ in zip(terms, cube, strict=True)), header["PSF_SAMP"]


def lanczos3(t):
    if t == 0:
        return 1.0
    return 3 * math.sin(math.pi * t) * math.sin(math.pi * t / 3) / (math.pi * t) ** 2 if abs(t) < 3 else 0.0


def interpolated(samples, step, dx, dy):
    """Lanczos-3 interpolation at an offset in pixels from the central sample, one sample at a time."""
    value = norm = 0.0
    cy, cx = (n // 2 for n in samples.shape)
    for j in range(-3, samples.shape[0] + 3):
        for i in range(-3, samples.shape[1] + 3):
            weight = lanczos3(dx / step + cx - i) * lanczos3(dy / step + cy - j)
            norm += weight
            if 0 <= j < samples.shape[0] and 0 <= i < samples.shape[1]:
                value += weight * samples[j, i]
    return value / norm


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1800.5, 77.0), (310.0, 4000.25)])
def test_psfex_samples_on_pixels_are_the_polynomial(x, y):
    want, step = psfex_sum(LEGACY, x, y)
    assert step == 1.0
    assert not math.isclose(want.sum(), 1.0, abs_tol=1e-3)
    stamp = read_psf(LEGACY).stamps(x=x, y=y)[0]
    np.testing.assert_allclose(stamp, want / want.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("x", "y"), [(5.0, 4090.0), (1500.0, 300.0)])
def test_psfex_samples_between_pixels_are_interpolated(x, y):
    samples, step = psfex_sum(PSFEX, x, y)
    stamp = read_psf(PSFEX).stamps(x=x, y=y)[0]
    half = stamp.shape[0] // 2
    assert stamp.shape == (23, 23)
    want = {(dx, dy): interpolated(samples, step, dx, dy) for dx, dy in [(0, 0), (3, -2), (-1, 4), (7, 1)]}
    for (dx, dy), value in want.items():
        assert stamp[half + dy, half + dx] / stamp[half, half] == pytest.approx(value / want[0, 0], rel=1e-10)
    assert stamp.sum() == pytest.approx(1.0, abs=1e-12)


def psfex_file(path, cube, header, rows=1):
    column = fits.Column("PSF_MASK", f"{cube.size}E", dim=str(cube.shape[::-1]), array=np.repeat(cube[None], rows, 0))
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(header)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def gaussian(shape, step, *, sx=2.0, sy=3.0):
    y, x = ((np.arange(n) - n // 2) * step for n in shape)
    return np.exp(-0.5 * ((x[None, :] / sx) ** 2 + (y[:, None] / sy) ** 2))


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 1.3])
def test_psfex_sampling_step_is_in_image_pixels(tmp_path, step):
    cube = gaussian((61, 51), step)[None]
    psf = read_psf(psfex_file(tmp_path / "a.psf", cube, {"POLNAXIS": 0, "PSF_SAMP": step}))
    stamp = psf.stamps(x=40.0, y=7.0)[0]
    want = gaussian(stamp.shape, 1.0)
    assert stamp.shape[0] == 2 * int(30 * step + 1e-3) + 1
    np.testing.assert_allclose(stamp, want / want.sum(), rtol=0, atol=4e-3 * stamp.max())


def test_psfex_groups_of_contexts_are_multiplied(tmp_path):
    header = {"POLNAXIS": 2, "POLGRP1": 1, "POLGRP2": 2, "POLDEG1": 1, "POLDEG2": 1, "PSF_SAMP": 1.0}
    header |= {
        "POLNAME1": "X_IMAGE",
        "POLNAME2": "Y_IMAGE",
        "POLZERO1": 101,
        "POLZERO2": 51,
        "POLSCAL1": 80,
        "POLSCAL2": 40,
    }
    core = gaussian((21, 17), 1.0)
    cube = np.stack([core, *(np.roll(core, s, (0, 1)) * 0.1 for s in ((1, 0), (0, 2), (1, -1)))])
    stamp = read_psf(psfex_file(tmp_path / "a.psf", cube, header)).stamps(x=120.0, y=80.0)[0]
    u, v = 20 / 80, 30 / 40
    want = (cube.astype("f4") * np.array([1, u, v, u * v])[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(stamp, want / want.sum(), atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"POLNAME2": "MAG_AUTO"}, "varies with X_IMAGE, MAG_AUTO"),
        ({"POLNAXIS": 3, "POLNAME3": "MAG_AUTO"}, "MAG_AUTO"),
        ({"POLDEG1": 3}, "6 PSFEx slices do not fit"),
        ({"POLSCAL1": 0.0}, "POLSCAL"),
        ({"PSF_SAMP": 0.0}, "PSF_SAMP"),
        ({"PSF_SAMP": 1e6}, "no usable stamp"),
    ],
)
def test_psfex_that_cannot_be_expressed_is_refused(tmp_path, changes, says):
    with fits.open(PSFEX) as hdus:
        hdus[1].header.update(changes)
        hdus.writeto(tmp_path / "odd.psf")
    with pytest.raises(FormatError, match=says) as caught:
        read_psf(tmp_path / "odd.psf")
    assert "odd.psf" in str(caught.value)


def test_several_models_need_a_choice(tmp_path):
    with fits.open(PSFEX) as hdus:
        fits.HDUList([*hdus, hdus[1].copy()]).writeto(tmp_path / "two.psf")
    with pytest.raises(FormatError, match=r"holds 2 PSFEx models; choose one: .*two\.psf\[1\]"):
        read_psf(tmp_path / "two.psf")
    stamps = (read_psf(path).stamps(x=9.0, y=4.0) for path in (f"{tmp_path}/two.psf[2]", PSFEX))
    np.testing.assert_array_equal(*stamps)
    core = gaussian((21, 17), 1.0)[None]
    with pytest.raises(FormatError, match="3 PSFEx models; cut out one row"):
        read_psf(psfex_file(tmp_path / "rows.psf", core, {"POLNAXIS": 0}, rows=3))


def image_file(path, stamp):
    fits.PrimaryHDU(stamp).writeto(path)
    return path


def test_image_stamp_is_believed_or_normalised(tmp_path):
    core = gaussian((19, 15), 1.0)
    short = 0.97 * core / core.sum()
    psf = read_psf(image_file(tmp_path / "short.fits", short))
    assert isinstance(psf, ImagePSF)
    np.testing.assert_array_equal(psf.image, short)
    with pytest.warns(PsfMatchWarning, match=r"long\.fits: the PSF stamp has the sum .*normalised"):
        psf = read_psf(image_file(tmp_path / "long.fits", core.astype(">i2") + (core * 5000).astype(">i2")))
    assert psf.image.sum() == pytest.approx(1.0)


def test_padding_behind_the_last_extension_is_harmless(tmp_path):
    core = gaussian((19, 15), 1.0)
    path = image_file(tmp_path / "stamp.fits", core / core.sum())
    for tail in (b"\n", bytes(28800)):
        (tmp_path / "padded.fits").write_bytes(path.read_bytes() + tail)
        np.testing.assert_array_equal(read_psf(tmp_path / "padded.fits").image, read_psf(path).image)
    (tmp_path / "padded.fits").write_bytes(path.read_bytes() + b"garbled!" * 720)
    with pytest.raises(FormatError, match=r"padded\.fits"):
        read_psf(tmp_path / "padded.fits")


def broken(what):
    core = gaussian((19, 15), 1.0)
    return {
        "even": np.pad(core, ((0, 0), (0, 8)))[:, :-1],
        "NaN": np.where(core > 0.9, np.nan, core),
        "all zeros": np.zeros_like(core),
        "from the central pixel": np.roll(core, 4, axis=1),
        "no positive flux": -core,
    }[what]


@pytest.mark.parametrize("what", ["even", "NaN", "all zeros", "from the central pixel", "no positive flux"])
def test_unusable_stamps_are_refused_by_name(tmp_path, what):
    with pytest.raises(PSFError, match=what) as caught:
        read_psf(image_file(tmp_path / "stamp.fits", broken(what)))
    assert "stamp.fits" in str(caught.value)


@pytest.mark.parametrize("scale", [None, 0.2, 0.3])
def test_an_even_stamp_is_read_as_a_kernel_between_stamps_would(tmp_path, scale):
    """Its source between four pixels, its pixels those of the image or half as large again."""
    true = GaussianPSF(fwhm=4.0, ellipticity=0.2, angle=20.0)
    dy, dx = np.mgrid[:440, :520] / 10 - np.array([21.95, 25.95])[:, None, None]
    fine = true.scaled(0.2 / (scale or 0.2))._density(dx, dy)
    path = image_file(tmp_path / "stamp.fits", fine.reshape(44, 10, 52, 10).sum(axis=(1, 3)) / fine.sum())
    if scale:
        fits.setval(path, "PIXSCALE", value=scale)
    image = read_psf(path, pixel_scale=0.2).stamps(x=0, y=0, shape=(31, 37))[0]
    np.testing.assert_allclose(image, true.stamps(x=0, y=0, shape=(31, 37))[0], atol=3e-4)


def test_a_kernel_is_taken_for_a_psf_only_where_asked(tmp_path):
    image = GaussianPSF(fwhm=3.0, ellipticity=0.2, angle=20.0).stamps(x=0, y=0, shape=(15, 15))[0]
    write_kernel(MatchingKernel.constant(image, Box(0, 0, 20, 30)), tmp_path / "k.fits")
    with pytest.raises(FormatError, match="a matching kernel, no PSF"):
        read_psf(tmp_path / "k.fits")
    np.testing.assert_array_equal(read_psf(f"{tmp_path}/k.fits[KERNEL]").stamps(x=0, y=0)[0], image)


def test_psf_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.psf"):
        read_psf(tmp_path / "nowhere.psf")
    (tmp_path / "cut.psf").write_bytes(PSFEX.read_bytes()[:12000])
    with pytest.raises(FormatError, match=r"cut\.psf") as caught:
        read_psf(tmp_path / "cut.psf")
    assert caught.value.__cause__ is not None
    with pytest.raises(FormatError, match="no column PSF_MASK"):
        read_psf(image_file(tmp_path / "stamp.fits", gaussian((19, 15), 1.0)), format="psfex")
    with pytest.raises(InputError, match=r"choose one of .*psfex"):
        read_psf(PSFEX, format="puff")


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("moffat:fwhm=5,beta=3.5", MoffatPSF(fwhm=5.0, beta=3.5)),
        (
            "moffat: fwhm=5px, beta=2.5, ellipticity=0.1, angle=30deg",
            MoffatPSF(fwhm=5.0, beta=2.5, ellipticity=0.1, angle=30),
        ),
        ("gaussian:fwhm=1.5arcsec", GaussianPSF(fwhm=6.0)),
        ("gaussian:fwhm=750mas", GaussianPSF(fwhm=3.0)),
        ("double-gaussian:fwhm=5,ratio=3,b=0.2", DoubleGaussianPSF.from_fwhm(5.0, ratio=3.0, b=0.2)),
        ("double-gaussian:sigma1=2,sigma2=0.75arcsec,b=0.1", DoubleGaussianPSF(sigma1=2.0, sigma2=3.0, b=0.1)),
    ],
)
def test_words(words, want):
    assert read_psf(words, pixel_scale=0.25) == want


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("airy:fwhm=5", "there are gaussian, moffat, double-gaussian"),
        ("moffat:fwhm=5", r"write moffat:fwhm=\.\.\.,beta=\.\.\."),
        ("moffat", "without beta and fwhm; write moffat"),
        ("moffat:fwhm=5,alpha=3", "no 'alpha'"),
        ("gaussian:fwhm=5arcmin", "px, arcsec and mas"),
        ("gaussian:fwhm=wide", "cannot read 'fwhm=wide'"),
        ("gaussian:fwhm=-3", "finite and positive"),
        ("moffat:fwhm=5,beta=0.5", "above 1"),
        ("moffat:fwhm=5,beta=3arcsec", "no unit"),
        ("double-gaussian:fwhm=5,sigma1=2", "contradictory"),
        ("gaussian:fwhm=1.2arcsec", "give an image with a WCS, or the width in pixels"),
    ],
)
def test_words_that_are_not_understood(words, says):
    with pytest.raises(InputError, match=says):
        read_psf(words)


def test_a_file_comes_before_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    core = gaussian((19, 15), 1.0)
    image_file(tmp_path / "plain.fits", core / core.sum())
    (tmp_path / "plain.fits").rename(tmp_path / "gaussian:fwhm=5")
    assert isinstance(read_psf("gaussian:fwhm=5"), ImagePSF)
    with pytest.raises(FileNotFoundError):
        read_psf(Path("moffat:fwhm=5,beta=3"))
