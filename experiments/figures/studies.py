"""Figures of further studies: windows, pairs and shares of assays, other cells, baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from epi2expr_jax.interpret.enrichment import EFFECT, MATCHES
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.intervals import ONE_VALUE
from epi2expr_jax.words.sentences import one_value
from experiments.figures.hover import add_hints, ends_of, score_texts
from experiments.figures.layout import (
    WIDTH,
    apart,
    columns_of,
    drop_panels,
    fitted,
    legend_above,
    log_ticks,
    new_figure,
    page_width,
    side_label,
    wrap,
)
from experiments.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    cell_size,
    heat_map,
    number,
    write_numbers,
)

MOST_PANELS = 6
MOST_MODELS = 6  # that have lines of their own: colours and marks are as many


def sweep_figure(table: pd.DataFrame) -> Figure:
    """Pearson r against the width of the window, a panel an assay, with 95 % intervals.

    Args:
        table: columns assay, window_bp, pearson, low and high.
    """
    order = table.groupby("assay")["pearson"].max().sort_values(ascending=False)
    assays = sorted(order.index, key=lambda assay: (assay != scoring.ALL, -order[assay]))
    columns = columns_of(len(assays), 4)
    rows = -(-len(assays) // columns)
    width = min(page_width(), max(4.2, 1.0 + 2.2 * columns))
    figure = Figure((width, 0.7 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, assay in zip(panels, assays, strict=False):
        draw_sweep(table.loc[table["assay"] == assay, :], panel)
        panel.set_title(called(assay), fontsize=9)
    drop_panels(panels, len(assays), columns)
    widths = sorted(set(table["window_bp"] / 1000))
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_locator(ticker.FixedLocator(widths))
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].xaxis.set_minor_locator(ticker.NullLocator())
    figure.supxlabel("window around the TSS, kb", fontsize=9)
    figure.supylabel("Pearson r, held-out genes", fontsize=9)
    return fitted(figure)


def called(assay: str) -> str:
    """An assay as labels name it; the rows of all of them average over assays."""
    return "mean over assays" if assay == scoring.ALL else assay


def draw_sweep(rows: pd.DataFrame, axes: Axes) -> None:
    """One panel of `sweep_figure`, of one assay, into axes of yours."""
    part = rows.sort_values("window_bp")
    x = part["window_bp"] / 1000
    axes.fill_between(x, part["low"], part["high"], color=BLUE, alpha=0.22, lw=0)
    axes.plot(x, part["pearson"], "o-", color=BLUE, lw=1.6, markersize=4)
    names = part["assay"] + x.map(", {:g} kb".format)
    add_hints(axes, x, part["pearson"], score_texts(names, part, "pearson", "r"))


def pairs_figure(pairs: pd.DataFrame) -> Figure | None:
    """Pearson r of pairs of assays, and of each alone on the diagonal; None without any pair.

    Args:
        pairs: columns assay (`A` or `A+B`) and pearson.
    """
    sets = pairs["assay"].str.split("+")
    chosen = pairs[sets.map(len) <= 2]
    if not (sets.map(len) == 2).any():
        return None
    grid: dict[str, dict[str, float]] = {}
    for names, r in zip(sets[chosen.index], chosen["pearson"], strict=True):
        first, last = names[0], names[-1]
        grid.setdefault(first, {})[last] = r
        grid.setdefault(last, {})[first] = r
    table = pd.DataFrame(grid)
    order = table.mean().sort_values(ascending=False).index
    return heat_map(table.reindex(index=order, columns=order), framed=False, trees=False)


def shapley_figure(values: pd.DataFrame) -> Figure:
    """Shapley value of every assay with its intervals.

    Args:
        values: columns assay, value, low, high, simultaneous_low and simultaneous_high.
    """
    figure, axes = new_figure(len(values) * 0.27 + 0.9)
    draw_shapley(values, axes)
    return fitted(figure)


def draw_shapley(values: pd.DataFrame, axes: Axes) -> None:
    """As `shapley_figure`, into axes of yours."""
    rows = values.sort_values("value", ascending=False)
    y = np.arange(len(rows))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.barh(y, rows["value"], color=BLUE, alpha=0.55, height=0.62)
    axes.hlines(y, rows["simultaneous_low"], rows["simultaneous_high"], GREY, lw=1.4)
    axes.hlines(y, rows["low"], rows["high"], "black", lw=2.4)
    add_hints(axes, (0, rows["value"]), y, score_texts(rows["assay"], rows, "value", "share"))
    for position, value in zip(y, rows["value"], strict=True):
        axes.annotate(
            number(value), (1.01, position), xycoords=("axes fraction", "data"), va="center"
        )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(y, [side_label(assay) for assay in rows["assay"]])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Shapley value: share of Pearson r of all assays together")


def across_figure(table: pd.DataFrame, assays: list[str]) -> Figure:
    """Pearson r by cell trained on (rows) and tested in (columns), a panel an assay.

    Args:
        table: columns assays, trained_on, cell and pearson.
        assays: those to show, at most `MOST_PANELS`.
    """
    shown = assays[:MOST_PANELS]
    cells = sorted(set(table["cell"]))
    trained = sorted(set(table["trained_on"]), key=lambda name: (name not in cells, name))
    columns = columns_of(len(shown), 3)
    rows = -(-len(shown) // columns)
    labels = [wrap(name, 18) for name in trained]
    side = min(2.2, max(1.3, 0.3 * len(cells)))
    height = side * len(trained) / len(cells) if len(trained) < len(cells) else side
    figure = Figure(
        (min(page_width(), 1.2 + (side + 0.4) * columns), 0.9 + (max(height, 1.0) + 0.5) * rows),
        layout="constrained",
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    values = table.loc[table["assays"].isin(shown), "pearson"]
    scale: dict[str, Any] = {"vmin": min(0, values.min()), "vmax": max(values.max(), 1e-3)}
    image, grids = None, []
    for panel, assay in zip(panels, shown, strict=False):
        part = table.loc[table["assays"] == assay, :]
        grid = part.pivot(index="trained_on", columns="cell", values="pearson")
        grid = grid.reindex(index=trained, columns=cells)
        grids.append(grid.to_numpy(float))
        image = panel.imshow(grids[-1], cmap="Blues", aspect="auto", **scale)
        panel.set_title(assay, fontsize=9)
        _name_ticks(panel.xaxis, cells, side, rotation=90)
        _name_ticks(panel.yaxis, labels, max(height, 1.0))
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        for (row, column), r in np.ndenumerate(grids[-1]):
            texts = f"{assay}, trained on {trained[row]}, tested in {cells[column]}: r {number(r)}"
            add_hints(panel, (column - 0.5, column + 0.5), (row - 0.5, row + 0.5), [texts])
    drop_panels(panels, len(shown), columns)
    assert image is not None
    figure.colorbar(image, ax=panels[: len(shown)].tolist(), label="Pearson r", shrink=0.8)
    figure.supxlabel("tested in", fontsize=9)
    figure.supylabel("trained on", fontsize=9)
    fitted(figure)
    room = cell_size(panels[0], grids[0])  # the same in all
    for panel, values in zip(panels, grids, strict=False):
        write_numbers(panel, values, room)
    return figure


def _name_ticks(axis: Axis, labels: Sequence[str], inches: float, **how: Any) -> None:
    """Name the ticks of so many rows or columns along so many inches; of many only some."""
    lines = max(label.count("\n") for label in labels) + 1
    room = 72 * inches / len(labels) / lines / 1.3  # points
    places = range(0, len(labels), max(1, int(np.ceil(6 / room))))
    size = float(np.clip(room, 6, 9))
    axis.set_ticks(places, [labels[place] for place in places], fontsize=size, **how)


def models_figure(table: pd.DataFrame) -> Figure:
    """Pearson r of several models with intervals, a line an assay and model; of many a heat map.

    Args:
        table: columns assay, model, pearson, low and high; `note` says of whom no score is shown,
            since one value is predicted.
    """
    table = table.assign(pearson=table["pearson"].mask(one_value(table)))
    if table["model"].nunique() > MOST_MODELS:
        grid = table.pivot(index="model", columns="assay", values="pearson")
        grid = grid.reindex(index=table["model"].unique(), columns=table["assay"].unique())
        return heat_map(grid.rename(columns=called), trees=False, hole=f"no score: {ONE_VALUE}")
    assays, models = table["assay"].nunique(), table["model"].nunique()
    lines = max(side_label(called(assay)).count("\n") for assay in table["assay"]) + 1
    figure, axes = new_figure(0.9 + assays * max(0.16 + 0.11 * models, 0.11 + 0.15 * lines))
    draw_models(table, axes)
    legend_above(figure)
    return fitted(figure)


def draw_models(table: pd.DataFrame, axes: Axes) -> None:
    """As `models_figure`, into axes of yours; call `axes.legend()` for the legend."""
    assays = list(dict.fromkeys(table["assay"]))
    models = list(dict.fromkeys(table["model"]))
    colours = [BLUE, ORANGE, GREY, "#009E73", "#CC79A7", "#E69F00"]
    markers = "osD^vP"
    for k, model in enumerate(models):
        part = table.loc[table["model"] == model, :].set_index("assay").reindex(assays)
        y = np.arange(len(assays)) + (k - (len(models) - 1) / 2) * 0.8 / len(models)
        colour = colours[k % 6]
        axes.hlines(y, part["low"], part["high"], lw=1.6, color=colour)
        axes.plot(part["pearson"], y, markers[k % 6], color=colour, markersize=5, label=model)
        names = [f"{called(assay)}, {model}" for assay in assays]
        add_hints(axes, ends_of(part, "pearson"), y, score_texts(names, part, "pearson", "r"))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_ylim(len(assays) - 0.4, -0.6)
    axes.set_yticks(range(len(assays)), [side_label(called(assay)) for assay in assays])
    axes.tick_params(axis="y", length=0)
    drawn = ", with 95 % intervals" if bool(table["low"].notna().any()) else ""
    axes.set_xlabel(f"Pearson r, held-out genes{drawn}")


def quality_figure(table: pd.DataFrame) -> Figure:
    """Pearson r of every track against its mean signal and its signal-to-noise.

    Args:
        table: columns cell, assay, pearson, depth and signal_to_noise.
    """
    lines = 1 if page_width() == WIDTH else 2
    figure = Figure((page_width(), 3.8 * lines), layout="constrained")
    panels = figure.subplots(lines, 2 // lines, sharey=True)
    titles = {
        "depth": "mean signal in the windows",
        "signal_to_noise": "top 5 % of windows over the median of the others",
    }
    for panel, (measure, title) in zip(panels, titles.items(), strict=True):
        values = table[measure].replace([np.inf, -np.inf], np.nan)
        shown = table[values > 0]
        panel.plot(shown[measure], shown["pearson"], "o", color=BLUE, markersize=4, alpha=0.6)
        panel.set_xscale("log")
        rows = zip(shown["cell"], shown["assay"], shown["pearson"], shown[measure], strict=True)
        texts = [f"{cell} {name}: r {number(r)} at {at:.3g}" for cell, name, r, at in rows]
        add_hints(panel, shown[measure], shown["pearson"], texts)
        panel.set_xlabel(title)
        panel.margins(0.1, 0.08)
        log_ticks(panel.xaxis)
    panels[0].set_ylabel("Pearson r, held-out genes")
    fitted(figure)
    for panel, measure in zip(panels, titles, strict=True):  # the panels move no more
        _name(panel, table.groupby("assay")[[measure, "pearson"]].median(), 7)
    return figure


def _name(axes: Axes, centres: pd.DataFrame, size: int) -> None:
    """Write names over points, none over another or over a point of the axes' lines.

    Args:
        centres: by name, x and y.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # where things are is known after that
    places = axes.transData.transform(centres.to_numpy())
    dots = figure.dpi / 72  # of a point
    boxes = [
        (x, y + 2 * dots, 0.7 * size * len(str(name)) * dots)
        for name, (x, y) in zip(centres.index, places, strict=True)
    ]
    points = np.concatenate([line.get_xydata() for line in axes.lines])
    radius = max(line.get_markersize() for line in axes.lines) / 2 * dots
    taken = [(x, y - radius, 2 * radius) for x, y in axes.transData.transform(points)]
    placed = apart(boxes, 1.15 * size * dots, taken, 2 * radius)
    for name, own, box, bottom in zip(
        centres.index, centres.to_numpy(), boxes, placed, strict=True
    ):
        up = 2 + (bottom - box[1]) / dots
        line = {"arrowstyle": "-", "color": GREY, "lw": 0.5} if up > 3 else None
        axes.annotate(
            str(name), (own[0], own[1]), (0, up), textcoords="offset points", fontsize=size,
            ha="center", va="bottom", arrowprops=line, in_layout=False,
        )  # fmt: skip


def enrichment_figure(table: pd.DataFrame) -> Figure:
    """Enrichment of variants in top regions with intervals, by how closely they are matched.

    Args:
        table: from `interpret.enrichment.enrich`, with a column `of`: what is tested apart.
    """
    rows = (table["of"] + "\n" + table["predictor"]).str.strip()
    labels = list(dict.fromkeys(rows))
    figure = Figure((page_width(), 1.0 + 0.35 * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(MATCHES), sharey=True)
    for panel, matched in zip(panels, MATCHES, strict=True):
        part = table[table["matched"] == matched]
        y = np.array([labels.index(label) for label in rows[part.index]])
        colours = np.where(part["predictor"] == EFFECT, BLUE, GREY)
        panel.hlines(y, part["low"], part["high"], colours, lw=2)
        panel.scatter(part["enrichment"], y, 30, colours)
        panel.axvline(1, color=GREY, linewidth=0.8)
        panel.set_title(f"matched: {matched}", fontsize=9)
        panel.set_xscale("log")
        log_ticks(panel.xaxis)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    panels[0].set_yticks(range(len(labels)), labels)
    label = "share of variants in top regions, observed / expected"
    label += "; 95 % intervals" if bool(table["low"].notna().any()) else ""
    figure.supxlabel(label, fontsize=9)
    return fitted(figure)


def gain_figure(gains: pd.DataFrame, have: Sequence[str], data: str = "") -> Figure:
    """What each mark adds to those at hand, a panel a kind of genes, with 95 % intervals.

    Args:
        gains: from `scores.subsets.gains_over_cells`; the first kind's order counts for all.
        have: the marks at hand.
        data: what they are gains of, if that must be said: simulated.
    """
    kinds = list(dict.fromkeys(gains["genes"]))[:MOST_PANELS]
    order = list(gains.loc[gains["genes"] == kinds[0], "assay"])
    columns = columns_of(len(kinds), 3)
    rows = -(-len(kinds) // columns)
    names = [side_label(name) for name in order]
    line = 0.07 + 0.15 * (max(name.count("\n") for name in names) + 1)
    figure = Figure((page_width(), rows * (0.7 + line * len(order)) + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        part = gains[gains["genes"] == kind].set_index("assay").reindex(order)
        y = np.arange(len(order))
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.hlines(y, part["low"], part["high"], BLUE, lw=3, alpha=0.55)
        panel.plot(part["gain"], y, "o", color=BLUE)
        panel.set_title(f"{kind} ({part['score'].dropna().iloc[0]})", fontsize=9)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    for panel in panels[::columns]:
        panel.set_yticks(range(len(order)), names)
    drop_panels(panels, len(kinds), columns)
    label = f"gain over {', '.join(have)}, mean of cells"
    label += "; 95 % interval: one more cell" if bool(gains["low"].notna().any()) else ""
    label = f"{data} data: {label}" if data else label
    figure.supxlabel(label, fontsize=9)
    return fitted(figure)
