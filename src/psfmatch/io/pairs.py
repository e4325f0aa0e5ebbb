"""Two PSFs from files or words, brought to the pixels of the first."""

from __future__ import annotations

import os

import numpy as np

from psfmatch.io.files import PathLike, told
from psfmatch.io.psf_formats.image import believed
from psfmatch.io.psfs import read_psf, read_stamp
from psfmatch.prepare import Center
from psfmatch.stamps import PSFPair, Stamp, paired

__all__ = ["read_psf_pair"]


def read_psf_pair(
    science: PathLike,
    target: PathLike,
    *,
    science_scale: float | None = None,
    target_scale: float | None = None,
    science_angle: float | None = None,
    target_angle: float | None = None,
    center: Center = "auto",
) -> PSFPair:
    """Read two PSFs, the target on the science image's pixels and in its orientation.

    FITS stamps may be of any size, even or odd, have the source anywhere (see `psfmatch.prepare.placed`), and
    differ in pixel scale, position angle and parity; one whose parity is not known has that of the other.  PSFEx
    models, files of psfmatch and words are in the science image's pixels already.

    Parameters
    ----------
    science, target : path or str
        As for `read_psf`.
    science_scale, target_scale : float, optional
        Arcseconds a pixel; default what the files say.  Where one of the two is known, the other is taken to be the
        same, with a warning.
    science_angle, target_angle : float, optional
        Position angle of the +y axis, degrees from north through east; default what the files' WCS say.  Nothing is
        turned unless both are known.
    center : {"auto", "centroid", "middle"} or (y, x)
        Where the source is in a stamp.

    Returns
    -------
    PSFPair
        The two models, and how the target's stamp lay on the science image's pixels.

    Raises
    ------
    FileNotFoundError, FormatError, PSFError, InputError
        As `read_psf`; and if a target scale is given for a PSF that is not a stamp.
    """
    paths = science, target
    found = [read_stamp(path) for path in paths]
    scales = [_said(stamp, "pixel_scale", s) for stamp, s in zip(found, (science_scale, target_scale), strict=True)]
    angles = [_said(stamp, "angle", a) for stamp, a in zip(found, (science_angle, target_angle), strict=True)]
    if science_angle is target_angle is None and None in angles:
        angles = [None, None]
    parity = found[1] is not None and any(stamp.mirrored for stamp in found if stamp is not None)
    common = next((scale for scale in scales if scale is not None), None)
    stamps = []
    names = os.fspath(science), os.fspath(target)
    with told(", ".join(names), *names):
        for path, stamp, scale, angle in zip(paths, found, scales, angles, strict=True):
            if stamp is None:
                stamps.append(Stamp(read_psf(path, pixel_scale=common), scale, angle, parity))
                continue
            mirrored = parity if stamp.angle is None else stamp.mirrored
            sound = believed(float(np.asarray(stamp.image).sum()), path, stacklevel=3)
            stamps.append(Stamp(stamp.image, scale, angle, mirrored, center, normalize=not sound))
        return paired(*stamps, names=names)


def _said(stamp: Stamp | None, name: str, given: float | None) -> float | None:
    """What was given; else what the stamp itself says."""
    return getattr(stamp, name, None) if given is None else given
