import numpy as np
import pytest
from scipy.signal import convolve2d

from psfmatch import BasisPSF, Box, Field, FreeForm, FunctionPSF, GaussianPSF, ImagePSF, MoffatPSF
from psfmatch.solve import cholesky, toeplitz
from psfmatch.solve.cholesky import factorise, substituted
from psfmatch.solve.toeplitz import correlations, pixel_equations

BOX = Box.from_shape((1800, 2600), y0=-300, x0=5000)


@pytest.mark.parametrize("published", [True, False])
def test_cholesky_in_place_is_numpys(published, monkeypatch):
    assert cholesky._routine("dpotrf", b"void (char *, int *,") is not None
    if not published:
        monkeypatch.setattr(cholesky, "_routine", lambda name, signature: None)
    rng = np.random.default_rng(2)
    root = rng.normal(size=(7, 9))
    matrix = root @ root.T
    factor = np.triu(matrix)
    assert factorise(factor)
    np.testing.assert_allclose(np.triu(factor), np.linalg.cholesky(matrix).T, rtol=1e-10)
    right = rng.normal(size=(7, 2))
    np.testing.assert_allclose(matrix @ substituted(factor, right), right, rtol=1e-8)
    assert not factorise(matrix - 100.0 * np.eye(7))


@pytest.mark.parametrize("sides", [(7, 7), (7, 11), (11, 7)])
def test_correlations_are_sums_over_pixels(sides):
    rng = np.random.default_rng(4)
    science, target = (rng.normal(size=(2, side, side)) for side in sides)
    auto, cross = correlations(science, target, 5)
    for k in range(2):
        wanted = convolve2d(np.pad(science[k], 9), science[k][::-1, ::-1], mode="same")[9:-9, 9:-9]
        middle = sides[0] // 2
        np.testing.assert_allclose(auto[k, 2:7, 2:7], wanted[middle - 2 :, middle - 2 :][:5, :5], atol=1e-12)
        wide = np.pad(target[k], 9)
        wanted = convolve2d(wide, science[k][::-1, ::-1], mode="same")
        middle = len(wide) // 2
        np.testing.assert_allclose(cross[k], wanted[middle - 2 :, middle - 2 :][:5, :5], atol=1e-12)


def test_smaller_kernels_have_the_middle_of_the_lags():
    rng = np.random.default_rng(5)
    science, target = rng.normal(size=(2, 1, 9, 9))
    large, small = (pixel_equations(science, target, size)[0] for size in (11, 7))
    cropped = large.cropped(7)
    np.testing.assert_allclose(cropped.auto, small.auto, atol=1e-12)
    np.testing.assert_allclose(cropped.cross, small.cross, atol=1e-12)


def test_a_factored_matrix_solves_for_many_right_sides():
    rng = np.random.default_rng(6)
    science, target = rng.normal(size=(2, 1, 9, 9))
    equations = pixel_equations(science, target, 5)[0]
    wanted = rng.normal(size=(3, 5, 5))
    right = equations.applied(wanted) + 0.01 * equations.power * wanted
    np.testing.assert_allclose(equations.factored(0.01).solve(right), wanted, rtol=1e-9)


def varying():
    mean, wide = (MoffatPSF(fwhm=w, beta=3.0).stamps(x=0, y=0, shape=(31, 31))[0] for w in (3.5, 3.6))
    mean, wide = (s + 1e-4 * np.roll(s, 3, axis=1) for s in (mean, wide))  # neither even nor odd
    return BasisPSF(np.array([mean, wide - mean]), Field([[1, 0, 0, 0, 0, 0], [0, 1, -0.6, 0.3, 0.2, 0.1]], BOX))


def test_one_processor_and_two_give_the_same_bits(monkeypatch):
    kernels = []
    for count in (1, 2):
        monkeypatch.setattr(toeplitz, "processors", lambda count=count: count)
        for science in (varying(), ImagePSF(varying().stamps(x=5100, y=0)[0])):
            kernels.append(FreeForm(size=15).solution(science, GaussianPSF(fwhm=5.0), BOX).kernel.basis)
    for k in (0, 1):
        np.testing.assert_array_equal(kernels[k], kernels[k + 2])


def test_models_that_cannot_follow_the_check_are_not_sampled():
    asked = []

    def function(x, y):
        asked.append((x, y))
        width = 3.5 + 0.2 * ((x - 6300) / 1300) ** 3 + 0.1 * (y / 1500)
        return GaussianPSF(fwhm=width).stamps(x=0, y=0, shape=(25, 25))[0]

    solution = FreeForm().solution(FunctionPSF(function, (25, 25)), GaussianPSF(fwhm=5.0), BOX)
    assert solution.statistics["order"] > 2
    assert len(asked) == 25 + len(solution.cells)
