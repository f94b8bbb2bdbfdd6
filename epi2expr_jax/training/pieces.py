"""What a training keeps as it goes: checkpoints of several runs, and what is known of each run.

It is saved so often that this takes a small share of the time, and in pieces.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epi2expr_jax.errors import Problem, collect
from epi2expr_jax.files import is_partial, read_json, write_json
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.planning import MemoryPlan
from epi2expr_jax.training.runs import FINISHED, Log

_NUMBER = "-" + 6 * "[0-9]"  # of a piece, in the names of its files
_SHARE = 0.05  # of the time, unless minutes are given
_CORES = os.cpu_count() or 1  # asked once: after every chunk it would cost 0.1 ms
_PIECE = 256 << 20  # bytes of states that are gathered on the host and written together

# The kind of a piece; what is known of some runs, a record each; their arrays, stacked on `R`.
Part = tuple[str, list[dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A checkpoint of some runs, and what is known of each.

    Attributes:
        path: the checkpoint, arrays stacked on `R`.
        records: one a row, as they were saved.
    """

    path: pathlib.Path
    records: list[dict[str, Any]]

    def restore(self, template: Any) -> Any:
        """Its rows in the structure of `template`, which is that of one run.

        Raises:
            InputError: if it cannot be read; listing all leaves that are missing, surplus or of
                another shape.
        """
        rows = len(self.records)
        stacked = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), template
        )
        return checkpoint.restore(self.path, stacked)

    def short_of(self, epochs: int) -> bool:
        """Whether a run of it ended because it had taken all of fewer epochs than these."""
        return any(Log(**record["log"]).short_of(epochs) for record in self.records)


class Pieces:
    """The checkpoints of the runs of one process, written in the background.

    `state-N` holds runs under way, and is removed once each of them has been saved anew; `best-N`
    holds the best weights of runs that ended: of those that took all their epochs apart, whose last
    states are in a `last-N`, so that they can go on. The records of the rows lie next to each as
    `NAME.json`, written first: a piece is whole when its checkpoint is. `NAME.sha256`, the last,
    tells whether either has changed; pieces of older versions have none.

    Args:
        folder: of this process alone; other processes have folders next to it.

    Attributes:
        seconds: what writing has taken so far, in the background.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for leftover in [*folder.glob("*orbax-checkpoint-tmp*"), *folder.glob(f"*{_NUMBER}.*")]:
            if leftover.is_dir():  # of a save that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            elif is_partial(leftover):
                leftover.unlink()
        found = [path.with_suffix("") for path in folder.glob(f"*{_NUMBER}.json")]
        self._number = max((int(path.name.split("-")[1]) for path in found), default=0)
        for path in found:
            if not path.is_dir():  # its records alone: killed before the rest
                remove_piece(path)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._written: concurrent.futures.Future | None = None
        self._newest: dict[str, pathlib.Path] = {}  # the state of each run
        self.seconds = 0.0

    def hold(self, states: Iterable[Piece]) -> None:
        """What an earlier process saved: each piece goes once its runs have been saved anew."""
        for piece in states:
            if piece.path.parent == self.folder:
                self._newest |= {record["run_id"]: piece.path for record in piece.records}

    def save(self, *parts: Part) -> None:
        """Begin to write pieces, of parts of states one; states come last.

        Raises:
            InputError: if the disk refused what was begun before.
        """
        self.wait()
        pieces: list[tuple[pathlib.Path, list[Part]]] = []
        for part in parts:
            if pieces and part[0] == "state" == pieces[-1][1][0][0]:
                pieces[-1][1].append(part)
            elif part[1]:
                self._number += 1
                pieces.append((self.folder / f"{part[0]}-{self._number:06d}", [part]))
        self._written = self._writer.submit(self._write, pieces)

    def _write(self, pieces: list[tuple[pathlib.Path, list[Part]]]) -> None:
        begin, before = time.perf_counter(), set()
        for path, parts in pieces:
            records = [record for _, own, _ in parts for record in own]
            tree = jax.tree.map(_joined, *(own for _, _, own in parts))
            write_json(path.with_suffix(".json"), records, sort_keys=False)
            checkpoint.write(path, _as_replicas(checkpoint.named(tree)))
            write_json(path.with_suffix(".sha256"), _sums(path))
            for run in [record["run_id"] for record in records]:
                before.add(self._newest.pop(run, path))
                if parts[0][0] == "state":
                    self._newest[run] = path
        written = {path for path, _ in pieces}
        for path in before - written - set(self._newest.values()):
            remove_piece(path)
        self.seconds += time.perf_counter() - begin

    def wait(self) -> None:
        """Until everything is written and older states are gone.

        Raises:
            InputError: if the disk refused.
        """
        written, self._written = self._written, None
        if written:
            try:
                written.result()
            except OSError as error:  # of the records
                raise checkpoint.refused(self.folder, error) from error

    def close(self) -> None:
        """Wait, and end the background writing."""
        self.wait()
        self._writer.shutdown()


class Saver:
    """Saves the runs of a population as they train, each again after some time.

    What was last saved longest ago comes first, since each chunk of runs has its own clock. While
    a chunk is fetched the device computes the next one, and files are written in the background.

    Args:
        pieces: where to.
        memory: bytes of a run's state.
        records: what is kept of runs next to their arrays, given who they are and all logs.
        minutes: between two saves of a run; None: as it takes to keep within 5 % of the time.
    """

    def __init__(
        self,
        population: Population,
        pieces: Pieces,
        memory: MemoryPlan,
        records: Callable[[list[int], list[Log]], list[dict[str, Any]]],
        minutes: float | None,
    ):
        self.population, self.pieces, self.memory = population, pieces, memory
        self.records, self.minutes = records, minutes
        self._begun = time.monotonic()
        self._saved: dict[int, float] = {}  # when each run was
        self._unsaved: set[int] = set()  # that have advanced since
        self._parts: list[tuple[str, list[int], Any]] = []  # fetched, not written yet
        self._rows = 0  # runs in them
        self._blocked, self._written = 0.0, 0  # seconds that training waited; states written

    @property
    def interval(self) -> float:
        """Seconds between two saves of a run."""
        if self.minutes is not None:
            return 60 * self.minutes
        # Writing in the background keeps about one core busy.
        spent = self._blocked + self.pieces.seconds / _CORES
        lanes = self.population.chunks * self.population.lanes.count
        return spent / max(self._written, 1) * min(lanes, self.population.alive) / _SHARE

    def advanced(self, runs: list[int]) -> None:
        """Save these runs of one chunk, which have just advanced, if it is time."""
        self._unsaved.update(runs)
        last = min(self._saved.get(run, self._begun) for run in runs)
        if time.monotonic() - last >= self.interval:
            with self._timed():
                self._fetch(runs)

    def epoch_ends(self) -> None:
        """Write what was fetched, and the weights of runs that have ended since."""
        if self._parts:
            with self._timed():
                self._write()

    def everything(self) -> None:
        """Save all that has not been saved, as before an end."""
        with self._timed():
            self._fetch(set(self._unsaved))
            self._write()

    def _fetch(self, runs: Collection[int]) -> None:
        for members, states in self.population.states(runs):
            self._parts.append(("state", members, states))
            self._rows += len(members)
            if self._rows * self.memory.state_bytes >= _PIECE:
                self._write()
        self._saved.update(dict.fromkeys(runs, time.monotonic()))
        self._unsaved.difference_update(runs)

    def _write(self) -> None:
        ended, weights = self.population.take_ended()
        logs = self.population.logs
        at_limit = np.array([logs[i].status == FINISHED for i in ended], bool)
        parts = [
            ("best", [i for i, own in zip(ended, of, strict=True) if own],
             jax.tree.map(lambda x, of=of: x[of], weights))
            for of in (~at_limit, at_limit)
        ]  # fmt: skip
        parts += [("last", *self.population.take_last()), *self._parts]
        self.pieces.save(*((kind, self.records(own, logs), tree) for kind, own, tree in parts))
        self._written += self._rows
        self._parts, self._rows = [], 0

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._blocked += time.monotonic() - begin


def _joined(*arrays: np.ndarray) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _sums(path: pathlib.Path) -> dict[str, str]:
    """Of a piece: its checkpoint and its records."""
    return {
        "weights": checkpoint.files_sha256(path),
        "records": checkpoint.files_sha256(path.with_suffix(".json")),
    }


def read_pieces(folder: pathlib.Path, kind: str) -> tuple[list[Piece], list[Problem]]:
    """The pieces of a kind (`state`, `best` or `last`) in a folder of processes' folders.

    Returns:
        Those that are as they were written, and what is wrong with each of the others.
    """
    pieces: list[Piece] = []
    problems = collect()
    for path in sorted(folder.glob(f"*/{kind}{_NUMBER}.json")):
        if path.with_suffix("").is_dir():
            with problems.part():
                pieces.append(_read_piece(path))
    return pieces, problems.found


def _read_piece(path: pathlib.Path) -> Piece:
    piece, sums = path.with_suffix(""), path.with_suffix(".sha256")
    if not sums.exists():  # of an older version: what can be read will do
        checkpoint.readable(piece)
    elif read_json(sums, "checksums", "train again") != _sums(piece):
        raise checkpoint.damaged(piece, checkpoint.CHANGED)
    return Piece(piece, read_json(path, "list of runs", "train again", list))


def remove_piece(path: pathlib.Path) -> None:
    """Remove a checkpoint and what lies next to it."""
    shutil.rmtree(path, ignore_errors=True)
    for suffix in (".sha256", ".json"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def remove_states(folder: pathlib.Path, epochs: int) -> None:
    """Remove what only an interrupted training needs, and what runs were that went on since."""
    for path in folder.glob("*/state-*"):
        remove_piece(path.with_suffix(""))
    for piece in [*read_pieces(folder, "best")[0], *read_pieces(folder, "last")[0]]:
        if piece.short_of(epochs):
            remove_piece(piece.path)


def _as_replicas(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as this process's replicas of global ones, if there are several processes.

    Orbax writes an array of one process's own only for the first process. Of a replicated array it
    writes the replica it is told to; here there is no other.
    """
    count = jax.process_count()
    if count == 1:
        return flat
    devices = [next(d for d in jax.devices() if d.process_index == i) for i in range(count)]
    sharding = NamedSharding(Mesh(np.array(devices), ("process",)), PartitionSpec())
    return {
        name: jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)
        for name, leaf in flat.items()
    }
