import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax import population as population_module
from epi2expr_jax.dataset import load_dataset
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.population import Population
from epi2expr_jax.runs import Run, plan_runs
from epi2expr_jax.schedules import EarlyStopConfig
from epi2expr_jax.splits import make_folds
from epi2expr_jax.training import FINISHED, QUARANTINED, RUNNING, STOPPED, TrainConfig, Trainer

CONFIG = TrainConfig(epochs=4, batch_size=32)
MODEL = REGISTRY["promoter_cnn"](assays=1, width=0.02)


@pytest.fixture(scope="module")
def study(small_store):
    """60 runs over 2 cells, 3 assays, 5 folds and 2 seeds, on one small dataset."""
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    data = load_dataset(small_store, MODEL, cells, assays)
    folds = make_folds("chromosomes_5", small_store.genes.chrom.value_counts().to_dict())
    runs = [
        Run(cell, (assay,), fold.name, seed)
        for cell in cells
        for assay in assays
        for fold in folds
        for seed in range(2)
    ]
    return data, folds, runs


@pytest.fixture(scope="module")
def trainer():
    return Trainer(MODEL, CONFIG)


def make(study, trainer, runs, lanes=None, poisoned=()):
    """A population; the `poisoned` rows of it have targets that no loss survives."""
    data, folds, _ = study
    inputs, _ = plan_runs(data, runs, folds, "log2")
    for i in poisoned:
        inputs = dataclasses.replace(inputs, target=inputs.target.at[i].set(jnp.inf))
    return Population(trainer, runs, inputs, data.signal, lanes)


def trained(population):
    while population.alive:
        population.train_epoch()
    return population


def run_of(population, i):
    """Everything of one run that must not depend on its neighbours."""
    leaves = jax.tree.leaves(jax.tree.map(lambda x: np.asarray(x[i]), population.state))
    return [*leaves, *(column[i] for column in dataclasses.asdict(population.history).values())]


@pytest.mark.parametrize(("lanes", "sizes"), [(1, (8, 60)), (4, (8,))])
def test_a_run_is_the_same_bit_for_bit_in_any_company(study, trainer, lanes, sizes):
    """Alone and among others, at another place each time; idle lanes are company too."""
    wanted = study[2][17]
    others = [run for run in study[2] if run != wanted]
    alone = run_of(trained(make(study, trainer, [wanted], lanes)), 0)
    for size in sizes:
        place = 2 * size // 3
        runs = [*others[:place], wanted, *others[place : size - 1]]
        assert len(runs) == size
        among = run_of(trained(make(study, trainer, runs, lanes)), place)
        for a, b in zip(alone, among, strict=True):
            np.testing.assert_array_equal(a, b)


def test_members_differ(study, trainer):
    """Two seeds share nothing but their data; two assays share their order of genes."""
    population = trained(make(study, trainer, study[2][:6]))
    weights = np.stack(
        [np.concatenate([leaf.ravel() for leaf in run_of(population, i)[:6]]) for i in range(6)]
    )
    assert len(np.unique(weights, axis=0)) == 6


@pytest.mark.parametrize("lanes", [1, 4])
def test_nothing_compiles_twice_across_epochs(study, trainer, lanes):
    population = make(study, trainer, study[2][:4], lanes)
    population.train_epoch()
    compiled = population_module._epoch._cache_size()
    for _ in range(3):
        population.train_epoch()
    make(study, trainer, study[2][5:9], lanes).train_epoch()  # as many runs: the same program
    resumed = make(study, trainer, study[2][:4], lanes)
    resumed.restore(jax.tree.map(np.array, population.snapshot()))
    resumed.epochs_done = 0
    resumed.train_epoch()
    assert population_module._epoch._cache_size() == compiled


def test_training_lowers_the_loss_and_keeps_the_best_weights(study):
    trainer = Trainer(MODEL, TrainConfig(epochs=12, batch_size=32))
    population = trained(make(study, trainer, study[2][:2]))
    history = population.history
    assert (history.train_loss[:, -1] < history.train_loss[:, 0]).all()
    # The best weights are those of the epoch with the lowest validation loss.
    data, folds, runs = study
    inputs, _ = plan_runs(data, runs[:2], folds, "log2")
    for i in range(2):
        one = jax.tree.map(lambda x, i=i: x[i], inputs)
        state = jax.tree.map(lambda x, i=i: x[i], population.state)
        loss = trainer._validation_loss(state.best_params, state.best_stats, one, data.signal)
        np.testing.assert_allclose(loss, np.nanmin(history.validation_loss[i]), rtol=1e-5)


def test_a_run_whose_loss_is_not_finite_is_quarantined_by_name(study, trainer):
    """It leaves after its first epoch; the others end as without it."""
    runs = study[2]
    chosen = [runs[0], runs[10], runs[20]]  # three assays of one cell
    population = trained(make(study, trainer, chosen, poisoned=[1]))
    assert population.quarantined() == [runs[10]]
    assert population.status_names()[1] == "quarantined"
    assert population.status.tolist() == [FINISHED, QUARANTINED, FINISHED]
    assert np.isnan(population.history.learning_rate[1, 1:]).all()
    clean = trained(make(study, trainer, chosen))
    for i in (0, 2):
        for a, b in zip(run_of(population, i), run_of(clean, i), strict=True):
            np.testing.assert_array_equal(a, b)


def test_early_stopping_ends_runs_one_by_one(study):
    config = TrainConfig(
        epochs=40, batch_size=32, learning_rate=0.02, early_stop=EarlyStopConfig(patience=2)
    )
    population = trained(make(study, Trainer(MODEL, config), study[2][:4]))
    epochs = np.isfinite(population.history.train_loss).sum(1)
    assert (population.status == STOPPED).any()
    for i in np.flatnonzero(population.status == STOPPED):
        losses = population.history.validation_loss[i][: epochs[i]]
        assert np.argmin(losses) == epochs[i] - 3  # two epochs without improvement after the best
    assert np.isnan(population.history.train_loss[:, epochs.max() :]).all()


def test_a_snapshot_goes_on_where_it_was_taken(study, trainer):
    whole = trained(make(study, trainer, study[2][:3]))
    half = make(study, trainer, study[2][:3])
    half.train_epoch()
    half.train_epoch()
    snapshot = jax.tree.map(np.array, half.snapshot())
    resumed = make(study, trainer, study[2][:3])
    resumed.restore(snapshot)
    trained(resumed)
    for i in range(3):
        for a, b in zip(run_of(resumed, i), run_of(whole, i), strict=True):
            np.testing.assert_array_equal(a, b)


def test_idle_lanes_fill_the_last_chunk(study, trainer):
    population = make(study, trainer, study[2][:5], lanes=4)
    assert population.state.status.shape == (8,)
    assert population.status.tolist() == [RUNNING] * 5
    trained(population)
    assert population.weights()["params"] is not None
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(population.weights()))
