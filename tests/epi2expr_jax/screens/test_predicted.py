"""Pairs of a screen meet the genes of a store, and those that no model reaches are told."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.perturb.elements import silencing_of
from epi2expr_jax.screens.predicted import LOSS, completed, filled, predict_pairs
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of


def test_pairs_are_joined_by_gene_and_place(distal_store):
    wide = dataclasses.replace(WINDOW, window_bp=40_000)
    ensemble = ensemble_of(distal_store, wide, distal_store.manifest.assays[:2])
    unseen = ensemble.wanted(distal_store, np.arange(len(distal_store.genes)), False).any(axis=0)
    genes = distal_store.genes[unseen].iloc[[0, 3]]
    seen = distal_store.genes[~unseen].iloc[0]
    first, second = genes.itertuples()
    pairs = pd.DataFrame(
        {
            "gene_id": [second.gene_id, first.gene_id, "ENSG0", second.gene_id, seen.gene_id],
            "regulated": [True, False, True, False, True],
        }
    )
    at = [second.tss + 8000, first.tss - 8000, 100, second.tss + 90_000, seen.tss + 8000]
    bare = [name.removeprefix("chr") for name in (second.chrom, first.chrom, "chr1")]
    places = pd.DataFrame(
        {
            "chrom": [*bare, second.chrom, seen.chrom],
            "start": np.array(at) - 300,
            "end": np.array(at) + 300,
        }
    )
    silencing = silencing_of(ensemble, flank_bp=100, apart=True)
    found = predict_pairs(ensemble, distal_store, pairs, places, silencing)
    assert found.reach.tolist() == [True, True, False, False, False]
    assert found.table["changed"].iloc[:2].all()
    for row, gene in ((0, second), (1, first)):
        place = perturb.interval(gene.chrom, int(at[row]) - 400, int(at[row]) + 400)
        edit = tuple(perturb.silence(mark, place) for mark in silencing.marks)
        alone = perturb.summarise(perturb.run(ensemble, distal_store, [edit], [gene.gene_id]))
        assert found.losses()[LOSS][row] == pytest.approx(1 - 2 ** alone.effect.item(), abs=1e-5)
    assert len(found.losses()) == 3
    assert np.isnan(found.losses()[LOSS][2:]).all()
    said = " ".join(found.notes)
    assert (
        "2 of 5 pairs, 1 of 3 regulated; 1 pairs have a gene, 0 a chromosome that the store lacks"
        in said
    )
    # Elements that a chain file dropped; then nothing at all.
    fewer = predict_pairs(ensemble, distal_store, pairs, places.iloc[[1]], silencing)
    assert fewer.reach.tolist() == [False, True, False, False, False]
    none = predict_pairs(ensemble, distal_store, pairs, places.iloc[[3]], silencing)
    assert not none.reach.any()


def test_pairs_out_of_reach_are_filled_or_keep_another_score():
    reach = np.array([True, False, True, True, False])
    loss = np.array([0.3, np.nan, -0.1, 0.3, np.nan])
    other = np.array([5.0, 9, 7, 1, 2])
    assert filled(loss, reach, 0.05).tolist() == [0.3, 0.05, -0.1, 0.3, 0.05]
    # The values 1, 5, 7 go by the order of losses; the two that tie have what is between 5 and 7.
    assert completed(loss, reach, other).tolist() == [6, 9, 1, 6, 2]
    assert completed(loss, np.zeros(5, bool), other).tolist() == other.tolist()
