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

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.scores.intervals import (
    MIN_CHROMOSOMES,
    MIN_GENES,
    NO_INTERVAL,
    UNIT,
    jackknife,
    score_cube,
    shared_units,
    training_variance,
    weighted_mean,
)
from epi2expr_jax.scores.table import ALL, METRICS

FEW_CHROMOSOMES = 10
MIN_CELLS = 5  # for a statement on a new one
TARGETS = ("these cells", "a new cell")

COLUMNS = [
    *["cell", "assay", "rank", "pearson", "low", "high", "simultaneous_low", "simultaneous_high"],
    *["spearman", "spearman_low", "spearman_high", "r2", "mse", "auc", "pearson_raw"],
    *["n_genes", "n_chromosomes", "n_folds", "n_cells", "constant_share"],
    *["training_sd", "rank_low", "rank_high", "note"],
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
        Intervals are NaN, and `note` says why, for fewer than three chromosomes; they are not cut
        at 1. r2, mse, auc and pearson_raw are means without intervals. `constant_share`: of the
        scores, how many are 0 because the prediction is constant.

    Raises:
        InputError: if confidence is not between 0 and 1, the target is unknown, or there are too
            few cells to draw conclusions about a new one.
    """
    if not 0 < confidence < 1:
        raise InputError(
            "confidence", str(confidence), "a number between 0 and 1", "give 0.95, say"
        )
    if target not in TARGETS:
        raise InputError("target", target, " or ".join(TARGETS), "choose one of these")
    cube = score_cube(scores)
    new = target == TARGETS[1]
    if new and (cells := cells_in_common(scores)) < MIN_CELLS:
        found = f"{cells} cells with every assay"
        remedy = "limit conclusions to these cells, or train on more"
        raise InputError(f"target: {target}", found, f"at least {MIN_CELLS}", remedy)
    parts = {ALL: cube} | {str(cell): cube.sel(cell=[cell]) for cell in cube["cell"].values}
    tables = []
    for cell, part in parts.items():
        shared, _ = shared_units(part)
        if shared.size:
            tables.append(_rank_group(cell, shared, confidence, new and cell == ALL))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({}, columns=COLUMNS)


def cells_in_common(scores: pd.DataFrame) -> int:
    """How many cells "all" averages over."""
    shared, _ = shared_units(score_cube(scores))
    return shared.sizes["cell"] if shared.size else 0


def _rank_group(
    cell: str, shared: xr.DataArray, confidence: float, new_cell: bool = False
) -> pd.DataFrame:
    """The rows of one cell, or of all of them."""
    means = _means(shared)
    value = dict(zip(means["metric"].values, means.values, strict=True))  # each [K, A]
    genes = value["n"].mean(axis=1)
    K, A = value["pearson"].shape
    tail, pairs = (1 - confidence) / 2, max(1, A * (A - 1) // 2)
    of_cells = _cell_means(shared) if new_cell else {}
    degrees = min(K, len(of_cells["pearson"])) - 1 if new_cell else K - 1
    reach, joint, pairwise = stats.t.isf(tail / np.array([1, A, pairs]), degrees)

    def estimate(
        name: str, contrast: Callable[[np.ndarray], np.ndarray] = lambda values: values
    ) -> tuple[np.ndarray, np.ndarray]:
        mean, error = jackknife(contrast(value[name]), genes)
        variance = error**2 + _noise(shared, name, contrast, genes)
        if new_cell:
            between = contrast(of_cells[name])
            variance = variance + between.var(axis=0, ddof=1) / len(between)
        return mean, np.sqrt(variance)

    pearson, error = estimate("pearson")
    rho, rho_error = estimate("spearman")
    # [A, A]: by how much the first assay beats the second, paired by chromosome.
    lead, lead_error = estimate("pearson", _pairwise)
    beats = lead - pairwise * lead_error > 0  # NaN beats nothing
    table = pd.DataFrame(
        {
            "cell": cell,
            "assay": means["assays"].values.astype(str),
            "rank": stats.rankdata(-pearson, method="min").astype(int),
            "pearson": pearson,
            "low": pearson - reach * error,
            "high": pearson + reach * error,
            "simultaneous_low": pearson - joint * error,
            "simultaneous_high": pearson + joint * error,
            "spearman": rho,
            "spearman_low": rho - reach * rho_error,
            "spearman_high": rho + reach * rho_error,
            **{name: weighted_mean(value[name], genes) for name in METRICS[2:]},
            "n_genes": round(genes.sum()),
            "n_chromosomes": K,
            "n_folds": shared.sizes["fold"],
            "n_cells": shared.sizes["cell"],
            "constant_share": shared.sel(metric="constant").mean(UNIT).values,
            "training_sd": _training_sd(shared),
            "rank_low": 1 + beats.sum(axis=0),
            "rank_high": A - beats.sum(axis=1),
            "note": "" if K >= MIN_CHROMOSOMES else NO_INTERVAL,
        },
        columns=pd.Index(COLUMNS),
    )
    return table.sort_values(["rank", "assay"])


def _means(shared: xr.DataArray) -> xr.DataArray:
    """`[metric, chrom, assays]`: folds and seeds first, then cells, so that every cell counts the
    same on a chromosome."""
    return shared.mean(["fold", "seed"]).mean("cell").transpose("metric", "chrom", "assays")


def _noise(
    shared: xr.DataArray,
    metric: str,
    contrast: Callable[[np.ndarray], np.ndarray],
    genes: Float[np.ndarray, "K"],
) -> Float[np.ndarray, "*of"] | float:
    """`training_variance` of contrasts of a score, cells averaged; 0 for a single seed."""
    if shared.sizes["seed"] < 2:
        return 0.0
    scores = shared.sel(metric=metric, drop=True).mean("cell")
    return training_variance(
        contrast(scores.transpose("fold", "seed", "chrom", "assays").values), genes
    )


def _cell_means(shared: xr.DataArray) -> dict[str, Float[np.ndarray, "C A"]]:
    """Pearson and Spearman r of every cell, over chromosomes."""
    means = shared.mean(["fold", "seed"])
    weights = means.sel(metric="n", drop=True).mean(["cell", "assays"]).fillna(0)
    average = means.weighted(weights).mean("chrom").transpose("metric", "cell", "assays")
    return {name: average.sel(metric=name).values for name in ("pearson", "spearman")}


def _pairwise(values: Float[np.ndarray, "*n A"]) -> Float[np.ndarray, "*n A A"]:
    return values[..., :, None] - values[..., None, :]


def _training_sd(shared: xr.DataArray) -> np.ndarray | float:
    """Standard deviation between seeds of an assay's score, within cell; NaN for a single seed."""
    if shared.sizes["seed"] < 2:
        return np.nan
    pearson, genes = (shared.sel(metric=name, drop=True) for name in ("pearson", "n"))
    weights = genes.mean(["cell", "assays", "fold", "seed"]).fillna(0)
    by_seed = pearson.mean("fold").weighted(weights).mean("chrom")  # [cell, assays, seed]
    return np.sqrt(by_seed.var("seed", ddof=1).mean("cell").values)


def calls(scores: pd.DataFrame, rate: float = 0.05) -> pd.DataFrame:
    """Which assays predict at all, and which predicts better than which.

    All p-values, two-sided from the chromosome jackknife-t, go into one Benjamini–Hochberg
    correction (1995): of all calls together a share of at most `rate` is expected to be false.

    Args:
        scores: from `score_table`.

    Returns:
        One row a cell ("all" first), assay and `other`, which is another assay, or empty where the
        score is compared with 0: `lead`, `p`, `q` and whether it is `called`. The better assay
        comes first. NaN and no call for fewer than three chromosomes.
    """
    cube = score_cube(scores)
    rows = []
    for cell in (ALL, *cube["cell"].values):
        shared, _ = shared_units(cube if cell == ALL else cube.sel(cell=[cell]))
        if not shared.size:
            continue
        means = _means(shared)
        pearson, genes = means.sel(metric="pearson").values, means.sel(metric="n").values.mean(1)
        names = means["assays"].values.astype(str)
        first, second = np.triu_indices(len(names), 1)

        def compared(values: np.ndarray, first=first, second=second) -> np.ndarray:
            return np.concatenate([values, values[..., first] - values[..., second]], axis=-1)

        lead, error = jackknife(compared(pearson), genes)
        error = np.hypot(error, np.sqrt(_noise(shared, "pearson", compared, genes)))
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(np.abs(lead) / error, len(genes) - 1)
        turned = lead[len(names) :] < 0
        pairs = np.where(turned, names[second], names[first])
        others = np.where(turned, names[first], names[second])
        lead[len(names) :] = np.abs(lead[len(names) :])
        rows.append(
            pd.DataFrame(
                {
                    "cell": str(cell),
                    "assay": np.concatenate([names, pairs]),
                    "other": [""] * len(names) + others.tolist(),
                    "lead": lead,
                    "p": p,
                }
            )
        )
    columns = ["cell", "assay", "other", "lead", "p"]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({}, columns=columns)
    known = table["p"].notna()
    table["q"] = np.nan
    if known.any():
        table.loc[known, "q"] = stats.false_discovery_control(table.loc[known, "p"])
    return table.assign(called=table["q"] <= rate)


def caveats(
    scores: pd.DataFrame, ranking: pd.DataFrame | None = None, new: Collection[str] = ()
) -> list[str]:
    """What a reader of the table of `rank_assays` must also know, in plain sentences.

    Args:
        ranking: from `rank_assays`; made here by default.
        new: cells whose models were trained on other cells alone.
    """
    cells = sorted(set(scores["cell"]))
    cube, ranking = score_cube(scores), rank_assays(scores) if ranking is None else ranking
    common = ranking["n_cells"].max() if len(ranking) else 0
    notes = [_target_note(cells, sorted(set(cells) & set(new)), common)]
    seeds = len(set(scores["seed"]))
    if seeds == 1:
        notes.append("One seed: training noise is not in the interval.")
    else:
        spread = ranking["training_sd"].median()
        notes.append(
            f"The intervals are of the mean of {seeds} trainings; the score of a single one varies "
            f"by {spread:.3f} (standard deviation between seeds, median over assays)."
        )
    notes += _fold_notes(scores)
    notes += _chromosome_notes(scores, cube) + _hole_notes(scores, cube, set(ranking["cell"]))
    return notes + _constant_notes(ranking) + _tie_notes(ranking)


def _target_note(cells: list[str], new: list[str], common: int | np.integer) -> str:
    """What cells the scores and their intervals are of."""
    target = f"The target is these cells ({listing(cells)}), on chromosomes like the tested ones"
    if new:
        which = "each of them" if new == cells else listing(new)
        target += f". Of the models tested in a cell, none was trained on it ({which})"
    if common >= MIN_CELLS:
        return f"{target}. Intervals for one more cell like these: ranking_new_cell.csv."
    if new:
        return f"{target}. An interval for further cells takes {MIN_CELLS} that have every assay."
    return f"{target}; nothing here speaks of a new cell."


def _chromosome_notes(scores: pd.DataFrame, cube: xr.DataArray) -> list[str]:
    """How many chromosomes and genes the intervals rest on."""
    tested = sort_chromosomes(cube["chrom"].values.astype(str))
    n = cube.sel(metric="n", drop=True)
    genes = n.mean(["assays", "fold", "seed"]).mean("cell").values
    rest = f"{_count(len(tested), 'chromosome')} and {_count(round(genes.sum()), 'gene')}"
    notes = [f"The intervals rest on {rest}."]
    if len(tested) < MIN_CHROMOSOMES:
        notes.append(f"There is no interval: {NO_INTERVAL}.")
    elif len(tested) < FEW_CHROMOSOMES:
        notes.append(f"So few make intervals wide: t has {len(tested) - 1} degrees of freedom.")
    effective = genes.sum() ** 2 / max(1, (genes**2).sum())
    if effective < len(tested) / 2:
        notes.append(
            f"Most genes lie on few of them, which are worth about {effective:.1f} of equal size: "
            "the intervals may be too short."
        )
    by_fold = n.notnull().any(["cell", "assays", "seed"])
    if by_fold.sizes["fold"] > 1 and by_fold.all() and len(tested) < FEW_CHROMOSOMES:
        notes.append(
            f"All folds test the same blind chromosomes ({listing(tested)}): folds steady the mean "
            "over trainings, but add nothing to what is known of other chromosomes."
        )
    small = scores["n"] < MIN_GENES
    for left_out, why in [
        (scores.loc[small], f"fewer than {MIN_GENES} genes"),
        (scores.loc[~small & scores["constant_observed"]], "the same expression for all genes"),
    ]:
        if len(left_out):
            which = listing(sort_chromosomes(left_out["chrom"]))
            notes.append(f"{_count(len(left_out), 'score')} without weight: {why} ({which}).")
    return notes


def _fold_notes(scores: pd.DataFrame) -> list[str]:
    """Whether some chromosomes are tested more often than others."""
    times = scores.groupby(["cell", "assays", "seed", "chrom"])["fold"].nunique()
    by_chrom = times.groupby("chrom").max()
    if by_chrom.nunique() < 2:
        return []
    often = sort_chromosomes(by_chrom.index[by_chrom > by_chrom.min()].astype(str))
    return [f"Tested in more folds than the others: {listing(often)}."]


def _hole_notes(scores: pd.DataFrame, cube: xr.DataArray, ranked: set[str]) -> list[str]:
    """The cells, folds and chromosomes that some assay lacks: no assay is compared there."""
    notes, holes, assays = [], [], set(scores["assays"])
    for cell, part in scores.groupby("cell"):
        if lacking := assays - set(part["assays"]):
            holes.append(f"{cell} lacks {listing(sorted(lacking))}")
        if cell not in ranked:
            notes.append(f"{cell} is not ranked: its assays share no usable chromosome of a fold.")
        elif dropped := shared_units(cube.sel(cell=[cell]))[1]:
            notes.append(
                f"{cell}: {_count(dropped, 'fold-seed-chromosome unit')} left out, "
                "since not every assay has a score there."
            )
    if holes:
        notes.append(f'Left out of "{ALL}", which needs every assay: {listing(holes)}.')
    if ALL not in ranked:
        notes.append(f'There is no "{ALL}": no cell has every assay. Rank fewer assays together.')
    return notes


def _constant_notes(ranking: pd.DataFrame) -> list[str]:
    flagged = [
        f"{row['cell']} {row['assay']} ({row['constant_share']:.0%})"
        for row in ranking.to_dict("records")
        if row["cell"] != ALL and row["constant_share"] > 0
    ]
    why = "Constant predictions score 0 by rule: a failed training, not a measured score"
    return [f"{why} ({listing(flagged)})."] if flagged else []


def _tie_notes(ranking: pd.DataFrame) -> list[str]:
    """Where the best assay cannot be told from others: those that no other assay beats."""
    unbeaten = ranking[ranking["rank_low"] == 1]
    best = {str(cell): list(part["assay"]) for cell, part in unbeaten.groupby("cell")}
    notes, over_all = [], best.pop(ALL, [])
    if len(over_all) > 1:
        notes.append(f"Over all cells, {listing(over_all, 20)} cannot be told apart as the best.")
    if tied := [cell for cell, assays in best.items() if len(assays) > 1]:
        notes.append(
            f"In {len(tied)} of {_count(len(best), 'cell')} the best assay cannot be told apart "
            f"from others ({listing(tied)})."
        )
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
