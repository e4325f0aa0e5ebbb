#!/usr/bin/env python
"""How long PyTorch takes for the convolution of a frame: data on the device, and with the transfers.

    python benchmarks/gpu.py [--device cuda] [--size 4096] [--repeat 9]

A kernel of 21 px that varies with order 2; image, variance and mask.  The yardstick is `scipy.signal.oaconvolve` of the
image with one constant kernel, on the processor.  Without such a device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common import frame, medians, print_machine, target, varying_psf, yardstick

from psfmatch import FFT, AlardLupton, Box, Exposure, MatchingKernel, Planes, convolve, planned_match
from psfmatch.convolve.arrays import to_device
from psfmatch.convolve.footprint import Bits
from psfmatch.errors import InputError


def on_device(exposure: Exposure, kernel: MatchingKernel, device: str) -> Callable[[], object]:
    """The convolution of planes that are on the device, and stay there."""
    import torch

    mask = exposure.mask
    planes = Planes(*(to_device(plane, device) for plane in (exposure.image, exposure.variance, mask.array)))
    bits = Bits.of(mask, FFT().exclude)

    def run() -> None:
        FFT().convolve_planes(planes, kernel, box=exposure.box, bits=bits)
        if planes.image.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    print_machine("torch", "array-api-compat")
    shape = options.size, options.size
    exposure = frame(shape, varying_psf(Box.from_shape(shape)))
    plan = planned_match(exposure, target(), solver=AlardLupton(scale_by_fwhm=False))
    exposure = plan.exposure
    try:
        work = {
            "yardstick": yardstick(exposure.image),
            "data on the device": on_device(exposure, plan.kernel, options.device),
            "with transfers": lambda: convolve(exposure, plan.kernel, convolver=FFT(device=options.device)),
        }
        times = medians(work, options.repeat)
    except InputError as error:
        print(f"not measured: {error}")
        return
    for name, seconds in times.items():
        print(f"{name:20s} {1e3 * seconds:9.1f} ms, {seconds / times['yardstick']:6.2f} yardsticks")


if __name__ == "__main__":
    main()
