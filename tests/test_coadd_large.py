"""Coadds that take long: bounded memory, what survives a kill, what is lost when something fails, how far they are."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from astropy.io import fits

import psfmatch
from psfmatch import Box, CoaddInput, Grid, InputError, Mean
from psfmatch.cli.console import Console, pace_words
from psfmatch.coadd import Crew, Store, planned, run_coadd, run_patches, write_coadd
from psfmatch.coadd.crew import NO_PAGES
from test_coadd import GRID, asked, constant, one

COMMAND = [sys.executable, "-m", "psfmatch", "coadd"]


@pytest.fixture(name="files", scope="module")
def three_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for k in range(3):
        psfmatch.write_exposure(constant(one(k, masked=0.02), k), folder / f"e{k}.fits")
    return [folder / f"e{k}.fits" for k in range(3)]


def a_plan(files, store=None, crew=None, **options):
    return planned([CoaddInput(f) for f in files], **asked(**options), store=store, crew=crew)


@pytest.mark.slow
def test_killed_at_any_stage_and_resumed_it_is_the_same_file(files, tmp_path):
    """SIGKILL to the whole process group: while kernels are solved for, while patches are made, and at the end."""
    words = [*map(str, files), "-t", "moffat:fwhm=1.3arcsec,beta=3.5", "--patch", "64", "--workers", "1"]
    whole, cut = tmp_path / "whole.fits", tmp_path / "cut.fits"
    subprocess.run([*COMMAND, *words[:-2], "-o", str(whole)], check=True, capture_output=True)
    for sign in ("input-000001.npz", "patch-*.npz", ".cut.fits.*.part"):
        process = subprocess.Popen(
            [*COMMAND, *words, "-o", str(cut), "--resume"], start_new_session=True, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        folder = tmp_path if sign.startswith(".") else tmp_path / "cut.fits.parts"
        while process.poll() is None and not list(folder.glob(sign)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert (tmp_path / "cut.fits.parts").exists()
    kernels = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut.fits.parts").glob("input-*.npz")}
    assert len(kernels) == 3
    done = subprocess.run([*COMMAND, *words, "-o", str(cut), "--resume", "--progress"], check=True, capture_output=True)
    assert b"e0: solved before" in done.stderr
    assert cut.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "cut.fits.parts").exists()
    with fits.open(cut, checksum=True) as hdus:  # warnings are errors
        assert hdus["NEXP"].data.max() == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "send"), [("coadd.json", os.killpg), ("input-*.npz", os.kill), ("patch-*.npz", os.killpg)]
)
def test_interrupted_it_ends_at_once_with_its_workers(files, tmp_path, sign, send):
    """Ctrl-C, which a terminal sends to the workers, too; while they begin, solve for kernels, and make patches."""
    pytest.importorskip("distributed")
    process = subprocess.Popen(
        [*COMMAND, *map(str, files), "-t", "moffat:fwhm=1.3arcsec,beta=3.5", "--patch", "64", "--workers", "2", "-o",
         str(tmp_path / "cut.fits")],
        start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.glob(f"cut.fits.parts/{sign}")):
        time.sleep(0.01)
    start = time.perf_counter()
    send(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.perf_counter() - start < 5.0  # less than 1 s on a machine that is not busy
    assert (process.returncode, said.splitlines()[-1]) == (130, b"Aborted!")
    while any_in_group(process.pid):  # until no worker is left
        assert time.perf_counter() - start < 20.0
        time.sleep(0.01)
    assert {path.name for path in tmp_path.iterdir()} <= {"cut.fits.parts"}


def any_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_two_that_are_resumed_at_once(files, tmp_path):
    """One makes the coadd and the other is refused: the first to end removes what both would need."""
    words = [*map(str, files), "-t", "moffat:fwhm=1.3arcsec,beta=3.5", "--patch", "64", "--resume"]
    command = [*COMMAND, *words, "-o", str(tmp_path / "out.fits")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    refused = said[0] if both[0].returncode else said[1]
    assert "out.fits.parts: another process works in it" in refused or "out.fits exists" in refused
    with fits.open(tmp_path / "out.fits", checksum=True) as hdus:  # warnings are errors
        assert hdus["NEXP"].data.max() == 3
    assert os.listdir(tmp_path) == ["out.fits"]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(files, tmp_path):
    distributed = pytest.importorskip("distributed")
    here = run_coadd(a_plan(files, patch=64), Store(tmp_path))
    store = Store(tmp_path / "there")
    store.folder.mkdir()
    killed = []
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, scheduler_kwargs=NO_PAGES) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill(done, of):
            if done == 1:
                killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

        plan = a_plan(files, store, Crew(client), patch=64)
        there = run_coadd(plan, store, crew=Crew(client), progress=kill)
        assert set(client.run(os.getpid).values()).isdisjoint(killed)
    assert killed
    assert there.failed == {}
    np.testing.assert_array_equal(here.exposure.image, there.exposure.image)
    np.testing.assert_array_equal(here.count, there.count)


@pytest.mark.slow
def test_without_a_worker_it_ends_and_loses_nothing(files, tmp_path, monkeypatch):
    """Where none can be started again, the work is not waited for without end."""
    distributed = pytest.importorskip("distributed")
    if not hasattr(distributed.scheduler, "NoWorkerError"):
        pytest.skip("this Dask waits without end")
    monkeypatch.setattr(sys.modules[Crew.__module__], "PATIENCE", "1s")
    store = Store(tmp_path / "there")
    store.folder.mkdir()
    with Crew.of(1) as crew:

        async def cannot():
            raise OSError("no process can be started")

        def kill(done, of):
            if done == 1:
                (nanny,) = crew.client.cluster.workers.values()
                nanny.instantiate = cannot
                os.kill(nanny.pid, signal.SIGKILL)

        plan = a_plan(files, store, crew, patch=64)
        with pytest.raises(ConnectionError, match=r"no worker is left.*--resume goes on with the rest"):
            run_coadd(plan, store, crew=crew, progress=kill)
    assert list(store.folder.glob("patch-*.npz"))


@pytest.mark.slow
def test_workers_of_our_own_keep_freed_memory():
    """Dask has a worker hand each freed array back to the system: a coadd then takes nearly twice as long."""
    pytest.importorskip("distributed")
    import dask

    before = dask.config.get("distributed.nanny.pre-spawn-environ")
    with Crew.of(workers=1) as crew:
        ((_, environ, wrong),) = crew.each(_environ, "MALLOC_TRIM_THRESHOLD_", {"one": ()})
    assert (environ, wrong) == (os.environ.get("MALLOC_TRIM_THRESHOLD_"), "")
    assert dask.config.get("distributed.nanny.pre-spawn-environ") == before


def _environ(name):
    return os.environ.get(name)


def test_a_cluster_that_does_not_answer_is_named():
    pytest.importorskip("distributed")
    import dask

    quick = {"distributed.comm.timeouts.connect": "1s"}
    with dask.config.set(quick), pytest.raises(InputError, match=r"no Dask cluster answers at tcp://127.0.0.1:9"):
        Crew.of(client="tcp://127.0.0.1:9").__enter__()


@contextmanager
def cluster_at(port, *inside):
    """A scheduler with one worker, and its process, begun by the words ``inside``."""
    address, module = f"tcp://127.0.0.1:{port}", [*inside, sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*module, "distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard"], **quiet
    )
    worker = subprocess.Popen(
        [*module, "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"], **quiet
    )
    try:
        yield address, scheduler
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def cut_off(files, out, address, cut, *inside):
    """The program on a cluster that is cut off once a patch is made: its exit code, and what it says."""
    words = [*map(str, files), "-t", "moffat:fwhm=1.3arcsec,beta=3.5", "--patch", "64"]
    process = subprocess.Popen(
        [*inside, *COMMAND, *words, "--scheduler", address, "-o", str(out)], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"},
    )  # fmt: skip
    folder = out.with_name(out.name + ".parts")
    while process.poll() is None and not list(folder.glob("patch-*.npz")):
        time.sleep(0.01)
    cut()
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert not out.exists()
    done = subprocess.run([*COMMAND, *words, "-o", str(out), "--resume", "--progress"], check=True, capture_output=True)
    assert b"e0: solved before" in done.stderr
    return process.returncode, said


@pytest.mark.slow
def test_a_cluster_that_is_lost_ends_it_and_loses_nothing(files, tmp_path):
    """SIGKILL to the scheduler while patches are made: an error within seconds, no output, and --resume."""
    pytest.importorskip("distributed")
    with cluster_at(find_port()) as (address, scheduler):
        code, said = cut_off(files, tmp_path / "out.fits", address, scheduler.kill)
    assert code == 2
    assert b"error: the connection to the cluster was lost; what is done is kept" in said


@pytest.mark.slow
def test_a_network_that_falls_silent_ends_it_too(files, tmp_path):
    """Every packet between program, scheduler and worker is dropped, and nobody is told."""
    pytest.importorskip("distributed")
    if None in map(shutil.which, ("unshare", "nsenter", "ip")) or subprocess.run(["unshare", "-n", "true"]).returncode:
        pytest.skip("may not make a network of its own")
    with subprocess.Popen(["unshare", "-n", "sleep", "300"]) as holder:
        try:
            inside = ["nsenter", "-t", str(holder.pid), "-n"]
            network = [*inside, "ip", "link", "set", "lo"]
            while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.01)
            subprocess.run([*network, "up"], check=True)
            with cluster_at(find_port(), *inside) as (address, _):
                drop = [*network, "down"]
                code, said = cut_off(files, tmp_path / "out.fits", address, lambda: subprocess.run(drop), *inside)
        finally:
            holder.kill()
    assert code == 2
    assert b"error: the connection to the cluster was lost; what is done is kept" in said


def find_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Fails(Mean):
    """A mean that cannot add what is as bright as the brightest star."""

    def value(self, images, variances, used, weights):
        if (images * used).max() > 3500.0:
            raise ZeroDivisionError("no such thing")
        return super().value(images, variances, used, weights)


def test_a_patch_that_raises_is_empty_and_named(files, tmp_path):
    plan = planned([CoaddInput(f) for f in files], **asked(patch=64) | {"method": Fails()})
    made = run_coadd(plan, Store(tmp_path))
    (failed,) = made.failed
    assert failed.contains(Box(97, 93, 98, 94))  # the brightest star
    assert made.failed[failed] == "ZeroDivisionError: no such thing"
    empty = made.count == 0
    assert empty[failed.slices(GRID.box)].all()
    assert empty[: failed.y0].mean() < 0.05  # what is masked in all three


class Hungry(Mean):
    """A mean that takes memory without end for what is as bright as the brightest star."""

    def value(self, images, variances, used, weights):
        taken = []
        while (images * used).max() > 3500.0 and len(taken) < 100:
            taken.append(np.ones(2**22))
            time.sleep(0.02)
        return super().value(images, variances, used, weights)


@pytest.mark.slow
def test_a_patch_that_takes_too_much_memory_is_named(files, tmp_path):
    """Dask ends the worker that works on it, and those that come after it; the other patches are made."""
    distributed = pytest.importorskip("distributed")
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, memory_limit="700MB", scheduler_kwargs=NO_PAGES
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            plan = planned([CoaddInput(f) for f in files], **asked(patch=64) | {"method": Hungry()})
            made = run_coadd(plan, Store(tmp_path), crew=Crew(client))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    star = Box(97, 93, 98, 94)
    assert [words for box, words in made.failed.items() if box.contains(star)] == [
        "KilledWorker: the process that worked on it died"
    ]
    assert len(made.failed) <= 2  # and one that waited for the same worker
    empty = made.count == 0
    for box in made.failed:
        empty[box.slices(GRID.box)] = False
    assert empty.mean() < 0.05  # what is masked in all three


def test_an_input_that_is_away_is_named_and_taken_when_it_is_back(files, tmp_path):
    own = [shutil.copy(file, tmp_path) for file in files]
    store = Store(tmp_path / "parts")
    store.folder.mkdir()
    plan = a_plan(own, store, patch=64)
    away = shutil.move(own[1], tmp_path / "away")
    with_loss = run_coadd(plan, store)
    assert with_loss.rows[1].reason.startswith("missing in 6 patches: ")
    assert "e1.fits" in with_loss.rows[1].reason
    assert with_loss.failed == {}
    assert with_loss.count.max() == 2
    shutil.move(away, own[1])
    again = run_coadd(plan, store)
    assert again.rows[1].reason == ""
    np.testing.assert_array_equal(again.exposure.image, run_coadd(plan, Store(tmp_path)).exposure.image)


def test_compressed_inputs_are_unpacked_once(files, tmp_path):
    """They are read from their file when they are solved for, and then no more."""
    packed = tmp_path / "e0.fits.gz"
    psfmatch.write_exposure(psfmatch.read_exposure(files[0]), packed)
    store = Store(tmp_path / "parts")
    store.folder.mkdir()
    plan = a_plan([packed, files[1]], store)
    assert [one.unpacked is not None for one in plan.inputs] == [True, False]
    packed.unlink()
    made = run_coadd(plan, store)
    np.testing.assert_array_equal(made.exposure.image, run_coadd(a_plan(files[:2]), Store(tmp_path)).exposure.image)


def test_a_damaged_piece_is_made_again(files, tmp_path):
    store = Store(tmp_path)
    made = run_coadd(a_plan(files[:2], store, patch=64), store)
    for name in ("input-000000.npz", "patch-000000-000000-000044-000061.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    again = run_coadd(a_plan(files[:2], store, patch=64), store)
    np.testing.assert_array_equal(made.exposure.image, again.exposure.image)


def test_a_patch_takes_no_more_than_is_foreseen():
    grid = Grid.centered(186.7, 25.4, shape=(470, 440), pixel_scale=0.263)
    frames = [CoaddInput(constant(one(k, shape=(560, 520), masked=0.05), k), name=f"e{k}") for k in range(3)]
    plan = planned(frames, **asked() | {"grid": grid})
    (box,) = plan.patches
    run = sys.modules["psfmatch.coadd.run"]
    tracemalloc.start()
    run.coadd_patch(plan, box)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < plan.bytes_of(box, 1)


def test_no_plane_of_the_coadd_is_held_in_memory(files, tmp_path):
    """A grid of 8 Mpix, of which the inputs touch a corner: 110 MB of planes."""
    grid = Grid(GRID.wcs, (2900, 2700))
    plan = planned([CoaddInput(files[0])], **asked() | {"grid": grid})
    store = Store(tmp_path)
    run_patches(plan, store)
    tracemalloc.start()
    write_coadd(plan, store, tmp_path / "out.fits")
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    patch = 14 * max(box.shape[0] * box.shape[1] for box in plan.patches)
    assert taken < 1.5 * patch + 2e6
    with fits.open(tmp_path / "out.fits", checksum=True) as hdus:
        assert hdus["NEXP"].data.shape == grid.shape


def test_the_time_left_is_that_of_what_was_done_now():
    """Four of sixteen parts were there before; three took a minute."""
    assert pace_words(3, 9, 16, 60.0, "Mpix", 32.0) == ", 0.1 Mpix/s, 3 min left"
    assert pace_words(3, 0, 7, 6.0, "Mpix", 70.0) == ", 5 Mpix/s"
    assert pace_words(0, 16, 16, 5.0, "Mpix", 32.0) == ""


def test_progress_is_a_line_where_there_is_no_terminal(capsys):
    with Console(progress=True).pace("patches", "Mpix", 12.0) as step:
        step(2, 4)
        step(4, 4)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "2 of 4 patches"
    assert second.startswith("4 of 4 patches, ")
    with Console().pace("patches", "Mpix", 12.0) as step:
        step(2, 4)
    assert capsys.readouterr().err == ""
