"""Solving for the kernel of one input, and all else that its pixels do not matter for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np

from psfmatch.coadd.inputs import GAIN_NODES, Prepared, covered, nodes, transform_to
from psfmatch.coadd.photometry import sky_level
from psfmatch.coadd.recipe import Recipe
from psfmatch.coadd.sources import CoaddInput, digest_of_wcs, rounded
from psfmatch.coadd.store import Store
from psfmatch.correlation import NoiseCorrelation
from psfmatch.errors import InputError, PsfMatchError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Position
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import forget, is_mapped, one_blas_thread
from psfmatch.match import planned_match
from psfmatch.moments import fwhm
from psfmatch.noise import psf_flux_variance
from psfmatch.psf import PSF
from psfmatch.regions import RegionsKernel
from psfmatch.warp import Grid, WarpedPSF
from psfmatch.warp.interpolation import quick_weights

__all__ = ["Task"]

CORRELATION = 2e-2
FINE = np.dtype(float)
SAMPLE = 100_000
"""Pixels from which the level of the sky is taken that is left."""


@dataclass(frozen=True, eq=False)
class Task:
    """The solving of inputs: what all of them share.

    Parameters
    ----------
    grid : Grid
    target : PSF
    recipe : Recipe
    store : Store, optional
        Where results are kept, and found again.
    unpack : bool
        Whether exposures in memory are to be put there too, for other processes.
    """

    grid: Grid
    target: PSF
    recipe: Recipe
    store: Store | None = None
    unpack: bool = False

    def prepared(self, source: CoaddInput, index: int, factor: float) -> Prepared | str:
        """The kernel of one input, solved for and kept; or why it is left out.

        Raises
        ------
        OSError
            If it cannot be kept, which is no fault of the input.
        """
        try:
            with one_blas_thread():
                exposure = source.open(again=True)
                sky = sky_level(exposure) if self.recipe.background == "median" else 0.0
                done = _prepared(source, index, exposure, self.grid, self.target, self.recipe, factor, sky)
        except (PsfMatchError, OSError) as error:
            return " ".join(str(error).split())
        return done if isinstance(done, str) or self.store is None else self._kept(done, exposure, self.store)

    def found(self, source: CoaddInput, index: int, exposure: Exposure, factor: float) -> Prepared | None:
        """An input that was prepared before for the same target, grid and factor."""
        if self.store is None:
            return None
        arrays = self.store.arrays(_name(index))
        if arrays is None:
            return None
        words = json.loads(str(arrays.pop("words")))
        if words.pop("belongs") != self._belongs(factor):
            return None
        return Prepared.from_kept(source, index, exposure, self.store, words, arrays)

    def _kept(self, done: Prepared, exposure: Exposure, store: Store) -> Prepared:
        """In the store, and where need be the pixels as well."""
        source, name = done.input, _name(done.index)
        apart = self.unpack if isinstance(source.source, Exposure) else not _mapped(exposure)
        if apart:
            planes = store.unpack(name, exposure)
            done = replace(done, input=CoaddInput(planes, source.label), unpacked=planes)
        words, arrays = done.kept()
        store.keep(name, words | {"belongs": self._belongs(done.factor)}, **arrays)
        forget(exposure.image, exposure.variance, exposure.mask.array)
        return done

    def _belongs(self, factor: float) -> str:
        side = max(self.target.shape)
        digest = hashlib.sha256(self.target.stamps(x=0, y=0, shape=(side, side)).tobytes())
        digest.update(repr((digest_of_wcs(self.grid.wcs), self.grid.shape, factor)).encode())
        return digest.hexdigest()


def _name(index: int) -> str:
    return f"input-{index:06d}"


def _mapped(exposure: Exposure) -> bool:
    return is_mapped(exposure.image) and (exposure.variance is None or is_mapped(exposure.variance))


def _prepared(
    source: CoaddInput, index: int, exposure: Exposure, grid: Grid, target: PSF, recipe: Recipe, factor: float,
    sky: float,
) -> Prepared | str:  # fmt: skip
    assert exposure.psf is not None  # `planned` leaves out what lacks WCS, PSF or variance
    transform = transform_to(exposure, grid)
    covers = covered(exposure, transform, grid)
    if covers is None:
        return "does not touch the grid"
    center, box, interpolation = covers.center, exposure.box, recipe.interpolation
    on_grid = WarpedPSF(exposure.psf, transform, at=center)

    def resampled(noise: NoiseCorrelation) -> NoiseCorrelation:
        return noise.warped(
            transform.positions, covers, tolerance=CORRELATION, phases="all",
            interpolation=lambda fraction: quick_weights(interpolation, fraction, FINE).T,
        )  # fmt: skip

    white = resampled(NoiseCorrelation.white(box))
    if recipe.order == "match-warp":
        middle = Position(box.center.y, box.center.x)
        plan = planned_match(exposure, WarpedPSF(target, transform.inverse, at=middle), solver=recipe.solver)
        kernel = _of_one_region(plan.kernel)
        before = NoiseCorrelation.of_kernel(kernel, tolerance=CORRELATION)
        after = resampled(before)
    else:
        blank = Exposure(np.zeros(covers.shape, np.float32), box=covers, psf=on_grid)
        plan = planned_match(blank, target, solver=recipe.solver)
        kernel = _of_one_region(plan.kernel)
        before = white
        after = before.convolved(kernel, tolerance=CORRELATION)
    y, x = (a.ravel() for a in np.meshgrid(*nodes(covers), indexing="ij"))
    gain = after.gains(x=x, y=y)
    if recipe.order == "match-warp":
        at_x, at_y = transform.positions(x=x, y=y)
        correction = gain / (before.gains(x=at_x, y=at_y) * white.gains(x=x, y=y))
    else:
        squares = (kernel.stamps(x=x, y=y) ** 2).sum(axis=(1, 2))
        correction = gain / (squares * white.gains(x=x, y=y))
    area = np.abs(np.linalg.det(transform.jacobian(x=[center.x], y=[center.y]))[0])
    noise = _typical(exposure) * (factor * area) ** 2 * float(after.gains(x=center.x, y=center.y)[0])
    flux = psf_flux_variance(noise, after, target, x=center.x, y=center.y)[0]
    scale = exposure.pixel_scale or np.nan
    left = factor * (sky_level(exposure, of=SAMPLE) - sky)
    return Prepared(
        source, index, covers, kernel, plan.quality, factor, sky, left, float(1.0 / flux), noise, after,
        correction.reshape(GAIN_NODES, GAIN_NODES), _width(exposure) * scale, box, rounded(exposure.wcs),
        dict(exposure.mask.planes),
    )  # fmt: skip


def _of_one_region(kernel: MatchingKernel | RegionsKernel) -> MatchingKernel:
    assert isinstance(kernel, MatchingKernel)
    return kernel


def _typical(exposure: Exposure) -> float:
    """The median of the finite variances, of some million pixels."""
    assert exposure.variance is not None
    step = max(1, round(np.sqrt(exposure.variance.size / 1e6)))
    values = np.asarray(exposure.variance[::step, ::step], float)
    good = values[np.isfinite(values) & (values > 0)]
    if not good.size:
        raise InputError("the variance is nowhere finite and positive")
    return float(np.median(good))


def _width(exposure: Exposure) -> float:
    """FWHM of the PSF at the centre, in pixels."""
    assert exposure.psf is not None
    return fwhm(exposure.psf.stamps(x=exposure.box.center.x, y=exposure.box.center.y)[0])
