"""What a reader of a ranking must also know, in plain sentences."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import xarray as xr

from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.scores.intervals import (
    LEAST_SCORED,
    TOO_FEW_GENES,
    no_interval,
    score_cube,
    shared_units,
)
from epi2expr_jax.scores.ranking import LEAST_CELLS, rank_assays
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.units import count, percent

FEW_CHROMOSOMES = 10
SUPPOSED_SD = 0.01  # of a score between trainings, where nobody knows


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


def of_width(width: float) -> str:
    """That models are narrower than published, if they are."""
    if width >= 1:
        return ""
    return (
        f"A quick look: models have {width:g} times the published numbers of filters and units. At "
        "full width scores may be higher, and close ones in another order."
    )


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
    spread = rows["training_sd"].max() if seeds > 1 else SUPPOSED_SD
    where = "not in the interval; its size is " if rows["low"].notna().any() else ""
    told = f"One seed: training noise is {where}unknown (try --seeds=2)."
    if seeds > 1:
        told = (
            f"The intervals are of the mean of {seeds} trainings; the score of a single one varies "
            f"by up to {spread:.2g} (standard deviation between seeds, the largest of the assays)."
        )
    if apart.any() and np.isfinite(spread):
        # Twice the standard deviation of the difference between two means of so many trainings.
        needed = max(1, int(np.ceil(8 * (spread / lead) ** 2)))
        if needed <= seeds:
            return [told]
        supposed = f" If scores vary by {spread:g} from training to training (not measured),"
        told += " So" if seeds > 1 else supposed
        told += f" it takes {count(needed, 'seed')} to order the closest neighbours that are told "
        told += f"apart here, whose r differs by {lead:.3f}."
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
    rest = f"{count(len(tested), 'chromosome')} and {count(round(genes.sum()), 'gene')}"
    of = " of leads" if no_interval(genes, correlation=True) == TOO_FEW_GENES else ""
    wide = ""
    if len(tested) < FEW_CHROMOSOMES:
        freedom = f"Student's t with {count(len(tested) - 1, 'degree')} of freedom"
        wide = f"; so few chromosomes make them wide ({freedom})"
    notes = [f"The intervals{of} rest on {rest}{wide}."]
    if why := no_interval(genes):
        notes = [f"All rests on {rest}. There is no interval: {why}."]
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
            notes.append(f"{count(len(left_out), 'score')} without weight: {why} ({which}).")
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
                f"{cell}: {count(dropped, 'fold-seed-chromosome unit')} left out, "
                "since not every assay has a score there."
            )
    if holes and ALL in ranked:
        notes.append(
            f'The ranking over cells ("{ALL}" in tables) leaves out cells that lack an assay: '
            f"{listing(holes)}."
        )
    if ALL not in ranked:
        notes.append("No cell has every assay: there is no ranking over cells. Rank fewer assays.")
    return notes


def _constant_notes(ranking: pd.DataFrame) -> list[str]:
    own = ranking[(ranking["cell"] != ALL) & (ranking["constant_share"] > 0)]
    each = own[["cell", "assay", "constant_share"]].itertuples(index=False)
    flagged = [f"{cell} {assay} ({percent(share)})" for cell, assay, share in each]
    why = "Constant predictions score 0 by rule: a failed training, not a measured score"
    return [f"{why} ({listing(flagged)})."] if flagged else []


def _tie_notes(ranking: pd.DataFrame) -> list[str]:
    """In which of several cells the best assay cannot be told from others: those that no other
    assay beats. (What is said of all of them, or of the only one, tells that itself.)"""
    several = ranking["cell"].map(ranking["cell"].value_counts()) > 1
    unbeaten = ranking[(ranking["rank_low"] == 1) & (ranking["cell"] != ALL) & several]
    best = {str(cell): list(part["assay"]) for cell, part in unbeaten.groupby("cell")}
    if len(best) < 2:
        return []
    if tied := [cell for cell, assays in best.items() if len(assays) > 1]:
        return [
            f"In {len(tied)} of {count(len(best), 'cell')} with several assays, each by itself, "
            "the best assay cannot be told apart from others, all pairs corrected together "
            f"({listing(tied)})."
        ]
    return []
