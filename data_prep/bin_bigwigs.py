"""Bin bigWig tracks: the exact mean of every 25 bases, for smaller files that read faster.

    python -m data_prep.bin_bigwigs --bigwigs='tracks/*.bw' --out=binned
    python -m data_prep.bin_bigwigs --bigwigs=a.bw,b.bw --out=binned --bin_bp=100 --workers=2

Each track becomes OUT/NAME.25bp.bw on the same chromosomes. A bin's value is the mean over all its
bases, weighted by bases and never from zoom levels; bases that the track does not list count as 0,
and the last bin of a chromosome is the mean over the bases that are left. Every bin is listed, so
what share of a track was measured is no longer to be seen in the result. Tracks that are done, and
no older than their source, are skipped; one that cannot be read is named at the end, with the rest
done. Memory: some 200 MB a worker for human chromosomes.
"""

import concurrent.futures
import functools
import multiprocessing
import pathlib
from collections.abc import Sequence

import numpy as np
import pyBigWig
from absl import flags
from tqdm import tqdm

from data_prep.bigwig import open_bigwig, region_means
from data_prep.file_lists import given_files, is_done, results_of
from data_prep.program import start
from epi2expr_jax.errors import InputError, Problem, collect

FLAGS = flags.FLAGS

_STRETCH_BP = 1_000_000  # read at a time, rounded up to whole bins


def bin_bigwig(source: pathlib.Path, target: pathlib.Path, bin_bp: int = 25) -> None:
    """Write the bin means of a track as a bigWig, whole or not at all.

    Args:
        source: a bigWig of any resolution.
        target: where the result goes; what stands there is replaced.
        bin_bp: width of a bin, in bp.

    Raises:
        InputError: if the source cannot be read, holds infinite values, or is the target.
    """
    if bin_bp < 1:
        raise InputError(Problem("--bin_bp", str(bin_bp), "1 or more", "such as 25"))
    if target.exists() and target.samefile(source):
        raise InputError(
            Problem(str(source), "a track that is its own result", "another folder", "give --out")
        )
    with open_bigwig(source) as handle:
        sizes = handle.chroms()
    partial = target.with_name(target.name + ".partial")
    try:
        with pyBigWig.open(str(partial), "w") as file:
            file.addHeader(list(sizes.items()))
            for chrom, size in sizes.items():
                _add_chromosome(file, source, chrom, size, bin_bp)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _add_chromosome(file, source: pathlib.Path, chrom: str, size: int, bin_bp: int) -> None:
    starts = np.arange(0, size, -(-_STRETCH_BP // bin_bp) * bin_bp)
    ends = np.append(starts[1:], size)
    means = region_means(source, [chrom] * len(starts), starts, ends, bin_bp).astype(np.float64)
    whole = size // bin_bp
    if whole:
        file.addEntries(chrom, 0, values=means[:whole], span=bin_bp, step=bin_bp)
    if whole < len(means):  # the last bin ends with its chromosome
        file.addEntries([chrom], [whole * bin_bp], ends=[size], values=[float(means[-1])])


def bin_bigwigs(
    sources: Sequence[pathlib.Path], out: pathlib.Path, bin_bp: int = 25, workers: int = 1
) -> list[pathlib.Path]:
    """Bin tracks side by side; returns the files that were written, without those skipped.

    Raises:
        InputError: naming every track that could not be binned, when the others are done; at once
            if two of them would be one file.
    """
    targets = results_of("--bigwigs", sources, lambda path: f"{path.stem}.{bin_bp}bp.bw", out)
    wanted = [source for source, target in targets.items() if not is_done(source, target)]
    problems: list[Problem] = []
    written = []
    # Spawned: no handle of a file is shared with a worker.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        running = {
            pool.submit(functools.partial(bin_bigwig, source, targets[source], bin_bp)): source
            for source in wanted
        }
        for done in tqdm(
            concurrent.futures.as_completed(running),
            desc="binned tracks", unit="track", total=len(wanted), disable=None,
        ):  # fmt: skip
            with collect(problems):
                done.result()
                written.append(targets[running[done]])
    if problems:
        raise InputError(problems)
    return sorted(written)


def define_binning() -> None:
    flags.DEFINE_list("bigwigs", None, "The tracks: files, or patterns such as 'tracks/*.bw'.")
    flags.DEFINE_string("out", None, "The folder that the binned tracks go to.")
    flags.DEFINE_integer("bin_bp", 25, "Width of a bin, in bp.", 1)
    flags.DEFINE_integer("workers", 1, "Tracks that are binned at the same time.", 1)
    flags.mark_flags_as_required(["bigwigs", "out"])


def main() -> None:
    sources, out = given_files("--bigwigs", FLAGS.bigwigs), pathlib.Path(FLAGS.out)
    written = bin_bigwigs(sources, out, FLAGS.bin_bp, FLAGS.workers)
    skipped = len(sources) - len(written)
    print(f"{out}: {len(written)} tracks binned" + (f", {skipped} were done" if skipped else ""))


def run() -> None:
    start(main, define_binning)


if __name__ == "__main__":
    run()
