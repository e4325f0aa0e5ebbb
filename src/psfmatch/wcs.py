"""World coordinates: from a header, checked, and of a part of the pixels."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import InputError, PsfMatchWarning

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.wcs import WCS

__all__ = ["check_wcs", "cut_wcs", "header_wcs"]

NARROWEST, CIRCLE = 1e-12, 360.0  # degrees
CARD, LONGEST_TEXT = 80, 67
MOST_AXES = HIGHEST_ORDER = 9  # every index has one digit
# What says where the pixels lie: numbers, of which some may be left open, and texts
PLACES = re.compile(
    r"WCSAXES|NAXIS|(CRPIX|CRVAL|CDELT|CROTA)[1-9]|(CD|PC)(0?[1-9]_0?[1-9]|00[1-9]00[1-9])|PV0?[1-9]_\d{1,3}|PROJP\d"
    r"|(LON|LAT)POLE|[AB]P?_(ORDER|\d_\d)|(CP|CQ|D2IM)ERR[1-9]|AXISCORR"
)
NEEDED = re.compile(r"(CRPIX|CRVAL|CDELT)[12]|(CD|PC)\d.*")
LIMITS = {"NAXIS": MOST_AXES, "WCSAXES": MOST_AXES} | dict.fromkeys(
    ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"), HIGHEST_ORDER
)
FRAMES = re.compile(r"(CTYPE|CUNIT)[1-9]|RADESYS|RADECSYS")
# wcslib dies of some of their numbers, and stops at a coefficient of zero
NOT_READ = re.compile(r".*-(TNX|ZPX|TAB)", re.IGNORECASE)
PROJECTED = re.compile(r"[A-Z]+-+[A-Z]{3}(-SIP)?")
DISTORTIONS = re.compile(r"(CP|CQ|D2IM)DIS[1-9]")
RECORDS = re.compile(r"(DP|D2IM)[1-9]")
LOOKUP_RECORD = re.compile(r"(NAXES: *2|AXIS\.[12]: *[12]|EXTVER: *\d{1,5})(\.0*)?")
# What else there is, of which a value of another kind is as good as none
NUMBERS = re.compile(
    r"NAXIS[1-9]|(CRDER|CSYER)[1-9]|EQUINOX|EPOCH|MJD-(OBS|BEG|AVG|END)|MJDREF[IF]?|[BJ]EPOCH|OBSGEO-[XYZLBH]|[AB]P?_DMAX"
    r"|[ABC]_RADIUS|B(LON|LAT|DIS)_OBS"
    r"|RESTFREQ|RESTFRQ|RESTWAV|VELREF|VELOSYS|VELANGL|ZSOURCE|RSUN_REF|DSUN_OBS|(CR|HG)L[NT]_OBS"
)
TEXTS = re.compile(
    r"WCSNAME|SPECSYS|SSYSOBS|SSYSSRC|DATE-(OBS|BEG|AVG|END)|DATEREF|TIMESYS|TIMEUNIT|TREFPOS|TREFDIR|PLEPHEM"
)
PLATE = ("CTYPE1", "AMDX1", "AMDY1", "PLTRAH")
TYPES = ("CTYPE1", "CTYPE2")
SCAMP = re.compile(r"PV[12]_0*([5-9]|\d\d)")
BROKEN = object()


def header_wcs(header: Mapping[str, Any], hdus: fits.HDUList | None = None) -> WCS:
    """The celestial WCS of a FITS header; that of all its axes, where none are celestial.

    Parameters
    ----------
    header : astropy.io.fits.Header or mapping
    hdus : astropy.io.fits.HDUList, optional
        Where distortion tables are looked for.

    Raises
    ------
    InputError
        If a card that places the pixels holds no number (astropy takes the default in its stead), or claims what no
        image has, or there is a distortion other than SIP (Shupe et al. 2005), TPV and lookup tables.
    ValueError, KeyError, MemoryError
        As astropy says it of a WCS that cannot be.
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    header = header if isinstance(header, fits.Header) else fits.Header(list(header.items()))
    world, notes = _world(header)
    if all(key in header for key in PLATE):
        notes.append("the polynomials of a scanned plate are not read, its approximate WCS is")
    # SCAMP of old left the polynomials of the image that it was given beside its own, which astropy prefers.
    if world.get("A_ORDER", 0) > 1 and not any(map(SCAMP.fullmatch, world)):
        kinds = {key: world.get(key, "") for key in TYPES}
        if odd := [f"{key} = {kind!r}" for key, kind in kinds.items() if not PROJECTED.fullmatch(kind)]:
            raise InputError(f"{odd[0]}: SIP's polynomials are of coordinates of the sky")
        plain = [key for key, kind in kinds.items() if kind.endswith("-TAN")]
        for key in plain:
            world[key] += "-SIP"
        notes += ["SIP's polynomials are applied, though CTYPE does not say -SIP"] if plain else []
    for note in notes:
        warnings.warn(f"{'header' if hdus is None else hdus.filename()}: {note}", PsfMatchWarning, stacklevel=3)
    wcs = WCS(world, fobj=hdus, naxis=2 if "A_ORDER" in world else None)  # SIP is of the first two axes
    return wcs.celestial if wcs.naxis != 2 else wcs


def _world(header: fits.Header) -> tuple[fits.Header, list[str]]:
    """The cards that wcslib is to see: of others, and of values of another kind, it dies, or reads what is not said.

    And what is odd about them.
    """
    from astropy.io import fits

    lines: dict[str, str] = {}
    notes = []
    for card in header.cards:
        try:
            name, value, image = card.rawkeyword, card.rawvalue, card.image
        except fits.VerifyError:
            name, value, image = card.keyword, BROKEN, ""
        if image.startswith("HIERARCH"):
            continue
        if isinstance(value, fits.card.Undefined):
            value = None
        if line := _line(name, value, image):
            if lines.get(card.keyword, line) != line and PLACES.fullmatch(name):
                notes.append(f"{name} stands there twice; the last is taken, {value!r}")
            lines[card.keyword] = line
    lines = {key: line for key, line in lines.items() if "." not in key or _distortion_of(key) in lines}
    return fits.Header.fromstring("".join(line.ljust(CARD) for line in lines.values())), notes


def _distortion_of(record: str) -> str:
    """CPDIS1 of DP1.NAXES, D2IMDIS2 of D2IM2.EXTVER."""
    name = record.partition(".")[0]
    return {"DP": "CPDIS", "D2IM": "D2IMDIS"}[name[:-1]] + name[-1]


def _line(name: str, value: object, image: str) -> str:
    """A card as wcslib is to see it; nothing, if it is not."""
    said = " ".join(image.partition("/")[0].split()) or name
    if PLACES.fullmatch(name):
        number, most = _number(value), LIMITS.get(name)
        if value is None and not NEEDED.fullmatch(name):
            return ""
        if number is None or (most is not None and number not in range(most + 1)):
            raise InputError(f"{said}: give a number" if most is None else f"{said}: give an integer from 0 to {most}")
        return f"{name:8}= {number!r:>20}".upper()
    if NUMBERS.fullmatch(name):
        number = _number(value)
        return "" if number is None else f"{name:8}= {number!r:>20}".upper()
    if DISTORTIONS.fullmatch(name) and str(value).strip().upper() not in ("LOOKUP", ""):
        raise InputError(f"{said}: distortions are read from SIP, TPV and lookup tables")
    quoted = str(value).replace("'", "''")
    text = isinstance(value, str) and len(quoted) <= LONGEST_TEXT and quoted.isascii() and quoted.isprintable()
    if FRAMES.fullmatch(name):
        unread = name.startswith("CTYPE") and bool(NOT_READ.match(quoted))
        if (unread or not text) and name[-1] in "3456789":  # of no image, which has two
            return ""
        if unread:
            raise InputError(f"{said}: such coordinates are not read; write them as TPV or SIP")
        if not text and value is not None:
            raise InputError(f"{said}: give a text")
    text = text and quoted.strip() != ""
    known = any(names.fullmatch(name) for names in (FRAMES, TEXTS, DISTORTIONS))
    known = known or bool(RECORDS.fullmatch(name) and LOOKUP_RECORD.fullmatch(quoted))
    return f"{name:8}= '{quoted:8}'" if text and known else ""


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def check_wcs(wcs: Any) -> None:
    """Raise `InputError` unless a WCS has the interface of APE 14 and two axes, and, of FITS, can be inverted."""
    if not hasattr(wcs, "pixel_to_world_values"):
        raise InputError(f"wcs of type {type(wcs).__name__}: give one with astropy's interface (APE 14)")
    from astropy.wcs import WCS

    low = getattr(wcs, "low_level_wcs", wcs)
    if (low.pixel_n_dim, low.world_n_dim) != (2, 2):
        axes = f"{low.pixel_n_dim} pixel and {low.world_n_dim} world axes"
        raise InputError(f"wcs of {axes}: give one of two (of a cube: wcs.celestial)")
    if not isinstance(low, WCS):
        return
    for name in ("crpix", "crval", *(("cd",) if low.wcs.has_cd() else ("cdelt", "pc"))):  # of CDELT beside CD it warns
        if not np.isfinite(numbers := np.asarray(getattr(low.wcs, name, 0.0))).all():
            raise InputError(f"wcs with {name.upper()} {numbers.tolist()}: give finite numbers")
    try:
        low.wcs.set()
    except ValueError as error:
        raise InputError(f"wcs: {str(error).strip().splitlines()[-1]}") from error
    matrix = low.pixel_scale_matrix
    if not (np.isfinite(matrix).all() and np.linalg.det(matrix)):
        raise InputError(f"wcs with the matrix {matrix.tolist()}: give one that can be inverted")
    widest, *_, narrowest = np.linalg.svd(matrix, compute_uv=False)
    if low.has_celestial and not (narrowest >= NARROWEST and widest <= CIRCLE):
        raise InputError(f"wcs with pixels of {narrowest:.3g} x {widest:.3g} degrees: give those of an image")


def cut_wcs(wcs: Any, where: tuple[slice, slice]) -> Any:
    """The WCS of a part of the pixels, from a first row and column to a last + 1."""
    from astropy.wcs import WCS
    from astropy.wcs.wcsapi import SlicedLowLevelWCS

    if not isinstance(wcs, WCS):
        return SlicedLowLevelWCS(getattr(wcs, "low_level_wcs", wcs), where)
    whole = wcs.deepcopy()
    whole.pixel_shape = None  # of another image, maybe; astropy cuts the slices to it
    part = whole[where]
    part.pixel_shape = tuple(one.stop - one.start for one in reversed(where))
    return part
