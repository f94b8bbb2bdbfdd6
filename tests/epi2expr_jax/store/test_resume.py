"""A store is gone on with: what is damaged is made again, and version 2 becomes version 3."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.store import resume as resuming
from epi2expr_jax.store.resume import resume
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.store.test_window_store import overwrite
from tests.epi2expr_jax.store.toy import (
    CONTACTS,
    EXPRESSION,
    GENES,
    MANIFEST,
    as_version_2,
    slab,
)

LABELS = np.zeros((2, 700), bool)


@pytest.fixture
def store(tmp_path):
    store = WindowStore.create(
        tmp_path / "s.zarr", MANIFEST, GENES, EXPRESSION, {"c2": CONTACTS}, LABELS
    )
    for i, pair in enumerate(MANIFEST.tracks):
        store.write_slab(*pair, *slab(i))
    return store


@pytest.fixture
def old(store):
    as_version_2(store.path)
    return WindowStore.open(store.path)


def test_nothing_there_is_nothing_to_go_on_with(tmp_path):
    assert resume(tmp_path / "none", MANIFEST) is None


def test_what_is_damaged_is_to_be_made_again(store):
    shard = store.path / "signal/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-9])
    (store.path / "slabs/c2/m2.json").write_text("{")
    found = resume(store.path, store.manifest)
    assert found.missing_slabs() == [("c1", "m1"), ("c2", "m2")]


def test_version_2_reads_and_its_sums_are_checked(old):
    values = old.read_signal(["c2"], ["m1"])[0, 0]
    np.testing.assert_array_equal(values, slab(1)[0])
    assert old.manifest.version == 2
    overwrite(old, "signal", (0, 0, 3, 3), np.float32(7))
    with pytest.raises(InputError, match=r"c1-m1: found values that differ"):
        old.read_signal(["c1"], ["m1"])
    GENES[::-1].to_parquet(old.path / "genes.parquet", index=False)
    with pytest.raises(InputError, match=r"genes\.parquet: found values that differ"):
        WindowStore.open(old.path)


def test_version_2_becomes_version_3_of_the_same_numbers(old, store):
    known = GENES.assign(start=pd.array([5] * 700, "Int64"), end=9, biotype="protein_coding")
    new = resume(old.path, old.manifest, known[::-1])
    assert new.manifest.version == 3
    assert new.checksum() == old.checksum() == store.checksum()
    assert new.verify() == []
    assert new.genes.drop(columns=["start", "end", "biotype"]).equals(GENES)
    assert set(new.genes.biotype) == {"protein_coding"}
    np.testing.assert_array_equal(new.read_region_signal("c2", ["m2"])[0], slab(2)[3])
    assert [path.name for path in new.path.parent.iterdir()] == ["s.zarr"]


def test_a_damaged_slab_of_version_2_is_to_be_made_again(old):
    overwrite(old, "coverage", (1, 0, 3), np.float32(7))
    assert resume(old.path, old.manifest).missing_slabs() == [("c2", "m1")]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["copying", "between the names", "removing"])
def test_killed_while_it_is_brought_up_it_goes_on(old, monkeypatch, moment):
    def tracks(pairs):
        yield pairs[0]
        raise Killed

    def kill(*_):
        raise Killed

    rename = type(old.path).rename

    def once(path, target):
        monkeypatch.setattr(type(path), "rename", kill)
        return rename(path, target)

    if moment == "removing":
        monkeypatch.setattr(resuming.shutil, "rmtree", kill)
    if moment == "between the names":
        monkeypatch.setattr(type(old.path), "rename", once)
    with pytest.raises(Killed):
        resume(old.path, old.manifest, watch=tracks if moment == "copying" else iter)
    monkeypatch.undo()
    new = resume(old.path, old.manifest)
    assert (new.manifest.version, new.missing_slabs()) == (3, [])
    assert new.checksum() == old.checksum()
    assert [path.name for path in new.path.parent.iterdir()] == ["s.zarr"]
