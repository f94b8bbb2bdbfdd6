"""What is trained: runs, what each is trained on, and its target.

A run is one model: a cell, the assays it reads, a fold, a seed. Its randomness comes from names,
never from its place among others.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from epi2expr_jax.errors import collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import Dataset
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.names import as_names
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.splits import Fold
from epi2expr_jax.training.targets import LABEL, TargetScale
from epi2expr_jax.units import count

# Names for many assay sets at once: how many of a store's assays each set holds.
ASSAY_SETS: Mapping[str, Callable[[int], int]] = {
    "each": lambda assays: 1,
    "all": lambda assays: assays,
    "pairs": lambda assays: 2,
    "leave_one_out": lambda assays: assays - 1,
}
_OF_SEVERAL = ("pairs", "leave_one_out")

RUNNING, STOPPED, FINISHED, QUARANTINED = range(4)
NEVER_IMPROVED = "never improved"  # after its first epoch; stopped early
STATUS_NAMES = ("running", "stopped early", "finished", "quarantined")


@dataclasses.dataclass(frozen=True)
class Run:
    """One model to train: which cell, which assays as input, which fold, which seed."""

    cell: str
    assays: tuple[str, ...]
    fold: str
    seed: int

    @property
    def label(self) -> str:
        """The assay set as one name."""
        return "+".join(self.assays)

    @property
    def tracks(self) -> list[tuple[str, str]]:
        """Cell and assay of each track it reads, in the order of its channels."""
        return [(self.cell, assay) for assay in self.assays]

    @property
    def run_id(self) -> str:
        """A name made of what the run is, never of its place among others."""
        return _digest(self.cell, self.label, self.fold, self.seed).hex()[:12]


@dataclasses.dataclass
class Log:
    """What is known of one run's training: losses and rates by epoch, and how it stands.

    Attributes:
        status: as in `one_run.RunState`.
        bad_step: of a quarantined run, the step of its last epoch, from 0, whose loss was not
            finite; -1 if only the validation loss was not.
        restarted: epochs of a first attempt that never improved, after which the run began again
            with fresh weights (`TrainConfig.retry`); 0 for none.
    """

    train_loss: list[float] = dataclasses.field(default_factory=list)
    validation_loss: list[float] = dataclasses.field(default_factory=list)
    learning_rate: list[float] = dataclasses.field(default_factory=list)
    status: int = RUNNING
    bad_step: int = -1
    restarted: int = 0

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.train_loss)

    @property
    def of_attempt(self) -> int:
        """Epochs since the run began with fresh weights, for the first or the second time."""
        return self.epochs - self.restarted

    @property
    def best(self) -> float | None:
        """The lowest validation loss, None before there is one."""
        finite = [loss for loss in self.validation_loss if np.isfinite(loss)]
        return min(finite, default=None)

    @property
    def status_name(self) -> str:
        """How the run stands, in words."""
        firsts = self.validation_loss[:1], self.validation_loss[self.restarted :][:1]
        if self.status == STOPPED and [self.best] in firsts:
            return NEVER_IMPROVED
        return STATUS_NAMES[self.status]

    @property
    def flat_at_once(self) -> bool:
        """Whether its first and only attempt has ended and never improved."""
        return not self.restarted and self.status_name == NEVER_IMPROVED

    def short_of(self, epochs: int) -> bool:
        """Whether it ended because it had taken all of fewer epochs than these."""
        return self.status == FINISHED and self.of_attempt < epochs


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()


def _key(*parts: object) -> np.ndarray:
    """Threefry key data `[2]` from names."""
    return np.frombuffer(_digest(*parts)[:8], np.uint32)


def second_key(model_key: np.ndarray) -> np.ndarray:
    """What decides weights and dropout of a run's second attempt."""
    return _key("again", model_key.tobytes().hex())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunInputs:
    """What distinguishes one run on the device, apart from its tracks; stacked on `R` for many.

    Attributes:
        target: `[G]` the standardised target of every gene.
        train, validation: `[G]` which genes belong to each part.
        order_key: `[2]` decides the order of genes; shared by runs that differ only in assays.
        model_key: `[2]` decides initial weights and dropout.
    """

    # Any: while JAX takes a tree apart, what stands for an array may be none.
    target: Any
    train: Any
    validation: Any
    order_key: Any
    model_key: Any


def plan_runs(
    dataset: Dataset,
    runs: Sequence[Run],
    folds: Iterable[Fold],
    target: str,
    train_share: float = 1.0,
) -> tuple[RunInputs, list[TargetScale]]:
    """What `runs` are trained on, stacked on `R` on the host, and each run's target scale.

    Args:
        train_share: of a fold's training genes, drawn for each seed and shared by runs that differ
            only in assays.
    """
    masks = {fold.name: fold.masks(dataset.genes) for fold in folds}
    scales: dict[tuple[str, str], TargetScale] = {}
    targets: dict[tuple[str, str], np.ndarray] = {}
    for run in runs:
        key = run.cell, run.fold
        if key not in scales:
            cell = dataset.cells.index(run.cell)
            values = dataset.expression[cell]
            label = None if dataset.labels is None else dataset.labels[cell]
            where = f"cell {run.cell}, fold {run.fold}"
            fitted = values if target == LABEL else values[masks[run.fold]["train"]]
            scale = scales[key] = TargetScale.fit(target, fitted, where)
            observed = scale.observed(values, label)
            targets[key] = scale.standardise(observed).astype(np.float32)
    inputs = RunInputs(
        target=np.stack([targets[run.cell, run.fold] for run in runs]),
        train=np.stack([_drawn_mask(masks[run.fold]["train"], train_share, run) for run in runs]),
        validation=np.stack([masks[run.fold]["validation"] for run in runs]),
        order_key=np.stack([_key("order", run.seed, run.cell, run.fold) for run in runs]),
        model_key=np.stack([_key("model", run.run_id) for run in runs]),
    )
    return inputs, [scales[run.cell, run.fold] for run in runs]


def drawn(genes: int, share: int | float, run: Run) -> Int[np.ndarray, " g"]:
    """Which of so many training genes a run trains on, at least one, in order."""
    if share == 1:
        return np.arange(genes)
    random = np.random.default_rng(_key("share", run.seed, run.cell, run.fold))
    return np.sort(random.permutation(genes)[: max(1, round(share * genes))])


def _drawn_mask(
    train: Bool[np.ndarray, " G"], share: int | float, run: Run
) -> Bool[np.ndarray, " G"]:
    kept = np.flatnonzero(train)[drawn(int(train.sum()), share, run)]
    return np.isin(np.arange(len(train)), kept)


def parse_assay_sets(text: Sequence[str], available: Sequence[str]) -> list[tuple[str, ...]]:
    """Assay sets from the command line: names of `ASSAY_SETS`, single assays, and `A+B` for a set.

    Each set is put in the store's order, so that `A+B` and `B+A` are one, and comes once.

    Raises:
        InputError: naming every assay the store does not have, and every kind of set that needs
            more assays than it has.
    """
    sets: list[tuple[str, ...]] = []
    unknown = []
    with collect() as problems:
        for item in as_names(text):
            if item in ASSAY_SETS:
                size, least = ASSAY_SETS[item](len(available)), 2 if item in _OF_SEVERAL else 1
                if len(available) < least:
                    problems.add(
                        f"--assays={item}",
                        f"{len(available)} assay in the store ({listing(available)})",
                        f"at least {least}",
                        "give --assays=each, or build a store of more assays",
                    )
                sets += itertools.combinations(available, size)
            else:
                names = item.split("+")
                unknown += [name for name in names if name not in available]
                sets.append(tuple(assay for assay in available if assay in names))
        if unknown or not text:
            problems.add(
                "--assays",
                f"unknown assay {listing(unknown)}" if unknown else "nothing",
                f"{', '.join(ASSAY_SETS)}, or some of {', '.join(available)} (join a set by +)",
                nearest(unknown, [*available, *ASSAY_SETS])
                or "correct the name, or build a store that has this assay",
            )
    return list(dict.fromkeys(sets))


def plan_batches(
    store: WindowStore, model_config: ModelConfig, folds: Iterable[Fold], size: int, balanced: bool
) -> tuple[BatchPlan, BatchPlan]:
    """The batches of training and of validation.

    They depend on the whole store and all folds, so a run gives the same result alone or with
    others.
    """
    most = model_config.contacts
    if not most:
        return BatchPlan(size), BatchPlan(size)
    chrom = store.genes.chrom.to_numpy()
    counts = [
        (store.regions(cell).by_gene(len(chrom), most)[0] >= 0).sum(1)
        for cell in store.manifest.regions_sha256
    ]
    masks = [fold.masks(store.genes) for fold in folds]

    def plan(part: str) -> BatchPlan:
        parts = (own[mask[part]] for own in counts for mask in masks)
        return BatchPlan.of(size, most, parts, balanced=balanced)

    return plan("train"), plan("validation")


def seen_words(started: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be said of runs that started from weights which had seen their test genes.

    Args:
        started: what their records say.
    """
    seen = [one for one in started if one["seen"]]
    if not seen:
        return []
    most = max(seen, key=lambda one: one["seen"] / one["test_genes"])
    runs = count(len(seen), "run")
    return [
        f"{runs} started from weights that had seen their test genes (up to "
        f"{most['seen']} of {most['test_genes']}): their scores are not of genes that no model saw."
    ]
