"""Each PSF format and object against an independent reader of it: the largest difference of a pixel, at unit flux.

The table of docs/psf_formats.md is made of these.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.io import fits

import lsst_files
import psf_files
from psfmatch.io import read_psf
from psfmatch.models import as_psf
from psfmatch.psf import MoffatPSF

PLACES = ((101.3, 402.7), (640.0, 77.0), (871.5, 533.25))


@dataclass(frozen=True)
class Comparison:
    """What is read, what varies in it, who reads it as well, and a function of a path that gives the difference."""

    format: str
    what: str
    varies: str
    reader: str
    difference: Callable


def largest(pairs):
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def galsim_stamp(profile, wcs, shape, method):
    """Drawn by GalSim, with its accuracy raised where it goes through Fourier space."""
    import galsim

    if method == "auto":
        sharp = galsim.GSParams(folding_threshold=3e-6, maxk_threshold=1e-6, kvalue_accuracy=1e-9,
                                xvalue_accuracy=1e-9, maximum_fft_size=32768)  # fmt: skip
        profile = profile.withGSParams(sharp)
    return profile.drawImage(nx=shape[1], ny=shape[0], wcs=wcs, method=method, dtype=float).array


def psfex(path):
    from galsim import PixelScale, PositionD
    from galsim.des import DES_PSFEx

    psf, model, pairs = read_psf(path), DES_PSFEx(str(path)), []
    for x, y in ((100.0, 3000.0), (1900.5, 40.0), (1024.0, 2048.0)):
        profile = model.getPSF(PositionD(x + 1, y + 1))
        drawn = galsim_stamp(profile, PixelScale(1.0), psf.shape, "no_pixel")
        pairs.append((psf.stamps(x=x, y=y)[0], drawn / drawn.sum()))
    return largest(pairs)


def psfex_kinds(path):
    """Constant to fifth degree, finer and coarser than the pixels."""
    kinds = [(degree, *sampling) for degree in (0, 1, 3, 5) for sampling in ((0.5, 45), (0.83, 31), (1.2, 27))]
    return max(psfex(psf_files.psfex_file(path.with_suffix(f".{k}.psf"), *kind)) for k, kind in enumerate(kinds))


def against_piff(source, path, chip=0):
    import piff
    from galsim import PositionD

    psf, model, pairs = read_psf(source), piff.read(str(path)), []
    for x, y in PLACES:
        profile, method = model.get_profile(x + 1, y + 1, chipnum=chip)
        local = model.wcs[chip].local(PositionD(x + 1, y + 1))
        pairs.append((psf.stamps(x=x, y=y)[0], galsim_stamp(profile, local, psf.shape, method)))
    return largest(pairs)


def piff_kind(kind):
    return lambda path: against_piff(psf_files.piff_file(path, kind), path)


def old_piff(path):
    """The layout of Piff 0.2: samples that flux and centroid fix are left out, brightness in place of flux."""
    new = psf_files.piff_file(path.with_suffix(".new"), "grid")
    with fits.open(new) as hdus:
        q, step = hdus["psf_interp_solution"].data["q"][0], 0.3
        keep = np.ones((15, 15), bool)
        keep[7, 7] = keep[8, 7] = keep[7, 8] = False
        q = q[keep.ravel()] / q[:, 0].sum() / step**2
        table = np.rec.array([(q,)], dtype=[("q", float, q.shape)])
        hdus["psf_interp_solution"] = fits.BinTableHDU(table, name="psf_interp_solution")
        columns = [hdus["psf_model"].columns[k] for k in ("type", "scale", "size")]
        hdus["psf_model"] = fits.BinTableHDU.from_columns(columns, name="psf_model")
        hdus.writeto(path)
    return against_piff(path, path)


def photutils_grid(samples, x, y):
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel

    meta = {"grid_xypos": [*zip(x, y, strict=True)], "oversampling": 4}
    return GriddedPSFModel(NDData(samples, meta=meta))


def evaluated(model, x, y, shape):
    """A photutils model at the pixels of a star in the middle of a stamp."""
    rows, columns = (np.arange(n) - n // 2 for n in shape)
    dx, dy = np.meshgrid(columns.astype(float), rows.astype(float))
    return model.evaluate(dx + x, dy + y, 1.0, x, y)


def stdpsf(path):
    from photutils.psf import GriddedPSFModel

    raw = GriddedPSFModel.read(psf_files.stdpsf_file(path), format="stdpsf")
    sums = raw.data.sum(axis=(1, 2), dtype=float) / 16
    model = photutils_grid(raw.data.astype(float) / sums[:, None, None], *raw.grid_xypos.T)
    psf = read_psf(path)
    places = ((0.0, 499.0), *PLACES)
    return largest((psf.stamps(x=x, y=y)[0], evaluated(model, x, y, psf.shape)) for x, y in places)


def stpsf_grid(path):
    psf = read_psf(psf_files.stpsf_grid_file(path))
    nodes = [(x, y) for x in (0.0, 500.0, 2047.0) for y in (0.0, 900.0, 2047.0)]
    model = photutils_grid(16.0 * fits.getdata(path).astype(float), *np.array(nodes).T)
    places = ((500.0, 900.0), (2047.0, 0.0), *PLACES)
    return largest((psf.stamps(x=x, y=y)[0], evaluated(model, x, y, psf.shape)) for x, y in places)


def stpsf(path):
    """Even and odd numbers of pixels, the sub-pixels and the pixels."""
    pairs = []
    for pixels in (30, 31):
        file = psf_files.stpsf_file(path.with_suffix(f".{pixels}.fits"), pixels=pixels)
        truth = MoffatPSF(fwhm=2.2, beta=3.0, ellipticity=0.15, angle=30.0).stamps(x=0, y=0, shape=(29, 29))
        pairs += [(read_psf(f"{file}{n}").stamps(x=0, y=0, shape=(29, 29)), truth) for n in ("", "[OVERSAMP]")]
    return largest(pairs)


def sdss(path):
    psf, pairs = read_psf(psf_files.sdss_file(path)), []
    with fits.open(path) as hdus:
        rows = hdus[3].data
        for x, y in ((0.0, 0.0), (1999.0, 20.5), (700.0, 1400.0)):
            row, column, total = y + 0.5, x + 0.5, 0.0
            for k in range(3):
                amount = 0.0
                for i in range(rows["nrow_b"][k]):
                    for j in range(rows["ncol_b"][k]):
                        amount += float(rows["c"][k][i, j]) * (0.001 * row) ** i * (0.001 * column) ** j
                total = total + amount * rows["RROWS"][k].astype(float).reshape(51, 51)
            pairs.append((psf.stamps(x=x, y=y)[0], total / total.sum()))
    return largest(pairs)


def afw(path):
    """The sum that upstream's code makes, written out."""
    psf, pairs = read_psf(lsst_files.afw_file(path)), []
    cube, (zero, scale) = lsst_files.CUBE.astype(float), lsst_files.CONTEXT
    rows, columns = (
        lsst_files.lanczos5(n, (np.arange(m) - m // 2) / 0.7 + n // 2)
        for n, m in zip(cube.shape[1:], psf.shape, strict=True)
    )
    for x, y in PLACES:
        terms = [1.0, (x - zero[0]) / scale[0], (y - zero[1]) / scale[1]]
        stamp = rows @ np.tensordot(terms, cube, 1) @ columns.T
        pairs.append((psf.stamps(x=x, y=y)[0], stamp / stamp.sum()))
    return largest(pairs)


def lsst_images(path):
    """Piff, asked as upstream asks it: positions from 0, the stamp of unit sum."""
    psf, model, pairs = read_psf(lsst_files.lsst_images_file(path)), lsst_files.piff_grid(), []
    for x, y in PLACES:
        drawn = model.draw(x, y, stamp_size=15, center=True).array
        pairs.append((psf.stamps(x=x, y=y)[0], drawn / drawn.sum()))
    return largest(pairs)


def cube(path):
    psf = read_psf(psf_files.cube_file(path))
    low, high = psf_files.stamp(fwhm=3.0 + 0.3 + 0.08), psf_files.stamp(fwhm=3.0 + 0.3 + 1.0)
    return largest([(psf.stamps(x=300.0, y=155.0)[0], 0.75 * low + 0.25 * high)])


def image(path):
    return largest([(read_psf(psf_files.image_file(path)).stamps(x=0, y=0)[0], psf_files.stamp())])


def own(path):
    return largest([(read_psf(psf_files.psfmatch_file(path)).stamps(x=0, y=0)[0], psf_files.stamp())])


def regions(path):
    psf = read_psf(psf_files.regions_file(path))
    left, right = psf.stamps(x=[3.0, 60.0], y=[39.0, 5.0])
    return largest([(left, psf_files.stamp()), (right, psf_files.stamp(fwhm=4.4))])


def photutils_image(path):
    from photutils.psf import ImagePSF

    samples = psf_files.fine_samples(4, (97, 109), fwhm=2.6, integrated=True)
    model = ImagePSF(samples, oversampling=4)
    psf = as_psf(model)
    return largest([(psf.stamps(x=0, y=0)[0], evaluated(model, 0.0, 0.0, psf.shape))])


def galsim_object(path):
    import galsim

    sharp = galsim.GSParams(folding_threshold=1e-6, maxk_threshold=1e-6, kvalue_accuracy=1e-9, maximum_fft_size=32768)
    profile = galsim.Moffat(beta=3.0, fwhm=0.9, gsparams=sharp).shear(q=0.8, beta=25 * galsim.degrees)
    true = MoffatPSF(fwhm=3.0, beta=3.0, ellipticity=0.2, angle=25.0)
    psf = as_psf(profile, pixel_scale=0.3)
    return largest([(psf.stamps(x=0, y=0, shape=(33, 37)), true.stamps(x=0, y=0, shape=(33, 37)))])


def piff_object(path):
    model = psf_files.piff_model("grid")
    x, y = 333.0, 444.0
    drawn = model.draw(x=x + 1, y=y + 1, stamp_size=21, center=True, chipnum=0).array
    return largest([(as_psf(model).stamps(x=x, y=y, shape=(21, 21))[0], drawn)])


POLYNOMIAL = "polynomials of the position, any order"
FILES = (
    Comparison("psfex", "PSFEx, of a DECam CCD", POLYNOMIAL, "GalSim `des.DES_PSFEx`",
               lambda path: psfex(psf_files.PSFEX)),
    Comparison("psfex", "PSFEx, degrees 0 to 5, samples of 0.5 to 1.2 px", POLYNOMIAL, "GalSim `des.DES_PSFEx`",
               psfex_kinds),
    Comparison("piff", "Piff: PixelGrid", POLYNOMIAL + ", on the sky", "Piff", piff_kind("grid")),
    Comparison("piff", "Piff: Moffat", POLYNOMIAL + ", on the sky", "Piff", piff_kind("moffat")),
    Comparison("piff", "Piff: Gaussian, not centred, no pixel", "nothing but the local WCS", "Piff",
               piff_kind("gaussian")),
    Comparison("piff", "Piff: one chip of several, `[7]`", POLYNOMIAL + ", on the sky", "Piff",
               lambda path: against_piff(psf_files.piff_chip_file(path), path, 7)),
    Comparison("piff", "Piff of version 0.2", POLYNOMIAL + ", on the sky", "Piff", old_piff),
    Comparison("stdpsf", "STDPSF", "between the nodes of a grid", "photutils `GriddedPSFModel`", stdpsf),
    Comparison("stpsf", "STPSF, WebbPSF: one PSF", "nothing", "the profile integrated over pixels", stpsf),
    Comparison("stpsf-grid", "STPSF, WebbPSF: a grid", "between the nodes of a grid", "photutils `GriddedPSFModel`",
               stpsf_grid),
    Comparison("sdss", "SDSS psField, `[r]`", "polynomials of row and column", "the recipe that SDSS publishes", sdss),
    Comparison("afw", "Rubin's afw: PsfexPsf", POLYNOMIAL, "upstream's formula, written out", afw),
    Comparison("lsst-images", "Rubin's lsst.images: Piff", POLYNOMIAL, "Piff, asked as upstream does", lsst_images),
    Comparison("cube", "FITS cube and table", "between the nodes of a grid", "its own planes", cube),
    Comparison("image", "FITS stamp", "nothing", "its own pixels", image),
    Comparison("psfmatch", "files of psfmatch", "as written", "what was written", own),
    Comparison("regions", "labels, or TOML of regions", "from region to region", "what was written", regions),
)  # fmt: skip
OBJECTS = (
    Comparison("", "photutils `ImagePSF`, `GriddedPSFModel`", "nothing; between nodes", "photutils", photutils_image),
    Comparison("", "GalSim objects", "the local WCS", "the profile integrated over pixels", galsim_object),
    Comparison("", "Piff objects", "as Piff has it", "Piff", piff_object),
)
