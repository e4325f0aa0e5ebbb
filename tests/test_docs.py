"""The pages say what the program is: every verb, option and public name, and nothing that is not there."""

import re
import sys
from pathlib import Path

import click
import pytest

import psfmatch
from psfmatch.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "build" not in path.parts)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import _generate
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("reference")
    _generate.write(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_every_public_name_is_in_the_reference(generated):
    assert set(re.findall(r"^   (\w+)$", generated["api"], re.MULTILINE)) == set(psfmatch.__all__)


@pytest.mark.parametrize("name", sorted(set(psfmatch.__all__) - {"MASK_PLANES"}))
def test_every_public_name_explains_itself(name):
    assert getattr(psfmatch, name).__doc__


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_option_is_explained_and_in_the_reference(verb, generated):
    _, section, *_ = generated["cli"].split(f"## psfmatch {verb}\n")
    section = section.split("\n## ")[0]
    for option in main.commands[verb].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name
            assert all(name in section for name in option.opts)


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in PAGES:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            listed |= {line.strip() for line in tree.splitlines() if line.strip() and not line.startswith(":")}
    folder = ROOT / "docs"
    pages = {str(page.relative_to(folder).with_suffix("")) for page in PAGES if page.parent.name != "data"}
    assert pages - {"index"} <= listed


def test_verbs_and_options_on_the_pages_exist():
    """A command in a page or the README that could not be typed."""
    known = {verb: {name for o in command.params for name in o.opts} for verb, command in main.commands.items()}
    commands = []
    for page in (*PAGES, ROOT / "README.md"):
        commands += re.findall(r"^(?:\$ |    )psfmatch (\w+)(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) > 5
    for verb, arguments in commands:
        assert set(re.findall(r"(?<=\s)--?[a-z][\w-]*", arguments.split("#")[0])) <= known[verb], (verb, arguments)
