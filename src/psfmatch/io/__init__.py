"""Reading and writing: exposures, PSF models, kernels and figures of merit."""

from psfmatch.io.exposures import read_exposure
from psfmatch.io.kernels import read_kernel, read_quality, write_kernel
from psfmatch.io.outputs import write_exposure, write_matched
from psfmatch.io.psfs import read_psf

__all__ = [
    "read_exposure",
    "read_kernel",
    "read_psf",
    "read_quality",
    "write_exposure",
    "write_kernel",
    "write_matched",
]
