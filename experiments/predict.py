"""Predict expression by the models of a run that never saw the gene, as a table.

    python -m experiments.predict --run=runs/cnn
    python -m experiments.predict --run=runs/cnn --genes=TP53,ENSG00000012048 --out=two.csv
    python -m experiments.predict --run=runs/cnn --store=mine.zarr --cell=patient1

Writes --out, a CSV or Parquet file by its ending: a row a gene and kind of model (the cell it was
trained on and the assays it reads), with the gene's id and symbol, the mean over folds and seeds,
their spread (standard deviation) and every model's prediction, in log2(x + 1) of the unit of the
expression trained on (RPKM usually); of labels, the probability of being expressed.

The column novelty says why a model may predict the gene: its chromosome was held out; it was left
out of training (--test_genes or --gene_groups of experiments.train); or it is a new gene, in no
training store, whose chromosome no model was tested on: models may have trained on its neighbours,
so that the test is less strict; or the weights that training started from (--from) may have seen
it, which is no test. Where models differ, the least strict reason stands. Genes that every model
saw are refused, unless --include_seen asks for them.
"""

import pathlib

import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv, write_parquet
from epi2expr_jax.predict.gene_table import predict_genes
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.units import count
from experiments.cli.flags import define_run, define_store
from experiments.cli.genes import define_genes, genes_of

FLAGS = flags.FLAGS

_WRITERS = {".csv": write_csv, ".parquet": write_parquet}


def define_predict() -> None:
    """The flags of this program."""
    define_run()
    define_store()
    define_genes()
    flags.DEFINE_string(
        "cell", None, "Whose signal to predict from; default: of the cell a model was trained on."
    )
    flags.DEFINE_string("out", None, "File to write, .csv or .parquet; default: RUN/predicted.csv.")
    flags.DEFINE_boolean("include_seen", False, "Predict genes that models trained on, too.")


def predict(
    run_dir: pathlib.Path,
    out: pathlib.Path,
    *,
    store: str | None = None,
    genes: str = "",
    cell: str | None = None,
    include_seen: bool = False,
) -> pd.DataFrame:
    """Write the table; returns it.

    Args:
        store: to predict from; by default the one trained on.
        genes: as --genes names them.

    Raises:
        InputError: for another ending of `out`, or as `predict.gene_table.predict_genes`.
    """
    if out.suffix not in _WRITERS:
        found, expected = out.suffix or "no ending", " or ".join(_WRITERS)
        raise InputError(f"--out={out}", found, expected, "give another name")
    ensemble = load(run_dir)
    opened = WindowStore.open(store) if store else ensemble.open_store()
    chosen = genes_of(genes, ensemble, opened)
    table = predict_genes(ensemble, opened, chosen, cell=cell, include_seen=include_seen)
    _WRITERS[out.suffix](out, table)
    table.attrs["units"] = ensemble.units
    return table


def main() -> None:
    require("run")
    out = pathlib.Path(FLAGS.out or pathlib.Path(FLAGS.run) / "predicted.csv")
    table = predict(
        pathlib.Path(FLAGS.run),
        out,
        store=FLAGS.store,
        genes=FLAGS.genes,
        cell=FLAGS.cell,
        include_seen=FLAGS.include_seen,
    )
    counts = table.drop_duplicates("gene_id").novelty.value_counts()
    said = ", ".join(f"{count} {novelty}" for novelty, count in counts.items())
    print(f"{out}: {count(len(table), 'row')}; genes: {said}; predicted: {table.attrs['units']}")


def run() -> None:
    start(main, define_predict)


if __name__ == "__main__":
    run()
