"""Files of ``lsst.images``: a VisitImage, MaskedImage or another image with mask and variance, in FITS or JSON.

They are read without the package (see `psfmatch.io.lsst_tree`): pixels, mask planes by their names, the PSF where it
is of a known kind, the metadata, and in FITS the FITS WCS that goes with the true one.  Its NDF files (HDF5) need the
package.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError, PsfMatchError, PsfMatchWarning
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, Plane, fits_frame
from psfmatch.io.headers import origin_of
from psfmatch.io.lsst_tree import Tree, is_tree, kind_of
from psfmatch.io.psf_formats.lsst_images import psf_from_tree
from psfmatch.psf import PSF

__all__ = ["FORMAT"]

HDF5 = b"\x89HDF"


def _recognises(source: FrameSource) -> bool:
    return is_tree(source) or source.head.startswith(HDF5)


def _read(source: FrameSource) -> Frame:
    if source.head.startswith(HDF5):
        raise FormatError(
            f"{source.path}: is an HDF5 file, perhaps one of lsst.images; convert it with that package, "
            "lsst.images.serialization.write_archive(read_archive(path), 'image.fits')"
        )
    tree = Tree(source)
    kind = kind_of(tree.root)
    if source.hdus is not None and source.has("IMAGE"):
        frame = _of_fits(source, tree)
    elif "image" in tree.root:
        frame = _of_json(source, tree)
    else:
        raise FormatError(f"{source.path}: is a {kind or 'file'} of lsst.images, which has no image, mask and variance")
    psf = _psf(tree) if source.with_psf else None
    return replace(frame, psf=psf, meta={**frame.meta, **_meta(tree.root)}, convention="rubin")


def _of_fits(source: FrameSource, tree: Tree) -> Frame:
    frame = fits_frame(source)
    image = frame.planes["image"]
    parts = tree.root.get("mask", {}).get("data", [])
    planes = dict(frame.planes)
    if len(parts) > 1:
        planes["mask"] = _joined(tree, [tree.hdu(part) for part in parts], image)
    return replace(frame, planes=planes, origin=origin_of(image.header))


def _joined(tree: Tree, hdus: list[Any], image: Plane) -> Plane:
    """One mask of the several among which more than 31 planes are spread; at most 63 planes."""
    names = [name for hdu in hdus for key, name in hdu.header.items() if key.startswith("MSKN")]
    if len(names) > 63:
        raise FormatError(f"{tree.path}: has {len(names)} mask planes; at most 63 can be held")
    array, header, count = np.zeros(image.array.shape, np.int64), fits.Header(), 0
    for hdu in hdus:
        values = np.asarray(hdu.data).astype(np.int64)
        for key, name in [card for card in hdu.header.items() if card[0].startswith("MSKN")]:
            array |= (values >> int(key[4:]) & 1) << count
            header[f"MSKN{count:04d}"] = name
            count += 1
    return Plane(array, header, tree.path)


def _of_json(source: FrameSource, tree: Tree) -> Frame:
    root, planes = tree.root, {}
    for role in ("image", "variance"):
        if role in root:
            planes[role] = Plane(tree.array(root[role]["data"]), fits.Header(), source.path)
    if "mask" in root:
        planes["mask"] = _inline_mask(tree, root["mask"])
    unit = root["image"]["data"].get("unit")
    y0, x0 = root["image"].get("yx0", (0, 0))
    if "sky_projection" in root:
        warnings.warn(
            f"{source.path}: the WCS, which is in the form of the AST library, is left out; write the image as FITS",
            PsfMatchWarning, stacklevel=6,
        )  # fmt: skip
    return Frame(planes=planes, unit=unit, origin=(int(y0), int(x0)))


def _inline_mask(tree: Tree, node: Mapping[str, Any]) -> Plane:
    """A mask in JSON, whose arrays are those that FITS would have: planes one by one from the first bit on."""
    header, per_array = fits.Header(), 31
    arrays: list[NDArray[Any]] = [tree.array(part).astype(np.int64) for part in node["data"]]
    whole = np.zeros(arrays[0].shape, np.int64)
    for number, name in enumerate(str(plane["name"]) for plane in node["planes"] if plane is not None):
        whole |= (arrays[number // per_array] >> number % per_array & 1) << number
        header[f"MSKN{number:04d}"] = name
    return Plane(whole, header, tree.path)


def _psf(tree: Tree) -> PSF | None:
    try:
        return psf_from_tree(tree)
    except (PsfMatchError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if str(tree.path) in str(error) else f"{tree.path}: its PSF cannot be read ({error!r})"
        warnings.warn(f"{reason}; the exposure is read without its PSF", PsfMatchWarning, stacklevel=7)
        return None


def _meta(root: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata, and what is known of the observation, as far as it is numbers and texts."""
    found = dict(_scalars(root.get("metadata") or {}))
    found.update(_scalars(root.get("obs_info") or {}))
    if isinstance(root.get("band"), str):
        found["band"] = root["band"]
    return {key: value for key, value in found.items() if not key.startswith("_")}


def _scalars(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in node.items() if isinstance(value, bool | int | float | str))


FORMAT = FrameFormat(
    name="lsst-images", title="images of lsst.images", recognises=_recognises, read=_read, mask="rubin"
)
