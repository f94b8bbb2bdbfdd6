import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.comparison import compare_models


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
    assert list(table.assay) == ["all", "all", "K27", "K27", "K4", "K4"]
    assert list(table.model) == ["weak", "strong"] * 3
    for assay in ("K4", "K27"):
        first, second = (t[t.assays == assay].set_index("chrom").pearson for t in (weak, strong))
        row = table[(table.assay == assay) & (table.model == "strong")].iloc[0]
        # Chromosomes hold equally many genes, so means are plain.
        assert row.pearson == pytest.approx(second.mean(), abs=1e-6)
        assert row.lead == pytest.approx((second - first).mean(), abs=1e-6)
        error = (second - first).std(ddof=1) / np.sqrt(8)
        assert (row.lead_high - row.lead_low) / 2 == pytest.approx(2.3646 * error, rel=1e-3)
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


def test_only_what_all_models_share_is_compared():
    a, b = scores(0.5), scores(0.6, seed=2, assays=("K4",))
    table = compare_models({"a": a, "b": b[b.chrom != "chr3"]})
    assert set(table.assay) == {"K4"}
    assert set(table.n_chromosomes) == {7}
    two = compare_models({"a": a[a.chrom < "chr3"], "b": b})
    assert two.lead_low.isna().all()  # two chromosomes bear no interval
    assert two.lead.notna().all()
    assert compare_models({"a": a[a.assays == "K27"], "b": b}).empty
