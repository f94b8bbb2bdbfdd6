"""What figures tell a reader who points at them."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.figures.hover import add_hints, ends_of, hints_json, score_texts


def axes_of(x, y):
    figure = Figure((4, 2))
    axes = figure.add_axes((0.25, 0.5, 0.5, 0.25))  # from the left, from below
    axes.set_xlim(x)
    axes.set_ylim(y)
    return figure, axes


def test_places_are_parts_of_the_figure_from_its_upper_left_corner():
    figure, axes = axes_of((0, 10), (1, 0))  # y downwards
    add_hints(axes, [0, 5], [0, 1], ["a", "b"])
    add_hints(axes, ([2.5], [7.5]), [0.5], ["wide"])
    assert json.loads(hints_json(figure)) == [
        [250, 250, 250, 250, "a"], [500, 500, 500, 500, "b"], [375, 375, 625, 375, "wide"],
    ]  # fmt: skip


def test_what_is_not_drawn_is_not_told_and_what_reaches_out_is_cut():
    figure, axes = axes_of((0, 10), (0, 1))
    add_hints(axes, ([-5, 20, np.nan], [5, 30, np.nan]), 0, ["cut", "beyond", "nowhere"])
    assert json.loads(hints_json(figure)) == [[250, 500, 500, 500, "cut"]]


def test_a_place_without_its_text_is_an_error():
    _, axes = axes_of((0, 1), (0, 1))
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        add_hints(axes, [0, 1, 2], [0, 1, 2], ["a", "b"])


def test_intervals_are_told_where_there_are_some():
    rows = pd.DataFrame({"r": [0.5, -0.25], "low": [0.4, np.nan], "high": [0.6, np.nan]})
    low, high = ends_of(rows, "r")
    assert (*low, *high) == (0.4, -0.25, 0.6, -0.25)
    assert score_texts(["A", "B"], rows, "r", "r") == ["A: r 0.500 (0.400 to 0.600)", "B: r −0.250"]
