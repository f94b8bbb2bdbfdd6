"""Edited signal: by hand, wherever an edit's place lies, on either strand and in any order."""

import dataclasses

import jax
import numpy as np
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.perturb.edited_signal import EditedSignal
from tests.epi2expr_jax.perturb.edited_batches import FINE, batch_of, by_edit, signal_of
from tests.epi2expr_jax.untrained import SMALL, WINDOW


def test_edits_act_on_raw_signal_and_share_out_bins(distal_store, rows):
    """A window edited by hand, before merging and transform; half a bin is edited by half."""
    assay = distal_store.manifest.assays[0]
    config = dataclasses.replace(WINDOW, window_bp=6000, bin_bp=200)
    place = perturb.span(-150, 300)  # bins of 100 bp: half of one, then four, at the TSS
    edits = [perturb.scale(assay, place, 3), perturb.set_to(assay, place, 7)]
    x = by_edit(batch_of(signal_of(distal_store, config, [assay], edits, rows)), 2)
    centre = slice(170, 230)
    raw = distal_store.read_signal(["E003"], [assay], centre)[0, 0][rows].astype(float)
    minus = (distal_store.genes.strand.iloc[rows] == "-").to_numpy()
    share = np.zeros(60)
    share[28], share[29:33] = 0.5, 1
    share = np.where(minus[:, None], share[::-1], share)
    transform = load_dataset(distal_store, config, ["E003"], [assay]).transform(assay)
    function = {"arcsinh": np.arcsinh, "log1p": np.log1p}[transform]
    for e, changed in enumerate([3 * raw, np.full_like(raw, 7)]):
        merged = (raw + share * (changed - raw)).reshape(len(rows), 30, 2).mean(2)
        merged = np.where(minus[:, None], merged[:, ::-1], merged)
        np.testing.assert_allclose(x[:, e, :, 0], function(merged), rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(x[:, 2, :10], x[:, 0, :10])  # far from the place


def test_an_interval_reaches_the_window_and_every_region(distal_store, rows):
    assay = distal_store.manifest.assays[0]
    own = distal_store.regions("E003")
    number, _ = own.by_gene(len(distal_store.genes), 8)
    gene = next(r for r in rows if (number[r] >= 0).sum() > 1)
    region = own.table.iloc[number[gene, 1]]
    # The last 250 bp of the gene's second region, and what lies behind it.
    place = perturb.interval(region.chrom, int(region.end) - 250, int(region.end) + 90)
    edits = [perturb.set_to(assay, place, 100.0)]
    signal = signal_of(distal_store, FINE, [assay], edits, np.array([gene]))
    x = batch_of(signal)
    layout = TokenLayout.of(x.slots)
    for values, valid in zip(x.region, x.region_valid, strict=True):
        edited_, alone = np.asarray(layout.regions_by_gene(values))
        differs = (edited_ != alone).any((1, 2))
        assert np.flatnonzero(differs).tolist() == [1]
        there = np.asarray(layout.regions_by_gene(valid.astype(np.float32)))[0, 1] > 0
        bins = there.sum()
        width = (region.end - region.start) / bins
        where = np.flatnonzero(differs_at := (edited_[1] != alone[1]).any(0))
        assert differs_at.sum() <= -(-250 // width) + 1
        assert where.max() == np.flatnonzero(there).max()
    finest = np.asarray(layout.regions_by_gene(x.region[2]))[:, 1, 0]
    transform = load_dataset(distal_store, FINE, ["E003"], [assay]).transform(assay)
    level = {"arcsinh": np.arcsinh, "log1p": np.log1p}[transform](100.0)
    last = np.flatnonzero(finest[0] != finest[1])
    inside = finest[0, last[1:]] if len(last) > 1 else finest[0, last]
    np.testing.assert_allclose(inside, level, rtol=1e-5)


def test_edits_commute_where_they_should(distal_store, rows):
    first, second = distal_store.manifest.assays[:2]
    near, far = perturb.promoter(), perturb.span(5000, 9000)
    pairs = [
        (perturb.scale(first, near, 0.25), perturb.scale(second, near, 4.0)),  # assays
        (perturb.scale(first, near, 0.25), perturb.set_to(first, far, 2.0)),  # places
        (perturb.scale(first, near, 0.25), perturb.scale(first, near, 4.0)),  # factors
    ]
    edits = [*pairs, *(pair[::-1] for pair in pairs)]
    x = batch_of(signal_of(distal_store, SMALL, [first, second], edits, rows))
    for values in x.promoter:
        values = by_edit(values, 6)
        np.testing.assert_array_equal(values[:, :3], values[:, 3:6])
        np.testing.assert_allclose(values[:, 2], values[:, 6], rtol=1e-6)  # 1/4, then 4
        assert (values[:, :2] != values[:, [6]]).any()


@pytest.mark.parametrize("config", [SMALL, WINDOW], ids=["chromoformer", "promoter_cnn"])
def test_strand_and_data_flipped_together_change_nothing(distal_store, rows, config):
    assay = distal_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.span(-2500, -300), 3), perturb.shift(assay,
             perturb.promoter(4000), 400)]  # fmt: skip
    signal = signal_of(distal_store, config, [assay], edits, rows)
    raw, table = signal.raw, signal.edits
    tss = raw.begin + config.window_bp // 2
    mirrored = 2 * tss[:, None, None, None, None, None] - table.intervals[..., ::-1]
    gap = table.intervals[..., :1] == table.intervals[..., 1:]
    flipped = dataclasses.replace(
        signal,
        raw=dataclasses.replace(raw, window=raw.window[:, :, ::-1], minus=~raw.minus),
        window_source=signal.window_source[:, :, ::-1],
        edits=dataclasses.replace(
            table, intervals=np.where(gap, table.intervals, mirrored).astype(np.int32)
        ),
    )
    x, y = batch_of(signal), batch_of(flipped)
    one, other = (
        [
            part.promoter,
        ]
        if config is SMALL
        else [part]
        for part in (x, y)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_edited_signal_tells_how_many_regions_a_query_has(distal_store, rows):
    assay = distal_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.promoter(), 0)]
    signal = signal_of(distal_store, SMALL, [assay], edits, rows)
    number, _ = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)
    expected = np.repeat((number[rows] >= 0).sum(1), 2)
    np.testing.assert_array_equal(signal.n_contacts(), expected)
    assert isinstance(signal, EditedSignal)
    assert isinstance(signal.unedited(), EditedSignal)
    assert (signal.queries, signal.unedited().queries) == (2 * len(rows), len(rows))
    alone = batch_of(signal.unedited()).promoter
    for values, expected in zip(batch_of(signal).promoter, alone, strict=True):
        np.testing.assert_allclose(by_edit(values, 1)[:, 1], expected, rtol=1e-6)
