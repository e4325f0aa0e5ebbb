"""Reading exposures: one file with all planes, or an image with companions."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask, inverse, negatives
from psfmatch.geometry import Box
from psfmatch.io import decam
from psfmatch.io.files import PathLike, split_extension
from psfmatch.io.fits import extension, image_hdus, is_image, open_fits, plane
from psfmatch.io.headers import meta_of, origin_of, unit_of, wcs_of
from psfmatch.io.masks import mask_from
from psfmatch.io.psfs import read_psf, stored_psf
from psfmatch.psf import PSF

__all__ = ["FORMATS", "files_of_exposure", "read_exposure"]

FORMATS = ("decam", "des", "hst", "jwst", "plain", "rubin")
NAMES = {
    "image": ("IMAGE", "SCI"),
    "mask": ("MASK", "MSK", "DQ"),
    "variance": ("VARIANCE", "VAR"),
    "error": ("ERR",),
    "weight": ("WEIGHT", "WGT", "IVAR"),
}
log = logging.getLogger("psfmatch.io")


@dataclass(frozen=True)
class _Plane:
    """An image as it is in a file."""

    array: NDArray[Any]
    header: fits.Header
    path: Path
    compressed: bool


def read_exposure(
    path: PathLike,
    *,
    psf: PSF | PathLike | None = None,
    variance: PathLike | None = None,
    weight: PathLike | None = None,
    mask: PathLike | None = None,
    format: str | None = None,
    memmap: bool = False,
) -> Exposure:
    """Read an exposure from FITS, plain, gzipped or tile-compressed (fpacked).

    Parameters
    ----------
    path : path
        The image.  ``name.fits[N4]``, ``name.fits[SCI,2]`` and ``name.fits[3]`` pick one extension.  Layouts:

        * extensions IMAGE, MASK, VARIANCE (Rubin's, and psfmatch's own);
        * extensions SCI, ERR, DQ (HST, JWST), or SCI, MSK, WGT (DES);
        * DECam Community Pipeline: an image beside which lie its inverse variance, its mask of codes and perhaps its
          PSFEx model; they are found by their names unless given here (logged under ``psfmatch.io``);
        * any other file: the first two-dimensional image in it.
    psf : PSF, path or words, optional
        See `read_psf`.  Its positions are those of the image's pixels, counted from 0 (plus the box's origin).
    variance, weight : path, optional
        A companion file with the variance, or with the inverse variance.
    mask : path, optional
        A companion file with the mask.
    format : {"rubin", "decam", "des", "jwst", "hst", "plain"}, optional
        What the values of the mask mean, where the file does not say so or is wrong: see `psfmatch.io.masks`.
        A mask of unknown kind is read as ``plain``: whatever is not zero is BAD.  With ``plain`` only the first image
        of the file is read, and no companion is looked for.
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
        say, the plane NO_DATA.  The box has an origin only in Rubin's layout; all others start at (0, 0).

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
    if format is not None and format not in FORMATS:
        raise InputError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    if variance is not None and weight is not None:
        raise InputError(f"{variance} and {weight}: give the variance or the weight, not both")
    file, wanted = split_extension(path)
    given = {"variance": variance, "weight": weight, "mask": mask}
    with open_fits(file, memmap=memmap) as hdus:
        chosen = _image_hdu(hdus, wanted)
        found = {"image": chosen} if format == "plain" else _planes(hdus, chosen)
        parts = {role: _load(hdus, hdu) for role, hdu in found.items()}
        own_psf = stored_psf(hdus) if psf is None and format != "plain" else None
        wcs = wcs_of(chosen.header, hdus)
        rubin = chosen.name == "IMAGE" and "image" in found
        meta = _meta(hdus, chosen, without_world=wcs is not None)
    if given["variance"] or given["weight"]:
        parts = {role: part for role, part in parts.items() if role not in ("variance", "error", "weight")}
    beside = {} if format == "plain" else _beside(file, given, parts)
    for role, companion in {**given, **beside}.items():
        if companion is not None and role != "psf":
            parts[role] = _companion(companion, chosen, wanted, role, memmap=memmap)
    image = parts["image"]
    _check_image(image, parts.values())
    exposure = Exposure(
        image=image.array,
        variance=_variance(parts),
        mask=None if "mask" not in parts else _mask(parts["mask"], format),  # type: ignore[arg-type]
        box=_box(image, rubin=rubin),
        wcs=wcs,
        unit=unit_of(image.header),
        meta=meta,
    )
    model = psf if psf is not None else own_psf or beside.get("psf")
    return _without_data(exposure, parts).replace(psf=_as_psf(model, exposure))


def files_of_exposure(path: PathLike, **options: Any) -> list[Path]:
    """The files that `read_exposure` reads: the image, what was given beside it, and companions found by their names.

    Parameters
    ----------
    path, options
        As of `read_exposure`.
    """
    file, _ = split_extension(path)
    given = {role: options.get(role) for role in ("psf", "variance", "weight", "mask")}
    paths = [Path(split_extension(value)[0]) for value in given.values() if isinstance(value, str | os.PathLike)]
    beside = {} if options.get("format") == "plain" else decam.companions(file)
    found = [value for role, value in beside.items() if given.get(role) is None]
    return [file, *(one for one in [*paths, *found] if one.is_file())]


def _image_hdu(hdus: fits.HDUList, wanted: str | None) -> Any:
    """The image asked for; else the one named IMAGE or SCI; else the first, with a word if there are others."""
    if wanted is not None:
        return extension(hdus, wanted)
    images = [hdu for hdu in image_hdus(hdus) if not any(hdu.name in NAMES[role] for role in NAMES if role != "image")]
    named = [hdu for hdu in hdus if hdu.name in NAMES["image"]]
    others = [hdu for hdu in images if hdu in named] if named else images
    if not others:
        names = ", ".join(hdu.name or "(no name)" for hdu in hdus)
        raise FormatError(f"{hdus.filename()}: holds no two-dimensional image (its HDUs: {names})")
    if len(others) > 1 and others[0].shape == others[1].shape:
        which = hdus.index(others[0])
        warnings.warn(
            f"{hdus.filename()}: holds {len(others)} images; read HDU {which} {others[0].name!r}. "
            f"Choose another as {Path(hdus.filename()).name}[{hdus.index(others[1])}]",
            PsfMatchWarning, stacklevel=3,
        )  # fmt: skip
    return others[0]


def _planes(hdus: fits.HDUList, chosen: Any) -> dict[str, Any]:
    """The HDUs that go with the image: by their names, and by the version of the image."""
    found = {"image": chosen}
    for hdu in image_hdus(hdus):
        role = next((role for role, names in NAMES.items() if hdu.name in names), None)
        if role not in (None, "image") and hdu.ver == chosen.ver and hdu is not chosen:
            found.setdefault(str(role), hdu)
    if "variance" in found:
        found.pop("error", None)
    return found


def _load(hdus: fits.HDUList, hdu: Any) -> _Plane:
    header = hdus[0].header.copy()
    if hdu is not hdus[0]:
        header.update(hdu.header)
    compressed = isinstance(hdu, fits.CompImageHDU)
    return _Plane(plane(hdus, hdu), header, Path(hdus.filename()), compressed)


def _companion(source: PathLike, image: Any, wanted: str | None, role: str, *, memmap: bool) -> _Plane:
    """The plane of a companion file: the extension asked for, that of the image's name or number, or the first."""
    file, named = split_extension(source)
    with open_fits(file, memmap=memmap) as hdus:
        if named is not None:
            return _load(hdus, extension(hdus, named))
        images = image_hdus(hdus)
        if not images:
            raise FormatError(f"{file}: holds no two-dimensional image")
        same = [hdu for hdu in images if image.name and hdu.name == image.name and hdu.ver == image.ver]
        if wanted is not None and wanted.isdigit() and not same and int(wanted) < len(hdus):
            same = [hdus[int(wanted)]] if is_image(hdus[int(wanted)]) else []
        kind = [hdu for hdu in images if hdu.name in NAMES[role]]
        return _load(hdus, (kind or same or images)[0])


def _beside(file: Path, given: dict[str, Any], parts: dict[str, Any]) -> dict[str, Path]:
    """Companions found by their names, for what was neither given nor in the file."""
    known = {role for role, value in {**given, **parts}.items() if value is not None}
    if known & {"variance", "error", "weight"}:
        known.add("weight")
    found = {role: path for role, path in decam.companions(file).items() if role not in known}
    for role, path in found.items():
        log.info("%s: %s found beside it: %s", file, role, path.name)
    return found


def _check_image(image: _Plane, parts: Iterable[_Plane]) -> None:
    if image.array.dtype.kind not in "biuf":
        raise InputError(f"{image.path}: the image is of dtype {image.array.dtype}; give real numbers")
    if image.array.size == 1:
        raise InputError(f"{image.path}: the image has one pixel; give an image larger than its PSF")
    for part in parts:
        if part.array.shape != image.array.shape:
            raise InputError(
                f"{part.path}: shape {part.array.shape} does not fit {image.path} of shape {image.array.shape}"
            )


def _variance(parts: dict[str, _Plane]) -> NDArray[Any] | None:
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
        return inverse(values)
    return values if role == "variance" else _squared(values)


def _squared(error: NDArray[Any]) -> NDArray[Any]:
    """Variance from errors: infinity where the error is zero."""
    variance = np.square(error)
    variance[error == 0] = np.inf
    return np.asarray(variance)


def _mask(part: _Plane, format: str | None) -> Mask:
    try:
        return mask_from(part.array, part.header, path=part.path, format=format)
    except InputError as error:
        raise error if str(part.path) in str(error) else InputError(f"{part.path}: {error}") from error


def _without_data(exposure: Exposure, parts: dict[str, _Plane]) -> Exposure:
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


def _box(image: _Plane, *, rubin: bool) -> Box:
    shape = (image.array.shape[0], image.array.shape[1])
    y0, x0 = origin_of(image.header) if rubin else (0, 0)
    return Box.from_shape(shape, y0=y0, x0=x0)


def _meta(hdus: fits.HDUList, chosen: Any, *, without_world: bool) -> dict[str, Any]:
    primary = hdus[0].header
    if "PSFMATCH" in primary or chosen is hdus[0]:
        return meta_of(primary, without_world=without_world)
    return meta_of(primary, chosen.header, without_world=without_world)


def _as_psf(model: PSF | PathLike | None, exposure: Exposure) -> PSF | None:
    if model is None or isinstance(model, PSF):
        return model
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"psf of type {type(model).__name__}: give a PSF, a file, or words such as moffat:fwhm=5,beta=3.5"
        )
    return read_psf(model, pixel_scale=exposure.pixel_scale)
