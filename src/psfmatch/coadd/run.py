"""The work itself: patch by patch, here or on other machines, kept on disk and taken up again."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.coadd.combine import combine
from psfmatch.coadd.inputs import Prepared
from psfmatch.coadd.plan import Plan
from psfmatch.errors import InputError, PsfMatchError
from psfmatch.exposure import Mask
from psfmatch.geometry import Box
from psfmatch.machine import processors

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Patch", "Progress", "read_patch", "run_patches"]

RETRIES = 2
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
    count: NDArray[np.uint16]
    clipped: dict[int, int]
    lost: dict[int, str]


def coadd_patch(plan: Plan, box: Box, *, threads: int = 1) -> Patch:
    """Bring all inputs to a patch and combine them; an input that fails is left out of it, and named."""

    def one(source: Prepared) -> Any:
        if not _touch(source.covers, box):
            return None
        try:
            return source.on_patch(box, plan.grid, plan.recipe)
        except (PsfMatchError, OSError) as error:
            return " ".join(str(error).split())

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(one, plan.inputs))
    lost = {s.index: r for s, r in zip(plan.inputs, results, strict=True) if isinstance(r, str)}
    there = [(s, r) for s, r in zip(plan.inputs, results, strict=True) if r is not None and not isinstance(r, str)]
    if not there:
        return _empty(plan, box, lost)
    images = np.stack([r.image for _, r in there]).astype(np.float32, copy=False)
    variances = np.stack([r.variance for _, r in there]).astype(np.float32, copy=False)
    masks = np.stack([_renamed(r.mask, plan) for _, r in there])
    weights = [s.weight for s, _ in there]
    done = combine(images, variances, masks, weights, method=plan.method, planes=plan.planes)
    clipped = {s.index: int(c.sum()) for (s, _), c in zip(there, done.clipped, strict=True)}
    return Patch(
        np.asarray(done.image, np.float32), np.asarray(done.variance, np.float32), done.mask,
        np.asarray(done.count, np.uint16), clipped, lost,
    )  # fmt: skip


def _empty(plan: Plan, box: Box, lost: dict[int, str]) -> Patch:
    mask = np.full(box.shape, 1 << plan.planes["NO_DATA"], np.int32)
    nothing = np.full(box.shape, np.nan, np.float32)
    return Patch(nothing, np.full(box.shape, np.inf, np.float32), mask, np.zeros(box.shape, np.uint16), {}, lost)


def _renamed(mask: Mask, plan: Plan) -> NDArray[np.int32]:
    """The mask with the coadd's bits."""
    if all(plan.planes.get(name) == bit for name, bit in mask.planes.items()):
        return np.asarray(mask.array, np.int32)
    out = np.zeros(mask.array.shape, np.int32)
    for name, bit in mask.planes.items():
        out |= ((mask.array >> bit) & 1).astype(np.int32) << plan.planes[name]
    return out


def _touch(one: Box, other: Box) -> bool:
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1


def run_patches(
    plan: Plan, folder: Path, *, workers: int | None = None, client: Client | str | None = None, resume: bool = False,
    progress: Progress | None = None,
) -> dict[Box, str]:  # fmt: skip
    """Work all patches off into a folder, those that it holds already left alone.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Made, if need be.
    workers : int, optional
        Processes of a local Dask cluster.
    client : dask.distributed.Client or str, optional
        A running cluster, or its address.
    resume : bool
        Go on with what another run has left, which must have had the same plan.
    progress : callable, optional
        Called with the patches done and their number.

    Returns
    -------
    dict
        The patches that failed, and why: they are empty in the coadd.

    Raises
    ------
    InputError
        If the folder holds patches of another plan.
    """
    _claim(folder, plan.signature(), resume=resume)
    patches = plan.patches()
    todo = [(k, box) for k, box in enumerate(patches) if not _file(folder, k).exists()]
    failed: dict[Box, str] = {}
    finished = len(patches) - len(todo)
    if progress is not None:
        progress(finished, len(patches))
    for k, error in _results(plan, folder, todo, workers, client):
        if error:
            failed[patches[k]] = error
        finished += 1
        if progress is not None:
            progress(finished, len(patches))
    return failed


def _results(
    plan: Plan, folder: Path, todo: list[tuple[int, Box]], workers: int | None, client: Client | str | None
) -> Iterator[tuple[int, str]]:
    """The number of each patch as it ends, with what went wrong."""
    if workers is None and client is None:
        for k, box in todo:
            try:
                _work(plan, folder, k, box, processors())
                yield k, ""
            except (PsfMatchError, OSError, MemoryError) as error:
                yield k, f"{type(error).__name__}: {error}"
        return
    distributed = _dask()
    own = None
    try:
        if client is None:
            own = distributed.Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        elif isinstance(client, str):
            own = distributed.Client(client)
        running: Any = client if own is None else own
        shared = running.scatter(plan, broadcast=True, hash=False)
        futures = {running.submit(_work, shared, folder, k, box, 1, pure=False, retries=RETRIES): k for k, box in todo}
        for future in distributed.as_completed(list(futures)):
            wrong = future.exception()
            yield futures[future], "" if wrong is None else f"{type(wrong).__name__}: {wrong}"
            future.release()
    finally:
        if own is not None:
            own.close()


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError("several workers need Dask; pip install 'psfmatch[cluster]'") from error
    return distributed


def _work(plan: Plan, folder: Path, k: int, box: Box, threads: int) -> None:
    """One patch, from the inputs to its file."""
    _write(coadd_patch(plan, box, threads=threads), _file(folder, k))


def _claim(folder: Path, signature: str, *, resume: bool) -> None:
    """Make the folder, or check that it holds what this plan has begun."""
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "plan.json"
    if card.exists():
        known = json.loads(card.read_text(encoding="utf-8")).get("signature")
        if not resume:
            raise InputError(f"{folder} holds the patches of an unfinished coadd: resume it, or remove the folder")
        if known != signature:
            raise InputError(
                f"{folder} holds patches of other inputs or other options: take those again, or remove the folder"
            )
        return
    temporary = card.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"signature": signature, "begun": time.time()}), encoding="utf-8")
    os.replace(temporary, card)


def _file(folder: Path, k: int) -> Path:
    return folder / f"patch-{k:06d}.npz"


def _write(patch: Patch, path: Path) -> None:
    """In one piece or not at all."""
    words = json.dumps({"clipped": patch.clipped, "lost": patch.lost})
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as out:
        try:
            np.savez(out, image=patch.image, variance=patch.variance, mask=patch.mask, count=patch.count, words=words)
            out.flush()
            os.fsync(out.fileno())
        except BaseException:
            os.unlink(out.name)
            raise
    os.replace(out.name, path)


def read_patch(plan: Plan, folder: Path, k: int, box: Box) -> Patch:
    """A patch from its file; an empty one where there is none."""
    path = _file(folder, k)
    if not path.exists():
        return _empty(plan, box, {})
    with np.load(path, allow_pickle=False) as data:
        words = json.loads(str(data["words"]))
        clipped = {int(key): int(value) for key, value in words["clipped"].items()}
        lost = {int(key): str(value) for key, value in words["lost"].items()}
        return Patch(data["image"], data["variance"], data["mask"], data["count"], clipped, lost)
