"""Scores of predicted against observed expression: masked, mergeable, stable in float32.

Every function works on the last axis, `G` genes, of arrays with any leading axes, under jit and
vmap, in float32 and float64. Values must be finite where the mask is true and may be anything
elsewhere. Two rules settle what a plain formula leaves undefined:

- fewer than two genes: the score is NaN (none for `mse`: NaN only without genes). Nothing was
  measured, so whoever averages scores gives such a group no weight.
- a constant prediction or observation: the correlation is 0 and the AUC 0.5. Constant means a
  standard deviation within a few roundings of the mean, so that the rounding noise of a collapsed
  model earns no score.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

# A standard deviation below this many roundings of the mean is rounding noise.
CONSTANT_ROUNDINGS = 4


class Moments(NamedTuple):
    """What Pearson r, R² and the mean squared error need to know of a group of genes.

    A pytree. Groups are merged in any order and partition (Chan, Golub & LeVeque 1983). Sums are
    of deviations from the group's own means: raw sums of squares cancel in float32.

    Attributes:
        count: genes in the group.
        mean_observed, mean_predicted: means.
        squares_observed, squares_predicted: sums of squared deviations from the mean.
        cross: sum of products of the two deviations.
        squared_error: sum of (predicted - observed)².
    """

    count: Float[Array, "*batch"]
    mean_observed: Float[Array, "*batch"]
    mean_predicted: Float[Array, "*batch"]
    squares_observed: Float[Array, "*batch"]
    squares_predicted: Float[Array, "*batch"]
    cross: Float[Array, "*batch"]
    squared_error: Float[Array, "*batch"]

    @classmethod
    def of(
        cls,
        observed: Float[Array, "*batch G"],
        predicted: Float[Array, "*batch G"],
        mask: Bool[Array, "*batch G"],
    ) -> "Moments":
        """The moments `[*batch]` of the genes where `mask` is true."""
        count = mask.sum(axis=-1).astype(observed.dtype)
        mean_observed, deviation_observed = _centre(observed, mask, count)
        mean_predicted, deviation_predicted = _centre(predicted, mask, count)
        error = jnp.where(mask, predicted - observed, 0)
        return cls(
            count=count,
            mean_observed=mean_observed,
            mean_predicted=mean_predicted,
            squares_observed=jnp.sum(deviation_observed**2, axis=-1),
            squares_predicted=jnp.sum(deviation_predicted**2, axis=-1),
            cross=jnp.sum(deviation_observed * deviation_predicted, axis=-1),
            squared_error=jnp.sum(error**2, axis=-1),
        )

    @classmethod
    def empty(cls, *batch: int, dtype: DTypeLike = jnp.float32) -> "Moments":
        """The moments `[*batch]` of no genes: merging them changes nothing."""
        return cls(*[jnp.zeros(batch, dtype) for _ in cls._fields])

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both groups together."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        between = self.count * share
        shift_observed = other.mean_observed - self.mean_observed
        shift_predicted = other.mean_predicted - self.mean_predicted
        return Moments(
            count=count,
            mean_observed=self.mean_observed + share * shift_observed,
            mean_predicted=self.mean_predicted + share * shift_predicted,
            squares_observed=self.squares_observed
            + other.squares_observed
            + between * shift_observed**2,
            squares_predicted=self.squares_predicted
            + other.squares_predicted
            + between * shift_predicted**2,
            cross=self.cross + other.cross + between * shift_observed * shift_predicted,
            squared_error=self.squared_error + other.squared_error,
        )

    def constant_observed(self) -> Bool[Array, "*batch"]:
        """Whether two or more genes all have the same observed value, rounding aside."""
        return _is_constant(self.count, self.mean_observed, self.squares_observed)

    def constant_predicted(self) -> Bool[Array, "*batch"]:
        """Whether two or more genes all have the same predicted value, rounding aside."""
        return _is_constant(self.count, self.mean_predicted, self.squares_predicted)

    def constant(self) -> Bool[Array, "*batch"]:
        """Whether the correlation is 0 by rule: prediction or observation is constant."""
        return self.constant_observed() | self.constant_predicted()

    def pearson(self) -> Float[Array, "*batch"]:
        """Pearson r; 0 if either side is constant, NaN for fewer than two genes."""
        constant = self.constant()
        # Two square roots: the product of two small sums of squares may vanish in float32.
        scale = jnp.sqrt(self.squares_observed) * jnp.sqrt(self.squares_predicted)
        r = self.cross / jnp.where(constant | (scale == 0), 1, scale)
        r = jnp.where(constant, 0, jnp.clip(r, -1, 1))  # rounding may pass 1 by an ulp
        return jnp.where(self.count < 2, jnp.nan, r)

    def r2(self) -> Float[Array, "*batch"]:
        """R² = 1 - squared error / observed variance; NaN if the observation is constant."""
        undefined = (self.count < 2) | self.constant_observed()
        variance = jnp.where(undefined, 1, self.squares_observed)
        return jnp.where(undefined, jnp.nan, 1 - self.squared_error / variance)

    def mse(self) -> Float[Array, "*batch"]:
        """Mean squared error, in the square of the values' unit; NaN without genes."""
        mean = self.squared_error / jnp.maximum(self.count, 1)
        return jnp.where(self.count == 0, jnp.nan, mean)


def spearman(
    observed: Float[Array, "*batch G"],
    predicted: Float[Array, "*batch G"],
    mask: Bool[Array, "*batch G"],
) -> Float[Array, "*batch"]:
    """Spearman's rank correlation `[*batch]` over genes; ties share their average rank."""
    r = Moments.of(average_ranks(observed, mask), average_ranks(predicted, mask), mask).pearson()
    # Constant in value, not in rank: rounding noise has ranks too.
    return jnp.where(Moments.of(observed, predicted, mask).constant(), 0, r)


def auc(
    score: Float[Array, "*batch G"],
    label: Bool[Array, "*batch G"],
    mask: Bool[Array, "*batch G"],
) -> Float[Array, "*batch"]:
    """Area under the ROC curve: how often a labelled gene scores above an unlabelled one.

    Ties count one half. NaN where the genes do not include both labels.
    """
    count = mask.sum(axis=-1).astype(score.dtype)
    positive = (mask & label).sum(axis=-1).astype(score.dtype)
    pairs = positive * (count - positive)
    # Mann-Whitney's U from ranks about their mean, which keeps the sum small.
    centred = average_ranks(score, mask) - (count[..., None] + 1) / 2
    excess = jnp.sum(jnp.where(mask & label, centred, 0), axis=-1)
    excess = jnp.where(Moments.of(score, score, mask).constant(), 0, excess)
    return jnp.where(pairs == 0, jnp.nan, 0.5 + excess / jnp.where(pairs == 0, 1, pairs))


def average_ranks(
    values: Float[Array, "*batch G"], mask: Bool[Array, "*batch G"]
) -> Float[Array, "*batch G"]:
    """Ranks `[*batch G]`, from 1, of the genes where `mask` is true, ties averaged; 0 elsewhere."""
    axis = values.ndim - 1
    keys = jnp.where(mask, values, jnp.inf)  # masked genes sort last
    order = jnp.argsort(keys, axis=-1)
    ordered = jnp.take_along_axis(keys, order, axis=-1)
    place = jnp.broadcast_to(jnp.arange(values.shape[-1], dtype=values.dtype), values.shape)
    differs = ordered[..., 1:] != ordered[..., :-1]
    edge = jnp.ones_like(ordered[..., :1], dtype=bool)
    starts = jnp.concatenate([edge, differs], axis=-1)
    ends = jnp.concatenate([differs, edge], axis=-1)
    first = lax.cummax(jnp.where(starts, place, 0), axis=axis)
    last = lax.cummin(jnp.where(ends, place, jnp.inf), axis=axis, reverse=True)
    ranks = jnp.take_along_axis((first + last) / 2 + 1, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(mask, ranks, 0)


def _centre(
    values: Float[Array, "*batch G"], mask: Bool[Array, "*batch G"], count: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch G"]]:
    """Mean `[*batch]` and deviations from it, 0 where masked.

    Values are first taken relative to one of them. That difference is all but exact, so a large
    offset costs nothing, and a constant group has a variance of exactly 0.
    """
    pivot = jnp.take_along_axis(values, jnp.argmax(mask, axis=-1, keepdims=True), axis=-1)
    relative = jnp.where(mask, values - pivot, 0)
    mean = relative.sum(axis=-1, keepdims=True) / jnp.maximum(count, 1)[..., None]
    centre = jnp.where(count == 0, 0, (pivot + mean)[..., 0])
    return centre, jnp.where(mask, relative - mean, 0)


def _is_constant(
    count: Float[Array, "*batch"], mean: Float[Array, "*batch"], squares: Float[Array, "*batch"]
) -> Bool[Array, "*batch"]:
    deviation = jnp.sqrt(squares / jnp.maximum(count, 1))
    noise = CONSTANT_ROUNDINGS * jnp.finfo(mean.dtype).eps * jnp.abs(mean)
    return (count >= 2) & (deviation <= noise)
