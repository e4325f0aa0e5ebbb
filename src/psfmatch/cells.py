"""Spatial cells: the positions where the two PSFs are sampled, and the pairs of stamps found there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError, MatchError, PSFError, PsfMatchWarning
from psfmatch.geometry import Box, FloatArray, Position, frozen, odd_shape, plain_array, resized
from psfmatch.moments import fwhm as profile_fwhm
from psfmatch.moments import moments_fwhm
from psfmatch.psf import PSF, BasisPSF

__all__ = [
    "Candidate", "SpatialCellSet", "cell_positions", "check_field", "check_smooth", "sample_at", "sample_cells"
]  # fmt: skip

BEYOND = 0.25
"""How far beyond the positions that a model was made for it is trusted, in units of the range that they span."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """The pair of stamps of one cell: science PSF and target PSF at (x, y)."""

    x: float
    y: float
    science: FloatArray
    target: FloatArray


@dataclass(frozen=True, eq=False)
class SpatialCellSet:
    """Cells over an exposure, each with a candidate where both PSFs could be evaluated.

    Parameters
    ----------
    box : Box
        The region that the cells cover: the exposure grown by one cell on each side.
    cell_shape : (int, int)
        Rows and columns of a cell.
    x, y : array, shape (n,)
        The positions of the candidates.
    science, target : array, shape (n, s, s)
        The stamps.
    fwhm : (float, float)
        Adaptive-moment FWHM of the science and the target PSF at one position, in pixels; NaN if not measured.
    skipped : tuple of (float, float, str)
        Positions (x, y) where a PSF could not be evaluated, and why.
    """

    box: Box
    cell_shape: tuple[int, int]
    x: FloatArray
    y: FloatArray
    science: FloatArray
    target: FloatArray
    fwhm: tuple[float, float]
    skipped: tuple[tuple[float, float, str], ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("x", "y", "science", "target"):
            object.__setattr__(self, name, frozen(plain_array(getattr(self, name), name, float)))

    def __len__(self) -> int:
        return self.x.size

    def __iter__(self) -> Iterator[Candidate]:
        for x, y, science, target in zip(self.x, self.y, self.science, self.target, strict=True):
            yield Candidate(float(x), float(y), science, target)

    @property
    def stamp_shape(self) -> tuple[int, int]:
        """Rows and columns of the stamps."""
        return self.science.shape[1], self.science.shape[2]


def cell_positions(box: Box, cell_shape: tuple[int, int]) -> tuple[Box, FloatArray, FloatArray]:
    """The box grown by one cell on each side, and the centres (x, y) of its whole cells, row by row.

    A last partial row or column of cells has no centre, as in Rubin's software.

    Raises
    ------
    InputError
        If a cell has no pixels.
    """
    height, width = (int(s) for s in cell_shape)
    if height < 1 or width < 1:
        raise InputError(f"cells of {width} x {height} px: both sides must be positive")
    region = box.grown(height, width)
    ny, nx = region.shape
    x = region.x0 + width * np.arange(nx // width) + width // 2
    y = region.y0 + height * np.arange(ny // height) + height // 2
    grid_y, grid_x = np.meshgrid(y.astype(float), x.astype(float), indexing="ij")
    return region, grid_x.ravel(), grid_y.ravel()


def check_smooth(science: PSF, target: PSF) -> None:
    """Raise InputError if one of two PSFs jumps at the borders of regions, which no one kernel can follow."""
    for name, psf in (("science", science), ("target", target)):
        if not psf.smooth:
            raise InputError(
                f"the {name} PSF jumps at the borders of regions, which no one kernel can follow; "
                "give an exposure that has it to psfmatch.match, with a target that does not jump"
            )


def check_field(name: str, psf: PSF, box: Box) -> None:
    """Say so where a varying model is used far from the positions that it was made for."""
    field = psf.field
    if field is None or psf.constant or (isinstance(psf, BasisPSF) and psf.weights.order == 0):
        return
    spans = (
        ("x", field.x0, field.x1 - 1, box.x0, box.x1 - 1), ("y", field.y0, field.y1 - 1, box.y0, box.y1 - 1)
    )  # fmt: skip
    far = [s for s in spans if s[2] > s[1] and max(s[1] - s[3], s[4] - s[2]) > BEYOND * (s[2] - s[1])]
    if far:
        made, used = (", ".join(f"{s[0]} = {s[k]} to {s[k + 1]}" for s in far) for k in (1, 3))
        warnings.warn(
            f"the {name} PSF was made for {made} and is used over {used}, where it is extrapolated: is it the model of "
            "this frame? One that was made on a larger or another frame counts its pixels there (Exposure(box=) says "
            "where a cut-out lies)",
            PsfMatchWarning,
            stacklevel=4,
        )


def sample_cells(
    science: PSF,
    target: PSF,
    box: Box,
    *,
    cell_shape: tuple[int, int],
    size: int,
    fwhm_at: Position | None = None,
    pad_science: bool = False,
) -> SpatialCellSet:
    """Realise both PSFs at the centre of every cell, as stamps of ``size`` x ``size`` pixels.

    A cell where a PSF cannot be evaluated is skipped and counted.  A target that cannot be resized exactly is
    padded with zeros or cut, with a `PsfMatchWarning`.  So is the science PSF, without a warning; with
    ``pad_science`` even where it could be resized.  The FWHMs are measured at ``fwhm_at`` (default: the centre of
    the box), or in the candidate nearest to it.

    Raises
    ------
    MatchError
        If no cell is left.
    InputError
        If ``size`` is even.
    """
    check_smooth(science, target)
    region, x, y = cell_positions(box, cell_shape)
    if not target.resizable and target.shape != (size, size):
        warnings.warn(
            f"the target PSF is a fixed image of {target.shape[1]} x {target.shape[0]} px: "
            f"it is padded with zeros or cut to the {size} x {size} px of the science PSF",
            PsfMatchWarning,
            stacklevel=2,
        )
    return sample_at(
        science,
        target,
        region,
        x=x,
        y=y,
        size=size,
        cell_shape=cell_shape,
        fwhm_at=fwhm_at or box.center,
        pad_science=pad_science,
    )


def sample_at(
    science: PSF,
    target: PSF,
    box: Box,
    *,
    x: FloatArray,
    y: FloatArray,
    size: int,
    cell_shape: tuple[int, int] | None = None,
    fwhm_at: Position | None = None,
    pad_science: bool = False,
) -> SpatialCellSet:
    """Realise both PSFs at given positions over a box; as `sample_cells` in all else, but without a warning.

    The FWHMs are NaN unless there is a position to measure them at.
    """
    check_smooth(science, target)
    shape = odd_shape((size, size), "PSF stamps of the cells")
    skipped: dict[int, str] = {}
    own = science.shape if pad_science else shape
    stamps: list[FloatArray] = [_evaluate(science, x, y, own, skipped), _evaluate(target, x, y, shape, skipped)]
    if own != shape:
        stamps[0] = resized(stamps[0], shape)
    good = np.array([k not in skipped for k in range(x.size)])
    if not good.any():
        first = next(iter(skipped.values()))
        raise MatchError(f"the PSFs could not be evaluated in any of the {x.size} cells: {first}")
    notes = tuple((float(x[k]), float(y[k]), why) for k, why in sorted(skipped.items()))
    widths = [np.nan, np.nan]
    if fwhm_at is not None:
        widths = [_width_at(psf, fwhm_at, x[good], y[good], s) for psf, s in ((science, own), (target, shape))]
    return SpatialCellSet(
        box,
        cell_shape or box.shape,
        x[good],
        y[good],
        stamps[0][good],
        stamps[1][good],
        (widths[0], widths[1]),
        notes,
    )


def _width_at(psf: PSF, where: Position, x: FloatArray, y: FloatArray, shape: tuple[int, int]) -> float:
    """Adaptive-moment FWHM at a position, or at the nearest candidate; of the profile where moments fail."""
    shape = shape if psf.resizable else psf.shape
    try:
        stamp = psf.stamps(x=where.x, y=where.y, shape=shape)[0]
    except PSFError:
        k = int(np.argmin((x - where.x) ** 2 + (y - where.y) ** 2))
        stamp = psf.stamps(x=x[k], y=y[k], shape=shape)[0]
    try:
        return moments_fwhm(stamp)
    except PSFError:
        return profile_fwhm(stamp)


def _evaluate(
    psf: PSF, x: FloatArray, y: FloatArray, shape: tuple[int, int], skipped: dict[int, str]
) -> NDArray[np.float64]:
    """Stamps at all positions at once; one by one where that fails, noting the positions that do."""
    try:
        return np.asarray(psf.stamps(x=x, y=y, shape=shape))
    except PSFError:
        out = np.zeros((x.size, *shape))
        for k in range(x.size):
            try:
                out[k] = psf.stamps(x=x[k], y=y[k], shape=shape)[0]
            except PSFError as error:
                skipped.setdefault(k, str(error))
        return out
