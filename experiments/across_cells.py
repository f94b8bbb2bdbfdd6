"""Test trained models in cells they were not trained on: a cell x cell table for every assay.

    python -m experiments.train --store=roadmap.zarr --run=runs/cnn
    python -m experiments.across_cells --run=runs/cnn

    python -m experiments.train --store=roadmap.zarr --run=runs/new_cell --cells=leave_one_out
    python -m experiments.across_cells --run=runs/new_cell

Writes DIR/across_cells.csv. Each model predicts the genes of its fold's test chromosomes, which it
saw in no cell, from the signal of every cell that has its assays. Each score is compared with that
of the gene's mean expression in the other cells, which needs no epigenome and is hard to beat. The
score of deviations from the mean over cells shows what is specific to a cell. Differences in mean
signal or noise between tracks shift predictions: --normalise=depth in training evens out the mean.

    python -m experiments.across_cells --run=runs/cnn --between=E003,E116

asks what differs between two cells, or conditions, and writes DIR/between_cells.csv as well: the
difference of a model's predictions in the two against that of expression, compared with no change
and with what the difference of promoter means tells (least squares on the training genes).
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv
from epi2expr_jax.names import known_names
from epi2expr_jax.predict.baselines import difference_of_promoters
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import has_tracks, held_out_in
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import print_next, require, start
from epi2expr_jax.scores.across_cells import score_across_cells, score_changes
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from epi2expr_jax.training.targets import LABEL
from epi2expr_jax.words import sentences
from experiments.cli.flags import define_run, define_store

FLAGS = flags.FLAGS


def across_cells(
    run_dir: pathlib.Path, store_path: str | None = None, between: Sequence[str] = ()
) -> dict[tables.Table, pd.DataFrame]:
    """Write across_cells.csv of a finished run, and between_cells.csv of two cells; returns them.

    Args:
        between: two cells whose difference is predicted, or none.

    Raises:
        InputError: if training has not finished, the store is another one, or has a single cell; if
            the two cells are not two of the store, or models are of labels.
    """
    ensemble = load(run_dir, store_path)
    store = ensemble.open_store(store_path)
    if between:
        known_names(between, store.manifest.cells, str(store.path), "cell")
        if len(set(between)) != 2 or ensemble.card["target"] == LABEL:
            found = "labels" if len(set(between)) == 2 else ", ".join(between)
            expected, remedy = "expression in two cells", "name two, of models of expression"
            raise InputError("--between", found, expected, remedy)
    with results.written(run_dir, "across_cells", between=list(between)) as place:
        found = score_everywhere(ensemble, store, between)
        for table, content in found.items():
            write_csv(place / table.path, content)
    return found


def score_everywhere(
    ensemble: Ensemble, store: WindowStore, between: Sequence[str] = ()
) -> dict[tables.Table, pd.DataFrame]:
    """The score of every model in every cell that has its assays, and of differences between two.

    Raises:
        InputError: as `scores.across_cells.score_across_cells`, `score_changes`.
    """
    parts = []
    for cell in tqdm(store.manifest.cells, desc="predicting", unit="cell", disable=None):
        own = ensemble.select(lambda run, cell=cell: has_tracks(store, cell, run))
        if own.members:
            parts += held_out_in(own, store, cell)
    predictions = pd.concat(parts, ignore_index=True)
    scores = score_across_cells(predictions)
    before = {run["cell"]: run.get("started", {}).get("cells", ()) for run in ensemble.trained}
    pairs = zip(scores["trained_on"], scores["cell"], strict=True)
    scores["seen"] |= np.array([cell in before[name] for name, cell in pairs], bool)
    found = {tables.ACROSS: scores}
    if between:
        promoters = difference_of_promoters(ensemble, store, between)
        found[tables.CHANGES] = score_changes(predictions, promoters, between)
    return found


def format_summary(table: pd.DataFrame) -> str:
    """For each assay set: in the cell trained on, in other cells, and by the baseline."""
    lines = [f"{'assay':<24} {'own cell':>9} {'other':>7} {'baseline':>9} {'deviation':>10}"]
    order = table[~table.seen].groupby("assays").pearson.mean().sort_values(ascending=False)
    for assay in order.index:
        part = table[table.assays == assay]
        seen, unseen = part[part.seen], part[~part.seen]
        own = f"{seen.pearson.mean():.3f}" if len(seen) else "none"  # pools are tested elsewhere
        lines.append(
            f"{assay:<24} {own:>9} {unseen.pearson.mean():>7.3f} "
            f"{unseen.baseline.mean():>9.3f} {unseen.deviation.mean():>10.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    require("run")
    found = across_cells(pathlib.Path(FLAGS.run), FLAGS.store, FLAGS.between)
    table = found[tables.ACROSS]
    print(format_summary(table))
    unseen = table[~table.seen]
    beaten = int((unseen.lead_low > 0).sum())
    print(
        f"in other cells, models beat the mean of the other cells in {beaten} of {len(unseen)} "
        "tests (each interval by itself above 0)"
    )
    if tables.CHANGES in found:
        print(sentences.changes(found[tables.CHANGES]))
    print_next(f"{FLAGS.run}/across_cells.csv", f"python -m experiments.report --run={FLAGS.run}")


def define_between() -> None:
    flags.DEFINE_list("between", [], "Two cells, or conditions: predict how expression differs.")


def run() -> None:
    start(main, define_run, define_store, define_between)


if __name__ == "__main__":
    run()
