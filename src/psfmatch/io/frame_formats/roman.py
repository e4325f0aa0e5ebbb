"""Roman's images in ASDF: ``roman.data``, ``err`` and ``dq``, read with the ``asdf`` package alone.

The WCS, a gwcs, is kept as the FITS WCS (TAN-SIP) that follows it to 0.01 px; where the packages that it needs (gwcs,
asdf-astropy) are not installed, the exposure has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError, PsfMatchWarning
from psfmatch.io.asdf import open_asdf
from psfmatch.io.files import reason
from psfmatch.io.fits import native, quiet
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, Plane

__all__ = ["FORMAT"]

WCS_ERROR = 0.01  # px


def _recognises(source: FrameSource) -> bool:
    return source.head.startswith(b"#ASDF")


def _read(source: FrameSource) -> Frame:
    with open_asdf(source.path) as file:
        return _frame(source, file.tree.get("roman"))


def _frame(source: FrameSource, tree: Any) -> Frame:
    if tree is None or "data" not in tree:
        raise FormatError(f"{source.path}: is an ASDF file, but not of Roman: it has no roman.data")
    header = fits.Header({"TELESCOP": "ROMAN", "EXTNAME": "DQ"})
    names = {"image": "data", "error": "err", "mask": "dq"}
    arrays = {role: _array(tree[name]) for role, name in names.items() if name in tree}
    if arrays["image"].ndim != 2:
        raise FormatError(
            f"{source.path}: roman.data has {arrays['image'].ndim} axes; give a calibrated image (L2, L3)"
        )
    if "error" not in arrays and "var_rnoise" in tree:
        parts = [_array(tree[name]) for name in ("var_rnoise", "var_poisson", "var_flat") if name in tree]
        arrays["variance"] = np.sum(parts, axis=0)
    planes = {role: Plane(array, header, source.path) for role, array in arrays.items()}
    unit = getattr(tree["data"], "unit", None)
    meta = tree.get("meta", {})
    return Frame(
        planes=planes,
        unit=None if unit is None else str(unit),
        wcs=_wcs(meta.get("wcs"), arrays["image"].shape, source),
        meta=dict(_scalars(meta)),
        convention="roman",
    )


def _array(node: Any) -> NDArray[Any]:
    values = getattr(node, "value", node.get("value", node) if isinstance(node, Mapping) else node)
    return np.array(native(np.asarray(values)))


def _scalars(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and texts anywhere in the tree, ``instrument.optical_element`` and the like."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{key}", value.data if hasattr(value, "data") and isinstance(value, str) else value


def _wcs(wcs: Any, shape: tuple[int, int], source: FrameSource) -> Any:
    if wcs is None:
        return None
    try:
        from astropy.wcs import WCS

        box = ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5))
        with quiet(), warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of gwcs's own calls
            return WCS(wcs.to_fits_sip(bounding_box=box, max_pix_error=WCS_ERROR))
    except Exception as error:
        warnings.warn(
            f"{source.path}: the WCS cannot be used and is left out ({reason(error)}); gwcs and asdf-astropy are "
            "needed",
            PsfMatchWarning, stacklevel=6,
        )  # fmt: skip
        return None


FORMAT = FrameFormat(name="roman", title="Roman's images (ASDF)", recognises=_recognises, read=_read, mask="roman")
