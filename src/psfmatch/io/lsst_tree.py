"""Files of ``lsst.images`` read without the package: a tree in JSON, and the arrays that it points to.

In FITS the tree stands in the HDU JSON, and ``{"source": "fits:MASK,2"}`` is the HDU of that name and version; in a
``.json`` file arrays are lists.  Every node says of which kind it is by its ``schema_url``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError
from psfmatch.io.fits import native
from psfmatch.io.psf_formats.base import PSFSource

__all__ = ["Tree", "is_tree", "kind_of"]

SCHEMAS = "images.lsst.io/schemas/"
SOURCE = re.compile(r"fits:(?P<name>[^,\[]+)(,(?P<version>\d+))?(\[\d+\])?")

BYTES = re.compile(r"\d*[PQ]?B(\(\d*\))?")


def is_tree(source: PSFSource) -> bool:
    """Whether it is a file of ``lsst.images``, in FITS or JSON."""
    if source.hdus is not None:
        return SCHEMAS in str(source.hdus[0].header.get("DATAMODL", "")) and source.has("JSON")
    return source.head.lstrip().startswith(b"{") and b"schema_version" in source.head


def kind_of(node: Any) -> str:
    """The kind of a node, such as ``visit_image`` or ``piff_psf``; empty where it says none."""
    url = str(node.get("schema_url", "")) if isinstance(node, dict) else ""
    return re.sub(r"-[\d.]+$", "", url.rpartition("/")[2])


class Tree:
    """The tree of a file, and the arrays that it points to.

    Raises
    ------
    FormatError
        If it cannot be read.
    """

    def __init__(self, source: PSFSource) -> None:
        self.path, self.hdus = source.path, source.hdus
        try:
            self.root = json.loads(source.path.read_bytes() if self.hdus is None else self._json(self.hdus))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.path}: its JSON cannot be read: {error}") from error
        if not isinstance(self.root, dict):
            raise FormatError(f"{self.path}: is JSON, but no tree of lsst.images")

    @staticmethod
    def _json(hdus: fits.HDUList) -> bytes:
        column = hdus["JSON"].columns[0]
        if not BYTES.fullmatch(str(column.format)) or column.bscale or column.bzero:
            raise ValueError(f"a column of the format {column.format} in place of bytes")
        found = np.asarray(hdus["JSON"].data[0][0])
        return found.astype(np.uint8).tobytes()

    def array(self, node: Any) -> NDArray[Any]:
        """The array that a node is or points to, in the machine's byte order.

        Raises
        ------
        FormatError
            If it is neither.
        """
        node = node.get("value", node) if isinstance(node, dict) else node
        if not isinstance(node, dict) or not {"data", "source"} & set(node):
            raise FormatError(f"{self.path}: no array where one is expected in its JSON")
        if "data" in node:
            dtype = np.dtype(node.get("datatype", "float64"))
            if dtype.kind not in "biuf":
                raise FormatError(f"{self.path}: an array of {dtype} in its JSON, where numbers are expected")
            return np.array(node["data"], dtype)
        return native(np.asarray(self.hdu(node).data))

    def hdu(self, node: dict[str, Any]) -> Any:
        """The HDU that a node points to."""
        match = SOURCE.fullmatch(str(node.get("source")))
        key = (match["name"], int(match["version"] or 1)) if match else None
        if self.hdus is None or key is None or key not in self.hdus:
            raise FormatError(f"{self.path}: its JSON points to {node.get('source')!r}, which is not in the file")
        return self.hdus[key]

    def column(self, table: dict[str, Any], name: str) -> NDArray[Any]:
        """One column of a table."""
        for column in table.get("columns", ()):
            if column.get("name") == name:
                data = column["data"]
                if "source" in data:
                    return native(np.asarray(self.hdu(data).data[name])).reshape(-1, *data["shape"])
                return self.array(data)
        raise FormatError(f"{self.path}: its JSON has a table without the column {name!r}")
