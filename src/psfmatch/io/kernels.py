"""Basis images with smooth weights as a pair of HDUs; matching kernels, noise and figures of merit in files.

``<NAME>``
    an image (n, ky, kx) of float64, the basis;
``<NAME>_WEIGHTS``
    a table of n rows with one column ``COEFFICIENTS`` (n_terms), in the order of `psfmatch.fields.Field`: 1, x, y,
    x^2, xy, y^2, ...  Its cards KIND, BOXX0, BOXY0, BOXX1, BOXY1 hold the kind and the box of the field.

A kernel that jumps at borders is an image ``LABELS`` and a pair ``KERNEL_n`` for each label: `psfmatch.io.regions`.

All numbers are stored as they are in memory: what is read back is equal to the last bit.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import FormatError, InputError
from psfmatch.fields import Field
from psfmatch.geometry import Box, FloatArray
from psfmatch.io.files import PathLike, atomic_output, fits_suffix, split_extension
from psfmatch.io.fits import native, open_fits, table_hdu, write_hdus
from psfmatch.io.headers import box_cards, put_cards
from psfmatch.io.provenance import provenance_hdu
from psfmatch.io.regions import LABELS, labels_hdu, read_regions
from psfmatch.kernel import MatchingKernel
from psfmatch.provenance import History, release
from psfmatch.quality import Quality
from psfmatch.regions import RegionsKernel

if TYPE_CHECKING:
    from psfmatch.match import Matched

__all__ = [
    "basis_hdus",
    "correlation_hdus",
    "kernel_hdus",
    "primary_hdu",
    "quality_hdu",
    "read_basis",
    "read_correlation",
    "read_kernel",
    "read_quality",
    "write_kernel",
]

LARGEST = 1e30  # sums of such figures are finite


def primary_hdu(extensions: int) -> fits.PrimaryHDU:
    """The first HDU of every file of ours."""
    primary = fits.PrimaryHDU()
    primary.header["PSFMATCH"] = (release(), "version of psfmatch that wrote this file")
    primary.header["NEXTEND"] = (extensions, "number of extensions")
    return primary


def basis_hdus(name: str, basis: FloatArray, weights: Field) -> list[Any]:
    """The two HDUs of basis images (n, ky, kx) with their weights."""
    images = fits.ImageHDU(np.array(basis, np.float64), name=name)
    n, terms = weights.coefficients.shape
    column = fits.Column("COEFFICIENTS", f"{terms}D", array=np.array(weights.coefficients).reshape(n, terms))
    rows = table_hdu([column], name=f"{name}_WEIGHTS")
    rows.header["KIND"] = (weights.kind, "kind of the smooth weights")
    for key, value in box_cards(weights.box).items():
        if key.startswith("BOX"):
            rows.header[key] = value
    return [images, rows]


def read_basis(hdus: fits.HDUList, name: str) -> tuple[FloatArray, Field]:
    """The basis images and weights that `basis_hdus` made.

    Raises
    ------
    FormatError
        If they are not there, or do not fit together.
    """
    weights_name = f"{name}_WEIGHTS"
    if name not in hdus or weights_name not in hdus:
        have = ", ".join(hdu.name or "(no name)" for hdu in hdus)
        raise FormatError(f"{hdus.filename()}: holds no {name} and {weights_name}; it has {have}")
    basis = native(hdus[name].data)
    rows, header = hdus[weights_name].data, hdus[weights_name].header
    box = Box(header["BOXY0"], header["BOXX0"], header["BOXY1"], header["BOXX1"])
    coefficients = native(rows["COEFFICIENTS"]).reshape(len(rows), -1)
    return basis, Field(coefficients, box, header["KIND"])


def quality_hdu(quality: Quality) -> fits.BinTableHDU:
    """The figures of merit as a table, a row a position."""
    columns = [fits.Column(f.name.upper(), "D", array=np.array(getattr(quality, f.name))) for f in fields(quality)]
    return table_hdu(columns, name="QUALITY")


def kernel_hdus(kernel: MatchingKernel | RegionsKernel) -> list[Any]:
    """The HDUs of a kernel, which `read_kernel` reads."""
    if isinstance(kernel, MatchingKernel):
        return basis_hdus("KERNEL", kernel.basis, kernel.weights)
    pairs = [basis_hdus(f"KERNEL_{label}", one.basis, one.weights) for label, one in kernel.kernels.items()]
    return [labels_hdu(kernel.regions), *(hdu for pair in pairs for hdu in pair)]


def write_kernel(
    kernel: MatchingKernel | RegionsKernel, path: PathLike, *, overwrite: bool = False, history: History | None = None
) -> None:
    """Write a matching kernel to a FITS file, from which `read_kernel` reads it to the last bit.

    Parameters
    ----------
    kernel : MatchingKernel or RegionsKernel
        The kernel.
    path : path
        Ends in ``.fits`` or ``.fits.gz``.  For the layout see `psfmatch.io.kernels`.
    overwrite : bool
        Replace the file where it exists.
    history : History, optional
        What it was made from and how, for the table PROVENANCE.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    OSError
        If the file cannot be written; nothing is left behind.
    """
    target = Path(path)
    fits_suffix(target)
    with atomic_output(target, overwrite=overwrite) as out:
        hdus = [*kernel_hdus(kernel), provenance_hdu(history or History())]
        write_hdus([primary_hdu(len(hdus)), *hdus], out)


def read_kernel(path: PathLike) -> MatchingKernel | RegionsKernel:
    """Read a matching kernel, from a file of its own or from a matched exposure.

    Parameters
    ----------
    path : path or str
        A file of `write_kernel` or `write_matched`.

    Returns
    -------
    MatchingKernel or RegionsKernel
        In the pixels of the exposure.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged or holds no kernel.

    Examples
    --------
    >>> read_kernel("matched.fits").stamps(x=100, y=200).shape  # doctest: +SKIP
    (1, 21, 21)
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        try:
            if "KERNEL" in hdus or LABELS not in hdus:
                return MatchingKernel(*read_basis(hdus, "KERNEL"))
            regions = read_regions(hdus)
            names = {label: f"KERNEL_{label}" for label in regions.boxes if f"KERNEL_{label}" in hdus}
            return RegionsKernel(regions, {k: MatchingKernel(*read_basis(hdus, name)) for k, name in names.items()})
        except FormatError:
            raise
        except InputError as error:
            raise FormatError(f"{file}: {error}") from error


def correlation_hdus(correlation: NoiseCorrelation) -> list[Any]:
    """A noise correlation as HDUs, which `read_correlation` reads to the last bit.

    Parameters
    ----------
    correlation : NoiseCorrelation
        Of the exposure that they are to follow.

    Returns
    -------
    list of HDUs
        ``NOISE`` and ``NOISE_WEIGHTS``.
    """
    return basis_hdus("NOISE", correlation.basis, correlation.weights)


def read_correlation(path: PathLike) -> NoiseCorrelation:
    """Read the noise correlation that an exposure or a coadd carries.

    Parameters
    ----------
    path : path or str
        A file with the HDUs of `correlation_hdus`.

    Returns
    -------
    NoiseCorrelation
        In the pixels of the exposure.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged or holds no noise correlation.
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        basis, weights = read_basis(hdus, "NOISE")
        try:
            return NoiseCorrelation(basis, weights)
        except InputError as error:
            raise FormatError(f"{file}: {error}") from error


def read_quality(path: PathLike) -> Quality:
    """Read the figures of merit that a matched exposure carries.

    Parameters
    ----------
    path : path or str
        A file of `write_matched`.

    Returns
    -------
    Quality
        As it was measured when the exposure was matched.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged or holds no such table.
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        if "QUALITY" not in hdus:
            raise FormatError(f"{file}: holds no table QUALITY; it is not an exposure matched by psfmatch")
        rows = hdus["QUALITY"].data
        known = [f.name for f in fields(Quality) if f.name != "ee_radius" or "EE_RADIUS" in rows.names]
        quality = Quality(**{name: native(rows[name.upper()]) for name in known})
        if not len(quality) or any((abs(getattr(quality, name)) > LARGEST).any() for name in known):
            raise FormatError(f"{file}: its table QUALITY has no rows, or no figures of a match; it is damaged")
        return quality


def summary_cards(matched: Matched) -> dict[str, tuple[Any, str]]:
    """What came of a match, for the header: the outcome, and median (M) and worst (W) of every figure."""
    outcome = matched.solution.outcome
    cards: dict[str, tuple[Any, str]] = {"OUTCOME": (outcome.name, "how the solution of the kernel went")}
    names = {
        "QRESID": ("residual", "norm2(K*S-T)/norm2(T)"),
        "QMAXRE": ("max_residual", "worst pixel of the residual/peak"),
        "QEEERR": ("ee_error", "encircled-energy error"),
        "QNGAIN": ("noise_gain", "noise gain sum(K^2)"),
        "QNEGFL": ("negative_flux", "negative flux of the kernel"),
        "QKSUM": ("kernel_sum", "kernel sum"),
    }
    for kind, figures in (("M", matched.quality.median), ("W", matched.quality.worst)):
        word = "median" if kind == "M" else "worst"
        for key, (figure, comment) in names.items():
            value = float(figures[figure])
            cards[key + kind] = (value if np.isfinite(value) else None, f"{word} {comment}")
    return cards


def put_statistics(header: fits.Header, matched: Matched) -> None:
    """What the solver chose and measured, as cards ``STAT <name>``, NaN left blank; arrays go to a table."""
    plain = {
        k: v for k, v in matched.solution.statistics.items() if isinstance(v, str | bool | int | float | np.number)
    }
    finite = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in plain.items()}
    put_cards(header, finite, prefix="STAT ")
