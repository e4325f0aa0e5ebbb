"""Pages that are made from the program itself, before Sphinx reads the others."""

from pathlib import Path

import click

import psfmatch
from psfmatch.cli import main

ROOMS = {
    "match": "Matching", "exposure": "Exposures and masks", "io": "Reading and writing", "psf": "PSF models",
    "stamps": "Stamps", "target": "Common targets", "solve": "Solvers", "convolve": "Convolution", "kernel": "Kernels",
    "quality": "Quality", "inspection": "Inspecting files", "warp": "Resampling", "coadd": "Coadds",
    "noise": "Noise", "fields": "Smooth fields", "geometry": "Geometry", "errors": "Errors",
}  # fmt: skip


def command_line() -> str:
    """What every verb says of itself."""
    page = [
        "# Command line",
        "A verb is one public function.  What is printed is for people; `--json` prints one object for programs.  "
        "Progress, warnings and errors go to stderr.",
    ]
    for name, command in {"psfmatch": main, **main.commands}.items():
        with click.Context(
            command, info_name=name if command is main else f"psfmatch {name}", max_content_width=100
        ) as context:
            context.terminal_width = 100
            page += [f"## {context.info_name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(page) + "\n"


def public_names() -> str:
    """The public names, room by room; those of a room that has no title are found by their own."""
    page = ["# Python", "Everything here is in the namespace `psfmatch`, and is loaded when it is first asked for."]
    for room in (*ROOMS, *(room for room in psfmatch._NAMES if room not in ROOMS)):
        names = "".join(f"   {name}\n" for name in psfmatch._NAMES[room].split())
        page += [
            f"## {ROOMS.get(room, room.capitalize())}",
            "```{eval-rst}\n.. currentmodule:: psfmatch\n.. autosummary::\n   :toctree: generated\n"
            f"   :nosignatures:\n\n{names}```",
        ]
    return "\n\n".join(page) + "\n"


def write(folder: Path) -> None:
    """Both pages, into a folder."""
    (folder / "cli.md").write_text(command_line(), encoding="utf-8")
    (folder / "api.md").write_text(public_names(), encoding="utf-8")
