"""ABC scores of candidates: shares of each gene's sum, and tables that cannot give them."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.screens.abc import ABC, abc_scores

GENES = pd.DataFrame(
    {"gene_id": ["ENSG1", "ENSG2"], "name": ["A", "B"], "chrom": "chr1", "tss": [1000, 9000]}
)


def table(**changes):
    columns = {
        "chr": ["1", "1", "1", "1"],
        "start": [900, 5000, 5000, 20_000],
        "end": [1100, 5500, 5500, 20_200],
        "TargetGene": ["A", "A", "B", "none"],
        "activity_base": [2.0, 1.0, 1.0, 7.0],
        "powerlaw_contact": [1.0, 1.0, 1.0, 1.0],
        "hic_contact": [0.5, 3.0, 3.0, 1.0],
    }
    return pd.DataFrame(columns | changes)


def test_scores_are_shares_of_all_candidates_of_a_gene():
    found = abc_scores(table(), GENES, "all.tsv")
    assert found[["chr", "start", "gene"]].to_numpy().tolist() == [
        ["chr1", 900, 0], ["chr1", 5000, 0], ["chr1", 5000, 1],
    ]  # fmt: skip
    assert found[ABC].tolist()[:2] == [0.25, 0.75]
    assert np.isnan(found[ABC].iloc[2])  # its promoter is no candidate
    other = abc_scores(table(), GENES, "all.tsv", "powerlaw_contact")
    assert other[ABC].tolist()[:2] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]

    mixed = table(TargetGeneEnsemblID=["ENSG1", None, "", "x"])  # symbols stand in for ids
    pd.testing.assert_frame_equal(abc_scores(mixed, GENES, "all.tsv"), found)


@pytest.mark.parametrize(
    ("given", "contact", "said"),
    [
        (table().drop(columns=["activity_base", "chr"]), "", "no column activity_base"),
        (table().drop(columns="TargetGene"), "", "no column of genes"),
        (table(), "mine", "no column mine"),
        (table(activity_base=[1, -1, 1, 1]), "", "-1 in column activity_base"),
        (table(start=[900, "x", 5000, 1]), "", "x in column start"),
        (table(end=[1100, 5500.5, 5500, 20_200]), "", "5500.5 in column end.*whole"),
        (table(TargetGene=["A", "B", "B", "none"]), "", "twice for ENSG2"),
        (table(chr=["9"] * 4), "", "none on a chromosome and of a gene of the store"),
        (table(TargetGene=["x", None, "", "none"]), "", "none on a chromosome and of a gene"),
    ],
)
def test_tables_that_cannot_give_scores_are_refused(given, contact, said):
    with pytest.raises(InputError, match=said):
        abc_scores(given, GENES, "all.tsv", contact)
