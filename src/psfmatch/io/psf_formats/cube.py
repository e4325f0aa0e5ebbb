"""A FITS cube of stamps: at the nodes of a grid, or one of them for the whole field.

The positions stand in a table of as many rows, in columns ``x`` and ``y`` (pixels counted from 0) or ``X_IMAGE`` and
``Y_IMAGE`` (counted from 1), and are all the nodes of a rectangular grid.  ``name.fits[PSF:2]`` picks a plane, counted
from 0, of an extension.  A sum between 0.5 and 1.001 is believed, any other normalised with a warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.geometry import FloatArray
from psfmatch.io.fits import extension, native
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.image import psf_of_stamp
from psfmatch.io.stamps import pixel_scale_of
from psfmatch.psf import PSF, GridPSF

__all__ = ["FORMAT"]

COLUMNS = {("X", "Y"): 0.0, ("X_IMAGE", "Y_IMAGE"): 1.0}
LARGEST = 1001


def _cube(source: PSFSource) -> tuple[Any, str | None]:
    """The HDU with the cube, or None, and the plane that is wanted."""
    name, _, number = (part.strip() for part in (source.wanted or "").partition(":"))
    hdus = source.hdus or []
    if name and not source.has(name):
        return None, number
    found = [extension(source.hdus, name)] if name else hdus
    return next((hdu for hdu in found if _is_cube(hdu)), None), number or None


def _is_cube(hdu: Any) -> bool:
    image = isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
    return (
        image and len(hdu.shape) == 3 and hdu.shape[0] > 1 and 3 <= min(hdu.shape[1:]) <= max(hdu.shape[1:]) < LARGEST
    )


def _recognises(source: PSFSource) -> bool:
    return _cube(source)[0] is not None


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    (hdu, number), hdus = _cube(source), source.hdus
    if hdu is None or hdus is None:
        raise FormatError(f"{source.path}: no cube of PSF stamps; it is {source.seems()}")
    scale = pixel_scale_of(hdus, hdu)
    cube, where = native(hdu.data).astype(float), hdus.index(hdu)
    if number is not None:
        if not (number.isdigit() and int(number) < len(cube)):
            raise FormatError(f"{source.path}: HDU {where} has the planes 0 to {len(cube) - 1}, no plane {number}")
        return psf_of_stamp(cube[int(number)], scale, source, options)
    nodes = _nodes(source, len(cube))
    if nodes is None:
        raise FormatError(
            f"{source.path}: a cube of {len(cube)} PSFs without a table of their positions (columns x and y); choose "
            f"a plane: {source.path}[{where}:0]"
        )
    x, y = nodes
    stamps = [psf_of_stamp(plane, scale, source, options).stamps(x=0.0, y=0.0)[0] for plane in cube]
    at_x, column = np.unique(x, return_inverse=True)
    at_y, row = np.unique(y, return_inverse=True)
    if at_x.size * at_y.size != len(stamps) or len({*zip(row, column, strict=True)}) != len(stamps):
        raise FormatError(
            f"{source.path}: the positions of its {len(stamps)} PSFs are not all the nodes of one rectangular grid; "
            "give a callable (psfmatch.FunctionPSF) that interpolates them as you see fit"
        )
    images = np.empty((at_y.size, at_x.size, *stamps[0].shape))
    images[row, column] = stamps
    return GridPSF(images, at_x, at_y)


def _nodes(source: PSFSource, count: int) -> tuple[FloatArray, FloatArray] | None:
    for k, hdu in enumerate(source.hdus or ()):
        columns = source.columns(str(k))
        for names, first in COLUMNS.items():
            if set(names) <= columns and len(hdu.data) == count:
                x, y = (native(np.asarray(hdu.data[name])).astype(float) - first for name in names)
                return x, y
    return None


FORMAT = PSFFormat(name="cube", title="a FITS cube of PSF stamps", recognises=_recognises, read=_read)
