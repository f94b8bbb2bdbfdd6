"""The chromosome jackknife by hand, and what carries weight in it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import agreement, comparison, ranking
from epi2expr_jax.scores.intervals import (
    clip_interval,
    jackknife,
    require_usable,
    score_cube,
    shared_units,
    usable,
    weighted_mean,
)
from epi2expr_jax.scores.table import METRICS
from epi2expr_jax.words.caveats import caveats


def scores_of(*rows):
    """A score table from (cell, assays, chrom, n, score) rows."""
    table = pd.DataFrame(rows, columns=["cell", "assays", "chrom", "n", "pearson"])
    table = table.assign(fold="f0", seed=0, constant=False, constant_observed=False)
    return table.assign(**dict.fromkeys(METRICS[1:], table["pearson"]))


def test_jackknife_by_hand():
    values, genes = np.array([0.5, 0.3, 0.6]), np.array([100.0, 50.0, 50.0])
    (mean,), (error,) = jackknife(values[:, None], genes)
    assert mean == pytest.approx(0.475)
    # Leaving out each in turn: 0.45, 0.533333, 0.433333.
    left_out = np.array([0.45, 1.6 / 3, 1.3 / 3])
    shares = 200 / genes
    # Busing et al. (1999), as published: pseudo-values about the jackknife estimate.
    estimate = 3 * mean - np.sum((1 - genes / 200) * left_out)
    pseudo = shares * mean - (shares - 1) * left_out
    busing = np.mean((pseudo - estimate) ** 2 / (shares - 1))
    plain = 2 / 3 * np.sum((left_out - mean) ** 2)
    assert error**2 == pytest.approx(max(busing, plain))
    assert busing == pytest.approx((0.025**2 + 0.175**2 / 3 + 0.125**2 / 3) / 3)


def test_chromosomes_of_equal_size_have_the_classical_standard_error():
    values = np.random.default_rng(0).normal(size=(7, 2, 3))
    mean, error = jackknife(values, np.full(7, 50.0))
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(error, stats.sem(values, axis=0))


def test_no_interval_goes_beyond_what_a_correlation_can_be():
    """Of three chromosomes with a high mean the interval reached 1.2."""
    table = scores_of(*((cell, "a", f"chr{k}", 100, r) for cell in ("E1", "E2")
                        for k, r in enumerate((0.99, 0.9, 0.7))))  # fmt: skip
    row = ranking.rank_assays(table).iloc[0]
    mean, error = jackknife(np.array([[0.99], [0.9], [0.7]]), np.full(3, 100.0))
    reach = stats.t.isf(0.025, 2) * error[0]
    assert mean[0] + reach > 1
    assert [row["low"], row["high"]] == pytest.approx([mean[0] - reach, 1])
    assert row["simultaneous_high"] == row["spearman_high"] == 1
    models = comparison.compare_models({"cnn": table, "ridge": table})
    assert [models["low"][0], models["high"][0]] == pytest.approx([mean[0] - reach, 1])
    low, high = clip_interval(np.array([0.2, -0.9, np.nan]), np.array([0.1, 0.3, 0.1]))
    np.testing.assert_allclose(low, [0.1, -1, np.nan])
    np.testing.assert_allclose(high, [0.3, -0.6, np.nan])


def test_fewer_than_three_chromosomes_have_a_mean_but_no_error():
    mean, error = jackknife(np.array([[0.2], [0.5]]), np.array([10.0, 20.0]))
    assert mean == pytest.approx(0.4)
    assert np.isnan(error).all()


def test_a_cube_holds_what_carries_weight():
    scores = scores_of(
        ("E1", "a", "chr1", 9, 0.1), ("E1", "a", "chr2", 2, 0.2), ("E1", "a", "chr3", 9, 0.3),
        ("E1", "b", "chr1", 9, 0.4), ("E1", "b", "chr2", 3, 0.5), ("E2", "b", "chr3", 9, 0.6),
    )  # fmt: skip
    scores.loc[2, "constant_observed"] = True  # all genes alike
    cube = score_cube(scores)
    assert cube.dims == ("metric", "cell", "assays", "fold", "seed", "chrom")
    pearson = cube.sel(metric="pearson", fold="f0", seed=0)
    assert float(pearson.sel(cell="E1", assays="a", chrom="chr1")) == 0.1
    assert float(cube.sel(metric="n", cell="E1", assays="b", chrom="chr2").squeeze()) == 3
    kept = pearson.stack(unit=("cell", "assays", "chrom")).dropna("unit")
    assert sorted(kept.unit.to_numpy()) == [
        ("E1", "a", "chr1"), ("E1", "b", "chr1"), ("E1", "b", "chr2"), ("E2", "b", "chr3"),
    ]  # fmt: skip


def test_assays_share_the_units_that_all_of_them_have():
    scores = scores_of(
        ("E1", "a", "chr1", 9, 0.1), ("E1", "a", "chr2", 9, 0.2), ("E1", "b", "chr1", 9, 0.3),
        ("E2", "b", "chr1", 9, 0.4), ("E2", "b", "chr3", 9, 0.5),
    )  # fmt: skip
    cube = score_cube(scores)
    shared, dropped = shared_units(cube)
    assert dropped == 3
    assert shared.sizes == {"metric": 8, "cell": 1, "assays": 2, "fold": 1, "seed": 1, "chrom": 1}
    assert shared.sel(metric="pearson").to_numpy().ravel().tolist() == [0.1, 0.3]
    # An assay that is nowhere does not take the others' units away.
    alone, dropped = shared_units(cube.sel(cell=["E2"]))
    assert (alone.assays.to_numpy().tolist(), dropped) == (["b"], 0)
    assert alone.chrom.to_numpy().tolist() == ["chr1", "chr3"]


def test_a_mean_is_over_the_chromosomes_that_have_the_score():
    values = np.array([[0.8, np.nan], [np.nan, np.nan], [0.5, np.nan]])
    found = weighted_mean(values, np.array([100.0, 900.0, 50.0]))
    assert found[0] == pytest.approx((0.8 * 100 + 0.5 * 50) / 150)
    assert np.isnan(found[1])


@pytest.mark.parametrize("few", [{"n": 2}, {"constant_observed": True}])
def test_too_little_to_score_is_said_or_gives_empty_tables(few):
    """Eight genes, or labels of one class: no correlation carries weight."""
    rows = [(cell, assay, chrom, 9, 0.5) for cell in "ab" for assay in "xy" for chrom in "123"]
    scores = scores_of(*rows)
    require_usable(scores)
    scores = scores.assign(**few)
    assert not usable(scores).any()
    words = "at most 2 held-out genes on a chromosome;" if "n" in few else "of the same expression"
    with pytest.raises(InputError, match=words):
        require_usable(scores)
    assert shared_units(score_cube(scores))[0].size == 0
    ranked = ranking.rank_assays(scores)
    assert ranked.empty
    assert list(ranked) == ranking.COLUMNS
    called = comparison.calls(scores)
    assert called.empty
    assert {"cell", "assay", "other", "lead", "p", "q", "called"} == set(called)
    assert any("without weight" in note for note in caveats(scores))
    assert np.isnan(agreement.agreement(scores).value)
    quality = pd.DataFrame({"cell": ["a"], "assay": ["x"], "depth": 1.0, "signal_to_noise": 2.0})
    assert agreement.score_against_quality(scores, quality).empty
    assert comparison.compare_models({"cnn": scores, "ridge": scores}).empty
