"""The frames of a match, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from psfmatch.display.screens import Frame, Region, Screen, screen_for
from psfmatch.display.settings import DebugSettings, next_frame
from psfmatch.exposure import Exposure
from psfmatch.geometry import FloatArray
from psfmatch.match import Matched

__all__ = ["frames", "show"]


def show(
    matched: Matched, *, before: Exposure | None = None, own: FloatArray | None = None, screen: Screen | None = None,
    folder: Path | None = None,
) -> int:  # fmt: skip
    """Show what ``debug.py`` asks to see of a match; nothing, where none is loaded.

    Parameters
    ----------
    matched : Matched
    before : Exposure, optional
        The image as it was, on which the cells are drawn.
    own : array, shape (n_terms, n_candidates), optional
        The weights of the kernel of each candidate alone.
    screen : Screen, optional
        Default: what ``display`` says (see `screen_for`).
    folder : path, optional
        For files.

    Returns
    -------
    int
        How many frames were shown.

    Raises
    ------
    InputError
        If the screen that is asked for is not there.
    """
    settings = DebugSettings.now()
    if not settings.anything:
        return 0
    screen = screen_for(settings.display, folder) if screen is None else screen
    count = 0
    for frame in frames(settings, matched, before, own):
        screen.show(frame, next_frame())
        count += 1
    screen.done()
    return count


def frames(
    settings: DebugSettings, matched: Matched, before: Exposure | None, own: FloatArray | None
) -> Iterator[Frame]:
    """Each frame that the settings ask for."""
    from psfmatch import plots
    from psfmatch.plots import model

    bad = bool(settings.showBadCandidates)
    if settings.displaySpatialCells:
        exposure = matched.exposure if before is None else before
        opacity = float(np.clip(1.0 - float(settings.maskTransparency) / 100.0, 0.0, 1.0))
        yield Frame(
            "spatial cells", partial(plots.cells, matched, before=before, mask_opacity=opacity),
            np.asarray(exposure.image), exposure.mask.array, float(settings.maskTransparency),
            _circles(matched, exposure),
        )  # fmt: skip
    if settings.displayCandidates:
        for what in ("stamps", "kernels", "residuals"):
            pairs, stamps = model.candidate_stamps(matched, what, bad=bad)
            columns = int(np.ceil(np.sqrt(len(pairs))))
            yield Frame(
                f"candidates {what}", partial(plots.candidates, matched, what, bad=bad),
                model.mosaic(stamps, columns),
            )  # fmt: skip
    if settings.displayKernelBasis:
        yield Frame("kernel basis", partial(plots.kernel_basis, matched), model.basis_mosaic(matched))
    if settings.displayKernelMosaic:
        yield Frame("kernel mosaic", partial(plots.kernel_field, matched), model.field_mosaic(matched))
    if settings.plotKernelSpatialModel:
        yield Frame("kernel spatial model", partial(plots.kernel_spatial_model, matched, own=own, bad=bad))
    if settings.plotKernelCoefficients:
        yield Frame("kernel coefficients", partial(plots.kernel_coefficients, matched, own=own, bad=bad))


def _circles(matched: Matched, exposure: Exposure) -> list[Region]:
    """Used candidates in cyan, rejected in red, positions without a PSF in yellow, in pixels of the image."""
    cells = matched.solution.cells
    used = np.asarray(matched.solution.statistics.get("used", np.ones(len(cells), bool)), bool)
    x0, y0 = exposure.box.x0, exposure.box.y0
    out = [
        (float(x) - x0, float(y) - y0, "cyan" if good else "red", str(k))
        for k, (x, y, good) in enumerate(zip(cells.x, cells.y, used, strict=True))
    ]
    return out + [(x - x0, y - y0, "yellow", "") for x, y, _ in cells.skipped]
