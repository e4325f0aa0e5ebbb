"""What every number says, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["ASKED", "FIGURES", "NOTES", "meaning", "number"]

FIGURES: Mapping[str, tuple[str, str, str]] = {
    "residual": ("residual", "norm2(K*S − T) / norm2(T)", "0.01: the PSFs agree to 1 % in the root-mean-square sense"),
    "max_residual": ("max residual", "max |K*S − T| / max T", "the worst pixel of a star, over the target's peak"),
    "ee_error": (
        "EE error",
        "max over r of |EE(K*S, r) − EE(T, r)|",
        "the largest error of an aperture flux, at any radius",
    ),
    "noise_gain": (
        "noise gain",
        "sum K²",
        "white noise's variance is multiplied by it; above 1: noisier",
    ),
    "negative_flux": (
        "negative flux",
        "sum of |K| where K < 0",
        "large where the kernel sharpens, or follows the noise of PSF stamps; 0 for a pure blur",
    ),
    "kernel_sum": ("kernel sum", "sum K", "the factor on flux"),
}
"""Name, formula and reading of the figures of merit."""

ASKED: Mapping[str, str] = {
    "target": "the PSF that was asked for",
    "asked_sum": "the factor on flux that was asked for",
    "options": "the solver and all its options; None: chosen by the solver",
}

NOTES: Mapping[str, str] = {
    "solver": "how the kernel was found",
    "regions": "regions of the frame that have a kernel of their own",
    "worst_region": "the region that kernel, candidates and all these numbers are of; the figures of merit are of all",
    "regions_lost": "regions without any kernel, left without data",
    "by_hand": "what was set by hand; left out, it is chosen",
    "tolerance": "the residual to reach",
    "max_noise_gain": "the noise gain that the kernel must not exceed",
    "kernel_size": "rows and columns of the kernel, px",
    "strength": "weight of smoothness (Tikhonov or Wiener) against residual, in units of sum T²",
    "strength_chosen_by": "what ended the search for the strength",
    "order": "degree of the kernel's variation over the field",
    "weights": "kind of functions that the variation is made of",
    "predicted_residual": "largest residual at the cells, by the solver's own equations",
    "frontier_ratio": "residual over the least at this size and noise gain; 1: no better kernel exists",
    "residual_between_cells": "what the smooth variation leaves out between the cells, as a residual",
    "misfit_between_cells": "what the smooth variation leaves out between the cells, relative to the kernel",
    "noise_gain": "largest sum K² at the cells",
    "gain_limited": "whether the limit on noise gain ended the choice of the strength",
    "amplification": "max |K(f)| / |K(0)|: how much the most amplified spatial frequency gains",
    "amplified_frequency": "which spatial frequency that is, cycles/px (0.5: Nyquist's)",
    "amplified_share": "share of the spatial frequencies that gain more than 5 %",
    "demanded_amplification": "what the pair of PSFs demands for the tolerance",
    "demanded_frequency": "at which spatial frequency, cycles/px",
    "missing_flux_science": "flux beyond the science PSF's stamp, over that in it; blank: lost in the noise",
    "missing_flux_error_science": "its standard error",
    "missing_flux_target": "flux beyond the target PSF's stamp, over that in it; blank: lost in the noise",
    "missing_flux_error_target": "its standard error",
    "noise_science": "noise of the science PSF's stamp, over its peak",
    "noise_target": "noise of the target PSF's stamp, over its peak",
    "basis": "what the kernel is built of",
    "basis_mode": "whether the Gaussians were chosen to blur or to sharpen",
    "sigmas": "widths of the Gaussians, px",
    "degrees": "degrees of the polynomials times each Gaussian",
    "fwhm_science": "FWHM of the science PSF by adaptive moments, px",
    "fwhm_target": "FWHM of the target PSF by adaptive moments, px",
    "condition_number": "of the spatial fit: beyond 1e9 its last digits are noise",
    "fitted_first_weight": "the first weight as it was fitted",
    "unknowns": "coefficients that were fitted",
    "pixels_per_cell": "pixels that each candidate offers",
    "cells": "candidates in all",
    "cells_used": "candidates that the kernel was fitted to",
    "cells_skipped": "positions where a PSF could not be evaluated",
    "cells_rejected_condition": "candidates rejected because their own equations are ill-conditioned",
    "cells_rejected_single": "candidates rejected because their own kernel fits them badly",
    "cells_rejected_sum": "candidates rejected because of their kernel sum",
    "cells_rejected_spatial": "candidates rejected because the spatial model fits them badly",
    "background": "coefficients of the fitted background",
    "penalty": "what large kernels are penalised by",
    "padded_size": "side of the transforms, px",
}
"""Of what the solvers note."""
ELSEWHERE = {"advice", "used", "frontier", *ASKED}
"""What is said in the verdict, or drawn."""


def meaning(name: str) -> str:
    """The sentence of a statistic; empty for one that is not for this table."""
    return "" if name in ELSEWHERE else NOTES.get(name, "as the solver noted it")


def number(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return "—" if not np.isfinite(value) else f"{float(value):.4g}"
    if isinstance(value, np.ndarray | tuple | list):
        flat = np.ravel(np.asarray(value))
        return ", ".join(number(item) for item in flat[:12]) + (" …" if flat.size > 12 else "")
    return str(value)
