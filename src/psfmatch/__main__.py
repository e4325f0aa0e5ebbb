"""The program ``psfmatch``, and ``python -m psfmatch``: the command line; Ctrl-C ends it without words of Python's."""

from __future__ import annotations

import sys

INTERRUPTED = 128 + 2  # as a shell says of what SIGINT ended


def run() -> None:
    """Run the command line; whatever it is doing when it is interrupted, it ends with exit code 130."""
    try:
        from click import ClickException

        from psfmatch.cli import main

        try:
            code = main(standalone_mode=False)
        except ClickException as error:
            error.show()
            code = error.exit_code
    except BaseException as error:
        if not _by_interrupt(error):
            raise
        print("Aborted!", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def _by_interrupt(error: BaseException | None) -> bool:
    """Whether an interruption is what an error, perhaps in several steps, came of: imports make other errors of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    run()
