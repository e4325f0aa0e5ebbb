"""What a PSF format is, and what it is given to read."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from astropy.io import fits

from psfmatch.errors import FormatError
from psfmatch.io.files import PathLike, existing_file, split_extension, told
from psfmatch.io.fits import COMPRESSIONS, extension, open_fits
from psfmatch.psf import PSF

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["PSFFormat", "PSFOptions", "PSFSource"]

HEAD = 4096
MAGIC = {
    b"PK\x03\x04": "a ZIP archive, such as NumPy's .npz",
    b"\x93NUMPY": "a NumPy array",
    b"#ASDF": "an ASDF file",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a Python pickle, which could run anything when it is loaded",
    b"{": "JSON",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
}


@dataclass(frozen=True, kw_only=True)
class PSFOptions:
    """What a reader may need that its file does not say.

    Parameters
    ----------
    pixel_scale : float, optional
        Arcseconds a pixel of the image.
    wcs : WCS, optional
        The image's, an `astropy.wcs.WCS`, for models made on the sky; its pixel (0, 0) is the image's first.
    allow_pickle : bool
        Whether Python pickles in the file may be loaded: a pickle can run any code, so only from a source you trust.
    """

    pixel_scale: float | None = None
    wcs: WCS | None = None
    allow_pickle: bool = False


class PSFSource:
    """A file that may hold a PSF, opened as far as it is looked into; a context that closes it, and names it in errors.

    Parameters
    ----------
    source : path
        ``name.fits``, or ``name.fits[N4]`` where one of several things in the file is wanted.

    Attributes
    ----------
    path : Path
        Of the file.
    wanted : str or None
        What stands in the brackets: an extension, or what else a format lets choose by it.

    Raises
    ------
    FileNotFoundError, FormatError
        If there is no such file, or it is empty.
    """

    def __init__(self, source: PathLike) -> None:
        self.name = os.fspath(source)
        self.path, self.wanted = split_extension(source)
        existing_file(self.path)
        self._open = ExitStack()
        self._open.enter_context(told(self.name, self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @cached_property
    def head(self) -> bytes:
        """The first 4096 bytes, decompressed where the file is."""
        with open(self.path, "rb") as raw:
            head = raw.read(HEAD)
        for magic, opener in COMPRESSIONS.items():
            if head.startswith(magic):
                try:
                    with opener(self.path) as stream:
                        return bytes(stream.read(HEAD))
                except Exception as error:
                    raise FormatError(f"{self.path}: cannot be decompressed ({error}); it is damaged") from error
        return head

    @cached_property
    def hdus(self) -> fits.HDUList | None:
        """The HDUs of a FITS file, None of any other.

        Raises
        ------
        FormatError
            If it is a FITS file that is damaged or cut off.
        """
        return self._open.enter_context(open_fits(self.path)) if self.head.startswith(b"SIMPLE") else None

    def chosen(self) -> Any:
        """The HDU that is wanted, None where none is.

        Raises
        ------
        FormatError
            If there is no such HDU.
        """
        return None if self.wanted is None or self.hdus is None else extension(self.hdus, self.wanted)

    def has(self, name: str) -> bool:
        """Whether it is a FITS file with an extension of this name (or number)."""
        try:
            return self.hdus is not None and extension(self.hdus, name) is not None
        except FormatError:
            return False

    def columns(self, name: str) -> set[str]:
        """The columns, in capitals, of the table of this name (or number); none where there is no such table."""
        hdu = extension(self.hdus, name) if self.hdus is not None and self.has(name) else None
        return {column.upper() for column in hdu.columns.names} if isinstance(hdu, fits.BinTableHDU) else set()

    def seems(self) -> str:
        """What the file seems to be, for a refusal."""
        if self.hdus is not None:
            parts = ", ".join(f"{k} {hdu.name or '(no name)'}{_extent(hdu)}" for k, hdu in enumerate(self.hdus))
            return f"a FITS file (HDUs: {parts})"
        return next((kind for magic, kind in MAGIC.items() if self.head.startswith(magic)), "no FITS file")


def _extent(hdu: Any) -> str:
    if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
        return f" [{', '.join(hdu.columns.names[:6])}{', ...' * (len(hdu.columns.names) > 6)}]"
    return f" {'x'.join(str(n) for n in hdu.shape)}" if getattr(hdu, "shape", ()) else ""


@dataclass(frozen=True, kw_only=True)
class PSFFormat:
    """A kind of file that holds a PSF model.

    Packages add theirs by an entry point of the group ``psfmatch.psf_formats`` that names such an object;
    `check_psf_format` tells whether it keeps what is promised.

    Parameters
    ----------
    name : str
        By which ``read_psf(format=)`` calls it.
    title : str
        What it is, in a few words.
    recognises : callable
        ``recognises(source)`` says from the content of a `PSFSource` whether the file is of this kind; it raises
        nothing, and is quick.
    read : callable
        ``read(source, options)`` returns the model: in pixels of the image, positions counted from 0, stamps of the
        flux in each pixel.  It raises `FormatError` for a file that it cannot make sense of, with the cure.

    Examples
    --------
    >>> PSFFormat(name="mine", title="my models", recognises=lambda source: False, read=lambda source, options: None)
    ...     # doctest: +ELLIPSIS
    PSFFormat(name='mine', title='my models', ...)
    """

    name: str
    title: str
    recognises: Callable[[PSFSource], bool]
    read: Callable[[PSFSource, PSFOptions], PSF]
