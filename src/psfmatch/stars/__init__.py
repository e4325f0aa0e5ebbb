"""Stars in an exposure: where they are, the profile of one, which of them can be trusted, and the PSF they show."""

from psfmatch.stars.empirical import HalfSplit, StarPSF, psf_from_stars
from psfmatch.stars.profile import Star, find_stars, fit_moffat, usable_pixels
from psfmatch.stars.select import Cutout, StarSelection

__all__ = [
    "Cutout",
    "HalfSplit",
    "Star",
    "StarPSF",
    "StarSelection",
    "find_stars",
    "fit_moffat",
    "psf_from_stars",
    "usable_pixels",
]
