"""A training store is found where it was, or where it lies as seen from the run."""

import dataclasses
import shutil

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.predict.training_store import find_store, open_own, places
from epi2expr_jax.store.manifest import MANIFEST, write_manifest


@pytest.fixture
def store(tmp_path):
    (tmp_path / "old" / "a.zarr").mkdir(parents=True)
    (tmp_path / "old" / "a.zarr" / MANIFEST).touch()
    (tmp_path / "old" / "run").mkdir()
    return tmp_path / "old" / "a.zarr"


def test_it_is_looked_for_in_both_places(store, tmp_path, monkeypatch):
    monkeypatch.chdir(store.parent)
    card = {"store": places("a.zarr", "run")}
    monkeypatch.chdir("/")
    assert find_store(tmp_path / "elsewhere", card) == store
    store.parent.rename(tmp_path / "new")
    assert find_store(tmp_path / "new" / "run", card) == tmp_path / "new" / "a.zarr"
    assert find_store(tmp_path, card, "/given.zarr").name == "given.zarr"


def test_of_two_stores_the_own_one_is_found(store, tmp_path, small_store):
    """Where a moved run's store lay before is another one now, or a damaged one."""
    card = {"store": places(store, store.parent / "run"), "store_checksum": small_store.checksum()}
    moved = tmp_path / "new"
    (moved / "run").mkdir(parents=True)
    shutil.copytree(small_store.path, moved / "a.zarr")
    assert find_store(moved / "run", card) == moved / "a.zarr"  # the manifest at the first is empty
    shutil.rmtree(store)
    manifest = dataclasses.replace(small_store.manifest, tss="gene_start")
    write_manifest(shutil.copytree(small_store.path, store), manifest)
    assert find_store(moved / "run", card) == moved / "a.zarr"
    assert open_own(moved / "run", card).checksum() == small_store.checksum()
    # Where neither is, the first is named by who refuses it.
    assert find_store(moved / "run", {**card, "store_checksum": "other"}) == store


def test_a_moved_run_says_where_its_store_is_not(store, tmp_path):
    card = {"store": places(store, store.parent / "run")}
    store.rename(tmp_path / "gone")
    with pytest.raises(InputError) as caught:
        find_store(tmp_path / "run", card)
    (problem,) = caught.value.problems
    assert problem.found == f"no training store at {store} nor at {tmp_path}/a.zarr"
    assert problem.remedy.startswith("give --store")


def test_cards_of_older_versions_know_one_place(store, tmp_path):
    assert find_store(tmp_path, {"store": {"path": str(store)}}) == store
    with pytest.raises(InputError, match=r"no training store at gone\.zarr"):
        find_store(tmp_path, {"store": {"path": "gone.zarr"}})
