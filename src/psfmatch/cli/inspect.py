"""``psfmatch inspect``: what a file is, and what its PSF is like over the field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psfmatch.cli.console import OK, Console, verb
from psfmatch.cli.plot import check_picture, save_figure

if TYPE_CHECKING:
    from psfmatch.inspection import FrameReport, KernelReport, PSFReport
    from psfmatch.provenance import Provenance

__all__ = ["inspect"]

UNDERSAMPLED = 2.0


@click.command(short_help="What a file is, and its PSF over the field.")
@click.argument("file", metavar="FILE")
@click.option("--psf", metavar="PSF", help="The PSF of the frame FILE: a file or words.")
@click.option("--format", "psf_format", metavar="NAME", help="The PSF format.  Default: what the content says.")
@click.option(
    "--shape",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="NX NY",
    help="Columns and rows of the field.  Default: that of the model, or of the frame.",
)
@click.option("--mesh", type=click.IntRange(min=1), default=3, show_default=True, help="Positions along either axis.")
@click.option("--pixel-scale", type=float, metavar="ARCSEC", help="A pixel of the image, where the file needs it.")
@click.option("--allow-pickle", is_flag=True, help="Load pickles, which can run any code, from FILE.")
@click.option(
    "--output", "-o", metavar="PICTURE.png", type=click.Path(path_type=Path), help="Draw the PSF (needs matplotlib)."
)
@click.option("--overwrite", is_flag=True, help="Replace a picture that exists.")
@verb
def inspect(
    console: Console, /, file: str, psf: str | None, psf_format: str | None, shape: Sequence[int] | None, mesh: int,
    pixel_scale: float | None, allow_pickle: bool, output: Path | None, overwrite: bool,
) -> int:  # fmt: skip
    """Say what FILE is: a PSF, with its FWHM and ellipticity over the field; a frame, with its planes and its PSF; or a
    matching kernel.  Of a file that psfmatch wrote also how it came to be: software, steps with their options, and the
    files it was made from with the SHA-256 of each.

    FILE may be of any PSF format that psfmatch reads, any frame, or words.  Where it holds several models, choose one
    in brackets: a chip, a band, an extension.

    \b
    Examples:
      psfmatch inspect image.psf -o image-psf.png
      psfmatch inspect "exposure.piff[12]" --mesh 5
      psfmatch inspect "psField-001000-1-0100.fit.gz[r]"
      psfmatch inspect frame.fits --psf frame.psf --json

    \b
    The table:
      x, y        positions, in pixels counted from 0
      FWHM        of the profile, in pixels
      1 - b/a     ellipticity of the core, from adaptive moments, and the angle of the long axis from +x towards +y
      sum         of the stamp, of a source of unit flux
      beyond      the flux beyond the stamp, as its wings and its sum say
    """
    from psfmatch.geometry import Box
    from psfmatch.inspection import FrameReport, KernelReport, PSFReport, inspect_file

    if output is not None:
        check_picture(output, overwrite=overwrite)
    box = Box(0, 0, shape[1], shape[0]) if shape else None
    report = inspect_file(
        file, psf=psf, box=box, mesh=mesh, format=psf_format, pixel_scale=pixel_scale, allow_pickle=allow_pickle
    )
    model = report if isinstance(report, PSFReport) else report.psf if isinstance(report, FrameReport) else None
    if isinstance(report, FrameReport):
        _print_frame(console, report)
    if isinstance(report, KernelReport):
        _print_kernel(console, report)
    if model is not None:
        _print_psf(console, model)
    if report.provenance is not None:
        _print_provenance(console, report.provenance)
    if output is not None:
        if model is None:
            what = "a kernel" if isinstance(report, KernelReport) else "a frame without a PSF model"
            raise click.UsageError(f"{file}: {what}, so that there is nothing to draw; give --psf")
        from psfmatch.plots import psf_over_field

        save_figure(psf_over_field(model), output, dpi=110)
        console.line(f"wrote {output}")
    console.result({"command": "inspect", "ok": True, **report.as_dict(), "output": output})
    return OK


def _print_frame(console: Console, report: FrameReport) -> None:
    frame = report.exposure
    ny, nx = frame.shape
    console.line(
        f"{report.name}: a frame of {nx} x {ny} px, {frame.image.dtype}{f', in {frame.unit}' * bool(frame.unit)}"
    )
    if report.noise is not None:
        console.line(f"noise of a pixel: {report.noise:.4g} (median)")
    if report.center is not None and frame.pixel_scale is not None:
        ra, dec = report.center
        console.line(f"centre: {ra:.6f} {dec:+.6f} deg, pixels of {frame.pixel_scale:.4g} arcsec")
    if report.counts:
        share = ((name, f"{count}", f"{100.0 * count / (nx * ny):.2f} %") for name, count in report.counts.items())
        console.table(("mask plane", "pixels", "share"), list(share))
    if report.psf is None:
        console.line("no PSF model")


def _print_kernel(console: Console, report: KernelReport) -> None:
    for label, one in report.as_dict()["kernels"].items():
        ky, kx = one["shape"]
        console.line(
            f"{report.name}{f', region {label}' * bool(label)}: a matching kernel of {kx} x {ky} px, "
            f"{one['terms']} terms ({one['variation']}, order {one['order']}); sum {one['sum']:.6g}, "
            f"noise gain {one['noise_gain']:.4g}"
        )


def _print_provenance(console: Console, made: Provenance) -> None:
    """The texts are those of a file, and not to be obeyed by a terminal."""
    printable = {name: json.dumps(version)[1:-1] for name, version in made.software.items()}
    console.line("written by " + ", ".join(f"{name} {version}" for name, version in printable.items()))
    for step in made.steps:
        console.line(f"  {json.dumps(step.name)[1:-1]}")
        for name, value in step.options.items():
            console.line(f"    {json.dumps(name)[1:-1]}: {json.dumps(value)[1:-1]}")
    console.table(
        ("made from", "SHA-256"),
        [(json.dumps(name)[1:-1], json.dumps(digest)[1:-1] or "not known") for name, digest in made.inputs],
    )


def _print_psf(console: Console, report: PSFReport) -> None:
    ny, nx = report.psf.shape
    what = "constant" if report.psf.constant else "varies over the field"
    if not report.psf.constant and report.box is None:
        what = "may vary, over a field that it does not know: give --shape; here at (0, 0)"
    console.line(f"{report.name or report.model}: {report.title} ({report.model}, {nx} x {ny} px); {what}")
    figures = (report.x, report.y, report.fwhm, report.ellipticity, report.angle, report.total, report.missing)
    table = [
        (f"{x:.0f}, {y:.0f}", f"{width:.3f}", f"{e:.4f}", f"{angle:.0f}", f"{total:.4f}", f"{beyond:.1e}")
        for x, y, width, e, angle, total, beyond in zip(*figures, strict=True)
    ]
    if len(table) > 1:
        all_of = report.summary
        table += [
            (name, f"{all_of['fwhm'][name]:.3f}", f"{all_of['ellipticity'][name]:.4f}", "",
             f"{all_of['total'][name]:.4f}", f"{all_of['missing'][name]:.1e}")
            for name in ("min", "median", "max")
        ]  # fmt: skip
    if report.fwhm.min() < UNDERSAMPLED:
        console.line("the pixels undersample this PSF: the FWHM is that of a spline through them, and too wide")
    console.table(("x, y", "FWHM", "1 - b/a", "angle", "sum", "beyond"), table)
