"""One look for all figures: colours that differ for every kind of colour vision and in grey, sizes that fit a page."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from psfmatch.geometry import Box, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

__all__ = [
    "AFTER", "BEFORE", "LIGHT", "MARK", "TARGET", "WIDTH", "asinh_norm", "colour_bar", "extent", "frame", "label",
    "new_figure", "panel", "plain_log", "round_down", "signed_map", "style",
]  # fmt: skip

# Okabe & Ito's colours, which differ for every kind of colour vision; light, dark and black in grey.
BEFORE, AFTER, TARGET = "#d55e00", "#0072b2", "#000000"
MARK, LIGHT = "#cc79a7", "#999999"
WIDTH = 7.1
"""Inches: two columns of a journal."""
FLUX_MAP = "cividis"
BELOW = -0.42
"""Where a bar below a panel lies, in heights of the panel: beneath its axis."""
SIGNED = ("#00224e", "#3f6fb0", "#f4f4f4", "#f0a04b", "#b84700")
"""Negative is darker than positive, so that the sign can be told in grey."""
RC: dict[str, Any] = {
    "font.size": 8.0, "font.family": "sans-serif", "axes.titlesize": 8.0, "axes.labelsize": 8.0, "axes.linewidth": 0.6,
    "xtick.labelsize": 7.0, "ytick.labelsize": 7.0, "legend.fontsize": 7.0, "legend.frameon": False,
    "lines.linewidth": 1.2, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "xtick.direction": "out", "ytick.direction": "out", "image.cmap": FLUX_MAP,
    "image.origin": "lower", "image.interpolation": "nearest", "savefig.dpi": 200, "figure.dpi": 100,
    "axes.formatter.limits": (-3, 4), "axes.formatter.use_mathtext": True, "grid.color": "0.9", "grid.linewidth": 0.5,
}  # fmt: skip
Parameters = ParamSpec("Parameters")


def style(function: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Draw in our style, whatever the caller's is; notebooks show the figure, though it belongs to no window."""

    @functools.wraps(function)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC, "backend": matplotlib.rcParams["backend"]}):
            figure = function(*args, **kwargs)
        figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
        return figure

    return drawn


def _png(figure: Figure) -> bytes:
    """The figure as a notebook asks for it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure of this size in inches, that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)  # type: ignore[union-attr,call-arg]
    return figure


def signed_map() -> Colormap:
    """For what has a sign: nearly white at zero."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", SIGNED)


def asinh_norm(peak: float, *, linear: float = 0.02, signed: bool = True) -> Normalize:
    """An asinh stretch up to a peak, linear below a share of it."""
    from matplotlib.colors import AsinhNorm

    return AsinhNorm(linear_width=linear * peak, vmin=-peak if signed else 0.0, vmax=peak)


def panel(ax: Axes, stamp: FloatArray, *, norm: Normalize, signed: bool = False, axes: bool = True) -> ScalarMappable:
    """A stamp about its origin."""
    ny, nx = stamp.shape
    image = ax.imshow(
        stamp, norm=norm, cmap=signed_map() if signed else FLUX_MAP, origin="lower", interpolation="nearest",
        extent=(-nx / 2, nx / 2, -ny / 2, ny / 2),
    )  # fmt: skip
    if axes:
        half = _round_half(min(ny, nx) / 2)
        ax.set(xticks=(-half, 0, half), yticks=(-half, 0, half))
    else:
        ax.set(xticks=(), yticks=())
    return image


def _round_half(half: float) -> int:
    """A tick that is easily read, well inside."""
    return max(step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500) if step <= 0.85 * half or step == 1)


def colour_bar(
    figure: Figure, mappable: ScalarMappable, axes: Any, text: str, *, ticks: Sequence[float] | None = None,
    where: str = "right", extend: str = "neither",
) -> None:  # fmt: skip
    """A bar that says what the colours mean, in units; of one panel, or of a list of them."""
    if isinstance(axes, list):
        bar = figure.colorbar(mappable, ax=axes, location=where, fraction=0.05, pad=0.02, aspect=25)
    else:  # as long as the panel is
        place = (1.03, 0.0, 0.05, 1.0) if where == "right" else (0.0, BELOW, 1.0, 0.05)
        bar = figure.colorbar(
            mappable, cax=axes.inset_axes(place), orientation="vertical" if where == "right" else "horizontal",
            extend=extend,
        )  # fmt: skip
    bar.set_label(text)
    bar.outline.set_linewidth(0.5)
    if ticks is not None:
        bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()


def extent(box: Box) -> tuple[float, float, float, float]:
    """Where the pixels of a box lie, for ``imshow``."""
    return box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5


def frame(ax: Axes, box: Box, *, x: bool = True, y: bool = True) -> None:
    """Axes that span a box, in its pixels, with the same scale along both."""
    left, right, bottom, top = extent(box)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.locator_params(nbins=5)
    if x:
        ax.set_xlabel("x [px]")
    if y:
        ax.set_ylabel("y [px]")


def label(ax: Axes, text: str, **where: Any) -> None:
    """A short text in a corner, legible on any image."""
    ax.text(
        where.pop("x", 0.04), where.pop("y", 0.96), text, transform=ax.transAxes, va=where.pop("va", "top"), fontsize=7,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}, **where,
    )  # fmt: skip


def plain_log(axis: Any) -> None:
    """Tick labels of a logarithmic axis: 1, 2 and 5 where it spans little, powers of ten where it spans much.

    It is made to span a factor of five at least, so that there are two of them.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    wider = max(1.0, 5.0 * low / high) ** 0.5
    low, high = low / wider, high * wider
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
    if high / low < 200.0:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def round_down(value: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power)
