"""Which figures the report of a run shows."""

import pathlib

import pandas as pd
from matplotlib.figure import Figure

from epi2expr_jax.scores import table as scoring
from epi2expr_jax.study import results, tables
from epi2expr_jax.study.statements import answer_cells
from epi2expr_jax.training.checkpoint import read_card
from epi2expr_jax.units import DEFAULT_UNIT, PROBABILITY
from experiments.figures.altered_marks import effect_figures, profile_figure
from experiments.figures.screens import reach_figure
from experiments.figures.studies import (
    across_figure,
    models_figure,
    pairs_figure,
    quality_figure,
    shapley_figure,
    sweep_figure,
)
from experiments.figures.style import heat_map, ranking_figure, unit_of_shares
from experiments.figures.training import MOST_CURVES, learning_curves, prediction_figure


def headline(ranked: pd.DataFrame) -> pd.DataFrame:
    """The rows of the answer: "all" comes first; without it (no cell has every assay) a cell."""
    return ranked.loc[ranked["cell"] == ranked["cell"].iloc[0], :].reset_index(drop=True)


def page_figures(
    run_dir: pathlib.Path,
    unit: str,
    cells: list[str],
    runs: pd.DataFrame,
    content: dict[str, pd.DataFrame],
) -> dict[str, Figure]:
    """Every figure of the report by name; those whose table is empty are not there.

    Args:
        run_dir: holds history.parquet and predictions.parquet.
        unit: of what is predicted, in words.
        cells: where models were tested.
        runs: columns run_id and assay.
        content: the page's tables by name; all names are there, some tables may be empty.
    """
    ranked = content["ranking"]
    rows = headline(ranked)
    assays = list(dict.fromkeys([*rows["assay"], *ranked["assay"], *runs["assay"]]))
    grid = ranked[ranked["cell"] != scoring.ALL].pivot(
        index="assay", columns="cell", values="pearson"
    )
    history = tables.HISTORY.read(run_dir).merge(runs[["run_id", "assay"]])
    half = MOST_CURVES // 2
    few = assays if len(assays) <= MOST_CURVES else [*assays[:half], *assays[-half:]]
    ends = rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})]
    filters = [("assays", "in", list(ends["assay"])), ("cell", "in", answer_cells(ranked))]
    predictions = tables.PREDICTIONS.read(
        run_dir, ["assays", "observed", "predicted"], filters=filters
    )
    many = len(cells) > 1  # of one cell a heat map would be the ranking again
    figures = {
        "ranking": ranking_figure(rows, unit),
        "cells": heat_map(grid.reindex(index=assays, columns=cells)) if many else None,
        "curves": learning_curves(history, few, labels=unit == PROBABILITY),
        "predictions": prediction_figure(predictions, ends, unit),
        "pairs": pairs_figure(_pairs(content)),
    }
    for name, draw in (
        ("baselines", models_figure), ("models", models_figure), ("sweep", sweep_figure),
    ):  # fmt: skip
        if len(content[name]):
            figures[name] = draw(content[name])
    if len(content["effects"]):
        drawn = effect_figures(content["effects"], unit, content["between_models"])
        figures |= {f"effects_{name}": figure for name, figure in drawn.items()}
    if len(content["profile"]):
        figures["profile"] = profile_figure(content["profile"], _of_shares(run_dir))
    if len(content["crispri"]):
        figures["crispri"] = reach_figure(content["crispri"])
    if len(content["quality"]):
        figures["quality"] = quality_figure(content["quality"])
    if len(content["shapley"]):
        figures["shapley"] = shapley_figure(_over_all(content["shapley"]))
    if len(content["across_cells"]):
        table = content["across_cells"]
        order = [assay for assay in assays if assay in set(table["assays"])]
        figures["across_cells"] = across_figure(table, order)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _of_shares(run_dir: pathlib.Path) -> str:
    """What the shares of a profile are in."""
    card = read_card(run_dir)
    unit = card["store"].get("expression_unit", DEFAULT_UNIT)
    record = results.record_of(run_dir / "attribution", "attribution") or {}
    return unit_of_shares(card["target"], unit, record.get("method", "gradients"))


def _over_all(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that average over cells, or those of the first cell."""
    return table[table["cell"] == table["cell"].iloc[0]]


def _pairs(content: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Scores of pairs and single assays: of models trained on each, or of a masked-mark model."""
    if len(content["subsets"]):
        return _over_all(content["subsets"]).rename(columns={"subset": "assay"})
    return headline(content["ranking"])
