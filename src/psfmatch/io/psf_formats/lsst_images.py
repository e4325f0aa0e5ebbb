"""PSFs in files of ``lsst.images``: Piff, PSFEx and Gaussian models, read without the package.

Piff's pixel grids reach as far as their samples, and are of unit sum there, as upstream has them.  PSFs of coadds that
are made of cells, which jump at the cells' borders, are refused.
"""

from __future__ import annotations

from typing import Any

from psfmatch.errors import FormatError
from psfmatch.geometry import Box
from psfmatch.io.lsst_tree import Tree, is_tree, kind_of
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.piff import Unknown, basis_polynomial, sky_psf
from psfmatch.io.psf_formats.psfex import psf_from_cube, psfex_cards
from psfmatch.models.sky import SkyMap
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.psf import PSF, GaussianPSF

__all__ = ["FORMAT", "psf_from_tree"]


def psf_from_tree(tree: Tree) -> PSF | None:
    """The PSF of an image, or of a file of one PSF; None where it has none.

    Raises
    ------
    FormatError
        If it is of a kind that cannot be read; the message says why.
    """
    node = tree.root if kind_of(tree.root).endswith("_psf") else tree.root.get("psf")
    if node is None:
        return None
    kind = kind_of(node)
    if kind == "piff_psf":
        return _piff(tree, node)
    if kind == "psfex_psf":
        return _psfex(tree, node)
    if kind == "gaussian_psf":
        size = int(node["stamp_size"])
        return GaussianPSF(fwhm=SIGMA_TO_FWHM * float(node["sigma"]), size=size, sampling="center")
    why = {"cell_psf": "it jumps at the borders of the coadd's cells; match one cell at a time, with its own stamp"}
    raise FormatError(f"{tree.path}: its PSF is a {kind or 'nameless'}: {why.get(kind, 'it is of an unknown kind')}")


def _box(node: dict[str, Any]) -> Box:
    y, x = node["bounds"]["y"], node["bounds"]["x"]
    return Box(y["start"], x["start"], y["stop"], x["stop"])


def _piff(tree: Tree, node: dict[str, Any]) -> PSF:
    piff = node["piff"]["objects"]["piff"]
    whole = node["piff"]["structs"]["piff"]
    wcs = piff.get("wcs", {}).get("wcs", {})
    if whole.get("type") not in ("Simple", "SimplePSF") or wcs.get("wcs_type") != "pixel_scale":
        raise FormatError(
            f"{tree.path}: its PSF is a Piff model of type {whole.get('type')} on a WCS of type {wcs.get('wcs_type')}; "
            "only Simple ones on a pixel scale are known"
        )
    solution = piff["objects"]["interp"]["tables"]["solution"]["table"]
    coefficients = tree.column(solution, "q")[0].astype(float)
    sky = SkyMap.identity(_box(node), float(wcs["scale"]))
    try:
        parameters, by_pixels = basis_polynomial(piff["structs"]["interp"], coefficients)
        return sky_psf(piff["structs"]["model"], parameters, {"sky": sky, "by_pixels": by_pixels})
    except Unknown as why:
        raise FormatError(
            f"{tree.path}: its PSF is a Piff model whose {why}; read the image with lsst.images and piff, and give it "
            "to psfmatch.io.lsst_images.from_lsst_images"
        ) from why


def _psfex(tree: Tree, node: dict[str, Any]) -> PSF:
    context = tree.array(node["context"])
    cards = psfex_cards(
        step=float(node["pixel_step"]), zero=context[:, 0].tolist(), scale=context[:, 1].tolist(),
        group=node.get("group", [0, 0]), degree=node["degree"],
    )  # fmt: skip
    return psf_from_cube(tree.array(node["parameters"]).astype(float), cards, tree.path, rubin=True)


def _read(source: PSFSource, options: PSFOptions) -> PSF:
    psf = psf_from_tree(Tree(source))
    if psf is None:
        raise FormatError(f"{source.path}: the {kind_of(Tree(source).root)} in it has no PSF")
    return psf


FORMAT = PSFFormat(
    name="lsst-images",
    title="a PSF or image of lsst.images",
    recognises=lambda source: source.wanted is None and is_tree(source),
    read=_read,
)
