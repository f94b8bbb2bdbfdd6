import jax
import jax.numpy as jnp
import numpy as np

from epi2expr_jax.losses import masked_mse


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
