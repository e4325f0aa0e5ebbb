"""Objects are shared between threads and processes without a word between them."""

import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from psfmatch import AlardLupton, Box, Exposure, Fourier, FreeForm, FunctionPSF, MoffatPSF, match
from psfmatch.coadd.crew import NO_PAGES
from psfmatch.machine import one_blas_thread

SHAPE = (97, 121)
THREADS = 8


class Sheared:
    """A PSF that varies, as an object that other processes can be sent."""

    def __call__(self, x, y):
        return MoffatPSF(fwhm=3.0 + x / 400.0, beta=3.0, ellipticity=0.1, angle=y, size=31).stamps(x=0, y=0)[0]


SCIENCE = FunctionPSF(Sheared(), shape=(31, 31))
TARGET = MoffatPSF(fwhm=4.6, beta=3.3)
SOLVERS = {"free-form": FreeForm(), "alard-lupton": AlardLupton(order=2), "fourier": Fourier()}


def frame(seed):
    random = np.random.default_rng(seed)
    mask = np.where(random.random(SHAPE) < 0.01, 1, 0).astype(np.int32)
    image, variance = random.normal(size=SHAPE).astype("f4"), random.uniform(1.0, 2.0, SHAPE).astype("f4")
    return Exposure(image, variance=variance, mask=mask, box=Box.from_shape(SHAPE, y0=-5, x0=seed % 3), psf=SCIENCE)


def bits(exposure, solver):
    out = match(exposure, TARGET, solver=solver).exposure
    return out.image.tobytes(), out.variance.tobytes(), out.mask.array.tobytes()


@pytest.mark.parametrize("name", SOLVERS)
def test_eight_threads_give_the_bits_of_one(name):
    solver, frames = SOLVERS[name], [frame(seed) for seed in range(THREADS)]
    alone = [bits(f, solver) for f in frames]
    barrier = threading.Barrier(THREADS)

    def run(f):
        barrier.wait()
        return bits(f, solver)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(run, frames)) == alone


@pytest.mark.parametrize("name", SOLVERS)
def test_a_task_of_dask_has_one_thread(name, monkeypatch):
    """Others run beside it; the matrices' library Dask holds to one thread by itself.  Elsewhere there are eight."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("psfmatch.machine.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    asked = []

    class Recorded(ThreadPoolExecutor):
        def __init__(self, workers, **options):
            asked.append(workers)
            super().__init__(workers, **options)

    for room in ("convolve.job", "solve.normal", "solve.toeplitz"):
        monkeypatch.setattr(importlib.import_module(f"psfmatch.{room}"), "ThreadPoolExecutor", Recorded)
    alone = bits(frame(0), SOLVERS[name])
    assert max(asked) == 8
    asked.clear()
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, scheduler_kwargs=NO_PAGES
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert client.submit(bits, frame(0), SOLVERS[name]).result() == alone
    assert set(asked) == {1}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_give_the_same_bits(method):
    """With threads of ours alive: what forks must not wait for them."""
    alone = bits(frame(0), FreeForm())
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert pool.submit(bits, frame(0), FreeForm()).result(timeout=120) == alone


ONE_OR_MORE = """
import hashlib, os, sys
sys.path[:0] = [sys.argv[1]]
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[: int(sys.argv[2])])
import test_threads
for solver in test_threads.SOLVERS.values():
    planes = b"".join(test_threads.bits(test_threads.frame(1), solver))
    print(len(os.sched_getaffinity(0)), hashlib.sha256(planes).hexdigest())
"""


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores, on Linux")
def test_the_number_of_cores_does_not_show():
    """Held to one core before anything is loaded, and with two: libraries choose their threads and ways by it."""
    words = [sys.executable, "-c", ONE_OR_MORE, str(Path(__file__).parent)]
    one, two = (
        [line.split() for line in subprocess.check_output([*words, str(n)], text=True, timeout=120).splitlines()]
        for n in (1, 2)
    )
    assert ({count for count, _ in one}, {count for count, _ in two}) == ({"1"}, {"2"})
    assert [digest for _, digest in one] == [digest for _, digest in two]
    assert len({digest for _, digest in one}) == len(SOLVERS)


def test_the_library_for_matrices_is_held_to_one_thread_in_any_thread():
    from threadpoolctl import threadpool_info

    def inside():
        with one_blas_thread():
            return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    assert inside() == {1}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == {1}


def test_the_library_for_matrices_gets_its_threads_back():
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    with one_blas_thread(), one_blas_thread():
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} <= {1}
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == before
