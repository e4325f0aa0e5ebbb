"""Oversampled PSFs in the image's pixels, without a shift.

Two kinds of oversampled image look alike and are not:

* an **effective PSF** (Anderson & King 2000, PASP 112, 1360) holds, at points finer than the pixels, the flux that a
  *whole* pixel centred there would collect.  STDPSF files, STPSF's grids, and every model of photutils are of this
  kind.  A star centred on a pixel is every n-th sample, and integrating them again would blur the PSF.
* a **sub-pixel image** holds the flux in each small pixel.  STPSF's ``OVERSAMP`` and ``OVERDIST`` extensions are of
  this kind.  A star centred on a pixel is the sum over the small pixels in each large one.

The centre of ``n`` samples is ``(n - 1) / 2``, a sample for odd n, between two for even n.
"""

from __future__ import annotations

import logging

import numpy as np

from psfmatch.errors import PSFError
from psfmatch.geometry import FloatArray, plain_array
from psfmatch.psf import PSF, GridPSF, ImagePSF

__all__ = ["binned_pixels", "effective_psf", "pixel_samples"]

log = logging.getLogger(__name__)
BELIEVED = (0.5, 1.001)


def pixel_samples(
    samples: FloatArray, oversampling: tuple[int, int], origin: tuple[float, float] | None = None
) -> FloatArray:
    """Effective PSFs at the pixels of a star that is centred on one.

    Parameters
    ----------
    samples : array, shape (..., ny, nx)
    oversampling : (int, int)
        Samples a pixel, along y and x.
    origin : (float, float), optional
        The sample (y, x) of the source; default the middle.

    Returns
    -------
    array, shape (..., sy, sx)
        Odd-sized.  Where the source or the pixels lie between samples, of an interpolation by cubic splines.

    Raises
    ------
    PSFError
        If fewer than 3 pixels lie within the samples.
    """
    middle = tuple((n - 1) / 2.0 for n in samples.shape[-2:]) if origin is None else origin
    result = samples
    for axis, step, center in zip((-2, -1), oversampling, middle, strict=True):
        n = samples.shape[axis]
        half = int(min(center, n - 1 - center) / step + 1e-9)
        if half < 1:
            raise PSFError(f"{n} samples, {step} a pixel, about sample {center:g} make no stamp of 3 pixels")
        at = center + step * np.arange(-half, half + 1)
        result = np.moveaxis(_at(np.moveaxis(result, axis, -1), at), -1, axis)
    return np.ascontiguousarray(result)


def _at(samples: FloatArray, at: FloatArray) -> FloatArray:
    """The last axis at places between samples."""
    whole = np.round(at).astype(int)
    if np.abs(at - whole).max() < 1e-9:
        return samples[..., whole]
    from scipy.interpolate import make_interp_spline

    return np.asarray(make_interp_spline(np.arange(samples.shape[-1]), samples, k=3, axis=-1)(at))


def binned_pixels(fine: FloatArray, oversampling: int) -> FloatArray:
    """A sub-pixel image as the flux in the pixels of a star that is centred on one.

    Whole small pixels are summed where the source lies so that they fit (an odd number of large pixels at either
    oversampling, or an even one at an even oversampling).  Else those that straddle two large pixels are shared.

    Parameters
    ----------
    fine : array, shape (ny, nx)
        The source in the middle.
    oversampling : int
        Small pixels in each large one, along either axis.
    """
    result = np.asarray(fine, float)
    for axis in (0, 1):
        n = result.shape[axis]
        half = int((n / oversampling - 1.0) / 2.0 + 1e-9)
        if half < 1:
            raise PSFError(f"{n} small pixels, {oversampling} in a large one, make no stamp of 3 pixels")
        edges = 0.5 * n + oversampling * (np.arange(-half, half + 2) - 0.5)
        whole = np.floor(edges + 1e-9).astype(int)
        total = np.concatenate([np.zeros_like(result.take([0], axis)), result.cumsum(axis)], axis)
        part = np.expand_dims(edges - whole, 1 - axis)
        upper = total.take(np.minimum(whole + 1, n), axis)
        at_edges = total.take(whole, axis) * (1.0 - part) + upper * part
        result = np.diff(at_edges, axis=axis)
    return result


def effective_psf(
    samples: FloatArray,
    oversampling: tuple[int, int],
    *,
    x: FloatArray | None = None,
    y: FloatArray | None = None,
    origin: tuple[float, float] | None = None,
    what: str = "the effective PSF",
) -> PSF:
    """One effective PSF, or those at the nodes of a grid, as a PSF in the image's pixels.

    Their flux is the sum of the samples divided by the number of samples a pixel.  From 0.5 to 1.001 it is believed,
    as is a plain sum of that size (older grids are normalised so); each of any others is scaled to 1, which is logged:
    STDPSF files have 1.03, because the flux is counted within a radius there.

    Parameters
    ----------
    samples : array, shape (n, ny, nx)
    x, y : array, shape (n,), optional
        The nodes, in pixels counted from 0; in any order, but all of a rectangular grid.
    """
    samples = plain_array(samples, what, float, error=PSFError)
    if not np.isfinite(samples).all():
        raise PSFError(f"{what} holds NaN or infinite samples")
    sums = samples.sum(axis=(-2, -1))
    if not (sums > 0).all():
        raise PSFError(f"{what} has the sum {sums.min():g}; it is no PSF")
    stamps = pixel_samples(samples, oversampling, origin) * _factor(sums, oversampling, what)[:, None, None]
    if len(stamps) == 1:
        return ImagePSF(stamps[0])
    if x is None or y is None:
        raise PSFError(f"{what}: {len(stamps)} PSFs without positions")
    nodes_x, column = np.unique(x, return_inverse=True)
    nodes_y, row = np.unique(y, return_inverse=True)
    if nodes_x.size * nodes_y.size != len(stamps) or len({*zip(row, column, strict=True)}) != len(stamps):
        raise PSFError(f"{what}: its {len(stamps)} positions are not all the nodes of one rectangular grid")
    images = np.empty((nodes_y.size, nodes_x.size, *stamps.shape[1:]))
    images[row, column] = stamps
    return GridPSF(images, nodes_x, nodes_y)


def _factor(sums: FloatArray, oversampling: tuple[int, int], what: str) -> FloatArray:
    area = oversampling[0] * oversampling[1]
    for factor in (1.0, float(area)):
        if ((sums * factor / area >= BELIEVED[0]) & (sums * factor / area <= BELIEVED[1])).all():
            return np.full(sums.shape, factor)
    log.info("%s: of the flux %.4f to %.4f; scaled to 1", what, sums.min() / area, sums.max() / area)
    return area / sums
