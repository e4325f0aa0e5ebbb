from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.signal import convolve2d, fftconvolve

from psfmatch import (
    AlardLupton,
    BasisPSF,
    Box,
    DoubleGaussianPSF,
    Field,
    Fourier,
    FreeForm,
    FunctionPSF,
    GaussianPSF,
    ImagePSF,
    InputError,
    MatchError,
    MoffatPSF,
    Outcome,
    PsfMatchWarning,
    matching_kernel,
    measure_quality,
)
from psfmatch.quality import check_positions
from psfmatch.solve.free_form import _Work
from psfmatch.solve.toeplitz import changes, pixel_equations

POOR = pytest.mark.filterwarnings("ignore:The match is poor")
WHOLE = 161
BOX = Box.from_shape((1800, 2600), y0=-300, x0=5000)


def stamp(psf, size=WHOLE):
    return psf.stamps(x=0, y=0, shape=(size, size))[0]


def true_residual(kernel, science, target):
    """Of whole PSFs, by an independent convolution."""
    k = kernel.stamps(x=0, y=0)[0]
    s, t = (p if isinstance(p, np.ndarray) else stamp(p) for p in (science, target))
    return np.linalg.norm(fftconvolve(np.pad(s, 40), k, mode="same") - np.pad(t, 40)) / np.linalg.norm(t)


def oracle(science, target, size, noise_gain):
    """The least residual of any kernel of this size with this noise gain + 2 %: ridge regression on whole PSFs."""
    s, t = stamp(science, 101), stamp(target, 101)
    half = size // 2
    y, x = (g.ravel() for g in np.mgrid[-half : half + 1, -half : half + 1])
    auto, cross = fftconvolve(s, s[::-1, ::-1]), fftconvolve(t, s[::-1, ::-1])
    matrix = auto[100 + y[:, None] - y, 100 + x[:, None] - x]
    vector = cross[100 + y, 100 + x]
    values, vectors = np.linalg.eigh(matrix)
    best = np.inf
    for strength in 10.0 ** np.arange(-9, -0.9, 0.5):
        k = vectors @ ((vectors.T @ vector) / (np.maximum(values, 0) + strength * (t**2).sum()))
        if (k**2).sum() <= 1.02 * noise_gain:
            d = fftconvolve(np.pad(s, 30), k.reshape(size, size), mode="same") - np.pad(t, 30)
            best = min(best, np.linalg.norm(d) / np.linalg.norm(t))
    return best


PAIRS = {
    "wings": (MoffatPSF(fwhm=3.5, beta=3.0), MoffatPSF(fwhm=4.2, beta=4.765)),
    "elliptical": (MoffatPSF(fwhm=3.2, beta=2.5, ellipticity=0.15, angle=30.0), GaussianPSF(fwhm=5.0)),
    "undersampled": (MoffatPSF(fwhm=1.8, beta=3.0), DoubleGaussianPSF.from_fwhm(2.6)),
    "sharpening": (GaussianPSF(fwhm=4.0), GaussianPSF(fwhm=3.7)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_cut_stamps_are_matched_as_well_as_whole_psfs_could_be(name):
    science, target = PAIRS[name]
    solution = matching_kernel(stamp(science, 41), stamp(target, 41))
    gain = (solution.kernel.basis**2).sum()
    residual = true_residual(solution.kernel, science, target)
    assert solution.outcome in (Outcome.OK, Outcome.DECONVOLVED)
    assert residual <= 1.1 * oracle(science, target, solution.kernel.shape[0], gain)
    assert residual < 1e-3
    assert gain < 2.0


def test_an_easy_pair_is_matched_far_below_the_tolerance():
    science, target = GaussianPSF(fwhm=4.7), GaussianPSF(fwhm=7.1)
    assert true_residual(matching_kernel(stamp(science, 41), stamp(target, 41)).kernel, science, target) < 1e-5


@pytest.mark.parametrize("size", [41, 65])
def test_stamps_cut_and_normalised_cost_nothing(size):
    """Every peer ends at 2e-3 on this pair: its kernel sum is tied to two cut stamps."""
    science, target = PAIRS["elliptical"]
    s, t = stamp(science, size), stamp(target, size)
    normalised = matching_kernel(s / s.sum(), t / t.sum())
    assert true_residual(normalised.kernel, science, target) < 1e-3
    assert normalised.statistics["missing_flux_science"] == pytest.approx(1.0 / s.sum() - 1.0, rel=0.1)
    cut = matching_kernel(s / s.sum(), t / t.sum(), solver=FreeForm(wings="none"))
    assert size > 41 or true_residual(cut.kernel, science, target) > 1e-3


def test_noise_in_the_stamp_is_not_fitted():
    science, target = PAIRS["elliptical"]
    clean = stamp(science, 41)
    residuals = {"default": [], "believed": []}
    for seed in range(5):
        noisy = clean + np.random.default_rng(seed).normal(0.0, clean.max() / 300.0, clean.shape)
        for name, solver in (("default", None), ("believed", FreeForm(noise=0.0))):
            kernel = matching_kernel(noisy, stamp(target, 41), solver=solver).kernel
            residuals[name].append(true_residual(kernel, science, target))
    assert np.median(residuals["default"]) < 5.5e-3
    assert np.median(residuals["believed"]) > 1e-2


@pytest.mark.parametrize("wings", ["auto", "extrapolate", "none"])
def test_the_flux_beyond_every_stamp_is_reported(wings):
    """Noisy or not, continued or not; NaN where the noise hides it."""
    science, target = stamp(MoffatPSF(fwhm=4.0, beta=2.5), 39), stamp(MoffatPSF(fwhm=5.0, beta=3.0), 43)
    noise = np.random.default_rng(8).normal(0.0, 1.0, science.shape)
    solver = FreeForm(wings=wings)
    for level in (0.0, science.max() / 1000.0):
        found = matching_kernel(science + level * noise, target, solver=solver, throw=False).statistics
        for name, image in (("science", science), ("target", target)):
            truth, error = 1.0 / image.sum() - 1.0, found[f"missing_flux_error_{name}"]
            assert abs(found[f"missing_flux_{name}"] - truth) < 3.0 * error < 1.5 * truth
    lost = solver.solution(ImagePSF(science + 0.01 * science.max() * noise), ImagePSF(target), Box(0, 0, 1, 1))
    assert np.isnan([lost.statistics["missing_flux_science"], lost.statistics["missing_flux_error_science"]]).all()


def test_the_flux_beyond_stamps_that_vary_is_that_of_the_worst():
    stamps = [stamp(MoffatPSF(fwhm=fwhm, beta=2.5), 39) for fwhm in (3.0, 5.0, 4.0)]
    psf = FunctionPSF(lambda x, y: stamps[int(x)], shape=(39, 39))
    work = _Work(FreeForm(), psf, psf, BOX)
    work._prepared("science", psf, np.stack(stamps))
    found, error = work.missing["science"]
    assert abs(found - (1.0 / stamps[1].sum() - 1.0)) < 3.0 * error
    assert found > 1.2 / stamps[2].sum() - 1.2


def least_residual(science, target, noise_gain, size=121):
    """Of any kernel, however large, with this noise gain: ``S* T / (|S|^2 + l)`` with the l that gives it is best."""
    s, t = (np.fft.fft2(np.fft.ifftshift(stamp(p, size))) for p in (science, target))

    def kernel(log_ridge):
        return s.conj() * t / (np.abs(s) ** 2 + np.exp(log_ridge))

    found = brentq(lambda r: (np.abs(kernel(r)) ** 2).mean() - noise_gain, np.log(1e-20), np.log(1e2))
    return np.linalg.norm(kernel(found) * s - t) / np.linalg.norm(t)


@pytest.mark.parametrize(
    ("target", "gain"),
    [(GaussianPSF(fwhm=2.5), 2.0), (MoffatPSF(fwhm=2.0, beta=4.0), 2.0), (GaussianPSF(fwhm=2.5), 0.05)],
    ids=["gauss", "moffat", "little noise"],
)
def test_a_target_too_sharp_names_the_smallest_that_is_reached(target, gain):
    """Ten times the tolerance is reached with the noise gain that is allowed; 3 % narrower, no kernel does it."""
    science, solver = GaussianPSF(fwhm=4.0), FreeForm(max_noise_gain=gain)
    with pytest.raises(MatchError, match="smallest target of its family") as caught:
        matching_kernel(ImagePSF(stamp(science, 41)), target, solver=solver)
    assert caught.value.solution.outcome is Outcome.TARGET_TOO_SHARP
    named = target.scaled(float(str(caught.value).split("fwhm=")[1].split(",")[0]) / target.fwhm)
    reached = matching_kernel(ImagePSF(stamp(science, 41)), named, solver=solver)
    assert (reached.kernel.basis**2).sum() <= solver.max_noise_gain
    assert true_residual(reached.kernel, science, named) <= 10.0 * solver.tolerance
    assert least_residual(science, named.scaled(0.97), solver.max_noise_gain) > 10.0 * solver.tolerance


def test_a_limit_on_noise_gain_is_kept():
    science, target = (stamp(p, 41) for p in PAIRS["sharpening"])
    for limit in (0.6, 1.2, 3.0):
        solver = FreeForm(max_noise_gain=limit)
        solution = solver.solution(ImagePSF(science), ImagePSF(target), Box(0, 0, 1, 1))
        assert (solution.kernel.basis**2).sum() <= limit


def test_the_tolerance_buys_smaller_kernels():
    science, target = (stamp(p, 65) for p in PAIRS["wings"])
    loose, tight = (matching_kernel(science, target, solver=FreeForm(tolerance=t)) for t in (1e-2, 3e-4))
    assert loose.kernel.shape[0] < tight.kernel.shape[0]
    assert tight.statistics["predicted_residual"] <= 3e-4


@pytest.mark.parametrize(
    ("flux", "expected"),
    [("unit", 1.0), pytest.param(1.25, 1.25, marks=POOR), ("stamp", 0.98 / 0.95)],
)
def test_the_kernel_sum_can_be_imposed(flux, expected):
    science, target = 0.95 * stamp(GaussianPSF(fwhm=3.0), 41), 0.98 * stamp(GaussianPSF(fwhm=5.0), 41)
    solution = matching_kernel(science, target, solver=FreeForm(flux=flux, wings="none"), throw=False)
    assert solution.kernel.basis.sum() == pytest.approx(expected)


def drifting(x, y, size=47):
    """FWHM 3.0 to 4.2 px over the box, the ellipse turning."""
    tx, ty = 2 * (x - BOX.x0) / 2600 - 1, 2 * (y - BOX.y0) / 1800 - 1
    psf = MoffatPSF(
        fwhm=3.6 + 0.35 * tx + 0.2 * ty - 0.1 * tx * ty, beta=3.0, ellipticity=0.08 + 0.04 * ty * ty, angle=60 * tx
    )
    return stamp(psf, size)


def test_the_kernel_follows_a_varying_psf_between_the_cells():
    science, target = FunctionPSF(drifting, shape=(47, 47)), MoffatPSF(fwhm=5.0, beta=3.5)
    solution = matching_kernel(science, target, box=BOX)
    rng = np.random.default_rng(7)
    x, y = rng.uniform(BOX.x0, BOX.x1 - 1, 60), rng.uniform(BOX.y0, BOX.y1 - 1, 60)
    assert measure_quality(solution.kernel, science, target, x=x, y=y).worst["residual"] <= 1e-3
    assert solution.statistics["weights"] == "chebyshev1"
    assert 1 <= solution.statistics["order"] <= 6


def test_a_psf_that_drifts_linearly_needs_order_one():
    mean, change = stamp(GaussianPSF(fwhm=3.5), 31), stamp(GaussianPSF(fwhm=3.55), 31)
    science = BasisPSF(np.array([mean, change - mean]), Field([[1.0, 0, 0], [0, 0.5, -0.3]], BOX))
    assert matching_kernel(science, GaussianPSF(fwhm=5.0), box=BOX).statistics["order"] == 1


@pytest.mark.slow
def test_a_psf_that_varies_fast_gets_splines():
    def function(x, y):
        return stamp(GaussianPSF(fwhm=3.3 + 0.4 * np.sin(x / 200) * np.cos(y / 250)), 31)

    science, target = FunctionPSF(function, shape=(31, 31)), GaussianPSF(fwhm=5.0)
    solution = matching_kernel(science, target, box=BOX)
    assert solution.statistics["weights"] == "spline"
    with pytest.warns(PsfMatchWarning, match=r"poor.*set by hand \(order=6;"):
        polynomial = matching_kernel(science, target, box=BOX, solver=FreeForm(order=6), throw=False)
    where = dict(zip("xy", check_positions(BOX), strict=True))
    worst = [measure_quality(s.kernel, science, target, **where).worst["residual"] for s in (solution, polynomial)]
    assert worst[0] < 0.3 * worst[1]


def test_size_strength_and_order_can_be_given():
    solution = matching_kernel(
        FunctionPSF(drifting, shape=(47, 47)),
        GaussianPSF(fwhm=5.0),
        box=BOX,
        solver=FreeForm(size=21, strength=1e-3, order=2),
    )
    assert solution.kernel.shape == (21, 21)
    assert (solution.statistics["strength"], solution.statistics["order"]) == (1e-3, 2)


def test_only_clean_stamps_are_handed_to_the_division_in_fourier_space():
    """Where they call for a kernel larger than allowed; noise of 1e-3 of the peak would be divided by."""
    clean, target = stamp(PAIRS["elliptical"][0], 41), stamp(PAIRS["elliptical"][1], 41)
    noisy = clean + np.random.default_rng(3).normal(0.0, 1e-3 * clean.max(), clean.shape)
    solver = FreeForm(max_size=15)
    said = [matching_kernel(s, target, solver=solver, throw=False).statistics["solver"] for s in (clean, noisy)]
    assert said == ["fourier", "free-form"]


@pytest.mark.filterwarnings("ignore::psfmatch.PsfMatchWarning")
@pytest.mark.parametrize(("noise", "chosen"), [(2e-4, "fourier"), (5e-4, "free-form")])
def test_the_way_to_solve_is_the_one_that_is_truer_to_the_psfs_beneath_the_noise(noise, chosen):
    psfs = PAIRS["wings"]
    clean, target = (psf.stamps(x=0, y=0, shape=(41, 45))[0] for psf in psfs)
    noisy = clean + np.random.default_rng(3).normal(0.0, noise * clean.max(), clean.shape)
    solutions = [
        matching_kernel(noisy, target, solver=solver, throw=False)
        for solver in (FreeForm(max_size=15), FreeForm(max_size=15, size=15), Fourier())
    ]
    assert solutions[0].statistics["solver"] == chosen
    own, *both = (true_residual(solution.kernel, *psfs) for solution in solutions)
    assert own <= 1.02 * min(both)


def test_the_hardest_pair_is_looked_for_in_the_centre_and_the_corners():
    """Of the positions that could be evaluated, those that are nearest."""
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(5000, 7599, 5), np.linspace(-300, 1499, 5)))
    order = np.random.default_rng(2).permutation(np.setdiff1d(np.arange(25), [4]))  # that corner has no PSF
    work = _Work(FreeForm(), *PAIRS["wings"], BOX)
    work._check = SimpleNamespace(x=x[order], y=y[order])
    found = sorted(order[work._center_and_corners()].tolist())
    assert found in ([0, 3, 12, 20, 24], [0, 9, 12, 20, 24])


def test_a_kernel_spares_the_border_of_a_small_frame():
    science, target = ImagePSF(stamp(PAIRS["elliptical"][0], 65)), GaussianPSF(fwhm=5.0)
    sizes = [
        matching_kernel(science, target, box=Box.from_shape(s)).kernel.shape[0]
        for s in ((150, 900), (260, 250), (2000, 999))
    ]
    assert sizes[0] == 21
    assert sizes[0] < sizes[1] <= 31 < sizes[2]


@pytest.mark.parametrize(("size", "even"), [(1, False), (3, False), (5, False), (5, True)])
def test_pixel_equations_are_the_least_squares_kernel(size, even):
    rng = np.random.default_rng(3)
    s, t = rng.normal(size=(7, 7)), rng.normal(size=(7, 7))
    if even:
        s, t = s + s[::-1, ::-1], t + t[::-1, ::-1]
    ridge = 0.1
    equations = pixel_equations(s[None], t[None], 9)[0].cropped(size)
    designs = np.array([convolve2d(s, e.reshape(size, size)).ravel() for e in np.eye(size * size)])
    wanted = np.pad(t, size // 2).ravel()
    matrix = designs @ designs.T + ridge * (t**2).sum() * np.eye(size * size)
    expected = np.linalg.solve(matrix, designs @ wanted)
    kernel = equations.solve(ridge)
    np.testing.assert_allclose(kernel.ravel(), expected, rtol=1e-9)
    left = np.linalg.norm(expected @ designs - wanted) / np.linalg.norm(t)
    assert equations.residual(kernel) == pytest.approx(left)
    assert changes([equations], kernel[None])[0] == pytest.approx(
        np.linalg.norm(expected @ designs) / np.linalg.norm(t)
    )
    assert equations.solve(ridge, kernel_sum=1.7).sum() == pytest.approx(1.7)


def dense_frontier(science, target, size, gain):
    """The least residual of kernels of this size with this noise gain: explicit convolutions, and the right ridge."""
    t = np.pad(target, size // 2).ravel()
    designs = np.array([convolve2d(science, e.reshape(size, size)).ravel() for e in np.eye(size * size)])
    values, vectors = np.linalg.eigh(designs @ designs.T)
    values, right = np.maximum(values, 0.0), vectors.T @ (designs @ t)

    def kernel(log_ridge):
        return vectors @ (right / (values + np.exp(log_ridge)))

    ridge = brentq(lambda r: (kernel(r) ** 2).sum() - gain, -30.0, 5.0)
    return np.linalg.norm(kernel(ridge) @ designs - t) / np.linalg.norm(t)


BARE = {"wings": "none", "noise": 0.0}


@pytest.mark.parametrize("strength", [pytest.param(3e-2, marks=POOR), 1e-3, 1e-5])
def test_the_frontier_ratio_is_that_of_dense_least_squares(strength):
    science, target = (stamp(PAIRS["sharpening"][k], 23) for k in (0, 1))
    solution = matching_kernel(science, target, solver=FreeForm(size=13, strength=strength, **BARE), throw=False)
    statistics = solution.statistics
    least = dense_frontier(science, target, 13, 1.02 * statistics["noise_gain"])
    assert statistics["frontier_ratio"] == pytest.approx(statistics["predicted_residual"] / least, rel=0.01)


def test_the_frontier_ratio_shows_what_is_lost_between_the_cells():
    science, target = FunctionPSF(lambda x, y: drifting(x, y, 23), shape=(23, 23)), stamp(GaussianPSF(fwhm=5.0), 23)
    solver = FreeForm(size=11, strength=1e-5, order=3, **BARE)
    solution = matching_kernel(science, target, box=BOX, solver=solver, throw=False)
    ratios = []
    for x, y in ((x, y) for y in np.linspace(-300, 1499, 5) for x in np.linspace(5000, 7599, 5)):
        s, kernel = drifting(x, y, 23), solution.kernel.stamps(x=x, y=y)[0]
        residual = np.linalg.norm(convolve2d(s, kernel) - np.pad(target, 5)) / np.linalg.norm(target)
        ratios.append((residual, residual / dense_frontier(s, target, 11, 1.02 * (kernel**2).sum())))
    assert solution.statistics["frontier_ratio"] == pytest.approx(max(ratios)[1], rel=0.01)
    assert max(ratios)[1] > 1.1


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 0.0}, {"max_noise_gain": -1.0}, {"size": 20}, {"max_size": 0}, {"strength": -1.0}, {"order": -1},
        {"flux": "all"}, {"wings": "cut"}, {"noise": -1.0},
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        FreeForm(**options)


def rubin(**options):
    """The solver with the set-up of Rubin's task."""
    return AlardLupton(border="cut", sum_rule="overwrite", scale_by_fwhm=False, **options)


def test_stars_are_never_boxy():
    """A kernel too small for the job: its square shows in the wings of the matched star."""
    science, target = MoffatPSF(fwhm=2.5, beta=3.0, size=61), DoubleGaussianPSF(sigma1=3.27, sigma2=8.17, b=0.1)
    residual = {}
    for name, solver in (("boxy", rubin(order=0, size=11)), ("default", None)):
        kernel = matching_kernel(science, target, solver=solver).kernel
        residual[name] = measure_quality(kernel, science, target, x=0, y=0).max_residual[0]
    assert residual["boxy"] > 0.05
    assert residual["default"] < 1e-3


def test_no_dipoles_between_cells():
    """Too few cells and too low an order for the PSF's variation: odd residuals between the cells."""
    science, target = FunctionPSF(drifting, shape=(47, 47)), MoffatPSF(fwhm=5.0, beta=3.5)
    where = dict(zip("xy", check_positions(BOX), strict=True))
    residual = {}
    for name, solver in (("few", rubin(order=1, cell_shape=(900, 1300))), ("default", None)):
        kernel = matching_kernel(science, target, box=BOX, solver=solver).kernel
        residual[name] = measure_quality(kernel, science, target, **where).worst["residual"]
    assert residual["few"] > 1e-2
    assert residual["default"] < 1e-3


def test_no_ripples_from_a_target_too_sharp():
    """A target sharper than the PSF: ripples like a brain, in silence."""
    science, target = GaussianPSF(fwhm=5.89, size=41), GaussianPSF(fwhm=3.53)
    rippled = matching_kernel(science, target, solver=rubin(order=0)).kernel
    assert (rippled.stamps(x=0, y=0)[0] ** 2).sum() > 50
    with pytest.raises(MatchError, match="sharper"):
        matching_kernel(science, target)


def test_no_checkered_noise():
    """A basis too narrow: high frequencies that nothing constrains."""
    science, target = GaussianPSF(fwhm=4.71, size=31), GaussianPSF(fwhm=7.06)
    gain = {}
    for name, solver in (("narrow", rubin(order=0)), ("default", None)):
        image = matching_kernel(science, target, solver=solver).kernel.stamps(x=0, y=0)[0]
        gain[name] = (image**2).sum()
    sigma2 = (7.06**2 - 4.71**2) / 8 / np.log(2)
    least = 1 / (4 * np.pi * sigma2)  # of the Gaussian between the two
    assert gain["narrow"] > 1.3 * least
    assert gain["default"] < 1.03 * least
