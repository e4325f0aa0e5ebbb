#!/usr/bin/env python
"""Whether the noise of apertures and of PSF fluxes is what the noise correlation says, over repeated draws.

    python benchmarks/noise.py [--draws 60] [--repeat 3]

White noise goes through (a) the matching kernel of a PSF that varies over the field, (b) the same and a rotation by
20 degrees with a fractional shift, by Lanczos interpolation of order 3 and 4, (c) the mean of three such exposures with
different kernels, angles and noise.  The scatter of the sums is compared with the correlation's prediction, and with
what the diagonal of the covariance alone would say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from common import print_machine, target, varying_psf
from scipy.sparse import coo_matrix

from psfmatch import (
    Box,
    Exposure,
    Field,
    MatchingKernel,
    NoiseCorrelation,
    aperture_variance,
    convolve,
    matching_kernel,
    psf_flux_variance,
)
from psfmatch.noise import aperture_stamps

BOX = Box.from_shape((760, 820), y0=-40, x0=300)
OUT = Box.from_shape((480, 560), y0=15, x0=-60)
RADII = (3.0, 6.0, 10.0)
STEP = 24
MARGIN = 24
Positions = Callable[..., tuple[np.ndarray, np.ndarray]]


def lanczos(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """Weights of the 2 order pixels around, of unit sum."""

    def weights(fraction: np.ndarray) -> np.ndarray:
        t = np.asarray(fraction)[:, None] - (np.arange(2 * order) - order + 1)
        values = np.sinc(t) * np.sinc(t / order)
        return values / values.sum(axis=1, keepdims=True)

    return weights


def rotation(degrees: float, dx: float, dy: float) -> Positions:
    """From the output frame to the input frame, centre to centre."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def positions(*, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = x - OUT.center.x, y - OUT.center.y
        return BOX.center.x + c * u + s * v + dx, BOX.center.y - s * u + c * v + dy

    return positions


def resampler(positions: Positions, interpolation: Callable[[np.ndarray], np.ndarray]) -> coo_matrix:
    """The matrix from input to output pixels."""
    y, x = np.mgrid[OUT.y0 : OUT.y1, OUT.x0 : OUT.x1].reshape(2, -1).astype(float)
    at_x, at_y = positions(x=x, y=y)
    low_x, low_y = np.floor(at_x), np.floor(at_y)
    weights = interpolation(at_y - low_y)[:, :, None] * interpolation(at_x - low_x)[:, None, :]
    steps = np.arange(weights.shape[1]) - weights.shape[1] // 2 + 1
    rows = (low_y - BOX.y0).astype(int)[:, None, None] + steps[:, None]
    inputs = rows * BOX.shape[1] + (low_x - BOX.x0).astype(int)[:, None, None] + steps
    outputs = np.broadcast_to(np.arange(x.size)[:, None, None], inputs.shape)
    shape = (x.size, BOX.shape[0] * BOX.shape[1])
    return coo_matrix((weights.ravel(), (outputs.ravel(), inputs.ravel())), shape=shape).tocsr()


def matched_noise(kernel: MatchingKernel, sigma: float, seed: int) -> Iterator[np.ndarray]:
    """Draws of white noise, convolved with the kernel."""
    rng = np.random.default_rng(seed)
    while True:
        yield convolve(Exposure(rng.normal(0.0, sigma, BOX.shape), box=BOX), kernel).image


def gain_plane(noise: NoiseCorrelation) -> np.ndarray:
    """What the variance has been multiplied by, in every pixel."""
    box = noise.box
    weights = noise.weights.on_grid(x=np.arange(box.x0, box.x1), y=np.arange(box.y0, box.y1))
    return np.tensordot(noise.basis[:, noise.shape[0] // 2, noise.shape[1] // 2], weights, axes=1)


def compare(name: str, images: Iterator[np.ndarray], noise: NoiseCorrelation, variance: np.ndarray, draws: int) -> None:
    """Print scatter over prediction, and over the diagonal's."""
    box = noise.box
    y, x = np.mgrid[box.y0 + MARGIN : box.y1 - MARGIN : STEP, box.x0 + MARGIN : box.x1 - MARGIN : STEP]
    x, y = x.ravel().astype(float), y.ravel().astype(float)
    psf = target().stamps(x=0, y=0, shape=(41, 41))[0]
    stamps = {f"aperture {r:g} px": aperture_stamps(x=0, y=0, radius=r)[0] for r in RADII}
    stamps["PSF flux"] = psf / (psf**2).sum()
    white = NoiseCorrelation.white(box)
    wanted, diagonal = (
        np.stack(
            [aperture_variance(variance, n, x=x, y=y, radius=r) for r in RADII]
            + [psf_flux_variance(variance, n, target(), x=x, y=y, shape=(41, 41))]
        )
        for n in (noise, white)
    )
    squares = np.zeros_like(wanted)
    for _ in range(draws):
        image = next(images)
        for k, weights in enumerate(stamps.values()):
            windows = np.lib.stride_tricks.sliding_window_view(image, weights.shape)
            half = weights.shape[0] // 2
            cut = windows[y.astype(int) - box.y0 - half, x.astype(int) - box.x0 - half]
            squares[k] += np.einsum("nji,ji->n", cut, weights) ** 2
    sure = np.sqrt(2.0 / (draws * x.size))
    for label, square, want, plain in zip(stamps, squares / draws, wanted, diagonal, strict=True):
        print(
            f"{name:24s} {label:15s} variance found / predicted {(square / want).mean():.4f} +- {sure:.4f}, "
            f"found / diagonal {(square / plain).mean():6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print_machine()
    kernels = [matching_kernel(varying_psf(box), target(), box=BOX).kernel for box in (BOX, BOX.grown(200, 400), BOX)]
    mirrored = kernels[2]
    kernels[2] = MatchingKernel(mirrored.basis[:, :, ::-1], mirrored.weights)
    start = time.perf_counter()
    noise = NoiseCorrelation.of_kernel(kernels[0])
    first = time.perf_counter()
    turned = noise.warped(rotation(20.0, 0.31, -0.44), OUT, interpolation=lanczos(3))
    print(
        f"kernel of {kernels[0].shape[0]} px: correlation in {first - start:.2f} s ({len(noise.basis)} images), "
        f"warped in {time.perf_counter() - first:.2f} s ({len(turned.basis)} images)"
    )
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(OUT.x0, OUT.x1, 100), np.linspace(OUT.y0, OUT.y1, 100)))
    seconds = []
    for _ in range(options.repeat):
        start = time.perf_counter()
        aperture_variance(1.0, turned, x=x, y=y, radius=6.0)
        seconds.append(time.perf_counter() - start)
    print(f"aperture variance: {x.size / np.median(seconds):.0f} positions a second")
    compare("matched", matched_noise(kernels[0], 3.0, 1), noise, 9.0 * gain_plane(noise), options.draws)
    for order in (3, 4):
        positions = rotation(20.0, 0.31, -0.44)
        matrix = resampler(positions, lanczos(order))
        turned = noise.warped(positions, OUT, interpolation=lanczos(order))
        images = ((matrix @ image.ravel()).reshape(OUT.shape) for image in matched_noise(kernels[0], 2.0, order))
        compare(f"and rotated, Lanczos {order}", images, turned, 4.0 * gain_plane(turned), options.draws)
    mean_of_three(kernels, options.draws)


def mean_of_three(kernels: list[MatchingKernel], draws: int) -> None:
    """Different kernels, angles, shifts and noise."""
    sigmas, weights = np.array([1.0, 1.5, 0.8]), np.array([0.5, 0.2, 0.7])
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(OUT.x0, OUT.x1, 12), np.linspace(OUT.y0, OUT.y1, 11)))
    streams, parts = [], []
    for k, (kernel, angle, sigma) in enumerate(zip(kernels, (20.0, -7.0, 100.0), sigmas, strict=True)):
        positions = rotation(angle, 0.3 * k, 0.2)
        matrix = resampler(positions, lanczos(3))
        parts.append(NoiseCorrelation.of_kernel(kernel).warped(positions, OUT, interpolation=lanczos(3)))
        streams.append((lambda m, s: (m @ image.ravel() for image in s))(matrix, matched_noise(kernel, sigma, 20 + k)))
    gains = np.stack([part.gains(x=x, y=y) for part in parts])
    variances = Field.fit(gains * sigmas[:, None] ** 2, x=x, y=y, order=6, box=OUT)
    noise = NoiseCorrelation.combined(parts, weights, variances)
    planes = variances.on_grid(x=np.arange(OUT.x0, OUT.x1), y=np.arange(OUT.y0, OUT.y1))
    variance = np.tensordot(weights**2, planes, axes=1) / weights.sum() ** 2
    means = (np.dot(weights, images).reshape(OUT.shape) / weights.sum() for images in zip(*streams, strict=True))
    compare("mean of three", means, noise, variance, draws)


if __name__ == "__main__":
    main()
