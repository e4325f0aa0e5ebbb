"""The kernel that nobody has to tune: every pixel free, and every choice made from one tolerance."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from psfmatch.cells import SpatialCellSet, sample_at
from psfmatch.errors import InputError, MatchError
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import PSF
from psfmatch.solve.compress import compressed_cells
from psfmatch.solve.solution import Outcome, Solution
from psfmatch.solve.toeplitz import PixelEquations, correlations

__all__ = ["FreeForm"]

log = logging.getLogger(__name__)

EASY = 1e-5
STRENGTHS = tuple(10.0**-k for k in np.arange(2.0, 7.1, 1.0))
PROBE = 17
LARGEST_CONVENIENT = 25
FREE_GAIN = 1.02
WORTH = 0.5
RANK_SHARE = 0.03
ORDER_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class FreeForm:
    """Least squares for every pixel of the kernel, Tikhonov-regularised; all choices follow from the tolerance.

    Parameters
    ----------
    tolerance : float
        The residual ``norm2(K*S - T) / norm2(T)`` to reach.  Accuracy below it is taken where it costs less than
        2 % in noise gain.
    max_noise_gain : float
        The noise gain ``sum K^2`` that the kernel must not exceed.  Only a target sharper than the science PSF, in
        some direction or at some scale, needs more than 1.
    size : int, optional
        Rows and columns of the kernel, odd; default from the residuals of small kernels, extrapolated.
    max_size : int
        The largest kernel that may be chosen.
    strength : float, optional
        Tikhonov weight in units of ``sum T^2``; default from the trade of residual against noise gain.
    order : int, optional
        Total degree of the kernel's variation over the field; default the lowest that follows it.
    max_order : int
        The highest order that may be chosen.
    flux : {"free", "unit", "stamp"} or float
        The sum of the kernel: what the fit makes it; 1; the ratio of the two stamps' sums; or a number.  The
        stamps' cut wings are why ``unit`` is not the best kernel of a finite size.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    tolerance: float = 1e-3
    max_noise_gain: float = 2.0
    size: int | None = None
    max_size: int = 65
    strength: float | None = None
    order: int | None = None
    max_order: int = 6
    flux: Literal["free", "unit", "stamp"] | float = "free"

    def __post_init__(self) -> None:
        for name in ("tolerance", "max_noise_gain"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"FreeForm {name}={value!r}: must be finite and positive")
        for name in ("size", "max_size"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value % 2 == 0):
                raise InputError(f"FreeForm {name}={value!r}: kernel sizes must be odd and positive")
        if self.strength is not None and not self.strength >= 0:
            raise InputError(f"FreeForm strength={self.strength!r}: must not be negative")
        if (self.order is not None and self.order < 0) or self.max_order < 0:
            raise InputError(f"FreeForm order={self.order!r}, max_order={self.max_order!r}: must not be negative")
        if isinstance(self.flux, str) and self.flux not in ("free", "unit", "stamp"):
            raise InputError(f"FreeForm flux={self.flux!r}: choose free, unit, stamp or a number")

    def solution(self, science: PSF, target: PSF, box: Box, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel over a box, with all choices made and told in the statistics.

        Raises
        ------
        MatchError
            If the target is too sharp to be reached within ``max_noise_gain``, or no PSF can be evaluated.
        """
        work = _Work(self, science, target, box)
        work.choose_size_and_strength()
        kernel, cells = work.spatial()
        outcome = Outcome.OK if work.reached <= self.tolerance else Outcome.TOLERANCE_NOT_REACHED
        if work.gain_limited and work.reached > TOO_SHARP * self.tolerance:
            outcome = Outcome.TARGET_TOO_SHARP
        scaled = MatchingKernel(kernel_sum * kernel.basis, kernel.weights)
        return Solution(scaled, outcome, cells, work.statistics())


TOO_SHARP = 10.0


@dataclass
class _Trade:
    """One Tikhonov weight, and the residual and noise gain that it gives."""

    strength: float
    residual: float
    gain: float


@dataclass
class _Work:
    """One run: what has been chosen so far."""

    options: FreeForm
    science: PSF
    target: PSF
    box: Box
    size: int = 0
    strength: float = 0.0
    order: int = 0
    reached: float = np.inf
    between: float = 0.0
    gain: float = np.nan
    gain_limited: bool = False
    path: list[_Trade] = field(default_factory=list)

    def statistics(self) -> dict[str, Any]:
        return {
            "solver": "free-form",
            "kernel_size": self.size,
            "strength": self.strength,
            "order": self.order,
            "predicted_residual": self.reached,
            "residual_between_cells": self.between,
            "noise_gain": self.gain,
            "gain_limited": self.gain_limited,
            "frontier": np.array([[t.strength, t.residual, t.gain] for t in self.path]),
        }

    def choose_size_and_strength(self) -> None:
        """From the pair of stamps that is hardest to match: the centre's, or a corner's."""
        constant = self.science.constant and self.target.constant
        ny, nx = self.box.shape
        center = self.box.center
        offsets = [(0.0, 0.0)] if constant else [(0, 0), (-0.4, -0.4), (-0.4, 0.4), (0.4, -0.4), (0.4, 0.4)]
        cells = self._sample(
            np.array([center.x + dx * nx for _, dx in offsets]), np.array([center.y + dy * ny for dy, _ in offsets])
        )
        pairs = [(s, t) for s, t in zip(cells.science, cells.target, strict=True)]
        probes = [_equations(s, t, min(PROBE, self._cap(s))) for s, t in pairs]
        hardest = int(np.argmax([p.residual(p.solve(1e-4)) for p in probes]))
        given = self.options.strength
        self.strength = self._choose_strength(probes[hardest]) if given is None else given
        self.size = self.options.size or max(self._choose_size(*pair) for pair in pairs)
        if self.options.strength is None:
            self._keep_smooth(_equations(*pairs[hardest], self.size))

    def _keep_smooth(self, equations: PixelEquations) -> None:
        """Raise the strength while the whole kernel is noisier than the small one that it was chosen with."""
        limit = min(
            self.options.max_noise_gain, FREE_GAIN * next(t.gain for t in self.path if t.strength == self.strength)
        )
        while self.strength < STRENGTHS[0] and (equations.solve(self.strength) ** 2).sum() > limit:
            self.strength *= 10.0

    def _cap(self, science: FloatArray) -> int:
        """The largest kernel that stamps of this size support without inventing what lies beyond them."""
        most = int(0.72 * science.shape[0])
        return min(self.options.max_size, most - 1 + most % 2)

    def _choose_strength(self, probe: PixelEquations) -> float:
        """Walk from smooth to sharp while it pays.

        Until the tolerance is met, a step is taken if it lowers the residual by more than the root of what it adds
        in noise gain; after that, as long as all steps together cost less than 2 %.
        """
        options = self.options
        kept: _Trade | None = None
        met: float | None = None
        for strength in STRENGTHS:
            kernel = probe.solve(strength)
            step = _Trade(strength, probe.residual(kernel), float((kernel**2).sum()))
            self.path.append(step)
            if kept is not None:
                if step.gain > options.max_noise_gain:
                    self.gain_limited = kept.residual > options.tolerance
                    break
                if met is not None and step.gain > FREE_GAIN * met:
                    break
                if met is None and step.gain > FREE_GAIN * kept.gain:
                    worth = np.log(kept.residual / step.residual) / np.log(step.gain / kept.gain)
                    if worth < WORTH:
                        break
            kept = step
            if met is None and step.residual <= options.tolerance:
                met = step.gain
        assert kept is not None
        return kept.strength

    def _choose_size(self, science: FloatArray, target: FloatArray) -> int:
        """The smallest kernel with a residual of 1e-5, where that is small; else one with a tenth of the tolerance.

        Residuals of kernels of 9 to 25 px are computed, larger ones extrapolated: they fall as a power of the size.
        """
        cap = self._cap(science)
        known: dict[int, float] = {}
        for size in range(9, LARGEST_CONVENIENT + 1, 4):
            if size > cap:
                return cap
            equations = _equations(science, target, size)
            known[size] = equations.residual(equations.solve(self.strength))
            if known[size] <= EASY:
                return size
        goal = 0.1 * self.options.tolerance
        enough = [size for size, residual in known.items() if residual <= goal]
        if enough:
            return min(enough)
        (n1, r1), (n2, r2) = list(known.items())[-2:]
        slope = np.log(r1 / r2) / np.log(n2 / n1)
        if slope <= 0.1:
            return cap
        wanted = n2 * (r2 / goal) ** (1.0 / slope)
        return cap if wanted >= cap else int(np.ceil(wanted)) // 2 * 2 + 1

    def spatial(self) -> tuple[MatchingKernel, SpatialCellSet]:
        """The kernel over the field: more cells and a higher order until it is true between the cells."""
        if self.science.constant and self.target.constant:
            cells = self._sample(*(np.array([c]) for c in (self.box.center.x, self.box.center.y)))
            kernels, equations = self._solve(cells)
            self._reach(kernels, equations, np.zeros(1))
            return MatchingKernel.constant(kernels[0], self.box), cells
        orders = range(self.options.max_order + 1) if self.options.order is None else (self.options.order,)
        check = self._sample(*_tensor_nodes(self.box, 4, shift=0.37))
        truth, equations = self._solve(check)
        own = np.array([e.residual(k) for e, k in zip(equations, truth, strict=True)])
        best: tuple[float, MatchingKernel, SpatialCellSet, FloatArray] | None = None
        cells, kernels, side = check, truth, 0
        for order in orders:
            if order + 2 > side:
                side = max(4, order + 2)
                cells = self._sample(*_tensor_nodes(self.box, side))
                kernels, _ = self._solve(cells)
            if len(cells) < (order + 1) * (order + 2) // 2:
                break
            kernel, _ = compressed_cells(
                kernels, cells.x, cells.y, self.box, order, RANK_SHARE * self.options.tolerance
            )
            moved = kernel.stamps(x=check.x, y=check.y) - truth
            errors = np.array([e.change(d) for e, d in zip(equations, moved, strict=True)])
            worst = float(errors.max())
            if best is None or worst < best[0]:
                best = worst, kernel, cells, errors
                self.order = order
            if worst <= max(ORDER_SHARE * self.options.tolerance, 0.3 * float(own.max())):
                break
        if best is None:
            raise MatchError(
                f"only {len(cells)} positions could be evaluated, too few for order {self.options.order}; "
                "lower the order or mend the PSF model"
            )
        self.between = best[0]
        self._reach(best[1].stamps(x=check.x, y=check.y), equations, best[3])
        return best[1], best[2]

    def _reach(self, kernels: FloatArray, equations: list[PixelEquations], _: FloatArray) -> None:
        self.reached = max(e.residual(k) for e, k in zip(equations, kernels, strict=True))
        self.gain = float(max((k**2).sum() for k in kernels))

    def _sample(self, x: FloatArray, y: FloatArray) -> SpatialCellSet:
        side = max(self.science.shape) if self.target.resizable else max(*self.science.shape, *self.target.shape)
        return sample_at(self.science, self.target, self.box, x=x, y=y, size=side)

    def _solve(self, cells: SpatialCellSet) -> tuple[FloatArray, list[PixelEquations]]:
        auto, cross = correlations(cells.science, cells.target, self.size)
        power = (cells.target**2).sum(axis=(1, 2))
        equations = [PixelEquations(a, c, float(p)) for a, c, p in zip(auto, cross, power, strict=True)]
        sums = self._sums(cells)
        return np.array([e.solve(self.strength, s) for e, s in zip(equations, sums, strict=True)]), equations

    def _sums(self, cells: SpatialCellSet) -> list[float | None]:
        flux = self.options.flux
        if flux == "free":
            return [None] * len(cells)
        if flux == "stamp":
            return list(cells.target.sum(axis=(1, 2)) / cells.science.sum(axis=(1, 2)))
        return [1.0 if flux == "unit" else float(flux)] * len(cells)


def _equations(science: FloatArray, target: FloatArray, size: int) -> PixelEquations:
    auto, cross = correlations(science[None], target[None], size)
    return PixelEquations(auto[0], cross[0], float((target**2).sum()))


def _tensor_nodes(box: Box, side: int, shift: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Positions (x, y) of ``side`` x ``side`` Chebyshev nodes; shifted ones lie between those of other sides."""
    u = np.cos(np.pi * (np.arange(side) + 0.5 + shift) / (side + 2 * shift))
    ny, nx = box.shape
    x, y = np.meshgrid(box.center.x + 0.5 * nx * u, box.center.y + 0.5 * ny * u)
    return x.ravel(), y.ravel()
