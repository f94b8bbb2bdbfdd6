"""One command from a sheet of URLs to a verified store, in bounded memory, whatever kills it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from data_prep.checks.build_inputs import BuildConfig
from data_prep.simulate import simulate
from epi2expr_jax.store.window_store import WindowStore
from tests.data_prep.bad_server import serving

MOST_BYTES = 2 << 30  # a worker


@pytest.fixture(scope="module")
def study(tmp_path_factory, trial_size):
    """A folder with a sheet of URLs, and the server behind them while the tests run."""
    data = tmp_path_factory.mktemp("urls") / "data"
    cells, assays, genes = trial_size((2, 2, 80), (11, 12, 2000))
    simulate(data, genes=genes, cells=cells, assays=assays, chromosomes=2)
    table = pd.read_csv(data / "tracks.csv")
    assert len(table) == cells * assays
    with serving() as server:
        server.files = {name: (data / name).read_bytes() for name in table.path}
        # The first of them refuses twice, and is asked again.
        modes = ["503", *["good"] * (len(table) - 1)]
        table["url"] = [f"{server.url}/{m}/{n}" for m, n in zip(modes, table.path, strict=True)]
        table.drop(columns=["path", "sha256"]).to_csv(data / "urls.csv", index=False)
        yield data


def inputs_of(data, store):
    files = {
        "tracks": "urls.csv",
        "expression": "RPKM.pc.gz",
        "genes": "genes.gtf.gz",
        "assembly": "genome.chrom.sizes",
    }
    return {**{name: str(data / file) for name, file in files.items()}, "store": str(store)}


def started(data, store):
    flags = [f"--{name}={value}" for name, value in inputs_of(data, store).items()]
    command = [sys.executable, "-m", "data_prep.build_store", *flags, "--worker_gib=2"]
    # A group of its own, so that its workers can be killed with it.
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def peak_of(process):
    """The most memory that one of its processes held at a time, in bytes, until it ends."""
    most, program = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            held = [p.memory_info().rss for p in [program, *program.children(recursive=True)]]
            most = max(most, *held)
        except psutil.NoSuchProcess:
            continue  # one of them has just ended
        time.sleep(0.05)
    return most


def steps(store):
    """How many tracks were downloaded, and how many built."""
    fetched = store.with_name(store.name + ".downloads").glob("*.bigwig")
    return len(list(fetched)) + len(list((store / "slabs").rglob("*.json")))


@pytest.mark.trial
def test_whatever_kills_it_the_store_is_the_same(study, tmp_path, trial_size, build):
    build(BuildConfig(**inputs_of(study, tmp_path / "whole.zarr")))
    whole = WindowStore.open(tmp_path / "whole.zarr")
    assert whole.verify() == []
    tracks = len(whole.manifest.tracks)
    random, interrupted, most = np.random.default_rng(0), 0, 0
    for i in range(trial_size(1, 20)):
        path = tmp_path / f"killed{i}.zarr"
        process, target = started(study, path), random.integers(0, 2 * tracks - 1)
        while process.poll() is None and steps(path) < target:
            time.sleep(0.005)
        time.sleep(random.random() * 0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            interrupted += 1
        process = started(study, path)
        most = max(most, peak_of(process))
        assert process.returncode == 0
        store = WindowStore.open(path)
        assert store.verify() == []
        assert store.checksum() == whole.checksum()
        # What the killed workers were writing stays for an hour.
        assert len(list(path.rglob("*.partial*"))) <= 2
    assert interrupted
    print(f"{tracks} tracks, at most {most / 1e6:.0f} MB a process")
    assert 50e6 < most < MOST_BYTES
