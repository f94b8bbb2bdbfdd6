import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training import schedules
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig

SEQUENCES, EPOCHS = 200, 40
PLATEAUS = [(3, 1e-4), (1, 1e-2), (5, 0.1)]  # patience, threshold


def random_losses(seed):
    """Loss sequences `[SEQUENCES, EPOCHS]`: falling and rising, with repeats and one NaN in ten."""
    state = np.random.RandomState(seed)
    noise = state.standard_normal((SEQUENCES, EPOCHS)) * state.choice(
        [1e-4, 0.05, 0.5], (SEQUENCES, 1)
    )
    drift = state.choice([0, 1e-3, 0.05, 0.2], (SEQUENCES, 1))
    losses = np.abs(np.cumsum(noise - drift, axis=1) + 5)
    repeated = state.uniform(size=losses.shape) < 0.2
    losses[:, 1:] = np.where(repeated[:, 1:], losses[:, :-1], losses[:, 1:])
    losses[state.uniform(size=losses.shape) < 0.1] = np.nan
    return losses.astype(np.float32)


def keras_plateau(losses, patience, threshold, factor=0.2):
    """Keras's ReduceLROnPlateau: absolute threshold, falls when the wait reaches the patience."""
    best, wait, scale, scales = np.inf, 0, 1.0, []
    for loss in losses:
        if loss < best - threshold:
            best, wait = loss, 0
        else:
            wait += 1
            if wait >= patience:
                scale, wait = scale * factor, 0
        scales.append(scale)
    return scales


def pytorch_plateau(losses, patience, threshold, factor=0.2):
    """PyTorch's ReduceLROnPlateau: relative threshold, falls when the wait exceeds the patience."""
    best, bad, scale, scales = np.inf, 0, 1.0, []
    for loss in losses:
        if loss < best * (1 - threshold):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            scale, bad = scale * factor, 0
        scales.append(scale)
    return scales


def keras_early_stop(losses, patience, min_delta):
    """Keras's EarlyStopping: epoch of the best weights, and the last epoch trained."""
    best, wait, best_epoch = np.inf, 0, -1
    for epoch, loss in enumerate(losses):
        wait += 1
        if loss + min_delta < best:
            best, wait, best_epoch = loss, 0, epoch
        elif wait >= patience:
            return best_epoch, epoch
    return best_epoch, len(losses) - 1


@functools.partial(jax.jit, static_argnums=0)
def our_plateau(config, losses):
    """Learning-rate multipliers `[sequences, epochs]`."""

    def epoch(state, loss):
        state = schedules.plateau_update(config, state, loss)
        return state, schedules.plateau_scale(state)

    def sequence(losses):
        return jax.lax.scan(epoch, schedules.plateau_init(config), losses)[1]

    return jax.vmap(sequence)(losses)


@functools.partial(jax.jit, static_argnums=0)
def our_early_stop(config, losses):
    """Whether each epoch was the best so far, and whether the run stopped by its end."""

    def epoch(state, loss):
        state = schedules.early_stop_update(config, state, loss)
        return state, (state.improved, state.stop)

    def sequence(losses):
        return jax.lax.scan(epoch, schedules.early_stop_init(), losses)[1]

    return jax.vmap(sequence)(losses)


def our_best_and_last(config, losses):
    """As `keras_early_stop`, for many sequences."""
    improved, stop = map(np.asarray, our_early_stop(config, losses))
    epochs = np.arange(losses.shape[1])
    for one_improved, one_stop in zip(improved, stop, strict=True):
        last = int(np.argmax(one_stop)) if one_stop.any() else len(epochs) - 1
        best = epochs[: last + 1][one_improved[: last + 1]]
        yield (int(best[-1]) if len(best) else -1), last


@pytest.mark.parametrize(("patience", "threshold"), PLATEAUS)
@pytest.mark.parametrize("rule", ["keras", "pytorch"])
def test_plateau_replays_the_published_rules(rule, patience, threshold):
    losses = random_losses(patience)
    reference = {"keras": keras_plateau, "pytorch": pytorch_plateau}[rule]
    expected = [reference(one, patience, threshold) for one in losses]
    config = PlateauConfig(patience=patience, threshold=threshold, rule=rule)
    found = our_plateau(config, losses)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(np.unique(found[:, -1])) > 4  # the sequences do differ


@pytest.mark.parametrize(("patience", "min_delta"), [(12, 0.0), (3, 0.0), (1, 0.0), (4, 0.01)])
def test_early_stopping_replays_keras(patience, min_delta):
    losses = random_losses(patience)
    losses[0] = np.nan
    expected = [keras_early_stop(one, patience, min_delta) for one in losses]
    config = EarlyStopConfig(patience=patience, min_delta=min_delta)
    assert list(our_best_and_last(config, losses)) == expected


def test_nan_is_no_improvement_and_never_the_best():
    losses = jnp.asarray([[jnp.nan, 1.0, jnp.nan, jnp.nan, 0.5]])
    improved, stop = our_early_stop(EarlyStopConfig(patience=3), losses)
    assert improved[0].tolist() == [False, True, False, False, True]
    assert not stop.any()
    scales = our_plateau(PlateauConfig(patience=2), losses)
    np.testing.assert_allclose(scales[0], [1, 1, 1, 0.2, 0.2])
    _, stop = our_early_stop(EarlyStopConfig(patience=3), jnp.full((1, 3), jnp.nan))
    assert stop[0].tolist() == [False, False, True]


def test_a_run_that_stopped_stays_stopped():
    losses = jnp.asarray([[1.0, 2.0, 0.5]])
    _, stop = our_early_stop(EarlyStopConfig(patience=1), losses)
    assert stop[0].tolist() == [False, True, True]


def test_the_scale_has_a_floor():
    config = PlateauConfig(patience=1, min_scale=0.1)
    np.testing.assert_allclose(our_plateau(config, jnp.ones((1, 5)))[0], [1, 0.2, 0.1, 0.1, 0.1])


def test_mapped_runs_equal_vmapped_ones():
    losses = jnp.asarray(random_losses(0)[:5])
    config = PlateauConfig()
    mapped = jax.lax.map(lambda one: our_plateau(config, one[None])[0], losses)
    np.testing.assert_array_equal(mapped, our_plateau(config, losses))


def test_bad_settings_are_refused_all_at_once():
    with pytest.raises(InputError, match="patience=0; expected at least 1") as caught:
        PlateauConfig(factor=1.0, patience=0, threshold=0.0, rule="torch", min_scale=2.0)
    assert len(caught.value.problems) == 5
    with pytest.raises(InputError, match="patience=0; expected at least 1") as caught:
        EarlyStopConfig(patience=0, min_delta=-1.0)
    assert len(caught.value.problems) == 2


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


# Keras 3.15's own variables under NumPy 2.4
KERAS_WARNING = "ignore:__array__ implementation:DeprecationWarning"


def drive_keras(keras, callback, losses):
    """Feed a real Keras callback; the learning rate after each epoch, and the last epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1.0), loss="mse")
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": float(loss)})
        rates.append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
        if model.stop_training:
            break
    return rates, epoch


def keras_losses(seed):
    """As `random_losses`, but starting on a number.

    Keras 3.15 takes a first NaN as the best loss, and then nothing ever improves; it did not in
    its earlier versions, nor do we.
    """
    losses = random_losses(seed)
    losses[:, 0] = np.where(np.isnan(losses[:, 0]), 1, losses[:, 0])
    return losses


@pytest.mark.peers
@pytest.mark.filterwarnings(KERAS_WARNING)
@pytest.mark.parametrize(("patience", "threshold"), PLATEAUS)
def test_plateau_replays_the_real_keras(keras, patience, threshold):
    losses = keras_losses(patience)
    expected = []
    for one in losses:
        callback = keras.callbacks.ReduceLROnPlateau(
            "val_loss", factor=0.2, patience=patience, min_delta=threshold
        )
        expected.append(drive_keras(keras, callback, one)[0])
    found = our_plateau(PlateauConfig(patience=patience, threshold=threshold), losses)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.peers
@pytest.mark.filterwarnings(KERAS_WARNING)
@pytest.mark.parametrize("patience", [12, 3])
def test_early_stopping_replays_the_real_keras(keras, patience):
    losses, expected = keras_losses(patience), []
    for one in losses:
        callback = keras.callbacks.EarlyStopping("val_loss", patience=patience)
        last = drive_keras(keras, callback, one)[1]
        expected.append((callback.best_epoch, last))
    assert list(our_best_and_last(EarlyStopConfig(patience=patience), losses)) == expected


@pytest.mark.peers
@pytest.mark.parametrize(("patience", "threshold"), PLATEAUS)
def test_plateau_replays_the_real_pytorch(patience, threshold):
    torch = pytest.importorskip("torch")
    losses, expected = random_losses(patience), []
    for one in losses:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.2, patience=patience, threshold=threshold, eps=0
        )
        rates = []
        for loss in one:
            scheduler.step(float(loss))
            rates.append(optimizer.param_groups[0]["lr"])
        expected.append(rates)
    config = PlateauConfig(patience=patience, threshold=threshold, rule="pytorch")
    np.testing.assert_allclose(our_plateau(config, losses), expected, rtol=1e-5)
