"""Frames whose PSF jumps: regions, such as the detectors of a mosaic, each with a PSF and a kernel of its own.

A region is a label of an image of integers; the label 0 is none.  What lies in one region is never convolved with the
kernel of another: each is taken `alone`, its borders are treated as those of a frame, and the results are put together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError, PSFError
from psfmatch.exposure import Exposure, Mask, Planes
from psfmatch.geometry import Box, FloatArray, Position, as_positions, frozen, plain_array, resized
from psfmatch.kernel import MatchingKernel
from psfmatch.psf import PSF

__all__ = ["Regions", "RegionsKernel", "RegionsPSF", "alone", "assembled", "mosaic"]

Bools = NDArray[np.bool_]

MOST_PIXELS = 1 << 28
TOO_MANY = "more than 2^28 pixels: check the corners, or give `Regions` an array of labels"


@dataclass(frozen=True, eq=False)
class Regions:
    """Which pixels belong together.

    Parameters
    ----------
    labels : array of integers, shape (ny, nx)
        The region of each pixel, a number above 0; 0: none.
    box : Box, optional
        The pixels' place in the parent frame; default, the first is (0, 0).  Beyond it there is no region.

    Raises
    ------
    InputError
        If the labels are not integers, one is negative, all are 0, or they do not fit the box.
    """

    labels: NDArray[np.integer[Any]]
    box: Box = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        labels = plain_array(self.labels, "labels")
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise InputError(f"labels of shape {labels.shape} and dtype {labels.dtype}: give a 2-D image of integers")
        labels = frozen(labels.astype(labels.dtype.newbyteorder("="), copy=False))
        box = Box.from_shape((labels.shape[0], labels.shape[1])) if self.box is None else self.box
        if box.shape != labels.shape:
            raise InputError(f"labels of shape {labels.shape} do not fit {box}")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "box", box)
        if labels.min() < 0:
            raise InputError(f"the label {labels.min()} is negative; regions are numbers above 0, and 0 is none")
        if not self.boxes:
            raise InputError("all labels are 0: there is no region")

    @classmethod
    def from_polygons(cls, polygons: Mapping[int, ArrayLike] | Sequence[ArrayLike]) -> Regions:
        """A pixel belongs to the polygon that its centre lies in.

        Polygons with a common side share no pixel and leave none out.

        Parameters
        ----------
        polygons : sequence or mapping of arrays, shape (n, 2)
            Corners (x, y) in pixels of the parent frame, n >= 3, in either sense; they may be concave.  In a sequence
            they are the regions 1, 2, 3 ...; a mapping gives their numbers.

        Raises
        ------
        InputError
            If two polygons hold one pixel, or one holds none; they are named.
        """
        named = polygons if isinstance(polygons, Mapping) else {k + 1: p for k, p in enumerate(polygons)}
        parts = {int(label): _inside(polygon, f"polygon {label}") for label, polygon in named.items()}
        if not parts:
            raise InputError("no polygon was given")
        whole = _around([box for box, _ in parts.values()])
        if math.prod(whole.shape) > MOST_PIXELS:
            raise InputError(f"the polygons lie in {_size(whole.shape)} together, {TOO_MANY}")
        labels = np.zeros(whole.shape, np.int32)
        for label, (box, inside) in parts.items():
            here = labels[box.slices(whole)]
            if (inside & (here > 0)).any():
                other = int(here[inside & (here > 0)][0])
                raise InputError(
                    f"polygons {other} and {label} overlap in {np.count_nonzero(inside & (here == other))} pixels; "
                    "a pixel has one PSF: cut one of the two"
                )
            here[inside] = label
        return cls(labels, whole)

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The numbers of the regions, in rising order, with the least box that holds each."""
        from scipy.ndimage import find_objects

        numbers = np.unique(self.labels)
        numbers = numbers[numbers > 0]
        index = np.where(self.labels > 0, np.searchsorted(numbers, self.labels) + 1, 0)
        return {
            int(number): Box(self.box.y0 + y.start, self.box.x0 + x.start, self.box.y0 + y.stop, self.box.x0 + x.stop)
            for number, (y, x) in zip(numbers, find_objects(index), strict=True)
        }

    def at(self, *, x: ArrayLike, y: ArrayLike) -> NDArray[np.integer[Any]]:
        """The labels (n,) of the pixels in which positions lie; 0 beyond the box."""
        px, py = as_positions(x, y)
        ny, nx = self.box.shape
        column, row = (np.floor(p + 0.5) - o for p, o in ((px, self.box.x0), (py, self.box.y0)))
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
        found = np.zeros(px.size, self.labels.dtype)
        found[inside] = self.labels[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        return found

    def nearest(self, *, x: float, y: float) -> Position:
        """A position if it lies in a region, else the pixel of a region that is nearest to it."""
        if self.at(x=x, y=y)[0]:
            return Position(y, x)
        rows, columns = np.nonzero(self.labels)
        k = int(np.argmin(np.hypot(columns + (self.box.x0 - x), rows + (self.box.y0 - y))))
        return Position(float(self.box.y0 + rows[k]), float(self.box.x0 + columns[k]))

    def within(self, box: Box, label: int) -> Bools:
        """Which pixels of a box belong to a region."""
        out = np.zeros(box.shape, bool)
        common = box.overlap(self.box)
        if common is not None:
            out[common.slices(box)] = self.labels[common.slices(self.box)] == label
        return out

    def check(self, numbers: Iterable[int], what: str) -> None:
        """Raise InputError unless there is one of ``what`` for every region, and no other."""
        given = set(numbers)
        missing, unknown = sorted(set(self.boxes) - given), sorted(given - set(self.boxes))
        if missing:
            raise InputError(
                f"regions {_listed(missing)}: without a {what}; give one for each, or set their pixels to the label 0 "
                "(no data)"
            )
        if unknown:
            raise InputError(f"a {what} is given for the regions {_listed(unknown)}, which have no pixel; leave it out")


@dataclass(frozen=True, eq=False)
class RegionsPSF(PSF):
    """A PSF that jumps at borders: one model for each region.

    `psfmatch.match`, `psfmatch.convolve`, `psfmatch.warp` and `psfmatch.coadd` take an exposure that has it region by
    region.

    Parameters
    ----------
    regions : Regions
        Which pixels belong together.
    psfs : mapping of int to PSF
        The model of each region, in coordinates of the parent frame.

    Raises
    ------
    InputError
        If a region has no PSF, or a PSF no region.
    """

    regions: Regions
    psfs: Mapping[int, PSF]

    def __post_init__(self) -> None:
        psfs = {int(label): psf for label, psf in sorted(self.psfs.items())}
        self.regions.check(psfs, "PSF")
        for label, psf in psfs.items():
            if not isinstance(psf, PSF) or isinstance(psf, RegionsPSF):
                raise InputError(f"region {label}: psf of type {type(psf).__name__}; give a PSF model of one region")
        object.__setattr__(self, "psfs", MappingProxyType(psfs))

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionsPSF, (self.regions, dict(self.psfs))

    @property
    def shape(self) -> tuple[int, int]:
        shapes = np.array([psf.shape for psf in self.psfs.values()])
        return int(shapes[:, 0].max()), int(shapes[:, 1].max())

    @property
    def resizable(self) -> bool:
        return all(psf.resizable for psf in self.psfs.values())

    @property
    def smooth(self) -> bool:
        return False

    @property
    def field(self) -> Box:
        return self.regions.box

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        """As of every `PSF`: those of the region in whose pixels a position lies.

        Raises
        ------
        PSFError
            If a position lies in no region.
        """
        px, py = as_positions(x, y)
        labels = self.regions.at(x=px, y=py)
        if not labels.all():
            k = int(np.argmin(labels))
            raise PSFError(f"at x={px[k]:g}, y={py[k]:g} there is no region, and no PSF")
        out = np.empty((px.size, *self._shape(shape)))
        for label in np.unique(labels).tolist():
            here = labels == label
            out[here] = self.psfs[label].stamps(x=px[here], y=py[here], shape=out.shape[1:])
        return out


@dataclass(frozen=True, eq=False)
class RegionsKernel:
    """A kernel that jumps at borders: one for each region.

    Parameters
    ----------
    regions : Regions
        Which pixels belong together.
    kernels : mapping of int to MatchingKernel
        The kernel of each.  Regions that have none cannot be convolved, and become NO_DATA.

    Raises
    ------
    InputError
        If there is no kernel, or one for a region that has no pixel.
    """

    regions: Regions
    kernels: Mapping[int, MatchingKernel]

    def __post_init__(self) -> None:
        kernels = {int(label): kernel for label, kernel in sorted(self.kernels.items())}
        unknown = sorted(set(kernels) - set(self.regions.boxes))
        if unknown or not kernels:
            raise InputError(
                f"kernels for the regions {_listed(sorted(kernels))}; there are {list(self.regions.boxes)}"
            )
        object.__setattr__(self, "kernels", MappingProxyType(kernels))

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionsKernel, (self.regions, dict(self.kernels))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the largest."""
        shapes = np.array([kernel.shape for kernel in self.kernels.values()])
        return int(shapes[:, 0].max()), int(shapes[:, 1].max())

    @property
    def box(self) -> Box:
        """Where the kernels are meant to be used."""
        return self.regions.box

    def stamps(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The kernel at scattered positions, zero beyond its own border: shape (n_positions, ky, kx).

        Raises
        ------
        InputError
            If a position lies in no region that has a kernel.
        """
        px, py = as_positions(x, y)
        labels = self.regions.at(x=px, y=py)
        out = np.empty((px.size, *self.shape))
        for label in np.unique(labels).tolist():
            here = labels == label
            if label not in self.kernels:
                raise InputError(f"at x={px[here][0]:g}, y={py[here][0]:g} there is no region that has a kernel")
            out[here] = resized(self.kernels[label].stamps(x=px[here], y=py[here]), self.shape)
        return out

    def sums(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The sum of the kernel at scattered positions: shape (n_positions,)."""
        return np.asarray(self.stamps(x=x, y=y).sum(axis=(1, 2)))


def alone(exposure: Exposure, regions: Regions, label: int, *, least: tuple[int, int] = (1, 1)) -> Exposure | None:
    """One region of an exposure, in the least box that holds it.

    What else lies in the box is missing (NaN, infinite variance) and has the plane EDGE alone, so that neither its
    light nor its flags reach the region.  The PSF is the region's, where the exposure has a `RegionsPSF`.

    Parameters
    ----------
    exposure : Exposure
    regions : Regions
    label : int
    least : (int, int)
        Rows and columns that the box is to have at least, where the exposure has them.

    Returns
    -------
    Exposure or None
        None where the exposure holds no pixel of the region.
    """
    box = regions.boxes[label].overlap(exposure.box)
    if box is None:
        return None
    box = box.lengthened(least, exposure.box)
    part = exposure.cutout(box)
    psf = exposure.psf.psfs[label] if isinstance(exposure.psf, RegionsPSF) else exposure.psf
    outside = ~regions.within(box, label)
    if not outside.any():
        return part.replace(psf=psf)
    if outside.all():
        return None
    mask = part.mask.with_planes(("EDGE",))
    return part.replace(
        image=np.where(outside, np.nan, part.image),
        variance=None if part.variance is None else np.where(outside, np.inf, part.variance),
        mask=Mask(np.where(outside, mask.array.dtype.type(mask.bits("EDGE")), mask.array), mask.planes),
        psf=psf,
    )


def _blank(exposure: Exposure) -> Exposure:
    """The exposure without data: NaN, infinite variance, and NO_DATA beside the flags that it has."""
    mask = exposure.mask.with_planes(("NO_DATA",))
    return exposure.replace(
        image=np.full(exposure.shape, np.nan, exposure.image.dtype),
        variance=None if exposure.variance is None else np.full(exposure.shape, np.inf, exposure.variance.dtype),
        mask=Mask(mask.array | mask.array.dtype.type(mask.bits("NO_DATA")), mask.planes),
    )


def assembled(template: Exposure, parts: Iterable[tuple[Exposure, Bools]], out: Planes | None = None) -> Exposure:
    """Exposures put together on the template's box, without data where none has any.

    Parameters
    ----------
    template : Exposure
        All but the pixels; with the planes of the parts.
    parts : iterable of (Exposure, array of bool)
        With the pixels of each that are taken.
    out : Planes, optional
        What to fill.
    """
    empty = _blank(template)
    planes = Planes(*(None if p is None else p.copy() for p in (empty.image, empty.variance, empty.mask.array)))
    if out is not None:
        for plane, start in zip(out, planes, strict=True):
            if plane is not None:
                plane[...] = start
        planes = out
    for part, taken in parts:
        here = part.box.slices(template.box)
        for plane, values in zip(planes, Planes(part.image, part.variance, part.mask.array), strict=True):
            if plane is not None:
                plane[here][taken] = values[taken]
    return template.replace(image=planes.image, variance=planes.variance, mask=Mask(planes.mask, empty.mask.planes))


def mosaic(exposures: Sequence[Exposure], *, wcs: Any = None) -> Exposure:
    """The exposures of several detectors, which lie in one parent frame, as one with a `RegionsPSF`.

    The pixels of an exposure that are not flagged NO_DATA, and the holes among them, are a region, numbered as the
    exposures are: 1, 2, 3 ...  What lies between the regions is NaN, of infinite variance and NO_DATA.

    Parameters
    ----------
    exposures : sequence of Exposure
        Their boxes say where they lie.  Each with a PSF model, in coordinates of the parent frame.
    wcs : astropy.wcs.WCS, optional
        Of the mosaic's pixels, from the lower left corner of all boxes.

    Returns
    -------
    Exposure
        On the least box that holds all; unit and meta data are the first exposure's.

    Raises
    ------
    InputError
        If two exposures have one pixel, one has no PSF or another unit, or only some have a variance.
    """
    from scipy.ndimage import binary_fill_holes

    if not exposures:
        raise InputError("no exposure was given")
    if len({exposure.unit for exposure in exposures}) > 1 or len({e.variance is None for e in exposures}) > 1:
        raise InputError("the exposures of a mosaic must have one unit, and all a variance or none")
    box = _around([exposure.box for exposure in exposures])
    names = dict.fromkeys(name for exposure in exposures for name in exposure.mask.planes)
    planes = Mask(np.zeros((1, 1), np.int64)).with_planes([*names, "NO_DATA"]).planes
    labels, flags = np.zeros(box.shape, np.int32), np.full(box.shape, 1 << planes["NO_DATA"], np.int64)
    image = np.full(box.shape, np.nan, np.result_type(*(e.image.dtype for e in exposures)))
    noises = [exposure.variance for exposure in exposures if exposure.variance is not None]
    variance = np.full(box.shape, np.inf, np.result_type(*(noise.dtype for noise in noises))) if noises else None
    for number, exposure in enumerate(exposures, 1):
        if exposure.psf is None:
            raise InputError(f"exposure {number} of the mosaic has no PSF model; give it its psf")
        here, own = exposure.box.slices(box), binary_fill_holes(~exposure.mask.any_of("NO_DATA"))
        if (own & (labels[here] > 0)).any():
            other = int(labels[here][own & (labels[here] > 0)][0])
            raise InputError(
                f"exposures {other} and {number} of the mosaic overlap; flag the pixels of one of them NO_DATA"
            )
        labels[here][own] = number
        image[here][own] = exposure.image[own]
        noise = exposure.variance
        if variance is not None and noise is not None:
            variance[here][own] = noise[own]
        own_flags = np.zeros(exposure.shape, np.int64)
        for name, bit in exposure.mask.planes.items():
            own_flags |= ((exposure.mask.array >> bit) & 1).astype(np.int64) << planes[name]
        flags[here][own] = own_flags[own]
    psfs = {k: e.psf for k, e in enumerate(exposures, 1) if e.psf is not None and (labels == k).any()}
    dtype = np.int32 if max(planes.values()) < 31 else np.int64
    return Exposure(
        image, variance=variance, mask=Mask(flags.astype(dtype), planes), box=box,
        psf=RegionsPSF(Regions(labels, box), psfs), wcs=wcs, unit=exposures[0].unit, meta=exposures[0].meta,
    )  # fmt: skip


def _inside(polygon: ArrayLike, name: str) -> tuple[Box, Bools]:
    """The pixels whose centres lie in a polygon: an odd number of its sides is crossed on the way to the right."""
    corners = plain_array(polygon, name, float)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise InputError(f"{name} of shape {corners.shape}: give three or more finite corners (x, y)")
    (x0, y0), (x1, y1) = np.floor(corners.min(axis=0)).tolist(), (np.ceil(corners.max(axis=0)) + 1).tolist()
    if not (y1 - y0) * (x1 - x0) <= MOST_PIXELS:
        raise InputError(f"{name} reaches over {_size((y1 - y0, x1 - x0))}, {TOO_MANY}")
    box = Box(int(y0), int(x0), int(y1), int(x1))
    y, x = np.arange(box.y0, box.y1)[:, None], np.arange(box.x0, box.x1)[None, :]
    inside = np.zeros(box.shape, bool)
    for side in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        (ax, ay), (bx, by) = sorted((c.tolist() for c in side), key=lambda c: (c[1], c[0]))  # one sum for both senses
        rows = (ay <= y) & (y < by)
        if rows.any():
            inside ^= rows & (x < ax + (y - ay) * ((bx - ax) / (by - ay)))
    if not inside.any():
        raise InputError(f"{name}: holds the centre of no pixel; its corners are x, y in pixels")
    return box, inside


def _size(shape: tuple[float, float]) -> str:
    return f"{shape[1]:.0f} x {shape[0]:.0f} px"


def _around(boxes: Iterable[Box]) -> Box:
    """The least box that holds all of some."""
    y0, x0, y1, x1 = np.array([(b.y0, b.x0, b.y1, b.x1) for b in boxes]).T
    return Box(int(y0.min()), int(x0.min()), int(y1.max()), int(x1.max()))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
