"""What can be asked of any figure: nothing is cut off, nothing lies on top of another, axes say what they are."""

from __future__ import annotations

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def texts(figure):
    """Every text that is drawn, with its place in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = []
    hidden = {
        id(t) for ax in figure.findobj(lambda a: hasattr(a, "xaxis")) if not ax.get_visible() for t in ax.findobj(Text)
    }
    for ax in figure.findobj(lambda a: hasattr(a, "xaxis")):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in itertools.chain(axis.get_major_ticks(), axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    hidden |= {id(tick.label1), id(tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            if box.width > 0 and (text.get_text(), box.bounds) not in [(t, b.bounds) for t, b in found]:
                found.append((text.get_text(), box))
    return found


def faults(figure, slack=1.0):
    """What is cut off or overlaps, in words; an empty list is a figure that can be printed."""
    found = texts(figure)
    width, height = figure.canvas.get_width_height()
    out = [f"cut: {text!r} {box.bounds}" for text, box in found
           if box.x0 < -slack or box.y0 < -slack or box.x1 > width + slack or box.y1 > height + slack]  # fmt: skip
    for (one, a), (other, b) in itertools.combinations(found, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > slack and high > slack:
            out.append(f"overlap: {one!r} and {other!r}")
    return out
