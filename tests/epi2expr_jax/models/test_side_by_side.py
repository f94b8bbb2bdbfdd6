"""Chromoformer's resolutions side by side, and its activations in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.config import Form
from tests.epi2expr_jax.models.test_chromoformer import (
    CONFIGS,
    QUICK,
    empty,
    golden_model,
    laid_out,
)


def test_resolutions_side_by_side_are_the_same_function():
    """As an accelerator computes it: outputs, gradients, and the weights packed and unpacked."""
    title = "five_marks"
    config = CONFIGS[title]
    params, genes = golden_model(title)
    _, batch = laid_out(genes, "dealt")
    form = config.accelerated()
    plain = Form(empty(config)[0], lambda params: params, lambda params: params)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def outputs_and_gradients(form, params, batch, mask):
        def loss(params):
            out = nnx.merge(form.graph, params, copy=True)(batch, mask=mask, key=None)
            return (out**2).sum(), out

        (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(form.pack(params))
        return out, form.unpack(gradients)

    mask = jnp.ones(len(batch.n_contacts), bool)
    expected = outputs_and_gradients(plain, params, batch, mask)
    found = outputs_and_gradients(form, params, batch, mask)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max() + 1e-7)
    low, gradients = outputs_and_gradients(form, params, batch.astype(jnp.bfloat16), mask)
    assert low.dtype == jnp.float32
    assert 0 < np.abs(low - expected[0]).max() < 0.03 * np.abs(expected[0]).max()
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected[1]), strict=True):
        assert one.dtype == jnp.float32
        assert np.linalg.norm(one - other) <= 0.1 * np.linalg.norm(other) + 1e-3


def test_what_cannot_be_put_side_by_side_stays_as_it_is():
    assert CONFIGS["two_embedding_layers"].accelerated() is None
    assert ChromoformerConfig(resolutions=(500,)).accelerated() is None
