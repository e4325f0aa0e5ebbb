"""Apply a matching kernel to an exposure; one backend a file."""

from __future__ import annotations

from collections.abc import Sequence

from psfmatch.convolve.direct import Direct
from psfmatch.convolve.fft import FFT
from psfmatch.convolve.footprint import Convolver
from psfmatch.errors import InputError, check_type
from psfmatch.exposure import Exposure
from psfmatch.kernel import MatchingKernel

__all__ = ["FFT", "Convolver", "Direct", "convolve", "convolve_many"]


def convolve(exposure: Exposure, kernel: MatchingKernel, *, convolver: Convolver | None = None) -> Exposure:
    """Convolve image, variance and mask with a kernel that may vary over the field.

    ``image_out(x) = sum_u K(u; x) image(x - u)``, ``variance_out(x) = sum_u K(u; x)^2 variance(x - u)``, and every
    output pixel inherits the mask planes of all pixels under the kernel's footprint.

    Parameters
    ----------
    exposure : Exposure
        Its box places the pixels in the kernel's frame.
    kernel : MatchingKernel
        The kernel, evaluated at every output pixel.
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
    check_type(kernel, MatchingKernel, "kernel", "a MatchingKernel (of an image: MatchingKernel.constant(image, box))")
    if not hasattr(convolver, "convolve") and convolver is not None:
        raise InputError(f"convolver {convolver!r}: give FFT(), Direct() or their like")
    return (FFT() if convolver is None else convolver).convolve(exposure, kernel)


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
    return (FFT() if convolver is None else convolver).convolve_many(exposures, kernels)
