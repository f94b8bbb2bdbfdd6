"""`promoter_cnn` with one thing changed each, as models of one's own.

They train in the library's own loop. What a recipe does in training alone, the module does where a
key is given.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from epi2expr_jax.models import register
from epi2expr_jax.models.promoter_cnn import PromoterCnn, PromoterCnnConfig
from epi2expr_jax.models.weights import constant

SHIFT_BINS, DROPPED, DROPPED_BINS = 2, 0.1, 10
DECAY = 0.98  # of averaged weights, a step
STRETCHES = 20  # as ridge regression reads
SHOWN = 0.5  # of the marks
_OWN_KEY = 1000  # none of the network's layers has it


def augmented(x: jax.Array, key: jax.Array) -> jax.Array:
    """Windows `[B W A]` moved by up to 2 bins, and a tenth of their stretches of 10 bins, by mark,
    emptied."""
    batch, bins, marks = x.shape
    moved, dropped = jax.random.split(key)
    by = jax.random.randint(moved, (batch, 1, 1), -SHIFT_BINS, SHIFT_BINS + 1)
    x = jnp.take_along_axis(x, jnp.clip(jnp.arange(bins)[None, :, None] + by, 0, bins - 1), axis=1)
    kept = jax.random.bernoulli(dropped, 1 - DROPPED, (batch, bins // DROPPED_BINS, marks))
    return x * jnp.repeat(kept, DROPPED_BINS, axis=1)


def some_marks(x: jax.Array, key: jax.Array) -> jax.Array:
    """Each gene of `[B W A]` with a random share of the marks that have signal, at least one."""
    there = (x != 0).any((0, 1))
    shown = jax.random.bernoulli(key, SHOWN, (x.shape[0], x.shape[2]))
    none = ~(shown & there[None]).any(1, keepdims=True)
    return x * (shown | none)[:, None]


class Changed(nnx.Module):
    """A promoter CNN whose training windows are changed."""

    def __init__(self, config: Any, change: Any, *, rngs: nnx.Rngs):
        self.network = PromoterCnn(config, rngs=rngs)
        self.change = change

    def __call__(self, x, *, mask, key):
        if key is not None:
            x = self.change(x, jax.random.fold_in(key, _OWN_KEY))
        return self.network(x, mask=mask, key=key)


class WithLinearPath(nnx.Module):
    """A promoter CNN plus a linear model of stretch means, whose weights start at 0."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        self.network = PromoterCnn(config, rngs=rngs)
        self.linear = constant(0.0, STRETCHES, config.assays)

    def __call__(self, x, *, mask, key):
        means = x.reshape(x.shape[0], STRETCHES, -1, x.shape[2]).mean(2)
        direct = jnp.einsum("bsa,sa->b", means, self.linear[...])
        return self.network(x, mask=mask, key=key) + direct


class Averaged(nnx.Module):
    """A promoter CNN that predicts by a moving average of its weights over steps."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        self.network = PromoterCnn(config, rngs=rngs)
        shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(self.network, nnx.Param))]
        self.average = nnx.List([constant(0.0, *shape, kind=nnx.BatchStat) for shape in shapes])
        self.seen = constant(0.0, kind=nnx.BatchStat)  # the weight of all steps in the average

    def __call__(self, x, *, mask, key):
        graph, params = nnx.split(self.network)
        leaves, structure = jax.tree.flatten(params)
        if key is not None:
            for average, leaf in zip(self.average, leaves, strict=True):
                average[...] = DECAY * average[...] + (1 - DECAY) * jax.lax.stop_gradient(leaf)
            self.seen[...] = DECAY * self.seen[...] + (1 - DECAY)
            return self.network(x, mask=mask, key=key)
        seen = self.seen[...]
        means = [
            jnp.where(seen > 0, average[...] / jnp.maximum(seen, 1e-9), leaf)
            for average, leaf in zip(self.average, leaves, strict=True)
        ]
        network = nnx.merge(graph, jax.tree.unflatten(structure, means))
        return network(x, mask=mask, key=None)


@register
@dataclasses.dataclass(frozen=True)
class AugmentedConfig(PromoterCnnConfig):
    """Windows are moved and stretches of them emptied."""

    NAME: ClassVar[str] = "augmented"

    def build(self, *, rngs: nnx.Rngs) -> Changed:
        return Changed(self, augmented, rngs=rngs)


@register
@dataclasses.dataclass(frozen=True)
class SomeMarksConfig(PromoterCnnConfig):
    """Each gene shows some of the marks."""

    NAME: ClassVar[str] = "some_marks"

    def build(self, *, rngs: nnx.Rngs) -> Changed:
        return Changed(self, some_marks, rngs=rngs)


@register
@dataclasses.dataclass(frozen=True)
class LinearPathConfig(PromoterCnnConfig):
    """A linear path beside the network."""

    NAME: ClassVar[str] = "linear_path"

    def build(self, *, rngs: nnx.Rngs) -> WithLinearPath:
        return WithLinearPath(self, rngs=rngs)


@register
@dataclasses.dataclass(frozen=True)
class AveragedConfig(PromoterCnnConfig):
    """Weights are averaged."""

    NAME: ClassVar[str] = "averaged"

    def build(self, *, rngs: nnx.Rngs) -> Averaged:
        return Averaged(self, rngs=rngs)
