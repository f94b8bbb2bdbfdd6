"""What the host costs: many trainings of a model so small that the host decides."""

import pathlib
import resource
import sys
import time
from typing import Any

import jax
import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.files import scratch
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import Machine, Watcher, train
from epi2expr_jax.training.lanes import epoch, packed
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig

FLAGS = flags.FLAGS
FOLDS = 5
_ASSAYS = 12
_WINDOW = 60, 100  # bins of so many bp, which promoter_cnn reads
_TINY = {"width": 0.02, "window_bp": 6000, "bin_bp": 100}


def host(_: int) -> dict[str, Any]:
    """The time of `--runs` tiny trainings that the device does not compute, and what they keep."""
    return trainings(FLAGS.runs, FLAGS.genes, FLAGS.epochs)


def trainings(
    runs: int,
    genes: int,
    epochs: int,
    model: str = "promoter_cnn",
    precision: str = "float32",
    options: dict[str, Any] | None = None,
    window: tuple[int, int] = _WINDOW,
    rounds: int = 300,
) -> dict[str, Any]:
    """Train so many models of so many genes: 5 folds, 12 assays at most, seeds as needed.

    Args:
        options: of the model; without, those of the tiny one.
        window: of the store: how many bins of how many bp.
        rounds: epochs of a chunk by which the device's own time is known.

    Returns:
        Seconds until training begins (`start_s`), and of training (`train_s`); of a chunk the
        device's own time, run alone, and the rest, which is the host's; memory at most; bytes kept.
    """
    assays = min(_ASSAYS, -(-runs // FOLDS))
    seeds = -(-runs // (assays * FOLDS))
    with scratch("epi2expr-host-") as name:
        folder = pathlib.Path(name)
        made_up_store(folder / "store.zarr", genes, assays, window)
        request = TrainRequest(
            store=str(folder / "store.zarr"),
            model=model,
            model_options=_TINY if options is None else options,
            cv=f"chromosomes_{FOLDS}",
            seeds=seeds,
            train_config=TrainConfig(
                epochs=epochs,
                batch_size=128 if model == "cnn" else 64,
                early_stop=None,
                precision=precision,
            ),
        )
        clock, begin = _Clock(), time.perf_counter()
        processor = time.process_time()
        train(request, folder / "run", machine=Machine(), watcher=clock)
        end = time.perf_counter()
        processor = time.process_time() - processor
        kept = sum(x.stat().st_size for x in (folder / "run").rglob("*") if x.is_file())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    device = clock.device_s(rounds) * clock.chunks
    seconds = clock.ended - clock.began
    return {
        "what": "host",
        "runs": len(clock.population.runs),
        "genes": genes,
        "epochs": epochs,
        "chunks": clock.chunks,
        "start_s": round(clock.began - begin, 2),
        "train_s": round(seconds, 2),
        "after_s": round(end - clock.ended, 2),
        "processor_s": round(processor, 1),
        "device_ms_a_chunk": round(1e3 * device / clock.chunks, 3),
        "host_ms_a_chunk": round(1e3 * (seconds - device) / clock.chunks, 3),
        "host_share": round(1 - device / seconds, 3),
        "memory_mb": round(most / (1e6 if sys.platform == "darwin" else 1e3)),
        "kept_mb": round(kept / 1e6, 1),
    }


class _Clock(Watcher):
    """Times a training."""

    def __init__(self):
        self.chunks = 0

    def begins(self, name: str, population: Population, genes: np.ndarray) -> None:
        self.population = population

    def compiled(self) -> None:
        self.began = time.perf_counter()

    def advances(self, advanced: list[int]) -> None:
        self.chunks += 1

    def ends(self) -> None:
        self.ended = time.perf_counter()

    def device_s(self, rounds: int) -> float:
        """What a chunk's epoch takes where nothing else is done: the median of some rounds."""
        whole = self.population
        lanes, runs = whole.lanes, whole.runs[: whole.lanes.count]
        members: list[int | None] = [*range(len(runs)), *[0] * (lanes.count - len(runs))]
        first = whole.trainer.init(whole.inputs.model_key[members])
        state = lanes.place(packed(whole.trainer, first))
        inputs = whole._inputs(members)
        tracks = lanes.tracks(whole.cache, [whole.runs[i or 0] for i in members])
        seconds = []
        for _ in range(rounds):
            fresh = jax.block_until_ready(jax.tree.map(lambda x: x.copy(), state))
            begin = time.perf_counter()
            jax.block_until_ready(epoch(whole.trainer, lanes, fresh, inputs, tracks))
            seconds.append(time.perf_counter() - begin)
        return float(np.median(seconds))


def made_up_store(
    path: pathlib.Path, genes: int, assays: int = _ASSAYS, window: tuple[int, int] = _WINDOW
) -> None:
    """One cell, assays of noise, genes spread over ten chromosomes."""
    random = np.random.default_rng(0)
    chromosomes = [f"chr{i + 1}" for i in range(10)]
    chrom = np.array(chromosomes)[np.sort(np.arange(genes) % 10)]
    (bins, bin_bp), window_bp = window, window[0] * window[1]
    tss = window_bp * (1 + np.arange(genes))
    table = pd.DataFrame(
        {
            "gene_id": [f"gene{i}" for i in range(genes)],
            "gene_name": [f"gene{i}" for i in range(genes)],
            "chrom": chrom,
            "tss": tss,
            "strand": np.where(random.random(genes) < 0.5, "-", "+"),
        }
    )
    names = [f"assay{i}" for i in range(assays)]
    manifest = Manifest(
        window_bp=window_bp,
        bin_bp=bin_bp,
        assembly="made up",
        chrom_sizes=dict.fromkeys(chromosomes, int(tss[-1]) + window_bp),
        chromosomes=chromosomes,
        blind=[],
        cells=["cell"],
        assays=names,
        tracks=[["cell", name] for name in names],
        units=dict.fromkeys(names, "pvalue"),
        groups=dict.fromkeys(names, "histone"),
        min_covered=0.0,
        tss="gene_5p",
        candidates_sha256="0",
    )
    store = WindowStore.create(path, manifest, table, random.gamma(1, 5, (1, genes)))
    covered = np.ones(genes, np.float32)
    for name in names:
        signal = random.gamma(0.5, 4, (genes, bins)).astype(np.float32)
        source = [{"name": name, "bytes": 0, "sha256": "0"}]
        store.write_slab("cell", name, signal, covered, source)
