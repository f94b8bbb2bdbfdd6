"""BED: regions of the genome, to leave out (the ENCODE blacklist) or to alter marks in."""

import gzip
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Integer

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import match_chromosomes


def read_bed(path: str | pathlib.Path, chrom_sizes: dict[str, int]) -> pd.DataFrame:
    """The regions of a BED file (may be gzipped), on the chromosomes of the assembly.

    Returns:
        Columns `chrom` (spelled as the assembly does), `start` and `end` (0-based, half-open, bp),
        and `name`, empty where the file has none.

    Raises:
        InputError: if the file cannot be read, naming every malformed line (at most 20), or if no
            region lies on the assembly.
    """
    path = pathlib.Path(path)
    remedy = "give a BED of chrom<tab>start<tab>end (.gz)"
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise InputError(str(path), f"no readable file ({error})", "a BED", remedy) from None
    rows, problems = [], []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        fields = line.split()
        if not fields or line.startswith(("#", "track", "browser")):
            continue
        whole = len(fields) >= 3 and fields[1].isdigit() and fields[2].isdigit()
        if not whole or int(fields[1]) >= int(fields[2]):
            problems.append(
                Problem(f"{path}, line {number}", repr(line), "chrom, start < end", remedy)
            )
        else:
            rows.append(
                (fields[0], int(fields[1]), int(fields[2]), fields[3] if fields[3:] else "")
            )
    if problems:
        raise InputError.of(problems[:20])
    spelling = match_chromosomes({row[0] for row in rows}, chrom_sizes)
    known = [
        (spelling[chrom], first, end, name) for chrom, first, end, name in rows if chrom in spelling
    ]
    outside = [row for row in known if row[2] > chrom_sizes[row[0]]]
    if outside or not known:
        chrom, first, end, _ = outside[0] if outside else ("no region", 0, 0, "")
        raise InputError(
            str(path),
            f"{chrom}:{first}-{end}, off the chromosome's end" if outside else chrom,
            "regions on the given assembly",
            "check --assembly, and that the file belongs to it",
        )
    return pd.DataFrame(sorted(known), columns=["chrom", "start", "end", "name"])


def bed_record(path: str | pathlib.Path) -> dict[str, str]:
    """Name and sha256 of the file, for a manifest."""
    path = pathlib.Path(path)
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def touched_bins(
    chroms: Sequence[str],
    starts: Integer[np.ndarray, "N"],
    ends: Integer[np.ndarray, "N"],
    bin_bp: int,
    regions: pd.DataFrame,
) -> Bool[np.ndarray, "bins"]:
    """Which bins of stretches share a base with any of `regions`.

    Args:
        chroms, starts, ends: the stretches, 0-based, half-open, in bp; each has
            `ceil(width / bin_bp)` bins, which are returned stretch after stretch.
        bin_bp: width of a bin, in bp.
        regions: columns `chrom`, `start`, `end`.
    """
    starts, ends = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    offsets = np.concatenate([[0], np.cumsum(-(-(ends - starts) // bin_bp))])
    touched = np.zeros(offsets[-1], bool)
    on = np.asarray(chroms, dtype=object)
    by_chrom = {str(chrom): part for chrom, part in regions.groupby("chrom")}
    for chrom, name in match_chromosomes(sorted(set(on)), by_chrom).items():
        members = np.flatnonzero(on == chrom)
        for first, end in by_chrom[name][["start", "end"]].to_numpy():
            for i in members[(starts[members] < end) & (ends[members] > first)]:
                low = (max(first, starts[i]) - starts[i]) // bin_bp
                high = -(-(min(end, ends[i]) - starts[i]) // bin_bp)
                touched[offsets[i] + low : offsets[i] + high] = True
    return touched
