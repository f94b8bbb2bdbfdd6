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
import scipy
import xarray as xr
from jaxtyping import Float

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.scores.intervals import (
    LEAST_SCORED,
    ONE_VALUE,
    TOO_FEW_GENES,
    UNIT,
    chromosome_means,
    estimate,
    no_interval,
    predicts_one_value,
    score_cube,
    shared_units,
    training_scores,
    weighted_mean,
)
from epi2expr_jax.scores.table import ALL, BOTH, METRICS, QUESTIONS

FEW_CHROMOSOMES = 10
SUPPOSED_SD = 0.01  # of a score between trainings, where nobody knows
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
        Intervals are NaN where `note` says why (`intervals.no_interval`, `ONE_VALUE`), not cut at
        1. r2, mse, auc and pearson_raw are means without. `constant_share`: of the scores, how many
        are 0 because the prediction is constant.

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
    chance = found["question"].map({"on": 0.5, "level": 0.0})  # none of `BOTH`
    key = ["threshold", "cell", "assay"]
    answers = pd.MultiIndex.from_frame(found.loc[found["simultaneous_low"] > chance, key])
    idle = (found["question"] == BOTH) & ~pd.MultiIndex.from_frame(found[key]).isin(answers)
    found.loc[idle, ["low", "high", "simultaneous_low", "simultaneous_high"]] = np.nan
    found.loc[idle & (found["note"] == ""), "note"] = NO_ANSWER
    return found


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
            "low": pearson - reach,
            "high": pearson + reach,
            "simultaneous_low": pearson - joint,
            "simultaneous_high": pearson + joint,
            "spearman": rho,
            "spearman_low": rho - rho_reach,
            "spearman_high": rho + rho_reach,
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
    given = bool(ranking["low"].notna().any())
    notes = [_target_note(cells, sorted(set(cells) & set(new)), common, given)]
    notes += _seed_notes(ranking, len(set(scores["seed"]))) + _shrinkage_notes(ranking)
    notes += _fold_notes(scores)
    notes += _chromosome_notes(scores, cube) + _hole_notes(scores, cube, set(ranking["cell"]))
    return notes + _constant_notes(ranking) + _tie_notes(ranking)


def _target_note(cells: list[str], new: list[str], common: int | np.integer, given: bool) -> str:
    """What cells the scores and their intervals are of."""
    these = f"{'this cell' if len(cells) == 1 else 'these cells'} ({listing(cells)})"
    target = f"Scores are of {these}, on chromosomes like the tested ones"
    if new:
        some = f"The models tested in {listing(new)} were not trained there"
        target += f". {'No cell is tested by a model trained there' if new == cells else some}"
    if common >= LEAST_CELLS:
        there = "Intervals for" if given else "There is too little data for an interval of"
        return f"{target}. {there} one more cell like these: ranking_new_cell.csv."
    if new:
        return f"{target}. An interval for further cells takes {LEAST_CELLS} that have every assay."
    return f"{target}; nothing here speaks of a new cell."


def _seed_notes(ranking: pd.DataFrame, seeds: int) -> list[str]:
    """What is known of the noise of training, and how many seeds this ranking needs."""
    rows = ranking[ranking["cell"] == ranking["cell"].iloc[0]] if len(ranking) else ranking
    apart = rows["rank_high"].to_numpy()[:-1] < rows["rank_low"].to_numpy()[1:]
    lead = np.min(-np.diff(rows["pearson"])[apart], initial=np.inf)  # the least of neighbours
    spread = rows["training_sd"].median() if seeds > 1 else SUPPOSED_SD
    where = "not in the interval; its size is " if rows["low"].notna().any() else ""
    told = f"One seed: training noise is {where}unknown (try --seeds=2)."
    if seeds > 1:
        told = (
            f"The intervals are of the mean of {seeds} trainings; the score of a single one varies "
            f"by {spread:.3f} (standard deviation between seeds, median over assays)."
        )
    if apart.any() and np.isfinite(spread):
        # Twice the standard deviation of the difference between two means of so many trainings.
        needed = _count(max(1, int(np.ceil(8 * (spread / lead) ** 2))), "seed")
        supposed = f" If scores vary by {spread:g} from training to training (not measured),"
        told += " So" if seeds > 1 else supposed
        told += f" it takes {needed} to order the closest neighbours that are told apart here, "
        told += f"whose r differs by {lead:.3f}."
    return [told]


def _shrinkage_notes(ranking: pd.DataFrame) -> list[str]:
    """How much lower r is for being taken on few genes a chromosome."""
    for best in ranking.head(1).to_dict("records"):
        if best["note"] == TOO_FEW_GENES:
            r, genes = best["pearson"], best["n_genes"] / best["n_chromosomes"]
            likely = r * (1 + (1 - r**2) / (2 * max(1, genes - 1)))
            lower = f" r is lower there than on many genes: {r:.2f} would be about {likely:.2f}."
            return [f"Scores have no intervals: {TOO_FEW_GENES}.{lower if r > 0 else ''}"]
    return []


def _chromosome_notes(scores: pd.DataFrame, cube: xr.DataArray) -> list[str]:
    """How many chromosomes and genes the intervals rest on."""
    tested = sort_chromosomes(cube["chrom"].values.astype(str))
    n = cube.sel(metric="n", drop=True)
    genes = n.mean(["assays", "fold", "seed"]).mean("cell").values
    rest = f"{_count(len(tested), 'chromosome')} and {_count(round(genes.sum()), 'gene')}"
    of = " of leads" if no_interval(genes, correlation=True) == TOO_FEW_GENES else ""
    notes = [f"The intervals{of} rest on {rest}."]
    if why := no_interval(genes):
        notes = [f"All rests on {rest}. There is no interval: {why}."]
    elif len(tested) < FEW_CHROMOSOMES:
        notes.append(f"So few make them wide: t has {len(tested) - 1} degrees of freedom.")
    by_fold = n.notnull().any(["cell", "assays", "seed"])
    if by_fold.sizes["fold"] > 1 and by_fold.all() and len(tested) < FEW_CHROMOSOMES:
        notes.append(
            f"All folds test the same blind chromosomes ({listing(tested)}): folds steady the mean "
            "over trainings, but add nothing to what is known of other chromosomes."
        )
    small = scores["n"] < LEAST_SCORED
    for left_out, why in [
        (scores.loc[small], f"fewer than {LEAST_SCORED} genes"),
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
    notes, holes, assays = [], [], {*scores["assays"]}
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
    own = ranking[(ranking["cell"] != ALL) & (ranking["constant_share"] > 0)]
    each = own[["cell", "assay", "constant_share"]].itertuples(index=False)
    flagged = [f"{cell} {assay} ({share:.0%})" for cell, assay, share in each]
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
        alone = ", each by itself," if len(best) > 1 else ""
        notes.append(
            f"In {len(tied)} of {_count(len(best), 'cell')}{alone} the best assay cannot be told "
            f"apart from others, all pairs corrected together ({listing(tied)})."
        )
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
