"""PSFs that jump at borders: labels and PSFs in FITS, boxes or polygons in TOML (see `psfmatch.io.regions`)."""

from __future__ import annotations

import os
from functools import partial

from psfmatch.errors import FormatError
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.own import named_psf
from psfmatch.io.regions import is_of_regions, psf_from_toml, psf_of_regions
from psfmatch.psf import PSF
from psfmatch.regions import RegionsPSF

__all__ = ["FORMAT"]


def _recognises(source: PSFSource) -> bool:
    if source.hdus is not None:
        return source.wanted is None and is_of_regions(source.hdus)
    return source.path.suffix.lower() == ".toml" or b"[[region]]" in source.head


def _read(source: PSFSource, options: PSFOptions) -> RegionsPSF:
    if source.hdus is None:
        return psf_from_toml(source.path, partial(_of_one, options=options))
    if not is_of_regions(source.hdus):
        raise FormatError(f"{source.path}: has no image LABELS with PSF_1, PSF_2 ...; it is {source.seems()}")
    return psf_of_regions(source.hdus, named_psf)


def _of_one(text: str, options: PSFOptions) -> PSF:
    """The PSF of one region, from words or a file that has no regions itself."""
    from psfmatch.io.psfs import read_psf

    if os.path.isfile(text):
        with PSFSource(text) as source:
            if source.hdus is None and _recognises(source):
                raise FormatError(f"{text}: is of regions; a region has one PSF")
    return read_psf(
        text, pixel_scale=options.pixel_scale, wcs=options.wcs, allow_pickle=options.allow_pickle
    )  # fmt: skip


FORMAT = PSFFormat(name="regions", title="regions with a PSF each", recognises=_recognises, read=_read)
