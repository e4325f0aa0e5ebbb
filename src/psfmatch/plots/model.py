"""All candidates side by side, and how the spatial model of the kernel follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from psfmatch.geometry import FloatArray
from psfmatch.match import Matched
from psfmatch.plots.pairs import Pair, pair
from psfmatch.plots.style import (
    AFTER,
    BEFORE,
    LIGHT,
    TARGET,
    WIDTH,
    asinh_norm,
    colour_bar,
    new_figure,
    panel,
    round_down,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Show", "basis_mosaic", "candidate_stamps", "candidates", "field_mosaic", "kernel_coefficients",
    "kernel_spatial_model", "mosaic",
]  # fmt: skip

Show = Literal["stamps", "kernels", "residuals"]
MOST, MOST_TERMS, HALF = 48, 5, 15


def _numbers(matched: Matched, bad: bool) -> tuple[Any, Any]:
    """The candidates to show, and which of all were used."""
    count = len(matched.solution.cells)
    used = np.asarray(matched.solution.statistics.get("used", np.ones(count, bool)), bool)
    wanted = np.arange(count) if bad else np.flatnonzero(used)
    return wanted[np.unique(np.linspace(0, wanted.size - 1, min(wanted.size, MOST)).astype(int))], used


def candidate_stamps(matched: Matched, show: Show, *, bad: bool = False) -> tuple[list[Pair], FloatArray]:
    """Some candidates, and of each what is shown: science, matched and target PSF in a row, the kernel, or K*S - T.

    Parameters
    ----------
    matched : Matched
    show : {"stamps", "kernels", "residuals"}
    bad : bool
        Rejected candidates too.

    Returns
    -------
    list of Pair
        At most 48.
    array, shape (n, sy, sx)
        Residuals in units of the target's peak.
    """
    pairs = [pair(matched, int(k)) for k in _numbers(matched, bad)[0]]
    if show == "kernels":
        return pairs, np.stack([one.kernel for one in pairs])
    cut = [one.cut(HALF) for one in pairs]
    if show == "residuals":
        return pairs, np.stack([one.difference / one.target.max() for one in cut])
    return pairs, np.stack([np.hstack([one.science, one.matched, one.target]) for one in cut])


def mosaic(stamps: FloatArray, columns: int) -> FloatArray:
    """Stamps (n, sy, sx) in rows from the bottom left, a pixel apart; what is empty is NaN."""
    n, sy, sx = stamps.shape
    rows = -(-n // columns)
    out = np.full((rows * (sy + 1) - 1, columns * (sx + 1) - 1), np.nan)
    for k, stamp in enumerate(stamps):
        y, x = (k // columns) * (sy + 1), (k % columns) * (sx + 1)
        out[y : y + sy, x : x + sx] = stamp
    return out


@style
def candidates(matched: Matched, show: Show = "stamps", *, bad: bool = False) -> Figure:
    """Every candidate (at most 48): its PSFs, its kernel, or its residual; rejected ones in a dashed frame.

    PSFs are in an asinh stretch, linear below 1 % of the peak; kernels in a signed one; residuals are linear, in % of
    the target's peak.

    Parameters
    ----------
    matched : Matched
    show : {"stamps", "kernels", "residuals"}
    bad : bool
        Rejected candidates too.
    """
    from matplotlib.colors import Normalize

    pairs, stamps = candidate_stamps(matched, show, bad=bad)
    used = _numbers(matched, bad)[1]
    columns = max(3, int(np.ceil(np.sqrt(len(pairs)))))
    rows = -(-len(pairs) // columns)
    wide = stamps.shape[2] / stamps.shape[1]
    side = min((WIDTH - 0.9) / columns / wide, 1.2)
    figure = new_figure(0.6 + rows * (side + 0.2), 0.9 + columns * side * wide)
    grid = figure.subplots(rows, columns, squeeze=False)
    top = float(np.abs(stamps).max())
    scale = 100.0 if show == "residuals" else 1.0
    norm = {
        "stamps": asinh_norm(top, linear=0.01, signed=False), "kernels": asinh_norm(top),
        "residuals": Normalize(-scale * top, scale * top),
    }[show]  # fmt: skip
    for k, (one, stamp) in enumerate(zip(pairs, stamps, strict=True)):
        ax = grid[rows - 1 - k // columns, k % columns]
        image = panel(ax, scale * stamp, norm=norm, signed=show != "stamps", axes=False)
        good = bool(used[one.number])
        ax.set_title(f"{one.number}: {one.residual:.1e}" + ("" if good else ", rejected"), fontsize=5.5, pad=2)
        for spine in ax.spines.values():
            spine.set(color=TARGET if good else BEFORE, linestyle="-" if good else "--", linewidth=0.6 if good else 1.4)
    for k in range(len(pairs), rows * columns):
        grid[rows - 1 - k // columns, k % columns].set_visible(False)
    tick = round_down(scale * top)
    words = {
        "stamps": "flux in a pixel, asinh stretch", "kernels": "kernel, asinh stretch",
        "residuals": "matched - target [% of peak]",
    }[show]  # fmt: skip
    ticks = (0.0, tick / 10, tick) if show == "stamps" else (-tick, 0.0, tick)
    colour_bar(figure, image, grid.ravel().tolist(), words, ticks=ticks)
    what = {"stamps": "science, matched, target PSF", "kernels": "kernels", "residuals": "residuals"}[show]
    figure.suptitle(f"candidates: {what} (number: residual)", fontsize=7 if columns * side * wide > 3 else 6)
    return figure


def _terms(matched: Matched) -> Any:
    """The terms whose weights hold most of the kernel, strongest first."""
    kernel, cells = matched.solution.kernel, matched.solution.cells
    weights = kernel.weights.at(x=cells.x, y=cells.y)
    powers = (weights**2).mean(axis=1) * (kernel.basis**2).sum(axis=(1, 2))
    return np.argsort(powers)[::-1][:MOST_TERMS]


@style
def kernel_spatial_model(matched: Matched, *, own: FloatArray | None = None, bad: bool = False) -> Figure:
    """The weight of each basis image along x and along y: the spatial model, and what each candidate alone would have.

    Parameters
    ----------
    matched : Matched
    own : array, shape (n_terms, n_candidates), optional
        The weights of the kernel that fits one candidate only; without them the model's values are dots.
    bad : bool
        Rejected candidates too.
    """
    cells, terms = matched.solution.cells, _terms(matched)
    numbers, used = _numbers(matched, bad)
    x, y = cells.x[numbers], cells.y[numbers]
    model = matched.solution.kernel.weights.at(x=x, y=y)
    figure = new_figure(0.6 + 1.35 * len(terms))
    grid = figure.subplots(len(terms), 2, squeeze=False, sharex="col", sharey="row")
    for row, k in zip(grid, terms, strict=True):
        for ax, at in zip(row, (x, y), strict=True):
            ax.plot(at, model[k], "o", ms=4, mfc="none", color=AFTER, label="spatial model")
            if own is not None:
                good = used[numbers]
                ax.plot(at[good], own[k, numbers[good]], "+", ms=5, color=BEFORE, label="candidate alone")
                if not good.all():
                    ax.plot(at[~good], own[k, numbers[~good]], "x", ms=5, color=TARGET, label="rejected")
            ax.grid()
            ax.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"weight {k}")
    grid[-1, 0].set_xlabel("x [px]")
    grid[-1, 1].set_xlabel("y [px]")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(
        f"weights at the candidates: {len(terms)} of {len(matched.solution.kernel.basis)} terms", fontsize=8
    )
    return figure


@style
def kernel_coefficients(matched: Matched, *, own: FloatArray | None = None, bad: bool = False) -> Figure:
    """Histograms over the candidates of the weights of the strongest terms; parameters as of `kernel_spatial_model`."""
    cells, terms = matched.solution.cells, _terms(matched)
    numbers, _ = _numbers(matched, bad)
    model = matched.solution.kernel.weights.at(x=cells.x[numbers], y=cells.y[numbers])
    figure = new_figure(2.3)
    axes = figure.subplots(1, len(terms), squeeze=False, sharey=True)[0]
    for ax, k in zip(axes, terms, strict=True):
        both = model[k] if own is None else np.concatenate([model[k], own[k, numbers]])
        low, high = float(both.min()), float(both.max())
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        bins = np.linspace(low - margin, high + margin, 13)
        ax.hist(model[k], bins, color=AFTER, alpha=0.8, label="spatial model")
        if own is not None:
            ax.hist(own[k, numbers], bins, histtype="step", color=BEFORE, lw=1.3, label="candidate alone")
        ax.axvline(float(np.median(model[k])), color=LIGHT, lw=0.8)
        ax.set(xlabel=f"weight {k}")
        ax.locator_params(axis="x", nbins=2)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("candidates")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(
        f"weights at the candidates: {len(terms)} of {len(matched.solution.kernel.basis)} terms", fontsize=8
    )
    return figure


def basis_mosaic(matched: Matched) -> FloatArray:
    """The basis images, as an image."""
    stamps = matched.solution.kernel.basis
    return mosaic(stamps, int(np.ceil(np.sqrt(len(stamps)))))


def field_mosaic(matched: Matched, side: int = 5) -> FloatArray:
    """The kernel at ``side`` x ``side`` places over the field, as an image."""
    box = matched.solution.kernel.box
    ny, nx = box.shape
    u = (np.arange(side) + 0.5) / side
    x, y = (g.ravel() for g in np.meshgrid(box.x0 - 0.5 + nx * u, box.y0 - 0.5 + ny * u))
    return mosaic(matched.solution.kernel.stamps(x=x, y=y), side)
