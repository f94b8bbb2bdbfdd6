"""Signal with edits applied, on the device: what a model reads when marks are altered.

Edits act on the store's own bins, before merging, transform and orientation (`inputs.transforms`),
so an edit is the same at every resolution and on either strand; one on the log scale acts on what
each resolution reads. A *query* is a gene under an edit. The one loop of inference
(`training.one_run.over_batches`) treats a query as if it were a gene.

Every edit, whatever it is called, is one formula, in bins that lie inside its intervals by a share
`c`: `x' = x + c (a x + b + m y - x)`, where `y` is another signal at the same place.

Axes: `A` assays, `S` sources of `y`, `G` genes, `W` the store's bins of a window, `N` regions a
gene, `F` the store's bins of a padded region, `Q` queries, `E` edits, `K` steps of an edit, `I`
intervals, `V` resolutions (1 for edits of raw signal), `B` queries a batch, `P` pairs of a query
and a slot, `L` positions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.transforms import as_read, centre_padding, own_positions, window_at
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InputLayout:
    """How raw bins become what a model reads: constants of a compiled program.

    Attributes:
        transforms: of each assay's signal.
        bin_bp: the store's bins, of windows and of regions.
        resolutions: bins the model reads, in bp.
        positions: positions of a padded region at each resolution; empty for models of one window.
        log: whether edits act on transformed signal, at each resolution.
    """

    transforms: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    bin_bp: tuple[int, int] = dataclasses.field(metadata={"static": True})
    resolutions: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    positions: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    log: bool = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RawSignal:
    """Raw signal of some genes in one cell, in the store's bins and genomic order.

    Attributes:
        window: `[A G W]`.
        level: `[A]` what each track is divided by.
        begin: `[G]` left end of each window, in bp.
        minus: `[G]` which genes are flipped.
        regions: `[A r F]` of the regions these genes touch (at least one), left-aligned, 0 beyond.
        region_begin, region_end: `[r]` in bp; an absent region is empty.
        region: `[G N]` which of them each gene touches, best first; -1 where absent.
        score: `[G N]` contact scores.
    """

    window: Any
    level: Any
    begin: Any
    minus: Any
    regions: Any
    region_begin: Any
    region_end: Any
    region: Any
    score: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EditTable:
    """Edits as numbers. The last edit changes nothing.

    Attributes:
        assay: `[E K]` which assay a step alters.
        times, plus, mix: `[E K]` the formula's `a`, `b` and `m`.
        source: `[E K]` which row of the sources is its `y`.
        in_regions: `[E K]` whether regions that overlap the intervals are altered too.
        intervals: `[G E K V I 2]` start and end in bp, on the gene's chromosome; empty ones count
            for nothing, others do not overlap.
    """

    assay: Any
    times: Any
    plus: Any
    mix: Any
    source: Any
    in_regions: Any
    intervals: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EditedSignal:
    """What a model reads of genes under edits: query `q` is gene `q // E` under edit `q % E`.

    Attributes:
        raw: the genes' signal.
        window_source, region_source: `[S G W]` and `[S r F]`, signals that edits mix in.
        edits: what is done to it.
        layout: how it is read.
    """

    raw: RawSignal
    window_source: Any
    region_source: Any
    edits: EditTable
    layout: InputLayout

    @property
    def queries(self) -> int:
        """How many queries there are, `Q`."""
        return self.raw.begin.shape[0] * self.edits.assay.shape[0]

    def unedited(self) -> "EditedSignal":
        """The same genes under the last edit alone, which is none."""
        table = {
            field.name: getattr(self.edits, field.name)[-1:]
            for field in dataclasses.fields(EditTable)
            if field.name != "intervals"
        }
        edits = EditTable(**table, intervals=self.edits.intervals[:, -1:])
        return dataclasses.replace(self, edits=edits)

    def n_contacts(self) -> Int[Array, " Q"] | None:
        """How many regions the gene of each query touches."""
        if not self.layout.positions:
            return None
        return jnp.repeat((self.raw.region >= 0).sum(-1), self.edits.assay.shape[0])

    def gather(self, queries: Int[Array, " B"], plan: BatchPlan) -> Any:
        """What a model reads of a batch of queries: like the `gather` of unedited signal."""
        return self._gather(queries, plan)[0]

    def effects(
        self, queries: Int[Array, " B"], plan: BatchPlan
    ) -> tuple[Bool[Array, "B M 2"], Float[Array, "B A L"]]:
        """Whether an edit's place lies in the window (0) and in each region of a query's gene, and
        whether signal changes there; and the window in the model's finest bins."""
        x, effects = self._gather(queries, plan)
        if not isinstance(x, RegionBatch):
            return effects, jnp.moveaxis(x, 2, 1)
        return effects, x.promoter[int(np.argmin(self.layout.resolutions))]

    def _gather(self, queries: Int[Array, " B"], plan: BatchPlan) -> tuple[Any, Array]:
        gene, edit = jnp.divmod(queries, self.edits.assay.shape[0])
        if not self.layout.positions:
            values, effects = self._windows(gene, edit, 0, 0)
            return jnp.moveaxis(values, 1, 2), effects[:, None]
        raw, slots = self.raw, plan.slots or (0,) * plan.size
        layout = TokenLayout.of(slots)
        strand = raw.minus[gene]
        promoters, regions = [], []
        effects = jnp.zeros((len(gene), 1, 2), bool)
        for i, length in enumerate(self.layout.positions):
            values, here = self._windows(gene, edit, i, length)
            effects |= here[:, None]
            own = own_positions(np.array(self._bins(i)), length)
            own = jnp.where(strand[:, None], own[None, ::-1], own[None])
            promoters.append((values, own))
        if layout.prefix:
            fine, region, touched = self._regions(gene, edit, layout)
            for i in range(len(promoters)):
                values, own, here = self._region_at(i, fine, region, gene, edit, layout)
                regions.append((values, own))
                touched |= here
            there = raw.region[gene[layout.gene], layout.slot] >= 0
            touched = layout.regions_by_gene(touched & there[:, None])
            effects = jnp.concatenate([effects, touched], axis=1)
        return RegionBatch.of(promoters, regions, raw.region[gene], raw.score[gene], slots), effects

    # -- windows --------------------------------------------------------------------------------

    def _bins(self, resolution: int) -> int:
        """How many bins of a resolution a window has."""
        width = self.raw.window.shape[-1] * self.layout.bin_bp[0]
        return -(-width // self.layout.resolutions[resolution])

    def _windows(self, gene, edit, i: int, length: int) -> tuple[Array, Array]:
        """Edited windows at a resolution `[B A L]`, transformed and oriented, centred where padded;
        and what the edits did."""
        layout, raw = self.layout, self.raw
        effects = jnp.zeros((len(gene), 2), bool)
        x = jnp.moveaxis(raw.window[:, gene], 0, 1)
        y = self.window_source[:, gene]
        if not layout.log:
            bins = raw.begin[gene][:, None] + layout.bin_bp[0] * jnp.arange(x.shape[-1])[None]
            share = self._shares(gene, edit, 0, bins, bins + layout.bin_bp[0])
            x, effects = self._edited(x, y, edit, share)
        factor = layout.resolutions[i] // layout.bin_bp[0]
        length = length or self._bins(i)
        flip = raw.minus[gene]

        def read(values: Float[Array, "B W"], assay: int) -> Float[Array, "B L"]:
            values = as_read(values, raw.level[assay], factor, layout.transforms[assay])
            return window_at(values, length, flip)

        features = jnp.stack([read(x[:, a], a) for a in range(x.shape[1])], 1)
        if not layout.log:
            return features, effects
        # On the log scale a source is read as the assay that it stands in for.
        bins = layout.resolutions[i] * jnp.arange(self._bins(i))[None] + raw.begin[gene][:, None]
        share = self._shares(gene, edit, i, bins, bins + layout.resolutions[i])
        share = [window_at(c, length, flip) for c in share]
        sources = jnp.stack(
            [jnp.stack([read(y[s], a) for a in range(x.shape[1])]) for s in range(len(y))]
        )
        return self._edited(features, sources, edit, share)

    # -- regions --------------------------------------------------------------------------------

    def _regions(self, gene, edit, layout: TokenLayout) -> tuple[Array, Array, Array]:
        """The regions of each pair in the store's bins, edited if edits act on raw signal; their
        numbers, and what the edits did."""
        raw = self.raw
        effects = jnp.zeros((len(layout.gene), 2), bool)
        region = jnp.maximum(raw.region[gene[layout.gene], layout.slot], 0)
        x = jnp.moveaxis(raw.regions[:, region], 0, 1)
        if not self.layout.log:
            begin, end = self._region_bins(region, self.layout.bin_bp[1])
            pair_gene, pair_edit = gene[layout.gene], edit[layout.gene]
            share = self._shares(pair_gene, pair_edit, 0, begin, end, of_regions=True)
            x, effects = self._edited(x, self.region_source[:, region], pair_edit, share)
        return x, region, effects

    def _region_bins(self, region, width: int) -> tuple[Array, Array]:
        """Start and end of every bin of a region; those beyond it are empty."""
        raw, fine = self.raw, self.layout.bin_bp[1]
        bins = -(-raw.regions.shape[-1] * fine // width)
        first, last = raw.region_begin[region][:, None], raw.region_end[region][:, None]
        begin = jnp.minimum(first + width * jnp.arange(bins)[None], last)
        return begin, jnp.minimum(begin + width, last)

    def _region_at(self, i: int, fine, region, gene, edit, layout: TokenLayout):
        """Features `[P A L]` of the regions at a resolution, which positions are their own, and
        what edits on the log scale did."""
        effects = jnp.zeros((len(layout.gene), 2), bool)
        width, length = self.layout.resolutions[i], self.layout.positions[i]
        begin, end = self._region_bins(region, self.layout.bin_bp[1])
        full = ((end - begin) / self.layout.bin_bp[1]).astype(fine.dtype)
        factor = width // self.layout.bin_bp[1]

        def read(x: Float[Array, "P F"], assay: int) -> Float[Array, "P f"]:
            level, transform = self.raw.level[assay], self.layout.transforms[assay]
            return as_read(x, level, factor, transform, full)

        x = jnp.stack([read(fine[:, a], a) for a in range(fine.shape[1])], 1)
        if self.layout.log:
            begin, end = self._region_bins(region, width)
            pair_gene, pair_edit = gene[layout.gene], edit[layout.gene]
            share = self._shares(pair_gene, pair_edit, i, begin, end, of_regions=True)
            y = self.region_source[:, region]
            y = jnp.stack([jnp.stack([read(own, a) for a in range(fine.shape[1])]) for own in y])
            x, effects = self._edited(x, y, pair_edit, share)
        have = -(-(self.raw.region_end[region] - self.raw.region_begin[region]) // width)
        there = self.raw.region[gene[layout.gene], layout.slot] >= 0
        own = own_positions(have, length) & there[:, None]
        place = jnp.arange(length)[None] - centre_padding(have, length)[:, None]
        index = jnp.clip(place, 0, x.shape[-1] - 1)[:, None]
        x = jnp.where(own[:, None], jnp.take_along_axis(x, index, axis=2), 0)
        return x, own, effects

    # -- edits ----------------------------------------------------------------------------------

    def _shares(
        self, gene, edit, resolution: int, begin, end, of_regions: bool = False
    ) -> list[Float[Array, "B W"]]:
        """Of each step the share of each bin that lies in its intervals."""
        intervals = self.edits.intervals[gene, edit][:, :, resolution]  # [B K I 2]
        shares = []
        for step in range(intervals.shape[1]):
            inside = jnp.zeros(begin.shape, jnp.int32)
            for number in range(intervals.shape[2]):
                low, high = (intervals[:, step, number, side][:, None] for side in (0, 1))
                inside += jnp.maximum(jnp.minimum(end, high) - jnp.maximum(begin, low), 0)
            share = inside / jnp.maximum(end - begin, 1)
            if of_regions:
                share = jnp.where(self.edits.in_regions[edit, step][:, None], share, 0)
            shares.append(share)
        return shares

    def _edited(
        self, x: Float[Array, "B A W"], y: Float[Array, "S *A B W"], edit, shares
    ) -> tuple[Float[Array, "B A W"], Bool[Array, "B 2"]]:
        """The formula, step by step. `y` is one for every assay, or has an axis of them.

        Also tells whether any bin lies in the intervals, and whether any such changes. (Compared
        here, where both values stand side by side: two programs may round differently.)
        """
        table, row = self.edits, jnp.arange(len(x))
        effects = jnp.zeros((len(x), 2), bool)
        for step, share in enumerate(shares):
            assay = table.assay[edit, step]
            old = x[row, assay]
            source = table.source[edit, step]
            other = y[source, row] if y.ndim == 3 else y[source, assay, row]
            times, plus, mix = (
                part[edit, step][:, None] for part in (table.times, table.plus, table.mix)
            )
            target = times * old + plus + mix * other
            # A bin wholly inside becomes the target itself, without rounding.
            new = jnp.where(share == 1, target, old + share * (target - old))
            inside = share > 0
            x = x.at[row, assay].set(jnp.where(inside, new, old))
            effects |= jnp.stack([inside, inside & (target != old)], -1).any(1)
        return x, effects
