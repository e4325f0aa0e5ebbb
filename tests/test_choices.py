"""What solvers choose, rule by rule, at the numbers that their descriptions name."""

from types import SimpleNamespace

import numpy as np
import pytest

from psfmatch import (
    FFT,
    PCA,
    AlardLupton,
    Box,
    Clipping,
    Fourier,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    MatchError,
    Outcome,
    Padding,
    Regularization,
    matching_kernel,
)
from psfmatch.solve.demand import Amplification
from psfmatch.solve.fourier import Window
from psfmatch.solve.free_form import _Work
from psfmatch.solve.normal import NormalEquations
from psfmatch.solve.trade import STRENGTHS, Choice, Trade, choose_strength

BOX = Box.from_shape((1800, 2600), y0=-300, x0=5000)
PAIR = GaussianPSF(fwhm=3.0, size=31), GaussianPSF(fwhm=5.0)
VARYING = FunctionPSF(lambda x, y: GaussianPSF(fwhm=3.0 + 1e-4 * x).stamps(x=0, y=0, shape=(31, 31))[0], shape=(31, 31))


def market(residuals, gains, ripples=()):
    """Trades at the first strengths, for a tolerance of 1e-3 and a noise gain of at most 2."""
    made = {s: (r, g, k in ripples) for k, (s, r, g) in enumerate(zip(STRENGTHS, residuals, gains, strict=False))}
    return SimpleNamespace(trade=lambda s: Trade(s, *made[s]), tolerance=1e-3, max_noise_gain=2.0)


@pytest.mark.parametrize(
    ("residuals", "gains", "ripples", "kept", "tried", "limited"),
    [
        ((0.1, 0.01, 9e-4, 5e-4, 1e-4), (0.1, 0.11, 0.12, 0.1217, 0.1235), (), 5, [2, 3, 4, 5, 6], False),  # 2 % in all
        ((1e-3, 5e-4), (0.1, 0.103), (), 2, [2, 3], False),  # met at once
        ((0.1, 0.02, 0.005), (0.5, 1.5, 2.1), (), 3, [2, 3, 4], True),
        ((0.1, 0.02, 0.005, 0.004), (0.5, 1.5, 2.0, 2.01), (), 4, [2, 3, 4, 5], True),
        ((0.1, 1e-3, 5e-4), (0.5, 1.5, 2.1), (), 3, [2, 3, 4], False),  # the tolerance was met
        ((0.1, 0.02, 0.005), (0.5, 0.6, 0.7), (4,), 3, [2, 3, 4], False),
        ((0.1, 0.02), (0.5, 0.6), (0, 1, 2), 0, [0, 1], False),  # smoother than where it begins
        ((0.1, 0.02), (0.5, 0.6), (2,), 1, [1, 2], False),
        ((0.1, 0.02), (2.1, 2.2), (), 1, [1, 2], True),
        ((0.1, 0.02), (2.0, 2.1), (), 2, [2, 3], True),
    ],
)  # fmt: skip
def test_the_walk_from_smooth_to_sharp(residuals, gains, ripples, kept, tried, limited):
    choice = choose_strength(market((0.5, 0.3, *residuals), (0.1, 0.2, *gains), ripples))
    assert STRENGTHS.index(choice.kept.strength) == kept
    assert [STRENGTHS.index(trade.strength) for trade in choice.path] == tried
    assert choice.gain_limited is limited


@pytest.mark.parametrize(
    ("before", "gains", "kept", "tried"),
    [
        (0.4, (0.3, 0.45, 0.6), 3, [2, 3, 4]),  # not noisier than by a quarter
        (0.4, (0.9, 0.95, 1.0), 2, [2, 3]),  # but from where a walk begins
        (1.9, (1.5, 1.95, 2.1), 3, [2, 3, 4]),  # nor beyond the limit
        (0.4, (0.3, 0.4, 0.5), 4, [2, 3, 4, 5]),
    ],
)
def test_a_walk_goes_on_where_a_smaller_kernels_ended(before, gains, kept, tried):
    path = tuple(Trade(STRENGTHS[k], 0.1, before, False) for k in (2, 3, 4))
    same = 0.02 * 0.999 ** np.arange(4)
    choice = choose_strength(market((0.5, 0.3, *same), (0.1, 0.2, *gains, 1.9)), Choice(path, path[-1], False))
    assert STRENGTHS.index(choice.kept.strength) == kept
    assert [STRENGTHS.index(trade.strength) for trade in choice.path] == tried
    assert choice.path[0].gain == (before if kept > 2 else gains[0])


def test_the_noise_gain_to_expect_is_that_at_the_nearest_strength():
    """As a power of ten; a kernel over a constant field may have a quarter more."""
    path = (Trade(1e-2, 0.1, 0.1, False), Trade(1e-3, 0.05, 0.2, False))
    choice = Choice(path, path[-1], False)
    assert (choice.gain_near(4e-3), choice.gain_near(2.5e-3)) == (0.1, 0.2)
    work = _Work(FreeForm(max_noise_gain=0.2), *PAIR, BOX, strength=4e-3)
    assert work._gain_limit() == 0.2
    work.choice = choice
    assert work._gain_limit() == pytest.approx(0.125)
    work.strength = 1e-3
    assert work._gain_limit() == 0.2
    for gain, ripples in ((0.19, True), (0.21, False)):
        work.gain, work.ripples = gain, ripples
        assert work.too_noisy()
    work.gain = 0.2
    assert not work.too_noisy()


@pytest.mark.parametrize(
    ("science", "floor", "tried"),
    [(PAIR[0], 0.0, [17]), (PAIR[0], 5e-6, [17, 25]), (VARYING, 0.0, [17, 25])],
    ids=["to its end", "half way", "varying"],
)
def test_a_walk_that_came_to_its_end_is_not_begun_again(science, floor, tried):
    """Of what is weaker than the weakest there is nothing, but kernels that vary may have to be smoother."""
    sizes = []

    def cropped(size):
        sizes.append(size)
        return SimpleNamespace(
            trade=lambda s: Trade(s, s, 0.3, s < floor), tolerance=1e-9, max_noise_gain=2.0, cropped=cropped
        )

    equations = SimpleNamespace(size=41, cropped=lambda size: equations, solve=lambda s: 0, residual=lambda k: 0.5)
    work = _Work(FreeForm(), science, PAIR[1], BOX)
    work._choose([equations], cropped(99))
    assert sizes[1:] == tried
    assert work.size == 25


@pytest.mark.parametrize(
    ("shape", "trusted", "options", "science", "cap", "words"),
    [
        ((2000, 999), 301, {"max_size": 129}, PAIR[0], 123, "the frame, 999 px wide"),  # an eighth
        ((150, 900), 301, {}, PAIR[0], 21, "the frame, 150 px wide"),
        ((2000, 999), 61, {}, PAIR[0], 43, "the stamps, which support a kernel of 43 px"),  # 0.72
        ((2000, 999), 301, {}, PAIR[0], 65, "the kernel size, max_size=65"),
        ((2000, 999), 301, {}, VARYING, 49, "the size of kernels that vary, 49 px"),
        ((1, 1), 301, {"max_size": 99}, PAIR[0], 99, "the kernel size, max_size=99"),
        ((2, 2), 301, {"max_size": 99}, PAIR[0], 21, "the frame, 2 px wide"),
        ((1, 1), 3, {}, PAIR[0], 3, "the stamps"),
    ],
)
def test_the_largest_kernel(shape, trusted, options, science, cap, words):
    work = _Work(FreeForm(**options), science, PAIR[1], Box.from_shape(shape), trusted=trusted, size=cap)
    assert work._cap() == cap
    assert words in work._limit()
    work.size = cap - 2
    assert "what the stamps hold" in work._limit()


@pytest.mark.parametrize(
    ("reached", "limited", "options", "outcome"),
    [
        (1.0, False, {}, Outcome.OK),
        (1.1, False, {}, Outcome.TOLERANCE_NOT_REACHED), (29.0, False, {}, Outcome.TOLERANCE_NOT_REACHED),
        (31.0, False, {}, Outcome.OUT_OF_REACH), (31.0, False, {"size": 9}, Outcome.POOR),
        (31.0, False, {"flux": "unit"}, Outcome.POOR),
        (31.0, False, {"order": 0}, Outcome.POOR),
        (31.0, False, {"strength": 0.0}, Outcome.POOR),
        (31.0, False, {"size": 9, "max_noise_gain": 0.5}, Outcome.POOR),
        (0.5, False, {"max_noise_gain": 0.39}, Outcome.TARGET_TOO_SHARP),
        (9.9, True, {}, Outcome.TOLERANCE_NOT_REACHED), (10.1, True, {}, Outcome.TARGET_TOO_SHARP),
    ],
)  # fmt: skip
def test_what_is_said_of_a_residual(reached, limited, options, outcome):
    """In units of the tolerance."""
    trade = Trade(1e-3, 0.1, 0.1, False)
    work = _Work(FreeForm(**options), *PAIR, Box(0, 0, 1, 1), trusted=31, size=9)
    work.reached, work.gain, work.choice = 1e-3 * reached, 0.4, Choice((trade,), trade, limited)
    work.reachable = lambda: "broaden it"
    assert work.outcome() is outcome
    assert ("noise gain" in work.advice) == (outcome is Outcome.TOLERANCE_NOT_REACHED and limited)
    work.amplification = Amplification(1.06, 0.2, 0.1)
    if outcome is Outcome.OK:
        assert work.outcome() is Outcome.DECONVOLVED
        work.amplification = Amplification(1.05, 0.2, 0.1)
        assert work.outcome() is Outcome.OK


def test_the_search_for_a_target_in_reach_ends_at_four_times_its_width():
    solver = FreeForm(max_noise_gain=1e-3)
    with pytest.raises(MatchError, match="Not even a target 4 times as wide is reached"):
        matching_kernel(GaussianPSF(fwhm=4.0, size=41), GaussianPSF(fwhm=2.5), solver=solver)


@pytest.mark.parametrize("solver", [FreeForm(), Fourier(), AlardLupton()], ids=lambda s: type(s).__name__)
def test_a_kernel_is_for_the_target_itself_unless_a_sum_is_named(solver):
    box = Box.from_shape((110, 95), y0=7, x0=-20)
    ways = [lambda **s: solver.solution(*PAIR, box, **s)]
    if hasattr(solver, "solve"):
        ways.append(lambda **s: solver.solve(solver.sample(*PAIR, box), **s))
    for way in ways:
        alone, three = (solution.kernel.stamps(x=9, y=40)[0] for solution in (way(), way(kernel_sum=3.0)))
        assert alone.sum() == pytest.approx(1.0, abs=1e-2)
        np.testing.assert_allclose(three, 3.0 * alone, atol=1e-9)


@pytest.mark.parametrize("make", [AlardLupton, Fourier])
@pytest.mark.parametrize(
    ("shape", "order", "sides"), [((110, 95), 2, (36, 31)), ((300, 420), 1, (128, 128)), ((2, 420), 3, (1, 105))]
)
def test_cells_are_as_small_as_the_order_asks_on_a_small_frame(make, shape, order, sides):
    cells = make(order=order).sample(VARYING, PAIR[1], Box.from_shape(shape, y0=7, x0=-20))
    for values, side in ((cells.y, sides[0]), (cells.x, sides[1])):
        assert set(np.diff(np.unique(values))) == {side}


def test_as_many_cells_as_are_asked_for_are_enough():
    box = Box.from_shape((300, 420))
    cells = AlardLupton(order=1).sample(VARYING, PAIR[1], box)
    assert AlardLupton(order=1, min_cells=len(cells)).solve(cells).outcome is Outcome.OK
    with pytest.raises(MatchError, match=f"too few for a spatial model of order 1 .{len(cells) + 1} terms"):
        AlardLupton(order=1, min_cells=len(cells) + 1).solve(cells)


@pytest.mark.parametrize("variance", [1e-3, 1.0])
@pytest.mark.parametrize(
    ("choice", "left_out", "limit"),
    [("unbiased-risk", 0, 2000.0), ("unbiased-risk", 3, 2000.0), ("biased-risk", 2, 2000.0), ("biased-risk", 8, 1.0)],
)
def test_the_strength_of_least_predictive_risk(choice, left_out, limit, variance):
    """By explicit inverses in the space of the eigenvectors that count; the steps are those of Rubin's task."""
    rng = np.random.default_rng(3)
    vectors = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    values = np.geomspace(1.0, 1e-4, 9)
    if choice == "unbiased-risk":
        values[9 - left_out :] = 0.0
    matrix, penalty = vectors * values @ vectors.T, np.diag(rng.uniform(0.5, 2.0, 9))
    vector = matrix @ rng.normal(size=9) + np.sqrt(variance) * vectors @ (np.sqrt(values) * rng.normal(size=9))
    part = vectors[:, : 9 - left_out]
    risks = []
    steps = np.logspace(-1.0, 2.0, 31)
    for step in steps:
        inverse = np.linalg.inv(matrix + variance * step * penalty)
        seen = part.T @ inverse @ vector
        plain = part.T @ vector / values[: 9 - left_out]
        risks.append(seen @ seen + 2.0 * (variance * np.trace(part.T @ inverse @ part) - seen @ plain))
    equations = NormalEquations(matrix[None], vector[None], np.ones(1), 9)
    regularization = Regularization(choice=choice, variance=variance, max_condition=limit)
    np.testing.assert_allclose(regularization.steps, steps)
    assert regularization._factors(equations, penalty) == pytest.approx(variance * steps[np.argmin(risks)])


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Clipping, {"residual_mean": 0.0, "residual_std": 0.0, "sum_sigma": 0.0, "iterations": 1}),
        (Padding, {"to": 1.0}), (Padding, {"to": None, "by": 2}), (PCA, {"components": 1}),
        (Regularization, {"border": 0.0, "strength": 0.0, "orders": (3,), "stencil": 5}),
        (Window, {"cutoff": 1.0, "taper": 1.0}), (Window, {"cutoff": 1e-9, "taper": 1e-9}),
        (FreeForm, {"strength": 0.0, "noise": 0.0, "order": 0, "max_order": 0, "size": 129, "max_size": 129}),
        (FreeForm, {"size": 1, "max_size": 1, "flux": 0}), (Fourier, {"order": 0, "cell_shape": (1, 1), "size": 1}),
        (AlardLupton, {"order": 0, "cell_shape": (1, 1), "sigmas": (1.0,), "degrees": (0,)}),
        (FFT, {"tolerance": 0.0, "variance_tolerance": 0.0, "threads": 1, "block": 1}),
    ],
)  # fmt: skip
def test_options_may_lie_at_the_ends_of_their_ranges(cls, options):
    made = cls(**options)
    assert {name: getattr(made, name) for name in options} == options
