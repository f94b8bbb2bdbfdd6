"""Names that people give: a string is one, unknown ones are refused with the nearest."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.names import as_names, find_genes, known_names

GENES = pd.DataFrame(
    {
        "gene_id": ["ENSG00000141510", "ENSG00000012048", "ENSG00000000003", "ENSG00000000005"],
        "name": ["TP53", "BRCA1", "SNORA70", "SNORA70"],
    }
)


def test_a_string_is_one_name():
    assert as_names("E003") == ["E003"]
    assert as_names(("a", "b")) == as_names(pd.Series(["a", "b"])) == ["a", "b"]
    assert known_names("E003", ["E003", "E004"], "here", "cell") == ["E003"]


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(InputError) as caught:
        known_names(["H3k4me3", "DNase", "CTCF"], ["H3K4me3", "DNase"], "a.zarr", "assay", "add it")
    (problem,) = caught.value.problems
    assert problem.found == "unknown assay H3k4me3, CTCF"
    assert problem.expected == "one of H3K4me3, DNase"
    assert problem.remedy == "did you mean H3K4me3?"
    with pytest.raises(InputError, match="unknown assay CTCF; expected one of DNase; add it"):
        known_names("CTCF", ["DNase"], "a.zarr", "assay", "add it")


def test_genes_are_found_by_id_version_and_symbol():
    given = ["BRCA1", "ENSG00000141510.17", "ENSG00000000005", "TP53"]
    assert find_genes(GENES, given, "a.zarr").tolist() == [1, 0, 3, 0]
    assert find_genes(GENES, "TP53", "a.zarr").tolist() == [0]
    assert find_genes(GENES, np.array(given, object), "a.zarr").tolist() == [1, 0, 3, 0]


def test_symbols_of_several_genes_and_unknown_ones_are_listed_together():
    with pytest.raises(InputError) as caught:
        find_genes(GENES, ["BRCA1", "SNORA70", "brca2", "ENSG9"], "a.zarr")
    several, unknown = caught.value.problems
    assert several.where == "a.zarr: SNORA70"
    assert "ENSG00000000003, ENSG00000000005" in several.found
    assert unknown.found == "2 unknown genes (brca2, ENSG9)"
    assert unknown.remedy == "did you mean BRCA1?"


def test_a_table_without_symbols_is_searched_by_id():
    alone = GENES.drop(columns="name")
    assert find_genes(alone, "ENSG00000141510.17", "a.zarr").tolist() == [0]
    with pytest.raises(InputError, match="1 unknown genes"):
        find_genes(alone, "TP53", "a.zarr")
