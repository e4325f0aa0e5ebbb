"""Opening ASDF files that may have been made to do harm: ``open_asdf``.

The package ``asdf`` follows what a file says: it opens other files and addresses, trusts its sizes, and walks through
all of its tree.  What it would follow is looked at here before.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psfmatch.errors import FormatError
from psfmatch.io.files import told
from psfmatch.io.fits import LARGEST_TILE_RATIO

__all__ = ["open_asdf"]

BLOCK_MAGIC = b"\xd3BLK"
TREE_END = re.compile(rb"\n\.\.\.(\r?\n|\Z)")
STREAMED = 1
TRUSTED = ("asdf", "asdf-astropy", "gwcs")
MOST_NODES = 1_000_000
DEEPEST = 200
MOST_DIGITS = 100
MOST_AXES = 64  # of numpy
MOST_NAMES = 10_000  # of inputs and parameters of transforms, each of which becomes an object
MOST_CHARACTERS = 100_000_000  # in a list of texts, of which numpy makes each as long as the longest
LARGEST_TEXT_RATIO = 100  # numbers of an array to the characters that they are read from
LARGE_POWER = re.compile(r"\d{6}")
NUMBERS = re.compile(r"(u?int|float|complex|bool)\d*")
TABLES = ("angles", "coefficients", "lookup_table", "mapper", "matrix", "translation")  # arrays, of transforms
AXES = ("n_dims", "n_inputs", "mapping")  # of transforms
TEXTS = ("ascii", "ucs4")
UNREAD = re.compile("/(fits/fits|transform/fix_inputs)-")  # headers of any NAXIS, and arrays as inputs
COLUMN = {"name", "datatype", "byteorder", "shape"}
TAG = "tag:yaml.org,2002:"


@contextmanager
def open_asdf(path: Path) -> Iterator[Any]:
    """An ASDF file, of which nothing leads elsewhere, or to more than a file of its size can hold.

    Raises
    ------
    FormatError
        If something does, the file cannot be read, or ``asdf`` is not installed.
    """
    try:
        import asdf
    except ImportError as error:
        raise FormatError(f"{path}: is an ASDF file; to read it, pip install asdf asdf-astropy gwcs") from error
    with (
        told(path, what="cannot be read as ASDF"),
        warnings.catch_warnings(action="ignore", category=asdf.exceptions.AsdfWarning),
        asdf.config_context() as config,
    ):
        for extension in config.extensions:
            if extension.package_name not in TRUSTED:
                config.remove_extension(extension)
        with open(path, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
            first, unpacked = _check_blocks(path, content)
            _check_tree(path, _tree(path, content), unpacked)
        with _Unindexed(path, first) as ended, asdf.open(ended, mode="r", ignore_unrecognized_tag=True) as file:
            yield file


class _Unindexed(io.FileIO):
    """A file that ends before its blocks, for what looks for an index of them from its end: it may lead anywhere."""

    def __init__(self, path: Path, end: int) -> None:
        super().__init__(path)
        self._end = end

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return super().seek(*((self._end + offset, os.SEEK_SET) if whence == os.SEEK_END else (offset, whence)))


def _check_blocks(path: Path, content: mmap.mmap) -> tuple[int, int]:
    """Where the first block begins, and the size of all unpacked; refuse what a file of this size cannot hold."""
    size = len(content)
    first = at = content.find(BLOCK_MAGIC)
    total = 0
    while at >= 0 and content[at : at + 4] == BLOCK_MAGIC:
        header, flags, _, allocated, used, unpacked = struct.unpack(">HI4sQQQ", content[at + 4 : at + 38])
        at += 6 + header
        if flags & STREAMED:
            return first, total + size - at
        if used > allocated or allocated > size - at:
            raise FormatError(f"{path}: is cut off: a block of {max(used, allocated)} bytes begins at {at} of {size}")
        at, total = at + allocated, total + unpacked
        if total > LARGEST_TILE_RATIO * size:
            raise FormatError(f"{path}: its blocks claim {total:.3g} bytes of data, the file has {size}")
    return (size if first < 0 else first), total


def _tree(path: Path, content: mmap.mmap) -> bytes:
    """The text from %YAML to the first line that begins with three dots.

    They must be all of that line: asdf, which reads in parts, takes them for the end wherever a part ends with them.
    """
    start = content.find(b"%YAML")
    if start < 0:
        return b""
    end = TREE_END.match(content, content.find(b"\n...", start))
    if end is None:
        raise FormatError(f"{path}: its tree does not end in a line of three dots alone; write it anew")
    return content[start : end.end()]


def _check_tree(path: Path, text: bytes, unpacked: int) -> None:
    import yaml  # asdf needs it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or number > MOST_NODES:
            raise FormatError(f"{path}: its tree has more than {MOST_NODES} nodes, or {DEEPEST} one in another")
    root = yaml.compose(text, Loader=loader)
    if _count(root, {}) > MOST_NODES:
        raise FormatError(f"{path}: its tree has more than {MOST_NODES} nodes")
    claimed = names = items = longest = 0
    for node in _nodes(root):
        _check_node(path, node)
        claimed += _elements(path, node, unpacked) if _is(node, "ndarray-") else 0
        names += _names(path, node, unpacked) if _is(node, "transform/") else 0
        lengths = [len(one.value) for one in node.value if one.id == "scalar"] if node.id == "sequence" else []
        items, longest = items + len(lengths), max([longest, *lengths])
    if claimed > unpacked + LARGEST_TEXT_RATIO * len(text):
        raise FormatError(f"{path}: its arrays claim {claimed:.3g} elements, the file has no place for them")
    if names > MOST_NAMES:
        raise FormatError(f"{path}: its transforms have {names:.3g} inputs and coefficients")
    if items * longest > MOST_CHARACTERS:
        raise FormatError(f"{path}: its lists hold {items} items, and a text of {longest} characters")


def _count(node: Any, known: dict[int, int]) -> int:
    """The number of nodes of a tree, shared ones each time."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # of one that holds itself
        known[id(node)] = 1 + sum(_count(one, known) for one in _children(node))
    return known[id(node)]


def _nodes(root: Any) -> Iterator[Any]:
    """All nodes of a tree, shared ones each time."""
    left = [] if root is None else [root]
    while left:
        node = left.pop()
        yield node
        left += _children(node)


def _children(node: Any) -> list[Any]:
    if node.id == "mapping":
        return [one for pair in node.value for one in pair]
    return node.value if node.id == "sequence" else []


def _is(node: Any, kind: str) -> bool:
    """Whether a node is a mapping that asdf makes something of."""
    return node.id == "mapping" and f"/{kind}" in node.tag


def _check_node(path: Path, node: Any) -> None:
    """Refuse what leads elsewhere, and keys that could hide it."""
    if UNREAD.search(node.tag):
        raise FormatError(f"{path}: {node.tag!r} is not read; write the tree without it")
    if node.id == "scalar":
        _check_scalar(path, node)
    for key, value in node.value if node.id == "mapping" else []:
        if key.tag != f"{TAG}str":  # others merge, or are texts only to asdf; numbers can be made to collide
            raise FormatError(f"{path}: a key {_said(key)} is not read; write a text")
        if key.value == "$ref":
            raise FormatError(f"{path}: points to {_said(value)}; only what is in the file itself is read")
        if key.value == "unit":
            _check_unit(path, value)
        if _is(node, "quantity-"):
            _check_quantity(path, key.value, value)


def _check_scalar(path: Path, node: Any) -> None:
    if node.tag == f"{TAG}int" and len(node.value) > MOST_DIGITS:
        raise FormatError(f"{path}: holds an integer of {len(node.value)} digits")
    if "/unit" in node.tag:
        _check_unit(path, node)


def _check_unit(path: Path, node: Any) -> None:
    if node.id == "scalar" and LARGE_POWER.search(node.value):
        raise FormatError(f"{path}: {_said(node)} is no unit")


def _check_quantity(path: Path, key: Any, node: Any) -> None:
    if key == "datatype" and not (node.id == "scalar" and NUMBERS.fullmatch(node.value)):
        raise FormatError(f"{path}: a quantity of type {_said(node)} is not read; give a type of numbers")
    if key == "value" and node.tag not in (f"{TAG}int", f"{TAG}float"):
        _check_unit(path, node)  # which a text may hold


def _names(path: Path, node: Any, unpacked: int) -> int:
    """The number of inputs and coefficients of a transform; refuse parameters that are spread over each other."""
    said = {key.value: value for key, value in node.value}
    spread = [name for name, value in said.items() if name not in TABLES and _is_spread(value)]
    if spread:
        raise FormatError(f"{path}: a transform has an array as {spread[0]}; give a number")
    axes = sum(abs(number) for name in AXES for number in _integers(path, said.get(name)))
    values = said.get("coefficients")
    if values is not None and _is(values, "ndarray-"):
        return axes + _elements(path, values, unpacked)
    return axes + len(_leaves(path, values))


def _is_spread(node: Any) -> bool:
    """Whether a node is an array, or a quantity of more than a number."""
    return (_is(node, "ndarray-") or _is(node, "quantity-")) and any(one.id != "scalar" for one in _children(node))


def _elements(path: Path, node: Any, unpacked: int) -> int:
    """The number of elements of an array; one of unknown length may have all bytes that there are."""
    said = _once(path, node)
    for name, kind in {"source": "int", "data": "seq"}.items():
        if name in said and said[name].tag != TAG + kind:
            raise FormatError(f"{path}: points to {_said(said[name])}; only what is in the file itself is read")
    for name in ("strides", "offset"):
        _integers(path, said.get(name))
    each = _numbers(path, said.get("datatype"))
    if "data" in said:
        return each * len(_leaves(path, said["data"]))
    if all(one.value != "*" for one in _leaves(path, said.get("shape"))):
        return each * _product(path, said.get("shape"))
    if "strides" in said:
        raise FormatError(f"{path}: an array of unknown shape has strides; give its shape")
    return unpacked


def _numbers(path: Path, node: Any) -> int:
    """Of an element of a type: the characters of a text, or the numbers of all columns."""
    if node is None or node.id == "scalar":
        return 1
    if node.id == "mapping":
        said = _once(path, node)
        if not COLUMN.issuperset(said):
            raise FormatError(f"{path}: a column has more than {', '.join(sorted(COLUMN))}; write it without")
        return _product(path, said.get("shape")) * _numbers(path, said.get("datatype"))
    if node.value and node.value[0].value in TEXTS:
        return math.prod(_product(path, one) for one in node.value[1:])
    return sum(_numbers(path, one) for one in node.value)


def _once(path: Path, node: Any) -> dict[str, Any]:
    """What is said of an array, or of a column of one."""
    said = {key.value: value for key, value in node.value if key.id == "scalar"}
    if len(said) < len(node.value):
        raise FormatError(f"{path}: an array says something twice")
    return said


def _product(path: Path, node: Any) -> int:
    """The number of elements of a shape."""
    axes = _integers(path, node)
    if len(axes) > MOST_AXES:
        raise FormatError(f"{path}: an array has {len(axes)} axes; numpy has {MOST_AXES} at most")
    return math.prod(max(1, abs(number)) for number in axes)


def _integers(path: Path, node: Any) -> list[int]:
    leaves = _leaves(path, node)
    for one in leaves:
        if one.tag != f"{TAG}int":
            raise FormatError(f"{path}: {_said(one)} is not read where an integer is due; write it as one")
    return [int(one.value, 0) for one in leaves]


def _leaves(path: Path, node: Any) -> list[Any]:
    """The scalars of lists, or of none."""
    if node is None or node.id == "scalar":
        return [] if node is None else [node]
    if node.tag != f"{TAG}seq":
        raise FormatError(f"{path}: {_said(node)} is not read in an array; write plain lists")
    return [leaf for one in node.value for leaf in _leaves(path, one)]


def _said(node: Any) -> str:
    return repr(node.value[:200]) if node.id == "scalar" else f"a {node.id} {node.tag!r}"
