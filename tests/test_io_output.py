"""What is written is read back, and appears wholly or not at all."""

import errno
import gzip
import os
import resource
import stat
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from processes import unprivileged
from psfmatch.cells import SpatialCellSet
from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.fields import Field
from psfmatch.geometry import Box
from psfmatch.io import (
    exposure_output,
    read_exposure,
    read_kernel,
    read_psf,
    read_quality,
    write_exposure,
    write_kernel,
    write_matched,
    write_psf,
)
from psfmatch.io.files import atomic_output, reserve, temporary_folder
from psfmatch.kernel import MatchingKernel
from psfmatch.match import read_matched
from psfmatch.psf import BasisPSF, FunctionPSF, GridPSF, ImagePSF, MoffatPSF
from psfmatch.quality import Quality
from psfmatch.solve.solution import Outcome, Solution

SHAPE = (31, 22)
BOX = Box.from_shape(SHAPE, y0=-12, x0=2047)
rng = np.random.default_rng(5)


def tpv():
    header = fits.Header(
        {"NAXIS": 2, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CRVAL1": 187.3234793723, "CRVAL2": -25.5}
    )
    header.update(
        {"CRPIX1": -118.2, "CRPIX2": 7292.67, "CD1_1": -1.1e-7, "CD1_2": 7.285e-5, "CD2_1": -7.288e-5, "CD2_2": -1.2e-7}
    )
    header.update({"CUNIT1": "deg", "CUNIT2": "deg", "PV1_0": 2e-3, "PV1_1": 1.0097, "PV1_4": 7.7e-3, "PV2_1": 1.0066})
    return WCS(header)


def make_exposure(**changes):
    image = rng.normal(50.0, 7.0, SHAPE).astype("f4")
    image[4, 5] = np.nan
    variance = rng.uniform(40.0, 60.0, SHAPE).astype("f4")
    variance[7, 8] = np.inf
    mask = Mask(rng.integers(0, 1 << 14, SHAPE).astype("i4"), {"BAD": 0, "SAT": 1, "NO_DATA": 8, "BRIGHT_OBJECT": 13})
    meta = {
        "FILTER": "z DECam c0004 9260.0 1520.0", "EXPTIME": 0.1 + 0.2, "CCDNUM": 25, "AIRMASS": None, "GUIDED": True,
        "ESO TEL AMBI": 3.5, "A LONG NAME OF MINE": "x", "TITLE": "it's " + 40 * "long " + "!", "HISTORY": "one\ntwo",
    }  # fmt: skip
    fields = {"image": image, "variance": variance, "mask": mask, "box": BOX, "wcs": tpv(), "unit": "adu", "meta": meta}
    return Exposure(**{**fields, **changes})


def make_cells():
    """Three cells and one without a PSF; the science stamps vary, the target's do not, and neither fills its frame."""
    science = np.zeros((3, 13, 13))
    science[:, 3:10, 4:9] = rng.uniform(0.1, 1.0, (3, 7, 5))
    target = np.broadcast_to(np.pad(rng.uniform(0.1, 1.0, (11, 11)), 1), science.shape)
    return SpatialCellSet(
        BOX.grown(8, 9), (8, 9), np.array([2050.0, 2059.5, 2066.0]), np.array([-7.0, 0.5, 11.0]), science, target,
        (3.1, np.nan), ((2041.0, -15.0, "no star near"),),
    )  # fmt: skip


def make_matched():
    kernel = MatchingKernel(rng.normal(size=(3, 5, 7)), Field(rng.normal(size=(3, 6)), BOX))
    quality = Quality(*rng.uniform(size=(8, 4)))
    statistics = {
        "order": 2, "condition_number": 1.5e3, "missing": np.nan, "sigmas": (0.7, 1.5, 3.0),
        "used": np.array([True, False, True]),
        "frontier": rng.normal(size=(4, 3)), "background": np.zeros(0), "advice": "Take " + 30 * "more " + "of it.",
    }  # fmt: skip
    solution = Solution(kernel, Outcome.OK, make_cells(), statistics)
    target = MoffatPSF(fwhm=3.0, beta=3.5, ellipticity=0.2, angle=20.0)
    return SimpleNamespace(exposure=make_exposure(psf=target), kernel=kernel, quality=quality, solution=solution)


def assert_same(a, b):
    for name in ("image", "variance"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.mask.array, b.mask.array)
    assert a.mask.array.dtype == b.mask.array.dtype
    assert (a.mask.planes, a.box, a.unit, dict(a.meta)) == (b.mask.planes, b.box, b.unit, dict(b.meta))
    x, y = np.array([0.0, 21.0, 5.5]), np.array([30.0, 2.0, 11.0])
    np.testing.assert_allclose(a.wcs.pixel_to_world_values(x, y), b.wcs.pixel_to_world_values(x, y), rtol=0, atol=1e-10)


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_matched_exposure_comes_back(tmp_path, suffix):
    matched, path = make_matched(), tmp_path / f"m.{suffix}"
    write_matched(matched, path)
    exposure = read_exposure(path)
    assert_same(exposure, matched.exposure)
    target = matched.exposure.psf.stamps(x=0.0, y=0.0)[0]
    assert isinstance(exposure.psf, ImagePSF)
    np.testing.assert_array_equal(exposure.psf.image, target)
    np.testing.assert_array_equal(read_psf(path).image, target)
    kernel = read_kernel(path)
    np.testing.assert_array_equal(kernel.basis, matched.kernel.basis)
    np.testing.assert_array_equal(kernel.weights.coefficients, matched.kernel.weights.coefficients)
    assert (kernel.box, kernel.weights.kind) == (BOX, "chebyshev1")
    np.testing.assert_array_equal(read_quality(path).noise_gain, matched.quality.noise_gain)
    assert os.listdir(tmp_path) == [path.name]


def test_matched_header_says_how_good_it_is(tmp_path):
    matched = make_matched()
    write_matched(matched, tmp_path / "m.fits")
    with fits.open(tmp_path / "m.fits", checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
        assert header["OUTCOME"] == "OK"
        assert header["QRESIDM"] == np.median(matched.quality.residual)
        assert header["QNGAINW"] == matched.quality.noise_gain.max()
        assert hdus["KERNEL"].header["STAT ORDER"] == 2
        assert hdus["KERNEL"].header["STAT MISSING"] is None
        assert hdus["MASK"].header["MP_BRIGHT_OBJECT"] == 13
        assert (hdus["IMAGE"].header["LTV1"], hdus["IMAGE"].header["LTV2"]) == (-2047, 12)
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)


@pytest.mark.parametrize("psf", ["basis", "stamp", "words"])
def test_exposure_comes_back_with_its_psf(tmp_path, psf):
    stamps = MoffatPSF(fwhm=3.0, beta=2.5).stamps(x=0, y=0, shape=(13, 11))
    basis = np.concatenate([stamps, 0.1 * np.roll(stamps, 1, axis=2)])
    model = {
        "basis": BasisPSF(basis, Field(np.array([[1, 0, 0], [0, 0.4, 0.2]]), BOX)),
        "stamp": ImagePSF(stamps[0]),
        "words": MoffatPSF(fwhm=3.0, beta=2.5),
    }[psf]
    exposure = make_exposure(psf=model, image=rng.normal(size=SHAPE))
    write_exposure(exposure, tmp_path / "e.fits.fz")
    back = read_exposure(tmp_path / "e.fits.fz")
    assert_same(back, exposure)
    at = {"x": [2050.0, 2066.0], "y": [-3.0, 11.0]}
    np.testing.assert_array_equal(back.psf.stamps(**at), model.stamps(**at))


def test_what_cannot_be_stored_is_said(tmp_path):
    psf = FunctionPSF(lambda x, y: np.ones((3, 3)), (3, 3))
    exposure = make_exposure(psf=psf, meta={"GOOD": 1, "BAD": [1, 2], "NAN": np.nan, "UMLAUT": "ä", "NAXIS1": 7})
    with pytest.warns(PsfMatchWarning) as caught:
        write_exposure(exposure, tmp_path / "e.fits")
    said = [str(w.message) for w in caught]
    assert any("BAD, NAN, UMLAUT" in text for text in said)
    assert any("FunctionPSF is not written" in text for text in said)
    back = read_exposure(tmp_path / "e.fits")
    assert dict(back.meta) == {"GOOD": 1}
    assert back.psf is None


def test_rubin_sees_the_same_place(tmp_path):
    """Without our own cards the origin follows from LTV1 and LTV2."""
    write_exposure(make_exposure(), tmp_path / "e.fits")
    with fits.open(tmp_path / "e.fits") as hdus:
        for hdu in hdus:
            for key in ("PSFMATCH", "BOXX0", "BOXY0", "CHECKSUM", "DATASUM"):
                hdu.header.remove(key, ignore_missing=True)
        hdus.writeto(tmp_path / "r.fits")
    assert read_exposure(tmp_path / "r.fits").box == BOX


def test_a_flipped_bit_is_noticed(tmp_path):
    write_exposure(make_exposure(), tmp_path / "e.fits")
    with fits.open(tmp_path / "e.fits") as hdus:
        where = hdus["VARIANCE"].fileinfo()["datLoc"]
    content = bytearray((tmp_path / "e.fits").read_bytes())
    content[where + 41] ^= 1
    (tmp_path / "e.fits").write_bytes(content)
    with pytest.raises(FormatError, match="verification failed"):
        read_exposure(tmp_path / "e.fits")


def test_a_missing_tail_is_noticed(tmp_path):
    write_matched(make_matched(), tmp_path / "m.fits")
    with fits.open(tmp_path / "m.fits") as hdus:
        end = hdus["VARIANCE"].fileinfo()["hdrLoc"]
    (tmp_path / "m.fits").write_bytes((tmp_path / "m.fits").read_bytes()[:end])
    with pytest.raises(FormatError, match="2 of 12 extensions"):
        read_exposure(tmp_path / "m.fits")


@pytest.mark.parametrize("kind", ["chebyshev1", "polynomial"])
def test_kernel_comes_back_to_the_last_bit(tmp_path, kind):
    kernel = MatchingKernel(rng.normal(size=(1, 9, 3)), Field(rng.normal(size=(1, 10)), BOX, kind))
    write_kernel(kernel, tmp_path / "k.fits.gz")
    back = read_kernel(tmp_path / "k.fits.gz")
    np.testing.assert_array_equal(
        back.stamps(x=[2050.0, 2060.5], y=[-1.0, 3.0]), kernel.stamps(x=[2050.0, 2060.5], y=[-1.0, 3.0])
    )
    assert (back.weights.kind, back.box) == (kind, BOX)


def test_no_kernel_in_a_file(tmp_path):
    write_exposure(make_exposure(), tmp_path / "e.fits")
    with pytest.raises(FormatError, match=r"e\.fits: holds no KERNEL and KERNEL_WEIGHTS; it has PRIMARY, IMAGE, MASK"):
        read_kernel(tmp_path / "e.fits")
    with pytest.raises(FormatError, match=r"e\.fits: holds no table QUALITY"):
        read_quality(tmp_path / "e.fits")
    with pytest.raises(FileNotFoundError, match=r"k\.fits"):
        read_kernel(tmp_path / "k.fits")


def test_nothing_is_overwritten_unless_told(tmp_path):
    path = tmp_path / "e.fits"
    path.write_text("dear to me")
    for write, what in (
        (write_exposure, make_exposure()),
        (write_matched, make_matched()),
        (write_kernel, make_matched().kernel),
    ):
        with pytest.raises(FileExistsError, match=r"e\.fits.*--overwrite"):
            write(what, path)
    assert path.read_text() == "dear to me"
    write_exposure(make_exposure(), path, overwrite=True)
    assert read_exposure(path).box == BOX
    assert os.listdir(tmp_path) == ["e.fits"]


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"e.{suffix}"
    path.write_text("dear to me")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2880, hard))
    try:
        with pytest.raises(OSError, match=f"e.{suffix}"):
            write_matched(make_matched(), path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "dear to me"
    assert os.listdir(tmp_path) == [path.name]


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    matched = make_matched()
    matched.quality = None
    with pytest.raises(AttributeError):
        write_matched(matched, tmp_path / "m.fits")
    assert os.listdir(tmp_path) == []


@pytest.fixture(name="ours")
def a_folder_with_a_file_of_ours(tmp_path):
    """Holding ``e.fits``, in which 17 stands; what writing it again needs is loaded."""
    folder = tmp_path / "ours"
    folder.mkdir()
    write_exposure(seventeen(), folder / "e.fits")
    return folder


def seventeen():
    return Exposure(np.full(SHAPE, 17.0))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("closed", ["folder", "file"])
def test_what_may_not_be_written_stays(ours, closed):
    where, mode, says = {
        "folder": (ours, 0o500, "cannot write it .Permission denied.; nothing was written: 'e.fits'"),
        "file": (ours / "e.fits", 0o444, r"e\.fits: the file may not be written; allow it \(chmod u\+w\)"),
    }[closed]
    where.chmod(mode)

    def refused():
        with pytest.raises(PermissionError, match=says):
            write_exposure(make_exposure(), "e.fits", overwrite=True)

    unprivileged(ours, refused)
    assert os.listdir(ours) == ["e.fits"]
    assert stat.S_IMODE(where.stat().st_mode) == mode
    assert read_exposure(ours / "e.fits").image[4, 5] == 17.0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_permission_that_is_lost_on_the_way(ours):
    """What was begun cannot be removed then, and is named."""

    def lost():
        with (
            pytest.raises(
                PermissionError, match=r"nothing was written; what was begun is left: remove \.e\.fits\..*part"
            ),
            exposure_output(make_exposure(), "e.fits", overwrite=True),
        ):
            os.chmod(".", 0o500)

    unprivileged(ours, lost)
    assert read_exposure(ours / "e.fits").image[4, 5] == 17.0
    assert sorted(path.suffix for path in ours.iterdir()) == [".fits", ".part"]


def test_what_is_replaced_keeps_mode_and_links(ours, tmp_path):
    """Through a link, and one that points to nothing yet; a file that is new has the mode of any other."""
    path, link, ahead = ours / "e.fits", tmp_path / "link.fits", tmp_path / "ahead.fits"
    path.chmod(0o640)
    link.symlink_to("ours/e.fits")
    ahead.symlink_to(ours / "new.fits")
    with atomic_output(link, overwrite=True) as out:
        (begun,) = ours.glob(".*.part")
        assert stat.S_IMODE(begun.stat().st_mode) == 0o640  # while it is written, too
        out.write(b"new")
    write_exposure(seventeen(), ahead)
    assert path.read_bytes() == b"new"
    (tmp_path / "any").touch()
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (path, ours / "new.fits", tmp_path / "any")]
    assert modes == [0o640, modes[2], modes[2]]
    assert modes[2] != 0o640
    assert link.is_symlink()
    assert ahead.is_symlink()
    assert sorted(os.listdir(ours)) == ["e.fits", "new.fits"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_comes_meanwhile_stays(tmp_path, monkeypatch, links):
    """It comes at the last moment; where there are no links, before the last look."""
    path, link = tmp_path / "e.fits", os.link

    def late(scratch, final):
        path.write_text("dear to me")
        if not links:
            raise PermissionError(errno.EPERM, "no links here", scratch)
        link(scratch, final)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExistsError, match=r"e\.fits: the file exists; give overwrite=True"):
        write_exposure(make_exposure(), path)
    assert path.read_text() == "dear to me"
    assert os.listdir(tmp_path) == ["e.fits"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    write_exposure(seventeen(), tmp_path / "e.fits")
    assert read_exposure(tmp_path / "e.fits").image[4, 5] == 17.0
    assert os.listdir(tmp_path) == ["e.fits"]


def test_a_temporary_folder_that_cannot_be_made_or_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def failing_with(number, words, file):
        with temporary_folder("of-") as folder:
            raise OSError(number, words, file and str(folder / file))

    with pytest.raises(OSError, match=r"temporary file: no room; set TMPDIR to a folder with room: '.*of-.*/a'"):
        failing_with(errno.ENOSPC, "no room", "a")
    for file in ("/another/file", None):
        with pytest.raises(OSError, match="not ours") as caught:
            failing_with(errno.EIO, "not ours", file)
        assert "TMPDIR" not in str(caught.value)
    assert os.listdir(tmp_path) == []
    tmp_path.rmdir()
    with pytest.raises(FileNotFoundError, match=f"no temporary folder can be made .*; set TMPDIR to .*{tmp_path.name}"):
        temporary_folder("of-").__enter__()


def test_outputs_that_make_no_sense(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"directory .*nowhere does not exist"):
        write_exposure(make_exposure(), tmp_path / "nowhere" / "e.fits")
    with pytest.raises(InputError, match=r"must end in \.fits"):
        write_exposure(make_exposure(), tmp_path / "e.png")
    (tmp_path / "d.fits").mkdir()
    with pytest.raises(IsADirectoryError):
        write_exposure(make_exposure(), tmp_path / "d.fits", overwrite=True)


def test_gzipped_output_is_gzip_without_the_scratch_name(tmp_path):
    write_exposure(make_exposure(), tmp_path / "e.fits.gz")
    content = (tmp_path / "e.fits.gz").read_bytes()
    assert b".part" not in content[:64]
    assert gzip.decompress(content).startswith(b"SIMPLE  =")


def test_threads_do_not_disturb_each_other(tmp_path):
    """Eight at once read and write, and the filters of warnings are afterwards what they were."""
    exposure, barrier, filters = make_exposure(), Barrier(8), list(warnings.filters)
    before = sys.getswitchinterval()

    def work(k):
        for turn in range(4):
            barrier.wait()
            write_exposure(exposure, tmp_path / f"{k}_{turn}.fits")
        return read_exposure(tmp_path / f"{k}_3.fits")

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            for back in pool.map(work, range(8)):
                assert_same(back, exposure)
    finally:
        sys.setswitchinterval(before)
    assert warnings.filters == filters


def test_cells_and_notes_are_read_back(tmp_path):
    matched = make_matched()
    write_matched(matched, tmp_path / "m.fits")
    back, cells = read_matched(tmp_path / "m.fits"), matched.solution.cells
    found = back.solution.cells
    assert (found.box, found.cell_shape, found.skipped) == (cells.box, cells.cell_shape, cells.skipped)
    np.testing.assert_array_equal([found.x, found.y], [cells.x, cells.y])
    assert found.fwhm[0] == 3.1
    assert np.isnan(found.fwhm[1])
    for name in ("science", "target"):
        mine, theirs = getattr(found, name), getattr(cells, name)
        np.testing.assert_allclose(mine, theirs[:, 1:-1, 1:-1], rtol=1e-7)  # a rim of zeros is not kept
    assert back.solution.outcome is Outcome.OK
    notes = back.solution.statistics
    assert notes["order"] == 2
    assert np.isnan(notes["missing"])
    assert notes["advice"] == matched.solution.statistics["advice"]
    for name in ("sigmas", "used", "frontier"):
        np.testing.assert_array_equal(notes[name], matched.solution.statistics[name])
    np.testing.assert_array_equal(back.kernel.basis, matched.kernel.basis)
    np.testing.assert_array_equal(back.quality.residual, matched.quality.residual)


def test_files_without_cells(tmp_path):
    write_exposure(make_exposure(psf=None), tmp_path / "e.fits")
    with pytest.raises(FormatError, match="not an exposure matched by psfmatch"):
        read_matched(tmp_path / "e.fits")
    write_matched(make_matched(), tmp_path / "m.fits")
    with fits.open(tmp_path / "m.fits") as hdus:
        del hdus["CELLS"]
        hdus[0].header["NEXTEND"] -= 1
        hdus.writeto(tmp_path / "early.fits", checksum=True)
    with pytest.raises(FormatError, match="to be matched again"):
        read_matched(tmp_path / "early.fits")


def test_a_place_on_the_disk_is_taken_on_any_system(tmp_path, monkeypatch):
    """Where the system cannot reserve it, zeros are written: the file is as long."""
    for name in ("first", "second"):
        with open(tmp_path / name, "wb") as out:
            reserve(out, (1 << 20) + 17)
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    first, second = ((tmp_path / name).read_bytes() for name in ("first", "second"))
    assert first == second == bytes((1 << 20) + 17)


def failing(path, error):
    with atomic_output(path, overwrite=False) as out:
        out.write(b"begun")
        raise error


def test_an_error_of_another_file_is_not_called_one_of_writing(tmp_path):
    """What fails while a file is written, but elsewhere, is said as it is; and the file is not there."""
    path = tmp_path / "out.fits"
    for error in (FileNotFoundError(2, "No such file", "input.fits"), OSError("a sentence of its own")):
        with pytest.raises(OSError, match=error.strerror or "a sentence of its own") as caught:
            failing(path, error)
        assert caught.value is error
    with pytest.raises(OSError, match=r"cannot write it \(No space left\); nothing was written") as caught:
        failing(path, OSError(28, "No space left"))
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_no_file_holds_is_refused(tmp_path):
    psf = FunctionPSF(lambda x, y: np.ones((5, 7)) / 35, shape=(5, 7))
    with pytest.raises(InputError, match="type FunctionPSF cannot be stored; give stamps, basis stamps or a grid"):
        write_psf(psf, tmp_path / "p.fits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("normalize", [False, True])
def test_stamps_on_a_grid_are_stored(tmp_path, normalize):
    """To the last bit, in a file of their own, and in that of an exposure."""
    at_x, at_y = np.array([-3.0, 40.5, 111.25]), np.array([2.0, 77.0])
    images = [
        [MoffatPSF(fwhm=3 + 0.01 * x, beta=3).stamps(x=0, y=0, shape=(15, 21))[0] * (1 - y / 1e3) for x in at_x]
        for y in at_y
    ]
    psf = GridPSF(np.array(images), at_x, at_y, normalize=normalize)
    write_psf(psf, tmp_path / "p.fits.gz")
    write_exposure(make_exposure(psf=psf), tmp_path / "e.fits")
    for again in (read_psf(tmp_path / "p.fits.gz"), read_exposure(tmp_path / "e.fits").psf):
        assert isinstance(again, GridPSF)
        for name in ("images", "x", "y", "normalize"):
            np.testing.assert_array_equal(getattr(again, name), getattr(psf, name))
    with fits.open(tmp_path / "p.fits.gz") as hdus:
        hdus["PSF_NODES"].data["X"][1] = 41.0
        hdus.writeto(tmp_path / "odd.fits", checksum=True)
    with pytest.raises(FormatError, match=r"odd\.fits: PSF of shape \(6, 15, 21\) for a grid of 4 x 2 nodes"):
        read_psf(tmp_path / "odd.fits")
