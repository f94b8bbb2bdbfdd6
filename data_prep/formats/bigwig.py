"""bigWig files: opened, created, and looked into: is this file what it should be?"""

import collections
import contextlib
import os
import pathlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyBigWig

from data_prep.formats.assembly import recognise_assembly
from data_prep.formats.foreign import is_url, recognise
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import whole
from epi2expr_jax.genome import ASSEMBLIES, listing, match_chromosomes

_ASKED = 16  # tracks that are asked for their assembly
_ENTRY_BYTES = 16  # of a bigWig: 12 before they are compressed, and their share of the index
_CHROMOSOME_BYTES = 64  # its name and length
_MARGIN_BYTES = 1 << 20  # for what is written at the end, and what others write meanwhile
_MAGIC = bytes.fromhex("26fc8f88")  # opens a bigWig file and closes it
# As in the supplement of Kent et al. 2010, from the first byte on.
_HEADER = struct.Struct("<4sHHQQQHHQQIQ")
_ZOOM = np.dtype([("skip", "<u8"), ("data", "<u8"), ("index", "<u8")])
_CHROMOSOMES = np.dtype(
    [
        ("magic", "<u4"),
        ("block", "<u4"),
        ("width", "<u4"),
        ("value", "<u4"),
        ("count", "<u8"),
        ("skip", "<u8"),
    ]
)
_INDEX = np.dtype([("magic", "<u4"), ("skip", "V44")])
_NODE = np.dtype([("leaf", "?"), ("skip", "V1"), ("count", "<u2")])
_BLOCK = np.dtype([("bounds", "V16"), ("offset", "<u8"), ("size", "<u8")])
_BRANCH = np.dtype([("bounds", "V16"), ("offset", "<u8")])


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
    except RuntimeError as error:  # of pyBigWig, which says no more
        raise unreadable(path, f"a part of it ({error})") from None
    finally:
        handle.close()


@contextlib.contextmanager
def create_bigwig(
    path: pathlib.Path, chrom_sizes: dict[str, int], max_zooms: int = 10
) -> Iterator["BigWigWriter"]:
    """A bigWig to add entries to; the file is whole or not there at the end.

    Args:
        path: the file; what stands there is replaced.
        chrom_sizes: the chromosomes that entries may be on, in order.
        max_zooms: how many zoom levels it gets at most.

    Raises:
        InputError: if there is too little room for it, or a limit on the size of files.
    """
    with whole(path) as place:
        try:
            writer = BigWigWriter(path, place)
            writer.require_room(_CHROMOSOME_BYTES * len(chrom_sizes))
            handle = writer.handle = pyBigWig.open(str(place), "w")
            try:
                handle.addHeader(list(chrom_sizes.items()), maxZooms=max_zooms)
                yield writer
            finally:
                handle.close()
        except RuntimeError:
            raise _not_written(path) from None
        try:
            require_whole(place)
        except InputError:
            raise _not_written(path) from None


class BigWigWriter:
    """A bigWig on its way; see `create_bigwig`."""

    handle: Any

    def __init__(self, path: pathlib.Path, place: pathlib.Path):
        self._path, self._place = path, place

    def add(self, *where: Any, values: Sequence[float] | np.ndarray, **more: Any) -> None:
        """Add entries, in order: as `addEntries` of pyBigWig.

        Raises:
            InputError: if there is too little room for them.
        """
        self.require_room(_ENTRY_BYTES * len(values))
        self.handle.addEntries(*where, values=values, **more)

    def require_room(self, count: int) -> None:
        """Check that the file can grow by `count` bytes, and some for what comes at its end.

        Where a block of entries cannot be written, pyBigWig ends the process.

        Raises:
            InputError: if it cannot.
        """
        begin = self._place.stat().st_size
        with tempfile.TemporaryFile(dir=self._place.parent) as probe:
            try:
                os.posix_fallocate(probe.fileno(), begin, count + _MARGIN_BYTES)
            except OSError:
                raise _not_written(self._path) from None


def _not_written(path: pathlib.Path) -> InputError:
    return InputError(
        str(path),
        "too little room to write it, or a limit on the size of files",
        "room for a bigWig",
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
                f"give --assembly={known}, or tracks of one assembly"
                if known
                else "use a track of that assembly, or give that of the track",
                kind="other_assembly",
            )


def assembly_of(paths: Sequence[str]) -> str | None:
    """The assembly that most of some tracks are of, by the lengths of their chromosomes.

    Args:
        paths: bigWig files; those that are not there, or damaged, say nothing.

    Returns:
        One of `genome.ASSEMBLIES`; None if no track says anything.

    Raises:
        InputError: if they are of none of these.
    """
    headers = []
    for path in paths[:: max(1, len(paths) // _ASKED)]:
        with contextlib.suppress(InputError), open_bigwig(path) as file:
            headers.append((path, file.chroms()))
    said = collections.Counter(recognise_assembly(header) for _, header in headers)
    known = said.most_common(1)[0][0] if said else None
    if said and known is None:
        path, header = headers[0]
        raise InputError(
            "--assembly",
            f"none, and tracks of an unknown one ({pathlib.Path(path).name}: "
            + listing((f"{chrom} of {length:,} bp" for chrom, length in header.items()), most=3)
            + ")",
            f"lengths of {', '.join(ASSEMBLIES)}, or --assembly",
            "give --assembly=FILE.chrom.sizes with lines of name<tab>length",
        )
    return known


def require_whole(path: str | pathlib.Path) -> None:
    """Check that a bigWig's parts lie within it: header, chromosomes, indices, blocks, end.

    pyBigWig does not: it follows what a damaged file says, and may end the process. The signal is
    not read; a damaged block of it is found by its own checksum when it is.

    Raises:
        InputError: if the file is missing, not a bigWig, empty, cut short or damaged.
    """

    def refused(found: str, remedy: str, kind: str = "") -> InputError:
        return InputError(str(path), found, "a whole bigWig file", remedy, kind)

    if is_url(path):
        raise InputError(str(path), "a URL", "a local file", "download it first")
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER.size)
            size = file.seek(0, 2)
            file.seek(max(size - 4, 0))
            tail = file.read(4)
            empty = head.startswith(_MAGIC) and tail == _MAGIC and _is_empty(file, head)
            outside = _outside(file, head, size) if head.startswith(_MAGIC) else ""
    except OSError as error:
        reason, remedy = error.strerror or str(error), "check the path in the track sheet"
        raise refused(reason, remedy, "missing_file") from None
    if not head.startswith(_MAGIC):
        remedy = "point the track sheet at the bigWig, or download it again"
        if known := recognise(head):
            found, remedy = known[0], known[1].replace("FILE", pathlib.Path(path).name)
        elif head.startswith(b"\x1f\x8b"):
            found = "a gzip file"
        else:
            found = f"first bytes {head[:8]!r}" if head else "an empty file"
        raise refused(f"no bigWig: {found}", remedy, "no_bigwig")
    remedy = "download or copy the file again, and compare its size and checksum"
    if tail != _MAGIC:
        found = "a truncated bigWig: {:,} bytes that do not end in the closing mark 26fc8f88"
        raise refused(found.format(size), remedy, "truncated")
    if empty:
        remedy = "make or download the track again; if its signal is 0 everywhere, leave it out"
        raise refused("an empty bigWig: no base has a value", remedy, "empty_bigwig")
    if outside:
        found = f"a damaged bigWig: {outside} does not lie within its {size:,} bytes"
        raise refused(found, remedy, "truncated")


def _is_empty(file: IO[bytes], head: bytes) -> bool:
    """Whether the summary of a bigWig says that no base has a value; old files have none."""
    summary = _HEADER.unpack(head)[9] if len(head) == _HEADER.size else 0
    covered = _at(file, summary, np.dtype("<u8")) if summary else ()
    return len(covered) == 1 and covered[0] == 0


def _outside(file: IO[bytes], head: bytes, size: int) -> str:
    """Which part of a bigWig does not lie where the header says; empty if all do."""
    if len(head) < _HEADER.size:
        return "the header"
    _, _, zooms, chromosomes, _, index, _, _, _, summary, _, _ = _HEADER.unpack(head)
    table = _at(file, _HEADER.size, _ZOOM, zooms)
    if len(table) < zooms or summary > size - 40:
        return "the summary"
    if not _are_chromosomes(file, chromosomes):
        return "the list of chromosomes"
    if not all(_is_index(file, place, size) for place in [index, *table["index"].tolist()]):
        return "what an index names"
    return ""


def _are_chromosomes(file: IO[bytes], place: int) -> bool:
    head = _at(file, place, _CHROMOSOMES)
    if (
        not len(head)
        or head["magic"] != 0x78CA8C91
        or not 0 < (width := int(head["width"][0])) < 1e4
    ):
        return False
    names = ("name", f"V{width}")
    leaf = np.dtype([names, ("id", "<u4"), ("length", "<u4")])
    rows = _leaves(file, place + _CHROMOSOMES.itemsize, leaf, np.dtype([names, ("offset", "<u8")]))
    # pyBigWig keeps a table of so many, and writes to the places that the ids name.
    return (
        rows is not None
        and len(rows) == head["count"][0]
        and sorted(rows["id"].tolist()) == list(range(len(rows)))
    )


def _is_index(file: IO[bytes], place: int, size: int) -> bool:
    """Whether an R tree is whole, and all blocks that it names lie within the file."""
    head = _at(file, place, _INDEX)
    if not len(head) or head["magic"] != 0x2468ACE0:
        return False
    rows = _leaves(file, place + _INDEX.itemsize, _BLOCK, _BRANCH)
    # Compared so that no sum overflows.
    return rows is not None and bool(
        (rows["offset"] <= size).all() and (rows["size"] <= size - rows["offset"]).all()
    )


def _leaves(file: IO[bytes], root: int, leaf: np.dtype, branch: np.dtype) -> np.ndarray | None:
    """The entries of a tree, whose nodes all begin alike; None if it leads out of the file."""
    nodes, seen, found = [root], set[int](), [np.zeros(0, leaf)]
    while nodes:
        node = nodes.pop()
        head = _at(file, node, _NODE)
        if node in seen or not len(head):
            return None
        seen.add(node)
        kind, count = leaf if head["leaf"] else branch, int(head["count"][0])
        rows = _at(file, node + _NODE.itemsize, kind, count)
        if len(rows) < count:
            return None
        if kind is leaf:
            found.append(rows)
        else:
            nodes += rows["offset"].tolist()
    return np.concatenate(found)


def _at(file: IO[bytes], place: int, kind: np.dtype, count: int = 1) -> np.ndarray:
    """Records at a place of the file; fewer, where it ends."""
    file.seek(min(place, os.fstat(file.fileno()).st_size))
    content = file.read(kind.itemsize * count)
    return np.frombuffer(content, kind, len(content) // kind.itemsize)


def unreadable(path: str | pathlib.Path, what: str) -> InputError:
    """The error of a file that cannot be read in part."""
    return InputError(
        str(path),
        f"{what} cannot be read",
        "a whole bigWig file",
        "the file is damaged: download or copy it again",
        kind="unreadable",
    )
