"""What is done to a command: to the files it reads, to what it may do, or to the process itself.

A fault proves itself: what changes nothing (a file of no bytes cut short, a process that had ended
before the signal) is counted as unproved, and not as a trial.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator

# -- files that are read ------------------------------------------------------------------------


def _flip(path: pathlib.Path, draw: random.Random, _: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)


def _cut(path: pathlib.Path, draw: random.Random, _: pathlib.Path) -> None:
    size = path.stat().st_size
    os.truncate(path, draw.choice([0, draw.randrange(size)]) if size else 0)


def _garbage(path: pathlib.Path, draw: random.Random, _: pathlib.Path) -> None:
    path.write_bytes(draw.randbytes(max(8, min(4096, path.stat().st_size))))


def _delete(path: pathlib.Path, *_: object) -> None:
    path.unlink()


def _swap(path: pathlib.Path, draw: random.Random, folder: pathlib.Path) -> None:
    """Another whole file of the same kind, in its place."""
    kind = path.suffix or path.name
    others = sorted(
        other
        for other in folder.rglob("*")
        if other.is_file() and (other.suffix or other.name) == kind and other != path
    )
    others = [other for other in others if other.read_bytes() != path.read_bytes()]
    if not path.suffix:  # chunks and parts of checkpoints: of the same array or folder
        others = [other for other in others if other.parent.name == path.parent.name] or others
    if others:
        shutil.copyfile(draw.choice(others), path)


DAMAGE: dict[str, Callable[[pathlib.Path, random.Random, pathlib.Path], None]] = {
    "bit flipped": _flip, "cut short": _cut, "garbage": _garbage, "deleted": _delete,
    "swapped": _swap,
}  # fmt: skip


def damage(kind: str, path: pathlib.Path, draw: random.Random, folder: pathlib.Path) -> bool:
    """Do it; whether the file is another one now."""
    before = zlib.crc32(path.read_bytes())
    DAMAGE[kind](path, draw, folder)
    return not path.exists() or zlib.crc32(path.read_bytes()) != before


# -- what a process may do ----------------------------------------------------------------------

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit of the system, drawn for a trial, and an attempt that must fail under it."""

    kind: int
    draw: Callable[[random.Random], int]
    attempt: Callable[[pathlib.Path, int], None]


def _write(folder: pathlib.Path, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open(folder / "probe", "wb") as file:
        file.write(bytes(limit + 1))


def _open(folder: pathlib.Path, limit: int) -> None:
    with contextlib.ExitStack() as handles:
        for _ in range(limit):
            handles.enter_context(open(folder / "probe", "wb"))


def _allocate(_: pathlib.Path, limit: int) -> None:
    bytearray(limit)


LIMITS = {
    "file size": Limit(
        resource.RLIMIT_FSIZE,
        lambda draw: draw.choice([0, 100, 1000, 5000, 20_000, 80_000]),
        _write,
    ),
    "handles": Limit(resource.RLIMIT_NOFILE, lambda draw: draw.choice([12, 40, 128, 128]), _open),
    "memory": Limit(
        resource.RLIMIT_DATA,
        lambda draw: draw.choice([1 << 30, 4 << 30, 4 << 30]),
        _allocate,
    ),
}

FILLER = "filler"  # takes the room of a small disk


@contextlib.contextmanager
def small_disk(place: pathlib.Path, left_kib: int) -> Iterator[Callable[[str, int], int] | None]:
    """Make a folder a file system of its own, with what is in it and little room.

    Yields:
        A function that writes so many bytes to a file there, or None where nobody may mount.
    """
    used = sum(path.stat().st_size + 8192 for path in place.rglob("*"))
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    place.mkdir()
    size, own = (used >> 10) + (64 << 10), os.getpid  # as Python ends, names are gone
    pid = own()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
    mounted = not subprocess.run(mount, capture_output=True).returncode
    shutil.copytree(aside, place, dirs_exist_ok=True)
    shutil.rmtree(aside)
    try:
        if mounted:
            free = shutil.disk_usage(place).free - (left_kib << 10)
            (place / FILLER).write_bytes(bytes(free))
        yield (lambda name, count: (place / name).write_bytes(bytes(count))) if mounted else None
    finally:
        if own() == pid and mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
