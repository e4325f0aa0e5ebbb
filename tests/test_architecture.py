"""Nothing below knows what stands above it."""

import ast
import pickle
import pydoc
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
    ("display",),
    ("target", "plots"),
    ("match", "inspection", "check"),
    ("solve", "convolve", "warp", "noise", "io"),
    ("quality", "stars"),
    ("cells", "regions"),
    ("exposure", "stamps", "correlation"),
    ("models",),
    ("psf", "kernel", "wings", "stamp_noise"),
    ("fields", "moments", "prepare", "nddata", "wcs", "notebook"),
    ("geometry", "errors", "machine", "provenance"),
)
# geometry raises the errors of errors, which imports nothing
ALLOWED = {("geometry", "errors")}
HEIGHT = {room: len(ROWS) - k for k, row in enumerate(ROWS) for room in row}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py" and path != PACKAGE / "__init__.py")
HEAVY = (
    "numpy", "scipy", "astropy", "threadpoolctl",
    "matplotlib", "dask", "reproject", "photutils", "lsst", "piff", "galsim", "rich",
)  # fmt: skip


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
    assert wrong("io", imports("from psfmatch import noise")) == {"noise"}
    assert not wrong("cells", imports("if TYPE_CHECKING:\n    from psfmatch.match import Matched"))


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    ["import psfmatch", "from psfmatch.cli import main; main(['--help'], standalone_mode=False)"],
    ids=["import", "--help"],
)
def test_start_is_light(code):
    assert run(f"{code}\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])").splitlines()[-1] == "[]"


def test_optional_packages_wait_for_their_use():
    loaded = "[m for m in ('matplotlib', 'dask', 'reproject', 'photutils', 'lsst', 'rich') if m in sys.modules]"
    assert run(f"from psfmatch import *\nimport sys; print({loaded})").strip() == "[]"


def test_names_are_listed_alike():
    """For the type checker, for ``import *``, and for what loads them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert [(f"psfmatch.{room}", names.split()) for room, names in psfmatch._NAMES.items()] == [
        (node.module, [name.name for name in node.names]) for node in block.body
    ]
    assert set(psfmatch._ROOMS) == set(psfmatch.__all__) <= set(dir(psfmatch))


def test_functions_stay_functions_whatever_is_imported_first():
    """Four of them have the name of their module, which Python binds to the package once it is loaded."""
    code = """
import sys, psfmatch, importlib
for first in {modules!r}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "psfmatch"]:
        del sys.modules[name]
    importlib.import_module(first)
    import psfmatch
    for name in ("match", "convolve", "warp", "check"):
        importlib.import_module("psfmatch." + name)
        function = getattr(psfmatch, name)
        assert function is getattr(sys.modules["psfmatch." + name], name), first
        assert callable(function), first
"""
    modules = [
        ".".join(("psfmatch", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.parts[-2:] != ("lsst", "pipeline.py")  # what it needs is not there on all versions of Python
    ]
    run(code.format(modules=modules))


def test_names_behave_as_if_loaded_at_once():
    names = {}
    exec("from psfmatch import *", names)
    assert set(psfmatch.__all__) <= set(names)
    assert pickle.loads(pickle.dumps(psfmatch.match)) is psfmatch.match is names["match"]
    assert "measure_quality" in pydoc.plain(pydoc.render_doc(psfmatch))
    with pytest.raises(AttributeError, match="no attribute 'mathc'"):
        psfmatch.mathc  # noqa: B018
