"""Small pieces of HTML, and pictures in them, for what notebooks show of an object."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from psfmatch.geometry import FloatArray

__all__ = ["card", "png", "thumbnail"]

LARGEST_SIDE = 200
STRETCH = (0.5, 0.02, 99.5)


def card(title: str, rows: Iterable[tuple[str, str]], *, picture: bytes | None = None, says: str = "") -> str:
    """A table of names and values under a title, with a picture beside it; all text is escaped.

    Parameters
    ----------
    title : str
    rows : iterable of (str, str)
        Names and values.
    picture : bytes, optional
        A PNG.
    says : str
        What the picture shows, for those who do not see it.
    """
    body = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    image = ""
    if picture is not None:
        data = base64.b64encode(picture).decode("ascii")
        image = (
            f'<img alt="{html.escape(says, quote=True)}" src="data:image/png;base64,{data}" '
            'style="margin-right:1em;image-rendering:pixelated">'
        )
    return (
        '<div style="display:flex;align-items:flex-start;flex-wrap:wrap">'
        f'{image}<table><caption style="text-align:left;font-weight:bold">{html.escape(title)}</caption>'
        f"<tbody>{body}</tbody></table></div>"
    )


def thumbnail(image: FloatArray, bad: NDArray[np.bool_] | None = None) -> bytes | None:
    """A small picture of an image, the first row below: every so-many-th pixel, sources stretched with the arcsinh.

    Pixels that are ``bad``, or not finite, are black.  None where there is nothing to show.
    """
    step = max(1, -(-max(image.shape) // LARGEST_SIDE))
    small = np.array(image[::step, ::step], float)
    good = np.isfinite(small) if bad is None else np.isfinite(small) & ~bad[::step, ::step]
    if not good.any():
        return None
    middle = float(np.median(small[good]))
    low, high = (float(np.percentile(small[good], p)) for p in (STRETCH[0], STRETCH[2]))
    width = max(STRETCH[1] * (high - middle), middle - low, 1e-30 * max(abs(middle), 1.0))
    bottom, top = np.arcsinh((np.array([low, max(high, np.nextafter(low, np.inf))]) - middle) / width)
    scaled = (np.arcsinh((np.where(good, small, low) - middle) / width) - bottom) / max(top - bottom, 1e-30)
    return png(np.where(good, 255.0 * np.clip(scaled, 0.0, 1.0), 0.0).astype(np.uint8)[::-1])


def png(gray: NDArray[np.uint8]) -> bytes:
    """A gray image (rows from the top, columns) of 8 bits as PNG (ISO/IEC 15948)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    ny, nx = gray.shape
    lines = np.concatenate([np.zeros((ny, 1), np.uint8), gray], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", nx, ny, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
