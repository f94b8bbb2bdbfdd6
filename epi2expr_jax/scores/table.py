"""Scores of predicted against observed expression, by run, gene group and chromosome.

A score is computed within one model and one chromosome, never over the pooled predictions of
several models: models differ in their mean, and pooling turns that into correlation.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy
from jaxtyping import Array, Bool, Float

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing
from epi2expr_jax.scores import metrics

RUN = ["cell", "assays", "fold", "seed"]
VALUES = ["observed", "predicted", "observed_raw", "predicted_raw"]
METRICS = ["pearson", "spearman", "r2", "mse", "auc", "pearson_raw"]
ALL = "all"  # the row that aggregates the cells; the group of all genes

BLOCK_GENES = 1 << 16  # padded genes scored at once: bounds memory
MOST_GROUPS = 12
# From which a gene counts as expressed, in the unit of expression, unless there are labels.
EXPRESSED = 1.0
BY_EXPRESSION = ("expressed", "silent")
ON = (EXPRESSED, 0.5, 2.0)  # the first for the answer, the others show what the choice does to it
QUESTIONS = {"on": "auc", "level": "spearman"}  # and by which score each is ranked
BOTH = "both"  # parts in one prediction of all genes, see `hurdle`; ranked by Pearson r


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
    for column in ("observed", "predicted"):  # float32 would make ties
        parts = np.split(predictions[column].to_numpy()[order], starts[1:])
        ranks = np.concatenate([*map(scipy.stats.rankdata, parts)])
        values[f"{column} rank"] = ranks.astype(np.float32)
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


def gene_groups(
    predictions: pd.DataFrame, genes: pd.DataFrame | None = None, column: str | None = None
) -> pd.Series:
    """The group of every row of predictions.

    Args:
        genes, column: take the groups from this column of a gene table (its `gene_id` names the
            genes). By default: `expressed` where the observed value of that cell is at least 1
            of the unit of expression (or the label 1), else `silent`.

    Raises:
        InputError: if there is no such column, it has numbers or too many values, or lacks genes.
    """
    if column is None:
        least = 1.0 if labelled(predictions) else np.log2(EXPRESSED + 1)
        names = np.where(predictions["observed"] >= least, *BY_EXPRESSION)
        return pd.Series(names, index=predictions.index)
    if genes is None or column not in genes:
        there = [] if genes is None else list(genes.columns)
        found = f"no column {column}"
        raise InputError("--groups", found, f"one of {', '.join(there)}", "choose another column")
    values = genes.set_index("gene_id")[column]
    with collect() as problems:
        if values.nunique() > MOST_GROUPS:
            problems.add(
                f"--groups={column}",
                f"{values.nunique()} different values ({listing(values.unique())})",
                f"at most {MOST_GROUPS} names of groups",
                "make a column of fewer groups in the gene table",
            )
        names = predictions["gene_id"].map(values)
        if names.isna().any():
            lacking = listing(predictions.loc[names.isna(), "gene_id"].unique())
            problems.add(
                f"--groups={column}", f"no group of {lacking}", "one a gene", "complete it"
            )
    return names.astype(str)


def class_columns(known: pd.DataFrame) -> list[str]:
    """Columns that sort genes into classes, few enough to rank within each.

    Args:
        known: of genes, as from `inputs.covariates.covariates_of`.
    """
    texts = known.columns.drop("gene_id", errors="ignore")
    return [
        str(name)
        for name in texts
        if not pd.api.types.is_numeric_dtype(known[name])
        and 1 < known[name].nunique() <= MOST_GROUPS
    ]


def score_groups(predictions: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """`score_table` of each group of genes, told apart by a column `group`.

    Correlations within a group are of what is left to explain there: lower than over all genes,
    since groups are told apart by what is predicted.
    """
    tables = []
    for name in sorted(groups.unique()):
        part = predictions[(groups == name).to_numpy()]
        tables.append(score_table(part).assign(group=name))
    return pd.concat(tables, ignore_index=True)


def score_questions(predictions: pd.DataFrame, thresholds: Sequence[float] = ON) -> pd.DataFrame:
    """`score_table` of two questions apart: is a gene on, and how much do those express that are?

    Args:
        thresholds: from which expression on a gene is on, in the unit of expression.

    Returns:
        Its rows with `threshold`, in words, and `question`: for `on` the auc is of genes that are
        on against the others (r2, mse and the correlations mean nothing there), for `level` all
        scores are of the genes that are on alone, for `BOTH` of all genes, as `hurdle` predicts
        them. Without rows for labels, which know no level.
    """
    tables = []
    for threshold in () if labelled(predictions) else thresholds:
        on = predictions["observed"] >= np.log2(threshold + 1)
        asked = {"on": predictions.assign(observed=on * 1.0), "level": predictions[on]}
        if 0 < on.sum() < len(on):
            both = predictions.assign(predicted=hurdle(predictions, threshold))
            asked[BOTH] = both[both["predicted"].notna()]
        for question, of in asked.items():
            if len(of):
                tables.append(score_table(of).assign(question=question, threshold=f"{threshold:g}"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def hurdle(predictions: pd.DataFrame, threshold: float = EXPRESSED) -> Float[np.ndarray, "N"]:
    """P(on) · E[y | on] in place of each of N predictions: is a gene on, and how much then?

    Both follow from the plain prediction, as an assay set's models show on the other chromosomes of
    that cell, and neither falls where it rises: P(on) is isotonic, E[y | on] a line, at least the
    threshold. What a chromosome expresses so teaches nothing of itself.

    Args:
        predictions: as for `score_table`.
        threshold: from which a gene is on, in the unit of expression.

    Returns:
        In log2(expression + 1); NaN where no other chromosome was tested.
    """
    made, least = np.full(len(predictions), np.nan), np.log2(threshold + 1)
    x, y = (predictions[name].to_numpy(float) for name in ("predicted", "observed"))
    chrom = pd.factorize(predictions["chrom"])[0]
    for rows in predictions.groupby(["cell", "assays"], observed=True).indices.values():
        for own in np.unique(chrom[rows]):
            test, rest = rows[chrom[rows] == own], rows[chrom[rows] != own]
            if rest.size:
                made[test] = _of_two_parts(x[test], x[rest], y[rest], least)
    return made


def _of_two_parts(
    at: Float[np.ndarray, "N"],
    x: Float[np.ndarray, "G"],
    y: Float[np.ndarray, "G"],
    least: float,
) -> Float[np.ndarray, "N"]:
    """P(y >= least) · E[y | y >= least] for predictions `at`, from others and what was observed."""
    values, place, times = np.unique(x, return_inverse=True, return_counts=True)
    on = y >= least
    share = np.bincount(place, on) / times
    chance = np.interp(at, values, scipy.optimize.isotonic_regression(share, weights=times).x)
    if not on.any():
        return chance  # 0
    x, y = x[on], y[on]
    spread = x.var()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 0 else 0.0
    return chance * np.maximum(least, y.mean() + max(0.0, slope) * (at - x.mean()))


def labelled(predictions: pd.DataFrame) -> bool:
    """Whether all that was observed are labels, 0 or 1."""
    return bool(predictions["observed"].isin([0, 1]).all())


@jax.jit
def _score(
    values: dict[str, Float[Array, "B G"] | Bool[Array, "B G"]], mask: Bool[Array, "B G"]
) -> Float[Array, "M B"]:
    """`METRICS`, then whether prediction and observation are constant, of B groups of genes."""
    observed, predicted = values["observed"], values["predicted"]
    moments = metrics.Moments.of(observed, predicted, mask)
    ranks = values["observed rank"], values["predicted rank"]
    auc = metrics.auc(ranks[1], values["label"], mask)
    scored = {
        "pearson": moments.pearson(),
        # Constant in value, not in rank: rounding noise has ranks too.
        "spearman": jnp.where(moments.constant(), 0, metrics.spearman(*ranks, mask)),
        "r2": moments.r2(),
        "mse": moments.mse(),
        "auc": jnp.where(moments.constant_predicted() & ~jnp.isnan(auc), 0.5, auc),
        "pearson_raw": metrics.Moments.of(
            values["observed_raw"], values["predicted_raw"], mask
        ).pearson(),
    }
    constant = [moments.constant_predicted(), moments.constant_observed()]
    return jnp.stack([*(scored[name] for name in METRICS), *constant])


def _above_median(predictions: pd.DataFrame) -> np.ndarray:
    """Whether a gene's expression is above the median of its cell's genes, each counted once.

    Where only labels were observed, 0 or 1, these are the answer.
    """
    if labelled(predictions):
        return predictions["observed"].to_numpy() == 1
    label = np.zeros(len(predictions), bool)
    for rows in predictions.groupby("cell").indices.values():
        part = predictions.iloc[rows]
        median = part.drop_duplicates("gene_id")["observed"].median()
        label[rows] = part["observed"].to_numpy() > median
    return label


def _check_predictions(predictions: pd.DataFrame) -> None:
    where = "predictions"
    columns = list(predictions.columns)
    keys = [*RUN, "gene_id", "chrom"]
    if missing := [name for name in keys + VALUES if name not in columns]:
        raise InputError(where, f"columns {columns}", f"also {missing}", "predict again")
    if predictions.empty:
        raise InputError(where, "no rows", "held-out genes of a run", "train a run to its end")
    with collect() as problems:
        if nameless := [name for name in keys if predictions[name].hasnans]:
            problems.add(where, f"empty {nameless}", "a value in every row", "predict again")
        for column in VALUES:
            broken = ~np.isfinite(predictions[column].to_numpy(float))
            if broken.any():
                runs = predictions.loc[broken, RUN].drop_duplicates().astype(str).to_numpy()
                which = listing(" ".join(run) for run in runs)
                found = f"{broken.sum()} values of {column} not finite ({which})"
                problems.add(where, found, "finite numbers", "leave out runs that diverged")
        twice = predictions.duplicated([*RUN, "gene_id"]).to_numpy()
        if twice.any():
            genes = listing(predictions["gene_id"].to_numpy()[twice])
            found = f"{twice.sum()} genes twice in a run ({genes})"
            problems.add(where, found, "one row a run and gene", "keep one prediction of each")
        if ALL in set(predictions["cell"]):
            problems.add(where, f'a cell named "{ALL}"', "another name", "rename the cell")
