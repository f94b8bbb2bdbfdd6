"""What the made-up runs train on; the engine itself has its own tests."""

import jax
import numpy as np

from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.training.lanes import Lanes
from experiments.benchmarks import made_up


def test_the_first_genes_train_and_the_last_runs_break():
    lanes = Lanes(2, (jax.local_devices()[0],))
    trainer = made_up.window_trainer(CnnConfig(width=0.02), 8, "tf32")
    cache = TrackCache(made_up.OneTrack(20, bins=400))
    found = made_up.population(trainer, cache, 20, 16, 4, lanes, broken=1)
    assert (trainer.config.batch_size, trainer.config.precision) == (8, "tf32")
    assert [run.assays for run in found.runs] == [("assay",)] * 4
    assert found.inputs.train.sum(1).tolist() == [16] * 4
    assert (found.inputs.validation == ~found.inputs.train).all()
    assert np.isnan(found.inputs.target).any(1).tolist() == [False, False, False, True]
    assert len({tuple(key) for key in found.inputs.model_key.tolist()}) == 4


def test_a_cell_has_the_contacts_of_the_demo():
    data = made_up.OneCell(100)
    assert np.bincount(data.n_contacts).tolist() == [11, 8, 3, 3, 4, 5, 4, 4, 58]
    config = ChromoformerConfig(assays=made_up.ASSAYS, width=0.1)
    trainer = made_up.region_trainer(config, data, 96, 8)
    assert trainer.config.early_stop is None
    assert trainer.config.batch_size == 8
    assert data.regions("cell").region.shape == (100, 8)
