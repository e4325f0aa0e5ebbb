"""``psfmatch kernel``: the matching kernel of two PSFs, without an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.figures import print_outcomes, print_quality, solution_values
from psfmatch.cli.settings import build, config_option, set_option

__all__ = ["kernel"]


@click.command(short_help="The matching kernel of two PSFs.")
@click.argument("science", metavar="SCIENCE_PSF")
@click.argument("target", metavar="TARGET_PSF")
@click.option(
    "--output", "-o", required=True, metavar="K.fits", type=click.Path(path_type=Path), help="The file to write."
)
@click.option(
    "--shape",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="NX NY",
    help="Columns and rows of the image for which the kernel shall hold, where a PSF varies over it.",
)
@click.option(
    "--science-scale",
    "--pixel-scale",
    type=float,
    metavar="ARCSEC",
    help="A pixel of the science image, which is a pixel of the kernel.  Default: what the file says "
    "(PIXSCALE, PIXELSCL, PIXAR_A2 ... or its WCS).",
)
@click.option("--target-scale", type=float, metavar="ARCSEC", help="A pixel of the target's stamp.  Default likewise.")
@click.option(
    "--science-angle",
    type=float,
    metavar="DEG",
    help="Position angle of the +y axis, from north through east.  Default: that of the file's WCS.",
)
@click.option(
    "--target-angle",
    type=float,
    metavar="DEG",
    help="The same of the target's stamp, which is turned by the difference.  Nothing is turned unless both are known.",
)
@click.option(
    "--center",
    type=click.Choice(["auto", "centroid", "middle"]),
    default="auto",
    show_default=True,
    help="Where the source is in a stamp: in its middle, or where it is measured.  auto: in the middle or in the pixel "
    "n // 2, unless it is measured more than 0.1 px from both.",
)
@set_option("solver")
@config_option(
    "output", "shape", "science_scale", "target_scale", "science_angle", "target_angle", "center", "overwrite", "throw"
)
@click.option("--overwrite", is_flag=True, help="Replace an output file that exists.")
@click.option("--throw/--no-throw", default=True, help="--no-throw: write the kernel even if it is not acceptable.")
@verb
def kernel(
    console: Console, /, science: str, target: str, output: Path, shape: Sequence[int] | None,
    science_scale: float | None, target_scale: float | None, science_angle: float | None, target_angle: float | None,
    center: Any, settings: Sequence[str], config: dict[str, Any], overwrite: bool, throw: bool,
) -> int:  # fmt: skip
    """Solve for the kernel that turns SCIENCE_PSF into TARGET_PSF, and write it to a FITS file.

    Each PSF is a file (FITS stamps, PSFEx, Piff ...) or words.  The stamps may be of even or odd size, with the source
    anywhere, and on pixels of different sizes and orientations; the kernel is in the science image's pixels.
    `psfmatch apply` convolves images with it.

    \b
    Examples:
      psfmatch kernel f115w.fits f444w.fits -o kernel.fits
      psfmatch kernel pacs.fits spire.fits --science-scale 4 --target-scale 6 -o kernel.fits
      psfmatch kernel gaussian:fwhm=3 moffat:fwhm=5,beta=3.5 -o kernel.fits
      psfmatch kernel image.psf moffat:fwhm=5,beta=3.5 --shape 2046 4094 -o kernel.fits
    """
    import psfmatch
    from psfmatch.machine import timed
    from psfmatch.match import judged, measured_quality

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; give --overwrite to replace it, or another -o")
    solver = build(config, settings, "solver")["solver"]
    with console.steps(3) as step:
        step("reading the PSFs")
        pair = psfmatch.io.read_psf_pair(
            science, target, science_scale=science_scale, target_scale=target_scale, science_angle=science_angle,
            target_angle=target_angle, center=center,
        )  # fmt: skip
        models = pair.science, pair.target
        box = psfmatch.Box(0, 0, shape[1], shape[0]) if shape else None
        step("solving")
        with timed("solved", "solve"):
            solution = psfmatch.matching_kernel(*models, box=box, solver=solver, throw=throw)
        step("measuring")
        with timed("measured", "match"):
            quality = measured_quality(solution, *models, box or psfmatch.Box(0, 0, 1, 1), 1.0)
        solution = judged(solution, quality, throw=throw)
        asked = {
            "science": science, "target": target, "shape": shape, "science_scale": science_scale,
            "target_scale": target_scale, "science_angle": science_angle, "target_angle": target_angle,
            "center": center, "solver": solver or psfmatch.FreeForm(),
        }  # fmt: skip
        history = psfmatch.History().then("matching_kernel", asked, files=[science, target])
        psfmatch.io.write_kernel(solution.kernel, output, overwrite=overwrite, history=history)
    good = solution.outcome.ok
    print_quality(console, {"": quality})
    print_outcomes(console, {"": solution})
    if not good:
        console.note("error: the kernel is not acceptable (written all the same)")
    console.line(f"wrote {output}")
    stamps = {name: getattr(pair, name) for name in ("pixel_scale", "target_scale", "rotation", "mirrored")}
    values = {"command": "kernel", "ok": good, "output": str(output), "steps": console.seconds(), **stamps}
    console.result({**values, **solution_values(solution, quality)})
    return OK if good else NO_MATCH
