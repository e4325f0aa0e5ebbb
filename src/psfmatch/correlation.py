"""How the noise of neighbouring pixels is correlated, after convolution, resampling and averaging.

The variance plane of an exposure says how much every pixel scatters; this says how much of the scatter is shared.
The covariance of the pixels p and q is ``rho(q - p) sqrt(variance(p) variance(q))``, where ``rho`` varies slowly over
the field and the variance may vary as it likes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.fields import Field, FieldKind
from psfmatch.geometry import Box, FloatArray, frozen, odd_shape, plain_array, resized
from psfmatch.kernel import MatchingKernel, chebyshev_nodes

__all__ = ["Interpolation", "NoiseCorrelation", "Positions", "in_cells"]

Covariance = Callable[[FloatArray, FloatArray], FloatArray]
Positions = Callable[..., tuple[FloatArray, FloatArray]]
"""``positions(x=, y=)``: where the output pixels lie in the input, ``(x, y)``."""
Interpolation = Callable[[FloatArray], FloatArray]
"""Fractions (m,) in [0, 1) to weights (m, k): those of the k (even) pixels around, from k/2 - 1 below the floor on."""
SURFACES: tuple[tuple[FieldKind, int, int], ...] = (
    ("chebyshev1", 0, 1), ("chebyshev1", 2, 3), ("chebyshev1", 4, 5), ("chebyshev1", 6, 7), ("chebyshev1", 8, 9),
    ("chebyshev1", 12, 13), ("spline", 8, 14), ("spline", 14, 24),
)  # fmt: skip
"""Kind and order of the surfaces that are tried in turn, and at how many nodes along each axis."""
CELLS = 1e-3
"""Size of the part of the covariances that their principal images may leave out, relative to the largest."""
PHASES = 5
"""Places within an input pixel, along each axis, at which an interpolation is looked at."""


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """The correlation of noise, ``rho(d; x) = C(d; x) / C(0; x)`` with ``C(d; x) = sum_i w_i(x) B_i(d)``.

    Parameters
    ----------
    basis : array, shape (n, sy, sx)
        The basis images B_i, of odd size; the central pixel is the offset d = 0.
    weights : Field
        The n weights w_i.

    Raises
    ------
    InputError
        If the sizes are even or do not fit together, a pixel is not finite, or the variance C(0) is not positive.

    Notes
    -----
    ``C`` is the covariance in units of the variance of the noise at the start of the chain: the white noise that
    `of_kernel` and `white` begin with, or the mean that `combined` makes.
    """

    basis: FloatArray
    weights: Field

    def __post_init__(self) -> None:
        basis = frozen(plain_array(self.basis, "noise basis", float))
        if basis.ndim != 3 or basis.shape[0] != self.weights.n:
            raise InputError(f"noise: {self.weights.n} weights do not fit a basis of shape {basis.shape}")
        odd_shape(basis.shape[1:], "noise correlation shape")
        if not np.isfinite(basis).all():
            raise InputError("noise: the basis has NaN or infinite pixels")
        object.__setattr__(self, "basis", basis)
        if not (self.gains(x=self.box.center.x, y=self.box.center.y) > 0).all():
            raise InputError("noise: the variance, the central pixel of the covariance, must be positive")

    @classmethod
    def white(cls, box: Box) -> NoiseCorrelation:
        """Noise that is not correlated."""
        return cls(np.ones((1, 1, 1)), Field.constant([1.0], box))

    @classmethod
    def of_kernel(cls, kernel: MatchingKernel, *, tolerance: float = 5e-3) -> NoiseCorrelation:
        """White noise, convolved with a kernel: ``C(d) = sum_u K(u) K(u + d)``, so that ``C(0) = sum K^2``.

        The variance of the white noise, and the kernel, are taken as constant within the kernel's footprint.

        Parameters
        ----------
        kernel : MatchingKernel
            What the noise was convolved with.
        tolerance : float
            Sum over the offsets of what the smooth weights may leave out of C, relative to C(0): an error of the
            variance of any weighted sum, in units of that of white noise.

        Warns
        -----
        PsfMatchWarning
            If no surface follows the variation over the field to the tolerance.
        """
        return cls.white(kernel.box).convolved(kernel, tolerance=tolerance)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.basis.shape[1], self.basis.shape[2]

    @property
    def box(self) -> Box:
        """Where the correlation is meant to be used."""
        return self.weights.box

    def covariances(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """C at scattered positions: shape (n_positions, sy, sx)."""
        return np.tensordot(self.weights.at(x=x, y=y).T, self.basis, axes=1)

    def gains(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """C(0), the factor by which the variance has been multiplied so far: shape (n_positions,)."""
        return self.weights.at(x=x, y=y).T @ self.basis[:, self.shape[0] // 2, self.shape[1] // 2]

    def stamps(self, *, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """The correlation at scattered positions, 1 in the central pixel: shape (n_positions, sy, sx)."""
        return self.covariances(x=x, y=y) / self.gains(x=x, y=y)[:, None, None]

    def convolved(self, kernel: MatchingKernel, *, tolerance: float = 5e-3) -> NoiseCorrelation:
        """This noise, convolved with a kernel: ``C_out(d) = sum_uv K(u) K(v) C(d + u - v)``.

        Parameters and warnings are those of `of_kernel`.

        Raises
        ------
        InputError
            If the kernel is meant for another box.
        """
        if kernel.box != self.box:
            raise InputError(f"the kernel is meant for {kernel.box}, the noise correlation for {self.box}")
        shape = (self.shape[0] + 2 * (kernel.shape[0] - 1), self.shape[1] + 2 * (kernel.shape[1] - 1))

        def covariance(x: FloatArray, y: FloatArray) -> FloatArray:
            power = np.abs(np.fft.rfft2(kernel.stamps(x=x, y=y), shape)) ** 2
            old = np.fft.ifftshift(resized(self.covariances(x=x, y=y), shape), axes=(1, 2))
            out = np.fft.irfft2(np.fft.rfft2(old) * power, shape)
            return np.fft.fftshift(out, axes=(1, 2))

        return _fitted(covariance, self.box, tolerance)

    def warped(
        self, positions: Positions, box: Box, *, interpolation: Interpolation, tolerance: float = 5e-3,
        phases: Literal["local", "all"] = "local",
    ) -> NoiseCorrelation:  # fmt: skip
        """This noise after resampling.

        ``C_out(d) = sum_ij L_i(p) L_j(p + A d) C(j - i)`` with the interpolation weights L and the local Jacobian A
        of the positions, averaged over the places p of output pixels within an input pixel: over those that occur
        around a position (all, under a rotation; one, after a shift).  Where the noise has no power near the
        Nyquist frequency this is ``C(A d)``.  `gains` say how much of the variance is left; to propagate it as
        ``sum_i L_i^2 variance_i`` is right for white noise alone.

        Parameters
        ----------
        positions : callable
            ``positions(x=, y=)`` returns ``(x, y)``, where output pixels lie in the input.
        box : Box
            The output frame, or the part of it that the input covers: beyond it, smooth weights are extrapolated.
        interpolation : callable
            Fractions (m,) in [0, 1) to the weights (m, k), k even, of the input pixels from ``floor - k/2 + 1``
            to ``floor + k/2`` along one axis; those along the two axes are multiplied.
        tolerance : float
            As in `of_kernel`, which also says when there is a warning.
        phases : {"local", "all"}
            Average over the places that occur around a position, or over all alike: where two grids nearly agree, the
            first varies from one beat of them to the next, which matters to noise near the Nyquist frequency alone.
        """
        half = _reach(self.shape, positions, box, interpolation)
        local, alike = phases == "local", np.full((2, PHASES), 1.0 / PHASES)

        def covariance(x: FloatArray, y: FloatArray) -> FloatArray:
            at_x, at_y = positions(x=x, y=y)
            old, jacobians = self.covariances(x=at_x, y=at_y), _jacobians(positions, x, y)
            places = np.stack(positions(x=np.rint(x), y=np.rint(y)), axis=1) % 1.0
            return np.stack(
                [
                    _resampled(c, a, _phase_weights(phase, a, box) if local else alike, half, interpolation)
                    for c, a, phase in zip(old, jacobians, places, strict=True)
                ]
            )

        return _fitted(covariance, box, tolerance)

    @classmethod
    def combined(
        cls, correlations: Sequence[NoiseCorrelation], weights: ArrayLike | Field, variances: ArrayLike | Field, *,
        tolerance: float = 5e-3,
    ) -> NoiseCorrelation:  # fmt: skip
        """The noise of a weighted mean of independent inputs: ``rho = sum_i w_i^2 var_i rho_i / sum_i w_i^2 var_i``.

        Parameters
        ----------
        correlations : sequence of NoiseCorrelation
            Of the inputs, on one box.  The inputs should be the same all over it: where their number changes, make
            one combination for each part of the box.
        weights, variances : array (n,) or Field of n functions
            Weight and variance of every input, as numbers or smooth functions of position.
        tolerance : float
            As in `of_kernel`, which also says when there is a warning.

        Raises
        ------
        InputError
            If the numbers or the boxes differ, or nothing has a positive variance.
        """
        if len({c.box for c in correlations}) != 1:
            raise InputError(f"{len(correlations)} noise correlations: give at least one, all on one box")
        box = correlations[0].box
        w, v = (f if isinstance(f, Field) else Field.constant(f, box) for f in (weights, variances))
        if not w.n == v.n == len(correlations):
            raise InputError(f"{len(correlations)} noise correlations do not fit {w.n} weights and {v.n} variances")
        shape = (max(c.shape[0] for c in correlations), max(c.shape[1] for c in correlations))

        def covariance(x: FloatArray, y: FloatArray) -> FloatArray:
            shares = w.at(x=x, y=y) ** 2 * v.at(x=x, y=y)
            if not ((shares >= 0).all() and (shares.sum(axis=0) > 0).all()):
                raise InputError(
                    "weights and variances: one input at least must have both, and no variance be negative"
                )
            shares /= shares.sum(axis=0)
            out = np.zeros((x.size, *shape))
            for share, c in zip(shares, correlations, strict=True):
                out += share[:, None, None] * resized(c.stamps(x=x, y=y), shape)
            return out

        return _fitted(covariance, box, tolerance)


def in_cells(covariance: Callable[[FloatArray, FloatArray], FloatArray], box: Box, side: int) -> NoiseCorrelation:
    """A covariance that jumps, as in a coadd where the inputs end: one for each of the equal cells of a box.

    Parameters
    ----------
    covariance : callable
        Columns (m,) and rows (m,) of the middles of cells to covariances (m, sy, sx); asked for a row of cells at a
        time.
    box : Box
    side : int
        Rows and columns of the cells, at most, in pixels.
    """
    count = -(-max(box.shape) // side)
    y, x = (b + n * (np.arange(count) + 0.5) / count - 0.5 for b, n in zip((box.y0, box.x0), box.shape, strict=True))
    images = np.empty((0, 0))
    rows, shape = [], (1, 1)
    for row in y:
        stamps = covariance(x, np.full(count, row))
        shape = (stamps.shape[1], stamps.shape[2])
        flat = stamps.reshape(count, -1)
        # What the images found so far do not hold, each with its principal images.
        known = flat @ images.T if images.size else np.empty((count, 0))
        rest = flat - known @ images if images.size else flat
        left, values, right = np.linalg.svd(rest, full_matrices=False)
        rank = int(np.count_nonzero(values > CELLS * np.linalg.norm(flat, axis=1).max()))
        images = np.vstack([images, right[:rank]]) if images.size else right[:rank]
        rows.append(np.hstack([known, left[:, :rank] * values[:rank]]))
    weights = np.concatenate([np.pad(row, ((0, 0), (0, len(images) - row.shape[1]))) for row in rows])
    return NoiseCorrelation(images.reshape(-1, *shape), Field(weights.T, box, "cells"))


def _fitted(covariance: Covariance, box: Box, tolerance: float) -> NoiseCorrelation:
    """The simplest surfaces that follow the covariance, at positions between their nodes, to the tolerance."""
    x, y = _check_positions(box)
    truth = covariance(x, y)
    best, least = None, np.inf
    for kind, order, nodes in SURFACES:
        found = _surfaces(covariance, box, kind, order, nodes, tolerance)
        error = _misfit(found, truth, x, y)
        if error < least:
            best, least = found, error
        if error <= tolerance:
            break
    else:
        warnings.warn(
            f"the noise correlation varies faster over the field than can be followed: {least:.2g} of the variance "
            f"is left out (tolerance {tolerance:.2g})", PsfMatchWarning, stacklevel=4,
        )  # fmt: skip
    assert best is not None
    return best


def _check_positions(box: Box) -> tuple[FloatArray, FloatArray]:
    """Near the corners, where polynomials fail first, and between."""
    u = np.array([-0.98, 0.98, -0.97, 0.97, 0.08, -0.53, 0.62, 0.35, -0.71])
    v = np.array([-0.97, -0.98, 0.98, 0.97, -0.11, -0.34, -0.66, 0.57, 0.74])
    ny, nx = box.shape
    return box.center.x + 0.5 * nx * u, box.center.y + 0.5 * ny * v


def _surfaces(
    covariance: Covariance, box: Box, kind: FieldKind, order: int, nodes: int, tolerance: float
) -> NoiseCorrelation:
    """The covariance at nodes, cut to where it matters, with surfaces through every pixel; compressed."""
    node_x, node_y = chebyshev_nodes(box, nodes)
    x, y = (g.ravel() for g in np.meshgrid(node_x, node_y))
    images = _trimmed(covariance(x, y), 0.1 * tolerance)
    field = Field.fit(images.reshape(x.size, -1).T, x=x, y=y, order=order, box=box, kind=kind)
    terms = field.coefficients.T.reshape(-1, *images.shape[1:])
    one = Field(np.eye(len(terms)), box, kind)
    small = MatchingKernel(terms, one).compressed(1e-3 * tolerance)
    return NoiseCorrelation(small.basis, small.weights)


def _misfit(found: NoiseCorrelation, truth: FloatArray, x: FloatArray, y: FloatArray) -> float:
    """Worst sum over the offsets of the error, relative to the variance."""
    error = np.abs(resized(found.covariances(x=x, y=y), truth.shape[1:]) - truth).sum(axis=(1, 2))
    return float((error / truth[:, truth.shape[1] // 2, truth.shape[2] // 2]).max())


def _trimmed(images: FloatArray, tolerance: float) -> FloatArray:
    """The images (n, sy, sx) without a rim that holds less than the tolerance of each, relative to its centre."""
    sy, sx = images.shape[1:]
    size = np.abs(images / images[:, sy // 2, sx // 2, None, None])
    y, x = np.abs(np.arange(sy) - sy // 2), np.abs(np.arange(sx) - sx // 2)
    keep = []
    for sums, distance in ((size.sum(axis=2), y), (size.sum(axis=1), x)):
        beyond = np.stack([sums[:, distance > d].sum(axis=1).max() for d in range(distance.max() + 1)])
        keep.append(2 * int(np.argmax(beyond <= tolerance)) + 1)
    return resized(images, (keep[0], keep[1]))


def _jacobians(positions: Positions, x: FloatArray, y: FloatArray) -> FloatArray:
    """Input x and y (rows) by output x and y (columns), from differences over a pixel: shape (n, 2, 2)."""
    along_x = np.subtract(positions(x=x + 0.5, y=y), positions(x=x - 0.5, y=y))
    along_y = np.subtract(positions(x=x, y=y + 0.5), positions(x=x, y=y - 0.5))
    return np.moveaxis(np.stack([along_x, along_y], axis=1), 2, 0)


def _reach(shape: tuple[int, int], positions: Positions, box: Box, interpolation: Interpolation) -> tuple[int, int]:
    """The largest offsets (dy, dx) in output pixels at which resampled noise is correlated."""
    support = interpolation(np.zeros(1)).shape[1]
    if support % 2:
        raise InputError(f"an interpolation over {support} pixels: give an even number, as many on both sides")
    limit_x, limit_y = (side // 2 + support for side in (shape[1], shape[0]))
    inverse = np.abs(np.linalg.inv(_jacobians(positions, *_check_positions(box))))
    dx, dy = (inverse @ np.array([limit_x, limit_y])).max(axis=0)
    return int(np.ceil(dy)), int(np.ceil(dx))


def _phase_weights(phase: FloatArray, jacobian: FloatArray, box: Box) -> FloatArray:
    """How often each place within an input pixel, along x and along y, occurs around a position: (2, PHASES).

    A function of the place is a Fourier series, whose term k runs through ``A^T k`` (modulo 1) cycles from one output
    pixel to the next: its mean under a Gaussian of an eighth of the box is damped by ``exp(-2 (pi f s)^2)``.
    """
    k = np.fft.fftfreq(PHASES, 1.0 / PHASES)
    cycles = jacobian[:, None, :] * k[:, None]
    cycles -= np.rint(cycles)
    width = np.array(box.shape[::-1]) / 8.0
    damping = np.exp(-2.0 * np.pi**2 * ((cycles * width) ** 2).sum(axis=-1))
    return np.asarray(np.fft.ifft(damping * np.exp(-2j * np.pi * k * phase[:, None])).real)


def _resampled(
    old: FloatArray, jacobian: FloatArray, phases: FloatArray, half: tuple[int, int], interpolation: Interpolation
) -> FloatArray:
    """The covariance (sy, sx) of resampled noise at one position: sum_t old(t) S_x(t; A d) S_y(t; A d)."""
    dy, dx = (g.ravel() for g in np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1])
    first = dy.size // 2 + 1  # the other half follows by symmetry
    shifts = jacobian @ np.stack([dx[:first], dy[:first]]).astype(float)
    (columns, shares_x), (rows, shares_y) = (
        _shares(shift, weights, interpolation, side)
        for shift, weights, side in zip(shifts, phases, old.shape[::-1], strict=True)
    )
    near = old.ravel()[rows[:, :, None] * old.shape[1] + columns[:, None, :]]
    out = np.matmul(shares_y[:, None, :], np.matmul(near, shares_x[:, :, None])).ravel()
    return np.concatenate([out, out[-2::-1]]).reshape(2 * half[0] + 1, 2 * half[1] + 1)


def _shares(
    shift: FloatArray, weights: FloatArray, interpolation: Interpolation, side: int
) -> tuple[NDArray[np.intp], FloatArray]:
    """Along one axis, how the covariance of two resampled pixels, ``shift`` apart, consists of that of input pixels.

    Returns the places (m, 2 k) in a stamp of ``side`` pixels and their shares, zero beyond it:
    ``S(t; s) = sum_p weight_p sum_i L_i(p) L_{t+i}(p + s)``.
    """
    low = np.floor(shift)
    phase = np.arange(PHASES) / PHASES
    first = interpolation(phase)
    support = first.shape[1]
    shares = np.zeros((shift.size, 2 * support))
    for p, weight, here in zip(phase, weights, first, strict=True):
        floor = np.floor(p + shift)
        there = weight * interpolation(p + shift - floor)
        pairs = there @ _differences(here)
        carry = (floor > low)[:, None]
        shares[:, :-1] += np.where(carry, 0.0, pairs)
        shares[:, 1:] += np.where(carry, pairs, 0.0)
    places = low.astype(int)[:, None] + np.arange(2 * support) - support + 1 + side // 2
    beyond = (places < 0) | (places >= side)
    return np.clip(places, 0, side - 1), np.where(beyond, 0.0, shares)


def _differences(weights: FloatArray) -> FloatArray:
    """The matrix (k, 2 k - 1) from weights at j to their products with these at i, summed for each j - i."""
    k = weights.size
    out = np.zeros((k, 2 * k - 1))
    for j in range(k):
        out[j, j : j + k] = weights[::-1]
    return out
