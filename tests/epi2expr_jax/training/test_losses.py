import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.training.losses import masked_cross_entropy, masked_mse


def loss(prediction, target, mask):
    return masked_mse(
        prediction=jnp.asarray(prediction), target=jnp.asarray(target), mask=jnp.asarray(mask)
    )


def test_only_genes_in_the_mask_count():
    assert loss([1.0, 2.0, 50.0], [0.0, 4.0, 0.0], [True, True, False]) == 2.5


def test_nan_outside_the_mask_reaches_neither_loss_nor_gradient():
    prediction, target = jnp.asarray([1.0, jnp.nan]), jnp.asarray([0.0, jnp.nan])
    mask = jnp.asarray([True, False])
    value, gradient = jax.value_and_grad(loss)(prediction, target, mask)
    assert value == 1
    assert gradient.tolist() == [2, 0]


def test_nan_inside_the_mask_stays():
    assert np.isnan(loss([1.0, jnp.nan], [0.0, 0.0], [True, True]))


def test_no_gene_makes_zero():
    assert loss([1.0, 2.0], [0.0, 0.0], [False, False]) == 0


def test_cross_entropy_is_that_of_two_logits():
    random = np.random.default_rng(0)
    logits, label = random.normal(0, 3, (20, 2)), random.random(20) < 0.5
    mask = jnp.arange(20) < 17
    expected = -np.log(np.exp(logits)[np.arange(20), label.astype(int)] / np.exp(logits).sum(1))
    odds = jnp.asarray(logits[:, 1] - logits[:, 0]).at[18].set(jnp.nan)

    def loss(odds):
        return masked_cross_entropy(prediction=odds, target=jnp.asarray(label, float), mask=mask)

    assert loss(odds) == pytest.approx(expected[:17].mean(), rel=1e-5)
    gradient = jax.grad(loss)(odds)
    np.testing.assert_array_equal(gradient[17:], 0)
    np.testing.assert_allclose(
        gradient[:17], (1 / (1 + np.exp(-odds[:17])) - label[:17]) / 17, rtol=1e-4
    )
    assert np.isnan(loss(odds.at[3].set(jnp.nan)))
