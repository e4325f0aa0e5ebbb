"""PSF files of every format that psfmatch reads, made with the formats' own writers or after their documentation.

Each maker writes a file whose content is neither square nor symmetric, and returns what `read_psf` is to be given.
"""

from pathlib import Path

import numpy as np
from astropy.io import fits

import lsst_files
from psfmatch.psf import GaussianPSF, MoffatPSF

STARS = 24
FRAME = (600, 1000)
PSFEX = Path(__file__).parent / "data" / "DECam_00154912_12_psfcat.psf"


def stamp(size=(21, 25), fwhm=3.1, angle=20.0):
    return GaussianPSF(fwhm=fwhm, ellipticity=0.2, angle=angle).stamps(x=0, y=0, shape=size)[0]


def fine_samples(oversampling, size, *, fwhm, integrated, angle=30.0, dx=0.0, dy=0.0):
    """A Moffat at the samples of an oversampled image (the source in the middle): of the flux in a whole pixel about
    each (an effective PSF), or of that in the sample's own small pixel."""
    ny, nx = size
    y, x = (np.arange(n) - (n - 1) / 2 for n in (ny, nx))
    gx, gy = (g.ravel() / oversampling for g in np.meshgrid(x, y))
    true = MoffatPSF(fwhm=fwhm, beta=3.0, ellipticity=0.15, angle=angle)
    if integrated:
        return true.pixels(dx=gx - dx, dy=gy - dy).reshape(ny, nx)
    small = true.scaled(oversampling)
    return small.pixels(dx=oversampling * (gx - dx), dy=oversampling * (gy - dy)).reshape(ny, nx)


def psfmatch_file(path):
    import psfmatch

    frame = psfmatch.Exposure(image=np.random.default_rng(1).normal(size=(40, 50)), psf=psfmatch.ImagePSF(stamp()))
    psfmatch.write_exposure(frame, path)
    return path


def regions_file(path):
    """Two detectors of unlike PSFs, side by side."""
    import psfmatch

    labels = np.zeros((40, 61), np.int16)
    labels[:, :28], labels[:, 28:] = 1, 2
    psfs = {1: psfmatch.ImagePSF(stamp()), 2: psfmatch.ImagePSF(stamp(fwhm=4.4))}
    psfmatch.write_psf(psfmatch.RegionsPSF(psfmatch.Regions(labels), psfs), path)
    return path


def image_file(path):
    fits.PrimaryHDU(stamp()).writeto(path)
    return path


def cube_file(path, *, first=0.0, names=("x", "y")):
    """3 x 2 nodes in no order, with a table of positions."""
    nodes = [(x, y) for y in (40.0, 500.0) for x in (10.0, 300.0, 900.0)]
    nodes = [nodes[k] for k in (3, 0, 5, 1, 4, 2)]
    cube = np.stack([stamp(fwhm=3.0 + x / 1000 + y / 500) for x, y in nodes])
    columns = [fits.Column(name, "D", array=np.array(nodes)[:, k] + first) for k, name in enumerate(names)]
    fits.HDUList([fits.PrimaryHDU(cube), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    return path


def stdpsf_file(path, *, flux=1.03):
    """2 x 3 effective PSFs of 4 samples a pixel, after the published files."""
    nodes_x, nodes_y = (1, 1014), (1, 500, 1014)
    cube = [
        flux * fine_samples(4, (85, 93), fwhm=1.6 + x / 3000 + y / 2000, integrated=True)
        for y in nodes_y
        for x in nodes_x
    ]
    hdu = fits.PrimaryHDU(np.array(cube, np.float32))
    hdu.header["NXPSFS"], hdu.header["NYPSFS"] = len(nodes_x), len(nodes_y)
    for key, nodes in (("IPSFX", nodes_x), ("JPSFY", nodes_y)):
        for k in range(10):
            hdu.header[f"{key}{k + 1:02d}"] = nodes[k] if k < len(nodes) else 9999
    hdu.writeto(path)
    return path


def stpsf_file(path, *, pixels=31, oversampling=4, detector=True):
    """A single PSF as STPSF writes it; the sub-pixel images hold the flux in each sub-pixel."""
    fine = fine_samples(oversampling, (pixels * oversampling,) * 2, fwhm=2.2, integrated=False)
    large = fine.reshape(pixels, oversampling, pixels, oversampling).sum(axis=(1, 3))
    hdus = [fits.PrimaryHDU(fine)]
    names = ("OVERSAMP", "DET_SAMP", "OVERDIST", "DET_DIST") if detector else ("OVERSAMP",)
    for k, name in enumerate(names):
        if k:
            hdus.append(fits.ImageHDU(fine if name.startswith("OVER") else large))
        hdus[k].header["EXTNAME"] = name
        hdus[k].header["DET_SAMP"] = oversampling if name.startswith("OVER") else 1
        hdus[k].header["OVERSAMP"] = oversampling
        hdus[k].header["PIXELSCL"] = 0.031 / hdus[k].header["DET_SAMP"]
    fits.HDUList(hdus).writeto(path)
    return path


def stpsf_grid_file(path, *, scale=1.0 / 16.0):
    """3 x 3 effective PSFs; the positions in the cards are (y, x)."""
    nodes = [(x, y) for x in (0, 500, 2047) for y in (0, 900, 2047)]
    cube = [scale * fine_samples(4, (76, 76), fwhm=2.0 + x / 4000 + y / 2500, integrated=True) for x, y in nodes]
    hdu = fits.PrimaryHDU(np.array(cube))
    hdu.header.update({"OVERSAMP": 4, "DET_SAMP": 4, "FOVPIXEL": 19, "NUM_PSFS": 9, "DETECTOR": "NRCA3"})
    for k, (x, y) in enumerate(nodes):
        hdu.header[f"DET_YX{k}"] = str((float(y), float(x)))
    hdu.writeto(path)
    return path


def psfex_file(path, degree, step, size):
    """A PSFEx model, after the headers of real ones, with terms that are not symmetric."""
    rng, terms = np.random.default_rng(3), (degree + 1) * (degree + 2) // 2
    row, column = (g.astype(float) for g in np.mgrid[:size, :size] - size // 2)
    base = np.exp(-0.5 * ((column * step / 1.8) ** 2 + (row * step / 1.5 - 0.1 * column) ** 2))
    cube = [base, *(0.02 * rng.normal() * base * (column if k % 2 else row) for k in range(1, terms))]
    cube = np.array(cube, np.float32)
    column = fits.Column("PSF_MASK", f"{cube.size}E", dim=str((size, size, terms)), array=cube[None])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    hdu.header.update({
        "LOADED": 10, "ACCEPTED": 9, "CHI2": 1.0, "POLNAXIS": 2, "POLNGRP": 1, "POLDEG1": degree,
        "POLGRP1": 1, "POLNAME1": "X_IMAGE", "POLZERO1": 1000.0, "POLSCAL1": 1900.0,
        "POLGRP2": 1, "POLNAME2": "Y_IMAGE", "POLZERO2": 2100.0, "POLSCAL2": 4000.0, "PSF_FWHM": 3.0,
        "PSF_SAMP": step, "PSFNAXIS": 3, "PSFAXIS1": size, "PSFAXIS2": size, "PSFAXIS3": terms,
    })  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def sdss_file(path):
    """Three eigen-images in each of five bands, of other orders in rows and columns."""
    hdus = [fits.PrimaryHDU()]
    rng = np.random.default_rng(5)
    for band in range(5):
        c = np.zeros((3, 5, 5), np.float32)
        c[:, :3, :2] = rng.normal(scale=0.03, size=(3, 3, 2))
        c[0, 0, 0] += 1.0
        rows = [stamp((51, 51), 3.0 + k + 0.3 * band, angle=30.0 * k) * 1e4 for k in range(3)]
        columns = [fits.Column(n, "J", array=np.full(3, v)) for n, v in
                   (("nrow_b", 3), ("ncol_b", 2), ("RNROW", 51), ("RNCOL", 51))]  # fmt: skip
        columns.append(fits.Column("c", "25E", dim="(5,5)", array=c))
        pixels = np.array([row.ravel().astype(np.float32) for row in rows], dtype=object)
        columns.append(fits.Column("RROWS", "PE()", array=pixels))
        hdus.append(fits.BinTableHDU.from_columns(columns))
    fits.HDUList(hdus).writeto(path)
    return f"{path}[r]"


def _put_on_sky(psf, wcs, pointing):
    if hasattr(psf, "set_context"):
        psf.set_context(wcs, pointing)
    else:  # before Piff 1.7
        psf.wcs, psf.pointing = wcs, pointing


def piff_model(kind="grid", chips=(0,)):
    """A Piff PSF that varies, its parameters set rather than fitted."""
    import galsim
    import piff

    rng = np.random.default_rng(3)
    pointing = galsim.CelestialCoord(30.05 * galsim.degrees, -20.02 * galsim.degrees)
    wcs = {}
    for k, chip in enumerate(chips):
        affine = galsim.AffineTransform(0.02, 0.26, -0.27, 0.01 + 0.02 * k, origin=galsim.PositionD(500, 300))
        wcs[chip] = galsim.TanWCS(affine, galsim.CelestialCoord(30 * galsim.degrees, -20 * galsim.degrees))

    def simple(chip):
        model = {
            "grid": lambda: piff.PixelGrid(0.3, 15, interp="Lanczos(5)"),
            "kolmogorov": lambda: piff.Kolmogorov(),
            "moffat": lambda: piff.Moffat(beta=2.7),
            "gaussian": lambda: piff.Gaussian(include_pixel=False, centered=False),
        }[kind]()
        if kind == "grid":
            interp = piff.BasisPolynomial(2, keys=("u", "v"))
            row, column = np.mgrid[:15, :15] - 7.0
            base = np.exp(-0.5 * ((column / 1.9) ** 2 + (row / 1.4 - 0.2 * column) ** 2))
            terms = [base, *(1e-4 * base * w for w in (row**2, column * row)), *(1e-7 * base * row for _ in range(3))]
            interp.q = np.stack([t.ravel() for t in terms], axis=1)
        elif kind == "gaussian":
            interp = piff.Mean()
            interp.mean = np.array([0.05, -0.08, 0.42, 0.08, -0.05])
        else:
            interp = piff.Polynomial(order=1)
            interp._setup_indices(3)
            interp.coeffs = [np.array([[a, b], [c, 0.0]]) for a, b, c in
                             ((0.6 + 0.05 * chip, 2e-4, -3e-4), (0.05, 1e-4, 0.0), (-0.08, 0.0, 2e-4))]  # fmt: skip
        psf = piff.SimplePSF(model, interp)
        psf.chisq = psf.last_delta_chisq = 1.0
        psf.dof = psf.nremoved = psf.niter = 1
        _put_on_sky(psf, wcs, pointing)
        psf.stars = stars([chip])
        return psf

    def stars(which):
        made = []
        for chip in which:
            for _ in range(STARS):
                x, y = rng.uniform(20, FRAME[1] - 20), rng.uniform(20, FRAME[0] - 20)
                box = galsim.BoundsI(int(x) - 5, int(x) + 5, int(y) - 5, int(y) + 5)
                data = piff.StarData(galsim.Image(box, wcs=wcs[chip]), galsim.PositionD(x, y), pointing=pointing)
                data.properties["chipnum"] = chip
                made.append(piff.Star(data, None))
        return made

    if chips == (0,):
        return simple(0)
    psf = piff.SingleChipPSF(simple(chips[0]))
    _put_on_sky(psf, wcs, pointing)
    psf.psf_by_chip = {chip: simple(chip) for chip in chips}
    psf.stars = stars(chips)
    return psf


def piff_file(path, kind="grid"):
    piff_model(kind).write(str(path))
    return path


def piff_chip_file(path):
    piff_model("moffat", chips=(3, 7)).write(str(path))
    return f"{path}[7]"


MAKERS = {
    "psfmatch": psfmatch_file,
    "regions": regions_file,
    "piff": piff_file,
    "sdss": sdss_file,
    "psfex": lambda path: PSFEX,
    "stdpsf": stdpsf_file,
    "stpsf": stpsf_file,
    "stpsf-grid": stpsf_grid_file,
    "afw": lsst_files.afw_file,
    "lsst-images": lsst_files.lsst_images_file,
    "cube": cube_file,
    "image": image_file,
}
