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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from epi2expr_jax.models.layers import full
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.models.weights import constant, uniform

MASKED = -1e9  # as published: a row with nothing to attend to is uniform
NORM_EPSILON = 1e-5
SIZES = ("layers", "heads", "ff")  # of each stage


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
        y = x @ self.kernel[...].astype(x.dtype)
        if self.bias is None:
            return y
        return (full(y) + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Mean 0 and variance 1 over the width, then scale and shift; in float32 at least."""

    def __init__(self, width: int):
        self.scale = constant(1.0, width)
        self.bias = constant(0.0, width)

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        x = full(x)
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
        return self.norm(full(x) + full(self.outer(nnx.relu(self.inner(x))))).astype(x.dtype)


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
        means, weight = self.weighted_means(*self.queries(query, project), x, valid, code, spread)
        return self.output_of(*means, project), weight

    def queries(
        self, query: Float[Array, "B D"], project: Float[Array, "F D"]
    ) -> tuple[Float[Array, "BH D"], Float[Array, "BH F"]]:
        """What a query asks of the code and of the features of a position."""
        width = query.shape[1]
        # W_q W_k^T and W_v W_o, by head: one product instead of two, and no transposes.
        merged = jnp.einsum("dhe,khe->dhk", self.by_head(self.query), self.by_head(self.key))
        merged = merged.reshape(width, -1) / math.sqrt(self.query.kernel.shape[1] // self.heads)
        by_code = (query @ merged.astype(query.dtype)).reshape(-1, width)
        return by_code, by_code @ project.astype(query.dtype).T

    def weighted_means(
        self,
        by_code: Float[Array, "BH D"],
        by_feature: Float[Array, "BH F"],
        x: Float[Array, "R F L"],
        valid: Bool[Array, "R L"],
        code: Float[Array, "L D"],
        spread: Callable[[Array], Array],
    ) -> tuple[tuple[Float[Array, "RH D"], Float[Array, "RH F"]], Float[Array, "R H L"]]:
        """The means of code and features where a query looks, and where that is."""
        _, features, positions = x.shape
        by_code = spread((by_code @ code.T).reshape(-1, self.heads, positions))
        by_feature = spread(by_feature.reshape(-1, self.heads, features))
        score = full(by_code) + full(jnp.einsum("rhf,rfl->rhl", by_feature, x))
        weight = nnx.softmax(jnp.where(valid[:, None], score, MASKED)).astype(x.dtype)
        mean_feature = jnp.einsum("rhl,rfl->rhf", weight, x).reshape(-1, features)
        return (weight.reshape(-1, positions) @ code, mean_feature), weight

    def output_of(
        self,
        mean_code: Float[Array, "RH D"],
        mean_feature: Float[Array, "RH F"],
        project: Float[Array, "F D"],
    ) -> Float[Array, "R D"]:
        """What is read, from the means."""
        width, dtype = mean_code.shape[1], mean_code.dtype
        out = self.output.kernel[...].reshape(self.heads, -1, width)
        back = jnp.einsum("khe,hed->hkd", self.by_head(self.value), out).reshape(-1, width)
        mean = mean_code + mean_feature @ project.astype(dtype)
        read = mean.reshape(-1, len(back)) @ back.astype(dtype)
        return full(read) + self.output.shift[None]

    def among(
        self, tokens: Float[Array, "R L D"], valid: Bool[Array, "R L"]
    ) -> Float[Array, "R L D"]:
        """Ordinary self-attention over all positions, normalised: for inner layers only."""
        rows, positions, width = tokens.shape
        flat = tokens.reshape(-1, width)

        def heads(linear: Linear) -> Array:
            return linear(flat).reshape(rows, positions, self.heads, -1)

        q, k, v = heads(self.query), heads(self.key), heads(self.value)
        score = full(jnp.einsum("rihe,rjhe->rhij", q, k)) / math.sqrt(q.shape[-1])
        # Masked where it is made: compiled, no mask of L x L exists.
        score = jnp.where(valid[:, None, :, None] & valid[:, None, None, :], score, MASKED)
        weight = nnx.softmax(score).astype(flat.dtype)
        vector = jnp.einsum("rhij,rjhe->rihe", weight, v).reshape(len(flat), -1)
        out = self.norm(full(flat) + full(self.output(vector)))
        return out.reshape(tokens.shape).astype(flat.dtype)


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
        weights = self.inputs.kernel[...].astype(x.dtype)
        asking = x[first]
        key, value = jnp.split(x @ weights[:, inner : 3 * inner], 2, axis=1)
        query, gate = asking @ weights[:, :inner], asking @ weights[:, 3 * inner :]
        query = (
            jnp.zeros((blocks * queries, inner), x.dtype).at[place].set(query, unique_indices=True)
        )
        vector, weight = self._attend(query, key, value, frequency, valid)
        return self._finish(asking, vector[place], gate), weight

    def _attend(self, query, key, value, frequency, valid):
        blocks = len(frequency)

        def heads(a):
            return a.reshape(blocks, -1, self.heads, a.shape[1] // self.heads)

        query, key, value = heads(query), heads(key), heads(value)
        score = full(jnp.einsum("sihe,sjhe->shij", query, key)) / math.sqrt(query.shape[-1])
        score = score + self.contact[...][None, :, None, None] * frequency[:, None]
        weight = nnx.softmax(jnp.where(valid[:, None], score, MASKED)).astype(value.dtype)
        vector = jnp.einsum("shij,sjhe->sihe", weight, value)
        return vector.reshape(-1, vector.shape[2] * vector.shape[3]), weight

    def _finish(self, x, vector, gate):
        gated = (full(vector) * nnx.sigmoid(full(gate))).astype(x.dtype)
        return self.norm(full(x) + full(self.output(gated))).astype(x.dtype)


class Layer(nnx.Module):
    """One attention and the dense layers behind it."""

    def __init__(self, attention: Attention | GatedAttention, dense: FeedForward):
        self.attention = attention
        self.dense = dense


class Resolution(nnx.Module):
    """The three stages at one resolution of `L` positions."""

    def __init__(self, config: Any, positions: int, rngs: nnx.Rngs):
        width = config.token_width

        def layers(stage: str, kind: type, inner: int) -> Any:
            number, heads, hidden = (getattr(config, f"{stage}_{size}") for size in SIZES)
            return nnx.List(
                Layer(
                    kind(width, heads, inner, rngs=rngs),
                    FeedForward(width, config.hidden(hidden), rngs=rngs),
                )
                for _ in range(number)
            )

        self.positions = positions
        self.embed_input = Linear(config.assays, width, bias=False, rngs=rngs)
        self.embed = layers("embed", Attention, width)
        if config.contacts:
            self.pairwise_promoter = Linear(width, width, bias=False, rngs=rngs)
            self.pairwise_input = Linear(config.assays, width, bias=False, rngs=rngs)
            self.pairwise = layers("pairwise", Attention, width)
        inner = config.hidden(config.regulation_width, config.regulation_heads)
        self.regulation = layers("regulation", GatedAttention, inner)

    def embed_promoter(
        self, x: Float[Array, "B F L"], valid: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B D"], Float[Array, "B H L"]]:
        """The token at the promoter's centre, and where it looks."""
        project = self.embed_input.kernel[...]
        code = jnp.asarray(positional_code(self.positions, project.shape[1]), x.dtype)
        centre = self.positions // 2
        if len(self.embed) == 1:
            query = x[:, :, centre] @ project.astype(x.dtype) + code[None, centre]
        else:
            tokens = jnp.einsum("bfl,fd->bld", x, project.astype(x.dtype)) + code[None]
            for layer in self.embed[:-1]:
                tokens = layer.attention.among(tokens, valid)
                tokens = layer.dense(tokens)
            query, x = tokens[:, centre], jnp.moveaxis(tokens, 1, 2)
            project, code = jnp.eye(query.shape[1], dtype=x.dtype), jnp.zeros_like(code)
        last = self.embed[-1]
        seen = valid & valid[:, centre][:, None]
        read, weight = last.attention.read(query, x, seen, project, code, lambda rows: rows)
        return last.dense(last.attention.norm(query + read).astype(x.dtype)), weight

    def read_regions(
        self,
        promoter: Float[Array, "B D"],
        x: Float[Array, "P F L"],
        valid: Bool[Array, "P L"],
        layout: TokenLayout,
    ) -> tuple[Float[Array, "P D"], tuple[Float[Array, "P H L"], ...]]:
        """What each promoter's stream has become after reading each of its regions."""
        project = self.pairwise_input.kernel[...]
        code = jnp.asarray(positional_code(self.positions, project.shape[1]), x.dtype)
        stream = self.pairwise_promoter(promoter)
        weights = []
        for number, layer in enumerate(self.pairwise):
            # Until it has read, the stream is the same for all regions of a gene.
            spread = layout.spread if number == 0 else lambda rows: rows
            read, weight = layer.attention.read(stream, x, valid, project, code, spread)
            stream = layer.dense(layer.attention.norm(spread(stream) + read).astype(x.dtype))
            weights.append(weight)
        return stream, tuple(weights)

    def regulate(
        self,
        tokens: Float[Array, "ST D"],
        frequency: Float[Array, "S T"],
        present: Bool[Array, "S T"],
        layout: TokenLayout,
        every_token: bool,
    ) -> tuple[Float[Array, "B D"], tuple[Float[Array, "S H T T"], ...]]:
        """Each promoter's token after regulation.

        Args:
            frequency: contact score of each row's region with its gene; 0 for promoters.
            present: which rows are tokens of the gene's own.
            every_token: whether the last layer, too, computes all tokens.
        """
        owner = layout.owner
        valid = jnp.asarray(owner[:, :, None] == owner[:, None, :]) & present[:, None, :]
        asking = jnp.asarray(
            layout.token == 0, frequency.dtype
        )  # promoters alone feel the frequency
        drawn = asking[:, :, None] * frequency[:, None, :]
        weights = []
        for layer in self.regulation[: None if every_token else -1]:
            attended, weight = layer.attention(tokens, drawn, valid)
            tokens = layer.dense(attended)
            weights.append(weight)
        if every_token:
            return tokens[layout.first], tuple(weights)
        owner_of_place = np.take_along_axis(owner, layout.first_of, axis=1)
        valid = jnp.asarray(owner_of_place[:, :, None] == owner[:, None, :]) & present[:, None, :]
        drawn = jnp.broadcast_to(frequency[:, None, :], valid.shape)
        last = self.regulation[-1]
        attended, _ = last.attention.first_only(tokens, layout.first, layout.place, drawn, valid)
        return last.dense(attended), tuple(weights)


def each(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function of modules and arrays, over their first axes."""
    parts = [nnx.split(x) if isinstance(x, nnx.Module) else (None, x) for x in arguments]
    graphs = [graph for graph, _ in parts]

    def one(*states: Any) -> Any:
        whole = zip(graphs, states, strict=True)
        return function(*(x if graph is None else nnx.merge(graph, x) for graph, x in whole))

    return jax.vmap(one)(*(state for _, state in parts))
