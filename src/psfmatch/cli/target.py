"""``psfmatch target``: the best common target of several images or PSFs, and what it costs each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.match import _one_each, _stem
from psfmatch.cli.settings import FORMAT_HELP, build, config_option, given, mask_planes_option, set_option

if TYPE_CHECKING:
    from psfmatch.provenance import History
    from psfmatch.psf import PSF
    from psfmatch.target import TargetCost
    from psfmatch.target.inputs import Input

__all__ = ["target"]

SAME_SCALE = 1e-3
OUTLIER = 1.1


@click.command(short_help="The best common target, and what it costs each input.")
@click.argument("sources", nargs=-1, required=True, metavar="IMAGE_OR_PSF...")
@click.option(
    "--psf", multiple=True, metavar="PSF",
    help="PSF of the images: once for all, or once for each.  stars: made from the image's own.",
)  # fmt: skip
@click.option(
    "--family",
    show_default="moffat",
    help="moffat (its beta is chosen), moffat:beta=3.5, gaussian, double-gaussian, or envelope (what none of the "
    "inputs falls below at any spatial frequency).",
)
@click.option("--tolerance", type=float, show_default="0.001", help="The residual that is allowed.")
@click.option(
    "--max-noise-gain",
    type=float,
    help="The noise gain that is allowed.  [default: no spatial frequency is amplified, so that nothing is sharpened]",
)
@click.option(
    "--leave-out", multiple=True, metavar="NAME", help="An input, by its name in the table.  Can be repeated."
)
@click.option("--output", "-o", metavar="TARGET.fits", type=click.Path(path_type=Path), help="Write the target here.")
@mask_planes_option
@click.option("--format", "format_", metavar="NAME", help=FORMAT_HELP)
@set_option("common_target")
@config_option(
    "psf", "family", "tolerance", "max_noise_gain", "leave_out", "output", "mask_planes", "format", "overwrite"
)
@click.option("--overwrite", is_flag=True, help="Replace an output file that exists.")
@verb
def target(
    console: Console, /, sources: Sequence[str], psf: Sequence[str], family: str | None, tolerance: float | None,
    max_noise_gain: float | None, leave_out: Sequence[str], output: Path | None, mask_planes: str | None,
    format_: str | None, settings: Sequence[str], config: dict[str, Any], overwrite: bool,
) -> int:  # fmt: skip
    """The smallest circular PSF that every input can be given, and its price.

    An input is an image with its PSF model in it, beside it or given with --psf; or a PSF: a file or words.  All must
    have pixels of the same size.  An image is judged over its own frame.

    \b
    Examples:
      psfmatch target *.fits
      psfmatch target *.psf --family gaussian --leave-out cloudy
      psfmatch match *.fits -t "$(psfmatch target -q *.fits)" -o matched/

    \b
    The table:
      FWHM        of the input, where it is broadest, in pixels
      needs       FWHM of the smallest target of the family that this input alone allows
      residual    norm2(K*S - T) / norm2(T), worst in the field; * above the tolerance or the noise limit
      noise gain  sum of K^2: what the variance of white noise is multiplied by
      amplified   largest factor by which any spatial frequency is amplified
      kernel      rows and columns of the kernel
    """
    from psfmatch.target import common_target, target_cost, target_width, target_words

    options = given("common_target", family=family, tolerance=tolerance, max_noise_gain=max_noise_gain)
    search = build(config, [*options, *settings], "common_target")["common_target"] or partial(common_target)

    if output is not None and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; give --overwrite to replace it, or another -o")
    with console.steps(3) as step:
        step("reading")
        inputs, kept, scale = _inputs(sources, psf, leave_out, mask_planes=mask_planes, format=format_)
        step("searching the target")
        found = search(inputs)
        step("pricing")
        costs = target_cost(inputs, found, **{key: value for key, value in search.keywords.items() if key != "family"})
    words = target_words(found)
    arcsec = None if scale is None else target_words(found, pixel_scale=scale)
    _print_costs(console, costs)
    if not all(cost.reached for cost in costs):
        console.line("* above the tolerance or the noise limit; it is used all the same")
    without = _outlier(costs)
    if without is not None:
        console.line(
            f"\n{without['name']} alone makes it so wide: --leave-out it, and about {without['fwhm']:.2f} px do"
        )
    _print_target(console, target_width(found), words, arcsec)
    if output is not None:
        _write(found, output, words, scale, _history(kept, inputs, search.keywords), overwrite=overwrite)
        console.line(f"wrote {output}")
    good = all(cost.outcome.ok for cost in costs)
    values = {"command": "target", "ok": good, "target": words, "target_arcsec": arcsec, "fwhm": target_width(found)}
    rows = [{**dataclasses.asdict(cost), "outcome": cost.outcome.name} for cost in costs]
    console.result({**values, "pixel_scale": scale, "inputs": rows, "without": without, "output": output})
    return OK if good else NO_MATCH


def _inputs(
    sources: Sequence[str], psfs: Sequence[str], leave_out: Sequence[str], **options: Any
) -> tuple[dict[str, Input], list[str], float | None]:
    """The inputs by name, words last in reading; where they are from; and the size of a pixel in arcsec, if known."""
    from psfmatch.errors import InputError
    from psfmatch.io import read_psf
    from psfmatch.io.words import are_words

    stems = [_stem(Path(source)) for source in sources]
    names = [stem if stems.count(stem) == 1 else source for stem, source in zip(stems, sources, strict=True)]
    words = [not Path(source).exists() and are_words(source) for source in sources]
    names = [source if word else name for source, name, word in zip(sources, names, words, strict=True)]
    for name in leave_out:
        if name not in names and name not in sources:
            raise click.UsageError(f"--leave-out {name}: there are {', '.join(names)}")
    kept = [k for k in range(len(sources)) if not {names[k], sources[k]} & set(leave_out)]
    given = _one_each("psf", psfs, len(sources))
    read = {names[k]: _read(sources[k], given[k], options) for k in kept if not words[k]}
    scales = {name: scale for name, (_, scale) in read.items() if scale is not None}
    least, most = (min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)) if scales else ("", "")
    if scales and scales[most] > (1.0 + SAME_SCALE) * scales[least]:
        raise InputError(
            f"the pixels of {least} are {scales[least]:.4g} arcsec wide, those of {most} {scales[most]:.4g}: inputs of "
            "different pixel scales come with a later version; bring them to one scale first"
        )
    scale = scales[least] if scales else None
    inputs = {name: source for name, (source, _) in read.items()}
    inputs |= {names[k]: read_psf(sources[k], pixel_scale=scale) for k in kept if words[k]}
    return {names[k]: inputs[names[k]] for k in kept}, [sources[k] for k in kept], scale


def _read(source: str, psf: str | None, options: Mapping[str, Any]) -> tuple[Input, float | None]:
    """An image with its PSF, or else a PSF, and the size of a pixel in arcsec."""
    from psfmatch.errors import FormatError, InputError, PSFError
    from psfmatch.io import read_exposure, read_psf, read_stamp

    try:
        exposure = read_exposure(source, psf=psf, **options)
    except FormatError:
        if psf is not None:
            raise
        return read_psf(source), None
    if exposure.psf is not None:
        return exposure, exposure.pixel_scale
    try:
        stamp = read_stamp(source)
        return read_psf(source), None if stamp is None else stamp.pixel_scale
    except PSFError as error:
        raise InputError(f"{source}: an image without a PSF model (give --psf), or a bad stamp: {error}") from error


def _outlier(costs: Sequence[TargetCost]) -> Mapping[str, Any] | None:
    """The one of three or more inputs without which the target would be a tenth narrower."""
    ranked = sorted(costs, key=lambda cost: cost.smallest)
    if len(ranked) < 3 or not ranked[-1].smallest > OUTLIER * ranked[-2].smallest:
        return None
    return {"name": ranked[-1].name, "fwhm": ranked[-2].smallest}


def _print_costs(console: Console, costs: Sequence[TargetCost]) -> None:
    console.table(
        ("input", "FWHM", "needs", "residual", "noise\ngain", "amplified", "kernel"),
        [
            (
                cost.name,
                f"{cost.fwhm:.2f}",
                f"{cost.smallest:.2f}",
                f"{cost.residual:.1e}{' ' if cost.reached else '*'}",
                f"{cost.noise_gain:.3f}",
                f"{cost.amplification:.2f}",
                str(cost.kernel_size),
            )
            for cost in costs
        ],
    )


def _print_target(console: Console, width: float, words: str | None, arcsec: str | None) -> None:
    """The words for ``match --target``, alone on stdout with ``--quiet``."""
    if console.quiet and words and not console.as_json:
        click.echo(words)
    console.line(f"\ntarget: {words or f'an image, of FWHM {width:.3f} px (write it with -o)'}")
    if arcsec:
        console.line(f"        {arcsec}")


def _history(sources: Sequence[str], inputs: Mapping[str, Input], options: Mapping[str, Any]) -> History:
    """The files of the inputs, those of exposures as they were read, and the options of the search."""
    from psfmatch import Exposure, History

    read = [one.history.files for one in inputs.values() if isinstance(one, Exposure)]
    files = [source for source, one in zip(sources, inputs.values(), strict=True) if not isinstance(one, Exposure)]
    known = History(tuple(dict.fromkeys(file for some in read for file in some)))
    return known.then("common_target", {"inputs": ", ".join(inputs), **options}, files=files)


def _write(
    found: PSF, output: Path, words: str | None, scale: float | None, history: History, *, overwrite: bool
) -> None:
    """The target as a stamp that every verb reads as a PSF."""
    from astropy.io import fits

    from psfmatch.io import provenance_hdu
    from psfmatch.io.files import atomic_output, fits_suffix
    from psfmatch.io.fits import write_hdus

    fits_suffix(output)
    hdu = fits.PrimaryHDU(found.stamps(x=0, y=0)[0].copy())
    if words:
        hdu.header["PSFWORDS"] = (words, "in pixels")
    if scale is not None:
        hdu.header["PIXSCALE"] = (scale, "arcsec a pixel")
    with atomic_output(output, overwrite=overwrite) as out:
        write_hdus([hdu, provenance_hdu(history)], out)
