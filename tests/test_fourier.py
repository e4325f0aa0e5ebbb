import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import convolve2d

from psfmatch import (
    BasisPSF,
    Box,
    Field,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    InputError,
    MatchError,
    MoffatPSF,
    Outcome,
    matching_kernel,
    measure_quality,
)
from psfmatch.quality import check_positions
from psfmatch.solve.fourier import Fourier, Window

LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
SCIENCE = {"fwhm": 3.1, "ellipticity": 0.15, "angle": 35.0}
TARGET = {"fwhm": 4.6, "ellipticity": 0.1, "angle": -70.0}

pytestmark = pytest.mark.filterwarnings("ignore:the (science|target) PSF's stamp has the sum")


def stamp(model, shape):
    return np.array(model.stamps(x=0, y=0, shape=shape)[0])


def image(solution):
    box = solution.kernel.box
    return solution.kernel.stamps(x=box.center.x, y=box.center.y)[0]


def covariance(fwhm, ellipticity, angle):
    q, t, variance = 1.0 - ellipticity, np.deg2rad(angle), (fwhm / 2.354820045) ** 2
    axes = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return axes @ np.diag([variance / q, variance * q]) @ axes.T


def test_between_gaussians_the_kernel_is_the_gaussian_of_the_difference():
    science, target = (stamp(GaussianPSF(**p), (45, 39)) for p in (SCIENCE, TARGET))
    kernel = image(matching_kernel(science, target, solver=Fourier(size=25, strength=1e-10)))
    c = covariance(**TARGET) - covariance(**SCIENCE)
    y, x = np.mgrid[-12:13, -12:13].astype(float)
    inverse = np.linalg.inv(c)
    exponent = inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
    truth = np.exp(-0.5 * exponent) / (2 * np.pi * np.sqrt(np.linalg.det(c)))
    np.testing.assert_allclose(kernel, truth, atol=1e-3 * truth.max())


def direct(science, target, size, strength, operator):
    """Least squares over every pixel of whole convolutions, with the operator's output as further rows."""
    units = np.eye(size * size).reshape(-1, size, size)
    fit = np.array([convolve2d(science, u).ravel() for u in units]).T
    smooth = np.array([convolve2d(u, operator).ravel() for u in units]).T
    wanted = np.zeros((science.shape[0] + size - 1, science.shape[1] + size - 1))
    half = size // 2
    wanted[half : half + target.shape[0], half : half + target.shape[1]] = target
    weight = np.sqrt(strength) * np.abs(science.sum())
    rows, right = np.vstack([fit, weight * smooth]), np.append(wanted.ravel(), np.zeros(len(smooth)))
    return np.linalg.lstsq(rows, right, rcond=None)[0].reshape(size, size)


@pytest.mark.parametrize(
    ("penalty", "operator", "strength"),
    [
        ("none", np.eye(1), 1e-3),
        ("laplacian", LAPLACIAN, 1e-4),
        ("biharmonic", convolve2d(LAPLACIAN, LAPLACIAN), 1e-5),
        (np.array([[0.0, 0, 1], [0, -3, 1], [0.5, 0, 1]]), np.array([[0.0, 0, 1], [0, -3, 1], [0.5, 0, 1]]), 1e-3),
    ],
    ids=["none", "laplacian", "biharmonic", "array"],
)
def test_it_is_the_uncut_least_squares_solution(penalty, operator, strength):
    science, target = (stamp(GaussianPSF(**p), (15, 17)) for p in (SCIENCE, TARGET))
    wanted = direct(3.0 * science, 2.0 * target, 23, strength, operator)
    kernel = image(
        matching_kernel(3.0 * science, 2.0 * target, solver=Fourier(penalty=penalty, strength=strength, size=23))
    )
    np.testing.assert_allclose(kernel, wanted, atol=1e-3 * wanted.max())  # at the border; within it:
    np.testing.assert_allclose(kernel[6:-6, 6:-6], wanted[6:-6, 6:-6], atol=2e-4 * wanted.max())


def test_named_penalties_are_those_of_their_operators():
    science, target = (stamp(MoffatPSF(beta=3.0, **p), (31, 25)) for p in (SCIENCE, TARGET))
    for name, operator in (("laplacian", LAPLACIAN), ("biharmonic", convolve2d(LAPLACIAN, LAPLACIAN))):
        kernels = [
            image(matching_kernel(science, target, solver=Fourier(penalty=p, strength=1e-3))) for p in (name, operator)
        ]
        np.testing.assert_allclose(*kernels, atol=1e-14)


def test_nothing_wraps_and_nothing_shifts():
    point = np.zeros((3, 5))
    point[1, 2] = 1.0
    target = stamp(GaussianPSF(fwhm=2.5), (15, 21))
    target[0, 0], target[1, 19], target[14, 3] = 0.01, 0.004, 0.002
    kernel = image(matching_kernel(point, target, solver=Fourier(strength=1e-12, size=21)))
    np.testing.assert_allclose(kernel[3:-3], target, atol=1e-9)
    np.testing.assert_allclose(kernel[[0, 1, 2, -3, -2, -1]], 0.0, atol=1e-9)


def test_a_kernel_cut_by_its_size_is_cut_not_folded():
    science, target = (stamp(MoffatPSF(beta=3.0, **p), (41, 33)) for p in (SCIENCE, TARGET))
    options = {"strength": 1e-5}
    small, large = (image(matching_kernel(science, target, solver=Fourier(size=s, **options))) for s in (13, 41))
    np.testing.assert_allclose(small, large[14:-14, 14:-14], atol=1e-6 * large.max())


@pytest.mark.parametrize("penalty", ["none", "laplacian"])
def test_strength_means_the_same_for_any_flux_stamp_and_padding(penalty):
    science, target = (stamp(GaussianPSF(**p), (35, 31)) for p in (SCIENCE, TARGET))
    solver = Fourier(penalty=penalty, strength=1e-3, size=21)
    reference = image(matching_kernel(science, target, solver=solver))
    scaled = image(matching_kernel(70.0 * science, 5.0 * target, solver=solver))
    np.testing.assert_allclose(scaled, reference / 14.0, rtol=1e-9, atol=1e-15)
    padded = image(matching_kernel(np.pad(science, ((9, 9), (2, 2))), target, solver=solver))
    np.testing.assert_allclose(padded, reference, atol=1e-8)


def test_defaults_reach_the_tolerance_and_take_cheap_accuracy():
    science, target = MoffatPSF(**SCIENCE, beta=3.0, size=81), MoffatPSF(**TARGET, beta=4.0)
    for tolerance in (1e-2, 1e-3, 1e-4):
        solution = matching_kernel(science, target, solver=Fourier(tolerance=tolerance))
        statistics = solution.statistics
        assert solution.outcome is Outcome.OK
        assert statistics["predicted_residual"] <= tolerance
        quality = measure_quality(solution.kernel, science, target, x=0, y=0)
        assert quality.noise_gain[0] == pytest.approx(statistics["noise_gain"])
        assert quality.residual[0] < 1.2 * tolerance
        stronger = 10.0 ** np.arange(0.0, 6.0, 0.2) * statistics["strength"]
        trades = [
            matching_kernel(science, target, solver=Fourier(strength=s, size=statistics["kernel_size"])).statistics
            for s in stronger
        ]
        least = min(t["noise_gain"] for t in trades if t["predicted_residual"] <= tolerance)
        assert statistics["noise_gain"] <= 1.03 * least


def test_predicted_figures_are_those_of_the_stamps():
    science, target = (ImagePSF(stamp(MoffatPSF(beta=3.0, **p), (27, 27))) for p in (SCIENCE, TARGET))
    solution = matching_kernel(science, target, solver=Fourier(strength=1e-3, size=15))
    quality = measure_quality(solution.kernel, science, target, x=0, y=0)
    assert quality.residual[0] == pytest.approx(solution.statistics["predicted_residual"], rel=1e-9)
    assert quality.noise_gain[0] == pytest.approx(solution.statistics["noise_gain"], rel=1e-9)


@pytest.mark.parametrize(("size", "side"), [(15, 45), (21, 48)])
def test_nor_do_they_depend_on_the_grid(size, side):
    """Lopsided PSFs with power up to Nyquist's frequency, on grids of odd and of even length, by plain sums."""
    science, target = (stamp(MoffatPSF(fwhm=f, beta=3.0), (27, 23)) for f in (1.3, 1.5))
    science, target = science + 0.3 * np.roll(science, (1, 2), (0, 1)), target + 0.2 * np.roll(target, (2, -1), (0, 1))
    solution = matching_kernel(science, target, solver=Fourier(strength=1e-3, size=size), throw=False)
    statistics = solution.statistics
    assert statistics["padded_size"] == side
    left = convolve2d(science, image(solution)) - np.pad(target, size // 2)
    assert statistics["predicted_residual"] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(target), rel=1e-9)


def test_the_noise_gain_is_limited_and_what_is_too_sharp_is_refused():
    science, target = GaussianPSF(fwhm=4.0, size=45), GaussianPSF(fwhm=3.7)
    gains = []
    for limit in (1.0, 1.4):
        solution = matching_kernel(science, target, solver=Fourier(max_noise_gain=limit), throw=False)
        assert solution.outcome is Outcome.TOLERANCE_NOT_REACHED
        gains.append(solution.statistics["noise_gain"])
        assert 0.7 * limit < gains[-1] <= limit
    with pytest.raises(MatchError, match="sharper"):
        matching_kernel(science, GaussianPSF(fwhm=2.5), solver=Fourier())
    blurred = convolve2d(stamp(science, (45, 45)), np.ones((5, 7)) / 35.0)  # frequencies that are not there at all
    with pytest.raises(MatchError, match="sharper"):
        matching_kernel(blurred, stamp(GaussianPSF(fwhm=4.0), (49, 51)), solver=Fourier(max_noise_gain=1e6))


def test_the_strength_is_the_largest_that_reaches_the_tolerance():
    """Four fifths of it: the kernel's own formula, of unlimited size, on a grid of its own."""
    science, target = (stamp(GaussianPSF(fwhm=f), (45, 45)) for f in (4.0, 3.7))
    statistics = matching_kernel(science, target, solver=Fourier(tolerance=3e-3), throw=False).statistics
    s, t = (np.fft.fft2(np.pad(p, 60)) for p in (science, target))
    f = np.fft.fftfreq(len(s))
    penalty = (4.0 - 2.0 * np.cos(2 * np.pi * f[:, None]) - 2.0 * np.cos(2 * np.pi * f)) ** 2

    def residual(strength):
        power = np.abs(s) ** 2
        left = t * (1.0 - power / (power + strength * power.max() * penalty))
        return np.linalg.norm(left) / np.linalg.norm(t)

    assert statistics["strength_chosen_by"] == "tolerance"
    assert residual(statistics["strength"]) <= 0.8 * 3e-3 < residual(1.05 * statistics["strength"])


def test_the_search_ends_where_noise_gain_grows_faster_than_accuracy():
    """Over a quarter of a decade of strength, by the formula of the uncut kernel on a grid of its own."""
    science, target = (stamp(GaussianPSF(fwhm=f), (45, 39)) for f in (4.0, 3.3))
    solver = Fourier(tolerance=1e-5, max_noise_gain=1e9)
    found = solver.solution(ImagePSF(science), ImagePSF(target), Box(0, 0, 1, 1)).statistics
    assert found["strength_chosen_by"] == "price"
    s, t = (np.fft.fft2(np.pad(p, 60)) for p in (science, target))
    fy, fx = (np.fft.fftfreq(n) for n in s.shape)
    penalty = (4.0 - 2.0 * np.cos(2 * np.pi * fy[:, None]) - 2.0 * np.cos(2 * np.pi * fx)) ** 2

    def figures(strength):
        kernel = np.conj(s) * t / (np.abs(s) ** 2 + strength * (np.abs(s) ** 2).max() * penalty)
        return np.linalg.norm(kernel * s - t), (np.abs(kernel) ** 2).sum()

    (residual, gain), (smaller, larger) = figures(found["strength"]), figures(10**-0.25 * found["strength"])
    assert larger / gain > residual / smaller > 1.0


def test_what_was_set_by_hand_is_said():
    science, target = ImagePSF(stamp(MoffatPSF(beta=3.0, **SCIENCE), (31, 27))), MoffatPSF(beta=3.0, **TARGET)
    for options, words in (
        ({}, None),
        ({"size": 15}, "size=15"),
        ({"strength": 0.5, "flux": 2}, "strength=0.5, flux=2"),
    ):
        solution = Fourier(**options).solution(science, target, Box(0, 0, 1, 1))
        assert solution.statistics.get("by_hand") == words


def test_a_kernel_too_small_for_its_ringing_is_made_smoother_and_says_so():
    science, target = ImagePSF(stamp(GaussianPSF(fwhm=4.0), (45, 45))), GaussianPSF(fwhm=3.8)
    found = Fourier(size=5).solution(science, target, Box(0, 0, 1, 1)).statistics
    assert found["strength_chosen_by"] == "size"
    weaker = Fourier(size=5, strength=0.3 * found["strength"]).solution(science, target, Box(0, 0, 1, 1)).statistics
    assert weaker["strength_chosen_by"] == "given"
    assert found["predicted_residual"] < weaker["predicted_residual"]


def test_the_size_is_the_least_that_loses_nothing():
    science, target = (ImagePSF(stamp(MoffatPSF(beta=3.0, **p), (101, 95))) for p in (SCIENCE, TARGET))
    solution = matching_kernel(science, target, solver=Fourier(size_max=101))
    size, strength = solution.statistics["kernel_size"], solution.statistics["strength"]

    def residual(size):
        kernel = matching_kernel(science, target, solver=Fourier(size=size, strength=strength)).kernel
        return measure_quality(kernel, science, target, x=0, y=0).residual[0]

    assert residual(size) <= max(1.1 * residual(101), 1e-5) * (1 + 1e-6)
    assert residual(int(size / 1.5) // 2 * 2 + 1) > max(1.1 * residual(101), 1e-5)
    limited = matching_kernel(science, target, solver=Fourier(size_max=11))
    assert limited.kernel.shape == (11, 11)
    assert limited.outcome is Outcome.TOLERANCE_NOT_REACHED


def test_the_size_is_large_enough_for_the_flux_in_the_wings():
    """Which the residual hardly feels: it is true to 0.3 of the tolerance, and a kernel some pixels smaller is not."""
    pair = MoffatPSF(fwhm=3.0, beta=3.5), MoffatPSF(fwhm=5.0, beta=2.2)
    s, t = (psf.stamps(x=0, y=0, shape=(121, 121))[0] for psf in pair)
    kernel = matching_kernel(s, t, solver=Fourier(tolerance=1e-2)).kernel.stamps(x=0, y=0)[0]
    lost = [1.0 - k.sum() * s.sum() / t.sum() for k in (kernel, kernel[4:-4, 4:-4])]
    assert 0.0 < lost[0] <= 3e-3 < lost[1]


def test_cells_that_are_lost_are_counted():
    def function(x, y):
        if x > 300:
            raise ValueError("no stars here")
        return GaussianPSF(fwhm=3.0 + 1e-3 * x).stamps(x=0, y=0, shape=(21, 21))[0]

    solver, box = Fourier(order=1, cell_shape=(100, 100)), Box.from_shape((300, 500))
    cells = solver.sample(FunctionPSF(function, shape=(21, 21)), GaussianPSF(fwhm=5.0), box)
    statistics = solver.solve(cells).statistics
    counts = [statistics[name] for name in ("cells", "cells_used", "cells_skipped")]
    assert counts == [35, 20, 15]
    assert statistics["fwhm_science"] == cells.fwhm[0] < 3.4
    assert statistics["fwhm_target"] == cells.fwhm[1] == pytest.approx(5.0, rel=0.05)


def test_the_sum_of_the_kernel_is_what_is_asked_for():
    science, target = (0.97 * stamp(GaussianPSF(**SCIENCE), (31, 31)), 0.95 * stamp(GaussianPSF(**TARGET), (31, 31)))
    sums = {
        flux: matching_kernel(science, target, solver=Fourier(flux=flux)).kernel.sums(x=0, y=0)[0]
        for flux in ("free", "stamp", "unit", 1.7)
    }
    assert sums["stamp"] == pytest.approx(target.sum() / science.sum(), rel=1e-12)
    assert sums["free"] == pytest.approx(sums["stamp"], rel=1e-4)
    assert sums["unit"] == pytest.approx(1.0, rel=1e-12)
    assert sums[1.7] == pytest.approx(1.7, rel=1e-12)
    solver = Fourier(flux="unit")
    solution = solver.solution(ImagePSF(science), ImagePSF(target), Box(0, 0, 1, 1), kernel_sum=2.5)
    assert solution.kernel.sums(x=0, y=0)[0] == pytest.approx(2.5)


def test_the_flux_beyond_the_stamps_is_reported():
    science, target = MoffatPSF(fwhm=4.0, beta=2.5), MoffatPSF(fwhm=5.0, beta=3.0)
    first, second = stamp(science, (39, 43)), stamp(target, (47, 41))
    statistics = matching_kernel(first / first.sum(), second / second.sum(), solver=Fourier()).statistics
    for name, cut in (("science", first), ("target", second)):
        truth = 1.0 / cut.sum() - 1.0
        assert abs(statistics[f"missing_flux_{name}"] - truth) < 1.5 * statistics[f"missing_flux_error_{name}"]
    assert "missing_flux_target" not in matching_kernel(first, target, solver=Fourier(), throw=False).statistics


def test_windows():
    f = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.6])
    expected = {
        "none": np.ones(6),
        "hann": [1.0, 0.5 + 0.5 * np.cos(np.pi / 4), 0.5, 0.5 - 0.5 * np.cos(np.pi / 4), 0.0, 0.0],
        "tukey": [1.0, 1.0, 1.0, 0.5, 0.0, 0.0],
        "cosine-bell": [1.0, 0.5, 0.0, 0.0, 0.0, 0.0],
        "top-hat": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    }
    for shape, values in expected.items():
        np.testing.assert_allclose(Window(shape=shape, cutoff=0.4, taper=0.5).at(f), values, atol=1e-15)
    science, target = (stamp(GaussianPSF(**p), (31, 29)) for p in (SCIENCE, TARGET))
    solver = Fourier(strength=1e-6, size=31)
    plain, tapered = (
        matching_kernel(science, target, solver=replace(solver, window=w))
        for w in ("none", Window(shape="hann", cutoff=0.3))
    )
    assert tapered.statistics["noise_gain"] < plain.statistics["noise_gain"]
    assert image(tapered).sum() == pytest.approx(image(plain).sum(), abs=1e-3)


def varying(box, size=41):
    changes = ({}, {"fwhm": 3.4}, {"angle": 90.0})
    mean, wider, turned = (stamp(MoffatPSF(beta=3.0, **SCIENCE | change), (size, size)) for change in changes)
    weights = Field([[1, 0, 0], [0, 0.5, -0.4], [0.1, 0.2, 0.3]], box)
    return BasisPSF(np.array([mean, wider - mean, turned - mean]), weights)


def test_a_varying_psf_is_matched_between_the_cells():
    box = Box.from_shape((380, 560), y0=-50, x0=900)
    science, target = varying(box), MoffatPSF(fwhm=5.0, beta=3.0)
    solution = matching_kernel(science, target, box=box, solver=Fourier(order=3))
    x, y = check_positions(box)
    quality = measure_quality(solution.kernel, science, ImagePSF(stamp(target, (41, 41))), x=x, y=y)
    assert quality.residual.max() < 3e-3
    assert solution.statistics["misfit_between_cells"] < 3e-3
    assert solution.statistics["cells_used"] == len(solution.cells) > 10
    flat = matching_kernel(science, target, box=box, solver=Fourier(order=0))
    assert flat.statistics["misfit_between_cells"] > 0.02


def test_stamps_of_two_sizes_are_padded_not_cut():
    science, target = stamp(MoffatPSF(beta=3.0, **SCIENCE), (21, 17)), stamp(MoffatPSF(beta=3.0, **TARGET), (45, 51))
    solution = matching_kernel(science, target, solver=Fourier())
    assert solution.cells.stamp_shape == (51, 51)
    assert solution.cells.target.sum() == pytest.approx(target.sum())
    largest = matching_kernel(science, target, solver=Fourier(size_max=2 * 51 - 1))
    assert largest.statistics["padded_size"] == solution.statistics["padded_size"] >= 51 + 101 - 1
    np.testing.assert_array_equal(largest.kernel.basis, solution.kernel.basis)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "gradient"}, "laplacian"),
        ({"penalty": np.ones((2, 3))}, "odd"),
        ({"penalty": np.zeros((3, 3))}, "not all zeros"),
        ({"strength": 0.0}, "positive"),
        ({"tolerance": np.nan}, "positive"),
        ({"max_noise_gain": -1}, "positive"),
        ({"size": 10}, "odd"),
        ({"size_max": 0}, "odd"),
        ({"window": "box"}, "hann"),
        ({"flux": "one"}, "free, unit, stamp"),
        ({"order": -1}, "whole number"),
        ({"cell_shape": (0, 30)}, "cell_shape"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        Fourier(**options)


def test_windows_that_make_no_sense():
    for options in ({"shape": "hann", "cutoff": 0.0}, {"shape": "tukey", "taper": 1.5}):
        with pytest.raises(InputError, match="cutoff and taper"):
            Window(**options)
    with pytest.raises(InputError, match="larger than the"):
        matching_kernel(np.eye(3) + 1, np.eye(3) + 1, solver=Fourier(penalty=np.ones((31, 3)), strength=1.0))


def test_solvers_are_values():
    for solver in (Fourier(), Fourier(penalty=LAPLACIAN, window="hann", flux=1.5)):
        assert pickle.loads(pickle.dumps(solver)) == solver
        assert eval(repr(solver)) == solver
        assert hash(solver) == hash(replace(solver))
