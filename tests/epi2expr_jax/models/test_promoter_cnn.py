import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.models import REGISTRY, layers
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.training import targets
from tests.epi2expr_jax.untrained import built

GOLDEN_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "golden"
MAKER = runpy.run_path(str(GOLDEN_FOLDER / "make_cnn_golden.py"))
GOLDEN = np.load(GOLDEN_FOLDER / "promoter_cnn.npz")
CONFIGS = {
    "narrow": PromoterCnnConfig(
        assays=MAKER["NARROW_ASSAYS"], width=MAKER["NARROW_WIDTH"]["promoter_cnn"], dropout=0.0
    ),
    "full": PromoterCnnConfig(dropout=0.0),
}
SMALL = PromoterCnnConfig(width=0.05)


def parts(model):
    return [*model.trunk, *model.head, model.output]


def variables(model):
    """Kind and variable of all weights, in Keras's order."""
    for part in parts(model):
        yield from (("kernel", part.kernel), ("bias", part.bias))


def golden_model(size):
    model = built(CONFIGS[size])
    state = np.random.RandomState(MAKER["SEED"])
    for kind, variable in variables(model):
        drawn = MAKER["draw"](kind, variable.shape, state)
        variable[...] = jnp.asarray(drawn, variable.dtype)
    return model


def golden_signal(size):
    return map(jnp.asarray, MAKER["signal"](60, CONFIGS[size].assays))


def predictor(model):
    """`predict(x, key=None)`, compiled once a shape; in training mode if there is a key."""
    graph, state = nnx.split(model)

    @jax.jit
    def apply(state, x, key):
        return nnx.merge(graph, state)(x, mask=jnp.ones(len(x), bool), key=key)

    return lambda x, key=None: apply(state, x, key)


def gradients(model, x, y, mask):
    """Loss and its gradients, as another model."""
    graph, params = nnx.split(model)

    def loss(params):
        prediction = nnx.merge(graph, params)(x, mask=mask, key=jax.random.key(0))
        return targets.masked_mse(prediction=prediction, target=y, mask=mask)

    error, gradient = jax.jit(jax.value_and_grad(loss))(params)
    return error, nnx.merge(graph, gradient)


@pytest.mark.usefixtures("full_compile")
@pytest.mark.parametrize("size", CONFIGS)
def test_parameters_and_predictions_equal_keras(size):
    model = golden_model(size)
    counted = sum(array.size for array in jax.tree.leaves(nnx.state(model)))
    assert counted == GOLDEN[f"{size}/parameters"]
    x, _ = golden_signal(size)
    expected = GOLDEN[f"{size}/inference"]
    np.testing.assert_allclose(predictor(model)(x.astype("float32")), expected, atol=1e-5)


def test_the_published_size():
    assert GOLDEN["full/parameters"] == 2_619_126


def test_every_layer_equals_keras():
    model = golden_model("narrow")
    x, _ = golden_signal("narrow")
    x = x[: MAKER["LAYER_GENES"]].astype("float32")
    for i, part in enumerate(parts(model)[:-1]):
        if i < 3:
            y = layers.conv(x, part.kernel[...]) + part.bias[...][None, None]
            expected = GOLDEN[f"narrow/layer/{i}_linear"]
            np.testing.assert_allclose(y, expected, atol=1e-5, err_msg=f"{i}_linear")
            x = part(x, mask=jnp.ones(len(x), bool), key=None)
        else:
            x = nnx.relu(part(x.reshape(len(x), -1)))
        np.testing.assert_allclose(x, GOLDEN[f"narrow/layer/{i}"], atol=1e-5, err_msg=f"{i}")


@pytest.mark.usefixtures("full_compile")
@pytest.mark.parametrize("size", CONFIGS)
def test_gradients_equal_keras(x64, size):
    model = golden_model(size)
    x, y = golden_signal(size)
    np.testing.assert_allclose(predictor(model)(x), GOLDEN[f"{size}/training"], atol=1e-10)
    error, gradient = gradients(model, x, y, jnp.ones(len(x), bool))
    np.testing.assert_allclose(error, GOLDEN[f"{size}/loss"], atol=1e-10)
    for i, (_, one) in enumerate(variables(gradient)):
        flat = np.asarray(one[...]).reshape(-1)
        if size == "full":
            flat = MAKER["projections"](flat.size) @ flat
        expected = GOLDEN[f"{size}/gradient/{i}"].reshape(-1)
        np.testing.assert_allclose(flat, expected, atol=1e-10, err_msg=f"tensor {i}")


def test_a_partial_batch_equals_the_small_batch_alone(x64):
    model = built(PromoterCnnConfig(width=0.05, dropout=0.0))
    x = jnp.asarray(np.random.RandomState(0).standard_normal((8, 60, 1)))
    y = jnp.arange(8.0).at[5:].set(jnp.nan)
    partial = gradients(model, x, y, jnp.arange(8) < 5)
    alone = gradients(model, x[:5], y[:5], jnp.ones(5, bool))
    for a, b in zip(jax.tree.leaves(partial), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_inference_does_not_depend_on_the_batch():
    model = built(SMALL)
    x = jnp.asarray(np.random.RandomState(0).standard_normal((12, 60, 1)), "float32")
    predict = predictor(model)
    whole = predict(x)
    for size in (1, 4):
        batches = (x[i : i + size] for i in range(0, 12, size))
        found = jnp.concatenate([predict(batch) for batch in batches])
        np.testing.assert_allclose(found, whole, atol=1e-6)


def test_dropout_follows_its_key_and_has_the_published_rates():
    model = built(SMALL)
    x = jnp.ones((4, 60, 1))
    predict = predictor(model)
    first, again, other = (predict(x, jax.random.key(i)) for i in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert ([block.rate for block in model.trunk], model.flat_rate) == ([0.1, 0.1, 0.1], 0.4)


def test_vmapped_runs_equal_single_ones():
    models = [built(SMALL, seed) for seed in range(3)]
    graph = nnx.split(models[0])[0]
    states = jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(nnx.state, models))
    keys = jax.random.split(jax.random.key(0), 3)
    x = jnp.asarray(np.random.RandomState(0).standard_normal((4, 60, 1)), "float32")

    def run(state, key):
        return nnx.merge(graph, state)(x, mask=jnp.ones(4, bool), key=key)

    together = jax.jit(jax.vmap(run))(states, keys)
    single = jax.jit(run)
    for model, key, found in zip(models, keys, together, strict=True):
        np.testing.assert_allclose(found, single(nnx.state(model), key), atol=1e-6)
    assert (together[0] != together[1]).all()


def test_width_multiplies_every_hidden_width():
    def sizes(width):
        model = built(PromoterCnnConfig(width=width))
        return [part.bias.shape[0] for part in parts(model)]

    assert sizes(1.0) == [175, 350, 700, 625, 125, 1]
    assert sizes(0.001) == [1, 1, 1, 1, 1, 1]


def test_the_registry_names_it():
    assert REGISTRY["promoter_cnn"] is PromoterCnnConfig
    assert PromoterCnnConfig().window.bins == 60
