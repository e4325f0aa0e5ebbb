"""The processors and the memory of the machine, how libraries use them, and how long a step takes."""

from __future__ import annotations

import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

__all__ = ["forget", "is_mapped", "keep_freed_memory", "one_blas_thread", "processors", "timed"]

LEARNT = (32 << 20) - (64 << 10)

_lock = threading.Lock()
_users = 0
_limit: Any = None


def processors() -> int:
    """How many processors this process may use; one in a task of Dask, which has others beside it."""
    if _in_task():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_task() -> bool:
    dask = sys.modules.get("distributed")
    if dask is None:
        return False
    try:
        dask.get_worker()
    except ValueError:
        return False
    return True


@contextmanager
def timed(step: str, room: str, about: str = "") -> Iterator[None]:
    """Log how long a step took, under ``psfmatch.<room>``; the record has the fields ``step`` and ``seconds``."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    words = f"{about}: {step}" if about else step
    logging.getLogger(f"psfmatch.{room}").info(
        "%s in %.2f s", words, seconds, extra={"step": step, "seconds": round(seconds, 6)}
    )


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS uses one thread: for matrices so small, or threads so many, that more would only wait.

    And for results that are the same to the last bit however many processors there are.
    The limit is the whole process's; the last of several threads to leave such a context restores what was before.
    """
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = _apart(lambda: _controller().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _apart(_limit.restore_original_limits)


def _apart(work: Callable[[], Any]) -> Any:
    """What is done in a thread that then ends: threadpoolctl obeys the first thread that asks, as long as it lives."""
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    thread.join()
    return done[0]


@cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (its BLAS is of its own, and must be there to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def keep_freed_memory() -> None:
    """Let arrays that come and go be made of the same memory, rather than of new pages of the system each time.

    GNU's C library hands freed memory back above a threshold that it learns from the blocks it sees freed, up to 32 MiB
    (``mallopt(3)``, M_MMAP_THRESHOLD).  Here it sees one of that size, which nobody touches.
    """
    np.empty(LEARNT, np.uint8)


def is_mapped(array: Any) -> bool:
    """Whether an array, or what it is a part of, lies in a file."""
    return _map(array) is not None


def forget(*arrays: Any) -> None:
    """Give back the memory that pages of mapped arrays take; they are read again where they are needed."""
    for array in arrays:
        found = _map(array)
        if found is not None and hasattr(found, "madvise"):
            found.madvise(mmap.MADV_DONTNEED)


def _map(array: Any) -> Any:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array
