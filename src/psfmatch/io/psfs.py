"""Reading PSF models: from files of many formats, or from words."""

from __future__ import annotations

import os
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import InputError
from psfmatch.geometry import no_unit
from psfmatch.io.files import split_extension
from psfmatch.io.fits import image_hdus
from psfmatch.io.psf_formats import image, own
from psfmatch.io.psf_formats.base import PSFOptions, PSFSource
from psfmatch.io.psf_formats.registry import named, psf_formats, read_file, recognised
from psfmatch.io.stamps import stamp_of
from psfmatch.io.words import are_words, psf_from_words
from psfmatch.models import as_psf
from psfmatch.psf import PSF
from psfmatch.stamps import Stamp

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["is_only_a_model", "read_psf", "read_stamp"]


def read_psf(
    source: Any,
    *,
    format: str | None = None,
    pixel_scale: float | None = None,
    wcs: WCS | None = None,
    allow_pickle: bool = False,
) -> PSF:
    """Read a PSF model, or take an object for one.

    Parameters
    ----------
    source : path, str or object
        A file, or words such as ``"moffat:fwhm=5,beta=3.5"`` (see `psfmatch.io.words.psf_from_words`).  A file that
        exists comes before words.  ``name.psf[2]``, ``name.fits[PSF]``, ``name.piff[12]`` or ``psField.fit[r]`` picks
        one of several models.  Anything else is given to `psfmatch.models.as_psf`: stamps, callables, and objects of
        GalSim, photutils and Piff.  Files:

        * models and grids of `psfmatch.io.psf_formats`, each of which says how it is read: PSFEx, Piff, STDPSF, STPSF,
          SDSS psField, cubes with positions, and those of other packages;
        * a FITS image, one stamp for the whole field: an `ImagePSF`.  A sum between 0.5 and 1.001 is believed (the
          stamp lacks flux), any other is normalised with a warning.  A stamp of even sides is brought to odd ones about
          its source; one whose pixels differ from the image's by more than 1 % to these (see `read_psf_pair`);
        * files of psfmatch: the PSF of the exposure in them;
        * a FITS file with an image of labels and a PSF for each, or a TOML file with boxes or polygons: a `RegionsPSF`,
          which jumps at borders (see `psfmatch.io.regions`).
    format : str, optional
        The name of one of `psfmatch.io.psf_formats`; default: the first of them that takes the content for its own.
    pixel_scale : float, optional
        Arcseconds a pixel of the image, for widths in arcsec or mas.
    wcs : astropy.wcs.WCS, optional
        The image's, for models that were made on the sky.
    allow_pickle : bool
        Whether pickles in the file may be loaded: a pickle can run any code, so only from a source you trust.

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
    no_unit(pixel_scale, "pixel_scale", "arcseconds a pixel")
    if pixel_scale is not None and not (np.isfinite(pixel_scale) and pixel_scale > 0):
        raise InputError(f"pixel_scale={pixel_scale!r}: give arcseconds a pixel, above 0")
    chosen = None if format is None else named(format, psf_formats())
    if not isinstance(source, str | PathLike):
        return as_psf(source, pixel_scale=pixel_scale, wcs=wcs)
    if _in_words(source):
        return psf_from_words(str(source), pixel_scale=pixel_scale)
    with PSFSource(source) as opened:
        return read_file(opened, PSFOptions(pixel_scale=pixel_scale, wcs=wcs, allow_pickle=allow_pickle), chosen)


def _in_words(source: str | PathLike[str]) -> bool:
    """Whether a source is no file, but words."""
    if not isinstance(source, str) or os.path.exists(split_extension(source)[0]):
        return False
    if not are_words(source):
        raise FileNotFoundError(f"{source}: no such file, nor a PSF in words such as moffat:fwhm=5,beta=3.5")
    return True


def read_stamp(source: str | PathLike[str]) -> Stamp | None:
    """The pixels of a FITS stamp as they are, of any size, and how they lie on the sky.

    ``name.fits[EXT]`` picks an extension.  The scale is that of the cards PIXSCALE, PIXELSCL, PIXSCL, SECPIX
    (arcsec) or PIXAR_A2, PIXAR_SR (area), else of the WCS; the orientation that of the WCS (CD, or CDELT with PC or
    CROTA2).  Cards of the primary header count where the extension has none.

    Parameters
    ----------
    source : path or str
        A FITS file.

    Returns
    -------
    Stamp or None
        None where the source is not such a stamp, but words or a model, which `read_psf` reads.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is damaged, or holds no two-dimensional image.
    PSFError
        If the image has pixels that are not finite, or no positive flux.
    """
    if _in_words(source):
        return None
    with PSFSource(source) as opened:
        found = recognised(opened)
        if opened.hdus is None or (found is not None and found.name != image.FORMAT.name):
            return None
        return stamp_of(opened.hdus, image.stamp_hdu(opened))


def is_only_a_model(path: str | PathLike[str]) -> bool:
    """Whether a file can be read, and holds a PSF model of some format but no image."""
    try:
        with PSFSource(path) as source:
            found = recognised(source)
            model = found is not None and found.name not in (own.FORMAT.name, image.FORMAT.name)
            return model and not (source.hdus is not None and image_hdus(source.hdus))
    except (OSError, InputError):
        return False
