"""How genes are dealt into batches.

Genes differ in how many regions they touch, and a compiled program has fixed shapes. So genes are
dealt into batches by their number of contacts, like sorted cards to players: the `k`-th place of
every batch then needs about the same number of slots, and hardly any is left empty. Every epoch
still sees each gene once, and genes of equal rank are shuffled.

Axes: `B` genes a batch, `P` genes in the order they are dealt.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """The shape of every batch of a program, and which genes go where.

    Attributes:
        size: genes a batch, `B`.
        slots: region slots of each place in a batch, never increasing; empty for models that
            read no regions.
        balanced: deal genes by their number of contacts; otherwise they come in random order and
            every place has all slots.
        most_genes: the largest number of genes that any run deals into batches, if known.
    """

    size: int
    slots: tuple[int, ...] = ()
    balanced: bool = False
    most_genes: int | None = None

    @classmethod
    def of(
        cls, size: int, most: int, parts: Iterable[Int[np.ndarray, " _G"]] = (), *, balanced: bool
    ) -> "BatchPlan":
        """The plan that serves all `parts`.

        Args:
            most: the most regions a gene may have.
            parts: the numbers of contacts of all genes that are batched together (a fold's
                training genes in a cell, say), for each such part.
        """
        if not balanced:
            return cls(size, (most,) * size if most else ())
        slots = np.zeros(size, int)
        for counts in parts:
            ranked = np.sort(np.minimum(counts, most))[::-1]
            first = np.arange(size) * -(-len(ranked) // size)
            here = first < len(ranked)
            slots[here] = np.maximum(slots[here], ranked[first[here]])
        return cls(size, tuple(slots.tolist()) if most else (), balanced=True)

    def with_most_genes(self, parts: Bool[np.ndarray, "R G"]) -> "BatchPlan":
        """The same plan, knowing the most genes that one of some parts has."""
        return dataclasses.replace(self, most_genes=int(parts.sum(1).max()))

    def order(
        self, part: Bool[Array, " G"], key: Any | None, n_contacts: Int[Array, " G"] | None
    ) -> Int[Array, " P"]:
        """The genes of `part` in the order they are dealt, then the others.

        Args:
            key: shuffles; without it genes keep their order as far as the plan allows.
            n_contacts: of each gene, for a balanced plan.
        """
        if key is None:
            rank = jnp.zeros(part.shape)
        else:
            # Sorting uniforms, unlike `jax.random.permutation`, gives the same order whatever the
            # padding.
            rank = jax.random.uniform(key, part.shape)
        if self.balanced and n_contacts is not None:
            rank = rank - n_contacts
        order = jnp.argsort(jnp.where(part, rank, 2.0))
        # A slice that would run off the end is otherwise moved back, silently, by XLA.
        return jnp.pad(order, (0, -order.size % self.size))

    def steps(self, genes: Int[Array, ""]) -> Int[Array, ""]:
        """How many batches hold so many genes."""
        return (genes + self.size - 1) // self.size

    def for_each_batch(
        self, genes: Int[Array, ""], step: Callable[[Any, Any], Any], carry: Any, platform: str
    ) -> Any:
        """`carry` after `step(i, carry)` of each batch of so many genes.

        A GPU can only work ahead of the host where the number of iterations is fixed when the
        program is compiled: else the host asks after each batch whether there is another, and the
        device stands still until that batch is launched. So there, if `most_genes` is known, the
        loop always has as many iterations as those take; those past the last batch change nothing.

        Args:
            platform: of the device that computes.
        """
        steps = self.steps(genes)
        if platform == "cpu" or self.most_genes is None:
            return jax.lax.fori_loop(0, steps, step, carry)

        def iteration(i: Any, carry: Any) -> Any:
            new = step(i, carry)
            return jax.tree.map(lambda a, b: jnp.where(i < steps, a, b), new, carry)

        return jax.lax.fori_loop(0, -(-self.most_genes // self.size), iteration, carry)

    def batch(
        self, step: Int[Array, ""], order: Int[Array, " P"], genes: Int[Array, ""]
    ) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
        """The genes of a batch, and which places are taken."""
        place = jnp.arange(self.size)
        if not self.balanced:
            index = jax.lax.dynamic_slice_in_dim(order, step * self.size, self.size)
            return index, step * self.size + place < genes
        steps = self.steps(genes)
        # Each place starts elsewhere, or the first batches would hold the genes of most contacts.
        rank = place * steps + (step + place * 7919) % steps
        return order[jnp.minimum(rank, order.size - 1)], rank < genes
