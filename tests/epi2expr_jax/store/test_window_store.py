import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorstore as ts
import xarray as xr

from epi2expr_jax.errors import InputError
from epi2expr_jax.store import arrays
from epi2expr_jax.store.resume import resume
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.store.toy import CONTACTS, GENES, MANIFEST

EXPRESSION = np.random.default_rng(1).random((2, 700)).astype(np.float32)


def slab(seed):
    random = np.random.default_rng(seed)
    return random.random((700, 40)).astype(np.float32), random.random(700).astype(np.float32)


def fill(store):
    for i, (cell, assay) in enumerate(MANIFEST.tracks):
        store.write_slab(cell, assay, *slab(i), [{"name": "x", "bytes": 1, "sha256": "0"}])
    return store


def overwrite(store, name, index, values):
    """As a fault would: behind the store's back."""
    path = str(store.path / name)
    array = ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}).result()
    array[index].write(values).result()


@pytest.fixture
def store(tmp_path):
    return fill(WindowStore.create(tmp_path / "store.zarr", MANIFEST, GENES, EXPRESSION))


def test_round_trip(store):
    back = WindowStore.open(store.path)
    pd.testing.assert_frame_equal(back.genes, GENES)
    np.testing.assert_array_equal(back.read_signal(["c2"], ["m2"])[0, 0], slab(2)[0])
    np.testing.assert_array_equal(
        back.read_signal(["c2", "c1"], ["m1"], slice(10, 20))[1, 0], slab(0)[0][:, 10:20]
    )
    np.testing.assert_array_equal(back.read_expression(["c2"])[0], EXPRESSION[1])
    np.testing.assert_array_equal(back.slabs.array("coverage", "c2", "m1"), slab(1)[1])
    assert back.verify() == []


def test_the_unit_of_expression_is_kept(store, tmp_path):
    """Stores from before it, which hold RPKM, keep their checksum."""
    other = dataclasses.replace(MANIFEST, expression_unit="TPM")
    in_tpm = fill(WindowStore.create(tmp_path / "tpm.zarr", other, GENES, EXPRESSION))
    assert WindowStore.open(in_tpm.path).manifest.expression_unit == "TPM"
    with xr.open_zarr(in_tpm.path) as opened:
        assert opened.expression.attrs["units"] == "TPM"
    assert in_tpm.checksum() != store.checksum()
    content = dataclasses.asdict(store.manifest)
    for name in ("version", "tables_sha256", "blacklisted", "blacklist", "expression_unit"):
        del content[name]
    sums = [[*pair, store.slab_record(*pair)["sha256"]] for pair in MANIFEST.tracks]
    text = json.dumps([content, sums], sort_keys=True)
    assert store.checksum() == hashlib.sha256(text.encode()).hexdigest()


def test_a_store_may_hold_no_expression_or_labels_alone(tmp_path):
    without = dataclasses.replace(MANIFEST, expression_unit="")
    bare = fill(WindowStore.create(tmp_path / "bare.zarr", without, GENES, None))
    labels = EXPRESSION > 0.5
    labelled = fill(
        WindowStore.create(tmp_path / "labels.zarr", without, GENES, None, labels=labels)
    )
    for path in (bare.path, labelled.path):
        store = WindowStore.open(path)
        assert store.verify() == []
        assert not (path / "expression").exists()
        np.testing.assert_array_equal(store.read_signal(["c2"], ["m2"])[0, 0], slab(2)[0])
    with pytest.raises(InputError, match="no expression: the store was built to predict from"):
        WindowStore.open(bare.path).read_expression(["c1"])
    np.testing.assert_array_equal(store.read_labels(["c2"]), labels[1:])
    np.testing.assert_array_equal(store.read_expression(["c2"]), labels[1:].astype(float))


def test_every_open_of_a_process_shares_one_context(store, monkeypatch):
    """TensorStore crashes under load when a context goes while its threads still work."""
    contexts = []

    def recorded(spec, *, context=None, **options):
        contexts.append(spec.get("context", context))
        return original(spec, context=context, **options)

    original = ts.open
    monkeypatch.setattr(ts, "open", recorded)
    for _ in range(2):
        back = WindowStore.open(store.path)
        for cell, assay in MANIFEST.tracks:
            back.read_signal([cell], [assay])
        back.read_expression(["c1"])
        back.slabs.array("coverage", "c1", "m1")
        assert back.verify() == []
    assert {type(context) for context in contexts} == {ts.Context}
    assert len({id(context) for context in contexts}) == 1


def test_a_store_that_is_gone_is_an_error_and_never_nan(store):
    back = WindowStore.open(store.path)
    reads = (
        lambda: back.read_signal(["c1"], ["m1"]),
        lambda: back.read_expression(["c1"]),
        lambda: back.slabs.array("coverage", "c1", "m1"),
    )
    for read in reads:
        assert np.isfinite(read()[0]).any()
    store.path.rename(store.path.with_name("unmounted"))
    for read in reads:
        with pytest.raises(InputError, match=r"no slab|no readable values"):
            read()
    with pytest.raises(InputError, match="a write that failed"):
        back.write_slab("c1", "m1", *slab(0), [])
    assert not store.path.exists()
    assert all("no readable values" in problem.found for problem in back.verify()[:1])


def test_values_that_are_read_belong_to_the_reader(store):
    back = WindowStore.open(store.path)
    for read in (
        lambda: back.slabs.array("coverage", "c1", "m1"),
        lambda: back.read_expression(["c1"]),
        lambda: back.read_signal(["c1"], ["m1"]),
    ):
        kept = read()
        assert kept.base is None or kept.base.flags.owndata
        assert kept.flags.writeable


READING = """
import sys
from epi2expr_jax.store import WindowStore
for _ in range(int(sys.argv[2])):
    store = WindowStore.open(sys.argv[1])
    for cell, assay in store.manifest.tracks:
        store.read_signal([cell], [assay])
    store.read_expression(store.manifest.cells)
    store.slabs.array("coverage", *store.manifest.tracks[0])
"""


@pytest.mark.trial
def test_many_processes_read_side_by_side_under_load(store, trial_size):
    """When every open had a context of its own, some died (docs/decisions, 0047)."""
    processes, at_once, times = trial_size((3, 3, 3), (210, 30, 100))
    command = [sys.executable, "-c", READING, str(store.path), str(times)]
    ended = []
    for first in range(0, processes, at_once):
        reading = [subprocess.Popen(command) for _ in range(first, min(first + at_once, processes))]
        ended += [process.wait() for process in reading]
    assert ended == [0] * processes


def test_an_absent_slab_is_nan_and_never_zero(store):
    assert np.isnan(store.read_signal(["c1"], ["m2"])).all()


def test_half_built_store_is_refused_until_whole(tmp_path):
    store = WindowStore.create(tmp_path / "s", MANIFEST, GENES, EXPRESSION)
    store.write_slab("c1", "m1", *slab(0), [])
    with pytest.raises(InputError, match=r"2 of 3 tracks not built yet \(c2-m1, c2-m2\)"):
        WindowStore.open(tmp_path / "s")
    assert WindowStore.open(tmp_path / "s", incomplete=True).missing_slabs() == [
        ("c2", "m1"),
        ("c2", "m2"),
    ]
    fill(resume(tmp_path / "s", MANIFEST))
    assert WindowStore.open(tmp_path / "s").missing_slabs() == []


def test_checksum_speaks_of_values_not_of_when_or_where(store, tmp_path):
    again = fill(WindowStore.create(tmp_path / "other", MANIFEST, GENES, EXPRESSION))
    assert again.checksum() == store.checksum()
    means, coverage = slab(0)
    means[3, 3] += 1e-3
    again.write_slab("c1", "m1", means, coverage, [])
    assert again.checksum() != store.checksum()


def test_verify_finds_changed_bytes(store):
    wrong, _ = slab(9)
    overwrite(store, "signal", (0, 0), wrong)
    assert [problem.where.endswith("c1-m1") for problem in store.verify()] == [True]


def test_verify_names_a_damaged_shard_and_goes_on(store):
    first, *others = sorted(
        path for path in (store.path / "signal" / "c").rglob("*") if path.is_file()
    )
    first.write_bytes(first.read_bytes()[:-20])
    (problem,) = store.verify()
    assert "values that differ" in problem.found
    assert len(others) == len(store.manifest.tracks) - 1
    (chunk,) = (path for path in (store.path / "expression" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-5])
    wheres = [problem.where for problem in store.verify()]
    assert wheres[0].endswith("/expression")
    assert len(wheres) == 2


def test_another_request_does_not_touch_the_store(store):
    other = dataclasses.replace(MANIFEST, bin_bp=50, tss="other")
    with pytest.raises(InputError) as caught:
        resume(store.path, other)
    assert len(caught.value.problems) == 2
    assert WindowStore.open(store.path).verify() == []


@pytest.mark.parametrize("bins", [slice(-20, -3), slice(30, None), slice(5, 3), slice(None, -35)])
def test_bins_are_counted_as_python_counts_them(store, bins):
    found = store.read_signal(["c1"], ["m1"], bins)
    np.testing.assert_array_equal(found, store.read_signal(["c1"], ["m1"])[..., bins])
    with pytest.raises(InputError, match=r"bins: found a step of -1; expected neighbouring"):
        store.read_signal(["c1"], ["m1"], slice(None, None, -1))


@pytest.mark.parametrize("bins", [None, 5, (3, 5), slice(1.5, 3), slice("a", 3), slice(0, 9, 2.0)])
def test_bins_that_are_no_slice_of_whole_numbers_are_refused(store, bins):
    with pytest.raises(InputError, match=r"s: bins: found .*; expected a slice of whole numbers"):
        arrays.bins_of(bins, 40, "s")
    whole = store.read_signal(["c1"], ["m1"])
    for odd in (slice(-1000, np.int64(3)), slice(1000, 2000)):  # too far, as Python counts
        np.testing.assert_array_equal(store.read_signal(["c1"], ["m1"], odd), whole[..., odd])


def test_unknown_names_are_listed(store):
    with pytest.raises(InputError, match="unknown assay m3, m4; expected one of m1, m2"):
        store.read_signal(["c1"], ["m3", "m1", "m4"])
    with pytest.raises(InputError, match="unknown cell"):
        store.read_expression(["nobody"])


def test_values_that_are_not_finite_are_refused(store):
    means, coverage = slab(0)
    means[5, 1] = np.nan
    with pytest.raises(InputError, match="g5"):
        store.write_slab("c1", "m1", means, coverage, [])


def test_a_disk_that_refuses_is_reported_and_leaves_no_marker(store, tmp_path):
    """A process that may write no file larger than 20 kB stands in for a full disk."""
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from epi2expr_jax.errors import InputError
from epi2expr_jax.store import WindowStore
store = WindowStore.open({str(store.path)!r}, incomplete=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    means = np.random.default_rng(0).random((700, 40), np.float32)
    store.write_slab("c1", "m1", means, np.ones(700), [])
except InputError as error:
    print(error)
"""
    (store.path / "slabs" / "c1" / "m1.json").unlink()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "a write that failed" in done.stdout, done.stderr
    assert "free space" in done.stdout
    assert ("c1", "m1") in WindowStore.open(store.path, incomplete=True).missing_slabs()


LABELS = np.random.default_rng(2).random((2, 700)) < 0.5
DEPTH = np.random.default_rng(3).random((2, 1 + 3 + 10)).astype(np.float32)


@pytest.fixture
def contact_store(tmp_path):
    store = WindowStore.create(
        tmp_path / "contacts.zarr", MANIFEST, GENES, EXPRESSION, {"c2": CONTACTS}, LABELS
    )
    store.write_slab("c1", "m1", *slab(0), [])
    store.write_slab("c2", "m1", *slab(1), [], DEPTH[0])
    store.write_slab("c2", "m2", *slab(2), [], DEPTH[1])
    return store


def test_regions_and_labels_round_trip(contact_store):
    back = WindowStore.open(contact_store.path)
    regions = back.regions("c2")
    assert regions.table.start.tolist() == [1_000, 5_000, 9_000]
    assert regions.table["first"].tolist() == [0, 1, 4]
    region, score = regions.by_gene(700, 2)
    assert region[[3, 8, 0]].tolist() == [[1, 0], [1, 2], [-1, -1]]
    assert score[[3, 8, 0]].tolist() == [[4, 2], [3, 3], [0, 0]]
    np.testing.assert_array_equal(back.read_region_signal("c2", ["m2", "m1"]), DEPTH[::-1])
    np.testing.assert_array_equal(back.read_labels(["c2", "c1"]), LABELS[::-1])
    assert back.manifest.given_labels
    assert back.verify() == []


def test_a_store_without_contacts_or_labels_says_so(store):
    assert store.read_labels(["c1"]) is None
    for read in (store.regions, lambda cell: store.read_region_signal(cell, ["m1"])):
        with pytest.raises(InputError, match=r"c1.*--interactions"):
            read("c1")


def test_a_cell_whose_contacts_all_left_has_empty_regions(tmp_path):
    store = WindowStore.create(
        tmp_path / "s", MANIFEST, GENES, EXPRESSION, {"c1": CONTACTS.tail(1)}
    )
    store.write_slab("c1", "m1", *slab(0), [], np.empty(0))
    assert store.read_region_signal("c1", ["m1"]).shape == (1, 0)
    assert store.regions("c1").table.empty


def test_a_slab_comes_with_regions_if_and_only_if_its_cell_has_some(contact_store):
    with pytest.raises(ValueError, match="c2: regions are given if"):
        contact_store.write_slab("c2", "m1", *slab(1), [])
    with pytest.raises(ValueError, match="c1: regions are given if"):
        contact_store.write_slab("c1", "m1", *slab(0), [], DEPTH[0])
    with pytest.raises(ValueError, match=r"expected \(14,\)"):
        contact_store.write_slab("c2", "m1", *slab(1), [], DEPTH[0, :13])
    means, coverage = slab(1)
    means[2, 0] = np.inf
    depth = np.where(np.arange(14) > 10, np.nan, DEPTH[0])
    with pytest.raises(InputError, match=r"\(g2, chr1:9000-9999\)"):
        contact_store.write_slab("c2", "m1", means, coverage, [], depth)
    assert contact_store.verify() == []


def test_verify_finds_changed_regions_and_labels(contact_store):
    overwrite(contact_store, "regions/c2/depth", (1, 5), np.float32(7))
    assert [p.where.split()[-1] for p in contact_store.verify()] == ["c2-m2"]
    overwrite(contact_store, "label", (0, 0), ~LABELS[0, 0])
    table = contact_store.regions("c2").contacts
    table.assign(score=1.0).to_parquet(contact_store.path / "regions/c2/contacts.parquet")
    wheres = [p.where.removeprefix(str(contact_store.path)) for p in contact_store.verify()]
    assert wheres[:2] == ["/label", "/regions/c2/contacts.parquet"]


def test_checksum_speaks_of_contacts_too(contact_store, tmp_path):
    other = CONTACTS.assign(score=CONTACTS.score + 1)
    again = WindowStore.create(tmp_path / "o", MANIFEST, GENES, EXPRESSION, {"c2": other}, LABELS)
    assert again.manifest.regions_sha256 != contact_store.manifest.regions_sha256
    for i, depth in enumerate((None, *DEPTH)):
        again.write_slab(*MANIFEST.tracks[i], *slab(i), [], depth)
    assert again.checksum() != contact_store.checksum()
