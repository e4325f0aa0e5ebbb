"""Piff models (Jarvis et al. 2021, MNRAS 501, 1282), from their plain FITS tables.

A file holds, by extensions that begin with ``psf_``: the stars with their places in pixels and on the sky, the WCS as
pickles, the kind of model, the kind of interpolation, and the solution.  All but the WCS are plain numbers.  The places
of the stars and the local WCS at each of them say how the pixels lie on the sky, so that the pickles are not needed.

Read so: the models PixelGrid (Lanczos-interpolated), Gaussian and Moffat, interpolated by BasisPolynomial, Polynomial
or Mean in (u, v) or (x, y), also of several chips (``name.piff[CHIP]``).  Other models, and files without the stars'
places, are read through piff itself, which loads the pickles: only with ``allow_pickle=True``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from psfmatch.errors import FormatError, PSFError
from psfmatch.geometry import Box, FloatArray
from psfmatch.io.fits import native
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.models.objects import PiffPSF
from psfmatch.models.sky import Polynomial, SkyGridPSF, SkyMap, SkyProfilePSF, SkyPSF
from psfmatch.psf import PSF

__all__ = ["FORMAT", "Unknown", "basis_polynomial", "sky_psf"]

LANCZOS = re.compile(r"(?:galsim\.)?Lanczos\((?:n=)?(\d+)(?:,\s*(?:conserve_dc=)?(True|False))?.*\)")
PLACES = ("x", "y", "u", "v", "dudx", "dudy", "dvdx", "dvdy")
LARGEST_MISFIT = 0.01
HARMONICS = 5  # of GalSim's conserve_dc
SINGLE = ("Simple", "SimplePSF")
BY_CHIP = ("SingleChip", "SingleChipPSF")


class Unknown(Exception):
    """The tables hold what only piff itself can draw."""


def _recognises(source: PSFSource) -> bool:
    return "TYPE" in source.columns("psf") and source.has("psf_wcs")


def _table(source: PSFSource, name: str) -> Any:
    if not source.columns(name):
        raise FormatError(f"{source.path}: the Piff file lacks its table {name}; it is {source.seems()}")
    return source.hdus[name].data  # type: ignore[index]


def _struct(source: PSFSource, name: str) -> dict[str, Any]:
    """The one row of a table, by names in lower case."""
    row = _table(source, name)[0]
    return {key.lower(): _plain(row[key]) for key in row.array.names}


def _plain(value: Any) -> Any:
    value = np.asarray(value)
    if value.ndim == 0:
        return value.item().strip() if value.dtype.kind in "US" else value.item()
    return [v.strip() if isinstance(v, str) else v for v in value.tolist()]


def _numbers(table: Any, name: str) -> FloatArray:
    """A column of real numbers."""
    values = native(table[name])
    if values.dtype.kind not in "iuf":
        raise PSFError(f"its column {name} holds no real numbers")
    return np.asarray(values, float)


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    chip = _chip(source)
    try:
        return _from_tables(source, chip)
    except Unknown as why:
        if options.allow_pickle:
            return _through_piff(source, chip)
        raise FormatError(
            f"{source.path}: a Piff file whose {why}; only piff itself can draw it, and for that it loads pickles, "
            "which can run any code: give allow_pickle=True if you trust where the file comes from"
        ) from why


def _chip(source: PSFSource) -> int | str:
    """The chip that is wanted, or the only one."""
    known: list[int | str] = [_plain(chip) for chip in _table(source, "psf_wcs")["chipnums"]]
    if source.wanted is None:
        if len(known) > 1:
            raise FormatError(
                f"{source.path}: a Piff model of the chips {', '.join(map(str, known))}; choose one: "
                f"{source.path}[{known[0]}]"
            )
        return known[0]
    found = [chip for chip in known if str(chip) == source.wanted]
    if not found:
        raise FormatError(
            f"{source.path}: the Piff model has no chip {source.wanted}, but {', '.join(map(str, known))}"
        )
    return found[0]


def _from_tables(source: PSFSource, chip: int | str) -> SkyPSF:
    kind = _struct(source, "psf").get("type")
    if kind not in (*SINGLE, *BY_CHIP):
        raise Unknown(f"PSF is of type {kind}")
    prefix = f"psf_{chip}" if kind in BY_CHIP else "psf"
    stars = _table(source, "psf_stars")
    if "CHIPNUM" in source.columns("psf_stars"):
        stars = stars[[_plain(c) == chip for c in stars["chipnum"]]]
    if not {key.upper() for key in PLACES} <= source.columns("psf_stars"):
        raise Unknown("stars are without their places on the sky")
    parameters, by_pixels = _parameters(source, prefix)
    shared = {"sky": _sky(stars), "by_pixels": by_pixels}
    return sky_psf(_struct(source, f"{prefix}_model"), parameters, shared)


def _sky(stars: Any) -> SkyMap:
    """The map of the pixels, counted from 0, to the sky."""
    x, y, *values = (_numbers(stars, key) for key in PLACES)
    if not len(x):
        raise PSFError("it has no stars that say how the pixels lie on the sky")
    low, high = ((f(y) - 1.0, f(x) - 1.0) for f in (np.min, np.max))
    box = Box(*(int(np.floor(w)) for w in low), *(int(np.ceil(w)) + 1 for w in high))
    sky = SkyMap.fit(np.array(values), x=x - 1.0, y=y - 1.0, box=box)
    if not sky.error < LARGEST_MISFIT:
        raise PSFError(f"the places of its {len(x)} stars give the pixels on the sky only within {sky.error:.1%}")
    return sky


def sky_psf(struct: Mapping[str, Any], parameters: Polynomial, shared: Mapping[str, Any]) -> SkyPSF:
    """The model that Piff's options for it (``type``, ``scale``, ...) describe.

    Raises
    ------
    Unknown
        If only piff can draw it.
    """
    kind = struct.get("type")
    if struct.get("fit_flux"):
        raise Unknown(f"{kind} has its flux fitted")
    if kind == "PixelGrid":
        # Files of version 0.2 do not name the function, which was Lanczos-3 then.
        match = LANCZOS.fullmatch(str(struct.get("interp", "Lanczos(3)")))
        if match is None:
            raise Unknown(f"PixelGrid is interpolated by {struct['interp']}")
        step, size = float(struct["scale"]), int(struct["size"])
        return SkyGridPSF(
            parameters=_whole_grid(parameters, size, step), step=step, order=int(match[1]),
            harmonics=0 if match[2] == "False" else HARMONICS, **shared,
        )  # fmt: skip
    centered = bool(struct.get("centered", struct.get("force_model_center", True)))
    profile = {"centered": centered, "integrated": bool(struct.get("include_pixel", True)), **shared}
    if kind == "Gaussian":
        return SkyProfilePSF(parameters=parameters, **profile)
    if kind == "Moffat" and not struct.get("trunc"):
        return SkyProfilePSF(parameters=parameters, beta=float(struct["beta"]), **profile)
    raise Unknown(f"model is a {kind}{' that is truncated' if kind == 'Moffat' else ''}")


def _whole_grid(parameters: Polynomial, size: int, step: float) -> Polynomial:
    """Every sample, where files of version 1.0 and before leave out those that flux and centroid fix.

    There the sum is that of a surface brightness of unit flux, and the first moments vanish; the samples left out are
    the central one, and those next to it along +v and +u.
    """
    given = parameters.coefficients
    missing = size**2 - len(given)
    if missing not in (1, 3):
        return parameters
    middle = size // 2
    row, column = np.mgrid[:size, :size] - middle
    left_out = (row == 0) & (column == 0)
    if missing == 3:
        left_out |= ((row == 1) & (column == 0)) | ((row == 0) & (column == 1))
    whole = np.zeros((size, size, given.shape[1]))
    whole[~left_out] = given
    if missing == 3:
        above, beside = (-np.tensordot(w, whole, 2) for w in (row.astype(float), column.astype(float)))
        whole[middle + 1, middle], whole[middle, middle + 1] = above, beside
    total = np.where((parameters.powers == 0).all(axis=1), 1.0 / step**2, 0.0)
    whole[middle, middle] = total - whole.sum(axis=(0, 1))
    return Polynomial(whole.reshape(size**2, -1), parameters.powers)


def _parameters(source: PSFSource, prefix: str) -> tuple[Polynomial, bool]:
    """The parameters of the model as polynomials, and whether in the pixels' coordinates rather than the sky's."""
    struct, solution = _struct(source, f"{prefix}_interp"), _table(source, f"{prefix}_interp_solution")
    kind = struct.get("type")
    if kind == "Mean":
        return Polynomial(_numbers(solution, "mean")[:, None], np.zeros((1, 2))), False
    if kind == "Polynomial":
        if struct.get("poly_type", "poly") != "poly":
            raise Unknown(f"Polynomial is of the type {struct['poly_type']}")
        return _listed(solution), False
    if kind != "BasisPolynomial":
        raise Unknown(f"interpolation is {kind}")
    return basis_polynomial(struct, _numbers(solution, "q")[0])


def basis_polynomial(struct: Mapping[str, Any], solution: FloatArray) -> tuple[Polynomial, bool]:
    """The parameters that Piff's BasisPolynomial with these options and this solution (parameters, terms) gives.

    Returns
    -------
    Polynomial
    by_pixels : bool
        Whether it is in the pixels' coordinates rather than the sky's.

    Raises
    ------
    Unknown
        If only piff can evaluate it.
    """
    keys = tuple(struct.get("keys") or ("u", "v"))
    if keys not in (("u", "v"), ("x", "y")):
        raise Unknown(f"BasisPolynomial is in {', '.join(map(str, keys))}")
    order, most = struct["order"], struct.get("max_order")
    orders = [int(n) for n in (order if isinstance(order, list) else [order, order])]
    if isinstance(most, str):
        raise Unknown(f"BasisPolynomial has the cross terms {most}")
    if len(orders) != 2 or max(orders) >= solution.shape[-1]:
        raise PSFError(f"{solution.shape[-1]} terms are too few for a polynomial of the orders {orders}")
    most = max(orders) if most is None else int(most)
    powers = np.array([(i, j) for i in range(orders[0] + 1) for j in range(orders[1] + 1) if i + j <= most])
    return Polynomial(solution, powers), keys == ("x", "y")


def _listed(solution: Any) -> Polynomial:
    """A table of coefficients, one a row, with the parameter and the powers that it belongs to."""
    index = _numbers(solution, "PARAM").astype(int)
    if not (index.size and index.min() >= 0 and index.max() < len(index)):
        raise PSFError("the parameters of its polynomials are not numbered through")
    exponents = np.stack([_numbers(solution, key).astype(int) for key in ("U_EXPONENT", "V_EXPONENT")], axis=1)
    powers, column = np.unique(exponents, axis=0, return_inverse=True)
    coefficients: FloatArray = np.zeros((index.max() + 1, len(powers)))
    coefficients[index, column.ravel()] = _numbers(solution, "COEFF")
    return Polynomial(coefficients, powers)


def _through_piff(source: PSFSource, chip: int | str) -> PiffPSF:
    try:
        import piff
    except ImportError as error:
        raise FormatError(f"{source.path}: only piff can draw this model; pip install 'psfmatch[piff]'") from error
    return PiffPSF(piff.read(str(source.path)), chip)


FORMAT = PSFFormat(name="piff", title="a Piff model", recognises=_recognises, read=_read)
