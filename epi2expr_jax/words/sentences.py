"""Sentences on what is asked besides the ranking: is a gene on, and how
strongly, by class of genes, and compared with what needs no epigenome.

`study.statements` puts them where they belong.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.covariates import UNKNOWN, numeric, without_value
from epi2expr_jax.predict.baselines import COVARIATES, MEAN_OF_CELLS, MEAN_OF_OTHERS
from epi2expr_jax.predict.stack import STACK
from epi2expr_jax.scores.comparison import called
from epi2expr_jax.scores.intervals import ONE_VALUE
from epi2expr_jax.scores.table import ALL, BOTH, BY_EXPRESSION, ON
from epi2expr_jax.units import count, log2_of, unit_words

MOST_CLASSES = 4
_MOST_LEADS = 3  # that are told
_CHANCE = {"on": 0.5, "level": 0.0}


def number(value: float | int, digits: int = 3) -> str:
    """A number as sentences show it; a dash where there is none."""
    rounded = round(float(value), digits) + 0.0  # no minus before a rounded zero
    return f"{rounded:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def span(low: Any, high: Any) -> str:
    """An interval in a table of the terminal, 16 characters; `none` where there is none."""
    return f"{low:>6.3f} to {high:<6.3f}" if np.isfinite(low) else f"{'none':^16}"


def by_question(questions: pd.DataFrame, plain: pd.DataFrame, unit: str) -> tuple[str, bool]:
    """Which assay tells best whether a gene is on, and how much those express that are.

    Args:
        questions: from `ranking.rank_questions`.
        plain: the rows of one cell, or of "all", from `ranking.rank_assays`.
        unit: of expression, as in `units.EXPRESSION_UNITS`.

    Returns:
        The sentences, empty without both questions, and whether the two name different assays.
    """
    known = unit_words(unit)
    known = "" if known == "expression" else f" {known}"
    cell = plain["cell"].iloc[0]
    questions = questions[questions["cell"] == cell] if len(questions) else questions
    by = ["threshold", "question"]
    first = {
        (threshold, question): rows.sort_values(["rank", "assay"])
        for (threshold, question), rows in (questions.groupby(by) if len(questions) else ())
    }
    least = f"{ON[0]:g}"
    hurdle = {key: first.pop(key) for key in [*first] if key[1] == BOTH}.get((least, BOTH))
    if any((least, question) not in first for question in _CHANCE):
        return "", False
    on, level = (first[least, question] for question in _CHANCE)
    asked = {
        "on": f"Is a gene on (expression of at least {least}{known})?",
        "level": "How strongly are the genes expressed that are on?",
    }
    said = ["Asked as two questions.", asked["on"], _highest(on, "AUC", _CHANCE["on"])]
    rmse = f"; RMSE {number(level['rmse'].iloc[0], 2)} in {log2_of(unit)}"
    said += [asked["level"], _highest(level, "Spearman rho", _CHANCE["level"], rmse)]
    differ = on["assay"].iloc[0] != level["assay"].iloc[0]
    if differ:
        both = set(on["assay"][on["rank_low"] == 1]) & set(level["assay"][level["rank_low"] == 1])
        said.append(
            f"At 95 % confidence {'one of these' if len(both) > 1 else 'one assay'} could still be "
            f"best for both: {listing(sorted(both))}."
            if both
            else "At 95 % confidence no assay is best for both."
        )
    what = {"on": "whether a gene is on", "level": "how strongly"}
    others = [
        f"{rows['assay'].iloc[0]} for {what[str(question)]}, at {threshold}{known}"
        for (threshold, question), rows in first.items()
        if rows["assay"].iloc[0] != first[least, question]["assay"].iloc[0]
    ]
    if others:
        said.append(
            f"At other thresholds other assays are highest (not tested): {listing(others)}."
        )
    if hurdle is not None:
        first_of_both = hurdle["assay"].iloc[0]
        r = plain.set_index("assay")["pearson"][first_of_both]
        said += [
            "Both parts in one prediction of all genes (the chance that a gene is on, times what "
            "it then expresses):",
            _highest(hurdle, "Pearson r", 0.0),
            f"Predicting expression directly, {first_of_both} has r {number(r)}.",
        ]
    return " ".join(said), differ


def _highest(rows: pd.DataFrame, score: str, chance: float, more: str = "") -> str:
    """Which assay has the highest score, and which others could have it."""
    best, rivals = rows.iloc[0], rows["assay"].iloc[1:][rows["rank_low"].iloc[1:] == 1]
    interval = f"{number(best['low'])} to {number(best['high'])}"
    if not np.isfinite(best["low"]):
        interval = f"no interval: {best['note']}"
    has = f"has the highest {score}," if len(rows) > 1 else f"has {score}"
    said = f"{best['assay']} {has} {number(best['score'])} ({interval}{more})"
    if len(rivals) == len(rows) - 1 > 0 and not np.isfinite(best["low"]):
        said += "; which is best cannot be told"
    elif len(rivals):
        by = "" if np.isfinite(best["low"]) else "by the leads, "
        said += f"; {by}at 95 % confidence it could also be {listing(rivals, 12)}"
    elif len(rows) > 1 and best["rank_high"] == 1 and best["simultaneous_low"] > chance:
        said += "; it is shown to be the best"
        if rows.get("training_sd", pd.Series(0.0)).isna().all():
            said += " (noise of training left aside)"
    if np.isfinite(best["low"]) and not (rows["simultaneous_low"] > chance).any():
        which = "none is" if len(rows) > 1 else "it is not"
        said += f"; {which} shown to do better than chance ({chance:g})"
    return f"{said}."


def by_class(groups: pd.DataFrame, cell: str) -> str:
    """Which assay has the highest score in each class of genes.

    Args:
        groups: from `ranking.rank_assays`, told apart by a column `group`.
        cell: whose rows to tell, or "all".
    """
    if len(groups):
        groups = groups[(groups["cell"] == cell) & ~groups["group"].isin(BY_EXPRESSION)]
    if groups.empty:
        return ""
    rows = groups.rename(columns={"pearson": "score"}).sort_values(["rank", "assay"])
    rows = rows[~rows["group"].str.endswith(UNKNOWN)]
    parts = sorted(rows.groupby("group"), key=lambda part: -part[1]["n_genes"].iloc[0])
    said = [
        f"{name} ({count(int(part['n_genes'].iloc[0]), 'gene')}): "
        f"{_highest(part, 'Pearson r', 0.0)}"
        for name, part in parts[:MOST_CLASSES]
    ]
    left = len(parts) - MOST_CLASSES
    more = f" {left} more: groups.csv." if left > 0 else ""
    return (
        "By class of genes (intervals and ranks hold within each, not for all classes together). "
        f"{' '.join(said)}{more} Compare assays within a class; classes differ in how much there "
        "is to explain."
    )


def added(table: pd.DataFrame, covariates: pd.DataFrame, compared: pd.DataFrame) -> str:
    """What assays add to what is known of genes without any epigenome.

    Args:
        table: from `comparison.added_value`.
        covariates: from `inputs.covariates.covariates_of`.
        compared: from `comparison.compare_models`, for r of the covariates; may be empty.
    """
    if table.empty:
        return ""
    of = listing(numeric(covariates), 6)
    if lacking := without_value(covariates):
        verb = "counts" if lacking == 1 else "count"
        of += f"; {count(lacking, 'gene')} without a value {verb} as the middle one"
    known = f"ridge regression on what needs no epigenome ({of})"
    r2 = (
        f"R² {number(table['r2_without'].iloc[0])} (the share of variance explained, against each "
        "chromosome's own mean, which no model knows: chance lies somewhat below 0)"
    )
    own = compared[compared["model"] == COVARIATES] if len(compared) else compared
    r = f"Pearson r {number(own['pearson'].iloc[0])} and " if len(own) else ""
    said = f"On held-out genes {known} has {r}{r2}."
    if not np.isfinite(table["low"]).any():
        return f"{said} What assays add to it has no interval: there is too little data."
    shown, n = table[table["low"] > 0], len(table)
    if shown.empty:
        return f"{said} No assay is shown to add to that R²."
    most = [
        f"{row['assay']} {number(row['added'])} ({number(row['low'])} to {number(row['high'])})"
        for row in shown.head(3).to_dict("records")
    ]
    if n == 1:
        return f"{said} An assay raises the R² of the same regression: {most[0]} (added.csv)."
    return (
        f"{said} The same regression explains more with {len(shown)} of {count(n, 'assay')}; most "
        f"R² is added by {listing(most)} (simultaneous intervals; added.csv)."
    )


def interaction(table: pd.DataFrame, model: str, other: str) -> str:
    """Whether one approach gains more over another from some assays than from others.

    Args:
        table: from `comparison.interactions`.
        model, other: names of the approach that gains, and of the other.
    """
    if table.empty:
        return ""
    asked = f"Does r change more from {other} to {model} with some assays than with others?"
    if not np.isfinite(table["low"]).any():
        return f"{asked} That cannot be told: there is too little data for intervals."
    shown = table[table["low"] > 0]
    pairs = count(len(table), "pair") + " of assays"
    if shown.empty:
        return f"{asked} Of {pairs}, none is shown to differ."
    said = [
        f"by {row['gain']:+.3f} with {row['assay']}, by {row['gain_other']:+.3f} with "
        f"{row['other']}: {number(row['difference'])} more ({number(row['low'])} to "
        f"{number(row['high'])})"
        for row in shown.head(3).to_dict("records")
    ]
    said = "; ".join(said).replace("-", "−")
    verb = "is" if len(shown) == 1 else "are"
    return (
        f"{asked} Of {pairs} {len(shown)} {verb} shown to differ, their intervals taken together: "
        f"{said}."
    )


def beyond_mean(compared: pd.DataFrame, own: pd.DataFrame) -> str:
    """Whether models tell more of a cell than the mean of other cells, and what is its own.

    Args:
        compared: from `comparison.compare_models`, the run's own model first.
        own: from `ranking.rank_assays`, of deviations from the mean of the cells.
    """
    means = (MEAN_OF_CELLS, MEAN_OF_OTHERS)
    rows = compared[compared["model"].isin(means)] if len(compared) else compared
    rows = rows[rows["assay"] != ALL] if len(rows) > 1 else rows
    if rows.empty:
        return ""
    model, name = compared["model"].iloc[0], rows["model"].iloc[0]
    mean = f"the {name}, which needs no epigenome"
    better, worse = (
        listing(rows["assay"][which], 12) for which in (rows["lead_low"] > 0, rows["lead_high"] < 0)
    )
    said = [f"{mean}, predicts better than {model} for {better}"] if better else []
    said += [f"{model} predicts better than {mean}, for {worse}"] if worse else []
    open_to = rows[(rows["lead_low"] <= 0) & (rows["lead_high"] >= 0)]
    named = [
        f"for {called(row['assay'])} the lead of {model} is {number(-row['lead'])} "
        f"({number(-row['lead_high'])} to {number(-row['lead_low'])})"
        for row in open_to.to_dict("records")
    ]
    apart = "cannot be told apart: " + (
        listing(named, _MOST_LEADS) if named else "there is too little data"
    )
    if said and named:
        said.append(f"the two {apart}")
    either = "; ".join(said) or f"{model} and {mean}, {apart}"
    if name == MEAN_OF_CELLS:
        return f"In cells new to the models: {either}."
    either = f"{either[:1].upper()}{either[1:]}." if either.startswith("the ") else f"{either}."
    if own.empty:
        return either
    rows = own[own["cell"] == own["cell"].iloc[0]]
    return (
        f"{either} Of what is a cell's own (deviations from the mean of the cells): "
        f"{_highest(rows.rename(columns={'pearson': 'score'}), 'Pearson r', 0.0)}"
    )


def changes(table: pd.DataFrame) -> str:
    """How well models tell what differs between two cells.

    Args:
        table: from `across_cells.score_changes`.
    """
    if table.empty:
        return ""
    cell, other = table[["cell", "other"]].iloc[0]
    names = table["assays"].where(
        table.groupby("assays")["trained_on"].transform("size") == 1,
        table["assays"] + " trained on " + table["trained_on"],
    )
    best = table.iloc[0]
    interval = f"{number(best['low'])} to {number(best['high'])}"
    interval = interval if np.isfinite(best["low"]) else "no interval: too little data"
    said = [
        f"What differs between {cell} and {other}, on genes held out: of "
        f"{count(len(table), 'model')}, {names.iloc[0]} has the highest Pearson r between the "
        "difference of its predictions and that of expression, "
        f"{number(best['pearson'])} ({interval})."
    ]
    for name, better, worse, rival in (
        ("less", "smaller squared errors", "larger ones", "no change"),
        ("lead", "a higher r", "a lower one", "the difference of promoter means"),
    ):
        shown, beaten = names[table[f"{name}_low"] > 0], names[table[f"{name}_high"] < 0]
        verbs = ["are shown to have" if len(n) > 1 else "is shown to have" for n in (shown, beaten)]
        line = f"{listing(shown, 8) or 'None'} {verbs[0]} {better} than {rival}"
        if len(beaten):
            line += f"; {listing(beaten, 8)} {verbs[1]} {worse}"
        said.append(f"{line}.")
    return f"{' '.join(said)} (Each at 95 % confidence for all models together; between_cells.csv.)"


def stack(compared: pd.DataFrame) -> str:
    """What the stack of the model and simple ones predicts, and what that does not say."""
    rows = compared[compared["model"] == STACK] if len(compared) else compared
    if rows.empty:
        return ""
    row, own = rows.iloc[0], compared["model"].iloc[0]
    idle = rows["assay"][one_value(rows) & (rows["assay"] != ALL)]
    nothing = f"for {listing(idle, 12)} it chose nothing: {ONE_VALUE}"
    which = f"The stack, a weighted mean of {own} and simple models"
    if one_value(rows)[0]:
        return f"{which}, predicts nothing: {nothing}."
    lead = f"a lead of {number(row['lead'])}"
    if np.isfinite(row["lead_low"]):
        lead += f" ({number(row['lead_low'])} to {number(row['lead_high'])})"
    said = (
        f"{which}, has r {number(row['pearson'])} for {called(row['assay'])}: {lead} over {own}. "
        "It is a prediction, no measure of what an assay is worth; ranking_stack.csv ranks the "
        "assays by it."
    )
    if not len(idle):
        return said
    return f"{said} {nothing[:1].upper()}{nothing[1:]} (0 in the mean over assays)."


def one_value(rows: pd.DataFrame) -> Bool[np.ndarray, "N"]:
    """Which rows of a table of scores are of predictions that do not differ between genes."""
    note = rows["note"] if "note" in rows else pd.Series("", rows.index)
    return (note == ONE_VALUE).to_numpy()


def control(card: dict[str, Any]) -> str:
    """What makes a run a control, from its card; empty for any other run."""
    if card["input_config"].get("shuffle_regions"):
        return "each gene read the regions of another gene (--shuffle_regions)"
    if any(part["model_config"].get("contacts") == 0 for part in card["populations"]):
        return "its models read the promoter alone, no regions (--no_pcre)"
    return ""


def of_late(late: int, runs: int) -> str:
    """Of runs whose last epoch was their best."""
    return (
        f"{late} of {count(runs, 'run')} were best in the last epoch that they could take: they "
        "may not have learned all they can; the same training with more --epochs goes on there."
    )


def of_control(name: str, what: str) -> str:
    """What the scores of a control are for.

    Args:
        name: of the run.
        what: from `control`.
    """
    return (
        f"Run {name} is a control: {what}. Its scores are there to be compared with those of the "
        "same model that reads each gene's own regions (experiments.report --compare), not to say "
        "which assay predicts best."
    )


def copies(rows: pd.DataFrame, table: pd.DataFrame, without: pd.DataFrame) -> str:
    """Which genes are alike, and what the scores are without those that a model so knew.

    Args:
        rows: of the answer, from `ranking.rank_assays`.
        table: from `inputs.gene_groups`: genes that are alike.
        without: as `rows`, of the test genes that are like none trained on.
    """
    if table.empty:
        return ""
    names = table.groupby("group", sort=False)["gene"].agg(", ".join)
    said = (
        f"{count(table['gene'].nunique(), 'gene')} in {count(len(names), 'group')} are like "
        "others, as copies seen in the signal or as the table of --gene_groups names them "
        f"({listing(names)}; copies.csv)."
    )
    lost = table.loc[table["leaked"] > 0, "gene"].nunique()
    if not lost:
        return f"{said} No model was tested on a gene that is like one it was trained on."
    if without.empty:
        return f"{said} Without the {count(lost, 'test gene')} like one trained on, none is left."
    both = rows.merge(without, on=["cell", "assay"], suffixes=("", "_without"))
    said += f" Without the {count(lost, 'test gene')} like one trained on, "
    gone = both[(both["low"] > 0) & ~(both["low_without"] > 0)]["assay"]
    first = both.iloc[0]
    said += (
        f"r of {first['assay']} is {number(first['pearson_without'])} "
        f"({number(first['low_without'])} to {number(first['high_without'])}) instead of "
        f"{number(first['pearson'])}"
    )
    least = both.iloc[(both["pearson"] - both["pearson_without"]).argmax()]
    if least["assay"] != first["assay"]:
        said += (
            f", that of {least['assay']} {number(least['pearson_without'])} "
            f"({number(least['low_without'])} to {number(least['high_without'])}) instead of "
            f"{number(least['pearson'])}"
        )
    if len(gone):
        said += f"; no longer above 0: {listing(gone, 12)}"
    return f"{said} (ranking_without_copies.csv)."
