"""The kernel that nobody has to tune: every pixel free, and every choice made from one tolerance."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psfmatch.cells import SpatialCellSet, sample_at
from psfmatch.errors import InputError, MatchError
from psfmatch.fields import FieldKind
from psfmatch.geometry import Box, FloatArray, no_unit, resized, whole_number
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import keep_freed_memory, one_blas_thread
from psfmatch.moments import fwhm
from psfmatch.psf import PSF, AnalyticPSF
from psfmatch.solve.demand import AMPLIFIED, Amplification, Demand
from psfmatch.solve.fourier import Fourier
from psfmatch.solve.frontier import least_residual
from psfmatch.solve.solution import Outcome, Solution, set_by_hand
from psfmatch.solve.toeplitz import PixelEquations, pixel_equations, residuals, solve_all
from psfmatch.solve.trade import AS_SMOOTH, STRENGTHS, Choice, Market, choose_size, choose_strength
from psfmatch.solve.variation import CHECKED, Check, Model, Solved, models, nodes, on_box, varying_kernel
from psfmatch.stamp_noise import denoised, noises, stamp_noise
from psfmatch.wings import Wings, continued_all, missing_flux

__all__ = ["FreeForm"]

log = logging.getLogger(__name__)

PROBE = 17
MARGIN = 64
STAMP_SHARE = 0.72
FRAME_SHARE = 0.125
LEAST_CAP = 21
LARGEST_VARYING = 49
LARGEST = 129  # its matrices take 1.1 GB
LARGEST_TRIAL = 29
RANK_SHARE = 0.03
SLACK = 1.02
SAME = 1e-7
ORDER_SHARE = 0.2
LARGEST_SCALE = 4.0
WIDE = 101
CLEAN = 1.0 / 3000.0


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
        Rows and columns of the kernel, odd, at most 129; default from the residuals of small kernels, extrapolated.
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
            no_unit(value, f"FreeForm {name}")
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"FreeForm {name}={value!r}: must be finite and positive")
        for name in ("size", "max_size"):
            value = getattr(self, name)
            if value is not None and value > LARGEST:
                raise InputError(f"FreeForm {name}={value!r}: at most {LARGEST}; larger kernels are for Fourier")
            if value is not None and whole_number(value, f"FreeForm {name}", least=1) % 2 == 0:
                raise InputError(f"FreeForm {name}={value!r}: kernel sizes must be odd and positive")
        if self.strength is not None and not self.strength >= 0:
            raise InputError(f"FreeForm strength={self.strength!r}: must not be negative")
        for name in ("order", "max_order"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), f"FreeForm {name}")
        if self.wings not in ("auto", "extrapolate", "none"):
            raise InputError(f"FreeForm wings={self.wings!r}: choose auto, extrapolate or none")
        if self.noise is not None and not self.noise >= 0:
            raise InputError(f"FreeForm noise={self.noise!r}: must not be negative")
        number = isinstance(self.flux, int | float) and np.isfinite(self.flux)
        if self.flux not in ("free", "unit", "stamp") and not number:
            raise InputError(f"FreeForm flux={self.flux!r}: choose free, unit, stamp or a number")

    def solution(self, science: PSF, target: PSF, box: Box, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel over a box, with all choices made and told in the statistics.

        Among these, ``amplification`` is ``max |K(f)| / |K(0)|`` of the kernel that amplifies most, at
        ``amplified_frequency`` (cycles/px), with the ``amplified_share`` of the frequency plane that gains more than
        5 %; ``demanded_amplification`` is what the hardest pair of stamps demands for the tolerance (see `Demand`).
        ``frontier_ratio`` is the residual over the least that any kernel of this size reaches, at the hardest
        position, with 2 % more noise gain; ``frontier`` lists strength, residual and noise gain of what was tried.

        Raises
        ------
        MatchError
            If the target is too sharp to be reached within ``max_noise_gain``, or no PSF can be evaluated.
        """
        work = _Work(self, science, target, box)
        if self._too_large(science, target, box):
            handed = Fourier(tolerance=self.tolerance, max_noise_gain=self.max_noise_gain, flux=self.flux)
            return handed.solution(science, target, box, kernel_sum=kernel_sum)
        keep_freed_memory()
        with one_blas_thread():
            work.choose_size_and_strength()
            kernel, cells = work.spatial()
            while work.too_noisy() and self.strength is None and work.strength < STRENGTHS[0]:
                work.strength = STRENGTHS[STRENGTHS.index(work.strength) - 1]
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


NOTHING = Amplification(1.0, 0.0, 0.0)
TOO_SHARP = 10.0
POOR = 30.0


@dataclass
class _Work:
    """One run: what has been chosen so far."""

    options: FreeForm
    science: PSF
    target: PSF
    box: Box
    checked: int = CHECKED
    size: int = 0
    strength: float = 0.0
    order: int = 0
    kind: FieldKind = "chebyshev1"
    reached: float = np.inf
    between: float = 0.0
    frontier_ratio: float = np.nan
    gain: float = np.nan
    amplification: Amplification = NOTHING
    demanded: Amplification = NOTHING
    ripples: bool = False
    advice: str = ""
    choice: Choice | None = None
    trusted: int = 0
    _sampled: dict[Any, tuple[SpatialCellSet, list[PixelEquations]]] = field(default_factory=dict)
    missing: dict[str, tuple[float, float]] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def statistics(self) -> dict[str, Any]:
        return {
            "solver": "free-form",
            **({"advice": self.advice} if self.advice else {}),
            **({"by_hand": self.by_hand} if self.by_hand else {}),
            "tolerance": self.options.tolerance,
            "max_noise_gain": self.options.max_noise_gain,
            "kernel_size": self.size,
            "strength": self.strength,
            "order": self.order,
            "weights": self.kind,
            "predicted_residual": self.reached,
            "frontier_ratio": self.frontier_ratio,
            "residual_between_cells": self.between,
            "noise_gain": self.gain,
            "gain_limited": self.gain_limited,
            "amplification": self.amplification.largest,
            "amplified_frequency": self.amplification.frequency,
            "amplified_share": self.amplification.share,
            "demanded_amplification": self.demanded.largest,
            "demanded_frequency": self.demanded.frequency,
            **{f"missing_flux_{name}": value for name, (value, _) in self.missing.items()},
            **{f"missing_flux_error_{name}": error for name, (_, error) in self.missing.items()},
            **{f"noise_{name}": value for name, value in self.noise.items()},
            "frontier": np.array([[t.strength, t.residual, t.gain] for t in (self.choice.path if self.choice else ())]),
        }

    @property
    def _varies(self) -> bool:
        return not (self.science.constant and self.target.constant)

    @property
    def by_hand(self) -> str:
        """What was set that else is chosen."""
        return set_by_hand(self.options, "size", "strength", "order", "flux")

    @property
    def gain_limited(self) -> bool:
        """Whether the limit on noise gain ended the choice of the strength."""
        return self.choice is not None and self.choice.gain_limited

    def outcome(self) -> Outcome:
        """How it went, and the advice that goes with it."""
        sharpened = self._sharpened()
        beyond = self.choice is not None and self.gain > self.options.max_noise_gain
        if self.reached <= self.options.tolerance and not beyond:
            self.advice = sharpened
            return Outcome.DECONVOLVED if sharpened else Outcome.OK
        if beyond or (self.gain_limited and self.reached > TOO_SHARP * self.options.tolerance):
            self.advice = self.reachable()
            return Outcome.TARGET_TOO_SHARP
        limit = "the limit on noise gain" if self.gain_limited else self._limit()
        self.advice = f"The residual is {self.reached:.2g}; what limits it is {limit}. {sharpened}".strip()
        if self.reached <= POOR * self.options.tolerance:
            return Outcome.TOLERANCE_NOT_REACHED
        return Outcome.POOR if self.by_hand else Outcome.OUT_OF_REACH

    def _sharpened(self) -> str:
        """What is said of spatial frequencies that are amplified."""
        if self.amplification.largest <= AMPLIFIED:
            return ""
        return f"Spatial frequencies are amplified: {self.amplification}. The noise gain is {self.gain:.3g}."

    def _limit(self) -> str:
        """What kept the residual from being smaller, in words."""
        if self.by_hand:
            return f"what was set by hand ({self.by_hand}; left out, it is chosen), or the stamps (noise, cut wings)"
        if self.size < self._cap():
            return "what the stamps hold (noise, cut wings)"
        limits = {
            f"the kernel size, max_size={self.options.max_size}": self.options.max_size,
            f"the size of kernels that vary, {LARGEST_VARYING} px": LARGEST_VARYING if self._varies else LARGEST,
            f"the frame, {min(self.box.shape)} px wide, for a kernel of {self.size} px": self._frame_cap(),
            f"the stamps, which support a kernel of {self.size} px": int(STAMP_SHARE * self.trusted),
        }
        return min(limits, key=lambda words: limits[words])

    def choose_size_and_strength(self) -> None:
        """From the pair of stamps that is hardest to match: the centre's, or a corner's."""
        self._check = self._sample(
            *on_box(self.box, np.linspace(-1.0, 1.0, self.checked) if self._varies else np.zeros(1))
        )
        cells, size = self._check, self.options.size or self._cap()
        equations = pixel_equations(cells.science, cells.target, size)
        hard = self._center_and_corners()
        hardest = hard[self._hardest([equations[k] for k in hard])]
        demand = self._demand(cells.science[hardest], cells.target[hardest])
        self.demanded = demand.largest(self.options.tolerance)
        market = Market(equations[hardest], demand, self.options.tolerance, self.options.max_noise_gain)
        self._choose([equations[k] for k in hard], market)
        self._check_equations = [e.cropped(self.size) for e in equations]

    def _hardest(self, equations: list[PixelEquations]) -> int:
        """Which pair leaves the largest residual, whatever the noise gain, with a kernel of a likely size."""
        trials = [e.cropped(min(LARGEST_TRIAL, e.size)) for e in equations]
        if len(trials) == 1:
            return 0
        kernels = solve_all(trials, STRENGTHS[-2], [None] * len(trials))
        return int(np.argmax(residuals(trials, kernels)))

    def _center_and_corners(self) -> NDArray[np.intp]:
        """Which positions of the check are nearest to these."""
        x, y = on_box(self.box, np.array([-1.0, 0.0, 1.0]))
        cells = self._check
        return np.unique([np.argmin((cells.x - x[k]) ** 2 + (cells.y - y[k]) ** 2) for k in (0, 2, 4, 6, 8)])

    def _choose(self, equations: list[PixelEquations], market: Market) -> None:
        """Strength and size, unless given: the strength on a probe, then on a kernel of nearly the size."""
        own = self.options
        if own.strength is None:
            self.choice = choose_strength(market.cropped(min(PROBE, equations[0].size)))
        self.strength = self.choice.kept.strength if self.choice else own.strength or 0.0
        self.size = own.size or max(choose_size(e, self.strength, own.tolerance) for e in equations)
        further = self.strength > STRENGTHS[-1] or self._varies
        if self.choice and self.size > PROBE and further:
            self.choice = choose_strength(market.cropped(min(self.size, LARGEST_TRIAL)), self.choice)
            self.strength = self.choice.kept.strength

    def _demand(self, science: FloatArray, target: FloatArray) -> Demand:
        """What a pair of stamps demands, beyond the noise that was measured in them."""
        floors = []
        for name, psf, stamp in (("science", self.science, science), ("target", self.target, target)):
            pixels = psf.shape[0] * psf.shape[1]
            floors.append(pixels * (self.noise.get(name, 0.0) * float(stamp.max())) ** 2)
        return Demand.of(science, target, (floors[0], floors[1]))

    def too_noisy(self) -> bool:
        """Whether the kernel must be smoother."""
        return self.ripples or self.gain > self._gain_limit()

    def _gain_limit(self) -> float:
        """The noise gain beyond which the kernel must be smoother: the limit, or what smaller kernels let expect."""
        most = self.options.max_noise_gain
        if self._varies or self.choice is None:
            return most
        return min(most, AS_SMOOTH * self.choice.gain_near(self.strength))

    def _cap(self) -> int:
        """The largest kernel that the stamps support, and that spares the frame's border."""
        most = min(int(STAMP_SHARE * self.trusted), self.options.max_size)
        if self._varies:
            most = min(most, LARGEST_VARYING)
        most = max(3, min(most, self._frame_cap()))
        return most - 1 + most % 2

    def _frame_cap(self) -> int:
        """The largest kernel that spares the border of the frame; none for a single pixel, which is no frame."""
        side = min(self.box.shape)
        return max(LEAST_CAP, int(FRAME_SHARE * side)) if side > 1 else self.options.max_size

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
            f"has {words}, {width:.2f} px wide with the pixel; what the stamps hold may ask for a broader one."
        )

    def _reaches(self, target: PSF) -> bool:
        """Whether the limit on noise gain leaves room to match another target."""
        other = _Work(self.options, self.science, target, self.box, checked=3)
        other.choose_size_and_strength()
        choice, own = other.choice, self.options
        if choice is None:
            return True
        sharp = choice.gain_limited and choice.kept.residual > TOO_SHARP * own.tolerance
        return not sharp and choice.kept.gain <= own.max_noise_gain

    def spatial(self) -> tuple[MatchingKernel, SpatialCellSet]:
        """The kernel over the field: more cells and a higher order until it is true between the cells."""
        own = self.options
        solved, (_, equations) = self._solve(), self._cells_of(None)
        if not self._varies:
            self._reach(solved.kernels, solved, equations)
            return MatchingKernel.constant(solved.kernels[0], self.box), self._check
        check = Check(solved, equations)
        found = varying_kernel(
            check,
            self._solve,
            models(own.order, own.max_order, self.size),
            self.box,
            enough=max(ORDER_SHARE * own.tolerance, 0.3 * check.own_residual()),
            good=own.tolerance,
            share=RANK_SHARE * own.tolerance,
        )
        if found is None:
            raise MatchError(
                f"only {len(self._check)} positions could be evaluated, too few for order {own.order}; "
                "lower the order or mend the PSF model"
            )
        self.between = found.worst
        self.order, self.kind = found.kernel.weights.order, found.kernel.weights.kind
        kernel = found.kernel.compressed(SAME)
        self._reach(kernel.stamps(x=self._check.x, y=self._check.y), solved, equations)
        return kernel, found.cells

    def _cells_of(self, model: Model | None) -> tuple[SpatialCellSet, list[PixelEquations]]:
        """The cells that a model is fitted to, or those of the check; made once, whatever the strength."""
        if model is None:
            return self._check, self._check_equations
        key = model.kind, model.side
        if key not in self._sampled:
            cells = self._sample(*nodes(model, self.box))
            self._sampled[key] = cells, pixel_equations(cells.science, cells.target, self.size)
        return self._sampled[key]

    def _reach(self, kernels: FloatArray, own: Solved, equations: list[PixelEquations]) -> None:
        """Take the figures of the kernels in some cells, given what these cells' own would be."""
        left = residuals(equations, kernels)
        hardest = int(np.argmax(left))
        self.reached = float(left[hardest])
        most = SLACK * float((kernels[hardest] ** 2).sum())
        least = least_residual(
            equations[hardest], own.kernels[hardest], self.strength, most, self._sums(own.cells)[hardest]
        )
        self.frontier_ratio = self.reached / least
        self.gain = float(max((k**2).sum() for k in kernels))
        self.amplification = Amplification.of(kernels)
        self.ripples = self.amplification.largest > AMPLIFIED and any(
            self._demand(cell.science, cell.target).exceeded(kernel, residual, self.options.tolerance)
            for cell, kernel, residual in zip(own.cells, kernels, left.tolist(), strict=True)
        )

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
        seen, own = resized(stamps[:1] if psf.constant else stamps, psf.shape), self.options
        noise = noises(seen) if own.noise is None else np.full(len(seen), float(own.noise))
        clean = np.array([denoised(stamp, level) for stamp, level in zip(seen, noise.tolist(), strict=True)])
        out = resized(clean, stamps.shape[1:])
        far = (noise == 0) & (own.wings == "auto") | (own.wings == "extrapolate")
        wings: dict[int, Wings] = {}
        if far.any():
            out[far], found = continued_all(clean[far], stamps.shape[1:], noise[far], psf.measured)
            wings = dict(zip(np.flatnonzero(far).tolist(), found, strict=True))
        if not far.all():
            trusted = min(trusted, *psf.shape)
        if not self.size:  # the first positions, at the centre and near the corners, will do
            for k, (stamp, level) in enumerate(zip(seen, noise.tolist(), strict=True)):
                known = self.missing.get(name, (np.nan, np.nan))
                lost = missing_flux(stamp, level, psf.measured, wings.get(k))
                self.missing[name] = lost if np.isnan(known[0]) or lost[0] > known[0] else known
        self.noise[name] = max(self.noise.get(name, 0.0), float((noise / clean.max(axis=(1, 2))).max()))
        self.trusted = min(self.trusted or trusted, trusted)
        return np.broadcast_to(out, stamps.shape)

    def _solve(self, model: Model | None = None) -> Solved:
        cells, equations = self._cells_of(model)
        return Solved(cells, solve_all(equations, self.strength, self._sums(cells)))

    def _sums(self, cells: SpatialCellSet) -> list[float | None]:
        flux = self.options.flux
        if flux == "free":
            return [None] * len(cells)
        if flux == "stamp":
            return list(cells.target.sum(axis=(1, 2)) / cells.science.sum(axis=(1, 2)))
        return [1.0 if flux == "unit" else float(flux)] * len(cells)
