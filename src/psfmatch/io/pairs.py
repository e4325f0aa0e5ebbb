"""Two PSFs from files or words, brought to the pixels of the first."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass

import numpy as np

from psfmatch.errors import InputError, PSFError, PsfMatchWarning
from psfmatch.geometry import FloatArray
from psfmatch.io.files import PathLike
from psfmatch.io.psfs import BELIEVED_SUMS, read_psf
from psfmatch.io.stamps import StampGeometry, read_stamp
from psfmatch.prepare import Center, prepared, prepared_pair
from psfmatch.psf import PSF, ImagePSF

__all__ = ["PSFPair", "read_psf_pair"]

log = logging.getLogger(__name__)

SAME_SCALE = 1e-5
SAME_ANGLE = 1e-3


@dataclass(frozen=True, eq=False)
class PSFPair:
    """A science and a target PSF in the same pixels, and what brought the target there.

    Parameters
    ----------
    science, target : PSF
        In the science image's pixels.
    pixel_scale : float or None
        Of those, in arcsec.
    target_scale : float or None
        Of the target's own pixels, in arcsec.
    rotation : float
        Degrees by which the target was turned, from +x towards +y.
    mirrored : bool
        Whether the target was mirrored (in x) before.
    """

    science: PSF
    target: PSF
    pixel_scale: float | None = None
    target_scale: float | None = None
    rotation: float = 0.0
    mirrored: bool = False


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

    FITS stamps may be of any size, even or odd, have the source anywhere (see `psfmatch.prepare.prepared`), and
    differ in pixel scale, position angle and parity.  PSFEx models, files of psfmatch and words are in the science
    image's pixels already.

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

    Raises
    ------
    FileNotFoundError, FormatError, PSFError, InputError
        As `read_psf`; and if a target scale is given for a PSF that is not a stamp.
    """
    raw = [read_stamp(source) for source in (science, target)]
    own = [StampGeometry() if stamp is None else stamp[1] for stamp in raw]
    scale = science_scale if science_scale is not None else own[0].scale
    if raw[1] is None:
        if target_scale is not None or target_angle is not None:
            raise InputError(f"{os.fspath(target)}: not a stamp, so that it has no pixel scale or angle of its own")
        return PSFPair(_alone(science, raw[0], scale, center), read_psf(target, pixel_scale=scale), scale, None)
    there = target_scale if target_scale is not None else own[1].scale
    rotation, mirrored = _turn(own, science_angle, target_angle)
    ratio = _scale_ratio(science, target, scale, there)
    scale = there if scale is None else scale
    stamp = raw[1][0][:, ::-1] if mirrored else raw[1][0]
    log.info("target: pixels %.6g times as large, turned by %.3f deg%s", ratio, rotation, ", mirrored" * mirrored)
    if raw[0] is None:
        point = np.ones((1, 1))
        image = _placed(science, target, point, stamp, ratio, rotation, center)[1]
        return PSFPair(_alone(science, None, scale, center), _model(target, image), scale, there, rotation, mirrored)
    images = _placed(science, target, raw[0][0], stamp, ratio, rotation, center)
    return PSFPair(_model(science, images[0]), _model(target, images[1]), scale, there, rotation, mirrored)


def _turn(own: list[StampGeometry], science_angle: float | None, target_angle: float | None) -> tuple[float, bool]:
    """Degrees from +x towards +y by which the target must be turned, and whether it must be mirrored before."""
    angles = [own[0].angle if science_angle is None else science_angle]
    angles.append(own[1].angle if target_angle is None else target_angle)
    if angles[0] is None or angles[1] is None:
        if science_angle is not None or target_angle is not None:
            raise InputError("one position angle is known, the other not; give both --science-angle and --target-angle")
        return 0.0, False
    turn = (angles[1] - angles[0] + 180.0) % 360.0 - 180.0
    turn = -turn if own[0].mirrored else turn
    mirrored = own[0].mirrored != own[1].mirrored and None not in (own[0].angle, own[1].angle)
    return (0.0 if abs(turn) < SAME_ANGLE else turn), mirrored


def _scale_ratio(science: PathLike, target: PathLike, scale: float | None, there: float | None) -> float:
    """The science image's pixels in units of the target's."""
    for value in (scale, there):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"pixel scale {value!r}: give arcseconds a pixel, above 0")
    if scale is None or there is None:
        if scale is not there:
            name = os.fspath(science if scale is None else target)
            warnings.warn(
                f"{name}: says nothing of its pixel scale; taken to be that of the other PSF, "
                f"{scale or there:g} arcsec (else give both scales)",
                PsfMatchWarning,
                stacklevel=3,
            )
        return 1.0
    ratio = scale / there
    return 1.0 if abs(ratio - 1.0) < SAME_SCALE else ratio


def _alone(source: PathLike, raw: tuple[FloatArray, StampGeometry] | None, scale: float | None, center: Center) -> PSF:
    """The science PSF beside a target that is no stamp: a model as it is, a stamp centred."""
    if raw is None:
        return read_psf(source, pixel_scale=scale)
    try:
        return _model(source, prepared(raw[0], center=center))
    except PSFError as error:
        raise PSFError(f"{os.fspath(source)}: {error}") from error


def _placed(
    science: PathLike,
    target: PathLike,
    first: FloatArray,
    second: FloatArray,
    ratio: float,
    angle: float,
    center: Center,
) -> tuple[FloatArray, FloatArray]:
    try:
        return prepared_pair(first, second, science_scale=ratio, target_scale=1.0, angle=angle, center=center)
    except PSFError as error:
        raise PSFError(f"{os.fspath(science)}, {os.fspath(target)}: {error}") from error


def _model(source: PathLike, image: FloatArray) -> PSF:
    """The stamp as a model: its sum believed where it can be that of a stamp that lacks flux, else made 1."""
    total = float(image.sum())
    if BELIEVED_SUMS[0] <= total <= BELIEVED_SUMS[1]:
        return ImagePSF(image)
    warnings.warn(
        f"{os.fspath(source)}: the PSF stamp has the sum {total:.6g}; normalised to 1", PsfMatchWarning, stacklevel=3
    )
    return ImagePSF(image, normalize=True)
