"""``coadd``: many exposures, one PSF, one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.coadd.combine import CombineMethod
from psfmatch.coadd.crew import Crew
from psfmatch.coadd.plan import Plan, Row, planned
from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.request import GridLike, TargetLike, method_of
from psfmatch.coadd.run import Progress, read_patch, read_words, run_patches
from psfmatch.coadd.sources import CoaddInput
from psfmatch.coadd.store import Store
from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask, Planes
from psfmatch.geometry import Box
from psfmatch.io.files import temporary_folder
from psfmatch.machine import forget
from psfmatch.warp import Grid

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Coadd", "assembled", "coadd", "run_coadd", "write_coadd"]

Source = CoaddInput | Exposure | str | PathLike[str]


@dataclass(frozen=True, eq=False)
class Coadd:
    """The sum of many exposures, and what went into it.

    Parameters
    ----------
    exposure : Exposure
        Image, variance and mask on the grid; its PSF is the target.
    count : array of integers, shape (ny, nx)
        How many inputs were used in each pixel.
    correlation : NoiseCorrelation
        Of the noise of neighbouring pixels, in each cell of 128 px that of the inputs that hold its middle.
    rows : tuple of Row
        The table of inputs, those left out among them.
    grid : Grid
        Whose pixels these are.
    failed : dict
        The parts of the grid that could not be made, and why.
    """

    exposure: Exposure
    count: NDArray[np.integer[Any]]
    correlation: NoiseCorrelation
    rows: tuple[Row, ...]
    grid: Grid
    failed: dict[Box, str]


def coadd(
    inputs: Sequence[Source],
    *,
    target: TargetLike = "auto",
    grid: GridLike = "auto",
    combine: str | CombineMethod = "clipped-mean",
    workers: int | None = None,
    client: Client | str | None = None,
    recipe: Recipe | None = None,
) -> Coadd:
    """Match exposures to one PSF, bring them to one grid, and combine them.

    Parameters
    ----------
    inputs : sequence of Exposure, path or CoaddInput
        Each with its PSF model, WCS and variance.  What cannot be used is left out, and the table says why.
    target : PSF, array, str, path or function
        The PSF of the coadd, in pixels of the grid; words such as ``"gaussian:fwhm=1.3arcsec"``; or ``"auto"``, the
        smallest Moffat that every input reaches (``"auto:gaussian"`` of another family; or
        ``functools.partial(common_target, ...)`` with its options, see `common_target`).
    grid : Grid, header, path, function or "auto"
        ``auto``: gnomonic, at the mean position and scale, holding all inputs (see `Grid.auto`; with its options
        ``functools.partial(Grid.auto, ...)``).
    combine : str or method
        ``clipped-mean``, ``mean``, ``median``; or `ClippedMean` and its like with options.
    workers : int, optional
        Processes of a local Dask cluster; default this process alone.
    client : dask.distributed.Client or str, optional
        A running cluster, or its address.
    recipe : Recipe, optional
        How the exposures are brought to the grid.

    Returns
    -------
    Coadd
        The exposure on the grid, and what went into it.

    Raises
    ------
    InputError
        If no input can be used, or an option is wrong.
    MatchError
        If no kernel was found for any input, or there is no common target.
    OSError
        If there is no room for temporary files, 14 bytes a pixel of the grid (and with workers those exposures that
        are in memory); they go to the folder that ``TMPDIR`` names.
    """
    sources = [_input(one, k) for k, one in enumerate(inputs)]
    request: dict[str, Any] = {
        "target": target, "grid": grid, "method": method_of(combine), "recipe": Recipe() if recipe is None else recipe
    }  # fmt: skip
    with temporary_folder("psfmatch-coadd-") as folder, Crew.of(workers, client) as crew:
        store = Store(folder)
        return run_coadd(planned(sources, **request, store=store, crew=crew), store, crew=crew)


def run_coadd(plan: Plan, store: Store, *, crew: Crew | None = None, progress: Progress | None = None) -> Coadd:
    """Work a plan off, with its patches in a store, into memory; parameters as of `run_patches`."""
    failed = run_patches(plan, store, crew=crew, progress=progress)
    shape = plan.grid.shape
    planes = Planes(np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int32))
    count = np.empty(shape, plan.count_type)
    assembled(plan, store, planes, count)
    mask = Mask(planes.mask, plan.planes)
    exposure = blank(plan).replace(image=planes.image, variance=planes.variance, mask=mask, history=plan.history)
    return Coadd(exposure, count, plan.correlation(), table(plan, store), plan.grid, failed)


def blank(plan: Plan) -> Exposure:
    """The coadd's exposure without its pixels, which take no memory."""
    shape = plan.grid.shape
    nothing = np.broadcast_to(np.float32(0.0), shape)
    meta = {} if plan.zero_point is None else {"MAGZERO": plan.zero_point}
    return Exposure(
        nothing, variance=nothing, mask=Mask(np.broadcast_to(np.int32(0), shape), plan.planes), psf=plan.target,
        wcs=plan.grid.wcs, unit=plan.unit, meta=meta, history=plan.history,
    )  # fmt: skip


def table(plan: Plan, store: Store) -> tuple[Row, ...]:
    """The table of inputs, with what was clipped and lost."""
    clipped: dict[int, int] = {}
    lost: dict[int, list[str]] = {}
    for box in plan.patches:
        numbers, reasons = read_words(store, box)
        for index, number in numbers.items():
            clipped[index] = clipped.get(index, 0) + number
        for index, why in reasons.items():
            lost.setdefault(index, []).append(why)
    rows = list(plan.rows)
    for one in plan.inputs:
        words = f"missing in {len(lost[one.index])} patches: {lost[one.index][0]}" if one.index in lost else ""
        rows[one.index] = replace(rows[one.index], clipped=clipped.get(one.index, 0), reason=words)
    return tuple(rows)


def assembled(plan: Plan, store: Store, planes: Planes, count: NDArray[np.integer[Any]]) -> None:
    """Put the patches where they belong."""
    for box in plan.patches:
        patch = read_patch(plan, store, box)
        where = box.slices(plan.grid.box)
        planes.image[where], planes.variance[where], planes.mask[where] = patch.image, patch.variance, patch.mask
        count[where] = patch.count
        del patch  # before the next is read
        forget(*planes, count)


def write_coadd(plan: Plan, store: Store, path: str | PathLike[str], *, overwrite: bool = False) -> tuple[Row, ...]:
    """The patches of a plan as one FITS file, patch by patch.

    IMAGE, MASK, VARIANCE and PSF as of every exposure; NEXP, the number of inputs in each pixel; NOISE and
    NOISE_WEIGHTS, the correlation of neighbours; INPUTS, a table with a row an input; PROVENANCE as of every exposure.

    Returns
    -------
    tuple of Row
        The table of inputs.
    """
    from astropy.io import fits

    from psfmatch.io import correlation_hdus, layered_output
    from psfmatch.io.fits import table_hdu

    rows = table(plan, store)
    names = list(Row.__dataclass_fields__)
    inputs = table_hdu([_column(fits, name, [getattr(row, name) for row in rows]) for name in names], name="INPUTS")
    count = np.broadcast_to(plan.count_type.type(0), plan.grid.shape)
    more = [*correlation_hdus(plan.correlation()), inputs]
    with layered_output(blank(plan), path, {"NEXP": count}, overwrite=overwrite, more=more) as (planes, layers):
        assembled(plan, store, planes, layers["NEXP"])
    return rows


def _column(fits: Any, name: str, values: list[Any]) -> Any:
    if isinstance(values[0], bool):
        return fits.Column(name, "L", array=np.array(values))
    if isinstance(values[0], int):
        return fits.Column(name, "K", array=np.array(values))
    if isinstance(values[0], float):
        return fits.Column(name, "D", array=np.array(values))
    words = [str(value).encode("ascii", "replace").decode() for value in values]
    return fits.Column(name, f"{max(1, *map(len, words))}A", array=np.array(words))


def _input(source: Source, k: int) -> CoaddInput:
    if isinstance(source, CoaddInput):
        return source if source.label else replace(source, name=f"input {k + 1}")
    if isinstance(source, Exposure):
        return CoaddInput(source, name=f"input {k + 1}")
    if isinstance(source, str | PathLike):
        return CoaddInput(source)
    raise InputError(f"input {k + 1} of type {type(source).__name__}: give an Exposure, a path, or a CoaddInput")
