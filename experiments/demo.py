"""From public-format files to a ranking of the assays, with the commands a user would type.

    python -m experiments.demo --out=demo

Makes a small synthetic Roadmap whose truth is known, builds its window store, trains one small
promoter CNN for every cell x assay x fold, ranks the assays, verifies the run, writes the report,
and compares the ranking with the planted truth. Run again, it goes on where it stopped.
"""

import pathlib
import subprocess
import sys
import time

import pandas as pd
from absl import flags

from epi2expr_jax.ending import sparing_children
from epi2expr_jax.files import read_json
from epi2expr_jax.program import start
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.study import tables

FLAGS = flags.FLAGS

# Smaller than the defaults in every respect, so that two cores do it in minutes; all of these are
# any user's flags.
SIMULATE = ("--genes=1500", "--cells=3", "--seed=0")
TRAIN = (
    "--model=promoter_cnn",
    "--width=0.125",
    "--cv=chromosomes_5",
    "--epochs=8",
    "--batch_size=64",
    "--checkpoint_every=4",
)
MODEL_WINDOW = "6000"  # what promoter_cnn sees, in bp

LEAST_CORRELATION = 0.9
WIDEST_NULL = 0.15


def commands(out: pathlib.Path) -> list[list[str]]:
    """The commands of the demo."""
    data, store, run = out / "data", out / "store.zarr", out / "run"
    return [
        ["data_prep.simulate", f"--out={data}", *SIMULATE],
        [
            "data_prep.build_store",
            f"--tracks={data}/tracks.csv",
            f"--expression={data}/RPKM.pc.gz",
            f"--genes={data}/genes.gtf.gz",
            f"--assembly={data}/genome.chrom.sizes",
            f"--store={store}",
        ],
        ["experiments.train", f"--store={store}", f"--run={run}", *TRAIN],
        ["experiments.evaluate", f"--run={run}"],
        ["experiments.verify", f"--run={run}"],
        ["experiments.report", f"--run={run}"],
    ]


def compare_with_truth(ranking: pd.DataFrame, truth: dict) -> tuple[list[str], bool]:
    """How well the ranking over all cells recovers the planted truth: lines, and a verdict.

    Holds if the scores of assays with an effect order like the oracle's (Spearman), and every other
    assay ranks below them with a simultaneous interval that includes 0 and is narrow.
    """
    oracle = pd.Series(truth["oracle"][MODEL_WINDOW][ALL])
    rows = ranking[ranking.cell == ALL].set_index("assay")
    driving, others = oracle.index[oracle > 0], oracle.index[oracle == 0]
    correlation = rows.pearson[driving].corr(oracle[driving], method="spearman")
    below = rows["rank"][others].min() > rows["rank"][driving].max()
    low, high = rows.simultaneous_low[others], rows.simultaneous_high[others]
    includes = ((low <= 0) & (high >= 0)).all()
    widest = float(((high - low) / 2).max())
    lines = [
        f"planted truth: {len(driving)} assays drive expression, {len(others)} do not",
        f"  order of the driving assays against the oracle: Spearman {correlation:.3f} "
        f"(at least {LEAST_CORRELATION})",
        f"  all others rank below them: {'yes' if below else 'NO'}",
        f"  their simultaneous intervals include 0: {'yes' if includes else 'NO'}; "
        f"widest ±{widest:.3f} (less than ±{WIDEST_NULL})",
    ]
    holds = correlation >= LEAST_CORRELATION and below and includes and widest < WIDEST_NULL
    return lines, bool(holds)


def demo(out: pathlib.Path) -> bool:
    """Run the commands and compare; returns whether the truth was recovered."""
    started = time.time()
    steps = commands(out)
    for number, command in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] python -m {' '.join(command)}", flush=True)
        with sparing_children():
            subprocess.run([sys.executable, "-m", *command], check=True)
    ranking = tables.RANKING.read(out / "run")
    truth = read_json(out / "data" / "truth.json", "planted truth", "simulate again")
    lines, holds = compare_with_truth(ranking, truth)
    print("\n" + "\n".join(lines))
    print(f"report: {out}/run/report.html ({time.time() - started:.0f} s in all)")
    return holds


def main() -> None:
    try:
        holds = demo(pathlib.Path(FLAGS.out))
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    if not holds:
        raise SystemExit("the ranking does not recover the planted truth")


def define_flags() -> None:
    flags.DEFINE_string("out", "demo", "Where to put the data, the store and the run.")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
