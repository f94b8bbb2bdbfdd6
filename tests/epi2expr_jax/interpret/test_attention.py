"""Attention by region, and what emptying the region does."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret.attention import agreement, attention_table
from epi2expr_jax.interpret.attribution import attention_rollout
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of


def test_a_row_is_a_region_with_its_attention_and_effect(distal_store):
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, SMALL, assays)
    wanted = ensemble.wanted(distal_store, np.arange(len(distal_store.genes)), False).any(axis=0)
    genes = distal_store.genes.gene_id[wanted].tolist()[::9]
    table = attention_table(ensemble, distal_store, genes)
    rollout = attention_rollout(ensemble, distal_store, genes).isel(model=0)
    regions = distal_store.regions("E003")
    number, score = regions.by_gene(len(distal_store.genes), SMALL.contacts)
    rows = distal_store.genes.set_index("gene_id").index.get_indexer(genes)
    assert len(table) == (number[rows] >= 0).sum() > 0
    for row in table.iloc[::3].itertuples():
        gene = distal_store.genes.gene_id.tolist().index(row.gene_id)
        place = regions.table.iloc[number[gene, row.rank]]
        assert (row.chrom, row.start, row.end) == (place.chrom, place.start, place.end)
        assert row.score == score[gene, row.rank]
        own = rollout.sel(gene=row.gene_id).to_numpy()[:, 1 + row.rank]
        assert row.attention == pytest.approx(own.mean())
        assert getattr(row, f"attention_{SMALL.resolutions[-1]}") == pytest.approx(own[-1])
    row = table.iloc[0]
    edit = tuple(perturb.scale(name, perturb.pcre(int(row["rank"])), 0) for name in assays)
    one = perturb.run(ensemble, distal_store, [edit], [row.gene_id]).effect.mean("run")
    assert row.effect == pytest.approx(one.item(), abs=1e-6)
    with pytest.raises(InputError, match="without regions"):
        attention_table(ensemble_of(distal_store, WINDOW, assays[:1]), distal_store)


def test_attention_that_orders_effects_within_genes_alone():
    """Genes of three regions whose attention is as effects are; one that says the opposite."""
    rows = [
        ("c", "m", f"g{g}", rank, rank + 10 * g, (-1) ** rank * (rank - 0.1 * g))
        for g in range(4)
        for rank in range(1, 4)
    ]
    rows += [("c", "m", "g9", rank, -rank, rank) for rank in range(3)]
    rows += [("c", "m", "g8", 0, 1.0, 1.0), ("c", "n", "g8", 0, 1.0, 1.0)]
    columns = ["cell", "assays", "gene_id", "rank", "attention", "effect"]
    found = agreement(pd.DataFrame(rows, columns=columns)).set_index("assays")
    assert found.loc["m", ["regions", "genes"]].tolist() == [16, 5]
    assert found.within["m"] == pytest.approx((4 - 1) / 5)
    assert -1 < found.spearman["m"] < found.within["m"]
    assert np.isnan(found.within["n"])
    assert np.isnan(found.spearman["n"])
