"""One sky in many simulated exposures: stars of known flux, PSFs that vary over each frame, dithers and rotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psfmatch import BasisPSF, Box, Exposure, Field, Grid, Mask, MoffatPSF

RA, DEC = 186.7, 25.4
SCALE = 0.263
STAMP = 61
ANGLE = 30.0


@dataclass(frozen=True)
class Sky:
    """Stars on a grid.

    Parameters
    ----------
    grid : Grid
    x, y, flux : array, shape (n,)
        Positions in pixels of the grid.
    """

    grid: Grid
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]

    @classmethod
    def of(cls, shape: tuple[int, int], spacing: int, *, seed: int = 1) -> Sky:
        """Stars on whole pixels, about ``spacing`` apart, of fluxes over two decades."""
        rng = np.random.default_rng(seed)
        grid = Grid.centered(RA, DEC, shape=shape, pixel_scale=SCALE)
        half = spacing // 2
        y, x = (a.ravel() for a in np.mgrid[half : shape[0] - half + 1 : spacing, half : shape[1] - half + 1 : spacing])
        move = spacing // 8
        x, y = (a + rng.integers(-move, move + 1, a.size) for a in (x, y))
        return cls(grid, x.astype(float), y.astype(float), 10 ** rng.uniform(3.5, 5.5, x.size))

    def exposure(
        self, k: int, shape: tuple[int, int], *, dither: float, sigma: float = 10.0, masked: float = 0.0,
        trail: float = 0.0,
    ) -> Exposure:  # fmt: skip
        """The exposure number k.

        Parameters
        ----------
        k : int
            Of this depend the place, the rotation (to 30 degrees), the PSF and the noise.
        shape : (int, int)
        dither : float
            Largest offset from the middle of the grid along each axis, arcseconds.
        sigma : float
            Of the white noise; 0: none (and a variance of 1).
        masked : float
            Share of the pixels that are BAD, in groups of 2 x 3, with nonsense in them.
        trail : float
            Peak of a satellite's trail, in units of sigma.
        """
        rng = np.random.default_rng(1000 + k)
        east, north = rng.uniform(-dither, dither, 2) / 3600.0
        place = RA + east / np.cos(np.radians(DEC)), DEC + north
        wcs = Grid.centered(*place, shape=shape, pixel_scale=SCALE, rotation=rng.uniform(-ANGLE, ANGLE)).wcs
        models, psf = _psf(k, Box.from_shape(shape))
        image = rng.standard_normal(shape, np.float32) * np.float32(sigma) if sigma else np.zeros(shape, np.float32)
        self._paint(image, wcs, models, psf.weights)
        if trail:
            y, x = np.ogrid[: shape[0], : shape[1]]
            across = 0.8 * (y - 0.45 * shape[0]) - 0.6 * (x - 0.5 * shape[1])
            image += (trail * sigma * np.exp(-0.5 * (across / 2.0) ** 2)).astype(np.float32)
        bad = np.zeros(shape, bool)
        count = int(-np.log1p(-masked) * image.size / 6)
        for dy, dx in np.ndindex(2, 3):
            if dy == dx == 0:
                y, x = rng.integers(0, shape[0] - 1, count), rng.integers(0, shape[1] - 2, count)
            bad[y + dy, x + dx] = True
        image[bad] = 1e4
        variance = np.full(shape, sigma**2 if sigma else 1.0, np.float32)
        return Exposure(image, variance=variance, mask=Mask(bad.astype(np.int32)), psf=psf, wcs=wcs)

    def _paint(self, image: NDArray[np.float32], wcs, models: list[MoffatPSF], weights: Field) -> None:
        """Every star with the PSF at its place, where it is: between the pixels."""
        half = STAMP // 2
        px, py = wcs.world_to_pixel_values(*self.grid.wcs.pixel_to_world_values(self.x, self.y))
        ny, nx = image.shape
        near = (px > -half) & (px < nx + half) & (py > -half) & (py < ny + half)
        for x, y, flux in zip(px[near], py[near], self.flux[near], strict=True):
            row, column = round(y), round(x)
            rows, columns = np.mgrid[row - half : row + half + 1, column - half : column + half + 1]
            inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
            rows, columns = rows[inside], columns[inside]
            share = weights.at(x=x, y=y)[:, 0]
            light = sum(w * m.pixels(dx=columns - x, dy=rows - y) for w, m in zip(share, models, strict=True))
            image[rows, columns] += flux * light


def _psf(k: int, box: Box) -> tuple[list[MoffatPSF], BasisPSF]:
    """A mixture of three Moffats whose shares vary linearly over the frame; stars are painted with the same mixture."""
    rng = np.random.default_rng(2000 + k)
    fwhm, angle = rng.uniform(3.0, 3.9), rng.uniform(0.0, 180.0)
    models = [
        MoffatPSF(fwhm=fwhm, beta=3.5, ellipticity=0.05, angle=angle),
        MoffatPSF(fwhm=fwhm + 0.4, beta=3.5, ellipticity=0.03, angle=angle),
        MoffatPSF(fwhm=fwhm + 0.1, beta=3.5, ellipticity=0.12, angle=angle + 60.0),
    ]
    coefficients = np.zeros((3, 3))
    coefficients[1] = 0.4, *rng.uniform(-0.2, 0.2, 2)
    coefficients[2] = 0.3, *rng.uniform(-0.15, 0.15, 2)
    coefficients[0] = np.array([1.0, 0.0, 0.0]) - coefficients[1] - coefficients[2]
    stamps = np.stack([model.stamps(x=0, y=0, shape=(STAMP, STAMP))[0] for model in models])
    return models, BasisPSF(stamps, Field(coefficients, box), normalize=False)
