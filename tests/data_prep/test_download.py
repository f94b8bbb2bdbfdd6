"""Downloads from a local server that drops, truncates, stalls, lies and refuses."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from data_prep.bed import touched_bins
from data_prep.build_store import build
from data_prep.download import with_mirrors
from data_prep.transfer import LOCK, Download, Limits, download
from epi2expr_jax.errors import InputError
from tests.data_prep.bad_server import CONTENT, serving

QUICK = Limits(connections=2, attempts=4, timeout_s=0.4, pause_s=0.01)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.mark.parametrize("mode", ["good", "drop", "stall", "503", "norange"])
def test_bad_servers_are_borne(server, tmp_path, mode):
    url = f"{server.url}/{mode}/a.bin"
    download([Download(tmp_path / "a.bin", (url,))], tmp_path, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", LOCK]
    record = json.loads((tmp_path / LOCK).read_text())[url]
    assert record == {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    if mode in ("drop", "stall"):
        assert server.asked[0][1] is None
        assert all(asked for _, asked in server.asked[1:])  # it went on, and did not begin again


def test_all_that_fail_are_named_and_the_others_are_whole(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    names = ("404", "long", "short", "good")
    items = [Download(tmp_path / n, (f"{server.url}/{n}/x.bin",), digest) for n in names]
    with pytest.raises(InputError) as caught:
        download(items, tmp_path, QUICK)
    text = "\n".join(map(str, caught.value.problems))
    assert len(caught.value.problems) == 3
    assert "HTTP 404" in text
    assert "sha256" in text
    assert [n for n in names if (tmp_path / n).exists()] == ["good"]
    assert sum("/404/" in path for path, _ in server.asked) == 1


def test_a_mirror_serves_and_the_lock_is_enforced(server, tmp_path):
    first = Download(tmp_path / "a.bin", (f"{server.url}/404/a.bin",))
    (item,) = with_mirrors([first], [(f"{server.url}/404/", f"{server.url}/good/")])
    download([item], tmp_path, QUICK)
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="sha256"):
        download([item], tmp_path, QUICK)
    (tmp_path / "a.bin").unlink()
    server.files["a.bin"] = CONTENT[::-1]
    with pytest.raises(InputError, match="sha256"):
        download([item], tmp_path, QUICK)
    assert not (tmp_path / "a.bin").exists()


def test_from_urls_to_the_store_on_a_joined_cluster(
    server, roadmap, build_config, small_store, tmp_path
):
    """The same slabs as from files; with a blacklist, zeros where it touches."""
    table = pd.read_csv(roadmap / "tracks.csv")
    server.files = {name: (roadmap / name).read_bytes() for name in table.path}
    table["url"] = [f"{server.url}/good/{name}" for name in table.path]
    sheet = tmp_path / "tracks.csv"
    table.drop(columns=["path", "sha256"]).to_csv(sheet, index=False)
    gene = small_store.genes.iloc[5]
    bed = tmp_path / "black.bed"
    bed.write_text(f"{gene.chrom}\t{gene.tss}\t{gene.tss + 1}\n")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        joined = {"tracks": str(sheet), "scheduler_address": cluster.scheduler_address}
        store = build(build_config(tmp_path / "s", **joined), QUICK)
        black = build(build_config(tmp_path / "b", blacklist=str(bed), **joined), QUICK)
    assert store.checksum() == small_store.checksum()
    signal = store.read_signal(store.manifest.cells, store.manifest.assays)
    hidden = black.read_signal(store.manifest.cells, store.manifest.assays)
    assert (signal != hidden).any(axis=(0, 1, 3)).nonzero()[0].tolist() == [5]
    assert (hidden[:, :, 5, 60] == 0).all()
    assert black.manifest.blacklist["name"] == "black.bed"


def test_touched_bins_at_the_edges():
    regions = pd.DataFrame({"chrom": ["chr1", "chr1"], "start": [0, 30], "end": [10, 31]})
    bins = touched_bins(["1", "1"], np.array([-10, 10]), np.array([20, 35]), 10, regions)
    assert bins.tolist() == [False, True, False, False, False, True]
