"""How a match is told: the figures of merit as a table for people and as plain values for programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psfmatch.cli.console import Console

if TYPE_CHECKING:
    from psfmatch.quality import Quality
    from psfmatch.solve.solution import Solution

__all__ = ["print_outcomes", "print_quality", "solution_values"]

MEANING = {
    "residual": "norm2(K*S - T) / norm2(T)",
    "max_residual": "worst pixel of K*S - T, over the peak of T",
    "ee_error": "largest difference of the encircled energies",
    "noise_gain": "sum K^2, the factor on white-noise variance",
    "negative_flux": "sum of the kernel's negative pixels",
    "kernel_sum": "sum K, the factor on flux",
}
OTHER_COLUMNS = 78


def solution_values(solution: Solution, quality: Quality) -> dict[str, Any]:
    """What ``--json`` says about a solution and how well it does."""
    return {
        "outcome": solution.outcome.name,
        "outcome_text": solution.message,
        "kernel_shape": solution.kernel.shape,
        "kernel_basis": len(solution.kernel.basis),
        "cells": len(solution.cells),
        "cells_skipped": len(solution.cells.skipped),
        "statistics": dict(solution.statistics),
        "quality": {
            "positions": len(quality),
            "median": quality.median,
            "worst": quality.worst,
            "worst_radius": quality.worst_radius,
        },
    }


def print_quality(console: Console, qualities: Mapping[str, Quality]) -> None:
    """The figures of one image with their meaning; of several, a line of medians each, and the worst errors."""
    from psfmatch.quality import millimagnitudes

    if len(qualities) == 1:
        (quality,) = qualities.values()
        median, worst = quality.median, quality.worst
        console.table(
            ("figure", "median", "worst", ""),
            [
                (_words(name), *(_figure(name, values[name]) for values in (median, worst)), meaning)
                for name, meaning in MEANING.items()
            ],
        )
        console.line(
            f"An aperture magnitude is wrong by at most {millimagnitudes(worst['ee_error']):.2g} mmag, in an aperture "
            f"of {quality.worst_radius:.3g} px radius, as far as the PSF models are right."
        )
    elif qualities:
        console.table(
            (
                "image",
                "residual",
                "worst",
                "max\nresidual",
                "EE\nerror",
                "mmag\n(worst)",
                "within\n[px]",
                "noise\ngain",
                "neg.\nflux",
                "kernel\nsum",
            ),
            [(_short(name), *_medians(quality)) for name, quality in qualities.items()],
        )


def print_outcomes(console: Console, solutions: Mapping[str, Solution]) -> None:
    """What kept a kernel that may be used from being better, in a line for each."""
    for name, solution in solutions.items():
        if solution.outcome.name != "OK" and solution.outcome.ok:
            console.line(f"{name}: {solution.message}" if name else solution.message)


def _words(name: str) -> str:
    return name.replace("ee_", "EE ").replace("_", " ")


def _figure(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "kernel_sum" else f"{value + 0.0:.3g}"


def _medians(quality: Quality) -> tuple[str, ...]:
    from psfmatch.quality import millimagnitudes

    median = quality.median
    return (
        f"{median['residual']:.1e}", f"{quality.worst['residual']:.1e}", f"{median['max_residual']:.1e}",
        f"{median['ee_error']:.1e}", f"{millimagnitudes(quality.worst['ee_error']):.2g}",
        f"{quality.worst_radius:.3g}", f"{median['noise_gain']:.3g}", f"{median['negative_flux'] + 0.0:.3f}",
        f"{median['kernel_sum']:.4f}",
    )  # fmt: skip


def _short(name: str) -> str:
    """The name, without its middle where the terminal is too narrow."""
    room = max(16, shutil.get_terminal_size((250, 24)).columns - OTHER_COLUMNS)
    if len(name) <= room:
        return name
    front = room // 2
    return f"{name[:front]}…{name[len(name) - (room - front - 1) :]}"
