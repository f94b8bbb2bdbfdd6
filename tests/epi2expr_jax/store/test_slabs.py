"""A slab is read as it was written, or refused by name, whatever happened to its files."""

import dataclasses

import numpy as np
import pytest
from zarr.codecs import Crc32cCodec, ZstdCodec

from epi2expr_jax.errors import InputError
from epi2expr_jax.store import arrays
from epi2expr_jax.store.slabs import digest
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.store.toy import CONTACTS, EXPRESSION, GENES, MANIFEST, slab

LABELS = EXPRESSION % 2 > 0


@pytest.fixture
def contact_store(tmp_path):
    path = tmp_path / "s.zarr"
    store = WindowStore.create(path, MANIFEST, GENES, EXPRESSION, {"c2": CONTACTS}, LABELS)
    for i, pair in enumerate(MANIFEST.tracks):
        store.write_slab(*pair, *slab(i))
    return store


def test_all_of_a_slab_comes_back(contact_store):
    means, coverage, _, depth = slab(2)
    found = contact_store.slabs.read("c2", "m2")
    for values, expected in zip(found, (means, coverage, depth), strict=True):
        np.testing.assert_array_equal(values, expected)
    assert contact_store.slab_record("c2", "m2")["sha256"] == digest(*found)


def test_a_slab_that_is_discarded_is_missing(contact_store):
    contact_store.slabs.discard("c1", "m1")
    assert contact_store.slabs.missing() == [("c1", "m1")]
    with pytest.raises(InputError, match=r"c1-m1: found no slab"):
        contact_store.slabs.array("coverage", "c1", "m1")


def flip(path, place):
    """One bit of a file, counted from its beginning or, if negative, from its end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def swap(one, other):
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def reading_everything(path):
    """As a command reads it: what its model needs, track by track."""
    store = WindowStore.open(path)
    store.read_signal(["c1", "c2"], ["m1"], slice(10, 20))
    store.read_signal(["c2"], ["m2"])
    store.read_expression(["c1"])
    store.read_labels(["c1"])
    store.regions("c2")
    store.read_region_signal("c2", ["m1", "m2"])


SIGNAL, DEPTHS = "signal/c/0/0/0/0", "regions/c2/depth/c/1/0"
DAMAGE = {
    "a bit of signal": lambda at: flip(at / SIGNAL, 5_000),
    "the last chunk of signal": lambda at: flip(at / SIGNAL, -100),
    "half of a shard": lambda at: (at / SIGNAL).write_bytes((at / SIGNAL).read_bytes()[:50_000]),
    "no shard": lambda at: (at / SIGNAL).unlink(),
    "the shard of another assay": lambda at: swap(at / SIGNAL, at / "signal/c/1/0/0/0"),
    "the marker of another assay": lambda at: swap(
        at / "slabs/c2/m1.json", at / "slabs/c2/m2.json"
    ),
    "a bit of depth": lambda at: flip(at / DEPTHS, 20),
    "no depth": lambda at: (at / DEPTHS).unlink(),
    "another assay's depth": lambda at: swap(at / DEPTHS, at / "regions/c2/depth/c/0/0"),
    "a bit of expression": lambda at: flip(at / "expression/c/0/0", 300),
    "no expression": lambda at: (at / "expression/c/0/0").unlink(),
    "a bit of labels": lambda at: flip(at / "label/c/0/0", -9),
    "no labels": lambda at: (at / "label/c/0/0").unlink(),
    "genes in another order": lambda at: GENES.sample(frac=1, random_state=0).to_parquet(
        at / "genes.parquet", index=False
    ),
    "a bit of contacts": lambda at: flip(at / "regions/c2/contacts.parquet", 100),
    "half of the regions": lambda at: (at / "regions/c2/regions.parquet").write_bytes(
        (at / "regions/c2/regions.parquet").read_bytes()[:300]
    ),
    "a digit of the manifest": lambda at: (at / "manifest.json").write_text(
        (at / "manifest.json").read_text().replace('"bin_bp": 25', '"bin_bp": 20')
    ),
    "half of an array's metadata": lambda at: (at / "signal/zarr.json").write_text("{"),
    "a bit of a gene's label": lambda at: flip(at / "gene/c/0", 30),
    "no labels of assays": lambda at: (at / "assay/c/0").unlink(),
    "the cells' metadata for the genes'": lambda at: swap(
        at / "cell/zarr.json", at / "gene/zarr.json"
    ),
    "a unit in an array's metadata": lambda at: (at / "expression/zarr.json").write_text(
        (at / "expression/zarr.json").read_text().replace("RPKM", "FPKM")
    ),
    "a bit of the group's metadata": lambda at: flip(at / "zarr.json", 30),
    "another shape": lambda at: (at / "signal/zarr.json").write_text(
        (at / "signal/zarr.json").read_text().replace("700", "699")
    ),
}


@pytest.fixture
def older_codecs(monkeypatch):
    """Stores as they were written at first: crc32c after zstd."""
    codecs = [ZstdCodec(level=0), Crc32cCodec()]
    monkeypatch.setattr(arrays, "_codecs", lambda: codecs)


OF_CHUNKS = ("a bit of signal", "the last chunk of signal", "a bit of depth", "a bit of expression")
OF_FILES = ("the shard of another assay", "another assay's depth")


@pytest.mark.parametrize("damage", [*OF_CHUNKS, *OF_FILES])
@pytest.mark.usefixtures("older_codecs")
def test_a_store_of_older_codecs_is_read_and_checked(damage, request):
    store = request.getfixturevalue("contact_store")
    metadata = (store.path / "signal/zarr.json").read_text()
    assert metadata.count("crc32c") == 2  # of chunks, and of the index
    np.testing.assert_array_equal(store.slabs.read("c2", "m2")[0], slab(2)[0])
    test_what_is_damaged_is_refused_when_it_is_read(store, damage)


def test_no_bit_of_a_chunk_can_flip_and_change_a_value(tmp_path):
    """Of a small one every bit: it is refused or, where the bit says nothing, read as it was."""
    genes = GENES.head(6)
    manifest = dataclasses.replace(MANIFEST, window_bp=250)
    store = WindowStore.create(tmp_path / "s", manifest, genes, EXPRESSION[:, :6])
    means = np.random.default_rng(0).gamma(0.4, 2, (6, 10)).round(1).astype(np.float32)
    store.write_slab("c1", "m1", means, np.ones(6), [])
    file = store.path / SIGNAL
    written, refused = file.read_bytes(), 0
    for place in range(len(written)):
        content = bytearray(written)
        content[place] ^= 1 << place % 8
        file.write_bytes(content)
        try:
            found = store.slabs.values("signal", (0, 0))
        except InputError:
            refused += 1
            continue
        np.testing.assert_array_equal(found, means, err_msg=f"byte {place}")
    assert refused > 0.95 * len(written)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_refused_when_it_is_read(contact_store, damage):
    reading_everything(contact_store.path)
    DAMAGE[damage](contact_store.path)
    with pytest.raises(InputError, match=r"again|delete") as caught:
        reading_everything(contact_store.path)
    assert all(
        str(contact_store.path) in problem.where and "\n" not in problem.found
        for problem in caught.value.problems
    )


def test_a_shard_of_another_store_is_refused(contact_store, tmp_path):
    other = WindowStore.create(tmp_path / "other", MANIFEST, GENES, EXPRESSION)
    other.write_slab("c1", "m1", *slab(0)[:2], [])
    other.write_slab("c1", "m1", *slab(7)[:2], [])
    swap(contact_store.path / SIGNAL, other.path / SIGNAL)
    with pytest.raises(InputError, match=r"signal: c1-m1.*differ from the recorded checksum"):
        contact_store.read_signal(["c1"], ["m1"])
