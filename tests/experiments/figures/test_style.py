"""What every figure is made of, and the two main ones: the ranking and the heat map."""

import base64
import contextlib
import pathlib

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import FontEntry, FontManager, FontProperties
from matplotlib.patches import Rectangle

from epi2expr_jax.training.targets import LABEL
from experiments.figures.layout import narrow, new_figure
from experiments.figures.style import (
    LEAST_SIZE,
    MANY_NUMBERS,
    data_uri,
    heat_map,
    number,
    own_fonts_first,
    ranking_figure,
    unit_of,
    unit_of_shares,
)
from tests.experiments.pages import overlaps


def test_a_font_of_the_machine_changes_no_figure(tmp_path):
    """Neither one that was found first, nor a list of fonts that lacks matplotlib's own."""
    manager = FontManager()
    own = manager.findfont("DejaVu Sans")
    theirs = tmp_path / "DejaVuSans.ttf"
    theirs.write_bytes(pathlib.Path(own).read_bytes())
    entry = FontEntry(
        str(theirs), name="DejaVu Sans", weight=400, stretch="normal", size="scalable"
    )
    for others in (manager.ttflist, []):
        manager.ttflist = [entry, *others]
        own_fonts_first(manager)
        for bold in ("normal", "bold"):
            found = manager.findfont(FontProperties(family="DejaVu Sans", weight=bold))
            assert str(pathlib.Path(matplotlib.get_data_path()).resolve()) in found


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.12345, 3, "0.123"),
        (-0.5, 2, "−0.50"),
        (-0.0001, 3, "0.000"),
        (7, 0, "7"),
        (np.nan, 3, "–"),
        (np.inf, 3, "–"),
    ],
)
def test_numbers_are_rounded_and_have_a_true_minus(value, digits, shown):
    assert number(value, digits) == shown


def test_units_are_those_of_the_target():
    assert unit_of(LABEL) == "probability of being expressed"
    assert unit_of("minmax") == unit_of("log2") == "log2(RPKM + 1)"
    assert (unit_of("log2", "TPM"), unit_of(LABEL, "TPM")) == ("log2(TPM + 1)", unit_of(LABEL))


@pytest.mark.parametrize(
    ("target", "method", "unit"),
    [
        (LABEL, "gradients", "log odds of being expressed"),
        (LABEL, "occlusion", "probability of being expressed"),
        ("minmax", "gradients", "TPM scaled to 0–1"),
        ("minmax", "occlusion", "log2(TPM + 1)"),
        ("log2", "gradients", "log2(TPM + 1)"),
    ],
)
def test_shares_of_gradients_are_in_the_unit_of_the_target(target, method, unit):
    assert unit_of_shares(target, "TPM", method) == unit


def ranking(**changes):
    table = pd.DataFrame({"assay": ["DNase", "H3K9me3"], "pearson": [0.7, -0.1]})
    bounds = {"low": 0.1, "high": 0.05, "simultaneous_low": 0.2, "simultaneous_high": 0.25}
    for name, by in bounds.items():
        table[name] = table["pearson"] + (by if name.endswith("high") else -by)
    return table.assign(**changes)


def test_the_ranking_has_a_dot_and_two_bars_an_assay():
    figure = ranking_figure(ranking(), "log2(RPKM + 1)")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["DNase", "H3K9me3"]
    joint, alone = (
        np.array([line[:, 0] for line in bars.get_segments()]) for bars in axes.collections
    )
    np.testing.assert_allclose(joint, [[0.5, 0.95], [-0.3, 0.15]])
    np.testing.assert_allclose(alone, [[0.6, 0.75], [-0.2, -0.05]])
    np.testing.assert_allclose(axes.lines[-1].get_xdata(), [0.7, -0.1])
    assert [text.get_text() for text in axes.texts] == ["0.700", "−0.100"]
    assert len(figure.legends) == 1
    low, high = axes.get_xlim()
    assert low < -0.3
    assert high > 0.95


def test_a_ranking_without_intervals_has_no_legend_of_them():
    gone = dict.fromkeys(("low", "high", "simultaneous_low", "simultaneous_high"), np.nan)
    figure = ranking_figure(ranking(**gone), "log2(RPKM + 1)")
    assert figure.legends == []
    assert np.isfinite(figure.axes[0].get_xlim()).all()


GRID = pd.DataFrame(
    {"E003": [0.1, 0.82, 0.15], "E116": [0.2, 0.9, np.nan], "E123": [0.7, 0.3, 0.65]},
    index=["H3K9me3", "DNase", "H3K27me3"],
)


def shown(axes):
    """The numbers in the cells of a heat map, by row and column."""
    rows, columns = (
        [label.get_text() for label in labels]
        for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    place = {text.get_position(): text.get_text() for text in axes.texts}
    return pd.DataFrame(
        [[place.get((j, i)) for j in range(len(columns))] for i in range(len(rows))],
        rows,
        columns,
    )


def test_a_heat_map_shows_every_number_and_frames_the_best_of_a_column():
    figure = heat_map(GRID, trees=False)
    axes = figure.axes[0]
    found = shown(axes)
    assert found.index.tolist() == GRID.index.tolist()
    assert found.loc["DNase"].tolist() == ["0.82", "0.90", "0.30"]
    framed = [
        patch.get_center().round().astype(int).tolist()
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_width() == 0.9
    ]
    assert framed == [[2, 0], [0, 1], [1, 1]]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), GRID)


def test_trees_put_alike_rows_side_by_side_the_highest_first():
    values = pd.DataFrame(
        [[0.1, 0.2, 0.12], [0.9, 0.8, 0.85], [0.15, 0.2, 0.1], [0.85, 0.8, 0.9]],
        index=["low", "high", "low too", "high too"],
        columns=["E003", "E116", "E123"],
    )
    figure = heat_map(values, framed=False)
    axes, right, below = figure.axes
    found = shown(axes)
    order = found.index.tolist()
    assert {*order[:2]} == {"high", "high too"}
    expected = values.loc[order, found.columns].map(lambda value: f"{value:.2f}")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert (len(right.lines), len(below.lines)) == (3, 2)  # joins of four rows, three columns


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("columns", [8, 40])
def test_numbers_of_a_heat_map_never_touch(columns, width):
    """What is too narrow for a number that can be read has a colour bar instead."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.uniform(-1, 1, (14, columns)))
    with narrow() if width == "phone" else contextlib.nullcontext():
        figure = heat_map(table.rename("a{}".format, axis=0).rename("cell {}".format, axis=1))
    axes = figure.axes[0]
    assert (len(axes.texts) == table.size) != (figure.axes[-1].get_ylabel() == "Pearson r")
    assert {text.get_fontsize() >= LEAST_SIZE for text in axes.texts} <= {True}
    assert bool(axes.texts) == (columns == 8 or width == "wide")  # 40 columns are laid in rows
    assert not overlaps(figure, axes.texts)
    assert not overlaps(figure, axes.get_xticklabels())


def test_a_large_heat_map_has_a_colour_bar_in_place_of_numbers():
    large = pd.DataFrame(np.linspace(0, 1, MANY_NUMBERS + 10).reshape(-1, 10))
    figure = heat_map(large.rename(index=str, columns=str), trees=False)
    assert list(figure.axes[0].texts) == []
    assert figure.axes[-1].get_ylabel() == "Pearson r"


def test_a_figure_becomes_an_address_and_is_the_same_each_time():
    def made():
        figure, axes = new_figure(1.0)
        axes.set_title("one title")
        return data_uri(figure)

    kind, _, content = made().partition(",")
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(content).decode()
    assert "<svg" in svg
    assert "one title" in svg
    assert "<dc:date>" not in svg


def test_a_figure_in_a_page_is_light_or_dark_as_the_page_is():
    figure = ranking_figure(ranking(), "log2(RPKM + 1)")
    svg = base64.b64decode(data_uri(figure).split(",")[1]).decode()
    assert "prefers-color-scheme:dark" in svg
    assert "stroke: currentColor" in svg
    assert "#0072b2;" not in svg.split("</style>", 1)[1]
    assert "fill: #ffffff" not in svg.split("defs>")[0]  # no ground of its own


def test_a_narrow_figure_fits_a_phone_and_others_do_not_change():
    wide, one = ranking_figure(ranking(), "x"), heat_map(pd.DataFrame({"E003": [0.1]}, ["a"]))
    with narrow():
        small = ranking_figure(ranking(), "x")
    assert wide.get_figwidth() > 9
    assert small.get_figwidth() < 4
    assert ranking_figure(ranking(), "x").get_figwidth() == wide.get_figwidth()
    assert one.get_figwidth() < 4
