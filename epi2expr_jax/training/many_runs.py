"""MANY runs: side by side on all local devices, one compiled program, one call a chunk.

Knows nothing of any model: it maps a `Trainer`'s pure functions over runs. A chunk is `L` lanes on
each device; how many runs there are changes how many chunks there are, never a chunk's width nor
the program. So a run's result is the same bit for bit whatever its neighbours, the number of
devices, and where it was resumed. Runs that have ended leave, waiting ones take their lanes.
"""

import collections
import contextlib
import ctypes
import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from epi2expr_jax.errors import OutOfMemory
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models.weights import drawn_as_one
from epi2expr_jax.training.lanes import (
    Lanes,
    epoch,
    first_states,
    packed,
    packed_shapes,
    packings,
    unpacked,
)
from epi2expr_jax.training.one_run import RunState, Trainer
from epi2expr_jax.training.runs import (
    FINISHED,
    RUNNING,
    Log,
    Run,
    RunInputs,
    second_key,
)

# Weights drawn by one call, as long as they take no more bytes than that.
_DRAWS, _DRAWN_BYTES = 64, 64 << 20


def _rows(arrays: Any, lanes: Collection[int]) -> dict[int, Any]:
    """Of a chunk's arrays those of some lanes, on the host."""
    arrays = jax.device_get(arrays)
    return {lane: jax.tree.map(lambda x, own=lane: np.array(x[own]), arrays) for lane in lanes}


def _stacked(rows: Sequence[list]) -> list[np.ndarray]:
    """The arrays of several runs, stacked."""
    return [np.stack(parts) for parts in zip(*rows, strict=True)]


@dataclasses.dataclass
class _Chunk:
    """Runs in lanes: which, their state and inputs on the devices. A lane may stand empty."""

    members: list[int | None]
    state: tuple[list[jax.Array], list[jax.Array]]  # `packed`
    inputs: RunInputs
    tracks: tuple | None = None  # what it reads, where the tracks of all runs stay


class Population:
    """Runs that share one model shape, and so one compiled program.

    Args:
        trainer: the pure functions of one run.
        runs: what each run is, `R` of them; those of one cell best stand together.
        inputs: what they are trained on, stacked on `R`, on the host.
        cache: their tracks.
        lanes: by default all local devices.
        at_once: runs whose state is on the devices together; the others wait. None for all.
        saved: states to go on from, by index, on the host; and the logs of all runs.
        fresh: gives the first state of a run, by index; by default its weights are drawn.
    """

    def __init__(
        self,
        trainer: Trainer,
        runs: Sequence[Run],
        inputs: RunInputs,
        cache: TrackCache,
        lanes: Lanes | None = None,
        at_once: int | None = None,
        saved: tuple[dict[int, RunState], list[Log]] | None = None,
        fresh: Callable[[int], RunState] | None = None,
    ):
        self._fresh = fresh
        self.trainer = trainer
        self.runs = list(runs)
        self.inputs = dataclasses.replace(inputs, model_key=np.array(inputs.model_key))
        self.cache = cache
        self.lanes = lanes or Lanes.default()
        self._streams = cache.streams(pair for run in self.runs for pair in run.tracks)
        self.chunks_at_once = max(1, (at_once or len(self.runs)) // self.lanes.count)
        self.chunks_at_once += at_once is None  # the last chunk need not be full
        # Of those without, weights are drawn when their turn comes.
        self._states, self.logs = saved or ({}, [Log() for _ in self.runs])
        for i in [i for i, log in enumerate(self.logs) if log.restarted]:
            self.inputs.model_key[i] = second_key(self.inputs.model_key[i])
        waiting = [i for i, log in enumerate(self.logs) if log.status == RUNNING]
        self.alive = len(waiting)  # that train, or wait to
        self._waiting = collections.deque(sorted(waiting, key=lambda i: i not in self._states))
        self._chunks: list[_Chunk] = []
        self._ended: dict[int, list[np.ndarray]] = {}
        self._last: dict[int, list[np.ndarray]] = {}
        self._drawn: dict[int, list[np.ndarray]] = {}  # weights of runs whose turn comes next
        self._draws = self.lanes.count
        self._compiled = False
        self._best, self._rest = packings(trainer)
        self._shapes = trainer.state_shapes()
        if drawn_as_one(trainer.model_config):  # then each the same, however many are drawn
            weights = jax.tree.leaves((self._shapes.best_params, self._shapes.best_stats))
            bytes_a_run = sum(x.size * x.dtype.itemsize for x in weights)
            room = min(_DRAWS, _DRAWN_BYTES // bytes_a_run)
            # Few runs by themselves: more would be drawn than are, and by a program of their own.
            self._draws = max(self._draws, room if len(self.runs) >= room else 0)

    @property
    def chunks(self) -> int:
        """How many chunks the next epoch computes."""
        room = max(0, self.chunks_at_once - len(self._chunks))
        return len(self._chunks) + min(room, -(-len(self._waiting) // self.lanes.count))

    def train_epoch(self) -> None:
        """Advance every run that has a lane by one epoch."""
        for _ in self.advance():
            pass

    def advance(self) -> Generator[list[int], None, None]:
        """Advance every run that has a lane by one epoch; yields after each chunk who that was.

        A caller may stop at any yield and close the iterator: all that has been computed is then in
        the logs, and in `states` or `take_ended`.

        Raises:
            OutOfMemory: the devices' memory does not suffice; states may be lost.
        """
        self.compile()
        self._refill()
        ahead = 0 if self._streams else 1  # chunks under way while another is begun
        under_way: collections.deque[tuple[_Chunk, tuple]] = collections.deque()
        try:
            # While the device computes a chunk, the next is made, and what ended before is kept.
            for i in itertools.count():
                if i == len(self._chunks) and not self._grow():
                    break
                chunk = self._chunks[i]
                under_way.append((chunk, self._begin(chunk, self._next(i + 1))))
                if len(under_way) > ahead:
                    yield self._log(*under_way.popleft())
            while under_way:
                yield self._log(*under_way.popleft())
        except GeneratorExit:  # the caller stops halfway
            while under_way:
                self._log(*under_way.popleft())
            self._release()
            raise
        self._release()

    def compile(self) -> None:
        """Compile an epoch before there are states: the memory that takes is theirs afterwards."""
        if self._compiled or not self._waiting:
            return
        members: list[int | None] = [self._waiting[0]] * self.lanes.count
        state, inputs = packed_shapes(self.trainer, self.lanes), self._inputs(members)
        runs = [self.runs[i] for i in members if i is not None]
        with _memory_named():
            tracks = self.lanes.tracks(self.cache, runs)
            epoch.lower(self.trainer, self.lanes, state, inputs, tracks).compile()
        self._compiled = True
        # The C library keeps what the compiler freed, some 400 MB for Chromoformer, unless told.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        if not self._chunks:  # which compiles what makes chunks
            self._grow()

    def _next(self, i: int) -> list[Run]:
        """What the lanes of a chunk will read, of one that is not there yet, or of the first."""
        if i < len(self._chunks):
            return self._reading(self._chunks[i])
        if i < self.chunks:
            return [self.runs[j] for j in itertools.islice(self._waiting, self.lanes.count)]
        return self._reading(self._chunks[0])

    def _begin(self, chunk: _Chunk, following: list[Run]) -> tuple[jax.Array, jax.Array]:
        """Begin a chunk's epoch; the device works on while its tracks for the next are read."""
        reading = self._reading(chunk)
        with _memory_named():
            tracks = chunk.tracks or self.lanes.tracks(self.cache, reading)
            if not self._streams:
                chunk.tracks = tracks
            chunk.state, *record = epoch(
                self.trainer, self.lanes, chunk.state, chunk.inputs, tracks
            )
        keep = [pair for run in reading for pair in run.tracks]
        for lane, run in enumerate(following):
            self.cache.read_ahead(run.tracks, self.lanes.device(lane), keep)
        return tuple(record)

    def _reading(self, chunk: _Chunk) -> list[Run]:
        """Whose tracks each lane reads; an empty one those of another."""
        someone = next((i for i in chunk.members if i is not None), None)
        if someone is None:  # all have ended just now
            return []
        return [self.runs[someone if i is None else i] for i in chunk.members]

    def _log(self, chunk: _Chunk, record: tuple[jax.Array, jax.Array]) -> list[int]:
        with _memory_named():
            losses, statuses = (np.asarray(values).tolist() for values in record)
        advanced = []
        for lane, i in enumerate(chunk.members):
            if i is None or self.logs[i].status != RUNNING:
                continue
            log = self.logs[i]
            lists = log.train_loss, log.validation_loss, log.learning_rate
            for values, value in zip(lists, losses[lane], strict=True):
                values.append(value)
            log.bad_step, log.status = statuses[lane]
            self.alive -= log.status != RUNNING
            advanced.append(i)
        self._keep_ended(chunk)
        return advanced

    # -- who has a lane ----------------------------------------------------------------------

    def _keep_ended(self, chunk: _Chunk) -> None:
        """Take out the runs of a chunk that have ended; those that try again stay."""
        ended = {
            lane: i
            for lane, i in enumerate(chunk.members)
            if i is not None and self.logs[i].status != RUNNING
        }
        if self.trainer.config.retry and not self._fresh:
            for lane in [lane for lane, i in ended.items() if self.logs[i].flat_at_once]:
                self._restart(chunk, lane, ended.pop(lane))
        if not ended:
            return
        full = [lane for lane, i in ended.items() if self.logs[i].status == FINISHED]
        best, rest = chunk.state
        for kept, lanes, arrays in ((self._ended, [*ended], best), (self._last, full, rest)):
            own = _rows(arrays, lanes) if lanes else {}
            kept.update({ended[lane]: row for lane, row in own.items()})
        for lane in ended:
            chunk.members[lane] = None

    def _release(self) -> None:
        """Gather the runs that go on in as few chunks as hold them."""
        living = sum(i is not None for chunk in self._chunks for i in chunk.members)
        self._chunks = [
            chunk for chunk in self._chunks if any(i is not None for i in chunk.members)
        ]
        spare = len(self._chunks) - -(-living // self.lanes.count)
        self._chunks.sort(key=lambda chunk: sum(i is None for i in chunk.members))
        for _ in range(spare):
            chunk = self._chunks.pop()
            lanes = {lane: i for lane, i in enumerate(chunk.members) if i is not None}
            for lane, own in reversed(_rows(chunk.state, lanes).items()):
                self._states[lanes[lane]] = unpacked(self.trainer, own)
                self._waiting.appendleft(lanes[lane])
        if spare:
            self._refill()

    def _restart(self, chunk: _Chunk, lane: int, i: int) -> None:
        """A second attempt in a run's lane."""
        first = unpacked(self.trainer, _rows(chunk.state, [lane])[lane])
        key = self.inputs.model_key[i] = second_key(self.inputs.model_key[i])
        again = jax.tree.map(lambda x: np.asarray(x)[None], self.trainer.again(first, key))
        chunk.state = self.lanes.replace(chunk.state, lane, packed(self.trainer, again))
        chunk.inputs = self._inputs(chunk.members)
        self.logs[i].restarted, self.logs[i].status = self.logs[i].epochs, RUNNING
        self.alive += 1

    def _fill(self) -> None:
        """Give waiting runs the empty lanes, and new chunks as far as there is room."""
        self._refill()
        while self._grow():
            pass

    def _refill(self) -> None:
        """Give waiting runs the empty lanes."""
        for chunk in self._chunks:
            empty = [lane for lane, i in enumerate(chunk.members) if i is None]
            for lane in empty[: len(self._waiting)]:
                chunk.members[lane] = i = self._waiting.popleft()
                own = packed(self.trainer, self._begun([i]))
                chunk.state = self.lanes.replace(chunk.state, lane, own)
                chunk.tracks = None
            if empty and chunk.members[empty[0]] is not None:
                chunk.inputs = self._inputs(chunk.members)

    def _grow(self) -> bool:
        """Give waiting runs a new chunk, if there is room; whether there was."""
        if not self._waiting or len(self._chunks) >= self.chunks_at_once:
            return False
        taken = min(self.lanes.count, len(self._waiting))
        runs = [self._waiting.popleft() for _ in range(taken)]
        members = runs + [None] * (self.lanes.count - taken)
        shown = runs + runs[-1:] * (self.lanes.count - taken)
        status = np.full(self.lanes.count, FINISHED, np.int32)
        if self._all_fresh(runs):
            status[:taken] = RUNNING
            begin = first_states(self.trainer, self.lanes)
            made = functools.partial(begin, _stacked(self._weights(shown)), status)
        else:
            state = self._begun(shown)
            status[:taken] = state.status[:taken]
            state = packed(self.trainer, dataclasses.replace(state, status=status))
            made = functools.partial(self.lanes.place, state)
        with _memory_named():
            placed = made()
        self._chunks.append(_Chunk(members, placed, self._inputs(members)))
        return True

    def _weights(self, runs: Sequence[int]) -> list[list[np.ndarray]]:
        """Fresh weights of these runs, packed; those of runs that wait are drawn with them."""
        wanted = [i for i in dict.fromkeys(runs) if i not in self._drawn]
        if wanted:
            later = (i for i in self._waiting if i not in self._states and i not in self._drawn)
            wanted += itertools.islice(later, self._draws - len(wanted))
            members = wanted + wanted[-1:] * (self._draws - len(wanted))  # always as many
            drawn = self._best.pack(self.trainer.weights(self.inputs.model_key[members]))
            self._drawn |= {i: [x[row] for x in drawn] for row, i in enumerate(wanted)}
        own = {i: self._drawn.pop(i) for i in dict.fromkeys(runs)}
        return [own[i] for i in runs]

    def _all_fresh(self, runs: Collection[int]) -> bool:
        """Whether all of these runs begin with drawn weights."""
        return not self._fresh and not self._states.keys() & runs

    def _begun(self, runs: Sequence[int]) -> RunState:
        """States of runs that get a lane, stacked, on the host: as they were saved, or fresh."""
        keys = self.inputs.model_key
        if self._all_fresh(runs):
            weights = self._best.unpack(_stacked(self._weights(runs)))
            return self.trainer.init(keys[list(runs)], weights)
        first = self._fresh or (lambda i: self.trainer.init(keys[i]))
        saved = {i: self._states.pop(i, None) or first(i) for i in dict.fromkeys(runs)}
        rows = {i: jax.tree.leaves(state) for i, state in saved.items()}
        structure = jax.tree.structure(self._shapes)
        return jax.tree.unflatten(structure, _stacked([rows[i] for i in runs]))

    def _inputs(self, members: list[int | None]) -> RunInputs:
        someone = next(i for i in members if i is not None)
        rows = np.array([someone if i is None else i for i in members])
        return self.lanes.place(jax.tree.map(lambda x: x[rows], self.inputs))

    # -- what is kept ------------------------------------------------------------------------

    def states(self, wanted: Collection[int]) -> Iterator[tuple[list[int], RunState]]:
        """Of those of the wanted runs that have a lane: a chunk at a time who they are, and their
        states stacked, on the host."""
        for chunk in self._chunks:
            lanes = {
                i: lane
                for lane, i in enumerate(chunk.members)
                if i is not None and i in wanted and self.logs[i].status == RUNNING
            }
            if lanes:
                own = list(lanes.values())
                state = jax.tree.map(lambda x, own=own: x[own], jax.device_get(chunk.state))
                yield list(lanes), unpacked(self.trainer, state)

    def take_ended(self) -> tuple[list[int], Any]:
        """The runs that have ended since last asked, and their best weights stacked, on the host.

        They are forgotten here.
        """
        if not self._ended:
            return [], None
        members, rows = zip(*sorted(self._ended.items()), strict=True)
        self._ended = {}
        params, stats = self._best.unpack(_stacked(rows))
        return list(members), {"params": params, "stats": stats}

    def take_last(self) -> tuple[list[int], Any]:
        """As `take_ended`, of the runs that took all their epochs: their states `without_best`."""
        members = sorted(self._last)
        states = [self._last.pop(i) for i in members]
        return members, self._rest.unpack(_stacked(states)) if states else None


@contextlib.contextmanager
def _memory_named() -> Iterator[None]:
    """Raise `OutOfMemory` where that is what a device reports."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(str(error)) from error
        raise
