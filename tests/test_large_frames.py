"""Frames larger than memory: planes that stay in their files, for reading and for writing."""

import os
import resource
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.convolve import FFT, Direct
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.fields import Field
from psfmatch.geometry import Box
from psfmatch.io import (
    exposure_output,
    matched_output,
    read_exposure,
    read_kernel,
    read_quality,
    write_exposure,
    write_matched,
)
from psfmatch.kernel import MatchingKernel
from psfmatch.plots import BeforeAfter, before_after
from psfmatch.psf import MoffatPSF
from psfmatch.stars import find_stars, fit_moffat

PSF = MoffatPSF(fwhm=4.0, beta=3.0)


def make_exposure(shape=(91, 74), **changes):
    rng = np.random.default_rng(7)
    image = rng.normal(100.0, 3.0, shape).astype("f4")
    image[30:51, 20:41] += 30_000.0 * PSF.stamps(x=0, y=0, shape=(21, 21))[0]
    image[4, 5] = np.nan
    mask = np.zeros(shape, "i2")
    mask[60:62, 50:53] = 2
    fields = {
        "image": image, "variance": rng.uniform(8.0, 10.0, shape).astype("f8"), "psf": PSF, "unit": "adu",
        "mask": Mask(mask, {"BAD": 0, "SAT": 1}), "box": Box.from_shape(shape, y0=-12, x0=2047),
    }  # fmt: skip
    return Exposure(**{**fields, **changes})


@pytest.fixture(name="both")
def in_memory_and_in_file(tmp_path):
    """One exposure, read in both ways."""
    write_exposure(make_exposure(), tmp_path / "a.fits")
    return read_exposure(tmp_path / "a.fits"), read_exposure(tmp_path / "a.fits", memmap=True)


def planes(exposure):
    return exposure.image, exposure.variance, exposure.mask.array


def in_file(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def assert_same(a, b):
    for one, other in zip(planes(a), planes(b), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
    assert (a.mask.planes, a.box, a.unit, dict(a.meta)) == (b.mask.planes, b.box, b.unit, dict(b.meta))


def test_planes_stay_in_the_file(both, tmp_path):
    memory, mapped = both
    assert_same(memory, mapped)
    for plane in (*planes(mapped), mapped.cutout(Box(0, 2050, 9, 2060)).image, mapped.replace(unit="nJy").image):
        assert in_file(plane)
        assert plane.dtype.byteorder == ">"
        assert not plane.flags.writeable
    assert not any(in_file(plane) or not plane.dtype.isnative for plane in planes(memory))
    (tmp_path / "a.fits").unlink()
    assert_same(memory, mapped)


@pytest.mark.parametrize("own", [True, False], ids=["own", "foreign"])
def test_reading_takes_no_plane_of_memory(tmp_path, own):
    path, ones = tmp_path / "a.fits", np.ones((1500, 1103), "f4")
    if own:
        write_exposure(Exposure(ones, variance=ones, mask=Mask(np.zeros(ones.shape, "i4"))), path)
    else:
        named = (("IMAGE", ones), ("VARIANCE", ones), ("MASK", ones.astype("i4")))
        fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(a, name=name) for name, a in named)]).writeto(path)
    read_exposure(path, memmap=True)  # what is loaded at the first use does not count
    tracemalloc.start()
    try:
        exposure = read_exposure(path, memmap=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.05 * sum(plane.nbytes for plane in planes(exposure))


def test_an_exposure_without_variance_and_mask_takes_none_either(tmp_path):
    fits.PrimaryHDU(make_exposure().image.copy()).writeto(tmp_path / "a.fits")
    exposure = read_exposure(tmp_path / "a.fits", memmap=True)
    assert in_file(exposure.image)
    assert exposure.mask.array.strides == (0, 0)
    assert not exposure.mask.array.any()


def _gzipped(exposure, folder):
    write_exposure(exposure, folder / "a.fits.gz")
    return folder / "a.fits.gz"


def _tiled(exposure, folder):
    write_exposure(exposure, folder / "a.fits.fz")
    return folder / "a.fits.fz"


def _scaled(exposure, folder):
    hdu = fits.ImageHDU(np.nan_to_num(exposure.image), name="IMAGE")
    hdu.scale("int16", bscale=0.125, bzero=150.0)
    mask = fits.ImageHDU(exposure.mask.array.astype("u2"), name="MASK")  # stored with BZERO
    fits.HDUList([fits.PrimaryHDU(), hdu, mask]).writeto(folder / "a.fits")
    return folder / "a.fits"


def _foreign_conventions(exposure, folder):
    weight = np.where(exposure.variance > 9.0, 1.0 / exposure.variance, 0.0)
    bits = exposure.mask.array.astype("i2") << 10
    hdus = [("SCI", np.array(exposure.image)), ("MSK", bits), ("WGT", weight)]
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(a, name=n) for n, a in hdus)]).writeto(folder / "a.fits")
    return folder / "a.fits"


@pytest.mark.parametrize("store", [_gzipped, _tiled, _scaled, _foreign_conventions])
def test_what_cannot_be_mapped_is_read_as_ever(tmp_path, store):
    path = store(make_exposure(), tmp_path)
    mapped = read_exposure(path, memmap=True)
    assert not in_file(mapped.mask.array)
    assert mapped.mask.array.any()
    for a, b in zip(planes(read_exposure(path)), planes(mapped), strict=True):
        np.testing.assert_array_equal(a, b)


def test_companions_are_mapped_too(tmp_path):
    exposure = make_exposure()
    for name, plane in zip(("image", "variance", "mask"), planes(exposure), strict=True):
        fits.PrimaryHDU(plane.copy(), fits.Header({"MP_BAD": 0, "MP_SAT": 1})).writeto(tmp_path / f"{name}.fits")
    files = {name: tmp_path / f"{name}.fits" for name in ("variance", "mask")}
    mapped = read_exposure(tmp_path / "image.fits", **files, memmap=True)
    assert all(in_file(plane) for plane in planes(mapped))
    np.testing.assert_array_equal(mapped.mask.any_of("SAT"), exposure.mask.any_of("SAT"))


def test_a_negative_variance_in_a_file_is_refused(tmp_path):
    hdus = [fits.ImageHDU(np.full((31, 22), value), name=name) for name, value in (("IMAGE", 1.0), ("VARIANCE", -2.0))]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match=r"a\.fits: the variance is negative in 682 pixels \(least -2\)"):
        read_exposure(tmp_path / "a.fits", memmap=True)


def test_new_mask_planes_copy_nothing_that_has_room(both):
    mask = both[1].mask.with_planes(["EDGE", "NO_DATA"])
    assert in_file(mask.array)
    assert in_file(mask.with_planes(["STREAK"]).array)
    assert not in_file(Mask(mask.array, {f"P{bit}": bit for bit in range(15)}).with_planes(["STREAK"]).array)


@pytest.mark.parametrize("convolver", [FFT(), Direct()], ids=["fft", "direct"])
def test_convolution_does_not_care_where_the_planes_are(both, convolver):
    rng = np.random.default_rng(3)
    kernel = MatchingKernel(rng.uniform(size=(2, 5, 7)), Field(rng.uniform(size=(2, 3)), both[0].box))
    memory, mapped = (psfmatch.convolve(exposure, kernel, convolver=convolver) for exposure in both)
    assert_same(memory, mapped)
    assert all(plane.dtype.isnative for plane in planes(mapped))


def test_match_stars_and_figures_do_not_care_where_the_planes_are(both):
    results = []
    for exposure in both:
        solver = psfmatch.FreeForm(size=11, tolerance=0.1)
        matched = psfmatch.match(exposure, "moffat:fwhm=5,beta=3", solver=solver, convolver=Direct()).exposure
        (position,) = find_stars(exposure)
        star, after = (fit_moffat(e, x=position.x, y=position.y) for e in (exposure, matched))
        before_after([BeforeAfter("a", exposure, matched, star, after, 5.0)])
        results.append((matched, star, after))
    (memory, *stars), (mapped, *others) = results
    assert_same(memory, mapped)
    assert stars == others


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_mapped_planes_are_written_like_any_other(both, tmp_path, suffix):
    write_exposure(both[1], tmp_path / f"b.{suffix}")
    again = read_exposure(tmp_path / f"b.{suffix}")
    assert_same(both[0], again)


def test_ccddata_gets_a_copy_in_memory(both):
    data = both[1].to_ccddata()
    for plane in (data.data, data.uncertainty.array, data.flags):
        assert not in_file(plane)
        assert plane.dtype.isnative
    np.testing.assert_array_equal(data.data, both[0].image)


@pytest.fixture(name="still")
def the_clock_stands_still(monkeypatch):
    """Checksum cards have the time in their comments, tiles of a compressed image have it in front."""
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    monkeypatch.setattr("astropy.io.fits.hdu.base._ValidHDU._get_timestamp", lambda self: "2026-01-02T03:04:05")


def fill(outputs, exposure, rows=10):
    """Strip by strip, the last one first."""
    for y in reversed(range(0, exposure.shape[0], rows)):
        outputs.image[y : y + rows] = exposure.image[y : y + rows]
        outputs.mask[y : y + rows] = exposure.mask.array[y : y + rows]
        if exposure.variance is not None:
            outputs.variance[y : y + rows] = exposure.variance[y : y + rows]


MATCH = make_exposure(), "moffat:fwhm=5,beta=3"
CHANGES = {
    "as it is": {},
    "no variance": {"variance": None},
    "float64 and uint8": {"image": make_exposure().image.astype("f8"), "mask": Mask(np.full((91, 74), 3, "u1"))},
    "uint16": {"mask": Mask(np.full((91, 74), 40_000, "u2"))},
}


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_strips_make_the_same_file(tmp_path, still, changes, suffix):
    exposure = make_exposure(meta={"FILTER": "z", "A LONG NAME OF MINE": 3.5}, **changes)
    write_exposure(exposure, tmp_path / f"a.{suffix}")
    with exposure_output(exposure, tmp_path / f"b.{suffix}") as outputs:
        fill(outputs, exposure)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_strips_make_the_same_file_of_a_match(tmp_path, still):
    matched = psfmatch.match(*MATCH, solver=psfmatch.FreeForm(size=11, tolerance=0.1))
    write_matched(matched, tmp_path / "a.fits")
    with matched_output(matched, tmp_path / "b.fits") as outputs:
        assert all(in_file(plane) for plane in (outputs.image, outputs.variance, outputs.mask))
        fill(outputs, matched.exposure)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert not outputs.image.flags.writeable
    np.testing.assert_array_equal(read_kernel(tmp_path / "b.fits").basis, matched.kernel.basis)
    assert read_quality(tmp_path / "b.fits").residual.size == matched.quality.residual.size


def test_from_file_to_file_takes_no_plane_of_memory(tmp_path):
    ones = np.ones((1500, 1103), "f4")
    write_exposure(Exposure(ones, variance=ones, mask=Mask(np.zeros(ones.shape, "i4"))), tmp_path / "a.fits")

    def copy(name):
        exposure = read_exposure(tmp_path / "a.fits", memmap=True)
        with exposure_output(exposure, tmp_path / name) as outputs:
            fill(outputs, exposure)
        return 3 * exposure.image.nbytes

    copy("b.fits")  # what is loaded at the first use does not count
    tracemalloc.start()
    try:
        planes_bytes = copy("c.fits")
        assert tracemalloc.get_traced_memory()[1] < 0.05 * planes_bytes
    finally:
        tracemalloc.stop()


def test_a_failure_between_the_strips_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("dear to me")
    with pytest.raises(FileExistsError, match="overwrite"), exposure_output(make_exposure(), path):
        pass
    with (
        pytest.raises(FileNotFoundError, match=r"nowhere\.fits"),
        exposure_output(make_exposure(), path, overwrite=True),
    ):
        (tmp_path / "nowhere.fits").read_bytes()
    assert path.read_text() == "dear to me"
    assert os.listdir(tmp_path) == ["a.fits"]


def test_a_full_disk_is_found_before_the_first_strip(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (28800, hard))
    try:
        with (
            pytest.raises(OSError, match=r"nothing was written: .*a\.fits"),
            exposure_output(make_exposure(), tmp_path / "a.fits"),
        ):
            pytest.fail("there is no place for it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_matched_strip_by_strip_to_the_same_bits(tmp_path):
    """On the command line: the planes are those of a match in memory, whatever the threads."""
    write_exposure(make_exposure((301, 274)), tmp_path / "a.fits")
    base = ["match", str(tmp_path / "a.fits"), "--psf", "moffat:fwhm=4,beta=3", "-t", "gaussian:fwhm=6", "--set"]
    for name, *options in (("whole", "--no-memmap"), ("strips", "--memmap", "--set", "convolver.threads=1")):
        done = CliRunner().invoke(main, [*base, "convolver.block=96", "-o", str(tmp_path / f"{name}.fits"), *options])
        assert done.exit_code == 0, done.output
    whole, strips = (read_exposure(tmp_path / f"{name}.fits") for name in ("whole", "strips"))
    assert_same(whole, strips)
    assert whole.mask.any_of("EDGE").any()
    residuals = [read_quality(tmp_path / f"{name}.fits").residual for name in ("whole", "strips")]
    np.testing.assert_array_equal(*residuals)


def test_matching_a_mapped_frame_takes_no_plane_of_memory(tmp_path):
    shape = 2503, 3001
    ones = np.ones(shape, "f4")
    write_exposure(Exposure(ones, variance=ones, psf=PSF), tmp_path / "a.fits")
    exposure = read_exposure(tmp_path / "a.fits", memmap=True)
    plan = psfmatch.planned_match(exposure, "moffat:fwhm=5,beta=3")
    tracemalloc.start()
    try:
        with matched_output(plan, tmp_path / "b.fits") as planes:
            psfmatch.convolve(exposure, plan.kernel, convolver=FFT(out=planes, threads=2))
        assert tracemalloc.get_traced_memory()[1] < 1.2 * ones.nbytes  # of the three planes
    finally:
        tracemalloc.stop()
