"""The debug display: a debug.py that was written for Rubin's task runs, and its frames are shown."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import psfmatch
from figures import faults
from psfmatch import AlardLupton, InputError, plots
from psfmatch.cli import main
from psfmatch.cli.demo import FRAMES, demo_data
from psfmatch.display import DS9, DebugSettings, Files, Screen, Window, load_debug, screen_for, show
from psfmatch.display import screens as screens_module
from psfmatch.display.frames import frames

FRAME = demo_data() / FRAMES["S1"][0]
# as in the documentation of Rubin's ModelPsfMatchTask
DEBUG = """
import lsstDebug
def DebugInfo(name):
    di = lsstDebug.getInfo(name)
    if name == "lsst.ip.diffim.psfMatch":
        di.display = True
        di.maskTransparency = 80
        di.displayCandidates = True
        di.displayKernelBasis = True
        di.displayKernelMosaic = True
        di.plotKernelSpatialModel = True
        di.plotKernelCoefficients = True
        di.showBadCandidates = True
    elif name == "lsst.ip.diffim.modelPsfMatch":
        di.display = True
        di.maskTransparency = 30
        di.displaySpatialCells = True
    return di
lsstDebug.Info = DebugInfo
lsstDebug.frame = 3
"""
TITLES = (
    "spatial-cells", "candidates-stamps", "candidates-kernels", "candidates-residuals", "kernel-basis", "kernel-mosaic",
    "kernel-spatial-model", "kernel-coefficients",
)  # fmt: skip


@pytest.fixture
def debug_py(tmp_path, monkeypatch):
    """Write a debug.py that is found; what it leaves behind is taken away."""

    def write(text):
        folder = tmp_path / "python"
        folder.mkdir()
        (folder / "debug.py").write_text(text)
        monkeypatch.syspath_prepend(folder)

    for name in ("debug", "lsstDebug"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:file:///nowhere")
    yield write
    for name in ("debug", "lsstDebug"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def exposure():
    return psfmatch.read_exposure(FRAME)


@pytest.fixture(scope="module")
def matched(exposure):
    return psfmatch.match(exposure, "moffat:fwhm=4.9,beta=3.5", solver=AlardLupton(cell_shape=(90, 70), order=1))


class Recorder(Screen):
    def __init__(self):
        self.frames = {}

    def show(self, frame, number):
        self.frames[number] = frame


def test_upstreams_debug_py_is_obeyed(debug_py, matched, exposure):
    debug_py(DEBUG)
    load_debug()
    settings = DebugSettings.now()
    assert settings.displaySpatialCells
    assert settings.maskTransparency == 30
    screen = Recorder()
    assert show(matched, before=exposure, screen=screen) == len(TITLES)
    assert [f.title.replace(" ", "-") for f in screen.frames.values()] == list(TITLES)
    assert list(screen.frames) == list(range(3, 3 + len(TITLES)))  # counted up from lsstDebug.frame
    assert sys.modules["lsstDebug"].frame == 3 + len(TITLES)
    for number, frame in screen.frames.items():
        assert faults(frame.figure()) == [], number
    cells = matched.solution.cells
    x, y, colour, text = screen.frames[3].regions[7]
    assert (x, y, colour, text) == (cells.x[7] - exposure.box.x0, cells.y[7] - exposure.box.y0, "cyan", "7")


def test_what_is_not_asked_for_is_false(debug_py, matched):
    assert not DebugSettings.now().anything
    debug_py(DEBUG.replace("di.display = True", "di.display = False"))
    load_debug()
    info = sys.modules["lsstDebug"].Info("lsst.ip.diffim.psfMatch")
    assert (info.display, info.displayCandidates, info.anything_else) == (False, True, False)
    assert show(matched, screen=Recorder()) == 0


def test_an_installed_lsst_debug_is_used(debug_py, tmp_path, matched):
    debug_py(DEBUG)
    (tmp_path / "python" / "lsstDebug.py").write_text(
        "class Info:\n    own = 1\n    def __getattr__(self, name): return False\n"
        "    def __init__(self, name): pass\ngetInfo = Info\n"
    )
    load_debug()
    assert sys.modules["lsstDebug"].__file__ == str(tmp_path / "python" / "lsstDebug.py")
    assert show(matched, screen=Recorder()) == len(TITLES)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no debug.py on the Python path"), ("import nosuchthing\n", "nosuchthing, which is not installed"),
     ("1 / 0\n", "ZeroDivisionError"), (DEBUG.replace("True", "'ds10'"), "give True, 'window', 'files' or 'ds9'"),
     (DEBUG.replace("True", "'ds9'"), "no DS9 answers"), (DEBUG.replace("True", "'window'"), "no screen")],
)  # fmt: skip
def test_what_is_wrong_is_said(text, words, debug_py, matched):
    if text is not None:
        debug_py(text)

    def shown():
        load_debug()
        show(matched)

    with pytest.raises(InputError, match=words):
        shown()


def test_verb_saves_pictures(debug_py, tmp_path):
    debug_py(DEBUG)
    out = tmp_path / "out.fits"
    arguments = ["match", str(FRAME), "-t", "moffat:fwhm=4.9,beta=3.5", "-o", str(out), "--debug"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "debug display: 8 frames" in result.stderr
    pictures = sorted(tmp_path.glob("debug-*.png"))
    assert [p.name for p in pictures] == [f"debug-{3 + k:02d}-{title}.png" for k, title in enumerate(TITLES)]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_verb_without_debug_py_writes_nothing(debug_py, tmp_path):
    arguments = ["match", str(FRAME), "-t", "moffat:fwhm=4.9,beta=3.5", "-o", str(tmp_path / "out.fits"), "-d"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "set PYTHONPATH to its folder" in result.stderr
    assert not list(tmp_path.iterdir())


class FakeDS9(list):
    def __call__(self, command):
        self.append(command)


def test_ds9_is_sent_images_and_circles(matched, exposure, debug_py, tmp_path):
    debug_py(DEBUG)
    load_debug()
    ds9 = FakeDS9()
    show(matched, before=exposure, screen=DS9(ds9, Files(tmp_path / "rest")))
    assert [c for c in ds9 if c.startswith("frame")] == [f"frame {n}" for n in range(3, 9)]
    paths = [Path(c.removeprefix("fits ")) for c in ds9 if c.startswith("fits /")]
    np.testing.assert_array_equal(fits.getdata(paths[0]), exposure.image)
    np.testing.assert_allclose(
        fits.getdata(paths[-1])[:21, :21], plots.model.field_mosaic(matched)[:21, :21], rtol=1e-6
    )
    assert "mask transparency 30" in ds9
    (regions,) = (Path(c.removeprefix("regions load ")).read_text() for c in ds9 if c.startswith("regions"))
    cells = matched.solution.cells
    assert f"circle({cells.x[0] + 1:.2f},{cells.y[0] + 1:.2f},12)" in regions  # DS9 counts from 1
    assert len(list((tmp_path / "rest").iterdir())) == 2  # the figures that are no images


def samp():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyvo import samp as found
        except ImportError:
            found = pytest.importorskip("astropy.samp")
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ds9_through_a_samp_hub(tmp_path, monkeypatch):
    """A real hub; a client that says it is DS9, and that takes the commands."""
    samp_module = samp()
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'hub').as_uri()}")
    hub = samp_module.SAMPHubServer(web_profile=False, lockfile=str(tmp_path / "hub"), addr="127.0.0.1")
    hub.start()
    other = samp_module.SAMPIntegratedClient(name="ds9", addr="127.0.0.1")
    received = []
    try:
        assert screens_module.samp_command() is None  # a hub, but no DS9
        other.connect()

        def answer(private_key, sender, message_id, mtype, parameters, extra):
            time.sleep(0.1)  # an answer that comes before astropy's hub waits for it is lost
            received.append(parameters["cmd"])
            refused = {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "no such command"}}
            good = {"samp.status": "samp.ok", "samp.result": {}}
            other.reply(message_id, refused if parameters["cmd"] == "frme 4" else good)

        other.bind_receive_call("ds9.set", answer)
        screen = screen_for(True, tmp_path)
        assert isinstance(screen, DS9)
        screen.command("frame 4")
        screen.command("zoom to fit")
        assert received == ["frame 4", "zoom to fit"]
        with pytest.raises(InputError, match="DS9 does not take 'frme 4': no such command"):
            screen.command("frme 4")
        for _ in range(2):  # what has left the hub does not leave it again
            screen.done()
            assert not screen.command.client.is_connected
    finally:
        for client in (other,):
            if client.is_connected:
                client.disconnect()
        hub.stop()


def test_ds9_through_xpa(tmp_path, monkeypatch):
    """Programs of these names that note what they are given."""
    for name, body in (("xpaaccess", "echo yes"), ("xpaset", f'echo "$@" >> {tmp_path}/log')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    command = screens_module.xpa_command()
    command("mask transparency 30")
    assert (tmp_path / "log").read_text() == "-p ds9 mask transparency 30\n"
    (tmp_path / "xpaset").write_text("#!/bin/sh\necho 'XPA$ERROR: unknown command' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"DS9 does not take 'frme 4': XPA\$ERROR: unknown command"):
        command("frme 4")
    (tmp_path / "xpaaccess").write_text("#!/bin/sh\necho no\n")
    assert screens_module.xpa_command() is None


def test_where_nothing_can_be_shown_files_are_written(debug_py, tmp_path, monkeypatch):
    """Neither of the SAMP clients is installed, and matplotlib draws without a screen: a display makes no window."""
    assert screen_for("files", tmp_path) == Files(tmp_path)
    for name in ("pyvo", "pyvo.samp", "astropy.samp"):
        monkeypatch.setitem(sys.modules, name, None)
    assert screens_module.samp_command() is None
    monkeypatch.setenv("DISPLAY", ":9")
    assert not screens_module.has_window()  # the backend is Agg
    assert screen_for(True, tmp_path) == Files(tmp_path)
    with pytest.raises(InputError, match=r"display = .window. in debug\.py, but there is no screen"):
        screen_for("window")


def test_a_window_without_frames_does_not_wait():
    waited = []

    class Manager:
        @classmethod
        def start_main_loop(cls):
            waited.append(cls)

    Window().done()
    assert waited == []
    Window([Manager()]).done()
    assert waited == [Manager]


@pytest.mark.parametrize(
    ("variable", "titles"),
    [
        ("displaySpatialCells", TITLES[:1]), ("displayCandidates", TITLES[1:4]), ("displayKernelBasis", TITLES[4:5]),
        ("displayKernelMosaic", TITLES[5:6]), ("plotKernelSpatialModel", TITLES[6:7]),
        ("plotKernelCoefficients", TITLES[7:]),
    ],
)  # fmt: skip
def test_each_variable_asks_for_its_own_frames(matched, variable, titles):
    asked = DebugSettings(display=True, **{variable: True})
    assert tuple(f.title.replace(" ", "-") for f in frames(asked, matched, None, None)) == titles


def test_a_window_for_every_frame(debug_py, matched, monkeypatch):
    """With a canvas that notes what is done to it in the place of a screen's."""
    done = []

    class Manager:
        def __init__(self, number):
            self.number = number

        def set_window_title(self, title):
            done.append((self.number, title))

        def show(self):
            done.append("shown")

        @classmethod
        def start_main_loop(cls):
            done.append("waited")

    class Canvas:
        required_interactive_framework = "test"

        @classmethod
        def new_manager(cls, figure, number):
            assert figure.axes
            return Manager(number)

    debug_py(DEBUG.replace("displayCandidates = True", "displayCandidates = False"))
    load_debug()
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(screens_module, "_canvas_class", lambda: Canvas)
    assert isinstance(screen_for(True), Window)
    assert show(matched) == 5
    assert done[0] == (3, "3: spatial cells")
    assert done.count("shown") == 5
    assert done[-1] == "waited"


def test_rubins_task_shows_each_candidates_own_weights(debug_py, tmp_path, monkeypatch):
    pytest.importorskip("lsst.pex.config")
    from psfmatch.lsst import ModelPsfMatchConfig, ModelPsfMatchTask, SingleGaussianPsf

    debug_py(DEBUG)
    load_debug()
    monkeypatch.chdir(tmp_path)
    config = ModelPsfMatchConfig()
    config.kernel.active.sizeCellX, config.kernel.active.sizeCellY = 60, 50
    image = np.random.default_rng(0).normal(size=(150, 190))
    result = ModelPsfMatchTask(config=config).run(
        psfmatch.Exposure(image, psf=SingleGaussianPsf(21, 21, 2.0)), SingleGaussianPsf(21, 21, 2.6)
    )
    assert len(list(tmp_path.glob("debug-*.png"))) == len(TITLES)
    own = result.kernelCellSet.own_weights()
    np.testing.assert_allclose(own[0], result.kernelCellSet.candidates[0].getKsum(), rtol=1e-6)
    figure = plots.kernel_coefficients(result.matched, own=own)
    assert sum(p.get_height() for p in figure.axes[0].patches[:12]) == own.shape[1]


def test_example_finds_debug_py(tmp_path):
    pytest.importorskip("lsst.pex.config")
    (tmp_path / "debug.py").write_text(DEBUG)
    example = Path(__file__).parents[1] / "examples" / "modelPsfMatchTask.py"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "SAMP_HUB": "std-lockurl:file:///nowhere", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, str(example), "--debug"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {p.name.split("-", 2)[2] for p in tmp_path.glob("debug-*.png")} == {f"{title}.png" for title in TITLES}
