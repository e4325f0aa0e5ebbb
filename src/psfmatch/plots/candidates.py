"""The PSFs themselves: one candidate in pixels, and the growth curves of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from psfmatch.match import Matched
from psfmatch.moments import fwhm
from psfmatch.noise import aperture_stamps
from psfmatch.plots.pairs import enclosed, hardest, pair
from psfmatch.plots.style import (
    AFTER,
    BEFORE,
    TARGET,
    asinh_norm,
    colour_bar,
    label,
    new_figure,
    panel,
    round_down,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["candidate", "growth"]

MOST = 25


@style
def candidate(matched: Matched, *, number: int | None = None, half: int | None = None) -> Figure:
    """One candidate: science PSF, kernel, matched PSF, target and residual.

    The three PSFs are in one asinh stretch, linear below 1 % of the target's peak; the kernel in a signed one, linear
    below 2 % of its own; the residual is linear.

    Parameters
    ----------
    matched : Matched
    number : int, optional
        Of the candidate.  Default: the one with the largest residual.
    half : int, optional
        The stamps reach so many pixels from the centre.  Default: 3.5 FWHM of the broader PSF.

    Raises
    ------
    InputError
        If there is no candidate of this number.
    """
    whole = hardest(matched) if number is None else pair(matched, number)
    reach = int(np.ceil(3.5 * max(fwhm(whole.target), fwhm(whole.science)))) if half is None else half
    one = whole.cut(reach)
    figure = new_figure(2.36)
    axes = figure.subplots(1, 5)
    peak = float(max(one.target.max(), one.science.max()))
    flux = asinh_norm(peak, linear=0.01, signed=False)
    for ax, stamp, name in ((axes[0], one.science, "science"), (axes[2], one.matched, "matched"),
                            (axes[3], one.target, "target")):  # fmt: skip
        image = panel(ax, stamp, norm=flux)
        ax.set_title(name)
        label(ax, f"FWHM {fwhm(stamp):.2f} px")
    top = float(np.abs(one.kernel).max())
    kernel = panel(axes[1], one.kernel, norm=asinh_norm(top), signed=True)
    axes[1].set_title("kernel")
    label(axes[1], f"gain {whole.noise_gain:.3g}")
    percent = 100.0 * one.difference / whole.target.max()
    most = float(np.abs(percent).max())
    from matplotlib.colors import Normalize

    rest = panel(axes[4], percent, norm=Normalize(-most, most), signed=True)
    axes[4].set_title("matched - target")
    label(axes[4], f"residual {whole.residual:.2g}")
    for ax in axes:
        ax.set_xlabel("x [px]")
    axes[0].set_ylabel("y [px]")
    bars = (
        (image, axes[0], "flux in a pixel", (0.0, round_down(peak / 10), round_down(peak))),
        (kernel, axes[1], "kernel", (-round_down(top), 0.0, round_down(top))),
        (image, axes[2], "flux in a pixel", (0.0, round_down(peak / 10), round_down(peak))),
        (image, axes[3], "flux in a pixel", (0.0, round_down(peak / 10), round_down(peak))),
        (rest, axes[4], "% of peak", (-round_down(most), 0.0, round_down(most))),
    )
    for mappable, ax, words, ticks in bars:
        colour_bar(figure, mappable, ax, words, ticks=ticks, where="bottom")
    figure.suptitle(f"candidate {one.number} at x = {one.x:.0f}, y = {one.y:.0f} px; PSFs in asinh stretch", fontsize=8)
    return figure


@style
def growth(matched: Matched) -> Figure:
    """The flux of the PSF models within a radius, before and after matching and of the target; and after less target.

    A thin line for every candidate (at most 25), on the stamps as they were solved.  The fluxes are those of a point
    source of flux 1, so that what the stamps cut off is missing, and a kernel sum above 1 ends above it.  (Of stars,
    whose whole flux nobody knows, `before_after` shows that within a radius over that within the cut-out's, and
    `check_figure` that over the flux of the target fitted to them.)

    Parameters
    ----------
    matched : Matched
    """
    count = len(matched.solution.cells)
    pairs = [pair(matched, int(k)) for k in np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))]
    figure = new_figure(2.7)
    left, right = figure.subplots(1, 2)
    half = pairs[0].target.shape[0] // 2
    radius = np.geomspace(0.5, half, 80)
    weights = [aperture_stamps(x=0.0, y=0.0, radius=float(r))[0] for r in radius]
    goal = enclosed(pairs[0].target, weights)
    thin = {"lw": 0.6 if len(pairs) > 1 else 1.3, "alpha": 0.7}
    worst, where = 0.0, 0.0
    for k, one in enumerate(pairs):
        curves = [enclosed(stamp, weights) for stamp in (one.science, one.matched, one.target)]
        left.plot(radius, 100.0 * curves[0], color=BEFORE, label=None if k else "before", **thin)
        left.plot(radius, 100.0 * curves[1], color=AFTER, label=None if k else "after", **thin)
        right.plot(radius, 100.0 * (curves[1] - curves[2]), color=AFTER, **thin)
        off = np.abs(curves[1] - curves[2])
        if off.max() > worst:
            worst, where = float(off.max()), float(radius[np.argmax(off >= 0.99 * off.max())])
    left.plot(radius, 100.0 * goal, color=TARGET, ls=(0, (4, 2)), lw=1.0, label="target")
    right.axhline(0.0, color=TARGET, lw=1.0, ls=(0, (4, 2)))
    right.set_title(f"after - target: at most {100 * worst:.2g} %, within {where:.2g} px")
    left.set_title(f"PSF models of {len(pairs)} candidate{'s' * (len(pairs) > 1)}")
    left.set_ylabel("flux within the radius [% of the whole]")
    right.set_ylabel("difference [% of the whole flux]")
    left.legend(loc="upper left")
    for ax in (left, right):
        ax.set(xscale="log", xlim=(radius[0], half), xlabel="radius [px]")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xticks([r for r in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if r <= half])
        ax.minorticks_off()
        ax.grid()
        ax.spines[["top", "right"]].set_visible(False)
    return figure
