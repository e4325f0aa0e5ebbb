"""``psfmatch match``: images in, the same images with the target PSF out."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.figures import print_outcomes, print_quality, solution_values
from psfmatch.cli.settings import FORMAT_HELP, build, config_option, mask_planes_option, set_option

if TYPE_CHECKING:
    from psfmatch.exposure import Exposure
    from psfmatch.match import Matched

__all__ = ["match", "output_paths"]

PLANES = ("psf", "weight", "variance", "mask")


@click.command(short_help="Give images the PSF of your choice.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "--psf",
    multiple=True,
    metavar="P",
    help="The image's PSF: a file, words, or stars (made from its own).  Default: found beside it.",
)
@click.option("--target", "-t", required=True, metavar="T", help="The PSF it shall have: a file, or words.")
@click.option(
    "--output",
    "-o",
    required=True,
    metavar="OUT",
    help="The file to write; for several images a folder, or a name with {name} in it.",
)
@click.option("--weight", multiple=True, metavar="FILE", help="Inverse variance of the pixels.")
@click.option("--variance", multiple=True, metavar="FILE", help="Variance of the pixels.")
@click.option("--mask", multiple=True, metavar="FILE", help="Mask of the pixels.")
@mask_planes_option
@click.option("--format", "format_", metavar="NAME", help=FORMAT_HELP)
@click.option("--kernel-sum", type=float, default=1.0, show_default=True, help="The factor by which flux is scaled.")
@set_option("solver", "convolver")
@config_option(
    "psf", "target", "output", "weight", "variance", "mask", "mask_planes", "format", "kernel_sum", "memmap",
    "overwrite", "throw",
)  # fmt: skip
@click.option(
    "--memmap/--no-memmap",
    default=None,
    help="Leave the pixels in the files and convolve strip by strip, in little memory, to the same result.  Default: "
    "where the image's file is larger than an eighth of the memory.  Compressed files are still read as a whole.",
)
@click.option(
    "--debug", "-d", is_flag=True,
    help="Import debug.py from the Python path, as Rubin's tasks do, and show what it asks for: in DS9 where one runs, "
    "in windows, or as PNG files beside the output.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace output files that exist.")
@click.option(
    "--throw/--no-throw",
    default=True,
    help="--no-throw: write the image even if the kernel is not acceptable (the exit code is still 1).",
)
@verb
def match(
    console: Console, /, images: Sequence[Path], target: str, output: str, mask_planes: str | None, format_: str | None,
    kernel_sum: float, settings: Sequence[str], config: dict[str, Any], memmap: bool | None, overwrite: bool,
    throw: bool, debug: bool, **planes: Sequence[str],
) -> int:  # fmt: skip
    """Match the PSF of each IMAGE to one target PSF.

    Reads the image with its variance and mask, and its PSF; solves for the kernel that turns this PSF into the
    target; convolves image, variance and mask with it; measures how well the PSFs agree, at positions where the
    kernel was not solved; and writes all of it to OUT: image, mask, variance, kernel, target and the figures.

    What belongs to an image and is not given is looked for in the file itself and beside it.  With several images
    --psf, --weight, --variance and --mask are given once for each, in the same order (or once for all of them).
    An image that fails does not stop the others.

    \b
    Examples:
      psfmatch match image.fits --psf image.psf -t gaussian:fwhm=1.4arcsec -o matched.fits
      psfmatch match image.fits --weight image.weight.fits --psf image.psf -t moffat:fwhm=5,beta=3.5 -o out.fits
      psfmatch match image.fits --psf stars -t moffat:fwhm=5,beta=3.5 -o matched.fits
      psfmatch match *.fits -t moffat:fwhm=5,beta=3.5 -o matched/
      psfmatch match image.fits --psf image.psf -t deep.psf -o out.fits --set solver.order=2

    \b
    The figures:
      residual       norm2(K*S - T) / norm2(T), median and worst over 25 positions
      EE error       largest difference of the two encircled energies at any radius
      noise gain     sum of K^2: what the variance of white noise is multiplied by
      negative flux  sum of the kernel's negative pixels
    """
    import psfmatch
    from psfmatch.display import load_debug, show

    if debug:
        load_debug()
    parts = build(config, settings, "solver", "convolver")
    several = len(images) > 1
    images = _without_psfs(images)
    belongings = [_one_each(name, planes[name], len(images)) for name in PLANES]
    outputs = output_paths(images, output, several=several, overwrite=overwrite)
    matches: dict[str, Matched] = {}
    reports: list[dict[str, Any]] = []
    code = OK
    with console.steps(3 * len(images)) as step:
        for image, out, *given in zip(images, outputs, *belongings, strict=True):
            begin = time.perf_counter()
            report: dict[str, Any] = {"image": str(image), "output": None, "ok": False}
            reports.append(report)
            with console.guard(str(image)) as failure:
                step(f"{image.name}: reading")
                belongs = dict(zip(PLANES, given, strict=True))
                mapped = _is_large(image) if memmap is None else memmap
                exposure = read_with_psf(
                    console, report, image, mask_planes=mask_planes, format=format_, memmap=mapped, **belongs
                )
                step(f"{image.name}: matching")
                matched = psfmatch.planned_match(
                    exposure, target, solver=parts["solver"], kernel_sum=kernel_sum, throw=throw
                )
                step(f"{image.name}: convolving and writing")
                out.parent.mkdir(parents=True, exist_ok=True)
                _convolve(exposure, matched, out, parts["convolver"], mapped=mapped, overwrite=overwrite)
                if debug:
                    console.note(_shown(show(matched, before=exposure, folder=out.parent)))
                lost = matched.solution.statistics.get("regions_lost", 0)
                good = matched.solution.outcome.ok and not lost
                matches[_stem(image)] = matched
                report.update(solution_values(matched.solution, matched.quality), output=str(out), ok=good)
                if not good:
                    code = max(code, NO_MATCH)
                    words = f"{lost} regions have no kernel, and no data" if lost else "its kernel is not acceptable"
                    console.note(f"error: {image}: {words} (written all the same)")
            if failure:
                code = max(code, failure[0])
                report["error"] = console.errors[-1]
                if failure[0] == NO_MATCH and throw:
                    console.note(f"  {out} is not written; with --no-throw it is, and psfmatch report shows why")
            report["seconds"] = time.perf_counter() - begin
            report["steps"] = console.seconds()
    print_quality(console, {name: matched.quality for name, matched in matches.items()})
    print_outcomes(console, {name: matched.solution for name, matched in matches.items()})
    if console.verbose:
        _print_statistics(console, matches)
    for report in reports:
        if report["output"]:
            console.line(f"wrote {report['output']}")
            if report["outcome"] != "OK":
                console.line(f"  why, and what to do: psfmatch report {report['output']} --before {report['image']}")
    if several:
        count = sum(report["ok"] for report in reports)
        console.line(f"{count} of {len(images)} images matched")
    console.result({"command": "match", "ok": code == OK, "target": target, "images": reports})
    return code


def _shown(count: int) -> str:
    if count:
        return f"debug display: {count} frames"
    return "debug display: debug.py asks for nothing (display, and one of displaySpatialCells, displayCandidates ...)"


def read_with_psf(
    console: Console, report: dict[str, Any], image: Path, *, psf: str | None, **options: Any
) -> Exposure:
    """The exposure; of a PSF made from its stars, it is said how good that is."""
    import psfmatch
    from psfmatch.io.exposures import FROM_STARS

    if psf != FROM_STARS:
        return psfmatch.read_exposure(image, psf=psf, **options)
    exposure = psfmatch.read_exposure(image, **options)
    made = psfmatch.psf_from_stars(exposure)
    console.line(f"{image.name}: {made}")
    report["psf_from_stars"] = made.values
    return exposure.replace(psf=made.psf, history=exposure.history.then("psf_from_stars", {}))


def _without_psfs(images: Sequence[Path]) -> Sequence[Path]:
    """Of several files, those that hold more than a PSF model: what a pattern catches beside the images."""
    from psfmatch.errors import PsfMatchWarning
    from psfmatch.io.psfs import is_only_a_model

    models = [image for image in images if is_only_a_model(image)] if len(images) > 1 else []
    if len(models) == len(images):
        return images
    for model in models:
        warnings.warn(f"{model}: a PSF model and no image; left out", PsfMatchWarning, stacklevel=2)
    return [image for image in images if image not in models]


def _is_large(image: Path) -> bool:
    """Whether the file is larger than an eighth of the memory."""
    file = Path(re.sub(r"\[[^]]*\]$", "", str(image)))
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or not file.exists():
        return False
    return 8 * file.stat().st_size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _convolve(exposure: Exposure, plan: Matched, out: Path, convolver: Any, *, mapped: bool, overwrite: bool) -> None:
    """Convolve an exposure as planned, and write it: strip by strip into the file, or as a whole."""
    import psfmatch
    from psfmatch.convolve import convolved
    from psfmatch.machine import timed

    convolver = psfmatch.FFT() if convolver is None else convolver
    history = convolved(plan.exposure.history, convolver)
    if mapped and isinstance(convolver, psfmatch.FFT):
        plan = replace(plan, exposure=plan.exposure.replace(history=history))
        with psfmatch.io.matched_output(plan, out, overwrite=overwrite) as planes, timed("convolved", "convolve"):
            psfmatch.convolve(exposure, plan.kernel, convolver=replace(convolver, out=planes))
        return
    with timed("convolved", "convolve"):
        matched = psfmatch.convolve(exposure, plan.kernel, convolver=convolver)
    matched = matched.replace(psf=plan.exposure.psf, history=history)
    psfmatch.io.write_matched(replace(plan, exposure=matched), out, overwrite=overwrite)


def output_paths(images: Sequence[Path], output: str, *, several: bool, overwrite: bool) -> list[Path]:
    """Where each image goes: OUT itself, a file in the folder OUT, or OUT with {name} filled in.

    Raises
    ------
    click.UsageError
        If two images would go to one file.
    FileExistsError
        If a file is in the way.
    InputError
        If a name is not that of a FITS file.
    """
    from psfmatch.io.files import fits_suffix

    names = [_stem(image) for image in images]
    if "{name}" in output:
        paths = [Path(output.replace("{name}", name)) for name in names]
    elif several or output.endswith("/") or Path(output).is_dir():
        if Path(output).suffix == ".fits" or Path(output).is_file():
            raise click.UsageError(
                f"-o {output} is one file for {len(images)} images: give a folder, or a name with {{name}} in it"
            )
        paths = [Path(output) / f"{name}-matched.fits" for name in names]
    else:
        paths = [Path(output)]
    for k, path in enumerate(paths):
        fits_suffix(path)
        if path in paths[:k]:
            raise click.UsageError(f"{images[paths.index(path)]} and {images[k]} would both be written to {path}")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite to replace it, or another -o")
    return paths


def _stem(image: Path) -> str:
    """The file's name without what says of which kind it is."""
    return re.sub(r"\.(fits?(\.(gz|fz|bz2|xz))?|asdf|json)$", "", image.name, flags=re.IGNORECASE)


def _one_each(name: str, values: Sequence[str], count: int) -> list[str | None]:
    """The value of an option for each image."""
    if len(values) not in (0, 1, count):
        raise click.UsageError(f"--{name} is given {len(values)} times for {count} images: give it once for each")
    return list(values) if len(values) == count else [values[0] if values else None] * count


def _print_statistics(console: Console, matches: dict[str, Matched]) -> None:
    for name, matched in matches.items():
        solution = matched.solution
        console.line(f"\n{name}: {solution.message}")
        console.line(f"  {len(solution.cells)} cells, {len(solution.cells.skipped)} skipped")
        for key, value in solution.statistics.items():
            console.line(f"  {key}: {value}")
