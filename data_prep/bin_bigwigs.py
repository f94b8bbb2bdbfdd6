"""Bin bigWig tracks: the exact mean of every 25 bases, for smaller files that read faster.

    python -m data_prep.bin_bigwigs --bigwigs='tracks/*.bw' --out=binned
    python -m data_prep.bin_bigwigs --bigwigs=a.bw,b.bw --out=binned --bin_bp=100 --workers=2
    python -m data_prep.bin_bigwigs --tracks=roadmap_pvalue --out=binned    # and tracks.25bp.csv

Each track becomes OUT/NAME.25bp.bw on the same chromosomes. A bin's value is the mean over all its
bases, weighted by bases and never from zoom levels; bases that the track does not list count as 0,
and the last bin of a chromosome is the mean over the bases that are left. Every bin is listed, so
the result does not show what share of a track was measured. One that cannot be read is named at
the end, after the others are done. OUT/NAME.25bp.bw.json says what a result was made of, and its
checksum: a rerun skips results that are as they were made, of the same file.
Memory: some 0.65 GB a worker for human chromosomes.
"""

import functools
import pathlib

import numpy as np
from absl import flags
from tqdm import tqdm

from data_prep.formats.bigwig import BigWigWriter, create_bigwig, open_bigwig, require_whole
from data_prep.formats.bin_means import interval_means
from data_prep.work.conversion import conversion_from_flags, convert, define_conversion
from epi2expr_jax.errors import InputError
from epi2expr_jax.program import start
from epi2expr_jax.units import count

FLAGS = flags.FLAGS

# Binned at a time, rounded up to whole bins: what the processor keeps close by. At 25, 50, 100,
# 200 and 1,000 kb one core reads 230 to 310, 280 to 330, 320, 335 and 100 Mb/s.
_STRETCH_BP = 200_000


def bin_bigwig(
    source: pathlib.Path, target: pathlib.Path, bin_bp: int = 25, *, progress: bool = False
) -> None:
    """Write the bin means of a track as a bigWig, whole or not at all.

    Args:
        source: a bigWig of any resolution.
        target: where the result goes; what stands there is replaced.
        bin_bp: width of a bin, in bp.
        progress: show it, chromosome by chromosome.

    Raises:
        InputError: if the source cannot be read, holds infinite values, or is the target; if the
            disk is full.
    """
    if bin_bp < 1:
        raise InputError("--bin_bp", str(bin_bp), "1 or more", "such as 25")
    if target.exists() and target.samefile(source):
        raise InputError(
            str(source), "a track that is its own result", "another folder", "give --out"
        )
    with open_bigwig(source) as handle:
        sizes = handle.chroms()
    length, hidden = sum(sizes.values()), None if progress else True
    with (
        create_bigwig(target, sizes) as file,
        tqdm(
            total=length, desc=source.name, unit="bp", unit_scale=True, leave=False, disable=hidden
        ) as bar,
    ):
        for chrom, size in sizes.items():
            _add_chromosome(file, source, chrom, size, bin_bp)
            bar.update(size)


def _add_chromosome(
    file: BigWigWriter, source: pathlib.Path, chrom: str, size: int, bin_bp: int
) -> None:
    starts = np.arange(0, size, -(-_STRETCH_BP // bin_bp) * bin_bp)
    ends = np.append(starts[1:], size)
    means = interval_means(source, [chrom] * len(starts), starts, ends, bin_bp).astype(np.float64)
    whole = size // bin_bp
    if whole:
        file.add(chrom, 0, values=means[:whole], span=bin_bp, step=bin_bp)
    if whole < len(means):  # the last bin ends with its chromosome
        file.add([chrom], [whole * bin_bp], ends=[size], values=means[-1:])


def main() -> None:
    settings = {"bin_bp": FLAGS.bin_bp}
    suffix = f".{FLAGS.bin_bp}bp.bw"
    conversion = conversion_from_flags("bigwigs", suffix, settings, check=require_whole)
    make = functools.partial(bin_bigwig, bin_bp=FLAGS.bin_bp)
    made = convert(conversion, make, FLAGS.workers)
    skipped = len(conversion.targets) - len(made)
    print(
        f"{FLAGS.out}: {count(len(made), 'track')} binned"
        + (f", {skipped} done before" if skipped else "")
    )


def define_binning() -> None:
    define_conversion("bigwigs", "bigWig tracks")
    flags.DEFINE_integer("bin_bp", 25, "Width of a bin, in bp.", 1)


def run() -> None:
    start(main, define_binning)


if __name__ == "__main__":
    run()
