"""Boxes of pixels, and the conventions of the whole package.

* ``x`` is the column and ``y`` the row; arrays are indexed ``[y, x]``.
* Integer coordinates are pixel *centres*; the first pixel of a whole frame is (0, 0).
* A `Box` is half-open and may have any origin: a cut-out keeps the coordinates of the frame it comes from.
* Convolution is true convolution, ``out(x) = sum_u K(u; x) I(x - u)``, with the kernel of the *output* pixel.
* A stamp is an image of odd size whose central pixel is the origin.
* Positions are passed by keyword (``x=``, ``y=``), so that they cannot be swapped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError

__all__ = [
    "Box",
    "Position",
    "as_positions",
    "as_reals",
    "frozen",
    "masked_pixels",
    "no_unit",
    "odd_shape",
    "once",
    "plain_array",
    "resized",
    "whole_number",
]

FloatArray = NDArray[np.floating[Any]]


class Position(NamedTuple):
    """A position in the parent frame.

    Parameters
    ----------
    y : float
        Row, in pixels; whole numbers are pixel centres.
    x : float
        Column, likewise.
    """

    y: float
    x: float


@dataclass(frozen=True)
class Box:
    """A half-open rectangle of pixels: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``.

    Parameters
    ----------
    y0, x0 : int
        Row and column of the first pixel, in the parent frame; they may be negative.
    y1, x1 : int
        Row and column behind the last one.

    Raises
    ------
    InputError
        If a corner is not an integer, or the box has no pixels.
    """

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        for name in ("y0", "x0", "y1", "x1"):
            value = getattr(self, name)
            if int(value) != value:
                raise InputError(f"Box.{name} = {value!r} is not an integer; boxes hold whole pixels")
            object.__setattr__(self, name, int(value))
        if self.y1 <= self.y0 or self.x1 <= self.x0:
            raise InputError(f"{self} has no pixels; give y1 > y0 and x1 > x0")

    @classmethod
    def from_shape(cls, shape: tuple[int, int], *, y0: int = 0, x0: int = 0) -> Box:
        """The box of an array of this shape whose first pixel is (``y0``, ``x0``)."""
        return cls(y0, x0, y0 + shape[0], x0 + shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def center(self) -> Position:
        """The mean of the pixel centres."""
        return Position(0.5 * (self.y0 + self.y1 - 1), 0.5 * (self.x0 + self.x1 - 1))

    def grown(self, dy: int, dx: int | None = None) -> Box:
        """The box with ``dy`` rows and ``dx`` columns (default ``dy``) more on each side; negative shrinks."""
        dx = dy if dx is None else dx
        return Box(self.y0 - dy, self.x0 - dx, self.y1 + dy, self.x1 + dx)

    def lengthened(self, least: tuple[int, int], within: Box) -> Box:
        """The box with at least so many rows and columns, as far as there is room in another, which holds it."""
        y0, x0 = (
            max(low, min(first, last - n))
            for low, first, last, n in (
                (within.y0, self.y0, self.y1, least[0]), (within.x0, self.x0, self.x1, least[1]),
            )
        )  # fmt: skip
        return Box(y0, x0, min(within.y1, max(self.y1, y0 + least[0])), min(within.x1, max(self.x1, x0 + least[1])))

    def contains(self, other: Box) -> bool:
        """Whether every pixel of ``other`` is in this box."""
        return self.y0 <= other.y0 and self.x0 <= other.x0 and other.y1 <= self.y1 and other.x1 <= self.x1

    def overlap(self, other: Box) -> Box | None:
        """The pixels that are in both boxes; None where there are none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Box(y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None

    def slices(self, within: Box) -> tuple[slice, slice]:
        """The slices that cut this box out of an array that covers ``within``.

        Raises
        ------
        InputError
            If this box is not wholly inside ``within``.
        """
        if not within.contains(self):
            raise InputError(f"{self} is not inside {within}")
        return (
            slice(self.y0 - within.y0, self.y1 - within.y0),
            slice(self.x0 - within.x0, self.x1 - within.x0),
        )


def as_positions(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Scalars or arrays as two one-dimensional float arrays of the same length.

    Raises
    ------
    InputError
        If they cannot be broadcast together, are masked, of a unit other than pixels, or not finite.
    """
    x, y = _in_pixels(x, "positions x"), _in_pixels(y, "positions y")
    try:
        bx, by = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    except ValueError as error:
        raise InputError(f"positions x {np.shape(x)} and y {np.shape(y)} do not fit together") from error
    if not (np.isfinite(bx).all() and np.isfinite(by).all()):
        raise InputError("positions must be finite")
    return bx.ravel(), by.ravel()


def _in_pixels(values: ArrayLike, what: str) -> ArrayLike:
    values = values.value if str(getattr(values, "unit", "")) == "pix" else values  # type: ignore[union-attr]
    _refuse_lost(values, what, InputError, "pixels")
    return values


def frozen(array: ArrayLike, dtype: Any = None) -> NDArray[Any]:
    """A read-only view of the array (a copy only where the dtype must change)."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


def masked_pixels(values: Any) -> NDArray[np.bool_] | None:
    """Where an array, of numpy or astropy, is masked; None where it is nowhere."""
    mask = getattr(values, "mask", None)
    if not isinstance(mask, np.ndarray | np.bool_) or mask.dtype != bool or not mask.any():
        return None
    return np.broadcast_to(mask, np.shape(values))


def no_unit(value: object, what: str, cure: str = "plain numbers", *, error: type[InputError] = InputError) -> None:
    """Raise the error if the value is a quantity with a unit.

    Parameters
    ----------
    value : object
        What the caller gave.
    what : str
        What messages call it.
    cure : str
        What to give instead.
    error : type
        Of the error.
    """
    if unit := str(getattr(value, "unit", None) or ""):
        raise error(f"{what} in {unit}: give {cure}, without a unit (quantity.to_value(unit))")


def plain_array(
    values: ArrayLike, what: str, dtype: Any = None, *, error: type[InputError] = InputError
) -> NDArray[Any]:
    """What the caller gave as an array, of which numpy would pass over masks and units in silence.

    Parameters
    ----------
    values : array, or lists of arrays
    what : str
        What messages call it.
    dtype : dtype, optional
        Of the array.
    error : type
        Of the error.

    Raises
    ------
    InputError
        Or its subclass ``error``: if a value is masked or has a unit.
    """
    _refuse_lost(values, what, error)
    return np.asarray(values, dtype)


def _refuse_lost(values: object, what: str, error: type[InputError], cure: str = "plain numbers") -> None:
    if isinstance(values, list | tuple):
        for value in values:
            _refuse_lost(value, what, error, cure)
        return
    no_unit(values, what, cure, error=error)
    if (masked := masked_pixels(values)) is not None:
        count = f"{np.count_nonzero(masked)} of {masked.size} values are masked"
        raise error(f"{what}: {count}; say what they are (array.filled(value))")


def as_reals(array: NDArray[Any], what: str) -> FloatArray:
    """Floats of single or double precision as they are; else of single where this is exact, and of double elsewhere.

    Raises
    ------
    InputError
        If the array does not hold real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} of dtype {array.dtype}: give real numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize in (4, 8):
        return array
    return array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32)


def whole_number(value: object, what: str, *, least: int = 0) -> int:
    """The value, checked to be an integer that is not too small.

    Raises
    ------
    InputError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{what}={value!r}: must be a whole number, {least} or more")
    return int(value)


def odd_shape(shape: tuple[int, int], what: str) -> tuple[int, int]:
    """The shape, checked to be two odd positive integers."""
    sy, sx = (int(s) for s in shape)
    if sy < 1 or sx < 1 or sy % 2 == 0 or sx % 2 == 0:
        raise InputError(f"{what} {tuple(shape)}: both sides must be odd and positive")
    return sy, sx


def resized(stamps: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Stamps (..., sy, sx) of odd size, zero-padded or cut about their centre to another odd ``shape``."""
    out = np.zeros((*stamps.shape[:-2], *shape), dtype=stamps.dtype)
    source: list[slice] = []
    target: list[slice] = []
    for old, new in zip(stamps.shape[-2:], shape, strict=True):
        half = min(old, new) // 2
        source.append(slice(old // 2 - half, old // 2 + half + 1))
        target.append(slice(new // 2 - half, new // 2 + half + 1))
    out[..., target[0], target[1]] = stamps[..., source[0], source[1]]
    return out


def once(images: FloatArray) -> FloatArray:
    """Images (n, ny, nx); the first alone, (1, ny, nx), where all are alike."""
    return images[:1] if (images == images[:1]).all() else images
