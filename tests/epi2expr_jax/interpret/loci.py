"""Places with counted variants, drawn so that what they have to do with effects is known."""

import numpy as np
import pandas as pd
from scipy import special

REGIONS, BIN = 17, 2000  # bp
SHIFT = 3  # places between the TSSs of neighbours
# Shares of the autosomes, by protein-coding genes.
CHROMOSOMES = np.array([2010, 1241, 1047, 752, 862, 1016, 894, 721, 795, 756, 1294, 1035, 323, 641,
                        611, 852, 1176, 276, 1393, 539, 231, 450]) / 18915  # fmt: skip


def along(rng, shape, r=0.6):
    """Normal variates whose neighbours correlate by r."""
    x = rng.standard_normal(shape)
    for i in range(1, shape[-1]):
        x[..., i] = r * x[..., i - 1] + np.sqrt(1 - r**2) * x[..., i]
    return x


def also(kind, rng, distance, near, log_signal):
    """What both variants and effects follow besides distance and signal, smoothly: log odds."""
    far, loci = np.abs(distance), (len(log_signal), 1)
    if kind == "step":
        return 1.5 * (far <= 6000) * np.ones(loci)
    if kind == "block":
        return 1.5 * (((far >= 6000) & (far < 10_000)) | (far >= 14_000)) * np.ones(loci)
    if kind == "threshold of signal":
        return 1.5 * (log_signal > 1.5)
    if kind == "two kinds of genes, by distance":
        return np.where(rng.random(loci) < 0.5, 3 * near, -3 * near)
    if kind == "two kinds of genes, by signal":
        return rng.choice([-1.5, 1.5], loci) * np.tanh(log_signal - 1)
    return 0.0


def simulate(rng, genes, planted=0.0, crowd=2, chromosomes=22, kind="smooth"):
    """Places with counted variants.

    Args:
        planted: log odds of a variant for one standard deviation, about, of what is peculiar to
            the predicted effect, given distance and signal.
        crowd: genes of a locus.
        kind: of what variants and effects have in common, see `also`.
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
        both = 0.5 * near * log_signal + also(kind, rng, distance, near, log_signal)
        effect = np.exp(1.5 * near + 0.8 * bend + both + peculiar)
        odds = 2 * near + 1.2 * bend + both + planted * peculiar
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
