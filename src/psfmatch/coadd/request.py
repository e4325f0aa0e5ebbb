"""What is asked of a coadd: its grid, its target and the way to combine, found and said in words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import FunctionType
from typing import Any

from numpy.typing import ArrayLike

from psfmatch.coadd.combine import ClippedMean, CombineMethod, Mean, Median
from psfmatch.coadd.inputs import covered, transform_to
from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.sources import CoaddInput, digest_of_psf, digest_of_wcs, identity_of_file
from psfmatch.coadd.store import Store
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.io import read_psf
from psfmatch.provenance import History, release
from psfmatch.psf import PSF, DoubleGaussianPSF, GaussianPSF, ImagePSF, MoffatPSF, words_of_psf
from psfmatch.target import common_target
from psfmatch.warp import Grid, WarpedPSF

__all__ = ["GridLike", "TargetLike", "grid_of", "history_of", "method_of", "requested", "target_of"]

TargetLike = PSF | ArrayLike | str | PathLike[str] | Callable[[Mapping[str, PSF]], PSF]
"""A model, a stamp (sy, sx), words or a file; or a function that finds one for the PSFs of all inputs, by name, as they
are on the grid."""
GridLike = Grid | Mapping[str, Any] | str | PathLike[str] | Callable[[Sequence[Exposure]], Grid]
"""A grid, a header, a file with one; or a function that makes one for the exposures."""

METHODS: dict[str, Callable[[], CombineMethod]] = {"mean": Mean, "median": Median, "clipped-mean": ClippedMean}
MODELS = {model.__name__: model for model in (DoubleGaussianPSF, GaussianPSF, MoffatPSF)}


def method_of(combine: str | CombineMethod) -> CombineMethod:
    """The method of a name, or itself."""
    if not isinstance(combine, str):
        return combine
    if combine not in METHODS:
        raise InputError(f"combine={combine!r}: choose {', '.join(METHODS)}, or give Mean(), Median(), ClippedMean()")
    return METHODS[combine]()


def grid_of(grid: GridLike, exposures: Sequence[Exposure]) -> Grid:
    """The grid that was asked for."""
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


def target_of(
    target: TargetLike, grid: Grid, inputs: Sequence[CoaddInput], opened: Mapping[int, Exposure], store: Store | None,
    say: Callable[[str], None],
) -> PSF:  # fmt: skip
    """The target on the grid: as given, or searched for the PSFs of all inputs where they are (and kept)."""
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
    known = None if store is None else _kept_target(store, sorted(opened))
    if known is not None:
        return known
    say("searching the target")
    seen: dict[str, PSF] = {}
    for k, exposure in opened.items():
        transform = transform_to(exposure, grid)
        box = covered(exposure, transform, grid)
        if box is None or exposure.psf is None:
            continue
        name, psf = inputs[k].label, WarpedPSF(exposure.psf, transform, at=box.center, field=box)
        seen[f"{name} (input {k + 1})" if name in seen else name] = (
            ImagePSF(psf.stamps(x=box.center.x, y=box.center.y)[0]) if exposure.psf.constant else psf
        )
    found = search(seen)
    if store is not None:
        _keep_target(store, found, sorted(opened))
    return found


def _keep_target(store: Store, target: PSF, inputs: list[int]) -> None:
    if isinstance(target, ImagePSF):
        store.keep("target", {"of": inputs}, image=target.image)
    elif type(target).__name__ in MODELS:
        values = {f.name: getattr(target, f.name) for f in fields(target)}  # type: ignore[arg-type]
        store.keep("target", {"of": inputs, "model": type(target).__name__, "values": values})


def _kept_target(store: Store, inputs: list[int]) -> PSF | None:
    """What was found for these inputs before."""
    words, arrays = store.words("target"), store.arrays("target")
    if words is None or arrays is None or words["of"] != inputs:
        return None
    return MODELS[words["model"]](**words["values"]) if "model" in words else ImagePSF(arrays["image"])


def requested(
    inputs: Sequence[CoaddInput], *, target: TargetLike, grid: GridLike, method: CombineMethod, recipe: Recipe
) -> dict[str, str]:
    """All that a coadd depends on, in words: what was asked for, and which state the inputs are in.

    The size of the patches is not among them.
    """
    asked = asked_for(target=target, grid=grid, method=method, recipe=recipe)
    files = {
        f"file of the {name}": identity_of_file(Path(value))
        for name, value in (("target", target), ("grid", grid))
        if isinstance(value, str | PathLike) and Path(value).is_file()
    }
    states = {f"input {k + 1} ({one.label})": one.identity() for k, one in enumerate(inputs)}
    return {"version": release()} | asked | files | states


def asked_for(*, target: TargetLike, grid: GridLike, method: CombineMethod, recipe: Recipe) -> dict[str, str]:
    """What was asked for, in words."""
    options = {name: repr(value) for name, value in vars(recipe).items() if name not in ("memory", "patch")}
    return {"target": _said(target), "grid": _said(grid), "combine": repr(method)} | options


def history_of(
    inputs: Sequence[CoaddInput], exposures: Sequence[Exposure], *, target: TargetLike, grid: GridLike,
    method: CombineMethod, recipe: Recipe,
) -> History:  # fmt: skip
    """From which files, and how, a coadd is made; ``exposures`` are those inputs that could be read."""
    files = dict.fromkeys(file for exposure in exposures for file in exposure.history.files)
    said = asked_for(target=target, grid=grid, method=method, recipe=recipe)
    for one in inputs:
        said |= {f"{name} of {one.label}": words_of_psf(value) for name, value in one.options.items()}
        if one.zero_point is not None:
            said[f"zero point of {one.label}"] = repr(float(one.zero_point))
    return History(tuple(files)).then(
        "coadd", said, files=[value for value in (target, grid) if isinstance(value, str | PathLike)]
    )


def _said(option: Any) -> str:
    """A target or a grid in words."""
    if isinstance(option, str | PathLike):
        return fspath(option)
    if isinstance(option, Grid):
        return f"{option.shape} {digest_of_wcs(option.wcs)}"
    if isinstance(option, Mapping):
        return hashlib.sha256(repr(sorted(map(repr, option.items()))).encode()).hexdigest()[:16]
    if isinstance(option, partial):
        return f"{option.func.__qualname__} {option.args} {sorted(option.keywords.items())}"
    if isinstance(option, FunctionType):
        return option.__qualname__
    psf = read_psf(option)
    return f"{psf!r} {digest_of_psf(psf)}"
