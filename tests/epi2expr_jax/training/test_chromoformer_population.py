"""Chromoformer in the population engine: sameness, schedules, tasks."""

import jax
import numpy as np
import pytest

from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import FINISHED, Run, plan_batches, plan_runs
from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.training.targets import LABEL

SMALL = ChromoformerConfig(
    resolutions=(2000,), embedding=8, embed_ff=8, pairwise_layers=1, pairwise_ff=8,
    regulation_layers=2, regulation_heads=2, regulation_width=8, regulation_ff=8, head=8,
)  # fmt: skip
PUBLISHED = {**ChromoformerConfig.TRAINING["decay"], "epochs": 3, "learning_rate": 3e-3}
CONFIG = TrainConfig(plateau=None, early_stop=None, **PUBLISHED)


@pytest.fixture(scope="module")
def study(distal_store):
    """Every single-assay model of two cells and five folds."""
    manifest = distal_store.manifest
    data = load_dataset(distal_store, SMALL, manifest.cells, manifest.assays)
    folds = make_folds("chromosomes_5", distal_store.genes.chrom.value_counts().to_dict())
    plans = plan_batches(distal_store, SMALL, folds, CONFIG.batch_size, CONFIG.balanced)
    runs = [
        Run(cell, (assay,), fold.name, 0)
        for cell in manifest.cells
        for assay in manifest.assays
        for fold in folds
    ]
    return data, folds, plans, runs


def trained(study, trainer, runs):
    data, folds, _, _ = study
    inputs, _ = plan_runs(data, runs, folds, "log2")
    return finished(Population(trainer, runs, inputs, TrackCache(data)))


def finished(population):
    """Logs by run, and the best weights stacked in the order of runs."""
    while population.alive:
        population.train_epoch()
    members, weights = population.take_ended()
    assert members == list(range(len(population.runs)))
    return population.logs, weights


@pytest.fixture(scope="module")
def trainer(study):
    return Trainer(SMALL, CONFIG, study[2])


def test_a_run_is_the_same_alone_and_among_all(study, trainer):
    runs = study[3]
    logs, weights = trained(study, trainer, runs)
    assert all(log.status == FINISHED for log in logs)
    assert np.isfinite([log.validation_loss for log in logs]).all()
    for i in (0, 17, len(runs) - 1):
        (alone,), own = trained(study, trainer, [runs[i]])
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(weights), strict=True):
            np.testing.assert_array_equal(a[0], b[i])
        np.testing.assert_array_equal(alone.validation_loss, logs[i].validation_loss)
    losses = np.array([log.train_loss for log in logs])
    assert (losses[:, -1] < losses[:, 0]).mean() > 0.9
    np.testing.assert_allclose(logs[0].learning_rate, 3e-3 * 0.87 ** np.arange(3), rtol=1e-6)


def test_classification_learns_labels(study, distal_store):
    """With any model; the small CNN compiles fastest."""
    _, folds, _, runs = study
    model = PromoterCnnConfig(width=0.02)
    manifest = distal_store.manifest
    data = load_dataset(distal_store, model, manifest.cells, manifest.assays)
    config = TrainConfig(task="classification", epochs=6, batch_size=32)
    inputs, scales = plan_runs(data, runs[:2], folds, LABEL)
    logs, _ = finished(Population(Trainer(model, config), runs[:2], inputs, TrackCache(data)))
    losses = np.array([log.train_loss for log in logs])
    assert losses[0, 0] == pytest.approx(np.log(2), abs=0.15)  # undecided at first
    assert (losses[:, -1] < losses[:, 0]).all()
    rpkm = data.expression[0]
    np.testing.assert_array_equal(inputs.target[0], rpkm >= np.median(rpkm))
    probability = scales[0].unstandardise(np.array([-50.0, 0, 50]))
    np.testing.assert_allclose(probability, [0, 0.5, 1], atol=1e-12)
