"""Read depth of alignments: how many reads cover each base, as a bigWig.

    python -m data_prep.depth --reads=E003-H3K27ac.tagAlign.gz --assembly=hg19 --out=depth
    python -m data_prep.depth --reads='alignments/*.tagAlign.gz' --assembly=hg19 --out=depth
    python -m data_prep.depth --reads=sample.bam --assembly=hg38 --out=depth
    python -m data_prep.depth --tracks=roadmap_alignments --assembly=hg19 --out=depth --workers=2
    python -m data_prep.depth --tracks=roadmap_alignments --assembly=hg19 --out=equal \\
                              --keep_reads=10000000

What Chromoformer reads (Lee et al. 2022), made from public alignments: depth as `bedtools
genomecov` counts it. Reads are tagAlign or BED (gzipped or not) or BAM (pip install
'epi2expr_jax[depth]'), whatever their names, in any order; of a BAM every mapped record counts,
from its first base to its last, except deletions. A read that passes its chromosome's end is cut
there, and reads on chromosomes that the assembly lacks are left out and counted. Each file becomes
OUT/NAME.depth.bw, in which every base is listed, uncovered ones as 0. OUT/NAME.depth.bw.json says
what it was made of, and its checksum: a rerun skips results that are as they were made, of the same
file for the same assembly.

Marks sequenced deeper can predict better for that alone. --keep_reads thins each file to about so
many reads, each kept with the same probability (binomial, seeded by --thin_seed and its name), so
that files are of equal depth (give each track as many); equal depth is not equal quality. Files of
fewer reads are refused, and so is signal: p-values and fold change cannot be thinned.

Memory: 0.4 GB, and some 130 bytes for each read of the chromosome with most (0.8 GB in all for 40
million reads of a human genome).
Disk while it runs: 8 bytes a read, and the result.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

import numpy as np
import pandas as pd
from absl import flags
from jaxtyping import Float64, Int64, Integer
from tqdm import tqdm

from data_prep.formats.assembly import define_assembly, load_assembly
from data_prep.formats.bigwig import BigWigWriter, create_bigwig
from data_prep.formats.foreign import opened_as, recognise
from data_prep.formats.text import NO_RECORDS, is_header, position
from data_prep.work.conversion import conversion_from_flags, convert, define_conversion
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import opened
from epi2expr_jax.genome import find_chromosomes, listing, with_aliases
from epi2expr_jax.program import start

FLAGS = flags.FLAGS

_READS = 1_000_000  # held at a time while a file is read
_INTERVALS = 1_000_000  # written at a time
_LONGEST_TEXT = 1 << 28  # of a BAM's header, in bytes


@dataclasses.dataclass(frozen=True)
class Counted:
    """What became of a file's reads.

    Attributes:
        reads: how many were counted; of a BAM with deletions, how many pieces (which are thinned
            like reads).
        elsewhere: how many lie on chromosomes that the assembly lacks, by chromosome.
    """

    reads: int
    elsewhere: dict[str, int]


def depth_of(
    starts: Integer[np.ndarray, " N"], ends: Integer[np.ndarray, " N"], size: int
) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
    """Runs of equal depth over a whole chromosome.

    Args:
        starts, ends: of each read, 0-based, end not included, in any order.
        size: length of the chromosome, in bp; reads that pass its end are cut there.

    Returns:
        Start, end and depth of each interval, in order; neighbours differ in depth.
    """
    starts = np.sort(np.minimum(np.asarray(starts, np.int64), size))
    ends = np.sort(np.minimum(np.asarray(ends, np.int64), size))
    # A stable sort merges what is sorted already; np.unique, which hashes, takes a hundred times
    # as long.
    edges = np.sort(np.concatenate([[0], starts, ends, [size]]), kind="stable")
    edges = edges[np.append(True, edges[1:] != edges[:-1])]
    # Reads that began at or before an edge, less those that ended there or before.
    begun = np.searchsorted(starts, edges[:-1], side="right")
    depth = begun - np.searchsorted(ends, edges[:-1], side="right")
    changed = np.append(True, np.diff(depth) != 0)
    first = edges[:-1][changed]
    return first, np.append(first[1:], size), depth[changed].astype(np.float64)


def write_depth(
    source: pathlib.Path,
    target: pathlib.Path,
    chrom_sizes: dict[str, int],
    *,
    keep_reads: int = 0,
    thin_seed: int = 0,
    progress: bool = False,
) -> Counted:
    """Write the depth of a file of reads as a bigWig, whole or not at all.

    Args:
        source: tagAlign, BED or BAM.
        target: where the result goes; what stands there is replaced.
        chrom_sizes: of the assembly, in bp.
        keep_reads: about how many reads to keep, each with the same probability; 0: all.
        thin_seed: of the draw, with the name of the file.
        progress: show it.

    Raises:
        InputError: if the reads cannot be read, none of them lies on the assembly, or there are
            fewer than should be kept; if a bigWig is to be thinned.
    """
    if keep_reads:
        _require_no_signal(source)
    elsewhere: dict[str, int] = {}
    number = {chrom: i for i, chrom in enumerate(chrom_sizes)}
    counts = np.zeros(len(chrom_sizes), np.int64)
    hidden = None if progress else True
    with _spill(target) as spill:
        with tqdm(
            desc=source.name, unit=" reads", unit_scale=True, leave=False, disable=hidden
        ) as bar:
            for part in _batches(source):
                spelling = find_chromosomes(part["chrom"].unique().tolist(), chrom_sizes)
                for chrom, own in part.groupby("chrom", sort=False, observed=True):
                    if chrom not in spelling:
                        elsewhere[str(chrom)] = elsewhere.get(str(chrom), 0) + len(own)
                        continue
                    name = spelling[str(chrom)]
                    counts[number[name]] += len(own)
                    bounds = own[["start", "end"]].clip(upper=chrom_sizes[name])
                    with open(f"{spill}/{number[name]}", "ab") as file:
                        file.write(bounds.to_numpy(np.int32).tobytes())
                bar.update(len(part))
        if not counts.any():
            raise InputError(
                str(source),
                f"reads on {listing(elsewhere)} alone" if elsewhere else "no reads",
                f"reads on chromosomes of the assembly ({listing(chrom_sizes)})",
                "check --assembly",
            )
        total = int(counts.sum())
        if keep_reads > total:
            found, expected = f"{total:,} reads", f"at least the {keep_reads:,} of --keep_reads"
            remedy = "give the number that the file of fewest reads has, or leave this file out"
            raise InputError(str(source), found, expected, remedy)
        kept = 0
        with create_bigwig(target, chrom_sizes) as file:
            for chrom, size in tqdm(
                chrom_sizes.items(), f"depth of {source.name}", leave=False, disable=hidden
            ):
                path = pathlib.Path(spill, str(number[chrom]))
                held = np.fromfile(path, np.int32) if path.exists() else np.zeros(0, np.int32)
                reads = held.reshape(-1, 2)
                if keep_reads:
                    # Not the same draw for all files: equal reads of two are not thinned alike.
                    drawn = [thin_seed, number[chrom], *source.name.encode()]
                    random = np.random.default_rng(drawn)
                    reads = reads[random.random(len(reads)) < keep_reads / total]
                kept += len(reads)
                _add(file, chrom, *depth_of(reads[:, 0], reads[:, 1], size))
    return Counted(kept, elsewhere)


def _require_no_signal(source: pathlib.Path) -> None:
    with opened(source, "reads") as file:
        known = recognise(cast(io.BufferedReader, file).peek(4096))
    if known and "bigWig" in known[0]:
        found = f"{known[0]}: signal, such as p-values or fold change, cannot be thinned"
        remedy = "give the alignments that it was made of"
        raise InputError(str(source), found, "reads: tagAlign, BED or BAM", remedy)


def _spill(target: pathlib.Path) -> contextlib.AbstractContextManager[str]:
    """A folder for reads by chromosome. A rerun removes what a killed run leaves of it."""
    return tempfile.TemporaryDirectory(".partial.reads", f"{target.name}.", target.parent)


def _add(
    file: BigWigWriter, chrom: str, starts: np.ndarray, ends: np.ndarray, depth: np.ndarray
) -> None:
    for i in range(0, len(starts), _INTERVALS):
        part = slice(i, i + _INTERVALS)
        names = np.full(len(starts[part]), chrom)
        file.add(names, starts[part], ends=ends[part], values=depth[part])


def _batches(path: pathlib.Path) -> Iterator[pd.DataFrame]:
    """Reads some at a time: chrom, start, end.

    Raises:
        InputError: if the file is missing or cut short, or naming a line that is not a read.
    """
    seen, expected = 0, "tagAlign or BED: chrom, start and end between tabs"
    # Of positions that are none NumPy warns; pandas refuses them.
    with opened_as(path, expected, "a BAM") as file, np.errstate(invalid="ignore"):
        if cast(io.BufferedReader, file).peek(4).startswith(b"BAM\1"):
            yield from _bam_batches(path)
            return
        try:
            if (top := _lines_before_reads(path, file)) is None:
                return
            with pd.read_csv(
                file, sep="\t", header=None, usecols=[0, 1, 2], names=["chrom", "start", "end"],
                dtype={"chrom": "category", "start": np.int64, "end": np.int64}, comment="#",
                chunksize=_READS, quoting=csv.QUOTE_NONE, skiprows=top,
            ) as parts:  # fmt: skip
                for part in parts:
                    _require_reads(path, part)
                    seen += len(part)
                    yield part
        except InputError:  # a ValueError, too
            raise
        except (ValueError, OverflowError) as error:
            found = f"no readable reads after the first {seen:,} ({error})"
            remedy = "download it again, or give another file"
            raise InputError(str(path), found, expected, remedy) from None


def _lines_before_reads(path: pathlib.Path, file: IO[bytes]) -> int | None:
    """How many lines of a browser, comments or a header are before the reads; None: no reads.

    The file is left at its beginning.
    """
    for count, line in enumerate(file):
        fields = line.decode(errors="replace").split("\t")
        no_record = fields[0].startswith(NO_RECORDS) or not line.strip()
        if not (no_record or (count == 0 and is_header(fields[1:3]))):
            if all(position(field) is not None for field in [*fields[1:3], *fields[4:6], ""][:4]):
                remedy = "give the reads themselves: bedtools bamtobed without -bedpe"
                raise InputError(str(path), "BEDPE, a line for a pair", "a line a read", remedy)
            file.seek(0)
            return count
    return None


def _require_reads(path: pathlib.Path, part: pd.DataFrame) -> None:
    fine = part["chrom"].notna() & (part["start"] >= 0) & (part["start"] <= part["end"])
    bad = part[~fine]
    if len(bad):
        row = bad.iloc[0]
        raise InputError(
            f"{path}, read {bad.index[0] + 1:,}",
            f"{row['chrom']}:{row['start']}-{row['end']}",
            "0 <= start <= end",
            "give a tagAlign or BED file",
        )


def _bam_batches(path: pathlib.Path) -> Iterator[pd.DataFrame]:
    try:
        import pysam
    except ImportError:
        raise InputError(
            str(path),
            "a BAM file, and no pysam to read it",
            "the extra that reads them",
            "pip install 'epi2expr_jax[depth]'",
        ) from None
    chroms: list[str] = []
    bounds: list[tuple[int, int]] = []

    def batch() -> pd.DataFrame:
        table = pd.DataFrame(bounds, columns=pd.Index(["start", "end"]), dtype=np.int64)
        table["chrom"] = pd.Categorical(chroms)
        chroms.clear()
        bounds.clear()
        return table

    _require_bam_header(path)
    pysam.set_verbosity(0)  # what it finds is said below
    try:
        with pysam.AlignmentFile(str(path), "rb", check_sq=False) as file:
            for record in file.fetch(until_eof=True):
                chrom, cigar = record.reference_name, record.cigartuples
                if record.is_unmapped or chrom is None or cigar is None:
                    continue
                for block in _blocks(record.reference_start, cigar):
                    chroms.append(chrom)
                    bounds.append(block)
                if len(bounds) >= _READS:
                    yield batch()
    # All that pysam raises of a damaged file, or of one packed in a way it cannot read.
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            str(path), f"no whole BAM file ({error})", "a BAM", "copy it again"
        ) from None
    yield batch()


def _require_bam_header(path: pathlib.Path) -> None:
    """Of a damaged one pysam prints a traceback that no program can catch."""
    with opened(path, "a BAM") as file:

        def number() -> int:
            return int.from_bytes(file.read(4).ljust(4, b"\0"), "little")

        magic = file.read(4)
        whole = magic == b"BAM\1" and len(file.read(min(text := number(), _LONGEST_TEXT))) == text
        for _ in range(number() if whole else 0):
            whole = len(file.read(min(name := number(), _LONGEST_TEXT))) == name > 0
            if not (whole and len(file.read(4)) == 4):
                whole = False
                break
    if not whole:
        found = f"no BAM with a whole header (first bytes {magic!r})"
        raise InputError(str(path), found, "a BAM", "copy it again")


def _blocks(start: int, cigar: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What a record covers: all of it but deletions (D), as genomecov has it; skips (N) count."""
    end = start
    for operation, length in cigar:
        if operation == 2:
            yield start, end
            start = end = end + length
        elif operation in (0, 3, 7, 8):  # M, N, =, X; the others take up nothing on the reference
            end += length
    yield start, end


def main() -> None:
    assembly = load_assembly(FLAGS.assembly, FLAGS.aliases)
    sizes, aliases = assembly.chrom_sizes, assembly.aliases
    settings: dict[str, Any] = {"chrom_sizes": [*map(list, sizes.items())]}  # their order counts
    settings |= {"aliases": aliases} if aliases else {}
    thinned = {"keep_reads": FLAGS.keep_reads, "thin_seed": FLAGS.thin_seed}
    thinned = thinned if FLAGS.keep_reads else {}
    conversion = conversion_from_flags("reads", ".depth.bw", settings | thinned, unit="depth")
    make = functools.partial(with_aliases, aliases, write_depth, chrom_sizes=sizes, **thinned)
    made = convert(conversion, make, FLAGS.workers)
    for target, counted in made.items():
        left = sum(counted.elsewhere.values())
        where = f"; {left:,} left out, on {listing(counted.elsewhere)}" if left else ""
        print(f"{target}: {counted.reads:,} reads{where}")
    if len(made) < len(conversion.targets):
        print(f"{len(conversion.targets) - len(made)} done before")


def define_depth() -> None:
    define_conversion("reads", "tagAlign, BED or BAM files")
    define_assembly(None, required=True)
    flags.DEFINE_integer(
        "keep_reads", 0, "Thin each file to about so many reads, for equal depth. 0: all.", 0
    )
    flags.DEFINE_integer("thin_seed", 0, "Of the reads that --keep_reads draws.", 0)


def run() -> None:
    start(main, define_depth)


if __name__ == "__main__":
    run()
