"""The conventions of other people's masks, as named planes.

======== ======================================================================================================
format   what a value means
======== ======================================================================================================
rubin    bits, named by ``MP_<plane>`` cards (without them Rubin's usual planes)
decam    DECam Community Pipeline: from PLVER V3.5 on a *code*, one a pixel (1 bad, 2 no value, 3 saturated,
         4 bleed trail, 5 cosmic ray, 6 low weight, 7 difference detection, 8 long streak); bits before
des      DESDM bits (BADPIX_*)
jwst     JWST and Roman: bit 0 "do not use" is BAD, bit 1 SAT, the others are kept as DQ<bit>
hst      HST bits (ACS, WFC3): saturation, cosmic rays, and BAD for what the pipelines do not use; warm pixels and
         CTE tails (bits 5, 6) are kept as DQ5, DQ6
plain    whatever is not zero is BAD; the bits are kept as BIT<bit>
======== ======================================================================================================

Planes come out on Rubin's bits wherever Rubin has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.exposure import MASK_PLANES, Mask

__all__ = ["mask_from"]

DECAM_CODES = {1: "BAD", 2: "NO_DATA", 3: "SAT", 4: "SAT", 5: "CR", 6: "SUSPECT", 7: "SUSPECT", 8: "SUSPECT"}
DECAM_BITS = {0: "BAD", 1: "SAT", 2: "INTRP", 4: "CR", 6: "SAT", 7: "SUSPECT"}
DES_BITS = {
    0: "BAD", 1: "SAT", 2: "INTRP", 3: "BAD", 4: "CR", 5: "STAR", 6: "SAT", 7: "SAT", 8: "SUSPECT", 9: "BAD",
    10: "SUSPECT", 11: "INTRP",
}  # fmt: skip
JWST_BITS = {0: "BAD", 1: "SAT"}
HST_BITS = {
    0: "BAD", 1: "BAD", 2: "BAD", 3: "BAD", 4: "BAD", 7: "BAD", 8: "SAT", 9: "BAD", 10: "SUSPECT", 11: "SAT",
    12: "CR", 13: "CR", 14: "SUSPECT",
}  # fmt: skip
CODES_SINCE = (3, 5)


def mask_from(array: NDArray[Any], header: fits.Header, *, path: Path, format: str | None = None) -> Mask:
    """A mask image as named planes, by the convention asked for or that of the header.

    Parameters
    ----------
    array : array of integers, shape (ny, nx)
        The mask as it is in the file.
    header : fits.Header
        Cards of the file and the HDU together.
    path : Path
        The file, for its name and for messages.
    format : str, optional
        One of the conventions in the module's table.

    Raises
    ------
    InputError
        If the mask is not of integers.
    """
    if array.dtype.kind not in "iu":
        raise InputError(f"{path}: the mask is of dtype {array.dtype}; a mask must be of integers, convert it")
    convention = format or _convention(header, path)
    if convention == "rubin":
        return _named(array, header)
    if convention == "decam" and _has_codes(header):
        return _from_codes(array, DECAM_CODES)
    if convention == "plain":
        return _from_unknown(array)
    tables = {"decam": DECAM_BITS, "des": DES_BITS, "jwst": JWST_BITS, "hst": HST_BITS}
    return _from_bits(array, tables[convention], rest="DQ")


def _convention(header: fits.Header, path: Path) -> str:
    name = str(header.get("EXTNAME", "")).strip().upper()
    telescope = str(header.get("TELESCOP", "")).strip().upper()
    if any(str(key).startswith("MP_") for key in header) or "PSFMATCH" in header:
        return "rubin"
    if telescope in ("JWST", "ROMAN") and name == "DQ":
        return "jwst"
    if telescope == "HST" and name == "DQ":
        return "hst"
    if ("PLVER" in header and "PROCTYPE" in header) or "_ood_" in path.name:
        return "decam"
    return {"MSK": "des", "MASK": "rubin"}.get(name, "plain")


def _has_codes(header: fits.Header) -> bool:
    version = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", "")).strip())
    return version is None or (int(version[1]), int(version[2])) >= CODES_SINCE


def _named(array: NDArray[Any], header: fits.Header) -> Mask:
    planes = {key[3:]: bit for key, bit in header.items() if key.startswith("MP_") and type(bit) is int}
    return Mask(array, planes or MASK_PLANES)


def _from_codes(array: NDArray[Any], table: Mapping[int, str]) -> Mask:
    """One code a pixel; a code that the table lacks means BAD."""
    out = np.where(array != 0, 1 << MASK_PLANES["BAD"], 0).astype(np.int32)
    for code, name in table.items():
        out[array == code] = 1 << MASK_PLANES[name]
    return Mask(out)


def _from_bits(array: NDArray[Any], table: Mapping[int, str], *, rest: str) -> Mask:
    """Each bit to the plane of the table; others become planes named ``<rest><bit>``."""
    flags = array.view(array.dtype.str.replace("i", "u"))
    used = int(np.bitwise_or.reduce(flags, axis=None))
    bits = [bit for bit in range(used.bit_length()) if used >> bit & 1]
    names = {bit: table.get(bit, f"{rest}{bit}") for bit in bits}
    planes = dict(MASK_PLANES)
    for name in names.values():
        planes.setdefault(name, max(planes.values()) + 1)
    out = np.zeros(array.shape, np.int64 if max(planes.values()) > 30 else np.int32)
    for bit, name in names.items():
        out[(flags >> bit) & 1 != 0] |= 1 << planes[name]
    return Mask(out, planes)


def _from_unknown(array: NDArray[Any]) -> Mask:
    """Whatever is not zero is BAD; the bits are kept, unless there is only the first."""
    bad = Mask.from_bool(array != 0)
    if not ((array != 0) & (array != 1)).any():
        return bad
    bits = _from_bits(array, {}, rest="BIT")
    return Mask(bits.array | bad.array, bits.planes)
