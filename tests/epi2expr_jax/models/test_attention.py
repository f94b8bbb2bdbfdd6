"""The layers of Chromoformer against plain NumPy, in which every token is made and asks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.models.attention import (
    Attention,
    FeedForward,
    GatedAttention,
    LayerNorm,
    Linear,
    positional_code,
)
from tests.golden.plain_chromoformer import attend

HEADS, WIDTH, INNER = 2, 6, 8


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def drawn(make):
    """A layer with all its variables drawn, those that start as constants too."""
    graph, state = nnx.split(nnx.eval_shape(make))
    leaves, tree = jax.tree.flatten(state)
    values = [jnp.asarray(normal([9, i], *leaf.shape)) for i, leaf in enumerate(leaves)]
    return nnx.merge(graph, jax.tree.unflatten(tree, values))


def weights(linear):
    return np.asarray(linear.kernel[...])


def dense(linear, x):
    return x @ weights(linear) + np.asarray(linear.bias[...])


def normalised(norm, x):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture(autouse=True)
def _double(x64):
    """All of it in double precision."""


def test_positions_are_sines_and_cosines_of_falling_rate():
    code = positional_code(7, 6)
    assert code.shape == (7, 6)
    assert_close(code[0], [0, 1, 0, 1, 0, 1])
    slow, slower = 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)
    expected = [f(3 * rate) for rate in (1, slow, slower) for f in (np.sin, np.cos)]
    assert_close(code[3], expected)
    assert_close(positional_code(7, 5)[:, 0::2], np.sin(np.arange(7)[:, None] * rates(5)))


def rates(width):
    return np.array([10_000.0 ** (-even / width) for even in range(0, width, 2)])


def test_a_linear_layer_starts_within_its_bound_and_works_on_the_last_axis():
    made = drawn(lambda: Linear(16, 5, rngs=nnx.Rngs(0)))
    for variable in (made.kernel, made.bias):
        assert variable.get_metadata()["bound"] == 0.25  # 1 / sqrt(16), as in PyTorch
    x = normal(0, 2, 3, 16)
    assert_close(jax.jit(made.__call__)(x), dense(made, x))
    assert_close(made.shift, made.bias[...])
    plain = drawn(lambda: Linear(16, 3, bias=False, rngs=nnx.Rngs(0)))
    assert_close(jax.jit(plain.__call__)(x), x @ weights(plain))
    assert plain.shift.tolist() == [0, 0, 0]


def test_normalisation_and_the_dense_layers_after_attention():
    x = normal(1, 4, 3, WIDTH) * 5 + 2
    norm = drawn(lambda: LayerNorm(WIDTH))
    assert_close(jax.jit(norm.__call__)(x), normalised(norm, x))
    assert_close(jax.jit(norm.__call__)(np.full_like(x, 7))[0, 0], norm.bias[...])  # no variance
    made = drawn(lambda: FeedForward(WIDTH, 9, rngs=nnx.Rngs(0)))
    hidden = np.maximum(dense(made.inner, x), 0)
    expected = normalised(made.norm, x + dense(made.outer, hidden))
    assert_close(jax.jit(made.__call__)(x), expected)


def test_what_a_query_reads_equals_attention_over_tokens_that_are_made():
    """Of 5 regions of 2 genes, one with a single position and one with none of its own."""
    made = drawn(lambda: Attention(WIDTH, HEADS, INNER, rngs=nnx.Rngs(0)))
    gene = np.array([0, 1, 0, 1, 1])
    query, x = normal(2, 2, WIDTH), normal(3, 5, 3, 7)
    project, code = normal(4, 3, WIDTH), positional_code(7, WIDTH)
    valid = normal(5, 5, 7) > 0
    valid[1], valid[2] = np.arange(7) == 4, False

    @jax.jit
    def read(query, x, valid, project, code):
        return made.read(query, x, valid, project, code, lambda rows: rows[gene])

    found, looked = read(query, x, valid, project, code)
    for row in range(5):
        tokens = x[row].T @ project + code
        weight, vector = attend(
            query[gene[row]][None] @ weights(made.query), tokens @ weights(made.key),
            tokens @ weights(made.value), HEADS, valid[row],
        )  # fmt: skip
        assert_close(looked[row], weight[:, 0])
        assert_close(found[row], dense(made.output, vector)[0])
    assert_close(looked[1], np.broadcast_to(valid[1], (HEADS, 7)))
    assert_close(looked[2], np.full((HEADS, 7), 1 / 7))  # as published: uniform


def test_attention_among_all_positions():
    made = drawn(lambda: Attention(WIDTH, HEADS, INNER, rngs=nnx.Rngs(0)))
    tokens, valid = normal(6, 3, 5, WIDTH), np.arange(5) < np.array([[5], [2], [0]])
    found = jax.jit(made.among)(tokens, valid)
    for row, own in zip(range(3), valid, strict=True):
        x = tokens[row]
        inputs = (x @ weights(part) for part in (made.query, made.key, made.value))
        vector = attend(*inputs, HEADS, own[:, None] & own)[1]
        assert_close(found[row], normalised(made.norm, x + dense(made.output, vector)))


def gated():
    """A gated layer, and two blocks of 4 tokens: genes of 3 and 1, and of 2 and 1, a filler."""
    owner = np.array([[0, 0, 0, 1], [2, 2, 3, -1]])
    made = drawn(lambda: GatedAttention(WIDTH, HEADS, INNER, rngs=nnx.Rngs(0)))
    return made, normal(7, 8, WIDTH), normal(8, 2, 4, 4) ** 2, owner[:, :, None] == owner[:, None]


def test_gated_attention_is_drawn_to_regions_by_contact_and_stays_within_a_gene():
    made, x, frequency, same = gated()
    found, looked = jax.jit(made.__call__)(x, frequency, same)
    gamma = np.asarray(made.contact[...])[:, None, None]
    for block in range(2):
        own = x[4 * block : 4 * block + 4]
        *inputs, gate = np.split(own @ weights(made.inputs), 4, axis=1)
        weight, vector = attend(*inputs, HEADS, same[block], gamma * frequency[block])
        expected = own + dense(made.output, vector / (1 + np.exp(-gate)))
        assert_close(found[4 * block : 4 * block + 4], normalised(made.norm, expected))
        assert_close(looked[block], weight)
        assert not np.asarray(looked[block])[:, ~same[block]].any()


def test_first_tokens_alone_get_what_they_get_among_all():
    made, x, frequency, same = gated()
    first, place = np.array([0, 3, 4, 6]), np.array([0, 1, 2, 3])
    column = np.array([[0, 3], [0, 2]])  # of each block's first tokens
    asking = [np.take_along_axis(a, column[:, :, None], axis=1) for a in (frequency, same)]
    whole, every_look = jax.jit(made.__call__)(x, frequency, same)
    first_only = jax.jit(lambda x, *asking: made.first_only(x, first, place, *asking))
    found, looked = first_only(x, *asking)
    assert_close(found, whole[first])
    assert_close(looked, np.take_along_axis(np.asarray(every_look), column[:, None, :, None], 2))
