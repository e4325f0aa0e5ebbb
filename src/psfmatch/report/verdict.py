"""How good a match is, in words, and what to do where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from psfmatch.check import Check
from psfmatch.check import Verdict as Seen
from psfmatch.match import Matched
from psfmatch.quality import millimagnitudes
from psfmatch.solve import Outcome

__all__ = ["Finding", "Level", "Verdict", "verdict"]

Level = Literal["good", "fair", "bad"]
TITLES: dict[Level, str] = {
    "good": "The match is good", "fair": "The match can be used, within its limits",
    "bad": "The match should not be used as it is",
}  # fmt: skip
SMALL_EE = 0.005
LARGE_RESIDUAL = 0.03
LOST_FLUX = 0.01
WIDE_SHARE = 0.3
DOUBTFUL_EE, LARGE_DEVIATION = 0.01, 0.05
MODEL_IN_DOUBT = (
    "The models agree, so that the PSF model of the image is not that of its stars: psfmatch check IMAGE --target "
    "MODEL, before the match."
)
MUCH_NEGATIVE = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing to know, how bad it is, and the cure where there is one."""

    level: Level
    text: str
    cure: str = ""


@dataclass(frozen=True)
class Verdict:
    """The whole, as bad as its worst finding."""

    findings: tuple[Finding, ...]
    title: str = ""

    @property
    def level(self) -> Level:
        levels = {finding.level for finding in self.findings}
        return "bad" if "bad" in levels else "fair" if "fair" in levels else "good"

    @property
    def words(self) -> str:
        """The title, for people."""
        return self.title or TITLES[self.level]


def verdict(matched: Matched, stars: Check | None = None) -> Verdict:
    """What is to be said of a match: how true it is, what it costs, what was lost, and what its stars say of it."""
    notes = matched.solution.statistics
    return Verdict(
        (
            _outcome(matched), _truth(matched), *_stars(matched, stars), _noise(matched, notes), *_negative(matched),
            *_amplified(notes),
            *_stamps(notes), *_cells(matched, notes), *_sums(matched, notes), *_frame(matched),
        )
    )  # fmt: skip


def _outcome(matched: Matched) -> Finding:
    solution = matched.solution
    lost = solution.statistics.get("regions_lost", 0)
    if lost:
        return Finding("bad", f"{lost} regions have no kernel, and no data.", "Mend their PSF models.")
    if not solution.outcome.ok:
        sentence, _, cure = solution.outcome.value.partition(". ")
        return Finding(
            "bad", f"{sentence.rstrip('.')}.", " ".join(filter(None, (cure, solution.statistics.get("advice"))))
        )
    if solution.outcome is Outcome.TOLERANCE_NOT_REACHED:
        small = matched.quality.worst["ee_error"] <= SMALL_EE
        words = solution.message.partition(" Spatial frequencies are amplified")[0]
        return Finding("good" if small else "fair", words, "" if small else _more_room(solution.statistics))
    return Finding("good", solution.outcome.value.partition(" Take")[0])


def _more_room(notes: Any) -> str:
    advice = str(notes.get("advice", ""))
    if "set by hand" in advice:
        return f"Leave out what was set by hand, so that it is chosen: {notes['by_hand']}."
    if notes.get("solver") == "alard-lupton":
        return "FreeForm, the default solver, has no basis that limits it."
    if "the frame" in advice:
        return "Match a larger frame (the kernel is kept below an eighth of it), or take a target nearer to the PSF."
    if "amplified" in advice:
        return "Take a broader target: it is sharper than the image at some spatial frequencies."
    if "max_size" in advice:
        return "Allow a larger kernel: --set solver.max_size=99."
    if "the limit on noise gain" in advice or "max_noise_gain" in advice:
        return "Take a broader target, or allow more noise: --set solver.max_noise_gain=4."
    return "Give larger or cleaner PSF stamps, or an analytic model of the PSF."


def _truth(matched: Matched) -> Finding:
    worst, median = matched.quality.worst, matched.quality.median
    radius = matched.quality.worst_radius
    text = (
        f"The PSFs differ by {100 * median['residual']:.2g} % in the root-mean-square sense (worst "
        f"{100 * worst['residual']:.2g} %); an aperture magnitude is wrong by at most "
        f"{millimagnitudes(worst['ee_error']):.2g} mmag, "
        + (f"in an aperture of {radius:.3g} px radius." if np.isfinite(radius) else "at any radius.")
    )
    if matched.quality.poor(float(matched.solution.statistics.get("tolerance", 0.0))):
        return Finding(
            "bad", text, "Compare sizes and strengths in “Kernel size”: " + _more_room(matched.solution.statistics)
        )
    if worst["ee_error"] <= SMALL_EE:
        return Finding("good", text)
    said = matched.solution.outcome is Outcome.TOLERANCE_NOT_REACHED
    return Finding("fair", text, "" if said else _more_room(matched.solution.statistics))


def _stars(matched: Matched, found: Check | None) -> list[Finding]:
    """What the stars say, which know nothing of models."""
    if found is None or not len(found):
        return []
    of = f"the {len(found)} stars" if len(found) > 1 else "the one star"
    figures = {"FWHM": found.size, "ellipticity": found.ellipticity, "encircled energy": found.ee_error}
    said = ", ".join(f"{name} {100 * d.value:+.2f} ± {100 * d.error:.2f} %" for name, d in figures.items())
    if found.verdict is Seen.OVER:
        return [
            Finding(
                "bad" if any(d.over(LARGE_DEVIATION) for d in figures.values()) else "fair",
                f"{of[0].upper()}{of[1:]} checked in the image do not have the target PSF: {said}.",
                MODEL_IN_DOUBT if matched.quality.worst["ee_error"] <= DOUBTFUL_EE else "",
            )
        ]
    agree = "have the target PSF" if found.verdict is Seen.WITHIN else "do not contradict the target, nor prove it"
    return [Finding("good", f"{of[0].upper()}{of[1:]} checked in the image {agree}: {said}.")]


def _noise(matched: Matched, notes: Any) -> Finding:
    gain = matched.quality.worst["noise_gain"]
    limit = float(notes.get("max_noise_gain", 2.0))
    text = f"The variance of white noise is multiplied by {gain:.3g}"
    if gain > 1:
        level: Level = "bad" if gain > limit else "fair"
        return Finding(level, f"{text}: the image is noisier than it was.", "Take a broader target.")
    return Finding("good", f"{text}; what is left is shared by neighbours, see “Noise”.")


def _negative(matched: Matched) -> list[Finding]:
    """Kernels that take away much of what they add."""
    lost = matched.quality.worst["negative_flux"]
    if lost < MUCH_NEGATIVE:
        return []
    text = f"The kernel's negative pixels sum to {lost:.2g} times the flux of a star: what is no star (cosmic rays, "
    return [
        Finding("fair", text + "saturated cores, hot pixels) is ringed by it.", "Mask it, or take a broader target.")
    ]


def _amplified(notes: Any) -> list[Finding]:
    largest = float(notes.get("amplification", 1.0))
    if largest <= 1.05:
        return []
    share = 100 * float(notes.get("amplified_share", 0.0))
    return [
        Finding(
            "fair" if largest > 1.5 else "good",
            f"Spatial frequencies are amplified up to {largest:.2f} times (more than 1.05 times in {share:.2g} % of "
            "them): there the target is sharper than the image.",
            "Take a target that is broader in every direction, if this noise matters." if largest > 1.5 else "",
        )
    ]


def _stamps(notes: Any) -> list[Finding]:
    out = []
    for name in ("science", "target"):
        lost = float(notes.get(f"missing_flux_{name}", 0.0))
        if np.isfinite(lost) and lost > LOST_FLUX:
            out.append(
                Finding(
                    "fair",
                    f"An estimated {100 * lost:.1f} % of the flux lies beyond the {name} PSF's stamp, where nobody "
                    "knows how it is distributed.",
                    f"Give the {name} PSF on a larger stamp.",
                )
            )
    return out


def _cells(matched: Matched, notes: Any) -> list[Finding]:
    cells = matched.solution.cells
    out = []
    if cells.skipped:
        x, y, why = cells.skipped[0]
        out.append(
            Finding(
                "fair",
                f"The PSF could not be evaluated at {len(cells.skipped)} of "
                f"{len(cells) + len(cells.skipped)} positions (the first at x = {x:.0f}, y = {y:.0f}: {why}).",
                "Mend the PSF model there, or mask that part of the image.",
            )
        )
    used = np.asarray(notes.get("used", np.ones(len(cells), bool)), bool)
    rejected = int(used.size - used.sum())
    if rejected:
        level: Level = "bad" if rejected > 2 * used.sum() else "fair"
        out.append(
            Finding(
                level,
                f"{rejected} of {used.size} candidates were rejected.",
                "Relax the clipping, or look at them below.",
            )
        )
    return out


def _sums(matched: Matched, notes: Any) -> list[Finding]:
    asked = float(notes.get("asked_sum", 1.0))
    off = float(np.max(np.abs(matched.quality.kernel_sum / asked - 1.0)))
    if off < 0.01:
        return []
    return [
        Finding(
            "fair", f"The kernel sum differs from {asked:g} by up to {100 * off:.2g} %, and so do fluxes.",
            _more_room(notes) if "size=" in str(notes.get("by_hand", "")) else "Tie it: --set solver.flux=unit.",
        )
    ]  # fmt: skip


def _frame(matched: Matched) -> list[Finding]:
    ny, nx = matched.exposure.shape
    half = max(matched.solution.kernel.shape) // 2
    share = 1.0 - max(0, ny - 2 * half) * max(0, nx - 2 * half) / (nx * ny)
    if share < WIDE_SHARE:
        return []
    return [
        Finding(
            "good", f"{100 * share:.0f} % of the pixels lie within half a kernel of the border, are made of a part of "
            "it, and are flagged EDGE.",
        )
    ]  # fmt: skip
