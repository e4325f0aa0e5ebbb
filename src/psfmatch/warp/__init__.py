"""Exposures and PSFs in the pixels of a common grid."""

from __future__ import annotations

import numpy as np

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box, Position
from psfmatch.warp.grid import Grid, outline
from psfmatch.warp.interpolation import Interpolation, Kaiser, Lanczos
from psfmatch.warp.mesh import pieces
from psfmatch.warp.psf import WarpedPSF
from psfmatch.warp.resample import Source, blocks
from psfmatch.warp.transform import Transform

__all__ = ["Grid", "Interpolation", "Kaiser", "Lanczos", "Transform", "WarpedPSF", "warp"]

WHOLE = 1e-5
MARGIN = 2


def warp(
    exposure: Exposure, grid: Grid, *, box: Box | None = None, interpolation: Interpolation | None = None
) -> Exposure:
    """An exposure in the pixels of a grid.

    ``out(p) = |det A| sum_u W(u) image(u)``: the image interpolated where the middle of the pixel p falls, times the
    area of p in pixels of the image, so that a star keeps its flux and ``variance_out(p) = |det A|^2 sum_u W(u)^2
    variance(u)``.  Pixels are sampled, not averaged over: a grid must be fine enough for the exposure's PSF.  Positions
    are true to 1e-4 px; where the grid's pixels are the exposure's, moved by whole pixels to 1e-5, the values are the
    exposure's own.

    Missing pixels (not finite, of variance not finite, or of an excluded plane) and those beyond the border have no
    weight, and values are divided by the sum of the weights that is left (variances by its square); where that is less
    than half or more than twice the whole, and outside of the exposure: NaN, infinite variance and NO_DATA.  A pixel
    inherits the mask planes of all pixels whose weight is above ``interpolation.mask_share`` (1 %) in size, and INTRP
    or EDGE where such a weight fell on a missing pixel or beyond the border.

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
    """
    if exposure.wcs is None:
        raise InputError("the exposure has no WCS; its place on the grid is not known")
    box = grid.box if box is None else box
    wcs = grid.cutout(box).wcs
    origin = Position(exposure.box.y0, exposure.box.x0)
    transform = Transform.between(grid.wcs, exposure.wcs, to_origin=origin)
    region = _overlap(transform, exposure.box, box)
    mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
    source = Source(exposure, mask, Kaiser() if interpolation is None else interpolation)
    out = source.outputs(box.shape)
    if region is not None:
        transform = _snapped(transform, region)
        for piece, surface in pieces(transform, region):
            for block in blocks(piece):
                source.fill(out, surface, block, box)
    return exposure.replace(
        image=out.image, variance=out.variance, mask=Mask(out.mask, mask.planes), box=box, wcs=wcs,
        psf=_warped_psf(exposure, transform),
    )  # fmt: skip


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
    return WarpedPSF(exposure.psf, transform, Position(float(y[0]), float(x[0])))
