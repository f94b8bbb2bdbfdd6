"""Integrated gradients of one batch of genes, on the device.

A batch is gathered as for prediction; every feature of it, at every resolution, is scaled along the
straight path from no signal to all of it.

Axes: `B` genes a batch, `A` assays, `W` the model's finest bins, `N` regions a gene, `L` positions
at a resolution.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import Signal
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout

_NODES = 16  # of each piece of the path from no signal to all of it
_MOST_PIECES = 64


def integrate(
    graph: Any,
    plan: BatchPlan,
    weights: dict[str, Any],
    signal: Signal,
    index: Int[Array, " B"],
    tolerance: float,
) -> tuple[Array, ...]:
    """Shares of promoter bins `[B A W]` and of regions `[B A N]`, the difference `[B]` between the
    two predictions, and by how much the shares miss it `[B]`, in the model's own units.

    The path is cut into twice as many pieces until no gene misses by more than the tolerance, or by
    that share of its difference if that is larger; at most into 64.

    Args:
        graph: of the model, as `parts_of` gives it.
        index: the genes of the batch.
    """
    pieces = 1
    while True:
        own = _integrate(graph, plan, weights, signal, index, jnp.int32(pieces))
        difference, residual = np.asarray(own[2]), np.asarray(own[3])
        enough = np.abs(residual) <= tolerance * np.maximum(1, np.abs(difference))
        if enough.all() or pieces >= _MOST_PIECES:
            return own
        pieces *= 2


def _features(x: Any) -> Any:
    return (x.promoter, x.region) if isinstance(x, RegionBatch) else x


def _with(x: Any, features: Any) -> Any:
    if not isinstance(x, RegionBatch):
        return features
    return dataclasses.replace(x, promoter=features[0], region=features[1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _integrate(
    graph: Any, plan: BatchPlan, weights: Any, signal: Signal, index: Array, pieces: Array
) -> tuple[Array, ...]:
    """Shares of promoter bins `[B A W]` and regions `[B A N]`, the difference, and what is missed.

    Gauss-Legendre nodes in each of so many pieces of the straight path.
    """
    model = nnx.merge(graph, weights["params"], weights["stats"])
    mask = jnp.ones(plan.size, bool)
    x = signal.gather(index, plan)
    features = _features(x)

    def output(share: Any) -> Float[Array, " B"]:
        scaled = jax.tree.map(lambda part: share * part, features)
        return model(_with(x, scaled), mask=mask, key=None)

    def gradient(share: Any) -> Any:
        scaled = jax.tree.map(lambda part: share * part, features)
        return jax.grad(lambda f: model(_with(x, f), mask=mask, key=None).sum())(scaled)

    nodes, weight = np.polynomial.legendre.leggauss(_NODES)
    nodes, weight = jnp.asarray((nodes + 1) / 2), jnp.asarray(weight / 2)

    def add(step: Array, total: Any) -> Any:
        piece, node = step // _NODES, step % _NODES
        share = ((piece + nodes[node]) / pieces).astype(jnp.float32)
        factor = (weight[node] / pieces).astype(jnp.float32)
        # Where x64 is on, a gradient may be wider than the total.
        return jax.tree.map(lambda a, b: a + (factor * b).astype(a.dtype), total, gradient(share))

    zero = jax.tree.map(jnp.zeros_like, features)
    total = lax.fori_loop(0, pieces * _NODES, add, zero)
    shares = jax.tree.map(lambda a, b: a * b, features, total)
    difference = output(1.0) - output(0.0)
    if not isinstance(x, RegionBatch):
        promoter = jnp.moveaxis(shares, 1, 2)
        regions = jnp.zeros((*promoter.shape[:2], 0))
    else:
        promoter = _on_finest(shares[0])
        layout = TokenLayout.of(x.slots)
        regions = jnp.zeros((*promoter.shape[:2], 0))
        if layout.prefix:
            summed = jnp.stack([part.sum(-1) for part in shares[1]]).sum(0)
            regions = jnp.moveaxis(layout.regions_by_gene(summed), 1, 2)
    residual = promoter.sum((1, 2)) + regions.sum((1, 2)) - difference
    return promoter, regions, difference, residual


def _on_finest(shares: Sequence[Array]) -> Float[Array, "B A L"]:
    """Shares of all resolutions in the bins of the finest, coarse bins spread evenly."""
    finest = max(part.shape[-1] for part in shares)
    total = jnp.zeros((*shares[0].shape[:2], finest))
    for part in shares:
        factor = finest // part.shape[-1]
        total = total + jnp.repeat(part, factor, axis=2) / factor
    return total
