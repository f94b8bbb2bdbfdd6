"""Predictions as a table: of genes that a model never saw, and of no others."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.predict.gene_table import predict, predict_genes
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.train import train


def test_a_row_is_what_a_run_predicts_of_a_gene(finished, small_store):
    genes = small_store.genes.gene_id.tolist()[:5]
    table = predict(finished, genes)
    array = load(finished).predict(small_store, genes)
    assert set(table) == {"run", "gene", "cell", "assays", "fold", "seed", "expression"}
    assert len(table) == int(np.isfinite(array).sum())  # not of the genes a run saw
    for row in table.iloc[::7].itertuples():
        one = array.sel(run=row.run, gene=row.gene)
        assert (row.expression, row.cell, row.fold) == (one.item(), one.cell, one.fold)


def test_genes_that_every_model_saw_are_left_out(small_store, tmp_path, request_for):
    """One fold tests some chromosomes alone, as monte_carlo_5 does."""
    request = request_for(small_store, folds=["fold1"], assays=small_store.manifest.assays[:1])
    train(request, tmp_path / "run")
    tested = load(tmp_path / "run").folds["fold1"].test
    unseen = small_store.genes.gene_id[small_store.genes.chrom.isin(tested)]
    table = predict(tmp_path / "run")
    assert table.groupby("run").gene.agg(set).tolist() == [set(unseen)] * 2
    with pytest.raises(InputError, match="every model saw"):
        predict(tmp_path / "run", small_store.genes.gene_id.tolist())


def test_a_row_a_gene_is_the_mean_over_folds_and_seeds(finished, small_store):
    ensemble, genes = load(finished), small_store.genes
    asked = [genes.name[9], genes.gene_id[2], genes.gene_id[9]]  # the first twice
    table = predict_genes(ensemble, small_store, asked, include_seen=True)
    assert table.gene_id.tolist() == [genes.gene_id[9]] * 8 + [genes.gene_id[2]] * 8
    assert set(table.novelty) == {"seen"}  # by some of the models asked
    array = ensemble.predict(small_store, include_seen=True)
    for row in table.itertuples():
        own = array.sel(gene=row.gene_id)
        own = own[(own.cell == row.trained_on).to_numpy() & (own.assays == row.assays).to_numpy()]
        assert (row.symbol, row.models) == (genes.set_index("gene_id").name[row.gene_id], 3)
        assert np.isclose(row.mean, own.mean())
        assert np.isclose(row.spread, np.std(own.to_numpy(), ddof=1))
    assert [*table.columns][-3:] == ["fold1/0", "fold2/0", "fold3/0"]
    unseen = predict_genes(ensemble, small_store)
    assert len(unseen) == len(genes) * 8
    assert set(unseen.novelty) == {"held-out chromosome"}
    assert unseen.models.eq(1).all()  # of three folds, two saw the gene
    assert unseen.spread.isna().all()


def test_other_stores_and_options_are_handed_on(finished, small_store):
    every = predict(finished, store=small_store.path, include_seen=True)
    assert len(every) == len(load(finished).runs) * len(small_store.genes)
    with pytest.raises(InputError, match="unknown genes"):
        predict(finished, ["ENSG1"])
