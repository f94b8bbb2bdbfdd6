"""Make cnn.npz and promoter_cnn.npz: what Keras 3 computes, for the tests of our two CNNs.

Weights and inputs are drawn from a seeded RandomState, here and in the tests, by the functions
below; only Keras's outputs are stored. Needs the extra `peers`:

    python tests/golden/make_cnn_golden.py [FOLDER]
"""

import os
import pathlib
import sys

import numpy as np

SEED = 20240611
# A narrow model of several assays is stored layer by layer, the published one by its outputs.
BINS = {"cnn": 400, "promoter_cnn": 60}
NARROW_WIDTH = {"cnn": 0.1875, "promoter_cnn": 0.125}
NARROW_ASSAYS = 3
GENES = 8
LAYER_GENES = 2  # whose layer outputs are stored
PROJECTIONS = 3


def draw(kind: str, shape: tuple[int, ...], state: np.random.RandomState) -> np.ndarray:
    """One weight array; kinds as Keras names them. Some gammas are negative, to flip filters."""
    noise = state.standard_normal(shape)
    if kind == "kernel":
        return noise * np.sqrt(2 / np.prod(shape[:-1]))
    if kind == "gamma":
        return noise + 0.5
    if kind == "moving_variance":
        return np.exp(0.3 * noise)
    return 0.1 * noise  # bias, beta, moving_mean


def signal(bins: int, assays: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `[B W A]`, with stretches without signal (equal maxima), and targets `[B]`."""
    state = np.random.RandomState(SEED)
    x = np.arcsinh(state.gamma(0.5, 4.0, (GENES, bins, assays)))
    x[0, : bins // 3] = 0
    return x, state.standard_normal(GENES)


def projections(size: int) -> np.ndarray:
    """Unit directions `[PROJECTIONS, size]` that stand for a large gradient."""
    return np.random.RandomState(size).standard_normal((PROJECTIONS, size)) / np.sqrt(size)


def keras_cnn(assays: int, width: float):
    """The GOPHER-derived regressor, without dropout; every layer by name."""
    from keras import Input, Model, layers

    def block(x, name, linear, pool=1):
        x = linear(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
        x = layers.ReLU()(x)
        if pool > 1:
            x = layers.MaxPool1D(pool)(x)
        return layers.Identity(name=name)(x)

    def conv(name, filters, kernel):
        filters = max(1, round(filters * width))
        return layers.Conv1D(filters, kernel, padding="same", name=f"{name}_linear")

    def dense(name, units):
        return layers.Dense(max(1, round(units * width)), name=f"{name}_linear")

    inputs = x = Input((BINS["cnn"], assays))
    for name, filters, kernel, pool in (("0", 192, 19, 8), ("1", 256, 7, 4), ("2", 512, 7, 4)):
        x = block(x, name, conv(name, filters, kernel), pool)
    x = layers.Flatten()(x)
    for name, units in (("3", 256), ("4", 8)):
        x = block(x, name, dense(name, units))
    x = layers.Reshape((1, x.shape[-1]))(x)
    for name, filters in (("5", 256), ("6", 64)):
        x = block(x, name, conv(name, filters, 7))
    return Model(inputs, layers.Dense(1)(layers.Flatten()(x)))


def keras_promoter_cnn(assays: int, width: float):
    """The promoter CNN, without dropout; every layer by name."""
    from keras import Input, Model, layers

    inputs = x = Input((BINS["promoter_cnn"], assays))
    for name, filters, kernel, pool in (("0", 175, 8, 4), ("1", 350, 4, 2), ("2", 700, 4, 2)):
        filters = max(1, round(filters * width))
        x = layers.Conv1D(filters, kernel, padding="same", name=f"{name}_linear")(x)
        x = layers.MaxPool1D(pool, name=name)(layers.ReLU()(x))
    x = layers.Flatten()(x)
    for name, units in (("3", 625), ("4", 125)):
        units = max(1, round(units * width))
        x = layers.Dense(units, activation="relu", name=name)(x)
    return Model(inputs, layers.Dense(1)(x))


def in_precision(dtype: str, build, assays: int, width: float):
    """A Keras model of this precision throughout, with the weights that the tests draw as well."""
    from keras import config
    from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE

    # On JAX, Keras computes a float64 batch norm in float32; this table is what makes it so.
    BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    config.set_floatx(dtype)
    config.set_dtype_policy(dtype)
    model = build(assays, width)
    state = np.random.RandomState(SEED)
    model.set_weights([draw(weight.name, weight.shape, state) for weight in model.weights])
    return model


def layer_outputs(model, x) -> dict[str, np.ndarray]:
    """Inference outputs of every named layer: convolutions, normalisations, whole blocks."""
    from keras import Model

    named = [layer for layer in model.layers if layer.name[0].isdigit()]
    outputs = Model(model.input, [layer.output for layer in named])(x, training=False)
    pairs = zip(named, outputs, strict=True)
    return {f"layer/{layer.name}": np.asarray(output) for layer, output in pairs}


def training_step(model, x, y) -> dict[str, np.ndarray]:
    """Outputs, loss, gradients and moving averages of one training-mode pass."""
    import jax
    import jax.numpy as jnp

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable):
        prediction, moved = model.stateless_call(trainable, fixed, x, training=True)
        return jnp.mean((prediction[:, 0] - y) ** 2), (prediction[:, 0], moved)

    (value, (prediction, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(trainable)
    return {
        "training": np.asarray(prediction),
        "loss": np.asarray(value),
        **{f"moved/{i}": np.asarray(array) for i, array in enumerate(moved)},
        **{f"gradient/{i}": np.asarray(array) for i, array in enumerate(gradient)},
    }


def make(name: str, build) -> dict[str, np.ndarray]:
    """All arrays of one model's golden file."""
    golden = {}
    sizes = {"narrow": (NARROW_ASSAYS, NARROW_WIDTH[name]), "full": (1, 1.0)}
    for size, (assays, width) in sizes.items():
        x, y = signal(BINS[name], assays)
        single = in_precision("float32", build, assays, width)
        golden[f"{size}/parameters"] = np.asarray(single.count_params())
        golden[f"{size}/inference"] = np.asarray(single(x.astype("float32")))[:, 0]
        if size == "narrow":
            layers = layer_outputs(single, x[:LAYER_GENES].astype("float32"))
            golden |= {f"{size}/{key}": array for key, array in layers.items()}
        double = in_precision("float64", build, assays, width)
        for key, array in training_step(double, x, y).items():
            if size == "full" and key.startswith("gradient"):
                array = projections(array.size) @ array.reshape(-1)
            golden[f"{size}/{key}"] = array
    return golden


def main(folder: pathlib.Path) -> None:
    os.environ["KERAS_BACKEND"] = "jax"
    import jax

    jax.config.update("jax_enable_x64", True)
    for name, build in (("cnn", keras_cnn), ("promoter_cnn", keras_promoter_cnn)):
        np.savez_compressed(folder / f"{name}.npz", **make(name, build))


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here)
