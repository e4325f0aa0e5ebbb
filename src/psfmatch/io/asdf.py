"""Opening ASDF files that may have been made to do harm: ``open_asdf``.

The package ``asdf`` follows what a file says: it opens other files and addresses, trusts its sizes, and walks through
all of its tree.  What it would follow is looked at here before.
"""

from __future__ import annotations

import io
import itertools
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
TREE = re.compile(rb"%YAML.*?\n\.\.\.(\r?\n|\Z)", re.DOTALL)
STREAMED = 1
TRUSTED = ("asdf", "asdf-astropy", "gwcs")
MOST_NODES = 1_000_000
DEEPEST = 200
MOST_DIGITS = 100
MOST_AXES = 64  # of numpy
LARGE_POWER = re.compile(r"\d{6}")
AXES = ("n_dims", "n_inputs", "mapping")  # of transforms; a model keeps a name for each
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
            first, largest = _check_blocks(path, content)
            tree = TREE.search(content)
            _check_tree(path, b"" if tree is None else tree[0], largest)
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
    """Where the first block begins, and the size of the largest; refuse what a file of this size cannot hold."""
    size = len(content)
    first = at = content.find(BLOCK_MAGIC)
    largest = 0
    while at >= 0 and content[at : at + 4] == BLOCK_MAGIC:
        header, flags, _, allocated, used, unpacked = struct.unpack(">HI4sQQQ", content[at + 4 : at + 38])
        at += 6 + header
        if flags & STREAMED:
            return first, max(largest, size - at)
        if used > allocated or allocated > size - at:
            raise FormatError(f"{path}: is cut off: a block of {max(used, allocated)} bytes begins at {at} of {size}")
        if unpacked > LARGEST_TILE_RATIO * size:
            raise FormatError(f"{path}: a block claims {unpacked:.3g} bytes of data, the file has {size}")
        at, largest = at + allocated, max(largest, unpacked)
    return (size if first < 0 else first), largest


def _check_tree(path: Path, text: bytes, largest: int) -> None:
    import yaml  # asdf needs it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or number > MOST_NODES:
            raise FormatError(f"{path}: its tree has more than {MOST_NODES} nodes, or {DEEPEST} one in another")
    _check_node(path, yaml.compose(text, Loader=loader), {}, largest, LARGEST_TILE_RATIO * len(text))


def _check_node(path: Path, node: Any, known: dict[int, int], largest: int, inline: int) -> int:
    """The number of nodes of a tree, shared ones each time."""
    if id(node) in known or node is None:
        return known.get(id(node), 1)
    known[id(node)] = MOST_NODES  # of one that holds itself
    count = 1
    if isinstance(node.value, str):
        _check_scalar(path, node)
    elif node.id == "sequence":
        count += sum(_check_node(path, one, known, largest, inline) for one in node.value)
    else:
        for key, value in node.value:
            _check_pair(path, node, key, value)
            count += sum(_check_node(path, one, known, largest, inline) for one in (key, value))
            count += sum(_numbers(value)) if key.value in AXES else 0
        if "/ndarray-" in node.tag:
            _check_array(path, node.value, largest, inline)
    if count > MOST_NODES:
        raise FormatError(f"{path}: its tree has more than {MOST_NODES} nodes")
    known[id(node)] = count
    return count


def _check_scalar(path: Path, node: Any) -> None:
    if node.tag == f"{TAG}int" and len(node.value) > MOST_DIGITS:
        raise FormatError(f"{path}: holds an integer of {len(node.value)} digits")
    if "/unit" in node.tag and LARGE_POWER.search(node.value):
        raise FormatError(f"{path}: {node.value[:MOST_DIGITS]!r} is no unit")


def _check_pair(path: Path, node: Any, key: Any, value: Any) -> None:
    """Refuse what asdf would fetch from elsewhere, and merged mappings, which could hide it."""
    array = "/ndarray-" in node.tag
    if key.tag == f"{TAG}merge" or (array and key.tag != f"{TAG}str"):
        raise FormatError(f"{path}: a key {key.value!r} is not read; write the tree without it")
    kind = {"source": "int", "data": "seq"}.get(key.value) if array else None
    if key.value == "$ref" or (kind is not None and value.tag != TAG + kind):
        raise FormatError(f"{path}: points to {str(value.value)[:200]!r}; only what is in the file itself is read")
    if key.value == "unit" and isinstance(value.value, str) and LARGE_POWER.search(value.value):
        raise FormatError(f"{path}: {value.value[:MOST_DIGITS]!r} is no unit")


def _check_array(path: Path, pairs: list[tuple[Any, Any]], largest: int, inline: int) -> None:
    """Refuse more elements than there are bytes, which strides and long texts make possible."""
    node = {key.value: value for key, value in pairs}
    if len(node) < len(pairs):
        raise FormatError(f"{path}: an array says something twice")
    size = math.prod(_product(node[name]) for name in ("shape", "datatype") if name in node)
    if size > (largest if "source" in node else inline):
        raise FormatError(f"{path}: an array claims {size:.3g} elements, the file has no place for them")
    if "strides" in node and "*" in [one.value for one in node["shape"].value]:
        raise FormatError(f"{path}: an array of unknown shape has strides; give its shape")


def _product(node: Any) -> int:
    """Of the axes of a shape or the length of a text; of a table's columns, the sum of theirs."""
    if node.id == "sequence" and any(one.id == "mapping" for one in node.value):
        return sum(_product(one) for one in node.value)
    return math.prod(max(1, abs(number)) for number in itertools.islice(_numbers(node), MOST_AXES))


def _numbers(node: Any) -> Iterator[int]:
    """The integers of a node."""
    if node.id == "sequence":
        for one in node.value:
            yield from _numbers(one)
    elif node.id == "mapping":
        for _, one in node.value:
            yield from _numbers(one)
    elif node.tag == f"{TAG}int":
        yield int(node.value, 0)
