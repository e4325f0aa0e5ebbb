"""Many exposures of one PSF on one grid into one."""

from psfmatch.coadd.combine import ClippedMean, Combined, CombineMethod, Mean, Median, combine, median_factor

__all__ = ["ClippedMean", "CombineMethod", "Combined", "Mean", "Median", "combine", "median_factor"]
