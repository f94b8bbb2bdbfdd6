"""Floor 8. Do the regions with the largest predicted effect hold more variants than matched ones?

Each gene with significant variants (eQTLs) counts once: of its variants, which share lies in its
top regions, and which would if predicted effects said nothing of where variants lie? Expected
shares come from a conditional logit over the regions of a gene (McFadden 1974; fgwas: Pickrell
2014): chances are proportional to the variants tested there (or to the width), *unmatched*, and
*matched* also to a smooth function of distance and signal, which is fitted. Enrichment is observed
over expected share.

The test permutes within genes what the conditional logit leaves over (the efficient score, from
which splines of distance and signal are projected out of the top regions as well, so an error is
left only where both fits fail), one-sided, p = (k + 1) / (n + 1). Variants in linkage
disequilibrium, effects of neighbouring regions and genes that share both are not exchangeable; so
the statistic is divided by its standard error between chromosomes, in each permutation anew
(Chung & Romano 2013). Where neighbours share both, p-values are far too small without that, and
without the splines wherever effects and variants follow distance and signal (simulated).

Intervals: delete-one-chromosome jackknife of the logarithm, fits included, and Student's t.

Axes: `G` genes, `N` regions of a gene, `P` predictors, `Q` spline coefficients, `K` chromosomes.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import interpolate, special, stats

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import sort_chromosomes
from epi2expr_jax.ranking import MIN_CHROMOSOMES, NO_INTERVAL, jackknife

EFFECT = "predicted effect"
COLUMNS = [
    *["predictor", "matched", "share", "expected", "enrichment", "low", "high", "p"],
    *["lead", "lead_low", "lead_high", "n_genes", "n_regions", "n_chromosomes", "note"],
]

_RIDGE = 0.1  # of a variant: keeps spline coefficients finite where no variant lies
_ROUNDING = 1e-9  # sums of shares below it are none
_FEW = "too few variants in top regions"


def predictors(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What regions are ranked by within their gene: the effect, and baselines.

    A region without a contact ranks behind those with one; contacts count only if there are any.
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
    """Test the regions with the largest predicted effect, and those of baselines.

    Args:
        table: of regions, from `variants.assign_variants`.
        top: share of a gene's regions that are its top ones, at least one; regions that tie share
            the places.
        permutations: within genes.
        confidence: of every interval, which holds for one row alone.
        seed: of the permutations.
        reading: wraps the loop over permutations, to show progress.

    Returns:
        Two rows a predictor (`predictors`), unmatched and matched, with columns `COLUMNS`: of the
        genes' variants the `share` in top regions and that `expected`, `enrichment` (their ratio)
        with interval, one-sided `p`, and `lead`: how many times the predicted effect's enrichment
        is that of the row, paired by chromosome. A baseline that distance or signal define has a
        matched enrichment near 1 by construction. p and intervals are NaN, and `note` says why,
        for fewer than three chromosomes, and intervals also where no variant is in a top region.

    Raises:
        InputError: naming every number that makes no sense.
    """
    numbers = {
        "top": (top, "a share between 0 and 1", 0 < top < 1),
        "confidence": (confidence, "a number between 0 and 1", 0 < confidence < 1),
        "permutations": (permutations, "at least 1", permutations >= 1),
    }
    wrong = [
        Problem(name, str(value), expected, "correct it")
        for name, (value, expected, right) in numbers.items()
        if not right
    ]
    if wrong:
        raise InputError(wrong)
    data = _Genes.of(table)
    # [P, G, N]
    z = np.stack([_top(data.pad(score), data.at_risk, top) for score in predictors(table).values()])
    names = np.array(list(predictors(table)))
    starts = np.flatnonzero(np.r_[True, data.chrom[1:] != data.chrom[:-1]])
    fits = [_Fit.of(data, z, starts, basis) for basis in (data.no_basis(), data.splines())]
    exceeding = _permute(data, fits, starts, permutations, seed, reading)
    genes = np.diff(np.r_[starts, len(data.chrom)]).astype(float)
    K = len(genes)
    reach = stats.t.isf((1 - confidence) / 2, K - 1) if K >= MIN_CHROMOSOMES else np.nan
    parts = []
    for matched, fit, k in zip((False, True), fits, exceeding, strict=True):
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
            "p": (k + 1) / (permutations + 1) if K >= MIN_CHROMOSOMES else np.nan,
            "lead": np.exp(lead),
            "lead_low": np.exp(lead - reach * lead_error),
            "lead_high": np.exp(lead + reach * lead_error),
            "n_genes": len(data.chrom),
            "n_regions": int(data.at_risk.sum()),
            "n_chromosomes": K,
            "note": np.where(np.isnan(error), _FEW if K >= MIN_CHROMOSOMES else NO_INTERVAL, ""),
        }
        parts.append(pd.DataFrame(part, columns=pd.Index(COLUMNS)))
    return pd.concat(parts, ignore_index=True)


@dataclasses.dataclass(frozen=True, eq=False)
class _Genes:
    """Regions by gene, genes by chromosome; a gene's regions come first in its row.

    Attributes:
        row: of every region of the table, its gene; `place`: which of the gene's it is.
        at_risk: where there is a region.
        share: of the gene's significant variants.
        exposure: logarithm of what chances are proportional to; -inf where there is no region.
        covariates: distance (absolute), signal and exposure, as normal scores; side of the TSS.
    """

    row: Int[np.ndarray, " regions"]
    place: Int[np.ndarray, " regions"]
    chrom: np.ndarray
    at_risk: Bool[np.ndarray, "G N"]
    share: Float[np.ndarray, "G N"]
    exposure: Float[np.ndarray, "G N"]
    covariates: dict[str, Float[np.ndarray, "G N"]]

    @classmethod
    def of(cls, table: pd.DataFrame) -> "_Genes":
        genes = table.drop_duplicates("gene_id")[["gene_id", "chrom"]]
        rank = {name: i for i, name in enumerate(sort_chromosomes(genes["chrom"]))}
        genes = genes.iloc[np.argsort(genes["chrom"].map(rank), kind="stable")]
        row = pd.Index(genes["gene_id"]).get_indexer(pd.Index(table["gene_id"]))
        place = table.groupby("gene_id").cumcount().to_numpy()
        empty = np.zeros((len(genes), place.max() + 1))
        self = cls(row, place, genes["chrom"].to_numpy(), empty > 0, empty, empty, {})
        significant = self.pad(table["significant"])
        exposure = np.log(table["exposure"].to_numpy(float))
        of = {
            "distance": _normal_scores(np.abs(table["distance"].to_numpy(float))),
            "signal": _normal_scores(table["signal"].to_numpy(float)),
            "exposure": exposure - exposure.mean(),
            "upstream": np.where(table["distance"] < 0, 1.0, 0.0),
        }
        return dataclasses.replace(
            self,
            at_risk=self.pad(np.ones(len(table))) > 0,
            share=significant / significant.sum(1, keepdims=True),
            exposure=self.pad(exposure, -np.inf),
            covariates={name: self.pad(values) for name, values in of.items()},
        )

    def pad(self, values: np.ndarray | pd.Series, fill: float = 0.0) -> Float[np.ndarray, "G N"]:
        """Values of the table's regions, gene by gene."""
        padded = np.full(self.share.shape, fill)
        padded[self.row, self.place] = values
        return padded

    def no_basis(self) -> Float[np.ndarray, "G N 0"]:
        return np.zeros((*self.share.shape, 0))

    def splines(self) -> Float[np.ndarray, "G N Q"]:
        """Distance × signal (tensor product), distance upstream, exposure; 0 where no region is."""
        size = int(np.clip(3 + len(self.chrom) ** 0.5 / 10, 4, 8))
        near, strong = (self._spline(name, size) for name in ("distance", "signal"))
        both = (near[..., :, None] * strong[..., None, :]).reshape(*self.share.shape, -1)
        upstream = near * self.covariates["upstream"][..., None]
        return np.concatenate([both, upstream, self.covariates["exposure"][..., None]], axis=-1)

    def _spline(self, name: str, size: int) -> Float[np.ndarray, "G N q"]:
        """Quadratic B-splines with knots at quantiles."""
        values = self.covariates[name][self.at_risk]
        inner = np.unique(np.quantile(values, np.linspace(0, 1, size - 1)))
        if len(inner) < 2:  # all alike
            return self.at_risk[..., None].astype(float)
        basis = np.zeros((*self.share.shape, len(inner) + 1))
        knots = np.r_[inner[:1].repeat(2), inner, inner[-1:].repeat(2)]
        basis[self.at_risk] = interpolate.BSpline.design_matrix(values, knots, 2).toarray()
        return basis


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks as quantiles of a normal distribution: whatever the unit, the tails are spread out."""
    return special.ndtri((stats.rankdata(values) - 0.5) / len(values))


def _top(
    score: Float[np.ndarray, "G N"], at_risk: Bool[np.ndarray, "G N"], top: float
) -> Float[np.ndarray, "G N"]:
    """1 for the regions of each gene that score highest, 0 for others; ties share the places."""
    score = np.where(at_risk, score, -np.inf)
    places = np.maximum(1, np.round(top * at_risk.sum(1, keepdims=True)))
    above = stats.rankdata(-score, method="min", axis=1) - 1
    tied = stats.rankdata(-score, method="max", axis=1) - above
    return np.where(at_risk, np.clip((places - above) / tied, 0, 1), 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Fit:
    """Expected shares, and what they leave over.

    Attributes:
        share, expected: in top regions, mean over genes.
        log_ratio: of both. `left_out`: without each chromosome, fitted without it.
        over: share less expected, by region.
        score: top regions less what the covariates say of them.
    """

    share: Float[np.ndarray, " P"]
    expected: Float[np.ndarray, " P"]
    log_ratio: Float[np.ndarray, " P"]
    left_out: Float[np.ndarray, "K P"]
    over: Float[np.ndarray, "G N"]
    score: Float[np.ndarray, "P G N"]

    @classmethod
    def of(
        cls,
        data: _Genes,
        z: Float[np.ndarray, "P G N"],
        starts: Int[np.ndarray, " K"],
        basis: Float[np.ndarray, "G N Q"],
    ) -> "_Fit":
        Q = basis.shape[-1]
        ridge = _RIDGE * np.eye(Q)
        theta = np.zeros(Q)
        for _ in range(50):  # Newton's method; the penalised likelihood is concave
            chance, centred, slope, curvature = _moments(data, basis, theta, starts)
            step = np.linalg.solve(curvature.sum(0) + ridge, slope.sum(0) - _RIDGE * theta)
            # Far from the optimum a quadratic says little: at most e² in odds at a time.
            theta = theta + step * min(1, 2 / max(np.abs(step).max(initial=0), 1e-300))
            if np.abs(step).max(initial=0) < 1e-6:
                break
        chance, centred, slope, curvature = _moments(data, basis, theta, starts)
        z_centred = z - np.einsum("gn,pgn->pg", chance, z)[..., None]
        weighted = np.einsum("gn,pgn,gnq->qp", chance, z_centred, centred, optimize=True)
        gamma = np.linalg.solve(curvature.sum(0) + ridge, weighted)
        score = (z_centred - np.moveaxis(centred @ gamma, -1, 0)) * data.at_risk
        held = np.einsum("gn,pgn->gp", data.share, z)
        expected = np.einsum("gn,pgn->gp", chance, z)
        left_out = []
        for k, (first, last) in enumerate(zip(starts, [*starts[1:], len(z[0])], strict=True)):
            kept = np.r_[0:first, last : len(z[0])]
            if not len(kept):
                continue
            # One step of Newton's method from the optimum of all chromosomes.
            rest = curvature.sum(0) - curvature[k] + ridge
            without = _chances(data, basis, theta - np.linalg.solve(rest, slope[k]))
            without = np.einsum("gn,pgn->p", without[kept], z[:, kept])
            left_out.append(_log_ratio(held[kept].sum(0), without))
        return cls(
            share=held.mean(0),
            expected=expected.mean(0),
            log_ratio=_log_ratio(held.sum(0), expected.sum(0)),
            left_out=np.array(left_out).reshape(-1, len(z)),
            over=data.share - chance,
            score=score,
        )


def _error(
    genes: Float[np.ndarray, " K"], whole: Float[np.ndarray, " P"], left_out: np.ndarray
) -> Float[np.ndarray, " P"]:
    """Standard error of an estimate, from those without each chromosome (`left_out [K, P]`)."""
    if len(genes) < MIN_CHROMOSOMES:
        return np.full(len(whole), np.nan)
    weight = (genes / genes.sum())[:, None]
    with np.errstate(invalid="ignore"):
        # Values of the chromosomes whose weighted mean moves just so when one is left out.
        return jackknife((whole - left_out) * (1 - weight) / weight, genes)[1]


def _chances(
    data: _Genes, basis: Float[np.ndarray, "G N Q"], theta: Float[np.ndarray, " Q"]
) -> Float[np.ndarray, "G N"]:
    """Where a variant of each gene lies, by the conditional logit."""
    return special.softmax(data.exposure + basis @ theta, axis=1)


def _moments(
    data: _Genes,
    basis: Float[np.ndarray, "G N Q"],
    theta: Float[np.ndarray, " Q"],
    starts: Int[np.ndarray, " K"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chances, the basis centred within genes, and by chromosome slope and curvature of the
    log-likelihood (`[K, Q]`, `[K, Q, Q]`)."""
    chance = _chances(data, basis, theta)
    centred = basis - np.einsum("gn,gnq->gq", chance, basis)[:, None]
    slope = np.einsum("gn,gnq->gq", data.share - chance, basis)
    flat, parts = centred.reshape(chance.size, basis.shape[-1]), []
    for first, last in zip(starts, [*starts[1:], len(chance)], strict=True):
        rows = slice(first * chance.shape[1], last * chance.shape[1])
        parts.append(flat[rows].T @ (flat[rows] * chance.reshape(-1, 1)[rows]))
    return chance, centred, np.add.reduceat(slope, starts), np.array(parts)


def _log_ratio(held: np.ndarray, expected: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(held) - np.log(expected)


def _permute(
    data: _Genes,
    fits: list[_Fit],
    starts: Int[np.ndarray, " K"],
    permutations: int,
    seed: int,
    reading: Callable[[Iterable[int]], Iterable[int]],
) -> list[np.ndarray]:
    """For each fit, how many permutations reach the statistic of every predictor, `[P]`."""

    def statistic(fit: _Fit, over: Float[np.ndarray, "G N"]) -> Float[np.ndarray, " P"]:
        of_gene = np.einsum("gn,pgn->pg", over, fit.score)
        return _studentise(np.add.reduceat(of_gene, starts, axis=1))

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
    """A sum over chromosomes in units of its standard error; 0 where there is none to speak of."""
    squares = (of_chromosome**2).sum(1)
    there = squares > _ROUNDING**2
    return np.where(there, of_chromosome.sum(1) / np.sqrt(np.where(there, squares, 1)), 0)
