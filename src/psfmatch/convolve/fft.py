"""Convolution by FFT in blocks, with the kernel of every output pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psfmatch.convolve.arrays import from_device, namespace, native, to_device
from psfmatch.convolve.blocks import Axis, Blocks
from psfmatch.convolve.footprint import Bits, Edge, check_sizes
from psfmatch.convolve.job import Job
from psfmatch.convolve.local import LocalKernel
from psfmatch.convolve.polynomials import PolynomialKernel
from psfmatch.convolve.splines import SplineKernel
from psfmatch.convolve.stack import Stack, StackedKernels
from psfmatch.errors import InputError
from psfmatch.exposure import Exposure, Planes, renewed
from psfmatch.geometry import Box, whole_number
from psfmatch.kernel import MatchingKernel
from psfmatch.machine import one_blas_thread, processors

__all__ = ["FFT"]

TOLERANCE = {4: 3e-7, 8: 1e-13}
BATCH = 16
LARGEST_STACKED = 512
STACKED_ACCURACY = 7e-7


@dataclass(frozen=True, kw_only=True)
class FFT:
    """``out(x) = sum_u K(u; x) I(x - u)`` in blocks: in each, the kernel's variation by as few terms as it takes.

    Planes are convolved in their own precision, the image without its level; where a block holds stars so bright that
    their rounding errors would exceed about 1e-6 of what is faint in it (the faintest of 4 x 4 tiles), in double
    precision.  NaN and infinities are missing pixels, and values beyond all contrast (1e9; 1e5 in planes of 64 bit) are
    convolved on their own, brightness by brightness.  So a bad pixel acts inside its own footprint only.

    Parameters
    ----------
    edge : {"renormalize", "nan"}
        What becomes of pixels whose footprint is not whole, at the frame's border and around missing pixels.
        ``renormalize``: divide by the share of the kernel sum that was kept, flag EDGE or INTRP, and give up
        (NaN, NO_DATA) where less than a fifth was.  ``nan``: NaN, as Rubin's software.
    exclude : tuple of str
        Mask planes whose pixels are missing, like NaN and infinite variance.
    block : int, optional
        Side of the transforms in pixels; default by the kernel's size.
    threads : int, optional
        Blocks convolved at a time; default one for each processor.  The result does not depend on it.
    tolerance : float, optional
        The largest change of the kernel at any pixel, in the 2-norm over its pixels and relative to that of the
        kernel, at which terms are left out; default 3e-7 for planes of 32 bit, 1e-13 for 64.
    variance_tolerance : float
        The same for the kernel of the variance, K^2: what a variance is wrong by is within about 1e-4 of ``sum K^2``
        times the greatest variance under the kernel, more where K varies tenfold over the field.
    device : str, optional
        Where PyTorch is to do it: ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.  Default: NumPy and SciPy.
    out : Planes, optional
        Arrays to write to, of the exposure's shape and types (memory maps, for frames larger than the memory).
        Default: new ones.
    """

    edge: Edge = "renormalize"
    exclude: tuple[str, ...] = ("NO_DATA",)
    block: int | None = None
    threads: int | None = None
    tolerance: float | None = None
    variance_tolerance: float = 5e-5
    device: str | None = None
    out: Planes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.edge not in ("renormalize", "nan"):
            raise InputError(f"FFT edge {self.edge!r}: choose renormalize or nan")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"FFT threads={self.threads}: at least 1")
        if self.block is not None:
            whole_number(self.block, "FFT block", least=1)
        for name in ("tolerance", "variance_tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"FFT {name}={value!r}: must lie in [0, 1)")

    def convolve(self, exposure: Exposure, kernel: MatchingKernel) -> Exposure:
        """The exposure convolved with the kernel of every output pixel.

        Image and kernel are placed by the coordinates of the parent frame.  The PSF, WCS and all else are kept.

        Raises
        ------
        InputError
            If the image is smaller than the kernel, the block than twice the kernel, ``out`` has another shape, or
            the device cannot be used.
        """
        check_sizes(exposure, kernel)
        mask = exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA"))
        planes = Planes(exposure.image, exposure.variance, mask.array)
        if self.device is None:
            done = self.convolve_planes(planes, kernel, box=exposure.box, bits=Bits.of(mask, self.exclude))
        else:
            there = Planes(*(None if p is None else to_device(p, self.device) for p in planes))
            there = self.convolve_planes(there, kernel, box=exposure.box, bits=Bits.of(mask, self.exclude))
            done = Planes(*(None if p is None else from_device(p, q.dtype) for p, q in zip(there, planes, strict=True)))
        return renewed(exposure, done, mask_planes=mask.planes)

    def convolve_planes(self, planes: Planes, kernel: MatchingKernel, *, box: Box, bits: Bits) -> Planes:
        """As `convolve`, for bare arrays, which may be of PyTorch or CuPy and stay where they are.

        Parameters
        ----------
        planes : Planes
            Of floats, floats (or None) and integers.
        kernel : MatchingKernel
            What they are convolved with.
        box : Box
            The pixels' place in the kernel's frame.
        bits : Bits
            The values of the mask planes that are read and set.

        Returns
        -------
        Planes
            Of the same types.
        """
        xp = namespace(planes.image)
        ny, nx = planes.image.shape
        blocks = Blocks(
            Axis.of(ny, kernel.shape[0], box.y0, self.block), Axis.of(nx, kernel.shape[1], box.x0, self.block)
        )
        types = Planes(*(None if plane is None else native(plane) for plane in planes))

        def local(images: MatchingKernel, tolerance: float, plane: Any, dtype: Any) -> LocalKernel:
            cls = SplineKernel if images.weights.kind == "spline" else PolynomialKernel
            return cls(images, blocks, tolerance, xp, dtype, None if xp is np else plane.device)

        with one_blas_thread():
            own = local(kernel, self._tolerance(types.image == xp.float64), planes.image, types.image)
            squared = None
            if planes.variance is not None:
                tolerance = self.variance_tolerance
                squared = local(kernel.squared(0.3 * tolerance), tolerance, planes.variance, types.variance)
        out = self._outputs(planes, types)
        job = Job(xp, blocks, planes, out, types, own, squared, kernel.support, bits, self.edge)
        if xp is np:
            job.run_all(blocks.batches(1), self.threads or processors())
        else:
            job.run_all(blocks.batches(BATCH), 1)
        return out

    def _tolerance(self, double: bool) -> float:
        return self.tolerance if self.tolerance is not None else TOLERANCE[8 if double else 4]

    def _outputs(self, planes: Planes, types: Planes) -> Planes:
        if self.out is None:
            xp = namespace(planes.image)
            return Planes(
                *(None if p is None else xp.empty_like(p, dtype=t) for p, t in zip(planes, types, strict=True))
            )
        for name, wanted, plane in zip(Planes._fields, planes, self.out, strict=True):
            if (wanted is None) != (plane is None) or (wanted is not None and wanted.shape != plane.shape):
                raise InputError(f"FFT out: the {name} must be {'None' if wanted is None else wanted.shape}")
        return self.out

    def convolve_many(self, exposures: Sequence[Exposure], kernels: Sequence[MatchingKernel]) -> list[Exposure]:
        """Many small exposures, each with its own kernel; those alike in shape and type are stacked.

        Kernels that vary, and exposures with sides above 512 px, are convolved one by one.

        Raises
        ------
        InputError
            If the numbers differ, or as `convolve`.
        """
        if len(exposures) != len(kernels):
            raise InputError(f"{len(exposures)} exposures and {len(kernels)} kernels: give one kernel for each")
        out: list[Exposure | None] = [None] * len(exposures)
        groups: dict[Any, list[int]] = {}
        for k, (exposure, kernel) in enumerate(zip(exposures, kernels, strict=True)):
            if kernel.weights.order or max(exposure.shape) > LARGEST_STACKED or self.device or self.out:
                out[k] = self.convolve(exposure, kernel)
                continue
            check_sizes(exposure, kernel)
            variance = None if exposure.variance is None else exposure.variance.dtype
            planes = exposure.mask.array.dtype, tuple(exposure.mask.planes.items())
            key = exposure.shape, exposure.image.dtype, variance, planes, kernel.shape, kernel.support.tobytes()
            groups.setdefault(key, []).append(k)
        for members in groups.values():
            done = self._stacked([exposures[k] for k in members], [kernels[k] for k in members])
            for k, exposure in zip(members, done, strict=True):
                out[k] = exposure
        return [exposure for exposure in out if exposure is not None]

    def _stacked(self, exposures: list[Exposure], kernels: list[MatchingKernel]) -> list[Exposure]:
        masks = [exposure.mask.with_planes(("EDGE", "INTRP", "NO_DATA")) for exposure in exposures]
        first = exposures[0]
        stack = Stack.of(first.shape, kernels[0].shape)
        noisy = first.variance is not None
        planes = Planes(
            [e.image for e in exposures], [e.variance for e in exposures] if noisy else None, [m.array for m in masks]
        )
        types = Planes(*(None if p is None else native(p[0]) for p in planes))
        out = Planes(*(None if t is None else [None] * len(exposures) for t in types))
        images = np.stack([k.weights.coefficients[:, 0] @ k.basis.reshape(len(k.basis), -1) for k in kernels])
        images = images.reshape(-1, *kernels[0].shape)
        own = StackedKernels(images, stack, STACKED_ACCURACY, types.image)
        squared = StackedKernels(images**2, stack, 0.5 * self.variance_tolerance, types.variance) if noisy else None
        bits = Bits.of(masks[0], self.exclude)
        job = Job(np, stack, planes, out, types, own, squared, kernels[0].support, bits, self.edge)
        job.run_all(stack.batches(len(exposures)), self.threads or processors())
        return [
            renewed(e, Planes(out.image[k], out.variance[k] if noisy else None, out.mask[k]), mask_planes=m.planes)
            for k, (e, m) in enumerate(zip(exposures, masks, strict=True))
        ]  # fmt: skip
