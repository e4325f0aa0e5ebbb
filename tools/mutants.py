"""Whether the tests notice small faults: ``python -m tools.mutants [--count 250] [--seed 8]``.

A random sample of faults (see `tools.faults`), drawn from each file in proportion to its lines, is put one at a time
into the rooms of `ROOMS`, in memory: no file is changed.  Each is shown to those tests of `TESTS` that run its line,
the quickest first, until one fails.  A fault counts as killed if a test fails, if a module cannot be loaded, or if a
test takes three times its processor time and five seconds more.  Those that survive are printed, and written with the
rest to ``build/mutants/results.json``, where the next run goes on.  Which of them nobody could see is held, with the
reason, by ``tools/equivalent.toml``.

Processes that tests start, and files that they run, have no fault.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path

from tools.faults import Fault, faults_of, faulty_source

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "psfmatch"
WORK = ROOT / "build" / "mutants"
ROOMS = ("solve", "convolve", "kernel.py", "fields.py")
TESTS = (
    "geometry_fields", "kernel_quality", "convolve", "physics", "compress", "toeplitz", "demand", "free_form",
    "fourier", "alard_lupton", "solver_parts", "choices", "options", "defects_of_peers", "threads", "bad_input",
    "lsst_config", "golden",
)  # fmt: skip
OPTIONS = ("-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--no-header", "--tb", "no", "-r", "N")
PRELOADED = (
    "astropy.io.fits", "hypothesis", "pytest", "scipy.fft", "scipy.interpolate", "scipy.ndimage", "scipy.optimize",
    "scipy.signal", "threadpoolctl",
)  # fmt: skip
MEMORY = 12 * 2**30
NAMES = "file", "number", "before", "after"
BROKEN = 99
"""Exit status where not the tests fail, but what runs them."""


class Altered(SourceFileLoader):
    """Finds one module of the package, and loads it with a fault."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> object:
        return compile(self.source, self.path, "exec")


def in_fork(work: Callable[[], int], seconds: float = 3600.0) -> int:
    """The exit status of some work in a process of its own; ``-signal.SIGXCPU`` where it takes longer."""
    child = os.fork()
    if not child:
        status = BROKEN
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGXCPU


def files() -> list[Path]:
    """The files that get faults."""
    return sorted(
        path for room in ROOMS for path in ([SOURCE / room] if room.endswith(".py") else (SOURCE / room).glob("*.py"))
    )


def sample(count: int, seed: int) -> list[Fault]:
    """Some of all faults, from each file in proportion to its lines, in random order."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    chance = random.Random(seed)
    drawn = []
    for path, n in lines.items():
        found = faults_of(path)
        drawn += chance.sample(found, min(len(found), round(count * n / sum(lines.values()))))
    chance.shuffle(drawn)
    return drawn


class Watch:
    """A plugin of pytest: which test runs which line, and how long it takes."""

    def __init__(self) -> None:
        from coverage import Coverage

        paths = [str(path) for path in files()]
        self.coverage = Coverage(data_file=str(WORK / "lines"), config_file=False, include=paths)
        self.coverage.load()
        times = WORK / "seconds.json"
        self.seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}

    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.seconds[nodeid] = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] = time.process_time() - self.seconds[nodeid]

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        (WORK / "seconds.json").write_text(json.dumps(self.seconds))


def unknown() -> list[str]:
    """The files of tests that were written since it was last found out which lines they run."""
    times = WORK / "seconds.json"
    since = times.stat().st_mtime if times.exists() else 0.0
    paths = [ROOT / "tests" / f"test_{name}.py" for name in TESTS]
    return [str(path) for path in paths if path.stat().st_mtime > since]


def watch() -> int:
    """Run these tests once, and note which lines each runs."""
    import pytest

    return int(pytest.main([*OPTIONS, *unknown()], plugins=[Watch()]))


class Telling:
    """Which tests can tell a fault, the quickest first."""

    def __init__(self, most: float) -> None:
        from coverage import CoverageData

        self.most = most
        self.seconds: dict[str, float] = json.loads((WORK / "seconds.json").read_text())
        self.data = CoverageData(str(WORK / "lines"))
        self.data.read()

    def tests(self, fault: Fault) -> list[str]:
        """All that run a line of its statement, or, if it is run once for all, of its file."""
        by_line = self.data.contexts_by_lineno(str(fault.path))
        first, last = (1, 10**6) if fault.loaded else fault.lines
        found = {test for line, tests in by_line.items() if first <= line <= last for test in tests if test}
        chosen: list[str] = []
        total = 0.0
        for test in sorted(found, key=lambda test: self.seconds[test]):
            total += self.seconds[test]
            if chosen and total > self.most:
                break
            chosen.append(test)
        return chosen


class Clock:
    """A plugin of pytest: each test may take three times its processor time, and some seconds more."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        most = int(time.process_time() + 3.0 * self.seconds[nodeid]) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def fate(fault: Fault, telling: Telling) -> str:
    """``killed``, ``timeout`` or ``survived``."""
    tests = telling.tests(fault)
    name = ".".join(fault.path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    loader = Altered(name, fault.path, faulty_source(fault))

    def work() -> int:
        import pytest

        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.meta_path.insert(0, loader)
        return int(pytest.main([*OPTIONS, *tests], plugins=[Clock(telling.seconds)]))

    if not tests:
        return "survived"
    status = in_fork(work)
    if status == BROKEN:
        sys.exit(f"the tests of {fault} could not be run")
    return "timeout" if status == -signal.SIGXCPU else "killed" if status else "survived"


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why some faults cannot be seen, by file, statement and fault."""
    table = tomllib.loads((ROOT / "tools" / "equivalent.toml").read_text(encoding="utf-8"))
    return {(e["file"], e["before"], e["after"]): e["why"] for e in table.get("fault", ())}


def place(fault: Fault) -> tuple[str, int, str, str]:
    return str(fault.path.relative_to(SOURCE)), fault.number, fault.before, fault.after


def preload() -> None:
    """What every test needs and no fault changes, once for all of them."""
    for name in PRELOADED:
        importlib.import_module(name)


def tried(drawn: list[Fault], seconds: float, most: float) -> Iterator[tuple[Fault, str]]:
    """The fate of each, as long as the time lasts."""
    telling, end, known = Telling(most), time.monotonic() + seconds, equivalents()
    for fault in drawn:
        if time.monotonic() > end:
            return
        file, _, before, after = place(fault)
        yield fault, "equivalent" if (file, before, after) in known else fate(fault, telling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=250, help="faults to draw")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=7200.0, help="after which no other is tried")
    parser.add_argument("--most", type=float, default=90.0, help="seconds of tests that one fault is shown to")
    parser.add_argument("--only", default="", help="only faults of files whose path holds this")
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "src"))
    os.environ.update(PYTHONPATH=str(ROOT / "src"), OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    preload()
    if unknown() and in_fork(watch):
        sys.exit("the tests fail without any fault")
    drawn = [fault for fault in sample(options.count, options.seed) if options.only in str(fault.path)]
    report(drawn, options.seconds, options.most, options.again)


def report(drawn: list[Fault], seconds: float, most: float, again: bool) -> None:
    """Try those whose fate is not known yet, print those that survive, and the score with its binomial error."""
    log = WORK / "results.json"
    rows = json.loads(log.read_text()) if log.exists() else []
    fates = {tuple(row[name] for name in NAMES): row["fate"] for row in rows}
    known = {fault: fates.get(place(fault), "") for fault in drawn}
    settled = ("killed", "timeout") if again else ("killed", "timeout", "survived")
    done = {fault: fate for fault, fate in known.items() if fate in settled}
    left = [fault for fault in drawn if fault not in done and (known[fault] or not again)]
    for fault, found in tried(left, seconds, most):
        done[fault] = fates[place(fault)] = found
        rows = [dict(zip((*NAMES, "fate"), (*where, fate), strict=True)) for where, fate in fates.items()]
        log.write_text(json.dumps(rows, indent=1))
        if found == "survived":
            print(f"{place(fault)[0]}:{fault.lines[0]}\n  - {fault.before}\n  + {fault.after}", flush=True)
    print_scores([(place(fault)[0], found) for fault, found in done.items()])


def print_scores(done: list[tuple[str, str]]) -> None:
    """A line for each room and one for all."""
    rooms = sorted({file.partition("/")[0] for file, _ in done})
    for room in (*rooms, ""):
        counts = Counter(found for file, found in done if file.startswith(room))
        killed, counted = counts["killed"] + counts["timeout"], counts.total() - counts["equivalent"]
        share = killed / max(counted, 1)
        error = (share * (1.0 - share) / max(counted, 1)) ** 0.5
        print(
            f"{room or 'all':10s} tried {counts.total():4d}  equivalent {counts['equivalent']:3d}  killed {killed:4d} "
            f"({counts['timeout']} by time)  survived {counts['survived']:3d}  score {share:.1%} +- {error:.1%}"
        )


if __name__ == "__main__":
    main()
