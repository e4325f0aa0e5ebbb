"""The stars of a matched exposure against the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from psfmatch.plots.profiles import ellipse
from psfmatch.plots.style import AFTER, BEFORE, TARGET, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from psfmatch.check import Check

__all__ = ["check_figure"]


@style
def check_figure(results: Mapping[str, Check]) -> Figure:
    """The stars of an exposure against the target: size by brightness and over the field, growth curve, mean residual.

    Parameters
    ----------
    results : mapping of str to Check
        By name: ``before``, where it was checked, and ``after``, in this order.
    """
    figure = new_figure(5.6)
    (bright, growth), (field, image) = figure.subplots(2, 2)
    last = list(results.values())[-1]
    colours = (BEFORE, AFTER)[-len(results) :]
    for (name, one), colour in zip(results.items(), colours, strict=True):
        if len(one):
            bright.errorbar(
                one.flux / one.flux.max(), 100 * one.sizes, 100 * one.size_errors, fmt="o", ms=3, color=colour, lw=1,
                label=f"{name}: {100 * one.size.value:+.2f} ± {100 * one.size.error:.2f} %",
            )  # fmt: skip
        growth.fill_between(
            one.radii,
            *(100 * (one.growth + sign * one.growth_error) for sign in (-1, 1)),
            color=colour,
            alpha=0.25,
            lw=0,
        )
        growth.plot(one.radii, 100 * one.growth, color=colour, lw=1.8, label=name)
    for ax in (bright, growth):
        ax.axhline(0.0, color=TARGET, lw=1.0)
        for sign in (-1, 1):
            ax.axhline(sign * 100 * last.tolerance, color=TARGET, lw=0.8, ls=(0, (4, 3)))
        ax.grid(color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False)
    bright.set(xscale="log", xlabel="flux of the star / brightest", ylabel="FWHM - target's [%]", title="each star")
    growth.set(xlabel="radius [px]", ylabel="enclosed flux - target's [%]", title="mean growth curve")
    _over_field(field, last)
    _mean_residual(image, last)
    return figure


def _over_field(ax: Axes, found: Check) -> None:
    """The size of each star at its place."""
    limit = max(2.0 * found.tolerance, float(np.abs(found.sizes).max(initial=0.0)))
    dots = ax.scatter(
        found.x, found.y, c=100 * found.sizes, s=36, cmap="PuOr", vmin=-100 * limit, vmax=100 * limit, edgecolor="0.2"
    )
    ax.figure.colorbar(dots, ax=ax, label="FWHM - target's [%]")
    ax.set(
        xlabel="x [px]", ylabel="y [px]", title="over the field, after", aspect="equal",
        xlim=(found.box.x0 - 0.5, found.box.x1 - 0.5), ylim=(found.box.y0 - 0.5, found.box.y1 - 0.5),
    )  # fmt: skip


def _mean_residual(ax: Axes, found: Check) -> None:
    """The mean star less the target, relative to the target's peak."""
    half = min(len(found.target) // 2, int(3 * found.target_fwhm))
    middle = len(found.target) // 2
    inner = slice(middle - half, middle + half + 1)
    relative = 100 * found.stack.residual[inner, inner] / found.target.max()
    limit = max(1.0, float(np.abs(relative).max()))
    shown = ax.imshow(
        relative, origin="lower", cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest",
        extent=(-half - 0.5, half + 0.5, -half - 0.5, half + 0.5),
    )  # fmt: skip
    ax.figure.colorbar(shown, ax=ax, label="mean star - target [% of the peak]")
    ax.plot(*ellipse(found.target_fwhm, 0.0, 0.0), color="0.2", lw=1.0, ls=(0, (2, 2)))
    ax.set(xlabel="x [px]", ylabel="y [px]", title="mean residual, after")
