"""Many exposures of one PSF on one grid into one."""

from psfmatch.coadd.combine import ClippedMean, Combined, CombineMethod, Mean, Median, combine, median_factor
from psfmatch.coadd.crew import Crew
from psfmatch.coadd.plan import Plan, Row, planned
from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.request import requested
from psfmatch.coadd.run import run_patches
from psfmatch.coadd.sources import CoaddInput
from psfmatch.coadd.store import Store
from psfmatch.coadd.task import Coadd, coadd, run_coadd, write_coadd

__all__ = [
    "ClippedMean",
    "Coadd",
    "CoaddInput",
    "CombineMethod",
    "Combined",
    "Crew",
    "Mean",
    "Median",
    "Plan",
    "Recipe",
    "Row",
    "Store",
    "coadd",
    "combine",
    "median_factor",
    "planned",
    "requested",
    "run_coadd",
    "run_patches",
    "write_coadd",
]
