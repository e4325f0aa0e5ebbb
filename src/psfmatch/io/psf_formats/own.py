"""The PSF in a file that psfmatch wrote: the target of a match, or the PSF of an exposure."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.io.fits import native, plane
from psfmatch.io.kernels import read_basis
from psfmatch.io.psf_formats import psfex
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.regions import is_of_regions, psf_of_regions
from psfmatch.psf import PSF, BasisPSF, GridPSF, ImagePSF

__all__ = ["FORMAT", "named_psf", "stored_psf"]


def stored_psf(hdus: fits.HDUList) -> PSF | None:
    """The PSF in a file of psfmatch: the target of a match, or the PSF of an exposure."""
    if "TARGET" in hdus:
        return ImagePSF(plane(hdus, hdus["TARGET"]))
    if is_of_regions(hdus):
        return psf_of_regions(hdus, named_psf)
    if "PSF_WEIGHTS" in hdus or ("PSFMATCH" in hdus[0].header and "PSF" in hdus):
        return named_psf(hdus, "PSF")
    return None


def named_psf(hdus: fits.HDUList, name: str) -> PSF:
    """The PSF of this name: a basis with weights, stamps on a grid, a PSFEx model, or a stamp."""
    if f"{name}_WEIGHTS" in hdus:
        basis, weights = read_basis(hdus, name)
        return BasisPSF(basis, weights, normalize=bool(hdus[f"{name}_WEIGHTS"].header.get("NORMALIZ", False)))
    if f"{name}_NODES" in hdus:
        return _grid(hdus, name)
    if psfex.models([hdus[name]]):
        return psfex.psf_from_table(hdus, hdus[name])
    return ImagePSF(plane(hdus, hdus[name]))


def _grid(hdus: fits.HDUList, name: str) -> GridPSF:
    """A cube of stamps, and a table of their places, x running fastest."""
    table = hdus[f"{name}_NODES"]
    x, y = (np.unique(native(table.data[axis]).astype(float)) for axis in ("X", "Y"))
    stamps = native(hdus[name].data)
    if stamps.ndim != 3 or len(stamps) != x.size * y.size:
        raise FormatError(f"{hdus.filename()}: {name} of shape {stamps.shape} for a grid of {x.size} x {y.size} nodes")
    images = stamps.reshape(y.size, x.size, *stamps.shape[1:])
    return GridPSF(images, x, y, normalize=bool(table.header.get("NORMALIZ", False)))


def _recognises(source: PSFSource) -> bool:
    return source.hdus is not None and source.wanted is None and "PSFMATCH" in source.hdus[0].header


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    psf = None if source.hdus is None else stored_psf(source.hdus)
    if psf is not None:
        return psf
    if source.has("KERNEL"):
        raise FormatError(f"{source.path}: holds a matching kernel, no PSF; if it is meant, say {source.path}[KERNEL]")
    raise FormatError(f"{source.path}: holds no PSF; it is {source.seems()}")


FORMAT = PSFFormat(name="psfmatch", title="a file of psfmatch with a PSF in it", recognises=_recognises, read=_read)
