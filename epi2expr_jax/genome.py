"""Genes, windows, strands, chromosome ends: integers, pure.

Positions are 0-based, intervals half-open, lengths in bp. A gene's window is
`[tss - W/2, tss + W/2)` in genomic order whatever its strand; orientation happens at load.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, collect

T = TypeVar("T")
GENE_COLUMNS = ("gene_id", "name", "chrom", "tss", "strand")
# What an annotation may say besides, for readers: the gene's extent (0-based, half-open) and kind.
GENE_DETAILS = ("start", "end", "biotype")
# Assemblies known by name, whose lengths and names bioframe ships; hs1 is T2T-CHM13.
ASSEMBLIES = ("hg19", "hg38", "mm10", "mm39", "hs1")
_ACCESSION = re.compile(r"(?:NC_|CM|CP)\d{6}\.\d+")
_aliases: dict[str, str] = {}  # see `use_aliases`


@dataclasses.dataclass(frozen=True)
class WindowSpec:
    """The stretch of genome around a TSS that is stored or read, and its resolution.

    Attributes:
        window_bp: width of the window, in bp; even, and a multiple of `bin_bp`.
        bin_bp: width of a bin, in bp.

    Raises:
        InputError: if the window cannot be cut into whole bins around the TSS.
    """

    window_bp: int
    bin_bp: int

    def __post_init__(self):
        if self.bin_bp < 1 or self.window_bp < 1:
            raise InputError(
                "window",
                f"window_bp={self.window_bp}, bin_bp={self.bin_bp}",
                "positive whole numbers of base pairs",
                "choose for example window_bp=10000, bin_bp=25",
            )
        if self.window_bp % self.bin_bp or self.window_bp % 2:
            near = max(1, round(self.window_bp / (2 * self.bin_bp))) * 2 * self.bin_bp
            raise InputError(
                "window",
                f"window_bp={self.window_bp} with bin_bp={self.bin_bp}",
                "an even window that its bin divides",
                f"the nearest that fits is window_bp={near}",
            )

    @property
    def bins(self) -> int:
        """How many bins, `W`, the window has."""
        return self.window_bp // self.bin_bp

    def crop_and_merge(self, stored: "WindowSpec") -> tuple[slice, int]:
        """How to read this window out of a wider, finer stored one.

        Returns:
            The slice of stored bins to keep (the centre), and how many of them make one bin here.

        Raises:
            InputError: if the stored window is narrower, coarser, or its bins do not line up.
        """
        margin = (stored.window_bp - self.window_bp) // 2
        problem = None
        if stored.window_bp < self.window_bp:
            problem = "a store at least as wide as the model's window"
        elif stored.bin_bp > self.bin_bp or self.bin_bp % stored.bin_bp:
            problem = "stored bins that divide the model's bins"
        elif margin % stored.bin_bp:
            problem = "a centre that starts on the edge of a stored bin"
        if problem:
            raise InputError(
                "store window",
                f"{stored.window_bp} bp in bins of {stored.bin_bp} bp, "
                f"read by a model of {self.window_bp} bp in bins of {self.bin_bp} bp",
                problem,
                f"build a store with --window_bp={self.window_bp} --bin_bp={self.bin_bp}, "
                "or choose a model whose window fits",
            )
        start = margin // stored.bin_bp
        width = self.window_bp // stored.bin_bp
        return slice(start, start + width), self.bin_bp // stored.bin_bp

    def nearest_in(self, stored: "WindowSpec") -> "WindowSpec":
        """The window nearest to this one, not wider, that a stored one can be read as."""
        bin_bp = stored.bin_bp * max(1, round(self.bin_bp / stored.bin_bp))
        most = min(self.window_bp, stored.window_bp)
        for window_bp in range(most // bin_bp * bin_bp, 0, -bin_bp):
            # As many stored bins are left out on one side as on the other.
            if window_bp % 2 == 0 and (stored.window_bp - window_bp) % (2 * stored.bin_bp) == 0:
                return WindowSpec(window_bp, bin_bp)
        return stored


def chromosome_key(name: str) -> tuple:
    """Sort key that puts chr2 before chr10, and X, Y, M after the numbers."""
    bare = bare_chromosome(name)
    return (0, int(bare), "") if bare.isdigit() else (1, 0, bare)


def sort_chromosomes(names: Iterable[str]) -> list[str]:
    """The distinct names in natural order."""
    return sorted(set(names), key=chromosome_key)


def use_aliases(names: Mapping[str, str]) -> None:
    """Take some names of chromosomes for others, in this process, in place of those before."""
    _aliases.clear()
    _aliases.update(names)


def with_aliases(names: Mapping[str, str], work: Callable[..., T], *args: Any, **more: Any) -> T:
    """`work(*args, **more)` after `use_aliases(names)`: for another process."""
    use_aliases(names)
    return work(*args, **more)


@functools.cache
def accessions() -> dict[str, tuple[str, str, int]]:
    """Assembly, chromosome and length in bp of NCBI's names of chromosomes: `NC_000001.10`, …"""
    import bioframe  # takes a second, and most files have no such name

    return {
        alias: (assembly, str(chrom), int(info.chromsizes[chrom]))
        for assembly in ASSEMBLIES
        for info in [bioframe.assembly_info(assembly)]
        for alias, chrom in info.alias_dict.items()
        if _ACCESSION.fullmatch(alias)
    }


def bare_chromosome(name: str) -> str:
    """`chr1`, `chr01` and `1` as `1`, so are `NC_000001.10` and what `use_aliases` was told; the
    mitochondrion as `M`."""
    known = _aliases.get(name, name)
    if _ACCESSION.fullmatch(known):
        _, known, _ = accessions().get(known, ("", known, 0))
    bare = re.sub(r"^chr(0(?=[1-9]))?", "", known, flags=re.IGNORECASE)
    return "M" if bare.upper() in {"M", "MT"} else bare


def match_chromosomes(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Each wanted name's spelling in `available` (`1` or `chr1`); absent ones are left out."""
    available = list(available)
    by_bare = {bare_chromosome(name): name for name in available}
    exact = set(available)
    pairs = {name: name if name in exact else by_bare.get(bare_chromosome(name)) for name in wanted}
    return {name: spelling for name, spelling in pairs.items() if spelling is not None}


def find_chromosomes(names: Iterable[str], chrom_sizes: Mapping[str, int]) -> dict[str, str]:
    """How an assembly spells the names of chromosomes in a file; those it lacks are left out.

    An accession of NCBI is of one assembly alone: it is no chromosome of another length.

    Args:
        chrom_sizes: length of each chromosome of the assembly, in bp.
    """
    return {
        name: spelling
        for name, spelling in match_chromosomes(names, chrom_sizes).items()
        if not _ACCESSION.fullmatch(name)
        or accessions().get(name, ("", "", chrom_sizes[spelling]))[2] == chrom_sizes[spelling]
    }


def strip_version(gene_id: str) -> str:
    """`ENSG00000116213.10` as `ENSG00000116213`; only Ensembl ids carry such versions.

    Those that GENCODE has lifted to hg19 have two (`.10_4`); copies on chrY stay apart (`_PAR_Y`).
    """
    return re.sub(r"^(ENS[A-Z]*\d+)\.\d+(?:_\d+)?(_PAR_Y)?$", r"\1\2", gene_id)


def window_bounds(tss: np.ndarray, window_bp: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end `[G]`, in bp, of the windows around `tss [G]`; either may lie beyond the
    chromosome."""
    tss = np.asarray(tss, np.int64)
    return tss - window_bp // 2, tss + window_bp // 2


def check_gene_table(genes: pd.DataFrame, chrom_sizes: dict[str, int], where: str) -> None:
    """Check a gene table with columns `GENE_COLUMNS`.

    Raises:
        InputError: naming every duplicated id, unknown strand, and TSS off its chromosome.
    """
    missing = [column for column in GENE_COLUMNS if column not in genes.columns]
    if missing:
        raise InputError(
            where, f"columns {list(genes.columns)}", f"also {missing}", "add the columns"
        )
    with collect() as problems:
        duplicated = genes.gene_id[genes.gene_id.duplicated()]
        if len(duplicated):
            problems.add(
                where,
                f"{len(duplicated)} gene ids listed twice ({listing(duplicated)})",
                "one row a gene",
                "keep one row of each",
            )
        strange = genes[~genes.strand.isin(["+", "-"])]
        if len(strange):
            problems.add(
                where,
                f"strand {sorted(set(map(str, strange.strand)))} ({listing(strange.gene_id)})",
                "strand + or -",
                "correct the strand column",
            )
        length = genes.chrom.map(chrom_sizes)
        outside = genes[length.notna() & ~genes.tss.between(0, length - 1)]
        if len(outside):
            problems.add(
                where,
                f"{len(outside)} TSSs off the end of their chromosome ({listing(outside.gene_id)})",
                "0-based positions on the given assembly",
                "check --assembly, and that the table belongs to it",
            )


def listing(items: Iterable, most: int = 5) -> str:
    """A short list for a message: the first few, and how many more."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def gene_order(chrom: Iterable[str], tss: Iterable[int]) -> np.ndarray:
    """Order `[G]` of genes along the genome: natural chromosome order, then TSS, then as given."""
    keys = pd.DataFrame(
        {"key": [chromosome_key(name) for name in chrom], "tss": list(tss)}
    ).sort_values(["key", "tss"], kind="stable")
    return keys.index.to_numpy()
