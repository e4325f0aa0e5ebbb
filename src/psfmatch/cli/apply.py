"""``psfmatch apply``: convolve an image with a kernel that was written before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from psfmatch.cli.console import OK, Console, verb
from psfmatch.cli.settings import FORMAT_HELP, build, config_option, mask_planes_option, set_option

__all__ = ["apply"]


@click.command(short_help="Convolve an image with a matching kernel.")
@click.argument("image", metavar="IMAGE", type=click.Path(path_type=Path))
@click.argument("kernel", metavar="K.fits", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, metavar="OUT", type=click.Path(path_type=Path), help="The file to write."
)
@click.option("--weight", metavar="FILE", help="Inverse variance of the pixels.")
@click.option("--variance", metavar="FILE", help="Variance of the pixels.")
@click.option("--mask", metavar="FILE", help="Mask of the pixels.")
@mask_planes_option
@click.option("--format", "format_", metavar="NAME", help=FORMAT_HELP)
@set_option("convolver")
@config_option("output", "weight", "variance", "mask", "mask_planes", "format", "overwrite")
@click.option("--overwrite", is_flag=True, help="Replace an output file that exists.")
@verb
def apply(
    console: Console, /, image: Path, kernel: Path, output: Path, weight: str | None, variance: str | None,
    mask: str | None, mask_planes: str | None, format_: str | None, settings: Sequence[str], config: dict[str, Any],
    overwrite: bool,
) -> int:  # fmt: skip
    """Convolve IMAGE, its variance and its mask with the kernel in K.fits.

    K.fits is what `psfmatch kernel` wrote, or the output of `psfmatch match`.

    \b
    Examples:
      psfmatch apply image.fits kernel.fits -o matched.fits
      psfmatch apply image.fits kernel.fits -o matched.fits --set convolver.edge=nan
    """
    import psfmatch
    from psfmatch.convolve import convolved
    from psfmatch.machine import timed

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; give --overwrite to replace it, or another -o")
    convolver = build(config, settings, "convolver")["convolver"]
    with console.steps(3) as step:
        step(f"{image.name}: reading")
        exposure = psfmatch.read_exposure(
            image, weight=weight, variance=variance, mask=mask, mask_planes=mask_planes, format=format_
        )
        step(f"{image.name}: convolving")
        with timed("convolved", "convolve"):
            matched = psfmatch.convolve(exposure, psfmatch.io.read_kernel(kernel), convolver=convolver)
        step(f"{image.name}: writing")
        matched = matched.replace(history=convolved(exposure.history, convolver, kernel=kernel))
        psfmatch.io.write_exposure(matched, output, overwrite=overwrite)
    console.line(f"wrote {output}")
    console.result({"command": "apply", "ok": True, "output": str(output), "steps": console.seconds()})
    return OK
