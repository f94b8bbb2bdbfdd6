"""Floor 2. From a store to what a model reads: resident arrays, targets, and runs.

One store serves every model: the centre of a wider window is cropped and finer bins are merged
exactly; a store that is narrower, coarser or not divisible is refused.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from epi2expr_jax import signal as signal_ops
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.splits import Fold
from epi2expr_jax.store import WindowStore

TARGETS = ("minmax", "log2")
ORIENTATIONS = ("strand", "genomic")


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How stored signal is turned into model input.

    Attributes:
        transform: `auto` (by the unit of each assay's tracks), or one of `signal.TRANSFORMS`.
        orientation: `strand` flips minus-strand genes so that windows read 5′ to 3′; `genomic`
            keeps genomic order, as the original CNN did.
    """

    transform: str = "auto"
    orientation: str = "strand"

    def __post_init__(self):
        choices = ("auto", *signal_ops.TRANSFORMS)
        for flag, value, allowed in (
            ("--transform", self.transform, choices),
            ("--orientation", self.orientation, ORIENTATIONS),
        ):
            if value not in allowed:
                raise InputError(Problem(flag, value, " or ".join(allowed), "choose one of these"))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Model input and expression of the chosen cells and assays, for every gene of the store.

    Attributes:
        cells, assays: labels of the first two axes.
        genes: the gene table, `[G]` rows.
        signal: `[C, A, G, W]` transformed, oriented bin means, on the device.
        expression: `[C, G]` RPKM, on the host.
    """

    cells: tuple[str, ...]
    assays: tuple[str, ...]
    genes: pd.DataFrame
    signal: Float[Array, "C A G W"]
    expression: Float[np.ndarray, "C G"]


def load_dataset(
    store: WindowStore,
    window: WindowSpec,
    cells: Sequence[str],
    assays: Sequence[str],
    config: InputConfig = InputConfig(),
) -> Dataset:
    """Read, crop, merge, transform and orient the windows of the named cells and assays.

    Raises:
        InputError: if the store's window does not serve the model's, or a track has negative
            values under a logarithm, naming every such track.
    """
    centre, factor = window.crop_and_merge(store.manifest.window)
    minus = (store.genes.strand == "-").to_numpy()
    out = np.empty((len(cells), len(assays), len(store.genes), window.bins), np.float32)
    problems = []
    for a, assay in enumerate(assays):
        unit = store.manifest.units[assay]
        name = signal_ops.UNIT_TRANSFORM[unit] if config.transform == "auto" else config.transform
        for c, cell in enumerate(cells):
            raw = store.read_signal([cell], [assay], centre)[0, 0]
            if name == "log1p" and (raw < 0).any():
                problems.append(
                    Problem(
                        f"{store.path}: {cell}-{assay}",
                        f"negative signal (lowest {raw.min():.3g})",
                        "no value below 0 under the transform ln(x + 1)",
                        "--transform=arcsinh takes any sign, or give the right unit in the sheet",
                    )
                )
                continue
            values = signal_ops.TRANSFORMS[name](signal_ops.merge_bins(raw, factor))
            out[c, a] = (
                signal_ops.orient(values, minus) if config.orientation == "strand" else values
            )
    if problems:
        raise InputError(problems)
    expression = store.read_expression(cells)
    return Dataset(tuple(cells), tuple(assays), store.genes, jnp.asarray(out), expression)


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """From RPKM to what one run is trained on, and back. Statistics of its training genes only.

    `minmax` is RPKM scaled to 0-1 within the cell; `log2` is log2(RPKM + 1). The loss is taken on
    the standardised target, so that thresholds mean the same for every cell and target.
    """

    kind: str
    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def fit(cls, kind: str, rpkm: Float[np.ndarray, " G"], where: str) -> "TargetScale":
        """Fit to the RPKM of the training genes.

        Raises:
            InputError: for an unknown kind, or if all training genes are expressed alike.
        """
        if kind not in TARGETS:
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
        scale = cls(kind, float(rpkm.min()), float(rpkm.max()), 0.0, 1.0)
        raw = scale.to_raw(rpkm)
        return dataclasses.replace(scale, mean=float(raw.mean()), deviation=float(raw.std()))

    def to_raw(self, rpkm: np.ndarray) -> np.ndarray:
        """RPKM on the target's own scale: 0-1, or log2(RPKM + 1)."""
        if self.kind == "log2":
            return np.log2(rpkm + 1)
        return (rpkm - self.low) / (self.high - self.low)

    def standardise(self, rpkm: np.ndarray) -> np.ndarray:
        """RPKM as the loss sees it: mean 0 and deviation 1 over the training genes."""
        return (self.to_raw(rpkm) - self.mean) / self.deviation

    def unstandardise(self, prediction: np.ndarray) -> np.ndarray:
        """A model's output on the target's own scale."""
        return prediction * self.deviation + self.mean

    def raw_to_log2(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as log2(RPKM + 1); RPKM predicted below 0 counts as 0."""
        if self.kind == "log2":
            return raw
        return np.log2(np.maximum(raw * (self.high - self.low) + self.low, 0) + 1)


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
    """What distinguishes one run on the device; stacked on `R` for many.

    Attributes:
        cell, assays: `[]` and `[a]` indices into the dataset's first two axes.
        target: `[G]` the standardised target of every gene.
        train, validation: `[G]` which genes belong to each part.
        order_key: `[2]` decides the order of genes; shared by runs that differ only in assays.
        model_key: `[2]` decides initial weights and dropout.
    """

    # Any: while JAX takes a tree apart, what stands for an array may be none.
    cell: Any
    assays: Any
    target: Any
    train: Any
    validation: Any
    order_key: Any
    model_key: Any


def locate_runs(
    dataset: Dataset, runs: Sequence[Run]
) -> tuple[Int[Array, " R"], Int[Array, "R a"]]:
    """Where each run finds its input: indices of its cell and of its assays in the dataset."""
    cells = [dataset.cells.index(run.cell) for run in runs]
    assays = [[dataset.assays.index(assay) for assay in run.assays] for run in runs]
    return jnp.asarray(cells, jnp.int32), jnp.asarray(assays, jnp.int32)


def plan_runs(
    dataset: Dataset, runs: Sequence[Run], folds: Iterable[Fold], target: str
) -> tuple[RunInputs, list[TargetScale]]:
    """The device inputs for training `runs`, stacked on `R`, and each run's target scale."""
    chrom = dataset.genes.chrom.to_numpy()
    masks = {fold.name: fold.masks(chrom) for fold in folds}
    scales: dict[tuple[str, str], TargetScale] = {}
    targets: dict[tuple[str, str], np.ndarray] = {}
    for run in runs:
        key = run.cell, run.fold
        if key not in scales:
            rpkm = dataset.expression[dataset.cells.index(run.cell)]
            where = f"cell {run.cell}, fold {run.fold}"
            scales[key] = TargetScale.fit(target, rpkm[masks[run.fold]["train"]], where)
            targets[key] = scales[key].standardise(rpkm).astype(np.float32)
    cell, assays = locate_runs(dataset, runs)
    inputs = RunInputs(
        cell=cell,
        assays=assays,
        target=jnp.asarray([targets[run.cell, run.fold] for run in runs]),
        train=jnp.asarray([masks[run.fold]["train"] for run in runs]),
        validation=jnp.asarray([masks[run.fold]["validation"] for run in runs]),
        order_key=jnp.asarray([_key("order", run.seed, run.cell, run.fold) for run in runs]),
        model_key=jnp.asarray([_key("model", run.run_id) for run in runs]),
    )
    return inputs, [scales[run.cell, run.fold] for run in runs]


def parse_assay_sets(text: Sequence[str], available: Sequence[str]) -> list[tuple[str, ...]]:
    """Assay sets from the command line: `each`, `all`, single names, and `A+B` for a set.

    Each set is put in the store's order, so that `A+B` and `B+A` are one.

    Raises:
        InputError: naming every assay the store does not have.
    """
    sets: list[tuple[str, ...]] = []
    unknown = []
    for item in text:
        if item == "each":
            sets += [(assay,) for assay in available]
        elif item == "all":
            sets.append(tuple(available))
        else:
            names = item.split("+")
            unknown += [name for name in names if name not in available]
            sets.append(tuple(assay for assay in available if assay in names))
    if unknown:
        raise InputError(
            Problem(
                "--assays",
                f"unknown assay {listing(unknown)}",
                f"each, all, or some of {', '.join(available)} (join a set by +)",
                "correct the name, or build a store that has this assay",
            )
        )
    return list(dict.fromkeys(sets))
