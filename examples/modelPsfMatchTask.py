"""Match the PSF of one exposure to that of another with `ModelPsfMatchTask`.

    python examples/modelPsfMatchTask.py
    python examples/modelPsfMatchTask.py --debug
    python examples/modelPsfMatchTask.py --template template.fits --science science.fits --output matched.fits

The PSF of the template is what the science exposure is matched to.  Without files, two frames of stars are made up.
The files hold their PSF models, as psfmatch writes them (`psfmatch.write_exposure`); needs ``psfmatch[lsst]``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psfmatch import Exposure, PsfMatchError, convolve, read_exposure, write_matched
from psfmatch.display import load_debug
from psfmatch.kernel import MatchingKernel
from psfmatch.lsst import ModelPsfMatchConfig, ModelPsfMatchTask, SingleGaussianPsf, Struct

CELL, CELLS, STAMP, FLUX = 128, 3, 21, 1e4


class MyModelPsfMatchTask(ModelPsfMatchTask):
    """The task for two exposures: the template's PSF is the target."""

    def run(self, templateExp: Exposure, scienceExp: Exposure) -> Struct:  # type: ignore[override]
        if templateExp.psf is None:
            raise PsfMatchError("the template has no PSF model")
        return super().run(scienceExp, templateExp.psf)


def frame(sigma: float) -> Exposure:
    """A star at the centre of every cell, with a Gaussian PSF."""
    points = np.zeros((CELL * CELLS, CELL * CELLS), np.float32)
    points[CELL // 2 :: CELL, CELL // 2 :: CELL] = FLUX
    psf = SingleGaussianPsf(STAMP, STAMP, sigma)
    empty = Exposure(points, variance=np.ones_like(points), psf=psf)
    image = convolve(empty, MatchingKernel.constant(psf.stamps(x=0, y=0)[0], empty.box)).image
    return empty.replace(image=image)


def show(exposure: Exposure, name: str, directory: Path) -> None:
    """Save a picture of an exposure, if matplotlib is there, and say where."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no pictures: matplotlib is not installed", file=sys.stderr)
        return
    directory.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    finite = exposure.image[np.isfinite(exposure.image)]
    low, high = np.percentile(finite, (1, 99.9))
    box = exposure.box
    extent = (box.x0 - 0.5, box.x1 - 0.5, box.y0 - 0.5, box.y1 - 0.5)
    axes.imshow(exposure.image, origin="lower", extent=extent, vmin=low, vmax=high, cmap="gray")
    axes.set(title=name, xlabel="x (px)", ylabel="y (px)")
    figure.savefig(directory / f"{name}.png")
    print(f"picture: {directory / f'{name}.png'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit code is 0, 1 if the match failed, or 2 if it was called wrongly."""
    parser = argparse.ArgumentParser(description="Match the PSF of an exposure to that of another.")
    parser.add_argument("-t", "--template", type=Path, help="exposure with the PSF to match to")
    parser.add_argument("-s", "--science", type=Path, help="exposure to be matched")
    parser.add_argument("-o", "--output", type=Path, help="FITS file to write the matched exposure to")
    parser.add_argument(
        "-d",
        "--debug",
        action="store_true",
        help="log more, diagnose the fit, save pictures, and show what debug.py asks for",
    )
    parser.add_argument("--pictures", type=Path, default=Path("."), help="where the pictures go")
    args = parser.parse_args(arguments)
    if (args.template is None) != (args.science is None):
        print("give both --template and --science, or neither", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO if args.debug else logging.ERROR, format="%(name)s: %(message)s")

    if args.debug:
        try:
            load_debug()
        except PsfMatchError as error:
            print(error, file=sys.stderr)

    config = ModelPsfMatchConfig()
    config.kernel.active.scaleByFwhm = False
    try:
        if args.template is None:
            template, science = frame(3.0), frame(2.0)
            config.kernel.active.sizeCellX = config.kernel.active.sizeCellY = CELL
        else:
            template, science = read_exposure(args.template), read_exposure(args.science)
        task = MyModelPsfMatchTask(config=config)
        result = task.run(template, science)
        if args.output is not None:
            write_matched(result.matched, args.output)
    except (PsfMatchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1

    print(result.matched.quality)
    print(f"kernel of {result.psfMatchingKernel.getWidth()} x {result.psfMatchingKernel.getHeight()} px", end=", ")
    print(", ".join(f"{key} {values}" for key, values in result.metadata.items()))
    if args.output is not None:
        print(f"matched exposure: {args.output}")
    if args.debug:
        task.diagnostic()
        for name, exposure in (("template", template), ("science", science), ("matched", result.psfMatchedExposure)):
            show(exposure, name, args.pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
