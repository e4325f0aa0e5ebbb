"""Lanczos interpolation of samples that are zero beyond their border."""

from __future__ import annotations

import numpy as np

from psfmatch.geometry import FloatArray

__all__ = ["lanczos_weights"]


def lanczos_weights(at: FloatArray, samples: int, order: int, *, normalize: bool = True) -> FloatArray:
    """The weights of samples at 0, 1, 2, ... for values at other places.

    Parameters
    ----------
    at : array, shape (n,)
        In units of the step of the samples, from the first.
    samples : int
        How many there are.
    order : int
        Of the function ``sinc(t) sinc(t / order)``, zero beyond ``order`` steps.
    normalize : bool
        Make the weights of all samples within reach, those beyond the border included, sum to 1: a constant stays one.

    Returns
    -------
    array, shape (n, samples)
    """
    first = np.floor(at).astype(int) - order + 1
    near = first[:, None] + np.arange(2 * order)
    distance = at[:, None] - near
    whole = np.round(distance)
    distance = np.where(np.abs(distance - whole) < 1e-9, whole, distance)
    values = np.where(np.abs(distance) < order, np.sinc(distance) * np.sinc(distance / order), 0.0)
    if normalize:
        values /= values.sum(axis=1, keepdims=True)
    weights = np.zeros((at.size, samples))
    row, column = np.nonzero((near >= 0) & (near < samples))
    weights[row, near[row, column]] = values[row, column]
    return weights
