"""Lanes: where runs are computed side by side, and the programs that they all share."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epi2expr_jax.inputs.device_tracks import signal_of
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.training.one_run import RunState, Trainer, without_best
from epi2expr_jax.training.runs import Run, RunInputs

# By platform. Measured: on CPU, vmapping runs gains nothing and multiplies temporaries.
_LANES = {"cpu": 1}
_DEFAULT_LANES = 8

OVER_RUNS = PartitionSpec("run")

# States of at most so many bytes and arrays lie end to end on the devices. An epoch of larger ones
# takes so long that the host's time does not show; cutting one out costs compiling 5 to 9 ms.
_MOST_BYTES, _MOST_ARRAYS = 1 << 20, 256


@functools.cache
def _placed(mesh: Mesh) -> Callable:
    """Puts arrays on devices, a program of its own: a call of it costs the host a quarter of what
    `jax.device_put` of a run's 61 arrays does, 0.5 and 1.9 ms."""
    where = NamedSharding(mesh, OVER_RUNS)
    return jax.jit(lambda tree: tree, in_shardings=where, out_shardings=where)


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
    def platform(self) -> str:
        """Of its devices."""
        return self.devices[0].platform

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
        """Arrays with a first axis of `count` lanes, wherever they lie, each lane on its device."""
        where = NamedSharding(self.mesh, OVER_RUNS)

        def here(x: Any) -> Any:  # a program refuses arrays that were put on other devices
            other = isinstance(x, jax.Array) and x.sharding.device_set != where.device_set
            return jax.device_put(x, where) if other else x

        return _placed(self.mesh)(jax.tree.map(here, tree))

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
        device, leaves = self.devices[number], jax.tree.leaves(stacked)
        shards = [{part.device: part.data for part in leaf.addressable_shards} for leaf in leaves]
        new = jax.device_put(jax.tree.leaves(one), device)
        if self.width > 1:
            new = _set([own[device] for own in shards], place, new)
        for own, leaf in zip(shards, new, strict=True):
            own[device] = leaf
        replaced = [self._global(*(own[device] for device in self.devices)) for own in shards]
        return jax.tree.unflatten(jax.tree.structure(stacked), replaced)

    def _global(self, *parts: jax.Array) -> jax.Array:
        """One array of the shard on each device."""
        shape = sum(len(part) for part in parts), *parts[0].shape[1:]
        sharding = NamedSharding(self.mesh, OVER_RUNS)
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
            on_device, mesh=self.mesh, in_specs=OVER_RUNS, out_specs=OVER_RUNS, check_vma=False
        )(stacked, tracks)


@functools.partial(jax.jit, donate_argnums=0)
def _set(whole: list[jax.Array], place: Any, one: list[jax.Array]) -> list[jax.Array]:
    """All arrays of a lane by one call."""
    return [leaf.at[place].set(own[0]) for leaf, own in zip(whole, one, strict=True)]


class Packing:
    """How a tree lies on the devices: its arrays of each type end to end, bit for bit.

    At every call of a program each array in and out costs the host some 9 microseconds.

    Args:
        like: the tree, of shapes alone.
        joined: whether arrays of one type lie end to end; else each lies by itself.
    """

    def __init__(self, like: Any, joined: bool = True):
        self._shapes, self._structure = jax.tree.flatten(like)
        groups = collections.defaultdict(list)
        for i, x in enumerate(self._shapes):
            # XLA copies short floats as long ones on a CPU, which changes the bits of a NaN.
            exact = x.dtype.itemsize >= 4 or x.dtype.kind in "biu"
            groups[x.dtype if joined and exact else i].append(i)
        self._groups = list(groups.values())

    def pack(self, tree: Any) -> list[Any]:
        """Its arrays as they lie on the devices; leading axes, the same of all, stay."""
        leaves = jax.tree.leaves(tree)
        where: Any = np if all(isinstance(x, np.ndarray) for x in leaves) else jnp
        lead = leaves[0].shape[: leaves[0].ndim - len(self._shapes[0].shape)]
        return [
            where.concatenate([leaves[i].reshape((*lead, -1)) for i in group], -1)
            if len(group) > 1
            else leaves[group[0]]
            for group in self._groups
        ]

    def unpack(self, packed: Sequence[Any]) -> Any:
        """The tree of what `pack` gave. On the host what lay end to end is copied."""
        leaves: list[Any] = [None] * len(self._shapes)
        for whole, group in zip(packed, self._groups, strict=True):
            if len(group) == 1:
                leaves[group[0]] = whole
                continue
            begin, lead = 0, whole.shape[:-1]
            for i in group:
                shape, size = self._shapes[i].shape, self._shapes[i].size
                own = whole[..., begin : begin + size].reshape((*lead, *shape))
                leaves[i] = np.array(own) if isinstance(own, np.ndarray) else own
                begin += size
        return jax.tree.unflatten(self._structure, leaves)


@functools.cache
def packings(trainer: Trainer) -> tuple[Packing, Packing]:
    """Of a run's best weights and moving averages, and of the rest of its state: most runs that end
    leave only the first."""
    shapes = trainer.state_shapes()
    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes)]
    joined = sum(sizes) <= _MOST_BYTES and len(sizes) <= _MOST_ARRAYS
    best, rest = (shapes.best_params, shapes.best_stats), without_best(shapes)
    return Packing(best, joined), Packing(rest, joined)


def packed(trainer: Trainer, state: RunState) -> tuple[list, list]:
    """States as they lie on the devices: their best weights, and the rest."""
    best, rest = packings(trainer)
    return best.pack((state.best_params, state.best_stats)), rest.pack(without_best(state))


def unpacked(trainer: Trainer, state: tuple[list, list]) -> RunState:
    """What was `packed`."""
    (params, stats), rest = (p.unpack(x) for p, x in zip(packings(trainer), state, strict=True))
    return dataclasses.replace(rest, best_params=params, best_stats=stats)


def packed_shapes(trainer: Trainer, lanes: Lanes) -> tuple[list, list]:
    """Shapes, types and sharding of a chunk's states as they lie on the devices."""
    where = NamedSharding(lanes.mesh, OVER_RUNS)
    one = jax.eval_shape(functools.partial(packed, trainer), trainer.state_shapes())
    shape = functools.partial(jax.ShapeDtypeStruct, sharding=where)
    return jax.tree.map(lambda x: shape((lanes.count, *x.shape), x.dtype), one)


# Compiled once for a trainer and its lanes, however many runs there are.
@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def epoch(
    trainer: Trainer,
    lanes: Lanes,
    state: tuple[list, list],
    inputs: RunInputs,
    tracks: tuple[tuple, ...],
) -> tuple[tuple[list, list], jax.Array, jax.Array]:
    """The next states, `packed`; of each lane its losses and learning rate `[L 3]`, as
    `EpochRecord` has them, and its bad step and status `[L 2]`: two arrays, since the host fetches
    each by itself."""

    def of_lane(own: tuple, inputs: RunInputs, signal: Any) -> tuple[tuple, jax.Array, jax.Array]:
        state = unpacked(trainer, own)
        state, record = trainer.train_epoch(state, inputs, signal, lanes.platform)
        losses = jnp.stack([record.train_loss, record.validation_loss, record.learning_rate])
        return packed(trainer, state), losses, jnp.stack([record.bad_step, state.status])

    return lanes.map(of_lane, (state, inputs), tracks)


@functools.cache
def first_states(trainer: Trainer, lanes: Lanes) -> Callable:
    """A program that makes the first states of a chunk on the devices, `packed`. It takes weights
    and moving averages, packed, and each lane's status, all `[L ...]`: less to move than states."""
    where = NamedSharding(lanes.mesh, OVER_RUNS)

    def states(weights: list, status: jax.Array) -> tuple[list, list]:
        state = jax.vmap(trainer.begin)(*packings(trainer)[0].unpack(weights))
        best = jax.tree.map(jnp.copy, (state.params, state.stats))  # buffers of their own
        fields = {"best_params": best[0], "best_stats": best[1], "status": status}
        return packed(trainer, dataclasses.replace(state, **fields))

    return jax.jit(states, in_shardings=where, out_shardings=where)
