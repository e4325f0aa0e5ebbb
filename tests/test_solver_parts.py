"""What solvers are made of, part by part."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.signal import convolve2d

from psfmatch import Box, Field, Frontier, InputError, MatchingKernel
from psfmatch.convolve.blocks import Axis, Blocks
from psfmatch.convolve.polynomials import PolynomialKernel
from psfmatch.convolve.splines import SplineKernel
from psfmatch.fields import n_terms
from psfmatch.solve.frontier import least_residual
from psfmatch.solve.toeplitz import pixel_equations
from psfmatch.solve.trade import Trade, _pays, choose_size
from psfmatch.solve.variation import Check, Model, Solved, models, nodes, on_box, varying_kernel

BOX = Box.from_shape((1800, 2600), y0=-300, x0=5000)


@pytest.mark.parametrize(
    ("residual", "gain", "met", "pays"),
    [
        (0.99, 1.015, None, True), (1.0, 1.03, None, False),  # next to nothing is asked for nothing
        (1 / 2.1, 4.0, None, True), (1 / 1.9, 4.0, None, False),  # more than the root of the noise gain
        (0.5, 1.015, 1.0, True), (0.5, 1.04, 1.0, False), (0.5, 1.04, 1.03, True),  # once the tolerance is met
    ],
)  # fmt: skip
def test_a_step_is_taken_for_more_than_the_root_of_what_it_adds_in_noise(residual, gain, met, pays):
    kept, step = Trade(1e-2, 3e-3, 0.4, False), Trade(1e-3, 3e-3 * residual, 0.4 * gain, False)
    assert _pays(kept, step, met and 0.4 * met) is pays


@dataclass(frozen=True)
class Falling:
    """Equations whose residual falls as a power of the kernel's size."""

    size: int
    power: float

    def cropped(self, size):
        return Falling(size, self.power)

    def solve(self, strength):
        return self.size

    def residual(self, size):
        return 0.05 * (size / 9) ** -self.power


@pytest.mark.parametrize("power", [3.0, 4.7])
def test_the_size_is_the_least_odd_one_with_a_fifth_of_the_tolerance(power):
    equations = Falling(99, power)
    size = choose_size(equations, 1e-3, 1e-3)
    assert 25 < size < 99
    assert size % 2 == 1
    assert equations.residual(size) <= 0.2 * 1e-3 < equations.residual(size - 2)
    assert choose_size(Falling(size - 2, power), 1e-3, 1e-3) == size - 2  # no more than the equations are for
    assert choose_size(Falling(99, 0.2), 1e-3, 1e-3) == 25  # which a larger one would hardly make smaller
    assert choose_size(equations, 1e-3, 0.03) == {3.0: 21, 4.7: 17}[power]  # of those that are tried
    slow = Falling(99, 0.5)
    size = choose_size(slow, 1e-3, 0.13)
    assert slow.residual(size) <= 0.2 * 0.13 < slow.residual(size - 2)


def test_a_frontier_is_a_row_of_solutions_for_every_size():
    science, target = np.random.default_rng(7).normal(size=(2, 9, 9))
    frontier = Frontier.of(science, target, sizes=[3, 7], strengths=[1.0, 1e-2, 1e-4])
    (equations,) = pixel_equations(science[None], target[None], 7)
    for k, size in enumerate((3, 7)):
        for j, strength in enumerate((1.0, 1e-2, 1e-4)):
            kernel = equations.cropped(size).solve(strength)
            np.testing.assert_allclose(frontier.kernels[k][j], kernel, rtol=1e-9)
            left = np.pad(target, size // 2) - convolve2d(science, kernel)
            assert frontier.residual[k, j] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(target))
            assert frontier.noise_gain[k, j] == pytest.approx((kernel**2).sum())
    for sizes in ([4], [-1], []):
        with pytest.raises(InputError, match="odd"):
            Frontier.of(science, target, sizes=sizes)


def test_beyond_its_ends_the_frontier_is_that_of_the_weakest_and_the_strongest_penalty():
    """Of a pair without an odd part, a kernel of 3 x 3 has five unknowns, and six derivatives hold all of it."""
    s, t = np.random.default_rng(5).normal(size=(2, 7, 7))
    (equations,) = pixel_equations((s + s[::-1, ::-1])[None], (t + t[::-1, ::-1])[None], 3)
    kernel = equations.solve(0.1)
    for gain, strength in ((1e9, 1e-10), (1e-12, 10.0)):
        wanted = equations.residual(equations.solve(strength))
        assert least_residual(equations, kernel, 0.1, gain) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kernel_sum", [None, 1.2])
@pytest.mark.parametrize("strength", [1e-3, 3.0])
def test_the_frontier_is_followed_from_one_strength_to_another(kernel_sum, strength):
    """With the sum of the kernel as it was imposed, for a pair without an odd part that a kernel matches exactly."""
    s, k = np.random.default_rng(5).normal(size=(2, 7, 7))
    s, k = s + s[::-1, ::-1], (k + k[::-1, ::-1])[2:5, 2:5]
    (equations,) = pixel_equations(np.pad(s, 1)[None], convolve2d(s, k)[None], 3)
    there = equations.solve(strength, kernel_sum)
    found = least_residual(equations, equations.solve(0.1, kernel_sum), 0.1, (there**2).sum(), kernel_sum)
    assert found == pytest.approx(equations.residual(there), rel=1e-4)


@pytest.mark.parametrize(("size", "sides"), [(29, [8, 14, 22]), (31, [8, 14]), (35, [8]), (43, [])])
def test_splines_are_tried_while_their_work_is_bearable(size, sides):
    """That of 600 kernels of 29 px: cells times the cube of a kernel's pixels."""
    assert [model.side for model in models(None, 2, size) if model.kind == "spline"] == sides
    assert all(side**2 * size**6 <= 600 * 29**6 for side in sides)


def test_splines_are_fitted_on_a_uniform_grid_and_polynomials_on_chebyshev_nodes():
    """From the first pixel's centre to the last's; the nodes are the zeros of the polynomial of that degree."""
    x, y = (np.unique(values) for values in nodes(Model("spline", 7, 8), BOX))
    np.testing.assert_allclose(x, np.linspace(5000, 7599, 8))
    np.testing.assert_allclose(y, np.linspace(-300, 1499, 8))
    x, y = nodes(Model("chebyshev1", 3, 6), BOX)
    for u in ((x - 6299.5) / 1299.5, (y - 599.5) / 899.5):
        np.testing.assert_allclose(np.cos(6 * np.arccos(u)), 0.0, atol=1e-9)
    assert len(set(zip(x.round(3), y.round(3), strict=True))) == 36


def of_a_point():
    """Equations by which a change of the kernel changes the matched PSF by its own norm."""
    point = np.pad(np.ones((1, 1, 1)), ((0, 0), (6, 6), (6, 6)))
    return pixel_equations(point, point, 7)[0]


@dataclass(frozen=True)
class Places:
    """Cells without their stamps."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self):
        return len(self.x)


@pytest.mark.parametrize(("count", "orders"), [(25, [5, 6]), (15, [4, 6])])
def test_a_model_too_poor_at_the_positions_of_the_check_is_not_solved_for(count, orders):
    """Of a kernel of degree 6: known where positions are half as many again as terms.  5 takes the cells of 4."""
    rng = np.random.default_rng(12)
    images = np.linalg.qr(rng.normal(size=(49, 3)))[0].T.reshape(3, 7, 7)
    truth = MatchingKernel(images, Field(np.vstack([np.eye(1, 28), rng.normal(size=(2, 28))]), BOX))

    def solved(x, y):
        return Solved(Places(x, y), truth.stamps(x=x, y=y))

    asked = []

    def solve(model):
        asked.append(model.order)
        return solved(*nodes(model, BOX))

    x, y = (values[:count] for values in on_box(BOX, np.linspace(-1.0, 1.0, 5)))
    check = Check(solved(x, y), [of_a_point()] * count)
    found = varying_kernel(check, solve, models(None, 6, 99), BOX, enough=1e-6, good=1e-3, share=1e-9)
    assert asked == orders
    assert found.worst < 1e-6
    assert found.kernel.weights.order == 6


def test_a_model_with_too_few_cells_is_passed_over():
    """Of the cells of orders 3 to 5 most could not be evaluated; those of order 6 could."""
    rng = np.random.default_rng(13)
    images = np.linalg.qr(rng.normal(size=(49, 2)))[0].T.reshape(2, 7, 7)
    truth = MatchingKernel(images, Field(np.vstack([np.eye(1, 28), rng.normal(size=(1, 28))]), BOX))

    def solved(x, y):
        return Solved(Places(x, y), truth.stamps(x=x, y=y))

    x, y = (values[:12] for values in on_box(BOX, np.linspace(-1.0, 1.0, 5)))
    check = Check(solved(x, y), [of_a_point()] * 12)
    some = {6: 14, 9: 81, 4: 16}
    found = varying_kernel(
        check,
        lambda model: solved(*(values[: some[model.side]] for values in nodes(model, BOX))),
        models(None, 6, 99), BOX, enough=1e-6, good=1e-3, share=1e-9,
    )  # fmt: skip
    assert found.kernel.weights.order == 6
    assert found.worst < 1e-6


@pytest.mark.parametrize(
    ("make", "options"),
    [(PolynomialKernel, {}), (PolynomialKernel, {"order": 5}), (SplineKernel, {"kind": "spline", "order": 5})],
    ids=["own terms", "mixed terms", "spline"],
)
@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_the_size_of_a_kernels_terms_is_not_underrated(make, options, unit):
    """Largest Fourier amplitude times largest factor of the position: what rounding errors are expected from."""
    order, kind = options.get("order", 1), options.get("kind", "chebyshev1")
    rng = np.random.default_rng(8)
    y, x = np.mgrid[-4:5, -3:4]
    images = [np.exp(-((y - dy) ** 2 + (x - dx) ** 2 / 2) / 6) for dy, dx in rng.normal(0.0, 1.0, (3, 2))]
    field = Field(3.0 + rng.normal(size=(3, n_terms(order, kind))), BOX, kind)
    blocks = Blocks(Axis.of(1800, 9, BOX.y0, 400), Axis.of(2600, 7, BOX.x0, 500))
    kernel = make(MatchingKernel(unit * np.stack(images), field), blocks, 1e-7, np, np.dtype("f4"), None)
    terms = kernel._terms([(1, 2)])
    for k, (j, m) in enumerate(terms.pairs):
        image = kernel._images(terms, np.arange(len(terms.pairs)) == k, np.dtype("f8"))[0]
        size = np.abs(image).max() * np.abs(terms.q[0, j]).max() * np.abs(terms.p[0, m]).max()
        assert 0.999 * size <= terms.heights[0, k] <= (3.0 if options else 1.001) * size
