"""The stars of a matched exposure against the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from psfmatch.plots.profiles import ellipse
from psfmatch.plots.style import AFTER, BEFORE, TARGET, colour_bar, frame, new_figure, panel, signed_map, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from psfmatch.check import Check

__all__ = ["check_figure"]

NEAR = 2.0
"""In units of the target's FWHM: the part of the mean residual that sets the colours."""
UNSURE = 0.3
"""A star whose size is less sure is not drawn."""


@style
def check_figure(results: Mapping[str, Check]) -> Figure:
    """The stars of an exposure against the target: size by brightness and over the field, growth curve, mean residual.

    The growth curve is the flux within a radius, less the target's, over the flux of the target fitted to each star.

    Parameters
    ----------
    results : mapping of str to Check
        By name: ``before``, where it was checked, and ``after``, in this order.
    """
    figure = new_figure(5.4)
    (bright, growth), (field, image) = figure.subplots(2, 2)
    last = list(results.values())[-1]
    colours = (BEFORE, AFTER)[-len(results) :]
    for (name, one), colour in zip(results.items(), colours, strict=True):
        sure = one.size_errors < UNSURE
        bright.errorbar(
            one.flux[sure] / one.flux.max(initial=0.0), 100 * one.sizes[sure], 100 * one.size_errors[sure], fmt="o",
            ms=3, color=colour, lw=1,
        )  # fmt: skip
        growth.fill_between(
            one.radii, *(100 * (one.growth + sign * one.growth_error) for sign in (-1, 1)), color=colour, alpha=0.25,
            lw=0,
        )  # fmt: skip
        said = f"{name}: {len(one)} star{'s' * (len(one) > 1)}, "
        said += f"FWHM {100 * one.size.value:+.2f} ± {100 * one.size.error:.2f} %"
        growth.plot(one.radii, 100 * one.growth, color=colour, lw=1.8, label=said if len(one) else f"{name}: no star")
    for ax in (bright, growth):
        ax.axhline(0.0, color=TARGET, lw=1.0)
        for sign in (-1, 1):
            ax.axhline(sign * 100 * last.tolerance, color=TARGET, lw=0.8, ls=(0, (4, 3)))
        ax.grid()
        ax.spines[["top", "right"]].set_visible(False)
    bright.set(xscale="log", xlabel="flux of the star / brightest", ylabel="FWHM - target's [%]", title="each star")
    growth.set(
        xlabel="radius [px]",
        ylabel="enclosed flux - target's\n[% of the fitted flux]",
        title="mean growth curve of the stars",
    )
    _over_field(field, last)
    _mean_residual(image, last)
    figure.legend(*growth.get_legend_handles_labels(), loc="outside upper center", ncols=len(results))
    return figure


def _over_field(ax: Axes, found: Check) -> None:
    """The size of each star at its place."""
    limit = 100 * max(2.0 * found.tolerance, float(np.abs(found.sizes).max(initial=0.0)))
    dots = ax.scatter(
        found.x, found.y, c=100 * found.sizes, s=36, cmap=signed_map(), vmin=-limit, vmax=limit, edgecolor="0.2"
    )
    frame(ax, found.box)
    ax.set_title("over the field, after")
    colour_bar(ax.figure, dots, ax, "FWHM - target's [%]")  # type: ignore[arg-type]


def _mean_residual(ax: Axes, found: Check) -> None:
    """The mean star less the target, relative to the target's peak; colours span what is near the star."""
    from matplotlib.colors import Normalize

    half, middle = min(len(found.target) // 2, int(3 * found.target_fwhm)), len(found.target) // 2
    inner = slice(middle - half, middle + half + 1)
    relative = 100 * found.stack.residual[inner, inner] / found.target.max()
    offset = np.arange(-half, half + 1)
    near = np.hypot(offset[:, None], offset) <= NEAR * found.target_fwhm
    limit = max(1.0, float(np.abs(relative[near]).max()))
    shown = panel(ax, relative, norm=Normalize(-limit, limit), signed=True)
    ax.plot(*ellipse(found.target_fwhm, 0.0, 0.0), color="0.2", lw=1.0, ls=(0, (2, 2)))
    ax.set(xlabel="x [px]", ylabel="y [px]", title="mean residual, after")
    beyond = "both" if np.abs(relative).max() > limit else "neither"
    colour_bar(ax.figure, shown, ax, "mean star - target [% of the peak]", extend=beyond)  # type: ignore[arg-type]
