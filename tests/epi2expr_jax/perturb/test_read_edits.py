"""Laying edits on a store's signal: what is read unedited, and what edits mix in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.perturb.read_edits import EditReader
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.perturb.edited_batches import by_edit, gathered, reader_of, signal_of
from tests.epi2expr_jax.untrained import SMALL, WINDOW


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
    bins = np.asarray(signal.raw.begin)[gene][:, None] + 100 * np.arange(raw.shape[1] + 1)[None]
    share = signal._shares(gene, edit, 0, bins[:, :-1], bins[:, 1:])
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


def test_a_track_is_read_once_however_many_blocks_are(distal_store, rows, monkeypatch):
    read = []
    for name in ("read_signal", "read_region_signal"):
        original = getattr(WindowStore, name)

        def counted(store, cells, assays, *rest, name=name, original=original):
            read.append((name, str(cells), *assays))
            return original(store, cells, assays, *rest)

        monkeypatch.setattr(WindowStore, name, counted)
    first, second = distal_store.manifest.assays[:2]
    edits = [perturb.swap_with(first, perturb.promoter(), other=second)]
    reader = reader_of(distal_store, SMALL, [first], edits, normalise="depth")
    whole = reader.read(rows)
    for block in (rows[:3], rows[3:], rows[:3]):
        part = np.isin(rows, block)
        np.testing.assert_array_equal(reader.read(block).raw.window, whole.raw.window[:, part])
    assert len(read) == len(set(read)) == 4  # two tracks, windows and regions
    assert distal_store.read_signal(["E003"], [first]).shape[-1] == whole.raw.window.shape[-1]


def test_a_swap_is_in_the_units_of_the_assay_it_stands_in_for(distal_store, rows):
    """Where depths are normalised, by the ratio of the tracks' means."""
    first, second = distal_store.manifest.assays[:2]
    edits = [perturb.swap_with(first, perturb.promoter(), other=second)]
    means, raw = {}, {}
    for assay in (first, second):
        raw[assay] = distal_store.read_signal(["E003"], [assay])[0, 0]
        means[assay] = raw[assay].mean(dtype=float)
    plain = reader_of(distal_store, SMALL, [first], edits).read(rows)
    np.testing.assert_array_equal(plain.window_source, raw[second][None, rows])
    scaled = reader_of(distal_store, SMALL, [first], edits, normalise="depth").read(rows)
    expected = raw[second][None, rows] * means[first] / means[second]
    np.testing.assert_allclose(scaled.window_source, expected, rtol=1e-5)
    both = [*edits, perturb.swap_with(second, perturb.promoter(), other=second)]
    scaled = reader_of(distal_store, SMALL, [first, second], both, normalise="depth").read(rows)
    np.testing.assert_allclose(scaled.window_source[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(scaled.window_source[1], raw[second][rows])


def test_edits_become_numbers_and_the_last_is_none(distal_store, rows):
    first, second = distal_store.manifest.assays[:2]
    near, far = perturb.promoter(4000), perturb.pcre(0)
    edits = [
        (perturb.scale(first, near, 0.5), perturb.set_to(second, far, 7)),
        perturb.shift(second, near, 300),
    ]
    dataset = load_dataset(distal_store, SMALL, ["E003"], [first, second])
    steps = [edits[0], (edits[1],)]
    reader = EditReader(distal_store, dataset, SMALL, "E003", (first, second), steps)
    assert reader.touched().tolist() == [[True, True], [False, True], [False, False]]
    table = reader.read(rows).edits
    assert table.assay.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert table.times.tolist() == [[0.5, 0], [0, 1], [1, 1]]
    assert table.plus.tolist() == [[0, 7], [0, 0], [0, 0]]
    assert table.mix.tolist() == [[0, 0], [1, 0], [0, 0]]
    tss = distal_store.genes.tss.to_numpy()[rows]
    np.testing.assert_array_equal(table.intervals[:, 0, 0, 0, 0], np.c_[tss - 2000, tss + 2000])
    assert not table.intervals[:, 1, 1].any()
    assert not table.intervals[:, 2].any()


def test_signal_of_a_cell_with_other_contacts_is_refused(distal_store, rows):
    """Its regions are not those that the model reads; a model of windows does not mind."""
    assay, other = distal_store.manifest.assays[0], distal_store.manifest.cells[1]
    sums = {**distal_store.manifest.regions_sha256, other: "another"}
    manifest = dataclasses.replace(distal_store.manifest, regions_sha256=sums)
    store = WindowStore(distal_store.path, manifest, distal_store.genes)
    edits = [perturb.swap_with(assay, perturb.promoter(), cell=other)]
    with pytest.raises(InputError) as caught:
        reader_of(store, SMALL, [assay], edits).read(rows)
    (problem,) = caught.value.problems
    assert problem.found == f"{other} with other regions than E003"
    assert problem.expected == "signal of a cell in the same contacts"
    assert "swap with a cell of the same interactions" in problem.remedy
    assert reader_of(store, WINDOW, [assay], edits).read(rows).queries == 2 * len(rows)
