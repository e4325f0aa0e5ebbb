"""Files that earlier versions wrote are read as they were then, and today's hold no less."""

import json
import tomllib

import pytest

import golden
from psfmatch.cli.settings import CLASSES, build

VERSIONS = sorted(path for path in golden.FOLDER.iterdir() if path.is_dir())


def different(found, known, place=""):
    """Where two trees of JSON differ, numbers by more than rounding."""
    if isinstance(known, dict) and isinstance(found, dict):
        return [
            line for key in known.keys() | found.keys()
            for line in different(found.get(key, "nothing"), known.get(key, "nothing"), f"{place}/{key}")
        ]  # fmt: skip
    if isinstance(known, list) and isinstance(found, list) and len(known) == len(found):
        return [
            line for k, pair in enumerate(zip(found, known, strict=True)) for line in different(*pair, f"{place}/{k}")
        ]
    same = found == pytest.approx(known, rel=1e-9, abs=1e-12) if isinstance(known, float) else found == known
    return [] if same else [f"{place}: {found}, was {known}"]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_files_are_read_as_on_the_day_they_were_written(folder):
    known = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    assert set(known) == set(golden.FILES)
    assert not different(golden.measured(folder), known)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_options_keep_their_names_and_meaning(folder):
    tables = tomllib.loads((folder / "options.toml").read_text(encoding="utf-8"))
    assert set(tables) == set(CLASSES)
    for part, table in tables.items():
        made = build(tables, [], part)[part]
        for name, value in table.items():
            if name != "name" and not isinstance(value, dict) and hasattr(made, name):
                kept = getattr(made, name)
                kept = "none" if kept is None else list(kept) if isinstance(kept, tuple) else kept
                assert kept == value, (part, name)


def test_todays_files_hold_all_that_those_of_this_version_held(tmp_path):
    golden.make(tmp_path)
    for name in golden.FILES:
        if name == golden.RUBIN and not (tmp_path / name).exists():
            continue  # which lsst.images writes, from Python 3.12 on
        before, today = golden.layout(VERSIONS[-1] / name), golden.layout(tmp_path / name)
        assert not before.keys() - today.keys(), name
        for hdu, words in before.items():
            assert not words - today[hdu], (name, hdu)


def test_the_files_are_small():
    for folder in VERSIONS:
        assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
