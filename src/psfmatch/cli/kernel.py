"""``psfmatch kernel``: the matching kernel of two PSFs, without an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.figures import print_quality, solution_values
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
@click.option("--pixel-scale", type=float, metavar="ARCSEC", help="Of the pixels, for PSFs given in arcsec.")
@set_option
@config_option("output", "shape", "pixel_scale", "overwrite", "throw")
@click.option("--overwrite", is_flag=True, help="Replace an output file that exists.")
@click.option("--throw/--no-throw", default=True, help="--no-throw: write the kernel even if it is not acceptable.")
@verb
def kernel(
    console: Console, /, science: str, target: str, output: Path, shape: Sequence[int] | None,
    pixel_scale: float | None, settings: Sequence[str], config: dict[str, Any], overwrite: bool, throw: bool,
) -> int:  # fmt: skip
    """Solve for the kernel that turns SCIENCE_PSF into TARGET_PSF, and write it to a FITS file.

    Each PSF is a file (PSFEx, or FITS stamps) or words.  `psfmatch apply` convolves images with the kernel.

    \b
    Examples:
      psfmatch kernel f115w.fits f444w.fits -o kernel.fits
      psfmatch kernel gaussian:fwhm=3 moffat:fwhm=5,beta=3.5 -o kernel.fits
      psfmatch kernel image.psf moffat:fwhm=5,beta=3.5 --shape 2046 4094 -o kernel.fits
    """
    import psfmatch

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; give --overwrite to replace it, or another -o")
    solver = build(config, settings)["solver"]
    models = [psfmatch.read_psf(source, pixel_scale=pixel_scale) for source in (science, target)]
    box = psfmatch.Box(0, 0, shape[1], shape[0]) if shape else None
    solution = psfmatch.matching_kernel(*models, box=box, solver=solver, throw=throw)
    x, y = psfmatch.quality.check_positions(solution.kernel.box)
    quality = psfmatch.quality.measure_quality(solution.kernel, *models, x=x, y=y)
    psfmatch.io.write_kernel(solution.kernel, output, overwrite=overwrite)
    good = solution.outcome.ok
    print_quality(console, {"": quality})
    if not good:
        console.note(f"error: {solution.outcome.value} (written all the same)")
    console.line(f"wrote {output}")
    console.result({"command": "kernel", "ok": good, "output": str(output), **solution_values(solution, quality)})
    return OK if good else NO_MATCH
