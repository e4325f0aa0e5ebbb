"""The conventions of other people's masks, as named planes.

Masks whose header names their planes are read by these names: Rubin's (``MP_<plane>`` cards), those of psfmatch, and
those of ``lsst.images`` (``MSKN`` cards).  For all others a `MaskConvention` says what a value means; `CONVENTIONS`
holds these, and a table in TOML, or a `MaskConvention` of your own, any other:

============ ==================================================================================================
convention   what a value means
============ ==================================================================================================
decam        DECam Community Pipeline from PLVER V3.5 on: a *code*, one a pixel
decam-bits   the same pipeline before V3.5: bits
des          DESDM: bits (BADPIX_*)
jwst, roman  bits: "do not use" is BAD, saturation SAT; the others keep their official names
hst, hst-ir  bits of ACS and WFC3 (and of WFC3's infrared channel): what the pipelines do not use is BAD
legacypipe   the Legacy Surveys' MASKBITS of a brick
bool         whatever is not zero is BAD
plain        the same, and the bits are kept as BIT<bit>
============ ==================================================================================================

Planes come out on Rubin's bits wherever Rubin has them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError, InputError
from psfmatch.exposure import MASK_PLANES, Mask
from psfmatch.geometry import plain_array
from psfmatch.io.files import existing_file

__all__ = ["CONVENTIONS", "RUBIN_NAMES", "MaskConvention", "mask_convention", "mask_from"]

CODES_SINCE = (3, 5)
LARGEST_MASK = 63
PLANE = re.compile(r"[A-Z][A-Z0-9_]*")
# the planes of lsst.images, by what Rubin called them before
RUBIN_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "SATURATED": "SAT", "INTERPOLATED": "INTRP", "COSMIC_RAY": "CR", "DETECTION_EDGE": "EDGE",
        "UNMASKED_NAN": "UNMASKEDNAN",
    }
)  # fmt: skip


@dataclass(frozen=True)
class MaskConvention:
    """What the values of a mask mean.

    Parameters
    ----------
    name : str
        For messages.
    kind : {"bits", "codes"}
        ``bits``: a value is a sum of powers of two, each a flag.  ``codes``: a value is one of several.
    planes : mapping of int to str
        The plane of each bit (counted from 0), or of each code.  Several may go to one plane.  ``BAD``, ``SAT``,
        ``CR``, ``NO_DATA``, ``INTRP`` and ``EDGE`` are what other steps understand (see `MASK_PLANES`).
    rest : str
        Bits that are not in the table become planes of this name with the bit's number.  Codes that are not in the
        table, but not zero, are BAD.
    any_is_bad : bool
        Of bits: a pixel with any of them is BAD, besides.

    Raises
    ------
    InputError
        If a kind, bit, code or name cannot be one.

    Examples
    --------
    >>> camera = MaskConvention("mycam", planes={0: "BAD", 3: "CR"})
    >>> camera.mask(np.array([[0, 8, 9]]))
    Mask(1 x 3, BAD 1, CR 2)
    """

    name: str
    kind: Literal["bits", "codes"] = "bits"
    planes: Mapping[int, str] = field(default_factory=dict)
    rest: str = "DQ"
    any_is_bad: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("bits", "codes"):
            raise InputError(f"mask convention {self.name}: kind {self.kind!r}: choose bits or codes")
        for value, plane in self.planes.items():
            if (
                not isinstance(value, int)
                or isinstance(value, bool)
                or not 0 <= value <= (63 if self.kind == "bits" else 2**63)
            ):
                what = "a bit is a number from 0 to 63" if self.kind == "bits" else "a code is a whole number"
                raise InputError(f"mask convention {self.name}: {value!r} = {plane!r}: {what}")
            if not isinstance(plane, str) or not PLANE.fullmatch(plane):
                raise InputError(
                    f"mask convention {self.name}: {value} = {plane!r}: name a plane in capitals, such as BAD"
                )
        object.__setattr__(self, "planes", MappingProxyType(dict(self.planes)))

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskConvention, (self.name, self.kind, dict(self.planes), self.rest, self.any_is_bad)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> MaskConvention:
        """The convention that a TOML file describes.

        ::

            extends = "jwst"      # optional: one of CONVENTIONS, whose table the one below adds to
            kind = "bits"         # or "codes"

            [planes]
            0 = "BAD"
            11 = "HOT"

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        FormatError
            If it is not TOML, or holds anything else.
        """
        file = existing_file(Path(path))
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            base = CONVENTIONS[table.pop("extends")] if "extends" in table else None
            planes = {int(value): plane for value, plane in table.pop("planes").items()}
            kind = table.pop("kind", base.kind if base else "bits")
            if table:
                raise ValueError(f"{', '.join(table)}: there are only extends, kind and [planes]")
            if base is not None and kind != base.kind:
                raise ValueError(f"{base.name} is a table of {base.kind}, and cannot be extended by {kind}")
            rest, bad = (base.rest, base.any_is_bad) if base else ("DQ", False)
            return cls(file.stem, kind, {**(base.planes if base else {}), **planes}, rest, bad)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:  # InputError is a ValueError
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(
                f'{file}: is no table of mask planes ({what}); it needs [planes] with 0 = "BAD"'
            ) from error

    def mask(self, array: NDArray[np.integer[Any]]) -> Mask:
        """A mask image as named planes.

        Raises
        ------
        InputError
            If a pixel is masked.
        """
        array = plain_array(array, "mask")
        return self._from_codes(array) if self.kind == "codes" else self._from_bits(array)

    def _from_codes(self, array: NDArray[Any]) -> Mask:
        planes = _with(self.planes.values())
        out = np.where(array != 0, 1 << planes["BAD"], 0).astype(_dtype(planes))
        for code, name in self.planes.items():
            out[array == code] = 1 << planes[name]
        return Mask(out, planes)

    def _from_bits(self, array: NDArray[Any]) -> Mask:
        flags = array.view(array.dtype.str.replace("i", "u"))
        used = int(np.bitwise_or.reduce(flags, axis=None))
        bits = [bit for bit in range(used.bit_length()) if used >> bit & 1]
        names = {bit: self.planes.get(bit, f"{self.rest}{bit}") for bit in bits}
        planes = _with(names.values())
        out = np.zeros(array.shape, _dtype(planes))
        for bit, name in names.items():
            out[(flags >> bit) & 1 != 0] |= 1 << planes[name]
        if self.any_is_bad:
            out[flags != 0] |= 1 << planes["BAD"]
        return Mask(out, planes)


def _with(names: Any) -> dict[str, int]:
    """Rubin's planes, and these."""
    planes = dict(MASK_PLANES)
    for name in names:
        planes.setdefault(name, max(planes.values()) + 1)
    if len(planes) > LARGEST_MASK:
        raise InputError(f"a mask of {len(planes)} planes; at most {LARGEST_MASK} can be held: let several go to one")
    return planes


def _dtype(planes: Mapping[str, int]) -> type[np.integer[Any]]:
    return np.int64 if max(planes.values()) > 30 else np.int32


def _bits(name: str, planes: Mapping[int, str]) -> MaskConvention:
    return MaskConvention(name, "bits", planes)


# https://jwst-pipeline.readthedocs.io/en/latest/jwst/references_general/references_general.html, and
# roman_datamodels.dqflags
STSCI = {
    0: "BAD", 1: "SAT", 2: "JUMP_DET", 3: "DROPOUT", 5: "PERSISTENCE", 6: "AD_FLOOR", 8: "UNRELIABLE_ERROR",
    9: "NON_SCIENCE", 10: "DEAD", 11: "HOT", 12: "WARM", 13: "LOW_QE", 15: "TELEGRAPH", 16: "NONLINEAR",
    17: "BAD_REF_PIXEL", 18: "NO_FLAT_FIELD", 19: "NO_GAIN_VALUE", 20: "NO_LIN_CORR", 21: "NO_SAT_CHECK",
    22: "UNRELIABLE_BIAS", 23: "UNRELIABLE_DARK", 24: "UNRELIABLE_SLOPE", 25: "UNRELIABLE_FLAT",
    30: "OTHER_BAD_PIXEL", 31: "REFERENCE_PIXEL",
}  # fmt: skip
# ACS and WFC3 Data Handbooks
HST = {
    0: "BAD", 1: "BAD", 2: "BAD", 3: "BAD", 4: "BAD", 5: "UNSTABLE", 6: "WARM", 7: "BAD", 8: "SAT", 9: "BAD",
    10: "SUSPECT", 11: "SAT", 12: "CR", 13: "CR", 14: "SUSPECT",
}  # fmt: skip
CONVENTIONS: Mapping[str, MaskConvention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            MaskConvention(
                "decam", "codes",
                {1: "BAD", 2: "NO_DATA", 3: "SAT", 4: "SAT", 5: "CR", 6: "SUSPECT", 7: "SUSPECT", 8: "SUSPECT"},
            ),
            _bits("decam-bits", {0: "BAD", 1: "SAT", 2: "INTRP", 4: "CR", 6: "SAT", 7: "SUSPECT"}),
            _bits(
                "des",
                {
                    0: "BAD", 1: "SAT", 2: "INTRP", 3: "BAD", 4: "CR", 5: "STAR", 6: "SAT", 7: "SAT", 8: "SUSPECT",
                    9: "BAD", 10: "SUSPECT", 11: "INTRP",
                },
            ),
            _bits(
                "jwst",
                {
                    **STSCI, 4: "OUTLIER", 7: "CHARGELOSS", 14: "RC", 26: "OPEN", 27: "ADJ_OPEN", 28: "FLUX_ESTIMATED",
                    29: "MSA_FAILED_OPEN",
                },
            ),
            _bits("roman", {**STSCI, 4: "GW_AFFECTED_DATA", 7: "OUTLIER"}),
            _bits("hst", HST),
            _bits("hst-ir", {**HST, 9: "BLOB", 11: "ZERO_READ_SIGNAL"}),
            _bits(
                "legacypipe",
                {
                    0: "NPRIMARY", 1: "BRIGHT", 2: "SATUR_G", 3: "SATUR_R", 4: "SATUR_Z", 5: "ALLMASK_G",
                    6: "ALLMASK_R", 7: "ALLMASK_Z", 8: "WISEM1", 9: "WISEM2", 10: "BAILOUT", 11: "MEDIUM",
                    12: "GALAXY", 13: "CLUSTER", 14: "SATUR_I", 15: "ALLMASK_I", 16: "SUB_BLOB",
                },
            ),
            MaskConvention("bool", "codes"),
            MaskConvention("plain", "bits", {}, "BIT", True),
        )
    }
)  # fmt: skip


def mask_convention(source: MaskConvention | str | os.PathLike[str]) -> MaskConvention:
    """A convention as it is; one of `CONVENTIONS` by its name; or the one that a TOML file describes.

    Parameters
    ----------
    source : MaskConvention, str or path
        See there.

    Returns
    -------
    MaskConvention
        What the values of a mask mean.

    Raises
    ------
    InputError
        If there is neither such a name nor such a file.
    """
    if isinstance(source, MaskConvention):
        return source
    if str(source) in CONVENTIONS:
        return CONVENTIONS[str(source)]
    if not Path(source).exists():
        raise InputError(
            f"mask convention {os.fspath(source)!r}: choose one of {', '.join(CONVENTIONS)}, or give a TOML file"
        )
    return MaskConvention.from_toml(source)


def mask_from(
    array: NDArray[Any], header: fits.Header, *, path: Path, convention: MaskConvention | str | None = None
) -> Mask:
    """A mask image as named planes, by the convention given or that of the header.

    Parameters
    ----------
    array : array of integers, shape (ny, nx)
        The mask as it is in the file.
    header : fits.Header
        Cards of the file and the HDU together.
    path : Path
        The file, for its name and for messages.
    convention : MaskConvention or str, optional
        The name of one of `CONVENTIONS`, or ``rubin``: planes that the header names, or Rubin's usual ones.

    Raises
    ------
    InputError
        If the mask is not of integers.
    """
    if array.dtype.kind not in "iu":
        raise InputError(f"{path}: the mask is of dtype {array.dtype}; a mask must be of integers, convert it")
    convention = convention or _convention(header, path)
    if convention == "rubin":
        return Mask(array, _named(header) or MASK_PLANES)
    if convention == "decam" and not _has_codes(header):
        convention = "decam-bits"
    table = convention if isinstance(convention, MaskConvention) else CONVENTIONS[convention]
    if table.name == "plain" and not ((array != 0) & (array != 1)).any():
        table = CONVENTIONS["bool"]
    return table.mask(array)


def _convention(header: fits.Header, path: Path) -> str:
    name = str(header.get("EXTNAME", "")).strip().upper()
    telescope = str(header.get("TELESCOP", "")).strip().upper()
    if _named(header) or "PSFMATCH" in header:
        return "rubin"
    if name == "DQ" and telescope in ("JWST", "ROMAN"):
        return telescope.lower()
    if name == "DQ" and telescope == "HST":
        infrared = "WFC3" in str(header.get("INSTRUME", "")) and str(header.get("DETECTOR", "")).strip() == "IR"
        return "hst-ir" if infrared else "hst"
    if ("PLVER" in header and "PROCTYPE" in header) or "_ood_" in path.name:
        return "decam"
    return {"MSK": "des", "MASK": "rubin"}.get(name, "plain")


def _has_codes(header: fits.Header) -> bool:
    version = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", "")).strip())
    return version is None or (int(version[1]), int(version[2])) >= CODES_SINCE


def _named(header: fits.Header) -> dict[str, int]:
    """The planes that the header names: ``MP_<plane> = bit``, or ``MSKN0003 = plane`` for bit 3."""
    planes: dict[str, int] = {}
    for card in header.cards:
        try:
            key, value = card.keyword, card.value
        except (fits.VerifyError, ValueError):  # a card that breaks the standard names nothing
            continue
        if key.startswith("MP_") and type(value) is int:
            planes[key[3:]] = value
        elif re.fullmatch(r"MSKN\d{4}", key) and isinstance(value, str):
            planes.setdefault(RUBIN_NAMES.get(value, value), int(key[4:]))
    return planes
