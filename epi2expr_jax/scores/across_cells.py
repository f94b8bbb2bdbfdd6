"""Models tested in cells they were not trained on, compared with a baseline without epigenomes.

A gene's expression hardly differs between most cells, so the mean of the other cells predicts it
well (Schreiber et al., Genome Biol 2020) and any cross-cell claim must be compared with it. What is
specific to a cell is its deviation from the mean of the cells, so models are also scored on that:
the predicted deviation is a model's prediction in this cell less the mean of its predictions in all
cells.

Test genes lie on chromosomes that the model saw in no cell.

Between two cells, or conditions, the difference of a model's predictions is compared with no change
and with what the difference of promoter means tells (`score_changes`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.scores.intervals import (
    clip_interval,
    jackknife,
    least_error,
    no_interval,
    require_usable,
    score_cube,
    shared_units,
)
from epi2expr_jax.scores.table import ALL, score_table

KEY = ["assays", "trained_on", "cell"]
COLUMNS = [
    *KEY, "seen", "pearson", "low", "high", "baseline", "lead", "lead_low", "lead_high",
    "deviation", "deviation_low", "deviation_high", "n_genes", "n_chromosomes",
]  # fmt: skip
_SIDES = ("model", "baseline", "deviation")
CHANGE_KEY = ["cell", "other", "assays", "trained_on"]
CHANGE_COLUMNS = [
    *CHANGE_KEY, "pearson", "low", "high", "promoter", "lead", "lead_low", "lead_high",
    "mse", "no_change", "less", "less_low", "less_high", "n_genes", "n_chromosomes",
]  # fmt: skip


def score_across_cells(predictions: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Score every model in every cell it was tested in.

    Args:
        predictions: held-out genes, one row a run, tested cell and gene, in log2(RPKM + 1), with
            the columns of `table.score_table` and `trained_on`: the cell, or pool of cells, of
            the run; `cell` is the one tested in. Genes without a value in all tested cells have no
            deviation.
        confidence: of every interval.

    Returns:
        One row an assay set, `trained_on` and `cell`, with columns `COLUMNS`: `pearson` within run
        and chromosome; `baseline`, that of the mean expression of the gene in all other cells, and
        `lead`, by how much the model exceeds it, paired by chromosome; `deviation`, Pearson r of
        the predicted and observed deviation from the mean over cells. `seen` says whether the model
        was trained on that cell (on other chromosomes). Intervals by chromosome jackknife-t for one
        row each, NaN where `intervals.no_interval` says why.

    Raises:
        InputError: for fewer than two tested cells, or predictions that cannot be scored.
    """
    cells = sorted(set(predictions["cell"]))
    if len(cells) < 2:
        raise InputError(
            "predictions",
            f"a single cell ({', '.join(cells)})",
            "two cells or more to compare",
            "evaluate in more cells, or build a store that has them",
        )
    sides = _sides(predictions)
    tables = []
    for side in _SIDES:
        if len(table := _as_side(sides, side)):
            tables.append(_scores(table).assign(side=side))
    scores = pd.concat(tables, ignore_index=True)
    require_usable(scores[scores["side"] == "model"])
    rows = []
    for (assays, trained_on, cell), part in scores.groupby(KEY):
        means = _means(part)
        if means.size:  # else too few genes
            row = _interval_row(means, confidence)
            rows.append({"assays": assays, "trained_on": trained_on, "cell": cell, **row})
    table = pd.DataFrame(rows)
    members = table["trained_on"].str.split("+")
    table["seen"] = [
        cell == name or cell in names
        for cell, name, names in zip(table["cell"], table["trained_on"], members, strict=True)
    ]
    return table[COLUMNS]


def _sides(predictions: pd.DataFrame) -> pd.DataFrame:
    """Each prediction with the baseline's, and both deviations from the mean of the cells."""
    observed = predictions.drop_duplicates(["cell", "gene_id"])
    observed = observed.pivot(index="gene_id", columns="cell", values="observed")
    number = observed.notna().sum(axis=1) - 1
    others = (-observed).add(observed.sum(axis=1), axis=0).div(number.where(number > 0), axis=0)
    gene = observed.index.get_indexer(pd.Index(predictions["gene_id"]))
    cell = observed.columns.get_indexer(pd.Index(predictions["cell"]))
    run = ["trained_on", "assays", "fold", "seed", "gene_id"]
    by_gene = predictions.groupby(run)["predicted"]
    everywhere = by_gene.transform("size") == observed.shape[1]
    return predictions.assign(
        model=predictions["predicted"],
        baseline=others.to_numpy()[gene, cell],
        deviation=(predictions["predicted"] - by_gene.transform("mean")).where(everywhere),
        observed_deviation=predictions["observed"] - observed.mean(axis=1).to_numpy()[gene],
    )


def _as_side(sides: pd.DataFrame, side: str) -> pd.DataFrame:
    """Rows of `_sides` that have this prediction, with the columns of `score_table`."""
    table = sides.loc[sides[side].notna()].assign(predicted=sides[side])
    if side == "deviation":
        table = table.assign(observed=table["observed_deviation"])
    # Here the raw scale is log2 as well.
    return table.assign(observed_raw=table["observed"], predicted_raw=table["predicted"])


def score_changes(
    predictions: pd.DataFrame, promoters: pd.DataFrame, between: Sequence[str]
) -> pd.DataFrame:
    """How well the difference between a model's predictions in two cells tells that of expression.

    Args:
        predictions: as for `score_across_cells`, with `run_id`.
        promoters: run_id, gene_id and `promoter`, what the difference of promoter means tells.
        between: the two cells. A difference is the first less the second, in log2(RPKM + 1).

    Returns:
        One row an assay set and `trained_on`, best first, with columns `CHANGE_COLUMNS`: `pearson`
        of predicted and observed differences within run and chromosome, `promoter` that of the
        promoters, and `lead` over it; `mse`, the mean squared error, `no_change` that of 0 for all
        genes, and `less`, by how much the former is less. Intervals as from `compare_models`: those
        of all leads hold together, and those of all that is less.

    Raises:
        InputError: if no model was tested in both cells.
    """
    run = ["trained_on", "assays", "fold", "seed", "run_id", "gene_id", "chrom"]
    first, second = (
        predictions[predictions["cell"] == cell].set_index(run)[["observed", "predicted"]]
        for cell in between
    )
    table = (first - second).dropna().reset_index().merge(promoters, on=["run_id", "gene_id"])
    if table.empty:
        found = f"no model that reads tracks of both {' and '.join(between)}"
        raise InputError("--between", found, "cells that share assays", "name two that do")
    # A model is told from others by what it reads and where it was trained.
    table = table.assign(assays=table["assays"] + "\x1f" + table["trained_on"], cell="change")
    scores = {}
    for side in ("promoter", "predicted", "none"):
        own = table.assign(predicted=0.0 if side == "none" else table[side])
        own = own.assign(observed_raw=own["observed"], predicted_raw=own["predicted"])
        scores[side] = score_table(own)

    def compared(rival: str, score: Callable[[pd.DataFrame], pd.Series]) -> list[pd.DataFrame]:
        sides = {side: t.assign(pearson=score(t)) for side, t in scores.items()}
        rows = compare_models({side: sides[side] for side in (rival, "predicted")})
        rows = rows[rows["assay"] != ALL].set_index("assay")
        return [rows[rows["model"] == side] for side in ("predicted", rival)]

    made, promoter = compared("promoter", lambda t: t["pearson"])
    less, none = compared("none", lambda t: -t["mse"])  # of which more is better
    made = made.assign(
        promoter=promoter["pearson"], mse=-less["pearson"], no_change=-none["pearson"],
        less=less["lead"], less_low=less["lead_low"], less_high=less["lead_high"],
        cell=between[0], other=between[1],
    )  # fmt: skip
    names = made.index.str.split("\x1f", expand=True).to_frame(index=False)
    made = made.reset_index(drop=True).assign(assays=names[0], trained_on=names[1])
    return made.sort_values("pearson", ascending=False, ignore_index=True)[CHANGE_COLUMNS]


def score_deviations(predictions: pd.DataFrame) -> pd.DataFrame:
    """`table.score_table` of what is a cell's own: predicted against observed deviation from the
    mean of the cells that an assay set was tested in, by models of one cell each.

    Empty where no assay set was tested in two cells.
    """
    tables = []
    for _, part in predictions.groupby("assays"):
        if part["cell"].nunique() > 1:
            tables.append(_as_side(_sides(part.assign(trained_on="")), "deviation"))
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return score_table(rows) if len(rows) else rows


def _scores(table: pd.DataFrame) -> pd.DataFrame:
    """Scores within run and chromosome; where a model was trained is part of what it is."""
    keys = table["trained_on"] + "\x1f" + table["cell"]
    scores = score_table(table.assign(cell=keys))
    parts = scores["cell"].str.split("\x1f", expand=True)
    return scores.assign(trained_on=parts[0], cell=parts[1])


def _means(part: pd.DataFrame) -> xr.DataArray:
    """Scores `[metric, chrom, side]` of one model in one cell, where all sides have one."""
    # The sides as assay sets of a score cube: paired on the units that all of them have.
    cube, _ = shared_units(score_cube(part.assign(assays=part["side"])))
    if not cube.size or cube.sizes["assays"] < len(_SIDES):
        cube, _ = shared_units(score_cube(part[part.side != "deviation"].assign(
            assays=part["side"])))  # fmt: skip
    if not cube.size:
        return cube
    return cube.mean(["fold", "seed", "cell"]).transpose("metric", "chrom", "assays")


def _interval_row(means: xr.DataArray, confidence: float) -> dict[str, float]:
    genes = means.sel(metric="n").values.mean(axis=1)
    K = len(genes)
    reach = np.full(4, scipy.stats.t.isf((1 - confidence) / 2, max(1, K - 1)))
    if no_interval(genes, correlation=True):
        reach[:3] = np.nan  # leads hardly depend on how many genes there are
    pearson = means.sel(metric="pearson")
    columns = {side: pearson.sel(assays=side).values if side in pearson["assays"] else
               np.full(K, np.nan) for side in _SIDES}  # fmt: skip
    stacked = np.stack(
        [*(columns[side] for side in _SIDES), columns["model"] - columns["baseline"]], axis=1
    )
    score, error = jackknife(stacked, genes)
    error[:3] = np.maximum(error[:3], least_error(score[:3], genes))
    low, high = score - reach * error, score + reach * error
    low[:3], high[:3] = clip_interval(score[:3], (reach * error)[:3])
    return {
        "pearson": score[0], "low": low[0], "high": high[0],
        "baseline": score[1],
        "lead": score[3], "lead_low": low[3], "lead_high": high[3],
        "deviation": score[2], "deviation_low": low[2], "deviation_high": high[2],
        "n_genes": round(genes.sum()), "n_chromosomes": K,
    }  # fmt: skip
