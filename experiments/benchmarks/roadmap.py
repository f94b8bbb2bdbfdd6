"""The cost of preparing all of the Roadmap, and of reading it: `--what=roadmap` and `store`."""

import contextlib
import dataclasses
import functools
import gzip
import pathlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import psutil
import tensorstore as ts

from data_prep import build_store
from data_prep.bin_bigwigs import bin_bigwig
from data_prep.checks.build_inputs import BuildConfig
from data_prep.depth import write_depth
from data_prep.formats.assembly import load_assembly
from data_prep.formats.track_sheet import read_sheet
from data_prep.work import cluster
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.roadmap import AUTOSOMES
from epi2expr_jax.store import arrays
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore
from experiments.benchmarks.bigwig import MEAN_RUN_BP, build_again, write_track
from experiments.benchmarks.turns import rate, require_peers, take_turns

_ROADMAP_TRACKS, _ROADMAP_ALIGNMENTS = 132, 77  # 11 cells x 12 assays; x 7 marks
_ROADMAP_GENES = 18_915  # of its expression matrix, on autosomes
_READS = 30_000_000  # what consolidated alignments were cut down to (Kundaje et al. 2015)


def roadmap(_: int, mean_run_bp: int = MEAN_RUN_BP, chromosomes: Sequence[str] = AUTOSOMES) -> dict:
    """What a full-size track costs here, and with it the whole study's: hours, disk, memory.

    Two tracks of hg19 in 52 million runs each, as 30 million reads may leave them, are built by two
    workers; one is binned; depth is counted of one file of 30 million reads.
    """
    require_peers("pybigtools")
    hg19 = load_assembly("hg19").chrom_sizes
    sizes = {chrom: hg19[chrom] for chrom in chromosomes}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for seed, cell in enumerate(("E003", "E114")):
            write_track(folder / f"{cell}.bigwig", sizes, mean_run_bp, seed)
        track_bytes = (folder / "E003.bigwig").stat().st_size
        config = _full_size_inputs(folder, sizes)
        for window_bp in (10_000, 40_000):
            where = folder / f"{window_bp}.zarr"
            config = dataclasses.replace(config, store=str(where), window_bp=window_bp)
            with _peak_of_children() as peak:
                built = build_store.build(config)
            tracks = read_sheet(config.tracks).tracks
            with cluster.local(2, config.worker_gib) as client:
                build_again(client, tracks, where)  # the workers import what they need
                begin = time.perf_counter()
                build_again(client, tracks, where)
                problems = built.verify()
                hours = _hours(begin, _ROADMAP_TRACKS / 2)
            if problems:
                raise InputError.of(problems)
            held = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
            found[f"windows_of_{window_bp // 1000}_kb"] = {
                "hours_two_workers": hours,
                "store_gb": float(f"{held / 2 * _ROADMAP_TRACKS / 1e9:.2g}"),
                "worker_mb": round(peak[0] / 1e6),
            }
        begin = time.perf_counter()
        bin_bigwig(folder / "E003.bigwig", folder / "25.bw")
        found["binning"] = {
            "hours_one_worker": _hours(begin, _ROADMAP_TRACKS),
            "result_gb": _gb(folder / "25.bw", _ROADMAP_TRACKS),
        }
        reads = folder / "reads.tagAlign.gz"
        _write_reads(reads, sizes)
        begin = time.perf_counter()
        write_depth(reads, folder / "depth.bw", sizes)
        found["depth"] = {
            "hours_one_worker": _hours(begin, _ROADMAP_ALIGNMENTS),
            "downloads_gb": _gb(reads, _ROADMAP_ALIGNMENTS),
            "result_gb": _gb(folder / "depth.bw", _ROADMAP_ALIGNMENTS),
        }
    downloads = track_bytes * _ROADMAP_TRACKS
    found["downloads"] = {
        "gb": round(downloads / 1e9),
        "hours_at_100_mbit_per_s": round(downloads / 12.5e6 / 3600, 1),
    }
    return {"what": "roadmap", **found, "estimate_is": "made-up tracks of full size, x 132 (77)"}


def store(rounds: int, genes: int = 20_000) -> dict:
    """What it costs that damage is noticed on reading: the same signal with checks and without.

    Three tracks of 240 bins, whole (`all`), in random parts of 40 bins (`part`), both read into
    place, and whole as training reads them: transformed and turned by strand (`as_training`). MB/s.
    """
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        checked = _made_up_store(pathlib.Path(name) / "checked", genes)
        cells, assays = checked.manifest.cells, checked.manifest.assays
        _write_without_checks(checked, pathlib.Path(name) / "plain")
        plain = _Unchecked(pathlib.Path(name) / "plain", checked.manifest, checked.genes)
        stores = {"checked": checked, "plain": plain}

        def parts(store: WindowStore, starts: Sequence[int], width: int) -> list[np.ndarray]:
            return [store.read_signal(cells, assays, slice(i, i + width)) for i in starts]

        def as_training(store: WindowStore) -> list[np.ndarray]:
            model = CnnConfig(window_bp=24_000, bin_bp=100)
            data = load_dataset(store, model, cells, assays)
            return jax.tree.leaves([data.track(cells[0], mark) for mark in assays * 5])

        one, other = (parts(store, [0], 240) + as_training(store) for store in stores.values())
        if not all(map(np.array_equal, one, other)):
            raise AssertionError("both sides must read the same values")
        found: dict[str, Any] = {}
        for what, width in (("all", 240), ("part", 40), ("as_training", 240)):
            starts = [int(start) for start in random.integers(0, 241 - width, 5)]
            megabytes = 5 * len(assays) * genes * width * 4 / 1e6
            read = {
                side: functools.partial(as_training, store)
                if what == "as_training"
                else functools.partial(parts, store, starts, width)
                for side, store in stores.items()
            }
            sides = {side: rate(function, megabytes) for side, function in read.items()}
            turns = take_turns(sides, rounds)
            pairs = zip(turns.rates["plain"], turns.rates["checked"], strict=True)
            found[what] = {
                **{f"{side}_mb_per_s": round(value) for side, value in turns.median.items()},
                "time_with_over_without": round(statistics.median(p / c for p, c in pairs), 3),
                "disturbed_rounds": turns.disturbed,
            }
    return {"what": "store", **found}


def _made_up_store(path: pathlib.Path, count: int) -> WindowStore:
    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "gene_id": [f"G{i:05d}" for i in range(count)],
            "name": "",
            "chrom": "chr1",
            "tss": 12_000 + np.arange(count),
            "strand": np.where(np.arange(count) % 2, "-", "+"),
        }
    )
    marks = ["m1", "m2", "m3"]
    manifest = Manifest(
        window_bp=24_000,
        bin_bp=100,
        assembly="made-up",
        chrom_sizes={"chr1": 24_000 + count},
        chromosomes=["chr1"],
        blind=[],
        cells=["c"],
        assays=marks,
        tracks=[["c", mark] for mark in marks],
        units=dict.fromkeys(marks, "pvalue"),
        groups=dict.fromkeys(marks, "histone"),
        min_covered=0.0,
        tss="given",
        candidates_sha256="",
    )
    made = WindowStore.create(path, manifest, table, np.ones((1, count), np.float32))
    for mark in marks:
        means = random.gamma(0.4, 2, (count, 240)).round(2)
        made.write_slab("c", mark, means, np.ones(count), [])
    return made


class _Unchecked(WindowStore):
    """A store whose signal is read as it stands."""

    def read_signal(
        self,
        cells: str | Sequence[str],
        assays: str | Sequence[str],
        bins: slice = slice(None),
    ) -> np.ndarray:
        array, known = arrays.open_array(self.path, "signal"), self.manifest.assays
        rows = [known.index(assay) for assay in assays]
        bins = arrays.bins_of(bins, self.manifest.window.bins, "")
        out = np.empty((1, len(rows), len(self.genes), bins.stop - bins.start), np.float32)
        reads = [arrays.begin_read(array[0, row, :, bins], out[0, i]) for i, row in enumerate(rows)]
        for read in reads:
            read.result()
        return out


def _write_without_checks(store: WindowStore, folder: pathlib.Path) -> None:
    """The signal of a store once more, in chunks without checksums, as stores of version 2 are."""
    signal = arrays.open_array(store.path, "signal")
    metadata = signal.spec().to_json()["metadata"]
    inner = metadata["codecs"][0]["configuration"]["codecs"]
    for codec in inner:
        if codec["name"] == "zstd":
            codec["configuration"]["checksum"] = False
    kvstore = {"driver": "file", "path": str(folder / "signal")}
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}
    copy = ts.open(spec, create=True, context=arrays.CONTEXT).result()
    for i in range(signal.shape[1]):
        copy[0, i].write(signal[0, i].read().result()).result()


def _hours(begin: float, times: float) -> float:
    """What has begun then took, so many times."""
    return float(f"{(time.perf_counter() - begin) * times / 3600:.2g}")


def _gb(path: pathlib.Path, files: int) -> float:
    return float(f"{path.stat().st_size * files / 1e9:.2g}")


def _full_size_inputs(folder: pathlib.Path, sizes: Mapping[str, int]) -> BuildConfig:
    """A sheet, genes and expression for the tracks that lie there."""
    random = np.random.default_rng(2)
    lengths = np.array([*sizes.values()])
    chroms = random.choice(list(sizes), _ROADMAP_GENES, p=lengths / lengths.sum())
    genes = pd.DataFrame(
        {
            "gene_id": [f"G{i:05d}" for i in range(_ROADMAP_GENES)],
            "chrom": chroms,
            "tss": [int(random.integers(50_000, sizes[chrom] - 50_000)) for chrom in chroms],
            "strand": "+",
        }
    )
    genes.to_csv(folder / "genes.csv", index=False)
    genes[["gene_id"]].assign(E003=1.0, E114=2.0).to_csv(folder / "expression.csv", index=False)
    (folder / "tracks.csv").write_text(
        "cell,assay,path\nE003,DNase,E003.bigwig\nE114,DNase,E114.bigwig\n"
    )
    return BuildConfig(
        tracks=str(folder / "tracks.csv"),
        expression=str(folder / "expression.csv"),
        store="",
        genes=str(folder / "genes.csv"),
        workers=2,
    )


@contextlib.contextmanager
def _peak_of_children() -> Iterator[list[int]]:
    """The most bytes that a process started from here holds at a time, in a list of one."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _write_reads(path: pathlib.Path, sizes: Mapping[str, int]) -> None:
    """A tagAlign of 36 bp reads, as Roadmap's are."""
    random = np.random.default_rng(3)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for chrom, size in sizes.items():
            count = round(_READS * size / sum(sizes.values()))
            starts = np.sort(random.integers(0, size - 36, count))
            file.writelines(f"{chrom}\t{s}\t{s + 36}\tN\t1000\t+\n" for s in starts.tolist())
