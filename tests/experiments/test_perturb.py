"""The program that alters marks: on a trained run, what it writes, draws and refuses."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training import TrainConfig
from experiments.flags import TrainRequest
from experiments.named_edits import named_places
from experiments.perturb import format_means, perturb
from experiments.train import train

ASSAY = "H3K36me3"


@pytest.fixture(scope="module")
def run_dir(distal_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(
        TrainRequest(
            store=str(distal_store.path),
            model="promoter_cnn",
            model_options={"width": 0.02, "window_bp": 40_000},
            cells=["E003"],
            assays=[ASSAY],
            cv="chromosomes_3",
            train_config=TrainConfig(epochs=1, batch_size=32),
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def distal(run_dir):
    return perturb(run_dir, ASSAY, ["distal"], [0.0, 0.5, 1.0])


def test_tables_say_what_the_library_says(run_dir, distal, distal_store):
    table = pd.read_parquet(run_dir / "perturb" / "effects.parquet")
    assert len(table) == len(distal_store.genes) * 16 * 3
    assert (table.models == 1).all()
    assert table.low.isna().all()
    assert (table.effect[table.factor == 1] == 0).all()
    for place, part in table.groupby("place"):
        of_factor = distal[distal.place == place].set_index("factor")
        for factor, genes in part.groupby("factor"):
            assert of_factor.effect[factor] == pytest.approx(genes.effect.mean(), abs=1e-7)
            assert of_factor.genes[factor] == len(distal_store.genes)
    moved = distal[distal.factor == 0]
    assert (moved.low < moved.effect).all()
    assert (moved.effect < moved.high).all()
    assert moved.distance.tolist() == sorted(moved.distance)
    assert "220 genes" in format_means(distal)
    for name in ("dose.png", "dose.svg", "distance.png", "dose_distance.csv"):
        assert (run_dir / "perturb" / name).stat().st_size > 0


def test_regions_for_enrichment(run_dir, distal, distal_store):
    regions = pd.read_parquet(run_dir / "perturb" / "regions.parquet")
    assert not regions.duplicated(["gene_id", "start"]).any()
    assert (regions.end - regions.start == 2000).all()
    row = regions[regions.distance > 3000].iloc[5]
    genes = distal_store.genes.set_index("gene_id")
    gene, index = genes.loc[row.gene_id], genes.index.get_loc(row.gene_id)
    offset = (row.start + row.end) / 2 - gene.tss
    assert row.distance == (-offset if gene.strand == "-" else offset)
    signal = distal_store.read_signal(["E003"], [ASSAY])[0, 0, index]
    first = (row.start - gene.tss + 20_000) // 100
    assert row.signal == pytest.approx(signal[first : first + 20].mean(), rel=1e-5)
    table = pd.read_parquet(run_dir / "perturb" / "effects.parquet")
    own = table[(table.gene == row.gene_id) & (table.distance == row.distance)]
    assert row.effect == own.effect[own.factor == 0].item()


def test_bed_files_intervals_and_chosen_genes(run_dir, distal_store, tmp_path):
    gene = distal_store.genes.iloc[7]
    bed = tmp_path / "peaks.bed"
    bed.write_text(
        f"track name=x\n{gene.chrom}\t{gene.tss - 500}\t{gene.tss + 500}\tpeak7\nchrUn\t1\t9\tx\n"
    )
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{gene.gene_id}\n")
    one = perturb(run_dir, ASSAY, [str(bed)], [0.0], genes=str(ids), out=tmp_path / "one")
    assert one.place.tolist() == ["peak7"]
    assert one.genes.tolist() == [1]
    where = f"{gene.chrom}:{gene.tss - 500}-{gene.tss + 500}"
    same = perturb(run_dir, ASSAY, [where], [0.0], genes=gene.gene_id, out=tmp_path / "two")
    assert same.effect.tolist() == one.effect.tolist()
    chosen = {}
    for genes in ("expressed", "silent"):
        found = perturb(run_dir, ASSAY, ["promoter"], [0.0], genes=genes, out=tmp_path / genes)
        chosen[genes] = set(pd.read_parquet(tmp_path / genes / "effects.parquet").gene)
        assert found.genes.tolist() == [len(chosen[genes])]
    assert not chosen["expressed"] & chosen["silent"]
    rpkm = distal_store.read_expression(["E003"])[0]
    expressed = distal_store.genes.gene_id[rpkm >= np.median(rpkm)]
    assert chosen["expressed"] == set(expressed)


def test_what_makes_no_sense_is_refused(run_dir, distal_store, tmp_path):
    bed = tmp_path / "other.bed"
    bed.write_text("1_alt\t5\t9\n")
    for message, assay, where, factors in (
        ("promoter", ASSAY, ["promotr"], [0.0]),
        ("no model was trained on", "H3K4me9", ["promoter"], [0.0]),
        ("a finite number, 0 or more", ASSAY, ["promoter"], [-1.0, float("nan")]),
        ("no region", ASSAY, [str(bed)], [0.0]),
        ("one kind", ASSAY, ["promoter", "original_distal"], [0.0]),
        ("reach none of the genes", ASSAY, ["chr1:1-2"], [0.0]),
    ):
        with pytest.raises(InputError, match=message):
            perturb(run_dir, assay, where, factors, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    bed.write_text("chr1\tx\t9\n")
    with pytest.raises(InputError, match="chrom, start < end"):
        perturb(run_dir, ASSAY, [str(bed)], [0.0])


def test_a_window_that_is_all_promoter_has_no_distal_bin(distal_store):
    with pytest.raises(InputError, match="all of it promoter"):
        named_places(["distal"], distal_store, 6000)
    assert len(named_places(["distal", "promoter"], distal_store, 40_000)[0]) == 17
