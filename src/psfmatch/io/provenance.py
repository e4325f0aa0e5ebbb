"""How a file came to be, in the file itself.

``PROVENANCE``
    a table with the columns KIND, NAME and VALUE:

    ============== ================== =================================================================================
    KIND           NAME               VALUE
    ============== ================== =================================================================================
    ``software``   a package          its version
    ``input``      a file's name      the SHA-256 of its bytes; empty of what was in memory, and of a file that was
                                      changed or removed before this was written
    ``1 read``,    an option          as it was used, in words: what Python evaluates to the same object, where there
    ``2 match``                       is such; files by their names.  A step without options has one row without any
    ============== ================== =================================================================================

    Characters beyond ASCII, and backslashes, are escaped as in Python's strings.

There is no time of day in it, so that the same input gives the same bytes: see `psfmatch.provenance`.
"""

from __future__ import annotations

from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from psfmatch.errors import FormatError
from psfmatch.io.files import PathLike, split_extension
from psfmatch.io.fits import open_fits, table_hdu
from psfmatch.provenance import CORRELATING, History, Input, Provenance, Step

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["noise_of", "provenance_hdu", "read_provenance"]

NAME = "PROVENANCE"
COLUMNS = ("KIND", "NAME", "VALUE")


def provenance_hdu(history: History) -> fits.BinTableHDU:
    """The table of a history, which `read_provenance` reads.

    Parameters
    ----------
    history : History
        Its files are read, to make their checksums.

    Returns
    -------
    astropy.io.fits.BinTableHDU
        To follow the other HDUs of a file.
    """
    from astropy.io import fits

    made = history.provenance()
    rows = [("software", name, version) for name, version in made.software.items()]
    rows += [("input", *one) for one in made.inputs]
    for number, step in enumerate(made.steps, 1):
        options = list(step.options.items()) or [("", "")]
        rows += [(f"{number} {step.name}", name, value) for name, value in options]
    texts = [[_escaped(text) for text in column] for column in zip(*rows, strict=True)]
    columns = [
        fits.Column(name, f"{max(1, *map(len, column))}A", array=np.array(column))
        for name, column in zip(COLUMNS, texts, strict=True)
    ]
    return table_hdu(columns, name=NAME)


def read_provenance(path: PathLike) -> Provenance:
    """How a file that psfmatch wrote came to be.

    Parameters
    ----------
    path : path or str
        A matched or coadded exposure, a kernel, a PSF, a target.

    Returns
    -------
    Provenance
        The versions of the software, the steps with their options, and the files it was made from with the SHA-256 of
        their bytes, as ``sha256sum`` prints it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is damaged, or does not say how it came to be.

    Examples
    --------
    >>> made = read_provenance("matched.fits")  # doctest: +SKIP
    >>> [step.name for step in made.steps]  # doctest: +SKIP
    ['read', 'match', 'convolve']
    """
    file, _ = split_extension(path)
    with open_fits(file) as hdus:
        if NAME not in hdus:
            raise FormatError(f"{file}: does not say how it came to be (no table {NAME}); psfmatch did not write it")
        table = hdus[NAME].data
        missing = [name for name in COLUMNS if name not in table.names]
        if missing:
            raise FormatError(f"{file}: {NAME} lacks {', '.join(missing)}")
        rows = [tuple(_plain(row[name]) for name in COLUMNS) for row in table]
    steps: dict[str, dict[str, str]] = {}
    for kind, name, value in rows:
        if kind not in ("software", "input"):
            options = steps.setdefault(kind, {})
            if name:
                options[name] = value
    return Provenance(
        MappingProxyType({name: value for kind, name, value in rows if kind == "software"}),
        tuple(Step(kind.partition(" ")[2], MappingProxyType(options)) for kind, options in steps.items()),
        tuple(Input(name, value) for kind, name, value in rows if kind == "input"),
    )  # fmt: skip


def noise_of(hdus: fits.HDUList) -> str | None:
    """``correlated`` where the file says that its noise was spread over pixels; a damaged table says nothing."""
    if NAME not in hdus:
        return None
    with suppress(Exception):
        steps = {str(kind).partition(" ")[2] for kind in hdus[NAME].data[COLUMNS[0]]}
        return None if steps.isdisjoint(CORRELATING) else "correlated"
    return None


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _plain(text: str) -> str:
    return str(text).encode("ascii").decode("unicode_escape")
