import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.models import layers


def normal(seed, shape):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape))


def lax_conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


def value_and_gradients(function, *arguments):
    """Output of `function` and its gradients along a fixed random direction."""

    @jax.jit  # one compilation, instead of one an operation
    def both(*arguments):
        output, pull = jax.vjp(function, *arguments)
        return output, *pull(normal(99, output.shape))

    return both(*arguments)


def assert_close(found, expected, tolerance=1e-12):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.fixture
def small_pieces(monkeypatch):
    """Patches for a few genes at a time, so that every loop over pieces has several turns."""
    monkeypatch.setattr(layers, "PATCH_BYTES", {"cpu": 6_000})


@pytest.mark.parametrize(("width", "bins"), [(1, 1), (7, 1), (7, 2), (4, 3), (8, 12), (19, 12)])
def test_conv_and_its_gradients_equal_a_plain_convolution(x64, small_pieces, width, bins):
    x, kernel = normal(0, (6, bins, 3)), normal(1, (width, 3, 5))
    expected = value_and_gradients(lax_conv, x, kernel)
    assert_close(value_and_gradients(layers.conv, x, kernel), expected)


def test_pieces_do_not_change_the_numbers(x64, monkeypatch):
    x, kernel = normal(0, (12, 20, 3)), normal(1, (4, 3, 5))
    whole = value_and_gradients(lambda x, k: layers.conv_max_pool(x, k, 3), x, kernel)
    for limit in (1, 3_000, 12_000, 10**9):
        monkeypatch.setattr(layers, "PATCH_BYTES", {"cpu": limit})
        pieces = value_and_gradients(lambda x, k: layers.conv_max_pool(x, k, 3), x, kernel)
        assert_close(pieces, whole)


def test_max_pool_drops_the_rest_and_sends_the_gradient_to_the_first_maximum():
    x = jnp.asarray([[3.0, 3.0, 1.0, 4.0, 4.0, 5.0, 9.0]])[:, :, None]
    pooled, pull = jax.vjp(lambda x: layers.max_pool(x, 3), x)
    assert pooled[0, :, 0].tolist() == [3, 5]
    (gradient,) = pull(jnp.asarray([[[1.0], [2.0]]]))
    assert gradient[0, :, 0].tolist() == [1, 0, 0, 0, 0, 2, 0]


def test_pooling_lets_no_nan_disappear():
    x = jnp.zeros((1, 4, 1)).at[0, 1].set(jnp.nan)
    assert np.isnan(layers.max_pool(x, 2)[0, :, 0]).tolist() == [True, False]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_conv_max_pool_equals_its_two_parts(x64, small_pieces, size):
    x, kernel = normal(0, (6, 13, 3)), normal(1, (4, 3, 5))
    x = x.at[0].set(0)  # equal maxima
    parts = value_and_gradients(lambda x, k: layers.max_pool(layers.conv(x, k), size), x, kernel)
    together = value_and_gradients(lambda x, k: layers.conv_max_pool(x, k, size), x, kernel)
    assert_close(together, parts)


def test_moments_see_only_the_genes_that_are_there(x64):
    y = normal(0, (6, 5, 3)).at[4:].set(1e6)
    mean, var = layers.moments(y, jnp.arange(6) < 4)
    np.testing.assert_allclose(mean, y[:4].mean((0, 1)))
    np.testing.assert_allclose(var, y[:4].var((0, 1)))


def test_moments_keep_their_digits_in_float32_when_the_mean_is_large():
    y = normal(0, (64, 50, 2)).astype(jnp.float32) + 1000
    _, var = layers.moments(y, jnp.ones(64, bool))
    np.testing.assert_allclose(var, np.asarray(y, np.float64).var((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("bins", [1, 9])
def test_moments_of_a_convolution_come_from_its_patches(x64, bins):
    x, kernel = normal(0, (6, bins, 2)) + 3, normal(1, (4, 2, 5))
    mask = jnp.asarray([True, False, True, True, True, False])
    expected = layers.moments(layers.conv(x, kernel), mask)
    assert_close(layers.conv_moments(x, kernel, mask), expected)


def test_no_gene_at_all_gives_finite_moments():
    none = jnp.zeros(4, bool)
    x, kernel = jnp.ones((4, 9, 2)), jnp.ones((3, 2, 5))
    for moments in (layers.moments(x, none), layers.conv_moments(x, kernel, none)):
        assert all(np.isfinite(array).all() for array in moments)


def test_dropout_keeps_the_mean_and_follows_its_key():
    x = jnp.ones((200, 500))
    first = layers.dropout(x, rate=0.3, key=jax.random.key(0))
    np.testing.assert_allclose(first.mean(), 1, atol=0.01)
    np.testing.assert_allclose((first == 0).mean(), 0.3, atol=0.01)
    assert set(np.unique(first).tolist()) == {0.0, float(np.float32(1) / np.float32(0.7))}
    assert (first == layers.dropout(x, rate=0.3, key=jax.random.key(0))).all()
    assert (first != layers.dropout(x, rate=0.3, key=jax.random.key(1))).any()
    assert layers.dropout(x, rate=0.3, key=None) is x
    assert layers.dropout(x, rate=0.0, key=jax.random.key(0)) is x


def test_layers_have_keys_of_their_own():
    key = jax.random.key(0)
    assert layers.layer_key(None, 0) is None
    assert layers.layer_key(key, 0) != layers.layer_key(key, 1)


def block(folded, **options):
    options = {"pool": 4, "rate": 0.0} | options
    made = layers.ConvBlock(2, 7, 5, folded=folded, rngs=nnx.Rngs(0), **options)
    made.bias[...] = normal(1, 7)
    if made.norm is not None:
        made.norm.scale[...] = normal(2, 7)  # some negative: those filters turn upside down
        made.norm.bias[...] = normal(3, 7)
        made.norm.mean[...] = normal(4, 7)
    return made


def run_block(made, x, mask, key):
    """Output, gradients by weights and input, and the statistics afterwards."""
    graph, params, stats = nnx.split(made, nnx.Param, ...)

    def apply(params, x):
        model = nnx.merge(graph, params, stats, copy=True)
        return model(x, mask=mask, key=key), nnx.state(model, nnx.BatchStat)

    @jax.jit
    def both(params, x):
        output, pull, stats = jax.vjp(apply, params, x, has_aux=True)
        return output, pull(normal(99, output.shape).astype(x.dtype) * mask[:, None, None]), stats

    return both(params, x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [1, 4])
def test_a_block_equals_convolution_norm_relu_pool_in_that_order(x64, training, pool):
    made = block(folded=False, pool=pool)
    x, mask = normal(5, (6, 19, 2)), jnp.arange(6) < 5
    y = lax_conv(x, made.kernel[...]) + made.bias[...][None, None]
    mean, var = made.norm.mean[...], made.norm.var[...]
    if training:
        mean, var = y[:5].mean((0, 1)), y[:5].var((0, 1))
    y = (y - mean[None, None]) / np.sqrt(var + 1e-3)[None, None]
    y = nnx.relu(y * made.norm.scale[...][None, None] + made.norm.bias[...][None, None])
    expected = layers.max_pool(y, pool)
    found = made(x, mask=mask, key=jax.random.key(0) if training else None)
    assert_close(found[:5], expected[:5])


@pytest.mark.parametrize("pool", [1, 4])
def test_folding_changes_neither_output_nor_gradient_nor_statistics(x64, small_pieces, pool):
    x, mask = normal(5, (6, 19, 2)), jnp.arange(6) != 2
    found, expected = (
        run_block(block(folded, pool=pool), x, mask, jax.random.key(0)) for folded in (True, False)
    )
    assert_close(found, expected, 1e-11)


@pytest.mark.parametrize("folded", [True, False])
def test_a_partial_batch_equals_the_small_batch_alone(x64, folded):
    x = normal(5, (6, 19, 2))
    partial = run_block(block(folded), x, jnp.arange(6) < 4, jax.random.key(0))
    alone = run_block(block(folded), x[:4], jnp.ones(4, bool), jax.random.key(0))
    assert_close(partial[0][:4], alone[0])
    assert_close(partial[1][0], alone[1][0])
    assert_close(partial[2], alone[2])


def test_moving_averages_take_the_biased_variance_with_momentum(x64):
    made = block(folded=False)
    before, bias = made.norm.mean[...], made.bias[...]
    x = normal(5, (6, 19, 2))
    y = lax_conv(x, made.kernel[...]) + bias[None, None]
    made(x, mask=jnp.ones(6, bool), key=jax.random.key(0))
    np.testing.assert_allclose(made.norm.mean[...], 0.99 * before + 0.01 * y.mean((0, 1)))
    np.testing.assert_allclose(made.norm.var[...], 0.99 + 0.01 * y.var((0, 1)))


def test_inference_leaves_the_statistics_alone():
    made = block(folded=False)
    before = jax.tree.map(np.asarray, nnx.state(made, nnx.BatchStat))
    made(jnp.ones((6, 19, 2)), mask=jnp.ones(6, bool), key=None)
    assert_close(nnx.state(made, nnx.BatchStat), before, 0)


def test_single_precision_stays_single():
    x = jnp.ones((6, 19, 2))
    for made in (block(True, rate=0.1), block(False, rate=0.1)):
        arrays = run_block(made, x, jnp.ones(6, bool), jax.random.key(0))
        assert {array.dtype for array in jax.tree.leaves(arrays)} == {jnp.dtype("float32")}


def test_weights_are_glorot_uniform_and_biases_zero():
    made = layers.ConvBlock(30, 50, 7, rngs=nnx.Rngs(0))
    limit = np.sqrt(6 / (7 * 30 + 7 * 50))
    assert np.abs(made.kernel[...]).max() <= limit
    np.testing.assert_allclose(made.kernel[...].std(), limit / np.sqrt(3), rtol=0.02)
    assert not made.bias[...].any()


@pytest.mark.parametrize("how", [{"folded": True, "pool": 4}, {"pool": 2}, {"norm": False}])
def test_a_block_hands_on_bfloat16_and_keeps_its_statistics_in_float32(how):
    """Its weights' gradients too; all within what rounding to 8 bits makes of them."""
    block = layers.ConvBlock(2, 24, 5, rngs=nnx.Rngs(0), **how)
    graph, state = nnx.split(block)
    x = jnp.asarray(normal(0, (16, 40, 2)), jnp.float32)

    @jax.jit
    def run(state, x):
        def loss(state):
            own = nnx.merge(graph, state, copy=True)
            y = own(x, mask=jnp.ones(16, bool), key=jax.random.key(1))
            return (layers.full(y) ** 2).mean(), (y, nnx.state(own, nnx.BatchStat))

        return jax.grad(loss, has_aux=True)(state)

    (gradient, (y, stats)), (low_gradient, (low, low_stats)) = (
        run(state, x),
        run(state, x.astype(jnp.bfloat16)),
    )
    assert (y.dtype, low.dtype) == (jnp.float32, jnp.bfloat16)
    assert 0 < np.abs(low - y).max() < 0.03 * np.abs(y).max()
    for one, other in zip(
        jax.tree.leaves((low_gradient, low_stats)), jax.tree.leaves((gradient, stats)), strict=True
    ):
        assert one.dtype == jnp.float32
        assert np.linalg.norm(one - other) <= 0.05 * np.linalg.norm(other) + 1e-4
