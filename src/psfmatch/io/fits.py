"""Reading FITS with every failure told as one that names the file."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import itertools
import lzma
import math
import mmap
import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from psfmatch.errors import FormatError
from psfmatch.io.files import existing_file, reason, told

__all__ = [
    "extension", "image_hdus", "is_image", "native", "open_fits", "plane", "quiet", "table_hdu", "write_hdus",
]  # fmt: skip

DAMAGE = r"(?s).*(truncated|sum verification failed)"
LARGEST_TILE_RATIO = 10_000
UNPACKED_AT_LEAST = 1 << 30
_FILTERS = threading.RLock()
SUM = "of the bytes of this HDU"
BLOCK, CARD = 2880, 80
MOST = 999  # axes of an image, columns of a table
BITPIX = ("8", "16", "32", "64", "-32", "-64")
SIZES = re.compile(rb"Z?NAXIS\d{0,3}|BITPIX|PCOUNT|GCOUNT|TFIELDS")
COUNTS = (b"NAXIS", b"ZNAXIS", b"TFIELDS")
KEYWORD = 8  # letters at most
BLANKS = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"  # of Python's texts
END = re.compile(rb"END(?![A-Z0-9_-])")
LONGEST_HEADER = 1 << 24
RICE_BYTES = (1, 2, 4)
SHORTEST_STREAM = 25  # HCOMPRESS: magic, rows, columns, scale, sum of all pixels, three numbers of bit planes
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


@contextmanager
def open_fits(path: Path, *, memmap: bool = False) -> Iterator[fits.HDUList]:
    """An open FITS file, mapped into memory where asked for; whatever goes wrong is a `FormatError` that names it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no FITS file, or damaged, or cut off, or larger on paper than on disk.
    """
    existing_file(path)
    with told(path, what="cannot be read as FITS", of=_first_line):
        try:
            with open(path, "rb") as raw:  # ours to close, whatever astropy does on an error
                source, size, verify = _source(raw, path)
                _check_headers(source, size, path)
                mode = None if memmap else False  # None: wherever it can be; True would refuse scaled images
                with quiet(error=DAMAGE), fits.open(source, memmap=mode, checksum=verify) as hdus:
                    len(hdus)  # reads every header, so that a file cut off anywhere is found out now
                    _check_count(hdus)
                    _check_sizes(hdus, size)
                    _check_tail(hdus, source)
                    yield hdus
        except (AstropyWarning, np.exceptions.ComplexWarning) as error:
            raise FormatError(f"{path}: cannot be read as FITS: {_first_line(error)}") from error


@contextmanager
def quiet(*, error: str | None = None) -> Iterator[None]:
    """Silence astropy's warnings; with a pattern, those that match it, and of lost imaginary parts, become errors.

    Python's filters belong to the whole process, so that one thread at a time may change them.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=AstropyWarning)
        if error is not None:
            warnings.filterwarnings("error", message=error, category=AstropyWarning)
            warnings.filterwarnings("error", category=np.exceptions.ComplexWarning)
        yield


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        name = re.fullmatch(r"Keyword '(.*)' not found\.", error.args[0])  # as astropy says it of a header
        return f"the header card {name[1] if name else str(error).strip()} is missing"
    if isinstance(error, OSError) and error.errno == errno.EINVAL:
        return "a header promises more data than a file can hold"
    return reason(error).rstrip(".:")


class _Unpacked(io.BytesIO):
    """A decompressed file that knows its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def _source(raw: BinaryIO, path: Path) -> tuple[BinaryIO, int, bool]:
    """What to read, its size, and whether its checksums are to be looked at (ours are; stale ones are common).

    A compressed file is unpacked whole: astropy takes one that is cut off for one that has fewer extensions.
    """
    head = raw.read(BLOCK)
    raw.seek(0)
    for magic, opener in COMPRESSIONS.items():
        if head.startswith(magic):
            most = max(LARGEST_TILE_RATIO * path.stat().st_size, UNPACKED_AT_LEAST)
            with opener(raw) as stream:
                content = stream.read(most + 1)
            if len(content) > most:
                raise FormatError(f"{path}: unpacks to more than {LARGEST_TILE_RATIO} times its size; unpack it first")
            return _Unpacked(content, str(path)), len(content), False
    return raw, path.stat().st_size, b"PSFMATCH= " in head


def _check_headers(source: BinaryIO, size: int, path: Path) -> None:
    """Refuse sizes that FITS does not know.

    Of numbers of axes and columns astropy would make lists, however large; of a negative size, or a text, it would go
    back in the file, and never come to its end.
    """
    at = 0
    while at < size:
        source.seek(at)
        header = bytearray()
        while (block := source.read(BLOCK)) and len(header) < LONGEST_HEADER:
            header += block
            if any(END.match(block, k) for k in range(0, len(block), CARD)):
                break
        cards: dict[bytes, int] = {}
        for start in range(0, len(header), CARD):
            if found := _size(bytes(header[start : start + CARD]), path):
                name, value = found
                if cards.setdefault(name, value) != value:
                    said = f"{name.decode()} = {cards[name]} and {name.decode()} = {value}"
                    raise FormatError(f"{path}: a header says {said}; one of them is wrong")
        axes = [cards.get(b"NAXIS%d" % (k + 1), 0) for k in range(cards.get(b"NAXIS", 0))]
        more = [n for name, n in cards.items() if name.startswith(b"NAXIS") and n > size]
        if more and (0 in axes or not set(more) <= set(axes)):  # else the sizes of the HDUs tell
            raise FormatError(f"{path}: a header promises {max(more)} rows or columns of nothing; it is wrong")
        if axes[:1] == [0] and b"GROUPS  =" in header:
            raise FormatError(f"{path}: holds random groups, which are no images")
        values = cards.get(b"GCOUNT", 1) * (cards.get(b"PCOUNT", 0) + math.prod(axes)) if axes else 0
        end = at + len(header) + -(-abs(cards.get(b"BITPIX", 8)) * values // 8 // BLOCK) * BLOCK
        if b"HCOMPRESS_1" in header and end <= size:
            source.seek(at)
            _check_streams(source.read(end - at), path)
        if b"ZNAME" in header.upper():
            _check_rice(bytes(header), path)
        at = end
    source.seek(0)


def _check_rice(header: bytes, path: Path) -> None:
    """Refuse numbers of bytes that RICE does not know: astropy's decoder writes 4 into room for as many."""
    with quiet(), suppress(KeyError, fits.VerifyError):  # astropy says so, too
        cards = fits.Header.fromstring(header)
        for k in range(1, len(cards)):
            named = str(cards[f"ZNAME{k}"]).upper() == "BYTEPIX"
            if named and (said := cards[f"ZVAL{k}"]) not in RICE_BYTES:
                raise FormatError(f"{path}: a compressed image has {said!r} bytes a pixel; RICE knows 1, 2 and 4")


def _check_streams(content: bytes, path: Path) -> None:
    """Refuse HCOMPRESS tiles that say that they are of another size: astropy's decoder writes where that leads it."""
    with quiet(), suppress(KeyError, IndexError):  # no compressed image: astropy says so, too
        table = fits.BinTableHDU.fromstring(content)
        header = table.header
        axes = range(header["ZNAXIS"], 0, -1)
        tiles = [max(1, header.get(f"ZTILE{k}", header["ZNAXIS1"] if k == 1 else 1)) for k in axes]
        starts = [range(0, header[f"ZNAXIS{k}"], tile) for k, tile in zip(axes, tiles, strict=True)]
        if math.prod(-(-start.stop // start.step) for start in starts) != header["NAXIS2"]:
            raise FormatError(f"{path}: a compressed image does not have the tiles that its header names")
        for row, corner in enumerate(itertools.product(*starts)):
            pixels = math.prod(min(t, s.stop - at) for t, s, at in zip(tiles, starts, corner, strict=True))
            stream = table.data["COMPRESSED_DATA"][row].tobytes()
            if stream and (len(stream) < SHORTEST_STREAM or math.prod(struct.unpack(">ii", stream[2:10])) != pixels):
                raise FormatError(f"{path}: tile {row} of a compressed image is damaged")


def _size(card: bytes, path: Path) -> tuple[bytes, int] | None:
    """The name and the number on a card from which the size of an HDU follows, checked to be one that FITS knows.

    Astropy takes such a name whatever its case, also between blanks of any kind, after HIERARCH, and without an equals
    sign, where it makes texts of the number.
    """
    name = card[: KEYWORD + 1].partition(b"=")[0][:KEYWORD].strip(BLANKS).upper()
    if name == b"HIERARCH":
        name = card[KEYWORD:].partition(b"=")[0].strip(BLANKS).upper()
    if not SIZES.fullmatch(name):
        return None
    before, _, after = card.partition(b"=")
    value = after.decode("latin1").partition("/")[0].strip()
    known = value in BITPIX if name == b"BITPIX" else value.isdecimal() and int(value) >= (name == b"GCOUNT")
    if before.rstrip(b" ").upper() != name or not known or (name in COUNTS and int(value) > MOST):
        said = " ".join(card.decode("latin1").partition("/")[0].split())
        raise FormatError(f"{path}: a header says {said}, which cannot be")
    return name, int(value)


def _check_count(hdus: fits.HDUList) -> None:
    """A file of our own says how many extensions it has, so that a missing tail is noticed."""
    expected = hdus[0].header.get("NEXTEND")
    if "PSFMATCH" in hdus[0].header and isinstance(expected, int) and len(hdus) - 1 < expected:
        raise FormatError(f"{hdus.filename()}: {len(hdus) - 1} of {expected} extensions are there; the file is cut off")


def _check_tail(hdus: fits.HDUList, source: BinaryIO) -> None:
    """What stands behind the last HDU may be padding, or a stray newline, but not something lost."""
    last = hdus[-1].fileinfo()
    source.seek(last["datLoc"] + last["datSpan"])
    tail = source.read()
    if tail and (b"XTENSION".startswith(tail[:8]) or (len(tail) >= BLOCK and tail.strip(b"\0 \n"))):
        raise FormatError(f"{hdus.filename()}: HDU {len(hdus)} is cut off or damaged")


def _check_sizes(hdus: fits.HDUList, size: int) -> None:
    """Refuse, before anything is allocated, a header that promises more than the file can hold."""
    for k, hdu in enumerate(hdus):
        claimed = hdu.size if not isinstance(hdu, fits.CompImageHDU) else _bytes(hdu) // LARGEST_TILE_RATIO
        if claimed > size:
            raise FormatError(
                f"{hdus.filename()}: HDU {k} claims {claimed:.3g} bytes of data, the file has {size}; "
                "it is cut off or its header is wrong"
            )


def _bytes(hdu: Any) -> int:
    return int(math.prod(hdu.shape) * abs(int(hdu.header["BITPIX"])) // 8)


def is_image(hdu: Any) -> bool:
    """Whether the HDU holds one two-dimensional image (axes of length 1 in front do not count)."""
    if not isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        return False
    shape = hdu.shape
    return len(shape) >= 2 and all(n == 1 for n in shape[:-2]) and min(shape) > 0


def image_hdus(hdus: fits.HDUList) -> list[Any]:
    """The HDUs that hold a two-dimensional image, in their order."""
    return [hdu for hdu in hdus if is_image(hdu)]


def extension(hdus: fits.HDUList, wanted: str) -> Any:
    """The HDU of this name (``SCI``), name and version (``SCI,2``) or number (``3``).

    Raises
    ------
    FormatError
        If there is none.
    """
    name, _, version = (part.strip() for part in wanted.partition(","))
    try:
        if name.isdigit():
            return hdus[int(name)]
        return hdus[(name, int(version))] if version else hdus[name]
    except (KeyError, IndexError, ValueError) as error:
        have = ", ".join(f"{k} {hdu.name or '(no name)'}" for k, hdu in enumerate(hdus))
        raise FormatError(f"{hdus.filename()}: has no extension {wanted!r}; it has {have}") from error


def plane(hdus: fits.HDUList, hdu: Any) -> NDArray[Any]:
    """The two-dimensional image of an HDU: mapped, as it is in the file, or in the machine's byte order.

    It is mapped where the file is and its pixels need no decoding (compression, scaling, blanks).
    """
    if not is_image(hdu):
        raise FormatError(f"{hdus.filename()}: HDU {hdu.name or hdus.index(hdu)} holds no two-dimensional image")
    data = hdu.data.view(np.memmap) if _is_mapped(hdu.data) else native(hdu.data)
    del hdu.data  # else astropy keeps a copy of its own as long as the file is open
    return data.reshape(data.shape[-2:])


def _is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The array in the machine's byte order (a view where it is so already)."""
    return np.asarray(array).astype(array.dtype.newbyteorder("="), copy=False)


def table_hdu(columns: list[Any], name: str) -> fits.BinTableHDU:
    """A table of these columns; astropy changes the filters of the whole process while it is made."""
    with quiet():
        return fits.BinTableHDU.from_columns(columns, name=name)


def write_hdus(hdus: list[Any], out: IO[bytes]) -> None:
    """With their checksums, which know no time: the same content makes the same file."""
    every = fits.HDUList(hdus)
    every.update_extend()
    if any(isinstance(hdu, fits.CompImageHDU) for hdu in hdus):
        packed = io.BytesIO()
        every.writeto(packed)
        every = fits.open(io.BytesIO(_without_times(packed.getvalue())), memmap=False, disable_image_compression=True)
    for hdu in every:
        hdu.add_checksum(when=SUM)
    every.writeto(out)


def _without_times(packed: bytes) -> bytes:
    """A file of tiles without the time that gzip puts into each: bytes 4 to 8."""
    content = bytearray(packed)
    with fits.open(io.BytesIO(packed), memmap=False, disable_image_compression=True) as hdus:
        for hdu in hdus:
            if hdu.header.get("ZCMPTYPE", "").startswith("GZIP"):
                heap = hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
                for size, offset in hdu.data.view(np.ndarray)["COMPRESSED_DATA"]:
                    if size:
                        content[heap + offset + 4 : heap + offset + 8] = bytes(4)
    return bytes(content)
