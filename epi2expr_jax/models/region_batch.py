"""What Chromoformer reads of a batch: genes, the regions they touch, and where their tokens are.

Axes: `B` genes a batch, `N` regions a gene, `P` pairs of a gene and one of its slots, `L`
positions, `S` blocks of `T` tokens.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

# Blocks of at least this many tokens: smaller products are slow on every backend.
_LEAST_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a batch are: constants of a compiled program, from the plan's slots.

    Regions are laid out slot by slot: first every gene that has a first slot, and so on; as slots
    never increase, the genes of a slot are the first so many. For attention among a gene's tokens
    (its promoter, then its regions), whole genes are packed into blocks of equal size.

    Attributes:
        prefix: how many genes have a first, second, … slot; `P` is their sum.
        gene, slot: `[P]` of each pair.
        rows: `[S T]` which token is in each row of the blocks: promoters are 0 … B-1, then
            the pairs; a filler repeats token 0.
        owner: `[S, T]` which gene a row belongs to, -1 for fillers.
        token: `[S, T]` 0 for a promoter, 1 + slot for a region.
        first: `[B]` row of each promoter.
        place: `[B]` where each promoter is among the `[S, Q]` places for promoters alone.
        first_of: `[S, Q]` the column in its block of the promoter at each place; 0 for fillers.
    """

    prefix: tuple[int, ...]
    gene: np.ndarray
    slot: np.ndarray
    rows: np.ndarray
    owner: np.ndarray
    token: np.ndarray
    first: np.ndarray
    place: np.ndarray
    first_of: np.ndarray

    @classmethod
    def of(cls, slots: tuple[int, ...]) -> "TokenLayout":
        """The layout of a batch whose places have these slots."""
        return _layout(slots)

    def spread(self, x: Shaped[Array, "B *rest"]) -> Shaped[Array, "P *rest"]:
        """Each gene's row, once for each of its slots."""
        return jnp.concatenate([x[:count] for count in (0, *self.prefix)])

    def regions_by_gene(self, x: Shaped[Array, "P *rest"]) -> Shaped[Array, "B N *rest"]:
        """Each pair's row at its gene and slot, 0 elsewhere."""
        dense = jnp.zeros((len(self.first), len(self.prefix), *x.shape[1:]), x.dtype)
        return dense.at[self.gene, self.slot].set(x, unique_indices=True)

    def pairs_by_gene(
        self, x: Float[Array, "S J H T T"], n_contacts: Int[Array, " B"]
    ) -> Float[Array, "B J H N N"]:
        """The values between any two tokens of a gene (`N`: the promoter, then its regions)."""
        tokens = np.arange(1 + len(self.prefix))
        block, row = np.divmod(self.first[:, None] + tokens, self.owner.shape[1])
        row = np.where(block == block[:, :1], row, 0)  # past the block's end: absent anyway
        dense = x[block[:, :1, None], :, :, row[:, :, None], row[:, None, :]]
        there = jnp.asarray(tokens)[None] <= n_contacts[:, None]
        both = there[:, :, None] & there[:, None, :]
        return jnp.moveaxis(jnp.where(both[..., None, None], dense, 0), (3, 4), (1, 2))


@functools.lru_cache(maxsize=64)
def _layout(slots: tuple[int, ...]) -> TokenLayout:
    most = max(slots, default=0)
    prefix = tuple(sum(have > slot for have in slots) for slot in range(most))
    gene = np.concatenate([np.arange(count) for count in prefix] or [np.zeros(0, int)])
    slot = np.repeat(np.arange(most), prefix)
    start = np.concatenate([[0], np.cumsum(prefix)])
    height = max(2 * (most + 1), _LEAST_BLOCK)
    blocks: list[list[int]] = []  # first fit, largest first: genes come in that order
    free: list[int] = []
    for index, have in enumerate(slots):
        block = next((b for b, room in enumerate(free) if room > have), len(blocks))
        if block == len(blocks):
            blocks.append([])
            free.append(height)
        blocks[block].append(index)
        free[block] -= 1 + have
    owner = np.full((len(blocks), height), -1)
    token = np.zeros((len(blocks), height), int)
    rows = np.zeros((len(blocks), height), int)
    width = max(map(len, blocks), default=0)
    first_of = np.zeros((len(blocks), width), int)
    first, place = np.zeros(len(slots), int), np.zeros(len(slots), int)
    for b, members in enumerate(blocks):
        row = 0
        for q, index in enumerate(members):
            have = slots[index]
            part = slice(row, row + 1 + have)
            owner[b, part] = index
            token[b, part] = np.arange(1 + have)
            rows[b, part] = [index, *(len(slots) + start[s] + index for s in range(have))]
            first[index], place[index] = b * height + row, b * width + q
            first_of[b, q] = row
            row += 1 + have
    return TokenLayout(prefix, gene, slot, rows.reshape(-1), owner, token, first, place, first_of)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RegionBatch:
    """What Chromoformer reads of a batch, one entry a resolution in each tuple.

    Attributes:
        promoter: `[B F L]` transformed features, centred, 0 in the padding.
        promoter_valid: `[B L]` which positions are the promoter's own.
        region: `[P F L]` the same of the regions, laid out by `TokenLayout`.
        region_valid: `[P L]`; all false for an absent region.
        score: `[B N]` contact scores, 0 where absent.
        n_contacts: `[B]` how many regions each gene has.
        slots: the plan's, which fix the layout.
    """

    promoter: tuple[Any, ...]
    promoter_valid: tuple[Any, ...]
    region: tuple[Any, ...]
    region_valid: tuple[Any, ...]
    score: Any
    n_contacts: Any
    slots: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def astype(self, dtype: Any) -> "RegionBatch":
        """The same with features of another type; contact scores stay as they are."""
        promoter = tuple(x.astype(dtype) for x in self.promoter)
        return dataclasses.replace(
            self, promoter=promoter, region=tuple(x.astype(dtype) for x in self.region)
        )

    @classmethod
    def of(
        cls,
        promoters: Iterable[tuple[Array, Array]],
        regions: Iterable[tuple[Array, Array]],
        region: Int[Array, "B _N"],
        score: Float[Array, "B _N"],
        slots: tuple[int, ...],
    ) -> "RegionBatch":
        """A batch put together.

        Args:
            promoters, regions: features and own positions, at each resolution.
            region: the regions of each gene, best first; -1 where absent.
            score: theirs.
        """
        promoter, promoter_valid = zip(*promoters, strict=True)
        values, valid = zip(*regions, strict=True) if (regions := list(regions)) else ((), ())
        n_contacts = jnp.minimum((region >= 0).sum(-1), np.asarray(slots, np.int32))
        kept = np.arange(max(slots))[None] < n_contacts[:, None]
        score = jnp.where(kept, score[:, : max(slots)], 0)
        return cls(promoter, promoter_valid, values, valid, score, n_contacts, slots)
