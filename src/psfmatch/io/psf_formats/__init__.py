"""PSF formats, one a file; `registry` says in which order they are asked."""

from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.contract import check_psf_format
from psfmatch.io.psf_formats.registry import psf_formats, recognised

__all__ = ["PSFFormat", "PSFOptions", "PSFSource", "check_psf_format", "psf_formats", "recognised"]
