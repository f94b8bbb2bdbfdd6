"""Which assay predicts expression best, and how sure that is.

A score is computed within one model and one chromosome, never over the pooled predictions of
several models: models differ in their mean, and pooling turns that into correlation. Chromosomes
are the unit of uncertainty: genes of one chromosome share neighbourhoods, batches and biases, so
genes are not independent, and cells share their genes, so neither are cells. Folds, seeds and then
cells are therefore averaged within a chromosome, which also pairs all assays, and chromosomes are
combined, weighted by their genes, with a delete-one-chromosome jackknife (`jackknife`) and
Student's t.

Simultaneous intervals share out the error (Bonferroni). A bootstrap of the largest t would be
narrower where assays are correlated, but must estimate their correlation: from three chromosomes it
cannot, and its intervals are too short. Bonferroni holds whatever the correlation.

The target of every interval is these cells, these genomes and models trained in this way, on other
chromosomes like these. For a new cell like these, the variance between cells is added and Student's
t has one degree of freedom less than there are cells (at least five are needed); what a cell and a
chromosome have in common counts twice, which makes these intervals a little too wide.

Seeds are averaged: an interval applies to the mean of so many trainings, whose noise it contains;
`training_sd` says by how much the score of a single training varies. Of a single seed nobody knows.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from jaxtyping import Float

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.intervals import (
    ONE_VALUE,
    UNIT,
    chromosome_means,
    clip_interval,
    estimate,
    no_interval,
    predicts_one_value,
    score_cube,
    shared_units,
    training_scores,
    weighted_mean,
)
from epi2expr_jax.scores.table import ALL, BOTH, METRICS, QUESTIONS

NO_ANSWER = "it is not shown to answer either question"
LEAST_CELLS = 5  # for a statement on a new one
TARGETS = ("these cells", "a new cell")

COLUMNS = [
    *["cell", "assay", "rank", "pearson", "low", "high", "simultaneous_low", "simultaneous_high"],
    *["spearman", "spearman_low", "spearman_high", "r2", "mse", "auc", "pearson_raw"],
    *["n_genes", "n_chromosomes", "n_folds", "n_cells", "constant_share"],
    *["training_sd", "rank_low", "rank_high", "note"],
]
QUESTION_COLUMNS = [
    *["threshold", "question", "cell", "assay", "rank", "score", "low", "high"],
    *["simultaneous_low", "simultaneous_high", "rank_low", "rank_high", "rmse"],
    *["n_genes", "n_chromosomes", "note"],
]


def rank_assays(
    scores: pd.DataFrame, confidence: float = 0.95, target: str = TARGETS[0]
) -> pd.DataFrame:
    """Rank the assays within every cell, and over the cells under the name "all".

    Assays are compared on the same units (cell, fold, seed, chromosome): those that every assay
    has. A cell that lacks an assay is so left out of "all", and a run that failed takes its
    chromosomes out of the comparison in its cell; `caveats` names both. Where nothing is shared
    there is no row.

    Args:
        scores: from `score_table`.
        confidence: of every interval, between 0 and 1.
        target: of the intervals over all cells: `these cells`, or `a new cell` like them.

    Returns:
        One row per cell and assay with columns `COLUMNS`, "all" first, best first. `low`, `high`
        hold for the assay alone, `simultaneous_low`, `simultaneous_high` for all assays of the
        cell together, all four on Pearson r; `rank_low`, `rank_high` bound the ranks of all assays
        together, from simultaneous intervals of the pairwise differences (Mogstad et al. 2024).
        Intervals are NaN where `note` says why (`intervals.no_interval`, `ONE_VALUE`), and cut at
        -1 and 1 (`intervals.clip_interval`). r2, mse, auc and pearson_raw are means without.
        `constant_share`: of the scores, how many are 0 because the prediction is constant.

    Raises:
        InputError: if confidence is not between 0 and 1, the target is unknown, or there are too
            few cells to draw conclusions about a new one.
    """
    if not 0 < confidence < 1:
        expected = "a number between 0 and 1"
        raise InputError("confidence", str(confidence), expected, "give 0.95, say")
    if target not in TARGETS:
        raise InputError("target", target, " or ".join(TARGETS), "choose one of these")
    cube = score_cube(scores)
    new = target == TARGETS[1]
    if new and (cells := cells_in_common(scores)) < LEAST_CELLS:
        found = f"{cells} cells with every assay"
        remedy = "limit conclusions to these cells, or train on more"
        raise InputError(f"target: {target}", found, f"at least {LEAST_CELLS}", remedy)
    parts = {ALL: cube} | {str(cell): cube.sel(cell=[cell]) for cell in cube["cell"].values}
    tables = []
    for cell, part in parts.items():
        shared, _ = shared_units(part)
        if shared.size:
            tables.append(_rank_group(cell, shared, confidence, new and cell == ALL))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({}, columns=COLUMNS)


def rank_questions(scores: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Rank the assays by each of two questions: is a gene on, how much do those that are express?

    Args:
        scores: from `table.score_questions`.

    Returns:
        One row a threshold, question, cell and assay with columns `QUESTION_COLUMNS`: `score` is
        the AUC for `on`, Spearman's rho for `level`, Pearson r on all genes for `table.BOTH`, the
        latter two with `rmse` in log2(expression + 1). Intervals and rank sets as from
        `rank_assays`, those of the two questions of a threshold together (each has half the error),
        those of `BOTH` by themselves, and none where the assay is not shown to answer either
        question (of what is fitted to chance they would cover in 88 %, simulated). A rho among
        genes that are on is conditioned on the outcome: its size cannot be compared with that of a
        correlation over all genes.
    """
    tables = []
    by = ["threshold", "question"]
    for (threshold, question), own in scores.groupby(by) if len(scores) else ():
        # What is ranked goes by the name of Pearson r there.
        own = own.assign(pearson=own[QUESTIONS.get(str(question), "pearson")])
        parts = 1 if question == BOTH else len(QUESTIONS)
        ranked = rank_assays(own, 1 - (1 - confidence) / parts).assign(
            threshold=str(threshold), question=str(question)
        )
        rmse = np.nan if question == "on" else np.sqrt(ranked["mse"].astype(float))
        tables.append(ranked.rename(columns={"pearson": "score"}).assign(rmse=rmse))
    if not tables:
        return pd.DataFrame({}, columns=pd.Index(QUESTION_COLUMNS))
    found = pd.concat(tables, ignore_index=True)[QUESTION_COLUMNS]
    auc, ends = found["question"] == "on", ["low", "high", "simultaneous_low", "simultaneous_high"]
    found.loc[auc, ends] = found.loc[auc, ends].clip(0, 1)
    chance = found["question"].map({"on": 0.5, "level": 0.0})  # none of `BOTH`
    key = ["threshold", "cell", "assay"]
    answers = pd.MultiIndex.from_frame(found.loc[found["simultaneous_low"] > chance, key])
    idle = (found["question"] == BOTH) & ~pd.MultiIndex.from_frame(found[key]).isin(answers)
    found.loc[idle, ends] = np.nan
    found.loc[idle & (found["note"] == ""), "note"] = NO_ANSWER
    return found


def without_each(scores: pd.DataFrame, cell: str, confidence: float = 0.95) -> pd.DataFrame:
    """The rows of `rank_assays` for one cell, or `ALL`, without each chromosome in turn.

    Returns:
        Columns chrom, assay, `pearson` on that chromosome alone, and of all others simultaneous_low
        and simultaneous_high; where these have no interval, or there is one chromosome, no row.
    """
    cube = score_cube(scores)
    shared, _ = shared_units(cube if cell == ALL else cube.sel(cell=[cell]))
    tables = []
    for chrom in shared["chrom"].values if shared.size else ():
        rest = shared.sel(chrom=shared["chrom"] != chrom)
        if rest.sizes["chrom"]:
            alone = chromosome_means(shared).sel(metric="pearson", chrom=chrom)
            table = _rank_group(cell, rest, confidence).assign(chrom=str(chrom))
            tables.append(table.assign(pearson=alone.sel(assays=list(table["assay"])).values))
    names = ["chrom", "assay", "pearson", "simultaneous_low", "simultaneous_high"]
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({}, columns=names)
    return found.loc[found["simultaneous_low"].notna(), names]


def cells_in_common(scores: pd.DataFrame) -> int:
    """How many cells "all" averages over."""
    shared, _ = shared_units(score_cube(scores))
    return shared.sizes["cell"] if shared.size else 0


def _rank_group(
    cell: str, shared: xr.DataArray, confidence: float, new_cell: bool = False
) -> pd.DataFrame:
    """The rows of one cell, or of all of them."""
    means = chromosome_means(shared)
    value = dict(zip(means["metric"].values, means.values, strict=True))  # each [K, A]
    genes = value["n"].mean(axis=1)
    K, A = value["pearson"].shape
    tail, pairs = (1 - confidence) / 2, max(1, A * (A - 1) // 2)
    of_cells = _cell_means(shared) if new_cell else {}
    note = no_interval(genes, correlation=True)

    def mean_and_reach(
        name: str, *parts: int, contrast: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """The mean, and half the width of its interval, one of so many that hold together."""
        score = contrast or (lambda values: values)
        mean, error, degrees = estimate(
            score(value[name]), score(training_scores(shared, name)), genes, not contrast
        )
        if new_cell:
            between = score(of_cells[name])
            error = np.hypot(error, np.sqrt(between.var(axis=0, ddof=1) / len(between)))
            degrees = np.minimum(degrees, len(between) - 1)
        return [mean, *(scipy.stats.t.isf(tail / part, degrees) * error for part in parts)]

    pearson, reach, joint = mean_and_reach("pearson", 1, A)
    rho, rho_reach = mean_and_reach("spearman", 1)
    one_value = predicts_one_value(shared)
    none = one_value | bool(note)  # fewer genes make correlations lower, and leads hardly
    reach, joint, rho_reach = (np.where(none, np.nan, wide) for wide in (reach, joint, rho_reach))
    # [A, A]: by how much the first assay beats the second, paired by chromosome.
    lead, lead_reach = mean_and_reach(
        "pearson", pairs, contrast=lambda r: r[..., :, None] - r[..., None, :]
    )
    beats = lead - lead_reach > 0  # NaN beats nothing
    table = pd.DataFrame(
        {
            "cell": cell,
            "assay": means["assays"].values.astype(str),
            "rank": scipy.stats.rankdata(-pearson, method="min").astype(int),
            "pearson": pearson,
            **_ends("", pearson, reach),
            **_ends("simultaneous_", pearson, joint),
            "spearman": rho,
            **_ends("spearman_", rho, rho_reach),
            **{name: weighted_mean(value[name], genes) for name in METRICS[2:]},
            "n_genes": round(genes.sum()),
            "n_chromosomes": K,
            "n_folds": shared.sizes["fold"],
            "n_cells": shared.sizes["cell"],
            "constant_share": shared.sel(metric="constant").mean(UNIT).values,
            "training_sd": _training_sd(shared),
            "rank_low": 1 + beats.sum(axis=0),
            "rank_high": A - beats.sum(axis=1),
            "note": np.where(one_value, ONE_VALUE, note),
        },
        columns=pd.Index(COLUMNS),
    )
    return table.sort_values(["rank", "assay"])


def _ends(name: str, score: np.ndarray, reach: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip((f"{name}low", f"{name}high"), clip_interval(score, reach), strict=True))


def _cell_means(shared: xr.DataArray) -> dict[str, Float[np.ndarray, "C A"]]:
    """Pearson and Spearman r of every cell, over chromosomes."""
    means = shared.mean(["fold", "seed"])
    weights = means.sel(metric="n", drop=True).mean(["cell", "assays"]).fillna(0)
    average = means.weighted(weights).mean("chrom").transpose("metric", "cell", "assays")
    return {name: average.sel(metric=name).values for name in ("pearson", "spearman")}


def _training_sd(shared: xr.DataArray) -> np.ndarray | float:
    """Standard deviation between seeds of an assay's score, within cell; NaN for a single seed."""
    if shared.sizes["seed"] < 2:
        return np.nan
    pearson, genes = (shared.sel(metric=name, drop=True) for name in ("pearson", "n"))
    weights = genes.mean(["cell", "assays", "fold", "seed"]).fillna(0)
    by_seed = pearson.mean("fold").weighted(weights).mean("chrom")  # [cell, assays, seed]
    return np.sqrt(by_seed.var("seed", ddof=1).mean("cell").values)
