"""Exposures and PSFs in the pixels of a common grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError, PSFError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box, Position
from psfmatch.moments import fwhm
from psfmatch.provenance import History
from psfmatch.psf import PSF
from psfmatch.regions import Regions, RegionsPSF, alone, assembled
from psfmatch.warp.grid import Grid, outline
from psfmatch.warp.interpolation import Interpolation, Kaiser, Lanczos
from psfmatch.warp.mesh import pieces
from psfmatch.warp.psf import WarpedPSF
from psfmatch.warp.resample import Source, blocks
from psfmatch.warp.transform import Transform

__all__ = ["Grid", "Interpolation", "Kaiser", "Lanczos", "Transform", "WarpedPSF", "check_sampling", "warp"]

WHOLE = 1e-5
FAR = -1e9
MARGIN = 2
COARSER = 1.1
SAMPLED = 2.0


def warp(
    exposure: Exposure, grid: Grid, *, box: Box | None = None, interpolation: Interpolation | None = None
) -> Exposure:
    """An exposure in the pixels of a grid.

    ``out(p) = |det A| sum_u W(u) image(u)``: the image interpolated where the middle of the pixel p falls, times the
    area of p in pixels of the image, so that a star keeps its flux and ``variance_out(p) = |det A|^2 sum_u W(u)^2
    variance(u)``.  Pixels are sampled, not averaged over: a grid must be fine enough for the exposure's PSF (a warning
    says where it is not).  Positions are true to 1e-4 px; where the grid's pixels are the exposure's, moved by whole
    pixels to 1e-5, the values are the exposure's own.

    Missing pixels (not finite, of variance not finite, or of an excluded plane) and those beyond the border have no
    weight, and values are divided by the sum of the weights that is left (variances by its square); where that is less
    than half or more than twice the whole, and outside of the exposure: NaN, infinite variance and NO_DATA.  A pixel
    inherits the mask planes of all pixels whose weight is above ``interpolation.mask_share`` (1 %) in size, and INTRP
    or EDGE where such a weight fell on a missing pixel or beyond the border.

    An exposure whose PSF jumps at borders (`RegionsPSF`) is warped region by region, so that no pixel is made from two,
    and has such a PSF on the grid: a pixel is of the region in which its middle falls.

    Parameters
    ----------
    exposure : Exposure
        With a celestial WCS.
    grid : Grid
        The pixels to warp to.
    box : Box, optional
        The part of the grid that is wanted; default all of it.
    interpolation : Interpolation, optional
        The weights W and their options; default ``Kaiser(6)``, see there for the accuracy.

    Returns
    -------
    Exposure
        On ``box``, with the grid's WCS cut to it and the PSF as `WarpedPSF`; unit and meta data are the exposure's.

    Raises
    ------
    InputError
        If the exposure has no celestial WCS, or the box reaches beyond the grid.

    Warns
    -----
    PsfMatchWarning
        If the grid's pixels are larger than the exposure's, and its PSF is less than 2 px wide there.
    """
    if exposure.wcs is None:
        raise InputError("the exposure has no WCS; its place on the grid is not known")
    box = grid.box if box is None else box
    wcs = grid.cutout(box).wcs
    origin = Position(exposure.box.y0, exposure.box.x0)
    transform = Transform.between(grid.wcs, exposure.wcs, to_origin=origin)
    region = _overlap(transform, exposure.box, box)
    mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
    interpolation = Kaiser() if interpolation is None else interpolation
    if isinstance(exposure.psf, RegionsPSF):
        psf = _regions_on(exposure.psf, transform, region, box)
        done = _by_regions(exposure.replace(mask=mask), grid, wcs, psf, box, interpolation)
        return done.replace(history=_warped(exposure.history, grid, interpolation))
    source = Source(exposure, mask, interpolation)
    out = source.outputs(box.shape)
    if region is not None:
        transform = _snapped(transform, region)
        for piece, surface in pieces(transform, region):
            for block in blocks(piece):
                source.fill(out, surface, block, box)
    return exposure.replace(
        image=out.image, variance=out.variance, mask=Mask(out.mask, mask.planes), box=box, wcs=wcs,
        psf=_warped_psf(exposure, transform), history=_warped(exposure.history, grid, interpolation),
    )  # fmt: skip


def _warped(history: History, grid: Grid, interpolation: Interpolation) -> History:
    return history.then("warp", {"shape": grid.shape, "interpolation": interpolation})


def _by_regions(
    exposure: Exposure, grid: Grid, wcs: Any, psf: RegionsPSF | None, box: Box, interpolation: Interpolation
) -> Exposure:
    """Each region warped alone, put together."""
    before = exposure.psf
    assert isinstance(before, RegionsPSF)
    template = exposure.replace(
        image=np.broadcast_to(exposure.image.dtype.type(0), box.shape),
        variance=None if exposure.variance is None else np.broadcast_to(exposure.variance.dtype.type(0), box.shape),
        mask=Mask(np.broadcast_to(exposure.mask.array.dtype.type(0), box.shape), exposure.mask.planes),
        box=box, wcs=wcs, psf=psf,
    )  # fmt: skip

    def parts() -> Iterator[tuple[Exposure, NDArray[np.bool_]]]:
        for label, place in ({} if psf is None else psf.regions.boxes).items():
            part = alone(exposure, before.regions, label)
            if part is not None and psf is not None:
                yield warp(part, grid, box=place, interpolation=interpolation), psf.regions.within(place, label)

    return assembled(template, parts())


def _regions_on(psf: RegionsPSF, transform: Transform, region: Box | None, box: Box) -> RegionsPSF | None:
    """The PSF seen from the grid; None where no region falls on the box."""
    labels = np.zeros(box.shape, psf.regions.labels.dtype)
    for piece, surface in () if region is None else pieces(transform, region):
        for block in blocks(piece):
            where = surface.at(block)
            x, y = (np.nan_to_num(p.ravel(), nan=FAR, neginf=FAR, posinf=FAR) for p in where[:2])
            labels[block.slices(box)] = psf.regions.at(x=x, y=y).reshape(block.shape)
    if not labels.any():
        return None
    regions = Regions(labels, box)
    psfs: dict[int, PSF] = {}
    for label, place in regions.boxes.items():
        psfs[label] = WarpedPSF(psf.psfs[label], transform, Position(place.center.y, place.center.x))
    return RegionsPSF(regions, psfs)


def _overlap(transform: Transform, exposure: Box, box: Box) -> Box | None:
    """The part of a box of the grid that the exposure may fall on; None if it cannot."""
    at = np.stack(transform.backward(*outline(exposure)))
    if not np.isfinite(at).any():
        return None
    if not np.isfinite(at).all():
        return box
    (x0, y0), (x1, y1) = np.floor(at.min(axis=1)) - MARGIN, np.ceil(at.max(axis=1)) + MARGIN
    y0, x0, y1, x1 = max(y0, box.y0), max(x0, box.x0), min(y1 + 1, box.y1), min(x1 + 1, box.x1)
    return Box(int(y0), int(x0), int(y1), int(x1)) if y0 < y1 and x0 < x1 else None


def _snapped(transform: Transform, box: Box) -> Transform:
    """The transform, or a shift by whole pixels where it is one but for rounding."""
    x, y = outline(box)
    px, py = transform.positions(x=x, y=y)
    shifts = np.stack([px - x, py - y])
    if not np.isfinite(shifts).all():
        return transform
    whole = np.round(shifts[:, :1])
    if np.abs(shifts - whole).max() > WHOLE:
        return transform
    return Transform.affine(np.eye(2), x=float(whole[0, 0]), y=float(whole[1, 0]))


def _warped_psf(exposure: Exposure, transform: Transform) -> WarpedPSF | None:
    if exposure.psf is None:
        return None
    center = exposure.box.center
    x, y = transform.backward(np.array([center.x]), np.array([center.y]))
    psf = WarpedPSF(exposure.psf, transform, Position(float(y[0]), float(x[0])))
    if np.isfinite([x, y]).all() and (area := abs(np.linalg.det(transform.jacobian(x=x, y=y)[0]))) > COARSER**2:
        with suppress(PSFError):
            check_sampling(psf, "PSF of the exposure", x=float(x[0]), y=float(y[0]), most=1.0 / np.sqrt(area))
    return psf


def check_sampling(psf: PSF, name: str, *, x: float, y: float, most: float = 0.0, pixel_scale: float = 1.0) -> None:
    """Warn if a PSF is undersampled on a grid.

    Parameters
    ----------
    psf : PSF
        In pixels of the grid.
    name : str
        What it is called.
    x, y : float
        Where it is looked at.
    most : float
        Pixels of the grid's size times this are as small as the exposure's, and need not be smaller.
    pixel_scale : float
        Size of the grid's pixels, arcseconds.
    """
    width = fwhm(psf.stamps(x=x, y=y)[0])
    if width < SAMPLED:
        needed = max(width / SAMPLED, most)
        size = f"{needed:.2f} times as large" if pixel_scale == 1.0 else f"of {needed * pixel_scale:.3g} arcsec"
        warnings.warn(
            f"the {name} is {width:.2f} px of the grid wide (FWHM), less than {SAMPLED:g}: pixels are sampled, not "
            "averaged over, and the shape of a star depends on its place within a pixel. Take a grid with pixels "
            f"{size} or less, or a broader target",
            PsfMatchWarning,
            stacklevel=4,
        )
