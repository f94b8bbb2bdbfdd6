import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.comparison import (
    ADDED,
    INTERACTIONS,
    added_value,
    compare_models,
    interactions,
)
from epi2expr_jax.scores.intervals import ONE_VALUE


def predictions(skill, seed=0, chromosomes=8, genes=60, assays=("K4", "K27")):
    """Held-out predictions of one model whose correlation with expression is about `skill`."""
    random = np.random.default_rng(99)  # the same genes and chromosomes for every model
    tables = []
    for c in range(chromosomes):
        observed = np.abs(random.normal(2, 1.5, genes))
        noise = np.random.default_rng([seed, c]).normal(size=(len(assays), genes))
        for assay, own in zip(assays, noise, strict=True):
            predicted = skill * (observed - 2) / 1.5 + np.sqrt(1 - skill**2) * own
            tables.append(
                pd.DataFrame(
                    {
                        "cell": "E003", "assays": assay, "fold": f"fold_{c % 4}", "seed": 0,
                        "gene_id": [f"g{c}_{i}" for i in range(genes)], "chrom": f"chr{c + 1}",
                        "observed": observed, "predicted": predicted,
                        "observed_raw": observed, "predicted_raw": predicted,
                    }
                )
            )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def scores(*args, **kwargs):
    return scoring.score_table(predictions(*args, **kwargs))


def test_lead_is_the_paired_difference():
    weak, strong = scores(0.4), scores(0.8, seed=1)
    table = compare_models({"weak": weak, "strong": strong})
    reach = stats.t.isf(0.025 / 3, 7)  # three leads in all
    assert list(table.assay) == ["all", "all", "K27", "K27", "K4", "K4"]
    assert list(table.model) == ["weak", "strong"] * 3
    for assay in ("K4", "K27"):
        first, second = (t[t.assays == assay].set_index("chrom").pearson for t in (weak, strong))
        row = table[(table.assay == assay) & (table.model == "strong")].iloc[0]
        # Chromosomes hold equally many genes, so means are plain.
        assert row.pearson == pytest.approx(second.mean(), abs=1e-6)
        assert row.lead == pytest.approx((second - first).mean(), abs=1e-6)
        error = (second - first).std(ddof=1) / np.sqrt(8)
        assert (row.lead_high - row.lead_low) / 2 == pytest.approx(reach * error, rel=1e-3)
        assert row.lead_low > 0
    over_all = table[(table.assay == "all") & (table.model == "strong")].iloc[0]
    singles = table[(table.assay != "all") & (table.model == "strong")]
    assert over_all.lead == pytest.approx(singles.lead.mean(), abs=1e-6)
    assert (over_all.n_genes, over_all.n_chromosomes) == (8 * 60, 8)


def test_a_model_has_no_lead_over_itself_and_order_flips_the_sign():
    a, b = scores(0.5), scores(0.6, seed=2)
    same = compare_models({"a": a, "again": a})
    assert (same.lead == 0).all()
    there, back = compare_models({"a": a, "b": b}), compare_models({"b": b, "a": a})
    lead, other = there[there.model == "b"], back[back.model == "a"]
    np.testing.assert_allclose(lead.lead.to_numpy(), -other.lead.to_numpy(), atol=1e-9)


def test_one_predicted_value_is_no_score():
    """It is 0 by rule and does not vary: an interval of it, 0 to 0, would be false."""
    constant = predictions(0.6, seed=2).assign(predicted=1.0, predicted_raw=1.0)
    table = compare_models({"a": scores(0.5), "none": scoring.score_table(constant)})
    idle = table.model == "none"
    assert (table.pearson[idle] == 0).all()
    assert table.loc[idle, ["low", "high", "lead_low", "lead_high"]].isna().all(axis=None)
    assert set(table.note[idle]) == {ONE_VALUE}
    assert table.loc[~idle, ["low", "high", "lead_low", "lead_high"]].notna().all(axis=None)
    assert set(table.note[~idle]) == {""}


def test_only_what_all_models_share_is_compared():
    a, b = scores(0.5), scores(0.6, seed=2, assays=("K4",))
    table = compare_models({"a": a, "b": b[b.chrom != "chr3"]})
    assert set(table.assay) == {"K4"}
    assert set(table.n_chromosomes) == {7}
    two = compare_models({"a": a[a.chrom < "chr3"], "b": b})
    assert two.lead_low.isna().all()  # two chromosomes bear no interval
    assert two.lead.notna().all()
    assert compare_models({"a": a[a.assays == "K27"], "b": b}).empty


def test_what_assays_add_is_the_paired_rise_of_r2():
    weak, strong = predictions(0.4), predictions(0.8, seed=1)
    added = added_value(scoring.score_table(weak), scoring.score_table(strong))
    assert list(added.columns) == ADDED
    assert added["added"].is_monotonic_decreasing
    for row in added.itertuples():
        of = []
        for table in (weak, strong):
            own = table[table.assays == row.assay]
            squares = (own.observed - own.predicted) ** 2
            varied = own.observed - own.groupby("chrom")["observed"].transform("mean")
            sums = [each.groupby(own.chrom).sum() for each in (squares, varied**2)]
            of.append(1 - sums[0] / sums[1])
        rise = of[1] - of[0]
        assert [row.r2_without, row.r2] == pytest.approx([each.mean() for each in of], abs=1e-5)
        assert row.added == pytest.approx(rise.mean(), abs=1e-5)
        reach = stats.t.isf(0.025 / 3, 7) * rise.std(ddof=1) / np.sqrt(8)
        assert [row.low, row.high] == pytest.approx(
            [rise.mean() - reach, rise.mean() + reach], rel=1e-3
        )


def test_one_mark_gains_more_than_another():
    """K4 gains from the second model, K27 does not: paired by chromosome, both with an interval."""
    first = scores(0.5, assays=("K4", "K27", "K9"))
    second = [scores(r, seed=s, assays=(a,)) for a, r, s in (("K4", 0.8, 1), ("K27", 0.5, 2))]
    second = pd.concat([*second, scores(0.5, seed=3, assays=("K9",))])
    table = interactions(first, second)
    assert list(table.columns) == INTERACTIONS
    assert len(table) == 3
    wide = [t.pivot(index="chrom", columns="assays", values="pearson") for t in (first, second)]
    gain = wide[1] - wide[0]
    reach = stats.t.isf(0.025 / 3, 7)  # three pairs
    for row in table.itertuples():
        apart = gain[row.assay] - gain[row.other]
        error = apart.std(ddof=1) / np.sqrt(8)
        assert row.difference == pytest.approx(apart.mean(), abs=1e-6)
        assert [row.gain, row.gain_other] == pytest.approx(
            [gain[row.assay].mean(), gain[row.other].mean()], abs=1e-6
        )
        assert [row.low, row.high] == pytest.approx(
            [apart.mean() - reach * error, apart.mean() + reach * error], rel=1e-3
        )
    shown = table[table.low > 0]
    assert set(zip(shown.assay, shown.other, strict=True)) == {("K4", "K27"), ("K4", "K9")}
    turned = interactions(second, first)  # who loses least gains most
    assert set(turned[turned.low > 0].other) == {"K4"}


def test_one_set_of_marks_has_no_rival():
    assert interactions(scores(0.5, assays=("K4",)), scores(0.6)).empty
    assert interactions(scores(0.5, assays=("K9",)), scores(0.6)).empty
