"""Figures.  Every function returns a matplotlib figure; to save or show it is the caller's.

Only this room and those above it know matplotlib, and load it when a figure is drawn.  All figures have one style
(`psfmatch.plots.style`): colours that differ for every kind of colour vision and in grey, units in every label, and the
stretch of every image said beside it.
"""

from psfmatch.plots.candidates import candidate, growth
from psfmatch.plots.catalogue import PLOTS, Plot, Subject
from psfmatch.plots.check import check_figure
from psfmatch.plots.field import cells, kernel_field, psf_field, quality_field
from psfmatch.plots.kernels import frontier, frontier_of, kernel_basis, noise, strength_of, transfer
from psfmatch.plots.model import candidates, kernel_coefficients, kernel_spatial_model
from psfmatch.plots.pairs import Pair, hardest, pair
from psfmatch.plots.psfs import psf_over_field
from psfmatch.plots.stars import BeforeAfter, before_after, star_pairs, stars, two_sums
from psfmatch.plots.style import AFTER, BEFORE, TARGET, style

__all__ = [
    "AFTER",
    "BEFORE",
    "PLOTS",
    "TARGET",
    "BeforeAfter",
    "Pair",
    "Plot",
    "Subject",
    "before_after",
    "candidate",
    "candidates",
    "cells",
    "check_figure",
    "frontier",
    "frontier_of",
    "growth",
    "hardest",
    "kernel_basis",
    "kernel_coefficients",
    "kernel_field",
    "kernel_spatial_model",
    "noise",
    "pair",
    "psf_field",
    "psf_over_field",
    "quality_field",
    "star_pairs",
    "stars",
    "strength_of",
    "style",
    "transfer",
    "two_sums",
]
