"""Outputs under edits: the same whether all is read again or only what an edit alters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax import perturb
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.perturb.outputs import extent, predict, survey
from tests.epi2expr_jax.perturb.edited_batches import batch_of, signal_of
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of


def test_rereading_altered_regions_alone_changes_nothing(distal_store):
    """Kept tokens and all computed anew, of edits that reach one region, two, or the window too."""
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, dataclasses.replace(SMALL, pairwise_layers=2), assays)
    own = distal_store.regions("E003")
    number, _ = own.by_gene(len(distal_store.genes), 8)
    gene = np.flatnonzero((number >= 0).sum(1) > 2)[0]  # its third region is edited too
    chrom = own.table.chrom[number[gene, 0]]
    ends = own.table.iloc[number[gene, :2]]
    edits = [
        perturb.scale(assays[0], perturb.pcre(0), 0),
        perturb.scale(assays[1], perturb.pcre(2), 3),
        perturb.scale(assays[0], perturb.promoter(), 0),
        (
            perturb.scale(assays[0], perturb.pcre(0), 2),
            perturb.scale(assays[1], perturb.pcre(1), 0),
        ),
        perturb.scale(
            assays[0], perturb.interval(chrom, int(ends.start.min()), int(ends.end.max())), 0
        ),
    ]
    kept = perturb.run(ensemble, distal_store, edits)
    anew = perturb.run(ensemble, distal_store, edits, reread=False)
    np.testing.assert_allclose(kept.after, anew.after, atol=1e-6)
    np.testing.assert_array_equal(kept.changed, anew.changed)
    assert (np.abs(kept.effect) > 1e-4).any(("run", "gene")).all()


def test_extent_is_the_lowest_the_highest_and_the_mean():
    values = jnp.array([[1.0, 5.0, 3.0, 3.0], [-2.0, -2.0, -2.0, -2.0]])
    np.testing.assert_array_equal(extent(values), [[1, 5, 3], [-2, -2, -2]])


def test_a_survey_tells_where_an_edit_lies_and_where_signal_changes(distal_store, rows):
    assay = distal_store.manifest.assays[0]
    edits = [
        perturb.set_to(assay, perturb.promoter(), 50.0),
        perturb.scale(assay, perturb.promoter(), 1),
        perturb.set_to(assay, perturb.pcre(1), 50.0),
    ]
    signal = signal_of(distal_store, SMALL, [assay], edits, rows)
    own = distal_store.regions("E003")
    number, _ = own.by_gene(len(distal_store.genes), 8)
    slots = int((number[rows] >= 0).sum(1).max())
    effects, seen = survey(signal, slots)
    reached, changed = np.moveaxis(
        np.asarray(effects).reshape(len(rows), len(edits) + 1, 1 + slots, 2), -1, 0
    )
    np.testing.assert_array_equal(reached[:, :, 0][:, :2], True)
    np.testing.assert_array_equal(changed[:, :2, 0], [[True, False]] * len(rows))
    second = number[rows, 1] >= 0
    np.testing.assert_array_equal(reached[:, 2, 2], second)
    np.testing.assert_array_equal(changed[:, 2, 2], second)
    assert not changed[:, [1, 3]].any()
    assert not reached[:, 3].any()
    seen = np.asarray(seen).reshape(len(rows), len(edits) + 1, 3)
    assert (seen[:, 0] != seen[:, 3]).any(1).all()
    np.testing.assert_array_equal(seen[:, 1], seen[:, 3])


def test_outputs_are_the_models_own_of_what_is_wanted(distal_store, rows):
    assay = distal_store.manifest.assays[0]
    (member,) = ensemble_of(distal_store, WINDOW, [assay]).members
    edits = [perturb.scale(assay, perturb.promoter(), factor) for factor in (0, 3)]
    signal = signal_of(distal_store, WINDOW, [assay], edits, rows)
    wanted = np.random.default_rng(0).random((2, signal.queries)) < 0.5
    weights = jax.device_put(member.weights)
    found = predict(member.model_config, BatchPlan(7), weights, wanted, signal, None)
    every, x = np.ones(signal.queries, bool), batch_of(signal)
    for r, own in enumerate(np.asarray(found)):
        one = jax.tree.map(lambda leaf, r=r: leaf[r], weights)
        model = nnx.merge(parts_of(member.model_config)[0], one["params"], one["stats"])
        alone = nnx.jit(lambda model, x: model(x, mask=jnp.asarray(every), key=None))
        expected = np.asarray(alone(model, x))
        np.testing.assert_allclose(own, np.where(wanted[r], expected, 0), atol=1e-5)
