"""Arrays of NumPy, PyTorch or CuPy under one set of names (the Python array API standard)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from psfmatch.errors import InputError

__all__ = [
    "brightest_rows", "complex_type", "from_device", "mixed", "namespace", "native", "scaled", "sum_of_products",
    "to_device", "transforms",
]  # fmt: skip


def namespace(array: Any) -> Any:
    """The functions that work on an array: NumPy itself, or the library's names as array-api-compat mends them."""
    if isinstance(array, np.ndarray):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(array)


def native(array: Any) -> Any:
    """An array's type, in the native byte order."""
    return array.dtype.newbyteorder("=") if isinstance(array, np.ndarray) else array.dtype


def transforms(xp: Any) -> Any:
    """The FFTs of a namespace; SciPy's for NumPy, which are faster along other axes than the last."""
    return _SciPy() if xp is np else xp.fft


class _SciPy:
    """SciPy's transforms, complex ones in place."""

    def __init__(self) -> None:
        from scipy import fft

        self.rfft, self.irfft = fft.rfft, fft.irfft
        self.fft, self.ifft = partial(fft.fft, overwrite_x=True), partial(fft.ifft, overwrite_x=True)


def scaled(xp: Any, image: Any, factor: Any) -> Any:
    """Complex times real, broadcast; the image may be overwritten."""
    if xp is not np:
        return image * factor
    parts = image.view(image.real.dtype)
    parts *= factor
    return image


def sum_of_products(xp: Any, pairs: list[tuple[Any, Any]]) -> Any:
    """``sum a b`` over pairs of images."""
    (a, b), *rest = pairs
    total = a * b
    room = np.empty_like(total) if xp is np and rest else None
    for a, b in rest:
        total += a * b if room is None else np.multiply(a, b, out=room)
    return total


def complex_type(xp: Any, real: Any) -> Any:
    """The complex type that has the precision of a real one."""
    return xp.complex64 if real == xp.float32 else xp.complex128


def mixed(xp: Any, weights: Any, images: Any) -> Any:
    """``sum_r weights[..., n, r] images[r]`` for complex images (r, fy, fx): shape (..., n, fy, fx)."""
    r, fy, fx = images.shape
    if xp is np:  # one real product in place of a complex one
        flat = np.matmul(weights, images.reshape(r, fy * fx).view(images.real.dtype))
        return flat.view(images.dtype).reshape(*weights.shape[:-1], fy, fx)
    flat = xp.matmul(xp.asarray(weights, dtype=images.dtype), xp.reshape(images, (r, fy * fx)))
    return xp.reshape(flat, (*weights.shape[:-1], fy, fx))


def brightest_rows(xp: Any, images: Any) -> list[float]:
    """The largest 2-norm of any row of each real image (n, ny, nx), whatever its unit: no square overflows."""
    with np.errstate(over="ignore", under="ignore"):
        powers = [float(xp.max(rows)) for rows in xp.einsum("kyx,kyx->ky", images, images)]
    return [
        power**0.5 if 1e-20 < power < float("inf") else _brightest_row(xp, image)
        for power, image in zip(powers, images, strict=True)
    ]


def _brightest_row(xp: Any, image: Any) -> float:
    largest = float(xp.max(abs(image)))
    return largest * float(xp.max(xp.sum((image / largest) ** 2, axis=1))) ** 0.5 if largest else 0.0


def to_device(array: np.ndarray[Any, Any], device: str) -> Any:
    """A NumPy array as a PyTorch tensor on a device (integers as int64: PyTorch has no unsigned ones).

    Raises
    ------
    InputError
        If PyTorch is missing, or has no such device.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"FFT device={device!r} needs PyTorch; pip install 'psfmatch[gpu]'") from error
    kind = np.int64 if array.dtype.kind in "iu" else array.dtype.newbyteorder("=")
    try:
        return torch.asarray(np.array(array, dtype=kind), device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"FFT device={device!r}: {str(error).splitlines()[0]}") from error


def from_device(tensor: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Back to NumPy."""
    return np.asarray(tensor.cpu().numpy(), dtype=dtype)
