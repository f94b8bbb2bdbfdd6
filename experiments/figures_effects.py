"""Figures of altered marks and of attribution."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.figures import BLUE, GREY, ORANGE, WIDTH, drop_panels, new_figure, wrap
from experiments.figures_studies import MOST_PANELS


def dose_figure(means: pd.DataFrame) -> Figure:
    """Mean effect against the factor, a panel a cell and a line a place, with 95 % intervals.

    Args:
        means: columns cell, place, factor, effect, low and high; of many places those with the
            largest effects are shown.
    """
    strongest = means.groupby("place", sort=False)["effect"].apply(lambda e: e.abs().max())
    shown = strongest.sort_values(ascending=False).index[:MOST_PANELS]
    models = list(dict.fromkeys(zip(means["cell"], means["assays"], strict=True)))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure = Figure((min(WIDTH, 1.6 + 2.4 * columns), 0.9 + 2.1 * rows), layout="constrained")
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
        panel.axhline(0, color=GREY, lw=0.8)
        panel.set_title(wrap(f"{cell} {assays}", 30), fontsize=9)
    drop_panels(panels, len(models), columns)
    panels[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("signal multiplied by", fontsize=9)
    figure.supylabel("change of log2(RPKM + 1)", fontsize=9)
    return figure


def distance_figure(means: pd.DataFrame) -> Figure:
    """Mean effect of the lowest factor by distance to the TSS, a line a model.

    Args:
        means: columns cell, assays, distance (bp, along the strand), factor, effect, low and high.
    """
    lowest = means[(means["factor"] == means["factor"].min()) & means["distance"].notna()]
    figure, axes = new_figure(2.8)
    for index, (name, part) in enumerate(lowest.groupby(["cell", "assays"], sort=False)):
        part = part.sort_values("distance")
        colour = (BLUE, ORANGE)[index % 2]
        x = part["distance"] / 1000
        axes.errorbar(
            x, part["effect"], [part["effect"] - part["low"], part["high"] - part["effect"]],
            color=colour, linestyle=("-", "--", ":")[index // 2 % 3], marker="o", markersize=3.5,
            lw=1.4, elinewidth=1, label=" ".join(map(str, name)),
        )  # fmt: skip
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(0, color=GREY, lw=0.8, ls=":")
    axes.set_xlabel("distance to the TSS along the strand, kb")
    axes.set_ylabel(f"effect of factor {lowest['factor'].min():g}, log2(RPKM + 1)")
    axes.legend(fontsize=7, frameon=False)
    return figure


def profile_figure(profile: pd.DataFrame, unit: str) -> Figure:
    """Mean share of each bin by its distance to the TSS, a panel an assay and a line a cell.

    Args:
        profile: columns model, assay, distance (bp along the strand), share, low and high; the
            assays with the largest shares are shown.
    """
    strongest = profile.groupby("assay", sort=False)["share"].apply(lambda share: share.abs().max())
    assays = strongest.sort_values(ascending=False).index[:MOST_PANELS]
    columns = min(3, len(assays))
    rows = -(-len(assays) // columns)
    figure = Figure((min(WIDTH, 1.6 + 2.4 * columns), 0.9 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, assay in zip(panels, assays, strict=False):
        models = profile[profile["assay"] == assay].groupby("model", sort=False)
        for number, (model, part) in enumerate(list(models)[:MOST_PANELS]):
            colour, style = (BLUE, ORANGE)[number % 2], ("-", "--", ":")[number // 2 % 3]
            x = part["distance"] / 1000
            panel.fill_between(x, part["low"], part["high"], color=colour, alpha=0.18, lw=0)
            panel.plot(
                x,
                part["share"],
                style,
                color=colour,
                lw=1.2,
                label=wrap(str(model).removesuffix(f" {assay}"), 24),
            )
        panel.axhline(0, color=GREY, lw=0.8)
        panel.axvline(0, color=GREY, lw=0.8, ls=":")
        panel.set_title(assay, fontsize=9)
        panel.legend(fontsize=6.5, frameon=False)
    drop_panels(panels, len(assays), columns)
    figure.supxlabel("distance to the TSS along the strand, kb", fontsize=9)
    figure.supylabel(f"mean share of a bin, {unit}", fontsize=9)
    return figure
