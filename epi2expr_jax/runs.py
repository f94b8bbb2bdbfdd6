"""Floor 2. What is trained: runs, what each is trained on, and its target.

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
from jaxtyping import Bool, Float, Int
from scipy import special

from epi2expr_jax.dataset import Dataset
from epi2expr_jax.errors import InputError, Problem, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.splits import Fold

TARGETS = ("minmax", "log2")
LABEL = "label"  # the target of classification
# Names for many assay sets at once: how many of a store's assays each set holds.
ASSAY_SETS: Mapping[str, Callable[[int], int]] = {
    "each": lambda assays: 1,
    "all": lambda assays: assays,
    "pairs": lambda assays: 2,
    "leave_one_out": lambda assays: assays - 1,
}
_OF_SEVERAL = ("pairs", "leave_one_out")


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """From RPKM to what one run is trained on, and back. Statistics of its training genes only.

    `minmax` is RPKM scaled to 0-1 within the cell; `log2` is log2(RPKM + 1). The loss is taken on
    the standardised target, so that thresholds mean the same for every cell and target.
    `label` is whether a gene is expressed: 0 or 1, as given with the store, or RPKM at or above the
    median of the cell's genes (`low`); the model's output are log odds.
    """

    kind: str
    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def fit(cls, kind: str, rpkm: Float[np.ndarray, " G"], where: str) -> "TargetScale":
        """Fit to the RPKM of the training genes (for `label`: of all the study's genes).

        Raises:
            InputError: for an unknown kind, or if all genes are expressed alike.
        """
        if kind not in (*TARGETS, LABEL):
            raise InputError(Problem("--target", kind, " or ".join(TARGETS), "choose one of these"))
        rpkm = rpkm.astype(np.float64)
        if not rpkm.max() > rpkm.min():
            raise InputError(
                Problem(
                    where,
                    f"the same expression ({rpkm.min():g} RPKM) in all {len(rpkm)} training genes",
                    "expression that differs between genes",
                    "check the expression table, or leave this cell out",
                )
            )
        if kind == LABEL:
            return cls(kind, float(np.median(rpkm)), float(rpkm.max()), 0.0, 1.0)
        scale = cls(kind, float(rpkm.min()), float(rpkm.max()), 0.0, 1.0)
        raw = scale.to_raw(rpkm)
        return dataclasses.replace(scale, mean=float(raw.mean()), deviation=float(raw.std()))

    def to_raw(self, rpkm: np.ndarray) -> np.ndarray:
        """RPKM on the target's own scale: 0-1, log2(RPKM + 1), or the label."""
        if self.kind == "log2":
            return np.log2(rpkm + 1)
        if self.kind == LABEL:
            return (rpkm >= self.low).astype(float)
        return (rpkm - self.low) / (self.high - self.low)

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as the loss sees it: mean 0 and deviation 1 in training."""
        return (raw - self.mean) / self.deviation

    def unstandardise(self, prediction: np.ndarray) -> np.ndarray:
        """A model's output on the target's own scale; log odds become a probability."""
        if self.kind == LABEL:
            return special.expit(prediction)
        return prediction * self.deviation + self.mean

    def raw_to_log2(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as log2(RPKM + 1); RPKM predicted below 0 counts as 0.

        Labels and probabilities stay what they are.
        """
        if self.kind in ("log2", LABEL):
            return raw
        return np.log2(np.maximum(raw * (self.high - self.low) + self.low, 0) + 1)

    def observed(
        self, rpkm: Float[np.ndarray, " G"], label: Bool[np.ndarray, " G"] | None
    ) -> Float[np.ndarray, " G"]:
        """What was observed, on the target's own scale: a given label, or made of RPKM."""
        if self.kind == LABEL and label is not None:
            return label.astype(float)
        return self.to_raw(rpkm.astype(np.float64))


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
    def run_id(self) -> str:
        """A name made of what the run is, never of its place among others."""
        return _digest(self.cell, self.label, self.fold, self.seed).hex()[:12]


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()


def _key(*parts: object) -> np.ndarray:
    """Threefry key data `[2]` from names."""
    return np.frombuffer(_digest(*parts)[:8], np.uint32)


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
    chrom = dataset.genes.chrom.to_numpy()
    masks = {fold.name: fold.masks(chrom) for fold in folds}
    scales: dict[tuple[str, str], TargetScale] = {}
    targets: dict[tuple[str, str], np.ndarray] = {}
    for run in runs:
        key = run.cell, run.fold
        if key not in scales:
            cell = dataset.cells.index(run.cell)
            rpkm = dataset.expression[cell]
            label = None if dataset.labels is None else dataset.labels[cell]
            where = f"cell {run.cell}, fold {run.fold}"
            fitted = rpkm if target == LABEL else rpkm[masks[run.fold]["train"]]
            scale = scales[key] = TargetScale.fit(target, fitted, where)
            observed = scale.observed(rpkm, label)
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
    unknown, problems = [], []
    for item in text:
        if item in ASSAY_SETS:
            size, least = ASSAY_SETS[item](len(available)), 2 if item in _OF_SEVERAL else 1
            if len(available) < least:
                problems.append(
                    Problem(
                        f"--assays={item}",
                        f"{len(available)} assay in the store ({listing(available)})",
                        f"at least {least}",
                        "give --assays=each, or build a store of more assays",
                    )
                )
            sets += itertools.combinations(available, size)
        else:
            names = item.split("+")
            unknown += [name for name in names if name not in available]
            sets.append(tuple(assay for assay in available if assay in names))
    if unknown or not text:
        problems.append(
            Problem(
                "--assays",
                f"unknown assay {listing(unknown)}" if unknown else "nothing",
                f"{', '.join(ASSAY_SETS)}, or some of {', '.join(available)} (join a set by +)",
                nearest(unknown, [*available, *ASSAY_SETS])
                or "correct the name, or build a store that has this assay",
            )
        )
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(sets))
