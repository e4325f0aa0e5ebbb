"""Kernels whose weights are splines; see `psfmatch.convolve.local`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psfmatch.convolve.blocks import Batch, Blocks
from psfmatch.convolve.local import LocalKernel, Terms, added
from psfmatch.fields import Field
from psfmatch.geometry import FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["SplineKernel"]

SAMPLES = 24


class SplineKernel(LocalKernel):
    """A kernel whose weights are splines."""

    def __init__(
        self, kernel: MatchingKernel, blocks: Blocks, tolerance: float, xp: Any, dtype: Any, device: Any
    ) -> None:
        super().__init__(kernel, blocks, tolerance, xp, dtype, device)
        self.basis = self.kernel.basis

    def _summed(self, cut: Any, terms: Terms, precise: NDArray[np.bool_]) -> Any:
        y, x, fft = self.blocks.y, self.blocks.x, self.fft
        spectra: dict[int, Any] = {}
        total = None
        for level in self._levels(terms, precise):
            spectra = self._spectra(cut, None, {0}, level.dtype, spectra)
            for (_, surface), spectrum in zip(level.pairs, level.images, strict=True):
                image = fft.ifft(spectra[0] * spectrum, axis=1)[:, y.kernel - 1 :, :]
                image = fft.irfft(image, n=x.side, axis=2)[:, :, x.kernel - 1 :]
                total = added(total, image * self._array(terms.p[:, surface, ...], level.dtype))
        return total

    def _terms(self, batch: Batch) -> Terms:
        places = [(self.blocks.y.positions[row], self.blocks.x.positions[column]) for row, column in batch]
        field = self.kernel.weights
        samples = [field.on_grid(x=_thinned(x), y=_thinned(y)).reshape(field.n, -1) for y, x in places]
        left, values, right = np.linalg.svd(np.stack(samples), full_matrices=False)
        tails = np.sqrt(np.cumsum(values[:, ::-1] ** 2, axis=1))[:, ::-1]
        rank = max(1, int(np.count_nonzero((tails > self.tolerance * tails[:, :1]).any(axis=0))))
        weights = left[:, :, :rank].transpose(0, 2, 1)
        surfaces = [
            Field(w @ field.coefficients, field.box, "spline").on_grid(x=x, y=y)
            for w, (y, x) in zip(weights, places, strict=True)
        ]
        heights = values[:, :rank] * np.abs(right[:, :rank]).max(axis=2) * (np.abs(weights) @ self._heights)
        return Terms([(0, k) for k in range(rank)], weights, heights, np.ones((1, 1, 1, 1)), np.stack(surfaces))


def _thinned(positions: FloatArray) -> FloatArray:
    """Some of the positions of a block, its ends among them."""
    result: FloatArray = positions[np.unique(np.linspace(0, positions.size - 1, SAMPLES).round().astype(int))]
    return result
