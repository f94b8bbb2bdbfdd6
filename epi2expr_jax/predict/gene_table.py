"""What a run predicts of genes, as a table: a row a model and gene, or a row a gene."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from epi2expr_jax.predict.ensemble import SEEN, Ensemble
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
    ids = _chosen(ensemble, opened, genes, how).gene_id.tolist()
    predicted = ensemble.predict(opened, ids or None, **how)
    return predicted.to_dataframe().dropna(subset="expression").reset_index()


def predict_genes(
    ensemble: Ensemble, store: WindowStore, genes: str | Sequence[str] | None = None, **how: Any
) -> pd.DataFrame:
    """As `predict`, of a loaded run and an open store; a row a gene and kind of model.

    Returns:
        In the order of the genes: gene_id, symbol, chrom, tss (0-based); novelty, one of
        `ensemble.NOVELTY`; cell, whose signal was read; trained_on and assays, of the models; mean
        and spread (standard deviation of two or more) over the models that predict the gene, and
        how many they are; and for each model a column FOLD/SEED, NaN where it does not predict.

    Raises:
        InputError: as `Ensemble.predict`.
    """
    chosen = _chosen(ensemble, store, genes, how)
    predicted = ensemble.predict(store, chosen.gene_id.tolist() or None, **how).to_numpy()
    rows = chosen.index.to_numpy()
    novelty = ensemble.novelty(store, rows)
    if how.get("include_seen"):  # then a gene counts as seen where any of the models saw it
        novelty[~ensemble.wanted(store, rows, False).all(axis=0)] = SEEN
    table = chosen.reset_index(drop=True)[["gene_id", "name", "chrom", "tss"]]
    table = table.rename(columns={"name": "symbol"}).assign(novelty=novelty)
    kinds: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(ensemble.runs):
        kinds.setdefault((run.cell, run.label), []).append(index)
    parts = []
    for (cell, assays), own in kinds.items():
        named = {f"{ensemble.runs[i].fold}/{ensemble.runs[i].seed}": predicted[i] for i in own}
        values = pd.DataFrame(named)
        part = table.assign(
            cell=how.get("cell") or cell,
            trained_on=cell,
            assays=assays,
            mean=values.mean(axis=1),
            spread=values.std(axis=1),
            models=values.notna().sum(axis=1),
        )
        parts.append(part.join(values)[values.notna().any(axis=1)])
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _chosen(
    ensemble: Ensemble, store: WindowStore, genes: str | Sequence[str] | None, how: dict[str, Any]
) -> pd.DataFrame:
    """Rows of the gene table, each once; by default of what some model may predict."""
    rows, _ = ensemble.chosen(store, genes, bool(how.get("include_seen")))
    return store.genes.iloc[rows]
