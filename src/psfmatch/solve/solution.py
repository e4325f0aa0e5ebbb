"""What every solver returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from psfmatch.cells import SpatialCellSet
from psfmatch.geometry import Box
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import PSF

__all__ = ["Outcome", "Solution", "Solver", "set_by_hand"]


class Outcome(Enum):
    """How the solution went: a sentence, with the cure where one is needed."""

    OK = "The kernel was solved."
    DECONVOLVED = (
        "The kernel was solved; the target is sharper than the science PSF at some spatial frequencies. Take a broader "
        "target if they are not to be amplified."
    )
    SINGULAR = (
        "The normal equations are singular: fewer usable pixels than basis functions, or functions that cannot be "
        "told apart. Take fewer or wider basis functions, a smaller kernel, or larger PSF stamps."
    )
    ILL_CONDITIONED = (
        "The condition number of the spatial fit is above the limit. Take fewer basis functions, a lower spatial "
        "order, or raise max_spatial_condition."
    )

    TOLERANCE_NOT_REACHED = "The tolerance was not reached: the kernel is as good as the limits on it allow."
    OUT_OF_REACH = (
        "The target cannot be reached: the match would be poor. Take a target nearer to the science PSF in width and "
        "shape, give a larger frame or larger stamps, or lift the limit that is named."
    )
    POOR = (
        "The match is poor. Lift what limits the kernel, or take a target nearer to the science PSF in width and shape."
    )
    TARGET_TOO_SHARP = (
        "The target is sharper than the science PSF can be made within max_noise_gain. Take a broader target, or "
        "raise max_noise_gain and accept the noise."
    )

    @property
    def ok(self) -> bool:
        """Whether the kernel may be used: it is sound, and no better one of its kind exists."""
        return self in (Outcome.OK, Outcome.DECONVOLVED, Outcome.TOLERANCE_NOT_REACHED)


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved kernel and how it came about.

    Parameters
    ----------
    kernel : MatchingKernel
        The kernel.
    outcome : Outcome
        How it went.
    cells : SpatialCellSet
        The sampled PSFs that it was solved from.
    statistics : mapping
        What the solver chose and measured, by name: plain numbers, strings and arrays.
    """

    kernel: MatchingKernel
    outcome: Outcome
    cells: SpatialCellSet
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The outcome's sentence, with the advice that fits this case."""
        return " ".join(filter(None, (self.outcome.value, str(self.statistics.get("advice", "")))))

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", MappingProxyType(dict(self.statistics)))


class Solver(Protocol):
    """What `match` asks of a solver: a frozen object whose fields are its options."""

    def solution(self, science: PSF, target: PSF, box: Box, *, kernel_sum: float = 1.0) -> Solution:
        """The kernel that turns the science PSF into the target PSF, times ``kernel_sum``, over a box."""


def set_by_hand(solver: Any, *names: str) -> str:
    """Which of these options, that a solver chooses where they are left out, were given: "size=5, flux=unit"."""
    values = {name: getattr(solver, name) for name in names}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value not in (None, "free"))
