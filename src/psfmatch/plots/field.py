"""What varies over the field: the PSF, the kernel, the figures of merit; and where the PSF was sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import PSFError
from psfmatch.exposure import Exposure
from psfmatch.geometry import Box, FloatArray
from psfmatch.match import Matched
from psfmatch.moments import ellipse, fwhm
from psfmatch.plots.pairs import pair
from psfmatch.plots.style import (
    AFTER,
    BEFORE,
    LIGHT,
    MARK,
    TARGET,
    WIDTH,
    asinh_norm,
    colour_bar,
    extent,
    frame,
    new_figure,
    panel,
    round_down,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cells", "kernel_field", "psf_field", "quality_field"]

MOST = 100
SPREAD, ALIKE = 0.1, 0.02
"""Of values about their median: what the colours span at least; what is no difference worth a word."""


def _height(box: Box, panels: float, extra: float) -> float:
    """The height of a figure with so many panels of this box side by side."""
    return float(np.clip((WIDTH / panels - 0.6) * box.shape[0] / box.shape[1], 1.2, 6.5)) + extra


@style
def psf_field(matched: Matched) -> Figure:
    """FWHM (colour) and ellipticity (whiskers) of the PSF, before and after matching, at the candidates.

    The FWHM is that of the profile; the whiskers are as long as ``1 - b/a`` of the adaptive moments, and point along
    the long axis.

    Parameters
    ----------
    matched : Matched
    """
    box = matched.exposure.box
    ny, nx = box.shape
    figure = new_figure(_height(box, 2, 0.95))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    found = matched.solution.cells
    inside = np.flatnonzero((abs(found.x - box.center.x) < nx / 2) & (abs(found.y - box.center.y) < ny / 2))
    inside = inside if inside.size else np.arange(len(found))
    some = inside[np.unique(np.linspace(0, inside.size - 1, min(inside.size, MOST)).astype(int))]
    pairs = [pair(matched, int(k)) for k in some]
    x, y = np.array([[p.x, p.y] for p in pairs]).T
    shapes = [_shapes([p.science for p in pairs]), _shapes([p.matched for p in pairs])]
    longest = max(float(np.nanmax(s[1])) for s in shapes)
    for ax, shape, name in ((left, shapes[0], "before"), (right, shapes[1], "after")):
        unit = _whiskers(figure, ax, x, y, shape, longest, box)
        ax.set_title(f"{name}: FWHM {np.nanmedian(shape[0]):.3f} px, ellipticity {np.nanmedian(shape[1]):.3f}")
    _whisker_scale(left, box, unit, longest)
    left.set_ylabel("y [px]")
    goal, shear = fwhm(pairs[0].target), ellipse(pairs[0].target)[0]
    figure.suptitle(f"PSF over the field (medians); target: FWHM {goal:.3f} px, ellipticity {shear:.3f}", fontsize=8)
    return figure


def _shapes(stamps: list[FloatArray]) -> FloatArray:
    """FWHM, ellipticity and angle of every stamp, NaN where they cannot be measured: shape (3, n)."""
    rows = []
    for stamp in stamps:
        try:
            rows.append((fwhm(stamp), *ellipse(stamp)))
        except PSFError:
            rows.append((np.nan, np.nan, np.nan))
    return np.array(rows).T


def _whiskers(
    figure: Figure, ax: Axes, x: FloatArray, y: FloatArray, shape: FloatArray, longest: float, box: Box
) -> float:
    """Dots and whiskers; returns how many px a whisker of ellipticity 1 would be long."""
    width, ellipticity, angle = shape
    middle = float(np.nanmedian(width))
    spread = max(float(np.nanmax(np.abs(width - middle))), 5e-3 * middle)
    dots = ax.scatter(
        x, y, c=width, s=26, cmap="cividis", vmin=middle - spread, vmax=middle + spread, edgecolors="0.2",
        linewidths=0.4, zorder=3,
    )  # fmt: skip
    unit = 0.16 * min(box.shape) / max(longest, 1e-4)
    reach_x, reach_y = (0.5 * unit * ellipticity * f(np.deg2rad(angle)) for f in (np.cos, np.sin))
    ax.plot(np.stack([x - reach_x, x + reach_x]), np.stack([y - reach_y, y + reach_y]), color=TARGET, lw=1.0, zorder=2)
    margin = int(np.ceil(0.1 * min(box.shape)))
    frame(ax, box.grown(margin, margin), y=False)
    left, right, bottom, top = extent(box)
    ax.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color=LIGHT, lw=0.6, zorder=1)
    colour_bar(figure, dots, ax, "FWHM [px]")
    return unit


def _whisker_scale(ax: Axes, box: Box, unit: float, longest: float) -> None:
    """How long the whisker of a round ellipticity is, beneath the axis."""
    from matplotlib.transforms import ScaledTranslation

    assert ax.figure is not None
    scale, start = round_down(max(longest, 1e-4)), box.x0 - 0.5
    below = ax.get_xaxis_transform() + ScaledTranslation(0, -37 / 72, ax.figure.dpi_scale_trans)
    ax.plot(
        [start, start + unit * scale], [0, 0], color=TARGET, lw=1.6, clip_on=False, solid_capstyle="butt",
        transform=below,
    )  # fmt: skip
    ax.text(start + 1.1 * unit * scale, 0, f"ellipticity {scale:g}", va="center", transform=below)


@style
def kernel_field(matched: Matched, *, side: int = 4) -> Figure:
    """The matching kernel at ``side`` places along the longer side of the field, where they are in it.

    All in one asinh stretch, linear below 2 % of the largest pixel.  A kernel that does not vary is drawn once.

    Parameters
    ----------
    matched : Matched
    side : int
    """
    box = matched.solution.kernel.box
    ny, nx = box.shape
    side = 1 if matched.solution.kernel.weights.coefficients.shape[1] == 1 else side
    columns, rows = (max(1, round(side * n / max(ny, nx))) for n in (nx, ny))
    x = box.x0 - 0.5 + nx * (np.arange(columns) + 0.5) / columns
    y = box.y0 - 0.5 + ny * (np.arange(rows) + 0.5) / rows
    at_x, at_y = (grid.ravel() for grid in np.meshgrid(x, y))
    stamps = matched.solution.kernel.stamps(x=at_x, y=at_y)
    size = min(1.0, 4 / columns) if side > 1 else 2.8
    norm = asinh_norm(float(np.abs(stamps).max()))
    figure = new_figure(0.75 + size * 1.18 * rows, 0.9 + size * 1.05 * columns)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.025, hspace=0.0, wspace=0.0)  # type: ignore[union-attr,call-arg]
    grid = figure.subplots(rows, columns, squeeze=False)
    sums, gains = stamps.sum(axis=(1, 2)), (stamps**2).sum(axis=(1, 2))
    for k, stamp in enumerate(stamps):
        ax = grid[rows - 1 - k // columns, k % columns]
        image = panel(ax, stamp, norm=norm, signed=True, axes=False)
        ax.set_xlabel(f"gain {gains[k]:.3g}", fontsize=6, labelpad=2)
        ax.set_title(f"({at_x[k]:.0f}, {at_y[k]:.0f})", fontsize=6, pad=2)
    ky, kx = matched.solution.kernel.shape
    spread = f"{sums.min():.4f} to {sums.max():.4f}" if np.ptp(sums) > 5e-5 else f"{sums[0]:.4f}"
    figure.suptitle(f"matching kernel, {kx} x {ky} px, at (x, y) px; kernel sum {spread}", fontsize=8)
    colour_bar(figure, image, grid.ravel().tolist(), "kernel, asinh stretch", ticks=_kernel_ticks(norm.vmax or 1.0))
    return figure


def _kernel_ticks(peak: float) -> list[float]:
    top = float(f"{0.9 * peak:.0e}")
    return [-top, -0.1 * top, 0.0, 0.1 * top, top]


@style
def quality_field(matched: Matched) -> Figure:
    """Residual and encircled-energy error where they were measured, between the candidates.

    The colours span the values, and at least 10 % of their median to either side, so that what is alike looks alike.

    Parameters
    ----------
    matched : Matched
    """
    quality, box = matched.quality, matched.exposure.box
    figure = new_figure(_height(box, 2, 0.75))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    names = (("residual", "residual, norm2(K*S - T) / norm2(T)"), ("ee_error", "largest EE error"))
    for ax, (name, words) in zip(axes, names, strict=True):
        values = getattr(quality, name)
        middle, worst = float(np.median(values)), int(np.argmax(values))
        alike = float(np.ptp(values)) <= ALIKE * middle
        dots = ax.scatter(
            quality.x, quality.y, c=values, s=60, marker="s", cmap="cividis", edgecolors="0.2", linewidths=0.4,
            vmin=max(0.0, min(float(values.min()), (1.0 - SPREAD) * middle)),
            vmax=max(float(values.max()), (1.0 + SPREAD) * middle, 1e-12),
        )  # fmt: skip
        frame(ax, box, y=ax is axes[0])
        if alike:
            ax.set_title(f"{words}\n{middle:.2g} everywhere")
        else:
            ax.plot(quality.x[worst], quality.y[worst], "s", ms=12, mfc="none", mec=BEFORE, mew=1.2)
            ax.set_title(f"{words}\nmedian {middle:.2g}, worst {values[worst]:.2g} (boxed)")
        colour_bar(figure, dots, ax, "")
    return figure


@style
def cells(matched: Matched, *, before: Exposure | None = None, mask_opacity: float = 0.0) -> Figure:
    """The spatial cells and their candidates on the image: used, rejected, and where no PSF could be evaluated.

    A solver that puts its candidates at the nodes of a polynomial has no cells, and none are drawn.

    Parameters
    ----------
    matched : Matched
    before : Exposure, optional
        The image to draw on.  Default: the matched one.
    mask_opacity : float
        Of flagged pixels, from 0 (not drawn) to 1.
    """
    exposure = matched.exposure if before is None else before
    found = matched.solution.cells
    regular = found.cell_shape != found.box.shape
    region = found.box if regular else exposure.box
    figure = new_figure(_height(region, 1.35, 0.6), 0.85 * WIDTH)
    ax = figure.subplots()
    image = np.asarray(exposure.image, float)
    finite = image[np.isfinite(image)]
    sky = float(np.median(finite))
    noise = max(1.4826 * float(np.median(np.abs(finite - sky))), 1e-6 * float(np.ptp(finite)), 1e-300)
    ax.imshow(
        np.arcsinh((image - sky) / (3.0 * noise)), cmap="Greys", origin="lower", interpolation="nearest", vmin=-1.0,
        vmax=float(np.arcsinh(np.percentile((finite - sky) / (3.0 * noise), 99.8))), extent=extent(exposure.box),
    )  # fmt: skip
    if mask_opacity > 0:
        from matplotlib.colors import ListedColormap

        flagged = np.ma.masked_equal(exposure.mask.array != 0, False)
        colours = ListedColormap([MARK])
        ax.imshow(flagged, cmap=colours, alpha=mask_opacity, extent=extent(exposure.box), interpolation="nearest")
    if regular:
        height, width = found.cell_shape
        lines: dict[str, Any] = {"colors": AFTER, "linewidths": 0.5, "alpha": 0.6}
        box = found.box
        ax.vlines(np.arange(box.x0, box.x1 + 1, width) - 0.5, box.y0 - 0.5, box.y1 - 0.5, **lines)
        ax.hlines(np.arange(box.y0, box.y1 + 1, height) - 0.5, box.x0 - 0.5, box.x1 - 0.5, **lines)
    _mark_candidates(ax, matched)
    frame(ax, region)
    unit = f" [{exposure.unit}]" if exposure.unit else ""
    what = f"cells of {found.cell_shape[1]} x {found.cell_shape[0]} px" if regular else "candidates at nodes"
    ax.set_title(f"{what}; image in asinh stretch, sky {sky:.4g}, noise {noise:.3g}{unit}")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _mark_candidates(ax: Axes, matched: Matched) -> None:
    found = matched.solution.cells
    used: Any = np.asarray(matched.solution.statistics.get("used", np.ones(len(found), bool)), bool)
    ring: dict[str, Any] = {"ms": 6, "mfc": "none", "mec": AFTER, "mew": 1.3}
    ax.plot(found.x[used], found.y[used], "o", label=f"used, {used.sum()}", **ring)
    if not used.all():
        ax.plot(found.x[~used], found.y[~used], "x", ms=6, color=BEFORE, mew=1.5, label=f"rejected, {(~used).sum()}")
    if found.skipped:
        x, y = np.array([[sx, sy] for sx, sy, _ in found.skipped]).T
        ax.plot(x, y, "+", ms=7, color=TARGET, mew=1.2, label=f"PSF not evaluated, {x.size}")
    if len(found) <= 64:
        for k, (x, y) in enumerate(zip(found.x, found.y, strict=True)):
            ax.annotate(str(k), (x, y), (4, 4), textcoords="offset points", fontsize=6, color=TARGET)
