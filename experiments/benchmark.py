"""Speed, side by side with the peers, in one run, as ratios. One JSON line.

    python -m experiments.benchmark --what=windows
    python -m experiments.benchmark --what=binning
    python -m experiments.benchmark --what=roadmap
    python -m experiments.benchmark --what=cnn
    python -m experiments.benchmark --what=chromoformer
    python -m experiments.benchmark --what=scaling
    python -m experiments.benchmark --what=grid --precision=bfloat16
    python -m experiments.benchmark --what=perturb --store=demo.zarr

windows: windows/s and Mb/s of one core, 10 kb windows in bins of 25 bp: our bigWig reader against
    the original's route (pyBigWig, Python lists), pyBigWig's stats(exact=True) and pybigtools; and
    ours against the size of the track, the width of the window, the number of workers: a table and
    a plot in ./throughput.
binning: Mb/s of one core from a bigWig to one of 25 bp, against the same three.
roadmap: what made-up tracks of full size cost to build, bin and count, and so all of the Roadmap's:
    hours, disk, memory. One round; takes some 6 GB of disk and 6 minutes.
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

Where there are two sides they take turns (ABAB), and the median ratio counts: absolute figures
drift with the machine. Rounds beside which other processes ran are dropped and measured again.
Needs the extra `peers`:  pip install 'epi2expr_jax[peers]'
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from absl import flags

from data_prep.program import start
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.population import Population
from epi2expr_jax.resident import WindowSignal
from epi2expr_jax.runs import Run, RunInputs
from epi2expr_jax.schedules import EarlyStopConfig
from epi2expr_jax.streaming import TrackCache
from epi2expr_jax.training import PRECISIONS, TrainConfig, Trainer
from experiments.benchmark_bigwig import binning, windows
from experiments.benchmark_chromoformer import chromoformer, training_pace
from experiments.benchmark_perturb import perturbation
from experiments.benchmark_roadmap import roadmap
from experiments.benchmark_scaling import grid, scaling
from experiments.flags import define_store
from experiments.turns import matmul_mflops, rate, ratio, require_peers, take_turns

FLAGS = flags.FLAGS


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
    "binning": binning,
    "roadmap": roadmap,
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
