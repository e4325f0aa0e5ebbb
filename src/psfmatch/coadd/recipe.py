"""The options of bringing exposures to a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from psfmatch.errors import InputError
from psfmatch.solve import FreeForm, Solver
from psfmatch.warp import Interpolation, Kaiser

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How exposures are brought to the grid.

    Parameters
    ----------
    order : {"match-warp", "warp-match"}
        ``match-warp``: each exposure is matched in its own pixels to the target as seen from there, where its noise
        is white, and interpolated when it is well sampled.  ``warp-match``: interpolated first, as Rubin's software
        does, and then matched.
    background : {"none", "median"}
        What is subtracted from each exposure: nothing, or the median of its usable pixels.
    scale : {"header", "stars", "none"}
        What brings the fluxes to one scale: the zero points (given, or of the headers), or these corrected by the
        stars that the exposures share; or nothing.
    solver : Solver
        Of the kernels.
    interpolation : Interpolation
        Of the pixels.
    reject : tuple of str
        Mask planes whose pixels are not used.
    lost : float
        The share of the kernel that may fall on such pixels.  Below it they are estimated from their neighbours, and
        pass on no plane; above, the pixel is left out of the coadd.
    lost_saturated : float
        The same for those of the plane SAT: the peak of a star does not follow from its neighbours.
    patch : int
        Rows and columns of the parts that the grid is worked through in.  The result depends on it by rounding, and in
        what is clipped: the scatter that faint artefacts are held against is measured in each.
    memory : float
        Gigabytes that a process may take, all in all; patches are made smaller to keep it.
    """

    order: Literal["match-warp", "warp-match"] = "match-warp"
    background: Literal["none", "median"] = "none"
    scale: Literal["header", "stars", "none"] = "header"
    solver: Solver = field(default_factory=FreeForm)
    interpolation: Interpolation = field(default_factory=Kaiser)
    reject: tuple[str, ...] = ("BAD", "SAT", "CR", "INTRP", "EDGE", "NO_DATA")
    lost: float = 0.1
    lost_saturated: float = 0.001
    patch: int = 1024
    memory: float = 2.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("order", ("match-warp", "warp-match")), ("background", ("none", "median")),
            ("scale", ("header", "stars", "none")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(f"Recipe {name}={getattr(self, name)!r}: choose {' or '.join(allowed)}")
        if not hasattr(self.solver, "solution"):
            raise InputError(f"Recipe solver={self.solver!r}: give a solver such as FreeForm()")
        for name in ("lost", "lost_saturated"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"Recipe {name}={getattr(self, name)}: must lie in [0, 1)")
        if self.patch < 64 or not self.memory > 0:
            raise InputError(f"Recipe patch={self.patch}, memory={self.memory}: at least 64 px, and above 0 GB")
