"""The work itself: patch by patch, here or on other machines, kept on disk and taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.coadd.combine import combine
from psfmatch.coadd.crew import Crew
from psfmatch.coadd.plan import Plan
from psfmatch.coadd.store import Store
from psfmatch.errors import PsfMatchError
from psfmatch.exposure import Mask
from psfmatch.geometry import Box
from psfmatch.machine import one_blas_thread, processors

__all__ = ["Patch", "Progress", "read_patch", "run_patches"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Patch:
    """The coadd on a part of the grid.

    Parameters
    ----------
    image, variance, mask, count : array, shape (ny, nx)
    clipped : dict
        Clipped pixels of each input, by its number.
    lost : dict
        Why inputs are missing here, by their numbers.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.integer[Any]]
    count: NDArray[np.integer[Any]]
    clipped: dict[int, int]
    lost: dict[int, str]


@one_blas_thread()
def coadd_patch(plan: Plan, box: Box, *, threads: int = 1) -> Patch:
    """Bring all inputs to a patch and combine them; an input that fails is left out of it, and named."""
    wide = plan.with_margin(box)
    sources = [source for source in plan.inputs if source.covers.overlap(wide) is not None]
    images, variances, masks = (
        np.empty((len(sources), *wide.shape), kind) for kind in (np.float32, np.float32, np.int32)
    )

    def one(k: int) -> bool | str:
        """Fill one layer of the stack: whether anything is there, or why not."""
        try:
            found = sources[k].on_patch(wide, plan.grid, plan.recipe)
        except (PsfMatchError, OSError) as error:
            return " ".join(str(error).split())
        if found is None:
            return False
        assert found.variance is not None
        images[k], variances[k], masks[k] = found.image, found.variance, _renamed(found.mask, plan)
        return True

    with ThreadPoolExecutor(plan.threads(box, threads)) as pool:
        results = list(pool.map(one, range(len(sources))))
    lost = {s.index: r for s, r in zip(sources, results, strict=True) if isinstance(r, str)}
    there = [k for k, result in enumerate(results) if result is True]
    if not there:
        return _empty(plan, box, lost)
    for to, k in enumerate(there):
        if to != k:
            images[to], variances[to], masks[to] = images[k], variances[k], masks[k]
    images, variances, masks = images[: len(there)], variances[: len(there)], masks[: len(there)]
    used = [sources[k] for k in there]
    done = combine(images, variances, masks, [s.weight for s in used], method=plan.method, planes=plan.planes)
    inner = box.slices(wide)
    clipped = {s.index: int(c[inner].sum()) for s, c in zip(used, done.clipped, strict=True)}
    return Patch(
        np.asarray(done.image[inner], np.float32), np.asarray(done.variance[inner], np.float32), done.mask[inner],
        np.asarray(done.count[inner], plan.count_type), clipped, lost,
    )  # fmt: skip


def _empty(plan: Plan, box: Box, lost: dict[int, str]) -> Patch:
    mask = np.full(box.shape, 1 << plan.planes["NO_DATA"], np.int32)
    nothing = np.full(box.shape, np.nan, np.float32)
    return Patch(nothing, np.full(box.shape, np.inf, np.float32), mask, np.zeros(box.shape, plan.count_type), {}, lost)


def _renamed(mask: Mask, plan: Plan) -> NDArray[np.int32]:
    """The mask with the coadd's bits."""
    if all(plan.planes.get(name) == bit for name, bit in mask.planes.items()):
        return np.asarray(mask.array, np.int32)
    out = np.zeros(mask.array.shape, np.int32)
    for name, bit in mask.planes.items():
        out |= ((mask.array >> bit) & 1).astype(np.int32) << plan.planes[name]
    return out


def run_patches(
    plan: Plan, store: Store, *, crew: Crew | None = None, progress: Progress | None = None
) -> dict[Box, str]:
    """Work all patches off into a store, those that it holds already left alone.

    Parameters
    ----------
    plan : Plan
    store : Store
    crew : Crew, optional
        Who does it; default this process.
    progress : callable, optional
        Called with the patches done and their number: first with those that the store holds.

    Returns
    -------
    dict
        The patches that failed, and why: they are empty in the coadd.
    """
    crew = Crew() if crew is None else crew
    patches = sorted(plan.patches, key=lambda box: -plan.bytes_of(box, 1))  # what takes long does not come last
    todo = {box: (box,) for box in patches if not _is_done(store, box, plan.signature)}
    failed: dict[Box, str] = {}
    finished = len(patches) - len(todo)
    if progress is not None:
        progress(finished, len(patches))
    for box, _, wrong in crew.each(_work, (plan, store), todo):
        if wrong:
            failed[box] = wrong
        finished += 1
        if progress is not None:
            progress(finished, len(patches))
    return failed


def _work(shared: tuple[Plan, Store], box: Box) -> None:
    """One patch, from the inputs to its file."""
    plan, store = shared
    _write(coadd_patch(plan, box, threads=processors()), store, box, plan.signature)


def _write(patch: Patch, store: Store, box: Box, signature: str) -> None:
    store.keep(
        _name(box), {"clipped": patch.clipped, "lost": patch.lost, "belongs": signature},
        image=patch.image, variance=patch.variance, mask=patch.mask, count=patch.count,
    )  # fmt: skip


def _is_done(store: Store, box: Box, signature: str) -> bool:
    """Whether there is such a patch, of the same plan, with all inputs."""
    words = store.words(_name(box))
    return words is not None and words["belongs"] == signature and not words["lost"]


def _name(box: Box) -> str:
    return "patch-" + "-".join(f"{edge:06d}" for edge in astuple(box))


def read_words(store: Store, box: Box) -> tuple[dict[int, int], dict[int, str]]:
    """What was clipped of each input, and which were lost; nothing where there is no patch."""
    words = store.words(_name(box)) or {"clipped": {}, "lost": {}}
    return {int(k): int(n) for k, n in words["clipped"].items()}, {int(k): str(v) for k, v in words["lost"].items()}


def read_patch(plan: Plan, store: Store, box: Box) -> Patch:
    """A patch from its file; an empty one where there is none."""
    data = store.arrays(_name(box))
    if data is None or json.loads(str(data["words"]))["belongs"] != plan.signature:
        return _empty(plan, box, {})
    return Patch(data["image"], data["variance"], data["mask"], data["count"], *read_words(store, box))
