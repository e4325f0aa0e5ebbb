"""The kernel that nobody has to tune: every pixel free, and every choice made from one tolerance."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from psfmatch.cells import SpatialCellSet, sample_at
from psfmatch.errors import InputError, MatchError
from psfmatch.fields import FieldKind, n_terms
from psfmatch.geometry import Box, FloatArray, resized
from psfmatch.kernel import MatchingKernel
from psfmatch.moments import fwhm
from psfmatch.psf import PSF, AnalyticPSF
from psfmatch.solve.compress import compressed_cells
from psfmatch.solve.fourier import Fourier
from psfmatch.solve.solution import Outcome, Solution
from psfmatch.solve.toeplitz import PixelEquations, correlations, one_blas_thread, solve_all
from psfmatch.stamp_noise import denoised, stamp_noise
from psfmatch.wings import continued, missing_flux

__all__ = ["FreeForm"]

log = logging.getLogger(__name__)

EASY = 1e-5
STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
PROBE = 17
LARGEST_CONVENIENT = 25
FREE_GAIN = 1.02
AS_SMOOTH = 1.25
WORTH = 0.5
MARGIN = 64
STAMP_SHARE = 0.72
FRAME_SHARE = 0.125
LEAST_CAP = 21
LARGEST_VARYING = 49
LARGEST_TRIAL = 37
LARGEST_WORK = 600 * 29**6
RANK_SHARE = 0.03
SAME = 1e-7
ORDER_SHARE = 0.2
SIZE_SHARE = 0.2
LEAST_SLOPE = 0.3
LARGEST_SCALE = 4.0
WIDE = 101
CLEAN = 1.0 / 3000.0
SPLINE_SIDES = (8, 14, 22)


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
        The largest kernel that may be chosen.  It is also kept below an eighth of the frame's shorter side (but 21
        px are always allowed), because pixels closer to the border than half a kernel have no whole footprint; below
        0.72 times the stamp's side; and at 49 px or less where the PSF varies.  Constant PSFs on stamps so large that
        they would support more than ``max_size`` are handed to `Fourier`.
    strength : float, optional
        Tikhonov weight in units of ``sum T^2``; default from the trade of residual against noise gain.
    order : int, optional
        Total degree of the kernel's variation over the field; default the lowest that follows it.
    max_order : int
        The highest order that may be chosen.
    wings : {"auto", "extrapolate", "none"}
        Continue stamps that cannot be resized beyond their border, by a fitted power law, Moffat or Gaussian wing
        (see `psfmatch.wings`); or take them as zero there.  ``auto`` continues noiseless models: the wings of an
        empirical stamp are lost in its noise.  The flux beyond every stamp, as a fraction of that in it, is reported
        in the statistics either way (``missing_flux_science``, ``missing_flux_target``; where the PSF varies, the
        largest at the centre and near the corners) with its standard error (``missing_flux_error_...``); NaN where
        the wing is lost in the noise.  A sum below 1 is believed: the stamp is not rescaled, and, if it is noiseless,
        its sum says what is missing.
    noise : float, optional
        Standard deviation of white noise in the pixels of the stamps, in units of a stamp of unit flux; default
        measured in each stamp, and zero in noiseless models.  What lies within the noise is smoothed away.
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
    wings: Literal["auto", "extrapolate", "none"] = "auto"
    noise: float | None = None
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
        if self.wings not in ("auto", "extrapolate", "none"):
            raise InputError(f"FreeForm wings={self.wings!r}: choose auto, extrapolate or none")
        if self.noise is not None and not self.noise >= 0:
            raise InputError(f"FreeForm noise={self.noise!r}: must not be negative")
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
        if self._too_large(science, target, box):
            handed = Fourier(tolerance=self.tolerance, max_noise_gain=self.max_noise_gain, flux=self.flux)
            return handed.solution(science, target, box, kernel_sum=kernel_sum)
        with one_blas_thread():
            work.choose_size_and_strength()
            kernel, cells = work.spatial()
            while work.gain > work.gain_limit() and self.strength is None and work.strength < STRENGTHS[0]:
                work.strength *= 10.0
                kernel, cells = work.spatial()
            outcome = work.outcome()
        scaled = MatchingKernel(kernel_sum * kernel.basis, kernel.weights)
        return Solution(scaled, outcome, cells, work.statistics())

    def _too_large(self, science: PSF, target: PSF, box: Box) -> bool:
        """Whether stamps, clean enough to be divided, call for kernels that only transforms can handle."""
        if self.size is not None or self.strength is not None or not (science.constant and target.constant):
            return False
        fixed = [p for p in (science, target) if not p.resizable]
        side = max((min(p.shape) for p in fixed), default=0)
        if STAMP_SHARE * side <= self.max_size or 1 < min(box.shape) < side:
            return False
        stamps = [p.stamps(x=box.center.x, y=box.center.y)[0] for p in fixed]
        return all((stamp_noise(s) if self.noise is None else self.noise) < CLEAN * s.max() for s in stamps)


TOO_SHARP = 10.0
POOR = 30.0


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
    kind: FieldKind = "chebyshev1"
    expected: float = np.inf
    reached: float = np.inf
    between: float = 0.0
    gain: float = np.nan
    gain_limited: bool = False
    advice: str = ""
    path: list[_Trade] = field(default_factory=list)
    trusted: int = 0
    missing: dict[str, tuple[float, float]] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def statistics(self) -> dict[str, Any]:
        return {
            "solver": "free-form",
            **({"advice": self.advice} if self.advice else {}),
            "kernel_size": self.size,
            "strength": self.strength,
            "order": self.order,
            "weights": self.kind,
            "predicted_residual": self.reached,
            "residual_between_cells": self.between,
            "noise_gain": self.gain,
            "gain_limited": self.gain_limited,
            **{f"missing_flux_{name}": value for name, (value, _) in self.missing.items()},
            **{f"missing_flux_error_{name}": error for name, (_, error) in self.missing.items()},
            **{f"noise_{name}": value for name, value in self.noise.items()},
            "frontier": np.array([[t.strength, t.residual, t.gain] for t in self.path]),
        }

    def outcome(self) -> Outcome:
        """How it went, and the advice that goes with it."""
        if self.reached <= self.options.tolerance:
            return Outcome.OK
        if self.gain_limited and self.reached > TOO_SHARP * self.options.tolerance:
            self.advice = self.reachable()
            return Outcome.TARGET_TOO_SHARP
        limit = "the limit on noise gain" if self.gain_limited else self._size_limit()
        self.advice = f"The residual is {self.reached:.2g}; what limits it is {limit}."
        own = self.options
        chosen = own.size is own.strength is own.order is None and own.flux == "free"
        poor = chosen and self.reached > POOR * own.tolerance
        return Outcome.OUT_OF_REACH if poor else Outcome.TOLERANCE_NOT_REACHED

    def _size_limit(self) -> str:
        """What kept the kernel from being larger, in words."""
        if self.options.size is not None or self.size < self._cap():
            return "what the stamps hold (noise, cut wings)"
        limits = {
            f"the frame, {min(self.box.shape)} px wide, for a kernel of {self.size} px": self._frame_cap(),
            f"the kernel size, max_size={self.options.max_size}": self.options.max_size,
            f"the stamps, which support a kernel of {self.size} px": int(STAMP_SHARE * self.trusted),
        }
        return min(limits, key=lambda words: limits[words])

    def choose_size_and_strength(self) -> None:
        """From the pair of stamps that is hardest to match: the centre's, or a corner's."""
        constant = self.science.constant and self.target.constant
        ny, nx = self.box.shape
        center = self.box.center
        offsets = [(0.0, 0.0)] if constant else [(0, 0), (-0.4, -0.4), (-0.4, 0.4), (0.4, -0.4), (0.4, 0.4)]
        cells = self._sample(
            np.array([center.x + dx * nx for _, dx in offsets]), np.array([center.y + dy * ny for dy, _ in offsets])
        )
        self._central = cells
        pairs = [(s, t) for s, t in zip(cells.science, cells.target, strict=True)]
        probes = [_equations(s, t, min(PROBE, self._cap())) for s, t in pairs]
        hardest = int(np.argmax([p.residual(p.solve(1e-4)) for p in probes]))
        given = self.options.strength
        self.strength = self._choose_strength(probes[hardest]) if given is None else given
        self.size = self.options.size or max(self._choose_size(*pair) for pair in pairs)
        further = self.strength > STRENGTHS[-1] or not constant
        if given is None and self.size > PROBE and further:
            size = min(self.size, LARGEST_TRIAL)
            self.strength = self._choose_strength(_equations(*pairs[hardest], size), self.strength)

    def gain_limit(self) -> float:
        """The noise gain beyond which the kernel must be smoother: the limit, or what smaller kernels let expect."""
        most = self.options.max_noise_gain
        if not (self.science.constant and self.target.constant) or not self.path:
            return most
        nearest = min(self.path, key=lambda t: abs(np.log(t.strength / self.strength)))
        return min(most, AS_SMOOTH * nearest.gain)

    def _cap(self) -> int:
        """The largest kernel that the stamps support, and that spares the frame's border."""
        most = min(int(STAMP_SHARE * self.trusted), self.options.max_size)
        if not (self.science.constant and self.target.constant):
            most = min(most, LARGEST_VARYING)
        most = max(3, min(most, self._frame_cap()))
        return most - 1 + most % 2

    def _frame_cap(self) -> int:
        """The largest kernel that spares the border of the frame; none for a single pixel, which is no frame."""
        side = min(self.box.shape)
        return max(LEAST_CAP, int(FRAME_SHARE * side)) if side > 1 else self.options.max_size

    def _choose_strength(self, equations: PixelEquations, start: float | None = None) -> float:
        """Walk from smooth to sharp while it pays.

        Until the tolerance is met, a step is taken if it lowers the residual by more than the root of what it adds
        in noise gain; after that, as long as all steps together cost less than 2 %.  With a start, which a smaller
        kernel found, the walk first goes back to where this kernel is no noisier than that one was.
        """
        options = self.options
        first = 0 if start is None else STRENGTHS.index(start)
        kept = self._trade(equations, STRENGTHS[first])
        if start is not None:
            as_smooth = AS_SMOOTH * next(t.gain for t in self.path if t.strength == start)
            while first > 0 and kept.gain > min(as_smooth, options.max_noise_gain):
                first -= 1
                kept = self._trade(equations, STRENGTHS[first])
        self.path = [t for t in self.path if t.strength > kept.strength] + [kept]
        self.gain_limited = False
        met = kept.gain if kept.residual <= options.tolerance else None
        for strength in STRENGTHS[first + 1 :]:
            step = self._trade(equations, strength)
            self.path.append(step)
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
        self.expected = kept.residual
        return kept.strength

    @staticmethod
    def _trade(equations: PixelEquations, strength: float) -> _Trade:
        kernel = equations.solve(strength)
        return _Trade(strength, equations.residual(kernel), float((kernel**2).sum()))

    def reachable(self) -> str:
        """The smallest target of the same family that can be reached, in words."""
        if not isinstance(self.target, AnalyticPSF):
            return "The target is a fixed image: broaden it, or give a model."
        low, high = 1.0, LARGEST_SCALE
        if not self._reaches(self.target.scaled(high)):
            return f"Not even a target {high:g} times as wide is reached; is the science PSF right?"
        while high / low > 1.005:
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if self._reaches(self.target.scaled(middle)) else (middle, high)
        reached = self.target.scaled(high)
        width = fwhm(reached.stamps(x=0, y=0, shape=(WIDE, WIDE))[0])
        words = (
            f"fwhm={np.ceil(100 * reached.fwhm) / 100:.2f}" if hasattr(reached, "fwhm") else f"{high:.3f} times as wide"
        )
        return (
            f"The smallest target of its family that is reached with max_noise_gain={self.options.max_noise_gain:g} "
            f"has {words}, {width:.2f} px wide with the pixel."
        )

    def _reaches(self, target: PSF) -> bool:
        """Whether the limit on noise gain leaves room to match another target."""
        other = _Work(self.options, self.science, target, self.box)
        other.choose_size_and_strength()
        return not other.gain_limited or other.expected <= TOO_SHARP * self.options.tolerance

    def _choose_size(self, science: FloatArray, target: FloatArray) -> int:
        """The smallest kernel with a residual of 1e-5, where that is small; else one with a fifth of the tolerance.

        Residuals of kernels of 9 to 25 px are computed, larger ones extrapolated: they fall as a power of the size.
        """
        cap = self._cap()
        known: dict[int, float] = {}
        for size in range(9, LARGEST_CONVENIENT + 1, 4):
            if size > cap:
                return cap
            equations = _equations(science, target, size)
            known[size] = equations.residual(equations.solve(self.strength))
            if known[size] <= EASY:
                return size
        goal = SIZE_SHARE * self.options.tolerance
        enough = [size for size, residual in known.items() if residual <= goal]
        if enough:
            return min(enough)
        (n1, r1), (n2, r2) = list(known.items())[-2:]
        slope = np.log(r1 / r2) / np.log(n2 / n1)
        if slope <= LEAST_SLOPE:
            return n2
        wanted = n2 * (r2 / goal) ** (1.0 / slope)
        return cap if wanted >= cap else int(np.ceil(wanted)) // 2 * 2 + 1

    def spatial(self) -> tuple[MatchingKernel, SpatialCellSet]:
        """The kernel over the field: more cells and a higher order until it is true between the cells."""
        if self.science.constant and self.target.constant:
            cells = self._central
            kernels, equations = self._solve(cells)
            self._reach(kernels, equations)
            return MatchingKernel.constant(kernels[0], self.box), cells
        check = self._sample(*_on_box(self.box, np.linspace(-1.0, 1.0, 5)))
        truth, equations = self._solve(check)
        own = max(e.residual(k) for e, k in zip(equations, truth, strict=True))
        enough = max(ORDER_SHARE * self.options.tolerance, 0.3 * own)
        best: tuple[float, MatchingKernel, SpatialCellSet] | None = None
        cells, kernels, side = check, truth, 0
        for kind, order, wanted in self._models():
            if wanted != side:
                side = wanted
                cells = self._sample(*_nodes(self.box, side, kind))
                kernels, _ = self._solve(cells)
            if len(cells) < n_terms(order, kind):
                continue
            share = RANK_SHARE * self.options.tolerance
            kernel, _ = compressed_cells(kernels, cells.x, cells.y, self.box, order, share, kind=kind)
            moved = kernel.stamps(x=check.x, y=check.y) - truth
            worst = max(e.change(d) for e, d in zip(equations, moved, strict=True))
            if best is None or worst < best[0]:
                best = worst, kernel, cells
            if worst <= enough or (
                kind == "chebyshev1" and order == self.options.max_order and worst <= self.options.tolerance
            ):
                break
        if best is None:
            raise MatchError(
                f"only {len(cells)} positions could be evaluated, too few for order {self.options.order}; "
                "lower the order or mend the PSF model"
            )
        self.between, kernel, cells = best
        self.order, self.kind = kernel.weights.order, kernel.weights.kind
        kernel = kernel.compressed(SAME)
        self._reach(kernel.stamps(x=check.x, y=check.y), equations)
        return kernel, cells

    def _models(self) -> Iterator[tuple[FieldKind, int, int]]:
        """Spatial models in the order they are tried, with the cells along an axis that each is fitted to."""
        if self.options.order is not None:
            yield "chebyshev1", self.options.order, self.options.order + 3
            return
        for order in range(self.options.max_order + 1):
            yield "chebyshev1", order, 4 if order < 3 else 3 + order // 3 * 3
        for side in SPLINE_SIDES:
            if side**2 * self.size**6 <= LARGEST_WORK:
                yield "spline", side - 1, side

    def _reach(self, kernels: FloatArray, equations: list[PixelEquations]) -> None:
        self.reached = max(e.residual(k) for e, k in zip(equations, kernels, strict=True))
        self.gain = float(max((k**2).sum() for k in kernels))

    def _sample(self, x: FloatArray, y: FloatArray) -> SpatialCellSet:
        """Pairs of stamps at positions, freed from noise and continued beyond their border."""
        side = max(*self.science.shape, *(() if self.target.resizable else self.target.shape))
        if self.options.wings != "none":
            side += MARGIN
        cells = sample_at(self.science, self.target, self.box, x=x, y=y, size=side)
        return replace(
            cells,
            science=self._prepared("science", self.science, cells.science),
            target=self._prepared("target", self.target, cells.target),
        )

    def _prepared(self, name: str, psf: PSF, stamps: FloatArray) -> FloatArray:
        trusted = stamps.shape[1]
        if psf.resizable:
            self.trusted = self.trusted or trusted
            return stamps
        out = np.empty_like(stamps) if not psf.constant else np.empty_like(stamps[:1])
        for k in range(len(out)):
            seen = resized(stamps[k], psf.shape)
            noise = stamp_noise(seen) if self.options.noise is None else self.options.noise
            stamp = denoised(seen, noise) if noise > 0 else seen
            if self.options.wings == "extrapolate" or (self.options.wings == "auto" and noise == 0):
                out[k] = continued(stamp, stamps.shape[1:], noise, psf.measured)[0]
            else:
                out[k] = resized(stamp, stamps.shape[1:])
                trusted = min(trusted, *psf.shape)
            if not self.size:  # the first positions, at the centre and near the corners, will do
                known, lost = self.missing.get(name, (np.nan, np.nan)), missing_flux(seen, noise, psf.measured)
                self.missing[name] = lost if np.isnan(known[0]) or lost[0] > known[0] else known
            self.noise[name] = max(self.noise.get(name, 0.0), noise / float(stamp.max()))
        self.trusted = min(self.trusted or trusted, trusted)
        return np.broadcast_to(out, stamps.shape)

    def _solve(self, cells: SpatialCellSet) -> tuple[FloatArray, list[PixelEquations]]:
        auto, cross = correlations(cells.science, cells.target, self.size)
        power = (cells.target**2).sum(axis=(1, 2))
        equations = [PixelEquations(a, c, float(p)) for a, c, p in zip(auto, cross, power, strict=True)]
        return solve_all(equations, self.strength, self._sums(cells)), equations

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


def _nodes(box: Box, side: int, kind: FieldKind) -> tuple[FloatArray, FloatArray]:
    """Where to sample for a model: Chebyshev nodes for polynomials, a uniform grid from edge to edge for splines."""
    if kind != "spline":
        return _on_box(box, np.cos(np.pi * (np.arange(side) + 0.5) / side))
    return _on_box(box, np.linspace(-1.0, 1.0, side))


def _on_box(box: Box, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The grid (x, y) of relative positions, -1 to 1 from the first pixel's centre to the last's."""
    ny, nx = box.shape
    x, y = np.meshgrid(box.center.x + 0.5 * (nx - 1) * u, box.center.y + 0.5 * (ny - 1) * u)
    return x.ravel(), y.ravel()
