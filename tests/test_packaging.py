"""What is installed is whole, and the README's commands are what the machine runs."""

import gzip
import hashlib
import re
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

import pytest

import psfmatch
from psfmatch.cli.demo import FRAMES, demo_data

ROOT = Path(__file__).parents[1]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def readme_block(language):
    """The README's first block in a language."""
    block = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert block
    return block[1]


def test_demo_data_is_small_and_complete():
    files = list(demo_data().iterdir())
    assert sum(path.stat().st_size for path in files) < 3e6
    for image, _ in FRAMES.values():
        stem = image.removesuffix(".fits.gz").rsplit(".", 1)
        names = {
            image,
            image.replace("_ooi_", "_oow_"),
            image.replace("_ooi_", "_ood_"),
            f"{'-'.join(stem)}-psfex.fits.gz",
        }
        assert names <= {path.name for path in files}


def test_demo_data_is_unmodified():
    listed = dict(
        reversed(line.split())
        for line in re.findall(r"^[0-9a-f]{64}  .*$", (demo_data() / "ORIGIN.md").read_text(), re.M)
    )
    found = {
        path.name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in demo_data().glob("*.gz")
    }
    assert found == listed


def test_entry_point_and_metadata():
    (script,) = entry_points(group="console_scripts", name="psfmatch")
    assert script.load() is not None
    assert metadata("psfmatch")["License-Expression"] == "BSD-3-Clause"
    assert psfmatch.__version__ == version("psfmatch")


def test_readme_has_the_two_commands():
    first, second = readme_block("bash").splitlines()
    assert first.startswith("pip install ")
    assert first.endswith("&& psfmatch demo")
    assert second.startswith("pip install ")
    assert second.endswith("&& pytest")


def test_core_dependencies_are_few():
    needed = [d for d in metadata("psfmatch").get_all("Requires-Dist") if "extra ==" not in d]
    assert {re.match(r"[\w-]+", d)[0] for d in needed} == {
        "numpy", "scipy", "astropy", "click", "rich", "threadpoolctl",
    }  # fmt: skip


def test_typed():
    assert (Path(psfmatch.__file__).parent / "py.typed").exists()


def test_readme_example_prints_what_the_readme_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(readme_block("python"), "README.md", "exec"), {})
    printed, said = capsys.readouterr().out, readme_block("text")
    number = r"\d+\.?\d*(?:e-?\d+)?"
    assert re.sub(number, "#", printed) == re.sub(number, "#", said)
    assert [float(n) for n in re.findall(number, printed)] == pytest.approx(
        [float(n) for n in re.findall(number, said)], rel=0.05
    )
    assert (tmp_path / "matched.fits").exists()


def test_readme_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    assert (ROOT / "docs" / "before_after.png").stat().st_size < 200_000
