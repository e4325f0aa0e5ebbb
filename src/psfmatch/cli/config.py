"""``psfmatch config``: every option with its default and what it means, as a TOML file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import click

from psfmatch.cli.console import OK, Console, verb
from psfmatch.cli.options import REQUIRED, Option, is_record, object_of, options_of, words_of
from psfmatch.cli.settings import CLASSES, did_you_mean

__all__ = ["config"]

WIDTH = 110
HEAD = """\
# All options of psfmatch with their defaults: a file for --config.  `name` chooses the class of a part; what other
# classes have stands behind it as comments.  "none" means that the program chooses, or does without.
"""


@click.command(short_help="Every option, its default, and what it means.")
@click.argument("name", required=False, metavar="[PART[.OPTION]]")
@verb
def config(console: Console, /, name: str | None) -> int:
    """Print all options as a TOML file for --config; or those of one PART; or what an OPTION means.

    The names are the same in Python, in the file and after --set: of the solvers, the convolvers, the search for a
    common target, the grid, the recipe of a coadd, the interpolation, and the combination.

    \b
    Examples:
      psfmatch config > run.toml
      psfmatch config solver
      psfmatch config solver.tolerance
      psfmatch match image.fits -t gaussian:fwhm=5 --config run.toml --set solver.order=2 -o matched.fits
    """
    if name is None:
        parts, found = list(CLASSES), _all()
        console.line(HEAD + "".join(f"\n{_table(part)}" for part in parts).rstrip())
    elif name in CLASSES:
        found = [one for one in _all() if one[0] == name]
        console.line(_table(name).rstrip())
    else:
        found = [one for one in _all() if f"{one[0]}.{one[2].name}" == name]
        if not found:
            known = [*CLASSES, *(f"{part}.{option.name}" for part, _, option in _all())]
            raise click.UsageError(f"no option {name!r}{did_you_mean(name, known)}; `psfmatch config` lists all")
        console.line("\n\n".join(_explained(*one) for one in found))
    console.result(
        {"command": "config", "ok": True, "options": [
            {"option": f"{part}.{option.name}", "of": cls, "takes": words_of(option.hint),
             "default": None if option.default is REQUIRED else option.default, "text": option.text}
            for part, cls, option in found
        ]}
    )  # fmt: skip
    return OK


def _all() -> list[tuple[str, str, Option]]:
    """Part, name of the class, and option, those of tables within tables with their dots."""
    return [
        (part, name, option) for part, classes in CLASSES.items() for name, cls in classes.items()
        for option in _flat(_options(object_of(cls)))
    ]  # fmt: skip


def _options(owner: Callable[..., Any]) -> list[Option]:
    return [option for option in options_of(owner) if option.name not in CLASSES]


def _flat(options: list[Option], prefix: str = "") -> Iterator[Option]:
    for option in options:
        yield Option(prefix + option.name, option.hint, option.default, option.text)
        for record in _records(option.hint):
            yield from _flat(_options(record), f"{prefix}{option.name}.")


def _records(hint: Any) -> list[Any]:
    """The dataclass or named tuple that a type is, or that it may be."""
    return [kind for kind in (hint, *getattr(hint, "__args__", ())) if is_record(kind)]


def _explained(part: str, name: str, option: Option) -> str:
    value = "must be given" if option.default is REQUIRED else _value(option.default)
    of = f", of {part} {name}" if len(CLASSES[part]) > 1 else ""
    body = textwrap.fill(option.text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{part}.{option.name} = {value}    ({words_of(option.hint)}{of})\n{body}"


def _table(part: str) -> str:
    """The table of a part; its other classes as comments."""
    text = ""
    for k, (name, cls) in enumerate(CLASSES[part].items()):
        named = f"name = {json.dumps(name)}\n" if len(CLASSES[part]) > 1 else ""
        body = f"[{part}]\n{named}{''.join(_entries(_options(object_of(cls)), part))}"
        text += body if k == 0 else f"\n{_commented(body)}"
    return text


def _entries(options: list[Option], path: str) -> Iterator[str]:
    """Lines of TOML: values first, then the tables within."""
    for option in options:
        if not is_record(option.hint):
            yield _comment(option)
            commented = "# " if option.default is REQUIRED else ""
            yield f"{commented}{option.name} = {'...' if commented else _value(option.default)}\n"
            for record in _records(option.hint):
                inner = "".join(_entries(_options(record), f"{path}.{option.name}"))
                yield _commented(f"# in place of it:\n[{path}.{option.name}]\n{inner}")
    for option in options:
        if is_record(option.hint):
            yield f"\n{_comment(option)}[{path}.{option.name}]\n"
            kept = [
                Option(one.name, one.hint, getattr(option.default, one.name), one.text) for one in _options(option.hint)
            ]
            yield from _entries(kept, f"{path}.{option.name}")


def _comment(option: Option) -> str:
    text = f"{option.text}  [{words_of(option.hint)}]" if option.text else f"[{words_of(option.hint)}]"
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"


def _commented(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def _value(value: Any) -> str:
    """A value as TOML has it."""
    if value is None:
        return '"none"'
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif is_record(value):
        value = {option.name: getattr(value, option.name) for option in _options(type(value))}
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(float(value))
    return json.dumps(value)
