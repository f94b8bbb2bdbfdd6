"""Scores of all subsets against predictions from each, on models that need not have learnt."""

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.inputs.masking import CHANNELS, every_subset
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.scores import subsets
from epi2expr_jax.scores.subsets import subset_scores
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import Run, plan_runs
from epi2expr_jax.training.splits import make_folds

WINDOWS = PromoterCnnConfig(width=0.1, assays=CHANNELS * 3)
REGIONS = ChromoformerConfig(
    resolutions=(2000,), embedding=8, embed_ff=8, pairwise_layers=1, pairwise_ff=8,
    regulation_layers=1, regulation_heads=2, regulation_width=8, regulation_ff=8, head=8,
    assays=CHANNELS * 3,
)  # fmt: skip


def ensemble_of(store, config, target="log2", masked=True):
    """Masked-mark models as their weights are drawn, of two cells and three folds."""
    manifest = store.manifest
    data = load_dataset(store, config, manifest.cells, manifest.assays)
    folds = make_folds("chromosomes_3", store.genes.chrom.value_counts().to_dict())
    runs = [Run(cell, tuple(manifest.assays), fold.name, 0)
            for cell in manifest.cells for fold in folds]  # fmt: skip
    inputs, scales = plan_runs(data, runs, folds, target)
    trainer = Trainer(config, TrainConfig(masked=masked))
    states = [trainer.init(key) for key in inputs.model_key]
    weights = [{"params": state.params, "stats": state.stats} for state in states]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *weights)
    card = {"request": {"train_config": {"masked": masked}}, "store_checksum": store.checksum(),
            "store": {"path": str(store.path)}}  # fmt: skip
    member = Member(config, tuple(runs), tuple(scales), stacked)
    named = {fold.name: fold for fold in folds}
    return Ensemble(card, InputConfig(), target, named, (member,))


@pytest.mark.parametrize(
    ("config", "target"),
    [(WINDOWS, "log2"), (WINDOWS, "minmax"), (REGIONS, "log2")],
    ids=["windows", "windows-minmax", "regions"],
)
def test_scores_are_those_of_predictions_from_each_subset(
    config, target, distal_store, monkeypatch
):
    ensemble = ensemble_of(distal_store, config, target)
    # Blocks of four subsets: the last of the seven is padded.
    monkeypatch.setattr(subsets, "_BLOCK_BYTES", 4 * 4 * len(distal_store.genes))
    told = []
    scores = subset_scores(ensemble, distal_store, told.append)
    assert sum(told) == 7 * 6
    assays, genes = distal_store.manifest.assays, distal_store.genes
    rpkm = distal_store.read_expression(distal_store.manifest.cells)
    for number in (1, 3, 6, 7):
        present = [assay for a, assay in enumerate(assays) if number >> a & 1]
        predicted = ensemble.predict(distal_store, present=present).values.astype(np.float32)
        for r, run in enumerate(ensemble.runs):
            cell = distal_store.manifest.cells.index(run.cell)
            observed = np.log2(rpkm[cell] + 1).astype(np.float32)
            for chrom in ensemble.folds[run.fold].test:
                there = (genes.chrom == chrom).to_numpy()
                found = scores["pearson"].sel(run=run.run_id, chrom=chrom, subset=number)
                if there.sum() >= 3:
                    expected = 0.0  # RPKM predicted below 0 counts as 0: then all may be the same
                    if np.ptp(predicted[r, there]):
                        expected = np.corrcoef(observed[there], predicted[r, there])[0, 1]
                    np.testing.assert_allclose(found, expected, atol=2e-5)
                    assert scores["genes"].sel(run=run.run_id, chrom=chrom) == there.sum()
                else:
                    assert np.isnan(found)
    held_out = scores["genes"].notnull().groupby("fold").any()
    for fold in ensemble.folds.values():
        tested = scores["chrom"].values[held_out.sel(fold=fold.name).values]
        assert set(tested) <= set(fold.test)
    weighted = scores["genes"].notnull().values
    assert (scores["pearson"].sel(subset=0).values[weighted] == 0).all()
    assert scores["pearson"].notnull().any("subset").values[~weighted].sum() == 0
    assert np.ptp(scores["pearson"].values[weighted][:, 1:], axis=1).max() > 0


def test_what_cannot_be_shown_is_refused(distal_store, monkeypatch):
    ensemble = ensemble_of(distal_store, WINDOWS)
    plain = ensemble_of(distal_store, WINDOWS, masked=False)
    with pytest.raises(InputError, match="train with --masked"):
        subset_scores(plain, distal_store)
    monkeypatch.setattr(subsets, "MOST_ASSAYS", 2)
    with pytest.raises(InputError, match="3 assays, which have 8 subsets"):
        subset_scores(ensemble, distal_store)


def test_models_of_several_sets_are_told_apart(distal_store):
    ensemble = ensemble_of(distal_store, WINDOWS)
    assays = ensemble.runs[0].assays
    other = Member(
        PromoterCnnConfig(width=0.1, assays=CHANNELS),
        (Run("E003", assays[:1], "fold1", 0),),
        ensemble.members[0].scales[:1],
        {},
    )
    both = Ensemble(
        ensemble.card, InputConfig(), "log2", ensemble.folds, (*ensemble.members, other)
    )
    with pytest.raises(InputError, match="2 assay sets"):
        subset_scores(both, distal_store)


def test_predicting_subsets_compiles_once(distal_store):
    ensemble = ensemble_of(distal_store, WINDOWS)
    subset_scores(ensemble, distal_store)
    before = subsets._predict._cache_size()
    subset_scores(ensemble, distal_store)
    assert subsets._predict._cache_size() == before
    assert every_subset(3).shape == (8, 3)


def test_too_few_genes_for_a_score_are_said(distal_store, monkeypatch):
    monkeypatch.setattr(subsets, "_predictions", lambda *_: iter(()))
    with pytest.raises(InputError, match="held-out genes on a chromosome"):
        subset_scores(ensemble_of(distal_store, WINDOWS), distal_store)
