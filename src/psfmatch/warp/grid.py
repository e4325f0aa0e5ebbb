"""The pixels of the sky that exposures are warped to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray, no_unit
from psfmatch.warp.transform import celestial
from psfmatch.wcs import cut_wcs, header_wcs

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from astropy.wcs.wcsapi import BaseHighLevelWCS

__all__ = ["Grid", "outline"]

ARCSEC = 3600.0
WIDEST = 0.5  # cosine of the angle to the exposures


@dataclass(frozen=True, eq=False)
class Grid:
    """A celestial WCS, and so many rows and columns of its pixels.

    Parameters
    ----------
    wcs : astropy.wcs.WCS, or any WCS with astropy's common interface (APE 14)
        Of two pixel axes and the sky; the first pixel is (0, 0).
    shape : (int, int)
        Rows and columns.

    Raises
    ------
    InputError
        If the WCS is of another kind, or cannot be inverted, or there are no pixels.
    """

    wcs: BaseHighLevelWCS
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        celestial(self.wcs)
        ny, nx = self.shape
        object.__setattr__(self, "shape", Box.from_shape((ny, nx)).shape)

    @classmethod
    def auto(cls, exposures: Sequence[Exposure], *, pixel_scale: float | None = None) -> Grid:
        """The least grid that holds all exposures: gnomonic (TAN), north up and east to the left.

        It touches the sphere at the mean of their centres.

        Parameters
        ----------
        exposures : sequence of Exposure
            Those without a WCS are passed over.
        pixel_scale : float, optional
            Arcseconds a pixel; default the median of the exposures'.

        Raises
        ------
        InputError
            If no exposure has a WCS, or they lie more than 60 degrees from their mean position.
        """
        placed = [exposure for exposure in exposures if exposure.wcs is not None]
        if not placed:
            raise InputError(f"none of {len(exposures)} exposures has a WCS; a grid needs one that has")
        middles = [Box.from_shape(exposure.shape).center for exposure in placed]
        vectors = [
            _vectors(e.wcs, np.array([c.x]), np.array([c.y]))[:, 0] for e, c in zip(placed, middles, strict=True)
        ]
        mean = np.mean(vectors, axis=0)
        if (np.asarray(vectors) @ mean).min() < WIDEST * np.linalg.norm(mean):
            raise InputError("the exposures lie on more than one side of the sky; no gnomonic grid holds them")
        if pixel_scale is None:
            pixel_scale = float(np.median([_scale(e.wcs, c.x, c.y) for e, c in zip(placed, middles, strict=True)]))
        ra, dec = np.degrees(np.arctan2(mean[1], mean[0])), np.degrees(np.arctan2(mean[2], np.hypot(mean[0], mean[1])))
        wcs = _tangential(ra % 360.0, dec, (1.0, 1.0), pixel_scale, 0.0)
        corners = np.concatenate([_on(wcs, exposure) for exposure in placed], axis=1)
        low, high = corners.min(axis=1), corners.max(axis=1)
        wcs = _tangential(ra % 360.0, dec, (0.5 - low[0], 0.5 - low[1]), pixel_scale, 0.0)
        nx, ny = (max(1, int(np.ceil(extent - 1e-3))) for extent in high - low)
        return cls(wcs, (ny, nx))

    @classmethod
    def centered(
        cls, ra: float, dec: float, *, shape: tuple[int, int], pixel_scale: float, rotation: float = 0.0
    ) -> Grid:
        """A gnomonic (TAN) grid about a position, east 90 degrees counter-clockwise of north.

        Parameters
        ----------
        ra, dec : float
            Right ascension and declination (ICRS, degrees) of the middle of the grid.
        shape : (int, int)
            Rows and columns.
        pixel_scale : float
            Arcseconds a pixel.
        rotation : float
            Position angle of the columns' direction, +y: degrees from north through east.

        Raises
        ------
        InputError
            If a number is out of range.
        """
        center = Box.from_shape(shape).center
        return cls(_tangential(ra, dec, (center.x + 1.0, center.y + 1.0), pixel_scale, rotation), shape)

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Grid:
        """The WCS and the shape (NAXIS1, NAXIS2; ZNAXISn of a compressed image) of a FITS header.

        Raises
        ------
        InputError
            If the header has no celestial WCS of two axes, or no shape.
        """
        sides = [header.get(f"Z{name}", header.get(name)) for name in ("NAXIS2", "NAXIS1")]
        if None in sides:
            raise InputError("the header has no NAXIS1 and NAXIS2, the shape of the grid")
        try:
            wcs = header_wcs(header)
        except Exception as error:
            raise InputError(f"the header's WCS cannot be used ({error})") from error
        axes = [str(header.get(name)).upper() for name in ("CTYPE1", "CTYPE2")]
        if wcs.has_celestial and not all(any(axis.startswith(kind[:4]) for axis in axes) for kind in wcs.wcs.ctype):
            raise InputError(f"the header's first axes are {axes[0]} and {axes[1]}; give one with the sky on them")
        wcs.pixel_shape = int(sides[1]), int(sides[0])
        return cls(wcs, wcs.array_shape)

    @property
    def box(self) -> Box:
        """All pixels, from (0, 0)."""
        return Box.from_shape(self.shape)

    @property
    def pixel_scale(self) -> float:
        """Arcseconds a pixel: the square root of the area of the pixel in the middle."""
        return _scale(self.wcs, self.box.center.x, self.box.center.y)

    def cutout(self, box: Box) -> Grid:
        """The part inside ``box``, as a grid of its own: its first pixel is (0, 0).

        Raises
        ------
        InputError
            If the box reaches beyond the grid.
        """
        where = box.slices(self.box)
        return self if box == self.box else Grid(cut_wcs(self.wcs, where), box.shape)


def _tangential(ra: float, dec: float, crpix: tuple[float, float], pixel_scale: float, rotation: float) -> WCS:
    from astropy.wcs import WCS

    no_unit(pixel_scale, "pixel_scale", "arcseconds")
    for name, value in (("ra", ra), ("dec", dec), ("rotation", rotation)):
        no_unit(value, name, "degrees")
    if not (np.isfinite(pixel_scale) and pixel_scale > 0):
        raise InputError(f"pixel_scale={pixel_scale!r}: must be finite and positive, in arcseconds")
    if not (np.isfinite(ra) and -90.0 <= dec <= 90.0 and np.isfinite(rotation)):
        raise InputError(f"ra={ra!r}, dec={dec!r}, rotation={rotation!r}: give finite degrees, dec from -90 to 90")
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit, wcs.wcs.radesys = ("RA---TAN", "DEC--TAN"), ("deg", "deg"), "ICRS"
    wcs.wcs.crval, wcs.wcs.crpix = (ra, dec), crpix
    wcs.wcs.cd = pixel_scale / ARCSEC * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.set()
    return wcs


def outline(box: Box, count: int = 33) -> tuple[FloatArray, FloatArray]:
    """Positions x, y along the outer edges of the pixels of a box, ``count`` a side."""
    t = np.linspace(0.0, 1.0, count)
    x = box.x0 - 0.5 + box.shape[1] * np.concatenate([t, t, 0.0 * t, 0.0 * t + 1.0])
    y = box.y0 - 0.5 + box.shape[0] * np.concatenate([0.0 * t, 0.0 * t + 1.0, t, t])
    return x, y


def _on(wcs: WCS, exposure: Exposure) -> FloatArray:
    """The outline of an exposure in pixels of a WCS: shape (2, n)."""
    sky = celestial(exposure.wcs).pixel_to_world(*outline(Box.from_shape(exposure.shape)))
    return np.stack([np.asarray(v, float) for v in wcs.world_to_pixel(sky)])


def _vectors(wcs: BaseHighLevelWCS, x: FloatArray, y: FloatArray) -> FloatArray:
    """Unit vectors (3, n) in ICRS."""
    return np.asarray(celestial(wcs).pixel_to_world(x, y).icrs.cartesian.xyz.value)


def _scale(wcs: BaseHighLevelWCS, x: float, y: float) -> float:
    """Arcseconds a pixel: the root of the area of the pixel at a position."""
    right, left, up, down = _vectors(wcs, np.array([x + 0.5, x - 0.5, x, x]), np.array([y, y, y + 0.5, y - 0.5])).T
    area = float(np.linalg.norm(np.cross(right - left, up - down)))
    return float(np.degrees(np.sqrt(area)) * ARCSEC)
