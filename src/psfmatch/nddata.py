"""What astropy keeps differently: ``NDData`` with uncertainties of three kinds, and units as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray, plain_array

if TYPE_CHECKING:
    from astropy.nddata import NDData

__all__ = [
    "Uncertainty", "inverse", "negatives", "planes_of_text", "text_of_planes", "uncertainty_of", "unit_name", "unit_of",
    "variance_factor", "variance_of",
]  # fmt: skip

Uncertainty = Literal["variance", "std", "ivar"]


def variance_of(data: NDData) -> FloatArray | None:
    """The variance of an ``NDData`` of whatever uncertainty, in its unit squared; None where it has none.

    Raises
    ------
    InputError
        If the uncertainty is neither a standard deviation nor a variance nor an inverse variance, or of a unit that
        does not go with that of the data.
    """
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    given = data.uncertainty
    if given is None:
        return None
    powers = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
    power = next((power for kind, power in powers.items() if isinstance(given, kind)), None)
    if power is None:
        raise InputError(
            f"uncertainty of type {type(given).__name__}: give a standard deviation, variance or inverse variance"
        )
    values = _in_unit_of(data, plain_array(given.array, "uncertainty"), given.unit, power)
    return inverse(values) if power < 0 else values**2 if power == 1 else values


def _in_unit_of(data: NDData, values: FloatArray, unit: Any, power: int) -> FloatArray:
    """Values of a unit in that of the data, to a power; those of no unit are taken to be in it."""
    from astropy.units import UnitConversionError

    if unit is None or data.unit is None or unit == data.unit**power:
        return values
    try:
        return np.asarray(values * unit.to(data.unit**power))
    except UnitConversionError as error:
        raise InputError(f"an uncertainty in {unit} does not go with data in {data.unit}: {error}") from error


def uncertainty_of(variance: FloatArray | None, kind: Uncertainty) -> Any:
    """A variance as an uncertainty of astropy; a weight is 0 where the variance is infinite.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    if kind not in ("variance", "std", "ivar"):
        raise InputError(f"uncertainty {kind!r}: choose variance, std or ivar")
    if variance is None:
        return None
    if kind == "variance":
        return VarianceUncertainty(variance)
    with np.errstate(divide="ignore"):
        return StdDevUncertainty(np.sqrt(variance)) if kind == "std" else InverseVariance(1.0 / variance)


def text_of_planes(planes: Mapping[str, int]) -> str:
    """Mask planes as a text that a card holds: ``BAD=0 SAT=1``."""
    return " ".join(f"{name}={bit}" for name, bit in planes.items())


def planes_of_text(text: str) -> dict[str, int]:
    """And back.

    Raises
    ------
    InputError
        If it is no such text.
    """
    words = [word.partition("=") for word in str(text).split()]
    if not all(bit.isdecimal() for _, _, bit in words):
        raise InputError(f"MASKPLAN {text!r}: give names and bits, such as 'BAD=0 SAT=1'")
    return {name: int(bit) for name, _, bit in words}


def unit_of(text: str | None) -> Any:
    """A unit of astropy; one that it does not know, and none, are dimensionless."""
    from astropy.units import Unit, UnrecognizedUnit, dimensionless_unscaled

    if not text:
        return dimensionless_unscaled
    unit = Unit(text, parse_strict="silent")
    lower = Unit(text.lower(), parse_strict="silent")  # ADU, COUNTS
    return next((one for one in (unit, lower) if not isinstance(one, UnrecognizedUnit)), dimensionless_unscaled)


def unit_name(image: object, unit: object) -> str | None:
    """What a unit is called: the one given, a text or one of astropy's, or else that of the image, if it is a quantity.

    Raises
    ------
    InputError
        If the unit is neither, or another one than the image's.
    """
    own = getattr(image, "unit", None)
    name = str(own) if unit is None and own is not None else _text(unit)
    if own is not None and unit_of(name) != own:
        raise InputError(f"image in {own}, but unit={name!r}: leave unit out, or convert the image to it")
    return name or None


def _text(unit: object) -> str | None:
    if unit is None or isinstance(unit, str):
        return unit
    from astropy.units import UnitBase

    if not isinstance(unit, UnitBase):
        raise InputError(f"unit={unit!r}: give a text such as 'nJy', or a unit of astropy")
    return str(unit)


def variance_factor(variance: object, unit: str | None) -> float:
    """The factor that brings a variance, if it is a quantity, to the unit squared of the image.

    Raises
    ------
    InputError
        If it is of a unit that does not go with that one.
    """
    own = getattr(variance, "unit", None)
    if own is None:
        return 1.0
    from astropy.units import UnitsError

    try:
        return float(own.to(unit_of(unit) ** 2))
    except UnitsError as error:
        raise InputError(
            f"variance in {own or 'no unit'} does not go with an image in {unit or 'no unit'}: "
            "give the variance in the image's unit squared"
        ) from error


def inverse(weight: FloatArray) -> FloatArray:
    """Variance from inverse variance: infinity where the weight is zero.

    Raises
    ------
    InputError
        If a weight is negative.
    """
    if negative := negatives(weight):
        raise InputError(f"inverse variance is negative in {negative} pixels")
    variance = np.full(weight.shape, np.inf, np.result_type(weight, np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.divide(1.0, weight, out=variance, where=weight > 0)


def negatives(values: NDArray[Any]) -> int:
    """How many values are negative, counted without a temporary plane where none is."""
    with np.errstate(invalid="ignore"):
        return int(np.count_nonzero(values < 0)) if np.fmin.reduce(values, axis=None) < 0 else 0
