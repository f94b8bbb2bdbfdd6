"""Figures of CRISPRi screens."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from epi2expr_jax.screens.predicted import LOSS
from epi2expr_jax.screens.scoring import ALL, REACH
from epi2expr_jax.units import count
from experiments.figures.hover import add_hints, ends_of, score_texts
from experiments.figures.layout import columns_of, fitted, page_width, side_label
from experiments.figures.style import BLUE, GREY, number


def screen_figure(rows: pd.DataFrame, reference: str, first: str) -> Figure:
    """Average precision of every score, a panel a subset of pairs, with 95 % intervals.

    Args:
        rows: with columns of `epi2expr_jax.screens.scoring.COLUMNS`.
        reference: the score in colour.
        first: the subset whose order all panels have.
    """
    own = rows[rows["pairs"] == first].sort_values("average_precision", ascending=False)
    order = list(own["score"])
    subsets = list(dict.fromkeys(rows["pairs"]))
    columns = columns_of(len(subsets), 3)
    lines = -(-len(subsets) // columns)
    names = [side_label(name) for name in order]
    line = 0.05 + 0.15 * (max(name.count("\n") for name in names) + 1)
    figure = Figure((page_width(), lines * (0.7 + line * len(order)) + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, subset in zip(panels, subsets, strict=False):
        part = rows[rows["pairs"] == subset].set_index("score").loc[order]
        y = np.arange(len(order))
        colours = [BLUE if name == reference else GREY for name in order]
        panel.axvline(part["regulated"].iloc[0] / part["n"].iloc[0], color=GREY, lw=0.8, ls=":")
        panel.hlines(y, part["low"], part["high"], colours, lw=2)
        panel.scatter(part["average_precision"], y, 28, colours)
        texts = score_texts(order, part, "average_precision", "average precision")
        add_hints(panel, ends_of(part, "average_precision"), y, texts)
        counts = f"{count(part['n'].iloc[0], 'pair')}, {part['regulated'].iloc[0]:,} regulated"
        panel.set_title(f"{subset}\n{counts}", fontsize=8)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    for row in panels[::columns]:
        row.set_yticks(range(len(order)), names)
    for panel in panels[len(subsets) :]:
        panel.remove()
    best = number(own["average_precision"].iloc[0])
    drawn = "95 % intervals over chromosomes; " if bool(rows["low"].notna().any()) else ""
    label = f"average precision (best of {first}: {best}); {drawn}dotted: chance"
    figure.supxlabel(label, fontsize=9)
    return fitted(figure)


def reach_figure(rows: pd.DataFrame) -> Figure | None:
    """`screen_figure` of what a run predicts of the pairs in its reach; None where nothing is."""
    rows = rows[rows["pairs"].str.startswith(REACH)]
    return screen_figure(rows, LOSS, REACH + ALL) if len(rows) else None
