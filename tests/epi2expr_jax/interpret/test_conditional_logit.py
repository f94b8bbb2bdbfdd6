"""The conditional logit: its layout, its shares where they are known, and its optimum."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from epi2expr_jax.interpret import enrichment
from epi2expr_jax.interpret.conditional_logit import Chances, Fit, GenePlaces
from epi2expr_jax.interpret.enrichment import EFFECT, enrich
from tests.epi2expr_jax.interpret.loci import simulate


def table_of(*rows):
    """Places from (gene, chromosome, distance, signal, significant, exposure) rows."""
    columns = ["gene_id", "chrom", "distance", "signal", "significant", "exposure"]
    return pd.DataFrame(rows, columns=columns)


FOUR = table_of(
    ("late", "chr10", -500, 1.0, 2, 10), ("late", "chr10", 200, 4.0, 0, 30),
    ("early", "chr2", 100, 2.0, 1, 5), ("early", "chr2", -50, 9.0, 1, 5),
    ("early", "chr2", 900, 3.0, 2, 10), ("next", "chr2", 10, 5.0, 3, 8),
    ("next", "chr2", -70, 0.5, 1, 8),
)  # fmt: skip


def test_genes_stand_by_chromosome_and_their_places_come_first():
    data = GenePlaces.of(FOUR)
    assert data.chrom.tolist() == ["chr2", "chr2", "chr10"]
    assert data.starts.tolist() == [0, 2]
    assert data.row.tolist() == [2, 2, 0, 0, 0, 1, 1]
    assert data.column.tolist() == [0, 1, 0, 1, 2, 0, 1]
    assert data.at_risk.tolist() == [[True] * 3, [True, True, False], [True, True, False]]
    np.testing.assert_allclose(data.share, [[0.25, 0.25, 0.5], [0.75, 0.25, 0], [1, 0, 0]])
    np.testing.assert_allclose(np.exp(data.exposure), [[5, 5, 10], [8, 8, 0], [10, 30, 0]])
    assert data.pad(FOUR.signal, -1.0).tolist() == [[2, 9, 3], [5, 0.5, -1], [1, 4, -1]]
    assert data.covariates["upstream"].tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_covariates_are_ranks_whatever_their_unit():
    data, other = (
        GenePlaces.of(FOUR.assign(signal=signal)) for signal in (FOUR.signal, FOUR.signal**3 * 50)
    )
    scores = data.covariates["signal"]
    np.testing.assert_array_equal(scores, other.covariates["signal"])
    order = np.argsort(scores[data.at_risk])
    assert (np.diff(data.pad(FOUR.signal)[data.at_risk][order]) > 0).all()
    np.testing.assert_allclose(scores[data.at_risk].sum(), 0, atol=1e-12)


def test_without_covariates_variants_are_expected_by_exposure_alone():
    data = GenePlaces.of(FOUR)
    top = np.array([[[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]])
    fit = Fit.of(data, top, Chances.of(data, data.no_basis()))
    expected = np.array([5 / 20, 8 / 16, 10 / 40])
    held = np.array([0.25, 0.25, 1.0])
    np.testing.assert_allclose(fit.share, held.mean())
    np.testing.assert_allclose(fit.expected, expected.mean())
    np.testing.assert_allclose(fit.log_ratio, np.log(held.sum() / expected.sum()))
    # Without chr2 the last gene is left, without chr10 the first two.
    left = [np.log(1.0 / 0.25), np.log(0.5 / 0.75)]
    np.testing.assert_allclose(fit.left_out[:, 0], left)
    chance = np.array([[0.25, 0.25, 0.5], [0.5, 0.5, 0], [0.25, 0.75, 0]])
    np.testing.assert_allclose(fit.over, data.share - chance, atol=1e-12)
    np.testing.assert_allclose(
        fit.score[0], (top[0] - expected[:, None]) * data.at_risk, atol=1e-12
    )


def test_the_fit_is_the_penalised_maximum_of_the_likelihood():
    """Found by another program from the likelihood as it is written down."""
    data = GenePlaces.of(simulate(np.random.default_rng(0), 60, chromosomes=4))
    basis = np.random.default_rng(1).normal(size=(*data.share.shape, 2)) * data.at_risk[..., None]
    top = (basis[None, ..., 0] > 1.0).astype(float)

    def chances(theta):
        odds = np.exp(data.exposure + basis @ theta)
        return odds / odds.sum(1, keepdims=True)

    def loss(theta):
        chance = np.where(data.share > 0, chances(theta), 1)
        return -(data.share * np.log(chance)).sum() + 0.05 * (theta**2).sum()

    best = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", tol=1e-10)
    assert np.abs(best.x).max() > 0.01
    fit = Fit.of(data, top, Chances.of(data, basis))
    np.testing.assert_allclose(fit.over, data.share - chances(best.x), atol=1e-6)


def test_what_splines_know_is_expected_on_average():
    """At the optimum each basis function is as often held as expected, but for the ridge."""
    data = GenePlaces.of(simulate(np.random.default_rng(2), 300))
    splines = data.splines()
    assert (splines[~data.at_risk] == 0).all()
    top = np.ones((1, *data.share.shape)) * data.at_risk
    chances = [Chances.of(data, basis) for basis in (splines, data.no_basis())]
    fit, without = (Fit.of(data, top, each) for each in chances)
    held = np.abs(np.einsum("gn,gnq->q", without.over, splines))
    left = np.abs(np.einsum("gn,gnq->q", fit.over, splines))
    assert held.max() > 5
    assert left.max() < 0.1 * held.max()


def test_covariates_that_are_all_alike_say_nothing():
    data = GenePlaces.of(FOUR.assign(signal=1.0, distance=0.0, exposure=10))
    top = np.array([[[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]])
    fit = Fit.of(data, top, Chances.of(data, data.splines()))
    np.testing.assert_allclose(fit.expected, np.mean([1 / 3, 1 / 2, 1 / 2]))


def test_chromosomes_are_left_out_as_if_they_were_not_there():
    """One step of Newton's method is as good as a fit from the start."""
    table = simulate(np.random.default_rng(5), 400, planted=0.5, chromosomes=4)
    data = GenePlaces.of(table)
    names = list(dict.fromkeys(data.chrom))
    z = enrichment._top(data.pad(table.effect.abs()), data.at_risk, 0.2)[None]
    fit = Fit.of(data, z, Chances.of(data, data.splines()))
    assert np.ptp(fit.left_out) > 0.005
    for k, name in enumerate(names):
        rest = enrich(table[table.chrom != name], permutations=1)
        rest = rest[(rest.predictor == EFFECT) & (rest.matched == "loosely")].iloc[0]
        # Knots move a little with the places that are left.
        assert fit.left_out[k, 0] == pytest.approx(np.log(rest.enrichment), abs=0.004)


def test_trends_of_single_genes_are_taken_out():
    """By hand: top places regressed on distance in each gene, weighted by chances."""
    table = simulate(np.random.default_rng(6), 40, chromosomes=4)
    data = GenePlaces.of(table)
    top = np.random.default_rng(7).random((1, *data.share.shape)) * data.at_risk
    trend = data.covariates["distance"][..., None] * data.at_risk[..., None]
    fit = Fit.of(data, top, Chances.of(data, data.no_basis()), trend)
    for gene in (0, 17):
        chance = np.exp(data.exposure[gene]) / np.exp(data.exposure[gene]).sum()
        design = np.stack([np.ones(len(chance)), trend[gene, :, 0]], axis=1)
        root = np.sqrt(chance)[:, None]
        line = np.linalg.lstsq(root * design, root[:, 0] * top[0, gene])[0]
        np.testing.assert_allclose(fit.score[0, gene], top[0, gene] - design @ line, atol=1e-12)
    excess = (fit.over * fit.score[0]).sum(1).mean()
    np.testing.assert_allclose(fit.share - fit.expected, excess)
