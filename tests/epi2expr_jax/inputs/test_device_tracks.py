import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import (
    CellRegions,
    RegionSignal,
    RegionTrack,
    WindowSignal,
    region_places,
    signal_of,
)
from epi2expr_jax.models.region_batch import TokenLayout


def binned(bases, bin_bp):
    """Means of consecutive bins of single bases, the last one of what remains."""
    starts = range(0, len(bases), bin_bp)
    return np.array([bases[start : start + bin_bp].mean() for start in starts])


def padded(values, length, flip=False):
    """Values in the middle of `length` places, and which places are theirs."""
    left = math.ceil((length - len(values)) / 2)
    out, own = np.zeros(length), np.zeros(length, bool)
    out[left : left + len(values)] = values
    own[left : left + len(values)] = True
    return (out[::-1], own[::-1]) if flip else (out, own)


LENGTHS = 4, 9  # positions at two resolutions
ASSAYS, GENES, MOST = 3, 12, 5


def made_up(regions):
    """Tracks of random numbers, a cell's regions, and in both resolutions theirs as `[A, bins]`."""
    random = np.random.default_rng(regions)
    count = np.minimum(random.integers(0, MOST + 1, GENES), regions)
    there = np.arange(MOST) < count[:, None]
    region = np.where(there, random.integers(0, max(regions, 1), there.shape), -1)
    values, places, signal = [], [], []
    for length in LENGTHS:
        # One more that no gene touches: a cell always has one.
        have = random.integers(1, length + 1, regions + 1)
        have[:2] = [length, 1][: len(have)]
        values.append([random.normal(size=(ASSAYS, n)).astype(np.float32) for n in have])
        signal.append(np.pad(np.concatenate(values[-1], 1), ((0, 0), (length, length))))
        places.append(region_places(have, length))
    promoter = [random.normal(size=(ASSAYS, GENES, n)).astype(np.float32) for n in LENGTHS]
    tracks = [
        RegionTrack(tuple(part[a] for part in promoter), tuple(part[a] for part in signal))
        for a in range(ASSAYS)
    ]

    begin, bins = zip(*places, strict=True)
    cell = CellRegions(
        own=tuple(random.random((2, n)) < 0.5 for n in LENGTHS),
        minus=random.random(GENES) < 0.5,
        begin=begin,
        bins=bins,
        region=region.astype(np.int32),
        score=np.where(there, random.random(there.shape), 0).astype(np.float32),
    )
    return tracks, cell, values


@functools.partial(jax.jit, static_argnums=2)
def _gather(signal, genes, plan):
    return signal.gather(genes, plan)


def gather(signal, genes, plan):
    return jax.tree.map(np.asarray, _gather(signal, jnp.array(genes), plan))


# Every place with all slots; places that lack some; none at all, in either spelling.
@pytest.mark.parametrize("slots", [(5,) * 7, (5, 4, 4, 2, 2, 1, 0), (0,) * 7, ()])
@pytest.mark.parametrize("regions", [30, 0])
def test_a_batch_against_brute_force(slots, regions):
    tracks, cell, values = made_up(regions)
    assays, genes = [2, 0], [3, 11, 0, 7, 7, 5, 2]
    signal = signal_of([tracks[assay] for assay in assays], jax.device_put(cell))
    assert isinstance(signal, RegionSignal)
    np.testing.assert_array_equal(signal.n_contacts(), (cell.region >= 0).sum(1))
    batch = gather(signal, genes, BatchPlan(7, slots))
    have = slots or (0,) * 7
    assert batch.slots == have
    region = cell.region[genes]
    contacts = np.minimum((region >= 0).sum(1), have)
    np.testing.assert_array_equal(batch.n_contacts, contacts)
    score = np.where(np.arange(MOST) < contacts[:, None], cell.score[genes], 0)
    np.testing.assert_array_equal(batch.score, score[:, : max(have)])
    layout = TokenLayout.of(have)
    assert len(batch.region) == len(batch.region_valid) == (2 if layout.prefix else 0)
    for i, length in enumerate(LENGTHS):
        for b, gene in enumerate(genes):
            for channel, assay in enumerate(assays):
                promoter = tracks[assay].promoter[i][gene]
                np.testing.assert_array_equal(batch.promoter[i][b, channel], promoter)
            own = cell.own[i][int(cell.minus[gene])]
            np.testing.assert_array_equal(batch.promoter_valid[i][b], own)
        if not layout.prefix:
            continue
        found, valid = batch.region[i], batch.region_valid[i]
        assert found.shape == (len(layout.gene), 2, length)
        for p, (b, slot) in enumerate(zip(layout.gene, layout.slot, strict=True)):
            if region[b, slot] < 0:
                assert not found[p].any()
                assert not valid[p].any()
                continue
            for channel, assay in enumerate(assays):
                expected, own = padded(values[i][region[b, slot]][assay], length)
                np.testing.assert_array_equal(found[p, channel], expected.astype(np.float32))
                np.testing.assert_array_equal(valid[p], own)


def test_a_batch_of_windows_has_the_assays_of_the_run_as_channels():
    values = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    signal = signal_of([WindowSignal(values[2]), WindowSignal(values[0])], None)
    assert isinstance(signal, WindowSignal)
    assert signal.n_contacts() is None
    batch = gather(signal, [4, 4, 1], BatchPlan(3))
    assert batch.shape == (3, 4, 2)
    for b, gene in enumerate([4, 4, 1]):
        for channel, assay in enumerate([2, 0]):
            np.testing.assert_array_equal(batch[b, :, channel], values[assay, gene])
