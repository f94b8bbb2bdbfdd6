"""Figures of how models were trained and what they predict."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from experiments.figures.hover import add_hints
from experiments.figures.layout import (
    columns_of,
    drop_panels,
    fitted,
    legend_above,
    page_width,
)
from experiments.figures.style import BLUE, GREY, number

# Both ends show on a light ground and on a dark one.
_DENSE = LinearSegmentedColormap.from_list("dense", ["#9ecae1", "#d55e00"])
MANY_POINTS = 2000  # above, points hide each other: hexagons
MOST_CURVES = 24


def learning_curves(history: pd.DataFrame, assays: Sequence[str]) -> Figure:
    """Loss by epoch, one panel an assay: median over its runs, and their range.

    Args:
        history: columns assay, run_id, epoch, train_loss and validation_loss.
    """
    columns = columns_of(len(assays), 4)
    rows = -(-len(assays) // columns)
    width = min(page_width(), max(5.6, 1.2 + 2.6 * columns))
    figure = Figure((width, 0.8 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    drawn = []
    for panel, assay in zip(panels, assays, strict=False):
        drawn += draw_losses(history.loc[history["assay"] == assay, :], panel)
        panel.set_title(assay, fontsize=9)
    drop_panels(panels, len(assays), columns)
    _scale_losses(panels[0], np.array(drawn))
    panels[0].xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True, min_n_ticks=1))
    legend_above(figure, panels[0].lines)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("loss (MSE, in SD²)", fontsize=9)
    return fitted(figure)


def draw_losses(history: pd.DataFrame, axes: Axes) -> list[float]:
    """One panel of `learning_curves`, of the runs of one assay, into axes of yours.

    Returns:
        The losses drawn, lowest and highest.
    """
    drawn = []
    for column, label, colour, style in (
        ("train_loss", "training", GREY, "--"),
        ("validation_loss", "validation", BLUE, "-"),
    ):
        loss = history[column].where(np.isfinite(history[column]))
        by_epoch = loss.groupby(history["epoch"]).agg(["median", "min", "max", "count"])
        # Later the few runs that still train would stand for all.
        by_epoch = by_epoch[by_epoch["count"] * 2 >= history["run_id"].nunique()]
        epochs, lowest, highest = by_epoch.index, by_epoch["min"], by_epoch["max"]
        axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.22, lw=0)
        axes.plot(epochs, by_epoch["median"], style, color=colour, lw=1.6, label=label)
        drawn += [*lowest, *highest]
        rows = zip(epochs, by_epoch["median"], lowest, highest, strict=True)
        texts = [f"epoch {e}, {label} loss: {m:.3g} ({a:.3g} to {b:.3g})" for e, m, a, b in rows]
        add_hints(axes, epochs, by_epoch["median"], texts)
    mean = "no better than the mean of all genes"
    axes.axhline(1, color="black", lw=0.7, ls=":", label=mean)
    return drawn


def _scale_losses(axes: Axes, losses: np.ndarray) -> None:
    losses = losses[losses > 0]
    if len(losses) and losses.max() > 5 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def prediction_figure(predictions: pd.DataFrame, rows: pd.DataFrame, unit: str) -> Figure:
    """Predicted against observed expression, one panel for each of the given rows of a ranking."""
    columns = len(rows) if page_width() > 3 * len(rows) else 1
    lines, width = -(-len(rows) // columns), min(page_width(), 1.0 + 3 * columns)
    side = width / columns if lines == 1 else 2.4
    figure = Figure((width, lines * (side + 0.2)), layout="compressed")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    values = predictions[["observed", "predicted"]].to_numpy()
    low, high = min(0.0, values.min()), values.max()
    hexagons = []
    for panel, assay, r in zip(panels, rows["assay"], rows["pearson"], strict=True):
        part = predictions.loc[predictions["assays"] == assay, :]
        x, y = part["observed"], part["predicted"]
        if len(predictions) > MANY_POINTS * len(rows):
            grid = {"gridsize": 36, "extent": (low, high, low, high), "mincnt": 1}
            hexagons.append(panel.hexbin(x, y, cmap=_DENSE, linewidths=0.1, **grid))
            x, y = np.asarray(hexagons[-1].get_offsets()).T
            counts = hexagons[-1].get_array()
        else:
            panel.plot(x, y, "o", color=BLUE, markersize=3.5, alpha=0.45, markeredgewidth=0)
            counts = np.ones(len(x))
        many = [f": {n:.0f} predictions" if n > 1 else "" for n in counts]
        places = zip(x, y, many, strict=True)
        texts = [f"observed {a:.2f}, predicted {b:.2f}{n}" for a, b, n in places]
        add_hints(panel, x, y, texts)
        panel.plot([low, high], [low, high], ":", color="black", lw=1)
        panel.set_title(f"{assay}\nr = {number(r)}", fontsize=9)
        panel.set_xlabel(f"observed, {unit}")
        panel.set_aspect("equal")
    if hexagons:
        norm = LogNorm(1, max(2, *(part.get_array().max() for part in hexagons)))
        for part in hexagons:
            part.set_norm(norm)
        bar = figure.colorbar(hexagons[0], ax=panels, label="predictions per hexagon", shrink=0.8)
        bar.ax.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel(f"predicted, {unit}")
    return fitted(figure)
