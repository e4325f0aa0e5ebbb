"""The report, in words, and in a real browser: what is pointed at, moved and read aloud."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

import psfmatch
from browser import TEXTS, chromium, contrast, open_page, screenshot
from psfmatch import AlardLupton, Fourier, GaussianPSF, NoiseCorrelation, Outcome, plots
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, demo_data
from psfmatch.report import coadd_page, match_page, verdict
from psfmatch.report.charts import field_map
from psfmatch.report.meanings import ELSEWHERE, NOTES, number

FRAME = demo_data() / FRAMES["S1"][0]


@pytest.fixture(scope="module")
def before():
    return psfmatch.read_exposure(FRAME)


@pytest.fixture(scope="module")
def matched(before):
    return psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5")


@pytest.fixture(scope="module")
def page(matched, before, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "match.html"
    path.write_text(match_page(matched, name="<S1> & friends", before=before), encoding="utf-8")
    return path


def rows_of_inputs():
    common = {"reason": "", "factor": 1.0, "sky": 12.5, "noise_gain": 0.2, "clipped": 3}
    return [
        {"name": "one", "used": True, "weight": 0.55, "fwhm": 1.1, "residual": 2e-3, **common},
        {"name": "two", "used": True, "weight": 0.25, "fwhm": 1.3, "residual": 6e-2, **common},
        {"name": "three", "used": True, "weight": 0.2, "fwhm": 1.2, "residual": 1e-3, **common},
        {"name": "four", "used": False, "weight": 0.0, "fwhm": np.nan, "residual": np.nan, **common,
         "reason": "it has no <WCS>"},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def coadd(matched, tmp_path_factory):
    exposure = matched.exposure
    count = np.full(exposure.shape, 3, np.uint16)
    count[:20] = 0
    path = tmp_path_factory.mktemp("report") / "coadd.html"
    html = coadd_page(exposure, count, NoiseCorrelation.of_kernel(matched.kernel), rows_of_inputs(), name="all.fits")
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def driver():
    with chromium() as found:
        yield found


class Outline(HTMLParser):
    """The tags of a page, checked to be closed in order."""

    VOID = ("meta", "img", "input", "link", "br", "rect", "path", "circle", "polyline")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["page", "coadd"])
def either(request):
    return request.getfixturevalue(request.param)


def test_page_is_whole_and_needs_nothing_else(either):
    html = either.read_text(encoding="utf-8")
    outline = Outline(html)
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
    assert "url(" not in html
    assert "import(" not in html
    assert "http://" not in html.replace("http-equiv", "")
    (policy,) = (a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert len(html) < 4e6


def test_structure_is_for_everyone(either):
    outline = Outline(either.read_text(encoding="utf-8"))
    assert len(outline.all("h1")) == len(outline.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for image in outline.all("img"):
        assert len(image["alt"]) > 30
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labelled = {a["for"] for a in outline.all("label")}
    for control in [*outline.all("input"), *outline.all("select")]:
        assert control["id"] in labelled
    for canvas in [*outline.all("canvas"), *outline.all("svg")]:
        assert canvas["role"] == "img"
        assert canvas["aria-label"]
    for section in outline.all("section"):
        assert section["aria-labelledby"] in ids
    anchors = {a["href"][1:] for a in outline.all("a")}
    assert anchors <= set(ids)
    assert {a["scope"] for a in outline.all("th")} <= {"row", "col"}


def test_every_star_that_is_counted_is_listed(matched, before):
    html = match_page(matched, before=before)
    (words,) = re.findall(r"The (?:(\d+) stars|one star) checked in the image", html)
    (table,) = re.findall(r"<table><caption>FWHM against the target.*?</table>", html, re.DOTALL)
    rows = re.findall(r'<th scope="row">x = (\d+), y = (\d+) px</th>', table)
    found = psfmatch.check(matched.exposure, correlation=NoiseCorrelation.of_kernel(matched.kernel))
    assert len(rows) == int(words or 1) == len(found)
    order = np.argsort(-found.flux)
    np.testing.assert_allclose(np.array(rows, float), np.transpose([found.x, found.y])[order], atol=0.51)
    assert f"{100 * found.sizes[order[0]]:+.2f} ± " in table


def test_what_comes_from_files_is_text(page, coadd):
    assert "&lt;S1&gt; &amp; friends" in page.read_text(encoding="utf-8")
    assert "<S1>" not in page.read_text(encoding="utf-8")
    assert "it has no &lt;WCS&gt;" in coadd.read_text(encoding="utf-8")


def test_numbers_of_the_page_are_those_of_the_match(page, matched):
    text = page.read_text(encoding="utf-8")
    for name in ("residual", "ee_error", "noise_gain"):
        for kind in (matched.quality.median, matched.quality.worst):
            assert f'<td class="n">{number(kind[name])}</td>' in text
    assert "moffat:fwhm=4.9,beta=3.5" in text
    assert "FreeForm(tolerance=0.001" in text


@pytest.mark.parametrize("solver", [None, AlardLupton(order=1), Fourier()], ids=["free-form", "classical", "fourier"])
def test_every_number_has_a_meaning(solver):
    image = np.random.default_rng(0).normal(size=(140, 180)).astype("f4")
    found = psfmatch.match(psfmatch.Exposure(image, psf=GaussianPSF(fwhm=3.0)), "gaussian:fwhm=4", solver=solver)
    assert set(found.solution.statistics) <= set(NOTES) | ELSEWHERE


def test_verdict_follows_the_match(matched, before):
    assert verdict(matched).level == "fair"  # a frame too small for the kernel
    text = " ".join(f.text + f.cure for f in verdict(matched).findings)
    assert "the frame, 181 px wide" in text
    worst = matched.quality.worst["ee_error"]
    assert f"wrong by at most {1085.736 * worst:.2g} mmag" in text
    perfect = psfmatch.match(before.replace(psf=GaussianPSF(fwhm=3.0)), "gaussian:fwhm=4")
    assert verdict(perfect).level == "good"
    with pytest.warns(psfmatch.PsfMatchWarning, match="sharper than the science PSF"):
        sharp = psfmatch.match(before, "gaussian:fwhm=2.0", throw=False)
    assert sharp.solution.outcome is Outcome.TARGET_TOO_SHARP
    (bad,) = (f for f in verdict(sharp).findings if f.level == "bad" and "sharper" in f.text)
    assert "Take a broader target" in bad.cure
    assert "The smallest target of its family" in bad.cure
    cures = " ".join(f.cure for f in verdict(sharp).findings)
    assert "broader target" in cures
    assert "narrower" not in cures
    doubled = replace(matched, quality=replace(matched.quality, kernel_sum=1.03 * matched.quality.kernel_sum))
    assert any("solver.flux=unit" in f.cure for f in verdict(doubled).findings)
    by_hand = verdict(psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5", solver=psfmatch.FreeForm(size=7)))
    cures = [f.cure for f in by_hand.findings]
    assert any("what was set by hand, so that it is chosen: size=7" in cure for cure in cures)
    assert not any("flux=unit" in cure for cure in cures)
    notes = {**matched.solution.statistics, "used": np.arange(16) < 4}
    rejected = replace(matched, solution=replace(matched.solution, statistics=notes))
    assert verdict(rejected).level == "bad"
    assert any("12 of 16 candidates were rejected" in f.text for f in verdict(rejected).findings)


@pytest.mark.parametrize(
    ("advice", "cure"),
    [
        ("what was set by hand (size=7)", "Leave out what was set by hand, so that it is chosen: size=7."),
        ("the frame, 181 px wide, allows no larger kernel", "Match a larger frame"),
        ("frequencies would be amplified", "Take a broader target: it is sharper than the image"),
        ("max_size keeps it from growing", "Allow a larger kernel: --set solver.max_size=99."),
        ("the limit on noise gain keeps it", "Take a broader target, or allow more noise"),
        ("", "Give larger or cleaner PSF stamps, or an analytic model of the PSF."),
    ],
)
def test_the_cure_follows_what_limited_the_kernel(matched, advice, cure):
    notes = {**matched.solution.statistics, "advice": advice, "by_hand": "size=7"}
    off = replace(matched.quality, residual=0.2 + matched.quality.residual)
    poor = replace(matched, quality=off, solution=replace(matched.solution, statistics=notes))
    (found,) = (f for f in verdict(poor).findings if "in the root-mean-square sense" in f.text)
    assert found.level == "bad"
    assert f"Kernel size”: {cure}" in found.cure


def test_a_verdict_names_what_was_lost(matched):
    """Regions, positions and flux; and of frequencies that are amplified how many."""
    lost = {"regions_lost": 2, "missing_flux_science": 0.034, "amplification": 1.7, "amplified_share": 0.021}
    cells = replace(matched.solution.cells, skipped=((12.0, 40.0, "no PSF here"),))
    solution = replace(matched.solution, cells=cells, statistics={**matched.solution.statistics, **lost})
    found = verdict(replace(matched, solution=solution))
    text = " ".join(f"{f.text} {f.cure}" for f in found.findings)
    assert found.level == "bad"
    n = len(cells) + 1
    for words in (
        "2 regions have no kernel, and no data.", "3.4 % of the flux lies beyond the science PSF's stamp",
        "amplified up to 1.70 times (more than 1.05 times in 2.1 % of them)",
        f"could not be evaluated at 1 of {n} positions (the first at x = 12, y = 40: no PSF here)",
    ):  # fmt: skip
        assert words in text


def test_the_map_has_the_borders_of_its_cells(before):
    """Every border of the cells of 64 x 50 px over the frame, in the map's units, is drawn once."""
    found = psfmatch.match(before, "moffat:fwhm=4.9,beta=3.5", solver=AlardLupton(cell_shape=(64, 50), order=1))
    cells = found.solution.cells
    pairs = [plots.pair(found, k) for k in range(len(cells))]
    svg = field_map(found, pairs, np.arange(len(cells)) != 2)
    assert svg.count("spot rejected") == 1
    unit = 400.0 / max(cells.box.shape)
    across = [float(at) for at in re.findall(r'class="cell" d="M([\d.]+) 0V', svg)]
    down = [float(at) for at in re.findall(r'class="cell" d="M0 ([\d.]+)H', svg)]
    np.testing.assert_allclose(np.diff(across), 50 * unit, atol=0.11)
    np.testing.assert_allclose(np.diff(down), -64 * unit, atol=0.11)
    assert (len(across), len(down)) == (cells.box.shape[1] // 50 + 1, cells.box.shape[0] // 64 + 1)


def test_verdict_of_a_coadd(coadd):
    text = coadd.read_text(encoding="utf-8")
    assert "The coadd can be used; read the notes" in text
    assert "The worst residual of a match is 0.06, of two." in text
    assert "one alone has 55 % of the weight" in text
    assert "3 of 4" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.fits", "b.fits", "--before", "c.fits"], "--before is one image for 2 files: report on them one by one"),
        (["a.fits", "b.fits", "-o", "x.html"], "-o x.html is one file for 2 pages: give a folder"),
        (["a.fits", "other/a.fits"], "two of the files have the same name"),
        (["a.fits", "-o", "x.pdf"], "the name must end in .html"),
        (["a.fits"], "a-report.html exists; give --overwrite"),
        (["a.fits", "-o", "folder/"], "folder/a-report.html exists; give --overwrite"),
    ],
)
def test_where_pages_cannot_go_is_said_first(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a-report.html", "folder/a-report.html"):
        (tmp_path / name).write_text("mine")
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())
    assert {path.read_text() for path in tmp_path.rglob("*.html")} == {"mine"}


def test_verb_writes_the_page(matched, tmp_path):
    file, out = tmp_path / "m.fits", tmp_path / "r.html"
    psfmatch.write_matched(matched, file)
    run = CliRunner()
    result = run.invoke(main, ["report", str(file), "-o", str(out), "--before", str(FRAME)])
    assert result.exit_code == 0, result.output
    assert "PSF match of m.fits" in out.read_text(encoding="utf-8")
    assert run.invoke(main, ["report", str(file), "-o", str(out)]).exit_code == 2
    for arguments, words in (
        ([str(FRAME), "-o", str(tmp_path / "x.html")], "not an exposure matched by psfmatch"),
        ([str(file), "-o", str(tmp_path / "x.pdf")], "must end in .html"),
        ([str(file), str(file), "-o", str(tmp_path / "x.html")], "one file for 2 pages"),
    ):
        result = run.invoke(main, ["report", *arguments])
        assert result.exit_code == 2
        assert words in result.stderr
    assert not list(tmp_path.glob("x.*"))


# ------------------------------------------------------------------------------------------- in the browser


def element(driver, name):
    return driver.find_element("id", name)


def pixels(driver, selector):
    """The pixels of a canvas, once it is shown."""
    from selenium.webdriver.support.ui import WebDriverWait

    shown = "return document.querySelector(arguments[0])?.checkVisibility() && document.readyState === 'complete'"
    WebDriverWait(driver, 20).until(lambda _: driver.execute_script(shown, selector))
    script = """
    const c = document.querySelector(arguments[0]);
    return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]];
    """
    height, width, values = driver.execute_script(script, selector)
    return np.reshape(values, (height, width, 4))[::-1, :, :3]


def test_nothing_is_fetched_and_nothing_fails(driver, either):
    driver.get("about:blank")
    driver.get_log("performance")
    open_page(driver, either)
    assert [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    asked = re.findall(r'"Network.requestWillBeSent".*?"url":"([^"]{0,80})', str(driver.get_log("performance")))
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "chrome:"))] == []
    assert any(url.startswith("file:") for url in asked)


def test_slider_over_kernel_size(driver, page, matched):
    from selenium.webdriver.common.keys import Keys

    open_page(driver, page)
    slider, words = element(driver, "kernel-size"), element(driver, "size-words")
    size = matched.kernel.shape[0]
    assert words.text.startswith(f"{size} px (this match): residual ")
    found = plots.frontier_of(matched, plots.hardest(matched))
    before = pixels(driver, "#size-live canvas[data-part=kernel]")
    assert before.shape[0] == size
    slider.send_keys(Keys.HOME)
    assert words.text.startswith(f"{found.sizes[0]} px: residual ")
    assert slider.get_attribute("aria-valuetext") == words.text
    strength = plots.strength_of(matched, found, plots.hardest(matched))
    assert float(re.search(r"residual ([\d.e-]+)", words.text)[1]) == pytest.approx(
        found.residual[0, strength], rel=0.05
    )
    assert pixels(driver, "#size-live canvas[data-part=kernel]").shape[0] == found.sizes[0]
    slider.send_keys(Keys.ARROW_RIGHT)
    assert words.text.startswith(f"{found.sizes[1]} px")
    element(driver, "size-reset").send_keys(Keys.ENTER)
    assert words.text.startswith(f"{size} px (this match)")
    np.testing.assert_array_equal(pixels(driver, "#size-live canvas[data-part=kernel]"), before)


def test_a_click_and_the_keyboard_choose_a_candidate(driver, page, matched):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    open_page(driver, page)
    summary = element(driver, "candidate-summary")
    hardest = plots.hardest(matched)
    assert summary.text.startswith(f"Candidate {hardest.number} at ")
    spot = driver.find_element("css selector", ".spot[data-index='5']")
    ActionChains(driver).move_to_element(spot).click().perform()
    one = plots.pair(matched, 5)
    assert summary.text.startswith(f"Candidate 5 at x = {one.x:.0f}, y = {one.y:.0f} px")
    assert f"residual {one.residual:.2g}" in summary.text
    assert "chosen" in spot.get_attribute("class")
    select = element(driver, "candidate")
    assert select.get_attribute("value") == "5"
    select.send_keys(Keys.ARROW_DOWN)
    assert summary.text.startswith("Candidate 6 at ")
    assert summary.get_attribute("aria-live") == "polite"


def test_value_under_the_pointer_and_by_arrow_keys(driver, page, matched):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(driver, page)
    one = plots.hardest(matched)
    canvas = driver.find_element("css selector", "#candidate-live canvas[data-part=target]")
    value = element(driver, "candidate-value")
    middle = one.target.shape[0] // 2
    driver.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_RIGHT)
    expected = f"target PSF at x = 0, y = 0 px: {float(f'{one.target[middle, middle]:.4g}')}"
    assert value.text == expected
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    at = float(f"{one.target[middle + 1, middle + 2]:.4g}")
    assert value.text == f"target PSF at x = 2, y = 1 px: {at}"  # up is +y
    rest = driver.find_element("css selector", "#candidate-live canvas[data-part=difference]")
    ActionChains(driver).scroll_to_element(rest).pause(0.3).move_to_element(rest).perform()
    WebDriverWait(driver, 10).until(lambda _: "target at" in value.text)
    x, y, said = re.search(r"target at x = (-?\d+), y = (-?\d+) px: (-?[\d.e-]+) %", value.text).groups()
    assert abs(int(x)) + abs(int(y)) <= 1  # the pointer is in the middle
    expected = 100 * one.difference[middle + int(y), middle + int(x)] / one.target.max()
    assert float(said) == pytest.approx(expected, rel=1e-3)


def test_pictures_show_the_stamps(driver, page, matched):
    """The colours of the canvas have the order of the values."""
    open_page(driver, page)
    shown = pixels(driver, "#candidate-live canvas[data-part=target]").sum(axis=2)
    target = plots.hardest(matched).cut(15).target
    inside = target > 1e-3 * target.max()
    order = np.argsort(target[inside])
    assert (np.diff(shown[inside][order].astype(float)) >= -8).all()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_of_every_text(driver, either, dark):
    open_page(driver, either, dark=dark)
    low = [(text, ink, back) for text, ink, back in driver.execute_script(TEXTS) if contrast(ink, back) < 4.5]
    assert not low


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(driver, either, width):
    open_page(driver, either, width=width)
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    wide, window = driver.execute_script(script)
    assert wide <= window == width


def test_focus_goes_through_the_page_in_order(driver, page):
    from selenium.webdriver.common.keys import Keys

    open_page(driver, page)
    places, names = [], []
    body = driver.find_element("tag name", "body")
    reached = "a[href], select, input, button, canvas, [tabindex='0']:not(canvas)"
    for k in range(len([e for e in driver.find_elements("css selector", reached) if e.is_displayed()])):
        (body if k == 0 else driver.switch_to.active_element).send_keys(Keys.TAB)
        one = driver.switch_to.active_element
        names.append(one.get_attribute("id") or one.text or one.get_attribute("aria-label") or "")
        script = "const b = arguments[0].getBoundingClientRect(); return b.top + scrollY"
        places.append(driver.execute_script(script, one))
        if k == 0:
            assert names[0] == "Skip to the verdict"
            assert one.is_displayed()
    assert {"candidate", "kernel-size", "size-reset"} <= set(names)
    assert all(b > a - 700 for a, b in pairwise(places[1:]))  # never back up the page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_screenshot_has_what_is_expected_where(driver, page, dark):
    """Coarse: the page's colour at the borders, the badge near the top, and figures that are no blank."""
    open_page(driver, page, dark=dark)
    shot = screenshot(driver)
    paper = (20, 22, 26) if dark else (255, 255, 255)
    np.testing.assert_allclose(shot[:, :40].mean(axis=(0, 1)), paper, atol=3)
    box = driver.execute_script(
        "const b = document.querySelector('.badge').getBoundingClientRect();"
        "return [b.left + scrollX, b.top + scrollY, b.width, b.height].map(Math.round)"
    )
    badge = shot[box[1] + 4 : box[1] + box[3] - 4, box[0] + 4 : box[0] + box[2] - 4]
    wanted = (242, 192, 106) if dark else (122, 77, 0)
    assert (np.abs(badge - wanted).max(axis=2) < 12).mean() > 0.5
    assert box[1] < 400
    images = driver.execute_script(
        "return [...document.querySelectorAll('img')].map(i => { const b = i.getBoundingClientRect();"
        "return [b.left + scrollX, b.top + scrollY, b.width, b.height].map(Math.round) })"
    )
    assert len(images) == 12
    for left, top, width, height in images:
        figure = shot[top : top + height, left : left + width]
        assert width > 300
        assert (figure.min(axis=2) > 245).mean() > 0.2  # on paper, in the dark too
        assert figure.std() > 10


def test_print_leaves_out_what_cannot_be_used(driver, page):
    open_page(driver, page, dark=True)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = "return ['nav', '.controls', '.skip'].map(s => getComputedStyle(document.querySelector(s)).display)"
    assert driver.execute_script(hidden) == ["none"] * 3
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert len(pdf) > 50_000


def test_without_scripts_the_rest_is_there(driver, page):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(driver, page)
        assert not element(driver, "candidate-live").is_displayed()
        assert len(driver.find_elements("css selector", "figure.plot img")) == 12
        assert driver.find_element("css selector", ".badge").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_image_of_a_coadd_tells_its_values(driver, coadd, matched):
    from selenium.webdriver.common.keys import Keys

    open_page(driver, coadd)
    canvas = element(driver, "coadd-image")
    driver.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_UP)
    words = element(driver, "image-value").text
    x, y, value = (float(v) for v in re.search(r"x = (\d+), y = (\d+) px: (-?[\d.e-]+)", words).groups())
    exposure = matched.exposure
    sky = np.nanmedian(exposure.image)
    expected = exposure.image[int(y) - exposure.box.y0, int(x) - exposure.box.x0] - sky
    assert value == pytest.approx(float(expected), rel=1e-3, abs=0.01)
