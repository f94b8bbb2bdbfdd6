"""The recipes do what they say, and leads over them are paired by chromosome."""

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from tests.recipes.__main__ import ALL, BASE, RIDGE, leads
from tests.recipes.models import (
    DECAY,
    AveragedConfig,
    LinearPathConfig,
    augmented,
    some_marks,
)
from tests.recipes.worlds import MARKS, WORLDS, alone, make

SMALL = {"window_bp": 4000, "bin_bp": 200, "width": 0.01, "assays": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def batch():
    x = jax.random.uniform(jax.random.key(0), (3, 20, 2))
    return x, jax.numpy.ones(3, bool)


def test_averaged_weights_are_the_mean_over_steps(batch):
    x, mask = batch
    model = AveragedConfig(**SMALL).build(rngs=nnx.Rngs(1))
    outputs = nnx.jit(lambda model, key: model(x, mask=mask, key=key))
    before = outputs(model, None)
    bias, taken = model.network.output.bias, []
    for step, value in enumerate((1.0, 4.0, -2.0)):  # what an optimiser would do between steps
        bias[...] = jax.numpy.full(1, value)
        taken.append(value)
        outputs(model, jax.random.key(step))
    weights = (1 - DECAY) * DECAY ** np.arange(3)[::-1]
    mean = np.average(taken, weights=weights)
    np.testing.assert_allclose(outputs(model, None), before + mean, rtol=1e-4)


def test_a_linear_path_starts_as_the_network(batch):
    x, mask = batch
    model = LinearPathConfig(**SMALL).build(rngs=nnx.Rngs(1))
    plain = PromoterCnnConfig(**SMALL).build(rngs=nnx.Rngs(1))
    outputs = nnx.jit(lambda model: model(x, mask=mask, key=None))
    before = outputs(plain)
    np.testing.assert_allclose(outputs(model), before, rtol=1e-5)
    model.linear[...] = model.linear[...].at[0, 1].set(2.0)
    added = outputs(model) - before
    np.testing.assert_allclose(added, 2 * x[:, 0, 1], rtol=1e-4)


def test_training_windows_are_moved_and_emptied_in_part():
    x = np.arange(1.0, 201)[None, :, None] * np.ones((40, 1, 1))
    made = np.asarray(augmented(jax.numpy.asarray(x), jax.random.key(0)))
    moved = (made - x)[:, 2:-2]
    assert set(np.unique(moved[made[:, 2:-2] > 0])) == {-2, -1, 0, 1, 2}
    assert 0.05 < (made == 0).mean() < 0.15
    shown = np.asarray(some_marks(jax.numpy.ones((200, 4, 3)), jax.random.key(0)))[:, 0]
    assert (shown.sum(1) > 0).all()
    assert 0.4 < shown.mean() < 0.7
    only = jax.numpy.ones((50, 4, 3)).at[:, :, [0, 2]].set(0)
    np.testing.assert_array_equal(some_marks(only, jax.random.key(0)), only)  # never all hidden


def test_a_store_of_one_mark_has_no_signal_of_others(tmp_path):
    store = make(tmp_path / "worlds.zarr", 45)
    only = alone(store, "body", tmp_path / "only.zarr")
    assert store.manifest.cells == list(WORLDS)
    own, all_marks = (each.read_signal(["distal"], MARKS)[0] for each in (only, store))
    assert (all_marks.sum((1, 2)) > 0).all()
    np.testing.assert_array_equal(own[1], all_marks[1])
    assert own[[0, 2, 3, 4]].sum() == 0
    np.testing.assert_array_equal(
        only.read_expression(["linear"]), store.read_expression(["linear"])
    )


def test_leads_are_paired_by_chromosome():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.9, 15)
    rows = [
        {"world": "w", "reads": ALL, "recipe": recipe, "assays": "a+b", "chrom": f"chr{k}",
         "pearson": base[k] + lead, "n": 40 + k}
        for recipe, lead in ((BASE, 0.0), (RIDGE, -0.1), ("better", 0.02))
        for k in range(15)
    ]  # fmt: skip
    table = leads(pd.DataFrame(rows)).set_index("recipe")
    better = table.loc["better"]
    for of, lead in ((BASE, 0.02), (RIDGE, 0.12)):
        found = better[[f"lead_{of}", f"low_{of}", f"high_{of}"]].to_numpy(float)
        np.testing.assert_allclose(found, lead, atol=1e-9)  # the same on all: no interval's width
    assert table.r[BASE] == pytest.approx(np.average(base, weights=40 + np.arange(15)))
