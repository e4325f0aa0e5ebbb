"""``python -m fuzz [run] TARGET... --minutes 10``, ``list``, ``minimise TARGET FILE``, ``replay TARGET FILE``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from fuzz.minimise import minimised
from fuzz.oracle import judged
from fuzz.targets import TARGETS

OUT = Path("build") / "fuzz"


@click.group()
def main() -> None:
    """Feed readers what nobody would write."""


@main.command("list")
def targets() -> None:
    """All targets."""
    click.echo("\n".join(TARGETS))


@main.command()
@click.argument("names", nargs=-1, metavar="TARGET...")
@click.option("--minutes", default=10.0, show_default=True, help="Of computing in all, shared out among the targets.")
@click.option("--seed", default=1, show_default=True, help="Of the draws.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path))
def run(names: tuple[str, ...], minutes: float, seed: int, out: Path) -> None:
    """Fuzz targets, by default all of them, one after the other; what is found lies in OUT/TARGET/found."""
    unknown = set(names) - set(TARGETS)
    if unknown:
        raise click.UsageError(f"no target {', '.join(sorted(unknown))}; `python -m fuzz list` lists all")
    share = 60.0 * minutes / len(names or TARGETS)
    for name in names or TARGETS:
        result = _run(name, share, seed, out / name)
        click.echo(json.dumps(result))
        with open(out / "runs.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(result) + "\n")


def _run(name: str, seconds: float, seed: int, folder: Path) -> dict[str, object]:
    """One target, in a process of its own, begun again where a library takes it down."""
    for part in ("corpus", "found", "crash"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    executions, spent, deaths = 0, 0.0, 0
    while (left := seconds - spent) > 1.0:
        note = folder / "note.json"
        note.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fuzz.run", name, str(folder), str(int(left) + 1), str(seed + deaths)]
        with open(folder / "log.txt", "ab") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            ).returncode
        said = json.loads(note.read_text()) if note.exists() else {"executions": 0, "seconds": 0.0}
        executions, spent = executions + said["executions"], spent + said["seconds"]
        if code == 0:
            break
        deaths += 1
        if not note.exists():
            break
    found = len(list((folder / "found").glob("*.txt")))
    return {"target": name, "seconds": round(spent, 1), "executions": executions, "findings": found, "deaths": deaths}


@main.command()
@click.argument("name", metavar="TARGET")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path))
def minimise(name: str, file: Path, output: Path | None) -> None:
    """Take away from FILE what is not needed for what it shows."""
    small = minimised(TARGETS[name], file.read_bytes())
    (output or file).write_bytes(small)
    click.echo(f"{file}: {file.stat().st_size} -> {len(small)} bytes")


@main.command()
@click.argument("name", metavar="TARGET")
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def replay(name: str, files: tuple[Path, ...]) -> None:
    """Say what the reader does with FILES."""
    target = TARGETS[name]
    for file in files:
        with tempfile.TemporaryDirectory() as scratch:
            if target.beside is not None:
                target.beside(Path(scratch))
            path = Path(scratch) / target.name
            path.write_bytes(file.read_bytes())
            click.echo(f"{file}: {judged(target.reader, path) or 'as it should'}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments if arguments[:1] and arguments[0] in (*main.commands, "--help") else ["run", *arguments])
