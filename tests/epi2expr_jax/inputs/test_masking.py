import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.inputs.masking import CHANNELS, every_subset, masked, random_subsets
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.models.region_batch import RegionBatch
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import Run, plan_batches, plan_runs
from epi2expr_jax.training.splits import make_folds
from tests.epi2expr_jax.untrained import built

GENES = 8
REGIONS = ChromoformerConfig(
    resolutions=(2000,), embedding=8, embed_ff=8, pairwise_layers=1, pairwise_ff=8,
    regulation_layers=1, regulation_heads=2, regulation_width=8, regulation_ff=8, head=8,
)  # fmt: skip
WINDOWS = PromoterCnnConfig(width=0.1)


def test_every_subset_is_there_once():
    subsets = every_subset(4)
    assert len(np.unique(subsets, axis=0)) == 16
    assert not subsets[0].any()
    assert subsets[-1].all()
    assert subsets[0b0101].tolist() == [True, False, True, False]


def test_subsets_are_uniform_in_size_and_in_which_assays():
    assays, genes = 4, 40_000
    subsets = np.asarray(random_subsets(jax.random.key(1), genes, assays))
    sizes = np.bincount(subsets.sum(1), minlength=assays + 1)
    assert sizes[0] == 0  # a model is never asked to predict from nothing
    np.testing.assert_allclose(sizes[1:] / genes, 1 / assays, atol=0.01)
    for size in range(1, assays):
        shares = subsets[subsets.sum(1) == size].mean(0)
        np.testing.assert_allclose(shares, size / assays, atol=0.02)
    again = random_subsets(jax.random.key(1), genes, assays)
    np.testing.assert_array_equal(subsets, again)
    assert (subsets != np.asarray(random_subsets(jax.random.key(2), genes, assays))).any()
    assert random_subsets(jax.random.key(3), 5, 1).all()


def test_a_masked_window_holds_signals_and_masks():
    x = jnp.arange(1.0, 13).reshape(2, 3, 2)
    present = jnp.array([[True, False], [True, True]])
    found = masked(x, present)
    np.testing.assert_array_equal(found[0, :, 0], x[0, :, 0])
    np.testing.assert_array_equal(found[0, :, 1], 0)
    np.testing.assert_array_equal(found[1, :, :2], x[1])
    np.testing.assert_array_equal(found[0, :, 2:], [[1, 0]] * 3)
    np.testing.assert_array_equal(found[1, :, 2:], 1)


def read(store, config):
    """A batch of the store's first cell, all its assays, and a masked-mark model of them."""
    manifest = store.manifest
    data = load_dataset(store, config, manifest.cells, manifest.assays)
    plan = BatchPlan(GENES)
    if isinstance(config, ChromoformerConfig):
        plan = BatchPlan(GENES, (config.contacts,) * GENES)
    signal = data.signal(manifest.cells[0], manifest.assays)
    x = jax.jit(lambda signal: signal.gather(jnp.arange(GENES), plan))(signal)
    model = dataclasses.replace(config, assays=CHANNELS * len(manifest.assays))
    return x, built(model)


def louder(x, assay):
    """The same batch with another signal of one assay, where it has any."""

    def changed(values):
        if values is x:
            return x.at[..., assay].multiply(3.0)
        return values.at[:, assay].multiply(3.0)

    if isinstance(x, RegionBatch):
        promoter, region = tuple(map(changed, x.promoter)), tuple(map(changed, x.region))
        return dataclasses.replace(x, promoter=promoter, region=region)
    return changed(x)


@pytest.mark.parametrize("config", [WINDOWS, REGIONS], ids=["windows", "regions"])
def test_an_absent_assay_is_not_read_and_a_present_one_is(config, distal_store):
    x, model = read(distal_store, config)
    there = jnp.ones(GENES, bool)
    absent = jnp.arange(GENES) % 2 == 0  # for every other gene
    present = jnp.ones((GENES, 3), bool).at[:, 1].set(~absent)
    predict = nnx.jit(lambda model, x: model(masked(x, present), mask=there, key=None))
    before, after = predict(model, x), predict(model, louder(x, 1))
    changed = np.abs(np.asarray(after - before)) > 1e-6
    assert not changed[absent].any()
    assert changed[~absent].all()


def test_masked_regions_are_empty_in_the_padding(distal_store):
    x, _ = read(distal_store, REGIONS)
    found = masked(x, jnp.ones((GENES, 3), bool))
    for parts, owns in ((found.promoter, x.promoter_valid), (found.region, x.region_valid)):
        for part, own in zip(parts, owns, strict=True):
            assert part.shape[1] == 6
            masks = np.asarray(part[:, 3:])
            np.testing.assert_array_equal(masks, np.repeat(np.asarray(own)[:, None], 3, axis=1))
    for old, new in zip(x.promoter + x.region, found.promoter + found.region, strict=True):
        np.testing.assert_array_equal(old, new[:, :3])


@pytest.fixture(scope="module")
def trained(distal_store):
    """`trained(model, …)`: a population of masked-mark models of all three assays, to its end."""
    manifest = distal_store.manifest
    folds = make_folds("chromosomes_3", distal_store.genes.chrom.value_counts().to_dict())
    runs = [Run(cell, tuple(manifest.assays), fold.name, 0)
            for cell in manifest.cells for fold in folds]  # fmt: skip

    @functools.cache  # compiled once
    def trainer_of(model, learning_rate):
        config = TrainConfig(epochs=2, batch_size=32, masked=True, learning_rate=learning_rate)
        return Trainer(model, config, plan_batches(distal_store, model, folds, 32, True))

    def train(model, chosen=slice(None), learning_rate=1e-3):
        model = dataclasses.replace(model, assays=CHANNELS * 3)
        data = load_dataset(distal_store, model, manifest.cells, manifest.assays)
        inputs, _ = plan_runs(data, runs[chosen], folds, "log2")
        trainer = trainer_of(model, learning_rate)
        population = Population(trainer, runs[chosen], inputs, TrackCache(data))
        while population.alive:
            population.train_epoch()
        return population

    return train


def test_a_masked_run_is_the_same_alone_and_among_all(trained):
    together, alone = trained(WINDOWS), trained(WINDOWS, slice(3, 4))
    assert together.logs[3] == alone.logs[0]
    (_, weights), (_, own) = together.take_ended(), alone.take_ended()
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(weights), strict=True):
        np.testing.assert_array_equal(a[0], b[3])
    assert len({tuple(log.validation_loss) for log in together.logs}) == 6


def test_training_shows_fresh_subsets_and_validation_always_the_same(trained):
    """A model that does not learn and drops nothing out tells them apart."""
    (log,) = trained(REGIONS, slice(0, 1), learning_rate=1e-30).logs
    assert len(set(log.validation_loss)) == 1
    assert np.ptp(log.train_loss) > 1e-4
