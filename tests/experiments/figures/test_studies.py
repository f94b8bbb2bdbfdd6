"""Figures of further studies hold the numbers of their tables."""

import contextlib

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.interpret.enrichment import EFFECT
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.intervals import ONE_VALUE
from experiments.figures.hover import hints_json
from experiments.figures.layout import narrow
from experiments.figures.studies import (
    MOST_MODELS,
    MOST_PANELS,
    across_figure,
    enrichment_figure,
    gain_figure,
    models_figure,
    pairs_figure,
    quality_figure,
    shapley_figure,
    sweep_figure,
)
from experiments.figures.style import BLUE
from tests.experiments.pages import overlaps


def labels(ticks):
    return [label.get_text() for label in ticks]


def segments(lines):
    """Where horizontal lines begin and end."""
    return np.array([line[:, 0] for line in lines.get_segments()])


def test_a_sweep_is_a_curve_an_assay_all_of_them_first():
    rows = [
        ("DNase", 6000, 0.5), ("DNase", 40_000, 0.7),
        ("H3K4me3", 6000, 0.8), ("H3K4me3", 40_000, 0.6),
        (scoring.ALL, 6000, 0.65), (scoring.ALL, 40_000, 0.66),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["assay", "window_bp", "pearson"])
    table = table.assign(low=table["pearson"] - 0.1, high=table["pearson"] + 0.1)
    panels = sweep_figure(table).axes
    assert [panel.get_title() for panel in panels] == ["mean over assays", "H3K4me3", "DNase"]
    assert panels[2].lines[0].get_xydata().tolist() == [[6, 0.5], [40, 0.7]]
    assert panels[0].xaxis.get_majorticklocs().tolist() == [6, 40]


def test_pairs_are_a_symmetric_table_with_single_assays_on_its_diagonal():
    pairs = pd.DataFrame(
        {
            "assay": ["DNase", "H3K4me3", "H3K4me3+DNase", "DNase+H3K4me3+H3K9me3"],
            "pearson": [0.5, 0.75, 0.25, 0.9],
        }
    )
    axes = pairs_figure(pairs).axes[0]
    assert labels(axes.get_yticklabels()) == labels(axes.get_xticklabels()) == ["H3K4me3", "DNase"]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.75, 0.25], [0.25, 0.5]]
    assert pairs_figure(pairs[:2]) is None


def test_shapley_values_are_bars_the_largest_first():
    table = pd.DataFrame({"assay": ["H3K4me3", "DNase"], "value": [0.1, 0.3]})
    for name, by in {"low": -1, "high": 1, "simultaneous_low": -2, "simultaneous_high": 2}.items():
        table[name] = table["value"] + by / 100
    (axes,) = shapley_figure(table).axes
    assert labels(axes.get_yticklabels()) == ["DNase", "H3K4me3"]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.1]
    joint, alone = axes.collections
    np.testing.assert_allclose(segments(joint), [[0.28, 0.32], [0.08, 0.12]])
    np.testing.assert_allclose(segments(alone), [[0.29, 0.31], [0.09, 0.11]])
    assert [text.get_text() for text in axes.texts] == ["0.300", "0.100"]


def across(assays):
    rows = [
        (assay, trained, cell, 0.1 * (i + 1) - 0.05 * j)
        for assay in assays
        for i, trained in enumerate(("E003", "E116", "E003+E116"))
        for j, cell in enumerate(("E003", "E116"))
    ]
    return pd.DataFrame(rows, columns=["assays", "trained_on", "cell", "pearson"])


def test_cells_trained_on_are_rows_and_pools_come_last():
    figure = across_figure(across(["DNase"]), ["DNase"])
    panel = figure.axes[0]
    assert labels(panel.get_yticklabels()) == ["E003", "E116", "E003+E116"]
    assert labels(panel.get_xticklabels()) == ["E003", "E116"]
    found = np.asarray(panel.images[0].get_array())
    np.testing.assert_allclose(found, [[0.1, 0.05], [0.2, 0.15], [0.3, 0.25]])
    assert panel.texts[0].get_text() == "0.10"


def test_of_many_assays_the_first_are_shown():
    names = [f"mark{i}" for i in range(MOST_PANELS + 1)]
    figure = across_figure(across(names), names)
    assert [panel.get_title() for panel in figure.axes[:-1]] == names[:MOST_PANELS]


def test_models_stand_beside_each_other_by_assay():
    rows = [("DNase", "cnn", 0.7), ("DNase", "ridge", 0.6), ("H3K4me3", "cnn", 0.5)]
    table = pd.DataFrame(rows, columns=["assay", "model", "pearson"])
    table = table.assign(low=table["pearson"] - 0.1, high=table["pearson"] + 0.1)
    (axes,) = models_figure(table).axes
    cnn, ridge, _ = axes.lines
    assert (cnn.get_label(), ridge.get_label()) == ("cnn", "ridge")
    np.testing.assert_allclose(cnn.get_xydata(), [[0.7, -0.2], [0.5, 0.8]])
    np.testing.assert_allclose(ridge.get_xydata(), [[0.6, 0.2], [np.nan, 1.2]])
    np.testing.assert_allclose(segments(axes.collections[0]), [[0.6, 0.8], [0.4, 0.6]])
    assert labels(axes.get_yticklabels()) == ["DNase", "H3K4me3"]


def test_tracks_without_a_measure_are_not_drawn_against_it():
    table = pd.DataFrame(
        {
            "cell": ["E003", "E116", "E003"],
            "assay": ["DNase", "DNase", "H3K4me3"],
            "pearson": [0.7, 0.5, 0.6],
            "depth": [1.0, 3.0, 2.0],
            "signal_to_noise": [4.0, np.inf, np.nan],
        }
    )
    depth, noise = quality_figure(table).axes
    assert depth.lines[0].get_xydata().tolist() == [[1, 0.7], [3, 0.5], [2, 0.6]]
    assert noise.lines[0].get_xydata().tolist() == [[4, 0.7]]
    centres = {text.get_text(): text.xy for text in depth.texts}
    assert centres == {"DNase": (2.0, pytest.approx(0.6)), "H3K4me3": (2.0, 0.6)}


def test_enrichment_is_shown_unmatched_and_matched():
    rows = [
        ("E003 DNase", EFFECT, "no", 3.0), ("E003 DNase", "signal", "no", 2.0),
        ("E003 DNase", EFFECT, "closely", 1.5), ("E003 DNase", "signal", "closely", 0.75),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["of", "predictor", "matched", "enrichment"])
    table = table.assign(low=table["enrichment"] / 2, high=table["enrichment"] * 2)
    figure = enrichment_figure(table)
    assert labels(figure.axes[0].get_yticklabels()) == [
        f"E003 DNase\n{EFFECT}",
        "E003 DNase\nsignal",
    ]
    for panel, values in zip(figure.axes[::2], ([3, 2], [1.5, 0.75]), strict=True):
        bars, dots = panel.collections
        assert dots.get_offsets().tolist() == [[value, y] for y, value in enumerate(values)]
        assert segments(bars).tolist() == [[value / 2, value * 2] for value in values]
    assert figure.axes[2].get_title() == "matched: closely"
    first = figure.axes[0].collections[1].get_facecolors()[0]
    assert first[:3].tolist() == pytest.approx([int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_gains_are_dots_with_intervals_in_the_order_of_the_first_kind():
    kinds = ["all genes"] * 2 + ["on or off"] * 2
    gains = pd.DataFrame(
        {
            "genes": kinds,
            "score": ["pearson"] * 2 + ["auc"] * 2,
            "assay": ["H3K4me3", "DNase", "DNase", "H3K4me3"],
            "gain": [0.2, 0.1, 0.4, 0.3],
        }
    )
    gains = gains.assign(low=gains["gain"] - 0.1, high=gains["gain"] + 0.1)
    panels = gain_figure(gains, ["H3K27ac"]).axes
    titles = [panel.get_title() for panel in panels]
    assert titles == ["all genes (pearson)", "on or off (auc)"]
    assert labels(panels[0].get_yticklabels()) == ["H3K4me3", "DNase"]
    for panel, values in zip(panels, ([0.2, 0.1], [0.3, 0.4]), strict=True):
        assert panel.lines[1].get_xdata().tolist() == values
        expected = np.add.outer(values, [-0.1, 0.1])
        np.testing.assert_allclose(segments(panel.collections[0]), expected)


def test_intervals_are_named_where_there_are_any():
    rows = [("DNase", "cnn", 0.7), ("DNase", "ridge", 0.6)]
    table = pd.DataFrame(rows, columns=["assay", "model", "pearson"])
    for low, label in ((0.5, "Pearson r, held-out genes, with 95 % intervals"),
                       (np.nan, "Pearson r, held-out genes")):  # fmt: skip
        (axes,) = models_figure(table.assign(low=low, high=low + 0.3)).axes
        assert axes.get_xlabel() == label


@pytest.mark.parametrize("models", [2, MOST_MODELS + 1])
def test_one_predicted_value_is_drawn_as_no_score(models):
    rows = [("DNase", f"m{i}", 0.1 * i, "") for i in range(models)]
    table = pd.DataFrame(rows, columns=["assay", "model", "pearson", "note"])
    table.loc[1, ["pearson", "note"]] = [0.0, ONE_VALUE]
    figure = models_figure(table.assign(low=np.nan, high=np.nan))
    said = hints_json(figure)
    assert "DNase, m1: r" not in said
    assert "m1, DNase: r" not in said
    assert (f"m1, DNase: no score: {ONE_VALUE}" in said) == (models > MOST_MODELS)


def test_numbers_of_cells_trained_and_tested_never_touch():
    cells = [f"E{i:03d}" for i in range(6)]
    rows = [(assay, one, other, -0.05) for assay in ("A", "B", "C") for one in cells
            for other in cells]  # fmt: skip
    table = pd.DataFrame(rows, columns=["assays", "trained_on", "cell", "pearson"])
    for width in (contextlib.nullcontext(), narrow()):
        with width:
            figure = across_figure(table, ["A", "B", "C"])
        for panel in figure.axes[:3]:
            assert not overlaps(figure, panel.texts)
    named = [f"cell {i:03d}" for i in range(42)]
    rows = [("A", cell, cell, 0.5) for cell in named]
    many = pd.DataFrame(rows, columns=table.columns)
    panel = across_figure(many, ["A"]).axes[0]
    for ticks in (panel.get_xticklabels(), panel.get_yticklabels()):
        assert 10 < len(ticks) <= 42
        assert not overlaps(panel.figure, ticks)
    few = table[table["cell"].isin(cells[:2]) & table["trained_on"].isin(cells[:2])]
    assert len(across_figure(few, ["A"]).axes[0].texts) == 4


def test_more_models_than_colours_are_a_heat_map():
    models = ["cnn", *(f"simple {i}" for i in range(MOST_MODELS))]
    rows = [(assay, model, 0.1 * i, np.nan, np.nan)
            for assay in (scoring.ALL, "DNase") for i, model in enumerate(models)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["assay", "model", "pearson", "low", "high"])
    figure = models_figure(table)
    assert labels(figure.axes[0].get_xticklabels()) == ["mean over assays", "DNase"]
    assert labels(figure.axes[0].get_yticklabels()) == models
    assert "cnn, DNase: r 0.000" in hints_json(figure)
    fewer = models_figure(table[table["model"] != "simple 5"])
    assert "DNase, simple 4: r 0.500" in hints_json(fewer)
    assert len(fewer.legends[0].get_texts()) == MOST_MODELS
