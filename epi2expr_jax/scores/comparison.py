"""Models compared on the same genes, folds and seeds: is one better, and how sure is that?

As in `ranking`, scores are taken within one model and one chromosome, and chromosomes are the unit
of uncertainty; models are paired by chromosome, so what makes a chromosome hard cancels out.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from epi2expr_jax.genome import listing
from epi2expr_jax.scores.intervals import (
    MIN_CHROMOSOMES,
    jackknife,
    score_cube,
    shared_units,
    training_variance,
    weighted_mean,
)
from epi2expr_jax.scores.table import ALL

COLUMNS = ["assay", "model", "pearson", "low", "high", "lead", "lead_low", "lead_high", "auc",
           "n_genes", "n_chromosomes"]  # fmt: skip


def compare_models(tables: Mapping[str, pd.DataFrame], confidence: float = 0.95) -> pd.DataFrame:
    """Score every model on the units (cell, fold, seed, chromosome) that all of them have.

    Args:
        tables: name of each model → its scores, from `table.score_table`. All were trained on
            one store with the same folds. The others are compared with the first.
        confidence: of the interval of each score, and of those of all leads together.

    Returns:
        One row an assay set that all models read, and model, with columns `COLUMNS`; the assay
        "all" averages over those sets. `lead` is by how much the model's Pearson r exceeds the
        first model's, paired by chromosome; the intervals of all leads hold together (Bonferroni),
        those of scores for one row each. They are NaN for fewer than three chromosomes, and apply
        to these cells.
    """
    shared_sets = set.intersection(*(set(scores["assays"]) for scores in tables.values()))
    kept = {name: t[t["assays"].isin(list(shared_sets))] for name, t in tables.items()}
    parts = [(assay, {name: t[t["assays"] == assay] for name, t in kept.items()})
             for assay in sorted(shared_sets)]  # fmt: skip
    groups = [(ALL, parts)] if len(parts) > 1 else []
    groups += [(part[0], [part]) for part in parts]
    leads = len(groups) * max(1, len(tables) - 1)
    rows = []
    for label, group in groups:
        rows += _compare(label, group, confidence, leads)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _compare(
    label: str, parts: list[tuple[str, dict[str, pd.DataFrame]]], confidence: float, leads: int
) -> list[dict]:
    """The rows of one assay, or of several averaged, among so many leads in all."""
    names = list(parts[0][1])
    stacked = []
    for assay, tables in parts:
        for name, scores in tables.items():
            # A cell of its own for each assay: so they are averaged like cells.
            cell = scores["cell"] + "\x1f" + assay
            stacked.append(scores.assign(assays=name, cell=cell))
    shared, _ = shared_units(score_cube(pd.concat(stacked)))
    if not shared.size or shared.sizes["assays"] < len(names):
        return []
    means = shared.mean(["fold", "seed"]).mean("cell").transpose("metric", "chrom", "assays")
    means = means.sel(assays=names)
    pearson, genes = means.sel(metric="pearson").values, means.sel(metric="n").values.mean(axis=1)
    K = len(genes)
    tails = (1 - confidence) / 2 / np.array([1, leads])
    reach, joint = stats.t.isf(tails, K - 1) if K >= MIN_CHROMOSOMES else (np.nan, np.nan)
    trained = shared.sel(metric="pearson", drop=True).mean("cell").sel(assays=names)
    trained = trained.transpose("fold", "seed", "chrom", "assays").values

    def estimate(contrast: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mean, spread = jackknife(contrast(pearson), genes)
        return mean, np.hypot(spread, np.sqrt(training_variance(contrast(trained), genes)))

    score, error = estimate(lambda values: values)
    lead, lead_error = estimate(lambda values: values - values[..., :1])
    auc = weighted_mean(means.sel(metric="auc").values, genes)
    return [
        {
            "assay": label,
            "model": name,
            "pearson": score[i],
            "low": score[i] - reach * error[i],
            "high": score[i] + reach * error[i],
            "lead": lead[i],
            "lead_low": lead[i] - joint * lead_error[i],
            "lead_high": lead[i] + joint * lead_error[i],
            "auc": auc[i],
            "n_genes": round(genes.sum()),
            "n_chromosomes": K,
        }
        for i, name in enumerate(names)
    ]


def simpler_model(table: pd.DataFrame, simple: Collection[str], train_share: float = 1.0) -> str:
    """Whether something simpler predicts better than the first model, in a sentence.

    Args:
        table: from `compare_models`.
        simple: names of the models that are simpler.
        train_share: of its training genes that each run of the first model was given; simple models
            get them all.
    """
    own = table["model"].iloc[0]
    rows = table[table["model"].isin(list(simple))]
    if rows.empty:
        return ""
    if train_share < 1:
        return (
            f"The simple models trained on all training genes, {own} on {train_share:.0%} of them: "
            "their leads are not compared."
        )
    better = rows[rows["lead_low"] > 0]
    if better.empty:
        return f"No simple model is shown to predict better than {own}."
    named = [
        f"{row.model} for {row.assay} "
        f"(by {row.lead:.3f}, {row.lead_low:.3f} to {row.lead_high:.3f})"
        for row in better.itertuples()
    ]
    return f"A simpler model predicts better than {own}: {listing(named, 8)}."
