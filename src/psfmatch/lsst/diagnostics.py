"""What there is to say about a fit, in words."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from psfmatch.fields import n_terms
from psfmatch.lsst.cells import SpatialCellSet
from psfmatch.lsst.kernels import LinearCombinationKernel
from psfmatch.solve import Outcome, Solution

__all__ = ["findings"]

Finding = tuple[int, str]
INFO, WARNING = logging.INFO, logging.WARNING


def findings(cells: SpatialCellSet, solution: Solution, kernel: LinearCombinationKernel, config: Any) -> list[Finding]:
    """Findings about the spatial fit, each with its level (``logging.INFO`` or ``WARNING``)."""
    notes = solution.statistics
    center = solution.kernel.box.center
    out: list[Finding] = []
    if solution.outcome is Outcome.SINGULAR:
        out.append((WARNING, solution.outcome.value))
    total = kernel.kernel.sums(x=center.x, y=center.y)[0]
    box = solution.kernel.box
    sums = solution.kernel.sums(x=[box.x0, box.x0, box.x1, box.x1], y=[box.y0, box.y1, box.y0, box.y1])
    varies = f", {sums.min():.6g} to {sums.max():.6g} in the corners" if np.ptp(sums) > 1e-6 * abs(total) else ""
    out.append((INFO, f"Kernel sum {total:.6g}{varies}, {kernel.getWidth()} x {kernel.getHeight()} px."))
    out += _overwritten(notes["fitted_first_weight"], cells.kernel_sum, solution)
    out += _condition(notes["condition_number"], config.maxSpatialConditionNumber)
    out += _candidates(notes)
    terms = n_terms(config.spatialKernelOrder)
    used, pixels, images = notes["cells_used"], notes["pixels_per_cell"], len(solution.kernel.basis)
    out.append(_constrained("kernel", used, terms, f"{terms} terms for each of {images} basis images"))
    if pixels < images:
        out.append(
            (
                WARNING,
                f"Each candidate offers {pixels} pixels for {images} basis images, too few: take a smaller kernel, "
                "larger PSF stamps (autoPadPsfTo, padPsfBy), or fewer Gaussians.",
            )
        )
    if len(notes["background"]):
        terms = len(notes["background"])
        out.append((INFO, "Background coefficients: " + ", ".join(f"{b:.4g}" for b in notes["background"]) + "."))
        out.append(_constrained("background", used, terms, f"{terms} terms"))
    else:
        out.append((INFO, "No background was fitted."))
    return out


def _overwritten(fitted: float, wanted: float, solution: Solution) -> list[Finding]:
    if solution.statistics["basis"] == "delta" or abs(fitted - 1.0) < 0.01:
        return []
    return [
        (
            WARNING,
            f"The fit gave the first coefficient {fitted:.4f}; {wanted:g} was written over it, and the difference sits "
            "in the narrowest Gaussian. Fit the flux in the stamps better (larger PSF stamps, wider alardSigGauss), "
            "or use psfmatch.match, where the kernel sum is part of the fit.",
        )
    ]


def _condition(number: float, limit: float) -> list[Finding]:
    text = f"Condition number of the spatial fit {number:.3e}"
    if number < 0:
        return [(WARNING, f"{text}: negative, so the equations are singular to rounding.")]
    if number > limit:
        return [
            (
                WARNING,
                f"{text}, above maxSpatialConditionNumber = {limit:.3e}: lower alardDegGauss or spatialKernelOrder, "
                "or take a smaller kernel.",
            )
        ]
    return [(INFO, f"{text}, limit {limit:.3e}.")]


def _candidates(notes: Any) -> list[Finding]:
    total, used, skipped = notes["cells"], notes["cells_used"], notes["cells_skipped"]
    rejected = total - used - skipped
    text = f"Candidates: {total} in all, {used} used, {rejected} rejected, {skipped} where a PSF could not be evaluated"
    reasons = {"condition": "ill-conditioned", "single": "badly fitted alone", "sum": "by the kernel sum",
               "spatial": "badly fitted by the spatial model"}  # fmt: skip
    counted = [f"{notes[f'cells_rejected_{k}']} {why}" for k, why in reasons.items() if notes[f"cells_rejected_{k}"]]
    text += f" ({', '.join(counted)})" if counted else ""
    if rejected + skipped > 2 * used:
        return [(WARNING, f"{text}: most are lost; relax the rejection, or mend the PSF model.")]
    return [(INFO, f"{text}.")]


def _constrained(what: str, used: int, terms: int, unknowns: str) -> Finding:
    text = f"Spatial model of the {what}: {used} candidates, {unknowns}"
    cure = f"lower the order ({'spatialKernelOrder' if what == 'kernel' else 'spatialBgOrder'}) or take smaller cells."
    if used < terms:
        return WARNING, f"{text}: underconstrained; {cure}"
    if used <= 2 * terms:
        return WARNING, f"{text}: poorly constrained; {cure}"
    return INFO, f"{text}: well constrained."
