"""Options have one name and one explanation each: in Python, in a file, after ``--set``, and in `psfmatch config`."""

import json
import tomllib
from functools import partial

import pytest
from click.testing import CliRunner

import psfmatch
from psfmatch.cli import main
from psfmatch.cli.config import _all, _table, _value
from psfmatch.cli.options import object_of, options_of
from psfmatch.cli.settings import CLASSES, build

PARTS = tuple(CLASSES)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def uncommented(text):
    return "\n".join(line[2:] if line.startswith("# ") else line for line in text.splitlines())


def same(made, name):
    """Whether a part is what Python makes without any option."""
    owner = object_of(name)
    if isinstance(made, partial):
        defaults = {option.name: option.default for option in options_of(owner)}
        return made.func == owner and made.keywords == defaults
    return made == owner()


@pytest.mark.parametrize(("part", "name", "option"), _all(), ids=lambda value: getattr(value, "name", value))
def test_every_option_is_explained_by_its_docstring(part, name, option):
    assert len(option.text) > 5


def test_the_printed_file_changes_nothing():
    printed = run("config")
    assert printed.exit_code == 0
    made = build(tomllib.loads(printed.stdout), (), *PARTS)
    for part, classes in CLASSES.items():
        assert same(made[part], next(iter(classes.values()))), part


@pytest.mark.parametrize(
    ("part", "name"),
    [(part, name) for part in PARTS for name in list(CLASSES[part])[1:] if name != "centered"],
)
def test_what_other_classes_have_is_printed_as_comments(part, name):
    """Without the comment signs it is a file that makes one, all options at their defaults."""
    blocks = [block for block in _table(part).split("\n\n") if block.startswith(f'# [{part}]\n# name = "{name}"')]
    rest = _table(part)[_table(part).index(blocks[0]) :]
    end = rest.find(f"\n# [{part}]\n", 1)
    table = tomllib.loads(uncommented(rest[: end if end > 0 else None]))
    assert same(build(table, (), part)[part], CLASSES[part][name])


def test_a_run_with_the_printed_file_is_the_same(tmp_path):
    (tmp_path / "run.toml").write_text(run("config").stdout)
    psfs = ("gaussian:fwhm=3", "moffat:fwhm=4.5,beta=3.5")
    for k, more in enumerate(((), ("--config", tmp_path / "run.toml"))):
        assert run("kernel", *psfs, "-o", tmp_path / f"{k}.fits", *more).exit_code == 0
    first, second = (psfmatch.read_kernel(tmp_path / f"{k}.fits").stamps(x=0, y=0) for k in (0, 1))
    assert (first == second).all()


def test_the_search_for_a_target_has_one_set_of_names(tmp_path):
    """``--family`` of the verb, the table of a file, and ``--set``; the command line wins."""
    psfs = ("moffat:fwhm=3,beta=3.2", "moffat:fwhm=3.7,beta=3")
    (tmp_path / "run.toml").write_text("[common_target]\nfamily = 'gaussian'\ntolerance = 0.01\n")
    (tmp_path / "top.toml").write_text("family = 'gaussian'\ntolerance = 0.01\n")
    answers = [
        json.loads(run("target", *psfs, "--json", *more).stdout)
        for more in (
            ("--family", "gaussian", "--tolerance", 0.01),
            ("--set", "common_target.family=gaussian", "--set", "common_target.tolerance=0.01"),
            ("--config", tmp_path / "run.toml"),
            ("--config", tmp_path / "top.toml"),
            ("--config", tmp_path / "run.toml", "--family", "moffat:beta=3"),
        )
    ]
    assert answers[0]["target"].startswith("gaussian")
    assert all(answer == answers[0] for answer in answers[1:4])
    assert answers[4]["target"].startswith("moffat")


@pytest.mark.parametrize(
    ("verb", "setting", "message"),
    [
        ("kernel", "convolver.edge=nan", "PART one of solver"),
        ("apply", "solver.order=2", "PART one of convolver"),
        ("target", "common_target.tolerence=1", "did you mean 'tolerance'?"),
        ("coadd", "recipe.patches=512", "did you mean 'patch'?"),
        ("coadd", "recipe.order=warp", "match-warp or warp-match"),
        ("coadd", "grid.scale=0.2", "grid.pixel_scale  (number or none)"),
        ("coadd", "grid=centered", "grid.ra, grid.dec, grid.shape"),
        ("coadd", "combine=average", "there are clipped-mean, mean, median"),
        ("coadd", "interpolation.order=1", "from 2 to 32"),
        ("coadd", "common_target.tolerance=1", "has no effect"),
    ],
)
def test_wrong_options_list_the_right_ones(verb, setting, message, tmp_path):
    sources = {"coadd": ("a.fits", "-t", "gaussian:fwhm=2"), "apply": ("a.fits", "k.fits")}
    inputs = sources.get(verb, ("gaussian:fwhm=2", "gaussian:fwhm=3"))
    output = () if verb == "target" else ("-o", tmp_path / "out.fits")
    result = run(verb, *inputs, *output, "--set", setting)
    assert result.exit_code == 2
    assert message in result.stderr


def test_another_class_than_the_file_has_leaves_its_options_behind():
    table = {"solver": {"name": "free-form", "tolerance": 0.01, "wings": "none"}}
    assert build(table, ("solver=fourier", "solver.size=33"), "solver")["solver"] == psfmatch.Fourier(size=33)
    assert build(table, ("solver.size=33", "solver=free-form"), "solver")["solver"] == psfmatch.FreeForm(
        tolerance=0.01, wings="none", size=33
    )
    assert build({"convolver": {"device": "none"}}, (), "convolver")["convolver"] == psfmatch.FFT()


def test_grids_by_their_options():
    settings = ("grid=centered", "grid.ra=150.5", "grid.dec=-2", "grid.shape=[30, 50]", "grid.pixel_scale=0.3")
    grid = build({}, settings, "grid")["grid"]
    assert grid.shape == (30, 50)
    assert grid.wcs.wcs.crval.tolist() == [150.5, -2.0]
    assert grid.pixel_scale == pytest.approx(0.3, rel=1e-6)


def test_one_option():
    result = run("config", "solver.max_noise_gain")
    assert result.exit_code == 0
    assert result.stdout.startswith("solver.max_noise_gain = 2.0    (number, of solver free-form)\n  The noise gain")
    assert "of solver fourier" in result.stdout
    assert "`pca`" not in run("config", "solver.pca.components").stdout
    wrong = run("config", "solver.tolerence")
    assert wrong.exit_code == 2
    assert "did you mean 'solver.tolerance'?" in wrong.stderr
    options = json.loads(run("config", "recipe", "--json").stdout)["options"]
    assert {key: value for key, value in options[6].items() if key != "text"} == {
        "option": "recipe.patch",
        "of": "recipe",
        "takes": "integer",
        "default": 1024,
    }


@pytest.mark.parametrize(("verb", "part"), [("coadd", "recipe"), ("target", "common_target")])
def test_defaults_that_help_shows_are_those_of_python(verb, part):
    shown = {option.name: getattr(option, "show_default", None) for option in main.commands[verb].params}
    for option in options_of(object_of(next(iter(CLASSES[part].values())))):
        if isinstance(shown.get(option.name), str):
            assert shown[option.name] == str(option.default)
    assert sum(isinstance(text, str) for text in shown.values()) >= 2


def test_values_are_written_as_toml_reads_them():
    """Records and named positions as tables, what is not given as the word none."""
    record = psfmatch.Clipping(sum_sigma=2.5)
    for value, plain in (
        (psfmatch.Position(y=2.0, x=-1.5), {"y": 2.0, "x": -1.5}),
        (record, {name: "none" if value is None else value for name, value in vars(record).items()}),
        ((1, 2.0, None), [1, 2.0, "none"]),
    ):
        assert tomllib.loads(f"value = {_value(value)}")["value"] == plain
