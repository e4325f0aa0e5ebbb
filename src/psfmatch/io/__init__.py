"""Reading and writing: exposures, PSF models, kernels, noise and figures of merit."""

from psfmatch.io.exposures import read_exposure
from psfmatch.io.kernels import correlation_hdus, read_correlation, read_kernel, read_quality, write_kernel
from psfmatch.io.outputs import exposure_output, matched_output, write_exposure, write_matched, write_psf
from psfmatch.io.pairs import read_psf_pair
from psfmatch.io.psf_formats import PSFFormat, PSFOptions, PSFSource, check_psf_format, psf_formats
from psfmatch.io.psfs import read_psf, read_stamp

__all__ = [
    "PSFFormat",
    "PSFOptions",
    "PSFSource",
    "check_psf_format",
    "correlation_hdus",
    "exposure_output",
    "matched_output",
    "psf_formats",
    "read_correlation",
    "read_exposure",
    "read_kernel",
    "read_psf",
    "read_psf_pair",
    "read_quality",
    "read_stamp",
    "write_exposure",
    "write_kernel",
    "write_matched",
    "write_psf",
]
