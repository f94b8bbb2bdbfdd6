import pathlib
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.models import REGISTRY, layers
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.training import targets
from tests.epi2expr_jax.untrained import built

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "golden" / "make_cnn_golden.py"
MAKER = runpy.run_path(str(SCRIPT))
GOLDEN = np.load(SCRIPT.parent / "cnn.npz")
CONFIGS = {
    "narrow": CnnConfig(
        assays=MAKER["NARROW_ASSAYS"], width=MAKER["NARROW_WIDTH"]["cnn"], dropout=0.0
    ),
    "full": CnnConfig(dropout=0.0),
}
SMALL = CnnConfig(window_bp=3200, width=0.05)  # 128 bins


def blocks(model):
    return [*model.trunk, *model.head]


def variables(model):
    """Kind and variable of all weights, in Keras's order."""
    for block in blocks(model):
        yield from (("kernel", block.kernel), ("bias", block.bias))
        yield from (("gamma", block.norm.scale), ("beta", block.norm.bias))
        yield from (("moving_mean", block.norm.mean), ("moving_variance", block.norm.var))
    yield from (("kernel", model.output.kernel), ("bias", model.output.bias))


def golden_model(size):
    model = built(CONFIGS[size])
    state = np.random.RandomState(MAKER["SEED"])
    for kind, variable in variables(model):
        drawn = MAKER["draw"](kind, variable.shape, state)
        variable[...] = jnp.asarray(drawn, variable.dtype)
    return model


def golden_signal(size):
    return map(jnp.asarray, MAKER["signal"](400, CONFIGS[size].assays))


def predictor(model):
    """`predict(x, key=None)`, compiled once a shape; in training mode if there is a key."""
    graph, state = nnx.split(model)

    @jax.jit
    def apply(state, x, key):
        return nnx.merge(graph, state, copy=True)(x, mask=jnp.ones(len(x), bool), key=key)

    return lambda x, key=None: apply(state, x, key)


def train(model, x, y, mask, key):
    """Prediction, loss, model after the pass, and its gradients (as another model)."""
    graph, params, stats = nnx.split(model, nnx.Param, ...)

    def loss(params):
        model = nnx.merge(graph, params, stats, copy=True)
        prediction = model(x, mask=mask, key=key)
        error = targets.masked_mse(prediction=prediction, target=y, mask=mask)
        return error, (prediction, nnx.state(model, nnx.BatchStat))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (error, (prediction, moved)), gradient = step(params)
    return prediction, error, nnx.merge(graph, params, moved), nnx.merge(graph, gradient, moved)


@pytest.mark.usefixtures("full_compile")
@pytest.mark.parametrize("size", CONFIGS)
def test_parameters_and_predictions_equal_keras(size):
    model = golden_model(size)
    counted = sum(variable[...].size for _, variable in variables(model))
    assert counted == GOLDEN[f"{size}/parameters"]
    assert counted == sum(array.size for array in jax.tree.leaves(nnx.state(model)))
    x, _ = golden_signal(size)
    expected = GOLDEN[f"{size}/inference"]
    np.testing.assert_allclose(predictor(model)(x.astype("float32")), expected, atol=1e-5)


def test_the_published_size():
    assert GOLDEN["full/parameters"] == 1_797_289


def test_every_layer_equals_keras():
    model = golden_model("narrow")
    x, _ = golden_signal("narrow")
    x = x[: MAKER["LAYER_GENES"]].astype("float32")
    mask = jnp.ones(len(x), bool)
    for i, block in enumerate(blocks(model)):
        x = x if i < 3 else x.reshape(len(x), 1, -1)
        y = layers.conv(x, block.kernel[...]) + block.bias[...][None, None]
        slope, offset = block.norm.affine(block.norm.mean[...], block.norm.var[...])
        normal = y * slope[None, None] + offset[None, None]
        x = block(x, mask=mask, key=None)
        for found, name in ((y, f"{i}_linear"), (normal, f"{i}_norm"), (x, f"{i}")):
            expected = GOLDEN[f"narrow/layer/{name}"].reshape(found.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.usefixtures("full_compile")
@pytest.mark.parametrize("size", CONFIGS)
def test_a_training_step_equals_keras(x64, size):
    model = golden_model(size)
    x, y = golden_signal(size)
    found = train(model, x, y, jnp.ones(len(x), bool), jax.random.key(0))
    prediction, error, moved, gradient = found
    np.testing.assert_allclose(prediction, GOLDEN[f"{size}/training"], atol=1e-10)
    np.testing.assert_allclose(error, GOLDEN[f"{size}/loss"], atol=1e-10)
    averages = [value for kind, value in variables(moved) if kind.startswith("moving")]
    for i, average in enumerate(averages):
        np.testing.assert_allclose(average[...], GOLDEN[f"{size}/moved/{i}"], atol=1e-10)
    gradients = [value for kind, value in variables(gradient) if not kind.startswith("moving")]
    assert f"{size}/gradient/{len(gradients) - 1}" in GOLDEN
    for i, one in enumerate(gradients):
        flat = np.asarray(one[...]).reshape(-1)
        if size == "full":
            flat = MAKER["projections"](flat.size) @ flat
        expected = GOLDEN[f"{size}/gradient/{i}"].reshape(-1)
        np.testing.assert_allclose(flat, expected, atol=1e-10, err_msg=f"tensor {i}")


def test_a_partial_batch_equals_the_small_batch_alone(x64):
    model = built(CnnConfig(window_bp=3200, width=0.1, dropout=0.0))
    assert [block.folded for block in model.trunk] == [True, False, False]
    x = jnp.asarray(np.random.RandomState(0).standard_normal((8, 128, 1)))
    y = jnp.arange(8.0).at[5:].set(jnp.nan)
    key = jax.random.key(0)
    partial = train(model, x, y, jnp.arange(8) < 5, key)
    alone = train(model, x[:5], y[:5], jnp.ones(5, bool), key)
    np.testing.assert_allclose(partial[0][:5], alone[0], atol=1e-12)
    for one, other in zip(partial[1:], alone[1:], strict=True):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_inference_does_not_depend_on_the_batch():
    model = built(SMALL)
    x = jnp.asarray(np.random.RandomState(0).standard_normal((12, 128, 1)), "float32")
    predict = predictor(model)
    whole = predict(x)
    for size in (1, 4):
        batches = (x[i : i + size] for i in range(0, 12, size))
        found = jnp.concatenate([predict(batch) for batch in batches])
        np.testing.assert_allclose(found, whole, atol=1e-6)


def test_dropout_differs_between_keys_and_can_be_turned_off():
    x = jnp.ones((4, 128, 1))
    for dropout in (1.0, 0.0):
        config = CnnConfig(window_bp=3200, width=0.05, dropout=dropout)
        model = built(config)
        predict = predictor(model)
        found = [predict(x, jax.random.key(i)) for i in (0, 0, 1)]
        assert (found[0] == found[1]).all()
        assert (found[0] != found[2]).any() == (dropout > 0)
    rates = [block.rate for block in blocks(built(SMALL))]
    assert rates == [0.1, 0.1, 0.2, 0.3, 0.1, 0.2, 0.1]


def test_vmapped_runs_equal_single_ones():
    models = [built(SMALL, seed) for seed in range(3)]
    splits = [nnx.split(model, nnx.Param, ...) for model in models]
    x = jnp.asarray(np.random.RandomState(0).standard_normal((3, 8, 128, 1)), "float32")
    mask, keys = jnp.arange(8) < 7, jax.random.split(jax.random.key(0), 3)

    def gradient(params, stats, x, key):
        def loss(params):
            model = nnx.merge(splits[0][0], params, stats, copy=True)
            prediction = model(x, mask=mask, key=key)
            return targets.masked_mse(prediction=prediction, target=jnp.ones(8), mask=mask)

        return jax.grad(loss)(params)

    params, stats = (
        jax.tree.map(lambda *arrays: jnp.stack(arrays), *(split[part] for split in splits))
        for part in (1, 2)
    )
    together = jax.jit(jax.vmap(gradient))(params, stats, x, keys)
    single = jax.jit(gradient)
    for run, (_, params, stats) in enumerate(splits):
        alone = single(params, stats, x[run], keys[run])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[run], b, rtol=1e-4, atol=1e-5)
    kernel = jax.tree.leaves(together)[-1]
    assert (kernel[0] != kernel[1]).any()


def test_only_weights_and_moving_averages_are_state():
    kinds = {type(leaf) for _, leaf in nnx.to_flat_state(nnx.state(built(SMALL)))}
    assert kinds == {nnx.Param, nnx.BatchStat}


def test_width_multiplies_every_hidden_width():
    def filters(width):
        model = built(CnnConfig(width=width, assays=2))
        return [block.bias.shape[0] for block in blocks(model)]

    assert filters(1.0) == [192, 256, 512, 256, 8, 256, 64]
    assert filters(0.01) == [2, 3, 5, 3, 1, 3, 1]


def test_the_registry_names_it():
    assert REGISTRY["cnn"] is CnnConfig
    assert (CnnConfig().window.bins, CnnConfig.TRAINING["plateau"]["batch_size"]) == (400, 128)


@pytest.mark.peers
def test_the_golden_files_are_what_the_script_makes(tmp_path):
    pytest.importorskip("keras")
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True)
    for name in ("cnn.npz", "promoter_cnn.npz"):
        stored, made = np.load(SCRIPT.parent / name), np.load(tmp_path / name)
        assert stored.files == made.files
        for key in stored.files:
            tolerance = 1e-5 if "layer" in key or "inference" in key else 1e-10
            np.testing.assert_allclose(made[key], stored[key], atol=tolerance)
