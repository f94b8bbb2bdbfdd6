"""Floor 6. Which assay predicts expression best, and how sure that is.

A score is computed within one model and one chromosome, never over the pooled predictions of
several models: models differ in their mean, and pooling turns that into correlation. Chromosomes
are the unit of uncertainty: genes of one chromosome share neighbourhoods, batches and biases, so
genes are not independent, and cells share their genes, so neither are cells. Folds, seeds and then
cells are therefore averaged within a chromosome, which also pairs all assays, and chromosomes are
combined, weighted by their genes, with a delete-one-chromosome jackknife (`jackknife`) and
Student's t.

Simultaneous intervals share out the error (Bonferroni). A bootstrap of the largest t would be
narrower where assays go together, but must estimate their correlation: from three chromosomes it
cannot, and its intervals are too short. Bonferroni holds whatever the correlation.

The target of every interval is these cells, these genomes and models trained in this way, on other
chromosomes like these; not a new cell.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Float
from scipy import stats

from epi2expr_jax import metrics
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing, sort_chromosomes

RUN = ["cell", "assays", "fold", "seed"]
UNIT = ["cell", "fold", "seed", "chrom"]  # what assays are compared on
VALUES = ["observed", "predicted", "observed_raw", "predicted_raw"]
METRICS = ["pearson", "spearman", "r2", "mse", "auc", "pearson_raw"]
ALL = "all"  # the row that aggregates the cells

MIN_GENES = 3  # a correlation of two genes is always 1 or -1
MIN_CHROMOSOMES = 3
NO_INTERVAL = f"fewer than {MIN_CHROMOSOMES} chromosomes"
FEW_CHROMOSOMES = 10
BLOCK_GENES = 1 << 16  # padded genes scored at once: bounds memory

COLUMNS = [
    *["cell", "assay", "rank", "pearson", "low", "high", "simultaneous_low", "simultaneous_high"],
    *["spearman", "spearman_low", "spearman_high", "r2", "mse", "auc", "pearson_raw"],
    *["n_genes", "n_chromosomes", "n_folds", "n_cells", "constant_share"],
    *["rank_low", "rank_high", "note"],
]


def score_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Score every run on every chromosome.

    Args:
        predictions: held-out genes only, one row per run and gene, with columns cell, assays,
            fold, seed, gene_id, chrom, `observed` and `predicted` in log2(RPKM+1), and
            `observed_raw` and `predicted_raw` on the model's own target scale.

    Returns:
        One row per (cell, assays, fold, seed, chrom) with `n` genes; pearson, spearman, r2 and mse
        of log2(RPKM+1); auc for expression above the median of the cell's genes; pearson_raw on
        the model's own scale, which a few outlying genes drive under min-max scaling;
        `constant` (the prediction is constant, so it scores 0) and `constant_observed`.

    Raises:
        InputError: for missing columns, no rows, values that are not finite, a gene twice in a run.
    """
    _check_predictions(predictions)
    group = np.zeros(len(predictions), np.int64)  # one integer a group: strings sort slowly
    for column in [*RUN, "chrom"]:
        code, levels = pd.factorize(predictions[column], sort=True)
        group = group * len(levels) + code
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))

    values = {column: predictions[column].to_numpy(np.float32)[order] for column in VALUES}
    values["label"] = _above_median(predictions)[order]
    scored = np.empty((len(METRICS) + 2, len(sizes)))
    # Groups of like size are padded to one of a few widths: few programs, little padding.
    widths = 4 ** np.ceil(np.emath.logn(4, np.maximum(sizes, 64))).astype(np.int64)
    for width in np.unique(widths):
        members = np.flatnonzero(widths == width)
        rows = max(1, BLOCK_GENES // int(width))
        for chosen in np.split(members, range(rows, len(members), rows)):
            padded = np.resize(chosen, rows)  # a short block repeats groups: one program a width
            mask = np.arange(width) < sizes[padded, None]
            place = np.where(mask, starts[padded, None] + np.arange(width), 0)
            block = _score({name: column[place] for name, column in values.items()}, mask)
            scored[:, chosen] = np.asarray(block)[:, : len(chosen)]
    scores = predictions.iloc[order[starts]][[*RUN, "chrom"]].reset_index(drop=True)
    *measured, constant, constant_observed = scored
    return scores.assign(
        n=sizes,
        **dict(zip(METRICS, measured, strict=True)),
        constant=constant == 1,
        constant_observed=constant_observed == 1,
    )


@jax.jit
def _score(
    values: dict[str, Float[Array, "B G"] | Bool[Array, "B G"]], mask: Bool[Array, "B G"]
) -> Float[Array, "M B"]:
    """`METRICS`, then whether prediction and observation are constant, of B groups of genes."""
    observed, predicted = values["observed"], values["predicted"]
    moments = metrics.Moments.of(observed, predicted, mask)
    scored = {
        "pearson": moments.pearson(),
        "spearman": metrics.spearman(observed, predicted, mask),
        "r2": moments.r2(),
        "mse": moments.mse(),
        "auc": metrics.auc(predicted, values["label"], mask),
        "pearson_raw": metrics.Moments.of(
            values["observed_raw"], values["predicted_raw"], mask
        ).pearson(),
    }
    constant = [moments.constant_predicted(), moments.constant_observed()]
    return jnp.stack([*(scored[name] for name in METRICS), *constant])


def rank_assays(scores: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Rank the assays within every cell, and over the cells under the name "all".

    Assays are compared on the same units (cell, fold, seed, chromosome): those that every assay
    has. A cell that lacks an assay is so left out of "all", and a run that failed takes its
    chromosomes out of the comparison in its cell; `caveats` names both. Where nothing is shared
    there is no row.

    Args:
        scores: from `score_table`.
        confidence: of every interval, between 0 and 1.

    Returns:
        One row per cell and assay with columns `COLUMNS`, "all" first, best first. `low`, `high`
        hold for the assay alone, `simultaneous_low`, `simultaneous_high` for all assays of the
        cell together, all four on Pearson r; `rank_low`, `rank_high` bound the ranks of all assays
        together, from simultaneous intervals of the pairwise differences (Mogstad et al. 2024).
        Intervals are NaN, and `note` says why, for fewer than three chromosomes; they are not cut
        at 1. r2, mse, auc and pearson_raw are means without intervals. `constant_share`: of the
        scores, how many are 0 because the prediction is constant.

    Raises:
        InputError: if confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InputError(
            Problem("confidence", str(confidence), "a number between 0 and 1", "give 0.95, say")
        )
    cube = score_cube(scores)
    parts = {ALL: cube} | {str(cell): cube.sel(cell=[cell]) for cell in cube["cell"].values}
    tables = []
    for cell, part in parts.items():
        shared, _ = shared_units(part)
        if shared.size:
            tables.append(_rank_group(cell, shared, confidence))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({}, columns=COLUMNS)


def score_cube(scores: pd.DataFrame) -> xr.DataArray:
    """Scores [metric, cell, assays, fold, seed, chrom]; NaN where none carries weight.

    A correlation needs three genes, and genes that differ in expression.
    """
    columns = ["n", "constant", *METRICS]
    indexed = scores.set_index([*RUN, "chrom"])[columns].astype(float)
    usable = (scores["n"] >= MIN_GENES) & ~scores["constant_observed"]
    return indexed.loc[usable.to_numpy()].to_xarray().to_dataarray("metric")


def shared_units(cube: xr.DataArray) -> tuple[xr.DataArray, int]:
    """The units that all assays of these cells have, NaN elsewhere; and how many only some have.

    Assays, folds, cells and chromosomes without any such unit are gone.
    """
    has = cube.sel(metric="n", drop=True).notnull()
    has = has.sel(assays=has.any(UNIT))
    shared = has.all("assays")
    dropped = int((has.any("assays") & ~shared).sum())
    kept = {axis: shared.any([other for other in UNIT if other != axis]) for axis in UNIT}
    return cube.sel(assays=has["assays"]).where(shared).sel(kept), dropped


def _rank_group(cell: str, shared: xr.DataArray, confidence: float) -> pd.DataFrame:
    """The rows of one cell, or of all of them."""
    # Folds and seeds first, then cells: every cell counts the same on a chromosome.
    means = shared.mean(["fold", "seed"]).mean("cell").transpose("metric", "chrom", "assays")
    value = dict(zip(means["metric"].values, means.values, strict=True))  # each [K, A]
    genes = value["n"].mean(axis=1)
    K, A = value["pearson"].shape
    tail, pairs = (1 - confidence) / 2, max(1, A * (A - 1) // 2)
    reach, joint, pairwise = stats.t.isf(tail / np.array([1, A, pairs]), K - 1)
    pearson, error = jackknife(value["pearson"], genes)
    rho, rho_error = jackknife(value["spearman"], genes)
    # [A, A]: by how much the first assay beats the second, paired by chromosome.
    lead, lead_error = jackknife(value["pearson"][:, :, None] - value["pearson"][:, None], genes)
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
            "rank_low": 1 + beats.sum(axis=0),
            "rank_high": A - beats.sum(axis=1),
            "note": "" if K >= MIN_CHROMOSOMES else NO_INTERVAL,
        },
        columns=pd.Index(COLUMNS),
    )
    return table.sort_values(["rank", "assay"])


def jackknife(
    values: Float[np.ndarray, "K A *pair"], genes: Float[np.ndarray, "K"]
) -> tuple[Float[np.ndarray, "A *pair"], Float[np.ndarray, "A *pair"]]:
    """Mean over K chromosomes weighted by their genes, and its standard error.

    The variance is the larger of two that agree for chromosomes of equal size: Busing et al.'s
    (1999), right where genes differ, and the plain delete-one jackknife, right where chromosomes
    do. Of 95 % intervals over 22 human autosomes that truly differ, the first alone covers 92.7 %,
    the larger 94.6 % (simulated). NaN for fewer than three chromosomes.
    """
    weight = (genes / genes.sum()).reshape((-1,) + (1,) * (values.ndim - 1))
    mean = (values * weight).sum(axis=0)
    if len(genes) < MIN_CHROMOSOMES:
        return mean, np.full_like(mean, np.nan)
    # Leaving chromosome k out moves a weighted mean by odds_k (mean - value_k).
    odds, squares = weight / (1 - weight), (values - mean) ** 2
    unequal = (odds * squares).mean(axis=0)
    plain = (odds**2 * squares).sum(axis=0) * (len(genes) - 1) / len(genes)
    return mean, np.sqrt(np.maximum(unequal, plain))


def weighted_mean(values: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Mean over chromosomes where the value exists (an AUC needs both labels)."""
    weight = np.where(np.isnan(values), 0, genes[:, None])
    total = weight.sum(axis=0)
    return np.where(total > 0, np.nansum(values * weight, axis=0) / np.maximum(total, 1), np.nan)


def caveats(scores: pd.DataFrame, confidence: float = 0.95) -> list[str]:
    """What a reader must know beside the table of `rank_assays`, in plain sentences."""
    cells = sorted(set(scores["cell"]))
    notes = [
        f"The target is these cells ({listing(cells)}), on chromosomes like the tested ones; "
        "nothing here speaks of a new cell."
    ]
    if len(set(scores["seed"])) == 1:
        notes.append("One seed: training noise is not in the interval.")
    cube, ranking = score_cube(scores), rank_assays(scores, confidence)
    notes += _chromosome_notes(scores, cube) + _hole_notes(scores, cube, set(ranking["cell"]))
    return notes + _constant_notes(ranking) + _tie_notes(ranking)


def _chromosome_notes(scores: pd.DataFrame, cube: xr.DataArray) -> list[str]:
    """How much the intervals rest on."""
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


def _hole_notes(scores: pd.DataFrame, cube: xr.DataArray, ranked: set[str]) -> list[str]:
    """What some assay lacks, so that none is compared on it."""
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


def _above_median(predictions: pd.DataFrame) -> np.ndarray:
    """Whether a gene's expression is above the median of its cell's genes, each counted once.

    Where only labels were observed, 0 or 1, these are the answer.
    """
    if predictions["observed"].isin([0, 1]).all():
        return predictions["observed"].to_numpy() == 1
    label = np.zeros(len(predictions), bool)
    for rows in predictions.groupby("cell").indices.values():
        part = predictions.iloc[rows]
        median = part.drop_duplicates("gene_id")["observed"].median()
        label[rows] = part["observed"].to_numpy() > median
    return label


def _check_predictions(predictions: pd.DataFrame) -> None:
    def problem(found: str, expected: str, remedy: str) -> Problem:
        return Problem("predictions", found, expected, remedy)

    columns = list(predictions.columns)
    keys = [*RUN, "gene_id", "chrom"]
    if missing := [name for name in keys + VALUES if name not in columns]:
        raise InputError(problem(f"columns {columns}", f"also {missing}", "predict again"))
    if predictions.empty:
        raise InputError(problem("no rows", "held-out genes of a run", "train a run to its end"))
    problems = []
    if nameless := [name for name in keys if predictions[name].hasnans]:
        problems.append(problem(f"empty {nameless}", "a value in every row", "predict again"))
    for column in VALUES:
        broken = ~np.isfinite(predictions[column].to_numpy(float))
        if broken.any():
            runs = predictions.loc[broken, RUN].drop_duplicates().astype(str).to_numpy()
            which = listing(" ".join(run) for run in runs)
            found = f"{broken.sum()} values of {column} not finite ({which})"
            problems.append(problem(found, "finite numbers", "leave out runs that diverged"))
    twice = predictions.duplicated([*RUN, "gene_id"]).to_numpy()
    if twice.any():
        genes = listing(predictions["gene_id"].to_numpy()[twice])
        found = f"{twice.sum()} genes twice in a run ({genes})"
        problems.append(problem(found, "one row a run and gene", "keep one prediction of each"))
    if ALL in set(predictions["cell"]):
        problems.append(problem(f'a cell named "{ALL}"', "another name", "rename the cell"))
    if problems:
        raise InputError(problems)
