import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.inputs import transforms as signal


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_same_on_numpy_and_jax(xp):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    merged = signal.merge_bins(xp.asarray(x), 2)
    assert isinstance(merged, np.ndarray) == (xp is np)
    np.testing.assert_array_equal(merged[0, 0], [0.5, 2.5])
    flipped = signal.orient(xp.asarray(x), xp.asarray([True, False, True]))
    np.testing.assert_array_equal(flipped[:, 0], x[:, 0, ::-1])
    np.testing.assert_array_equal(flipped[:, 1], x[:, 1])


def test_merging_fine_bins_equals_coarse_means():
    bases = np.random.default_rng(0).integers(0, 50, (5, 1000)).astype(np.float64)
    fine = bases.reshape(5, -1, 25).mean(-1)
    np.testing.assert_allclose(signal.merge_bins(fine, 4), bases.reshape(5, -1, 100).mean(-1))


def test_transforms_do_what_their_names_say():
    x = np.array([0.0, 1.0, 100.0])
    np.testing.assert_allclose(signal.TRANSFORMS["log1p"](x), np.log(x + 1))
    np.testing.assert_allclose(signal.TRANSFORMS["arcsinh"](-x), -np.arcsinh(x))
    assert signal.TRANSFORMS["none"](x) is x
