"""Files of astropy's ``CCDData.write``: the image first, then MASK, UNCERT (its kind in the card UTYPE), PSFIMAGE.

Of `psfmatch.Exposure.to_ccddata` they have the box and the unit's name in cards of their own; planes have become one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from psfmatch.errors import FormatError
from psfmatch.io.fits import plane
from psfmatch.io.frame_formats.base import NAMES, Frame, FrameFormat, FrameSource, fits_frame
from psfmatch.io.headers import origin_of
from psfmatch.psf import ImagePSF

__all__ = ["FORMAT"]

KINDS = {"StdDevUncertainty": "error", "VarianceUncertainty": "variance", "InverseVariance": "weight"}


def _recognises(source: FrameSource) -> bool:
    return source.has("UNCERT") or source.has("PSFIMAGE")


def _read(source: FrameSource) -> Frame:
    frame = fits_frame(source, {**NAMES, "psf": ("PSFIMAGE",), "uncertainty": ("UNCERT",)})
    hdus, planes = source.hdus, dict(frame.planes)
    assert hdus is not None
    planes.pop("psf", None)
    uncertainty = planes.pop("uncertainty", None)
    if uncertainty is not None:
        kind = str(uncertainty.header.get("UTYPE", "StdDevUncertainty"))
        if kind not in KINDS:
            raise FormatError(f"{source.path}: UNCERT of type {kind}; only {', '.join(KINDS)} are understood")
        planes[KINDS[kind]] = uncertainty
    psf: Any = ImagePSF(plane(hdus, hdus["PSFIMAGE"])) if source.with_psf and "PSFIMAGE" in hdus else None
    header = planes["image"].header
    origin = origin_of(header) if "BOXX0" in header else (0, 0)
    unit = frame.unit or header.get("UNITNAME")
    meta = {name: value for name, value in frame.meta.items() if name not in ("MASKPLAN", "UNITNAME")}
    return replace(frame, planes=planes, psf=psf, convention="plain", origin=origin, unit=unit, meta=meta)


FORMAT = FrameFormat(
    name="ccddata", title="files of astropy's CCDData", recognises=_recognises, read=_read, mask="plain"
)
