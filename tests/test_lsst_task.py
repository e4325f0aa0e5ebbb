import logging
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS

pytest.importorskip("lsst.pex.config")

from psfmatch import (
    BasisPSF,
    Box,
    Exposure,
    Field,
    FunctionPSF,
    InputError,
    MatchError,
    MoffatPSF,
    Outcome,
    PsfMatchWarning,
    read_exposure,
    write_exposure,
)
from psfmatch.lsst import (
    DoubleGaussianPsf,
    Interpolated,
    KernelCandidate,
    KernelPsf,
    ModelPsfMatchConfig,
    ModelPsfMatchConfigDF,
    ModelPsfMatchTask,
    NoKernelCandidatesError,
    SingleGaussianPsf,
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "modelPsfMatchTask.py"
BOX = Box.from_shape((170, 260), y0=300, x0=-40)


def lopsided(size=41):
    """A PSF that looks different upside down and from behind."""
    stamp = MoffatPSF(fwhm=3.3, beta=3.5, ellipticity=0.15, angle=25.0).stamps(x=0, y=0, shape=(size, size))[0].copy()
    stamp[2:, 1:] += 0.15 * stamp[:-2, :-1]
    return KernelPsf(stamp)


def configuration(config_class=ModelPsfMatchConfig, **changes):
    config = config_class()
    kernel = config.kernel.active
    kernel.sizeCellX, kernel.sizeCellY = 64, 50
    for name, value in changes.items():
        setattr(kernel if hasattr(kernel, name) else config, name, value)
    return config


def exposure_with(psf, image=None, **parts):
    return Exposure(np.zeros(BOX.shape, np.float32) if image is None else image, box=BOX, psf=psf, **parts)


def run(psf, target, image=None, *, kernelSum=1.0, config=None, parts=(), **options):
    task = ModelPsfMatchTask(config=config or configuration(spatialKernelOrder=1), **options)
    return task.run(exposure_with(psf, image, **dict(parts)), target, kernelSum)


@pytest.fixture(scope="module")
def result():
    image = np.zeros(BOX.shape, np.float32)
    image[70, 95] = 1e4
    return run(lopsided(), SingleGaussianPsf(41, 41, 2.6), image)


def test_an_asymmetric_star_becomes_the_target(result):
    star = lopsided().stamps(x=0, y=0)[0]
    image = np.zeros(BOX.shape)
    image[50:91, 75:116] = star
    matched = run(lopsided(), SingleGaussianPsf(41, 41, 2.6), image).psfMatchedExposure
    target = SingleGaussianPsf(41, 41, 2.6).stamps(x=0, y=0)[0]
    assert np.abs(matched.image[50:91, 75:116] - target).max() < 0.02 * target.max()
    assert result.matched.quality.worst["max_residual"] < 0.02


def test_kernel_images_are_those_of_a_correlation(result):
    """Convolving a point gives the kernel upside down and from behind, where convolution is a correlation."""
    found = result.psfMatchedExposure.image[60:81, 85:106] / 1e4
    kernel = result.psfMatchingKernel.image(x=BOX.x0 + 95, y=BOX.y0 + 70)
    assert np.abs(kernel - kernel[::-1, ::-1]).max() > 0.01 * kernel.max()
    np.testing.assert_allclose(found, kernel[::-1, ::-1], atol=2e-3 * kernel.max())


def test_compute_image(result):
    kernel = result.psfMatchingKernel
    image = np.empty((21, 21))
    assert kernel.computeImage(image, False, 10.0, 340.0) == pytest.approx(1.0)
    np.testing.assert_array_equal(image, kernel.image(x=10.0, y=340.0))
    assert np.array(kernel.getSpatialParameters()).shape == (27, 3)
    assert len(kernel.getKernelParameters()) == kernel.getNBasisKernels() == 27
    assert (kernel.getWidth(), kernel.getHeight()) == kernel.getDimensions()
    with pytest.raises(InputError, match="does not fit a kernel"):
        kernel.computeImage(np.empty((3, 3)))


def test_a_kernel_that_does_not_vary():
    kernel = run(
        lopsided(), SingleGaussianPsf(41, 41, 2.6), config=configuration(spatialKernelOrder=0)
    ).psfMatchingKernel
    assert not kernel.isSpatiallyVarying()
    assert kernel.getNSpatialParameters() == 0
    assert kernel.getSpatialParameters() == [[]] * 27
    total = np.tensordot(kernel.getKernelParameters(), kernel.getKernelList(), axes=1)
    np.testing.assert_allclose(total, kernel.image(), atol=1e-12)


def test_what_the_exposure_keeps():
    wcs = WCS(naxis=2)
    meta = {"FILTER": "i", "PHOTCAL": 27.3, "VISIT": 12, "ID": 99}
    parts = {"variance": np.ones(BOX.shape), "unit": "nJy", "wcs": wcs, "meta": meta}
    matched = run(lopsided(), SingleGaussianPsf(25, 25, 2.6), parts=parts).psfMatchedExposure
    assert (matched.box, matched.unit, dict(matched.meta), matched.wcs) == (BOX, "nJy", meta, wcs)
    assert matched.psf.shape == (41, 41)


def test_cells_and_candidates(result):
    cells = result.kernelCellSet
    assert cells.getBBox() == Box(250, -104, 520, 284)
    # a last partial row and column of cells is empty
    labels = [cell.getLabel() for cell in cells.getCellList()]
    assert labels[0] == "Cell 0x0"
    assert labels[-1] == "Cell 6x5"
    assert [cell.getLabel() for cell in cells.getCellList() if cell.empty()][:1] == ["Cell 6x0"]
    assert sum(cell.size() for cell in cells.getCellList()) == len(cells) == 30
    corner = cells.getCellList()[-1].getBBox()
    assert (corner.y1, corner.x1) == (cells.getBBox().y1, cells.getBBox().x1)
    for cell in cells.getCellList():
        for candidate in cell:
            box = cell.getBBox()
            assert box.y0 <= candidate.getYCenter() < box.y1
            assert box.x0 <= candidate.getXCenter() < box.x1
    visited = []
    cells.visitCandidates(lambda candidate: visited.append(candidate.getId()))
    assert visited == list(range(30))
    cells.visitAllCandidates(visited.append)
    assert len(visited) == 60
    cells.visitCandidates(visited.append, nMaxPerCell=0)
    assert len(visited) == 60


def test_a_candidate(result):
    candidate = result.kernelCellSet.getCandidateById(4)
    assert candidate.getStatus() == KernelCandidate.GOOD
    np.testing.assert_allclose(
        candidate.getTemplateMaskedImage(), lopsided().stamps(x=0, y=0)[0, ::-1, ::-1], atol=1e-7
    )
    np.testing.assert_array_equal(candidate.getScienceMaskedImage(), candidate.target[::-1, ::-1])
    assert candidate.getKsum() == pytest.approx(1.0, abs=0.02)
    # the PSF does not vary, so the candidate's own kernel is the kernel but for the first coefficient
    own = candidate.getKernelImage()
    everyone = result.psfMatchingKernel.image(x=candidate.getXCenter(), y=candidate.getYCenter())
    assert np.abs(own - everyone).max() < 0.05 * everyone.max()
    difference = candidate.getDifferenceImage()
    assert difference.shape == (21, 21)
    assert candidate.getChi2() == pytest.approx((difference**2).sum() / 2)


def test_before_the_fit_candidates_are_unknown():
    built = ModelPsfMatchTask(config=configuration())._buildCellSet(
        exposure_with(lopsided()), SingleGaussianPsf(25, 25, 2.6)
    )
    candidate = built.kernelCellSet.getCandidateById(0)
    assert candidate.getStatus() == KernelCandidate.UNKNOWN
    assert np.isnan(candidate.getChi2())
    with pytest.raises(InputError, match="no kernel yet"):
        candidate.getDifferenceImage()
    assert built.referencePsfModel.shape == candidate.target.shape == (41, 41)


def test_rejected_candidates_are_bad(caplog):
    def stamp(x, y):
        return SingleGaussianPsf(41, 41, 3.5 if x > 200 else 1.6).stamps(x=x, y=y)[0]

    config = configuration(kernelSumClipping=True, maxKsumSigma=1.0, spatialKernelOrder=0)
    with caplog.at_level(logging.INFO, logger="psfmatch.lsst"):
        cells = run(FunctionPSF(stamp, (41, 41)), SingleGaussianPsf(41, 41, 2.6), config=config).kernelCellSet
    bad = [candidate for candidate in cells if candidate.isBad()]
    assert bad
    assert len(bad) < len(cells)
    assert f"({len(bad)} by the kernel sum)" in caplog.text
    visited = []
    cells.visitCandidates(visited.append)
    assert len(visited) == len(cells) - len(bad)


def test_no_psf():
    with pytest.raises(RuntimeError, match=r"^exposure does not contain a Psf model$"):
        run(None, SingleGaussianPsf(21, 21, 2.0))
    with pytest.raises(RuntimeError, match=r"^exposure does not contain a Psf model$"):
        ModelPsfMatchTask().buildCellSet(exposure_with(None), SingleGaussianPsf(21, 21, 2.0))


def test_no_candidates():
    with pytest.raises(NoKernelCandidatesError, match="All spatial cells are empty of candidates") as caught:
        run(
            lopsided(),
            SingleGaussianPsf(21, 21, 2.6),
            config=configuration(checkConditionNumber=True, maxConditionNumber=1.0),
        )
    assert isinstance(caught.value, MatchError)


def test_kernel_too_big_for_the_psf():
    config = configuration(doAutoPadPsf=False, padPsfBy=2, kernelSize=25)
    with pytest.raises(ValueError, match="too big to match PSFs of size 23") as caught:
        run(SingleGaussianPsf(21, 21, 2.0), SingleGaussianPsf(21, 21, 2.6), config=config)
    for cure in ("kernel size to <= 21", "doAutoPadPsf=True", "padPsfBy"):
        assert cure in str(caught.value)


def test_image_smaller_than_the_kernel():
    with pytest.raises(InputError, match="smaller than the kernel"):
        ModelPsfMatchTask().run(Exposure(np.zeros((15, 40)), psf=lopsided()), SingleGaussianPsf(21, 21, 2.6))


def test_image_smaller_than_a_cell():
    """The grid of cells is grown, but four cells do not fix six terms."""
    result = ModelPsfMatchTask().run(Exposure(np.ones((60, 90)), psf=lopsided()), SingleGaussianPsf(21, 21, 2.6))
    assert len(result.kernelCellSet) == 4
    assert result.matched.solution.outcome is Outcome.SINGULAR
    np.testing.assert_allclose(result.psfMatchedExposure.image[10:-10, 10:-10], 1.0, atol=1e-5)


def test_a_target_of_another_size():
    with pytest.warns(PsfMatchWarning, match="fixed image of 31 x 31 px"):
        result = run(lopsided(), KernelPsf(SingleGaussianPsf(31, 31, 2.6).stamps(x=0, y=0)[0]))
    assert result.referencePsfModel.shape == (31, 31)
    assert result.kernelCellSet.cells.target.shape[1:] == (41, 41)


def test_oblong_psfs():
    psf = DoubleGaussianPsf(31, 25, 2.0, 4.0, 0.1)
    assert psf.shape == (25, 31)
    result = run(psf, DoubleGaussianPsf(25, 21, 2.6))
    science = result.kernelCellSet.getCandidateById(0).science
    assert science.shape == (31, 31)
    assert science[:3].max() == 0
    assert science[3].max() > 0
    assert result.referencePsfModel.shape == (31, 31)
    with pytest.raises(InputError, match="must be odd"):
        DoubleGaussianPsf(20, 20, 2.0)


def test_kernel_sum(caplog):
    flat = np.ones(BOX.shape)
    inside = (slice(10, -10), slice(10, -10))
    with caplog.at_level(logging.WARNING, logger="psfmatch.lsst"):
        scaled = run(lopsided(), SingleGaussianPsf(41, 41, 2.6), flat, kernelSum=2.5)
    assert "kernelSum=2.5 changes the shape" in caplog.text
    image = scaled.psfMatchingKernel.image(x=BOX.center.x, y=BOX.center.y)
    assert image.sum() == pytest.approx(2.5, abs=1e-10)
    np.testing.assert_allclose(scaled.psfMatchedExposure.image[inside], 1.0, atol=1e-6)
    plain = run(lopsided(), SingleGaussianPsf(41, 41, 2.6), flat, kernelSum=2.5, doNormalize=False)
    np.testing.assert_allclose(plain.psfMatchedExposure.image[inside], 2.5, atol=1e-6)
    for bad in (0.0, float("nan")):
        with pytest.raises(InputError, match="kernelSum"):
            run(lopsided(), SingleGaussianPsf(41, 41, 2.6), kernelSum=bad)


def test_delta_functions_of_varying_sum():
    """Without principal components the kernel sum varies; the image is divided by it, the variance by its square."""
    config = configuration(kernelBasisSet="delta-function", kernelSize=7, maxSpatialConditionNumber=1e30)
    flat = {"variance": np.ones(BOX.shape)}
    results = [
        run(lopsided(), SingleGaussianPsf(41, 41, 2.0), np.ones(BOX.shape), config=config, parts=flat, doNormalize=n)
        for n in (True, False)
    ]
    kernel = results[0].psfMatchingKernel.kernel
    x, y = np.arange(BOX.x0 + 10, BOX.x1 - 10), np.arange(BOX.y0 + 10, BOX.y1 - 10)
    sums = kernel.sums(x=np.tile(x, y.size), y=np.repeat(y, x.size)).reshape(y.size, x.size)
    normalized, plain = (r.psfMatchedExposure.cutout(BOX.grown(-10)) for r in results)
    np.testing.assert_allclose(plain.image, sums, rtol=1e-5)
    np.testing.assert_allclose(normalized.image, 1.0, rtol=1e-5)
    np.testing.assert_allclose(normalized.variance * sums**2, plain.variance, rtol=1e-5)


@pytest.mark.parametrize("pca", [True, False])
@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        ("absolute", "centralDifference"),
        ("relative", "forwardDifference"),
        ("minimizeBiasedRisk", "centralDifference"),
        ("minimizeUnbiasedRisk", "forwardDifference"),
    ],
)
def test_regularized_delta_functions(choice, kind, pca):
    config = configuration(
        ModelPsfMatchConfigDF,
        kernelSize=9,
        spatialKernelOrder=0,
        lambdaType=choice,
        regularizationType=kind,
        usePcaForSpatialKernel=pca,
        lambdaStep=1.0,
    )
    result = run(lopsided(), SingleGaussianPsf(41, 41, 2.0), config=config)
    assert result.metadata == {}
    kernel = result.psfMatchingKernel.image()
    assert kernel.shape == (9, 9)
    assert np.isfinite(kernel).all()
    if pca:
        assert kernel.sum() == pytest.approx(1.0, abs=1e-10)


def test_idle_options_are_named(caplog):
    config = configuration(nStarPerCell=2, iterateSingleKernel=True, useBicForKernelBasis=True, spatialKernelOrder=0)
    config.kernel.active.warpingConfig.interpLength = 20
    with caplog.at_level(logging.INFO, logger="psfmatch.lsst"):
        run(lopsided(), SingleGaussianPsf(41, 41, 2.6), config=config)
    assert "without effect on model PSFs: warpingConfig, nStarPerCell, iterateSingleKernel" in caplog.text
    assert "AlardLupton(bic=True)" in caplog.text


def test_diagnostic(result, capsys):
    task = ModelPsfMatchTask(config=configuration(spatialKernelOrder=1))
    with pytest.raises(InputError, match="run the task first"):
        task.diagnostic()
    solution, kernel = result.matched.solution, result.psfMatchingKernel
    task.diagnostic(result.kernelCellSet, solution, kernel, solution.statistics["background"])
    said = capsys.readouterr().out
    assert "Kernel sum 1, 21 x 21 px." in said
    assert "Condition number of the spatial fit" in said
    assert "Candidates: 30 in all, 30 used, 0 rejected" in said
    assert "30 candidates, 3 terms for each of 27 basis images: well constrained." in said
    assert "No background was fitted." in said
    assert "Warning" not in said


def test_diagnostic_of_a_bad_fit(capsys, caplog):
    config = configuration(kernelSize=9, kernelSizeMin=9, fitForBackground=True)
    config.kernel.active.sizeCellX = config.kernel.active.sizeCellY = 128
    task = ModelPsfMatchTask(config=config)
    with caplog.at_level(logging.WARNING, logger="psfmatch.lsst"):
        task.run(exposure_with(SingleGaussianPsf(11, 11, 2.0)), SingleGaussianPsf(11, 11, 3.7))
    task.diagnostic()
    said = capsys.readouterr().out
    assert f"Warning: {Outcome.SINGULAR.value}" in said
    assert "was written over it" in said
    assert "poorly constrained; lower the order (spatialKernelOrder)" in said
    assert "Each candidate offers 25 pixels for 27 basis images" in said
    assert re.search(r"Background coefficients: -?\d[\d.e-]*, -?\d[\d.e-]*, -?\d[\d.e-]*\.\n", said)
    assert "Spatial model of the background: 12 candidates, 3 terms: well constrained." in said
    assert Outcome.SINGULAR.value in caplog.text


def test_cells_that_cannot_be_evaluated_are_left_out(caplog):
    def stamp(x, y):
        if x > 230:
            raise ValueError("no model here")
        return lopsided().image

    with caplog.at_level(logging.WARNING, logger="psfmatch.lsst"):
        result = run(FunctionPSF(stamp, (41, 41)), SingleGaussianPsf(41, 41, 2.6))
    assert len(result.kernelCellSet) == 25
    assert "5 cells without a PSF" in caplog.text
    assert "no model here" in caplog.text


def test_stamps_are_scaled_to_unit_sum():
    half = BasisPSF(0.5 * lopsided().image[None], Field.constant([1.0], BOX), normalize=False)
    target = SingleGaussianPsf(41, 41, 2.6)
    one, other = (run(psf, target).psfMatchingKernel.image() for psf in (lopsided(), half))
    np.testing.assert_allclose(one, other, atol=1e-4 * one.max())


def test_options_of_the_interpolated_convolution():
    with pytest.raises(InputError, match="distance must be positive"):
        Interpolated(distance=0)
    with pytest.raises(InputError, match="planes"):
        Interpolated(planes=("mask",))


def test_names():
    task = ModelPsfMatchTask(name="match", log=logging.getLogger("mine"))
    assert (task.getName(), task.log.name) == ("match", "mine.match")
    assert ModelPsfMatchTask().log.name == "psfmatch.lsst.modelPsfMatch"
    assert ModelPsfMatchTask.ConfigClass is ModelPsfMatchConfig


def test_result_by_name(result):
    assert set(result.getDict()) == {
        "psfMatchedExposure",
        "psfMatchingKernel",
        "kernelCellSet",
        "metadata",
        "referencePsfModel",
        "matched",
    }


def example(*arguments):
    return runpy.run_path(str(EXAMPLE))["main"]([str(a) for a in arguments])


def test_example_makes_its_own_data(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pictures = tmp_path / "pictures"
    assert example("--output", tmp_path / "matched.fits", "--debug", "--pictures", pictures) == 0
    said = capsys.readouterr().out
    assert "residual" in said
    assert sorted(p.name for p in pictures.iterdir()) == ["matched.png", "science.png", "template.png"]
    assert str(pictures / "matched.png") in said
    matched = read_exposure(tmp_path / "matched.fits")
    assert matched.shape == (384, 384)


def test_example_reads_exposures(tmp_path, capsys):
    box = Box.from_shape((150, 200))
    for name, sigma in (("template", 2.6), ("science", 2.0)):
        psf = KernelPsf(SingleGaussianPsf(31, 31, sigma).stamps(x=0, y=0)[0])
        write_exposure(Exposure(np.ones(box.shape), box=box, psf=psf), tmp_path / f"{name}.fits")
    paths = "--template", tmp_path / "template.fits", "--science", tmp_path / "science.fits"
    assert example(*paths, "--output", tmp_path / "out.fits") == 0
    assert read_exposure(tmp_path / "out.fits").shape == box.shape
    assert example(*paths[:2]) == 2
    assert example(*paths[:3], tmp_path / "nowhere.fits") == 1
    said = capsys.readouterr().err
    assert "both --template and --science" in said
    assert "nowhere.fits" in said
