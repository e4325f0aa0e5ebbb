"""Changes of files that keep enough of their form to get past the first look.

A FITS file is taken apart into headers and data; its cards, HDUs and numbers are changed, and it is put together again
with the padding that it needs.  Checksums are dropped, since nothing but noise would ever pass them.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["HDU", "MUTATORS", "Mutator", "joined", "taken_apart"]

Mutator = Callable[[bytes, random.Random], bytes]
BLOCK, CARD = 2880, 80
VALUES = (
    "0", "1", "-1", "2", "3", "7", "8", "16", "-32", "-64", "255", "1001", "65536", "1000000000", "2147483648",
    "1000000000000", "9223372036854775807", "9223372036854775808", "0.0", "-0.5", "1.5", "1E-300", "1E+308",
    "1E+999", "NAN", "T", "F", "''", "' '", "'A'", "'../../x'", "'/'", "'.'", "'x[1]'", "'%s'", "(1.0, 2.0)", "",
)  # fmt: skip
NUMBERS = (
    b"\x00" * 8, b"\xff" * 8, b"\x7f\xf0" + b"\x00" * 6, b"\x7f\xf8" + b"\x00" * 6, b"\x7f\x80" + b"\x00" * 6,
    b"\x7f\xc0" + b"\x00" * 6, b"\x80" + b"\x00" * 7, b"\x7f" + b"\xff" * 7, b"\x00\x00\x00\x01" * 2,
    b"\x7f\xe0" + b"\x00" * 6, b"\xbf\xf0" + b"\x00" * 6, b"\x3f\xf0" + b"\x00" * 6,
)  # fmt: skip
WORDS = (
    b"0", b"-1", b"1", b"2", b"1000000000", b"1000000000000000000000", b"1e308", b"1e999", b"NaN", b"nan", b"inf",
    b"-0.5", b"null", b"true", b"[]", b"{}", b'""', b"''", b'"../../x"', b'"/"', b"[[]]", b"none", b"[1, 2]",
    b'"object"', b"'U1000000000'", b"9999-99-99",
)  # fmt: skip
WORLD = (
    ("WCSAXES NAXIS VELREF", "0;1;2;3;4;9;10;99;65535;65536;2147483647;-1"),
    ("CTYPEi", "'RA---TAN';'DEC--TAN';'RA---TPV';'DEC--TPV';'GLON-ZEA';'GLAT-ZEA';'RA---TNX';'DEC--ZPX';'RA---TAN-SIP';"
     "'DEC--TAN-SIP';'HPLN-TSC';'HPLT-CSC';'DEC--BON';'RA---BON';'FREQ';'WAVE-TAB';'CUBEFACE';'STOKES';'RA---HPX';''"),
    ("CRPIXi CRVALi CDELTi CROTAi CDi_j PCi_j CD00i00j PROJPi LONPOLE LATPOLE CPERRi CQERRi AXISCORR",
     "0.;1.;-1.;90.;180.;1E-5;1D2;1E300;1;2"),
    ("PVi_0 PVi_1 PVi_2 PVi_3 PVi_10 PVi_39 PVi_59 PVi_60 PVi_99", "0.;1.;-1E-3;1E300;20.;60"),
    ("PSi_0 PSi_1 PSi_99 CUNITi CNAMEi", "'X';'COORDS';'deg';'Angstrom';'arcsec';'" + 68 * "9" + "'"),
    ("A_ORDER B_ORDER AP_ORDER BP_ORDER", "1;2;3;9;10;99999"),
    ("A_i_j B_i_j AP_i_j BP_i_j A_DMAX", "1E-6;-1E300;0"),
    ("CPDISi CQDISi D2IMDISi", "'Lookup';'TPD';'TPV';'Polynomial'"),
    ("DPi DQi D2IMi", "'NAXES: 2';'NAXES: 65536';'AXIS.1: 1';'AXIS.2: 2';'AXIS.99999: 1';'EXTVER: 1';'OFFSET.1: 3';"
     "'TPD.FWD.1: 1.';'TPD.FWD.99999: 1.';'TPD.REV.2: 1.';'AUX.1.COEFF.1: 1.';'DOCORR: 1';'NTERMS: 9999';'NAUX: 9999'"),
    ("WATi_001 WATi_002 WATj_003",
     "'wtype=tnx axtype=ra lngcor = \"3. 3. 3. 2. -0.05 0.05';'-0.05 0.05 1e-5 2e-4 3e-5 1e-4 2e-5 1e-6\"';"
     "'wtype=zpx projp1=1.0 projp3=337.74';'latcor = \"1. 65536. 65536. 2. 0 1 0 1\"'"),
    ("AMDXi AMDYi CNPIXi PPOi XPIXELSZ YPIXELSZ PLTRAH PLTRAM PLTRAS PLTDECD PLTDECSN PLTSCALE", "0;1.5;'+';'12';T"),
    ("EQUINOX EPOCH MJD-OBS MJDREF OBSGEO-X RESTFRQ ZSOURCE DATE-OBS RADESYS TIMESYS TIMEUNIT SPECSYS WCSNAME",
     "2000.;1950;'J2000';'FK5';'2020-13-45T99:99:99';'UTC';'ICRS'"),
)  # fmt: skip


@dataclass
class HDU:
    """Cards of 80 bytes without END, and data without padding."""

    cards: list[bytes]
    data: bytearray = field(default_factory=bytearray)

    def value(self, key: str) -> str:
        """What stands behind ``KEY     =``."""
        for card in self.cards:
            if card[:8].rstrip() == key.encode() and card[8:10] == b"= ":
                return card[10:].split(b"/")[0].decode("latin1").strip()
        return ""

    def number(self, key: str, default: int = 0) -> int:
        """The same as a number."""
        try:
            return int(self.value(key))
        except ValueError:
            return default


def taken_apart(content: bytes) -> list[HDU]:
    """The HDUs of a file, as far as they can be told apart."""
    hdus, at = [], 0
    while at < len(content):
        cards: list[bytes] = []
        while at + CARD <= len(content) and content[at : at + 8] != b"END     ":
            cards.append(content[at : at + CARD])
            at += CARD
        at = -(-(at + CARD) // BLOCK) * BLOCK
        hdu = HDU(cards)
        pixels = 1 if hdu.number("NAXIS") > 0 else 0
        for axis in range(1, min(hdu.number("NAXIS"), 20) + 1):
            pixels *= hdu.number(f"NAXIS{axis}")
        size = abs(hdu.number("BITPIX", 8)) // 8 * (pixels + hdu.number("PCOUNT"))
        size = min(max(size, 0), len(content))
        hdu.data = bytearray(content[at : at + size])
        at += -(-size // BLOCK) * BLOCK
        hdus.append(hdu)
    return hdus


def joined(hdus: list[HDU]) -> bytes:
    """The file that HDUs make."""
    out = bytearray()
    for hdu in hdus:
        cards = [card for card in hdu.cards if not card.startswith((b"CHECKSUM", b"DATASUM"))]
        header = b"".join(cards) + b"END".ljust(CARD)
        out += header.ljust(-(-len(header) // BLOCK) * BLOCK)
        out += bytes(hdu.data).ljust(-(-len(hdu.data) // BLOCK) * BLOCK, b"\0")
    return bytes(out)


def _card(key: bytes, value: str) -> bytes:
    return (key.ljust(8)[:8] + b"= " + value.rjust(20).encode("latin1")).ljust(CARD)[:CARD]


def _value(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """One card gets another value: any, one near its own, or that of another card."""
    if not hdu.cards:
        return
    at = draw.randrange(len(hdu.cards))
    value, own = draw.choice(VALUES), hdu.cards[at][10:30].split(b"/")[0].strip()
    if draw.random() < 0.4 and own.removeprefix(b"-").isdigit():
        value = str(int(own) + draw.choice((-1, 1, -2, 2, 10)))
    elif draw.random() < 0.2:
        value = draw.choice(draw.choice(hdus).cards or [b""])[10:40].split(b"/")[0].decode("latin1").strip()
    if hdu.cards[at].startswith(b"HIERARCH"):
        name = hdu.cards[at].split(b"=")[0]
        hdu.cards[at] = (name + b"= " + value.encode("latin1")).ljust(CARD)[:CARD]
    else:
        hdu.cards[at] = _card(hdu.cards[at][:8], value)


def _cards(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """A card is lost, doubled, moved, taken over from another HDU, or broken."""
    if not hdu.cards:
        return
    at, way = draw.randrange(len(hdu.cards)), draw.randrange(5)
    if way == 0:
        del hdu.cards[at]
    elif way == 1:
        hdu.cards.insert(at, hdu.cards[draw.randrange(len(hdu.cards))])
    elif way == 2:
        hdu.cards.append(hdu.cards.pop(at))
    elif way == 3 and (other := draw.choice(hdus).cards):
        hdu.cards.append(draw.choice(other))
    else:
        where, byte = draw.randrange(CARD), bytes([draw.randrange(256)])
        hdu.cards[at] = hdu.cards[at][:where] + byte + hdu.cards[at][where + 1 :]


def _numbers(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """Numbers of the data become others: NaN, infinite, zero, huge."""
    width = draw.choice((1, 2, 4, 8))
    for _ in range(draw.choice((1, 1, 2, 8))):
        if len(hdu.data) >= width:
            at = draw.randrange(len(hdu.data) // width) * width
            hdu.data[at : at + width] = draw.choice(NUMBERS)[:width]


def _fill(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """All numbers become one."""
    if hdu.data:
        number = draw.choice(NUMBERS)[: draw.choice((2, 4, 8))]
        hdu.data[:] = (number * (len(hdu.data) // len(number) + 1))[: len(hdu.data)]


def _shape(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """An axis is made shorter, longer, or doubled in number, and the data with it."""
    naxis = hdu.number("NAXIS")
    if not 0 < naxis < 20:
        return
    axis = draw.randrange(naxis) + 1
    old = hdu.number(f"NAXIS{axis}")
    new = draw.choice((0, 1, 2, 3, max(0, old - 1), old + 1, old // 2, 1_000_000_000_000))
    for at, card in enumerate(hdu.cards):
        if card[:8].rstrip() == f"NAXIS{axis}".encode():
            hdu.cards[at] = _card(card[:8], str(new))
    if old > 0 and new < 1_000_000:
        size = len(hdu.data) * new // old
        hdu.data[:] = bytes(hdu.data[:size]).ljust(min(size, 1 << 20), b"\x01")


def _hdus(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """An HDU is lost, doubled, moved, or renamed."""
    way, at = draw.randrange(4), hdus.index(hdu)
    if way == 0 and len(hdus) > 1:
        del hdus[at]
    elif way == 1 and len(hdus) < 60:
        hdus.append(HDU(list(hdu.cards), bytearray(hdu.data)))
    elif way == 2:
        hdus.append(hdus.pop(at))
    else:
        names = [other.value("EXTNAME") for other in hdus if other.value("EXTNAME")] or ["'IMAGE'"]
        hdu.cards = [card for card in hdu.cards if not card.startswith(b"EXTNAME")]
        hdu.cards.append(_card(b"EXTNAME", draw.choice(names)))


def _heading(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """A card that says what the data are."""
    key, value = draw.choice((
        ("BSCALE", "1E+308"), ("BZERO", "1E+308"), ("BSCALE", "0.0"), ("BZERO", "32768"), ("BLANK", "0"),
        ("BUNIT", "'%'"), ("TFORM1", "'1000000000000E'"), ("TFORM1", "'PE(9)'"), ("TFORM1", "'9A'"), ("TFORM1", "'X'"),
        ("TDIM1", "'(0,1)'"), ("TDIM1", "'(99,99,99)'"), ("TSCAL1", "1E+308"), ("TNULL1", "0"), ("THEAP", "9999999"),
        ("PCOUNT", "1000000000000"), ("GCOUNT", "2"), ("TFIELDS", "999"), ("ZTILE1", "1000000000"), ("CRPIX1", "NAN"),
        ("ZNAXIS1", "1000000000000"), ("ZNAXIS2", "3"), ("ZCMPTYPE", "'HCOMPRESS_1'"), ("ZCMPTYPE", "'PLIO_1'"),
        ("ZBITPIX", "16"), ("ZQUANTIZ", "'NO'"), ("GROUPS", "T"), ("EXTVER", "'A'"), ("CTYPE1", "'RA---TAN'"),
        ("CTYPE2", "'DEC--TAN'"), ("CD1_1", "1E+308"), ("LTV1", "1E+308"), ("BOXX0", "-1000000000000"),
        ("MP_BAD", "63"), ("MP_A", "-1"), ("MSKN0099", "'BAD'"), ("CTYPE1", "'RA---TPV'"), ("PV1_99", "1E+308"),
        ("A_ORDER", "9999999"), ("LABELS", "1"), ("NORMALIZ", "'x'"), ("XTENSION", "'TABLE'"), ("INHERIT", "T"),
    ))  # fmt: skip
    hdu.cards = [card for card in hdu.cards if card[:8].rstrip() != key.encode()]
    hdu.cards.append(_card(key.encode(), value))


def _world(hdus: list[HDU], hdu: HDU, draw: random.Random) -> None:
    """Some cards about where the pixels lie: known ones of any axis and version, with fitting values and others."""
    for _ in range(draw.choice((1, 2, 8))):
        names, values = draw.choice(WORLD)
        i, j = draw.choices("1122123459", k=2)
        name = draw.choice(names.split()).replace("i", i).replace("j", j) + draw.choice(("", "", "", "", "A"))
        value = draw.choice(values.split(";") if draw.random() < 0.7 else VALUES)
        hdu.cards.insert(draw.randrange(len(hdu.cards) + 1), _card(name.encode(), value))


FITS_CHANGES = (_value, _value, _value, _cards, _numbers, _numbers, _fill, _shape, _hdus, _heading, _world)


def fits_file(content: bytes, draw: random.Random) -> bytes:
    """A FITS file, plain or gzipped, with one to four changes."""
    packed = content[:2] == b"\x1f\x8b"
    if packed:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return text(content, draw)
    hdus = taken_apart(content)
    if not hdus:
        return text(content, draw)
    for _ in range(draw.choice((1, 1, 2, 4))):
        draw.choice(FITS_CHANGES)(hdus, draw.choice(hdus), draw)
    changed = joined(hdus)
    return gzip.compress(changed, 1) if packed else changed


def text(content: bytes, draw: random.Random) -> bytes:
    """A number, a word or a line of a text becomes another; in the first 64 kB, where binary blocks may follow."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        head, tail = content[: 1 << 16], content[1 << 16 :]
        way = draw.randrange(5)
        if way < 3:
            pattern = (rb"-?\d[\d.eE+-]*", rb"[A-Za-z_][\w.]*", rb"\"[^\"\n]*\"|\[[^\[\]\n]*\]")[way]
            spots = [match.span() for match in re.finditer(pattern, head)]
            if spots:
                start, end = draw.choice(spots)
                other = draw.choice(spots) if draw.random() < 0.3 else None
                head = head[:start] + (head[slice(*other)] if other else draw.choice(WORDS)) + head[end:]
        else:
            lines = head.splitlines(keepends=True)
            at = draw.randrange(len(lines)) if lines else 0
            if way == 3 and lines:
                del lines[at]
            elif lines and len(head) < 1 << 15:
                lines[at:at] = draw.choice(lines), *([b"["] * 5000 if draw.random() < 0.02 else [])
            head = b"".join(lines)
        content = head + tail
    return content


def archive(content: bytes, draw: random.Random) -> bytes:
    """A ZIP archive whose members are changed as texts or by their numbers."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            members = [(info.filename, packed.read(info)) for info in packed.infolist()[:9]]
    except Exception:
        return text(content, draw)
    at = draw.randrange(len(members)) if members else 0
    if members and draw.random() < 0.8:
        members[at] = members[at][0], text(members[at][1], draw)
    elif members:
        del members[at]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, member in members:
            packed.writestr(zipfile.ZipInfo(name), member)
    return out.getvalue()


MUTATORS: dict[str, Mutator] = {"fits": fits_file, "text": text, "zip": archive}
