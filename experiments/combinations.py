"""Score every subset of assays with one masked-mark model, and give each assay its share.

    python -m experiments.train --store=roadmap.zarr --run=runs/masked --masked --assays=all
    python -m experiments.combinations --run=runs/masked
    python -m experiments.combinations --run=runs/masked --against=runs/pairs

Scores are Pearson r of log2(RPKM + 1) on held-out genes, within fold and chromosome. Writes into
the run directory:

  subsets.csv            every subset's score in every cell ("all" aggregates), with intervals
  shapley.csv            each assay's exact Shapley value: they sum to the score of all assays
  agreement_subsets.csv  --against: the same subsets scored by models trained on each alone
  agreement.csv          --against: how well the two scores correlate, by cell

The run of --against is an evaluated one of the same store and folds, trained for example with
--assays=each,pairs,all. Up to 12 assays (4,096 subsets) are scored.
"""

import pathlib

import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax import predict
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.program import require, start
from epi2expr_jax.scores import shapley
from epi2expr_jax.scores.subsets import subset_scores
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from epi2expr_jax.training.checkpoint import read_card
from epi2expr_jax.training.splits import read_splits
from epi2expr_jax.words.sentences import span
from experiments.cli.flags import define_run, define_store

FLAGS = flags.FLAGS

_SHOWN = 15  # subsets on the terminal


def combine(
    run_dir: pathlib.Path, store_path: str | None = None, against: pathlib.Path | None = None
) -> dict[str, pd.DataFrame]:
    """Score all subsets of a finished masked-mark run and write the tables; returns them by name.

    Args:
        store_path: where the store lies now; by default where training read it.
        against: the run directory of models trained on subsets alone.

    Raises:
        InputError: if these are not masked-mark models of one set of at most 12 assays, or the
            other run is not comparable.
    """
    trained = None if against is None else _trained(run_dir, against)
    ensemble = predict.load(run_dir, store_path)
    store = ensemble.open_store(store_path)
    with results.written(run_dir, "combinations", against=against and str(against)) as place:
        found = score_subsets(ensemble, store, trained)
        for table, content in found.items():
            write_csv(place / table.path, content)
    return {pathlib.Path(table.path).stem: content for table, content in found.items()}


def score_subsets(
    ensemble: Ensemble, store: WindowStore, trained: pd.DataFrame | None = None
) -> dict[tables.Table, pd.DataFrame]:
    """Every table of `combine`.

    Args:
        trained: scores of models trained on subsets alone, to compare with.
    """
    total = sum(2 ** len(run.assays) - 1 for run in ensemble.runs)
    with tqdm(total=total, desc="subsets", unit="subset", disable=None) as bar:
        scores = subset_scores(ensemble, store, bar.update)
    found = {tables.SUBSETS: shapley.subset_table(scores)}
    found[tables.SHAPLEY] = shapley.attribute(scores)
    if trained is not None:
        pairs = shapley.compare_with_trained(scores, trained)
        if pairs.empty:
            raise InputError(
                "--against",
                "no subset, cell and chromosome that both runs scored",
                f"models of some of {', '.join(scores.attrs['assays'])}",
                "train them with --assays=each,pairs,all",
            )
        found[tables.AGREEMENT_SUBSETS] = pairs
        found[tables.AGREEMENT] = shapley.rank_correlation(pairs)
    return found


def _trained(run_dir: pathlib.Path, against: pathlib.Path) -> pd.DataFrame:
    """Scores of the other run.

    Raises:
        InputError: if it has not been evaluated, or has another store or other folds.
    """
    if not (against / tables.SCORES.path).exists():
        raise InputError(
            str(against / tables.SCORES.path),
            "no such file",
            "an evaluated run",
            tables.SCORES.remedy(against),
        )
    differ = []
    if read_card(run_dir)["store_checksum"] != read_card(against)["store_checksum"]:
        differ.append("another store")
    own, other = (
        {fold.name: fold for fold in read_splits(path / "splits.json")}
        for path in (run_dir, against)
    )
    if any(own[name] != other[name] for name in own.keys() & other.keys()):
        differ.append("other folds")
    if differ:
        raise InputError(
            f"--against={against}",
            f"a run of {' and '.join(differ)}",
            "the same store and folds",
            "train both with the same --store, --cv, --blind and --split_seed",
        )
    return tables.SCORES.read(against)


def describe(found: dict[str, pd.DataFrame]) -> str:
    """The tables over all cells, for the terminal."""
    shares, subsets = (found[name][found[name].cell == ALL] for name in ("shapley", "subsets"))
    lines = [f"{'assay':<24} value   95 % interval     simultaneous"]
    for row in shares.itertuples():
        lines.append(
            f"{row.assay:<24} {row.value:>6.3f}  {span(row.low, row.high)}  "
            f"{span(row.simultaneous_low, row.simultaneous_high)}"
        )
    lines.append(f"{'sum, the score of all':<24} {shares.value.sum():>6.3f}")
    lines.append(f"\nbest of {len(subsets)} subsets")
    for row in subsets.head(_SHOWN).itertuples():
        lines.append(f"{row.pearson:>6.3f}  {span(row.low, row.high)}  {row.subset}")
    for row in found.get("agreement", pd.DataFrame()).itertuples():
        lines.append(
            f"{row.cell}: rank correlation {row.spearman:.3f} with models trained on each of "
            f"{row.subsets} subsets alone; masked less trained {row.difference:+.3f} on average, "
            f"{row.largest:.3f} at most"
        )
    return "\n".join(lines)


def main() -> None:
    require("run")
    run_dir = pathlib.Path(FLAGS.run)
    found = combine(run_dir, FLAGS.store, pathlib.Path(FLAGS.against) if FLAGS.against else None)
    print(describe(found))
    print(f"{run_dir}/subsets.csv, {run_dir}/shapley.csv")


def define_flags() -> None:
    flags.DEFINE_string("against", None, "Run directory of models trained on subsets alone.")


def run() -> None:
    start(main, define_run, define_store, define_flags)


if __name__ == "__main__":
    run()
