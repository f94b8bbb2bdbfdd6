"""The CNN against Keras: `--what=cnn` of `experiments.benchmark`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from epi2expr_jax.inputs.device_tracks import WindowSignal
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import Run, RunInputs
from epi2expr_jax.training.schedules import EarlyStopConfig
from experiments.benchmarks.turns import matmul_mflops, rate, ratio, require_peers, take_turns

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
        [sys.executable, "-c", f"from experiments.benchmarks import cnn; cnn.print_cnn({rounds})"],
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
