"""Models compared on the same genes, folds and seeds: is one better, and how sure is that?

As in `ranking`, scores are taken within one model and one chromosome, and chromosomes are the unit
of uncertainty; models are paired by chromosome, so what makes a chromosome hard cancels out.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from epi2expr_jax.scores.intervals import (
    MIN_CHROMOSOMES,
    jackknife,
    score_cube,
    shared_units,
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
        confidence: of every interval.

    Returns:
        One row an assay set that all models read, and model, with columns `COLUMNS`; the assay
        "all" averages over those sets. `lead` is by how much the model's Pearson r exceeds the
        first model's, paired by chromosome. Intervals hold for one row each, are NaN for fewer than
        three chromosomes, and apply to these cells.
    """
    shared_sets = set.intersection(*(set(scores["assays"]) for scores in tables.values()))
    kept = {name: t[t["assays"].isin(list(shared_sets))] for name, t in tables.items()}
    parts = [(assay, {name: t[t["assays"] == assay] for name, t in kept.items()})
             for assay in sorted(shared_sets)]  # fmt: skip
    rows = []
    if len(parts) > 1:
        rows += _compare(ALL, parts, confidence)
    for part in parts:
        rows += _compare(part[0], [part], confidence)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _compare(
    label: str, parts: list[tuple[str, dict[str, pd.DataFrame]]], confidence: float
) -> list[dict]:
    """The rows of one assay, or of several averaged."""
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
    reach = stats.t.isf((1 - confidence) / 2, K - 1) if K >= MIN_CHROMOSOMES else np.nan
    score, error = jackknife(pearson, genes)
    lead, lead_error = jackknife(pearson - pearson[:, :1], genes)
    auc = weighted_mean(means.sel(metric="auc").values, genes)
    return [
        {
            "assay": label,
            "model": name,
            "pearson": score[i],
            "low": score[i] - reach * error[i],
            "high": score[i] + reach * error[i],
            "lead": lead[i],
            "lead_low": lead[i] - reach * lead_error[i],
            "lead_high": lead[i] + reach * lead_error[i],
            "auc": auc[i],
            "n_genes": round(genes.sum()),
            "n_chromosomes": K,
        }
        for i, name in enumerate(names)
    ]
