"""What is not shown: on how little all rests, which assays may not predict, what calls say more."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy

from epi2expr_jax.genome import listing
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.units import count, percent
from epi2expr_jax.words.caveats import FEW_CHROMOSOMES
from epi2expr_jax.words.sentences import number, one_value

FEW_GENES = 1000  # a convention: at r = 0.6 the 95 % interval of r on so many genes is ±0.04
_MOST = 3  # assays of which more is told
_P = 0.05  # from here on an effect differs from those of the mark permuted
_STRANGE = 0.05  # of edits, outside of what was trained on
NO_TABLE = pd.DataFrame()


def few(rows: pd.DataFrame, chromosomes: int) -> str:
    """On how few genes and chromosomes all rests; empty if there are enough.

    Args:
        rows: of the answer, from `ranking.rank_assays`.
        chromosomes: how many the data hold, the training ones included; 0: not known.
    """
    if rows.empty:
        return ""
    genes, tested = (int(n) for n in rows[["n_genes", "n_chromosomes"]].iloc[0])
    said = []
    if genes < FEW_GENES and len(rows) == 1:
        said.append(
            "On other genes the score may well be another one. Take it as a first look, not as a "
            "finding."
        )
    elif genes < FEW_GENES and not clear(rows):
        said.append(
            f"With fewer than {FEW_GENES:,} genes, assays that score alike can seldom be told "
            "apart, and their order may well be another one on other genes. Take it as a first "
            "look, not as a finding."
        )
    if tested < FEW_CHROMOSOMES:
        said.append("So few chromosomes say little about others.")
        if tested < chromosomes:
            cv = f"--cv=chromosomes_{min(5, chromosomes)}"
            said.append(f"The data hold {chromosomes}: {cv} tests on every one of them.")
    if not said:
        return ""
    rest = f"{count(genes, 'held-out gene')} on {count(tested, 'chromosome')}"
    scores = "all scores rest" if len(rows) > 1 else "the score rests"
    return " ".join([f"Few data: {scores} on {rest}.", *said])


def clear(rows: pd.DataFrame) -> bool:
    """Whether one of several assays is shown to be the best."""
    return len(rows) > 1 and int(rows["rank_high"].iloc[0]) == 1


def _not_above_0(rows: pd.DataFrame) -> pd.Series:
    return (rows["simultaneous_low"] <= 0) | one_value(rows)


def all_unproven(rows: pd.DataFrame) -> bool:
    """Whether of no assay it is shown that it predicts."""
    return bool(_not_above_0(rows).all())


def verb(who: str, labels: bool) -> str:
    """What an assay, or several, does if it predicts."""
    does, what = ("tell", "expressed genes from others") if labels else ("predict", "expression")
    return f"{who} {does}{'s' if who == 'it' else ''} {what}".strip()


def unproven(
    rows: pd.DataFrame,
    labels: bool,
    scores: pd.DataFrame,
    compared: pd.DataFrame,
    simple: Collection[str],
) -> str:
    """Of which assays it is not shown that they predict, what that hangs on, and what else does.

    Args:
        rows: of the answer, from `ranking.rank_assays`.
        labels: whether the models tell expressed genes from others.
        scores: from `table.score_table`.
        compared: from `comparison.compare_models`; may be empty.
        simple: names of simple models that read the signal of an assay.
    """
    if rows.empty:
        return ""
    idle = pd.Series(one_value(rows), rows.index)
    below = (rows["simultaneous_high"] <= 0) & ~idle
    unsure = (rows["simultaneous_low"] <= 0) & ~below & ~idle
    said, of = [], count(len(rows), "assay")
    if not all_unproven(rows):  # else the answer says so
        if unsure.any():
            who = verb("it" if unsure.sum() == 1 else "they", labels)
            most = number(rows["simultaneous_high"][unsure].max())
            said.append(
                f"For {unsure.sum()} of {of} it cannot be told whether {who} at all: the "
                f"simultaneous interval of r includes 0 ({listing(rows['assay'][unsure], 12)}); at "
                f"95 % for all assays together, r is at most {most} there."
            )
        if idle.any():
            said.append(
                f"For {idle.sum()} of {of} one value is predicted for all genes, which is no score "
                f"({listing(rows['assay'][idle], 12)})."
            )
    if below.any():
        said.append(
            f"For {below.sum()} of {of} the simultaneous interval of r lies below 0 "
            f"({listing(rows['assay'][below], 12)}): the models predict more where there is less."
        )
    said += _hangs_on(rows[unsure & (rows["pearson"] > 0)], scores)
    said += _known_otherwise(rows["assay"][_not_above_0(rows)], compared, simple)
    return " ".join(said)


def _hangs_on(rows: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """Of which assays one chromosome, and no other, makes the interval include 0."""
    if rows.empty:
        return []
    without = ranking.without_each(scores, str(rows["cell"].iloc[0]))
    without = without[without["simultaneous_low"] > 0]
    last = without.drop_duplicates("assay", keep=False).set_index("assay")
    named = [
        f"{last['chrom'][assay]} (r {number(last['pearson'][assay])} there; without it the "
        f"simultaneous interval is {number(last['simultaneous_low'][assay])} to "
        f"{number(last['simultaneous_high'][assay])})"
        for assay in rows["assay"]
        if assay in last.index
    ]
    if not named:
        return []
    names = [assay for assay in rows["assay"] if assay in last.index]
    if len(named) == 1:
        said = f"For {names[0]} the interval includes 0 because of one chromosome, {named[0]}."
    else:
        each = [f"for {assay} {why}" for assay, why in zip(names, named, strict=True)]
        said = f"The interval includes 0 because of one chromosome {listing(each, _MOST)}."
    return [f"{said} Leaving it out proves nothing, but look at what is different there."]


def _known_otherwise(
    names: pd.Series, compared: pd.DataFrame, simple: Collection[str]
) -> list[str]:
    """From which of these assays a simple model is shown to predict."""
    if compared.empty:
        return []
    rows = compared[compared["model"].isin(list(simple)) & (compared["assay"] != ALL)]
    rows = rows[rows["low"].notna()]
    if rows.empty:
        return []
    tail, degrees = 0.025, rows["n_chromosomes"] - 1
    wider = scipy.stats.t.isf(tail / len(rows), degrees) / scipy.stats.t.isf(tail, degrees)
    rows = rows.assign(joint=rows["pearson"] - (rows["pearson"] - rows["low"]) * wider)
    rows = rows[rows["assay"].isin(list(names)) & (rows["joint"] > 0)].sort_values("joint")
    best = rows.groupby("assay", sort=False).tail(1).set_index("assay")
    named = [
        f"{best['model'][assay]} from {assay}, r {number(best['pearson'][assay])}"
        for assay in names
        if assay in best.index
    ]
    if not named:
        return []
    own, these = compared["model"].iloc[0], "this assay" if len(named) == 1 else "these assays"
    return [
        f"Simple models are shown to predict where {own} is not: {listing(named, _MOST)} (all "
        f"simple models and assays taken together). So the signal of {these} does carry "
        "information."
    ]


def calls(called: pd.DataFrame, rows: pd.DataFrame) -> str:
    """How many comparisons are called, and why that may differ from the answer.

    Args:
        called: from `comparison.calls`.
        rows: of the answer, from `ranking.rank_assays`.
    """
    if called.empty:
        return ""
    if called["p"].isna().all():
        return "No comparison in calls.csv is tested: there is too little data for an interval."
    more = _against_the_answer(called, rows) if len(rows) else ""
    if len(rows) and rows["n_cells"].iloc[0] == 1:  # "all" is one cell: its rows stand there twice
        called = called[called["cell"] != ALL]
    called = called[called["p"].notna()]
    several, pair = called["cell"].nunique() > 1, called["other"].ne("")
    where = ", every pair of assays" if pair.any() else ""
    where += ", in each cell" if several else ""
    where += " and over all cells" if ALL in set(called["cell"]) else ""
    yes = called["called"].astype(bool)
    n, apart = int(yes.sum()), ""
    if pair.any():
        pairs = count(int(pair.sum()), "pair")
        apart = f": {yes[~pair].sum()} of {count(int((~pair).sum()), 'score')}, "
        apart += f"{yes[pair].sum()} of {pairs}"
    return (
        f"Of {count(len(called), 'comparison')} (every score against 0{where}), {n} "
        f"{'is' if n == 1 else 'are'} significant at a false discovery rate of 5 % "
        f"(Benjamini–Hochberg){apart}; calls.csv lists them.{more}"
    )


def _against_the_answer(called: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What is called of the first assay, and left open by the answer; or the other way round."""
    best, first = rows["assay"].iloc[0], rows["rank_low"].to_numpy() == 1
    here = called[(called["cell"] == rows["cell"].iloc[0]) & (called["assay"] == best)]
    over = set(here["other"][here["called"].astype(bool)]) - {""}
    more = [assay for assay in rows["assay"][first] if assay in over]
    if more:
        return (
            f" Among them {best} is better than {listing(more, 12)}, which the answer leaves open: "
            "the answer holds for all pairs at once, at 95 %; among the comparisons called, up to "
            "5 % are expected to be wrong."
        )
    less = [assay for assay in rows["assay"].iloc[1:] if assay not in over] if clear(rows) else []
    if less and np.isfinite(here["p"]).any():
        return (
            f" Not among them: that {best} is better than {listing(less, 12)}, which the answer "
            "does say; calls.csv corrects for the comparisons in every cell as well."
        )
    return ""


def is_best(row: Mapping[Any, Any]) -> str:
    """Whether the assay with the highest score of some genes is the best.

    Args:
        row: of `agreement.best_assays`.
    """
    idle = "not shown to predict"
    if not np.isfinite(row["low"]):  # leads may have intervals where scores have none
        if row["n_assays"] == 1:
            return "the only one"
        if row["beats_all"]:
            return "yes, by its lead over each other"
        few = row["rivals"] and row["rivals"].count(", ") + 2 < row["n_assays"]
        return f"by leads alone, could also be {row['rivals']}" if few else "cannot be told"
    if row["n_assays"] == 1:
        return "the only one" if row["predicts"] else f"the only one, {idle}"
    if row["rivals"]:
        either = f"could also be {row['rivals']}"
        return either if row["predicts"] else f"{idle}; {either}"
    if not row["predicts"]:
        return idle
    return (
        "yes"
        if row["beats_all"]
        else "no other assay can be the best, but it is not shown to beat every one"
    )


def altered(
    means: pd.DataFrame,
    null: pd.DataFrame = NO_TABLE,
    shown: pd.DataFrame = NO_TABLE,
    permutable: bool = True,
) -> str:
    """Whether any mean effect of an altered mark is shown.

    Args:
        means: from `perturb.summary.mean_effects`; may be empty.
        null: from `perturb.mark_null.compare`; may be empty.
        shown: rows of the means that are shown beside this.
        permutable: whether --null can be asked for, see `perturb.mark_null.permutable`.
    """
    told = means[means["low"].notna() & (means["factor"] != 1)] if len(means) else means
    said, apart = [], 0
    if n := len(told):
        apart = int(((told["low"] > 0) | (told["high"] < 0)).sum())
        of = "the mean effect" if n == 1 else f"each of the {n} mean effects"
        if not apart:
            none = "The" if len(null) else "No effect is shown: the"
            said.append(f"{none} 95 % interval of {of} includes 0.")
        elif n > 1:
            said.append(
                f"Of {n} mean effects (cells, models, places and changes) {apart} "
                f"{'has' if apart == 1 else 'have'} a 95 % interval without 0, each by itself: of "
                "effects that are truly 0, one in twenty would also look like this."
            )
    strange = shown["outside"].mean() if len(shown) else 0.0
    if (apart or not len(told)) and null.empty and strange >= _STRANGE:
        said.append(
            f"In the edits shown, the altered signal of {percent(strange)} of genes is outside the "
            "range that the models trained on; there predictions move even if the mark tells "
            "nothing: "
            + ("--null=19 shows by how much." if permutable else "trust these effects less.")
        )
    null = null[null["p"].notna()] if len(null) else null
    if len(null) and (least := 1 / (1 + null["permutations"].max())) > _P:
        said.append(
            f"With {count(int(null['permutations'].max()), 'permutation')} p is at least "
            f"{number(least)}: whether an effect differs from those of the mark permuted cannot be "
            "told. --null=19 or more can tell."
        )
    elif len(null):
        far, of = int((null["p"] <= _P).sum()), f"Of {count(len(null), 'mean effect')} "
        who = f"{far} {'differs' if far == 1 else 'differ'}" if far else "none differs"
        if len(null) == 1:
            of, who = "The mean effect ", "differs" if far else "is not shown to differ"
        alone = ", each by itself" if len(null) > 1 else ""
        said.append(
            f"{of}{who} from those of the mark permuted (p at most {_P}{alone}). A mark that tells "
            "nothing beyond the others has effects like those, which need not lie about 0."
        )
    return " ".join(said)
