import collections
import itertools
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.device_tracks import CellRegions, RegionTrack, WindowSignal
from epi2expr_jax.inputs.track_cache import _READING, TrackCache

CELLS, ASSAYS = ("c1", "c2", "c3"), ("m1", "m2", "m3", "m4")
PAIRS = list(itertools.product(CELLS, ASSAYS))
TRACK_BYTES = 4 * 5 * 6
DEVICE = jax.local_devices()[0]


class MadeUp:
    """Windows that say whose they are, counted as they are read; some cannot be read at all."""

    cells, assays = CELLS, ASSAYS

    def __init__(self, bad=()):
        self.bad = set(bad)
        self.reads = collections.Counter()
        self.by_others = collections.Counter()  # those read ahead
        self.regions_read = collections.Counter()
        self.caller = threading.get_ident()

    def track(self, cell, assay):
        pair = cell, assay
        self.reads[pair] += 1
        self.by_others[pair] += threading.get_ident() != self.caller
        if pair in self.bad:
            raise InputError("-".join(pair), "bad", "good", "correct it")
        return values_of(pair)

    def regions(self, cell):
        self.regions_read[cell] += 1


class MadeUpRegions(MadeUp):
    """As a model of regions reads them."""

    def track(self, cell, assay):
        values = super().track(cell, assay).values
        return RegionTrack((values, values[:, :2]), (values[0], values[0, :3]))

    def regions(self, cell):
        super().regions(cell)
        region = np.full((5, 2), CELLS.index(cell))
        one = (np.zeros(1, np.int32),)
        own = (np.ones((2, 6), bool),)
        return CellRegions(own, np.zeros(5, bool), one, one, region, region)


def values_of(pair):
    number = PAIRS.index(pair)
    return WindowSignal(np.arange(30, dtype=np.float32).reshape(5, 6) + 100 * number)


def room_for(tracks):
    """A limit that leaves room for so many tracks and the one that is being read."""
    return (tracks + _READING) * TRACK_BYTES


def assert_are(tracks, pairs):
    for track, pair in zip(tracks, pairs, strict=True):
        np.testing.assert_array_equal(track.values, values_of(pair).values[None])
        assert track.values.devices() == {DEVICE}


def in_memory(cache):
    """The tracks on the device, and those read ahead or being read."""
    held = [pair for device, pair in cache._held if device == DEVICE]
    assert len(set(held)) == len(held)
    return held, list(cache._ahead)


def settled(cache):
    """Wait until what is read ahead has been read."""
    for future in cache._ahead.values():
        future.result()


def test_without_a_limit_everything_is_read_once():
    for limit in (None, room_for(len(PAIRS))):
        data = MadeUp()
        cache = TrackCache(data, limit)
        assert cache.track_bytes == TRACK_BYTES
        assert not cache.streams(PAIRS)
        cache.check(PAIRS)
        for _ in range(2):
            for i in range(0, len(PAIRS), 2):
                pairs = PAIRS[i : i + 2]
                assert_are(cache.get(pairs, DEVICE, PAIRS[:1]), pairs)
                cache.read_ahead(PAIRS[i - 2 : i], DEVICE, pairs)
        assert data.reads == collections.Counter(PAIRS)
        assert_are(cache.get(PAIRS[::-1], DEVICE), PAIRS[::-1])
        assert in_memory(cache) == (PAIRS[::-1], [])


def test_a_limit_counts_every_track_once():
    cache = TrackCache(MadeUp(), room_for(3))
    assert not cache.streams(PAIRS[:3] * 4)
    assert cache.streams(PAIRS[:4])
    assert not TrackCache(MadeUp()).streams(PAIRS)


def test_what_was_unused_longest_is_given_up():
    data = MadeUp()
    cache = TrackCache(data, room_for(3))
    a, b, c, d, e = PAIRS[:5]
    cache.get([a, b, c], DEVICE)
    cache.get([a], DEVICE)  # now b is the one unused longest
    cache.get([d], DEVICE)
    assert in_memory(cache) == ([c, a, d], [])
    cache.get([e], DEVICE, keep=[c])
    assert in_memory(cache) == ([c, d, e], [])
    before = data.reads.copy()
    assert_are(cache.get([c, e], DEVICE), [c, e])
    assert data.reads == before
    cache.get([b], DEVICE)
    assert data.reads[b] == before[b] + 1


@pytest.mark.parametrize("room", [3, 4, 5, 7, 12])
@pytest.mark.parametrize("seed", range(5))
def test_streaming_gives_the_same_arrays_and_keeps_to_the_limit(room, seed):
    """Chunks that read up to three tracks in any order, the next one not always as foreseen."""
    random = np.random.default_rng(seed)
    data = MadeUp()
    cache = TrackCache(data, room_for(room))

    def chunk():
        return [PAIRS[i] for i in random.choice(len(PAIRS), random.integers(1, 4), replace=False)]

    def within_the_limit():
        held, ahead = in_memory(cache)
        assert len(held) + len(ahead) <= room
        return held, ahead

    following = chunk()
    for _ in range(60):
        now, following = following, chunk()
        for pair in now:  # lane by lane
            assert_are(cache.get([pair], DEVICE, keep=now), [pair])
            within_the_limit()
        for pair in following:
            cache.read_ahead([pair], DEVICE, keep=now)
            within_the_limit()
        held, _ = in_memory(cache)
        assert set(now) <= set(held)
        if random.random() < 0.3:
            following = chunk()
    settled(cache)
    assert data.by_others.total() > 5
    if room == len(PAIRS):
        assert set(data.reads.values()) == {1}


def test_the_next_tracks_are_read_while_these_are_in_use():
    data = MadeUp()
    cache = TrackCache(data, room_for(4))
    now, following = PAIRS[:2], PAIRS[2:4]
    cache.get(now, DEVICE)
    cache.read_ahead(following, DEVICE, now)
    settled(cache)
    assert in_memory(cache) == (now, following)
    assert [data.by_others[pair] for pair in following] == [1, 1]
    assert_are(cache.get(following, DEVICE), following)
    assert [data.reads[pair] for pair in following] == [1, 1]
    # Only one more has room with three that are kept; what is there already is not read again.
    cache.read_ahead([PAIRS[3], *PAIRS[4:6]], DEVICE, PAIRS[1:3])
    assert in_memory(cache) == ([*PAIRS[1:4]], [PAIRS[4]])


def test_what_was_read_in_vain_does_not_stay():
    data = MadeUp()
    cache = TrackCache(data, room_for(4))
    now, foreseen, instead = PAIRS[:2], PAIRS[2:4], PAIRS[4:6]
    cache.get(now, DEVICE)
    cache.read_ahead(foreseen, DEVICE, now)
    assert_are(cache.get(instead, DEVICE), instead)
    cache.read_ahead(now, DEVICE, instead)
    cache.read_ahead(PAIRS[6:8], DEVICE, instead)
    held, ahead = in_memory(cache)
    assert set(instead) <= set(held)
    assert not set(foreseen) & set(ahead)
    assert len(held) + len(ahead) <= 4


def test_a_limit_too_small_is_refused():
    cache = TrackCache(MadeUp(), room_for(2))
    cache.get(PAIRS[:2], DEVICE)
    for arguments in ((PAIRS[:3], DEVICE), (PAIRS[:1], DEVICE, PAIRS[1:3])):
        with pytest.raises(InputError, match="--data_gib") as caught:
            cache.get(*arguments)
        assert f"{room_for(3) / 2**30:.3g}" in str(caught.value)
        assert "room for 2 tracks" in str(caught.value)
    TrackCache(MadeUp(), room_for(3)).get(PAIRS[:3], DEVICE)
    with pytest.raises(InputError, match="room for 0 tracks"):
        TrackCache(MadeUp(), 1).get(PAIRS[:1], DEVICE)


@pytest.mark.parametrize("limit", [None, room_for(2)])
def test_every_bad_track_is_named_at_once(limit):
    bad = [PAIRS[0], PAIRS[5], PAIRS[11]]
    data = MadeUp(bad)
    cache = TrackCache(data, limit)  # its first track is bad
    with pytest.raises(InputError) as caught:
        cache.check([*PAIRS, *PAIRS])
    assert [problem.where for problem in caught.value.problems] == ["-".join(pair) for pair in bad]
    assert data.reads.keys() == set(PAIRS)
    cache.check(PAIRS[1:5])
    with pytest.raises(InputError, match="c2-m2"):
        cache.get([PAIRS[5]], DEVICE)
    cache.read_ahead([PAIRS[5]], DEVICE, [])
    with pytest.raises(InputError, match="c2-m2"):
        cache.get([PAIRS[5]], DEVICE)
    with pytest.raises(InputError) as caught:
        TrackCache(MadeUp(PAIRS), limit)
    assert len(caught.value.problems) == len(PAIRS)


def test_a_check_keeps_what_fits():
    for room, reads in ((len(PAIRS), 1), (2, 2)):
        data = MadeUp()
        cache = TrackCache(data, room_for(room))
        cache.check(PAIRS)
        assert len(in_memory(cache)[0]) <= room
        cache.get(PAIRS[3:5], DEVICE)
        assert [data.reads[pair] for pair in PAIRS[3:5]] == [reads, reads]


def test_tracks_and_regions_of_region_models():
    data = MadeUpRegions()
    cache = TrackCache(data)
    assert cache.track_bytes == 4 * (30 + 10 + 6 + 3)
    ((track,), pair) = cache.get(PAIRS[5:6], DEVICE), PAIRS[5]
    values = values_of(pair).values
    np.testing.assert_array_equal(track.promoter[1], values[None, :, :2])
    np.testing.assert_array_equal(track.regions[0], values[None, 0])
    for _ in range(2):
        region = cache.regions("c2", DEVICE).region
        np.testing.assert_array_equal(region, np.ones((1, 5, 2)))
    assert data.regions_read == {"c2": 1}
    assert TrackCache(MadeUp()).regions("c1", DEVICE) is None


_STREAMING = """
import pathlib, re
import jax
import numpy as np
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.inputs.device_tracks import WindowSignal
from epi2expr_jax.training.runs import Run, RunInputs
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.training.one_run import TrainConfig, Trainer

GENES, BINS, CELLS = 16_384, 64, 100  # tracks of 4 MiB

class Large:
    cells, assays = tuple(map(str, range(CELLS))), ("assay",)
    def track(self, cell, assay):
        return WindowSignal(np.full((GENES, BINS), float(cell), np.float32))
    def regions(self, cell):
        return None

def population(cells, limit):
    genes = np.arange(GENES)
    runs = [Run(cell, ("assay",), "fold", 0) for cell in cells]
    keys = np.random.default_rng(0).integers(0, 2**32, (len(runs), 2), np.uint32)
    rows = lambda x: np.tile(x, (len(runs), 1))
    inputs = RunInputs(
        rows(np.sin(genes).astype(np.float32)),
        rows(genes < 64), rows((genes >= 64) & (genes < 128)), keys, keys,
    )
    lanes = Lanes(1, tuple(jax.local_devices()))
    return Population(trainer, runs, inputs, TrackCache(Large(), limit), lanes)

def resident(what):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(what + r":\\s+(\\d+) kB", status)[1]) * 1024

model = REGISTRY["promoter_cnn"](window_bp=6400, width=0.02)
trainer = Trainer(model, TrainConfig(epochs=2, batch_size=32))
limit = 40 << 20
warm = population(Large.cells[:1], limit)
warm.train_epoch()
whole = population(Large.cells, limit)
assert whole.cache.track_bytes * CELLS == 10 * limit
whole._fill()
del warm
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
before = resident("VmRSS")
while whole.alive:
    whole.train_epoch()
assert all(log.epochs == 2 for log in whole.logs)
print(resident("VmHWM") - before)
"""


def test_peak_memory_stays_under_the_limit():
    """Two epochs over signal of ten times the limit."""
    # Large arrays then come from the system and go back to it, so that memory shows what is held.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", _STREAMING], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 48 << 20  # 40 MiB, and what the heap keeps of small arrays
