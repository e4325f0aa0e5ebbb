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
PSF, PSF_NODES     the same as stamps on a grid: (n, sy, sx), and a table of their columns X and rows Y, X fastest
KERNEL,            of a match: the matching kernel, see `psfmatch.io.kernels`; what the solver chose and measured stands
KERNEL_WEIGHTS     in the header of KERNEL (of regions: of LABELS) as STAT <name>
LABELS, PSF_n      where the PSF jumps at borders, in place of PSF: see `psfmatch.io.regions`
LABELS, KERNEL_n   of a match of such an exposure, in place of KERNEL
TARGET             of a match: the target PSF, one stamp (sy, sx), which is the PSF of the exposure
QUALITY            of a match: a table with the figures of merit, a row a position
CELLS,             of a match: what the kernel was solved from, see `psfmatch.io.cells`
CELLS_SCIENCE,
CELLS_TARGET,
STATISTICS
PROVENANCE         how the file came to be, see `psfmatch.io.provenance`
=================  =================================================================================================

Every HDU has CHECKSUM and DATASUM.  ``.fits.gz`` compresses the whole file, ``.fits.fz`` the three planes by tiles;
both without loss.

`write_exposure` and `write_matched` write what is in memory.  `exposure_output` and `matched_output` make the same file
first and have its planes filled, strip by strip, so that they need never be in memory as a whole.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask, Planes
from psfmatch.io.cells import cell_hdus, statistics_hdus
from psfmatch.io.files import PathLike, atomic_output, fits_suffix, reserve
from psfmatch.io.fits import BLOCK, SUM, table_hdu, write_hdus
from psfmatch.io.headers import box_cards, put_cards, wcs_cards
from psfmatch.io.kernels import basis_hdus, kernel_hdus, primary_hdu, put_statistics, quality_hdu, summary_cards
from psfmatch.io.provenance import provenance_hdu
from psfmatch.io.regions import labels_hdu
from psfmatch.machine import forget, is_mapped, timed
from psfmatch.provenance import History
from psfmatch.psf import PSF, AnalyticPSF, BasisPSF, GridPSF, ImagePSF
from psfmatch.regions import RegionsPSF

if TYPE_CHECKING:
    from psfmatch.match import Matched

__all__ = ["exposure_output", "layered_output", "matched_output", "write_exposure", "write_matched", "write_psf"]

Extensions = Callable[[], list[Any]]
MAPPED = ("u1", "i2", "i4", "i8")  # other integers are stored with an offset
PIECE = 1 << 24


@timed("wrote", "io")
def write_exposure(exposure: Exposure, path: PathLike, *, overwrite: bool = False) -> None:
    """Write an exposure to one FITS file, from which `read_exposure` reads it back.

    Parameters
    ----------
    exposure : Exposure
        Image, mask, variance, box, WCS, unit and meta are written as they are; the PSF where it is a stamp, a basis,
        an analytic model or a `RegionsPSF` of such (others are left out with a warning).
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


@timed("wrote", "io")
def write_matched(matched: Matched, path: PathLike, *, overwrite: bool = False) -> None:
    """Write a matched exposure with its kernel, target and figures of merit to one FITS file.

    Parameters
    ----------
    matched : Matched
        What `psfmatch.match` returns.
    path : path or str
        As in `write_exposure`, which also says what is raised.  `read_matched` reads all of it back;
        `read_exposure`, `read_kernel`, `read_quality` and `read_psf` their parts.
    overwrite : bool
        Replace a file that exists.
    """

    _write(matched.exposure, path, lambda: _match_hdus(matched), summary_cards(matched), overwrite=overwrite)


def write_psf(psf: PSF, path: PathLike, *, overwrite: bool = False, history: History | None = None) -> None:
    """Write a PSF model to a FITS file, from which `read_psf` reads it.

    Parameters
    ----------
    psf : PSF
        A stamp, a basis or a grid (all read back to the last bit), an analytic model (as a stamp of its default size),
        or a `RegionsPSF` of such.
    path : path
        Ends in ``.fits``, ``.fits.gz`` or ``.fits.fz``.
    overwrite : bool
        Replace the file where it exists.
    history : History, optional
        What it was made from and how, for the table PROVENANCE.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    OSError
        If the file cannot be written; nothing is left behind.
    InputError
        If a PSF of its kind cannot be stored, or the name is not that of a FITS file.
    """
    target = Path(path)
    fits_suffix(target)
    hdus = _model_hdus(psf, "PSF")
    if not hdus:
        raise InputError(
            f"{target}: a PSF of type {type(psf).__name__} cannot be stored; give stamps, basis stamps or a grid"
        )
    hdus.append(provenance_hdu(history or History()))
    with atomic_output(target, overwrite=overwrite) as out:
        write_hdus([primary_hdu(len(hdus)), *hdus], out)


@contextmanager
def exposure_output(
    template: Exposure, path: PathLike, *, overwrite: bool = False, more: Sequence[Any] = ()
) -> Iterator[Planes]:
    """A file as `write_exposure` writes it, whose planes are filled inside the ``with``, in any order.

    Parameters
    ----------
    template : Exposure
        All but the pixels: of image, variance and mask only shape and dtype count, and they are not read.
    path : path or str
        As in `write_exposure`, which also says what is raised.  The space on the disk is taken at once, and the file
        gets its name at the end of the ``with``, or is removed if anything fails in it.
    overwrite : bool
        Replace a file that exists.
    more : sequence of HDUs
        That are to follow.

    Yields
    ------
    Planes
        Zeros, to be filled: big-endian ``numpy.memmap`` of the file, read-only afterwards.  What FITS cannot map, a
        compressed file or a mask of int8 or of unsigned integers of more than 8 bits, is held in memory and written
        at the end.

    Examples
    --------
    >>> with exposure_output(exposure, "out.fits") as planes:  # doctest: +SKIP
    ...     for rows in strips:
    ...         planes.image[rows] = 2 * exposure.image[rows]
    """
    with layered_output(template, path, {}, overwrite=overwrite, more=more) as (planes, _):
        yield planes


@contextmanager
def layered_output(
    template: Exposure, path: PathLike, layers: Mapping[str, NDArray[Any]], *, overwrite: bool = False,
    more: Sequence[Any] = (),
) -> Iterator[tuple[Planes, dict[str, NDArray[Any]]]]:  # fmt: skip
    """As `exposure_output`, with further planes that are filled inside the ``with``.

    Parameters
    ----------
    template : Exposure
        As of `exposure_output`.
    path : path or str
        As of `exposure_output`.
    layers : mapping of str to array
        The names of the extensions, and arrays of which only shape and dtype count.
    overwrite : bool
        Replace a file that exists.
    more : sequence of HDUs
        That are to follow.

    Yields
    ------
    Planes
    dict of str to array
        The layers.
    """
    extensions = lambda: [*_psf_hdus(template.psf), *more]  # noqa: E731
    with _filled(template, path, extensions, {}, layers, overwrite=overwrite) as out:
        yield out


@contextmanager
def matched_output(template: Matched, path: PathLike, *, overwrite: bool = False) -> Iterator[Planes]:
    """A file as `write_matched` writes it, whose planes are filled inside the ``with``: see `exposure_output`.

    Parameters
    ----------
    template : Matched
        All but the pixels of its exposure, whose PSF is the target.
    path : path or str
        As in `write_exposure`.
    overwrite : bool
        Replace a file that exists.

    Yields
    ------
    Planes
        As `exposure_output`.
    """
    summary = summary_cards(template)
    with _filled(template.exposure, path, lambda: _match_hdus(template), summary, {}, overwrite=overwrite) as out:
        yield out[0]


def _write(
    exposure: Exposure, path: PathLike, extensions: Extensions, summary: dict[str, Any], *, overwrite: bool
) -> None:
    target = Path(path)
    tiles = fits_suffix(target) == ".fz"
    with atomic_output(target, overwrite=overwrite) as out:
        more = [*extensions(), provenance_hdu(exposure.history)]
        planes = _plane_hdus(exposure, tiles=tiles)
        primary = _primary(exposure, summary, len(planes) + len(more))
        write_hdus([primary, *planes, *more], out)


@contextmanager
def _filled(
    template: Exposure, path: PathLike, extensions: Extensions, summary: dict[str, Any],
    layers: Mapping[str, NDArray[Any]], *, overwrite: bool,
) -> Iterator[tuple[Planes, dict[str, NDArray[Any]]]]:  # fmt: skip
    target = Path(path)
    suffix = fits_suffix(target)
    with atomic_output(target, overwrite=overwrite) as out:
        more = [*extensions(), provenance_hdu(template.history)]
        count = 2 if template.variance is None else 3
        primary = _primary(template, summary, count + len(layers) + len(more))
        mapped = all(p.dtype.newbyteorder("=") in MAPPED for p in (template.mask.array, *layers.values()))
        if not suffix and mapped:
            hdus = _plane_hdus(template, tiles=False) + _layer_hdus(template, layers, tiles=False)
            with _mapped(out, primary, hdus, more) as arrays:
                planes = Planes(arrays[0], arrays[2] if count == 3 else None, arrays[1])
                yield planes, dict(zip(layers, arrays[count:], strict=True))
        else:
            planes = _zeros(template)
            filled = {name: np.zeros(layer.shape, layer.dtype.newbyteorder("=")) for name, layer in layers.items()}
            yield planes, filled
            exposure = template.replace(
                image=planes.image, variance=planes.variance, mask=Mask(planes.mask, template.mask.planes)
            )
            tiles = suffix == ".fz"
            hdus = _plane_hdus(exposure, tiles=tiles) + _layer_hdus(exposure, filled, tiles=tiles)
            write_hdus([primary, *hdus, *more], out)


@contextmanager
def _mapped(out: IO[bytes], primary: Any, planes: list[Any], more: list[Any]) -> Iterator[list[NDArray[Any]]]:
    """The file with all that is known beforehand, and its planes; their headers, which hold checksums, come last."""
    buffer = io.BytesIO()
    write_hdus([primary, *more], buffer)
    known, first = buffer.getvalue(), len(primary.header.tostring())
    starts, arrays, end = [], [], first
    sizes = [(_header_size(hdu), -(-hdu.size // BLOCK) * BLOCK) for hdu in planes]
    reserve(out, len(known) + sum(map(sum, sizes)))
    for hdu, (header, data) in zip(planes, sizes, strict=True):
        starts.append(end)
        dtype = hdu.data.dtype.newbyteorder(">")
        arrays.append(np.memmap(out, dtype, "r+", offset=end + header, shape=hdu.shape))
        end += header + data
    yield list(arrays)
    for array in arrays:
        array.flush()
        forget(array)
        array.flags.writeable = False
    blocks = {0: known[:first], end: known[first:]}
    for start, hdu, array in zip(starts, planes, arrays, strict=True):
        hdu.data = array
        hdu.add_checksum(when=SUM)
        blocks[start] = hdu.header.tostring().encode("ascii")
    for start, block in blocks.items():
        out.seek(start)
        out.write(block)


class _PlaneHDU(fits.ImageHDU):  # type: ignore[misc]
    """An image whose checksum is made piece by piece, so that a mapped one does not come into memory as a whole."""

    def _calculate_datasum(self) -> Any:
        if not is_mapped(self.data):
            return super()._calculate_datasum()
        content, total = self.data.reshape(-1).view(np.uint8), 0
        for start in range(0, content.size, PIECE):
            total = self._compute_checksum(content[start : start + PIECE], total)
            forget(content)
        return total


def _header_size(hdu: Any) -> int:
    """Bytes of the header once it has its checksums."""
    header = hdu.header.copy()
    header.extend([("CHECKSUM", "0" * 16, SUM), ("DATASUM", "0", SUM)])
    return len(header.tostring())


def _zeros(template: Exposure) -> Planes:
    planes = (template.image, template.variance, template.mask.array)
    return Planes(*(None if p is None else np.zeros(p.shape, p.dtype.newbyteorder("=")) for p in planes))


def _primary(exposure: Exposure, summary: dict[str, Any], extensions: int) -> fits.PrimaryHDU:
    primary = primary_hdu(extensions)
    put_cards(primary.header, exposure.meta)
    for key, value in summary.items():
        primary.header[key] = value
    if isinstance(exposure.psf, AnalyticPSF):
        primary.header["PSFMODEL"] = repr(exposure.psf)
    return primary


def _plane_hdus(exposure: Exposure, *, tiles: bool) -> list[Any]:
    place = _place_cards(exposure)
    image = _plane_hdu(exposure.image, "IMAGE", place, tiles=tiles)
    if exposure.unit:
        image.header["BUNIT"] = exposure.unit
    mask = _plane_hdu(exposure.mask.array, "MASK", place, tiles=tiles)
    put_cards(mask.header, exposure.mask.planes, prefix="MP_")
    hdus = [image, mask]
    if exposure.variance is not None:
        hdus.append(_plane_hdu(exposure.variance, "VARIANCE", place, tiles=tiles))
    return hdus


def _layer_hdus(exposure: Exposure, layers: Mapping[str, NDArray[Any]], *, tiles: bool) -> list[Any]:
    place = _place_cards(exposure)
    return [_plane_hdu(layer, name, place, tiles=tiles) for name, layer in layers.items()]


def _place_cards(exposure: Exposure) -> fits.Header:
    """WCS and box."""
    place = fits.Header()
    if exposure.wcs is not None:
        place.update(wcs_cards(exposure.wcs))
    place.update(box_cards(exposure.box))
    return place


def _plane_hdu(array: NDArray[Any], name: str, place: fits.Header, *, tiles: bool) -> Any:
    if tiles and (array.dtype.kind == "f" or array.dtype.itemsize <= 4):
        return fits.CompImageHDU(
            np.array(array), place.copy(), name=name, compression_type="GZIP_2", quantize_level=0.0
        )
    return _PlaneHDU(array, place.copy(), name=name)


def _psf_hdus(psf: PSF | None) -> list[Any]:
    if psf is None:
        return []
    hdus = _model_hdus(psf, "PSF")
    if not hdus:
        what = {type(one).__name__ for one in (psf.psfs.values() if isinstance(psf, RegionsPSF) else [psf])}
        warnings.warn(
            f"a PSF of type {', '.join(sorted(what))} is not written; keep its file", PsfMatchWarning, stacklevel=5
        )
    return hdus


def _model_hdus(psf: PSF, name: str) -> list[Any]:
    """The HDUs of a PSF, which `read_psf` reads; none where there is no way to store it."""
    if isinstance(psf, RegionsPSF):
        models = [_model_hdus(one, f"{name}_{label}") for label, one in psf.psfs.items()]
        return [labels_hdu(psf.regions), *(hdu for model in models for hdu in model)] if all(models) else []
    if isinstance(psf, BasisPSF):
        pair = basis_hdus(name, psf.basis, psf.weights)
        pair[1].header["NORMALIZ"] = (psf.normalize, "stamps are scaled to unit sum")
        return pair
    if isinstance(psf, GridPSF):
        x, y = (grid.ravel() for grid in np.meshgrid(psf.x, psf.y))
        columns = [fits.Column(axis, "D", array=nodes) for axis, nodes in (("X", x), ("Y", y))]
        table = table_hdu(columns, name=f"{name}_NODES")
        table.header["NORMALIZ"] = (psf.normalize, "stamps are scaled to unit sum")
        return [fits.ImageHDU(np.array(psf.images).reshape(-1, *psf.shape), name=name), table]
    if isinstance(psf, ImagePSF | AnalyticPSF):
        return [fits.ImageHDU(np.array(psf.stamps(x=0.0, y=0.0)[0]), name=name)]
    return []


def _match_hdus(matched: Matched) -> list[Any]:
    kernel = kernel_hdus(matched.kernel)
    put_statistics(kernel[0].header, matched)
    solved = [*cell_hdus(matched.solution.cells), *statistics_hdus(matched.solution.statistics)]
    return [*kernel, *_target_hdus(matched.exposure), quality_hdu(matched.quality), *solved]


def _target_hdus(exposure: Exposure) -> list[Any]:
    if exposure.psf is None:
        return []
    center = exposure.box.center
    return [fits.ImageHDU(np.array(exposure.psf.stamps(x=center.x, y=center.y)[0]), name="TARGET")]
