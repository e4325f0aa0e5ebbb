"""The figures by name, as the command line and the report draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.match import Matched
from psfmatch.plots.candidates import candidate, growth
from psfmatch.plots.field import cells, kernel_field, psf_field, quality_field
from psfmatch.plots.kernels import frontier, kernel_basis, noise, transfer
from psfmatch.plots.stars import stars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "Plot", "Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is drawn: a match, with the image as it was before, and the number of a candidate, where they matter."""

    matched: Matched
    before: Exposure | None = None
    number: int | None = None


@dataclass(frozen=True)
class Plot:
    """A figure, in words, and how it is drawn."""

    words: str
    draw: Callable[[Subject], Figure]


def _stars(subject: Subject) -> Figure:
    if subject.before is None:
        raise InputError("stars are shown before and after: give the image that was matched (--before)")
    return stars(subject.before, subject.matched)


PLOTS: Mapping[str, Plot] = {
    "psf-field": Plot(
        "FWHM and ellipticity of the PSF over the field, before and after", lambda s: psf_field(s.matched)
    ),
    "quality": Plot(
        "residual and encircled-energy error over the field, where they were measured",
        lambda s: quality_field(s.matched),
    ),
    "candidate": Plot(
        "one candidate: science PSF, kernel, matched PSF, target, residual",
        lambda s: candidate(s.matched, number=s.number),
    ),
    "growth": Plot(
        "enclosed flux of the PSF models before and after, and its difference from the target's",
        lambda s: growth(s.matched),
    ),
    "kernel-field": Plot("the matching kernel over the field", lambda s: kernel_field(s.matched)),
    "kernel-basis": Plot("the kernel's basis images and their weight maps", lambda s: kernel_basis(s.matched)),
    "transfer": Plot(
        "spatial frequencies of the PSFs and the kernel, and what was deconvolved",
        lambda s: transfer(s.matched, number=s.number),
    ),
    "frontier": Plot(
        "residual and noise gain against kernel size, with that of the match marked",
        lambda s: frontier(s.matched, number=s.number),
    ),
    "noise": Plot(
        "the correlation of neighbouring pixels' noise, and the error of an aperture",
        lambda s: noise(NoiseCorrelation.of_kernel(s.matched.solution.kernel)),
    ),
    "cells": Plot("the spatial cells and their candidates on the image", lambda s: cells(s.matched, before=s.before)),
    "stars": Plot("stars in the pixels, before and after matching (needs --before)", _stars),
}
"""By the names of ``psfmatch plot``."""
