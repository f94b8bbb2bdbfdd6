"""What is known of genes without an epigenome: read, joined with a store's genes, as numbers."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.covariates import (
    LENGTH,
    covariates_of,
    gene_features,
    read_covariates,
    without_value,
)

GENES = pd.DataFrame(
    {
        "gene_id": ["ENSG1", "ENSG2", "ENSG3", "ENSG4"],
        "name": ["TP53", "MYC", "X", "X"],
        "start": pd.array([100, 500, None, 0], "Int64"),
        "end": pd.array([300, 600, None, 1000], "Int64"),
    }
)


def table(tmp_path, text):
    path = tmp_path / "genes.csv"
    path.write_text(text)
    return path


def test_ids_and_symbols_and_the_length_of_genes(tmp_path):
    path = table(
        tmp_path, "gene,half_life,kind\nMYC,2.5,rich\nENSG1.7,,poor\nABSENT,9,poor\nENSG4,3,\n"
    )
    given = read_covariates(path, GENES)
    assert given["gene_id"].tolist() == ["ENSG2", "ENSG1", "ENSG4"]
    known = covariates_of(GENES, given)
    assert known.columns.tolist() == ["gene_id", LENGTH, "half_life", "kind"]
    assert known[LENGTH].tolist()[:2] == [200, 100]
    assert np.isnan(known[LENGTH][2])
    assert known["half_life"].tolist()[1] == 2.5
    assert known["kind"].tolist()[:2] == ["poor", "rich"]
    assert known["kind"].tolist()[2:] == ["unknown"] * 2
    kinds = covariates_of(GENES.assign(biotype=["lincRNA", "", "miRNA", "miRNA"]), given)
    assert kinds["biotype"].tolist() == ["lincRNA", "unknown", "miRNA", "miRNA"]
    assert without_value(known) == 2  # half-life, or both
    pd.testing.assert_frame_equal(covariates_of(GENES, known), known)
    bare = covariates_of(GENES.drop(columns=["start", "end"]), pd.DataFrame())
    assert bare.columns.tolist() == ["gene_id"]
    assert gene_features(bare).shape == (4, 0)


def test_spreadsheets_of_many_countries(tmp_path):
    given = read_covariates(table(tmp_path, "gene;half_life;kind\nMYC;2,5;rich, or not\n"), GENES)
    assert given.to_numpy().tolist() == [["ENSG2", 2.5, "rich, or not"]]


def test_numbers_count_by_their_order():
    known = pd.DataFrame({"gene_id": list("abcd"), "n": [10.0, 1000.0, np.nan, 100.0]})
    known = known.assign(same=1.0, kind=list("xyxy"), flag=[True, False] * 2)
    found = gene_features(known)
    quantiles = np.array([1 / 3, 1, 0.5, 2 / 3]) - 0.5  # of the three that are known
    np.testing.assert_allclose(found, np.stack([quantiles, quantiles**2], axis=1))
    np.testing.assert_allclose(gene_features(known.assign(n=np.log(known["n"]))), found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,cpg\nMYC,1\n", "gene or gene_id and more"),
        ("gene\nMYC\n", "gene or gene_id and more"),
        ("gene,gene length\nMYC,1\n", "gene length: found a column that the store holds, too"),
        ("gene,cpg\nABSENT,1\n", "none of its 1 genes is in the store"),
        ("gene,cpg\nMYC,1\nENSG2,inf\n", r"1 genes again \(ENSG2\)[\s\S]*infinite numbers"),
        ("", "no readable table"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_covariates(table(tmp_path, text), GENES)
