"""What fuzzing has found stays mended, and every reader that there is gets fuzzed."""

from pathlib import Path

import pytest

from psfmatch.io import frame_formats, psf_formats

pytest.importorskip("resource")  # limits of memory are those of Unix
from fuzz.mutate import joined, taken_apart
from fuzz.oracle import Reader, judged
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "data" / "fuzz"
FILES = sorted(path for path in CORPUS.glob("*/*"))


def put(target, content, folder):
    if target.beside is not None and not any(folder.glob("image.fits")):
        target.beside(folder)
    path = folder / target.name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_is_refused_or_read(path, tmp_path):
    target = TARGETS[path.parent.name]
    assert judged(target.reader, put(target, path.read_bytes(), tmp_path)) is None


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_starts_from_files_that_are_read(name, tmp_path):
    pytest.importorskip("piff" if "piff" in name else "asdf" if "roman" in name else "numpy")
    target, scratch = TARGETS[name], tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "seeds").mkdir()
    found = []
    for seed in target.seeds(tmp_path / "seeds"):
        path = put(target, seed.read_bytes(), scratch)
        assert judged(target.reader, path) is None
        try:
            found.append(target.reader.read(path))
        except Exception:  # of another chip, or a weight that is no mask
            continue
    assert found


def test_every_format_has_a_target():
    assert {f"psf-{known.name}" for known in psf_formats()} <= set(TARGETS)
    assert {f"frame-{known.name}" for known in frame_formats()} <= set(TARGETS)
    assert {path.parent.name for path in FILES} <= set(TARGETS)
    assert all(path.name in (CORPUS / "ORIGIN.md").read_text(encoding="utf-8") for path in FILES)


def _unpickles(path):
    import pickle

    return pickle.loads(pickle.dumps(Path))


def _reaches_out(path):
    return Path("/etc/hostname").read_text()


def _hides(path):
    from psfmatch.errors import FormatError

    try:
        return bytearray(1 << 50)
    except MemoryError as error:
        raise FormatError(f"{path}: does not fit") from error


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda path: {}["x"], "exception"),
        (_unpickles, "escape"),
        (_reaches_out, "escape"),
        (_hides, "memory"),
        (lambda path: eval("1 + 1"), "escape"),
    ],
)
def test_the_oracle_can_say_no(read, kind, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    assert judged(Reader(read), tmp_path / "x").kind == kind


def test_a_file_that_is_taken_apart_is_put_together_again(tmp_path):
    for seed in TARGETS["frame-any"].seeds(tmp_path):
        content = seed.read_bytes()
        again = joined(taken_apart(content))
        assert joined(taken_apart(again)) == again
        if b"CHECKSUM" not in content:
            assert again == content
