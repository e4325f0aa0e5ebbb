"""The PSF in a file that psfmatch wrote: the target of a match, or the PSF of an exposure."""

from __future__ import annotations

from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.io.fits import plane
from psfmatch.io.kernels import read_basis
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.psf import PSF, BasisPSF, ImagePSF

__all__ = ["FORMAT", "stored_psf"]


def stored_psf(hdus: fits.HDUList) -> PSF | None:
    """The PSF in a file of psfmatch: the target of a match, or the PSF of an exposure."""
    if "TARGET" in hdus:
        return ImagePSF(plane(hdus, hdus["TARGET"]))
    if "PSF_WEIGHTS" in hdus:
        basis, weights = read_basis(hdus, "PSF")
        return BasisPSF(basis, weights, normalize=bool(hdus["PSF_WEIGHTS"].header.get("NORMALIZ", False)))
    if "PSFMATCH" in hdus[0].header and "PSF" in hdus:
        return ImagePSF(plane(hdus, hdus["PSF"]))
    return None


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
