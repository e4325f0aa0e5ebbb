"""Two small charts as SVG, that the page's script can point at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from psfmatch.geometry import FloatArray
from psfmatch.match import Matched
from psfmatch.plots import Pair

__all__ = ["field_map", "size_chart"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 250, 52, 40, 24
DARK, BRIGHT = np.array([0, 34, 78]), np.array([254, 232, 56])


def field_map(matched: Matched, pairs: Sequence[Pair], used: Any) -> str:
    """The frame with its candidates, each a circle that can be clicked, dark where the residual is small."""
    box, cells = matched.exposure.box, matched.solution.cells
    inside = [p for p in pairs if box.x0 <= p.x < box.x1 and box.y0 <= p.y < box.y1]
    region = box if len(inside) == len(pairs) else cells.box
    ny, nx = region.shape
    unit = 400.0 / max(nx, ny)
    width, height = unit * nx, unit * ny

    def place(x: float, y: float) -> tuple[float, float]:
        return unit * (x - region.x0 + 0.5), height - unit * (y - region.y0 + 0.5)

    residuals = np.array([p.residual for p in pairs])
    share = (residuals - residuals.min()) / max(float(np.ptp(residuals)), 1e-30)
    parts = []
    left, top = place(box.x0 - 0.5, box.y1 - 0.5)
    size = f'width="{unit * box.shape[1]:.1f}" height="{unit * box.shape[0]:.1f}"'
    parts.append(f'<rect class="axis" x="{left:.1f}" y="{top:.1f}" {size}/>')
    if cells.cell_shape != cells.box.shape:
        rows, columns = cells.cell_shape
        for column in range(cells.box.x0, cells.box.x1 + 1, columns):
            at = place(column - 0.5, 0)[0]
            parts.append(f'<path class="cell" d="M{at:.1f} 0V{height:.1f}"/>')
        for row in range(cells.box.y0, cells.box.y1 + 1, rows):
            at = place(0, row - 0.5)[1]
            parts.append(f'<path class="cell" d="M0 {at:.1f}H{width:.1f}"/>')
    for k, (one, s) in enumerate(zip(pairs, share, strict=True)):
        x, y = place(one.x, one.y)
        red, green, blue = np.rint(DARK + s * (BRIGHT - DARK)).astype(int)
        state = "spot" if used[one.number] else "spot rejected"
        parts.append(
            f'<circle class="{state}" data-index="{k}" cx="{x:.1f}" cy="{y:.1f}" r="11" '
            f'fill="rgb({red},{green},{blue})"><title>candidate {one.number}: residual {one.residual:.2g}</title>'
            "</circle>"
        )
    alt = (
        f"Map of the frame, {box.shape[1]} by {box.shape[0]} px, with {len(pairs)} candidates; the list above "
        "chooses them from the keyboard."
    )
    view = f"-14 -14 {width + 28:.0f} {height + 28:.0f}"
    return f'<svg viewBox="{view}" role="img" aria-label="{alt}">{"".join(parts)}</svg>'


def size_chart(sizes: Sequence[int], residual: FloatArray, gain: FloatArray, chosen: int) -> tuple[str, list[float]]:
    """Residual and noise gain against kernel size, and where each size lies along the axis, in the chart's units."""
    low = np.floor(np.log10(max(min(residual.min(), gain.min()), 1e-9)))
    high = np.ceil(np.log10(max(residual.max(), gain.max())) + 1e-9)
    span = max(sizes) - min(sizes) or 1

    def across(size: float) -> float:
        return LEFT + (WIDTH - LEFT - 14) * (size - min(sizes)) / span

    def up(value: float) -> float:
        share = (np.log10(max(value, 1e-9)) - low) / (high - low)
        return float(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share)

    parts = []
    for power in range(int(low), int(high) + 1):
        y = up(10.0**power)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - 14}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for size in sizes:
        parts.append(f'<text x="{across(size):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{size}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">kernel size [px]</text>')
    for name, values in (("residual", residual), ("gain", gain)):
        points = " ".join(f"{across(n):.1f},{up(v):.1f}" for n, v in zip(sizes, values, strict=True))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        parts += [
            f'<circle class="{name}-dot" cx="{across(n):.1f}" cy="{up(v):.1f}" r="4"/>'
            for n, v in zip(sizes, values, strict=True)
        ]
    parts.append(f'<path class="residual" d="M{LEFT + 4} 11h24"/><text x="{LEFT + 34}" y="15">residual</text>')
    parts.append(f'<path class="gain" d="M{LEFT + 110} 11h24"/><text x="{LEFT + 140}" y="15">noise gain</text>')
    parts.append(
        f'<path class="now" id="size-line" d="M0 {TOP}V{HEIGHT - BOTTOM}" '
        f'transform="translate({across(chosen):.1f} 0)"/>'
    )
    alt = "; ".join(
        f"{n} px: residual {r:.2g}, noise gain {g:.2g}" for n, r, g in zip(sizes, residual, gain, strict=True)
    )
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Against kernel size: {alt}">{"".join(parts)}</svg>'
    )
    return svg, [round(across(n), 1) for n in sizes]
