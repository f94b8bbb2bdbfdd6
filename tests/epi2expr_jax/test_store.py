import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from epi2expr_jax.errors import InputError
from epi2expr_jax.manifest import Manifest
from epi2expr_jax.store import WindowStore

GENES = pd.DataFrame(
    {
        "gene_id": [f"g{i}" for i in range(700)],
        "name": "",
        "chrom": "chr1",
        "tss": np.arange(700) * 100 + 20_000,
        "strand": "+",
    }
)
MANIFEST = Manifest(
    window_bp=1000,
    bin_bp=25,
    assembly="toy",
    chrom_sizes={"chr1": 1_000_000},
    chromosomes=["chr1"],
    blind=[],
    cells=["c1", "c2"],
    assays=["m1", "m2"],
    tracks=[["c1", "m1"], ["c2", "m1"], ["c2", "m2"]],
    units={"m1": "pvalue", "m2": "depth"},
    groups={"m1": "histone", "m2": "histone"},
    min_covered=0.0,
    tss="gene_5p",
    candidates_sha256="0",
)
EXPRESSION = np.random.default_rng(1).random((2, 700)).astype(np.float32)


def slab(seed):
    random = np.random.default_rng(seed)
    return random.random((700, 40)).astype(np.float32), random.random(700).astype(np.float32)


def fill(store):
    for i, (cell, assay) in enumerate(MANIFEST.tracks):
        store.write_slab(cell, assay, *slab(i), [{"name": "x", "bytes": 1, "sha256": "0"}])
    return store


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
    np.testing.assert_array_equal(back.read_coverage()[1, 0], slab(1)[1])
    assert back.verify() == []


def test_xarray_opens_it_with_the_same_numbers(store):
    with xr.open_zarr(store.path) as opened:
        assert opened.signal.dims == ("cell", "assay", "gene", "bin")
        np.testing.assert_array_equal(opened.signal.sel(cell="c2", assay="m1"), slab(1)[0])
        np.testing.assert_array_equal(opened.expression, EXPRESSION)
        assert opened.gene.values.tolist() == GENES.gene_id.tolist()
        assert opened.signal.attrs["bin_bp"] == 25


def test_an_absent_slab_is_nan_and_never_zero(store):
    assert np.isnan(store.read_signal(["c1"], ["m2"])).all()
    assert np.isnan(store.read_coverage()[0, 1]).all()


def test_half_built_store_is_refused_until_whole(tmp_path):
    store = WindowStore.create(tmp_path / "s", MANIFEST, GENES, EXPRESSION)
    store.write_slab("c1", "m1", *slab(0), [])
    with pytest.raises(InputError, match=r"2 of 3 tracks not built yet \(c2-m1, c2-m2\)"):
        WindowStore.open(tmp_path / "s")
    assert WindowStore.open(tmp_path / "s", incomplete=True).missing_slabs() == [
        ("c2", "m1"),
        ("c2", "m2"),
    ]
    fill(WindowStore.resume(tmp_path / "s", MANIFEST))
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
    import tensorstore as ts

    array = ts.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store.path / "signal")}}
    ).result()
    array[0, 0].write(wrong).result()
    assert [problem.where.endswith("c1-m1") for problem in store.verify()] == [True]


def test_another_request_does_not_touch_the_store(store):
    other = dataclasses.replace(MANIFEST, bin_bp=50, assembly="other")
    with pytest.raises(InputError) as caught:
        WindowStore.resume(store.path, other)
    assert len(caught.value.problems) == 2
    assert WindowStore.open(store.path).verify() == []


@pytest.mark.parametrize(("version", "remedy"), [(0, "migrate"), (99, "upgrade")])
def test_format_version_gates_reading(store, version, remedy):
    file = store.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": version}))
    with pytest.raises(InputError, match=remedy):
        WindowStore.open(store.path)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="no manifest"):
        WindowStore.open(tmp_path)
    for content in ("{", "[]", '{"format": "something"}'):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError):
            WindowStore.open(tmp_path)


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
