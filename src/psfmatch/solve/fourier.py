"""Matching kernels by regularised division in Fourier space, for stamps too large for a direct solution."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from psfmatch.cells import SpatialCellSet, sample_at, sample_cells
from psfmatch.errors import InputError
from psfmatch.geometry import Box, FloatArray, odd_shape, plain_array, whole_number
from psfmatch.psf import PSF, FunctionPSF
from psfmatch.solve.compress import compressed_cells
from psfmatch.solve.frequency import Penalty, Shape, Window, penalty_power
from psfmatch.solve.solution import Outcome, Solution, set_by_hand
from psfmatch.stamp_noise import stamp_noise
from psfmatch.wings import missing_flux

__all__ = ["Fourier", "Window"]

log = logging.getLogger(__name__)

CELL = 128
CHUNK = 1 << 22
PROBES = 9
STEP = 0.25  # decades of strength
STRENGTHS = 10.0 ** np.arange(-15.0, 1.01, STEP)
FREE_GAIN = 1.02
WORTH = 1.0
ROOM = 0.8  # of the tolerance is for the strength, the rest for the cut
EASY = 0.01
FLUX = 0.3
STILL = 1.1
TOO_SHARP = 10.0


def _missing(name: str, psf: PSF, cells: SpatialCellSet) -> dict[str, float]:
    if psf.resizable:
        return {}
    middle = len(cells) // 2
    stamp = psf.stamps(x=cells.x[middle], y=cells.y[middle])[0]
    missing, error = missing_flux(stamp, stamp_noise(stamp), psf.measured)
    return {f"missing_flux_{name}": missing, f"missing_flux_error_{name}": error}


@dataclass(frozen=True, kw_only=True)
class Fourier:
    """Wiener-like division: ``K^ = W conj(S^) T^ / (|S^|^2 + strength max|S^|^2 P)``.

    S^ and T^ are the transforms of the stamps, P the penalty and W the window.  This is the least-squares kernel
    of unlimited size (Boucaud et al. 2016, A&A 596, A63), found in a time that hardly grows with its size.  The
    stamps are zero beyond their border and padded by at least kernel size - 1, so that nothing wraps around; their
    central pixel is the origin of phase, so that nothing is shifted.

    Parameters
    ----------
    penalty : {"laplacian", "biharmonic", "none"} or array
        What is penalised: the curvature of the kernel, ``P = L^2`` with ``L = 4 - 2 cos 2 pi fx - 2 cos 2 pi fy``
        (so that ``P ~ |2 pi f|^4`` at low frequencies and flux is not penalised); its bi-Laplacian, ``P = L^4``;
        ``none`` of the frequencies over another, ``P = 1`` (Tikhonov); or an operator given as an image of odd
        size, whose power spectrum is P.
    strength : float, optional
        How much it is penalised, relative to the largest power ``max|S^|^2`` of the science PSF, which is the
        square of its flux: the same number means the same for any flux, stamp size and padding.  Default: chosen
        from ``tolerance``, see there.
    tolerance : float
        The residual to reach, at nearly the least noise gain; the strength aims at 0.8 of it, to leave room for the
        cut of the kernel.  Below it, accuracy is taken that costs less than 2 % in noise gain.  The search ends
        early where the noise gain would grow faster than the accuracy, or beyond ``max_noise_gain``.
    max_noise_gain : float
        The largest noise gain that a chosen strength may have.
    window : Window or str
        A taper over frequency, or just its shape.
    size : int, optional
        Rows and columns of the kernel, odd.  Default: the least whose residual is within 10 % of that of the largest
        kernel, or 0.01 of the tolerance, and whose flux, too, is as true, or true to 0.3 of the tolerance.
    size_max : int, optional
        The largest kernel; default twice the size of the stamps, less 1, which the sharp border of a cut target
        calls for.
    flux : {"free", "unit", "stamp"} or float
        The sum of the kernel: what the division makes it; 1; the ratio of the two stamps' sums; or a number.  It is
        imposed by adding the same small number to every pixel, which is what least squares does to a large kernel.
    order : int
        Total degree of the variation over the field, where the PSFs vary.
    cell_shape : (int, int), optional
        Rows and columns of a cell, in pixels; default 128, or less on a small frame, so that ``order + 1`` fit in.

    Raises
    ------
    InputError
        If options are out of range.
    """

    penalty: Penalty | ArrayLike = "laplacian"
    strength: float | None = None
    tolerance: float = 1e-3
    max_noise_gain: float = 2.0
    window: Window | Shape = "none"
    size: int | None = None
    size_max: int | None = None
    flux: Literal["free", "unit", "stamp"] | float = "free"
    order: int = 2
    cell_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.penalty, str):
            if self.penalty not in get_args(Penalty):
                raise InputError(
                    f"Fourier penalty={self.penalty!r}: choose one of {', '.join(get_args(Penalty))}, or give an array"
                )
        else:
            operator = plain_array(self.penalty, "Fourier penalty", float)
            if operator.ndim != 2 or not np.isfinite(operator).all() or not operator.any():
                raise InputError(f"Fourier penalty of shape {operator.shape}: give a finite image, not all zeros")
            odd_shape(operator.shape, "Fourier penalty")
            object.__setattr__(self, "penalty", tuple(map(tuple, operator.tolist())))
        if isinstance(self.window, str):
            object.__setattr__(self, "window", Window(shape=self.window))
        for name in ("strength", "tolerance", "max_noise_gain"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"Fourier {name}={value!r}: must be finite and positive")
        for name in ("size", "size_max"):
            if getattr(self, name) is not None:
                odd_shape((getattr(self, name),) * 2, f"Fourier {name}")
        number = isinstance(self.flux, int | float) and np.isfinite(self.flux)
        if self.flux not in ("free", "unit", "stamp") and not number:
            raise InputError(f"Fourier flux={self.flux!r}: choose free, unit, stamp or a number")
        whole_number(self.order, "Fourier order")
        for side in self.cell_shape or ():
            whole_number(side, "Fourier cell_shape", least=1)

    def solution(self, science: PSF, target: PSF, box: Box, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel over a box: `sample`, then `solve`.

        The statistics hold the flux beyond each stamp of fixed size, ``missing_flux_science`` and ``_target``, as a
        fraction of that in it, and its standard error (see `psfmatch.wings.missing_flux`); where a PSF varies, those
        of one cell.
        """
        solved = self.solve(self.sample(science, target, box), kernel_sum=kernel_sum)
        missing = _missing("science", science, solved.cells) | _missing("target", target, solved.cells)
        return replace(solved, statistics={**solved.statistics, **missing})

    def sample(self, science: PSF, target: PSF, box: Box) -> SpatialCellSet:
        """The two PSFs in cells over the box, on stamps as large as the larger of the two, so that none is cut.

        PSFs that do not vary are sampled in one cell, at the centre.

        Raises
        ------
        MatchError
            If the PSFs can be evaluated in no cell.
        """
        size = max(*science.shape, *((0,) if target.resizable else target.shape))
        constant = science.constant and target.constant
        if not target.resizable and target.shape != (size, size):
            target = _padded(target, (size, size))
        if constant:
            x, y = np.array([box.center.x]), np.array([box.center.y])
            return sample_at(science, target, box, x=x, y=y, size=size, fwhm_at=box.center)
        ny, nx = self.cell_shape or tuple(min(CELL, max(1, n // (self.order + 1))) for n in box.shape)
        return sample_cells(science, target, box, cell_shape=(ny, nx), size=size)

    def solve(self, cells: SpatialCellSet, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel that turns the science PSF of every cell into the target PSF times ``kernel_sum``.

        Raises
        ------
        InputError
            If there are fewer cells than terms of the spatial model.
        """
        grid = _Grid(self, cells.stamp_shape)
        choice = self._choice(grid, cells)
        kernels = grid.kernels(cells.science, cells.target, choice)
        sums = self._sums(cells)
        if sums is not None:
            kernels += ((sums - kernels.sum(axis=(1, 2))) / choice.size**2)[:, None, None]
        order = self.order if len(cells) > 1 else 0
        kernel, misfit = compressed_cells(
            kernel_sum * kernels, cells.x, cells.y, cells.box, order, EASY * self.tolerance
        )
        log.info("%s", choice)
        by_hand = set_by_hand(self, "size", "strength", "flux")
        statistics = {
            "solver": "fourier",
            **({"by_hand": by_hand} if by_hand else {}),
            "tolerance": self.tolerance,
            "max_noise_gain": self.max_noise_gain,
            "penalty": self.penalty if isinstance(self.penalty, str) else "array",
            "strength": choice.strength,
            "strength_chosen_by": choice.reason,
            "kernel_size": choice.size,
            "padded_size": grid.side,
            "order": order,
            "predicted_residual": choice.residual,
            "noise_gain": choice.noise_gain,
            "misfit_between_cells": misfit,
            "gain_limited": choice.reason == "max_noise_gain",
            "fwhm_science": cells.fwhm[0],
            "fwhm_target": cells.fwhm[1],
            "cells": len(cells) + len(cells.skipped),
            "cells_used": len(cells),
            "cells_skipped": len(cells.skipped),
        }
        return Solution(kernel, choice.outcome(self.tolerance, cells.fwhm), cells, statistics)

    def _sums(self, cells: SpatialCellSet) -> FloatArray | None:
        """The sum that the kernel of every cell shall have, or None for what it is."""
        if self.flux == "free":
            return None
        if self.flux == "stamp":
            return np.asarray(cells.target.sum(axis=(1, 2)) / cells.science.sum(axis=(1, 2)))
        return np.full(len(cells), 1.0 if self.flux == "unit" else float(self.flux))

    def _choice(self, grid: _Grid, cells: SpatialCellSet) -> _Choice:
        """Strength and size for all cells, chosen on a few of them by the worst."""
        some = np.unique(np.linspace(0, len(cells) - 1, min(len(cells), PROBES)).round().astype(int))
        spectra = _Spectra(grid, cells.science[some], cells.target[some])
        if self.strength is not None:
            strength, reason = self.strength, "given"
        else:
            strength, reason = spectra.strength(ROOM * self.tolerance, self.max_noise_gain)
            smooth = spectra.smooth_enough(strength, grid.size_max)
            strength, reason = smooth, reason if smooth == strength else "size"
        size = self.size or spectra.size(strength, self.tolerance)
        return _Choice(strength, reason, size, *spectra.achieved(strength, size))


def _padded(psf: PSF, shape: tuple[int, int]) -> PSF:
    """A tabulated PSF with zeros about its stamps (`sample_cells` warns only of what is cut or padded by itself)."""
    return FunctionPSF(lambda x, y: psf.stamps(x=x, y=y, shape=shape)[0], shape)


@dataclass(frozen=True)
class _Choice:
    """What was chosen, and what it gives, in the worst cell."""

    strength: float
    reason: str
    size: int
    residual: float
    noise_gain: float

    def outcome(self, tolerance: float, widths: tuple[float, float]) -> Outcome:
        """What is said of it, given the FWHMs of the science and the target PSF."""
        ended = self.reason == "max_noise_gain" or (self.reason in ("price", "size") and widths[1] < widths[0])
        if ended and self.residual > TOO_SHARP * tolerance:
            return Outcome.TARGET_TOO_SHARP
        return Outcome.OK if self.residual <= tolerance else Outcome.TOLERANCE_NOT_REACHED


class _Grid:
    """The padded grid of frequencies, with the penalty and the window on it."""

    def __init__(self, solver: Fourier, stamp_shape: tuple[int, int]) -> None:
        stamp = max(stamp_shape)
        self.size_max = solver.size or solver.size_max or 2 * stamp - 1
        self.side = side = int(fft.next_fast_len(stamp + self.size_max - 1, real=True))
        fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
        self.penalty = penalty_power(solver.penalty, fy, fx, side)
        assert isinstance(solver.window, Window)
        self.window = solver.window.at(np.hypot(fy, fx))
        weight = np.full((side, side // 2 + 1), 2.0 / side**2)
        weight[:, 0] /= 2.0
        if side % 2 == 0:
            weight[:, -1] /= 2.0
        self.weight = weight  # of each frequency of the half plane in a sum over pixels (Parseval)

    def transform(self, stamps: FloatArray) -> Any:
        """Transforms of stamps (n, sy, sx) whose central pixel is the origin of phase."""
        padded = np.zeros((len(stamps), self.side, self.side))
        _, sy, sx = stamps.shape
        padded[:, :sy, :sx] = stamps
        return fft.rfft2(np.roll(padded, (-(sy // 2), -(sx // 2)), axis=(1, 2)))

    def images(self, transforms: Any, size: int) -> FloatArray:
        """The central ``size`` x ``size`` pixels of the images with these transforms."""
        half = size // 2
        whole = fft.irfft2(transforms, (self.side, self.side))
        return np.asarray(np.roll(whole, (half, half), axis=(1, 2))[:, :size, :size].copy())

    def kernels(self, science: FloatArray, target: FloatArray, choice: _Choice) -> FloatArray:
        """The kernel of every cell, a few cells at a time."""
        step = max(1, CHUNK // self.side**2)
        parts = []
        for k in range(0, len(science), step):
            spectra = _Spectra(self, science[k : k + step], target[k : k + step])
            parts.append(self.images(spectra.quotient(choice.strength), choice.size))
        return np.concatenate(parts)


class _Spectra:
    """Pairs of stamps over frequency."""

    def __init__(self, grid: _Grid, science: FloatArray, target: FloatArray) -> None:
        self.grid = grid
        self.science, self.target = grid.transform(science), grid.transform(target)
        power = self.science.real**2 + self.science.imag**2
        self.top = power.max(axis=(1, 2), keepdims=True)
        self.power = power / self.top
        self.target_power = (self.target.real**2 + self.target.imag**2) * grid.weight
        self.norm = np.sqrt(self.target_power.sum(axis=(1, 2)))

    def _inverse(self, strength: float) -> FloatArray:
        """``W / (|S^|^2 + strength max|S^|^2 P)``, times ``max|S^|^2``."""
        bottom = self.power + strength * self.grid.penalty
        return np.asarray(self.grid.window / np.maximum(bottom, np.finfo(float).tiny))

    def quotient(self, strength: float) -> Any:
        """The transforms of the kernels."""
        return np.conj(self.science) * self.target * (self._inverse(strength) / self.top)

    def predicted(self, strength: float) -> tuple[float, float]:
        """The residual and the noise gain of kernels that are not cut, in the worst cell."""
        inverse = self._inverse(strength)
        passed = self.power * inverse
        residual = np.sqrt((self.target_power * (1.0 - passed) ** 2).sum(axis=(1, 2))) / self.norm
        gain = inverse * passed * self.target_power / self.top
        return float(residual.max()), float(gain.sum(axis=(1, 2)).max())

    def strength(self, tolerance: float, max_noise_gain: float) -> tuple[float, str]:
        """The strength that reaches the tolerance, and what ended the search for it."""
        residual, gain = np.inf, 0.0
        strength, reason, ceiling = float(STRENGTHS[-1]), "precision", max_noise_gain
        for candidate in STRENGTHS[::-1].tolist():
            new_residual, new_gain = self.predicted(candidate)
            if new_residual <= tolerance and reason != "tolerance":
                needed = self._reaching(tolerance, candidate)
                residual, gain = self.predicted(needed)
                if gain <= max_noise_gain:
                    strength, reason, ceiling = needed, "tolerance", min(max_noise_gain, FREE_GAIN * gain)
            if new_gain > ceiling:
                return strength, reason if reason == "tolerance" else "max_noise_gain"
            if residual < 0.1 and new_gain / gain > (residual / max(new_residual, 1e-300)) ** WORTH:
                return strength, reason if reason == "tolerance" else "price"
            strength, residual, gain = candidate, new_residual, new_gain
            if residual <= EASY * tolerance:
                break
        return strength, reason

    def _reaching(self, tolerance: float, weak: float) -> float:
        """The largest strength that reaches the tolerance, within a step above one that does."""
        low, high = 0.0, STEP
        for _ in range(5):
            middle = 0.5 * (low + high)
            if self.predicted(weak * 10.0**middle)[0] <= tolerance:
                low = middle
            else:
                high = middle
        return float(weak * 10.0**low)

    def smooth_enough(self, strength: float, size: int) -> float:
        """The strength raised until the kernels, cut to this size, are the best: weak penalties let them ring on."""
        residual, _ = self.achieved(strength, size)
        while residual > STILL * self.predicted(strength)[0]:
            stronger, _ = self.achieved(10.0 ** (2 * STEP) * strength, size)
            if stronger > residual:
                break
            strength, residual = 10.0 ** (2 * STEP) * strength, stronger
        return strength

    def size(self, strength: float, tolerance: float) -> int:
        """The least kernel size that loses nothing against the largest.

        Its residual is nearly that of the largest kernel, or much below the tolerance; and the flux of the target is
        met as well, or well within it: the residual says little about light that is faint and far out.
        """
        whole = self._whole(strength)
        low, high = 0, self.grid.size_max // 2  # half sizes
        least = self._losses(whole, 2 * high + 1)
        most = np.maximum(STILL * least, (EASY * tolerance, FLUX * tolerance))
        most = np.where(least <= tolerance, np.minimum(most, tolerance), most)  # not by the cut is it missed
        while high - low > max(1, high // 16):
            middle = (low + high) // 2
            if (self._losses(whole, 2 * middle + 1) <= most).all():
                high = middle
            else:
                low = middle
        return 2 * high + 1

    def _losses(self, whole: FloatArray, size: int) -> FloatArray:
        """The residual of kernels cut to this size, and by how much they miss the target's flux."""
        sums = self._inside(whole, size).sum(axis=(1, 2)) * self.science[:, 0, 0].real
        flux = self.target[:, 0, 0].real
        return np.array([self._cut(whole, size)[0], np.abs(sums / flux - 1.0).max()])

    def achieved(self, strength: float, size: int) -> tuple[float, float]:
        """The residual and the noise gain of kernels cut to this size, in the worst cell."""
        return self._cut(self._whole(strength), size)

    def _whole(self, strength: float) -> FloatArray:
        """Kernels over the whole grid, the origin in the first pixel."""
        return np.asarray(fft.irfft2(self.quotient(strength), (self.grid.side, self.grid.side)))

    def _cut(self, whole: FloatArray, size: int) -> tuple[float, float]:
        cut = self._inside(whole, size)
        difference = fft.rfft2(cut) * self.science - self.target
        square = ((difference.real**2 + difference.imag**2) * self.grid.weight).sum(axis=(1, 2))
        return float((np.sqrt(square) / self.norm).max()), float((cut**2).sum(axis=(1, 2)).max())

    def _inside(self, whole: FloatArray, size: int) -> FloatArray:
        offset = np.minimum(np.arange(self.grid.side), self.grid.side - np.arange(self.grid.side))
        return np.where((offset <= size // 2)[:, None] & (offset <= size // 2), whole, 0.0)
