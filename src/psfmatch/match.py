"""Match an exposure, or two PSFs: the one place where the steps are put together."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.cells import check_field, check_smooth
from psfmatch.convolve import Convolver, convolve, convolved
from psfmatch.errors import InputError, MatchError, PSFError, PsfMatchWarning, check_type
from psfmatch.exposure import Exposure, renewed
from psfmatch.geometry import Box, FloatArray, no_unit
from psfmatch.io import read_cells, read_exposure, read_kernel, read_notes, read_psf, read_quality
from psfmatch.io.files import told
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import one_blas_thread, timed
from psfmatch.psf import PSF, ImagePSF, with_size, words_of_psf
from psfmatch.quality import Quality, check_positions, measure_quality
from psfmatch.regions import Regions, RegionsKernel, RegionsPSF, alone
from psfmatch.solve import FreeForm, Outcome, Solution, Solver
from psfmatch.stamps import Stamp, paired

__all__ = ["Matched", "match", "matching_kernel", "planned_match", "read_matched"]

log = logging.getLogger(__name__)

LEAST_SUM, MOST_SUM = 0.5, 1.5
SIDES, LEAST_POSITIONS = (5, 11, 23, 47), 9
Target = PSF | ArrayLike | str | PathLike[str] | Callable[[float, float], Any]


@dataclass(frozen=True, eq=False)
class Matched:
    """A matched exposure, and what proves it.

    Parameters
    ----------
    exposure : Exposure
        With the target as its PSF.
    kernel : MatchingKernel or RegionsKernel
        What it was convolved with.
    quality : Quality
        The kernel's figures, measured at positions off the grid of the cells.
    solution : Solution
        How the kernel was found: outcome, cells, statistics; of a `RegionsKernel`, that of the worst region.
    regions : mapping of int to Solution
        Where the PSF jumps at borders (`RegionsPSF`): how the kernel of each region was found.
    """

    exposure: Exposure
    kernel: MatchingKernel | RegionsKernel
    quality: Quality
    solution: Solution
    regions: Mapping[int, Solution] = field(default_factory=dict)


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

    Where the PSF jumps at borders (`RegionsPSF`), each region is matched as if there were nothing else, and all are put
    together: no light crosses a border, pixels near it are flagged EDGE, and what is in no region is NaN and NO_DATA.

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
        Raise `MatchError` where the outcome is bad; else return what there is, with a warning (without data, where
        a region has no kernel at all).

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
    history = convolved(plan.exposure.history, convolver)
    return replace(plan, exposure=renewed(matched, psf=plan.exposure.psf, history=history))


@one_blas_thread()
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
    no_unit(kernel_sum, "kernel_sum")
    if not (np.isfinite(kernel_sum) and kernel_sum):
        raise InputError(f"kernel_sum={kernel_sum!r}: give a finite number that is not zero")
    if not hasattr(solver, "solution") and solver is not None:
        raise InputError(f"solver {solver!r}: give FreeForm(), AlardLupton(), Fourier() or their like")
    if exposure.psf is None:
        raise InputError(
            "the exposure has no PSF model; give one (psf= in Python, --psf on the command line; "
            "stars makes one of the image's own)"
        )
    if not any(np.isfinite(row).any() for row in exposure.image):
        raise InputError("no pixel of the image is finite; there is nothing to match")
    if exposure.variance is not None and exposure.history.correlated:
        warnings.warn(
            "the noise of this exposure is correlated by an earlier convolution, warp or coadd, of which its variance "
            "knows nothing: that of the result is too small, maybe by several times; match the original",
            PsfMatchWarning,
            stacklevel=4,
        )
    wanted = read_psf(target, pixel_scale=exposure.pixel_scale, wcs=exposure.wcs)
    if isinstance(exposure.psf, RegionsPSF):
        plan = _plan_by_regions(exposure, exposure.psf, wanted, solver, kernel_sum, throw)
    else:
        plan = _plan(exposure, exposure.psf, wanted, solver, kernel_sum, throw)
    log.info("%r", plan.quality)
    words, options = words_of_psf(target), repr(FreeForm() if solver is None else solver)
    asked = {"target": words, "options": options, "asked_sum": kernel_sum}
    files = (target,) if isinstance(target, str | PathLike) else ()
    history = exposure.history.then(
        "match", {"target": words, "solver": options, "kernel_sum": float(kernel_sum)}, files=files
    )
    return replace(
        plan, exposure=renewed(plan.exposure, history=history),
        solution=replace(plan.solution, statistics={**plan.solution.statistics, **asked}),
    )  # fmt: skip


def _plan(
    exposure: Exposure, science: PSF, wanted: PSF, solver: Solver | None, kernel_sum: float, throw: bool,
    region: tuple[Regions, int] | None = None,
) -> Matched:  # fmt: skip
    with timed("solved", "solve"):
        solution = _solve(science, wanted, exposure.box, solver, kernel_sum, throw)
    with timed("measured", "match"):
        quality = measured_quality(solution, science, wanted, exposure.box, kernel_sum, region)
    solution = judged(solution, quality, throw=throw)
    mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
    plan = renewed(exposure, psf=with_size(wanted, max(science.shape)), mask=mask)
    return Matched(plan, solution.kernel, quality, solution)


def _plan_by_regions(
    exposure: Exposure, science: RegionsPSF, wanted: PSF, solver: Solver | None, kernel_sum: float, throw: bool
) -> Matched:
    """The plans of the regions as one."""
    plans: dict[int, Matched] = {}
    failure: MatchError | None = None
    lost = 0
    for label, psf in science.psfs.items():
        part = alone(exposure, science.regions, label)
        if part is None or not np.isfinite(part.image).any():
            log.info("region %d: no data", label)
            continue
        try:
            plans[label] = _plan(part, psf, wanted, solver, kernel_sum, throw, (science.regions, label))
        except MatchError as error:
            failure = MatchError(f"region {label}: {error}", error.solution)
            if throw:
                raise failure from error
            lost += 1
            warnings.warn(f"{failure}; it is left without data", PsfMatchWarning, stacklevel=4)
    if not plans:
        raise failure or InputError("no region of the PSF has data; does its frame have the exposure's coordinates?")
    kernel = RegionsKernel(science.regions, {label: plan.solution.kernel for label, plan in plans.items()})
    worst = max(plans, key=lambda label: _badness(plans[label]))
    solution = plans[worst].solution
    statistics = {"regions": len(plans), "regions_lost": lost, "worst_region": worst, **solution.statistics}
    mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
    return Matched(
        renewed(exposure, psf=with_size(wanted, max(science.shape)), mask=mask), kernel,
        Quality.joined([plan.quality for plan in plans.values()]), replace(solution, statistics=statistics),
        {label: plan.solution for label, plan in plans.items()},
    )  # fmt: skip


def _badness(plan: Matched) -> tuple[bool, bool, float]:
    outcome = plan.solution.outcome
    return not outcome.ok, outcome is not Outcome.OK, plan.quality.worst["residual"]


@one_blas_thread()
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
    check_smooth(science, target)
    for name, psf in (("science", science), ("target", target)):
        total = float(psf.image.sum()) if isinstance(psf, ImagePSF) else 1.0
        if not LEAST_SUM <= total <= MOST_SUM:
            warnings.warn(
                f"the {name} PSF's stamp has the sum {total:.4g}: it is believed, and scales the flux. If it is not "
                "normalised, use Stamp(image, normalize=True) or ImagePSF(image, normalize=True)",
                PsfMatchWarning,
                stacklevel=3,
            )
        check_field(name, psf, box)
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
    if solution.outcome.ok and solution.outcome is not Outcome.OK:
        log.warning(solution.message)
    return _refused(solution, throw)


def judged(solution: Solution, quality: Quality, *, throw: bool = True) -> Solution:
    """The solution, refused where it was measured to be poor: whatever the solver, and whoever set its numbers."""
    tolerance = float(solution.statistics.get("tolerance", 0.0))
    if not solution.outcome.ok or not quality.poor(tolerance):
        return solution
    worst, advice = quality.worst, str(solution.statistics.get("advice", ""))
    said = advice or f"The residual is {worst['residual']:.2g}."
    said += f" The encircled-energy error is up to {worst['ee_error']:.2g}, within {quality.worst_radius:.3g} px."
    statistics = {**solution.statistics, "advice": said}
    return _refused(replace(solution, outcome=Outcome.POOR, statistics=statistics), throw)


def _refused(solution: Solution, throw: bool) -> Solution:
    if not solution.outcome.ok:
        if throw:
            raise MatchError(solution.message, solution)
        warnings.warn(solution.message, PsfMatchWarning, stacklevel=4)
    return solution


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
        target's stamp; of regions, the solution is that of the worst.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged, or is not a matched exposure.
    """
    with told(path):
        outcome, notes = read_notes(path)
        kernel = read_kernel(path)
        worst = kernel.kernels[int(notes["worst_region"])] if isinstance(kernel, RegionsKernel) else kernel
        solution = Solution(worst, Outcome[outcome], read_cells(path), notes)
        return Matched(read_exposure(path), kernel, read_quality(path), solution)


def measured_quality(
    solution: Solution, science: PSF, target: PSF, box: Box, kernel_sum: float,
    region: tuple[Regions, int] | None = None,
) -> Quality:  # fmt: skip
    """The quality where both PSFs can be evaluated, at positions off the grid of the cells (and in a region)."""
    x, y = check_positions(box) if region is None else _positions_within(box, *region)
    try:
        return measure_quality(solution.kernel, science, target, x=x, y=y, kernel_sum=kernel_sum)
    except PSFError:
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


def _positions_within(box: Box, regions: Regions, label: int) -> tuple[FloatArray, FloatArray]:
    """Some 25 positions in a region, among more the less of the box it fills."""
    for side in SIDES:
        x, y = check_positions(box, side)
        inside = np.flatnonzero(regions.at(x=x, y=y) == label)
        if inside.size >= LEAST_POSITIONS:
            break
    else:
        rows, columns = np.nonzero(regions.within(box, label))
        return np.array([box.x0 + columns[columns.size // 2]], float), np.array([box.y0 + rows[rows.size // 2]], float)
    chosen = inside[:: max(1, inside.size // check_positions(box)[0].size)]
    return x[chosen], y[chosen]
