"""Models compared on the same genes, folds and seeds: is one better, and how sure is that?

As in `ranking`, scores are taken within one model and one chromosome, and chromosomes are the unit
of uncertainty; models are paired by chromosome, so what makes a chromosome hard cancels out.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy

from epi2expr_jax.scores.intervals import (
    ONE_VALUE,
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
from epi2expr_jax.scores.table import ALL

COLUMNS = ["assay", "model", "pearson", "low", "high", "lead", "lead_low", "lead_high", "auc",
           "n_genes", "n_chromosomes", "note"]  # fmt: skip
INTERACTIONS = ["assay", "other", "gain", "gain_other", "difference", "low", "high", "n_genes",
                "n_chromosomes"]  # fmt: skip
ADDED = ["assay", "r2_without", "r2", "added", "low", "high", "n_genes", "n_chromosomes"]


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
        those of scores for one row each. They are NaN where `intervals.no_interval` says why, or
        where a model predicts one value (its `note` then says so), and apply to these cells.
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


def added_value(without: pd.DataFrame, both: pd.DataFrame) -> pd.DataFrame:
    """What assays add to what is known of genes without them: nested out-of-fold ΔR².

    Args:
        without, both: scores of one kind of model on the same folds, without and with the assays.

    Returns:
        One row an assay set with columns `ADDED`, the one that adds most first: `added` is by how
        much R² rises, paired by chromosome; the intervals of all hold together.
    """
    tables = {"without": without, "both": both}
    # What is compared goes by the name of Pearson r there.
    table = compare_models({name: t.assign(pearson=t["r2"]) for name, t in tables.items()})
    table = table[table["assay"] != ALL]
    first = table[table["model"] == "without"].set_index("assay")["pearson"]
    rows = table[table["model"] == "both"].rename(
        columns={"pearson": "r2", "lead": "added", "low": "_", "high": "__"}
    ).rename(columns={"lead_low": "low", "lead_high": "high"})  # fmt: skip
    rows["r2_without"] = rows["assay"].map(first)
    return rows.sort_values("added", ascending=False, kind="stable")[ADDED]


def interactions(
    first: pd.DataFrame, second: pd.DataFrame, confidence: float = 0.95
) -> pd.DataFrame:
    """From which assays a second model gains more over the first than from others.

    Args:
        first, second: scores of two models of the same assay sets, cells, folds and target.
        confidence: of all differences together (Bonferroni).

    Returns:
        One row a pair of assay sets with columns `INTERACTIONS`: `gain` is by how much Pearson r
        of the second model exceeds that of the first with `assay`, `gain_other` with `other`, whose
        gain is the smaller; `difference` of the two with its interval, paired by chromosome on the
        units (cell, fold, seed, chromosome) that both models have of all the sets. Intervals are
        NaN where `intervals.no_interval` says why.
    """
    sets = sorted({*first["assays"]} & {*second["assays"]})
    names = [f"{side}\x1f{assay}" for side in (1, 2) for assay in sets]
    stacked = [
        t.assign(assays=f"{side}\x1f" + t["assays"]) for side, t in ((1, first), (2, second))
    ]
    stacked = pd.concat(stacked)
    shared, _ = shared_units(score_cube(stacked[stacked["assays"].isin(names)]))
    if len(sets) < 2 or not shared.size or shared.sizes["assays"] < len(names):
        return pd.DataFrame({}, columns=pd.Index(INTERACTIONS))
    shared, A = shared.sel(assays=names), len(sets)
    means = chromosome_means(shared)
    genes = means.sel(metric="n").values.mean(axis=1)
    one, other = np.triu_indices(A, 1)

    def gains(values: np.ndarray) -> np.ndarray:
        return values[..., A:] - values[..., :A]

    def differ(values: np.ndarray) -> np.ndarray:
        return gains(values)[..., one] - gains(values)[..., other]

    pearson = means.sel(metric="pearson").values
    found, error, degrees = estimate(differ(pearson), differ(training_scores(shared)), genes)
    reach = scipy.stats.t.isf((1 - confidence) / 2 / len(one), degrees) * error
    gain, turned = weighted_mean(gains(pearson), genes), found < 0
    more, less = np.where(turned, other, one), np.where(turned, one, other)
    table = pd.DataFrame(
        {
            "assay": np.array(sets)[more],
            "other": np.array(sets)[less],
            "gain": gain[more],
            "gain_other": gain[less],
            "difference": np.abs(found),
            "low": np.abs(found) - reach,
            "high": np.abs(found) + reach,
            "n_genes": round(genes.sum()),
            "n_chromosomes": len(genes),
        }
    )
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


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
    shared = shared.sel(assays=names)
    means = chromosome_means(shared)
    pearson, genes = means.sel(metric="pearson").values, means.sel(metric="n").values.mean(axis=1)
    K = len(genes)
    tails = (1 - confidence) / 2 / np.array([1, leads])
    trained = training_scores(shared)
    score, error, degrees = estimate(pearson, trained, genes, correlation=True)
    why = no_interval(genes, correlation=True)
    reach = (np.nan if why else scipy.stats.t.isf(tails[0], degrees)) * error
    paired = [values - values[..., :1] for values in (pearson, trained)]
    lead, lead_error, degrees = estimate(*paired, genes)
    joint = scipy.stats.t.isf(tails[1], degrees) * lead_error
    auc = weighted_mean(means.sel(metric="auc").values, genes)
    one_value = predicts_one_value(shared)
    reach, joint = (np.where(one_value, np.nan, width) for width in (reach, joint))
    low, high = clip_interval(score, reach)
    return [
        {
            "assay": label,
            "model": name,
            "pearson": score[i],
            "low": low[i],
            "high": high[i],
            "lead": lead[i],
            "lead_low": lead[i] - joint[i],
            "lead_high": lead[i] + joint[i],
            "auc": auc[i],
            "n_genes": round(genes.sum()),
            "n_chromosomes": K,
            "note": ONE_VALUE if one_value[i] else why,
        }
        for i, name in enumerate(names)
    ]


def calls(scores: pd.DataFrame, rate: float = 0.05) -> pd.DataFrame:
    """Which assays predict at all, and which predicts better than which.

    All p-values, two-sided from the chromosome jackknife-t, go into one Benjamini–Hochberg
    correction (1995): of all calls together a share of at most `rate` is expected to be false.

    Args:
        scores: from `score_table`.

    Returns:
        One row a cell ("all" first), assay and `other`, which is another assay, or empty where the
        score is compared with 0: `lead`, `p`, `q` and whether it is `called`. The better assay
        comes first. NaN and no call for fewer chromosomes than an interval takes.
    """
    cube = score_cube(scores)
    rows = []
    for cell in (ALL, *cube["cell"].values):
        shared, _ = shared_units(cube if cell == ALL else cube.sel(cell=[cell]))
        if not shared.size:
            continue
        means = chromosome_means(shared)
        pearson, genes = means.sel(metric="pearson").values, means.sel(metric="n").values.mean(1)
        names = means["assays"].values.astype(str)
        first, second = np.triu_indices(len(names), 1)

        def compared(values: np.ndarray, first=first, second=second) -> np.ndarray:
            return np.concatenate([values, values[..., first] - values[..., second]], axis=-1)

        lead, error, degrees = estimate(compared(pearson), compared(training_scores(shared)), genes)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * scipy.stats.t.sf(np.abs(lead) / error, degrees)
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
        table.loc[known, "q"] = scipy.stats.false_discovery_control(table.loc[known, "p"])
    return table.assign(called=table["q"] <= rate)


def called(assay: str) -> str:
    """An assay set as readers know it; `ALL` stands for the mean of the scores of all of them."""
    return "the mean over assays" if assay == ALL else assay
