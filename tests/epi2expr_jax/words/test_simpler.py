import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.words.simpler import simpler_model


def compared(*rows):
    """Rows of `compare_models` for a model `cnn`: simple model, assay, lead and its limits."""
    names = ["model", "assay", "lead", "lead_low", "lead_high"]
    first = [("cnn", assay, 0.0, 0.0, 0.0) for assay in dict.fromkeys(row[1] for row in rows)]
    return pd.DataFrame([*first, *rows], columns=pd.Index(names)).assign(pearson=0.5)


BETTER = ("ridge", "A", 0.05, 0.02, 0.08)
WORSE = ("ridge", "B", -0.2, -0.3, -0.1)
OPEN = ("ridge", "C", -0.01, -0.03, 0.01)
NONE = ("ridge", "D", 0.1, np.nan, np.nan)
SIMPLER = (
    "A simpler model predicts better than cnn for 1 of 1 assay: A (ridge by 0.050, 0.020 to 0.080)."
)
WON = "cnn predicts better (by Pearson r) than each of the simple models for B."
LEVEL = (
    "For C no difference is shown between cnn and the best of the simple models, which does not "
    "mean that there is none: r of ridge less that of cnn is −0.010 (−0.030 to 0.010) for C."
)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([BETTER], SIMPLER),
        ([WORSE], WON),
        ([OPEN], LEVEL),
        ([BETTER, WORSE, OPEN, NONE], f"{SIMPLER.replace('1 assay', '4 assays')} {WON} {LEVEL}"),
        # One simple model that is beaten says nothing of another.
        ([OPEN, ("linear", "C", -0.5, -0.6, -0.4)], LEVEL),
        # A mean over assays that is worse is no statement on each.
        ([("ridge", "all", -0.2, -0.3, -0.1), OPEN], LEVEL),
        ([NONE], "Whether a simple model predicts better than cnn cannot be told: there is too "
         "little data for an interval of its lead."),
    ],
)  # fmt: skip
def test_what_is_said_of_simple_models(rows, said):
    assert simpler_model(compared(*rows), ["ridge", "linear"]) == said


def test_what_is_not_compared():
    table = compared(BETTER, ("cnn, mean of 3 seeds", "A", 0.5, 0.4, 0.6))
    assert "seeds" not in simpler_model(table, ["ridge"])
    assert simpler_model(table, ["linear"]) == ""
    assert "on 50% of them: their leads are not compared" in simpler_model(table, ["ridge"], 0.5)
    assert simpler_model(table, ["ridge"], whole=["linear"]) == SIMPLER
    wide = simpler_model(table, ["ridge"], whole=["linear", "ridge"])
    reads = "(ridge reads the store's whole window, which may be wider than what cnn reads.)"
    assert wide == f"{SIMPLER} {reads}"
    over_all = compared(("ridge", "all", 0.05, 0.02, 0.08), BETTER)
    mean = "Averaged over all assays it leads by 0.050, 0.020 to 0.080."
    assert simpler_model(over_all, ["ridge"]) == f"{SIMPLER} {mean}"


@pytest.mark.parametrize(("share", "said"), [(0.5, "50%"), (0.999, "99.9%")])
def test_simple_models_that_had_more_genes_are_not_compared(share, said):
    table = compared(BETTER)
    assert f"trained on all training genes, cnn on {said} of them:" in simpler_model(
        table, ["ridge"], share
    )


def test_the_best_simple_model_of_each_assay_is_told():
    table = compared(
        ("ridge", "all", 0.02, 0.01, 0.03), ("whole", "all", 0.04, 0.02, 0.06),
        BETTER, ("whole", "A", 0.5, 0.4, 0.6), OPEN,
    )  # fmt: skip
    said = simpler_model(table, ["ridge", "whole"])
    assert said == (
        "Simpler models predict better than cnn for 1 of 2 assays: A (whole by 0.500, 0.400 to "
        "0.600). Averaged over all assays the best of them, whole, leads by 0.040, 0.020 to 0.060. "
        f"{LEVEL}"
    )
    alone = simpler_model(compared(("ridge", "all", 0.02, 0.01, 0.03), OPEN), ["ridge"])
    assert alone == (
        "Averaged over all assays ridge predicts better than cnn, by 0.020, 0.010 to 0.030. "
        + LEVEL
    )


@pytest.mark.trial
def test_no_model_is_said_to_be_better_where_none_is(trial_size):
    """12 assays and three simple models as good as the first: 36 ways to be wrong."""
    count, rng = trial_size(15, 1000), np.random.default_rng(0)
    assays, models = [f"a{i}" for i in range(12)], ("cnn", "linear", "ridge", "boosting")
    wrong = 0
    for _ in range(count):
        tables = {
            model: pd.DataFrame(
                {"cell": "E003", "assays": assay, "fold": k % 5, "seed": 0, "chrom": f"chr{k}",
                 "n": 100, "constant": False, "constant_observed": False,
                 **dict.fromkeys(scoring.METRICS, 0.5 + 0.05 * rng.standard_normal())}
                for assay in assays for k in range(20)
            )
            for model in models
        }  # fmt: skip
        wrong += "better than" in simpler_model(compare_models(tables), models[1:])
    print(f"one model said to be better where none is: {wrong / count:.3f}")
    assert wrong <= max(2, 0.06 * count)
