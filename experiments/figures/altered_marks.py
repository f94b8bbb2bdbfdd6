"""Figures of altered marks and of attribution."""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from epi2expr_jax.interpret.located import GenePlot
from experiments.figures.hover import add_hints, score_texts
from experiments.figures.layout import (
    columns_of,
    drop_panels,
    fitted,
    legend_above,
    new_figure,
    page_width,
    side_label,
    wrap,
)
from experiments.figures.studies import MOST_PANELS
from experiments.figures.style import BLUE, GREY, ORANGE

_many_assays = re.compile(r"[^ +]+(\+[^ +]+){2,}")  # a set of three or more
MOST_HINTS = 80  # places of a line whose values can be pointed at


def _counted(assays: re.Match) -> str:
    return f"({assays[0].count('+') + 1} assays)"


def one_change(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one change: the lowest factor, or the first of other changes."""
    if bool(table["factor"].notna().any()):
        return table[table["factor"] == table["factor"].min()]
    return table[table["change"] == table["change"].iloc[0]]


def effect_figures(means: pd.DataFrame, unit: str, between: pd.DataFrame) -> dict[str, Figure]:
    """The figures of a table of mean effects (`epi2expr_jax.perturb.mean_effects`), by name.

    Args:
        unit: of the effects, in words.
        between: how far models agree, of `perturb.summary.between_models`.
    """
    drawn: dict[str, Figure] = {}
    scaled = means[means["factor"].notna()]
    if scaled["factor"].nunique() > 1:
        drawn["dose"] = dose_figure(scaled, unit)
    if means["distance"].nunique() > 1:
        drawn["distance"] = distance_figure(one_change(means), unit)
    if len(between):
        own = ["cell", "assays", "mark", "place", "change"]
        shown = one_change(means)[[*own, "effect"]].merge(between, on=own)
        if len(shown):  # a change that does nothing is in no row of `between`
            drawn["between"] = between_figure(shown)
    return drawn


def between_figure(table: pd.DataFrame) -> Figure:
    """How far the effects of two models agree over genes: mean, lowest and highest r of the pairs,
    a line an edit, the strongest at the top.

    Args:
        table: columns cell, assays, place, change, effect, r, lowest and highest.
    """
    order = table["effect"].abs().sort_values(ascending=False, kind="stable").index
    shown = table.loc[order].head(MOST_PANELS).iloc[::-1]
    names = [side_label(f"{row.cell} {row.assays}, {row.place}") for row in shown.itertuples()]
    lines = max(name.count("\n") for name in names) + 1
    figure, axes = new_figure(0.9 + (0.1 + 0.12 * lines) * len(shown))
    y = np.arange(len(shown))
    axes.hlines(y, shown["lowest"], shown["highest"], color=GREY, lw=1.4)
    axes.plot(shown["r"], y, "o", color=BLUE, markersize=4)
    axes.set_yticks(y, names, fontsize=7)
    axes.set_xlim(min(0.0, float(shown["lowest"].min())) - 0.02, 1.02)
    axes.set_xlabel(f"Pearson r of effects ({shown['change'].iloc[0]}) between two models")
    return fitted(figure)


def dose_figure(means: pd.DataFrame, unit: str) -> Figure:
    """Mean effect against the factor, a panel a cell and a line a place, with 95 % intervals.

    Args:
        means: columns cell, place, factor, effect, low and high; of many places those with the
            largest effects are shown.
    """
    strongest = means.groupby("place", sort=False)["effect"].apply(lambda e: e.abs().max())
    shown = strongest.sort_values(ascending=False).index[:MOST_PANELS]
    models = list(dict.fromkeys(zip(means["cell"], means["assays"], strict=True)))
    columns = columns_of(len(models), 3)
    rows = -(-len(models) // columns)
    figure = Figure(
        (min(page_width(), 1.6 + 2.4 * columns), 0.9 + 2.1 * rows), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, (cell, assays) in zip(panels, models, strict=False):
        own = means[(means["cell"] == cell) & (means["assays"] == assays)]
        for number_, place in enumerate(shown):
            part = own[own["place"] == place].sort_values("factor")
            style = ("-", "--", ":")[number_ // 2 % 3]
            colour = (BLUE, ORANGE)[number_ % 2]
            panel.fill_between(
                part["factor"], part["low"], part["high"], color=colour, alpha=0.18, lw=0
            )
            panel.plot(
                part["factor"], part["effect"], style, marker="o", markersize=3, color=colour,
                label=place,
            )  # fmt: skip
            names = [f"{place} × {factor:g}" for factor in part["factor"]]
            add_hints(
                panel, part["factor"], part["effect"], score_texts(names, part, "effect", "effect")
            )
        panel.axhline(0, color=GREY, lw=0.8)
        panel.set_title(f"{cell} {assays}", fontsize=9)
    drop_panels(panels, len(models), columns)
    legend_above(figure)
    figure.supxlabel("signal multiplied by", fontsize=9)
    figure.supylabel(f"change of {unit}", fontsize=9)
    return fitted(figure)


def distance_figure(means: pd.DataFrame, unit: str) -> Figure:
    """Mean effect of one change by distance to the TSS, a line a model.

    Args:
        means: columns cell, assays, distance (bp, along the strand), change, effect, low and high.
    """
    figure, axes = new_figure(2.8)
    draw_distance(means, unit, axes)
    legend_above(figure)
    return fitted(figure)


def draw_distance(means: pd.DataFrame, unit: str, axes: Axes) -> None:
    """As `distance_figure`, into axes of yours; call `axes.legend()` for the legend."""
    means = means[means["distance"].notna()]
    for index, (name, part) in enumerate(means.groupby(["cell", "assays"], sort=False)):
        part = part.sort_values("distance")
        colour = (BLUE, ORANGE)[index % 2]
        x = part["distance"] / 1000
        axes.errorbar(
            x, part["effect"], [part["effect"] - part["low"], part["high"] - part["effect"]],
            color=colour, linestyle=("-", "--", ":")[index // 2 % 3], marker="o", markersize=3.5,
            lw=1.4, elinewidth=1, label=" ".join(map(str, name)),
        )  # fmt: skip
        names = [f"{' '.join(map(str, name))}, {kb:g} kb" for kb in x]
        add_hints(axes, x, part["effect"], score_texts(names, part, "effect", "effect"))
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8, ls=":")
    axes.set_xlabel("distance to the TSS along the strand, kb")
    axes.set_ylabel(f"effect of {means['change'].iloc[0]}, {unit}")


def gene_figure(plot: GenePlot) -> Figure:
    """One gene: its contacts as arcs, the mark with the edited places, and what each edit does.

    The x axis is in genomic order; a plus or minus next to the TSS is the gene's strand.
    """
    arcs = len(plot.contacts) > 0
    figure = Figure((page_width(), 4.6 if arcs else 3.6), layout="constrained")
    heights = (1, 1.3, 1) if arcs else (1.3, 1)
    panels = figure.subplots(len(heights), 1, height_ratios=heights, sharex=not arcs)
    if arcs:
        _draw_arcs(panels[0], plot)
        panels[2].sharex(panels[1])
    mark, effect = panels[-2:]
    mark.stairs(plot.signal, plot.edges / 1000, fill=True, color=BLUE, alpha=0.7)
    mark.set_ylabel(wrap(plot.title, 18), fontsize=8)
    mark.tick_params(labelbottom=False)
    for (start, end), part in plot.edits.groupby(["start", "end"]):
        bounds = np.array([start, end], float) / 1000
        mark.axvspan(*bounds, color=ORANGE, alpha=0.12, lw=0)
        row = part.iloc[0]
        effect.bar(bounds.mean(), row["effect"], np.diff(bounds), color=ORANGE, alpha=0.5)
        if row["low"] == row["low"]:
            effect.vlines(bounds.mean(), row["low"], row["high"], color=ORANGE, lw=1.4)
    effect.axhline(0, color=GREY, lw=0.8)
    for panel in panels:
        panel.axvline(0, color=GREY, lw=0.8, ls=":")
    effect.set_ylabel(wrap(f"effect of {plot.edits['change'].iloc[0]}", 18), fontsize=8)
    effect.set_xlabel("kb from the TSS", fontsize=9)
    gene = plot.gene
    name = f"{gene['name']} ({gene['gene_id']})" if gene["name"] else gene["gene_id"]
    figure.suptitle(f"{name}, {gene['chrom']}:{gene['tss']:,} {gene['strand']}", fontsize=10)
    return figure


def _draw_arcs(axes: Axes, plot: GenePlot) -> None:
    """From the TSS to every region in contact, the wider the better its score."""
    best = max(float(plot.contacts["score"].max()), 1e-9)
    table = plot.contacts[["start", "end", "score"]].to_numpy(float)
    edits = plot.edits[["start", "end"]].to_numpy(float)
    for start, end, score in table * (1e-3, 1e-3, 1):
        middle = (start + end) / 2
        edited = bool(((edits[:, 0] < end * 1e3) & (start * 1e3 < edits[:, 1])).any())
        axes.add_patch(
            Arc((middle / 2, 0), abs(middle), 2, theta1=0, theta2=180, color=GREY,
                lw=0.6 + 1.6 * score / best)
        )  # fmt: skip
        axes.hlines(0, start, end, color=ORANGE if edited else BLUE, lw=6)
    first, last = plot.edges[[0, -1]] / 1000
    axes.axvspan(first, last, color=GREY, alpha=0.15, lw=0)  # what the panels below show
    bounds = [*(table[:, :2] / 1000).ravel(), first, last]
    room = 0.03 * (max(bounds) - min(bounds))
    axes.set_xlim(min(bounds) - room, max(bounds) + room)
    axes.set_ylim(-0.15, 1.1)
    axes.set_yticks([])
    axes.set_ylabel("contacts", fontsize=8)
    axes.spines["left"].set_visible(False)


def profile_figure(profile: pd.DataFrame, unit: str) -> Figure:
    """Mean share of each bin by its distance to the TSS, a panel an assay and a line a cell.

    Args:
        profile: columns model, assay, distance (bp along the strand), share, low and high; the
            assays with the largest shares are shown.
    """
    strongest = profile.groupby("assay", sort=False)["share"].apply(lambda share: share.abs().max())
    assays = strongest.sort_values(ascending=False).index[:MOST_PANELS]
    columns = columns_of(len(assays), 3)
    rows = -(-len(assays) // columns)
    figure = Figure(
        (min(page_width(), 1.6 + 2.4 * columns), 0.9 + 1.9 * rows), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, assay in zip(panels, assays, strict=False):
        draw_profile(profile[profile["assay"] == assay], panel)
        panel.set_title(assay, fontsize=9)
        panel.legend(fontsize=6.5, frameon=False)
    drop_panels(panels, len(assays), columns)
    figure.supxlabel("distance to the TSS along the strand, kb", fontsize=9)
    figure.supylabel(f"mean share of a bin, {unit}", fontsize=9)
    return fitted(figure)


def draw_profile(profile: pd.DataFrame, axes: Axes) -> None:
    """One panel of `profile_figure`, of one assay, into axes of yours; call `axes.legend()`."""
    assay = profile["assay"].iloc[0]
    models = list(profile.groupby("model", sort=False))[:MOST_PANELS]
    labels = [str(model).removesuffix(f" {assay}") for model, _ in models]
    short = [_many_assays.sub(_counted, label) for label in labels]
    labels = short if len({*short}) == len(labels) else labels
    for number, (label, (model, part)) in enumerate(zip(labels, models, strict=True)):
        colour, style = (BLUE, ORANGE)[number % 2], ("-", "--", ":")[number // 2 % 3]
        x = part["distance"] / 1000
        axes.fill_between(x, part["low"], part["high"], color=colour, alpha=0.18, lw=0)
        axes.plot(x, part["share"], style, color=colour, lw=1.2, label=wrap(label, 24))
        some = part.assign(kb=x)[:: -(-len(part) // MOST_HINTS)]
        names = [f"{model}, {kb:.3g} kb" for kb in some["kb"]]
        add_hints(axes, some["kb"], some["share"], score_texts(names, some, "share", "share", 4))
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8, ls=":")
