"""What a coadd has come to so far, kept in a folder: taken up again after an interruption."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import Box
from psfmatch.io.files import atomic_output, not_written

__all__ = ["Store"]

CARD = "coadd.json"
SHOWN = 3
WIDEST = 60


@dataclass(frozen=True)
class Store:
    """A folder of things that are finished: kernels of inputs, patches.

    Each is one file, which is there as a whole or not at all.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    @classmethod
    def claimed(cls, folder: Path, request: Mapping[str, str], *, resume: bool = False) -> Store:
        """A folder for one coadd: a new one, or with ``resume`` one that was begun for the very same.

        Parameters
        ----------
        folder : Path
            Made, if need be.
        request : mapping of str to str
            All that the coadd depends on, see `psfmatch.coadd.request.requested`.
        resume : bool
            Go on with what the folder holds.

        Raises
        ------
        InputError
            If the folder holds another coadd, whose differences are named; or holds one and is not to be resumed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder)
        card = folder / CARD
        with suppress(FileExistsError), atomic_output(card, overwrite=False) as out:
            out.write(json.dumps(dict(request), indent=1).encode())
            return store
        if not resume:
            raise InputError(
                f"{folder} holds what an unfinished coadd has done: resume it (--resume), or remove the folder"
            )
        try:
            known = json.loads(card.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{card} is damaged ({error}): remove the folder") from error
        if not isinstance(known, dict):
            raise InputError(f"{card} is damaged: remove the folder")
        if known != dict(request):
            raise InputError(
                f"{folder} was begun with other inputs or other options ({_differences(known, request)}): take those "
                "again, or remove the folder"
            )
        return store

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works in the folder meanwhile; a kill releases it as well.

        Where the file system knows no locks, nothing is held.

        Raises
        ------
        InputError
            If another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with open(self.folder / CARD, "r+b") as card:
            try:
                fcntl.flock(card, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.folder}: another process works in it: wait until it has ended") from error
            except OSError:
                pass
            yield

    def keep(self, name: str, words: Mapping[str, Any], **arrays: NDArray[Any]) -> None:
        """Numbers and texts that JSON knows, and arrays, under a name."""
        with atomic_output(self._file(name), overwrite=True) as out:
            np.savez(out, words=json.dumps(dict(words)), **arrays)  # type: ignore[arg-type]

    def words(self, name: str) -> dict[str, Any] | None:
        """The words under a name; None where there is nothing."""
        found = self._read(name, ("words",))
        try:
            words = None if found is None else json.loads(str(found["words"]))
        except (ValueError, RecursionError):
            return None
        return words if isinstance(words, dict) else None

    def arrays(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays under a name; None where there is nothing."""
        return self._read(name, None)

    def _read(self, name: str, keys: tuple[str, ...] | None) -> dict[str, NDArray[Any]] | None:
        try:
            with open(self._file(name), "rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as data:
                return {key: data[key] for key in (data.files if keys is None else keys)}
        except FileNotFoundError:
            return None
        except Exception:  # whatever zipfile and numpy raise
            return None  # damaged by the disk: as good as not there

    def unpack(self, name: str, exposure: Exposure) -> Path:
        """The planes of an exposure as files that can be mapped.

        Raises
        ------
        OSError
            If they cannot be written; nothing is left behind.
        """
        folder = self.folder / name
        if folder.exists():
            return folder
        scratch = folder.with_name(f".{name}.{secrets.token_hex(4)}")
        planes = {"image": exposure.image, "variance": exposure.variance, "mask": exposure.mask.array}
        try:
            scratch.mkdir()
            for plane, array in planes.items():
                if array is not None:
                    np.save(scratch / f"{plane}.npy", array)
            try:
                os.replace(scratch, folder)
            except OSError:
                if not folder.is_dir():  # where it is, another process was faster
                    raise
        except OSError as error:
            raise not_written(folder, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return folder

    def tidy(self) -> None:
        """Remove the folder if nothing is kept in it."""
        if self.folder.exists() and {path.name for path in self.folder.iterdir()} == {CARD}:
            self.remove()

    def remove(self) -> None:
        """The folder and all in it."""
        shutil.rmtree(self.folder)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def mapped_planes(folder: Path, *, box: Box, wcs: Any, planes: Mapping[str, int]) -> Exposure:
    """The exposure whose planes `Store.unpack` has put into a folder, where they stay."""
    variance = folder / "variance.npy"
    return Exposure(
        np.load(folder / "image.npy", mmap_mode="r"),
        variance=np.load(variance, mmap_mode="r") if variance.exists() else None,
        mask=Mask(np.load(folder / "mask.npy", mmap_mode="r"), planes), box=box, wcs=wcs,
    )  # fmt: skip


def _differences(known: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The first few entries that differ, in words."""
    words = []
    for name in [*known, *(name for name in wanted if name not in known)]:
        was, now = known.get(name), wanted.get(name)
        if was == now:
            continue
        if was is None or now is None:
            words.append(f"{name} is {'new' if was is None else 'missing'}")
        elif max(len(was), len(now)) > WIDEST:
            words.append(f"{name} has changed")
        else:
            words.append(f"{name} was {was}, is {now}")
    more = len(words) - SHOWN
    return "; ".join(words[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
