"""``psfmatch check``: the stars of a matched image against the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import NO_MATCH, OK, UNDECIDED, Console, verb
from psfmatch.cli.plot import check_picture, save_figure
from psfmatch.cli.settings import FORMAT_HELP

if TYPE_CHECKING:
    from psfmatch.check import Check, Deviation
    from psfmatch.correlation import NoiseCorrelation

__all__ = ["check"]


@click.command(short_help="The stars of a matched image against the target.")
@click.argument("image", metavar="MATCHED.fits", type=click.Path(path_type=Path))
@click.option("--target", "-t", metavar="T", help="The PSF it shall have.  Default: the one in the file.")
@click.option("--before", metavar="IMAGE", type=click.Path(path_type=Path), help="The same for the original image.")
@click.option(
    "--tolerance", type=float, default=0.01, show_default=True,
    help="On the FWHM (relative), the ellipticity and the encircled energy.",
)  # fmt: skip
@click.option("--saturation", type=float, metavar="LEVEL", help="Pixel value from which on a star is saturated.")
@click.option("--format", "format_", metavar="NAME", help=FORMAT_HELP)
@click.option("--output", "-o", metavar="PICTURE.png", type=click.Path(path_type=Path), help="Draw it.")
@click.option("--overwrite", is_flag=True, help="Replace a picture that exists.")
@verb
def check(
    console: Console, /, image: Path, target: str | None, before: Path | None, tolerance: float,
    saturation: float | None, format_: str | None, output: Path | None, overwrite: bool,
) -> int:  # fmt: skip
    """Prove a match on the sky: do the stars in MATCHED.fits have the target PSF?

    MATCHED.fits is what `psfmatch match` or `psfmatch coadd` wrote, or any image with its PSF.  Isolated stars are
    found in it, and each is compared with the target.  Errors take account of the correlation of the noise.

    \b
    Examples:
      psfmatch check matched.fits
      psfmatch check matched.fits --before image.fits -o check.png
      psfmatch check image.fits --target image.psf          # is this PSF model right?

    \b
    The figures, means over the stars with their standard errors:
      FWHM         of the Moffat profile that fits each star, relative to that of the target
      ellipticity  1 - b/a of the stars relative to the target
      EE error     the flux within the radius where it differs most, less the target's
      to the right, to the top    change of the FWHM from the middle of the field
      with brightness             change of the FWHM for ten times the flux

    \b
    Exit codes:
      0  within the tolerance
      1  a difference is larger than the tolerance, and than three standard errors
      2  bad usage or input
      3  the stars cannot tell: none, or the FWHM is not known to the tolerance
    """
    import psfmatch

    if output is not None:
        check_picture(output, overwrite=overwrite)
    options: dict[str, Any] = {"tolerance": tolerance, "selection": psfmatch.StarSelection(saturation=saturation)}
    exposure = psfmatch.read_exposure(image, format=format_)
    if target is None and exposure.psf is None:
        raise psfmatch.InputError(f"{image}: holds no PSF to compare its stars with; give the target (-t)")
    wanted = exposure.psf if target is None else target
    found = psfmatch.check(exposure, wanted, correlation=_correlation(console, image), **options)
    results = {"after": found}
    if before is not None:
        results = {"before": psfmatch.check(psfmatch.read_exposure(before), wanted, **options), **results}
    _print(console, results)
    if output is not None:
        from psfmatch.plots import check_figure

        save_figure(check_figure(results), output, dpi=100)
        console.line(f"wrote {output}")
    code = {"WITHIN": OK, "OVER": NO_MATCH, "UNDECIDED": UNDECIDED}[found.verdict.name]
    console.line(found.verdict.value)
    values = {name: _values(one) for name, one in results.items()}
    console.result({"command": "check", "ok": code == OK, "verdict": found.verdict.name, "picture": output, **values})
    return code


def _correlation(console: Console, image: Path) -> NoiseCorrelation | None:
    """Of the noise: as it is in the file, or that of the kernel in it."""
    from psfmatch.correlation import NoiseCorrelation
    from psfmatch.errors import FormatError
    from psfmatch.io import read_correlation, read_kernel
    from psfmatch.kernel import MatchingKernel

    try:
        return read_correlation(image)
    except FormatError:
        pass
    try:
        kernel = read_kernel(image)
    except FormatError:
        kernel = None
    if isinstance(kernel, MatchingKernel):
        return NoiseCorrelation.of_kernel(kernel)
    console.note(f"{image}: no single correlation of its noise is known; the errors hold for independent pixels")
    return None


def _print(console: Console, results: dict[str, Check]) -> None:
    found = results["after"]
    console.line(
        f"{len(found)} stars, target FWHM {found.target_fwhm:.3f} px"
        + (f"; before: {len(results['before'])} stars" if "before" in results else "")
    )
    rows = []
    for name, read in FIGURES.items():
        values = [read(one) for one in results.values()]
        if any(value is not None for value in values):
            rows.append((name, *(_percent(value) for value in values)))
    console.table(("figure [%]", *(results if len(results) > 1 else ["stars"])), rows)


FIGURES: dict[str, Callable[[Check], Deviation | None]] = {
    "FWHM": lambda one: one.size,
    "ellipticity": lambda one: one.ellipticity,
    "EE error": lambda one: one.ee_error,
    "FWHM to the right": lambda one: one.by_place and one.by_place[0],
    "FWHM to the top": lambda one: one.by_place and one.by_place[1],
    "FWHM with brightness": lambda one: one.by_brightness,
}


def _percent(value: Deviation | None) -> str:
    return "" if value is None or value.value != value.value else f"{100 * value.value:+.2f} ± {100 * value.error:.2f}"


def _values(found: Check) -> dict[str, Any]:
    figures = {name.lower().replace(" ", "_"): read(found) for name, read in FIGURES.items()}
    return {
        "stars": len(found),
        "verdict": found.verdict.name,
        "target_fwhm": found.target_fwhm,
        "tolerance": found.tolerance,
        **{name: None if value is None else value._asdict() for name, value in figures.items()},
        "growth": {"radius": found.radii, "difference": found.growth, "error": found.growth_error},
        "each": {"x": found.x, "y": found.y, "flux": found.flux, "fwhm": found.sizes, "error": found.size_errors},
    }
