"""How many runs the devices hold at once, and what memory, disk and time a training takes."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.track_cache import TrackCache, device_memory
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import Trainer
from epi2expr_jax.training.runs import Run, RunInputs
from epi2expr_jax.units import count

# Of a device's memory; tracks take the rest.
_STATES = 0.3
_TEMPORARIES = 0.3
_CALIBRATION_BATCHES = 4
# Of an H100 (docs/accelerators.md): seconds to launch a kernel, bytes a second. Lanes are added
# until launching is so small a share of a step, as far as so many.
_LAUNCH_S, _BYTES_PER_S, _LAUNCHING, _MOST_LANES = 1.8e-6, 2.4e12, 0.2, 32

# Of two cores on which NumPy multiplies matrices at `_MATMUL`: FLOP/s and bytes/s of a training
# step, and seconds a gene whatever the model. Fitted to all measurements of docs/decisions/0088.
_MATMUL, _FLOPS, _CPU_BYTES_PER_S, _FIXED_S = 240e9, 190e9, 15.6e9, 30e-6
_PROMOTER = 3  # the promoter part of a Chromoformer takes as long as so many regions
_TRIAL_S = 0.1  # of multiplying, twice, to know how fast this machine is


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """How many runs of a population the devices hold, and what that takes.

    Attributes:
        lanes: runs side by side.
        runs: how many there are.
        at_once: runs whose state is on the devices together.
        state_bytes: of one run while it trains.
        weight_bytes: of one run's best weights, as kept.
        track_bytes: of one track on a device.
        tracks: how many different tracks the runs read.
        data_limit: bytes of tracks on a device; None where there is room for all.
    """

    lanes: Lanes
    runs: int
    at_once: int
    state_bytes: int
    weight_bytes: int
    track_bytes: int
    tracks: int
    data_limit: int | None

    @property
    def chunks(self) -> int:
        """Calls an epoch takes at first."""
        return -(-min(self.runs, self.at_once) // self.lanes.count)

    @property
    def device_bytes(self) -> int:
        """On one device: states and tracks, without temporaries."""
        states = self.chunks * self.lanes.width * self.state_bytes
        tracks = self.tracks * self.track_bytes
        return states + (tracks if self.data_limit is None else min(tracks, self.data_limit))

    @property
    def disk_bytes(self) -> int:
        """At most, while training: two states of all runs under way, and all best weights."""
        return 2 * min(self.runs, self.at_once) * self.state_bytes + self.runs * self.weight_bytes


def lanes_for(trainer: Trainer, devices: int = 0, memory: int = 0) -> Lanes:
    """How many models are best trained side by side on a device: more kernels want more of them.

    It depends on the model, its batch and the device, never on how many runs there are.

    Args:
        devices: use the first so many local devices; 0: all.
        memory: bytes a device; 0: what it has.
    """
    lanes, width = Lanes.default(devices), Lanes.default(devices).width
    cost = getattr(trainer.model_config, "STEP_COST", None)
    if lanes.platform == "cpu" or cost is None:
        return lanes
    launches = cost.kernels * _LAUNCH_S
    computing = trainer.plan.size * cost.gene_bytes / _BYTES_PER_S  # a lane's
    if lanes.platform == "gpu":
        while width < _MOST_LANES and launches > _LAUNCHING * (launches + width * computing):
            width *= 2
    memory = memory or device_memory()
    temporaries = cost.temporaries * trainer.plan.size / cost.batch
    state = _bytes(trainer.state_shapes())
    while width > 1 and (width * temporaries > _TEMPORARIES * memory
                         or width * state > _STATES * memory):  # fmt: skip
        width //= 2
    return dataclasses.replace(lanes, width=width)


def plan_memory(
    trainer: Trainer,
    runs: Sequence[Run],
    cache: TrackCache,
    lanes: Lanes | None = None,
    *,
    at_once: int = 0,
    memory: int = 0,
) -> MemoryPlan:
    """Cut a population to what the devices hold.

    Args:
        cache: its tracks, which keep to their own limit.
        at_once: as in `MemoryPlan`; 0: what fits.
        memory: bytes a device; 0: what it has.

    Raises:
        InputError: if not even one chunk of runs fits.
    """
    lanes, memory = lanes or lanes_for(trainer, memory=memory), memory or device_memory()
    state = trainer.state_shapes()
    state_bytes = _bytes(state)
    pairs = {pair for run in runs for pair in run.tracks}
    chunk_bytes = lanes.width * state_bytes
    chunks = int(memory * _STATES) // chunk_bytes
    if not chunks and not at_once:
        raise InputError(
            f"{lanes.devices[0]}",
            f"{memory / 2**30:.2g} GiB, of which {_STATES:.0%} for weights and optimiser",
            f"{chunk_bytes / _STATES / 2**30:.2g} GiB, for {count(lanes.width, 'run')} side by "
            "side",
            "make the model smaller (--width), or take a device with more memory",
        )
    return MemoryPlan(
        lanes=lanes,
        runs=len(runs),
        at_once=max(lanes.count, at_once or chunks * lanes.count),
        state_bytes=state_bytes,
        weight_bytes=_bytes((state.best_params, state.best_stats)),
        track_bytes=cache.track_bytes,
        tracks=len(pairs),
        data_limit=cache.limit if cache.streams(pairs) else None,
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a device trains, measured.

    Attributes:
        genes_per_s: gene-steps a second, over all devices.
        compile_s: seconds until the first step.
    """

    genes_per_s: float
    compile_s: float

    def seconds(self, inputs: RunInputs, epochs: int) -> float:
        """For all runs to take all their epochs, validation and compilation included."""
        # A validation gene costs a forward pass, a third of a step.
        genes = inputs.train.sum() + inputs.validation.sum() / 3
        return self.compile_s + float(genes) * epochs / self.genes_per_s


def estimate_cpu(model_config: Any) -> float | None:
    """About how many seconds a gene-step takes on the cores of this machine; nothing is compiled.

    Matrix products scale with the square of the model's width, what is moved with the width, both
    with the bins and regions that it reads. The machine's speed is timed on matrix products of
    NumPy for a fifth of a second, once a process. The paces it was fitted to are within a factor
    of 2, from a tenth of the published width on (docs/decisions/0088).

    Args:
        model_config: of any model.

    Returns:
        Seconds a gene-step; None for a model whose configuration has no `STEP_COST`.
    """
    cost = getattr(model_config, "STEP_COST", None)
    if cost is None:
        return None
    published, width = type(model_config)(), getattr(model_config, "width", 1)
    size = model_config.window.bins / published.window.bins
    size *= (_PROMOTER + model_config.contacts) / (_PROMOTER + published.contacts)
    computing = cost.gene_flops * size * width * width / _FLOPS
    moving = cost.gene_bytes * size * width / _CPU_BYTES_PER_S
    return (computing + moving + _FIXED_S) * _MATMUL / _matmul_flops()


@functools.cache
def _matmul_flops() -> float:
    """FLOP/s of NumPy's matrix products here: of one on all cores, or of small ones on one core,
    which suffer less when other programs run."""
    rates = []
    for many, size in ((1, 1024), (64, 64)):
        matrix, taken = np.ones((many, size, size), np.float32), []
        until = time.perf_counter() + _TRIAL_S
        while len(taken) < 2 or time.perf_counter() < until:
            begin = time.perf_counter()
            np.matmul(matrix, matrix)
            taken.append(time.perf_counter() - begin)
        rates.append(2 * many * size**3 / min(taken))
    return max(rates)


def calibrate(
    trainer: Trainer, runs: Sequence[Run], inputs: RunInputs, cache: TrackCache, lanes: Lanes
) -> Pace:
    """Train one chunk for a few batches, twice: the first time compiles."""
    some = list(range(min(lanes.count, len(runs))))
    genes = _CALIBRATION_BATCHES * trainer.plan.size
    own = jax.tree.map(lambda x: x[some], inputs)
    own = dataclasses.replace(
        own,
        train=_first(own.train, genes),
        validation=_first(own.validation, trainer.plan.size),
    )
    population = Population(trainer, [runs[i] for i in some], own, cache, lanes)
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        population.train_epoch()
        seconds.append(time.perf_counter() - begin)
    steps = own.train.sum() + own.validation.sum() / 3
    return Pace(float(steps) / seconds[1], seconds[0] - seconds[1])


def _first(mask: np.ndarray, count: int) -> np.ndarray:
    """Of each run `[R, G]`, the first `count` genes of a part."""
    return mask & (np.cumsum(mask, axis=1) <= count)
