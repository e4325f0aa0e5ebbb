"""PSF models: what a point source looks like at a position, as stamps of pixels.

Every model answers one question, ``psf.stamps(x=, y=, shape=)``, with an array (n, sy, sx).  Analytic models are
integrated over the pixels and know their flux beyond the stamp; tabulated ones hold the pixels they were given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psfmatch.errors import InputError, PSFError
from psfmatch.fields import Field
from psfmatch.geometry import Box, FloatArray, as_positions, frozen, no_unit, odd_shape, plain_array, resized
from psfmatch.moments import SIGMA_TO_FWHM

__all__ = [
    "PSF",
    "AnalyticPSF",
    "BasisPSF",
    "DoubleGaussianPSF",
    "FunctionPSF",
    "GaussianPSF",
    "GridPSF",
    "ImagePSF",
    "MoffatPSF",
    "Sampling",
    "check_stamp",
    "words_of_psf",
]

Sampling = Literal["integrated", "center"]
MAX_OFFSET = 2.0
FLAT, SMALL = 0.9, 15
"""The share of bright pixels at which a stamp is no PSF; pixels along a side within which nobody can tell."""
LARGEST_STAMP = 4001
AT_ONCE = 1 << 22
"""Points of a profile that are integrated together."""
NARROWEST = 0.1  # px: up to there integrals over pixels are true to 1e-4
WIDEST = STEEPEST = STRONGEST = 1e6


class PSF(ABC):
    """A point-spread function that may vary with position."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns (odd) of the stamps when no other shape is asked for."""

    @abstractmethod
    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        """Images of a point source of unit flux.

        Parameters
        ----------
        x, y : float or array
            Positions in pixels.
        shape : (int, int), optional
            Rows and columns of the stamps, odd.  Models that can be `resized` exactly are; others are padded
            with zeros or cut.

        Returns
        -------
        array, shape (n, sy, sx)
            Flux in each pixel; the central pixel is the origin.

        Raises
        ------
        PSFError
            If the model cannot be evaluated at one of the positions.
        InputError
            If ``shape`` is not odd.
        """

    @property
    def resizable(self) -> bool:
        """Whether stamps of any shape are true, rather than padded with zeros or cut."""
        return False

    @property
    def constant(self) -> bool:
        """Whether the stamps are the same at every position."""
        return False

    @property
    def smooth(self) -> bool:
        """Whether it varies smoothly, so that one kernel can follow it; False: it jumps at borders."""
        return True

    @property
    def measured(self) -> NDArray[np.bool_] | None:
        """Which pixels of the stamps are measured, rather than filled up with zeros; None: all."""
        return None

    @property
    def field(self) -> Box | None:
        """The positions for which a varying model was made; elsewhere it is extrapolated.  None: not known."""
        return None

    def _shape(self, shape: tuple[int, int] | None) -> tuple[int, int]:
        return self.shape if shape is None else odd_shape(shape, "stamp shape")


def check_stamp(stamp: ArrayLike, what: str = "PSF stamp") -> FloatArray:
    """A stamp as a read-only float array, checked to be usable as a PSF.

    Raises
    ------
    PSFError
        If it is not a two-dimensional image of odd size, or holds NaN or infinities, or nothing but zeros, or is flat,
        or its core lies more than 2 px from the central pixel.
    """
    image = plain_array(stamp, what, error=PSFError)
    if image.ndim != 2:
        raise PSFError(f"{what} has {image.ndim} dimensions; give one two-dimensional image")
    if image.size > LARGEST_STAMP**2:
        raise PSFError(f"{what} has {image.shape[1]} x {image.shape[0]} px; cut it (is it a PSF, and not a mosaic?)")
    if image.dtype.kind not in "iuf":
        raise PSFError(f"{what} holds {image.dtype}; give real numbers")
    if image.shape[0] % 2 == 0 or image.shape[1] % 2 == 0:
        raise PSFError(f"{what} has an even size {image.shape}; cut or pad it to odd sides about the source")
    if min(image.shape) < 3:
        raise PSFError(f"{what} has {image.shape[1]} x {image.shape[0]} px; give at least 3 x 3")
    image = image.astype(float)
    if not np.isfinite(image).all():
        raise PSFError(f"{what} has {np.count_nonzero(~np.isfinite(image))} NaN or infinite pixels; mend or replace it")
    if not image.any():
        raise PSFError(f"{what} is all zeros")
    if image.max() <= 0 or image.sum() <= 0:
        raise PSFError(f"{what} has no positive flux (sum {image.sum():.3g}, maximum {image.max():.3g})")
    core = np.where(image > 0.2 * image.max(), image, 0.0)
    if np.count_nonzero(core) > FLAT * max(image.size, SMALL**2):
        raise PSFError(
            f"{what} is flat: {100 * np.count_nonzero(core) / image.size:.0f} % of its pixels are brighter than a "
            "fifth of the brightest; subtract its background (is it a PSF, and not an image of the sky?)"
        )
    dy, dx = (
        float((core * (np.arange(n) - n // 2).reshape(s)).sum() / core.sum())
        for n, s in zip(image.shape, ((-1, 1), (1, -1)), strict=True)
    )
    if np.hypot(dx, dy) > MAX_OFFSET:
        raise PSFError(
            f"{what} has its core at dx={dx:+.1f}, dy={dy:+.1f} px from the central pixel (limit {MAX_OFFSET:g} px); "
            "centre the source in the stamp (is it a PSF, and not an image of the sky?)"
        )
    return frozen(image)


@dataclass(frozen=True, kw_only=True)
class AnalyticPSF(PSF):
    """A model given by a formula: constant over the field, of unit flux, resized exactly.

    Parameters
    ----------
    size : int, optional
        Rows and columns of the stamps when no other shape is asked for.
    sampling : {"integrated", "center"}
        ``integrated``: the flux in each pixel, so that a stamp lacks the flux beyond it.  ``center``: the profile
        at the pixel centres, normalised to the sum of the stamp, as Rubin's software has it.
    """

    size: int | None = None
    sampling: Sampling = "integrated"

    def __post_init__(self) -> None:
        if self.sampling not in ("integrated", "center"):
            raise InputError(f"sampling {self.sampling!r}: choose integrated or center")
        if self.size is not None:
            odd_shape((self.size, self.size), f"{type(self).__name__} size")

    @abstractmethod
    def _density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        """Flux per square pixel at an offset from the source; its integral over the plane is 1."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The same profile, so many times as wide."""

    @property
    @abstractmethod
    def _extent(self) -> tuple[float, float]:
        """The narrowest FWHM, and the radius within which a default stamp should reach."""

    @property
    def shape(self) -> tuple[int, int]:
        size = self.size or 2.0 * np.ceil(self._extent[1]) + 1.0
        if not size <= LARGEST_STAMP:
            raise PSFError(f"{self!r} needs stamps of {size:.0f} px; give a size, or widths in pixels that are meant")
        return int(size), int(size)

    @property
    def resizable(self) -> bool:
        return True

    @property
    def constant(self) -> bool:
        return True

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, _ = as_positions(x, y)
        sy, sx = self._shape(shape)
        if sy * sx > LARGEST_STAMP**2:
            raise PSFError(f"stamps of {sx} x {sy} px are too large for a PSF; give a smaller size")
        dy, dx = np.arange(sy) - sy // 2.0, np.arange(sx) - sx // 2.0
        if self.sampling == "center":
            stamp = self._density(dx[None, :], dy[:, None])
            stamp /= stamp.sum()
        else:
            node, weight = _pixel_quadrature(self._extent[0])
            rows = max(1, AT_ONCE // (sx * node.size**2))
            stamp = np.empty((sy, sx))
            for k in range(0, sy, rows):
                fine = self._density(
                    (dx[:, None] + node)[None, None], (dy[k : k + rows, None] + node)[:, :, None, None]
                )
                stamp[k : k + rows] = np.einsum("yaxb,a,b->yx", fine, weight, weight)
        return np.broadcast_to(frozen(stamp), (px.size, sy, sx))

    def pixels(self, *, dx: ArrayLike, dy: ArrayLike) -> FloatArray:
        """The flux in pixels that lie anywhere about the source, not only a whole number of pixels from it.

        Parameters
        ----------
        dx, dy : float or array
            Offsets of the pixels' centres from the source.

        Returns
        -------
        array, shape (n,)
            With ``sampling="center"``, the profile at the offsets, normalised to the sum of a default stamp.
        """
        x, y = as_positions(dx, dy)
        if self.sampling == "center":
            ny, nx = self.shape
            rows, columns = np.arange(ny) - ny // 2.0, np.arange(nx) - nx // 2.0
            return np.asarray(self._density(x, y) / self._density(columns[None, :], rows[:, None]).sum())
        node, weight = _pixel_quadrature(self._extent[0])
        return sum(
            (a * b * self._density(x + u, y + v) for v, a in zip(node, weight, strict=True)
             for u, b in zip(node, weight, strict=True)),
            start=np.zeros(x.shape),
        )  # fmt: skip


def _pixel_quadrature(fwhm: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes and weights over one pixel, enough for a profile of this FWHM (error < 1e-9)."""
    count = int(np.clip(np.ceil(16.0 / fwhm), 4, 40))
    node, weight = np.polynomial.legendre.leggauss(count)
    return 0.5 * node, 0.5 * weight


def _positive(owner: Any, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        no_unit(value, f"{type(owner).__name__} {name}", "pixels")
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{type(owner).__name__} {name}={value!r}: must be finite and positive")


def _check_width(model: AnalyticPSF) -> None:
    with np.errstate(over="ignore"):
        narrowest, reach = model._extent
    if narrowest < NARROWEST:
        raise InputError(f"{model!r} is {narrowest:.2g} px wide; give at least {NARROWEST:g} (widths are in pixels)")
    if reach > WIDEST:
        raise InputError(f"{model!r} reaches {reach:.2g} px far, as no PSF does (widths are in pixels)")


def _elliptical_radius2(dx: FloatArray, dy: FloatArray, ellipticity: float, angle: float) -> FloatArray:
    """Squared radius in the frame where the ellipse of geometric-mean axis 1 is the unit circle."""
    q, t = 1.0 - ellipticity, np.deg2rad(angle)
    u, v = dx * np.cos(t) + dy * np.sin(t), dy * np.cos(t) - dx * np.sin(t)
    return np.asarray(u * u * q + v * v / q)


@dataclass(frozen=True, kw_only=True)
class _EllipticalPSF(AnalyticPSF):
    """A profile in an elliptical radius.

    ``ellipticity`` is ``1 - b/a`` in [0, 1), ``angle`` the direction of the long axis in degrees from +x towards
    +y; ``fwhm`` is the geometric mean of the two axes' FWHM.
    """

    fwhm: float
    ellipticity: float = 0.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "fwhm")
        if not 0.0 <= self.ellipticity < 1.0:
            raise InputError(f"{type(self).__name__} ellipticity={self.ellipticity!r}: must be in [0, 1)")
        no_unit(self.angle, f"{type(self).__name__} angle", "degrees")
        if not np.isfinite(self.angle):
            raise InputError(f"{type(self).__name__} angle={self.angle!r}: must be finite")
        _check_width(self)

    _reach = 2.5

    def scaled(self, factor: float) -> Self:
        return replace(self, fwhm=factor * self.fwhm)

    @property
    def _extent(self) -> tuple[float, float]:
        stretch = np.sqrt(1.0 - self.ellipticity)
        return self.fwhm * stretch, self._reach * self.fwhm / stretch


@dataclass(frozen=True, kw_only=True)
class GaussianPSF(_EllipticalPSF):
    """A Gaussian, ``exp(-r^2 / (2 sigma^2))`` with ``sigma = FWHM / (2 sqrt(2 ln 2))``, of unit flux.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, in pixels: of an ellipse, the geometric mean of those along its axes.
    ellipticity : float
        ``1 - b/a``, in [0, 1).
    angle : float
        Direction of the long axis, in degrees from +x towards +y.
    size : int, optional
        Rows and columns of the stamps when no other shape is asked for, odd; default as large as the profile needs.
    sampling : {"integrated", "center"}
        The flux in each pixel, or the profile at pixel centres (see `AnalyticPSF`).

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> GaussianPSF(fwhm=3.0).stamps(x=0, y=0).shape
    (1, 17, 17)
    """

    def _density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        sigma2 = (self.fwhm / SIGMA_TO_FWHM) ** 2
        r2 = _elliptical_radius2(dx, dy, self.ellipticity, self.angle)
        return np.asarray(np.exp(-0.5 * r2 / sigma2) / (2.0 * np.pi * sigma2))


@dataclass(frozen=True, kw_only=True)
class MoffatPSF(_EllipticalPSF):
    """A Moffat profile ``(1 + (r/alpha)^2)^-beta`` (Moffat 1969, A&A 3, 455), of unit flux.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, in pixels: of an ellipse, the geometric mean of those along its axes.
    ellipticity : float
        ``1 - b/a``, in [0, 1).
    angle : float
        Direction of the long axis, in degrees from +x towards +y.
    beta : float
        How steeply the wings fall; above 1, or the flux is infinite, and at most 1e6, where it is a Gaussian.
    size : int, optional
        Rows and columns of the stamps when no other shape is asked for, odd; default as large as the profile needs.
    sampling : {"integrated", "center"}
        The flux in each pixel, or the profile at pixel centres (see `AnalyticPSF`).

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    beta: float
    _reach = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 1.0:
            raise InputError(f"MoffatPSF beta={self.beta!r}: must be above 1, or the flux is infinite")
        if not self.beta <= STEEPEST:
            raise InputError(f"MoffatPSF beta={self.beta!r}: at most {STEEPEST:g}; take a Gaussian, which it comes to")

    def _density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        alpha2 = (0.5 * self.fwhm) ** 2 / (2.0 ** (1.0 / self.beta) - 1.0)
        r2 = _elliptical_radius2(dx, dy, self.ellipticity, self.angle)
        return np.asarray((self.beta - 1.0) / (np.pi * alpha2) * (1.0 + r2 / alpha2) ** -self.beta)


@dataclass(frozen=True, kw_only=True)
class DoubleGaussianPSF(AnalyticPSF):
    """A sum of two circular Gaussians, in Rubin's parametrisation.

    Parameters
    ----------
    sigma1, sigma2 : float
        Standard deviations in pixels; ``sigma2`` is not used where ``b`` is 0.
    b : float
        Peak of the second Gaussian relative to the first, >= 0.
    size : int, optional
        Rows and columns of the stamps when no other shape is asked for, odd; default as large as the profile needs.
    sampling : {"integrated", "center"}
        The flux in each pixel, or the profile at pixel centres (see `AnalyticPSF`).

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    sigma1: float
    sigma2: float = 1.0
    b: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "sigma1")
        if not 0 <= self.b <= STRONGEST:
            raise InputError(f"DoubleGaussianPSF b={self.b!r}: must lie between 0 and {STRONGEST:g}")
        if self.b > 0:
            _positive(self, "sigma2")
        _check_width(self)

    @classmethod
    def from_fwhm(
        cls, fwhm: float, *, ratio: float = 2.0, b: float = 0.1, size: int | None = None,
        sampling: Sampling = "integrated",
    ) -> DoubleGaussianPSF:  # fmt: skip
        """The model with ``sigma2 = ratio * sigma1`` whose profile has this FWHM (pixels)."""
        no_unit(fwhm, "DoubleGaussianPSF fwhm", "pixels")
        if not (np.isfinite(fwhm) and fwhm > 0 and ratio > 0):
            raise InputError(f"DoubleGaussianPSF fwhm={fwhm!r}, ratio={ratio!r}: must be finite and positive")

        from scipy.optimize import brentq

        def excess(sigma: float) -> float:
            core, wing = (np.exp(-0.125 * (fwhm / s) ** 2) for s in (sigma, ratio * sigma))
            return float(core + b * wing - 0.5 * (1.0 + b))

        low, high = (fwhm / SIGMA_TO_FWHM * f for f in (min(1.0, 1.0 / ratio), max(1.0, 1.0 / ratio)))
        sigma = brentq(excess, 0.99 * low, 1.01 * high)
        return cls(sigma1=sigma, sigma2=ratio * sigma, b=b, size=size, sampling=sampling)

    def scaled(self, factor: float) -> Self:
        return replace(self, sigma1=factor * self.sigma1, sigma2=factor * self.sigma2)

    @property
    def _extent(self) -> tuple[float, float]:
        sigmas = (self.sigma1, self.sigma2) if self.b > 0 else (self.sigma1,)
        return SIGMA_TO_FWHM * min(sigmas), 6.0 * max(sigmas)

    def _density(self, dx: FloatArray, dy: FloatArray) -> FloatArray:
        r2 = dx * dx + dy * dy
        profile = np.exp(-0.5 * r2 / self.sigma1**2)
        flux = self.sigma1**2
        if self.b > 0:
            profile = profile + self.b * np.exp(-0.5 * r2 / self.sigma2**2)
            flux += self.b * self.sigma2**2
        return profile / (2.0 * np.pi * flux)


@dataclass(frozen=True, eq=False)
class ImagePSF(PSF):
    """One stamp for the whole field.

    Parameters
    ----------
    image : array, shape (sy, sx)
        Odd-sized; its sum is believed (a stamp of sum 0.98 lacks 2 % of the flux) unless ``normalize``.
    normalize : bool
        Scale the stamp to unit sum.
    measured : array of bool, shape (sy, sx), optional
        Which pixels are measured; default all.  The others lie beyond the border of what was seen: solvers that
        continue the wings of a stamp continue them there, too.

    Raises
    ------
    PSFError
        See `check_stamp`; or if ``measured`` has another shape.
    """

    image: FloatArray
    normalize: bool = False
    measured: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        image = check_stamp(self.image)
        if self.measured is not None:
            measured = plain_array(self.measured, "measured", bool, error=PSFError)
            if measured.shape != image.shape:
                raise PSFError(f"measured: of shape {measured.shape}, not the stamp's {image.shape}")
            object.__setattr__(self, "measured", None if measured.all() else frozen(measured))
        object.__setattr__(self, "image", frozen(image / image.sum()) if self.normalize else image)

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def constant(self) -> bool:
        return True

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, _ = as_positions(x, y)
        stamp = frozen(resized(self.image, self._shape(shape)))
        return np.broadcast_to(stamp, (px.size, *stamp.shape))


@dataclass(frozen=True, eq=False)
class BasisPSF(PSF):
    """Basis stamps times smooth weights, as PSFEx and Rubin's kernel PSFs are.

    Parameters
    ----------
    basis : array, shape (n, sy, sx)
        Odd-sized stamps.
    weights : Field
        ``n`` functions of position.
    normalize : bool
        Scale every stamp to unit sum.
    """

    basis: FloatArray
    weights: Field
    normalize: bool = True

    def __post_init__(self) -> None:
        basis = frozen(plain_array(self.basis, "BasisPSF basis", float, error=PSFError))
        if basis.ndim != 3 or basis.shape[0] != self.weights.n:
            raise PSFError(f"BasisPSF: {self.weights.n} weights do not fit a basis of shape {basis.shape}")
        if not np.isfinite(basis).all():
            raise PSFError("BasisPSF: the basis has NaN or infinite pixels")
        try:
            odd_shape(basis.shape[1:], "BasisPSF stamps")
        except InputError as error:
            raise PSFError(str(error)) from error
        object.__setattr__(self, "basis", basis)
        center = self.weights.box.center
        check_stamp(self.stamps(x=center.x, y=center.y)[0], "BasisPSF stamp at the centre of the field")

    @property
    def shape(self) -> tuple[int, int]:
        return self.basis.shape[1], self.basis.shape[2]

    @property
    def field(self) -> Box:
        return self.weights.box

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        with np.errstate(over="ignore", invalid="ignore"):
            stamps = np.tensordot(self.weights.at(x=px, y=py).T, self.basis, axes=1)
        return _finish(stamps, px, py, self._shape(shape), normalize=self.normalize)


@dataclass(frozen=True, eq=False)
class GridPSF(PSF):
    """Stamps at the nodes of a grid, interpolated linearly between them and held constant beyond.

    Parameters
    ----------
    images : array, shape (ny, nx, sy, sx)
        Odd-sized stamps, one a node.
    x, y : array, shapes (nx,) and (ny,)
        Columns and rows of the nodes, increasing.
    normalize : bool
        Scale every stamp to unit sum.
    """

    images: FloatArray
    x: FloatArray
    y: FloatArray
    normalize: bool = False

    def __post_init__(self) -> None:
        images, x, y = (
            frozen(plain_array(getattr(self, name), f"GridPSF {name}", float, error=PSFError))
            for name in ("images", "x", "y")
        )
        if images.ndim != 4 or x.ndim != 1 or y.ndim != 1 or images.shape[:2] != (y.size, x.size):
            raise PSFError(f"GridPSF: images {images.shape} do not fit nodes x {x.shape} and y {y.shape}")
        for name, nodes in (("x", x), ("y", y)):
            if not (np.isfinite(nodes).all() and (np.diff(nodes) > 0).all()):
                raise PSFError(f"GridPSF: the nodes {name} must be finite and increase")
        for j, i in np.ndindex(y.size, x.size):
            check_stamp(images[j, i], f"GridPSF stamp at node x={x[i]:g}, y={y[j]:g}")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    @property
    def shape(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    @property
    def field(self) -> Box:
        low, high = (np.floor([self.y[0], self.x[0]]), np.ceil([self.y[-1], self.x[-1]]) + 1)
        return Box(*map(int, low), *map(int, high))

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        hats_x, hats_y = _hats(self.x, px), _hats(self.y, py)
        stamps = np.einsum("jp,ip,jiyx->pyx", hats_y, hats_x, self.images, optimize=True)
        return _finish(stamps, px, py, self._shape(shape), normalize=self.normalize)


def _hats(nodes: FloatArray, at: FloatArray) -> FloatArray:
    """Weights of linear interpolation, shape (len(nodes), len(at)); constant beyond the outer nodes."""
    return np.stack([np.interp(at, nodes, row) for row in np.eye(nodes.size)])


@dataclass(frozen=True, eq=False)
class FunctionPSF(PSF):
    """Any callable of a position that returns a stamp.

    Parameters
    ----------
    function : callable
        ``function(x, y)`` returns an array of this shape.
    shape : (int, int)
        Rows and columns, odd.
    normalize : bool
        Scale every stamp to unit sum.
    """

    function: Callable[[float, float], FloatArray]
    shape: tuple[int, int] = (0, 0)  # always given; a default is what makes it a field over the property
    normalize: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"FunctionPSF function={self.function!r}: give a function of x and y")
        object.__setattr__(self, "shape", odd_shape(self.shape, "FunctionPSF shape"))

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        stamps = np.empty((px.size, *self.shape))
        for k, (xk, yk) in enumerate(zip(px.tolist(), py.tolist(), strict=True)):
            try:
                stamp = plain_array(self.function(xk, yk), "its stamp", float)
            except Exception as error:
                raise PSFError(f"the PSF cannot be evaluated at x={xk:g}, y={yk:g}: {error}") from error
            if stamp.shape != self.shape:
                raise PSFError(f"the PSF at x={xk:g}, y={yk:g} has shape {stamp.shape}, not {self.shape}")
            stamps[k] = stamp
        return _finish(stamps, px, py, self._shape(shape), normalize=self.normalize)


def _finish(stamps: FloatArray, x: FloatArray, y: FloatArray, shape: tuple[int, int], *, normalize: bool) -> FloatArray:
    """Check evaluated stamps, normalise them if asked to, and bring them to the shape."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = stamps.sum(axis=(1, 2))
    bad = ~(np.isfinite(sums) & (sums > 0))
    if bad.any():
        k = int(np.argmax(bad))
        raise PSFError(f"the PSF at x={x[k]:g}, y={y[k]:g} has the sum {sums[k]:g}; it cannot be used there")
    if normalize:
        stamps = stamps / sums[:, None, None]
    return stamps if stamps.shape[1:] == shape else resized(stamps, shape)


def with_size(psf: PSF, size: int) -> PSF:
    """The model with other default stamps, where it can be resized exactly; else the model as it is."""
    return replace(psf, size=size) if isinstance(psf, AnalyticPSF) else psf


def words_of_psf(psf: Any) -> str:
    """A PSF, or what one is made from, as it can be asked for again where it is a file, words or a model."""
    if isinstance(psf, str | PathLike):
        return str(fspath(psf))
    return repr(psf) if isinstance(psf, AnalyticPSF) else f"an image ({type(psf).__name__})"
