"""The loop of inference: chunks of runs, each run's wanted genes, and the scale of the answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.predict.inference import chunks_of, on_scale, plan_of, predict_runs
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.targets import LABEL, TargetScale
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of

REGIONS = dataclasses.replace(SMALL, resolutions=(2000,))


def test_outputs_on_either_scale_by_hand():
    outputs = np.array([2.0, -3.0], np.float32)
    minmax = TargetScale("minmax", 0.0, 10.0, 0.5, 0.25)
    np.testing.assert_allclose(on_scale(minmax, outputs, "raw"), [1.0, -0.25])
    # 10 RPKM; and RPKM predicted below 0 counts as 0.
    np.testing.assert_allclose(on_scale(minmax, outputs, "log2"), [np.log2(11), 0])
    log2 = TargetScale("log2", 0.0, 10.0, 1.0, 3.0)
    np.testing.assert_allclose(on_scale(log2, outputs, "raw"), [7, -8])
    np.testing.assert_allclose(on_scale(log2, outputs, "log2"), [7, -8])
    label = TargetScale(LABEL, 1.0, 10.0, 0.0, 1.0)
    np.testing.assert_allclose(on_scale(label, outputs, "log2"), 1 / (1 + np.exp([-2, 3])))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_chunks_hold_each_run_once_with_its_own_tracks(small_store, width):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    runs = [Run(cell, (assay,), "fold1", 0) for cell in cells for assay in assays[:2]][:3]
    data = load_dataset(small_store, WINDOW, cells, assays[:2])
    lanes = Lanes(width, tuple(jax.local_devices()[:1]))
    own = {"number": np.arange(3), "square": np.arange(3) ** 2}
    seen = []
    for rows, stacked, tracks in chunks_of(own, runs, TrackCache(data), lanes):
        seen += rows.tolist()
        idle = [2] * (width - len(rows))  # lanes that repeat the last run
        assert stacked["number"].tolist() == [*rows, *idle]
        assert stacked["square"].tolist() == [i**2 for i in (*rows, *idle)]
        assert len(tracks) == width
        for i, ((track,), regions) in zip([*rows, *idle], tracks, strict=True):
            expected = data.track(runs[i].cell, runs[i].assays[0])
            np.testing.assert_array_equal(track.values[0], expected.values)
            assert regions is None
    assert seen == [0, 1, 2]


def plain(config, weights, r, signal, index):
    """The outputs of one run for a batch of genes, without the loop of inference."""
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf[r]), weights)
    model = nnx.merge(parts_of(config)[0], own["params"], own["stats"])
    slots = (8,) * len(index) if isinstance(config, ChromoformerConfig) else ()
    x = signal.gather(jnp.asarray(index), BatchPlan(len(index), slots))
    return nnx.jit(lambda model, x: model(x, mask=jnp.ones(len(index), bool), key=None))(model, x)


@pytest.mark.parametrize("config", [REGIONS, WINDOW], ids=["chromoformer", "promoter_cnn"])
def test_each_run_predicts_the_genes_wanted_of_it_and_no_others(distal_store, config):
    assays = distal_store.manifest.assays[:2]
    (member,) = ensemble_of(distal_store, config, assays).members
    data = load_dataset(distal_store, member.model_config, ["E003"], assays)
    chosen = np.arange(0, len(distal_store.genes), 20)
    wanted = np.zeros((2, len(distal_store.genes)), bool)
    wanted[0, chosen] = wanted[1, chosen[::2]] = True
    found = predict_runs(member.model_config, member.weights, member.runs, TrackCache(data), wanted)
    assert not found[~wanted].any()
    signal = jax.device_put(data.signal("E003", assays))
    for r in range(2):
        (index,) = np.nonzero(wanted[r])
        expected = plain(member.model_config, member.weights, r, signal, index)
        np.testing.assert_allclose(found[r, index], expected, atol=1e-5)
        assert np.ptp(expected) > 1e-3


def test_a_plan_has_slots_for_every_run_and_wastes_none(distal_store):
    cells, assays = distal_store.manifest.cells, tuple(distal_store.manifest.assays[:1])
    config = dataclasses.replace(SMALL, assays=1)
    cache = TrackCache(load_dataset(distal_store, config, cells, assays))
    genes = len(distal_store.genes)
    number, _ = distal_store.regions("E003").by_gene(genes, config.contacts)
    count = (number >= 0).sum(1)
    runs = [Run("E003", assays, fold, 0) for fold in ("fold1", "fold2")]
    wanted = np.zeros((2, genes), bool)
    wanted[0, np.argsort(count)[-3:]] = wanted[1, np.argsort(count)[:5]] = True
    plan = plan_of(config, runs, cache, wanted)
    parts = [np.sort(count[own])[::-1] for own in wanted]
    expected = [max(part[i] if i < len(part) else 0 for part in parts) for i in range(5)]
    assert plan.slots[:5] == tuple(expected)
    assert not any(plan.slots[5:])
    assert plan_of(WINDOW, runs, cache, wanted).slots == ()
