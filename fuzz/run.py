"""One run of Atheris: ``python -m fuzz.run TARGET FOLDER SECONDS SEED``, which `fuzz.__main__` starts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["psfmatch"]):
    from fuzz.mutate import MUTATORS
    from fuzz.oracle import judged
    from fuzz.targets import TARGETS

PLAIN = 0.1  # of the changes are libFuzzer's own


def main(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Fuzz for so many seconds of computing; findings and notes go to the folder."""
    target, change = TARGETS[name], MUTATORS[TARGETS[name].mutator]
    scratch = Path(tempfile.mkdtemp(prefix="fuzz"))
    path = scratch / target.name
    if target.beside is not None:
        target.beside(scratch)
    beside = {one.name: one.read_bytes() for one in scratch.iterdir()}
    first = _seeds(name, folder / "corpus")
    for content in first:  # what is imported late is imported now
        path.write_bytes(content)
        if (finding := judged(target.reader, path)) is not None and finding.kind != "escape":
            raise SystemExit(f"{name}: a seed is refused: {finding}")
    begun = time.process_time()
    state = {"executions": 0, "seconds": 0.0}

    def one(content: bytes) -> None:
        path.write_bytes(content)
        finding = judged(target.reader, path)
        state["executions"] += 1
        if finding is not None:
            stem = folder / "found" / hashlib.sha1(finding.key.encode()).hexdigest()[:12]
            if not stem.with_suffix(".bin").exists() or stem.with_suffix(".bin").stat().st_size > len(content):
                stem.with_suffix(".bin").write_bytes(content)
                stem.with_suffix(".txt").write_text(f"{finding.key}\n{finding.text}\n")
        spent = time.process_time() - begun
        if spent - state["seconds"] > 1.0:
            state["seconds"] = round(spent, 1)
            (folder / "note.json").write_text(json.dumps(state))
            for other in scratch.iterdir():  # a reader must not write, but one of them claims folders
                if other != path and other.read_bytes() != beside.get(other.name):
                    raise RuntimeError(f"{other} was written")
            if spent > seconds:
                os._exit(0)

    def changed(content: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < PLAIN:
            return bytes(atheris.Mutate(content, most))
        return change(content, draw)[:most]

    most = 2 * max(len(content) for content in first)
    options = [
        f"-max_len={most}", f"-seed={seed}", "-rss_limit_mb=0", "-timeout=600",
        f"-artifact_prefix={folder / 'crash'}/", "-print_final_stats=1", "-len_control=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], one, custom_mutator=changed)
    atheris.Fuzz()


def _seeds(name: str, corpus: Path) -> list[bytes]:
    """The good files, put into the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        contents = [path.read_bytes() for path in TARGETS[name].seeds(Path(folder))]
    for content in contents:
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    return contents


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
