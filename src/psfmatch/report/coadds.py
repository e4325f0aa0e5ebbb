"""The page of a coadd."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch import plots
from psfmatch.correlation import NoiseCorrelation
from psfmatch.exposure import Exposure
from psfmatch.moments import fwhm
from psfmatch.plots.coadds import coverage, inputs
from psfmatch.plots.kernels import aperture_factors
from psfmatch.report.meanings import number
from psfmatch.report.page import binary, colours, document, figure_html, table, verdict_html
from psfmatch.report.verdict import LARGE_RESIDUAL, Finding, Verdict

__all__ = ["coadd_page", "read_coadd"]

MOST_PIXELS = 300
COLUMNS = {
    "name": ("image", ""), "weight": ("weight", "relative to the sum of all"),
    "fwhm": ("FWHM", "of its own PSF, arcsec"), "residual": ("residual", "of the match, worst in the field"),
    "noise_gain": ("noise gain", "of the match, worst in the field"),
    "factor": ("factor", "what its fluxes were multiplied by"), "sky": ("sky", "what was subtracted"),
    "clipped": ("clipped", "pixels of it that were left out as outliers"), "reason": ("remark", ""),
}  # fmt: skip
Rows = list[dict[str, Any]]


def read_coadd(path: str | PathLike[str]) -> tuple[Exposure, NDArray[Any], NoiseCorrelation, Rows]:
    """Exposure, inputs in each pixel, correlation of the noise, and the table of inputs, of a coadd's file.

    Raises
    ------
    FormatError
        If the file is damaged or not a coadd of psfmatch.
    """
    from psfmatch.errors import FormatError
    from psfmatch.io import read_correlation, read_exposure
    from psfmatch.io.fits import native, open_fits

    with open_fits(Path(path)) as hdus:
        if "INPUTS" not in hdus or "NEXP" not in hdus:
            raise FormatError(f"{path}: holds no NEXP and INPUTS; it is not a coadd of psfmatch")
        table_of, count = hdus["INPUTS"].data, native(hdus["NEXP"].data)
        rows = [{name.lower(): _plain(row[name]) for name in table_of.names} for row in table_of]
    return read_exposure(path), count, read_correlation(path), rows


def _plain(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value.item() if hasattr(value, "item") else value


def coadd_page(
    exposure: Exposure, count: NDArray[Any], correlation: NoiseCorrelation, rows: Rows, *, name: str = "a coadd"
) -> str:
    """One HTML page about a coadd, that needs no other file.

    Parameters
    ----------
    exposure : Exposure
        With its PSF and WCS.
    count : array of integers, shape (ny, nx)
        Inputs in each pixel.
    correlation : NoiseCorrelation
    rows : list of dict
        A row an input: name, used, reason, weight, fwhm, residual, noise_gain ... (`psfmatch.coadd.Row`).
    name : str
        What the page calls it.

    Returns
    -------
    str
        HTML 5.
    """
    ny, nx = exposure.shape
    scale = exposure.pixel_scale or 1.0
    width = _target_width(exposure)
    used = [row for row in rows if row["used"]]
    live, data = _image(exposure)
    shown = [key for key in COLUMNS if key in rows[0]] if rows else ["name"]
    legend = [(COLUMNS[key][0], COLUMNS[key][1]) for key in shown if COLUMNS[key][1]]
    cells = [[number(row[key]) for key in shown] for row in rows]
    digits = [k for k, key in enumerate(shown) if key not in ("name", "reason")]
    column = {key: np.array([row.get(key, np.nan) for row in used], float) for key in ("weight", "fwhm", "residual")}
    words = ", ".join(f"{row['name']} {100 * row['weight']:.1f} %" for row in used[:12])
    factor = _aperture_factor(correlation)
    sections = {
        "verdict": ("Verdict", verdict_html(_verdict(count, correlation, rows))),
        "reached": ("Asked and reached", table(
            "What was made", ("", "value", "what it is"),
            [("frame", f"{nx} × {ny} px", f"pixels of {scale:.4g} arcsec"),
             ("PSF", f"{width:.3f} px, {width * scale:.3f} arcsec", "FWHM of the coadd, which all were matched to"),
             ("inputs", f"{len(used)} of {len(rows)}", "that were added, of those given"),
             ("inputs in a pixel", f"{int(np.median(count))}", f"median; at most {int(count.max())}, none in "
              f"{100 * float((count == 0).mean()):.2g} % of the pixels"),
             ("aperture errors", f"× {factor:.2g}", "error of a flux within 5 px, over that from the variance alone"),
             ("unit", exposure.unit or "—", "of the pixels")])),
        "inputs": ("Inputs", table("Every input", [COLUMNS[key][0] for key in shown], cells, numbers=digits)
                   + table("What the columns say", ("column", "what it is"), legend)
                   + (figure_html(inputs([row["name"] for row in used], column["weight"], column["fwhm"],
                                         column["residual"], width * scale),
                                  f"Figure: weight, FWHM and residual of each input. Weights: {words}.",
                                  "Weight, FWHM and residual of each input.") if used else "")),
        "image": ("Image", live + figure_html(
            coverage(exposure, count),
            f"Figure: the coadd, and the number of inputs in each pixel, median {int(np.median(count))}.",
            "The coadd, and the number of inputs in each pixel.")),
        "noise": ("Noise", figure_html(
            plots.noise(correlation), "Figure: correlation of neighbouring pixels' noise, and the error of apertures.",
            "The correlation of the noise at the middle of the grid, and what it does to apertures.")),
    }  # fmt: skip
    lead = f"{len(used)} images on {nx} × {ny} px, one PSF of {width * scale:.3f} arcsec"
    return document(f"Coadd {name}", lead, sections, {"colours": colours(), **data})


def _target_width(exposure: Exposure) -> float:
    if exposure.psf is None:
        return float("nan")
    center = exposure.box.center
    return fwhm(exposure.psf.stamps(x=center.x, y=center.y)[0])


def _verdict(count: NDArray[Any], correlation: NoiseCorrelation, rows: Rows) -> Verdict:
    """Whether all inputs are in it, and are alike."""
    used = [row for row in rows if row["used"]]
    out: list[Finding] = []
    for row in rows:
        if not row["used"]:
            out.append(
                Finding("fair", f"{row['name']} is left out: {row['reason']}", "Mend it and make the coadd again.")
            )
        elif row["reason"]:
            out.append(Finding("fair", f"{row['name']}: {row['reason']}"))
    residuals = np.array([row["residual"] for row in used], float)
    if residuals.size and np.isfinite(residuals).any():
        worst = int(np.nanargmax(residuals))
        text = f"The worst residual of a match is {residuals[worst]:.2g}, of {used[worst]['name']}."
        high = residuals[worst] > LARGE_RESIDUAL
        cure = "Take a broader target, or leave it out." if high else ""
        out.append(Finding("fair" if high else "good", text, cure))
    else:
        out.append(Finding("bad", "No input was used.", "See the reasons below."))
    weights = np.array([row["weight"] for row in used], float)
    if weights.size > 2 and weights.max() > 0.5:
        heavy = used[int(np.argmax(weights))]
        out.append(
            Finding(
                "fair", f"{heavy['name']} alone has {100 * weights.max():.0f} % of the weight.", "Check its variance."
            )
        )
    empty = float((count == 0).mean())
    if empty > 0:
        out.append(Finding("good", f"{100 * empty:.2g} % of the pixels have no input, and are flagged NO_DATA."))
    factor = _aperture_factor(correlation)
    out.append(
        Finding(
            "good", f"The error of a flux within 5 px is {factor:.2g} times what the variance alone says; the "
            "correlation that makes it so is in the file (NOISE).",
        )
    )  # fmt: skip
    titles = {"good": "The coadd is good", "fair": "The coadd can be used; read the notes", "bad": "The coadd is empty"}
    found = Verdict(tuple(out))
    return Verdict(tuple(out), titles[found.level])


def _aperture_factor(correlation: NoiseCorrelation, radius: float = 5.0) -> float:
    """By how much correlation raises the error of an aperture's flux, at the middle of the grid."""
    center = correlation.box.center
    return float(aperture_factors(correlation.stamps(x=center.x, y=center.y)[0], np.array([radius]))[0])


def _image(exposure: Exposure) -> tuple[str, dict[str, Any]]:
    """The image, every so many pixels, to point at."""
    step = max(1, -(-max(exposure.shape) // MOST_PIXELS))
    image = np.asarray(exposure.image[::step, ::step], float)
    sky = float(np.nanmedian(image))
    noise = 1.4826 * float(np.nanmedian(np.abs(image - sky))) or 1.0
    peak = max(float(np.nanpercentile(image - sky, 99.9)), noise)
    data = {
        **binary(image - sky), "peak": peak, "linear": min(1.0, 3.0 * noise / peak), "step": step,
        "x0": exposure.box.x0, "y0": exposure.box.y0, "unit": f" {exposure.unit}" if exposure.unit else "",
    }  # fmt: skip
    every = f", every {step} px" if step > 1 else ""
    html = f"""<div class="live wide" id="image-live" hidden>
<p class="hint">Point at a pixel, or move over it with the arrow keys, to read its value above the sky
({sky:.4g}){every}.</p>
<canvas id="coadd-image" tabindex="0" role="img" aria-label="image"></canvas>
<output id="image-value"></output>
</div>
"""
    return html, {"image": data}
