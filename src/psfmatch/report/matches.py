"""The page of a match."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from psfmatch import plots
from psfmatch.check import Check, check
from psfmatch.correlation import NoiseCorrelation
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray, resized
from psfmatch.kernel import MatchingKernel
from psfmatch.match import Matched
from psfmatch.moments import fwhm
from psfmatch.plots import PLOTS, Pair, Subject
from psfmatch.plots.kernels import size_words
from psfmatch.report.charts import field_map, size_chart
from psfmatch.report.meanings import ASKED, FIGURES, meaning, number
from psfmatch.report.page import binary, colours, document, figure_html, table, verdict_html
from psfmatch.report.verdict import verdict

__all__ = ["match_page"]

MOST_CANDIDATES, MOST_STARS = 36, 20
SAME_STAR = 3.0
"""Within which a star before and after is the same, px."""
HALF = 15
GROWTH = (
    '<p class="hint">These are the PSF models, in % of a source’s whole flux. The growth curves in “Stars” differ, '
    "because nobody knows the whole flux of a star: that of the mean star is in % of the flux of the target fitted to "
    "it, those beside the cut-outs are in % of the flux within 12 px, where all of them end at 0.</p>"
)


def match_page(matched: Matched, *, name: str = "an exposure", before: Exposure | None = None) -> str:
    """One HTML page about a match, that needs no other file.

    Parameters
    ----------
    matched : Matched
        What `match` or `read_matched` returns.
    name : str
        What the page calls it.
    before : Exposure, optional
        The image that was matched; with it the page shows stars before and after.

    Returns
    -------
    str
        HTML 5.
    """
    seen = _checked(matched, before)
    hardest = plots.hardest(matched)
    live, data = _candidates(matched, hardest)
    slider, sizes = _sizes(matched, hardest)
    exposure = matched.exposure
    ny, nx = exposure.shape
    sections = {
        "verdict": ("Verdict", verdict_html(verdict(matched, seen["after"]))),
        "asked": ("Asked, chosen, reached", _asked(matched)),
        "candidates": ("Candidates", live + _plot("candidate", matched, before)),
        "field": ("Over the field", _plot("psf-field", matched, before) + _plot("quality", matched, before)
                  + _plot("cells", matched, before)),
        "stars": ("Stars", _stars(matched, before, seen)),
        "growth": ("Growth curves", _plot("growth", matched, before) + GROWTH),
        "size": ("Kernel size", slider + _plot("frontier", matched, before)),
        "kernel": ("Kernel", _plot("kernel-field", matched, before) + _plot("kernel-basis", matched, before)),
        "frequencies": ("Spatial frequencies", _plot("transfer", matched, before)),
        "noise": ("Noise", _plot("noise", matched, before)),
        "numbers": ("Every number", _notes(matched)),
    }  # fmt: skip
    notes = matched.solution.statistics
    lead = f"{nx} × {ny} px, matched to {notes.get('target', 'a target PSF')}"
    if "worst_region" in notes:
        lead += (
            f"; {notes['regions']} regions, each with a kernel of its own: candidates and kernel shown are those of "
            f"region {notes['worst_region']}, the worst"
        )
    return document(f"PSF match of {name}", lead, sections, {"colours": colours(), **data, **sizes})


def _asked(matched: Matched) -> str:
    """What was asked, what the solver chose for it, and what came of it."""
    notes, quality = matched.solution.statistics, matched.quality
    worst, median = quality.worst, quality.median
    asked = [(name.replace("asked_sum", "kernel sum"), number(notes[name]), words)
             for name, words in ASKED.items() if name in notes]  # fmt: skip
    if "tolerance" in notes:
        asked.append(("tolerance", number(notes["tolerance"]), meaning("tolerance")))
    ky, kx = matched.solution.kernel.shape
    chosen = [
        (
            "kernel",
            f"{kx} × {ky} px, {size_words(matched)}",
            "pixels nearer to the border than half of it are made of a part of the kernel",
        ),
        (
            "terms",
            str(len(matched.solution.kernel.basis)),
            "basis images, each with a weight that varies over the field",
        ),
        (
            "variation",
            f"{matched.solution.kernel.weights.kind}, order {matched.solution.kernel.weights.order}",
            "of these weights",
        ),
        ("candidates", str(len(matched.solution.cells)), "pairs of PSF stamps that the kernel was solved from"),
    ]
    reached = [
        (words, number(median[key]), number(worst[key]), formula, reads)
        for key, (words, formula, reads) in FIGURES.items()
    ]
    return (
        table("What was asked", ("", "value", "what it is"), asked)
        + table("What the solver chose, or was told", ("", "value", "what it is"), chosen)
        + table(
            f"What was reached: measured at {len(quality)} positions between those of the fit",
            ("figure", "median", "worst", "formula", "how to read it"), reached, numbers=(1, 2),
        )
        + '<p class="hint">K is the kernel, S the PSF of the image, T the target. All compare models; what the stars '
        "themselves say is in “Stars”.</p>"
    )  # fmt: skip


def _notes(matched: Matched) -> str:
    notes = matched.solution.statistics
    rows = [(name.replace("_", " "), number(value), meaning(name)) for name, value in notes.items() if meaning(name)]
    return table("What the solver noted", ("name", "value", "what it says"), rows)


def _plot(name: str, matched: Matched, before: Exposure | None) -> str:
    words = PLOTS[name].words
    caption = words[0].upper() + words[1:] + "."
    return figure_html(PLOTS[name].draw(Subject(matched, before)), _alt(name, matched), caption)


def _alt(name: str, matched: Matched) -> str:
    """What a figure shows, with its main numbers, for those who do not see it."""
    worst, median = matched.quality.worst, matched.quality.median
    hardest, kernel = plots.hardest(matched), matched.solution.kernel
    said = {
        "psf-field": lambda: (
            f"FWHM at candidate {hardest.number}: {fwhm(hardest.science):.2f} px before, "
            f"{fwhm(hardest.matched):.2f} px after, target {fwhm(hardest.target):.2f} px."
        ),
        "quality": lambda: (
            f"Residual {median['residual']:.2g}, worst {worst['residual']:.2g}; EE error "
            f"{median['ee_error']:.2g}, worst {worst['ee_error']:.2g}."
        ),
        "candidate": lambda: (
            f"Candidate {hardest.number}, the hardest: residual {hardest.residual:.2g}, noise gain "
            f"{hardest.noise_gain:.2g}."
        ),
        "growth": lambda: f"The enclosed flux differs from the target's by at most {100 * worst['ee_error']:.2g} %.",
        "frontier": lambda: (
            f"The kernel of {max(hardest.kernel.shape)} px is marked: residual {hardest.residual:.2g} at "
            f"noise gain {hardest.noise_gain:.2g}."
        ),
        "noise": lambda: f"The noise gain is {median['noise_gain']:.3g}.",
        "cells": lambda: f"{len(matched.solution.cells)} candidates.",
        "kernel-field": lambda: f"Kernels of {kernel.shape[1]} by {kernel.shape[0]} px.",
        "kernel-basis": lambda: f"{len(kernel.basis)} terms.",
    }.get(name, lambda: "")()
    return f"Figure: {PLOTS[name].words}. {said}".strip()


def _checked(matched: Matched, before: Exposure | None) -> dict[str, Check]:
    """The stars of the image against the target, after the match and, where it is given, before."""
    kernel, target = matched.kernel, matched.exposure.psf
    noise = NoiseCorrelation.of_kernel(kernel) if isinstance(kernel, MatchingKernel) else None
    after = {"after": check(matched.exposure, correlation=noise)}
    return after if before is None else {"before": check(before, target), **after}


def _stars(matched: Matched, before: Exposure | None, seen: dict[str, Check]) -> str:
    """All isolated stars against the target, and some of them before and after."""
    if not len(seen["after"]):
        return "<p>No isolated star was found in the image, so that nothing proves the match but the PSF models.</p>"
    said = "; ".join(f"{name}: FWHM {c.fwhm.value:.3f} ± {c.fwhm.error:.3f} px" for name, c in seen.items())
    numbers = table(_every_star_words(seen["after"]), ("star", *seen), _every_star(seen), numbers=range(1, 3))
    caption = "Isolated stars of the image against the target, as psfmatch check finds them."
    figure = figure_html(plots.check_figure(seen), f"{caption} {said}.", caption)
    return figure + numbers + _before_after(matched, before)


def _every_star_words(found: Check) -> str:
    count = f"{len(found)} stars" if len(found) > 1 else "one star"
    most = f", of which the {MOST_STARS} brightest are listed" if len(found) > MOST_STARS else ""
    return f"FWHM against the target's of {found.target_fwhm:.3f} px, in %, of the {count} checked{most}"


def _every_star(seen: dict[str, Check]) -> list[tuple[str, ...]]:
    """A row for each star of the matched image, from bright to faint, with what it was before in the column before."""
    last = seen["after"]
    rows = []
    for x, y in np.transpose([last.x, last.y])[np.argsort(-last.flux)][:MOST_STARS]:
        row = [f"x = {x:.0f}, y = {y:.0f} px"]
        for one in seen.values():
            apart = np.hypot(one.x - x, one.y - y)
            k = int(np.argmin(apart)) if apart.size else -1
            near = k >= 0 and apart[k] < SAME_STAR
            row.append(f"{100 * one.sizes[k]:+.2f} ± {100 * one.size_errors[k]:.2f}" if near else "not checked")
        rows.append(tuple(row))
    return rows


def _before_after(matched: Matched, before: Exposure | None) -> str:
    from psfmatch.errors import InputError

    if before is None:
        return (
            "<p>Cut-outs are not shown: the file does not hold the image as it was. "
            "<code>psfmatch report MATCHED --before IMAGE</code> shows its stars before and after.</p>"
        )
    try:
        pairs = plots.star_pairs(before, matched)
    except InputError as error:
        return f"<p>Cut-outs are not shown: {escape(str(error))}.</p>"
    rows = [
        (p.title, f"{p.star.fwhm:.3f} ± {p.star.fwhm_error:.3f}", f"{p.matched_star.fwhm:.3f}",
         f"{100 * (p.matched_star.fwhm / p.target_fwhm - 1):+.2f} %") for p in pairs
    ]  # fmt: skip
    alt = "; ".join(f"star at {row[0]}: FWHM {row[1]} px before, {row[2]} px after" for row in rows)
    words = (
        f"The cut-outs below, of the brightest only: FWHM of fitted Moffat profiles before the pixel, px; "
        f"the target's is {pairs[0].target_fwhm:.3f} "
        "(figures of stamps elsewhere on this page are a little larger: they are what the pixels hold)"
    )
    numbers = table(words, ("star", "before", "after", "after / target"), rows, numbers=(1, 2, 3))
    drawn = plots.before_after(pairs)
    return numbers + figure_html(drawn, f"Cut-outs, profiles, growth curves; {alt}.", "Stars, before and after.")


def _difference(one: Pair, matched: FloatArray) -> dict[str, Any]:
    """K*S - T in % of the target's peak, about the centre."""
    side = min(2 * HALF + 1, *matched.shape)
    return binary(100.0 * resized(matched - one.target, (side, side)) / one.target.max())


def _candidates(matched: Matched, hardest: Pair) -> tuple[str, dict[str, Any]]:
    """The candidates to choose from, and their stamps."""
    count = len(matched.solution.cells)
    some = sorted({*np.linspace(0, count - 1, min(count, MOST_CANDIDATES)).astype(int).tolist(), hardest.number})
    pairs = [plots.pair(matched, k) for k in some]
    used = np.asarray(matched.solution.statistics.get("used", np.ones(count, bool)), bool)
    values = []
    for one in pairs:
        cut = one.cut(HALF)
        state = "" if used[one.number] else "; rejected"
        words = (
            f"Candidate {one.number} at x = {one.x:.0f}, y = {one.y:.0f} px: FWHM {fwhm(one.science):.2f} px before, "
            f"{fwhm(one.matched):.2f} px after, target {fwhm(one.target):.2f} px; residual {one.residual:.2g}, "
            f"noise gain {one.noise_gain:.3g}{state}."
        )
        values.append(
            {"words": words, "science": binary(cut.science), "matched": binary(cut.matched),
             "target": binary(cut.target), "kernel": binary(one.kernel), "difference": _difference(one, one.matched)}
        )  # fmt: skip
    options = "".join(
        f'<option value="{k}">{one.number}: x {one.x:.0f}, y {one.y:.0f}, residual {one.residual:.2g}</option>'
        for k, one in enumerate(pairs)
    )
    parts = (("science", "science PSF"), ("kernel", "kernel"), ("matched", "matched PSF"), ("target", "target PSF"),
             ("difference", "matched − target"))  # fmt: skip
    residuals = [one.residual for one in pairs]
    span = f"from {min(residuals):.2g} to {max(residuals):.2g}"
    html = f"""<div class="live" id="candidate-live" hidden>
<div class="controls"><label for="candidate">Candidate</label><select id="candidate">{options}</select></div>
<p class="hint">Choose one in the list, or click it on the map, where dark spots have small residuals ({span}).
Point at a pixel, or move over it with the arrow keys, to read its value. PSFs and kernel are in an asinh stretch, the
difference is linear.</p>
<div class="two">
{field_map(matched, pairs, used)}
<div class="pictures">{_canvases(parts)}</div>
</div>
<p id="candidate-summary" aria-live="polite"></p>
<output id="candidate-value"></output>
</div>
"""
    return html, {"candidates": values, "hardest": [p.number for p in pairs].index(hardest.number)}


def _canvases(parts: Any) -> str:
    return "".join(
        f'<figure><canvas data-part="{part}" tabindex="0" role="img" aria-label="{words}"></canvas>'
        f"<figcaption>{words}</figcaption></figure>"
        for part, words in parts
    )


def _sizes(matched: Matched, hardest: Pair) -> tuple[str, dict[str, Any]]:
    """The slider over kernel size: what kernels of other sizes would have reached for the hardest candidate."""
    found = plots.frontier_of(matched, hardest)
    strength = plots.strength_of(matched, found, hardest)
    sizes = [int(n) for n in found.sizes]
    size = max(hardest.kernel.shape)
    chart, at = size_chart(sizes, found.residual[:, strength], found.noise_gain[:, strength], size)
    values = []
    for k, n in enumerate(sizes):
        kernel = found.kernels[k][strength]
        after = fftconvolve(hardest.science, kernel, mode="same")
        words = (
            f"{n} px{' (this match)' if n == size else ''}: residual {found.residual[k, strength]:.2g}, noise gain "
            f"{found.noise_gain[k, strength]:.3g}"
        )
        values.append(
            {
                "size": n,
                "words": words,
                "at": at[k],
                "kernel": binary(kernel),
                "difference": _difference(hardest, after),
            }
        )
    chosen = sizes.index(size)
    html = f"""<p>What a kernel of another size would have reached for candidate {hardest.number}, the hardest,
with every pixel free and the strength {found.strengths[strength]:.0e} of smoothing. Residual and noise gain are to be
small, both.</p>
<div class="live" id="size-live" hidden>
<div class="controls"><label for="kernel-size">Kernel size</label>
<input type="range" id="kernel-size" min="0" max="{len(sizes) - 1}" step="1" value="{chosen}">
<button type="button" id="size-reset">this match</button></div>
<output id="size-words" for="kernel-size"></output>
<div class="two">
{chart}
<div class="pictures">{_canvases((("kernel", "kernel"), ("difference", "matched − target")))}</div>
</div>
<output id="size-value"></output>
</div>
"""
    return html, {"sizes": values, "chosen": chosen}
