"""bigWig tracks: is this file what it should be, and what is its mean signal around each TSS?

Means are exact (base-weighted, never from zoom levels) and read through pyBigWig. Bases that a
track does not list count as 0 over all bases of their bin; how many there are is returned
beside the means, so that nothing passes for measured that was not.

Speed in windows per CPU second, 2,010 windows of 10 kb at 25 bp around the protein-coding TSSs of
chr1, on a track of 4.7 million runs (mean 50 bp): lists of Python floats 2,100; one
`values(numpy=True)` a window 10,100; as here 14,300; pybigtools, in Rust, 18,400. (UCSC's blocks
of 1,024 runs; with pyBigWig's own larger ones 1,900, 6,000, 8,600 and 15,100.)
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyBigWig
from jaxtyping import Float32, Integer

from data_prep.assembly import recognise_assembly
from data_prep.catalogue import Source, is_url
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import WindowSpec, listing, match_chromosomes, window_bounds

_MAGIC = bytes.fromhex("26fc8f88")  # opens a bigWig file and closes it
_OTHER_FORMATS = {
    bytes.fromhex("888ffc26"): "a big-endian bigWig",
    bytes.fromhex("ebf28987"): "a bigBed",
    b"\x1f\x8b": "a gzip file",
    b"<": "an HTML or XML page, perhaps of a failed download",
}

# Windows closer than this are read in one go: what two neighbours share is then decompressed once.
# Windows per CPU second on those two tracks, joined up to 0, 20, 50 and 100 kb: 13,400, 14,300,
# 13,600 and 12,000; with larger blocks 7,500, 8,600, 9,600 and 10,100.
_JOIN_BP = 20_000
_LONGEST_SPAN_BP = 4_000_000  # bounds memory: 16 MB of float32, twice while pyBigWig copies


@contextlib.contextmanager
def open_bigwig(path: str | pathlib.Path) -> Iterator:
    """A pyBigWig handle on the file, closed at the end. One handle a process: open it there.

    Raises:
        InputError: if the file is missing, no bigWig, or truncated.
    """
    problem = _file_problem(path)
    if problem:
        raise InputError(problem)
    try:
        handle = pyBigWig.open(str(path))
    except RuntimeError:
        raise InputError(_unreadable(path, "its header")) from None
    try:
        yield handle
    finally:
        handle.close()


def check_bigwig(
    path: str | pathlib.Path, chrom_sizes: dict[str, int], chromosomes: Sequence[str]
) -> list[Problem]:
    """What is wrong with a track, without reading its signal.

    Args:
        path: the bigWig file.
        chrom_sizes: chromosome lengths of the assembly it should belong to, in bp.
        chromosomes: the chromosomes that will be read; only these are compared.
    """
    try:
        with open_bigwig(path) as handle:
            header = handle.chroms()
    except InputError as error:
        return list(error.problems)
    problems = []
    spelling = match_chromosomes(chromosomes, header)
    absent = [chrom for chrom in chromosomes if chrom not in spelling]
    if absent:
        problems.append(
            Problem(
                str(path),
                f"no {listing(absent)}; it has {listing(header)}",
                "every chromosome that is read",
                "check --assembly, leave them out with --chromosomes, or use another file",
            )
        )
    sizes = match_chromosomes(spelling, chrom_sizes)
    wrong = [
        (chrom, header[spelling[chrom]], chrom_sizes[sizes[chrom]])
        for chrom in sizes
        if header[spelling[chrom]] != chrom_sizes[sizes[chrom]]
    ]
    if wrong:
        known = recognise_assembly(header)
        problems.append(
            Problem(
                str(path),
                "a bigWig of another assembly: "
                + (f"{known}, by its chromosome lengths; " if known else "")
                + listing((f"{chrom} of {length:,} bp" for chrom, length, _ in wrong), most=3),
                listing((f"{chrom} of {length:,} bp" for chrom, _, length in wrong), most=3),
                f"give --assembly={known}" if known else "use a track of the given assembly",
            )
        )
    return problems


def window_means(
    path: str | pathlib.Path,
    chroms: Sequence[str],
    starts: Integer[np.ndarray, "G"],
    window: WindowSpec,
) -> tuple[Float32[np.ndarray, "G W"], Float32[np.ndarray, "G"]]:
    """Mean signal of the bins of windows anywhere on the genome.

    Args:
        path: the bigWig file.
        chroms: chromosome of each window, length `G`; `1` and `chr1` are the same.
        starts: first base of each window, 0-based. A window may begin before its chromosome
            or end after it; what lies outside is 0.
        window: width and bin size, in bp.

    Returns:
        The means, in the track's unit, in genomic order; and the share of each window's bases
        that the track lists, among those inside the chromosome (0 where there are none).

    Raises:
        InputError: if the file cannot be read, lacks a chromosome, or holds infinite values.
    """
    starts = np.asarray(starts, np.int64)
    on = np.asarray(chroms, dtype=object)
    means = np.zeros((len(starts), window.bins), np.float32)
    coverage = np.zeros(len(starts), np.float32)
    with open_bigwig(path) as handle:
        lengths = handle.chroms()
        spelling = match_chromosomes(sorted(set(on)), lengths)
        absent = sorted(set(on) - set(spelling))
        if absent:
            raise InputError(
                Problem(
                    str(path),
                    f"no {listing(absent)}",
                    f"every chromosome with a gene; the file has {listing(lengths)}",
                    "check --assembly, or leave them out with --chromosomes",
                )
            )
        for chrom, name in spelling.items():
            members = np.flatnonzero(on == chrom)
            for group, begin, end in _spans(members, starts, window.window_bp, lengths[name]):
                try:
                    signal = handle.values(name, begin, end, numpy=True)
                except RuntimeError:
                    what = f"the signal of {name}:{begin}-{end}"
                    raise InputError(_unreadable(path, what)) from None
                for index in group:
                    means[index], coverage[index] = _one_window(
                        signal, int(starts[index]) - begin, window
                    )
    infinite = np.flatnonzero(~np.isfinite(means).all(axis=1))
    if len(infinite):
        windows = (f"{on[i]}:{starts[i]}-{starts[i] + window.window_bp}" for i in infinite)
        raise InputError(
            Problem(
                str(path),
                f"infinite signal in {len(infinite)} windows ({listing(windows)})",
                "finite values",
                "mend the track where it was made, for example by capping p-values",
            )
        )
    return means, coverage


def track_means(
    sources: Sequence[Source],
    chroms: Iterable[str],
    tss: npt.ArrayLike,
    window: WindowSpec,
) -> tuple[Float32[np.ndarray, "G W"], Float32[np.ndarray, "G"]]:
    """One track around each TSS: means and coverage as `window_means`, averaged over replicates.

    Args:
        sources: the track's files, one a replicate; they have equal weight.
        chroms: chromosome of each TSS, length `G`.
        tss: 0-based positions `[G]`; the window is `[tss - W/2, tss + W/2)`.
        window: width and bin size, in bp.

    Raises:
        InputError: as `window_means`.
    """
    chroms = list(chroms)
    starts, _ = window_bounds(np.asarray(tss), window.window_bp)
    if len(sources) == 1:
        return window_means(sources[0].location, chroms, starts, window)
    means = np.zeros((len(starts), window.bins))
    coverage = np.zeros(len(starts))
    for source in sources:
        one_means, one_coverage = window_means(source.location, chroms, starts, window)
        means += one_means
        coverage += one_coverage
    count = len(sources)
    return (means / count).astype(np.float32), (coverage / count).astype(np.float32)


def _spans(
    members: np.ndarray, starts: np.ndarray, window_bp: int, length: int
) -> Iterator[tuple[list[int], int, int]]:
    """Windows of one chromosome in runs of near neighbours, and the stretch each run reads.

    A stretch ends where the chromosome ends. Windows wholly outside are left out.
    """
    group: list[int] = []
    begin = end = 0
    for index in members[np.argsort(starts[members], kind="stable")]:
        first = max(int(starts[index]), 0)
        last = min(int(starts[index]) + window_bp, length)
        if first >= last:
            continue
        if group and (first - end > _JOIN_BP or last - begin > _LONGEST_SPAN_BP):
            yield group, begin, end
            group = []
        if not group:
            begin = first
        group.append(int(index))
        end = last
    if group:
        yield group, begin, end


def _one_window(
    signal: np.ndarray, offset: int, window: WindowSpec
) -> tuple[Float32[np.ndarray, "W"], float]:
    """Bin means and covered share of the window that begins at `offset` of `signal` (one a base).

    The stretch only ends inside a window where the chromosome does, so what lies beyond is padding.
    """
    first, last = max(offset, 0), min(offset + window.window_bp, len(signal))
    bases = signal[first:last].copy()  # windows may share bases
    missing = np.isnan(bases)
    uncovered = np.count_nonzero(missing)
    bases[missing] = 0
    if len(bases) < window.window_bp:
        bases = np.pad(bases, (first - offset, offset + window.window_bp - last))
    # In float64 these sums of float32 values are exact, or nearly so, in any order: a product
    # with ones is the fastest of them (4 us a window; `sum(axis=1)` takes 12).
    bins = bases.reshape(window.bins, window.bin_bp).astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite values are reported by the caller
        means = bins @ np.ones(window.bin_bp) / window.bin_bp
    return means.astype(np.float32), 1 - uncovered / (last - first)


def _file_problem(path: str | pathlib.Path) -> Problem | None:
    """What the first and last bytes say: no such file, no bigWig, or cut short."""
    expected = "a whole bigWig file"
    if is_url(path):
        return Problem(str(path), "a URL", "a local file", "download it first")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            size = file.seek(0, 2)
            file.seek(max(size - 4, 0))
            tail = file.read(4)
    except OSError as error:
        return Problem(
            str(path), error.strerror or str(error), expected, "check the path in the track sheet"
        )
    if not head.startswith(_MAGIC):
        guesses = [what for magic, what in _OTHER_FORMATS.items() if head.startswith(magic)]
        found = guesses[0] if guesses else f"first bytes {head[:8]!r}" if head else "an empty file"
        return Problem(
            str(path),
            f"no bigWig: {found}",
            expected,
            "point the track sheet at the bigWig, or download it again",
        )
    if len(head) < 64 or tail != _MAGIC:
        return Problem(
            str(path),
            f"a truncated bigWig: {size:,} bytes that do not end in the closing mark 26fc8f88",
            expected,
            "download or copy the file again, and compare its size and checksum",
        )
    return None


def _unreadable(path: str | pathlib.Path, what: str) -> Problem:
    return Problem(
        str(path),
        f"{what} cannot be read",
        "a whole bigWig file",
        "the file is damaged: download or copy it again",
    )
