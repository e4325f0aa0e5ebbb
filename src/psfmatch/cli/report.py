"""``psfmatch report``: a page about a match or a coadd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from psfmatch.cli.console import OK, Console, verb
from psfmatch.cli.match import _stem
from psfmatch.cli.plot import need_matplotlib

__all__ = ["report"]


@click.command(short_help="A page about a match or a coadd.")
@click.argument("file", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", metavar="OUT", type=click.Path(path_type=Path),
    help="The page to write (.html); for several files a folder.  [default: <name>-report.html in this folder]"
)  # fmt: skip
@click.option(
    "--before", metavar="IMAGE", type=click.Path(path_type=Path),
    help="The image that was matched: the page then shows its stars before and after."
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@verb
def report(console: Console, /, file: Sequence[Path], output: Path | None, before: Path | None, overwrite: bool) -> int:
    """Write one HTML page about each FILE, a matched exposure or a coadd: what was asked, chosen and reached.

    The page holds a verdict in words with the cure where it is bad, every number with its meaning, the figures, and
    some to point at.  It needs no network and no other file, and prints well.  Needs matplotlib: pip install
    "psfmatch[plots]", in a clone ".[plots]".

    \b
    Examples:
      psfmatch report matched.fits -o report.html
      psfmatch report matched.fits --before image.fits -o report.html
      psfmatch report coadd.fits
    """
    from psfmatch.io import read_exposure
    from psfmatch.io.files import atomic_output
    from psfmatch.report import report as page

    need_matplotlib()
    if before is not None and len(file) > 1:
        raise click.UsageError(f"--before is one image for {len(file)} files: report on them one by one")
    paths = _outputs(file, output, overwrite=overwrite)
    with console.steps(len(file)) as step:
        for one, path in zip(file, paths, strict=True):
            step(one.name)
            html = page(one, before=None if before is None else read_exposure(before))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(path, overwrite=overwrite) as out:
                out.write(html.encode("utf-8"))
            console.line(f"wrote {path}")
    console.result({"command": "report", "ok": True, "written": [str(path) for path in paths]})
    return OK


def _outputs(files: Sequence[Path], output: Path | None, *, overwrite: bool) -> list[Path]:
    """Where each page goes."""
    names = [f"{_stem(file)}-report.html" for file in files]
    if output is None:
        paths = [Path(name) for name in names]
    elif len(files) > 1 or output.is_dir() or str(output).endswith("/"):
        if output.suffix in (".html", ".htm") or output.is_file():
            raise click.UsageError(f"-o {output} is one file for {len(files)} pages: give a folder")
        paths = [output / name for name in names]
    elif output.suffix not in (".html", ".htm"):
        raise click.UsageError(f"-o {output}: the name must end in .html")
    else:
        paths = [output]
    if len(set(paths)) < len(paths):
        raise click.UsageError("two of the files have the same name: report on them one by one, each with its -o")
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another -o")
    return paths
