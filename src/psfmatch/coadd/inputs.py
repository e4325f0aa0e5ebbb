"""An input of a coadd that is ready: where it lies on the grid, and the kernel that gives it the common PSF there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.repair import repaired
from psfmatch.coadd.sources import CoaddInput, rounded
from psfmatch.coadd.store import Store, mapped_planes
from psfmatch.convolve import FFT, convolve
from psfmatch.correlation import NoiseCorrelation
from psfmatch.exposure import Exposure, Mask
from psfmatch.fields import Field
from psfmatch.geometry import Box, FloatArray, Position
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import forget
from psfmatch.quality import Quality
from psfmatch.warp import Grid, Transform, warp

__all__ = ["GAIN_NODES", "Prepared", "covered", "nodes", "transform_to"]

MESH = 17
GAIN_NODES = 5
NEGLIGIBLE = 1e-5
"""A share of the kernel that may be rounding."""
NUMBERS = ("factor", "sky", "left", "weight", "noise", "fwhm")


@dataclass(frozen=True, eq=False)
class Prepared:
    """An input that is ready to be convolved, warped and added.

    Parameters
    ----------
    input : CoaddInput
    index : int
        Its number in the list of inputs.
    covers : Box
        The part of the grid that it touches.
    kernel : MatchingKernel
        In its own pixels, or (``warp-match``) in the grid's.
    quality : Quality
    factor, sky, weight : float
        ``(pixels - sky) factor`` is added with this weight, the inverse of the variance of a point source's flux.
    left : float
        The level of the sky in what is added.
    noise : float
        Typical variance of its pixels on the grid.
    correlation : NoiseCorrelation
        Of its noise on the grid, where it covers it.
    correction : array, shape (GAIN_NODES, GAIN_NODES)
        What the variance that `warp` gives, which is that of white noise, is to be multiplied by at nodes over the
        part that it covers.
    fwhm : float
        Its own PSF's width at the centre, in arcseconds.
    box : Box
        Of the exposure.
    wcs : WCS
        Of the exposure.
    mask_planes : mapping
        Of the exposure.
    unpacked : Path, optional
        Where its planes lie as files that can be mapped, if those of the input cannot.
    """

    input: CoaddInput
    index: int
    covers: Box
    kernel: MatchingKernel
    quality: Quality
    factor: float
    sky: float
    left: float
    weight: float
    noise: float
    correlation: NoiseCorrelation
    correction: FloatArray
    fwhm: float
    box: Box
    wcs: Any
    mask_planes: Mapping[str, int]
    unpacked: Path | None = None

    def open(self) -> Exposure:
        """The exposure, without its PSF."""
        if self.unpacked is None:
            return self.input.open(again=True)
        return mapped_planes(self.unpacked, box=self.box, wcs=self.wcs, planes=self.mask_planes)

    def holds(self, x: FloatArray, y: FloatArray, grid: Grid) -> NDArray[np.bool_]:
        """Which positions on the grid are in the exposure."""
        there = np.zeros(x.size, bool)
        near = (x >= self.covers.x0) & (x < self.covers.x1) & (y >= self.covers.y0) & (y < self.covers.y1)
        if near.any():
            origin = Position(self.box.y0, self.box.x0)
            px, py = Transform.between(grid.wcs, self.wcs, to_origin=origin).positions(x=x[near], y=y[near])
            there[near] = (px >= self.box.x0) & (px < self.box.x1) & (py >= self.box.y0) & (py < self.box.y1)
        return there

    def on_patch(self, patch: Box, grid: Grid, recipe: Recipe) -> Exposure | None:
        """The input on a patch of the grid, with the common PSF and on the common scale; None where it is not.

        Raises
        ------
        PsfMatchError, OSError
            If the input cannot be read any more.
        """
        exposure = self.open()
        transform = transform_to(exposure, grid)
        half = self.kernel.shape[0] // 2, self.kernel.shape[1] // 2
        margin = recipe.interpolation.order + 2
        read = patch if recipe.order == "match-warp" else patch.grown(*half).overlap(grid.box)
        assert read is not None
        beyond = (half[0] + margin, half[1] + margin) if read is patch else (margin, margin)
        region = _read_from(exposure, transform, read, *beyond, self.kernel.shape)
        if region is None:
            return None

        def convolved(cut: Exposure) -> Exposure:
            return convolve(cut, self.kernel, convolver=FFT(threads=1))

        def warped(cut: Exposure) -> Exposure:
            return warp(cut, grid, box=read, interpolation=recipe.interpolation)

        clean, bad = _repaired(_plain(exposure, region), recipe)
        if recipe.order == "match-warp":
            out = warped(self._scaled(self._flagged(convolved(clean), bad and convolved(bad), recipe)))
        else:
            done = convolved(warped(self._scaled(clean)))
            out = self._flagged(done, bad and convolved(warped(bad)), recipe).cutout(patch)
        forget(exposure.image, exposure.variance, exposure.mask.array)
        assert out.variance is not None
        return out.replace(variance=out.variance * self._correction_on(patch).astype(out.variance.dtype))

    def _flagged(self, out: Exposure, share: Exposure | None, recipe: Recipe) -> Exposure:
        """INTRP where too much of the kernel falls on pixels that are not used: their share is given, if any are."""
        lost = out.mask.any_of("EDGE", "INTRP", "NO_DATA")
        if share is not None:
            lost |= ~(np.abs(share.image) <= max(recipe.lost, NEGLIGIBLE) * np.abs(self.quality.worst["kernel_sum"]))
        array = np.array(out.mask.array)
        array[lost] |= 1 << out.mask.planes["INTRP"]
        return out.replace(mask=Mask(array, out.mask.planes))

    def _scaled(self, exposure: Exposure) -> Exposure:
        image = (exposure.image - exposure.image.dtype.type(self.sky)) * exposure.image.dtype.type(self.factor)
        variance = exposure.variance
        if variance is not None:
            variance = variance * variance.dtype.type(self.factor**2)
        return exposure.replace(image=image, variance=variance)

    def _correction_on(self, patch: Box) -> FloatArray:
        """The correction at every pixel of a patch, linear between the nodes."""
        rows, columns = nodes(self.covers)
        along_y = _linear(np.arange(patch.y0, patch.y1, dtype=float), rows)
        along_x = _linear(np.arange(patch.x0, patch.x1, dtype=float), columns)
        return along_y @ self.correction @ along_x.T

    def kept(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """The words and arrays that `from_kept` makes it of again."""
        words = {name: getattr(self, name) for name in NUMBERS}
        words |= {"covers": astuple(self.covers), "unpacked": None if self.unpacked is None else self.unpacked.name}
        arrays = {"correction": self.correction}
        for name, images in (("kernel", self.kernel), ("correlation", self.correlation)):
            words[name] = [images.weights.kind, astuple(images.weights.box)]
            arrays |= {name: images.basis, f"{name}_weights": images.weights.coefficients}
        arrays["quality"] = np.stack([getattr(self.quality, f.name) for f in fields(Quality)])
        return words, arrays

    @classmethod
    def from_kept(
        cls, source: CoaddInput, index: int, exposure: Exposure, store: Store, words: Mapping[str, Any],
        arrays: Mapping[str, FloatArray],
    ) -> Prepared:  # fmt: skip
        """An input that was prepared before."""

        def weights(name: str) -> Field:
            kind, bounds = words[name]
            return Field(arrays[f"{name}_weights"], Box(*bounds), kind)

        unpacked = None if words["unpacked"] is None else store.folder / words["unpacked"]
        return cls(
            input=source if unpacked is None else CoaddInput(unpacked, source.label), index=index,
            covers=Box(*words["covers"]),
            kernel=MatchingKernel(arrays["kernel"], weights("kernel")), quality=Quality(*arrays["quality"]),
            correlation=NoiseCorrelation(arrays["correlation"], weights("correlation")),
            correction=arrays["correction"], box=exposure.box, wcs=rounded(exposure.wcs),
            mask_planes=dict(exposure.mask.planes), unpacked=unpacked, **{name: words[name] for name in NUMBERS},
        )  # fmt: skip


def _linear(at: FloatArray, at_nodes: FloatArray) -> FloatArray:
    """The weights (n, nodes) of linear interpolation between nodes, constant beyond them."""
    place = np.interp(at, at_nodes, np.arange(at_nodes.size))
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(at_nodes.size))))


def transform_to(exposure: Exposure, grid: Grid) -> Transform:
    """From the pixels of a grid to those of an exposure's parent frame."""
    return Transform.between(grid.wcs, exposure.wcs, to_origin=Position(exposure.box.y0, exposure.box.x0))


def covered(exposure: Exposure, transform: Transform, grid: Grid) -> Box | None:
    """The part of the grid that an exposure touches."""
    x, y = transform.inverse.positions(**_border(exposure.box))
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    return _around(x[good], y[good]).overlap(grid.box)


def _read_from(
    exposure: Exposure, transform: Transform, patch: Box, dy: int, dx: int, least: tuple[int, int]
) -> Box | None:
    """What must be read of an exposure for a patch, with a margin, and not less than the kernel."""
    x, y = transform.positions(**_border(patch))
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    corners, frame = _around(x[good], y[good]), exposure.box
    if corners.overlap(frame) is None:
        return None
    region = corners.grown(dy, dx).overlap(frame)
    assert region is not None
    return region.lengthened(least, frame)


def _around(x: FloatArray, y: FloatArray) -> Box:
    """The least box that holds some positions."""
    return Box(int(np.floor(y.min())), int(np.floor(x.min())), int(np.ceil(y.max())) + 1, int(np.ceil(x.max())) + 1)


def _repaired(cut: Exposure, recipe: Recipe) -> tuple[Exposure, Exposure | None]:
    """The cut with its bad pixels filled from those around them, NaN where there are too many; and one where it was.

    Saturated ones count as so many that as little of them as the recipe says is too much.
    """
    bad = cut.mask.any_of(*recipe.reject) | ~np.isfinite(cut.image)
    mended, left = repaired(cut.image, bad)
    mended[left] = np.nan
    if not bad.any():
        return cut.replace(image=mended, mask=cut.mask.without(*recipe.reject)), None
    counts = bad.astype(np.float32)
    most, least = (max(share, NEGLIGIBLE) for share in (recipe.lost, min(recipe.lost, recipe.lost_saturated)))
    counts[bad & cut.mask.any_of("SAT")] = most / least
    share = cut.replace(image=counts, variance=None, mask=None)
    return cut.replace(image=mended, mask=cut.mask.without(*recipe.reject)), share


def _plain(exposure: Exposure, region: Box) -> Exposure:
    return exposure.cutout(region).replace(psf=None)


def _border(box: Box) -> dict[str, FloatArray]:
    """Positions on a mesh over a box, its outer edges included."""
    x, y = np.meshgrid(np.linspace(box.x0 - 0.5, box.x1 - 0.5, MESH), np.linspace(box.y0 - 0.5, box.y1 - 0.5, MESH))
    return {"x": x.ravel(), "y": y.ravel()}


def nodes(box: Box) -> tuple[FloatArray, FloatArray]:
    """Rows and columns of the nodes of the variance's correction."""
    return np.linspace(box.y0, max(box.y1 - 1, box.y0 + 1), GAIN_NODES), np.linspace(
        box.x0, max(box.x1 - 1, box.x0 + 1), GAIN_NODES
    )
