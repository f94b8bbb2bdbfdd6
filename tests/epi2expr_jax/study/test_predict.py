"""Predictions as a table: of genes that a model never saw, and of no others."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.predict import predict
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


def test_other_stores_and_options_are_handed_on(finished, small_store):
    every = predict(finished, store=small_store.path, include_seen=True)
    assert len(every) == len(load(finished).runs) * len(small_store.genes)
    with pytest.raises(InputError, match="unknown genes"):
        predict(finished, ["ENSG1"])
