"""Variants counted in the places of their gene; whatever is left out is said."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret.variants import assign_variants


def places(**changes):
    """Two genes, A and B, with three and two places; B's overlap."""
    table = pd.DataFrame(
        {
            "gene_id": ["ENSG01.4", "ENSG01.4", "ENSG01.4", "ENSG02.1", "ENSG02.1"],
            "chrom": ["chr1", "chr1", "chr1", "chr2", "chr2"],
            "start": [100, 200, 300, 100, 150],
            "end": [200, 300, 400, 200, 250],
            "effect": [0.1, -0.5, 0.0, 1.0, 2.0],
            "distance": [-100.0, 0.0, 100.0, 0.0, 50.0],
            "signal": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    return table.assign(**changes)


def pairs(*rows):
    return pd.DataFrame(rows, columns=["gene_id", "chrom", "pos"])


def assign(table, significant, background=None, assembly="hg19"):
    return assign_variants(
        table, significant, background, assembly=assembly, places_assembly="hg19"
    )


def test_edges_spellings_and_overlaps():
    eqtls = pairs(
        ("ENSG01", "1", 199), ("ENSG01.9", "chr1", 200), ("ENSG01", "chr1", 299),
        ("ENSG02", "2", 150), ("ENSG02", "2", 249), ("ENSG02", "2", 250),
    )  # fmt: skip
    table, notes = assign(places(), eqtls)
    assert table.significant.tolist() == [1, 2, 0, 1, 2]
    assert table.exposure.tolist() == [100] * 5  # the width, where nothing says what was tested
    assert notes == ["significant variants: 1 of 6 pairs left out, in none of their gene's places"]
    ends = eqtls.assign(end=eqtls.pos + 1).drop(columns="pos")
    assert assign(places(), ends, assembly="GRCh37")[0].equals(table)


def test_tested_variants_are_counted_once():
    eqtls = pairs(("ENSG01", "chr1", 110), ("ENSG01", "chr1", 110), ("ENSG02", "chr2", 120))
    tested = pairs(
        ("ENSG01", "chr1", 110), ("ENSG01", "chr1", 120), ("ENSG01", "chr1", 250),
        ("ENSG01", "chr1", 250), ("ENSG02", "chr2", 199),
    )  # fmt: skip
    table, notes = assign(places(), eqtls, tested)
    assert table.significant.tolist() == [1, 0, 1, 0]
    assert table.exposure.tolist() == [2, 1, 2, 1]
    assert "significant variants: 1 of 3 pairs left out, listed before" in notes
    assert "background: 1 of 5 pairs left out, listed before" in notes
    assert "1 of 5 places left out: no variant tested in them" in notes
    assert any(note.startswith("only 1 of 2 significant variants are in the") for note in notes)
    apart = pairs(("ENSG01", "chr1", 120), ("ENSG01", "chr1", 250), ("ENSG02", "chr2", 199))
    assert not any("only" in note for note in assign(places(), eqtls, apart)[1])


def test_what_is_left_out_is_said():
    many = pd.concat([places(), places(gene_id="ENSG03", chrom="chr3", start=np.arange(5) * 100,
                                         end=np.arange(1, 6) * 100)])  # fmt: skip
    many = many.reset_index(drop=True)
    many.loc[[3, 6], ["effect"]] = np.nan  # B keeps one place
    many.loc[7, "signal"] = np.nan
    eqtls = pairs(
        ("ENSG01", "chr1", 150), ("ENSG02", "chr2", 160), ("ENSG09", "chr1", 150),
        ("ENSG01", "chr2", 150), ("ENSG01", "chr8", 150), ("ENSG01", "chr1", 5000),
    )  # fmt: skip
    table, notes = assign(many, eqtls)
    assert set(table.gene_id) == {"ENSG01"}
    assert table.index.tolist() == [0, 1, 2]
    assert notes == [
        "3 of 10 places left out: without effect, distance or signal",
        "significant variants: 1 of 6 pairs left out, on chromosomes without places",
        "significant variants: 1 of 6 pairs left out, of genes without places",
        "significant variants: 1 of 6 pairs left out, on another chromosome than their gene's "
        "places",
        "significant variants: 1 of 6 pairs left out, in none of their gene's places",
        "1 of 7 places left out: their gene has no other one to compare with",
        "3 of 6 places left out: their gene has no significant variant in any",
    ]


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match="of genes without places") as caught:
        assign(places(), pairs(("ENSG09", "chr1", 150)))
    assert "none in a place that can be compared" in str(caught.value)
    with pytest.raises(InputError, match="without effect"):
        assign(places(effect=np.nan), pairs(("ENSG01", "chr1", 150)))


def test_all_problems_are_named_together():
    wrong = places(start=[100, 200, 500, -1, 150], effect=[0.1, np.inf, 0, 1, 2], contact=-1.0)
    wrong = pd.concat([wrong, wrong.iloc[:1]], ignore_index=True)
    eqtls = pairs(("ENSG01", "chr1", -5), (None, "chr1", 5), ("ENSG01", "chr1", 1.5))
    with pytest.raises(InputError) as caught:
        assign(wrong, eqtls, pairs().drop(columns="pos"), assembly="hg38")
    found = [f"{problem.where}: {problem.found}" for problem in caught.value.problems]
    assert found == [
        "assembly: hg38",
        "regions: 1 rows listed twice (5, counted from 0)",
        "regions: 2 rows with bounds that do not make an interval (2, 3, counted from 0)",
        "regions: 1 rows with an infinite effect, distance or signal (1, counted from 0)",
        "regions: 6 rows with a contact below 0 (0, 1, 2, 3, 4 and 1 more, counted from 0)",
        "significant variants: 1 rows without gene or chromosome (1, counted from 0)",
        "significant variants: 2 rows whose position is negative or none (0, 2, counted from 0)",
        "background: columns ['gene_id', 'chrom']",
    ]
    with pytest.raises(InputError, match="significant variants: found no pair"):
        assign(places(), pairs())
    with pytest.raises(InputError, match="text in columns"):
        assign(places(signal="high"), pairs(("ENSG01", "chr1", 150)))
    with pytest.raises(InputError, match=r"also \['effect', 'signal'\]"):
        assign(places().drop(columns=["effect", "signal"]), pairs(("ENSG01", "chr1", 150)))
