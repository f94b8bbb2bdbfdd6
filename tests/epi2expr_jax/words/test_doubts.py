import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.predict.baselines import BASELINES
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores.comparison import calls
from epi2expr_jax.scores.ranking import rank_assays
from epi2expr_jax.words import doubts
from tests.epi2expr_jax.scores.simulated import failed, scores, world


def of_all(table):
    """What is said of all cells together."""
    ranked = rank_assays(table)
    return ranked[ranked["cell"] == "all"].reset_index(drop=True)


def unproven(table, compared=None):
    compared = pd.DataFrame() if compared is None else compared
    return doubts.unproven(of_all(table), False, table, compared, BASELINES)


def spoilt(table, assay, chrom, r):
    """Where an assay has this score on one chromosome, whose genes are many."""
    here = (table.assays == assay) & (table.chrom == chrom)
    return table.assign(pearson=table.pearson.where(~here, r))


def test_one_bad_chromosome_is_named():
    table = spoilt(scores(world([0.7, 0.4]), K=12), "B", "chr5", -0.95)
    said = unproven(table)
    assert said.startswith(
        "For 1 of 2 assays it cannot be told whether it predicts expression at all: the "
        "simultaneous interval of r includes 0 (B); at 95 % for all assays together, "
        "r is at most 0.5"
    )
    hangs = (
        "For B the interval includes 0 because of one chromosome, chr5 (r −0.950 there; without it "
        "the simultaneous interval is 0.3"
    )
    assert hangs in said
    assert said.endswith("Leaving it out proves nothing, but look at what is different there.")
    both = unproven(spoilt(table, "A", "chr6", -3.5))
    each = "The interval includes 0 because of one chromosome for A chr6 (r −3.500 there; without"
    assert each in both
    assert "), for B chr5 (r −0.950 there; without it" in both
    twice = spoilt(table, "B", "chr6", -0.95)
    assert "one chromosome" not in unproven(twice)
    assert "one chromosome" not in unproven(scores(world([0.7, 0.0]), own=0.1))


@pytest.mark.parametrize(
    ("table", "said", "unsaid"),
    [
        (scores(world([0.7, -0.4]), own=0.01),
         "For 1 of 2 assays the simultaneous interval of r lies below 0 (B): the models predict "
         "more where there is less.", "told"),
        (failed(scores(world([0.7, 0.4])), "E1", "B"),
         "For 1 of 2 assays one value is predicted for all genes, which is no score (B).", "told"),
        (scores(world([0.7, 0.4])), "", "For"),
        (scores(world([0.0, 0.001]), own=0.1), "", "For"),  # the answer says it of all
        (scores(world([-0.5, 0.0]), own=0.02),
         "For 1 of 2 assays the simultaneous interval of r lies below 0 (A): the models predict "
         "more where there is less.", "told"),
    ],
)  # fmt: skip
def test_assays_that_are_not_shown_to_predict(table, said, unsaid):
    found = unproven(table)
    assert found == said
    assert unsaid not in found


def baseline(model, assay, r, reach):
    return {"model": model, "assay": assay, "pearson": r, "low": r - reach, "high": r + reach,
            "n_chromosomes": 20}  # fmt: skip


def test_simple_models_that_do_predict_are_named():
    table = scores(world([0.7, 0.0]), own=0.1)
    rows = [baseline(model, assay, 0.7 if assay == "A" else r, 0.05)
            for model, r in (("cnn", 0.0), ("ridge", 0.4), ("linear", 0.06))
            for assay in "AB"]  # fmt: skip
    said = unproven(table, pd.DataFrame(rows))
    assert "Simple models are shown to predict where cnn is not: ridge from B, r 0.400 (" in said
    # One of many intervals above 0 by a hair is chance.
    assert said.endswith("So the signal of this assay does carry information.")
    slight = [row | {"pearson": 0.06, "low": 0.005} for row in rows if row["assay"] == "B"]
    assert "Simple models" not in unproven(table, pd.DataFrame([*rows[:1], *slight]))


def test_calls_that_the_answer_leaves_open_are_explained():
    table = scores(world([0.62, 0.59, 0.3, 0.2, 0.1]), own=0.03)
    called, rows = calls(table), of_all(table)
    pair = (called["assay"] == "A") & (called["other"] == "B")
    assert called.loc[pair, "called"].all()
    assert int(rows["rank_low"].iloc[1]) == 1
    said = doubts.calls(called, rows)
    assert "Among them A is better than B, which the answer leaves open: the answer holds" in said
    clear = scores(world([0.7, 0.5]))
    said = doubts.calls(calls(clear), of_all(clear))
    assert said.startswith("Of 3 comparisons (every score against 0, every pair of assays), 3 are ")
    assert said.endswith(": 2 of 2 scores, 1 of 1 pair; calls.csv lists them.")


def test_what_all_cells_and_their_only_one_have_alike_is_counted_once():
    table = scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"A": 0.6}})
    said = doubts.calls(calls(table), of_all(table))
    assert said.startswith("Of 4 comparisons (every score against 0, every pair of assays, in each")
    assert "over all" not in said


def test_cells_that_share_no_ranking_are_all_counted():
    """Two cells of other assays: there is no ranking of all."""
    table = scores(world([0.7, 0.5]))
    called = calls(table)
    own = called[called["cell"] == "E1"]
    both = pd.concat([own, own.assign(cell="E2")])
    said = doubts.calls(both, of_all(table))
    assert said.startswith(f"Of {2 * len(own)} comparisons (every score against 0, every pair")
    assert "in each cell" in said


def test_a_chromosome_is_not_blamed_where_another_would_do():
    table = scores(world([0.7, 0.4]), K=12)
    for chrom in ("chr5", "chr6"):
        table = spoilt(table, "B", chrom, -0.75)
    without = ranking.without_each(table, "all")
    enough = without[(without["assay"] == "B") & (without["simultaneous_low"] > 0)]
    assert len(enough) == 2
    assert "because of one chromosome" not in unproven(table)


def test_an_answer_that_is_not_called_is_explained():
    table = scores(world([0.7, 0.5]))
    called = calls(table)
    none = called.assign(called=called["called"] & (called["other"] == ""))
    assert "Not among them: that A is better than B, which the answer does say" in doubts.calls(
        none, of_all(table)
    )
    untested = none.assign(p=np.nan)
    assert doubts.calls(untested, of_all(table)).endswith("too little data for an interval.")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (scores(world([0.6]), n=10), "Few data: the score rests on 200 held-out genes on 20 "
         "chromosomes. On other genes the score may well be another one. Take it as a first look, "
         "not as a finding."),
        (scores(world([0.6, 0.59]), n=10, own=0.1), "Few data: all scores rest on 200 held-out"),
        (scores(world([0.7, 0.5]), n=10), ""),
        (scores(world([0.6])), ""),
    ],
)  # fmt: skip
def test_few_data(table, said):
    rows = of_all(table)
    assert doubts.few(rows, 0)[: len(said) or None] == said
    assert doubts.few(rows.iloc[:0], 0) == ""


def test_verbs():
    assert doubts.verb("they", False) == "they predict expression"
    assert doubts.verb("it", True) == "it tells expressed genes from others"
    rows = of_all(scores(world([0.0, 0.001]), own=0.1))
    assert doubts.all_unproven(rows)
    assert not doubts.clear(rows)


def effects(*limits, outside=0.0):
    rows = [(low, high, 0.0, outside) for low, high in limits]
    return pd.DataFrame(rows, columns=["low", "high", "factor", "outside"])


ZERO, APART, NONE = (-0.1, 0.2), (0.1, 0.3), (np.nan, np.nan)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([], ""),
        ([NONE], ""),
        ([APART], ""),
        ([ZERO], "No effect is shown: the 95 % interval of the mean effect includes 0."),
        ([ZERO, ZERO, NONE], "No effect is shown: the 95 % interval of each of the 2 mean effects "
         "includes 0."),
        ([ZERO, APART], "Of 2 mean effects (cells, models, places and changes) 1 has a 95 % "
         "interval without 0, each by itself: of effects that are truly 0, one in twenty would "
         "also look like this."),
    ],
)  # fmt: skip
def test_whether_an_effect_is_shown(limits, said):
    assert doubts.altered(effects(*limits)) == said
    same = effects(*limits).assign(factor=1.0)  # which alters nothing
    assert doubts.altered(same) == ""
    table = effects(*limits, outside=0.8)
    none = len(limits) > 0 and set(limits) == {NONE}
    strange = doubts.altered(table, shown=table.iloc[:1].assign(outside=0.75))
    assert ("the altered signal of 75% of genes is outside" in strange) == (APART in limits or none)
    assert "outside" not in doubts.altered(table)


def test_null_is_advised_where_it_can_run():
    table = effects(APART, outside=0.8)
    assert doubts.altered(table, shown=table).endswith("--null=19 shows by how much.")
    bare = doubts.altered(table, shown=table, permutable=False)
    assert bare.endswith("even if the mark tells nothing: trust these effects less.")


def test_effects_beside_those_of_the_permuted_mark():
    null = pd.DataFrame({"p": [0.05, 0.3, np.nan], "permutations": 19})
    said = doubts.altered(effects(APART, outside=0.8), null)
    assert said == (
        "Of 2 mean effects 1 differs from those of the mark permuted (p at most 0.05, each by "
        "itself). A mark that tells nothing beyond the others has effects like those, which need "
        "not lie about 0."
    )
    one = doubts.altered(effects(ZERO), null.iloc[:1])
    assert one.startswith(
        "The 95 % interval of the mean effect includes 0. The mean effect differs"
    )
    assert "No effect is shown" not in one
    assert "is not shown to differ" in doubts.altered(effects(NONE), null.iloc[1:])
    few = doubts.altered(effects(ZERO), null.assign(permutations=3))
    assert few.endswith(
        "With 3 permutations p is at least 0.250: whether an effect differs from those of the mark "
        "permuted cannot be told. --null=19 or more can tell."
    )
    assert "Of 3 mean effects" not in few


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "yes"),
        ({"predicts": False}, "not shown to predict"),
        ({"rivals": "B", "beats_all": False}, "could also be B"),
        ({"rivals": "B", "predicts": False}, "not shown to predict; could also be B"),
        ({"beats_all": False},
         "no other assay can be the best, but it is not shown to beat every one"),
        ({"n_assays": 1}, "the only one"),
        ({"n_assays": 1, "predicts": False}, "the only one, not shown to predict"),
        ({"low": np.nan}, "yes, by its lead over each other"),
        ({"low": np.nan, "beats_all": False}, "cannot be told"),
        ({"low": np.nan, "beats_all": False, "rivals": "B, C"}, "cannot be told"),
        ({"low": np.nan, "beats_all": False, "rivals": "B"}, "by leads alone, could also be B"),
        ({"low": np.nan, "n_assays": 1}, "the only one"),
    ],
)  # fmt: skip
def test_whether_the_highest_is_the_best(row, said):
    known = {"low": 0.1, "rivals": "", "beats_all": True, "n_assays": 3, "predicts": True}
    assert doubts.is_best(known | row) == said
