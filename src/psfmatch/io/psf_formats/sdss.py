"""SDSS ``psField`` files: eigen-images of each band, and how much of each there is at a position.

In band b (``name.fit[r]``; HDUs 1 to 5 are u, g, r, i, z), with the row and column of SDSS, which count the middle of
the first pixel as 0.5,

    PSF = sum_k RROWS_k sum_ij c_k[i, j] (0.001 row)^i (0.001 column)^j

(https://www.sdss.org/dr16/algorithms/read_psf, whose IDL code has ``c`` in reversed order of indices, as IDL reads it).
The PSF reaches 25 px; its sum, which is of SDSS's counts, is made 1.
"""

from __future__ import annotations

import numpy as np

from psfmatch.errors import FormatError
from psfmatch.fields import Field
from psfmatch.geometry import Box
from psfmatch.io.fits import native
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.psf import BasisPSF

__all__ = ["FORMAT"]

BANDS = "ugriz"
COLUMNS = {"NROW_B", "NCOL_B", "C", "RNROW", "RNCOL", "RROWS"}
SCALE = 0.001
FRAME = Box(0, 0, 1489, 2048)


def _recognises(source: PSFSource) -> bool:
    return source.columns("1") >= COLUMNS


def _read(source: PSFSource, options: PSFOptions) -> BasisPSF:
    wanted = (source.wanted or "").lower()
    number = BANDS.find(wanted) + 1 if len(wanted) == 1 and wanted in BANDS else int(wanted) if wanted.isdigit() else 0
    if not 1 <= number <= len(BANDS):
        said = f"no band {source.wanted!r}" if source.wanted else "the PSFs of five bands"
        raise FormatError(f"{source.path}: an SDSS psField file, with {said}; choose u, g, r, i or z: {source.path}[r]")
    if not source.columns(str(number)) >= COLUMNS:
        raise FormatError(f"{source.path}: an SDSS psField file without a PSF of {BANDS[number - 1]}")
    rows = source.hdus[number].data  # type: ignore[index]
    ny, nx = int(rows["RNROW"][0]), int(rows["RNCOL"][0])
    basis = np.stack([np.asarray(row, float)[: ny * nx].reshape(ny, nx) for row in rows["RROWS"]])
    terms = [(int(row["nrow_b"]), int(row["ncol_b"]), np.shape(row["c"])) for row in rows]
    if not all(len(c) == 2 and 1 <= nr <= c[0] and 1 <= nc <= c[1] for nr, nc, c in terms):
        raise FormatError(f"{source.path}: nrow_b and ncol_b are not the sizes of a part of the coefficients c")
    order = max(nr + nc - 2 for nr, nc, _ in terms)
    nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
    y, x = (g.ravel() for g in np.meshgrid(nodes, nodes, indexing="ij"))
    y, x = FRAME.center.y + 0.5 * FRAME.shape[0] * y, FRAME.center.x + 0.5 * FRAME.shape[1] * x
    weights = np.zeros((len(rows), x.size))
    for k, row in enumerate(rows):
        nr, nc = int(row["nrow_b"]), int(row["ncol_b"])
        c = native(np.asarray(row["c"]))[:nr, :nc].astype(float)
        along_y, along_x = ((SCALE * (w + 0.5)) ** np.arange(n)[:, None] for w, n in ((y, nr), (x, nc)))
        weights[k] = np.einsum("ij,ip,jp->p", c, along_y, along_x)
    return BasisPSF(basis, Field.fit(weights, x=x, y=y, order=order, box=FRAME), normalize=True)


FORMAT = PSFFormat(name="sdss", title="an SDSS psField file", recognises=_recognises, read=_read)
