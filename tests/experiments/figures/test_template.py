import pandas as pd
import pytest

from experiments.figures.template import cells_of, duration, unit_of_run


@pytest.mark.parametrize(
    ("seconds", "said"), [(59.6, "1 min 0 s"), (75, "1 min 15 s"), (3730, "1 h 2 min")]
)
def test_times_are_said_in_words(seconds, said):
    assert duration(seconds) == said


def test_a_cell_whose_runs_failed_is_a_hole():
    card = {"store": {"cells": ["E003", "E116"], "expression_unit": "TPM"}, "target": "log2"}
    runs = pd.DataFrame({"cell": ["E116", "E003+E116"]})
    assert cells_of(card, runs, pd.DataFrame({"cell": ["all", "E003"]})) == ["E116", "E003"]
    assert unit_of_run(card) == "log2(TPM + 1)"
