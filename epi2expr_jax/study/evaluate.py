"""The evaluation of a run: predict held-out genes, score, rank, and write the tables."""

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv, write_parquet
from epi2expr_jax.predict.baselines import mean_of_seeds, predict_baselines
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import score_against_quality, track_quality
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.store.window_store import WindowStore


def evaluate(
    run_dir: str | os.PathLike,
    store_path: str | os.PathLike | None = None,
    baselines: Sequence[str] = (),
    groups: str | None = None,
    show: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """Write predictions, scores and the ranking of a finished run into its directory.

    Args:
        store_path: where the store lies now; by default where training read it.
        baselines: simple models to compare with (see `epi2expr_jax.predict.baselines`; they need
            scikit-learn).
        groups: column of the gene table to rank within; by default expressed and silent genes.
        show: goes through the fits of the baselines, showing how far it is.

    Returns:
        The ranking, as in ranking.csv (see `scores.ranking.rank_assays`).

    Raises:
        InputError: if training has not finished, or the store is not the one trained on.
    """
    run_dir = pathlib.Path(run_dir)
    ensemble = load(run_dir, store_path)
    if not any(ensemble.folds[run.fold].test for run in ensemble.runs):
        raise InputError(
            str(run_dir),
            "models without a single test chromosome (imported weights have none)",
            "genes that no model saw in training or validation",
            "predict with load(RUN).predict(store, include_seen=True); that is not a test",
        )
    store = ensemble.open_store(store_path)
    predictions = predict_held_out(ensemble, store)
    write_parquet(run_dir / "predictions.parquet", predictions)
    scores = scoring.score_table(predictions)
    write_parquet(run_dir / "metrics.parquet", scores)
    made = predict_baselines(ensemble, store, baselines, show) if baselines else pd.DataFrame()
    _compare(ensemble.card["model"], predictions, scores, made, run_dir)
    _write_details(store, predictions, scores, groups, run_dir)
    ranked = ranking.rank_assays(scores)
    write_csv(run_dir / "ranking.csv", ranked)
    return ranked


def _compare(
    own: str,
    predictions: pd.DataFrame,
    scores: pd.DataFrame,
    made: pd.DataFrame,
    run_dir: pathlib.Path,
) -> None:
    """Write baselines.parquet and .csv: the model, the mean of its seeds, the baselines."""
    tables = {own: scores}
    if scores["seed"].nunique() > 1:
        name = f"{own}, mean of {scores['seed'].nunique()} seeds"
        tables[name] = scoring.score_table(mean_of_seeds(predictions))
    if len(made):
        write_parquet(run_dir / "baselines.parquet", made)
        for name, part in made.groupby("model", sort=False):
            tables[str(name)] = scoring.score_table(part)
    if len(tables) > 1:
        write_csv(run_dir / "baselines.csv", compare_models(tables))


def _write_details(
    store: WindowStore,
    predictions: pd.DataFrame,
    scores: pd.DataFrame,
    groups: str | None,
    run_dir: pathlib.Path,
) -> None:
    """Write what else can be said: by group of genes, calls, of a new cell, against quality."""
    of_genes = scoring.gene_groups(predictions, store.genes, groups)
    by_group = scoring.score_groups(predictions, of_genes)
    parts = [
        ranking.rank_assays(part.drop(columns="group")).assign(group=name)
        for name, part in by_group.groupby("group")
    ]
    write_csv(run_dir / "groups.csv", pd.concat(parts, ignore_index=True))
    write_csv(run_dir / "calls.csv", ranking.calls(scores))
    new_cell = run_dir / "ranking_new_cell.csv"
    if ranking.cells_in_common(scores) >= ranking.MIN_CELLS:
        ranked = ranking.rank_assays(scores, target="a new cell")
        write_csv(new_cell, ranked[ranked["cell"] == scoring.ALL])
    else:
        new_cell.unlink(missing_ok=True)
    used = set(zip(scores["cell"], scores["assays"], strict=True))
    tracks = [(cell, assay) for cell, assay in store.manifest.tracks if (cell, assay) in used]
    quality = score_against_quality(scores, track_quality(store, tracks))
    write_csv(run_dir / "quality.csv", quality)
