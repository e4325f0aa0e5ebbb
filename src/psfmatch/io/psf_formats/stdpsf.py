"""STDPSF files, the effective PSFs of HST and JWST (Anderson & King 2000, PASP 112, 1360; Anderson 2016, ISR WFC3-12).

A cube of effective PSFs of 4 samples a pixel, and the pixels where they hold in header cards (IPSFX01, JPSFY01, ...,
counted from 1).  The flux is counted within a radius there, so that the samples add up to more than 1: each PSF is
scaled to unit flux.  Files of several detectors, ``name.fits[2]``, are split by photutils.
"""

from __future__ import annotations

import numpy as np

from psfmatch.errors import FormatError
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.models import as_psf
from psfmatch.models.oversampled import effective_psf
from psfmatch.psf import PSF

__all__ = ["FORMAT"]

OVERSAMPLING = (4, 4)
# PSFs in the files of several detectors: which detectors there are, by the numbers that photutils gives them.
DETECTORS = {
    90: "1 (WFC2; sci,1) and 2 (WFC1; sci,2)",
    56: "1 (UVIS2; sci,1) and 2 (UVIS1; sci,2)",
    36: "1 (PC), 2 (WF2), 3 (WF3) and 4 (WF4)",
    200: "1 to 4 (NRCA1 to NRCA4) and 5 to 8 (NRCB1 to NRCB4)",
}


def _recognises(source: PSFSource) -> bool:
    return source.hdus is not None and "NXPSFS" in source.hdus[0].header and source.hdus[0].header.get("NAXIS") == 3


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    hdu = source.hdus[0] if source.hdus is not None else None
    if hdu is None or "NXPSFS" not in hdu.header or "NYPSFS" not in hdu.header or len(hdu.shape) != 3:
        raise FormatError(f"{source.path}: no STDPSF file; it is {source.seems()}")
    count = hdu.shape[0]
    if count in DETECTORS:
        return _of_detector(source, DETECTORS[count])
    if source.wanted is not None:
        raise FormatError(f"{source.path}: the PSFs of one detector; leave out [{source.wanted}]")
    nx, ny = int(hdu.header["NXPSFS"]), int(hdu.header["NYPSFS"])
    if nx * ny != count or f"IPSFX{nx:02d}" not in hdu.header or f"JPSFY{ny:02d}" not in hdu.header:
        raise FormatError(f"{source.path}: {count} PSFs do not fit the grid of {nx} x {ny} in its header")
    x = np.array([float(hdu.header[f"IPSFX{i + 1:02d}"]) - 1.0 for i in range(nx)])
    y = np.array([float(hdu.header[f"JPSFY{j + 1:02d}"]) - 1.0 for j in range(ny)])
    return effective_psf(hdu.data, OVERSAMPLING, x=np.tile(x, ny), y=np.repeat(y, nx), what=str(source.path))


def _of_detector(source: PSFSource, known: str) -> PSF:
    if source.wanted is None or not source.wanted.isdigit():
        raise FormatError(f"{source.path}: STDPSF of the detectors {known}; choose one: {source.path}[1]")
    try:
        from photutils.psf import GriddedPSFModel
    except ImportError as error:
        raise FormatError(
            f"{source.path}: photutils splits STDPSF files of several detectors; pip install 'psfmatch[photutils]'"
        ) from error
    return as_psf(GriddedPSFModel.read(str(source.path), format="stdpsf", detector_id=int(source.wanted)))


FORMAT = PSFFormat(name="stdpsf", title="an STDPSF file of effective PSFs", recognises=_recognises, read=_read)
