"""Many exposures of one PSF on one grid into one."""

from psfmatch.coadd.combine import ClippedMean, Combined, CombineMethod, Mean, Median, combine, median_factor
from psfmatch.coadd.inputs import CoaddInput, Recipe
from psfmatch.coadd.plan import Plan, Row, planned
from psfmatch.coadd.run import run_patches
from psfmatch.coadd.task import Coadd, coadd, run_coadd, write_coadd

__all__ = [
    "ClippedMean",
    "Coadd",
    "CoaddInput",
    "CombineMethod",
    "Combined",
    "Mean",
    "Median",
    "Plan",
    "Recipe",
    "Row",
    "coadd",
    "combine",
    "median_factor",
    "planned",
    "run_coadd",
    "run_patches",
    "write_coadd",
]
