"""The options of a class or function: its fields or parameters, explained by its own docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["REQUIRED", "Option", "is_record", "object_of", "options_of", "words_of"]

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """Something that can be set from a file or the command line.

    Parameters
    ----------
    name : str
        As in Python.
    hint : type
        What it takes.
    default : object
        `REQUIRED` if there is none.
    text : str
        The docstring's explanation, in one line.
    """

    name: str
    hint: Any
    default: Any
    text: str


def object_of(name: str) -> Callable[..., Any]:
    """The public class or function of this name (``Grid.auto``: a method of one)."""
    import psfmatch

    found: Callable[..., Any] = attrgetter(name)(psfmatch)
    return found


def is_record(hint: Any) -> bool:
    """Whether it is a dataclass or a named tuple."""
    return dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")


def options_of(owner: Callable[..., Any]) -> list[Option]:
    """The fields of a dataclass or named tuple, or the parameters of a function, that text can say."""
    texts = dict(_documented(owner))
    hints = get_type_hints(owner)
    return [
        Option(name, hints[name], default, _text(texts, name))
        for name, default in _defaults(owner).items()
        if _sayable(hints[name])
    ]


def words_of(hint: Any) -> str:
    """A type as a person would say it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words_of(option) for option in inner if _sayable(option))
    if origin is Literal:
        return " or ".join(str(option) for option in inner)
    if origin is tuple:
        return f"[{', '.join('...' if kind is Ellipsis else words_of(kind) for kind in inner)}]"
    if is_record(hint):
        return f"table of {', '.join(option.name for option in options_of(hint))}"
    simple = {int: "integer", float: "number", bool: "true or false", str: "text", types.NoneType: "none"}
    return simple.get(hint) or str(getattr(hint, "__name__", hint))


def _defaults(owner: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(owner):
        missing = dataclasses.MISSING
        return {
            f.name: f.default if f.default is not missing else REQUIRED if f.default_factory is missing
            else f.default_factory()
            for f in dataclasses.fields(owner) if f.init
        }  # fmt: skip
    if hasattr(owner, "_fields"):
        return {name: owner._field_defaults.get(name, REQUIRED) for name in owner._fields}
    return {name: parameter.default for name, parameter in inspect.signature(owner).parameters.items()}


def _sayable(hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_sayable(option) for option in inner if option is not types.NoneType)
    if origin is tuple:
        return all(kind is Ellipsis or _sayable(kind) for kind in inner)
    if is_record(hint):
        return not inspect.isabstract(hint) and any(_sayable(kind) for kind in get_type_hints(hint).values())
    return origin is Literal or hint in (int, float, bool, str, types.NoneType)


def _text(texts: dict[str, str], name: str) -> str:
    """The explanation; where it only refers to another option, or to a class, the one there."""
    text = texts.get(name, "")
    elsewhere = re.fullmatch(r"See `(\w+)`\.", text)
    if elsewhere is None:
        return text
    if elsewhere[1] in texts:
        return _text(texts, elsewhere[1])
    return _text(dict(_documented(object_of(elsewhere[1]))), name)


def _documented(owner: Any) -> Iterator[tuple[str, str]]:
    """Names and explanations of the sections Parameters (numpydoc) of a function, or of a class and what it is of."""
    for cls in reversed(getattr(owner, "__mro__", (owner,))):
        text = inspect.cleandoc(cls.__doc__ or "")
        section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n\S[^\n]*\n-+\n|\Z)", text, re.M | re.S)
        for entry in re.split(r"\n(?=\S)", section[1]) if section else ():
            head, _, body = entry.partition("\n")
            for name in head.partition(" :")[0].split(", "):
                yield name, re.sub(r"``", "`", " ".join(body.split()))
