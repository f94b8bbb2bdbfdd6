"""From a store to what a model reads: arrays on the device, and how they are batched.

One store serves every model: the centre of a wider window is cropped and finer bins are merged
exactly; a store that is narrower, coarser or not divisible is refused.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex

import jax
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.device_tracks import (
    CellRegions,
    RegionTrack,
    Signal,
    Track,
    WindowSignal,
    region_places,
    signal_of,
)
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.inputs.transforms import TRANSFORMS, as_read, own_positions, window_at
from epi2expr_jax.models.config import Reads
from epi2expr_jax.names import as_names, find_genes, known_names
from epi2expr_jax.store.facts import Facts, counted
from epi2expr_jax.store.regions import Regions
from epi2expr_jax.store.window_store import WindowStore

ORIENTATIONS = ("strand", "genomic")
NORMALISATIONS = ("none", "depth")


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How stored signal is turned into model input.

    Attributes:
        transform: `auto` (by the unit of each assay's tracks), or one of `transforms.TRANSFORMS`.
        orientation: `strand` flips minus-strand genes so that windows read 5′ to 3′; `genomic`
            keeps genomic order, as the original CNN did.
        normalise: `depth` divides every track by its mean over all genes' windows before the
            transform, so that tracks look alike in every cell; `none` does not.
        shuffle_regions: a control: each gene reads the regions of another gene, with about as many,
            as far away (see `Regions.shuffled`).
    """

    transform: str = "auto"
    orientation: str = "strand"
    normalise: str = "none"
    shuffle_regions: bool = False

    def __post_init__(self):
        choices = ("auto", *TRANSFORMS)
        for flag, value, allowed in (
            ("--transform", self.transform, choices),
            ("--orientation", self.orientation, ORIENTATIONS),
            ("--normalise", self.normalise, NORMALISATIONS),
        ):
            if value not in allowed:
                raise InputError(flag, value, " or ".join(allowed), "choose one of these")

    def view(self, store: WindowStore) -> WindowStore:
        """The store as it is read: itself, or with other regions for each gene."""
        return store.with_shuffled_regions() if self.shuffle_regions else store


class Example(NamedTuple):
    """One gene of a dataset.

    Attributes:
        gene_id: its id.
        signal: `[C A W]` as the model reads it, of every cell and assay of the dataset; of a model
            that reads several resolutions one array each, of the promoter alone.
        expression: `[C]` in the store's unit.
    """

    gene_id: str
    signal: Any
    expression: Float[np.ndarray, " C"]


class Dataset(Facts, abc.ABC):
    """Model input and expression of the chosen cells and assays, for every gene.

    Signal is read when it is asked for, a track at a time. `dataset[0]` and `dataset["TP53"]` are
    an `Example`, `len(dataset)` is the number of genes, and a dataset goes through its genes in
    order; that keeps all of its tracks in memory, 4 bytes a cell, assay, gene and bin.

    Attributes:
        cells, assays: those chosen.
        genes: the gene table, `[G]` rows.
        expression: `[C, G]` in the store's unit.
        labels: `[C, G]` class of each gene where the store was given one.
    """

    cells: tuple[str, ...]
    assays: tuple[str, ...]
    genes: pd.DataFrame
    expression: Float[np.ndarray, "C G"]
    labels: Bool[np.ndarray, "C G"] | None

    def facts(self) -> tuple[str, dict[str, Any]]:
        """As `Facts.facts`."""
        return f"dataset of {len(self):,} genes", {
            "cells": counted(self.cells),
            "assays": counted(self.assays),
        }

    def __len__(self) -> int:
        return len(self.genes)

    def __getitem__(self, gene: SupportsIndex | str) -> Example:
        """One gene, by its place in the gene table, its id or its symbol.

        Raises:
            InputError: for an unknown name, or of a store without expression.
            IndexError: for a place beyond the last gene, or before the first.
        """
        if isinstance(gene, str):
            (row,) = find_genes(self.genes, gene, "dataset")
        else:
            row = range(len(self))[gene]
        signal = jax.tree.map(lambda part: part[:, :, row], self._read)
        return Example(self.genes["gene_id"].iloc[row], signal, self.expression[:, row])

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))

    @functools.cached_property
    def _read(self) -> Any:
        """The windows of all tracks, `[C A G W]`, of one array or one a resolution."""
        tracks = [self.track(*pair) for pair in itertools.product(self.cells, self.assays)]
        parts = [t.promoter if isinstance(t, RegionTrack) else t.values for t in tracks]
        shape = len(self.cells), len(self.assays)
        return jax.tree.map(lambda *own: np.stack(own).reshape(*shape, *own[0].shape), *parts)

    @abc.abstractmethod
    def track(self, cell: str, assay: str) -> Track:
        """What one assay in one cell gives the model, on the host.

        Raises:
            InputError: if the track has negative values under a logarithm, or is to be normalised
                and has no signal.
        """

    @abc.abstractmethod
    def regions(self, cell: str) -> CellRegions | None:
        """Which regions the cell's genes touch, on the host; None for models of one window."""

    def signal(self, cell: str, assays: Sequence[str]) -> Signal:
        """What a run of this cell and these assays reads, on the default device."""
        tracks = [self.track(cell, assay) for assay in assays]
        return signal_of(tracks, jax.device_put(self.regions(cell)))


class StoreDataset(Dataset):
    """What a model reads of a store: cropped, merged, transformed, oriented.

    Arrays of regions are as long as those of the store's largest cell, so that one program serves
    all cells.

    Attributes:
        flipped: `[G]` which genes' windows are reversed.
    """

    def __init__(
        self,
        store: WindowStore,
        model: Reads,
        cells: Sequence[str],
        assays: Sequence[str],
        config: InputConfig,
        trained: TrainedSignal,
    ):
        self.cells, self.assays = tuple(cells), tuple(assays)
        self.genes = store.genes
        self.labels = store.read_labels(cells)
        minus = (store.genes.strand == "-").to_numpy()
        self.flipped: Bool[np.ndarray, " G"] = minus & (config.orientation == "strand")
        self._store, self._model, self._config, self._trained = store, model, config, trained
        self._centre, _ = model.window.crop_and_merge(store.manifest.window)
        self._levels: dict[tuple[str, str], np.float32] = {}
        self._regions = _regions_to_read(store, model, cells)
        with_regions = store.manifest.regions_sha256 if model.contacts else ()
        every = [store.regions(cell) for cell in with_regions]
        self._most_regions = max((len(own.table) for own in every), default=0)
        self._most_bins = [
            max((int(own.bins_at(bin_bp).sum()) for own in every), default=0)
            for bin_bp in model.resolutions
        ]

    def track(self, cell: str, assay: str) -> Track:
        """As `Dataset.track`."""
        windows = self._windows(cell, assay)
        if not self._model.positions:
            return WindowSignal(windows[0])
        return RegionTrack(windows, self._region_signal(cell, assay))

    @functools.cached_property
    def expression(self) -> Float[np.ndarray, "C G"]:  # type: ignore[override]
        """As of `Dataset`; read when asked for, since a store to predict from has none."""
        return self._store.read_expression(self.cells)

    def transform(self, assay: str) -> str:
        """Which of `transforms.TRANSFORMS` an assay's signal goes through."""
        known_names(assay, self._trained.transforms, "dataset", "assay")
        return self._trained.transforms[assay]

    def level(self, cell: str, assay: str) -> np.float32:
        """What a track's signal is divided by before the transform.

        Raises:
            InputError: if a track without any signal is to be normalised.
        """
        if self._config.normalise == "none":
            return np.float32(1)
        if (cell, assay) not in self._levels:
            self.raw_windows(cell, assay)
        level = self._levels[cell, assay]
        if not level > 0:
            raise InputError(
                f"{self._store.path}: {cell}-{assay}",
                f"a mean signal of {level:g} in the genes' windows",
                "more than 0, to divide by under --normalise=depth",
                "use --normalise=none, or leave this track out",
            )
        return level

    def raw_windows(self, cell: str, assay: str) -> Float[np.ndarray, "G W"]:
        """The model's windows in the store's bins and genomic order, as stored.

        Raises:
            InputError: if the track has negative values under a logarithm.
        """
        raw = self._store.read_signal([cell], [assay], self._centre)[0, 0]
        if self._config.normalise == "depth":
            self._levels[cell, assay] = np.float32(raw.mean(dtype=np.float64))
        return self._checked(raw, f"{cell}-{assay}", assay)

    def raw_regions(self, cell: str, assay: str) -> Float[np.ndarray, " bins"]:
        """The regions of a cell in the store's bins, end to end, as stored.

        Raises:
            InputError: if they have negative values under a logarithm.
        """
        raw = self._store.read_region_signal(cell, [assay])[0]
        return self._checked(raw, f"regions of {cell}-{assay}", assay)

    def _checked(self, raw: np.ndarray, what: str, assay: str) -> np.ndarray:
        if self._trained.transforms.get(assay) == "log1p" and (raw < 0).any():
            raise InputError(
                f"{self._store.path}: {what}",
                f"negative signal (lowest {raw.min():.3g})",
                "no value below 0 under the transform ln(x + 1)",
                "--transform=arcsinh takes any sign, or give the right unit in the sheet",
            )
        return raw

    def _windows(self, cell: str, assay: str) -> tuple[Float[np.ndarray, "G _L"], ...]:
        """The windows as the model reads them, at each of its resolutions."""
        model, stored = self._model, self._store.manifest.window.bin_bp
        raw, level = self.raw_windows(cell, assay), self.level(cell, assay)
        return tuple(
            window_at(
                as_read(raw, level, bin_bp // stored, self.transform(assay)), length, self.flipped
            )
            for bin_bp, length in zip(
                model.resolutions, model.positions or [model.window.bins], strict=True
            )
        )

    def _region_signal(self, cell: str, assay: str) -> tuple[Float[np.ndarray, " _bins"], ...]:
        """The cell's regions at each resolution, end to end, and room at both ends."""
        stored, signal = self._store.manifest.region_bin_bp, []
        raw = self.raw_regions(cell, assay) if self._model.contacts else None
        for bin_bp, length, most in zip(
            self._model.resolutions, self._model.positions, self._most_bins, strict=True
        ):
            # Wherever a padded region lies, its slice must not run off either end.
            padded = np.zeros(most + 2 * length, np.float32)
            if raw is not None:
                factor = bin_bp // stored
                fine, share = self._regions[cell].apart(raw, stored, factor)
                own = as_read(fine, self.level(cell, assay), factor, self.transform(assay), share)
                padded[length : length + len(own)] = own
            signal.append(padded)
        return tuple(signal)

    def regions(self, cell: str) -> CellRegions | None:
        """As `Dataset.regions`."""
        model, genes = self._model, len(self.genes)
        known_names(cell, self.cells, "dataset", "cell")
        if not model.positions:
            return None
        region = np.full((genes, model.contacts), -1, np.int32)
        score = np.zeros((genes, model.contacts), np.float32)
        if model.contacts:
            region, score = self._regions[cell].by_gene(genes, model.contacts)
        own, places = [], []
        for bin_bp, length in zip(model.resolutions, model.positions, strict=True):
            ours = own_positions(np.array(-(-model.window.window_bp // bin_bp)), length)
            own.append(np.stack([ours, ours[::-1]]))
            # Padding entries have zero bins; one is always present, so indexing is safe.
            bins = np.zeros(self._most_regions + 1, np.int32)
            if model.contacts:
                have = self._regions[cell].bins_at(bin_bp)
                bins[: len(have)] = have
            places.append(region_places(bins, length))
        begin, bins = zip(*places, strict=True)
        return CellRegions(tuple(own), self.flipped, begin, bins, region, score)


def load_dataset(
    store: WindowStore,
    model_config: Reads,
    cells: str | Sequence[str],
    assays: str | Sequence[str],
    config: InputConfig = InputConfig(),
    trained: TrainedSignal | None = None,
) -> StoreDataset:
    """What a model reads of the named cells and assays: cropped, merged, transformed, oriented.

    Args:
        model_config: says what: its window, resolutions and regions.
        trained: of models that are trained, the signal they know; None for new ones, whose signal
            is this store's.

    Raises:
        InputError: for unknown cells or assays, or if the store does not serve the model (window,
            regions), or holds other signal than the models were trained on.
    """
    store = config.view(store)
    known, where = store.manifest, str(store.path)
    with collect() as problems:
        for kind, given, there in (("cell", cells, known.cells), ("assay", assays, known.assays)):
            with problems.part():
                known_names(given, there, where, kind)
    cells, assays = as_names(cells), as_names(assays)
    if trained is None:
        trained = TrainedSignal.of(store.manifest, config.transform)
    trained.require_same(known, where, assays)
    return StoreDataset(store, model_config, cells, assays, config, trained)


def _regions_to_read(store: WindowStore, model: Reads, cells: Sequence[str]) -> dict[str, Regions]:
    """The regions of each cell; none for a model that reads none.

    Raises:
        InputError: naming the cells without regions; else all regions too wide for the model.
    """
    regions: dict[str, Regions] = {}
    with collect() as problems:
        for cell in cells if model.contacts else ():
            with problems.part():
                regions[cell] = store.regions(cell)
    bin_bp = store.manifest.region_bin_bp
    with collect() as problems:
        if regions and any(resolution % bin_bp for resolution in model.resolutions):
            problems.add(
                f"{store.path}: regions",
                f"bins of {bin_bp} bp, read at {list(model.resolutions)} bp",
                "stored bins that divide every resolution",
                "choose other resolutions",
            )
        for cell, own in regions.items():
            wide = own.table[own.table.end - own.table.start > model.region_bp]
            if len(wide):
                places = (f"{row.chrom}:{row.start}-{row.end}" for row in wide.itertuples())
                problems.add(
                    f"{store.path}: regions of {cell}",
                    f"{len(wide)} wider than {model.region_bp} bp ({listing(places)})",
                    "regions that fit the model's padded width",
                    f"build the store with --max_pcre_bp={model.region_bp}",
                )
    return regions
