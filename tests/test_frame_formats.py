"""Frames of other observatories, in files of their documented layouts or of independent writers."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

import psf_files
from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.io import MaskConvention, exposures_in, frame_formats, read_exposure, read_psf
from psfmatch.io.exposures import files_of_exposure
from psfmatch.io.frame_formats import FrameSource
from psfmatch.psf import GaussianPSF

SHAPE = (23, 17)
rng = np.random.default_rng(61)
PIXELS = rng.normal(100.0, 9.0, SHAPE).astype("f4")
WEIGHT = rng.uniform(0.5, 3.0, SHAPE).astype("f4")
DATA = Path(__file__).parent / "data"


def save(path, *hdus, **primary):
    path.parent.mkdir(exist_ok=True)
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary)), *hdus]).writeto(path)
    return path


def found(path):
    """The name of the format that takes a file for its own."""
    with FrameSource(path) as source:
        return next(known.name for known in frame_formats() if known.recognises(source))


# ---- SDSS

SKY = np.add.outer(np.arange(5) * 2.0, np.arange(4) * 0.5) + 100.0
ROWS, COLUMNS = (np.arange(SHAPE[0]) + 0.5) * 5 / SHAPE[0] - 0.5, (np.arange(SHAPE[1]) + 0.5) * 4 / SHAPE[1] - 0.5
CALIBRATION = np.linspace(0.004, 0.005, SHAPE[1]).astype("f4")


def sdss(path, **cards):
    columns = [
        fits.Column("ALLSKY", "20E", dim="(4,5)", array=SKY[None]),
        fits.Column("XINTERP", f"{SHAPE[1]}E", array=COLUMNS[None]),
        fits.Column("YINTERP", f"{SHAPE[0]}E", array=ROWS[None]),
    ]
    header = fits.Header({"RUN": 1000, "CAMCOL": 1, "FILTER": "r", "NMGY": 0.0045} | cards)
    hdus = [fits.PrimaryHDU(0.01 * PIXELS, header), fits.ImageHDU(CALIBRATION), fits.BinTableHDU.from_columns(columns)]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize(
    ("cards", "gain", "dark"),
    [
        ({}, 4.71, 1.8225),
        ({"CAMCOL": 2, "FILTER": "u", "RUN": 1000}, 1.595, 12.6025),
        ({"CAMCOL": 2, "FILTER": "u", "RUN": 1101}, 1.825, 12.6025),
        ({"CAMCOL": 4, "FILTER": "z", "RUN": 1501}, 4.775, 12.6025),
    ],
)
def test_an_sdss_frame_has_its_variance_from_sky_and_calibration(tmp_path, cards, gain, dark):
    exposure = read_exposure(sdss(tmp_path / "frame.fits", **cards))
    y, x = 11, 6
    j, i = (max(0, int(np.floor(at))) for at in (ROWS[y], COLUMNS[x]))
    t, s = ROWS[y] - j, COLUMNS[x] - i
    sky = (1 - t) * ((1 - s) * SKY[j, i] + s * SKY[j, i + 1]) + t * ((1 - s) * SKY[j + 1, i] + s * SKY[j + 1, i + 1])
    counts = 0.01 * float(PIXELS[y, x]) / float(CALIBRATION[x]) + sky
    assert exposure.variance[y, x] == pytest.approx((counts / gain + dark) * float(CALIBRATION[x]) ** 2, rel=1e-5)
    assert exposure.unit == "nanomaggy"
    assert not exposure.mask.array.any()


def test_an_sdss_frame_of_no_camera_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"frame\.fits: CAMCOL 7 and FILTER 'r' name no CCD"):
        read_exposure(sdss(tmp_path / "frame.fits", CAMCOL=7))


def test_an_fpc_frame_loses_its_bias(tmp_path):
    path = tmp_path / "fpC-001000-r1-0100.fit"
    fits.PrimaryHDU(np.uint16(1000 + PIXELS), fits.Header({"SOFTBIAS": 1000})).writeto(path)
    np.testing.assert_allclose(read_exposure(path).image, np.floor(1000 + PIXELS) - 1000)


# ---- CASU: VISTA's pawprints


def test_a_pawprint_with_its_confidence_map(tmp_path):
    """Sixteen detectors; the confidence map, 100 for an average pixel, is named in a card."""
    confidence = np.clip(rng.normal(100, 8, (16, *SHAPE)), 60, 120).astype("i2")
    confidence[:, 3:5, 2] = 0
    images = [
        fits.ImageHDU(
            PIXELS + k,
            fits.Header({"CIR_CPM": f"flat_conf.fit[{k + 1}]", "SKYNOISE": 5.0 + k}),
            name=f"DET1.CHIP{k + 1}",
        )
        for k in range(16)
    ]
    maps = [fits.ImageHDU(c, name=f"DET1.CHIP{k + 1}") for k, c in enumerate(confidence)]
    path = save(tmp_path / "pawprint.fit", *images)
    save(tmp_path / "flat_conf.fit", *maps)
    assert found(path) == "casu"
    chips = exposures_in(path)
    assert chips == [f"{path}[{k}]" for k in range(1, 17)]
    for name, k in ((chips[6], 6), (f"{path}[DET1.CHIP16]", 15)):
        exposure = read_exposure(name)
        good = confidence[k] > 0
        np.testing.assert_array_equal(exposure.image, PIXELS + k)
        np.testing.assert_allclose(exposure.variance[good], (5.0 + k) ** 2 * 100.0 / confidence[k][good], rtol=1e-6)
        assert np.isposinf(exposure.variance[~good]).all()
        np.testing.assert_array_equal(exposure.mask.any_of("NO_DATA"), ~good)
    with pytest.warns(PsfMatchWarning, match="holds 16 images"):
        read_exposure(path)


def test_a_casu_image_without_its_noise_has_it_measured(tmp_path):
    noise = rng.normal(0, 3.0, (201, 151)).astype("f4")
    image = fits.ImageHDU(noise, fits.Header({"CASUVERS": "vista 1.3"}))
    save(tmp_path / "tile_conf.fit", fits.ImageHDU(np.full(noise.shape, 50, "i2")))
    exposure = read_exposure(save(tmp_path / "tile.fit", image))
    assert np.sqrt(np.median(exposure.variance)) == pytest.approx(3.0 * np.sqrt(2), rel=0.03)


# ---- legacypipe


def test_a_brick_of_legacypipe(tmp_path):
    bits = np.zeros(SHAPE, "i2")
    bits[2, 3], bits[4, 5], bits[6, 7], bits[8, 9], bits[9, 9] = 1 << 3, 1 << 6, 1 << 2, 1 << 11, 1
    names = {"image-r": PIXELS, "invvar-r": WEIGHT, "maskbits": bits}
    for name, array in names.items():
        hdu = fits.CompImageHDU(array, fits.Header({"BRICK": "0001m002"}), compression_type="GZIP_2", quantize_level=0)
        save(tmp_path / f"legacysurvey-0001m002-{name}.fits.fz", hdu)
    exposure = read_exposure(tmp_path / "legacysurvey-0001m002-image-r.fits.fz")
    every = {tmp_path / f"legacysurvey-0001m002-{name}.fits.fz" for name in names}
    assert set(files_of_exposure(tmp_path / "legacysurvey-0001m002-image-r.fits.fz")) == every
    np.testing.assert_allclose(exposure.variance, 1 / WEIGHT, rtol=1e-6)
    planes = {"SAT": (2, 3), "BAD": (4, 5), "SATUR_G": (6, 7), "MEDIUM": (8, 9), "NPRIMARY": (9, 9)}
    for plane, at in planes.items():
        assert np.argwhere(exposure.mask.any_of(plane)).tolist() == [list(at)]
    assert exposure.unit == "nanomaggy"


# ---- astropy's CCDData, written by astropy


@pytest.mark.parametrize(
    ("uncertainty", "variance"),
    [
        (StdDevUncertainty(np.sqrt(WEIGHT)), WEIGHT),
        (VarianceUncertainty(WEIGHT), WEIGHT),
        (InverseVariance(1 / WEIGHT), WEIGHT),
        (None, None),
    ],
)
def test_files_of_ccddata(tmp_path, uncertainty, variance):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix = (
        ["RA---TAN", "DEC--TAN"],
        [9.0, -30.0],
        [-1e-4, 1e-4],
        [3, 5],
    )
    stamp = np.exp(-0.5 * np.add.outer((np.arange(9) - 4) ** 2 / 4.0, (np.arange(7) - 3) ** 2 / 2.0))
    data = CCDData(
        PIXELS, unit="electron", uncertainty=uncertainty, mask=PIXELS > 110, psf=stamp / stamp.sum(), wcs=wcs
    )
    data.meta["EXPTIME"] = 12.5
    path = tmp_path / "ccd.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write(path)
    exposure = read_exposure(path)
    assert found(path) == "ccddata"
    np.testing.assert_array_equal(exposure.image, PIXELS)
    if variance is None:
        assert exposure.variance is None
    else:
        np.testing.assert_allclose(exposure.variance, variance, rtol=1e-6)
    np.testing.assert_array_equal(exposure.mask.any_of("BAD"), PIXELS > 110)
    np.testing.assert_allclose(exposure.psf.stamps(x=0, y=0)[0], stamp / stamp.sum())
    assert exposure.unit == "electron"
    assert exposure.meta["EXPTIME"] == 12.5
    assert exposure.pixel_scale == pytest.approx(0.36)


@pytest.mark.parametrize("unit", ["adu", "counts of Joe", None])
def test_an_exposure_as_ccddata_can_be_written_by_astropy(tmp_path, unit):
    mask = Mask(np.where(PIXELS > 110, 4, 0), {"BAD": 0, "STREAK": 2})
    given = Exposure(
        PIXELS, variance=WEIGHT, mask=mask, unit=unit, box=Box.from_shape(SHAPE, y0=-3, x0=7), meta={"EXPTIME": 12.5},
        psf=GaussianPSF(fwhm=3.0, ellipticity=0.2),
    )  # fmt: skip
    path = tmp_path / "ccd.fits"
    given.to_ccddata().write(path)
    again = read_exposure(path)
    np.testing.assert_array_equal(again.image, PIXELS)
    np.testing.assert_array_equal(again.variance, WEIGHT)
    np.testing.assert_array_equal(again.mask.any_of("BAD"), PIXELS > 110)
    assert (again.box, again.unit, again.meta) == (given.box, unit, {"EXPTIME": 12.5})
    assert again.psf.shape == given.psf.shape


# ---- HST and Roman


def test_what_wfc3s_infrared_channel_means(tmp_path):
    dq = np.zeros(SHAPE, "i2")
    dq[1, 2], dq[3, 4], dq[5, 6] = 2048, 512, 256
    hdus = [fits.ImageHDU(PIXELS, name="SCI"), fits.ImageHDU(np.sqrt(WEIGHT), name="ERR"), fits.ImageHDU(dq, name="DQ")]
    for detector, saturated, bad in (("IR", [[5, 6]], []), ("UVIS", [[1, 2], [5, 6]], [[3, 4]])):
        path = save(tmp_path / f"{detector}_flt.fits", *hdus, TELESCOP="HST", INSTRUME="WFC3", DETECTOR=detector)
        mask = read_exposure(path).mask
        assert np.argwhere(mask.any_of("SAT")).tolist() == saturated
        assert np.argwhere(mask.any_of("BAD")).tolist() == bad
        assert found(path) == "hst"


def roman(path, **changes):
    asdf = pytest.importorskip("asdf")
    dq = np.zeros(SHAPE, "u4")
    dq[1, 2], dq[3, 4], dq[5, 6] = 1, 2 | 16, 1 << 7
    meta = {"telescope": "ROMAN", "instrument": {"optical_element": "F158"}, "exposure": {"exposure_time": 139.8}}
    tree = {"data": PIXELS, "err": np.sqrt(WEIGHT), "dq": dq, "meta": meta} | changes
    asdf.AsdfFile({"roman": tree}).write_to(path)
    return path


def test_a_roman_image_in_asdf(tmp_path):
    exposure = read_exposure(roman(tmp_path / "r_cal.asdf"))
    np.testing.assert_array_equal(exposure.image, PIXELS)
    np.testing.assert_allclose(exposure.variance, WEIGHT, rtol=1e-6)
    for plane, at in {"BAD": (1, 2), "SAT": (3, 4), "GW_AFFECTED_DATA": (3, 4), "OUTLIER": (5, 6)}.items():
        assert np.argwhere(exposure.mask.any_of(plane)).tolist() == [list(at)]
    assert exposure.meta == {
        "telescope": "ROMAN",
        "instrument.optical_element": "F158",
        "exposure.exposure_time": 139.8,
    }
    assert exposure.wcs is None


def test_a_roman_image_of_older_pipelines(tmp_path):
    """With units, and the variances of the parts in place of the error."""
    pytest.importorskip("asdf_astropy")
    from astropy import units as u

    parts = {"err": None, "data": PIXELS * u.Unit("electron / s"), "var_poisson": WEIGHT, "var_rnoise": 0.5 * WEIGHT}
    path = roman(tmp_path / "r_cal.asdf", **parts)
    asdf = pytest.importorskip("asdf")
    with asdf.open(path, mode="rw") as file:
        del file["roman"]["err"]
        file.write_to(tmp_path / "old.asdf")
    exposure = read_exposure(tmp_path / "old.asdf")
    assert exposure.unit == "electron / s"
    np.testing.assert_allclose(exposure.variance, 1.5 * WEIGHT, rtol=1e-6)


def test_a_roman_wcs_is_followed_to_a_hundredth_of_a_pixel(tmp_path):
    pytest.importorskip("gwcs")
    pytest.importorskip("asdf_astropy")
    from astropy import coordinates
    from astropy import units as u
    from astropy.modeling import models
    from gwcs import WCS as GWCS
    from gwcs import coordinate_frames as cf

    bend = models.Polynomial2D(2, c1_0=1.0, c2_0=3e-6, c1_1=-2e-6, c0_0=0.0)
    bend_y = models.Polynomial2D(2, c0_1=1.0, c0_2=4e-6, c1_1=1e-6)
    scale = models.Scale(0.11 / 3600) & models.Scale(0.11 / 3600)
    shift = models.Shift(-8.0) & models.Shift(-11.0)
    sky = models.Pix2Sky_TAN() | models.RotateNative2Celestial(150.0, 2.0, 180.0)
    transform = shift | models.Mapping((0, 1, 0, 1)) | bend & bend_y | scale | sky
    detector = cf.Frame2D(name="detector", axes_names=("x", "y"), unit=(u.pix, u.pix))
    world = cf.CelestialFrame(reference_frame=coordinates.ICRS(), name="icrs")
    wcs = GWCS([(detector, transform), (world, None)])
    wcs.bounding_box = ((-0.5, SHAPE[1] - 0.5), (-0.5, SHAPE[0] - 0.5))
    meta = {"telescope": "ROMAN", "wcs": wcs}
    exposure = read_exposure(roman(tmp_path / "r_cal.asdf", meta=meta))
    x, y = np.array([0.0, 16.0, 5.0]), np.array([22.0, 3.0, 9.0])
    want = np.array(wcs(x, y))
    got = np.array(exposure.wcs.pixel_to_world_values(x, y))
    assert np.abs(got - want).max() < 0.01 * 0.11 / 3600
    assert exposure.pixel_scale == pytest.approx(0.11, rel=1e-3)


def test_asdf_files_that_are_not_romans(tmp_path):
    asdf = pytest.importorskip("asdf")
    asdf.AsdfFile({"spectrum": [1, 2]}).write_to(tmp_path / "a.asdf")
    with pytest.raises(FormatError, match=r"a\.asdf: is an ASDF file, but not of Roman"):
        read_exposure(tmp_path / "a.asdf")
    with pytest.raises(FormatError, match=r"r\.asdf: roman\.data has 3 axes"):
        read_exposure(roman(tmp_path / "r.asdf", data=np.zeros((4, *SHAPE))))
    whole = roman(tmp_path / "s.asdf").read_bytes()
    (tmp_path / "s.asdf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"s\.asdf: is cut off: a block of"):
        read_exposure(tmp_path / "s.asdf")


ARRAY = "!core/ndarray-1.1.0"
DOZEN = "!unit/quantity-1.2.0 {value: 12, unit: '', datatype: int64}"
ELSEWHERE = {
    "$ref": "{{$ref: '{}#/roman/data'}}",
    "block": f"{ARRAY} {{{{source: '{{}}', datatype: float32, byteorder: little, shape: [3, 4]}}}}",
    "untyped": f"{ARRAY} {{{{data: '{{}}'}}}}",
    "mask": f"{ARRAY} {{{{data: [[1, 2]], mask: {ARRAY} {{{{source: '{{}}', byteorder: little}}}}}}}}",
    "tagged": f"{ARRAY} {{{{source: !x '{{}}', byteorder: little}}}}",
    "key": f"{ARRAY} {{{{!x source: '{{}}', byteorder: little}}}}",
    "merged": f"{ARRAY} {{{{<<: {{{{source: '{{}}', byteorder: little}}}}}}}}",
}


@pytest.mark.parametrize("place", ["b.asdf", "{folder}/b.asdf", "file://{folder}/b.asdf", "http://127.0.0.1:9/b.asdf"])
@pytest.mark.parametrize("data", ELSEWHERE)
def test_asdf_files_that_point_elsewhere(tmp_path, monkeypatch, data, place):
    """Refused, and neither the other file nor an address is opened."""
    generic_io = pytest.importorskip("asdf.generic_io")
    roman(tmp_path / "b.asdf")
    place = place.format(folder=tmp_path)
    text = f"%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n---\nroman: {{data: {ELSEWHERE[data].format(place)}}}\n...\n"
    (tmp_path / "a.asdf").write_text(f"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n{text}")
    opened = []
    monkeypatch.setattr(generic_io, "get_file", lambda *_, **__: opened.append(_))
    with pytest.raises(FormatError, match=rf"a\.asdf: (points to '{place}|a key '(<<|source)' is not read)"):
        read_exposure(tmp_path / "a.asdf")
    assert not opened


def asdf_text(tree):
    return (
        f"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n---\nroman: {tree}\n...\n".encode()
    )


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "200 one in another"),
        ("{a: &a [x], b: {<<: [*a, *a]}}", "key '<<' is not read"),
        ("&a {b: *a}", "more than 1000000 nodes"),
        (f"{{x: {':1' * 300_000}}}".replace(": :1", ": 1"), "an integer of"),
        ("{x: !transform/identity-1.2.0 {n_dims: 1000000000}}", "transforms have 1e.09 inputs"),
        ("{x: !unit/unit-1.0.0 '10**99999999'}", r"'10\*\*99999999' is no unit"),
        ("{x: !unit/quantity-1.1.0 {value: 1.0, unit: 10**99999999}}", r"'10\*\*99999999' is no unit"),
        (f"{{data: {ARRAY} {{data: [a], datatype: [ascii, 2000000000]}}}}", "claim 2e.09 elements"),
        (f"{{data: {ARRAY} {{source: 0, shape: [4], shape: [5]}}}}", "says something twice"),
        (f"{{x: 3, {2**61 - 1}: 1}}", "a key '2305843009213693951' is not read"),
        ("{x: !fits/fits-1.0.0 [{header: [[NAXIS, 2147483647]]}]}", "fits-1.0.0' is not read; write the tree without"),
        ("{x: {=: !!str a}}", "a key '=' is not read"),
        (f"{{data: {ARRAY} {{source: 0, shape: [!!int {{=: !!str '10000'}}]}}}}", "a mapping .*:int' is not read"),
        (f"{{data: {ARRAY} {{source: 0, shape: [{DOZEN}]}}}}", "write plain lists"),
        (f"{{data: {ARRAY} {{source: 0, shape: [4], strides: ['8']}}}}", "'8' is not read where an integer is due"),
        (f"{{data: {ARRAY} {{source: 0, shape: [4], offset: 1.5}}}}", "'1.5' is not read where an integer is due"),
        (f"{{data: {ARRAY} {{source: 0, shape: [{'1, ' * 64} 9]}}}}", "has 65 axes; numpy has 64"),
        (f"{{data: {ARRAY} {{source: 0, shape: ['*', 3], strides: [0, 0]}}}}", "has strides; give its shape"),
        (f"{{data: {ARRAY} {{source: 0, datatype: [{'float64, ' * 999}], shape: [4000]}}}}", "claim 4e.06 elements"),
        (
            f"{{data: {ARRAY} {{data: [1.0], datatype: [{{datatype: float64, x: [1], shape: [9]}}]}}}}",
            "a column has more",
        ),
        (
            f"{{data: {ARRAY} {{data: [1.0], datatype: [{{datatype: int8, shape: [999, 999]}}]}}}}",
            "claim 9.98e.05 elem",
        ),
        (f"{{data: {ARRAY} {{data: [{'a, ' * 3000}], datatype: [ascii, 90000]}}}}", "claim 2.7e.08 elements"),
        (f"{{x: [&a {ARRAY} {{source: 0, shape: [2000]}}{', *a' * 2000}]}}", "claim 4e.06 elements"),
        (f"{{x: [{'a' * 20_000}{', b' * 10_000}]}}", "10001 items, and a text of 20000 characters"),
        (f"{{data: {ARRAY} {{data: [&a {ARRAY} {{source: 0}}, *a]}}}}", "write plain lists"),
        ("{x: !unit/quantity-1.1.0 {value: 1.0, unit: m, datatype: '(9,9)f8'}}", "of type '.9,9.f8' is not read"),
        ("{x: !unit/quantity-1.1.0 {value: 1 10**99999999, unit: m}}", r"'1 10\*\*99999999' is no unit"),
        (
            f"{{x: !transform/polynomial-1.2.0 {{coefficients: {ARRAY} {{data: [{'1, ' * 20_001}]}}}}}}",
            "have 2e.04 inputs",
        ),
        (f"{{x: !transform/polynomial-1.2.0 {{coefficients: [{'1, ' * 20_001}]}}}}", "have 2e.04 inputs"),
        (f"{{x: !transform/scale-1.2.0 {{factor: {ARRAY} {{source: 0, shape: [9, 1]}}}}}}", "an array as factor"),
        ("{x: !transform/scale-1.2.0 {factor: !unit/quantity-1.2.0 {value: [1, 2], unit: m}}}", "an array as factor"),
    ],
)
def test_asdf_files_whose_tree_has_no_end(tmp_path, tree, words):
    pytest.importorskip("asdf")
    (tmp_path / "a.asdf").write_bytes(asdf_text(tree))
    with pytest.raises(FormatError, match=rf"a\.asdf: .*{words}"):
        read_exposure(tmp_path / "a.asdf")


MARKS = [(16385, b"\n...X"), (300, b"\n... \n"), (300, b"\n...\r"), (300, b"")]


@pytest.mark.parametrize(("at", "mark"), MARKS)
def test_asdf_trees_that_end_where_only_asdf_may_see_it(tmp_path, at, mark):
    """asdf reads in parts, and takes three dots at the end of one for the end of the tree."""
    roman(tmp_path / "b.asdf")
    text = asdf_text("{data: " + ELSEWHERE["block"].format("b.asdf") + "}").partition(b"\n...")[0]
    start = text.index(b"%YAML")
    filled = text + b"\n#".ljust(at + start - len(text), b"x")
    (tmp_path / "a.asdf").write_bytes(filled + mark)
    with pytest.raises(FormatError, match=r"a\.asdf: its tree does not end in a line of three dots alone"):
        read_exposure(tmp_path / "a.asdf")


@pytest.mark.parametrize("mark", [b"\n...\n", b"\r\n...\r\n"])
def test_asdf_trees_of_any_length(tmp_path, mark):
    path = roman(tmp_path / "a.asdf")
    text, _, blocks = path.read_bytes().partition(b"\n...\n")
    for size in (*range(4090, 4102), *range(16378, 16396)):
        path.write_bytes(text + b"\n# %YAML ".ljust(size + text.index(b"%YAML") - len(text), b"x") + mark + blocks)
        np.testing.assert_array_equal(read_exposure(path).image, PIXELS)
    path.write_bytes(text + b"\n#\xd3BLK" + mark + blocks)
    with pytest.raises(FormatError, match=r"a\.asdf: "):
        read_exposure(path)
    path.write_bytes(asdf_text(f"{{data: {ARRAY} {{data: [[1.0, 2.0, 4.0]]}}}}").partition(b"\n...")[0] + mark.rstrip())
    assert read_exposure(path).image.tolist() == [[1.0, 2.0, 4.0]]


def test_asdf_files_of_all_kinds_of_arrays(tmp_path):
    """As asdf writes them: what is checked before does not refuse them."""
    pytest.importorskip("asdf_astropy")
    from astropy import units as u

    columns = [("n", "i4"), ("t", "U7"), ("v", "f8", (2, 1))]
    more = {
        "table": np.array([(3, "ab", [[1.5], [2.5]]), (4, "c", [[0.0], [1.0]])], columns),
        "texts": np.array(["abc", "d"]),
        "hidden": np.ma.array([1.0, 2.0, 4.0], mask=[True, False, False]),
        "part": PIXELS[::2, 3:],
        "complex": np.array([1 + 2j]),
        "units": [3 * u.km / u.s, 3 * u.ct, [1.0, 2.0] * u.Jy],
    }
    path = roman(tmp_path / "a.asdf", more=more, again=PIXELS)
    asdf = pytest.importorskip("asdf")
    for how in ({"all_array_compression": "bzp2"}, {"all_array_storage": "inline"}):
        with asdf.open(path) as file:
            asdf.AsdfFile(file.tree).write_to(tmp_path / "b.asdf", **how)
        np.testing.assert_array_equal(read_exposure(tmp_path / "b.asdf").image, PIXELS)


def test_an_asdf_file_is_not_read_by_its_index(tmp_path):
    """An index that leads into a block, where other headers could lie, and one that is deeper than a stack."""
    path = roman(tmp_path / "a.asdf")
    whole = path.read_bytes()
    at = whole.index(b"#ASDF BLOCK INDEX")
    first, second = (int(word) for word in whole[at:].split(b"---")[1].split()[1:4:2])
    for index in (b"- %d\n- %d\n- %d\n" % (first, second + 1, second + 2), b"[" * 100_000):
        path.write_bytes(whole[:at] + b"#ASDF BLOCK INDEX\n%YAML 1.1\n---\n" + index)
        np.testing.assert_array_equal(read_exposure(path).image, PIXELS)


def test_files_that_no_format_takes(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(FormatError, match=r"a\.npz: cannot be read as FITS, nor .*ZIP archive.*known are .*sdss"):
        read_exposure(tmp_path / "a.npz")


def test_a_real_decam_image_is_still_decams():
    assert found(DATA / "decam" / "c4d_170419_042827_ooi_z_ls9.S1.fits.gz") == "decam"


# ---- masks by tables of one's own

FLAGS = np.array([[0, 1, 8], [9, 32, 40]], "i4")


def mask_file(tmp_path):
    image = save(tmp_path / "image.fits", fits.ImageHDU(np.ones((2, 3), "f4")))
    return image, save(tmp_path / "mask.fits", fits.ImageHDU(FLAGS))


def toml(path, text):
    path.write_text(text)
    return path


def test_bits_and_codes_by_a_table(tmp_path):
    image, mask = mask_file(tmp_path)
    table = toml(tmp_path / "cam.toml", '[planes]\n0 = "BAD"\n3 = "CR"\n')
    for convention in (table, str(table), MaskConvention("cam", planes={0: "BAD", 3: "CR"})):
        got = read_exposure(image, mask=mask, mask_planes=convention).mask
        assert got.any_of("BAD").tolist() == [[False, True, False], [True, False, False]]
        assert got.any_of("CR").tolist() == [[False, False, True], [True, False, True]]
        assert got.any_of("DQ5").tolist() == [[False, False, False], [False, True, True]]
    table = toml(tmp_path / "codes.toml", 'kind = "codes"\n[planes]\n8 = "GHOST"\n9 = "SAT"\n')
    got = read_exposure(image, mask=mask, mask_planes=table).mask
    assert got.any_of("GHOST").tolist() == [[False, False, True], [False, False, False]]
    assert got.any_of("SAT").tolist() == [[False, False, False], [True, False, False]]
    assert got.any_of("BAD").tolist() == [[False, True, False], [False, True, True]]  # codes that the table lacks


def test_a_table_that_adds_to_a_known_one(tmp_path):
    image, mask = mask_file(tmp_path)
    table = toml(tmp_path / "cam.toml", 'extends = "hst"\n[planes]\n5 = "CTE"\n')
    got = read_exposure(image, mask=mask, mask_planes=table).mask
    assert got.any_of("CTE").tolist() == [[False, False, False], [False, True, True]]
    assert got.any_of("BAD").tolist() == [[False, True, True], [True, False, True]]
    assert read_exposure(image, mask=mask, mask_planes="jwst").mask.any_of("PERSISTENCE").sum() == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("planes = 3", "is no table of mask planes"),
        ('[planes]\n70 = "BAD"', "a bit is a number from 0 to 63"),
        ('[planes]\n1 = "not a name"', "name a plane in capitals"),
        ('kind = "flags"\n[planes]\n1 = "BAD"', "choose bits or codes"),
        ('extends = "eso"\n[planes]\n1 = "BAD"', "no 'eso'"),
        ('extends = "decam"\nkind = "bits"\n[planes]\n1 = "BAD"', "cannot be extended by bits"),
        ('colour = 1\n[planes]\n1 = "BAD"', "colour: there are only"),
        ("[planes\n", "is no table"),
    ],
)
def test_tables_that_are_none(tmp_path, text, says):
    with pytest.raises(FormatError, match=rf"cam\.toml: .*{says}"):
        MaskConvention.from_toml(toml(tmp_path / "cam.toml", text))
    with pytest.raises(InputError, match=r"choose one of decam, .*or give a TOML file"):
        read_exposure(mask_file(tmp_path)[0], mask_planes="nowhere.toml")


def test_a_table_on_the_command_line(tmp_path):
    from click.testing import CliRunner

    from psfmatch.cli import main
    from psfmatch.geometry import Box
    from psfmatch.io import write_kernel
    from psfmatch.kernel import MatchingKernel

    flags = np.zeros(SHAPE, "i4")
    flags[11, 8] = 1 << 4
    image, mask = save(tmp_path / "i.fits", fits.ImageHDU(PIXELS)), save(tmp_path / "m.fits", fits.ImageHDU(flags))
    identity = np.zeros((3, 3))
    identity[1, 1] = 1.0
    write_kernel(MatchingKernel.constant(identity, Box.from_shape(SHAPE)), tmp_path / "k.fits")
    table, out = toml(tmp_path / "cam.toml", '[planes]\n4 = "GHOST"\n'), tmp_path / "out.fits"
    arguments = ["apply", image, tmp_path / "k.fits", "-o", out, "--mask", mask, "--mask-planes", table]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert read_exposure(out).mask.any_of("GHOST")[11, 8]


# ---- frames in which something is missing or changed


def test_an_sdss_frame_that_is_cut_off_or_changed_says_so(tmp_path):
    with fits.open(sdss(tmp_path / "frame.fits")) as hdus:
        hdus[:2].writeto(tmp_path / "cut.fits")
        hdus[1] = fits.ImageHDU(CALIBRATION[:9])
        hdus.writeto(tmp_path / "small.fits")
    with pytest.raises(FormatError, match=r"cut\.fits: has no calibration and sky behind its image; it is a FITS file"):
        read_exposure(tmp_path / "cut.fits", format="sdss")
    with pytest.raises(FormatError, match=r"small\.fits: calibration or sky are smaller than the image of 17 x 23 px"):
        read_exposure(tmp_path / "small.fits")


def test_the_psf_of_an_sdss_frame_lies_beside_it(tmp_path):
    """The psField of its run, camera column and field, in the frame's band."""
    name = psf_files.sdss_file(tmp_path / "psField-001000-1-0042.fit")
    exposure = read_exposure(sdss(tmp_path / "frame-r-001000-1-0042.fits"))
    np.testing.assert_array_equal(exposure.psf.stamps(x=9.0, y=8.0), read_psf(name).stamps(x=9.0, y=8.0))
    assert read_exposure(sdss(tmp_path / "frame-r-001000-1-0043.fits")).psf is None


def test_a_casu_image_of_nothing_has_a_noise_of_one(tmp_path):
    image = fits.ImageHDU(np.full(SHAPE, np.nan, "f4"), fits.Header({"CASUVERS": "vista 1.3"}))
    save(tmp_path / "tile_conf.fit", fits.ImageHDU(np.full(SHAPE, 50, "i2")))
    np.testing.assert_allclose(read_exposure(save(tmp_path / "tile.fit", image)).variance, 2.0)


def test_a_format_that_a_file_is_not_of_is_refused(tmp_path):
    """An uncertainty of a kind that nobody knows, and files of other formats than the one that was asked for."""
    unknown = fits.ImageHDU(WEIGHT, fits.Header({"UTYPE": "Relative"}), name="UNCERT")
    fits.HDUList([fits.PrimaryHDU(PIXELS), unknown]).writeto(tmp_path / "u.fits")
    with pytest.raises(FormatError, match=r"u\.fits: UNCERT of type Relative; only .*VarianceUncertainty"):
        read_exposure(tmp_path / "u.fits")
    np.save(tmp_path / "a.npy", PIXELS)
    with pytest.raises(FormatError, match=r"a\.npy: is a NumPy array, where a FITS file is expected"):
        read_exposure(tmp_path / "a.npy", format="legacypipe")
    bits = np.zeros(SHAPE, "i2")
    fits.HDUList([fits.PrimaryHDU(PIXELS, fits.Header({"BRICK": "0001m002"}))]).writeto(tmp_path / "own.fits")
    fits.PrimaryHDU(bits).writeto(tmp_path / "own-maskbits.fits")
    exposure = read_exposure(tmp_path / "own.fits", format="legacypipe")  # of another name: nothing lies beside it
    assert (exposure.unit, exposure.variance, exposure.mask.array.any()) == (None, None, False)
