"""Reading exposures: one file with all planes, or an image with companions."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import FormatError, InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.io.files import PathLike, split_extension, told
from psfmatch.io.fits import extension, image_hdus, is_image, open_fits
from psfmatch.io.frame_formats.base import NAMES, Frame, FrameFormat, FrameSource, Plane, images_of, load
from psfmatch.io.frame_formats.registry import companions, frame_format, frame_formats, read_frame
from psfmatch.io.masks import MaskConvention, mask_convention, mask_from
from psfmatch.io.provenance import noise_of
from psfmatch.io.psfs import read_psf
from psfmatch.machine import timed
from psfmatch.nddata import inverse, negatives
from psfmatch.provenance import History
from psfmatch.psf import words_of_psf

__all__ = ["FORMATS", "FROM_STARS", "exposures_in", "files_of_exposure", "read_exposure"]

FROM_STARS = "stars"
FORMATS = tuple(sorted(known.name for known in frame_formats()))
log = logging.getLogger("psfmatch.io")


@timed("read", "io")
def read_exposure(
    path: PathLike,
    *,
    psf: Any = None,
    variance: PathLike | None = None,
    weight: PathLike | None = None,
    mask: PathLike | None = None,
    mask_planes: MaskConvention | PathLike | None = None,
    format: str | None = None,
    memmap: bool = False,
) -> Exposure:
    """Read an exposure, from FITS (plain, gzipped or tile-compressed), or ASDF or JSON where these are the format's.

    Parameters
    ----------
    path : path
        The image.  ``name.fits[N4]``, ``name.fits[SCI,2]`` and ``name.fits[3]`` pick one extension: a chip of several.
        Formats (see `psfmatch.io.frame_formats` for each):

        * Rubin's and HSC's (IMAGE, MASK, VARIANCE and afw's tables), psfmatch's own, and files of ``lsst.images``;
        * Hubble's, Webb's (SCI, ERR, DQ) and DES's (SCI, MSK, WGT); Roman's ASDF files;
        * DECam Community Pipeline: an image beside which lie its inverse variance, its mask of codes and perhaps its
          PSFEx model; coadds of legacypipe, CASU's images with their confidence maps and SDSS frames with their
          psField files alike.  They are found by their names unless given here (logged under ``psfmatch.io``);
        * files of astropy's ``CCDData``;
        * any other FITS file: the first two-dimensional image in it.
    psf : PSF, path, words or object, optional
        See `read_psf`.  Its positions are those of the image's pixels, counted from 0 (plus the box's origin).
        ``"stars"``: a model made from the image's own stars, see `psfmatch.psf_from_stars`, which says how good it is
        in the log and warns where it is poor.
    variance, weight : path, optional
        A companion file with the variance, or with the inverse variance.
    mask : path, optional
        A companion file with the mask.
    mask_planes : MaskConvention, path or str, optional
        What the values of the mask mean, where the file does not say so or is wrong: a `MaskConvention`, a TOML file,
        or the name of a known one (see `psfmatch.io.masks`).
        A mask of unknown kind is read as ``plain``: whatever is not zero is BAD.
    format : str, optional
        The name of a format, where the file's content misleads; also its convention of masks.  With ``plain`` only
        the first image of the file is read, and no companion is looked for.
    memmap : bool
        For frames larger than memory: leave image, variance and mask in their files, to be read where they are used.
        Such planes are read-only and big-endian.  They must be stored as they are used, as psfmatch's own ``.fits``
        are: what is compressed or scaled, an image of integers, weights, errors, and masks of other conventions than
        Rubin's are read into memory all the same.  The files may be replaced or removed meanwhile, but not changed.

    Returns
    -------
    Exposure
        In the image's unit; float32 or float64.  ``meta`` holds the header cards but those that describe the file
        or the WCS.  Pixels whose weight or error is zero get an infinite variance and, where the mask has nothing to
        say, the plane NO_DATA.  The box has an origin only in Rubin's layouts; all others start at (0, 0).

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    FormatError
        If a file is damaged or cut off, or holds no image.
    InputError
        If the planes do not fit together, the variance is negative, or the mask is not of integers.

    Examples
    --------
    >>> read_exposure("c4d_170316_062107_ooi_z_ls9.N2.fits.gz", psf="gaussian:fwhm=0.9arcsec")  # doctest: +SKIP
    """
    chosen = None if format is None else frame_format(format)
    convention = None if mask_planes is None else mask_convention(mask_planes)
    if variance is not None and weight is not None:
        raise InputError(f"{variance} and {weight}: give the variance or the weight, not both")
    given = {"variance": variance, "weight": weight, "mask": mask}
    with FrameSource(path, memmap=memmap, with_psf=psf is None) as source:
        frame = read_frame(source, chosen)
        wanted, file = source.wanted, source.path
        noise = None if source.hdus is None else noise_of(source.hdus)
    if variance is not None or weight is not None:
        noiseless = {role: part for role, part in frame.planes.items() if role not in ("variance", "error", "weight")}
        frame = replace(frame, planes=noiseless)
    beside = _beside(file, given, frame)
    more = {role: one for role, one in {**given, **beside}.items() if one is not None and role != "psf"}
    planes = {role: _companion(one, frame, wanted, role, memmap=memmap) for role, one in more.items()}
    frame = replace(frame, planes={**frame.planes, **planes})
    with told(file, *(part.path for part in frame.planes.values())):
        exposure = _exposure(frame, convention or _convention(frame, chosen, mask))
    given_psf = beside.get("psf") if psf is None and frame.psf is None else psf
    model = frame.psf if given_psf is None else given_psf
    if isinstance(model, str) and model == FROM_STARS:
        from psfmatch.stars import psf_from_stars

        model = psf_from_stars(exposure).psf
    elif model is not None:
        model = read_psf(model, pixel_scale=exposure.pixel_scale, wcs=exposure.wcs)
    used = {"extension": wanted, **more, "psf": None if given_psf is None else words_of_psf(given_psf)}
    used |= {"mask_planes": mask_planes, "format": format, "noise": noise}
    paths = [one for one in (*more.values(), given_psf, mask_planes) if isinstance(one, str | os.PathLike)]
    return exposure.replace(psf=model, history=History().then("read", used, files=[file, *paths]))


def exposures_in(path: PathLike) -> list[str]:
    """What to give to `read_exposure` for each image in a file of several, such as ``pawprint.fits[3]``.

    Those named IMAGE or SCI where there are such, else all that are no mask, variance or weight by their names.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of str
        Paths, with the number of the extension where there are several.

    Raises
    ------
    FileNotFoundError, FormatError
        If there is no such file, or it cannot be read.

    Examples
    --------
    >>> [read_exposure(chip) for chip in exposures_in("pawprint.fits")]  # doctest: +SKIP
    """
    with FrameSource(path) as source:
        if source.hdus is None or source.wanted is not None:
            return [source.name]
        numbers = [source.hdus.index(hdu) for hdu in images_of(source.hdus)]
        return [source.name] if len(numbers) == 1 else [f"{source.name}[{number}]" for number in numbers]


def _convention(frame: Frame, format: FrameFormat | None, mask: PathLike | None) -> MaskConvention | str | None:
    """That of the format asked for; that of the frame, but not for masks from elsewhere; else what the header says."""
    if format is not None and format.mask is not None:
        return frame.convention or format.mask
    return frame.convention if mask is None else None


def _exposure(frame: Frame, convention: MaskConvention | str | None) -> Exposure:
    """All but the PSF."""
    image = frame.planes["image"]
    _check_image(image, frame.planes.values())
    shape = (image.array.shape[0], image.array.shape[1])
    exposure = Exposure(
        image=image.array,
        variance=_variance(frame.planes, frame.weight_unit),
        mask=None if "mask" not in frame.planes else _mask(frame.planes["mask"], convention),  # type: ignore[arg-type]
        box=Box.from_shape(shape, y0=frame.origin[0], x0=frame.origin[1]),
        wcs=frame.wcs,
        unit=frame.unit,
        meta=frame.meta,
    )
    return _without_data(exposure, frame.planes)


def files_of_exposure(path: PathLike, **options: Any) -> list[Path]:
    """The files that `read_exposure` reads: the image, what was given with it, and companions found by their names.

    A companion that only the image's header names is not among them, nor are the files that these refer to.

    Parameters
    ----------
    path, options
        As of `read_exposure`.
    """
    file, _ = split_extension(path)
    given = {role: options.get(role) for role in ("psf", "variance", "weight", "mask", "mask_planes")}
    beside = {} if options.get("format") == "plain" else companions(file)
    values = [*given.values(), *(value for role, value in beside.items() if given.get(role) is None)]
    paths = [split_extension(value)[0] for value in values if isinstance(value, str | os.PathLike)]
    return [file, *(path for path in paths if path.is_file())]


def _companion(source: PathLike, frame: Frame, wanted: str | None, role: str, *, memmap: bool) -> Plane:
    """The plane of a companion file: the extension asked for, that of the image's name or number, or the first."""
    file, named = split_extension(source)
    name, version, number = frame.extension
    with open_fits(file, memmap=memmap) as hdus:
        if named is not None:
            return load(hdus, extension(hdus, named))
        images = image_hdus(hdus)
        if not images:
            raise FormatError(f"{file}: holds no two-dimensional image")
        same = [hdu for hdu in images if name and hdu.name == name and hdu.ver == version]
        by_number = (wanted is not None and wanted.isdigit()) or len(images) > 1
        if by_number and not same and number < len(hdus) and is_image(hdus[number]):
            same = [hdus[number]]
        kind = [hdu for hdu in images if hdu.name in NAMES[role]]
        return load(hdus, (kind or same or images)[0])


def _beside(file: Path, given: Mapping[str, Any], frame: Frame) -> dict[str, Any]:
    """Companions found by their names, for what was neither given nor in the file."""
    known = {role for role, value in {**given, **frame.planes}.items() if value is not None}
    if known & {"variance", "error", "weight"}:
        known.add("weight")
    found = {role: path for role, path in frame.beside.items() if role not in known}
    for role, path in found.items():
        log.info("%s: %s found beside it: %s", file, role, os.path.basename(path))
    return found


def _check_image(image: Plane, parts: Iterable[Plane]) -> None:
    if image.array.dtype.kind not in "biuf":
        raise InputError(f"{image.path}: the image is of dtype {image.array.dtype}; give real numbers")
    if image.array.ndim != 2:
        raise FormatError(f"{image.path}: the image has the shape {image.array.shape}; give one of two axes")
    if image.array.size == 1:
        raise InputError(f"{image.path}: the image has one pixel; give an image larger than its PSF")
    for part in parts:
        if part.array.shape != image.array.shape:
            raise InputError(
                f"{part.path}: shape {part.array.shape} does not fit {image.path} of shape {image.array.shape}"
            )


def _variance(parts: Mapping[str, Plane], weight_unit: float) -> NDArray[Any] | None:
    """The variance, from whichever of variance, error and weight there is."""
    role = next((role for role in ("variance", "weight", "error") if role in parts), None)
    if role is None:
        return None
    part = parts[role]
    if part.array.dtype.kind not in "iuf":
        raise InputError(f"{part.path}: the {role} is of dtype {part.array.dtype}; give real numbers")
    values = part.array if part.array.dtype.kind == "f" else part.array.astype(np.float64)
    negative = negatives(values)
    if negative and role == "weight" and part.compressed:
        values = np.maximum(values, 0)  # a lossy compression scatters the zeros of a weight about zero
        negative = 0
    if negative:
        what = {"variance": "variance", "weight": "inverse variance", "error": "error"}[role]
        raise InputError(
            f"{part.path}: the {what} is negative in {negative} pixels "
            f"(least {np.nanmin(values):.3g}); mend it, with zero weight or infinite variance where nothing is known"
        )
    if role == "weight":
        return inverse(values if weight_unit == 1.0 else values * values.dtype.type(weight_unit))
    return values if role == "variance" else _squared(values)


def _squared(error: NDArray[Any]) -> NDArray[Any]:
    """Variance from errors: infinity where the error is zero."""
    variance = np.square(error)
    variance[error == 0] = np.inf
    return np.asarray(variance)


def _mask(part: Plane, convention: MaskConvention | str | None) -> Mask:
    with told(part.path):
        return mask_from(part.array, part.header, path=part.path, convention=convention)


def _without_data(exposure: Exposure, parts: Mapping[str, Plane]) -> Exposure:
    """NO_DATA where a weight or error of zero is all that speaks against a pixel."""
    if exposure.variance is None or "variance" in parts:
        return exposure
    mask = exposure.mask.with_planes(["NO_DATA"])
    silent = np.isposinf(exposure.variance) & (mask.array == 0)
    if not silent.any():
        return exposure
    return exposure.replace(
        mask=Mask(np.where(silent, mask.bits("NO_DATA"), mask.array).astype(mask.array.dtype), mask.planes)
    )
