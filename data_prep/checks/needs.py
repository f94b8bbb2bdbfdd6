"""What a build needs: room on disk, memory of a worker, hours."""

import dataclasses
import hashlib
import math
import os
import pathlib
import shutil
import time
from collections.abc import Mapping

from data_prep.checks.build_inputs import BuildInputs
from data_prep.formats.track_sheet import Track
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.store.regions import Regions

# Peak memory of a worker with 18,915 windows: 525 MB for a slab of 30 MB, 745 MB for one of 121 MB.
# The sum of replicates is one of float64.
_PROCESS_BYTES = 410_000_000
_SLAB_COPIES = 4
_PAUSED_AT = 0.8  # of its limit, where Dask stops giving a worker tasks
# Of the same slabs reading took 1.6 of 1.9 s and 3.0 of 4.0 s, the rest being compressing and
# writing; to read them back took 0.2 and 1.0 s.
_SLAB_OVER_READING = 1.7
_HASHED_BYTES = 32 << 20  # of a file, to learn how fast files are hashed


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a build needs.

    Attributes:
        store_bytes: of the store's arrays before compression; real tracks come to about half.
        free_bytes: on the disk of the store.
        worker_bytes: peak memory of a worker.
        hours: of all workers together; NaN if no track could be read.
    """

    store_bytes: int
    free_bytes: int
    worker_bytes: int
    hours: float

    @classmethod
    def of(cls, inputs: BuildInputs, seconds: Mapping[Track, float], genes: int) -> "Needs":
        """Args:
        inputs: what is to be built.
        seconds: what reading a sample of genes took, of some of its tracks.
        genes: how many genes that were.
        """
        return cls(
            store_bytes(inputs),
            shutil.disk_usage(store_folder(inputs.config.store)).free,
            worker_bytes(inputs),
            _hours(inputs, seconds, genes),
        )

    def __str__(self) -> str:
        time_needed = f"{self.hours:.2g} h" if self.hours >= 1 else f"{60 * self.hours:.2g} min"
        return (
            f"needs: disk {self.store_bytes / 1e9:.2g} GB before compression "
            f"({self.free_bytes / 1e9:.2g} GB free), memory {self.worker_bytes / 2**30:.2g} GiB a "
            f"worker, time {'unknown' if math.isnan(self.hours) else time_needed}"
        )


def store_bytes(inputs: BuildInputs) -> int:
    """Size of the store's arrays before compression."""
    return sum(_slab_bytes(inputs).values())


def worker_bytes(inputs: BuildInputs) -> int:
    """Peak memory of a worker: of the process itself, and of its largest slab in all its forms."""
    most = max(
        (_SLAB_COPIES + (len(track.sources) > 1)) * size
        for track, size in _slab_bytes(inputs).items()
    )
    return _PROCESS_BYTES + most


def check_disk(inputs: BuildInputs) -> None:
    """Check that the store can be written, and has room.

    Raises:
        InputError: if its folder refuses writing, or its disk is too small.
    """
    folder = store_folder(inputs.config.store)
    if not os.access(folder, os.W_OK):
        found, remedy = "a folder that refuses writing", "choose another --store"
        raise InputError(str(folder), found, "write access", remedy, kind="disk")
    # Real tracks compress to about half; ask for that much.
    free, needed = shutil.disk_usage(folder).free, store_bytes(inputs) // 2
    if free < needed:
        raise InputError(
            str(folder),
            f"{free / 1e9:.1f} GB free",
            f"about {needed / 1e9:.1f} GB for the store",
            "free space or choose another --store",
            kind="disk",
        )


def memory_warnings(inputs: BuildInputs) -> list[Problem]:
    """Workers that Dask would pause or restart."""
    needed, limit = worker_bytes(inputs), inputs.config.worker_gib * 2**30
    if inputs.config.scheduler_address or needed <= _PAUSED_AT * limit:
        return []
    return [
        Problem(
            f"--worker_gib={inputs.config.worker_gib:g}",
            f"workers that need about {needed / 2**30:.2g} GiB",
            f"at most {_PAUSED_AT:.0%} of their limit",
            f"give --worker_gib={needed / 2**30 / _PAUSED_AT + 0.05:.1f}, fewer --workers if that "
            "is more than there is, or a narrower window",
            kind="memory",
        )
    ]


def _slab_bytes(inputs: BuildInputs) -> dict[Track, int]:
    windows = len(inputs.genes) * inputs.window.bins
    regions = {
        cell: Regions.from_contacts(contacts, inputs.genes).bins
        for cell, contacts in inputs.contacts.items()
    }
    return {track: 4 * (windows + regions.get(track.cell, 0)) for track in inputs.sheet.tracks}


def store_folder(store: str) -> pathlib.Path:
    """The folder the store will be in, or the nearest above it that exists."""
    folder = pathlib.Path(store).absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _hours(inputs: BuildInputs, seconds: Mapping[Track, float], genes: int) -> float:
    if not seconds or not genes:
        return float("nan")
    slabs = _slab_bytes(inputs)
    sampled = 4 * genes * inputs.window.bins
    passes = _SLAB_OVER_READING + (inputs.config.min_covered > 0)
    # Tracks that could not be read now are taken to be like the others.
    usual = sum(seconds.values()) / len(seconds)
    reading = sum(
        seconds.get(track, usual) * size / sampled * passes for track, size in slabs.items()
    )
    files = [pathlib.Path(source.location) for track in seconds for source in track.sources]
    mean_bytes = sum(file.stat().st_size for file in files) / len(files)
    count = sum(len(track.sources) for track in slabs)
    hashing = count * mean_bytes * _seconds_a_byte(files[0])
    return (reading + hashing) / inputs.config.workers / 3600


def _seconds_a_byte(file: pathlib.Path) -> float:
    """What hashing a file costs."""
    begin = time.perf_counter()
    with file.open("rb") as opened:
        content = opened.read(_HASHED_BYTES)
    hashlib.sha256(content)
    return (time.perf_counter() - begin) / len(content)
