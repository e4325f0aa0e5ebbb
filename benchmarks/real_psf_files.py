#!/usr/bin/env python
"""Real PSF files of many codes: read right, or refused with a reason; and against independent readers.

    python benchmarks/real_psf_files.py [--data ../shared/data/psf_models]

The files are not part of the package: the script needs the folders psfex, piff, stdpsf, sdss_psfield, spitzer_irac,
herschel, jwst_hst_smacs0723, hsc_hst_scarlet, afw_persisted and lsst_images_json under ``--data``, and says so without
them.  The comparisons need galsim, piff, photutils and pydl, and are passed over where one is not installed.  The bar
is 1e-6 of a pixel at unit flux.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch import PSF, read_psf
from psfmatch.errors import PsfMatchError
from psfmatch.geometry import FloatArray
from psfmatch.inspection import inspect_psf
from psfmatch.io import PSFSource
from psfmatch.io.psf_formats import recognised

BAR = 1e-6
ALONG = (0.1, 0.5, 0.85)
CHOICES = {"psField": "[r]", "PSF_HSC": "[0:2]", "test_single": "[1]"}


def listed(data: Path) -> None:
    """Every file: what it is taken for, its FWHM and sum, or why it is refused."""
    for path in sorted(data.glob("*/*")):
        choice = next((choice for name, choice in CHOICES.items() if path.name.startswith(name)), "")
        name = f"{path.relative_to(data)}{choice}"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with PSFSource(f"{path}{choice}") as source:
                    found = recognised(source)
                report = inspect_psf(read_psf(f"{path}{choice}"), mesh=3)
            except PsfMatchError as error:
                print(f"{name:64s} refused: {str(error).replace(str(data), '')[:150]}")
                continue
        low, high = report.fwhm.min(), report.fwhm.max()
        note = f"  ({len(caught)} warning: {str(caught[0].message)[-40:]})" if caught else ""
        kind = found.name if found else ""
        print(f"{name:64s} {kind:10s} FWHM {low:6.3f} to {high:6.3f} px, sum {np.median(report.total):.4f}{note}")


def positions(psf: PSF) -> Iterator[tuple[float, float]]:
    box = psf.field
    for fx, fy in zip(ALONG, reversed(ALONG), strict=True):
        yield (0.0, 0.0) if box is None else (box.x0 + fx * (box.shape[1] - 1), box.y0 + fy * (box.shape[0] - 1))


def difference(psf: PSF, drawn: Callable[[float, float], FloatArray]) -> float:
    return max(float(np.abs(psf.stamps(x=x, y=y)[0] - drawn(x, y)).max()) for x, y in positions(psf))


def psfex(path: Path) -> float:
    import galsim
    from galsim.des import DES_PSFEx

    psf, model = read_psf(path), DES_PSFEx(str(path))

    def drawn(x: float, y: float) -> FloatArray:
        profile, (ny, nx) = model.getPSF(galsim.PositionD(x + 1, y + 1)), psf.shape
        image = profile.drawImage(nx=nx, ny=ny, scale=1.0, method="no_pixel", dtype=float).array
        return image / image.sum()

    return difference(psf, drawn)


def piff_chip(path: Path, chip: int) -> float:
    """A file whose WCS piff can load, with GalSim's accuracy raised."""
    import galsim
    import piff

    psf, model = read_psf(f"{path}[{chip}]"), piff.read(str(path))
    sharp = galsim.GSParams(folding_threshold=3e-6, maxk_threshold=1e-6, kvalue_accuracy=1e-9, maximum_fft_size=32768)

    def drawn(x: float, y: float) -> FloatArray:
        profile, method = model.get_profile(x + 1, y + 1, chipnum=chip)
        local, (ny, nx) = model.wcs[chip].local(galsim.PositionD(x + 1, y + 1)), psf.shape
        return profile.withGSParams(sharp).drawImage(nx=nx, ny=ny, wcs=local, method=method, dtype=float).array

    return difference(psf, drawn)


def piff_without_wcs(path: Path) -> tuple[float, float]:
    """A file whose WCS needs a package that is not on the index: its tables through piff's own classes.

    The WCS is that which the file says of each star; the difference with psfmatch's Jacobian at the star, and with its
    own, which is an interpolation over the stars.
    """
    import galsim
    import piff
    from piff.readers import FitsReader

    psf: Any = read_psf(path)
    with FitsReader.open(str(path)) as reader, reader.nested("psf") as nested:
        model, interp = piff.Model.read(nested, "model"), piff.Interp.read(nested, "interp")
        stars = (
            piff.Star.read_stars(nested, "stars")
            if hasattr(piff.Star, "read_stars")
            else piff.Star.read(nested, "stars")
        )
    same, own = [], []
    for star in stars:
        x, y = star["x"] - 1.0, star["y"] - 1.0
        u, v, jacobian = psf.sky.at(x=np.array([x]), y=np.array([y]))
        local = star.data.local_wcs.jacobian()
        for kept, matrix in ((same, jacobian[0]), (own, local.getMatrix())):
            here = star.withProperties(u=float(u[0]), v=float(v[0]))
            fitted = interp.interpolate(here)
            model.normalize(fitted)
            profile, (ny, nx) = model.getProfile(fitted.fit.get_params(None)), psf.shape
            wcs = galsim.JacobianWCS(*matrix.ravel())
            drawn = profile.drawImage(nx=nx, ny=ny, wcs=wcs, method="no_pixel", dtype=float).array
            kept.append(float(np.abs(psf.stamps(x=x, y=y)[0] - drawn).max() / drawn.max()))
    return max(same), max(own)


def stdpsf(path: Path) -> float:
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel

    psf, raw = read_psf(path), GriddedPSFModel.read(path, format="stdpsf")
    sums = raw.data.sum(axis=(1, 2), dtype=float) / 16
    meta = {"grid_xypos": [tuple(xy) for xy in raw.grid_xypos], "oversampling": 4}
    model = GriddedPSFModel(NDData(raw.data.astype(float) / sums[:, None, None], meta=meta))

    def drawn(x: float, y: float) -> FloatArray:
        rows, columns = (np.arange(n) - n // 2 for n in psf.shape)
        dx, dy = np.meshgrid(columns.astype(float), rows.astype(float))
        return model.evaluate(dx + x, dy + y, 1.0, x, y)

    return difference(psf, drawn)


def sdss(path: Path) -> tuple[float, float, float]:
    """Against pydl, which exchanges the powers of row and column, with these exchanged in what it is given; and how
    much the flux of the model varies over the field in either order."""
    from pydl.photoop.image import sdss_psf_recon

    psf = read_psf(f"{path}[r]")
    with fits.open(path) as hdus:
        rows = hdus[3].data
        names = ("nrow_b", "ncol_b", "RNROW", "RNCOL")
        tables = []
        for turn in (True, False):
            c = np.array(rows["c"], float)
            columns = [np.array(rows[name]) for name in names] + [c.swapaxes(1, 2) if turn else c]
            columns.append(np.array([np.asarray(row, float) for row in rows["RROWS"]]))
            kinds = [*((name, int) for name in names), ("c", float, (5, 5)), ("RROWS", float, columns[-1].shape[1:])]
            table = np.zeros(len(rows), dtype=kinds)
            for (name, *_), column in zip(kinds, columns, strict=True):
                table[name] = column
            tables.append(table)

        def drawn(x: float, y: float) -> FloatArray:
            image = sdss_psf_recon(tables[0], x, y)
            return image / image.sum()

        worst = difference(psf, drawn)
        spreads = []
        for table in tables:
            flux = np.array([sdss_psf_recon(table, x, y).sum() for x in (0, 1024, 2047) for y in (0, 744, 1488)])
            spreads.append(float(flux.std() / flux.mean()))
    return worst, *spreads


def compared(data: Path) -> None:
    have = {name: find_spec(name) is not None for name in ("galsim", "piff", "photutils", "pydl")}
    if have["galsim"]:
        for path in sorted((data / "psfex").glob("*.psf")):
            print(f"{path.name:56s} GalSim     {psfex(path):.1e}")
    if have["piff"]:
        for chip in (1, 2):
            path = data / "piff" / "test_single_py27.piff"
            print(f"{path.name + f'[{chip}]':56s} piff       {piff_chip(path, chip):.1e}")
        path = data / "piff" / "D00240560_r_c01_r2362p01_piff.fits"
        same, own = piff_without_wcs(path)
        print(f"{path.name:56s} piff       {same:.1e} of the peak; with each star's own local WCS {own:.1e}")
    if have["photutils"]:
        for path in sorted((data / "stdpsf").glob("*.fits")):
            print(f"{path.name:56s} photutils  {stdpsf(path):.1e}")
    if have["pydl"]:
        path = data / "sdss_psfield" / "psField-001000-1-0100.fit.gz"
        worst, right, exchanged = sdss(path)
        print(f"{path.name + '[r]':56s} pydl       {worst:.1e}; flux varies by {right:.4f}, else by {exchanged:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=here.parent / "shared" / "data" / "psf_models")
    data = parser.parse_args().data
    if not data.is_dir():
        print(f"{data}: not there; give --data")
        return
    listed(data)
    print(f"\nlargest difference of a pixel at unit flux (bar {BAR:g}):")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the other packages
        compared(data)


if __name__ == "__main__":
    main()
