"""Apply a matching kernel to an exposure; one backend a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.direct import Direct
from psfmatch.convolve.fft import FFT
from psfmatch.convolve.footprint import Convolver
from psfmatch.errors import InputError, check_type
from psfmatch.exposure import Exposure, renewed
from psfmatch.kernel import MatchingKernel
from psfmatch.provenance import History
from psfmatch.regions import RegionsKernel, alone, assembled

__all__ = ["FFT", "Convolver", "Direct", "convolve", "convolve_many", "convolved"]


def convolve(
    exposure: Exposure, kernel: MatchingKernel | RegionsKernel, *, convolver: Convolver | None = None
) -> Exposure:
    """Convolve image, variance and mask with a kernel that may vary over the field.

    ``image_out(x) = sum_u K(u; x) image(x - u)``, ``variance_out(x) = sum_u K(u; x)^2 variance(x - u)``, and every
    output pixel inherits the mask planes of all pixels under the kernel's footprint.

    Parameters
    ----------
    exposure : Exposure
        Its box places the pixels in the kernel's frame.
    kernel : MatchingKernel or RegionsKernel
        The kernel, evaluated at every output pixel.  With one for each region, each region is convolved as if there
        were nothing else: pixels near its borders are made from the part of the kernel that lies inside (EDGE; INTRP
        too where the border is not that of a rectangle), and what is in no region is NaN and NO_DATA.
    convolver : Convolver, optional
        Backend and its options; default `FFT`.

    Returns
    -------
    Exposure
        With the same box, WCS, unit, PSF and meta data: to declare the new PSF is up to the caller (`match` does).

    Raises
    ------
    InputError
        If the image is smaller than the kernel, or an argument of another type.
    """
    check_type(exposure, Exposure, "exposure", "psfmatch.Exposure(image)")
    if not hasattr(convolver, "convolve") and convolver is not None:
        raise InputError(f"convolver {convolver!r}: give FFT(), Direct() or their like")
    how = FFT() if convolver is None else convolver
    if isinstance(kernel, RegionsKernel):
        out = _by_regions(exposure, kernel, how)
    else:
        check_type(
            kernel, MatchingKernel, "kernel", "a MatchingKernel (of an image: MatchingKernel.constant(image, box))"
        )
        out = how.convolve(exposure, kernel)
    return renewed(out, history=convolved(exposure.history, how))


def convolved(
    history: History, convolver: Convolver | None = None, *, kernel: str | PathLike[str] | None = None
) -> History:
    """The history of what was convolved, with the kernel of a file where it is from one."""
    files = () if kernel is None else (kernel,)
    return history.then("convolve", {"kernel": kernel, "convolver": convolver or FFT()}, files=files)


def _by_regions(exposure: Exposure, kernel: RegionsKernel, convolver: Any) -> Exposure:
    """Each region alone, put together; into the convolver's own planes, where it has some."""
    exposure = exposure.replace(mask=exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA")))
    out = getattr(convolver, "out", None)
    convolver = convolver if out is None else replace(convolver, out=None)

    def parts() -> Iterator[tuple[Exposure, NDArray[np.bool_]]]:
        for label, one in kernel.kernels.items():
            part = alone(exposure, kernel.regions, label, least=one.shape)
            if part is not None:
                yield convolver.convolve(part, one), kernel.regions.within(part.box, label)

    return assembled(exposure, parts(), out)


def convolve_many(
    exposures: Sequence[Exposure], kernels: Sequence[MatchingKernel], *, convolver: FFT | None = None
) -> list[Exposure]:
    """Convolve many small exposures, such as cut-outs of sources, each with its own kernel.

    Exposures and kernels of one shape are stacked, which is several times faster than `convolve` on each.

    Parameters
    ----------
    exposures : sequence of Exposure
        Of any shapes.
    kernels : sequence of MatchingKernel
        As many.
    convolver : FFT, optional
        Its options.

    Returns
    -------
    list of Exposure
        Convolved, in the order of the exposures.

    Raises
    ------
    InputError
        If the numbers differ, or an image is smaller than its kernel.
    """
    how = FFT() if convolver is None else convolver
    step = convolved(History(), how)
    done = how.convolve_many(exposures, kernels)
    return [renewed(out, history=before.history.followed_by(step)) for before, out in zip(exposures, done, strict=True)]
