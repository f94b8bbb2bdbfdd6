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
"""

import pathlib

import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.files import write_csv
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import has_tracks, held_out_in
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.scores.across_cells import score_across_cells
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from experiments.cli.flags import define_run, define_store

FLAGS = flags.FLAGS


def across_cells(run_dir: pathlib.Path, store_path: str | None = None) -> pd.DataFrame:
    """Write across_cells.csv of a finished run; returns it.

    Raises:
        InputError: if training has not finished, the store is another one, or has a single cell.
    """
    ensemble = load(run_dir, store_path)
    store = ensemble.open_store(store_path)
    with results.written(run_dir, "across_cells") as place:
        table = score_everywhere(ensemble, store)
        write_csv(place / tables.ACROSS.path, table)
    return table


def score_everywhere(ensemble: Ensemble, store: WindowStore) -> pd.DataFrame:
    """The score of every model in every cell that has its assays.

    Raises:
        InputError: as `scores.across_cells.score_across_cells`.
    """
    parts = []
    for cell in tqdm(store.manifest.cells, desc="predicting", unit="cell", disable=None):
        own = ensemble.select(lambda run, cell=cell: has_tracks(store, cell, run))
        if own.members:
            parts += held_out_in(own, store, cell)
    return score_across_cells(pd.concat(parts, ignore_index=True))


def format_summary(table: pd.DataFrame) -> str:
    """For each assay set: in the cell trained on, in other cells, and by the baseline."""
    lines = [f"{'assay':<24} {'own cell':>9} {'other':>7} {'baseline':>9} {'deviation':>10}"]
    order = table[~table.seen].groupby("assays").pearson.mean().sort_values(ascending=False)
    for assay in order.index:
        part = table[table.assays == assay]
        seen, unseen = part[part.seen], part[~part.seen]
        lines.append(
            f"{assay:<24} {seen.pearson.mean():>9.3f} {unseen.pearson.mean():>7.3f} "
            f"{unseen.baseline.mean():>9.3f} {unseen.deviation.mean():>10.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    require("run")
    table = across_cells(pathlib.Path(FLAGS.run), FLAGS.store)
    print(format_summary(table))
    unseen = table[~table.seen]
    beaten = int((unseen.lead_low > 0).sum())
    print(
        f"in other cells, models beat the mean of the other cells in {beaten} of {len(unseen)} "
        "tests (interval above 0)"
    )
    print(f"{FLAGS.run}/across_cells.csv; next: python -m experiments.report --run={FLAGS.run}")


def run() -> None:
    start(main, define_run, define_store)


if __name__ == "__main__":
    run()
