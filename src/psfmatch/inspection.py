"""What a file is, a PSF over its field, a frame and what is in it, or a kernel; and how it came to be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import FormatError, InputError, PSFError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray
from psfmatch.io import PSFFormat, PSFSource, psf_formats, read_exposure, read_kernel, read_provenance, read_psf
from psfmatch.io.psf_formats import recognised
from psfmatch.io.words import are_words
from psfmatch.kernel import MatchingKernel
from psfmatch.moments import adaptive_moments, fwhm
from psfmatch.provenance import Provenance
from psfmatch.psf import PSF
from psfmatch.regions import Regions, RegionsKernel, RegionsPSF
from psfmatch.stamp_noise import stamp_noise
from psfmatch.wings import missing_flux

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["FrameReport", "KernelReport", "PSFReport", "inspect_file", "inspect_psf"]

MARGIN = 0.02


@dataclass(frozen=True, eq=False)
class PSFReport:
    """A PSF on a mesh of positions over its field.

    Parameters
    ----------
    name : str
        Of the file or object.
    title : str
        What it is: the format, or the kind of object.
    psf : PSF
        The model.
    box : Box or None
        The field of the mesh; None: no field is known, or the PSF is constant.
    x, y : array, shape (n,)
        The mesh, rows first.
    stamps : array, shape (n, sy, sx)
        The PSF there.
    fwhm : array, shape (n,)
        Of the profile, in pixels.
    ellipticity, angle : array, shape (n,)
        ``1 - b/a``, and the direction of the long axis in degrees from +x towards +y, from adaptive moments; NaN where
        these do not converge.
    total : array, shape (n,)
        The sum of the stamp, of a source of unit flux.
    missing : array, shape (n,)
        The flux beyond the stamp relative to that in it, as its wings and its sum say.
    provenance : Provenance, optional
        How the file came to be, where psfmatch wrote it.
    """

    name: str
    title: str
    psf: PSF
    box: Box | None
    x: FloatArray
    y: FloatArray
    stamps: FloatArray
    fwhm: FloatArray
    ellipticity: FloatArray
    angle: FloatArray
    total: FloatArray
    missing: FloatArray
    provenance: Provenance | None = None

    @property
    def model(self) -> str:
        """The class of the model."""
        return type(self.psf).__name__

    @property
    def summary(self) -> dict[str, dict[str, float]]:
        """Least, median and largest of the figures over the mesh."""
        figures = {"fwhm": self.fwhm, "ellipticity": self.ellipticity, "total": self.total, "missing": self.missing}
        return {
            name: {"min": float(np.nanmin(v)), "median": float(np.nanmedian(v)), "max": float(np.nanmax(v))}
            if np.isfinite(v).any() else dict.fromkeys(("min", "median", "max"), np.nan)
            for name, v in figures.items()
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs."""
        box = None if self.box is None else [self.box.y0, self.box.x0, self.box.y1, self.box.x1]
        arrays = {name: getattr(self, name) for name in ("x", "y", "fwhm", "ellipticity", "angle", "total", "missing")}
        return {
            "kind": "psf", "name": self.name, "title": self.title, "model": self.model, "shape": self.psf.shape,
            "constant": self.psf.constant, "box": box, "summary": self.summary,
            "mesh": {name: values.tolist() for name, values in arrays.items()}, "provenance": _plain(self.provenance),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class FrameReport:
    """A frame: its planes, mask, WCS and PSF.

    Parameters
    ----------
    name : str
        Of the file.
    exposure : Exposure
        What was read.
    noise : float or None
        The median standard deviation of a pixel, where there is a variance.
    counts : mapping of str to int
        Pixels in each mask plane that has any.
    psf : PSFReport or None
        Of its PSF, where it has one.
    provenance : Provenance, optional
        How the file came to be, where psfmatch wrote it.
    """

    name: str
    exposure: Exposure
    noise: float | None
    counts: Mapping[str, int] = field(default_factory=dict)
    psf: PSFReport | None = None
    provenance: Provenance | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs."""
        frame = self.exposure
        return {
            "kind": "frame", "name": self.name, "shape": frame.shape, "dtype": str(frame.image.dtype),
            "unit": frame.unit, "noise": self.noise, "finite": float(np.isfinite(frame.image).mean()),
            "mask": dict(self.counts), "pixel_scale": frame.pixel_scale, "center": self.center,
            "psf": None if self.psf is None else self.psf.as_dict(), "provenance": _plain(self.provenance),
        }  # fmt: skip

    @property
    def center(self) -> tuple[float, float] | None:
        """Right ascension and declination of the middle, in degrees."""
        wcs, (ny, nx) = self.exposure.wcs, self.exposure.shape
        if wcs is None or not getattr(wcs, "has_celestial", True):
            return None
        low = getattr(getattr(wcs, "celestial", wcs), "low_level_wcs", wcs)
        lon, lat = low.pixel_to_world_values(0.5 * (nx - 1), 0.5 * (ny - 1))
        return float(lon), float(lat)


@dataclass(frozen=True, eq=False)
class KernelReport:
    """A matching kernel in a file of its own.

    Parameters
    ----------
    name : str
        Of the file.
    kernel : MatchingKernel or RegionsKernel
        What was read.
    provenance : Provenance, optional
        How the file came to be.
    """

    name: str
    kernel: MatchingKernel | RegionsKernel
    provenance: Provenance | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs; the kernels by their regions, all under 0 where there are none."""
        kernels = self.kernel.kernels if isinstance(self.kernel, RegionsKernel) else {0: self.kernel}
        return {
            "kind": "kernel", "name": self.name, "provenance": _plain(self.provenance),
            "kernels": {label: _kernel_figures(one) for label, one in kernels.items()},
        }  # fmt: skip


def _kernel_figures(kernel: MatchingKernel) -> dict[str, Any]:
    """Sizes, and the sum and the noise gain in the middle of its box."""
    box, middle = kernel.weights.box, kernel.weights.box.center
    stamp = kernel.stamps(x=middle.x, y=middle.y)[0]
    return {
        "shape": kernel.shape, "terms": len(kernel.basis), "variation": kernel.weights.kind,
        "order": kernel.weights.order, "box": [box.y0, box.x0, box.y1, box.x1], "sum": float(stamp.sum()),
        "noise_gain": float((stamp**2).sum()),
    }  # fmt: skip


def _plain(provenance: Provenance | None) -> dict[str, Any] | None:
    return None if provenance is None else provenance.as_dict()


def inspect_file(
    source: str | PathLike[str],
    *,
    psf: Any = None,
    box: Box | None = None,
    mesh: int = 3,
    format: str | None = None,
    pixel_scale: float | None = None,
    allow_pickle: bool = False,
) -> PSFReport | FrameReport | KernelReport:
    """Say what a file is: a PSF, a frame and its PSF, or a matching kernel.

    What one of the PSF formats takes for its own is a PSF.  A plain image is one if it shows a single source in the
    middle, and else a frame.

    Parameters
    ----------
    source : path or words
        As for `psfmatch.read_psf` and `psfmatch.read_exposure`.
    psf : PSF, path or words, optional
        The PSF of the frame, which the file then is.
    box : Box, optional
        The field to look at; default that of the model, or the frame's.
    mesh : int
        Positions along either axis.
    format : str, optional
        The PSF format that the file has; not with ``psf``, nor are the next two.
    pixel_scale : float, optional
        Arcseconds a pixel, as for `psfmatch.read_psf`.
    allow_pickle : bool
        As for `psfmatch.read_psf`.

    Returns
    -------
    PSFReport, FrameReport or KernelReport
        What it is, what was measured, and how it came to be where psfmatch wrote it.

    Raises
    ------
    FileNotFoundError, FormatError, PSFError, InputError
        As `psfmatch.read_psf` and `psfmatch.read_exposure`.
    """
    name = os.fspath(source)
    if psf is None:
        found = _psf_format(source, format)
        if _is_own_kernel(source, found):
            return KernelReport(name, read_kernel(source), _provenance(source))
        if not _is_own_frame(source, found):
            try:
                model = read_psf(source, format=format, pixel_scale=pixel_scale, allow_pickle=allow_pickle)
            except PSFError:
                if found is None or found.name != "image" or format is not None:
                    raise
            else:
                title = "a PSF in words" if found is None else found.title
                made = None if found is None else _provenance(source)
                return replace(inspect_psf(model, box=box, mesh=mesh, name=name, title=title), provenance=made)
    elif format is not None or pixel_scale is not None or allow_pickle:
        raise InputError(
            f"{name} is a frame, as its PSF is given: format, pixel_scale and allow_pickle are for a file that is a "
            "PSF; leave them out, or inspect the PSF alone"
        )
    exposure = read_exposure(source, psf=psf)
    report = None
    if exposure.psf is not None:
        report = inspect_psf(exposure.psf, box=box or exposure.box, mesh=mesh, name=name, title="the PSF of the frame")
    return FrameReport(name, exposure, _noise(exposure), _counts(exposure), report, _provenance(source))


def _provenance(source: str | PathLike[str]) -> Provenance | None:
    """Of a file that psfmatch wrote."""
    with suppress(FormatError):
        return read_provenance(source)
    return None


def _psf_format(source: str | PathLike[str], format: str | None) -> PSFFormat | None:
    """The PSF format of a file; None for words."""
    known = {one.name: one for one in psf_formats()}
    if format is not None:
        return known.get(format)
    if isinstance(source, str) and are_words(source) and not os.path.exists(source):
        return None
    with PSFSource(source) as opened:
        found = recognised(opened)
    if found is None:
        raise FormatError(f"{os.fspath(source)}: neither a PSF nor a frame that psfmatch reads")
    return found


def _is_own_frame(source: str | PathLike[str], found: PSFFormat | None) -> bool:
    """Whether it is an exposure that psfmatch wrote, rather than a PSF alone."""
    if found is None or found.name != "psfmatch":
        return False
    with PSFSource(source) as opened:
        return opened.has("IMAGE")


def _is_own_kernel(source: str | PathLike[str], found: PSFFormat | None) -> bool:
    """Whether it is a kernel that psfmatch wrote, and no exposure with one."""
    if found is None or found.name != "psfmatch":
        return False
    with PSFSource(source) as opened:
        names = [hdu.name for hdu in opened.hdus or ()]
    return "IMAGE" not in names and any(re.fullmatch(r"KERNEL(_\d+)?", name) for name in names)


def inspect_psf(
    source: Any,
    *,
    box: Box | None = None,
    mesh: int = 3,
    name: str = "",
    title: str = "",
    pixel_scale: float | None = None,
    wcs: WCS | None = None,
) -> PSFReport:
    """Measure a PSF on a mesh of positions.

    Parameters
    ----------
    source : PSF, file, words or object
        As for `psfmatch.read_psf`.
    box : Box, optional
        The field; default that which the model knows.
    mesh : int
        Positions along either axis, from 2 % inside the border on; 1: the middle alone.  Of a `RegionsPSF` those that
        lie in a region, and one in each region that would have none.
    name, title : str
        What messages and tables call it.
    pixel_scale, wcs : optional
        As for `psfmatch.read_psf`.

    Returns
    -------
    PSFReport
        What was measured.

    Raises
    ------
    PSFError
        If the PSF cannot be evaluated at a position, or has no maximum there to measure.
    InputError
        If ``mesh`` is below 1.
    """
    if mesh < 1:
        raise InputError(f"mesh={mesh}: give at least one position along an axis")
    psf = read_psf(source, pixel_scale=pixel_scale, wcs=wcs)
    box = box or psf.field
    x: FloatArray
    y: FloatArray
    if psf.constant or box is None:
        box, x, y = None, np.zeros(1), np.zeros(1)
    else:
        along = np.array([0.5]) if mesh == 1 else np.linspace(MARGIN, 1.0 - MARGIN, mesh)
        y, x = (g.ravel() for g in np.meshgrid(
            box.y0 + along * (box.shape[0] - 1), box.x0 + along * (box.shape[1] - 1), indexing="ij"
        ))  # fmt: skip
    if isinstance(psf, RegionsPSF):
        x, y = _in_every_region(psf.regions, x, y)
    stamps = psf.stamps(x=x, y=y)
    measured = np.array([_figures(stamp, psf) for stamp in stamps]).T
    return PSFReport(name, title or "a PSF", psf, box, x, y, stamps, *measured)


def _in_every_region(regions: Regions, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The positions that lie in a region, and one in each region that holds none of them."""
    labels = regions.at(x=x, y=y)
    places = [(px, py) for px, py, label in zip(x, y, labels, strict=True) if label]
    for label in sorted(set(regions.boxes) - set(labels.tolist())):
        box = regions.boxes[label]
        rows, columns = np.nonzero(regions.within(box, label))
        k = rows.size // 2
        places.append((float(box.x0 + columns[k]), float(box.y0 + rows[k])))
    found = np.array(places)
    return found[:, 0], found[:, 1]


def _figures(stamp: FloatArray, psf: PSF) -> tuple[float, float, float, float, float]:
    """FWHM, ellipticity, angle, sum, and the flux beyond the stamp."""
    total = float(stamp.sum())
    try:
        xx, xy, yy = adaptive_moments(stamp)
        values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
        shape = 1.0 - np.sqrt(values[0] / values[1]), np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180.0
    except PSFError:
        shape = np.nan, np.nan
    try:
        beyond = missing_flux(stamp, stamp_noise(stamp), psf.measured)[0]
    except PSFError:
        beyond = np.nan
    return fwhm(stamp), float(shape[0]), float(shape[1]), total, beyond


def _noise(exposure: Exposure) -> float | None:
    if exposure.variance is None:
        return None
    good = np.isfinite(exposure.variance) & (exposure.variance > 0)
    return float(np.sqrt(np.median(exposure.variance[good]))) if good.any() else None


def _counts(exposure: Exposure) -> dict[str, int]:
    mask = exposure.mask
    counts = {name: int(np.count_nonzero(mask.array & mask.bits(name))) for name in mask.planes}
    return {name: count for name, count in counts.items() if count}
