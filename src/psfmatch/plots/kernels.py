"""The kernel: what it is made of, what it does to spatial frequencies and to noise, and what its size buys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

from psfmatch.correlation import NoiseCorrelation
from psfmatch.geometry import Box, FloatArray, resized
from psfmatch.match import Matched
from psfmatch.noise import aperture_stamps
from psfmatch.plots.pairs import Pair, hardest, pair
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
    new_figure,
    panel,
    plain_log,
    round_down,
    style,
)  # fmt: skip
from psfmatch.solve import Frontier
from psfmatch.solve.toeplitz import pixel_equations
from psfmatch.solve.trade import STRENGTHS, choose_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["frontier", "frontier_of", "kernel_basis", "noise", "size_words", "strength_of", "transfer"]

MOST_TERMS, ACROSS = 12, 6
AMPLIFIED = 1.05
SIDE = 256


@style
def kernel_basis(matched: Matched) -> Figure:
    """The basis images of the kernel, and under each the map of its weight over the field; the strongest 12 terms.

    Each basis image is in an asinh stretch, its largest pixel scaled to 1; the weights, whose range is said under each
    map, have the factor in them.  A kernel that does not vary has no basis to speak of: it is shown, and cut along both
    axes.

    Parameters
    ----------
    matched : Matched
    """
    kernel = matched.solution.kernel
    box = kernel.box
    if kernel.weights.coefficients.shape[1] == 1:
        return _one_kernel(kernel.stamps(x=box.center.x, y=box.center.y)[0])
    x, y = (np.linspace(low, high - 1, 48) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
    maps = kernel.weights.on_grid(x=x, y=y).reshape(kernel.weights.n, y.size, x.size)
    powers = (maps**2).mean(axis=(1, 2)) * (kernel.basis**2).sum(axis=(1, 2))
    order = np.argsort(powers)[::-1][:MOST_TERMS]
    across = max(min(ACROSS, len(order)), 3)
    blocks = -(-len(order) // across)
    side = WIDTH / 7.0
    lower = side * float(np.clip(box.shape[0] / box.shape[1], 0.4, 1.6))
    figure = new_figure(0.5 + blocks * (side + lower + 0.55), 0.9 + across * (side + 0.1))
    grid = figure.subplots(2 * blocks, across, squeeze=False, height_ratios=[side, lower] * blocks)
    for ax in grid.ravel():
        ax.set_visible(False)
    for place, k in enumerate(order):
        top, bottom = grid[2 * (place // across), place % across], grid[2 * (place // across) + 1, place % across]
        top.set_visible(True)
        bottom.set_visible(True)
        scale = float(np.abs(kernel.basis[k]).max()) or 1.0
        image = panel(top, kernel.basis[k] / scale, norm=asinh_norm(1.0), signed=True, axes=False)
        top.set_title(f"{k}: {_percent(powers[k] / powers.sum())}")
        _weight_map(bottom, scale * maps[k], box)
    colour_bar(figure, image, grid[0, : len(order)].tolist(), "image / peak, asinh", ticks=(-1, -0.1, 0, 0.1, 1))
    rest = f" (the strongest {len(order)} of {len(powers)})" if len(order) < len(powers) else ""
    figure.suptitle(f"basis images, their share of the power, and their weights{rest}", fontsize=8)
    return figure


def _one_kernel(stamp: FloatArray) -> Figure:
    """A kernel that is the same everywhere: its image, and its values on the two lines through its origin."""
    figure = new_figure(2.6, 0.75 * WIDTH)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.25])
    top = float(np.abs(stamp).max())
    image = panel(left, stamp, norm=asinh_norm(top), signed=True)
    left.set(xlabel="x [px]", ylabel="y [px]", title="asinh stretch")
    colour_bar(figure, image, left, "kernel", ticks=(-round_down(top), 0.0, round_down(top)))
    (ny, nx), (cy, cx) = stamp.shape, (n // 2 for n in stamp.shape)
    right.plot(np.arange(nx) - cx, stamp[cy], "o-", ms=2.5, color=AFTER, label="along x")
    right.plot(np.arange(ny) - cy, stamp[:, cx], "s--", ms=2.5, color=BEFORE, label="along y")
    right.axhline(0.0, color=LIGHT, lw=0.8, zorder=0)
    right.set(xlabel="offset [px]", title="through its origin", ylim=(min(0.0, 1.1 * float(stamp.min())), 1.35 * top))
    right.legend(loc="upper center", ncols=2)
    right.grid()
    right.spines[["top", "right"]].set_visible(False)
    negative = float(np.abs(stamp[stamp < 0]).sum())
    figure.suptitle(
        f"one kernel for the whole field, {nx} x {ny} px: sum {stamp.sum():.4f}, noise gain {(stamp**2).sum():.3g}, "
        f"negative flux {negative:.2g}",
        fontsize=8,
    )
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share > 5e-4 else f"{100 * share:.1g} %" if share > 1e-6 else "< 0.0001 %"


def _weight_map(ax: Any, values: FloatArray, box: Box) -> None:
    """Dark where the weight is lowest, bright where it is highest."""
    low, high = float(values.min()), float(values.max())
    flat = high - low < 1e-6 * max(abs(low), abs(high), 1e-300)
    ax.imshow(
        values, cmap="cividis", origin="lower", extent=extent(box), interpolation="bilinear",
        vmin=low - flat, vmax=high + flat,
    )  # fmt: skip
    ax.set(xticks=(), yticks=())
    digits = 2 if flat else 2 + max(0, int(-np.floor(np.log10((high - low) / max(abs(low), abs(high))))))
    ax.set_xlabel(f"{low:.3g} everywhere" if flat else f"{low:.{digits}g} to {high:.{digits}g}", fontsize=6)


@style
def transfer(matched: Matched, *, number: int | None = None) -> Figure:
    """Spatial frequencies: the two PSFs and the kernel, and what had to be deconvolved.

    Means on circles of ``|S(f)|``, ``|T(f)|``, ``|K(f)|``, each over its value at f = 0, with the range on the circle
    for the kernel.  Where ``|K(f)| > 1.05 |K(0)|`` the kernel amplifies, image and noise alike: that is deconvolution.

    Parameters
    ----------
    matched : Matched
    number : int, optional
        Of the candidate.  Default: the one with the largest residual.
    """
    one = hardest(matched) if number is None else pair(matched, number)
    side = max(SIDE, fft.next_fast_len(one.science.shape[0]))
    planes = {name: np.abs(fft.fft2(stamp, (side, side))) for name, stamp in
              (("S", one.science), ("T", one.target), ("K", one.kernel), ("KS", one.matched))}  # fmt: skip
    relative = {name: plane / plane[0, 0] for name, plane in planes.items()}
    frequency, ring = _rings(side)
    mean = {name: _ring_mean(plane, ring) for name, plane in relative.items()}
    low, high = _ring_range(relative["K"], ring)
    figure = new_figure(2.8)
    left, right = figure.subplots(1, 2, sharex=True)
    floor = 1e-5
    left.plot(frequency, mean["S"], color=BEFORE, label="science PSF")
    left.plot(frequency, mean["KS"], color=AFTER, label="matched PSF")
    left.plot(frequency, mean["T"], color=TARGET, ls=(0, (4, 2)), lw=1.0, label="target PSF")
    left.set(yscale="log", ylim=(floor, 1.5), ylabel="|PSF(f)| / |PSF(0)|")
    left.set_title("what the PSFs pass")
    left.legend(loc="lower left")
    right.fill_between(frequency, low, high, color=AFTER, alpha=0.25, lw=0, label="range on a circle")
    right.plot(frequency, mean["K"], color=AFTER, label="kernel")
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.where(mean["S"] > floor, mean["T"] / mean["S"], np.nan)
    right.plot(frequency, wanted, color=TARGET, ls=(0, (4, 2)), lw=1.0, label="target / science")
    right.axhline(1.0, color=LIGHT, lw=0.8, zorder=0)
    top = max(1.5, 1.3 * float(high.max()))
    right.axhspan(AMPLIFIED, top, color=BEFORE, alpha=0.10, lw=0, zorder=0)
    right.set(yscale="log", ylim=(1e-3, top), ylabel="|K(f)| / |K(0)|")
    plane = relative["K"]
    share = float((plane > AMPLIFIED).mean())
    right.set_title(f"the kernel: {100 * share:.2g} % amplified, at most {float(plane.max()):.2f} times")
    right.legend(loc="lower left")
    for ax in (left, right):
        ax.set(xlim=(0, 0.5), xlabel="spatial frequency [cycles/px]")
        ax.grid()
        ax.spines[["top", "right"]].set_visible(False)
    right.text(0.49, AMPLIFIED * 1.03, "amplified: deconvolution", ha="right", va="bottom", fontsize=7, color="0.25")
    return figure


def _rings(side: int) -> tuple[FloatArray, Any]:
    """Frequencies of rings one sample wide up to Nyquist's, and the ring of every frequency of the plane."""
    f = fft.fftfreq(side)
    ring = np.rint(np.hypot(f[:, None], f[None, :]) * side).astype(int)
    return np.arange(side // 2 + 1) / side, ring


def _ring_mean(plane: FloatArray, ring: Any) -> FloatArray:
    count = plane.shape[0] // 2 + 1
    return (np.bincount(ring.ravel(), plane.ravel()) / np.bincount(ring.ravel()))[:count]


def _ring_range(plane: FloatArray, ring: Any) -> tuple[FloatArray, FloatArray]:
    count = plane.shape[0] // 2 + 1
    low, high = np.full(ring.max() + 1, np.inf), np.zeros(ring.max() + 1)
    np.minimum.at(low, ring, plane)
    np.maximum.at(high, ring, plane)
    return low[:count], high[:count]


def frontier_of(matched: Matched, one: Pair, *, count: int = 9) -> Frontier:
    """The frontier of a candidate: about ``count`` sizes, up to half as large again as that of the match.

    Where nothing chose this size, also up to the one that `FreeForm` would choose if only the stamps limited it.
    """
    size = max(one.kernel.shape)
    most = min(61, 2 * (max(one.science.shape) // 3) + 1)
    largest = min(max(int(1.5 * size), 15), most)
    if size_words(matched) != "chosen":
        largest = max(largest, _wanted_size(matched, one, most))
    step = max(2, 2 * round((largest - 5) / (count - 1) / 2))
    sizes = sorted({*range(size, 4, -step), *range(size, largest + 1, step), size})
    asked = float(matched.solution.statistics.get("asked_sum", 1.0)) or 1.0
    cells = matched.solution.cells
    return Frontier.of(cells.science[one.number], asked * cells.target[one.number], sizes=sizes)


def size_words(matched: Matched) -> str:
    """How the kernel came to its size: chosen by the solver, set by hand, or the solver's fixed one (this match)."""
    notes = matched.solution.statistics
    if "size=" in str(notes.get("by_hand", "")):
        return "set by hand"
    return "this match" if notes.get("solver") == "alard-lupton" else "chosen"


def _wanted_size(matched: Matched, one: Pair, most: int) -> int:
    """What `FreeForm` would choose for a pair, with kernels up to a size."""
    notes = matched.solution.statistics
    (equations,) = pixel_equations(one.science[None], one.target[None], most)
    return choose_size(equations, float(notes.get("strength", STRENGTHS[2])), float(notes.get("tolerance", 1e-3)))


@style
def frontier(matched: Matched, *, number: int | None = None) -> Figure:
    """What a larger or a sharper kernel would buy: residual against noise gain, and both against kernel size.

    Every line joins kernels of one size from smooth to sharp (Tikhonov's weight from 1 to 1e-7): no kernel of this size
    lies below it.  The kernel of the match is marked, at the candidate where its residual is largest.

    Parameters
    ----------
    matched : Matched
    number : int, optional
        Of the candidate.
    """
    one = hardest(matched) if number is None else pair(matched, number)
    found = frontier_of(matched, one)
    size = max(one.kernel.shape)
    figure = new_figure(3.3)
    left, right = figure.subplots(1, 2)
    colours = _size_colours(len(found.sizes))
    for k, n in enumerate(found.sizes):
        own = n == size
        left.plot(
            found.noise_gain[k], found.residual[k], ".-", ms=3, color=TARGET if own else colours[k],
            lw=1.6 if own else 0.9, label=f"{n} px" + (f" ({size_words(matched)})" if own else ""),
        )  # fmt: skip
    left.plot(one.noise_gain, one.residual, "*", ms=11, color=MARK, mec=TARGET, mew=0.6, zorder=5)
    left.set(xscale="log", yscale="log", xlabel="noise gain, sum K²", ylabel="residual, norm2(K*S - T) / norm2(T)")
    plain_log(left.xaxis)
    plain_log(left.yaxis)
    left.set_title(f"candidate {one.number}: residual {one.residual:.2g} at gain {one.noise_gain:.3g} (star)")
    figure.legend(
        *left.get_legend_handles_labels(), title="kernel size", loc="outside lower center", ncols=len(found.sizes),
        handlelength=1.2, columnspacing=0.9, title_fontsize=7,
    )  # fmt: skip
    strength = strength_of(matched, found, one)
    right.plot(found.sizes, found.residual[:, strength], "o-", ms=3.5, color=AFTER, label="residual")
    right.plot(found.sizes, found.noise_gain[:, strength], "s--", ms=3.5, color=BEFORE, label="noise gain")
    right.plot([size, size], [one.residual, one.noise_gain], "*", ms=10, color=MARK, mec=TARGET, mew=0.6, zorder=5)
    right.axvline(size, color=LIGHT, lw=0.8, zorder=0)
    right.set(yscale="log", xlabel="kernel size [px]", ylabel="residual, noise gain")
    plain_log(right.yaxis)
    right.set_title(f"at the strength {found.strengths[strength]:.0e}; {size_words(matched)}: {size} px")
    right.legend(loc="best")
    for ax in (left, right):
        ax.grid(which="major")
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def strength_of(matched: Matched, found: Frontier, one: Pair) -> int:
    """Which strength the match had; that of the kernel of its size with the nearest noise gain, where it had none."""
    own = matched.solution.statistics.get("strength")
    if matched.solution.statistics.get("solver") == "free-form" and own:
        return int(np.argmin(np.abs(np.log(found.strengths / float(own)))))
    row = int(np.flatnonzero(found.sizes == max(one.kernel.shape))[0])
    return int(np.argmin(np.abs(np.log(found.noise_gain[row] / one.noise_gain))))


def _size_colours(count: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["cividis"](np.linspace(0.0, 0.9, count))


@style
def noise(correlation: NoiseCorrelation) -> Figure:
    """How the noise of neighbouring pixels is correlated, and what that does to the error of an aperture.

    Parameters
    ----------
    correlation : NoiseCorrelation
        Of a kernel (``NoiseCorrelation.of_kernel(matched.kernel)``) or a coadd; shown at the centre of its box.
    """
    center = correlation.box.center
    rho = correlation.stamps(x=center.x, y=center.y)[0]
    gain = float(correlation.gains(x=center.x, y=center.y)[0])
    half = max(rho.shape) // 2
    seen = np.nonzero(np.abs(rho) > 0.02)
    reach = int(np.clip(max(np.abs(s - n // 2).max() for s, n in zip(seen, rho.shape, strict=True)) + 2, 4, half))
    square = resized(rho, (2 * half + 1, 2 * half + 1))
    figure = new_figure(2.5)
    axes = figure.subplots(1, 3)
    stamp = resized(rho, (2 * reach + 1, 2 * reach + 1))
    image = panel(axes[0], stamp, norm=asinh_norm(1.0, linear=0.05), signed=True)
    axes[0].set(xlabel="offset in x [px]", ylabel="offset in y [px]", title="two pixels of the image")
    colour_bar(figure, image, axes[0], "correlation, asinh stretch", ticks=(-1, -0.1, 0, 0.1, 1))
    axis = np.arange(-half, half + 1)
    axes[1].plot(axis, square[half], color=AFTER, label="along x")
    axes[1].plot(axis, square[:, half], color=BEFORE, ls="--", label="along y")
    axes[1].axhline(0.0, color=LIGHT, lw=0.8, zorder=0)
    axes[1].set(xlim=(0, reach), xlabel="offset [px]", ylabel="correlation", title=f"noise gain {gain:.3g}")
    axes[1].legend(loc="upper right")
    radii = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15])
    axes[2].plot(radii, aperture_factors(rho, radii), "o-", ms=3, color=AFTER)
    axes[2].axhline(1.0, color=LIGHT, lw=0.8, zorder=0)
    axes[2].set(xlim=(0, 15.5), xlabel="radius of the aperture [px]", ylabel="true error / naive error")
    axes[2].set_title("aperture fluxes")
    for ax in axes[1:]:
        ax.grid()
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def aperture_factors(rho: FloatArray, radii: FloatArray) -> FloatArray:
    """By how much the error of an aperture's flux exceeds that of uncorrelated pixels of the same variance."""
    out = []
    for radius in radii:
        weight = aperture_stamps(x=0.0, y=0.0, radius=float(radius))[0]
        shape = tuple(fft.next_fast_len(w + n, real=True) for w, n in zip(weight.shape, rho.shape, strict=True))
        overlap = fft.irfft2(np.abs(fft.rfft2(weight, shape)) ** 2, shape)
        side = min(2 * weight.shape[0] - 1, rho.shape[0]), min(2 * weight.shape[1] - 1, rho.shape[1])
        reach = [np.arange(n) - n // 2 for n in side]
        inner = resized(rho, side)
        out.append(float((overlap[reach[0][:, None], reach[1][None, :]] * inner).sum() / (weight**2).sum()))
    return np.sqrt(np.maximum(out, 0.0))
