"""PSFs in Rubin's afw archives: files of one PSF, and calexps.

==================================== ==============================================================================
class                                read as
==================================== ==============================================================================
PsfexPsf                             the PSFEx model in it; as upstream does, with its samples interpolated by the
                                     Lanczos-5 function (those of PSFEx's own files: Lanczos-3).  Stamps are of
                                     unit sum, where upstream leaves what the interpolation gives
GaussianPsf, SingleGaussianPsf,      the profile at the pixels' centres, scaled to unit sum on its stamp
DoubleGaussianPsf
KernelPsf                            its kernel: fixed images, or linear combinations of fixed images and analytic
                                     functions with weights that are constant, polynomials or Chebyshev series
CoaddPsf, WarpedPsf, PiffPsf, ...    refused, with the reason
==================================== ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.fields import Field
from psfmatch.geometry import Box, FloatArray, odd_shape
from psfmatch.io.afw import Archive, Record, has_archive
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.psfex import psf_from_cube, psfex_cards
from psfmatch.psf import PSF, BasisPSF, DoubleGaussianPSF, ImagePSF

__all__ = ["FORMAT", "stored_psf"]

REFUSED = MappingProxyType(
    {
        "CoaddPsf": "it is made of the PSFs of many exposures, warped and averaged; give the stamp at your position, "
        "written with the Rubin stack (psf.computeKernelImage(point).writeFits(...))",
        "PiffPsf": "it is a Python pickle, which could run anything when it is loaded and needs the Rubin stack; write "
        "it with piff (psf._piffResult.write(...)), or convert the exposure to lsst.images",
    }
)
GENERIC = "it can only be evaluated by the Rubin stack; write a stamp with psf.computeKernelImage(point).writeFits(...)"
FIELD = Box(0, 0, 4096, 4096)


def stored_psf(hdus: fits.HDUList) -> PSF | None:
    """The PSF of an exposure, or of a file of one PSF; None where the archive has none.

    Raises
    ------
    FormatError
        If it is of a kind that cannot be read; the message says why, and what to do.
    """
    archive = Archive(hdus)
    id = archive.component("PSF")
    if id is None and not any(hdu.name == "IMAGE" for hdu in hdus):
        id = 1
    return None if id is None else _psf(archive, id)


def _psf(archive: Archive, id: int) -> PSF:
    kind = archive.kind(id)
    if kind in READERS:
        return READERS[kind](archive, id)
    raise FormatError(f"{archive.path}: the PSF is a {kind}: {REFUSED.get(kind, GENERIC)}")


def _psfex(archive: Archive, id: int) -> PSF:
    sizes, arrays = archive.record(id), archive.record(id, 1)
    shape = tuple(int(n) for n in arrays.array("_size"))
    cube = arrays.array("_comp").astype(float).reshape((*shape[2:], shape[1], shape[0]))
    zero, scale, group, degree = (
        arrays.array(name) for name in ("_context_first", "_context_second", "group", "degree")
    )
    cards = psfex_cards(
        step=sizes.number("_pixstep"), zero=zero.tolist(), scale=scale.tolist(), group=group.tolist(),
        degree=degree.tolist(),
    )  # fmt: skip
    return psf_from_cube(cube, cards, Path(archive.path), rubin=True)


def _gaussian(archive: Archive, id: int) -> PSF:
    record = archive.record(id)
    return _profile(record, record.number("sigma"), 1.0, 0.0)


def _double_gaussian(archive: Archive, id: int) -> PSF:
    record = archive.record(id)
    return _profile(record, record.number("sigma1"), record.number("sigma2"), record.number("b"))


def _profile(record: Record, sigma1: float, sigma2: float, b: float) -> PSF:
    width, height = (int(n) for n in record.pair("dimensions"))
    odd_shape((height, width), "the PSF's dimensions (height, width)")
    psf = DoubleGaussianPSF(sigma1=sigma1, sigma2=sigma2, b=b, size=width, sampling="center")
    return psf if width == height else ImagePSF(psf.stamps(x=0, y=0, shape=(height, width))[0])


def _kernel_psf(archive: Archive, id: int) -> PSF:
    kernel = int(archive.record(id).number("kernel"))
    if archive.kind(kernel) != "LinearCombinationKernel":
        return ImagePSF(_kernel_image(archive, kernel), normalize=True)
    record = archive.record(kernel)
    basis = np.stack([_kernel_image(archive, int(one)) for one in record.array("components")])
    if record.has("amplitudes"):
        return ImagePSF(np.tensordot(record.array("amplitudes"), basis, axes=1), normalize=True)
    functions = [_function(archive, int(one)) for one in record.array("spatialfunctions")]
    order = max(order for _, order in functions)
    nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
    y, x = (g.ravel() for g in np.meshgrid(nodes, nodes, indexing="ij"))
    x, y = FIELD.center.x + 0.5 * FIELD.shape[1] * x, FIELD.center.y + 0.5 * FIELD.shape[0] * y
    values = np.array([function(x, y) for function, _ in functions])
    return BasisPSF(basis, Field.fit(values, x=x, y=y, order=order, box=FIELD), normalize=True)


def _kernel_image(archive: Archive, id: int) -> FloatArray:
    kind, record = archive.kind(id), archive.record(id)
    width, height = (int(n) for n in record.pair("dimensions"))
    center = tuple(int(n) for n in record.pair("center"))
    if kind != "FixedKernel":
        raise FormatError(f"{archive.path}: the PSF is a KernelPsf of a {kind}: {GENERIC}")
    if center != (width // 2, height // 2):
        raise FormatError(f"{archive.path}: the PSF's kernel has its centre at {center}, not in its middle; pad it")
    return record.array("image").astype(float).reshape(height, width)


def _function(archive: Archive, id: int) -> tuple[Callable[[FloatArray, FloatArray], FloatArray], int]:
    """A polynomial or Chebyshev series of the position, and its order.

    Coefficients are in the order 1, x, y, x^2, xy, y^2 ...
    """
    kind, record = archive.kind(id).rstrip("FD"), archive.record(id)
    coefficients = record.array("coefficients").astype(float)
    order = round((np.sqrt(8 * coefficients.size + 1) - 3) / 2)
    powers = [(degree - j, j) for degree in range(order + 1) for j in range(degree + 1)]
    if kind not in ("PolynomialFunction2", "Chebyshev1Function2") or len(powers) != coefficients.size:
        raise FormatError(f"{archive.path}: the PSF varies as a {kind} of {coefficients.size} terms: {GENERIC}")
    matrix = np.zeros((order + 1, order + 1))
    for (i, j), value in zip(powers, coefficients, strict=True):
        matrix[i, j] = value
    if kind == "PolynomialFunction2":
        return lambda x, y: np.polynomial.polynomial.polyval2d(x, y, matrix), order
    (x0, y0), (x1, y1) = record.pair("min"), record.pair("max")
    return lambda x, y: np.polynomial.chebyshev.chebval2d(
        (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0), matrix
    ), order


READERS: MappingProxyType[str, Callable[[Archive, int], PSF]] = MappingProxyType(
    {
        "PsfexPsf": _psfex,
        "GaussianPsf": _gaussian,
        "SingleGaussianPsf": _gaussian,
        "DoubleGaussianPsf": _double_gaussian,
        "KernelPsf": _kernel_psf,
    }
)


def _recognises(source: PSFSource) -> bool:
    return source.hdus is not None and source.wanted is None and has_archive(source.hdus)


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    assert source.hdus is not None
    psf = stored_psf(source.hdus)
    if psf is None:
        raise FormatError(f"{source.path}: the exposure in it has no PSF; it is {source.seems()}")
    return psf


FORMAT = PSFFormat(name="afw", title="a PSF or exposure of Rubin's afw", recognises=_recognises, read=_read)
