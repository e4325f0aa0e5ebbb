"""Children of the tests: how they end, and work done as somebody who is not root."""

import os
import traceback

import pytest

__all__ = ["forked", "forks", "how_it_ended", "unprivileged"]

NOBODY = 65534
forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def forked(work):
    """A child that does some work and ends, with 1 if it raised something; its process number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def how_it_ended(child):
    """The exit code of a child; minus the signal where one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unprivileged(folder, work):
    """Some work in a folder, as its owner, who is not root; what it loads must be loaded already."""
    root = os.geteuid() == 0
    for path in (folder, *folder.rglob("*")) if root else ():
        os.chown(path, NOBODY, NOBODY)

    def dropped():
        os.chdir(folder)  # the folders above may be closed to others
        if root:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    assert how_it_ended(forked(dropped)) == 0
