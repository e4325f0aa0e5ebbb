"""Small outputs of a version, kept so that later versions are held to reading them: see ``tests/data/golden``.

``python tests/golden.py`` writes those of the version that is installed, beside those of the versions before it, whose
files are never made again.  ``numbers.json`` holds what `measured` found in them on that day.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from psfmatch import Box, Exposure, Field, FreeForm, FunctionPSF, Grid, Mask, MoffatPSF, Regions, RegionsPSF
from psfmatch.cli import main
from psfmatch.io import read_cells, read_notes, read_quality, write_lsst_images

FOLDER = Path(__file__).parent / "data" / "golden"
SHAPE, ORIGIN = (47, 58), (-3, 21)
BOX = Box.from_shape(SHAPE, y0=ORIGIN[0], x0=ORIGIN[1])
TARGET = MoffatPSF(fwhm=4.4, beta=3.5, size=15)
PLACES = {"x": np.array([24.0, 45.5, 73.0]), "y": np.array([1.0, 20.25, 39.0])}
MATCHES = ("polynomial.fits.gz", "spline.fits.gz", "regions.fits.gz", "packed.fits.fz")
RUBIN = "rubin.fits"
FILES = (*MATCHES, "kernel.fits.gz", "coadd.fits.gz", "plain.fits", "target.fits", RUBIN)


def make(folder: Path) -> None:
    """All files of the installed version, into an empty folder; that of ``lsst.images`` where this is installed."""
    solver = FreeForm(size=9, order=1, tolerance=0.1)
    for name, psf in (("polynomial", FunctionPSF(_drifting, shape=(15, 15))), ("regions", _regions())):
        psfmatch.write_matched(
            psfmatch.match(_frame(psf), TARGET, solver=solver, throw=False), folder / f"{name}.fits.gz"
        )
    matched = psfmatch.match(_frame(FunctionPSF(_drifting, shape=(15, 15))), TARGET, solver=solver, throw=False)
    psfmatch.write_matched(_with_splines(matched), folder / "spline.fits.gz")
    psfmatch.write_matched(matched, folder / "packed.fits.fz")
    psfmatch.write_exposure(_input(0), folder / "plain.fits")
    _run("target", "moffat:fwhm=3.1,beta=3", "gaussian:fwhm=3.4", "-o", str(folder / "target.fits"))
    if find_spec("lsst") and find_spec("lsst.images"):
        write_lsst_images(_frame(None), folder / RUBIN)
    psfmatch.write_kernel(matched.kernel, folder / "kernel.fits.gz", history=matched.exposure.history)
    inputs = folder / "inputs"
    inputs.mkdir()
    for k in range(2):
        psfmatch.write_exposure(_input(k), inputs / f"e{k}.fits")
    words = ["coadd", *map(str, sorted(inputs.iterdir())), "-o", str(folder / "coadd.fits.gz"), "--zero-points"]
    (inputs / "points.csv").write_text("name,zero_point\ne0,25.0\ne1,25.25\n", encoding="utf-8")
    chosen = ["-t", "gaussian:fwhm=1.6arcsec", "--combine", "mean", "--set", "solver.size=9", "--set", "solver.order=0"]
    _run(*words, str(inputs / "points.csv"), *chosen, "--set", "solver.tolerance=0.1")
    for path in inputs.iterdir():
        path.unlink()
    inputs.rmdir()
    (folder / "options.toml").write_text(_run("config"), encoding="utf-8")


def _run(*words: str) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def _drifting(x: float, y: float) -> np.ndarray:
    psf = MoffatPSF(fwhm=2.6 + x / 400, beta=3.2 + y / 300, ellipticity=0.12, angle=25.0)
    return psf.stamps(x=0, y=0, shape=(15, 15))[0]


def _regions() -> RegionsPSF:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = np.where(x < 26 + y // 8, 2, 5).astype(np.int16)
    psfs = {2: MoffatPSF(fwhm=2.7, beta=3.0, size=15), 5: MoffatPSF(fwhm=3.4, beta=3.3, size=15)}
    return RegionsPSF(Regions(labels, BOX), psfs)


def _frame(psf: object) -> Exposure:
    """Noise with a gap, flags and an origin, on the sky."""
    rng = np.random.default_rng(20)
    image = rng.normal(80.0, 4.0, SHAPE).astype(np.float32)
    image[11:13, 30:35] = np.nan
    flags = np.zeros(SHAPE, np.int32)
    flags[40, 7] = 1 << 3
    variance = np.full(SHAPE, 16.0, np.float32)
    variance[:, 20:] = 17.5
    wcs = Grid.centered(187.7, 12.39, shape=SHAPE, pixel_scale=0.263, rotation=20.0).wcs
    meta = {"FILTER": "z", "EXPTIME": 90.0, "A LONG NAME OF MINE": 3.5, "HISTORY": "flat-fielded"}
    return Exposure(image, variance=variance, mask=Mask(flags).with_planes(["STREAK"]), box=BOX, psf=psf, wcs=wcs,
                    unit="nJy", meta=meta)  # fmt: skip


def _with_splines(matched: psfmatch.Matched) -> psfmatch.Matched:
    """The same match with weights that are splines, which only wide fields get by themselves."""
    from dataclasses import replace

    basis = matched.kernel.basis
    coefficients = np.random.default_rng(3).normal(1.0, 0.2, (len(basis), 16))
    kernel = psfmatch.MatchingKernel(basis, Field(coefficients, BOX, "spline"))
    exposure = psfmatch.convolve(_frame(None), kernel).replace(psf=matched.exposure.psf)
    return replace(matched, kernel=kernel, exposure=exposure, solution=replace(matched.solution, kernel=kernel))


def _input(k: int) -> Exposure:
    rng = np.random.default_rng(k)
    wcs = Grid.centered(187.7 + 1e-4 * k, 12.39, shape=(45, 52), pixel_scale=0.263, rotation=5.0 * k).wcs
    psf = MoffatPSF(fwhm=3.0 + 0.4 * k, beta=3.0, size=15)
    stamp = psf.stamps(x=0, y=0)[0]
    image = rng.normal(0.0, 2.0, (45, 52))
    image[14:29, 20:35] += 4e3 * stamp
    return Exposure(image.astype(np.float32), variance=np.full((45, 52), 4.0, np.float32), psf=psf, wcs=wcs)


def measured(folder: Path) -> dict[str, dict[str, object]]:
    """What today's readers find in the files, as JSON has it."""
    out = {name: _of_exposure(folder / name) | _of_match(folder / name) | _made(folder / name) for name in MATCHES}
    coadd = folder / "coadd.fits.gz"
    noise = psfmatch.read_correlation(coadd).stamps(x=np.array([20.0]), y=np.array([25.0]))[0]
    with fits.open(coadd) as hdus:
        rows = {name: hdus["INPUTS"].data[name].tolist() for name in hdus["INPUTS"].data.names}
        more = {"count": int(hdus["NEXP"].data.sum()), "inputs": rows, "noise": _values(noise)}
    out["coadd.fits.gz"] = _of_exposure(coadd) | more | _made(coadd)
    out["kernel.fits.gz"] = _of_kernel(folder / "kernel.fits.gz") | _made(folder / "kernel.fits.gz")
    target = folder / "target.fits"
    out["target.fits"] = {"psf": _values(psfmatch.read_psf(target).stamps(x=0, y=0)[0])} | _made(target)
    out["plain.fits"] = _of_exposure(folder / "plain.fits") | _made(folder / "plain.fits")
    out[RUBIN] = _of_exposure(folder / RUBIN)
    return json.loads(json.dumps(out))


def _values(image: np.ndarray) -> list[float]:
    """Of the finite pixels: the sum, one of them, and a weighted sum that any shift or swap of the axes changes."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    finite = np.where(np.isfinite(image), image, 0.0).astype(float)
    return [float(finite.sum()), float(finite[5, 7]), float(((x + 3.1 * y) * finite).sum())]


def _of_exposure(path: Path) -> dict[str, object]:
    exposure = psfmatch.read_exposure(path)
    box, middle = exposure.box, exposure.box.center
    lon, lat = exposure.wcs.pixel_to_world_values([0.0, 30.0], [5.0, 40.0])
    mask = exposure.mask
    return {
        "image": _values(exposure.image), "variance": _values(exposure.variance), "dtype": str(exposure.image.dtype),
        "missing": int(np.isnan(exposure.image).sum()), "box": [box.y0, box.x0, box.y1, box.x1],
        "mask": {name: int(mask.any_of(name).sum()) for name in mask.planes}, "bits": dict(mask.planes),
        "psf": exposure.psf and _values(exposure.psf.stamps(x=middle.x, y=middle.y)[0]), "unit": exposure.unit,
        "sky": [*lon.tolist(), *lat.tolist()], "meta": {k: v for k, v in exposure.meta.items() if k != "DATE"},
    }  # fmt: skip


def _of_match(path: Path) -> dict[str, object]:
    quality, cells = read_quality(path), read_cells(path)
    outcome, notes = read_notes(path)
    again = psfmatch.read_matched(path)
    return _of_kernel(path) | {
        "outcome": outcome, "worst": quality.worst, "median": quality.median, "positions": len(quality),
        "notes": {k: v for k, v in notes.items() if isinstance(v, str | int | float) and v == v}, "cells": len(cells),
        "science": _values(cells.science[0]), "cell shape": list(cells.cell_shape),
        "fwhm": [width for width in cells.fwhm if width == width],
        "message": again.solution.message,
    }  # fmt: skip


def _of_kernel(path: Path) -> dict[str, object]:
    kernel = psfmatch.read_kernel(path)
    stamps = kernel.stamps(**PLACES)
    return {"kernel": [_values(stamp) for stamp in stamps], "sums": kernel.sums(**PLACES).tolist()}


def _made(path: Path) -> dict[str, object]:
    return {"provenance": psfmatch.read_provenance(path).as_dict()}


def layout(path: Path) -> dict[str, set[str]]:
    """The keywords and columns of every HDU, by its name."""
    with fits.open(path) as hdus:
        return {
            hdu.name: {*hdu.header, *(hdu.columns.names if isinstance(hdu, fits.BinTableHDU) else ())} for hdu in hdus
        }


if __name__ == "__main__":
    place = FOLDER / psfmatch.__version__
    place.mkdir(parents=True)
    make(place)
    (place / "numbers.json").write_text(
        json.dumps(measured(place), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"{place}: {sum(path.stat().st_size for path in place.iterdir())} bytes")
