"""``psfmatch coadd``: many images, one PSF, one image."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.match import _one_each, _stem
from psfmatch.cli.settings import FORMAT_HELP, build, config_option, given, mask_planes_option, set_option

if TYPE_CHECKING:
    from psfmatch.coadd import Row

__all__ = ["coadd"]


@click.command(short_help="Many images, one PSF, one image.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, metavar="COADD.fits", type=click.Path(path_type=Path), help="The file to write."
)
@click.option(
    "--psf",
    multiple=True,
    metavar="P",
    help="PSF of the images: once for all, or once for each.  stars: made from the image's own.",
)
@click.option(
    "--target",
    "-t",
    default="auto",
    show_default=True,
    metavar="T",
    help="The PSF of the coadd: a file, words such as gaussian:fwhm=1.3arcsec, or auto, the smallest Moffat that every "
    "image reaches (auto:gaussian of another family).",
)
@click.option(
    "--grid",
    show_default="auto",
    metavar="FILE",
    help="A FITS file whose header is the grid's; or auto: gnomonic, north up, at the mean position and scale, holding "
    "all images.  (--set grid.pixel_scale=0.3; --set grid=centered and its options: about a position.)",
)
@click.option(
    "--combine",
    type=click.Choice(["clipped-mean", "mean", "median"]),
    show_default="clipped-mean",
    help="How the images are combined.",
)
@click.option(
    "--order",
    type=click.Choice(["match-warp", "warp-match"]),
    show_default="match-warp",
    help="Match each image in its own pixels and then bring it to the grid; or the other way round.",
)
@click.option(
    "--background",
    type=click.Choice(["none", "median"]),
    show_default="none",
    help="Subtract nothing, or the median of each image.",
)
@click.option(
    "--scale",
    type=click.Choice(["header", "stars", "none"]),
    show_default="header",
    help="Bring the fluxes to one scale by the zero points (of --zero-points, or of the headers); by these and the "
    "stars that the images share; or not.",
)
@click.option(
    "--zero-points",
    metavar="TABLE.csv",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A table with the columns name (of the file) and zero_point (magnitude of one unit).",
)
@mask_planes_option
@click.option("--format", "format_", metavar="NAME", help=FORMAT_HELP)
@click.option("--patch", type=click.IntRange(min=64), show_default="1024", metavar="PX", help="Largest patch.")
@click.option("--memory", type=float, show_default="2.0", metavar="GB", help="Most that each process takes.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes of a local Dask cluster.")
@click.option("--scheduler", metavar="ADDRESS", help="A running Dask cluster, which sees the same files.")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run has left beside the output.")
@set_option("solver", "recipe", "interpolation", "combine", "common_target", "grid")
@config_option(
    "output", "psf", "target", "grid", "combine", "order", "background", "scale", "zero_points", "mask_planes",
    "format", "patch", "memory", "workers", "scheduler", "overwrite",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an output file that exists.")
@verb
def coadd(
    console: Console, /, images: Sequence[Path], output: Path, psf: Sequence[str], target: str, grid: str | None,
    combine: str | None, order: str | None, background: str | None, scale: str | None, zero_points: Path | None,
    mask_planes: str | None, format_: str | None, patch: int | None, memory: float | None, workers: int | None,
    scheduler: str | None, resume: bool, settings: Sequence[str], config: dict[str, Any], overwrite: bool,
) -> int:  # fmt: skip
    """Match all IMAGEs to one PSF, bring them to one grid, and combine them.

    Each image needs its PSF model, a WCS and a variance or weight.  One that cannot be used is left out, and the table
    says why.  The coadd holds image, mask, variance, its PSF, the number of images in each pixel (NEXP), the
    correlation of the noise (NOISE), and the table (INPUTS).

    The grid is worked through in patches, which are kept in the folder COADD.fits.parts until the coadd is written,
    as are the kernels, and the pixels of images that are compressed or packed: after an interruption, or when
    something could not be read, --resume goes on with what is missing.  It takes the same images and options again,
    and says so where they differ; --patch, --memory and --workers may change.

    \b
    Examples:
      psfmatch coadd *.fits -o coadd.fits
      psfmatch coadd *.fits -t gaussian:fwhm=1.3arcsec --background median --grid reference.fits -o coadd.fits
      psfmatch coadd *.fits -o coadd.fits --workers 8 --resume
    """
    import psfmatch
    from psfmatch.coadd import Crew, Store, planned, requested, run_patches
    from psfmatch.coadd.task import write_coadd

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; give --overwrite to replace it, or another -o")
    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers starts a cluster, --scheduler uses one: give one of the two")
    options = [
        *given("recipe", order=order, background=background, scale=scale, patch=patch, memory=memory),
        *given("combine", name=combine), *settings,
    ]  # fmt: skip
    parts = build(config, options, "solver", "recipe", "interpolation", "combine", "common_target", "grid")
    _check_fixed(settings, target=target, grid=grid)
    inner = {name: parts[name] for name in ("solver", "interpolation") if parts[name] is not None}
    recipe = replace(parts["recipe"] or psfmatch.Recipe(), **inner)
    wanted = parts["common_target"] if target == "auto" and parts["common_target"] else target
    where = grid if grid not in (None, "auto") else parts["grid"] or "auto"
    method = parts["combine"] or psfmatch.ClippedMean()
    points = {} if zero_points is None else _zero_points(zero_points)
    belongs = {"format": format_, "mask_planes": mask_planes}
    inputs = [
        psfmatch.CoaddInput(
            image, name=_stem(image), zero_point=points.get(image.name, points.get(_stem(image))),
            options={key: value for key, value in {**belongs, "psf": model}.items() if value is not None},
        )
        for image, model in zip(images, _one_each("psf", psf, len(images)), strict=True)
    ]  # fmt: skip
    request: dict[str, Any] = {"target": wanted, "grid": where, "method": method, "recipe": recipe}
    folder = output.with_name(output.name + ".parts")
    store = Store.claimed(folder, requested(inputs, **request), resume=resume)
    with store.held():
        try:
            with Crew.of(workers, scheduler) as crew:
                with console.steps(2 * len(images) + 1) as step:
                    plan = planned(inputs, **request, store=store, crew=crew, say=step)
                with console.pace("patches", "Mpix", 1e-6 * plan.grid.shape[0] * plan.grid.shape[1]) as progress:
                    failed = run_patches(plan, store, crew=crew, progress=progress)
        finally:
            store.tidy()
        rows = write_coadd(plan, store, output, overwrite=overwrite)
        if not failed and not any(row.used and row.reason for row in rows):
            store.remove()
    _print_rows(console, rows)
    for box, why in failed.items():
        console.note(f"error: the patch {box} is empty: {why}")
    left_out = [row.name for row in rows if not row.used or row.reason]
    console.line(f"{sum(row.used for row in rows)} of {len(rows)} images added")
    console.line(f"wrote {output}")
    good = not failed and not left_out
    console.result(
        {"command": "coadd", "ok": good, "output": str(output), "shape": list(plan.grid.shape),
         "pixel_scale": plan.grid.pixel_scale, "patches": len(plan.patches), "failed": [str(box) for box in failed],
         "inputs": [asdict(row) for row in rows]}
    )  # fmt: skip
    return OK if good else NO_MATCH


def _check_fixed(settings: Sequence[str], **chosen: str | None) -> None:
    """What is given as a file or in words is not searched for by the options of a search."""
    for name, part in (("target", "common_target"), ("grid", "grid")):
        value, options = chosen[name], [text for text in settings if re.match(rf"{part}\b", text)]
        if options and value not in (None, "auto"):
            raise click.UsageError(
                f"--{name} {value} is given: --set {options[0]} has no effect; leave one of them out"
            )


def _zero_points(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            table = csv.DictReader(lines)
            if not {"name", "zero_point"} <= set(table.fieldnames or ()):
                have = f"the columns are {', '.join(table.fieldnames)}" if table.fieldnames else "there are no columns"
                raise click.UsageError(f"{path}: {have}; it needs name and zero_point")
            points = {row["name"]: float(row["zero_point"]) for row in table}
    except (TypeError, ValueError, csv.Error) as error:
        raise click.UsageError(f"{path}: {error}") from error
    wrong = next((name for name, point in points.items() if not math.isfinite(point)), None)
    if wrong is not None:
        raise click.UsageError(f"{path}: the zero point of {wrong} is {points[wrong]}; give a magnitude")
    return points


def _print_rows(console: Console, rows: Sequence[Row]) -> None:
    table = [
        (row.name, f"{row.weight:.3f}", f'{row.fwhm:.2f}"', f"{row.residual:.1e}", f"{row.noise_gain:.3f}",
         f"{row.factor:.4g}", str(row.clipped), row.reason)
        for row in rows if row.used
    ]  # fmt: skip
    console.table(("image", "weight", "FWHM", "residual", "noise gain", "factor", "clipped", ""), table)
    for row in rows:
        if not row.used:
            console.line(f"{row.name} is left out: {row.reason}")
