import dataclasses
import gzip
import hashlib
import pathlib
import subprocess

import numpy as np
import pandas as pd
import pytest

from data_prep import import_window_counts
from data_prep.import_window_counts import ImportConfig, import_store, read_counts
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer

GENES = [("ENSG01", "A", "chr1", 50_000, "+"), ("ENSG02", "B_C", "chr2", 60_000, "-"),
         ("ENSG03", "", "chr3", 70_000, "+")]  # fmt: skip


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for cell in ("E003", "E123"):
        for part, genes in (("train", GENES[:2]), ("valid", GENES[2:])):
            lines = [
                f"{gene}_{symbol}_{b},{','.join(map(str, rng.integers(0, 9, 2)))}"
                for gene, symbol, *_ in genes
                for b in range(1, 5)
            ]
            (tmp_path / f"{cell}.{part}.csv").write_text("\n".join(lines) + "\n")
    table = pd.DataFrame(GENES, columns=["gene_id", "name", "chrom", "tss", "strand"])
    table.to_csv(tmp_path / "genes.csv", index=False)
    (tmp_path / "rpkm.csv").write_text(
        "gene_id,E003,E123\n" + "".join(f"{g[0]},{i}.5,{i + 2}\n" for i, g in enumerate(GENES))
    )
    counts = [str(tmp_path / f"{c}.{p}.csv") for c in ("E003", "E123") for p in ("train", "valid")]
    return ImportConfig(
        counts=tuple(counts),
        expression=str(tmp_path / "rpkm.csv"),
        genes=str(tmp_path / "genes.csv"),
        store=str(tmp_path / "counts.zarr"),
        assays=("K4", "K27"),
    )


def test_counts_become_windows_in_genomic_order(config):
    store = import_store(config)
    assert store.manifest.cells == ["E003", "E123"]
    assert store.manifest.window.window_bp == 400
    assert set(store.manifest.units.values()) == {"counts"}
    assert store.genes.gene_id.tolist() == ["ENSG01", "ENSG02", "ENSG03"]
    lines = pathlib.Path(config.counts[2]).read_text().splitlines()
    expected = [int(line.split(",")[2]) for line in lines[4:8]]  # E123, the second gene, K27
    assert store.read_signal(["E123"], ["K27"])[0, 0, 1].tolist() == expected
    assert store.read_expression(["E123"])[0].tolist() == [2, 3, 4]
    assert store.verify() == []
    again = import_store(config)
    assert again.checksum() == store.checksum()


def test_one_writer_and_the_same_expression(config):
    with only_writer(config.store), pytest.raises(InputError, match="one writer at a time"):
        import_store(config)
    assert not pathlib.Path(config.store).exists()
    import_store(config)
    table = pathlib.Path(config.expression)
    table.write_text(table.read_text().replace("1.5", "1.6"))
    with pytest.raises(InputError, match="other expression than"):
        import_store(config)


def test_counts_that_change_are_others_also_while_they_are_read(config, monkeypatch):
    path = pathlib.Path(config.counts[0])
    before = path.read_text()

    def changed(name, *given):
        found = read_counts(name, *given)
        path.write_text(before.replace("_1,", "_1,9", 1))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(import_window_counts, "read_counts", changed)
        store = import_store(config)
    (source, _) = store.slab_record("E003", "K4")["sources"]
    assert source["sha256"] == hashlib.sha256(before.encode()).hexdigest()
    with pytest.raises(InputError, match="sha256 of genes, expression and counts"):
        import_store(config)


def test_genes_that_some_lack_are_counted(config):
    path = config.counts[3]
    lines = pathlib.Path(path).read_text().splitlines()
    pathlib.Path(path).write_text("\n".join(line.replace("ENSG03", "ENSG77") for line in lines))
    store = import_store(config)
    assert len(store.genes) == 2
    assert store.manifest.left_out["not in every cell"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:1], lines[1] + ",7", *lines[2:]], "cannot be read"),
        (lambda lines: [line.rsplit(",", 1)[0] for line in lines], "1 counts a line"),
        (lambda lines: lines[:2] + lines[3:], "out of order"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "out of order"),
        (lambda lines: lines + lines[:4], "genes twice"),
        (lambda lines: ["nobin,1,2", *lines[1:]], "without gene and bin"),
        (lambda lines: [lines[0].rsplit(",", 1)[0] + ",-1", *lines[1:]], "negative or no number"),
        (lambda lines: [lines[0].rsplit(",", 1)[0] + ",x", *lines[1:]], "negative or no number"),
    ],
)
def test_bad_files_are_refused(config, change, words):
    path = config.counts[0]
    lines = pathlib.Path(path).read_text().splitlines()
    pathlib.Path(path).write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(InputError, match=words):
        read_counts(path, 2)
    with pytest.raises(InputError):
        import_store(config)


def test_a_damaged_gzip_is_named(config, tmp_path):
    packed = gzip.compress(pathlib.Path(config.counts[0]).read_bytes() * 9)
    path = tmp_path / "E003.csv.gz"
    for damaged in (packed[:-20], packed[:12] + b"\xff" * 30 + packed[42:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="a damaged gzip file"):
            read_counts(str(path), 2)


def test_problems_of_all_files_come_together(config):
    pathlib.Path(config.counts[0]).write_text("nobin,1,2\n")
    missing = dataclasses.replace(config, counts=(*config.counts, "E129.none.csv"))
    with pytest.raises(InputError) as caught:
        import_store(missing)
    text = str(caught.value)
    assert "without gene and bin" in text
    assert "E129.none.csv" in text


def test_a_gene_in_two_files_of_a_cell_is_refused(config):
    with pytest.raises(InputError, match="genes in several files"):
        import_store(dataclasses.replace(config, counts=(*config.counts, config.counts[0])))


def test_real_counts(shared_data, tmp_path):
    """Known numbers of the shared excerpts: order of bins, orientation, expression."""
    folder = shared_data / "window_counts"
    store = import_store(
        ImportConfig(
            counts=tuple(str(folder / f"{c}.{p}.csv.gz") for c in ("E003", "E123")
                         for p in ("train", "valid")),
            expression=str(shared_data / "expression" / "57epigenomes.RPKM.pc.gz"),
            genes=str(shared_data / "annotation" / "gencode_v10_genes.gtf.gz"),
            store=str(tmp_path / "counts.zarr"),
        )
    )  # fmt: skip
    assert len(store.genes) == 400
    assert store.manifest.window.bins == 200
    row = store.genes.gene_id.tolist().index("ENSG00000130749")
    first = store.read_signal(["E003"], ["H3K4me1"])[0, 0, row, :2].tolist()
    assert first == [2, 3]  # the file's first two lines
    # H3K36me3 lies downstream of the TSS: right on plus, left on minus, in genomic order.
    signal = store.read_signal(["E003"], ["H3K36me3"])[0, 0]
    right = signal[:, 100:].sum(1) > signal[:, :100].sum(1)
    plus = (store.genes.strand == "+").to_numpy()
    assert right[plus].mean() > 0.6
    assert right[~plus].mean() < 0.4


def test_deepchromes_layout_is_written_anew_as_the_message_says(tmp_path):
    """Their columns: gene, bin, H3K27me3, H3K36me3, H3K4me1, H3K4me3, H3K9me3, label."""
    (tmp_path / "train.csv").write_text("000003,1,4,3,0,8,5,1\n000003,2,1,2,6,7,9,1\n")
    with pytest.raises(InputError) as caught:
        read_counts(str(tmp_path / "train.csv"), 5)
    command = caught.value.problems[0].remedy.partition(": ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    ids, counts = read_counts(str(tmp_path / "CELL.csv"), 5)
    assert ids == ["ENSG00000000003"]
    assert counts.tolist() == [[[0, 8, 5, 4, 3], [6, 7, 9, 1, 2]]]  # in the order of MARKS
