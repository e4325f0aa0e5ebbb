"""Which sources of an exposure are isolated, unsaturated stars, without knowing its PSF."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from psfmatch.errors import InputError, PSFError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.moments import SIGMA_TO_FWHM, adaptive_moments
from psfmatch.stars.profile import usable_pixels

__all__ = ["Cutout", "StarSelection", "sky_and_noise"]

DETECTED = 5.0
"""Height above which something counts as a source, in standard deviations of the smoothed image."""
MESH = 64
"""Side of the blocks, in pixels, in each of which the sky is measured."""
NARROWEST = 1.3
"""FWHM in pixels below which a source is no star but a cosmic ray: a star in one pixel has 1.4."""
BANDWIDTH = 0.05
"""Of the size distribution, in the logarithm of the size."""
SKY_ERROR = 0.1
"""Of the sky, in standard deviations of its pixels: the wings of the PSF are not to be taken for sky."""
CLUSTER = 0.3
"""Sources that cluster about a size, relative to the most that cluster about any."""
WING_BETA = 3.0
"""Exponent of the profile by which a neighbour's wings are masked."""
CORE, REACH = 0.6, 5.0
"""Radii in units of the FWHM: no pixel may be missing in the core; the cut-outs reach so far."""
MISSING = 0.45
"""Share of the pixels within 3 FWHM that may be missing."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """The usable pixels about one star.

    Parameters
    ----------
    x, y : float
        Where the star is, in pixels of the parent frame, to half a pixel.
    dx, dy : array, shape (n,)
        Offsets of the pixels from there.
    data : array, shape (n,)
        Pixel values, less the sky's mesh.
    variance : array, shape (n,)
    sky_error : float
        Of the sky that was subtracted.
    snr : float
        Of the star, in the smoothed image.
    size : float
        The FWHM of the Gaussian with its adaptive moments, in pixels.
    """

    x: float
    y: float
    dx: FloatArray
    dy: FloatArray
    data: FloatArray
    variance: FloatArray
    sky_error: float
    snr: float
    size: float

    def only(self, keep: NDArray[np.bool_]) -> Cutout:
        """Some of the pixels."""
        return replace(
            self, dx=self.dx[keep], dy=self.dy[keep], data=self.data[keep], variance=self.variance[keep]
        )  # fmt: skip


@dataclass(frozen=True)
class StarSelection:
    """How stars are told from everything else.

    Sources are the peaks of the smoothed image.  A star has a certain size, the same for all but for what the PSF
    varies over the field: the smallest size about which sources cluster.  It must be isolated (the wings of every
    neighbour are masked, and with them nothing of its core and little of its surroundings), and no pixel of its core
    may be bad or saturated.

    Parameters
    ----------
    least_snr : float
        Least signal-to-noise ratio of a star.
    most : int
        At most so many stars, the brightest.
    saturation : float, optional
        Pixel value from which on a star is saturated.  Default: what the header says (SATURATE), besides the mask.
    variability : float
        How far the sizes may deviate from the usual one, relative to it, besides their errors.
    """

    least_snr: float = 25.0
    most: int = 120
    saturation: float | None = None
    variability: float = 0.15

    def __post_init__(self) -> None:
        if not (self.least_snr >= DETECTED and self.most >= 1 and 0 < self.variability < 1):
            raise InputError(
                f"least_snr={self.least_snr!r}, most={self.most!r}, variability={self.variability!r}: give at least "
                f"{DETECTED:g}, at least 1, and a share between 0 and 1"
            )

    def cutouts(self, exposure: Exposure, *, fwhm: float | None = None) -> tuple[list[Cutout], dict[str, int]]:
        """The stars, brightest first, and how many sources were no stars, by reason.

        Parameters
        ----------
        exposure : Exposure
            Without variance the noise is taken from the image, the same everywhere.
        fwhm : float, optional
            What the stars' size (that of `Cutout`) is expected to be, in pixels: of the sizes about which sources
            cluster, that next to it is theirs.  Default: the smallest.
        """
        level = self.saturation if self.saturation is not None else header_saturation(exposure)
        usable = usable_pixels(exposure)
        if not usable.any():
            return [], {}
        sky, noise = sky_and_noise(exposure.image, usable)
        saturated = exposure.mask.any_of("SAT") | (exposure.image >= level)
        usable &= ~saturated
        scene = _Scene.of(exposure, sky, noise, usable, saturated & np.isfinite(exposure.image), fwhm)
        return scene.stars(self, fwhm)


def header_saturation(exposure: Exposure) -> float:
    value = exposure.meta.get("SATURATE")
    return float(value) if isinstance(value, int | float) and value > 0 else np.inf


def sky_and_noise(image: FloatArray, usable: NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """The sky, interpolated between clipped medians of blocks, and the standard deviation of its pixels."""
    from astropy.stats import sigma_clipped_stats

    shape = image.shape
    counts = [max(1, round(n / MESH)) for n in shape]
    rows, columns = (np.linspace(0, n, c + 1).astype(int) for n, c in zip(shape, counts, strict=True))
    levels, scatters = np.full((2, *counts), np.nan)
    for j, i in np.ndindex(*counts):
        where = np.s_[rows[j] : rows[j + 1], columns[i] : columns[i + 1]]
        values = image[where][usable[where]]
        if values.size >= 50:
            _, levels[j, i], scatters[j, i] = sigma_clipped_stats(values, sigma=3.0, stdfunc="mad_std")
    if np.isnan(levels).all():  # few pixels here and there
        _, levels[:], scatters[:] = sigma_clipped_stats(image[usable], sigma=3.0, stdfunc="mad_std")
    levels = np.where(np.isnan(levels), np.nanmedian(levels), levels)
    at = [
        (np.arange(n) - 0.5 * (edges[0] + edges[1] - 1)) * (c / n)
        for n, c, edges in zip(shape, counts, (rows, columns), strict=True)
    ]
    sky = map_coordinates(levels, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    return sky, float(np.nanmedian(scatters))


@dataclass(frozen=True, eq=False)
class _Scene:
    """The image without its sky, and the peaks in it."""

    exposure: Exposure
    image: FloatArray
    noise: float
    usable: NDArray[np.bool_]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    heights: FloatArray
    snr: FloatArray

    @classmethod
    def of(
        cls, exposure: Exposure, sky: FloatArray, noise: float, usable: NDArray[np.bool_],
        saturated: NDArray[np.bool_], fwhm: float | None,
    ) -> _Scene:  # fmt: skip
        image = np.where(usable | saturated, exposure.image - sky, 0.0)
        sigma = np.clip((fwhm or 2.8) / SIGMA_TO_FWHM, 0.8, 4.0)
        seen = gaussian_filter((usable | saturated).astype(float), sigma, mode="constant")
        smooth = gaussian_filter(image, sigma, mode="constant") / np.maximum(seen, 0.25)
        scatter = 1.4826 * float(np.median(np.abs(smooth[usable])))
        side = 2 * max(1, round(1.6 * sigma)) + 1
        peaks = (smooth == maximum_filter(smooth, side)) & (smooth > DETECTED * scatter) & (usable | saturated)
        rows, columns = np.nonzero(peaks)
        order = np.argsort(-smooth[rows, columns])
        rows, columns = rows[order], columns[order]
        heights = maximum_filter(np.where(usable | saturated, image, 0.0), 3)[rows, columns]
        return cls(exposure, image, noise, usable, rows, columns, heights, smooth[rows, columns] / max(scatter, 1e-300))

    def stars(self, choice: StarSelection, fwhm: float | None) -> tuple[list[Cutout], dict[str, int]]:
        bright = np.flatnonzero(self.snr >= choice.least_snr)[: 10 * choice.most]
        sizes = np.array([self._size(k) for k in bright])
        rejected = {"without a measurable size": int(np.isnan(sizes).sum())}
        bright, sizes = bright[~np.isnan(sizes)], sizes[~np.isnan(sizes)]
        if not bright.size:
            return [], rejected
        usual = _usual_size(sizes, self.snr[bright], fwhm)
        error = 3.0 / self.snr[bright]
        off = np.log(sizes / usual)
        rejected["broader (galaxies, blends, saturated)"] = int((off > choice.variability + error).sum())
        rejected["narrower (cosmic rays)"] = int((off < -choice.variability - error).sum())
        found: list[Cutout] = []
        crowded = cut = 0
        for k, size in zip(bright, sizes, strict=True):
            if abs(np.log(size / usual)) > choice.variability + 3.0 / self.snr[k]:
                continue
            star = self._cutout(k, usual, size)
            if star is None:
                if self._complete(k, usual):
                    crowded += 1
                else:
                    cut += 1
            elif len(found) < choice.most:
                found.append(star)
        return found, {**rejected, "too close to another source": crowded, "bad, saturated or cut off": cut}

    def _size(self, k: int) -> float:
        """The FWHM from adaptive moments; NaN where they do not converge or the peak is not complete."""
        row, column = self.rows[k], self.columns[k]
        half = 12
        ny, nx = self.image.shape
        if not (2 <= row < ny - 2 and 2 <= column < nx - 2):
            return np.nan
        if not self.usable[row - 1 : row + 2, column - 1 : column + 2].all():
            return np.nan
        half = min(half, row, column, ny - 1 - row, nx - 1 - column)
        stamp = self.image[row - half : row + half + 1, column - half : column + half + 1]
        try:
            xx, xy, yy = adaptive_moments(stamp.astype(float))
        except (PSFError, np.linalg.LinAlgError):
            return np.nan
        return float(SIGMA_TO_FWHM * max(xx * yy - xy * xy, 0.0) ** 0.25)

    def _near(self, k: int, reach: float) -> tuple[FloatArray, FloatArray, tuple[slice, slice]]:
        row, column = self.rows[k], self.columns[k]
        half = int(np.ceil(reach))
        ny, nx = self.image.shape
        where = (
            slice(max(0, row - half), min(ny, row + half + 1)),
            slice(max(0, column - half), min(nx, column + half + 1)),
        )
        dy, dx = np.mgrid[where].astype(float)
        return dy - row, dx - column, where

    def _complete(self, k: int, usual: float) -> bool:
        """Whether enough of the pixels about a peak are there and usable."""
        dy, dx, where = self._near(k, 3.0 * usual)
        return self._enough(np.hypot(dx, dy), self.usable[where], usual)

    def _enough(self, r: FloatArray, good: NDArray[np.bool_], usual: float) -> bool:
        inside = {radius: float((good & (r <= radius * usual)).sum()) for radius in (CORE, 3.0)}
        whole = {radius: _disc(radius * usual) for radius in inside}
        return inside[CORE] >= whole[CORE] and inside[3.0] >= (1.0 - MISSING) * whole[3.0]

    def _cutout(self, k: int, usual: float, size: float) -> Cutout | None:
        """The pixels about a peak that belong to no other source; None where too few are left."""
        reach = REACH * usual
        dy, dx, where = self._near(k, reach)
        r = np.hypot(dx, dy)
        good = self.usable[where] & (r <= reach)
        row, column = self.rows[k], self.columns[k]
        radii = self._wings(usual)
        apart = np.hypot(self.rows - row, self.columns - column)
        for j in np.flatnonzero((apart < reach + radii) & (apart > 0)):
            good &= np.hypot(dx - (self.columns[j] - column), dy - (self.rows[j] - row)) > radii[j]
        if not self._enough(r, good, usual):
            return None
        box, own = self.exposure.box, self.exposure.variance
        variance = np.full(good.sum(), self.noise**2) if own is None else own[where][good].astype(float)
        return Cutout(
            float(box.x0 + column), float(box.y0 + row), dx[good], dy[good], self.image[where][good].astype(float),
            variance, SKY_ERROR * self.noise, float(self.snr[k]), size,
        )  # fmt: skip

    def _wings(self, usual: float) -> FloatArray:
        """The radii within which the wings of each source stand out of the noise."""
        alpha = 0.5 * usual / np.sqrt(2.0 ** (1.0 / WING_BETA) - 1.0)
        level = np.maximum(self.heights / (0.5 * self.noise), 1.0)
        return np.asarray(np.clip(alpha * np.sqrt(level ** (1.0 / WING_BETA) - 1.0), 0.8 * usual, 8.0 * usual))


def _disc(radius: float) -> int:
    """The pixels whose centre is so close to one of them."""
    axis = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
    return int((np.hypot(axis[:, None], axis[None, :]) <= radius).sum())


def _usual_size(sizes: FloatArray, snr: FloatArray, expected: float | None) -> float:
    """The smallest size about which many sources cluster, or that next to what is expected."""
    at = np.log(sizes[sizes >= NARROWEST])
    if not at.size:
        return float(np.median(sizes))
    weight = np.log(snr[sizes >= NARROWEST])
    grid = np.arange(at.min() - BANDWIDTH, at.max() + 2 * BANDWIDTH, 0.1 * BANDWIDTH)
    density = np.exp(-0.5 * ((grid[:, None] - at[None, :]) / BANDWIDTH) ** 2) @ weight
    inner = density[1:-1]
    modes = np.flatnonzero((inner >= density[:-2]) & (inner >= density[2:]) & (inner >= CLUSTER * density.max())) + 1
    if expected is None:
        return float(np.exp(grid[modes[0]]))
    return float(np.exp(grid[modes[np.argmin(np.abs(grid[modes] - np.log(expected)))]]))
