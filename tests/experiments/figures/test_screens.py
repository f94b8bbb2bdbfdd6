"""The figure of CRISPRi screens has a panel a subset, and all scores in one order."""

import numpy as np
import pandas as pd

from epi2expr_jax.screens.scoring import COLUMNS
from experiments.figures.screens import reach_figure, screen_figure


def test_a_panel_a_subset_with_scores_in_the_order_of_the_first():
    names, subsets = ["distance", "activity"], ["all", "near", "far", "study"]
    rows = pd.DataFrame(
        [(subset, name) for subset in subsets for name in names], columns=["pairs", "score"]
    ).reindex(columns=COLUMNS)
    rows = rows.assign(n=100, regulated=10, average_precision=np.tile([0.2, 0.6], 4))
    figure = screen_figure(rows, "activity", "all")
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == names[::-1]
    assert "100 pairs, 10 regulated" in figure.axes[1].get_title()
    assert "0.600" in figure.get_supxlabel()
    assert reach_figure(rows) is None
    near = rows.assign(pairs="in reach: " + rows["pairs"].replace("all", "all pairs"))
    near["score"] = near["score"].replace("activity", "predicted loss")
    assert len(reach_figure(near).axes) == 4
