"""Excerpts of the real Roadmap, from bigWigs, matrix and GTF to a ranking."""

import dataclasses
import functools
import io
import math
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_prep.checks.build_inputs import BuildConfig
from data_prep.import_chromoformer import ImportConfig, import_store
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig
from experiments.report import write_report

# The order of marks in demo_npy, as its README gives it.
NPY_MARKS = ["H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3", "H3K27ac", "H3K9ac"]
MODEL = ChromoformerConfig(assays=7)
NARROW = 9_000  # bp of a promoter window that is padded, and no whole number of bins of 2 kb


@pytest.fixture(scope="module")
def real_config(shared_data, tmp_path_factory):
    """`real_config(store, **changes)`: the seven E003 tracks and the full RPKM matrix."""
    sheet = tmp_path_factory.mktemp("sheet") / "tracks.csv"
    files = sorted((shared_data / "E003_bigwig").glob("*.bigWig"))
    rows = [("E003", file.stem.removeprefix("E003-"), file, "depth", "histone") for file in files]
    pd.DataFrame(rows, columns=["cell", "assay", "path", "unit", "group"]).to_csv(
        sheet, index=False
    )

    def config(store, **changes):
        fields = {
            "tracks": str(sheet),
            "expression": str(shared_data / "expression" / "57epigenomes.RPKM.pc.gz"),
            "genes": str(shared_data / "annotation" / "gencode_v10_genes.gtf.gz"),
            "store": str(store),
        }
        return BuildConfig(**{**fields, **changes})

    return config


@pytest.fixture(scope="module")
def demo_store(build, real_config, shared_data, tmp_path_factory):
    """The 100 genes of Chromoformer's demo, 40 kb at 100 bp, from bigWigs and contacts."""
    return build(
        real_config(
            tmp_path_factory.mktemp("demo") / "s",
            genes=str(shared_data / "chromoformer_demo" / "demo_meta.csv"),
            interactions=str(shared_data / "interactions" / "E003_H1_promoter_capture.bedpe"),
            chromosomes="all",
            window_bp=40_000,
            bin_bp=100,
        )
    )


@pytest.fixture(scope="module")
def prepared_store(shared_data, tmp_path_factory):
    """The same from Chromoformer's own arrays."""
    demo = shared_data / "chromoformer_demo"
    folder = tmp_path_factory.mktemp("prepared") / "s"
    arrays = demo / "demo_npy.tar.gz"
    return import_store(ImportConfig(str(demo / "demo_meta.csv"), str(arrays), str(folder)))


@pytest.fixture(scope="module")
def published(shared_data):
    """Means of Chromoformer's arrays, in float64, by name, bp of its middle taken, and bp a bin."""
    means = {}
    with tarfile.open(shared_data / "chromoformer_demo" / "demo_npy.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                content = io.BytesIO(archive.extractfile(member).read())
                bases = np.load(content, allow_pickle=False).astype(np.float64)
                name = member.name.removeprefix("demo_data/").removesuffix(".npy")
                whole = bases.shape[1]
                for width in (40_000, NARROW) if whole == 40_000 else (whole,):
                    cut = (whole - width) // 2
                    for bin_bp in MODEL.resolutions:
                        middle = bases[:, cut : whole - cut]
                        means[name, width, bin_bp] = binned(middle, bin_bp)
    return means


def binned(bases, bin_bp):
    """Means of single bases, the last bin over those that remain."""
    starts = np.arange(0, bases.shape[1], bin_bp)
    sums = np.add.reduceat(bases, starts, axis=1)
    return sums / np.diff([*starts, bases.shape[1]])


def test_windows_equal_the_published_arrays(demo_store, published, shared_data):
    """All 100 genes and 7 marks of Chromoformer's demo: 40 kb at 100 bp."""
    store = demo_store
    assert len(store.genes) == 100
    signal = store.read_signal(["E003"], NPY_MARKS)[0]
    for i, name in enumerate(windows(store.genes)):
        np.testing.assert_allclose(signal[:, i], published[name, 40_000, 100], rtol=1e-6)
    expression = store.read_expression(["E003"])[0]
    meta = pd.read_csv(shared_data / "chromoformer_demo" / "demo_meta.csv").set_index("gene_id")
    np.testing.assert_allclose(expression, meta.expression[store.genes.gene_id], rtol=1e-6)
    with xr.open_zarr(store.path) as opened:
        np.testing.assert_array_equal(opened.signal.sel(cell="E003", assay=NPY_MARKS)[:, 5],
                                      signal[:, 5])  # fmt: skip


def windows(genes):
    """Names of the promoters' arrays."""
    places = zip(genes.chrom, genes.tss, strict=True)
    return [f"{chrom}:{tss - 20_000}-{tss + 20_000}" for chrom, tss in places]


def padded(values, length, flip=False):
    """Marks by bins, in the middle of `length` positions, and which are theirs."""
    missing = length - values.shape[1]
    sides = math.ceil(missing / 2), math.floor(missing / 2)
    values = np.pad(values, ((0, 0), sides))
    own = np.pad(np.ones(length - missing, bool), sides)
    return (values[:, ::-1], own[::-1]) if flip else (values, own)


def reference(published, meta, genes, resolution, window_bp):
    """What Chromoformer's loader gives: promoter, its mask, regions, their masks, scores."""
    length = 40_000 // resolution
    region, there = np.zeros((len(genes), 8, 7, length)), np.zeros((len(genes), 8, length), bool)
    promoter, own = region[:, 0].copy(), there[:, 0].copy()
    score = np.zeros((len(genes), 8))
    rows = meta.set_index("gene_id").loc[genes.gene_id]
    for g, (name, row) in enumerate(zip(windows(genes), rows.itertuples(), strict=True)):
        means = published[name, window_bp, resolution]
        promoter[g], own[g] = padded(np.log(means + 1), length, row.strand == "-")
        neighbors = [] if pd.isna(row.neighbors) else row.neighbors.split(";")
        scores = [] if pd.isna(row.scores) else row.scores.split(";")
        for n, (place, value) in enumerate(zip(neighbors, scores, strict=True)):
            start, end = map(int, place.split(":")[1].split("-"))
            means = published[place, end - start, resolution]
            region[g, n], there[g, n] = padded(np.log(means + 1), length)
            score[g, n] = float(value)
    return promoter, own, region, there, score


@functools.partial(jax.jit, static_argnums=2)
def batches(signal, order, plan):
    """Every batch of all genes, stacked, with its genes and which places are taken."""
    every = signal.cell.minus.size
    count = jnp.int32(every)

    def one(step):
        genes, mask = plan.batch(step, order, count)
        return genes, mask, signal.gather(genes, plan)

    return jax.lax.map(one, jnp.arange(-(-every // plan.size)))


def as_given(signal, plan):
    """The inputs of all genes as the model gets them, in the form of `reference`, a resolution."""
    every = jnp.ones(signal.cell.minus.size, bool)
    order = plan.order(every, jax.random.key(0), signal.n_contacts())
    genes, mask, batch = jax.tree.map(np.asarray, batches(signal, order, plan))
    assert sorted(genes[mask]) == list(range(len(every)))
    layout = TokenLayout.of(plan.slots)
    taken = mask[:, layout.gene]
    rows = genes[:, layout.gene][taken], np.broadcast_to(layout.slot, taken.shape)[taken]
    for i, length in enumerate(MODEL.positions):
        region, there = np.zeros((100, 8, 7, length)), np.zeros((100, 8, length), bool)
        promoter, own, score = region[:, 0].copy(), there[:, 0].copy(), np.zeros((100, 8))
        promoter[genes[mask]] = batch.promoter[i][mask]
        own[genes[mask]] = batch.promoter_valid[i][mask]
        region[rows] = batch.region[i][taken]
        there[rows] = batch.region_valid[i][taken]
        score[genes[mask], : batch.score.shape[-1]] = batch.score[mask]
        yield promoter, own, region, there, score


@pytest.mark.parametrize("window_bp", [40_000, NARROW])
@pytest.mark.parametrize("source", ["prepared_store", "demo_store"])
def test_inputs_equal_those_of_the_published_loader(
    source, window_bp, request, published, shared_data
):
    """100 real genes, three resolutions: features, padding, flips, masks and scores."""
    store = request.getfixturevalue(source)
    meta = pd.read_csv(shared_data / "chromoformer_demo" / "demo_meta.csv")
    model = dataclasses.replace(MODEL, window_bp=window_bp)
    signal = load_dataset(store, model, ["E003"], NPY_MARKS).signal("E003", NPY_MARKS)
    expected = [
        reference(published, meta, store.genes, resolution, window_bp)
        for resolution in model.resolutions
    ]
    contacts = np.asarray(signal.n_contacts())
    assert contacts.sum() == 580
    for balanced, slots in ((False, 200), (True, 149)):
        plan = BatchPlan.of(25, 8, [contacts], balanced=balanced)
        assert sum(plan.slots) == slots
        for found, wanted in zip(as_given(signal, plan), expected, strict=True):
            for values, reference_values in zip(found, wanted, strict=True):
                np.testing.assert_allclose(values, reference_values, rtol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("window_bp", [40_000, NARROW])
def test_inputs_equal_those_of_the_real_loader(window_bp, prepared_store, shared_data, tmp_path):
    pytest.importorskip("torch")
    loader = pytest.importorskip("chromoformer.data")
    demo = shared_data / "chromoformer_demo"
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    genes = list(prepared_store.genes.gene_id)
    real = loader.ChromoformerDataset(
        demo / "demo_meta.csv", tmp_path / "demo_data", genes, w_prom=window_bp
    )
    model = dataclasses.replace(MODEL, window_bp=window_bp)
    signal = load_dataset(prepared_store, model, ["E003"], NPY_MARKS).signal("E003", NPY_MARKS)
    plan = BatchPlan.of(25, 8, [np.asarray(signal.n_contacts())], balanced=True)
    ours = dict(zip(model.resolutions, as_given(signal, plan), strict=True))
    for g in range(len(genes)):
        item = real[g]
        for resolution, (promoter, own, region, there, score) in ours.items():
            given = {
                name: np.asarray(item[name][resolution])
                for name in ("promoter_feats", "promoter_pad_masks", "pcre_feats",
                             "pcre_pad_masks", "interaction_masks")
            }  # fmt: skip
            np.testing.assert_allclose(promoter[g].T, given["promoter_feats"][0], atol=1e-6)
            np.testing.assert_allclose(region[g].swapaxes(1, 2), given["pcre_feats"], atol=1e-6)
            both = own[g][:, None] & own[g]
            np.testing.assert_array_equal(~both, given["promoter_pad_masks"][0, 0])
            both = own[g][None, :, None] & there[g][:, None, :]
            np.testing.assert_array_equal(~both, given["pcre_pad_masks"][:, 0])
            token = np.pad(there[g].any(1), (1, 0), constant_values=True)
            np.testing.assert_array_equal(~(token[:, None] & token), given["interaction_masks"][0])
            frequency = np.zeros((9, 9))
            frequency[0, 1:] = score[g]
            np.testing.assert_allclose(frequency, item["interaction_freq"], rtol=1e-7)


def test_from_real_files_to_a_ranking_that_says_how_little_it_proves(build, real_config, tmp_path):
    store = build(real_config(tmp_path / "s", min_covered=0.5))
    assert len(store.genes) == 193
    assert sorted(set(store.genes.chrom)) == ["chr1", "chr14", "chr5", "chr6", "chr8"]
    assert store.manifest.left_out["data on less than 0.5 of the window"] == 18_722
    request = TrainRequest(
        store=str(store.path),
        model="promoter_cnn",
        model_options={"width": 0.1},
        cells=["all"],
        assays=["H3K4me3", "H3K9me3"],
        folds=["all"],
        cv="chromosomes_5",
        blind=[],
        split_seed=0,
        target="log2",
        seeds=1,
        input_config=InputConfig(),
        train_config=TrainConfig(epochs=25, batch_size=16),
    )
    train(request, tmp_path / "run")
    ranked = evaluate(tmp_path / "run")
    scores = ranked[ranked.cell == "all"].set_index("assay")
    # An active promoter mark predicts, heterochromatin hardly; nothing finer holds on 193 genes.
    assert scores.pearson["H3K4me3"] > 0.3
    assert scores.pearson["H3K4me3"] > scores.pearson["H3K9me3"]
    assert (scores.n_genes == 193).all()
    page = write_report(tmp_path / "run").read_text()
    assert "Few data: " in page
    assert "193 held-out genes on 5 chromosomes" in page
