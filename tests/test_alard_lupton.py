import numpy as np
import pytest
from scipy.signal import convolve2d

from psfmatch import (
    PCA,
    AlardLupton,
    BasisPSF,
    Box,
    Clipping,
    DoubleGaussianPSF,
    Field,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    InputError,
    MatchError,
    MoffatPSF,
    Outcome,
    Padding,
    Regularization,
    matching_kernel,
    measure_quality,
)
from psfmatch.cells import sample_at
from psfmatch.fields import n_terms
from psfmatch.quality import check_positions
from psfmatch.solve.basis import delta_basis, gaussian_basis, gaussian_sigmas, kernel_size_for, zero_sum
from psfmatch.solve.normal import normal_equations
from psfmatch.solve.spatial import condition_number, solve_symmetric

BOX = Box.from_shape((300, 420), y0=-40, x0=900)
FIXED = {"scale_by_fwhm": False, "sigmas": (1.0, 2.0), "degrees": (2, 1), "size": 13}


def varying_psf(size=25):
    """A Moffat that drifts: a mean stamp and its derivatives, so that the variation is a polynomial."""

    def stamp(**changes):
        options = {"fwhm": 3.4, "beta": 3.0, "ellipticity": 0.1, "angle": 20.0} | changes
        return MoffatPSF(**options).stamps(x=0, y=0, shape=(size, size))[0]

    mean = stamp()
    basis = np.array([mean, stamp(fwhm=3.6) - mean, stamp(angle=60.0) - mean])
    return BasisPSF(basis, Field([[1, 0, 0, 0, 0, 0], [0, 0.8, -0.4, 0.2, 0.1, 0], [0.1, 0.3, 0.6, 0, 0.2, 0.1]], BOX))


def test_first_gaussian_has_unit_sum_and_the_others_zero():
    basis = zero_sum(gaussian_basis(13, (0.8, 2.0), (3, 2)))
    sums = basis.sum(axis=(1, 2))
    assert len(basis) == 10 + 6
    assert sums[0] == pytest.approx(1.0)
    np.testing.assert_allclose(sums[1:], 0.0, atol=1e-12)
    np.testing.assert_allclose((basis[1:] ** 2).sum(axis=(1, 2)), 1.0)


def test_a_convolution_of_gaussians_has_the_natural_width():
    sigmas, mode = gaussian_sigmas(
        3.0 * 2.354820045, 5.0 * 2.354820045, count=3, ratio=2.0, least=0.7, least_deconvolution=0.4
    )
    assert mode == "convolution"
    np.testing.assert_allclose(sigmas, (2.0, 4.0, 8.0), rtol=1e-8)
    one, mode = gaussian_sigmas(6.0, 5.9, count=1, ratio=2.0, least=0.7, least_deconvolution=0.4)
    assert mode == "deconvolution"
    assert one[0] == pytest.approx(np.sqrt(36 - 5.9**2) / 2.354820045)
    assert kernel_size_for(3.4, scaling=6.0, least=11, most=35) == 21
    assert kernel_size_for(9.0, scaling=6.0, least=11, most=35) == 35


@pytest.mark.parametrize("full", [True, False])
def test_normal_equations_are_sums_over_pixels(full):
    rng = np.random.default_rng(1)
    science, target, basis = rng.normal(size=(3, 9, 9)), rng.normal(size=(3, 9, 9)), rng.normal(size=(4, 5, 5))
    equations = normal_equations(science, target, basis, full=full)
    for c in range(3):
        designs = [convolve2d(science[c], b, mode="full" if full else "valid") for b in basis]
        wanted = np.pad(target[c], 2) if full else target[c][2:-2, 2:-2]
        np.testing.assert_allclose(equations.matrix[c], [[(d * e).sum() for e in designs] for d in designs], rtol=1e-10)
        np.testing.assert_allclose(equations.vector[c], [(d * wanted).sum() for d in designs], rtol=1e-9, atol=1e-10)
        assert equations.power[c] == pytest.approx((wanted**2).sum())
        assert equations.pixels == wanted.size


def test_a_kernel_in_the_span_of_the_basis_is_found():
    """T = K * S with K known: the solver returns K."""
    basis = zero_sum(gaussian_basis(13, (1.0, 2.0), (2, 1)))
    weights = np.array([1.0, 0.2, -0.1, 0.05, 0.3, 0.0, -0.2, 0.1, 0.4])
    true = np.tensordot(weights, basis, axes=1)
    science = MoffatPSF(fwhm=3.0, beta=3.0, ellipticity=0.2, angle=10.0).stamps(x=0, y=0, shape=(21, 21))[0]
    target = convolve2d(science, true)
    for options in ({}, {"sum_rule": "fit"}):
        solver = AlardLupton(order=0, **FIXED, **options)
        kernel = matching_kernel(ImagePSF(np.pad(science, 6)), ImagePSF(target), solver=solver).kernel
        np.testing.assert_allclose(kernel.stamps(x=0, y=0)[0], true, atol=1e-8)


def test_gaussian_to_gaussian_is_the_gaussian_between():
    kernel = matching_kernel(GaussianPSF(fwhm=3.0, size=41), GaussianPSF(fwhm=5.0), solver=AlardLupton(order=0)).kernel
    image = kernel.stamps(x=0, y=0)[0]
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    truth = np.exp(-0.5 * (x * x + y * y) * 2.354820045**2 / 16)
    assert np.abs(image - truth / truth.sum()).max() < 1e-6 * image.max()


def test_the_kernel_follows_the_psf_over_the_field():
    science, target = varying_psf(), GaussianPSF(fwhm=5.0)
    solver = AlardLupton(cell_shape=(60, 70), size_min=25)
    kernel = matching_kernel(science, target, box=BOX, solver=solver).kernel
    x, y = check_positions(BOX)
    quality = measure_quality(kernel, science, target, x=x, y=y)
    assert quality.worst["residual"] < 8e-3
    frozen_kernel = matching_kernel(science, target, box=BOX, solver=AlardLupton(order=0, size_min=25)).kernel
    assert measure_quality(frozen_kernel, science, target, x=x, y=y).worst["residual"] > 3e-2
    np.testing.assert_allclose(quality.kernel_sum, 1.0, atol=1e-10)


@pytest.mark.parametrize("kernel_sum", [1.0, 2.7])
@pytest.mark.parametrize(
    ("rule", "basis"), [("constrain", "gaussian"), ("overwrite", "gaussian"), ("constrain", "delta")]
)
def test_the_kernel_sum_is_the_same_everywhere(rule, kernel_sum, basis):
    solver = AlardLupton(
        basis=basis, sum_rule=rule, border="cut", size=9, scale_by_fwhm=False, sigmas=(1.0, 2.0), degrees=(2, 1),
        regularization=Regularization() if basis == "delta" else None,
    )  # fmt: skip
    cells = solver.sample(varying_psf(), GaussianPSF(fwhm=5.0), BOX)
    kernel = solver.solve(cells, kernel_sum=kernel_sum).kernel
    np.testing.assert_allclose(kernel.sums(x=[900.0, 1300.0, 1111.0], y=[-40.0, 200.0, 7.0]), kernel_sum, atol=1e-9)


def test_constraining_the_sum_beats_overwriting_it():
    science, target = MoffatPSF(fwhm=3.2, beta=2.5, size=41), GaussianPSF(fwhm=5.0)
    residuals = [
        measure_quality(
            matching_kernel(science, target, solver=AlardLupton(order=0, sum_rule=rule)).kernel,
            science,
            target,
            x=0,
            y=0,
        ).residual[0]
        for rule in ("constrain", "overwrite")
    ]
    assert residuals[0] < 0.8 * residuals[1]


def test_a_singular_setup_is_said():
    solver = AlardLupton(border="cut", size=9, scale_by_fwhm=False, order=0)
    cells = solver.sample(GaussianPSF(fwhm=4.7, size=11), GaussianPSF(fwhm=7.0), BOX)
    assert cells.stamp_shape == (13, 13)  # 25 pixels for 27 functions
    assert solver.solve(cells).outcome is Outcome.SINGULAR
    with pytest.raises(MatchError, match="singular") as caught:
        matching_kernel(GaussianPSF(fwhm=4.7, size=11), GaussianPSF(fwhm=7.0), box=BOX, solver=solver)
    assert caught.value.solution.outcome is Outcome.SINGULAR


def test_pseudo_inverse_solves_what_can_be_solved():
    matrix = np.diag([4.0, 2.0, 0.0])
    solution, singular = solve_symmetric(matrix, np.array([4.0, 1.0, 0.0]))
    assert singular
    np.testing.assert_allclose(solution, [1.0, 0.5, 0.0])
    assert condition_number(np.diag([4.0, 2.0])) == 2.0
    assert condition_number(np.diag([4.0, -2.0]), "svd") == 2.0


def test_bic_leaves_out_what_the_data_do_not_need():
    science = GaussianPSF(fwhm=3.0, size=25)
    sigma = np.sqrt(25.0 - 9.0) / 2.354820045
    options = {"scale_by_fwhm": False, "sigmas": (sigma, 2 * sigma), "degrees": (3, 2), "size": 21, "order": 0}
    chosen = matching_kernel(science, GaussianPSF(fwhm=5.0), solver=AlardLupton(bic=True, **options)).statistics[
        "degrees"
    ]
    assert sum(chosen) < 5
    tilted = GaussianPSF(fwhm=5.0, ellipticity=0.2, angle=30.0)
    assert matching_kernel(science, tilted, solver=AlardLupton(bic=True, **options)).statistics["degrees"][0] >= 2


def test_pca_keeps_the_match_with_a_handful_of_images():
    science, target = varying_psf(), GaussianPSF(fwhm=5.0)
    residual = {}
    for components in (1, 6):
        solver = AlardLupton(pca=PCA(components=components), cell_shape=(60, 70))
        solution = matching_kernel(science, target, box=BOX, solver=solver)
        assert len(solution.kernel.basis) == components
        x, y = check_positions(BOX)
        residual[components] = measure_quality(solution.kernel, science, target, x=x, y=y).worst["residual"]
    assert residual[6] < 0.3 * residual[1]


def test_a_lone_cells_kernel_is_its_own_component():
    options = {"order": 0, **FIXED}
    x, y = np.array([930.0]), np.array([11.0])
    cells = sample_at(varying_psf(), GaussianPSF(fwhm=5.0), BOX, x=x, y=y, size=31)
    own = AlardLupton(**options, sum_rule="fit").solve(cells).kernel.stamps(x=930, y=11)[0]
    alone = AlardLupton(**options, pca=PCA(components=1)).solve(cells)
    np.testing.assert_allclose(alone.kernel.stamps(x=930, y=11)[0], own / own.sum(), atol=1e-12)


def test_the_widths_of_both_psfs_are_told():
    statistics = matching_kernel(GaussianPSF(fwhm=3.1, size=31), GaussianPSF(fwhm=5.2), solver=AlardLupton()).statistics
    for name, width in (("fwhm_science", 3.1), ("fwhm_target", 5.2)):
        assert statistics[name] == pytest.approx(np.hypot(width, 2.354820045 / np.sqrt(12.0)), rel=0.01)


@pytest.mark.parametrize(
    "regularization",
    [
        Regularization(),
        Regularization(stencil=5),
        Regularization(kind="forward", orders=(1, 2, 3), border=1.0),
        Regularization(choice="absolute", strength=1e-6),
        Regularization(choice="biased-risk", steps=(1e-6, 1e-3, 1.0)),
        Regularization(choice="unbiased-risk", steps=(1e-6, 1e-3, 1.0)),
    ],
    ids=lambda r: f"{r.kind}{r.stencil}-{r.choice}",
)
def test_every_regularization_smooths_the_delta_kernel(regularization):
    roughness = []
    for choice in (None, regularization, Regularization(strength=1e3)):
        solver = AlardLupton(basis="delta", size=11, order=0, regularization=choice)
        solution = matching_kernel(MoffatPSF(fwhm=3.2, beta=3.0, size=31), GaussianPSF(fwhm=4.5), solver=solver)
        image = solution.kernel.stamps(x=0, y=0)[0]
        assert image.sum() == pytest.approx(1.0)
        roughness.append(np.abs(np.diff(image, axis=0)).sum())
    assert roughness[0] > roughness[1] > roughness[2]


@pytest.mark.parametrize(("kind", "stencil"), [("central", 5), ("central", 9), ("forward", 9)])
def test_the_penalty_of_a_plane_is_at_the_border_only(kind, stencil):
    size = 7
    y, x = np.mgrid[:size, :size]
    plane = (2.0 * x - 3.0 * y + 5.0).ravel()
    operator = Regularization(kind=kind, stencil=stencil, orders=(2,), border=0.0)._operator(size)
    rough = np.abs(operator @ plane).reshape(size, size)
    assert rough[1:-2, 1:-2].max() < 1e-12


@pytest.mark.parametrize("border", [0.0, 3.0])
def test_the_laplacian_is_that_of_inner_pixels_and_the_border_pays_by_itself(border):
    size = 5
    operator = Regularization(stencil=9, border=border)._operator(size)
    image = np.random.default_rng(4).normal(size=(size, size))
    wanted = border * image
    stencil = np.array([[1.0, 4.0, 1.0], [4.0, -20.0, 4.0], [1.0, 4.0, 1.0]]) / 6.0
    wanted[1:-1, 1:-1] = convolve2d(image, stencil, mode="valid")
    np.testing.assert_allclose((operator @ image.ravel()).reshape(size, size), wanted, atol=1e-13)


def test_the_penalty_does_not_depend_on_how_the_space_is_spanned():
    raw = delta_basis(5)
    other = np.linalg.qr(np.random.default_rng(2).normal(size=(25, 25)))[0]
    penalty = Regularization().penalty(raw)
    turned = Regularization().penalty(np.tensordot(other, raw, axes=1))
    np.testing.assert_allclose(turned, other @ penalty @ other.T, atol=1e-10)


def failing_psf(bad):
    def function(x, y):
        if bad(x):
            raise ValueError("no stars here")
        return MoffatPSF(fwhm=3.0 + 1e-4 * x, beta=3.0).stamps(x=0, y=0, shape=(15, 15))[0]

    return FunctionPSF(function, shape=(15, 15))


def test_a_few_lost_cells_do_no_harm_and_too_many_are_an_error():
    solver = AlardLupton(cell_shape=(100, 100), **FIXED)
    cells = solver.sample(failing_psf(lambda x: 1000 < x < 1100), GaussianPSF(fwhm=5.0), BOX)
    statistics = solver.solve(cells).statistics
    assert (statistics["cells"], statistics["cells_used"], statistics["cells_skipped"]) == (30, 25, 5)
    cells = solver.sample(failing_psf(lambda x: x > 900), GaussianPSF(fwhm=5.0), BOX)
    with pytest.raises(MatchError, match=r"5 of 30 cells are left.*lower the order"):
        solver.solve(cells)


def test_clipping_rejects_the_cell_that_does_not_belong():
    def function(x, y):
        width = 9.0 if 1000 < x < 1100 and 0 < y < 100 else 3.0
        return 50 * MoffatPSF(fwhm=width, beta=3.0).stamps(x=0, y=0, shape=(31, 31))[0]

    science = FunctionPSF(function, shape=(31, 31))
    target = ImagePSF(50 * GaussianPSF(fwhm=5.0).stamps(x=0, y=0, shape=(31, 31))[0])
    for clipping in (
        Clipping(spatial=True, residual_std=0.01, residual_mean=1.0),
        Clipping(single=True, residual_std=0.001, residual_mean=1.0, core_radius=4),
    ):
        solver = AlardLupton(cell_shape=(100, 100), order=1, clipping=clipping)
        cells = solver.sample(science, target, BOX)
        solution = solver.solve(cells)
        lost = ~solution.statistics["used"]
        assert [(x, y) for x, y in zip(cells.x[lost], cells.y[lost], strict=True)] == [(1050.0, 10.0)]


def test_the_residual_of_a_kernel_of_one_pixel():
    """``norm2(T - a S)`` of the best factor a, in units of the noise ``sqrt(1 + a^2)``."""
    science, target = MoffatPSF(fwhm=3.0, beta=3.0, size=31), MoffatPSF(fwhm=3.6, beta=2.5, size=31)
    options = {"size": 1, "sigmas": (1.0,), "degrees": (0,), "scale_by_fwhm": False, "order": 0, "sum_rule": "fit"}
    cells = AlardLupton(**options).sample(science, target, Box.from_shape((60, 40)))
    s, t = cells.science[0], cells.target[0]
    factor = (s * t).sum() / (s * s).sum()
    scatter = (t - factor * s).std() / np.sqrt(1.0 + factor**2)
    for share, rejected in ((1.001, 0), (0.999, len(cells))):
        clipping = Clipping(single=True, residual_mean=1.0, residual_std=share * scatter)
        solver = AlardLupton(clipping=clipping, **options)
        if rejected:
            with pytest.raises(MatchError, match="0 of"):
                solver.solve(cells)
        else:
            solution = solver.solve(cells)
            assert solution.statistics["cells_used"] == len(cells)
            assert solution.kernel.stamps(x=9, y=9).item() == pytest.approx(factor)


@pytest.mark.parametrize("radius", [None, 4, 99])
def test_residuals_are_measured_over_the_core_in_units_of_the_noise(radius):
    """Of the difference of two stamps of unit variance, one of them convolved; a wide core is all there is."""
    science, target = MoffatPSF(fwhm=3.0, beta=3.0, size=31), MoffatPSF(fwhm=4.5, beta=2.5, size=31)
    solver = AlardLupton(order=0, sum_rule="fit")
    cells = solver.sample(science, target, Box.from_shape((60, 40)))
    kernel = solver.solve(cells).kernel.stamps(x=9, y=9)[0]
    left = np.pad(cells.target[0], len(kernel) // 2) - convolve2d(cells.science[0], kernel)
    middle = len(left) // 2
    core = slice(None) if radius != 4 else slice(middle - 4, middle + 5)
    scatter = (left / np.sqrt(1.0 + (kernel**2).sum()))[core, core].std()
    for share in (1.001, 0.999):
        clipping = Clipping(single=True, residual_mean=1.0, residual_std=share * scatter, core_radius=radius)
        clipped = AlardLupton(order=0, sum_rule="fit", clipping=clipping)
        if share > 1:
            assert clipped.solve(cells).statistics["cells_rejected_single"] == 0
        else:
            with pytest.raises(MatchError, match="0 of"):
                clipped.solve(cells)


def test_kernel_sums_that_stand_out_are_rejected():
    def function(x, y):
        flux = 0.6 if 1000 < x < 1100 and 0 < y < 100 else 1.0 + 1e-4 * np.sin(x)
        return flux * MoffatPSF(fwhm=3.0, beta=3.0).stamps(x=0, y=0, shape=(31, 31))[0]

    solver = AlardLupton(cell_shape=(100, 100), order=1, clipping=Clipping(sums=True))
    cells = solver.sample(FunctionPSF(function, shape=(31, 31)), GaussianPSF(fwhm=5.0), BOX)
    statistics = solver.solve(cells).statistics
    assert statistics["cells_rejected_sum"] == 1


@pytest.mark.parametrize("order", [0, 1])
def test_a_background_under_the_target_is_fitted(order):
    science = ImagePSF(MoffatPSF(fwhm=3.0, beta=3.0).stamps(x=0, y=0, shape=(31, 31))[0])
    plain = GaussianPSF(fwhm=5.0).stamps(x=0, y=0, shape=(31, 31))[0]
    target = ImagePSF(plain + 1e-4)
    solver = AlardLupton(border="cut", background_order=order, cell_shape=(100, 100), scale_by_fwhm=False)
    solution = solver.solve(solver.sample(science, target, BOX))
    without = solver.solve(solver.sample(science, ImagePSF(plain), BOX))
    difference = solution.statistics["background"] - without.statistics["background"]
    np.testing.assert_allclose(difference, [1e-4, 0, 0][: n_terms(order)], atol=2e-7)
    assert len(solution.kernel.basis) == len(solution.kernel.weights.coefficients)


def test_condition_limits_are_acted_on():
    solver = AlardLupton(max_condition=10.0, **FIXED)
    cells = solver.sample(varying_psf(), GaussianPSF(fwhm=5.0), BOX)
    with pytest.raises(MatchError, match="0 of"):
        solver.solve(cells)
    assert AlardLupton(max_spatial_condition=10.0, **FIXED).solve(cells).outcome is Outcome.ILL_CONDITIONED


def test_a_kernel_too_big_for_the_stamp_names_three_remedies():
    solver = AlardLupton(border="cut", padding=Padding(to=None), scale_by_fwhm=False)
    with pytest.raises(InputError, match=r"\(21\) too big.* size 21.*<= 19.*doAutoPadPsf.*padPsfBy.*>= 2"):
        solver.sample(GaussianPSF(fwhm=4.0, size=21), GaussianPSF(fwhm=5.0), BOX)
    padded = AlardLupton(border="cut", padding=Padding(to=None, by=4), scale_by_fwhm=False)
    assert padded.sample(GaussianPSF(fwhm=4.0, size=21), GaussianPSF(fwhm=5.0), BOX).stamp_shape == (25, 25)


def test_a_kernel_must_be_smaller_than_stamps_that_are_cut():
    """When its size is chosen from the widths, too."""

    def sized(size):
        return AlardLupton(border="cut", padding=Padding(to=None), order=0, size_min=size, size_max=size)

    cells = sized(23).sample(GaussianPSF(fwhm=3.0, size=25), GaussianPSF(fwhm=5.0), BOX)
    assert cells.stamp_shape == (25, 25)
    assert sized(23).solve(cells).kernel.shape == (23, 23)
    with pytest.raises(InputError, match=r"size .25., chosen from the FWHMs, too big to match PSFs of size 25"):
        sized(25).solve(cells)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 20}, "odd"),
        ({"sigmas": (1.0,)}, "one degree"),
        ({"sigmas": (1.0, -1.0, 2.0)}, "positive"),
        ({"order": -1}, "whole number"),
        ({"cell_shape": (40, 0)}, "cell_shape"),
        ({"basis": "wavelet"}, "choose one of"),
        ({"background_order": 1}, "border='cut'"),
        ({"bic": True, "basis": "delta"}, "bic"),
    ],
)
def test_options_that_cannot_work_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        AlardLupton(**options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Padding(to=None, by=3),
        lambda: Padding(to=0.5),
        lambda: PCA(components=0),
        lambda: Clipping(iterations=0),
        lambda: Regularization(stencil=7),
        lambda: Regularization(orders=(4,)),
        lambda: Regularization(kind="backward"),
        lambda: Regularization(choice="best"),
        lambda: Regularization(strength=-1.0),
    ],
)
def test_parts_refuse_bad_options(make):
    with pytest.raises(InputError):
        make()


def test_the_double_gaussian_of_a_survey_is_reached():
    science, target = MoffatPSF(fwhm=3.0, beta=3.5, size=41), DoubleGaussianPSF.from_fwhm(5.0)
    kernel = matching_kernel(science, target, solver=AlardLupton(order=0)).kernel
    assert measure_quality(kernel, science, target, x=0, y=0).residual[0] < 5e-3


def test_a_kernel_too_big_for_stamps_that_are_cut_is_refused():
    """The size is that which the widths ask for; that which was set would do."""
    science = ImagePSF(GaussianPSF(fwhm=3.0).stamps(x=0, y=0, shape=(21, 21))[0])
    solver = AlardLupton(border="cut", size=21, size_min=35)
    with pytest.raises(
        InputError, match=r"Kernel size \(35\), chosen from the FWHMs, too big to match PSFs of size \d+;"
    ):
        matching_kernel(science, GaussianPSF(fwhm=5.0), solver=solver)
