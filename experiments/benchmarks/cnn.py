"""The CNN against Keras: `--what=cnn` of `experiments.benchmark`."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models.cnn import HEAD, TRUNK, CnnConfig
from epi2expr_jax.training.one_run import PRECISIONS
from experiments.benchmarks.made_up import OneTrack, population, window_trainer
from experiments.benchmarks.turns import matmul_mflops, rate, ratio, require_peers, take_turns

_BATCH = 128
_STEPS = 8  # batches an epoch of a run, and one more to validate
_RUNS = 4
# A convolution takes no name of an algorithm: its products are bfloat16 if its layer is.
_PRODUCTS = {**PRECISIONS, "bfloat16": "default"}
GENE_STEPS = _RUNS * _STEPS * _BATCH  # of one measurement
# Multiply-adds of the published CNN's convolutions and dense layers, forward and backward, twice.
_MFLOP_A_GENE_STEP = CnnConfig.STEP_COST.gene_flops / 1e6


def _cnn_data() -> tuple[np.ndarray, np.ndarray]:
    """Windows `[G, W, 1]` of about the right shape, and standardised targets `[G]`."""
    random = np.random.default_rng(0)
    genes = _BATCH * (_STEPS + 1)
    signal = np.arcsinh(random.gamma(0.5, 4, (genes, 400, 1))).astype(np.float32)
    return signal, random.standard_normal(genes).astype(np.float32)


def _our_epoch() -> Callable[[], object]:
    """One epoch of a population, by the engine that `experiments.train` uses."""
    genes, train = _BATCH * (_STEPS + 1), _BATCH * _STEPS
    trainer = window_trainer(CnnConfig(), _BATCH)
    return population(trainer, TrackCache(OneTrack(genes)), genes, train, _RUNS).train_epoch


def keras_epochs() -> Callable[[], object]:
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


def flax_epoch(
    config: CnnConfig, precision: str, batch: int, signal: np.ndarray, target: np.ndarray
) -> Callable[[], object]:
    """One epoch of one model in Flax's own layers, a call a batch, as Keras does.

    Args:
        precision: bfloat16 is that of the layers (mixed precision); else of matrix products.
        signal: windows `[G, W, 1]`, on the host.
        target: `[G]`.
    """
    made = {"rngs": nnx.Rngs(0), "dtype": jnp.bfloat16 if precision == "bfloat16" else None}
    layers: list[Callable] = []

    def block(linear, filters, pool, dropped):
        layers.extend([linear, nnx.BatchNorm(filters, **made), nnx.relu])
        if pool > 1:
            layers.append(functools.partial(nnx.max_pool, window_shape=(pool,), strides=(pool,)))
        layers.append(nnx.Dropout(dropped, rngs=made["rngs"]))

    for filters, width, pool, dropped, channels in _table(config):
        if width == 1:
            layers.append(lambda x: x.reshape(len(x), 1, -1))
            block(nnx.Linear(channels, filters, **made), filters, 1, dropped)
        else:
            block(nnx.Conv(channels, filters, width, **made), filters, pool, dropped)
    layers.append(nnx.Linear(config.hidden(HEAD[-1][0]), 1, **made))
    graph, start, rest = nnx.split(nnx.Sequential(*layers), nnx.Param, ...)
    adam = optax.adam(1e-3)

    def loss(params, rest, x, y):
        model = nnx.merge(graph, params, rest, copy=True)
        outputs = model(x)[:, 0, 0].astype(jnp.float32)
        return jnp.mean((outputs - y) ** 2), nnx.state(model, nnx.Not(nnx.Param))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        params, rest, moments = state
        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params, rest, x, y)
        updates, moments = adam.update(gradient, moments)
        return (optax.apply_updates(params, updates), rest, moments), value

    kept = [(start, rest, adam.init(start))]

    def epoch() -> None:
        with jax.default_matmul_precision(_PRODUCTS[precision]):
            for first in range(0, len(target), batch):
                part = slice(first, first + batch)
                kept[0], value = step(kept[0], signal[part], target[part])
        jax.block_until_ready(value)

    return epoch


def torch_epoch(
    config: CnnConfig, precision: str, batch: int, signal: np.ndarray, target: np.ndarray
) -> Callable[[], object]:
    """The same in PyTorch, eager, its data on the device; bfloat16 is autocast's."""
    import torch  # pyright: ignore[reportMissingImports]

    nn, device = torch.nn, "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True
    layers: list[Any] = []
    for filters, width, pool, dropped, channels in _table(config):
        if width == 1:
            layers += [nn.Flatten(), nn.Linear(channels, filters)]
        else:
            layers += [] if pool > 1 else [nn.Unflatten(1, (channels, -1))]
            layers.append(nn.Conv1d(channels, filters, width, padding="same"))
        layers += [nn.BatchNorm1d(filters, eps=1e-3), nn.ReLU()]
        layers += [nn.MaxPool1d(pool)] if pool > 1 else []
        layers += [nn.Dropout(dropped)] + ([] if pool > 1 else [nn.Flatten()])
    layers.append(nn.Linear(config.hidden(HEAD[-1][0]), 1))
    model = nn.Sequential(*layers).to(device)
    adam = torch.optim.Adam(model.parameters(), fused=device == "cuda")
    x = torch.tensor(signal, device=device).transpose(1, 2).contiguous()
    y = torch.tensor(target, device=device)

    def epoch() -> None:
        for first in range(0, len(target), batch):
            part = slice(first, first + batch)
            adam.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                outputs = model(x[part])[:, 0]
            loss = ((outputs.float() - y[part]) ** 2).mean()
            loss.backward()
            adam.step()
        loss.item()

    return epoch


def _table(config: CnnConfig) -> list[tuple[int, int, int, float, int]]:
    """Filters, kernel width, pool, dropout and channels in of every layer but the last."""
    rows, channels, bins = [], config.assays, config.window.bins
    for filters, width, pool, dropped in (*TRUNK, *HEAD):
        if width == 1:
            channels, bins = channels * bins, 1
        rows.append((config.hidden(filters), width, pool, dropped, channels))
        channels, bins = config.hidden(filters), bins // pool
    return rows


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
    sides = {
        "ours": rate(_our_epoch(), GENE_STEPS),
        "keras": rate(keras_epochs(), GENE_STEPS),
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
