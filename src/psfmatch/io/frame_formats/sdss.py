"""Frames of the Sloan Digital Sky Survey: calibrated ``frame-r-001000-1-0100.fits``, and ``fpC-`` before them.

A frame is in nanomaggies, its sky subtracted.  With the calibration C of each column (HDU 1, nanomaggies a count) and
the sky S (HDU 2, a coarse image in counts, to be interpolated linearly at XINTERP and YINTERP) the counts were
``image / C + S``, and the variance is

    (counts / gain + dark variance) C^2

(https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html, which has both tables below).
The PSF is that of ``psField-001000-1-0100.fit`` where it lies beside.  An ``fpC-`` frame is in counts above SOFTBIAS,
which is taken off; it says nothing of its variance.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.geometry import FloatArray
from psfmatch.io.frame_formats.base import Frame, FrameFormat, FrameSource, Plane, fits_frame

__all__ = ["FORMAT", "companions"]

BANDS = "ugriz"
# by camera column: electrons a count, and dark variance (with read noise) in counts squared
GAIN = {
    1: (1.62, 3.32, 4.71, 5.165, 4.745), 2: (1.595, 3.855, 4.6, 6.565, 5.155), 3: (1.59, 3.845, 4.72, 4.86, 4.885),
    4: (1.6, 3.995, 4.76, 4.885, 4.775), 5: (1.47, 4.05, 4.725, 4.64, 3.48), 6: (2.17, 4.035, 4.895, 4.76, 4.69),
}  # fmt: skip
DARK = {
    1: (9.61, 15.6025, 1.8225, 7.84, 0.81), 2: (12.6025, 1.44, 1.0, 5.76, 1.0),
    3: (8.7025, 1.3225, 1.3225, 4.6225, 1.0), 4: (12.6025, 1.96, 1.3225, 6.25, 9.61),
    5: (9.3025, 1.1025, 0.81, 7.84, 1.8225), 6: (7.0225, 1.8225, 0.9025, 5.0625, 1.21),
}  # fmt: skip
# what changed during the survey: after which run
LATER_GAIN = {(2, "u"): (1100, 1.825)}
LATER_DARK = {(2, "i"): (1500, 6.25), (4, "i"): (1500, 7.5625), (4, "z"): (1500, 12.6025), (5, "z"): (1500, 2.1025)}
PHOTO = re.compile(r"frame-([ugriz])-(\d{6}-\d-\d{4})\.fits")


def _recognises(source: FrameSource) -> bool:
    return source.columns("2") >= {"ALLSKY", "XINTERP", "YINTERP"} or _is_raw(source)


def _is_raw(source: FrameSource) -> bool:
    return source.path.name.startswith("fpC-") and source.card("SOFTBIAS") is not None


def _read(source: FrameSource) -> Frame:
    frame = fits_frame(source)
    image = frame.planes["image"]
    if _is_raw(source):
        bias = np.float32(image.header["SOFTBIAS"])
        return replace(frame, planes={"image": replace(image, array=image.array.astype(np.float32) - bias)})
    hdus = source.hdus
    if hdus is None or len(hdus) < 3:
        raise FormatError(f"{source.path}: has no calibration and sky behind its image; it is {source.seems()}")
    variance = _variance(image.array, image.header, np.asarray(hdus[1].data, float), hdus[2].data, source.path)
    planes = {"image": image, "variance": Plane(variance.astype(np.float32), image.header, source.path)}
    return replace(frame, planes=planes, unit=frame.unit or "nanomaggy", beside=companions(source.path))


def _variance(image: FloatArray, header: fits.Header, calibration: FloatArray, sky: Any, path: Path) -> FloatArray:
    ny, nx = image.shape
    rows = np.asarray(sky["YINTERP"], float).reshape(-1)
    columns = np.asarray(sky["XINTERP"], float).reshape(-1)
    if calibration.shape[0] < nx or columns.size < nx or rows.size < ny:
        raise FormatError(f"{path}: calibration or sky are smaller than the image of {nx} x {ny} px; it was changed")
    coarse = np.asarray(sky["ALLSKY"], float).reshape(np.shape(sky["ALLSKY"])[-2:])
    counts = image / calibration[:nx] + _interpolated(coarse, rows[:ny], columns[:nx])
    gain, dark = _noise(header, path)
    return np.maximum(np.maximum(counts, 0.0) / gain + dark, 0.0) * calibration[:nx] ** 2


def _interpolated(coarse: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Linear interpolation at the rows and columns given, constant beyond the border."""
    along_x = np.stack([np.interp(columns, np.arange(coarse.shape[1]), line) for line in coarse])
    below = np.clip(np.floor(rows).astype(int), 0, coarse.shape[0] - 2)
    part = np.clip(rows - below, 0.0, 1.0)[:, None]
    return np.asarray((1.0 - part) * along_x[below] + part * along_x[below + 1])


def _noise(header: fits.Header, path: Path) -> tuple[float, float]:
    """Gain and dark variance of the CCD that took the frame."""
    column, band, run = header.get("CAMCOL"), str(header.get("FILTER", "")).strip(), header.get("RUN", 0)
    if column not in GAIN or len(band) != 1 or band not in BANDS:
        raise FormatError(f"{path}: CAMCOL {column!r} and FILTER {band!r} name no CCD of the survey's camera")
    found = []
    for table, later in ((GAIN, LATER_GAIN), (DARK, LATER_DARK)):
        since, value = later.get((column, band), (np.inf, 0.0))
        found.append(value if run > since else table[column][BANDS.index(band)])
    return found[0], found[1]


def companions(path: Path) -> dict[str, str]:
    """The psField file of the same field, and the band in it."""
    name = PHOTO.match(path.name)
    if name is None:
        return {}
    files = [path.with_name(f"psField-{name[2]}.fit{suffix}") for suffix in ("", ".gz")]
    return next(({"psf": f"{file}[{name[1]}]"} for file in files if file.is_file()), {})


FORMAT = FrameFormat(
    name="sdss", title="frames of the Sloan Digital Sky Survey", recognises=_recognises, read=_read, mask="plain"
)
