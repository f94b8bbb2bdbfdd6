"""The training of a request: every run to its end, saved as it goes, resumed."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import time
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from epi2expr_jax.ending import saving
from epi2expr_jax.errors import InputError, OutOfMemory, Problem
from epi2expr_jax.files import only_writer, write_csv
from epi2expr_jax.study import run_card
from epi2expr_jax.study.lookup import Group, Share, Study
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training import checkpoint, pieces
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import RunState, without_best
from epi2expr_jax.training.planning import lanes_for, plan_memory
from epi2expr_jax.training.runs import QUARANTINED, RUNNING, Log
from epi2expr_jax.training.splits import digest, scheme_for_all, write_splits
from epi2expr_jax.units import count
from epi2expr_jax.words.methods import tested


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where and how a training runs, which changes no result.

    Attributes:
        devices: use the first so many devices; 0: all.
        runs_at_once: runs whose state is on the devices together, the others wait; 0: as many as
            fit.
        data_limit: bytes of signal on each device at a time, the rest is streamed from the store;
            None: as much as fits.
        checkpoint_minutes: minutes between two checkpoints of a run; 0: after every epoch; None: as
            many as keep all saving within 5 % of the time.
        resume: go on where an interrupted training stopped.
        share: which of the runs this process trains.
    """

    devices: int = 0
    runs_at_once: int = 0
    data_limit: int | None = None
    checkpoint_minutes: float | None = None
    resume: bool = True
    share: Share = Share()


class Watcher:
    """Is told how a training goes. This one only warns; subclasses also show the rest."""

    def says(self, text: str) -> None:
        """Something that a person in front of it may want to know."""

    def warns(self, text: str) -> None:
        """Something is missing from the result."""
        warnings.warn(text, stacklevel=2)

    def reading(self, tracks: Iterable) -> Iterable:
        """Goes through the tracks as they are read."""
        return tracks

    def begins(self, name: str, population: Population, genes: np.ndarray) -> None:
        """These runs begin or go on, each with so many training genes, `[R]`; compiling is next."""

    def compiled(self) -> None:
        """Their program is; training is next."""

    def advances(self, advanced: list[int]) -> None:
        """These of them took an epoch."""

    def ends(self) -> None:
        """None of them goes on."""


def train(
    request: TrainRequest,
    run_dir: str | os.PathLike,
    *,
    machine: Machine = Machine(),
    watcher: Watcher = Watcher(),
    command: str = "epi2expr_jax.study.train, in Python",
) -> dict[str, Any]:
    """Train everything the request names, or the share of it that `machine` names.

    The same call resumes an interrupted training, and does nothing for a complete one. A call that
    asks a complete one for more (cells, assay sets, folds of the same scheme, seeds) trains what is
    missing; what is there stays as it is, and the result is that of one call for all. So it is with
    more epochs: runs that took all of theirs go on from their last state, others stay.

    Args:
        run_dir: made if it is not there.
        command: what the run card says was run.

    Returns:
        The run card. Its status is `complete` once every share is trained.

    Raises:
        InputError: for anything wrong with the request, the store or the run directory.
        SystemExit: after SIGTERM, once all that has been computed is saved.
    """
    started, run_dir = time.time(), pathlib.Path(run_dir)
    study = Study(request)
    study.models()  # before there is a run directory: one that makes no sense is refused
    if study.left_out:
        watcher.warns(study.left_out)
    shared = machine.share.count > 1
    with only_writer(run_dir / machine.share.name if shared else run_dir):
        card = run_card.Card(run_card.card_of(study, run_dir, machine.resume, command))
        if card["status"] == "complete":
            damage = run_card.reopen_damaged(run_dir, card)
            if not damage:
                watcher.says(f"{run_dir} is complete: nothing to do")
                return card
            for problem in damage:
                watcher.warns(f"made again: {problem.where}: {problem.found}")
        if card["versions"] != checkpoint.versions():
            watcher.says("note: other versions or device than at the start; see the run card")
        groups = study.groups(machine.share, machine.data_limit, watcher.reading)
        trainings = [_Training(group, run_dir, machine, watcher) for group in groups]
        if study.source is not None:
            for warning in study.source.warnings(study.started):
                watcher.warns(warning)
        if longer := run_card.goes_on(card, request.train_config.epochs):
            watcher.says(f"{run_dir}: {longer}")
        if said := tested(study.folds, study.store.genes):
            if scheme := scheme_for_all(
                request.cv, request.folds, study.store.genes.chrom.nunique()
            ):
                said += f"; --cv={scheme} tests on all genes, and takes about as long"
            watcher.says(said)
        # All that can be refused has been.
        run_card.begin(run_dir, card)
        genes, seed = study.store.genes, request.split_seed
        write_splits(run_dir / "splits.json", request.cv, seed, study.folds, genes)
        if len(study.gene_groups):
            write_csv(run_dir / "gene_groups.csv", study.gene_groups)
        for training in trainings:
            training.run()
        missing = run_card.finish(study, run_dir, card, time.time() - started)
    if missing:
        watcher.says(
            f"{run_dir}: this share is done; {count(missing, 'run')} left, of other processes or "
            "damaged: if none is at them, start their shares again"
        )
    return card


_Row = tuple[int, pieces.Piece, int]  # epochs of a run, and where it is kept


class _Training:
    """One population, from where it stands to its end."""

    def __init__(
        self,
        group: Group,
        run_dir: pathlib.Path,
        machine: Machine,
        watcher: Watcher,
    ):
        self.group, self.machine, self.watcher = group, machine, watcher
        self.folder = run_dir / "checkpoints" / group.name
        lanes = lanes_for(group.trainer, machine.devices)
        at_once = machine.runs_at_once
        self._digest = functools.cache(self._digest_once)
        self.memory = plan_memory(group.trainer, group.runs, group.cache, lanes, at_once=at_once)

    def run(self) -> None:
        """Train until no run is left, saving as asked; less memory is tried where it is short."""
        self.pieces = pieces.Pieces(self.folder / self.machine.share.name)
        at_once = self.memory.at_once
        while True:
            population = self._population(at_once)
            try:
                with saving() as asked_to_stop:
                    self._to_the_end(population, asked_to_stop)
            except OutOfMemory:
                lanes = self.memory.lanes.count
                if population.chunks <= 1:
                    raise InputError.of(_too_large(self.memory.lanes.width)) from None
                at_once = max(1, population.chunks // 2) * lanes
                # Its arrays must be gone before others are made.
                del population
                self.watcher.says(
                    f"{self.group.name}: out of memory; going on from the last checkpoint with "
                    f"{count(at_once, 'run')} at once"
                )
                self.pieces.wait()
            else:
                break
        self.pieces.close()

    def _population(self, at_once: int) -> Population:
        """The population as it was saved, or as it begins."""
        runs, trainer = self.group.runs, self.group.trainer
        index = {run.run_id: i for i, run in enumerate(runs)}
        logs = [Log() for _ in runs]
        best: dict[int, _Row] = {}  # of runs that ended at fewer epochs than they may take now
        for piece in self._whole("best"):
            short = piece.short_of(trainer.config.epochs)
            for row, record in enumerate(piece.records):
                i = index.get(record["run_id"])
                if i is not None and short:
                    best[i] = 0, piece, row
                elif i is not None:
                    logs[i] = Log(**record["log"])
        # A run's newest state, whichever process saved it.
        newest: dict[int, _Row] = {}
        last = self._whole("last") if best else []
        last = [piece for piece in last if piece.short_of(trainer.config.epochs)]
        under_way = self._whole("state")
        self.pieces.hold(under_way)
        for piece in [*last, *under_way]:
            for row, record in enumerate(piece.records):
                i = index.get(record["run_id"])
                epochs = len(record["log"]["train_loss"])
                if i is None or logs[i].status != RUNNING or (piece in last and i not in best):
                    continue
                if i not in newest or epochs > newest[i][0]:
                    newest[i] = epochs, piece, row
        anew = [i for i in best if i not in newest and logs[i].status == RUNNING]
        template = trainer.state_shapes()
        lasts = {i: row for i, row in newest.items() if row[1] in last}
        states: dict[int, RunState] = _restored(newest.keys() - lasts.keys(), newest, template)
        weights = {"params": template.best_params, "stats": template.best_stats}
        ended = _restored(lasts, best, weights)
        for i, state in _restored(lasts, newest, without_best(template)).items():
            states[i] = dataclasses.replace(
                state, best_params=ended[i]["params"], best_stats=ended[i]["stats"],
                status=np.int32(RUNNING),
            )  # fmt: skip
        for i, (_, piece, row) in newest.items():
            logs[i] = Log(**piece.records[row]["log"])
            logs[i].status = RUNNING
        if anew:
            said = f"{len(anew)} runs, whose last states were not kept, train again from the start"
            self.watcher.says(f"{self.group.name}: {said}")
        done = [log.epochs for log in logs if log.epochs]
        if done:
            self.watcher.says(
                f"{self.group.name}: going on after epoch {max(done)}; "
                f"{count(len(states), 'run')} under way, {len(done) - len(states)} ended, "
                f"{len(runs) - len(done)} waiting"
            )
        return Population(
            trainer, runs, self.group.inputs, self.group.cache,
            self.memory.lanes, at_once, (states, logs), self.group.fresh,
        )  # fmt: skip

    def _whole(self, kind: str) -> list[pieces.Piece]:
        """The pieces that are as they were written; the runs of others are trained again."""
        whole, damage = pieces.read_pieces(self.folder, kind)
        for problem in damage:
            self.watcher.warns(f"left out, its runs train again: {problem.where}: {problem.found}")
        return whole

    def _to_the_end(self, population: Population, asked_to_stop: list[int]) -> None:
        genes = self.group.inputs.train.sum(axis=1)
        self.watcher.begins(self.group.name, population, genes)
        minutes = self.machine.checkpoint_minutes
        saver = pieces.Saver(population, self.pieces, self.memory, self._records, minutes)
        try:
            population.compile()
            self.watcher.compiled()
            while population.alive:
                with contextlib.closing(population.advance()) as chunks:
                    for advanced in chunks:
                        self.watcher.advances(advanced)
                        saver.advanced(advanced)
                        if asked_to_stop:
                            break
                if asked_to_stop or not population.alive:
                    saver.everything()
                saver.epoch_ends()
                if asked_to_stop:
                    self.pieces.close()
                    self.watcher.says("stopped by SIGTERM; all is saved, the same command resumes")
                    raise SystemExit(128 + signal.SIGTERM)
        finally:
            self.watcher.ends()
        for i, log in enumerate(population.logs):
            if log.status == QUARANTINED:
                self.watcher.warns(_quarantine(population, i))

    def _records(self, members: list[int], logs: list[Log]) -> list[dict[str, Any]]:
        model = dataclasses.asdict(self.group.trainer.model_config)
        return [
            {
                **dataclasses.asdict(self.group.runs[i]),
                "run_id": self.group.runs[i].run_id,
                "target_scale": dataclasses.asdict(self.group.scales[i]),
                "model_config": model,
                "read": self._read(i),
                "log": dataclasses.asdict(logs[i]),
                **self.group.started.get(self.group.runs[i].run_id, {}),
            }
            for i in members
        ]

    def _read(self, i: int) -> dict[str, str]:
        """Digests of the genes a run is trained on and chosen by: of what is in its arrays."""
        inputs = self.group.inputs
        return {
            "train": self._digest(inputs.train[i].tobytes()),
            "validation": self._digest(inputs.validation[i].tobytes()),
        }

    def _digest_once(self, mask: bytes) -> str:
        """Of the genes of a mask, which most runs of a fold share."""
        genes = self.group.genes.gene_id.to_numpy()
        return digest(genes[np.frombuffer(mask, bool)])


def _restored(members: Iterable[int], rows: dict[int, _Row], template: Any) -> dict[int, Any]:
    """What some runs kept, each from its row of a piece."""
    members, found = list(members), {}
    for piece in {id(rows[i][1]): rows[i][1] for i in members}.values():
        stacked = piece.restore(template)
        for i in members:
            if rows[i][1] is piece:
                found[i] = jax.tree.map(lambda x, row=rows[i][2]: np.array(x[row]), stacked)
    return found


def _too_large(lanes: int) -> Problem:
    return Problem(
        f"{jax.local_devices()[0]}",
        f"too little memory for {count(lanes, 'run')} side by side",
        "a device that holds one chunk of runs",
        "make the model smaller (--width) or the batch (--batch_size), or the share of tracks "
        "(--data_gib)",
    )


def _quarantine(population: Population, i: int) -> str:
    run, log = population.runs[i], population.logs[i]
    where = f"step {log.bad_step + 1}" if log.bad_step >= 0 else "validation"
    return (
        f"quarantined: {run.run_id} ({run.cell} {run.label} {run.fold} seed {run.seed}): its loss "
        f"was not finite in epoch {log.epochs}, {where}"
    )
