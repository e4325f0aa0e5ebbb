#!/usr/bin/env python
"""How long a fresh interpreter takes until psfmatch answers.

    python benchmarks/start_up.py [--repeat 15]

Median and least of the wall-clock seconds, the interpreter's own start included, with the files in the disk cache.
The yardsticks, an interpreter that does nothing and ``import numpy``, are measured in the same rounds, so that machines
can be compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np

HELP = "from psfmatch.cli import main; main(['--help'])"
CASES = {
    "python (yardstick)": "pass",
    "import numpy (yardstick)": "import numpy",
    "import psfmatch": "import psfmatch",
    "psfmatch --help": HELP,
    "from psfmatch import match": "from psfmatch import match",
    "from psfmatch import *": "from psfmatch import *",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15)
    repeat = parser.parse_args().repeat
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("psfmatch", "numpy", "scipy", "astropy", "click")))
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for turn in range(repeat + 1):
        for name, code in CASES.items():
            took = seconds(code)
            if turn:  # the first turn fills the disk cache
                times[name].append(took)
    for name, values in times.items():
        print(f"{name:28s} median {np.median(values):6.3f} s   least {min(values):6.3f} s   of {repeat}")


if __name__ == "__main__":
    main()
