"""Match an exposure, or two PSFs: the one place where the steps are put together."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.convolve import Convolver, convolve
from psfmatch.errors import InputError, MatchError, PSFError, PsfMatchWarning, check_type
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box
from psfmatch.io import read_cells, read_exposure, read_kernel, read_notes, read_psf, read_quality
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import timed
from psfmatch.psf import PSF, AnalyticPSF, ImagePSF, with_size
from psfmatch.quality import Quality, check_positions, measure_quality
from psfmatch.solve import FreeForm, Outcome, Solution, Solver
from psfmatch.stamps import Stamp, paired

__all__ = ["Matched", "match", "matching_kernel", "planned_match", "read_matched"]

log = logging.getLogger(__name__)

LEAST_SUM, MOST_SUM = 0.5, 1.5
Target = PSF | ArrayLike | str | PathLike[str] | Callable[[float, float], Any]


@dataclass(frozen=True, eq=False)
class Matched:
    """A matched exposure, and what proves it.

    Parameters
    ----------
    exposure : Exposure
        With the target as its PSF.
    kernel : MatchingKernel
        What it was convolved with.
    quality : Quality
        The kernel's figures, measured at positions off the grid of the cells.
    solution : Solution
        How the kernel was found: outcome, cells, statistics.
    """

    exposure: Exposure
    kernel: MatchingKernel
    quality: Quality
    solution: Solution


def match(
    exposure: Exposure,
    target: Target,
    *,
    solver: Solver | None = None,
    convolver: Convolver | None = None,
    kernel_sum: float = 1.0,
    throw: bool = True,
) -> Matched:
    """Give an exposure the PSF of your choice.

    The two PSFs are sampled in cells over the exposure, a kernel that varies over the field is solved for and measured
    at positions between the cells, and the exposure is convolved with it.

    Parameters
    ----------
    exposure : Exposure
        With its PSF model.
    target : PSF, array, str, path or object
        The wished PSF: a model, a stamp (sy, sx), a file, or words such as ``"moffat:fwhm=5,beta=3.5"`` (pixels)
        or ``"gaussian:fwhm=1.2arcsec"`` (needs a WCS); or whatever `psfmatch.models.as_psf` takes for a PSF.
    solver : Solver, optional
        Default `FreeForm`.
    convolver : Convolver, optional
        Default `FFT`.
    kernel_sum : float
        The flux scale of the result.
    throw : bool
        Raise `MatchError` where the outcome is bad; else return what there is, with a warning.

    Returns
    -------
    Matched
        The exposure with the target as its PSF, the kernel, the quality and the solution.

    Raises
    ------
    InputError
        If the exposure has no PSF, is smaller than the kernel, or the target is in arcseconds and there is no WCS.
    MatchError
        If the kernel cannot be solved (see ``throw``).
    """
    plan = planned_match(exposure, target, solver=solver, kernel_sum=kernel_sum, throw=throw)
    with timed("convolved", "convolve"):
        matched = convolve(exposure, plan.kernel, convolver=convolver)
    return replace(plan, exposure=matched.replace(psf=plan.exposure.psf))


def planned_match(
    exposure: Exposure, target: Target, *, solver: Solver | None = None, kernel_sum: float = 1.0, throw: bool = True
) -> Matched:
    """All of a match but its pixels, before any is touched.

    Parameters
    ----------
    exposure : Exposure
        With its PSF model.
    target : PSF, array, str or path
        As of `match`.
    solver : Solver, optional
        Default `FreeForm`.
    kernel_sum : float
        The flux scale of the result.
    throw : bool
        As of `match`.

    Returns
    -------
    Matched
        Whose exposure has the target as its PSF, and the mask planes that the convolution sets, but still the pixels
        of the input: a plan for `psfmatch.io.matched_output`, into whose planes ``FFT(out=planes)`` convolves a frame
        larger than the memory.

    Raises
    ------
    InputError, MatchError
        As `match`.
    """
    check_type(exposure, Exposure, "exposure", "psfmatch.Exposure(image, psf=...), or read_exposure(path)")
    if not (np.isfinite(kernel_sum) and kernel_sum):
        raise InputError(f"kernel_sum={kernel_sum!r}: give a finite number that is not zero")
    if not hasattr(solver, "solution") and solver is not None:
        raise InputError(f"solver {solver!r}: give FreeForm(), AlardLupton(), Fourier() or their like")
    if exposure.psf is None:
        raise InputError("the exposure has no PSF model; give one (psf= in Python, --psf on the command line)")
    if not any(np.isfinite(row).any() for row in exposure.image):
        raise InputError("no pixel of the image is finite; there is nothing to match")
    wanted = read_psf(target, pixel_scale=exposure.pixel_scale, wcs=exposure.wcs)
    with timed("solved", "solve"):
        solution = _solve(exposure.psf, wanted, exposure.box, solver, kernel_sum, throw)
    asked = {
        "target": _words(target),
        "options": repr(FreeForm() if solver is None else solver),
        "asked_sum": kernel_sum,
    }
    solution = replace(solution, statistics={**solution.statistics, **asked})
    with timed("measured", "match"):
        quality = measured_quality(solution, exposure.psf, wanted, exposure.box, kernel_sum)
    log.info("%r", quality)
    mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
    plan = exposure.replace(psf=with_size(wanted, max(exposure.psf.shape)), mask=mask)
    return Matched(plan, solution.kernel, quality, solution)


def matching_kernel(
    science: PSF | ArrayLike | Stamp,
    target: PSF | ArrayLike | Stamp,
    *,
    box: Box | None = None,
    solver: Solver | None = None,
    throw: bool = True,
) -> Solution:
    """The kernel that turns one PSF into another and moves nothing; no exposure is needed.

    Stamps may be of any size, even or odd, with the source anywhere.  The target's is brought to the pixels and the
    orientation of the science stamp (see `psfmatch.prepare`), and the kernel is in the pixels of the science PSF.
    Stamps of odd size on one grid, whose sources lie within 0.1 px of the middle, are taken as they are.

    Parameters
    ----------
    science, target : PSF, array or Stamp
        Models; plain stamps (sy, sx); or stamps with the scale, position angle and parity of their pixels (see
        `Stamp`).  A model is centred as it is, `ImagePSF` too: it keeps a shift that is meant.
    box : Box, optional
        The region over which the PSFs vary; default the pixel at the origin, enough for PSFs that do not vary.
    solver : Solver, optional
        Default `FreeForm`.
    throw : bool
        Raise `MatchError` where the outcome is bad.

    Returns
    -------
    Solution
        ``solution.kernel.stamps(x=, y=)`` are the kernel images.

    Raises
    ------
    MatchError
        If the kernel cannot be solved.
    PSFError
        If a stamp cannot be used as a PSF.
    InputError
        If only one of the position angles is known, or a target that is no stamp has a scale or an angle.

    Examples
    --------
    Two stamps on pixels of 0.2 and 0.3 arcsec, the second of even size:

    >>> from psfmatch import GaussianPSF, Stamp
    >>> science = Stamp(GaussianPSF(fwhm=3.5).stamps(x=0, y=0)[0], pixel_scale=0.2)
    >>> target = Stamp(np.pad(GaussianPSF(fwhm=4.0).stamps(x=0, y=0)[0], (0, 1)), pixel_scale=0.3)
    >>> matching_kernel(science, target).kernel.shape
    (17, 17)
    """
    pair = paired(science, target)
    return _solve(pair.science, pair.target, Box(0, 0, 1, 1) if box is None else box, solver, 1.0, throw)


def _solve(science: PSF, target: PSF, box: Box, solver: Solver | None, kernel_sum: float, throw: bool) -> Solution:
    for name, psf in (("science", science), ("target", target)):
        total = float(psf.image.sum()) if isinstance(psf, ImagePSF) else 1.0
        if not LEAST_SUM <= total <= MOST_SUM:
            warnings.warn(
                f"the {name} PSF's stamp has the sum {total:.4g}: it is believed, and scales the flux. If it is not "
                "normalised, use Stamp or ImagePSF(image, normalize=True)",
                PsfMatchWarning,
                stacklevel=3,
            )
    solution = (FreeForm() if solver is None else solver).solution(science, target, box, kernel_sum=kernel_sum)
    cells = solution.cells
    if cells.skipped:
        x, y, why = cells.skipped[0]
        warnings.warn(
            f"the PSF could not be evaluated in {len(cells.skipped)} of {len(cells) + len(cells.skipped)} cells, "
            f"which are left out (the first at x={x:g}, y={y:g}: {why})",
            PsfMatchWarning,
            stacklevel=3,
        )
    if not solution.outcome.ok:
        if throw:
            raise MatchError(solution.message, solution)
        warnings.warn(solution.message, PsfMatchWarning, stacklevel=3)
    elif solution.outcome is not Outcome.OK:
        log.warning(solution.message)
    return solution


def _words(target: Target) -> str:
    """What was asked for, as it can be asked for again where it is a model."""
    if isinstance(target, str | PathLike):
        return str(target)
    return repr(target) if isinstance(target, AnalyticPSF) else f"an image ({type(target).__name__})"


def read_matched(path: str | PathLike[str]) -> Matched:
    """Read back what `write_matched` wrote.

    Parameters
    ----------
    path : path
        A matched exposure.

    Returns
    -------
    Matched
        As it was written, but for the stamps of the cells, which are of single precision, and the PSF, which is the
        target's stamp.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged, or is not a matched exposure.
    """
    outcome, notes = read_notes(path)
    kernel = read_kernel(path)
    solution = Solution(kernel, Outcome[outcome], read_cells(path), notes)
    return Matched(read_exposure(path), kernel, read_quality(path), solution)


def measured_quality(solution: Solution, science: PSF, target: PSF, box: Box, kernel_sum: float) -> Quality:
    """The quality where both PSFs can be evaluated, at positions off the grid of the cells."""
    x, y = check_positions(box)
    good: list[Quality] = []
    failure: PSFError | None = None
    for xi, yi in zip(x, y, strict=True):
        try:
            good.append(measure_quality(solution.kernel, science, target, x=xi, y=yi, kernel_sum=kernel_sum))
        except PSFError as error:
            failure = error
    if not good:
        raise MatchError(f"the match could not be measured anywhere: {failure}", solution)
    if failure is not None:
        warnings.warn(
            f"the match could not be measured at {len(x) - len(good)} of {len(x)} positions (the last: {failure})",
            PsfMatchWarning,
            stacklevel=3,
        )
    return Quality.joined(good)
