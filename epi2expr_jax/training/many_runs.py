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
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epi2expr_jax.errors import OutOfMemory
from epi2expr_jax.inputs.device_tracks import signal_of
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.training.one_run import EpochRecord, RunState, Trainer, without_best
from epi2expr_jax.training.runs import FINISHED, RUNNING, Log, Run, RunInputs, second_key

# By platform. Measured: on CPU, vmapping runs gains nothing and multiplies temporaries.
_LANES = {"cpu": 1}
_DEFAULT_LANES = 8

_OVER_RUNS = PartitionSpec("run")


@dataclasses.dataclass(frozen=True)
class Lanes:
    """Where runs are computed side by side: `width` lanes (`L`) on each of some devices."""

    width: int
    devices: tuple[Any, ...]

    @classmethod
    def default(cls, devices: int = 0) -> "Lanes":
        """The first `devices` local devices (0: all), as wide as suits their platform."""
        chosen = tuple(jax.local_devices()[: devices or None])
        return cls(_LANES.get(chosen[0].platform, _DEFAULT_LANES), chosen)

    @property
    def count(self) -> int:
        """Lanes of a chunk, over all devices."""
        return self.width * len(self.devices)

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("run",))

    def device(self, lane: int) -> Any:
        """Where a lane is computed."""
        return self.devices[lane // self.width]

    def place(self, tree: Any) -> Any:
        """Arrays with a first axis of `count` lanes, each lane on its device."""
        return jax.device_put(tree, NamedSharding(self.mesh, _OVER_RUNS))

    def tracks(self, cache: TrackCache, runs: Sequence[Run]) -> tuple[tuple, ...]:
        """What the runs of a chunk read: for each of the `width` lanes of a device its tracks and
        regions, each array `[devices, ...]`."""

        def of_lane(lane: int, device: int) -> tuple[tuple, Any]:
            here = runs[device * self.width : (device + 1) * self.width]
            run, place = here[lane], self.devices[device]
            beside = [pair for other in here for pair in other.tracks]
            return tuple(cache.get(run.tracks, place, beside)), cache.regions(run.cell, place)

        lanes = [[of_lane(w, d) for d in range(len(self.devices))] for w in range(self.width)]
        return tuple(jax.tree.map(self._global, *parts) for parts in lanes)

    def replace(self, stacked: Any, lane: int, one: Any) -> Any:
        """Arrays as `place` gives them, but one lane from `one`, which has an axis of 1 for it."""
        number, place = divmod(lane, self.width)

        def set_one(whole: jax.Array, own: np.ndarray) -> jax.Array:
            shards = {shard.device: shard.data for shard in whole.addressable_shards}
            device = self.devices[number]
            new = jax.device_put(own, device)
            shards[device] = new if self.width == 1 else _set(shards[device], place, new)
            return self._global(*(shards[device] for device in self.devices))

        return jax.tree.map(set_one, stacked, one)

    def _global(self, *parts: jax.Array) -> jax.Array:
        """One array of the shard on each device."""
        shape = sum(len(part) for part in parts), *parts[0].shape[1:]
        sharding = NamedSharding(self.mesh, _OVER_RUNS)
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    def map(self, function: Callable, stacked: Any, tracks: tuple[tuple, ...]) -> Any:
        """`function(*stacked, signal)` in every lane of a chunk; no lane sees another.

        Args:
            stacked: arrays with a first axis of `count` lanes.
            tracks: as `tracks` gives them.
        """

        def on_device(stacked: Any, tracks: tuple[tuple, ...]) -> Any:
            signals = [signal_of(*jax.tree.map(lambda x: x[0], lane)) for lane in tracks]
            lanes = *stacked, jax.tree.map(lambda *parts: jnp.stack(parts), *signals)
            if self.width == 1:
                # On CPU, some 5 % faster as the body of a loop, if only of one turn.
                return jax.lax.map(lambda lane: function(*lane), lanes)
            return jax.vmap(function)(*lanes)

        return jax.shard_map(
            on_device, mesh=self.mesh, in_specs=_OVER_RUNS, out_specs=_OVER_RUNS, check_vma=False
        )(stacked, tracks)


@functools.partial(jax.jit, donate_argnums=0)
def _set(whole: jax.Array, place: Any, one: jax.Array) -> jax.Array:
    return whole.at[place].set(one[0])


# Compiled once for a trainer and its lanes, however many runs there are.
@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _epoch(
    trainer: Trainer, lanes: Lanes, state: RunState, inputs: RunInputs, tracks: tuple[tuple, ...]
) -> tuple[RunState, EpochRecord]:
    return lanes.map(trainer.train_epoch, (state, inputs), tracks)


@dataclasses.dataclass
class _Chunk:
    """Runs in lanes: which, their state and inputs on the devices. A lane may stand empty."""

    members: list[int | None]
    state: RunState
    inputs: RunInputs


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
        self._ended: dict[int, Any] = {}
        self._last: dict[int, RunState] = {}
        self._compiled = False

    @property
    def chunks(self) -> int:
        """How many chunks the next epoch computes."""
        return len(self._chunks)

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
        self._fill()
        ahead = 0 if self._streams else 1  # chunks under way while another is begun
        under_way: collections.deque[tuple[_Chunk, EpochRecord]] = collections.deque()
        try:
            for i, chunk in enumerate(self._chunks):
                under_way.append((chunk, self._begin(chunk, self._chunks[(i + 1) % self.chunks])))
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
        state, inputs = self.trainer.state_shapes(), self._inputs(members)
        sharding = NamedSharding(self.lanes.mesh, _OVER_RUNS)
        shape = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
        state = jax.tree.map(lambda x: shape((self.lanes.count, *x.shape), x.dtype), state)
        runs = [self.runs[i] for i in members if i is not None]
        with _memory_named():
            tracks = self.lanes.tracks(self.cache, runs)
            _epoch.lower(self.trainer, self.lanes, state, inputs, tracks).compile()
        self._compiled = True
        # The C library keeps what the compiler freed, some 400 MB for Chromoformer, unless told.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)

    def _begin(self, chunk: _Chunk, following: _Chunk) -> EpochRecord:
        """Begin a chunk's epoch; the device works on while its tracks for the next are read."""
        reading = self._reading(chunk)
        with _memory_named():
            tracks = self.lanes.tracks(self.cache, reading)
            chunk.state, record = _epoch(
                self.trainer, self.lanes, chunk.state, chunk.inputs, tracks
            )
        keep = [pair for run in reading for pair in run.tracks]
        for lane, run in enumerate(self._reading(following)):
            self.cache.read_ahead(run.tracks, self.lanes.device(lane), keep)
        return record

    def _reading(self, chunk: _Chunk) -> list[Run]:
        """Whose tracks each lane reads; an empty one those of another."""
        someone = next(i for i in chunk.members if i is not None)
        return [self.runs[someone if i is None else i] for i in chunk.members]

    def _log(self, chunk: _Chunk, record: EpochRecord) -> list[int]:
        with _memory_named():
            record, status = jax.device_get((record, chunk.state.status))
        advanced = []
        for lane, i in enumerate(chunk.members):
            if i is None or self.logs[i].status != RUNNING:
                continue
            log = self.logs[i]
            log.train_loss.append(float(record.train_loss[lane]))
            log.validation_loss.append(float(record.validation_loss[lane]))
            log.learning_rate.append(float(record.learning_rate[lane]))
            log.status, log.bad_step = int(status[lane]), int(record.bad_step[lane])
            self.alive -= log.status != RUNNING
            advanced.append(i)
        return advanced

    # -- who has a lane ----------------------------------------------------------------------

    def _release(self) -> None:
        """Take out the runs that have ended; gather the others in as few chunks as hold them."""
        living = 0
        for chunk in self._chunks:
            ended = {
                lane: i
                for lane, i in enumerate(chunk.members)
                if i is not None and self.logs[i].status != RUNNING
            }
            if self.trainer.config.retry and not self._fresh:
                for lane in [lane for lane, i in ended.items() if self.logs[i].flat_at_once]:
                    self._restart(chunk, lane, ended.pop(lane))
            if ended:
                best = jax.device_get((chunk.state.best_params, chunk.state.best_stats))
                last: Any = None
                if any(self.logs[i].status == FINISHED for i in ended.values()):
                    last = jax.device_get(without_best(chunk.state))
                for lane, i in ended.items():
                    params, stats = jax.tree.map(lambda x, lane=lane: x[lane].copy(), best)
                    self._ended[i] = {"params": params, "stats": stats}
                    if self.logs[i].status == FINISHED:
                        self._last[i] = jax.tree.map(lambda x, lane=lane: np.array(x[lane]), last)
                    chunk.members[lane] = None
            living += sum(i is not None for i in chunk.members)
        self._chunks = [
            chunk for chunk in self._chunks if any(i is not None for i in chunk.members)
        ]
        spare = self.chunks - -(-living // self.lanes.count)
        self._chunks.sort(key=lambda chunk: sum(i is None for i in chunk.members))
        for _ in range(spare):
            chunk = self._chunks.pop()
            state = jax.device_get(chunk.state)
            for lane, i in reversed(list(enumerate(chunk.members))):
                if i is not None:
                    self._states[i] = jax.tree.map(lambda x, lane=lane: x[lane].copy(), state)
                    self._waiting.appendleft(i)
        if spare:
            self._fill()

    def _restart(self, chunk: _Chunk, lane: int, i: int) -> None:
        """A second attempt in a run's lane."""
        first = jax.tree.map(lambda x: x[lane], jax.device_get(chunk.state))
        key = self.inputs.model_key[i] = second_key(self.inputs.model_key[i])
        state = jax.tree.map(lambda x: np.asarray(x)[None], self.trainer.again(first, key))
        chunk.state = self.lanes.replace(chunk.state, lane, state)
        chunk.inputs = self._inputs(chunk.members)
        self.logs[i].restarted, self.logs[i].status = self.logs[i].epochs, RUNNING
        self.alive += 1

    def _fill(self) -> None:
        """Give waiting runs the empty lanes, and new chunks as far as there is room."""
        for chunk in self._chunks:
            empty = [lane for lane, i in enumerate(chunk.members) if i is None]
            for lane in empty[: len(self._waiting)]:
                chunk.members[lane] = i = self._waiting.popleft()
                chunk.state = self.lanes.replace(chunk.state, lane, self._begun([i]))
            if empty and chunk.members[empty[0]] is not None:
                chunk.inputs = self._inputs(chunk.members)
        while self._waiting and self.chunks < self.chunks_at_once:
            taken = min(self.lanes.count, len(self._waiting))
            runs = [self._waiting.popleft() for _ in range(taken)]
            empty = self.lanes.count - taken
            state = self._begun(runs + runs[-1:] * empty)
            status = np.where(np.arange(self.lanes.count) < taken, state.status, FINISHED)
            state = dataclasses.replace(state, status=status.astype(np.int32))
            members = runs + [None] * empty
            self._chunks.append(_Chunk(members, self.lanes.place(state), self._inputs(members)))

    def _begun(self, runs: Sequence[int]) -> RunState:
        """States of runs that get a lane, stacked, on the host: as they were saved, or fresh."""
        keys = self.inputs.model_key
        if not self._fresh and not self._states.keys() & runs:
            return self.trainer.init(keys[list(runs)])
        first = self._fresh or (lambda i: self.trainer.init(keys[i]))
        saved = {i: self._states.pop(i, None) or first(i) for i in dict.fromkeys(runs)}
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(saved[i] for i in runs))

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
                own, state = list(lanes.values()), jax.device_get(chunk.state)
                yield list(lanes), jax.tree.map(lambda x, own=own: x[own], state)

    def take_ended(self) -> tuple[list[int], Any]:
        """The runs that have ended since last asked, and their best weights stacked, on the host.

        They are forgotten here.
        """
        if not self._ended:
            return [], None
        members, rows = zip(*sorted(self._ended.items()), strict=True)
        self._ended = {}
        return list(members), jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    def take_last(self) -> tuple[list[int], Any]:
        """As `take_ended`, of the runs that took all their epochs: their states `without_best`."""
        members = sorted(self._last)
        states = [self._last.pop(i) for i in members]
        return members, jax.tree.map(lambda *x: np.stack(x), *states) if states else None


@contextlib.contextmanager
def _memory_named() -> Iterator[None]:
    """Raise `OutOfMemory` where that is what a device reports."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(str(error)) from error
        raise
