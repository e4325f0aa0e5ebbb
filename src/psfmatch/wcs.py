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
CARD = 80
MOST_AXES = HIGHEST_ORDER = 9  # every index has one digit
# What says where the pixels lie
PLACES = re.compile(
    r"WCSAXES|NAXIS|(CRPIX|CRVAL|CDELT|CROTA)[1-9]|(CD|PC)([1-9]_[1-9]|00[1-9]00[1-9])|PV[1-9]_\d{1,2}|PROJP\d"
    r"|(LON|LAT)POLE|[AB]P?_(ORDER|\d_\d)|(CP|CQ|D2IM)ERR[1-9]|AXISCORR"
)
LIMITS = {"NAXIS": MOST_AXES, "WCSAXES": MOST_AXES} | dict.fromkeys(
    ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"), HIGHEST_ORDER
)
DISTORTIONS = re.compile(r"(CP|CQ|D2IM)DIS[1-9]")
RECORDS = re.compile(r"(DP|D2IM)[1-9]")
LOOKUP_RECORD = re.compile(r"(NAXES|EXTVER|AXIS\.[12]): *[1-9](\.0*)?")
# What else there is, of which a value of another kind is as good as none
NUMBERS = re.compile(
    r"NAXIS[1-9]|(CRDER|CSYER)[1-9]|EQUINOX|EPOCH|MJD-(OBS|BEG|AVG|END)|MJDREF[IF]?|[BJ]EPOCH|OBSGEO-[XYZLBH]|[AB]P?_DMAX"
    r"|RESTFREQ|RESTFRQ|RESTWAV|VELREF|VELOSYS|VELANGL|ZSOURCE|RSUN_REF|DSUN_OBS|(CR|HG)L[NT]_OBS"
)
TEXTS = re.compile(
    r"(CTYPE|CUNIT)[1-9]|PS[1-9]_\d{1,2}|WCSNAME|RADESYS|RADECSYS|SPECSYS|SSYSOBS|SSYSSRC|DATE-(OBS|BEG|AVG|END)"
    r"|DATEREF|TIMESYS|TIMEUNIT|TREFPOS|TREFDIR|PLEPHEM|WAT\d_\d{3}"
)
ONE_TEXT = re.compile(r"= *'([^']|'')*' *(/.*)?")
PLATE = ("AMDX1", "AMDY1", "PLTRAH")
TYPES = ("CTYPE1", "CTYPE2")


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
    name = "header" if hdus is None else hdus.filename()
    if all(key in header for key in PLATE):
        warnings.warn(
            f"{name}: the polynomials of a scanned plate are not read, its approximate WCS is", PsfMatchWarning, 3
        )
    world = _world(header)
    if world.get("A_ORDER", 0) > 1 and (plain := [key for key in TYPES if world.get(key, "").endswith("-TAN")]):
        warnings.warn(f"{name}: SIP's polynomials are applied, though CTYPE does not say -SIP", PsfMatchWarning, 3)
        for key in plain:
            world[key] += "-SIP"
    wcs = WCS(world, fobj=hdus)
    return wcs.celestial if wcs.naxis != 2 else wcs


def _world(header: fits.Header) -> fits.Header:
    """The cards that wcslib is to see: of others, and of values of another kind, it dies, or reads what is not said."""
    from astropy.io import fits

    lines: dict[str, str] = {}
    for card in header.cards:
        try:
            name, value, image = card.rawkeyword, card.rawvalue, card.image
        except fits.VerifyError:
            name, value, image = card.keyword, None, ""
        if line := _line(name, value, image):
            lines[card.keyword] = line.ljust(CARD)  # of cards that say the same twice, the last
    return fits.Header.fromstring("".join(lines.values()))


def _line(name: str, value: object, image: str) -> str:
    """A card as wcslib is to see it; nothing, if it is not."""
    number, most = _number(value), LIMITS.get(name)
    places = PLACES.fullmatch(name)
    if places and (number is None or (most is not None and number not in range(most + 1))):
        said = " ".join(image.partition("/")[0].split()) or name
        raise InputError(f"{said}: give a number" if most is None else f"{said}: give an integer from 0 to {most}")
    if places or NUMBERS.fullmatch(name):
        return "" if number is None else f"{name:8}= {number!r:>20}".upper()
    if DISTORTIONS.fullmatch(name) and str(value).lower() != "lookup":
        raise InputError(f"{name} = {value!r}: distortions are read from SIP, TPV and lookup tables")
    text = TEXTS.fullmatch(name) or DISTORTIONS.fullmatch(name)
    text = text or (RECORDS.fullmatch(name) and LOOKUP_RECORD.fullmatch(str(value)))
    return f"{name:8}{image[8:]}" if text and len(image) == CARD and ONE_TEXT.fullmatch(image[8:]) else ""


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
    """The WCS of a part of the pixels."""
    from astropy.wcs import WCS
    from astropy.wcs.wcsapi import SlicedLowLevelWCS

    return wcs[where] if isinstance(wcs, WCS) else SlicedLowLevelWCS(getattr(wcs, "low_level_wcs", wcs), where)
