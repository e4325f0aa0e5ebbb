"""Reading and writing: exposures, PSF models, kernels, noise and figures of merit."""

from psfmatch.io.cells import read_cells, read_notes
from psfmatch.io.exposures import exposures_in, read_exposure
from psfmatch.io.frame_formats import FrameFormat, frame_formats
from psfmatch.io.kernels import correlation_hdus, read_correlation, read_kernel, read_quality, write_kernel
from psfmatch.io.lsst_outputs import write_lsst_images
from psfmatch.io.masks import MaskConvention, mask_convention
from psfmatch.io.outputs import (
    exposure_output,
    layered_output,
    matched_output,
    write_exposure,
    write_matched,
    write_psf,
)
from psfmatch.io.pairs import read_psf_pair
from psfmatch.io.provenance import provenance_hdu, read_provenance
from psfmatch.io.psf_formats import PSFFormat, PSFOptions, PSFSource, check_psf_format, psf_formats
from psfmatch.io.psfs import read_psf, read_stamp

__all__ = [
    "FrameFormat",
    "MaskConvention",
    "PSFFormat",
    "PSFOptions",
    "PSFSource",
    "check_psf_format",
    "correlation_hdus",
    "exposure_output",
    "exposures_in",
    "frame_formats",
    "layered_output",
    "mask_convention",
    "matched_output",
    "provenance_hdu",
    "psf_formats",
    "read_cells",
    "read_correlation",
    "read_exposure",
    "read_kernel",
    "read_notes",
    "read_provenance",
    "read_psf",
    "read_psf_pair",
    "read_quality",
    "read_stamp",
    "write_exposure",
    "write_kernel",
    "write_lsst_images",
    "write_matched",
    "write_psf",
]
