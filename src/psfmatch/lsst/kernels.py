"""A matching kernel under Rubin's names, in Rubin's orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from psfmatch.errors import InputError
from psfmatch.kernel import MatchingKernel

__all__ = ["Extent2I", "LinearCombinationKernel"]


class Extent2I(NamedTuple):
    """The size of an image.

    Parameters
    ----------
    x : int
        Width, in pixels.
    y : int
        Height, in pixels.
    """

    x: int
    y: int


@dataclass(frozen=True, eq=False)
class LinearCombinationKernel:
    """A `MatchingKernel` as users of Rubin's software know it.

    Rubin's convolution is a correlation, ``out(x) = sum_u K(u) I(x + u)``: all images here are mirrored in both axes
    with respect to ``kernel``, whose convolution is a convolution.  Positions are given x first.

    Parameters
    ----------
    kernel : MatchingKernel
        The kernel itself, which is what psfmatch's own functions take.
    """

    kernel: MatchingKernel

    def getDimensions(self) -> Extent2I:
        """Width and height."""
        return Extent2I(self.getWidth(), self.getHeight())

    def getWidth(self) -> int:
        """Columns."""
        return self.kernel.shape[1]

    def getHeight(self) -> int:
        """Rows."""
        return self.kernel.shape[0]

    def getKernelList(self) -> list[NDArray[np.float64]]:
        """The basis images, as arrays (height, width)."""
        return [np.array(image[::-1, ::-1]) for image in self.kernel.basis]

    def getNBasisKernels(self) -> int:
        """The number of basis images."""
        return len(self.kernel.basis)

    def isSpatiallyVarying(self) -> bool:
        """Whether the weights are functions of position (of order 1 or more)."""
        return self.kernel.weights.order > 0

    def getNSpatialParameters(self) -> int:
        """Coefficients of every weight; 0 if the kernel does not vary."""
        return self.kernel.weights.coefficients.shape[1] if self.isSpatiallyVarying() else 0

    def getSpatialParameters(self) -> list[list[float]]:
        """The coefficients, a list for each basis image: 1, x, y, x^2, xy, y^2, ...; empty lists without variation."""
        if not self.isSpatiallyVarying():
            return [[] for _ in self.kernel.basis]
        values: list[list[float]] = np.asarray(self.kernel.weights.coefficients).tolist()
        return values

    def getKernelParameters(self) -> list[float]:
        """The weights of a kernel that does not vary; at the centre of its box of one that does."""
        center = self.kernel.box.center
        values: list[float] = self.kernel.weights.at(x=center.x, y=center.y)[:, 0].tolist()
        return values

    def image(self, *, x: float = 0.0, y: float = 0.0, normalize: bool = False) -> NDArray[np.float64]:
        """The kernel at a position, as an array (height, width), of unit sum if asked for."""
        stamp = np.array(self.kernel.stamps(x=x, y=y)[0, ::-1, ::-1], dtype=float)
        return stamp / stamp.sum() if normalize else stamp

    def computeImage(
        self, image: NDArray[np.floating], doNormalize: bool = False, x: float = 0.0, y: float = 0.0
    ) -> float:
        """Write the kernel at a position into an array (height, width), and return its sum before normalisation.

        `image` returns a new array instead.

        Raises
        ------
        InputError
            If the array has another shape.
        """
        if image.shape != self.kernel.shape:
            raise InputError(f"image of shape {image.shape} does not fit a kernel of shape {self.kernel.shape}")
        image[...] = self.image(x=x, y=y, normalize=doNormalize)
        return float(self.kernel.sums(x=x, y=y)[0])
