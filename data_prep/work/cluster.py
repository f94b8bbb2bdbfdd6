"""Where tracks are read: processes on this machine, or the workers of a Dask cluster."""

import contextlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

from dask import config
from distributed import Client, KilledWorker, LocalCluster, wait
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from tqdm import tqdm

from data_prep.formats.track_sheet import Track
from data_prep.work.workers import no_worker_left
from epi2expr_jax.ending import sparing_children
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import scratch
from epi2expr_jax.genome import listing

_SCRATCH = "epi2expr-workers-"  # begins the name of a temporary folder
_WORKER_LOG_LEVEL = "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED"
# How long to wait for a first worker (clusters may start them when there is work), and how often
# to look whether there are any while none returns a track.
FIRST_WORKER_S = 600.0
LOOK_S = 60.0


@contextlib.contextmanager
def local(workers: int, worker_gib: float) -> Iterator[Client]:
    """A client to `workers` processes on this machine, each restarted beyond its memory.

    In the end they are killed, whatever they do.
    """
    with (
        scratch(_SCRATCH) as folder,
        config.set({"temporary_directory": folder, _WORKER_LOG_LEVEL: "critical"}),
        _silent(),
        no_worker_left() as end,
    ):
        with sparing_children():
            # Processes, spawned: neither pyBigWig handles nor TensorStore survive a fork.
            cluster = LocalCluster(
                n_workers=0,  # they take seconds, in which an interrupt must count
                threads_per_worker=1,
                processes=True,
                memory_limit=int(worker_gib * 2**30),
                dashboard_address=":0",  # any free port: builds may run side by side
                silence_logs=logging.CRITICAL,  # failures are reported here; the rest is its ending
            )
        with cluster, Client(cluster) as client:
            try:
                cluster.scale(workers)
                yield client
            finally:
                for nanny in cluster.workers.values():
                    nanny.close_gracefully()  # not to be started again
                end.set()  # a cluster that closes waits for what its workers are at


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence `distributed` by its level: where the program had set up logging before importing it,
    it has no handler of its own.
    """
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def join(address: str, folder: pathlib.Path, modules: Collection[str]) -> Iterator[Client]:
    """A client to a running Dask cluster, whose workers see `folder` and can import `modules`.

    Raises:
        InputError: if no scheduler answers, no worker comes, or naming workers that cannot work.
    """
    where = f"--scheduler_address={address}"
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise InputError(
            where,
            f"no Dask scheduler ({error})",
            "the address that `dask scheduler` printed, such as tcp://10.0.0.1:8786",
            "start it and its workers, or leave the flag out to use this machine",
        ) from None
    with client:
        _require_able(client, where, folder, sorted(modules))
        yield client


def _require_able(client: Client, where: str, folder: pathlib.Path, modules: Sequence[str]) -> None:
    # Of what a worker cannot import Dask makes a wait without end. So this is asked first, by a
    # function that is sent by value, as those are that are defined within another.
    def imports_and_sees(path: str) -> bool:
        import importlib

        for name in modules:
            importlib.import_module(name)
        return os.path.exists(path)

    with tempfile.NamedTemporaryFile(dir=folder, prefix=".epi2expr-") as token:
        # It may wait for a worker behind another build's tasks, but not for there to be one.
        first = [client.submit(os.getpid, pure=False)]
        if wait_some(first, FIRST_WORKER_S) and not client.nthreads():
            raise InputError(
                where,
                f"a Dask scheduler without a worker for {FIRST_WORKER_S / 60:.0f} minutes",
                "one worker or more",
                f"start them: dask worker {where.partition('=')[2]}",
            )
        answers: Any = client.run(imports_and_sees, token.name, on_error="return")
    errors = {name: answer for name, answer in answers.items() if isinstance(answer, BaseException)}
    blind = [name for name, answer in answers.items() if answer is False]
    with collect() as problems:
        if errors:
            said = listing({f"{type(error).__name__}: {error}" for error in errors.values()})
            problems.add(
                where,
                f"workers that cannot import {' and '.join(modules)}: {listing(errors)} ({said})",
                "the environment of this process",
                "install epi2expr_jax where the workers run",
            )
        if blind:
            problems.add(
                where,
                f"workers that do not see what is in {folder}: {listing(blind)}",
                "folders that all machines share",
                "put store and tracks on a shared file system",
            )


def wait_some(futures: Sequence, seconds: float) -> list:
    """Wait until one of the futures is done; those that are not, all if the time ran out."""
    try:
        done: Any = wait(futures, timeout=seconds, return_when="FIRST_COMPLETED")
        return list(done.not_done)
    except TimeoutError:
        return list(futures)


def attempt(task: Callable[..., None], track: Track, *args: Any) -> InputError | None:
    """Run a task on a worker. Bad input is returned, for it would be as bad a second time; what
    else fails is raised, and tried again by Dask."""
    try:
        task(track, *args)
    except InputError as error:
        return error
    return None


def run_each(
    client: Client,
    task: Callable[..., None],
    tracks: Sequence[Track],
    label: str,
    *args: Any,
    retries: int,
) -> None:
    """Run one task a track, with progress.

    Args:
        client: of the workers.
        task: called with a track and `args`.
        tracks: what to call it with.
        label: what is done, for the progress bar.
        args: further arguments of the task.
        retries: further attempts where something else than bad input fails.

    Raises:
        InputError: naming the tracks that failed, after all others are done; or if all workers are
            lost.
    """
    left: list = list(tracks)
    with collect() as problems:
        try:
            futures = {
                client.submit(attempt, task, track, *args, pure=False, retries=retries): track
                for track in tracks
            }
            left, looks = list(futures), 0
            with tqdm(total=len(tracks), desc=label, unit="track", disable=None) as progress:
                while left:
                    waiting = wait_some(left, LOOK_S)
                    # Twice without a worker: one that is only being restarted is back by then.
                    looks = looks + 1 if waiting == left and not client.nthreads() else 0
                    if looks > 1:
                        raise _lost(len(left))
                    for future in set(left) - set(waiting):
                        progress.update()
                        with problems.part():
                            _require_done(future, futures[future], retries)
                    left = waiting
        except (CancelledError, ClosedClientError, CommClosedError):  # the scheduler is gone
            raise _lost(len(left)) from None


def _require_done(future: Any, track: Track, retries: int) -> None:
    error, name = future.exception(), f"{track.cell}-{track.assay}"
    if isinstance(error, KilledWorker):
        raise InputError(
            name,
            "a task that ended its worker each time",
            "memory for a track",
            "give more --worker_gib, or fewer --workers, then run the same command again",
        )
    if error:
        raise InputError(
            name,
            f"{type(error).__name__}: {error} ({retries + 1} attempts)",
            "a track that can be read",
            "look at its file; the other tracks are done, a rerun does this one alone",
        )
    if bad_input := future.result():
        raise bad_input


def _lost(left: int) -> InputError:
    return InputError(
        "Dask cluster",
        f"no worker or no scheduler any more, and {left} tracks not done",
        "workers that stay",
        "start workers, with more memory if they ran out of it, then run the same command again: "
        "it does only what is missing",
    )
