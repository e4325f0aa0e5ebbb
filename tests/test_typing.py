"""The public names have types, and docstrings that say what they take, give and raise."""

import contextlib
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import psfmatch
import psfmatch.io

HERE = Path(__file__).parent
SOURCE = Path(psfmatch.__file__).parents[1]
# What numpydoc checks of every public function and class; of their methods, what they say must be right.
DESCRIBED = {
    "PR01", "PR02", "PR03", "PR04", "PR07",  # every parameter, none other, in order, with type and description
    "RT01", "RT02", "RT03", "YD01",  # what is returned or yielded, and what it is
    "GL07", "RT04", "GL03",  # sections in order, sentences with capitals, single blank lines
}  # fmt: skip
METHODS = {"PR02", "PR03", "PR04", "PR07", "RT02", "RT03", "GL07"}


def public():
    """Module and name of all public functions and classes."""
    modules = [psfmatch, psfmatch.io]
    with contextlib.suppress(ImportError):
        modules.append(importlib.import_module("psfmatch.lsst"))
    names = {(module.__name__, name) for module in modules for name in module.__all__}
    names -= {("psfmatch.io", name) for name in psfmatch.__all__}
    return sorted(names - {("psfmatch", "MASK_PLANES")})


def validated(thing):
    docscrape, validate = (importlib.import_module(f"numpydoc.{name}") for name in ("docscrape", "validate"))
    return dict(validate.validate(docscrape.get_doc_object(thing))["errors"])


def exempt(thing):
    """Configurations (every field has a ``doc``), protocols, enumerations and plain errors are not called with
    parameters of their own; keywords have no order.
    """
    if not inspect.isclass(thing):
        return set()
    fields_elsewhere = hasattr(thing, "_fields") and not issubclass(thing, tuple)
    if fields_elsewhere or getattr(thing, "_is_protocol", False) or issubclass(thing, (Enum, Exception)):
        return {"PR01"}
    keywords = dataclasses.is_dataclass(thing) and all(field.kw_only for field in dataclasses.fields(thing))
    return {"PR03"} if keywords else set()


@pytest.mark.parametrize(("module", "name"), public())
def test_docstrings_are_complete(module, name):
    pytest.importorskip("numpydoc")
    thing = getattr(importlib.import_module(module), name)
    wrong = {code: text for code, text in validated(thing).items() if code in DESCRIBED - exempt(thing)}
    assert not wrong
    for attribute, value in vars(thing).items() if inspect.isclass(thing) else ():
        method = getattr(value, "__func__", value)
        if attribute.startswith("_") or not (inspect.isfunction(method) or isinstance(method, property)):
            continue
        assert inspect.getdoc(getattr(thing, attribute)), attribute
        if method.__doc__ and inspect.isfunction(method):
            assert not {c: t for c, t in validated(method).items() if c in METHODS}, attribute


def test_the_check_finds_what_is_missing():
    pytest.importorskip("numpydoc")

    def area(width: float, height: float) -> float:
        """Area of a rectangle.

        Parameters
        ----------
        width
            In pixels.
        """
        return width * height

    assert {"PR01", "PR04", "RT01"} <= set(validated(area))


def test_every_module_is_marked_as_typed():
    assert (Path(psfmatch.__file__).parent / "py.typed").exists()


@pytest.mark.slow
def test_a_typed_program(tmp_path):
    """`mypy --strict` over a program: every type is the very one, and every wrong call is found."""
    pytest.importorskip("mypy")
    path = {} if SOURCE.name == "site-packages" else {"MYPYPATH": str(SOURCE)}  # mypy finds what is installed there
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(HERE / "typed_client.py")],
        cwd=tmp_path, env={**os.environ, **path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
