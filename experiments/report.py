"""Write the report of an evaluated run: one self-contained page, DIR/report.html.

    python -m experiments.report --run=runs/cnn
    python -m experiments.report --run=runs/chromoformer --compare=runs/cnn,runs/promoter_only
    python -m experiments.report --run=runs/chromoformer --against=runs/cnn
    python -m experiments.report --run=runs/cnn --sweep=runs/sweep

Which assay predicts expression best and how sure that is, every cell and assay, learning curves,
predicted against observed expression, and how it was made; and what else was computed in the
run directory: baselines (experiments.evaluate), pairs and Shapley values
(experiments.combinations), tests in other cells (experiments.across_cells), marks altered in silico
(experiments.perturb), CRISPRi screens (experiments.crispri). The page loads nothing from
elsewhere: mail it, print it, archive it. Its figures (SVG, PNG) and tables (CSV) are also in
DIR/report for papers and slides.
"""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from absl import flags
from matplotlib.figure import Figure

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import write_csv, write_text
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.names import find_genes
from epi2expr_jax.predict.training_store import find_store
from epi2expr_jax.program import require, start
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores.comparison import compare_models, interactions
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, statements, tables
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.splits import read_splits
from epi2expr_jax.words import sentences
from epi2expr_jax.words.caveats import caveats
from experiments.cli.certificate import read_certificate
from experiments.cli.flags import define_run
from experiments.figures.gene_browser import MOST_ASSAYS, browser_data, chosen_genes
from experiments.figures.hover import hints_json
from experiments.figures.layout import narrow
from experiments.figures.page import headline, page_figures
from experiments.figures.style import STYLE, data_uri, save_figure
from experiments.figures.template import cells_of, page_of, unit_of_run

FLAGS = flags.FLAGS

# Further tables, shown if they are there.
STUDIES = {
    "baselines": tables.BASELINES,
    "groups": tables.GROUPS,
    "questions": tables.QUESTIONS,
    "calls": tables.CALLS,
    "added": tables.ADDED,
    "ranking_own": tables.OWN,
    "ranking_stack": tables.STACK,
    "copies": tables.COPIES,
    "ranking_without_copies": tables.WITHOUT,
    "baselines_without_copies": tables.BASELINES_WITHOUT,
    "quality": tables.QUALITY,
    "ranking_new_cell": tables.NEW_CELL,
    "subsets": tables.SUBSETS,
    "shapley": tables.SHAPLEY,
    "agreement": tables.AGREEMENT,
    "across_cells": tables.ACROSS,
    "between_cells": tables.CHANGES,
    "effects": tables.MEAN_EFFECTS,
    "null": tables.NULL,
    "between_models": tables.BETWEEN,
    "profile": tables.PROFILE,
    "crispri": tables.SCREEN,
    "crispri_leads": tables.SCREEN_LEADS,
}
WORST_GENES = 15
MOST_GENES = 60  # in the browser, of those predicted worst


def write_report(
    run_dir: pathlib.Path,
    compare: Sequence[pathlib.Path] = (),
    sweep: pathlib.Path | None = None,
    against: pathlib.Path | None = None,
    browser_genes: Sequence[str] = (),
) -> pathlib.Path:
    """Write report.html of an evaluated run, whole or not at all; returns its path.

    Args:
        compare: further evaluated runs on the same store and folds, to compare it with in a table.
        sweep: a folder of experiments.sweep, to show its curves.
        against: an evaluated run of another approach, on the same store, cells, assays, folds and
            target: from which assays does this run gain more?
        browser_genes: ids or symbols of held-out genes that the page's browser shows besides those
            with the largest errors and effects.

    Raises:
        InputError: naming every file that is missing, if runs cannot be compared, if nothing can
            be ranked, if files change meanwhile, or if the page cannot be written.
    """
    with results.written(run_dir, "report") as place, contextlib.ExitStack() as steady:
        # Within, so that nothing is published of tables that were replaced while they were read.
        others = [*compare, *([against] if against else [])]
        card, *_ = [steady.enter_context(tables.steady(each)) for each in (run_dir, *others)]
        _write(place, run_dir, card, compare, sweep, against, browser_genes)
    return run_dir / "report.html"


def _write(
    place: pathlib.Path,
    run_dir: pathlib.Path,
    card: dict[str, Any],
    compare: Sequence[pathlib.Path],
    sweep: pathlib.Path | None,
    against: pathlib.Path | None,
    browser_genes: Sequence[str],
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
            f"nothing to rank ({' '.join(caveats(scores))})",
            "assays scored on the same folds and chromosomes",
            "train on more genes, or rank fewer assays together",
        )
    content = {name: table.read(run_dir) for name, table in STUDIES.items()}
    content["models"] = _compared(run_dir, compare) if compare else pd.DataFrame()
    controls = _controls([*compare, *([against] if against else [])])
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
    store, lost = _store(run_dir, card)
    names = (
        {}
        if store is None
        else dict(zip(*(store.genes[c] for c in ("gene_id", "name")), strict=True))
    )
    content["worst_genes"] = worst_genes(run_dir, ranked, names)
    runs = _runs(card)
    cells = cells_of(card, runs, ranked)
    drawn = run_dir, unit_of_run(card), cells, runs, content
    with matplotlib.rc_context(STYLE):
        figures = page_figures(*drawn)
        _export(place / "report", figures, content)
        images = {
            name: {"wide": data_uri(figure), "hints": hints_json(figure)}
            for name, figure in figures.items()
        }
        for name, figure in _narrow_figures(*drawn).items():
            images[name] |= {"narrow": data_uri(figure), "hints_narrow": hints_json(figure)}
    asked = [*browser_genes, *content["worst_genes"]["gene_id"]]
    browser = {"lost": lost} | _browser(run_dir, store, headline(ranked), cells, asked)
    if browser["lost"]:
        warnings.warn(f"the page is without tracks of genes: {browser['lost']}", stacklevel=3)
        if certificate and not certificate.without_store:  # it spoke of a store that could be read
            changed = dict.fromkeys([*certificate.changed, "the store"])
            certificate = dataclasses.replace(certificate, changed=tuple(changed))
    # Runs from before their card says it are asked by their store.
    blacklist = card["store"].get("blacklist", store and store.manifest.blacklist)
    page = page_of(
        run_dir, card, content, runs, images, certificate, gained, controls, browser, blacklist
    )
    write_text(place / "report.html", page)


def _narrow_figures(*drawn: Any) -> dict[str, Figure]:
    with narrow():
        return page_figures(*drawn)


def _store(run_dir: pathlib.Path, card: dict[str, Any]) -> tuple[WindowStore | None, str]:
    """The store that the run was trained on, where it is still there; why it cannot be read."""
    try:
        path = find_store(run_dir, card)
    except InputError as error:
        return None, error.problems[0].found
    try:
        store = WindowStore.open(path)
    except InputError as error:
        return None, str(error)
    if store.checksum() != card["store_checksum"]:
        return None, f"{path}: another store than the one that the run was trained on"
    return InputConfig(**card["input_config"]).view(store), ""


def _browser(
    run_dir: pathlib.Path,
    store: WindowStore | None,
    rows: pd.DataFrame,
    cells: list[str],
    named: Sequence[str],
) -> dict[str, Any]:
    """What the page's gene browser shows; of a damaged store nothing, and `lost` says why.

    Raises:
        InputError: for genes that are named and unknown, or of which nothing is predicted.
    """
    columns = ["gene_id", "chrom", "cell", "assays", "observed", "predicted"]
    shown = list(rows["assay"][:MOST_ASSAYS])
    filters: list = [("assays", "in", shown)]
    table = tables.PREDICTIONS.read(run_dir, columns, filters=filters)
    known = table[["gene_id"]].drop_duplicates(ignore_index=True)
    if store is not None:
        known = known.merge(store.genes[["gene_id", "name"]], how="left")
    at = find_genes(known, named, f"{run_dir}: held-out genes")
    effects = tables.EFFECTS.read(run_dir)
    if "gene" not in effects:
        effects = pd.DataFrame()
    else:  # they may be of genes that no model of this run was tested on
        effects = effects[effects["gene"].isin(known["gene_id"])]
    first = table[table["assays"] == shown[0]]
    genes = chosen_genes(first, effects, MOST_GENES, list(known["gene_id"].iloc[at]))
    own = table[table["gene_id"].isin(genes)]
    try:
        return browser_data(genes, own, effects, store, cells, shown)
    except InputError as error:
        if store is None:
            raise
        bare = browser_data(genes, own, effects, None, cells, shown)
        return bare | {"lost": str(error)}


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
    control = [": a control" if sentences.control(card) else "" for card in cards]
    labels = [
        f"{card['model']} ({name}{what})"
        for card, name, what in zip(cards, names, control, strict=True)
    ]
    scores = [tables.SCORES.read(folder) for folder in folders]
    return compare_models(dict(zip(labels, scores, strict=True)))


def _controls(folders: Sequence[pathlib.Path]) -> list[str]:
    """What those of the runs that are controls are for."""
    named = {folder: sentences.control(checkpoint.read_card(folder)) for folder in folders}
    return [sentences.of_control(run.resolve().name, what) for run, what in named.items() if what]


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


def _swept(folder: pathlib.Path) -> pd.DataFrame:
    if tables.SWEEP.checked(folder) is None:
        path = str(folder / tables.SWEEP.path)
        raise InputError(path, "no such file", "a finished sweep", "run experiments.sweep")
    return tables.SWEEP.read(folder)


def _runs(card: dict[str, Any]) -> pd.DataFrame:
    runs = pd.DataFrame([run for population in card["populations"] for run in population["runs"]])
    runs["assay"] = ["+".join(assays) for assays in runs["assays"]]
    return runs


def worst_genes(run_dir: pathlib.Path, ranked: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The genes that the first assay of a ranking predicts worst, by their mean error.

    Returns:
        Columns gene_id, name, chrom, observed, predicted, error (its root mean square), cells.
    """
    first = ranked["assay"].iloc[0]
    filters = [("assays", "==", first), ("cell", "in", statements.answer_cells(ranked))]
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


def main() -> None:
    require("run")
    others = [pathlib.Path(other) for other in FLAGS.compare]
    sweep = pathlib.Path(FLAGS.sweep) if FLAGS.sweep else None
    against = pathlib.Path(FLAGS.against) if FLAGS.against else None
    genes = FLAGS.browser_genes
    path = write_report(pathlib.Path(FLAGS.run), others, sweep, against, genes)
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
    flags.DEFINE_list("browser_genes", [], "Held-out genes, by id or symbol, to browse as well.")


def run() -> None:
    start(main, define_run, define_compare)


if __name__ == "__main__":
    run()
