"""What is decided before any pixel is touched: the grid, the target, the kernels, the weights, and the patches."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from psfmatch.coadd.combine import CombineMethod
from psfmatch.coadd.crew import Crew
from psfmatch.coadd.inputs import Prepared
from psfmatch.coadd.photometry import flux_factors, star_factors, zero_point
from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.request import GridLike, TargetLike, grid_of, history_of, target_of
from psfmatch.coadd.solving import Task
from psfmatch.coadd.sources import CoaddInput, bare, digest_of_wcs, rounded
from psfmatch.coadd.store import Store
from psfmatch.correlation import NoiseCorrelation, in_cells
from psfmatch.errors import InputError, MatchError, PsfMatchError
from psfmatch.exposure import MASK_PLANES, Exposure
from psfmatch.geometry import Box, FloatArray, resized
from psfmatch.machine import forget, one_blas_thread
from psfmatch.provenance import History
from psfmatch.psf import PSF
from psfmatch.warp import Grid, check_sampling

__all__ = ["Plan", "Row", "planned"]

log = logging.getLogger(__name__)

SMALLEST = 64
CELL = 128
"""Pixels of the grid over which the correlation of the noise is taken as one."""
PROGRAM, LAYERS, LAYER, REGION = 300e6, 46, 14, 140
"""Bytes: of the program itself; of a pixel of the coadd, of one in a layer of the stack, and of one of an input on its
way there."""

LACKS = {
    "wcs": "no WCS",
    "psf": "no PSF model; give one (psf=, --psf)",
    "variance": 'no variance; give CoaddInput(path, options={"weight": ...}), or a file that write_exposure made',
}


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
    history : History
        The files of the inputs, and what was asked for.
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
    history: History

    @cached_property
    def patches(self) -> list[Box]:
        """The grid, cut into parts whose stacks fit the memory."""
        side = self.recipe.patch
        while side > SMALLEST and max(self.bytes_of(box, 1) for box in self._cut(side)) > self._allowed:
            side = max(SMALLEST, int(0.9 * side))
        return self._cut(side)

    def with_margin(self, box: Box) -> Box:
        """The patch and what around it decides upon its pixels."""
        wide = box.grown(self.method.margin, self.method.margin).overlap(self.grid.box)
        assert wide is not None
        return wide

    def threads(self, box: Box, most: int) -> int:
        """So many inputs may be brought to a patch at a time."""
        return max([1, *(n for n in range(1, most + 1) if self.bytes_of(box, n) <= self._allowed)])

    @property
    def _allowed(self) -> float:
        return max(0.0, self.recipe.memory * 1e9 - PROGRAM)

    def bytes_of(self, box: Box, threads: int) -> float:
        """The memory that a patch takes, with so many inputs on their way to it at a time."""
        box = self.with_margin(box)
        layers = sum(one.covers.overlap(box) is not None for one in self.inputs)
        half = max((max(one.kernel.shape) for one in self.inputs), default=0) + self.recipe.interpolation.order
        region = (box.shape[0] + half) * (box.shape[1] + half)
        return box.shape[0] * box.shape[1] * (LAYERS + LAYER * layers) + threads * REGION * region

    def _cut(self, side: int) -> list[Box]:
        ny, nx = self.grid.shape
        rows, columns = -(-ny // side), -(-nx // side)
        high, wide = -(-ny // rows), -(-nx // columns)
        return [Box(y, x, min(y + high, ny), min(x + wide, nx)) for y in range(0, ny, high) for x in range(0, nx, wide)]

    @property
    def count_type(self) -> np.dtype[Any]:
        """Of the number of inputs in a pixel."""
        return np.dtype(np.int16 if len(self.inputs) < 1 << 15 else np.int32)

    def correlation(self) -> NoiseCorrelation:
        """Of the noise, in each of many cells of the grid that of the inputs that hold its middle."""
        shape = tuple(max(one.correlation.shape[axis] for one in self.inputs) for axis in (0, 1))

        def covariance(x: FloatArray, y: FloatArray) -> FloatArray:
            """Of the inputs' weighted mean; where there is none, nothing is correlated."""
            out, total = np.zeros((x.size, *shape)), np.zeros(x.size)
            for one in self.inputs:
                here = one.holds(x, y, self.grid)
                if here.any():
                    share = one.weight**2 * one.noise
                    out[here] += share * resized(one.correlation.stamps(x=x[here], y=y[here]), (shape[0], shape[1]))
                    total[here] += share
            out[total == 0, shape[0] // 2, shape[1] // 2] = 1.0
            return out / np.where(total == 0, 1.0, total)[:, None, None]

        return in_cells(covariance, self.grid.box, CELL)

    @cached_property
    def signature(self) -> str:
        """A checksum of all that the pixels depend on, but for those of the inputs."""
        digest = hashlib.sha256()
        side = max(self.target.shape)
        recipe = {name: value for name, value in vars(self.recipe).items() if name not in ("memory", "patch")}
        for text in (digest_of_wcs(self.grid.wcs), self.grid.shape, self.method, recipe, sorted(self.planes.items())):
            digest.update(repr(text).encode())
        digest.update(self.target.stamps(x=0, y=0, shape=(side, side)).tobytes())
        for one in self.inputs:
            digest.update(one.kernel.basis.tobytes() + one.kernel.weights.coefficients.tobytes())
            digest.update(repr((one.index, one.factor, one.sky, one.weight)).encode())
        return digest.hexdigest()


@one_blas_thread()
def planned(
    inputs: Sequence[CoaddInput], *, target: TargetLike, grid: GridLike, method: CombineMethod, recipe: Recipe,
    store: Store | None = None, crew: Crew | None = None, say: Callable[[str], None] = log.info,
) -> Plan:  # fmt: skip
    """Read the inputs once, and decide all.

    Parameters
    ----------
    inputs, target, grid, method, recipe
        As of `coadd`.
    store : Store, optional
        Where kernels are kept, and found if they were solved for before.
    crew : Crew, optional
        Who solves for the kernels; default this process.
    say : callable, optional
        Told of each step: twice as many as there are inputs, and one for the target.

    Raises
    ------
    InputError
        If there is no input that can be used; each is named with its reason.
    """
    crew = Crew() if crew is None else crew
    inputs, opened, rows = _opened(inputs, say)
    if not rows and not opened:
        raise InputError("there are no inputs: give at least one exposure")
    if not opened:
        raise InputError("none of the inputs can be used: " + "; ".join(f"{r.name}: {r.reason}" for r in rows.values()))
    where = grid_of(grid, list(opened.values()))
    where = Grid(rounded(where.wcs), where.shape)
    points = {k: _zero_point(inputs[k], e) for k, e in opened.items()}
    common = _common({inputs[k].label: points[k] for k in opened}) if recipe.scale != "none" else None
    factors = dict(zip(opened, flux_factors([points[k] if common is not None else None for k in opened],
                                            common or 0.0), strict=True))  # fmt: skip
    wanted = target_of(target, where, inputs, opened, store, say)
    center = where.box.center
    check_sampling(wanted, "target", x=center.x, y=center.y, pixel_scale=where.pixel_scale)
    if recipe.scale == "stars":
        exposures = (inputs[k].open(again=True) for k in opened)
        factors = dict(zip(opened, star_factors(exposures, list(factors.values())), strict=True))
    task = Task(where, wanted, recipe, store, unpack=crew.elsewhere)
    done: dict[int, Prepared] = {}
    for k, exposure in opened.items():
        ready = task.found(inputs[k], k, exposure, factors[k])
        if ready is not None:
            say(f"{inputs[k].label}: solved before")
            done[k] = ready
    left = {k: (inputs[k], k, factors[k]) for k in opened if k not in done}
    for k, result, wrong in crew.each(Task.prepared, task, left):
        say(f"{inputs[k].label}: solved")
        if wrong or isinstance(result, str):
            rows[k] = Row(inputs[k].label, False, wrong or result, factor=factors[k])
        else:
            done[k] = result
    if not done:
        raise MatchError("none of the inputs can be used: " + "; ".join(f"{r.name}: {r.reason}" for r in rows.values()))
    _warn_of_skies(list(done.values()))
    total = sum(ready.weight for ready in done.values())
    for k, ready in done.items():
        rows[k] = Row(
            inputs[k].label, True, "", ready.weight / total, ready.factor, ready.sky, ready.fwhm,
            ready.quality.worst["residual"], ready.quality.worst["noise_gain"],
        )  # fmt: skip
    planes = dict(MASK_PLANES)
    for exposure in opened.values():
        for name in exposure.mask.planes:
            planes.setdefault(name, max(planes.values()) + 1)
    units = {opened[k].unit for k in opened}
    return Plan(
        where, wanted, method, recipe, tuple(done[k] for k in sorted(done)), tuple(rows[k] for k in sorted(rows)),
        planes, common,
        units.pop() if len(units) == 1 and (common is None or len(set(factors.values())) == 1) else None,
        history_of(inputs, list(opened.values()), target=target, grid=grid, method=method, recipe=recipe),
    )  # fmt: skip


def _warn_of_skies(inputs: Sequence[Prepared]) -> None:
    """Say so where the inputs' skies differ by more than their noise: combined, they make steps, or are clipped."""
    levels, noise = [one.left for one in inputs], math.sqrt(float(np.median([one.noise for one in inputs])))
    low, high = min(levels), max(levels)
    if high - low > noise:
        log.warning(
            "the sky differs between the inputs: %.4g to %.4g on the common scale, where the noise of a matched pixel "
            "is %.3g; what differs makes steps at their borders, or is clipped: subtract it before, or --background "
            'median (background="median")', low, high, noise,
        )  # fmt: skip


def _opened(
    given: Sequence[CoaddInput], say: Callable[[str], None]
) -> tuple[list[CoaddInput], dict[int, Exposure], dict[int, Row]]:
    """The inputs, those with a PSF that jumps at borders by its regions; what can be used of them; and what cannot."""
    rows: dict[int, Row] = {}
    opened: dict[int, Exposure] = {}
    inputs: list[CoaddInput] = []
    correlated: list[str] = []
    for one in given:
        say(f"{one.label}: reading")
        try:
            exposure = one.open()
            lack = next((words for name, words in LACKS.items() if getattr(exposure, name) is None), None)
            if lack is not None:
                raise InputError(f"has {lack}")
            if exposure.history.correlated:
                correlated.append(one.label or "an exposure")
            lean = bare(exposure)
            forget(exposure.image, exposure.variance, exposure.mask.array)
        except (PsfMatchError, OSError) as error:
            rows[len(inputs)] = Row(one.label, False, " ".join(str(error).split()))
            inputs.append(one)
            continue
        for piece in one.pieces(exposure):
            try:
                opened[len(inputs)] = bare(piece.part_of(lean))
            except InputError as error:
                rows[len(inputs)] = Row(piece.label, False, str(error))
            inputs.append(piece)
    if correlated:
        log.warning(
            "the noise of %s is correlated by an earlier convolution, warp or coadd, of which the variance knows "
            "nothing: the errors of the coadd are too small, and good pixels may be clipped; give the originals, which "
            "are matched on the way", ", ".join(correlated),
        )  # fmt: skip
    return inputs, opened, rows


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
            f"no zero point is known of {', '.join(unknown)}: give those of all inputs (--zero-points), or "
            'scale="none" (--scale none) to add the fluxes as they are'
        )
    return float(np.median([value for value in points.values() if value is not None]))
