"""The layers of Chromoformer (Lee, Yang & Kim, Nat Commun 2022), exact and small.

A region is `L` positions, each a token `features·W + code`. Chromoformer needs of a region what one
query, the centre, attends to. Keys and values are linear in the `F` raw features plus a fixed code,
so with `q' = W_k^T q` the scores are `code·q' + features·(W q')`, and the values are the weighted
means of code and features, projected once. No key, no value and no `L x L` array is ever made,
and nothing is approximated.

Axes: `B` genes, `R` rows (regions or tokens, whatever is processed side by side), `L` positions,
`F` features, `D` width of a token, `H` heads, `E` width of a head, `S` blocks, `T` rows a block.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from epi2expr_jax.models.weights import constant, uniform

MASKED = -1e9  # as published: a row with nothing to attend to is uniform
NORM_EPSILON = 1e-5


def positional_code(positions: int, width: int) -> Float[np.ndarray, "L D"]:
    """Sinusoids: sine in even columns, cosine in odd ones."""
    rate = np.exp(-math.log(10_000) * np.arange(0, width, 2) / width)
    angle = np.arange(positions)[:, None] * rate
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(positions, -1)[:, :width]


class Linear(nnx.Module):
    """`x @ kernel (+ bias)`, initialised as PyTorch does: uniform within `1 / sqrt(inputs)`."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs):
        bound = 1 / math.sqrt(inputs)
        self.kernel = uniform(bound, inputs, outputs, rngs=rngs)
        self.bias = uniform(bound, outputs, rngs=rngs) if bias else None

    @property
    def shift(self) -> Float[Array, " O"]:
        """The bias; zeros without one."""
        return jnp.zeros(self.kernel.shape[1]) if self.bias is None else self.bias[...]

    def __call__(self, x: Float[Array, "*rows I"]) -> Float[Array, "*rows O"]:
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,))


class LayerNorm(nnx.Module):
    """Mean 0 and variance 1 over the width, then scale and shift."""

    def __init__(self, width: int):
        self.scale = constant(1.0, width)
        self.bias = constant(0.0, width)

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        centred = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + NORM_EPSILON)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return centred * inverse * self.scale[...].reshape(shape) + self.bias[...].reshape(shape)


class FeedForward(nnx.Module):
    """Two dense layers with a ReLU between, added to the input, normalised."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.inner = Linear(width, hidden, rngs=rngs)
        self.outer = Linear(hidden, width, rngs=rngs)
        self.norm = LayerNorm(width)

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        return self.norm(x + self.outer(nnx.relu(self.inner(x))))


class Attention(nnx.Module):
    """Post-norm multi-head attention: the weights that the kinds of layers below have in common.

    Attributes:
        query, key, value: `[D, H E]` without bias.
        output: `[H E, D]` with bias.
    """

    def __init__(self, width: int, heads: int, inner: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Linear(width, inner, bias=False, rngs=rngs)
        self.key = Linear(width, inner, bias=False, rngs=rngs)
        self.value = Linear(width, inner, bias=False, rngs=rngs)
        self.output = Linear(inner, width, rngs=rngs)
        self.norm = LayerNorm(width)

    def by_head(self, linear: Linear) -> Float[Array, "D H E"]:
        kernel = linear.kernel[...]
        return kernel.reshape(kernel.shape[0], self.heads, -1)

    def read(
        self,
        query: Float[Array, "B D"],
        x: Float[Array, "R F L"],
        valid: Bool[Array, "R L"],
        project: Float[Array, "F D"],
        code: Float[Array, "L D"],
        spread: Callable[[Array], Array],
    ) -> tuple[Float[Array, "R D"], Float[Array, "R H L"]]:
        """What one query reads in each region, before residual and norm, and where it looks.

        Args:
            query: one token a gene (or a region, then `spread` changes nothing).
            x, valid: the regions' features, and which positions may be attended to.
            project, code: make tokens of features.
            spread: from rows of queries to rows of regions.
        """
        heads, width = self.heads, query.shape[1]
        rows, features, positions = x.shape
        # W_q W_k^T and W_v W_o, by head: one product instead of two, and no transposes.
        merged = jnp.einsum("dhe,khe->dhk", self.by_head(self.query), self.by_head(self.key))
        merged = merged.reshape(width, -1) / math.sqrt(self.query.kernel.shape[1] // heads)
        asked = (query @ merged).reshape(-1, width)
        by_code = spread((asked @ code.T).reshape(-1, heads, positions))
        by_feature = spread((asked @ project.T).reshape(-1, heads, features))
        score = by_code + jnp.einsum("rhf,rfl->rhl", by_feature, x)
        weight = nnx.softmax(jnp.where(valid[:, None], score, MASKED))
        mean_code = weight.reshape(-1, positions) @ code
        mean_feature = jnp.einsum("rhl,rfl->rhf", weight, x).reshape(-1, features) @ project
        out = self.output.kernel[...].reshape(heads, -1, width)
        back = jnp.einsum("khe,hed->hkd", self.by_head(self.value), out).reshape(-1, width)
        read = (mean_code + mean_feature).reshape(rows, -1) @ back
        return read + self.output.shift[None], weight

    def among(
        self, tokens: Float[Array, "R L D"], valid: Bool[Array, "R L"]
    ) -> Float[Array, "R L D"]:
        """Ordinary self-attention over all positions, normalised: for inner layers only."""
        rows, positions, width = tokens.shape
        flat = tokens.reshape(-1, width)

        def heads(linear: Linear) -> Array:
            return linear(flat).reshape(rows, positions, self.heads, -1)

        q, k, v = heads(self.query), heads(self.key), heads(self.value)
        score = jnp.einsum("rihe,rjhe->rhij", q, k) / math.sqrt(q.shape[-1])
        # Masked where it is made: compiled, no mask of L x L exists.
        score = jnp.where(valid[:, None, :, None] & valid[:, None, None, :], score, MASKED)
        vector = jnp.einsum("rhij,rjhe->rihe", nnx.softmax(score), v).reshape(len(flat), -1)
        return self.norm(flat + self.output(vector)).reshape(tokens.shape)


class GatedAttention(nnx.Module):
    """The regulation's attention: gated, and drawn to regions by how often they are in contact.

    Attributes:
        inputs: `[D, 4 H E]`: queries, keys, values and gates, in that order.
        contact: `[H]`, γ, the weight of the contact score.
    """

    def __init__(self, width: int, heads: int, inner: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.inputs = Linear(width, 4 * inner, bias=False, rngs=rngs)
        self.output = Linear(inner, width, rngs=rngs)
        self.contact = constant(1.0, heads)
        self.norm = LayerNorm(width)

    def __call__(
        self,
        x: Float[Array, "ST D"],
        frequency: Float[Array, "S T T"],
        valid: Bool[Array, "S T T"],
    ) -> tuple[Float[Array, "ST D"], Float[Array, "S H T T"]]:
        """Attention within blocks of `T` tokens; every token asks."""
        query, key, value, gate = jnp.split(self.inputs(x), 4, axis=1)
        vector, weight = self._attend(query, key, value, frequency, valid)
        return self._finish(x, vector, gate), weight

    def first_only(
        self,
        x: Float[Array, "ST D"],
        first: np.ndarray,
        place: np.ndarray,
        frequency: Float[Array, "S Q T"],
        valid: Bool[Array, "S Q T"],
    ) -> tuple[Float[Array, "B D"], Float[Array, "S H Q T"]]:
        """The same where only each gene's first token is needed.

        Args:
            first: `[B]` row of each gene's first token.
            place: `[B]` where its query stands among the `S Q` places for queries.
        """
        blocks, queries, _ = frequency.shape
        inner = self.output.kernel.shape[0]
        weights = self.inputs.kernel[...]
        asking = x[first]
        key, value = jnp.split(x @ weights[:, inner : 3 * inner], 2, axis=1)
        query, gate = asking @ weights[:, :inner], asking @ weights[:, 3 * inner :]
        asked = (
            jnp.zeros((blocks * queries, inner), x.dtype).at[place].set(query, unique_indices=True)
        )
        vector, weight = self._attend(asked, key, value, frequency, valid)
        return self._finish(asking, vector[place], gate), weight

    def _attend(self, query, key, value, frequency, valid):
        blocks = len(frequency)

        def heads(a):
            return a.reshape(blocks, -1, self.heads, a.shape[1] // self.heads)

        query, key, value = heads(query), heads(key), heads(value)
        score = jnp.einsum("sihe,sjhe->shij", query, key) / math.sqrt(query.shape[-1])
        score = score + self.contact[...][None, :, None, None] * frequency[:, None]
        weight = nnx.softmax(jnp.where(valid[:, None], score, MASKED))
        vector = jnp.einsum("shij,sjhe->sihe", weight, value)
        return vector.reshape(-1, vector.shape[2] * vector.shape[3]), weight

    def _finish(self, x, vector, gate):
        return self.norm(x + self.output(vector * nnx.sigmoid(gate)))
