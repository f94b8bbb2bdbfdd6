"""Weights drawn as one vector, against those that the models make one by one."""

import jax
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.errors import InputError
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.models.weights import draw, named_by

SMALL = {
    "cnn": {"width": 0.05},
    "promoter_cnn": {"width": 0.05},
    "chromoformer": {"width": 0.05, "resolutions": (2000,), "assays": 2},
}


@pytest.fixture(scope="module", params=SMALL)
def variables(request):
    """All variables of a model with their values, as its own making gives them."""
    config = REGISTRY[request.param](**SMALL[request.param])
    return nnx.split(config.build(rngs=nnx.Rngs(0)))[1]


def arrays(variables):
    """Variables by their place in the model."""
    flat, _ = jax.tree_util.tree_flatten_with_path(
        variables, is_leaf=lambda x: isinstance(x, nnx.Variable)
    )
    return {jax.tree_util.keystr(path): variable for path, variable in flat}


def test_drawn_weights_are_like_made_ones(variables):
    drawn = draw(variables, jax.random.key(1))
    assert jax.tree.structure(drawn) == jax.tree.structure(variables)
    own, made = arrays(drawn), arrays(variables)
    assert own.keys() == made.keys()
    constants = 0
    for name, variable in own.items():
        value, other = variable.get_value(), made[name].get_value()
        assert type(variable) is type(made[name]), name
        assert (value.shape, value.dtype) == (other.shape, other.dtype), name
        if "start" in variable.get_metadata():
            constants += 1
            np.testing.assert_array_equal(value, other, err_msg=name)
            continue
        bound = variable.get_metadata()["bound"]
        assert (abs(value) <= bound).all(), name
        assert (abs(other) <= bound * (1 + 1e-6)).all(), name
        assert (value != other).mean() > 0.99, name  # another key
        # The deviation of the mean of n squares of uniforms is sqrt(4 / 45 / n), as a share of
        # bound squared; five of them.
        spread = 5 * np.sqrt(4 / 45 / value.size)
        assert abs(np.square(value).mean() / bound**2 - 1 / 3) < spread, name
        assert abs(value.mean()) < 5 * bound / np.sqrt(3 * value.size), name
    assert 0 < constants < len(own)
    # No two of them are cut from the same place.
    every = np.concatenate([
        np.ravel(variable.get_value() / variable.get_metadata()["bound"])
        for variable in own.values()
        if "bound" in variable.get_metadata()
    ])  # fmt: skip
    assert len(np.unique(every)) > 0.99 * len(every)
    assert abs(np.std(every) * np.sqrt(3) - 1) < 0.05


def test_shapes_alone_are_enough_and_the_key_decides(variables):
    shapes = jax.eval_shape(lambda: variables)
    first, again = (draw(variables, jax.random.key(1)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(np.testing.assert_array_equal, first, draw(shapes, jax.random.key(1)))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(first))
    other = draw(shapes, jax.random.key(2))
    differ = [(a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True)]
    drawn = ["bound" in variable.get_metadata() for variable in arrays(first).values()]
    assert differ == drawn


def test_weights_are_named_by_how_their_names_begin():
    tree = {"head": [{"bias": 1, "kernel": 2}, {"bias": 3}], "header": {"bias": 4}}
    for prefixes, expected in (
        ((), []), (("head",), [1, 2, 3]), (("head.1", "header/bias"), [3, 4]),
    ):  # fmt: skip
        chosen = named_by(tree, prefixes)
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(chosen), strict=True)
        assert [leaf for leaf, own in pairs if own] == expected
    with pytest.raises(InputError) as caught:
        named_by(tree, ("haed", "head", "", "head.0.b"))
    assert [p.found.partition(",")[0] for p in caught.value.problems] == ["haed", "", "head.0.b"]
    with pytest.raises(InputError, match="all weights"):
        named_by(tree, ("head", "header"))
