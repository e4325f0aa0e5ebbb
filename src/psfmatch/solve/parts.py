"""Small groups of options of the Alard-Lupton solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psfmatch.errors import InputError

__all__ = ["PCA", "Clipping", "Padding"]


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How far the science PSF's stamps are padded with zeros before the fit.

    Parameters
    ----------
    to : float, optional
        To this multiple of the kernel size, at least (1 or more).
    by : int
        Where ``to`` is None: by so many pixels, even.
    """

    to: float | None = 1.4
    by: int = 0

    def __post_init__(self) -> None:
        if self.to is None and self.by % 2:
            raise InputError(f"padding by {self.by} pixels: must be an even number")
        if self.by < 0 or (self.to is not None and self.to < 1.0):
            raise InputError(f"{self}: 'to' must be at least 1, 'by' not negative")

    def padded(self, stamp: int, kernel: int) -> int:
        """The side of the padded stamps."""
        if self.to is None:
            return stamp + self.by
        wanted = int(np.ceil(kernel * self.to))
        return max(stamp, wanted + 1 - wanted % 2)


@dataclass(frozen=True, kw_only=True)
class PCA:
    """Replace the basis by the mean and principal components of the cells' own kernels.

    Parameters
    ----------
    components : int
        Images in the new basis, the mean included.
    subtract_mean : bool
        Start the new basis with the mean kernel.
    """

    components: int = 5
    subtract_mean: bool = True

    def __post_init__(self) -> None:
        if self.components < 1:
            raise InputError(f"PCA components={self.components}: at least 1")


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """Which cells are left out of the fit.  Model PSFs have no outliers, so that nothing is clipped by default.

    Parameters
    ----------
    single : bool
        Leave out cells whose own kernel leaves large residuals.
    sums : bool
        Leave out cells whose own kernel's sum is an outlier.
    spatial : bool
        Leave out cells where the spatial model leaves large residuals, and fit again.
    residual_mean, residual_std : float
        Largest mean and standard deviation of the residuals, in units of the noise of unit-variance stamps.
    sum_sigma : float
        Largest deviation of a kernel sum, in standard deviations.
    core_radius : int, optional
        Measure residuals only so far (pixels) from the centre.
    iterations : int
        Spatial fits at the most.
    """

    single: bool = False
    sums: bool = False
    spatial: bool = False
    residual_mean: float = 0.25
    residual_std: float = 1.5
    sum_sigma: float = 3.0
    core_radius: int | None = None
    iterations: int = 3

    def __post_init__(self) -> None:
        if min(self.residual_mean, self.residual_std, self.sum_sigma) < 0 or self.iterations < 1:
            raise InputError(f"{self}: limits must not be negative, iterations at least 1")
