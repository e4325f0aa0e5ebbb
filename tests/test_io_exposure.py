"""Exposures from the layouts of surveys, and what damaged files say."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable

from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.io import exposures_in, read_exposure, write_exposure
from psfmatch.io.exposures import _check_image
from psfmatch.io.frame_formats.base import Plane
from psfmatch.psf import BasisPSF, GaussianPSF

DECAM = Path(__file__).parent / "data" / "decam"
IMAGE = DECAM / "c4d_170419_042827_ooi_z_ls9.S1.fits.gz"
SHAPE = (23, 17)
rng = np.random.default_rng(20)
PIXELS = rng.normal(100.0, 9.0, SHAPE).astype("f4")
VARIANCE = rng.uniform(50.0, 90.0, SHAPE).astype("f4")


def write(path, *planes, primary=None, compressed=False):
    """A file with planes (name, array, header cards)."""
    hdus = [fits.PrimaryHDU(header=fits.Header(primary or {}))]
    for name, array, cards in planes:
        kind = fits.CompImageHDU if compressed else fits.ImageHDU
        hdus.append(kind(np.array(array), fits.Header(cards), name=name))
    fits.HDUList(hdus).writeto(path)
    return path


def raw(path):
    with fits.open(path) as hdus:
        return hdus[1].data.astype(hdus[1].data.dtype.newbyteorder("="))


def test_decam_triplet(caplog):
    with caplog.at_level(logging.INFO, logger="psfmatch.io"):
        exposure = read_exposure(IMAGE)
    assert {record.message.split(": ")[1] for record in caplog.records if "found" in record.message} == {
        "weight found beside it", "mask found beside it", "psf found beside it",
    }  # fmt: skip
    np.testing.assert_array_equal(exposure.image, raw(IMAGE))
    weight = raw(DECAM / "c4d_170419_042827_oow_z_ls9.S1.fits.gz")
    np.testing.assert_allclose(exposure.variance[weight > 0] * weight[weight > 0], 1.0, rtol=1e-6)
    assert np.isposinf(exposure.variance[weight == 0]).all()
    codes = raw(DECAM / "c4d_170419_042827_ood_z_ls9.S1.fits.gz")
    assert set(np.unique(codes)) == {0, 1, 5}
    np.testing.assert_array_equal(exposure.mask.any_of("BAD"), codes == 1)
    np.testing.assert_array_equal(exposure.mask.any_of("CR"), codes == 5)
    assert (exposure.mask.array[codes == 0] == 0).all()
    assert isinstance(exposure.psf, BasisPSF)
    # LTV1 of this cut-out points into the detector, but its PSF model counts from the cut-out's own first pixel
    assert exposure.box == Box.from_shape(codes.shape)
    assert exposure.pixel_scale == pytest.approx(0.262, abs=2e-3)
    assert exposure.image.dtype == np.dtype("f4")
    assert exposure.meta["EXPTIME"] == 209.0
    assert exposure.meta["CCDNUM"] == 25
    assert not {"NAXIS1", "CRPIX1", "PV1_1", "EXTNAME", "BITPIX"} & set(exposure.meta)


def test_companions_given_come_first_and_none_are_sought_for_plain(tmp_path):
    flat = write(tmp_path / "flat.fits", ("", np.full((250, 181)[::-1], 4.0), {}))
    exposure = read_exposure(IMAGE, variance=flat, psf="gaussian:fwhm=1.31arcsec")
    assert (exposure.variance == 4.0).all()
    assert exposure.psf.fwhm == pytest.approx(1.31 / exposure.pixel_scale)
    plain = read_exposure(IMAGE, format="plain")
    assert plain.variance is None
    assert plain.psf is None
    assert not plain.mask.array.any()


def test_rubin_layout_keeps_planes_bits_and_place(tmp_path):
    mask = rng.integers(0, 1 << 12, SHAPE).astype("i4")
    place = {"LTV1": -300, "LTV2": 40}
    cards = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5, "HIERARCH MP_STREAK": 11, **place}
    path = write(
        tmp_path / "a.fits",
        ("IMAGE", PIXELS, {"BUNIT": "nJy", **place}),
        ("MASK", mask, cards),
        ("VARIANCE", VARIANCE, place),
    )
    exposure = read_exposure(path)
    assert exposure.box == Box.from_shape(SHAPE, y0=-40, x0=300)
    assert exposure.unit == "nJy"
    assert dict(exposure.mask.planes) == {"BAD": 0, "SAT": 1, "DETECTED": 5, "STREAK": 11}
    np.testing.assert_array_equal(exposure.mask.array, mask)
    np.testing.assert_array_equal(exposure.variance, VARIANCE)


def test_jwst_layout(tmp_path):
    dq = np.zeros(SHAPE, "u4")
    dq[2, 3], dq[4, 5], dq[6, 7], dq[8, 9] = 1, 2 | 4, 2**31, 1 | 2**30
    error = np.sqrt(VARIANCE)
    error[0, 16] = 0.0
    path = write(
        tmp_path / "a.fits", ("SCI", PIXELS, {"BUNIT": "MJy/sr"}), ("ERR", error, {}), ("DQ", dq, {}),
        primary={"TELESCOP": "JWST"},
    )  # fmt: skip
    exposure = read_exposure(path)
    assert np.isposinf(exposure.variance[0, 16])
    assert exposure.mask.any_of("NO_DATA")[0, 16]
    error[0, 16] = np.inf
    np.testing.assert_allclose(exposure.variance, error**2, rtol=1e-6)
    np.testing.assert_array_equal(exposure.mask.any_of("BAD"), dq & 1 != 0)
    np.testing.assert_array_equal(exposure.mask.any_of("SAT"), dq & 2 != 0)
    for bit, name in ((2, "JUMP_DET"), (30, "OTHER_BAD_PIXEL"), (31, "REFERENCE_PIXEL")):
        np.testing.assert_array_equal(exposure.mask.any_of(name), dq >> bit & 1 != 0)


def test_hst_layout_and_its_second_chip(tmp_path):
    dq = np.zeros(SHAPE, "i2")
    dq[1, 2], dq[3, 4], dq[5, 6], dq[7, 8], dq[9, 10] = 256, 4096, 4, 64, -32768
    planes = [("SCI", PIXELS, {"EXTVER": 1}), ("SCI", PIXELS + 5, {"EXTVER": 2}), ("DQ", dq, {"EXTVER": 2})]
    path = write(tmp_path / "flt.fits", *planes, primary={"TELESCOP": "HST"})
    mask = read_exposure(f"{path}[SCI,2]").mask
    assert [mask.any_of(name).nonzero() for name in ("SAT", "CR", "BAD", "WARM", "DQ15")] == [
        ([1], [2]), ([3], [4]), ([5], [6]), ([7], [8]), ([9], [10]),
    ]  # fmt: skip
    with pytest.warns(PsfMatchWarning, match=r"holds 2 images; read HDU 1 'SCI'. Choose another as flt\.fits\[2\]"):
        first = read_exposure(path)
    np.testing.assert_array_equal(first.image, PIXELS)
    assert not first.mask.array.any()


@pytest.mark.parametrize(
    ("cards", "format", "bad", "saturated"),
    [
        ({"PLVER": "V4.8", "PROCTYPE": "InstCal"}, None, {1}, {3, 4}),
        ({"PLVER": "V3.2.1", "PROCTYPE": "InstCal"}, None, {1, 3, 5, 7}, {2, 3, 6, 7}),
        ({}, "decam", {1}, {3, 4}),
        ({}, "des", {1, 3, 5, 7, 8}, {2, 3, 6, 7}),
        ({}, None, {1, 2, 3, 4, 5, 6, 7, 8}, set()),
        ({}, "rubin", {1, 3, 5, 7}, {2, 3, 6, 7}),
    ],
)
def test_mask_companion_is_read_by_its_convention(tmp_path, cards, format, bad, saturated):
    values = np.zeros(SHAPE, "i2")
    values[11, :9] = np.arange(9)
    image = write(tmp_path / "a.fits", ("", PIXELS, {}))
    mask = read_exposure(image, mask=write(tmp_path / "m.fits", ("", values, cards)), format=format).mask
    assert set(values[mask.any_of("BAD")]) == bad
    assert set(values[mask.any_of("SAT")]) == saturated
    assert not mask.array[values == 0].any()


def test_weight_zero_means_no_information(tmp_path):
    weight, flags = 1 / VARIANCE, np.zeros(SHAPE, "i4")
    weight[2:5, 6] = 0.0
    flags[2, 6] = 2
    image = write(tmp_path / "a.fits", ("", PIXELS, {}))
    companions = {
        "weight": write(tmp_path / "w.fits", ("", weight, {})),
        "mask": write(tmp_path / "m.fits", ("", flags, {})),
    }
    exposure = read_exposure(image, **companions, format="rubin")
    assert np.isposinf(exposure.variance[2:5, 6]).all()
    np.testing.assert_allclose(exposure.variance[weight > 0], VARIANCE[weight > 0], rtol=1e-6)
    np.testing.assert_array_equal(np.argwhere(exposure.mask.any_of("NO_DATA")), [[3, 6], [4, 6]])


@pytest.mark.parametrize("name", ["a.fits.gz", "a.fits.fz", "a.fits"])
def test_compressed_and_scaled_integers(tmp_path, name):
    counts = rng.integers(0, 60000, SHAPE).astype("u2")
    path = write(tmp_path / name, ("N4", counts, {"BUNIT": "adu"}), compressed=name.endswith(".fz"))
    exposure = read_exposure(path)
    assert exposure.image.dtype == np.dtype("f4")
    np.testing.assert_array_equal(exposure.image, counts)
    assert exposure.unit == "adu"
    assert exposure.variance is None


def test_lossy_weight_scattered_about_zero(tmp_path):
    image = write(tmp_path / "a.fits", ("", PIXELS, {}))
    weight = np.full(SHAPE, -1e-4, "f4")
    weight[3:] = 1 / VARIANCE[3:]
    write(tmp_path / "w.fits.fz", ("", weight, {}), compressed=True)
    exposure = read_exposure(image, weight=tmp_path / "w.fits.fz")
    assert np.isposinf(exposure.variance[:3]).all()
    with pytest.raises(InputError, match=r"w\.fits: the inverse variance is negative in 51 pixels"):
        read_exposure(image, weight=write(tmp_path / "w.fits", ("", weight, {})))


def test_extension_of_image_and_companions_go_together(tmp_path):
    names = ("N4", "S7")
    image = write(tmp_path / "i.fits", *((name, PIXELS + k, {}) for k, name in enumerate(names)))
    weight = write(tmp_path / "w.fits", *((name, 1 / (VARIANCE + k), {}) for k, name in enumerate(names)))
    exposure = read_exposure(f"{image}[S7]", weight=weight)
    np.testing.assert_array_equal(exposure.image, PIXELS + 1)
    np.testing.assert_allclose(exposure.variance, VARIANCE + 1, rtol=1e-6)
    with pytest.raises(FormatError, match=r"no extension 'S8'; it has 0 PRIMARY, 1 N4, 2 S7"):
        read_exposure(f"{image}[S8]")


TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": 1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4}


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE2": "DEC--SIN"},
        {"CD1_1": 0.0, "CD2_2": 0.0},
        {"CD1_2": 1e-4, "CD2_1": 1e-4},
        {"CRVAL1": "12.5"},
        {"WCSAXES": 65536},
        {"CPDIS2": "Polynomial"},
    ],
)
def test_broken_wcs_costs_the_wcs_only(tmp_path, cards):
    path = write(tmp_path / "a.fits", ("SCI", PIXELS, TAN | cards))
    with pytest.warns(PsfMatchWarning, match=r"a\.fits: the WCS cannot be used"):
        exposure = read_exposure(path)
    assert exposure.wcs is None
    np.testing.assert_array_equal(exposure.image, PIXELS)
    with pytest.raises(InputError, match="give an image with a WCS"), pytest.warns(PsfMatchWarning):
        read_exposure(path, psf="gaussian:fwhm=1arcsec")


def test_an_inherited_wcs_is_read(tmp_path):
    """FITS 4.0, section 4.4.2.6; astropy's WCS does not see it."""
    frame = {"RADESYS": "FK5", "EQUINOX": 1950.0}
    own = {**TAN, "CRVAL1": 12.5, "CRVAL2": -31.0}
    for primary, extension in (({**own, **frame}, {}), (frame, own)):
        path = tmp_path / f"{len(primary)}.fits"
        empty = fits.PrimaryHDU(header=fits.Header(primary))
        fits.HDUList([empty, fits.ImageHDU(PIXELS, fits.Header({"INHERIT": True, **extension}))]).writeto(path)
        exposure = read_exposure(path)
        assert (exposure.wcs.wcs.radesys, exposure.wcs.wcs.equinox) == ("FK5", 1950.0)
        assert exposure.wcs.wcs.crval.tolist() == [12.5, -31.0]
        assert not {"RADESYS", "EQUINOX", "CRVAL1"} & exposure.meta.keys()


@pytest.mark.parametrize("form", ["PC1_{}", "PC01_0{}", "PC00100{}", "CD1_{}", "PV1_0{}", "PROJP{}"])
def test_cards_of_the_wcs_are_not_in_the_meta_data(tmp_path, form):
    """Beside the WCS that another frame is given, they would turn it."""
    card = form.format(1)
    cards = {key: value for key, value in TAN.items() if not key.startswith("CD")} if "PC" in form else TAN
    exposure = read_exposure(write(tmp_path / "a.fits", ("SCI", PIXELS, {**cards, card: 1e-4, "FILTER": "r"})))
    assert exposure.wcs is not None
    assert exposure.meta["FILTER"] == "r"
    assert card not in exposure.meta


def test_psf_given_as_model(tmp_path):
    psf = GaussianPSF(fwhm=3.0)
    assert read_exposure(write(tmp_path / "a.fits", ("", PIXELS, {})), psf=psf).psf is psf


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_a_cut_file_is_an_error_wherever_it_is_cut(tmp_path, suffix):
    planes = [("IMAGE", PIXELS, {}), ("MASK", np.zeros(SHAPE, "i4"), {}), ("VARIANCE", VARIANCE, {})]
    whole = write(tmp_path / f"whole.{suffix}", *planes, compressed=suffix.endswith("fz")).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in np.linspace(1, len(whole) - 1, 41).astype(int):
        if length % 2880 == 0 and not suffix.endswith("gz"):
            continue  # a file may rightly end there
        cut.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"cut\.fits"):
            read_exposure(cut)


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
def test_a_header_that_claims_the_moon_is_refused(tmp_path, suffix):
    compressed = suffix.endswith("fz")
    path = write(tmp_path / "small.fits", ("IMAGE", PIXELS, {}), compressed=compressed)
    content = path.read_bytes()
    for axis, length in ((1, 17), (2, 23)):
        card = f"{'Z' if compressed else ''}NAXIS{axis}".ljust(8) + "= "
        content = content.replace(f"{card}{length:20d}".encode(), f"{card}{10**9:20d}".encode())
    path = tmp_path / f"moon.{suffix}"
    if suffix.endswith("gz"):
        import gzip

        content = gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"moon\.fits"):
        read_exposure(path)


def files(tmp_path):
    image = write(tmp_path / "image.fits", ("", PIXELS, {}))
    one = write(tmp_path / "one.fits", ("", np.ones((1, 1)), {}))
    other = write(tmp_path / "other.fits", ("", np.ones(SHAPE[::-1]), {}))
    negative = write(tmp_path / "negative.fits", ("", -VARIANCE, {}))
    floats = write(tmp_path / "floats.fits", ("", np.zeros(SHAPE), {}))
    (tmp_path / "text.fits").write_text("not FITS at all")
    (tmp_path / "empty.fits").touch()
    return image, one, other, negative, floats


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"path": "one"}, InputError, r"one\.fits: the image has one pixel"),
        (
            {"path": "image", "variance": "other"},
            InputError,
            r"other\.fits: shape \(17, 23\) .*image\.fits of shape \(23, 17\)",
        ),
        (
            {"path": "image", "variance": "negative"},
            InputError,
            r"negative\.fits: the variance is negative in 391 pixels",
        ),
        ({"path": "image", "mask": "floats"}, InputError, r"floats\.fits: the mask is of dtype float64"),
        ({"path": "image", "mask": "missing"}, FileNotFoundError, r"missing\.fits"),
        ({"path": "image", "variance": "floats", "weight": "floats"}, InputError, "not both"),
        ({"path": "image", "psf": "missing"}, FileNotFoundError, r"missing\.fits"),
        ({"path": "text"}, FormatError, r"text\.fits"),
        ({"path": "empty"}, FormatError, r"empty\.fits: the file is empty"),
        ({"path": "missing"}, FileNotFoundError, r"missing\.fits: no such file"),
    ],
)
def test_bad_input_names_the_file(tmp_path, arguments, error, says):
    files(tmp_path)
    with pytest.raises(error, match=says):
        read_exposure(**{key: str(tmp_path / f"{value}.fits") for key, value in arguments.items()})


def test_no_image_at_all(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "none.fits")
    with pytest.raises(FormatError, match=r"none\.fits: holds no two-dimensional image"):
        read_exposure(tmp_path / "none.fits")
    only = write(tmp_path / "only.fits", ("VARIANCE", VARIANCE, {}))
    with pytest.raises(FormatError, match="its HDUs: PRIMARY, VARIANCE"):
        read_exposure(only)
    with pytest.raises(InputError, match="choose one of casu, ccddata, decam, des, generic, hst"):
        read_exposure(only, format="noao")


def test_an_unreadable_companion_found_by_name_is_not_passed_over(tmp_path):
    for path in DECAM.iterdir():
        shutil.copy(path, tmp_path)
    weight = tmp_path / "c4d_170419_042827_oow_z_ls9.S1.fits.gz"
    weight.write_bytes(weight.read_bytes()[:-5])
    with pytest.raises(FormatError, match="_oow_"):
        read_exposure(tmp_path / IMAGE.name)


@pytest.mark.parametrize("tile", [(60, 48), (20, 48), (25, 20)])
def test_hcompress_is_read_whatever_its_tiles(tmp_path, tile):
    image = np.random.default_rng(1).normal(1000.0, 30.0, (60, 48)).astype(np.int32)
    packed = fits.CompImageHDU(image, compression_type="HCOMPRESS_1", tile_shape=tile, hcomp_scale=0)
    packed.writeto(tmp_path / "packed.fits")
    np.testing.assert_array_equal(read_exposure(tmp_path / "packed.fits", format="plain").image, image)


@pytest.mark.parametrize("said", [-64, 0, 3, 8])
def test_bytes_a_pixel_that_rice_does_not_know_are_refused(tmp_path, said):
    """Astropy's decoder would write 4 bytes into room for as many."""
    path = write(tmp_path / "a.fits.fz", ("", np.arange(6 * 8, dtype=np.int32).reshape(6, 8), {}), compressed=True)
    content = path.read_bytes()
    at = content.index(b"ZVAL2   =")
    path.write_bytes(content[:at] + f"ZVAL2   = {said:20d}".ljust(80).encode() + content[at + 80 :])
    with pytest.raises(FormatError, match=f"{said} bytes a pixel"):
        read_exposure(path)


def test_an_hcompress_tile_of_another_size_is_refused(tmp_path):
    """astropy's decoder writes as many pixels as the tile says that it has, beyond the memory that it was given."""
    path = tmp_path / "packed.fits"
    image = np.arange(60 * 48, dtype=np.int32).reshape(60, 48)
    fits.CompImageHDU(image, compression_type="HCOMPRESS_1", tile_shape=(60, 48), hcomp_scale=0).writeto(path)
    content = path.read_bytes()
    size = (60).to_bytes(4, "big") + (48).to_bytes(4, "big")
    assert content.count(b"\xdd\x99" + size) == 1
    path.write_bytes(content.replace(b"\xdd\x99" + size, b"\xdd\x99" + size[:3] + b"\xff" + size[4:]))
    with pytest.raises(FormatError, match=r"packed.fits: tile 0 of a compressed image is damaged"):
        read_exposure(path, format="plain")


def test_a_companion_by_number_where_names_say_nothing(tmp_path):
    """Of several images without names in each of two files, those of one number belong together."""
    planes = [np.full((9, 11), float(k), np.float32) for k in range(1, 4)]
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, planes)]).writeto(tmp_path / "a.fits")
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(10 * p) for p in planes)]).writeto(tmp_path / "v.fits")
    exposure = read_exposure(f"{tmp_path}/a.fits[2]", variance=tmp_path / "v.fits")
    assert (exposure.image[3, 4], exposure.variance[3, 4]) == (2.0, 20.0)
    chosen = read_exposure(f"{tmp_path}/a.fits[2]", variance=f"{tmp_path}/v.fits[3]")
    assert chosen.variance[3, 4] == 30.0


def test_cards_and_world_coordinates_that_cannot_be_kept(tmp_path):
    """A card that breaks the standard costs itself; a distortion table is not written, and it is said."""
    fits.PrimaryHDU(np.ones((9, 11)), fits.Header({"FIRST": 1, "GAIN": 2.5})).writeto(tmp_path / "a.fits")
    content = (
        (tmp_path / "a.fits").read_bytes().replace(b"FIRST   =                    1", b"FI ST   = (1, x" + b" " * 15)
    )
    (tmp_path / "b.fits").write_bytes(content)
    assert read_exposure(tmp_path / "b.fits").meta == {"GAIN": 2.5}
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (30.0, -20.0), (-1e-4, 1e-4)
    wcs.cpdis1 = DistortionLookupTable(np.zeros((3, 4), np.float32), (1, 1), (1, 1), (4, 3))
    with pytest.warns(PsfMatchWarning, match="the WCS has distortion tables, which are not written"):
        write_exposure(Exposure(np.ones((9, 11)), wcs=wcs), tmp_path / "c.fits")
    again = read_exposure(tmp_path / "c.fits").wcs
    assert again.cpdis1 is None
    np.testing.assert_allclose(again.wcs.crval, (30.0, -20.0))


def test_a_cube_is_no_image(tmp_path):
    fits.PrimaryHDU(np.ones((3, 9, 11))).writeto(tmp_path / "cube.fits")
    with pytest.raises(FormatError, match=r"cube\.fits"):
        read_exposure(tmp_path / "cube.fits")


def test_planes_of_no_numbers_and_files_of_no_image_are_refused(tmp_path):
    """Complex numbers in the image or its variance, a companion that is a table, and an ASDF file's one exposure."""
    complex_, real = PIXELS.astype("c8"), tmp_path / "r.fits"
    fits.PrimaryHDU(PIXELS).writeto(real)
    fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])]).writeto(tmp_path / "t.fits")
    with pytest.raises(FormatError, match=r"t\.fits: holds no two-dimensional image"):
        read_exposure(real, variance=tmp_path / "t.fits")
    with pytest.raises(InputError, match="the image is of dtype complex64; give real numbers"):
        _check_image(Plane(complex_, fits.Header(), real), [])
    with pytest.raises(FormatError, match=r"the image has the shape \(2, 23, 17\); give one of two axes"):
        _check_image(Plane(np.stack([PIXELS, PIXELS]), fits.Header(), real), [])
    (tmp_path / "a.asdf").write_bytes(b"#ASDF 1.0.0\n")
    assert exposures_in(tmp_path / "a.asdf") == [str(tmp_path / "a.asdf")]
    assert exposures_in(f"{real}[0]") == [f"{real}[0]"]


def test_more_planes_than_a_mask_has_room_for_make_it_wider():
    """No flag is lost, and each has a bit of its own."""
    flags = np.zeros(SHAPE, np.int8)
    flags[3, 4], flags[5, 6] = 1, 1 << 6
    mask = Mask(flags, {"ONE": 0, "LAST": 6})
    wide = mask.with_planes(tuple(f"P{k}" for k in range(9)))
    assert wide.array.dtype.itemsize > mask.array.dtype.itemsize
    assert len(set(wide.planes.values())) == 11
    for name in ("ONE", "LAST"):
        np.testing.assert_array_equal(wide.any_of(name), mask.any_of(name))
    assert not wide.any_of(*(f"P{k}" for k in range(9))).any()
    assert mask.with_planes(("ONE",)).array.dtype == np.int8


def test_an_exposure_without_a_psf_as_ccddata():
    data = Exposure(PIXELS, variance=VARIANCE, unit="adu").to_ccddata()
    assert data.psf is None
    np.testing.assert_array_equal(data.uncertainty.array, VARIANCE)
