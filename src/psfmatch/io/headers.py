"""Header cards as ``Exposure.meta``, unit, WCS and box, and back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from psfmatch.errors import PsfMatchWarning
from psfmatch.geometry import Box
from psfmatch.io.fits import quiet
from psfmatch.wcs import check_wcs, header_wcs

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["box_cards", "meta_of", "origin_of", "put_cards", "unit_of", "wcs_cards", "wcs_of"]

STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|NEXTEND|PCOUNT|GCOUNT|GROUPS|TFIELDS|T(TYPE|FORM|DIM|UNIT|NULL|SCAL|ZERO)\d+"
    r"|THEAP|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|EXTNAME|EXTVER|EXTLEVEL|EXTTYPE|INHERIT|BUNIT|LTV\d|LTM\d_\d|MP_.*|FZ.*|"
    r"Z(IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0|SIMPLE|TENSION|EXTEND|PCOUNT|GCOUNT|"
    r"HECKSUM|DATASUM|BLANK|SCALE|ZERO|MASKCMP|BLOCKED)|BOX[XY][01]|END|"
    # where afw and lsst.images find the parts of their files
    r"EXPINFO_V|AR_HDU|(HIERARCH )?ARCHIVE_ID_\w+|(PSF|SKYWCS|PHOTOCALIB|FILTER|DETECTOR|TRANSMISSIONCURVE|SUMMARYSTATS"
    r"|APCORRMAP|COADDINPUTS|VALIDPOLYGON)_ID|FMTVER|(INDX|JSON)(ADDR|SIZE)|DATAMODL|MSK[NMD]\d{4}|EXTTYPE"
    r"|(CTYPE|CRPIX|CRVAL|CUNIT)[12]A|PSFMATCH_PROVENANCE"
)
OWN = re.compile(r"PSFMATCH|OUTCOME|PSFMODEL|Q(RESID|MAXRE|EEERR|NGAIN|NEGFL|KSUM)[MW]")
WORLD = re.compile(
    r"(WCSAXES|WCSNAME|C(TYPE|UNIT|RVAL|RPIX|DELT|ROTA|RDER|SYER)\d|(CD|PC)(0?\d_0?\d|00\d00\d)|P[VS]0?\d_\d+|PROJP\d"
    r"|RADE(SYS|CSYS)|EQUINOX|L(ON|AT)POLE|[AB]P?_(ORDER|DMAX|\d_\d)|C[PQ](DIS|ERR)\d|D[PQ]\d.*|D2IM.*"
    r"|AXISCORR|MJDREF[IF]?|WAT\d_\d{3})[A-Z]?"
    # of the pixels of a scanned plate
    r"|AMD[XY]\d+|CNPIX[12]|PPO\d|[XY]PIXELSZ|PLT(RA[HMS]|DEC(SN|[DMS]))"
)
FRAME = re.compile(r"RADE(SYS|CSYS)|EQUINOX")
MANY = ("COMMENT", "HISTORY")


def meta_of(*headers: fits.Header, without_world: bool) -> dict[str, Any]:
    """The cards of the headers, later ones first in rank, without what describes the file itself.

    ``COMMENT`` and ``HISTORY`` cards become one text, a line each.
    """
    meta: dict[str, Any] = {}
    for header in headers:
        texts: dict[str, list[str]] = {}
        for card in header.cards:
            try:
                key, value = card.keyword, card.value
            except Exception:  # a card that breaks the standard is worth no exposure
                continue
            if not key or STRUCTURE.fullmatch(key) or OWN.fullmatch(key):
                continue
            if without_world and WORLD.fullmatch(key):
                continue
            value = None if isinstance(value, fits.card.Undefined) else value
            if key in MANY:
                texts.setdefault(key, []).append("" if value is None else str(value))
            else:
                meta[key] = value
        for key, lines in texts.items():
            before = [meta[key]] if key in meta else []
            meta[key] = "\n".join([*before, *lines])
    return meta


def put_cards(header: fits.Header, meta: Mapping[str, Any], *, prefix: str = "") -> None:
    """Write a mapping as cards; what FITS cannot hold is left out with one warning that lists it.

    Cards that describe a file, such as NAXIS1, describe another one, and are passed over.
    """
    wanted = {key: value for key, value in meta.items() if prefix or not STRUCTURE.fullmatch(str(key).upper())}
    lost = [str(key) for key, value in wanted.items() if not _put(header, prefix + str(key), value)]
    if lost:
        warnings.warn(f"FITS cannot hold these cards, left out: {', '.join(lost)}", PsfMatchWarning, stacklevel=3)


def _put(header: fits.Header, key: str, value: Any) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    if not (value is None or isinstance(value, bool | int | float | complex | str)):
        return False
    key = key.upper()
    try:
        if key in MANY:
            for line in str(value).split("\n"):
                header.add_comment(line) if key == "COMMENT" else header.add_history(line)
            return True
        plain = re.fullmatch(r"[A-Z0-9_-]{1,8}", key) is not None
        with quiet(error=""):
            card = fits.Card(key if plain else f"HIERARCH {key}", value)
            card.image  # noqa: B018  (formats the card: what does not fit fails here)
            header.set(card.keyword if plain else f"HIERARCH {key}", value)
    except (ValueError, TypeError, fits.VerifyError, AstropyWarning):
        return False
    return True


def unit_of(header: fits.Header) -> str | None:
    """What BUNIT says."""
    unit = header.get("BUNIT")
    return unit.strip() or None if isinstance(unit, str) else None


def wcs_of(header: fits.Header, hdus: fits.HDUList) -> WCS | None:
    """The celestial WCS of an image, or None; a broken one is worth a warning, not the exposure."""
    try:
        header = _inherited(header, hdus[0].header)
        if "CTYPE1" not in header:
            return None
        with quiet(error=r"(?s).*value was expected"):
            wcs = header_wcs(header, hdus)
            if wcs.naxis != 2:
                return None
            _check_usable(wcs, header)
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        warnings.warn(
            f"{hdus.filename()}: the WCS cannot be used and is left out ({reason})", PsfMatchWarning, stacklevel=4
        )
        return None
    return wcs


def _inherited(header: fits.Header, primary: fits.Header) -> fits.Header:
    """With the WCS of an empty primary, or its frame, where it has none and ``INHERIT`` (FITS 4.0, section 4.4.2.6)."""
    if header.get("INHERIT") is not True or primary.get("NAXIS") != 0:
        return header
    wanted = FRAME if "CTYPE1" in header else WORLD
    if any(wanted.fullmatch(key) for key in header):
        return header
    return fits.Header([*header.cards, *(card for card in primary.cards if wanted.fullmatch(card.keyword))])


def _check_usable(wcs: WCS, header: fits.Header) -> None:
    """As `check_wcs`; and astropy takes a matrix of zeros for one of one degree a pixel."""
    matrix = [header[f"CD{i}_{j}"] for i in (1, 2) for j in (1, 2) if f"CD{i}_{j}" in header]
    if matrix and not any(matrix):
        raise ValueError("its linear matrix is singular")
    check_wcs(wcs)
    wcs.pixel_to_world_values(0.0, 0.0)


def wcs_cards(wcs: WCS) -> fits.Header:
    """The WCS as cards; none, with a warning, where it is no FITS WCS."""
    if not hasattr(wcs, "to_header"):
        warnings.warn(
            f"a WCS of type {type(wcs).__name__} cannot be stored in FITS, and is left out; give the exposure one that "
            "can, such as the header of gwcs' to_fits_sip()",
            PsfMatchWarning,
            stacklevel=4,
        )
        return fits.Header()
    if wcs.cpdis1 or wcs.cpdis2 or wcs.det2im1 or wcs.det2im2:
        warnings.warn("the WCS has distortion tables, which are not written", PsfMatchWarning, stacklevel=3)
    with quiet():
        return wcs.to_header(relax=True)


def box_cards(box: Box) -> dict[str, int]:
    """The box as cards: our own, and IRAF's offsets (LTV1 = -x0), which Rubin's software reads."""
    return {"BOXX0": box.x0, "BOXY0": box.y0, "BOXX1": box.x1, "BOXY1": box.y1, "LTV1": -box.x0, "LTV2": -box.y0}


def origin_of(header: fits.Header) -> tuple[int, int]:
    """(y0, x0) of the first pixel in the parent frame: from our cards, the WCS named A, or IRAF's LTV1 and LTV2."""
    origin = []
    for axis, own in ((2, "BOXY0"), (1, "BOXX0")):
        named = header.get(f"CTYPE{axis}A") == "LINEAR" and header.get(f"CRPIX{axis}A", 1.0) == 1.0
        value = header.get(own, header.get(f"CRVAL{axis}A") if named else None)
        if value is None:
            value = -header.get(f"LTV{axis}", 0) if header.get(f"LTM{axis}_{axis}", 1.0) == 1.0 else 0
        origin.append(int(value) if isinstance(value, int | float) and float(value).is_integer() else 0)
    return origin[0], origin[1]
