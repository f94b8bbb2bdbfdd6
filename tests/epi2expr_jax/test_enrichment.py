"""The enrichment test holds its level where naive ones do not, and finds what is planted.

Null: variants and predicted effects both follow distance and signal, smoothly and together, but
have nothing else in common. Signal, effects and tested variants go along the genome in runs,
variants in linkage disequilibrium spread from a causal region to its neighbours, and genes of one
locus share regions, effects and often the causal region.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import special

from epi2expr_jax import enrichment
from epi2expr_jax.enrichment import EFFECT, enrich

REGIONS, BIN = 17, 2000  # bp
SHIFT = 3  # regions between the TSSs of neighbours
# Shares of the autosomes, by protein-coding genes.
CHROMOSOMES = np.array([2010, 1241, 1047, 752, 862, 1016, 894, 721, 795, 756, 1294, 1035, 323, 641,
                        611, 852, 1176, 276, 1393, 539, 231, 450]) / 18915  # fmt: skip
ALPHAS = 0.01, 0.05, 0.1


def along(rng, shape, r=0.6):
    """Normal variates whose neighbours correlate by r."""
    x = rng.standard_normal(shape)
    for i in range(1, shape[-1]):
        x[..., i] = r * x[..., i - 1] + np.sqrt(1 - r**2) * x[..., i]
    return x


def simulate(rng, genes, planted=0.0, crowd=2, chromosomes=22):
    """Regions with counted variants.

    Args:
        planted: log odds of a variant for one standard deviation, about, of what is peculiar to
            the predicted effect, given distance and signal.
        crowd: genes of a locus.
    """
    loci, length = genes // crowd, REGIONS + SHIFT * (crowd - 1)
    distance = (np.arange(REGIONS) - REGIONS // 2) * BIN
    near = 1 / (1 + np.abs(distance) / 4000)
    level, common = along(rng, (2, loci, length))
    tested = 1 + rng.poisson(np.exp(2 + 0.5 * along(rng, (loci, length))))
    shares = CHROMOSOMES[:chromosomes] / CHROMOSOMES[:chromosomes].sum()
    chrom = np.char.mod("chr%d", 1 + rng.choice(chromosomes, loci, p=shares))
    causal, tables = None, []
    for member in range(crowd):
        here = slice(SHIFT * member, SHIFT * member + REGIONS)
        log_signal = level[:, here] + 2 * near
        peculiar = 0.9 * common[:, here] + 0.4 * along(rng, (loci, REGIONS))
        bend = np.tanh(log_signal - 1)
        effect = np.exp(1.5 * near + 0.8 * bend + 0.5 * near * log_signal + peculiar)
        odds = 2 * near + 1.2 * bend + 0.5 * near * log_signal + planted * peculiar
        chance = special.softmax(odds + np.log(tested[:, here]), axis=1)
        own = (rng.random((loci, 1)) > chance.cumsum(1)).sum(1).clip(max=REGIONS - 1) + here.start
        shared = (rng.random(loci) < 0.7) & (member > 0)
        shared &= (own if causal is None else causal) >= here.start
        causal = own if causal is None else np.where(shared, causal, own)
        linked = np.exp(-np.abs(np.arange(length) - causal[:, None]))
        variants = rng.binomial(tested, 0.6 * linked)
        variants[np.arange(loci), causal] = np.maximum(1, variants[np.arange(loci), causal])
        tables.append(
            pd.DataFrame(
                {
                    "gene_id": np.repeat(np.char.mod(f"g%05d.{member}", np.arange(loci)), REGIONS),
                    "chrom": np.repeat(chrom, REGIONS),
                    "distance": np.tile(distance, loci),
                    "signal": np.exp(log_signal).ravel(),
                    "effect": (effect * rng.choice([-1, 1], effect.shape)).ravel(),
                    "significant": variants[:, here].ravel(),
                    "exposure": tested[:, here].ravel(),
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    return table[table.groupby("gene_id")["significant"].transform("sum") > 0]


def rejections(p):
    """Share of p-values up to each of ALPHAS, and what a valid test may reach."""
    p, alphas = np.asarray(p), np.array(ALPHAS)
    limit = alphas + 2 * np.sqrt(alphas * (1 - alphas) / len(p))
    return (p[:, None] <= alphas).mean(0), limit


@pytest.mark.trial
@pytest.mark.parametrize(("genes", "crowd"), [(600, 2), (600, 6), (3000, 2)])
def test_holds_its_level_where_unmatched_does_not(genes, crowd, trial_size, monkeypatch):
    count = trial_size(1 if genes > 1000 else 40, 500)
    p, naive = [], []
    for i in range(count):
        table = simulate(np.random.default_rng([genes, crowd, i]), genes, crowd=crowd)
        tested = enrich(table, permutations=199, seed=i).set_index(["predictor", "matched"])
        p.append(tested.p[EFFECT])
        if crowd == 6:  # what it would be if the standard error were not taken into account
            with monkeypatch.context() as patch:
                patch.setattr(enrichment, "_studentise", lambda of_chromosome: of_chromosome.sum(1))
                table = enrich(table, permutations=199, seed=i).set_index(["predictor", "matched"])
            naive.append(table.p[EFFECT, True])
    unmatched, limit = rejections([one[False] for one in p])
    matched, _ = rejections([one[True] for one in p])
    print(f"{genes} genes, {crowd} a locus: {matched}, unmatched {unmatched}, limit {limit}")
    assert (matched <= limit).all()
    assert (unmatched > 0.9).all()
    if naive:
        print(f"not studentised {rejections(naive)[0]}")
        assert np.mean(np.array(naive) <= 0.1) > np.mean([one[True] <= 0.1 for one in p])
        if count >= 500:
            assert (rejections(naive)[0] > limit).all()


@pytest.mark.trial
def test_finds_a_planted_enrichment_and_its_intervals_cover(trial_size):
    count = trial_size(16, 500)
    rows = []
    for i in range(count):
        table = enrich(simulate(np.random.default_rng([7, i]), 600, 0.5), permutations=199, seed=i)
        rows.append(table[table.matched].set_index("predictor").loc[EFFECT])
    rows = pd.DataFrame(rows).astype({"p": float, "low": float, "high": float})
    truth = rows.share.mean() / rows.expected.mean()
    covered = rows.low.le(truth) & rows.high.ge(truth)
    power = rows.p.le(0.05).mean()
    print(f"enrichment {truth:.3f}: found {power:.3f}, intervals cover {covered.mean():.3f}")
    assert truth > 1.05
    assert power > 0.7
    assert covered.mean() >= (0.925 if count >= 500 else 0.75)
