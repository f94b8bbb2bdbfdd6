"""Where marks are altered: intervals relative to each gene's TSS, its regions, or a table.

`PRESETS` holds the places that a command line can name. To add one, give it a line there.

Axes: `G` genes, `V` resolutions (or 1, for all), `I` intervals of a gene.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing
from epi2expr_jax.store.window_store import WindowStore

Intervals = Int[np.ndarray, "G V I 2"]

MOST_BP = 2**31  # positions on the device are 32-bit integers; every chromosome is shorter


@dataclasses.dataclass(frozen=True)
class Scene:
    """What places are looked up in: the store's genes, in one cell, for one model.

    Attributes:
        window_bp: width of the model's window.
        resolutions: bins the model reads, in bp.
    """

    store: WindowStore
    genes: pd.DataFrame
    cell: str
    window_bp: int
    resolutions: Sequence[int]

    @property
    def rows(self) -> Int[np.ndarray, " G"]:
        """Where each gene is in the store's table."""
        return pd.Index(self.store.genes.gene_id).get_indexer(pd.Index(self.genes.gene_id))


@dataclasses.dataclass(frozen=True)
class Place(abc.ABC):
    """Somewhere that every gene may have.

    Attributes:
        name: for labels.
        in_regions: whether the gene's regions are altered too where they overlap it; the
            original study altered the promoter's window alone.
    """

    name: str
    in_regions: bool = True

    @abc.abstractmethod
    def intervals(self, scene: Scene) -> Intervals:
        """Start and end `[G V I 2]` in bp on each gene's chromosome; empty where it has no such
        place."""

    @property
    def distance(self) -> float:
        """How far the place's middle lies from the TSS, along the strand, in bp; NaN if varying."""
        return float("nan")


@dataclasses.dataclass(frozen=True)
class Span(Place):
    """From `start` to `end` bp from the TSS, along the gene's strand.

    Attributes:
        at_resolution: other spans at some resolutions, of edits on the log scale: (resolution,
            start, end).
    """

    start: int = 0
    end: int = 0
    at_resolution: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self):
        if not self.start < self.end:
            raise InputError(
                self.name,
                f"{self.start} to {self.end} bp from the TSS",
                "a start below its end",
                "correct it",
            )

    def intervals(self, scene: Scene) -> Intervals:
        tss = scene.genes.tss.to_numpy(np.int64)
        minus = (scene.genes.strand == "-").to_numpy()

        def along(start: int, end: int) -> np.ndarray:
            plus = np.stack([tss + start, tss + end], 1)
            return np.where(minus[:, None], np.stack([tss - end, tss - start], 1), plus)

        other = {resolution: span for resolution, *span in self.at_resolution}
        spans = [other.get(b, (self.start, self.end)) for b in scene.resolutions if other]
        found = np.stack([along(*span) for span in spans or [(self.start, self.end)]], 1)
        edge = np.stack([tss - scene.window_bp // 2, tss + scene.window_bp // 2], 1)
        if self.in_regions:
            return found[:, :, None]
        return np.clip(found, edge[:, None, :1], edge[:, None, 1:])[:, :, None]

    @property
    def distance(self) -> float:
        return (self.start + self.end) / 2


@dataclasses.dataclass(frozen=True)
class RegionPlace(Place):
    """The region that the gene touches with the `rank`-th best score, from 0."""

    rank: int = 0

    def intervals(self, scene: Scene) -> Intervals:
        regions = scene.store.regions(scene.cell)
        number, _ = regions.by_gene(len(scene.store.genes), self.rank + 1)
        number = number[scene.rows, self.rank]
        table = regions.table[["start", "end"]].to_numpy(np.int64)
        found = np.zeros((len(number), 2), np.int64)
        found[number >= 0] = table[number[number >= 0]]
        return found[:, None, None]


@dataclasses.dataclass(frozen=True)
class Interval(Place):
    """A stretch of the genome, 0-based, end not included."""

    chrom: str = ""
    start: int = 0
    end: int = 0

    def __post_init__(self):
        if not 0 <= self.start < self.end < MOST_BP:
            raise InputError(
                self.name,
                f"{self.chrom}:{self.start}-{self.end}",
                "0 <= start < end, within a chromosome",
                "correct the interval; positions are 0-based",
            )

    def intervals(self, scene: Scene) -> Intervals:
        here = (scene.genes.chrom == self.chrom).to_numpy()
        found = np.where(here[:, None], [[self.start, self.end]], 0)
        return found[:, None, None]


@dataclasses.dataclass(frozen=True)
class OwnStretch(Place):
    """A stretch that each gene has of its own, known by its name alone.

    Attributes:
        of_gene: start and end by row of the store's genes, 0-based, in bp; empty where it has none.
    """

    of_gene: Int[np.ndarray, "G 2"] = dataclasses.field(
        default_factory=lambda: np.zeros((0, 2), int), compare=False, repr=False
    )

    def intervals(self, scene: Scene) -> Intervals:
        return self.of_gene[scene.rows][:, None, None]


def promoter(bp: int = 6000) -> Span:
    """`bp` around the TSS."""
    return Span("promoter", start=-(bp // 2), end=bp // 2)


def span(start: int, end: int) -> Span:
    """From `start` to `end` bp from the TSS, along the strand."""
    return Span(f"{start / 1000:+g}..{end / 1000:+g} kb", start=start, end=end)


def distal_bins(bp: int = 2000, window_bp: int = 40_000, promoter_bp: int = 6000) -> list[Span]:
    """The bins of a window that lie wholly outside its promoter, upstream first."""
    edges = range(-(window_bp // 2), window_bp // 2, bp)
    half = promoter_bp // 2
    return [span(edge, edge + bp) for edge in edges if edge + bp <= -half or edge >= half]


def pcre(rank: int = 0) -> RegionPlace:
    """The region in contact with the gene that has the best score (0), the second best, …"""
    return RegionPlace(f"pCRE {rank + 1}", rank=rank)


def interval(chrom: str, start: int, end: int) -> Interval:
    """A stretch of the genome, 0-based, end not included."""
    return Interval(f"{chrom}:{start}-{end}", chrom=chrom, start=int(start), end=int(end))


def intervals(table: pd.DataFrame) -> list[Interval]:
    """Every row of a table with columns chrom, start, end (0-based, in bp), and perhaps name.

    A name that several rows have is followed by where each is, since results go by names; a name
    "." or "" is none.

    Raises:
        InputError: for missing columns; naming every row that is not an interval.
    """
    missing = [name for name in ("chrom", "start", "end") if name not in table]
    if missing:
        raise InputError(
            "intervals", f"columns {list(table)}", f"also {missing}", "add the columns"
        )
    bad = table[~((table.start >= 0) & (table.start < table.end))]
    if len(bad):
        rows = (f"{row.chrom}:{row.start}-{row.end}" for row in bad.itertuples())
        raise InputError(
            "intervals",
            f"{len(bad)} that are empty or start before the chromosome ({listing(rows)})",
            "0 <= start < end",
            "correct them; positions are 0-based, as in BED",
        )
    columns = (table[name].tolist() for name in ("chrom", "start", "end"))
    found = [interval(*row) for row in zip(*columns, strict=True)]
    if "name" not in table:
        return found
    names = table["name"].fillna("").astype(str).replace(".", "")
    repeated = names.duplicated(keep=False)
    return [
        dataclasses.replace(place, name=f"{name} {place.name}" if again else name)
        if name
        else place
        for place, name, again in zip(found, names, repeated, strict=True)
    ]


# The original study's bins (Chromoformer, perturbation protocol): 8 to 10 of 20 at 2 kb, which is
# -4 to +2 kb, though 34 to 45 of 80 at 500 bp and 170 to 229 of 400 at 100 bp are -3 to +3 kb.
_ORIGINAL_BINS = ((2000, -4000, 2000),)


def original_promoter() -> Span:
    """The promoter of the original study, its bin arithmetic included; the window's copy alone."""
    return Span("promoter", False, -3000, 3000, _ORIGINAL_BINS)


def original_distal() -> list[Span]:
    """The 17 bins of 2 kb that the original study calls distal; the window's copy alone."""
    bins = (span(edge, edge + 2000) for edge in range(-20_000, 20_000, 2000))
    return [
        dataclasses.replace(place, in_regions=False)
        for place in bins
        if place.end <= -4000 or place.start >= 2000
    ]


def _distal(store: Any, window_bp: int) -> Sequence[Place]:
    bins = distal_bins(window_bp=window_bp)
    if not bins:
        raise InputError(
            "distal",
            f"models that read {window_bp:,} bp, all of it promoter",
            "a window wider than the 6 kb of the promoter and a 2 kb bin on either side",
            "train with --model_window_bp=40000 from a store as wide",
        )
    return bins


def _every_pcre(store: Any, window_bp: int) -> Sequence[Place]:
    ranks = [store.regions(cell).contacts["rank"] for cell in store.manifest.contacts]
    most = max((int(rank.max()) + 1 for rank in ranks if len(rank)), default=0)
    if not most:
        raise InputError(
            "pcre", "a store without contacts", "regions that its genes touch",
            "build the store with --interactions",
        )  # fmt: skip
    return [pcre(rank) for rank in range(most)]


@dataclasses.dataclass(frozen=True)
class Preset:
    """Places that go by one name.

    Attributes:
        places: finds them, for genes of a store and models whose windows are so many bp wide.
        help: what they are.
        space: the space they are edited in.
    """

    places: Callable[[WindowStore, int], Sequence[Place]]
    help: str
    space: str = "raw"


PRESETS: dict[str, Preset] = {
    "promoter": Preset(lambda *_: [promoter()], "6 kb around the TSS"),
    "distal": Preset(_distal, "every 2 kb bin outside of the promoter"),
    "pcre": Preset(_every_pcre, "each of the regions a gene touches"),
    "original_promoter": Preset(lambda *_: [original_promoter()], "as published", "log"),
    "original_distal": Preset(lambda *_: original_distal(), "as published", "log"),
}
