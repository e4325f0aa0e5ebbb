"""The archives of tables in which afw, Rubin's C++ library, keeps whatever an exposure has besides its pixels.

The HDU ARCHIVE_INDEX lists objects: an id, the name of a class, and which rows of which of the tables behind it hold
its state.  An object refers to others by their ids.  The primary header says which is what: ``ARCHIVE_ID_PSF``
(formerly ``PSF_ID``), ``ARCHIVE_ID_PHOTOCALIB``; a file with nothing but one object has it under id 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError

__all__ = ["Archive", "Record", "calibration_mean", "has_archive"]

INDEX = "ARCHIVE_INDEX"


@dataclass(frozen=True)
class Record:
    """One row of a table, its columns by name (afw writes ``a.x`` and ``a_x`` for the same)."""

    row: Any
    path: str

    def _column(self, name: str) -> str | None:
        return next((n for n in self.row.array.names if n.replace(".", "_").lower() == name.lower()), None)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return self._column(name) is not None

    def array(self, name: str) -> NDArray[Any]:
        """The value as a one-dimensional array in the machine's byte order.

        Raises
        ------
        FormatError
            If there is no such column.
        """
        column = self._column(name)
        if column is None:
            raise FormatError(f"{self.path}: the archive's table has no column {name!r}; it is of an unknown version")
        values = np.atleast_1d(np.asarray(self.row[column]))
        return values.astype(values.dtype.newbyteorder("="))

    def number(self, name: str) -> float:
        """The value as a number."""
        return float(self.array(name)[0])

    def pair(self, name: str) -> tuple[float, float]:
        """A point (x, y): two columns, or in old files one column of two."""
        if self.has(name + "_x"):
            return self.number(name + "_x"), self.number(name + "_y")
        x, y = self.array(name)
        return float(x), float(y)


class Archive:
    """The objects in an archive.

    Parameters
    ----------
    hdus : fits.HDUList
        A file that `has_archive`.

    Raises
    ------
    FormatError
        If the index cannot be read.
    """

    def __init__(self, hdus: fits.HDUList) -> None:
        self.path = str(hdus.filename())
        self._hdus = hdus
        self._start = hdus.index_of(INDEX)
        entries = [Record(row, self.path) for row in hdus[self._start].data]
        self._entries: dict[int, list[Record]] = {}
        for entry in entries:
            self._entries.setdefault(int(entry.number("id")), []).append(entry)

    def kind(self, id: int) -> str:
        """The class of an object.

        Raises
        ------
        FormatError
            If there is no such object.
        """
        if id not in self._entries:
            raise FormatError(f"{self.path}: the archive has no object {id} (it has {sorted(self._entries)})")
        return str(self._entries[id][0].array("name")[0]).strip()

    def records(self, id: int) -> list[list[Record]]:
        """The rows of an object, a list for each of its tables."""
        self.kind(id)
        entries = sorted(self._entries[id], key=lambda entry: entry.number("cat_persistable"))
        return [list(self._rows(entry)) for entry in entries]

    def record(self, id: int, table: int = 0) -> Record:
        """The only row of one of an object's tables."""
        tables = self.records(id)
        if table >= len(tables) or len(tables[table]) != 1:
            raise FormatError(f"{self.path}: the {self.kind(id)} in the archive is of an unknown version")
        return tables[table][0]

    def component(self, name: str) -> int | None:
        """The id of what an exposure calls PSF, PHOTOCALIB, ...; None where it has none."""
        header = self._hdus[0].header
        for card in (f"ARCHIVE_ID_{name}", f"{name}_ID"):
            if isinstance(header.get(card), int):
                return int(header[card]) if int(header[card]) in self._entries else None
        return None

    def _rows(self, entry: Record) -> Iterator[Record]:
        number = self._start + int(entry.number("cat_archive"))
        if number >= len(self._hdus) or not isinstance(self._hdus[number], fits.BinTableHDU):
            raise FormatError(f"{self.path}: the archive's table {number} is missing; the file is cut off or changed")
        table, first = self._hdus[number].data, int(entry.number("row0"))
        rows = table[first : first + int(entry.number("nrows"))]
        return (Record(row, self.path) for row in rows)


def has_archive(hdus: fits.HDUList) -> bool:
    """Whether a file holds an archive."""
    return INDEX in hdus


def calibration_mean(hdus: fits.HDUList) -> float | None:
    """Nanojansky a count, of an exposure's PhotoCalib; None where it has none."""
    if not has_archive(hdus):
        return None
    try:
        archive = Archive(hdus)
        id = archive.component("PHOTOCALIB")
        return None if id is None else archive.record(id).number("calibrationMean")
    except (FormatError, KeyError, ValueError):
        return None
