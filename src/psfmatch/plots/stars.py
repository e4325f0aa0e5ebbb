"""Stars in the pixels of the image, before and after matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.match import Matched
from psfmatch.plots.profiles import ellipse, growth_curve, rings
from psfmatch.plots.style import AFTER, BEFORE, TARGET, new_figure, style
from psfmatch.psf import ImagePSF
from psfmatch.stars import Star, find_stars, fit_moffat, usable_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

__all__ = ["BeforeAfter", "before_after", "star_pairs", "stars", "two_sums"]

RADIUS = 12.0
"""Within which a star is fitted, in px."""


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
    labels : (str, str)
        What the two are called.
    """

    title: str
    before: Exposure
    after: Exposure
    star: Star
    matched_star: Star
    target_fwhm: float
    labels: tuple[str, str] = ("before", "after")

    def __post_init__(self) -> None:
        if self.after.psf is None:
            raise InputError(f"{self.title}: the matched exposure has no PSF; give it the target")


@style
def before_after(pairs: Sequence[BeforeAfter], *, half: int = 12) -> Figure:
    """A row for every pair: the star before and after in one stretch, its radial profile, and its growth curve.

    Parameters
    ----------
    pairs : sequence of BeforeAfter
        The rows.
    half : int
        The cut-outs reach so many pixels from the star; fluxes are measured within this radius.
    """
    figure = new_figure(0.5 + 1.55 * len(pairs), 8.0)
    _rows(figure, pairs, half)
    return figure


@style
def two_sums(pair: BeforeAfter, count: ArrayLike, *, half: int = 12) -> Figure:
    """Two images of one field in one stretch, how many inputs the second has, and a star as `before_after` shows it.

    Parameters
    ----------
    pair : BeforeAfter
        The two images, on one grid.
    count : array of integers, shape (ny, nx)
        Inputs in each pixel.
    half : int
        As of `before_after`.
    """
    figure = new_figure(5.4, 8.4)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)  # type: ignore[union-attr,call-arg]
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.35, 1.0])[:, 0]
    fields = above.subplots(1, 3, sharex=True, sharey=True)
    noise = 1.4826 * float(np.nanmedian(np.abs(pair.after.image - np.nanmedian(pair.after.image))))
    for ax, (exposure, _, _, label) in zip(fields, _sides(pair), strict=False):
        ax.imshow(
            np.arcsinh(np.where(usable_pixels(exposure), exposure.image, np.nan) / (3.0 * noise)), origin="lower",
            cmap="cividis", vmin=-1.0, vmax=4.5, interpolation="nearest",
        )  # fmt: skip
        ax.set_facecolor("0.75")
        ax.set_title(f"{label} (asinh)")
    numbers = np.asarray(count)
    levels = np.arange(numbers.max() + 2) - 0.5
    shown = fields[2].imshow(numbers, origin="lower", cmap="Greys", vmin=levels[0], vmax=levels[-1])
    fields[2].set_title("frames in each pixel of the coadd")
    above.colorbar(shown, ax=fields[2], ticks=levels[:-1] + 0.5, boundaries=levels, shrink=0.8)
    for ax in fields:
        ax.set_xlabel("x [px]")
    fields[0].set_ylabel("y [px]")
    _rows(below, [pair], half)
    return figure


def _rows(figure: FigureBase, pairs: Sequence[BeforeAfter], half: int) -> None:
    """The panels of `before_after`."""
    grid = figure.subplots(
        len(pairs), 4, squeeze=False, sharex="col", sharey="col", gridspec_kw={"width_ratios": [1.0, 1.0, 1.3, 1.3]}
    )
    for axes, pair in zip(grid, pairs, strict=True):
        _cutouts(axes[0], axes[1], pair, half)
        _profile(axes[2], pair, half)
        _growth(axes[3], pair, half)
        axes[0].set_ylabel(pair.title)
        for ax in axes[2:]:
            ax.set_box_aspect(1.0 / 1.3)
            ax.set_xlim(0, half)
            ax.grid()
            ax.spines[["top", "right"]].set_visible(False)
    share = f"[of that within {half} px]"
    titles = (*pairs[0].labels, f"flux in a pixel\n{share}", f"enclosed flux - target's\n{share}")
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, pad=5)
    for ax, label in zip(grid[-1], ("x [px]", "x [px]", "radius [px]", "radius [px]"), strict=True):
        ax.set_xlabel(label)
    figure.legend(*grid[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=2.0)


@style
def stars(before: Exposure, matched: Matched, *, count: int = 3, half: int = 12) -> Figure:
    """The brightest isolated stars, cut out of the image before and after matching, with profile and growth curve.

    Parameters
    ----------
    before : Exposure
        The image that was matched.
    matched : Matched
    count : int
        At most so many stars.
    half : int
        The cut-outs reach so many pixels from the star.

    Raises
    ------
    InputError
        If there is no isolated, unsaturated star.
    """
    return before_after(star_pairs(before, matched, count=count), half=half)


def star_pairs(before: Exposure, matched: Matched, *, count: int = 3) -> list[BeforeAfter]:
    """The brightest isolated stars that can be fitted before and after; parameters and errors as of `stars`."""
    after = matched.exposure
    if before.box != after.box:
        raise InputError(
            f"the image before covers {before.box}, the matched one {after.box}: give the one it came from"
        )
    saturation = before.meta.get("SATURATE")
    goal = _fitted_target(after)
    found: list[BeforeAfter] = []
    cells = matched.solution.cells
    middle = int(np.argmin(np.hypot(cells.x - before.box.center.x, cells.y - before.box.center.y)))
    seen = before.replace(psf=ImagePSF(cells.science[middle])) if before.psf is None else before
    for place in find_stars(seen, saturation=None if saturation is None else float(saturation), threshold=20.0):
        try:
            old, new = (fit_moffat(e, x=place.x, y=place.y, radius=RADIUS) for e in (before, after))
        except InputError:
            continue
        found.append(BeforeAfter(f"x = {old.x:.0f}, y = {old.y:.0f} px", before, after, old, new, goal))
        if len(found) == count:
            break
    if not found:
        raise InputError("no isolated, unsaturated star stands out of the matched image; there is nothing to show")
    return found


def _fitted_target(after: Exposure) -> float:
    """The FWHM of the target as it is measured in a star."""
    if after.psf is None:
        raise InputError("the matched exposure has no PSF; give it the target")
    center = after.box.center
    stamp = after.psf.stamps(x=center.x, y=center.y)[0]
    return fit_moffat(Exposure(stamp), x=stamp.shape[1] // 2, y=stamp.shape[0] // 2, radius=RADIUS).fwhm


def _sides(pair: BeforeAfter) -> tuple[tuple[Exposure, Star, str, str], ...]:
    first, second = pair.labels
    return (pair.before, pair.star, BEFORE, first), (pair.after, pair.matched_star, AFTER, second)


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
        ax.plot(*ellipse(pair.target_fwhm, 0.0, 0.0), color="white", lw=1.0, ls=(0, (2, 2)))
        ax.plot(*ellipse(star.fwhm, star.ellipticity, star.angle), color="white", lw=1.1)
        ax.text(
            0.04, 0.955, f"FWHM {star.fwhm:.2f} px", transform=ax.transAxes, va="top", color="white", fontsize=7,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "none"},
        )  # fmt: skip
        ax.set(xlim=(-half - 0.5, half + 0.5), ylim=(-half - 0.5, half + 0.5))
        ax.set(xticks=(-10, 0, 10), yticks=(-10, 0, 10))


def _profile(ax: Axes, pair: BeforeAfter, half: int) -> None:
    """Every pixel's share of the flux within the cut-out's radius, against its distance from the centre."""
    for exposure, star, colour, label in _sides(pair):
        radius, values = _around(exposure, star, half)
        ax.plot(radius, values / values.sum(), ".", ms=2.5, color=colour, alpha=0.7, mew=0, label=label)
    stamp = _target(pair, half)
    axis = np.arange(-half, half + 1.0)
    radius = np.hypot(axis[:, None], axis[None, :])
    radii, flux = rings(stamp, float(half), float(half), half)
    share = stamp[radius <= half].sum()
    ax.plot(radii, flux / share, color=TARGET, lw=1.2, label=f"target, FWHM {pair.target_fwhm:.2f} px")
    ax.set_yscale("log")
    ax.set_ylim(0.6 * float(flux[-1] / share), None)


def _growth(ax: Axes, pair: BeforeAfter, half: int) -> None:
    """The flux within a radius as a percentage of that within the cut-out's, less the same of the target."""
    want = growth_curve(*rings(_target(pair, half), float(half), float(half), half))
    ax.axhline(0.0, color=TARGET, lw=1.2)
    for exposure, star, colour, _ in _sides(pair):
        image = np.where(usable_pixels(exposure), exposure.image - star.background, np.nan)
        radii, mean = rings(image, star.x - exposure.box.x0, star.y - exposure.box.y0, half)
        ax.plot(radii, 100.0 * (growth_curve(radii, mean) - want), color=colour, lw=1.3)
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
