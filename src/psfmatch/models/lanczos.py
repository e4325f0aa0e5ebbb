"""Lanczos interpolation of samples that are zero beyond their border."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from psfmatch.geometry import FloatArray

__all__ = ["lanczos_weights"]

PHASES = 4096


def lanczos_weights(at: FloatArray, samples: int, order: int, *, harmonics: int | None = None) -> FloatArray:
    """The weights of samples at 0, 1, 2, ... for values at other places.

    Parameters
    ----------
    at : array, shape (n,)
        In units of the step of the samples, from the first.
    samples : int
        How many there are.
    order : int
        Of the function ``L(t) = sinc(t) sinc(t / order)``, zero beyond ``order`` steps.
    harmonics : int, optional
        The sum of all weights, those of samples beyond the border included, ripples with the place ``x`` as
        ``1 - 2 sum_j K_j (1 - cos 2 pi j x)`` with ``K_j`` the transform of L at frequency j (Bernstein & Gruen 2014,
        PASP 126, 287, equation 22).  The weights are divided by as many terms of it: 0 leaves them alone, 5 is what
        GalSim does.  Default: by the sum itself, so that a constant stays one.

    Returns
    -------
    array, shape (n, samples)
    """
    first = np.floor(at + 1e-9).astype(int) - order + 1
    near = first[:, None] + np.arange(2 * order)
    values = _lanczos(at[:, None] - near, order)
    if harmonics is None:
        values /= values.sum(axis=1, keepdims=True)
    else:
        j = np.arange(1, harmonics + 1)
        ripple = (1.0 - np.cos(2.0 * np.pi * j * at[:, None])) @ _transform(order)[1 : harmonics + 1]
        values /= (1.0 - 2.0 * ripple)[:, None]
    weights = np.zeros((at.size, samples))
    row, column = np.nonzero((near >= 0) & (near < samples))
    weights[row, near[row, column]] = values[row, column]
    return weights


def _lanczos(distance: FloatArray, order: int) -> FloatArray:
    whole = np.round(distance)
    distance = np.where(np.abs(distance - whole) < 1e-9, whole, distance)
    return np.where(np.abs(distance) < order, np.sinc(distance) * np.sinc(distance / order), 0.0)


@lru_cache(maxsize=16)
def _transform(order: int) -> FloatArray:
    """The transform of the function at frequencies 0, 1, 2, ...: the Fourier coefficients of the sum of all weights."""
    x = np.arange(PHASES) / PHASES
    total = _lanczos(x[:, None] - np.arange(-order, order + 1), order).sum(axis=1)
    return np.fft.rfft(total).real / PHASES
