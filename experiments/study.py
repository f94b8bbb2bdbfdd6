"""What a request asks for: runs, folds, data and programs; and this process's share of them."""

import collections
import dataclasses
import functools
import itertools
from typing import Any

from tqdm import tqdm

from epi2expr_jax.dataset import load_dataset, plan_batches
from epi2expr_jax.errors import InputError, Problem, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.masking import CHANNELS
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.population import pairs_of
from epi2expr_jax.runs import (
    ASSAY_SETS,
    Run,
    RunInputs,
    TargetScale,
    parse_assay_sets,
    plan_runs,
)
from epi2expr_jax.splits import Fold, make_folds, select_folds
from epi2expr_jax.store import WindowStore
from epi2expr_jax.streaming import TrackCache
from epi2expr_jax.training import Trainer
from experiments.flags import TrainRequest
from experiments.shares import Share


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs that share a program: what they are, what they are trained on, and their tracks."""

    name: str
    trainer: Trainer
    runs: list[Run]
    inputs: RunInputs
    scales: list[TargetScale]
    cache: TrackCache


class Study:
    """A request, looked up in its store.

    Attributes:
        runs: all runs, those of one cell and assay together.
        folds: those asked for.

    Cells may lack assays. Where all cells and a kind of set (`each`, `pairs`, …) are asked for,
    what the store has no tracks for is left out, and said; what is named is refused.

    Raises:
        InputError: for unknown cells, assays or folds, or tracks the store does not have.
    """

    def __init__(self, request: TrainRequest):
        self.request = request
        self.store = WindowStore.open(request.store)
        self.cells = self._cells()
        self._every_fold = self._scheme()
        self.folds: list[Fold] = select_folds(self._every_fold, request.folds)
        self.runs = [
            Run(cell, assays, fold.name, seed)
            for cell, assays in self._pairs()
            for fold in self.folds
            for seed in range(request.seeds)
        ]

    def _cells(self) -> list[str]:
        cells = self.store.manifest.cells
        if self.request.cells == ["all"]:
            return cells
        unknown = [cell for cell in self.request.cells if cell not in cells]
        if unknown:
            raise InputError(
                Problem(
                    "--cells",
                    f"unknown cell {listing(unknown)}",
                    f"all, or some of {', '.join(cells)}",
                    nearest(unknown, cells)
                    or "correct the name, or build a store that has this cell",
                )
            )
        return self.request.cells

    def _scheme(self) -> list[Fold]:
        """All folds of the request's scheme, those not asked for included."""
        request, counts = self.request, collections.Counter(self.store.genes.chrom)
        blind = request.blind or self.store.manifest.blind
        return make_folds(request.cv, counts, blind=blind, seed=request.split_seed)

    def _pairs(self) -> list[tuple[str, tuple[str, ...]]]:
        """Cells with the assay sets to train on there.

        Raises:
            InputError: naming the tracks that the store lacks, if they were asked for by name or
                nothing is left.
        """
        asked, available = self.request.assays, self.store.manifest.assays
        sets = parse_assay_sets(asked, available)
        named = set(sets)
        if self.request.cells == ["all"]:
            by_name = [item for item in asked if item not in ASSAY_SETS]
            named = set(parse_assay_sets(by_name, available)) if by_name else set()
        there = {tuple(pair) for pair in self.store.manifest.tracks}
        pairs, left_out = [], []
        absent: dict[str, bool] = {}  # track → whether it was asked for by name
        for cell, assays in itertools.product(self.cells, sets):
            lacking = [f"{cell}-{assay}" for assay in assays if (cell, assay) not in there]
            absent |= {track: assays in named or absent.get(track, False) for track in lacking}
            (left_out if lacking else pairs).append((cell, assays))
        refused = [track for track in absent if absent[track] or not pairs]
        if refused:
            raise InputError(
                Problem(
                    str(self.store.path),
                    f"no track {listing(refused)}",
                    "a track for every chosen cell and assay",
                    "choose --cells or --assays without them, or build a store that has them",
                )
            )
        if left_out:
            print(
                f"left out: {len(left_out)} of {len(left_out) + len(pairs)} combinations of a cell "
                f"and an assay set, since the store has no track {listing(absent)}"
            )
        return pairs

    def groups(self, share: Share = Share(), data_limit: int | None = None) -> list[Group]:
        """This process's runs, by the number of assays they read; every track is looked at.

        Args:
            data_limit: bytes of tracks on a device; None: their share of its memory.

        Raises:
            InputError: if the store does not serve the model, naming every track at fault.
        """
        request, runs = self.request, share.of(self.runs)
        cells = list(dict.fromkeys(run.cell for run in runs))
        read = {assay for run in runs for assay in run.assays}
        assays = [assay for assay in self.store.manifest.assays if assay in read]
        if not runs:
            return []
        model, config = self._model(1), request.train_config
        data = load_dataset(self.store, model, cells, assays, request.input_config)
        cache = TrackCache(data, data_limit)
        reading = functools.partial(tqdm, desc="reading tracks", unit="track", disable=None)
        cache.check([pair for run in runs for pair in pairs_of(run)], reading)
        plans = plan_batches(
            self.store, model, self._every_fold, config.batch_size, config.balanced
        )
        groups = []
        for number in sorted({len(run.assays) for run in runs}):
            own = [run for run in runs if len(run.assays) == number]
            trainer = Trainer(self._model(number), config, plans)
            inputs, scales = plan_runs(data, own, self.folds, request.target)
            groups.append(Group(f"{number}-assay", trainer, own, inputs, scales, cache))
        return groups

    def _model(self, assays: int) -> Any:
        channels = assays * CHANNELS if self.request.train_config.masked else assays
        return REGISTRY[self.request.model](assays=channels, **self.request.model_options)
