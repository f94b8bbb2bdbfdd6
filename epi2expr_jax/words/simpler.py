"""Whether something simpler predicts better than the model, and where neither is shown to."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from epi2expr_jax.genome import listing
from epi2expr_jax.scores.comparison import called
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.units import percent
from epi2expr_jax.words.sentences import number

_MOST = 3  # leads that are told


def simpler_model(
    table: pd.DataFrame,
    simple: Collection[str],
    train_share: float = 1.0,
    whole: Collection[str] = (),
) -> str:
    """Whether something simpler predicts better than the first model.

    Args:
        table: from `comparison.compare_models`.
        simple: names of the models that are simpler.
        train_share: of its training genes that each run of the first model was given; simple models
            get them all.
        whole: names of those that read the store's whole window.
    """
    own = table["model"].iloc[0]
    rows = table[table["model"].isin(list(simple))]
    if rows.empty:
        return ""
    if train_share < 1:
        return (
            f"The simple models trained on all training genes, {own} on {percent(train_share)} "
            "of them: their leads are not compared."
        )
    told = rows[rows["lead_low"].notna()]  # of one predicted value there is no lead
    if told.empty:
        return (
            f"Whether a simple model predicts better than {own} cannot be told: there is too "
            "little data for an interval of its lead."
        )
    said, better = [], told[told["lead_low"] > 0]
    if len(better):
        said.append(_better(own, better, table[table["model"] == own]["assay"]))
        if wide := [name for name in whole if (better["model"] == name).any()]:
            reads = "reads" if len(wide) == 1 else "read"
            said.append(
                f"({listing(wide)} {reads} the store's whole window, which may be wider than what "
                f"{own} reads.)"
            )
    each = told[told["assay"] != ALL]
    each = each if len(each) else told
    most = each.groupby("assay", sort=False)[["lead_low", "lead_high"]].max()
    if won := [called(str(assay)) for assay in most.index[most["lead_high"] < 0]]:
        who = f"{own} predicts better (by Pearson r) than each of the simple models"
        said.append(f"{who} for {listing(won, 8)}.")
    level = most.index[(most["lead_low"] <= 0) & (most["lead_high"] >= 0)]
    if len(level):
        r = table[table["model"] == own].set_index("assay")["pearson"]
        level = sorted(level, key=lambda assay: -r[assay])
        best = each.sort_values("lead").groupby("assay").tail(1).set_index("assay", drop=False)
        said.append(
            f"For {listing(map(called, level), 8)} no difference is shown between {own} and the "
            "best of the simple models, which does not mean that there is none: "
            f"{_leads(own, best.loc[level], _MOST)}."
        )
    return " ".join(said)


def _better(own: str, better: pd.DataFrame, assays: pd.Series) -> str:
    """For how many assays, and by how much, the best of the simple models leads."""
    best = better.sort_values("lead", ascending=False).groupby("assay", sort=False).head(1)
    all_of, each = best[best["assay"] == ALL], best[best["assay"] != ALL]
    said, several = [], better["model"].nunique() > 1
    if len(each):
        named = [
            f"{row['assay']} ({row['model']} by {_lead(row)})" for row in each.to_dict("records")
        ]
        who = "Simpler models predict" if several else "A simpler model predicts"
        n = (assays != ALL).sum()
        of = f"{len(each)} of {n} assay{'' if n == 1 else 's'}"
        said.append(f"{who} better than {own} for {of}: {listing(named, 8)}.")
    for first in all_of.to_dict("records"):
        what = first["model"]
        if len(each):
            what = f"the best of them, {what}," if several else "it"
        does = "leads by" if len(each) else f"predicts better than {own}, by"
        said.append(f"Averaged over all assays {what} {does} {_lead(first)}.")
    return " ".join(said)


def _lead(row: Mapping[Any, Any]) -> str:
    """By how much a simple model leads, with its interval."""
    return f"{number(row['lead'])}, {number(row['lead_low'])} to {number(row['lead_high'])}"


def _leads(own: str, rows: pd.DataFrame, most: int) -> str:
    """By how much r of simple models exceeds that of the model, with intervals."""
    named = [
        f"r of {row['model']} less that of {own} is {number(row['lead'])} "
        f"({number(row['lead_low'])} to {number(row['lead_high'])}) for {called(row['assay'])}"
        for row in rows.to_dict("records")
    ]
    return listing(named, most)
