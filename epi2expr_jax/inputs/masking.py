"""Which assays a model is shown. One masked-mark model knows every subset of its assays.

It reads twice as many channels as it has assays: the signals, 0 where an assay is absent, and for
each a mask, 1 where it is present, which tells an absent assay from an empty one. In training every
gene shows a random subset, so that the model learns the best prediction from each ("missingness
during training": Covert, Lundberg & Lee, J Mach Learn Res 2021, section 4).

Axes: `B` genes a batch, `A` assays, `S` subsets, `W` bins, `P` pairs of a gene and a region, `L`
positions.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout

CHANNELS = 2  # of each assay: its signal and its mask


def every_subset(assays: int) -> Bool[np.ndarray, "S A"]:
    """All `S = 2^A` subsets, that of none first: bit `a` of a row's number tells of assay `a`."""
    return (np.arange(2**assays)[:, None] >> np.arange(assays)) % 2 == 1


def random_subsets(key: PRNGKeyArray, genes: int, assays: int) -> Bool[Array, "B A"]:
    """For each gene the assays it shows: how many is uniform in 1 … A, then which of them.

    Uniform in size, as Shapley values weigh every size of subset the same.
    """
    size_key, order_key = jax.random.split(key)
    size = jax.random.randint(size_key, (genes, 1), 1, assays + 1)
    place = jnp.argsort(jax.random.uniform(order_key, (genes, assays)), axis=1)
    return place < size


def masked(
    x: Float[Array, "B W A"] | RegionBatch, present: Bool[Array, "B A"]
) -> Float[Array, "B W C"] | RegionBatch:
    """A gathered batch as a masked-mark model reads it: signals and masks, `C = 2A` channels.

    Args:
        x: what the signal's `gather` gives, for models of one window or of regions.
        present: which assays each gene shows; a region shows those of its gene.
    """
    if isinstance(x, RegionBatch):
        of_regions = TokenLayout.of(x.slots).spread(present)
        return dataclasses.replace(
            x,
            promoter=tuple(
                _shown(values, present, own)
                for values, own in zip(x.promoter, x.promoter_valid, strict=True)
            ),
            region=tuple(
                _shown(values, of_regions, own)
                for values, own in zip(x.region, x.region_valid, strict=True)
            ),
        )
    mask = jnp.broadcast_to(present[:, None], x.shape)
    return jnp.concatenate([jnp.where(mask, x, 0), mask.astype(x.dtype)], axis=2)


def _shown(
    values: Float[Array, "P A L"], present: Bool[Array, "P A"], own: Bool[Array, "P L"]
) -> Float[Array, "P C L"]:
    """Signals and masks; in the padding both are 0."""
    mask = present[:, :, None] & own[:, None]
    return jnp.concatenate([jnp.where(mask, values, 0), mask.astype(values.dtype)], axis=1)
