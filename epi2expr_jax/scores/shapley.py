"""What each assay adds: exact Shapley values of the scores of all subsets of assays.

An assay's value is the gain in score when it joins others, averaged over all orders in which assays
may join (Shapley 1953; the score as the game: Covert, Lundberg & Lee, NeurIPS 2020, section 3).
Values sum to the score of all assays together; an assay that adds nothing gets 0, and two assays
with the same information share their credit. They are linear in the scores, so the mean over
chromosomes of values is the value of mean scores, and the chromosome jackknife of `intervals` gives
their intervals.

The target of the intervals is that of `ranking`. Values describe what models predict from, not what
regulates a gene.

Axes: `K` chromosomes, `S` subsets (rows of `masking.every_subset`), `A` assays.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from jaxtyping import Float

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.masking import every_subset
from epi2expr_jax.scores.intervals import clip_interval, jackknife, no_interval, usable
from epi2expr_jax.scores.table import ALL

INTERVALS = ["low", "high", "simultaneous_low", "simultaneous_high", "n_chromosomes", "note"]


def shapley_values(scores: Float[np.ndarray, "K S"]) -> Float[np.ndarray, "K A"]:
    """Exact Shapley values, game by game.

    Args:
        scores: `[K S]` of every subset, in the order of `masking.every_subset`.

    Returns:
        `[K A]` in the unit of the scores; they sum to the score of all assays less that of none.

    Raises:
        InputError: if the number of subsets is not a power of two.
    """
    count = scores.shape[1]
    assays = count.bit_length() - 1
    if count != 2**assays:
        raise InputError(
            "scores", f"{count} subsets", "2^A of them", "score every subset, and none"
        )
    present = every_subset(assays)
    others = present.sum(1, keepdims=True) - present
    weight = 1 / (assays * scipy.special.comb(assays - 1, others))
    return scores @ np.where(present, weight, -weight)


def attribute(scores: xr.Dataset, confidence: float = 0.95) -> pd.DataFrame:
    """Shapley values of the assays in every cell, and over the cells under the name "all".

    Args:
        scores: from `subsets.subset_scores`.
        confidence: of every interval, between 0 and 1.

    Returns:
        One row a cell and assay, "all" first, the most valuable assay first: cell, assay, `value`
        (in units of Pearson r), `low` and `high` for the assay alone, `simultaneous_low` and
        `simultaneous_high` for all assays of the cell together (Bonferroni), n_chromosomes, and
        `note`: why there is no interval.
    """
    tables = []
    for cell, values, genes in _games(scores):
        table = _intervals("value", shapley_values(values), genes, confidence)
        table.insert(0, "assay", scores.attrs["assays"])
        table.insert(0, "cell", cell)
        tables.append(table.sort_values("value", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def subset_table(scores: xr.Dataset, confidence: float = 0.95) -> pd.DataFrame:
    """The score of every subset in every cell, and over the cells under the name "all".

    Returns:
        One row a cell and subset that is not empty, the best first: cell, subset (`A+B`), size,
        pearson, and intervals as in `attribute`, simultaneous over all subsets of the cell.
    """
    names, sizes = _names(scores), every_subset(len(scores.attrs["assays"])).sum(1)
    tables = []
    for cell, values, genes in _games(scores):
        table = _intervals("pearson", values[:, 1:], genes, confidence)
        table.insert(0, "size", sizes[1:])
        table.insert(0, "subset", names[1:])
        table.insert(0, "cell", cell)
        tables.append(table.sort_values("pearson", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def _names(scores: xr.Dataset) -> list[str]:
    """Every subset as `A+B`."""
    assays = np.array(scores.attrs["assays"], object)
    return ["+".join(assays[row]) for row in every_subset(len(assays))]


def _games(
    scores: xr.Dataset,
) -> Iterator[tuple[str, Float[np.ndarray, "K S"], Float[np.ndarray, " K"]]]:
    """Each cell, and all of them: its scores and genes on the chromosomes that carry weight.

    Folds and seeds are averaged within a chromosome, then cells: each counts the same.
    """
    by_cell = scores.groupby("cell").mean("run")
    parts = {ALL: by_cell.mean("cell")}
    parts |= {str(cell): by_cell.sel(cell=cell) for cell in by_cell["cell"].values}
    for cell, part in parts.items():
        kept = part.isel(chrom=part["genes"].notnull().values)
        if kept.sizes["chrom"]:
            yield cell, kept["pearson"].transpose("chrom", "subset").values, kept["genes"].values


def _intervals(
    name: str,
    values: Float[np.ndarray, "K X"],
    genes: Float[np.ndarray, " K"],
    confidence: float,
) -> pd.DataFrame:
    """Means over chromosomes, with intervals for each and for all of them."""
    mean, error = jackknife(values, genes)
    K, X = values.shape
    note = no_interval(genes, correlation=True)
    if note:
        error = np.full_like(error, np.nan)
    most = 1.0 if name == "pearson" else np.inf  # a share is a sum of differences
    tails = scipy.stats.t.isf((1 - confidence) / 2 / np.array([1, X]), K - 1)
    bounds = [end for t in tails for end in clip_interval(mean, t * error, -most, most)]
    columns = dict(zip(INTERVALS, [*bounds, K, note], strict=True))
    return pd.DataFrame({name: mean, **columns})


def compare_with_trained(scores: xr.Dataset, trained: pd.DataFrame) -> pd.DataFrame:
    """Scores of a masked-mark model, and those of models trained on each subset alone.

    Args:
        scores: from `subsets.subset_scores`.
        trained: of the others, from `table.score_table`, on the same store and folds.

    Returns:
        One row a cell and subset that both have: cell, subset, size, `masked` and `trained`
        (Pearson r over the cells, folds and chromosomes that both have). "all" averages over the
        cells, of the subsets that every one of them has. Empty if nothing is shared.
    """
    unit = ["cell", "fold", "chrom", "subset"]
    alone = trained.loc[usable(trained)].rename(columns={"assays": "subset", "pearson": "trained"})
    alone = alone.groupby(unit, as_index=False)[["trained", "n"]].mean()
    names = _names(scores)
    shared = [i for i, name in enumerate(names) if name in set(alone["subset"])]
    table = scores["pearson"].isel(subset=shared).to_series().rename("masked").reset_index()
    for axis in ("cell", "fold"):
        table[axis] = table["run"].map(scores[axis].to_series())
    table["subset"] = table["subset"].map(dict(enumerate(names)))
    table = table.dropna().groupby(unit, as_index=False)["masked"].mean()
    both = table.merge(alone, on=unit)
    both = both.groupby(["cell", "chrom", "subset"], as_index=False)[["masked", "trained", "n"]]
    both = both.mean()
    cells = both.groupby("subset")["cell"].transform("nunique") == both["cell"].nunique()
    over_cells = both[cells].groupby(["chrom", "subset"], as_index=False)
    over_cells = over_cells[["masked", "trained", "n"]].mean().assign(cell=ALL)
    rows = []
    for part in (over_cells, both):
        for (cell, subset), own in part.groupby(["cell", "subset"]):
            mean = {side: np.average(own[side], weights=own["n"]) for side in ("masked", "trained")}
            rows.append({"cell": cell, "subset": subset, "size": subset.count("+") + 1, **mean})
    return pd.DataFrame(rows, columns=["cell", "subset", "size", "masked", "trained"])


def rank_correlation(compared: pd.DataFrame) -> pd.DataFrame:
    """How well the two scores of `compare_with_trained` correlate.

    Returns:
        One row a cell: cell, subsets, `spearman` and `pearson` correlation over subsets (NaN for
        fewer than three, or if all score the same), `difference` (mean of masked less trained) and
        `largest` (of the absolute differences).
    """
    rows = []
    for cell, part in compared.groupby("cell", sort=False):
        masked, trained = part["masked"].to_numpy(), part["trained"].to_numpy()
        enough = len(part) >= 3 and np.ptp(masked) > 0 and np.ptp(trained) > 0
        gap = masked - trained
        rows.append(
            {
                "cell": cell,
                "subsets": len(part),
                "spearman": scipy.stats.spearmanr(masked, trained)[0] if enough else np.nan,
                "pearson": scipy.stats.pearsonr(masked, trained)[0] if enough else np.nan,
                "difference": gap.mean(),
                "largest": np.abs(gap).max(),
            }
        )
    columns = ["cell", "subsets", "spearman", "pearson", "difference", "largest"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
