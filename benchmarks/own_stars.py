#!/usr/bin/env python
"""PSF models made from a frame's own stars, on real frames: against the models that came with them, and photutils'.

    python benchmarks/own_stars.py [--data ../shared/data] [--match]

The data are not part of the package: the script needs viking_Z_pair (two VISTA frames of one field, 1000 x 1000 px,
without a mask or a variance, each with a PSFEx model) and decam_coma_9exp (nine DECam cut-outs) under ``--data``, and
says so without them.

Each model is made from one half of the stars and compared with the other half, and the other way round: the mean of
the stars' size relative to the model's, the mean star less the model relative to the norm of the model (noise
subtracted), and the largest error of the encircled energy.  PSFEx models that came with a frame have seen all stars.
photutils' EPSFBuilder (where it is installed) gets the same stars, oversampled twice.

With ``--match`` both VISTA frames are matched to a Moffat profile of 3.3 px, and the stars of the matched frames are
measured: the bar is that the two agree in FWHM within 1 %.
"""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import psfmatch
from psfmatch.moments import fwhm
from psfmatch.stars import Cutout, StarSelection, fit_moffat
from psfmatch.stars.compare import Profile, compared, stacked, tabulated, weighted_mean
from psfmatch.stars.empirical import _chosen_order, _compared, _fitted

TARGET = psfmatch.MoffatPSF(fwhm=3.3, beta=3.5)


def with_own(stars: Sequence[Cutout], box: psfmatch.Box, order: int) -> Callable[[Cutout], Profile]:
    model, _ = _fitted(stars, box, order)
    return lambda star: model.profile(star.x, star.y)


def with_photutils(stars: Sequence[Cutout], exposure: psfmatch.Exposure, width: float) -> Callable[[Cutout], Profile]:
    """photutils' effective PSF of these stars, oversampled twice."""
    from astropy.nddata import NDData
    from astropy.table import Table
    from photutils.psf import EPSFBuilder, extract_stars

    half = int(np.ceil(5 * width))
    sky = np.median(exposure.image[np.isfinite(exposure.image)])
    table = Table({"x": [s.x - exposure.box.x0 for s in stars], "y": [s.y - exposure.box.y0 for s in stars]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cutouts = extract_stars(NDData(np.nan_to_num(exposure.image) - sky), table, size=2 * half + 1)
        built = EPSFBuilder(oversampling=2, progress_bar=False)(cutouts)
    epsf = built[0]
    image = np.asarray(epsf.data) / (np.asarray(epsf.data).sum() / 4)
    profile = tabulated(image, 0.5)
    return lambda star: profile


def judged(name: str, fits, width: float, image: np.ndarray, order: str = "") -> None:
    size = np.array([f.stretch[0] for f in fits])
    variance = np.array([f.stretch_variance[0] for f in fits]) + 0.003**2
    mean, error = weighted_mean(size, variance)
    half = int(3 * width)
    stack = stacked(fits, half)
    residual = np.sqrt(max(0.0, float((stack.residual**2 - stack.error**2).sum()))) / np.linalg.norm(image)
    chi2 = np.median([f.plain.chi2 for f in fits])
    ee = np.abs(stack.enclosed()).max()
    print(f"  {name:12s} size {100 * mean:+6.2f} ± {100 * error:4.2f} %   residual {residual:.4f}   EE {ee:.4f}   "
          f"chi2 {chi2:6.2f}  {order}")  # fmt: skip


def models(exposure: psfmatch.Exposure, shipped: psfmatch.PSF | None) -> None:
    stars, _ = StarSelection().cutouts(exposure)
    box = exposure.box
    model, error = _fitted(stars, box, 0)
    order, good = _chosen_order(model, _compared(model, stars, error), 2)
    stars = [star for star, keep in zip(stars, good, strict=True) if keep]
    model, error = _fitted(stars, box, order)
    table = model.profile(box.center.x, box.center.y)
    axis = np.arange(-20.0, 21.0)
    image = table(*(g.ravel() for g in np.meshgrid(axis, axis))).reshape(41, 41)
    width = fwhm(image)
    print(f"  {len(stars)} stars, FWHM {width:.2f} px")
    ways = {"own stars": lambda half: with_own(half, box, order)}
    try:
        import photutils  # noqa: F401

        ways["EPSFBuilder"] = lambda half: with_photutils(half, exposure, width)
    except ImportError:
        print("  no photutils")
    if len(stars) >= 4:
        for name, way in ways.items():
            fits = []
            try:
                for k in (0, 1):
                    profiles = way(stars[k::2])
                    fits += [compared(profiles(s), s, core=1.5 * width) for s in stars[1 - k :: 2]]
            except Exception as failure:
                print(f"  {name:12s} fails: {failure}")
                continue
            judged(name, fits, width, image)
    else:
        fits = [compared(model.profile(s.x, s.y), s, core=1.5 * width) for s in stars]
        judged("own stars", fits, width, image, "(the same stars)")
    if shipped is not None:
        stamps = [shipped.stamps(x=s.x, y=s.y)[0] for s in stars]
        fits = [compared(tabulated(t), s, core=1.5 * width) for t, s in zip(stamps, stars, strict=True)]
        judged("shipped", fits, width, image, "(all stars)")


def matched(folder: Path) -> None:
    """The width of the stars in both matched frames."""
    for number in (1, 2):
        exposure = psfmatch.read_exposure(folder / f"Zim{number}.fits")
        made = psfmatch.psf_from_stars(exposure)
        print(f"frame {number}: {made}")
        shipped = psfmatch.read_psf(folder / f"Zim{number}_psfex.psf")
        for name, psf in (("own stars", made.psf), ("PSFEx", shipped)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = psfmatch.match(exposure.replace(psf=psf), TARGET, throw=False)
            places = zip(made.x, made.y, strict=True)
            found = []
            for x, y in places:
                with contextlib.suppress(psfmatch.InputError):  # near the border
                    found.append(fit_moffat(result.exposure, x=x, y=y, radius=10.0, fwhm=3.3))
            widths, errors = np.array([(s.fwhm, s.fwhm_error) for s in found]).T
            mean, error = weighted_mean(widths, errors**2 + (0.005 * 3.3) ** 2)
            noise = psfmatch.NoiseCorrelation.of_kernel(result.kernel)
            check = psfmatch.check(result.exposure, correlation=noise)
            print(
                f"  {name:10s} {len(found)} stars: FWHM {mean:.4f} ± {error:.4f} px, median {np.median(widths):.4f}; "
                f"check: {check.verdict.name}, {100 * check.size.value:+.2f} ± {100 * check.size.error:.2f} %, "
                f"stack {100 * (fwhm(check.target + check.stack.residual) / check.target_fwhm - 1):+.2f} %"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--match", action="store_true", help="match the VISTA frames and measure their stars")
    options = parser.parse_args()
    viking, decam = options.data / "viking_Z_pair", options.data / "decam_coma_9exp"
    if not (viking.is_dir() and decam.is_dir()):
        raise SystemExit(f"{options.data}: no viking_Z_pair or decam_coma_9exp; give --data (see the docstring)")
    for number in (1, 2):
        print(f"VISTA frame {number}")
        models(
            psfmatch.read_exposure(viking / f"Zim{number}.fits"), psfmatch.read_psf(viking / f"Zim{number}_psfex.psf")
        )
    for path in sorted(decam.glob("*_ooi_*.fits.gz")):
        if "psfex" not in path.name and "splinesky" not in path.name:
            print(path.name)
            exposure = psfmatch.read_exposure(path)
            models(exposure, exposure.psf)
    if options.match:
        matched(viking)


if __name__ == "__main__":
    main()
