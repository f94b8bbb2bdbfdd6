"""Floor 5. The only inference loop outside in-training validation; loading a trained run.

from epi2expr_jax.predict import load
ensemble = load("RUN")
ensemble.predict(store, genes=["ENSG00000116213"])   # only by models that never saw the gene
ensemble.predict(store, present=["DNase"])   # masked-mark models: from a subset of their assays
"""

import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Int

from epi2expr_jax.errors import InputError, Problem, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import Dataset, InputConfig, load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.many_runs import Lanes
from epi2expr_jax.training.one_run import parts_of, predict_genes
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import Fold, read_splits
from epi2expr_jax.training.targets import TargetScale

# Genes a batch, measured on two cores: regions are read fastest while they stay in cache.
_WINDOW_BATCH, _REGION_BATCH = 256, 64


@dataclasses.dataclass(frozen=True)
class Member:
    """The trained runs of one model shape: what they are, and their best weights on `R`."""

    model_config: Any
    runs: tuple[Run, ...]
    scales: tuple[TargetScale, ...]
    weights: dict[str, Any]

    def only(self, keep: Sequence[int]) -> "Member":
        """Of these runs alone."""
        return Member(
            self.model_config,
            tuple(self.runs[i] for i in keep),
            tuple(self.scales[i] for i in keep),
            jax.tree.map(lambda x: np.asarray(x)[list(keep)], self.weights),
        )

    def by_tracks(self) -> dict[tuple[str, tuple[str, ...]], list[int]]:
        """Which runs read the same tracks, by cell and assays."""
        found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for index, run in enumerate(self.runs):
            found.setdefault((run.cell, run.assays), []).append(index)
        return found


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """All trained runs of a run directory, ready to predict.

    Attributes:
        card: the run card.
        folds: the frozen folds, which say what each model never saw.
        signal: what they were trained on; None for a run of an older version whose own store was
            not found.
    """

    card: dict[str, Any]
    input_config: InputConfig
    target: str
    folds: dict[str, Fold]
    members: tuple[Member, ...]
    signal: TrainedSignal | None = None

    @property
    def runs(self) -> list[Run]:
        """Every run, in the order of predictions."""
        return [run for member in self.members for run in member.runs]

    @property
    def masked(self) -> bool:
        """Whether these are masked-mark models, which predict from any subset of their assays."""
        request = self.card.get("request", {})
        return request.get("train_config", {}).get("masked", False)

    def only(self, assays: Sequence[str]) -> "Ensemble":
        """The models of one assay set."""
        kept = [
            member.only([i for i, run in enumerate(member.runs) if run.assays == tuple(assays)])
            for member in self.members
        ]
        return dataclasses.replace(self, members=tuple(member for member in kept if member.runs))

    def open_store(self, path: str | os.PathLike | None = None) -> WindowStore:
        """The store that the models were trained on.

        Args:
            path: where it lies now; by default where training read it.

        Raises:
            InputError: if that is another store.
        """
        store = WindowStore.open(path or self.card["store"]["path"])
        if store.checksum() != self.card["store_checksum"]:
            raise InputError(_other_store(store, self.card))
        return store

    def predict(
        self,
        store: WindowStore | str | os.PathLike,
        genes: Sequence[str] | None = None,
        *,
        include_seen: bool = False,
        scale: str = "log2",
        cell: str | None = None,
        present: Sequence[str] | None = None,
    ) -> xr.DataArray:
        """Predicted expression of genes by every model that never saw them.

        Args:
            store: a window store, or its path.
            genes: ids; every gene of the store by default.
            include_seen: also predict training and validation genes (validation chose the
                weights, so it counts as seen).
            scale: `log2` for log2(RPKM + 1); `raw` for the target's own scale.
            cell: whose signal to predict from, another than a model was trained on if you like; by
                default each model's own. A model of a pool of cells needs it.
            present: of masked-mark models, the assays to predict from; all by default.

        Returns:
            `[run, gene]`, NaN where the model saw the gene (in whatever cell), with the
            coordinates cell (trained on), assays, fold and seed on `run`. Average over `run` as
            your question asks.

        Raises:
            InputError: for unknown genes, genes that every model saw, `present` assays that some
                model does not read, or a store of another unit or assembly than the models were
                trained on.
        """
        self._require_present(present)
        if not isinstance(store, WindowStore):
            store = WindowStore.open(store)
        every = dict.fromkeys(assay for run in self.runs for assay in run.assays)
        self._known_signal(store).require_same(store.manifest, str(store.path), list(every))
        rows = gene_rows(store, genes)
        if not include_seen:
            self.require_unseen(store.genes.iloc[rows])
        arrays = [
            self._predict_member(member, store, rows, include_seen, scale, cell, present)
            for member in self.members
        ]
        return xr.DataArray(
            np.concatenate(arrays),
            dims=("run", "gene"),
            coords={
                "run": [run.run_id for run in self.runs],
                "gene": store.genes.gene_id.to_numpy()[rows],
                "cell": ("run", [run.cell for run in self.runs]),
                "assays": ("run", [run.label for run in self.runs]),
                "fold": ("run", [run.fold for run in self.runs]),
                "seed": ("run", [run.seed for run in self.runs]),
            },
            name="expression",
            attrs={"units": "log2(RPKM + 1)" if scale == "log2" else self.target},
        )

    def select(self, keep: Callable[[Run], bool]) -> "Ensemble":
        """The trained runs for which `keep` says so."""
        members = []
        for member in self.members:
            rows = [i for i, run in enumerate(member.runs) if keep(run)]
            if rows:
                members.append(
                    Member(
                        member.model_config,
                        tuple(member.runs[i] for i in rows),
                        tuple(member.scales[i] for i in rows),
                        jax.tree.map(lambda x, rows=rows: x[rows], member.weights),
                    )
                )
        return dataclasses.replace(self, members=tuple(members))

    def wanted(
        self,
        store: WindowStore,
        rows: Int[np.ndarray, " G"],
        include_seen: bool,
        runs: Sequence[Run] | None = None,
    ) -> Bool[np.ndarray, "R G"]:
        """Which of the genes each run may predict: those it never saw, or all."""
        runs = self.runs if runs is None else runs
        if include_seen:
            return np.ones((len(runs), len(rows)), bool)
        chrom = store.genes.chrom.to_numpy()[rows]
        return np.stack([self.folds[run.fold].masks(chrom)["test"] for run in runs])

    def require_unseen(self, genes: pd.DataFrame) -> None:
        """Refuse genes that every model saw, naming them."""
        used = {run.fold for run in self.runs}
        tested = {chrom for name in used for chrom in self.folds[name].test}
        seen = genes[~genes.chrom.isin(tested)]
        if len(seen):
            raise InputError(
                Problem(
                    "genes",
                    f"{len(seen)} genes that every model saw in training or validation "
                    f"({listing(seen.gene_id)})",
                    f"genes on held-out chromosomes ({listing(sorted(tested), 30) or 'none'})",
                    "leave them out, or pass include_seen=True and do not call it a test",
                )
            )

    def _require_present(self, present: Sequence[str] | None) -> None:
        if present is None:
            return
        problems = []
        if not self.masked:
            problems.append(
                Problem(
                    "present",
                    "models that always read all of their assays",
                    "masked-mark models",
                    "train with --masked, or leave `present` out",
                )
            )
        common = [name for name in self.runs[0].assays if all(name in r.assays for r in self.runs)]
        unknown = [name for name in present if name not in common]
        if unknown or not present:
            problems.append(
                Problem(
                    "present",
                    listing(unknown) or "no assay",
                    f"some of {', '.join(common) or 'those that every model reads (none)'}",
                    nearest(unknown, common) or "name assays that every model reads",
                )
            )
        if problems:
            raise InputError(problems)

    def tracks(self, model_config: Any, runs: Sequence[Run], store: WindowStore) -> TrackCache:
        """What models of this shape read in the runs' cells."""
        cells = list(dict.fromkeys(run.cell for run in runs))
        assays = list(dict.fromkeys(assay for run in runs for assay in run.assays))
        return TrackCache(self.dataset(store, model_config, cells, assays))

    def dataset(
        self, store: WindowStore, model_config: Any, cells: Sequence[str], assays: Sequence[str]
    ) -> Dataset:
        """What models of this shape read of a store, through the transform of their training.

        Raises:
            InputError: if the store does not serve the models, or holds other signal than they were
                trained on.
        """
        known = self._known_signal(store)
        return load_dataset(store, model_config, cells, assays, self.input_config, known)

    def _known_signal(self, store: WindowStore) -> TrainedSignal:
        """What the models were trained on; a store that is their own tells it, too."""
        if self.signal is not None:
            return self.signal
        if store.checksum() == self.card["store_checksum"]:
            return TrainedSignal.of(store.manifest, self.input_config.transform)
        raise InputError(
            Problem(
                str(store.path),
                "a store that the models were not trained on, and a run of an older version that "
                "does not say in which unit its own tracks were",
                "units and assembly of the models' own store, to compare with",
                "load the run once with its own store: load(RUN, store=PATH); it is kept then",
            )
        )

    def _predict_member(
        self,
        member: Member,
        store: WindowStore,
        rows: np.ndarray,
        include_seen: bool,
        scale: str,
        cell: str | None,
        present: Sequence[str] | None,
    ) -> np.ndarray:
        reading = [dataclasses.replace(run, cell=cell or run.cell) for run in member.runs]
        wanted = np.zeros((len(member.runs), len(store.genes)), bool)
        wanted[:, rows] = self.wanted(store, rows, include_seen, member.runs)
        shown = None
        if self.masked:
            named = [[present is None or a in present for a in run.assays] for run in reading]
            shown = np.array(named)
        cache = self.tracks(member.model_config, reading, store)
        predicted = predict_runs(member.model_config, member.weights, reading, cache, wanted, shown)
        out = np.full(wanted.shape, np.nan)
        for r, target_scale in enumerate(member.scales):
            values = on_scale(target_scale, predicted[r, wanted[r]], scale)
            out[r, wanted[r]] = values
        return out[:, rows]


def on_scale(target: TargetScale, standardised: np.ndarray, scale: str) -> np.ndarray:
    """A model's outputs as log2(RPKM + 1) (`log2`) or on the target's own scale (`raw`)."""
    raw = target.unstandardise(standardised.astype(np.float64))
    return target.raw_to_log2(raw) if scale == "log2" else raw


def predict_runs(
    model_config: Any,
    weights: dict[str, Any],
    runs: Sequence[Run],
    cache: TrackCache,
    wanted: Bool[np.ndarray, "R G"],
    present: Bool[np.ndarray, "R A"] | None = None,
) -> np.ndarray:
    """Standardised predictions `[R, G]` of stacked weights, for the genes `wanted [R, G]`.

    Args:
        present: of masked-mark models, which of its assays each run predicts from.
    """
    lanes, graph = Lanes.default(), parts_of(model_config)[0]
    plan = plan_of(model_config, runs, cache, wanted)
    out = np.zeros(wanted.shape, np.float32)
    own = (weights["params"], weights["stats"], wanted, present)
    for rows, stacked, tracks in chunks_of(own, runs, cache, lanes):
        predicted = np.asarray(_predict(graph, plan, lanes, stacked, tracks))
        out[rows] = predicted[: len(rows)]
    return out


def chunks_of(
    own: Any, runs: Sequence[Run], cache: TrackCache, lanes: Lanes
) -> Iterator[tuple[np.ndarray, Any, tuple[tuple, ...]]]:
    """Runs as they stand side by side: which rows, their share of `own`, and their tracks.

    Args:
        own: arrays stacked on `R`. Idle lanes repeat the last run.
    """
    for first in range(0, len(runs), lanes.count):
        rows = np.arange(first, min(first + lanes.count, len(runs)))
        taken = np.minimum(np.arange(first, first + lanes.count), len(runs) - 1)
        stacked = lanes.place(jax.tree.map(lambda x, taken=taken: np.asarray(x)[taken], own))
        yield rows, stacked, lanes.tracks(cache, [runs[i] for i in taken])


def plan_of(
    model_config: Any, runs: Sequence[Run], cache: TrackCache, wanted: Bool[np.ndarray, "R G"]
) -> BatchPlan:
    """The batches that serve every run's wanted genes."""
    most = getattr(model_config, "contacts", 0)
    if not most:
        return BatchPlan(_WINDOW_BATCH)
    parts = []
    for run, want in zip(runs, wanted, strict=True):
        regions = cache.data.regions(run.cell)
        assert regions is not None
        parts.append((regions.region >= 0).sum(-1)[want])
    return BatchPlan.of(_REGION_BATCH, most, parts, balanced=True)


# Compiled once for a model, plan and lanes, however many runs there are.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(
    graph: Any, plan: BatchPlan, lanes: Lanes, stacked: Any, tracks: tuple[tuple, ...]
) -> Array:
    def one(params, stats, wanted, present, signal):
        if present is not None:
            present = jnp.broadcast_to(present, (wanted.size, present.size))
        return predict_genes(graph, params, stats, signal, wanted, plan, present)

    return lanes.map(one, stacked, tracks)


def gene_rows(store: WindowStore, genes: Sequence[str] | None) -> np.ndarray:
    """Where genes stand in the store's table, by id; all of them for None.

    Raises:
        InputError: naming every unknown id.
    """
    if genes is None:
        return np.arange(len(store.genes))
    rows = pd.Index(store.genes.gene_id).get_indexer(pd.Index(genes))
    unknown = [gene for gene, row in zip(genes, rows, strict=True) if row < 0]
    if unknown:
        raise InputError(
            Problem(
                str(store.path),
                f"{len(unknown)} unknown genes ({listing(unknown)})",
                "gene ids of the store's gene table, without version",
                "see store.genes",
            )
        )
    return rows


def load(run_dir: str | os.PathLike, store: str | os.PathLike | None = None) -> Ensemble:
    """Load the trained models of a run directory.

    Quarantined runs are left out; the run card names them. The card of a run of an older version
    does not say what its signal was: that is taken from its own store, kept in the card, and a
    warning says so.

    Args:
        store: for a run of an older version, where its own store lies now; by default where
            training read it.

    Raises:
        InputError: if training has not finished, the directory is no run, or `store` is needed and
            is not the store it was trained on.
    """
    run_dir = pathlib.Path(run_dir)
    card = checkpoint.read_finished(run_dir)
    signal = _trained_signal(run_dir, card, store)
    parts: dict[Any, list[Member]] = {}
    for population in card["populations"]:
        model_config = REGISTRY[card["model"]](**population["model_config"])
        runs = [
            Run(row["cell"], tuple(row["assays"]), row["fold"], row["seed"])
            for row in population["runs"]
        ]
        rows = population["runs"]
        part = checkpoint.Part(run_dir / population["weights"], rows)
        _, params, stats = parts_of(model_config)
        weights = part.restore({"params": params, "stats": stats})
        keep = [i for i, row in enumerate(population["runs"]) if row["status"] != "quarantined"]
        if keep:
            scales = [TargetScale(**row["target_scale"]) for row in population["runs"]]
            every = Member(model_config, tuple(runs), tuple(scales), weights)
            parts.setdefault(model_config, []).append(every.only(keep))
    members = [_joined(own) for own in parts.values()]
    folds = {fold.name: fold for fold in read_splits(run_dir / "splits.json")}
    return Ensemble(
        card, InputConfig(**card["input_config"]), card["target"], folds, tuple(members), signal
    )


def _trained_signal(
    run_dir: pathlib.Path, card: dict[str, Any], store: str | os.PathLike | None
) -> TrainedSignal | None:
    """What a run was trained on, from its card; of an older run once from its own store."""
    if "signal" in card:
        return TrainedSignal(**card["signal"])
    if "converted" in card:
        return TrainedSignal.of_depth(card["store"]["assays"])
    path = pathlib.Path(store or card["store"]["path"])
    try:
        own = WindowStore.open(path)
        if own.checksum() != card["store_checksum"]:
            raise InputError(_other_store(own, card))
    except InputError:
        if store is not None:
            raise
        return None  # it has moved; a store to predict from may yet turn out to be it
    signal = TrainedSignal.of(own.manifest, card["input_config"]["transform"])
    said = f"{run_dir}: its card did not say what its signal was; taken from its own store {path}"
    try:
        checkpoint.write_card(run_dir, {**card, "signal": signal.as_json()})
        said += " and kept in the card"
    except OSError as error:
        said += f", and not kept in the card ({error.strerror})"
    warnings.warn(said, stacklevel=3)
    return signal


def _other_store(store: WindowStore, card: dict[str, Any]) -> Problem:
    return Problem(
        str(store.path),
        "a store with other contents than the one trained on",
        f"checksum {card['store_checksum'][:12]}, as the run card says",
        "give the right --store, or train again",
    )


def _joined(parts: list[Member]) -> Member:
    """The runs of one model shape, wherever their weights were kept, in the order of cells."""
    runs = [run for part in parts for run in part.runs]
    scales = [scale for part in parts for scale in part.scales]
    weights = jax.tree.map(lambda *x: np.concatenate(x), *(part.weights for part in parts))
    # Runs of one cell read the same tracks; which of them ended first means nothing.
    order = sorted(range(len(runs)), key=lambda i: dataclasses.astuple(runs[i]))
    return Member(parts[0].model_config, tuple(runs), tuple(scales), weights).only(order)
