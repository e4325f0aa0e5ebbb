"""What STPSF (formerly WebbPSF) writes: single PSFs, and grids of effective PSFs.

* A single PSF has up to four extensions.  ``OVERSAMP`` and ``OVERDIST`` hold the flux in sub-pixels, of which DET_SAMP
  make a pixel; ``DET_SAMP`` and ``DET_DIST`` that in pixels.  ``...DIST`` have the distortion, and what happens in the
  detector, which the images on the sky have as well.  Read is ``DET_DIST``, or else the next best; ``name.fits[EXT]``
  picks another.  With an even number of pixels the source lies on a pixel's corner: sub-pixels are then summed about it
  so that it comes to lie in a pixel's middle.
* A grid is a cube of effective PSFs (the sub-pixel images, smoothed by a pixel: not to be integrated again), of
  OVERSAMP samples a pixel, at the pixels (y, x) that the cards DET_YX0, DET_YX1, ... name, counted from 0.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from psfmatch.errors import FormatError
from psfmatch.io.fits import is_image, plane
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.image import psf_of_stamp
from psfmatch.io.stamps import pixel_scale_of
from psfmatch.models.oversampled import binned_pixels, effective_psf
from psfmatch.psf import PSF

__all__ = ["FORMAT", "GRID"]

BEST = ("DET_DIST", "DET_SAMP", "OVERDIST", "OVERSAMP")
FINER = {"DET_DIST": "OVERDIST", "DET_SAMP": "OVERSAMP"}
NODE = re.compile(r"\(?\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)?")


def _extensions(source: PSFSource) -> dict[str, Any]:
    return {hdu.name: hdu for hdu in source.hdus or () if hdu.name in BEST and is_image(hdu)}


def _recognises(source: PSFSource) -> bool:
    known = _extensions(source)
    return bool(known) and (source.wanted is None or source.wanted.upper() in known)


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    known = _extensions(source)
    name = next((n for n in BEST if n in known), None) if source.wanted is None else source.wanted.upper()
    if name not in known:
        raise FormatError(f"{source.path}: no PSF of STPSF named {name}; it is {source.seems()}")
    hdu = known[name]
    even = any(n % 2 == 0 for n in hdu.shape)
    if name in FINER and even and FINER[name] in known:
        name, hdu = FINER[name], known[FINER[name]]
    assert source.hdus is not None
    image, scale = np.asarray(plane(source.hdus, hdu), float), pixel_scale_of(source.hdus, hdu)
    if name in FINER:
        return psf_of_stamp(image, scale, source, options)
    oversampling = hdu.header.get("DET_SAMP", hdu.header.get("OVERSAMP"))
    if not isinstance(oversampling, int) or oversampling < 1:
        raise FormatError(f"{source.path}: the extension {name} does not say its oversampling (DET_SAMP, OVERSAMP)")
    scale = None if scale is None else scale * oversampling
    return psf_of_stamp(binned_pixels(image, oversampling), scale, source, options)


def _recognises_grid(source: PSFSource) -> bool:
    return source.hdus is not None and source.wanted is None and "DET_YX0" in source.hdus[0].header


def _read_grid(source: PSFSource, options: PSFOptions) -> PSF:
    hdu = source.hdus[0] if source.hdus is not None else None
    if hdu is None or "DET_YX0" not in hdu.header or hdu.data is None or hdu.data.ndim not in (2, 3):
        raise FormatError(f"{source.path}: no PSF grid of STPSF; it is {source.seems()}")
    samples = np.asarray(hdu.data, float).reshape(-1, *hdu.data.shape[-2:])
    found = [NODE.fullmatch(str(hdu.header.get(f"DET_YX{k}", "")).strip()) for k in range(len(samples))]
    if None in found:
        raise FormatError(f"{source.path}: {len(samples)} PSFs, of which number {found.index(None)} has no DET_YX card")
    y, x = np.array([[float(node[1]), float(node[2])] for node in found if node is not None]).T
    pixels = hdu.header.get("FOVPIXEL")
    oversampling = samples.shape[-1] / pixels if pixels else hdu.header.get("OVERSAMP", 0)
    if oversampling < 1 or oversampling != int(oversampling):
        raise FormatError(f"{source.path}: does not say its oversampling (cards OVERSAMP and FOVPIXEL)")
    steps = int(oversampling), int(oversampling)
    return effective_psf(samples, steps, x=x, y=y, what=str(source.path))


FORMAT = PSFFormat(name="stpsf", title="a PSF of STPSF or WebbPSF", recognises=_recognises, read=_read)
GRID = PSFFormat(
    name="stpsf-grid", title="a PSF grid of STPSF or WebbPSF", recognises=_recognises_grid, read=_read_grid
)
