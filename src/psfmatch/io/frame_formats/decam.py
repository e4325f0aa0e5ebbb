"""Where the DECam Community Pipeline keeps what belongs to an image.

``c4d_170316_062107_ooi_z_ls9.N2.fits.gz`` is an image; ``_oow_`` in place of ``_ooi_`` its inverse variance,
``_ood_`` its mask of codes (see `psfmatch.io.masks`), ``..._ls9-N2-psfex.fits.gz`` its PSF model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from psfmatch.io.files import FITS_SUFFIX
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, fits_frame

__all__ = ["FORMAT", "companions"]

IMAGE = "_ooi_"
ROLES = {"weight": "_oow_", "mask": "_ood_"}


def _read(source: FrameSource) -> Frame:
    return replace(fits_frame(source), beside=companions(source.path))


def companions(image: Path) -> dict[str, Path]:
    """The companions of an image that exist beside it, by the names of `read_exposure`'s keywords."""
    if IMAGE not in image.name:
        return {}
    found = {role: image.with_name(image.name.replace(IMAGE, part, 1)) for role, part in ROLES.items()}
    found["psf"] = next((path for path in _psf_names(image) if path.is_file()), image.with_name("none"))
    return {role: path for role, path in found.items() if path.is_file()}


def _psf_names(image: Path) -> list[Path]:
    stem = FITS_SUFFIX.sub("", image.name)
    stems = [stem, "-".join(stem.rsplit(".", 1))] if "." in stem else [stem]
    return [image.with_name(s + end) for s in stems for end in ("-psfex.fits", "-psfex.fits.gz", ".psf")]


FORMAT = FrameFormat(
    name="decam",
    title="images of the DECam Community Pipeline",
    recognises=lambda source: source.hdus is not None and IMAGE in source.path.name,
    read=_read,
    mask="decam",
)
