"""Figures.  Every function returns a matplotlib figure; to save or show it is the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.stars import Star, usable_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BeforeAfter", "before_after"]

# Okabe & Ito's colours, which differ for every kind of colour vision.
BEFORE, AFTER, TARGET = "#d55e00", "#0072b2", "#000000"


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """One star of one exposure, before and after matching.

    Parameters
    ----------
    title : str
        What the row of the figure is called.
    before, after : Exposure
        The exposure as it was read, and matched (its ``psf`` is the target).
    star, matched_star : Star
        The profile fitted to the star in each.
    target_fwhm : float
        The FWHM of the target, in pixels.
    """

    title: str
    before: Exposure
    after: Exposure
    star: Star
    matched_star: Star
    target_fwhm: float

    def __post_init__(self) -> None:
        if self.after.psf is None:
            raise InputError(f"{self.title}: the matched exposure has no PSF; give it the target")


def before_after(pairs: Sequence[BeforeAfter], *, half: int = 12) -> Figure:
    """A row for every pair: the star before and after in one stretch, its radial profile, and its growth curve.

    Parameters
    ----------
    pairs : sequence of BeforeAfter
        The rows.
    half : int
        The cut-outs reach so many pixels from the star; fluxes are measured within this radius.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 0.7 + 2.45 * len(pairs)), layout="constrained")
    grid = figure.subplots(
        len(pairs), 4, squeeze=False, sharex="col", sharey="col", gridspec_kw={"width_ratios": [1.0, 1.0, 1.3, 1.3]}
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr,call-arg]
    for axes, pair in zip(grid, pairs, strict=True):
        _cutouts(axes[0], axes[1], pair, half)
        _profile(axes[2], pair, half)
        _growth(axes[3], pair, half)
        axes[0].set_ylabel(pair.title, fontsize=11, labelpad=6)
        for ax in axes[2:]:
            ax.set_box_aspect(1.0 / 1.3)
            ax.set_xlim(0, half)
            ax.grid(color="0.9", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
    titles = ("before", "after", "share of the flux in a pixel", "enclosed flux minus the target's")
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, fontsize=12, pad=9)
    for ax, label in zip(grid[-1], ("x [px]", "x [px]", "radius [px]", "radius [px]"), strict=True):
        ax.set_xlabel(label)
    grid[0, 2].legend(frameon=False, fontsize=10, markerscale=2.5)
    return figure


def _sides(pair: BeforeAfter) -> tuple[tuple[Exposure, Star, str, str], ...]:
    return (pair.before, pair.star, BEFORE, "before"), (pair.after, pair.matched_star, AFTER, "after")


def _cutouts(left: Axes, right: Axes, pair: BeforeAfter, half: int) -> None:
    """The star before and after, in one asinh stretch from the sky to the peak before."""
    peak = float(_around(pair.before, pair.star, half)[1].max())
    for ax, (exposure, star, colour, _) in zip((left, right), _sides(pair), strict=True):
        image = np.where(usable_pixels(exposure), exposure.image - star.background, np.nan)
        box = exposure.box
        ax.imshow(
            np.arcsinh(100.0 * image / peak) / np.arcsinh(100.0),
            origin="lower", cmap="cividis", vmin=-0.05, vmax=1.0, interpolation="nearest",
            extent=(box.x0 - 0.5 - star.x, box.x1 - 0.5 - star.x, box.y0 - 0.5 - star.y, box.y1 - 0.5 - star.y),
        )  # fmt: skip
        ax.set_facecolor("0.75")
        ax.plot(*_ellipse(pair.target_fwhm, 0.0, 0.0), color="white", lw=1.0, ls=(0, (2, 2)))
        ax.plot(*_ellipse(star.fwhm, star.ellipticity, star.angle), color="white", lw=1.4)
        ax.text(
            0.04, 0.955, f"FWHM {star.fwhm:.2f} px", transform=ax.transAxes, va="top", color="white", fontsize=10,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "none"},
        )  # fmt: skip
        ax.set(xlim=(-half - 0.5, half + 0.5), ylim=(-half - 0.5, half + 0.5))
        ax.set(xticks=(-10, 0, 10), yticks=(-10, 0, 10))


def _ellipse(fwhm: float, ellipticity: float, angle: float) -> tuple[FloatArray, FloatArray]:
    """The contour at half maximum, about the origin."""
    t = np.linspace(0.0, 2.0 * np.pi, 181)
    stretch = np.sqrt(1.0 - ellipticity)
    u, v = 0.5 * fwhm / stretch * np.cos(t), 0.5 * fwhm * stretch * np.sin(t)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return u * c - v * s, u * s + v * c


def _profile(ax: Axes, pair: BeforeAfter, half: int) -> None:
    """Every pixel's share of the flux within the cut-out's radius, against its distance from the centre."""
    for exposure, star, colour, label in _sides(pair):
        radius, values = _around(exposure, star, half)
        ax.plot(radius, values / values.sum(), ".", ms=4, color=colour, alpha=0.7, mew=0, label=label)
    stamp = _target(pair, half)
    axis = np.arange(-half, half + 1.0)
    radius = np.hypot(axis[:, None], axis[None, :])
    radii, flux = _rings(stamp, float(half), float(half), half)
    share = stamp[radius <= half].sum()
    ax.plot(radii, flux / share, color=TARGET, lw=1.2, label=f"target, FWHM {pair.target_fwhm:.2f} px")
    ax.set_yscale("log")
    ax.set_ylim(0.6 * float(flux[-1] / share), None)


def _growth(ax: Axes, pair: BeforeAfter, half: int) -> None:
    """The flux within a radius as a percentage of that within the cut-out's, less the same of the target."""
    want = _growth_curve(*_rings(_target(pair, half), float(half), float(half), half))
    ax.axhline(0.0, color=TARGET, lw=1.2)
    for exposure, star, colour, _ in _sides(pair):
        image = np.where(usable_pixels(exposure), exposure.image - star.background, np.nan)
        radii, mean = _rings(image, star.x - exposure.box.x0, star.y - exposure.box.y0, half)
        ax.plot(radii, 100.0 * (_growth_curve(radii, mean) - want), color=colour, lw=1.8)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0f} %" if value else "0")


def _target(pair: BeforeAfter, half: int) -> FloatArray:
    """The target's stamp over the cut-out."""
    assert pair.after.psf is not None
    star, shape = pair.matched_star, (2 * half + 1, 2 * half + 1)
    return np.asarray(pair.after.psf.stamps(x=star.x, y=star.y, shape=shape)[0])


def _around(exposure: Exposure, star: Star, half: int) -> tuple[FloatArray, FloatArray]:
    """Radius, and value above the background, of the usable pixels around a star."""
    rows, columns = (np.arange(n) + o for n, o in zip(exposure.shape, (exposure.box.y0, exposure.box.x0), strict=True))
    radius = np.hypot(rows[:, None] - star.y, columns[None, :] - star.x)
    use = (radius <= half) & usable_pixels(exposure)
    return radius[use], exposure.image[use].astype(float) - star.background


def _rings(image: FloatArray, x: float, y: float, half: int) -> tuple[FloatArray, FloatArray]:
    """Radii, and the mean of the image on circles of these radii about (x, y), leaving out what is NaN."""
    radii, angles = np.linspace(0.0, half, 121), np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False)
    at = y + radii[:, None] * np.sin(angles), x + radii[:, None] * np.cos(angles)
    hidden = map_coordinates(np.isnan(image).astype(float), at, order=1, mode="constant", cval=1.0) > 0
    values = map_coordinates(np.nan_to_num(image).astype(float), at, order=3, mode="nearest")
    return radii, np.average(values, axis=1, weights=~hidden + 1e-9)


def _growth_curve(radii: FloatArray, mean: FloatArray) -> FloatArray:
    """The share of the flux within each radius of that within the last, from the mean on circles."""
    flux = np.concatenate([[0.0], np.cumsum(0.5 * (mean[1:] + mean[:-1]) * np.diff(radii**2))])
    return np.asarray(flux / flux[-1])
