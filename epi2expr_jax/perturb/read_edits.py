"""Reads the signal of a store together with edits, for models of some assays in one cell.

Axes as in `edited_signal`.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import window_bounds
from epi2expr_jax.inputs.dataset import StoreDataset
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.perturb.edited_signal import EditedSignal, EditTable, InputLayout, RawSignal
from epi2expr_jax.perturb.edits import KINDS, Edit
from epi2expr_jax.perturb.places import Scene
from epi2expr_jax.store.window_store import WindowStore


class EditReader:
    """Edited signal of genes of a store.

    Args:
        rows: the genes that will be read, by row of the store's gene table; all by default.

    Attributes:
        cell, assays: what the models read.
        steps: the edits, each a tuple of those made one after the other.
        layout: how models read the store.
        kept: where each of the store's genes is kept among those that will be read; else -1.
    """

    def __init__(
        self,
        store: WindowStore,
        dataset: StoreDataset,
        config: ModelConfig,
        cell: str,
        assays: Sequence[str],
        steps: Sequence[tuple[Edit, ...]],
        rows: Int[np.ndarray, " G"] | None = None,
    ):
        read = np.isin(np.arange(len(store.genes)), store.genes.index if rows is None else rows)
        self.kept = np.where(read, np.cumsum(read) - 1, -1)
        self._tracks: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self.store, self.dataset, self.config = store, dataset, config
        self.cell, self.assays, self.steps = cell, assays, steps
        self.sources = {self._source(edit): edit for step in steps for edit in step}
        self.layout = _layout_of(dataset, store, config, assays, steps[0][0].space == "log")

    def read(self, rows: Int[np.ndarray, " G"]) -> EditedSignal:
        """Raw signal, in the tracks' unit, of some `rows [G]` of the gene table, and the edits."""
        pairs = [(self.cell, assay) for assay in self.assays]
        others = [(cell, assay) for *_, cell, assay, _ in self.sources]
        tracks = list(dict.fromkeys(pairs + others))
        raw = _read_raw(self, tracks, rows)
        forward = np.where(self.store.genes.strand.iloc[rows] == "-", -1, 1)
        windows, regions = [], []
        window_bin, region_bin = self.layout.bin_bp
        for (*_, cell, assay, _), edit in self.sources.items():
            at = tracks.index((cell, assay))
            # In the units of the assay it stands in for, if depths are normalised.
            scale = raw.level[tracks.index((self.cell, edit.assay))] / raw.level[at]
            windows.append(scale * _mixed(edit, raw.window[at], forward * window_bin))
            region_bins = np.full(raw.regions.shape[1], region_bin)
            regions.append(scale * _mixed(edit, raw.regions[at], region_bins))
        own = slice(len(pairs))
        raw = dataclasses.replace(
            raw, window=raw.window[own], level=raw.level[own], regions=raw.regions[own]
        )
        sources = np.stack(windows), np.stack(regions)
        return EditedSignal(raw, *sources, self._table(rows), self.layout)

    def raw(self, cell: str, assay: str) -> tuple[np.ndarray, np.ndarray]:
        """Raw windows of the genes that will be read, and all regions end to end; read once."""
        if (cell, assay) not in self._tracks:
            windows, regions = self.dataset.raw_windows(cell, assay)[self.kept >= 0], np.zeros(0)
            if self.config.contacts:
                regions = self.dataset.raw_regions(cell, assay)
            self._tracks[cell, assay] = windows, regions
        return self._tracks[cell, assay]

    def _table(self, rows: Int[np.ndarray, " G"]) -> EditTable:
        """All edits as numbers, and none at all."""
        scene = Scene(
            self.store,
            self.store.genes.iloc[rows],
            self.cell,
            self.config.window.window_bp,
            self.layout.resolutions if self.layout.log else (0,),
        )
        edits, longest = len(self.steps) + 1, max(map(len, self.steps))
        resolutions = len(scene.resolutions)
        numbers = {name: np.zeros((edits, longest), np.float32) for name in ("plus", "mix")}
        times = np.ones((edits, longest), np.float32)
        assay, source = (np.zeros((edits, longest), np.int32) for _ in range(2))
        in_regions = np.zeros((edits, longest), bool)
        places = {edit.place: None for step in self.steps for edit in step}
        found = {place: place.intervals(scene) for place in places}
        most = max(part.shape[2] for part in found.values())
        intervals = np.zeros((len(rows), edits, longest, resolutions, most, 2), np.int32)
        for e, step in enumerate(self.steps):
            for k, edit in enumerate(step):
                times[e, k], assay[e, k] = edit.times, self.assays.index(edit.assay)
                numbers["plus"][e, k], numbers["mix"][e, k] = edit.plus, edit.mix
                source[e, k] = list(self.sources).index(self._source(edit))
                in_regions[e, k] = edit.place.in_regions
                part = found[edit.place]
                intervals[:, e, k, :, : part.shape[2]] = part
        return EditTable(assay, times, **numbers, source=source, in_regions=in_regions,
                         intervals=intervals)  # fmt: skip

    def touched(self) -> Bool[np.ndarray, "E A"]:
        """Which assays each edit alters, `[E A]`; the last edit alters none."""
        touched = [[a in [edit.assay for edit in s] for a in self.assays] for s in self.steps]
        return np.array([*touched, [False] * len(self.assays)])

    def _source(self, edit: Edit) -> tuple[str, str, str, str, float]:
        """What `y` is: made by which kind, in place of which assay, of which cell and assay, with
        which number."""
        if not KINDS[edit.kind].mixed:
            return "", edit.assay, self.cell, edit.assay, 0.0
        cell, assay = edit.from_cell or self.cell, edit.from_assay or edit.assay
        return edit.kind, edit.assay, cell, assay, edit.amount


def _mixed(edit: Edit, raw: np.ndarray, bin_bp: np.ndarray) -> np.ndarray:
    """What an edit mixes in, made of raw signal `[rows bins]`; see `Kind.mixed`."""
    mixed = KINDS[edit.kind].mixed
    return mixed(raw, edit, bin_bp) if mixed else np.zeros_like(raw)


def _read_raw(
    reader: EditReader, tracks: Sequence[tuple[str, str]], rows: Int[np.ndarray, " G"]
) -> RawSignal:
    """Raw signal of some of the genes, placed as in the models' own cell.

    Args:
        tracks: (cell, assay) of each row of the result's first axis.

    Raises:
        InputError: for tracks of a cell whose genes touch other regions.
    """
    store, dataset, model, cell = reader.store, reader.dataset, reader.config, reader.cell
    genes, manifest, most = store.genes.iloc[rows], store.manifest, model.contacts
    window = np.stack([reader.raw(*pair)[0][reader.kept[rows]] for pair in tracks])
    region = np.full((len(rows), most), -1, np.int32)
    score = np.zeros((len(rows), most), np.float32)
    begin = end = np.zeros(1, np.int32)
    signal = np.zeros((len(tracks), 1, 1), np.float32)
    if most:
        own = store.regions(cell)
        _require_same_regions(store, cell, {other for other, _ in tracks})
        numbers, scores = own.by_gene(len(store.genes), most)
        used, local = np.unique(numbers[rows], return_inverse=True)
        local = local.reshape(len(rows), most) - int((used < 0).any())
        region, score = local.astype(np.int32), scores[rows]
        table = own.table.iloc[used[used >= 0]]
        if len(table):
            begin, end = (table[side].to_numpy(np.int32) for side in ("start", "end"))
            padded = model.region_bp // manifest.region_bin_bp
            place = table["first"].to_numpy()[:, None] + np.arange(padded)
            inside = np.arange(padded) < table.bins.to_numpy()[:, None]
            place = np.where(inside, place, 0)
            signal = [np.where(inside, reader.raw(*pair)[1][place], 0) for pair in tracks]
            signal = np.stack(signal)
    return RawSignal(
        window=window,
        level=np.array([dataset.level(c, a) for c, a in tracks], np.float32),
        begin=window_bounds(genes.tss.to_numpy(), model.window.window_bp)[0].astype(np.int32),
        minus=dataset.flipped[rows],
        regions=signal.astype(np.float32),
        region_begin=begin,
        region_end=end,
        region=region,
        score=score.astype(np.float32),
    )


def _require_same_regions(store: WindowStore, cell: str, cells: Iterable[str]) -> None:
    known = store.manifest.regions_sha256
    other = [name for name in sorted(cells) if known.get(name) != known[cell]]
    if other:
        raise InputError(
            f"{store.path}",
            f"{', '.join(other)} with other regions than {cell}",
            "signal of a cell in the same contacts",
            "swap with a cell of the same interactions, or use models that read windows alone",
        )


def _layout_of(
    dataset: StoreDataset,
    store: WindowStore,
    model_config: ModelConfig,
    assays: Sequence[str],
    log: bool,
) -> InputLayout:
    """How a model of these assays reads a store."""
    return InputLayout(
        transforms=tuple(dataset.transform(assay) for assay in assays),
        bin_bp=(store.manifest.window.bin_bp, store.manifest.region_bin_bp),
        resolutions=tuple(model_config.resolutions),
        positions=tuple(model_config.positions),
        log=log,
    )
