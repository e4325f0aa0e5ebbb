"""The second half of ``psfmatch demo``: the frames added, matched and not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psfmatch.cli.console import Console

if TYPE_CHECKING:
    from psfmatch.coadd import Coadd
    from psfmatch.exposure import Exposure
    from psfmatch.stars import Star

__all__ = ["Sums", "added", "draw_sums", "print_sums", "sum_values"]

RADIUS = 12.0
ZERO_POINTS = {"N2": 24.896187, "S1": 24.869110, "N3": 24.906143, "N3b": 24.990284}
"""Magnitudes of one ADU a second: the column ccdzpt of the table that came with the frames."""


@dataclass(frozen=True, eq=False)
class Sums:
    """The frames added as they are, and matched; and in each the brightest star and the noise of the sky.

    Parameters
    ----------
    plain : Exposure
        The mean of the frames, brought to the grid without being matched, with the scales, skies and weights of the
        coadd.
    coadd : Coadd
    stars : (Star, Star)
        In the plain mean and in the coadd.
    noise : tuple of two (float, float)
        The scatter of the sky in each: of the pixels, and of the flux in circles of the target's FWHM in diameter.
    path : Path
        Where the coadd is written.
    """

    plain: Exposure
    coadd: Coadd
    stars: tuple[Star, Star]
    noise: tuple[tuple[float, float], tuple[float, float]]
    path: Path


def added(exposures: Mapping[str, Exposure], target: str, fwhm: float, path: Path, *, overwrite: bool) -> Sums:
    """Add the frames in both ways, and write the coadd."""
    import psfmatch
    from psfmatch.coadd import Store, planned, run_coadd, write_coadd
    from psfmatch.io.files import temporary_folder
    from psfmatch.stars import find_stars, fit_moffat

    inputs = [
        psfmatch.CoaddInput(
            one, name=name, zero_point=ZERO_POINTS[name] + 2.5 * math.log10(float(one.meta["EXPTIME"]))
        )
        for name, one in exposures.items()
    ]  # fmt: skip
    recipe = psfmatch.Recipe(background="median")
    plan = planned(inputs, target=target, grid="auto", method=psfmatch.ClippedMean(), recipe=recipe)
    with temporary_folder("psfmatch-demo-") as folder:
        store = Store(folder)
        made = run_coadd(plan, store)
        write_coadd(plan, store, path, overwrite=overwrite)
    plain = _plain_mean(exposures, made)
    place = find_stars(made.exposure)[0]
    before, after = (fit_moffat(one, x=place.x, y=place.y, radius=RADIUS) for one in (plain, made.exposure))
    return Sums(plain, made, (before, after), (_noise(plain, fwhm / 2), _noise(made.exposure, fwhm / 2)), path)


def _plain_mean(exposures: Mapping[str, Exposure], made: Coadd) -> Exposure:
    import numpy as np

    import psfmatch

    rows = {row.name: row for row in made.rows if row.used}
    stack = []
    for name, row in rows.items():
        one = exposures[name]
        assert one.variance is not None
        scaled = one.replace(image=(one.image - row.sky) * row.factor, variance=one.variance * row.factor**2)
        stack.append(psfmatch.warp(scaled, made.grid))
    planes = stack[0].mask.planes
    mean = psfmatch.combine(
        np.stack([one.image for one in stack]),
        np.stack([np.asarray(one.variance) for one in stack]),
        np.stack([one.mask.array for one in stack]),
        [row.weight for row in rows.values()],
        method=psfmatch.Mean(),
        planes=planes,
    )
    return made.exposure.replace(
        image=mean.image, variance=mean.variance, mask=psfmatch.Mask(mean.mask, planes), psf=stack[0].psf
    )


def _noise(exposure: Exposure, radius: float) -> tuple[float, float]:
    """The standard deviation of the sky's pixels, and of the flux in circles side by side.

    From the lower half of the values: stars and galaxies are in the upper one.
    """
    import numpy as np

    from psfmatch.noise import aperture_stamps
    from psfmatch.stars import usable_pixels

    circle = aperture_stamps(x=0.0, y=0.0, radius=radius)[0]
    side = len(circle)
    image = np.where(usable_pixels(exposure), exposure.image, np.nan)
    ny, nx = (n // side for n in image.shape)
    boxes = image[: ny * side, : nx * side].reshape(ny, side, nx, side).transpose(0, 2, 1, 3)
    middle, low = np.nanquantile(image, [0.5, 0.15865])
    flux_middle, flux_low = np.nanquantile((boxes * circle).sum(axis=(2, 3)), [0.5, 0.15865])
    return float(middle - low), float(flux_middle - flux_low)


def print_sums(console: Console, sums: Sums, fwhm: float) -> None:
    """The two sums, line by line."""
    rows = [
        (name, f"{star.fwhm:.3f}", f"{star.fwhm / fwhm - 1:+.2%}", f"{star.ellipticity:.3f}", f"{star.beta:.2f}",
         f"{pixels:.2f}", f"{circles:.1f}")
        for name, star, (pixels, circles) in zip(("plain mean", "coadd"), sums.stars, sums.noise, strict=True)
    ]  # fmt: skip
    console.line(
        f"\nThe {sum(row.used for row in sums.coadd.rows)} frames added: their brightest star, and the scatter of the "
        f"sky (ADU) in pixels and in circles of {fwhm:g} px diameter"
    )
    console.table(("sum", "FWHM", "over\ntarget", "ellip-\nticity", "beta", "sky in\npixels", "sky in\ncircles"), rows)


def sum_values(sums: Sums) -> dict[str, Any]:
    """What ``--json`` says."""
    plain, matched = (
        {"x": star.x, "y": star.y, "fwhm": star.fwhm, "ellipticity": star.ellipticity, "beta": star.beta,
         "sky_in_pixels": pixels, "sky_in_circles": circles}
        for star, (pixels, circles) in zip(sums.stars, sums.noise, strict=True)
    )  # fmt: skip
    rows = [vars(row) for row in sums.coadd.rows]
    return {"plain_mean": plain, "coadd": matched, "output": sums.path, "inputs": rows}


def draw_sums(sums: Sums, fwhm: float, path: Path) -> Path:
    """The picture; matplotlib must be installed."""
    from psfmatch.plots import BeforeAfter, two_sums

    pair = BeforeAfter(
        "", sums.plain, sums.coadd.exposure, *sums.stars, target_fwhm=fwhm, labels=("plain mean", "coadd")
    )
    two_sums(pair, sums.coadd.count).savefig(path, dpi=100)
    return path
