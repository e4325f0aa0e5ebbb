"""Rubin's ``lsst.images`` in memory: a VisitImage or MaskedImage as an `Exposure`, and back.

Needs ``lsst.images`` (``pip install "psfmatch[rubin]"``, Python 3.12 and later), whose objects are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError, PSFError
from psfmatch.exposure import MASK_PLANES, Exposure, Mask
from psfmatch.geometry import Box, FloatArray, Position
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.psf import PSF, DoubleGaussianPSF, FunctionPSF, GaussianPSF

if TYPE_CHECKING:
    import lsst.images
    from lsst.images import MaskedImage, VisitImage
    from lsst.images.psfs import PointSpreadFunction

__all__ = [
    "LsstImagesPSF",
    "from_lsst_images",
    "psf_from_lsst_images",
    "psf_to_lsst_images",
    "to_masked_image",
    "to_visit_image",
]


@dataclass(frozen=True, eq=False)
class LsstImagesPSF(PSF):
    """A ``PointSpreadFunction`` of ``lsst.images``, whatever is behind it.

    Parameters
    ----------
    model : lsst.images.psfs.PointSpreadFunction
        Its kernel images are the stamps: pixel-integrated, centred on the central pixel, of unit sum.
    """

    model: PointSpreadFunction

    @property
    def shape(self) -> tuple[int, int]:
        box = self.model.kernel_bbox
        return int(box.y.size), int(box.x.size)

    @property
    def average_position(self) -> Position | None:
        """The mean position of the stars that a Piff model was made of; None where it does not know them."""
        stars = getattr(getattr(self.model, "piff_psf", None), "stars", None) or ()
        used = [star.image_pos for star in stars if not (star.is_flagged or star.is_reserve)]
        if not used:
            return None
        return Position(y=float(np.mean([at.y for at in used])), x=float(np.mean([at.x for at in used])))

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        return FunctionPSF(self._stamp, self.shape).stamps(x=x, y=y, shape=shape)

    def _stamp(self, x: float, y: float) -> FloatArray:
        return np.asarray(self.model.compute_kernel_image(x=x, y=y).array, float)


def psf_from_lsst_images(model: PointSpreadFunction) -> PSF:
    """A PSF model of ``lsst.images`` as ours: a Gaussian as a `GaussianPSF`, others as a `LsstImagesPSF`."""
    from lsst.images.psfs import GaussianPointSpreadFunction

    if isinstance(model, GaussianPointSpreadFunction):
        size = int(model.kernel_bbox.x.size)
        return GaussianPSF(fwhm=SIGMA_TO_FWHM * model.sigma, size=size, sampling="center")
    return LsstImagesPSF(model)


def psf_to_lsst_images(psf: PSF, box: Box) -> PointSpreadFunction:
    """A PSF model as one of ``lsst.images`` that its files can hold.

    A circular Gaussian sampled at pixel centres becomes a ``GaussianPointSpreadFunction``, any other model that does
    not vary over the field a ``PiffWrapper`` around a PixelGrid with the pixels of the stamp, which needs Piff.

    Parameters
    ----------
    psf : PSF
        A constant model, or a `LsstImagesPSF`.
    box : Box
        Where it is valid.

    Raises
    ------
    InputError
        If the model varies over the field.
    PSFError
        If Piff is needed and not installed.
    """
    from lsst.images.psfs import GaussianPointSpreadFunction

    if isinstance(psf, LsstImagesPSF):
        return psf.model
    if not psf.constant:
        raise InputError(
            f"a {type(psf).__name__} varies over the field; files of lsst.images hold Piff, PSFEx and Gaussian models "
            "only: match to a PSF that does not vary"
        )
    bounds = _lsst_box(box)
    sy, sx = psf.shape
    sigma = _circular_sigma(psf)
    if sigma is not None and sy == sx:
        return GaussianPointSpreadFunction(sigma, bounds, sx)
    return _pixel_grid(psf, bounds)


def _circular_sigma(psf: PSF) -> float | None:
    """The standard deviation of a circular Gaussian sampled at pixel centres; None of another model."""
    if isinstance(psf, GaussianPSF) and psf.sampling == "center" and psf.ellipticity == 0.0:
        return float(psf.fwhm / SIGMA_TO_FWHM)
    if isinstance(psf, DoubleGaussianPSF) and psf.sampling == "center" and psf.b == 0.0:
        return psf.sigma1
    return None


def _pixel_grid(psf: PSF, bounds: lsst.images.Box) -> PointSpreadFunction:
    try:
        import galsim
        import piff
    except ImportError as error:
        raise PSFError(
            f"lsst.images holds a {type(psf).__name__} as a Piff model, and Piff is not installed: "
            'pip install "psfmatch[rubin]", or match to a circular Gaussian (modelPsf.addWing = False)'
        ) from error
    from lsst.images.psfs import PiffWrapper

    size = max(psf.shape)
    stamp = psf.stamps(x=0.0, y=0.0, shape=(size, size))[0]
    mean = piff.Mean()
    mean.mean = np.array(stamp / stamp.sum()).ravel()
    model = piff.SimplePSF(piff.PixelGrid(scale=1.0, size=size), mean)
    model.wcs, model.pointing, model.stars = {0: galsim.PixelScale(1.0)}, None, []
    return PiffWrapper(model, bounds, size)


def from_lsst_images(image: MaskedImage, *, psf: PSF | None = None) -> Exposure:
    """A VisitImage, MaskedImage, or another image of ``lsst.images`` with variance and mask.

    Parameters
    ----------
    image : lsst.images.MaskedImage
        Its pixels are not copied.  Mask planes get Rubin's older names (SATURATED: SAT, DETECTION_EDGE: EDGE, ...),
        which psfmatch goes by; the WCS is the FITS one, or the FITS approximation, where there is one.
    psf : PSF, optional
        Instead of the image's own.

    Raises
    ------
    PSFError
        If the image's PSF could not be read, and none is given.
    """
    from lsst.images.serialization import ArchiveReadError

    if psf is None:
        try:
            model = getattr(image, "psf", None)
        except ArchiveReadError as error:
            raise PSFError(f"the image's PSF model could not be read: {error}; install what reads it") from error
        psf = None if model is None else psf_from_lsst_images(model)
    bbox = image.bbox
    meta = {**image.metadata.external, **image.metadata.native}
    for name in ("band", "physical_filter"):
        if hasattr(image, name):
            meta[name] = getattr(image, name)
    return Exposure(
        image.image.array,
        variance=image.variance.array,
        mask=_mask(image.mask),
        box=Box(bbox.y.start, bbox.x.start, bbox.y.stop, bbox.x.stop),
        psf=psf,
        wcs=image.fits_wcs,
        unit=None if image.unit is None else str(image.unit),
        meta=meta,
    )


def to_visit_image(exposure: Exposure, like: VisitImage) -> VisitImage:
    """A visit image with the pixels and the PSF of an exposure, and all else from another one.

    What the other one says of *its* PSF is not carried along: its aperture corrections, and the summary statistics
    of PSF, limiting magnitude and effective exposure time.

    Parameters
    ----------
    exposure : Exposure
        With a PSF that does not vary over the field, or is of ``lsst.images``.
    like : lsst.images.VisitImage
        Whose pixels include the exposure's; it stays as it is.

    Raises
    ------
    InputError, PSFError
        If the exposure has no PSF, or one that cannot be held (see `psf_to_lsst_images`).
    """
    if exposure.psf is None:
        raise InputError("the exposure has no PSF model, and a visit image needs one")
    out = like[_lsst_box(exposure.box)].copy()
    out.image.array = exposure.image
    out.variance.array = np.nan if exposure.variance is None else exposure.variance
    out.mask = _filled(_with_planes(out.mask, exposure.mask), exposure.mask)
    out.psf = psf_to_lsst_images(exposure.psf, exposure.box)
    out.aperture_corrections.clear()
    default = type(out.summary_stats)()
    for name in type(default).model_fields:
        if name.startswith(("psf", "shapelets", "star", "effTime", "magLim", "maxDistToNearestPsf", "nPsfStar")):
            setattr(out.summary_stats, name, getattr(default, name))
    return out


def to_masked_image(exposure: Exposure) -> MaskedImage:
    """An exposure as a MaskedImage, which has no PSF; mask planes get the names of ``lsst.images``.

    Raises
    ------
    ValueError
        If astropy does not know the unit.
    """
    from astropy import units
    from lsst.images import GeneralFrame, Image, MaskedImage, MaskSchema, SkyProjection
    from lsst.images import Mask as LsstMask

    bbox = _lsst_box(exposure.box)
    unit = None if exposure.unit is None else units.Unit(exposure.unit)
    sky = None
    if exposure.wcs is not None and exposure.wcs.has_celestial:
        sky = SkyProjection.from_fits_wcs(
            exposure.wcs, GeneralFrame(unit=units.pix), pixel_bounds=bbox, x0=exposure.box.x0, y0=exposure.box.y0
        )
    empty = LsstMask(0, schema=MaskSchema([]), bbox=bbox, sky_projection=sky)
    variance = np.full(exposure.shape, np.nan) if exposure.variance is None else np.array(exposure.variance)
    return MaskedImage(
        Image(np.array(exposure.image), bbox=bbox, unit=unit, sky_projection=sky),
        mask=_filled(_with_planes(empty, exposure.mask, unset=True), exposure.mask),
        variance=Image(variance, bbox=bbox),
    )


def _lsst_box(box: Box) -> lsst.images.Box:
    from lsst.images import Box as LsstBox

    return LsstBox.factory[box.y0 : box.y1, box.x0 : box.x1]


def _planes() -> dict[str, lsst.images.MaskPlane]:
    """The planes of ``lsst.images`` by their older names."""
    from lsst import images

    return {
        **images.get_legacy_optional_mask_planes(),
        **images.get_legacy_non_cell_coadd_mask_planes(),
        **images.get_legacy_difference_image_mask_planes(),
    }


def _mask(mask: lsst.images.Mask) -> Mask:
    older = {plane.name: name for name, plane in _planes().items()}
    planes = dict(MASK_PLANES)
    bits = {}
    for name in mask.schema.names:
        ours = older.get(name, name)
        bits[name] = planes.setdefault(ours, max(planes.values()) + 1)
    out = np.zeros(mask.array.shape[:2], np.int64 if max(planes.values()) > 30 else np.int32)
    for name, bit in bits.items():
        np.bitwise_or(out, 1 << bit, out=out, where=mask.get(name))
    return Mask(out, planes)


def _with_planes(mask: lsst.images.Mask, ours: Mask, *, unset: bool = False) -> lsst.images.Mask:
    """The mask with the planes that ours has set anywhere (or has at all) and it lacks."""
    from lsst.images import MaskPlane

    known = _planes()
    used = int(np.bitwise_or.reduce(ours.array, axis=None))
    wanted = [known.get(name, MaskPlane(name, name)) for name, bit in ours.planes.items() if unset or used >> bit & 1]
    return mask.add_planes([plane for plane in wanted if plane.name not in mask.schema.names])


def _filled(mask: lsst.images.Mask, ours: Mask) -> lsst.images.Mask:
    """The mask with the values of ours."""
    known = _planes()
    mask.clear()
    for name in ours.planes:
        theirs = known[name].name if name in known else name
        if theirs in mask.schema.names:
            mask.set(theirs, ours.any_of(name))
    return mask
