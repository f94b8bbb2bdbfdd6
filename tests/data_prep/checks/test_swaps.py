"""Tracks and columns under another's name, in panels whose truth is known."""

import numpy as np
import pytest

from data_prep.checks.swaps import EXPRESSION, Panel, look_alikes

GENES, CELLS = 400, 4
KNOWS = {"A": 0.9, "B": 0.75, "C": 0.0, "D": -0.7, EXPRESSION: 0.95}  # correlation with activity


def rows_of(seed: int, genes: int = GENES, cells: int = CELLS) -> dict[tuple[str, str], np.ndarray]:
    """Of each cell and series; a quarter of the variance of activity is the cell's own."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=genes)
    rows = {}
    for cell in range(cells):
        activity = np.sqrt(0.75) * common + np.sqrt(0.25) * rng.normal(size=genes)
        for series, rho in KNOWS.items():
            reading = rho * activity + np.sqrt(1 - rho**2) * rng.normal(size=genes)
            rows[f"c{cell}", series] = np.exp(reading)  # any scale: ranks are compared
    return rows


def found_in(rows) -> list[tuple[str, str]]:
    problems = look_alikes(Panel(list(rows), np.stack(list(rows.values()))))
    return [(problem.kind, problem.where) for problem in problems]


def noisy(row: np.ndarray) -> np.ndarray:
    return row * np.random.default_rng(9).lognormal(0, 0.1, len(row))


@pytest.mark.trial
def test_true_names_raise_no_suspicion(trial_size):
    for seed in range(trial_size(5, 400)):
        genes, cells = [(60, 2), (120, 3), (400, 4), (500, 8)][seed % 4]
        assert found_in(rows_of(seed, genes, cells)) == []


@pytest.mark.trial
def test_swaps_are_found_and_nothing_else(trial_size):
    for seed in range(trial_size(3, 100)):
        rows = rows_of(seed)
        pairs = {
            "swapped_cells": (("c1", "A"), ("c3", "A")),
            "swapped_expression": (("c0", EXPRESSION), ("c2", EXPRESSION)),
            "swapped_assays": (("c2", "A"), ("c2", "D")),
        }
        for kind, (one, other) in pairs.items():
            swapped = rows | {one: rows[other], other: rows[one]}
            ((found, where),) = found_in(swapped)
            assert found == kind
            assert all(name in where for name in {*one, *other})


def test_a_copy_of_another_is_named_alone():
    rows = rows_of(0)
    assert found_in(rows | {("c0", "C"): noisy(rows["c0", "A"])}) == [("other_assay", "c0 C")]
    assert found_in(rows | {("c0", "A"): noisy(rows["c1", "A"])}) == [("other_cell", "A of c0")]
    other = rows | {("c0", EXPRESSION): noisy(rows["c1", EXPRESSION])}
    assert found_in(other) == [("other_expression", "expression column of c0")]


def test_missing_rows_and_data_are_passed_over():
    rows = rows_of(1)
    del rows["c0", "B"], rows["c3", "A"]
    rows["c1", "B"] = np.where(np.arange(GENES) < 370, np.nan, rows["c1", "B"])  # 30 genes left
    rows["c2", "B"] = np.full(GENES, 3.0)
    rows["c3", "B"] = np.full(GENES, np.nan)
    assert found_in(rows) == []
    swapped = rows | {("c1", "A"): rows["c2", "A"], ("c2", "A"): rows["c1", "A"]}
    assert [kind for kind, _ in found_in(swapped)] == ["swapped_cells"]
    assert found_in({key: row for key, row in rows.items() if key[0] == "c2"}) == []
    assert found_in({key: row for key, row in rows.items() if key[1] == EXPRESSION}) == []
