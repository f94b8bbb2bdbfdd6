"""How far cells agree on which assay predicts best, and what else goes with a good score.

Cells share their genes, so their scores share noise, and rankings look alike even where nothing
else is. Agreement is therefore measured between scores of different folds: other chromosomes,
predicted by other models.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Int

from epi2expr_jax.scores.intervals import score_cube, shared_units, weighted_mean
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore

PEAK_SHARE = 0.05  # of the windows, taken for those with signal
LEAST_FOLDS = 4  # of a number for agreement
LEAST_ASSAYS = 3
LEAST_CELLS_OF_P = 3  # of a p-value
PERMUTATIONS = 1000
_MEASURES = ["depth", "signal_to_noise"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far cells agree in what they score the assays.

    Attributes:
        value: 1 if, but for noise, assays differ in the same way in all cells; 0 if what sets them
            apart in one cell says nothing of another. NaN where it cannot be told.
        low, high: its interval, for these cells and assays, over folds.
        why: why there is no number, else empty.
    """

    value: float
    low: float
    high: float
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return (
                f"How far cells agree in the whole order of the assays cannot be told: {self.why}."
            )
        return (
            f"How alike the cells order the assays, apart from the noise of shared genes: "
            f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}; 1: alike, 0: "
            "nothing in common; an estimate can exceed 1)."
        )


def agreement(scores: pd.DataFrame, confidence: float = 0.95) -> Agreement:
    """The covariance of assays' scores between cells, in that within a cell.

    Both are taken between different folds, so that neither contains noise that folds or cells
    share. The interval is Fieller's (1954), over folds left out in turn.

    Args:
        scores: from `table.score_table`.
        confidence: of the interval.
    """

    def none(why: str) -> Agreement:
        return Agreement(np.nan, np.nan, np.nan, why)

    shared, _ = shared_units(score_cube(scores))
    if not shared.size or shared.sizes["cell"] < 2:
        return none("it takes two cells that have every assay")
    if shared.sizes["assays"] < LEAST_ASSAYS:
        return none(f"it takes {LEAST_ASSAYS} assays that every cell has")
    tested = shared.sel(metric="n").notnull().any(["cell", "assays", "seed"])
    if int(tested.sum("fold").max()) > 1:
        return none(
            "its folds test the same chromosomes (train with --cv=chromosomes_5, or another number)"
        )
    genes = shared.sel(metric="n", drop=True).fillna(0)
    means = shared.sel(metric="pearson", drop=True).weighted(genes).mean(["chrom", "seed"])
    whole = means.notnull().all(["cell", "assays"])
    by_fold = means.sel(fold=whole).transpose("cell", "assays", "fold").values
    F = by_fold.shape[2]
    if F < LEAST_FOLDS:
        return none(f"it takes {LEAST_FOLDS} folds that test every cell")
    between, within = _covariances(by_fold)
    without = np.array([_covariances(np.delete(by_fold, f, axis=2)) for f in range(F)])
    t2 = scipy.stats.t.isf((1 - confidence) / 2, F - 1) ** 2
    # Pseudo-values have F times, and their mean's covariance 1/F of, this covariance.
    vb, c, vw = (np.cov(without.T) * (F - 1) ** 2 / F)[[0, 0, 1], [0, 1, 1]] * t2
    a, b, rest = within**2 - vw, between * within - c, between**2 - vb
    if within <= 0 or a <= 0 or b**2 < a * rest:
        return none("assays differ too little within cells")
    reach = np.sqrt(b**2 - a * rest) / a
    return Agreement(between / within, b / a - reach, b / a + reach)


def _covariances(values: Float[np.ndarray, "C A F"]) -> tuple[float, float]:
    """Mean covariance over assays between different folds: of different cells, and of the same."""
    C, A, F = values.shape
    centred = values - values.mean(axis=1, keepdims=True)
    total = centred.sum(axis=2)
    products = total @ total.T - np.einsum("caf,daf->cd", centred, centred)  # of different folds
    products /= F * (F - 1) * (A - 1)
    same = np.trace(products)
    return float((products.sum() - same) / (C * (C - 1))), float(same / C)


def best_assays(ranked: pd.DataFrame) -> pd.DataFrame:
    """The assay with the highest score in every cell, and those that could equally be the best.

    Args:
        ranked: from `ranking.rank_assays`.

    Returns:
        Columns cell, assay, pearson, low, high, `rivals` (others that none is shown to beat),
        `n_assays` (how many there are), `beats_all` (whether it beats each of the others),
        `predicts` (whether that is shown: its simultaneous interval lies above 0), `note` (why
        there is no interval).
    """
    rows = []
    for cell, part in ranked.groupby("cell", sort=False):
        best = part.iloc[0]
        rivals = part["assay"][(part["rank_low"] == 1) & (part["assay"] != best["assay"])]
        row = {"cell": cell, **best[["assay", "pearson", "low", "high", "note"]].to_dict()}
        row |= {"predicts": bool(best["simultaneous_low"] > 0), "n_assays": len(part)}
        rows.append(row | {"rivals": ", ".join(rivals), "beats_all": best["rank_high"] == 1})
    names = ["cell", "assay", "pearson", "low", "high", "rivals", "n_assays", "beats_all",
             "predicts", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=pd.Index(names))


def track_quality(store: WindowStore, tracks: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Mean signal (`depth`) and signal-to-noise of tracks (cell, assay) in windows around TSSs.

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
    """Each single assay's score in each cell, with mean signal (`depth`) and signal-to-noise.

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


def quality_correlations(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Does an assay predict better in the cells where it was measured better?

    Tracks of a cell are not independent: cells differ as a whole, in how deep they were sequenced
    and in how well they can be predicted. p is therefore of permutations of whole cells, all of
    them or `PERMUTATIONS` at random; with three cells it is 1/6 or more.

    Args:
        table: from `score_against_quality`.
        seed: of the permutations.

    Returns:
        Columns assay ("all": over all tracks, within assay by its mean), measure, rho (Spearman), p
        (two-sided; NaN for fewer than three cells), tracks and cells.
    """
    log = {name: np.log(table[name].where(table[name] > 0)) for name in _MEASURES}
    table = table.assign(**log).replace([np.inf, -np.inf], np.nan)
    rows = []
    for assay, part in [(ALL, table), *table.groupby("assay")]:
        for measure in _MEASURES:
            grids = (part.dropna(subset=[measure]).pivot(index="cell", columns="assay", values=name)
                     for name in ("pearson", measure))  # fmt: skip
            score, quality = (grid.sub(grid.mean()).to_numpy() for grid in grids)
            C, there = len(score), np.isfinite(score)
            if C < 2 or np.ptp(quality[there]) == 0 or np.ptp(score[there]) == 0:
                continue
            drawn = _rank_correlations(score, quality, _orders(C, seed))
            rho, p = drawn[0], np.nan
            if C >= LEAST_CELLS_OF_P:
                p = np.mean(np.abs(drawn) >= abs(rho) - 1e-9)
            rows.append((assay, measure, rho, p, int(there.sum()), C))
    columns = ["assay", "measure", "rho", "p", "tracks", "cells"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _orders(C: int, seed: int) -> Int[np.ndarray, "P C"]:
    """All orders of so few cells, or some of those of more; the first is the one they have."""
    if math.factorial(C) <= PERMUTATIONS:
        return np.array(list(itertools.permutations(range(C))))
    random = np.random.default_rng(seed)
    return np.array([np.arange(C), *(random.permutation(C) for _ in range(PERMUTATIONS - 1))])


def _rank_correlations(
    score: Float[np.ndarray, "C A"],
    quality: Float[np.ndarray, "C A"],
    orders: Int[np.ndarray, "P C"],
) -> Float[np.ndarray, "P"]:
    """Correlation of ranks with the cells of `quality` in each order, over the tracks that have
    both; 0 where one does not vary."""
    x, y = (
        scipy.stats.rankdata(values, nan_policy="omit", axis=None) for values in (score, quality)
    )
    x, y = np.broadcast_arrays(x.reshape(score.shape), y.reshape(score.shape)[orders])
    both = np.isfinite(x) & np.isfinite(y)
    x, y = (np.where(both, values, 0).reshape(len(orders), -1) for values in (x, y))
    n, both = both.sum(axis=(1, 2)), both.reshape(len(orders), -1)
    x, y = (v - both * (v.sum(axis=1) / np.maximum(1, n))[:, None] for v in (x, y))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(size > 0, (x * y).sum(axis=1) / np.where(size > 0, size, 1), 0)
