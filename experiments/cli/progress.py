"""How a training shows itself: a live line or plain ones, TensorBoard, Weights & Biases."""

import collections
import importlib.util
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.many_runs import Population

TRACKERS = ("tensorboard", "wandb")

_LINE_EVERY = 30.0  # seconds between plain lines
_WINDOW = 50  # chunks over which the pace is taken


class Tracker(Protocol):
    """Where losses are shown beside this program."""

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


def trackers(names: Iterable[str], run_dir: pathlib.Path) -> list[Tracker]:
    """Those asked for.

    Raises:
        InputError: naming the package that is missing.
    """
    package = {"tensorboard": "tensorboardX", "wandb": "wandb"}
    missing = [package[name] for name in names if importlib.util.find_spec(package[name]) is None]
    if missing:
        raise InputError(
            "--track",
            f"no {', '.join(missing)} in this Python environment",
            "the extra `track`",
            "pip install 'epi2expr_jax[track]'",
        )
    made = {"tensorboard": _TensorBoard, "wandb": _WandB}
    return [made[name](run_dir) for name in names]


class Progress:
    """Of one population: a live line on a terminal, elsewhere a plain one now and then.

    Args:
        genes: training genes of each run.
        begun: runs' epochs trained before.
    """

    def __init__(self, label: str, population: Population, genes: np.ndarray):
        self.label, self.population, self.genes = label, population, genes
        self._epochs = population.trainer.config.epochs
        begun = sum(log.epochs for log in population.logs)
        self._bar = tqdm(total=self._total(), initial=begun, desc=label, unit="epoch", disable=None)
        self._pace: collections.deque[tuple[float, int, int]] = collections.deque(maxlen=_WINDOW)
        self._pace.append((time.perf_counter(), 0, 0))
        self._last_line = time.perf_counter()

    def _total(self) -> int:
        """Epochs of all runs, if none of those alive stops early."""
        return sum(
            self._epochs if log.status_name == "running" else log.epochs
            for log in self.population.logs
        )

    def update(self, advanced: list[int]) -> None:
        """These runs took an epoch."""
        _, genes, epochs = self._pace[-1]
        genes += int(self.genes[advanced].sum())
        self._pace.append((time.perf_counter(), genes, epochs + len(advanced)))
        self._bar.total = self._total()
        if self._bar.disable:
            if time.perf_counter() - self._last_line > _LINE_EVERY:
                self.line()
        else:
            self._bar.update(len(advanced))
            self._bar.set_postfix_str(self._state())

    def _state(self) -> str:
        logs = self.population.logs
        last = [log.validation_loss[-1] for log in logs if log.epochs]
        finite = [loss for loss in last if np.isfinite(loss)]
        (begin, genes0, _), (now, genes, _) = self._pace[0], self._pace[-1]
        losses = f"best {min(finite):.3f} median {np.median(finite):.3f}" if finite else "no loss"
        pace = (genes - genes0) / max(now - begin, 1e-9)
        return f"{self.population.alive} alive, validation {losses}, {pace:,.0f} genes/s"

    def line(self) -> None:
        """Print where things stand, for a log file."""
        if not self._bar.disable:
            return
        (begin, _, epochs0), (now, _, epochs) = self._pace[0], self._pace[-1]
        done = sum(log.epochs for log in self.population.logs)
        total = self._total()
        left = ""
        if done < total and epochs > epochs0:
            minutes = (total - done) * (now - begin) / (epochs - epochs0) / 60
            left = f", at most {minutes:.0f} min left"
        print(f"{self.label}: {done} of {total} epochs, {self._state()}{left}")
        sys.stdout.flush()
        self._last_line = time.perf_counter()

    def close(self) -> None:
        self.line()
        self._bar.close()
