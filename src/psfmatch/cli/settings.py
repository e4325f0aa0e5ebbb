"""Options of solvers and convolvers from the command line and from TOML: the fields of the classes, by their names."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

__all__ = ["CLASSES", "FORMAT_HELP", "build", "config_option", "mask_planes_option", "set_option"]

# The first of each is the one whose options are meant when no class is named.
CLASSES: Mapping[str, Mapping[str, str]] = {
    "solver": {"free-form": "FreeForm", "alard-lupton": "AlardLupton", "fourier": "Fourier"},
    "convolver": {"fft": "FFT", "direct": "Direct"},
}

FORMAT_HELP = (
    "The frame's format, where the file's content misleads: rubin, lsst-images, decam, des, hst, jwst, roman, sdss, "
    "casu, legacypipe, ccddata, generic; or plain (the first image, and nothing beside it)."
)
mask_planes_option = click.option(
    "--mask-planes",
    metavar="TABLE",
    help="What the values of the mask mean, where the file does not say: a known convention (decam, des, jwst, hst, "
    'plain ...), or a TOML file with kind = "bits" (or "codes") and a table [planes] such as 0 = "BAD".',
)

set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PART.OPTION=VALUE",
    help="Set an option of the solver or the convolver (solver.order=2, convolver.edge=nan), or choose one by its "
    "name (convolver=direct).  Can be repeated.  A wrong option lists the right ones.",
)


def config_option(*names: str) -> Any:
    """``--config FILE.toml``: gives the verb's own options of these names, and the tables [solver] and [convolver]."""

    def read(context: click.Context, _: click.Parameter, path: Path | None) -> dict[str, dict[str, Any]]:
        if path is None:
            return {}
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise click.BadParameter(f"{path}: {error}", context) from error
        tables = {part: values.pop(part, {}) for part in CLASSES}
        for part, table in tables.items():
            if not isinstance(table, dict):
                raise click.BadParameter(f"{path}: {part} must be a table, [{part}]", context)
        values = {name.replace("-", "_"): value for name, value in values.items()}
        for name in values:
            if name not in names:
                known = ", ".join((*(f"[{part}]" for part in CLASSES), *names))
                raise click.BadParameter(
                    f"{path}: no option {name!r}{_did_you_mean(name, names)}; there are {known}", context
                )
        # click knows this option by the name of its variable
        context.default_map = {"format_" if name == "format" else name: value for name, value in values.items()}
        return tables

    return click.option(
        "--config",
        metavar="FILE.toml",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        callback=read,
        help="Read options from a TOML file: those of this command by their names, and the tables [solver] and "
        "[convolver] (key `name` chooses the class).  The command line wins.",
    )


def build(config: Mapping[str, Mapping[str, Any]], settings: Sequence[str]) -> dict[str, Any]:
    """The solver and convolver that a TOML file and ``--set`` ask for; None for a part that neither mentions."""
    chosen: dict[str, dict[str, Any]] = {part: dict(config.get(part, {})) for part in CLASSES}
    for setting in settings:
        key, equals, text = setting.partition("=")
        part, *path = key.strip().split(".")
        if not equals or part not in CLASSES or "" in path:
            raise click.UsageError(
                f"--set {setting}: give PART.OPTION=VALUE with PART one of {', '.join(CLASSES)}, such as solver.order=2"
            )
        table = chosen[part]
        for name in path[:-1]:
            table[name] = dict(table[name]) if isinstance(table.get(name), dict) else {}
            table = table[name]
        table[path[-1] if path else "name"] = _Text(text.strip())
    return {part: _part(part, options) if options else None for part, options in chosen.items()}


def _part(part: str, options: dict[str, Any]) -> Any:
    """The solver or convolver with these options."""
    import psfmatch

    names = CLASSES[part]
    wanted = str(options.pop("name", next(iter(names))))
    if wanted not in names:
        raise click.UsageError(f"no {part} {wanted!r}{_did_you_mean(wanted, names)}; there are {', '.join(names)}")
    return _instance(getattr(psfmatch, names[wanted]), options, part)


def _instance(cls: type, options: Mapping[str, Any], path: str) -> Any:
    """The frozen dataclass (or named tuple) with these fields; ``path`` is what a person calls it."""
    hints = get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.init] if dataclasses.is_dataclass(cls) else list(hints)
    values = {}
    for name, value in options.items():
        if name not in names:
            listing = "".join(f"\n  {path}.{known}  ({_words(hints[known])})" for known in names)
            raise click.UsageError(
                f"{cls.__name__} has no option {name!r}{_did_you_mean(name, names)}; it has{listing}"
            )
        try:
            values[name] = _cast(value, hints[name], f"{path}.{name}")
        except TypeError:
            raise click.UsageError(f"{path}.{name}={value}: it takes {_words(hints[name])}") from None
    try:
        return cls(**values)
    except TypeError as error:
        raise click.UsageError(f"{path}: {error}") from error


class _Text(str):
    """A value as it was typed: a TOML value where the option takes one, else a string (edge=nan is not a number)."""


def _cast(value: Any, hint: Any, path: str) -> Any:
    """The value as a field of this type takes it.

    Raises
    ------
    TypeError
        If it cannot be one.
    """
    if isinstance(value, _Text):
        try:
            return _cast(tomllib.loads(f"value = {value}")["value"], hint, path)
        except (tomllib.TOMLDecodeError, TypeError):
            return _cast(str(value), hint, path)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in inner:
            try:
                return _cast(value, option, path)
            except TypeError:
                continue
    elif origin is Literal:
        if value in inner:
            return value
    elif hint is types.NoneType:
        if value == "none":
            return None
    elif origin is tuple:
        items = value if isinstance(value, list) else [value]
        kinds = [inner[0]] * len(items) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) == len(items):
            return tuple(_cast(item, kind, path) for item, kind in zip(items, kinds, strict=True))
    elif dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        if isinstance(value, dict):
            return _instance(hint, value, path)
    elif hint is float and type(value) is int:
        return float(value)
    elif hint is Any or type(value) is hint:
        return value
    raise TypeError


def _words(hint: Any) -> str:
    """A type as a person would say it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(option) for option in inner)
    if origin is Literal:
        return " or ".join(str(option) for option in inner)
    if origin is tuple:
        return f"[{', '.join('...' if kind is Ellipsis else _words(kind) for kind in inner)}]"
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        return f"table of {', '.join(get_type_hints(hint))}"
    simple = {int: "integer", float: "number", bool: "true or false", str: "text", types.NoneType: "none"}
    return simple.get(hint) or str(getattr(hint, "__name__", hint))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
