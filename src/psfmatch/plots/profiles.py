"""Shapes and profiles: ellipses, means on circles, and the flux within them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from psfmatch.geometry import FloatArray

__all__ = ["ellipse", "growth_curve", "rings"]


def rings(image: FloatArray, x: float, y: float, half: int) -> tuple[FloatArray, FloatArray]:
    """Radii, and the mean of the image on circles of these radii about (x, y), leaving out what is NaN."""
    radii, angles = np.linspace(0.0, half, 121), np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False)
    at = y + radii[:, None] * np.sin(angles), x + radii[:, None] * np.cos(angles)
    hidden = map_coordinates(np.isnan(image).astype(float), at, order=1, mode="constant", cval=1.0) > 0
    values = map_coordinates(np.nan_to_num(image).astype(float), at, order=3, mode="nearest")
    return radii, np.average(values, axis=1, weights=~hidden + 1e-9)


def growth_curve(radii: FloatArray, mean: FloatArray) -> FloatArray:
    """The share of the flux within each radius of that within the last, from the mean on circles."""
    flux = np.concatenate([[0.0], np.cumsum(0.5 * (mean[1:] + mean[:-1]) * np.diff(radii**2))])
    return np.asarray(flux / flux[-1])


def ellipse(fwhm: float, ellipticity: float, angle: float) -> tuple[FloatArray, FloatArray]:
    """The contour at half maximum, about the origin."""
    t = np.linspace(0.0, 2.0 * np.pi, 181)
    stretch = np.sqrt(1.0 - ellipticity)
    u, v = 0.5 * fwhm / stretch * np.cos(t), 0.5 * fwhm * stretch * np.sin(t)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return u * c - v * s, u * s + v * c
