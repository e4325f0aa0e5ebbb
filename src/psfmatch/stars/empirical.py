"""The PSF of an exposure from its own stars.

The model is a Moffat profile whose size and shape vary over the field, plus what it leaves: radial functions and cubic
splines on a grid finer than the core, both tied to zero more firmly where the profile is faint.  It is defined between
the pixels, so that stars at all sub-pixel positions sample it together (Anderson & King 2000, PASP 112, 1360) and none
is interpolated: the pixels of all stars are fitted at once, each star with its own flux, centre and background.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.exposure import Exposure
from psfmatch.fields import Field, n_terms, terms_at
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel, chebyshev_nodes
from psfmatch.moments import fwhm
from psfmatch.prepare import measured_center
from psfmatch.psf import PSF, BasisPSF, ImagePSF
from psfmatch.stars.compare import StarFit, compared, stacked, weighted_mean
from psfmatch.stars.continuous import ContinuousPSF, fitted
from psfmatch.stars.select import Cutout, StarSelection

__all__ = ["HalfSplit", "StarPSF", "psf_from_stars"]

log = logging.getLogger(__name__)

CORE = 1.5
"""Radius, in units of the FWHM, within which a star is judged."""
STAMP = 5.5
"""Half the side of the stamps, in units of the FWHM."""
MOMENTS = 0.83
"""FWHM of a star in units of that of the Gaussian with its moments, to start with."""
MOFFAT_STARS, MOST_TURNS = 25, 4
"""The Moffat profile is that of so many stars; how often outliers are looked for."""
OUTLIER, LEAST_OUTLIER = 4.0, 0.03
"""A star is left out whose size or shape deviates by more, in standard deviations and in absolute terms,"""
WORST_CHI2 = 4.0
"""or whose chi^2 is so many times the usual one."""
SCATTER = 0.003
"""Of size and shape from star to star, besides noise."""
COMPRESSED = 1e-5
STARS_PER_TERM = 4
"""Stars needed for each term of the variation over the field."""
BETTER = 0.9
"""A higher order must reduce the errors of prediction, squared, to so much."""
FEW, UNDERSAMPLED, UNLIKE, UNFIT, BROAD_ERROR, WORST_EE = 5, 2.0, 0.04, 4.0, 0.02, 0.02
"""Warnings: fewer stars; FWHM in pixels; scatter and chi^2 of the cores; errors of size and encircled energy between
halves."""


class HalfSplit(NamedTuple):
    """The model of each half of the stars against the stars of the other.

    Parameters
    ----------
    fwhm : float
        Weighted mean of the stars' size relative to the model's, less 1.
    fwhm_error : float
        Its standard error.
    residual : float
        Norm of the mean star less the model, relative to that of the model, less what noise gives.
    ee_error : float
        The largest difference of the two encircled energies at any radius.
    """

    fwhm: float
    fwhm_error: float
    residual: float
    ee_error: float


@dataclass(frozen=True, eq=False)
class StarPSF:
    """A PSF model made from the stars of an exposure, and how far it can be trusted.

    Parameters
    ----------
    psf : PSF
        An `ImagePSF`, or a `BasisPSF` where it varies over the field.  The stamps lack the flux beyond them.
    x, y, snr : array, shape (n,)
        The stars it rests on, in pixels of the parent frame, and their signal-to-noise ratios; brightest first.
    rejected : mapping of str to int
        How many sources were left out, by reason.
    order : int
        To which order of polynomials its size and shape vary over the field: chosen by how well every star is
        predicted by the others, as far as their number allows.
    fwhm : float
        In the middle of the field, in pixels.
    chi2 : float
        Median over the stars of chi^2 per degree of freedom within 1.5 FWHM.
    model_error : float
        Scatter of the stars about the model in their cores, beyond noise, relative to the model.
    split : HalfSplit, optional
        None with fewer than four stars.
    problems : tuple of str
        What speaks against the model, in sentences.
    """

    psf: PSF
    x: FloatArray
    y: FloatArray
    snr: FloatArray
    rejected: Mapping[str, int]
    order: int
    fwhm: float
    chi2: float
    model_error: float
    split: HalfSplit | None
    problems: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """All but the model and the places, as plain values."""
        left_out = ("psf", "x", "y", "snr", "split")
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {"stars": len(self.x), **plain, "split": None if self.split is None else self.split._asdict()}

    def __str__(self) -> str:
        vary = ("constant over the field", "varying linearly", "varying quadratically")[min(self.order, 2)]
        text = f"PSF from {len(self.x)} stars: FWHM {self.fwhm:.2f} px, {vary}, chi2 {self.chi2:.2f}"
        if self.split is not None:
            s = self.split
            text += (
                f"; half of the stars against the other half: FWHM {100 * s.fwhm:+.2f} ± {100 * s.fwhm_error:.2f} %, "
                f"residual {s.residual:.4f}, EE error {s.ee_error:.4f}"
            )
        return text


def psf_from_stars(
    exposure: Exposure, *, selection: StarSelection | None = None, max_order: int = 2, stamp: int | None = None
) -> StarPSF:
    """Make a PSF model from the stars of an exposure.

    Parameters
    ----------
    exposure : Exposure
        Its PSF, if it has one, is not used.  Without variance the noise is measured in the image.
    selection : StarSelection, optional
        How stars are told from everything else.
    max_order : int
        The highest order of the variation over the field that is tried, 0 to 3.
    stamp : int, optional
        Rows and columns of the stamps, odd.  Default: 5.5 FWHM to either side.

    Returns
    -------
    StarPSF
        Its ``psf`` is the model.

    Raises
    ------
    InputError
        If there is no star that can be used.

    Warns
    -----
    PsfMatchWarning
        If the model is poor: few stars, undersampled, halves of the stars that do not agree.

    Examples
    --------
    >>> made = psf_from_stars(exposure)  # doctest: +SKIP
    >>> exposure = exposure.replace(psf=made.psf)  # doctest: +SKIP
    """
    if not 0 <= max_order <= 3:
        raise InputError(f"max_order={max_order!r}: give 0 to 3")
    stars, rejected = (selection or StarSelection()).cutouts(exposure)
    if not stars:
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items() if count)
        raise InputError(f"no star to make a PSF from ({reasons or 'nothing stands out of the noise'}); give a PSF")
    model, order = None, 0
    for _ in range(MOST_TURNS):
        model, model_error = _fitted(stars, exposure.box, order, model)
        fits = _compared(model, stars, model_error)
        wanted, good = _chosen_order(model, fits, max_order)
        if good.all() and wanted == order:
            break
        stars, order = [star for star, keep in zip(stars, good, strict=True) if keep], wanted
        rejected["unlike the others"] = rejected.get("unlike the others", 0) + int((~good).sum())
    else:
        model, model_error = _fitted(stars, exposure.box, order, model)
    model, model_error = fitted(model, stars, rounds=2, model_error=model_error)
    fits = _compared(model, stars, model_error)
    psf = _psf(model, stamp)
    center = exposure.box.center
    made = StarPSF(
        psf, np.array([f.x for f in fits]), np.array([f.y for f in fits]),
        np.array([star.snr for star in stars]), rejected, model.shape.order,
        fwhm(psf.stamps(x=center.x, y=center.y)[0]), float(np.median([f.plain.chi2 for f in fits])), model_error,
        _half_split(stars, exposure.box, model.shape.order, psf),
    )  # fmt: skip
    made = replace(made, problems=tuple(_problems(made)))
    log.info("%s; left out: %s", made, ", ".join(f"{n} {why}" for why, n in rejected.items() if n) or "none")
    for problem in made.problems:
        warnings.warn(f"the PSF from the stars: {problem}", PsfMatchWarning, stacklevel=2)
    return made


def _fitted(
    stars: Sequence[Cutout], box: Box, order: int, near: ContinuousPSF | None = None
) -> tuple[ContinuousPSF, float]:
    """The model of these stars: first a Moffat profile for the brightest, then all of it for all."""
    if near is None:
        near = ContinuousPSF.start(MOMENTS * float(np.median([star.size for star in stars])), box)
        model, error = fitted(near, stars[:MOFFAT_STARS], rounds=6)
    else:
        model, error = fitted(near.smooth(), stars[:MOFFAT_STARS], rounds=2)
    return fitted(model.refined(order), stars, rounds=3, model_error=error)


def _compared(model: ContinuousPSF, stars: Sequence[Cutout], model_error: float) -> list[StarFit]:
    fits, profile = [], None
    reach = 1.1 * max(float(np.hypot(star.dx, star.dy).max()) for star in stars)
    for star in stars:
        if profile is None or model.shape.order:
            profile = model.table(star.x, star.y, reach)
        fits.append(compared(profile, star, core=CORE * model.width, model_error=model_error))
    return fits


def _chosen_order(model: ContinuousPSF, fits: Sequence[StarFit], highest: int) -> tuple[int, NDArray[np.bool_]]:
    """The order of the polynomials that predict size and shape of every star best from the others; who follows them."""
    x, y = (np.array([getattr(f, a) for f in fits]) for a in ("x", "y"))
    values = model.shape.at(x=x, y=y) + np.stack([f.stretch for f in fits], axis=1)
    noise = np.stack([f.stretch_variance for f in fits], axis=1) + SCATTER**2
    best, least, kept = 0, np.inf, np.ones(len(fits), bool)
    for order in range(highest + 1):
        if order and len(fits) < STARS_PER_TERM * n_terms(order):
            break
        terms = terms_at(x, y, order=order, box=model.shape.box, kind="chebyshev1")
        surfaces = [_surface(v, n, terms) for v, n in zip(values, noise, strict=True)]
        score = float(
            sum(np.minimum(left**2 / n, OUTLIER**2).sum() for (_, left), n in zip(surfaces, noise, strict=True))
        )
        if score < BETTER * least:
            best, least = order, score
            kept = np.ones(len(fits), bool)
            for (off, _), n in zip(surfaces, noise, strict=True):
                scatter = max(1.0, 1.4826 * float(np.median(np.abs(off) / np.sqrt(n))))
                kept &= np.abs(off) <= np.maximum(OUTLIER * scatter * np.sqrt(n), LEAST_OUTLIER)
    chi2 = np.array([f.plain.chi2 for f in fits])
    kept &= chi2 <= WORST_CHI2 * max(1.0, float(np.median(chi2)))
    return best, kept if kept.any() else np.ones(len(fits), bool)


def _surface(values: FloatArray, noise: FloatArray, terms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far values lie off the surface through them, and off that through the others (robust; Huber's weights)."""
    weight = 1.0 / noise
    for _ in range(10):
        scaled = terms.T * np.sqrt(weight)[:, None]
        off = values - terms.T @ np.linalg.lstsq(scaled, values * np.sqrt(weight), rcond=None)[0]
        size = np.abs(off) / np.sqrt(noise)
        weight = np.minimum(1.0, 1.5 / np.maximum(size, 1e-9)) / noise
    q = np.linalg.qr(terms.T * np.sqrt(weight)[:, None])[0]
    return off, off / np.maximum(1.0 - (q**2).sum(axis=1), 1e-3)


def _psf(model: ContinuousPSF, side: int | None) -> PSF:
    """The model in pixels, centred on itself: one stamp, or the few of which all are made."""
    box = model.shape.box
    half = int(np.ceil(STAMP * model.width)) if side is None else side // 2
    axis = np.arange(-half, half + 1.0)
    dx, dy = (g.ravel() for g in np.meshgrid(axis, axis))

    def stamp(x: float, y: float) -> FloatArray:
        profile, center = model.profile(x, y), np.zeros(2)
        for _ in range(3):
            values = profile(dx + center[0], dy + center[1])
            at = measured_center(values.reshape(axis.size, axis.size))
            center += at.x - half, at.y - half
        return values / (1.0 + model.excess(dx, dy))

    order = model.shape.order
    if order == 0:
        return ImagePSF(stamp(0.0, 0.0).reshape(axis.size, axis.size))
    nodes = chebyshev_nodes(box, 2 * order + 2)
    x, y = (g.ravel() for g in np.meshgrid(*nodes))
    values = np.stack([stamp(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)], axis=1)
    weights = Field.fit(values, x=x, y=y, order=2 * order, box=box)
    terms = weights.coefficients.T.reshape(-1, axis.size, axis.size)
    small = MatchingKernel(terms, Field(np.eye(len(terms)), box)).compressed(COMPRESSED)
    return BasisPSF(small.basis, small.weights, normalize=False)


def _half_split(stars: Sequence[Cutout], box: Box, order: int, psf: PSF) -> HalfSplit | None:
    if len(stars) < 4:
        return None
    fits: list[StarFit] = []
    for k in (0, 1):
        enough = order if len(stars) // 2 >= 2 * n_terms(order) else 0
        model, error = _fitted(stars[k::2], box, enough)
        fits += _compared(model, stars[1 - k :: 2], error)
    size = np.array([f.stretch[0] for f in fits])
    variance = np.array([f.stretch_variance[0] for f in fits]) + SCATTER**2
    mean, error = weighted_mean(size, variance)
    half = psf.shape[0] // 2
    stack = stacked(fits, half)
    center = box.center
    image = psf.stamps(x=center.x, y=center.y)[0]
    residual = np.sqrt(max(0.0, float((stack.residual**2 - stack.error**2).sum()))) / float(np.linalg.norm(image))
    return HalfSplit(float(np.expm1(mean)), error, float(residual), float(np.abs(stack.enclosed()).max()))


def _problems(made: StarPSF) -> list[str]:
    out = []
    if len(made.x) < FEW:
        out.append(f"it rests on {len(made.x)} stars only")
    if made.fwhm < UNDERSAMPLED:
        out.append(f"it is undersampled (FWHM {made.fwhm:.2f} px), and uncertain between the pixels")
    if made.model_error > UNLIKE:
        out.append(
            f"its stars differ from one another by {made.model_error:.0%}: not all of them are stars, or it varies"
        )
    if made.chi2 > UNFIT:
        out.append(f"it does not fit its own stars (chi2 {made.chi2:.1f})")
    if made.split is not None and abs(made.split.fwhm) + made.split.fwhm_error > BROAD_ERROR:
        out.append(f"halves of the stars disagree on the FWHM by {made.split.fwhm:+.1%} ± {made.split.fwhm_error:.1%}")
    if made.split is not None and made.split.ee_error > WORST_EE:
        out.append(f"halves of the stars disagree on the encircled energy by {made.split.ee_error:.1%}")
    crowded = made.rejected.get("too close to another source", 0)
    if crowded > 2 * len(made.x):
        out.append(f"the field is crowded: {crowded} stars are too close to other sources, and {len(made.x)} are not")
    saturated = made.rejected.get("bad, saturated or cut off", 0)
    if saturated > len(made.x):
        out.append(f"{saturated} stars are bad, saturated or cut off, and {len(made.x)} are not")
    return out
