"""Excerpts of the real Roadmap, from bigWigs, matrix and GTF to a ranking."""

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data_prep.build_store import build
from data_prep.inputs import BuildConfig
from epi2expr_jax.dataset import InputConfig
from epi2expr_jax.training import TrainConfig
from experiments.evaluate import evaluate
from experiments.flags import TrainRequest
from experiments.report import write_report
from experiments.train import train

# The order of marks in demo_npy, as its README gives it.
NPY_MARKS = ["H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3", "H3K27ac", "H3K9ac"]


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


def test_windows_equal_the_published_arrays(real_config, shared_data, tmp_path):
    """All 100 genes and 7 marks of Chromoformer's demo: 40 kb at 100 bp."""
    demo = shared_data / "chromoformer_demo"
    store = build(
        real_config(
            tmp_path / "s",
            genes=str(demo / "demo_meta.csv"),
            chromosomes="all",
            window_bp=40_000,
            bin_bp=100,
        )
    )
    assert len(store.genes) == 100
    signal = store.read_signal(["E003"], NPY_MARKS)[0]
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        for i, gene in enumerate(store.genes.itertuples()):
            name = f"demo_data/{gene.chrom}:{gene.tss - 20_000}-{gene.tss + 20_000}.npy"
            content = io.BytesIO(archive.extractfile(name).read())
            bases = np.load(content, allow_pickle=False).astype(np.float64)
            expected = bases.reshape(7, 400, 100).mean(-1)
            np.testing.assert_allclose(signal[:, i], expected, rtol=1e-6)
    expression = store.read_expression(["E003"])[0]
    published = pd.read_csv(demo / "demo_meta.csv").set_index("gene_id").expression
    np.testing.assert_allclose(expression, published[store.genes.gene_id], rtol=1e-6)
    with xr.open_zarr(store.path) as opened:
        np.testing.assert_array_equal(opened.signal.sel(cell="E003", assay=NPY_MARKS)[:, 5],
                                      signal[:, 5])  # fmt: skip


def test_from_real_files_to_a_ranking_that_says_how_little_it_proves(real_config, tmp_path):
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
    train(request, tmp_path / "run", checkpoint_every=25)
    ranked = evaluate(tmp_path / "run")
    scores = ranked[ranked.cell == "all"].set_index("assay")
    # An active promoter mark predicts, heterochromatin hardly; nothing finer holds on 193 genes.
    assert scores.pearson["H3K4me3"] > 0.3
    assert scores.pearson["H3K4me3"] > scores.pearson["H3K9me3"]
    assert (scores.n_genes == 193).all()
    page = write_report(tmp_path / "run").read_text()
    assert "Few data." in page
    assert "193 held-out genes on 5 chromosomes" in page
