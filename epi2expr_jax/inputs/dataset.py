"""From a store to what a model reads: arrays on the device, and how they are batched.

One store serves every model: the centre of a wider window is cropped and finer bins are merged
exactly; a store that is narrower, coarser or not divisible is refused.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.inputs import transforms as signal_ops
from epi2expr_jax.inputs.device_tracks import (
    CellRegions,
    RegionTrack,
    Signal,
    Track,
    WindowSignal,
    centre_padding,
    coarser,
    signal_of,
    window_at,
)
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import ChromoformerConfig
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
            transform, so that tracks of other depth look alike in every cell; `none` does not.
    """

    transform: str = "auto"
    orientation: str = "strand"
    normalise: str = "none"

    def __post_init__(self):
        choices = ("auto", *signal_ops.TRANSFORMS)
        for flag, value, allowed in (
            ("--transform", self.transform, choices),
            ("--orientation", self.orientation, ORIENTATIONS),
            ("--normalise", self.normalise, NORMALISATIONS),
        ):
            if value not in allowed:
                raise InputError(flag, value, " or ".join(allowed), "choose one of these")


class Dataset:
    """Model input and expression of the chosen cells and assays, for every gene of the store.

    Signal is read when it is asked for, a track at a time.

    Attributes:
        cells, assays: those chosen.
        genes: the gene table, `[G]` rows.
        expression: `[C, G]` RPKM.
        labels: `[C, G]` class of each gene where the store was given one.
    """

    def __init__(self, reader: "_Reader", cells: Sequence[str], assays: Sequence[str]):
        store = reader.store
        self.cells, self.assays = tuple(cells), tuple(assays)
        self.genes: pd.DataFrame = store.genes
        self.expression: Float[np.ndarray, "C G"] = store.read_expression(cells)
        self.labels: Bool[np.ndarray, "C G"] | None = store.read_labels(cells)
        self._reader = reader

    def track(self, cell: str, assay: str) -> Track:
        """What one assay in one cell gives the model, on the host.

        Raises:
            InputError: if the track has negative values under a logarithm.
        """
        return self._reader.track(cell, assay)

    def regions(self, cell: str) -> CellRegions | None:
        """Which regions the cell's genes touch, on the host; None for models of one window."""
        return self._reader.cell_regions(cell)

    @property
    def flipped(self) -> Bool[np.ndarray, " G"]:
        """Which genes' windows are reversed."""
        return self._reader.flip

    def transform(self, assay: str) -> str:
        """Which of `transforms.TRANSFORMS` an assay's signal goes through."""
        return self._reader.transform(assay)

    def level(self, cell: str, assay: str) -> np.float32:
        """What a track's signal is divided by before the transform."""
        return self._reader.level(cell, assay)

    def signal(self, cell: str, assays: Sequence[str]) -> Signal:
        """What a run of this cell and these assays reads, on the default device."""
        tracks = [self.track(cell, assay) for assay in assays]
        return signal_of(tracks, jax.device_put(self.regions(cell)))


def load_dataset(
    store: WindowStore,
    model_config: Any,
    cells: Sequence[str],
    assays: Sequence[str],
    config: InputConfig = InputConfig(),
    trained: TrainedSignal | None = None,
) -> Dataset:
    """What a model reads of the named cells and assays: cropped, merged, transformed, oriented.

    Args:
        model_config: says what: its `window`, and for Chromoformer the regions.
        trained: of models that are trained, the signal they know; None for new ones, whose signal
            is this store's.

    Raises:
        InputError: if the store does not serve the model (window, regions), or holds other signal
            than the models were trained on.
    """
    if trained is None:
        trained = TrainedSignal.of(store.manifest, config.transform)
    trained.require_same(store.manifest, str(store.path), assays)
    if isinstance(model_config, ChromoformerConfig):
        return Dataset(_RegionReader(store, model_config, config, trained, cells), cells, assays)
    return Dataset(_WindowReader(store, model_config.window, config, trained), cells, assays)


class _Reader:
    """Reads raw bin means of one model's window."""

    def __init__(
        self, store: WindowStore, window: WindowSpec, config: InputConfig, trained: TrainedSignal
    ):
        self.store = store
        self.trained = trained
        self.window = window
        self.config = config
        self.centre, self.factor = window.crop_and_merge(store.manifest.window)
        minus = (store.genes.strand == "-").to_numpy()
        self.flip = minus & (config.orientation == "strand")
        self._levels: dict[tuple[str, str], np.float32] = {}

    def track(self, cell: str, assay: str) -> Track:
        raise NotImplementedError

    def cell_regions(self, cell: str) -> CellRegions | None:
        return None

    def transform(self, assay: str) -> str:
        """The transform of an assay's signal."""
        return self.trained.transforms[assay]

    def windows(self, cell: str, assay: str) -> Float[np.ndarray, "G W"]:
        """Means in the model's bins, of raw or normalised signal."""
        raw = self.store.read_signal([cell], [assay], self.centre)[0, 0]
        raw = self.checked(raw, f"{cell}-{assay}", assay) / self.level(cell, assay, raw)
        return signal_ops.merge_bins(raw, self.factor)

    def level(
        self, cell: str, assay: str, raw: Float[np.ndarray, "G W"] | None = None
    ) -> np.float32:
        """What a track's signal is divided by.

        Args:
            raw: its windows, if they have been read.

        Raises:
            InputError: if a track without any signal is to be normalised.
        """
        if self.config.normalise == "none":
            return np.float32(1)
        if raw is None and (cell, assay) not in self._levels:
            raw = self.store.read_signal([cell], [assay], self.centre)[0, 0]
        if raw is not None:
            self._levels[cell, assay] = np.float32(raw.mean(dtype=np.float64))
        level = self._levels[cell, assay]
        if not level > 0:
            raise InputError(
                f"{self.store.path}: {cell}-{assay}",
                f"a mean signal of {level:g} in the genes' windows",
                "more than 0, to divide by under --normalise=depth",
                "use --normalise=none, or leave this track out",
            )
        return level

    def checked(self, raw: np.ndarray, what: str, assay: str) -> np.ndarray:
        """The same.

        Raises:
            InputError: if a logarithm could not take it.
        """
        if self.transform(assay) == "log1p" and (raw < 0).any():
            raise InputError(
                f"{self.store.path}: {what}",
                f"negative signal (lowest {raw.min():.3g})",
                "no value below 0 under the transform ln(x + 1)",
                "--transform=arcsinh takes any sign, or give the right unit in the sheet",
            )
        return raw


class _WindowReader(_Reader):
    """Tracks of models that read one window a gene."""

    def track(self, cell: str, assay: str) -> WindowSignal:
        values = signal_ops.TRANSFORMS[self.transform(assay)](self.windows(cell, assay))
        return WindowSignal(np.ascontiguousarray(signal_ops.orient(values, self.flip), np.float32))


class _RegionReader(_Reader):
    """Tracks of Chromoformer: promoters and regions at each resolution.

    Arrays are as long as those of the store's largest cell, so that one program serves all cells.
    """

    def __init__(
        self,
        store: WindowStore,
        model: ChromoformerConfig,
        config: InputConfig,
        trained: TrainedSignal,
        cells: Sequence[str],
    ):
        super().__init__(store, model.window, config, trained)
        self.sizes = list(zip(model.resolutions, model.positions, strict=True))
        self.most = model.contacts
        self.regions = _regions_to_read(store, model, cells)
        every = [store.regions(cell) for cell in store.manifest.regions_sha256] if self.most else []
        self.regions_at_most = max((len(own.table) for own in every), default=0)
        self.bins_at_most = [
            max((int(_bins(own, resolution).sum()) for own in every), default=0)
            for resolution, _ in self.sizes
        ]

    def track(self, cell: str, assay: str) -> RegionTrack:
        transform, finest = self.transform(assay), self.window.bin_bp
        windows, flip = jnp.asarray(self.windows(cell, assay)), jnp.asarray(self.flip)
        promoter = tuple(
            np.asarray(window_at(windows, b // finest, transform, length, flip))
            for b, length in self.sizes
        )
        return RegionTrack(promoter, tuple(self._depths(cell, assay)))

    def _depths(self, cell: str, assay: str) -> Iterable[Float[np.ndarray, " bins"]]:
        """The cell's regions at each resolution, end to end, and room at both ends."""
        transform = signal_ops.TRANSFORMS[self.transform(assay)]
        means = jnp.zeros(0)
        if self.most:
            raw = self.store.read_region_depth(cell, [assay])[0]
            raw = self.checked(raw, f"regions of {cell}-{assay}", assay)
            means = jnp.asarray(raw / self.level(cell, assay))
        bin_bp = self.store.manifest.region_bin_bp
        for (resolution, length), most in zip(self.sizes, self.bins_at_most, strict=True):
            # Wherever a padded region lies, its slice must not run off either end.
            depth = np.zeros(most + 2 * length, np.float32)
            if self.most:
                own = _at_resolution(self.regions[cell], means, bin_bp, resolution)
                depth[length : length + len(own)] = transform(np.asarray(own))
            yield depth

    def cell_regions(self, cell: str) -> CellRegions:
        genes = len(self.store.genes)
        region = np.full((genes, self.most), -1, np.int32)
        score = np.zeros((genes, self.most), np.float32)
        if self.most:
            region, score = self.regions[cell].by_gene(genes, self.most)
        places = [self._places(cell, *size) for size in self.sizes]
        begin, left, bins = zip(*places, strict=True)
        return CellRegions(
            own=tuple(_own_positions(self.window.window_bp, *size) for size in self.sizes),
            minus=self.flip,
            begin=begin,
            left=left,
            bins=bins,
            region=region.astype(np.int32),
            score=score.astype(np.float32),
        )

    def _places(self, cell: str, resolution: int, length: int) -> tuple[np.ndarray, ...]:
        """Where each padded region begins, its padding on the left, its own bins."""
        # Those that only fill up have no base, and there is always one of them to look at.
        bins = np.zeros(self.regions_at_most + 1, np.int32)
        if self.most:
            have = _bins(self.regions[cell], resolution)
            bins[: len(have)] = have
        left = centre_padding(bins, length)
        begin = np.cumsum(bins) - bins - left + length
        return begin.astype(np.int32), left.astype(np.int32), bins


def _bins(regions: Regions, resolution: int) -> Int[np.ndarray, " regions"]:
    """How many bins each region has."""
    return -(-(regions.table.end - regions.table.start).to_numpy() // resolution)


def _regions_to_read(
    store: WindowStore, model: ChromoformerConfig, cells: Sequence[str]
) -> dict[str, Regions]:
    """The regions of each cell; none for a model that reads none.

    Raises:
        InputError: naming the cells without regions; else all regions that do not fit the model.
    """
    regions: dict[str, Regions] = {}
    problems: list[Problem] = []
    for cell in cells if model.contacts else ():
        with collect(problems):
            regions[cell] = store.regions(cell)
    if problems:
        raise InputError.of(problems)
    _require_fitting(store, model, regions)
    return regions


def _own_positions(window_bp: int, resolution: int, length: int) -> Bool[np.ndarray, "2 L"]:
    """Which positions of a padded promoter are its own, on the plus and on the minus strand."""
    have = -(-window_bp // resolution)
    place = np.arange(length) - centre_padding(have, length)
    own = (place >= 0) & (place < have)
    return np.stack([own, own[::-1]])


def _at_resolution(
    regions: Regions, means: Float[Array, " bins"], bin_bp: int, resolution: int
) -> Float[Array, " coarse"]:
    """The ragged means of a cell's regions in wider bins, end to end."""
    table, factor = regions.table, resolution // bin_bp
    if factor == 1 or table.empty:
        return means
    width, fine = (table.end - table.start).to_numpy(), table.bins.to_numpy()
    coarse = -(-width // resolution)
    within = np.arange(coarse.sum()) - np.repeat(np.cumsum(coarse) - coarse, coarse)
    first = np.repeat(table["first"].to_numpy(), coarse) + within * factor
    bins = np.minimum(factor, np.repeat(fine, coarse) - within * factor)
    bases = np.full(regions.bins, bin_bp)
    bases[table["first"].to_numpy() + fine - 1] = width - (fine - 1) * bin_bp
    return coarser(means, bases, first, bins, factor)


def _require_fitting(
    store: WindowStore, model: ChromoformerConfig, regions: Mapping[str, Regions]
) -> None:
    """Refuse regions too wide for the model, and bins that do not make its bins."""
    problems = []
    bin_bp = store.manifest.region_bin_bp
    if regions and any(resolution % bin_bp for resolution in model.resolutions):
        problems.append(
            Problem(
                f"{store.path}: regions",
                f"bins of {bin_bp} bp, read at {list(model.resolutions)} bp",
                "stored bins that divide every resolution",
                "choose other resolutions",
            )
        )
    for cell, own in regions.items():
        wide = own.table[own.table.end - own.table.start > model.region_bp]
        if len(wide):
            places = (f"{row.chrom}:{row.start}-{row.end}" for row in wide.itertuples())
            problems.append(
                Problem(
                    f"{store.path}: regions of {cell}",
                    f"{len(wide)} wider than {model.region_bp} bp ({listing(places)})",
                    "regions that fit the model's padded width",
                    f"build the store with --max_pcre_bp={model.region_bp}",
                )
            )
    if problems:
        raise InputError.of(problems)
