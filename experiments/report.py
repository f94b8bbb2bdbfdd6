"""Write the report of an evaluated run: one self-contained page, DIR/report.html.

    python -m experiments.report --run=runs/cnn
    python -m experiments.report --run=runs/chromoformer --compare=runs/cnn,runs/promoter_only
    python -m experiments.report --run=runs/chromoformer --against=runs/cnn
    python -m experiments.report --run=runs/cnn --sweep=runs/sweep

Which assay predicts expression best and how sure that is, every cell and assay, learning curves,
predicted against observed expression, and how it was made; and what else was computed in the
run directory: baselines (experiments.evaluate), pairs and Shapley values
(experiments.combinations), tests in other cells (experiments.across_cells), marks altered in silico
(experiments.perturb). The page loads nothing from elsewhere: mail it, print it, archive it. Its
figures (SVG, PNG) and tables (CSV) are also in DIR/report for papers and slides.
"""

import contextlib
import json
import pathlib
from collections.abc import Hashable, Sequence
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from absl import flags
from matplotlib.figure import Figure

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_json, write_csv, write_text
from epi2expr_jax.genome import listing
from epi2expr_jax.perturb.summary import NEEDED
from epi2expr_jax.predict.training_store import find_store
from epi2expr_jax.program import require, start
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import best_assays, quality_correlations
from epi2expr_jax.scores.comparison import compare_models, interactions
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, sentences, statements, tables
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.splits import read_splits
from epi2expr_jax.units import DEFAULT_UNIT, unit_words
from experiments.cli.certificate import Certificate, read_certificate
from experiments.cli.flags import define_run
from experiments.figures.altered_marks import one_change
from experiments.figures.page import headline, page_figures
from experiments.figures.studies import MOST_PANELS
from experiments.figures.style import STYLE, data_uri, save_figure, unit_of
from experiments.figures.training import MOST_CURVES

FLAGS = flags.FLAGS

# Further tables, shown if they are there.
STUDIES = {
    "baselines": tables.BASELINES,
    "groups": tables.GROUPS,
    "questions": tables.QUESTIONS,
    "calls": tables.CALLS,
    "added": tables.ADDED,
    "ranking_own": tables.OWN,
    "copies": tables.COPIES,
    "ranking_without_copies": tables.WITHOUT,
    "baselines_without_copies": tables.BASELINES_WITHOUT,
    "quality": tables.QUALITY,
    "ranking_new_cell": tables.NEW_CELL,
    "subsets": tables.SUBSETS,
    "shapley": tables.SHAPLEY,
    "agreement": tables.AGREEMENT,
    "across_cells": tables.ACROSS,
    "effects": tables.MEAN_EFFECTS,
    "null": tables.NULL,
}
WORST_GENES = 15
MOST_EFFECTS = 20
MOST_COPIES = 20


def write_report(
    run_dir: pathlib.Path,
    compare: Sequence[pathlib.Path] = (),
    sweep: pathlib.Path | None = None,
    against: pathlib.Path | None = None,
) -> pathlib.Path:
    """Write report.html of an evaluated run, whole or not at all; returns its path.

    Args:
        compare: further evaluated runs on the same store and folds, to compare it with in a table.
        sweep: a folder of experiments.sweep, to show its curves.
        against: an evaluated run of another approach, on the same store, cells, assays, folds and
            target: from which assays does this run gain more?

    Raises:
        InputError: naming every file that is missing, if runs cannot be compared, if nothing can
            be ranked, if files change meanwhile, or if the page cannot be written.
    """
    with results.written(run_dir, "report") as place, contextlib.ExitStack() as steady:
        # Within, so that nothing is published of tables that were replaced while they were read.
        others = [*compare, *([against] if against else [])]
        card, *_ = [steady.enter_context(tables.steady(each)) for each in (run_dir, *others)]
        _write(place, run_dir, card, compare, sweep, against)
    return run_dir / "report.html"


def _write(
    place: pathlib.Path,
    run_dir: pathlib.Path,
    card: dict[str, Any],
    compare: Sequence[pathlib.Path],
    sweep: pathlib.Path | None,
    against: pathlib.Path | None,
) -> None:
    with collect() as problems:
        for folder in (run_dir, *compare, *([against] if against else [])):
            with problems.part():
                tables.require(folder)
    certificate = read_certificate(run_dir)
    scores = tables.SCORES.read(run_dir)
    ranked = ranking.rank_assays(scores)
    if ranked.empty:
        raise InputError(
            str(run_dir / tables.SCORES.path),
            f"nothing to rank ({' '.join(ranking.caveats(scores))})",
            "assays scored on the same folds and chromosomes",
            "train on more genes, or rank fewer assays together",
        )
    content = {name: table.read(run_dir) for name, table in STUDIES.items()}
    content["models"] = _compared(run_dir, compare) if compare else pd.DataFrame()
    gained, content["interactions"] = "", pd.DataFrame()
    if against:
        _require_same([run_dir, against], closely=True)
        content["interactions"] = interactions(tables.SCORES.read(against), scores)
        names = card["model"], checkpoint.read_card(against)["model"]
        if names[0] == names[1]:
            names = run_dir.resolve().name, against.resolve().name
        gained = sentences.interaction(content["interactions"], *names)
    content["sweep"] = pd.DataFrame() if sweep is None else _swept(sweep)
    content["ranking"] = ranked
    content["worst_genes"] = worst_genes(run_dir, headline(ranked), _names(run_dir, card))
    runs = _runs(card)
    with matplotlib.rc_context(STYLE):
        cells = _cells(card, runs, ranked)
        figures = page_figures(run_dir, _unit(card), cells, runs, content)
        _export(place / "report", figures, content)
        images = {name: data_uri(figure) for name, figure in figures.items()}
        page = _page(run_dir, card, content, runs, images, certificate, gained)
        write_text(place / "report.html", page)


def _compared(run_dir: pathlib.Path, others: Sequence[pathlib.Path]) -> pd.DataFrame:
    """Scores of several runs side by side; the others are compared with the first.

    Raises:
        InputError: naming every run that has another store, other folds or another target.
    """
    folders = [run_dir, *others]
    _require_same(folders)
    cards = [checkpoint.read_card(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    labels = [f"{card['model']} ({name})" for card, name in zip(cards, names, strict=True)]
    scores = [tables.SCORES.read(folder) for folder in folders]
    return compare_models(dict(zip(labels, scores, strict=True)))


def _require_same(folders: Sequence[pathlib.Path], closely: bool = False) -> None:
    """Refuse runs that cannot be compared with the first.

    Args:
        closely: whether they must also have the same cells, assays and training genes, of signal
            that was transformed alike.

    Raises:
        InputError: naming every run that differs, and in what.
    """
    known = []
    for folder in folders:
        card = checkpoint.read_card(folder)
        facts = {"store": card["store_checksum"], "target": card["target"]}
        facts["division into folds"] = read_splits(folder / "splits.json")
        if closely:
            runs = _runs(card)
            facts["set of cells and assays"] = {*zip(runs["cell"], runs["assay"], strict=True)}
            facts["transform of signal"] = card.get("signal", {}).get("transforms")
            facts["share of training genes"] = card["request"].get("train_share", 1.0)
        known.append(facts)
    with collect() as problems:
        for folder, facts in zip(folders, known, strict=True):
            for what in (what for what in facts if facts[what] != known[0][what]):
                found = f"another {what} than that of {folders[0]}"
                expected = f"runs with the same {listing(facts, 6)}"
                remedy = "train it with the same flags, but for --model and what belongs to it"
                problems.add(str(folder), found, expected, remedy)


def _splits(run_dir: pathlib.Path) -> dict[str, Any]:
    return read_json(run_dir / "splits.json", "list of folds", "train again")


def _swept(folder: pathlib.Path) -> pd.DataFrame:
    if tables.SWEEP.checked(folder) is None:
        path = str(folder / tables.SWEEP.path)
        raise InputError(path, "no such file", "a finished sweep", "run experiments.sweep")
    return tables.SWEEP.read(folder)


def _expression_unit(card: dict[str, Any]) -> str:
    return card["store"].get("expression_unit", DEFAULT_UNIT)


def _unit(card: dict[str, Any]) -> str:
    return unit_of(card["target"], _expression_unit(card))


def _runs(card: dict[str, Any]) -> pd.DataFrame:
    runs = pd.DataFrame([run for population in card["populations"] for run in population["runs"]])
    runs["assay"] = ["+".join(assays) for assays in runs["assays"]]
    return runs


def _cells(card: dict[str, Any], runs: pd.DataFrame, ranked: pd.DataFrame) -> list[str]:
    """Where models were tested. A cell whose runs all failed is a hole, not absent."""
    tested = [cell for cell in dict.fromkeys(ranked["cell"]) if cell != scoring.ALL]
    trained = [cell for cell in dict.fromkeys(runs["cell"]) if cell in card["store"]["cells"]]
    return list(dict.fromkeys([*trained, *tested]))


def _names(run_dir: pathlib.Path, card: dict[str, Any]) -> dict[str, str]:
    """Gene names by id, where the store is still there."""
    try:
        path = find_store(run_dir, card)
    except InputError:
        return {}
    genes = WindowStore.open(path).genes
    return dict(zip(genes["gene_id"], genes["name"], strict=True))


def worst_genes(run_dir: pathlib.Path, rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The genes that the first assay of a ranking predicts worst, by their mean error.

    Returns:
        Columns gene_id, name, chrom, observed, predicted, error (its root mean square), cells.
    """
    filters: list = [("assays", "==", rows["assay"].iloc[0])]
    if rows["cell"].iloc[0] != scoring.ALL:
        filters.append(("cell", "==", rows["cell"].iloc[0]))
    columns = ["cell", "gene_id", "chrom", "observed", "predicted"]
    table = tables.PREDICTIONS.read(run_dir, columns, filters=filters)
    table["squared"] = (table["observed"] - table["predicted"]) ** 2
    means = table.groupby(["gene_id", "chrom"], as_index=False).agg(
        observed=("observed", "mean"),
        predicted=("predicted", "mean"),
        squared=("squared", "mean"),
        cells=("cell", "nunique"),
    )
    worst = means.nlargest(WORST_GENES, "squared").reset_index(drop=True)
    return worst.assign(
        name=[names.get(gene, "") for gene in worst["gene_id"]], error=np.sqrt(worst["squared"])
    )[["gene_id", "name", "chrom", "observed", "predicted", "error", "cells"]]


def _export(
    folder: pathlib.Path, figures: dict[str, Figure], content: dict[str, pd.DataFrame]
) -> None:
    """Figures and tables for papers and slides."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, folder / name, dpi=200)
    for name, table in content.items():
        if len(table):
            write_csv(folder / f"{name}.csv", table)


def _page(
    run_dir: pathlib.Path,
    card: dict[str, Any],
    content: dict[str, pd.DataFrame],
    runs: pd.DataFrame,
    figures: dict[str, str],
    certificate: Certificate | None,
    gained: str,
) -> str:
    rows = headline(content["ranking"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": sentences.number, "duration": duration, "listing": listing}
    kinds, cells = card["store"]["groups"], _cells(card, runs, content["ranking"])
    quality = content["quality"]
    return environment.get_template("report.html.j2").render(
        name=run_dir.resolve().name,
        card=card,
        request_json=json.dumps({k: v for k, v in card.items() if k != "populations"}, indent=1),
        splits=_splits(run_dir),
        rows=rows.to_dict("records"),
        kinds={
            assay: "+".join(dict.fromkeys(kinds[a] for a in assay.split("+") if kinds.get(a)))
            for assay in rows["assay"]
        },
        over_all=bool(rows["cell"].iloc[0] == scoring.ALL),
        cells=cells,
        runs=runs.to_dict("records"),
        statuses=runs["status"].value_counts().to_dict(),
        said=statements.of_run(run_dir),
        scope=statements.scope(rows, cells),
        figures=figures,
        unit=_unit(card),
        linear=unit_words(_expression_unit(card)),
        tables={name: table.to_dict("records") for name, table in content.items()},
        needed=NEEDED,
        best_rows=_best(content).to_dict("records"),
        quality=(quality_correlations(quality) if len(quality) else quality).to_dict("records"),
        abroad=_abroad(content["across_cells"]),
        altered=_altered(content["effects"], content["null"]),
        gained=gained,
        certificate=certificate,
        scoring=scoring,
        most_curves=MOST_CURVES,
        most_copies=MOST_COPIES,
        most_panels=MOST_PANELS,
    )


def _best(content: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The best assay of every cell, among all genes and in each group."""
    parts = [best_assays(content["ranking"]).assign(group="all genes")]
    if len(content["groups"]):
        for name, part in content["groups"].groupby("group"):
            parts.append(best_assays(part).assign(group=name))
    return pd.concat(parts, ignore_index=True)


def _abroad(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """For each assay set, how models do in cells they were not trained on."""
    if table.empty or not (~table["seen"]).any():
        return []
    means = table.groupby(["assays", "seen"]).mean(numeric_only=True).unstack("seen")
    unseen = table[~table["seen"]].groupby("assays")
    rows = pd.DataFrame(
        {
            "own": means["pearson"].get(True),
            "other": means["pearson"][False],
            "baseline": means["baseline"][False],
            "deviation": means["deviation"][False],
            "beaten": unseen["lead_low"].agg(lambda low: int((low > 0).sum())),
            "tests": unseen.size(),
        }
    )
    return rows.sort_values("other", ascending=False).reset_index().to_dict("records")


def _altered(table: pd.DataFrame, null: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The effects that the report tells: of one change, at the places where it does most."""
    if table.empty:
        return []
    rows = one_change(table)
    if len(null):
        own = null[[*tables.NULL.key, "null_low", "null_high", "p"]]
        rows = rows.merge(own, on=[*tables.NULL.key], how="left")
    strongest = rows["effect"].abs().sort_values(ascending=False, kind="stable").index
    return rows.loc[strongest].head(MOST_EFFECTS).to_dict("records")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def main() -> None:
    require("run")
    others = [pathlib.Path(other) for other in FLAGS.compare]
    sweep = pathlib.Path(FLAGS.sweep) if FLAGS.sweep else None
    against = pathlib.Path(FLAGS.against) if FLAGS.against else None
    path = write_report(pathlib.Path(FLAGS.run), others, sweep, against)
    print(f"{path}: open it in a browser")


def define_compare() -> None:
    flags.DEFINE_list("compare", [], "Further evaluated runs, on the same store and folds.")
    flags.DEFINE_string(
        "against",
        None,
        "An evaluated run of another model on the same store, cells, assays, folds and target: "
        "from which assays does --run gain more over it?",
    )
    flags.DEFINE_string("sweep", None, "A folder of experiments.sweep, to show its curves.")


def run() -> None:
    start(main, define_run, define_compare)


if __name__ == "__main__":
    run()
