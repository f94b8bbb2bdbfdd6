"""What a request asks for: runs, folds, data and programs; and which share one process takes."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.inputs.dataset import Dataset, load_dataset
from epi2expr_jax.inputs.gene_groups import read_groups
from epi2expr_jax.inputs.masking import CHANNELS
from epi2expr_jax.inputs.pools import PooledDataset, parse_cells
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.names import find_genes
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.source import Source
from epi2expr_jax.training.one_run import RunState, Trainer
from epi2expr_jax.training.runs import (
    ASSAY_SETS,
    Run,
    RunInputs,
    parse_assay_sets,
    plan_batches,
    plan_runs,
)
from epi2expr_jax.training.splits import Fold, blind_in, make_folds, select_folds, without_groups
from epi2expr_jax.training.targets import LABEL, TargetScale

BATCH = 16, 64  # genes a step: from where they are few to as published


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of how many processes this one is; each trains some of the runs."""

    index: int = 0
    count: int = 1

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """The runs of this process: neighbours, which read the same tracks."""
        begin, end = (i * len(runs) // self.count for i in (self.index, self.index + 1))
        return list(runs[begin:end])

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.index}-of-{self.count}"


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs that share a program: what they are, what they are trained on, and their tracks.

    Attributes:
        genes: the gene table, a row for every place of the inputs' axis `G`.
        fresh: the first state of a run, by index, where training starts from trained weights.
        started: by run id, what the record of such a run says of that.
    """

    name: str
    trainer: Trainer
    runs: list[Run]
    genes: pd.DataFrame
    inputs: RunInputs
    scales: list[TargetScale]
    cache: TrackCache
    fresh: Callable[[int], RunState] | None = None
    started: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def hold_out(folds: Sequence[Fold], store: WindowStore, names: Sequence[str]) -> list[Fold]:
    """Folds in which genes are held out by name.

    Raises:
        InputError: for unknown genes, or naming each fold that has no other genes to train on or to
            be chosen by.
    """
    if not names:
        return list(folds)
    genes = store.genes
    ids = tuple(genes.gene_id.iloc[find_genes(genes, names, "--test_genes")])
    folds = [dataclasses.replace(fold, held_out=ids) for fold in folds]
    with collect() as problems:
        for fold in folds:
            for part, mask in fold.masks(genes).items():
                if not mask.any():
                    found = f"no other gene for the {part} part of {fold.name}"
                    problems.add("--test_genes", found, "at least one", "hold out fewer")
    return folds


def folds_of(
    store: WindowStore,
    scheme: str,
    blind: Iterable[str],
    seed: int,
    test_genes: Sequence[str],
    groups: pd.DataFrame,
) -> list[Fold]:
    """All folds of a scheme over the genes of a store.

    Args:
        blind: as in `make_folds`; empty: those of the store.
        test_genes: names of genes that are held out.
        groups: columns gene and group, see `without_groups`; may be empty.
    """
    counts = collections.Counter(store.genes.chrom)
    blind = blind_in(blind, store.manifest.chrom_sizes) or store.manifest.blind
    folds = hold_out(make_folds(scheme, counts, blind=blind, seed=seed), store, test_genes)
    return without_groups(folds, store.genes, groups) if len(groups) else folds


def fitting_flags(store: WindowStore, model: str) -> str:
    """Flags of the model nearest to a published one that a store serves.

    Args:
        model: preferred to the others, of which only those of one window are looked at.

    Returns:
        Nothing if there is none.
    """
    stored = store.manifest.window
    for name in dict.fromkeys([model, *REGISTRY]):
        made = REGISTRY[name]
        flags = ""
        if name == model and issubclass(made, ChromoformerConfig):
            flags = _of_resolutions(made(), stored, store.manifest.region_bin_bp)
        if flags:
            return f"--model={name} {flags}".rstrip()
        if issubclass(made, WindowModelConfig):
            spec = _window_of(made).nearest_in(stored)
            with contextlib.suppress(InputError):  # too few bins for its pooling
                made(window_bp=spec.window_bp, bin_bp=spec.bin_bp)
                bins = f" --model_window_bp={spec.window_bp} --model_bin_bp={spec.bin_bp}"
                return f"--model={name}{'' if made.STORE_BP else bins}"
    return ""


def _of_resolutions(usual: ChromoformerConfig, stored: WindowSpec, region_bin_bp: int) -> str:
    """Flags of the resolutions and window nearest to the usual ones; nothing if there are none.

    Such a model reads an even number of its finest bins, in the middle of what is stored.
    """
    with contextlib.suppress(InputError):
        usual.window.crop_and_merge(stored)
        return " "
    bin_bp = math.lcm(stored.bin_bp, region_bin_bp)
    finest = bin_bp * max(1, round(min(usual.resolutions) / bin_bp))
    bins = [b for b in range(finest, usual.region_bp + 1, finest) if usual.region_bp % b == 0]
    most = min(usual.window_bp, stored.window_bp)
    for window_bp in range(most // (2 * finest) * 2 * finest, 0, -2 * finest):
        if bins and bins[0] == finest and (stored.window_bp - window_bp) % (2 * stored.bin_bp) == 0:
            near = {min(bins, key=lambda b, wanted=r: abs(b - wanted)) for r in usual.resolutions}
            resolutions = ",".join(map(str, sorted({*near, finest}, reverse=True)))
            return f"--resolutions={resolutions} --model_window_bp={window_bp}"
    return ""


def _window_of(made: Any) -> WindowSpec:
    """What a model of one window reads of a store that is as wide."""
    return WindowSpec(made.STORE_BP or made.window_bp, made.bin_bp)


def fitted(request: TrainRequest, store: WindowStore) -> TrainRequest:
    """The request with what depends on the store: the window, and the genes a step, of a model that
    has no fixed ones. These are a 25th of the genes, so that few make some 15 steps an epoch, as a
    power of 2 within `BATCH`."""
    training = request.train_config
    if not training.batch_size:
        genes = np.clip(len(store.genes) / 25, *BATCH)
        training = dataclasses.replace(training, batch_size=2 ** round(np.log2(genes)))
    options = fitted_options(request, store.manifest.window)
    return dataclasses.replace(request, model_options=options, train_config=training)


def fitted_options(request: TrainRequest, stored: WindowSpec) -> dict[str, Any]:
    """The options of the model, with the window of one that has no fixed one."""
    made, given = REGISTRY[request.model], request.model_options
    if getattr(made, "STORE_BP", 0) and "window_bp" not in given:
        bin_bp = {"bin_bp": given["bin_bp"]} if "bin_bp" in given else {}
        spec = dataclasses.replace(_window_of(made), **bin_bp).nearest_in(stored)
        given = {"window_bp": spec.window_bp, "bin_bp": spec.bin_bp, **given}
    return given


def pairs_with_tracks(
    request: TrainRequest,
    pools: Mapping[str, tuple[str, ...]],
    available: Sequence[str],
    tracks: Collection[tuple[str, str]],
    where: str,
    there: str = "build a store that has them",
) -> tuple[list[tuple[str, tuple[str, ...]]], str]:
    """Names of cells or pools with the assay sets to train on there.

    Args:
        pools: the cells of each name.
        available: all assays there are, in order.
        tracks: of which cells and assays there are tracks.
        where, there: for the error: a store or track sheet, and how tracks would get there.

    Returns:
        The pairs, and which others lack a track, in words; empty if there are none.

    Raises:
        InputError: naming the tracks that are not there, if they were asked for by name or nothing
            is left.
    """
    sets = parse_assay_sets(request.assays, available)
    named = set(sets)
    if request.cells == ["all"]:
        by_name = [item for item in request.assays if item not in ASSAY_SETS]
        named = set(parse_assay_sets(by_name, available)) if by_name else set()
    pairs, left_out = [], []
    absent: dict[str, bool] = {}  # track → whether it was asked for by name
    for (name, pool), assays in itertools.product(pools.items(), sets):
        lacking = [f"{c}-{a}" for c in pool for a in assays if (c, a) not in tracks]
        absent |= {track: assays in named or absent.get(track, False) for track in lacking}
        (left_out if lacking else pairs).append((name, assays))
    refused = [track for track in absent if absent[track] or not pairs]
    if refused:
        raise InputError(
            where,
            f"no track {listing(refused)}",
            "a track for every chosen cell and assay",
            f"choose cells or assays without them (--cells, --assays), or {there}",
        )
    if not left_out:
        return pairs, ""
    return pairs, (
        f"left out: {len(left_out)} of {len(left_out) + len(pairs)} combinations of a cell "
        f"and an assay set, since there is no track {listing(absent)}"
    )


class Study:
    """A request, looked up in its store.

    Attributes:
        runs: all runs, those of one cell and assay together.
        pools: the cells of each name that a run's `cell` may have; most often one.
        folds: those asked for.
        gene_groups: genes and their groups, if the request names a table of them.
        left_out: what the store has no tracks for, in words; empty if it has them all.

    Cells may lack assays. Where all cells and a kind of set (`each`, `pairs`, …) are asked for,
    combinations without tracks are left out; what is named is refused.

    Raises:
        InputError: for unknown cells, assays or folds, or tracks the store does not have.
    """

    def __init__(self, request: TrainRequest):
        self.store = request.input_config.view(WindowStore.open(request.store))
        self.request = request = fitted(request, self.store)
        manifest = self.store.manifest
        if not (manifest.expression_unit or (manifest.given_labels and request.target == LABEL)):
            found, remedy = "a store without expression", "build one with --expression"
            if manifest.given_labels:
                found, remedy = "a store of labels alone", "train with --task=classification"
            raise InputError(str(self.store.path), found, "expression, to train on", remedy)
        self.pools = parse_cells(request.cells, manifest.cells)
        self.gene_groups = pd.DataFrame()
        if request.gene_groups:
            self.gene_groups = read_groups(request.gene_groups, self.store.genes)
        self._every_fold = folds_of(
            self.store, request.cv, request.blind, request.split_seed, request.test_genes,
            self.gene_groups,
        )  # fmt: skip
        self.folds: list[Fold] = select_folds(self._every_fold, request.folds)
        tracks, where = {(cell, assay) for cell, assay in manifest.tracks}, str(self.store.path)
        pairs, self.left_out = pairs_with_tracks(
            request, self.pools, manifest.assays, tracks, where
        )
        self.runs = [
            Run(cell, assays, fold.name, seed)
            for cell, assays in pairs
            for fold in self.folds
            for seed in range(request.seeds)
        ]

    @functools.cached_property
    def source(self) -> Source | None:
        """The trained weights that the runs start from, if any.

        Raises:
            InputError: as `Source.of`.
        """
        request = self.request
        if not request.start_from:
            return None
        models = {len(run.assays): self._model(len(run.assays)) for run in self.runs}
        return Source.of(request, self.store, self.runs, self.folds, models)

    @property
    def started(self) -> dict[str, dict[str, Any]]:
        """By run id, what its record says of the weights it started from."""
        return self.source.records(self.store.genes, self.folds) if self.source else {}

    def groups(
        self,
        share: Share = Share(),
        data_limit: int | None = None,
        show: Callable[[Iterable], Iterable] = iter,
    ) -> list[Group]:
        """The runs of this process, by how many assays they read in how many cells.

        Args:
            data_limit: bytes of tracks on a device; None: their share of its memory.
            show: goes through the tracks as they are read, showing how far it is.

        Raises:
            InputError: if the store does not serve the model, naming every track at fault.
        """
        runs = share.of(self.runs)
        by_shape: dict[tuple[int, int], list[Run]] = collections.defaultdict(list)
        for run in runs:
            by_shape[len(self.pools[run.cell]), len(run.assays)].append(run)
        data: dict[int, tuple[Dataset, TrackCache]] = {}
        for size in sorted({size for size, _ in by_shape}):
            own = [run for run in runs if len(self.pools[run.cell]) == size]
            tracks = self._data(own)
            data[size] = tracks, TrackCache(tracks, data_limit)
            data[size][1].check([pair for run in own for pair in run.tracks], show)
        return [
            self._group(own, size, assays, *data[size])
            for (size, assays), own in sorted(by_shape.items())
        ]

    def _data(self, runs: Sequence[Run]) -> Dataset:
        """What runs on equally many cells each read."""
        pools = {run.cell: self.pools[run.cell] for run in runs}
        cells = list(dict.fromkeys(cell for pool in pools.values() for cell in pool))
        read = {assay for run in runs for assay in run.assays}
        assays = [assay for assay in self.store.manifest.assays if assay in read]
        data = load_dataset(self.store, self._model(1), cells, assays, self.request.input_config)
        return (
            data if all(len(pool) == 1 for pool in pools.values()) else PooledDataset(data, pools)
        )

    def _group(
        self, runs: list[Run], cells: int, assays: int, data: Dataset, cache: TrackCache
    ) -> Group:
        config, model = self.request.train_config, self._model(assays)
        # How many contacts the genes have depends on a pool's cells and on what is drawn: room for
        # any.
        share = self.request.train_share
        balanced = config.balanced and cells == 1 and share == 1
        plans = plan_batches(self.store, model, self._every_fold, config.batch_size, balanced)
        inputs, scales = plan_runs(data, runs, self.folds, self.request.target, share)
        name = f"{assays}-assay" if cells == 1 else f"{assays}-assay-{cells}-cell"
        plans = plans[0].with_most_genes(inputs.train), plans[1].with_most_genes(inputs.validation)
        trainer, source = Trainer(model, config, plans), self.source
        if source is None:
            return Group(name, trainer, runs, data.genes, inputs, scales, cache)
        for i, run in enumerate(runs):  # the target as the weights know it
            raw = scales[i].unscaled(inputs.target[i])
            scales[i] = source.scale(run, scales[i])
            inputs.target[i] = scales[i].standardise(raw)
        return Group(
            name, trainer, runs, data.genes, inputs, scales, cache,
            lambda i: jax.device_get(trainer.begin(*source.weights(runs[i]))), self.started,
        )  # fmt: skip

    def models(self) -> list[Any]:
        """The configuration of each model that the runs need.

        Raises:
            InputError: if the options of the request make no such model, or the store does not
                serve its window.
        """
        return [self._model(assays) for assays in sorted({len(run.assays) for run in self.runs})]

    def _model(self, assays: int) -> Any:
        config, made = self.request.train_config, REGISTRY[self.request.model]
        options: dict[str, Any] = {"assays": assays * CHANNELS if config.masked else assays}
        if any(field.name == "task" for field in dataclasses.fields(made)):
            options["task"] = config.task
        model = made(**{**options, **self.request.model_options})
        try:
            model.window.crop_and_merge(self.store.manifest.window)
        except InputError as error:
            (problem,) = error.problems
            serves = fitting_flags(self.store, self.request.model)
            remedy = problem.remedy + (f"; this store serves {serves}" if serves else "")
            raise InputError.of(dataclasses.replace(problem, remedy=remedy)) from None
        return model
