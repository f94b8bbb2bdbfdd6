"""Is there a universal mark? How far cells agree on which assay predicts best, and why.

Agreement is Kendall's coefficient of concordance W (Kendall & Babington Smith 1939), corrected for
ties: 1 if all cells rank the assays alike, 0 if they have nothing in common.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from epi2expr_jax.genome import listing
from epi2expr_jax.scores.intervals import (
    MIN_CHROMOSOMES,
    jackknife,
    score_cube,
    shared_units,
    weighted_mean,
)
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore

PEAK_SHARE = 0.05  # of the windows, taken for those with signal


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far cells agree in their ranking of the assays.

    Attributes:
        w: Kendall's W of cells x assays, NaN for fewer than two cells or assays.
        low, high: its interval over chromosomes (delete-one jackknife-t, cut at 0 and 1): for these
            cells and assays, on other chromosomes. W counts ranks, so its interval is rough where
            assays tie; NaN for fewer than three chromosomes.
        cells, assays: how many of each.
    """

    w: float
    low: float
    high: float
    cells: int
    assays: int


def kendall_w(scores: Float[np.ndarray, "C A"]) -> float:
    """Kendall's W (0 to 1) of scores `[C A]`: C cells that each rank A assays; ties share ranks."""
    C, A = scores.shape
    if C < 2 or A < 2:
        return float("nan")
    ranks = stats.rankdata(scores, axis=1)
    squares = ((ranks.sum(axis=0) - C * (A + 1) / 2) ** 2).sum()
    ties = sum(
        (count**3 - count).sum()
        for count in (np.unique(row, return_counts=True)[1] for row in ranks)
    )
    most = C**2 * (A**3 - A) - C * ties
    return float("nan") if most == 0 else float(12 * squares / most)


def agreement(scores: pd.DataFrame, confidence: float = 0.95) -> Agreement:
    """Kendall's W over the cells that have every assay.

    Args:
        scores: from `table.score_table`.
        confidence: of the interval.
    """
    shared, _ = shared_units(score_cube(scores))
    if not shared.size:
        return Agreement(np.nan, np.nan, np.nan, 0, 0)
    means = shared.mean(["fold", "seed"]).transpose("metric", "chrom", "cell", "assays")
    # A chromosome that one cell lacks would compare cells on other genes.
    whole = means.sel(metric="pearson").notnull().all(["cell", "assays"]).values
    pearson = means.sel(metric="pearson").values[whole]
    genes = means.sel(metric="n").values[whole].mean(axis=(1, 2))
    K, C, A = pearson.shape
    if not K:
        return Agreement(np.nan, np.nan, np.nan, C, A)

    def w_of(kept: np.ndarray) -> float:
        return kendall_w(np.average(pearson[kept], axis=0, weights=genes[kept]))

    whole_w = w_of(np.ones(K, bool))
    low = high = np.nan
    if K >= MIN_CHROMOSOMES and np.isfinite(whole_w):
        without = np.array([w_of(np.arange(K) != k) for k in range(K)])
        # Pseudo-values; chromosomes of unequal size as in `ranking.jackknife`.
        odds = genes / (genes.sum() - genes)
        pseudo = whole_w + (whole_w - without) / odds
        error = jackknife(pseudo[:, None], genes)[1][0]
        reach = stats.t.isf((1 - confidence) / 2, K - 1) * error
        low, high = max(0.0, whole_w - reach), min(1.0, whole_w + reach)
    return Agreement(whole_w, low, high, C, A)


def best_assays(ranked: pd.DataFrame) -> pd.DataFrame:
    """The assay with the highest score in every cell, and those that could equally be the best.

    Args:
        ranked: from `ranking.rank_assays`.

    Returns:
        Columns cell, assay, pearson, low, high and rivals (assays that none is shown to beat).
    """
    rows = []
    for cell, part in ranked.groupby("cell", sort=False):
        best = part.iloc[0]
        rivals = part["assay"][(part["rank_low"] == 1) & (part["assay"] != best["assay"])]
        row = {"cell": cell, **best[["assay", "pearson", "low", "high"]].to_dict()}
        rows.append(row | {"rivals": ", ".join(rivals)})
    return pd.DataFrame(
        rows, columns=pd.Index(["cell", "assay", "pearson", "low", "high", "rivals"])
    )


def verdict(best: pd.DataFrame, agreed: Agreement) -> str:
    """Whether there is a universal mark, in a sentence or two."""
    cells = best[best["cell"] != ALL]
    if len(cells) < 2:
        return "With a single cell, nothing can be said of a universal mark."
    first = cells["assay"].value_counts()
    top, times = str(first.index[0]), int(first.iloc[0])
    may = sum(row.assay == top or top in str(row.rivals).split(", ") for row in cells.itertuples())
    if may == len(cells) and times == len(cells):
        words = f"{top} has the highest score in all {len(cells)} cells"
    else:
        words = f"{top} has the highest score in {times} of {len(cells)} cells"
        words += f", and may be the best in {may}" if may > times else ""
    alone = cells[(cells["assay"] == top) & (cells["rivals"] == "")]
    if may < len(cells):
        others = listing(sorted(set(cells["assay"]) - {top}))
        words = f"No universal mark: {words}" + (f" (elsewhere {others})" if others else "")
    elif len(alone) == len(cells):
        words = f"A universal mark, as far as these cells go: {words}, ahead of every other assay"
    else:
        words = f"No mark is ruled out as universal, and none is proved: {words}"
    if np.isfinite(agreed.w):
        words += f". Cells agree in their whole rankings with Kendall's W {agreed.w:.2f}"
        if np.isfinite(agreed.low):
            words += f" (95 % interval {agreed.low:.2f} to {agreed.high:.2f})"
    return words + "."


def track_quality(store: WindowStore, tracks: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Depth and signal-to-noise of tracks (cell, assay), from their windows around TSSs.

    Returns:
        Columns cell, assay, `depth` (mean over all genes' windows, in the track's unit) and
        `signal_to_noise` (mean of the 5 % of windows with most signal, in the median of the
        others: how far peaks rise above the rest; 0/0 is NaN).
    """
    rows = []
    for cell, assay in tracks:
        windows = np.sort(store.read_signal([cell], [assay])[0, 0].mean(axis=1, dtype=np.float64))
        peaks = max(1, round(PEAK_SHARE * len(windows)))
        rest = float(np.median(windows[:-peaks])) if len(windows) > peaks else np.nan
        height = float(windows[-peaks:].mean())
        ratio = height / rest if rest > 0 else (np.inf if height > 0 else np.nan)
        rows.append((cell, assay, float(windows.mean()), ratio))
    return pd.DataFrame(rows, columns=pd.Index(["cell", "assay", "depth", "signal_to_noise"]))


def score_against_quality(scores: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Each single assay's score in each cell, with its track's depth and signal-to-noise.

    Args:
        scores: from `table.score_table`.
        quality: from `track_quality`.

    Returns:
        Columns cell, assay, pearson, depth, signal_to_noise, one row a track that was scored.
    """
    cube = score_cube(scores)
    if not cube.size:
        columns = ["cell", "assay", "pearson", "depth", "signal_to_noise"]
        return pd.DataFrame(columns=pd.Index(columns))
    means = cube.mean(["fold", "seed"]).transpose("metric", "chrom", "cell", "assays")
    n, pearson = (means.sel(metric=name).values for name in ("n", "pearson"))
    genes = np.nan_to_num(np.nanmean(n.reshape(len(n), -1), axis=1))
    pearson = weighted_mean(pearson.reshape(len(n), -1), genes)
    both = np.meshgrid(cube["cell"], cube["assays"], indexing="ij")
    cell, assay = (part.ravel() for part in both)
    table = pd.DataFrame({"cell": cell, "assay": assay, "pearson": pearson}).dropna()
    return table.merge(quality, on=["cell", "assay"])


def quality_correlations(table: pd.DataFrame, least: int = 5) -> pd.DataFrame:
    """Does an assay predict better where it was measured better? Rank correlation over tracks.

    Args:
        table: from `score_against_quality`.
        least: fewer tracks are not correlated.

    Returns:
        Columns assay ("all": over all tracks, within assay by its mean), measure, rho, p
        (two-sided, of tracks taken as independent, which cells of one tissue are not), tracks.
    """
    rows = []
    centred = table.copy()
    for name in ("pearson", "depth", "signal_to_noise"):
        values = table[name].replace([np.inf, -np.inf], np.nan)
        if name != "pearson":
            values = values.where(values > 0).map(np.log)
        centred[name] = values - values.groupby(table["assay"]).transform("mean")
    for assay, part in [(ALL, centred), *table.groupby("assay")]:
        for measure in ("depth", "signal_to_noise"):
            whole = part[["pearson", measure]].replace([np.inf, -np.inf], np.nan).dropna()
            if len(whole) < least or whole[measure].nunique() < 2:
                continue
            rho, p = stats.spearmanr(whole["pearson"], whole[measure])
            rows.append((assay, measure, rho, p, len(whole)))
    return pd.DataFrame(rows, columns=pd.Index(["assay", "measure", "rho", "p", "tracks"]))
