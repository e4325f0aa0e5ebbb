"""PSFs that jump at borders: labels and PSFs in FITS, boxes or polygons in TOML (see `psfmatch.io.regions`)."""

from __future__ import annotations

from functools import partial

from psfmatch.errors import FormatError
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.own import named_psf
from psfmatch.io.regions import is_of_regions, psf_from_toml, psf_of_regions
from psfmatch.regions import RegionsPSF

__all__ = ["FORMAT"]


def _recognises(source: PSFSource) -> bool:
    if source.hdus is not None:
        return source.wanted is None and is_of_regions(source.hdus)
    return source.path.suffix.lower() == ".toml" or b"[[region]]" in source.head


def _read(source: PSFSource, options: PSFOptions) -> RegionsPSF:
    from psfmatch.io.psfs import read_psf

    if source.hdus is None:
        options_of_each = {name: getattr(options, name) for name in ("pixel_scale", "wcs", "allow_pickle")}
        return psf_from_toml(source.path, partial(read_psf, **options_of_each))
    if not is_of_regions(source.hdus):
        raise FormatError(f"{source.path}: has no image LABELS with PSF_1, PSF_2 ...; it is {source.seems()}")
    return psf_of_regions(source.hdus, named_psf)


FORMAT = PSFFormat(name="regions", title="regions with a PSF each", recognises=_recognises, read=_read)
