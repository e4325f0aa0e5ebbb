"""``psfmatch plot``: figures of a match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import OK, Console, verb
from psfmatch.cli.match import _stem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_picture", "need_matplotlib", "plot", "save_figure"]

SUFFIXES = (".png", ".pdf", ".svg")


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from psfmatch.plots import PLOTS

        for name, one in PLOTS.items():
            click.echo(f"{name:<14}{one.words}")
        context.exit(OK)


@click.command(short_help="Figures of a match.")
@click.argument("what", metavar="WHAT")
@click.argument("file", nargs=-1, required=True, metavar="MATCHED...", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", metavar="OUT", type=click.Path(path_type=Path),
    help="The file to write (.png, .pdf or .svg), or a folder.  [default: <name>-WHAT.png in this folder]"
)  # fmt: skip
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List what can be drawn, and exit."
)
@click.option("--before", metavar="IMAGE", type=click.Path(path_type=Path), help="The image that was matched.")
@click.option(
    "--candidate", "number", type=click.IntRange(min=0), metavar="N",
    help="Which candidate is drawn.  [default: the one with the largest residual]"
)  # fmt: skip
@click.option("--dpi", type=click.IntRange(36, 1200), default=200, show_default=True, help="Dots an inch of a .png.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@verb
def plot(
    console: Console, /, what: str, file: Sequence[Path], output: Path | None, before: Path | None, number: int | None,
    dpi: int, overwrite: bool,
) -> int:  # fmt: skip
    """Draw WHAT of each MATCHED file that psfmatch has written; `all` draws everything.

    `psfmatch plot --list` says what there is.  Of a coadd, `noise` can be drawn.  Needs matplotlib: pip install
    "psfmatch[plots]", in a clone ".[plots]".

    \b
    Examples:
      psfmatch plot --list
      psfmatch plot psf-field matched.fits -o psf.png
      psfmatch plot candidate matched.fits --candidate 3 -o candidate.pdf
      psfmatch plot stars matched.fits --before image.fits
      psfmatch plot all matched.fits --before image.fits -o plots/
    """
    from psfmatch.io import read_exposure
    from psfmatch.plots import PLOTS

    if what != "all" and what not in PLOTS:
        import difflib

        close = difflib.get_close_matches(what, PLOTS, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise click.UsageError(f"nothing called {what!r} can be drawn{meant}; there are {', '.join(PLOTS)}, and all")
    names = list(PLOTS) if what == "all" else [what]
    need_matplotlib()
    paths = _outputs(file, names, output, overwrite=overwrite)
    original = None if before is None else read_exposure(before)
    written: list[str] = []
    with console.steps(len(file) * len(names)) as step:
        for one in file:
            subject = _subject(one, original, number)
            for name in names:
                step(f"{one.name}: {name}")
                if what == "all" and name == "stars" and original is None:
                    console.note(f"{one}: no stars without the image that was matched (--before)")
                    continue
                save_figure(_drawn(name, subject), paths[one, name], dpi=dpi)
                written.append(str(paths[one, name]))
    for path in written:
        console.line(f"wrote {path}")
    console.result({"command": "plot", "ok": True, "written": written})
    return OK


def need_matplotlib() -> None:
    """Refuse to go on without it, and say how to get it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise click.UsageError(
            'figures need matplotlib: pip install "psfmatch[plots]", in a clone ".[plots]"'
        ) from error


def _subject(path: Path, before: Any, number: int | None) -> Any:
    """What is drawn: a match, or, of a coadd, the correlation of its noise."""
    from astropy.io import fits

    from psfmatch.io import read_correlation
    from psfmatch.io.fits import open_fits
    from psfmatch.match import read_matched
    from psfmatch.plots import Subject

    with open_fits(path) as hdus:
        hdus_of: fits.HDUList = hdus
        coadd = "NOISE" in hdus_of and "KERNEL" not in hdus_of
    return read_correlation(path) if coadd else Subject(read_matched(path), before, number)


def _drawn(name: str, subject: Any) -> Figure:
    from psfmatch.correlation import NoiseCorrelation
    from psfmatch.plots import PLOTS, noise

    if not isinstance(subject, NoiseCorrelation):
        return PLOTS[name].draw(subject)
    if name != "noise":
        raise click.UsageError(f"of a coadd only noise can be drawn, not {name}")
    return noise(subject)


def _outputs(
    files: Sequence[Path], names: Sequence[str], output: Path | None, *, overwrite: bool
) -> dict[tuple[Path, str], Path]:
    """Where each figure goes."""
    single = len(files) == len(names) == 1
    if single and output is not None and not output.is_dir() and not str(output).endswith("/"):
        if output.suffix.lower() not in SUFFIXES:
            raise click.UsageError(f"-o {output}: the name must end in {', '.join(SUFFIXES)}")
        paths = {(files[0], names[0]): output}
    else:
        if output is not None and (output.suffix.lower() in SUFFIXES or output.is_file()):
            raise click.UsageError(f"-o {output} is one file for {len(files) * len(names)} figures: give a folder")
        folder = Path() if output is None else output
        paths = {(file, name): folder / f"{_stem(file)}-{name}.png" for file in files for name in names}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another -o")
    if len(set(paths.values())) < len(paths):
        raise click.UsageError("two of the files have the same name: draw them one by one, each with its -o")
    return paths


def check_picture(path: Path, *, overwrite: bool) -> None:
    """Refuse a picture that could not be drawn or written, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"-o {path}: the name must end in {', '.join(SUFFIXES)}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another -o")
    need_matplotlib()


def save_figure(figure: Figure, path: Path, *, dpi: int = 200) -> None:
    """Write a figure in one piece or not at all."""
    import io

    from psfmatch.io.files import atomic_output

    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower() or "png", dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path, overwrite=True) as out:
        out.write(buffer.getvalue())
