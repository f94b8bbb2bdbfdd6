"""Signal on the device, and how a batch of it is taken.

A *track* is what one assay in one cell gives a model, for all genes. What a run reads is put
together from its tracks: `WindowSignal` serves models of one window a gene, `RegionSignal` those
that read the regions a gene touches as well. Regions lie ragged on the device as in the store, once
for each resolution, so memory follows what they are wide and not what they are padded to.
`over_batches` is the one loop of inference over it.
"""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.transforms import centre_padding, own_positions
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowSignal:
    """One window a gene.

    Attributes:
        values: `[a, G, W]` transformed, oriented bin means of a run's assays; of a track `[G, W]`.
    """

    values: Any

    def gather(self, genes: Int[Array, " B"], _: BatchPlan) -> Float[Array, "B W a"]:
        """The windows of a batch of genes, with the assays as channels."""
        return jnp.moveaxis(self.values[:, genes], 0, -1)

    def n_contacts(self) -> None:
        """Windows have none."""
        return


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CellRegions:
    """Which regions the genes touch in a cell, and where they lie in its tracks.

    Attributes:
        own: `[2, L]` which positions are the promoter's own, on the plus and on the minus strand;
            like `begin` and `bins` one entry a resolution.
        minus: `[G]` which genes are flipped.
        begin: `[regions]` where a padded region begins in `regions`; at least one.
        bins: `[regions]` how many bins each has.
        region: `[G, N]` the regions of each gene, best first; -1 where absent.
        score: `[G, N]` contact scores, 0 where absent.
    """

    own: tuple[Any, ...]
    minus: Any
    begin: tuple[Any, ...]
    bins: tuple[Any, ...]
    region: Any
    score: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RegionTrack:
    """An assay's promoters and regions, one entry a resolution in each tuple.

    Attributes:
        promoter: `[G, L]` transformed, centred, oriented, 0 in the padding.
        regions: `[bins]` transformed regions, end to end, with room for a padded region before and
            after.
    """

    promoter: tuple[Any, ...]
    regions: tuple[Any, ...]


Track = WindowSignal | RegionTrack


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RegionSignal:
    """A promoter window and up to `N` regions a gene.

    Attributes:
        tracks: those of the run's assays, each array with a first axis `a`.
        cell: the regions they share.
    """

    tracks: RegionTrack
    cell: CellRegions

    def n_contacts(self) -> Int[Array, " G"]:
        """How many regions each gene touches."""
        return (self.cell.region >= 0).sum(-1)

    def gather(self, genes: Int[Array, " B"], plan: BatchPlan) -> RegionBatch:
        """What a model reads of a batch of genes.

        A gene that touches more regions than its place has slots for loses its weakest: the plan
        must have been made for genes like these.
        """
        cell, slots = self.cell, plan.slots or (0,) * plan.size
        layout = TokenLayout.of(slots)
        region = cell.region[genes[layout.gene], layout.slot]
        there = region >= 0
        region = jnp.maximum(region, 0)
        strand = cell.minus[genes].astype(jnp.int32)

        def padded(i: int) -> tuple[Float[Array, "P a L"], Array]:
            length = cell.own[i].shape[1]
            own = own_positions(cell.bins[i][region], length) & there[:, None]
            signal = self.tracks.regions[i]

            def one(begin: Array, assay: Array) -> Array:
                return lax.dynamic_slice(signal, (assay, begin), (1, length))[0]

            of_region = jax.vmap(one, in_axes=(None, 0))
            every = jnp.arange(len(signal))
            values = jax.vmap(of_region, in_axes=(0, None))(cell.begin[i][region], every)
            return jnp.where(own[:, None], values, 0), own

        promoters = [
            (jnp.moveaxis(part[:, genes], 0, 1), own[strand])
            for part, own in zip(self.tracks.promoter, cell.own, strict=True)
        ]
        regions = [padded(i) for i in range(len(promoters))] if layout.prefix else []
        return RegionBatch.of(promoters, regions, cell.region[genes], cell.score[genes], slots)


Signal = WindowSignal | RegionSignal


@typing.runtime_checkable
class Gathered(typing.Protocol):
    """What the loop of inference needs of signal: batches, and contacts for planning them."""

    def gather(self, genes: Any, plan: BatchPlan, /) -> Any: ...

    def n_contacts(self) -> Any: ...


def signal_of(tracks: Sequence[Track], regions: CellRegions | None) -> Signal:
    """What a run reads: the tracks of its assays, and its cell's regions if the model reads any."""
    together: Any = jax.tree.map(lambda *parts: jnp.stack(parts), *tracks)
    return together if regions is None else RegionSignal(together, regions)


def region_places(
    bins: Int[np.ndarray, " regions"], positions: int
) -> tuple[Int[np.ndarray, " regions"], Int[np.ndarray, " regions"]]:
    """`begin` and `bins` of `CellRegions`, int32, for regions that lie end to end in `regions`.

    Args:
        bins: how many bins each region has; at most `positions`.
    """
    # There is room for a whole padded region before the first one.
    begin = np.cumsum(bins) - bins - centre_padding(bins, positions) + positions
    return begin.astype(np.int32), bins.astype(np.int32)


def over_batches(
    graph: Any,
    params: Any,
    stats: Any,
    signal: Gathered,
    wanted: Bool[Array, " G"],
    plan: BatchPlan,
    outputs: Callable,
    predicted: Float[Array, "*S G"],
    platform: str = "cpu",
) -> Float[Array, "*S G"]:
    """`predicted`, with `outputs(model, x, index, mask) [*S B]` of every batch of wanted genes.

    The one loop of inference: `x` is a batch as gathered, `index [B]` its genes.
    """
    model = nnx.merge(graph, params, stats)
    order = plan.order(wanted, None, signal.n_contacts())
    count = wanted.sum()

    def step(i, predicted):
        index, mask = plan.batch(i, order, count)
        values = outputs(model, signal.gather(index, plan), index, mask)
        # Genes past the count are dropped by an index that lies outside.
        index = jnp.where(mask, index, wanted.size)
        return predicted.at[..., index].set(values, mode="drop")

    return plan.for_each_batch(count, step, predicted, platform)
