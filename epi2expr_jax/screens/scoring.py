"""How well scores find the pairs that a screen found, with intervals.

Ties are one threshold. Intervals are those of the jackknife over chromosomes, since pairs of a
gene, and genes of a neighbourhood, share what makes them easy; the same over pairs is shown with
them. The trial of `tests/epi2expr_jax/screens/test_scoring.py` says how many such intervals cover
the truth. Each is of one number alone.

Axes: `N` pairs, `B` sets of weights, `K` groups of pairs that are left out in turn, `E` thresholds.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float

from epi2expr_jax.scores.intervals import effective_number

RECALL = 0.7  # at which precision is given
BINS = (0, 10_000, 40_000, 100_000, 250_000)  # bp from the TSS; the last has no end
LEAST_REGULATED = 20  # pairs found regulated, in a bin of its own
LEAST_GROUPS = 5
PAIR_GROUPS = 50  # random groups of pairs, for the jackknife over pairs
COLUMNS = [
    "pairs", "score", "n", "regulated", "average_precision", "low", "high", "low_pairs",
    "high_pairs", "above_chance", "precision_at_70", "auroc", "auroc_low", "auroc_high",
]  # fmt: skip
LEADS = [
    "pairs", "score", "rival", "lead", "low", "high", "low_pairs", "high_pairs", "auroc_lead",
    "auroc_low", "auroc_high",
]  # fmt: skip
# Of which pairs; what begins with the last is about pairs that a model reaches.
ALL, UNRAISED, REACH = "all pairs", "without significant increases", "in reach: "
SIZES = ["score", "n", "spearman", "small"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Found and true, from the highest score down, for each set of weights.

    Attributes:
        hits: weight of the regulated pairs at or above each threshold `[B E]`.
        called: weight of all pairs at or above it `[B E]`.
    """

    hits: Float[np.ndarray, "B E"]
    called: Float[np.ndarray, "B E"]

    @classmethod
    def of(
        cls,
        score: Float[np.ndarray, " N"],
        truth: Bool[np.ndarray, " N"],
        weights: Float[np.ndarray, "B N"],
    ) -> "Curve":
        order = np.argsort(-score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
        sorted_weights = weights[:, order]
        hits = np.cumsum(sorted_weights * truth[order], axis=1)[:, ends]
        return cls(hits, np.cumsum(sorted_weights, axis=1)[:, ends])

    @property
    def precision(self) -> Float[np.ndarray, "B E"]:
        return np.divide(
            self.hits, self.called, out=np.zeros_like(self.hits), where=self.called > 0
        )

    @property
    def average_precision(self) -> Float[np.ndarray, " B"]:
        """Precision at each threshold, weighted by what recall it adds; NaN without hits."""
        added = np.diff(self.hits, axis=1, prepend=0)
        total = (added * self.precision).sum(axis=1)
        return _ratio(total, self.hits[:, -1])

    @property
    def auroc(self) -> Float[np.ndarray, " B"]:
        """The chance that a regulated pair scores above another, ties half; NaN without both."""
        missed = self.called - self.hits
        added = np.diff(missed, axis=1, prepend=0)
        before = self.hits - np.diff(self.hits, axis=1, prepend=0) / 2
        return _ratio((added * before).sum(axis=1), self.hits[:, -1] * missed[:, -1])

    def precision_at(self, recall: float) -> Float[np.ndarray, " B"]:
        """Precision at the highest threshold that finds this share of the regulated pairs."""
        reached = self.hits >= recall * self.hits[:, -1:] * (1 - 1e-12)
        return self.precision[np.arange(len(self.hits)), reached.argmax(axis=1)]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def leave_out_interval(
    whole: float,
    without: Float[np.ndarray, " K"],
    share: Float[np.ndarray, " K"],
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of a statistic, whole groups of pairs left out in turn.

    Args:
        without: the statistic without each group.
        share: of all weight, that each group has.

    Returns:
        Its ends; NaN for fewer than `LEAST_GROUPS` groups, or if the statistic does not exist
        without some group.

    Source: the variance is that of the plain delete-one jackknife (Efron & Stein 1981), right
    where groups differ, and at most a little large where they do not. Degrees of freedom are one
    less than the number of equal groups that would be as uneven (Kish 1965): one chromosome with
    most pairs says little.
    """
    K = len(without)
    if K < LEAST_GROUPS:
        return np.nan, np.nan
    variance = (K - 1) / K * ((without - without.mean()) ** 2).sum()
    freedom = max(1.0, effective_number(share) - 1)
    reach = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return float(whole - reach), float(whole + reach)


class Scored:
    """Scores of the pairs of one subset: how good each is, and by how much one exceeds others.

    Args:
        label: which pairs.
        table: of `Pairs`, N rows.
        scores: by name, `[N]` each.
        chosen: the subset.
        weights: of the pairs; 1 each where None.
        seed: of the random groups of pairs.
    """

    def __init__(
        self,
        label: str,
        table: pd.DataFrame,
        scores: Mapping[str, Float[np.ndarray, " N"]],
        chosen: Bool[np.ndarray, " N"],
        weights: Float[np.ndarray, " N"] | None = None,
        seed: int = 0,
    ):
        n = int(chosen.sum())
        own = np.ones(n) if weights is None else weights[chosen]
        truth = table["regulated"].to_numpy(bool)[chosen]
        chromosomes = pd.factorize(table["chrom"].to_numpy()[chosen], sort=True)[0]
        pairs = np.random.default_rng(seed).permutation(n) % PAIR_GROUPS
        groups = [chromosomes == k for k in range(chromosomes.max(initial=-1) + 1)]
        self._K = len(groups)
        groups += [pairs == k for k in range(min(n, PAIR_GROUPS))]
        left_out = np.array(groups)  # [K+P N]
        weighted = np.concatenate([own[None], own * ~left_out])
        self._share = (own * left_out).sum(axis=1) / own.sum()
        self._chance = float((own * truth).sum() / own.sum())
        self.label, self.n, self.regulated = label, n, int(truth.sum())
        curves = {
            name: Curve.of(values[chosen], truth, weighted) for name, values in scores.items()
        }
        self._precision = {name: curve.average_precision for name, curve in curves.items()}
        self._area = {name: curve.auroc for name, curve in curves.items()}
        self._at_recall = {name: curve.precision_at(RECALL)[0] for name, curve in curves.items()}

    def _intervals(self, values: Float[np.ndarray, " B"]) -> tuple[float, ...]:
        """Low and high over chromosomes, and over pairs, of a statistic with its replicates."""
        K, whole, without = self._K, float(values[0]), values[1:]
        return (
            *leave_out_interval(whole, without[:K], self._share[:K]),
            *leave_out_interval(whole, without[K:], self._share[K:]),
        )

    def rows(self) -> pd.DataFrame:
        """One row a score, with columns `COLUMNS`."""
        rows = []
        for name, precision in self._precision.items():
            area = self._area[name]
            above = (precision[0] - self._chance) / (1 - self._chance)
            rows.append(
                (
                    *(self.label, name, self.n, self.regulated, precision[0]),
                    *np.clip(self._intervals(precision), 0, 1),
                    *(above, self._at_recall[name], area[0]),
                    *np.clip(self._intervals(area)[:2], 0, 1),
                )
            )
        return pd.DataFrame(rows, columns=pd.Index(COLUMNS))

    def leads(self, of: str) -> pd.DataFrame:
        """By how much one score exceeds each other, paired; one row a rival, columns `LEADS`."""
        rows = []
        for rival in self._precision:
            if rival != of:
                precision = self._precision[of] - self._precision[rival]
                area = self._area[of] - self._area[rival]
                rows.append(
                    (
                        *(self.label, of, rival, precision[0], *self._intervals(precision)),
                        *(area[0], *self._intervals(area)[:2]),
                    )
                )
        return pd.DataFrame(rows, columns=pd.Index(LEADS))


def distance_bins(
    distance: Float[np.ndarray, " N"], regulated: Bool[np.ndarray, " N"]
) -> dict[str, Bool[np.ndarray, " N"]]:
    """Pairs by their distance, in kb; a bin of fewer than `LEAST_REGULATED` regulated pairs joins
    the next one, the last the one before it."""
    edges = [*BINS, np.inf]
    kept = [0.0]
    for high in edges[1:]:
        inside = (distance >= kept[-1]) & (distance < high)
        if regulated[inside].sum() >= LEAST_REGULATED:
            kept.append(high)
        elif np.isinf(high) and len(kept) > 1:
            kept[-1] = high
    if np.isfinite(kept[-1]):
        kept.append(np.inf)
    return {
        f"{low / 1000:g} to {high / 1000:g} kb" if np.isfinite(high) else f"over {low / 1000:g} kb":
        (distance >= low) & (distance < high)
        for low, high in itertools.pairwise(kept)
    }  # fmt: skip


def sizes(
    table: pd.DataFrame, scores: Mapping[str, Float[np.ndarray, " N"]], small: float = 0.1
) -> pd.DataFrame:
    """Spearman correlation of scores and measured losses, among regulated pairs.

    Pairs are there because their effect was found significant: small true effects are in the table
    only where noise made them larger (the winner's curse), so the correlation is not that of true
    sizes.

    Returns:
        One row a score, with columns `SIZES`; `small` is the share of these pairs whose change is
        smaller than `small`.
    """
    chosen = (table["regulated"] & table["change"].notna()).to_numpy()
    loss = -table["change"].to_numpy(float)[chosen]
    few = float((np.abs(loss) < small).mean()) if len(loss) else np.nan
    rows = []
    for name, values in scores.items():
        varies = len(loss) > 2 and len(set(loss)) > 1 and len(set(values[chosen])) > 1
        rho = scipy.stats.spearmanr(values[chosen], loss)[0] if varies else np.nan
        rows.append((name, len(loss), rho, few))
    return pd.DataFrame(rows, columns=pd.Index(SIZES))
