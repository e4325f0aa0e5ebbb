"""Images of the Cambridge pipeline (CASU): VISTA, UKIRT, INT and VST, an extension for each detector.

Beside an image, or a pawprint of 16 detectors, lies a *confidence map* with the same extensions, named in the card
CIR_CPM or as the image with ``_conf``.  It holds relative inverse variances, 100 for an average pixel and 0 for one
without data.  With the noise of the sky (the card SKYNOISE, else measured: 1.48 times the median absolute deviation
of the image),

    variance = SKYNOISE^2 * 100 / confidence,

that of the sky; the photon noise of the sources is not in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from psfmatch.io.files import FITS_SUFFIX, split_extension
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, fits_frame

__all__ = ["FORMAT", "companions"]

NOMINAL = 100.0
SIGMA_OF_MAD = 1.4826


def _recognises(source: FrameSource) -> bool:
    return source.card("CIR_CPM") is not None or source.card("CASUVERS") is not None


def _read(source: FrameSource) -> Frame:
    frame = fits_frame(source)
    image = frame.planes["image"]
    noise = image.header.get("SKYNOISE")
    if not isinstance(noise, int | float) or not noise > 0:
        noise = _measured(image.array)
    beside = companions(source.path, image.header.get("CIR_CPM"))
    return replace(
        frame, unit=frame.unit or "adu", beside=beside, weight_unit=1.0 / (NOMINAL * float(noise) ** 2),
        convention="plain",
    )  # fmt: skip


def _measured(image: np.ndarray) -> float:
    step = max(1, round((image.size / 1e6) ** 0.5))
    values = np.asarray(image[::step, ::step], float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 1.0
    return SIGMA_OF_MAD * float(np.median(np.abs(values - np.median(values)))) or 1.0


def companions(path: Path, card: object = None) -> dict[str, Path]:
    """The confidence map that exists beside an image: that of the card, or of the image's name with ``_conf``."""
    names = [FITS_SUFFIX.sub("", path.name) + "_conf" + end for end in (".fit", ".fits", ".fit.fz", ".fits.fz")]
    if isinstance(card, str) and (name := split_extension(card.strip())[0].name):
        names.insert(0, name)
    return next(({"weight": path.with_name(name)} for name in names if path.with_name(name).is_file()), {})


FORMAT = FrameFormat(
    name="casu", title="images of CASU's pipeline with confidence maps (VISTA, UKIRT)", recognises=_recognises,
    read=_read, mask="plain",
)  # fmt: skip
