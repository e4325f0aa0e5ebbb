"""How smooth a kernel is to be, and how large: residual is bought with noise gain as long as the price is right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from psfmatch.solve.demand import Demand
from psfmatch.solve.toeplitz import PixelEquations

__all__ = ["AS_SMOOTH", "STRENGTHS", "Choice", "Market", "Trade", "choose_size", "choose_strength"]

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
FIRST = 2
"""Where the walk begins; what is smoother is for kernels that ripple, or are too noisy, even there."""
FREE_GAIN = 1.02
AS_SMOOTH = 1.25
WORTH = 0.5
EASY = 1e-5
SIZE_SHARE = 0.2
LEAST_SLOPE = 0.3
TRIAL_SIZES = (9, 13, 17, 21, 25)


@dataclass(frozen=True)
class Trade:
    """One Tikhonov weight, and the kernel that it gives: its residual, its noise gain, and whether it ripples
    (amplifies what nobody demands)."""

    strength: float
    residual: float
    gain: float
    ripples: bool


@dataclass(frozen=True, eq=False)
class Market:
    """The pair on which strengths are tried, with what it demands, and the limits.

    Parameters
    ----------
    equations : PixelEquations
        Of the pair.
    demand : Demand
        Of the pair.
    tolerance, max_noise_gain : float
        As of the solver.
    """

    equations: PixelEquations
    demand: Demand
    tolerance: float
    max_noise_gain: float

    def trade(self, strength: float) -> Trade:
        """What a strength gives, found by solving with it."""
        kernel = self.equations.solve(strength)
        residual = self.equations.residual(kernel)
        ripples = self.demand.exceeded(kernel, residual, self.tolerance)
        return Trade(strength, residual, float((kernel**2).sum()), ripples)

    def cropped(self, size: int) -> Market:
        """The same for smaller kernels."""
        return replace(self, equations=self.equations.cropped(size))


@dataclass(frozen=True)
class Choice:
    """The strengths that were tried, from smooth to sharp, the one that is kept, and whether noise gain ended it."""

    path: tuple[Trade, ...]
    kept: Trade
    gain_limited: bool

    def gain_near(self, strength: float) -> float:
        """The noise gain at the strength nearest to this one."""
        return min(self.path, key=lambda t: abs(np.log(t.strength / strength))).gain


def choose_strength(market: Market, before: Choice | None = None) -> Choice:
    """Walk from smooth to sharp while it pays.

    Until the tolerance is met, a step is taken if it lowers the residual by more than the root of what it adds in
    noise gain; after that, as long as all steps together cost less than 2 %.  No step is taken beyond the limit on
    noise gain, or that amplifies spatial frequencies beyond what the pair demands for its residual; where the walk
    begins with such a kernel, it first goes back.  With a choice made before, for a smaller kernel, the walk begins
    there, but first goes back to where this kernel is no noisier than that one was.
    """
    tolerance, max_noise_gain = market.tolerance, market.max_noise_gain
    first = FIRST if before is None else STRENGTHS.index(before.kept.strength)
    most = np.inf if before is None else AS_SMOOTH * before.kept.gain
    kept = market.trade(STRENGTHS[first])
    while (first > 0 and (kept.ripples or kept.gain > max_noise_gain)) or (first > FIRST and kept.gain > most):
        first -= 1
        kept = market.trade(STRENGTHS[first])
    path = [t for t in (before.path if before else ()) if t.strength > kept.strength] + [kept]
    limited = False
    met = kept.gain if kept.residual <= tolerance else None
    for strength in STRENGTHS[first + 1 :]:
        step = market.trade(strength)
        path.append(step)
        if step.gain > max_noise_gain:
            limited = kept.residual > tolerance
            break
        if step.ripples or not _pays(kept, step, met):
            break
        kept = step
        if met is None and step.residual <= tolerance:
            met = step.gain
    return Choice(tuple(path), kept, limited)


def _pays(kept: Trade, step: Trade, met: float | None) -> bool:
    """Whether a step is worth its noise gain, given the gain at which the tolerance was met."""
    if met is not None:
        return step.gain <= FREE_GAIN * met
    if step.gain <= FREE_GAIN * kept.gain:
        return True
    return bool(np.log(kept.residual / step.residual) >= WORTH * np.log(step.gain / kept.gain))


def choose_size(equations: PixelEquations, strength: float, tolerance: float) -> int:
    """The smallest kernel with a residual of 1e-5, where that is small; else one with a fifth of the tolerance.

    Residuals of kernels of 9 to 25 px are computed, larger ones extrapolated: they fall as a power of the size.
    No kernel may be larger than the one that the equations are for.
    """
    cap = equations.size
    known: dict[int, float] = {}
    for size in TRIAL_SIZES:
        if size > cap:
            return int(cap)
        trial = equations.cropped(size)
        known[size] = trial.residual(trial.solve(strength))
        if known[size] <= EASY:
            return size
    goal = SIZE_SHARE * tolerance
    enough = [size for size, reached in known.items() if reached <= goal]
    if enough:
        return min(enough)
    (n1, r1), (n2, r2) = list(known.items())[-2:]
    slope = np.log(r1 / r2) / np.log(n2 / n1)
    if slope <= LEAST_SLOPE:
        return n2
    wanted = n2 * (r2 / goal) ** (1.0 / slope)
    return cap if wanted >= cap else int(np.ceil(wanted)) // 2 * 2 + 1
