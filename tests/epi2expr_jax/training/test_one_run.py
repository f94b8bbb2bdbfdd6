"""One run of a model whose every step is known by hand: its epochs, how it ends, what it keeps."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import WindowSignal, over_batches
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.models.weights import constant, parts_of, uniform
from epi2expr_jax.training.one_run import TrainConfig, Trainer, predict_genes
from epi2expr_jax.training.runs import FINISHED, QUARANTINED, RUNNING, STOPPED, RunInputs
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig

RATE, DECAY, SHRINK, EPSILON = 0.1, 0.5, 0.01, 1e-7


@dataclasses.dataclass(frozen=True)
class LinearConfig(WindowModelConfig):
    """A weight for each assay's mean signal."""

    window_bp: int = 300
    bin_bp: int = 100
    assays: int = 2

    NAME: ClassVar[str] = "linear"
    TRAINING: ClassVar[Mapping] = {}

    def build(self, *, rngs):
        return Linear(self, rngs=rngs)


class Linear(nnx.Module):
    def __init__(self, config, *, rngs):
        self.weight = uniform(1.0, config.assays, rngs=rngs)
        self.seen = constant(0.0, kind=nnx.BatchStat)

    def __call__(self, x, *, mask, key):
        if key is not None:  # in training, counts the genes
            self.seen[...] += mask.sum()
        return x.mean(1) @ self.weight[...]


@pytest.fixture(scope="module")
def genes():
    """Eight genes to train on, four to validate, two of neither; a target that assays explain."""
    random = np.random.default_rng(0)
    values = random.normal(size=(2, 14, 3)).astype(np.float32)
    x = values.mean(2).T.astype(float)  # [G A]
    part = np.repeat([0, 1, 2], [8, 4, 2])
    inputs = RunInputs(
        target=(x @ [2.0, -1.0]).astype(np.float32),
        train=part == 0,
        validation=part == 1,
        order_key=np.array([1, 2], np.uint32),
        model_key=np.array([3, 4], np.uint32),
    )
    return WindowSignal(jnp.asarray(values)), inputs, x


@functools.cache
def trainer_of(**changes):
    settings = {"epochs": 3, "batch_size": 8, "plateau": None, "early_stop": None} | changes
    trainer = Trainer(LinearConfig(), TrainConfig(**settings))
    return trainer, jax.jit(trainer.train_epoch)


def train(genes, count, inputs=None, **changes):
    """The states before and after each of so many epochs, and the epochs' records."""
    signal, own, _ = genes
    trainer, epoch = trainer_of(**changes)
    states, records = [trainer.init(own.model_key)], []
    for _ in range(count):
        state, record = epoch(states[-1], inputs or own, signal)
        states.append(state)
        records.append(record)
    return states, records


def weight(params):
    return np.asarray(jax.tree.leaves(params)[0], float)


def test_two_epochs_are_adam_by_hand(genes):
    """With every training gene in one batch: decayed rate, and weights that shrink by it."""
    states, records = train(genes, 2, learning_rate=RATE, decay=DECAY, weight_decay=SHRINK)
    _, inputs, x = genes
    w, mean, square = weight(states[0].params), np.zeros(2), np.zeros(2)
    x_train, y_train = x[inputs.train], inputs.target[inputs.train]
    x_valid, y_valid = x[inputs.validation], inputs.target[inputs.validation]
    for step, (state, record) in enumerate(zip(states[1:], records, strict=True), 1):
        error = x_train @ w - y_train
        np.testing.assert_allclose(record.train_loss, (error**2).mean(), rtol=1e-5)
        gradient = 2 * x_train.T @ error / len(error)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        adam = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + EPSILON)
        rate = RATE * DECAY ** (step - 1)
        w = w - rate * (adam + SHRINK * w)
        np.testing.assert_allclose(weight(state.params), w, rtol=1e-5)
        np.testing.assert_allclose(record.learning_rate, rate, rtol=1e-6)
        loss = ((x_valid @ w - y_valid) ** 2).mean()
        np.testing.assert_allclose(record.validation_loss, loss, rtol=1e-5)
        assert (int(state.epoch), int(record.bad_step)) == (step, -1)


def test_an_epoch_sees_every_training_gene_once_whatever_the_batches(genes):
    for size in (3, 5, 8):
        states, _ = train(genes, 2, batch_size=size)
        assert jax.tree.leaves(states[-1].stats)[0] == 2 * 8


def one_by_one(epoch, state, inputs):
    return jax.lax.map(lambda lane: epoch(*lane), (state, inputs))


@pytest.mark.parametrize("side_by_side", [True, False])
def test_turns_past_the_last_batch_change_nothing(genes, side_by_side):
    """On a GPU the loops have as many turns as the largest run needs."""
    signal, inputs, _ = genes
    fewer = dataclasses.replace(
        inputs,
        train=inputs.train & (np.arange(14) < 4),
        validation=inputs.validation & (np.arange(14) < 9),
    )
    both = jax.tree.map(lambda *x: np.stack(x), inputs, fewer)
    plan = BatchPlan(3)
    knowing = plan.with_most_genes(both.train), plan.with_most_genes(both.validation)
    assert [one.most_genes for one in knowing] == [8, 4]
    config = TrainConfig(epochs=3, batch_size=3, plateau=None, early_stop=None)
    found = []
    for plans in ((plan, plan), knowing):
        trainer = Trainer(LinearConfig(), config, plans)
        epoch = functools.partial(trainer.train_epoch, signal=signal, platform="gpu")
        epochs = jax.jit(jax.vmap(epoch) if side_by_side else functools.partial(one_by_one, epoch))
        state = trainer.init(both.model_key)
        for _ in range(2):
            state, record = epochs(state, both)
        found.append((state, record))
        turns = str(jax.make_jaxpr(epochs)(state, both)).count("scan[")
        assert turns >= (2 if plans is knowing else 0)
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    seen = jax.tree.leaves(found[1][0].stats)[0]
    assert seen.tolist() == [16, 8]  # two epochs of 8 genes, and of 4
    assert np.isfinite(found[1][1].validation_loss).all()


def test_a_run_begins_as_its_key_says(genes):
    trainer, _ = trainer_of()
    first, again, other = (
        trainer.init(np.array(key, np.uint32)) for key in ([3, 4], [3, 4], [3, 5])
    )
    assert weight(first.params).tolist() == weight(again.params).tolist()
    assert (weight(first.params) != weight(other.params)).all()
    assert (int(first.epoch), int(first.status)) == (0, RUNNING)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), trainer.state_shapes())
    assert shapes == jax.tree.map(lambda x: (np.shape(x), x.dtype), first)


def test_a_run_ends_after_its_epochs_and_stays_as_it_is(genes):
    states, records = train(genes, 4)
    assert [int(state.status) for state in states] == [RUNNING] * 3 + [FINISHED] * 2
    for a, b in zip(jax.tree.leaves(states[3]), jax.tree.leaves(states[4]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan([records[3].train_loss, records[3].validation_loss]).all()
    assert np.isnan(records[3].learning_rate)


def test_a_run_that_gets_worse_stops_early_and_keeps_its_best_weights(genes):
    """Validation genes want the opposite of what training genes do."""
    inputs = genes[1]
    opposite = np.where(inputs.validation, -1, 1) * inputs.target
    inputs = dataclasses.replace(inputs, target=opposite)
    early = EarlyStopConfig(patience=2)
    plateau = PlateauConfig(patience=1, factor=0.5)
    changes = {"epochs": 9, "learning_rate": RATE, "early_stop": early, "plateau": plateau}
    states, records = train(genes, 4, inputs, **changes)
    losses = [float(record.validation_loss) for record in records[:3]]
    assert losses == sorted(losses)
    assert [int(state.status) for state in states] == [RUNNING] * 3 + [STOPPED] * 2
    assert weight(states[3].best_params).tolist() == weight(states[1].params).tolist()
    assert jax.tree.leaves(states[3].best_stats)[0] == 8
    rates = [float(record.learning_rate) for record in records[:3]]
    np.testing.assert_allclose(rates, [RATE, RATE, RATE / 2], rtol=1e-6)


def test_a_loss_that_is_not_finite_quarantines_the_run(genes):
    inputs = genes[1]
    lost = np.where(np.arange(14) == 0, np.nan, inputs.target)
    states, records = train(
        genes, 1, dataclasses.replace(inputs, target=lost.astype(np.float32)), batch_size=3
    )
    assert int(states[1].status) == QUARANTINED
    assert 0 <= int(records[0].bad_step) < 3
    assert weight(states[1].best_params).tolist() == weight(states[0].params).tolist()
    # A validation gene's loss breaks it too, in no step of training.
    lost = np.where(np.arange(14) == 8, np.nan, inputs.target)
    states, records = train(
        genes, 1, dataclasses.replace(inputs, target=lost.astype(np.float32)), batch_size=3
    )
    assert (int(states[1].status), int(records[0].bad_step)) == (QUARANTINED, -1)


def test_wanted_genes_are_predicted_and_no_others(genes):
    signal, _, x = genes
    graph, params, stats = parts_of(LinearConfig())
    params = jax.tree.map(lambda _: jnp.array([2.0, -1.0]), params)
    stats = jax.tree.map(lambda _: jnp.zeros(()), stats)
    wanted = np.arange(14) % 3 == 0
    for size in (2, 5, 64):
        found = predict_genes(graph, params, stats, signal, jnp.asarray(wanted), BatchPlan(size))
        np.testing.assert_allclose(found, np.where(wanted, x @ [2.0, -1.0], 0), rtol=1e-5)


def test_a_masked_mark_model_reads_what_is_shown(genes):
    """Weights of both signals, then of both masks."""
    signal, _, x = genes
    graph, params, stats = parts_of(LinearConfig(assays=4))
    params = jax.tree.map(lambda _: jnp.array([2.0, -1.0, 10.0, 100.0]), params)
    stats = jax.tree.map(lambda _: jnp.zeros(()), stats)
    present = np.random.default_rng(1).random((14, 2)) < 0.5
    assert present.any(0).all()
    every = jnp.ones(14, bool)
    found = predict_genes(graph, params, stats, signal, every, BatchPlan(4), jnp.asarray(present))
    np.testing.assert_allclose(found, (present * x) @ [2, -1] + present @ [10, 100], rtol=1e-5)


def test_outputs_of_any_shape_are_laid_where_their_genes_are(genes):
    signal, _, x = genes
    graph, params, stats = parts_of(LinearConfig())
    params = jax.tree.map(lambda _: jnp.array([2.0, -1.0]), params)
    stats = jax.tree.map(lambda _: jnp.zeros(()), stats)
    wanted = np.arange(14) > 8

    def outputs(model, batch, index, mask):
        return jnp.stack([index.astype(jnp.float32), batch.mean((1, 2))])

    before = jnp.full((2, 14), -5.0)
    found = over_batches(
        graph, params, stats, signal, jnp.asarray(wanted), BatchPlan(4), outputs, before
    )
    np.testing.assert_array_equal(found[0], np.where(wanted, np.arange(14), -5))
    np.testing.assert_allclose(found[1], np.where(wanted, x.mean(1), -5), rtol=1e-5)


def test_all_settings_that_make_no_sense_are_named_at_once():
    with pytest.raises(InputError) as caught:
        TrainConfig(
            task="ranking", epochs=0, batch_size=-1, learning_rate=0.0, weight_decay=-0.1,
            decay=float("nan"), precision="float8",
        )  # fmt: skip
    problems = {problem.where: problem for problem in caught.value.problems}
    assert list(problems) == [
        "--epochs", "--batch_size", "--learning_rate", "--lr_decay", "--weight_decay",
        "--precision", "--task",
    ]  # fmt: skip
    assert problems["--batch_size"].found == "-1"
    assert problems["--weight_decay"].expected == "0 or more"
    assert problems["--precision"].expected == "float32 or tf32 or bfloat16"
    assert problems["--task"].expected == "regression or classification"
    assert all(problem.remedy for problem in caught.value.problems)
