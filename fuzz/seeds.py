"""The files that fuzzing starts from: small, good, of every kind; made by the builders of the tests where there are.

Each function takes an empty folder and returns the paths of what it has put there.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

import lsst_files  # noqa: E402
import psf_files  # noqa: E402

SHAPE = (13, 17)
DATA = ROOT / "tests" / "data"
rng = np.random.default_rng(7)
PIXELS = rng.normal(100.0, 9.0, SHAPE).astype("f4")
WEIGHT = rng.uniform(0.5, 3.0, SHAPE).astype("f4")
BITS = rng.integers(0, 9, SHAPE).astype("i2")
SKY = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 9.0, "CRVAL2": -30.0, "CRPIX1": 3.0, "CRPIX2": 5.0,
    "CD1_1": -7e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7e-5,
}  # fmt: skip


def save(path: Path, *hdus: Any, **primary: Any) -> Path:
    """A file of HDUs behind an empty one with these cards."""
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary)), *hdus]).writeto(path)
    return path


def image(array: Any, name: str = "", **cards: Any) -> fits.ImageHDU:
    """An image HDU of this name."""
    return fits.ImageHDU(array, fits.Header(cards), name=name or None)


def layers(*names: str, **cards: Any) -> list[fits.ImageHDU]:
    """Images of these names: pixels, then a mask where the name says so, else weights."""
    of = {name: PIXELS if k == 0 else BITS if name in ("MASK", "MSK", "DQ") else WEIGHT for k, name in enumerate(names)}
    return [image(array, name, **(SKY if k == 0 else {}), **cards) for k, (name, array) in enumerate(of.items())]


def worlds(folder: Path) -> list[Path]:
    """World coordinates with the distortions that there are, and axes that are not of the sky."""
    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 3, "A_2_0": 1e-6, "B_0_3": 1e-9}
    tpv = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.01, "PV2_1": 0.99, "PV1_4": 1e-2}
    cube = {"WCSAXES": 3, "CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CD3_3": 2.0}
    made = [save(folder / f"{k}.fits", image(PIXELS, **(SKY | cards))) for k, cards in enumerate((sip, tpv, cube))]
    table, dents = WCS(fits.Header(SKY)), rng.normal(0.0, 0.1, (4, 5)).astype("f4")
    table.cpdis1, table.det2im2 = (DistortionLookupTable(dents, (1, 1), (1, 1), (4, 3)) for _ in range(2))
    hdus = table.to_fits(relax=True)
    hdus[0].data = PIXELS
    hdus.writeto(folder / "tables.fits")
    return [*made, folder / "tables.fits"]


# ---- PSFs


def stamps(folder: Path) -> list[Path]:
    """Odd, even, and with a scale of its own; compressed by tiles, and as a whole."""
    even = psf_files.stamp((13, 15))[:-1, :-1]
    tiles = fits.CompImageHDU(psf_files.stamp((9, 11)).astype("f4"), compression_type="RICE_1")
    found = [
        psf_files.image_file(folder / "odd.fits"),
        save(folder / "even.fits", image(even, PIXSCALE=0.2)),
        save(folder / "wcs.fits", image(psf_files.stamp((9, 11)), **SKY)),
        save(folder / "tiles.fits", tiles),
    ]
    packed = folder / "odd.fits.gz"
    packed.write_bytes(gzip.compress(found[0].read_bytes(), mtime=0))
    return [*found, packed]


def cubes(folder: Path) -> list[Path]:
    """With positions, counted from 0 and from 1."""
    return [
        psf_files.cube_file(folder / "0.fits"), psf_files.cube_file(folder / "1.fits", names=("X_IMAGE", "Y_IMAGE"))
    ]  # fmt: skip


def psfex(folder: Path) -> list[Path]:
    """Of two and no degrees, a real one, and as a table of legacypipe."""
    made = [psf_files.psfex_file(folder / f"{k}.psf", k, 0.7, 9) for k in (0, 2)]
    return [*made, psf_files.PSFEX]


def piff(folder: Path) -> list[Path]:
    """One of each model, and one of two chips."""
    kinds = ("grid", "moffat", "gaussian")
    found = [psf_files.piff_file(folder / f"{kind}.piff", kind) for kind in kinds]
    psf_files.piff_chip_file(folder / "chips.piff")
    return [*found, folder / "chips.piff"]


def sdss_psf(folder: Path) -> list[Path]:
    """Two small eigen-images in each of five bands."""
    hdus = [fits.PrimaryHDU()]
    for band in range(5):
        c = np.zeros((2, 5, 5), np.float32)
        c[:, :2, :3] = rng.normal(scale=0.03, size=(2, 2, 3))
        c[0, 0, 0] += 1.0
        rows = [psf_files.stamp((7, 9), 2.0 + k + 0.1 * band) * 1e4 for k in range(2)]
        columns = [fits.Column(n, "J", array=np.full(2, v)) for n, v in
                   (("nrow_b", 2), ("ncol_b", 3), ("RNROW", 7), ("RNCOL", 9))]  # fmt: skip
        columns.append(fits.Column("c", "25E", dim="(5,5)", array=c))
        pixels = np.array([*(row.ravel().astype(np.float32) for row in rows), None], dtype=object)[:2]
        columns.append(fits.Column("RROWS", "PE()", array=pixels))
        hdus.append(fits.BinTableHDU.from_columns(columns))
    fits.HDUList(hdus).writeto(folder / "psField.fit")
    return [folder / "psField.fit"]


def stdpsf(folder: Path) -> list[Path]:
    """Two by one effective PSFs."""
    cube = np.array([psf_files.fine_samples(4, (21, 29), fwhm=f, integrated=True) for f in (1.6, 1.9)], np.float32)
    header = fits.Header({"NXPSFS": 2, "NYPSFS": 1, "IPSFX01": 1, "IPSFX02": 1014, "JPSFY01": 500})
    fits.PrimaryHDU(cube, header).writeto(folder / "std.fits")
    return [folder / "std.fits"]


def stpsf(folder: Path) -> list[Path]:
    """Odd, and even."""
    return [psf_files.stpsf_file(folder / f"{n}.fits", pixels=n, oversampling=3) for n in (7, 8)]


def stpsf_grid(folder: Path) -> list[Path]:
    """Two by two effective PSFs."""
    nodes = [(0, 0), (0, 900), (500, 0), (500, 900)]
    cube = [psf_files.fine_samples(4, (36, 36), fwhm=2.0 + y / 2500, integrated=True) / 16 for _, y in nodes]
    header = fits.Header({"OVERSAMP": 4, "DET_SAMP": 4, "FOVPIXEL": 9})
    header.update({f"DET_YX{k}": str((float(y), float(x))) for k, (x, y) in enumerate(nodes)})
    fits.PrimaryHDU(np.array(cube), header).writeto(folder / "grid.fits")
    return [folder / "grid.fits"]


def afw(folder: Path) -> list[Path]:
    """A PSFEx model, a double Gaussian, and a kernel that varies."""
    point, blob = lsst_files.point, lsst_files.blob
    double = [*point("dimensions", 21, 15), ("sigma1", "D", 1.6), ("sigma2", "D", 3.1), ("b", "D", 0.15)]
    functions = [
        (5 + k, "PolynomialFunction2D", [[("coefficients", f"{len(c)}D", c)]])
        for k, c in enumerate(([1.0, 1e-4, -2e-4], [0.1, 3e-5, 1e-5, 2e-9, -1e-9, 3e-9]))
    ]
    combination = [*point("dimensions", 9, 11), *point("center", 4, 5)]
    combination += [("components", "2J", [3, 4]), ("spatialfunctions", "2J", [5, 6])]
    kernels = [lsst_files.kernel(blob((11, 9), 1.5, s), 3 + k) for k, s in enumerate((2.0, 2.5))]
    varying = [(1, "KernelPsf", [[("kernel", "J", 2)]]), (2, "LinearCombinationKernel", [combination])]
    return [
        lsst_files.afw_file(folder / "psfex.fits"),
        lsst_files.save(folder / "double.fits", *lsst_files.archive((1, "DoubleGaussianPsf", [double]))),
        lsst_files.save(folder / "kernel.fits", *lsst_files.archive(*varying, *kernels, *functions)),
    ]


def tree_psf(folder: Path) -> list[Path]:
    """PSFs in the JSON of lsst.images: of Piff, PSFEx and a Gaussian."""
    head = "https://images.lsst.io/schemas/"
    cube = lsst_files.CUBE[:, 10:21:2, 8:19:2].tolist()
    psfex = {
        "schema_version": "1.0.0", "schema_url": f"{head}psfex_psf-1.0.0", "pixel_step": 0.7, "group": [0, 0],
        "degree": [1], "context": {"data": [[1000.0, 2000.0], [1500.0, 3000.0]], "datatype": "float64"},
        "parameters": {"data": cube, "datatype": "float32"},
    }  # fmt: skip
    gaussian = {
        "schema_version": "1.0.0", "schema_url": f"{head}gaussian_psf-1.0.0", "stamp_size": 15, "sigma": 1.7
    }  # fmt: skip
    for name, node in (("psfex", psfex), ("gaussian", gaussian)):
        (folder / f"{name}.json").write_text(json.dumps(node))
    lsst_files.lsst_images_file(folder / "piff.json")
    return [folder / f"{name}.json" for name in ("piff", "psfex", "gaussian")]


def own_psf(folder: Path) -> list[Path]:
    """A stamp, and one that varies."""
    import psfmatch

    box = psfmatch.Box(0, 0, 40, 50)
    weights = psfmatch.Field(np.array([[1.0, 0.1, 0.2]]), box)
    psfmatch.write_psf(psfmatch.BasisPSF(psf_files.stamp((7, 9))[None], weights), folder / "basis.fits")
    return [psf_files.psfmatch_file(folder / "stamp.fits"), folder / "basis.fits"]


def regions(folder: Path) -> list[Path]:
    """Labels and stamps in FITS."""
    return [psf_files.regions_file(folder / "regions.fits")]


def regions_text(folder: Path) -> list[Path]:
    """Boxes and polygons in TOML."""
    text = """
[[region]]
psf = "moffat:fwhm=4.4,beta=2.8"
box = [0, 0, 20, 31]

[[region]]
psf = "gaussian:fwhm=3,ellipticity=0.1,angle=20"
polygon = [[20.5, 0], [41, 3], [41, 30], [20.5, 29]]
"""
    (folder / "regions.toml").write_text(text)
    return [folder / "regions.toml"]


def words(folder: Path) -> list[Path]:
    """PSFs in words."""
    texts = ("moffat:fwhm=5,beta=3.5", 'gaussian:fwhm=1.2",angle=20deg', "double-gaussian:sigma1=2px,sigma2=4,b=.1")
    for k, text in enumerate(texts):
        (folder / f"{k}.txt").write_text(text)
    return sorted(folder.iterdir())


# ---- frames


def rubin(folder: Path) -> list[Path]:
    """Of psfmatch, and as afw writes it with a PSF."""
    import psfmatch

    wide = psfmatch.Exposure(
        PIXELS, variance=WEIGHT, mask=BITS.astype("i4"), psf=psfmatch.ImagePSF(psf_files.stamp((7, 9))), unit="nJy",
        box=psfmatch.Box.from_shape(SHAPE, y0=-5, x0=30), meta={"FILTER": "r"},
    )  # fmt: skip
    psfmatch.write_exposure(wide, folder / "own.fits")
    gaussian = [("dimensions", "2J", [21, 21]), ("sigma", "D", 1.6)]
    archive = lsst_files.archive((3, "GaussianPsf", [gaussian]))
    planes = layers("IMAGE", "MASK", "VARIANCE")
    planes[1].header.update({"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_STREAK": 3})
    return [folder / "own.fits", save(folder / "calexp.fits", *planes, *archive, **{"HIERARCH ARCHIVE_ID_PSF": 3})]


def jwst(folder: Path) -> list[Path]:
    return [save(folder / "x.fits", *layers("SCI", "ERR", "DQ"), TELESCOP="JWST")]


def hst(folder: Path) -> list[Path]:
    cards = {"TELESCOP": "HST", "INSTRUME": "WFC3", "DETECTOR": "IR"}
    return [save(folder / "x.fits", *layers("SCI", "ERR", "DQ"), **cards)]


def des(folder: Path) -> list[Path]:
    return [save(folder / "x.fits", *layers("SCI", "MSK", "WGT"))]


def decam(folder: Path) -> list[Path]:
    """A small one, with the header cards of a real one."""
    with fits.open(DATA / "decam" / "c4d_170419_042827_ooi_z_ls9.S1.fits.gz") as hdus:
        cards = hdus[0].header.copy(strip=True)
    path = folder / "x.fits"
    fits.PrimaryHDU(PIXELS, cards).writeto(path)
    return [path]


def legacypipe(folder: Path) -> list[Path]:
    tiles = fits.CompImageHDU(PIXELS, fits.Header({"BRICK": "0001m002"}), compression_type="GZIP_2", quantize_level=0)
    return [save(folder / "x.fits.fz", tiles)]


def casu(folder: Path) -> list[Path]:
    first, second = (image(PIXELS + k, f"CHIP{k}", CIR_CPM=f"conf.fit[{k}]", SKYNOISE=5.0) for k in (1, 2))
    return [save(folder / "x.fit", first, second), save(folder / "y.fit", image(PIXELS, CASUVERS="1.3"))]


def sdss(folder: Path) -> list[Path]:
    ny, nx = SHAPE
    columns = [
        fits.Column("ALLSKY", "20E", dim="(4,5)", array=np.full((1, 5, 4), 100.0)),
        fits.Column("XINTERP", f"{nx}E", array=np.linspace(0, 3, nx)[None]),
        fits.Column("YINTERP", f"{ny}E", array=np.linspace(0, 4, ny)[None]),
    ]
    frame = fits.PrimaryHDU(0.01 * PIXELS, fits.Header({"RUN": 1000, "CAMCOL": 1, "FILTER": "r"}))
    hdus = [frame, fits.ImageHDU(np.full(nx, 0.004)), fits.BinTableHDU.from_columns(columns)]
    fits.HDUList(hdus).writeto(folder / "frame.fits")
    fits.PrimaryHDU(np.uint16(1000 + PIXELS), fits.Header({"SOFTBIAS": 1000})).writeto(folder / "fpC.fits")
    return [folder / "frame.fits", folder / "fpC.fits"]


def ccddata(folder: Path) -> list[Path]:
    parts = [
        image(BITS.astype("u1"), "MASK"), image(WEIGHT, "UNCERT", UTYPE="StdDevUncertainty"),
        image(psf_files.stamp((7, 9)), "PSFIMAGE"),
    ]  # fmt: skip
    path = folder / "x.fits"
    fits.HDUList([fits.PrimaryHDU(PIXELS, fits.Header({"BUNIT": "electron", **SKY})), *parts]).writeto(path)
    return [path]


def generic(folder: Path) -> list[Path]:
    """Scaled, compressed in several ways, with and without weights."""
    tiles = [
        fits.CompImageHDU(array, compression_type=kind, quantize_level=level, name=f"C{k}")
        for k, (array, kind, level) in enumerate((
            (PIXELS, "RICE_1", 4), (PIXELS, "GZIP_1", 0), (BITS, "PLIO_1", 0), (BITS.astype("i4"), "HCOMPRESS_1", 0)
        ))
    ]  # fmt: skip
    return [
        save(folder / "a.fits", *layers("SCI", "WEIGHT", "MASK")),
        save(folder / "b.fits", image(np.uint16(1000 + PIXELS), BUNIT="adu")),
        *(save(folder / f"c{k}.fits", hdu) for k, hdu in enumerate(tiles)),
    ]


def roman(folder: Path) -> list[Path]:
    import asdf

    meta = {"telescope": "ROMAN", "instrument": {"optical_element": "F158"}, "exposure": {"exposure_time": 139.8}}
    tree = {"data": PIXELS, "err": np.sqrt(WEIGHT), "dq": BITS.astype("u4"), "meta": meta}
    asdf.AsdfFile({"roman": tree}).write_to(folder / "x.asdf")
    inline = asdf.AsdfFile({"roman": {**tree, "data": PIXELS[:3, :4], "err": WEIGHT[:3, :4], "dq": BITS[:3, :4]}})
    inline.write_to(folder / "y.asdf", all_array_storage="inline")
    asdf.AsdfFile({"roman": tree}).write_to(folder / "z.asdf", all_array_compression="zlib")
    return [folder / f"{name}.asdf" for name in "xyz"]


def tree_frame(folder: Path) -> list[Path]:
    """A real visit of Rubin, cut, in JSON."""
    root = json.loads((DATA / "lsst_images" / "visit_image-1.0.0-dp1.json").read_text())
    for name in ("detector", "sky_projection", "summary_stats", "aperture_corrections", "obs_info", "metadata"):
        root.pop(name, None)
    (folder / "x.json").write_text(json.dumps(root))
    return [folder / "x.json"]


def tree_fits(folder: Path) -> list[Path]:
    """The same kind in FITS, with a mask in two arrays."""
    tree = {
        "schema_version": "1.0.0", "schema_url": "https://images.lsst.io/schemas/masked_image-1.0.0",
        "mask": {"data": [{"source": "fits:MASK"}, {"source": "fits:MASK,2"}]},
    }  # fmt: skip
    words = np.frombuffer(json.dumps(tree).encode(), "u1")
    column = fits.Column("JSON", "PB()", array=np.array([words, None], dtype=object)[:1])
    planes = [
        image(PIXELS, "IMAGE", **SKY), image(WEIGHT, "VARIANCE"), image(BITS, "MASK", MSKN0000="BAD", MSKN0003="CR"),
        image(BITS, "MASK", EXTVER=2, MSKN0001="SATURATED"), fits.BinTableHDU.from_columns([column], name="JSON"),
    ]  # fmt: skip
    return [save(folder / "x.fits", *planes, DATAMODL="https://images.lsst.io/schemas/masked_image-1.0.0")]


def companion(folder: Path) -> list[Path]:
    """Weights, variances and masks of one image."""
    return [
        save(folder / "weight.fits", image(WEIGHT, "WGT")),
        save(folder / "bits.fits", image(BITS, "DQ"), TELESCOP="JWST"),
        save(folder / "codes.fits", image(BITS, PLVER="V4.0", PROCTYPE="InstCal")),
        save(folder / "named.fits", image(BITS, MP_BAD=0, MP_CR=3)),
    ]


# ---- what psfmatch itself keeps


def matched(folder: Path) -> list[Path]:
    """A match, whole and of two regions."""
    import psfmatch

    labels = np.ones((41, 47), np.int16)
    labels[:, 25:] = 2
    one, two = (psfmatch.ImagePSF(psf_files.stamp((9, 11), fwhm)) for fwhm in (2.0, 2.2))
    for name, psf in (("one", one), ("two", psfmatch.RegionsPSF(psfmatch.Regions(labels), {1: one, 2: two}))):
        frame = psfmatch.Exposure(rng.normal(size=labels.shape).astype("f4"), psf=psf)
        solver = psfmatch.FreeForm(size=7)
        found = psfmatch.match(frame, psfmatch.GaussianPSF(fwhm=3.2, size=13), solver=solver, throw=False)
        psfmatch.write_matched(found, folder / f"{name}.fits")
    return [folder / "one.fits", folder / "two.fits"]


def correlation(folder: Path) -> list[Path]:
    """Noise that is correlated, behind an empty HDU."""
    import psfmatch
    from psfmatch.io import correlation_hdus

    kernel = psfmatch.MatchingKernel.constant(psf_files.stamp((5, 7)), psfmatch.Box(0, 0, 20, 30))
    noise = psfmatch.NoiseCorrelation.white(kernel.box).convolved(kernel)
    return [save(folder / "noise.fits", *correlation_hdus(noise))]


def coadd(folder: Path) -> list[Path]:
    """Two exposures, of which one is shorter than the other."""
    import psfmatch
    from psfmatch.coadd import Store, planned, run_patches, write_coadd

    grid = psfmatch.Grid.centered(150.1, 2.2, shape=(30, 41), pixel_scale=0.3)
    psf = psfmatch.GaussianPSF(fwhm=2.5, size=15)
    frames = [
        psfmatch.Exposure(
            rng.normal(0.0, 1.0 + k, (41, 30 + 7 * k)).astype("f4"), variance=np.full((41, 30 + 7 * k), 1.0, "f4"),
            psf=psf, wcs=grid.wcs, meta={"MAGZERO": 25.0},
        )
        for k in range(2)
    ]  # fmt: skip
    inputs = [psfmatch.CoaddInput(frame, name=name) for frame, name in zip(frames, ("one", "two"), strict=True)]
    recipe = psfmatch.Recipe(solver=psfmatch.FreeForm(size=9))
    store = Store(folder)
    plan = planned(inputs, target="gaussian:fwhm=3.5", grid=grid, method=psfmatch.Mean(), recipe=recipe, store=store)
    run_patches(plan, store)
    write_coadd(plan, store, folder / "coadd.fits")
    return [folder / "coadd.fits"]


def mask_table(folder: Path) -> list[Path]:
    (folder / "x.toml").write_text('extends = "jwst"\nkind = "bits"\n\n[planes]\n0 = "BAD"\n11 = "HOT"\n')
    (folder / "y.toml").write_text('kind = "codes"\n[planes]\n1 = "BAD"\n40 = "CR"\n')
    return [folder / "x.toml", folder / "y.toml"]


def options(folder: Path) -> list[Path]:
    """What ``psfmatch config`` prints, without the comments."""
    from click.testing import CliRunner

    from psfmatch.cli import main

    lines = CliRunner().invoke(main, ["config"]).output.splitlines()
    kept = "\n".join(line for line in lines if line and not line.startswith("#"))
    (folder / "all.toml").write_text(kept)
    (folder / "some.toml").write_text('target = "gaussian:fwhm=4"\n[solver]\nname = "fourier"\ntolerance = 1e-3\n')
    return [folder / "all.toml", folder / "some.toml"]


def zero_points(folder: Path) -> list[Path]:
    (folder / "x.csv").write_text('name,zero_point\na.fits,25.1\n"b c.fits",24.7\n')
    return [folder / "x.csv"]


def store(folder: Path) -> list[Path]:
    """What a coadd keeps under a name."""
    from psfmatch.coadd.store import Store

    Store(folder).keep("kernel", {"factor": 1.5, "note": "x"}, basis=PIXELS, mask=BITS)
    return [folder / "kernel.npz"]


def store_card(folder: Path) -> list[Path]:
    (folder / "coadd.json").write_text(json.dumps({"inputs": "a.fits", "target": "gaussian:fwhm=4"}, indent=1))
    return [folder / "coadd.json"]
