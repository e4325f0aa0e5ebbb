"""``psfmatch demo``: the main job on real frames that come with the package."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psfmatch.cli.console import NO_MATCH, OK, Console, verb
from psfmatch.cli.demo_coadd import Sums, added, draw_sums, print_sums, sum_values
from psfmatch.cli.figures import print_outcomes, print_quality, solution_values

if TYPE_CHECKING:
    from psfmatch.exposure import Exposure
    from psfmatch.match import Matched
    from psfmatch.stars import Star

__all__ = ["FRAMES", "TARGET", "demo", "demo_data", "measured"]

TARGET = "moffat:fwhm=4.9,beta=3.5"
TARGET_FWHM = 4.9
RADIUS = 12.0
FRAMES = {
    "N2": ("c4d_170316_062107_ooi_z_ls9.N2.fits.gz", "CCD N2, 2017-03-16"),
    "S1": ("c4d_170419_042827_ooi_z_ls9.S1.fits.gz", "CCD S1, 2017-04-19"),
    "N3": ("c4d_180212_083009_ooi_z_ls9.N3.fits.gz", "CCD N3, 2018-02-12"),
    "N3b": ("c4d_150411_035242_ooi_z_ls9.N3.fits.gz", "CCD N3, 2015-04-11"),
}


@dataclass(frozen=True, eq=False)
class Result:
    """One frame of the demo, and its brightest unsaturated star: before, in its PSF model, and after."""

    title: str
    exposure: Exposure
    matched: Matched
    star: Star
    model: Star
    after: Star
    frame: Path
    path: Path


@click.command(short_help="Match and add four real images that come with the package.")
@click.option(
    "--output", "-o", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write.  [default: psfmatch-demo, or the first of psfmatch-demo-2, -3 ... that is free]"
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run has left in the folder.")
@verb
def demo(console: Console, /, output: Path | None, overwrite: bool) -> int:
    """Match four real DECam images to one PSF, add them, and show that their stars have it.

    The frames are z-band cut-outs of one field, taken on four nights in different seeing, each with its weight map,
    mask and a PSF model that varies over the field.  All are given a Moffat profile of 4.9 pixels FWHM (beta 3.5), and
    brought to one grid and added.

    Writes a FITS file for each frame and one for the coadd, and the pictures before_after.png and coadd.png (these need
    matplotlib: pip install "psfmatch[plots]", in a clone ".[plots]").  Prints how well the PSF models were matched,
    and, from the pixels themselves, the width of the brightest unsaturated star before and after; the coadd is shown
    beside the plain mean of the frames.

    \b
    Examples:
      psfmatch demo
      psfmatch demo -o /tmp/demo --overwrite
    """
    folder = _folder(output, overwrite)
    begin = time.perf_counter()
    results: dict[str, Result] = {}
    with console.steps(len(FRAMES) + 1) as step:
        for name, (file, title) in FRAMES.items():
            step(title)
            results[name] = _match_frame(demo_data() / file, title, folder, overwrite)
        step("coadd")
        exposures = {name: result.exposure for name, result in results.items()}
        sums = added(exposures, TARGET, TARGET_FWHM, folder / "coadd.fits", overwrite=overwrite)
    console.line(f"DECam z band, matched to {TARGET} (pixels)\n")
    print_quality(console, {name: result.matched.quality for name, result in results.items()})
    console.line()
    print_outcomes(console, {name: result.matched.solution for name, result in results.items()})
    console.line(
        f"\nThe brightest unsaturated star: FWHM in px of the elliptical Moffat profile (beta free) that fits its "
        f"pixels within {RADIUS:g} px"
    )
    console.table(
        ("image", "before", "PSF\nmodel", "star/\nmodel", "after", "after/\ntarget"),
        [_star_row(name, result) for name, result in results.items()],
    )
    for name, result in results.items():
        excess = result.model.fwhm / result.star.fwhm - 1.0
        if abs(excess) > 0.02:
            console.line(
                f"\n{name}: the PSF model that comes with this frame is {100 * abs(excess):.1f} % "
                f"{'broader' if excess > 0 else 'narrower'} than its star.  No kernel can mend that: "
                "a match is as good as the model."
            )
    print_sums(console, sums, TARGET_FWHM)
    pictures = _draw(list(results.values()), sums, folder)
    console.line()
    for path in [*(result.path for result in results.values()), sums.path, *pictures]:
        console.line(f"wrote {path}")
    if not pictures:
        console.note('no pictures: matplotlib is not installed; pip install "psfmatch[plots]", in a clone ".[plots]"')
    _print_next(console, list(results.values()))
    code = OK if all(result.matched.solution.outcome.ok for result in results.values()) else NO_MATCH
    seconds = time.perf_counter() - begin
    console.line(f"{seconds:.1f} s")
    console.result(
        {
            "command": "demo", "ok": code == OK, "target": TARGET, "target_fwhm": TARGET_FWHM, "seconds": seconds,
            "pictures": pictures, "sums": sum_values(sums), "steps": console.seconds(),
            "images": {name: _values(result) for name, result in results.items()},
        }
    )  # fmt: skip
    return code


def _print_next(console: Console, results: Sequence[Result]) -> None:
    """Where the frames lie, and what to try on them."""
    console.line("\nThe frames, each with its weight map, mask and PSF model beside it:")
    for result in results:
        console.line(f"  {result.frame}")
    frame, path = results[-1].frame, results[-1].path
    console.line("Now look at one, and match it with a kernel that is too small, to see why it is bad:")
    console.line(f"  psfmatch report {path} --before {frame}")
    console.line(f"  psfmatch match {frame} -t {TARGET} -o small.fits --set solver.size=7 --no-throw")
    console.line(f"  psfmatch report small.fits --before {frame}\n")


def demo_data() -> Path:
    """The folder with the frames."""
    return Path(str(files("psfmatch"))) / "data" / "demo"


def measured(exposure: Exposure, *, x: float, y: float) -> Star:
    """The profile of the star at a position, as the demo measures it."""
    from psfmatch.stars import fit_moffat

    return fit_moffat(exposure, x=x, y=y, radius=RADIUS)


def _folder(output: Path | None, overwrite: bool) -> Path:
    """The folder to write to, made anew unless ``overwrite``."""
    if output is None:
        output = next(path for path in _names() if overwrite or not path.exists())
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise click.UsageError(f"{output} exists and is not empty; give --overwrite, or another folder with -o")
    output.mkdir(parents=True, exist_ok=True)
    return output


def _names() -> Iterator[Path]:
    yield Path("psfmatch-demo")
    number = 2
    while True:
        yield Path(f"psfmatch-demo-{number}")
        number += 1


def _match_frame(file: Path, title: str, folder: Path, overwrite: bool) -> Result:
    """Match one frame, write it, and measure its star."""
    import psfmatch
    from psfmatch.stars import find_stars

    exposure = psfmatch.read_exposure(file)
    matched = psfmatch.match(exposure, TARGET)
    path = folder / f"{file.name.removesuffix('.fits.gz')}-matched.fits"
    psfmatch.io.write_matched(matched, path, overwrite=overwrite)
    place = find_stars(exposure, saturation=exposure.meta.get("SATURATE"))[0]
    star = measured(exposure, x=place.x, y=place.y)
    model = measured(_model_image(exposure, star), x=place.x, y=place.y)
    after = measured(matched.exposure, x=place.x, y=place.y)
    return Result(title, exposure, matched, star, model, after, file, path)


def _model_image(exposure: Exposure, star: Star) -> Exposure:
    """The exposure with nothing in it but its own model of the star, without noise."""
    import numpy as np

    assert exposure.psf is not None
    stamp = exposure.psf.stamps(x=star.x, y=star.y)[0]
    (sy, sx), (ny, nx) = stamp.shape, exposure.shape
    row, column = round(star.y) - exposure.box.y0, round(star.x) - exposure.box.x0
    image = np.zeros((ny + sy, nx + sx))
    image[row : row + sy, column : column + sx] = star.flux * stamp
    return exposure.replace(image=image[sy // 2 : sy // 2 + ny, sx // 2 : sx // 2 + nx])


def _draw(results: Sequence[Result], sums: Sums, folder: Path) -> list[Path]:
    """The pictures, where matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return []
    from psfmatch.plots import BeforeAfter, before_after

    pairs = [
        BeforeAfter(r.title, r.exposure, r.matched.exposure, r.star, r.after, target_fwhm=TARGET_FWHM) for r in results
    ]
    path = folder / "before_after.png"
    before_after(pairs).savefig(path, dpi=160)
    return [path, draw_sums(sums, TARGET_FWHM, folder / "coadd.png")]


def _star_row(name: str, result: Result) -> tuple[str, ...]:
    star, model, after = result.star, result.model, result.after
    return (
        name, f"{star.fwhm:.3f} ± {star.fwhm_error:.3f}", f"{model.fwhm:.3f}", f"{star.fwhm / model.fwhm - 1:+.2%}",
        f"{after.fwhm:.3f}", f"{after.fwhm / TARGET_FWHM - 1:+.2%}",
    )  # fmt: skip


def _values(result: Result) -> dict[str, Any]:
    fwhm = {"before": result.star.fwhm, "before_error": result.star.fwhm_error, "model": result.model.fwhm}
    fwhm["after"] = result.after.fwhm
    return {
        **solution_values(result.matched.solution, result.matched.quality),
        "input": result.frame,
        "output": result.path,
        "star": {"x": result.star.x, "y": result.star.y, "beta_after": result.after.beta, "fwhm": fwhm},
    }
