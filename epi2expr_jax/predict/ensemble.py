"""The trained runs of a run directory, and what they predict of genes they never saw."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Int

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.dataset import InputConfig, StoreDataset, load_dataset
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models.config import ModelConfig, Reads
from epi2expr_jax.names import as_names, find_genes, known_names, label_of_trained_set
from epi2expr_jax.predict.inference import on_scale, predict_runs, unit_on
from epi2expr_jax.predict.training_store import new_genes, open_own
from epi2expr_jax.store.facts import Facts, counted
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import Fold
from epi2expr_jax.training.targets import TargetScale
from epi2expr_jax.units import DEFAULT_UNIT, unit_words

# Why models may predict a gene: the less strict counts, where they differ. The strictest first.
BEFORE = "maybe seen by --from"
NOVELTY = ("held-out chromosome", "left out of training", "new gene", BEFORE, "seen")
NEW_GENE, SEEN = NOVELTY[2], NOVELTY[4]


@dataclasses.dataclass(frozen=True, repr=False)
class Member:
    """The trained runs of one model shape: what they are, and their best weights `[R, …]`."""

    model_config: ModelConfig
    runs: tuple[Run, ...]
    scales: tuple[TargetScale, ...]
    weights: dict[str, Any]

    def only(self, keep: Sequence[int]) -> "Member":
        """The same, with these runs alone."""
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


@dataclasses.dataclass(frozen=True, repr=False)
class Ensemble(Facts):
    """All trained runs of a run directory, ready to predict.

    Attributes:
        card: the run card.
        folds: the frozen folds, which say what each model never saw.
        signal: what they were trained on; None for a run of an older version whose own store was
            not found.
        run_dir: where the run lies.
    """

    card: dict[str, Any]
    input_config: InputConfig
    target: str
    folds: dict[str, Fold]
    members: tuple[Member, ...]
    signal: TrainedSignal | None = None
    run_dir: pathlib.Path = pathlib.Path()

    def facts(self) -> tuple[str, dict[str, Any]]:
        """As `Facts.facts`."""
        runs = self.runs
        sets = list(dict.fromkeys(run.label for run in runs))
        return f"run {self.run_dir}: {self.card.get('model', 'models')}", {
            "models": f"{len(runs)}, each of a cell, an assay set, a fold and a seed",
            "cells": counted(dict.fromkeys(run.cell for run in runs)),
            "assays": counted(sets),
            "folds": counted(self.folds),
            "predicts": self.units,
        }

    @property
    def runs(self) -> list[Run]:
        """Every run, in the order of predictions."""
        return [run for member in self.members for run in member.runs]

    @property
    def trained(self) -> list[dict[str, Any]]:
        """What the card says of every run that was trained."""
        return [run for part in self.card.get("populations", ()) for run in part["runs"]]

    @property
    def masked(self) -> bool:
        """Whether these are masked-mark models, which predict from any subset of their assays."""
        request = self.card.get("request", {})
        return request.get("train_config", {}).get("masked", False)

    @property
    def expression_unit(self) -> str:
        """The unit of the expression trained on, one of `units.EXPRESSION_UNITS`."""
        return self.card.get("store", {}).get("expression_unit", DEFAULT_UNIT)

    @property
    def units(self) -> str:
        """What the models predict on the scale `log2`, in words."""
        return unit_on("log2", self.target, self.expression_unit)

    def only(self, assays: str | Sequence[str]) -> "Ensemble":
        """The models of one assay set.

        Args:
            assays: its assays in any order, or joined by +; or `all`, every assay of the store
                trained on, unless one is called so.

        Raises:
            InputError: if no model reads exactly these.
        """
        text = PLUS.join(as_names(assays))
        sets = {frozenset(run.assays): run.label for run in self.runs}
        stored = self.card.get("store", {}).get("assays", [])
        names = stored if text == "all" and text not in stored else text.split(PLUS)
        label = label_of_trained_set(text, names, sets, stored)
        return self.select(lambda run: run.label == label)

    def open_store(self, path: str | os.PathLike | None = None) -> WindowStore:
        """The store that the models were trained on.

        Args:
            path: where it lies now; by default where training read it, as seen from the root or
                from the run.

        Raises:
            InputError: if it is not there, or that is another store.
        """
        return self.input_config.view(open_own(self.run_dir, self.card, path))

    def predict(
        self,
        store: WindowStore | str | os.PathLike,
        genes: str | Sequence[str] | None = None,
        *,
        include_seen: bool = False,
        scale: str = "log2",
        cell: str | None = None,
        present: str | Sequence[str] | None = None,
    ) -> xr.DataArray:
        """Predicted expression of genes by every model that never saw them.

        Args:
            store: a window store, or its path.
            genes: ids or symbols; every gene of the store by default.
            include_seen: also predict training and validation genes (validation chose the
                weights, so it counts as seen).
            scale: `log2` for log2(RPKM + 1), or whatever the unit of the training store;
                `linear`, or that unit's name, for RPKM itself; `raw` for the target's own scale.
            cell: whose signal to predict from, another than a model was trained on if you like; by
                default each model's own. A model of a pool of cells needs it.
            present: of masked-mark models, the assays to predict from, which alone are read; all by
                default.

        Returns:
            `[R G]` (dimensions `run` and `gene`), in the unit of `scale`; NaN where the model saw
            the gene (in whatever cell). Coordinates on `run`: cell (trained on), assays, fold and
            seed. Average over `run` as your question asks.

        Raises:
            InputError: for an unknown scale, unknown genes, genes that every model saw, `present`
                assays that some model does not read, or a store of another unit or assembly than
                the models were trained on.
        """
        unit = self.expression_unit
        scale = "linear" if scale.upper() == unit_words(unit).upper() else scale
        units = unit_on(scale, self.target, unit)
        if present is not None:
            present = as_names(present)
            self._require_present(present)
        if not isinstance(store, WindowStore):
            store = WindowStore.open(store)
        every = dict.fromkeys(assay for run in self.runs for assay in run.assays)
        self._known_signal(store).require_same(store.manifest, str(store.path), list(every))
        rows = gene_rows(store, genes)
        if cell is not None:
            known_names(cell, store.manifest.cells, str(store.path), "cell")
        if not include_seen:
            self.require_unseen(store, rows)
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
            attrs={"units": units},
        )

    def select(self, keep: Callable[[Run], bool]) -> "Ensemble":
        """The trained runs for which `keep` says so."""
        kept = [
            member.only([i for i, run in enumerate(member.runs) if keep(run)])
            for member in self.members
        ]
        return dataclasses.replace(self, members=tuple(member for member in kept if member.runs))

    def wanted(
        self,
        store: WindowStore,
        rows: Int[np.ndarray, " G"],
        include_seen: bool,
        runs: Sequence[Run] | None = None,
    ) -> Bool[np.ndarray, "R G"]:
        """Which genes of `rows [G]` each run may predict, `[R G]`: those it never saw, or all.

        A gene in no training store is predicted by the runs that test its chromosome; if none does,
        by all.
        """
        runs = self.runs if runs is None else runs
        if include_seen:
            return np.ones((len(runs), len(rows)), bool)
        genes, new = store.genes.iloc[rows], self._novelty(store, rows) == NEW_GENE
        folds = [self.folds[run.fold] for run in runs]
        return np.stack([fold.masks(genes)["test"] | fold.named(genes) | new for fold in folds])

    def novelty(self, store: WindowStore, rows: Int[np.ndarray, " G"]) -> np.ndarray:
        """Why models may predict genes of `rows [G]`: one of `NOVELTY` each, `[G]`; of several
        reasons, each of some models, the least strict.

        Of models that started from weights which had seen their test genes, no gene is held out or
        new: which ones those had seen is not known. Whether a gene was in the training store, by
        its id or its place, is known where that is found; else every gene is taken to have been.
        """
        found, own = self._novelty(store, rows), {run.run_id for run in self.runs}
        started = [one for one in self.trained if "started" in one]
        if any(one["started"]["seen"] for one in started if one["run_id"] in own):
            found[found != SEEN] = BEFORE
        return found

    def _novelty(self, store: WindowStore, rows: Int[np.ndarray, " G"]) -> np.ndarray:
        """As `novelty`, by the models' own training alone."""
        genes = store.genes.iloc[rows]
        folds = [self.folds[name] for name in dict.fromkeys(run.fold for run in self.runs)]
        none = np.zeros(len(genes), bool)
        tests = [fold.masks(genes)["test"] for fold in folds]
        named = [fold.named(genes) & ~test for fold, test in zip(folds, tests, strict=True)]
        by_chromosome, left_out = (np.any([none, *masks], axis=0) for masks in (tests, named))
        new = new_genes(self.run_dir, self.card, store)[rows]
        reasons = {1: left_out, 0: by_chromosome, 2: new}
        return np.select([*reasons.values()], [NOVELTY[i] for i in reasons], SEEN).astype(object)

    def chosen(
        self,
        store: WindowStore,
        genes: str | Sequence[str] | None,
        include_seen: bool = False,
    ) -> tuple[Int[np.ndarray, " G"], Bool[np.ndarray, "R G"]]:
        """Rows of the genes in the store's table, and which of them each run may predict.

        Args:
            genes: ids or symbols; by default every gene that some run may predict.

        Raises:
            InputError: for unknown genes, or named genes that every model saw.
        """
        rows = pd.unique(gene_rows(store, genes))  # a gene may be named by id and by symbol
        if genes is None:
            rows = rows[self.wanted(store, rows, include_seen).any(0)]
        elif not include_seen:
            self.require_unseen(store, rows)
        return rows, self.wanted(store, rows, include_seen)

    def require_unseen(self, store: WindowStore, rows: Int[np.ndarray, " G"]) -> None:
        """Refuse genes that every model saw, naming them."""
        seen = store.genes.iloc[rows[self.novelty(store, rows) == SEEN]]
        if len(seen):
            used = {run.fold for run in self.runs}
            tested = {chrom for name in used for chrom in self.folds[name].test}
            raise InputError(
                "genes",
                f"{len(seen)} genes that every model saw in training or validation "
                f"({listing(seen.gene_id)})",
                f"genes on held-out chromosomes ({listing(sorted(tested), 30) or 'none'})",
                "leave them out, or give include_seen (--include_seen) and do not call it a test",
            )

    def _require_present(self, present: Sequence[str]) -> None:
        with collect() as problems:
            if not self.masked:
                problems.add(
                    "present",
                    "models that always read all of their assays",
                    "masked-mark models",
                    "train with --masked, or leave `present` out",
                )
            common = [
                name for name in self.runs[0].assays if all(name in r.assays for r in self.runs)
            ]
            unknown = [name for name in present if name not in common]
            if unknown or not present:
                problems.add(
                    "present",
                    listing(unknown) or "no assay",
                    f"some of {', '.join(common) or 'those that every model reads (none)'}",
                    nearest(unknown, common) or "name assays that every model reads",
                )

    def tracks(
        self, model_config: ModelConfig, runs: Sequence[Run], store: WindowStore
    ) -> TrackCache:
        """What models of this shape read in the runs' cells."""
        cells = list(dict.fromkeys(run.cell for run in runs))
        assays = list(dict.fromkeys(assay for run in runs for assay in run.assays))
        return TrackCache(self.dataset(store, model_config, cells, assays))

    def dataset(
        self,
        store: WindowStore,
        model_config: Reads,
        cells: Sequence[str],
        assays: Sequence[str],
    ) -> StoreDataset:
        """What models of this shape read of a store, through the transform of their training.

        Raises:
            InputError: if the store does not serve the models, or holds other signal than they were
                trained on.
        """
        known = self._known_signal(store)
        return load_dataset(store, model_config, cells, assays, self.input_config, known)

    def _known_signal(self, store: WindowStore) -> TrainedSignal:
        """What the models were trained on: from the card or, if `store` is their own, from it."""
        if self.signal is not None:
            return self.signal
        if store.checksum() == self.card["store_checksum"]:
            return TrainedSignal.of(store.manifest, self.input_config.transform)
        raise InputError(
            str(store.path),
            "a store that the models were not trained on, and a run of an older version that "
            "does not say in which unit its own tracks were",
            "units and assembly of the models' own store, to compare with",
            "load the run once with its own store: load(RUN, store=PATH); it is kept then",
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
        if present:  # 0 is read in place of an absent assay: the store need not have its track
            sets = [tuple(a if a in present else present[0] for a in r.assays) for r in reading]
            reading = [dataclasses.replace(r, assays=n) for r, n in zip(reading, sets, strict=True)]
        cache = self.tracks(member.model_config, reading, store)
        predicted = predict_runs(member.model_config, member.weights, reading, cache, wanted, shown)
        out = np.full(wanted.shape, np.nan)
        for r, target_scale in enumerate(member.scales):
            out[r, wanted[r]] = on_scale(target_scale, predicted[r, wanted[r]], scale)
        return out[:, rows]


def gene_rows(store: WindowStore, genes: str | Sequence[str] | None) -> np.ndarray:
    """Rows `[G]` of genes in the store's table, as `names.find_genes`; all of them for None."""
    if genes is None:
        return np.arange(len(store.genes))
    return find_genes(store.genes, genes, str(store.path))
