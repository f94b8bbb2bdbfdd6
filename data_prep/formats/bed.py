"""BED: intervals of the genome, to leave out (the ENCODE blacklist) or to alter marks in."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Integer

from data_prep.formats.text import MOST_LINES, NO_RECORDS, is_header, position, read_text
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import lines_of, sha256
from epi2expr_jax.genome import (
    WindowSpec,
    find_chromosomes,
    match_chromosomes,
    window_bounds,
)


def read_bed(path: str | pathlib.Path, chrom_sizes: dict[str, int]) -> pd.DataFrame:
    """The intervals of a BED file (may be gzipped), on the chromosomes of the assembly.

    Lines of a browser (`track`, `browser`), comments and a header are left out.

    Returns:
        See `on_assembly`.

    Raises:
        InputError: if the file cannot be read, naming the malformed lines, or if none is on the
            assembly.
    """
    return on_assembly(read_intervals(path), chrom_sizes, str(path))


def read_intervals(path: str | pathlib.Path) -> pd.DataFrame:
    """As `read_bed`, of any assembly: names of chromosomes, and the order, are the file's."""
    rows = []
    with collect(most=MOST_LINES) as problems:
        for number, line in enumerate(lines_of(read_text(path, "a BED")), start=1):
            fields = line.split()
            if not fields or line.startswith(NO_RECORDS):
                continue
            start, end = (position(field) for field in [*fields[1:3], "", ""][:2])
            if not rows and not problems and start is end is None and is_header(fields[1:3]):
                continue
            if start is None or end is None or start >= end:
                remedy = "give a BED of chrom<tab>start<tab>end (.gz)"
                where = f"{path}, line {number}"
                problems.add(where, repr(line), "chrom, start < end", remedy)
            else:
                tabbed = line.split("\t")  # blanks may be part of a name
                name = tabbed[3].strip() if tabbed[3:] else "".join(fields[3:4])
                rows.append((fields[0], start, end, name))
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "name"])


def on_assembly(intervals: pd.DataFrame, chrom_sizes: dict[str, int], where: str) -> pd.DataFrame:
    """Those of some intervals that lie on the chromosomes of an assembly, in their order.

    Args:
        intervals: as of `read_intervals`.
        where: the file, for messages.

    Returns:
        Columns `chrom` (spelled as the assembly does), `start` and `end` (0-based, half-open, bp),
        and `name`, empty where the file has none.

    Raises:
        InputError: if none is, or one lies beyond its chromosome.
    """
    spelling = find_chromosomes(set(intervals["chrom"]), chrom_sizes)
    known = intervals.assign(chrom=intervals["chrom"].map(spelling)).dropna(subset="chrom")
    outside = known[known["end"] > known["chrom"].map(chrom_sizes)]
    if len(outside) or known.empty:
        found = "no interval"
        if len(outside):
            chrom, first, end = outside.iloc[0][["chrom", "start", "end"]]
            found = f"{chrom}:{first}-{end}, off the chromosome's end"
        raise InputError(
            where,
            found,
            "intervals on the given assembly",
            "check --assembly, and that the file belongs to it",
        )
    return known.sort_values([*map(str, known)], ignore_index=True)


def bed_record(path: str | pathlib.Path) -> dict[str, str]:
    """Name and sha256 of the file, for a manifest."""
    return {"name": pathlib.Path(path).name, "sha256": sha256(path)}


def touched_genes(genes: pd.DataFrame, window: WindowSpec, hidden: pd.DataFrame) -> dict[str, int]:
    """How many `genes` have window bins that share a base with `hidden`, and how many `bins`.

    Args:
        genes: columns `chrom` and `tss` (0-based, bp).
        hidden: as of `touched_bins`.
    """
    starts, ends = window_bounds(genes["tss"].to_numpy(), window.window_bp)
    touched = touched_bins(list(genes["chrom"]), starts, ends, window.bin_bp, hidden)
    touched = touched.reshape(len(genes), window.bins)
    return {"genes": int(touched.any(axis=1).sum()), "bins": int(touched.sum())}


def touched_bins(
    chroms: Sequence[str],
    starts: Integer[np.ndarray, "N"],
    ends: Integer[np.ndarray, "N"],
    bin_bp: int,
    hidden: pd.DataFrame,
) -> Bool[np.ndarray, "bins"]:
    """Which bins of some intervals share a base with any of `hidden`.

    Args:
        chroms, starts, ends: the intervals, 0-based, half-open, in bp; each has
            `ceil(width / bin_bp)` bins, which are returned interval after interval.
        bin_bp: width of a bin, in bp.
        hidden: columns `chrom`, `start`, `end`.
    """
    starts, ends = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    offsets = np.concatenate([[0], np.cumsum(-(-(ends - starts) // bin_bp))])
    touched = np.zeros(offsets[-1], bool)
    on = np.asarray(chroms, dtype=object)
    by_chrom = {str(chrom): part for chrom, part in hidden.groupby("chrom")}
    for chrom, name in match_chromosomes(sorted(set(on)), by_chrom).items():
        members = np.flatnonzero(on == chrom)
        for first, end in by_chrom[name][["start", "end"]].to_numpy():
            for i in members[(starts[members] < end) & (ends[members] > first)]:
                low = (max(first, starts[i]) - starts[i]) // bin_bp
                high = -(-(min(end, ends[i]) - starts[i]) // bin_bp)
                touched[offsets[i] + low : offsets[i] + high] = True
    return touched
