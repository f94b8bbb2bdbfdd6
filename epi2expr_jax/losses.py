"""Floor 1. Losses over the genes that are there."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mse(
    *, prediction: Float[Array, "B"], target: Float[Array, "B"], mask: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Mean squared error over the genes in `mask`, in squared units of the target.

    Genes outside the mask count for nothing, whatever stands there, NaN included; no gene at all
    makes 0. Inside the mask a NaN stays a NaN.
    """
    # Masked before squaring: a NaN squared and then masked would still have a NaN gradient.
    error = jnp.where(mask, prediction - target, 0)
    return jnp.sum(error**2) / jnp.maximum(jnp.sum(mask), 1).astype(error.dtype)
