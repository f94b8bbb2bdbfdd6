"""How a training is shown: a live line or plain ones, TensorBoard, Weights & Biases."""

import contextlib
import dataclasses
import importlib
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from epi2expr_jax.errors import collect
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import Machine, Watcher, train
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.planning import estimate_cpu
from epi2expr_jax.units import count
from experiments.cli.flags import command_line

TRACKERS = ("tensorboard", "wandb")

_INSTALL = "pip install 'epi2expr_jax[track]'"
_LINE_EVERY = 30.0  # seconds between plain lines
_STATE_EVERY = 0.5  # seconds between looks at all runs, on a terminal
_WIDTH = 79  # of a terminal
_LONG, _BRIEF = 20 * 60, 60  # seconds: from where a training is long, and not worth a word
_FIRST_WIDTH, _FIRST_EPOCHS = 0.25, 20  # of a first look
_WORTH = 0.9  # of the time: what saves less than a tenth is no advice
_TO_BEST = 10  # epochs until the best one, in the middle of trainings of docs/decisions/0088


def in_words(seconds: float) -> str:
    """A time, as exact as it is worth."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    days = seconds / 86_400
    return f"{seconds / 3600:.1f} h" if days < 4 else f"{days:,.0f} days"


def time_on_cpu(config: Any, training: TrainConfig, steps: float, begun: bool = False) -> str:
    """About how long so many gene-steps of a model take here, in words; empty if not known.

    Args:
        config: of the model; None if it cannot be made.
        training: by which the models train; gene-steps are of all its epochs.
        begun: they are of the epochs that are left, and when models stop is not foretold.
    """
    seconds = None if config is None else estimate_cpu(config)
    if seconds is None:
        return ""
    told = f"at most about {in_words(steps * seconds)}"
    usual = training.early_stop.patience + _TO_BEST if training.early_stop else training.epochs
    if usual < training.epochs and not begun:
        brief = in_words(steps * seconds * usual / training.epochs)
        told = f"about {brief} if models stop after {count(usual, 'epoch')}; {told}"
    return f"training on the CPU here (cores: {_cores()}), an estimate: {told}"


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quicker_ways(
    config: Any, training: TrainConfig, steps: float, seeds: int = 1, flag_format: str = "{} = {}"
) -> list[str]:
    """What to set for a quicker first look, where so many gene-steps take long on CPU.

    Args:
        config, training, steps: as of `time_on_cpu`.
        seeds: as asked for.
        flag_format: how a flag is given.
    """
    seconds = None if config is None else estimate_cpu(config)
    if config is None or seconds is None or steps * seconds < _LONG:
        return []
    narrow = estimate_cpu(dataclasses.replace(config, width=_FIRST_WIDTH)) or seconds
    ways = [("width", _FIRST_WIDTH, narrow),
            ("epochs", _FIRST_EPOCHS, seconds * _FIRST_EPOCHS / training.epochs),
            ("seeds", 1, seconds / seeds)]  # fmt: skip
    told = [f"{flag_format.format(name, value)} (at most {in_words(steps * less)})"
            for name, value, less in ways if less < _WORTH * seconds]  # fmt: skip
    return (
        [f"for a quicker first look, one of: {', '.join(told)}; scores may be lower, or less sure"]
        if told
        else []
    )


class Tracker(Protocol):
    """Where losses are also shown."""

    def log(self, name: str, epoch: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, run_dir: pathlib.Path):
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        self._writer = SummaryWriter(str(run_dir / "tensorboard"))

    def log(self, name: str, epoch: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(f"{key}/{name}", value, epoch)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """All runs of a training in one W&B run; each has an axis of its own epochs."""

    def __init__(self, run_dir: pathlib.Path):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run: Any = wandb.init(project="epi2expr_jax", name=run_dir.name, dir=str(run_dir))

    def log(self, name: str, epoch: int, values: dict[str, float]) -> None:
        self._run.log({f"{key}/{name}": value for key, value in values.items()} | {"epoch": epoch})

    def close(self) -> None:
        self._run.finish()


class Shown(Watcher):
    """Shows a training: a live line on a terminal, elsewhere a plain line every half minute.

    Args:
        names: some of `TRACKERS`, which are shown the losses too.

    Raises:
        InputError: naming the package that is missing.
    """

    def __init__(self, run_dir: pathlib.Path, names: Iterable[str] = ()):
        with collect() as problems:
            for name in names:
                package = {"tensorboard": "tensorboardX", "wandb": "wandb"}[name]
                try:
                    importlib.import_module(package)
                except ImportError as error:
                    found = f"no {package} that works in this Python environment ({error})"
                    problems.add(f"--track={name}", found, "the extra `track`", _INSTALL)
        self._run_dir, self._names = run_dir, tuple(names)
        self._trackers: list[Tracker] = []

    def says(self, text: str) -> None:
        print(text, flush=True)

    def warns(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def reading(self, tracks: Iterable) -> Iterable:
        return tqdm(tracks, desc="reading tracks", unit="track", disable=None)

    def begins(self, name: str, population: Population, genes: np.ndarray) -> None:
        if not self._trackers:  # they write into the run directory, which must be there
            made = {"tensorboard": _TensorBoard, "wandb": _WandB}
            self._trackers = [made[name](self._run_dir) for name in self._names]
        self._population, self._genes = population, genes
        self._label = f"{name}, {count(len(population.runs), 'run')}"
        self._foretell()
        self.compiled()  # until it is, which may be never: it may be stopped before
        # One line that is written over again, of words alone.
        self._bar = tqdm(bar_format="{desc}", disable=None)
        self._show(f"{self._label}: compiling")

    def _foretell(self) -> None:
        """On CPU, where it takes long, say so before it does."""
        left, trainer = self._work()[1], self._population.trainer
        config, training = trainer.model_config, trainer.config
        if self._population.lanes.platform != "cpu":
            return
        if left * (estimate_cpu(config) or 0) > _BRIEF:
            begun = any(log.epochs for log in self._population.logs)
            told = time_on_cpu(config, training, left, begun)
            # What has begun goes on as it is.
            less = [] if begun else quicker_ways(config, training, left, flag_format="--{}={}")
            print("\n  ".join([f"{self._label}: {told}", *less]), flush=True)

    def compiled(self) -> None:
        self._began = self._last_line = time.perf_counter()
        self._work_before = self._work()[0]

    def _work(self) -> tuple[float, float]:
        """Genes trained on so far, over runs and epochs, and still to be if no run stops early."""
        epochs, logs = self._population.trainer.config.epochs, self._population.logs
        left = [epochs - log.of_attempt if log.status_name == "running" else 0 for log in logs]
        done = [log.epochs for log in logs]
        return float(self._genes @ np.array(done)), float(self._genes @ np.array(left))

    def advances(self, advanced: list[int]) -> None:
        since = time.perf_counter() - self._last_line
        if self._bar.disable and since > _LINE_EVERY:
            self._line()
        elif not self._bar.disable and since > _STATE_EVERY:
            self._show(self._state())
            self._last_line = time.perf_counter()
        for i in advanced if self._trackers else ():
            run, log = self._population.runs[i], self._population.logs[i]
            losses = ("train_loss", "validation_loss", "learning_rate")
            values = {loss: getattr(log, loss)[-1] for loss in losses}
            for tracker in self._trackers:
                tracker.log(f"{run.cell}/{run.label}/{run.fold}/{run.seed}", log.epochs, values)

    def _show(self, text: str) -> None:
        self._bar.set_description_str(text[:_WIDTH])

    def _state(self) -> str:
        """Where things stand, in a line of a terminal."""
        logs = self._population.logs
        done, left = self._work()
        said = [f"{100 * done / (done + left):.0f} %"]
        if ended := len(logs) - self._population.alive:
            said.append(f"{ended} ended")
        last = [log.validation_loss[-1] for log in logs if log.epochs]
        finite = [loss for loss in last if np.isfinite(loss)]
        said.append(f"loss {np.median(finite):.3f}" if finite else "no loss")
        if left and done > self._work_before:
            seconds = time.perf_counter() - self._began
            early = self._population.trainer.config.early_stop
            most = "at most " if early else ""
            said.append(f"{most}{in_words(left * seconds / (done - self._work_before))} left")
        return f"{self._label}: {', '.join(said)}"

    def _line(self) -> None:
        """Print where things stand, for a log file."""
        print(self._state(), flush=True)
        self._last_line = time.perf_counter()

    def ends(self) -> None:
        if self._bar.disable:
            self._line()
        self._bar.close()
        del self._population  # its arrays must go before others are made

    def close(self) -> None:
        """End what the trackers write."""
        for tracker in self._trackers:
            tracker.close()


def train_shown(
    request: TrainRequest,
    run_dir: pathlib.Path,
    machine: Machine = Machine(),
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Train as `study.train` does, and show it.

    Args:
        track: some of `TRACKERS`.

    Raises:
        InputError: as `study.train`, or if a package is missing.
    """
    with contextlib.closing(Shown(run_dir, track)) as shown:
        return train(request, run_dir, machine=machine, watcher=shown, command=command_line())
