"""The training of a request: every population to its end, saved as it goes, resumed."""

import contextlib
import dataclasses
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, OutOfMemory, Problem
from epi2expr_jax.files import is_partial
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.many_runs import Lanes, Log, Population
from epi2expr_jax.training.one_run import QUARANTINED, RUNNING, RunState
from epi2expr_jax.training.planning import fit
from epi2expr_jax.training.splits import digest, write_splits
from experiments.cli.flags import Machine, TrainRequest
from experiments.cli.progress import Progress, Tracker, trackers
from experiments.cli.shares import Share
from experiments.cli.study import Group, Study


def train(
    request: TrainRequest,
    run_dir: pathlib.Path,
    *,
    resume: bool = True,
    machine: Machine = Machine(),
    share: Share = Share(),
) -> dict[str, Any]:
    """Train everything the request names, or this process's share of it; returns the run card.

    Raises:
        InputError: for anything wrong with the request, the store or the run directory.
        SystemExit: after SIGTERM, once all that has been computed is saved.
    """
    started = time.time()
    study = Study(request)
    card = _start(request, study.store, run_dir, resume)
    if card["status"] == "complete":
        print(f"{run_dir} is complete: nothing to do")
        return card
    chrom = list(study.store.genes.chrom)
    write_splits(run_dir / "splits.json", request.cv, request.split_seed, study.folds, chrom)
    with _sigterm() as asked_to_stop, contextlib.ExitStack() as stack:
        shown = trackers(machine.track, run_dir)
        for tracker in shown:
            stack.callback(tracker.close)
        for group in study.groups(share, machine.data_limit):
            _Training(group, run_dir, machine, share, shown, asked_to_stop).run()
    return _finish(study, run_dir, card, time.time() - started)


class _Training:
    """One population, from where it stands to its end."""

    def __init__(
        self,
        group: Group,
        run_dir: pathlib.Path,
        machine: Machine,
        share: Share,
        trackers: Sequence[Tracker],
        asked_to_stop: list[int],
    ):
        self.group, self.machine, self.trackers = group, machine, trackers
        self.asked_to_stop = asked_to_stop
        self.folder = run_dir / "checkpoints" / group.name
        self.parts = checkpoint.Parts(self.folder / share.name)
        lanes = Lanes.default(machine.devices)
        self.fit = fit(group.trainer, group.runs, group.cache, lanes, at_once=machine.runs_at_once)

    def run(self) -> None:
        """Train until no run is left, saving as asked; less memory is tried where it is short."""
        at_once = self.fit.at_once
        while True:
            population = self._population(at_once)
            try:
                self._to_the_end(population)
            except OutOfMemory:
                lanes = self.fit.lanes.count
                if population.chunks <= 1:
                    raise InputError.of(_too_large(self.fit.lanes.width)) from None
                at_once = max(1, population.chunks // 2) * lanes
                # Its arrays must be gone before others are made.
                del population
                print(
                    f"{self.group.name}: out of memory; going on from the last checkpoint with "
                    f"{at_once} runs at once"
                )
                self.parts.wait()
            else:
                break
        self.parts.close()

    def _population(self, at_once: int) -> Population:
        """The population as it was saved, or as it begins."""
        runs, trainer = self.group.runs, self.group.trainer
        index = {run.run_id: i for i, run in enumerate(runs)}
        logs = [Log() for _ in runs]
        for part in checkpoint.read_parts(self.folder, "best"):
            for record in part.records:
                if record["run_id"] in index:
                    logs[index[record["run_id"]]] = Log(**record["log"])
        # A run's newest state, whichever process saved it.
        newest: dict[int, tuple[int, checkpoint.Part, int]] = {}
        for part in checkpoint.read_parts(self.folder, "state"):
            for row, record in enumerate(part.records):
                i = index.get(record["run_id"])
                epochs = len(record["log"]["train_loss"])
                if i is None or logs[i].status != RUNNING:
                    continue
                if i not in newest or epochs > newest[i][0]:
                    newest[i] = epochs, part, row
        states: dict[int, RunState] = {}
        template = trainer.init(self.group.inputs.model_key[0])
        for part in {id(part): part for _, part, _ in newest.values()}.values():
            stacked = part.restore(template)
            for i, (_, own, row) in newest.items():
                if own is part:
                    states[i] = jax.tree.map(lambda x, row=row: np.array(x[row]), stacked)
                    logs[i] = Log(**part.records[row]["log"])
        done = [log.epochs for log in logs if log.epochs]
        if done:
            print(
                f"{self.group.name}: going on after epoch {max(done)}; {len(states)} runs under "
                f"way, {len(done) - len(states)} ended, {len(runs) - len(done)} waiting"
            )
        return Population(
            trainer, runs, self.group.inputs, self.group.cache,
            self.fit.lanes, at_once, (states, logs),
        )  # fmt: skip

    def _to_the_end(self, population: Population) -> None:
        label = f"{self.group.name}: {len(population.runs)} runs"
        progress = Progress(label, population, self.group.inputs.train.sum(axis=1))
        rounds = 0
        try:
            while population.alive:
                with contextlib.closing(population.advance()) as chunks:
                    for advanced in chunks:
                        progress.update(advanced)
                        self._track(population, advanced)
                        if self.asked_to_stop:
                            break
                rounds += 1
                if (
                    not population.alive
                    or self.asked_to_stop
                    or rounds % self.machine.checkpoint_every == 0
                ):
                    self._save(population)
                if self.asked_to_stop:
                    self.parts.close()
                    print("stopped by SIGTERM; all is saved, the same command resumes")
                    raise SystemExit(128 + signal.SIGTERM)
        finally:
            progress.close()
        for i, log in enumerate(population.logs):
            if log.status == QUARANTINED:
                print(_quarantine(population, i), file=sys.stderr)

    def _track(self, population: Population, advanced: list[int]) -> None:
        for tracker in self.trackers:
            for i in advanced:
                run, log = population.runs[i], population.logs[i]
                values = {
                    "train_loss": log.train_loss[-1],
                    "validation_loss": log.validation_loss[-1],
                    "learning_rate": log.learning_rate[-1],
                }
                name = f"{run.cell}/{run.label}/{run.fold}/{run.seed}"
                tracker.log(name, log.epochs, values)

    def _save(self, population: Population) -> None:
        ended, weights = population.take_ended()
        under_way, states = population.snapshot()
        self.parts.save(
            (self._records(population, ended), weights),
            (self._records(population, under_way), states),
        )

    def _records(self, population: Population, members: list[int]) -> list[dict[str, Any]]:
        return [
            {
                **dataclasses.asdict(population.runs[i]),
                "run_id": population.runs[i].run_id,
                "target_scale": dataclasses.asdict(self.group.scales[i]),
                "model_config": dataclasses.asdict(self.group.trainer.model_config),
                "read": self._read(i),
                "log": dataclasses.asdict(population.logs[i]),
            }
            for i in members
        ]

    def _read(self, i: int) -> dict[str, str]:
        """Digests of the genes a run is trained on and chosen by: of what is in its arrays."""
        inputs, genes = self.group.inputs, self.group.genes.gene_id.to_numpy()
        parts = {"train": inputs.train[i], "validation": inputs.validation[i]}
        return {part: digest(genes[mask]) for part, mask in parts.items()}


def _too_large(lanes: int) -> Problem:
    return Problem(
        f"{jax.local_devices()[0]}",
        f"too little memory for {lanes} runs side by side",
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


@contextlib.contextmanager
def _sigterm() -> Iterator[list[int]]:
    """A list that is no longer empty once the process was asked to end (preemption)."""
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    except ValueError:  # not the main thread: whoever runs it handles signals
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(
    request: TrainRequest, store: WindowStore, run_dir: pathlib.Path, resume: bool
) -> dict[str, Any]:
    """The run card to go on with: a new one, or that of the same request interrupted."""
    asked = {"request": request.as_json(), "store_checksum": store.checksum()}
    trained = TrainedSignal.of(store.manifest, request.input_config.transform)
    if (run_dir / checkpoint.RUN_CARD).exists():
        card = checkpoint.read_card(run_dir)
        changed = [
            f"{name}={card['request'].get(name)!r}, now {value!r}"
            for name, value in asked["request"].items()
            if card["request"].get(name) != value
        ]
        if card["store_checksum"] != asked["store_checksum"]:
            changed.append("the store's contents")
        if changed or not resume:
            raise InputError(
                str(run_dir),
                f"a run of another request ({'; '.join(changed)})" if changed else "a run",
                "the same request, to resume" if changed else "an empty run directory",
                "give another --run, or delete this one",
            )
        if card["versions"] != checkpoint.versions():
            print("note: other versions or device than at the start; see the run card")
        return {"signal": trained.as_json(), **card}  # cards of older versions lack it
    if run_dir.exists() and any(not is_partial(path) for path in run_dir.iterdir()):
        raise InputError(
            str(run_dir),
            "files that are not a run",
            "an empty or new directory",
            "give another --run",
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    card = {
        **asked,
        "status": "training",
        "store": {
            "path": str(store.path),
            "cells": store.manifest.cells,
            "assays": store.manifest.assays,
            "genes": len(store.genes),
            "window_bp": store.manifest.window_bp,
            "bin_bp": store.manifest.bin_bp,
            "assembly": store.manifest.assembly,
            "left_out": store.manifest.left_out,
            "groups": store.manifest.groups,
        },
        "model": request.model,
        "target": request.target,
        "cv": request.cv,
        "input_config": dataclasses.asdict(request.input_config),
        "signal": trained.as_json(),
        "versions": checkpoint.versions(),
        "command": shlex.join(["python", "-m", "experiments.train", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": 0.0,
        "populations": [],
    }
    checkpoint.write_card(run_dir, card)
    return card


def _finish(
    study: Study, run_dir: pathlib.Path, card: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Close the run if every process's part is there; else say what is missing."""
    folder = run_dir / "checkpoints"
    found: dict[str, dict[str, Any]] = {}
    populations = []
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        for part in checkpoint.read_parts(group, "best"):
            rows = [record for record in part.records if record["run_id"] not in found]
            if len(rows) < len(part.records):
                continue  # the same runs, trained twice by processes that did not know it
            found |= {record["run_id"]: record for record in rows}
            populations.append(
                {
                    "name": group.name,
                    "model_config": rows[0]["model_config"],
                    "weights": str(part.path.relative_to(run_dir)),
                    "weights_sha256": checkpoint.files_sha256(part.path),
                    "runs": [_as_card(record) for record in rows],
                }
            )
    missing = [run for run in study.runs if run.run_id not in found]
    if missing:
        print(f"{run_dir}: this share is done; {len(missing)} runs of other processes are not")
        return card
    history = [_history(found[run.run_id]) for run in study.runs]
    partial = run_dir / "history.parquet.partial"
    pd.concat(history).to_parquet(partial, index=False)
    partial.replace(run_dir / "history.parquet")
    card |= {
        "status": "complete",
        "splits_sha256": checkpoint.files_sha256(run_dir / "splits.json"),
        "populations": populations,
        "seconds": card["seconds"] + seconds,
    }
    checkpoint.write_card(run_dir, card)
    for group in folder.iterdir():
        checkpoint.remove_states(group)
    return card


def _as_card(record: dict[str, Any]) -> dict[str, Any]:
    log = Log(**record["log"])
    quarantined = {"epoch": log.epochs, "step": log.bad_step + 1 if log.bad_step >= 0 else None}
    return {
        **{name: record[name] for name in ("cell", "assays", "fold", "seed", "run_id")},
        "status": log.status_name,
        "epochs": log.epochs,
        "best_validation_loss": log.best,
        "quarantined": quarantined if log.status == QUARANTINED else None,
        "read": record["read"],
        "target_scale": record["target_scale"],
    }


def _history(record: dict[str, Any]) -> pd.DataFrame:
    """One row an epoch of a run."""
    log = Log(**record["log"])
    bad_step = np.full(log.epochs, -1)
    if log.epochs:
        bad_step[-1] = log.bad_step
    return pd.DataFrame(
        {
            "run_id": record["run_id"],
            "epoch": np.arange(1, log.epochs + 1),
            "train_loss": np.array(log.train_loss, np.float32),
            "validation_loss": np.array(log.validation_loss, np.float32),
            "learning_rate": np.array(log.learning_rate, np.float32),
            "bad_step": bad_step,
        }
    )
