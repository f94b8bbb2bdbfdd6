import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import plan_batches


def test_windows_are_cropped_merged_transformed_and_oriented(small_store):
    cell, assay = small_store.manifest.cells[1], small_store.manifest.assays[2]
    data = load_dataset(small_store, PromoterCnnConfig(4000, 100), [cell], [assay])
    raw = small_store.read_signal([cell], [assay])[0, 0]  # 6000 bp in bins of 50
    for gene in (0, 1, 2, 3, 50, 51):
        window = np.arcsinh(raw[gene, 20:100].reshape(40, 2).mean(1))
        if small_store.genes.strand[gene] == "-":
            window = window[::-1]
        np.testing.assert_allclose(data.track(cell, assay).values[gene], window, rtol=1e-6)
        values = data.signal(cell, [assay]).values
        np.testing.assert_array_equal(values[0, gene], data.track(cell, assay).values[gene])
    genomic = load_dataset(
        small_store, PromoterCnnConfig(4000, 100), [cell], [assay], InputConfig("log1p", "genomic")
    )
    np.testing.assert_allclose(
        genomic.track(cell, assay).values[3],
        np.log1p(raw[3, 20:100].reshape(40, 2).mean(1)),
        rtol=1e-6,
    )
    assert data.regions(cell) is None


def test_windows_the_store_cannot_serve_are_refused(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    with pytest.raises(InputError, match="at least as wide"):
        load_dataset(small_store, CnnConfig(10_000, 50), cells, assays)


def test_negative_signal_under_a_logarithm_is_refused(small_store, tmp_path):
    store = WindowStore.create(
        tmp_path / "s",
        small_store.manifest,
        small_store.genes,
        small_store.read_expression(small_store.manifest.cells),
    )
    genes = len(store.genes)
    for cell, assay in store.manifest.tracks:
        store.write_slab(cell, assay, np.full((genes, 120), -0.5), np.ones(genes), [])
    arguments = store, PromoterCnnConfig(6000, 50), store.manifest.cells, store.manifest.assays
    assert negative_in(load_dataset(*arguments, InputConfig("log1p"))) == [
        f"{cell}-{assay}" for cell, assay in store.manifest.tracks
    ]
    signed = load_dataset(*arguments)  # arcsinh takes any sign
    assert not negative_in(signed)
    assert all((signed.track(*pair).values < 0).all() for pair in store.manifest.tracks)


def negative_in(data):
    """The tracks refused for negative signal, one by one; a cache names the same at once."""
    refused = []
    for pair in itertools.product(data.cells, data.assays):
        found = ()
        try:
            data.track(*pair)
        except InputError as error:
            found = error.problems
        assert len(found) <= 1
        refused += found
    if refused:
        with pytest.raises(InputError, match="negative signal") as caught:
            TrackCache(data).check(list(itertools.product(data.cells, data.assays)))
        assert sorted(map(str, caught.value.problems)) == sorted(map(str, refused))
    assert all("negative signal" in problem.found for problem in refused)
    return [problem.where.rsplit(": ")[-1] for problem in refused]


def test_unknown_choices_are_refused():
    with pytest.raises(InputError, match="--transform"):
        InputConfig("sqrt")
    with pytest.raises(InputError, match="--orientation"):
        InputConfig("auto", "upstream")


def test_gene_table_stays_in_store_order(small_store):
    data = load_dataset(small_store, PromoterCnnConfig(6000, 100), small_store.manifest.cells[:1],
                        small_store.manifest.assays[:1])  # fmt: skip
    pd.testing.assert_frame_equal(data.genes, small_store.genes)


# Two cells, three assays of different units, 12 genes of 0 to 8 contacts and more.
CELLS, TRANSFORMS = ("c1", "c2"), {"m1": np.log1p, "m2": np.arcsinh, "m3": np.asarray}
GENES = pd.DataFrame(
    {
        "gene_id": [f"g{i}" for i in range(12)],
        "name": "",
        "chrom": [f"chr{1 + i % 4}" for i in range(12)],
        "tss": np.arange(12) * 10_000 + 20_000,
        "strand": ["+", "-", "-"] * 4,
    }
)
# Partial last bins everywhere, but for those of 100 bp in the promoter.
MODEL = ChromoformerConfig(
    window_bp=4400, region_bp=6000, resolutions=(1200, 300, 100), assays=3, contacts=8
)
WIDTHS = [1, 99, 100, 101, 1199, 1200, 1201, 2950, 5999, 6000]


def contacts_of(cell):
    """Gene i has i contacts, up to 9, some of which it shares; the second cell's are others."""
    random = np.random.default_rng(len(cell) + CELLS.index(cell))
    rows = []
    for i, gene in enumerate(GENES.gene_id if cell == "c1" else GENES.gene_id[::-1]):
        start = 1000 * random.permutation(12)[: min(i, 9)]
        rows += [
            (gene, "chr1", s, s + WIDTHS[s // 1000 % 10], 9.0 - rank)
            for rank, s in enumerate(start)
        ]
    return pd.DataFrame(rows, columns=["gene_id", "chrom", "start", "end", "score"])


def binned(bases, bin_bp):
    starts = range(0, len(bases), bin_bp)
    return np.array([bases[start : start + bin_bp].mean() for start in starts])


def bases_of(cell, assay, *place):
    """The signal of single bases, at a gene's window or at a region."""
    width = 5000 if len(place) == 1 else place[1] - place[0]
    random = np.random.default_rng([CELLS.index(cell), int(assay[1]), *map(int, place)])
    return random.integers(0, 100, width).astype(float)


@pytest.fixture
def region_store(tmp_path):
    """`region_store(sign, **contacts)`: windows of 5 kb at 50 bp and the regions of some cells."""

    def create(sign=1, **contacts):
        manifest = Manifest(
            window_bp=5000, bin_bp=50, assembly="toy", chrom_sizes={"chr1": 1_000_000},
            chromosomes=sorted(set(GENES.chrom)), blind=[], cells=list(CELLS),
            assays=list(TRANSFORMS), tracks=[[c, a] for c in CELLS for a in TRANSFORMS],
            units={"m1": "depth", "m2": "pvalue", "m3": "none"},
            groups=dict.fromkeys(TRANSFORMS, ""), min_covered=0.0, tss="gene_5p",
            candidates_sha256="0",
        )  # fmt: skip
        expression = np.arange(24, dtype=np.float32).reshape(2, 12)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        store = WindowStore.create(path, manifest, GENES, expression, contacts)
        for cell, assay in manifest.tracks:
            means = [binned(bases_of(cell, assay, g), 50) for g in range(12)]
            depth = None
            if cell in contacts:
                table = store.regions(cell).table
                parts = [
                    binned(bases_of(cell, assay, row.start, row.end), 100)
                    for row in table.itertuples()
                ]
                depth = sign * np.concatenate([np.zeros(0), *parts])
            store.write_slab(cell, assay, np.stack(means), np.ones(12), [], depth)
        return store

    return create


@functools.partial(jax.jit, static_argnums=2)
def _gather(signal, genes, plan):
    return signal.gather(genes, plan)


def gather(signal, genes, plan):
    return jax.tree.map(np.asarray, _gather(signal, jnp.array(genes), plan))


def as_read(assay, bases, resolution, flip=False):
    """What the model reads of single bases, and at which positions."""
    values = TRANSFORMS[assay](binned(bases, resolution))
    length = MODEL.region_bp // resolution
    left = math.ceil((length - len(values)) / 2)
    out = np.full(length, np.nan)
    out[left : left + len(values)] = values
    out = out[::-1] if flip else out
    return np.nan_to_num(out), ~np.isnan(out)


@pytest.mark.parametrize("orientation", ["strand", "genomic"])
def test_promoters_and_regions_against_single_bases(region_store, orientation):
    tables = {cell: contacts_of(cell) for cell in CELLS}
    cells, assays = ["c2", "c1"], ["m3", "m1", "m2"]
    config = InputConfig("auto", orientation)
    data = load_dataset(region_store(**tables), MODEL, cells, assays, config)
    channels = ["m2", "m3"]  # one run's own
    flip = (GENES.strand == "-") & (orientation == "strand")
    for cell in cells:
        signal = data.signal(cell, channels)
        count = np.asarray(signal.n_contacts())
        genes = np.argsort(-count, kind="stable")
        plan = BatchPlan.of(12, 8, [count], balanced=True)
        batch = gather(signal, genes, plan)
        own = [tables[cell][tables[cell].gene_id == f"g{g}"].head(8) for g in genes]
        assert batch.n_contacts.tolist() == [len(rows) for rows in own]
        for rows, score in zip(own, batch.score.tolist(), strict=True):
            assert score == [*rows.score, *[0.0] * (8 - len(rows))]
        layout = TokenLayout.of(plan.slots)
        places = [own[b].iloc[slot] for b, slot in zip(layout.gene, layout.slot, strict=True)]
        for i, resolution in enumerate(MODEL.resolutions):
            for channel, assay in enumerate(channels):
                for b, g in enumerate(genes):
                    window = bases_of(cell, assay, g)[300:4700]
                    values, valid = as_read(assay, window, resolution, flip[g])
                    np.testing.assert_allclose(batch.promoter[i][b, channel], values, rtol=2e-6)
                    np.testing.assert_array_equal(batch.promoter_valid[i][b], valid)
                for p, row in enumerate(places):
                    bases = bases_of(cell, assay, row.start, row.end)
                    values, valid = as_read(assay, bases, resolution)
                    np.testing.assert_allclose(batch.region[i][p, channel], values, rtol=2e-6)
                    np.testing.assert_array_equal(batch.region_valid[i][p], valid)


def test_a_model_without_contacts_needs_no_regions(region_store):
    store = region_store()
    model = ChromoformerConfig(4400, 6000, (1200, 300, 100), contacts=0)
    data = load_dataset(store, model, CELLS, ["m1"])
    plan, _ = plan_batches(store, model, [], 4, balanced=True)
    batch = gather(data.signal("c1", ["m1"]), range(4), plan)
    assert (batch.region, batch.score.shape, batch.n_contacts.tolist()) == ((), (4, 0), [0] * 4)
    with pytest.raises(InputError, match="build the store with --interactions") as caught:
        load_dataset(store, MODEL, CELLS, ["m1"])
    assert [p.where.rsplit(": ")[-1] for p in caught.value.problems] == ["c1", "c2"]


def test_a_cell_whose_genes_touch_nothing_is_valid(region_store):
    store = region_store(c1=contacts_of("c1").head(0))
    data = load_dataset(store, MODEL, ["c1"], ["m1"])
    batch = gather(data.signal("c1", ["m1"]), range(2), BatchPlan(2, (8, 8)))
    assert not any(np.any(part) for part in (*batch.region, *batch.region_valid, batch.n_contacts))


def test_shuffled_regions_are_read_instead_of_a_genes_own(region_store):
    store = region_store(c1=contacts_of("c1"), c2=contacts_of("c2"))
    other = load_dataset(store, MODEL, CELLS, ["m1"], InputConfig(shuffle_regions=True))
    own = load_dataset(store, MODEL, CELLS, ["m1"])
    for cell in CELLS:
        shuffled = store.regions(cell).shuffled(store.genes)
        read = other.regions(cell)
        np.testing.assert_array_equal(read.region, shuffled.by_gene(12, MODEL.contacts)[0])
        assert (read.region != own.regions(cell).region).any()
        # What lies where is as before, and so is the signal.
        for mine, theirs in zip(read.begin, own.regions(cell).begin, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        tracks = (data.track(cell, "m1") for data in (own, other))
        jax.tree.map(np.testing.assert_array_equal, *tracks)
    assert not InputConfig(shuffle_regions=True).view(store).verify()


def test_regions_that_do_not_fit_the_model_are_refused(region_store):
    store = region_store(c1=contacts_of("c1"), c2=contacts_of("c2"))
    narrow = ChromoformerConfig(4400, 4800, (1200, 300, 100))
    with pytest.raises(InputError, match="--max_pcre_bp=4800") as caught:
        load_dataset(store, narrow, CELLS, ["m1"])
    assert [p.found for p in caught.value.problems] == [
        "2 wider than 4800 bp (chr1:8000-13999, chr1:9000-15000)"
    ] * 2
    # The promoter's bins would do, the regions' do not.
    with pytest.raises(InputError, match="stored bins that divide every resolution"):
        load_dataset(store, ChromoformerConfig(4500, 6000, (300, 150)), CELLS, ["m1"])
    load_dataset(store, ChromoformerConfig(4500, 6000, (300, 150), contacts=0), CELLS, ["m1"])


def test_negative_regions_under_a_logarithm_are_refused(region_store):
    store = region_store(-1, c1=contacts_of("c1"), c2=contacts_of("c2"))
    # The others have no logarithm.
    refused = negative_in(load_dataset(store, MODEL, CELLS, list(TRANSFORMS)))
    assert refused == ["regions of c1-m1", "regions of c2-m1"]
    data = load_dataset(store, MODEL, CELLS, list(TRANSFORMS), InputConfig("log1p"))
    assert len(negative_in(data)) == 6


def test_arrays_have_the_shapes_of_the_stores_largest_cell(region_store):
    """Whichever cells are chosen, so that one program serves all."""
    store = region_store(c1=contacts_of("c1"), c2=contacts_of("c2").head(9))
    assert store.regions("c1").bins > store.regions("c2").bins

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    both = load_dataset(store, MODEL, CELLS, list(TRANSFORMS))
    shapes_of_track, shapes_of_cell = shapes(both.track("c1", "m1")), shapes(both.regions("c1"))
    lengths = [part.shape for part in both.track("c1", "m1").promoter]
    assert lengths == [(12, length) for length in MODEL.positions]
    for cell in CELLS:
        for data in (both, load_dataset(store, MODEL, [cell], list(TRANSFORMS))):
            assert shapes(data.regions(cell)) == shapes_of_cell
            for assay in TRANSFORMS:
                assert shapes(data.track(cell, assay)) == shapes_of_track
                chosen = data.track(cell, assay), both.track(cell, assay)
                jax.tree.map(np.testing.assert_array_equal, *chosen)
    # What fills up the smaller cell's arrays is not a region.
    bins, region = both.regions("c2").bins, both.regions("c2").region
    assert all(not part[len(store.regions("c2").table) :].any() for part in bins)
    assert region.max() < len(store.regions("c2").table)
