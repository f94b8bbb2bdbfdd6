"""Tracks on the devices: all of them where there is room, else a few at a time, read ahead.

A run reads few tracks, so a store of any size can be trained from: while one chunk of runs
computes, a thread reads what the next one needs. The arrays are the same either way, and so are the
results.
"""

import collections
import concurrent.futures
import itertools
import os
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.inputs.device_tracks import CellRegions, Track

# Tracks' worth of memory that reading one takes: as stored, in the model's bins, transformed.
_READING = 3
_SHARE = 0.4  # of a device's memory, unless a limit is given

Pair = tuple[str, str]  # cell, assay


@typing.runtime_checkable
class Tracks(typing.Protocol):
    """Where tracks are read from: a `Dataset`, or what stands in for one."""

    @property
    def cells(self) -> tuple[str, ...]: ...

    @property
    def assays(self) -> tuple[str, ...]: ...

    def track(self, cell: str, assay: str, /) -> Track: ...

    def regions(self, cell: str, /) -> CellRegions | None: ...


def device_memory() -> int:
    """Bytes that one local device may use; on CPU, its share of half the machine's memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        whole = 8 << 30  # a system that does not say: take it for a small one
    return whole // 2 // jax.local_device_count()


class TrackCache:
    """Tracks of a dataset on devices, at most so many bytes of them a device.

    Every array has a first axis of 1, so that those of several devices make one global array.

    Args:
        limit: bytes of tracks, those being read included; None: a share of the device's memory.

    Raises:
        InputError: if the model can read no track at all, naming every one.
    """

    def __init__(self, data: Tracks, limit: int | None = None):
        self.data = data
        self._held: collections.OrderedDict[tuple[Any, Pair], Track] = collections.OrderedDict()
        self._regions: dict[tuple[Any, str], CellRegions | None] = {}
        self._ahead: dict[Pair, concurrent.futures.Future[Track]] = {}
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "tracks")
        pair, first = _first(data)
        self._ahead[pair] = concurrent.futures.Future()
        self._ahead[pair].set_result(first)
        self.track_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first))
        self.limit = int(device_memory() * _SHARE) if limit is None else limit
        self._room = max(0, self.limit // self.track_bytes - _READING)

    def streams(self, pairs: Iterable[Pair]) -> bool:
        """Whether there is too little room for all of these."""
        return len(set(pairs)) > self._room

    def check(
        self, pairs: Sequence[Pair], show: Callable[[Iterable[Pair]], Iterable[Pair]] = iter
    ) -> None:
        """Read every pair once; where there is room for all they stay.

        Args:
            show: goes through them, showing how far it is.

        Raises:
            InputError: naming every track that the model cannot read.
        """
        device = jax.local_devices()[0]
        streams = self.streams(pairs)
        with collect() as problems:
            for pair in show(dict.fromkeys(pairs)):
                with problems.part():
                    if streams:
                        self.data.track(*pair)
                    else:
                        self.get([pair], device)

    def get(self, pairs: Sequence[Pair], device: Any, keep: Iterable[Pair] = ()) -> list[Track]:
        """These tracks on a device, read if need be.

        Args:
            keep: pairs not to be given up for them.

        Raises:
            InputError: if the limit is too small for them.
        """
        wanted = {*pairs, *keep}
        if len(wanted) > self._room:
            needed = (len(wanted) + _READING) * self.track_bytes
            raise InputError(
                "--data_gib",
                f"room for {self._room} tracks of {self.track_bytes / 2**20:.1f} MiB",
                f"room for the {len(wanted)} that runs side by side read",
                f"give at least {needed / 2**30:.3g}",
            )
        for pair in pairs:
            if (device, pair) in self._held:
                self._held.move_to_end((device, pair))
                continue
            ahead = self._ahead.pop(pair, None)
            self._make_room(device, wanted)
            track = self.data.track(*pair) if ahead is None else ahead.result()
            self._held[device, pair] = _put(track, device)
        return [self._held[device, pair] for pair in pairs]

    def regions(self, cell: str, device: Any) -> CellRegions | None:
        """A cell's regions on a device."""
        if (device, cell) not in self._regions:
            self._regions[device, cell] = _put(self.data.regions(cell), device)
        return self._regions[device, cell]

    def read_ahead(self, pairs: Iterable[Pair], device: Any, keep: Iterable[Pair]) -> None:
        """Begin to read what is asked for next, as far as there is room in addition to `keep`."""
        pairs = dict.fromkeys(pairs)
        kept = {*keep, *(pair for pair in pairs if (device, pair) in self._held)}
        for pair in pairs:
            if pair in kept or pair in self._ahead:
                continue
            if len(kept | self._ahead.keys()) >= self._room:
                return
            self._make_room(device, kept | self._ahead.keys())
            self._ahead[pair] = self._reader.submit(self.data.track, *pair)

    def _make_room(self, device: Any, wanted: set[Pair]) -> None:
        """Give up tracks until one more fits: those read in vain, then those unused longest."""
        here = [key for key in self._held if key[0] == device]
        surplus = len(here) + len(self._ahead) + 1 - self._room
        for pair in [pair for pair in self._ahead if pair not in wanted][: max(0, surplus)]:
            self._ahead.pop(pair).cancel()
            surplus -= 1
        for key in [key for key in here if key[1] not in wanted][: max(0, surplus)]:
            del self._held[key]


def _first(data: Tracks) -> tuple[Pair, Track]:
    """A track to learn the size of all from: the first that the model can read."""
    problems = []
    for pair in itertools.product(data.cells, data.assays):
        try:
            return pair, data.track(*pair)
        except InputError as error:
            problems += error.problems
    raise InputError.of(problems)


def _put(tree: Any, device: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.device_put(leaf[None], device), tree)
