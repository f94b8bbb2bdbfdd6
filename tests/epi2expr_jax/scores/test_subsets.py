"""Scores of all subsets against predictions from each, on models that need not have learnt."""

import jax
import numpy as np
import pandas as pd
import pytest
import scipy

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.inputs.masking import CHANNELS, every_subset
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.scores import subsets
from epi2expr_jax.scores.subsets import gains_by_cell, gains_over_cells, subset_scores
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


def test_gains_are_differences_of_scores_paired_by_run_and_chromosome(distal_store):
    ensemble = ensemble_of(distal_store, WINDOWS)
    first, second, third = distal_store.manifest.assays
    genes = distal_store.genes
    cpg = np.where(np.arange(len(genes)) % 3 > 0, "rich", "poor")
    known = pd.DataFrame({"gene_id": genes.gene_id, "cpg": cpg})
    gains = gains_by_cell(ensemble, distal_store, [second], known)
    kinds = ["all genes", "on or off", "level of genes that are on", "cpg: poor", "cpg: rich"]
    assert list(dict.fromkeys(gains.genes)) == kinds
    assert list(dict.fromkeys(gains.assay)) == [first, third]
    rpkm = distal_store.read_expression(distal_store.manifest.cells)
    observed = dict(zip(distal_store.manifest.cells, np.log2(rpkm + 1), strict=True))
    predicted = {
        name: ensemble.predict(distal_store, present=present).values
        for name, present in (("before", [second]), ("after", [third, second]))
    }
    for kind, chosen in (("all genes", cpg != ""), ("cpg: poor", cpg == "poor")):
        for cell, y in observed.items():
            sums = np.zeros(3)
            for r, run in enumerate(ensemble.runs):
                for chrom in genes.chrom.unique() if run.cell == cell else ():
                    rows = ((genes.chrom == chrom) & chosen).to_numpy()
                    rows = rows & np.isfinite(predicted["after"][r])
                    if rows.sum() >= 3:
                        before, after = (
                            np.corrcoef(predicted[name][r, rows], y[rows])[0, 1]
                            for name in ("before", "after")
                        )
                        sums += rows.sum() * np.array([before, after - before, 1])
            row = gains[(gains.genes == kind) & (gains.cell == cell) & (gains.assay == third)]
            found = row[["have", "gain"]].to_numpy()
            np.testing.assert_allclose(found, [sums[:2] / sums[2]], atol=1e-5)
    everything = gains_by_cell(ensemble, distal_store, [first, second, third], known)
    assert everything.empty
    assert gains_over_cells(everything).empty


def by_cell(gains, genes="all genes"):
    """A table as of `gains_by_cell`, from `[assay, cell]`."""
    return pd.DataFrame(
        [(genes, "pearson", f"m{a}", f"c{c}", 0.5, gain)
         for a, own in enumerate(gains) for c, gain in enumerate(own)],
        columns=["genes", "score", "assay", "cell", "have", "gain"],
    )  # fmt: skip


def test_gains_are_averaged_and_their_intervals_are_for_one_more_cell():
    gains = np.array([[0.01, 0.03, 0.02, 0.04, 0.0], [0.2, 0.1, 0.3, 0.2, 0.2]])
    table = gains_over_cells(by_cell(gains))
    assert table.assay.tolist() == ["m1", "m0"]
    assert table.cells.tolist() == [5, 5]
    half = 2.776445 * gains[1].std(ddof=1) * np.sqrt(1.2)
    np.testing.assert_allclose(table.loc[0, ["gain", "low", "high"]].astype(float),
                               [0.2, 0.2 - half, 0.2 + half], rtol=1e-5)  # fmt: skip
    few = gains_over_cells(by_cell(gains[:, :4]))
    assert few.low.isna().all()
    assert set(few.note) == {"fewer than 5 cells"}


@pytest.mark.trial
def test_intervals_of_gains_cover_one_more_cell(trial_size):
    random, cells = np.random.default_rng(0), 6
    number = trial_size(2_000, 50_000)
    drawn = 0.1 + 0.03 * random.standard_normal((number, cells + 1))
    table = gains_over_cells(by_cell(drawn[:, :cells]))
    own = drawn[table.assay.str[1:].astype(int), cells]
    covered = table.low.le(own).mul(table.high.ge(own)).sum()
    print(f"covers {covered / number:.1%}")
    assert scipy.stats.binomtest(int(covered), number, 0.95).pvalue > 0.001
