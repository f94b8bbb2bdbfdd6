"""CRISPRi screens: how well do simple scores, or a run, find the elements that a gene depends on?

    python -m experiments.crispri --pairs=screens.tsv.gz
    python -m experiments.crispri --pairs=screens.tsv.gz --power=PowerAtEffectSize25:0.8
    python -m experiments.crispri --pairs=screens.tsv.gz --scores=ENCODE.rE2G --contact=HiC
    python -m experiments.crispri --pairs=screens.tsv.gz --run=runs/k562 --single_marks
    python -m experiments.crispri --pairs=hg38.tsv.gz --run=RUN --chain=hg38ToHg19.over.chain.gz

--pairs has one row an element and gene: chrom, chromStart, chromEnd (0-based), distanceToTSS or
startTSS, measuredGeneEnsemblId, Regulated, perhaps Dataset, EffectSize, Significant and signal in
the element (H3K27ac.RPM, DHS.RPM, …): the public table of Gschwind et al. (2025) as it is. Labels
are the table's own; without Regulated, significant losses count as regulated. Distance, each
signal, activity, activity × distance and the columns you name are compared by average precision and
AUROC, each with a 95 % interval over chromosomes, and by precision at 70 % recall: on all pairs,
without significant increases, in each study, and by distance to the TSS.

With --run, each element whose middle lies in the window of a gene's model, or in a region of it, is
silenced: all active marks and DNase go down to the window's lower quartile, over the element and
250 bp on either side, and models that never saw the gene predict what fraction of its expression is
lost. That answers three questions apart: of pairs in reach alone, with every rival on the same
pairs ("in reach: …"); of all pairs, where one that is not in reach counts as --fill ("predicted
loss, filled"); and of all pairs, where it keeps its activity × distance, or its distance in a table
without signal ("predicted loss, completed": in reach these values change places, so that they are
in the order of predicted losses). Nothing is fitted to a screen. --chain takes elements to the
assembly of the run's tracks.

Writes into --out crispri.csv (scores), crispri_leads.csv (paired differences from activity ×
distance, or from distance without signal; from predictions with --run), crispri_sizes.csv (rank
correlation with the measured loss), crispri.png and .svg; with --run also crispri_pairs.csv (every
pair with its predictions) and in_reach.png and .svg. In DIR/crispri, the default with --run, the
report of the run shows them.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import numbers, write_csv
from epi2expr_jax.program import require, start
from epi2expr_jax.screens import scoring
from epi2expr_jax.screens.pairs import Pairs, counts, read_pairs
from epi2expr_jax.screens.predicted import (
    COMPLETED,
    FILLED,
    LOSS,
    Predicted,
    completed,
    filled,
    predict_pairs,
)
from epi2expr_jax.screens.rivals import GAMMA, reference_score, rivals
from epi2expr_jax.screens.scoring import ALL, REACH, UNRAISED
from epi2expr_jax.study import results
from epi2expr_jax.units import count, percent
from experiments.cli.elements import (
    NAMES,
    SilencingModels,
    define_chain,
    define_silencing,
    lift_distinct,
    silencer_of_flags,
)
from experiments.cli.flags import define_run, define_store, refuse_without_effect
from experiments.cli.given_table import read_table
from experiments.figures.screens import reach_figure, screen_figure
from experiments.figures.style import STYLE, number, save_figure

FLAGS = flags.FLAGS


def compare_scores(
    pairs: Pairs,
    scores: dict[str, np.ndarray],
    *,
    references: Sequence[str],
    weight: str = "",
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every score on every subset of pairs, and the leads of one of them.

    Args:
        scores: by name, `[N]`.
        references: the scores whose leads over the others are given.
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
    leads = [subset.leads(name) for name in references for subset in scored]
    return rows, pd.concat(leads, ignore_index=True)


def describe(pairs: Pairs, rows: pd.DataFrame, leads: pd.DataFrame, sizes: pd.DataFrame) -> str:
    """What was counted and found, for the terminal."""
    lines = []
    for row in counts(pairs).to_dict("records"):
        name = " ".join(filter(None, (row["study"], row["cell"]))) or "pairs"
        lines.append(
            f"{name}: {count(row['pairs'], 'pair')}, {row['regulated']:,} regulated, "
            f"{row['increases']:,} significant increases (counted as not regulated)"
        )
    width = max(map(len, rows["score"]))
    for label, part in rows.groupby("pairs", sort=False):
        if str(label).startswith(REACH) and label != REACH + ALL:
            continue  # the table has them
        first = part.iloc[0]
        share = percent(first.regulated / first.n, 1)
        lines.append(f"\n{label}: {first.n:,}, {first.regulated:,} regulated ({share})")
        lines.append(f"{'':<{width}}  average precision     AUROC  precision at 70 % recall")
        for row in part.to_dict("records"):
            lines.append(
                f"{row['score']:<{width}}  {number(row['average_precision'])} "
                f"{_interval(row['low'], row['high']):<16} {number(row['auroc'])}  "
                f"{number(row['precision_at_70'])}"
            )
    ours = leads[leads["pairs"].isin([ALL, REACH + ALL])]
    for (label, score), part in ours.groupby(["pairs", "score"], sort=False):
        lines.append(f"\nlead of {score} in average precision, {label}:")
        for row in part.to_dict("records"):
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
            f"note: {percent(sizes['small'].iloc[0])} of them change by less than 10 %; a "
            "small effect is in the table only where noise made it larger, so sizes are overstated"
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
    models: SilencingModels | None = None,
    chain: str = "",
    fill: float = 0.0,
) -> str:
    """Read a table of pairs, compare scores, write what was found; return it in words.

    Args:
        power: COLUMN:LEAST, see `read_pairs`.
        activity, contact, others, gamma: see `rivals`.
        weight, seed: see `compare_scores`.
        models: to predict with, if any.
        chain: from the elements' assembly to that of the models' store.
        fill: the predicted loss of pairs that are not in reach.

    Raises:
        InputError: for a table or flags that make no sense.
    """
    pairs = read_pairs(read_table(path), str(path), _power(power))
    scores, notes = rivals(
        pairs.table, activity=activity, contact=contact, others=others, gamma=gamma
    )
    reference = reference_score(scores)
    options = {"weight": weight, "seed": seed}
    sizes = scoring.sizes(pairs.table, scores)
    about = {"pairs": path.name, "power": power, **options}
    if models is None:
        rows, leads = compare_scores(pairs, scores, references=[reference], **options)
    else:
        predicted = _predicted(pairs, models, chain)
        notes += predicted.notes
        about |= {"run": str(models.ensemble.run_dir), "fill": fill, "chain": chain}
        about |= dataclasses.asdict(models.silencing)
        rows, leads = three_questions(pairs, scores, reference, predicted, fill, options)
        near, losses = pairs.table[predicted.reach], predicted.losses()
        own = {name: values[predicted.reach] for name, values in losses.items()}
        sizes = pd.concat([sizes, scoring.sizes(near, own)], ignore_index=True)
    with results.written(out, "crispri", **about) as place:
        write_csv(place / "crispri.csv", rows)
        write_csv(place / "crispri_leads.csv", leads)
        write_csv(place / "crispri_sizes.csv", sizes)
        if models is not None:
            own = {f"predicted_{name}": column for name, column in predicted.table.items()}
            write_csv(place / "crispri_pairs.csv", pairs.table.assign(**own))
        with matplotlib.rc_context(STYLE):
            reach = rows["pairs"].str.startswith(REACH)
            whole = reference if models is None else COMPLETED
            save_figure(screen_figure(rows[~reach], whole, ALL), place / "crispri")
            if near := reach_figure(rows):
                save_figure(near, place / "in_reach")
    said = [describe(pairs, rows, leads, sizes)]
    said += [f"note: {note}" for note in (*pairs.notes, *notes)]
    return "\n".join([*said, f"{out}/crispri.csv, crispri_leads.csv, crispri.png"])


def _predicted(pairs: Pairs, models: SilencingModels, chain: str) -> Predicted:
    """Predictions for all pairs; elements are lifted once each."""
    places, notes = pairs.table[["chrom", "start", "end"]], []
    if chain:
        places, said = lift_distinct(pathlib.Path(chain), places)
        notes.append(said)
    with tqdm(desc="pairs", unit="pair", disable=None) as progress:
        made = predict_pairs(
            models.ensemble, models.store, pairs.table, places, models.silencing, progress.update
        )
    return dataclasses.replace(made, notes=(*notes, *made.notes))


def three_questions(
    pairs: Pairs,
    scores: dict[str, np.ndarray],
    reference: str,
    predicted: Predicted,
    fill: float,
    options: dict,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and leads: of all pairs, and of those in reach, where there are some of each kind."""
    reach, losses = predicted.reach, predicted.losses()
    if not reach.any():
        found = f"no pair in reach ({predicted.notes[-2]})"
        raise InputError("--pairs, --run", found, "some", "check --chain, or leave --run out")
    every = scores | {
        FILLED: filled(losses[LOSS], reach, fill),
        COMPLETED: completed(losses[LOSS], reach, scores[reference]),
    }
    found = [compare_scores(pairs, every, references=[FILLED, COMPLETED], **options)]
    near = dataclasses.replace(pairs, table=pairs.table[reach].reset_index(drop=True))
    if 0 < near.table["regulated"].sum() < len(near.table):
        own = {name: values[reach] for name, values in (scores | losses).items()}
        parts = compare_scores(near, own, references=[LOSS], **options)
        first, second = (part.assign(pairs=REACH + part["pairs"]) for part in parts)
        found.append((first, second))
    rows, leads = (pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True))
    return rows, leads


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
    if not FLAGS.run:
        refuse_without_effect([(name, "without --run") for name in (*NAMES, "chain", "fill")])
    out = FLAGS.out or (f"{FLAGS.run}/crispri" if FLAGS.run else "crispri")
    print(
        score_screens(
            pathlib.Path(FLAGS.pairs),
            pathlib.Path(out),
            power=FLAGS.power,
            activity=FLAGS.activity,
            contact=FLAGS.contact,
            others=FLAGS.scores,
            gamma=FLAGS.gamma,
            weight=FLAGS.weight,
            seed=FLAGS.seed,
            models=silencer_of_flags() if FLAGS.run else None,
            chain=FLAGS.chain,
            fill=FLAGS.fill,
        )
    )


def define_flags() -> None:
    flags.DEFINE_string("pairs", None, "Table of measured element-gene pairs.")
    flags.DEFINE_string("out", None, "Folder for results; default: DIR/crispri, or crispri.")
    flags.DEFINE_float("fill", 0.0, "Predicted loss of pairs that are not in reach, as a fraction.")
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
    start(main, define_run, define_store, define_silencing, define_chain, define_flags)


if __name__ == "__main__":
    run()
