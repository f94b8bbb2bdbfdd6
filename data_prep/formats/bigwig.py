"""bigWig files: opened, created, and looked into: is this file what it should be?"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import pyBigWig

from data_prep.formats.assembly import recognise_assembly
from data_prep.formats.track_sheet import is_url
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import whole
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
        InputError: if the file is missing, not a bigWig, or truncated.
    """
    require_whole(path)
    try:
        handle = pyBigWig.open(str(path))
    except RuntimeError:
        raise unreadable(path, "its header") from None
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
    with whole(path) as place:
        try:
            handle = pyBigWig.open(str(place), "w")
            try:
                handle.addHeader(list(chrom_sizes.items()))
                yield handle
            finally:
                handle.close()
        except RuntimeError:
            raise _not_written(path) from None
        try:
            require_whole(place)
        except InputError:
            raise _not_written(path) from None


def require_room(path: pathlib.Path, entries: int) -> None:
    """Check that the disk has room for further entries of a bigWig.

    Raises:
        InputError: if it has not.
    """
    if shutil.disk_usage(path.parent).free < _MARGIN_BYTES + _ENTRY_BYTES * entries:
        raise _not_written(path)


def _not_written(path: pathlib.Path) -> InputError:
    return InputError(
        str(path),
        "too little room to write it, or none",
        "room and permission for a bigWig",
        "free space or choose another --out, then run the same command again",
    )


def check_bigwig(
    path: str | pathlib.Path, chrom_sizes: dict[str, int], chromosomes: Sequence[str]
) -> None:
    """Check a track without reading its signal.

    Args:
        path: the bigWig file.
        chrom_sizes: chromosome lengths of the assembly it should belong to, in bp.
        chromosomes: the chromosomes that will be read; only these are compared.

    Raises:
        InputError: if it cannot be opened, lacks a chromosome, or is of another assembly.
    """
    with open_bigwig(path) as handle:
        header = handle.chroms()
    spelling = match_chromosomes(chromosomes, header)
    absent = [chrom for chrom in chromosomes if chrom not in spelling]
    sizes = match_chromosomes(spelling, chrom_sizes)
    wrong = [
        (chrom, header[spelling[chrom]], chrom_sizes[sizes[chrom]])
        for chrom in sizes
        if header[spelling[chrom]] != chrom_sizes[sizes[chrom]]
    ]
    with collect() as problems:
        if absent:
            problems.add(
                str(path),
                f"no {listing(absent)}; it has {listing(header)}",
                "every chromosome that is read",
                "check --assembly, leave them out with --chromosomes, or use another file",
                kind="missing_chromosome",
            )
        if wrong:
            known = recognise_assembly(header)
            problems.add(
                str(path),
                "a bigWig of another assembly: "
                + (f"{known}, by its chromosome lengths; " if known else "")
                + listing((f"{chrom} of {length:,} bp" for chrom, length, _ in wrong), most=3),
                listing((f"{chrom} of {length:,} bp" for chrom, _, length in wrong), most=3),
                f"give --assembly={known}"
                if known
                else "use a track of that assembly, or give that of the track",
                kind="other_assembly",
            )


def require_whole(path: str | pathlib.Path) -> None:
    """Check a file's first and last bytes.

    Raises:
        InputError: if the file is missing, not a bigWig, or cut short.
    """

    def refused(found: str, remedy: str, kind: str = "") -> InputError:
        return InputError(str(path), found, "a whole bigWig file", remedy, kind)

    if is_url(path):
        raise InputError(str(path), "a URL", "a local file", "download it first")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            size = file.seek(0, 2)
            file.seek(max(size - 4, 0))
            tail = file.read(4)
    except OSError as error:
        reason, remedy = error.strerror or str(error), "check the path in the track sheet"
        raise refused(reason, remedy, "missing_file") from None
    if not head.startswith(_MAGIC):
        guesses = [what for magic, what in _OTHER_FORMATS.items() if head.startswith(magic)]
        found = guesses[0] if guesses else f"first bytes {head[:8]!r}" if head else "an empty file"
        remedy = "point the track sheet at the bigWig, or download it again"
        raise refused(f"no bigWig: {found}", remedy, "no_bigwig")
    if len(head) < 64 or tail != _MAGIC:
        raise refused(
            f"a truncated bigWig: {size:,} bytes that do not end in the closing mark 26fc8f88",
            "download or copy the file again, and compare its size and checksum",
            "truncated",
        )


def unreadable(path: str | pathlib.Path, what: str) -> InputError:
    """The error of a file that cannot be read in part."""
    return InputError(
        str(path),
        f"{what} cannot be read",
        "a whole bigWig file",
        "the file is damaged: download or copy it again",
        kind="unreadable",
    )
