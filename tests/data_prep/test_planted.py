"""The planted truth itself: the oracle, its score, and random streams that do not touch."""

import numpy as np
import pandas as pd
import pytest

from data_prep import planted


def test_streams_are_separate_and_repeatable():
    draws = {
        which: planted.stream(*which).random()
        for which in [(0, "track"), (1, "track"), (0, "roles"), (0, "track", 1), (0, "track", 1, 2)]
    }
    assert len(set(draws.values())) == len(draws)
    assert all(planted.stream(*which).random() == draw for which, draw in draws.items())


def test_every_assay_gets_a_role_and_surplus_ones_none():
    assays = [f"mark{i}" for i in range(15)]
    roles = planted.assign_roles(assays, 4)
    assert list(roles) == assays
    assert sum(role.sign != 0 for role in roles.values()) == 7
    orders = {
        tuple(planted.assign_roles(assays, seed)[name].sign for name in assays) for seed in range(5)
    }
    assert len(orders) > 1


def test_readings_without_effect_know_nothing():
    """Over many simulations, their correlation with expression is that of independent draws."""
    genes = 1000
    elements = pd.DataFrame({"gene": np.arange(genes), "component": "promoter"})
    scores = []
    for seed in range(60):
        t = planted.activity(genes, 0, seed)
        readings = planted.read_activity(
            t, planted.Role(0, {"promoter": 0.0}), elements, planted.stream(seed, "track", 0, 0)
        )
        scores.append(np.corrcoef(readings.value, planted.rpkm(t, 0, seed))[0, 1])
    assert np.mean(scores) == pytest.approx(0, abs=3 / np.sqrt(60 * genes))
    assert np.std(scores) == pytest.approx(1 / np.sqrt(genes), rel=0.3)


@pytest.mark.parametrize("scope", planted.SCOPES)
def test_oracle_is_the_best_prediction(scope):
    """It is calibrated, reaches the planned score, and no linear fit on the readings beats it."""
    genes = 20_000
    role = planted._role(-1, ("promoter", 0.5), ("flank_down", 0.7), ("enhancer", 0.8))
    elements = pd.DataFrame(
        {"gene": np.tile(np.arange(genes), 3), "component": np.repeat(list(role.rho), genes)}
    )
    t = planted.activity(genes, 0, 1)
    observed = np.log2(planted.rpkm(t, 0, 1) + 1)
    readings = planted.read_activity(t, role, elements, np.random.default_rng(1))
    best = planted.best_prediction(readings, genes, scope)
    slope, intercept = np.polyfit(best, observed, 1)
    assert slope == pytest.approx(1, abs=0.03)
    assert intercept == pytest.approx(0, abs=0.08)
    shown = {"6000": 1, "10000": 2}.get(scope, 3)
    features = readings.value.reshape(3, genes)[:shown].T
    features = np.column_stack([features, np.ones(genes)])
    fit = features @ np.linalg.lstsq(features, observed, rcond=None)[0]
    score = np.corrcoef(best, observed)[0, 1]
    assert score >= np.corrcoef(fit, observed)[0, 1]
    assert score == pytest.approx([0.5, 0.7, 0.8][shown - 1], abs=0.03)
    assert ((best - observed) ** 2).mean() <= ((fit - observed) ** 2).mean()


def test_pearson_within_chromosomes():
    x, y = np.array([1.0, 2, 3, 9, 8, 7, 6, 5]), np.array([1.0, 2, 3, 1, 2, 3, 4, 5])
    chrom = pd.Series(["a"] * 3 + ["b"] * 5)
    assert planted.pearson_within(x, y, chrom) == pytest.approx((3 - 5) / 8)
    assert planted.pearson_within(np.ones(8), y, chrom) == 0
    assert planted.pearson_within(x, y, pd.Series(list("abcdefgh"))) == 0


def test_simulated_genes_are_known_by_their_ids():
    assert planted.simulated(["ENSG00090000001.3", "ENSG00090001500"])
    assert not planted.simulated(["ENSG00090000001", "ENSG00000141510"])
    assert not planted.simulated([])
