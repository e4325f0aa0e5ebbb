"""PSFEx models (Bertin 2011, ASP Conf. 442, 435): the ``.psf`` files, and legacypipe's tables of the same columns.

A PSFEx model is a cube of samples, one slice for each term of a polynomial in the position,

    term = u^i v^j,   u = (X - POLZERO1) / POLSCAL1,   v = (Y - POLZERO2) / POLSCAL2,

with X and Y counted from 1, and u's power running fastest: 1, u, u^2, v, uv, v^2 for degree 2.  The samples lie
PSF_SAMP image pixels apart and are interpolated to the pixels with the Lanczos-3 function, as PSFEx itself does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.fields import Field, term_degrees
from psfmatch.geometry import Box, FloatArray
from psfmatch.io.fits import native
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.models.lanczos import lanczos_weights
from psfmatch.psf import BasisPSF

__all__ = ["FORMAT", "lanczos_matrix", "models", "psf_from_cube", "psf_from_table", "psfex_cards"]

COLUMN = "PSF_MASK"
LANCZOS, RUBIN_LANCZOS = 3, 5
LARGEST_STAMP = 1001


def models(hdus: Iterable[Any]) -> list[Any]:
    """The HDUs that hold a PSFEx model."""
    return [
        hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU) and any(n.upper() == COLUMN for n in hdu.columns.names)
    ]


def _found(source: PSFSource) -> list[Any]:
    if source.hdus is None or (source.wanted is not None and not source.has(source.wanted)):
        return []
    return models(source.hdus if source.wanted is None else [source.chosen()])


def _read(source: PSFSource, options: PSFOptions) -> BasisPSF:
    found = _found(source)
    if source.hdus is None or len(found) != 1:
        where = source.hdus.index(found[0]) if source.hdus is not None and found else 0
        cure = f"choose one: {source.path}[{where}]" if found else f"no column {COLUMN}; it is {source.seems()}"
        raise FormatError(f"{source.path}: holds {len(found)} PSFEx models; {cure}")
    return psf_from_table(source.hdus, found[0])


def psf_from_table(hdus: fits.HDUList, hdu: Any) -> BasisPSF:
    """The model in one HDU, in pixels of the image, every stamp of unit sum.

    Raises
    ------
    FormatError
        If the table holds several models, or varies with anything but the position.
    """
    path, header = Path(hdus.filename()), hdu.header
    rows = hdu.data
    if len(rows) != 1:
        raise FormatError(f"{path}: HDU {hdu.name or hdus.index(hdu)} holds {len(rows)} PSFEx models; cut out one row")
    name = next(n for n in hdu.columns.names if n.upper() == COLUMN)
    return psf_from_cube(native(rows[name])[0].astype(float), header, path)


def psf_from_cube(cube: FloatArray, header: fits.Header, path: Path, *, rubin: bool = False) -> BasisPSF:
    """The model of PSFEx's samples (terms, ny, nx) and cards, interpolated as PSFEx or as Rubin's software does.

    PSFEx takes the Lanczos-3 function, and zeros beyond the samples.  Rubin takes Lanczos-5, and scales the weights of
    the samples that there are to unit sum.

    Raises
    ------
    FormatError
        If it varies with anything but the position, or samples and cards do not fit together.
    """
    axes = _axes(header, path)
    powers = _powers(header, len(axes), path)
    cube = cube.reshape(-1, *cube.shape[-2:])
    if len(cube) != len(powers):
        raise FormatError(f"{path}: {len(cube)} PSFEx slices do not fit a polynomial of {len(powers)} terms")
    if not np.isfinite(cube).all():
        raise FormatError(f"{path}: the PSFEx model holds NaN or infinite samples")
    step = float(header.get("PSF_SAMP", 1.0))
    return BasisPSF(_resampled(cube, step, path, rubin=rubin), _weights(header, axes, powers, path), normalize=True)


def psfex_cards(
    *, step: float, zero: Sequence[float], scale: Sequence[float], group: Sequence[int], degree: Sequence[int]
) -> fits.Header:
    """The cards of a model that Rubin's software keeps without them: positions count from 0, groups too."""
    header = fits.Header({"PSF_SAMP": step, "POLNAXIS": len(zero)})
    for k in range(len(zero)):
        header.update({f"POLNAME{k + 1}": f"{'XY'[k]}_IMAGE", f"POLGRP{k + 1}": int(group[k]) + 1})
        header.update({f"POLZERO{k + 1}": float(zero[k]) + 1.0, f"POLSCAL{k + 1}": float(scale[k])})
    header.update({f"POLDEG{k + 1}": int(value) for k, value in enumerate(degree)})
    return header


def _axes(header: fits.Header, path: Path) -> list[str]:
    """Which coordinate each context is: "x" or "y"."""
    names = [str(header.get(f"POLNAME{k + 1}", f"{'XY'[k : k + 1]}_IMAGE")) for k in range(_count(header))]
    axes = []
    for name in names:
        match = re.fullmatch(r"([XY])\w*_IMAGE(_DBL)?", name.strip().upper())
        if match is None or match[1].lower() in axes:
            raise FormatError(
                f"{path}: the PSFEx model varies with {', '.join(n.strip() for n in names)}; "
                "only positions in pixels (X_IMAGE, Y_IMAGE) are understood"
            )
        axes.append(match[1].lower())
    return axes


def _count(header: fits.Header) -> int:
    if "POLNAXIS" in header:
        return min(int(header["POLNAXIS"]), 9)
    return sum(f"POLZERO{k}" in header for k in range(1, 10))


def _powers(header: fits.Header, axes: int, path: Path) -> list[tuple[int, ...]]:
    """The powers of each slice; contexts of one group share its degree, groups are multiplied."""
    groups = [int(header.get(f"POLGRP{k + 1}", 1)) for k in range(axes)]
    degrees = [int(header.get(f"POLDEG{group}", 0)) for group in groups]
    if any(not 0 <= degree <= 20 for degree in degrees):
        raise FormatError(f"{path}: PSFEx polynomial of degree {max(degrees, key=abs)}")
    if axes == 0:
        return [()]
    if axes == 1:
        return [(i,) for i in range(degrees[0] + 1)]
    shared = groups[0] == groups[1]
    return [(i, j) for j in range(degrees[1] + 1) for i in range(degrees[0] + 1) if not shared or i + j <= degrees[0]]


def _weights(header: fits.Header, axes: list[str], powers: list[tuple[int, ...]], path: Path) -> Field:
    """The terms of PSFEx's polynomial as a `Field`, exactly: a polynomial is fixed by its values at enough nodes."""
    if not axes:
        return Field.constant([1.0], Box(0, 0, 1, 1))
    zero = {axis: float(header[f"POLZERO{k + 1}"]) - 1.0 for k, axis in enumerate(axes)}
    scale = {axis: float(header[f"POLSCAL{k + 1}"]) for k, axis in enumerate(axes)}
    if not all(np.isfinite([*zero.values(), *scale.values()])) or any(s <= 0 for s in scale.values()):
        raise FormatError(f"{path}: PSFEx POLZERO {zero} and POLSCAL {scale} are unusable")
    low = {axis: int(np.floor(zero[axis] - 0.5 * scale[axis])) if axis in zero else 0 for axis in "xy"}
    high = {axis: int(np.ceil(zero[axis] + 0.5 * scale[axis])) + 1 if axis in zero else 1 for axis in "xy"}
    box = Box(low["y"], low["x"], high["y"], high["x"])
    order = max(sum(p) for p in powers)
    nodes = np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1))
    y, x = (g.ravel() for g in np.meshgrid(nodes, nodes, indexing="ij"))
    at = {"x": box.center.x + 0.5 * box.shape[1] * x, "y": box.center.y + 0.5 * box.shape[0] * y}
    scaled = [(at[axis] - zero[axis]) / scale[axis] for axis in axes]
    values = [np.prod([u**p for u, p in zip(scaled, power, strict=True)], axis=0) for power in powers]
    fitted = Field.fit(np.array(values), x=at["x"], y=at["y"], order=order, box=box)
    # An axis without terms is one pixel wide, beyond which a term of nothing but rounding errors would grow.
    varies = [all(axis in zero or degree == 0 for axis, degree in zip("xy", term, strict=True))
              for term in term_degrees(order)]  # fmt: skip
    return Field(np.where(varies, fitted.coefficients, 0.0), box)


def _resampled(cube: FloatArray, step: float, path: Path, *, rubin: bool) -> FloatArray:
    """Samples ``step`` pixels apart, interpolated at the pixel centres and scaled to flux a pixel."""
    if not (np.isfinite(step) and step > 0):
        raise FormatError(f"{path}: PSF_SAMP {step!r} must be positive")
    rows, columns = (lanczos_matrix(n, step, path, rubin=rubin) for n in cube.shape[-2:])
    return np.ascontiguousarray(rows @ cube @ columns.T) / step**2


def lanczos_matrix(samples: int, step: float, path: Path, *, rubin: bool = False) -> FloatArray:
    """The weights (n_pixels, n_samples) of samples, ``step`` pixels apart about sample n//2, at integer pixels.

    As many pixels, an odd number, as lie within the samples; the weights of a pixel sum to 1 wherever all the
    samples that it needs are there.
    """
    half = int(min(samples // 2, samples - 1 - samples // 2) * step + 1e-3)
    if half < 1 or 2 * half + 1 > LARGEST_STAMP:
        raise FormatError(f"{path}: {samples} PSFEx samples of {step:g} px make no usable stamp")
    at = np.arange(-half, half + 1) / step + samples // 2
    weights = lanczos_weights(at, samples, RUBIN_LANCZOS if rubin else LANCZOS)
    return weights / weights.sum(axis=1, keepdims=True) if rubin else weights


FORMAT = PSFFormat(name="psfex", title="a PSFEx model", recognises=lambda source: bool(_found(source)), read=_read)
