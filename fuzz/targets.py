"""Every reader of psfmatch that is fuzzed, with the files it starts from and the way they are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import psfmatch
from fuzz import seeds
from fuzz.oracle import Reader
from psfmatch import read_exposure, read_psf
from psfmatch.io import (
    exposures_in,
    mask_convention,
    read_cells,
    read_correlation,
    read_kernel,
    read_notes,
    read_psf_pair,
    read_quality,
    read_stamp,
)
from psfmatch.io.fits import quiet
from psfmatch.io.headers import wcs_cards
from psfmatch.wcs import header_wcs

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A reader and what it is fed.

    Parameters
    ----------
    reader : Reader
        What is called, and which errors it may raise.
    seeds : callable
        ``seeds(folder)`` puts good files into an empty folder and returns their paths.
    name : str
        The name that a changed file gets; formats look at it.
    mutator : str
        One of `fuzz.mutate.MUTATORS`.
    beside : callable, optional
        ``beside(folder)`` puts files there that the reader needs besides.
    """

    reader: Reader
    seeds: Callable[[Path], list[Path]]
    name: str = "in.fits"
    mutator: str = "fits"
    beside: Callable[[Path], Any] | None = None


# ---- what is done with each kind of file


def evaluated(psf: Any) -> None:
    """A PSF that is read can be shown and drawn."""
    repr(psf)
    psf.stamps(x=[10.0, 3.5], y=[12.0, 7.25])


def looked_at(exposure: Any) -> None:
    repr(exposure)
    exposure.mask.any_of("BAD", "NO_DATA")
    if exposure.psf is not None:
        evaluated(exposure.psf)


def _psf(path: Path, format: str, wanted: str = "") -> Any:
    return read_psf(f"{path}{wanted}", format=format, pixel_scale=0.031 if format == "stpsf" else 0.26)


def _regions(path: Path) -> Any:
    return read_psf(path, format="regions")


def _by_content(path: Path) -> Any:
    """As a user gives it, who says nothing of its format."""
    read_stamp(path)
    return read_psf(path)


def _frame(path: Path, format: str) -> Any:
    exposures_in(path)
    return read_exposure(path, format=format)


def _frame_by_content(path: Path) -> Any:
    return read_exposure(path)


def _mapped(path: Path) -> Any:
    return read_exposure(path, memmap=True)


def _companion(path: Path) -> Any:
    """As the mask and as the weight of an image; what is refused as the one may be good as the other."""
    for role in ("weight", "variance"):
        try:
            read_exposure(path.with_name("image.fits"), **{role: path})
        except psfmatch.PsfMatchError as error:
            if path.name not in str(error):
                raise
    return read_exposure(path.with_name("image.fits"), mask=path)


def _words(path: Path) -> Any:
    return read_psf(path.read_bytes().decode("utf-8", "replace"), pixel_scale=0.2)


def _mask_table(path: Path) -> Any:
    return mask_convention(path)


def _translated(convention: Any) -> None:
    repr(convention.mask(np.arange(12, dtype="i4").reshape(3, 4)))


def _options(path: Path) -> Any:
    """The options of a verb, and the parts that they make."""
    from psfmatch.cli.coadd import coadd
    from psfmatch.cli.settings import CLASSES, build

    context = coadd.make_context("coadd", ["--config", str(path), "x.fits", "-o", "out.fits"])
    return build(context.params["config"], (), *CLASSES)


def _zero_points(path: Path) -> Any:
    from psfmatch.cli.coadd import _zero_points

    return _zero_points(path)


def _store(path: Path) -> Any:
    from psfmatch.coadd.store import Store

    store = Store(path.parent)
    return store.words(path.stem), store.arrays(path.stem)


def _store_card(path: Path) -> Any:
    from psfmatch.coadd.store import Store

    return Store.claimed(path.parent, {"inputs": "a.fits", "target": "gaussian:fwhm=4"}, resume=True)


def _grid(path: Path) -> Any:
    from psfmatch.coadd.request import grid_of

    return grid_of(path, [])


def _placed(exposure: Any) -> None:
    """Of the WCS what is made of one: positions, a part, cards, and a WCS of these again."""
    looked_at(exposure)
    if exposure.wcs is not None:
        part = exposure.cutout(replace(exposure.box, y0=exposure.box.y1 - 1)).wcs
        with quiet():  # as files are read
            again = header_wcs(wcs_cards(part))
        for wcs in (exposure.wcs, part, again):
            wcs.pixel_to_world_values([0.0, 5.5], [3.0, -2.0])


def _coadd(path: Path) -> Any:
    from psfmatch.report.coadds import read_coadd

    return read_coadd(path)


def _pair(path: Path) -> Any:
    """As the science image's stamp, and as the target's."""
    return read_psf_pair(path, path), read_psf_pair("gaussian:fwhm=2.5", path, science_scale=0.05)


# ---- the table

_PSF_SEEDS: Mapping[str, Callable[[Path], list[Path]]] = {
    "psfmatch": seeds.own_psf, "regions": seeds.regions, "piff": seeds.piff, "sdss": seeds.sdss_psf,
    "psfex": seeds.psfex, "stdpsf": seeds.stdpsf, "stpsf": seeds.stpsf, "stpsf-grid": seeds.stpsf_grid,
    "afw": seeds.afw, "lsst-images": seeds.tree_psf, "cube": seeds.cubes, "image": seeds.stamps,
}  # fmt: skip
_FRAME_SEEDS: Mapping[str, Callable[[Path], list[Path]]] = {
    "rubin": seeds.rubin, "decam": seeds.decam, "legacypipe": seeds.legacypipe, "jwst": seeds.jwst, "hst": seeds.hst,
    "des": seeds.des, "roman": seeds.roman, "sdss": seeds.sdss, "casu": seeds.casu, "ccddata": seeds.ccddata,
    "generic": seeds.generic, "plain": seeds.generic, "lsst-images": seeds.tree_frame,
}  # fmt: skip
_NAMES = {
    "legacypipe": "legacysurvey-1-image-r.fits.fz", "decam": "c4d_1_ooi_z_ls9.N2.fits", "roman": "in.asdf",
    "lsst-images": "in.json", "sdss": "fpC-001000-r1-0100.fits",
}  # fmt: skip


def _all_psfs(folder: Path) -> list[Path]:
    found = []
    for name in ("psfmatch", "regions", "sdss", "psfex", "stdpsf", "stpsf-grid", "afw", "cube", "image"):
        (folder / name).mkdir()
        found += _PSF_SEEDS[name](folder / name)
    return found


def _all_frames(folder: Path) -> list[Path]:
    found = []
    for name, make in _FRAME_SEEDS.items():
        if name not in ("roman", "lsst-images", "plain"):
            (folder / name).mkdir()
            found += make(folder / name)
    return found


def _image_beside(folder: Path) -> None:
    seeds.save(folder / "image.fits", seeds.image(seeds.PIXELS))


def _psf_target(name: str) -> Target:
    text = name == "lsst-images"
    reader = Reader(partial(_psf, format=name, wanted="[r]" if name == "sdss" else ""), evaluated)
    return Target(reader, _PSF_SEEDS[name], "in.json" if text else "in.fits", "text" if text else "fits")


def _frame_target(name: str) -> Target:
    mutator = "text" if name in ("roman", "lsst-images") else "fits"
    return Target(
        Reader(partial(_frame, format=name), looked_at), _FRAME_SEEDS[name], _NAMES.get(name, "in.fits"), mutator
    )


_CLICK = (click.ClickException,)
TARGETS: Mapping[str, Target] = {
    **{f"psf-{name}": _psf_target(name) for name in _PSF_SEEDS},
    "psf-piff-chip": Target(Reader(partial(_psf, format="piff", wanted="[7]"), evaluated), seeds.piff),
    "psf-cube-plane": Target(Reader(partial(_psf, format="cube", wanted="[0:1]"), evaluated), seeds.cubes),
    "psf-any": Target(Reader(_by_content, evaluated), _all_psfs),
    "psf-regions-toml": Target(Reader(_regions, evaluated), seeds.regions_text, "in.toml", "text"),
    "psf-words": Target(Reader(_words, evaluated, named=False), seeds.words, "in.txt", "text"),
    **{f"frame-{name}": _frame_target(name) for name in _FRAME_SEEDS},
    "frame-lsst-images-fits": Target(Reader(partial(_frame, format="lsst-images"), looked_at), seeds.tree_fits),
    "frame-any": Target(Reader(_frame_by_content, looked_at), _all_frames),
    "frame-mapped": Target(Reader(_mapped, looked_at), _all_frames),
    "companion": Target(Reader(_companion, looked_at), seeds.companion, beside=_image_beside),
    "kernel": Target(Reader(read_kernel), seeds.matched),
    "quality": Target(Reader(read_quality), seeds.matched),
    "cells": Target(Reader(read_cells), seeds.matched),
    "notes": Target(Reader(read_notes), seeds.matched),
    "provenance": Target(Reader(psfmatch.read_provenance, repr), seeds.matched),
    "matched": Target(Reader(psfmatch.read_matched, repr), seeds.matched),
    "correlation": Target(Reader(read_correlation), seeds.correlation),
    "grid": Target(Reader(_grid, repr), _all_frames),
    "world": Target(Reader(_frame_by_content, _placed), seeds.worlds),
    "coadd": Target(Reader(_coadd, repr), seeds.coadd),
    "psf-pair": Target(Reader(_pair, repr), seeds.stamps),
    "mask-table": Target(Reader(_mask_table, _translated), seeds.mask_table, "in.toml", "text"),
    "config": Target(Reader(_options, errors=_CLICK, named=False), seeds.options, "in.toml", "text"),
    "zero-points": Target(Reader(_zero_points, errors=_CLICK), seeds.zero_points, "in.csv", "text"),
    "store": Target(Reader(_store), seeds.store, "kernel.npz", "zip"),
    "store-card": Target(Reader(_store_card, named=False), seeds.store_card, "coadd.json", "text"),
}  # fmt: skip
