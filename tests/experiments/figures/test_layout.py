"""No figure cuts its words or writes them over one another, on a desk and on a phone."""

import contextlib
import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from epi2expr_jax.screens.scoring import COLUMNS
from experiments.figures.altered_marks import (
    between_figure,
    distance_figure,
    dose_figure,
    profile_figure,
)
from experiments.figures.layout import apart, drop_panels, narrow, new_figure, wrap
from experiments.figures.screens import screen_figure
from experiments.figures.studies import (
    across_figure,
    enrichment_figure,
    gain_figure,
    models_figure,
    pairs_figure,
    quality_figure,
    shapley_figure,
    sweep_figure,
)
from experiments.figures.style import STYLE, heat_map, ranking_figure
from experiments.figures.training import learning_curves, prediction_figure

UNIT = "log2(RPKM + 1)"
MARKS = ["H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3", "H3K27ac", "H3K9ac"]
ASSAYS = ["DNase", "H3K4me3+H3K27ac", "+".join(MARKS)]
CELLS = ["E003", "E116", "E123"]
INTERVAL = {"low": 0.3, "high": 0.6, "simultaneous_low": 0.2, "simultaneous_high": 0.7}


def rows(*columns, **more):
    """A table of all combinations of the values of the columns."""
    names = [name for name, _ in columns]
    table = pd.DataFrame(itertools.product(*(values for _, values in columns)), columns=names)
    return table.assign(**INTERVAL | more)


def effects(**more):
    places = [("promoter", np.nan), ("-5..-3 kb", -4e3), ("+3..+5 kb", 4e3)]
    table = rows(("cell", CELLS), ("assays", ASSAYS), ("at", places), ("factor", [0, 0.5, 1]))
    table["place"], table["distance"] = zip(*table["at"], strict=True)
    return table.assign(effect=-0.5, low=-0.7, high=-0.3, change="H3K4me3 x0", **more)


def profile():
    table = rows(("cell", CELLS), ("set", ASSAYS), ("distance", range(-3000, 3001, 500)))
    table["assay"] = table["set"].str.split("+")
    models = table["cell"] + " " + table["set"]
    table = table.assign(model=models, share=0.001, low=-0.0012, high=0.0034)
    return table.explode("assay", ignore_index=True)


def trained():
    runs = rows(("assay", ASSAYS), ("run_id", "abc"), ("epoch", range(1, 40)))
    return runs.assign(train_loss=2 / runs["epoch"], validation_loss=1.3 / runs["epoch"] + 0.3)


def predicted(n=3000):
    observed = np.linspace(0, 13, n)
    parts = [pd.DataFrame({"observed": observed, "predicted": 2, "assays": a}) for a in ASSAYS]
    return pd.concat(parts)


def screened():
    pairs = ["in reach: all pairs", "in reach: without significant increases", "in reach: far"]
    scores = ["predicted loss", "predicted loss, completed", "H3K27ac / distance", "ABC"]
    table = rows(("pairs", [*pairs, "in reach: Gasperini2019"]), ("score", scores))
    return table.assign(n=10356, regulated=472, average_precision=0.4).reindex(columns=COLUMNS)


def gained():
    kinds = ["all genes", "expressed or not", "genes that are on, how strongly they are"]
    return rows(("genes", kinds), ("assay", ASSAYS), score="Spearman's rho", gain=0.1)


def measured():
    table = rows(("cell", CELLS), ("assay", MARKS))
    random = np.random.default_rng(0)
    for name, low, high in (("pearson", 0.4, 0.6), ("depth", 1, 9), ("signal_to_noise", 2, 3)):
        table[name] = random.uniform(low, high, len(table))
    return table


SCORES = {"pearson": 0.5, "lead": 0.1}
FIGURES = {
    "ranking": lambda: ranking_figure(rows(("assay", ASSAYS), **SCORES), UNIT),
    "cells": lambda: heat_map(pd.DataFrame(0.5, ASSAYS, CELLS)),
    "names": lambda: heat_map(pd.DataFrame(0.5, ASSAYS, ["all assays", *ASSAYS])),
    "pairs": lambda: pairs_figure(pd.DataFrame(
        {"assay": [*MARKS, *map("+".join, itertools.combinations(MARKS, 2))], "pearson": 0.5})),
    "curves": lambda: learning_curves(trained(), ASSAYS),
    "predictions": lambda: prediction_figure(
        predicted(), rows(("assay", ASSAYS), **SCORES), UNIT),
    "points": lambda: prediction_figure(
        predicted(50), rows(("assay", ASSAYS[:2]), **SCORES), UNIT),
    "sweep": lambda: sweep_figure(rows(
        ("assay", ["all", *ASSAYS]), ("window_bp", [2000, 6000, 10_000, 20_000, 40_000]),
        **SCORES)),
    "shapley": lambda: shapley_figure(rows(("assay", ASSAYS), value=0.3)),
    "across_cells": lambda: across_figure(rows(
        ("assays", ASSAYS), ("trained_on", [*CELLS, "E003+E116+E123"]), ("cell", CELLS),
        **SCORES), ASSAYS),
    "baselines": lambda: models_figure(rows(
        ("assay", ["all", *ASSAYS]), ("model", [f"model_{i}" for i in range(9)]), **SCORES)),
    "models": lambda: models_figure(rows(
        ("assay", ["all", *ASSAYS]), ("model", [
            "chromoformer (own)", "chromoformer (shuffled: regions of other genes)", "cnn (x)"]),
        **SCORES)),
    "quality": lambda: quality_figure(measured()),
    "enrichment": lambda: enrichment_figure(rows(
        ("of", ["all regions", "regions in 40 kb of a TSS"]), ("predictor", ["effect", "signal"]),
        ("matched", ["nothing", "distance", "distance and signal"]), enrichment=1.2)),
    "gains": lambda: gain_figure(gained(), MARKS),
    "dose": lambda: dose_figure(effects(), UNIT),
    "distance": lambda: distance_figure(effects(), UNIT),
    "between": lambda: between_figure(effects(r=0.5, lowest=0.2, highest=0.9)),
    "profile": lambda: profile_figure(profile(), UNIT),
    "screen": lambda: screen_figure(screened(), "predicted loss", "in reach: all pairs"),
}  # fmt: skip


def words(figure):
    """What is written where: labels of axes and ticks, titles, legends; names and pixels."""
    figure.draw_without_rendering()
    found = [("over all", text) for text in figure.texts]
    for at, axes in enumerate(figure.axes):
        if not axes.axison:
            continue
        found += [(f"panel {at}", axes.title), (f"panel {at}", axes.xaxis.label)]
        found += [(f"panel {at}", axes.yaxis.label)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks()]:
                if low <= tick.get_loc() <= high:
                    found += [(f"tick of {at}", tick.label1), (f"tick of {at}", tick.label2)]
        found += [(f"value of {at}", text) for text in axes.texts]
        legend = axes.get_legend()
        found += [(f"legend of {at}", text) for text in legend.get_texts()] if legend else []
    for legend in figure.legends:
        found += [("legend", text) for text in legend.get_texts()]
    return [
        (f"{where}: {text.get_text()!r}", Text.get_window_extent(text))  # without arrows
        for where, text in found
        if text.get_visible() and text.get_text().strip()
    ]


OF_NO_PAGE = ("enrichment", "gains")  # drawn for a desk alone


@pytest.mark.parametrize(
    ("name", "width"),
    [(name, contextlib.nullcontext) for name in FIGURES]
    + [(name, narrow) for name in FIGURES if name not in OF_NO_PAGE],
)
def test_no_word_is_cut_or_written_over_another(name, width):
    with matplotlib.rc_context(STYLE), width():
        figure = FIGURES[name]()
        there = words(figure)
    size = figure.bbox.size + 1
    cut = [word for word, box in there if (box.min < -1).any() or (box.max > size).any()]
    over = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(there, 2)
        if (np.minimum(a.max, b.max) - np.maximum(a.min, b.min) > 1).all()
    ]
    assert (cut, over) == ([], [])


def test_long_labels_break_after_a_plus():
    assert wrap("H3K4me3+H3K27ac+DNase", 18) == "H3K4me3+H3K27ac+\nDNase"
    assert wrap("H3K4me3") == "H3K4me3"
    # A line of just the width is full, and no longer: no blank counts that is not there.
    assert wrap("H3K4me3+H3K27ac+DNase", 16) == "H3K4me3+H3K27ac+\nDNase"
    assert wrap("H3K4me3+H3K27ac", 15) == "H3K4me3+H3K27ac"
    assert wrap("mean of 3 seeds", 9) == "mean of 3\nseeds"
    assert wrap("DNase + H3K27ac") == "DNase + H3K27ac"
    assert wrap("interval: 95 % over genes", 12) == "interval:\n95\N{NO-BREAK SPACE}% over\ngenes"


def test_panels_left_over_are_removed():
    figure, axes = new_figure(2.0)
    assert figure.get_size_inches().tolist() == [9.2, 2]
    axes.remove()
    panels = figure.subplots(2, 2).ravel()
    drop_panels(panels, 3, 2)
    assert figure.axes == panels[:3].tolist()


def test_labels_move_up_until_none_hides_another():
    boxes = [(0, 0, 10), (4, 1, 10), (30, 0, 10), (2, 0.5, 10)]
    assert apart(boxes, 3) == [0, 6, 0, 3]


def test_labels_hide_no_point_and_stay_where_none_is():
    points = [(2, 2, 1), (0, 5, 1), (30, 2, 1)]
    assert apart([(0, 0, 10), (60, 0, 10)], 3, points, 1) == [6, 0]
