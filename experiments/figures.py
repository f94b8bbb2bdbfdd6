"""The figures of the report, each a function of tables, and how they become part of a page."""

import base64
import io
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from epi2expr_jax import ranking
from epi2expr_jax.runs import LABEL

MANY_POINTS = 2000  # above, points hide each other: hexagons
MANY_NUMBERS = 2000  # above, a heat map goes without numbers in its cells
MOST_CURVES = 24

# Okabe and Ito's colours, told apart by colour-blind readers and on grey paper.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
WIDTH = 9.2  # inches, of the text column
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar in an assay's name is a dollar
    "svg.hashsalt": "epi2expr_jax",  # the same run gives the same page
}


def number(value: float, digits: int = 3) -> str:
    """A number as the page shows it; a dash where there is none."""
    rounded = round(float(value), digits) + 0.0  # no minus before a rounded zero
    return f"{rounded:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def unit_of(target: str) -> str:
    """What is predicted and observed, in the words of an axis."""
    return "expressed (0 or 1)" if target == LABEL else "log2(RPKM + 1)"


def figures_of(
    run_dir: pathlib.Path, runs: pd.DataFrame, ranked: pd.DataFrame, rows: pd.DataFrame, unit: str
) -> dict[str, str]:
    """The four figures by name, each as the address of an image."""
    # All that was asked for: a cell or assay whose runs all failed is a hole, not absent.
    cells = list(dict.fromkeys(runs["cell"]))
    assays = list(dict.fromkeys([*rows["assay"], *ranked["assay"], *runs["assay"]]))
    grid = ranked[ranked["cell"] != ranking.ALL].pivot(
        index="assay", columns="cell", values="pearson"
    )
    history = pd.read_parquet(run_dir / "history.parquet").merge(runs[["run_id", "assay"]])
    half = MOST_CURVES // 2
    few = assays if len(assays) <= MOST_CURVES else [*assays[:half], *assays[-half:]]
    ends = rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})]
    filters: list = [("assays", "in", list(ends["assay"]))]
    if rows["cell"].iloc[0] != ranking.ALL:
        filters.append(("cell", "==", rows["cell"].iloc[0]))
    predictions = pd.read_parquet(
        run_dir / "predictions.parquet",
        columns=["assays", "observed", "predicted"],
        filters=filters,
    )
    return {
        "ranking": data_uri(ranking_figure(rows, unit)),
        "cells": data_uri(heat_map(grid.reindex(index=assays, columns=cells))),
        "curves": data_uri(learning_curves(history, few)),
        "predictions": data_uri(prediction_figure(predictions, ends, unit)),
    }


def wrap(label: str, width: int = 30) -> str:
    """A label on as many lines as it needs, broken after a plus where possible."""
    return textwrap.fill(label.replace("+", "+ "), width).replace("+ ", "+")


def ranking_figure(rows: pd.DataFrame, unit: str) -> Figure:
    """Pearson r of every assay with both its intervals."""
    labels = [wrap(assay) for assay in rows["assay"]]
    lines = max(label.count("\n") for label in labels) + 1
    figure, axes = _figure(len(rows) * (0.11 + 0.15 * lines) + 1.1)
    y = np.arange(len(rows))
    axes.axvline(0, color=GREY, linewidth=0.8)
    joint, alone = "95 % interval, all assays together", "95 % interval, this assay alone"
    joint_bar = axes.hlines(y, rows["simultaneous_low"], rows["simultaneous_high"], GREY, lw=1.4)
    bar = axes.hlines(y, rows["low"], rows["high"], BLUE, lw=4.5, alpha=0.55)
    (dot,) = axes.plot(rows["pearson"], y, "o", color=BLUE, markeredgecolor="white", markersize=7)
    if bool(rows["low"].notna().any()):
        legend = {"loc": "outside upper left", "ncols": 3, "frameon": False}
        figure.legend([dot, bar, joint_bar], ["r", alone, joint], **legend)
    for position, r in zip(y, rows["pearson"], strict=True):
        axes.annotate(number(r), (1.01, position), xycoords=("axes fraction", "data"), va="center")
    bounds = rows[["simultaneous_low", "simultaneous_high", "pearson"]].to_numpy()
    low, high = np.nanmin(bounds, initial=0), np.nanmax(bounds, initial=0)
    axes.set_xlim(max(low - 0.03, -1.03), min(high + 0.03, 1.03))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(y, labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"Pearson r, predicted and observed {unit}, held-out genes")
    return figure


def heat_map(grid: pd.DataFrame) -> Figure:
    """Pearson r, assays in rows and cells in columns; holes hatched, the best of a cell framed."""
    best = grid.eq(grid.max()).to_numpy()
    if grid.shape[1] > max(30, grid.shape[0]):
        grid, best = grid.T, best.T  # pages are tall
    rows, columns = [wrap(name) for name in grid.index], [wrap(name, 20) for name in grid.columns]
    lines = max(name.count("\n") for name in rows) + 1
    margin = 0.3 + 0.08 * max(len(line) for name in rows for line in name.split("\n"))
    cell_width = np.clip((WIDTH - margin) / len(columns), 0.42, 0.8)
    top = 0.3 + 0.075 * max(len(line) for name in columns for line in name.split("\n"))
    height = len(rows) * (0.13 + 0.14 * lines) + top
    figure, axes = _figure(height, margin + cell_width * len(columns))
    values = grid.to_numpy(float)
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=max(high, low + 1e-3), aspect="auto")
    for (row, column), r in np.ndenumerate(values):
        corner = (column - 0.5, row - 0.5)
        if np.isnan(r):
            hole = {"facecolor": "#f3f3f3", "edgecolor": GREY, "hatch": "////", "linewidth": 0}
            axes.add_patch(Rectangle(corner, 1, 1, **hole))
        elif values.size <= MANY_NUMBERS:
            light = np.square(image.cmap(image.norm(r))[:3]) @ (0.2126, 0.7152, 0.0722)
            ink = {"color": "black" if light > 0.2 else "white", "fontsize": 8}
            axes.text(column, row, number(r, 2), ha="center", va="center", **ink)
        if best[row, column]:
            inner = (column - 0.45, row - 0.42)
            axes.add_patch(Rectangle(inner, 0.9, 0.84, fill=False, edgecolor=ORANGE, lw=2))
    axes.set_yticks(range(len(rows)), rows)
    upright = max(map(len, columns)) * len(columns) < 60
    axes.set_xticks(range(len(columns)), columns, rotation=0 if upright else 90)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    if values.size > MANY_NUMBERS:
        figure.colorbar(image, ax=axes, label="Pearson r", fraction=0.05, pad=0.02, aspect=30)
    return figure


def learning_curves(history: pd.DataFrame, assays: Sequence[str]) -> Figure:
    """Loss by epoch, one panel an assay: median over its runs, and their range.

    Args:
        history: columns assay, run_id, epoch, train_loss and validation_loss.
    """
    columns = min(4, len(assays))
    titles = [wrap(assay, 24) for assay in assays]
    lines = max(title.count("\n") for title in titles) + 1
    rows = -(-len(assays) // columns)
    width = max(5.6, min(WIDTH, 1.2 + 2.6 * columns))
    figure = Figure((width, 0.8 + rows * (1.45 + 0.15 * lines)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    drawn = []
    for panel, assay, title in zip(panels, assays, titles, strict=False):
        part = history.loc[history["assay"] == assay, :]
        for column, colour, style in (
            ("train_loss", GREY, "--"),
            ("validation_loss", BLUE, "-"),
        ):
            loss = part[column].where(np.isfinite(part[column]))
            by_epoch = loss.groupby(part["epoch"]).agg(["median", "min", "max", "count"])
            # Later the few runs that still train would stand for all.
            by_epoch = by_epoch[by_epoch["count"] * 2 >= part["run_id"].nunique()]
            epochs, lowest, highest = by_epoch.index, by_epoch["min"], by_epoch["max"]
            panel.fill_between(epochs, lowest, highest, color=colour, alpha=0.22, lw=0)
            panel.plot(epochs, by_epoch["median"], style, color=colour, lw=1.6)
            drawn += [*lowest, *highest]
        panel.axhline(1, color="black", lw=0.7, ls=":")
        panel.set_title(title, fontsize=9)
    for panel in panels[len(assays) :]:
        panel.remove()
    _scale_losses(panels[0], np.array(drawn))
    panels[0].xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True, min_n_ticks=1))
    lines = panels[0].lines
    figure.legend(
        [lines[1], lines[0], lines[2]],
        ["validation", "training", "no better than the mean of all genes"],
        loc="outside upper left", ncols=3, frameon=False,
    )  # fmt: skip
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("loss (MSE, in SD²)", fontsize=9)
    return figure


def _scale_losses(axes: Axes, losses: np.ndarray) -> None:
    losses = losses[losses > 0]
    if len(losses) and losses.max() > 5 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def prediction_figure(predictions: pd.DataFrame, rows: pd.DataFrame, unit: str) -> Figure:
    """Predicted against observed expression, one panel for each of the given rows of a ranking."""
    width = min(WIDTH, 1.0 + 3 * len(rows))
    figure = Figure((width, width / len(rows) + 0.2), layout="compressed")
    panels = figure.subplots(1, len(rows), squeeze=False, sharex=True, sharey=True)[0]
    values = predictions[["observed", "predicted"]].to_numpy()
    low, high = min(0.0, values.min()), values.max()
    hexagons = []
    for panel, assay, r in zip(panels, rows["assay"], rows["pearson"], strict=True):
        part = predictions.loc[predictions["assays"] == assay, :]
        x, y = part["observed"], part["predicted"]
        if len(predictions) > MANY_POINTS * len(rows):
            grid = {"gridsize": 36, "extent": (low, high, low, high), "mincnt": 1}
            hexagons.append(panel.hexbin(x, y, cmap="cividis_r", linewidths=0.1, **grid))
        else:
            panel.plot(x, y, "o", color=BLUE, markersize=3.5, alpha=0.45, markeredgewidth=0)
        panel.plot([low, high], [low, high], ":", color="black", lw=1)
        panel.set_title(f"{wrap(assay, 26)}\nr = {number(r)}", fontsize=9)
        panel.set_xlabel(f"observed, {unit}")
        panel.set_aspect("equal")
    if hexagons:
        norm = LogNorm(1, max(2, *(part.get_array().max() for part in hexagons)))
        for part in hexagons:
            part.set_norm(norm)
        bar = figure.colorbar(hexagons[0], ax=panels, label="predictions a hexagon", shrink=0.8)
        bar.ax.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel(f"predicted, {unit}")
    return figure


def sweep_figure(table: pd.DataFrame) -> Figure:
    """Pearson r against the width of the window, a panel an assay, with 95 % intervals.

    Args:
        table: columns assay, window_bp, pearson, low and high.
    """
    order = table.groupby("assay")["pearson"].max().sort_values(ascending=False)
    assays = sorted(order.index, key=lambda assay: (assay != ranking.ALL, -order[assay]))
    columns = min(4, len(assays))
    rows = -(-len(assays) // columns)
    width = max(4.2, min(WIDTH, 1.0 + 2.2 * columns))
    figure = Figure((width, 0.7 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, assay in zip(panels, assays, strict=False):
        part = table.loc[table["assay"] == assay, :].sort_values("window_bp")
        x = part["window_bp"] / 1000
        panel.fill_between(x, part["low"], part["high"], color=BLUE, alpha=0.22, lw=0)
        panel.plot(x, part["pearson"], "o-", color=BLUE, lw=1.6, markersize=4)
        panel.set_title("all assays" if assay == ranking.ALL else wrap(assay, 24), fontsize=9)
    for panel in panels[len(assays) :]:
        panel.remove()
    widths = sorted(set(table["window_bp"] / 1000))
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_locator(ticker.FixedLocator(widths))
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].xaxis.set_minor_locator(ticker.NullLocator())
    figure.supxlabel("window around the TSS, kb", fontsize=9)
    figure.supylabel("Pearson r, held-out genes", fontsize=9)
    return figure


def _figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def data_uri(figure: Figure) -> str:
    """A figure as an address that needs no file and no network."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
