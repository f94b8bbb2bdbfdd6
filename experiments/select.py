"""Forward selection: which assay helps most, which to add next, and when to stop.

    python -m experiments.select --store=roadmap.zarr --run=selection --model=promoter_cnn
    python -m experiments.select --store=roadmap.zarr --run=selection --cells=E003 \\
        --assays=H3K4me3,H3K27ac,DNase --most=2

Takes the flags of experiments.train; --assays names the candidates. Every round trains one model of
the assays chosen so far and each candidate, for every cell x fold x seed, and chooses the candidate
of the lowest validation loss (mean over all of them). It ends when no candidate lowers the loss, or
after --most assays. Test chromosomes are read once it has ended, for the sets that were chosen.

DIR/round-1, DIR/round-2, … are run directories like any other, so the same command resumes.
DIR/selection.csv has one row a round and candidate: the validation loss, whether it was chosen, and
for chosen ones the held-out score with its interval.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax import predict
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer, write_csv
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.program import start
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import Machine
from epi2expr_jax.training.runs import parse_assay_sets
from epi2expr_jax.words.sentences import span
from experiments.cli.flags import define_training, request_of_flags
from experiments.cli.progress import train_shown
from experiments.cli.shares import define_machine, machine_of_flags

FLAGS = flags.FLAGS

_OUTCOME = ["pearson", "low", "high", "n_chromosomes"]


@dataclasses.dataclass(frozen=True)
class Round:
    """One round: its run directory, and what each candidate's models scored.

    Attributes:
        losses: candidate → mean over cells, folds and seeds of the lowest validation loss; NaN for
            one of whose trainings any failed.
        chosen: the candidate that lowers the loss most; None if none lowers it.
    """

    run_dir: pathlib.Path
    before: tuple[str, ...]
    losses: dict[str, float]
    chosen: str | None


def select(
    request: TrainRequest,
    out: pathlib.Path,
    *,
    most: int = 0,
    machine: Machine = Machine(),
    track: Sequence[str] = (),
) -> pd.DataFrame:
    """Choose assays one after the other; writes and returns the table of `selection.csv`.

    Args:
        request: what to train; its assays are the candidates.
        most: how many assays to choose at most; 0: as many as help.
        track: where else to show losses (see `experiments.cli.progress`).

    Raises:
        InputError: for anything wrong with the request, or if no candidate's trainings succeed.
    """
    store = WindowStore.open(request.store)
    named = parse_assay_sets(request.assays, store.manifest.assays)
    candidates = [a for a in store.manifest.assays if any(a in assays for assays in named)]
    rounds: list[Round] = []
    chosen: tuple[str, ...] = ()
    best = np.inf
    while len(chosen) < min(most or len(candidates), len(candidates)):
        rest = [assay for assay in candidates if assay not in chosen]
        run_dir = out / f"round-{len(rounds) + 1}"
        sets = ["+".join([*chosen, assay]) for assay in rest]
        card = train_shown(dataclasses.replace(request, assays=sets), run_dir, machine, track)
        losses = {assay: _loss(card, {*chosen, assay}) for assay in rest}
        if np.isnan(list(losses.values())).all():
            raise InputError(
                str(run_dir),
                "no candidate all of whose trainings succeeded",
                "finite losses",
                "give a lower --learning_rate and another --run",
            )
        winner = min(rest, key=lambda assay: np.nan_to_num(losses[assay], nan=np.inf))
        helps = losses[winner] < best
        rounds.append(Round(run_dir, chosen, losses, winner if helps else None))
        print(_line(rounds[-1], winner, best))
        if not helps:
            break
        best, chosen = losses[winner], (*chosen, winner)
    table = _table(rounds, store)
    write_csv(out / "selection.csv", table)
    return table


def _loss(card: dict[str, Any], assays: set[str]) -> float:
    """Mean lowest validation loss of the runs that read these assays; NaN if any failed."""
    losses = [
        np.nan if row["status"] == "quarantined" else row["best_validation_loss"]
        for population in card["populations"]
        for row in population["runs"]
        if set(row["assays"]) == assays
    ]
    return float(np.mean(losses))


def _line(done: Round, winner: str, best: float) -> str:
    loss = done.losses[winner]
    if done.chosen is None:
        return f"no further assay helps: {winner} leads from a loss of {best:.4f} to {loss:.4f}"
    return f"{done.run_dir.name}: {'+'.join([*done.before, winner])}, validation loss {loss:.4f}"


def _table(rounds: list[Round], store: WindowStore) -> pd.DataFrame:
    """One row a round and candidate, the best first; chosen ones with their held-out score."""
    rows = []
    for number, done in enumerate(rounds, 1):
        for assay in sorted(done.losses, key=lambda a: np.nan_to_num(done.losses[a], nan=np.inf)):
            in_order = [a for a in store.manifest.assays if a in {*done.before, assay}]
            outcome = dict.fromkeys(_OUTCOME, np.nan)
            if assay == done.chosen:
                outcome = _held_out(done.run_dir, in_order, store)
            rows.append(
                {
                    "round": number,
                    "candidate": assay,
                    "assays": "+".join(in_order),
                    "validation_loss": done.losses[assay],
                    "chosen": assay == done.chosen,
                    **outcome,
                }
            )
    return pd.DataFrame(rows)


def _held_out(run_dir: pathlib.Path, assays: list[str], store: WindowStore) -> dict[str, float]:
    """The score over all cells of one set's models, on genes that they never saw."""
    ensemble = predict.load(run_dir).only(assays)
    scores = scoring.score_table(predict_held_out(ensemble, store))
    ranked = ranking.rank_assays(scores)
    row = ranked[ranked.cell == scoring.ALL].iloc[0]
    return {name: row[name] for name in _OUTCOME}


def main() -> None:
    request, out = request_of_flags(), pathlib.Path(FLAGS.run)
    machine = machine_of_flags(
        "let it use all devices of its machine; every round needs all of the round before"
    )
    with only_writer(out):
        table = select(request, out, most=FLAGS.most, machine=machine, track=FLAGS.track)
    for row in table[table.chosen].itertuples():
        print(
            f"{row.round:>3}  + {row.candidate:<20} validation loss {row.validation_loss:.4f}, "
            f"held-out r {row.pearson:.3f} (95 % interval {span(row.low, row.high).strip()})"
        )
    print(f"{out}/selection.csv")


def define_flags() -> None:
    flags.DEFINE_integer("most", 0, "Most assays to choose; 0: as many as help.", lower_bound=0)


def run() -> None:
    start(main, define_training, define_machine, define_flags)


if __name__ == "__main__":
    run()
