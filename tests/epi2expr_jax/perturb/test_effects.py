"""Altered marks: what edits do to a model's output, how sure that is, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of


def test_factor_one_and_signal_already_so_change_nothing(distal_store):
    """Bit for bit, in every place; and where there is nothing to lower."""
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, SMALL, [assay])
    where = [perturb.promoter(), perturb.pcre(0), *perturb.distal_bins(10_000)]
    edits = [perturb.scale(assay, place, f) for place in where for f in (1, 0.5)]
    found = perturb.run(ensemble, distal_store, edits)
    same = found.isel(edit=slice(0, None, 2))
    assert not same.changed.any()
    np.testing.assert_array_equal(
        same.after.to_numpy(),
        np.broadcast_to(same.before.to_numpy()[..., None], same.after.shape),
    )
    other = found.isel(edit=slice(1, None, 2))
    assert other.changed.any("gene").any("run").all()
    assert (other.effect.to_numpy()[other.changed.to_numpy()] != 0).mean() > 0.9


def test_before_is_the_prediction_and_only_unseen_models_predict(distal_store):
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, SMALL, assays)
    found = perturb.run(ensemble, distal_store, [perturb.scale(assays[1], perturb.promoter(), 2)])
    genes = found.gene.to_numpy().tolist()
    expected = ensemble.predict(distal_store, genes)
    np.testing.assert_allclose(found.before, expected, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.after[..., 0]), np.isnan(expected))
    table = distal_store.genes.set_index("gene_id").loc[genes].reset_index()
    tested = np.stack([ensemble.folds[f].masks(table)["test"] for f in found.fold.to_numpy()])
    np.testing.assert_array_equal(found.before.notnull(), tested)
    seen = perturb.run(
        ensemble, distal_store, [perturb.scale(assays[1], perturb.promoter(), 2)], genes[:5],
        include_seen=True,
    )  # fmt: skip
    assert seen.before.notnull().all()


def test_edits_that_no_model_can_answer_are_refused(distal_store):
    assay, other = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    near = perturb.promoter()

    def refused(message, edits, genes=None):
        with pytest.raises(InputError, match=message):
            perturb.run(ensemble, distal_store, edits, genes)

    refused("no model was trained on", [perturb.scale(other, near, 0)])
    refused("one space at a time", [
        perturb.scale(assay, near, 0), perturb.scale(assay, near, 0, space="log"),
    ])  # fmt: skip
    refused("at least one", [])
    refused("no cell E999", [perturb.swap_with(assay, near, cell="E999")])
    refused("reach none of the genes", [
        perturb.scale(assay, perturb.interval("chr1", 0, 1), 0), perturb.scale(assay, near, 0),
    ])  # fmt: skip
    refused("unknown genes", [perturb.scale(assay, near, 0)], ["ENSG0"])
    unseen = ensemble.wanted(distal_store, np.arange(len(distal_store.genes)), False).any(0)
    seen = distal_store.genes.gene_id[~unseen].tolist()
    refused("every model saw", [perturb.scale(assay, near, 0)], seen[:2])


def test_predictions_that_are_not_finite_are_refused(distal_store):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    (member,) = ensemble.members
    steep = jax.tree.map(lambda w: 1e3 * w, member.weights["params"])
    steep = dataclasses.replace(member, weights={**member.weights, "params": steep})
    ensemble = dataclasses.replace(ensemble, members=(steep,))
    levels = [perturb.set_to(assay, perturb.promoter(), level, "log") for level in (0, 3e38)]
    assert np.isfinite(perturb.run(ensemble, distal_store, levels[:1]).effect).any()
    with pytest.raises(InputError, match=r"predictions are not finite .*= 3e\+38\)"):
        perturb.run(ensemble, distal_store, levels)
