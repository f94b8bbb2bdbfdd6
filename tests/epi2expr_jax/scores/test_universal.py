"""What is said of a universal mark is true, in worlds where the truth is known."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.universal import leads, verdict
from tests.epi2expr_jax.scores.simulated import failed, scores, world

CLEAR = world([0.7, 0.5, 0.3], [0.6, 0.4, 0.3], [0.65, 0.5, 0.2])
FIVE = world(*[[0.7, 0.5, 0.3]] * 5)
NONE = world([0.7, 0.5, 0.3], [0.4, 0.6, 0.3], [0.65, 0.5, 0.2])


@pytest.mark.parametrize(
    ("table", "options", "answer", "assays", "said", "unsaid"),
    [
        (scores(CLEAR), {}, "shown", "A",
         "A is a universal mark of these 3 cells", "new cell"),
        (scores(CLEAR), {}, "shown", "A", "This says nothing of other cells", "No universal"),
        (scores(CLEAR), {"claim": "A"}, "shown", "A", "(95% limits)", "corrected"),
        (scores(CLEAR), {}, "shown", "A", "(95% limits, corrected for 3 candidates)", "tie"),
        (scores(CLEAR), {"claim": "B"}, "excluded", "B",
         "B is not a universal mark: in E", "No universal mark"),
        (scores(FIVE), {}, "shown", "A",
         "In one more cell like these, A is expected to be within 0.01", "nothing"),
        (scores(world(*[[0.6 + 0.1 * c, 0.55] for c in range(5)])), {}, "shown", "A",
         "What holds in a new cell cannot be told: the leads vary too much", "expected to"),
        (scores(NONE), {}, "excluded", "", "No universal mark among these 3 assays", "highest"),
        # B is nowhere beaten, though A is the highest in one of the two cells.
        (scores(world([0.60, 0.598, 0.3], [0.4, 0.6, 0.3])), {}, "shown", "B",
         "B is a universal mark of these 2 cells", "A is"),
        (scores(world([0.60, 0.56], [0.5, 0.51]), own=0.05), {}, "cannot be told", None,
         "these may be better than it by more than the margin: B in E", "No universal"),
        # Two that are equal within the margin are both as good as any.
        (scores(world([0.7, 0.7, 0.2], [0.7, 0.7, 0.2]), own=0.001), {}, "shown", None,
         "are each a universal mark", "cannot"),
        (scores(world([-0.3, -0.5], [-0.3, -0.5])), {}, "cannot be told", "A",
         "in E1, E2 it is not shown to predict better than chance", "is a universal"),
        (scores(world([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])), {}, "cannot be told", None,
         "better than chance", "No universal"),
        (scores({"E1": {"A": 0.7, "B": 0.5}}), {}, "not asked", "",
         "of one cell", "mark of"),
        (scores(world([0.7], [0.6])), {}, "not asked", "", "Only A was scored", "of one cell"),
        # A rival whose training failed is not beaten, nor does its failure exclude it.
        (failed(scores(CLEAR), "E2", "B"), {}, "cannot be told", "A",
         "the training of B in E2 failed", "is a universal"),
        (failed(scores(NONE), "E2", "A"), {"claim": "A"}, "cannot be told", "A",
         "the training of A in E2 failed", "not a universal"),
        # Tracks that are missing: no statement on what was never compared.
        (scores({"E1": {"A": 0.7}, "E2": {"B": 0.7}}), {}, "cannot be told", None,
         "was not scored in", "No universal"),
        (scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"A": 0.7, "C": 0.5}}), {}, "shown", "A",
         "no other assay scored there", "cannot"),
        (scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"A": 0.7}}), {}, "cannot be told", "A",
         "no other assay was scored in E2", "is a universal"),
        (scores({"E1": {"A": 0.7, "B": 0.5}, "E2": {"B": 0.7, "C": 0.5}}), {"claim": "A"},
         "cannot be told", "A", "it was not scored in E2", "shown"),
        (scores(CLEAR, K=2, folds=2), {}, "cannot be told", None,
         "fewer than 3 chromosomes", "No universal"),
        (scores(world([0.6, 0.595], [0.6, 0.59]), own=0.0005), {"margin": 0.0}, "shown", "A",
         "better by 0 or more", "cannot"),
        (scores(world([0.6, 0.63], [0.6, 0.62]), own=0.001), {"margin": 0.05}, "shown", "BA",
         "better by 0.05 or more", "cannot"),
    ],
)  # fmt: skip
def test_worlds(table, options, answer, assays, said, unsaid):
    found = verdict(table, **options)
    assert found.answer == answer, found.words
    if assays is not None:
        assert "".join(found.assays) == assays
    assert said in found.words
    assert unsaid not in found.words


def test_a_lead_is_paired_by_chromosome_over_what_both_have():
    table = scores(world([0.7, 0.5], [0.6, 0.5]), own=0.0)
    table["pearson"] += table.chrom.str[3:].astype(int) * 0.01  # chromosomes differ, leads do not
    lacking = table[~((table.assays == "B") & (table.chrom == "chr20"))]
    found = leads(lacking)
    assert found.lead[0, 0, 1] == pytest.approx(0.2)
    assert found.lead[0, 1, 0] == pytest.approx(-0.2)
    assert found.error[0, 0, 1] == pytest.approx(0, abs=1e-12)
    assert found.degrees[0, 0, 1] == 18
    assert found.r_error[0, 0] > 0.01


WORLDS = {
    "two equal": world([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]),
    "just not": world(*[[0.5, 0.5 - 0.0105]] * 2, [0.5, 0.5105]),
    "five alike": world(*[[0.5] * 5] * 3),
    "all null": world(*[[0.0] * 3] * 2),
    "many, one cell apart": world(*[[0.5] + [0.489] * 5] * 4, [0.489, 0.5] + [0.48] * 4),
}


@pytest.mark.trial
@pytest.mark.parametrize(("K", "folds", "seeds", "blind"),
                         [(22, 5, 1, False), (22, 22, 1, False), (22, 5, 3, False),
                          (3, 5, 3, True)])  # fmt: skip
@pytest.mark.parametrize("name", WORLDS)
def test_few_verdicts_are_wrong(name, K, folds, seeds, blind, trial_size):
    level = np.array([list(row.values()) for row in WORLDS[name].values()])
    behind = (level.max(axis=1, keepdims=True) - level).max(axis=0)
    true = {a for a, b, r in zip("ABCDEFGH", behind, level.min(axis=0), strict=False)
            if b <= 0.01 and r > 0}  # fmt: skip
    rng = np.random.default_rng(K + folds + seeds)
    count, wrong = trial_size(4, 1000), 0
    for _ in range(count):
        table = scores(WORLDS[name], K, folds, seeds, rng, 0.05, 0.02, blind)
        found = verdict(table)
        if found.answer == "shown":
            wrong += not set(found.assays) <= true
        elif found.answer == "excluded":
            wrong += bool(true)
    print(f"{name}, {K} chromosomes, {folds} folds, {seeds} seeds: wrong {wrong / count:.4f}")
    assert wrong <= max(1, 0.05 * count)


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_clear_is_found(seeds):
    """Power: a lead of 0.1 where a chromosome varies by 0.05 and a training by 0.02."""
    rng = np.random.default_rng(seeds)
    clear, none = (world(*rows) for rows in ([[0.6, 0.5, 0.3]] * 3, [[0.6, 0.5], [0.5, 0.6]]))
    for level, answer in ((clear, "shown"), (none, "excluded")):
        tables = [scores(level, 22, 5, seeds, rng, 0.05, 0.02) for _ in range(10)]
        assert sum(verdict(table).answer == answer for table in tables) >= 9


@pytest.mark.parametrize(
    ("options", "named"),
    [({"claim": "a"}, "did you mean A?"), ({"claim": "H3K9me3"}, "expected A, B, C"),
     ({"margin": -0.1}, "from 0 up to 1"), ({"margin": float("nan")}, "from 0 up to 1")],
)  # fmt: skip
def test_what_cannot_be_asked(options, named):
    with pytest.raises(InputError, match=named.replace("?", r"\?")):
        verdict(scores(CLEAR), **options)
