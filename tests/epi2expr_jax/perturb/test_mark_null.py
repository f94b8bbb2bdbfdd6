"""Effects of a mark next to those of its permutations: what is permuted, and that p holds."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.perturb import mark_null


def linear_p(rng, genes, driving=0.0):
    """p of the mean effect of taking away a mark, of least squares on a share of the genes.

    The mark follows the others in bends, and expression follows these in ways that least squares
    does not know.
    """
    logs = rng.normal(0, 0.7, (5, 2)) @ rng.standard_normal((2, genes))
    logs = logs + 0.7 * rng.standard_normal(logs.shape)
    logs[4] += 0.8 * np.tanh(2 * logs[:4].mean(axis=0))
    y = np.log1p(np.exp(rng.normal(0, 1, 4) @ logs[:4])) + 0.3 * logs[0] * logs[1]
    y = y + driving * logs[4] + rng.standard_normal(genes)
    *others, mark = np.exp(1 + logs)

    def effect(mark):
        design = np.stack([np.ones(genes), np.log1p(mark), *np.log1p(others)], axis=1)
        kept = rng.random(genes) < 0.8
        slope = np.linalg.lstsq(design[kept], y[kept])[0][1] + rng.normal(0, 0.02)
        return -slope * np.log1p(mark).mean()

    row = {"cell": "E003", "assays": "A+X", "mark": "X", "place": "promoter", "change": "x 0"}
    drawn = [effect(mark[mark_null.permuted(mark, np.array(others), rng)]) for _ in range(19)]
    means = pd.DataFrame([{**row, "effect": effect(mark), "factor": 0.0}])
    tables = [pd.DataFrame([{**row, "assays": f"A+X~{i}", "effect": e}]) for i, e in
              enumerate(drawn, 1)]  # fmt: skip
    table = mark_null.compare(means, mark_null.effects_of(tables, means, "X"))
    return table.p.item()


@pytest.mark.trial
def test_p_of_idle_marks_holds(trial_size):
    count = trial_size(10, 400)
    p = np.array([linear_p(np.random.default_rng([i, 7]), 1500) for i in range(count)])
    found = [linear_p(np.random.default_rng([i, 6]), 1500, 0.3) for i in range(count // 5)]
    print(f"idle marks: p <= 0.05 in {(p <= 0.05).mean():.3f}, driving {np.mean(found):.3f}")
    assert (p <= 0.05).mean() <= (0.06 if count >= 200 else 0.2)
    assert np.mean(np.array(found) <= 0.05) > 0.9


def test_rows_are_permuted_among_genes_alike_in_the_other_marks():
    rng = np.random.default_rng(0)
    others = np.exp(rng.standard_normal((2, 300)))
    mark = others[0] * np.exp(0.1 * rng.standard_normal(300))
    given = mark_null.permuted(mark, others, rng)
    assert sorted(given) == list(range(300))
    assert (given != np.arange(300)).mean() > 0.8
    assert np.corrcoef(np.log(others[0][given]), np.log(others[0]))[0, 1] > 0.95
    alone = mark_null.permuted(mark, np.empty((0, 300)), rng)
    assert sorted(alone) == list(range(300))


ROW = {"cell": "E003", "assays": "X", "mark": "X", "place": "promoter", "change": "x 0"}


def drawn(effects, means):
    """Effects of permutations of X."""
    tables = [
        pd.DataFrame([{**ROW, "mark": f"X~{i}", "assays": f"X~{i}", "effect": effect}])
        for i, effect in enumerate(effects, 1)
    ]
    return mark_null.effects_of(tables, means, "X")


def test_p_counts_effects_as_far_from_the_middle_of_all():
    same = {**ROW, "change": "x 1", "effect": 0.0, "factor": 1.0}  # which changes nothing
    means = pd.DataFrame([{**ROW, "effect": -0.5, "factor": 0.0}, same])
    draws = drawn([0.5, -0.4, 0.7], means)
    assert draws.permutation.tolist() == [1, 2, 3]
    idle = draws.assign(change="x 1", effect=0.0)
    draws = pd.concat([draws, idle], ignore_index=True)
    (found,) = mark_null.compare(means, draws).to_dict("records")
    assert (found["null_low"], found["null_high"], found["permutations"]) == (-0.4, 0.7, 3)
    assert found["p"] == (1 + 1) / 4  # the middle is 0.075
    draws.loc[1, "effect"] = np.nan  # it failed, and says nothing
    (found,) = mark_null.compare(means, draws).to_dict("records")
    assert (found["permutations"], found["p"]) == (2, 1 / 3)


@pytest.mark.parametrize(("effect", "p"), [(-0.27, 0.05), (1.07, 1.0), (1.9, 0.05)])
def test_what_any_permutation_does_is_no_effect(effect, p):
    """Out of the range trained on, marks that tell nothing have effects about 1, not about 0."""
    means = pd.DataFrame([{**ROW, "effect": effect, "factor": 0.0}])
    draws = drawn([*np.linspace(0.7, 1.0, 9), *np.linspace(1.1, 1.4, 10)], means)
    (found,) = mark_null.compare(means, draws).to_dict("records")
    assert found["p"] == pytest.approx(p)


@pytest.mark.parametrize(
    ("change", "run", "contacts", "can"),
    [
        ({}, {}, 0, True),
        ({"mark": "X+Y"}, {}, 0, False),
        ({"change": "from E004"}, {}, 0, False),
        ({}, {"cell": "E003+E004"}, 0, False),
        ({}, {}, 8, False),
        ({}, {"assays": ["Z"]}, 8, True),  # other models of the run read regions
    ],
)
def test_where_null_can_be_asked_for(change, run, contacts, can):
    means = pd.DataFrame([ROW | {"effect": 1.0} | change])
    own = {"runs": [{"cell": "E003", "assays": ["X"]}], "model_config": {"window_bp": 100}}
    other = {
        "runs": [{"cell": "E003", "assays": ["X"]} | run],
        "model_config": {"contacts": contacts},
    }
    card = {"store": {"cells": ["E003", "E004"]}, "populations": [own, other]}
    assert mark_null.permutable(means, card) is can
