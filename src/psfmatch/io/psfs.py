"""Reading PSF models: from files of several formats, or from words."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError, InputError, PSFError, PsfMatchWarning
from psfmatch.geometry import FloatArray
from psfmatch.io import psfex
from psfmatch.io.files import PathLike, existing_file, split_extension
from psfmatch.io.fits import extension, image_hdus, open_fits, plane
from psfmatch.io.kernels import read_basis
from psfmatch.io.stamps import stamp_of
from psfmatch.io.words import are_words, psf_from_words
from psfmatch.prepare import measured_center
from psfmatch.psf import PSF, BasisPSF, GaussianPSF, ImagePSF
from psfmatch.stamps import Stamp, paired

__all__ = ["read_psf", "stored_psf"]

FORMATS = ("image", "psfex")
BELIEVED_SUMS = (0.5, 1.001)
FAR = 2.0


def read_psf(source: PathLike, *, format: str | None = None, pixel_scale: float | None = None) -> PSF:
    """Read a PSF model.

    Parameters
    ----------
    source : path or str
        A file, or words such as ``"moffat:fwhm=5,beta=3.5"`` (see `psfmatch.io.words.psf_from_words`).  A file that
        exists comes before words.  ``name.psf[2]`` or ``name.fits[PSF]`` picks one extension.  Files:

        * PSFEx models (``.psf``, or legacypipe's tables with the same columns): a `BasisPSF` in the image's pixels,
          with positions counted from 0, of unit sum everywhere;
        * a FITS image, one stamp for the whole field: an `ImagePSF`.  A sum between 0.5 and 1.001 is believed (the
          stamp lacks flux), any other is normalised with a warning.  A stamp of even sides is brought to odd ones about
          its source, and to the image's pixels where its own differ (see `read_psf_pair`);
        * files of psfmatch: the PSF of the exposure in them.
    format : {"psfex", "image"}, optional
        Default: what the content says.
    pixel_scale : float, optional
        Arcseconds a pixel of the image, for widths in arcsec or mas.

    Returns
    -------
    PSF
        In pixels of the image; positions are counted from 0.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged, or of no known format.
    PSFError
        If it holds a stamp that cannot be used (NaN, all zeros, core far from the centre).
    InputError
        If words are not understood, or give arcseconds and there is no pixel scale.

    Examples
    --------
    >>> read_psf("gaussian:fwhm=1.2arcsec", pixel_scale=0.4)
    GaussianPSF(size=None, sampling='integrated', fwhm=2.9999999999999996, ellipticity=0.0, angle=0.0)
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"PSF format {format!r}: choose one of {', '.join(FORMATS)}")
    if pixel_scale is not None and not (np.isfinite(pixel_scale) and pixel_scale > 0):
        raise InputError(f"pixel_scale={pixel_scale!r}: give arcseconds a pixel, above 0")
    file, wanted = split_extension(source)
    if isinstance(source, str) and not file.exists() and are_words(source):
        return psf_from_words(source, pixel_scale=pixel_scale)
    if isinstance(source, str) and not file.exists():
        raise FileNotFoundError(f"{source}: no such file, nor a PSF in words such as moffat:fwhm=5,beta=3.5")
    existing_file(file)
    with open_fits(file) as hdus:
        try:
            return _from_hdus(hdus, None if wanted is None else extension(hdus, wanted), format, pixel_scale)
        except PSFError as error:
            raise PSFError(f"{os.fspath(source)}: {error}") from error


def stored_psf(hdus: fits.HDUList) -> PSF | None:
    """The PSF in a file of psfmatch: the target of a match, or the PSF of an exposure."""
    if "TARGET" in hdus:
        return ImagePSF(plane(hdus, hdus["TARGET"]))
    if "PSF_WEIGHTS" in hdus:
        basis, weights = read_basis(hdus, "PSF")
        return BasisPSF(basis, weights, normalize=bool(hdus["PSF_WEIGHTS"].header.get("NORMALIZ", False)))
    if "PSFMATCH" in hdus[0].header and "PSF" in hdus:
        return ImagePSF(plane(hdus, hdus["PSF"]))
    return None


def _from_hdus(hdus: fits.HDUList, chosen: Any, format: str | None, pixel_scale: float | None) -> PSF:
    found = psfex.models(hdus) if chosen is None else psfex.models([chosen])
    if format == "psfex" or (format is None and found):
        if len(found) != 1:
            numbers = ", ".join(str(hdus.index(hdu)) for hdu in found)
            cure = f"choose one: {hdus.filename()}[{hdus.index(found[0])}] (there are {numbers})" if found else ""
            raise FormatError(f"{hdus.filename()}: holds {len(found)} PSFEx models; {cure or 'no column PSF_MASK'}")
        return psfex.psf_from_table(hdus, found[0])
    stored = stored_psf(hdus) if chosen is None and format is None else None
    return stored or _stamp(hdus, chosen, pixel_scale)


def _stamp(hdus: fits.HDUList, chosen: Any, pixel_scale: float | None) -> PSF:
    images = image_hdus(hdus)
    if chosen is None:
        if not images:
            raise FormatError(f"{hdus.filename()}: holds neither a PSFEx model nor a two-dimensional image")
        if "PSFMATCH" in hdus[0].header and "KERNEL" in hdus:
            raise FormatError(
                f"{hdus.filename()}: holds a matching kernel, no PSF; if it is meant, say {hdus.filename()}[KERNEL]"
            )
        chosen = next((hdu for hdu in images if hdu.name in ("TARGET", "PSF")), images[0])
    image = np.asarray(plane(hdus, chosen), float)
    if _is_even(image):
        keep, scale = believed(float(image.sum()), hdus.filename(), stacklevel=5), stamp_of(hdus, chosen).pixel_scale
        known = pixel_scale is not None and scale is not None
        here, there = (pixel_scale, scale) if known else (None, None)
        return paired(Stamp(GaussianPSF(fwhm=2.0), here), Stamp(image, there, normalize=not keep)).target
    psf = ImagePSF(image)
    keep = believed(float(psf.image.sum()), hdus.filename(), stacklevel=5)
    return psf if keep else ImagePSF(psf.image, normalize=True)


def _is_even(image: FloatArray) -> bool:
    """Whether an image is a stamp with a side that is even, and no frame full of sources."""
    ny, nx = image.shape
    if ny % 2 == 1 == nx % 2:
        return False
    center = measured_center(image)
    return bool(np.hypot(center.y - (ny - 1) / 2, center.x - (nx - 1) / 2) < FAR)


def believed(total: float, source: PathLike, *, stacklevel: int) -> bool:
    """Whether a stamp's sum can be that of one which lacks flux; if not, it is to be made 1, and a warning says so."""
    good = BELIEVED_SUMS[0] <= total <= BELIEVED_SUMS[1]
    if not good:
        warnings.warn(
            f"{os.fspath(source)}: the PSF stamp has the sum {total:.6g}; normalised to 1",
            PsfMatchWarning,
            stacklevel=stacklevel,
        )
    return good
