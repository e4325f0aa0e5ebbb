"""What goes into a coadd: an exposure, where it lies on the grid, and the kernel that gives it the common PSF there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from psfmatch.coadd.repair import repaired
from psfmatch.convolve import FFT, convolve
from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError, PsfMatchError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box, FloatArray, Position
from psfmatch.io import read_exposure
from psfmatch.kernel import MatchingKernel
from psfmatch.match import planned_match
from psfmatch.moments import fwhm
from psfmatch.noise import psf_flux_variance
from psfmatch.psf import PSF
from psfmatch.quality import Quality
from psfmatch.regions import RegionsKernel, RegionsPSF, alone
from psfmatch.solve import FreeForm, Solver
from psfmatch.warp import Grid, Interpolation, Kaiser, Transform, WarpedPSF, warp

__all__ = ["CoaddInput", "Prepared", "Recipe", "prepared"]

MESH = 17
GAIN_NODES = 5
CORRELATION = 2e-2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How exposures are brought to the grid.

    Parameters
    ----------
    order : {"match-warp", "warp-match"}
        ``match-warp``: each exposure is matched in its own pixels to the target as seen from there, where its noise
        is white, and interpolated when it is well sampled.  ``warp-match``: interpolated first, as Rubin's software
        does, and then matched.
    background : {"none", "median"}
        What is subtracted from each exposure: nothing, or the median of its usable pixels.
    scale : {"header", "stars", "none"}
        What brings the fluxes to one scale: the zero points (given, or of the headers), or these corrected by the
        stars that the exposures share; or nothing.
    solver : Solver
        Of the kernels.
    interpolation : Interpolation
        Of the pixels.
    reject : tuple of str
        Mask planes whose pixels are not used.
    lost : float
        The share of the kernel that may fall on such pixels.  Below it they are estimated from their neighbours, and
        pass on no plane; above, the pixel is left out of the coadd.
    patch : int
        Rows and columns of the parts that the grid is worked through in.  The result depends on it only by rounding.
    memory : float
        Gigabytes that the stack of one patch and its temporaries may take; patches are made smaller to keep it.
    """

    order: Literal["match-warp", "warp-match"] = "match-warp"
    background: Literal["none", "median"] = "none"
    scale: Literal["header", "stars", "none"] = "header"
    solver: Solver = field(default_factory=FreeForm)
    interpolation: Interpolation = field(default_factory=Kaiser)
    reject: tuple[str, ...] = ("BAD", "SAT", "CR", "INTRP", "EDGE", "NO_DATA")
    lost: float = 0.1
    patch: int = 1024
    memory: float = 2.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("order", ("match-warp", "warp-match")), ("background", ("none", "median")),
            ("scale", ("header", "stars", "none")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(f"Recipe {name}={getattr(self, name)!r}: choose {' or '.join(allowed)}")
        if not hasattr(self.solver, "solution"):
            raise InputError(f"Recipe solver={self.solver!r}: give a solver such as FreeForm()")
        if not 0.0 <= self.lost < 1.0:
            raise InputError(f"Recipe lost={self.lost}: must lie in [0, 1)")
        if self.patch < 64 or not self.memory > 0:
            raise InputError(f"Recipe patch={self.patch}, memory={self.memory}: at least 64 px, and above 0 GB")


@dataclass(frozen=True, eq=False)
class CoaddInput:
    """One exposure, in memory or in a file that is read when it is needed.

    Parameters
    ----------
    source : Exposure or path
        With its PSF and WCS (of a file: in it, beside it, or named in ``options``).
    name : str
        What it is called; default the file's name, or its number.
    zero_point : float, optional
        The magnitude of one unit of its flux; default what the exposure says.
    options : mapping
        Of `read_exposure`: ``psf``, ``weight``, ``format`` ...
    region : int, optional
        Of an exposure with a `RegionsPSF`: the region that alone is meant.
    """

    source: Exposure | str | PathLike[str]
    name: str = ""
    zero_point: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    region: int | None = None

    def open(self) -> Exposure:
        """The exposure, or one region of it; the planes of a plain FITS file stay in it.

        Raises
        ------
        InputError
            If it has no such region.
        """
        return self.part_of(self._opened())

    def part_of(self, exposure: Exposure) -> Exposure:
        """The opened exposure, or the region of it that is meant."""
        psf = exposure.psf
        if self.region is None:
            return exposure
        part = alone(exposure, psf.regions, self.region) if isinstance(psf, RegionsPSF) else None
        if part is None:
            raise InputError(f"has no pixel of the region {self.region}")
        return part

    def pieces(self, exposure: Exposure) -> list[CoaddInput]:
        """The input itself, or its regions where the PSF of its exposure jumps at borders: they share no kernel."""
        if self.region is not None or not isinstance(exposure.psf, RegionsPSF):
            return [self]
        return [replace(self, region=k, name=f"{self.label} region {k}") for k in exposure.psf.psfs]

    def _opened(self) -> Exposure:
        if isinstance(self.source, Exposure):
            return self.source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PsfMatchWarning)  # said when it was opened first
            return read_exposure(self.source, memmap=True, **self.options)

    @property
    def label(self) -> str:
        """The name, or what there is instead."""
        if self.name or isinstance(self.source, Exposure):
            return self.name
        return Path(self.source).name


@dataclass(frozen=True, eq=False)
class Prepared:
    """An input that is ready to be convolved, warped and added.

    Parameters
    ----------
    input : CoaddInput
    index : int
        Its number in the list of inputs.
    covers : Box
        The part of the grid that it touches.
    kernel : MatchingKernel
        In its own pixels, or (``warp-match``) in the grid's.
    quality : Quality
    transform : Transform
        From the grid to its pixels.
    factor, sky, weight : float
        ``(pixels - sky) factor`` is added with this weight, the inverse of the variance of a point source's flux.
    noise : float
        Typical variance of its pixels on the grid.
    correlation : NoiseCorrelation
        Of its noise on the grid, where it covers it.
    correction : array, shape (GAIN_NODES, GAIN_NODES)
        What the variance that `warp` gives, which is that of white noise, is to be multiplied by at nodes over the
        part that it covers.
    fwhm : float
        Its own PSF's width at the centre, in arcseconds.
    """

    input: CoaddInput
    index: int
    covers: Box
    kernel: MatchingKernel
    quality: Quality
    transform: Transform
    factor: float
    sky: float
    weight: float
    noise: float
    correlation: NoiseCorrelation
    correction: FloatArray
    fwhm: float

    def on_patch(self, patch: Box, grid: Grid, recipe: Recipe) -> Exposure | None:
        """The input on a patch of the grid, with the common PSF and on the common scale; None where it is not.

        Raises
        ------
        PsfMatchError, OSError
            If the input cannot be read any more.
        """
        exposure = self.input.open()
        half = self.kernel.shape[0] // 2, self.kernel.shape[1] // 2
        margin = recipe.interpolation.order + 2
        if recipe.order == "match-warp":
            region = _read_from(exposure, self.transform, patch, half[0] + margin, half[1] + margin, self.kernel.shape)
            if region is None:
                return None
            cut = self._convolved(_plain(exposure, region), recipe)
            out = warp(self._scaled(cut), grid, box=patch, interpolation=recipe.interpolation)
        else:
            wider = _within(patch.grown(*half), grid.box)
            region = _read_from(exposure, self.transform, wider, margin, margin, self.kernel.shape)
            if region is None:
                return None
            cut = warp(self._scaled(_plain(exposure, region)), grid, box=wider, interpolation=recipe.interpolation)
            out = self._convolved(cut, recipe).cutout(patch)
        if out.variance is None:
            raise InputError(f"{self.input.label}: has no variance; a coadd needs it")
        return out.replace(variance=out.variance * self._correction_on(patch).astype(out.variance.dtype))

    def _convolved(self, cut: Exposure, recipe: Recipe) -> Exposure:
        """The cut with the common PSF; NO_DATA where too much of the kernel falls on pixels that are not used."""
        bad = cut.mask.any_of(*recipe.reject) | ~np.isfinite(cut.image)
        mended, left = repaired(cut.image, bad)
        mended[left] = np.nan
        clean = cut.replace(image=mended, mask=cut.mask.without(*recipe.reject))
        out = convolve(clean, self.kernel, convolver=FFT(threads=1))
        lost = out.mask.any_of("EDGE", "INTRP", "NO_DATA")
        if bad.any():
            share = convolve(Exposure(bad.astype(np.float32), box=cut.box), self.kernel, convolver=FFT(threads=1))
            lost |= ~(np.abs(share.image) <= recipe.lost * np.abs(self.quality.worst["kernel_sum"]))
        array = np.array(out.mask.array)
        array[lost] |= 1 << out.mask.planes["NO_DATA"]
        return out.replace(mask=Mask(array, out.mask.planes))

    def _scaled(self, exposure: Exposure) -> Exposure:
        image = (exposure.image - exposure.image.dtype.type(self.sky)) * exposure.image.dtype.type(self.factor)
        variance = exposure.variance
        if variance is not None:
            variance = variance * variance.dtype.type(self.factor**2)
        return exposure.replace(image=image, variance=variance)

    def _correction_on(self, patch: Box) -> FloatArray:
        """The correction at every pixel of a patch, linear between the nodes."""
        from scipy.interpolate import RegularGridInterpolator

        y, x = _nodes(self.covers)
        table = RegularGridInterpolator((y, x), self.correction)
        rows = np.clip(np.arange(patch.y0, patch.y1, dtype=float), y[0], y[-1])
        columns = np.clip(np.arange(patch.x0, patch.x1, dtype=float), x[0], x[-1])
        return np.asarray(table(tuple(np.meshgrid(rows, columns, indexing="ij"))))


def prepared(
    source: CoaddInput, index: int, grid: Grid, target: PSF, recipe: Recipe, *, factor: float, sky: float
) -> Prepared | str:
    """Solve for the kernel of one input; or why it is left out."""
    try:
        exposure = source.open()
        return _prepared(source, index, exposure, grid, target, recipe, factor, sky)
    except (PsfMatchError, OSError) as error:
        return " ".join(str(error).split())


def _prepared(
    source: CoaddInput, index: int, exposure: Exposure, grid: Grid, target: PSF, recipe: Recipe, factor: float,
    sky: float,
) -> Prepared | str:  # fmt: skip
    if exposure.wcs is None:
        return "has no WCS"
    if exposure.variance is None:
        return "has no variance"
    if exposure.psf is None:
        return "has no PSF model"
    transform = transform_to(exposure, grid)
    covers = covered(exposure, transform, grid)
    if covers is None:
        return "does not touch the grid"
    center = covers.center
    box = exposure.box
    on_grid = WarpedPSF(exposure.psf, transform, at=center)

    def resampled(noise: NoiseCorrelation) -> NoiseCorrelation:
        return noise.warped(
            transform.positions, covers, interpolation=recipe.interpolation.weights, tolerance=CORRELATION,
            phases="all",
        )  # fmt: skip

    white = resampled(NoiseCorrelation.white(box))
    if recipe.order == "match-warp":
        middle = Position(box.center.y, box.center.x)
        plan = planned_match(exposure, WarpedPSF(target, transform.inverse, at=middle), solver=recipe.solver)
        kernel = _of_one_region(plan.kernel)
        before = NoiseCorrelation.of_kernel(kernel, tolerance=CORRELATION)
        after = resampled(before)
    else:
        blank = Exposure(np.zeros(covers.shape, np.float32), box=covers, psf=on_grid)
        plan = planned_match(blank, target, solver=recipe.solver)
        kernel = _of_one_region(plan.kernel)
        before = white
        after = before.convolved(kernel, tolerance=CORRELATION)
    y, x = (a.ravel() for a in np.meshgrid(*_nodes(covers), indexing="ij"))
    gain = after.gains(x=x, y=y)
    if recipe.order == "match-warp":
        at_x, at_y = transform.positions(x=x, y=y)
        correction = gain / (before.gains(x=at_x, y=at_y) * white.gains(x=x, y=y))
    else:
        squares = (kernel.stamps(x=x, y=y) ** 2).sum(axis=(1, 2))
        correction = gain / (squares * white.gains(x=x, y=y))
    area = np.abs(np.linalg.det(transform.jacobian(x=[center.x], y=[center.y]))[0])
    noise = _typical(exposure) * (factor * area) ** 2 * float(after.gains(x=center.x, y=center.y)[0])
    flux = psf_flux_variance(noise, after, target, x=center.x, y=center.y)[0]
    scale = exposure.pixel_scale or np.nan
    return Prepared(
        source, index, covers, kernel, plan.quality, transform, factor, sky, float(1.0 / flux), noise, after,
        correction.reshape(GAIN_NODES, GAIN_NODES), _width(exposure) * scale,
    )  # fmt: skip


def _of_one_region(kernel: MatchingKernel | RegionsKernel) -> MatchingKernel:
    assert isinstance(kernel, MatchingKernel)
    return kernel


def transform_to(exposure: Exposure, grid: Grid) -> Transform:
    """From the pixels of a grid to those of an exposure's parent frame."""
    return Transform.between(grid.wcs, exposure.wcs, to_origin=Position(exposure.box.y0, exposure.box.x0))


def covered(exposure: Exposure, transform: Transform, grid: Grid) -> Box | None:
    """The part of the grid that an exposure touches."""
    x, y = transform.inverse.positions(**_border(exposure.box))
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    return _overlap(
        Box(*(int(v) for v in (np.floor(y[good].min()), np.floor(x[good].min()), np.ceil(y[good].max()) + 1,
                               np.ceil(x[good].max()) + 1))),
        grid.box,
    )  # fmt: skip


def _read_from(
    exposure: Exposure, transform: Transform, patch: Box, dy: int, dx: int, least: tuple[int, int]
) -> Box | None:
    """What must be read of an exposure for a patch, with a margin, and not less than the kernel."""
    x, y = transform.positions(**_border(patch))
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    corners = np.floor(y[good].min()), np.floor(x[good].min()), np.ceil(y[good].max()) + 1, np.ceil(x[good].max()) + 1
    frame = exposure.box
    if _overlap(Box(*(int(v) for v in corners)), frame) is None:
        return None
    region = _overlap(Box(*(int(v) for v in corners)).grown(dy, dx), frame)
    assert region is not None
    (y0, y1), (x0, x1) = (
        _at_least(region.y0, region.y1, least[0], frame.y0, frame.y1),
        _at_least(region.x0, region.x1, least[1], frame.x0, frame.x1),
    )
    return Box(y0, x0, y1, x1)


def _at_least(first: int, last: int, length: int, low: int, high: int) -> tuple[int, int]:
    """An interval within limits, lengthened where it is too short."""
    missing = max(0, length - (last - first))
    first = max(low, first - missing)
    return first, min(high, max(last, first + length))


def _plain(exposure: Exposure, region: Box) -> Exposure:
    return exposure.cutout(region).replace(psf=None)


def _border(box: Box) -> dict[str, FloatArray]:
    """Positions on a mesh over a box, its outer edges included."""
    x, y = np.meshgrid(np.linspace(box.x0 - 0.5, box.x1 - 0.5, MESH), np.linspace(box.y0 - 0.5, box.y1 - 0.5, MESH))
    return {"x": x.ravel(), "y": y.ravel()}


def _nodes(box: Box) -> tuple[FloatArray, FloatArray]:
    """Rows and columns of the nodes of the variance's correction."""
    return np.linspace(box.y0, max(box.y1 - 1, box.y0 + 1), GAIN_NODES), np.linspace(
        box.x0, max(box.x1 - 1, box.x0 + 1), GAIN_NODES
    )


def _overlap(one: Box, other: Box) -> Box | None:
    y0, x0, y1, x1 = max(one.y0, other.y0), max(one.x0, other.x0), min(one.y1, other.y1), min(one.x1, other.x1)
    return Box(y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def _within(box: Box, frame: Box) -> Box:
    inside = _overlap(box, frame)
    assert inside is not None
    return inside


def _typical(exposure: Exposure) -> float:
    """The median of the finite variances, of some million pixels."""
    assert exposure.variance is not None
    step = max(1, round(np.sqrt(exposure.variance.size / 1e6)))
    values = np.asarray(exposure.variance[::step, ::step], float)
    good = values[np.isfinite(values) & (values > 0)]
    if not good.size:
        raise InputError("the variance is nowhere finite and positive")
    return float(np.median(good))


def _width(exposure: Exposure) -> float:
    """FWHM of the PSF at the centre, in pixels."""
    assert exposure.psf is not None
    return fwhm(exposure.psf.stamps(x=exposure.box.center.x, y=exposure.box.center.y)[0])
