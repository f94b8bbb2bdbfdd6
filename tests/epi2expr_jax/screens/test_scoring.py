"""Scores of screens agree with scikit-learn, and their intervals cover the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from epi2expr_jax.screens import scoring
from epi2expr_jax.screens.pairs import read_pairs
from epi2expr_jax.screens.rivals import rivals
from tests.epi2expr_jax.screens.screen import SIZES, made_up


def test_scores_with_ties_and_weights_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.2
    score = (rng.normal(size=400) + truth).round(1)  # many ties
    weights = rng.random((3, 400)) * (rng.random((3, 400)) < 0.9)
    curve = scoring.Curve.of(score, truth, weights)
    for row, own in enumerate(weights):
        expected = metrics.average_precision_score(truth, score, sample_weight=own)
        assert curve.average_precision[row] == pytest.approx(expected, abs=1e-12)
        area = metrics.roc_auc_score(truth, score, sample_weight=own)
        assert curve.auroc[row] == pytest.approx(area, abs=1e-12)
        precision, recall, _ = metrics.precision_recall_curve(truth, score, sample_weight=own)
        # Of scikit-learn's thresholds, from low to high, the highest that reaches the recall.
        last = np.flatnonzero(recall >= 0.7)[-1]
        assert curve.precision_at(0.7)[row] == pytest.approx(precision[last], abs=1e-12)


def test_a_score_of_all_ties_has_the_precision_of_chance():
    truth = np.arange(10) < 3
    curve = scoring.Curve.of(np.zeros(10), truth, np.ones((1, 10)))
    assert (curve.average_precision[0], curve.auroc[0]) == (pytest.approx(0.3), 0.5)


def test_a_mean_over_equal_groups_has_the_interval_of_student():
    values = np.array([1.0, 2, 4, 7, 11, 5])
    without = (values.sum() - values) / 5
    low, high = scoring.leave_out_interval(values.mean(), without, np.full(6, 1 / 6))
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    # Of unequal groups: as when each is left out in turn, and worth fewer equal ones.
    share = np.array([1, 2, 3, 4, 5, 5]) / 20
    mean = (share * values).sum()
    without = (mean - share * values) / (1 - share)
    low, high = scoring.leave_out_interval(mean, without, share)
    reach = stats.t.ppf(0.975, 1 / (share**2).sum() - 1) * np.sqrt(5 * without.var())
    assert (low, high) == pytest.approx((mean - reach, mean + reach))
    assert np.isnan(scoring.leave_out_interval(1.0, np.ones(4), np.full(4, 0.25))).all()


def test_rows_and_leads_of_a_subset():
    pairs = read_pairs(made_up(np.random.default_rng(1)), "made up").table
    scores, _ = rivals(pairs)
    chosen = (pairs["study"] == "first").to_numpy()
    scored = scoring.Scored("first", pairs, scores, chosen)
    rows, leads = scored.rows().set_index("score"), scored.leads("H3K27ac").set_index("rival")
    own = pairs[chosen]
    expected = metrics.average_precision_score(own.regulated, -own.distance)
    assert rows.average_precision["distance"] == pytest.approx(expected)
    share = own.regulated.mean()
    above = (rows.average_precision - share) / (1 - share)
    assert np.allclose(rows.above_chance, above)
    assert (rows.n == chosen.sum()).all()
    assert (rows.low <= rows.average_precision).all()
    assert (rows.average_precision <= rows.high).all()
    lead = rows.average_precision["H3K27ac"] - rows.average_precision["DHS"]
    assert leads.lead["DHS"] == pytest.approx(lead)
    assert "H3K27ac" not in leads.index
    # The same score under another name leads by nothing, and surely so.
    twice = scoring.Scored("all", pairs, {"a": scores["DHS"], "b": scores["DHS"]}, chosen)
    (row,) = twice.leads("a").itertuples()
    assert (row.lead, row.low, row.high, row.auroc_lead) == (0, 0, 0, 0)


def test_bins_with_few_regulated_pairs_join_their_neighbour():
    edges = np.array([5e3, 2e4, 7e4, 2e5, 9e5])
    distance = np.repeat(edges, [30, 30, 30, 30, 100])
    regulated = np.zeros(220, bool)
    for first, some in ((0, 20), (30, 5), (60, 25), (90, 20), (120, 19)):
        regulated[first : first + some] = True
    bins = scoring.distance_bins(distance, regulated)
    assert {name: int(regulated[chosen].sum()) for name, chosen in bins.items()} == {
        "0 to 10 kb": 20,
        "10 to 100 kb": 30,
        "over 100 kb": 39,
    }
    assert sum(chosen.sum() for chosen in bins.values()) == 220
    (only,) = scoring.distance_bins(distance, np.arange(220) < 3)
    assert only == "over 0 kb"


def test_sizes_are_compared_among_regulated_pairs():
    table = pd.DataFrame(
        {"regulated": [True] * 4 + [False], "change": [-0.05, -0.2, -0.3, np.nan, 0.9]}
    )
    scores = {"up": np.array([1.0, 2, 3, 9, 0]), "flat": np.ones(5)}
    rows = scoring.sizes(table, scores).set_index("score")
    assert rows.spearman["up"] == pytest.approx(1)
    assert np.isnan(rows.spearman["flat"])
    assert rows.n["up"] == 3
    assert rows.small["up"] == pytest.approx(1 / 3)


@pytest.mark.trial
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_intervals_of_leads_cover_the_truth(spread, trial_size):
    """Nominal 95 %; pairs of a chromosome share what makes them easy."""

    def leads(rng, sizes):
        pairs = read_pairs(made_up(rng, sizes, spread), "made up").table
        scores, _ = rivals(pairs)
        kept = {name: scores[name] for name in ("activity × distance", "distance")}
        chosen = np.ones(len(pairs), bool)
        (row,) = (
            scoring.Scored("all", pairs, kept, chosen).leads("activity × distance").itertuples()
        )
        return row

    # Of very many chromosomes of the same sizes.
    large, times = SIZES * trial_size(4, 12), trial_size(1, 8)
    many = [leads(np.random.default_rng(10**6 + k), large) for k in range(times)]
    truth = np.mean([row.lead for row in many])
    made = [leads(np.random.default_rng(seed), SIZES) for seed in range(trial_size(6, 500))]
    covered = np.mean([row.low <= truth <= row.high for row in made])
    print(f"spread {spread}: true lead {truth:.3f}, covered {covered:.1%}")
    least, most = trial_size((0.6, 1), (0.93, 0.97))
    assert least <= covered <= most
