"""The evaluation of a run: predict held-out genes, score, rank, and write the tables."""

import functools
import pathlib
from collections.abc import Sequence

import pandas as pd
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.predict.baselines import mean_of_seeds, predict_baselines
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import score_against_quality, track_quality
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.store.window_store import WindowStore


def evaluate(
    run_dir: pathlib.Path,
    store_path: str | None = None,
    baselines: Sequence[str] = (),
    groups: str | None = None,
) -> pd.DataFrame:
    """Write predictions, metrics and ranking of a finished run; returns the ranking.

    Args:
        store_path: where the store lies now; by default where training read it.
        baselines: simple models to hold the run's against (see `epi2expr_jax.predict.baselines`).
        groups: column of the gene table to rank within; by default expressed and silent genes.

    Raises:
        InputError: if training has not finished, or the store is not the one trained on.
    """
    ensemble = load(run_dir, store_path)
    if not any(ensemble.folds[run.fold].test for run in ensemble.runs):
        raise InputError(
            str(run_dir),
            "models without a single test chromosome (imported weights have none)",
            "genes that no model saw in training or validation",
            "predict with load(RUN).predict(store, include_seen=True); it is no test",
        )
    store = ensemble.open_store(store_path)
    predictions = predict_held_out(ensemble, store)
    predictions.to_parquet(run_dir / "predictions.parquet", index=False)
    scores = scoring.score_table(predictions)
    scores.to_parquet(run_dir / "metrics.parquet", index=False)
    _compare(ensemble, store, predictions, scores, baselines, run_dir)
    _write_details(store, predictions, scores, groups, run_dir)
    ranked = ranking.rank_assays(scores)
    _write_csv(run_dir / "ranking.csv", ranked)
    return ranked


def _compare(
    ensemble: Ensemble,
    store: WindowStore,
    predictions: pd.DataFrame,
    scores: pd.DataFrame,
    baselines: Sequence[str],
    run_dir: pathlib.Path,
) -> None:
    """Write baselines.parquet and .csv: the run's model, the mean of its seeds, and baselines."""
    own = ensemble.card["model"]
    tables = {own: scores}
    if scores["seed"].nunique() > 1:
        name = f"{own}, mean of {scores['seed'].nunique()} seeds"
        tables[name] = scoring.score_table(mean_of_seeds(predictions))
    if baselines:
        reading = functools.partial(tqdm, desc="baselines", unit="set", disable=None)
        made = predict_baselines(ensemble, store, baselines, reading)
        if len(made):
            made.to_parquet(run_dir / "baselines.parquet", index=False)
        for name, part in made.groupby("model", sort=False):
            tables[str(name)] = scoring.score_table(part)
    if len(tables) > 1:
        _write_csv(run_dir / "baselines.csv", compare_models(tables))


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
    _write_csv(run_dir / "groups.csv", pd.concat(parts, ignore_index=True))
    _write_csv(run_dir / "calls.csv", ranking.calls(scores))
    new_cell = run_dir / "ranking_new_cell.csv"
    if ranking.cells_in_common(scores) >= ranking.MIN_CELLS:
        ranked = ranking.rank_assays(scores, target="a new cell")
        _write_csv(new_cell, ranked[ranked["cell"] == scoring.ALL])
    else:
        new_cell.unlink(missing_ok=True)
    used = set(zip(scores["cell"], scores["assays"], strict=True))
    tracks = [(cell, assay) for cell, assay in store.manifest.tracks if (cell, assay) in used]
    quality = score_against_quality(scores, track_quality(store, tracks))
    _write_csv(run_dir / "quality.csv", quality)


def _write_csv(path: pathlib.Path, table: pd.DataFrame) -> None:
    partial = path.with_name(path.name + ".partial")
    table.to_csv(partial, index=False, float_format="%.6g")
    partial.replace(path)
