"""An exposure: image, variance and mask on one box of pixels, with its PSF, WCS and whatever else it carries."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError, PSFError, check_type
from psfmatch.geometry import Box, FloatArray, as_reals, frozen, masked_pixels, plain_array
from psfmatch.models import as_psf
from psfmatch.nddata import (
    Uncertainty,
    negatives,
    planes_of_text,
    text_of_planes,
    uncertainty_of,
    unit_name,
    unit_of,
    variance_factor,
    variance_of,
)
from psfmatch.notebook import card, thumbnail
from psfmatch.provenance import IN_MEMORY, FileState, History
from psfmatch.psf import PSF, words_of_psf
from psfmatch.wcs import check_wcs, cut_wcs

if TYPE_CHECKING:
    from astropy.nddata import CCDData, NDData

__all__ = ["MASK_PLANES", "Exposure", "Mask", "Planes", "renewed"]

T = TypeVar("T")

MASK_PLANES: Mapping[str, int] = MappingProxyType(
    {
        "BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4,
        "DETECTED": 5, "DETECTED_NEGATIVE": 6, "SUSPECT": 7, "NO_DATA": 8,
    }
)  # fmt: skip
MADE_IN_MEMORY = History((FileState(IN_MEMORY, 0, 0),))


@dataclass(frozen=True, eq=False)
class Mask:
    """Named bit planes.

    Parameters
    ----------
    array : array of integers, shape (ny, nx)
        Bit ``k`` of a pixel is plane ``k``; bits without a name are kept.  Byte order and memory maps: see `Exposure`.
        An array too narrow for its planes is replaced by a wider one.
    planes : mapping of str to int
        The bit of each named plane (default: Rubin's, `MASK_PLANES`).

    Raises
    ------
    InputError
        If the array is not of integers, or masked itself, or two planes share a bit.
    """

    array: NDArray[np.integer[Any]]
    planes: Mapping[str, int] = field(default_factory=lambda: MASK_PLANES)

    def __post_init__(self) -> None:
        array = plain_array(self.array, "mask")
        if array.dtype.kind not in "iu":
            raise InputError(
                f"mask of dtype {array.dtype}: mask planes are bits of integers; "
                "convert it (a boolean mask: Mask.from_bool)"
            )
        if array.ndim != 2:
            raise InputError(f"mask of shape {array.shape}: give a two-dimensional array")
        planes = {str(name): int(bit) for name, bit in self.planes.items()}
        bits = sorted(planes.values())
        if len(set(bits)) != len(bits) or (bits and not 0 <= bits[0] <= bits[-1] < 63):
            raise InputError(f"mask planes {planes}: every plane needs a bit of its own, 0 to 62")
        object.__setattr__(self, "array", frozen(_wide_enough(_native(array), max(bits, default=0))))
        object.__setattr__(self, "planes", MappingProxyType(planes))

    @classmethod
    def from_bool(cls, bad: ArrayLike, plane: str = "BAD") -> Mask:
        """A mask that has one plane set where ``bad`` is true."""
        flags = plain_array(bad, "mask", bool)
        return cls(np.where(flags, 1 << MASK_PLANES[plane], 0).astype(np.int32))

    def __reduce__(self) -> tuple[Any, ...]:
        return Mask, (np.asarray(self.array), dict(self.planes))

    def bits(self, *names: str) -> int:
        """The planes of these names as one integer.

        Raises
        ------
        InputError
            If there is no such plane.
        """
        value = 0
        for name in names:
            if name not in self.planes:
                raise InputError(f"no mask plane {name!r}; there are {', '.join(self.planes)}")
            value |= 1 << self.planes[name]
        return value

    def any_of(self, *names: str) -> NDArray[np.bool_]:
        """Where any of these planes is set; names that the mask lacks are set nowhere."""
        bits = self.bits(*(name for name in names if name in self.planes))
        return np.asarray((self.array & bits) != 0)

    def with_planes(self, names: Iterable[str]) -> Mask:
        """The mask with these planes added where it lacks them, each on a bit that no plane and no pixel uses."""
        missing = [name for name in names if name not in self.planes]
        if not missing:
            return self
        used = int(np.bitwise_or.reduce(_unsigned(self.array), axis=None))
        taken = {bit for bit in range(63) if used >> bit & 1} | set(self.planes.values())
        planes = dict(self.planes)
        for name in missing:
            wanted = MASK_PLANES.get(name, -1)
            planes[name] = wanted if wanted >= 0 and wanted not in taken else min(set(range(63)) - taken)
            taken.add(planes[name])
        return Mask(self.array, planes)

    def without(self, *names: str) -> Mask:
        """The mask with these planes set nowhere; names that it lacks are none."""
        bits = self.bits(*(name for name in names if name in self.planes))
        return Mask(self.array & ~self.array.dtype.type(bits), self.planes)

    def __repr__(self) -> str:
        used = [f"{name} {int(self.any_of(name).sum())}" for name in self.planes if self.any_of(name).any()]
        return f"Mask({self.array.shape[0]} x {self.array.shape[1]}, {', '.join(used) or 'nothing set'})"


class Planes(NamedTuple):
    """Planes as bare arrays of one shape (ny, nx): of NumPy, PyTorch or CuPy, or memory maps.

    Parameters
    ----------
    image : array of floats
        Pixel values.
    variance : array of floats, or None
        In the image's unit squared.
    mask : array of integers
        Bits of planes.
    """

    image: Any
    variance: Any
    mask: Any


@dataclass(frozen=True, eq=False)
class Exposure:
    """An image with what belongs to it.  ``Exposure(image)`` alone is enough.

    Parameters
    ----------
    image : array, shape (ny, nx)
        Pixel values.  Single and double precision are kept; half precision and integers of up to 16 bits become
        float32, all else float64.  NaN marks pixels without data.  Arrays are brought into the machine's byte order,
        but for ``numpy.memmap`` of floats, which stay in their file.
        Masked pixels of a masked array become NaN and get the plane BAD; an astropy ``Quantity`` gives its unit.
    variance : array, shape (ny, nx), optional
        Variance of every pixel, in the image's unit squared; not negative (infinity: no information).  Masked pixels as
        in the image; a ``Quantity`` is converted.
    mask : Mask or array of integers, optional
        Default: nothing set.
    box : Box, optional
        The pixels' place in the parent frame.  Default: the first pixel is (0, 0).
    psf : PSF or object, optional
        Whatever `psfmatch.models.as_psf` takes for a PSF.
        The model of the science PSF, in the coordinates of the parent frame.
    wcs : astropy.wcs.WCS, or any WCS with astropy's common interface (APE 14), optional
        Of two axes, in pixels of *this* image (the first pixel is 0, 0).
    unit : str or astropy.units.Unit, optional
        Of the image; kept as a text.
    meta : mapping, optional
        Whatever else is to be carried along: header cards, photometric calibration, filter, visit.
    history : History, optional
        The files that it was made from, and the steps so far; every step adds to it, and what is written tells it (see
        `psfmatch.read_provenance`).  Default: it was made in memory.

    Raises
    ------
    InputError
        If the planes do not have one two-dimensional shape with at least one pixel, the variance is negative, units
        contradict each other, or the WCS has other axes, or (one of FITS) numbers that no position follows from.
    """

    image: FloatArray
    variance: FloatArray | None = None
    mask: Mask = field(default=None)  # type: ignore[assignment]
    box: Box = field(default=None)  # type: ignore[assignment]
    psf: PSF | None = None
    wcs: Any = None
    unit: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    history: History = MADE_IN_MEMORY

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", unit_name(self.image, self.unit))
        image, missing = _plane(self.image, "image")
        shape = image.shape
        if min(shape) < 1:
            raise InputError(f"image of shape {shape} is empty")
        object.__setattr__(self, "image", image)
        if self.variance is not None:
            factor = variance_factor(self.variance, self.unit)
            variance, unknown = _plane(self.variance, "variance", factor)
            missing = unknown if missing is None else missing if unknown is None else missing | unknown
            if variance.shape != shape:
                raise InputError(f"variance of shape {variance.shape} does not fit the image of shape {shape}")
            negative = negatives(variance)
            if negative:
                raise InputError(
                    f"variance is negative in {negative} pixels (least {np.nanmin(variance):.3g}); "
                    "give the variance, with NaN or infinity where there is no information"
                )
            object.__setattr__(self, "variance", variance)
        mask: Any = np.broadcast_to(np.int32(0), shape) if self.mask is None else self.mask
        if not isinstance(mask, Mask):
            mask = Mask(mask)
        if mask.array.shape != shape:
            raise InputError(f"mask of shape {mask.array.shape} does not fit the image of shape {shape}")
        object.__setattr__(self, "mask", mask if missing is None else _flagged(mask, missing, "BAD"))
        box = Box.from_shape((shape[0], shape[1])) if self.box is None else self.box
        if box.shape != shape:
            raise InputError(f"{box} has shape {box.shape}, the image {shape}")
        object.__setattr__(self, "box", box)
        if isinstance(self.psf, str | PathLike):
            raise InputError(f"psf {os.fspath(self.psf)!r}: give a PSF model; psfmatch.read_psf reads files and words")
        if self.wcs is not None:
            check_wcs(self.wcs)
        if self.psf is not None:
            object.__setattr__(self, "psf", as_psf(self.psf, pixel_scale=self.pixel_scale, wcs=self.wcs))
        check_type(self.meta, Mapping, "meta", "a mapping such as {'FILTER': 'z'}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def pixel_scale(self) -> float | None:
        """Arcseconds a pixel (geometric mean at the reference point), or None without a celestial WCS."""
        if self.wcs is None or not getattr(self.wcs, "has_celestial", True):
            return None
        from astropy.wcs.utils import local_partial_pixel_derivatives, proj_plane_pixel_scales

        if hasattr(self.wcs, "celestial"):
            scales = np.asarray(proj_plane_pixel_scales(self.wcs.celestial), float)
            return float(np.sqrt(np.prod(scales)) * 3600.0)
        middle = Box.from_shape(self.shape).center
        low = getattr(self.wcs, "low_level_wcs", self.wcs)
        area = abs(np.linalg.det(local_partial_pixel_derivatives(low, middle.x, middle.y)))
        cosine = np.cos(np.radians(float(low.pixel_to_world_values(middle.x, middle.y)[1])))
        return float(np.sqrt(area * cosine) * 3600.0)

    def replace(self, **changes: Any) -> Exposure:
        """A new exposure with some of its fields changed.

        Its history has a step more, ``replace``, unless a history is given or nothing is changed that it tells.
        """
        new = dataclasses.replace(self, **changes)
        said = {
            str(name): _changed(new, name) for name in ("image", "variance", "mask", "psf", "wcs") if name in changes
        }
        if said and "history" not in changes:
            object.__setattr__(new, "history", self.history.then("replace", said))
        return new

    def cutout(self, box: Box) -> Exposure:
        """The part inside ``box`` (parent coordinates), which keeps its place in the parent frame.

        Raises
        ------
        InputError
            If the box reaches beyond the exposure.
        """
        where = box.slices(self.box)
        return self.replace(
            image=self.image[where],
            variance=None if self.variance is None else self.variance[where],
            mask=Mask(self.mask.array[where], self.mask.planes),
            box=box,
            wcs=None if self.wcs is None else cut_wcs(self.wcs, where),
        )

    @classmethod
    def from_nddata(cls, data: NDData, *, psf: PSF | None = None, box: Box | None = None) -> Exposure:
        """From astropy ``NDData`` or ``CCDData``, whatever kind of uncertainty it has.

        A boolean mask becomes the plane BAD; one of integers, or ``CCDData.flags`` where given, becomes the mask
        planes, named as ``meta["mask_planes"]``, a mapping, or the card MASKPLAN says.  ``data.psf``, a model or a
        two-dimensional stamp, becomes the PSF unless ``psf`` is given.

        Raises
        ------
        InputError
            If the data are no image, or the uncertainty is of no known kind or of another unit.
        """
        meta = dict(data.meta)
        named = planes_of_text(meta.pop("MASKPLAN", ""))
        planes = meta.pop("mask_planes", named or MASK_PLANES)
        name, text = meta.pop("UNITNAME", None), str(data.unit or "")
        unit = name if name and text == str(unit_of(name)) else text or None
        flags = getattr(data, "flags", None)
        mask = None
        if flags is not None or data.mask is not None:
            array = plain_array(data.mask if flags is None else flags, "mask")
            array = np.broadcast_to(array, np.shape(data.data))
            mask = Mask.from_bool(array) if array.dtype.kind == "b" else Mask(array, planes)
        psf = getattr(data, "psf", None) if psf is None else psf
        y0, x0 = (meta.pop(name, 0) for name in ("BOXY0", "BOXX0"))
        if box is None:
            box = Box.from_shape(np.shape(data.data), y0=y0, x0=x0)
        return cls(
            image=np.asarray(data.data), variance=variance_of(data), mask=mask, box=box, psf=psf,  # type: ignore[arg-type]
            wcs=getattr(data.wcs, "low_level_wcs", data.wcs), unit=unit, meta=meta,
        )  # fmt: skip

    def to_ccddata(self, *, uncertainty: Uncertainty = "variance") -> CCDData:
        """As ``CCDData``: all planes in ``flags``, ``mask`` where any is set.

        The PSF, where there is one, is realised at the centre.  What ``CCDData`` has no place for goes to its ``meta``
        as cards that its ``write`` takes: MASKPLAN, the planes' names and bits (``BAD=0 SAT=1``), BOXX0 and BOXY0, the
        origin of the box, and UNITNAME, the unit where astropy does not know it: ``CCDData`` is dimensionless then, as
        it is without a unit.

        Parameters
        ----------
        uncertainty : {"variance", "std", "ivar"}
            As ``VarianceUncertainty``, ``StdDevUncertainty`` or ``InverseVariance``.
        """
        from astropy.nddata import CCDData

        stamp = None
        if self.psf is not None:
            with suppress(PSFError):
                stamp = np.array(self.psf.stamps(x=self.box.center.x, y=self.box.center.y)[0])
        parts = self._nddata_parts(uncertainty)
        parts["meta"]["MASKPLAN"] = text_of_planes(self.mask.planes)
        data = CCDData(**parts, unit=unit_of(self.unit), mask=self.mask.array != 0, psf=stamp)
        data.flags = _copy(self.mask.array)
        return data

    def to_nddata(self, *, uncertainty: Uncertainty = "variance") -> NDData:
        """As ``NDData``, from which `from_nddata` makes the same exposure.

        The planes are the bits of ``mask`` (names in ``meta["mask_planes"]``), and ``psf`` is the model itself.

        Parameters
        ----------
        uncertainty : {"variance", "std", "ivar"}
            As in `to_ccddata`.
        """
        from astropy.nddata import NDData

        unit = None if self.unit is None else unit_of(self.unit)
        parts = self._nddata_parts(uncertainty)
        parts["meta"]["mask_planes"] = dict(self.mask.planes)
        return NDData(**parts, unit=unit, mask=_copy(self.mask.array), psf=self.psf)

    def _nddata_parts(self, uncertainty: Uncertainty) -> dict[str, Any]:
        variance = None if self.variance is None else _copy(self.variance)
        meta = {**self.meta, "BOXX0": self.box.x0, "BOXY0": self.box.y0}
        if self.unit and str(unit_of(self.unit)) != self.unit:
            meta["UNITNAME"] = self.unit
        return {
            "data": _copy(self.image),
            "uncertainty": uncertainty_of(variance, uncertainty),
            "wcs": self.wcs,
            "meta": meta,
        }

    def __repr__(self) -> str:
        return f"Exposure({', '.join(f'{name} {value}' if name else value for name, value in self._summary())})"

    def _summary(self) -> list[tuple[str, str]]:
        ny, nx = self.shape
        rows = [("", f"{ny} x {nx} {self.image.dtype.name}{f' in {self.unit}' if self.unit else ''}")]
        if (self.box.y0, self.box.x0) != (0, 0):
            rows.append(("from", f"y={self.box.y0}, x={self.box.x0}"))
        rows.append(("variance", "no" if self.variance is None else "yes"))
        rows.append(("mask", repr(self.mask).partition(", ")[2].rstrip(")")))
        rows.append(("PSF", "no" if self.psf is None else type(self.psf).__name__))
        scale = self.pixel_scale
        rows.append(("WCS", "no" if self.wcs is None else "yes" if scale is None else f"{scale:.4g} arcsec a pixel"))
        return rows

    def _repr_html_(self) -> str:
        """For notebooks: what there is, the pixels of each mask plane, and a thumbnail."""
        rows = [(name or "image", value) for name, value in self._summary() if name != "mask"]
        for name in self.mask.planes:
            if count := int(np.count_nonzero(self.mask.any_of(name))):
                rows.append((f"mask {name}", f"{count} px ({count / self.image.size:.2%})"))
        picture = thumbnail(self.image, self.mask.any_of("NO_DATA"))
        return card(
            "Exposure", rows, picture=picture, says=f"Thumbnail of an image of {self.shape[1]} x {self.shape[0]} px"
        )


def _unsigned(array: NDArray[np.integer[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """The same bits as numbers without a sign."""
    return array.view(array.dtype.str.replace("i", "u"))


def _wide_enough(array: NDArray[np.integer[Any]], bit: int) -> NDArray[np.integer[Any]]:
    """The array, or one of 32 or 64 bits, if it cannot hold this bit as a positive number."""
    if 1 << bit <= np.iinfo(array.dtype).max:
        return array
    return _unsigned(array).astype(np.int32 if bit < 31 and array.itemsize < 4 else np.int64)


def renewed(exposure: Exposure, planes: Planes | None = None, **fields: Any) -> Exposure:
    """A copy with other planes of the same shape and types, and other fields, none of which needs to be checked."""
    if planes is not None:
        mask = _copy_with(exposure.mask, array=frozen(planes.mask), planes=fields.pop("mask_planes"))
        variance = None if planes.variance is None else frozen(planes.variance)
        fields |= {"image": frozen(planes.image), "variance": variance, "mask": mask}
    return _copy_with(exposure, **fields)


def _copy_with(of: T, **fields: Any) -> T:
    new = object.__new__(type(of))
    new.__dict__.update(of.__dict__, **fields)
    return new


def _plane(values: ArrayLike, name: str, factor: float = 1.0) -> tuple[FloatArray, NDArray[np.bool_] | None]:
    """Values as floats, and which of them were masked and are NaN now; None where none was."""
    if hasattr(values, "uncertainty"):
        raise InputError(f"{name} of type {type(values).__name__}: Exposure.from_nddata takes all that is in it")
    missing = masked_pixels(values)
    array = as_reals(np.asarray(values) if isinstance(values, np.ndarray) else plain_array(values, name), name)
    if array.ndim != 2:
        raise InputError(f"{name} of shape {array.shape}: give a two-dimensional array")
    if factor != 1.0:
        array = array * factor
    if missing is not None:
        array = np.where(missing, array.dtype.type(np.nan), array)
    return frozen(_native(array)), missing


def _flagged(mask: Mask, where: NDArray[np.bool_], plane: str) -> Mask:
    """The mask with a plane set there, too."""
    wide = mask.with_planes([plane])
    return Mask(wide.array | np.where(where, wide.array.dtype.type(wide.bits(plane)), 0), wide.planes)


def _copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory, in the machine's byte order."""
    return np.array(array, array.dtype.newbyteorder("="))


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The array in the machine's byte order, or as it is where it is a ``numpy.memmap`` or a part of one."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return array if isinstance(base, np.memmap) else array.astype(array.dtype.newbyteorder("="), copy=False)


def _changed(exposure: Exposure, name: str) -> str:
    """What has become of a field, in words."""
    value = getattr(exposure, name)
    return "none" if value is None else words_of_psf(value) if name == "psf" else "changed"
