"""Predictions of held-out genes and what was observed: one row a run and gene."""

import collections
from collections.abc import Iterable, Sequence

import pandas as pd

from epi2expr_jax.inputs.pools import cells_of
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import Run


def predict_held_out(
    ensemble: Ensemble, store: WindowStore, present: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row a run and test gene: what was observed and predicted, with `score_table`'s columns.

    A model of one cell is tested in that cell; a model of a pool of cells in all cells outside of
    the pool, or, where there are none, in those of the pool.

    Args:
        present: of masked-mark models, the assays to predict from; all by default.
    """
    known = store.manifest.cells
    tables = []
    if any(run.cell in known for run in ensemble.runs):
        tables += held_out_in(ensemble.select(lambda run: run.cell in known), store, None, present)
    tested = tested_cells((run.cell for run in ensemble.runs), known)
    pools = {name: cells for name, cells in tested.items() if name not in known}
    for cell in known:
        own = ensemble.select(lambda run, cell=cell: cell in pools.get(run.cell, ()))
        own = own.select(lambda run, cell=cell: has_tracks(store, cell, run))
        if own.members:
            tables += held_out_in(own, store, cell, present)
    predictions = pd.concat(tables, ignore_index=True)
    for pool, cells in pools.items():
        of = predictions["trained_on"] == pool
        predictions.loc[of, "cell"] = predictions.loc[of, "cell"].map(cells)
    return predictions


def tested_cells(trained_on: Iterable[str], known: Sequence[str]) -> dict[str, dict[str, str]]:
    """By the cell, or pool of cells, that models are trained on: the cells they are tested in, each
    with its name in tables.

    Args:
        known: the cells of the store.
    """
    tested = {}
    for name in dict.fromkeys(trained_on):
        cells = cells_of(name, known)
        others = [cell for cell in known if cell not in cells]
        tested[name] = list(cells) if name in known else others or list(cells)
    times = collections.Counter(cell for cells in tested.values() for cell in cells)
    several = max(times.values(), default=0) > 1  # tell the models of several pools apart
    return {
        name: {
            cell: f"{cell} by {name}" if several and name not in known else cell for cell in cells
        }
        for name, cells in tested.items()
    }


def new_cells(trained_on: Iterable[str], known: Sequence[str]) -> set[str]:
    """The cells, by their names in tables, whose models were trained on other cells alone."""
    tested = tested_cells(trained_on, known)
    return {
        label
        for name, cells in tested.items()
        for cell, label in cells.items()
        if cell not in cells_of(name, known)
    }


def has_tracks(store: WindowStore, cell: str, run: Run) -> bool:
    """Whether a cell has all the tracks that a run reads."""
    return all((cell, assay) in set(map(tuple, store.manifest.tracks)) for assay in run.assays)


def held_out_in(
    ensemble: Ensemble, store: WindowStore, cell: str | None, present: Sequence[str] | None = None
) -> list[pd.DataFrame]:
    """Rows of each run, in the given cell or in its own; of masked-mark models from `present`."""
    tested = {chrom for run in ensemble.runs for chrom in ensemble.folds[run.fold].test}
    genes = store.genes[store.genes.chrom.isin(tested)]
    ids = genes.gene_id.tolist()
    raw = ensemble.predict(store, ids, scale="raw", cell=cell, present=present).to_numpy()
    scales = [scale for member in ensemble.members for scale in member.scales]
    cells = store.manifest.cells
    expression, labels = store.read_expression(cells), store.read_labels(cells)
    chrom = genes.chrom.to_numpy()
    tables = []
    for run, scale, predicted in zip(ensemble.runs, scales, raw, strict=True):
        held_out = ensemble.folds[run.fold].masks(genes)["test"]
        rows = genes.index.to_numpy()[held_out]
        where = cells.index(cell or run.cell)
        label = None if labels is None else labels[where, rows]
        observed = scale.observed(expression[where, rows], label)
        tables.append(
            pd.DataFrame(
                {
                    "run_id": run.run_id,
                    "trained_on": run.cell,
                    "cell": cell or run.cell,
                    "assays": run.label,
                    "fold": run.fold,
                    "seed": run.seed,
                    "gene_id": genes.gene_id.to_numpy()[held_out],
                    "chrom": chrom[held_out],
                    "observed": scale.raw_to_log2(observed),
                    "predicted": scale.raw_to_log2(predicted[held_out]),
                    "observed_raw": observed,
                    "predicted_raw": predicted[held_out],
                }
            )
        )
    return tables
