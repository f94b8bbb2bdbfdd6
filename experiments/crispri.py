"""CRISPRi screens: how well do simple scores find the elements that a gene depends on?

    python -m experiments.crispri --pairs=screens.tsv.gz
    python -m experiments.crispri --pairs=screens.tsv.gz --power=PowerAtEffectSize25:0.8
    python -m experiments.crispri --pairs=screens.tsv.gz --scores=ENCODE.rE2G --contact=HiC

--pairs has one row an element and gene: chrom, chromStart, chromEnd (0-based), distanceToTSS or
startTSS, measuredGeneEnsemblId, Regulated, perhaps Dataset, EffectSize, Significant and signal in
the element (H3K27ac.RPM, DHS.RPM, …): the public table of Gschwind et al. (2025) as it is. Labels
are the table's own; without Regulated, significant losses count as regulated. Distance, each
signal, activity, activity × distance and the columns you name are compared by average precision and
AUROC, each with a 95 % interval over chromosomes, and by precision at 70 % recall: on all pairs,
without significant increases, in each study, and by distance to the TSS.

Writes into --out crispri.csv (scores), crispri_leads.csv (paired differences from activity ×
distance, or from distance without signal), crispri_sizes.csv (rank correlation with the measured
loss), crispri.png and .svg.
"""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import numbers, write_csv
from epi2expr_jax.program import require, start
from epi2expr_jax.screens import scoring
from epi2expr_jax.screens.pairs import Pairs, counts, read_pairs
from epi2expr_jax.screens.rivals import GAMMA, reference_score, rivals
from epi2expr_jax.study import results
from experiments.cli.given_table import read_table
from experiments.figures.screens import screen_figure
from experiments.figures.style import STYLE, number, save_figure

FLAGS = flags.FLAGS

ALL, UNRAISED = "all pairs", "without significant increases"


def compare_scores(
    pairs: Pairs,
    scores: dict[str, np.ndarray],
    *,
    reference: str,
    weight: str = "",
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every score on every subset of pairs, and the leads of one of them.

    Args:
        scores: by name, `[N]`.
        reference: the score whose leads over the others are given.
        weight: a column by which regulated pairs count, such as the chance that an effect is
            direct; others count 1.
        seed: of the random groups of pairs.

    Returns:
        Tables with columns `scoring.COLUMNS` and `scoring.LEADS`.

    Raises:
        InputError: for a weight that is not between 0 and 1.
    """
    table = pairs.table
    regulated = table["regulated"].to_numpy(bool)
    weights = None
    if weight:
        if weight not in table:
            raise InputError("--weight", f"no column {weight}", "a column of --pairs", "correct it")
        own = numbers(table[weight]).to_numpy(float)
        weights = np.where(regulated & np.isfinite(own), own, 1.0)
        if not weights[regulated].any():
            found = "no regulated pair that counts"
            raise InputError(f"column {weight}", found, "chances above 0", "name another column")
        if not ((weights >= 0) & (weights <= 1)).all():
            raise InputError(
                f"column {weight}", "values below 0 or above 1", "chances", "correct it"
            )
    subsets = {ALL: np.ones(len(table), bool)}
    if table["increase"].any():
        subsets[UNRAISED] = ~table["increase"].to_numpy(bool)
    studies = sorted(set(table["study"]))
    if len(studies) > 1:
        subsets |= {f"study {name}": (table["study"] == name).to_numpy() for name in studies}
    subsets |= scoring.distance_bins(table["distance"].to_numpy(float), regulated)
    scored = [
        scoring.Scored(label, table, scores, chosen, weights, seed)
        for label, chosen in subsets.items()
        if 0 < regulated[chosen].sum() < chosen.sum()
    ]
    rows = pd.concat([subset.rows() for subset in scored], ignore_index=True)
    return rows, pd.concat([subset.leads(reference) for subset in scored], ignore_index=True)


def describe(pairs: Pairs, rows: pd.DataFrame, leads: pd.DataFrame, sizes: pd.DataFrame) -> str:
    """What was counted and found, for the terminal."""
    lines = []
    for row in counts(pairs).to_dict("records"):
        name = " ".join(filter(None, (row["study"], row["cell"]))) or "pairs"
        lines.append(
            f"{name}: {row['pairs']:,} pairs, {row['regulated']:,} regulated, {row['increases']:,} "
            "significant increases (counted as not regulated)"
        )
    width = max(map(len, rows["score"]))
    for label, part in rows.groupby("pairs", sort=False):
        first = part.iloc[0]
        share = f"{first.regulated / first.n:.1%}"
        lines.append(f"\n{label}: {first.n:,}, {first.regulated:,} regulated ({share})")
        lines.append(f"{'':<{width}}  average precision     AUROC  precision at 70 % recall")
        for row in part.to_dict("records"):
            lines.append(
                f"{row['score']:<{width}}  {number(row['average_precision'])} "
                f"{_interval(row['low'], row['high']):<16} {number(row['auroc'])}  "
                f"{number(row['precision_at_70'])}"
            )
    ours = leads[leads["pairs"] == ALL]
    if len(ours):
        lines.append(f"\nlead of {ours['score'].iloc[0]} in average precision, {ALL}:")
    for row in ours.to_dict("records"):
        lines.append(
            f"over {row['rival']:<{width}}  {number(row['lead'])} "
            f"{_interval(row['low'], row['high'])}; over pairs "
            f"{_interval(row['low_pairs'], row['high_pairs'])}"
        )
    if sizes["n"].iloc[0]:
        values = ", ".join(
            f"{row['score']} {number(row['spearman'], 2)}" for row in sizes.to_dict("records")
        )
        lines.append(f"\nrank correlation with the measured loss, regulated pairs: {values}")
        lines.append(
            f"note: {sizes['small'].iloc[0]:.0%} of them change by less than 10 %; a small effect "
            "is in the table only where noise made it larger, so sizes are overstated"
        )
    lines.append(
        "note: average precision depends on the share of regulated pairs: compare scores on the "
        "same pairs, not distances with each other"
    )
    return "\n".join(lines)


def _interval(low: float, high: float) -> str:
    return f"({number(low)} to {number(high)})" if np.isfinite(low) else "(no interval)"


def score_screens(
    path: pathlib.Path,
    out: pathlib.Path,
    *,
    power: str = "",
    activity: Sequence[str] = (),
    contact: str = "",
    others: Sequence[str] = (),
    gamma: float = GAMMA,
    weight: str = "",
    seed: int = 0,
) -> str:
    """Read a table of pairs, compare scores, write what was found; return it in words.

    Args:
        power: COLUMN:LEAST, see `read_pairs`.
        activity, contact, others, gamma: see `rivals`.
        weight, seed: see `compare_scores`.

    Raises:
        InputError: for a table or flags that make no sense.
    """
    pairs = read_pairs(read_table(path), str(path), _power(power))
    scores, notes = rivals(
        pairs.table, activity=activity, contact=contact, others=others, gamma=gamma
    )
    reference = reference_score(scores)
    rows, leads = compare_scores(pairs, scores, reference=reference, weight=weight, seed=seed)
    sizes = scoring.sizes(pairs.table, scores)
    with results.written(out, "crispri", pairs=path.name, power=power, weight=weight) as place:
        write_csv(place / "crispri.csv", rows)
        write_csv(place / "crispri_leads.csv", leads)
        write_csv(place / "crispri_sizes.csv", sizes)
        with matplotlib.rc_context(STYLE):
            save_figure(screen_figure(rows, reference, ALL), place / "crispri")
    said = [describe(pairs, rows, leads, sizes)]
    said += [f"note: {note}" for note in (*pairs.notes, *notes)]
    return "\n".join([*said, f"{out}/crispri.csv, crispri_leads.csv, crispri.png"])


def _power(text: str) -> tuple[str, float] | None:
    if not text:
        return None
    column, _, least = text.rpartition(":")
    try:
        return column, float(least)
    except ValueError:
        expected = "COLUMN:LEAST, as PowerAtEffectSize25:0.8"
        raise InputError(
            f"--power={text}", "no number after the colon", expected, "correct it"
        ) from None


def main() -> None:
    require("pairs")
    print(
        score_screens(
            pathlib.Path(FLAGS.pairs),
            pathlib.Path(FLAGS.out),
            power=FLAGS.power,
            activity=FLAGS.activity,
            contact=FLAGS.contact,
            others=FLAGS.scores,
            gamma=FLAGS.gamma,
            weight=FLAGS.weight,
            seed=FLAGS.seed,
        )
    )


def define_flags() -> None:
    flags.DEFINE_string("pairs", None, "Table of measured element-gene pairs.")
    flags.DEFINE_string("out", "crispri", "Folder for the results.")
    flags.DEFINE_string(
        "power",
        "",
        "COLUMN:LEAST: leave out pairs that are not regulated and whose power is lower. Studies "
        "state power at different effect sizes, so this may remove one: see the counts.",
    )
    flags.DEFINE_list(
        "activity", [], "Columns whose geometric mean is activity. Default: H3K27ac and DNase."
    )
    flags.DEFINE_string("contact", "", "Column of contact frequencies.")
    flags.DEFINE_list("scores", [], "Further columns that are scores, larger for likelier pairs.")
    flags.DEFINE_float("gamma", GAMMA, "Exponent of distance in activity × distance.")
    flags.DEFINE_string(
        "weight",
        "",
        "Column by which regulated pairs count, such as direct_vs_indirect_negative.",
    )
    flags.DEFINE_integer("seed", 0, "Of the random groups of pairs.", lower_bound=0)


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
