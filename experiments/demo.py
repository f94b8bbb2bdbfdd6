"""From public-format files to a ranking of the assays, with the commands a user would type.

    python -m experiments.demo --out=demo

Carries out the study `demo` (experiments/studies/demo.toml, see experiments.study): makes a small
synthetic Roadmap whose truth is known, builds its window store, trains one small promoter CNN for
every cell x assay x fold, ranks the assays, verifies the run and writes the report. Then it
compares the ranking with the planted truth. Run again, it goes on where it stopped.
"""

import pathlib

import pandas as pd
from absl import flags

from epi2expr_jax.files import only_writer, read_json
from epi2expr_jax.program import start
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.study import tables
from experiments.cli.study_file import read_study
from experiments.study import carry_out

FLAGS = flags.FLAGS

MODEL_WINDOW = "6000"  # what promoter_cnn sees, in bp

LEAST_CORRELATION = 0.9
WIDEST_NULL = 0.15


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


def demo(out: pathlib.Path, study: str = "demo") -> bool:
    """Carry the study out and compare; returns whether every check held and the truth was found.

    Args:
        study: its file, or the name of one that ships.
    """
    held = carry_out(read_study(study, str(out)))
    ranking = tables.RANKING.read(out / "run")
    truth = read_json(out / "data" / "truth.json", "planted truth", "simulate again")
    lines, holds = compare_with_truth(ranking, truth)
    print("\n" + "\n".join(lines))
    return held and holds


def main() -> None:
    out = pathlib.Path(FLAGS.out)
    with only_writer(out):
        if not demo(out):
            raise SystemExit("the ranking does not recover the planted truth, or a check failed")


def define_flags() -> None:
    flags.DEFINE_string("out", "demo", "Where to put the data, the store and the run.")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
