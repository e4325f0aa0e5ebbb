"""The smallest target PSF that all inputs reach, and what it costs each of them.

Whether one input reaches a target is foreseen from its transform alone.  Of all kernels with a residual no larger than
the tolerance, the least noisy is ``K = conj(S) T / (|S|^2 + w)``, with the one weight ``w`` that gives this residual;
its noise gain, and the factor ``|K(f) / K(0)|`` by which it amplifies any spatial frequency, fall as the target
broadens.  So the smallest target is found by bisection.  The default solver then confirms it for every input, or it
is enlarged by up to 5 % until it does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import MatchError, PsfMatchWarning
from psfmatch.models import as_psf
from psfmatch.psf import PSF, AnalyticPSF
from psfmatch.solve import FreeForm, Outcome
from psfmatch.target.families import STEP, Ladder, Scaled, ladders, target_width
from psfmatch.target.inputs import Inputs, Limits, Spectra, View, views_of

__all__ = ["TargetCost", "common_target", "target_cost"]

WIDTHS = (0.5, 0.9, 1.1, 1.25, 1.5, 2.0, 2.8, 4.0)
"""Between which a target is bracketed, in units of the broadest input's width."""
ENLARGED = 1.05
"""What the solver does not reach at this multiple of the predicted width is not the target's fault."""
VARYING_SHARE = 0.8
"""Of the tolerance, for an input that varies: the rest is for what the kernel between the cells adds."""


@dataclass(frozen=True)
class TargetCost:
    """What a common target costs one input: the worst over its field.

    Parameters
    ----------
    name : str
        Of the input.
    fwhm : float
        Its own FWHM (pixels) where it is broadest.
    smallest : float
        FWHM (pixels) of the smallest target of the same family that this input alone would allow, as foreseen from
        the transforms; NaN where the target is a fixed image.
    residual : float
        ``norm2(K*S - T) / norm2(T)``.
    noise_gain : float
        ``sum K^2``.
    amplification : float
        The largest factor by which any spatial frequency is amplified relative to the flux, ``max|K(f)| / |K(0)|``.
    kernel_size : int
        Rows and columns of the largest kernel.
    outcome : Outcome
        Of the solver.
    reached : bool
        Whether the residual is within the tolerance, and the noise gain within its limit.
    """

    name: str
    fwhm: float
    smallest: float
    residual: float
    noise_gain: float
    amplification: float
    kernel_size: int
    outcome: Outcome
    reached: bool


def common_target(
    psfs: Inputs,
    *,
    family: str = "moffat",
    tolerance: float = 1e-3,
    max_noise_gain: float | None = None,
) -> PSF:
    """The smallest circular PSF of a family that every input can be given.

    Parameters
    ----------
    psfs : sequence, or mapping from names, of PSF, array or Exposure
        Models, stamps (sy, sx), or exposures with their PSF, all on pixels of one scale.  One that varies is judged
        at the centre and near the corners of its field: of the exposure's box, of the box of a `BasisPSF`'s weights,
        or of a `GridPSF`'s nodes; any other at the origin only.
    family : str
        * ``"moffat"``: with the beta that makes the target smallest (least noise-equivalent area ``1 / sum T^2``),
          from 2.25 to 4.765; or ``"moffat:beta=3.5"``;
        * ``"gaussian"``;
        * ``"double-gaussian"``, or ``"double-gaussian:ratio=2,b=0.1"``, the default;
        * ``"envelope"``: of the inputs' own transforms, the least at each spatial frequency f over all inputs,
          positions and directions, never rising with f,
          ``E(f) = min over g <= f, i, direction of |S_i(g)| / |S_i(0)|``;
          the target is ``max(0, transform^-1 of E)`` of unit sum, dilated as far as the limits ask.
    tolerance : float
        The residual ``norm2(K*S - T) / norm2(T)`` that every input reaches with the default solver.
    max_noise_gain : float, optional
        The limit of ``sum K^2``.  The default is stricter than 1: no spatial frequency of any input may be amplified
        (by more than 5 %), so that nothing is deconvolved.  With 1, white noise summed over all frequencies is not
        amplified, although the sharper structure is, and the target of well-sampled inputs is about 5 % smaller.

    Returns
    -------
    PSF
        With a FWHM in round thousandths of a pixel; of the envelope, an `ImagePSF`.

    Raises
    ------
    PSFError
        If an input cannot be used as a PSF; it is named.
    InputError
        If there is no input, or an option is out of range.
    MatchError
        If no target of the family is foreseen to be reached, with the inputs that are to blame.

    Warns
    -----
    PsfMatchWarning
        If the tolerance is not reached from some inputs, which are named, for another reason than the target's width.

    Examples
    --------
    >>> common_target([GaussianPSF(fwhm=3.0), GaussianPSF(fwhm=4.0)], family="gaussian").fwhm < 4.0
    True
    """
    limits = Limits.of(tolerance, max_noise_gain)
    views = views_of(psfs)
    spectra = Spectra.of(views)
    found: list[tuple[float, Ladder, int]] = []
    for ladder in ladders(family, views, spectra.side):
        step = _smallest(ladder, spectra, limits, range(len(views)))
        if step is not None:
            found.append((_area(ladder.at(step), spectra.side), ladder, step))
    if not found:
        raise MatchError(_nowhere(family, views, spectra, limits))
    _, ladder, step = min(found, key=lambda one: one[0])
    return _confirmed(ladder, step, views, limits)


def target_cost(
    psfs: Inputs, target: PSF | ArrayLike, *, tolerance: float = 1e-3, max_noise_gain: float | None = None
) -> tuple[TargetCost, ...]:
    """What a target costs each of the inputs.

    Parameters
    ----------
    psfs : sequence, or mapping from names, of PSF, array or Exposure
        As of `common_target`.
    target : PSF or array
        The target; a stamp has the shape (sy, sx).
    tolerance : float
        The residual that counts as reached.
    max_noise_gain : float, optional
        As of `common_target`.

    Returns
    -------
    tuple of TargetCost
        One for each input, in their order.

    Raises
    ------
    InputError, PSFError
        As `common_target`.
    """
    limits = Limits.of(tolerance, max_noise_gain)
    views, wanted = views_of(psfs), as_psf(target)
    spectra = Spectra.of(views)
    ladder = Scaled(wanted, max(view.fwhm for view in views)) if isinstance(wanted, AnalyticPSF) else None
    costs = []
    for name in dict.fromkeys(view.name for view in views):
        rows = [k for k, view in enumerate(views) if view.name == name]
        trials = [_tried(views[k], wanted, limits) for k in rows]
        worst = max(trials, key=lambda trial: trial.excess)
        residual, gain = max(trial.residual for trial in trials), max(trial.gain for trial in trials)
        step = None if ladder is None else _smallest(ladder, spectra, limits, rows)
        costs.append(
            TargetCost(
                name=name,
                fwhm=max(views[k].fwhm for k in rows),
                smallest=np.nan if ladder is None or step is None else target_width(ladder.at(step)),
                residual=residual,
                noise_gain=gain,
                amplification=max(trial.amplification for trial in trials),
                kernel_size=max(trial.size for trial in trials),
                outcome=worst.outcome,
                reached=residual <= limits.tolerance and gain <= limits.gain,
            )
        )
    return tuple(costs)


def _smallest(ladder: Ladder, spectra: Spectra, limits: Limits, rows: Sequence[int]) -> int | None:
    """The lowest step that all of some views are foreseen to reach; None if there is none."""

    def affordable(step: int) -> bool:
        return spectra.affordable(ladder.power(step, spectra.side), limits, rows)

    low, *steps = (round(float(np.log(factor) / np.log(STEP))) for factor in WIDTHS if factor <= ladder.widest)
    for high in steps:
        if affordable(high):
            break
        low = high
    else:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if affordable(middle) else (middle, high)
    return high


def _nowhere(family: str, views: Sequence[View], spectra: Spectra, limits: Limits) -> str:
    """What is said where no target is found: the inputs that alone have none."""
    shapes = ladders(family, views, spectra.side)
    alone = [
        view.name for k, view in enumerate(views) if all(_smallest(s, spectra, limits, [k]) is None for s in shapes)
    ]
    return (
        f"no {family} target is foreseen to be reached from {', '.join(dict.fromkeys(alone)) or 'all inputs at once'}, "
        "however wide; leave it out, raise the tolerance or max_noise_gain, or take another family"
    )


def _area(target: PSF, side: int) -> float:
    """The noise-equivalent area ``1 / sum T^2``: the pixels whose noise a point source is measured against."""
    odd = side - 1 + side % 2
    return 1.0 / float((target.stamps(x=0, y=0, shape=(odd, odd)) ** 2).sum())


@dataclass(frozen=True)
class _Trial:
    """What the default solver makes of one view; ``excess`` is above 1 where a limit is broken, ``limit`` says why."""

    residual: float
    gain: float
    amplification: float
    size: int
    outcome: Outcome
    excess: float
    limit: str


def _tried(view: View, target: PSF, limits: Limits) -> _Trial:
    default = FreeForm()
    solver = FreeForm(tolerance=limits.tolerance, max_noise_gain=max(default.max_noise_gain, limits.gain))
    solution = solver.solution(view.psf, target, view.box)
    kernel = solution.kernel.stamps(x=0, y=0)[0]
    side = 2 * max(kernel.shape)
    transform = np.abs(np.fft.rfft2(kernel, (side, side)))
    residual = float(solution.statistics["predicted_residual"])
    gain, amplification = float((kernel**2).sum()), float(transform.max() / transform[0, 0])
    share = VARYING_SHARE if view.varying else 1.0
    excess = max(residual / (share * limits.tolerance), gain / limits.gain)
    limit = str(solution.statistics.get("advice", "")).partition("what limits it is ")[2].partition(". ")[0].rstrip(".")
    return _Trial(residual, gain, amplification, max(kernel.shape), solution.outcome, excess, limit)


def _confirmed(ladder: Ladder, step: int, views: Sequence[View], limits: Limits) -> PSF:
    """The first target from a step on that the solver reaches from every input that it can at all."""
    last = step + round(float(np.log(ENLARGED) / np.log(STEP)))
    trials = [_tried(view, ladder.at(last), limits) for view in views]
    beyond = {view.name for view, trial in zip(views, trials, strict=True) if trial.excess > 1.0}
    missed = {
        view.name: trial.limit for view, trial in zip(views, trials, strict=True)
        if trial.residual > limits.tolerance or trial.gain > limits.gain
    }  # fmt: skip
    hardest = sorted(zip(trials, views, strict=True), key=lambda pair: -pair[0].excess)
    queue = [view for _, view in hardest if view.name not in beyond]
    low, high = step - 1, last
    while queue and high - low > 1:
        middle = step if low < step else (low + high) // 2
        failed = next((view for view in queue if _tried(view, ladder.at(middle), limits).excess > 1.0), None)
        if failed is None:
            high = middle
        else:
            low = middle
            queue.sort(key=lambda view: view is not failed)
    if missed:
        warnings.warn(
            f"a residual of {limits.tolerance:g} is not reached, nor would it be if the target were "
            f"{100 * (ENLARGED - 1):.0f} % wider, from "
            + ", ".join(f"{name} (what limits it is {why})" if why else name for name, why in sorted(missed.items()))
            + ". Raise the tolerance, or leave them out",
            PsfMatchWarning,
            stacklevel=3,
        )
    return ladder.at(high if queue else step)
