"""Attribution: shares that add up, where the truth is known, and for unseen genes alone."""

import dataclasses

import jax
import numpy as np
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret import attribution
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of

TWO_LAYERS = dataclasses.replace(SMALL, regulation_layers=2)


def unseen_by_some(ensemble, store):
    """Ids of the genes that some model never saw."""
    wanted = ensemble.wanted(store, np.arange(len(store.genes)), False)
    return store.genes.gene_id[wanted.any(0)].tolist()


@pytest.mark.parametrize("config", [SMALL, WINDOW], ids=["chromoformer", "promoter_cnn"])
def test_shares_add_up_for_genes_no_model_saw(distal_store, config):
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, config, assays)
    unseen = unseen_by_some(ensemble, distal_store)
    genes = unseen[::9]  # of both folds
    found = attribution.integrated_gradients(ensemble, distal_store, genes).isel(model=0)
    shares = found.promoter.sum(("assay", "bin")) + found.regions.sum(("assay", "region"))
    scale = np.maximum(1, np.abs(found.difference))
    assert (np.abs(found.residual) <= 1e-3 * scale).all()
    np.testing.assert_allclose(shares, found.difference, atol=1e-3)
    expected = ensemble.predict(distal_store, genes)
    # From no signal at all a window's model predicts the same for all the genes of its fold.
    nothing = (expected - found.difference).to_numpy()
    if config is WINDOW:
        for of_run in nothing:
            of_run = of_run[~np.isnan(of_run)]
            np.testing.assert_allclose(of_run, of_run[0], atol=1e-4)
    seen = sorted(set(distal_store.genes.gene_id) - set(unseen))[:1]
    with pytest.raises(InputError, match="every model saw"):
        attribution.integrated_gradients(ensemble, distal_store, seen)


def test_rollout_is_a_share_of_each_token(distal_store):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, TWO_LAYERS, [assay])
    found = attribution.attention_rollout(ensemble, distal_store).isel(model=0)
    np.testing.assert_allclose(found.sum("token"), 1, atol=1e-5)
    rows = distal_store.genes.set_index("gene_id").index.get_indexer(found.gene.to_numpy())
    number, _ = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)
    there = np.pad(number[rows] >= 0, ((0, 0), (1, 0)), constant_values=True)
    values = found.to_numpy()
    assert (values[~np.broadcast_to(there[:, None], values.shape)] == 0).all()
    assert (values[np.broadcast_to(there[:, None], values.shape)] > 0).all()
    # Two layers by hand, for a gene without regions: all of it is its own.
    alone = ~there[:, 1:].any(1)
    np.testing.assert_allclose(values[alone, :, 0], 1, atol=1e-6)
    with pytest.raises(InputError, match="without regions"):
        attribution.attention_rollout(ensemble_of(distal_store, WINDOW, [assay]), distal_store)


def test_a_mark_that_is_not_read_has_no_share(distal_store):
    """The first convolution of a model with its second channel cut off."""
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, WINDOW, assays)
    (member,) = ensemble.members

    def cut(path, leaf):
        if jax.tree_util.keystr(path) != "['trunk'][0]['kernel'].value":
            return leaf
        assert leaf.shape[2] == 2  # runs, bins, channels, filters
        return np.where(np.arange(2)[:, None] == 1, 0, leaf)

    params = jax.tree.map_with_path(cut, member.weights["params"])
    weights = {**member.weights, "params": params}
    ensemble = dataclasses.replace(
        ensemble, members=(dataclasses.replace(member, weights=weights),)
    )
    found = attribution.integrated_gradients(ensemble, distal_store).isel(model=0)
    assert (found.promoter.sel(assay=assays[1]) == 0).all()
    assert (found.promoter.sel(assay=assays[0]) != 0).any()


@pytest.mark.parametrize("config", [SMALL, WINDOW], ids=["chromoformer", "promoter_cnn"])
def test_occlusion_is_a_prediction_without_the_stretch(distal_store, config):
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, config, assays)
    genes = unseen_by_some(ensemble, distal_store)[::20]
    window = config.window.window_bp
    bp = window // 4
    found = attribution.occlusion(ensemble, distal_store, genes, bp=bp).isel(model=0)
    assert found.bin.to_numpy().tolist() == [-1.5 * bp, -0.5 * bp, 0.5 * bp, 1.5 * bp]
    edit = perturb.scale(assays[1], perturb.span(0, bp), 0)
    one = perturb.run(ensemble, distal_store, [edit], genes).effect.mean("run").isel(edit=0)
    lost = found.promoter.sel(assay=assays[1], bin=bp / 2)
    np.testing.assert_allclose(lost, -one, atol=1e-6)
    assert (lost != 0).any()
    if config is SMALL:
        number, _ = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)
        index = distal_store.genes.set_index("gene_id").index.get_indexer(genes)
        empty = (number[index] < 0)[:, None].repeat(2, 1)
        assert (found.regions.to_numpy()[empty] == 0).all()
        assert (found.regions.to_numpy()[~empty] != 0).any()
    with pytest.raises(InputError, match="divides half the window"):
        attribution.occlusion(ensemble, distal_store, genes, bp=7)
