"""What a frame format is, what it is given to read, and the FITS files that most of them are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

from astropy.io import fits
from numpy.typing import NDArray

from psfmatch.errors import FormatError, PsfMatchWarning
from psfmatch.io.files import PathLike
from psfmatch.io.fits import image_hdus, open_fits, plane
from psfmatch.io.headers import meta_of, unit_of, wcs_of
from psfmatch.io.masks import MaskConvention
from psfmatch.io.psf_formats.base import PSFSource
from psfmatch.psf import PSF

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["NAMES", "Frame", "FrameFormat", "FrameSource", "Plane", "chosen_image", "fits_frame", "images_of", "load"]

NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("IMAGE", "SCI"),
    "mask": ("MASK", "MSK", "DQ"),
    "variance": ("VARIANCE", "VAR"),
    "error": ("ERR",),
    "weight": ("WEIGHT", "WGT", "IVAR"),
}


class FrameSource(PSFSource):
    """A file that may hold a frame, as `PSFSource`.

    Parameters
    ----------
    source : path
    memmap : bool
        Leave the planes in the file.
    with_psf : bool
        Whether the PSF in it is wanted.
    """

    def __init__(self, source: PathLike, *, memmap: bool = False, with_psf: bool = True) -> None:
        super().__init__(source)
        self.memmap, self.with_psf = memmap, with_psf

    @cached_property
    def hdus(self) -> fits.HDUList | None:
        """The HDUs of a FITS file, None of any other."""
        fits_file = self.head.startswith(b"SIMPLE")
        return self._open.enter_context(open_fits(self.path, memmap=self.memmap)) if fits_file else None

    def card(self, name: str) -> Any:
        """The value of a card in any header of a FITS file (the first that has it), else None."""
        return next((hdu.header[name] for hdu in self.hdus or () if name in hdu.header), None)


@dataclass(frozen=True)
class Plane:
    """An image as it is in a file, with the cards of the file and of the HDU together."""

    array: NDArray[Any]
    header: fits.Header
    path: Path
    compressed: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a file says of an exposure, before anything else is heard.

    Parameters
    ----------
    planes : mapping
        ``image``, and of ``mask``, ``variance``, ``error`` (standard deviation) and ``weight`` those that are there.
    wcs, unit, meta, psf
        As `Exposure` has them.
    origin : (int, int)
        Row and column of the first pixel in the parent frame.
    extension : (str, int, int)
        Name, version and number of the image's HDU, by which companions are looked up.
    beside : mapping
        Files that belong to it, by the names of `read_exposure`'s keywords.
    weight_unit : float
        The inverse variance that a weight of 1 means.
    convention : MaskConvention or str, optional
        What the values of the mask mean, where the format knows; else its header says.
    """

    planes: Mapping[str, Plane]
    wcs: WCS | None = None
    unit: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    psf: PSF | None = None
    origin: tuple[int, int] = (0, 0)
    extension: tuple[str, int, int] = ("", 1, 0)
    beside: Mapping[str, Path | str] = field(default_factory=dict)
    weight_unit: float = 1.0
    convention: MaskConvention | str | None = None


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """A layout of frames: as a `PSFFormat`, one of PSFs.

    Parameters
    ----------
    name : str
        By which ``read_exposure(format=)`` calls it.
    title : str
        What it is, in a few words.
    recognises : callable
        ``recognises(source)`` says from the content (and the name) of a `FrameSource` whether the file is of this
        kind; it raises nothing, and is quick.
    read : callable
        ``read(source)`` returns the `Frame`.
    mask : str, optional
        The convention of masks, where the format was asked for by name: see `psfmatch.io.masks`.
    """

    name: str
    title: str
    recognises: Callable[[FrameSource], bool]
    read: Callable[[FrameSource], Frame]
    mask: str | None = None


def fits_frame(source: FrameSource, names: Mapping[str, tuple[str, ...]] = NAMES) -> Frame:
    """The frame of a FITS file: the image that is wanted, and the planes that its neighbours hold by their names."""
    hdus = source.hdus
    if hdus is None:
        raise FormatError(f"{source.path}: is {source.seems()}, where a FITS file is expected")
    chosen = chosen_image(source, names)
    found = {"image": chosen}
    for hdu in image_hdus(hdus):
        role = next((role for role, known in names.items() if hdu.name in known), None)
        if role not in (None, "image") and hdu.ver == chosen.ver and hdu is not chosen:
            found.setdefault(str(role), hdu)
    if "variance" in found:
        found.pop("error", None)
    planes = {role: load(hdus, hdu) for role, hdu in found.items()}
    wcs = wcs_of(chosen.header, hdus)
    return Frame(
        planes=planes,
        wcs=wcs,
        unit=unit_of(planes["image"].header),
        meta=_meta(hdus, chosen, without_world=wcs is not None),
        extension=(chosen.name, chosen.ver, hdus.index(chosen)),
    )


def chosen_image(source: FrameSource, names: Mapping[str, tuple[str, ...]] = NAMES) -> Any:
    """The image asked for; else the one named IMAGE or SCI; else the first, with a word if there are others."""
    if source.wanted is not None:
        return source.chosen()
    hdus = source.hdus
    assert hdus is not None
    others = images_of(hdus, names)
    if not others:
        from psfmatch.io.psf_formats.registry import recognised

        model = recognised(source)
        if model is not None and model.name != "image":  # which any plane passes for
            raise FormatError(
                f"{source.path}: is {model.title} and no image; give the image, and this file as its PSF (--psf, in "
                "Python psf=)"
            )
        every = ", ".join(hdu.name or "(no name)" for hdu in hdus)
        raise FormatError(f"{source.path}: holds no two-dimensional image (its HDUs: {every})")
    if len(others) > 1 and others[0].shape == others[1].shape:
        warn(
            f"{source.path}: holds {len(others)} images; read HDU {hdus.index(others[0])} {others[0].name!r}. "
            f"Choose another as {source.path.name}[{hdus.index(others[1])}]",
            PsfMatchWarning, stacklevel=6,
        )  # fmt: skip
    return others[0]


def images_of(hdus: fits.HDUList, names: Mapping[str, tuple[str, ...]] = NAMES) -> list[Any]:
    """The HDUs named IMAGE or SCI; where there are none, all images but those whose names are of other planes."""
    images = [hdu for hdu in image_hdus(hdus) if not any(hdu.name in names[role] for role in names if role != "image")]
    return [hdu for hdu in images if hdu.name in names.get("image", ())] or images


def load(hdus: fits.HDUList, hdu: Any) -> Plane:
    """The image of one HDU."""
    header = hdus[0].header.copy()
    if hdu is not hdus[0]:
        header.update(hdu.header)
    return Plane(plane(hdus, hdu), header, Path(hdus.filename()), isinstance(hdu, fits.CompImageHDU))


def _meta(hdus: fits.HDUList, chosen: Any, *, without_world: bool) -> dict[str, Any]:
    primary = hdus[0].header
    if "PSFMATCH" in primary or chosen is hdus[0]:
        return meta_of(primary, without_world=without_world)
    return meta_of(primary, chosen.header, without_world=without_world)
