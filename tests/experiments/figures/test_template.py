import pandas as pd
import pytest

from experiments.figures.template import breakable, cells_of, configs, duration, unit_of_run


@pytest.mark.parametrize(
    ("seconds", "said"), [(59.6, "1 min 0 s"), (75, "1 min 15 s"), (3730, "1 h 2 min")]
)
def test_times_are_said_in_words(seconds, said):
    assert duration(seconds) == said


def test_lines_break_after_a_plus_and_in_no_flag():
    page = breakable("A+B: try --cv=chromosomes_5, & <more>")
    flag = '<span class="flag">--cv=chromosomes_5</span>'
    assert page == f"A+<wbr>B: try {flag}, &amp; &lt;more&gt;"


def test_a_cell_whose_runs_failed_is_a_hole():
    card = {"store": {"cells": ["E003", "E116"], "expression_unit": "TPM"}, "target": "log2"}
    runs = pd.DataFrame({"cell": ["E116", "E003+E116"]})
    assert cells_of(card, runs, pd.DataFrame({"cell": ["all", "E003"]})) == ["E116", "E003"]
    assert unit_of_run(card) == "log2(TPM + 1)"


def test_what_runs_have_in_common_is_told_once():
    parts = [("each", 1, 6), ("all", 3, 2)]
    common = {"window_bp": 6000, "width": 0.1}
    card = {"populations": [{"runs": [0] * runs, "model_config": common | {"assays": assays}}
                            for _, assays, runs in parts]}  # fmt: skip
    assert configs(card) == (common, [(6, {"assays": 1}), (2, {"assays": 3})])
    card["populations"].append(card["populations"][0])  # of another share
    assert configs(card) == (common, [(12, {"assays": 1}), (2, {"assays": 3})])
    del card["populations"][1:]
    assert configs(card) == (common | {"assays": 1}, [])
