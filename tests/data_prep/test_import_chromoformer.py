import io
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest

from data_prep.import_chromoformer import MARKS, ImportConfig, import_store
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer
from epi2expr_jax.store.window_store import WindowStore
from tests.data_prep.contact_texts import write_meta

# Gene, TSS, contacts: b shares one of a's pCREs, c has none, d is in the first cell alone.
GENES = [
    ("b", 60_000, "chr2:500-750;chr1:200-300", "2.5;1.5"),
    ("a", 50_000, "chr1:200-300", "4"),
    ("c", 90_000, "", ""),
    ("d", 95_000, "", ""),
]


def meta_rows(cells=("E1", "E2")):
    return [
        [gene, f"{i}.5", cell, i % 2, "chr1", tss, tss + 1, "+-"[i % 2], neighbors, scores]
        for c, cell in enumerate(cells)
        for i, (gene, tss, neighbors, scores) in enumerate(GENES[: 4 - c])
    ]


def array_names():
    windows = [f"chr1:{tss - 20_000}-{tss + 20_000}" for _, tss, _, _ in GENES]
    return [*windows, "chr2:500-750", "chr1:200-300"]


def bases(cell, name):
    start, end = map(int, name.split(":")[1].split("-"))
    random = np.random.default_rng([start, len(cell), int(cell[1:])])
    return random.integers(0, 50, (2, end - start)).astype(np.float16)


@pytest.fixture
def prepared(tmp_path):
    """Two cells x two marks x three genes, in Chromoformer's layout."""
    write_meta(tmp_path / "meta.csv", meta_rows())
    (tmp_path / "toy.chrom.sizes").write_text("chr1\t200000\nchr2\t1000\n")
    for cell in ("E1", "E2"):
        (tmp_path / cell).mkdir()
        for name in array_names():
            np.save(tmp_path / cell / f"{name}.npy", bases(cell, name))
    return ImportConfig(
        meta=str(tmp_path / "meta.csv"),
        npy_dir=str(tmp_path / "{eid}"),
        store=str(tmp_path / "store.zarr"),
        assays=("m1", "m2"),
        assembly=str(tmp_path / "toy.chrom.sizes"),
    )


def change(config, **changes):
    return ImportConfig(**{**vars(config), **changes})


def problems_of(config):
    with pytest.raises(InputError) as caught:
        import_store(config)
    return [f"{p.where}: {p.found}; {p.expected}" for p in caught.value.problems]


def test_the_published_demo(shared_data, tmp_path):
    """All 100 promoters, 578 pCREs, contacts and labels, from the packed archive."""
    demo = shared_data / "chromoformer_demo"
    command = [sys.executable, "-m", "data_prep.import_chromoformer",
               f"--meta={demo / 'demo_meta.csv'}", f"--npy_dir={demo / 'demo_npy.tar.gz'}",
               f"--store={tmp_path / 'demo.zarr'}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert "7 assays x 100 genes x 400 bins, 578 regions" in done.stdout, done.stderr
    store = WindowStore.open(tmp_path / "demo.zarr")
    meta = pd.read_csv(demo / "demo_meta.csv").set_index("gene_id").loc[store.genes.gene_id]
    signal = store.read_signal(["E003"], list(MARKS))[0]
    regions = store.regions("E003")
    depth = store.read_region_signal("E003", list(MARKS))
    places = {
        f"{gene.chrom}:{gene.tss - 20_000}-{gene.tss + 20_000}": signal[:, i]
        for i, gene in enumerate(store.genes.itertuples())
    }
    names = [f"{row.chrom}:{row.start}-{row.end}" for row in regions.table.itertuples()]
    for name, row in zip(names, regions.table.itertuples(), strict=True):
        places[name] = depth[:, row.first : row.first + row.bins]
    checked = 0
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                content = io.BytesIO(archive.extractfile(member).read())
                raw = np.load(content, allow_pickle=False).astype(np.float32)
                whole = raw.shape[1] // 100
                means = [raw[:, : whole * 100].reshape(7, whole, 100).mean(-1)]
                if raw.shape[1] % 100:
                    means.append(raw[:, whole * 100 :].mean(-1, keepdims=True))
                stored = places.pop(member.name.removeprefix("demo_data/").removesuffix(".npy"))
                np.testing.assert_allclose(stored, np.concatenate(means, 1), rtol=2e-6)
                checked += 1
    assert (checked, places) == (678, {})

    np.testing.assert_array_equal(store.read_labels(["E003"])[0], meta.label == 1)
    np.testing.assert_array_equal(store.read_expression(["E003"])[0], np.float32(meta.expression))
    region, score = regions.by_gene(100, 8)
    for i, gene in enumerate(meta.itertuples()):
        neighbors = [] if pd.isna(gene.neighbors) else gene.neighbors.split(";")
        assert [names[r] for r in region[i] if r >= 0] == neighbors
        scores = [float(text) for text in str(gene.scores).split(";") if neighbors]
        np.testing.assert_array_equal(score[i, : len(scores)], np.float32(scores))
    assert store.manifest.units["H3K9ac"] == "depth"
    assert (store.manifest.blind, store.manifest.given_labels) == ([], True)


def test_several_cells_share_their_common_genes(prepared):
    store = import_store(prepared)
    assert store.genes.gene_id.tolist() == ["a", "b", "c"]
    assert store.manifest.cells == ["E1", "E2"]
    assert store.manifest.left_out == {"not in every cell": 1}
    np.testing.assert_array_equal(store.read_expression(["E2"]), [[1.5, 0.5, 2.5]])
    np.testing.assert_array_equal(store.read_labels(["E2"]), [[True, False, False]])
    for cell in ("E1", "E2"):
        window = bases(cell, "chr1:30000-70000").reshape(2, 400, 100).mean(-1, np.float64)
        np.testing.assert_array_equal(
            store.read_signal([cell], ["m1", "m2"])[0, :, 0], window.astype(np.float32)
        )
        own = [bases(cell, name).astype(float) for name in ("chr1:200-300", "chr2:500-750")]
        parts = [own[0], own[1][:, :100], own[1][:, 100:200], own[1][:, 200:]]
        expected = np.stack([part.mean(1) for part in parts], 1).astype(np.float32)
        np.testing.assert_array_equal(store.read_region_signal(cell, ["m1", "m2"]), expected)
        assert store.regions(cell).by_gene(3, 2)[0].tolist() == [[0, -1], [1, 0], [-1, -1]]
    assert store.verify() == []


def test_finer_bins_and_fewer_contacts(prepared):
    store = import_store(change(prepared, bin_bp=25, max_contacts=1))
    window = bases("E1", "chr1:30000-70000").reshape(2, 1600, 25).mean(-1, np.float64)
    np.testing.assert_array_equal(store.read_signal(["E1"], ["m2"])[0, 0, 0], np.float32(window[1]))
    assert store.regions("E1").by_gene(3, 2)[0].tolist() == [[0, -1], [1, -1], [-1, -1]]


def test_labels_alone_of_chromosomes_without_chr(prepared, tmp_path):
    whole = import_store(prepared)
    meta = pd.read_csv(prepared.meta).drop(columns=["expression", "neighbors", "scores"])
    meta.assign(chrom="1").to_csv(tmp_path / "bare.csv", index=False)
    for cell in ("E1", "E2"):
        for file in (tmp_path / cell).iterdir():
            file.rename(file.with_name(file.name.removeprefix("chr")))
    asked = change(prepared, meta=str(tmp_path / "bare.csv"), store=str(tmp_path / "bare.zarr"))
    store = import_store(asked)
    assert store.manifest.expression_unit == ""
    assert store.manifest.contacts == {}
    cells = store.manifest.cells
    assert (store.read_labels(cells) == whole.read_labels(cells)).all()
    assert (store.read_signal(cells, ["m2"]) == whole.read_signal(cells, ["m2"])).all()
    assert import_store(asked).checksum() == store.checksum()


def test_archive_and_folder_give_the_same_store(prepared, tmp_path):
    folder = import_store(prepared)
    for cell in ("E1", "E2"):
        with tarfile.open(tmp_path / f"{cell}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / cell, arcname="demo_data")
    packed = import_store(
        change(prepared, npy_dir=str(tmp_path / "{eid}.tar.gz"), store=str(tmp_path / "packed"))
    )
    assert packed.checksum() == folder.checksum()
    record, other = packed.slab_record("E1", "m1"), folder.slab_record("E1", "m1")
    assert record["sources"][0]["sha256"] == other["sources"][0]["sha256"]


def test_one_writer_and_the_same_arrays(prepared, tmp_path):
    with only_writer(prepared.store):
        assert "one writer at a time" in problems_of(prepared)[0]
    checksum = import_store(prepared).checksum()
    array = tmp_path / "E1" / f"{array_names()[0]}.npy"
    content = array.read_bytes()
    array.write_bytes(content)  # another time, the same array
    assert import_store(prepared).checksum() == checksum
    array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (problem,) = problems_of(prepared)
    assert f"slabs of other arrays than are at {tmp_path}/E1 now" in problem


def test_bad_arrays_of_all_cells_are_named_and_nothing_is_written(prepared, tmp_path):
    first, *_, last = array_names()
    (tmp_path / "E1" / f"{first}.npy").unlink()
    cut = tmp_path / "E2" / f"{last}.npy"
    cut.write_bytes(cut.read_bytes()[:-1])
    missing, broken = problems_of(prepared)
    assert f"E1, 1 of 5 files: no such file: {first}.npy" in missing
    assert f"E2, 1 of 5 files: no whole .npy array: {last}.npy" in broken
    assert not (tmp_path / "store.zarr").exists()


def test_bad_lines_of_the_metadata_are_named(prepared, tmp_path):
    write_meta(tmp_path / "meta.csv", [["g", -1, *meta_rows()[0][2:]], *meta_rows()])
    (problem,) = problems_of(prepared)
    assert "meta.csv, line 2: expression '-1'" in problem


def test_bad_requests_are_named_at_once(prepared, tmp_path):
    config = change(prepared, npy_dir=str(tmp_path / "E1"), assays=("m", "m", "a/b"), bin_bp=30)
    problems = " ".join(problems_of(config))
    for found in ("--npy_dir: one place for the arrays of E1, E2", "'a/b', 'm'", "bin_bp=30"):
        assert found in problems


def test_a_broken_import_is_no_store_until_run_again(prepared, tmp_path, monkeypatch):
    whole = import_store(change(prepared, store=str(tmp_path / "whole")))
    write, written = WindowStore.write_slab, []

    def write_three(self, cell, assay, *values):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append((cell, assay))
        write(self, cell, assay, *values)

    with monkeypatch.context() as patch:
        patch.setattr(WindowStore, "write_slab", write_three)
        with pytest.raises(KeyboardInterrupt):
            import_store(prepared)
    with pytest.raises(InputError, match=r"1 of 4 tracks not built yet \(E2-m2\)"):
        WindowStore.open(prepared.store)
    shutil.move(tmp_path / "E1" / "chr1:200-300.npy", tmp_path / "kept")
    assert "E1: slabs of other arrays" in problems_of(prepared)[0]
    shutil.move(tmp_path / "kept", tmp_path / "E1" / "chr1:200-300.npy")
    store = import_store(prepared)
    assert store.checksum() == whole.checksum()
    assert store.verify() == []
    with pytest.raises(InputError, match="bin_bp"):
        import_store(change(prepared, bin_bp=25))
