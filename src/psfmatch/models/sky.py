"""Models made on the sky, as Piff's are: a profile in tangent-plane coordinates, seen through the image's pixels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError, PSFError
from psfmatch.fields import Field, n_terms
from psfmatch.geometry import Box, FloatArray, as_positions, frozen, resized
from psfmatch.models.lanczos import lanczos_weights
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.psf import LARGEST_STAMP, PSF, STEEPEST, GaussianPSF, MoffatPSF

__all__ = ["Polynomial", "SkyGridPSF", "SkyMap", "SkyPSF", "SkyProfilePSF"]

HIGHEST_ORDER = 3
EXACT = 1e-9
LARGEST = 1e30  # squares of such numbers are finite
MOST_LOBES = 100


@dataclass(frozen=True, eq=False)
class SkyMap:
    """Where pixels lie in the tangent plane, and how.

    Parameters
    ----------
    functions : Field
        Of six functions of the pixel: ``u``, ``v``, ``du/dx``, ``du/dy``, ``dv/dx``, ``dv/dy``.  The derivatives are
        functions of their own, since they are those of the local WCS, whose axes point to the north of the place, and
        not of the tangent point.
    error : float
        The largest error of a derivative where the map was fitted, relative to the size of a pixel.
    """

    functions: Field
    error: float = 0.0

    @classmethod
    def identity(cls, box: Box, scale: float = 1.0) -> Self:
        """The plane of the pixels themselves, each of which is ``scale`` units wide."""
        x, y = np.array([box.x0, box.x1, box.x0]), np.array([box.y0, box.y0, box.y1])
        values = np.stack([x, y, *np.outer([1.0, 0.0, 0.0, 1.0], np.ones(3))])
        return cls(Field.fit(scale * values, x=x, y=y, order=1, box=box))

    @classmethod
    def fit(cls, values: FloatArray, *, x: FloatArray, y: FloatArray, box: Box) -> Self:
        """Polynomials of the lowest order that is exact, or else of the highest that so many stars allow (at most 3).

        Parameters
        ----------
        values : array, shape (6, n)
            The six functions at the positions.
        x, y : array, shape (n,)
            Positions, in pixels.

        Raises
        ------
        PSFError
            If there are fewer than three positions, or they do not fix a map.
        """
        if len(x) < 3 or not np.isfinite(values).all():
            raise PSFError(f"{len(x)} stars do not say how the pixels lie on the sky")
        pixel = float(np.sqrt(np.abs(np.linalg.det(values[2:].T.reshape(-1, 2, 2))).mean()))
        order, error = 0, np.inf
        while order < HIGHEST_ORDER and error > EXACT and (order == 0 or 1.5 * n_terms(order + 1) <= len(x)):
            order += 1
            functions = Field.fit(values, x=x, y=y, order=order, box=box)
            error = float(np.abs(functions.at(x=x, y=y) - values)[2:].max() / pixel) if pixel > 0 else np.nan
        return cls(functions, error)

    def at(self, *, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """``u`` and ``v``, each of shape (n,), and ``[[du/dx, du/dy], [dv/dx, dv/dy]]``, shape (n, 2, 2)."""
        values = self.functions.at(x=x, y=y)
        return values[0], values[1], values[2:].T.reshape(-1, 2, 2)


@dataclass(frozen=True, eq=False)
class Polynomial:
    """Parameters of a model as polynomials of two coordinates.

    Parameters
    ----------
    coefficients : array, shape (n, n_terms)
        One row a parameter.
    powers : array of int, shape (n_terms, 2)
        Of the two coordinates in each term.
    """

    coefficients: FloatArray
    powers: FloatArray

    def __post_init__(self) -> None:
        coefficients, powers = frozen(self.coefficients, float), frozen(self.powers, int)
        if coefficients.ndim != 2 or powers.shape != (coefficients.shape[1], 2) or (powers < 0).any():
            raise PSFError(f"coefficients {coefficients.shape} do not fit the powers of {len(powers)} terms")
        if not np.isfinite(coefficients).all():
            raise PSFError("the coefficients hold NaN or infinite values")
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "powers", powers)

    def at(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """The parameters at each position, shape (n_positions, n)."""
        i, j = self.powers.T[:, :, None]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by those who use it
            return np.asarray((self.coefficients @ (u**i * v**j)).T)


@dataclass(frozen=True, eq=False, kw_only=True)
class SkyPSF(PSF):
    """A profile on the sky whose parameters vary, seen through the image's pixels.

    Parameters
    ----------
    parameters : Polynomial
        In the coordinates ``(u, v)`` of the sky, or those of the pixels.
    sky : SkyMap
        From pixels counted from 0 to the sky.
    by_pixels : bool
        Whether the parameters are polynomials of the pixel coordinates counted from 1, in place of the sky's.
    """

    parameters: Polynomial
    sky: SkyMap
    by_pixels: bool = False

    @property
    def field(self) -> Box:
        return self.sky.functions.box

    @abstractmethod
    def _stamp(self, parameters: FloatArray, jacobian: FloatArray, shape: tuple[int, int]) -> FloatArray:
        """The flux in each pixel of a stamp."""

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        shape = self._shape(shape)
        parameters, jacobians = self._at(px, py)
        stamps = np.empty((px.size, *shape))
        for k in range(px.size):
            try:
                stamps[k] = self._stamp(parameters[k], jacobians[k], shape)
            except (InputError, np.linalg.LinAlgError, FloatingPointError) as error:
                raise PSFError(f"the PSF cannot be evaluated at x={px[k]:g}, y={py[k]:g}: {error}") from error
        return stamps

    def _at(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The parameters and the Jacobians at each position."""
        u, v, jacobian = self.sky.at(x=x, y=y)
        parameters = self.parameters.at(*((x + 1.0, y + 1.0) if self.by_pixels else (u, v)))
        for values in (parameters, jacobian.reshape(-1, 4)):
            if (wrong := ~(np.abs(values) < LARGEST).all(axis=1)).any():
                k = np.flatnonzero(wrong)[0]
                raise PSFError(f"the PSF cannot be evaluated at x={x[k]:g}, y={y[k]:g}: its parameters are too large")
        return parameters, jacobian

    def _center(self) -> tuple[FloatArray, FloatArray]:
        """The parameters and the Jacobian in the middle of the field."""
        y, x = np.array(self.field.center)[:, None]
        parameters, jacobian = self._at(x, y)
        return parameters[0], jacobian[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class SkyGridPSF(SkyPSF):
    """Samples on a square grid of the sky, interpolated: Piff's PixelGrid, which has the pixel's response in it.

    The parameters are the samples, ``v`` the slow and ``u`` the fast axis, about sample ``size // 2``; they are scaled
    to unit sum.  The flux in a pixel is the interpolated sample times the ratio of the two areas.

    Parameters
    ----------
    step : float
        Between samples, in the unit of u and v.
    order : int
        Of the Lanczos function that interpolates, from 1 to 100.
    harmonics : int, optional
        To which its weights are normalised, see `psfmatch.models.lanczos.lanczos_weights`; 5 in GalSim and Piff.
    """

    step: float
    order: int
    harmonics: int | None = 5

    def __post_init__(self) -> None:
        size = self.size
        if size**2 != len(self.parameters.coefficients):
            raise PSFError(f"{len(self.parameters.coefficients)} samples are no square grid")
        if not (1.0 / LARGEST < self.step < LARGEST and 1 <= self.order <= MOST_LOBES):
            raise PSFError(f"a grid of step {self.step!r} and Lanczos order {self.order!r} is of no use")

    @property
    def size(self) -> int:
        """Samples along each axis."""
        return int(np.sqrt(len(self.parameters.coefficients)) + 0.5)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The pixels along x and y that lie within the samples, in the middle of the field."""
        reach = (self.size - 1) // 2 * self.step / np.maximum(np.abs(self._center()[1]).max(axis=0), 1.0 / LARGEST)
        if 2.0 * reach.max() > LARGEST_STAMP:
            raise PSFError(f"its samples reach {reach.max():.2g} px far, as no PSF does")
        nx, ny = (2 * max(int(r + 1e-6), 1) + 1 for r in reach)
        return ny, nx

    def _stamp(self, parameters: FloatArray, jacobian: FloatArray, shape: tuple[int, int]) -> FloatArray:
        with np.errstate(over="ignore"):
            total = parameters.sum()
        if not (np.isfinite(total) and total > 0):
            raise PSFError(f"its samples have the sum {total:g}")
        ny, nx = self.shape
        dy, dx = np.mgrid[:ny, :nx].reshape(2, -1) - np.array([[ny // 2], [nx // 2]])
        u, v = (jacobian @ np.array([dx, dy])) / self.step + self.size // 2
        along_u, along_v = (lanczos_weights(w, self.size, self.order, harmonics=self.harmonics) for w in (u, v))
        samples = parameters.reshape(self.size, self.size) / total
        area = abs(np.linalg.det(jacobian)) / self.step**2
        return resized((np.einsum("ki,ki->k", along_v @ samples, along_u) * area).reshape(ny, nx), shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class SkyProfilePSF(SkyPSF):
    """An elliptical Gaussian or Moffat on the sky, as Piff's models of these names.

    The parameters are a size, and the shear ``g1, g2`` (g = (a - b) / (a + b)) of the ellipse; before them stands a
    shift ``du, dv`` unless ``centered``.  The size is the standard deviation of the Gaussian, the half-light radius of
    the Moffat.

    Parameters
    ----------
    beta : float, optional
        Of the Moffat; None: the Gaussian.
    centered : bool
        Whether the source is where its position says.
    integrated : bool
        Whether the profile is integrated over the pixels, or taken at their centres.
    """

    beta: float | None = None
    centered: bool = True
    integrated: bool = True

    def __post_init__(self) -> None:
        if len(self.parameters.coefficients) != (3 if self.centered else 5):
            raise PSFError(f"a profile of {len(self.parameters.coefficients)} parameters is not known")
        if self.beta is not None and not 1.0 < self.beta <= STEEPEST:
            raise PSFError(f"a Moffat of beta {self.beta!r}: above 1, for a finite flux, and up to {STEEPEST:g}")

    @property
    def resizable(self) -> bool:
        return True

    @cached_property
    def shape(self) -> tuple[int, int]:
        """As of an analytic PSF of the size in the middle of the field."""
        return self._model(*self._center())[0].shape

    def _model(self, parameters: FloatArray, jacobian: FloatArray) -> tuple[GaussianPSF | MoffatPSF, FloatArray]:
        """The profile in the pixels, and the offset of the source from the central one."""
        to_pixels = np.linalg.inv(jacobian)
        shift = np.zeros(2) if self.centered else to_pixels @ parameters[:2]
        size, g1, g2 = parameters[-3:]
        if not (size > 0 and np.hypot(g1, g2) < 1):
            raise PSFError(f"its size is {size:g} and its shear ({g1:g}, {g2:g})")
        shear = np.array([[1.0 + g1, g2], [g2, 1.0 - g1]]) / np.sqrt(1.0 - g1 * g1 - g2 * g2)
        directions, axes, _ = np.linalg.svd(size * to_pixels @ shear)
        angle = float(np.degrees(np.arctan2(directions[1, 0], directions[0, 0])))
        ellipticity = float(1.0 - axes[1] / axes[0])
        width = float(np.sqrt(axes[0] * axes[1]))
        if self.beta is None:
            return GaussianPSF(fwhm=SIGMA_TO_FWHM * width, ellipticity=ellipticity, angle=angle), shift
        core = 1.0 / np.sqrt(2.0 ** (1.0 / (self.beta - 1.0)) - 1.0)
        fwhm = 2.0 * core * np.sqrt(2.0 ** (1.0 / self.beta) - 1.0)
        return MoffatPSF(fwhm=float(fwhm) * width, beta=self.beta, ellipticity=ellipticity, angle=angle), shift

    def _stamp(self, parameters: FloatArray, jacobian: FloatArray, shape: tuple[int, int]) -> FloatArray:
        model, (sx, sy) = self._model(parameters, jacobian)
        if self.integrated and not (sx or sy):
            return np.asarray(model.stamps(x=0.0, y=0.0, shape=shape)[0])
        dy, dx = np.mgrid[: shape[0], : shape[1]] - np.array([shape[0] // 2 + sy, shape[1] // 2 + sx])[:, None, None]
        if not self.integrated:
            return model._density(dx, dy)
        return model.pixels(dx=dx.ravel(), dy=dy.ravel()).reshape(shape)
