"""PSF objects of other packages as ours: the one place where they are accepted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from psfmatch.errors import InputError, PSFError
from psfmatch.geometry import FloatArray, as_positions
from psfmatch.models.oversampled import effective_psf
from psfmatch.psf import PSF, FunctionPSF, ImagePSF

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["GalSimPSF", "PiffPSF", "as_psf"]

LARGEST = 1001


def as_psf(source: Any, *, pixel_scale: float | None = None, wcs: WCS | None = None) -> PSF:
    """Whatever stands for a PSF, as a `PSF`.

    Parameters
    ----------
    source : object
        * a `PSF`: as it is;
        * a two-dimensional stamp: an `ImagePSF`;
        * a photutils ``GriddedPSFModel`` or ``ImagePSF``, as its EPSFBuilder returns: the effective PSF at the
          pixels of a star centred on one, see `psfmatch.models.oversampled`;
        * a GalSim object: drawn with the pixel's response (``method="auto"``) through the local WCS or, without a WCS,
          in square pixels whose +x is the object's +x;
        * a Piff PSF of one chip: as Piff draws it;
        * any other callable of ``(x, y)`` that returns a stamp, always of one odd shape.
    pixel_scale : float, optional
        Arcseconds a pixel; GalSim objects need it, or the WCS.
    wcs : astropy.wcs.WCS, optional
        The image's, with pixel (0, 0) its first.

    Raises
    ------
    InputError
        If the source is none of these, or a GalSim object without a pixel scale.
    PSFError
        If it cannot be used as a PSF.
    """
    if isinstance(source, PSF):
        return source
    if _is(source, "galsim", "GSObject"):
        if wcs is None and pixel_scale is None:
            raise InputError("a GalSim object is of sizes in arcsec: give the pixel scale, or an image with a WCS")
        return GalSimPSF(source, pixel_scale, wcs)
    if _is(source, "piff", "PSF"):
        return PiffPSF(source)
    if _is(source, "photutils.psf", "GriddedPSFModel", "ImagePSF"):
        return _of_photutils(source)
    if callable(source):
        shape = np.shape(source(0.0, 0.0))
        if len(shape) != 2:
            raise PSFError(f"{source!r} returns an array of shape {shape}; a PSF is a stamp for a position x, y")
        return FunctionPSF(source, shape)
    try:
        stamp = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise InputError(f"an object of type {type(source).__name__} is no PSF") from error
    if stamp.dtype == object:
        raise InputError(f"an object of type {type(source).__name__} is no PSF; give a model, a stamp or a callable")
    return ImagePSF(source)


def _is(source: Any, module: str, *names: str) -> bool:
    """Whether an object is of a class of a package, which is not loaded for that: what made the object has done so."""
    loaded = sys.modules.get(module)
    kinds = tuple(kind for kind in (getattr(loaded, name, None) for name in names) if isinstance(kind, type))
    return isinstance(source, kinds)


def _of_photutils(model: Any) -> PSF:
    what, oversampling = f"photutils' {type(model).__name__}", np.broadcast_to(model.oversampling, 2)
    steps = int(oversampling[0]), int(oversampling[1])
    origin = model.origin[1], model.origin[0]
    if np.ndim(model.data) == 2:
        return effective_psf(np.asanyarray(model.data)[None], steps, origin=origin, what=what)
    x, y = np.asarray(model.grid_xypos, float).T
    return effective_psf(model.data, steps, x=x, y=y, what=what)


@dataclass(frozen=True, eq=False)
class GalSimPSF(PSF):
    """A GalSim object, drawn with the response of the pixel.

    Parameters
    ----------
    profile : galsim.GSObject
        Scaled to unit flux.
    pixel_scale : float, optional
        Arcseconds a pixel, used where there is no WCS.
    wcs : astropy.wcs.WCS, optional
        The image's.
    """

    profile: Any
    pixel_scale: float | None = None
    wcs: WCS | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.profile.flux) and self.profile.flux > 0):
            raise PSFError(f"a GalSim object of flux {self.profile.flux:g} is no PSF")
        object.__setattr__(self, "profile", self.profile.withFlux(1.0))

    @property
    def constant(self) -> bool:
        return self.wcs is None

    @property
    def resizable(self) -> bool:
        return True

    @cached_property
    def shape(self) -> tuple[int, int]:
        """GalSim's own choice, made odd."""
        scale = self._local(0.0, 0.0).minLinearScale()
        size = min(int(self.profile.getGoodImageSize(scale)) | 1, LARGEST)
        return size, size

    def _local(self, x: float, y: float) -> Any:
        import galsim

        if self.wcs is None:
            return galsim.PixelScale(self.pixel_scale)
        return galsim.AstropyWCS(wcs=self.wcs).local(galsim.PositionD(x + 1.0, y + 1.0))

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        px, py = as_positions(x, y)
        ny, nx = self._shape(shape)
        stamps = np.empty((px.size, ny, nx))
        for k in range(px.size if not self.constant else min(px.size, 1)):
            local = self._local(px[k], py[k])
            stamps[k] = self.profile.drawImage(nx=nx, ny=ny, wcs=local, method="auto", dtype=float).array
        stamps[1:] = stamps[:1] if self.constant else stamps[1:]
        return stamps


@dataclass(frozen=True, eq=False)
class PiffPSF(PSF):
    """A PSF of Piff, drawn by Piff: for the models that `psfmatch` does not know itself.

    Parameters
    ----------
    model : piff.PSF
    chip : optional
        Of a model of several chips.
    """

    model: Any
    chip: Any = None
    shape: tuple[int, int] = (49, 49)

    def __post_init__(self) -> None:
        chips = list(self.model.wcs)
        if self.chip is None and len(chips) > 1:
            raise PSFError(f"the Piff model has the chips {', '.join(map(str, chips))}; choose one of them")
        object.__setattr__(self, "chip", chips[0] if self.chip is None else self.chip)
        others = [name for name in self.model.interp_property_names if name not in ("x", "y", "u", "v")]
        if others:
            raise PSFError(f"the Piff model varies with {', '.join(others)}, not with the position alone")

    @property
    def resizable(self) -> bool:
        return True

    def stamps(self, *, x: ArrayLike, y: ArrayLike, shape: tuple[int, int] | None = None) -> FloatArray:
        import galsim

        px, py = as_positions(x, y)
        ny, nx = self._shape(shape)
        stamps = np.empty((px.size, ny, nx))
        for k, (xk, yk) in enumerate(zip(px.tolist(), py.tolist(), strict=True)):
            local = self.model.wcs[self.chip].local(galsim.PositionD(xk + 1.0, yk + 1.0))
            image = galsim.Image(nx, ny, wcs=local, dtype=float)
            try:
                self.model.draw(x=xk + 1.0, y=yk + 1.0, chipnum=self.chip, image=image, center=True)
            except Exception as error:
                raise PSFError(f"the PSF cannot be evaluated at x={xk:g}, y={yk:g}: {error}") from error
            stamps[k] = image.array
        return stamps
