"""Pixels that are not used, estimated from their neighbours before an exposure is convolved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psfmatch.geometry import FloatArray

__all__ = ["repaired"]

HALF = 4
WIDTH = 1.3
DEGREE = 4
LEAST = 16
BATCH = 4_000
RIDGE = 1e-6


def repaired(image: FloatArray, bad: NDArray[np.bool_]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Each bad pixel by a polynomial of degree 4 through the good ones about it.

    The least-squares polynomial within 4 px, weighted with a Gaussian of 1.3 px (normalised convolution: Knutsson &
    Westin 1993, CVPR).

    Parameters
    ----------
    image : array, shape (ny, nx)
    bad : array of bool, shape (ny, nx)

    Returns
    -------
    array
        The image, mended where it can be.
    array of bool
        Pixels that are still bad: fewer than 16 good ones are near.
    """
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1].reshape(2, -1) / float(HALF)
    terms = np.stack([x**i * y**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)], axis=1)
    number = terms.shape[1]
    products = (terms[:, :, None] * terms[:, None, :]).reshape(-1, number**2)
    weight = np.exp(-0.5 * (x**2 + y**2) * (HALF / WIDTH) ** 2)
    good = np.pad(~bad, HALF)
    values = np.pad(np.where(bad, 0.0, image).astype(float), HALF)
    out, left = np.array(image), np.array(bad)
    places = np.argwhere(bad)
    dy, dx = np.mgrid[0 : 2 * HALF + 1, 0 : 2 * HALF + 1].reshape(2, -1)
    for start in range(0, len(places), BATCH):
        row, column = places[start : start + BATCH].T
        w = weight * good[row[:, None] + dy, column[:, None] + dx]
        near = values[row[:, None] + dy, column[:, None] + dx]
        matrix = (w @ products).reshape(-1, number, number) + RIDGE * np.eye(number)
        fit = np.linalg.solve(matrix, ((w * near) @ terms)[:, :, None])[:, 0, 0]
        enough = (w > 1e-3).sum(axis=1) >= LEAST
        out[row[enough], column[enough]] = fit[enough]
        left[row[enough], column[enough]] = False
    return out, left
