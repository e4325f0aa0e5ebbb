"""What figures look like from afar: small grey pictures without words, and how far two of them are apart.

    python tests/looks.py       # draws the pictures in tests/data/looks anew; look at them before they are committed

Pictures of matplotlib 3.8.4 and 3.11.2 are up to 0.06 apart; emptying any panel makes 0.085 at least.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread, imsave
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter
from scipy import ndimage

import psfmatch
from psfmatch import plots
from psfmatch.cli.demo import FRAMES, demo_data

FOLDER = Path(__file__).parent / "data" / "looks"
WIDTH, DPI, FINE = 96, 60, 8
BLUR, REACH, SHIFT = 1.0, 2, 3
"""In pixels of the small picture: how sharply it is seen, and how far a panel, and all of them, may move."""
TOLERANCE = 0.07
MOVED = "psf-field"
"""Left out, as is the figure of `psfmatch inspect`: their panels change their size with matplotlib's layout engine."""


def drawings() -> dict[str, Callable[[], object]]:
    """The figures of one match of a real frame, by name."""
    before = psfmatch.read_exposure(demo_data() / FRAMES["S1"][0])
    matched = psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5")
    subject = plots.Subject(matched, before)
    noise = psfmatch.NoiseCorrelation.of_kernel(matched.kernel)
    checks = {"before": psfmatch.check(before, matched.exposure.psf),
              "after": psfmatch.check(matched.exposure, correlation=noise)}  # fmt: skip
    out = {name: lambda plot=plot: plot.draw(subject) for name, plot in plots.PLOTS.items() if name != MOVED}
    return out | {"check": lambda: plots.check_figure(checks)}


def thumbnail(figure):
    """The figure without its words, in grey from 0 (black) to 1, 96 px wide."""
    for axis in (a for ax in figure.findobj(Axes) for a in (ax.xaxis, ax.yaxis)):
        axis.set_major_formatter(NullFormatter())
        axis.set_minor_formatter(NullFormatter())
    for text in figure.findobj(Text):
        text.set_text("")
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba(), float)[..., :3] @ (0.299, 0.587, 0.114) / 255
    shape = round(grey.shape[0] * WIDTH / grey.shape[1]), WIDTH
    at = [((np.arange(FINE * n) + 0.5) * m / (FINE * n)).astype(int) for n, m in zip(shape, grey.shape, strict=True)]
    return grey[np.ix_(*at)].reshape(shape[0], FINE, shape[1], FINE).mean(axis=(1, 3))


def apart(one, other):
    """How far two small pictures are apart: the grey that one has somewhere and the other nowhere near."""
    if abs(len(one) - len(other)) > 1:
        return 1.0
    rows = min(len(one), len(other))
    first = ndimage.gaussian_filter(one[:rows], BLUR)
    moved = (ndimage.shift(other[:rows], (dy, 0), order=0, mode="nearest") for dy in range(-SHIFT, SHIFT + 1))
    return min(_beyond(first, ndimage.gaussian_filter(second, BLUR)) for second in moved)


def _beyond(first, second):
    span = 2 * REACH + 1
    return max(
        float((near - ndimage.maximum_filter(far, span)).max()) if sign > 0
        else float((ndimage.minimum_filter(far, span) - near).max())
        for near, far in ((first, second), (second, first)) for sign in (1, -1)
    )  # fmt: skip


def stored(name):
    return imread(FOLDER / f"{name}.png")[..., 0].astype(float)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in drawings().items():
        imsave(FOLDER / f"{name}.png", thumbnail(draw()), cmap="gray", vmin=0.0, vmax=1.0)
