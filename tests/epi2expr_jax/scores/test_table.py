"""Scores stay within a model and a chromosome, and are SciPy's; bad predictions are named."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.table import gene_groups, score_groups
from epi2expr_jax.words.caveats import caveats
from tests.epi2expr_jax.scores.simulated import simulated


def predictions_of(cell, assays, fold, chrom, observed, predicted):
    return pd.DataFrame(
        {
            "cell": cell,
            "assays": assays,
            "fold": fold,
            "seed": 0,
            "chrom": chrom,
            "gene_id": [f"{chrom}_{number}" for number in range(len(observed))],
            "observed": observed,
            "predicted": predicted,
            "observed_raw": np.exp2(observed),
            "predicted_raw": np.exp2(predicted),
        }
    )


def test_scores_agree_with_scipy_in_every_group():
    rng = np.random.default_rng(0)
    table = simulated(rng, np.array([[0.7, 0.2], [0.5, 0.4]]), {"chr1": 90, "chr2": 300, "chrX": 3})
    table["observed_raw"] = np.exp(table["observed"])
    shuffled = table.sample(frac=1, random_state=0)
    scores = scoring.score_table(shuffled)
    assert len(scores) == 2 * 2 * 3
    for row in scores.to_dict("records"):
        here = table[["cell", "assays", "chrom"]] == [row["cell"], row["assays"], row["chrom"]]
        group = table[here.all(axis=1)]
        x, y = group["observed"], group["predicted"]
        assert row["n"] == len(group)
        assert row["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)
        assert row["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-5)
        assert row["mse"] == pytest.approx(np.mean((x - y) ** 2), rel=1e-5)
        assert row["r2"] == pytest.approx(1 - np.mean((x - y) ** 2) / np.var(x), abs=1e-5)
        raw = np.corrcoef(group["observed_raw"], group["predicted_raw"])[0, 1]
        assert row["pearson_raw"] == pytest.approx(raw, abs=1e-5)
        cell = table[table["cell"] == row["cell"]].drop_duplicates("gene_id")
        label = x > cell["observed"].median()
        if label.nunique() == 2:
            area = stats.mannwhitneyu(y[label], y[~label]).statistic
            expected = area / (label.sum() * (~label).sum())
            assert row["auc"] == pytest.approx(expected, abs=1e-5)


def test_ranks_are_of_values_before_they_are_rounded():
    observed = np.array([3.0, 3.00000001, 3.00000002, 5, 1])
    predicted = np.array([3.0, 2.00000001, 2.00000003, 2.00000002, 4])
    (row,) = scoring.score_table(
        predictions_of("E003", "A", "f0", "chr1", observed, predicted)
    ).to_dict("records")
    assert row["spearman"] == pytest.approx(stats.spearmanr(observed, predicted)[0], abs=1e-6)
    assert row["auc"] == pytest.approx(2 / 6)  # of 2 genes above the median against 3


def test_scores_depend_neither_on_row_order_nor_on_string_kind():
    table = simulated(np.random.default_rng(1), np.array([[0.5]]), {"chr1": 70, "chr2": 40})
    expected = scoring.score_table(table)
    reverse = scoring.score_table(table[::-1].reset_index(drop=True))
    pd.testing.assert_frame_equal(reverse, expected, rtol=1e-5)
    kinds = dict.fromkeys(("cell", "assays", "fold", "chrom", "gene_id"), "category")
    categories = scoring.score_table(table.astype(kinds))
    pd.testing.assert_frame_equal(categories, expected, check_dtype=False, check_categorical=False)
    ranked = ranking.rank_assays(categories)
    pd.testing.assert_frame_equal(ranked, ranking.rank_assays(expected))


def test_two_parts_in_one_prediction():
    x, chroms = np.array([0.0, 1, 1, 2, 3, 4]), ["chr1", "chr2"]
    other = np.array([0.0, 0.5, 2.0, 0.2, 3.0, 4.0])  # on from 1: 0, half of two, 0, 1, 1
    tables = [predictions_of("E1", "A", "f", c, y, x) for c, y in zip(chroms, [2 * x, other],
                                                                      strict=True)]  # fmt: skip
    found = scoring.hurdle(pd.concat(tables, ignore_index=True))
    # Chances that rise: those of 1, 1 and 2 are pooled to a third, which halves of others bound.
    chance = np.array([0, 1 / 3, 1 / 3, 1 / 3, 1, 1])
    slope, start = np.polyfit(x[other >= 1], other[other >= 1], 1)
    expected = chance * np.maximum(1, start + slope * x)
    np.testing.assert_allclose(found[:6], expected, atol=1e-12)  # of chr1, as chr2 shows
    np.testing.assert_allclose(found[6:], np.where(x > 0, 2 * x, 0), atol=1e-12)
    turned = pd.concat([t.assign(predicted=-x) for t in tables], ignore_index=True)
    assert np.ptp(scoring.hurdle(turned)[:6]) == 0  # the wrong way round is not turned
    assert np.isnan(scoring.hurdle(tables[0])).all()  # no other chromosome


def test_training_mean_predictor_scores_zero_not_the_pooled_negative():
    rng = np.random.default_rng(2)
    observed = {f"chr{k}": rng.normal(k, 1, 40) for k in range(1, 6)}
    parts = []
    for fold, (chrom, values) in enumerate(observed.items()):
        others = np.concatenate([x for name, x in observed.items() if name != chrom])
        mean = np.full(40, others.mean())
        parts.append(predictions_of("E003", "H3K4me1", f"f{fold}", chrom, values, mean))
    table = pd.concat(parts)
    assert np.corrcoef(table["observed"], table["predicted"])[0, 1] < -0.2
    scores = scoring.score_table(table)
    assert (scores["pearson"] == 0).all()
    assert scores["constant"].all()
    ranked = ranking.rank_assays(scores)
    assert (ranked["pearson"] == 0).all()
    assert (ranked["constant_share"] == 1).all()
    assert any("E003 H3K4me1 (100%)" in note for note in caveats(scores))


def test_bad_predictions_are_all_named_at_once():
    table = predictions_of("all", "DNase", "f0", "chr1", np.arange(5.0), np.arange(5.0))
    table.loc[0, "predicted"] = np.nan
    table.loc[1, "chrom"] = None
    with pytest.raises(InputError) as caught:
        scoring.score_table(pd.concat([table, table[3:]]))
    text = str(caught.value)
    for part in ("not finite (all DNase f0 0)", "2 genes twice", 'named "all"', "empty ['chrom']"):
        assert part in text
    with pytest.raises(InputError, match="observed_raw"):
        scoring.score_table(table.drop(columns="observed_raw"))
    with pytest.raises(InputError, match="no rows"):
        scoring.score_table(table[:0])


def of_two_groups():
    rng = np.random.default_rng(0)
    observed = np.concatenate([rng.uniform(0, 0.9, 60), rng.uniform(1.1, 9, 60)])
    return pd.DataFrame(
        {
            "cell": "E1", "assays": "a", "fold": "f", "seed": 0,
            "gene_id": [f"g{i}" for i in range(120)], "chrom": np.tile(["chr1", "chr2"], 60),
            "observed": observed, "predicted": observed + rng.standard_normal(120),
        }
    ).assign(observed_raw=observed, predicted_raw=observed)  # fmt: skip


def test_groups_of_genes():
    table = of_two_groups()
    groups = gene_groups(table)
    assert groups.tolist() == ["silent"] * 60 + ["expressed"] * 60
    by_group = score_groups(table, groups)
    assert by_group.groupby("group").n.sum().to_dict() == {"expressed": 60, "silent": 60}
    from_table = pd.DataFrame({"gene_id": table.gene_id, "kind": ["x", "y"] * 60, "gc": groups})
    assert gene_groups(table, from_table, "kind").tolist() == ["x", "y"] * 60
    inside = table[(groups == "silent") & (table.chrom == "chr1")]
    row = by_group[(by_group.group == "silent") & (by_group.chrom == "chr1")].iloc[0]
    expected = np.corrcoef(inside.observed, inside.predicted)[0, 1]
    assert row.pearson == pytest.approx(expected, abs=1e-5)


def test_groups_that_are_none():
    table = of_two_groups()
    genes = pd.DataFrame({"gene_id": table.gene_id, "gc": np.arange(120.0), "half": "x"})
    for column, given, message in (
        ("strand", genes, "no column strand"),
        ("gc", genes, "120 different values"),
        ("half", genes.iloc[10:], "no group of g0"),
        ("half", None, "no column half"),
    ):
        with pytest.raises(ValueError, match=message):
            gene_groups(table, given, column)
