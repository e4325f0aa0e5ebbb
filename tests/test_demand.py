import numpy as np
import pytest
from scipy.optimize import brentq

from psfmatch import Box, FreeForm, GaussianPSF, ImagePSF, MoffatPSF, Outcome, matching_kernel
from psfmatch.moments import SIGMA_TO_FWHM
from psfmatch.solve.demand import Amplification, Demand, wiener_weights
from psfmatch.solve.free_form import _Work


def stamp(psf, size=41, noise=0.0, seed=0):
    clean = psf.stamps(x=0, y=0, shape=(size, size))[0]
    return clean + np.random.default_rng(seed).normal(0.0, noise * clean.max(), clean.shape)


def amplification(kernel):
    """Largest |K(f)| / |K(0)|, and its frequency (fy, fx), by a plain sum over pixels."""
    f = np.linspace(-0.5, 0.5, 101)
    waves = [np.exp(-2j * np.pi * np.outer(f, np.arange(n) - n // 2)) for n in kernel.shape]
    response = np.abs(waves[0] @ kernel @ waves[1].T) / abs(kernel.sum())
    fy, fx = np.unravel_index(response.argmax(), response.shape)
    return response.max(), (f[fy], f[fx])


def unlimited(science, target, residual):
    """The kernel without a limit on its size that has this residual with the least noise, wrapping around."""
    s, t = (np.fft.fft2(np.fft.ifftshift(stamp(p, 151))) for p in (science, target))

    def kernel(log_weight):
        return np.conj(s) * t / (np.abs(s) ** 2 + np.exp(log_weight))

    def excess(log_weight):
        return np.linalg.norm(kernel(log_weight) * s - t) / np.linalg.norm(t) - residual

    response = np.abs(kernel(brentq(excess, -35, 2)))
    return response.max() / response[0, 0]


def test_amplification_is_that_of_the_transform():
    along_y, along_x = np.array([0.25, 0.5, 0.25]), np.array([0.0, -0.125, 1.25, -0.125, 0.0])
    found = Amplification.of(np.stack([np.full((3, 5), 1 / 15), np.outer(along_y, along_x)]))
    f = np.arange(-0.5, 0.5, 0.002)
    response = np.outer(np.cos(np.pi * f) ** 2, 1.0 + 0.5 * np.sin(np.pi * f) ** 2)
    assert (found.largest, found.frequency) == (pytest.approx(1.5), pytest.approx(0.5))
    assert found.share == pytest.approx((response > 1.05).mean(), abs=0.01)
    assert Amplification.of(3.0 * np.outer(along_y, along_x)[None]) == found


def test_what_a_pair_demands_is_the_quotient_of_its_transforms():
    science, target = GaussianPSF(fwhm=4.2), GaussianPSF(fwhm=3.9)
    found = Demand.of(stamp(science, 61), stamp(target, 61)).largest(1e-3)
    assert found.largest == pytest.approx(unlimited(science, target, 1e-3), rel=0.01)
    spread = (4.2**2 - 3.9**2) / SIGMA_TO_FWHM**2
    assert 0.85 < found.largest / np.exp(2.0 * np.pi**2 * spread * found.frequency**2) < 1.0
    assert Demand.of(stamp(target, 61), stamp(science, 61)).largest(1e-3).largest == pytest.approx(1.0)


@pytest.mark.parametrize("size", [41, 45])
def test_half_the_plane_counts_as_all_of_it(size):
    """On grids of even and of odd length: the response of the kernel that a search over the whole plane finds."""
    science, target = np.random.default_rng(2).normal(size=(2, size, size))
    demand = Demand.of(science, target)
    s, t = demand.science, demand.target
    assert s.shape == ((42, 42) if size == 41 else (45, 45))

    def excess(log_weight):
        w = np.exp(log_weight)
        return np.sqrt(((w / (s + w)) ** 2 * t).sum() / t.sum()) - 0.3

    response = np.sqrt(s * t) / (s + np.exp(brentq(excess, -20, 20)))
    assert demand.largest(0.3).largest == pytest.approx((response / response[0, 0]).max(), rel=1e-5)


@pytest.mark.parametrize("flux", [1.0, 0.01, 300.0])
def test_what_is_amplified_too_much_does_not_depend_on_the_flux(flux):
    demand = Demand.of(stamp(GaussianPSF(fwhm=3.5)) / flux, stamp(GaussianPSF(fwhm=5.0)))
    sharp, smooth = (np.outer(line, line) for line in ([-0.5, 2.0, -0.5], [0.25, 0.5, 0.25]))
    assert demand.exceeded(flux * sharp, 1e-2, 1e-3)
    assert not demand.exceeded(flux * smooth, 1e-2, 1e-3)


@pytest.mark.parametrize("flux", [1.0, 0.01, 300.0])
def test_what_noise_hides_is_not_demanded_whatever_the_flux(flux):
    science, target = stamp(MoffatPSF(fwhm=3.5, beta=3.0)) * flux, stamp(GaussianPSF(fwhm=5.8))
    peak = float(np.abs(np.fft.fft2(science)).max()) ** 2
    demand = Demand.of(science, target, (1e-3 * peak, 0.0))
    assert not demand.known.all()
    assert demand.largest(1e-3).largest == pytest.approx(1.0, abs=1e-3)
    assert demand.exceeded(flux * np.outer([-0.5, 2.0, -0.5], [0.25, 0.5, 0.25]), 1e-2, 1e-3)


def test_the_floors_are_the_power_of_white_noise_in_stamps_of_any_shape():
    rng = np.random.default_rng(5)
    shapes, sigmas = ((15, 41), (37, 23)), (0.02, 0.05)
    stamps = [GaussianPSF(fwhm=2.0).stamps(x=0, y=0, shape=n)[0] + rng.normal(0.0, 0.01, n) for n in shapes]
    work = _Work(FreeForm(), *(ImagePSF(s) for s in stamps), Box(0, 0, 1, 1), noise={"science": 0.02, "target": 0.05})
    demand = work._demand(*stamps)
    known = np.ones(demand.known.shape, bool)
    for s, sigma in zip(stamps, sigmas, strict=True):
        known &= np.abs(np.fft.fft2(s, known.shape)) > sigma * s.max() * np.sqrt(s.size)
    np.testing.assert_array_equal(demand.known, known)
    assert 0.1 < known.mean() < 0.99


def test_a_residual_beyond_double_precision_is_not_reached():
    science = np.array([[9.0, 1.0, 1e-3], [4.0, 2.0, 0.0]])
    target, count = np.array([7.0, 2.0, 0.1]), np.array([1.0, 2.0, 2.0])
    for residual, wanted in ((0.3, [True, True]), (1e-3, [True, False]), (1e-20, [False, False])):
        weights, reached = wiener_weights(science, target, count, residual)
        assert reached.tolist() == wanted
        for weight, power in zip(weights[reached], science[reached], strict=True):
            left = (weight / (power + weight)) ** 2 * target * count
            assert np.sqrt(left.sum() / (target * count).sum()) == pytest.approx(residual, rel=1e-4)


ROUND = MoffatPSF(fwhm=4.5, beta=3.0)
CASES = {
    "size": (
        MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.3, angle=30.0),
        MoffatPSF(fwhm=4.2, beta=3.0),
        0.0,
        {"size": 9},
    ),
    "noise": (MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.1, angle=30.0), MoffatPSF(fwhm=4.2, beta=3.0), 1 / 300, {}),
    "more noise": (MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.2, angle=30.0), ROUND, 1 / 50, {}),
    "noise that is believed": (MoffatPSF(fwhm=3.2, beta=2.5), GaussianPSF(fwhm=5.0), 1 / 50, {"noise": 0.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_amplified_that_the_pair_does_not_demand(name):
    science, target, noise, options = CASES[name]
    s, t = stamp(science, 41, noise, 1), stamp(target, 41, noise, 2)
    solution = FreeForm(**options).solution(ImagePSF(s), ImagePSF(t), Box(0, 0, 1, 1))
    demanded = unlimited(science, target, solution.statistics["predicted_residual"])
    assert amplification(solution.kernel.stamps(x=0, y=0)[0])[0] <= 1.2 * demanded


def test_a_target_narrower_along_one_axis_is_said_to_be():
    science = MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.3, angle=90.0)
    solution = matching_kernel(stamp(science), stamp(ROUND))
    assert solution.outcome is Outcome.DECONVOLVED
    largest, (fy, fx) = amplification(solution.kernel.stamps(x=0, y=0)[0])
    statistics = solution.statistics
    assert statistics["amplification"] == pytest.approx(largest, rel=0.01)
    assert statistics["amplified_frequency"] == pytest.approx(abs(fy), abs=0.02)
    assert abs(fx) < 0.02
    assert statistics["demanded_amplification"] == pytest.approx(unlimited(science, ROUND, 1e-3), rel=0.02)
    assert 0.05 < statistics["amplified_share"] < 0.5
    assert f"amplified: up to {largest:.1f}" in solution.message
    assert f"noise gain is {statistics['noise_gain']:.3g}" in solution.message


def test_a_kernel_may_amplify_only_where_it_is_demanded():
    science, target = stamp(MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.3, angle=90.0)), stamp(ROUND)
    solution = matching_kernel(science, target)
    kernel, residual = solution.kernel.stamps(x=0, y=0)[0], solution.statistics["predicted_residual"]
    demand = Demand.of(science, target)
    assert Amplification.of(kernel.T[None]).largest == pytest.approx(Amplification.of(kernel[None]).largest)
    assert not demand.exceeded(kernel, residual, 0.5 * residual)
    assert demand.exceeded(kernel.T, residual, 0.5 * residual)


def test_a_broader_target_amplifies_nothing():
    solution = matching_kernel(stamp(GaussianPSF(fwhm=3.5)), GaussianPSF(fwhm=5.0))
    assert solution.outcome is Outcome.OK
    assert solution.statistics["amplification"] == pytest.approx(1.0, abs=1e-3)
    assert "amplified" not in solution.message
