"""The evaluation of a run: predict held-out genes, score, rank, and write the tables."""

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv, write_parquet
from epi2expr_jax.names import as_names
from epi2expr_jax.predict.baselines import mean_of_seeds, predict_baselines
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.agreement import score_against_quality, track_quality
from epi2expr_jax.scores.comparison import calls, compare_models
from epi2expr_jax.scores.intervals import require_usable
from epi2expr_jax.scores.universal import MARGIN, require_claim
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables


def evaluate(
    run_dir: str | os.PathLike,
    store_path: str | os.PathLike | None = None,
    baselines: str | Sequence[str] = (),
    groups: str | None = None,
    margin: float = MARGIN,
    claim: str | None = None,
    show: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """Write predictions, scores and the ranking of a finished run into its directory, as one.

    Args:
        store_path: where the store lies now; by default where training read it.
        baselines: simple models to compare with (see `epi2expr_jax.predict.baselines`; they need
            scikit-learn).
        groups: column of the gene table to rank within; by default expressed and silent genes.
        margin, claim: of the statement on a universal mark (see `scores.universal.verdict`); they
            are kept for the report.
        show: goes through the fits of the baselines, showing how far it is.

    Returns:
        The ranking, as in ranking.csv (see `scores.ranking.rank_assays`).

    Raises:
        InputError: if training has not finished, the store is not the one trained on, another
            process is evaluating the run, or there are too few genes for a single score.
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
    require_claim(margin, claim, dict.fromkeys(run.label for run in ensemble.runs))
    store = ensemble.open_store(store_path)
    asked = {"baselines": as_names(baselines), "groups": groups, "margin": margin, "claim": claim}
    asked["runs"] = len(ensemble.runs)
    with results.written(run_dir, "evaluate", **asked) as place:
        predictions = predict_held_out(ensemble, store)
        require_usable(scoring.score_table(predictions))  # before minutes of baselines
        made = predict_baselines(ensemble, store, baselines, show) if baselines else pd.DataFrame()
        found = score(ensemble.card["model"], predictions, made, store.genes, groups)
        found[tables.QUALITY] = quality(store, found[tables.SCORES])
        found[tables.PREDICTIONS] = predictions
        if len(made):
            found[tables.OF_BASELINES] = made
        for table, content in found.items():
            write = write_csv if table.path.endswith(".csv") else write_parquet
            write(place / table.path, content)
    return found[tables.RANKING]


def score(
    model: str,
    predictions: pd.DataFrame,
    made: pd.DataFrame,
    genes: pd.DataFrame,
    groups: str | None = None,
) -> dict[tables.Table, pd.DataFrame]:
    """Every table that follows from predictions, which `experiments.verify` makes again.

    Args:
        model: its name.
        made: predictions of baselines; may be empty.
        genes, groups: the gene table, and its column to rank within.
    """
    scores = scoring.score_table(predictions)
    found = {tables.SCORES: scores, tables.RANKING: ranking.rank_assays(scores)}
    found[tables.CALLS] = calls(scores)
    by_group = scoring.score_groups(predictions, scoring.gene_groups(predictions, genes, groups))
    parts = [
        ranking.rank_assays(part.drop(columns="group")).assign(group=name)
        for name, part in by_group.groupby("group")
    ]
    found[tables.GROUPS] = pd.concat(parts, ignore_index=True)
    if ranking.cells_in_common(scores) >= ranking.MIN_CELLS:
        ranked = ranking.rank_assays(scores, target="a new cell")
        found[tables.NEW_CELL] = ranked[ranked["cell"] == scoring.ALL]
    # The model, the mean of its seeds, the baselines.
    models = {model: scores}
    if scores["seed"].nunique() > 1:
        name = f"{model}, mean of {scores['seed'].nunique()} seeds"
        models[name] = scoring.score_table(mean_of_seeds(predictions))
    if len(made):
        for name, part in made.groupby("model", sort=False):
            models[str(name)] = scoring.score_table(part)
    if len(models) > 1:
        found[tables.BASELINES] = compare_models(models)
    return found


def quality(store: WindowStore, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of single assays, with depth and signal-to-noise of their tracks."""
    used = set(zip(scores["cell"], scores["assays"], strict=True))
    tracks = [(cell, assay) for cell, assay in store.manifest.tracks if (cell, assay) in used]
    return score_against_quality(scores, track_quality(store, tracks))
