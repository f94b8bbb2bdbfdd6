"""When a training is saved: so often that it takes a small share of the time, and in pieces."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np

from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.pieces import Pieces
from epi2expr_jax.training.planning import MemoryPlan
from epi2expr_jax.training.runs import FINISHED, Log

_SHARE = 0.05  # of the time, unless minutes are given
_PIECE = 256 << 20  # bytes of states that are gathered on the host and written together


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
        spent = self._blocked + self.pieces.seconds / (os.cpu_count() or 1)
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
