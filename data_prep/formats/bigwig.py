"""bigWig files: opened, created, and looked into: is this file what it should be?"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import pyBigWig

from data_prep.formats.assembly import recognise_assembly
from data_prep.formats.track_sheet import is_url
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing, match_chromosomes

_ENTRY_BYTES = 12  # of a bigWig, before they are compressed
_MARGIN_BYTES = 64 << 20  # for its zoom levels and index, and what others write meanwhile
_MAGIC = bytes.fromhex("26fc8f88")  # opens a bigWig file and closes it
_OTHER_FORMATS = {
    bytes.fromhex("888ffc26"): "a big-endian bigWig",
    bytes.fromhex("ebf28987"): "a bigBed",
    b"\x1f\x8b": "a gzip file",
    b"<": "an HTML or XML page, perhaps of a failed download",
}


@contextlib.contextmanager
def open_bigwig(path: str | pathlib.Path) -> Iterator:
    """A pyBigWig handle on the file, closed at the end. One handle a process: open it there.

    Raises:
        InputError: if the file is missing, no bigWig, or truncated.
    """
    problem = damage(path)
    if problem:
        raise InputError.of(problem)
    try:
        handle = pyBigWig.open(str(path))
    except RuntimeError:
        raise InputError.of(unreadable(path, "its header")) from None
    try:
        yield handle
    finally:
        handle.close()


@contextlib.contextmanager
def create_bigwig(path: pathlib.Path, chrom_sizes: dict[str, int]) -> Iterator:
    """A pyBigWig handle to write entries to; the file is whole or not there at the end.

    Ask for the room with `require_room` before entries are added: where a disk refuses a block,
    pyBigWig prints a line and goes on, or ends the process.

    Raises:
        InputError: if the disk took only a part, or nothing.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        try:
            handle = pyBigWig.open(str(partial), "w")
            try:
                handle.addHeader(list(chrom_sizes.items()))
                yield handle
            finally:
                handle.close()
        except RuntimeError:
            raise InputError.of(_not_written(path)) from None
        if damage(partial):
            raise InputError.of(_not_written(path))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def require_room(path: pathlib.Path, entries: int) -> None:
    """Check that the disk has room for so many further entries of a bigWig.

    Raises:
        InputError: if it has not.
    """
    if shutil.disk_usage(path.parent).free < _MARGIN_BYTES + _ENTRY_BYTES * entries:
        raise InputError.of(_not_written(path))


def _not_written(path: pathlib.Path) -> Problem:
    return Problem(
        str(path),
        "too little room to write it, or none",
        "room and permission for a bigWig",
        "free space or choose another --out, then run the same command again",
    )


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
                kind="missing_chromosome",
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
                kind="other_assembly",
            )
        )
    return problems


def damage(path: str | pathlib.Path) -> Problem | None:
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
            str(path),
            error.strerror or str(error),
            expected,
            "check the path in the track sheet",
            kind="missing_file",
        )
    if not head.startswith(_MAGIC):
        guesses = [what for magic, what in _OTHER_FORMATS.items() if head.startswith(magic)]
        found = guesses[0] if guesses else f"first bytes {head[:8]!r}" if head else "an empty file"
        return Problem(
            str(path),
            f"no bigWig: {found}",
            expected,
            "point the track sheet at the bigWig, or download it again",
            kind="no_bigwig",
        )
    if len(head) < 64 or tail != _MAGIC:
        return Problem(
            str(path),
            f"a truncated bigWig: {size:,} bytes that do not end in the closing mark 26fc8f88",
            expected,
            "download or copy the file again, and compare its size and checksum",
            kind="truncated",
        )
    return None


def unreadable(path: str | pathlib.Path, what: str) -> Problem:
    """What to say of a file of which a part cannot be read."""
    return Problem(
        str(path),
        f"{what} cannot be read",
        "a whole bigWig file",
        "the file is damaged: download or copy it again",
        kind="unreadable",
    )
