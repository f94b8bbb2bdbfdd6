"""Losses over the genes that are there.

Genes outside the mask count for nothing, whatever stands there, NaN included; no gene at all makes
0. Inside the mask a NaN stays a NaN.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mse(
    *, prediction: Float[Array, "B"], target: Float[Array, "B"], mask: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Mean squared error over the genes in `mask`, in squared units of the target."""
    # Masked before squaring: a NaN squared and then masked would still have a NaN gradient.
    error = jnp.where(mask, prediction - target, 0)
    return _mean(error**2, mask)


def masked_cross_entropy(
    *, prediction: Float[Array, "B"], target: Float[Array, "B"], mask: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Mean cross-entropy, in nats, of log odds against labels 0 and 1, over the genes in `mask`.

    With two logits this is the cross-entropy of their softmax, the log odds being their difference.
    """
    odds = jnp.where(mask, prediction, 0)
    label = jnp.where(mask, target, 0)
    # softplus(-odds) for label 1, softplus(odds) for label 0; a NaN in the mask passes through.
    loss = jax.nn.softplus(odds) - label * odds
    return _mean(jnp.where(mask, loss, 0), mask)


def _mean(loss: Float[Array, "B"], mask: Bool[Array, "B"]) -> Float[Array, ""]:
    return jnp.sum(loss) / jnp.maximum(jnp.sum(mask), 1).astype(loss.dtype)


LOSSES: Mapping[str, Callable[..., Float[Array, ""]]] = MappingProxyType(
    {"regression": masked_mse, "classification": masked_cross_entropy}
)
