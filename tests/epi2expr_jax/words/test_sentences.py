"""Which sentences follow from which tables."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores.intervals import ONE_VALUE
from epi2expr_jax.scores.ranking import QUESTION_COLUMNS
from epi2expr_jax.words import sentences


def questions(on, level, thresholds=("0.5", "1", "2")):
    """Scores by question: of each assay its score, and the first rank that it could have."""
    rows = []
    for threshold in thresholds:
        for question, scores in (("on", on), ("level", level)):
            order = sorted(scores, key=lambda assay: -scores[assay][0])
            for rank, assay in enumerate(order, 1):
                score, rank_low = scores[assay]
                limits = (score - 0.02, score + 0.02, score - 0.03, score + 0.03)
                rows.append((threshold, question, "all", assay, rank, score, *limits, rank_low,
                             len(order), 1.25, 1000, 20, ""))  # fmt: skip
    return pd.DataFrame(rows, columns=pd.Index(QUESTION_COLUMNS))


ALL_CELLS = pd.DataFrame({"cell": "all", "assay": list("AB"), "pearson": [0.71, 0.6]})
A_FIRST, B_FIRST = {"A": (0.9, 1), "B": (0.8, 2)}, {"A": (0.3, 2), "B": (0.6, 1)}


@pytest.mark.parametrize(
    ("on", "level", "unit", "differ", "said", "unsaid"),
    [
        (A_FIRST, B_FIRST, "RPKM", True,
         ["(expression of at least 1 RPKM)? A has the highest AUC, 0.900 (0.880 to 0.920).",
          "B has the highest Spearman rho, 0.600 (0.580 to 0.620; RMSE 1.25 in log2(RPKM + 1))",
          "no assay is best for both"], ["could", "matters", "chance"]),
        (A_FIRST, A_FIRST, "TPM", False, ["at least 1 TPM)"], ["best for both"]),
        (A_FIRST, {"A": (0.59, 1), "B": (0.6, 1)}, "none", True,
         ["of at least 1)?", "it could also be A", "one assay could still be best for both: A."],
         ["none", "no assay is"]),
        ({"A": (0.51, 1), "B": (0.5, 1)}, {"A": (0.02, 1)}, "RPKM", False,
         ["none is shown to do better than chance (0.5)", "A has Spearman rho 0.020",
          "it is not shown to do better than chance (0)"], []),
    ],
)  # fmt: skip
def test_the_two_questions(on, level, unit, differ, said, unsaid):
    text, apart = sentences.by_question(questions(on, level), ALL_CELLS, unit)
    assert apart == differ
    for words in said:
        assert words in text, text
    for words in unsaid:
        assert words not in text, text


def test_where_the_line_is_drawn_may_matter():
    table = pd.concat(
        [questions(A_FIRST, B_FIRST, ("0.5", "1")), questions(B_FIRST, B_FIRST, ("2",))]
    )
    text, _ = sentences.by_question(table, ALL_CELLS, "RPKM")
    assert (
        "At other thresholds other assays are highest (not tested): B for whether a gene is "
        "on, at 2 RPKM." in text
    )


def test_both_parts_in_one_prediction():
    table, whole = questions(A_FIRST, A_FIRST), questions({}, {"A": (0.73, 1), "B": (0.7, 1)})
    table = pd.concat([table, whole.assign(question="both")])
    text, differ = sentences.by_question(table, ALL_CELLS, "RPKM")
    assert not differ
    assert text.endswith(
        "then expresses): A has the highest Pearson r, 0.730 (0.710 to 0.750); at 95 % confidence "
        "it could also be B. Predicting expression directly, A has r 0.710."
    )


def test_nothing_is_said_of_half_a_table():
    table = questions(A_FIRST, B_FIRST)
    for less in (table[table["question"] == "on"], table[table["cell"] == "E1"], table.iloc[:0]):
        assert sentences.by_question(less, ALL_CELLS, "RPKM") == ("", False)
    without = table.assign(low=np.nan, high=np.nan, note="fewer than 3 chromosomes")
    without = without.assign(simultaneous_low=np.nan)
    text = sentences.by_question(without, ALL_CELLS, "RPKM")[0]
    assert "(no interval: fewer than 3 chromosomes)" in text
    assert "chance" not in text  # which nobody knows


def added(*rows):
    columns = ["assay", "r2_without", "added", "low", "high"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


KNOWN = pd.DataFrame(
    {"gene_id": list("abc"), "gene length": [1.0, 2.0, np.nan], "kind": list("xyx")}
)
UP, IDLE = ("A", 0.05, 0.3, 0.25, 0.35), ("B", 0.05, 0.001, -0.02, 0.022)


@pytest.mark.parametrize(
    ("rows", "said", "unsaid"),
    [
        ([UP, IDLE],
         ["needs no epigenome (gene length; 1 gene without a value counts as the middle one) has "
          "Pearson r 0.210 and R² 0.050 (",
          "more with 1 of 2 assays; most R² is added by A 0.300 (0.250 to 0.350)"], ["B"]),
        ([IDLE], ["No assay is shown to add to that R²."], ["most"]),
        ([("A", 0.05, 0.3, np.nan, np.nan)], ["has no interval"], ["most", "No assay"]),
    ],
)  # fmt: skip
def test_what_assays_add_to_what_needs_no_epigenome(rows, said, unsaid):
    compared = pd.DataFrame({"model": ["cnn", "covariates"], "pearson": [0.5, 0.21]})
    text = sentences.added(added(*rows), KNOWN, compared)
    without = sentences.added(added(*rows), KNOWN, compared.iloc[:0])
    assert without == text.replace("Pearson r 0.210 and ", "")
    for words in said:
        assert words in text, text
    for words in unsaid:
        assert words not in text, text


def test_what_is_a_cells_own():
    lead = pd.DataFrame({"model": ["cnn", "mean of the other cells"], "assay": "A",
                         "lead_low": [0.0, 0.1], "lead_high": [0.0, 0.2]})  # fmt: skip
    own = questions({"A": (0.4, 1), "B": (0.1, 2)}, {}, ("1",)).rename(columns={"score": "pearson"})
    text = sentences.beyond_mean(lead, own)
    assert text == (
        "The mean of the other cells, which needs no epigenome, predicts better than cnn for A. Of "
        "what is a cell's own (deviations from the mean of the cells): A has the highest Pearson "
        "r, 0.400 (0.380 to 0.420)."
    )
    assert sentences.beyond_mean(lead.iloc[:1], own) == ""
    over_all = pd.concat([lead.assign(assay="all"), lead])  # the mean of the assays is not one
    assert sentences.beyond_mean(over_all, own) == text
    assert sentences.beyond_mean(lead, own.iloc[:0]).endswith("predicts better than cnn for A.")


def gains(*limits):
    rows = [("A", "B", 0.12, -0.01, 0.13, low, high) for low, high in limits]
    names = ["assay", "other", "gain", "gain_other", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def test_who_gains_from_what():
    text = sentences.interaction(gains((0.1, 0.16), (-0.1, 0.36)), "chromoformer", "cnn")
    assert text == (
        "Does r change more from cnn to chromoformer with some assays than with others? Of 2 "
        "pairs of assays 1 is shown to differ, their intervals taken together: by +0.120 with A, "
        "by −0.010 with B: 0.130 more (0.100 to 0.160)."
    )
    assert "none is shown to differ" in sentences.interaction(gains((-0.1, 0.2)), "a", "b")
    assert "cannot be told" in sentences.interaction(gains((np.nan, np.nan)), "a", "b")
    assert sentences.interaction(gains(), "a", "b") == ""


def test_what_differs_between_two_cells():
    columns = ["cell", "other", "assays", "trained_on", "pearson", "low", "high", "lead_low",
               "lead_high", "less_low", "less_high"]  # fmt: skip
    rows = [("E1", "E2", "A", "E1", 0.4, 0.3, 0.5, 0.1, 0.3, -0.2, 0.1),
            ("E1", "E2", "A", "E2", 0.3, 0.2, 0.4, -0.2, -0.1, -0.1, 0.1),
            ("E1", "E2", "A+B", "E1+E2", 0.2, 0.1, 0.3, 0.1, 0.4, -0.3, 0.2)]  # fmt: skip
    text = sentences.changes(pd.DataFrame(rows, columns=columns))
    assert text == (
        "What differs between E1 and E2, on genes held out: of 3 models, A trained on E1 has the "
        "highest Pearson r between the difference of its predictions and that of expression, 0.400 "
        "(0.300 to 0.500). None is shown to have smaller squared errors than no change. A trained "
        "on E1, A+B are shown to have a higher r than the difference of promoter means; A trained "
        "on E2 is shown to have a lower one. (Each at 95 % confidence for all models together; "
        "between_cells.csv.)"
    )
    assert sentences.changes(pd.DataFrame(rows[:0], columns=columns)) == ""


def test_what_the_stack_predicts():
    rows = [("all", "cnn", 0.5, 0.0, 0.0, 0.0), ("all", "stack", 0.52, 0.02, -0.001, 0.041)]
    columns = ["assay", "model", "pearson", "lead", "lead_low", "lead_high"]
    compared = pd.DataFrame(rows, columns=columns)
    said = sentences.stack(compared)
    assert "r 0.520 for the mean over assays: a lead of 0.020 (−0.001 to 0.041) over cnn." in said
    assert "nothing" not in said
    assert "It is a prediction, no measure of what an assay is worth" in said
    assert "a lead of 0.020 over" in sentences.stack(compared.assign(lead_low=np.nan))
    assert sentences.stack(compared[:1]) == sentences.stack(pd.DataFrame()) == ""


def test_a_stack_that_chose_nothing_has_no_score():
    columns = ["assay", "model", "pearson", "lead", "lead_low", "lead_high", "note"]
    rows = [("all", "cnn", 0.3, 0.0, 0.0, 0.0, ""), ("all", "stack", 0.3, 0.0, -0.1, 0.1, ""),
            ("A", "cnn", 0.6, 0.0, 0.0, 0.0, ""), ("A", "stack", 0.6, 0.0, -0.1, 0.1, ""),
            ("B", "cnn", 0.0, 0.0, 0.0, 0.0, ""),
            ("B", "stack", 0.0, 0.0, np.nan, np.nan, ONE_VALUE)]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    said = sentences.stack(table)
    assert said.endswith(f"For B it chose nothing: {ONE_VALUE} (0 in the mean over assays).")
    alone = sentences.stack(table[table["assay"] == "B"])
    assert alone == (
        "The stack, a weighted mean of cnn and simple models, predicts nothing: for B it chose "
        f"nothing: {ONE_VALUE}."
    )
