"""Speed, side by side with the peers, in one run, as ratios. One JSON line.

    python -m experiments.benchmark --what=windows
    python -m experiments.benchmark --what=cnn
    python -m experiments.benchmark --what=chromoformer
    python -m experiments.benchmark --what=scaling
    python -m experiments.benchmark --what=grid --precision=bfloat16
    python -m experiments.benchmark --what=perturb --store=demo.zarr

windows: windows/s of our bigWig reader against the original's route (pyBigWig, Python lists) and
    against pybigtools, on one core, 10 kb windows in bins of 25 bp.
cnn: training gene-steps/s of a population of the full CNN against one Keras 3 model after the
    other on JAX, batch 128, dropout included, and the share of this machine's own rate of float32
    matrix products at 177.5 MFLOP a gene-step; and both once more with equal allocators (huge
    pages), which Keras gains more from.
chromoformer: training and inference genes/s and peak memory against chromoformer 1.1.3 on PyTorch:
    the same weights and inputs, batch 64 (and the reference also at 16, its best), contacts drawn
    as in its demo, and the share of the rate of matrix products at 196 MFLOP a gene trained.

scaling: seconds a run and epoch of the CNN against the number of runs, of genes, and the share of
    runs that still live; a table and a plot in ./scaling.
perturb: gene-edits/s of the original study's distal preset (17 bins x 11 factors, four models)
    against its PyTorch network on one gene and edit at a time.
grid: what 660 CNNs and 308 Chromoformers cost on this device, and the estimate for one H100.

Both sides take turns (ABAB), and the median ratio counts: absolute figures drift with the machine.
Rounds beside which other processes ran are dropped and measured again.
Needs the extra `peers`:  pip install 'epi2expr_jax[peers]'
"""

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pyBigWig
from absl import flags

from data_prep.bigwig import window_means
from data_prep.program import start
from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.population import Population
from epi2expr_jax.resident import WindowSignal
from epi2expr_jax.runs import Run, RunInputs
from epi2expr_jax.schedules import EarlyStopConfig
from epi2expr_jax.streaming import TrackCache
from epi2expr_jax.training import PRECISIONS, TrainConfig, Trainer
from experiments.benchmark_chromoformer import chromoformer, training_pace
from experiments.benchmark_perturb import perturbation
from experiments.benchmark_scaling import grid, scaling
from experiments.flags import define_store
from experiments.turns import matmul_mflops, rate, ratio, require_peers, take_turns

FLAGS = flags.FLAGS


# -- windows ---------------------------------------------------------------------------------

_CHROMOSOMES = {"chr1": 60_000_000, "chr2": 40_000_000}
_WINDOW = WindowSpec(10_000, 25)


def _write_track(path: pathlib.Path, random: np.random.Generator) -> None:
    """Run-length signal like a Roadmap p-value track: short runs in peaks, long ones between."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(_CHROMOSOMES.items()))
        for chrom, length in _CHROMOSOMES.items():
            lengths = np.where(
                random.random(length // 50) < 0.7,
                random.integers(1, 30, length // 50),
                random.integers(30, 300, length // 50),
            )
            ends = np.cumsum(lengths)
            ends = ends[ends < length]
            starts = np.concatenate([[0], ends[:-1]])
            values = np.round(random.exponential(1.5, len(ends)), 4)
            for i in range(0, len(ends), 1 << 18):
                part = slice(i, i + (1 << 18))
                file.addEntries(
                    [chrom] * len(ends[part]),
                    starts[part].tolist(),
                    ends=ends[part].tolist(),
                    values=values[part].tolist(),
                )


def _list_route(path: str, chroms: list[str], starts: np.ndarray) -> np.ndarray:
    """The original's: every base as a Python float, then bin means."""
    out = np.zeros((len(starts), _WINDOW.bins), np.float32)
    with pyBigWig.open(path) as file:
        for i, (chrom, begin) in enumerate(zip(chroms, starts.tolist(), strict=True)):
            bases = np.array(file.values(chrom, begin, begin + _WINDOW.window_bp))
            out[i] = np.nan_to_num(bases).reshape(_WINDOW.bins, -1).mean(1)
    return out


def _pybigtools_route(path: str, chroms: list[str], starts: np.ndarray) -> np.ndarray:
    """Its own exact bin means, which are faster than binning its bases."""
    import pybigtools  # pyright: ignore[reportMissingImports]

    out = np.zeros((len(starts), _WINDOW.bins), np.float32)
    with pybigtools.open(path) as file:
        for i, (chrom, begin) in enumerate(zip(chroms, starts.tolist(), strict=True)):
            end = begin + _WINDOW.window_bp
            out[i] = file.values(chrom, begin, end, _WINDOW.bins, "mean", exact=True, fillna=0)
    return out


def windows(rounds: int, number: int = 1000) -> dict:
    """Windows/s on one core, with the same numbers checked on all sides."""
    require_peers("pybigtools")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "track.bigwig")
        _write_track(pathlib.Path(path), random)
        # TSSs cluster: half of them within a few kb of another one.
        chroms, starts = [], []
        for chrom, length in _CHROMOSOMES.items():
            alone = random.integers(20_000, length - 40_000, number // 4)
            near = alone + random.integers(-5_000, 5_000, len(alone))
            starts += np.sort(np.concatenate([alone, near])).tolist()
            chroms += [chrom] * (2 * len(alone))
        starts = np.array(starts)
        routes: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda: window_means(path, chroms, starts, _WINDOW)[0],
            "list": lambda: _list_route(path, chroms, starts),
            "pybigtools": lambda: _pybigtools_route(path, chroms, starts),
        }
        results = {name: route() for name, route in routes.items()}
        for name, result in results.items():
            np.testing.assert_allclose(result, results["ours"], rtol=1e-5, err_msg=name)

        def cpu_rate(route: Callable[[], np.ndarray]) -> Callable[[], float]:
            def measure() -> float:
                begin = time.process_time()
                route()
                return len(starts) / (time.process_time() - begin)

            return measure

        sides = {name: cpu_rate(route) for name, route in routes.items()}
        rates, by_round, disturbed = take_turns(sides, rounds)
    return {
        "what": "windows",
        "ratio_vs_list": round(ratio(by_round["ours"], by_round["list"]), 2),
        "ratio_vs_pybigtools": round(ratio(by_round["ours"], by_round["pybigtools"]), 2),
        "windows_per_s": {name: round(value) for name, value in rates.items()},
        "disturbed_rounds": disturbed,
    }


# -- cnn -------------------------------------------------------------------------------------

_BATCH = 128
_STEPS = 8  # batches an epoch of a run, and one more to validate
_RUNS = 4
# Multiply-adds of the published CNN's convolutions and dense layers, forward and backward, twice.
_MFLOP_A_GENE_STEP = 177.5


def _cnn_data() -> tuple[np.ndarray, np.ndarray]:
    """Windows `[G, W, 1]` of about the right shape, and standardised targets `[G]`."""
    random = np.random.default_rng(0)
    genes = _BATCH * (_STEPS + 1)
    signal = np.arcsinh(random.gamma(0.5, 4, (genes, 400, 1))).astype(np.float32)
    return signal, random.standard_normal(genes).astype(np.float32)


class _OneTrack:
    """Made-up windows, as a dataset of one cell and one assay."""

    cells, assays = ("cell",), ("assay",)

    def __init__(self, values: np.ndarray):
        self._track = WindowSignal(values)

    def track(self, *_: str) -> WindowSignal:
        return self._track

    def regions(self, _: str) -> None:
        return


def _our_epoch() -> Callable[[], object]:
    """One epoch of a population, by the engine that `experiments.train` uses."""
    signal, target = _cnn_data()
    runs = [Run("cell", ("assay",), "fold", seed) for seed in range(_RUNS)]
    train = np.arange(len(target)) < _BATCH * _STEPS
    keys = np.random.default_rng(1).integers(0, 2**32, (2, _RUNS, 2), np.uint32)
    inputs = RunInputs(
        target=np.tile(target, (_RUNS, 1)),
        train=np.tile(train, (_RUNS, 1)),
        validation=np.tile(~train, (_RUNS, 1)),
        order_key=keys[0],
        model_key=keys[1],
    )
    config = TrainConfig(epochs=10_000, early_stop=EarlyStopConfig(10_000), batch_size=_BATCH)
    trainer = Trainer(REGISTRY["cnn"](), config)
    return Population(trainer, runs, inputs, TrackCache(_OneTrack(signal[..., 0]))).train_epoch


def _keras_epochs() -> Callable[[], object]:
    """As many epochs of one Keras model as the population has runs."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras  # pyright: ignore[reportMissingImports]
    from keras import layers  # pyright: ignore[reportMissingImports]

    def block(x, linear, pool, dropped):
        x = layers.ReLU()(layers.BatchNormalization()(linear(x)))
        if pool > 1:
            x = layers.MaxPool1D(pool)(x)
        return layers.Dropout(dropped)(x)

    def conv(filters, width):
        return layers.Conv1D(filters, width, padding="same")

    inputs = x = keras.Input((400, 1))
    for filters, width, pool, dropped in ((192, 19, 8, 0.1), (256, 7, 4, 0.1), (512, 7, 4, 0.2)):
        x = block(x, conv(filters, width), pool, dropped)
    x = block(layers.Flatten()(x), layers.Dense(256), 1, 0.3)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(8)(x)))
    x = layers.Dropout(0.1)(layers.Reshape((1, 8))(x))
    for filters, dropped in ((256, 0.2), (64, 0.1)):
        x = block(x, conv(filters, 7), 1, dropped)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    model.compile(optimizer="adam", loss="mse")
    signal, target = _cnn_data()
    part = slice(0, _BATCH * _STEPS), slice(_BATCH * _STEPS, None)
    return lambda: model.fit(
        signal[part[0]],
        target[part[0]],
        validation_data=(signal[part[1]], target[part[1]]),
        batch_size=_BATCH,
        epochs=_RUNS,
        verbose=0,  # pyright: ignore[reportArgumentType]
    )


# What glibc reads as a process starts: memory in huge pages, so that few are faulted in. On CPU a
# step called from Python spends a fifth of its time there, and an epoch in one call far less.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def cnn(rounds: int) -> dict:
    """Training gene-steps/s of the published CNN with dropout; one batch an epoch validates.

    Measured again in a process where both sides allocate from huge pages.
    """
    require_peers("keras")
    with_huge_pages = subprocess.run(
        [sys.executable, "-c", f"from experiments import benchmark; benchmark.print_cnn({rounds})"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | _HUGE_PAGES,
    ).stdout
    return {
        "what": "cnn",
        **_cnn(rounds),
        "with_huge_pages": json.loads(with_huge_pages.splitlines()[-1]),
    }


def print_cnn(rounds: int) -> None:
    """`cnn`, as one line of JSON, in a process that was started for it."""
    print(json.dumps(_cnn(rounds)))


def _cnn(rounds: int) -> dict:
    gene_steps = _RUNS * _STEPS * _BATCH
    sides = {
        "ours": rate(_our_epoch(), gene_steps),
        "keras": rate(_keras_epochs(), gene_steps),
        "matmul_mflops": matmul_mflops(),
    }
    rates, by_round, disturbed = take_turns(sides, rounds)
    share = ratio(by_round["ours"], by_round["matmul_mflops"]) * _MFLOP_A_GENE_STEP
    return {
        "ratio_vs_keras": round(ratio(by_round["ours"], by_round["keras"]), 3),
        "share_of_matmul_peak": round(share, 3),
        "gene_steps_per_s": {name: round(rates[name]) for name in ("ours", "keras")},
        "matmul_gflops": round(rates["matmul_mflops"] / 1e3, 1),
        "disturbed_rounds": disturbed,
    }


def whole_study(rounds: int) -> dict:
    """`grid`, with Chromoformer's pace as the other benchmark measures it."""
    return grid(FLAGS.precision, training_pace(FLAGS.precision, rounds))


BENCHMARKS: dict[str, Callable[[int], dict]] = {
    "windows": windows,
    "cnn": cnn,
    "chromoformer": chromoformer,
    "scaling": scaling,
    "grid": whole_study,
    "perturb": perturbation,
}


def define_flags() -> None:
    flags.DEFINE_enum("what", None, list(BENCHMARKS), "What to measure.", required=True)
    define_store()
    flags.DEFINE_integer("rounds", 5, "Rounds; the median counts.", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "grid: of matrix products.")


def main() -> None:
    result = BENCHMARKS[FLAGS.what](FLAGS.rounds)
    print(json.dumps({**result, "machine": platform.processor() or platform.machine()}))


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
