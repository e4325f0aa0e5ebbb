"""The exposures of a coadd, in memory or in files."""

from __future__ import annotations

import hashlib
import pickle
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.exposure import Exposure, Mask
from psfmatch.geometry import no_unit
from psfmatch.io import read_exposure
from psfmatch.io.exposures import files_of_exposure
from psfmatch.machine import is_mapped
from psfmatch.psf import PSF
from psfmatch.regions import RegionsPSF, alone

__all__ = ["CoaddInput", "bare", "digest_of_psf", "digest_of_wcs", "identity_of_file", "rounded"]

OPEN = 16
_lock = threading.RLock()
_opened: OrderedDict[str, Exposure] = OrderedDict()


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

    Raises
    ------
    InputError
        If the zero point is not finite, or has a unit.
    """

    source: Exposure | str | PathLike[str]
    name: str = ""
    zero_point: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    region: int | None = None

    def __post_init__(self) -> None:
        no_unit(self.zero_point, "zero_point", "a magnitude")
        if self.zero_point is not None and not np.isfinite(self.zero_point):
            raise InputError(f"zero_point={self.zero_point!r}: give a finite magnitude, or None")

    def open(self, *, again: bool = False) -> Exposure:
        """The exposure, or one region of it; the planes of a plain FITS file stay in it.

        Parameters
        ----------
        again : bool
            It was read before: what may be said about it was said, and what is mapped may be as it was found then.

        Raises
        ------
        InputError
            If it has no such region.
        """
        return self.part_of(self._opened(again=again))

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

    def _opened(self, *, again: bool) -> Exposure:
        if isinstance(self.source, Exposure):
            return self.source.replace(wcs=rounded(self.source.wcs))
        if not again:
            return read_exposure(self.source, memmap=True, **self.options)
        with _lock, warnings.catch_warnings():  # filters belong to the whole process
            warnings.simplefilter("ignore", PsfMatchWarning)
            key = self.identity()
            found = _opened.pop(key, None)
            if found is None:
                found = read_exposure(self.source, memmap=True, **self.options)
            if is_mapped(found.image):
                _opened[key] = found
                while len(_opened) > OPEN:
                    _opened.popitem(last=False)
            return found

    @property
    def label(self) -> str:
        """The name, or what there is instead."""
        if self.name or isinstance(self.source, Exposure):
            return self.name
        return Path(self.source).name

    def identity(self) -> str:
        """What changes when the exposure does: of files the sizes and times of change, else a checksum."""
        if isinstance(self.source, Exposure):
            return f"{_digest_of_exposure(self.source)}, zero point {self.zero_point}"
        files = [identity_of_file(file) for file in files_of_exposure(self.source, **self.options)]
        options = [
            f"{name}={digest_of_psf(value) if isinstance(value, PSF) else value}"
            for name, value in self.options.items()
        ]
        return ", ".join([fspath(self.source), *files, *options, f"zero point {self.zero_point}"])


def rounded(wcs: Any) -> Any:
    """A WCS as other processes get it: astropy's keeps some 14 digits on the way to them, and the next time all."""
    return pickle.loads(pickle.dumps(wcs))


def bare(exposure: Exposure) -> Exposure:
    """An exposure without its pixels, which take no memory."""
    nothing = np.broadcast_to(np.float32(0.0), exposure.shape)
    return exposure.replace(
        image=nothing, variance=None if exposure.variance is None else nothing,
        mask=Mask(np.broadcast_to(np.int32(0), exposure.shape), exposure.mask.planes),
    )  # fmt: skip


def identity_of_file(path: Path) -> str:
    """Name, size and time of change."""
    if not path.exists():
        return f"{path.name} (missing)"
    status = path.stat()
    return f"{path.name} of {status.st_size} bytes and {status.st_mtime_ns}"


def digest_of_psf(psf: PSF, *, x: float = 0.0, y: float = 0.0) -> str:
    """Of its stamp at a position; of regions, of the stamp of each and of where they lie."""
    if isinstance(psf, RegionsPSF):
        parts = [digest_of_psf(one, x=x, y=y) for one in psf.psfs.values()]
        labels = np.ascontiguousarray(psf.regions.labels).tobytes()
        return hashlib.sha256(labels + " ".join(parts).encode()).hexdigest()[:16]
    return hashlib.sha256(np.ascontiguousarray(psf.stamps(x=x, y=y)).tobytes()).hexdigest()[:16]


def digest_of_wcs(wcs: Any) -> str:
    """Of what it is written as, or of where it puts some pixels."""
    text = wcs.to_header_string(relax=True) if hasattr(wcs, "to_header_string") else ""
    places = np.array([[0.0, 100.0, 17.0], [0.0, 31.0, 200.0]])
    sky = np.asarray(getattr(wcs, "low_level_wcs", wcs).pixel_to_world_values(*places), float)
    return hashlib.sha256(text.encode() + sky.tobytes()).hexdigest()[:16]


def _digest_of_exposure(exposure: Exposure) -> str:
    digest = hashlib.sha256()
    for plane in (exposure.image, exposure.variance, exposure.mask.array):
        if plane is not None:
            digest.update(np.ascontiguousarray(plane).data)
    if exposure.wcs is not None:
        digest.update(digest_of_wcs(exposure.wcs).encode())
    if exposure.psf is not None:
        box = exposure.box
        for x, y in ((box.center.x, box.center.y), (box.x0, box.y0), (box.x1 - 1, box.y0), (box.x0, box.y1 - 1)):
            digest.update(digest_of_psf(exposure.psf, x=x, y=y).encode())
    digest.update(repr((exposure.box, exposure.unit, sorted(map(repr, exposure.meta.items())))).encode())
    return digest.hexdigest()[:16]
