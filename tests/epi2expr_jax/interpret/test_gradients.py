"""Integrated gradients of one batch, where the answer is known."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import WindowSignal
from epi2expr_jax.interpret.gradients import integrate
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.models.weights import fresh_weights, parts_of


@dataclasses.dataclass(frozen=True)
class LinearConfig(WindowModelConfig):
    """Every bin times its weight; squared, if asked."""

    squared: bool = False

    NAME: ClassVar[str] = "linear"
    TRAINING: ClassVar[Mapping] = {}

    def build(self, *, rngs):
        return Linear(self, rngs=rngs)


class Linear(nnx.Module):
    def __init__(self, config, *, rngs):
        self.squared = config.squared
        self.dense = nnx.Linear(config.window.bins * config.assays, 1, use_bias=False, rngs=rngs)

    def __call__(self, x, *, mask, key):
        y = self.dense(x.reshape(len(x), -1))[:, 0]
        return y**2 if self.squared else y


def test_shares_of_a_linear_model_are_signal_times_weight():
    """And of its square the same, times the prediction: the path is the diagonal."""
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    signal, index = WindowSignal(jnp.asarray(values)), jnp.array([3, 0, 0])
    x = np.moveaxis(values[:, [3, 0, 0]], 0, 1)  # [B A W]
    for squared in (False, True):
        config = LinearConfig(400, 100, assays=2, squared=squared)
        params, stats = fresh_weights(config, jax.random.key(0))
        weights = {"params": params, "stats": stats}
        graph = parts_of(config)[0]
        own = integrate(graph, BatchPlan(3), weights, signal, index, 1e-3)
        promoter, regions, difference, residual = map(np.asarray, own)
        weight = nnx.to_pure_dict(params)["dense"]["kernel"].reshape(4, 2).T
        expected = x * weight
        total = expected.sum((1, 2))
        if squared:
            expected, total = expected * total[:, None, None], total**2
        np.testing.assert_allclose(promoter, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(difference, total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(residual, 0, atol=1e-5)
        assert regions.shape == (3, 2, 0)


def test_shares_come_where_x64_is_on():
    """With weights of double precision, as are drawn there."""
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    with jax.enable_x64(True):
        config = LinearConfig(400, 100, assays=2)
        params, stats = fresh_weights(config, jax.random.key(0))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        weights = {"params": params, "stats": stats}
        signal, index = WindowSignal(jnp.asarray(values)), jnp.array([3, 0, 0])
        own = integrate(parts_of(config)[0], BatchPlan(3), weights, signal, index, 1e-3)
        promoter = np.asarray(own[0])
    weight = np.asarray(nnx.to_pure_dict(params)["dense"]["kernel"]).reshape(4, 2).T
    expected = np.moveaxis(values[:, [3, 0, 0]], 0, 1) * weight
    np.testing.assert_allclose(promoter, expected, rtol=1e-4, atol=1e-6)
