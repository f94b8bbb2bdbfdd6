import itertools
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.masking import every_subset
from epi2expr_jax.scores.intervals import TOO_FEW_GENES, jackknife
from epi2expr_jax.scores.shapley import (
    attribute,
    compare_with_trained,
    rank_correlation,
    shapley_values,
    subset_table,
)
from epi2expr_jax.scores.table import ALL

ASSAYS = ("K4", "K27", "DNase")


def game(rule, assays):
    """Scores of every subset by a rule of its members."""
    return np.array([[rule(set(np.flatnonzero(row))) for row in every_subset(assays)]])


def test_values_equal_the_mean_gain_over_all_orders():
    random = np.random.default_rng(0)
    scores = random.normal(size=(3, 16))
    expected = np.zeros((3, 4))
    for order in itertools.permutations(range(4)):
        before = 0
        for assay in order:
            after = before | 1 << assay
            expected[:, assay] += scores[:, after] - scores[:, before]
            before = after
    found = shapley_values(scores)
    np.testing.assert_allclose(found, expected / math.factorial(4), rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), scores[:, -1] - scores[:, 0], rtol=1e-12)


@pytest.mark.parametrize("assays", [1, 2, 7, 12])
def test_an_additive_game_gives_each_assay_its_own_worth(assays):
    worth = np.random.default_rng(1).normal(size=assays)
    found = shapley_values(every_subset(assays).astype(float)[None] @ worth)
    np.testing.assert_allclose(found[0], worth, atol=1e-12)


def test_a_duplicate_splits_its_credit_and_a_null_assay_gets_nothing():
    """Assays 0 and 1 say the same; 2 adds to any of them; 3 adds nothing."""

    def rule(members):
        return math.sqrt(0.5 * bool(members & {0, 1}) + 0.2 * (2 in members))

    found = shapley_values(game(rule, 4))[0]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    np.testing.assert_allclose(found[3], 0, atol=1e-12)
    np.testing.assert_allclose(found.sum(), math.sqrt(0.7), rtol=1e-12)
    # Together they have what one of them alone would have had, and a part of the interaction.
    alone = shapley_values(game(lambda m: math.sqrt(0.5 * (0 in m) + 0.2 * (1 in m)), 2))[0]
    assert found[:2].sum() > alone[0]
    additive = shapley_values(game(lambda m: 0.6 * bool(m & {0, 1}) + 0.1 * (2 in m), 3))[0]
    np.testing.assert_allclose(additive, [0.3, 0.3, 0.1], rtol=1e-12)


def test_a_number_of_subsets_that_is_none_is_refused():
    with pytest.raises(InputError, match="7 subsets"):
        shapley_values(np.zeros((2, 7)))


@pytest.fixture
def scores():
    """Two cells, two folds with chromosomes of their own, two seeds; random scores."""
    random = np.random.default_rng(2)
    runs = list(itertools.product(("E1", "E2"), ("fold1", "fold2"), (0, 1)))
    chrom = ["chr1", "chr2", "chr3", "chr4", "chr5"]
    tested = {"fold1": [0, 1, 2], "fold2": [3, 4]}
    pearson = np.full((len(runs), 5, 8), np.nan)
    genes = np.full((len(runs), 5), np.nan)
    for r, (_, fold, _) in enumerate(runs):
        own = tested[fold]
        pearson[r, own] = random.uniform(0, 0.9, (len(own), 8))
        pearson[r, own, 0] = 0
        genes[r, own] = np.array([100, 60, 30, 80, 20])[own]
    cell, fold, seed = zip(*runs, strict=True)
    return xr.Dataset(
        {"pearson": (("run", "chrom", "subset"), pearson), "genes": (("run", "chrom"), genes)},
        coords={
            "run": [f"run{r}" for r in range(len(runs))], "cell": ("run", list(cell)),
            "fold": ("run", list(fold)), "seed": ("run", list(seed)), "chrom": chrom,
            "subset": np.arange(8),
        },
        attrs={"assays": ASSAYS},
    )  # fmt: skip


def test_values_of_cells_are_averaged_and_sum_to_the_full_score(scores):
    shares, subsets = attribute(scores), subset_table(scores)
    assert shares.cell.unique().tolist() == [ALL, "E1", "E2"]
    assert len(subsets) == 3 * 7
    for cell, own in shares.groupby("cell"):
        whole = subsets[(subsets.cell == cell) & (subsets.subset == "K4+K27+DNase")]
        np.testing.assert_allclose(own.value.sum(), whole.pearson.item(), rtol=1e-12)
        assert own.value.is_monotonic_decreasing
    by_cell = shares.pivot(index="assay", columns="cell", values="value")
    np.testing.assert_allclose(by_cell[ALL], by_cell[["E1", "E2"]].mean(axis=1), rtol=1e-12)
    assert subsets.loc[subsets.subset == "K4+DNase", "size"].unique().tolist() == [2]


def test_intervals_are_those_of_the_chromosome_jackknife(scores):
    own = scores.isel(run=scores["cell"].values == "E1")
    values = own["pearson"].mean("run").values
    mean, error = jackknife(shapley_values(values), np.array([100.0, 60, 30, 80, 20]))
    table = attribute(scores)
    table = table[table.cell == "E1"].set_index("assay").loc[list(ASSAYS)]
    np.testing.assert_allclose(table.value, mean, rtol=1e-12)
    np.testing.assert_allclose((table.high - table.low) / 2, 2.7764 * error, rtol=1e-4)
    wider = (table.simultaneous_high - table.simultaneous_low) / (table.high - table.low)
    np.testing.assert_allclose(wider, 3.9608 / 2.7764, rtol=1e-3)  # t(1 - 0.025/3), 4 d.f.
    assert (table.n_chromosomes == 5).all()
    few = attribute(scores.isel(chrom=[0, 1]))
    assert few.low.isna().all()
    assert set(few.note) == {"fewer than 3 chromosomes"}


def test_scores_of_few_genes_have_no_interval_and_others_end_at_1(scores):
    few = scores.assign(genes=scores["genes"] / 10)
    for table in (attribute(few), subset_table(few)):
        assert table[["low", "high", "simultaneous_low"]].isna().all(axis=None)
        assert set(table.note) == {TOO_FEW_GENES}
    turn = np.where(np.arange(scores.sizes["chrom"])[:, None] % 2, 0.99, 0.6)
    high = scores.assign(pearson=scores["pearson"] * 0 + turn)
    table = subset_table(high)
    assert table["simultaneous_high"].max() == 1
    assert (table["simultaneous_low"] < table["pearson"]).all()


def trained_alone(scores, subsets, shift=0.0):
    """The same scores as a table of models trained on each of these subsets."""
    names = ["K4", "K27", "K4+K27", "DNase"]
    rows = [
        {
            "cell": cell, "assays": names[s - 1], "fold": fold, "seed": seed, "chrom": chrom,
            "n": int(scores["genes"].values[r, k]), "constant_observed": False,
            "pearson": scores["pearson"].values[r, k, s] + shift,
        }
        for r, (cell, fold, seed) in enumerate(
            zip(*(scores[axis].values for axis in ("cell", "fold", "seed")), strict=True))
        for k, chrom in enumerate(scores["chrom"].values)
        if np.isfinite(scores["genes"].values[r, k])
        for s in subsets
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_comparison_is_taken_over_what_both_have(scores):
    trained = trained_alone(scores, [1, 2, 3, 4], shift=0.01)
    foreign = trained[trained.assays == "K4"].assign(assays="CTCF")
    lacking = ~((trained.cell == "E2") & (trained.assays == "DNase"))
    pairs = compare_with_trained(scores, pd.concat([trained[lacking], foreign]))
    assert set(pairs.subset) == {"K4", "K27", "K4+K27", "DNase"}
    np.testing.assert_allclose(pairs.trained - pairs.masked, 0.01, rtol=1e-9)
    assert set(pairs.loc[pairs.cell == ALL, "subset"]) == {"K4", "K27", "K4+K27"}
    table = subset_table(scores)
    expected = table[table.cell == "E1"].set_index("subset").pearson
    own = pairs[pairs.cell == "E1"].set_index("subset")
    np.testing.assert_allclose(own.masked, expected[own.index], rtol=1e-12)
    summary = rank_correlation(pairs).set_index("cell")
    assert summary.loc["E1", "subsets"] == 4
    np.testing.assert_allclose(summary.spearman, 1)
    np.testing.assert_allclose(summary.difference, -0.01, rtol=1e-9)
    assert compare_with_trained(scores, foreign).empty


def test_rank_correlation_needs_three_subsets(scores):
    pairs = compare_with_trained(scores, trained_alone(scores, [1, 2]))
    summary = rank_correlation(pairs)
    assert summary.spearman.isna().all()
    assert (summary.subsets == 2).all()
