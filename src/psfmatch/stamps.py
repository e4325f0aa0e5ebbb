"""Stamps as they come, of any size, pixel scale and orientation, and pairs of PSFs in the pixels of the first."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError, PSFError, PsfMatchWarning
from psfmatch.geometry import FloatArray, frozen, no_unit
from psfmatch.models import as_psf
from psfmatch.prepare import Center, Placed, checked_image, padded, placed, placed_pair
from psfmatch.psf import PSF, ImagePSF
from psfmatch.stamp_noise import denoised, stamp_noise

__all__ = ["PSFPair", "Stamp", "paired"]

log = logging.getLogger(__name__)

SAME_SCALE = 1e-5
SAME_ANGLE = 1e-3


@dataclass(frozen=True, eq=False)
class Stamp:
    """An image of a PSF as it comes, and how its pixels lie on the sky.

    Parameters
    ----------
    image : array, shape (sy, sx), or PSF
        Flux in each pixel; the sides may be even, the source anywhere.  Or a model, to say how *its* pixels lie.
    pixel_scale : float, optional
        Size of a pixel, in arcsec or in any unit that both stamps of a pair share.
    angle : float, optional
        Position angle of the +y axis, degrees from north through east.
    mirrored : bool
        Whether east is to the right when north is up.
    center : {"auto", "centroid", "middle"} or (y, x)
        Where the source is in an array, as for `psfmatch.prepare.placed`: ``auto`` in the middle or in the pixel
        n // 2, unless it is measured more than 0.1 px from both.
    normalize : bool
        Scale an array to unit sum; else its sum is believed (a stamp of sum 0.98 lacks 2 % of the flux).

    Raises
    ------
    PSFError
        If the image is not one finite image with positive flux.
    InputError
        If the scale is not positive, or the angle not finite.

    Examples
    --------
    >>> Stamp(np.outer([1, 2, 1], [1, 3, 3, 1]), pixel_scale=0.2, angle=30.0).image.shape
    (3, 4)
    """

    image: FloatArray | PSF
    pixel_scale: float | None = None
    angle: float | None = None
    mirrored: bool = False
    center: Center = "auto"
    normalize: bool = False

    def __post_init__(self) -> None:
        no_unit(self.pixel_scale, "pixel scale", "arcseconds a pixel")
        no_unit(self.angle, "angle", "degrees")
        if self.pixel_scale is not None and not (np.isfinite(self.pixel_scale) and self.pixel_scale > 0):
            raise InputError(f"pixel scale {self.pixel_scale!r}: give arcseconds a pixel, above 0")
        if self.angle is not None and not np.isfinite(self.angle):
            raise InputError(f"angle {self.angle!r}: give degrees from north through east")
        if self.center not in ("auto", "centroid", "middle") and np.shape(self.center) != (2,):
            raise InputError(f"center {self.center!r}: give auto, centroid, middle, or a position (y, x)")
        if not isinstance(self.image, PSF):
            image = checked_image(self.image)
            object.__setattr__(self, "image", frozen(image / image.sum() if self.normalize else image))


@dataclass(frozen=True, eq=False)
class PSFPair:
    """A science and a target PSF in the same pixels, and what brought the target there.

    Parameters
    ----------
    science, target : PSF
        In the pixels of the science stamp.
    pixel_scale : float or None
        Of those.
    target_scale : float or None
        Of the target's own pixels.
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


def paired(
    science: PSF | ArrayLike | Stamp,
    target: PSF | ArrayLike | Stamp,
    *,
    names: tuple[str, str] = ("the science PSF", "the target PSF"),
) -> PSFPair:
    """Two PSFs in the pixels and in the orientation of the first, such that the kernel between them moves nothing.

    A target stamp is brought there (see `psfmatch.prepare.placed_pair`); a target that is a model is there already.
    Of two stamps, the science stamp is only padded.  A noisy target that must be turned, or brought to other pixels, is
    freed from its noise first (`psfmatch.stamp_noise.denoised`): afterwards the noise is white no longer, and would
    pass for structure.

    Parameters
    ----------
    science, target : PSF, array or Stamp
        An array is ``Stamp(array)``.
    names : (str, str)
        What messages call them.

    Raises
    ------
    PSFError
        If a stamp cannot be used as a PSF.
    InputError
        If the target is a model and has a scale, angle or parity of its own; or one angle is known, the other not.
    """
    first, second = _as_stamp(science), _as_stamp(target)
    scale, there = first.pixel_scale, second.pixel_scale
    try:
        if isinstance(second.image, PSF):
            if there is not None or second.angle is not None or second.mirrored:
                raise InputError(f"{names[1]}: not a stamp, so that it has no pixel scale or angle of its own")
            return PSFPair(_alone(first), second.image, scale)
        ratio, (rotation, mirrored) = _scale_ratio(first, second, names), _turn(first, second)
        log.info("target: pixels %.6g times as large, turned by %.3f deg%s", ratio, rotation, ", mirrored" * mirrored)
        models = _placed(first, second, ratio, rotation, mirrored)
    except PSFError as error:
        raise PSFError(f"{', '.join(names)}: {error}") from error
    return PSFPair(*models, there if scale is None else scale, there, rotation, mirrored)


def _as_stamp(source: PSF | ArrayLike | Stamp) -> Stamp:
    if isinstance(source, Stamp):
        return source
    return Stamp(source if isinstance(source, np.ndarray | list | tuple) else as_psf(source))  # type: ignore[arg-type]


def _turn(science: Stamp, target: Stamp) -> tuple[float, bool]:
    """Degrees from +x towards +y by which the target must be turned, and whether it must be mirrored before."""
    mirrored = science.mirrored != target.mirrored
    if science.angle is None and target.angle is None:
        return 0.0, mirrored
    if science.angle is None or target.angle is None:
        raise InputError(
            "one position angle is known, the other not; give both (on the command line --science-angle "
            "and --target-angle)"
        )
    turn = (target.angle - science.angle + 180.0) % 360.0 - 180.0
    turn = -turn if science.mirrored else turn
    return (0.0 if abs(turn) < SAME_ANGLE else turn), mirrored


def _scale_ratio(science: Stamp, target: Stamp, names: tuple[str, str]) -> float:
    """The science pixels in units of the target's."""
    scale, there = science.pixel_scale, target.pixel_scale
    if scale is not None and there is not None:
        ratio = scale / there
        return 1.0 if abs(ratio - 1.0) < SAME_SCALE else ratio
    if scale is not there:
        warnings.warn(
            f"{names[0] if scale is None else names[1]}: says nothing of its pixel scale; taken to be that of the "
            f"other PSF, {scale or there:g} arcsec (else give both scales)",
            PsfMatchWarning,
            stacklevel=4,
        )
    return 1.0


def _alone(science: Stamp) -> PSF:
    """The science PSF beside a target that is no stamp: a model as it is, a stamp centred."""
    if isinstance(science.image, PSF):
        return science.image
    return _as_model(placed(science.image, center=science.center))


def _placed(science: Stamp, target: Stamp, ratio: float, rotation: float, mirrored: bool) -> tuple[PSF, PSF]:
    model = science.image if isinstance(science.image, PSF) else None
    pixels = np.asarray(target.image)
    if ratio != 1.0 or rotation:
        pixels = _smoothed(pixels, target.center)
    first, second = placed_pair(
        np.ones((1, 1)) if isinstance(science.image, PSF) else science.image,
        pixels,
        science_scale=ratio,
        target_scale=1.0,
        angle=rotation,
        mirrored=mirrored,
        science_center=science.center if model is None else "middle",
        target_center=target.center,
    )
    return model or _as_model(first), _as_model(second)


def _smoothed(image: FloatArray, center: Center) -> FloatArray:
    """A stamp freed from its white noise, which on other pixels could not be told from structure any more."""
    about = padded(image, center)
    noise = stamp_noise(about.image)
    return denoised(about.image, noise)[about.measured].reshape(image.shape) if noise > 0 else image


def _as_model(stamp: Placed) -> ImagePSF:
    return ImagePSF(stamp.image, measured=stamp.measured)
