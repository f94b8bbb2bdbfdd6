"""Figures of how models were trained and what they predict."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from epi2expr_jax.units import PROBABILITY
from experiments.figures.hover import add_hints
from experiments.figures.layout import (
    columns_of,
    drop_panels,
    fitted,
    legend_above,
    page_width,
)
from experiments.figures.style import BLUE, GREY, ORANGE, number

# Both ends show on a light ground and on a dark one.
_DENSE = LinearSegmentedColormap.from_list("dense", ["#9ecae1", "#d55e00"])
MANY_POINTS = 2000  # above, points hide each other: hexagons
MOST_CURVES = 24
BINS = 20  # of a probability
DOTTED = (0, (1, 2))  # so far apart that dots are seen on a phone, too


def learning_curves(history: pd.DataFrame, assays: Sequence[str], labels: bool = False) -> Figure:
    """Loss by epoch, one panel an assay: median over its runs, and their range.

    Args:
        history: columns assay, run_id, epoch, train_loss and validation_loss.
        labels: whether the loss is cross-entropy.
    """
    columns = columns_of(len(assays), 4)
    rows = -(-len(assays) // columns)
    width = min(page_width(), max(5.6, 1.2 + 2.6 * columns))
    figure = Figure((width, 0.8 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    drawn = []
    for panel, assay in zip(panels, assays, strict=False):
        drawn += draw_losses(history.loc[history["assay"] == assay, :], panel, labels)
        panel.set_title(assay, fontsize=9)
    drop_panels(panels, len(assays), columns)
    _scale_losses(panels[0], np.array(drawn))
    panels[0].xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True, min_n_ticks=1))
    legend_above(figure, panels[0].lines)
    figure.supxlabel("epoch", fontsize=9)
    what = "cross-entropy" if labels else "MSE, in SD²"
    figure.supylabel(f"loss ({what})", fontsize=9)
    return fitted(figure)


def draw_losses(history: pd.DataFrame, axes: Axes, labels: bool = False) -> list[float]:
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
    chance = (
        "no better than 0.5 for all genes" if labels else "no better than the mean of all genes"
    )
    axes.axhline(np.log(2) if labels else 1, color="black", lw=1.2, ls=DOTTED, label=chance)
    return drawn


def _scale_losses(axes: Axes, losses: np.ndarray) -> None:
    losses = losses[losses > 0]
    if len(losses) and losses.max() > 5 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def prediction_figure(predictions: pd.DataFrame, rows: pd.DataFrame, unit: str) -> Figure:
    """Predicted against observed expression, one panel for each of the given rows of a ranking; of
    labels what is predicted for genes of each."""
    if unit == PROBABILITY:
        return _by_label(predictions, rows)
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
        panel.plot([low, high], [low, high], ls=DOTTED, color="black", lw=1.2)
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


def _by_label(predictions: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """How the predicted probabilities of expressed genes and of the others are spread."""
    columns = len(rows) if page_width() > 3 * len(rows) else 1
    lines = -(-len(rows) // columns)
    figure = Figure((page_width(), 0.8 + 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    edges = np.linspace(0, 1, BINS + 1)
    for panel, assay, r in zip(panels, rows["assay"], rows["pearson"], strict=True):
        part = predictions.loc[predictions["assays"] == assay, :]
        for label, name, colour in ((1, "expressed", BLUE), (0, "not expressed", ORANGE)):
            own = part.loc[part["observed"] == label, "predicted"].clip(0, 1)
            share = np.histogram(own, edges)[0] / max(1, len(own))
            panel.stairs(share, edges, color=colour, fill=True, alpha=0.25)
            panel.stairs(share, edges, color=colour, lw=1.4, ls="-" if label else "--", label=name)
            texts = [f"{assay}, {name}: {100 * s:.0f} % of genes at {a:.2f} to {b:.2f}"
                     for s, a, b in zip(share, edges[:-1], edges[1:], strict=True)]  # fmt: skip
            add_hints(panel, (edges[:-1], edges[1:]), share, texts)
        panel.set_title(f"{assay}\nr = {number(r)}", fontsize=9)
    panels[0].set_ylim(bottom=0)  # of all panels; only now it leaves none of them cut off
    handles = [line for line in panels[0].patches if line.get_label() and not line.get_fill()]
    legend_above(figure, handles)
    figure.supxlabel(f"predicted {PROBABILITY}", fontsize=9)
    figure.supylabel("share of genes of a label", fontsize=9)
    return fitted(figure)
