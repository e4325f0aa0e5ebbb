import numpy as np
import pytest

from psfmatch import Box, InputError
from psfmatch.fields import Field
from psfmatch.solve.compress import compressed_cells, principal_kernels

BOX = Box.from_shape((310, 520), y0=-30, x0=700)


def cells(side=(4, 5)):
    y, x = (g.ravel() for g in np.meshgrid(np.linspace(-20, 250, side[0]), np.linspace(710, 1200, side[1])))
    return x, y


def truth(seed=3, n=4, shape=(9, 13), order=2):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, *shape))
    images[1:] -= images[1:].mean(axis=(1, 2), keepdims=True)
    coefficients = rng.normal(size=(n, (order + 1) * (order + 2) // 2))
    coefficients[0] = np.eye(1, coefficients.shape[1])
    return images, Field(coefficients, BOX)


def test_a_smooth_kernel_is_found_again_between_the_cells():
    images, field = truth()
    x, y = cells()
    kernels = np.tensordot(field.at(x=x, y=y).T, images, axes=1)
    kernel, misfit = compressed_cells(kernels, x, y, BOX, 2, 1e-9)
    assert len(kernel.basis) == 4
    assert misfit < 1e-12
    px, py = np.array([733.3, 1100.1]), np.array([-11.0, 231.7])
    wanted = np.tensordot(field.at(x=px, y=py).T, images, axes=1)
    np.testing.assert_allclose(kernel.stamps(x=px, y=py), wanted, atol=1e-11)
    np.testing.assert_allclose(kernel.sums(x=px, y=py), images[0].sum(), rtol=1e-12)


def test_what_is_left_out_is_what_the_tolerance_says():
    rng = np.random.default_rng(4)
    kernels = 1.0 + np.einsum(
        "i,ic,iyx->cyx", 10.0 ** -np.arange(8), rng.normal(size=(8, 20)), rng.normal(size=(8, 7, 9))
    )
    for tolerance in (1e-1, 1e-3, 1e-5):
        images, weights = principal_kernels(kernels, tolerance)
        left = np.linalg.norm(np.tensordot(weights.T, images, axes=1) - kernels) / np.linalg.norm(kernels)
        assert left <= tolerance
        fewer = np.tensordot(weights[:-1].T, images[:-1], axes=1)
        assert np.linalg.norm(fewer - kernels) / np.linalg.norm(kernels) > tolerance
    np.testing.assert_array_equal(weights[0], 1.0)


def test_what_is_above_the_rounding_is_kept_if_the_tolerance_asks_for_it():
    """Of two orthogonal components the weaker has 1.5e-7 of all."""
    waves = np.linalg.qr(np.random.default_rng(6).normal(size=(63, 3)))[0].T.reshape(3, 7, 9)
    u = np.linspace(-1.0, 1.0, 20)
    weights = np.linalg.qr(np.stack([np.ones(20), u, u**2], axis=1))[0].T * np.array([[1.0], [0.1], [1.5e-7]])
    kernels = np.tensordot(weights.T, waves, axes=1)
    assert [len(principal_kernels(kernels, t)[0]) for t in (1.2e-7, 1.8e-7, 0.2)] == [3, 2, 1]


def test_misfit_is_measured_at_the_cells():
    images, field = truth(order=2)
    x, y = cells()
    kernels = np.tensordot(field.at(x=x, y=y).T, images, axes=1)
    misfits = []
    for order in (0, 1, 2):
        kernel, misfit = compressed_cells(kernels, x, y, BOX, order, 1e-9)
        rms = np.linalg.norm(kernel.stamps(x=x, y=y) - kernels) / np.linalg.norm(kernels)
        assert misfit == pytest.approx(rms)
        misfits.append(misfit)
    assert misfits[0] > misfits[1] > 1e-3
    flat, _ = compressed_cells(kernels, x, y, BOX, 0)
    np.testing.assert_allclose(flat.stamps(x=999, y=7)[0], kernels.mean(axis=0))
    assert len(flat.basis) == 1


def test_one_cell_and_bad_kernels():
    kernel, misfit = compressed_cells(np.full((1, 3, 5), 0.1), np.array([800.0]), np.array([5.0]), BOX, 0)
    assert misfit == 0.0
    assert kernel.shape == (3, 5)
    with pytest.raises(InputError, match="cannot fix a field of order 1"):
        compressed_cells(np.ones((2, 3, 5)), np.array([800.0, 900.0]), np.array([5.0, 6.0]), BOX, 1)
    for bad in (np.full((2, 3, 5), np.nan), np.ones((3, 5)), np.ones((0, 3, 5))):
        with pytest.raises(InputError, match="one finite image"):
            principal_kernels(bad, 1e-3)
