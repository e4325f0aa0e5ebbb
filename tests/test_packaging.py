"""What is installed is whole, and the README's commands are what the machine runs."""

import gzip
import hashlib
import re
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

import psfmatch
from psfmatch.cli.demo import FRAMES, demo_data

ROOT = Path(__file__).parents[1]


def readme_commands():
    """The lines of the README's first shell block."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    return block[1].splitlines()


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
    first, second = readme_commands()
    assert first.startswith("pip install ")
    assert first.endswith("&& psfmatch demo")
    assert second.startswith("pip install ")
    assert second.endswith("&& pytest")


def test_core_dependencies_are_few():
    needed = [d for d in metadata("psfmatch").get_all("Requires-Dist") if "extra ==" not in d]
    assert {re.match(r"[\w-]+", d)[0] for d in needed} == {"numpy", "scipy", "astropy", "click", "rich"}


def test_typed():
    assert (Path(psfmatch.__file__).parent / "py.typed").exists()
