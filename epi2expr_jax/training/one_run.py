"""ONE run: its configuration, its state, and pure functions from state to state.

Nothing here knows that there may be many runs; `lanes` maps these functions over a stack.
A run's randomness comes from its own keys, its order of genes from its order key and the epoch,
so its result does not depend on what is trained with it or on where it was resumed.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from epi2expr_jax.errors import collect
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import Gathered, Signal, over_batches
from epi2expr_jax.inputs.masking import CHANNELS, masked, random_subsets
from epi2expr_jax.models.config import Form, ModelConfig, of_weights
from epi2expr_jax.models.weights import fresh_weights, named_by, parts_of
from epi2expr_jax.names import as_names
from epi2expr_jax.training.runs import FINISHED, QUARANTINED, RUNNING, STOPPED, RunInputs
from epi2expr_jax.training.schedules import (
    EarlyStopConfig,
    PlateauConfig,
    early_stop_init,
    early_stop_update,
    plateau_init,
    plateau_scale,
    plateau_update,
)
from epi2expr_jax.training.targets import LOSSES

# What matrix products round their factors to; the name JAX has for it.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}
# Folded into a run's key for the subsets of a masked-mark model: a number that no epoch has.
_SUBSETS = 1 << 31

Pytree = Any
# A field of a pytree: an array, or what stands for one while JAX takes the tree apart.
Leaf = Any


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How every run of a population is trained. Defaults: those of `cnn` (see docs/commands.md).

    Attributes:
        task: `regression` (mean squared error) or `classification` (cross-entropy): expressed or
            not, by the median.
        epochs: the most epochs a run may take.
        batch_size: genes a step, `B`; 0: as many as fit the store (see `study.lookup.fitted`).
        learning_rate: Adam's, before decay or plateaus lower it.
        adam_epsilon: Keras's default; optax's and PyTorch's is 1e-8.
        weight_decay: share of the learning rate by which every weight shrinks a step (AdamW).
        decay: what the learning rate is multiplied by after every epoch.
        plateau, early_stop: fed the validation loss once an epoch; None does without.
        balanced: deal genes into batches by their number of contacts.
        retry: a run that stops early and whose first epoch was its best trains once more, with
            fresh weights; what was best in both is kept. Not of runs that start from trained
            weights.
        precision: of matrix products; their sums, and all else, are float32, but on GPU and TPU
            `bfloat16` is also what layers hand on. It and `tf32` are faster there.
        masked: masked-mark models: each gene shows a random subset of the assays, so that a model
            learns to predict from every subset; besides its signal every assay has a mask
            channel. It needs more epochs.
        freeze: weights that stay as they start, by how their names begin (--from).
    """

    task: str = "regression"
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-7
    weight_decay: float = 0.0
    decay: float = 1.0
    plateau: PlateauConfig | None = PlateauConfig()
    early_stop: EarlyStopConfig | None = EarlyStopConfig()
    balanced: bool = True
    retry: bool = False
    precision: str = "float32"
    masked: bool = False
    freeze: tuple[str, ...] = ()

    def __post_init__(self):
        with collect() as problems:
            for name, value in (
                ("epochs", self.epochs),
                ("batch_size", self.batch_size or 1),
                ("learning_rate", self.learning_rate),
                ("lr_decay", self.decay),
            ):
                if not value > 0:
                    problems.add(f"--{name}", f"{value}", "more than 0", "give a positive number")
            if not self.weight_decay >= 0:
                problems.add("--weight_decay", f"{self.weight_decay}", "0 or more", "0.01 is usual")
            for name, value, known in (
                ("precision", self.precision, PRECISIONS),
                ("task", self.task, LOSSES),
            ):
                if value not in known:
                    problems.add(f"--{name}", value, " or ".join(known), "choose one")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunState:
    """Everything one run carries from epoch to epoch.

    Attributes:
        params, stats: current weights and batch-norm moving averages.
        optimiser: Adam's moments.
        plateau, early_stop: schedule states.
        best_params, best_stats: those of the epoch with the lowest validation loss.
        epoch: int32, epochs done.
        status: int32, RUNNING, STOPPED (early), FINISHED (all epochs) or QUARANTINED (loss not
            finite).
    """

    params: Pytree
    stats: Pytree
    optimiser: Pytree
    plateau: Pytree
    early_stop: Pytree
    best_params: Pytree
    best_stats: Pytree
    epoch: Leaf
    status: Leaf


def without_best(state: RunState) -> RunState:
    """A state without its best weights, which are kept apart once a run has ended."""
    return dataclasses.replace(state, best_params=(), best_stats=())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """What one epoch of one run reports, scalars; NaN for a run that has stopped.

    Attributes:
        bad_step: the first step whose loss was not finite, from 0; -1 for none.
    """

    train_loss: Leaf
    validation_loss: Leaf
    learning_rate: Leaf
    bad_step: Leaf


class Trainer:
    """The pure functions of one run, for one model shape: `init` and `train_epoch`.

    Args:
        plans: the batches of training and of validation; by default those of a model that reads
            no regions.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        plans: tuple[BatchPlan, BatchPlan] | None = None,
    ):
        self.config = config
        self.plan, self.validation_plan = plans or (BatchPlan(config.batch_size),) * 2
        self.loss = LOSSES[config.task]
        self.model_config = model_config
        self.graph, params, _ = parts_of(model_config)
        self.plain = Form(self.graph, lambda params: params, lambda params: params)
        self.frozen = named_by(params, as_names(config.freeze))
        self.adam = optax.scale_by_adam(eps=config.adam_epsilon)

    @functools.cached_property
    def _accelerated(self) -> Form:
        """The model as an accelerator computes it."""
        offered = getattr(self.model_config, "accelerated", lambda: None)
        return (not self.config.freeze and offered()) or self.plain

    def init(self, model_key: UInt32[Any, "*R 2"], weights: Pytree = None) -> RunState:
        """The state before the first epoch, its weights drawn from `model_key`; on the host.

        Of several keys, stacked. Arrays may be read-only, and share memory. `weights`: if drawn.
        """
        params, stats = weights or self.weights(model_key)
        lead = model_key.shape[:-1]
        start = jax.tree.map(lambda x: np.broadcast_to(x, (*lead, *x.shape)), self._start)
        fields = {"params": params, "stats": stats, "best_params": params, "best_stats": stats}
        return dataclasses.replace(start, **fields)

    def weights(self, model_key: UInt32[Any, "*R 2"]) -> tuple[Pytree, Pytree]:
        """Weights and moving averages before training, on the host."""
        return fresh_weights(self.model_config, _wrap(model_key))

    @functools.cached_property
    def _start(self) -> RunState:
        """How every run starts, with zeros for its weights; on the host."""
        return jax.device_get(self.begin(*_zeros(parts_of(self.model_config)[1:])))

    def state_shapes(self) -> RunState:
        """What `init` gives, as shapes alone."""
        return jax.eval_shape(self.begin, *parts_of(self.model_config)[1:])

    def begin(self, params: Pytree, stats: Pytree) -> RunState:
        """The state before the first epoch, with these weights and moving averages."""
        return RunState(
            params=params,
            stats=stats,
            optimiser=_zeros(jax.eval_shape(self.adam.init, params)),
            plateau=plateau_init(self.config.plateau) if self.config.plateau else (),
            early_stop=early_stop_init(),
            best_params=params,
            best_stats=stats,
            epoch=np.int32(0),
            status=np.int32(RUNNING),
        )

    def again(self, first: RunState, model_key: UInt32[Any, "2"]) -> RunState:
        """A second attempt with fresh weights: it has to do better than the best of the first."""
        stop = early_stop_init()._replace(best=first.early_stop.best)
        kept = {"best_params": first.best_params, "best_stats": first.best_stats}
        return dataclasses.replace(self.init(model_key), early_stop=stop, **kept)

    def train_epoch(
        self, state: RunState, inputs: RunInputs, signal: Signal, platform: str = "cpu"
    ) -> tuple[RunState, EpochRecord]:
        """One pass over the training genes, one over the validation genes, and the schedules.

        A run that is no longer RUNNING comes back unchanged and, outside `vmap`, costs nothing.

        Args:
            platform: of the device that runs it.
        """
        nan = jnp.full((), jnp.nan)
        with jax.default_matmul_precision(PRECISIONS[self.config.precision]):
            return lax.cond(
                state.status == RUNNING,
                lambda: self._train_epoch(state, inputs, signal, platform),
                lambda: (state, EpochRecord(nan, nan, nan, jnp.int32(-1))),
            )

    def _train_epoch(
        self, state: RunState, inputs: RunInputs, signal: Signal, platform: str
    ) -> tuple[RunState, EpochRecord]:
        config, plan = self.config, self.plan
        low = config.precision == "bfloat16" and platform != "cpu"
        form = self.plain if platform == "cpu" else self._accelerated
        learning_rate = jnp.float32(config.learning_rate)
        if config.plateau:
            learning_rate = config.learning_rate * plateau_scale(state.plateau)
        if config.decay != 1:
            learning_rate = learning_rate * jnp.float32(config.decay) ** state.epoch
        shuffle = jax.random.fold_in(_wrap(inputs.order_key), state.epoch)
        order = plan.order(inputs.train, shuffle, signal.n_contacts())
        genes = inputs.train.sum()
        dropout = jax.random.fold_in(_wrap(inputs.model_key), state.epoch)

        def step(i, carry):
            params, stats, optimiser, total, bad_step = carry
            index, mask = plan.batch(i, order, genes)
            x = signal.gather(index, plan)
            if config.masked:
                fresh = jax.random.fold_in(_subset_key(inputs, state.epoch + 1), i)
                x = masked(x, self._subsets(fresh, plan.size))
            x = x.astype(jnp.bfloat16) if low else x  # layers keep it, products round to it
            y = inputs.target[index]

            def loss_of(params):
                model = nnx.merge(form.graph, params, stats, copy=True)
                prediction = model(x, mask=mask, key=jax.random.fold_in(dropout, i))
                _, _, new_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
                return self.loss(prediction=prediction, target=y, mask=mask), new_stats

            (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, optimiser = self.adam.update(gradient, optimiser, params)
            if config.weight_decay:
                updates = jax.tree.map(lambda u, p: u + config.weight_decay * p, updates, params)
            if config.freeze:
                updates = jax.tree.map(lambda u, f: 0 * u if f else u, updates, self.frozen)
            params = jax.tree.map(lambda p, u: p - learning_rate * u, params, updates)
            bad_step = jnp.where((bad_step < 0) & ~jnp.isfinite(loss), i, bad_step)
            return params, stats, optimiser, total + loss * mask.sum(), bad_step

        optimiser = of_weights(form.pack, state.optimiser)
        carry = form.pack(state.params), state.stats, optimiser, jnp.zeros(()), jnp.int32(-1)
        carry = plan.for_each_batch(genes, step, carry, platform)
        params, stats, optimiser, total, bad_step = carry
        train_loss = total / genes
        validation_loss = self._validation_loss(
            params, stats, inputs, signal, form.graph, low, platform
        )
        params, optimiser = form.unpack(params), of_weights(form.unpack, optimiser)

        # Without early stopping, too, its state knows which epoch was the best.
        stopping = config.early_stop or EarlyStopConfig(config.epochs + 1)
        early_stop = early_stop_update(stopping, state.early_stop, validation_loss)
        finite = jnp.isfinite(train_loss) & jnp.isfinite(validation_loss)
        improved = early_stop.improved & finite
        epoch = state.epoch + 1
        status = jnp.where(epoch >= config.epochs, FINISHED, RUNNING)
        status = jnp.where(early_stop.stop, STOPPED, status)
        status = jnp.where(finite, status, QUARANTINED)

        def keep_best(new, old):
            return jax.tree.map(lambda a, b: jnp.where(improved, a, b), new, old)

        state = RunState(
            params=params,
            stats=stats,
            optimiser=optimiser,
            plateau=plateau_update(config.plateau, state.plateau, validation_loss)
            if config.plateau
            else state.plateau,
            early_stop=early_stop,
            best_params=keep_best(params, state.best_params),
            best_stats=keep_best(stats, state.best_stats),
            epoch=epoch,
            status=status.astype(jnp.int32),
        )
        return state, EpochRecord(train_loss, validation_loss, learning_rate, bad_step)

    def _validation_loss(
        self,
        params: Pytree,
        stats: Pytree,
        inputs: RunInputs,
        signal: Signal,
        graph: Any = None,
        low: bool = False,
        platform: str = "cpu",
    ) -> Float[Array, ""]:
        present = None
        if self.config.masked:  # the same subset of a gene in every epoch
            present = self._subsets(_subset_key(inputs, 0), inputs.validation.size)
        plan, wanted = self.validation_plan, inputs.validation
        graph = self.graph if graph is None else graph
        predicted = predict_genes(
            graph, params, stats, signal, wanted, plan, present, low, platform
        )
        return self.loss(prediction=predicted, target=inputs.target, mask=inputs.validation)

    def _subsets(self, key: Any, genes: int) -> Bool[Array, "G A"]:
        """Which assays each of so many genes shows a masked-mark model."""
        return random_subsets(key, genes, self.model_config.assays // CHANNELS)


def _zeros(shapes: Pytree) -> Pytree:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def predict_genes(
    graph: Any,
    params: Pytree,
    stats: Pytree,
    signal: Gathered,
    wanted: Bool[Array, " G"],
    plan: BatchPlan,
    present: Bool[Array, "G A"] | None = None,
    low: bool = False,
    platform: str = "cpu",
) -> Float[Array, " G"]:
    """One run's outputs for the wanted genes, 0 for the others.

    Costs as many batches as the wanted genes fill.

    Args:
        plan: one that serves the wanted genes.
        present: of a masked-mark model, which assays each gene shows.
        low: whether the layers keep their outputs in bfloat16.
        platform: of the device that computes.
    """

    def outputs(model, x, index, mask):
        x = x if present is None else masked(x, present[index])
        x = x.astype(jnp.bfloat16) if low else x
        return model(x, mask=mask, key=None)

    empty = jnp.zeros(wanted.shape)
    return over_batches(graph, params, stats, signal, wanted, plan, outputs, empty, platform)


def _subset_key(inputs: RunInputs, number: Any) -> Any:
    """Draws the subsets of a masked-mark run: 0 those of validation, then one number an epoch."""
    return jax.random.fold_in(jax.random.fold_in(_wrap(inputs.model_key), _SUBSETS), number)


def _wrap(key_data: UInt32[Any, "*R 2"]) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(key_data), impl="threefry2x32")
