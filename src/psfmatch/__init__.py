"""psfmatch: give an astronomical exposure the PSF of your choice, and prove it.

::

    read  ->  sample  ->  solve  ->  convolve  ->  check  ->  write

>>> import psfmatch
>>> matched = psfmatch.match(exposure, "moffat:fwhm=5,beta=3.5")  # doctest: +SKIP
>>> matched.quality  # doctest: +SKIP
"""

from psfmatch.convolve import FFT, Convolver, Direct, Planes, convolve, convolve_many
from psfmatch.errors import FormatError, InputError, MatchError, PSFError, PsfMatchError, PsfMatchWarning
from psfmatch.exposure import MASK_PLANES, Exposure, Mask
from psfmatch.fields import Field
from psfmatch.geometry import Box, Position
from psfmatch.io import read_exposure, read_kernel, read_psf, write_exposure, write_kernel, write_matched
from psfmatch.kernel import MatchingKernel
from psfmatch.match import Matched, match, matching_kernel
from psfmatch.psf import (
    PSF,
    BasisPSF,
    DoubleGaussianPSF,
    FunctionPSF,
    GaussianPSF,
    GridPSF,
    ImagePSF,
    MoffatPSF,
)
from psfmatch.quality import Quality, measure_quality
from psfmatch.solve import (
    PCA,
    AlardLupton,
    Clipping,
    Fourier,
    FreeForm,
    Outcome,
    Padding,
    Regularization,
    Solution,
    Solver,
)
from psfmatch.target import TargetCost, common_target, target_cost

__version__ = "0.1.0"

__all__ = [
    "FFT",
    "MASK_PLANES",
    "PCA",
    "PSF",
    "AlardLupton",
    "BasisPSF",
    "Box",
    "Clipping",
    "Convolver",
    "Direct",
    "DoubleGaussianPSF",
    "Exposure",
    "Field",
    "FormatError",
    "Fourier",
    "FreeForm",
    "FunctionPSF",
    "GaussianPSF",
    "GridPSF",
    "ImagePSF",
    "InputError",
    "Mask",
    "MatchError",
    "Matched",
    "MatchingKernel",
    "MoffatPSF",
    "Outcome",
    "PSFError",
    "Padding",
    "Planes",
    "Position",
    "PsfMatchError",
    "PsfMatchWarning",
    "Quality",
    "Regularization",
    "Solution",
    "Solver",
    "TargetCost",
    "common_target",
    "convolve",
    "convolve_many",
    "match",
    "matching_kernel",
    "measure_quality",
    "read_exposure",
    "read_kernel",
    "read_psf",
    "target_cost",
    "write_exposure",
    "write_kernel",
    "write_matched",
]
