"""What is decided before any pixel is touched: the grid, the target, the kernels, the weights, and the patches."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.coadd.combine import ClippedMean, CombineMethod, Mean, Median
from psfmatch.coadd.inputs import CoaddInput, Prepared, Recipe, covered, prepared, transform_to
from psfmatch.coadd.photometry import flux_factors, sky_level, star_factors, zero_point
from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError, MatchError, PsfMatchError
from psfmatch.exposure import MASK_PLANES, Exposure
from psfmatch.geometry import Box
from psfmatch.io import read_psf
from psfmatch.psf import PSF, ImagePSF
from psfmatch.target import common_target
from psfmatch.warp import Grid, WarpedPSF, check_sampling

__all__ = ["GridLike", "Plan", "Row", "TargetLike", "method_of", "planned"]

TargetLike = PSF | ArrayLike | str | PathLike[str] | Callable[[Mapping[str, PSF]], PSF]
"""A model, a stamp (sy, sx), words or a file; or a function that finds one for the PSFs of all inputs."""
GridLike = Grid | Mapping[str, Any] | str | PathLike[str] | Callable[[Sequence[Exposure]], Grid]
"""A grid, a header, a file with one; or a function that makes one for the exposures."""

log = logging.getLogger(__name__)

METHODS: dict[str, Callable[[], CombineMethod]] = {"mean": Mean, "median": Median, "clipped-mean": ClippedMean}
VIEWS = ((0.0, 0.0), (-0.4, -0.4), (-0.4, 0.4), (0.4, -0.4), (0.4, 0.4))
BYTES = 32
"""A pixel and an input, of image, variance, mask, and what combining them takes."""


@dataclass(frozen=True)
class Row:
    """One line of the table of inputs.

    Parameters
    ----------
    name : str
    used : bool
    reason : str
        Why it was left out, or which patches lack it.
    weight : float
        Relative to the sum of all.
    factor, sky : float
        ``(pixels - sky) factor`` was added.
    fwhm : float
        Of its own PSF, arcseconds.
    residual, noise_gain : float
        Of the match: the worst in the field.
    clipped : int
        Pixels of it that were clipped.
    """

    name: str
    used: bool
    reason: str = ""
    weight: float = 0.0
    factor: float = math.nan
    sky: float = math.nan
    fwhm: float = math.nan
    residual: float = math.nan
    noise_gain: float = math.nan
    clipped: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a patch needs to know.

    Parameters
    ----------
    grid : Grid
    target : PSF
        On the grid.
    method : CombineMethod
    recipe : Recipe
    inputs : tuple of Prepared
        That are used.
    rows : tuple of Row
        Of all inputs.
    planes : mapping
        The bits of the mask planes of the coadd.
    zero_point : float or None
        The magnitude of one unit of the coadd's flux.
    unit : str or None
    """

    grid: Grid
    target: PSF
    method: CombineMethod
    recipe: Recipe
    inputs: tuple[Prepared, ...]
    rows: tuple[Row, ...]
    planes: Mapping[str, int]
    zero_point: float | None
    unit: str | None

    def patches(self) -> list[Box]:
        """The grid, cut into parts whose stacks fit the memory."""
        ny, nx = self.grid.shape
        side = self.recipe.patch
        allowed = self.recipe.memory * 1e9 / (BYTES * max(1, len(self.inputs)))
        side = max(64, min(side, int(math.sqrt(allowed))))
        rows, columns = -(-ny // side), -(-nx // side)
        high, wide = -(-ny // rows), -(-nx // columns)
        return [Box(y, x, min(y + high, ny), min(x + wide, nx)) for y in range(0, ny, high) for x in range(0, nx, wide)]

    def correlation(self) -> NoiseCorrelation:
        """Of the noise where all inputs that hold the middle of the grid are added."""
        center = self.grid.box.center
        inside = [one for one in self.inputs if _holds(one.covers, center.x, center.y)] or list(self.inputs)
        box = self.grid.box
        correlations = [one.correlation for one in inside]
        if len({one.box for one in correlations}) > 1:  # on the whole grid, as they are at its middle
            correlations = [
                NoiseCorrelation(one.covariances(x=center.x, y=center.y), _constant(box)) for one in correlations
            ]
        return NoiseCorrelation.combined(correlations, [one.weight for one in inside], [one.noise for one in inside])

    def signature(self) -> str:
        """A checksum of all that the pixels depend on."""
        digest = hashlib.sha256()
        header = self.grid.wcs.to_header_string() if hasattr(self.grid.wcs, "to_header_string") else repr(self.grid.wcs)
        side = max(self.target.shape)
        recipe = {name: value for name, value in vars(self.recipe).items() if name != "memory"}
        for text in (header, repr(self.grid.shape), repr(self.method), repr(recipe), repr(self.patches())):
            digest.update(text.encode())
        digest.update(self.target.stamps(x=0, y=0, shape=(side, side)).tobytes())
        for one in self.inputs:
            digest.update(one.kernel.basis.tobytes() + one.kernel.weights.coefficients.tobytes())
            digest.update(repr((one.index, one.input.label, one.factor, one.sky, one.weight)).encode())
            if not isinstance(one.input.source, Exposure):
                file = Path(one.input.source)
                if file.exists():
                    status = file.stat()
                    digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()


def method_of(combine: str | CombineMethod) -> CombineMethod:
    """The method of a name, or itself."""
    if not isinstance(combine, str):
        return combine
    if combine not in METHODS:
        raise InputError(f"combine={combine!r}: choose {', '.join(METHODS)}, or give Mean(), Median(), ClippedMean()")
    return METHODS[combine]()


def planned(
    inputs: Sequence[CoaddInput], *, target: TargetLike, grid: GridLike, method: CombineMethod, recipe: Recipe,
    say: Callable[[str], None] = log.info,
) -> Plan:  # fmt: skip
    """Read the inputs once, and decide all.

    Raises
    ------
    InputError
        If there is no input that can be used; each is named with its reason.
    """
    rows: dict[int, Row] = {}
    opened: dict[int, Exposure] = {}
    given, inputs = inputs, []
    for one in given:
        say(f"{one.label}: reading")
        try:
            exposure = one.open()
            if exposure.wcs is None or exposure.psf is None or exposure.variance is None:
                lack = "no WCS" if exposure.wcs is None else "no PSF model" if exposure.psf is None else "no variance"
                raise InputError(f"has {lack}")
        except (PsfMatchError, OSError) as error:
            rows[len(inputs)] = Row(one.label, False, " ".join(str(error).split()))
            inputs.append(one)
            continue
        for piece in one.pieces(exposure):
            try:
                opened[len(inputs)] = piece.part_of(exposure)
            except InputError as error:
                rows[len(inputs)] = Row(piece.label, False, str(error))
            inputs.append(piece)
    if not rows and not opened:
        raise InputError("there are no inputs: give at least one exposure")
    if not opened:
        raise InputError("none of the inputs can be used: " + "; ".join(f"{r.name}: {r.reason}" for r in rows.values()))
    where = _grid(grid, list(opened.values()))
    wanted = _target(target, where, inputs, opened, say)
    center = where.box.center
    check_sampling(wanted, "target", x=center.x, y=center.y, pixel_scale=where.pixel_scale)
    levels = {k: sky_level(e) if recipe.background == "median" else 0.0 for k, e in opened.items()}
    points = {k: _zero_point(inputs[k], e) for k, e in opened.items()}
    common = _common({inputs[k].label: points[k] for k in opened}) if recipe.scale != "none" else None
    factors = dict(zip(opened, flux_factors([points[k] if common is not None else None for k in opened],
                                            common or 0.0), strict=True))  # fmt: skip
    if recipe.scale == "stars":
        factors = dict(zip(opened, star_factors(list(opened.values()), list(factors.values())), strict=True))
    done: list[Prepared] = []
    for k in opened:
        say(f"{inputs[k].label}: solving")
        result = prepared(inputs[k], k, where, wanted, recipe, factor=factors[k], sky=levels[k])
        if isinstance(result, str):
            rows[k] = Row(inputs[k].label, False, result, factor=factors[k], sky=levels[k])
        else:
            done.append(result)
    if not done:
        raise MatchError("none of the inputs can be used: " + "; ".join(f"{r.name}: {r.reason}" for r in rows.values()))
    total = sum(ready.weight for ready in done)
    for ready in done:
        rows[ready.index] = Row(
            ready.input.label, True, "", ready.weight / total, ready.factor, ready.sky, ready.fwhm,
            ready.quality.worst["residual"], ready.quality.worst["noise_gain"],
        )  # fmt: skip
    planes = dict(MASK_PLANES)
    for k in opened:
        for name in opened[k].mask.planes:
            planes.setdefault(name, max(planes.values()) + 1)
    units = {opened[k].unit for k in opened}
    return Plan(
        where, wanted, method, recipe, tuple(done), tuple(rows[k] for k in sorted(rows)), planes, common,
        units.pop() if len(units) == 1 and (common is None or len(set(factors.values())) == 1) else None,
    )  # fmt: skip


def _grid(grid: GridLike, exposures: Sequence[Exposure]) -> Grid:
    if isinstance(grid, Grid):
        return grid
    if callable(grid):
        return grid(exposures)
    if isinstance(grid, str) and grid == "auto":
        return Grid.auto(exposures)
    if isinstance(grid, str | PathLike):
        from psfmatch.io.fits import open_fits

        with open_fits(Path(grid)) as hdus:
            for hdu in hdus:
                if "CTYPE1" in hdu.header and hdu.header.get("ZNAXIS", hdu.header.get("NAXIS", 0)) >= 2:
                    return Grid.from_header(hdu.header)
        raise InputError(f"{fspath(grid)}: no image with a WCS; give a FITS file whose header is the grid's")
    return Grid.from_header(grid)


def _target(
    target: TargetLike, grid: Grid, inputs: Sequence[CoaddInput], opened: Mapping[int, Exposure],
    say: Callable[[str], None],
) -> PSF:  # fmt: skip
    search: Callable[[Mapping[str, PSF]], PSF]
    if isinstance(target, str | PathLike):
        words = fspath(target)
        if words != "auto" and not words.startswith("auto:"):
            return read_psf(target, pixel_scale=grid.pixel_scale)
        search = partial(common_target, family=words.partition(":")[2] or "moffat")
    elif isinstance(target, FunctionType | partial):
        search = target
    else:
        return read_psf(target, pixel_scale=grid.pixel_scale)
    say("searching the target")
    views: dict[str, PSF] = {}
    for k, exposure in opened.items():
        transform = transform_to(exposure, grid)
        box = covered(exposure, transform, grid)
        if box is None or exposure.psf is None:
            continue
        seen = WarpedPSF(exposure.psf, transform, at=box.center)
        for n, (dy, dx) in enumerate(VIEWS[:1] if exposure.psf.constant else VIEWS):
            x, y = box.center.x + dx * box.shape[1], box.center.y + dy * box.shape[0]
            views[f"{inputs[k].label or k} ({n})"] = ImagePSF(seen.stamps(x=x, y=y)[0])
    return search(views)


def _zero_point(source: CoaddInput, exposure: Exposure) -> float | None:
    return source.zero_point if source.zero_point is not None else zero_point(exposure.meta, exposure.unit)


def _common(points: Mapping[str, float | None]) -> float | None:
    """The zero point of the coadd: the median of those known; None where none is.

    Raises
    ------
    InputError
        If some are known and others not.
    """
    unknown = [name for name, value in points.items() if value is None]
    if len(unknown) == len(points):
        log.warning("no input has a zero point: the fluxes are added as they are")
        return None
    if unknown:
        raise InputError(
            f'no zero point is known of {", ".join(unknown)}: give those of all inputs, or scale="none" to add the '
            "fluxes as they are"
        )
    return float(np.median([value for value in points.values() if value is not None]))


def _holds(box: Box, x: float, y: float) -> bool:
    return box.y0 <= y < box.y1 and box.x0 <= x < box.x1


def _constant(box: Box) -> Any:
    from psfmatch.fields import Field

    return Field.constant([1.0], box)
