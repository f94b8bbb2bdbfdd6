"""Score trained models on the genes they never saw, and rank the assays.

    python -m experiments.evaluate --run=runs/cnn
    python -m experiments.evaluate --run=runs/cnn --baselines=ridge,boosting,whole_ridge

Writes into the run directory:

    predictions.parquet       of held-out genes only
    metrics.parquet           scores, a row a run and chromosome
    ranking.csv               the assays, in each cell and over all ("all"): r, intervals, rho, …
    baselines.csv             the model compared with simple ones on the same folds
    groups.csv                the ranking among expressed and silent genes and by class, or --groups
    questions.csv             by two questions: is a gene on, how strongly is it expressed then
    covariates.parquet        what is known of genes without an epigenome: length, --covariates
    added.csv                 what assays add to that
    calls.csv                 who beats whom, corrected by Benjamini-Hochberg
    quality.csv               scores, mean signal and signal-to-noise of the tracks
    ranking_stack.csv         by the stack, a weighted mean of the model and baselines
    ranking_own.csv           by deviations from the mean of the cells (two cells or more)
    ranking_new_cell.csv      for a cell that was not measured (five cells or more)
    copies.csv                genes that are like others, in signal or by --gene_groups
    ranking_without_copies.csv, baselines_without_copies.csv: where a test gene is like one
                              trained on

Scores are of log2(RPKM + 1), or the unit of the expression trained on, within fold and chromosome,
never pooled over models.
"""

import functools
import pathlib

import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.predict.baselines import BASELINES
from epi2expr_jax.predict.stack import explained
from epi2expr_jax.program import print_next, require, start
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.comparison import called
from epi2expr_jax.scores.universal import MARGIN
from epi2expr_jax.study import statements, tables
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.words.sentences import one_value, span
from experiments.cli.flags import define_run, define_store

FLAGS = flags.FLAGS


def format_ranking(ranked: pd.DataFrame) -> str:
    """The ranking over all cells as a table for the terminal."""
    rows = ranked[ranked.cell == scoring.ALL]
    if rows.empty:
        rows = ranked
    lines = [f"{'rank':>4}  {'assay':<24} {'r':>6}  95 % interval     simultaneous      rho"]
    for row in rows.itertuples():
        lines.append(
            f"{row.rank:>4}  {row.assay:<24} {row.pearson:>6.3f}  "
            f"{span(row.low, row.high)}  {span(row.simultaneous_low, row.simultaneous_high)}  "
            f"{row.spearman:>6.3f}"
        )
    return "\n".join(lines)


def format_baselines(table: pd.DataFrame, holes: bool = False) -> str:
    """Scores by model, of the first assay.

    Args:
        holes: whether the ranking leaves out cells that some of the assays were scored in.
    """
    first = table[table["assay"] == table["assay"].iloc[0]]
    scores = [
        f"{name} {'one value' if constant else f'{r:.3f}'}"
        for name, r, constant in zip(
            first["model"], first["pearson"], one_value(first), strict=True
        )
    ]
    of = ", each over all cells that have it" if holes and len(first) < len(table) else ""
    return (
        f"r by model ({called(first['assay'].iloc[0])}{of}): {', '.join(scores)}\n"
        "what these models are: experiments.evaluate --help, at --baselines, and the page"
    )


def define_evaluation() -> None:
    listed = "; ".join(f"{name}, {words}" for name, words in explained(BASELINES).items())
    flags.DEFINE_string(
        "groups",
        None,
        "Column of the gene table, or of --covariates, to rank within; default: expressed, silent, "
        "and every column of classes, such as biotype.",
    )
    flags.DEFINE_alias("by", "groups")
    flags.DEFINE_list(
        "baselines",
        [name for name in BASELINES if name != "boosting"],
        f"Simple models on the same folds: {listed} (boosting takes seconds a run); those that "
        "need a wider window than the store's are left out. Of labels they are logistic "
        "regressions and a boosted classifier. Empty: none.",
    )
    flags.DEFINE_string(
        "gene_groups", "", "CSV of columns gene and group: genes that a model may know from others."
    )
    flags.DEFINE_string(
        "covariates",
        "",
        "CSV of genes (column gene or gene_id: id or symbol) with what is known of them without an "
        "epigenome, such as CpG content or half-life. Gene length is taken from the store.",
    )
    flags.DEFINE_float(
        "margin", MARGIN, "Pearson r by which a universal mark may be worse than another."
    )
    flags.DEFINE_string(
        "claim", None, "A mark named before the scores were seen: is it universal? --claim=H3K4me3."
    )


def main() -> None:
    require("run")
    run_dir = pathlib.Path(FLAGS.run)
    show = functools.partial(tqdm, desc="baselines", unit="set", disable=None)
    ranked = evaluate(
        run_dir, FLAGS.store, FLAGS.baselines, FLAGS.groups, FLAGS.margin, FLAGS.claim, show,
        FLAGS.gene_groups, FLAGS.covariates,
    )  # fmt: skip
    print(format_ranking(ranked))
    compared = tables.BASELINES.read(run_dir)
    if len(compared):
        cells = {*ranked["cell"]} - {scoring.ALL}
        print(format_baselines(compared, len(statements.answer_cells(ranked)) < len(cells)))
    print(*statements.of_run(run_dir), sep="\n")
    print_next(f"{run_dir}/ranking.csv", f"python -m experiments.report --run={run_dir}")


def run() -> None:
    start(main, define_run, define_store, define_evaluation)


if __name__ == "__main__":
    run()
