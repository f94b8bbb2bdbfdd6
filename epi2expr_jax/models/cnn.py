"""The regression CNN derived from GOPHER (Toneyan et al., Nat Mach Intell 2022).

1,797,289 parameters (moving averages included) for one assay in 400 bins.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epi2expr_jax.models.config import StepCost, WindowModelConfig
from epi2expr_jax.models.layers import ConvBlock, Dense, layer_key

# filters, kernel width, pool, dropout rate
TRUNK = ((192, 19, 8, 0.1), (256, 7, 4, 0.1), (512, 7, 4, 0.2))
# After flattening a single bin is left: a kernel of 1 makes a dense layer.
HEAD = ((256, 1, 1, 0.3), (8, 1, 1, 0.1), (256, 7, 1, 0.2), (64, 7, 1, 0.1))


@dataclasses.dataclass(frozen=True)
class CnnConfig(WindowModelConfig):
    """Configuration of `Cnn`; the defaults are the published 10 kb in bins of 25 bp."""

    window_bp: int = 10_000
    bin_bp: int = 25

    NAME: ClassVar[str] = "cnn"
    MIN_BINS: ClassVar[int] = 128
    MAX_RATE: ClassVar[float] = 0.3
    TRAINING: ClassVar[Mapping] = {"plateau": {"epochs": 100, "batch_size": 128}}
    STEP_COST: ClassVar[StepCost] = StepCost(128, 146, 3.7e6, 97e6, 177.5e6)

    def build(self, *, rngs: nnx.Rngs) -> "Cnn":
        """A model with fresh weights, drawn from the stream `params`."""
        return Cnn(self, rngs=rngs)


class Cnn(nnx.Module):
    """Three convolutions with pooling, two dense layers, two convolutions over one bin, a sum."""

    def __init__(self, config: CnnConfig, *, rngs: nnx.Rngs):
        def blocks(table, channels):
            made = []
            for filters, width, pool, rate in table:
                filters = config.hidden(filters)
                made.append(
                    ConvBlock(
                        channels,
                        filters,
                        width,
                        pool=pool,
                        rate=rate * config.dropout,
                        folded=pool > 1 and width * channels <= filters,
                        rngs=rngs,
                    )
                )
                channels = filters
            return nnx.List(made), channels

        self.trunk, channels = blocks(TRUNK, config.assays)
        bins = config.window.bins
        for _, _, pool, _ in TRUNK:
            bins //= pool
        self.head, channels = blocks(HEAD, bins * channels)
        self.output = Dense(channels, 1, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B W A"], *, mask: Bool[Array, "B"], key: PRNGKeyArray | None
    ) -> Float[Array, "B"]:
        """Predicted expression of each gene, in the target's own scale.

        Args:
            x: transformed signal; genes outside `mask` may hold anything finite.
            mask: which genes of the batch are there.
            key: for training mode, which drops out with it, normalises by the statistics of the
                genes in `mask` and updates the moving averages in place; None for inference.
        """
        layer = 0
        for block in self.trunk:
            x = block(x, mask=mask, key=layer_key(key, layer))
            layer += 1
        x = x.reshape(x.shape[0], 1, -1)
        for block in self.head:
            x = block(x, mask=mask, key=layer_key(key, layer))
            layer += 1
        return jnp.squeeze(self.output(x[:, 0]), axis=1)
