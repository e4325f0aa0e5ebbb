"""Reading and writing: exposures, PSF models, kernels, noise and figures of merit."""

from psfmatch.io.exposures import read_exposure
from psfmatch.io.kernels import correlation_hdus, read_correlation, read_kernel, read_quality, write_kernel
from psfmatch.io.outputs import exposure_output, layered_output, matched_output, write_exposure, write_matched
from psfmatch.io.pairs import read_psf_pair
from psfmatch.io.psfs import read_psf
from psfmatch.io.stamps import read_stamp

__all__ = [
    "correlation_hdus",
    "exposure_output",
    "layered_output",
    "matched_output",
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
]
