"""Floor 4. MANY runs: stacked state, one compiled program, one call an epoch.

Knows nothing of any model: it maps a `Trainer`'s pure functions over runs. State is stacked on
`R`; an epoch walks chunks of `L` lanes (`lax.map` over chunks, `vmap` inside), and the last chunk
is filled with idle lanes. So the number of runs changes how many chunks there are and never the
width of the arithmetic: a run's result is the same bit for bit whatever its neighbours.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from epi2expr_jax.runs import Run, RunInputs
from epi2expr_jax.training import (
    FINISHED,
    QUARANTINED,
    RUNNING,
    STATUS_NAMES,
    EpochRecord,
    RunState,
    Signal,
    Trainer,
)

# Measured: on CPU, vmapping runs gains nothing and multiplies temporaries.
_LANES = {"cpu": 1}
_DEFAULT_LANES = 8


def default_lanes() -> int:
    """`L` for the backend in use."""
    return _LANES.get(jax.default_backend(), _DEFAULT_LANES)


def map_runs(function: Callable, lanes: int, *stacked: Any) -> Any:
    """`function` over the leading axis `R` of `stacked`, in chunks of exactly `lanes`.

    `R` must be a multiple of `lanes`.
    """
    if lanes == 1:
        return jax.lax.map(lambda args: function(*args), stacked)
    chunks = jax.tree.map(lambda x: x.reshape(-1, lanes, *x.shape[1:]), stacked)
    out = jax.lax.map(lambda args: jax.vmap(function)(*args), chunks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def pad_runs(tree: Any, lanes: int) -> Any:
    """Repeat the last run until `R` is a multiple of `lanes`."""
    count = jax.tree.leaves(tree)[0].shape[0]
    index = np.minimum(np.arange(count + -count % lanes), count - 1)
    return tree if len(index) == count else jax.tree.map(lambda x: x[index], tree)


@dataclasses.dataclass(frozen=True)
class History:
    """What every epoch of every run reported: `[R, E]`, NaN where a run did not train."""

    train_loss: np.ndarray
    validation_loss: np.ndarray
    learning_rate: np.ndarray

    @classmethod
    def empty(cls, runs: int, epochs: int) -> "History":
        return cls(*(np.full((runs, epochs), np.nan, np.float32) for _ in range(3)))


# Compiled once for a trainer and a number of runs, whichever population asks.
@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _epoch(
    trainer: Trainer,
    lanes: int,
    state: RunState,
    inputs: RunInputs,
    signal: Signal,
) -> tuple[RunState, EpochRecord]:
    def one(state: RunState, inputs: RunInputs) -> tuple[RunState, EpochRecord]:
        return trainer.train_epoch(state, inputs, signal)

    return map_runs(one, lanes, state, inputs)


class Population:
    """Runs that share one model shape, and so one compiled program.

    Args:
        trainer: the pure functions of one run.
        runs: what each run is, `R` of them.
        inputs: their device inputs, stacked on `R`.
        signal: the dataset's signal, shared by all.
        lanes: `L`, runs that are vmapped together; by default what suits the backend.
    """

    def __init__(
        self,
        trainer: Trainer,
        runs: Sequence[Run],
        inputs: RunInputs,
        signal: Signal,
        lanes: int | None = None,
    ):
        self.trainer = trainer
        self.runs = list(runs)
        self.lanes = lanes or default_lanes()
        self.inputs = pad_runs(inputs, self.lanes)
        self.signal = signal
        self.epochs_done = 0
        self.history = History.empty(len(self.runs), trainer.config.epochs)
        states = [trainer.init(key) for key in self.inputs.model_key]
        state = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *states)
        idle = np.arange(len(states)) >= len(self.runs)
        self.state: RunState = dataclasses.replace(
            state, status=jnp.where(idle, FINISHED, state.status)
        )

    @property
    def status(self) -> np.ndarray:
        """`[R]` status of every run."""
        return np.array(self.state.status[: len(self.runs)])

    @property
    def alive(self) -> int:
        """How many runs still train."""
        return int((self.status == RUNNING).sum())

    def train_epoch(self) -> None:
        """Advance every running run by one epoch: one call, one small transfer back."""
        self.state, record = _epoch(self.trainer, self.lanes, self.state, self.inputs, self.signal)
        for field in dataclasses.fields(History):
            column = np.array(getattr(record, field.name)[: len(self.runs)])
            getattr(self.history, field.name)[:, self.epochs_done] = column
        self.epochs_done += 1

    def quarantined(self) -> list[Run]:
        """The runs whose loss was not finite; they stopped, the others went on."""
        return [
            run for run, status in zip(self.runs, self.status, strict=True) if status == QUARANTINED
        ]

    def status_names(self) -> list[str]:
        """The status of every run, in words."""
        return [STATUS_NAMES[status] for status in self.status]

    # -- what a checkpoint holds -------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on from here: state, history and the epoch."""
        return {
            "state": self.state,
            "history": dataclasses.asdict(self.history),
            "epochs_done": np.int32(self.epochs_done),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a `snapshot` of the same population."""
        self.state = jax.tree.map(jnp.asarray, snapshot["state"])
        # Restored arrays are read-only.
        self.history = History(**jax.tree.map(np.array, snapshot["history"]))
        self.epochs_done = int(snapshot["epochs_done"])

    def weights(self) -> dict[str, Any]:
        """The best weights and moving averages of every run, stacked on `R`."""
        count = len(self.runs)
        best = {"params": self.state.best_params, "stats": self.state.best_stats}
        return jax.tree.map(lambda x: x[:count], best)
