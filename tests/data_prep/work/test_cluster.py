"""Dask clusters whose tasks fail, whose workers die, and that are not fit for the work."""

import contextlib
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections import Counter

import pytest
from distributed import Client, LocalCluster

from data_prep.formats.track_sheet import read_sheet
from data_prep.work import cluster
from data_prep.work.cluster import join, local, run_each
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer

NEEDED = ["data_prep.formats.bin_means"]  # which the workers must be able to import


@pytest.fixture(scope="module")
def tracks(roadmap):
    return read_sheet(roadmap / "tracks.csv").tracks


def test_tasks_that_fail_and_workers_that_die_are_tried_again(tracks, tmp_path, monkeypatch):
    """One task fails once, one kills its worker, one fails whenever it is tried.

    Then Ctrl-C, which ends workers at work at once; of them, and of those that a killed program
    left, no folder stays.
    """
    scratch = tmp_path / "scratch"
    (scratch / "epi2expr-workers-killed").mkdir(parents=True)
    (scratch / "epi2expr-workers-alive").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    fails, kills, broken, *sound = tracks

    def task(track, folder):
        name = f"{track.cell}-{track.assay}"
        tries = len(list(pathlib.Path(folder).glob(f"{name}.*"))) + 1
        (pathlib.Path(folder) / f"{name}.{tries}").touch()
        if track == broken:
            raise RuntimeError("broken for good")
        if track == fails and tries == 1:
            raise OSError("the disk was away")
        if track == kills and tries == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    alive = only_writer(scratch / "epi2expr-workers-alive")
    with contextlib.suppress(KeyboardInterrupt), alive, local(2, 1) as client:
        with pytest.raises(InputError) as caught:
            run_each(client, task, tracks, "trying", str(tmp_path), retries=2)
        asleep = [client.submit(time.sleep, 60, pure=False) for _ in range(2)]
        while sum(map(len, client.processing().values())) < len(asleep):
            time.sleep(0.02)
        begin = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 2
    assert [path.name for path in scratch.iterdir()] == ["epi2expr-workers-alive"]
    (problem,) = caught.value.problems
    assert problem.where == f"{broken.cell}-{broken.assay}"
    assert problem.found == "RuntimeError: broken for good (3 attempts)"
    tries = Counter(path.stem for path in tmp_path.glob("*-*.?"))
    # What a worker had done before it died may be done again.
    assert all(tries[f"{track.cell}-{track.assay}"] >= 1 for track in sound)
    for track, count in {fails: 2, kills: 2, broken: 3}.items():
        assert tries[f"{track.cell}-{track.assay}"] == count


def test_when_all_workers_are_gone_it_ends(tracks, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LOOK_S", 0.3)

    def task(track):
        raise AssertionError(f"nobody is there to read {track}")

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as scheduler,
        Client(scheduler) as client,
    ):
        client.retire_workers()
        with pytest.raises(InputError, match="any more, and 6 tracks not done"):
            run_each(client, task, tracks, "trying", retries=0)


def test_when_the_scheduler_is_gone_it_ends(tracks):
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as scheduler:
        client = Client(scheduler)
    with pytest.raises(InputError, match="no scheduler any more, and 6 tracks not done"):
        run_each(client, print, tracks, "trying", retries=0)
    client.close()


def test_workers_that_cannot_work_are_named_at_once(tmp_path, monkeypatch):
    """Dask would wait for ever for one that lacks the package."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as scheduler,
        Client(scheduler) as client,
    ):
        address = scheduler.scheduler_address
        with join(address, tmp_path, NEEDED) as joined:
            assert len(joined.nthreads()) == 2
        assert list(tmp_path.iterdir()) == []
        first, second = client.nthreads()
        lacking = dict.fromkeys(NEEDED)
        client.run(lambda: sys.modules.update(lacking), workers=[first])
        client.run(lambda: setattr(os.path, "exists", lambda path: False), workers=[second])
        with pytest.raises(InputError) as caught, join(address, tmp_path, NEEDED):
            pass
        package, folder = map(str, caught.value.problems)
        assert first in package
        assert "install epi2expr_jax" in package
        assert second in folder
        assert "shared file system" in folder
        client.retire_workers()
        monkeypatch.setattr(cluster, "FIRST_WORKER_S", 0.5)
        with pytest.raises(InputError, match="without a worker"), join(address, tmp_path, NEEDED):
            pass
    with pytest.raises(InputError, match="no Dask scheduler"), join("tcp://x", tmp_path, NEEDED):
        pass
