"""The coadds of legacypipe, of which the Legacy Surveys are made.

``legacysurvey-<brick>-image-<band>.fits.fz`` is an image in nanomaggies; ``-invvar-`` in place of ``-image-`` its
inverse variance, ``legacysurvey-<brick>-maskbits.fits.fz`` the mask of all bands: what is saturated in this band is
SAT, what is masked in every exposure of this band BAD, and the other bits keep their names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from psfmatch.io.files import FITS_SUFFIX
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, fits_frame
from psfmatch.io.masks import CONVENTIONS, MaskConvention

__all__ = ["FORMAT", "companions"]

NAME = re.compile(r"(?P<brick>.+)-image-(?P<band>[a-zA-Z]+)")


def _name(path: Path) -> re.Match[str] | None:
    return NAME.fullmatch(FITS_SUFFIX.sub("", path.name))


def _recognises(source: FrameSource) -> bool:
    return _name(source.path) is not None and source.card("BRICK") is not None


def _read(source: FrameSource) -> Frame:
    frame, name = fits_frame(source), _name(source.path)
    if name is None:
        return replace(frame, convention="legacypipe")
    unit, convention = frame.unit or "nanomaggy", _convention(name["band"].upper())
    return replace(frame, unit=unit, beside=companions(source.path), convention=convention)


def companions(image: Path) -> dict[str, Path]:
    """The companions of an image that exist beside it, by the names of `read_exposure`'s keywords."""
    name = _name(image)
    if name is None:
        return {}
    parts = {"weight": f"-invvar-{name['band']}", "mask": "-maskbits"}
    return {
        role: path
        for role, part in parts.items()
        for path in [image.with_name(f"{name['brick']}{part}{suffix}") for suffix in (".fits.fz", ".fits", ".fits.gz")]
        if path.is_file()
    }


def _convention(band: str) -> MaskConvention:
    """The bits of one band as planes that other steps understand."""
    known = {f"SATUR_{band}": "SAT", f"ALLMASK_{band}": "BAD"}
    table = CONVENTIONS["legacypipe"]
    return replace(table, planes={bit: known.get(plane, plane) for bit, plane in table.planes.items()})


FORMAT = FrameFormat(
    name="legacypipe", title="coadds of legacypipe (the Legacy Surveys)", recognises=_recognises, read=_read,
    mask="legacypipe",
)  # fmt: skip
