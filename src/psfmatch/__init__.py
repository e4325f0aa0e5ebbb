"""psfmatch: give an astronomical exposure the PSF of your choice, and prove it.

::

    read  ->  sample  ->  solve  ->  convolve  ->  check  ->  write

>>> import psfmatch
>>> matched = psfmatch.match(exposure, "moffat:fwhm=5,beta=3.5")  # doctest: +SKIP
>>> matched.quality  # doctest: +SKIP

The public names stand here one by one, and each is loaded when it is first asked for.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psfmatch.check import Check, Deviation, Verdict, check
    from psfmatch.coadd import ClippedMean, Coadd, CoaddInput, Combined, Mean, Median, Recipe, coadd, combine
    from psfmatch.convolve import FFT, Convolver, Direct, convolve, convolve_many
    from psfmatch.errors import FormatError, InputError, MatchError, PSFError, PsfMatchError, PsfMatchWarning
    from psfmatch.exposure import MASK_PLANES, Exposure, Mask, Planes
    from psfmatch.fields import Field
    from psfmatch.geometry import Box, Position
    from psfmatch.inspection import FrameReport, PSFReport, inspect_file, inspect_psf
    from psfmatch.io import (
        MaskConvention,
        PSFFormat,
        check_psf_format,
        psf_formats,
        read_correlation,
        read_exposure,
        read_kernel,
        read_provenance,
        read_psf,
        write_exposure,
        write_kernel,
        write_matched,
        write_psf,
    )
    from psfmatch.kernel import MatchingKernel
    from psfmatch.match import Matched, match, matching_kernel, planned_match, read_matched
    from psfmatch.noise import NoiseCorrelation, aperture_variance, psf_flux_variance, weighted_variance
    from psfmatch.provenance import History, Provenance
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
    from psfmatch.regions import Regions, RegionsKernel, RegionsPSF, mosaic
    from psfmatch.solve import (
        PCA,
        AlardLupton,
        Clipping,
        Fourier,
        FreeForm,
        Frontier,
        Outcome,
        Padding,
        Regularization,
        Solution,
        Solver,
    )
    from psfmatch.stamps import Stamp
    from psfmatch.stars import HalfSplit, StarPSF, StarSelection, psf_from_stars
    from psfmatch.target import TargetCost, common_target, target_cost
    from psfmatch.warp import Grid, Interpolation, Kaiser, Lanczos, Transform, WarpedPSF, warp

__version__ = "0.1.0"

__all__ = [
    "FFT",
    "MASK_PLANES",
    "PCA",
    "PSF",
    "AlardLupton",
    "BasisPSF",
    "Box",
    "Check",
    "ClippedMean",
    "Clipping",
    "Coadd",
    "CoaddInput",
    "Combined",
    "Convolver",
    "Deviation",
    "Direct",
    "DoubleGaussianPSF",
    "Exposure",
    "Field",
    "FormatError",
    "Fourier",
    "FrameReport",
    "FreeForm",
    "Frontier",
    "FunctionPSF",
    "GaussianPSF",
    "Grid",
    "GridPSF",
    "HalfSplit",
    "History",
    "ImagePSF",
    "InputError",
    "Interpolation",
    "Kaiser",
    "Lanczos",
    "Mask",
    "MaskConvention",
    "MatchError",
    "Matched",
    "MatchingKernel",
    "Mean",
    "Median",
    "MoffatPSF",
    "NoiseCorrelation",
    "Outcome",
    "PSFError",
    "PSFFormat",
    "PSFReport",
    "Padding",
    "Planes",
    "Position",
    "Provenance",
    "PsfMatchError",
    "PsfMatchWarning",
    "Quality",
    "Recipe",
    "Regions",
    "RegionsKernel",
    "RegionsPSF",
    "Regularization",
    "Solution",
    "Solver",
    "Stamp",
    "StarPSF",
    "StarSelection",
    "TargetCost",
    "Transform",
    "Verdict",
    "WarpedPSF",
    "aperture_variance",
    "check",
    "check_psf_format",
    "coadd",
    "combine",
    "common_target",
    "convolve",
    "convolve_many",
    "inspect_file",
    "inspect_psf",
    "match",
    "matching_kernel",
    "measure_quality",
    "mosaic",
    "planned_match",
    "psf_flux_variance",
    "psf_formats",
    "psf_from_stars",
    "read_correlation",
    "read_exposure",
    "read_kernel",
    "read_matched",
    "read_provenance",
    "read_psf",
    "target_cost",
    "warp",
    "weighted_variance",
    "write_exposure",
    "write_kernel",
    "write_matched",
    "write_psf",
]

# The rooms of these names, as the type checker reads them above.
_NAMES = {
    "check": "Check Deviation Verdict check",
    "coadd": "ClippedMean Coadd CoaddInput Combined Mean Median Recipe coadd combine",
    "convolve": "FFT Convolver Direct convolve convolve_many",
    "errors": "FormatError InputError MatchError PSFError PsfMatchError PsfMatchWarning",
    "exposure": "MASK_PLANES Exposure Mask Planes",
    "fields": "Field",
    "geometry": "Box Position",
    "inspection": "FrameReport PSFReport inspect_file inspect_psf",
    "io": "MaskConvention PSFFormat check_psf_format psf_formats read_correlation read_exposure read_kernel "
    "read_provenance read_psf write_exposure write_kernel write_matched write_psf",
    "kernel": "MatchingKernel",
    "match": "Matched match matching_kernel planned_match read_matched",
    "noise": "NoiseCorrelation aperture_variance psf_flux_variance weighted_variance",
    "provenance": "History Provenance",
    "psf": "PSF BasisPSF DoubleGaussianPSF FunctionPSF GaussianPSF GridPSF ImagePSF MoffatPSF",
    "quality": "Quality measure_quality",
    "regions": "Regions RegionsKernel RegionsPSF mosaic",
    "solve": "PCA AlardLupton Clipping Fourier FreeForm Frontier Outcome Padding Regularization Solution Solver",
    "stamps": "Stamp",
    "stars": "HalfSplit StarPSF StarSelection psf_from_stars",
    "target": "TargetCost common_target target_cost",
    "warp": "Grid Interpolation Kaiser Lanczos Transform WarpedPSF warp",
}
_ROOMS = {name: room for room, names in _NAMES.items() for name in names.split()}


class _Package(ModuleType):
    """Loads a name, or a room that has public names, when it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        if name not in _ROOMS and name not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=self)
        module = import_module(f"{__name__}.{_ROOMS.get(name, name)}")
        setattr(self, name, getattr(module, name) if name in _ROOMS else module)
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds a module to its package once it is loaded: `match` and `convolve` stay functions all the same.
        if name in _ROOMS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__, *_NAMES})


sys.modules[__name__].__class__ = _Package
