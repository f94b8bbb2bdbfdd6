"""What a run predicts of genes, as a table."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore


def predict(
    run_dir: str | os.PathLike,
    genes: str | Sequence[str] | None = None,
    *,
    store: str | os.PathLike | None = None,
    **how: Any,
) -> pd.DataFrame:
    """Predicted expression of genes by every model that never saw them.

    Args:
        genes: ids or symbols; by default every gene that some model never saw.
        store: the store to predict from; by default the one the run was trained on.
        how: `include_seen`, `scale`, `cell` and `present`, as in `Ensemble.predict`.

    Returns:
        One row a run and gene, with columns run, gene, cell (trained on), assays, fold, seed and
        expression, by default in log2(RPKM + 1).

    Raises:
        InputError: if training has not finished, or as `Ensemble.predict`.
    """
    ensemble = load(run_dir)
    opened = WindowStore.open(store) if store else ensemble.open_store()
    if genes is None and not how.get("include_seen"):
        tested = {chrom for run in ensemble.runs for chrom in ensemble.folds[run.fold].test}
        genes = opened.genes.gene_id[opened.genes.chrom.isin(tested)].tolist() or None
    predicted = ensemble.predict(opened, genes, **how)
    return predicted.to_dataframe().dropna(subset="expression").reset_index()
