"""A PSF between the pixels, and its fit to the pixels of all stars at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import linalg, sparse
from scipy.interpolate import BSpline

from psfmatch.fields import Field, terms_at
from psfmatch.geometry import Box, FloatArray
from psfmatch.stars.compare import Profile, own_columns, tabulated
from psfmatch.stars.profile import pixel_moffat
from psfmatch.stars.select import Cutout

__all__ = ["ContinuousPSF", "fitted"]

REACH = 4.0
"""Radius in units of the FWHM beyond which the model is the Moffat profile."""
KNOTS, FINEST = 3.0, 0.5
"""Knots of the splines per FWHM; their distance in pixels, at least."""
DEVIATION = 0.1
"""How far the splines may deviate from the Moffat profile, relative to it (standard deviation)."""
RADIAL, RADIAL_DEVIATION = 8, 0.5
"""The number of radial functions, and how far they may."""
VARIATION = 0.1
"""How far size and shape may vary over the field (standard deviation)."""
SMALL = 1e-3
TABLE = 2
"""Points per knot of the tables in which splines are looked up."""
CORE, NODES = 2.0, 3
"""Radius in units of the FWHM within which so many nodes a side are used for a pixel; two outside."""
CORE_RADIUS, CORE_POINTS, GAUGE = 0.75, 15, 1e-3
"""Radius of the core in units of the FWHM, points across it, and to what its flux is kept: else the amplitude of the
model, which the stars' fluxes leave open, would be what asks least of radial functions and splines, even none."""
BETAS = 1.3, 15.0
START_ERROR, LEAST_ERROR, LARGEST_ERROR = 0.03, 0.005, 0.1
CLIP = 5.0
"""Standard deviations beyond which a pixel is left out."""


@dataclass(frozen=True, eq=False)
class ContinuousPSF:
    """A Moffat profile whose size and shape vary over the field, and what it leaves, which does not.

    Parameters
    ----------
    shape : Field
        Three functions: ln FWHM and the two shears.
    beta : float
    spacing, reach : float
        Of the splines' knots; and the radius of their realm, in pixels.  Zero: there are none.
    radial, splines : array
        Coefficients of the radial functions and of the splines.
    amplitude : float
        Of the Moffat profile: so that the flux of the core stays what it is without radial functions and splines.
    """

    shape: Field
    beta: float
    spacing: float
    reach: float
    radial: FloatArray
    splines: FloatArray
    amplitude: float = 1.0

    @classmethod
    def start(cls, width: float, box: Box) -> ContinuousPSF:
        """A round Moffat profile."""
        return cls(Field.constant([np.log(width), 0.0, 0.0], box), 3.0, 0.0, 0.0, np.zeros(0), np.zeros(0))

    def refined(self, order: int) -> ContinuousPSF:
        """The model with room for variation over the field, and for what a Moffat profile leaves."""
        old = self.shape.coefficients
        new = np.zeros((3, (order + 1) * (order + 2) // 2))
        keep = min(new.shape[1], old.shape[1])
        new[:, :keep] = old[:, :keep]
        out = replace(
            self, shape=Field(new, self.shape.box), spacing=max(FINEST, self.width / KNOTS), reach=REACH * self.width
        )
        return replace(out, radial=np.zeros(RADIAL), splines=np.zeros(out._centers[0].size), amplitude=1.0)

    def smooth(self) -> ContinuousPSF:
        """The Moffat profile alone, constant over the field."""
        shape = Field(self.shape.coefficients[:, :1], self.shape.box)
        return replace(self.start(1.0, shape.box), shape=shape, beta=self.beta)

    @property
    def width(self) -> float:
        """FWHM of the Moffat profile in the middle."""
        center = self.shape.box.center
        return float(np.exp(self.shape.at(x=center.x, y=center.y)[0, 0]))

    def profile(self, x: float, y: float) -> Profile:
        """The model at a place in the field."""
        parameters = self.shape.at(x=x, y=y)[:, 0]

        def pixels(dx: FloatArray, dy: FloatArray) -> FloatArray:
            values = self.amplitude * _moffat(dx, dy, parameters, self.beta)
            return values + self._rest(dx, dy) if self.splines.size else values

        return pixels

    def table(self, x: float, y: float, reach: float) -> Profile:
        """The model at a place in the field, out to a radius, quick to look up many times."""
        return self._table(self.profile(x, y), reach, self.width / KNOTS / TABLE)

    def _table(self, profile: Profile, reach: float, step: float) -> Profile:
        half = int(reach / step) + 4
        axis = step * np.arange(-half, half + 1.0)
        dx, dy = (g.ravel() for g in np.meshgrid(axis, axis))
        return tabulated(profile(dx, dy).reshape(axis.size, axis.size), step)

    @cached_property
    def _rest(self) -> Profile:
        """What the radial functions and the splines add to the Moffat profile."""

        def values(dx: FloatArray, dy: FloatArray) -> FloatArray:
            splines = self.spline_columns(dx, dy) @ self.splines
            return np.asarray(self.radial_columns(dx, dy) @ self.radial + splines)

        return self._table(values, self.reach, self.spacing / TABLE)

    def excess(self, dx: FloatArray, dy: FloatArray) -> float:
        """What the flux is more than one, by what they add in these pixels."""
        return self.amplitude - 1.0 + (float(self._rest(dx, dy).sum()) if self.splines.size else 0.0)

    def moffat_columns(self, dx: FloatArray, dy: FloatArray, x: float, y: float) -> FloatArray:
        """Derivatives of the Moffat profile by ln FWHM, the shears and ln(beta - 1): shape (n, 4)."""
        p = self.shape.at(x=x, y=y)[:, 0]
        here = _moffat(dx, dy, p, self.beta)
        steps = [_moffat(dx, dy, p + SMALL * unit, self.beta) for unit in np.eye(3)]
        steps.append(_moffat(dx, dy, p, 1.0 + (self.beta - 1.0) * np.exp(SMALL)))
        return self.amplitude * np.stack([(step - here) / SMALL for step in steps], axis=1)

    def radial_columns(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """The round Moffat profile times splines in the logarithm of the radius: shape (n, RADIAL)."""
        r = np.hypot(dx, dy)
        u = np.log1p((r / self.width) ** 2) / np.log1p((self.reach / self.width) ** 2)
        knots = np.concatenate([[0.0] * 3, np.linspace(0.0, 1.0, RADIAL - 1), [1.0] * 3])
        columns = BSpline.design_matrix(np.clip(u, 0.0, 1.0), knots, 3).toarray()[:, :RADIAL]
        return np.asarray(columns * (self._round(r) * (u < 1.0))[:, None])

    def spline_columns(self, dx: FloatArray, dy: FloatArray) -> sparse.csr_array:
        """Products of cubic B-splines along x and y: shape (n, n_splines)."""
        x, y = self._centers
        column, row = (np.rint(c / self.spacing).astype(int) for c in (x, y))
        margin = int(self.reach / self.spacing) + 4
        number = np.full((2 * margin + 1, 2 * margin + 1), -1)
        number[row + margin, column + margin] = np.arange(x.size)
        at = np.stack([dx, dy]) / self.spacing
        low = np.floor(at).astype(int)
        pixels, which, values = [], [], []
        for b in range(-1, 3):
            for a in range(-1, 3):
                i, j = low[0] + a, low[1] + b
                spline = number[np.clip(j + margin, 0, 2 * margin), np.clip(i + margin, 0, 2 * margin)]
                use = np.flatnonzero(spline >= 0)
                pixels.append(use)
                which.append(spline[use])
                values.append(_bell(at[0, use] - i[use]) * _bell(at[1, use] - j[use]))
        entries = np.concatenate(values), (np.concatenate(pixels), np.concatenate(which))
        return sparse.csr_array(entries, shape=(dx.size, x.size))

    def core_columns(self) -> FloatArray:
        """The flux of Moffat profile, radial functions and splines in the core, in units of that of the first."""
        unit = np.linspace(-1.0, 1.0, CORE_POINTS)
        grid = np.stack([g.ravel() for g in np.meshgrid(unit, unit)])
        dx, dy = CORE_RADIUS * self.width * grid[:, np.hypot(*grid) <= 1.0]
        moffat = self._round(np.hypot(dx, dy)).sum(keepdims=True)
        parts = self.radial_columns(dx, dy).sum(axis=0), self.spline_columns(dx, dy).sum(axis=0)
        return np.asarray(np.concatenate([moffat, *parts]) / moffat)

    @property
    def spline_deviations(self) -> FloatArray:
        """Standard deviations of the splines' coefficients before anything is known of them."""
        return DEVIATION * self._round(np.hypot(*self._centers))

    @property
    def _centers(self) -> tuple[FloatArray, FloatArray]:
        count = int(self.reach / self.spacing)
        axis = self.spacing * np.arange(-count, count + 1)
        x, y = (g.ravel() for g in np.meshgrid(axis, axis))
        near = np.hypot(x, y) <= self.reach - 2.0 * self.spacing
        return x[near], y[near]

    def _round(self, r: FloatArray) -> FloatArray:
        return _moffat(r, np.zeros_like(r), np.array([np.log(self.width), 0.0, 0.0]), self.beta)


def _moffat(dx: FloatArray, dy: FloatArray, p: FloatArray, beta: float) -> FloatArray:
    width = float(np.exp(p[0]))
    core = dx * dx + dy * dy < (CORE * width) ** 2
    out = np.empty(dx.shape)
    for part, nodes in ((core, NODES), (~core, 2)):
        out[part] = pixel_moffat(dx[part], dy[part], fwhm=width, shear=(p[1], p[2]), beta=beta, nodes=nodes)
    return out


def _bell(t: FloatArray) -> FloatArray:
    """The cubic B-spline on whole numbers, about zero."""
    a = np.abs(t)
    return np.where(a < 1.0, 2.0 / 3.0 - a * a + 0.5 * a**3, np.maximum(2.0 - a, 0.0) ** 3 / 6.0)


def fitted(
    start: ContinuousPSF, stars: Sequence[Cutout], *, rounds: int, model_error: float = START_ERROR
) -> tuple[ContinuousPSF, float]:
    """The model that fits the pixels of all stars best, and its error relative to itself.

    Each star has its own flux, centre and background, which are eliminated from the normal equations; the error of
    the model, which keeps the brightest stars from deciding alone, is what their cores leave.
    """
    model, centers = start, np.zeros((len(stars), 2))
    for _ in range(rounds):
        system, left = _System.of(model), []
        for k, star in enumerate(stars):
            centers[k], core = system.add(star, centers[k], model_error)
            left.append(core)
        model = system.solved()
        model_error = _model_error(left)
    return model, model_error


def _model_error(left: Sequence[tuple[FloatArray, FloatArray]]) -> float:
    """The scatter of the residuals in the cores that noise does not explain: of (residual, noise) over the model."""
    residual, noise = (np.concatenate([part[k] for part in left]) for k in (0, 1))
    precise = noise < LARGEST_ERROR
    if precise.sum() < 10:
        return LEAST_ERROR
    excess = (1.4826 * np.median(np.abs(residual[precise]))) ** 2 - np.median(noise[precise] ** 2)
    return float(np.clip(np.sqrt(max(excess, 0.0)), LEAST_ERROR, LARGEST_ERROR))


@dataclass(eq=False)
class _System:
    """The normal equations: first the shape's coefficients and ln(beta - 1), radial functions, then splines."""

    model: ContinuousPSF
    dense: FloatArray
    cross: FloatArray
    splines: FloatArray
    dense_side: FloatArray
    spline_side: FloatArray

    @classmethod
    def of(cls, model: ContinuousPSF) -> _System:
        d, k = model.shape.coefficients.size + 1, model.splines.size
        d += 1 + model.radial.size if k else 0
        return cls(model, np.zeros((d, d)), np.zeros((d, k)), np.zeros((k, k)), np.zeros(d), np.zeros(k))

    def add(
        self, star: Cutout, center: FloatArray, model_error: float
    ) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
        """Add a star; its new centre, and residual and noise relative to the model in its core."""
        model = self.model
        x, y = star.x + center[0], star.y + center[1]
        profile = model.profile(x, y)
        dx, dy = star.dx - center[0], star.dy - center[1]
        own = own_columns(profile, dx, dy)
        height = max(star.data.max(), 0.0) / own[:, 0].max()
        weight = (star.variance + (model_error * height * own[:, 0]) ** 2) ** -0.5
        # The background is known to be about zero: one more row.
        known = np.array([[0.0, 1.0 / star.sky_error, 0.0, 0.0]])
        scaled = np.concatenate([own * weight[:, None], known])
        flux, background, ax, ay = linalg.lstsq(scaled, np.append(star.data * weight, 0.0))[0]
        step = np.clip(np.array([ax, ay]) / flux, -0.5, 0.5) if flux > 0 else np.zeros(2)
        residual = star.data - flux * own[:, 0] - background
        core = np.hypot(dx, dy) < CORE_RADIUS * model.width
        scale = np.maximum(flux * own[core, 0], 1e-300)
        left = (residual - own[:, 2:] @ np.array([ax, ay]))[core] / scale, np.sqrt(star.variance[core]) / scale
        weight = np.where(np.abs(residual) * weight > CLIP, 0.0, weight)
        q = linalg.qr(np.concatenate([own * weight[:, None], known]), mode="economic")[0][:-1]
        terms = terms_at(np.array([x]), np.array([y]), order=model.shape.order, box=model.shape.box, kind="chebyshev1")
        derivatives = model.moffat_columns(dx, dy, x, y)
        columns = [np.repeat(derivatives[:, :3], terms.size, axis=1) * np.tile(terms[:, 0], 3), derivatives[:, 3:]]
        if model.splines.size:
            moffat = _moffat(dx, dy, model.shape.at(x=x, y=y)[:, 0], model.beta)
            columns += [moffat[:, None], model.radial_columns(dx, dy)]
        dense = flux * weight[:, None] * np.concatenate(columns, axis=1)
        shared = q.T @ dense
        self.dense += dense.T @ dense - shared.T @ shared
        target = (star.data - flux * own[:, 0]) * weight
        if model.splines.size:
            some = sparse.diags_array(flux * weight) @ model.spline_columns(dx, dy)
            # What the present amplitude, radial functions and splines give stays in the data: they are solved for anew.
            present = np.append(model.amplitude, model.radial)
            target = target + some @ model.splines + dense[:, -present.size :] @ present
            own_share = (some.T @ q).T
            self.cross += (some.T @ dense).T - shared.T @ own_share
            self.splines += (some.T @ some).toarray() - own_share.T @ own_share
            self.spline_side += some.T @ target - own_share.T @ (q.T @ target)
        self.dense_side += dense.T @ target - shared.T @ (q.T @ target)
        return np.clip(center + step, -2.0, 2.0), left

    def solved(self) -> ContinuousPSF:
        """The model after a step."""
        model = self.model
        shape = model.shape.coefficients
        terms = shape.shape[1]
        n = 3 * terms
        prior, side = np.zeros(len(self.dense)), np.zeros(len(self.dense))
        varying = (np.arange(n) % terms > 0).astype(float) / VARIATION**2
        # Once there are splines, they alone carry what is the same everywhere.
        held = 1e-6 if not model.splines.size else 1e12
        prior[:n], side[:n] = np.where(varying > 0, varying, held), -varying * shape.ravel()
        prior[n], side[n] = max(held, 1.0), -np.log((model.beta - 1.0) / 2.0) if not model.splines.size else 0.0
        prior[n + 2 :] = RADIAL_DEVIATION**-2
        matrix = np.block([[self.dense, self.cross], [self.cross.T, self.splines]])
        whole = np.concatenate([prior, model.spline_deviations**-2.0]) if model.splines.size else prior
        matrix[np.diag_indices_from(matrix)] += whole
        right = np.concatenate([self.dense_side + side, self.spline_side])
        if model.splines.size:
            core = model.core_columns() / GAUGE
            matrix[n + 1 :, n + 1 :] += np.outer(core, core)
            right[n + 1 :] += core / GAUGE
        scale = np.sqrt(np.diag(matrix))
        step = linalg.solve(matrix / np.outer(scale, scale), right / scale, assume_a="pos") / scale
        moved = np.clip(step[:n].reshape(3, terms), -0.3, 0.3)
        beta = 1.0 + (model.beta - 1.0) * np.exp(np.clip(step[n], -0.5, 0.5))
        d = len(self.dense)
        return replace(
            model,
            shape=Field(shape + moved, model.shape.box),
            beta=float(np.clip(beta, *BETAS)),
            radial=step[n + 2 : d],
            splines=step[d:],
            amplitude=float(step[n + 1]) if model.splines.size else 1.0,
        )
