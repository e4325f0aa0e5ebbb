"""Nothing below knows what stands above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import psfmatch

PACKAGE = Path(psfmatch.__file__).parent
# From the top down; the rooms of one row do not import each other.
ROWS = (
    ("cli",),
    ("report", "coadd", "lsst"),
    ("target",),
    ("match",),
    ("solve", "convolve", "warp", "noise", "io", "plots"),
    ("quality", "stars"),
    ("cells",),
    ("exposure",),
    ("psf", "kernel", "wings", "stamp_noise"),
    ("fields", "moments", "prepare"),
    ("geometry", "errors"),
)
# geometry raises the errors of errors, which imports nothing
ALLOWED = {("geometry", "errors")}
HEIGHT = {room: len(ROWS) - k for k, row in enumerate(ROWS) for room in row}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
HEAVY = ("matplotlib", "dask", "reproject", "photutils", "lsst", "piff", "galsim", "rich")


def imports(source: str) -> set[str]:
    """The rooms that a file imports while it is loaded or run; what only a type checker sees does not count."""
    rooms = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            parts = [node.module] if node.module != "psfmatch" else [f"psfmatch.{name.name}" for name in node.names]
            rooms |= {part.split(".")[1] for part in parts if part.startswith("psfmatch.")}
        if isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("psfmatch.")}
    return {room for room in rooms if room in HEIGHT}


def wrong(room: str, imported: set[str]) -> set[str]:
    return {other for other in imported - {room} if HEIGHT[other] >= HEIGHT[room] and (room, other) not in ALLOWED}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in HEIGHT, f"{room} has no row; give it one here and in the design"
    assert not wrong(room, imports(path.read_text(encoding="utf-8")))


def test_the_rule_can_be_broken():
    assert wrong("kernel", imports("from psfmatch.psf import odd_shape")) == {"psf"}
    assert wrong("solve", imports("def f():\n    import psfmatch.match")) == {"match"}
    assert wrong("io", imports("from psfmatch import plots")) == {"plots"}
    assert not wrong("cells", imports("if TYPE_CHECKING:\n    from psfmatch.match import Matched"))


@pytest.mark.parametrize("module", ["psfmatch", "psfmatch.cli"])
def test_import_is_light(module):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
