"""A coadd: the image with the number of inputs in each pixel, and what each input brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.plots.style import AFTER, BEFORE, WIDTH, colour_bar, extent, frame, new_figure, plain_log, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coverage", "inputs"]

MOST_PIXELS = 900


@style
def coverage(exposure: Exposure, count: NDArray[np.integer[Any]]) -> Figure:
    """The coadd in an asinh stretch, and how many inputs were used in each pixel.

    Parameters
    ----------
    exposure : Exposure
    count : array of integers, shape (ny, nx)
    """
    box = exposure.box
    figure = new_figure(float(np.clip((WIDTH / 2 - 0.7) * box.shape[0] / box.shape[1], 1.2, 6.0)) + 0.7)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    step = max(1, max(box.shape) // MOST_PIXELS)
    image = np.asarray(exposure.image[::step, ::step], float)
    finite = image[np.isfinite(image)]
    sky = float(np.median(finite)) if finite.size else 0.0
    noise = 1.4826 * float(np.median(np.abs(finite - sky))) if finite.size else 1.0
    noise = noise or 1e-6 * float(np.ptp(finite)) or 1.0
    stretched = np.arcsinh((image - sky) / (3.0 * noise))
    top = float(np.nanpercentile(stretched, 99.8)) if finite.size else 1.0
    left.imshow(stretched, cmap="Greys", vmin=-1.0, vmax=max(top, 0.0), extent=extent(box))
    unit = f" {exposure.unit}" if exposure.unit else ""
    left.set_title(f"coadd, asinh stretch, noise {noise:.3g}{unit}")
    drawn = right.imshow(
        count[::step, ::step], cmap="cividis", vmin=0, vmax=max(1, int(count.max())), extent=extent(box)
    )
    right.set_title(f"inputs in a pixel: median {int(np.median(count))}, at most {int(count.max())}")
    most = max(1, int(count.max()))
    colour_bar(figure, drawn, right, "inputs", ticks=range(0, most + 1, max(1, most // 6)))
    frame(left, box)
    frame(right, box, y=False)
    return figure


@style
def inputs(
    names: Sequence[str], weights: FloatArray, fwhms: FloatArray, residuals: FloatArray, target: float
) -> Figure:
    """Weight, FWHM and residual of every input that was used.

    Parameters
    ----------
    names : sequence of str
    weights, fwhms, residuals : array, shape (n,)
        FWHM of the input's own PSF, in arcseconds; NaN where it is not known.
    target : float
        FWHM of the coadd, in arcseconds.
    """
    count = len(names)
    figure = new_figure(0.8 + 0.17 * max(count, 4))
    axes = figure.subplots(1, 3, sharey=True)
    y = np.arange(count)[::-1]
    axes[0].barh(y, 100.0 * weights, color=AFTER, height=0.7)
    axes[0].set(xlabel="weight [%]", yticks=y, ylim=(-0.6, count - 0.4))
    axes[0].set_yticklabels([name if len(name) <= 28 else f"{name[:13]}…{name[-13:]}" for name in names])
    axes[1].plot(fwhms, y, "o", ms=4, color=BEFORE)
    axes[1].axvline(target, color="black", lw=1.0, ls=(0, (4, 2)))
    axes[1].set(xlabel="FWHM [arcsec]; dashed: coadd")
    axes[2].plot(residuals, y, "o", ms=4, color=AFTER)
    axes[2].set(xlabel="worst residual", xscale="log")
    plain_log(axes[2].xaxis)
    for ax in axes:
        ax.grid(axis="x")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    return figure
