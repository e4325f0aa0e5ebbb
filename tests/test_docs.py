"""The pages say what the program is: every verb, option and public name, and nothing that is not there."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

import psfmatch
from psfmatch.cli import main

ROOT = Path(__file__).parents[1]
MADE = {"api.md", "cli.md", "changes.md", "psf_formats.md"}
"""Pages that are made from the program, or include another file."""
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"build", "generated"} & set(path.parts))
WRITTEN = [path for path in PAGES if path.name not in MADE]
HOSTS = {
    "arxiv.org", "data.sdss.org", "docs.astral.sh", "doi.org", "github.com", "jwst-pipeline.readthedocs.io",
    "ui.adsabs.harvard.edu", "www.sdss.org",
}  # fmt: skip
"""Where links may lead: what is there stays there."""
CITED = re.compile(r"([A-Z][a-z]{2,}(?: (?:& [A-Z][a-z]+|et al\.))?),? \(?((?:1[89]|20)\d\d)(?=[,;)]| in |\. )(?!-)")
NO_AUTHORS = {"Python", "PLVER", "May", "March", "April"}


def code_of(page: Path) -> str:
    """What stands in code on a page: blocks, and words between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


@pytest.fixture(scope="module")
def code():
    return "\n".join(code_of(page) for page in (*WRITTEN, ROOT / "README.md"))


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


@pytest.mark.parametrize("room", ["psfmatch", "psfmatch.io", "psfmatch.lsst", "psfmatch.plots"])
def test_every_public_name_is_met_on_a_page(room, code):
    """Where a user needs it, in code, and not only in the generated reference."""
    names = import_module(room).__all__
    assert [name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", code)] == []


def test_what_is_said_in_python_is_python():
    """Blocks that are not executed with the pages: they parse, and name only what there is."""
    blocks = [
        (page.name, block)
        for page in (*WRITTEN, ROOT / "README.md")
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    ]
    assert len(blocks) > 3
    for name, block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "psfmatch":
                assert hasattr(psfmatch, node.attr), (name, node.attr)
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "psfmatch":
                room = import_module(str(node.module))
                assert all(hasattr(room, alias.name) for alias in node.names), (name, ast.unparse(node))


def links():
    """Every address on the pages and in the program, with where it stands."""
    files = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "src").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    return {
        (path.name, link.rstrip(".,;"))
        for path in files
        for link in re.findall(r"https?://[^\s<>\"'`\]]+", path.read_text(encoding="utf-8"))
    }


def balanced(link: str) -> str:
    """A link without the bracket after it."""
    while link.count(")") > link.count("("):
        link = link[: link.rindex(")")].rstrip(".,;")
    return link


def test_links_lead_where_things_stay():
    """Whether they answer is asked at a release: `sphinx-build -b linkcheck`."""
    found = links()
    assert len(found) > 20
    for name, raw in found:
        link = balanced(raw)
        parts = urlsplit(link)
        assert parts.scheme == "https", (name, link)
        assert parts.hostname in HOSTS, (name, link)
        assert len(parts.path) > 1, (name, link)
        assert re.fullmatch(r"[!-~]+", link), (name, link)
        if parts.hostname == "doi.org":
            assert re.fullmatch(r"/10\.\d{4,5}/\S+", parts.path), (name, link)
        if "adsabs" in link:
            assert re.fullmatch(r"/abs/\d{4}[\w.%]{14,16}[A-Z]", parts.path), (name, link)


def test_every_paper_is_in_the_list():
    """A citation in a docstring or on a page, and the line that says where the paper is found."""
    page = ROOT / "docs" / "reference" / "papers.md"
    rows = re.findall(r"^\| ([^|]+?) ((?:1[89]|20)\d\d) \| ([^|]+?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)
    listed = {(names, year) for names, year, _ in rows}
    texts = [path for path in (*(ROOT / "src").rglob("*.py"), *WRITTEN) if path != page]
    cited = {
        (names, year)
        for path in texts
        for names, year in CITED.findall(" ".join(path.read_text(encoding="utf-8").split()))
        if names not in NO_AUTHORS
    }
    assert cited == listed
    assert sum("](https://" in where for *_, where in rows) >= len(rows) - 3  # three have no lasting address
