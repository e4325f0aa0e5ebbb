"""PSFs in words: ``moffat:fwhm=5,beta=3.5``, ``gaussian:fwhm=1.2arcsec``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psfmatch.errors import InputError
from psfmatch.psf import PSF, DoubleGaussianPSF, GaussianPSF, MoffatPSF

__all__ = ["are_words", "psf_from_words"]

UNITS = {"": None, "px": None, "pix": None, "pixel": None, "pixels": None, "arcsec": 1.0, '"': 1.0, "mas": 1e-3}
NUMBER = re.compile(r"^([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z\"]*)$")
LENGTHS = ("fwhm", "sigma", "sigma1", "sigma2")


@dataclass(frozen=True)
class _Family:
    """A model: its constructor, and its keywords with what they are when not given (None: must be given)."""

    make: Callable[..., PSF]
    keywords: Mapping[str, float | None] = field(default_factory=dict)

    def usage(self, name: str) -> str:
        words = [f"{key}=..." if value is None else f"{key}={value:g}" for key, value in self.keywords.items()]
        return f"{name}:{','.join(words)}"


def _double_gaussian(**values: Any) -> PSF:
    if "fwhm" in values:
        return DoubleGaussianPSF.from_fwhm(values.pop("fwhm"), **values)
    return DoubleGaussianPSF(**values)


ELLIPTICAL = {"ellipticity": 0.0, "angle": 0.0}
FAMILIES = {
    "gaussian": [_Family(GaussianPSF, {"fwhm": None, **ELLIPTICAL})],
    "moffat": [_Family(MoffatPSF, {"fwhm": None, "beta": None, **ELLIPTICAL})],
    "double-gaussian": [
        _Family(_double_gaussian, {"fwhm": None, "ratio": 2.0, "b": 0.1}),
        _Family(_double_gaussian, {"sigma1": None, "sigma2": None, "b": None}),
    ],
}


def are_words(text: str) -> bool:
    """Whether a text is meant as words rather than as a file name."""
    head = text.partition(":")[0].strip().lower().replace("_", "-")
    return head in FAMILIES or (re.fullmatch(r"[A-Za-z][A-Za-z _-]+:.*", text) is not None and not os.path.exists(text))


def psf_from_words(text: str, *, pixel_scale: float | None = None) -> PSF:
    """The PSF that words describe.

    Parameters
    ----------
    text : str
        ``family:keyword=value,...``.  Families: ``gaussian`` (fwhm), ``moffat`` (fwhm, beta), both with
        ellipticity (1 - b/a) and angle (degrees from +x towards +y), and ``double-gaussian`` (fwhm, ratio=2, b=0.1;
        or sigma1, sigma2, b).  Widths are in pixels, or in arcsec or mas where so written.
    pixel_scale : float, optional
        Arcseconds a pixel.

    Raises
    ------
    InputError
        If a family, keyword, number or unit is not known, or an angle is given and no pixel scale.
    """
    head, _, tail = text.partition(":")
    name = head.strip().lower().replace("_", "-")
    if name not in FAMILIES:
        raise InputError(f"PSF {text!r}: no family {head.strip()!r}; there are {', '.join(FAMILIES)}")
    values = dict(_pair(item, text, pixel_scale) for item in tail.split(",") if item.strip())
    usage = " or ".join(family.usage(name) for family in FAMILIES[name])
    known = {key for family in FAMILIES[name] for key in family.keywords}
    for key in values:
        if key not in known:
            raise InputError(f"PSF {text!r}: {name} has no {key!r}; write {usage}")
    for family in FAMILIES[name]:
        needed = {key for key, default in family.keywords.items() if default is None}
        if needed <= set(values) <= set(family.keywords):
            return family.make(**values)
    lacks = [sorted({k for k, default in f.keywords.items() if default is None} - set(values)) for f in FAMILIES[name]]
    least = min(lacks, key=len)
    wrong = f"without {' and '.join(least)}" if least else "contradictory"
    raise InputError(f"PSF {text!r}: {wrong}; write {usage}")


def _pair(item: str, text: str, pixel_scale: float | None) -> tuple[str, float]:
    key, equals, value = (part.strip() for part in item.partition("="))
    match = NUMBER.match(value)
    if not equals or match is None:
        raise InputError(
            f"PSF {text!r}: cannot read {item.strip()!r}; write keyword=number, such as fwhm=5 or fwhm=1.2arcsec"
        )
    key = key.lower()
    number, unit = float(match[1]), match[2].lower()
    if key not in LENGTHS:
        if unit and not (key == "angle" and unit in ("deg", "degrees")):
            raise InputError(f"PSF {text!r}: {key} takes no unit {unit!r}")
        return key, number
    if unit not in UNITS:
        raise InputError(f"PSF {text!r}: no unit {unit!r}; there are px, arcsec and mas")
    arcsec = UNITS[unit]
    if arcsec is None:
        return key, number
    if pixel_scale is None:
        raise InputError(
            f"PSF {text!r}: a width in {unit} needs the pixel scale; give an image with a WCS, or the width in pixels"
        )
    return key, number * arcsec / pixel_scale
