"""docs/psf_formats.md says what was measured: its tables are made here.

After a change, ``PSFMATCH_WRITE_DOCS=1 pytest tests/test_psf_page.py`` writes them anew.
"""

import math
import os
import re
from pathlib import Path

import pytest

from psf_comparisons import FILES, OBJECTS
from psfmatch.io import psf_formats

PAGE = Path(__file__).parents[1] / "docs" / "psf_formats.md"
BAR, FLOOR = 1e-6, -9
HEADS = {
    "files": "| file | `format=` | what varies | checked against | differs by less than |\n|---|---|---|---|---|",
    "objects": "| object | what varies | checked against | differs by less than |\n|---|---|---|---|",
}


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {one.what: one.difference(folder / f"{k}.fits") for k, one in enumerate((*FILES, *OBJECTS))}


@pytest.mark.parametrize("comparison", [*FILES, *OBJECTS], ids=lambda one: one.what)
def test_an_independent_reader_sees_the_same_pixels(differences, comparison):
    assert differences[comparison.what] < BAR


def test_every_format_is_compared():
    assert {one.format for one in FILES} == {known.name for known in psf_formats()}


def decade(value):
    """The power of ten above it, or 1e-9: what does not depend on the machine."""
    return f"1e{max(FLOOR, math.ceil(math.log10(max(value, 1e-300)))):+03d}".replace("1e-0", "1e-")


def test_the_page_says_what_was_measured(differences):
    tables = {
        "files": [(one.what, f"`{one.format}`", one.varies, one.reader) for one in FILES],
        "objects": [(one.what, one.varies, one.reader) for one in OBJECTS],
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, rows in tables.items():
        lines = [f"| {' | '.join((*row, decade(differences[row[0]])))} |" for row in rows]
        made = "\n".join([f"<!-- {name} -->", HEADS[name], *lines, "<!-- end -->"])
        page = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _, made=made: made, page, flags=re.DOTALL)
        assert made in page, f"the page has no marks for the table of {name}"
    if os.environ.get("PSFMATCH_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "run PSFMATCH_WRITE_DOCS=1 pytest tests/test_psf_page.py"
