"""Curves of training, and predictions with what was observed."""

import contextlib

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.units import PROBABILITY
from experiments.figures.hover import hints_json
from experiments.figures.layout import narrow
from experiments.figures.training import MANY_POINTS, learning_curves, prediction_figure


def history(scale=1.0):
    """Three runs of two epochs, of which one goes on for a third; one loss is not finite."""
    rows = [
        ("DNase", "a", 1, 0.9, 1.2), ("DNase", "a", 2, 0.5, 0.8), ("DNase", "a", 3, 0.1, 0.2),
        ("DNase", "b", 1, 0.7, 1.0), ("DNase", "b", 2, 0.4, 0.6),
        ("DNase", "c", 1, 0.8, 1.1), ("DNase", "c", 2, np.nan, np.inf),
    ]  # fmt: skip
    columns = ["assay", "run_id", "epoch", "train_loss", "validation_loss"]
    table = pd.DataFrame(rows, columns=columns)
    table[columns[3:]] *= scale
    return table


def test_curves_are_medians_over_the_runs_that_still_train():
    (panel,) = learning_curves(history(), ["DNase"]).axes
    training, validation, mean = panel.lines
    assert training.get_xdata().tolist() == validation.get_xdata().tolist() == [1, 2]
    np.testing.assert_allclose(training.get_ydata(), [0.8, 0.45])
    np.testing.assert_allclose(validation.get_ydata(), [1.1, 0.7])
    assert set(mean.get_ydata()) == {1}
    bottoms = [band.get_datalim(panel.transData).y0 for band in panel.collections]
    np.testing.assert_allclose(bottoms, [0.4, 0.6])
    assert panel.get_yscale() == "linear"


def test_losses_far_apart_are_shown_on_a_log_scale():
    table = pd.concat([history(), history(0.01).assign(assay="H3K4me3")])
    figure = learning_curves(table, ["DNase", "H3K4me3"])
    assert [panel.get_title() for panel in figure.axes] == ["DNase", "H3K4me3"]
    assert figure.axes[0].get_yscale() == "log"


def test_every_prediction_is_a_point_of_its_assay():
    predictions = pd.DataFrame(
        {
            "assays": ["DNase", "DNase", "H3K4me3"],
            "observed": [0.0, 4.0, 1.0],
            "predicted": [0.5, 3.0, -1.0],
        }
    )
    rows = pd.DataFrame({"assay": ["H3K4me3", "DNase"], "pearson": [0.5, 0.75]})
    first, second = prediction_figure(predictions, rows, "log2(RPKM + 1)").axes
    assert first.get_title() == "H3K4me3\nr = 0.500"
    points, diagonal = second.lines
    assert points.get_xydata().tolist() == [[0.0, 0.5], [4.0, 3.0]]
    assert diagonal.get_xydata().tolist() == [[-1, -1], [4, 4]]
    assert second.get_xlabel() == "observed, log2(RPKM + 1)"
    assert first.get_ylabel() == "predicted, log2(RPKM + 1)"


def test_many_points_are_counted_in_hexagons():
    values = np.linspace(0, 10, MANY_POINTS + 1)
    predictions = pd.DataFrame({"assays": "DNase", "observed": values, "predicted": values})
    rows = pd.DataFrame({"assay": ["DNase"], "pearson": [1.0]})
    panel, bar = prediction_figure(predictions, rows, "").axes
    (hexagons,) = panel.collections
    assert hexagons.get_array().sum() == MANY_POINTS + 1
    assert bar.get_ylabel() == "predictions per hexagon"


def test_the_loss_of_labels_is_cross_entropy():
    figure = learning_curves(history(0.7), ["DNase"], labels=True)
    (panel,) = figure.axes
    assert panel.lines[-1].get_ydata() == [np.log(2)] * 2
    assert panel.lines[-1].get_label() == "no better than 0.5 for all genes"
    assert "cross-entropy" in figure.get_supylabel()
    other = learning_curves(history(), ["DNase"])
    assert other.get_supylabel() == "loss (MSE, in SD²)"


@pytest.mark.parametrize("width", [contextlib.nullcontext, narrow])
def test_a_line_that_is_called_dotted_has_dots_apart(width):
    """As wide as they are drawn, and not cut off by the axes."""
    with width():
        figure = learning_curves(history(0.2), ["DNase"])
    figure.draw_without_rendering()
    for panel in figure.axes:
        line = panel.lines[-1]
        assert line.get_linestyle() == "--"  # so matplotlib calls a pattern of its own
        _, (dot, gap) = line._dash_pattern
        assert gap > 1.5 * dot > 0.5
        low, high = panel.get_ylim()
        assert low < 1 < high


def test_predictions_of_labels_are_spread_by_label():
    predictions = pd.DataFrame(
        {"assays": "DNase", "observed": [0.0, 0.0, 1.0, 1.0], "predicted": [0.1, 0.3, 0.31, 1.0]}
    )
    wide = predictions.assign(assays="H3K9me3", predicted=[0.1, 0.2, 0.31, 0.45])
    rows = pd.DataFrame({"assay": ["H3K9me3", "DNase"], "pearson": [0.5, 0.9]})
    predictions = pd.concat([predictions.assign(predicted=[0.1, 0.1, 0.31, 1.0]), wide])
    figure = prediction_figure(predictions, rows, PROBABILITY)
    panel = figure.axes[1]
    assert panel.get_ylim()[1] >= 1, "both genes that are not expressed are in one bin"
    lines = {patch.get_label(): patch for patch in panel.patches if not patch.get_fill()}
    assert list(lines) == ["expressed", "not expressed"]
    for name, bins in (("expressed", [6, 19]), ("not expressed", [2])):
        assert np.flatnonzero(lines[name].get_data().values).tolist() == bins
        assert lines[name].get_data().values.sum() == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)
    assert panel.get_ylim()[0] == 0
    assert figure.get_supxlabel() == "predicted probability of being expressed"
    assert "DNase, expressed: 50 % of genes at 0.95 to 1.00" in hints_json(figure)
