"""Do the places with the largest predicted effect hold more variants than matched ones?

Each gene with significant variants (eQTLs) counts once: which share of its variants lies in its top
places, and which share would if predicted effects did not tell where variants lie? The expected
shares (`conditional_logit`) follow the variants tested in each place, and what places are matched
for (`MATCHES`): nothing; loosely, a smooth function of distance and signal; closely, also bands of
both, and trends of both that each gene has of its own. Enrichment is observed over expected share.

The test permutes within genes the difference between observed and expected shares, and sums it over
top places less what distance and signal predict of these. One-sided, p = (k + 1) / (n + 1).
Variants in linkage disequilibrium, effects of neighbouring places and genes that share both are not
exchangeable; so the sum is divided by its standard error between chromosomes, in each permutation
again (Chung & Romano 2013). Closely matched p-values hold where variants and effects both follow
distance and signal smoothly, by steps or bands, or in two kinds of genes in opposite ways; loosely
matched ones do not under the latter three, unmatched ones never (simulated:
tests/epi2expr_jax/interpret/test_enrichment.py).

Intervals: delete-one-chromosome jackknife of the logarithm, fits included, and Student's t.

Axes: `G` genes, `N` places of a gene, `P` predictors, `K` chromosomes.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float

from epi2expr_jax.errors import collect
from epi2expr_jax.interpret.conditional_logit import Chances, Fit, GenePlaces
from epi2expr_jax.scores.intervals import LEAST_CHROMOSOMES, jackknife, no_interval

EFFECT = "predicted effect"
# How places are matched, and what else an enrichment may come from, then.
MATCHES = {
    "no": "distance from the TSS and signal, which both variants and effects follow",
    "loosely": "bands of distance, thresholds of signal, kinds of genes",
    "closely": "thresholds of signal that differ between kinds of genes, and whatever places "
    "differ in but distance and signal",
    "more closely": "what the close match leaves, a little less of it",
}
COLUMNS = [
    *["predictor", "matched", "share", "expected", "enrichment", "low", "high", "p"],
    *["lead", "lead_low", "lead_high", "n_genes", "n_regions", "n_chromosomes", "note"],
    "not_excluded",
]

_ROUNDING = 1e-9  # sums of shares below it are none
_LEFT = 1e-6  # of a top place: less is none
_FEW = "too few variants in top places"
_TRENDS = (4, 3), (5, 4)  # of each gene, by distance and signal; simulated
_NO_TEST = "matched like this, no place of a gene stands out: nothing to test"


def predictors(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What places are ranked by within their gene, a value for each row of the table: the absolute
    effect, and baselines.

    A place without a contact ranks behind those with one; contacts count only if there are any.
    """
    signal = table["signal"].to_numpy(float)
    named = {
        EFFECT: np.abs(table["effect"].to_numpy(float)),
        "nearest to the TSS": -np.abs(table["distance"].to_numpy(float)),
        "strongest signal": signal,
    }
    if "contact" in table and bool(table["contact"].notna().any()):
        contact = table["contact"].fillna(0).to_numpy(float)
        named |= {"contact frequency": contact, "activity by contact": signal * contact}
    return named


def enrich(
    table: pd.DataFrame,
    *,
    top: float = 0.2,
    permutations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    reading: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> pd.DataFrame:
    """Test the places with the largest predicted effect, and those of baselines.

    Args:
        table: of places, from `variants.assign_variants`.
        top: share of a gene's places that are its top ones, at least one; places that tie share
            the rank.
        permutations: within genes.
        confidence: of every interval, which holds for one row alone.
        seed: of the permutations.
        reading: wraps the loop over permutations, to show progress.

    Returns:
        A row for each of `MATCHES` and predictor (`predictors`), with columns `COLUMNS`: of the
        genes' variants the `share` in top places and that `expected`, `enrichment` (their ratio)
        with interval, one-sided `p`, and `lead`: how many times the predicted effect's enrichment
        is that of the row, paired by chromosome; `not_excluded`: what else may be behind a small p.
        A baseline that distance or signal define has a matched enrichment near 1 by construction. p
        and intervals are NaN, and `note` says why, for fewer than three chromosomes; intervals also
        where no variant is in a top place, p where the match leaves nothing to compare.

    Raises:
        InputError: naming every number out of range.
    """
    numbers = {
        "top": (top, "a share between 0 and 1", 0 < top < 1),
        "confidence": (confidence, "a number between 0 and 1", 0 < confidence < 1),
        "permutations": (permutations, "at least 1", permutations >= 1),
    }
    with collect() as problems:
        for name, (value, expected, right) in numbers.items():
            if not right:
                problems.add(name, str(value), expected, "correct it")
    data = GenePlaces.of(table)
    # [P, G, N]
    z = np.stack([_top(data.pad(score), data.at_risk, top) for score in predictors(table).values()])
    names = np.array(list(predictors(table)))
    nothing, splines, bands = (
        Chances.of(data, basis) for basis in (data.no_basis(), data.splines(), data.bands())
    )
    fits = [
        *(Fit.of(data, z, chances) for chances in (nothing, splines)),
        *(Fit.of(data, z, bands, data.trends(*sizes)) for sizes in _TRENDS),
    ]
    exceeding = _permute(data, fits, permutations, seed, reading)
    genes = np.diff(np.r_[data.starts, len(data.chrom)]).astype(float)
    K = len(genes)
    reach = scipy.stats.t.isf((1 - confidence) / 2, K - 1) if K >= LEAST_CHROMOSOMES else np.nan
    parts = []
    for matched, fit, k in zip(MATCHES, fits, exceeding, strict=True):
        left = np.abs(fit.score).max(axis=(1, 2)) > _LEFT
        ratio, error = fit.log_ratio, _error(genes, fit.log_ratio, fit.left_out)
        with np.errstate(invalid="ignore"):
            lead, without = ratio[:1] - ratio, fit.left_out[:, :1] - fit.left_out
        lead_error = _error(genes, lead, without)
        part = {
            "predictor": names,
            "matched": matched,
            "share": fit.share,
            "expected": fit.expected,
            "enrichment": np.exp(ratio),
            "low": np.exp(ratio - reach * error),
            "high": np.exp(ratio + reach * error),
            "p": np.where(left & (K >= LEAST_CHROMOSOMES), (k + 1) / (permutations + 1), np.nan),
            "lead": np.exp(lead),
            "lead_low": np.exp(lead - reach * lead_error),
            "lead_high": np.exp(lead + reach * lead_error),
            "n_genes": len(data.chrom),
            "n_regions": int(data.at_risk.sum()),
            "n_chromosomes": K,
            "note": np.select([np.isnan(error), ~left], [no_interval(genes) or _FEW, _NO_TEST], ""),
            "not_excluded": MATCHES[matched],
        }
        parts.append(pd.DataFrame(part, columns=pd.Index(COLUMNS)))
    return pd.concat(parts, ignore_index=True)


def _top(
    score: Float[np.ndarray, "G N"], at_risk: Bool[np.ndarray, "G N"], top: float
) -> Float[np.ndarray, "G N"]:
    """1 for the places of each gene that score highest, 0 for others; ties share the rank."""
    score = np.where(at_risk, score, -np.inf)
    room = np.maximum(1, np.round(top * at_risk.sum(1, keepdims=True)))
    above = scipy.stats.rankdata(-score, method="min", axis=1) - 1
    tied = scipy.stats.rankdata(-score, method="max", axis=1) - above
    return np.where(at_risk, np.clip((room - above) / tied, 0, 1), 0)


def _error(
    genes: Float[np.ndarray, " K"], whole: Float[np.ndarray, " P"], left_out: np.ndarray
) -> Float[np.ndarray, " P"]:
    """Standard error of an estimate, from those without each chromosome (`left_out [K, P]`)."""
    if len(genes) < LEAST_CHROMOSOMES:
        return np.full(len(whole), np.nan)
    weight = (genes / genes.sum())[:, None]
    with np.errstate(invalid="ignore"):
        # Values of the chromosomes whose weighted mean moves just so when one is left out.
        return jackknife((whole - left_out) * (1 - weight) / weight, genes)[1]


def _permute(
    data: GenePlaces,
    fits: list[Fit],
    permutations: int,
    seed: int,
    reading: Callable[[Iterable[int]], Iterable[int]],
) -> list[np.ndarray]:
    """For each fit, how many permutations reach the statistic of every predictor, `[P]`."""

    def statistic(fit: Fit, over: Float[np.ndarray, "G N"]) -> Float[np.ndarray, " P"]:
        of_gene = np.einsum("gn,pgn->pg", over, fit.score)
        return _studentise(np.add.reduceat(of_gene, data.starts, axis=1))

    random = np.random.default_rng(seed)
    observed = [statistic(fit, fit.over) for fit in fits]
    counts = [np.zeros(len(values), int) for values in observed]
    for _ in reading(range(permutations)):
        keys = random.random(data.share.shape, dtype=np.float32)
        keys[~data.at_risk] = 2  # last in the row, where they are
        order = np.argsort(keys, axis=1)
        for fit, values, count in zip(fits, observed, counts, strict=True):
            drawn = statistic(fit, np.take_along_axis(fit.over, order, axis=1))
            count += drawn >= values - _ROUNDING  # one that is the same but for rounding counts
    return counts


def _studentise(of_chromosome: Float[np.ndarray, "P K"]) -> Float[np.ndarray, " P"]:
    """A sum over chromosomes in units of its standard error; 0 where that error is 0."""
    squares = (of_chromosome**2).sum(1)
    there = squares > _ROUNDING**2
    return np.where(there, of_chromosome.sum(1) / np.sqrt(np.where(there, squares, 1)), 0)
