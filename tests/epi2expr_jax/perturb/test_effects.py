"""Altered marks: what an edit does to the input, to a model's output, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.perturb import edited_signal as edited
from epi2expr_jax.perturb import places
from epi2expr_jax.perturb import queries as edited_runs
from epi2expr_jax.perturb.queries import EditedRuns
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of

pytestmark = pytest.mark.usefixtures("quick_compile")

FINE = dataclasses.replace(SMALL, resolutions=(2000, 500, 100))  # as the original


@functools.partial(jax.jit, static_argnums=2)
def gathered(signal, index, plan):
    """What a model reads of a batch, by one program for signals alike."""
    return signal.gather(index, plan)


def signal_of(store, config, assays, edits, rows, **inputs):
    """What a model of these assays reads of some genes under the edits."""
    ensemble = ensemble_of(store, config, assays, **inputs)
    wanted = np.ones((2, len(rows)), bool)
    steps = [edit if isinstance(edit, tuple) else (edit,) for edit in edits]
    runs = EditedRuns(ensemble, ensemble.members[0], store, steps, rows, wanted, True)
    return jax.device_put(runs.reader.read(rows))


def batch_of(signal):
    """Every query's input, in one batch."""
    slots = ()
    if signal.layout.positions:
        slots = (int(signal.contacts().max()),) * signal.queries
    plan = BatchPlan(signal.queries, slots)
    return gathered(signal, jnp.arange(signal.queries), plan)


def by_edit(x, edits):
    """`[G E …]` of an array with a first axis of queries; the last edit is none."""
    return np.asarray(x).reshape(-1, edits + 1, *x.shape[1:])


@pytest.fixture(scope="module")
def rows(distal_store):
    """Genes of both strands, with and without regions."""
    count = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)[0] >= 0
    genes = distal_store.genes.assign(count=count.sum(1))
    picked = [
        genes[(genes.strand == strand) & some].index[:2]
        for strand in "+-"
        for some in (genes["count"] > 1, genes["count"] == 0)
    ]
    return np.sort(np.concatenate(picked))


@pytest.mark.parametrize("normalise", ["none", "depth"])
@pytest.mark.parametrize("config", [SMALL, WINDOW], ids=["chromoformer", "promoter_cnn"])
def test_unedited_signal_is_what_models_were_trained_on(distal_store, rows, config, normalise):
    assays = distal_store.manifest.assays[:2]
    config = dataclasses.replace(config, assays=2)
    edit = perturb.scale(assays[0], perturb.promoter(), 0.5)
    ours = signal_of(distal_store, config, assays, [edit], rows, normalise=normalise)
    inputs = InputConfig(normalise=normalise)
    dataset = load_dataset(distal_store, config, ["E003"], assays, inputs)
    theirs = dataset.signal("E003", assays)
    plan = BatchPlan(len(rows), (8,) * len(rows) if config is not WINDOW and ours.layout.positions
                     else ())  # fmt: skip
    expected = gathered(theirs, jnp.asarray(rows), plan)
    alone = gathered(ours, 2 * jnp.arange(len(rows)) + 1, plan)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=1e-6)


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


def test_the_original_protocol_by_its_bins(distal_store, rows):
    """Log features times a factor in the original's bins, in the window's copy alone."""
    assay = distal_store.manifest.assays[0]
    rows = rows[::2]
    promoter = perturb.scale(assay, perturb.original_promoter(), 0.3, space="log")
    distal = [perturb.scale(assay, p, 0.3, space="log") for p in perturb.original_distal()]
    assert len(distal) == 17
    edits = [promoter, *distal]
    x = batch_of(signal_of(distal_store, FINE, [assay], edits, rows))
    bins = {2000: (8, 11), 500: (34, 46), 100: (170, 230)}
    kept = [i for i in range(20) if i not in (8, 9, 10)]
    for values, resolution in zip(x.promoter, FINE.resolutions, strict=True):
        values = by_edit(values, len(edits))
        alone = values[:, -1]
        expected = alone.copy()
        expected[:, :, slice(*bins[resolution])] *= 0.3
        np.testing.assert_allclose(values[:, 0], expected, rtol=1e-6)
        wide = 2000 // resolution
        for e, number in enumerate(kept, 1):
            expected = alone.copy()
            expected[:, :, number * wide : (number + 1) * wide] *= 0.3
            np.testing.assert_allclose(values[:, e], expected, rtol=1e-6)
    for values in x.region:
        values = np.asarray(TokenLayout.of(x.slots).regions_by_gene(values))
        values = values.reshape(len(rows), len(edits) + 1, -1)
        assert (values == values[:, -1:]).all()


def test_factor_one_and_signal_already_so_change_nothing(distal_store):
    """Bit for bit, in every place; and where there is nothing to lower."""
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, SMALL, [assay])
    where = [perturb.promoter(), perturb.pcre(0), *perturb.distal_bins(10_000)]
    edits = [perturb.scale(assay, place, f) for place in where for f in (1, 0.5)]
    found = perturb.run(ensemble, distal_store, edits)
    same = found.isel(edit=slice(0, None, 2))
    assert not same.changed.any()
    np.testing.assert_array_equal(
        same.after.to_numpy(),
        np.broadcast_to(same.before.to_numpy()[..., None], same.after.shape),
    )
    other = found.isel(edit=slice(1, None, 2))
    assert other.changed.any("gene").any("run").all()
    assert (other.effect.to_numpy()[other.changed.to_numpy()] != 0).mean() > 0.9


def test_before_is_the_prediction_and_only_unseen_models_predict(distal_store):
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, SMALL, assays)
    found = perturb.run(ensemble, distal_store, [perturb.scale(assays[1], perturb.promoter(), 2)])
    genes = found.gene.to_numpy().tolist()
    expected = ensemble.predict(distal_store, genes)
    np.testing.assert_allclose(found.before, expected, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.after[..., 0]), np.isnan(expected))
    chrom = distal_store.genes.set_index("gene_id").chrom[genes].to_numpy()
    tested = np.stack([ensemble.folds[f].masks(chrom)["test"] for f in found.fold.to_numpy()])
    np.testing.assert_array_equal(found.before.notnull(), tested)
    seen = perturb.run(
        ensemble, distal_store, [perturb.scale(assays[1], perturb.promoter(), 2)], genes[:5],
        include_seen=True,
    )  # fmt: skip
    assert seen.before.notnull().all()


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


def test_what_is_put_in_place_of_signal(distal_store, rows):
    first, second = distal_store.manifest.assays[:2]
    other = distal_store.manifest.cells[1]
    whole = perturb.span(-20_000, 20_000)
    edits = [
        perturb.swap_with(first, whole, other=second),
        perturb.swap_with(first, whole, cell=other),
        perturb.shift(first, whole, 250),
        perturb.remove_peak(first, whole),
    ]
    signal = signal_of(distal_store, SMALL, [first], edits, rows)
    raw = np.asarray(signal.raw.window)[0]
    gene = np.repeat(np.arange(len(rows)), len(edits) + 1)
    edit = np.tile(np.arange(len(edits) + 1), len(rows))
    share = signal._shares(gene, edit, 0, np.zeros((len(gene), 1), int) + raw.shape[1] * 0
                           + np.asarray(signal.raw.begin)[gene][:, None]
                           + 100 * np.arange(raw.shape[1])[None],
                           np.asarray(signal.raw.begin)[gene][:, None]
                           + 100 * np.arange(1, raw.shape[1] + 1)[None])  # fmt: skip
    x = jnp.asarray(raw[gene][:, None])
    found, _ = signal._edited(x, signal.window_source[:, gene], edit, share)
    found = by_edit(found[:, 0], len(edits))
    read = distal_store.read_signal
    np.testing.assert_array_equal(found[:, 0], read(["E003"], [second])[0, 0][rows])
    np.testing.assert_array_equal(found[:, 1], read([other], [first])[0, 0][rows])
    minus = (distal_store.genes.strand.iloc[rows] == "-").to_numpy()
    along = np.where(minus[:, None], raw[:, ::-1], raw)
    moved = np.pad(along, ((0, 0), (3, 0)))
    moved = (moved[:, 1:-2] + moved[:, :-3]) / 2  # two bins and a half
    shifted = np.where(minus[:, None], found[:, 2, ::-1], found[:, 2])
    np.testing.assert_allclose(shifted, moved, rtol=1e-6, atol=1e-7)
    median = np.median(raw, axis=1, keepdims=True)
    np.testing.assert_array_equal(found[:, 3], np.minimum(raw, median))


def test_inputs_unlike_any_trained_on_are_flagged(distal_store):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    found = perturb.run(
        ensemble,
        distal_store,
        [perturb.scale(assay, perturb.promoter(), f) for f in (0.9, 1000.0)],
    )
    known = found.before.notnull()
    assert found.outside.isel(edit=1).where(known).mean() > 0.9
    assert found.outside.isel(edit=0).where(known).mean() < 0.1


def test_intervals_need_three_models(distal_store):
    assay = distal_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.promoter(), 0)]
    for seeds in (2, 3):
        ensemble = ensemble_of(distal_store, WINDOW, [assay], seeds=seeds)
        found = perturb.run(ensemble, distal_store, edits)
        summary = perturb.summarise(found).isel(model=0)
        assert (summary.models == seeds).all()
        assert summary.low.notnull().all() == (seeds == 3)
    one = found.effect.isel(edit=0, gene=0).dropna("run").to_numpy()
    spread = one.std(ddof=1) * np.sqrt(1 + 1 / 3)  # of one more training about the mean of three
    low, high = stats.t.interval(0.95, 2, one.mean(), spread)
    np.testing.assert_allclose(summary.low[0, 0], low, rtol=1e-4)
    np.testing.assert_allclose(summary.high[0, 0], high, rtol=1e-4)
    table = perturb.to_frame(perturb.summarise(found))
    assert len(table) == found.sizes["gene"]
    assert table.gene.is_unique


def test_rereading_altered_regions_alone_changes_nothing(distal_store):
    """Kept tokens and all computed anew, of edits that reach one region, two, or the window too."""
    assays = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, dataclasses.replace(SMALL, pairwise_layers=2), assays)
    own = distal_store.regions("E003")
    number, _ = own.by_gene(len(distal_store.genes), 8)
    gene = np.flatnonzero((number >= 0).sum(1) > 2)[0]  # its third region is edited too
    chrom = own.table.chrom[number[gene, 0]]
    ends = own.table.iloc[number[gene, :2]]
    edits = [
        perturb.scale(assays[0], perturb.pcre(0), 0),
        perturb.scale(assays[1], perturb.pcre(2), 3),
        perturb.scale(assays[0], perturb.promoter(), 0),
        (
            perturb.scale(assays[0], perturb.pcre(0), 2),
            perturb.scale(assays[1], perturb.pcre(1), 0),
        ),
        perturb.scale(
            assays[0], perturb.interval(chrom, int(ends.start.min()), int(ends.end.max())), 0
        ),
    ]
    kept = perturb.run(ensemble, distal_store, edits)
    anew = perturb.run(ensemble, distal_store, edits, reread=False)
    np.testing.assert_allclose(kept.after, anew.after, atol=1e-6)
    np.testing.assert_array_equal(kept.changed, anew.changed)
    assert (np.abs(kept.effect) > 1e-4).any(("run", "gene")).all()


def test_blocks_of_genes_change_nothing(distal_store, monkeypatch):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    edits = [perturb.scale(assay, perturb.promoter(), f) for f in (0, 2)]
    whole = perturb.run(ensemble, distal_store, edits)
    monkeypatch.setattr(edited_runs, "_QUERIES", 40 * 3)
    pieces = perturb.run(ensemble, distal_store, edits)
    np.testing.assert_allclose(whole.effect, pieces.effect, atol=1e-6)
    np.testing.assert_array_equal(whole.changed, pieces.changed)


def test_bad_edits_are_refused(distal_store):
    assay, other = distal_store.manifest.assays[:2]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    near = perturb.promoter()
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="a finite number, 0 or more"):
            perturb.scale(assay, near, factor)
    with pytest.raises(InputError, match="start below its end"):
        perturb.span(100, 100)
    with pytest.raises(InputError, match="0 <= start < end"):
        perturb.interval("chr1", 10, 5)
    with pytest.raises(InputError, match="name one"):
        perturb.swap_with(assay, near)
    with pytest.raises(InputError, match="2 without a base"):
        perturb.intervals(pd.DataFrame({"chrom": "chr1", "start": [5, -1, 0], "end": [5, 3, 2]}))
    with pytest.raises(InputError, match=r"also \['end'\]"):
        perturb.intervals(pd.DataFrame({"chrom": ["chr1"], "start": [5]}))

    def refused(message, edits, genes=None):
        with pytest.raises(InputError, match=message):
            perturb.run(ensemble, distal_store, edits, genes)

    refused("no model was trained on", [perturb.scale(other, near, 0)])
    refused("one space at a time", [
        perturb.scale(assay, near, 0), perturb.scale(assay, near, 0, space="log"),
    ])  # fmt: skip
    refused("at least one", [])
    refused("no cell E999", [perturb.swap_with(assay, near, cell="E999")])
    refused("reach none of the genes", [
        perturb.scale(assay, perturb.interval("chr1", 0, 1), 0), perturb.scale(assay, near, 0),
    ])  # fmt: skip
    refused("unknown genes", [perturb.scale(assay, near, 0)], ["ENSG0"])
    unseen = ensemble.wanted(distal_store, np.arange(len(distal_store.genes)), False).any(0)
    seen = distal_store.genes.gene_id[~unseen].tolist()
    refused("every model saw", [perturb.scale(assay, near, 0)], seen[:2])


def test_distal_bins_leave_the_promoter_alone():
    bins = perturb.distal_bins()
    assert len(bins) == 16
    assert all(abs(place.distance) >= 4000 for place in bins)
    assert [place.distance for place in bins] == sorted(place.distance for place in bins)
    assert places.original_promoter().in_regions is False


def test_edited_signal_tells_how_many_regions_a_query_has(distal_store, rows):
    assay = distal_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.promoter(), 0)]
    signal = signal_of(distal_store, SMALL, [assay], edits, rows)
    number, _ = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)
    expected = np.repeat((number[rows] >= 0).sum(1), 2)
    np.testing.assert_array_equal(signal.contacts(), expected)
    assert isinstance(signal, edited.EditedSignal)
