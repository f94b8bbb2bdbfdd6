"""Tracks by their URLs: downloaded alone, and by a build."""

import dataclasses
import hashlib
import subprocess
import sys

import pandas as pd
import pytest
from distributed import LocalCluster

from data_prep import download
from data_prep.build_store import build
from data_prep.work.lock_file import LOCK, LockFile
from epi2expr_jax.errors import InputError
from epi2expr_jax.store.window_store import WindowStore
from tests.data_prep.bad_server import QUICK


def test_the_program_downloads_a_sheet_and_says_what_is_there(
    server, track, tmp_path, command_line, capsys
):
    server.files = dict.fromkeys(["a.bw", "b.bw"], track.read_bytes())
    sheet, out = tmp_path / "sheet.csv", tmp_path / "out"
    rows = [f"E1,A,{server.url}/good/a.bw", f"E2,A,{server.url}/404/b.bw"]
    sheet.write_text("\n".join(["cell,assay,url", *rows]) + "\n")
    mirror = f"--mirror={server.url}/404/,{server.url}/good/"
    command_line(download.define_flags, f"--tracks={sheet}", f"--out={out}", mirror)
    download.main()
    assert sorted(path.name for path in out.iterdir()) == ["a.bw", "b.bw", LOCK]
    assert (out / "b.bw").read_bytes() == track.read_bytes()
    assert f"{out}: 2 files, whole; checksums in {out / LOCK}" in capsys.readouterr().out


def test_the_program_refuses_to_download_nothing(tmp_path, command_line):
    command_line(download.define_flags, f"--out={tmp_path / 'out'}")
    with pytest.raises(InputError, match="nothing to download; expected --tracks or --sources"):
        download.main()


def test_no_command_of_data_prep_loads_jax():
    """Machines that download and build have no accelerator, and need none; nor what takes long to
    load before a command does anything."""
    script = """
import importlib, pkgutil, runpy, sys
import data_prep
sys.argv = ["download", "--help"]
try:
    runpy.run_module("data_prep.download", run_name="__main__")
except SystemExit:
    pass
for module in pkgutil.iter_modules(data_prep.__path__, "data_prep."):
    importlib.import_module(module.name)
    loaded = {"jax", "scipy.stats", "matplotlib", "sklearn"} & {*sys.modules}
    assert not loaded, (module.name, loaded)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--mirror" in done.stdout


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


@pytest.mark.usefixtures("worker_here")
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
    LockFile(folder).record(url, len(whole), hashlib.sha256(b"another").hexdigest())
    with pytest.raises(InputError) as caught:
        build(config, QUICK)
    refused, page, other = caught.value.problems
    assert "HTTP 404" in refused.found
    assert "a web page instead of the file" in page.found
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
