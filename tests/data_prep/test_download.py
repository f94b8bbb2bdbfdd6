"""Downloads from a local server that drops, truncates, stalls, lies and refuses."""

import dataclasses
import hashlib
import json
import time

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from data_prep.build_store import build
from data_prep.formats.bed import touched_bins
from data_prep.work.sources import with_mirrors
from data_prep.work.transfer import LOCK, Download, Limits, download
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.store.window_store import WindowStore
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


def test_a_server_that_says_when_is_asked_then(server, tmp_path):
    begin = time.monotonic()
    download([Download(tmp_path / "a.bin", (f"{server.url}/429/a.bin",))], tmp_path, QUICK)
    assert time.monotonic() - begin > 2, "refused twice, for a second each"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_asked_for_twice_is_fetched_once_and_what_fails_its_check_is_no_file(
    server, tmp_path
):
    item = Download(tmp_path / "a.bin", (f"{server.url}/good/a.bin",))
    download([item, item], tmp_path, QUICK)
    assert len(server.asked) == 1
    said = Problem("a", "no such thing", "a thing", "look")
    checked = dataclasses.replace(item, target=tmp_path / "b.bin", check=lambda path: said)
    with pytest.raises(InputError, match="no such thing"):
        download([checked], tmp_path, QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", LOCK}


def test_all_connections_keep_to_one_pace(server, tmp_path):
    items = [Download(tmp_path / n, (f"{server.url}/good/{n}",)) for n in "ab"]
    limits = dataclasses.replace(QUICK, bytes_per_s=2 * len(CONTENT))
    begin = time.monotonic()
    download(items, tmp_path, limits)
    # What the last connection took is not waited for.
    assert 0.5 < time.monotonic() - begin < 5


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
    with pytest.raises(InputError, match="sha256") as caught:
        download([item], tmp_path, QUICK)
    assert f"delete its entry in {LOCK}" in caught.value.problems[0].remedy
    assert not (tmp_path / "a.bin").exists()


@pytest.fixture
def urls(server, roadmap, tmp_path):
    """`urls(modes)`: a sheet of URLs, of which the first are served badly."""
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    server.files = {name: (roadmap / name).read_bytes() for name in table.path}

    def sheet(*modes):
        modes = [*modes, *["good"] * (len(table) - len(modes))]
        urls = [f"{server.url}/{m}/{n}" for m, n in zip(modes, table.path, strict=True)]
        path = tmp_path / "tracks.csv"
        table.drop(columns="path").assign(url=urls).to_csv(path, index=False)
        return str(path)

    return sheet


def test_from_urls_to_the_store_on_a_joined_cluster(urls, build_config, small_store, tmp_path):
    """The same slabs as from files; with a blacklist, zeros where it touches."""
    sheet = urls()
    gene = small_store.genes.iloc[5]
    bed = tmp_path / "black.bed"
    bed.write_text(f"{gene.chrom}\t{gene.tss}\t{gene.tss + 1}\n")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        joined = {"tracks": sheet, "scheduler_address": cluster.scheduler_address}
        store = build(build_config(tmp_path / "s", **joined), QUICK)
        black = build(build_config(tmp_path / "b", blacklist=str(bed), **joined), QUICK)
    assert store.checksum() == small_store.checksum()
    signal = store.read_signal(store.manifest.cells, store.manifest.assays)
    hidden = black.read_signal(store.manifest.cells, store.manifest.assays)
    assert (signal != hidden).any(axis=(0, 1, 3)).nonzero()[0].tolist() == [5]
    assert (hidden[:, :, 5, 60] == 0).all()
    assert black.manifest.blacklist["name"] == "black.bed"


def test_tracks_that_cannot_be_had_are_named_and_the_others_built(
    server, urls, build_config, small_store, tmp_path
):
    config = build_config(tmp_path / "s", tracks=urls("404"), verify=False)
    _, second, third, *_ = server.files
    server.files[second], whole = b"<html>down for maintenance</html>", server.files[second]
    # One that is there, sound, and not what the URL gave first.
    folder = tmp_path / "s.downloads"
    folder.mkdir()
    (folder / third).write_bytes(whole)
    url = pd.read_csv(config.tracks).url[2]
    record = {url: {"bytes": len(whole), "sha256": hashlib.sha256(b"another").hexdigest()}}
    (folder / LOCK).write_text(json.dumps(record))
    with pytest.raises(InputError) as caught:
        build(config, QUICK)
    refused, page, other = caught.value.problems
    assert "HTTP 404" in refused.found
    assert "no bigWig: an HTML" in page.found
    assert "sha256" in other.expected
    with pytest.raises(InputError) as caught:  # which genes stay follows from all tracks
        build(dataclasses.replace(config, store=str(tmp_path / "c"), min_covered=0.5), QUICK)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "c").exists()
    tracks = small_store.manifest.tracks
    incomplete = WindowStore.open(tmp_path / "s", incomplete=True)
    assert incomplete.missing_slabs() == [tuple(pair) for pair in tracks[:3]]
    # Built ones need their files no more, and the page was not taken for a file.
    for path in folder.glob("*.bigwig"):
        path.unlink()
    (folder / LOCK).unlink()
    server.files[second] = whole
    server.asked.clear()
    store = build(dataclasses.replace(config, tracks=urls()), QUICK)
    assert len(server.asked) == 3
    assert store.checksum() == small_store.checksum()


def test_touched_bins_at_the_edges():
    regions = pd.DataFrame({"chrom": ["chr1", "chr1"], "start": [0, 30], "end": [10, 31]})
    bins = touched_bins(["1", "1"], np.array([-10, 10]), np.array([20, 35]), 10, regions)
    assert bins.tolist() == [False, True, False, False, False, True]
