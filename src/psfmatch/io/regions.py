"""Frames whose PSF jumps at borders: the image of labels in a file, and regions told in a text file.

In FITS an image ``LABELS`` of integers (0: no region) has the place of its first pixel in the parent frame in the cards
BOXX0 and BOXY0 (or LTV1 = -x0, LTV2 = -y0; default 0), and for each label n there is one HDU more: ``PSF_n`` (an image,
the stamp; a table, a PSFEx model; or an image (n, sy, sx) with ``PSF_n_WEIGHTS``, see `psfmatch.io.kernels`), or
``KERNEL_n`` with ``KERNEL_n_WEIGHTS``.

A TOML file has a table for each region, numbered 1, 2, 3 ... as they stand::

    [[region]]
    psf = "ccd1.psf"                  # a file beside this one, or in a folder there; or words: moffat:fwhm=4,beta=3
    box = [0, 0, 2046, 4094]          # x0, y0, x1, y1: columns x0 to x1 - 1, rows y0 to y1 - 1

    [[region]]
    psf = "ccd2.psf"
    polygon = [[2080, 0], [4126, 3], [4125, 4094], [2079, 4090]]     # corners x, y
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError, InputError
from psfmatch.geometry import Box
from psfmatch.io.files import existing_file, split_extension
from psfmatch.io.fits import plane
from psfmatch.io.headers import box_cards, origin_of
from psfmatch.io.words import are_words
from psfmatch.psf import PSF
from psfmatch.regions import Regions, RegionsPSF

__all__ = ["LABELS", "is_of_regions", "labels_hdu", "psf_from_toml", "psf_of_regions", "read_regions"]

LABELS = "LABELS"
KEYS = {"psf", "box", "polygon"}


def labels_hdu(regions: Regions) -> Any:
    """The image of labels, compressed."""
    header = fits.Header(box_cards(regions.box))
    return fits.CompImageHDU(np.array(regions.labels), header, name=LABELS, compression_type="GZIP_2")


def read_regions(hdus: fits.HDUList) -> Regions:
    """The regions that the image of labels in a file says.

    Raises
    ------
    FormatError
        If it is none.
    """
    header, labels = hdus[LABELS].header, plane(hdus, hdus[LABELS])
    y0, x0 = origin_of(header)
    try:
        return Regions(labels, Box.from_shape((labels.shape[0], labels.shape[1]), y0=y0, x0=x0))
    except InputError as error:
        raise FormatError(f"{hdus.filename()}: {LABELS}: {error}") from error


def is_of_regions(hdus: fits.HDUList) -> bool:
    """Whether a file holds labels, and PSFs for them."""
    return LABELS in hdus and any(hdu.name.startswith("PSF_") for hdu in hdus)


def psf_of_regions(hdus: fits.HDUList, read: Callable[[fits.HDUList, str], PSF]) -> RegionsPSF:
    """The labels, and the PSF of each, which ``read(hdus, name)`` makes of the HDU of a name.

    Raises
    ------
    FormatError
        If one is missing.
    """
    regions = read_regions(hdus)
    try:
        return RegionsPSF(regions, {k: read(hdus, f"PSF_{k}") for k in regions.boxes if f"PSF_{k}" in hdus})
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(f"{hdus.filename()}: {error}") from error


def psf_from_toml(path: Path, read: Callable[[str], PSF]) -> RegionsPSF:
    """The regions that a TOML file tells, each with its PSF.

    Parameters
    ----------
    path : Path
    read : callable
        What makes a PSF of a file's name or of words.

    Raises
    ------
    FormatError
        If the file is no TOML, or not of this layout.
    InputError
        If two regions overlap.
    """
    try:
        rows = tomllib.loads(existing_file(path).read_text(encoding="utf-8")).get("region")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as TOML: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise FormatError(f"{path}: has no tables [[region]], each with psf and with box or polygon")
    polygons, psfs = {}, {}
    for number, row in enumerate(rows, 1):
        if set(row) - KEYS or "psf" not in row or len(row) != 2:
            raise FormatError(f"{path}: region {number} has {', '.join(row)}; give it psf, and box or polygon")
        polygons[number] = row["polygon"] if "polygon" in row else _corners(row["box"], f"{path}: region {number}")
        psfs[number] = read(_words_or_file(row["psf"], path))
    try:
        return RegionsPSF(Regions.from_polygons(polygons), psfs)
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _words_or_file(text: Any, path: Path) -> str:
    """What a region says of its PSF: words as they are, or a file beside the one that says so."""
    if not isinstance(text, str):
        raise FormatError(f"{path}: psf = {text!r}; give a file's name or words such as moffat:fwhm=4,beta=3")
    file, _ = split_extension(path.parent / text)
    if not os.path.exists(file) and are_words(text):
        return text
    if not os.path.exists(file):
        raise FormatError(f"{path}: psf = {text!r}: there is no such file beside it, nor is it a PSF in words")
    if not Path(os.path.abspath(file)).is_relative_to(os.path.abspath(path.parent)):
        raise FormatError(f"{path}: psf = {text!r} lies elsewhere; put it beside this file, or into a folder there")
    return str(path.parent / text)


def _corners(box: Any, name: str) -> list[tuple[float, float]]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int) for side in box):
        raise FormatError(f"{name}: box = {box}; give four whole numbers [x0, y0, x1, y1]")
    x0, y0, x1, y1 = (side - 0.5 for side in box)
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
