"""Writing exposures, and matched exposures with all that belongs to them.

=================  =================================================================================================
HDU                what it holds
=================  =================================================================================================
primary            no data; the exposure's ``meta``; PSFMATCH (our version), NEXTEND.  Of a match also OUTCOME and the
                   figures of merit, median (M) and worst (W): QRESIDM, QRESIDW, QMAXREM, QMAXREW, QEEERRM, QEEERRW,
                   QNGAINM, QNGAINW, QNEGFLM, QNEGFLW, QKSUMM, QKSUMW (explained in `psfmatch.quality`)
IMAGE              the image; BUNIT, the WCS, and the box: LTV1 = -x0, LTV2 = -y0, BOXX0, BOXY0, BOXX1, BOXY1
MASK               integers; a card MP_<plane> = bit for each plane, as Rubin has them; box and WCS
VARIANCE           where there is one; box and WCS
PSF, PSF_WEIGHTS   of an exposure that is not a match: the PSF, as a basis (n, sy, sx) with weights; PSF alone (sy, sx)
                   where it is one stamp, which for an analytic model is realised at its default size
KERNEL,            of a match: the matching kernel, see `psfmatch.io.kernels`; what the solver chose and measured stands
KERNEL_WEIGHTS     in the header of KERNEL as STAT <name>
TARGET             of a match: the target PSF, one stamp (sy, sx), which is the PSF of the exposure
QUALITY            of a match: a table with the figures of merit, a row a position
=================  =================================================================================================

Every HDU has CHECKSUM and DATASUM.  ``.fits.gz`` compresses the whole file, ``.fits.fz`` the three planes by tiles;
both without loss.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import PsfMatchWarning
from psfmatch.exposure import Exposure
from psfmatch.io.files import PathLike, atomic_output, fits_suffix
from psfmatch.io.headers import box_cards, put_cards, wcs_cards
from psfmatch.io.kernels import basis_hdus, primary_hdu, put_statistics, quality_hdu, summary_cards
from psfmatch.psf import PSF, AnalyticPSF, BasisPSF, ImagePSF

__all__ = ["write_exposure", "write_matched"]


def write_exposure(exposure: Exposure, path: PathLike, *, overwrite: bool = False) -> None:
    """Write an exposure to one FITS file, from which `read_exposure` reads it back.

    Parameters
    ----------
    exposure : Exposure
        Image, mask, variance, box, WCS, unit and meta are written as they are; the PSF where it is a stamp, a basis
        or an analytic model (others are left out with a warning).
    path : path
        Ends in ``.fits``, ``.fits.gz`` or ``.fits.fz``.  For the layout see `psfmatch.io.outputs`.
    overwrite : bool
        Replace the file where it exists.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    FileNotFoundError
        If the directory does not exist.
    OSError
        If the file cannot be written; nothing is left behind.
    InputError
        If the name is not that of a FITS file.

    Warns
    -----
    PsfMatchWarning
        If something in ``meta`` or the PSF cannot be stored.
    """
    _write(exposure, path, lambda: _psf_hdus(exposure.psf), {}, overwrite=overwrite)


def write_matched(matched: Any, path: PathLike, *, overwrite: bool = False) -> None:
    """Write a matched exposure with its kernel, target and figures of merit to one FITS file.

    Parameters
    ----------
    matched : Matched
        What `psfmatch.match` returns.
    path, overwrite
        As in `write_exposure`, which also says what is raised.  `read_exposure`, `read_kernel`, `read_quality` and
        `read_psf` read their parts of the file back.
    """

    def extensions() -> list[Any]:
        pair = basis_hdus("KERNEL", matched.kernel.basis, matched.kernel.weights)
        put_statistics(pair[0].header, matched)
        return [*pair, *_target_hdus(matched.exposure), quality_hdu(matched.quality)]

    _write(matched.exposure, path, extensions, summary_cards(matched), overwrite=overwrite)


def _write(exposure: Exposure, path: PathLike, extensions: Any, summary: dict[str, Any], *, overwrite: bool) -> None:
    target = Path(path)
    tiles = fits_suffix(target) == ".fz"
    with atomic_output(target, overwrite=overwrite) as out:
        more = extensions()
        hdus = [*_plane_hdus(exposure, tiles=tiles), *more]
        primary = primary_hdu(len(hdus))
        put_cards(primary.header, exposure.meta)
        for key, value in summary.items():
            primary.header[key] = value
        if isinstance(exposure.psf, AnalyticPSF):
            primary.header["PSFMODEL"] = repr(exposure.psf)
        fits.HDUList([primary, *hdus]).writeto(out, checksum=True)


def _plane_hdus(exposure: Exposure, *, tiles: bool) -> list[Any]:
    place = fits.Header()
    if exposure.wcs is not None:
        place.update(wcs_cards(exposure.wcs))
    place.update(box_cards(exposure.box))
    image = _plane_hdu(exposure.image, "IMAGE", place, tiles=tiles)
    if exposure.unit:
        image.header["BUNIT"] = exposure.unit
    mask = _plane_hdu(exposure.mask.array, "MASK", place, tiles=tiles)
    put_cards(mask.header, exposure.mask.planes, prefix="MP_")
    hdus = [image, mask]
    if exposure.variance is not None:
        hdus.append(_plane_hdu(exposure.variance, "VARIANCE", place, tiles=tiles))
    return hdus


def _plane_hdu(array: NDArray[Any], name: str, place: fits.Header, *, tiles: bool) -> Any:
    if tiles and (array.dtype.kind == "f" or array.dtype.itemsize <= 4):
        return fits.CompImageHDU(
            np.array(array), place.copy(), name=name, compression_type="GZIP_2", quantize_level=0.0
        )
    return fits.ImageHDU(np.array(array), place.copy(), name=name)


def _psf_hdus(psf: PSF | None) -> list[Any]:
    if psf is None:
        return []
    if isinstance(psf, BasisPSF):
        pair = basis_hdus("PSF", psf.basis, psf.weights)
        pair[1].header["NORMALIZ"] = (psf.normalize, "stamps are scaled to unit sum")
        return pair
    if isinstance(psf, ImagePSF | AnalyticPSF):
        return [fits.ImageHDU(np.array(psf.stamps(x=0.0, y=0.0)[0]), name="PSF")]
    warnings.warn(f"a PSF of type {type(psf).__name__} is not written; keep its file", PsfMatchWarning, stacklevel=5)
    return []


def _target_hdus(exposure: Exposure) -> list[Any]:
    if exposure.psf is None:
        return []
    center = exposure.box.center
    return [fits.ImageHDU(np.array(exposure.psf.stamps(x=center.x, y=center.y)[0]), name="TARGET")]
