"""What is said of a run is true: worlds of scores with what must, and what must not, be said."""

import re

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.predict.baselines import MEAN_OF_CELLS
from epi2expr_jax.scores.comparison import COLUMNS, calls
from epi2expr_jax.scores.intervals import ONE_VALUE
from epi2expr_jax.study.statements import _last_epoch, of_run, statements
from epi2expr_jax.training.checkpoint import read_card
from tests.epi2expr_jax.scores.simulated import failed, scores, world

SHOWN, NONE, UNSURE = "a universal mark of these", "No universal mark", "cannot be told (margin"
BEST, RIVALS = "larger than the uncertainty of that lead", "that could also be"
FEW, NULL = (
    "fewer than 1,000 genes, assays that score alike",
    "No assay is shown to predict expression here",
)
NEW, ONE_MORE = "nothing here speaks of a new cell", "For a new cell like these"
NO_INTERVAL = "Without intervals, no assay can be told apart"
AGREE = "How alike the cells order the assays"

TWO = world([0.7, 0.5], [0.6, 0.4])
THREE = world([0.7, 0.5, 0.3], [0.6, 0.4, 0.3], [0.65, 0.5, 0.2])
TURNED = world([0.7, 0.5, 0.3], [0.4, 0.6, 0.3])
TWELVE = [0.75 - 0.05 * a for a in range(12)]
ELEVEN = [list(np.array(TWELVE[:4]) + 0.002 * c) for c in range(11)]


def simpler(*rows):
    """A comparison of models: name, assay, lead and its limits."""
    table = pd.DataFrame(rows, columns=["model", "assay", "lead", "lead_low", "lead_high"])
    return table.reindex(columns=COLUMNS).assign(pearson=0.5)


def alike(leaked):
    """Two genes that are alike, tested where the other is trained on in so many folds."""
    return pd.DataFrame({"gene": ["G1", "G2"], "group": "copies 1", "leaked": leaked})


def simple_rank(r, low):
    """What is left of A without them."""
    row = ("all", "A", r, low, 2 * r - low, 1000)
    return pd.DataFrame([row], columns=["cell", "assay", "pearson", "low", "high", "n_genes"])


def taken_apart(on, level):
    """Both questions with these scores of A and B, all told apart."""
    table = pd.DataFrame(
        [(t, p, a, s) for t in ("0.5", "1", "2") for p, of in (("on", on), ("level", level))
         for a, s in zip("AB", of, strict=True)],
        columns=["threshold", "question", "assay", "score"],
    )  # fmt: skip
    rank = table.groupby(["threshold", "question"])["score"].rank(ascending=False)
    table = table.assign(cell="all", rank=rank, rank_low=rank, rank_high=rank, rmse=1.0, note="")
    for name, by in (("", 0.01), ("simultaneous_", 0.02)):
        table[f"{name}low"], table[f"{name}high"] = table["score"] - by, table["score"] + by
    return table


def by_class(**scores):
    """Scores of A and B in classes of genes."""
    rows = [
        (name.replace("_", ": "), "all", assay, r, rank, 500)
        for name, of in scores.items()
        for assay, r, rank in zip("AB", of, pd.Series(of).rank(ascending=False), strict=True)
    ]
    names = ["group", "cell", "assay", "pearson", "rank", "n_genes"]
    table = pd.DataFrame(rows, columns=pd.Index(names)).assign(note="")
    table = table.assign(low=table.pearson - 0.01, high=table.pearson + 0.01)
    return table.assign(simultaneous_low=table.low, rank_low=table["rank"], rank_high=table["rank"])


LENGTHS = pd.DataFrame({"gene_id": ["a", "b"], "gene length": [1.0, 2.0]})
OWN = ("cnn", "A", 0.0, 0.0, 0.0)

# Name: scores, options, what is said, what is not.
WORLDS = {
    "one cell, one assay": (scores(world([0.6])), {},
        ["A was scored", "in cell E1", "so none is compared", "cannot be asked of one cell"],
        [BEST, "highest"]),
    "one cell": (scores(world([0.7, 0.5])), {"called": calls(scores(world([0.7, 0.5])))},
        ["Scores are of this cell (E1)", "(every score against 0, every pair of assays)"],
        ["How far cells agree", "these cells (E1)"]),
    "one cell, one assay, called": (scores(world([0.6])), {"called": calls(scores(world([0.6])))},
        ["Of 1 comparison (every score against 0), 1 is"], ["every pair"]),
    "one value predicted": (failed(scores(TWO), "E1", "B").pipe(failed, "E2", "B"), {},
        ["For 1 of 2 assays one value is predicted for all genes, which is no score (B)"],
        ["0.000", "cannot be told whether it predicts"]),
    "one value predicted of the only assay": (failed(scores(world([0.6])), "E1", "A"), {},
        [NULL, f"r is 0.000 (no interval: {ONE_VALUE})"], ["0.000 to", NO_INTERVAL]),
    "labels": (scores(TWO), {"labels": True},
        ["between the probability of being expressed that it predicts and the label (expressed "],
        ["observed expression", "predicts expression"]),
    "labels that nothing tells": (scores(world([0.0, 0.001]), own=0.1), {"labels": True},
        ["No assay is shown to tell expressed genes from others here."], ["predict expression"]),
    "labels that one assay tells": (scores(world([0.6, 0.001]), own=0.1), {"labels": True},
        ["cannot be told whether it tells expressed genes from others at all"],
        ["predicts expression"]),
    "one seed, no interval": (scores(TWO, K=2, folds=2), {},
        ["One seed: training noise is unknown", "All rests on 2 chromosomes and 200 genes. There"],
        ["not in the interval", "The intervals"]),
    "one cell, two assays": (scores(world([0.7, 0.5])), {},
        ["A has the highest score", BEST, "cannot be asked of one cell", NEW], [SHOWN, RIVALS]),
    "one cell, twelve assays": (scores(world(TWELVE)), {},
        ["A has the highest score", BEST], [SHOWN, NULL]),
    "two cells, one assay": (scores(world([0.7], [0.6])), {},
        ["A was scored", "averaged over 2 cells", "Only A was scored"], [SHOWN, "highest"]),
    "two cells": (scores(TWO), {}, [f"A is {SHOWN} 2 cells", BEST, "it takes 3 assays"], [NONE]),
    "three cells": (scores(THREE), {}, [f"A is {SHOWN} 3 cells", AGREE], [NONE, ONE_MORE]),
    "eleven cells": (scores(world(*ELEVEN), K=5), {},
        [f"A is {SHOWN} 11 cells", ONE_MORE, "ranking_new_cell.csv"], [NEW, NONE]),
    "five cells that differ": (scores(world(*[[0.6 + 0.1 * c, 0.55] for c in range(5)])), {},
        ["What holds in a new cell cannot be told: the leads vary"], ["is expected to be"]),
    "another mark in each cell": (scores(TURNED), {}, [NONE], [SHOWN, "A is"]),
    "a claim that holds": (scores(THREE), {"claim": "A"}, [f"A is {SHOWN}"], ["candidates"]),
    "a claim that does not": (scores(THREE), {"claim": "B"}, ["B is not a universal mark"], [NONE]),
    "a wide margin": (scores(world([0.6, 0.63], [0.6, 0.62]), own=0.001), {"margin": 0.05},
        ["B, A are each a universal mark", "better by 0.05"], [NONE]),
    "equal but for noise": (scores(world([0.6, 0.595], [0.6, 0.595]), own=0.05), {},
        [RIVALS, UNSURE, "In 2 of 2 cells with several assays, each by itself"], [BEST, SHOWN]),
    "exactly equal": (scores(world([0.6, 0.6], [0.6, 0.6]), own=0.0), {},
        ["A and B share the highest score", RIVALS], ["has the highest", BEST]),
    "three exactly equal in one cell": (scores(world([0.6] * 3 + [0.1]), own=0.0), {},
        ["A and B, C share the highest score"], ["has the highest", BEST]),
    "all null": (scores(world([0.0] * 3, [0.0] * 3), own=0.05), {},
        [NULL, UNSURE, "better than chance"], [SHOWN, NONE, "it cannot be told whether they"]),
    "negative": (scores(world([-0.3, -0.5], [-0.3, -0.5])), {},
        [NULL, "Pearson r is −0.3", "not shown to predict better than chance"], [SHOWN, NONE]),
    "one of three null": (scores(world([0.7, 0.5, 0.0], [0.6, 0.5, 0.0]), own=0.05), {},
        ["For 1 of 3 assays it cannot be told whether it predicts",
         "includes 0 (C); at 95 % for all assays together, r is at most"], [NULL]),
    "two of three null": (scores(world([0.7, 0.0, -0.1], [0.6, 0.0, -0.1]), own=0.05), {},
        ["For 1 of 3 assays it cannot be told whether it predicts expression at all",
         "For 1 of 3 assays the simultaneous interval of r lies below 0 (C)"], [NULL]),
    "a failed rival": (failed(scores(THREE), "E2", "B"), {},
        [UNSURE, "training of B in E2 failed", "a failed training, not a measured score"], [SHOWN]),
    "a failed best": (failed(scores(THREE), "E2", "A"), {}, ["E2 A (100%)"], ["A is a universal"]),
    "all failed": (scores(TWO).assign(constant=True, pearson=0.0, spearman=0.0), {},
        [NULL, "a failed training"], [SHOWN, NONE, BEST]),
    "a rival that diverged in one cell": (
        scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"A": 0.7, "C": 0.5}}), {"diverged": [("E2",
        "B")]},
        [UNSURE, "training of B in E2 failed"], [SHOWN]),
    "a rival that diverged everywhere": (scores(TWO), {"diverged": [("E1", "C"), ("E2", "C")]},
        [UNSURE, "training of C in E1, C in E2 failed"], [SHOWN]),
    "a cell where all diverged": (scores(TWO), {"diverged": [("E3", "A"), ("E3", "B")]},
        ["averaged over 2 of 3 cells", "A in E3"], [SHOWN]),
    "a diverged mark that the data exclude anyway": (scores(TURNED), {"diverged": [("E1", "C")]},
        [NONE], [SHOWN]),
    "a missing track": (scores({"E1": {"A": 0.7, "B": 0.5, "C": 0.3}, "E2": {"A": 0.7, "B": 0.5}}),
        {}, [SHOWN, "so not compared: C in E2", "E2 lacks C",
        "in cell E1, the only one of 2 where all assays can be compared"],
        [NONE]),
    "no cell has every assay": (
        scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"A": 0.7, "C": 0.5}}), {},
        ["There is no ranking over all cells", "in cell E1", "not compared: C in E1, B in E2"],
        [NONE]),
    "assays never in one cell": (scores({"E1": {"A": 0.7}, "E2": {"B": 0.7}}), {},
        ["was scored", UNSURE, "was not scored in"], [NONE, BEST]),
    "folds in common with none": (
        (lambda t: t[(t.assays == "A") == (t.fold == 0)])(scores(TWO)), {},
        ["Nothing can be ranked", UNSURE, "tested with both it and"], [BEST, SHOWN, "highest"]),
    "two chromosomes": (scores(TWO, K=2, folds=2), {},
        [NO_INTERVAL, "no interval: fewer than 3 chromosomes", UNSURE],
        [BEST, RIVALS, "95 % interval"]),
    "three blind chromosomes": (scores(THREE, K=3, blind=True), {"chromosomes": 22},
        ["on 3 chromosomes", "--cv=chromosomes_5 tests", "same blind chromosomes",
        "same chromosomes"],
        [AGREE]),
    "three chromosomes, all there are": (scores(THREE, K=3, blind=True), {"chromosomes": 3},
        ["So few chromosomes"], ["--cv=chromosomes_5 tests"]),
    "22 chromosomes": (scores(THREE, K=22), {"chromosomes": 22}, [AGREE], ["Few data", "So few"]),
    "few genes, and one assay": (scores(world([0.6]), n=10), {},
        ["The intervals of leads rest", "Few data: the score rests on 200 held-out genes"],
        ["which assay is best", "all scores rest"]),
    "few genes, and a clear best": (scores(THREE, n=10), {}, [BEST], [FEW]),
    "few genes, and none": (scores(world([0.6, 0.59], [0.6, 0.59]), n=10, own=0.1), {},
        ["Few data: all scores rest on 200 held-out genes on 20 chromosomes", FEW], [BEST]),
    "two genes a chromosome": (scores(TWO, n=2), {},
        ["Nothing can be ranked", "no chromosome has 3 held-out genes"], ["single cell", SHOWN]),
    "one gene a chromosome, one cell": (scores(world([0.7, 0.5]), n=1), {},
        ["no chromosome has 3 held-out genes"], ["cannot be asked of one cell"]),
    "a cell of single genes": (
        (lambda t: t.assign(n=t.n.where(t.cell != "E3", 1)))(scores(THREE)), {},
        [UNSURE, "not scored in E3", "E3 is not ranked"], [SHOWN]),
    "most genes on one chromosome": (
        (lambda t: t.assign(n=t.n.where(t.chrom != "chr1", 9000)))(scores(TWO)), {},
        ["no interval: most genes lie on few of 20 chromosomes", NO_INTERVAL, UNSURE],
        [BEST, RIVALS]),
    "one seed": (scores(TWO), {}, ["One seed", "training noise is not in the interval"],
        ["trainings"]),
    "three seeds": (scores(TWO, seeds=3, training=0.02), {},
        ["the mean of 3 trainings", "standard deviation between seeds"], ["One seed"]),
    "new cells, few": (scores(THREE), {"new": ["E1", "E2", "E3"]},
        ["No cell is tested by a model", "further cells takes 5"], [NEW, ONE_MORE]),
    "new cells, five": (scores(world(*[[0.7, 0.5]] * 5)), {"new": [f"E{c}" for c in range(1, 6)]},
        ["No cell is tested by a model", ONE_MORE], [NEW]),
    "one new cell of two": (scores(TWO), {"new": ["E2"]}, ["tested in E2 were not trained"], [NEW]),
    "a simpler model": (scores(TWO), {"compared": simpler(OWN, ("ridge", "A", 0.05, 0.02, 0.08))},
        ["A simpler model predicts better than cnn for 1 of 1 assay: A (ridge by 0.050"],
        ["no difference"]),
    "no simpler model": (scores(TWO), {"compared": simpler(OWN, ("ridge", "A", 0.05, -0.02, 0.1))},
        ["For A no difference is shown between cnn and the best of the simple models",
         "r of ridge less that of cnn is 0.050 (−0.020 to 0.100) for A"],
        ["A simpler model", "cnn predicts better"]),
    "a model better than simple ones": (
        scores(TWO), {"compared": simpler(OWN, ("ridge", "A", -0.05, -0.1, -0.01))},
        ["cnn predicts better (by Pearson r) than each of the simple models for A."],
        ["no difference", "A simpler"]),
    "new cells: the mean of others is better": (
        scores(TWO), {"compared": simpler(OWN, (MEAN_OF_CELLS, "A", 0.05, 0.02, 0.08))},
        ["In cells new to the models: the mean of the training cells, which needs no epigenome, "
         "predicts better than cnn for A."], ["simple", "cnn predicts"]),
    "new cells: nobody is better": (
        scores(TWO), {"compared": simpler(OWN, (MEAN_OF_CELLS, "A", 0.05, -0.02, 0.08))},
        ["cannot be told apart: for A the lead of cnn is −0.050 (−0.080 to 0.020)"],
        ["simple", "predicts better than cnn"]),
    "new cells: too little data": (
        scores(TWO), {"compared": simpler(OWN, (MEAN_OF_CELLS, "A", 0.05, np.nan, np.nan))},
        ["cannot be told apart: there is too little data."], ["the lead of"]),
    "one of two cells has a single assay": (
        scores({"E1": {"A": 0.7, "B": 0.699}, "E2": {"B": 0.6}}, own=0.05), {},
        ["in cell E1, the only one", "no other assay was scored in E2"], ["In 1 of 2 cells"]),
    "copies, and none tested": (scores(TWO), {"copies": alike(0)},
        ["2 genes in 1 group", "(G1, G2;", "No model was tested on a gene"], ["Without the"]),
    "copies that made a mark": (
        scores(TWO), {"copies": alike(1), "without": simple_rank(0.02, -0.03)},
        ["Without the 2 test genes", "r of A is 0.020 (−0.030 to", "no longer above 0: A"], []),
    "copies, and nothing else": (scores(TWO), {"copies": alike(1)},
        ["none is left"], ["No model was tested"]),
    "classes of genes": (
        scores(TWO), {"groups": by_class(cpg_rich=[0.7, 0.3], cpg_poor=[0.2, 0.4],
        cpg_unknown=[0.1, 0.2], expressed=[0.5, 0.1])},
        ["cpg: rich (500 genes): A has the highest Pearson r, 0.700 (0.690 to 0.710); it is shown "
         "to be the best. ",
         "cpg: poor (500 genes): B has", "Compare assays within a class"],
        ["expressed (", ": unknown"]),
    "classes of few genes": (
        scores(TWO), {"groups": by_class(cpg_rich=[0.7, 0.3]).assign(low=np.nan, high=np.nan,
        simultaneous_low=np.nan, rank_low=1, rank_high=2, note="fewer than 3 chromosomes")},
        ["0.700 (no interval: fewer than 3 chromosomes); which is best cannot be told."],
        ["it could also be", "shown to be the best"]),
    "genes by expression alone": (
        scores(TWO), {"groups": by_class(expressed=[0.5, 0.1], silent=[0.1, 0.2])},
        [], ["By class"]),
    "assays add to what needs no epigenome": (
        scores(TWO), {"covariates": LENGTHS, "added": pd.DataFrame({"assay": ["A", "B"],
        "r2_without": 0.05, "added": [0.3, 0.0], "low": [0.2, -0.1], "high": [0.4, 0.1]})},
        ["(gene length) has R² 0.050", "with 1 of 2 assays; most R² is added by A 0.300"],
        ["No assay is shown to add"]),
    "no assay adds to what needs no epigenome": (
        scores(TWO), {"covariates": LENGTHS, "added": pd.DataFrame({"assay": ["A"],
        "r2_without": 0.05, "added": [0.3], "low": [-0.2], "high": [0.8]})},
        ["No assay is shown to add to that R²."], ["most R² is added"]),
    "covariates alone predict better": (
        scores(TWO), {"compared": simpler(OWN, ("covariates", "A", 0.05, 0.02, 0.08))},
        ["A simpler model predicts better than cnn for 1 of 1 assay: A (covariates by 0.050"],
        ["no difference"]),
    "the mean of the other cells": (
        scores(TWO), {"compared": simpler(OWN, ("mean of the other cells", "A", 0.1, 0.02, 0.2))},
        ["The mean of the other cells, which needs no epigenome, predicts better than cnn for A."],
        ["cells new to", "simple"]),
    "another assay for each question": (
        scores(TWO), {"questions": taken_apart([0.9, 0.8], [0.3, 0.6])},
        ["A has the highest score", "Is a gene on (expression of at least 1 RPKM)? A has the "
         "highest AUC, 0.900", "B has the highest Spearman rho, 0.600",
         "no assay is best for both"],
        ["could still be best for both"]),
    "one assay for both questions": (
        scores(TWO), {"questions": taken_apart([0.9, 0.8], [0.6, 0.3]), "unit": "TPM"},
        ["at least 1 TPM", "A has the highest Spearman rho, 0.600"], ["best for both"]),
    "the mean of seeds is not simpler": (
        scores(TWO), {"compared": simpler(OWN, ("cnn, mean of 3 seeds", "A", 0.05, 0.02, 0.08))},
        [], ["simple"]),
    "trained on half of the genes": (
        scores(TWO), {"compared": simpler(OWN, ("ridge",
        "A", 0.05, 0.02, 0.08)), "train_share": 0.5},
        ["their leads are not compared"], ["A simpler"]),
}  # fmt: skip

# What is never said together, in whatever world.
APART = [
    (FEW, BEST), (SHOWN, NONE), (SHOWN, UNSURE), (NONE, UNSURE), (SHOWN, NULL), (NEW, ONE_MORE),
    (NEW, "In one more cell"), (NO_INTERVAL, "95 % interval"), (BEST, RIVALS), (BEST, "share the"),
    ("cannot be asked of one cell", "averaged over"), ("One seed", "between seeds"),
    (NO_INTERVAL, RIVALS),
]  # fmt: skip


def test_there_are_worlds_enough():
    assert len(WORLDS) >= 40


@pytest.mark.parametrize("name", WORLDS)
def test_worlds(name):
    table, options, said, unsaid = WORLDS[name]
    text = "\n".join(statements(table, **options))
    for words in said:
        assert words in text, text
    for words in unsaid:
        assert words not in text, text
    for one, other in APART:
        assert not (one in text and other in text), text
    assert not re.search(r"\b(nan|inf|None)\b", text), text


def test_calls_are_counted():
    table = scores(THREE)
    text = statements(table, called=calls(table)).calls
    assert text.startswith("Of 24 comparisons")
    assert "24 are significant" in text
    untested = calls(table).assign(p=np.nan, q=np.nan, called=False)
    assert "is tested: there is too little data" in statements(table, called=untested).calls
    assert statements(table, called=calls(table).iloc[:1]).calls.startswith("Of 1 comparison (")


def test_parts_that_differ_are_in_the_headline():
    differ, same = (
        statements(scores(TWO), questions=taken_apart([0.9, 0.8], level))
        for level in ([0.3, 0.6], [0.6, 0.3])
    )
    assert "B has the highest Spearman rho" in differ.answer
    assert not differ.questions
    assert "Spearman" not in same.answer
    assert "A has the highest Spearman rho" in same.questions


@pytest.mark.parametrize(
    ("shuffled", "contacts", "what"),
    [(True, 8, "each gene read the regions of another gene (--shuffle_regions)"),
     (False, 0, "its models read the promoter alone, no regions (--no_pcre)"),
     (False, 8, "")],
)  # fmt: skip
def test_a_control_says_so_in_its_answer_and_verdict(
    finished, monkeypatch, shuffled, contacts, what
):
    card = read_card(finished)
    card["input_config"]["shuffle_regions"] = shuffled
    for part in card["populations"]:
        part["model_config"]["contacts"] = contacts
    monkeypatch.setattr("epi2expr_jax.study.statements.read_card", lambda _: card)
    said, among = of_run(finished), of_run(finished, among=True)
    name = finished.name
    if what:
        assert said == among
        assert next(iter(said)).startswith(f"Run {name} is a control: {what}. Its scores are there")
        assert said.answer.startswith(f"Control run {name}: ")
        assert said.universal.startswith(f"Control run {name}: ")
    else:
        assert not said.control
        assert not said.answer.startswith(("Run", "Control"))
        assert among.answer == f"Run {name}: {said.answer}"
        assert among.universal == f"Run {name}: {said.universal}"


def test_runs_that_were_best_in_their_first_epoch_are_named(finished, monkeypatch):
    assert not any("first epoch" in note for note in of_run(finished).notes)
    card = read_card(finished)
    rows = [run for population in card["populations"] for run in population["runs"]]
    rows[3]["status"] = "never improved"
    monkeypatch.setattr("epi2expr_jax.study.statements.read_card", lambda _: card)
    (note,) = (note for note in of_run(finished).notes if "first epoch" in note)
    name = f"{rows[3]['cell']} {rows[3]['assays'][0]} {rows[3]['fold']} seed 0"
    assert note.startswith(f"1 of {len(rows)} runs were best in their first epoch")
    assert f"loss ({name})." in note


@pytest.mark.parametrize(("late", "said"), [(0, False), (1, False), (2, True), (4, True)])
def test_runs_that_were_best_in_their_last_epoch_are_counted(finished, monkeypatch, late, said):
    losses = {i: [3, 2, 1] if i < late else [3, 1, 2] for i in range(4)}
    history = pd.DataFrame(
        [(f"r{i}", epoch, loss) for i, own in losses.items() for epoch, loss in enumerate(own, 1)],
        columns=["run_id", "epoch", "validation_loss"],
    )
    runs = [{"run_id": f"r{i}", "status": "finished"} for i in range(4)]
    words = [f"{late} of 4 runs were best in the last epoch"] if said else []
    assert [note.partition(" that")[0] for note in _last_epoch(runs, history)] == words
    stopped = [run | {"status": "stopped early"} for run in runs]
    assert not _last_epoch(stopped, history)
    monkeypatch.setattr("epi2expr_jax.study.statements._last_epoch", lambda *_: ["late"])
    assert "late" in of_run(finished).notes
