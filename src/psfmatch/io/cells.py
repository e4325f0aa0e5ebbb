"""What a kernel was solved from, in a matched file: the cells with their stamps, and what the solver noted.

``CELLS``
    a table with a row a cell: X, Y, and REASON, which is empty where both PSFs could be evaluated.  Cards: the box
    that the cells cover, CELLNX and CELLNY, the FWHMs FWHMS and FWHMT.
``CELLS_SCIENCE``, ``CELLS_TARGET``
    the stamps (n, s, s) of the cells without a reason, or (1, s, s) where all are the same; float32, without the rim
    in which everything is fainter than that can tell from the peak.
``STATISTICS``
    a table of one row with the arrays among what the solver noted; the plain values are ``STAT`` cards of KERNEL,
    or of LABELS where each region has a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.cells import SpatialCellSet
from psfmatch.errors import FormatError
from psfmatch.geometry import Box, FloatArray, resized
from psfmatch.io.files import PathLike, split_extension
from psfmatch.io.fits import native, open_fits, table_hdu
from psfmatch.io.regions import LABELS

__all__ = ["cell_hdus", "read_cells", "read_notes", "statistics_hdus"]

FAINTEST = 1e-7
"""Of the peak: the last digit of float32."""


def cell_hdus(cells: SpatialCellSet) -> list[Any]:
    """The cells as a table and the two sets of stamps."""
    skipped = cells.skipped
    words = [""] * len(cells) + [why.encode("ascii", "replace").decode() for _, _, why in skipped]
    columns = [
        fits.Column("X", "D", array=np.concatenate([cells.x, [x for x, _, _ in skipped]])),
        fits.Column("Y", "D", array=np.concatenate([cells.y, [y for _, y, _ in skipped]])),
        fits.Column("REASON", f"{max(1, *map(len, words))}A", array=np.array(words)),
    ]
    table = table_hdu(columns, name="CELLS")
    box, (ny, nx) = cells.box, cells.cell_shape
    cards = {"BOXX0": box.x0, "BOXY0": box.y0, "BOXX1": box.x1, "BOXY1": box.y1, "CELLNX": nx, "CELLNY": ny}
    table.header.update(cards)
    for key, width in zip(("FWHMS", "FWHMT"), cells.fwhm, strict=True):
        table.header[key] = float(width) if np.isfinite(width) else None
    return [
        table,
        fits.ImageHDU(_compact(cells.science), name="CELLS_SCIENCE"),
        fits.ImageHDU(_compact(cells.target), name="CELLS_TARGET"),
    ]


def _compact(stamps: FloatArray) -> Any:
    """One stamp for all, if they are the same; without a rim of nothing."""
    some = stamps[:1] if (stamps == stamps[:1]).all() else stamps
    peak = np.abs(some).max(axis=(1, 2), keepdims=True)
    rows, columns = np.nonzero((np.abs(some) > FAINTEST * peak).any(axis=0))
    middle = stamps.shape[1] // 2
    reach = max(1, int(np.abs(rows - middle).max()), int(np.abs(columns - middle).max()))
    return np.array(resized(some, (2 * reach + 1, 2 * reach + 1)), np.float32)


def read_cells(path: PathLike) -> SpatialCellSet:
    """Read the cells that a matched exposure was solved from.

    The stamps have the precision of float32, on a frame that holds the larger of the two.

    Parameters
    ----------
    path : path or str
        A matched exposure.

    Returns
    -------
    SpatialCellSet
        With the positions where no PSF could be evaluated, and why.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged or holds no cells.
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        missing = [name for name in ("CELLS", "CELLS_SCIENCE", "CELLS_TARGET") if name not in hdus]
        if missing:
            raise FormatError(
                f"{file}: holds no {missing[0]}; give an exposure matched by psfmatch (one of an early version is to "
                "be matched again)"
            )
        header, rows = hdus["CELLS"].header, hdus["CELLS"].data
        x, y = (native(rows[name]) for name in "XY")
        why = [str(word).strip() for word in rows["REASON"]]
        science, target = (native(hdus[f"CELLS_{name}"].data).astype(float) for name in ("SCIENCE", "TARGET"))
        good = np.array([not word for word in why])
        side, count = max(science.shape[1], target.shape[1]), int(np.count_nonzero(good))
        return SpatialCellSet(
            box=Box(header["BOXY0"], header["BOXX0"], header["BOXY1"], header["BOXX1"]),
            cell_shape=(header["CELLNY"], header["CELLNX"]),
            x=x[good],
            y=y[good],
            science=np.broadcast_to(resized(science, (side, side)), (count, side, side)),
            target=np.broadcast_to(resized(target, (side, side)), (count, side, side)),
            fwhm=(_number(header.get("FWHMS")), _number(header.get("FWHMT"))),
            skipped=tuple((float(x[k]), float(y[k]), why[k]) for k in np.flatnonzero(~good)),
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def statistics_hdus(statistics: Mapping[str, Any]) -> list[Any]:
    """The arrays among the statistics as a table of one row; nothing, if there are none."""
    arrays = {key: np.asarray(v) for key, v in statistics.items() if isinstance(v, np.ndarray | tuple | list)}
    kinds = {"b": "L", "i": "K", "u": "K", "f": "D"}
    columns = [
        fits.Column(
            key.upper(), f"{array.size}{kinds[array.dtype.kind]}", array=array.reshape(1, -1),
            dim=str(array.shape[::-1]) if array.ndim > 1 else None,
        )
        for key, array in arrays.items() if array.size and array.dtype.kind in kinds
    ]  # fmt: skip
    return [table_hdu(columns, name="STATISTICS")] if columns else []


def read_notes(path: PathLike) -> tuple[str, dict[str, Any]]:
    """The name of the outcome, and the statistics, of a matched exposure.

    Parameters
    ----------
    path : path or str
        A matched exposure.

    Returns
    -------
    str
        The name of the `Outcome`.
    dict
        What the solver noted, by its names; NaN where a number was not known.

    Raises
    ------
    FormatError
        If the file is damaged or holds no matched exposure.
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        outcome = hdus[0].header.get("OUTCOME")
        kernel = next((name for name in ("KERNEL", LABELS) if name in hdus), None)
        if outcome is None or kernel is None:
            raise FormatError(f"{file}: says nothing of an outcome; it is not an exposure matched by psfmatch")
        notes = {
            key.removeprefix("STAT ").lower(): float("nan") if isinstance(value, fits.card.Undefined | None) else value
            for key, value in hdus[kernel].header.items() if key.startswith("STAT ")
        }  # fmt: skip
        if "STATISTICS" in hdus:
            rows = hdus["STATISTICS"].data
            notes |= {name.lower(): np.atleast_1d(native(rows[name])[0]) for name in rows.names}
    return str(outcome), notes
