"""HTML, put together: escaped text in semantic elements, pictures inside the page, data for its script."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.geometry import FloatArray
from psfmatch.report.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["binary", "colours", "document", "figure_html", "section", "table", "verdict_html"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What the browser may load: nothing that is not in the page."""
STEPS = 64


def document(title: str, lead: str, sections: Mapping[str, tuple[str, str]], data: Mapping[str, Any]) -> str:
    """The page: sections by their anchors, each a heading and its HTML, and the data that its script draws."""
    style, script = ((files("psfmatch.report") / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    links = "".join(f'<li><a href="#{key}">{escape(heading)}</a></li>' for key, (heading, _) in sections.items())
    body = "\n".join(section(key, heading, html) for key, (heading, html) in sections.items())
    values = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
</header>
<nav aria-label="On this page"><ul>{links}</ul></nav>
<main id="main" tabindex="-1">
{body}
</main>
<footer><p>Made by psfmatch. This page needs no network.</p></footer>
<script type="application/json" id="data">{values}</script>
<script>
{script}</script>
</body>
</html>
"""


def section(key: str, heading: str, html: str) -> str:
    """A section under its heading."""
    return (
        f'<section id="{key}" aria-labelledby="{key}-h">\n<h2 id="{key}-h">{escape(heading)}</h2>\n{html}\n</section>'
    )


def verdict_html(verdict: Verdict) -> str:
    """The verdict as a badge, its findings as a list, each with its cure."""
    marks = {"good": "✓", "fair": "!", "bad": "✗"}
    words = {"good": "good", "fair": "note", "bad": "problem"}
    items = "".join(
        f'<li class="{f.level}"><span class="mark" aria-hidden="true">{marks[f.level]}</span>'
        f'<div><span class="sr">{words[f.level]}: </span>{escape(f.text)}'
        + (f'<p class="cure"><strong>What to do:</strong> {escape(f.cure)}</p>' if f.cure else "")
        + "</div></li>"
        for f in sorted(verdict.findings, key=lambda f: ("bad", "fair", "good").index(f.level))
    )
    return f'<p class="badge {verdict.level}">{escape(verdict.words)}</p>\n<ul class="findings">{items}</ul>'


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table whose first column names the row; columns of numbers are set to the right; it scrolls on its own."""
    head = "".join(f'<th scope="col"{_number(k in numbers)}>{escape(c)}</th>' for k, c in enumerate(columns))
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{_number(k in numbers)}>{escape(cell)}</td>" for k, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    words, many = escape(caption), " many" * (len(columns) > 3)
    return (
        f'<div class="scroll{many}" role="region" aria-label="{words}" tabindex="0"><table><caption>{words}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _number(wanted: bool) -> str:
    return ' class="n"' if wanted else ""


def figure_html(figure: Figure, alt: str, caption: str) -> str:
    """A figure as a picture inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = (round(150 * inches) for inches in figure.get_size_inches())
    return (
        f'<figure class="plot"><img src="data:image/png;base64,{code}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}" loading="lazy"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def binary(stamp: FloatArray) -> dict[str, Any]:
    """An image for the script: rows, columns, and float32 in base64."""
    array = np.ascontiguousarray(stamp, "<f4")
    return {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "data": base64.b64encode(array.tobytes()).decode("ascii"),
    }


def colours() -> dict[str, list[list[int]]]:
    """The two colour maps of the figures, in steps."""
    import matplotlib

    from psfmatch.plots.style import FLUX_MAP, signed_map

    at = np.linspace(0.0, 1.0, STEPS)
    return {
        name: np.rint(255 * np.asarray(colour(at))[:, :3]).astype(int).tolist()
        for name, colour in (("flux", matplotlib.colormaps[FLUX_MAP]), ("signed", signed_map()))
    }
