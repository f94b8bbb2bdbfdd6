"""What is said of a run: every sentence, the same for the terminal and the page.

Statements that need a test of their own are worked out where that test is: `scores.universal`,
`agreement`, `comparison`; others in `words`.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.genome import listing
from epi2expr_jax.predict.baselines import BASELINES, COVARIATES
from epi2expr_jax.predict.held_out import new_cells, tested_cells
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import agreement
from epi2expr_jax.scores.intervals import ONE_VALUE, TOO_FEW_GENES
from epi2expr_jax.scores.universal import MARGIN, verdict
from epi2expr_jax.study import results, tables
from epi2expr_jax.training.checkpoint import read_card
from epi2expr_jax.training.runs import (
    FINISHED,
    NEVER_IMPROVED,
    QUARANTINED,
    STATUS_NAMES,
    seen_words,
)
from epi2expr_jax.training.splits import PARTS, read_splits
from epi2expr_jax.training.targets import LABEL
from epi2expr_jax.units import DEFAULT_UNIT, PROBABILITY, count
from epi2expr_jax.words import doubts, sentences
from epi2expr_jax.words.caveats import caveats, of_width
from epi2expr_jax.words.sentences import number
from epi2expr_jax.words.simpler import simpler_model

NO_TABLE = pd.DataFrame()
_SIMPLE = (*BASELINES, COVARIATES)
_WHOLE = [name for name, baseline in BASELINES.items() if baseline.whole]


@dataclasses.dataclass(frozen=True)
class Statements:
    """Sentences; empty where there is nothing to say.

    Attributes:
        control: that the run is a control, and of what.
        few: on how few genes and chromosomes all rests.
        answer: which assay has the highest score, and whether that makes it the best.
        questions: which assays tell whether a gene is on, and how much it expresses; a second
            paragraph of the answer where these are different assays.
        classes: which assay is best in each class of genes.
        unproven: which assays are not shown to predict at all.
        universal, agreement: whether one mark is best in all cells; whether cells agree.
        calls: how many comparisons are called.
        new_cell: what holds in a new cell.
        copies: which genes models may know from others, and what is left without them.
        simpler: whether something simpler predicts better.
        added: what needs no epigenome tells, and which assays add to it.
        beyond_mean: whether models tell more of a cell than the mean of other cells.
        notes: what else to know.
    """

    control: str
    few: str
    answer: str
    questions: str
    classes: str
    unproven: str
    universal: str
    agreement: str
    calls: str
    new_cell: str
    copies: str
    simpler: str
    stack: str
    added: str
    beyond_mean: str
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        """One after the other, notes as such."""
        for field in dataclasses.fields(self)[:-1]:
            if said := getattr(self, field.name):
                yield said
        yield from (f"note: {note}" for note in self.notes)


def of_run(run_dir: pathlib.Path, among: bool = False) -> Statements:
    """What is said of an evaluated run, from the tables in its directory.

    Args:
        among: whether other runs are told of beside it: what is found then names the run, as it
            does of a control.
    """
    card, asked = read_card(run_dir), results.record_of(run_dir, "evaluate") or {}
    name, what = run_dir.resolve().name, sentences.control(card)
    fold = read_splits(run_dir / tables.SPLITS.path)[0]
    tested = tested_cells((run["cell"] for run in _runs(card)), card["store"]["cells"])
    said = statements(
        tables.SCORES.read(run_dir),
        questions=tables.QUESTIONS.read(run_dir),
        groups=tables.GROUPS.read(run_dir),
        unit=card["store"].get("expression_unit", DEFAULT_UNIT),
        called=tables.CALLS.read(run_dir),
        compared=tables.BASELINES.read(run_dir),
        copies=tables.COPIES.read(run_dir),
        without=tables.WITHOUT.read(run_dir),
        added=tables.ADDED.read(run_dir),
        covariates=tables.COVARIATES.read(run_dir),
        own=tables.OWN.read(run_dir),
        train_share=card.get("request", {}).get("train_share", 1.0),
        margin=asked.get("margin", MARGIN),
        claim=asked.get("claim"),
        diverged=_diverged(card, tested),
        new=new_cells((run["cell"] for run in _runs(card)), card["store"]["cells"]),
        chromosomes=sum(len(getattr(fold, part)) for part in PARTS),
        labels=card["target"] == LABEL,
        of=f"Control run {name}: " if what else f"Run {name}: " if among else "",
    )
    seen = seen_words([run["started"] for run in _runs(card) if "started" in run])
    epochs = [*_first_epoch(_runs(card)), *_last_epoch(_runs(card), tables.HISTORY.read(run_dir))]
    width = float(card["populations"][0]["model_config"].get("width", 1))
    notes = (*seen, *epochs, *said.notes, *filter(None, [of_width(width)]))
    said = dataclasses.replace(said, notes=notes)
    control = sentences.of_control(name, what) if what else ""
    return dataclasses.replace(said, control=control)


def _runs(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for population in card["populations"] for run in population["runs"]]


def _first_epoch(runs: list[dict[str, Any]]) -> list[str]:
    """Which runs learned nothing after their first epoch."""
    names = [f"{run['cell']} {'+'.join(run['assays'])} {run['fold']} seed {run['seed']}"
             for run in runs if run["status"] == NEVER_IMPROVED]  # fmt: skip
    again = [run for run in runs if run.get("restarted")]
    better = sum(run["status"] != NEVER_IMPROVED for run in again)
    said = [
        f"{len(again)} of {count(len(runs), 'run')} trained a second time with fresh weights, "
        f"since no epoch of the first time was better than its first; {better} of them improved."
    ] * bool(again)
    if not names:
        return said
    return [
        *said,
        f"{len(names)} of {count(len(runs), 'run')} were best in their first epoch: later ones "
        f"did not lower the validation loss ({listing(names)}). An assay that does not predict "
        "looks like that; if it does predict in other folds, train more seeds or with a lower "
        "--learning_rate.",
    ]


def _last_epoch(runs: list[dict[str, Any]], history: pd.DataFrame) -> list[str]:
    """Whether most runs might have learned more, had they been given more epochs."""
    whole = {run["run_id"] for run in runs if run["status"] == STATUS_NAMES[FINISHED]}
    own = history[history["run_id"].isin(whole)]
    best = own.loc[own.groupby("run_id")["validation_loss"].idxmin()].set_index("run_id")["epoch"]
    late = int((best == own.groupby("run_id")["epoch"].max()).sum())
    return [sentences.of_late(late, len(runs))] if late and 2 * late >= len(runs) else []


def _diverged(card: dict[str, Any], tested: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
    """(cell, assay set) of which every seed of some fold was quarantined."""
    by_fold = collections.defaultdict(list)
    for run in _runs(card):
        lost = run["status"] == STATUS_NAMES[QUARANTINED]
        by_fold[run["cell"], "+".join(run["assays"]), run["fold"]].append(lost)
    gone = {(name, assays) for (name, assays, _), lost in by_fold.items() if all(lost)}
    return {(label, assays) for name, assays in gone for label in tested[name].values()}


def statements(
    scores: pd.DataFrame,
    *,
    questions: pd.DataFrame = NO_TABLE,
    groups: pd.DataFrame = NO_TABLE,
    unit: str = DEFAULT_UNIT,
    called: pd.DataFrame = NO_TABLE,
    compared: pd.DataFrame = NO_TABLE,
    copies: pd.DataFrame = NO_TABLE,
    without: pd.DataFrame = NO_TABLE,
    added: pd.DataFrame = NO_TABLE,
    covariates: pd.DataFrame = NO_TABLE,
    own: pd.DataFrame = NO_TABLE,
    train_share: float = 1.0,
    margin: float = MARGIN,
    claim: str | None = None,
    diverged: Collection[tuple[str, str]] = (),
    new: Collection[str] = (),
    chromosomes: int = 0,
    labels: bool = False,
    of: str = "",
) -> Statements:
    """What is said of scores.

    Args:
        scores: from `scores.table.score_table`.
        questions: from `ranking.rank_questions`.
        groups: from `ranking.rank_assays`, told apart by a column `group`.
        unit: of expression.
        called: from `comparison.calls`.
        compared: from `comparison.compare_models`, the run's own model first.
        copies: from `inputs.gene_groups`: genes that are alike.
        without: from `ranking.rank_assays`, of the test genes that are like none trained on.
        added: from `comparison.added_value`.
        covariates: from `inputs.covariates.covariates_of`.
        own: from `ranking.rank_assays`, of deviations from the mean of the cells.
        train_share: of its training genes that each run was given.
        margin, claim, diverged: see `universal.verdict`.
        new: cells whose models were trained on other cells alone.
        chromosomes: how many the data hold, the training ones included; 0: not known.
        labels: whether the models tell expressed genes from others.
        of: which run the answer and the verdict on a universal mark speak of, put before them.
    """
    ranked = ranking.rank_assays(scores)
    rows = ranked[ranked["cell"] == ranked["cell"].iloc[0]] if len(ranked) else ranked
    cells = sorted({*scores["cell"], *(cell for cell, _ in diverged)})
    answer, by_question, differ, classes = of + _answer(ranked, cells, labels), "", False, ""
    universal = verdict(scores, margin, claim, diverged=diverged)
    if len(rows):
        classes = sentences.by_class(groups, rows["cell"].iloc[0])
        by_question, differ = sentences.by_question(questions, rows, unit)
    return Statements(
        control="",
        few=doubts.few(rows, chromosomes),
        answer=f"{answer}\n{by_question}" if differ else answer,
        questions="" if differ else by_question,
        classes=classes,
        unproven=doubts.unproven(rows, labels, scores, compared, BASELINES),
        universal=(of if universal.answer != "not asked" else "") + universal.words,
        agreement=str(agreement(scores)) if len(cells) > 1 else "",
        calls=doubts.calls(called, rows),
        new_cell=_new_cell(scores, rows),
        copies=sentences.copies(rows, copies, without),
        simpler=simpler_model(compared, _SIMPLE, train_share, _WHOLE) if len(compared) else "",
        stack=sentences.stack(compared),
        added=sentences.added(added, covariates, compared),
        beyond_mean=sentences.beyond_mean(compared, own),
        notes=tuple(caveats(scores, ranked, new)),
    )


def answer_cells(ranked: pd.DataFrame) -> list[str]:
    """The cells that the answer is of: where every assay was scored, or the first one.

    Args:
        ranked: from `ranking.rank_assays`, the rows of all cells; not empty.
    """
    cell = str(ranked["cell"].iloc[0])
    if cell != scoring.ALL:
        return [cell]
    sizes = ranked.groupby("cell", sort=False).size()
    return [str(name) for name, n in sizes.items() if name != cell and n == sizes[cell]]


def scope(ranked: pd.DataFrame, cells: Collection[str]) -> str:
    """What the answer is of: one cell, or how many of them averaged.

    Args:
        ranked: as for `answer_cells`.
        cells: that were tested.
    """
    own = answer_cells(ranked)
    if len(own) > 1:
        of = "" if len(own) == len(cells) else f" of {len(cells)}"
        return f"averaged over {len(own)}{of} cells"
    if ranked["cell"].iloc[0] == scoring.ALL and len(cells) > 1:
        return f"in cell {own[0]}, the only one of {len(cells)} where all assays can be compared"
    return f"in cell {own[0]}"


def _answer(ranked: pd.DataFrame, cells: list[str], labels: bool) -> str:
    """Which assay has the highest score, and whether that makes it the best."""
    if ranked.empty:
        return (
            "Nothing can be ranked: no cell has assays that were tested on the same chromosomes of "
            "a fold."
        )
    rows = ranked[ranked["cell"] == ranked["cell"].iloc[0]]
    best, others = rows.iloc[0], rows["assay"].iloc[1:]
    certain = np.isfinite(best["low"])
    rivals = others[rows["rank_low"].iloc[1:] == 1]
    none = f"No assay is shown to {doubts.verb('', labels)} here."
    said = [none] if doubts.all_unproven(rows) else []
    interval = (
        f"95 % interval {number(best['low'])} to {number(best['high'])}"
        if certain
        else f"no interval: {best['note']}"
    )
    highest = rows["assay"][rows["rank"] == 1]
    has = "has the highest score" if len(rows) > 1 else "was scored"
    if len(highest) > 1:
        has = "and " + listing(highest.iloc[1:], 12) + " share the highest score"
    between = "its predictions and the observed expression"
    if labels:
        between = f"the {PROBABILITY} that it predicts and the label (expressed or not)"
    said.append(
        f"{best['assay']} {has}: between {between} of genes held out from training, Pearson r is "
        f"{number(best['pearson'])} ({interval}), {scope(ranked, cells)}."
    )
    if not len(others):
        said.append("No other assay was scored there, so none is compared.")
    elif not certain and best["note"] not in (TOO_FEW_GENES, ONE_VALUE):
        said.append("Without intervals, no assay can be told apart from another.")
    elif len(rivals):
        said.append(
            "That does not make it the best: at 95 % confidence that could also be "
            f"{listing(rivals, 12)}."
        )
    elif not doubts.clear(rows):
        said.append(
            "It alone may be the best: every other assay is beaten by at least one, though not "
            f"each by {best['assay']}."
        )
    else:
        said.append("Its lead over every other assay is larger than the uncertainty of that lead.")
        if rows["training_sd"].isna().all():
            said.append(
                "That uncertainty is over genes: how much one training differs from another is not "
                "in it, and with one seed not known."
            )
    if best["cell"] != scoring.ALL:
        said.append(
            "There is no ranking over all cells: no cell has every assay. This is one of "
            f"{len(cells)} cells."
        )
    return " ".join(said)


def _new_cell(scores: pd.DataFrame, over_all: pd.DataFrame) -> str:
    """What is known of one more cell, from as many as that takes."""
    cells = over_all["n_cells"].max() if len(over_all) else 0
    if cells < ranking.LEAST_CELLS:
        return ""
    rows = ranking.rank_assays(scores, target=ranking.TARGETS[1])
    rows = rows[rows["cell"] == scoring.ALL]
    first, open_to = rows.iloc[0], rows["assay"][rows["rank_low"] == 1]
    if not np.isfinite(first["low"]):
        return ""
    return (
        f"For a new cell like these {cells}, the interval of {first['assay']} is "
        f"{number(first['low'])} to {number(first['high'])}; there the best may be "
        f"{listing(open_to, 12)}."
    )
