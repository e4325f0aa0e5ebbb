"""Who does the work: this process, processes of its own, or a cluster."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from psfmatch.errors import InputError
from psfmatch.geometry import whole_number

__all__ = ["Crew"]

RETRIES = 2
RESUME = "what is done is kept: the same command with --resume goes on with the rest"
LOST = f"the connection to the cluster was lost; {RESUME}"
NONE_LEFT = f"no worker is left, and none could be started again; {RESUME}"
PATIENCE = "2 minutes"
"""For which the workers that were started here may all be gone."""
NO_PAGES = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Of a scheduler that shows nothing, and whose server, which it has all the same, takes a free port of this machine."""


@dataclass(frozen=True)
class Crew:
    """This process; or, with a client, the workers of a Dask cluster.

    Parameters
    ----------
    client : dask.distributed.Client, optional
    """

    client: Any = None

    @classmethod
    @contextmanager
    def of(cls, workers: int | None = None, client: Any = None) -> Iterator[Crew]:
        """This process; ``workers`` processes, started and ended here; or the cluster of a client or of an address.

        Raises
        ------
        InputError
            If there are no workers, no cluster answers, or Dask is not installed.
        """
        if workers is not None:
            whole_number(workers, "workers", least=1)
        if workers is None and client is None:
            yield cls()
            return
        if client is not None and not isinstance(client, str):
            yield cls(client)
            return
        distributed = _dask()
        try:
            if client is not None:
                own = distributed.Client(client)
            else:
                with _own_workers():
                    own = distributed.Client(n_workers=workers, threads_per_worker=1, scheduler_kwargs=NO_PAGES)
        except OSError as error:
            raise InputError(f"no Dask cluster answers at {client}: {error}") from error
        try:
            yield cls(own)
        except KeyboardInterrupt:
            _kill_workers(own)
            raise
        finally:
            with _undisturbed():
                own.close()

    @property
    def elsewhere(self) -> bool:
        """Whether the work is done by other processes."""
        return self.client is not None

    def each(
        self, function: Callable[..., Any], shared: Any, tasks: Mapping[Any, tuple[Any, ...]]
    ) -> Iterator[tuple[Any, Any, str]]:
        """Pieces of work ``function(shared, *task)``, begun in their order, in that in which they end.

        Yields
        ------
        key
            Of the task.
        result
            None where it failed.
        str
            What went wrong, or nothing.  A piece whose process dies is tried twice again.

        Raises
        ------
        ConnectionError
            If the cluster is lost, or all workers that were started here.
        OSError
            If a piece of work raises one: nothing can be kept (a full disk), and the other pieces would fail as well.
        """
        if not self.elsewhere:
            for key, task in tasks.items():
                try:
                    yield key, function(shared, *task), ""
                except OSError:
                    raise
                except Exception as error:
                    yield key, None, _words(error)
            return
        if not tasks:
            return
        distributed = _dask()
        import dask

        # As the result of a task, what is shared is made again where a worker has taken it away.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            common = self.client.submit(_same, shared, pure=False)
            futures = {
                self.client.submit(_recorded, function, common, *task, pure=False, retries=RETRIES, priority=-k): key
                for k, (key, task) in enumerate(tasks.items())
            }
        for future in distributed.as_completed(list(futures)):
            if future.cancelled():
                raise ConnectionError(LOST)
            try:
                wrong = future.exception()
                result, said = (None, []) if wrong else future.result()
            except (OSError, CancelledError) as error:
                raise ConnectionError(LOST) from error
            if isinstance(wrong, OSError):
                raise wrong
            if type(wrong).__name__ == "NoWorkerError":
                raise ConnectionError(NONE_LEFT)
            if wrong is not None:
                yield futures[future], None, _words(wrong)
            else:
                for category, message in said:
                    warnings.warn(message, category, stacklevel=2)
                yield futures[future], result, ""
            future.release()


def _kill_workers(client: Any) -> None:
    """End the processes of a cluster that was started here, which else finish what they are at."""
    for nanny in getattr(client.cluster, "workers", {}).values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has but one


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let an interruption wait: a cluster whose end is interrupted is waited for until its time is out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    met = []
    before = signal.signal(signal.SIGINT, lambda *_: met.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if met:
        raise KeyboardInterrupt


@contextmanager
def _own_workers() -> Iterator[None]:
    """Workers that begin here take memory from the system as any process does, and are not waited for without end.

    Dask has them hand every freed array back at once, and arrays that come and go then take twice the time.  One that
    cannot be started again is given up, and its work would wait for ever, as on a cluster where others may come.
    """
    import dask

    environ = "distributed.nanny.pre-spawn-environ"
    kept = {name: value for name, value in dask.config.get(environ).items() if name != "MALLOC_TRIM_THRESHOLD_"}
    with dask.config.set({environ: kept, "distributed.scheduler.no-workers-timeout": PATIENCE}):
        yield


def _words(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: the process that worked on it died" if name == "KilledWorker" else f"{name}: {error}"


def _same(shared: Any) -> Any:
    return shared


def _recorded(function: Callable[..., Any], shared: Any, *task: Any) -> tuple[Any, list[tuple[type[Warning], str]]]:
    """The result, and the warnings on the way to it."""
    from psfmatch.errors import PsfMatchWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(shared, *task)
    return result, [(w.category, str(w.message)) for w in caught if issubclass(w.category, PsfMatchWarning)]


def _dask() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError("several workers need Dask; pip install 'psfmatch[cluster]'") from error
    return distributed
