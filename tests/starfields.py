"""Simulated frames whose PSF is known everywhere, with all that is not a star in them."""

import numpy as np

import psfmatch


class Truth(psfmatch.PSF):
    """No Moffat profile: a sum of two, off-centre to each other, whose width and shape drift over the field."""

    shape = (61, 61)

    def __init__(self, box, *, fwhm=3.2, drift=0.06):
        self.box, self.fwhm, self.drift = box, fwhm, drift

    def at(self, dx, dy, x, y):
        """Flux in pixels at offsets from a source of unit flux at a place."""
        ny, nx = self.box.shape
        u, v = 2 * (x - self.box.center.x) / nx, 2 * (y - self.box.center.y) / ny
        width = self.fwhm * (1 + self.drift * (u - 0.6 * v))
        core = psfmatch.MoffatPSF(
            fwhm=width, beta=3.4, ellipticity=0.06 + 0.4 * self.drift * (1 + v), angle=25 + 40 * u * (self.drift > 0)
        )
        halo = psfmatch.MoffatPSF(fwhm=1.7 * width, beta=2.6)
        return 0.8 * core.pixels(dx=dx + 0.05, dy=dy - 0.02) + 0.2 * halo.pixels(dx=dx - 0.2, dy=dy + 0.08)

    def stamps(self, *, x, y, shape=None):
        ny, nx = shape or self.shape
        dx, dy = (g.ravel() for g in np.meshgrid(np.arange(nx) - nx // 2.0, np.arange(ny) - ny // 2.0))
        px, py = np.broadcast_arrays(np.atleast_1d(x), np.atleast_1d(y))
        return np.stack([self.at(dx, dy, a, b).reshape(ny, nx) for a, b in zip(px, py, strict=True)])


def star_field(
    *, shape=(420, 500), stars=40, faint=150, galaxies=40, cosmic_rays=60, fwhm=3.2, drift=0.06, noise=10.0,
    saturation=6e4, gain=2.0, seed=1, variance=True, box=None, peaks=(150.0, 4e4),
):  # fmt: skip
    """An exposure, its true PSF, and where the bright stars are.

    Also in it: faint stars, blends, galaxies, saturated stars and cosmic rays, on a sloping sky.
    """
    rng = np.random.default_rng(seed)
    box = psfmatch.Box.from_shape(shape, y0=-35, x0=70) if box is None else box
    truth = Truth(box, fwhm=fwhm, drift=drift)
    image = np.zeros(shape)

    def add(x, y, flux, profile=truth.at, half=30):
        i, j = round(x) - box.x0, round(y) - box.y0
        rows = slice(max(0, j - half), min(shape[0], j + half + 1))
        columns = slice(max(0, i - half), min(shape[1], i + half + 1))
        py, px = np.mgrid[rows, columns].astype(float)
        dx, dy = (px + box.x0 - x).ravel(), (py + box.y0 - y).ravel()
        image[rows, columns] += flux * profile(dx, dy, x, y).reshape(px.shape)

    def places(count):
        return np.stack([rng.uniform(box.x0, box.x1 - 1, count), rng.uniform(box.y0, box.y1 - 1, count)], axis=1)

    scale = 1.0 / truth.stamps(x=box.center.x, y=box.center.y, shape=(3, 3)).max()
    bright = scale * np.exp(rng.uniform(*np.log(peaks), stars))
    where = places(stars)
    for (x, y), flux in zip(where, bright, strict=True):
        add(x, y, flux)
    for (x, y), flux in zip(places(faint), scale * noise * 10 ** rng.uniform(-0.5, 0.8, faint), strict=True):
        add(x, y, flux)
    for x, y in places(3):
        add(x, y, scale * 4 * saturation)
    for (x, y), flux in zip(
        places(galaxies), scale * np.exp(rng.uniform(*np.log((300.0, 8e3)), galaxies)), strict=True
    ):
        wide = psfmatch.MoffatPSF(
            fwhm=fwhm * rng.uniform(1.3, 2.5), beta=3.0, ellipticity=rng.uniform(0, 0.5), angle=rng.uniform(0, 180)
        )
        add(x, y, 2 * flux, lambda dx, dy, x, y, wide=wide: wide.pixels(dx=dx, dy=dy))
    electrons = rng.poisson(np.maximum(image, 0) * gain) / gain
    plane = noise**2 + np.maximum(image, 0) / gain
    image = electrons + rng.normal(0, noise, shape)
    for (x, y), height in zip(places(cosmic_rays), 10 ** rng.uniform(2, 4, cosmic_rays), strict=True):
        i, j = int(x) - box.x0, int(y) - box.y0
        image[j, i : i + rng.integers(1, 4)] += height
    sky = 300.0 + 0.02 * np.arange(shape[1])[None, :] - 0.03 * np.arange(shape[0])[:, None]
    image = np.minimum(image + sky, saturation)
    mask = psfmatch.Mask.from_bool(image >= saturation, "SAT")
    exposure = psfmatch.Exposure(image, variance=plane if variance else None, mask=mask, box=box)
    return exposure, truth, where
