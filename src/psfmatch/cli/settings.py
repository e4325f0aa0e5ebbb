"""Options of solvers, convolvers and so on from the command line and from TOML: the names are those of Python."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from psfmatch.cli.options import REQUIRED, is_record, object_of, options_of, words_of

__all__ = ["CLASSES", "FORMAT_HELP", "build", "config_option", "given", "mask_planes_option", "set_option"]

Verb = TypeVar("Verb", bound=Callable[..., Any])

# The first of each is the one whose options are meant when no class is named.
CLASSES: Mapping[str, Mapping[str, str]] = {
    "solver": {"free-form": "FreeForm", "alard-lupton": "AlardLupton", "fourier": "Fourier"},
    "convolver": {"fft": "FFT", "direct": "Direct"},
    "common_target": {"common_target": "common_target"},
    "grid": {"auto": "Grid.auto", "centered": "Grid.centered"},
    "recipe": {"recipe": "Recipe"},
    "interpolation": {"kaiser": "Kaiser", "lanczos": "Lanczos"},
    "combine": {"clipped-mean": "ClippedMean", "mean": "Mean", "median": "Median"},
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


def set_option(*parts: str) -> Callable[[Verb], Verb]:
    """``--set PART.OPTION=VALUE`` for these parts, which `build` makes."""

    def check(context: click.Context, _: click.Parameter, settings: Sequence[str]) -> Sequence[str]:
        for setting in settings:
            key, equals, _text = setting.partition("=")
            part, *path = key.strip().split(".")
            if not equals or part not in parts or "" in path:
                raise click.UsageError(
                    f"--set {setting}: give PART.OPTION=VALUE with PART one of {', '.join(parts)}, "
                    f"such as {EXAMPLES[parts[0]]}", context,
                )  # fmt: skip
        return settings

    names = f"one of {', '.join(parts)}" if len(parts) > 1 else parts[0]
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="PART.OPTION=VALUE",
        callback=check,
        help=f"Set an option of a part ({EXAMPLES[parts[0]]}), or choose its class by name; PART is {names}.  Can be "
        "repeated.  `psfmatch config` lists all; a wrong option lists the right ones.",
    )


EXAMPLES = {
    "solver": "solver.order=2",
    "convolver": "convolver.edge=nan",
    "common_target": "common_target.tolerance=0.002",
}


def _unlike(value: Any, option: click.Option) -> str:
    """What is wrong with a value of a TOML file for an option, where click would not say it."""
    if option.multiple or option.nargs != 1:
        right = isinstance(value, list) and all(isinstance(one, str | int | float) for one in value)
        return "" if right else "give a list of numbers or texts, in brackets"
    if option.is_flag:
        return "" if isinstance(value, bool) else "give true or false"
    return "" if isinstance(value, str | int | float) and not isinstance(value, bool) else "give a number or a text"


def config_option(*names: str) -> Callable[[Verb], Verb]:
    """``--config FILE.toml``: gives the verb's own options of these names, and the tables of all parts."""

    def read(context: click.Context, _: click.Parameter, path: Path | None) -> dict[str, dict[str, Any]]:
        if path is None:
            return {}
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise click.BadParameter(f"{path}: {error}", context) from error
        tables = {part: values.pop(part) for part in CLASSES if isinstance(values.get(part), dict)}
        for part in CLASSES:
            if part in values and part not in names:
                raise click.BadParameter(f"{path}: {part} must be a table, [{part}]", context)
        values = {name.replace("-", "_"): value for name, value in values.items()}
        for name in values:
            if name not in names:
                known = ", ".join((*(f"[{part}]" for part in CLASSES), *names))
                raise click.BadParameter(
                    f"{path}: no option {name!r}{did_you_mean(name, names)}; there are {known}", context
                )
        # click knows this option by the name of its variable
        values = {"format_" if name == "format" else name: value for name, value in values.items()}
        options = {option.name: option for option in context.command.params if isinstance(option, click.Option)}
        for name, value in values.items():
            if wrong := _unlike(value, options[name]):
                raise click.BadParameter(f"{path}: {name.rstrip('_')} = {value!r}: {wrong}", context)
        context.default_map = values
        return tables

    return click.option(
        "--config",
        metavar="FILE.toml",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        callback=read,
        help="Read options from a TOML file: those of this command by their names, and a table for every part, such as "
        "[solver] (key `name` chooses the class).  `psfmatch config` prints one.  The command line wins.",
    )


def given(part: str, **options: Any) -> list[str]:
    """Options of a verb that are those of a part, as ``--set`` has them; None was not given.

    An option called ``name`` is the name of the class.
    """
    return [
        f"{part}{'' if name == 'name' else f'.{name}'}={value}" for name, value in options.items() if value is not None
    ]


def build(config: Mapping[str, Mapping[str, Any]], settings: Sequence[str], *parts: str) -> dict[str, Any]:
    """The parts that a TOML file and ``--set`` ask for; None for one that neither mentions.

    Where the command line chooses another class than the file, the file's options of the part are not meant.
    """
    chosen: dict[str, dict[str, Any]] = {part: dict(config.get(part, {})) for part in parts}
    split = [
        (key.strip().split("."), text.strip()) for key, _, text in (setting.partition("=") for setting in settings)
    ]
    for (part, *path), text in split:
        if not path:
            if text != chosen[part].get("name", next(iter(CLASSES[part]))):
                chosen[part].clear()
            chosen[part]["name"] = text
    for (part, *path), text in split:
        if path:
            table = chosen[part]
            for name in path[:-1]:
                table[name] = dict(table[name]) if isinstance(table.get(name), dict) else {}
                table = table[name]
            table[path[-1]] = _Text(text)
    return {part: _part(part, options) if options else None for part, options in chosen.items()}


def _part(part: str, options: dict[str, Any]) -> Any:
    """What has these options: an instance of a class; a function with its options, or what it returns."""
    names = CLASSES[part]
    wanted = str(options.pop("name", next(iter(names))))
    if wanted not in names:
        raise click.UsageError(f"no {part} {wanted!r}{did_you_mean(wanted, names)}; there are {', '.join(names)}")
    return _instance(object_of(names[wanted]), options, part)


def _instance(owner: Callable[..., Any], values: Mapping[str, Any], path: str) -> Any:
    """The owner with these options; ``path`` is what a person calls it."""
    known = {option.name: option for option in options_of(owner) if option.name not in CLASSES}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            listing = "".join(f"\n  {path}.{option.name}  ({words_of(option.hint)})" for option in known.values())
            raise click.UsageError(
                f"{owner.__qualname__} has no option {name!r}{did_you_mean(name, known)}; it has{listing}"
            )
        try:
            arguments[name] = _cast(value, known[name].hint, f"{path}.{name}")
        except TypeError:
            raise click.UsageError(f"{path}.{name}={value}: it takes {words_of(known[name].hint)}") from None
    lacking = [name for name, option in known.items() if option.default is REQUIRED and name not in arguments]
    if lacking:
        raise click.UsageError(f"{owner.__qualname__} needs {', '.join(f'{path}.{name}' for name in lacking)}")
    if isinstance(owner, type):
        return owner(**arguments)
    function = partial(owner, **arguments)
    return function() if len(options_of(owner)) == len(inspect.signature(owner).parameters) else function


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
        for option in sorted(inner, key=lambda kind: kind is not types.NoneType):
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
    elif is_record(hint):
        if isinstance(value, dict):
            return _instance(hint, value, path)
    elif hint is float and type(value) is int:
        return float(value)
    elif hint is Any or type(value) is hint:
        return value
    raise TypeError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
