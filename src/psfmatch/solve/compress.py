"""From one kernel a cell to one kernel for the field: a few images times smooth weights."""

from __future__ import annotations

import numpy as np

from psfmatch.errors import InputError
from psfmatch.fields import Field, FieldKind
from psfmatch.geometry import Box, FloatArray
from psfmatch.kernel import MatchingKernel

__all__ = ["compressed_cells", "principal_kernels"]


def principal_kernels(kernels: FloatArray, tolerance: float) -> tuple[FloatArray, FloatArray]:
    """The mean of a set of kernels and as few principal components as reproduce the set.

    The components are the right singular vectors of the deviations from the mean.  Where all kernels have the same
    sum, the components have sum zero, so that whatever the weights, the sum stays what it is.

    Parameters
    ----------
    kernels : array, shape (n, ky, kx)
        One kernel a cell.
    tolerance : float
        The root mean square over the cells of what is left out, in the 2-norm over pixels, relative to the root
        mean square of the kernels themselves.

    Returns
    -------
    images : array, shape (m, ky, kx)
        The mean kernel, then m - 1 orthonormal components.
    weights : array, shape (m, n)
        Their weights in each cell; those of the mean are 1.

    Raises
    ------
    InputError
        If there is no kernel, or one holds NaN or infinities.
    """
    stack = np.asarray(kernels, float)
    if stack.ndim != 3 or not stack.size or not np.isfinite(stack).all():
        raise InputError(f"kernels of the cells, shape {stack.shape}: give one finite image (ky, kx) a cell")
    n = len(stack)
    mean = stack.mean(axis=0)
    deviations = (stack - mean).reshape(n, -1)
    # n cells and many more pixels: the n x n Gram matrix first, then only the components that are kept.
    values, vectors = np.linalg.eigh(deviations @ deviations.T)
    power = np.maximum(values[::-1], 0.0)
    left_out = np.sqrt(np.append(np.cumsum(power[::-1])[::-1], 0.0))
    scale = np.linalg.norm(stack)
    # The Gram matrix squares the condition number: what lies below 1e-7 of the whole is rounding.
    rank = int(np.argmax(left_out <= max(tolerance, 1e-7) * scale))
    weights = vectors[:, ::-1][:, :rank].T * np.sqrt(power[:rank, None])
    components = (vectors[:, ::-1][:, :rank] / np.sqrt(power[:rank])).T @ deviations
    images = np.concatenate([mean[None], components.reshape(rank, *mean.shape)])
    return images, np.concatenate([np.ones((1, n)), weights])


def compressed_cells(
    kernels: FloatArray,
    x: FloatArray,
    y: FloatArray,
    box: Box,
    order: int,
    tolerance: float = 1e-5,
    *,
    kind: FieldKind = "chebyshev1",
) -> tuple[MatchingKernel, float]:
    """One kernel for the field through the kernels of the cells.

    The set of kernels is reduced to its mean and principal components, whose weights are fitted by smooth fields.
    A component is kept only where it is needed to reach the tolerance; the weight of the mean is 1 everywhere, so
    that kernels of one sum give a kernel of that sum.

    Parameters
    ----------
    kernels : array, shape (n, ky, kx)
        One kernel a cell.
    x, y : array, shape (n,)
        Positions of the cells.
    box : Box
        Where the kernel is to be used.
    order : int
        Order of the weights' variation (see `Field`).
    tolerance : float
        What the reduction may leave out (see `principal_kernels`); the fit of the weights comes on top.
    kind : {"chebyshev1", "polynomial", "spline"}
        Family of the weights' terms.

    Returns
    -------
    kernel : MatchingKernel
    misfit : float
        The root mean square over the cells of the difference between the kernel there and the cell's own, in the
        2-norm over pixels, relative to that of the kernels.

    Raises
    ------
    InputError
        If there are fewer cells than terms of the field, or a kernel is not finite.
    """
    images, weights = principal_kernels(kernels, tolerance)
    if order == 0:  # the components' mean weight is zero: they add nothing
        images, weights = images[:1], weights[:1]
    field = Field.fit(weights, x=x, y=y, order=order, box=box, kind=kind)
    coefficients = field.coefficients.copy()
    coefficients[0] = 1.0 if kind == "spline" else np.eye(1, coefficients.shape[1])  # B-splines sum to 1
    kernel = MatchingKernel(images, Field(coefficients, box, kind))
    misfit = np.linalg.norm(kernel.stamps(x=x, y=y) - kernels) / np.linalg.norm(kernels)
    return kernel, float(misfit)
