"""What a run does when validation stops improving: slow down, then stop.

Both are pure functions over small pytrees, fed one validation loss an epoch, so that a whole
population of runs can carry them through `jit`, `vmap` and `lax.map`. A NaN loss is not an
improvement.
"""

import dataclasses
from typing import NamedTuple, cast

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int
from optax.contrib import ReduceLROnPlateauState, reduce_on_plateau

from epi2expr_jax.errors import Problems, collect

PlateauState = ReduceLROnPlateauState


@dataclasses.dataclass(frozen=True)
class PlateauConfig:
    """When and how far to lower the learning rate.

    Attributes:
        factor: what a plateau multiplies the learning rate by.
        patience: epochs without improvement that make a plateau.
        threshold: how much better than the best a loss must be to count as an improvement.
        rule: "keras": the threshold is absolute (in the loss's unit) and the rate falls in the
            `patience`-th epoch without improvement; "pytorch": the threshold is relative to the
            best loss and the rate falls one epoch later.
        min_scale: the lowest multiplier, as a share of the first learning rate.

    Raises:
        InputError: naming every value out of range.
    """

    factor: float = 0.2
    patience: int = 3
    threshold: float = 1e-4
    rule: str = "keras"
    min_scale: float = 0.0

    def __post_init__(self):
        with collect() as problems:
            _check_patience(problems, "plateau", self.patience)
            if not 0 < self.factor < 1:
                problems.add("plateau", f"factor={self.factor}", "between 0 and 1", "0.2 is usual")
            if not 0 < self.threshold <= 1:
                problems.add(
                    "plateau",
                    f"threshold={self.threshold}",
                    "more than 0, at most 1",
                    "take a small number such as 1e-4",
                )
            if self.rule not in ("keras", "pytorch"):
                problems.add("plateau", f"rule={self.rule!r}", "keras or pytorch", "choose one")
            if not 0 <= self.min_scale <= 1:
                problems.add(
                    "plateau", f"min_scale={self.min_scale}", "from 0 to 1", "0 sets no limit"
                )

    @property
    def _transform(self) -> optax.GradientTransformationExtraArgs:
        keras = self.rule == "keras"
        return reduce_on_plateau(
            factor=self.factor,
            patience=self.patience if keras else self.patience + 1,
            rtol=0.0 if keras else self.threshold,
            atol=self.threshold if keras else 0.0,
            min_scale=self.min_scale,
        )


def plateau_init(config: PlateauConfig) -> PlateauState:
    """The state before the first epoch."""
    return cast(PlateauState, config._transform.init(jnp.zeros(())))


def plateau_update(
    config: PlateauConfig, state: PlateauState, loss: Float[Array, ""]
) -> PlateauState:
    """The state after an epoch that ended with this validation loss."""
    _, after = config._transform.update(jnp.zeros(()), state, value=loss)
    return cast(PlateauState, after)


def plateau_scale(state: PlateauState) -> Float[Array, ""]:
    """What to multiply the first learning rate by, a scalar."""
    return jnp.asarray(state.scale)


@dataclasses.dataclass(frozen=True)
class EarlyStopConfig:
    """When to stop: Keras's `EarlyStopping`.

    Attributes:
        patience: the run stops in the `patience`-th epoch without improvement.
        min_delta: how far below the best a loss must lie to count as an improvement.

    Raises:
        InputError: naming every value out of range.
    """

    patience: int = 12
    min_delta: float = 0.0

    def __post_init__(self):
        with collect() as problems:
            _check_patience(problems, "early stop", self.patience)
            if not self.min_delta >= 0:
                problems.add("early stop", f"min_delta={self.min_delta}", "0 or more", "take 0")


class EarlyStopState(NamedTuple):
    """Best loss so far, epochs since, whether the last epoch was the best, whether to stop."""

    best: Float[Array, ""]
    wait: Int[Array, ""]
    improved: Bool[Array, ""]
    stop: Bool[Array, ""]


def early_stop_init() -> EarlyStopState:
    """The state before the first epoch: any finite loss improves on it."""
    # Types are given, since a state of weak types compiles once more after its first update.
    return EarlyStopState(
        best=jnp.asarray(jnp.inf, jnp.result_type(float)),
        wait=jnp.zeros((), jnp.int32),
        improved=jnp.zeros((), bool),
        stop=jnp.zeros((), bool),
    )


def early_stop_update(
    config: EarlyStopConfig, state: EarlyStopState, loss: Float[Array, ""]
) -> EarlyStopState:
    """The state after an epoch that ended with this validation loss.

    A loss that is NaN never becomes the best, not even the first. (Keras 3 takes the first loss as
    the best whatever it is, and after a first NaN nothing ever improves.)
    """
    improved = loss + config.min_delta < state.best
    wait = jnp.where(improved, 0, state.wait + 1)
    return EarlyStopState(
        best=jnp.where(improved, loss, state.best).astype(state.best.dtype),
        wait=wait,
        improved=improved,
        stop=state.stop | (wait >= config.patience),
    )


def _check_patience(problems: Problems, where: str, patience: int) -> None:
    if patience < 1:
        remedy = "take 1 to act in the first epoch without improvement"
        problems.add(where, f"patience={patience}", "at least 1 epoch", remedy)
