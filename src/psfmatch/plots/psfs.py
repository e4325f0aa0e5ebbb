"""What a PSF looks like over its field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from psfmatch.plots.model import mosaic
from psfmatch.plots.profiles import growth_curve, rings
from psfmatch.plots.style import AFTER, BEFORE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from psfmatch.inspection import PSFReport

__all__ = ["psf_over_field"]


@style
def psf_over_field(report: PSFReport) -> Figure:
    """The stamps of a PSF over its field, their FWHM and ellipticity, and the radial profile and growth of each.

    Parameters
    ----------
    report : PSFReport
        See `psfmatch.inspection.inspect_psf`.
    """
    varies = len(report.x) > 1
    figure = new_figure(2.8, 8.4 if varies else 5.6)
    axes = figure.subplots(1, 3 if varies else 2)
    _mosaic(axes[0], report)
    if varies:
        _whiskers(axes[1], report)
    _profiles(axes[-1], report)
    figure.suptitle(f"{report.name.rpartition('/')[2] or report.model}: {report.title}")
    return figure


def _mosaic(ax: Axes, report: PSFReport) -> None:
    """The cores of the stamps, laid out as in the field, in one asinh stretch."""
    columns = len(np.unique(report.x))
    if columns * len(np.unique(report.y)) != len(report.x):  # no mesh: the positions in regions
        columns = int(np.ceil(np.sqrt(len(report.x))))
    half = int(np.clip(np.ceil(3.0 * report.fwhm.max()), 5, min(report.psf.shape) // 2))
    cy, cx = report.psf.shape[0] // 2, report.psf.shape[1] // 2
    cores = report.stamps[:, cy - half : cy + half + 1, cx - half : cx + half + 1]
    picture = mosaic(cores / cores.max(axis=(1, 2), keepdims=True), columns)
    ax.set_facecolor("white")
    stretched = np.arcsinh(300.0 * picture) / np.arcsinh(300.0)
    ax.imshow(stretched, origin="lower", cmap="cividis", vmin=-0.1, vmax=1.0, interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=f"stamps, each {2 * half + 1} px wide (asinh)")
    ax.spines[:].set_visible(False)


def _whiskers(ax: Axes, report: PSFReport) -> None:
    """FWHM as colour, and the long axis as a line whose length is the ellipticity."""
    box = report.box
    assert box is not None
    extent = (box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5)
    columns = len(np.unique(report.x))
    across = (extent[1] - extent[0]) / columns
    ellipticity, angle = np.nan_to_num(report.ellipticity), np.deg2rad(np.nan_to_num(report.angle))
    largest = max(float(ellipticity.max()), 1e-3)
    dx, dy = (0.4 * across / largest * ellipticity * f(angle) for f in (np.cos, np.sin))
    ax.plot([report.x - dx, report.x + dx], [report.y - dy, report.y + dy], color="0.2", lw=1.2, zorder=1)
    points = ax.scatter(report.x, report.y, c=report.fwhm, cmap="cividis", s=60, zorder=2, edgecolor="white")
    bar = ax.figure.colorbar(points, ax=ax, shrink=0.85, label="FWHM [px]")
    bar.formatter.set_useOffset(False)  # type: ignore[attr-defined]
    margin = 0.06 * max(extent[1] - extent[0], extent[3] - extent[2])
    ax.set(xlim=(extent[0] - margin, extent[1] + margin), ylim=(extent[2] - margin, extent[3] + margin))
    ax.set_aspect("equal")
    ax.set(xlabel="x [px]", ylabel="y [px]")
    widths = f"{report.fwhm.min():.3f} to {report.fwhm.max():.3f}"
    ax.set_title(f"FWHM {widths} px, 1 - b/a up to {ellipticity.max():.3f}")


def _profiles(ax: Axes, report: PSFReport) -> None:
    """The mean profile of each stamp against radius, and the flux within it."""
    growth = ax.twinx()
    half = min(report.psf.shape) // 2
    cy, cx = report.psf.shape[0] // 2, report.psf.shape[1] // 2
    within = np.hypot(*(np.indices(report.psf.shape) - np.array([cy, cx])[:, None, None]))
    least = np.inf
    for stamp in report.stamps:
        radii, mean = rings(stamp, float(cx), float(cy), half)
        share = mean / stamp.max()
        least = min(least, float(share[share > 0].min()))
        ax.plot(radii, np.where(share > 0, share, np.nan), color=AFTER, lw=1.2, alpha=0.7)
        growth.plot(
            radii, 100.0 * stamp[within <= half].sum() * growth_curve(radii, mean), color=BEFORE, lw=1.2, alpha=0.7
        )
    ax.set_yscale("log")
    ax.set(xlim=(0, half), ylim=(max(0.6 * least, 1e-7), 1.5), xlabel="radius [px]")
    ax.set_ylabel("mean on a circle, of the peak", color=AFTER)
    growth.set_ylim(0, 105)
    growth.set_ylabel("flux within, %", color=BEFORE)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_title(f"flux in the stamp {100 * np.median(report.total):.2f} %")
