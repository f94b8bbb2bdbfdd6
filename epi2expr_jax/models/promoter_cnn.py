"""The promoter CNN of the ChromExpress study: 6 kb around the TSS in bins of 100 bp.

2,619,126 parameters for one assay in 60 bins. No batch norm. Unless told otherwise it reads up
to 20 kb of a store's window, and takes the published 64 genes a step, or fewer where a store has
few genes (docs/decisions/0071).
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epi2expr_jax.models.config import StepCost, WindowModelConfig
from epi2expr_jax.models.layers import ConvBlock, Dense, dropout, layer_key

# filters, kernel width, pool
TRUNK = ((175, 8, 4), (350, 4, 2), (700, 4, 2))
TRUNK_RATE = 0.1
FLAT_RATE = 0.4
HEAD = (625, 125)


@dataclasses.dataclass(frozen=True)
class PromoterCnnConfig(WindowModelConfig):
    """Configuration of `PromoterCnn`; the defaults are the published 6 kb in bins of 100 bp."""

    window_bp: int = 6_000
    bin_bp: int = 100

    NAME: ClassVar[str] = "promoter_cnn"
    STORE_BP: ClassVar[int] = 20_000
    MIN_BINS: ClassVar[int] = 16
    MAX_RATE: ClassVar[float] = 0.4
    TRAINING: ClassVar[Mapping] = {"plateau": {"epochs": 100, "batch_size": 0, "retry": True}}
    STEP_COST: ClassVar[StepCost] = StepCost(64, 61, 2.85e6, 49e6, 72e6)

    def build(self, *, rngs: nnx.Rngs) -> "PromoterCnn":
        """A model with fresh weights, drawn from the stream `params`."""
        return PromoterCnn(self, rngs=rngs)


class PromoterCnn(nnx.Module):
    """Three convolutions with pooling, two dense layers, one output."""

    def __init__(self, config: PromoterCnnConfig, *, rngs: nnx.Rngs):
        channels, bins = config.assays, config.window.bins
        trunk = []
        for filters, width, pool in TRUNK:
            filters = config.hidden(filters)
            rate = TRUNK_RATE * config.dropout
            trunk.append(
                ConvBlock(channels, filters, width, pool=pool, rate=rate, norm=False, rngs=rngs)
            )
            channels, bins = filters, bins // pool
        self.trunk = nnx.List(trunk)
        self.flat_rate = FLAT_RATE * config.dropout
        channels *= bins
        head = []
        for published in HEAD:
            head.append(Dense(channels, config.hidden(published), rngs=rngs))
            channels = config.hidden(published)
        self.head = nnx.List(head)
        self.output = Dense(channels, 1, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B W A"], *, mask: Bool[Array, "B"], key: PRNGKeyArray | None
    ) -> Float[Array, "B"]:
        """Predicted expression of each gene, in the target's own scale.

        Args:
            x: transformed signal; genes outside `mask` may hold anything finite.
            mask: which genes of the batch are there; without batch norm, no gene sees another.
            key: for training mode, which drops out with it; None for inference.
        """
        for layer, block in enumerate(self.trunk):
            x = block(x, mask=mask, key=layer_key(key, layer))
        flat_key = layer_key(key, len(self.trunk))
        hidden = dropout(x.reshape(x.shape[0], -1), rate=self.flat_rate, key=flat_key)
        for dense in self.head:
            hidden = nnx.relu(dense(hidden))
        return jnp.squeeze(self.output(hidden), axis=1)
