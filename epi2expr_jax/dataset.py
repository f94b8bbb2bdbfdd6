"""Floor 2. From a store to what a model reads: arrays on the device, and how they are batched.

One store serves every model: the centre of a wider window is cropped and finer bins are merged
exactly; a store that is narrower, coarser or not divisible is refused.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax import signal as signal_ops
from epi2expr_jax.batches import BatchPlan
from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.regions import Regions
from epi2expr_jax.resident import (
    RegionSignal,
    WindowSignal,
    centre_padding,
    coarser,
    window_at,
)
from epi2expr_jax.splits import Fold
from epi2expr_jax.store import WindowStore

ORIENTATIONS = ("strand", "genomic")

_Sizes = list[tuple[int, int]]  # bp a bin and positions, of each resolution


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
        signal: what batches are gathered from, on the device.
        expression: `[C, G]` RPKM, on the host.
        labels: `[C, G]` class of each gene where the store was given one, on the host.
    """

    cells: tuple[str, ...]
    assays: tuple[str, ...]
    genes: pd.DataFrame
    signal: WindowSignal | RegionSignal
    expression: Float[np.ndarray, "C G"]
    labels: Bool[np.ndarray, "C G"] | None


def load_dataset(
    store: WindowStore,
    model_config: Any,
    cells: Sequence[str],
    assays: Sequence[str],
    config: InputConfig = InputConfig(),
) -> Dataset:
    """Read, crop, merge, transform and orient what a model reads of the named cells and assays.

    Args:
        model_config: says what: its `window`, and for Chromoformer the regions.

    Raises:
        InputError: if the store does not serve the model (window, regions), or a track has
            negative values under a logarithm, naming every such track.
    """
    reader = _Reader(store, model_config.window, config)
    if isinstance(model_config, ChromoformerConfig):
        signal = _region_signal(reader, model_config, cells, assays)
    else:
        signal = _window_signal(reader, cells, assays)
    if reader.problems:
        raise InputError(reader.problems)
    return Dataset(
        tuple(cells),
        tuple(assays),
        store.genes,
        signal,
        store.read_expression(cells),
        store.read_labels(cells),
    )


class _Reader:
    """Reads raw bin means of one model's window, and gathers what is wrong with them."""

    def __init__(self, store: WindowStore, window: WindowSpec, config: InputConfig):
        self.store = store
        self.window = window
        self.config = config
        self.centre, self.factor = window.crop_and_merge(store.manifest.window)
        minus = (store.genes.strand == "-").to_numpy()
        self.flip = minus & (config.orientation == "strand")
        self.problems: list[Problem] = []

    def transform(self, assay: str) -> str:
        """The transform of an assay's signal: as asked, or by the unit of its tracks."""
        asked = self.config.transform
        return (
            signal_ops.UNIT_TRANSFORM[self.store.manifest.units[assay]]
            if asked == "auto"
            else asked
        )

    def windows(self, cell: str, assay: str) -> Float[np.ndarray, "G W"]:
        """Raw means in the model's bins."""
        raw = self.store.read_signal([cell], [assay], self.centre)[0, 0]
        return signal_ops.merge_bins(self._checked(raw, f"{cell}-{assay}", assay), self.factor)

    def regions(self, cell: str, assay: str) -> Float[np.ndarray, " bins"]:
        """Raw means of the cell's regions in the store's bins, end to end."""
        raw = self.store.read_region_depth(cell, [assay])[0]
        return self._checked(raw, f"regions of {cell}-{assay}", assay)

    def _checked(self, raw: np.ndarray, what: str, assay: str) -> np.ndarray:
        """The same, or zeros and a problem noted if a logarithm could not take it."""
        if self.transform(assay) != "log1p" or not (raw < 0).any():
            return raw
        self.problems.append(
            Problem(
                f"{self.store.path}: {what}",
                f"negative signal (lowest {raw.min():.3g})",
                "no value below 0 under the transform ln(x + 1)",
                "--transform=arcsinh takes any sign, or give the right unit in the sheet",
            )
        )
        return np.zeros_like(raw)


def _window_signal(reader: _Reader, cells: Sequence[str], assays: Sequence[str]) -> WindowSignal:
    shape = len(cells), len(assays), len(reader.store.genes), reader.window.bins
    out = np.empty(shape, np.float32)
    for a, assay in enumerate(assays):
        for c, cell in enumerate(cells):
            values = signal_ops.TRANSFORMS[reader.transform(assay)](reader.windows(cell, assay))
            out[c, a] = signal_ops.orient(values, reader.flip)
    return WindowSignal(jnp.asarray(out))


def _region_signal(
    reader: _Reader, model: ChromoformerConfig, cells: Sequence[str], assays: Sequence[str]
) -> RegionSignal:
    regions = _regions_to_read(reader.store, model, cells)
    sizes = list(zip(model.resolutions, model.positions, strict=True))
    promoter, depth = [], []  # by assay, then by resolution
    for assay in assays:
        promoter.append(_promoters(reader, sizes, cells, assay))
        depth.append(_depths(reader, sizes, regions, assay))
    begin, left, bins = zip(*(_places(regions, *size) for size in sizes), strict=True)
    region, score = _contacts(regions, cells, len(reader.store.genes), model.contacts)
    return RegionSignal(
        promoter=tuple(jnp.stack(part, 1) for part in zip(*promoter, strict=True)),
        own=tuple(_own_positions(reader.window.window_bp, *size) for size in sizes),
        minus=jnp.asarray(reader.flip),
        depth=tuple(jnp.stack(part) for part in zip(*depth, strict=True)),
        begin=begin,
        left=left,
        bins=bins,
        region=region,
        score=score,
    )


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
        raise InputError(problems)
    _require_fitting(store, model, regions)
    return regions


def _promoters(
    reader: _Reader, sizes: _Sizes, cells: Sequence[str], assay: str
) -> list[Float[Array, "C G L"]]:
    """An assay's promoter windows at each resolution."""
    transform, finest = reader.transform(assay), reader.window.bin_bp
    windows = [jnp.asarray(reader.windows(cell, assay)) for cell in cells]
    flip = jnp.asarray(reader.flip)
    return [
        jnp.stack([window_at(x, b // finest, transform, length, flip) for x in windows])
        for b, length in sizes
    ]


def _depths(
    reader: _Reader, sizes: _Sizes, regions: Mapping[str, Regions], assay: str
) -> list[Float[Array, " bins"]]:
    """An assay's regions at each resolution: all cells end to end, and room at both ends."""
    transform = signal_ops.TRANSFORMS[reader.transform(assay)]
    bin_bp = reader.store.manifest.region_bin_bp
    means = [(own, jnp.asarray(reader.regions(cell, assay))) for cell, own in regions.items()]
    depths = []
    for resolution, length in sizes:
        ragged = [transform(_at_resolution(own, x, bin_bp, resolution)) for own, x in means]
        # Wherever a padded region lies, its slice must not run off either end.
        depths.append(jnp.pad(jnp.concatenate([jnp.zeros(0), *ragged]), length))
    return depths


def _places(
    regions: Mapping[str, Regions], resolution: int, length: int
) -> tuple[Int[Array, " regions"], Int[Array, " regions"], Int[Array, " regions"]]:
    """Where each padded region begins, its padding on the left, its own bins."""
    # One without any base stands behind all others, so that there is always one to look at.
    widths = [own.table.end - own.table.start for own in regions.values()]
    bins = -(-np.concatenate([*widths, [0]]).astype(int) // resolution)
    left = centre_padding(bins, length)
    begin = np.cumsum(bins) - bins - left + length
    begin, left, bins = (jnp.asarray(part, jnp.int32) for part in (begin, left, bins))
    return begin, left, bins


def _contacts(
    regions: Mapping[str, Regions], cells: Sequence[str], genes: int, most: int
) -> tuple[Int[Array, "C G N"], Float[Array, "C G N"]]:
    """The regions of each gene, counted over all cells, and their scores."""
    region = np.full((len(cells), genes, most), -1, np.int32)
    score = np.zeros(region.shape, np.float32)
    start = 0
    for c, own in enumerate(regions.values()):
        rows, score[c] = own.by_gene(genes, most)
        region[c] = np.where(rows >= 0, rows + start, -1)
        start += len(own.table)
    return jnp.asarray(region), jnp.asarray(score)


def _own_positions(window_bp: int, resolution: int, length: int) -> Bool[Array, "2 L"]:
    """Which positions of a padded promoter are its own, on the plus and on the minus strand."""
    have = -(-window_bp // resolution)
    place = np.arange(length) - centre_padding(have, length)
    own = (place >= 0) & (place < have)
    return jnp.asarray(np.stack([own, own[::-1]]))


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
        raise InputError(problems)


def plan_batches(
    store: WindowStore, model_config: Any, folds: Iterable[Fold], size: int, balanced: bool
) -> tuple[BatchPlan, BatchPlan]:
    """The batches of training and of validation, for every cell of the store and all folds.

    They depend on nothing less, so that a run trained alone is the run trained beside others.
    """
    most = getattr(model_config, "contacts", 0)
    if not most:
        return BatchPlan(size), BatchPlan(size)
    chrom = store.genes.chrom.to_numpy()
    counts = [
        (store.regions(cell).by_gene(len(chrom), most)[0] >= 0).sum(1)
        for cell in store.manifest.regions_sha256
    ]
    masks = [fold.masks(chrom) for fold in folds]

    def plan(part: str) -> BatchPlan:
        parts = (own[mask[part]] for own in counts for mask in masks)
        return BatchPlan.of(size, most, parts, balanced=balanced)

    return plan("train"), plan("validation")
