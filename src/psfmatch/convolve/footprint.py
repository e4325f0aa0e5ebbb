"""What becomes of output pixels whose footprint is not whole: the rules that every backend shares."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import numpy as np

from psfmatch.convolve.arrays import namespace
from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.kernel import MatchingKernel

__all__ = ["Bits", "Convolver", "Edge", "Sums", "check_sizes", "finish", "usable"]

Edge = Literal["renormalize", "nan"]
LEAST_KEPT = 0.2
FEW = 8


class Convolver(Protocol):
    """What `convolve` asks of a backend: a frozen object whose fields are its options."""

    def convolve(self, exposure: Exposure, kernel: MatchingKernel) -> Exposure:
        """The exposure convolved with the kernel of every output pixel."""


@dataclass(eq=False)
class Sums:
    """Sums over the usable pixels under the footprint, for the same pixels of the output.

    Parameters
    ----------
    image, variance : array
        ``sum K I`` and ``sum K^2 var`` (None without a variance).
    kept, totals : array or None
        ``sum K`` over the usable pixels, and over all; None where every footprint is whole.
    beyond, missing, unsure : array of bool, or None
        Where the footprint reaches beyond the frame, and where it holds an unusable pixel of the image, or of the
        variance; None where none does.
    """

    image: Any
    variance: Any
    kept: Any = None
    totals: Any = None
    beyond: Any = None
    missing: Any = None
    unsure: Any = None


def check_sizes(exposure: Exposure, kernel: MatchingKernel) -> None:
    """Refuse a kernel of zeros and one larger than the image; warn if a varying kernel is used outside its box."""
    if exposure.shape[0] < kernel.shape[0] or exposure.shape[1] < kernel.shape[1]:
        raise InputError(
            f"image of {exposure.shape[1]} x {exposure.shape[0]} px is smaller than the kernel of "
            f"{kernel.shape[1]} x {kernel.shape[0]} px; no pixel has a whole footprint. "
            "Give a larger image or a smaller kernel"
        )
    if not kernel.support.any():
        raise InputError("every pixel of the kernel is zero; nothing would be left of the image")
    if kernel.weights.order > 0 and not kernel.box.contains(exposure.box):
        warnings.warn(
            f"the kernel varies and was made for {kernel.box}; outside of it, on {exposure.box}, it is extrapolated",
            PsfMatchWarning,
            stacklevel=4,
        )


@dataclass(frozen=True)
class Bits:
    """The mask's bits, as values of pixels, that a convolution reads and sets.

    Parameters
    ----------
    excluded : int
        A pixel with any of these is missing.
    edge, interpolated, no_data : int
        Set where the footprint reaches beyond the frame, where it holds a missing pixel, where too little is left.
    """

    excluded: int
    edge: int
    interpolated: int
    no_data: int

    @classmethod
    def of(cls, mask: Mask, exclude: tuple[str, ...]) -> Bits:
        """Those of a mask that has the planes EDGE, INTRP and NO_DATA; excluded planes that it lacks do not count."""
        excluded = mask.bits(*(name for name in exclude if name in mask.planes))
        return cls(excluded, *(mask.bits(name) for name in ("EDGE", "INTRP", "NO_DATA")))


def usable(image: Any, variance: Any, mask: Any, excluded: int, edge: Edge) -> tuple[Any, Any]:
    """Pixels of the image, and of the variance, that carry information.

    ``renormalize``: a pixel counts in both planes or in neither; it must be finite, of finite variance, and in none
    of the excluded planes.  ``nan``: each plane for itself, as in Rubin's software.
    """
    xp = namespace(image)
    good = xp.isfinite(image)
    if excluded:
        good &= (mask & excluded) == 0
    if variance is None:
        return good, good
    sure = xp.isfinite(variance)
    if edge == "nan":
        return good, sure
    good &= sure
    return good, good


def finish(sums: Sums, spread: Any, bits: Bits, edge: Edge) -> None:
    """Turn sums into pixel values and flags, in place.

    ``renormalize``: values are divided by the share of the kernel sum that was kept (variances by its square), so
    that a flat image stays flat; EDGE is set where the footprint reaches beyond the frame and INTRP where it holds
    an unusable pixel; where less than a fifth is kept, NO_DATA, NaN and infinite variance.

    ``nan``: as Rubin's software.  NaN wherever the footprint is not whole; where it reaches beyond the frame,
    infinite variance and NO_DATA in place of all other flags; no flag where it holds an unusable pixel.
    """
    xp = namespace(spread)
    if edge == "nan":
        for plane, where, value in (
            (sums.image, sums.missing, np.nan), (sums.image, sums.beyond, np.nan),
            (sums.variance, sums.unsure, np.nan), (sums.variance, sums.beyond, np.inf),
            (spread, sums.beyond, bits.no_data),
        ):  # fmt: skip
            if plane is not None and where is not None:
                plane[xp.broadcast_to(where, plane.shape)] = value
        return
    if sums.beyond is None or sums.missing is None:
        part = sums.beyond if sums.missing is None else sums.missing
    else:
        part = sums.beyond | sums.missing
    if part is None or not bool(xp.any(part)):
        return
    assert sums.kept is not None
    assert sums.totals is not None
    # Everywhere; or, where they are few, the pixels concerned alone.
    some: Any = ... if FEW * int(xp.count_nonzero(part)) > prod(part.shape) else xp.broadcast_to(part, sums.kept.shape)
    kept, totals = sums.kept[some], xp.broadcast_to(sums.totals, sums.kept.shape)[some]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = xp.where(part, kept / totals, xp.ones_like(kept)) if some is ... else kept / totals
    lost = None
    if not (float(xp.min(share)) >= LEAST_KEPT and float(xp.max(share)) <= 1.0 / LEAST_KEPT):
        lost = ~((share >= LEAST_KEPT) & (share <= 1.0 / LEAST_KEPT))
        share[lost] = np.nan
    with np.errstate(over="ignore"):
        sums.image[some] /= share
        if sums.variance is not None:
            variance = sums.variance[some] / (share * share)
            if lost is not None:
                variance[lost] = np.inf
            sums.variance[some] = variance
    for where, bit in ((sums.beyond, bits.edge), (sums.missing, bits.interpolated)):
        if where is not None:
            spread |= xp.asarray(where, dtype=spread.dtype) * bit
    if lost is not None:
        spread[some] |= xp.asarray(lost, dtype=spread.dtype) * bits.no_data
