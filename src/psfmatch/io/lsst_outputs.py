"""Writing files of Rubin's ``lsst.images``, through the package (``psfmatch[rubin]``, Python 3.12 and later)."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psfmatch.errors import FormatError, InputError, PsfMatchWarning
from psfmatch.exposure import Exposure
from psfmatch.io.files import PathLike, atomic_output, not_written, temporary_folder

if TYPE_CHECKING:
    from lsst.images import VisitImage

__all__ = ["write_lsst_images"]

PROVENANCE = "psfmatch_provenance"
SUFFIXES = (".fits", ".json", ".h5")


def write_lsst_images(
    exposure: Exposure, path: PathLike, *, like: VisitImage | PathLike | None = None, overwrite: bool = False
) -> None:
    """Write an exposure as an image of ``lsst.images``, which that package and `read_exposure` read.

    How it came to be stands in its metadata, as JSON under the name ``psfmatch_provenance``: what
    ``exposure.history.provenance().as_dict()`` gives.

    Parameters
    ----------
    exposure : Exposure
        What is written.
    path : path
        Ends in ``.fits``, ``.json`` or ``.h5``, which says the kind of file.
    like : lsst.images.VisitImage or path, optional
        The visit image from which the exposure comes: the file becomes a VisitImage that has all else from it, and
        the exposure's PSF (see `psfmatch.io.lsst_images.to_visit_image`).  Without it the file becomes a MaskedImage,
        which has no PSF.
    overwrite : bool
        Replace the file where it exists.

    Raises
    ------
    InputError
        If ``lsst.images`` is not installed, the name has another ending, or the exposure's PSF cannot be held.
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    OSError
        If it cannot be written, or there is no room for a temporary file of the same size in the folder that
        ``TMPDIR`` names.

    Warns
    -----
    PsfMatchWarning
        If the PSF is left out.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"{target}: the name of a file of lsst.images ends in {', '.join(SUFFIXES)}")
    try:
        from lsst.images.serialization import write_archive
    except ImportError as error:
        raise InputError(
            f"{target}: to write it, pip install 'psfmatch[rubin]' (Python 3.12 and later); psfmatch.write_exposure "
            "needs nothing else"
        ) from error
    with atomic_output(target, overwrite=overwrite) as out, temporary_folder("psfmatch-") as scratch:
        file = scratch / target.name
        image = _image(exposure, like)
        image.metadata[PROVENANCE] = json.dumps(exposure.history.provenance().as_dict())
        try:
            write_archive(image, file)
        except OSError as error:  # which does not always say of which file
            raise not_written(file, error) from error
        with open(file, "rb") as written:
            shutil.copyfileobj(written, out)


def _image(exposure: Exposure, like: Any) -> Any:
    from psfmatch.io.lsst_images import to_masked_image, to_visit_image

    if like is None:
        if exposure.psf is not None:
            warnings.warn("a MaskedImage holds no PSF; it is not written", PsfMatchWarning, stacklevel=4)
        return to_masked_image(exposure)
    return to_visit_image(exposure, _read(like) if isinstance(like, str | os.PathLike) else like)


def _read(path: PathLike) -> Any:
    from lsst.images import VisitImage
    from lsst.images.serialization import read_archive

    try:
        return read_archive(os.fspath(path), VisitImage)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise FormatError(f"{os.fspath(path)}: cannot be read as a VisitImage: {error}") from error
