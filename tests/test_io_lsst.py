"""Rubin's files: afw's archives and lsst.images, against their documented layouts and upstream's own reading."""

import json
import resource
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lsst_files import CONTEXT, CUBE, archive, blob, kernel, lanczos5, lsst_images_file, point, psfex, save
from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.io import check_psf_format, psf_formats, read_exposure, read_psf, write_exposure, write_lsst_images
from psfmatch.psf import GaussianPSF

VISIT = Path(__file__).parent / "data" / "lsst_images" / "visit_image-1.0.0-dp1.json"
SHAPE = (23, 17)
rng = np.random.default_rng(66)
PIXELS = rng.normal(100.0, 9.0, SHAPE).astype("f4")


# ---- afw


@pytest.mark.parametrize("step", [0.5, 0.7])
def test_a_psfex_psf_of_afw(tmp_path, step):
    psf = read_psf(save(tmp_path / "psf.fits", *archive((1, "PsfexPsf", psfex(CUBE, step, CONTEXT)))))
    x, y = 1700.0, 600.0  # counted from 0, as afw does
    terms = [1.0, (x - 1000) / 2000, (y - 1500) / 3000]
    ny, nx = psf.shape
    assert (ny, nx) == (15, 13) if step == 0.5 else (21, 19)
    rows, columns = (lanczos5(n, (np.arange(m) - m // 2) / step + n // 2) for n, m in ((31, ny), (27, nx)))
    want = rows @ np.tensordot(terms, CUBE.astype(float), 1) @ columns.T
    np.testing.assert_allclose(psf.stamps(x=x, y=y)[0], want / want.sum(), atol=1e-10)


def test_gaussian_psfs_of_afw(tmp_path):
    dimensions = point("dimensions", 21, 15)
    double = [*dimensions, ("sigma1", "D", 1.6), ("sigma2", "D", 3.1), ("b", "D", 0.15)]
    y, x = np.mgrid[-7:8, -10:11]
    want = np.exp(-0.5 * (x**2 + y**2) / 1.6**2) + 0.15 * np.exp(-0.5 * (x**2 + y**2) / 3.1**2)
    psf = read_psf(save(tmp_path / "double.fits", *archive((1, "DoubleGaussianPsf", [double]))))
    np.testing.assert_allclose(psf.stamps(x=0, y=0)[0], want / want.sum(), atol=1e-15)
    for name in ("GaussianPsf", "SingleGaussianPsf"):
        old = [("dimensions", "2J", [21, 21]), ("sigma", "D", 1.6)]  # as before points had two columns
        psf = read_psf(save(tmp_path / f"{name}.fits", *archive((1, name, [old]))))
        y, x = np.mgrid[-10:11, -10:11]
        want = np.exp(-0.5 * (x**2 + y**2) / 1.6**2)
        np.testing.assert_allclose(psf.stamps(x=0, y=0)[0], want / want.sum(), atol=1e-15)


@pytest.mark.parametrize("kind", ["PolynomialFunction2D", "Chebyshev1Function2D"])
def test_a_kernel_psf_whose_images_vary(tmp_path, kind):
    images = [blob((17, 13), 1.5, 2.0), blob((17, 13), 2.5, 2.0, 0.6)]
    coefficients = [[1.0, 1e-4, -2e-4], [0.1, 3e-5, 1e-5, 2e-9, -1e-9, 3e-9]]
    extent = [*point("min", 0.0, 0.0, "D"), *point("max", 2000.0, 4000.0, "D")] if kind.startswith("C") else []
    functions = [
        (5 + k, kind, [[("coefficients", f"{len(c)}D", c), *extent]]) for k, c in enumerate(coefficients)
    ]  # fmt: skip
    linear = [
        *point("dimensions", 13, 17),
        *point("center", 6, 8),
        ("spatialfunctions", "2J", [5, 6]),
        ("components", "2J", [3, 4]),
    ]
    top = (1, "KernelPsf", [[("kernel", "J", 2), *point("averagePosition", 5.0, 6.0, "D")]])
    psf = read_psf(
        save(
            tmp_path / "k.fits",
            *archive(
                top, (2, "LinearCombinationKernel", [linear]), kernel(images[0], 3), kernel(images[1], 4), *functions
            ),
        )
    )
    x, y = 1234.0, 3210.0
    u, v = (x, y) if kind.startswith("P") else (2 * x / 2000 - 1, 2 * y / 4000 - 1)
    squares = (u * u, v * v) if kind.startswith("P") else (2 * u * u - 1, 2 * v * v - 1)
    terms = [1.0, u, v, squares[0], u * v, squares[1]]
    want = sum(np.dot(c, terms[: len(c)]) * image for c, image in zip(coefficients, images, strict=True))
    np.testing.assert_allclose(psf.stamps(x=x, y=y)[0], want / want.sum(), atol=1e-10)


@pytest.mark.parametrize(
    ("name", "why"), [("CoaddPsf", "many exposures"), ("PiffPsf", "pickle"), ("WarpedPsf", "stack")]
)
def test_psfs_that_only_the_stack_can_evaluate_are_refused(tmp_path, name, why):
    hdus = archive((1, name, [[("bytes", "4B", [1, 2, 3, 4])]]))
    with pytest.raises(FormatError, match=rf"psf\.fits: the PSF is a {name}: .*{why}.*writ"):
        read_psf(save(tmp_path / "psf.fits", *hdus))


def calexp(path, *objects, unit=None, ids=None):
    place = fits.Header(
        {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 300, "CRVAL2A": -40}
    )
    image = fits.ImageHDU(PIXELS, place, name="IMAGE")
    if unit:
        image.header["BUNIT"] = unit
    flags = fits.ImageHDU(
        rng.integers(0, 8, SHAPE).astype("i4"), fits.Header({"MP_BAD": 0, "HIERARCH MP_CROSSTALK": 2}), name="MASK"
    )
    return save(path, image, flags, fits.ImageHDU(PIXELS**2, name="VARIANCE"), *archive(*objects), primary=ids)


def test_a_calexp_has_its_psf_and_calibration_from_the_archive(tmp_path):
    calibration = [
        ("calibrationMean", "D", 57.5),
        ("calibrationErr", "D", 0.0),
        ("isConstant", "L", True),
        ("field", "J", 0),
        ("version", "J", 1),
    ]
    objects = [(3, "PhotoCalib", [calibration]), (7, "PsfexPsf", psfex(CUBE, 0.5, CONTEXT))]
    ids = {"AR_HDU": 5, "HIERARCH ARCHIVE_ID_PSF": 7, "HIERARCH ARCHIVE_ID_PHOTOCALIB": 3, "PSF_ID": 7, "EXPTIME": 30.0}
    path = calexp(tmp_path / "calexp.fits", *objects, ids=ids)
    exposure = read_exposure(path)
    assert exposure.box == Box.from_shape(SHAPE, y0=-40, x0=300)
    alone = read_psf(save(tmp_path / "psf.fits", *archive((1, "PsfexPsf", psfex(CUBE, 0.5, CONTEXT)))))
    at = {"x": [310.0, 4000.0], "y": [-30.0, 900.0]}
    np.testing.assert_array_equal(exposure.psf.stamps(**at), alone.stamps(**at))
    np.testing.assert_array_equal(read_psf(path).stamps(**at), alone.stamps(**at))
    assert dict(exposure.mask.planes) == {"BAD": 0, "CROSSTALK": 2}
    # one count is 57.5 nJy, and AB magnitude 0 is 3630.78 Jy
    assert exposure.meta["FLUXMAG0"] == pytest.approx(3630.7805e9 / 57.5, rel=1e-7)
    assert set(exposure.meta) == {"EXPTIME", "FLUXMAG0"}
    check_psf_format(next(known for known in psf_formats() if known.name == "afw"), tmp_path / "psf.fits")


@pytest.mark.parametrize("name", ["PiffPsf", "CoaddPsf", "PsfexPsf"])
def test_what_an_archive_holds_never_costs_the_pixels(tmp_path, name):
    """Objects that cannot be read, tables of unknown columns, and an index that points nowhere."""
    path = calexp(tmp_path / "a.fits", (1, name, [[("bytes", "4B", [1, 2, 3, 4])]]), unit="nJy", ids={"PSF_ID": 1})
    with pytest.warns(PsfMatchWarning, match=r"a\.fits.*read without its PSF"):
        exposure = read_exposure(path)
    np.testing.assert_array_equal(exposure.image, PIXELS)
    assert exposure.psf is None
    assert read_exposure(path, psf="gaussian:fwhm=3").psf == GaussianPSF(fwhm=3.0)


# ---- archives in which one thing is wrong


def kernel_psf(*parts):
    return archive((1, "KernelPsf", [[("kernel", "J", 2), *point("averagePosition", 5.0, 6.0, "D")]]), *parts)


def test_a_kernel_psf_of_a_fixed_image_or_fixed_weights(tmp_path):
    one, two = blob((17, 13), 2.0, 3.0), blob((17, 13), 3.0, 2.0, 1.0)
    alone = read_psf(save(tmp_path / "a.fits", *kernel_psf(kernel(one, 2))))
    np.testing.assert_allclose(alone.stamps(x=4, y=9)[0], one / one.sum(), atol=1e-15)
    linear = [*point("dimensions", 13, 17), ("amplitudes", "2D", [0.7, 0.2]), ("components", "2J", [3, 4])]
    parts = (2, "LinearCombinationKernel", [linear]), kernel(one, 3), kernel(two, 4)
    both = 0.7 * one + 0.2 * two
    summed = read_psf(save(tmp_path / "b.fits", *kernel_psf(*parts)))
    np.testing.assert_allclose(summed.stamps(x=4, y=9)[0], both / both.sum(), atol=1e-15)


def off_centre(image, at):
    identity, name, ((*dimensions, _, _, pixels),) = kernel(image, 2)
    return identity, name, [[*dimensions, *point("center", *at), pixels]]


def varying(kind, terms):
    linear = [*point("dimensions", 13, 17), ("spatialfunctions", "1J", [4]), ("components", "1J", [3])]
    function = [("coefficients", f"{terms}D", np.ones(terms))]
    return (2, "LinearCombinationKernel", [linear]), kernel(blob((17, 13), 2.0, 3.0), 3), (4, kind, [function])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([(2, "AnalyticKernel", [[*point("dimensions", 7, 9), *point("center", 3, 4)]])], "KernelPsf of a AnalyticK"),
        ([off_centre(blob((17, 13), 2.0, 3.0), (6, 7))], r"centre at \(6, 7\), not in its middle; pad it"),
        (varying("SplineFunction2D", 3), "varies as a SplineFunction2 of 3 terms"),
        (varying("PolynomialFunction2D", 4), "varies as a PolynomialFunction2 of 4 terms"),
        ([], r"the archive has no object 2 \(it has \[1\]\)"),
        ([(2, "FixedKernel", [[*point("center", 3, 4)]])], "the archive's table has no column 'dimensions'"),
    ],
)
def test_an_archive_that_cannot_be_read_names_what_is_wrong(tmp_path, parts, says):
    path = save(tmp_path / "k.fits", *kernel_psf(*parts))
    with pytest.raises(FormatError, match=rf"k\.fits: .*{says}"):
        read_psf(path)


def test_an_archive_that_is_cut_off(tmp_path):
    hdus = kernel_psf(kernel(blob((17, 13), 2.0, 3.0), 2))
    with pytest.raises(FormatError, match=r"k\.fits: the archive's table 3 is missing; the file is cut off or changed"):
        read_psf(save(tmp_path / "k.fits", *hdus[:-1]))


def test_an_exposure_without_what_its_header_announces(tmp_path):
    """A PSF that is not in the index, and a calibration of an unknown kind: the pixels are there, without either."""
    ids = {"HIERARCH ARCHIVE_ID_PSF": 5, "HIERARCH ARCHIVE_ID_PHOTOCALIB": 3}
    path = calexp(tmp_path / "a.fits", (3, "PhotoCalib", [[("field", "J", 0)]]), ids=ids)
    exposure = read_exposure(path)
    assert (exposure.psf, exposure.unit, exposure.meta) == (None, None, {})
    with pytest.raises(FormatError, match=r"a\.fits: the exposure in it has no PSF; it is a FITS file \(HDUs: 0"):
        read_psf(path)


# ---- lsst.images


def test_the_psf_of_a_real_visit_is_upstreams():
    """Numbers of lsst.images 30.2026.4300 with piff 1.6 and GalSim 2.8: width, area and peak of its stamp."""
    psf = read_psf(VISIT)
    stamp = psf.stamps(x=2036.0, y=2000.0)[0]
    assert stamp.shape == (25, 25)
    assert stamp.sum() == pytest.approx(1.0, abs=1e-12)
    assert stamp.max() == pytest.approx(0.0338204929074847, rel=1e-12)
    assert 1.0 / (stamp**2).sum() == pytest.approx(74.94166691125658, rel=1e-12)
    assert adaptive_sigma(stamp) == pytest.approx(2.0785610877920884, rel=1e-7)
    # constant, as the file has the constant term of its polynomial only; which is why this is not its psfSigma, 1.8992
    np.testing.assert_array_equal(psf.stamps(x=9.0, y=3900.0)[0], stamp)


def adaptive_sigma(stamp):
    """The determinant radius of the Gaussian that, as a weight, has the second moments of the weighted image."""
    y, x = np.mgrid[: stamp.shape[0], : stamp.shape[1]] - np.array(stamp.shape)[:, None, None] // 2
    at, center, moments = np.stack([x, y]).astype(float), np.zeros(2), 4.0 * np.eye(2)
    for _ in range(200):
        d = at - center[:, None, None]
        inverse = np.linalg.inv(moments)
        weighted = stamp * np.exp(-0.5 * np.einsum("iyx,ij,jyx->yx", d, inverse, d))
        center = center + (weighted * d).sum(axis=(1, 2)) / weighted.sum()
        moments = np.linalg.inv(np.linalg.inv(np.einsum("yx,iyx,jyx->ij", weighted, d, d) / weighted.sum()) - inverse)
    return np.linalg.det(moments) ** 0.25


def test_a_real_visit_in_json():
    with pytest.warns(PsfMatchWarning, match="the WCS, which is in the form of the AST library, is left out"):
        exposure = read_exposure(VISIT)
    tree = json.loads(VISIT.read_text())
    np.testing.assert_array_equal(exposure.image, np.float32(tree["image"]["data"]["value"]["data"]))
    np.testing.assert_array_equal(exposure.variance, np.float32(tree["variance"]["data"]["value"]["data"]))
    flags = np.array(tree["mask"]["data"][0]["data"])
    bits = {plane["name"]: k for k, plane in enumerate(tree["mask"]["planes"])}
    for ours, theirs in (("BAD", "BAD"), ("SAT", "SATURATED"), ("CR", "COSMIC_RAY"), ("EDGE", "DETECTION_EDGE")):
        np.testing.assert_array_equal(exposure.mask.any_of(ours), flags >> bits[theirs] & 1 != 0)
    assert exposure.unit == "nJy"
    assert (exposure.meta["band"], exposure.meta["visit_id"], exposure.meta["id"]) == ("r", 2024110800246, 45508261376)
    np.testing.assert_array_equal(exposure.psf.stamps(x=5, y=6), read_psf(VISIT).stamps(x=5, y=6))


def fits_image(path, tree, masks, **cards):
    """A file in the layout of lsst.images, as astropy writes it."""
    data = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    column = fits.Column("JSON", f"PB({data.size})", array=np.array([data], dtype=object))
    place = {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 7.0, "CRVAL2A": -3.0}
    image, variance = (
        fits.CompImageHDU(p, fits.Header(place), name=n, quantize_level=0, compression_type="GZIP_2")
        for p, n in ((PIXELS, "IMAGE"), (PIXELS**2, "VARIANCE"))
    )
    hdus = [image]
    for version, (array, names) in enumerate(masks, 1):
        hdus.append(fits.CompImageHDU(array, fits.Header(place), name="MASK"))
        hdus[-1].header["EXTVER"] = version
        hdus[-1].header.update({f"MSKN{k:04d}": name for k, name in enumerate(names)})
    primary = {"DATAMODL": "https://images.lsst.io/schemas/masked_image-1.0.0", **cards}
    return save(path, *hdus, variance, fits.BinTableHDU.from_columns([column], name="JSON"), primary=primary)


def test_a_mask_of_more_planes_than_one_array_holds(tmp_path):
    names = [f"P{k}" for k in range(29)] + ["SATURATED", "COSMIC_RAY", *(f"Q{k}" for k in range(9))]
    flags = rng.random((40, *SHAPE)) < 0.1
    arrays = [np.tensordot(2 ** np.arange(n), flags[a : a + n], 1).astype("i4") for a, n in ((0, 31), (31, 9))]
    node = {"data": [{"source": "fits:MASK"}, {"source": "fits:MASK,2"}]}
    path = fits_image(
        tmp_path / "m.fits",
        {"mask": node, "metadata": {"three": 3}},
        [(arrays[0], names[:31]), (arrays[1], names[31:])],
    )
    exposure = read_exposure(path)
    ours = {"SATURATED": "SAT", "COSMIC_RAY": "CR"}
    for name, flag in zip(names, flags, strict=True):
        np.testing.assert_array_equal(exposure.mask.any_of(ours.get(name, name)), flag)
    assert exposure.box == Box.from_shape(SHAPE, y0=-3, x0=7)
    assert exposure.meta == {"three": 3}
    assert exposure.psf is None


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"schema_url": "https://images.lsst.io/schemas/cell_psf-1.0.0"}, "its PSF is a cell_psf: it jumps"),
        ({"schema_url": "https://images.lsst.io/schemas/piff_psf-1.0.0"}, "its PSF cannot be read"),
        (
            {"schema_url": "https://images.lsst.io/schemas/psfex_psf-1.0.0", "context": {"source": "fits:X"}},
            "points to 'fits:X'",
        ),
        ({"schema_url": "https://images.lsst.io/schemas/psfex_psf-1.0.0", "context": 5}, "no array where one is exp"),
        (
            {"schema_url": "https://images.lsst.io/schemas/psfex_psf-1.0.0", "context": {"data": 1, "datatype": "U3"}},
            "an array of <U3 in its JSON, where numbers are expected",
        ),
    ],
)
def test_a_psf_that_cannot_be_read_costs_the_psf_only(tmp_path, node, says):
    path = fits_image(tmp_path / "a.fits", {"psf": node}, [(np.zeros(SHAPE, "i4"), ["BAD"])])
    with pytest.warns(PsfMatchWarning, match=rf"a\.fits: .*{says}.*read without its PSF"):
        np.testing.assert_array_equal(read_exposure(path).image, PIXELS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p["structs"]["piff"].update(type="Sum"), "a Piff model of type Sum on a WCS of type pixel_scale"),
        (lambda p: p["objects"]["piff"]["wcs"]["wcs"].update(wcs_type="tan"), "of type Simple on a WCS of type tan"),
        (
            lambda p: p["objects"]["piff"]["structs"]["model"].update(fit_flux=True),
            "PixelGrid has its flux fitted",
        ),
        (lambda p: solution(p)["columns"][0].update(name="z"), "has a table without the column 'q'"),
    ],
)
def test_a_piff_psf_that_cannot_be_drawn_says_why(tmp_path, change, says):
    path = lsst_images_file(tmp_path / "p.json")
    tree = json.loads(path.read_text())
    change(tree["piff"])
    path.write_text(json.dumps(tree))
    with pytest.raises(FormatError, match=rf"p\.json: .*{says}"):
        read_psf(path)


def solution(piff):
    return piff["objects"]["piff"]["objects"]["interp"]["tables"]["solution"]["table"]


def test_a_column_may_lie_in_a_table_of_the_file(tmp_path):
    """The same PSF, its coefficients in the JSON or in a binary table beside it."""
    path = lsst_images_file(tmp_path / "p.json")
    tree = json.loads(path.read_text())
    column = solution(tree["piff"])["columns"][0]
    q = np.array(column["data"]["data"])
    column["data"] = {"source": "fits:SOLUTION", "shape": q.shape[1:]}
    inside = fits_image(tmp_path / "a.fits", {"psf": tree}, [(np.zeros(SHAPE, "i4"), ["BAD"])])
    with fits.open(inside) as hdus:
        table = fits.Column("q", f"{q[0].size}D", array=q.reshape(1, -1))
        hdus.append(fits.BinTableHDU.from_columns([table], name="SOLUTION"))
        hdus.writeto(tmp_path / "b.fits")
    np.testing.assert_array_equal(read_psf(tmp_path / "b.fits").stamps(x=900, y=70), read_psf(path).stamps(x=900, y=70))


def test_trees_without_what_is_wanted_say_so(tmp_path):
    """No PSF, no image, no tree at all, and a mask of more planes than can be held; an image alone is enough."""
    flat = [(np.zeros(SHAPE, "i4"), ["BAD"])]
    with pytest.raises(FormatError, match=r"a\.fits: the masked_image in it has no PSF"):
        read_psf(
            fits_image(tmp_path / "a.fits", {"schema_url": "https://images.lsst.io/schemas/masked_image-1.0"}, flat)
        )
    with pytest.raises(FormatError, match=r"b\.fits: is JSON, but no tree of lsst\.images"):
        read_exposure(fits_image(tmp_path / "b.fits", [1, 2], flat))
    schema = {"schema_version": "1.0.0", "schema_url": "https://images.lsst.io/schemas/gaussian_psf-1.0.0"}
    (tmp_path / "c.json").write_text(json.dumps(schema))
    with pytest.raises(FormatError, match=r"c\.json: is a gaussian_psf of lsst\.images, which has no image, mask and"):
        read_exposure(tmp_path / "c.json")
    names = [f"P{k}" for k in range(64)]
    node = {"data": [{"source": "fits:MASK"}, {"source": "fits:MASK,2"}, {"source": "fits:MASK,3"}]}
    parts = [(np.zeros(SHAPE, "i4"), names[k : k + 31]) for k in (0, 31, 62)]
    with pytest.raises(FormatError, match=r"d\.fits: has 64 mask planes; at most 63 can be held"):
        read_exposure(fits_image(tmp_path / "d.fits", {"mask": node}, parts))
    image = {"data": {"data": PIXELS.tolist(), "datatype": "float32", "unit": "nJy"}, "yx0": [-3, 7]}
    (tmp_path / "e.json").write_text(json.dumps({**schema, "schema_url": "", "image": image}))
    exposure = read_exposure(tmp_path / "e.json")
    np.testing.assert_array_equal(exposure.image, PIXELS)
    assert (exposure.variance, exposure.unit, exposure.box) == (None, "nJy", Box.from_shape(SHAPE, y0=-3, x0=7))
    assert not exposure.mask.array.any()


def test_a_psfex_psf_of_lsst_images_is_that_of_afw(tmp_path):
    context = {"data": [list(pair) for pair in zip(*CONTEXT, strict=True)]}
    node = {
        "schema_url": "https://images.lsst.io/schemas/psfex_psf-1.0.0", "pixel_step": 0.5, "degree": [1],
        "parameters": {"data": CUBE.tolist(), "datatype": "float32"}, "context": context,
    }  # fmt: skip
    path = fits_image(tmp_path / "a.fits", {"psf": node}, [(np.zeros(SHAPE, "i4"), ["BAD"])])
    afw = read_psf(save(tmp_path / "psf.fits", *archive((1, "PsfexPsf", psfex(CUBE, 0.5, CONTEXT)))))
    np.testing.assert_array_equal(read_psf(path).stamps(x=900, y=70), afw.stamps(x=900, y=70))


def test_files_of_no_use_say_so(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FormatError, match=r"a\.h5: is an HDF5 file.*convert it"):
        read_exposure(tmp_path / "a.h5")
    (tmp_path / "a.json").write_text('{"schema_version": "1.0.0", "cut')
    with pytest.raises(FormatError, match=r"a\.json: its JSON cannot be read"):
        read_exposure(tmp_path / "a.json")


def exposure(psf=None):
    mask = Mask(rng.integers(0, 512, SHAPE).astype("i4")).with_planes(["STREAK"])
    box = Box.from_shape(SHAPE, y0=-3, x0=7)
    return Exposure(PIXELS, variance=PIXELS**2, mask=mask, box=box, psf=psf, unit="nJy")


def test_writing_needs_the_package_and_a_name(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.fits, \.json, \.h5"):
        write_lsst_images(exposure(), tmp_path / "a.png")
    try:
        import lsst.images  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install 'psfmatch\[rubin\]'"):
            write_lsst_images(exposure(), tmp_path / "a.fits")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("suffix", [".fits", ".json"])
def test_writing_needs_room_for_a_temporary_file(tmp_path, monkeypatch, suffix):
    """Where there is none, the error says how to choose another place; nothing is left there, nor of the output."""
    pytest.importorskip("lsst.images", exc_type=ImportError)
    path, place = tmp_path / f"a{suffix}", tmp_path / "place"
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(FileNotFoundError, match=r"no temporary folder can be made .*set TMPDIR to a folder with room"):
        write_lsst_images(exposure(), path)
    place.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2880, hard))
    try:
        with pytest.raises(OSError, match=rf"cannot write it .*; set TMPDIR to .* room: '{place}/.*a{suffix}"):
            write_lsst_images(exposure(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (list(tmp_path.iterdir()), list(place.iterdir())) == ([place], [])


@pytest.mark.parametrize("suffix", [".fits", ".json"])
def test_what_the_package_writes_is_read_without_it(tmp_path, suffix):
    pytest.importorskip("lsst.images", exc_type=ImportError)
    from lsst.images import MaskedImage
    from lsst.images.serialization import read_archive

    path = tmp_path / f"a{suffix}"
    given = exposure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        write_lsst_images(given, path)
        theirs = read_archive(str(path), MaskedImage)
    again = read_exposure(path)
    np.testing.assert_array_equal(theirs.image.array, PIXELS)
    np.testing.assert_array_equal(theirs.mask.get("SATURATED"), given.mask.any_of("SAT"))
    for name in ("image", "variance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(given, name))
    for name in given.mask.planes:
        np.testing.assert_array_equal(again.mask.any_of(name), given.mask.any_of(name))
    assert (again.box, again.unit) == (given.box, "nJy")
    assert json.loads(again.meta["psfmatch_provenance"]) == given.history.provenance().as_dict()
    write_exposure(again, tmp_path / "ours.fits")
    assert "psfmatch_provenance" not in {name.lower() for name in read_exposure(tmp_path / "ours.fits").meta}


def test_a_visit_image_is_written_like_another(tmp_path):
    pytest.importorskip("lsst.images", exc_type=ImportError)
    pytest.importorskip("piff")
    from lsst.images.serialization import read_archive

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = read_exposure(VISIT)
        target = GaussianPSF(fwhm=5.0, sampling="center", size=31)
        path = tmp_path / "visit.fits"
        write_lsst_images(before.replace(image=before.image + 1, psf=target), path, like=VISIT)
        theirs = read_archive(str(path))
        theirs_before = read_archive(str(VISIT))
    np.testing.assert_array_equal(theirs.image.array, before.image + 1)
    assert theirs.obs_info == theirs_before.obs_info
    again = read_exposure(path)
    np.testing.assert_allclose(again.psf.stamps(x=8, y=8), target.stamps(x=8, y=8), atol=1e-12)
    np.testing.assert_allclose(theirs.psf.compute_kernel_image(x=8, y=8).array, target.stamps(x=8, y=8)[0], atol=1e-12)
    sky = theirs.sky_projection.pixel_to_sky(x=3.0, y=12.0)
    lon, lat = again.wcs.pixel_to_world_values(3.0, 12.0)
    assert abs(lon - sky.ra.deg) + abs(lat - sky.dec.deg) < 0.01 * 0.2 / 3600  # hundredths of a pixel
