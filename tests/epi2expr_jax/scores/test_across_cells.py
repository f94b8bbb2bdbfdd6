import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.across_cells import (
    score_across_cells,
    score_changes,
    score_deviations,
)

CHROMS, GENES = 6, 40


def made(random, own: float, common: float) -> pd.DataFrame:
    """Predictions in three cells: expression = what cells share + what is the cell's own.

    Args:
        own, common: how much of each a model knows.
    """
    genes = CHROMS * GENES
    shared = random.standard_normal(genes) * 2
    rows = []
    for trained_on in ("A", "B+C"):
        for k, cell in enumerate("ABC"):
            specific = np.random.default_rng(k).standard_normal(genes)
            noise = random.standard_normal(genes) * 0.1
            rows.append(
                pd.DataFrame(
                    {
                        "trained_on": trained_on,
                        "cell": cell,
                        "assays": "H3K27ac",
                        "fold": "f",
                        "seed": 0,
                        "gene_id": [f"g{i}" for i in range(genes)],
                        "chrom": [f"chr{i % CHROMS + 1}" for i in range(genes)],
                        "observed": shared + specific,
                        "predicted": common * shared + own * specific + noise,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def test_what_is_common_is_no_knowledge_of_a_cell():
    table = score_across_cells(made(np.random.default_rng(0), own=0, common=1))
    assert len(table) == 6
    assert (table.pearson > 0.8).all()
    assert (table.deviation.abs() < 0.3).all()
    assert (table.deviation_low < 0.1).all()
    # The mean of two other cells holds most of what cells share, and noise of its own.
    assert table.baseline.between(0.6, 0.95).all()
    np.testing.assert_allclose(table.lead, table.pearson - table.baseline)


def test_what_is_a_cells_own_is_seen_in_deviations():
    table = score_across_cells(made(np.random.default_rng(0), own=1, common=1))
    assert (table.deviation > 0.95).all()
    assert (table.lead_low > 0).all()
    assert table.n_genes.eq(CHROMS * GENES).all()


def test_seen_cells_are_marked():
    table = score_across_cells(made(np.random.default_rng(1), 1, 1)).set_index("trained_on")
    assert table.loc["A"].set_index("cell").seen.to_dict() == {"A": True, "B": False, "C": False}
    assert table.loc["B+C"].set_index("cell").seen.to_dict() == {"A": False, "B": True, "C": True}


def test_the_baseline_is_the_mean_of_the_other_cells():
    predictions = made(np.random.default_rng(2), 1, 1)
    table = score_across_cells(predictions).set_index(["trained_on", "cell"])
    own = predictions[predictions.trained_on == "A"]
    by_gene = own.pivot(index="gene_id", columns="cell", values="observed")
    chrom = own.drop_duplicates("gene_id").set_index("gene_id").chrom
    others = by_gene[["B", "C"]].mean(axis=1)
    by_chrom = [np.corrcoef(others[part.index], by_gene.A[part.index])[0, 1]
                for _, part in chrom.groupby(chrom)]  # fmt: skip
    assert table.loc[("A", "A"), "baseline"] == pytest.approx(np.mean(by_chrom), abs=1e-6)


def test_changes_between_two_cells():
    rng = np.random.default_rng(4)
    predictions = made(rng, own=0.8, common=1).assign(run_id=lambda t: t["trained_on"])
    promoters = predictions[predictions.cell == "A"][["run_id", "gene_id"]]
    promoters = promoters.assign(promoter=rng.standard_normal(len(promoters)))
    table = score_changes(predictions, promoters, ("C", "A")).set_index("trained_on")
    assert table.assays.tolist() == ["H3K27ac"] * 2
    own = predictions[predictions.trained_on == "A"].pivot(
        index=["chrom", "gene_id"], columns="cell", values=["observed", "predicted"]
    )
    change = own.xs("C", axis=1, level=1) - own.xs("A", axis=1, level=1)
    change["rival"] = promoters[promoters.run_id == "A"].set_index("gene_id").promoter.reindex(
        change.index.get_level_values("gene_id")
    ).to_numpy()  # fmt: skip
    parts = [part for _, part in change.groupby("chrom")]
    r = [np.corrcoef(part.observed, part.predicted)[0, 1] for part in parts]
    rival = [np.corrcoef(part.observed, part.rival)[0, 1] for part in parts]
    errors = [((part.observed - part.predicted) ** 2).mean() for part in parts]
    still = [(part.observed**2).mean() for part in parts]
    row, t = table.loc["A"], stats.t(CHROMS - 1)
    # Chromosomes of equal size: the jackknife is the plain standard error. Leads share the error
    # out: two models, and their mean.
    for name, values, share in (
        ("", r, 1),
        ("lead_", np.subtract(r, rival), 3),
        ("less_", np.subtract(still, errors), 3),
    ):
        reach = t.isf(0.025 / share) * stats.sem(values)
        expected = [np.mean(values) - reach, np.mean(values) + reach]
        assert row[[f"{name}low", f"{name}high"]].tolist() == pytest.approx(expected, abs=1e-5)
    found = row[["pearson", "promoter", "mse", "no_change"]].tolist()
    assert found == pytest.approx([np.mean(x) for x in (r, rival, errors, still)], abs=1e-5)
    assert (table.less_low > 0).all()  # knows what is a cell's own
    idle = made(rng, own=0, common=1).assign(run_id=lambda t: t["trained_on"])
    worse = score_changes(idle, promoters, ("C", "A"))
    assert not (worse.less_low > 0).any()
    assert not (worse.lead_low > 0).any()
    with pytest.raises(InputError, match="no model that reads tracks of both A and D"):
        score_changes(predictions, promoters, ("A", "D"))


def test_a_gene_missing_in_a_cell_has_no_deviation_there():
    predictions = made(np.random.default_rng(3), 1, 1)
    missing = (predictions.cell == "C") & predictions.gene_id.isin(["g0", "g1"])
    table = score_across_cells(predictions[~missing])
    assert table.deviation.notna().all()
    assert (table.pearson > 0.9).all()


def test_one_cell_is_refused():
    predictions = made(np.random.default_rng(0), 1, 1)
    with pytest.raises(InputError, match="a single cell"):
        score_across_cells(predictions[predictions.cell == "A"])


def test_too_few_genes_are_said():
    few = made(np.random.default_rng(0), 1, 1).query("gene_id in ['g0', 'g1', 'g2', 'g7']")
    with pytest.raises(InputError, match="at most 2 held-out genes on a chromosome"):
        score_across_cells(few)


def test_a_cell_of_too_few_genes_is_left_out():
    table = made(np.random.default_rng(0), 1, 1)
    few = table[(table.cell != "C") | (table.gene_id == "g0")]
    assert set(score_across_cells(few).cell) == {"A", "B"}


def test_models_of_one_cell_each_are_scored_on_what_is_its_own():
    random = np.random.default_rng(0)
    knows, not_knows = made(random, 1, 1), made(random, 0, 1).assign(assays="H3K9me3")
    table = pd.concat([knows, not_knows])
    table = table[table["trained_on"] == "A"].assign(trained_on=lambda t: t["cell"])
    found = score_deviations(table)
    assert found.groupby("assays")["pearson"].mean().round(1).to_dict() == {
        "H3K27ac": 1.0, "H3K9me3": 0.0,
    }  # fmt: skip
    one = table[(table["assays"] == "H3K27ac") & (table["chrom"] == "chr2")]
    wide = one.pivot(index="gene_id", columns="cell", values=["observed", "predicted"])
    own, predicted = (
        wide[name].sub(wide[name].mean(axis=1), axis=0) for name in ("observed", "predicted")
    )
    row = found[(found.assays == "H3K27ac") & (found.chrom == "chr2") & (found.cell == "B")].iloc[0]
    assert row.pearson == pytest.approx(np.corrcoef(own["B"], predicted["B"])[0, 1], abs=1e-5)
    assert score_deviations(table[table["cell"] == "A"]).empty
