"""Genes that a model may know from others: what a table names, what the signal shows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.gene_groups import read_groups, signal_copies
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.store.toy import GENES, MANIFEST

CHROM = np.repeat(["chr1", "chr2"], 350)
TABLE = GENES.assign(
    chrom=CHROM, strand=np.tile(["+", "-"], 350), name=GENES["gene_id"].str.upper()
)


@pytest.fixture
def store_of(tmp_path):
    """`store_of(signal)`: a store whose tracks hold these rows `[T G W]`."""

    def store_of(signal):
        manifest = dataclasses.replace(
            MANIFEST, chrom_sizes={"chr1": 1_000_000, "chr2": 1_000_000},
            chromosomes=["chr1", "chr2"],
        )  # fmt: skip
        store = WindowStore.create(tmp_path / "s.zarr", manifest, TABLE, np.ones((2, 700)))
        for (cell, assay), rows in zip(manifest.tracks, signal, strict=True):
            store.write_slab(cell, assay, rows.astype(np.float32), np.ones(700), [])
        return store

    return store_of


def test_copies_are_found_on_other_chromosomes_and_strands(store_of):
    rng = np.random.default_rng(0)
    signal = rng.gamma(1, 5, (3, 700, 40))
    signal[:, 400] = signal[:, 10]  # the same strand
    signal[:, 401] = signal[:, 12, ::-1] * 3  # the other one, and deeper
    signal[:, 402] = signal[:, 10] * rng.normal(1, 0.02, (3, 40))  # a third copy, with noise
    signal[:, 20] = signal[:, 22]  # of one chromosome, whose genes share every fold
    signal[2, 500] = signal[2, 30]  # alike in one track of three
    found = signal_copies(store_of(signal)).set_index("gene")
    assert found["group"].to_dict() == {
        "g10": "copies 1", "g12": "copies 2", "g400": "copies 1", "g401": "copies 2",
        "g402": "copies 1",
    }  # fmt: skip
    assert found["nearest"].to_dict() == {"g10": "g400", "g12": "g401", "g400": "g10",
                                          "g401": "g12", "g402": "g10"}  # fmt: skip
    assert found["r"].min() > 0.97
    assert found.loc[["g10", "g400"], "r"].to_numpy() == pytest.approx(1, abs=1e-6)


def test_rows_that_say_little_are_no_copies(store_of):
    rng = np.random.default_rng(0)
    signal = rng.gamma(1, 5, (3, 700, 40))
    signal[:, :300] = 0  # silent
    signal[:, 300:500] = 0
    signal[0, np.arange(300, 500), rng.integers(0, 40, 200)] = 1  # a single read each
    assert signal_copies(store_of(signal)).empty


def test_smooth_tracks_have_no_copies(store_of):
    rng = np.random.default_rng(0)
    bins = np.arange(40)
    peak = np.exp(
        -((bins - rng.normal(20, 2, (3, 700, 1))) ** 2) / rng.uniform(20, 90, (3, 700, 1))
    )
    assert signal_copies(store_of(100 * peak + rng.gamma(1, 1, peak.shape))).empty


def test_a_table_of_groups(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("gene,group,note\ng1,a,x\nG2,a,\ng1,b,\nunknown,b,\ng1,a,again\n")
    assert read_groups(path, TABLE).to_numpy().tolist() == [["g1", "a"], ["g2", "a"], ["g1", "b"]]
    excels = "gene\tgroup\ng1\ta\n", "\ufeffgene;group;\r\ng1;a;\r\n", "gene,group\ng1,a,,\n"
    for text in (*excels, "gene,group,x\ng1,a,\u2028\x0b\n"):
        path.write_text(text)
        assert read_groups(path, TABLE).to_numpy().tolist() == [["g1", "a"]]
    versioned = pd.DataFrame({"gene_id": ["ENSG00000000001"], "name": ["A"]})
    path.write_text("gene,group\nENSG00000000001.7,1\n")
    assert read_groups(path, versioned).to_numpy().tolist() == [["ENSG00000000001", "1"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [("gene,family\ng1,a\n", "without group"), ("gene,group\ng1,\ng2,b\n", "1 rows without.*row 2"),
     ("gene,group\ng1,a\ng2,a,x\n", "line 3: more fields"),
     ('gene,group\ng1,"a\ng2,a\ng3,"a\n', "line 2: a quotation mark"),
     ("gene,group\nx,a\n", "none of its 1 genes"), (None, "no readable table of gene groups")],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, text, words):
    path = tmp_path / "groups.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_groups(path, TABLE)
