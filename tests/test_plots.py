"""The figures: what they draw are the numbers, and nothing in them is cut off or hidden."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import psfmatch
from figures import faults, texts
from psfmatch import AlardLupton, Box, FreeForm, Frontier, GaussianPSF, InputError, MoffatPSF, NoiseCorrelation, plots
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, demo_data
from psfmatch.moments import ellipse
from psfmatch.plots import PLOTS, Subject
from psfmatch.plots.kernels import aperture_factors, size_words
from psfmatch.plots.pairs import enclosed
from psfmatch.plots.stars import star_pairs
from psfmatch.plots.style import AFTER, BEFORE, SIGNED, TARGET

FRAME = demo_data() / FRAMES["S1"][0]


@pytest.fixture(scope="module")
def before():
    return psfmatch.read_exposure(FRAME)


@pytest.fixture(scope="module")
def file(before, tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "s1.fits"
    psfmatch.write_matched(psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5"), path)
    return path


@pytest.fixture(scope="module")
def matched(file):
    return psfmatch.read_matched(file)


@pytest.fixture(scope="module")
def classical(before):
    """Twelve of many terms, cells over the frame's border, one cell rejected and one without a PSF."""
    solver = AlardLupton(cell_shape=(64, 50), order=1)
    found = psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5", solver=solver)
    cells, notes = found.solution.cells, dict(found.solution.statistics)
    notes["used"] = np.arange(len(cells)) != 3
    cells = replace(cells, skipped=((12.0, 40.0, "no PSF here"),))
    return replace(found, solution=replace(found.solution, cells=cells, statistics=notes))


@pytest.fixture(scope="module")
def constant():
    """One kernel for all of a wide frame, nearly perfect."""
    rng = np.random.default_rng(3)
    image = rng.normal(0.0, 1.0, (120, 310)).astype("f4")
    return psfmatch.match(psfmatch.Exposure(image, psf=GaussianPSF(fwhm=3.0)), "gaussian:fwhm=4")


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_cut_off_or_hidden(name, matched, before):
    figure = PLOTS[name].draw(Subject(matched, before))
    assert faults(figure) == []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            words = axis.get_label_text()
            if words[:3] in ("x [", "y [") or words.startswith(("radius", "offset", "kernel size")):
                assert "[px]" in words


@pytest.mark.parametrize("name", ["psf-field", "kernel-basis", "cells", "frontier", "transfer"])
def test_the_same_for_a_basis_of_gaussians(name, classical):
    assert faults(PLOTS[name].draw(Subject(classical))) == []


@pytest.mark.parametrize("name", [name for name in PLOTS if name not in ("stars", "transfer", "quality")])
def test_the_same_for_a_kernel_that_does_not_vary(name, constant):
    assert faults(PLOTS[name].draw(Subject(constant))) == []


def test_faults_are_found(matched):
    figure = plots.growth(matched)
    figure.axes[0].text(0.5, 1.02, "over the title", transform=figure.axes[0].transAxes)
    figure.text(0.99, 0.5, "beyond the border")
    assert [words.split(":")[0] for words in faults(figure)] == ["cut", "overlap"]


def test_drawn_in_our_style_whatever_the_callers_is(matched):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.titlesize": 40, "image.origin": "upper"}):
        figure = plots.quality_field(matched)
        assert matplotlib.rcParams["font.size"] == 30
    assert {t.get_fontsize() for ax in figure.axes for t in ax.get_xticklabels()} == {7.0}
    assert faults(figure) == []


def test_what_is_alike_looks_alike_and_what_is_not_does_not(matched, constant):
    """The colours span the values, but no noise is blown up to them."""
    for found, everywhere in ((matched, False), (constant, True)):
        for ax, name in zip(plots.quality_field(found).axes[:2], ("residual", "ee_error"), strict=True):
            values, (dots,) = getattr(found.quality, name), ax.collections
            low, high = dots.get_clim()
            shades = dots.norm(values)
            assert low <= values.min() <= values.max() <= high
            assert ("everywhere" in ax.get_title()) == everywhere
            assert bool(ax.lines) != everywhere  # the worst is boxed
            assert np.ptp(shades) < 0.1 if everywhere else np.ptp(shades) > 0.5
            assert high - low >= 0.19 * np.median(values)


def test_a_kernel_that_does_not_vary_is_cut(constant):
    kernel = constant.solution.kernel.stamps(x=10, y=20)[0]
    figure = plots.kernel_basis(constant)
    image, profile = figure.axes[:2]
    np.testing.assert_array_equal(image.images[0].get_array(), kernel)
    np.testing.assert_array_equal(profile.lines[0].get_ydata(), kernel[kernel.shape[0] // 2])
    np.testing.assert_array_equal(profile.lines[1].get_ydata(), kernel[:, kernel.shape[1] // 2])
    assert any(f"noise gain {(kernel**2).sum():.3g}" in words for words, _ in texts(figure))


def test_notebooks_show_figures():
    """As IPython looks for it, without pyplot, which alone would have told it how."""
    code = (
        "import sys; from IPython.core.formatters import PNGFormatter; from matplotlib.figure import Figure\n"
        "from psfmatch.plots.style import style\n"
        "figure = style(lambda: Figure(figsize=(2, 1)))()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert PNGFormatter()(figure)[:4] == bytes([137]) + b'PNG'"
    )
    pytest.importorskip("IPython")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MPLBACKEND": "agg"})


def test_psf_field_has_the_measured_widths(matched):
    left, right = plots.psf_field(matched).axes[:2]
    cells = matched.solution.cells
    (dots,) = left.collections
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), np.stack([cells.x, cells.y], axis=1))
    np.testing.assert_allclose(
        np.asarray(dots.get_array()), [psfmatch.moments.fwhm(s) for s in cells.science], rtol=1e-6
    )
    (after,) = right.collections
    assert np.median(np.asarray(after.get_array())) == pytest.approx(psfmatch.moments.fwhm(cells.target[0]), rel=0.015)


def test_whiskers_lie_along_the_long_axis():
    psf = MoffatPSF(fwhm=4.0, beta=3.0, ellipticity=0.3, angle=25.0)
    size, angle = ellipse(psf.stamps(x=0, y=0, shape=(61, 61))[0])
    assert size == pytest.approx(0.3, abs=0.03)  # the pixel makes it rounder
    assert angle == pytest.approx(25.0, abs=0.1)
    exposure = psfmatch.Exposure(np.random.default_rng(0).normal(size=(90, 140)).astype("f4"), psf=psf)
    figure = plots.psf_field(psfmatch.match(exposure, MoffatPSF(fwhm=5.5, beta=3.0), throw=False))
    (whisker, *_) = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 2)
    (x0, x1), (y0, y1) = whisker.get_data()
    assert np.rad2deg(np.arctan2(y1 - y0, x1 - x0)) == pytest.approx(angle, abs=1e-6)


def test_candidate_shows_the_residual(matched):
    figure = plots.candidate(matched, number=2, half=12)
    images = [ax.images[0].get_array() for ax in figure.axes[:5]]
    one = plots.pair(matched, 2)
    np.testing.assert_allclose(images[4], 100 * (images[2] - images[3]) / one.target.max(), atol=1e-12)
    cells = matched.solution.cells
    quality = psfmatch.measure_quality(
        matched.kernel, psfmatch.ImagePSF(cells.science[2]), psfmatch.ImagePSF(cells.target[2]), x=one.x, y=one.y
    )
    assert one.residual == pytest.approx(quality.residual[0], rel=1e-3)
    assert f"residual {one.residual:.2g}" in [words for words, _ in texts(figure)]
    with pytest.raises(InputError, match="there is no candidate 99; this match has 16, from 0 to 15"):
        plots.candidate(matched, number=99)


def test_growth_curve_of_a_gaussian():
    """1 - exp(-r^2 / 2 sigma^2); sigma has the pixel's width twice: it is integrated, and flat in an aperture."""
    fwhm, radii = 7.0, np.array([2.0, 4.0, 8.0])
    stamp = GaussianPSF(fwhm=fwhm).stamps(x=0, y=0, shape=(61, 61))[0]
    weights = [psfmatch.noise.aperture_stamps(x=0.0, y=0.0, radius=r)[0] for r in radii]
    variance = (fwhm / psfmatch.moments.SIGMA_TO_FWHM) ** 2 + 1 / 6
    np.testing.assert_allclose(enclosed(stamp, weights), 1 - np.exp(-(radii**2) / (2 * variance)), atol=1.5e-3)


def test_frontier_is_a_frontier(matched):
    one = plots.hardest(matched)
    found = plots.frontier_of(matched, one)
    row = list(found.sizes).index(one.kernel.shape[0])
    assert (np.diff(found.residual, axis=1) < 1e-9).all()  # sharper: truer
    assert (np.diff(found.noise_gain, axis=1) > -1e-9).all()  # and noisier
    best = found.residual**2 + found.strengths * found.noise_gain  # what is minimised
    assert (np.diff(best, axis=0) < 1e-12).all()  # larger: better
    # the kernel of the match cannot beat the frontier of its size, and is near it
    least = np.exp(np.interp(np.log(one.noise_gain), np.log(found.noise_gain[row]), np.log(found.residual[row])))
    assert 0.95 * least < one.residual < 1.1 * least
    figure = plots.frontier(matched)
    (star,) = (line for line in figure.axes[0].lines if line.get_marker() == "*")
    np.testing.assert_allclose(np.ravel(star.get_data()), [one.noise_gain, one.residual])
    with pytest.raises(InputError, match="only odd"):
        Frontier.of(one.science, one.target, sizes=[4])


def test_frontier_of_a_size_set_by_hand_reaches_one_that_would_do(matched):
    assert size_words(matched) == "chosen"
    exposure = psfmatch.Exposure(np.ones((300, 420)), psf=MoffatPSF(fwhm=3.4, beta=3.0))
    with pytest.warns(psfmatch.PsfMatchWarning, match="poor"):
        small = psfmatch.match(exposure, "gaussian:fwhm=4.8", solver=FreeForm(size=5), throw=False)
    chosen = psfmatch.match(exposure, "gaussian:fwhm=4.8")
    found = plots.frontier_of(small, plots.hardest(small))
    assert max(found.sizes) >= 0.9 * chosen.kernel.shape[0] > 15
    assert found.residual[-1].min() < 0.1 * found.residual[0].min()
    words = [t.get_text() for t in plots.frontier(small).legends[0].get_texts()]
    assert words[0] == "5 px (set by hand)"


def test_aperture_factor_of_a_pixel_pair():
    """Two neighbours along x share half of their noise: of n x m pixels in a sum, (n - 1) m pairs do."""
    rho = np.zeros((3, 5))
    rho[1, 1:4] = 0.5, 1.0, 0.5
    weight = psfmatch.noise.aperture_stamps(x=0.0, y=0.0, radius=3.0)[0]
    pairs = 2 * 0.5 * (weight[:, 1:] * weight[:, :-1]).sum()
    expected = np.sqrt(1 + pairs / (weight**2).sum())
    np.testing.assert_allclose(aperture_factors(rho, np.array([3.0])), expected)


def test_transfer_names_the_amplification(matched):
    one = plots.hardest(matched)
    response = np.abs(np.fft.fft2(one.kernel, (256, 256)))
    titles = [words for words, _ in texts(plots.transfer(matched))]
    assert any(f"at most {response.max() / response[0, 0]:.2f} times" in words for words in titles)


def test_colours_differ_in_grey():
    def lightness(colour):
        rgb = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        return 116 * y ** (1 / 3) - 16 if y > 0.0089 else 903.3 * y

    values = sorted(lightness(c) for c in (BEFORE, AFTER, TARGET))
    assert min(np.diff(values)) > 8
    assert lightness(SIGNED[-1]) - lightness(SIGNED[0]) > 25  # of one size, negative is darker


def test_verb_draws_what_is_asked(file, tmp_path):
    run = CliRunner()
    out = tmp_path / "noise.png"
    result = run.invoke(main, ["plot", "noise", str(file), "-o", str(out), "--dpi", "50", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["written"] == [str(out)]
    assert out.read_bytes().startswith(b"\x89PNG")
    again = run.invoke(main, ["plot", "noise", str(file), "-o", str(out)])
    assert again.exit_code == 2
    assert "give --overwrite" in again.stderr
    assert run.invoke(main, ["plot", "cells", str(file), "-o", str(tmp_path / "c.svg")]).exit_code == 0
    assert "<svg" in (tmp_path / "c.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["psf-feld", "FILE"], "did you mean psf-field?"),
        (["stars", "FILE", "-o", "x.png"], "--before"),
        (["noise", "FILE", "-o", "x.fits"], "must end in .png, .pdf, .svg"),
        (["noise", str(FRAME), "-o", "x.png"], "not an exposure matched by psfmatch"),
        (["candidate", "FILE", "--candidate", "77", "-o", "x.png"], "from 0 to 15"),
    ],
)
def test_verb_says_what_is_wrong(arguments, words, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plot", *[str(file) if a == "FILE" else a for a in arguments]])
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_all_leaves_out_what_needs_the_image(file, tmp_path, monkeypatch):
    """Into a folder that is made, by names; stars only with the image that was matched."""
    monkeypatch.setattr(plots, "PLOTS", {name: PLOTS[name] for name in ("cells", "stars")})
    words = ["plot", "all", str(file), "-o", f"{tmp_path}/new/", "--dpi", "40"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["s1-cells.png"]
    assert "no stars without the image that was matched (--before)" in done.stderr
    done = CliRunner().invoke(main, [*words, "--overwrite", "--before", str(FRAME)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["s1-cells.png", "s1-stars.png"]


def test_where_several_figures_go(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / file.name
    twin.write_bytes(file.read_bytes())
    for words, says in (
        (["cells", str(file), str(twin), "-o", "x.png"], "-o x.png is one file for 2 figures: give a folder"),
        (["cells", str(file), str(twin)], "two of the files have the same name: draw them one by one"),
    ):
        done = CliRunner().invoke(main, ["plot", *words])
        assert done.exit_code == 2
        assert says in done.stderr
    done = CliRunner().invoke(main, ["plot", "cells", str(file), "--dpi", "40"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "s1-cells.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(main, ["plot", "cells", str(file), "-o", "y.png"])
    assert done.exit_code == 2
    assert 'figures need matplotlib: pip install "psfmatch[plots]"' in " ".join(done.stderr.split())


@pytest.mark.parametrize("verb", [["check", "FILE"], ["inspect", "moffat:fwhm=5,beta=3.5"]])
def test_a_picture_that_could_not_be_written_is_refused_first(verb, file, tmp_path):
    (tmp_path / "there.png").write_bytes(b"mine")
    words = [str(file) if word == "FILE" else word for word in verb]
    for name, says in (("a.fits", "the name must end in .png, .pdf, .svg"), ("there.png", "give --overwrite")):
        done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / name)])
        assert done.exit_code == 2
        assert says in " ".join(done.stderr.split())
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_every_plot_is_listed():
    lines = CliRunner().invoke(main, ["plot", "--list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PLOTS)


def test_noise_of_a_kernel_is_drawn_at_its_values(matched):
    correlation = NoiseCorrelation.of_kernel(matched.kernel)
    center = correlation.box.center
    rho = correlation.stamps(x=center.x, y=center.y)[0]
    (line, *_) = plots.noise(correlation).axes[1].lines
    np.testing.assert_allclose(line.get_ydata()[len(line.get_ydata()) // 2], 1.0)
    middle = rho.shape[0] // 2, rho.shape[1] // 2
    np.testing.assert_allclose(line.get_ydata()[len(line.get_ydata()) // 2 + 2], rho[middle[0], middle[1] + 2])


def test_candidates_fill_the_grid_from_below(classical):
    """Without the rejected one there is one place too many, at the end of the uppermost row."""
    figure = plots.candidates(classical, "stamps", bad=False)
    used = len(classical.solution.cells) - 1
    shown = [ax for ax in figure.axes if ax.get_visible() and ax.get_title()]
    hidden = [ax for ax in figure.axes if not ax.get_visible()]
    assert len(shown) == used
    assert "rejected" not in "".join(ax.get_title() for ax in shown)
    columns = max(3, int(np.ceil(np.sqrt(used))))
    assert len(hidden) == -used % columns > 0
    places = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in hidden]
    assert places == [(0, k) for k in range(columns - len(hidden), columns)]


def test_stars_that_cannot_be_shown_are_missed(matched, before):
    """Another frame, one of nothing but noise, and a match that has lost its PSF."""
    other = before.cutout(Box.from_shape((100, 120), y0=before.box.y0, x0=before.box.x0))
    with pytest.raises(InputError, match=r"the image before covers .* give the one it came from"):
        star_pairs(other, matched)
    noise = np.random.default_rng(3).normal(0.0, 1.0, before.shape).astype("f4")
    with pytest.raises(InputError, match="no isolated, unsaturated star stands out of the matched image"):
        star_pairs(before.replace(image=noise), matched)
    with pytest.raises(InputError, match="the matched exposure has no PSF; give it the target"):
        star_pairs(before, replace(matched, exposure=matched.exposure.replace(psf=None)))
