"""Contact scores of elements and TSSs: from a map (`.cool`, `.mcool`), or from distance alone.

Scores are multiples of the contact frequency of places 100 kb apart, which makes maps of any depth,
and distance alone, comparable. As in the activity-by-contact model (Fulco et al., Nat Genet 2019,
methods), a power law of distance stands where a map says nothing; it is fitted to the map.

Axes: `N` pairs of a TSS and an element, `D` distances in bins, from 0.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import find_chromosomes, listing
from epi2expr_jax.screens.rivals import GAMMA

UNIT_BP = 100_000  # the distance whose contact frequency is 1
CLIP_BP = 5_000  # below it, distance alone says nothing
_BLOCK = 2_000  # bins of a map held at a time


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """Contact frequency by distance: `level x (distance / 100 kb)^-gamma`."""

    gamma: float = GAMMA
    level: float = 1.0
    clip_bp: int = CLIP_BP

    def score(self, distance_bp: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """In multiples of the frequency at 100 kb."""
        return (np.maximum(distance_bp, self.clip_bp) / UNIT_BP) ** -self.gamma

    @classmethod
    def fit(cls, means: Float[np.ndarray, " D"], bin_bp: int) -> "PowerLaw":
        """Least squares of logarithms.

        Args:
            means: frequency at each distance in bins; that at 0 does not count.

        Raises:
            ValueError: if fewer than two distances have contacts.
        """
        k = np.flatnonzero(means[1:] > 0) + 1  # NaN, of no sound pair, is not above 0
        if len(k) < 2:
            raise ValueError("fewer than two distances have contacts")
        slope, level = np.polyfit(np.log(k * bin_bp / UNIT_BP), np.log(means[k]), 1)
        return cls(float(-slope), float(np.exp(level)), bin_bp)


def pairs_in_reach(
    elements: pd.DataFrame, tss: pd.DataFrame, least_bp: int, reach_bp: int
) -> pd.DataFrame:
    """Every TSS with every element whose middle lies at such a distance on its chromosome.

    Args:
        elements: columns `chrom`, `start`, `end` (0-based, half-open, bp).
        tss: columns `chrom` and `tss` (0-based).

    Returns:
        Columns `bait_chrom`, `bait_start`, `bait_end` (the TSS, 1 bp), `chrom`, `start`, `end`,
        `middle` and `distance` (bp), in genome order of the TSSs; each place once.
    """
    elements = elements.drop_duplicates(["chrom", "start", "end"])
    elements = elements.assign(middle=(elements["start"] + elements["end"]) // 2)
    baits = tss[["chrom", "tss"]].drop_duplicates()
    parts = []
    for chrom, own in baits.groupby("chrom", sort=False):
        there = elements[elements["chrom"] == chrom].sort_values("middle", kind="stable")
        middle, place = there["middle"].to_numpy(), own["tss"].to_numpy()
        first = np.searchsorted(middle, place - reach_bp, "left")
        count = np.searchsorted(middle, place + reach_bp, "right") - first
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        part = there.iloc[np.repeat(first, count) + within][["chrom", "start", "end", "middle"]]
        bait = np.repeat(place, count)
        part.insert(0, "bait_chrom", chrom)
        part.insert(1, "bait_start", bait)
        part.insert(2, "bait_end", bait + 1)
        part["distance"] = np.abs(part["middle"].to_numpy() - bait)
        parts.append(part[part["distance"] >= least_bp])
    return pd.concat(parts, ignore_index=True)


class ContactMap:
    """A balanced contact map, opened with `cooler` (Abdennur & Mirny, Bioinformatics 2020).

    Attributes:
        bin_bp: width of its bins.
        law: the power law fitted to it, once `scores` is called.
        measured: of how many pairs the map itself says something, once `scores` is called.

    Args:
        path: a `.cool`, a `.mcool`, or one map in it (`FILE::/resolutions/5000`).
        bin_bp: which map of a file that holds several.
        chrom_sizes: length of each chromosome of the assembly, in bp.

    Raises:
        InputError: if it cannot be read, is not balanced, lacks this bin, or is of another
            assembly.
    """

    def __init__(self, path: str | pathlib.Path, bin_bp: int, chrom_sizes: dict[str, int]):
        self.path, self._cool = str(path), _opened(str(path), bin_bp)
        where, cool = self.path, self._cool
        with _readable(where):
            bin_bp, weighed = cool.binsize, "weight" in cool.bins().columns
            self._lengths = {str(name): int(size) for name, size in cool.chromsizes.items()}
        if bin_bp is None:
            raise InputError(where, "bins of unequal width", "equal bins", "give another map")
        if not weighed:
            remedy = "run: cooler balance FILE (other weights, such as KR, are not read)"
            raise InputError(where, "a map that is not balanced", "a column `weight`", remedy)
        self.bin_bp = int(bin_bp)
        named = find_chromosomes(self._lengths, chrom_sizes)
        self._named = {ours: theirs for theirs, ours in named.items()}
        other = [n for n, o in named.items() if self._lengths[n] != chrom_sizes[o]]
        if other or not named:
            found = f"other lengths of {listing(other)}" if other else "none of its chromosomes"
            remedy = "give the --assembly of the map, or another map"
            raise InputError(where, found, "a map of the assembly", remedy)
        self.law, self.measured = PowerLaw(), 0

    def scores(self, pairs: pd.DataFrame, reach_bp: int) -> Float[np.ndarray, " N"]:
        """Contact frequency of each pair in multiples of that of places 100 kb apart.

        A pair's frequency is that of the bins of its TSS and of its element's middle. The power law
        stands for pairs within one bin, in bins that balancing left out, and on chromosomes that
        the map lacks.

        Args:
            pairs: from `pairs_in_reach`, of that reach.

        Raises:
            InputError: if the map has too few contacts to fit a power law.
        """
        reach = reach_bp // self.bin_bp + 1
        total, number = np.zeros((2, reach + 1))
        value = np.full(len(pairs), np.nan)
        ends = np.sort(pairs[["bait_start", "middle"]].to_numpy() // self.bin_bp, axis=1)
        for chrom, rows in pairs.groupby("bait_chrom").indices.items():
            if str(chrom) not in self._named:
                continue
            low, high = ends[rows].T
            for first, block in self._blocks(self._named[str(chrom)], reach):
                for k in range(min(reach + 1, block.shape[1])):
                    along = np.diagonal(block, k)
                    total[k] += np.nansum(along)
                    number[k] += np.isfinite(along).sum()
                here = (low >= first) & (low < first + len(block)) & (high > low)
                value[rows[here]] = block[low[here] - first, high[here] - first]
        with np.errstate(invalid="ignore"):
            means = total / number
        try:
            self.law = PowerLaw.fit(means, self.bin_bp)
        except ValueError as error:
            found, expected = str(error), "contacts at more distances"
            remedy = "give a deeper map, one of narrower bins, or a larger --reach_bp"
            raise InputError(self.path, found, expected, remedy) from None
        expected = self.law.score(pairs["distance"].to_numpy())
        self.measured = int(np.isfinite(value).sum())
        return np.where(np.isfinite(value), value / self.law.level, expected)

    def _blocks(self, chrom: str, reach: int) -> Iterator[tuple[int, Float[np.ndarray, "b c"]]]:
        """The band of a chromosome's map: first bin, and balanced frequencies of some bins with
        themselves and the `reach` bins after them."""
        size, width = self._lengths[chrom], self.bin_bp
        with _readable(self.path):
            matrix = self._cool.matrix(balance=True)
        for first in range(0, -(-size // width), _BLOCK):
            start, end = first * width, (first + _BLOCK) * width
            columns = chrom, start, min(size, end + reach * width)
            with _readable(self.path):
                yield first, matrix.fetch((chrom, start, min(size, end)), columns)


def _opened(path: str, bin_bp: int) -> Any:
    try:
        import cooler
    except ImportError:
        raise InputError(
            path,
            "a contact map, and no cooler to read it",
            "the extra that reads them",
            "pip install 'epi2expr_jax[maps]'",
        ) from None
    if "::" not in path:
        with _readable(path):
            inside = cooler.fileops.list_coolers(path)
        if inside != ["/"]:
            there = [name for name in inside if name.rpartition("/")[2] == str(bin_bp)]
            if len(there) != 1:
                found = f"maps {listing(inside) or 'none'}"
                remedy = "give --map_bin, or --map=FILE::NAME"
                raise InputError(path, found, f"one map in bins of {bin_bp} bp", remedy)
            path = f"{path}::{there[0]}"
    with _readable(path):
        return cooler.Cooler(path)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """What cooler and HDF5 raise of a file that is none, or damaged, as bad input."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a damaged file: of HDF5 any kind, by where the damage lies
        found = f"no readable contact map ({error})"
        raise InputError(path, found, "a .cool or .mcool", "give another file") from None
