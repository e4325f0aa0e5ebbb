"""What every PSF format promises, checked."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from astropy.io import fits

from psfmatch.errors import FormatError, InputError, PSFError, PsfMatchError
from psfmatch.geometry import Box, resized
from psfmatch.io.files import PathLike, split_extension
from psfmatch.io.psf_formats.base import PSFFormat, PSFOptions, PSFSource
from psfmatch.io.psf_formats.registry import read_file
from psfmatch.psf import PSF, check_stamp

__all__ = ["check_psf_format"]

SUMS = (0.5, 1.02)
KEPT = (0.9, 0.5, 0.05)
LOST = 123  # more, lest the cut fall between two HDUs, where it cannot be seen
UNKNOWN_FIELD = Box(0, 0, 1024, 1024)


def check_psf_format(format: PSFFormat, path: PathLike, *, options: PSFOptions | None = None) -> PSF:
    """Check that a PSF format does what `psfmatch.read_psf` and the solvers rely on; for authors of formats.

    * ``recognises`` takes the file, and neither an empty FITS file nor text;
    * ``read`` gives the same `psfmatch.PSF` each time, which works after the file is closed and after pickling;
    * stamps are odd-sized, finite, usable (`psfmatch.psf.check_stamp`), of sums between 0.5 and 1.02; those of several
      positions are those of each one; scalars and arrays are taken; 8 threads at once get what one does;
    * stamps of another shape are padded with zeros or cut, unless the model is ``resizable``; an even shape is an
      `InputError`;
    * what is done to a stamp does not change the model;
    * far outside its field the model gives finite stamps, or a `PSFError`;
    * a file cut off, to 90, 50 and 5 % of its size, is refused by a `FormatError` or `PSFError` that names it.

    Parameters
    ----------
    format : PSFFormat
        The format.
    path : path
        A sound file; ``name.fits[N4]`` where the format needs a choice.
    options : PSFOptions, optional
        As the format needs them for this file.

    Returns
    -------
    PSF
        What was read.

    Raises
    ------
    AssertionError
        With a sentence, at the first promise that is not kept.
    """
    options = PSFOptions() if options is None else options
    psf, again = (_read(format, path, options) for _ in range(2))
    _check_refusals(format, path, options)
    x, y = _positions(psf)
    stamps = _check_stamps(psf, x, y)
    _claim(np.array_equal(stamps, again.stamps(x=x, y=y)), "reading twice gives different models")
    thawed = pickle.loads(pickle.dumps(psf))
    _claim(np.array_equal(stamps, thawed.stamps(x=x, y=y)), "the model is another after pickling")
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda _: psf.stamps(x=x, y=y), range(16)))
    _claim(all(np.array_equal(stamps, one) for one in many), "threads at the same time get different stamps")
    _check_shapes(psf, stamps, x, y)
    _check_far(psf)
    return psf


def _claim(kept: bool | np.bool_, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


def _read(format: PSFFormat, path: PathLike, options: PSFOptions) -> PSF:
    with PSFSource(path) as source:
        _claim(format.recognises(source), f"{format.name} does not recognise {source.name}")
        psf = read_file(source, options, format)
    _claim(isinstance(psf, PSF), f"read returned {type(psf).__name__}, no psfmatch.PSF")
    return psf


def _positions(psf: PSF) -> tuple[np.ndarray, np.ndarray]:
    box = psf.field or UNKNOWN_FIELD
    (ny, nx), along = box.shape, np.array([0.07, 0.31, 0.52, 0.93])
    return box.x0 + along * (nx - 1), box.y0 + along[[2, 0, 3, 1]] * (ny - 1)


def _check_stamps(psf: PSF, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    stamps = psf.stamps(x=x, y=y)
    _claim(stamps.shape == (x.size, *psf.shape), f"stamps of shape {stamps.shape} at {x.size} positions, not psf.shape")
    for k in range(x.size):
        try:
            check_stamp(stamps[k], f"the stamp at x={x[k]:g}, y={y[k]:g}")
        except PSFError as error:
            raise AssertionError(str(error)) from error
    sums = stamps.sum(axis=(1, 2))
    _claim((sums >= SUMS[0]).all() and (sums <= SUMS[1]).all(), f"stamps of the sums {np.round(sums, 4)}")
    for k in range(x.size):
        one = psf.stamps(x=float(x[k]), y=float(y[k]))
        _claim(one.shape[0] == 1, "a scalar position gives more than one stamp")
        _claim(np.allclose(one[0], stamps[k], rtol=0, atol=1e-12), "a stamp depends on which others are asked for")
    kept = stamps.copy()
    if stamps.flags.writeable:
        stamps[...] = 0.0
        _claim(np.array_equal(psf.stamps(x=x, y=y), kept), "what is done to a stamp changes the model")
    return kept


def _check_shapes(psf: PSF, stamps: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    for change in (4, -2):
        shape = (psf.shape[0] + change, psf.shape[1] + 2 * change)
        if min(shape) < 3:
            continue
        other = psf.stamps(x=x, y=y, shape=shape)
        _claim(other.shape == (x.size, *shape), f"stamps of shape {other.shape[1:]}, where {shape} was asked for")
        same = psf.resizable or np.allclose(other, resized(stamps, shape), rtol=0, atol=1e-12)
        _claim(same, "stamps of another shape are neither padded with zeros nor cut")
    _claim_refused(lambda: psf.stamps(x=x, y=y, shape=(4, 5)), (InputError,), "an even shape")


def _check_far(psf: PSF) -> None:
    box = psf.field or UNKNOWN_FIELD
    x, y = box.x1 + 3.0 * box.shape[1], box.y0 - 2.0 * box.shape[0]
    try:
        finite = bool(np.isfinite(psf.stamps(x=x, y=y)).all())
    except PSFError:
        return
    _claim(finite, f"the stamp at x={x:g}, y={y:g} is not finite")


def _check_refusals(format: PSFFormat, path: PathLike, options: PSFOptions) -> None:
    file, wanted = split_extension(path)
    content, choice = file.read_bytes(), "" if wanted is None else f"[{wanted}]"
    with tempfile.TemporaryDirectory() as scratch:
        empty, text = Path(scratch) / "empty.fits", Path(scratch) / "text.psf"
        fits.PrimaryHDU().writeto(empty)
        text.write_text("no PSF at all\n")
        for other in (empty, text):
            with PSFSource(other) as source:
                _claim(not format.recognises(source), f"{format.name} takes {source.seems()} for its own")
        for kept in KEPT:
            cut = Path(scratch) / f"cut-{100 * kept:.0f}-{file.name}"
            cut.write_bytes(content[: int(kept * len(content)) - LOST])
            refused = _claim_refused(
                lambda cut=cut: _refused(f"{cut}{choice}", format, options),  # type: ignore[misc]
                (FormatError, PSFError), f"a file cut off at {100 * kept:.0f} %",
            )  # fmt: skip
            _claim(cut.name in str(refused), f"the refusal of a file that is cut off does not name it: {refused}")


def _refused(path: str, format: PSFFormat, options: PSFOptions) -> PSF:
    with PSFSource(path) as source:
        return read_file(source, options, format)


def _claim_refused(act: Callable[[], object], kinds: tuple[type[PsfMatchError], ...], what: str) -> Exception:
    expected = " or ".join(kind.__name__ for kind in kinds)
    try:
        act()
    except kinds as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__} ({error}), not {expected}") from error
    raise AssertionError(f"{what} is taken, where a {expected} is due")
