"""Making what was found small: HDUs, cards and data of a FITS file, or pieces of any other, are taken away in turn."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuzz.mutate import CARD, HDU, joined, taken_apart
from fuzz.oracle import judged
from fuzz.targets import Target

__all__ = ["minimised"]


def minimised(target: Target, content: bytes) -> bytes:
    """The least content that shows the same, as far as taking away leads there."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if target.beside is not None:
            target.beside(folder)

        def shown(candidate: bytes) -> str | None:
            (folder / target.name).write_bytes(candidate)
            finding = judged(target.reader, folder / target.name)
            return None if finding is None else finding.key

        wanted = shown(content)
        if wanted is None:
            return content
        if content[:2] == b"\x1f\x8b" and shown(plain := gzip.decompress(content)) == wanted:
            content = plain
        while True:
            for candidate in _smaller(content):
                if len(candidate) <= len(content) and candidate != content and shown(candidate) == wanted:
                    content = candidate
                    break
            else:
                return content


def _smaller(content: bytes) -> Iterator[bytes]:
    if content.startswith(b"SIMPLE"):
        yield from _smaller_fits(content)
        return
    size = len(content) // 2
    while size:
        yield from (content[:at] + content[at + size :] for at in range(0, len(content), size))
        size //= 2


def _smaller_fits(content: bytes) -> Iterator[bytes]:
    """Without an HDU, without many cards, and with nothing but zeros where data are not needed."""
    hdus = taken_apart(content)
    yield joined(hdus)
    for k in range(len(hdus)):
        yield joined(hdus[:k] + hdus[k + 1 :])
    for k, hdu in enumerate(hdus):
        step = len(hdu.cards) // 2
        while step:
            for at in range(0, len(hdu.cards), step):
                fewer = HDU(hdu.cards[:at] + hdu.cards[at + step :], hdu.data)
                if len(fewer.cards) * CARD // 2880 < len(hdu.cards) * CARD // 2880 or step > 1:
                    yield joined([*hdus[:k], fewer, *hdus[k + 1 :]])
            step //= 2
        if any(hdu.data):
            yield joined([*hdus[:k], HDU(hdu.cards, bytearray(len(hdu.data))), *hdus[k + 1 :]])
