"""What a type checker says of a program that uses psfmatch; `test_typing` and CI run one over it.

Where a call is wrong, the line says which complaint is expected: an ignored error that is none is an error itself.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import psfmatch

Floats = NDArray[np.floating[Any]]

exposure = psfmatch.read_exposure("image.fits", psf="image.psf")
assert_type(exposure, psfmatch.Exposure)
assert_type(exposure.image, Floats)
assert_type(exposure.variance, Floats | None)
assert_type(exposure.mask, psfmatch.Mask)
assert_type(exposure.mask.any_of("SAT"), NDArray[np.bool_])
assert_type(exposure.psf, psfmatch.PSF | None)
assert_type(exposure.box, psfmatch.Box)
assert_type(exposure.pixel_scale, float | None)

matched = psfmatch.match(exposure, "moffat:fwhm=5,beta=3.5", solver=psfmatch.FreeForm(tolerance=2e-3))
assert_type(matched, psfmatch.Matched)
assert_type(matched.exposure, psfmatch.Exposure)
assert_type(matched.kernel, psfmatch.MatchingKernel)
assert_type(matched.quality, psfmatch.Quality)
assert_type(matched.solution.outcome, psfmatch.Outcome)
assert_type(matched.kernel.stamps(x=3.0, y=[1.0]), Floats)
psfmatch.write_matched(matched, "matched.fits", overwrite=True)

psf = psfmatch.MoffatPSF(fwhm=3.0, beta=3.5)
assert_type(psf.stamps(x=0, y=0), Floats)
assert_type(psf.scaled(1.2), psfmatch.MoffatPSF)
assert_type(psfmatch.matching_kernel(psf, np.ones((5, 5))), psfmatch.Solution)
assert_type(psfmatch.common_target({"a": psf}), psfmatch.PSF)
assert_type(psfmatch.convolve(exposure, matched.kernel, convolver=psfmatch.FFT(edge="nan")), psfmatch.Exposure)
assert_type(psfmatch.warp(exposure, psfmatch.Grid.auto([exposure])), psfmatch.Exposure)

coadd = psfmatch.coadd([exposure, "other.fits"], target=lambda views: psf, combine=psfmatch.Mean())
assert_type(coadd.exposure, psfmatch.Exposure)
assert_type(coadd.count, NDArray[np.integer[Any]])


class Own:
    """Every solver of one's own is a `Solver`."""

    def solution(
        self, science: psfmatch.PSF, target: psfmatch.PSF, box: psfmatch.Box, *, kernel_sum: float = 1.0
    ) -> psfmatch.Solution:
        return psfmatch.FreeForm().solution(science, target, box, kernel_sum=kernel_sum)


solver: psfmatch.Solver = Own()
try:
    psfmatch.match(exposure, psf, solver=solver)
except psfmatch.MatchError as error:
    assert_type(error.solution, psfmatch.Solution | None)

psfmatch.match(exposure, 3, solver="alard")  # type: ignore[arg-type]
psfmatch.FreeForm(wings="some")  # type: ignore[arg-type]
psfmatch.FreeForm(tolerence=1e-3)  # type: ignore[call-arg]
psf.stamps(0, 0)  # type: ignore[call-arg]
psfmatch.coadd([exposure], grid=3)  # type: ignore[arg-type]
psfmatch.write_matched(exposure, "out.fits")  # type: ignore[arg-type]
exposure.image = np.zeros(3)  # type: ignore[misc]
