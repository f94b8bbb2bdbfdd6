"""Score trained models on the genes they never saw, and rank the assays.

    python -m experiments.evaluate --run=runs/cnn
    python -m experiments.evaluate --run=runs/cnn --baselines=linear,ridge,boosting

Writes into the run directory: predictions.parquet (held-out genes only), metrics.parquet (one row
a run and chromosome), ranking.csv (cell, assay, pearson, low, high, spearman, …; cell "all"
aggregates); baselines.csv (the run's model beside simple ones on the same folds), groups.csv (the
ranking among expressed and silent genes, or by --groups), calls.csv (who beats whom, corrected by
Benjamini-Hochberg), quality.csv (scores beside depth and signal-to-noise of the tracks) and, with
five cells or more, ranking_new_cell.csv. Scores are of log2(RPKM + 1), within fold and chromosome,
never pooled over models.
"""

import collections
import functools
import pathlib
from collections.abc import Sequence

import pandas as pd
from absl import flags
from tqdm import tqdm

from data_prep.program import start
from epi2expr_jax import ranking, scoring
from epi2expr_jax.agreement import (
    agreement,
    best_assays,
    score_against_quality,
    track_quality,
    verdict,
)
from epi2expr_jax.baselines import BASELINES, mean_of_seeds, predict_baselines
from epi2expr_jax.comparison import compare_models
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.pooling import cells_of
from epi2expr_jax.predict import Ensemble, load
from epi2expr_jax.runs import Run
from epi2expr_jax.store import WindowStore
from experiments.flags import define_run, define_store, require

FLAGS = flags.FLAGS


def evaluate(
    run_dir: pathlib.Path,
    store_path: str | None = None,
    baselines: Sequence[str] = (),
    groups: str | None = None,
) -> pd.DataFrame:
    """Write predictions, metrics and ranking of a finished run; returns the ranking.

    Args:
        store_path: where the store lies now; by default where training read it.
        baselines: simple models to hold the run's against (see `epi2expr_jax.baselines`).
        groups: column of the gene table to rank within; by default expressed and silent genes.

    Raises:
        InputError: if training has not finished, or the store is not the one trained on.
    """
    ensemble = load(run_dir)
    if not any(ensemble.folds[run.fold].test for run in ensemble.runs):
        raise InputError(
            Problem(
                str(run_dir),
                "models without a single test chromosome (imported weights have none)",
                "genes that no model saw in training or validation",
                "predict with load(RUN).predict(store, include_seen=True); it is no test",
            )
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


def predict_held_out(ensemble: Ensemble, store: WindowStore) -> pd.DataFrame:
    """One row a run and test gene: what was observed and what was predicted.

    A model of one cell is tested in that cell; a model of a pool of cells in all cells outside of
    the pool, or, where there are none, in those of the pool.
    """
    known = store.manifest.cells
    tables = []
    if any(run.cell in known for run in ensemble.runs):
        tables += held_out_in(ensemble.select(lambda run: run.cell in known), store, None)
    pools = {run.cell: cells_of(run.cell, known) for run in ensemble.runs if run.cell not in known}
    tested = {
        pool: [cell for cell in known if cell not in cells] or list(cells)
        for pool, cells in pools.items()
    }
    for cell in known:
        own = ensemble.select(lambda run, cell=cell: cell in tested.get(run.cell, ()))
        own = own.select(lambda run, cell=cell: has_tracks(store, cell, run))
        if own.members:
            tables += held_out_in(own, store, cell)
    tested |= {run.cell: [run.cell] for run in ensemble.runs if run.cell in known}
    times = collections.Counter(cell for cells in tested.values() for cell in cells)
    predictions = pd.concat(tables, ignore_index=True)
    if pools and max(times.values()) > 1:  # tell the models of several pools apart
        of = predictions.trained_on.isin(list(pools))
        by = predictions.cell + " by " + predictions.trained_on
        predictions["cell"] = predictions.cell.where(~of, by)
    return predictions


def has_tracks(store: WindowStore, cell: str, run: Run) -> bool:
    """Whether a cell has all the tracks that a run reads."""
    return all((cell, assay) in set(map(tuple, store.manifest.tracks)) for assay in run.assays)


def held_out_in(ensemble: Ensemble, store: WindowStore, cell: str | None) -> list[pd.DataFrame]:
    """Rows of each run, in the given cell or in its own."""
    tested = {chrom for run in ensemble.runs for chrom in ensemble.folds[run.fold].test}
    genes = store.genes[store.genes.chrom.isin(tested)]
    raw = ensemble.predict(store, genes.gene_id.tolist(), scale="raw", cell=cell).to_numpy()
    scales = [scale for member in ensemble.members for scale in member.scales]
    cells = store.manifest.cells
    expression, labels = store.read_expression(cells), store.read_labels(cells)
    chrom = genes.chrom.to_numpy()
    tables = []
    for run, scale, predicted in zip(ensemble.runs, scales, raw, strict=True):
        held_out = ensemble.folds[run.fold].masks(chrom)["test"]
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


def format_ranking(ranked: pd.DataFrame) -> str:
    """The ranking over all cells as a table for the terminal."""
    rows = ranked[ranked.cell == scoring.ALL]
    if rows.empty:
        rows = ranked
    lines = [f"{'rank':>4}  {'assay':<24} {'r':>6}  95 % interval     simultaneous      rho"]
    for row in rows.itertuples():
        lines.append(
            f"{row.rank:>4}  {row.assay:<24} {row.pearson:>6.3f}  "
            f"{row.low:>6.3f} to {row.high:<6.3f}  "
            f"{row.simultaneous_low:>6.3f} to {row.simultaneous_high:<6.3f}  {row.spearman:>6.3f}"
        )
    return "\n".join(lines)


def format_baselines(table: pd.DataFrame) -> str:
    """Whether something simpler predicts better, in words."""
    own = table["model"].iloc[0]
    first = table[table["assay"] == table["assay"].iloc[0]]
    scores = ", ".join(f"{row.model} {row.pearson:.3f}" for row in first.itertuples())
    lines = [f"r by model ({first['assay'].iloc[0]}): {scores}"]
    for row in table[(table["model"] != own) & (table["lead_low"] > 0)].itertuples():
        lines.append(
            f"{row.model} predicts better than {own} from {row.assay}: by {row.lead:.3f} "
            f"({row.lead_low:.3f} to {row.lead_high:.3f})"
        )
    return "\n".join(lines)


def define_evaluation() -> None:
    flags.DEFINE_string(
        "groups", None, "Column of the gene table to rank within; default: expressed, silent."
    )
    flags.DEFINE_list(
        "baselines",
        ["linear", "ridge"],
        f"Simple models on the same folds: {', '.join(BASELINES)} (boosting takes seconds a run); "
        "empty: none.",
    )


def main() -> None:
    require("run")
    run_dir = pathlib.Path(FLAGS.run)
    ranked = evaluate(run_dir, FLAGS.store, FLAGS.baselines, FLAGS.groups)
    scores = pd.read_parquet(run_dir / "metrics.parquet")
    print(format_ranking(ranked))
    print(verdict(best_assays(ranked), agreement(scores)))
    called = pd.read_csv(run_dir / "calls.csv")["called"]
    print(f"called at a false discovery rate of 5 %: {called.sum()} of {len(called)} comparisons")
    if (run_dir / "baselines.csv").exists():
        print(format_baselines(pd.read_csv(run_dir / "baselines.csv")))
    for note in ranking.caveats(scores):
        print(f"note: {note}")
    print(f"{run_dir}/ranking.csv; next: python -m experiments.report --run={run_dir}")


def run() -> None:
    start(main, define_run, define_store, define_evaluation)


if __name__ == "__main__":
    run()
